//! A user's images as rows of f32, read from a `.npy` or `.safetensors` array, an IDX file or a folder of images.
//!
//! The content gives the format. The axes of an array are (image, row, column, channel); (image, channel, row, column) when
//! only this order has 1 or 3 channels; (image, row, column); or (image, value), which leaves the shape unknown. Bytes
//! become v / 255; other values are unchanged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use ndarray::{ArcArray2, Array2, Array3, ArrayD, ArrayViewD, Axis};
use ndarray_npy::{ViewElement, ViewNpyError, ViewNpyExt};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{DataError, Range, idx, image_folder};
use crate::shape::Shape;
use crate::store::StoreError;

/// Number of values from which the range is inferred.
const LOOKED_AT: usize = 1 << 20;

/// File format of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A `.npy` array.
    Npy,
    /// A tensor of a `.safetensors` file.
    Safetensors,
    /// An IDX file, plain or gzipped.
    Idx,
    /// A folder of PNG or JPEG images, in the byte order of their names.
    Folder,
}

/// Nominal range of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nominal {
    /// [0, 1].
    #[serde(rename = "[0, 1]")]
    Unit,
    /// [-1, 1].
    #[serde(rename = "[-1, 1]")]
    Symmetric,
    /// [0, 255].
    #[serde(rename = "[0, 255]")]
    Bytes,
    /// None of these.
    #[serde(rename = "none of [0, 1], [-1, 1] and [0, 255]")]
    Other,
}

impl Nominal {
    /// The range as text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "[0, 1]",
            Self::Symmetric => "[-1, 1]",
            Self::Bytes => "[0, 255]",
            Self::Other => "none of [0, 1], [-1, 1] and [0, 255]",
        }
    }
}

/// Range and percentiles of the finite values of a set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Nominal range: known for bytes, else inferred from the two percentiles, as generated images exceed their range
    /// slightly.
    pub range: Nominal,
    /// Smallest value; `None` when no value is finite.
    pub min: Option<f32>,
    /// First percentile.
    pub p01: Option<f32>,
    /// 99th percentile.
    pub p99: Option<f32>,
    /// Largest value.
    pub max: Option<f32>,
}

/// Images as rows of f32, `[n, values]`.
///
/// ```
/// use mem2gen::data::ImageSet;
/// use mem2gen::shape::Shape;
/// use mem2gen::store::write_array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_array(&path, &ndarray::array![[[0.0f32, 0.5], [1.0, 0.25]]])?;
/// let images = ImageSet::read(&path, None)?;
/// assert_eq!(images.shape(), Some(Shape::image(2, 2, 1)));
/// assert_eq!(images.rows().row(0).to_vec(), [0.0, 0.5, 1.0, 0.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageSet {
    path: PathBuf,
    format: Format,
    shape: Option<Shape>,
    rows: ArcArray2<f32>,
    values: Values,
    files: Option<Vec<String>>,
}

impl ImageSet {
    /// Reads images. `tensor` is the name of a tensor of a `.safetensors` file that has several.
    ///
    /// # Errors
    /// [`DataError`] for another format, element type or shape, for damage, and for no images.
    pub fn read(path: &Path, tensor: Option<&str>) -> Result<Self, DataError> {
        if path.is_dir() {
            return Self::folder(path);
        }
        let bytes = fs::read(path).map_err(DataError::io("open", path))?;
        if bytes.starts_with(b"\x93NUMPY") {
            return Self::npy(path, &bytes);
        }
        if safetensors_header(&bytes) {
            return Self::safetensors(path, &bytes, tensor);
        }
        if idx::is_gzip(&bytes) {
            return Self::idx(path, idx::inflate(path, &bytes)?);
        }
        if bytes.starts_with(&[0, 0]) {
            return Self::idx(path, bytes);
        }
        Err(array(
            path,
            "unknown format, expected .npy, .safetensors, IDX (also gzipped) or a folder of PNG or JPEG images".into(),
        ))
    }

    fn folder(path: &Path) -> Result<Self, DataError> {
        let files = image_folder::list(path)?;
        let pictures: Vec<(Shape, Vec<u8>)> = files
            .par_iter()
            .map(|file| {
                let bytes = fs::read(file).map_err(DataError::io("open", file))?;
                image_folder::decode_whole(file, &bytes)
            })
            .collect::<Result<_, DataError>>()?;
        // Gray images get three channels when another image has colour.
        let channels = pictures.iter().map(|(shape, _)| shape.channels).max();
        let channels = channels.expect("`list` refuses a folder without images");
        let shape = Shape { channels, ..pictures[0].0 };
        let mut pixels = Vec::with_capacity(pictures.len() * shape.len());
        for (file, (found, picture)) in files.iter().zip(pictures) {
            if (found.height, found.width) != (shape.height, shape.width) {
                let (path, expected) = (file.clone(), shape.sizes());
                return Err(DataError::Shape { path, expected, found: found.sizes() });
            }
            let times = channels / found.channels;
            pixels.extend(picture.into_iter().flat_map(|v| std::iter::repeat_n(v, times)));
        }
        let name = |file: &PathBuf| {
            let name = file.file_name().expect("a listed file has a name");
            name.to_string_lossy().into_owned()
        };
        let names = files.iter().map(name).collect();
        Ok(Self { files: Some(names), ..Self::bytes(path, Format::Folder, shape, files.len(), &pixels)? })
    }

    fn idx(path: &Path, bytes: Vec<u8>) -> Result<Self, DataError> {
        let found = idx::read_images(path, bytes)?;
        let shape = Shape { height: found.height, width: found.width, channels: found.channels };
        Self::bytes(path, Format::Idx, shape, found.count, &found.pixels)
    }

    fn npy(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        if let Some(stored) = view::<u8>(path, bytes)? {
            return Self::arranged(path, Format::Npy, stored.mapv(unit), true);
        }
        if let Some(values) = view::<f32>(path, bytes)? {
            return Self::arranged(path, Format::Npy, values.to_owned(), false);
        }
        if let Some(values) = view::<f64>(path, bytes)? {
            return Self::arranged(path, Format::Npy, values.mapv(|v| v as f32), false);
        }
        Err(array(
            path,
            "unsupported element type, expected uint8, float32 or float64 in little-endian order".into(),
        ))
    }

    fn safetensors(path: &Path, bytes: &[u8], tensor: Option<&str>) -> Result<Self, DataError> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| array(path, e.to_string()))?;
        let names: BTreeSet<&str> = file.names().into_iter().collect();
        let list = || names.iter().copied().collect::<Vec<_>>().join(", ");
        let name = match tensor {
            Some(name) if names.contains(name) => name,
            Some(name) => {
                return Err(array(path, format!("no tensor is called {name}, expected one of {}", list())));
            }
            None => match names.first() {
                Some(only) if names.len() == 1 => only,
                _ => {
                    let reason = format!(
                        "{} tensors ({}), expected one; choose one with --tensor",
                        names.len(),
                        list()
                    );
                    return Err(array(path, reason));
                }
            },
        };
        let found = file.tensor(name).map_err(|e| array(path, e.to_string()))?;
        let kind = match found.dtype() {
            Dtype::U8 => DType::U8,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => {
                let reason = format!("tensor {name} has type {other:?}, expected U8, F16, BF16, F32 or F64");
                return Err(array(path, reason));
            }
        };
        nonempty(path, found.shape())?;
        let values = || -> candle_core::Result<Vec<f32>> {
            Tensor::from_raw_buffer(found.data(), kind, found.shape(), &Device::Cpu)?
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1()
        };
        let stored = kind == DType::U8;
        let mut values = values().map_err(|e| array(path, e.to_string()))?;
        if stored {
            values.iter_mut().for_each(|v| *v = unit(*v as u8));
        }
        let values = ArrayD::from_shape_vec(found.shape(), values).map_err(|e| array(path, e.to_string()))?;
        Self::arranged(path, Format::Safetensors, values, stored)
    }

    fn bytes(
        path: &Path,
        format: Format,
        shape: Shape,
        count: usize,
        pixels: &[u8],
    ) -> Result<Self, DataError> {
        let values = pixels.iter().map(|v| unit(*v)).collect();
        let rows =
            Array2::from_shape_vec((count, shape.len()), values).map_err(|e| array(path, e.to_string()))?;
        Ok(Self::new(path, format, Some(shape), rows, true))
    }

    fn arranged(path: &Path, format: Format, values: ArrayD<f32>, stored: bool) -> Result<Self, DataError> {
        let sizes = values.shape().to_vec();
        nonempty(path, &sizes)?;
        let colours = |c: usize| c == 1 || c == 3;
        let (shape, values) = match sizes[..] {
            [_, _] => (None, values),
            [_, height, width] => (Some(Shape { height, width, channels: 1 }), values),
            [_, height, width, channels] if colours(channels) => {
                (Some(Shape { height, width, channels }), values)
            }
            [_, channels, height, width] if colours(channels) => {
                (Some(Shape { height, width, channels }), values.permuted_axes(vec![0, 2, 3, 1]))
            }
            _ => {
                let reason = format!(
                    "its shape is {sizes:?}, expected [n, values], [n, height, width], [n, height, width, 1 or 3] or \
                     [n, 1 or 3, height, width]"
                );
                return Err(array(path, reason));
            }
        };
        let length: usize = sizes[1..].iter().product();
        let flat: Vec<f32> = match values.as_slice() {
            Some(_) => values.into_raw_vec_and_offset().0,
            None => values.iter().copied().collect(),
        };
        let rows =
            Array2::from_shape_vec((sizes[0], length), flat).map_err(|e| array(path, e.to_string()))?;
        Ok(Self::new(path, format, shape, rows, stored))
    }

    fn new(path: &Path, format: Format, shape: Option<Shape>, rows: Array2<f32>, stored: bool) -> Self {
        let values = measure(&rows, stored);
        Self { path: path.to_path_buf(), format, shape, rows: rows.into_shared(), values, files: None }
    }

    /// Path from which the images were read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Shape of an image; `None` when the file does not give it.
    pub fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// The images, one a row with values in the order row, column, channel.
    pub fn rows(&self) -> &ArcArray2<f32> {
        &self.rows
    }

    /// Range and percentiles of the values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// File names of the images; `None` when the input is not a folder.
    pub fn files(&self) -> Option<&[String]> {
        self.files.as_deref()
    }

    /// Image `row` with values scaled from their range to [0, 1], for display, `[height, width, channels]`. Values
    /// outside the range are not clipped.
    ///
    /// # Errors
    /// [`DataError::Index`] for a row beyond the last, [`DataError::Store`] for a shape of another number of values.
    pub fn picture(&self, row: usize, shape: Shape) -> Result<Array3<f32>, DataError> {
        let (n, length) = self.rows.dim();
        if row >= n {
            return Err(DataError::Index { index: row, n });
        }
        if length != shape.len() {
            return Err(array(&self.path, format!("images have {length} values, expected those of {shape}")));
        }
        let (pixels, (lo, span)) = (self.rows.row(row), self.span());
        let (_, width, channels) = shape.sizes();
        Ok(Array3::from_shape_fn(shape.sizes(), |(y, x, c)| {
            (pixels[(y * width + x) * channels + c] - lo) / span
        }))
    }

    /// The images at `rows` with values scaled from their range to [0, 1] and clipped.
    ///
    /// # Panics
    /// For a row beyond the last.
    pub fn clipped(&self, rows: &[usize]) -> Array2<f32> {
        let (lo, span) = self.span();
        self.rows.select(Axis(0), rows).mapv_into(|v| ((v - lo) / span).clamp(0.0, 1.0))
    }

    /// Lower end and width of the range of the values.
    fn span(&self) -> (f32, f32) {
        let (lo, hi) = match self.values.range {
            Nominal::Unit => (0.0, 1.0),
            Nominal::Symmetric => (-1.0, 1.0),
            Nominal::Bytes => (0.0, 255.0),
            // Without finite values there is nothing to scale.
            Nominal::Other => self.values.p01.zip(self.values.p99).unwrap_or((0.0, 1.0)),
        };
        (lo, if hi > lo { hi - lo } else { 1.0 })
    }

    fn described(&self) -> String {
        match self.shape {
            Some(shape) => format!("images of {shape} (height x width x channels)"),
            None => format!("images of {} values", self.rows.ncols()),
        }
    }

    /// Whether the three channels of every pixel are equal.
    fn gray(&self) -> bool {
        self.rows.rows().into_iter().all(|row| {
            (0..row.len() / 3).all(|i| row[3 * i] == row[3 * i + 1] && row[3 * i + 1] == row[3 * i + 2])
        })
    }

    /// Reduces three channels to the first.
    fn one_channel(&mut self) {
        let n = self.rows.ncols() / 3;
        self.rows =
            Array2::from_shape_fn((self.rows.nrows(), n), |(i, j)| self.rows[[i, 3 * j]]).into_shared();
        self.shape = self.shape.map(|shape| Shape { channels: 1, ..shape });
    }
}

/// Brings sets to one shape for comparison and gives the shape; `None` when no file gives it and the number of values is
/// not that of a square gray or colour image.
///
/// A set with three equal channels becomes gray when another set is gray, as some programs save gray images so.
///
/// # Errors
/// [`DataError::Unlike`] for images of different sizes; [`DataError::UnlikeRange`] for values in different ranges, unless
/// `any_range` is set. Both name the first set and the one that differs from it.
pub fn reconcile(sets: &mut [ImageSet], any_range: bool) -> Result<Option<Shape>, DataError> {
    if sets.iter().any(|s| s.shape.is_some_and(|shape| shape.channels == 1)) {
        for set in sets.iter_mut().filter(|s| s.shape.is_some_and(|shape| shape.channels == 3)) {
            if set.gray() {
                set.one_channel();
            }
        }
    }
    // The other sets are compared with the first one of known shape.
    let Some(first) = sets.iter().find(|s| s.shape.is_some()).or(sets.first()) else { return Ok(None) };
    for set in sets.iter() {
        let other_shape = set.shape.is_some() && set.shape != first.shape;
        if other_shape || set.rows.ncols() != first.rows.ncols() {
            return Err(DataError::Unlike {
                path: set.path.clone(),
                found: set.described(),
                other: first.path.clone(),
                expected: first.described(),
            });
        }
        // A set without finite values has no range.
        if set.values.range != sets[0].values.range && set.values.min.is_some() && !any_range {
            return Err(DataError::UnlikeRange {
                path: set.path.clone(),
                found: set.values.range.name().to_owned(),
                other: sets[0].path.clone(),
                expected: sets[0].values.range.name().to_owned(),
            });
        }
    }
    let length = first.rows.ncols();
    let square = |channels: usize| {
        let side = (length / channels).isqrt();
        (channels * side * side == length).then_some(Shape { height: side, width: side, channels })
    };
    // Fewer than 16 values are not taken for an image.
    Ok(first.shape.or_else(|| if length < 16 { None } else { square(1).or_else(|| square(3)) }))
}

/// The value in [0, 1] of a stored byte.
fn unit(stored: u8) -> f32 {
    Range::Unit.value(stored) as f32
}

fn array(path: &Path, reason: String) -> DataError {
    StoreError::Array { path: path.to_path_buf(), reason }.into()
}

fn nonempty(path: &Path, sizes: &[usize]) -> Result<(), DataError> {
    if !sizes.contains(&0) {
        return Ok(());
    }
    Err(DataError::Empty { path: path.to_path_buf(), sizes: sizes.iter().map(|&s| s as u64).collect() })
}

/// Whether the bytes start with the length of a JSON header and an opening brace.
fn safetensors_header(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|length| {
        u64::from_le_bytes(*length) <= bytes.len() as u64 - 8 && bytes.get(8) == Some(&b'{')
    })
}

/// The array in the bytes of a `.npy` file; `None` when it has another element type. The header is compared with the length
/// before anything is allocated.
fn view<'a, T: ViewElement>(path: &Path, bytes: &'a [u8]) -> Result<Option<ArrayViewD<'a, T>>, DataError> {
    match ArrayViewD::<T>::view_npy(bytes) {
        Ok(found) => Ok(Some(found)),
        Err(ViewNpyError::WrongDescriptor(_)) => Ok(None),
        Err(e) => Err(array(path, e.to_string())),
    }
}

/// Range and percentiles; the percentiles are those of evenly spaced rows.
fn measure(rows: &Array2<f32>, stored: bool) -> Values {
    let finite = || rows.iter().copied().filter(|v| v.is_finite());
    let few = (LOOKED_AT / rows.ncols().max(1)).clamp(1, rows.nrows().max(1));
    let mut some: Vec<f32> = (0..few)
        .filter(|_| rows.nrows() > 0)
        .flat_map(|i| rows.row(i * rows.nrows() / few))
        .copied()
        .filter(|v| v.is_finite())
        .collect();
    some.sort_unstable_by(f32::total_cmp);
    let at = |p: f64| some.get((p * some.len().saturating_sub(1) as f64).round() as usize).copied();
    let (p01, p99) = (at(0.01), at(0.99));
    let range = match (p01, p99) {
        _ if stored => Nominal::Unit,
        (Some(lo), Some(hi)) if lo >= -0.25 && hi <= 1.5 => Nominal::Unit,
        (Some(lo), Some(hi)) if lo >= -2.5 && hi <= 2.5 => Nominal::Symmetric,
        (Some(lo), Some(hi)) if lo >= -64.0 && hi <= 320.0 => Nominal::Bytes,
        _ => Nominal::Other,
    };
    Values { range, min: finite().reduce(f32::min), p01, p99, max: finite().reduce(f32::max) }
}
