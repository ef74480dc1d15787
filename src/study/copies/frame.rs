//! The table of labelled samples.

use std::io::{self, Write};

use polars::prelude::{AnyValue, Column, DataFrame};

use super::{Answer, Transformation};
use crate::detect::{Compared, Neighbour, PValues};
use crate::frame::{Item, TableError, frame};

/// File names of the images of each set, for images that were read from files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Files of the training set.
    pub train: Option<&'a [String]>,
    /// Files of the synthetic set.
    pub synthetic: Option<&'a [String]>,
}

/// One row for each sample: `sample`, `label`, `d_train`, `nearest_train`, `d_synthetic`, `nearest_synthetic`, `ratio`
/// (distance to the nearest over the nearest different training image), `p_value`, `q_value` and `p_distance`; rows count
/// from 0. Values of a sample that is invalid or has no other sample are null, and p-values without null distances. With
/// several transformations `transformation` follows, and with file names `sample_file`, `train_file` and
/// `synthetic_file`.
///
/// # Errors
/// As [`frame`].
pub fn labels_frame(
    compared: &Compared,
    answer: &Answer,
    transformations: &[Transformation],
    names: Names<'_>,
) -> Result<DataFrame, TableError> {
    let found = &compared.neighbours;
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
    let p = |name: &str, of: fn(PValues) -> f64| {
        let value = |i: usize| answer.decision.as_ref().and_then(|decision| decision.p_values[i]).map(of);
        Item::column(name, (0..count).map(value).collect::<Vec<Option<f64>>>())
    };
    let mut columns = vec![
        Item::column("sample", (0..count).collect()),
        Item::column("label", answer.labels.iter().map(|label| label.name().to_owned()).collect()),
        distances("d_train", &found.train),
        indices("nearest_train", &found.train),
        distances("d_synthetic", &found.synthetic),
        indices("nearest_synthetic", &found.synthetic),
        Item::column("ratio", (0..count).map(|i| found.ratio(i)).collect()),
        p("p_value", |p| p.used),
        p("q_value", |p| p.q),
        p("p_distance", |p| p.distance),
    ];
    if transformations.len() > 1 {
        let name =
            |i: usize| compared.samples[i].map(|near| transformations[near.transformation].to_string());
        columns.push(Item::column("transformation", (0..count).map(name).collect::<Vec<Option<String>>>()));
    }
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

/// The table as lines of comma-separated values with a header. A null is empty; text with a comma, a quote or a line break is
/// quoted.
///
/// # Errors
/// Those of `out`.
pub fn write_csv(frame: &DataFrame, out: &mut dyn Write) -> io::Result<()> {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let header: Vec<String> = frame.columns().iter().map(|c| quoted(c.name())).collect();
    writeln!(out, "{}", header.join(","))?;
    for row in 0..frame.height() {
        let cells = frame.columns().iter().map(|column| match column.get(row) {
            Ok(AnyValue::Null) | Err(_) => String::new(),
            Ok(value) => value.get_str().map_or_else(|| value.to_string(), quoted),
        });
        writeln!(out, "{}", cells.collect::<Vec<String>>().join(","))?;
    }
    Ok(())
}
