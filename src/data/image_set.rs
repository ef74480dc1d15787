//! A user's images as rows: bytes stay bytes until their values are needed.

use std::path::{Path, PathBuf};

use ndarray::{ArcArray2, Array2, Array3, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::input::{Known, array, described};
use super::{DataError, Range};
use crate::display::counted;
use crate::shape::Shape;

/// Number of values from which percentiles are taken.
const LOOKED_AT: usize = 1 << 20;
/// Images of each set that are compared where a layout is not known.
const COMPARED: usize = 384;

/// File format of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A `.npy` array.
    Npy,
    /// An array of an `.npz` archive.
    Npz,
    /// A tensor of a `.safetensors` file.
    Safetensors,
    /// A tensor of a file of `torch.save`.
    Torch,
    /// An array of a Python pickle.
    Pickle,
    /// A column of a parquet table.
    Parquet,
    /// CIFAR10's binary batches.
    Cifar,
    /// An IDX file, plain or gzipped.
    Idx,
    /// One picture.
    Picture,
    /// A folder of pictures, in the byte order of their names.
    Folder,
    /// A zip archive of pictures.
    Zip,
    /// The data set of a training run.
    Run,
}

impl Format {
    /// The format in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npy => "an .npy file",
            Self::Npz => "an .npz archive",
            Self::Safetensors => "a .safetensors file",
            Self::Torch => "a file of torch.save",
            Self::Pickle => "a Python pickle",
            Self::Parquet => "a parquet table",
            Self::Cifar => "a batch of CIFAR10",
            Self::Idx => "an IDX file",
            Self::Picture => "a picture",
            Self::Folder => "a folder of pictures",
            Self::Zip => "a zip archive of pictures",
            Self::Run => "a training run",
        }
    }

    /// Whether a file of the format names its arrays, tensors or columns.
    pub const fn has_names(self) -> bool {
        matches!(self, Self::Npz | Self::Safetensors | Self::Torch | Self::Pickle | Self::Parquet)
    }
}

/// Order of the values of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Row, column, channel
    Hwc,
    /// Channel, row, column: planes, as PyTorch and the rows of CIFAR10 have them
    Chw,
}

/// Nominal range of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Nominal {
    /// [0, 1]
    #[serde(rename = "[0, 1]")]
    #[value(name = "unit", alias = "0..1")]
    Unit,
    /// [-1, 1]
    #[serde(rename = "[-1, 1]")]
    #[value(name = "symmetric", alias = "-1..1")]
    Symmetric,
    /// [0, 255]
    #[serde(rename = "[0, 255]")]
    #[value(name = "bytes", alias = "0..255")]
    Bytes,
    /// [0, 65535]
    #[serde(rename = "[0, 65535]")]
    #[value(name = "words", alias = "0..65535")]
    Words,
    /// None of these.
    #[serde(rename = "none of [0, 1], [-1, 1], [0, 255] and [0, 65535]")]
    #[value(skip)]
    Other,
}

impl Nominal {
    /// The range as text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "[0, 1]",
            Self::Symmetric => "[-1, 1]",
            Self::Bytes => "[0, 255]",
            Self::Words => "[0, 65535]",
            Self::Other => "none of [0, 1], [-1, 1], [0, 255] and [0, 65535]",
        }
    }

    /// Its ends; `None` for [`Nominal::Other`].
    fn ends(self) -> Option<(f32, f32)> {
        match self {
            Self::Unit => Some((0.0, 1.0)),
            Self::Symmetric => Some((-1.0, 1.0)),
            Self::Bytes => Some((0.0, 255.0)),
            Self::Words => Some((0.0, 65535.0)),
            Self::Other => None,
        }
    }
}

/// Range and percentiles of the finite values of a set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Nominal range: given, known by the type, or found from minimum and maximum. Of 50 images one may lie outside.
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

/// Values of images as they were read.
#[derive(Debug, Clone)]
pub(super) enum Pixels {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Other values.
    Floats(Vec<f32>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Planes of channels as pixels.
    pub fn interleaved(self, count: usize, shape: Shape) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(interleaved(values, count, shape)),
            Self::Floats(values) => Self::Floats(interleaved(values, count, shape)),
        }
    }

    /// All values one after the other: bytes where all are, else with bytes as numbers from 0 to 255.
    pub fn joined(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        if parts.iter().all(|part| matches!(part, Self::Bytes(_))) {
            let bytes = parts.into_iter().flat_map(|part| match part {
                Self::Bytes(values) => values,
                Self::Floats(_) => vec![],
            });
            return Self::Bytes(bytes.collect());
        }
        let floats = parts.into_iter().flat_map(|part| match part {
            Self::Bytes(values) => values.into_iter().map(f32::from).collect(),
            Self::Floats(values) => values,
        });
        Self::Floats(floats.collect())
    }
}

fn interleaved<T: Copy + Send + Sync>(values: Vec<T>, count: usize, shape: Shape) -> Vec<T> {
    let (pixels, channels) = (shape.pixels(), shape.channels);
    if channels == 1 || count == 0 {
        return values;
    }
    let image = |image: &[T]| {
        (0..image.len()).map(|i| image[i % channels * pixels + i / channels]).collect::<Vec<T>>()
    };
    values.par_chunks_exact(shape.len().max(1)).flat_map_iter(image).collect()
}

/// Rows of images in memory.
#[derive(Debug, Clone)]
enum Rows {
    /// Bytes, whose values are v / 255.
    Bytes(ArcArray2<u8>),
    Floats(ArcArray2<f32>),
}

/// Images as rows, `[n, values]`; [`Input::read`](super::Input::read) reads them.
#[derive(Debug, Clone)]
pub struct ImageSet {
    path: PathBuf,
    format: Format,
    shape: Option<Shape>,
    rows: Rows,
    values: Values,
    files: Option<Vec<String>>,
    notes: Vec<String>,
}

impl ImageSet {
    /// A set of `count` images.
    pub(super) fn new(
        path: PathBuf,
        format: Format,
        shape: Option<Shape>,
        (count, pixels): (usize, Pixels),
        (known, given): (Known, Option<Nominal>),
        files: Option<Vec<String>>,
        mut notes: Vec<String>,
    ) -> Result<Self, DataError> {
        let length = pixels.len() / count.max(1);
        let bad = |e: ndarray::ShapeError| array(&path, e.to_string());
        let mut rows = match pixels {
            Pixels::Bytes(values) => {
                Rows::Bytes(Array2::from_shape_vec((count, length), values).map_err(bad)?.into_shared())
            }
            Pixels::Floats(values) => {
                Rows::Floats(Array2::from_shape_vec((count, length), values).map_err(bad)?.into_shared())
            }
        };
        if let Rows::Bytes(bytes) = &mut rows {
            let most = bytes.iter().copied().max().unwrap_or(0);
            match given {
                Some(Nominal::Unit) if most <= 1 => bytes.mapv_inplace(|v| 255 * v),
                Some(Nominal::Bytes) | None => {}
                Some(other) => {
                    let reason =
                        format!("its values are bytes up to {most}, which can't be in {}", other.name());
                    return Err(DataError::Unclear { path, reason });
                }
            }
            if most == 1 && known == Known::Bytes {
                notes.push("its values are bytes of at most 1".to_owned());
            }
        }
        if let (Rows::Floats(rows), Some((given, (from, to)))) =
            (&rows, given.and_then(|given| Some((given, given.ends()?))))
        {
            let ends: Vec<(f32, f32)> =
                rows.outer_iter().into_par_iter().filter_map(|row| ends(row)).collect();
            let room = 0.5 * (to - from);
            if let Some((lo, hi)) = reached(&ends).filter(|(lo, hi)| *lo < from - room || *hi > to + room) {
                let reason =
                    format!("its values reach from {lo} to {hi}, which is not the range {}", given.name());
                return Err(DataError::Unclear { path, reason });
            }
        }
        let values = measure(&rows, known, given);
        Ok(Self { path, format, shape, rows, values, files, notes })
    }

    /// A set of images in memory, one a row of `rows` with values in the order row, column, channel; rows of a vector's
    /// shape are not shown as images. `path` and `notes` say where they come from, `files` the name of each.
    ///
    /// # Errors
    /// [`DataError::Mismatch`] for rows of another length than `shape`.
    pub fn from_rows(
        (path, format): (PathBuf, Format),
        (shape, rows): (Shape, ArcArray2<f32>),
        range: Option<Nominal>,
        files: Option<Vec<String>>,
        notes: Vec<String>,
    ) -> Result<Self, DataError> {
        let (images, pixels) = rows.dim();
        if pixels != shape.len() || files.as_ref().is_some_and(|files| files.len() != images) {
            let labels = files.map_or(images, |files| files.len());
            return Err(DataError::Mismatch { images, pixels, labels, shape: shape.sizes() });
        }
        let rows = Rows::Floats(rows);
        let values = measure(&rows, Known::Floats, range);
        let shape = (shape.pixels() > 1).then_some(shape);
        Ok(Self { path, format, shape, rows, values, files, notes })
    }

    /// Vectors as images of this shape with values in the order row, column, channel.
    ///
    /// # Panics
    /// For vectors of another length.
    #[must_use]
    pub fn with_shape(mut self, shape: Shape) -> Self {
        assert_eq!(self.length(), shape.len(), "a vector has the values of the shape");
        self.notes
            .push(format!("its rows were taken for images of {shape} in the order row, column, channel"));
        self.shaped(shape, Layout::Hwc);
        self
    }

    /// The images at `rows` with values brought from their range to [-1, 1], the range of a network's training data.
    ///
    /// # Errors
    /// [`DataError::NotImages`] for values in no known range; [`DataError::Index`] for a row beyond the last.
    pub fn symmetric(&self, rows: &[usize]) -> Result<Array2<f32>, DataError> {
        let n = self.len();
        if let Some(&index) = rows.iter().find(|&&row| row >= n) {
            return Err(DataError::Index { index, n });
        }
        match (&self.rows, self.values.range.ends()) {
            (Rows::Bytes(all), Some(_)) => {
                Ok(all.select(Axis(0), rows).mapv(|v| Range::Symmetric.value(v) as f32))
            }
            (Rows::Floats(all), Some((lo, hi))) => {
                let (lo, span) = (f64::from(lo), f64::from(hi) - f64::from(lo));
                Ok(all.select(Axis(0), rows).mapv_into(|v| (2.0 * (f64::from(v) - lo) / span - 1.0) as f32))
            }
            (_, None) => {
                let reason = format!("its values are in {}; say their range with --range", spread(self));
                Err(DataError::NotImages { path: self.path.clone(), reason })
            }
        }
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

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Bytes(rows) => rows.nrows(),
            Rows::Floats(rows) => rows.nrows(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values of an image.
    pub fn length(&self) -> usize {
        match &self.rows {
            Rows::Bytes(rows) => rows.ncols(),
            Rows::Floats(rows) => rows.ncols(),
        }
    }

    /// The images, one a row with values in the order row, column, channel; bytes become v / 255, in 4 bytes of memory a
    /// value. [`ImageSet::select`] gives some of them.
    pub fn rows(&self) -> ArcArray2<f32> {
        self.select(&Vec::from_iter(0..self.len()))
    }

    /// The images at `rows`, as [`ImageSet::rows`]. Floating-point numbers of images that follow each other are shared.
    ///
    /// # Panics
    /// For a row beyond the last.
    pub fn select(&self, rows: &[usize]) -> ArcArray2<f32> {
        match &self.rows {
            Rows::Floats(all) => selected(all, rows),
            Rows::Bytes(all) => {
                let values: [f32; 256] = std::array::from_fn(|stored| unit(stored as u8));
                let mut floats = Array2::zeros((rows.len(), all.ncols()));
                floats.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(mut to, row)| {
                    to.iter_mut().zip(all.row(*row)).for_each(|(to, v)| *to = values[usize::from(*v)]);
                });
                floats.into_shared()
            }
        }
    }

    /// The values of one image.
    fn row(&self, row: usize) -> Vec<f32> {
        self.select(&[row]).iter().copied().collect()
    }

    /// Bytes of memory that the images take.
    pub fn bytes(&self) -> u64 {
        match &self.rows {
            Rows::Floats(rows) => 4 * rows.len() as u64,
            Rows::Bytes(rows) => rows.len() as u64,
        }
    }

    /// Images whose values are all finite.
    pub fn finite(&self) -> Vec<usize> {
        let fine = |i: &usize| match &self.rows {
            Rows::Bytes(_) => true,
            Rows::Floats(rows) => rows.row(*i).iter().all(|v| v.is_finite()),
        };
        (0..self.len()).filter(fine).collect()
    }

    /// Range and percentiles of the values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Adds to what is said of the set.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Names of the images' files; `None` when they do not come from files of their own.
    pub fn files(&self) -> Option<&[String]> {
        self.files.as_deref()
    }

    /// What was read, what was passed over and what was done to it, in one line.
    pub fn said(&self) -> String {
        let what = match self.shape {
            Some(shape) => format!("{} of {shape}", counted(self.len(), "image")),
            None => format!("{} of {}", counted(self.len(), "vector"), counted(self.length(), "value")),
        };
        let range = match (&self.rows, self.values.range) {
            (Rows::Bytes(_), Nominal::Unit) => "bytes".to_owned(),
            (_, Nominal::Other) => match (self.values.min, self.values.max) {
                (Some(min), Some(max)) => format!("values from {min} to {max}"),
                _ => "no finite value".to_owned(),
            },
            (_, range) => format!("values in {}", range.name()),
        };
        let notes: String = self.notes.iter().map(|note| format!("; {note}")).collect();
        format!("read {what}, {range}, from {}{notes}", self.path.display())
    }

    /// Image `row` with values scaled from their range to [0, 1], for display, `[height, width, channels]`. Values
    /// outside the range are not clipped.
    ///
    /// # Errors
    /// [`DataError::Index`] for a row beyond the last, [`DataError::Store`] for a shape of another number of values.
    pub fn picture(&self, row: usize, shape: Shape) -> Result<Array3<f32>, DataError> {
        let n = self.len();
        if row >= n {
            return Err(DataError::Index { index: row, n });
        }
        let length = self.length();
        if length != shape.len() {
            return Err(array(&self.path, format!("images have {length} values, expected those of {shape}")));
        }
        let (pixels, (lo, span)) = (self.row(row), self.span());
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
        self.select(rows).into_owned().mapv_into(|v| ((v - lo) / span).clamp(0.0, 1.0))
    }

    /// Lower end and width of the range of the values.
    fn span(&self) -> (f32, f32) {
        // Without finite values there is nothing to scale.
        let ends = self.values.range.ends().or(self.values.p01.zip(self.values.p99));
        let (lo, hi) = ends.unwrap_or((0.0, 1.0));
        (lo, if hi > lo { hi - lo } else { 1.0 })
    }

    fn described(&self) -> String {
        described(self.shape, self.length())
    }

    /// Whether the three channels of every pixel are equal.
    fn gray(&self) -> bool {
        fn equal<T: PartialEq + Copy>(rows: &ArcArray2<T>) -> bool {
            rows.rows().into_iter().all(|row| {
                (0..row.len() / 3).all(|i| row[3 * i] == row[3 * i + 1] && row[3 * i + 1] == row[3 * i + 2])
            })
        }
        match &self.rows {
            Rows::Bytes(rows) => equal(rows),
            Rows::Floats(rows) => equal(rows),
        }
    }

    /// Replaces the rows by what is made from them.
    fn remade(
        &mut self,
        bytes: impl Fn(ArrayView2<'_, u8>) -> Array2<u8>,
        floats: impl Fn(ArrayView2<'_, f32>) -> Array2<f32>,
    ) {
        self.rows = match &self.rows {
            Rows::Bytes(rows) => Rows::Bytes(bytes(rows.view()).into_shared()),
            Rows::Floats(rows) => Rows::Floats(floats(rows.view()).into_shared()),
        };
    }

    /// Reduces three channels to the first.
    fn one_channel(&mut self) {
        fn first<T: Copy>(rows: ArrayView2<'_, T>) -> Array2<T> {
            Array2::from_shape_fn((rows.nrows(), rows.ncols() / 3), |(i, j)| rows[[i, 3 * j]])
        }
        self.remade(first, first);
        self.shape = self.shape.map(|shape| Shape { channels: 1, ..shape });
    }

    /// Repeats the one channel three times.
    fn three_channels(&mut self) {
        fn thrice<T: Copy>(rows: ArrayView2<'_, T>) -> Array2<T> {
            Array2::from_shape_fn((rows.nrows(), 3 * rows.ncols()), |(i, j)| rows[[i, j / 3]])
        }
        self.remade(thrice, thrice);
        self.shape = self.shape.map(|shape| Shape { channels: 3, ..shape });
        self.notes.push("gray images, which got three equal channels beside images with colour".to_owned());
    }

    /// Gives vectors the shape of images; `layout` is the order of their values.
    fn shaped(&mut self, shape: Shape, layout: Layout) {
        if layout == Layout::Chw && shape.channels > 1 {
            let at = |i: usize| i % shape.channels * shape.pixels() + i / shape.channels;
            self.remade(
                |rows| Array2::from_shape_fn(rows.dim(), |(i, j)| rows[[i, at(j)]]),
                |rows| Array2::from_shape_fn(rows.dim(), |(i, j)| rows[[i, at(j)]]),
            );
            self.notes.push("its rows were taken for planes of channels".to_owned());
        }
        self.shape = Some(shape);
    }

    /// Brings the values to [0, 1].
    fn scale_to_unit(&mut self) {
        let (lo, span) = self.span();
        let Rows::Floats(rows) = &mut self.rows else { return };
        rows.par_mapv_inplace(|v| (v - lo) / span);
        let moved = |v: Option<f32>| v.map(|v| (v - lo) / span);
        self.notes.push(format!("its values were brought from {} to [0, 1]", self.values.range.name()));
        self.values = Values {
            range: Nominal::Unit,
            min: moved(self.values.min),
            p01: moved(self.values.p01),
            p99: moved(self.values.p99),
            max: moved(self.values.max),
        };
    }
}

/// How sets are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Together {
    /// Values are compared as they are.
    pub any_range: bool,
    /// Order of the values of vectors that are compared with images.
    pub layout: Option<Layout>,
    /// Whether vectors of unknown shape are features, which can't be shown.
    pub features: bool,
}

/// Brings sets to one shape and range for comparison and gives the shape; `None` when no file gives it and the number of
/// values is not that of a square gray or colour image, and for images that can't be shown.
///
/// A set with three equal channels becomes gray when another set is gray, as some programs save gray images so; a gray set
/// beside one with colours gets three equal channels. Vectors take the shape of the images beside them; where these have
/// channels and no layout is given, the layout is the one that the distances single out. Sets in different ranges are brought to
/// [0, 1].
///
/// # Errors
/// [`DataError::Unlike`] for images of different sizes; [`DataError::UnlikeRange`] for ranges that are not clear, and
/// [`DataError::Unclear`] for such a layout.
pub fn reconcile(sets: &mut [ImageSet], how: Together) -> Result<Option<Shape>, DataError> {
    if sets.iter().any(|s| s.shape.is_some_and(|shape| shape.channels == 1)) {
        for set in sets.iter_mut().filter(|s| s.shape.is_some_and(|shape| shape.channels == 3)) {
            if set.gray() {
                set.one_channel();
            }
        }
    }
    let coloured: Vec<Shape> =
        sets.iter().filter_map(|s| s.shape.filter(|shape| shape.channels == 3)).collect();
    for set in sets.iter_mut() {
        let beside = |shape: Shape| coloured.contains(&Shape { channels: 3, ..shape });
        if set.shape.is_some_and(|shape| shape.channels == 1 && beside(shape)) {
            set.three_channels();
        }
    }
    // The other sets are compared with the first one of known shape.
    let Some(first) = sets.iter().position(|s| s.shape.is_some()).or((!sets.is_empty()).then_some(0)) else {
        return Ok(None);
    };
    for set in sets.iter() {
        let other_shape = set.shape.is_some() && set.shape != sets[first].shape;
        if other_shape || set.length() != sets[first].length() {
            return Err(DataError::Unlike {
                path: set.path.clone(),
                found: set.described(),
                other: sets[first].path.clone(),
                expected: sets[first].described(),
            });
        }
    }
    ranges(sets, how.any_range)?;
    if let Some(shape) = sets[first].shape {
        for i in 0..sets.len() {
            if sets[i].shape.is_none() {
                let layout = match how.layout {
                    Some(layout) => layout,
                    None if shape.channels == 1 => Layout::Hwc,
                    None => singled_out(&sets[i], &sets[first], shape)?,
                };
                sets[i].shaped(shape, layout);
            }
        }
        // Latents have no colours to show.
        return Ok(matches!(shape.channels, 1 | 3).then_some(shape));
    }
    let length = sets[first].length();
    let square = |channels: usize| {
        let side = (length / channels).isqrt();
        (channels * side * side == length).then_some(Shape { height: side, width: side, channels })
    };
    // Fewer than 16 values are not taken for an image.
    let shape = if length < 16 || (how.features && how.layout.is_none()) {
        None
    } else {
        square(1).or_else(|| square(3))
    };
    if let Some(shape) = shape {
        if shape.channels > 1 && how.layout.is_none() {
            for set in &sets[1..] {
                let planes = |a, b| matches!(singled_out(a, b, shape), Ok(Layout::Chw));
                if planes(set, &sets[0]) || planes(&sets[0], set) {
                    let reason = format!(
                        "its rows and those of {} seem to have their channels in different orders; give arrays of shape \
                         [n, height, width, channels]",
                        sets[0].path.display()
                    );
                    return Err(DataError::Unclear { path: set.path.clone(), reason });
                }
            }
        }
        let layout = how.layout.unwrap_or(Layout::Hwc);
        for set in sets.iter_mut() {
            let said = how.layout.is_some();
            if said {
                set.shaped(shape, layout);
            }
            set.notes.push(format!("vectors are shown as images of {shape}"));
        }
    }
    Ok(shape)
}

/// Brings sets in different ranges to [0, 1].
fn ranges(sets: &mut [ImageSet], any: bool) -> Result<(), DataError> {
    // A set without finite values has no range.
    let Some(first) = sets.iter().position(|set| set.values.min.is_some()) else { return Ok(()) };
    let range = sets[first].values.range;
    if any || sets.iter().all(|set| set.values.range == range || set.values.min.is_none()) {
        return Ok(());
    }
    // Features have ranges by accident.
    let images = sets.iter().any(|set| set.shape.is_some() || matches!(set.rows, Rows::Bytes(_)));
    let clear =
        images && sets.iter().all(|set| set.values.range != Nominal::Other || set.values.min.is_none());
    if !clear {
        let other = sets.iter().find(|set| set.values.range != range && set.values.min.is_some());
        let set = other.unwrap_or(&sets[first]);
        return Err(DataError::UnlikeRange {
            path: set.path.clone(),
            found: spread(set),
            other: sets[first].path.clone(),
            expected: spread(&sets[first]),
        });
    }
    for set in sets.iter_mut() {
        if set.values.range != Nominal::Unit {
            set.scale_to_unit();
        }
    }
    Ok(())
}

/// The range of a set, for messages.
fn spread(set: &ImageSet) -> String {
    match (set.values.range, set.values.min, set.values.max) {
        (Nominal::Other, Some(min), Some(max)) => format!("[{min}, {max}], which is not a known range"),
        (range, ..) => range.name().to_owned(),
    }
}

/// The layout in which vectors are near to images, where only one is.
fn singled_out(vectors: &ImageSet, images: &ImageSet, shape: Shape) -> Result<Layout, DataError> {
    let some = |set: &ImageSet| -> Vec<Vec<f32>> {
        let few = set.len().min(COMPARED);
        (0..few).map(|i| set.row(i * set.len() / few)).collect()
    };
    let (vectors_rows, images_rows) = (some(vectors), some(images));
    let at = |i: usize| i % shape.channels * shape.pixels() + i / shape.channels;
    let planes: Vec<Vec<f32>> =
        vectors_rows.iter().map(|row| (0..row.len()).map(|i| row[at(i)]).collect()).collect();
    let nearest = |row: &[f32], all: &[Vec<f32>]| {
        let distance = |other: &Vec<f32>| row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        all.iter().map(distance).filter(|d| !d.is_nan()).fold(f32::INFINITY, f32::min)
    };
    let pairs: Vec<(f32, f32)> =
        images_rows.par_iter().map(|row| (nearest(row, &vectors_rows), nearest(row, &planes))).collect();
    // A copy is far nearer in the right layout; without copies, most images are a little nearer.
    let half = |a: f32, b: f32| 4.0 * a < b;
    let far =
        (pairs.iter().filter(|p| half(p.0, p.1)).count(), pairs.iter().filter(|p| half(p.1, p.0)).count());
    let nearer = (pairs.iter().filter(|p| p.0 < p.1).count(), pairs.iter().filter(|p| p.1 < p.0).count());
    let most = |a: usize, b: usize| a + b >= 20 && a >= 9 * (a + b).div_ceil(10);
    match (far, nearer) {
        ((1.., 0), _) => Ok(Layout::Hwc),
        ((0, 1..), _) => Ok(Layout::Chw),
        (_, (a, b)) if most(a, b) => Ok(Layout::Hwc),
        (_, (a, b)) if most(b, a) => Ok(Layout::Chw),
        _ => Err(DataError::Unclear {
            path: vectors.path.clone(),
            reason: format!(
                "its rows may be pixels or planes of channels, and the distances to {} single out neither; say which with \
                 --layout hwc or --layout chw",
                images.path.display()
            ),
        }),
    }
}

/// Rows of an array: without a copy where they follow each other.
pub(crate) fn selected(all: &ArcArray2<f32>, rows: &[usize]) -> ArcArray2<f32> {
    match (rows.first(), rows.windows(2).all(|pair| pair[0] + 1 == pair[1])) {
        (Some(&first), true) => all.clone().slice_move(s![first..first + rows.len(), ..]),
        _ => all.select(Axis(0), rows).into_shared(),
    }
}

/// The value in [0, 1] of a stored byte.
fn unit(stored: u8) -> f32 {
    Range::Unit.value(stored) as f32
}

/// Range and percentiles; the percentiles are those of evenly spaced rows.
fn measure(rows: &Rows, known: Known, given: Option<Nominal>) -> Values {
    match rows {
        Rows::Bytes(rows) => {
            let most = rows.iter().copied().max();
            let range = match (most, known) {
                // 0 and 1 in place of 0 and 255, or pictures that are all but black.
                (Some(1), Known::Bytes) if given.is_none() => Nominal::Other,
                _ => Nominal::Unit,
            };
            spaced(
                rows.dim(),
                |i| rows.row(i),
                unit,
                range,
                rows.iter().min().map(|v| unit(*v)),
                most.map(unit),
            )
        }
        Rows::Floats(rows) => {
            let ends: Vec<(f32, f32)> =
                rows.outer_iter().into_par_iter().filter_map(|row| ends(row)).collect();
            let range = given.unwrap_or_else(|| guessed(&ends, known));
            let min = ends.iter().map(|e| e.0).reduce(f32::min);
            let max = ends.iter().map(|e| e.1).reduce(f32::max);
            spaced(rows.dim(), |i| rows.row(i), |v| v, range, min, max)
        }
    }
}

fn spaced<'a, T: Copy + 'a>(
    (count, length): (usize, usize),
    row: impl Fn(usize) -> ArrayView1<'a, T>,
    value: impl Fn(T) -> f32,
    range: Nominal,
    min: Option<f32>,
    max: Option<f32>,
) -> Values {
    let few = (LOOKED_AT / length.max(1)).clamp(1, count.max(1));
    let mut some: Vec<f32> = (0..few)
        .filter(|_| count > 0)
        .flat_map(|i| row(i * count / few).iter().map(|v| value(*v)).collect::<Vec<f32>>())
        .filter(|v| v.is_finite())
        .collect();
    some.sort_unstable_by(f32::total_cmp);
    let at = |p: f64| some.get((p * some.len().saturating_sub(1) as f64).round() as usize).copied();
    Values { range, min, p01: at(0.01), p99: at(0.99), max }
}

/// Least and largest finite value of an image.
fn ends(row: ArrayView1<'_, f32>) -> Option<(f32, f32)> {
    row.iter()
        .copied()
        .filter(|v| v.is_finite())
        .fold(None, |ends, v| Some(ends.map_or((v, v), |(lo, hi): (f32, f32)| (lo.min(v), hi.max(v)))))
}

/// Least and largest value of the images, apart from one of 50 that may lie outside.
fn reached(ends: &[(f32, f32)]) -> Option<(f32, f32)> {
    let outside = ends.len() / 50;
    let mut least: Vec<f32> = ends.iter().map(|e| e.0).collect();
    let mut most: Vec<f32> = ends.iter().map(|e| e.1).collect();
    least.sort_unstable_by(f32::total_cmp);
    most.sort_unstable_by(|a, b| b.total_cmp(a));
    least.get(outside).copied().zip(most.get(outside).copied())
}

/// The range of floating-point numbers and wide integers, from the least and largest value of each image. Of 50 images one
/// may lie outside, as a sampler may have diverged.
fn guessed(ends: &[(f32, f32)], known: Known) -> Nominal {
    let Some(reached) = reached(ends) else { return Nominal::Other };
    match reached {
        (lo, hi) if known == Known::Integers && lo >= 0.0 && hi > 255.0 && hi <= 65535.0 => Nominal::Words,
        _ if known == Known::Integers => Nominal::Other,
        // Generated images exceed their range slightly.
        (lo, hi) if lo >= -0.25 && hi > 0.25 && hi <= 1.5 => Nominal::Unit,
        (lo, hi) if (-1.5..=-0.5).contains(&lo) && hi <= 1.5 => Nominal::Symmetric,
        (lo, hi) if lo >= -64.0 && (64.0..=320.0).contains(&hi) => Nominal::Bytes,
        _ => Nominal::Other,
    }
}
