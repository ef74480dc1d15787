//! What can go wrong with a network.

use std::path::PathBuf;

use crate::store::StoreError;

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A network can't be put together so.
    #[error("network: {layer}: {reason}")]
    Graph {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Numbers of one length where another is needed.
    #[error("{operation}: {argument} has {found} numbers, expected {expected}")]
    Length {
        /// What was tried.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// More samples than there is room for.
    #[error("{operation}: {rows} samples, expected 1 to {room}")]
    Rows {
        /// What was tried.
        operation: &'static str,
        /// How many there are.
        rows: usize,
        /// How many there is room for.
        room: usize,
    },
    /// A backward without the forward that it belongs to.
    #[error("backward: {reason}")]
    Backward {
        /// What is missing.
        reason: &'static str,
    },
    /// A file of weights that does not fit the network.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it: names that are missing or too many, shapes, types.
        reason: String,
    },
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Candle. In a box, as its errors are large.
    #[error("candle: {0}")]
    Candle(Box<candle_core::Error>),
}

impl From<candle_core::Error> for NetError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(Box::new(error))
    }
}
