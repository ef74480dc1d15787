use crate::net::NetError;
use crate::ops::OpError;

/// What can go wrong with a score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// An argument that the operations refuse.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Clean data has no score.
    #[error("{operation}: row {row} is at t = {t}, which is clean data, expected a level with noise")]
    Clean {
        /// The operation.
        operation: &'static str,
        /// The row.
        row: usize,
        /// Its time.
        t: f64,
    },
    /// A network that can't be used as a score.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A network that gives NaN or infinity.
    #[error("{operation}: {value} came out for row {row}, at t = {t}")]
    NotFinite {
        /// The operation.
        operation: &'static str,
        /// The row.
        row: usize,
        /// Its time.
        t: f64,
        /// The number.
        value: f64,
    },
}
