//! Errors of networks.

use std::path::PathBuf;

use crate::data::DataError;
use crate::store::StoreError;

/// Errors of networks.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Settings or shapes from which no network can be built.
    #[error("network: {layer}: {reason}")]
    Graph {
        /// Name of the layer.
        layer: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// An array of the wrong length.
    #[error("{operation}: {argument} has {found} elements, expected {expected}")]
    Length {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Number found.
        found: usize,
        /// Number expected.
        expected: usize,
    },
    /// A batch that is empty or too large.
    #[error("{operation}: {rows} samples, expected 1 to {room}")]
    Rows {
        /// The operation.
        operation: &'static str,
        /// Number found.
        rows: usize,
        /// Largest batch size.
        room: usize,
    },
    /// Activations that do not fit into memory.
    #[error(
        "network: {rows} samples at a time take at least {} GiB of memory, but {} GiB are left; choose a smaller batch, smaller images or \
         a smaller network",
        needed.div_ceil(1 << 30), left >> 30
    )]
    Memory {
        /// Batch size.
        rows: usize,
        /// Bytes of their activations.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// A backward pass without the forward pass that it needs.
    #[error("backward: {reason}")]
    Backward {
        /// What is missing.
        reason: &'static str,
    },
    /// A file that does not hold the weights of the network.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// All missing and unknown names, and all wrong shapes and types.
        reason: String,
    },
    /// A text that the tokenizer refuses, tokens that do not fit, or a file that is not a tokenizer.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What was found.
        reason: String,
    },
    /// A caption that occurs twice or has no stored vector.
    #[error("vectors of captions: {reason}")]
    Caption {
        /// The caption, and what was expected.
        reason: String,
    },
    /// Fetched weights that are missing or damaged.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of settings that is missing, damaged, or asks for what is not computed.
    #[error("settings {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The setting, what was found, what was expected, and what to do.
        reason: String,
    },
    /// An argument of the wrong shape.
    #[error("{operation}: {argument} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// Shape found.
        found: Vec<usize>,
        /// Shape expected.
        expected: String,
    },
    /// A device on which networks can't be computed.
    #[error("device {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Reason, and what to do.
        reason: String,
    },
    /// A type of numbers in which something is not computed.
    #[error("{operation}: {reason}")]
    Precision {
        /// The operation.
        operation: &'static str,
        /// What is not computed, and what to choose.
        reason: String,
    },
    /// A text with the name of a control token.
    #[error("prompt: contains {name}, the name of a control token; remove it")]
    Prompt {
        /// The name.
        name: &'static str,
    },
    /// Reading and writing files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error of candle, boxed because it is large.
    #[error("candle: {0}")]
    Candle(Box<candle_core::Error>),
}

impl From<candle_core::Error> for NetError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(Box::new(error))
    }
}
