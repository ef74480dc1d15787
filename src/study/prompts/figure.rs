//! Figures of prompts.

use ndarray::{Array3, ArrayView1};

use super::doses::{DoseGroup, DoseRow, Doses, SpectrumRow};
use super::roc::{Target, points};
use super::{Measured, PromptModel, PromptRow, RocRow, band};
use crate::Error;
use crate::frame::{Item, Table, TableError};
use crate::plot::{
    Curve, CurvePanel, Dash, Figure, FigureError, Guide, ImageGrid, ImageRow, Marker, Picture, Scale,
    curve_panels, curves, image_grid, input, rainbow,
};
use crate::shape::Shape;
use crate::study::prompts::frame::roc_frame;
use crate::train::Part;

/// Measures whose curves are drawn.
const DRAWN: [&str; 5] = ["curvature", "diversity", "noise_mean", "sharpness", "alignment"];

impl Doses {
    /// Mean singular values of S against their place (Fig. 5B): a curve with its standard deviation for each dose of the
    /// settings and for the templates. Lines show the band of an isolated memory, [`band`].
    ///
    /// # Errors
    /// As [`curves`].
    pub fn spectra(&self) -> Result<Figure, FigureError> {
        let groups = self.shown(self.spectra.iter().map(|row| (row.part.as_str(), row.dose)));
        let mut panel =
            CurvePanel::new("Singular values of S", "place of the singular value", "singular value of S");
        if let Some(first) = self.spectra.first() {
            let [low, high] = band(first.rows, first.dim, first.sigma);
            panel = panel.guide(Guide::horizontal(low, "isolated memory")).guide(Guide::horizontal(high, ""));
        }
        for (at, group) in groups.iter().enumerate() {
            let of = |row: &&SpectrumRow| row.part == group.part.name() && row.dose == group.dose;
            let rows: Vec<&SpectrumRow> = self.spectra.iter().filter(of).collect();
            let (x, y) = rows.iter().map(|row| (row.index as f64, row.mean)).unzip();
            let edges = rows.iter().map(|row| (row.mean - row.std, row.mean + row.std)).collect();
            let curve = Curve::new(&group.name(), x, y).band(edges).colour(rainbow(at, groups.len()));
            panel = panel.curve(if group.part == Part::Template { curve.dash(Dash::Dashed) } else { curve });
        }
        curves(&panel)
    }

    /// Share of samples that are a training image of their caption, and median curvature with its quartiles, against the
    /// dose: a curve for each step of training. Dashed lines are the templates at the last step.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn response(&self) -> Result<Figure, FigureError> {
        let all = self.groups();
        let panel = |title: &str, y: &str| CurvePanel::new(title, "dose", y).x_scale(Scale::Log2);
        let mut returned = panel("Training image returned", "share of samples").y_range(0.0, 1.0);
        let mut curvature = panel("Curvature", "\u{3c3}\u{2016}S\u{2016} / \u{221a}(R D)");
        for (at, &step) in self.settings.steps.iter().enumerate() {
            let rows: Vec<&DoseRow> =
                all.iter().filter(|row| row.step == step && row.group.part == Part::Dosed).collect();
            let curve = |y: &dyn Fn(&DoseRow) -> f64| {
                let (x, y) = rows.iter().map(|row| (row.group.dose, y(row))).unzip();
                let colour = rainbow(at, self.settings.steps.len());
                Curve::new(&format!("step {step}"), x, y).colour(colour).marker(Marker::Circle)
            };
            returned = returned.curve(curve(&|row| row.returned));
            let quartiles = rows.iter().map(|row| (row.curvature[0], row.curvature[2])).collect();
            curvature = curvature.curve(curve(&|row| row.curvature[1]).band(quartiles));
        }
        let last = self.settings.steps.last();
        if let Some(row) = all.iter().find(|row| Some(&row.step) == last && row.group.part == Part::Template)
        {
            returned = returned.guide(Guide::horizontal(row.returned, "templates"));
            curvature = curvature.guide(Guide::horizontal(row.curvature[1], "templates"));
        }
        curve_panels("Dose and response", &[returned, curvature], 2)
    }

    /// True against false positive rate of measures, for captions seen often against rarely and for captions that are
    /// returned against others.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn roc_curves(&self) -> Result<Figure, FigureError> {
        let rows = self.last();
        let panel = |(target, title): (Target, &str)| {
            let axes = CurvePanel::new(title, "false positive rate", "true positive rate");
            DRAWN.into_iter().fold(axes.x_range(0.0, 1.0).y_range(0.0, 1.0), |panel, name| {
                match points(&rows, &self.settings.roc, name, target) {
                    Some((x, y)) => panel.curve(Curve::new(name, x, y)),
                    None => panel,
                }
            })
        };
        let panels = [(Target::Dose, "Seen often or rarely"), (Target::Returned, "Training image returned")]
            .map(panel);
        curve_panels("Measures of memorization", &panels, 2)
    }

    /// Curvature against total variation of the picture, a point for each caption with a dose, in the mean over its seeds.
    ///
    /// # Errors
    /// As [`curves`].
    pub fn confound(&self) -> Result<Figure, FigureError> {
        let settings = &self.settings.roc;
        let rows = self.last();
        let captions: Vec<(f64, f64, f64)> = rows
            .chunk_by(|a, b| a.prompt == b.prompt)
            .filter(|rows| rows[0].part.as_deref() == Some(Part::Dosed.name()))
            .filter_map(|rows| {
                let mean = |of: fn(&PromptRow) -> f64| {
                    rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64
                };
                Some((rows[0].dose?, mean(|row| row.variation), mean(|row| row.curvature)))
            })
            .collect();
        let (rarely, often) = (settings.rarely, settings.often);
        let kind = |dose: f64| usize::from(dose > rarely) + usize::from(dose >= often);
        let kinds = [
            (format!("dose {rarely} and less"), Marker::Square),
            ("doses between".to_owned(), Marker::Diamond),
            (format!("dose {often} and more"), Marker::Circle),
        ];
        let axes = CurvePanel::new(
            "Curvature and total variation",
            "total variation of the picture",
            "\u{3c3}\u{2016}S\u{2016} / \u{221a}(R D)",
        );
        curves(&kinds.into_iter().enumerate().fold(axes, |panel, (at, (name, marker))| {
            let (x, y): (Vec<f64>, Vec<f64>) =
                captions.iter().filter(|c| kind(c.0) == at).map(|c| (c.1, c.2)).unzip();
            match x.is_empty() {
                true => panel,
                false => panel.curve(Curve::new(&name, x, y).marker(marker).without_line()),
            }
        }))
    }

    /// The groups that the settings show, the templates last.
    fn shown<'a>(&self, keys: impl Iterator<Item = (&'a str, f64)>) -> Vec<DoseGroup> {
        let mut found: Vec<DoseGroup> = Vec::new();
        for (part, dose) in keys {
            let Some(part) = Part::ALL.into_iter().find(|p| p.name() == part) else { continue };
            let group = DoseGroup { part, dose };
            if (part == Part::Template || self.settings.shown.contains(&dose)) && !found.contains(&group) {
                found.push(group);
            }
        }
        found
    }

    /// Groups and steps as a table.
    ///
    /// # Errors
    /// [`TableError`] when polars refuses a column.
    pub fn table(&self) -> Result<Table, TableError> {
        let rows = self.groups();
        let each = |of: fn(&DoseRow) -> f64| f64::column("", rows.iter().map(of).collect());
        let named = |name: &str, mut column: polars::prelude::Column| {
            column.rename(name.into());
            column
        };
        Table::new(
            "Captions by dose",
            vec![
                u64::column("step", rows.iter().map(|row| row.step).collect()),
                String::column("group", rows.iter().map(|row| row.group.name()).collect()),
                usize::column("captions", rows.iter().map(|row| row.captions).collect()),
                named("returned", each(|row| row.returned)),
                named("captions returned", each(|row| row.captions_returned)),
                named("curvature", each(|row| row.curvature[1])),
                named("diversity", each(|row| row.diversity)),
                named("nearest", each(|row| row.nearest)),
            ],
        )
        .map(|table| table.rows(usize::MAX).digits(3))
    }

    /// Areas under the curves as a table.
    ///
    /// # Errors
    /// Those of [`Doses::roc`] and of the table.
    pub fn roc_table(&self) -> Result<Table, Error> {
        let rows: Vec<RocRow> = self.roc()?;
        Ok(Table::from_frame("Areas under the curves", roc_frame(&rows)?).rows(usize::MAX).digits(3))
    }
}

/// Samples of prompts, a row for each prompt and a column for each seed, with a training image of the same caption in front
/// where the model knows its training set.
///
/// # Errors
/// As [`image_grid`]; [`FigureError::Input`] for no samples.
pub fn sample_pictures(model: &dyn PromptModel, measured: &[Measured]) -> Result<Figure, FigureError> {
    let title = "Samples of prompts";
    let Some(seeds) = measured.chunk_by(|a, b| a.row.prompt == b.row.prompt).map(<[Measured]>::len).max()
    else {
        return Err(input(title, "there are no samples to draw"));
    };
    let truth = model.truth();
    let head = truth.map(|_| "training".to_owned());
    let columns = head.into_iter().chain((1..=seeds).map(|seed| format!("seed {seed}")));
    let grid = ImageGrid::new(title).columns(columns.collect());
    let rows = measured.chunk_by(|a, b| a.row.prompt == b.row.prompt);
    image_grid(&rows.fold(grid, |grid, of| {
        let row = &of[0].row;
        let group = DoseGroup::of(row).map_or_else(String::new, |group| format!(" ({})", group.name()));
        let own = truth.map(|truth| {
            let at = truth.rows.iter().position(|dosed| dosed.caption == row.caption)?;
            Some(picture(truth.images.row(at), model.shape()))
        });
        let samples = of.iter().map(|one| {
            let [height, width, channels] = one.shape;
            let pixels = one.picture.iter().map(|byte| f32::from(*byte) / 255.0).collect();
            Array3::from_shape_vec((height, width, channels), pixels).ok().map(Picture::new)
        });
        let images = own.into_iter().chain(samples).collect();
        grid.row(ImageRow { label: format!("{}{group}", row.caption), images })
    }))
}

/// An image with values in [-1, 1].
fn picture(image: ArrayView1<'_, f32>, shape: Shape) -> Picture {
    let Shape { height, width, channels } = shape;
    let at = |(y, x, c)| 0.5 * (image[(y * width + x) * channels + c] + 1.0);
    Picture::new(Array3::from_shape_fn((height, width, channels), at))
}
