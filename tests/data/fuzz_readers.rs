//! Fuzz targets of the readers: they never panic, never allocate more than their input justifies, and accept only arrays
//! that the bytes contain. `cargo test` runs them; `cargo bolero test` runs the same targets under a coverage-guided
//! engine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::path::Path;

use crate::pickled;
use bolero::check;
use flate2::Compression;
use flate2::write::GzEncoder;
use mem2gen::data::weights::Arrays;
use mem2gen::data::{Input, cifar, idx, pickle};
use ndarray::ArrayD;

thread_local! {
    /// Bytes that this thread holds, and the most it has held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(change: isize) {
    // The counter no longer exists while a thread ends; that is not measured.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + change, most.max(now + change)));
    });
}

// SAFETY: passes every call to the system's allocator, and counts the bytes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The largest number of bytes that `work` held beyond those held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = work();
    let most = HELD.with(|held| held.get().1);
    (result, (most - before).max(0) as usize)
}

/// Bytes allowed for error texts and tables of sizes.
const SMALL: usize = 4 << 10;
/// Bytes that the inflater holds besides its output.
pub const INFLATER: usize = 128 << 10;

fn path() -> &'static Path {
    Path::new("fuzzed")
}

/// An IDX file that is correct or nearly so: random bytes would hardly ever pass the magic number.
fn nearly(rank: u8, sizes: [u32; 4], huge: u8, body: &[u8]) -> Vec<u8> {
    let rank = rank % 6;
    let mut bytes = vec![0, 0, 8, rank];
    for (axis, size) in sizes.iter().cycle().take(rank.into()).enumerate() {
        let size = if huge >> axis & 1 == 1 { *size } else { size % 7 };
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

/// Cuts or fills the body so that it fits the header, if the header allows it.
fn fitted(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = 4 + 4 * usize::from(bytes[3]);
    let due = bytes[4..length]
        .chunks(4)
        .map(|s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]) as usize)
        .try_fold(1usize, |product, size| product.checked_mul(size))
        .filter(|&due| due < 1 << 16);
    if let Some(due) = due {
        bytes.resize(length + due, 1);
    }
    bytes
}

fn idx_is_safe(bytes: &[u8]) {
    let owned = bytes.to_vec();
    let (images, held) = peak(|| idx::read_images(path(), owned));
    assert!(held <= SMALL, "{held} bytes held for an input of {}", bytes.len());
    if let Ok(images) = images {
        let mut written = Vec::new();
        idx::write_images(&mut written, &images).unwrap();
        // Four axes with one channel are written back with three; the elements are the same.
        if bytes[3] == 3 || images.channels > 1 {
            assert_eq!(written, bytes);
        } else {
            assert_eq!(images.pixels, bytes[20..]);
        }
    }
    let owned = bytes.to_vec();
    let (labels, held) = peak(|| idx::read_labels(path(), owned, 10));
    assert!(held <= SMALL, "{held} bytes held for an input of {}", bytes.len());
    if let Ok(labels) = labels {
        assert!(labels.iter().all(|&label| label < 10));
        assert_eq!(labels, bytes[8..]);
    }
}

fn gzip_is_safe(bytes: &[u8]) {
    let (plain, held) = peak(|| idx::inflate(path(), bytes));
    // A buffer that grows by doubling holds up to three times its content while it moves.
    assert!(held <= 3 * 1032 * bytes.len() + INFLATER, "{held} bytes held for {}", bytes.len());
    if let Ok(plain) = plain {
        assert!(held <= 3 * plain.len() + INFLATER, "{held} bytes held for {} inflated", plain.len());
        idx_is_safe(&plain);
    }
}

#[test]
fn idx_of_raw_bytes() {
    check!().for_each(idx_is_safe);
}

#[test]
fn idx_of_nearly_correct_files() {
    check!().with_type::<(u8, [u32; 4], u8, Vec<u8>, bool)>().for_each(|(rank, sizes, huge, body, fit)| {
        let bytes = nearly(*rank, *sizes, *huge, body);
        idx_is_safe(&if *fit { fitted(bytes) } else { bytes });
    });
}

#[test]
fn gzip_of_raw_bytes() {
    check!().for_each(gzip_is_safe);
}

#[test]
fn gzip_of_nearly_correct_files() {
    type Input = (u8, [u32; 4], u8, Vec<u8>, bool, Option<(u16, u8)>);
    check!().with_type::<Input>().for_each(|(rank, sizes, huge, body, fit, damage)| {
        let plain = nearly(*rank, *sizes, *huge, body);
        let plain = if *fit { fitted(plain) } else { plain };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        let mut packed = encoder.finish().unwrap();
        if let Some((at, value)) = damage {
            let at = usize::from(*at) % packed.len();
            packed[at] = *value;
        } else if let Ok(inflated) = idx::inflate(path(), &packed) {
            assert_eq!(inflated, plain);
        }
        gzip_is_safe(&packed);
    });
}

fn cifar_is_safe(bytes: &[u8]) {
    let (batch, held) = peak(|| cifar::read_batch(path(), bytes));
    assert!(held <= bytes.len() + SMALL, "{held} bytes held for an input of {}", bytes.len());
    let whole = !bytes.is_empty() && bytes.len().is_multiple_of(cifar::RECORD);
    let labelled = bytes.iter().step_by(cifar::RECORD).all(|&label| label < 10);
    assert_eq!(batch.is_ok(), whole && labelled);
    if let Ok(batch) = batch {
        assert_eq!(batch.labels.len() * cifar::PIXELS, batch.pixels.len());
        assert_eq!(batch.labels.len() + batch.pixels.len(), bytes.len());
    }
}

#[test]
fn cifar_of_raw_bytes() {
    check!().for_each(cifar_is_safe);
}

#[test]
fn cifar_of_nearly_correct_files() {
    check!().with_type::<(u8, Vec<u8>, u8, i8)>().for_each(|(records, labels, value, odd)| {
        let mut bytes = vec![*value; usize::from(records % 5) * cifar::RECORD];
        for (record, label) in bytes.chunks_mut(cifar::RECORD).zip(labels) {
            record[0] = label % 11;
        }
        let length = bytes.len().saturating_add_signed(isize::from(odd / 100));
        bytes.resize(length, 0);
        cifar_is_safe(&bytes);
    });
}

fn pickle_is_safe(bytes: &[u8]) {
    let (arrays, held) = peak(|| pickle::read_arrays(path(), bytes));
    // A dictionary with one key takes five bytes in the file and some hundred in memory.
    assert!(held <= 400 * bytes.len() + SMALL, "{held} bytes held for an input of {}", bytes.len());
    for (name, array) in arrays.iter().flatten() {
        assert!(!name.is_empty() && array.len() * 4 <= bytes.len());
    }
}

#[test]
fn pickle_of_raw_bytes() {
    check!().for_each(pickle_is_safe);
}

#[test]
fn pickle_of_instructions() {
    // The known instructions, with short valid arguments.
    const CODES: [&[u8]; 28] = [
        b"}",
        b"(",
        b"u",
        b"s",
        b"t",
        b"\x85",
        b"\x87",
        b"R",
        b"b",
        b"N",
        b"\x88",
        b"\x89",
        b"K\0",
        b"K\x01",
        b"K\x03",
        b"J\xff\xff\xff\xff",
        b"M\0\x01",
        b"X\x01\0\0\0a",
        b"X\x02\0\0\0f4",
        b"X\x01\0\0\0<",
        b"C\x01b",
        b"B\x04\0\0\0\0\0\0\0",
        b"q\0",
        b"h\0",
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b".",
    ];
    check!().with_type::<Vec<u8>>().for_each(|codes| {
        let codes = codes.iter().map(|&code| CODES[usize::from(code) % CODES.len()]);
        pickle_is_safe(&[&b"\x80\x03"[..], &codes.collect::<Vec<_>>().concat(), b"."].concat());
    });
}

#[test]
fn pickle_of_nearly_correct_files() {
    type Input = (Vec<(u8, u8, u8)>, Option<(u16, u8)>, bool);
    check!().with_type::<Input>().for_each(|(arrays, damage, cut)| {
        let arrays: Arrays = arrays
            .iter()
            .map(|&(name, rows, columns)| {
                let shape = [usize::from(rows) * 3, usize::from(columns % 4)];
                (format!("{}.{}", name % 3, name), ArrayD::from_elem(&shape[..], 1.5))
            })
            .collect();
        let mut bytes = pickled::pickled(&arrays);
        match damage {
            Some((at, _)) if *cut => bytes.truncate(usize::from(*at) % bytes.len()),
            Some((at, value)) => {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
            }
            None => {
                let found = pickle::read_arrays(path(), &bytes).unwrap();
                assert!(
                    found
                        .iter()
                        .map(|(name, a)| (name, a.shape()))
                        .eq(arrays.iter().map(|(n, a)| (n, a.shape())))
                );
            }
        }
        pickle_is_safe(&bytes);
    });
}

/// What the readers of images may hold for one byte: a value of 8 bytes beside one of 4, or a picture of one colour.
const IMAGES: usize = 64;

fn input_is_safe(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let (found, held) = peak(|| Input::from_path(&path).read());
    if let Err(e) = &found {
        let said = e.to_string();
        let shown = said.replace(&*path.to_string_lossy(), "");
        assert!(shown.len() < 600 && !shown.contains(char::is_control), "{shown}");
    }
    if name.ends_with(".npy") {
        assert!(
            held <= IMAGES * bytes.len() + (64 << 10),
            "{held} bytes held for an input of {}",
            bytes.len()
        );
    }
}

/// Good files of every format, with bytes changed.
#[test]
fn images_with_changed_bytes() {
    let mut npy = Vec::new();
    ndarray_npy::WriteNpyExt::write_npy(&ndarray::Array4::<u8>::zeros((2, 4, 4, 3)), &mut npy).unwrap();
    let picture = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 9]))
            .write_to(&mut bytes, format)
            .unwrap();
        bytes.into_inner()
    };
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("x.npy".into(), npy.clone()),
        ("x.npz".into(), crate::checkpoint::Zip::new().entry("arr_0.npy", &npy, npy.len() as u32).finish()),
    ];
    for (name, format) in [
        ("x.png", image::ImageFormat::Png),
        ("x.jpg", image::ImageFormat::Jpeg),
        ("x.webp", image::ImageFormat::WebP),
        ("x.bmp", image::ImageFormat::Bmp),
        ("x.gif", image::ImageFormat::Gif),
        ("x.tif", image::ImageFormat::Tiff),
        ("x.ppm", image::ImageFormat::Pnm),
    ] {
        files.push((name.into(), picture(format)));
    }
    check!().with_type::<(u8, Vec<(u16, u8)>, Option<u16>)>().for_each(|(which, changes, cut)| {
        let (name, good) = &files[usize::from(*which) % files.len()];
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(usize::from(*cut) % bytes.len());
        }
        input_is_safe(name, &bytes);
    });
}

#[test]
fn images_of_raw_bytes() {
    const STARTS: [&[u8]; 9] = [
        b"",
        b"\x93NUMPY\x01\0",
        b"PK\x03\x04",
        b"PAR1",
        b"\x80\x02",
        b"\x1f\x8b",
        b"\0\0\x08\x03",
        b"\xff\xd8\xff",
        b"GIF89a",
    ];
    check!().with_type::<(u8, Vec<u8>)>().for_each(|(start, rest)| {
        input_is_safe("x", &[STARTS[usize::from(*start) % STARTS.len()], rest].concat());
    });
}

#[test]
fn the_counter_counts_allocations() {
    let (kept, held) = peak(|| {
        drop(vec![1u8; 1 << 20]);
        vec![1u8; 1 << 10]
    });
    assert!((1 << 20..1 << 21).contains(&held) && kept.len() == 1 << 10, "{held}");
}
