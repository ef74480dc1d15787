//! CIFAR10's binary batches.

use std::path::Path;

use mem2gen::data::DataError;
use mem2gen::data::cifar::{PIXELS, RECORD, read_batch};
use proptest::prelude::*;

fn path() -> &'static Path {
    Path::new("data_batch_1.bin")
}

/// The format as its authors write it: label, red plane, green plane, blue plane.
fn file(labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (&label, image) in labels.iter().zip(pixels.chunks(PIXELS)) {
        bytes.push(label);
        for channel in 0..3 {
            for pixel in 0..1024 {
                bytes.push(image[3 * pixel + channel]);
            }
        }
    }
    bytes
}

#[test]
fn planes_become_pixels() {
    let mut record = vec![7u8];
    record.extend([vec![10; 1024], vec![20; 1024], vec![30; 1024]].concat());
    record[1 + 33] = 11; // red of row 1, column 1
    record[1 + 2048 + 1023] = 31; // blue of the last pixel
    let batch = read_batch(path(), &record).unwrap();
    assert_eq!(batch.labels, [7]);
    assert_eq!(batch.pixels[..3], [10, 20, 30]);
    assert_eq!(batch.pixels[33 * 3..33 * 3 + 3], [11, 20, 30]);
    assert_eq!(batch.pixels[PIXELS - 3..], [10, 20, 31]);
}

#[test]
fn empty_files_part_records_and_labels_above_nine_are_refused() {
    assert!(matches!(read_batch(path(), &[]), Err(DataError::Empty { .. })));
    let message = read_batch(path(), &[0; 2 * RECORD - 1]).unwrap_err().to_string();
    assert_eq!(message, "read data_batch_1.bin: 6145 bytes, expected a multiple of 3073");
    let mut bytes = vec![0; 2 * RECORD];
    bytes[RECORD] = 10;
    assert!(matches!(read_batch(path(), &bytes), Err(DataError::Label { index: 1, label: 10, .. })));
}

fn any_batch() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (1usize..4).prop_flat_map(|count| {
        (prop::collection::vec(0u8..10, count), prop::collection::vec(any::<u8>(), count * PIXELS))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_batch_comes_back((labels, pixels) in any_batch()) {
        let batch = read_batch(path(), &file(&labels, &pixels)).unwrap();
        prop_assert_eq!(batch.labels, labels);
        prop_assert_eq!(batch.pixels, pixels);
    }

    /// The format has no header, so a file that is cut between two records is a valid shorter file.
    #[test]
    fn any_cut_and_any_tail_is_refused_or_whole(
        (labels, pixels) in any_batch(),
        at in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 1..RECORD),
    ) {
        let bytes = file(&labels, &pixels);
        let at = at.index(bytes.len());
        match read_batch(path(), &bytes[..at]) {
            Ok(batch) => prop_assert!(at % RECORD == 0 && batch.labels == labels[..at / RECORD]),
            Err(_) => prop_assert!(at == 0 || at % RECORD != 0),
        }
        prop_assert!(read_batch(path(), &[bytes, tail].concat()).is_err());
    }

    #[test]
    fn any_label_above_nine_is_refused((labels, pixels) in any_batch(), label in 10u8..) {
        let mut bytes = file(&labels, &pixels);
        let last = (labels.len() - 1) * RECORD;
        bytes[last] = label;
        prop_assert!(read_batch(path(), &bytes).is_err());
    }
}
