//! The frame of classified samples.

use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use crate::class::Class;
use crate::detect::{Neighbour, Neighbours};
use crate::frame::{TableError, frame, integers, strings};

/// What samples are called that no threshold is known for.
pub const UNKNOWN: &str = "unknown";

/// Names of the files that the images of each set came from, where they did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Of the training set.
    pub train: Option<&'a [String]>,
    /// Of the synthetic set.
    pub synthetic: Option<&'a [String]>,
}

/// One row a sample: `sample`, `label`, `d_train`, `nearest_train`, `d_synthetic`, `nearest_synthetic` and `ratio`, of
/// nearest over second nearest training image; rows count from 0. A sample that is invalid or alone has missing
/// values. Where images came from files, `sample_file`, `train_file` and `synthetic_file` name them.
///
/// # Errors
/// Those of [`frame`].
pub fn labels_frame(
    found: &Neighbours,
    labels: Option<&[Class]>,
    names: Names<'_>,
) -> Result<DataFrame, TableError> {
    let count = found.train.len();
    let distance = |name: &str, of: &[Option<Neighbour>]| -> Column {
        Series::new(name.into(), of.iter().map(|n| n.map(|n| n.distance)).collect::<Vec<_>>()).into()
    };
    let index = |name: &str, of: &[Option<Neighbour>]| -> Column {
        Series::new(name.into(), of.iter().map(|n| n.map(|n| n.index as i64)).collect::<Vec<_>>()).into()
    };
    let file = |name: &str, of: &[Option<Neighbour>], files: &[String]| -> Column {
        let named: Vec<Option<&str>> =
            of.iter().map(|n| n.and_then(|n| files.get(n.index)).map(String::as_str)).collect();
        Series::new(name.into(), named).into()
    };
    let label = |i: usize| match (labels, found.train[i]) {
        (Some(labels), _) => labels[i].name(),
        (None, None) => Class::Invalid.name(),
        (None, Some(_)) => UNKNOWN,
    };
    let mut columns = vec![
        integers("sample", (0..count as i64).collect()),
        Series::new("label".into(), (0..count).map(label).collect::<Vec<_>>()).into(),
        distance("d_train", &found.train),
        index("nearest_train", &found.train),
        distance("d_synthetic", &found.synthetic),
        index("nearest_synthetic", &found.synthetic),
        Series::new("ratio".into(), (0..count).map(|i| found.ratio(i)).collect::<Vec<_>>()).into(),
    ];
    if let Some(files) = names.synthetic {
        columns.push(strings("sample_file", files.to_vec()));
    }
    if let Some(files) = names.train {
        columns.push(file("train_file", &found.train, files));
    }
    if let Some(files) = names.synthetic {
        columns.push(file("synthetic_file", &found.synthetic, files));
    }
    frame("labels", columns)
}
