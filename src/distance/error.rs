use crate::data::DataError;
use crate::ops::OpError;
use crate::shape::Shape;
use crate::store::StoreError;

/// Errors of perceptual distances.
#[derive(Debug, thiserror::Error)]
pub enum DistanceError {
    /// Reading the network's weights.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Reading and writing files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Images that are not finite, features of different lengths, a k that is too large.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Arrays that do not belong to this network.
    #[error("weights of {network}: '{name}' has shape {found:?}, expected {expected:?}")]
    Weights {
        /// The network.
        network: &'static str,
        /// The array.
        name: String,
        /// Its shape; `None` when it is missing.
        found: Option<Vec<usize>>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// Weights out of range.
    #[error("weights of {network}: '{name}' holds {value}, expected {need}")]
    Value {
        /// The network.
        network: &'static str,
        /// The array.
        name: String,
        /// The first such value.
        value: f32,
        /// The values that are accepted.
        need: &'static str,
    },
    /// Images of a shape that no network accepts.
    #[error("{operation}: images are {shape}, expected 1 or 3 channels and 1 to {most} rows and columns")]
    Images {
        /// The operation.
        operation: &'static str,
        /// Shape of an image.
        shape: Shape,
        /// Most rows and columns.
        most: usize,
    },
    /// Arrays of shapes that do not match.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected:?}")]
    Sizes {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: [usize; 2],
        /// The expected shape.
        expected: [usize; 2],
    },
    /// Images with values outside of 0 to 1.
    #[error("{operation}: {argument} holds {value} at row {row}, expected 0 to 1")]
    Range {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Row of the first such image.
        row: usize,
        /// The value.
        value: f32,
    },
}
