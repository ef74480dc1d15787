//! A cell of the transition sweep: samples with their labels, out of the folder that it was left in.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use polars::prelude::{AnyValue, DataFrame};
use serde_json::Value;

use crate::class::Class;
use crate::frame::{TableError, column_i64, column_text, read_parquet};
use crate::store::{Matrix, StoreError, read_matrix};
use crate::study::subject::{Labelled, Pick, pick};

/// Samples of a cell's folder.
pub const SAMPLES: &str = "samples.npy";
/// What a cell's folder is complete with.
pub const CELL: &str = "cell.json";

/// A finished cell's samples.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledSamples {
    /// The folder.
    pub path: PathBuf,
    /// Samples, `[n, N]`, values in [-1, 1], in the order row, column, channel.
    pub samples: Array2<f32>,
    /// One for each sample.
    pub labels: Vec<Labelled>,
    /// The number of samples for each training image in the sets in which neighbours were searched.
    pub multiple: usize,
    /// delta_m of Eq. 9, where the cell says it.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10, where the cell says it.
    pub delta_s: Option<f64>,
}

impl LabelledSamples {
    /// Whether a folder is that of a cell, finished or not.
    pub fn is_at(path: &Path) -> bool {
        [SAMPLES, CELL, "task.json"].iter().any(|name| path.join(name).is_file())
    }

    /// Reads a finished cell, with the labels of the smallest sets.
    ///
    /// # Errors
    /// [`TableError::Store`] where a file is not there or damaged, [`TableError::Frame`] where the cell is not finished
    /// or its files don't belong together, and what [`labelled_rows`] refuses.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let bad = |reason: String| TableError::Frame { caption: path.display().to_string(), reason };
        let file = path.join(CELL);
        if !file.is_file() {
            return Err(bad(format!("the cell is not finished: there is no {CELL}")));
        }
        let text = fs::read(&file).map_err(StoreError::io("open", &file))?;
        let about: Value = serde_json::from_slice(&text).map_err(|e| bad(format!("{CELL}: {e}")))?;
        let samples = match read_matrix(&path.join(SAMPLES))? {
            Matrix::F32(samples) => samples,
            Matrix::F64(samples) => samples.mapv(|v| v as f32),
        };
        let entries = fs::read_dir(path).map_err(StoreError::io("read", path))?;
        let multiple = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix("labels-x")?.strip_suffix(".parquet")?.parse::<usize>().ok()
            })
            .min()
            .ok_or_else(|| bad("there is no labels-xM.parquet".into()))?;
        let labels = labelled_rows(&read_parquet(&path.join(format!("labels-x{multiple}.parquet")))?)?;
        let numbers = labels.iter().enumerate().all(|(i, row)| row.sample == i);
        if labels.len() != samples.nrows() || !numbers {
            let (rows, n) = (labels.len(), samples.nrows());
            return Err(bad(format!("{rows} labels for {n} samples, expected one each, in order")));
        }
        let found =
            about["found"].as_array().into_iter().flatten().find(|found| found["multiple"] == multiple);
        let delta = |name: &str| found?["classification"][name]["value"].as_f64();
        let (delta_m, delta_s) = (delta("delta_m"), delta("delta_s"));
        Ok(Self { path: path.into(), samples, labels, multiple, delta_m, delta_s })
    }

    /// Numbers of at most `max` samples of a class, as [`pick`] chooses them.
    pub fn pick(&self, label: Class, max: usize, way: Pick, seed: u64) -> Vec<usize> {
        pick(&self.labels, label, max, way, seed)
    }
}

/// The samples of a frame with `sample`, `label`, `d_train` and `d_synthetic`. Distances may be missing; where one is
/// NaN or infinite the sample is invalid.
///
/// # Errors
/// [`TableError`] for a missing column, another type, a label or a number of a sample that there is not.
pub fn labelled_rows(frame: &DataFrame) -> Result<Vec<Labelled>, TableError> {
    let (near, other) = (distances(frame, "d_train")?, distances(frame, "d_synthetic")?);
    let wrong =
        |name: &str, wanted, found: String| TableError::WrongType { name: name.into(), wanted, found };
    column_i64(frame, "sample")?
        .into_iter()
        .zip(column_text(frame, "label")?)
        .enumerate()
        .map(|(i, (sample, label))| {
            let sample = usize::try_from(sample)
                .map_err(|_| wrong("sample", "numbers from 0 on", sample.to_string()))?;
            let known = Class::LABELS.into_iter().find(|known| known.name() == label);
            let label = known.ok_or_else(|| wrong("label", "names of classes", label))?;
            let (d_train, d_synthetic) = (near[i], other[i]);
            let finite = [d_train, d_synthetic].iter().flatten().all(|d| d.is_finite());
            let label = if finite { label } else { Class::Invalid };
            Ok(Labelled { sample, label, d_train, d_synthetic })
        })
        .collect()
}

pub(crate) fn distances(frame: &DataFrame, name: &str) -> Result<Vec<Option<f64>>, TableError> {
    let column = frame.column(name).map_err(|_| TableError::NoColumn {
        name: name.to_owned(),
        have: frame.get_column_names().iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let value = |v| match v {
        AnyValue::Null => Ok(None),
        AnyValue::Float64(v) => Ok(Some(v)),
        AnyValue::Float32(v) => Ok(Some(f64::from(v))),
        _ => Err(TableError::WrongType {
            name: name.to_owned(),
            wanted: "real numbers",
            found: column.dtype().to_string(),
        }),
    };
    column.as_materialized_series().iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{frame, integers, texts, write_parquet};
    use crate::store::write_array;
    use ndarray::array;
    use polars::prelude::{NamedFrom, Series};

    #[test]
    fn a_cell_is_read_when_it_is_finished_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(!LabelledSamples::is_at(at));
        let samples = array![[0.5f32, -0.5], [1.0, 0.0]];
        write_array(&at.join(SAMPLES), &samples).unwrap();
        assert!(LabelledSamples::is_at(at));
        let refused = |words: &str| {
            let e = LabelledSamples::open(at).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        };
        refused("not finished");
        let about = r#"{ "key": "k", "found": [
            { "multiple": 8, "classification": { "delta_m": { "value": 0.5 }, "delta_s": { "value": 1.0 } } },
            { "multiple": 4, "classification": { "delta_m": { "value": 0.25 }, "delta_s": { "value": null } } }
        ] }"#;
        fs::write(at.join(CELL), about).unwrap();
        refused("no labels-xM");
        write_parquet(&at.join("labels-x8.parquet"), &labels(0, "memorized", &[Some(0.1), None])).unwrap();
        write_parquet(&at.join("labels-x4.parquet"), &labels(0, "spurious", &[Some(0.5), None])).unwrap();
        let cell = LabelledSamples::open(at).unwrap();
        assert_eq!((cell.samples.clone(), cell.multiple), (samples, 4));
        assert_eq!((cell.delta_m, cell.delta_s), (Some(0.25), None));
        assert_eq!(cell.pick(Class::Spurious, 5, Pick::Order, 1), [0]);
        write_parquet(&at.join("labels-x4.parquet"), &labels(1, "spurious", &[Some(0.5), None])).unwrap();
        refused("in order");
    }

    fn labels(first: i64, label: &str, d: &[Option<f64>; 2]) -> DataFrame {
        let distance = |name: &str, d: [Option<f64>; 2]| Series::new(name.into(), d.to_vec()).into();
        frame(
            "labels",
            vec![
                integers("sample", vec![first, first + 1]),
                texts("label", &[label, "invalid"]),
                distance("d_train", *d),
                distance("d_synthetic", [None, None]),
            ],
        )
        .unwrap()
    }

    #[test]
    fn labels_are_read_with_what_is_missing() {
        let rows = labelled_rows(&labels(7, "spurious", &[Some(0.5), None])).unwrap();
        assert_eq!(
            rows,
            [
                Labelled { sample: 7, label: Class::Spurious, d_train: Some(0.5), d_synthetic: None },
                Labelled { sample: 8, label: Class::Invalid, d_train: None, d_synthetic: None },
            ]
        );
        let nan = labelled_rows(&labels(7, "spurious", &[Some(f64::NAN), None])).unwrap();
        assert_eq!(nan[0].label, Class::Invalid);
        let e = labelled_rows(&labels(7, "unknown", &[None, None])).unwrap_err();
        assert!(e.to_string().contains("unknown"), "{e}");
        let e = labelled_rows(&frame("labels", vec![integers("sample", vec![1])]).unwrap()).unwrap_err();
        assert!(matches!(e, TableError::NoColumn { .. }));
    }
}
