use crate::ops::OpError;

/// An exact computation that failed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// An argument that an operation refuses.
    #[error(transparent)]
    Op(#[from] OpError),
    /// LAPACK failed.
    #[error("{operation}: LAPACK failed on a {size} x {size} matrix: {source}")]
    Lapack {
        /// The operation.
        operation: &'static str,
        /// Rows of the matrix.
        size: usize,
        /// The error of LAPACK.
        source: ndarray_linalg::error::LinalgError,
    },
    /// A number above the largest available.
    #[error("{operation}: {argument} is {value}, expected at most {most}")]
    TooMany {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: usize,
        /// The largest accepted value.
        most: usize,
    },
}
