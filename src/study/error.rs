use crate::distance::DistanceError;
use crate::memory::MemoryError;
use crate::ops::OpError;
use crate::process::ProcessError;
use crate::sample::SampleError;
use crate::score::ScoreError;
use crate::store::StoreError;

/// What can go wrong in an analysis.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// An argument that the operations refuse.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The theory modules.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A time that the process does not have.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A sampler or a likelihood.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A distance of images.
    #[error(transparent)]
    Distance(#[from] DistanceError),
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A setting out of its range.
    #[error("{analysis}: setting {setting} is {value}, expected {need}")]
    Setting {
        /// The analysis.
        analysis: &'static str,
        /// The setting's name in the profile.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What would do.
        need: String,
    },
    /// Numbers of one sample that can't be used.
    #[error("{analysis}: {what} {sample} holds {value}")]
    NotFinite {
        /// The analysis.
        analysis: &'static str,
        /// What holds it.
        what: &'static str,
        /// Number of the sample.
        sample: usize,
        /// What was found.
        value: f64,
    },
    /// LAPACK gave up.
    #[error("{analysis}: LAPACK failed on a {rows} x {columns} matrix of sample {sample}: {source}")]
    Lapack {
        /// The analysis.
        analysis: &'static str,
        /// Number of the sample.
        sample: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Its columns.
        columns: usize,
        /// LAPACK's own words.
        source: ndarray_linalg::error::LinalgError,
    },
}
