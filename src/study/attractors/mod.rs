//! A census of the attractors of trained networks: the stable fixed points of the retrieval map y <- x0hat(sqrt(alpha_bar)
//! y, t) at a fixed level t, which is Eq. 35's condition that the score vanishes.
//!
//! A label says that two samples are near each other, a basin that noise comes back. Here the network is asked directly:
//! its map is iterated from noise, samples, training images and held-out images until it stands still.
//! [`measure`] counts the attractors of one subject, [`census`] those of all networks of a profile.

mod census;
pub mod figure;
pub mod frame;
mod rows;
mod run;
mod settings;
mod settle;

pub use census::{Found, Starts, find, measure, starts};
pub use rows::{Attractor, CensusRow, FlowRow, Start, chao1};
pub use run::{Censuses, census};
pub use settings::{CensusParams, CensusSettings};

/// Version of the values that this study computes. It is raised by every change that moves a value.
pub const VERSION: u32 = 1;

/// The study's name in errors.
const NAME: &str = "attractors";
