//! Pictures: folders of them in any depth, and their decoding.
//!
//! [`decode`] crops a square as ADM does: halved with a box filter while the short side is at least twice the target,
//! resized with a bicubic filter until the short side is the target, and cropped in the centre. It gives the bytes of
//! ADM's `center_crop_arr` under Pillow.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::DataError;
use super::resample::{Filter, resize};
use crate::shape::Shape;
use crate::store::{cut_reason, read_file};

/// Side of the squares that the paper trains on.
pub const SIZE: usize = 64;

/// Largest side and decoder memory that are accepted.
const LONGEST: u32 = 16_384;
const MOST_MEMORY: u64 = 1 << 30;

/// Endings of the formats that are read.
const READ: [&str; 16] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "gif", "pnm", "pbm", "pgm",
    "ppm", "pam",
];
/// Endings of images in formats that are not read.
const FOREIGN: [&str; 25] = [
    "heic", "heif", "avif", "jxl", "jp2", "j2k", "jpx", "svg", "psd", "ico", "tga", "exr", "hdr", "dds",
    "qoi", "pcx", "ff", "raw", "cr2", "nef", "arw", "dng", "pfm", "eps", "xcf",
];
/// What image files begin with that hardly any other file does.
const BEGINNINGS: [&[u8]; 6] =
    [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"];
/// Arrays that a folder may hold in place of pictures.
const ARRAYS: [&str; 6] = ["npy", "npz", "parquet", "safetensors", "pt", "pth"];

/// What transparent pixels are laid on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// White
    #[default]
    White,
    /// Black
    Black,
}

impl Background {
    /// The name: `white` or `black`.
    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Black => "black",
        }
    }

    /// A value laid on this background.
    pub(super) fn lay(self, value: u8, alpha: u8) -> u8 {
        let behind = match self {
            Self::White => 255,
            Self::Black => 0,
        };
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + behind * (255 - alpha) + 127) / 255) as u8
    }
}

/// An input that looks like an image and was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Its name below the folder.
    pub name: String,
    /// Why it was not read.
    pub reason: String,
}

impl Passed {
    /// A file of a folder that can't be decoded.
    pub(super) fn new(folder: &Path, path: &Path, error: &DataError) -> Self {
        Self::named(&name_below(folder, path), error)
    }

    /// A picture of this name that can't be decoded.
    pub(super) fn named(name: &str, error: &DataError) -> Self {
        let reason = match error {
            DataError::Image { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        Self { name: name.to_owned(), reason }
    }
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Pictures, in the byte order of their names, folder by folder.
    pub pictures: Vec<PathBuf>,
    /// Arrays, in the same order.
    pub arrays: Vec<PathBuf>,
    /// What looks like an image and can't be read.
    pub passed: Vec<Passed>,
    /// Number of files that do not look like images.
    pub others: usize,
    /// Whether pictures lie at more than one depth.
    pub mixed: bool,
}

/// Lists a folder and all folders below it. Hidden files, `Thumbs.db` and folders `__MACOSX` are left out.
///
/// # Errors
/// [`DataError::Io`] when the folder can't be read.
pub fn walk(folder: &Path) -> Result<Listing, DataError> {
    fs::read_dir(folder).map_err(DataError::io("list folder", folder))?;
    let mut found = Listing::default();
    let mut depths = Vec::new();
    let items = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    for item in items.filter_entry(|item| item.depth() == 0 || !ignored(item.file_name())) {
        let item = match item {
            Ok(item) => item,
            Err(e) => {
                let path = e.path().unwrap_or(folder);
                if path.file_name().is_some_and(ignored) {
                    continue;
                }
                let reason = match (e.loop_ancestor(), e.io_error()) {
                    (Some(_), _) => "a link to a folder above it".to_owned(),
                    (_, Some(io)) if io.kind() == std::io::ErrorKind::NotFound => {
                        "a link to a file that does not exist".to_owned()
                    }
                    (_, Some(io)) => io.to_string(),
                    _ => "can't be read".to_owned(),
                };
                found.passed.push(Passed { name: name_below(folder, path), reason });
                continue;
            }
        };
        if item.file_type().is_dir() {
            continue;
        }
        let path = item.path();
        let ending =
            path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).unwrap_or_default();
        let known = READ.contains(&&*ending);
        let foreign = FOREIGN.contains(&&*ending);
        if !item.file_type().is_file() {
            if known || foreign {
                let reason = "is not a regular file".to_owned();
                found.passed.push(Passed { name: name_below(folder, path), reason });
            } else {
                found.others += 1;
            }
        } else if known || begins_as_image(path) {
            found.pictures.push(path.to_path_buf());
            depths.push(item.depth());
        } else if foreign {
            let reason = format!("format .{ending} is not read");
            found.passed.push(Passed { name: name_below(folder, path), reason });
        } else if ARRAYS.contains(&&*ending) {
            found.arrays.push(path.to_path_buf());
        } else {
            found.others += 1;
        }
    }
    found.mixed = depths.iter().any(|depth| *depth != depths[0]);
    Ok(found)
}

/// Whether a file is one that a system leaves in folders.
pub(super) fn ignored(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || name.eq_ignore_ascii_case("thumbs.db") || name == "__MACOSX"
}

/// The name of a file below a folder, with slashes.
pub(super) fn name_below(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}

fn begins_as_image(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.is_ok() && is_image(&start)
}

/// Whether a file has the ending of an image, also of one in a format that is not read.
pub(super) fn looks_like_image(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).unwrap_or_default();
    READ.contains(&&*ending) || FOREIGN.contains(&&*ending)
}

/// Whether bytes begin as an image file does.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning))
        || (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"))
}

/// The pictures of a folder, as [`walk`] lists them.
///
/// # Errors
/// As [`walk`]; [`DataError::Passed`] for what looks like an image and can't be read; [`DataError::Count`] when there is
/// no picture.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let found = walk(folder)?;
    refuse_passed(folder, found.pictures.len(), &found.passed, "remove them")?;
    if found.pictures.is_empty() {
        return Err(none(folder));
    }
    Ok(found.pictures)
}

/// The error for a folder without pictures.
pub(super) fn none(folder: &Path) -> DataError {
    DataError::Count {
        path: folder.to_path_buf(),
        what: "images (PNG, JPEG, WebP, BMP, TIFF, GIF or PNM)",
        expected: 1,
        found: 0,
    }
}

/// Refuses inputs that were passed over; `advice` says what to do.
pub(super) fn refuse_passed(
    path: &Path,
    read: usize,
    passed: &[Passed],
    advice: &'static str,
) -> Result<(), DataError> {
    if passed.is_empty() {
        return Ok(());
    }
    Err(DataError::Passed {
        path: path.to_path_buf(),
        read,
        count: passed.len(),
        names: named(passed),
        advice,
    })
}

/// The first of what was passed over, with reasons.
pub(super) fn named(passed: &[Passed]) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = passed
        .iter()
        .take(SHOWN)
        .map(|one| format!("{} ({})", shown(&one.name), start_of(&one.reason)))
        .collect();
    if passed.len() > SHOWN {
        names.push(format!("and {} more", passed.len() - SHOWN));
    }
    names.join(", ")
}

/// The first characters of a reason, where several are in one line.
fn start_of(reason: &str) -> String {
    const LONGEST: usize = 100;
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &reason[..end]),
        None => reason.to_owned(),
    }
}

/// The last characters of a name, with control characters escaped.
pub(super) fn shown(name: &str) -> String {
    let name: String = name.chars().flat_map(char::escape_debug).collect();
    let count = name.chars().count();
    if count <= 60 { name } else { format!("...{}", name.chars().skip(count - 57).collect::<String>()) }
}

/// A picture in 8 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its shape, with 1 channel for a gray file and 3 otherwise.
    pub shape: Shape,
    /// Its values in the order row, column, channel.
    pub pixels: Vec<u8>,
    /// Whether pixels were transparent, and laid on the background.
    pub transparent: bool,
    /// Whether it was turned or mirrored, as its EXIF orientation says.
    pub turned: bool,
    /// Whether it had 16 bits or floating-point values, which were rounded to 8 bits.
    pub rounded: bool,
    /// Whether it is the first of several frames or pages.
    pub first: bool,
}

impl Picture {
    /// The picture cropped to a square in the centre and resized to `size` x `size`, as [`decode`] does.
    #[must_use]
    pub fn resized(self, size: usize) -> Self {
        let Shape { height, width, channels } = self.shape;
        if (height, width) == (size, size) {
            return self;
        }
        let rgb =
            if channels == 3 { self.pixels } else { self.pixels.into_iter().flat_map(|v| [v; 3]).collect() };
        let mut pixels = centre_crop(rgb, (width, height), size);
        if channels == 1 {
            pixels = pixels.into_iter().step_by(3).collect();
        }
        Self { shape: Shape { height: size, width: size, channels }, pixels, ..self }
    }
}

/// Reads and decodes a picture file.
///
/// # Errors
/// [`DataError::Store`] when it can't be read, and as [`decode_whole`].
pub fn read(path: &Path, background: Background) -> Result<Picture, DataError> {
    decode_whole(path, &read_file(path)?, background)
}

/// Decodes one image and crops it to `size` x `size` RGB; an alpha channel is dropped, as by Pillow. The content gives
/// the format; `path` is used in error messages only.
///
/// # Errors
/// As [`decode_whole`], and for a size of 0.
pub fn decode(path: &Path, bytes: &[u8], size: usize) -> Result<Vec<u8>, DataError> {
    if size == 0 {
        return Err(refused(path, bytes)("the crop has size 0, expected at least 1".to_owned()));
    }
    let rgb = picture(path, bytes)?.0.into_rgb8();
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(centre_crop(rgb.into_raw(), (width, height), size))
}

/// Decodes one image without a crop: turned as its EXIF orientation says, with transparent pixels laid on the background.
/// Of an animation the first frame is read, of several pages the first.
///
/// # Errors
/// [`DataError::Image`] for a file of another format, one that is damaged or cut short, and one with a side above 16384.
pub fn decode_whole(path: &Path, bytes: &[u8], background: Background) -> Result<Picture, DataError> {
    let (picture, turned) = picture(path, bytes)?;
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let colour = picture.color();
    let rounded = colour.bytes_per_pixel() > colour.channel_count();
    let channels = if colour.has_color() { 3 } else { 1 };
    let mut transparent = false;
    let mut lay = |value: u8, alpha: u8| {
        transparent |= alpha < u8::MAX;
        background.lay(value, alpha)
    };
    let pixels: Vec<u8> = match (channels, colour.has_alpha()) {
        (3, true) => {
            let rgba = picture.into_rgba8();
            rgba.pixels().flat_map(|p| [0, 1, 2].map(|c| lay(p.0[c], p.0[3]))).collect()
        }
        (3, false) => picture.into_rgb8().into_raw(),
        (_, true) => picture.into_luma_alpha8().pixels().map(|p| lay(p.0[0], p.0[1])).collect(),
        (_, false) => picture.into_luma8().into_raw(),
    };
    let first = has_more(bytes);
    Ok(Picture { shape: Shape { height, width, channels }, pixels, transparent, turned, rounded, first })
}

/// Whether a picture that could be decoded has further frames or pages.
fn has_more(bytes: &[u8]) -> bool {
    let file = || Cursor::new(bytes);
    match image::guess_format(bytes) {
        Ok(ImageFormat::Gif) => GifDecoder::new(file()).is_ok_and(|gif| gif.into_frames().nth(1).is_some()),
        Ok(ImageFormat::WebP) => WebPDecoder::new(file()).is_ok_and(|webp| webp.has_animation()),
        Ok(ImageFormat::Png) => PngDecoder::new(file()).is_ok_and(|png| png.is_apng().unwrap_or(false)),
        Ok(ImageFormat::Tiff) => second_page(bytes).is_some_and(|offset| offset != 0),
        _ => false,
    }
}

/// Where a TIFF's second directory begins, 0 for none: the number behind the 12-byte entries of the first directory, whose
/// place stands at byte 4.
fn second_page(bytes: &[u8]) -> Option<u32> {
    let little = bytes.starts_with(b"II");
    let four = |at: usize| -> Option<u32> {
        let four = bytes.get(at..)?.first_chunk()?;
        Some(if little { u32::from_le_bytes(*four) } else { u32::from_be_bytes(*four) })
    };
    let at = usize::try_from(four(4)?).ok()?;
    let two = bytes.get(at..)?.first_chunk()?;
    let entries = if little { u16::from_le_bytes(*two) } else { u16::from_be_bytes(*two) };
    four(at + 2 + 12 * usize::from(entries))
}

fn refused(path: &Path, bytes: &[u8]) -> impl Fn(String) -> DataError {
    move |reason| DataError::Image {
        path: path.to_path_buf(),
        size: bytes.len() as u64,
        reason: cut_reason(&reason),
    }
}

/// A decoded image whose sides are not zero, turned as its EXIF orientation says, and whether it was.
fn picture(path: &Path, bytes: &[u8]) -> Result<(DynamicImage, bool), DataError> {
    let bad = refused(path, bytes);
    if bytes.starts_with(b"\xff\xd8") && !ends(bytes) {
        return Err(bad("the JPEG is cut short: its end marker is missing".into()));
    }
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| bad(e.to_string()))?;
    if decoder.total_bytes() > MOST_MEMORY {
        return Err(bad(format!("it takes {} bytes, expected at most {MOST_MEMORY}", decoder.total_bytes())));
    }
    let orientation = decoder.orientation().map_err(|e| bad(e.to_string()))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| bad(e.to_string()))?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    if width == 0 || height == 0 {
        return Err(bad(format!("the sides are {width} x {height}, expected both above 0")));
    }
    Ok((picture, orientation != image::metadata::Orientation::NoTransforms))
}

/// Whether the segments of a JPEG lead to its end marker. The decoder fills what is missing with gray.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Between segments: fill bytes, then a marker.
        while bytes.get(at).is_some_and(|byte| *byte != 0xff) {
            at += 1;
        }
        while bytes.get(at) == Some(&0xff) {
            at += 1;
        }
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // Stuffed zeros, restarts and the start have no length; what follows is searched for the next marker.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) => at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
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
