use serde::{Deserialize, Serialize};

use crate::detect::Classification;

/// The record of a finished cell, written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRecord {
    /// [`Task::key`](super::Task::key).
    pub key: String,
    /// [`Task::id`](super::Task::id).
    pub id: String,
    /// The crate's version.
    pub program: String,
    /// Versions of the values of sweeps, of training and of sampling.
    pub versions: [u32; 3],
    /// Device on which the network was trained; for the exact score the device of the labels.
    pub device: String,
    /// SHA-256 of the training set.
    pub data_sha256: String,
    /// The network; `None` for the exact score.
    pub network: Option<NetworkRecord>,
    /// Seconds of sampling.
    pub sample_seconds: f64,
    /// SHA-256 of the samples.
    pub samples_sha256: String,
    /// Seconds of the neighbour search and of labelling.
    pub label_seconds: f64,
    /// Labels for each size of S.
    pub found: Vec<LabelledSet>,
    /// SHA-256 of the file of examples.
    pub examples_sha256: String,
}

/// The origin of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// Key of the training settings.
    pub key: String,
    /// SHA-256 of the weights that samples were drawn with.
    pub weights_sha256: String,
    /// Whether the weights were read from a published file.
    pub restored: bool,
    /// Mean loss over the last logged steps.
    pub loss: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// The labels of samples in sets of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledSet {
    /// |S| / K.
    pub multiple: usize,
    /// Number of independent sets S.
    pub sets: usize,
    /// Medians of d(x, D) and d(x, S \ x).
    pub medians: [Option<f64>; 2],
    /// Labels, thresholds and fractions.
    pub classification: Classification,
    /// SHA-256 of the file of labels.
    pub labels_sha256: String,
}
