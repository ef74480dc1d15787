use std::path::PathBuf;

use crate::ops::OpError;
use crate::process::ProcessError;
use crate::score::ScoreError;
use crate::setting::SettingError;
use crate::store::StoreError;

/// Errors of samplers and likelihoods.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// An argument of wrong shape or with values that are not finite.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A time outside the range of the process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An error of the score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A number of random streams that is not the number of samples.
    #[error("{sampler}: {streams} random streams, expected {samples}, one for each sample")]
    Streams {
        /// The sampler.
        sampler: &'static str,
        /// Number of streams.
        streams: usize,
        /// Number of samples.
        samples: usize,
    },
    /// A score, or a sample after a step, that is NaN or infinite.
    #[error("{sampler}: sample {sample} is {value} in step {step} at t = {t}, expected finite scores")]
    NotFinite {
        /// The sampler.
        sampler: &'static str,
        /// The sample, a row of the batch.
        sample: usize,
        /// The step, from 0.
        step: usize,
        /// Time of the score.
        t: f64,
        /// The value.
        value: f64,
    },
    /// An adaptive integration that does not reach its end.
    #[error(
        "{sampler}: sample {sample} is at t = {t} after {steps} steps, the last of length {length:e}; choose a larger tolerance"
    )]
    Stuck {
        /// The sampler.
        sampler: &'static str,
        /// The sample, a row of the batch.
        sample: usize,
        /// Time that it reached.
        t: f64,
        /// Number of steps tried.
        steps: usize,
        /// Length of the last step.
        length: f64,
    },
    /// Reading and writing files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process writes the same file.
    #[error("samples {}: another process is writing them; wait for it to end", path.display())]
    Busy {
        /// The folder of finished parts.
        path: PathBuf,
    },
}
