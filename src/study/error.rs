//! Errors of the studies.

use std::path::PathBuf;

use crate::class::Group;
use crate::distance::DistanceError;
use crate::memory::MemoryError;
use crate::ops::OpError;
use crate::process::ProcessError;
use crate::sample::SampleError;
use crate::score::ScoreError;
use crate::setting::SettingError;
use crate::store::StoreError;

/// An error of a study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// Errors of the operations.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Errors of the memory models.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Errors of the process, such as a time that it does not have.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Errors of a score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// Errors of samplers and likelihoods.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Errors of a distance between images.
    #[error(transparent)]
    Distance(#[from] DistanceError),
    /// Errors of files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A folder that can't be measured.
    #[error("{}: {reason}", path.display())]
    Subject {
        /// The folder.
        path: PathBuf,
        /// What was found and what is expected.
        reason: String,
    },
    /// A list of prompts that can't be read.
    #[error("prompts {}{}: {reason}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    Prompts {
        /// The file.
        path: PathBuf,
        /// The line, from 1; `None` for the file.
        line: Option<usize>,
        /// What was found and what is expected.
        reason: String,
    },
    /// Samples of prompts of which no dose is known.
    #[error(
        "prompts: no caption has a known dose, expected captions of a training set with doses; give a result of 'prompts --run' \
         without --prompts"
    )]
    NoDoses,
    /// Samples of a training run outside a sweep.
    #[error("{} is a training run without {group} samples; give the cell of a sweep", path.display())]
    NoSamples {
        /// The folder.
        path: PathBuf,
        /// The group asked for.
        group: Group,
    },
    /// Values of one sample that are NaN or infinite.
    #[error("{analysis}: {what} {sample} holds {value}")]
    NotFinite {
        /// The study.
        analysis: &'static str,
        /// The array that holds the value.
        what: &'static str,
        /// Row of the sample.
        sample: usize,
        /// The value.
        value: f64,
    },
    /// A decomposition that LAPACK could not finish.
    #[error("{analysis}: LAPACK failed on a {rows} x {columns} matrix of sample {sample}: {source}")]
    Lapack {
        /// The study.
        analysis: &'static str,
        /// Row of the sample.
        sample: usize,
        /// Number of rows of the matrix.
        rows: usize,
        /// Number of its columns.
        columns: usize,
        /// LAPACK's message.
        source: ndarray_linalg::error::LinalgError,
    },
}
