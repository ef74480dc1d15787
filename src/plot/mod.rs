//! Figures: curves, heat maps, histograms, landscapes and images, which the studies compose.
//!
//! A figure function takes plain data, checks it and returns a [`Figure`], which contains the same drawing as PNG and as
//! SVG. The fonts are part of the crate. NaN and infinite values are errors that name the series, except in fields
//! where NaN stands for a gap.
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
mod pictures;
pub mod style;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use axes::Scale;
pub(crate) use canvas::Canvas;
pub use canvas::{Dash, PIXELS_PER_UNIT};
pub use contours::{Attractor, LandscapePanel, landscape, landscape_panels};
pub use curves::{Curve, CurvePanel, Direction, Guide, curve_panels, curves};
pub use heatmap::{HeatmapPanel, TernaryPanel, heatmap, heatmap_panels, ternary, ternary_panels};
pub use histogram::{Histogram, HistogramSeries, histogram, histogram_panels};
pub use images::{ImageGrid, ImageRow, Picture, image_grid};
pub(crate) use pictures::byte;
pub use pictures::{ImageOutput, bytes_png, sheet, write_pictures};
pub use style::{Colour, Marker, Palette, rainbow};

use crate::display::write_content;
use crate::store::{StoreError, write_atomic};

/// An error of a figure.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A value that is NaN or infinite.
    #[error("figure \"{figure}\", series \"{series}\": value {index} is {value}, expected a finite number")]
    NotFinite {
        /// Title of the figure or panel.
        figure: String,
        /// The series.
        series: String,
        /// Index in the series, in row-major order.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A value of at most zero on a logarithmic axis.
    #[error(
        "figure \"{figure}\", series \"{series}\": a logarithmic axis has the value {value}, expected a number above 0"
    )]
    NotPositive {
        /// Title of the figure or panel.
        figure: String,
        /// The series.
        series: String,
        /// The value.
        value: f64,
    },
    /// Inputs that contradict each other or are empty.
    #[error("figure \"{figure}\": {reason}")]
    Input {
        /// Title of the figure or panel.
        figure: String,
        /// What is wrong.
        reason: String,
    },
    /// A name of another form than those of images.
    #[error(
        "write {}: expected a name that ends in .npy (an array), .png (a sheet) or / (a folder of PNG files), or an empty folder",
        path.display()
    )]
    Output {
        /// The name.
        path: PathBuf,
    },
    /// The fonts cannot be loaded.
    #[error("fonts: {reason}")]
    Font {
        /// What is wrong.
        reason: String,
    },
    /// An error of the bitmap backend.
    #[error("draw figure: {reason}")]
    Draw {
        /// What is wrong.
        reason: String,
    },
    /// The PNG cannot be encoded.
    #[error("encode PNG: {reason}")]
    Encode {
        /// What is wrong.
        reason: String,
    },
    /// The files cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A figure as PNG and SVG.
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
    /// Renders a canvas.
    pub(crate) fn render(canvas: &Canvas, width: u32, height: u32, alt: &str) -> Result<Self, FigureError> {
        Ok(Self { png: canvas.png()?, svg: canvas.svg(alt)?, width, height, alt: alt.to_owned() })
    }

    /// The PNG, with [`PIXELS_PER_UNIT`] pixels for each unit.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// The SVG.
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

    /// Description of the figure in words.
    pub fn alt(&self) -> &str {
        &self.alt
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

    /// Shows the figure in a notebook: the PNG, with the description as plain text.
    pub fn evcxr_display(&self) {
        let mut out = io::stdout().lock();
        // If stdout is closed, an error can't be reported.
        let _ = self.write_display(&mut out).and_then(|()| out.flush());
    }

    /// Writes what [`Self::evcxr_display`] prints.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn write_display(&self, out: &mut dyn Write) -> io::Result<()> {
        write_content(out, "image/png", &STANDARD.encode(&self.png))?;
        write_content(out, "text/plain", &self.alt)
    }
}

/// Checks that all values are finite.
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

/// An [`FigureError::Input`].
pub(crate) fn input(figure: &str, reason: impl Into<String>) -> FigureError {
    FigureError::Input { figure: figure.to_owned(), reason: reason.into() }
}

/// Runs of rows in the order of K, split where a K of `sizes` has no row, so that no line crosses an unmeasured K.
pub(crate) fn unbroken<'a, R>(
    mut rows: Vec<&'a R>,
    sizes: &BTreeSet<usize>,
    k: impl Fn(&R) -> usize,
) -> Vec<Vec<&'a R>> {
    rows.sort_by_key(|row| k(row));
    let next = |a: &&R, b: &&R| sizes.range(k(a) + 1..k(b).max(k(a) + 1)).next().is_none();
    rows.chunk_by(next).map(<[&R]>::to_vec).collect()
}

/// Smallest and largest finite value; `None` without one.
pub(crate) fn bounds<'a>(values: impl IntoIterator<Item = &'a f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite()).fold(None, |range, &v| match range {
        None => Some((v, v)),
        Some((lo, hi)) => Some((v.min(lo), v.max(hi))),
    })
}
