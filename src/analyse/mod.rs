//! The measurements that the figures are drawn from, each a function from settings and data to rows.

mod cells;
pub mod chosen;
pub mod claims;
mod error;
mod fixed_points;
pub mod load;
pub mod potential;
pub mod toy;
pub mod toy_trained;

pub use cells::Cells;
pub use error::AnalysisError;
