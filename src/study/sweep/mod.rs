//! Sweeps over training set sizes: a network is trained on K images for many K, sampled, and its samples are labelled
//! (Sec. 4, B.1 to B.5).
//!
//! A [`Plan`] lists the cells of a sweep. A cell is a [`Task`]: a network, or the exact score, of one training set, in a
//! [folder](SweepCell) of its own. [`run`] does the cells that are not finished. A finished step is never done again,
//! even if the process is killed, and several processes may work on one plan. [`collect`] makes three tables from
//! finished cells.

mod cell;
mod collect;
mod data;
mod error;
mod examples;
pub mod frame;
mod plan;
mod record;
mod rows;
mod run;
mod settings;
mod slurm;

pub use cell::SweepCell;
pub(crate) use cell::network_device;
pub(crate) use collect::FORMS;
pub use collect::{Collected, collect, fingerprint, publish, store};
pub use error::SweepError;
pub use plan::{EXACT, Plan, Task};
pub use record::{CellRecord, LabelledSet, NetworkRecord};
pub use rows::{ClassRow, DistanceRow, ExampleRow, Role, SweepRow, ThresholdRow, Transition};
pub use run::{Options, Outcome, State, Summary, Tally, Watch, complete, run, states};
pub use settings::{
    DetectionSettings, Grid, NetworkSettings, PlanSettings, SamplerName, SamplingSettings, Seeds,
    TrainingSettings,
};
pub use slurm::{Slurm, slurm};

/// Version of the labels of samples. It is raised by every change that moves a value of a record; then all cells are
/// labelled again.
pub const VERSION: u32 = 1;

/// Bound of the absolute values of a predicted clean image.
const CLIP: f64 = 1.0;
