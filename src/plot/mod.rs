//! Figures: what every figure is made of, and in [`toy`], [`toy_trained`] and [`load`] one function a figure.
//!
//! A figure function takes plain data, checks it and returns a [`Figure`], which holds the same drawing
//! as PNG and as SVG. The fonts come with the crate. Numbers that are NaN or infinite are refused by
//! name, except where a field says that they stand for a gap.
//!
//! ```
//! use mem2gen::plot::{Curve, CurvePanel, Scale, curves};
//!
//! let panel = CurvePanel::new("energy against β", "β", "energy")
//!     .x_scale(Scale::Log10)
//!     .curve(Curve::new("K = 2", vec![1.0, 10.0, 100.0], vec![0.3, 0.2, 0.1]));
//! let figure = curves(&panel)?;
//! assert!(figure.png().starts_with(b"\x89PNG"));
//! # Ok::<(), mem2gen::plot::FigureError>(())
//! ```

mod axes;
mod canvas;
mod contours;
mod curves;
mod heatmap;
mod histogram;
mod images;
pub mod style;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use axes::Scale;
pub(crate) use canvas::Canvas;
pub use canvas::{Dash, PIXELS_PER_UNIT};
pub use contours::{Arrow, Attractor, LandscapePanel, landscape, landscape_panels};
pub use curves::{Curve, CurvePanel, Direction, Guide, curve_panels, curves};
pub use heatmap::{HeatmapPanel, TernaryPanel, heatmap, heatmap_panels, ternary, ternary_panels};
pub use histogram::{Histogram, HistogramSeries, histogram, histogram_panels};
pub use images::{ImageGrid, ImageRow, Picture, image_grid};
pub use style::{Colour, Marker, Palette, rainbow};

use crate::display::{escape, write_content};
use crate::store::{StoreError, write_atomic};

/// What can go wrong with a figure.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A number that can't be drawn.
    #[error("figure \"{figure}\", series \"{series}\": value {index} is {value}, which is not finite")]
    NotFinite {
        /// Title of the figure or panel.
        figure: String,
        /// The series.
        series: String,
        /// Position in the series, in the order of memory.
        index: usize,
        /// The number.
        value: f64,
    },
    /// A number at or below zero on a logarithmic axis.
    #[error("figure \"{figure}\", series \"{series}\": {value} has no place on a logarithmic axis")]
    NotPositive {
        /// Title of the figure or panel.
        figure: String,
        /// The series.
        series: String,
        /// The number.
        value: f64,
    },
    /// Inputs that contradict each other, or hold nothing to draw.
    #[error("figure \"{figure}\": {reason}")]
    Input {
        /// Title of the figure or panel.
        figure: String,
        /// What is wrong.
        reason: String,
    },
    /// The fonts can't be used.
    #[error("fonts: {reason}")]
    Font {
        /// What is wrong.
        reason: String,
    },
    /// The bitmap backend refused.
    #[error("drawing: {reason}")]
    Draw {
        /// What is wrong.
        reason: String,
    },
    /// The pixels can't be encoded.
    #[error("encoding PNG: {reason}")]
    Encode {
        /// What is wrong.
        reason: String,
    },
    /// The files can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One finished figure.
#[derive(Clone, PartialEq, Eq)]
pub struct Figure {
    png: Vec<u8>,
    svg: String,
    width: u32,
    height: u32,
    alt: String,
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure({} x {}, {} bytes of PNG, {:?})", self.width, self.height, self.png.len(), self.alt)
    }
}

impl Figure {
    /// Renders what a canvas holds.
    pub(crate) fn render(canvas: &Canvas, width: u32, height: u32, alt: &str) -> Result<Self, FigureError> {
        Ok(Self { png: canvas.png()?, svg: canvas.svg(alt)?, width, height, alt: alt.to_owned() })
    }

    /// The bitmap, [`PIXELS_PER_UNIT`] pixels a unit.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// The vector drawing.
    pub fn svg(&self) -> &str {
        &self.svg
    }

    /// Width in units, which are pixels of the SVG.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in units.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What the figure shows, in words.
    pub fn alt(&self) -> &str {
        &self.alt
    }

    /// The same figure with another text for those who can't see it.
    pub fn with_alt(mut self, alt: &str) -> Self {
        let (old, new) = (escape(&self.alt), escape(alt));
        self.svg = self.svg.replacen(&format!("<title>{old}</title>"), &format!("<title>{new}</title>"), 1);
        self.alt = alt.to_owned();
        self
    }

    /// Writes `folder/id.png` and `folder/id.svg` and returns both paths.
    ///
    /// # Errors
    /// [`FigureError::Store`].
    pub fn save(&self, folder: &Path, id: &str) -> Result<[PathBuf; 2], FigureError> {
        let png = folder.join(format!("{id}.png"));
        let svg = folder.join(format!("{id}.svg"));
        write_atomic(&png, |w| w.write_all(&self.png))?;
        write_atomic(&svg, |w| w.write_all(self.svg.as_bytes()))?;
        Ok([png, svg])
    }

    /// Shows the figure in a notebook: PNG, and the words as plain text.
    pub fn evcxr_display(&self) {
        let mut out = io::stdout().lock();
        // A notebook that has gone away is nobody to report to.
        let _ = self.write_display(&mut out).and_then(|()| out.flush());
    }

    /// Writes what [`Self::evcxr_display`] prints.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_display(&self, out: &mut dyn Write) -> io::Result<()> {
        write_content(out, "image/png", &STANDARD.encode(&self.png))?;
        write_content(out, "text/plain", &self.alt)
    }
}

/// Refuses numbers that are not finite.
pub(crate) fn check_finite<'a>(
    figure: &str,
    series: &str,
    values: impl IntoIterator<Item = &'a f64>,
) -> Result<(), FigureError> {
    match values.into_iter().enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((index, &value)) => {
            Err(FigureError::NotFinite { figure: figure.to_owned(), series: series.to_owned(), index, value })
        }
    }
}

/// A number with at most three decimals.
pub(crate) fn short(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A contradiction in the inputs.
pub(crate) fn input(figure: &str, reason: impl Into<String>) -> FigureError {
    FigureError::Input { figure: figure.to_owned(), reason: reason.into() }
}

/// Rows in the order of K, apart wherever a K of `sizes` has none: a line across it would say what was not measured.
pub(crate) fn unbroken<'a, R>(
    mut rows: Vec<&'a R>,
    sizes: &BTreeSet<usize>,
    k: impl Fn(&R) -> usize,
) -> Vec<Vec<&'a R>> {
    rows.sort_by_key(|row| k(row));
    let next = |a: &&R, b: &&R| sizes.range(k(a) + 1..k(b).max(k(a) + 1)).next().is_none();
    rows.chunk_by(next).map(<[&R]>::to_vec).collect()
}

/// Smallest and largest of finite numbers.
pub(crate) fn bounds<'a>(values: impl IntoIterator<Item = &'a f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite()).fold(None, |range, &v| match range {
        None => Some((v, v)),
        Some((lo, hi)) => Some((v.min(lo), v.max(hi))),
    })
}
