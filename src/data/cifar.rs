//! The binary batches of CIFAR10.
//!
//! A batch is a sequence of 3073-byte records: one label, then the red, green and blue planes of a 32x32 image. There
//! is no header, so the length is the only check.

use std::collections::BTreeMap;
use std::path::Path;

use super::pickle::{self, Value};
use super::{DataError, idx};
use crate::store::npy::Kind;

/// Height and width of an image.
pub const SIDE: usize = 32;
/// Values of one image.
pub const PIXELS: usize = 3 * SIDE * SIDE;
/// Bytes of one record.
pub const RECORD: usize = 1 + PIXELS;
/// Number of classes.
pub const CLASSES: u8 = 10;

/// One decoded batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Label of each image.
    pub labels: Vec<u8>,
    /// All values in the order image, row, column, channel; the planes of the file are interleaved.
    pub pixels: Vec<u8>,
}

/// Decodes a batch file. `path` is used in error messages only.
///
/// # Errors
/// [`DataError::Empty`], [`DataError::Records`] for a length that is not a multiple of [`RECORD`], and
/// [`DataError::Label`] for a label above 9.
pub fn read_batch(path: &Path, bytes: &[u8]) -> Result<Batch, DataError> {
    let found = bytes.len() as u64;
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), sizes: vec![0] });
    }
    let (records, rest) = bytes.as_chunks::<RECORD>();
    if !rest.is_empty() {
        return Err(DataError::Records { path: path.to_path_buf(), found, record: RECORD as u64 });
    }
    let labels: Vec<u8> = records.iter().map(|r| r[0]).collect();
    idx::check_labels(path, &labels, CLASSES)?;
    Ok(Batch { labels, pixels: interleaved(records.iter().map(|record| &record[1..]), records.len()) })
}

/// Images of a red, a green and a blue plane, pixel by pixel.
fn interleaved<'a>(images: impl Iterator<Item = &'a [u8]>, count: usize) -> Vec<u8> {
    let plane = SIDE * SIDE;
    let mut pixels = Vec::with_capacity(count * PIXELS);
    for image in images {
        let (red, rest) = image.split_at(plane);
        let (green, blue) = rest.split_at(plane);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    pixels
}

/// Decodes a batch of the Python version: a pickled dictionary of `data`, uint8 `[n, 3072]`, and `labels`. Nothing is
/// executed.
///
/// # Errors
/// [`DataError::Pickle`] for another content, and [`DataError::Label`] for a label above 9.
pub fn read_pickled(path: &Path, bytes: &[u8]) -> Result<Batch, DataError> {
    let bad = |reason: String| DataError::Pickle { path: path.to_path_buf(), reason };
    let Value::Dict(entries, ..) = pickle::read(bytes).map_err(bad)? else {
        return Err(bad("it is not a dictionary, expected a batch of CIFAR10".into()));
    };
    let batch = of_pickle(&entries).map_err(bad)?;
    idx::check_labels(path, &batch.labels, CLASSES)?;
    Ok(batch)
}

/// A batch as the binary version stores it: each image's label, red plane, green plane and blue plane.
pub fn records(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.labels.len() * RECORD);
    for (label, image) in batch.labels.iter().zip(batch.pixels.chunks_exact(PIXELS)) {
        bytes.push(*label);
        for channel in 0..3 {
            bytes.extend(image[channel..].iter().step_by(3));
        }
    }
    bytes
}

/// The batch in a dictionary; labels are not checked.
pub(super) fn of_pickle(entries: &BTreeMap<&str, Value<'_>>) -> Result<Batch, String> {
    let (Some(Value::Array(data)), Some(Value::List(labels, _))) =
        (entries.get("data"), entries.get("labels"))
    else {
        return Err("it lacks data or labels, expected a batch of CIFAR10".into());
    };
    let sizes = &data.header.sizes;
    if data.header.kind != Kind::Unsigned(1) || data.header.fortran || sizes[..] != [labels.len(), PIXELS] {
        return Err(format!(
            "data is {} of shape {sizes:?} beside {} labels, expected uint8 of shape [labels, {PIXELS}]",
            data.header.kind.name(),
            labels.len()
        ));
    }
    let label = |value: &Value<'_>| match value {
        Value::Int(label) => u8::try_from(*label).map_err(|_| format!("a label is {label}")),
        other => Err(format!("a label is {}", other.name())),
    };
    let labels = labels.iter().map(label).collect::<Result<Vec<u8>, String>>()?;
    Ok(Batch { pixels: interleaved(data.bytes.chunks_exact(PIXELS), labels.len()), labels })
}
