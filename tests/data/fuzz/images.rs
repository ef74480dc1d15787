//! Targets of [`Input`]: images in files of every format.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use mem2gen::data::image_folder::Background;
use mem2gen::data::image_set::{ImageSet, Layout, Nominal};
use mem2gen::data::input::{Input, Options};
use mem2gen::data::weights::Arrays;
use mem2gen::store::{Matrix, read_matrix};
use ndarray::ArrayD;
use polars::prelude::{
    Column, DataFrame, IntoSeries, NamedFrom, ParquetCompression, ParquetWriter, Series, StructChunked,
};
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

use super::corpus::seeds;
use super::mutate::{changed, changed_text, with_png_sums};
use super::{Case, INFLATER, INFLATION, SMALL, is_clear, peak};
use crate::checkpoint::{self, Zip};
use crate::inputs::deflated;
use crate::pickled;

/// A folder in which the files of the cases are written.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        // A folder in memory where the system has one: most of the time is spent in files.
        let memory = Path::new("/dev/shm");
        Self(tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads a file as images, and checks errors, memory, and what the set says of itself.
    ///
    /// `most` is the number of bytes that may be held for one byte of the file.
    pub fn read(&self, case: &mut Case, name: &str, bytes: &[u8], most: usize) -> Option<ImageSet> {
        case.note(name, bytes);
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        self.read_with(case, &path, (most * bytes.len()).min(PICTURES))
    }

    /// Reads a path as [`Place::read`]; `most` is the number of bytes that may be held.
    fn read_with(&self, case: &mut Case, path: &Path, most: usize) -> Option<ImageSet> {
        let input = Input { tensor: tensor(case), options: options(case), ..Input::from_path(path) };
        let input = Input { range: case.one_in(8).then(|| range(case)), strict: case.one_in(8), ..input };
        let (found, held) = peak(|| input.read());
        let due = most + INFLATER + 4 * SMALL;
        assert!(held <= due, "{held} bytes held, expected at most {due}");
        match found {
            Ok(set) => {
                is_whole(&set);
                Some(set)
            }
            Err(e) => {
                is_clear(&e.to_string(), path);
                None
            }
        }
    }
}

fn tensor(case: &mut Case) -> Option<String> {
    case.one_in(4).then(|| case.of(&["x", "arr_0", "image", "data", "a.b", ""]).to_owned())
}

fn options(case: &mut Case) -> Options {
    let layout = [None, None, Some(Layout::Hwc), Some(Layout::Chw)][case.below(4)];
    let background = [Background::White, Background::Black][case.below(2)];
    let size = case.one_in(4).then(|| 1 + case.below(9));
    Options { layout, background, size, allow_skipped: case.one_in(4) }
}

fn range(case: &mut Case) -> Nominal {
    [Nominal::Unit, Nominal::Symmetric, Nominal::Bytes, Nominal::Words][case.below(4)]
}

/// Checks what is true of every set of images.
fn is_whole(set: &ImageSet) {
    let (n, length) = (set.len(), set.length());
    assert!(n > 0 && length > 0, "a set of {n} images of {length} values");
    if let Some(shape) = set.shape() {
        assert_eq!(shape.height * shape.width * shape.channels, length);
    }
    if let Some(files) = set.files() {
        assert_eq!(files.len(), n);
    }
    let said = set.said();
    assert!(!said.contains(char::is_control), "a control character: {said:?}");
    if n * length < 1 << 20 {
        assert_eq!(set.rows().dim(), (n, length));
        assert!(set.finite().len() <= n);
    }
}

const DESCRS: [&str; 18] = [
    "|u1", "|b1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i8", ">u8", "<f2", ">f2", "<f4", ">f4",
    "<f8", ">f8", "<c8",
];

/// An `.npy` file with parts that fit each other or nearly so.
pub fn array(case: &mut Case) -> Vec<u8> {
    let descr = case.of(&DESCRS);
    let axes = match case.below(8) {
        0 => case.below(40),
        _ => 1 + case.below(4),
    };
    let odd = case.one_in(8);
    let sizes: Vec<usize> = (0..axes)
        .map(|_| match case.below(24) {
            0 if odd => 1 << case.below(64),
            1 => 0,
            _ => 1 + case.below(7),
        })
        .collect();
    let shape: String = sizes.iter().map(|size| format!("{size},")).collect();
    let order = ["False", "True"][case.below(2)];
    let mut parts =
        [format!("'descr': '{descr}'"), format!("'fortran_order': {order}"), format!("'shape': ({shape})")];
    let turn = case.below(3);
    parts.rotate_left(turn);
    let mut header = format!("{{{}, }}", parts.join(", "));
    if case.one_in(6) {
        header = changed_text(case, &header, "'descr': '<f4', 'shape': (2, 3), [('a', '<f4')], (((((((");
    }
    header.extend(vec![' '; case.below(64)]);
    header.push('\n');
    let major = 1 + case.below(3) as u8;
    let length = header.len();
    let mut bytes = [&b"\x93NUMPY"[..], &[major, 0]].concat();
    match major {
        1 => bytes.extend((length as u16).to_le_bytes()),
        _ => bytes.extend((length as u32).to_le_bytes()),
    }
    bytes.extend(header.bytes());
    let width = descr[2..].parse::<usize>().unwrap();
    let due = sizes.iter().try_fold(width, |n, size| n.checked_mul(*size)).filter(|n| *n < 1 << 14);
    let body = match case.below(6) {
        0 => case.below(100),
        1 => due.unwrap_or(9).saturating_add_signed(case.below(5) as isize - 2),
        _ => due.unwrap_or(100),
    };
    let plain = case.one_in(2);
    bytes.extend((0..body).map(|i| if plain { (i % width.max(1) == 0) as u8 } else { case.byte() }));
    bytes
}

/// What an accepted `.npy` file contains: sizes and elements in C order, read one by one.
fn slowly(bytes: &[u8]) -> (Vec<usize>, Vec<f64>, char) {
    let (length, start) = match bytes[6] {
        1 => (usize::from(bytes[8]) + 256 * usize::from(bytes[9]), 10),
        _ => (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12),
    };
    let header = std::str::from_utf8(&bytes[start..start + length]).unwrap();
    // The value behind the last key of this name, as in Python.
    let value = |key: &str| {
        let rest = &header[header.rfind(key).unwrap() + key.len() + 1..];
        rest[rest.find(':').unwrap() + 1..].trim_start()
    };
    let descr: String = value("descr").chars().skip(1).take_while(|c| !"'\"".contains(*c)).collect();
    let fortran = value("fortran_order").starts_with("True");
    let shape = value("shape");
    let inner = &shape[1..shape.find(')').unwrap()];
    let sizes: Vec<usize> = inner
        .split(',')
        .map(|size| size.trim().trim_end_matches('L'))
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().unwrap())
        .collect();
    let big = descr.starts_with('>');
    let code = descr.trim_start_matches(['<', '>', '|', '=']);
    let (kind, width) = (code.chars().next().unwrap(), code[1..].parse::<usize>().unwrap());
    let elements = &bytes[start + length..];
    let count: usize = sizes.iter().product();
    let values = (0..count).map(|i| {
        // The index of each axis, the last one fastest, and the place in the file.
        let (mut rest, mut indices) = (i, vec![0; sizes.len()]);
        for axis in (0..sizes.len()).rev() {
            indices[axis] = rest % sizes[axis];
            rest /= sizes[axis];
        }
        let axes: Vec<usize> =
            if fortran { (0..sizes.len()).rev().collect() } else { (0..sizes.len()).collect() };
        let at = axes.iter().fold(0, |at, axis| at * sizes[*axis] + indices[*axis]);
        let mut raw: Vec<u8> = elements[at * width..(at + 1) * width].to_vec();
        if big {
            raw.reverse();
        }
        let bits = raw.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        let signed = (bits << (64 - 8 * width)) as i64 >> (64 - 8 * width);
        match (kind, width) {
            ('b', _) => f64::from(u8::from(bits != 0)),
            ('u', _) => bits as f64,
            ('i', _) => signed as f64,
            ('f', 2) => half(bits),
            ('f', 4) => f64::from(f32::from_bits(bits as u32)),
            _ => f64::from_bits(bits),
        }
    });
    (sizes.clone(), values.collect(), kind)
}

/// A float16, from its sign, exponent and fraction.
fn half(bits: u64) -> f64 {
    let (exponent, fraction) = ((bits >> 10 & 31) as i32, (bits & 1023) as f64);
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// Compares what was read of an array with the slow reader.
pub fn has_the_values(set: &ImageSet, bytes: &[u8]) {
    let (sizes, values, kind) = slowly(bytes);
    let (n, length) = (set.len(), set.length());
    let whole = matches!(kind, 'u' | 'i') && values.iter().all(|v| (0.0..=255.0).contains(v));
    let due: Vec<f32> = values.iter().map(|v| if whole { (v / 255.0) as f32 } else { *v as f32 }).collect();
    if n * length != due.len() {
        // Colours and alpha become colours.
        assert!(whole && sizes.contains(&4), "{n} images of {length} values from {sizes:?}");
        return;
    }
    let rows = set.rows();
    let is = |at: &dyn Fn(usize, usize) -> usize| {
        (0..n).all(|i| {
            (0..length).all(|j| {
                let (found, due) = (rows[[i, j]], due[i * length + at(i, j)]);
                same(found.into(), due.into()) || (whole && (found - due).abs() < 1e-6)
            })
        })
    };
    let planes = set.shape().filter(|shape| shape.channels > 1).is_some_and(|shape| {
        is(&|_, j| j % shape.channels * (shape.height * shape.width) + j / shape.channels)
    });
    assert!(planes || is(&|_, j| j), "{sizes:?}: the values are not those of the file");
}

/// Compares a matrix with the slow reader.
fn has_the_matrix(matrix: Matrix, bytes: &[u8]) {
    let (sizes, values, _) = slowly(bytes);
    let (rows, columns) = matrix.dim();
    assert_eq!(sizes, [rows, columns]);
    assert!(matrix.into_f64().iter().zip(&values).all(|(a, b)| same(*a, *b)));
}

pub fn npy() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let mut goods: Vec<Vec<u8>> = super::corpus::arrays().into_iter().map(|(_, bytes)| bytes).collect();
    goods.extend(seeds(&[".npy"]).into_iter().map(|(_, bytes)| bytes));
    move |case| {
        let bytes = match case.below(3) {
            0 => {
                let (good, other) = (case.below(goods.len()), case.below(goods.len()));
                changed(case, &goods[good], &goods[other])
            }
            _ => array(case),
        };
        let found = place.read(case, "x.npy", &bytes, 64);
        let path = place.path("x.npy");
        match read_matrix(&path) {
            Ok(matrix) => has_the_matrix(matrix, &bytes),
            Err(e) => is_clear(&e.to_string(), &path),
        }
        // An image that is resized, and a range that is given, have other values.
        if let Ok(set) = Input::from_path(&path).read() {
            has_the_values(&set, &bytes);
        }
        found.is_some()
    }
}

pub fn npz() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let others = seeds(&[".npz"]);
    move |case| {
        if case.one_in(4) {
            let bytes = changed(case, &others[0].1, &others[0].1);
            return place.read(case, "x.npz", &bytes, 64 * INFLATION).is_some();
        }
        let count = 1 + case.below(3);
        let entries: Vec<(&str, Vec<u8>)> = (0..count)
            .map(|_| (case.of(&["arr_0.npy", "x.npy", "labels.npy", "a/b.npy", ".npy", "x"]), array(case)))
            .collect();
        let bytes = archive(case, &entries);
        place.read(case, "x.npz", &bytes, 64 * INFLATION).is_some()
    }
}

/// A zip archive of these entries, which may claim other lengths and have changed bytes.
fn archive(case: &mut Case, entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let bytes = if case.one_in(2) {
        deflated(entries)
    } else {
        let odd = case.one_in(8);
        let claimed = |case: &mut Case, length: usize| match case.below(4) {
            0 if odd => 1 << case.below(32),
            1 if odd => length as u32 + 1,
            _ => length as u32,
        };
        entries
            .iter()
            .fold(Zip::new(), |zip, (name, content)| zip.entry(name, content, claimed(case, content.len())))
            .finish()
    };
    if case.one_in(3) { changed(case, &bytes, b"PK\x05\x06PK\x06\x06PK\x06\x07PK\x01\x02") } else { bytes }
}

pub fn safetensors() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let kinds = [(Dtype::U8, 1), (Dtype::F32, 4), (Dtype::F16, 2), (Dtype::BF16, 2), (Dtype::I64, 8)];
    let file = |name: &str, (kind, width): (Dtype, usize), shape: &[usize]| {
        let values = vec![1; width * shape.iter().product::<usize>()];
        let view = TensorView::new(kind, shape.to_vec(), &values).unwrap();
        let notes = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize([(name, &view)], Some(notes)).unwrap()
    };
    let mut goods: Vec<Vec<u8>> = kinds.iter().map(|kind| file("x", *kind, &[2, 3, 4, 3])).collect();
    goods.push(file("image", kinds[0], &[5, 9]));
    goods.extend(seeds(&[".safetensors"]).into_iter().map(|(_, bytes)| bytes));
    move |case| {
        let at = case.below(goods.len());
        let good = &goods[at];
        let bytes = if case.one_in(3) {
            let other = case.below(goods.len());
            changed(case, good, &goods[other])
        } else {
            let length = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
            let header = std::str::from_utf8(&good[8..length]).unwrap().replace(',', "\n,");
            let header = changed_text(
                case,
                &header,
                "\"y\":{\"dtype\":\"F8_E4M3\"\n,\"shape\":[2\n,\"data_offsets\":[0",
            );
            let header = header.replace('\n', "");
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &good[length..]].concat()
        };
        place.read(case, "x.safetensors", &bytes, 64).is_some()
    }
}

/// A small picture in each format, in gray, with colours, and with 16 bits or alpha where the format has them.
pub fn encoded() -> Vec<(String, Vec<u8>)> {
    let colours = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([20 * x as u8, 30 * y as u8, 9]));
    let rgb = image::DynamicImage::from(colours);
    let gray = image::DynamicImage::from(rgb.to_luma8());
    let rgba = image::DynamicImage::from(rgb.to_rgba8());
    let deep = image::DynamicImage::from(rgb.to_rgb16());
    let file = |picture: &image::DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let small = image::DynamicImage::from(image::RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3])));
    let all = [
        ("rgb.png", file(&rgb, ImageFormat::Png)),
        ("gray.png", file(&gray, ImageFormat::Png)),
        ("rgba.png", file(&rgba, ImageFormat::Png)),
        ("deep.png", file(&deep, ImageFormat::Png)),
        ("rgb.jpg", file(&rgb, ImageFormat::Jpeg)),
        ("gray.jpg", file(&gray, ImageFormat::Jpeg)),
        ("rgb.webp", file(&rgb, ImageFormat::WebP)),
        ("rgba.webp", file(&rgba, ImageFormat::WebP)),
        ("rgb.bmp", file(&rgb, ImageFormat::Bmp)),
        ("rgb.gif", file(&rgba, ImageFormat::Gif)),
        ("rgb.tif", file(&rgb, ImageFormat::Tiff)),
        ("deep.tif", file(&deep, ImageFormat::Tiff)),
        ("rgb.ppm", file(&rgb, ImageFormat::Pnm)),
        ("gray.pgm", file(&gray, ImageFormat::Pnm)),
        ("small.png", file(&small, ImageFormat::Png)),
    ];
    all.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}

/// A changed picture of any format, and its name.
fn picture<'a>(case: &mut Case, files: &'a [(String, Vec<u8>)]) -> (&'a str, Vec<u8>) {
    let (at, other) = (case.below(files.len()), case.below(files.len()));
    let (name, good) = &files[at];
    let bytes = changed(case, good, &files[other].1);
    // Otherwise nearly every changed PNG fails at a checksum.
    let bytes = if name.ends_with("png") && !case.one_in(4) { with_png_sums(bytes) } else { bytes };
    (name, bytes)
}

/// Bytes that may be held for any file: a decoder takes at most 1 GiB, and its colours are converted once.
const PICTURES: usize = 3 << 30;
/// Bytes that may be held for one byte of a picture: sides of 16384 pixels fit in a header.
const PICTURE: usize = PICTURES;

/// Good pictures of this crate's encoders and of others.
fn good_pictures() -> Vec<(String, Vec<u8>)> {
    let others = seeds(&[".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".pgm"]);
    encoded().into_iter().chain(others).collect()
}

pub fn pictures() -> impl FnMut(&mut Case) -> bool + Send {
    let (place, files) = (Place::new(), good_pictures());
    move |case| {
        let (name, bytes) = picture(case, &files);
        place.read(case, name, &bytes, PICTURE).is_some()
    }
}

/// Names with what no terminal should get.
const NAMES: [&str; 7] =
    ["0.png", "a/b.png", "c.jpg", "__MACOSX/x.png", "labels.txt", "a\u{1b}[31m\n.png", "\u{9b}2J\r.tif"];

/// A folder of good and changed pictures, and of arrays.
pub fn folder() -> impl FnMut(&mut Case) -> bool + Send {
    let (place, files) = (Place::new(), good_pictures());
    move |case| {
        let folder = place.path("D");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("a")).unwrap();
        let arrays = case.one_in(4);
        for _ in 0..1 + case.below(4) {
            let (name, bytes) = match case.below(6) {
                0 => (case.of(&NAMES), picture(case, &files).1),
                _ if arrays => (case.of(&["0.npy", "1.npy", "a/b.npy"]), array(case)),
                _ => {
                    let (name, bytes) = &files[case.below(files.len())];
                    (if case.one_in(2) { name } else { case.of(&NAMES) }, bytes.clone())
                }
            };
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &bytes).unwrap();
            case.note(name, &bytes);
        }
        place.read_with(case, &folder, PICTURES).is_some()
    }
}

pub fn zip() -> impl FnMut(&mut Case) -> bool + Send {
    let (place, files) = (Place::new(), good_pictures());
    let others = seeds(&[".zip"]);
    move |case| {
        if case.one_in(6) {
            let bytes = changed(case, &others[0].1, &others[0].1);
            return place.read(case, "x.zip", &bytes, PICTURE).is_some();
        }
        let count = 1 + case.below(4);
        let mut entries = Vec::new();
        for _ in 0..count {
            let (name, good) = &files[case.below(files.len())];
            let content = if case.one_in(4) { picture(case, &files).1 } else { good.clone() };
            let name = if case.one_in(2) { name } else { case.of(&NAMES) };
            entries.push((name, content));
        }
        let bytes = archive(case, &entries);
        place.read(case, "x.zip", &bytes, PICTURE).is_some()
    }
}

/// A parquet table of pictures, as Hugging Face writes it, or as plain bytes.
pub fn table_of_pictures(plain: bool, compression: ParquetCompression) -> Vec<u8> {
    let pictures: Vec<Vec<u8>> = encoded().into_iter().take(3).map(|(_, bytes)| bytes).collect();
    let bytes: Series = Series::new("bytes".into(), &pictures);
    let names = Series::new("path".into(), &["a.png", "b.png", "c.png"]);
    let image = if plain {
        bytes.with_name("image".into())
    } else {
        StructChunked::from_series("image".into(), 3, [bytes, names].iter()).unwrap().into_series()
    };
    let labels = Series::new("label".into(), &[0i64, 1, 2]);
    let mut frame = DataFrame::new_infer_height(vec![Column::from(image), Column::from(labels)]).unwrap();
    let mut out = Vec::new();
    ParquetWriter::new(&mut out).with_compression(compression).finish(&mut frame).unwrap();
    out
}

pub fn parquet() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let all = [ParquetCompression::Uncompressed, ParquetCompression::Snappy, ParquetCompression::Zstd(None)];
    let mut goods: Vec<Vec<u8>> = all
        .into_iter()
        .flat_map(|compression| [false, true].map(|plain| table_of_pictures(plain, compression)))
        .collect();
    goods.extend(seeds(&[".parquet"]).into_iter().map(|(_, bytes)| bytes));
    move |case| {
        let (at, other) = (case.below(goods.len()), case.below(goods.len()));
        let bytes = changed(case, &goods[at], &goods[other]);
        place.read(case, "x.parquet", &bytes, PICTURE).is_some()
    }
}

pub fn torch() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let tensor = checkpoint::tensor(b"K\x18", b"K\0", b"(K\x02K\x01K\x02K\x06t", b"(K\x0cK\x0cK\x06K\x01t");
    let plain = [&b"\x80\x02"[..], &tensor, b"."].concat();
    let named = [&b"\x80\x02}X\x01\0\0\0x"[..], &tensor, b"s."].concat();
    let values: Vec<u8> = (0..24u8).flat_map(|v| (f32::from(v) / 23.0).to_le_bytes()).collect();
    move |case| {
        let good = if case.one_in(2) { &plain } else { &named };
        let pickle =
            if case.one_in(4) { good.clone() } else { changed(case, good, &checkpoint::in_model(&tensor)) };
        let storage = if case.one_in(6) { changed(case, &values, &values) } else { values.clone() };
        let entries = [("a/data.pkl", pickle), ("a/data/0", storage)];
        let bytes = archive(case, &entries);
        place.read(case, "x.pt", &bytes, 500 * INFLATION).is_some()
    }
}

/// A pickle of arrays.
pub fn arrays_pickled() -> Vec<u8> {
    let arrays: Arrays = [("a.x", vec![2, 3]), ("a.y", vec![4, 2, 2])]
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), ArrayD::from_elem(&shape[..], 0.5)))
        .collect();
    pickled::pickled(&arrays)
}

pub fn pickle() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let goods = seeds(&[".pkl"]);
    move |case| {
        let (at, other) = (case.below(goods.len()), case.below(goods.len()));
        let bytes = changed(case, &goods[at].1, &goods[other].1);
        place.read(case, "x.pkl", &bytes, 500).is_some()
    }
}

pub fn raw() -> impl FnMut(&mut Case) -> bool + Send {
    const STARTS: [&[u8]; 14] = [
        b"",
        b"\x93NUMPY\x01\0",
        b"\x93NUMPY\x01\0\x76\0{'descr': '<f4', ",
        b"PK\x03\x04",
        b"PK\x05\x06\0\0\0\0",
        b"PAR1",
        b"\x80\x02",
        b"\x1f\x8b\x08\0",
        b"\0\0\x08\x03",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"GIF89a",
        b"RIFF\x40\0\0\0WEBPVP8L",
        b"II*\0\x08\0\0\0",
    ];
    let place = Place::new();
    move |case| {
        let bytes = [case.of(&STARTS), &case.bytes(300)].concat();
        let name = case.of(&["x", "x.bin", "x.npy", "x.png", "x.ppm"]);
        place.read(case, name, &bytes, PICTURE).is_some()
    }
}
