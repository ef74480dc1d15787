//! Data sets: the [registry], readers that check every header, verified [fetching](mod@fetch), and nested training sets.
//!
//! [`load`] reads a [`Dataset`] from the cache and verifies its checksum against the registry or, for the user's own files,
//! against the manifest of the fetch.

pub(crate) mod archive;
pub mod cifar;
pub mod emoji;
mod error;
pub mod fetch;
pub mod idx;
pub mod image_folder;
pub mod image_set;
pub mod input;
pub mod manifest;
pub mod pickle;
pub mod registry;
pub mod resample;
pub mod subset;
pub(crate) mod torch;
pub mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use error::DataError;
pub use fetch::fetch;
pub use image_set::ImageSet;
pub use input::Input;
pub use manifest::{Manifest, State, check, state};
pub use registry::{Entry, find};

use crate::project::Layout;
use crate::shape::Shape;
use crate::store;
use registry::Files;

/// One part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images from which training sets are taken.
    Train,
    /// Held-out images.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// Range to which stored values 0..=255 are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// v / 255, in [0, 1].
    Unit,
    /// 2 v / 255 - 1, in [-1, 1]: the range of the networks' training data.
    Symmetric,
}

impl Range {
    /// The value in this range of a stored value.
    ///
    /// ```
    /// use mem2gen::data::Range;
    ///
    /// assert_eq!([Range::Unit.value(255), Range::Symmetric.value(0)], [1.0, -1.0]);
    /// ```
    pub fn value(self, stored: u8) -> f64 {
        match self {
            Self::Unit => f64::from(stored) / 255.0,
            Self::Symmetric => f64::from(2 * i32::from(stored) - 255) / 255.0,
        }
    }

    fn table<T>(self, cast: impl Fn(f64) -> T) -> [T; 256] {
        std::array::from_fn(|stored| cast(self.value(stored as u8)))
    }
}

/// Images as rows of bytes, `[n, height x width x channels]`, with one label each.
///
/// ```
/// use mem2gen::data::{Dataset, Range};
/// use mem2gen::shape::Shape;
/// use ndarray::array;
///
/// let images = array![[0u8, 255], [51, 102], [255, 0]];
/// let data = Dataset::new(Shape::image(1, 2, 1), images, array![0u8, 1, 1])?;
/// assert_eq!(data.to_f64(Range::Unit).row(1).to_vec(), [0.2, 0.4]);
/// let last = data.select(&[2])?;
/// assert_eq!((last.len(), last.labels()[0]), (1, 1));
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    shape: Shape,
    images: Array2<u8>,
    labels: Array1<u8>,
}

impl Dataset {
    /// A data set of images, one a row with values in the order row, column, channel, and their labels.
    ///
    /// # Errors
    /// [`DataError::Mismatch`] when rows, labels and shape do not fit, or there is no image.
    pub fn new(shape: Shape, images: Array2<u8>, labels: Array1<u8>) -> Result<Self, DataError> {
        let (rows, pixels) = images.dim();
        if rows == 0 || rows != labels.len() || shape.is_empty() || pixels != shape.len() {
            return Err(DataError::Mismatch {
                images: rows,
                pixels,
                labels: labels.len(),
                shape: shape.sizes(),
            });
        }
        let (images, labels) = (images.as_standard_layout(), labels.as_standard_layout());
        Ok(Self { shape, images: images.into_owned(), labels: labels.into_owned() })
    }

    fn from_parts(shape: Shape, pixels: Vec<u8>, labels: Vec<u8>) -> Result<Self, DataError> {
        let (count, length) = (labels.len(), pixels.len());
        let images = Array2::from_shape_vec((count, shape.len()), pixels).map_err(|_| {
            DataError::Mismatch { images: count, pixels: length, labels: count, shape: shape.sizes() }
        })?;
        Self::new(shape, images, Array1::from_vec(labels))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image; always false, as [`Self::new`] refuses an empty set.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of an image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The stored values, one image a row.
    pub fn images(&self) -> ArrayView2<'_, u8> {
        self.images.view()
    }

    /// The labels.
    pub fn labels(&self) -> ArrayView1<'_, u8> {
        self.labels.view()
    }

    /// All images in f32, one a row.
    pub fn to_f32(&self, range: Range) -> Array2<f32> {
        let table = range.table(|v| v as f32);
        self.images.mapv(|stored| table[usize::from(stored)])
    }

    /// All images in f64, one a row.
    pub fn to_f64(&self, range: Range) -> Array2<f64> {
        let table = range.table(|v| v);
        self.images.mapv(|stored| table[usize::from(stored)])
    }

    /// The images at `indices`, in that order.
    ///
    /// # Errors
    /// [`DataError::Index`] for an index beyond the last image, [`DataError::Mismatch`] for no index.
    pub fn select(&self, indices: &[usize]) -> Result<Self, DataError> {
        let n = self.len();
        if let Some(&index) = indices.iter().find(|&&index| index >= n) {
            return Err(DataError::Index { index, n });
        }
        Self::new(self.shape, self.images.select(Axis(0), indices), self.labels.select(Axis(0), indices))
    }

    /// The training set of size `k` of a full data set: the first `k` images of the [permutation](subset), so that each
    /// training set contains every smaller one.
    ///
    /// # Errors
    /// [`DataError::SubsetSize`] when `k` is 0 or above the number of images.
    pub fn subset(&self, k: usize) -> Result<Self, DataError> {
        self.select(&subset::indices(self.len(), k)?)
    }

    /// SHA-256 of all image values followed by all labels, as [`registry::SplitSpec::sha256`].
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for bytes in [self.images.as_slice(), self.labels.as_slice()] {
            hash.update(bytes.expect("`new` puts images and labels into standard layout"));
        }
        store::hex(&hash.finalize())
    }
}

/// The folder of a data set in the cache.
pub fn folder(layout: &Layout, entry: &Entry) -> PathBuf {
    layout.data_cache().join(entry.name)
}

/// Reads one split of the data set called `name` from the cache and verifies it.
///
/// # Errors
/// [`DataError::UnknownName`], [`DataError::Absent`] for a data set that was not fetched, [`DataError::NoSplit`], and the
/// variant of any damage that is found.
pub fn load(layout: &Layout, name: &str, split: Split) -> Result<Dataset, DataError> {
    load_entry(layout, find(name)?, split)
}

/// As [`load`], for an entry of the registry.
///
/// # Errors
/// As [`load`].
pub fn load_entry(layout: &Layout, entry: &Entry, split: Split) -> Result<Dataset, DataError> {
    let manifest = manifest::read(layout, entry)?;
    let data = decode(entry, split, &folder(layout, entry), &BTreeMap::new())?;
    manifest.verify(entry, split, &data)?;
    Ok(data)
}

/// Decodes one split from plain files in `folder` and checks format and counts, but not the checksum. Errors name the file of
/// `sources` that became the file of a name, if there is one.
fn decode(
    entry: &Entry,
    split: Split,
    folder: &Path,
    sources: &BTreeMap<&str, PathBuf>,
) -> Result<Dataset, DataError> {
    let missing = || DataError::NoSplit { name: entry.name.to_owned(), split };
    let spec = match split {
        Split::Train => entry.train,
        Split::Test => entry.test.ok_or_else(missing)?,
    };
    let read = |name: &str| {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(DataError::io("open", &path))?;
        Ok::<_, DataError>((sources.get(name).cloned().unwrap_or(path), bytes))
    };
    let images = |name: &str| {
        let (path, bytes) = read(name)?;
        let images = idx::read_images(&path, bytes)?;
        let found = (images.height, images.width, images.channels);
        if found != entry.shape.sizes() {
            return Err(DataError::Shape { path, expected: entry.shape.sizes(), found });
        }
        Ok((path, images))
    };
    let (pixels, labels) = match entry.files {
        Files::Idx { train, test } => {
            let (image_file, label_file) = if split == Split::Train { train } else { test };
            let (path, images) = images(image_file)?;
            count(&path, "images", spec.images, images.count)?;
            let (path, bytes) = read(label_file)?;
            let labels = idx::read_labels(&path, bytes, entry.classes)?;
            count(&path, "labels", spec.images, labels.len())?;
            (images.pixels, labels)
        }
        Files::CifarBatches { train, test } => {
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            let files = if split == Split::Train { train } else { test };
            for name in files {
                let (path, bytes) = read(name)?;
                let batch = cifar::read_batch(&path, &bytes)?;
                count(&path, "records", spec.images / files.len(), batch.labels.len())?;
                pixels.extend(batch.pixels);
                labels.extend(batch.labels);
            }
            (pixels, labels)
        }
        Files::ImageFolder { train } => {
            if split == Split::Test {
                return Err(missing());
            }
            // Users may have part of the full set; the manifest has the number of images.
            let (_, images) = images(train)?;
            (images.pixels, vec![0; images.count])
        }
        Files::Emoji { train, captions, captions_sha256, .. } => {
            if split == Split::Test {
                return Err(missing());
            }
            let (path, images) = images(train)?;
            count(&path, "images", spec.images, images.count)?;
            let (path, bytes) = read(captions)?;
            let pictures = emoji::read_captions(&path, &bytes, captions_sha256)?;
            count(&path, "captions", spec.images, pictures.len())?;
            (images.pixels, pictures.iter().map(|picture| picture.group.label()).collect())
        }
    };
    Dataset::from_parts(entry.shape, pixels, labels)
}

fn count(path: &Path, what: &'static str, expected: usize, found: usize) -> Result<(), DataError> {
    if expected == found {
        return Ok(());
    }
    Err(DataError::Count { path: path.to_path_buf(), what, expected, found })
}
