//! Training: from settings and data to weights, in a folder from which an interrupted run resumes.
//!
//! [`train`] takes the steps of checked [`TrainSettings`]. Data order, times, noise and dropout depend on seed and step
//! alone ([`crate::random::Places`]), so a checkpoint of weights, their average, the moments and the step is enough to
//! resume with identical results. [`RunDir`] is the folder of a run.

pub mod adam;
mod batch;
mod candle;
mod checkpoint;
mod data;
mod doses;
mod error;
mod import;
mod learner;
pub mod metrics;
mod pace;
mod published;
mod run;
mod run_dir;
mod settings;
mod stop;

pub use checkpoint::MetricsRow;
pub use data::{TrainingData, TrainingSource};
pub use doses::{DoseSettings, Dosed, Part};
pub use error::TrainError;
pub use import::Imported;
pub use pace::pace;
pub use run::{Trained, device, train, train_in, train_until};
pub(crate) use run_dir::first_difference;
pub use run_dir::{Kind, METRICS, RunDir, RunManifest, VERSION};
pub(crate) use settings::default;
#[cfg(test)]
pub(crate) use settings::tests::tiny;
pub use settings::{
    AdamSettings, DataSettings, Decay, EmaSettings, MOST_ROWS, ProcessSettings, TrainDefaults, TrainParams,
    TrainSettings, TrainedProcess, VeTraining,
};
pub use stop::{Stopped, stop};
