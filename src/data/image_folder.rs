//! A folder of PNG or JPEG images, cropped to squares.
//!
//! The crop is that of ADM (Dhariwal and Nichol): halve with a box filter while the shorter side is at least twice the
//! target size, resize with a bicubic filter to the target size, and take the centre. The filters are bit-exact copies of
//! Pillow's.

use crate::shape::Shape;
use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageReader, Limits};

use super::DataError;
use super::resample::{Filter, resize};

/// Side of the squares that the paper trains on.
pub const SIZE: usize = 64;

/// Largest side and decoder memory that are accepted.
const LONGEST: u32 = 16_384;
const MOST_MEMORY: u64 = 1 << 30;

/// The images of a folder (`.png`, `.jpg`, `.jpeg` in any case) in the byte order of their names. Other files and
/// subfolders are ignored.
///
/// # Errors
/// [`DataError::Io`] when the folder can't be read, [`DataError::Count`] when it has no image.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let known = |path: &Path| {
        let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
    };
    let mut paths = Vec::new();
    for item in fs::read_dir(folder).map_err(DataError::io("list folder", folder))? {
        let path = item.map_err(DataError::io("list folder", folder))?.path();
        if known(&path) && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(DataError::Count {
            path: folder.to_path_buf(),
            what: "images (.png, .jpg, .jpeg)",
            expected: 1,
            found: 0,
        });
    }
    paths.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(paths)
}

/// Decodes one image and crops it to `size` x `size` RGB; an alpha channel is dropped. The content gives the format;
/// `path` is used in error messages only.
///
/// # Errors
/// [`DataError::Image`] for a file that is not PNG or JPEG, is damaged or truncated, or has a side above 16384, and for a
/// size of 0.
pub fn decode(path: &Path, bytes: &[u8], size: usize) -> Result<Vec<u8>, DataError> {
    if size == 0 {
        return Err(refused(path, bytes)("the crop has size 0, expected at least 1".to_owned()));
    }
    let rgb = picture(path, bytes)?.into_rgb8();
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(centre_crop(rgb.into_raw(), (width, height), size))
}

/// Decodes one image without a crop: its shape, with 1 channel for a gray file and 3 otherwise, and its values in 8 bits.
/// An alpha channel is dropped.
///
/// # Errors
/// As [`decode`].
pub fn decode_whole(path: &Path, bytes: &[u8]) -> Result<(Shape, Vec<u8>), DataError> {
    let picture = picture(path, bytes)?;
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let channels = if picture.color().has_color() { 3 } else { 1 };
    let pixels = if channels == 3 { picture.into_rgb8().into_raw() } else { picture.into_luma8().into_raw() };
    Ok((Shape { height, width, channels }, pixels))
}

fn refused(path: &Path, bytes: &[u8]) -> impl Fn(String) -> DataError {
    move |reason| DataError::Image { path: path.to_path_buf(), size: bytes.len() as u64, reason }
}

/// A decoded image whose sides are not zero.
fn picture(path: &Path, bytes: &[u8]) -> Result<DynamicImage, DataError> {
    let bad = refused(path, bytes);
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| bad(e.to_string()))?;
    let (width, height) = (picture.width(), picture.height());
    if width == 0 || height == 0 {
        return Err(bad(format!("the sides are {width} x {height}, expected both above 0")));
    }
    Ok(picture)
}

/// ADM's centre crop of an RGB image of `sides` = (width, height), both above zero.
fn centre_crop(mut rgb: Vec<u8>, sides: (usize, usize), size: usize) -> Vec<u8> {
    let (mut width, mut height) = sides;
    while width.min(height) >= 2 * size {
        let half = (width / 2, height / 2);
        rgb = resize(&rgb, (width, height), half, Filter::Box);
        (width, height) = half;
    }
    let scale = size as f64 / width.min(height) as f64;
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let target = (scaled(width), scaled(height));
    rgb = resize(&rgb, (width, height), target, Filter::Bicubic);
    (width, height) = target;
    let (left, top) = ((width - size) / 2, (height - size) / 2);
    rgb.chunks_exact(3 * width)
        .skip(top)
        .take(size)
        .flat_map(|row| &row[3 * left..3 * (left + size)])
        .copied()
        .collect()
}
