use crate::ops::OpError;

/// What can go wrong with a score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
}
