//! Curvature: singular values of the score's Jacobian (Algs. 2 and 3; Figs. 5A, 20 to 23).

pub mod figure;
pub mod frame;
mod lapack;
mod run;
mod spectrum;

pub use run::{Spectra, spectra};
pub use spectrum::{
    CurvatureParams, CurvatureSettings, CurveRow, Exact, PointRow, Points, Set, SetRow, Spectrum, VERSION,
    Variant, curvature, curve_rows, dimension, point_rows, set_row,
};
