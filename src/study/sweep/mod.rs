//! Sweeps over training set sizes: the same network trained on K images for many K, sampled, and its samples labelled
//! (Sec. 4, B.1 to B.5).
//!
//! A [`Plan`] is data. Its [`Task`]s are cells: a network, or the exact score, of one training set, each in a
//! [folder](SweepCell) of its own. [`run`] does those that are left. A step whose result is there is not done again,
//! whatever was killed when, and several processes may work on one plan. [`collect`] makes three tables of finished
//! cells.

mod cell;
mod collect;
mod data;
mod error;
pub mod frame;
mod plan;
mod rows;
mod run;
mod slurm;

pub(crate) use cell::network_device;
pub use cell::{CellRecord, LabelledSet, NetworkRecord, SweepCell};
pub(crate) use collect::FORMS;
pub use collect::{Collected, collect, fingerprint, publish, store};
pub use error::SweepError;
pub use plan::{
    DetectionSettings, EXACT, Grid, NetworkSettings, Plan, PlanSettings, SamplerName,
    SamplingSettings, Seeds, Task, TrainingSettings,
};
pub use rows::{ClassRow, DistanceRow, ExampleRow, Role, SweepRow, ThresholdRow, Transition};
pub use run::{Options, Outcome, State, Summary, Tally, Watch, complete, run, states};
pub use slurm::{Slurm, slurm};

/// Version of what a cell does with samples. It goes up with any change that moves a number of a record, and then cells
/// are labelled anew.
pub const VERSION: u32 = 1;

/// Bound of every number of a predicted clean image.
const CLIP: f64 = 1.0;
