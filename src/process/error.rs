use crate::setting::SettingError;

/// What can go wrong with a process.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProcessError {
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A time at which the process isn't defined.
    #[error("{process}: there is no time {t}, expected a number from {clean} to {horizon}")]
    Time {
        /// The process.
        process: &'static str,
        /// The time.
        t: f64,
        /// The time of clean data.
        clean: f64,
        /// The last time.
        horizon: f64,
    },
    /// Times that a sampler can't walk.
    #[error("steps: time {t} at place {place}, expected at least two times, each below the one before it")]
    Steps {
        /// Place in the list.
        place: usize,
        /// The time there; NaN where the list is shorter.
        t: f64,
    },
    /// More steps than there are noise levels, or none.
    #[error("{process}: {steps} steps, expected 1 to {most}")]
    Count {
        /// The process.
        process: &'static str,
        /// The number asked for.
        steps: usize,
        /// The largest that would do.
        most: usize,
    },
}
