//! The table of labelled samples.

use polars::prelude::{Column, DataFrame};

use crate::class::Class;
use crate::detect::{Neighbour, Neighbours};
use crate::frame::{Item, TableError, frame};

/// Label of a sample where no threshold is known.
pub const UNKNOWN: &str = "unknown";

/// File names of the images of each set, for images that were read from files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Files of the training set.
    pub train: Option<&'a [String]>,
    /// Files of the synthetic set.
    pub synthetic: Option<&'a [String]>,
}

/// One row for each sample: `sample`, `label`, `d_train`, `nearest_train`, `d_synthetic`, `nearest_synthetic` and
/// `ratio` (distance to the nearest over the second nearest training image); rows count from 0. Values of a sample that
/// is invalid or has no other sample are null. With file names, `sample_file`, `train_file` and `synthetic_file` follow.
///
/// # Errors
/// As [`frame`].
pub fn labels_frame(
    found: &Neighbours,
    labels: Option<&[Class]>,
    names: Names<'_>,
) -> Result<DataFrame, TableError> {
    let count = found.train.len();
    let distances = |name: &str, nearest: &[Option<Neighbour>]| {
        Item::column(name, nearest.iter().map(|n| n.map(|n| n.distance)).collect())
    };
    let indices = |name: &str, nearest: &[Option<Neighbour>]| {
        Item::column(name, nearest.iter().map(|n| n.map(|n| n.index)).collect())
    };
    let files = |name: &str, nearest: &[Option<Neighbour>], files: &[String]| -> Column {
        Item::column(name, nearest.iter().map(|n| n.map(|n| files[n.index].clone())).collect())
    };
    let label = |i: usize| match (labels, found.train[i]) {
        (Some(labels), _) => labels[i].name(),
        (None, None) => Class::Invalid.name(),
        (None, Some(_)) => UNKNOWN,
    };
    let mut columns = vec![
        Item::column("sample", (0..count).collect()),
        Item::column("label", (0..count).map(|i| label(i).to_owned()).collect()),
        distances("d_train", &found.train),
        indices("nearest_train", &found.train),
        distances("d_synthetic", &found.synthetic),
        indices("nearest_synthetic", &found.synthetic),
        Item::column("ratio", (0..count).map(|i| found.ratio(i)).collect()),
    ];
    if let Some(names) = names.synthetic {
        columns.push(Item::column("sample_file", names.to_vec()));
    }
    if let Some(names) = names.train {
        columns.push(files("train_file", &found.train, names));
    }
    if let Some(names) = names.synthetic {
        columns.push(files("synthetic_file", &found.synthetic, names));
    }
    frame("labels", columns)
}
