//! Checkpoints of PyTorch: well-formed files, damaged files and hostile ones. No input makes the reader panic, execute
//! anything, or allocate more than the file's own length justifies.

use std::io::Cursor;
use std::path::Path;

use crate::fuzz::{INFLATER, SMALL, is_clear, peak};
use mem2gen::net::{Arch, Checkpoint, CheckpointPart, NetError, UnetSettings};
use mem2gen::shape::Shape;

pub fn golden() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint.pth")).unwrap()
}

/// The network of the golden checkpoint.
fn unet() -> (UnetSettings, Shape) {
    let input = Shape::image(8, 8, 1);
    let settings = UnetSettings {
        channels: 4,
        multipliers: vec![1, 1],
        blocks: 1,
        attention: vec![4],
        groups: Some(2),
        dropout: 0.1,
        patch: 1,
        condition: 0,
    };
    (settings, input)
}

fn read(bytes: &[u8]) -> Result<Checkpoint<Cursor<&[u8]>>, NetError> {
    Checkpoint::read(Path::new("file.pth"), Cursor::new(bytes))
}

/// Reads the whole file.
fn read_all(bytes: &[u8]) -> Result<(), NetError> {
    let mut checkpoint = read(bytes)?;
    let (settings, input) = unet();
    for part in [CheckpointPart::Model, CheckpointPart::Ema] {
        let weights = checkpoint.model(settings.clone(), input, part)?.weights;
        assert_eq!(weights.values().len(), Arch::Unet(settings.clone()).graph(input).unwrap().len());
    }
    Ok(())
}

/// Whether the file is accepted; memory and errors are checked.
pub fn is_safe(bytes: &[u8]) -> bool {
    let (result, held) = peak(|| read(bytes).map(|checkpoint| checkpoint.iterations()));
    // A directory entry of 46 bytes becomes a name and a record in a table; an instruction of one byte a value. A deflated
    // entry takes an inflater.
    assert!(
        held <= 500 * bytes.len() + SMALL + INFLATER,
        "{held} bytes held for an input of {}",
        bytes.len()
    );
    if let Err(e) = &result {
        is_clear(&e.to_string(), Path::new("file.pth"));
    }
    drop(read_all(bytes));
    result.is_ok()
}

/// A zip archive of stored entries.
pub struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Zip {
    pub fn new() -> Self {
        Self { bytes: vec![], directory: vec![], count: 0 }
    }

    /// Adds an entry whose directory record may claim another length.
    pub fn entry(mut self, name: &str, content: &[u8], claimed: u32) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let (at, crc, name_length) = (self.bytes.len() as u32, crc.sum().to_le_bytes(), name.len() as u16);
        let length = claimed.to_le_bytes();
        self.bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0");
        self.bytes.extend([&crc[..], &length, &length, &name_length.to_le_bytes(), &[0, 0]].concat());
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(content);
        self.directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0");
        self.directory.extend([&crc[..], &length, &length, &name_length.to_le_bytes()].concat());
        self.directory.extend([0; 12]);
        self.directory.extend(at.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count += 1;
        self
    }

    pub fn finish(self) -> Vec<u8> {
        let Self { mut bytes, directory, count } = self;
        let (at, size) = (bytes.len() as u32, directory.len() as u32);
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend([&count.to_le_bytes()[..], &count.to_le_bytes(), &size.to_le_bytes()].concat());
        bytes.extend([&at.to_le_bytes()[..], &[0, 0]].concat());
        bytes
    }
}

/// An archive with this pickle.
pub fn pickled(pickle: &[u8]) -> Vec<u8> {
    Zip::new().entry("a/data.pkl", pickle, pickle.len() as u32).finish()
}

/// The instructions for a tensor with elements of 4 bytes: number of elements of its storage, and sizes and strides as
/// tuples of instructions.
pub fn tensor(elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut code = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
    code.extend(b"X\x01\0\0\0\x30X\x03\0\0\0cpu");
    code.extend([elements, b"tQ", offset, shape, strides, b"\x89ccollections\nOrderedDict\n)RtR"].concat());
    code
}

pub fn in_model(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x05\0\0\0model}X\x01\0\0\0x", value, b"ss."].concat()
}

#[track_caller]
fn refuses(bytes: &[u8], word: &str) {
    is_safe(bytes);
    let error = read(bytes).map(drop).expect_err("the file was accepted").to_string();
    assert!(error.contains(word), "no {word:?} in: {error}");
}

#[test]
fn a_golden_file_is_read_completely() {
    let whole = golden();
    read_all(&whole).unwrap();
    let checkpoint = read(&whole).unwrap();
    assert_eq!((checkpoint.iterations(), checkpoint.channels()), (Some(400_000), Some(4)));
}

#[test]
fn truncated_files_are_refused() {
    let whole = golden();
    for length in (0..whole.len()).step_by(97).chain(whole.len() - 30..whole.len()) {
        assert!(read_all(&whole[..length]).is_err(), "{length} of {}", whole.len());
    }
}

#[test]
fn a_changed_byte_is_refused_or_does_not_matter() {
    let whole = golden();
    for at in (0..whole.len()).step_by(53) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        drop(read_all(&bytes));
    }
    // Within the values of a storage the checksum finds the change.
    let place = whole.windows(6).position(|bytes| bytes == b"data/1").unwrap();
    let start = (place + 64 + 6) & !63;
    let mut bytes = whole;
    bytes[start + 4] ^= 1;
    assert!(read_all(&bytes).is_err());
}

#[test]
fn files_that_are_not_archives_are_refused() {
    refuses(b"", "is not a zip archive");
    refuses(&[0x80, 2, 0x8a, 10], "is not a zip archive");
    refuses(&Zip::new().finish(), "data.pkl");
    refuses(&Zip::new().entry("a/data.pkl", b"}.", 2).entry("b/data.pkl", b"}.", 2).finish(), "exactly one");
    refuses(&Zip::new().entry("a/data.pkl", b"}.", 2).entry("a/data.pkl", b"}.", 2).finish(), "twice");
    refuses(&Zip::new().entry("a/data.pkl", b"}.", u32::MAX - 1).finish(), "expected at most 67108864");
    refuses(&Zip::new().entry("a/data.pkl", b"}.", 1 << 20).finish(), "beyond the end");
    refuses(&Zip::new().entry("a/data.pkl", b"}.", u32::MAX).finish(), "64-bit");
    let big = Zip::new().entry("a/data.pkl", b"}.", 2).entry("a/byteorder", b"big", 3);
    refuses(&big.finish(), "big-endian");
    let mut many = pickled(b"}.");
    let end = many.len() - 12;
    many[end..end + 2].copy_from_slice(&u16::MAX.to_le_bytes());
    refuses(&many, "directory is truncated");
    let mut packed = pickled(b"}.");
    let record = packed.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    packed[record + 10] = 8;
    refuses(&packed, "is damaged");
}

#[test]
fn pickles_that_do_more_than_tensors_are_refused() {
    refuses(&pickled(b"cos\nsystem\n(X\x02\0\0\0lstR."), "global 'os system' is not allowed");
    refuses(&pickled(b"cbuiltins\neval\n."), "global 'builtins eval' is not allowed");
    refuses(&pickled(b"\x80\x04\x8c\x02os\x8c\x06system\x93."), "global 'os system' is not allowed");
    refuses(&pickled(b"ios\nsystem\n."), "instruction 'i' is not allowed");
    refuses(&pickled(b"\x80\x02}"), "truncated");
    refuses(&pickled(b"\x80\x07}."), "protocol 7");
    refuses(&pickled(b"]."), "expected one dictionary");
    refuses(&pickled(b"}.}."), "bytes follow the end");
    refuses(&pickled(b"t."), "there is no mark");
    refuses(&pickled(b"(\x85."), "too few values");
    refuses(&pickled(b"h\x07."), "the memo has no value 7");
    refuses(&pickled(b"X\xff\xff\xff\xffabc."), "truncated");
    refuses(&pickled(b"\x8a\xff"), "truncated");
    refuses(&pickled(b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01."), "an integer of 9 bytes");
    refuses(&pickled(b"K\x01K\x02R."), "the arguments of a call are an integer");
    refuses(&pickled(b"K\x01)R."), "an integer is called");
    refuses(&pickled(b"K\x01K\x02b."), "an integer is given attributes");
    refuses(&pickled(b"}X\x05\0\0\0model]s."), "\"model\" is a list");
    refuses(&pickled(b"}X\x01\0\0\0aNsX\x01\0\0\0aNs."), "key 'a' occurs twice");
    let deep = [&b")"[..], &[0x85; 100_000], b"."].concat();
    refuses(&pickled(&deep), "nested more than");
    let deep = [&b"}X\x01\0\0\0a".repeat(100_000)[..], b"N", &b"s".repeat(100_000), b"."].concat();
    refuses(&pickled(&deep), "nested more than");
}

#[test]
fn tensors_outside_of_their_storage_are_refused() {
    let refused = |code: Vec<u8>, word: &str| refuses(&pickled(&in_model(&code)), word);
    refused(tensor(b"K\x04", b"K\0", b"K\x05\x85", b"K\x01\x85"), "does not fit its storage of 4");
    refused(tensor(b"K\x04", b"K\x01", b"K\x04\x85", b"K\x01\x85"), "does not fit its storage of 4");
    refused(tensor(b"K\x04", b"K\0", b"K\x02\x85", b"K\x01K\x01\x86"), "1 sizes and 2 strides");
    refused(tensor(b"K\x04", b"K\0", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "a size or stride is -1");
    refused(tensor(b"J\xff\xff\xff\xff", b"K\0", b")", b")"), "a size or stride is -1");
    let most = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let two = [&most[..], &most[..], b"\x86"].concat();
    refused(tensor(b"K\x04", b"K\0", &two, &two), "does not fit its storage of 4");
    let nine = [&b"("[..], &b"K\x01".repeat(9), b"t"].concat();
    refused(tensor(b"K\x04", b"K\0", &nine, &nine), "9 axes");
    refused(
        [
            tensor(b"K\x04", b"K\0", b")", b")"),
            b"sX\x08\0\0\0module.x".to_vec(),
            tensor(b"K\x04", b"K\0", b")", b")"),
        ]
        .concat(),
        "x twice",
    );
}

#[test]
fn storages_that_are_missing_or_too_short_are_refused() {
    let whole = golden();
    let rename = |from: &[u8], to: &[u8]| {
        let mut bytes = whole.clone();
        for at in 0..bytes.len() - from.len() {
            if bytes[at..].starts_with(from) && bytes[at + from.len()] == b'P' {
                bytes[at..at + from.len()].copy_from_slice(to);
            }
        }
        bytes
    };
    let error = read_all(&rename(b"checkpoint/data/12", b"checkpoint/gone/12")).unwrap_err().to_string();
    assert!(error.contains("has no entry 'checkpoint/data/12'"), "{error}");

    // The file claims four million elements for a storage of four bytes; the parameter's shape is right.
    let (settings, input) = unet();
    let huge = tensor(b"J\0\0\x40\0", b"K\0", b"K\x10K\x04\x86", b"K\x04K\x01\x86");
    let mut code = b"\x80\x02}X\x05\0\0\0model}".to_vec();
    code.extend([b"X\x14\0\0\0all_modules.0.weight", &huge[..], b"ss."].concat());
    let bytes =
        Zip::new().entry("a/data.pkl", &code, code.len() as u32).entry("a/data/0", b"abcd", 4).finish();
    is_safe(&bytes);
    let mut checkpoint = read(&bytes).unwrap();
    assert_eq!(checkpoint.channels(), Some(4));
    let error = checkpoint.model(settings, input, CheckpointPart::Model).unwrap_err().to_string();
    assert!(error.contains("missing all_modules."), "{error}");
}
