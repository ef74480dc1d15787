//! The IDX format of MNIST and Fashion-MNIST, plain or gzipped.
//!
//! A file is a magic number (two zero bytes, the element type, the number of axes), one big-endian 32-bit size for each
//! axis, and the elements in row-major order. Supported are unsigned bytes (type 8) with one axis for labels, three for
//! gray images and four (height, width, channels) for colour images; the cache keeps folders of images in the last form.
//!
//! The functions take bytes, so that they can be fuzzed; `path` is used in error messages only. A size in a header is
//! compared with the number of bytes before anything is allocated.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::DataError;

/// Largest number of bytes that DEFLATE produces from one: 258 for every two bits.
const MOST_INFLATION: u64 = 1032;

/// Decoded images in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// All values in the order image, row, column, channel.
    pub pixels: Vec<u8>,
}

struct Header {
    sizes: Vec<u64>,
    /// Bytes of the header itself.
    length: usize,
    /// Bytes of header and elements.
    total: u64,
}

/// Reads the header at the start of `bytes`, at most 20 bytes.
fn header(path: &Path, bytes: &[u8], axes: &[u8], expected: &'static str) -> Result<Header, DataError> {
    let truncated = |due: usize| DataError::Truncated {
        path: path.to_path_buf(),
        expected: due as u64,
        found: bytes.len() as u64,
    };
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), sizes: vec![0] });
    }
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else { return Err(truncated(4)) };
    let [zero, nil, kind, rank] = *magic;
    if (zero, nil, kind) != (0, 0, 8) || !axes.contains(&rank) {
        let found = u32::from_be_bytes(*magic);
        return Err(DataError::Magic { path: path.to_path_buf(), found, expected });
    }
    let length = 4 + 4 * usize::from(rank);
    if bytes.len() < length {
        return Err(truncated(length));
    }
    let sizes: Vec<u64> =
        rest.as_chunks::<4>().0.iter().take(rank.into()).map(|&b| u64::from(u32::from_be_bytes(b))).collect();
    if sizes.contains(&0) {
        return Err(DataError::Empty { path: path.to_path_buf(), sizes });
    }
    let total = sizes
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size))
        .and_then(|product| product.checked_add(length as u64))
        .filter(|&total| usize::try_from(total).is_ok());
    match total {
        Some(total) => Ok(Header { sizes, length, total }),
        None => Err(DataError::Overflow { path: path.to_path_buf(), sizes }),
    }
}

/// Compares the header with the length and removes the header in place; the elements are not copied.
fn elements(
    path: &Path,
    mut bytes: Vec<u8>,
    axes: &[u8],
    expected: &'static str,
) -> Result<(Vec<u64>, Vec<u8>), DataError> {
    let head = header(path, &bytes, axes, expected)?;
    exact(path, head.total, bytes.len() as u64)?;
    bytes.drain(..head.length);
    Ok((head.sizes, bytes))
}

/// Refuses any length except the expected one.
fn exact(path: &Path, expected: u64, found: u64) -> Result<(), DataError> {
    let path = path.to_path_buf();
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(DataError::Truncated { path, expected, found }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(DataError::Trailing { path, expected, found }),
    }
}

/// Decodes the images of a plain IDX file of three or four axes.
///
/// # Errors
/// [`DataError::Magic`], [`DataError::Empty`] and [`DataError::Overflow`] for the header, [`DataError::Truncated`] and
/// [`DataError::Trailing`] for another length than the header gives.
pub fn read_images(path: &Path, bytes: Vec<u8>) -> Result<Images, DataError> {
    let (sizes, pixels) =
        elements(path, bytes, &[3, 4], "0x00000803 or 0x00000804 (unsigned bytes of 3 or 4 axes)")?;
    // No size exceeds the length of `pixels`, so the cast is exact. Files of three axes have one channel.
    let size = |axis: usize| sizes.get(axis).map_or(1, |&s| s as usize);
    Ok(Images { count: size(0), height: size(1), width: size(2), channels: size(3), pixels })
}

/// Decodes the labels of a plain IDX file of one axis; each must be below `classes`.
///
/// # Errors
/// As [`read_images`], and [`DataError::Label`] for the first label out of range.
pub fn read_labels(path: &Path, bytes: Vec<u8>, classes: u8) -> Result<Vec<u8>, DataError> {
    let (_, labels) = elements(path, bytes, &[1], "0x00000801 (unsigned bytes of 1 axis)")?;
    check_labels(path, &labels, classes)?;
    Ok(labels)
}

/// Refuses the first label that is not below `classes`.
pub(super) fn check_labels(path: &Path, labels: &[u8], classes: u8) -> Result<(), DataError> {
    match labels.iter().position(|&label| label >= classes) {
        Some(index) => {
            Err(DataError::Label { path: path.to_path_buf(), index, label: labels[index], classes })
        }
        None => Ok(()),
    }
}

/// Whether bytes start with the magic number of gzip; IDX files do not.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Inflates a gzipped IDX file. The IDX header is inflated and checked first; the rest is read to at most one byte beyond
/// the length that it gives.
///
/// # Errors
/// [`DataError::Gzip`] for a damaged stream, including its CRC; [`DataError::Inflation`] for a header that gives more than
/// the compressed bytes can hold; [`DataError::Trailing`] for bytes after the stream; and as [`read_images`].
pub fn inflate(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    let compressed = bytes.len() as u64;
    let damaged = |source: io::Error| DataError::Gzip { path: path.to_path_buf(), compressed, source };
    let mut stream = GzDecoder::new(bytes);
    let mut out = Vec::new();
    (&mut stream).take(4).read_to_end(&mut out).map_err(damaged)?;
    // The magic number gives the number of axes; `header` checks it, and refuses a stream of less than four bytes.
    let axes = out.get(3).map_or(0, |&rank| u64::from(rank.min(4)));
    (&mut stream).take(4 * axes).read_to_end(&mut out).map_err(damaged)?;
    let head = header(path, &out, &[1, 3, 4], "0x00000801, 0x00000803 or 0x00000804 in the stream")?;
    let most = compressed.saturating_mul(MOST_INFLATION);
    if head.total > most {
        let path = path.to_path_buf();
        return Err(DataError::Inflation { path, promised: head.total, compressed, most });
    }
    let left = head.total - head.length as u64;
    (&mut stream).take(left + 1).read_to_end(&mut out).map_err(damaged)?;
    exact(path, head.total, out.len() as u64)?;
    let behind = stream.into_inner().len() as u64;
    exact(path, compressed - behind, compressed)?;
    Ok(out)
}

/// Writes a plain IDX file of images: three axes for one channel, four for several.
///
/// # Errors
/// Those of the writer; `InvalidInput` when a size exceeds 32 bits or the pixels do not fit the sizes.
pub fn write_images(out: &mut dyn Write, images: &Images) -> io::Result<()> {
    let Images { count, height, width, channels, ref pixels } = *images;
    let sizes = [count, height, width, channels];
    let due = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if due != Some(pixels.len()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} values for sizes {sizes:?}", pixels.len()),
        ));
    }
    let axes = if channels == 1 { 3 } else { 4 };
    write_header(out, &sizes[..axes])?;
    out.write_all(pixels)
}

/// Writes a plain IDX file of labels.
///
/// # Errors
/// Those of the writer; `InvalidInput` when their number exceeds 32 bits.
pub fn write_labels(out: &mut dyn Write, labels: &[u8]) -> io::Result<()> {
    write_header(out, &[labels.len()])?;
    out.write_all(labels)
}

fn write_header(out: &mut dyn Write, sizes: &[usize]) -> io::Result<()> {
    out.write_all(&[0, 0, 8, sizes.len() as u8])?;
    for &size in sizes {
        let size = u32::try_from(size).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        out.write_all(&size.to_be_bytes())?;
    }
    Ok(())
}
