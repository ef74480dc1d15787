//! Targets of readers that take bytes: IDX, gzip, CIFAR10, pickles and checkpoints of PyTorch.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use mem2gen::data::weights::Arrays;
use mem2gen::data::{cifar, idx, pickle as pickles};
use ndarray::ArrayD;

use super::mutate::changed;
use super::{Case, INFLATER, INFLATION, SMALL, images, is_clear, peak};
use crate::{checkpoint as checkpoints, inputs, pickled};

fn path() -> &'static Path {
    Path::new("fuzzed.bin")
}

/// An IDX file that is correct or nearly so: random bytes would hardly ever pass the magic number.
fn nearly(case: &mut Case) -> Vec<u8> {
    let (rank, sizes, huge, body, fit) = case.value::<(u8, [u32; 4], u8, Vec<u8>, bool)>();
    let rank = rank % 6;
    let huge = if huge.is_multiple_of(4) { huge >> 2 } else { 0 };
    let mut bytes = vec![0, 0, 8, rank];
    for (axis, size) in sizes.iter().cycle().take(rank.into()).enumerate() {
        let size = if huge >> axis & 1 == 1 { *size } else { size % 7 };
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(body);
    if fit { fitted(bytes) } else { bytes }
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

pub fn idx_is_safe(bytes: &[u8]) -> bool {
    let owned = bytes.to_vec();
    let (found, held) = peak(|| idx::read_images(path(), owned));
    assert!(held <= SMALL, "{held} bytes held for an input of {}", bytes.len());
    let mut taken = found.is_ok();
    match found {
        Ok(images) => {
            let mut written = Vec::new();
            idx::write_images(&mut written, &images).unwrap();
            // Four axes with one channel are written back with three; the elements are the same.
            if bytes[3] == 3 || images.channels > 1 {
                assert_eq!(written, bytes);
            } else {
                assert_eq!(images.pixels, bytes[20..]);
            }
        }
        Err(e) => is_clear(&e.to_string(), path()),
    }
    let owned = bytes.to_vec();
    let (found, held) = peak(|| idx::read_labels(path(), owned, 10));
    assert!(held <= SMALL, "{held} bytes held for an input of {}", bytes.len());
    taken |= found.is_ok();
    match found {
        Ok(labels) => {
            assert!(labels.iter().all(|&label| label < 10));
            assert_eq!(labels, bytes[8..]);
        }
        Err(e) => is_clear(&e.to_string(), path()),
    }
    taken
}

pub fn gzip_is_safe(bytes: &[u8]) -> bool {
    let (found, held) = peak(|| idx::inflate(path(), bytes));
    // A buffer that grows by doubling holds up to three times its content while it moves.
    assert!(held <= 3 * INFLATION * bytes.len() + INFLATER, "{held} bytes held for {}", bytes.len());
    match found {
        Ok(plain) => {
            assert!(held <= 3 * plain.len() + INFLATER, "{held} bytes held for {} inflated", plain.len());
            idx_is_safe(&plain)
        }
        Err(e) => {
            is_clear(&e.to_string(), path());
            false
        }
    }
}

pub fn idx(case: &mut Case) -> bool {
    let bytes = if case.one_in(4) { case.bytes(60) } else { nearly(case) };
    case.note("x.idx", &bytes);
    idx_is_safe(&bytes)
}

pub fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub fn gzip(case: &mut Case) -> bool {
    let plain = nearly(case);
    let packed = gzipped(&plain);
    let bytes = match case.below(3) {
        0 => packed,
        1 => changed(case, &packed, &gzipped(b"other")),
        _ => case.bytes(100),
    };
    case.note("x.gz", &bytes);
    gzip_is_safe(&bytes)
}

pub fn cifar_is_safe(bytes: &[u8]) -> bool {
    let (batch, held) = peak(|| cifar::read_batch(path(), bytes));
    assert!(held <= bytes.len() + SMALL, "{held} bytes held for an input of {}", bytes.len());
    let whole = !bytes.is_empty() && bytes.len().is_multiple_of(cifar::RECORD);
    let labelled = bytes.iter().step_by(cifar::RECORD).all(|&label| label < 10);
    assert_eq!(batch.is_ok(), whole && labelled);
    match batch {
        Ok(batch) => {
            assert_eq!(cifar::records(&batch), bytes);
            true
        }
        Err(e) => {
            is_clear(&e.to_string(), path());
            false
        }
    }
}

fn pickled_cifar_is_safe(bytes: &[u8]) -> bool {
    let (batch, held) = peak(|| cifar::read_pickled(path(), bytes));
    assert!(held <= 500 * bytes.len() + SMALL, "{held} bytes held for an input of {}", bytes.len());
    match batch {
        Ok(batch) => {
            assert!(batch.labels.iter().all(|label| *label < 10));
            assert_eq!(batch.pixels.len(), batch.labels.len() * cifar::PIXELS);
            assert!(batch.pixels.len() <= bytes.len());
            true
        }
        Err(e) => {
            is_clear(&e.to_string(), path());
            false
        }
    }
}

pub fn cifar(case: &mut Case) -> bool {
    if case.one_in(2) {
        let good = inputs::pickled_cifar(&vec![case.byte(); 2 * cifar::PIXELS], &[3, 9]);
        let bytes = changed(case, &good, b"U\x04dataU\x06labels]q\x05(K\0K\x01eK\x02K\x0b");
        case.note("x.pkl", &bytes);
        return pickled_cifar_is_safe(&bytes);
    }
    let value = case.byte();
    let mut bytes = vec![value; case.below(5) * cifar::RECORD];
    for record in bytes.chunks_mut(cifar::RECORD) {
        record[0] = if case.one_in(12) { case.byte() } else { case.below(10) as u8 };
    }
    if case.one_in(4) {
        let length = (bytes.len() + case.below(3)).saturating_sub(1);
        bytes.resize(length, 0);
    }
    case.note("x.bin", &bytes);
    cifar_is_safe(&bytes)
}

pub fn pickle_is_safe(bytes: &[u8]) -> bool {
    let (arrays, held) = peak(|| pickles::read_arrays(path(), bytes));
    // A dictionary with one key takes five bytes in the file and some hundred in memory.
    assert!(held <= 400 * bytes.len() + SMALL, "{held} bytes held for an input of {}", bytes.len());
    match arrays {
        Ok(arrays) => {
            assert!(arrays.iter().all(|(name, array)| !name.is_empty() && array.len() * 4 <= bytes.len()));
            true
        }
        Err(e) => {
            is_clear(&e.to_string(), path());
            false
        }
    }
}

/// The known instructions, with short valid arguments.
const CODES: [&[u8]; 50] = [
    b"}",
    b"]",
    b"(",
    b")",
    b"u",
    b"s",
    b"a",
    b"e",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"R",
    b"\x81",
    b"\x93",
    b"\x94",
    b"b",
    b"Q",
    b"N",
    b"\x88",
    b"\x89",
    b"K\0",
    b"K\x01",
    b"K\x03",
    b"J\xff\xff\xff\xff",
    b"J\0\0\0\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"M\0\x01",
    b"X\x01\0\0\0a",
    b"X\x02\0\0\0f4",
    b"X\x02\0\0\0u1",
    b"X\x01\0\0\0<",
    b"X\x07\0\0\0storage",
    b"X\x05\0\0\0model",
    b"C\x01b",
    b"U\x01b",
    b"B\x04\0\0\0\0\0\0\0",
    b"q\0",
    b"q\x01",
    b"h\0",
    b"h\x01",
    b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nHalfStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n",
    b"cargparse\nNamespace\n",
    b".",
];

/// Random instructions.
fn instructions(case: &mut Case) -> Vec<u8> {
    let count = case.below(60);
    let mut code = b"\x80\x02".to_vec();
    for _ in 0..count {
        code.extend(case.of(&CODES));
    }
    code.push(b'.');
    code
}

pub fn pickle(case: &mut Case) -> bool {
    let bytes = match case.below(4) {
        0 => instructions(case),
        1 => case.bytes(200),
        _ => {
            let arrays: Arrays = case
                .value::<Vec<(u8, u8, u8)>>()
                .into_iter()
                .take(8)
                .map(|(name, rows, columns)| {
                    let shape = [usize::from(rows) * 3, usize::from(columns % 4)];
                    (format!("{}.{name}", name % 3), ArrayD::from_elem(&shape[..], 1.5))
                })
                .collect();
            let good = pickled::pickled(&arrays);
            if case.one_in(4) {
                let found = pickles::read_arrays(path(), &good).unwrap();
                let shapes = |arrays: &Arrays| -> Vec<(String, Vec<usize>)> {
                    arrays.iter().map(|(name, a)| (name.clone(), a.shape().to_vec())).collect()
                };
                assert_eq!(shapes(&found), shapes(&arrays));
                good
            } else {
                changed(case, &good, &images::arrays_pickled())
            }
        }
    };
    case.note("x.pkl", &bytes);
    pickle_is_safe(&bytes)
}

pub fn checkpoint() -> impl FnMut(&mut Case) -> bool + Send {
    let whole = checkpoints::golden();
    let tensor = checkpoints::tensor(b"K\x04", b"K\0", b"K\x02K\x02\x86", b"K\x02K\x01\x86");
    let small = checkpoints::in_model(&tensor);
    move |case| {
        let bytes = match case.below(6) {
            0 => changed(case, &whole, b"PK\x01\x02PK\x05\x06"),
            1 => checkpoints::pickled(&case.bytes(200)),
            2 | 3 => checkpoints::pickled(&instructions(case)),
            _ => checkpoints::pickled(&changed(case, &[&small[..], b"."].concat(), &tensor)),
        };
        case.note("x.pth", &bytes);
        checkpoints::is_safe(&bytes)
    }
}
