//! Samples and labels in the folder of a finished cell of a sweep.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use polars::prelude::DataFrame;
use serde_json::Value;

use crate::class::Class;
use crate::frame::{Item, TableError, read_parquet_bytes};
use crate::store::{Matrix, StoreError, from_json, read_matrix, rows_sha256, sha256_hex};
use crate::study::subject::{Choice, Labelled, pick};

/// The file of a cell's samples.
pub const SAMPLES: &str = "samples.npy";
/// The file that is written last: with it a cell is finished.
pub const CELL: &str = "cell.json";

/// The samples of a finished cell, with their labels and thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledSamples {
    /// The folder.
    pub path: PathBuf,
    /// Samples, `[n, N]`, values in [-1, 1], in the order row, column, channel.
    pub samples: Array2<f32>,
    /// A label for each sample, `[n]`.
    pub labels: Vec<Labelled>,
    /// |S| / K of the sets within which neighbours were searched.
    pub multiple: usize,
    /// delta_m of Eq. 9; `None` when the cell has no such threshold.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10; `None` when the cell has no such threshold.
    pub delta_s: Option<f64>,
}

impl LabelledSamples {
    /// Whether a folder is the folder of a cell, finished or not.
    pub fn is_at(path: &Path) -> bool {
        [SAMPLES, CELL, "task.json"].iter().any(|name| path.join(name).is_file())
    }

    /// Reads a finished cell, with the labels of the smallest sets S.
    ///
    /// # Errors
    /// [`TableError::Store`] for a missing or damaged file, [`TableError::Frame`] for a cell that is not finished and for
    /// files that don't belong together, those of [`labelled_rows`].
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let bad = |reason: String| TableError::Frame { caption: path.display().to_string(), reason };
        let file = path.join(CELL);
        if !file.is_file() {
            return Err(bad(format!("the cell is not finished: it has no {CELL}; run mem2gen sweep")));
        }
        let text = fs::read(&file).map_err(StoreError::io("open", &file))?;
        let about: Value = from_json(&text).map_err(|e| bad(format!("{CELL}: {e}")))?;
        let samples = match read_matrix(&path.join(SAMPLES))? {
            Matrix::F32(samples) => samples,
            Matrix::F64(samples) => samples.mapv(|v| v as f32),
        };
        let changed = |name: &str| {
            bad(format!(
                "{name} is not what {CELL} records; run mem2gen sweep again, which makes the cell anew"
            ))
        };
        if about["samples_sha256"] != rows_sha256(samples.view()) {
            return Err(changed(SAMPLES));
        }
        let mut multiples = Vec::new();
        for entry in fs::read_dir(path).map_err(StoreError::io("read", path))? {
            let name = entry.map_err(StoreError::io("read", path))?.file_name();
            let name = name.to_string_lossy();
            let middle = name.strip_prefix("labels-x").and_then(|rest| rest.strip_suffix(".parquet"));
            multiples.extend(middle.and_then(|multiple| multiple.parse::<usize>().ok()));
        }
        let multiple =
            multiples.into_iter().min().ok_or_else(|| bad("it has no labels-xM.parquet".into()))?;
        let found =
            about["found"].as_array().into_iter().flatten().find(|found| found["multiple"] == multiple);
        let name = format!("labels-x{multiple}.parquet");
        let file = path.join(&name);
        let bytes = fs::read(&file).map_err(StoreError::io("open", &file))?;
        if found.is_none_or(|found| found["labels_sha256"] != sha256_hex(&bytes)) {
            return Err(changed(&name));
        }
        let labels = labelled_rows(&read_parquet_bytes(&file, bytes)?)
            .map_err(|e| TableError::Parquet { path: file, reason: e.to_string() })?;
        let in_order = labels.iter().enumerate().all(|(i, row)| row.sample == i);
        if labels.len() != samples.nrows() || !in_order {
            let (rows, n) = (labels.len(), samples.nrows());
            return Err(bad(format!("{rows} labels for {n} samples, expected one each, in order")));
        }
        let delta = |name: &str| found?["classification"][name]["value"].as_f64();
        let (delta_m, delta_s) = (delta("delta_m"), delta("delta_s"));
        Ok(Self { path: path.into(), samples, labels, multiple, delta_m, delta_s })
    }

    /// Rows of at most `choice.max` samples of a class, see [`pick`].
    pub fn pick(&self, label: Class, choice: &Choice) -> Vec<usize> {
        pick(&self.labels, label, choice.max, choice.pick, choice.pick_seed)
    }
}

/// The samples of a frame with `sample`, `label`, `d_train` and `d_synthetic`. Distances may be missing. A sample with
/// a distance that is NaN or infinite is invalid.
///
/// # Errors
/// [`TableError`] for a missing column, another type, an unknown label or a negative number of a sample.
pub fn labelled_rows(frame: &DataFrame) -> Result<Vec<Labelled>, TableError> {
    let (samples, labels) = (usize::read(frame, "sample")?, Class::read(frame, "label")?);
    let (d_train, d_synthetic) = (Item::read(frame, "d_train")?, Item::read(frame, "d_synthetic")?);
    let columns = samples.into_iter().zip(labels).zip(d_train.into_iter().zip(d_synthetic));
    let rows = columns.map(|((sample, label), (d_train, d_synthetic))| {
        let finite = [d_train, d_synthetic].iter().flatten().all(|d: &f64| d.is_finite());
        Labelled { sample, label: if finite { label } else { Class::Invalid }, d_train, d_synthetic }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{frame, integers, texts, write_parquet};
    use crate::store::write_array;
    use ndarray::array;
    use polars::prelude::{NamedFrom, Series};
    use serde_json::json;

    #[test]
    fn a_cell_is_read_when_it_is_finished_and_complete() {
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
        let recorded = || {
            let sum = |name: &str| {
                fs::read(at.join(name)).map_or_else(|_| String::new(), |bytes| sha256_hex(&bytes))
            };
            let found = |multiple: usize, m: f64, s: Option<f64>| {
                json!({
                    "multiple": multiple,
                    "labels_sha256": sum(&format!("labels-x{multiple}.parquet")),
                    "classification": { "delta_m": { "value": m }, "delta_s": { "value": s } },
                })
            };
            let found = [found(8, 0.5, Some(1.0)), found(4, 0.25, None)];
            let about = json!({ "samples_sha256": rows_sha256(samples.view()), "found": found });
            fs::write(at.join(CELL), about.to_string()).unwrap();
        };
        recorded();
        refused("no labels-xM");
        write_parquet(&at.join("labels-x8.parquet"), &labels(0, "memorized", &[Some(0.1), None])).unwrap();
        write_parquet(&at.join("labels-x4.parquet"), &labels(0, "spurious", &[Some(0.5), None])).unwrap();
        refused("labels-x4.parquet is not what cell.json records");
        recorded();
        let cell = LabelledSamples::open(at).unwrap();
        assert_eq!((cell.samples.clone(), cell.multiple), (samples.clone(), 4));
        assert_eq!((cell.delta_m, cell.delta_s), (Some(0.25), None));
        assert_eq!(cell.pick(Class::Spurious, &Choice::default()), [0]);
        write_parquet(&at.join("labels-x4.parquet"), &labels(1, "spurious", &[Some(0.5), None])).unwrap();
        recorded();
        refused("in order");
        write_array(&at.join(SAMPLES), &array![[0.5f32, -0.5], [1.0, 0.5]]).unwrap();
        refused("samples.npy is not what cell.json records");
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
    fn labels_are_read_with_missing_distances() {
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
