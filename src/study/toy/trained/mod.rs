//! The trained half of Fig. 2: networks trained on toy points, their energies, attractors and samples.

mod analysis;
pub mod figure;
pub(crate) mod fixed_points;
pub mod frame;
mod run;

pub use analysis::*;
pub use run::{ExactLandscapes, toy_trained, toy_trained_exact};
