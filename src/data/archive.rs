//! Zip archives: entries that are stored or deflated, found by the directory at the end.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

use crate::store::quoted;

/// Signature and length of the fixed part of each record.
const END: (&[u8], usize) = (b"PK\x05\x06", 22);
const END64: (&[u8], usize) = (b"PK\x06\x06", 56);
const LOCATOR64: (&[u8], usize) = (b"PK\x06\x07", 20);
const ENTRY: (&[u8], usize) = (b"PK\x01\x02", 46);
const LOCAL: (&[u8], usize) = (b"PK\x03\x04", 30);
/// Longest comment after the end record.
const COMMENT: u64 = 0xffff;
/// Largest number of bytes that DEFLATE produces from one.
const MOST_INFLATION: u64 = 1032;
/// The known methods.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Where the bytes of an entry lie.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset of the local header.
    header: u64,
    /// Bytes in the file.
    packed: u64,
    deflated: bool,
    length: u64,
    crc: u32,
}

/// An open archive.
#[derive(Debug)]
pub struct Archive<R> {
    from: R,
    length: u64,
    entries: HashMap<String, Entry>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory.
    ///
    /// Every length in the file is compared with the length of the file before anything is allocated for it.
    ///
    /// # Errors
    /// A reason, for a file that is not a zip archive, is damaged, or has entries that are encrypted or compressed by
    /// another method than DEFLATE.
    pub fn open(mut from: R) -> Result<Self, String> {
        let length = from.seek(SeekFrom::End(0)).map_err(text)?;
        let mut archive = Self { from, length, entries: HashMap::new() };
        let (count, offset, size) = archive.directory()?;
        let directory = archive.take(offset, size)?;
        let mut rest = &directory[..];
        for _ in 0..count {
            rest = archive.entry(rest)?;
        }
        Ok(archive)
    }

    /// Names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of bytes of an entry; `None` for an unknown name.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.length)
    }

    /// The bytes of an entry of at most `most` bytes, verified by its checksum.
    ///
    /// # Errors
    /// A reason, for an unknown name, a longer entry, and damage.
    pub fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        let shown = quoted(name);
        let Entry { header, packed, deflated, length, crc } =
            *self.entries.get(name).ok_or_else(|| format!("has no entry {shown}"))?;
        if length > most {
            return Err(format!("entry {shown} has {length} bytes, expected at most {most}"));
        }
        if deflated && length > packed.saturating_mul(MOST_INFLATION) {
            return Err(format!("entry {shown} promises {length} bytes from {packed}"));
        }
        let local = self.take(header, LOCAL.1 as u64)?;
        if !local.starts_with(LOCAL.0) {
            return Err(format!("entry {shown} has no header at byte {header}"));
        }
        let skipped = LOCAL.1 as u64 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let mut bytes = self.take(header.saturating_add(skipped), packed)?;
        if deflated {
            // One byte more than promised shows that there is more.
            let mut inflated = Vec::new();
            let mut decoder = DeflateDecoder::new(&bytes[..]).take(length + 1);
            decoder.read_to_end(&mut inflated).map_err(|e| format!("entry {shown} is damaged: {e}"))?;
            if inflated.len() as u64 != length {
                return Err(format!("entry {shown} has other than the {length} bytes that it promises"));
            }
            bytes = inflated;
        }
        let mut sum = flate2::Crc::new();
        sum.update(&bytes);
        if sum.sum() != crc {
            return Err(format!("entry {shown} does not match its checksum"));
        }
        Ok(bytes)
    }

    /// Bytes of the file, refused before allocation where the file ends sooner.
    fn take(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(format!(
                "is damaged: {length} bytes at byte {offset} lie beyond the end at byte {}",
                self.length
            ));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(text)?];
        self.from.seek(SeekFrom::Start(offset)).map_err(text)?;
        self.from.read_exact(&mut bytes).map_err(text)?;
        Ok(bytes)
    }

    /// Number of entries, and offset and size of the directory.
    fn directory(&mut self) -> Result<(u64, u64, u64), String> {
        let missing = || "is not a zip archive".to_owned();
        let length = self.length.min(COMMENT + END.1 as u64);
        let start = self.length - length;
        let tail = self.take(start, length)?;
        let at = tail.windows(END.0.len()).rposition(|bytes| bytes == END.0).ok_or_else(missing)?;
        let end = tail.get(at..at + END.1).ok_or_else(missing)?;
        let short = (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 16)), u64::from(u32_at(end, 12)));
        let Some(locator) = (start + at as u64).checked_sub(LOCATOR64.1 as u64) else { return Ok(short) };
        let locator = self.take(locator, LOCATOR64.1 as u64)?;
        if !locator.starts_with(LOCATOR64.0) {
            return Ok(short);
        }
        let end = self.take(u64_at(&locator, 8), END64.1 as u64)?;
        if !end.starts_with(END64.0) {
            return Err("is damaged: the 64-bit end record is missing".into());
        }
        Ok((u64_at(&end, 32), u64_at(&end, 48), u64_at(&end, 40)))
    }

    /// Takes the first entry of what is left of the directory, and gives the rest.
    fn entry<'a>(&mut self, directory: &'a [u8]) -> Result<&'a [u8], String> {
        let cut = || "is damaged: its directory is truncated".to_owned();
        let (fixed, rest) = directory.split_at_checked(ENTRY.1).ok_or_else(cut)?;
        if !fixed.starts_with(ENTRY.0) {
            return Err("is damaged: its directory has an unknown record".into());
        }
        let (name, rest) = rest.split_at_checked(u16_at(fixed, 28).into()).ok_or_else(cut)?;
        let (extra, rest) = rest.split_at_checked(u16_at(fixed, 30).into()).ok_or_else(cut)?;
        let (_, rest) = rest.split_at_checked(u16_at(fixed, 32).into()).ok_or_else(cut)?;
        let name = str::from_utf8(name).map_err(|e| format!("an entry's name is not UTF-8: {e}"))?;
        let mut wide = wide_values(extra);
        let mut value = |short: u32| match short {
            u32::MAX => wide.next().ok_or_else(|| format!("entry {} has no 64-bit sizes", quoted(name))),
            short => Ok(u64::from(short)),
        };
        let length = value(u32_at(fixed, 24))?;
        let stored = value(u32_at(fixed, 20))?;
        let header = value(u32_at(fixed, 42))?;
        let deflated = match u16_at(fixed, 10) {
            _ if u16_at(fixed, 8) & 1 != 0 => Err("encrypted"),
            STORED if stored == length => Ok(false),
            DEFLATED => Ok(true),
            _ => Err(
                "compressed by another method than DEFLATE; pack the files again with DEFLATE or unpack them",
            ),
        };
        let deflated = deflated.map_err(|found| format!("entry {} is {found}", quoted(name)))?;
        let entry = Entry { header, packed: stored, deflated, length, crc: u32_at(fixed, 16) };
        if self.entries.insert(name.to_owned(), entry).is_some() {
            return Err(format!("entry {} occurs twice", quoted(name)));
        }
        Ok(rest)
    }
}

/// The values of the 64-bit extra field, in their order.
fn wide_values(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut values = Vec::new();
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((field, rest)) = rest.split_at_checked(u16_at(head, 2).into()) else { break };
        if u16_at(head, 0) == 1 {
            values = field.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        }
        extra = rest;
    }
    values.into_iter()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Little-endian values inside a record whose length is known.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
