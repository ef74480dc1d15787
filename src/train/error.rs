use std::path::PathBuf;

use crate::data::DataError;
use crate::memory::MemoryError;
use crate::net::NetError;
use crate::process::ProcessError;
use crate::setting::SettingError;
use crate::store::StoreError;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A file of settings that can't be parsed.
    #[error("settings {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        reason: String,
    },
    /// A folder that is not a training run, or a damaged run.
    #[error("run {}: {reason}", path.display())]
    Run {
        /// The folder or the file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A folder with a run of another configuration.
    #[error("run {}: {setting} is {there}, expected {asked}; choose another folder or the same settings", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs.
        setting: String,
        /// Its value in the folder.
        there: String,
        /// The value that was asked for.
        asked: String,
    },
    /// Another process uses the folder.
    #[error("run {}: another process is training in this folder; wait for it to end", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A damaged checkpoint.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A loss, gradient or weight that is not finite.
    #[error("training diverged at step {step}: {what}; the last good checkpoint is {checkpoint}")]
    Diverged {
        /// The step that was not taken, counted from 1.
        step: u64,
        /// What is not finite.
        what: String,
        /// Step of the newest checkpoint, in words.
        checkpoint: String,
    },
    /// A table of metrics that can't be written.
    #[error("metrics {}: {reason}", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A device on which networks can't be trained.
    #[error("training on {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Reason.
        reason: String,
    },
    /// The training set of an imported network is unknown.
    #[error(
        "the training set of this network is unknown; import its checkpoint again with --dataset and --k"
    )]
    UnknownData,
    /// The user's own images are not those of the start of training.
    #[error(
        "run {}: {images} changed since training began; put the old images back or choose another folder",
        path.display()
    )]
    Changed {
        /// The folder of the run.
        path: PathBuf,
        /// The images.
        images: String,
    },
    /// No image is left that a network was not trained on.
    #[error("held-out images: {reason}")]
    NoneHeldOut {
        /// Reason, and what to do.
        reason: String,
    },
    /// Errors of data sets.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Errors of the toy model's points.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Errors of processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Errors of networks.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Reading and writing files.
    #[error(transparent)]
    Store(#[from] StoreError),
}
