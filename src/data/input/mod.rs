//! One way in for images: files, folders, archives and tables of pictures and arrays, as one [`ImageSet`].
//!
//! The content gives the format. Pictures and 8-bit arrays stay bytes. What looks like an image and was not read is named,
//! and refused unless it is allowed.

mod arrays;
mod pictures;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::image_folder::{self, Background, Passed, named, refuse_passed};
use super::image_set::{Format, ImageSet, Layout, Nominal, Pixels};
use super::{DataError, cifar, idx};
use crate::display::counted;
use crate::shape::Shape;
use crate::store::npy::{self, Elements, Kind};
use crate::store::{StoreError, cut_reason, memory_left, quoted, read_file};

/// What an input is and how it is read.
///
/// ```
/// use mem2gen::data::Input;
/// use mem2gen::shape::Shape;
/// use mem2gen::store::write_array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_array(&path, &ndarray::array![[[0.0f32, 0.5], [1.0, 0.25]]])?;
/// let images = Input::from_path(&path).read()?;
/// assert_eq!(images.shape(), Some(Shape::image(2, 2, 1)));
/// assert_eq!(images.rows().row(0).to_vec(), [0.0, 0.5, 1.0, 0.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// Files, folders and glob patterns, which make up one set in this order.
    pub paths: Vec<PathBuf>,
    /// Name of the array, tensor or column, in files that hold several.
    pub tensor: Option<String>,
    /// Whether `tensor` must be there in a file that holds only one.
    pub strict: bool,
    /// Range of the values; `None` finds it from type, minimum and maximum.
    pub range: Option<Nominal>,
    /// How all inputs are read.
    pub options: Options,
}

/// How inputs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Order of rows, columns and channels; `None` finds it from the sizes.
    pub layout: Option<Layout>,
    /// What transparent pixels are laid on.
    pub background: Background,
    /// Side of the squares to which images are cropped and resized; `None` leaves them as they are.
    pub size: Option<usize>,
    /// Whether inputs that look like images may be left out.
    pub allow_skipped: bool,
}

/// Images of one file before they are a set.
pub(super) struct Piece {
    pub format: Format,
    /// Number of images.
    pub count: usize,
    /// Shape of an image; `None` for vectors.
    pub shape: Option<Shape>,
    pub pixels: Pixels,
    /// What is known of the range by the type of the values.
    pub range: Known,
    pub names: Option<Vec<String>>,
    pub notes: Vec<String>,
}

/// What the type of the values says of their range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Pictures.
    Pictures,
    /// Bytes of an array.
    Bytes,
    /// Truth values.
    Bool,
    /// Wider integers.
    Integers,
    /// Floating-point numbers.
    Floats,
}

impl Input {
    /// One path, read as by default.
    pub fn from_path(path: &Path) -> Self {
        Self { paths: vec![path.to_path_buf()], ..Self::default() }
    }

    /// The same input with absolute paths, which name the same files from any working folder.
    ///
    /// # Errors
    /// [`DataError::Store`] where the working folder is not known.
    pub fn absolute(self) -> Result<Self, DataError> {
        let one = |given: &PathBuf| -> Result<PathBuf, DataError> {
            let whole = std::path::absolute(given).map_err(StoreError::io("find", given))?;
            if !is_pattern(given) || given.is_absolute() {
                return Ok(whole);
            }
            // The name of the working folder is no part of the pattern.
            let here = std::path::absolute(".").map_err(StoreError::io("find", given))?;
            Ok(PathBuf::from(glob::Pattern::escape(&here.to_string_lossy())).join(given))
        };
        let paths = self.paths.iter().map(one).collect::<Result<_, _>>()?;
        Ok(Self { paths, ..self })
    }

    /// Reads the images.
    ///
    /// # Errors
    /// [`DataError`] for another format, element type or shape, for damage, for no images, for what looks like an image
    /// and was not read, and for more bytes than memory is left.
    pub fn read(&self) -> Result<ImageSet, DataError> {
        let mut pieces = Vec::new();
        for given in &self.paths {
            for path in expanded(given)? {
                self.pieces(&path, &mut pieces)?;
            }
        }
        if let Some((path, piece)) = pieces.iter().find(|(_, piece)| self.strict && !piece.format.has_names())
        {
            let name = self.tensor.as_deref().map(quoted).unwrap_or_default();
            let reason =
                format!("{} has no arrays with names, and {name} was asked for", piece.format.name());
            return Err(DataError::Unclear { path: path.clone(), reason });
        }
        let first = self.paths.first().cloned().unwrap_or_default();
        self.joined(first, pieces)
    }

    /// The pieces of one path: one, or one for each array of a folder.
    fn pieces(&self, path: &Path, into: &mut Vec<(PathBuf, Piece)>) -> Result<(), DataError> {
        if !path.is_dir() {
            into.push((path.to_path_buf(), self.sized(path, self.file(path)?)?));
            return Ok(());
        }
        if path.join("config.json").is_file() && path.join("ema.safetensors").is_file() {
            let reason = "it is a training run; compare its samples with --run".to_owned();
            return Err(DataError::Unclear { path: path.to_path_buf(), reason });
        }
        let mut found = image_folder::walk(path)?;
        if found.pictures.is_empty() && !found.arrays.is_empty() {
            self.allow(path, found.arrays.len(), &found.passed)?;
            for file in found.arrays {
                let piece = self.sized(&file, self.file(&file)?)?;
                into.push((file, piece));
            }
            return Ok(());
        }
        for array in &found.arrays {
            let reason = "an array among pictures".to_owned();
            found.passed.push(Passed { name: image_folder::name_below(path, array), reason });
        }
        into.push((path.to_path_buf(), self.folder(path, found)?));
        Ok(())
    }

    /// Refuses what was passed over, unless it is allowed; gives the words for it.
    fn allow(&self, path: &Path, read: usize, passed: &[Passed]) -> Result<Option<String>, DataError> {
        if !self.options.allow_skipped {
            refuse_passed(
                path,
                read,
                passed,
                "convert or remove them, or leave them out with --allow-skipped",
            )?;
        }
        Ok((!passed.is_empty()).then(|| format!("passed over {}: {}", passed.len(), named(passed))))
    }

    /// The images of one file.
    fn file(&self, path: &Path) -> Result<Piece, DataError> {
        let bytes = read_file(path)?;
        let bad = |reason: String| array(path, reason);
        if bytes.starts_with(npy::MAGIC) {
            return self.arranged(path, Format::Npy, npy::read(bytes).map_err(bad)?);
        }
        if bytes.starts_with(b"PK\x03\x04") {
            return self.zip(path, &bytes);
        }
        if bytes.starts_with(b"PAR1") {
            return self.parquet(path, bytes);
        }
        if let [0x80, 2..=5, ..] = bytes[..] {
            return self.pickled(path, &bytes);
        }
        if image_folder::is_image(&bytes) {
            return self.single(path, &bytes);
        }
        if arrays::is_safetensors(&bytes) {
            return self.safetensors(path, &bytes);
        }
        let tar = |bytes: &[u8]| bytes.get(257..262) == Some(b"ustar");
        let unpack = || Err(bad("is a tar archive; unpack it and give the folder".to_owned()));
        if idx::is_gzip(&bytes) {
            // Damage is found where all of it is read.
            let mut start = Vec::new();
            let _ = GzDecoder::new(&bytes[..]).take(512).read_to_end(&mut start);
            return if tar(&start) { unpack() } else { idx_piece(path, idx::inflate(path, &bytes)?) };
        }
        if tar(&bytes) {
            return unpack();
        }
        if bytes.starts_with(&[0, 0, 8, 3]) || bytes.starts_with(&[0, 0, 8, 4]) {
            return idx_piece(path, bytes);
        }
        if arrays::is_cifar(&bytes) {
            let batch = cifar::read_batch(path, &bytes)?;
            return Ok(cifar_piece(Format::Cifar, batch.pixels));
        }
        if path.extension().is_some_and(|e| !e.eq_ignore_ascii_case("bin"))
            && image::guess_format(&bytes).is_ok()
        {
            return self.single(path, &bytes);
        }
        Err(bad(
            "unknown format, expected .npy, .npz, .safetensors, .pt, parquet, zip, IDX (also gzipped), CIFAR10's \
             batches, an image or a folder of images"
                .into(),
        ))
    }

    /// An array as rows of images.
    fn arranged(&self, path: &Path, format: Format, found: npy::Array) -> Result<Piece, DataError> {
        let npy::Array { kind, sizes, elements } = found;
        if sizes.contains(&0) || elements.len() == 0 {
            return Err(empty(path, &sizes));
        }
        let (mut pixels, range) = compact(kind, elements);
        let axes = self.axes(path, &sizes, range)?;
        let Axes { count, shape, planes, single } = axes;
        if planes && let Some(shape) = shape {
            pixels = pixels.interleaved(count, shape);
        }
        let mut notes = Vec::new();
        if single {
            notes.push(format!("its shape {sizes:?} was taken for one image"));
        }
        let mut shape = shape;
        if let (Some(four @ Shape { channels: 4, .. }), Pixels::Bytes(rgba), Known::Bytes) =
            (shape, &pixels, range)
        {
            // Bytes of four channels are colours and alpha; latents are floating-point numbers.
            let (laid, some) = pictures::laid(rgba, self.options.background);
            pixels = Pixels::Bytes(laid);
            shape = Some(Shape { channels: 3, ..four });
            if some {
                notes.push(format!("transparent pixels were laid on {}", self.options.background.name()));
            }
        }
        Ok(Piece { format, count, shape, pixels, range, names: None, notes })
    }

    /// Images of one file in the size that was asked for.
    fn sized(&self, path: &Path, mut piece: Piece) -> Result<Piece, DataError> {
        let (Some(size), Some(old)) = (self.options.size, piece.shape) else { return Ok(piece) };
        if (old.height, old.width) == (size, size) {
            return Ok(piece);
        }
        let Pixels::Bytes(bytes) = &piece.pixels else {
            return Err(array(
                path,
                format!(
                    "--size {size} resizes images of bytes, and these of {old} have other values; resize them before"
                ),
            ));
        };
        if !matches!(old.channels, 1 | 3) {
            return Err(array(
                path,
                format!(
                    "--size {size} resizes images of 1 or 3 channels, and these are {old}; resize them before"
                ),
            ));
        }
        piece.pixels = Pixels::Bytes(pictures::resized(bytes, old, size));
        piece.shape = Some(Shape { height: size, width: size, ..old });
        piece.notes.push(pictures::filter(old, size));
        Ok(piece)
    }

    /// What the axes of an array are.
    fn axes(&self, path: &Path, sizes: &[usize], range: Known) -> Result<Axes, DataError> {
        let colours = |c: usize| c == 1 || c == 3;
        // Latents have 4 channels, of some autoencoders up to 32.
        let latents = |c: usize| (2..=32).contains(&c);
        let image = |count, height, width, channels, planes| Axes {
            count,
            shape: Some(Shape { height, width, channels }),
            planes,
            single: false,
        };
        let layout = self.options.layout;
        match *sizes {
            [count, _] => Ok(Axes { count, shape: None, planes: false, single: false }),
            [height, width, channels] if layout == Some(Layout::Hwc) && colours(channels) => {
                Ok(Axes { single: true, ..image(1, height, width, channels, false) })
            }
            [channels, height, width] if layout == Some(Layout::Chw) && colours(channels) => {
                Ok(Axes { single: true, ..image(1, height, width, channels, true) })
            }
            // Images of three columns hardly exist, and colour images do.
            [height, width, 3 | 4] if height > 4 && width > 4 && range == Known::Bytes => {
                Ok(Axes { single: true, ..image(1, height, width, sizes[2], false) })
            }
            [count, height, width] => Ok(image(count, height, width, 1, false)),
            // A layout that is given for rows or for other inputs makes no channels of 28 rows.
            [count, a, b, 3] if layout == Some(Layout::Chw) && !colours(a) => {
                Ok(image(count, a, b, 3, false))
            }
            [count, 3, b, c] if layout == Some(Layout::Hwc) && !colours(c) => Ok(image(count, b, c, 3, true)),
            [count, a, b, c] => match layout {
                Some(Layout::Hwc) => Ok(image(count, a, b, c, false)),
                Some(Layout::Chw) => Ok(image(count, b, c, a, true)),
                None => match (colours(a), colours(c)) {
                    (true, true) if (a, c) == (1, 1) => Ok(image(count, b, c, 1, true)),
                    (true, true) => Err(unclear_axes(path, sizes)),
                    (_, true) => Ok(image(count, a, b, c, false)),
                    (true, _) => Ok(image(count, b, c, a, true)),
                    (false, false) if range == Known::Bytes && c == 4 => Ok(image(count, a, b, c, false)),
                    (false, false) if range == Known::Bytes && a == 4 => Ok(image(count, b, c, a, true)),
                    (false, false) if latents(a) && a < b && a < c => Ok(image(count, b, c, a, true)),
                    (false, false) if latents(c) && c < a && c < b => Ok(image(count, a, b, c, false)),
                    (false, false) => Err(unclear_axes(path, sizes)),
                },
            },
            _ => Err(array(
                path,
                format!(
                    "its shape is {sizes:?}, expected [n, values], [n, height, width], [n, height, width, channels] or \
                     [n, channels, height, width]"
                ),
            )),
        }
    }

    /// One set of several pieces.
    fn joined(&self, path: PathBuf, pieces: Vec<(PathBuf, Piece)>) -> Result<ImageSet, DataError> {
        let Some((_, first)) = pieces.first() else {
            return Err(empty(&path, &[0]));
        };
        let (format, range, several) = (first.format, first.range, pieces.len() > 1);
        let same = pieces.iter().all(|(_, piece)| piece.range == range);
        let (shape, length) = (first.shape, first.pixels.len() / first.count.max(1));
        for (file, piece) in &pieces {
            if piece.shape != shape || piece.pixels.len() / piece.count.max(1) != length {
                return Err(DataError::Unlike {
                    path: file.clone(),
                    found: described(piece.shape, piece.pixels.len() / piece.count.max(1)),
                    other: pieces[0].0.clone(),
                    expected: described(shape, length),
                });
            }
            if piece.range != range
                && !matches!(
                    (piece.range, range),
                    (Known::Pictures | Known::Bytes, Known::Pictures | Known::Bytes)
                )
            {
                return Err(array(
                    file,
                    format!("its values have another type than those of {}", pieces[0].0.display()),
                ));
            }
        }
        let count = pieces.iter().map(|(_, piece)| piece.count).sum();
        let files = if pieces.iter().any(|(_, piece)| piece.names.is_some()) {
            let prefix = |file: &Path| if several { format!("{}:", file.display()) } else { String::new() };
            let names = |(file, piece): &(PathBuf, Piece)| -> Vec<String> {
                match &piece.names {
                    // A picture of its own has the name of its file.
                    Some(_) if piece.format == Format::Picture => vec![file.display().to_string()],
                    Some(names) => names.iter().map(|name| format!("{}{name}", prefix(file))).collect(),
                    None => (0..piece.count).map(|i| format!("{}{i}", prefix(file))).collect(),
                }
            };
            Some(pieces.iter().flat_map(names).collect())
        } else {
            None
        };
        let mut notes: Vec<String> = Vec::new();
        if several {
            notes.push(counted(pieces.len(), "file"));
        }
        for note in pieces.iter().flat_map(|(_, piece)| &piece.notes) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        let range = if same { range } else { Known::Bytes };
        let pixels = Pixels::joined(pieces.into_iter().map(|(_, piece)| piece.pixels).collect());
        ImageSet::new(path, format, shape, (count, pixels), (range, self.range), files, notes)
    }
}

/// What the axes of an array are.
struct Axes {
    count: usize,
    shape: Option<Shape>,
    /// Whether channels come before rows.
    planes: bool,
    /// Whether the array is one image.
    single: bool,
}

/// Whether a path is a pattern: it has the characters of one and no file is called so.
fn is_pattern(given: &Path) -> bool {
    given.to_string_lossy().contains(['*', '?', '[']) && fs::symlink_metadata(given).is_err()
}

/// Whether a path exists or is a pattern that a file matches.
///
/// ```
/// use mem2gen::data::input::is_present;
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("a.png"), b"")?;
/// assert!(is_present(folder.path()) && is_present(&folder.path().join("*.png")));
/// assert!(!is_present(&folder.path().join("b.png")) && !is_present(&folder.path().join("*.npy")));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn is_present(path: &Path) -> bool {
    match is_pattern(path) {
        true => expanded(path).is_ok(),
        false => path.exists(),
    }
}

/// The paths that a path stands for: itself where it exists, else what it matches as a pattern.
fn expanded(given: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !is_pattern(given) {
        return Ok(vec![given.to_path_buf()]);
    }
    let text = given.to_string_lossy();
    let bad = |reason: String| DataError::Unclear { path: given.to_path_buf(), reason };
    let found = glob::glob(&text).map_err(|e| bad(format!("the pattern is wrong: {e}")))?;
    let found: Vec<PathBuf> = found.collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    if found.is_empty() {
        return Err(bad("no file matches the pattern".into()));
    }
    Ok(found)
}

pub(super) fn array(path: &Path, reason: String) -> DataError {
    StoreError::Array { path: path.to_path_buf(), reason: cut_reason(&reason) }.into()
}

fn empty(path: &Path, sizes: &[usize]) -> DataError {
    DataError::Empty { path: path.to_path_buf(), sizes: sizes.iter().map(|&s| s as u64).collect() }
}

fn unclear_axes(path: &Path, sizes: &[usize]) -> DataError {
    DataError::Unclear {
        path: path.to_path_buf(),
        reason: format!(
            "its shape is {sizes:?}, where channels may be second or last; say which with --layout chw or --layout hwc"
        ),
    }
}

pub(super) fn described(shape: Option<Shape>, length: usize) -> String {
    match shape {
        Some(shape) => format!("images of {shape} (height x width x channels)"),
        None => format!("images of {length} values"),
    }
}

/// Bytes where the values are bytes, and what their type says.
fn compact(kind: Kind, elements: Elements) -> (Pixels, Known) {
    match (kind, elements) {
        (Kind::Bool, Elements::Bytes(values)) => {
            (Pixels::Bytes(values.into_iter().map(|v| v.wrapping_mul(255)).collect()), Known::Bool)
        }
        (_, Elements::Bytes(values)) => (Pixels::Bytes(values), Known::Bytes),
        (Kind::Unsigned(_) | Kind::Signed(_), Elements::F32(values)) => {
            if all_bytes(values.iter().map(|v| f64::from(*v))) {
                (Pixels::Bytes(values.into_iter().map(|v| v as u8).collect()), Known::Bytes)
            } else {
                (Pixels::Floats(values), Known::Integers)
            }
        }
        (Kind::Unsigned(_) | Kind::Signed(_), Elements::F64(values)) => {
            if all_bytes(values.iter().copied()) {
                (Pixels::Bytes(values.into_iter().map(|v| v as u8).collect()), Known::Bytes)
            } else {
                (Pixels::Floats(values.into_iter().map(|v| v as f32).collect()), Known::Integers)
            }
        }
        (_, Elements::F32(values)) => (Pixels::Floats(values), Known::Floats),
        (_, Elements::F64(values)) => {
            (Pixels::Floats(values.into_iter().map(|v| v as f32).collect()), Known::Floats)
        }
    }
}

/// Whether all values fit a byte.
fn all_bytes(mut values: impl Iterator<Item = f64>) -> bool {
    values.all(|v| (0.0..=255.0).contains(&v))
}

fn idx_piece(path: &Path, bytes: Vec<u8>) -> Result<Piece, DataError> {
    let found = idx::read_images(path, bytes)?;
    let shape = Shape { height: found.height, width: found.width, channels: found.channels };
    Ok(bytes_piece(Format::Idx, Some(shape), found.count, found.pixels))
}

fn cifar_piece(format: Format, pixels: Vec<u8>) -> Piece {
    let shape = Shape::image(cifar::SIDE, cifar::SIDE, 3);
    bytes_piece(format, Some(shape), pixels.len() / cifar::PIXELS, pixels)
}

fn bytes_piece(format: Format, shape: Option<Shape>, count: usize, pixels: Vec<u8>) -> Piece {
    let pixels = Pixels::Bytes(pixels);
    Piece { format, count, shape, pixels, range: Known::Pictures, names: None, notes: vec![] }
}

/// Refuses more bytes than memory is left.
pub(super) fn room(path: &Path, images: usize, bytes: u64) -> Result<(), DataError> {
    match memory_left() {
        Some(left) if bytes > left => {
            Err(DataError::Memory { path: path.to_path_buf(), images, bytes, left })
        }
        _ => Ok(()),
    }
}
