//! The measurements that the figures are drawn from, each a function from settings and data to rows.

pub mod basin;
mod cells;
pub mod chosen;
pub mod claims;
pub mod curvature;
mod error;
mod fixed_points;
mod lapack;
pub mod load;
pub mod potential;
pub mod toy;
pub mod toy_trained;
pub mod transition;

pub use cells::Cells;
pub use error::AnalysisError;
