use std::path::PathBuf;

use crate::ops::OpError;
use crate::process::ProcessError;
use crate::score::ScoreError;
use crate::setting::SettingError;
use crate::store::StoreError;

/// What can go wrong in a sampler or a likelihood.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// An argument of the wrong shape, or NaN or infinity in it.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A time that the process doesn't have.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The score refused.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Random streams for another number of samples than there are.
    #[error("{sampler}: {streams} random streams for {samples} samples")]
    Streams {
        /// The sampler.
        sampler: &'static str,
        /// Streams.
        streams: usize,
        /// Samples.
        samples: usize,
    },
    /// A score that is NaN or infinite, or led there.
    #[error("{sampler}: the score of sample {sample} led to {value} in step {step}, at t = {t}")]
    NotFinite {
        /// The sampler.
        sampler: &'static str,
        /// The sample, a row of the batch.
        sample: usize,
        /// The step, from 0.
        step: usize,
        /// Time at which the score was asked.
        t: f64,
        /// The number.
        value: f64,
    },
    /// An adaptive integration that doesn't arrive.
    #[error(
        "{sampler}: sample {sample} stands at t = {t} after {steps} steps, the last of length {length:e}"
    )]
    Stuck {
        /// The sampler.
        sampler: &'static str,
        /// The sample, a row of the batch.
        sample: usize,
        /// Where it is.
        t: f64,
        /// Steps tried.
        steps: usize,
        /// Length of the last.
        length: f64,
    },
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process draws into the same file.
    #[error("samples {}: another process is drawing there", path.display())]
    Busy {
        /// The folder of finished parts.
        path: PathBuf,
    },
}
