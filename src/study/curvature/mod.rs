//! Curvature: singular values of the score's Jacobian (Algs. 2 and 3; Figs. 5A, 20 to 23).
//!
//! [`measure`] gives the spectra at images of one subject, [`spectra`] those of all networks of a profile.

pub mod figure;
pub mod frame;
mod rows;
mod run;
mod settings;
mod spectrum;

pub use rows::{CurveRow, PointRow, Set, SetRow, curve_rows, dimension, point_rows, set_row};
pub use run::{Spectra, spectra};
pub use settings::{CurvatureParams, CurvatureSettings, Variant};
pub use spectrum::{Exact, Points, Spectrum, curvature, measure};

/// Version of the values that this study computes. It is raised by every change that moves a value.
pub const VERSION: u32 = 2;

/// The study's name in errors.
const NAME: &str = "curvature";
