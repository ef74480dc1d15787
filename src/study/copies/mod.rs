//! Are my samples copies? Labels for a synthetic set of images (Eqs. 9 to 11).
//!
//! [`Images::read`] reads the sets, [`CopiesSettings::check`] the settings; [`CopiesParams::compare`] finds neighbours
//! and labels, and [`Copies::write`] writes the folder of results. [`OfRun`] does all this for a training run.

mod answer;
mod error;
pub mod figure;
pub mod frame;
mod images;
mod memory;
mod of_run;
mod page;
mod report;
mod rows;
mod run;
mod transformation;

pub use answer::{Answer, Label, Rung, Shares, Status};
pub use error::CopiesError;
pub use images::Images;
pub use memory::Size;
pub use of_run::{MOST_HELD_OUT, OfRun};
pub use report::{Input, Report};
pub use run::{Copies, CopiesParams, CopiesSettings};
pub use transformation::Transformation;
