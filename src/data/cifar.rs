//! The binary batches of CIFAR10.
//!
//! A batch is a sequence of 3073-byte records: one label, then the red, green and blue planes of a 32x32 image. There
//! is no header, so the length is the only check.

use std::path::Path;

use super::{DataError, idx};

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
    let plane = SIDE * SIDE;
    let mut pixels = Vec::with_capacity(records.len() * PIXELS);
    for record in records {
        let (red, rest) = record[1..].split_at(plane);
        let (green, blue) = rest.split_at(plane);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    Ok(Batch { labels, pixels })
}
