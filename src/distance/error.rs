use std::path::PathBuf;

use crate::data::DataError;
use crate::ops::OpError;
use crate::shape::Shape;
use crate::store::StoreError;

/// Why a distance could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum DistanceError {
    /// The network's weights could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NaN images, features of different lengths, a k that is too large.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Arrays that are not this network's.
    #[error("weights of {network}: '{name}' has shape {found:?}, expected {expected:?}")]
    Weights {
        /// The network.
        network: &'static str,
        /// The array.
        name: String,
        /// Its shape, `None` where it is missing.
        found: Option<Vec<usize>>,
        /// The shape due.
        expected: Vec<usize>,
    },
    /// Numbers of the weights that the network can't have.
    #[error("weights of {network}: '{name}' holds {value}, expected {need}")]
    Value {
        /// The network.
        network: &'static str,
        /// The array.
        name: String,
        /// The first such number.
        value: f32,
        /// What would do.
        need: &'static str,
    },
    /// Images that no network takes.
    #[error("{operation}: images are {shape}, expected 1 or 3 channels and sides of 1 to {most}")]
    Images {
        /// What was tried.
        operation: &'static str,
        /// Shape of an image.
        shape: Shape,
        /// The longest side.
        most: usize,
    },
    /// Arrays whose sizes don't fit each other.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected:?}")]
    Sizes {
        /// What was tried.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its shape.
        found: [usize; 2],
        /// The shape due.
        expected: [usize; 2],
    },
    /// Images of another range than 0 to 1.
    #[error("{operation}: {argument} holds {value} at row {row}, expected 0 to 1")]
    Range {
        /// What was tried.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Row of the first such image.
        row: usize,
        /// The number.
        value: f32,
    },
    /// A file of features that is not what its name says.
    #[error("features {}: {reason}; remove it to have it made again", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
