use crate::ops::OpError;

/// What can go wrong in the theory modules.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// An argument that the operations refuse.
    #[error(transparent)]
    Op(#[from] OpError),
    /// LAPACK gave up.
    #[error("{operation}: LAPACK failed on a {size} x {size} matrix: {source}")]
    Lapack {
        /// The operation.
        operation: &'static str,
        /// Rows of the matrix.
        size: usize,
        /// LAPACK's own words.
        source: ndarray_linalg::error::LinalgError,
    },
    /// More was asked for than there is.
    #[error("{operation}: {argument} is {value}, expected at most {most}")]
    TooMany {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: usize,
        /// The largest that would do.
        most: usize,
    },
}
