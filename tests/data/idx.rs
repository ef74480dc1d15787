//! IDX files: written files are read back, and other files are refused.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use mem2gen::data::DataError;
use mem2gen::data::idx::{Images, inflate, read_images, read_labels, write_images, write_labels};
use proptest::prelude::*;

fn path() -> &'static Path {
    Path::new("some/train-images")
}

/// An IDX file made by hand, not by the crate.
fn file(kind: u8, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, sizes.len() as u8];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(elements);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images(sizes: &[u32], elements: &[u8]) -> Result<Images, DataError> {
    read_images(path(), file(8, sizes, elements))
}

#[test]
fn a_file_made_by_hand_is_read() {
    let read = images(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).unwrap();
    assert_eq!((read.count, read.height, read.width, read.channels), (2, 2, 3, 1));
    assert_eq!(read.pixels, (1..=12).collect::<Vec<u8>>());

    let colour = images(&[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6]).unwrap();
    assert_eq!((colour.count, colour.height, colour.width, colour.channels), (1, 1, 2, 3));

    assert_eq!(read_labels(path(), file(8, &[3], &[9, 0, 5]), 10).unwrap(), [9, 0, 5]);
}

#[test]
fn bad_magic_is_refused() {
    let pixels = [0; 12];
    for kind in [0, 7, 9, 0x0b, 0x0d, 0xff] {
        let read = read_images(path(), file(kind, &[3, 2, 2], &pixels));
        assert!(matches!(read, Err(DataError::Magic { .. })), "{kind}: {read:?}");
    }
    let mut file_with_one = file(8, &[3, 2, 2], &pixels);
    file_with_one[1] = 1;
    assert!(matches!(read_images(path(), file_with_one), Err(DataError::Magic { found: 0x0001_0803, .. })));
    // Labels are not images, images are not labels, and files of two or five axes are refused.
    assert!(matches!(images(&[12], &pixels), Err(DataError::Magic { found: 0x801, .. })));
    assert!(matches!(images(&[3, 4], &pixels), Err(DataError::Magic { found: 0x802, .. })));
    assert!(matches!(images(&[3, 1, 1, 2, 2], &pixels), Err(DataError::Magic { found: 0x805, .. })));
    let read = read_labels(path(), file(8, &[3, 2, 2], &pixels), 10);
    assert!(matches!(read, Err(DataError::Magic { found: 0x803, .. })));
}

#[test]
fn lengths_must_be_those_of_the_header() {
    let message = images(&[3, 2, 2], &[0; 11]).unwrap_err().to_string();
    assert_eq!(message, "read some/train-images: truncated, 27 bytes, expected 28");
    let message = images(&[3, 2, 2], &[0; 13]).unwrap_err().to_string();
    assert_eq!(message, "read some/train-images: trailing bytes, 29 bytes, expected 28");
    let read = read_labels(path(), file(8, &[4], &[0; 3]), 10);
    assert!(matches!(read, Err(DataError::Truncated { expected: 12, found: 11, .. })));
    let read = read_labels(path(), file(8, &[2], &[0; 3]), 10);
    assert!(matches!(read, Err(DataError::Trailing { expected: 10, found: 11, .. })));
}

#[test]
fn truncated_headers_are_refused() {
    let whole = file(8, &[1, 1, 1], &[7]);
    for length in 1..4 {
        let read = read_images(path(), whole[..length].to_vec());
        assert!(matches!(read, Err(DataError::Truncated { expected: 4, .. })), "{length}: {read:?}");
    }
    for length in 4..16 {
        let read = read_images(path(), whole[..length].to_vec());
        assert!(matches!(read, Err(DataError::Truncated { expected: 16, .. })), "{length}: {read:?}");
    }
}

#[test]
fn wrong_sizes_are_refused_before_allocation() {
    let huge = u32::MAX;
    assert!(matches!(images(&[huge, huge, huge], &[0; 12]), Err(DataError::Overflow { .. })));
    assert!(matches!(images(&[huge, huge, 1, 1 << 1], &[0; 12]), Err(DataError::Overflow { .. })));
    // Fits 64 bits, but not the file.
    assert!(matches!(images(&[huge, huge, 1], &[0; 12]), Err(DataError::Truncated { found: 28, .. })));
    // 2^16 * 2^16 * 2^32 = 2^64 would wrap to 0 without a checked product.
    let wraps = images(&[1 << 16, 1 << 16, 1 << 31, 2], &[]);
    assert!(matches!(wraps, Err(DataError::Overflow { .. })), "{wraps:?}");
}

#[test]
fn empty_files_and_arrays_are_refused() {
    assert!(matches!(read_images(path(), vec![]), Err(DataError::Empty { .. })));
    assert!(matches!(read_labels(path(), vec![], 10), Err(DataError::Empty { .. })));
    for sizes in [[0, 28, 28], [1, 0, 28], [1, 28, 0]] {
        assert!(matches!(images(&sizes, &[]), Err(DataError::Empty { .. })));
    }
    assert!(matches!(read_labels(path(), file(8, &[0], &[]), 10), Err(DataError::Empty { .. })));
    assert!(matches!(inflate(path(), &gzip(&[])), Err(DataError::Empty { .. })));
}

#[test]
fn labels_out_of_range_are_named() {
    let message = read_labels(path(), file(8, &[3], &[9, 10, 11]), 10).unwrap_err().to_string();
    assert_eq!(message, "read some/train-images: label 10 at index 1, expected a label below 10");
}

#[test]
fn gzip_is_read_and_its_damage_is_found() {
    let plain = file(8, &[40, 5, 5], &(0..1000u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>());
    let packed = gzip(&plain);
    assert_eq!(inflate(path(), &packed).unwrap(), plain);

    for length in 0..packed.len() {
        assert!(inflate(path(), &packed[..length]).is_err(), "cut to {length} bytes");
    }
    let trailing = [&packed[..], b"x"].concat();
    assert!(matches!(inflate(path(), &trailing), Err(DataError::Trailing { .. })));
    let twice = [&packed[..], &packed[..]].concat();
    assert!(matches!(inflate(path(), &twice), Err(DataError::Trailing { .. })));

    // The last eight bytes are CRC and length.
    for position in packed.len() - 8..packed.len() {
        let mut damaged = packed.clone();
        damaged[position] ^= 1;
        let read = inflate(path(), &damaged);
        assert!(matches!(read, Err(DataError::Gzip { .. })), "byte {position}: {read:?}");
    }
}

#[test]
fn a_gzip_stream_with_a_wrong_or_huge_size_is_refused() {
    let short = gzip(&file(8, &[40, 5, 5], &[3; 999]));
    assert!(matches!(inflate(path(), &short), Err(DataError::Truncated { expected: 1016, found: 1015, .. })));
    let long = gzip(&file(8, &[40, 5, 5], &[3; 1001]));
    assert!(matches!(inflate(path(), &long), Err(DataError::Trailing { expected: 1016, found: 1017, .. })));
    // A bomb: the header states 100 bytes, and 64 MB follow.
    let bomb = gzip(&file(8, &[1, 10, 10], &vec![0; 64 << 20]));
    assert!(matches!(inflate(path(), &bomb), Err(DataError::Trailing { found: 117, .. })));
    // A header that states far more bytes than the few that follow can inflate to.
    let liar = gzip(&file(8, &[60_000, 28, 28], &[0; 100]));
    assert!(matches!(inflate(path(), &liar), Err(DataError::Inflation { promised: 47_040_016, .. })));
}

#[test]
fn a_writer_refuses_sizes_that_do_not_fit() {
    let images = Images { count: 2, height: 2, width: 2, channels: 1, pixels: vec![0; 7] };
    assert!(write_images(&mut Vec::new(), &images).is_err());
}

fn any_images() -> impl Strategy<Value = Images> {
    (1usize..6, 1usize..7, 1usize..7, 1usize..4).prop_flat_map(|(count, height, width, channels)| {
        prop::collection::vec(any::<u8>(), count * height * width * channels).prop_map(move |pixels| Images {
            count,
            height,
            width,
            channels,
            pixels,
        })
    })
}

fn written(images: &Images) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_images(&mut bytes, images).unwrap();
    bytes
}

proptest! {
    #[test]
    fn any_images_come_back(images in any_images()) {
        let bytes = written(&images);
        prop_assert_eq!(&read_images(path(), bytes.clone()).unwrap(), &images);
        prop_assert_eq!(&inflate(path(), &gzip(&bytes)).unwrap(), &bytes);
    }

    #[test]
    fn any_labels_come_back(labels in prop::collection::vec(0u8..10, 1..200)) {
        let mut bytes = Vec::new();
        write_labels(&mut bytes, &labels).unwrap();
        prop_assert_eq!(read_labels(path(), bytes, 10).unwrap(), labels);
    }

    #[test]
    fn any_cut_and_any_tail_is_refused(
        images in any_images(),
        at in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let bytes = written(&images);
        let cut = bytes[..at.index(bytes.len())].to_vec();
        prop_assert!(read_images(path(), cut).is_err());
        prop_assert!(read_images(path(), [bytes, tail].concat()).is_err());
    }

    /// A changed header is refused, or it describes the same bytes correctly.
    #[test]
    fn any_changed_header_byte_is_refused_or_obeyed(
        images in any_images(),
        position in 0usize..16,
        value in any::<u8>(),
    ) {
        let mut bytes = written(&images);
        prop_assume!(bytes[position] != value);
        bytes[position] = value;
        if let Ok(read) = read_images(path(), bytes.clone()) {
            prop_assert_eq!(written(&read), bytes);
        }
    }

    #[test]
    fn any_changed_byte_of_a_gzip_file_is_refused_or_harmless(
        images in any_images(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let bytes = written(&images);
        let mut packed = gzip(&bytes);
        let at = at.index(packed.len());
        packed[at] = value;
        // Some header bytes (time, system) carry no data.
        if let Ok(read) = inflate(path(), &packed) {
            prop_assert_eq!(read, bytes);
        }
    }
}
