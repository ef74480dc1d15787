//! Figures of the memory load.

use ndarray::{Array1, Array2, Array3};

use crate::class::Class;
use crate::detect::wilson;
use crate::plot::{
    Curve, CurvePanel, Figure, FigureError, HeatmapPanel, ImageGrid, ImageRow, Marker, Picture, Scale,
    TernaryPanel, curve_panels, heatmap_panels, image_grid, short, ternary_panels,
};
use crate::shape::Shape;
use crate::study::load::{CellExamples, Examples, Fractions, LoadCell, MemoryLoad};

/// The cells of one data set and noise rule on their grid, K along x and beta along y.
struct CellGrid<'a> {
    title: String,
    sizes: Vec<usize>,
    betas: Vec<f64>,
    cells: Vec<&'a LoadCell>,
}

impl CellGrid<'_> {
    fn all(rows: &[LoadCell]) -> Vec<CellGrid<'_>> {
        let mut grids: Vec<CellGrid<'_>> = Vec::new();
        for cell in rows {
            let title = format!("{}, {} noise", cell.dataset, cell.noise);
            let at = grids.iter().position(|g| g.title == title).unwrap_or_else(|| {
                grids.push(CellGrid { title, sizes: vec![], betas: vec![], cells: vec![] });
                grids.len() - 1
            });
            grids[at].sizes.push(cell.k);
            grids[at].betas.push(cell.beta);
            grids[at].cells.push(cell);
        }
        for g in &mut grids {
            g.sizes.sort_unstable();
            g.sizes.dedup();
            g.betas.sort_by(f64::total_cmp);
            g.betas.dedup();
        }
        grids
    }

    /// A value for every cell, `[betas, sizes]`; NaN where a cell is missing.
    fn matrix(&self, value: impl Fn(&LoadCell) -> f64) -> Array2<f64> {
        let mut out = Array2::from_elem((self.betas.len(), self.sizes.len()), f64::NAN);
        for c in &self.cells {
            let row = self.betas.iter().position(|&b| b == c.beta);
            let column = self.sizes.iter().position(|&k| k == c.k);
            if let (Some(i), Some(j)) = (row, column) {
                out[[i, j]] = value(c);
            }
        }
        out
    }

    fn x_ticks(&self) -> Vec<String> {
        self.sizes.iter().map(usize::to_string).collect()
    }

    fn y_ticks(&self) -> Vec<String> {
        self.betas.iter().map(|&b| short(b)).collect()
    }
}

const X: &str = "stored patterns K";
const Y: &str = "inverse temperature \u{3b2}";

impl MemoryLoad {
    /// Phase diagram: fractions of memorized, spurious and generalized end states, mixed as colours.
    ///
    /// # Errors
    /// As [`ternary_panels`].
    pub fn phase_diagram(&self) -> Result<Figure, FigureError> {
        let panels: Vec<TernaryPanel> = CellGrid::all(&self.cells)
            .iter()
            .map(|g| {
                TernaryPanel::new(
                    &g.title,
                    g.matrix(|c| c.fractions.memorized),
                    g.matrix(|c| c.fractions.spurious),
                    g.matrix(|c| c.fractions.generalized),
                    g.x_ticks(),
                    g.y_ticks(),
                )
                .labels(X, Y)
            })
            .collect();
        ternary_panels("End states of DenseAM retrieval", &panels, 2)
    }

    /// Fraction of starts whose end state is the pattern that the start was made from.
    ///
    /// # Errors
    /// As [`heatmap_panels`].
    pub fn recall(&self) -> Result<Figure, FigureError> {
        let panels: Vec<HeatmapPanel> = CellGrid::all(&self.cells)
            .iter()
            .map(|g| {
                HeatmapPanel::new(&g.title, g.matrix(|c| c.recall), g.x_ticks(), g.y_ticks())
                    .labels(X, Y)
                    .colour_label("recall")
                    .range(0.0, 1.0)
            })
            .collect();
        heatmap_panels("Recall of the pattern that a start was made from", &panels, 2)
    }

    /// Mean of exp(entropy of the weights) at the end states, on a logarithmic scale.
    ///
    /// # Errors
    /// As [`heatmap_panels`].
    pub fn patterns_blended(&self) -> Result<Figure, FigureError> {
        let panels: Vec<HeatmapPanel> = CellGrid::all(&self.cells)
            .iter()
            .map(|g| {
                let values = g.matrix(|c| c.blended.max(1.0).log10());
                HeatmapPanel::new(&g.title, values, g.x_ticks(), g.y_ticks())
                    .labels(X, Y)
                    .colour_label("log10 of patterns blended")
            })
            .collect();
        heatmap_panels("How many stored patterns an end state blends", &panels, 2)
    }

    /// Fractions against K at one beta, one panel for each data set and noise rule, with 95 percent Wilson intervals:
    /// Fig. 4A for the exact memory.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn fractions(&self, beta: f64) -> Result<Figure, FigureError> {
        let panels: Vec<CurvePanel> = CellGrid::all(&self.cells)
            .iter()
            .map(|g| {
                let mut cells: Vec<&LoadCell> = g.cells.iter().copied().filter(|c| c.beta == beta).collect();
                cells.sort_by_key(|c| c.k);
                let mut panel = CurvePanel::new(&g.title, X, "fraction of end states")
                    .x_scale(Scale::Log2)
                    .y_range(0.0, 1.0);
                for class in [Class::Memorized, Class::Spurious, Class::Generalized] {
                    let fraction = |f: &Fractions| match class {
                        Class::Memorized => f.memorized,
                        Class::Spurious => f.spurious,
                        _ => f.generalized,
                    };
                    let x = cells.iter().map(|c| c.k as f64).collect();
                    let y = cells.iter().map(|c| fraction(&c.fractions)).collect();
                    let band = cells.iter().map(|c| wilson(fraction(&c.fractions), c.starts)).collect();
                    panel = panel.curve(
                        Curve::new(class.name(), x, y)
                            .colour(class.colour())
                            .marker(class.marker())
                            .band(band),
                    );
                }
                panel
            })
            .collect();
        curve_panels(&format!("Fractions against K at \u{3b2} = {}", short(beta)), &panels, 2)
    }

    /// Lowest beta of the grid with a recall above 1/2, against K.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn recall_boundary(&self) -> Result<Figure, FigureError> {
        let mut panel =
            CurvePanel::new("Where recall sets in", X, "lowest \u{3b2} of the grid with recall above 1/2")
                .x_scale(Scale::Log2)
                .y_scale(Scale::Log2);
        for g in CellGrid::all(&self.cells) {
            let recall = g.matrix(|c| c.recall);
            let (x, y): (Vec<f64>, Vec<f64>) = g
                .sizes
                .iter()
                .enumerate()
                .filter_map(|(j, &k)| {
                    let first = (0..g.betas.len()).find(|&i| recall[[i, j]] > 0.5)?;
                    Some((k as f64, g.betas[first]))
                })
                .unzip();
            if !x.is_empty() {
                panel = panel.curve(Curve::new(&g.title, x, y).marker(Marker::Circle));
            }
        }
        crate::plot::curves(&panel)
    }
}

impl Examples {
    /// Starts, their end states and the nearest stored patterns, as images.
    ///
    /// # Errors
    /// As [`image_grid`]; [`FigureError::Input`] for images that do not have the shape of the data set.
    pub fn figure(&self, title: &str) -> Result<Figure, FigureError> {
        let picture = |shape: Shape, pixels: &Array1<f32>| {
            Array3::from_shape_vec(shape.sizes(), pixels.to_vec())
                .map(Picture::new)
                .map_err(|e| FigureError::Input { figure: title.to_owned(), reason: e.to_string() })
        };
        let mut grid = ImageGrid::new(title);
        for CellExamples { label, shape, examples } in &self.rows {
            let mut starts = Vec::new();
            let mut ends = Vec::new();
            let mut stored = Vec::new();
            for e in examples {
                starts.push(picture(*shape, &e.start)?);
                ends.push(picture(*shape, &e.end)?.class(e.label));
                stored.push(picture(*shape, &e.nearest)?.caption(&format!("d = {:.2}", e.distance)));
            }
            grid = grid
                .row(ImageRow::new(&format!("{label}: start"), starts))
                .row(ImageRow::new("end state", ends))
                .row(ImageRow::new("nearest stored", stored));
        }
        image_grid(&grid)
    }
}
