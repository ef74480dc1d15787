use std::path::PathBuf;

use crate::data::DataError;
use crate::memory::MemoryError;
use crate::net::NetError;
use crate::process::ProcessError;
use crate::setting::SettingError;
use crate::store::StoreError;

/// What can go wrong with training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A folder that is no run, or a damaged one.
    #[error("run {}: {reason}", path.display())]
    Run {
        /// The folder or the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder with a run of another configuration.
    #[error("run {}: {setting} is {there} there, and {asked} is asked for", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs.
        setting: String,
        /// What it is in the folder.
        there: String,
        /// What was asked for.
        asked: String,
    },
    /// Another process trains there.
    #[error("run {}: another process is training there", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint that can't be read.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Training went astray.
    #[error("training diverged at step {step}: {what}; the last good checkpoint is {checkpoint}")]
    Diverged {
        /// The step that was not taken, from 1 on.
        step: u64,
        /// What is not finite.
        what: String,
        /// The newest checkpoint's step, in words.
        checkpoint: String,
    },
    /// The table of metrics can't be made.
    #[error("metrics {}: {reason}", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Networks don't train there.
    #[error("training on {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why not.
        reason: String,
    },
    /// The training set of an imported network is unknown.
    #[error(
        "the training set of this network is unknown; import its checkpoint again with --dataset and --k"
    )]
    UnknownData,
    /// Data sets.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The toy model's points.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
}
