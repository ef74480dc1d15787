//! The corpus: inputs that every run of the tests reads. Most are made here; those of other programs, and those that were
//! once read wrongly and can't be told in a line, are files in `tests/data/corpus`.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use mem2gen::data::image_set::ImageSet;
use mem2gen::data::input::Input;
use polars::prelude::ParquetCompression;

use super::images::{Place, encoded, has_the_values, table_of_pictures};
use super::readers::gzipped;
use super::{INFLATER, is_clear, peak};
use crate::checkpoint::{self, Zip};

/// A file, and a part of the error with which it is refused; `None` for a file that is read.
type Entry = (String, Vec<u8>, Option<&'static str>);

fn npy(header: &str, body: &[u8]) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\0"[..], &length, header.as_bytes(), body].concat()
}

fn dict(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

/// Arrays of every type and order that are read.
pub fn arrays() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for descr in ["|u1", "|b1", "|i1", "<u2", ">u2", "<i4", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8"] {
        let width: usize = descr[2..].parse().unwrap();
        let body: Vec<u8> = (0..24 * width).map(|i| (i % 7) as u8).collect();
        for (order, shape) in
            [("False", "(2, 3, 4)"), ("True", "(2, 3, 4)"), ("True", "(4, 6)"), ("False", "(2, 2, 2, 3)")]
        {
            all.push((format!("{descr}-{order}.npy"), npy(&dict(descr, order, shape), &body)));
        }
    }
    all
}

/// Bytes of a PNG whose sides are others than those of its data.
fn png_of_sides(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded()[0].1.clone();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    super::mutate::with_png_sums(bytes)
}

/// An archive whose entry inflates to more than it promises.
fn zip_bomb() -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    let packed = encoder.finish().unwrap();
    let mut bytes = Zip::new().entry("x.npy", &packed, packed.len() as u32).finish();
    let record = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[record + 10] = 8;
    bytes[record + 24..record + 28].copy_from_slice(&64u32.to_le_bytes());
    bytes
}

/// Files that are refused, each with a word of the reason.
fn refused() -> Vec<Entry> {
    let jpeg = encoded().into_iter().find(|(name, _)| *name == "rgb.jpg").unwrap().1;
    let deep = npy(&"(".repeat(54), b"");
    assert_eq!(deep.len(), 64);
    let floats = |shape: &str| npy(&dict("<f4", "False", shape), &[0; 16]);
    let mut gzip_bomb = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2];
    gzip_bomb.resize(1 << 20, 0);
    let all: Vec<(&str, Vec<u8>, &'static str)> = vec![
        ("nothing.npy", vec![], "unknown format"),
        ("nested-64.npy", deep, "its header is damaged"),
        ("nested-long.npy", npy(&"[".repeat(60_000), b""), "its header is damaged"),
        ("huge.npy", floats("(4294967296, 4294967296)"), "more elements than memory"),
        ("long.npy", floats("(1000000000000,)"), "are missing"),
        ("axes.npy", floats(&format!("({})", "1,".repeat(40))), "more than 32 axes"),
        ("negative.npy", floats("(-1, -4)"), "its header is damaged"),
        ("short.npy", npy(&dict("<f4", "False", "(2, 2)"), &[0; 15]), "1 bytes are missing"),
        ("rest.npy", npy(&dict("<f4", "False", "(2, 2)"), &[0; 17]), "1 bytes are left over"),
        ("complex.npy", npy(&dict("<c8", "False", "(2, 1)"), &[0; 16]), "the element type is"),
        ("objects.npy", npy(&dict("|O", "False", "(2, 1)"), &[0; 16]), "the element type is"),
        ("none.npy", npy(&dict("<f4", "False", "(0, 4)"), b""), "empty"),
        ("escape.npy", npy(&dict("\u{1b}[31m", "False", "(1,)"), b""), "\\u{1b}"),
        ("cut.jpg", jpeg[..jpeg.len() / 2].to_vec(), "cut short"),
        ("cut.png", encoded()[0].1[..40].to_vec(), "decode image"),
        ("wide.png", png_of_sides(20_000, 1), "decode image"),
        ("large.png", png_of_sides(16_000, 16_000), "decode image"),
        ("empty-sides.png", png_of_sides(0, 0), "decode image"),
        ("bomb.gz", gzipped(&gzip_bomb), "trailing bytes"),
        ("promise.gz", gzipped(&[0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 1, 0, 0, 0, 0, 9]), "hold at most"),
        ("bomb.npz", zip_bomb(), "other than the 64 bytes"),
        ("promise.npz", Zip::new().entry("x.npy", b"ab", u32::MAX - 1).finish(), "lie beyond the end"),
        ("system.pkl", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.".to_vec(), "is not allowed"),
        ("system.pt", checkpoint::pickled(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."), "is not allowed"),
        ("header.safetensors", [&[9, 0, 0, 0, 0, 0, 0, 0][..], b"{{{{{{{{{"].concat(), ".safetensors"),
        ("magic.parquet", b"PAR1PAR1".to_vec(), "parquet"),
        ("size.parquet", b"PAR1\xff\xff\xff\x7fPAR1".to_vec(), "parquet"),
    ];
    all.into_iter().map(|(name, bytes, word)| (name.to_owned(), bytes, Some(word))).collect()
}

fn all() -> Vec<Entry> {
    let mut all: Vec<Entry> = arrays().into_iter().map(|(name, bytes)| (name, bytes, None)).collect();
    all.extend(encoded().into_iter().map(|(name, bytes)| (name.to_owned(), bytes, None)));
    for (name, compression) in [
        ("plain.parquet", ParquetCompression::Uncompressed),
        ("zstd.parquet", ParquetCompression::Zstd(None)),
    ] {
        all.push((name.to_owned(), table_of_pictures(false, compression), None));
    }
    let ten = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5][..], &[7; 10]].concat();
    all.push(("ten.idx.gz".to_owned(), gzipped(&ten), None));
    all.push(("ten.idx".to_owned(), ten, None));
    all.push(("batch.bin".to_owned(), vec![3; 2 * mem2gen::data::cifar::RECORD], None));
    all.extend(refused());
    all
}

/// The files of the folder; their names say whether they are read.
pub fn kept() -> Vec<Entry> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    let mut all = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let word = match &name {
            name if name.starts_with("read-") => None,
            name if name.starts_with("refused-") => Some(""),
            _ => continue,
        };
        all.push((name, fs::read(path).unwrap(), word));
    }
    all.sort();
    all
}

/// The files of the folder that are read and have one of these endings, with their names.
pub fn seeds(endings: &[&str]) -> Vec<(String, Vec<u8>)> {
    let fits = |name: &str| endings.iter().any(|ending| name.ends_with(ending));
    let all = kept().into_iter().filter(|(name, _, word)| word.is_none() && fits(name));
    all.map(|(name, bytes, _)| (name, bytes)).collect()
}

/// Reads a file by default.
fn read(place: &Place, name: &str, bytes: &[u8]) -> Result<ImageSet, String> {
    let path = place.path(name);
    fs::write(&path, bytes).unwrap();
    let tensor = name.contains("compressed.npz").then(|| "x".to_owned());
    let input = Input { tensor, ..Input::from_path(&path) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (found, held) = pool.install(|| peak(|| input.read()));
    // Only pictures may claim more than their file can hold.
    if !name.ends_with("png") {
        assert!(held <= 400 * bytes.len() + INFLATER + (1 << 20), "{name}: {held} bytes held");
    }
    found.map_err(|e| {
        is_clear(&e.to_string(), &path);
        e.to_string()
    })
}

#[test]
fn every_file_is_read_or_refused_as_it_should_be() {
    let place = Place::new();
    let (made, kept) = (all(), kept());
    assert!(kept.len() > 20 && made.len() > 80, "{} and {} files", kept.len(), made.len());
    for (name, bytes, word) in made.into_iter().chain(kept) {
        match (read(&place, &name, &bytes), word) {
            (Ok(set), None) => {
                if name.ends_with(".npy") {
                    has_the_values(&set, &bytes);
                }
            }
            (Err(said), Some(word)) => assert!(said.contains(word), "{name}: {said}"),
            (Ok(set), Some(_)) => panic!("{name} was read: {}", set.said()),
            (Err(said), None) => panic!("{name} was refused: {said}"),
        }
    }
}
