//! Checks of a parquet file before polars reads it.
//!
//! polars reserves memory for as many values and elements as a file claims, and a damaged number would end the process. So
//! every length in the metadata is compared with the bytes that are left, and the number of values of every page with that
//! of its column.

/// What a file ends with, after the length of its metadata.
const MAGIC: &[u8] = b"PAR1";
/// Largest number of values for one byte of a file. Equal values take hardly any bytes, and writers begin a new page after
/// some ten thousand of them.
const MOST: u64 = 1 << 16;
/// Deepest nesting of structures.
const DEEPEST: usize = 16;

/// Checks that all lengths in the metadata fit the file.
///
/// # Errors
/// A reason, for another format and damage.
pub(super) fn check_metadata(bytes: &[u8]) -> Result<(), String> {
    let (rest, magic) = bytes.split_last_chunk::<4>().ok_or("is not a parquet file")?;
    if magic != MAGIC {
        return Err("is not a parquet file, or is cut short".into());
    }
    let (rest, length) = rest.split_last_chunk::<4>().ok_or("is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or("is damaged: its metadata are longer than the file")?;
    let mut thrift = Thrift { rest: &rest[start..] };
    thrift.structure(0, 0, &mut |_, _, _| {}).ok_or_else(|| "is damaged in its metadata".to_owned())
}

/// Checks the pages of a column chunk, which has `values` values in a file of `length` bytes.
///
/// # Errors
/// A reason, for damage.
pub(super) fn check_chunk(chunk: Option<&[u8]>, values: i64, length: usize) -> Result<(), String> {
    let damaged = || "is damaged in its pages; copy or write the file again".to_owned();
    let (mut rest, values) = (chunk.ok_or_else(damaged)?, u64::try_from(values).map_err(|_| damaged())?);
    if values > MOST.saturating_mul(length as u64) {
        return Err(format!("claims {values} values in a column, which {length} bytes can't hold"));
    }
    let mut found = 0u64;
    while found < values {
        let mut page = Page::default();
        let mut thrift = Thrift { rest };
        let read = thrift.structure(0, 0, &mut |above, field, value| page.set(above, field, value));
        let body = usize::try_from(page.compressed).map_err(|_| damaged())?;
        rest = read.and_then(|()| thrift.rest.get(body..)).ok_or_else(damaged)?;
        if page.negative || page.entries > page.plain.saturating_mul(8) {
            return Err(damaged());
        }
        found = found.saturating_add(page.values);
    }
    if found == values { Ok(()) } else { Err(damaged()) }
}

/// The numbers in the header of a page.
#[derive(Default)]
struct Page {
    /// Bytes of its body.
    compressed: u64,
    /// Bytes of its body after decompression.
    plain: u64,
    /// Number of values; 0 for a dictionary.
    values: u64,
    /// Number of entries of a dictionary.
    entries: u64,
    /// Whether a length or number is below 0.
    negative: bool,
}

impl Page {
    /// Takes a field of the header, `above` 0, or of the structure `above` in it.
    fn set(&mut self, above: i64, field: i64, value: i64) {
        let place = match (above, field) {
            (0, 2) => &mut self.plain,
            (0, 3) => &mut self.compressed,
            (5 | 8, 1) => &mut self.values,
            (7, 1) => &mut self.entries,
            // A checksum has any sign.
            (0, 4) => return,
            _ => {
                self.negative |= value < 0;
                return;
            }
        };
        self.negative |= value < 0;
        *place = u64::try_from(value).unwrap_or(0);
    }
}

/// Reads Thrift's compact protocol from the front of bytes; every method gives `None` for damage.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn skip(&mut self, length: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(length).ok()?..)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads a structure, which is the field `above` of another; `found` gets each integer with its field.
    fn structure(&mut self, depth: usize, above: i64, found: &mut dyn FnMut(i64, i64, i64)) -> Option<()> {
        let mut field = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.signed()?,
                step => field.checked_add(step.into())?,
            };
            // The value of a truth value is its type.
            if !matches!(head & 15, 1 | 2) {
                self.value(head & 15, depth, (above, field), found)?;
            }
        }
    }

    fn value(
        &mut self,
        kind: u8,
        depth: usize,
        (above, field): (i64, i64),
        found: &mut dyn FnMut(i64, i64, i64),
    ) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                found(above, field, self.signed()?);
                Some(())
            }
            7 => self.skip(8),
            8 => {
                let length = self.unsigned()?;
                self.skip(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.unsigned()?,
                    count => count.into(),
                };
                // Each element takes a byte or more.
                if count > self.rest.len() as u64 {
                    return None;
                }
                (0..count).try_for_each(|_| self.value(head & 15, depth + 1, (-1, -1), &mut |_, _, _| {}))
            }
            12 => self.structure(depth + 1, field, found),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of a data page with these numbers, in fields 2, 3 and 5, and a body of zeros.
    fn page(plain: i64, compressed: i64, values: i64, body: usize) -> Vec<u8> {
        let number = |v: i64| {
            let mut v = (v << 1 ^ v >> 63) as u64;
            let mut bytes = vec![];
            while v > 0x7f {
                bytes.push(v as u8 | 0x80);
                v >>= 7;
            }
            bytes.push(v as u8);
            bytes
        };
        let fields = [&[0x15, 0][..], &[0x15], &number(plain), &[0x15], &number(compressed), &[0x2c, 0x15]];
        [&fields.concat()[..], &number(values), &[0, 0], &vec![0; body]].concat()
    }

    #[test]
    fn pages_have_the_values_of_their_column() {
        let two = [page(40, 30, 7, 30), page(40, 30, 5, 30)].concat();
        assert_eq!(check_chunk(Some(&two), 12, 1000), Ok(()));
        for values in [11, 13, 0x7fff_ffff, -1] {
            assert!(check_chunk(Some(&two), values, 1000).is_err(), "{values}");
        }
        for wrong in [page(40, 30, -5, 30), page(40, -1, 5, 30), page(-1, 30, 5, 30), page(40, 30, 5, 29)] {
            assert!(check_chunk(Some(&wrong), 5, 1000).is_err());
        }
        assert!(check_chunk(None, 5, 1000).is_err());
        assert!(
            check_chunk(Some(&page(40, 30, 1 << 30, 30)), 1 << 30, 1000).unwrap_err().contains("can't hold")
        );
    }

    #[test]
    fn lengths_in_the_metadata_fit_the_file() {
        let file = |footer: &[u8]| [b"PAR1", footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
        // A number, a list of two texts, a structure.
        let good = [0x15, 2, 0x19, 0x28, 1, b'a', 1, b'b', 0x1c, 0x11, 0, 0];
        assert_eq!(check_metadata(&file(&good)), Ok(()));
        for (at, value) in [(3, 0xf8), (4, 90), (2, 0x1d), (11, 0x15)] {
            let mut bad = good;
            bad[at] = value;
            assert!(check_metadata(&file(&bad)).unwrap_err().contains("damaged"), "{at}");
        }
        let deep = [&[0x1c; 40][..], &[0; 41]].concat();
        assert!(check_metadata(&file(&deep)).is_err());
        for cut in 0..12 {
            assert!(check_metadata(&file(&good)[..cut]).is_err());
        }
        assert!(check_metadata(b"\xff\xff\xff\xffPAR1").unwrap_err().contains("longer than the file"));
    }
}
