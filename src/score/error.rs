use crate::net::NetError;
use crate::ops::OpError;
use crate::setting::SettingError;

/// Errors of scores.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// Arguments of wrong shape or with values that are not finite.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A level without noise, at which no score exists.
    #[error("{operation}: row {row} is at t = {t}, which has no noise; choose a later time")]
    Clean {
        /// The operation.
        operation: &'static str,
        /// Row of the batch.
        row: usize,
        /// Time of the row.
        t: f64,
    },
    /// A network that can't be used as a score.
    #[error(transparent)]
    Net(#[from] NetError),
    /// NaN or infinity in the output of a network.
    #[error("{operation}: the result for row {row} at t = {t} is {value}, expected a finite number")]
    NotFinite {
        /// The operation.
        operation: &'static str,
        /// Row of the batch.
        row: usize,
        /// Time of the row.
        t: f64,
        /// The value.
        value: f64,
    },
}
