//! The folder of results: `report.html`, `labels.parquet`, `labels.csv`, `fractions.json`, histograms and the contact sheet.

use std::path::Path;

use serde::Serialize;

use super::figure::{Example, Panel, contact_sheet, distances};
use super::frame::{Names, labels_frame, write_csv};
use super::page::{Drawn, page};
use super::{Answer, Copies, CopiesError, Label};
use crate::class::Class;
use crate::data::ImageSet;
use crate::data::image_set::{Format, Values};
use crate::detect::{LEAST_RATIO, Near, Neighbour, Origin, Share, Threshold, examples};
use crate::frame::write_parquet_with;
use crate::metric::Metric;
use crate::plot::style::{GRAY, OLIVE};
use crate::store::{write_atomic, write_folder};

/// Samples of a class on the contact sheet.
const COLUMNS: usize = 8;

/// One input in [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// Its path, as given; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Its format.
    pub format: Format,
    /// Number of images.
    pub images: usize,
    /// Height, width and channels; `None` when the file does not give them.
    pub shape: Option<[usize; 3]>,
    /// Range and percentiles of the values.
    pub values: Values,
    /// What was read, passed over and done to it.
    pub said: String,
}

impl Input {
    fn new(set: &ImageSet) -> Self {
        Self {
            path: set.path().display().to_string(),
            format: set.format(),
            images: set.len(),
            shape: set.shape().map(|s| [s.height, s.width, s.channels]),
            values: *set.values(),
            said: set.said(),
        }
    }
}

/// Contents of `fractions.json`.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of the program.
    pub version: &'static str,
    /// The distance.
    pub metric: Metric,
    /// Device of the search for neighbours.
    pub device: String,
    /// D.
    pub train: Input,
    /// S.
    pub synthetic: Input,
    /// Held-out images.
    pub held_out: Option<Input>,
    /// Number of transformations of each image that were compared.
    pub transformations: usize,
    /// Command line; `None` for a call of the library.
    pub command: Option<String>,
    /// The answer in one sentence.
    pub verdict: String,
    /// Labels, thresholds, evidence and fractions.
    #[serde(flatten)]
    pub answer: &'a Answer,
    /// Figures that are not in the folder, each with the reason.
    pub not_drawn: Vec<String>,
}

/// A row of the contact sheet: a label, its fraction and its samples.
type Row = (Label, Share, Vec<Example>);

impl Copies {
    /// Contents of `fractions.json`. `not_drawn` are the figures that were left out.
    pub fn report(&self, command: Option<&str>, not_drawn: Vec<String>) -> Report<'_> {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            metric: self.metric,
            device: self.compared.neighbours.device.to_string(),
            train: Input::new(self.images.train()),
            synthetic: Input::new(self.images.synthetic()),
            held_out: self.images.held_out().map(Input::new),
            transformations: self.transformations.len(),
            command: command.map(str::to_owned),
            verdict: self.answer.verdict(&self.compared),
            answer: &self.answer,
            not_drawn,
        }
    }

    /// Writes the folder `path`, which must not exist or be empty: all of it or nothing. The report names the `command`.
    ///
    /// # Errors
    /// As [`write_folder`], [`labels_frame`], [`distances`] and [`contact_sheet`].
    pub fn write(&self, path: &Path, command: Option<&str>) -> Result<(), CopiesError> {
        self.write_with(path, command, |_| Ok(()))
    }

    /// As [`Self::write`], with the files that `more` writes into the folder.
    pub(super) fn write_with(
        &self,
        path: &Path,
        command: Option<&str>,
        more: impl FnOnce(&Path) -> Result<(), CopiesError>,
    ) -> Result<(), CopiesError> {
        write_folder(path, |folder| {
            more(folder)?;
            self.write_labels(folder)?;
            let (drawn, mut not_drawn) = self.histograms()?;
            for (id, _, figure) in &drawn {
                figure.save(folder, id)?;
            }
            not_drawn.extend(self.draw_examples(folder)?);
            let report = self.report(command, not_drawn);
            let html = page(self, &report, &drawn)?;
            write_atomic(&folder.join("report.html"), |w| w.write_all(html.as_bytes()))?;
            write_atomic(&folder.join("fractions.json"), |w| {
                serde_json::to_writer_pretty(&mut *w, &report)?;
                writeln!(w)
            })?;
            Ok(())
        })
    }

    fn write_labels(&self, folder: &Path) -> Result<(), CopiesError> {
        let names = Names { train: self.images.train().files(), synthetic: self.images.synthetic().files() };
        let frame = labels_frame(&self.compared, &self.answer, &self.transformations, names)?;
        let device = self.compared.neighbours.device.to_string();
        write_parquet_with(&folder.join("labels.parquet"), &frame, &[("device", &device)])?;
        write_atomic(&folder.join("labels.csv"), |w| write_csv(&frame, w))?;
        Ok(())
    }

    /// Draws the histograms; gives those that have nothing to show too.
    fn histograms(&self) -> Result<(Drawn, Vec<String>), CopiesError> {
        let (found, answer) = (&self.compared, &self.answer);
        let neighbours = &found.neighbours;
        let known =
            |near: &[Option<Neighbour>]| -> Vec<f64> { near.iter().flatten().map(|n| n.distance).collect() };
        let ratios = |near: &[Near]| -> Vec<f64> { near.iter().filter_map(Near::ratio).collect() };
        let of_samples: Vec<Near> = found.samples.iter().flatten().copied().collect();
        let (null, distances_of_null, ratios_of_null) = match (&neighbours.held_out, &found.held_out) {
            (Some(distances), Some(near)) => ("held-out images", distances.clone(), ratios(near)),
            _ => ("training images and the others", neighbours.within.clone(), ratios(&found.within)),
        };
        let mark = |threshold: &Threshold| {
            let origin = match threshold.origin {
                Origin::Manual => "given",
                Origin::Valley => "valley",
                Origin::Null => "held-out",
                Origin::Unknown | Origin::NoDistances => return None,
            };
            threshold.value.map(|value| (value, format!("{value:.4} ({origin})")))
        };
        let panels = [
            Panel {
                id: "d_train",
                caption: "How far the samples are from the training set, and how far real images are that are new to it. Copies \
                          lie to the left of all new images.",
                title: "Distance to the training set",
                name: "d(x, D)",
                values: known(&neighbours.train),
                null: Some((null, distances_of_null)),
                floor: neighbours.least,
                threshold: mark(&answer.delta_m),
                colour: OLIVE,
            },
            Panel {
                id: "ratio",
                caption: "How much nearer the nearest training image is than the nearest different one. p-values are those of \
                          this ratio, where a sample has one.",
                title: "Nearest over nearest different training image",
                name: "d1 / d2",
                values: ratios(&of_samples),
                null: Some((null, ratios_of_null)),
                floor: LEAST_RATIO,
                threshold: answer.ratio.map(|rule| (rule.below, "1/3".to_owned())),
                colour: OLIVE,
            },
            Panel {
                id: "d_synthetic",
                caption: "How far each sample is from the nearest other one. Repeats lie to the left.",
                title: "Distance to the other samples",
                name: "d(x, S \\ x)",
                values: known(&neighbours.synthetic),
                null: None,
                floor: neighbours.least,
                threshold: mark(&answer.delta_s),
                colour: GRAY,
            },
        ];
        let (mut drawn, mut not_drawn) = (Drawn::new(), Vec::new());
        for panel in panels {
            if panel.values.is_empty() {
                not_drawn.push(format!("{}: there is no {}", panel.id, panel.name));
            } else {
                drawn.push((panel.id, panel.caption, distances(&panel)?));
            }
        }
        Ok((drawn, not_drawn))
    }

    /// Draws the contact sheet, or says why there is none.
    fn draw_examples(&self, folder: &Path) -> Result<Vec<String>, CopiesError> {
        if self.shape.is_none() {
            return Ok(vec!["examples: the inputs do not say the shape of an image".to_owned()]);
        }
        let Some(classes) = self.sheet()? else {
            return Ok(vec!["examples: no sample has a class".to_owned()]);
        };
        contact_sheet("Samples, with the nearest of D above and of S below", &classes)?
            .save(folder, "examples")?;
        Ok(vec![])
    }

    /// Samples of each class with their neighbours; `None` when there is no shape, no label or no valid sample.
    fn sheet(&self) -> Result<Option<Vec<Row>>, CopiesError> {
        let (images, neighbours, answer) = (&self.images, &self.compared.neighbours, &self.answer);
        let Some(shape) = self.shape else { return Ok(None) };
        let labels: Vec<Class> = answer.labels.iter().map(|label| label.class()).collect();
        let captioned = |set: &ImageSet, near: Neighbour| -> Result<_, CopiesError> {
            Ok((set.picture(near.index, shape)?, near.distance))
        };
        let example = |i: usize| -> Result<Example, CopiesError> {
            let near = neighbours.train[i].expect("a sample with a class has a nearest training image");
            Ok(Example {
                sample: images.synthetic().picture(i, shape)?,
                train: captioned(images.train(), near)?,
                synthetic: neighbours.synthetic[i]
                    .map(|near| captioned(images.synthetic(), near))
                    .transpose()?,
            })
        };
        let shares = &answer.fractions;
        let listed = [
            (Label::Class(Class::Memorized), Some(shares.memorized)),
            (Label::Class(Class::Spurious), shares.spurious),
            (Label::Class(Class::Generalized), shares.generalized),
            (Label::New, shares.new),
        ];
        let classes = listed
            .into_iter()
            .filter_map(|(label, share)| Some((label, share?)))
            .map(|(label, share)| {
                let chosen = examples(neighbours, &labels, label.class(), COLUMNS);
                let shown = chosen.into_iter().map(example).collect::<Result<Vec<_>, _>>()?;
                Ok((label, share, shown))
            })
            .collect::<Result<Vec<Row>, CopiesError>>()?;
        Ok(classes.iter().any(|(.., shown)| !shown.is_empty()).then_some(classes))
    }
}
