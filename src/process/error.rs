use crate::setting::SettingError;

/// Errors of processes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProcessError {
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A time at which the process is not defined.
    #[error("{process}: time {t} is out of range, expected {clean} to {horizon}")]
    Time {
        /// The process.
        process: &'static str,
        /// The time.
        t: f64,
        /// Time of clean data.
        clean: f64,
        /// The last time.
        horizon: f64,
    },
    /// Times that are too few or do not decrease.
    #[error("steps: time {place} is {t}, expected at least two times in decreasing order")]
    Steps {
        /// Index in the list, from 0.
        place: usize,
        /// The time; NaN when the list is too short.
        t: f64,
    },
    /// More steps than noise levels, or no steps.
    #[error("{process}: {steps} steps, expected 1 to {most}")]
    Count {
        /// The process.
        process: &'static str,
        /// Number of steps.
        steps: usize,
        /// Largest number of steps.
        most: usize,
    },
}
