//! Relative energy along arcs (Eqs. 43 to 48; Figs. 6, 25 to 30).
//!
//! [`measure`] gives the relative energies of images of one subject, [`energies`] those of all networks of a profile.

pub mod figure;
pub mod frame;
mod measure;
mod potential;
mod rows;
mod run;
mod settings;

pub use figure::GapBand;
pub use measure::{Targets, analyse, measure};
pub use potential::{Arcs, Potential};
pub use rows::{CurveRow, GapRow, LoopRow, PotentialRow, Relative, gaps};
pub use run::{Energies, energies};
pub use settings::{PotentialParams, PotentialSettings};

/// Version of the values that this study computes. It is raised by every change that moves a value.
pub const VERSION: u32 = 2;

/// The sign convention, as every table and figure states it.
pub const SIGN: &str = "u = U(reference) - U(target): larger u, lower energy of the target";

/// The study's name in errors.
const NAME: &str = "relative energy";
