//! Basins of attraction (Alg. 1, Eqs. 12 and 34; Figs. 4B, 16 to 19).
//!
//! [`measure`] searches the basins of images of one subject, [`basins`] those of all networks of a profile. [`returns`] has no
//! threshold and compares training images with unseen ones.

pub mod figure;
pub mod frame;
mod returns;
mod rows;
mod run;
mod search;
mod settings;

pub use returns::{ReturnRow, ReturnSettings, Returns, all_returns, returns};
pub use rows::{AttractorRow, AttractorShares, AttractorSummary, BasinRow, BasinSummary, Mean, summarise};
pub use run::{Basins, basins};
pub use search::{Distance, Search, attractors, log_volume, measure, steps_from};
pub use settings::{BasinParams, BasinSettings};

/// Version of the values that this study computes. It is raised by every change that moves a value.
pub const VERSION: u32 = 2;

/// The study's name in errors.
const NAME: &str = "basin";
