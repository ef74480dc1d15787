//! The `.npy` format: a header of a bounded grammar, and its elements in C order.
//!
//! The header is a Python dictionary of three known keys. It is read without recursion, and its sizes are compared with the
//! length of the file before memory is allocated.

use half::f16;
use ndarray::{ArrayView, IxDyn, ShapeBuilder};

use super::quoted;

/// What a file starts with.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Largest number of bytes of a header.
const LONGEST: usize = 1 << 16;
/// Largest number of axes, as in numpy.
const AXES: usize = 32;

/// Element type of an array, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false in one byte.
    Bool,
    /// Unsigned integers of 1, 2, 4 or 8 bytes.
    Unsigned(u8),
    /// Signed integers of 1, 2, 4 or 8 bytes.
    Signed(u8),
    /// IEEE floating-point numbers of 2, 4 or 8 bytes.
    Float(u8),
    /// bfloat16.
    Bfloat,
}

impl Kind {
    /// Number of bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Bfloat => 2,
            Self::Unsigned(size) | Self::Signed(size) | Self::Float(size) => size.into(),
        }
    }

    /// The type's name in numpy.
    pub fn name(self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::Bfloat => "bfloat16".to_owned(),
            Self::Unsigned(size) => format!("uint{}", 8 * u32::from(size)),
            Self::Signed(size) => format!("int{}", 8 * u32::from(size)),
            Self::Float(size) => format!("float{}", 8 * u32::from(size)),
        }
    }

    /// The type of a description such as `f4`.
    ///
    /// # Errors
    /// A reason that quotes the description.
    pub fn from_code(text: &str) -> Result<Self, String> {
        let size = |sizes: &[&str]| sizes.contains(&&text[1..]).then(|| text.as_bytes()[1] - b'0');
        let known = match text.as_bytes().first() {
            Some(b'b') => size(&["1"]).map(|_| Self::Bool),
            Some(b'u') => size(&["1", "2", "4", "8"]).map(Self::Unsigned),
            Some(b'i') => size(&["1", "2", "4", "8"]).map(Self::Signed),
            Some(b'f') => size(&["2", "4", "8"]).map(Self::Float),
            _ => None,
        };
        known.ok_or_else(|| {
            format!(
                "the element type is {}, expected bool, integers of 8 to 64 bits, or float16, float32 or float64",
                quoted(text)
            )
        })
    }
}

/// Type, order and sizes of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub kind: Kind,
    /// Whether the elements are big-endian.
    pub big: bool,
    /// Whether the first index changes fastest.
    pub fortran: bool,
    /// Sizes of the axes.
    pub sizes: Vec<usize>,
}

/// Elements in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// uint8.
    Bytes(Vec<u8>),
    /// float32, and every type that has no more digits.
    F32(Vec<f32>),
    /// float64, and integers of 32 and 64 bits.
    F64(Vec<f64>),
}

impl Elements {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }
}

/// An array of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Element type in the file.
    pub kind: Kind,
    /// Sizes of the axes.
    pub sizes: Vec<usize>,
    /// Elements in C order.
    pub elements: Elements,
}

impl Header {
    /// Number of bytes of the elements.
    ///
    /// # Errors
    /// A reason, when the product overflows.
    pub fn bytes(&self) -> Result<usize, String> {
        let product =
            self.sizes.iter().try_fold(self.kind.size(), |product, size| product.checked_mul(*size));
        product.filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or_else(|| {
            "its header declares more elements than memory can hold; write the file again".to_owned()
        })
    }

    /// The elements in `bytes`, which hold nothing else.
    ///
    /// # Errors
    /// A reason, for another number of bytes than the header gives.
    pub fn read(self, bytes: Vec<u8>) -> Result<Array, String> {
        let (due, found) = (self.bytes()?, bytes.len());
        if found < due {
            return Err(format!(
                "{} bytes are missing at the end; copy or write the file again",
                due - found
            ));
        }
        if found > due {
            return Err(format!(
                "{} bytes are left over at the end; copy or write the file again",
                found - due
            ));
        }
        let elements = match (self.kind, self.big) {
            (Kind::Unsigned(1), _) => Elements::Bytes(bytes),
            // What is not 0 is true, as in numpy.
            (Kind::Bool, _) => Elements::Bytes(bytes.into_iter().map(|v| u8::from(v != 0)).collect()),
            (Kind::Signed(1), _) => Elements::F32(bytes.into_iter().map(|v| f32::from(v as i8)).collect()),
            (Kind::Bfloat, _) => Elements::F32(each(&bytes, self.big, |v| {
                f32::from_bits(u32::from(u16::from_le_bytes(v)) << 16)
            })),
            (Kind::Unsigned(2), big) => {
                Elements::F32(each(&bytes, big, |v| f32::from(u16::from_le_bytes(v))))
            }
            (Kind::Signed(2), big) => Elements::F32(each(&bytes, big, |v| f32::from(i16::from_le_bytes(v)))),
            (Kind::Float(2), big) => Elements::F32(each(&bytes, big, |v| f16::from_le_bytes(v).to_f32())),
            (Kind::Float(4), big) => Elements::F32(each(&bytes, big, f32::from_le_bytes)),
            (Kind::Float(_), big) => Elements::F64(each(&bytes, big, f64::from_le_bytes)),
            (Kind::Unsigned(4), big) => {
                Elements::F64(each(&bytes, big, |v| f64::from(u32::from_le_bytes(v))))
            }
            (Kind::Signed(4), big) => Elements::F64(each(&bytes, big, |v| f64::from(i32::from_le_bytes(v)))),
            (Kind::Unsigned(_), big) => Elements::F64(each(&bytes, big, |v| u64::from_le_bytes(v) as f64)),
            (Kind::Signed(_), big) => Elements::F64(each(&bytes, big, |v| i64::from_le_bytes(v) as f64)),
        };
        let elements = if self.fortran && self.sizes.len() > 1 {
            match elements {
                Elements::Bytes(values) => Elements::Bytes(c_order(&self.sizes, &values)?),
                Elements::F32(values) => Elements::F32(c_order(&self.sizes, &values)?),
                Elements::F64(values) => Elements::F64(c_order(&self.sizes, &values)?),
            }
        } else {
            elements
        };
        Ok(Array { kind: self.kind, sizes: self.sizes, elements })
    }
}

/// The elements of `N` bytes each.
fn each<T, const N: usize>(bytes: &[u8], big: bool, value: impl Fn([u8; N]) -> T) -> Vec<T> {
    let turned = |mut bytes: [u8; N]| {
        if big {
            bytes.reverse();
        }
        value(bytes)
    };
    bytes.as_chunks().0.iter().map(|bytes| turned(*bytes)).collect()
}

fn c_order<T: Copy>(sizes: &[usize], values: &[T]) -> Result<Vec<T>, String> {
    let view = ArrayView::from_shape(IxDyn(sizes).f(), values).map_err(|e| e.to_string())?;
    Ok(view.iter().copied().collect())
}

/// The array in the bytes of a file.
///
/// # Errors
/// A reason, for another format or element type, a damaged header, and another length than it gives.
pub fn read(mut bytes: Vec<u8>) -> Result<Array, String> {
    let (header, start) = header(&bytes)?;
    bytes.drain(..start);
    header.read(bytes)
}

/// The header at the start of `bytes`, and its length.
///
/// # Errors
/// A reason, for another format or element type, and a damaged header.
pub fn header(bytes: &[u8]) -> Result<(Header, usize), String> {
    let cut = || "truncated in the header; copy or write the file again".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file, expected it to start with \\x93NUMPY")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version {
        [1, 0] => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        [2 | 3, 0] => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        [major, minor] => return Err(format!("version {major}.{minor} of .npy, expected 1.0, 2.0 or 3.0")),
    };
    if length > LONGEST {
        return Err(format!("its header has {length} bytes, expected at most {LONGEST}"));
    }
    let text = rest.get(..length).ok_or_else(cut)?;
    let text = str::from_utf8(text).map_err(|_| "its header is not text; write the file again")?;
    let header = Parser { rest: text }.dictionary()?;
    Ok((header, bytes.len() - rest.len() + length))
}

/// Reads the dictionary of a header from left to right.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn damaged(&self) -> String {
        format!("its header is damaged at {}; write the file again", quoted(self.rest))
    }

    /// Takes `token` where it comes next.
    fn takes(&mut self, token: char) -> bool {
        let rest = self.rest.trim_start();
        let taken = rest.strip_prefix(token);
        self.rest = taken.unwrap_or(rest);
        taken.is_some()
    }

    fn needs(&mut self, token: char) -> Result<(), String> {
        if self.takes(token) { Ok(()) } else { Err(self.damaged()) }
    }

    /// A text in quotes.
    fn text(&mut self) -> Result<&'a str, String> {
        let quote = if self.takes('\'') {
            '\''
        } else {
            self.needs('"')?;
            '"'
        };
        let (text, rest) = self.rest.split_once(quote).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(text)
    }

    /// Characters up to one that is not a letter or digit.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn sizes(&mut self) -> Result<Vec<usize>, String> {
        self.needs('(')?;
        let mut sizes = Vec::new();
        while !self.takes(')') {
            let word = self.word();
            // Python 2 writes long integers with an L.
            let size = word.strip_suffix('L').unwrap_or(word).parse().map_err(|_| self.damaged())?;
            sizes.push(size);
            if sizes.len() > AXES {
                return Err(format!("it has more than {AXES} axes"));
            }
            if !self.takes(',') {
                self.needs(')')?;
                break;
            }
        }
        Ok(sizes)
    }

    fn dictionary(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran, mut sizes) = (None, None, None);
        self.needs('{')?;
        while !self.takes('}') {
            let key = self.text()?;
            self.needs(':')?;
            match key {
                "descr" if self.rest.trim_start().starts_with('[') => {
                    return Err("its elements are records of several fields, expected numbers".into());
                }
                "descr" => descr = Some(self.text()?),
                "fortran_order" => {
                    fortran = Some(match self.word() {
                        "True" => true,
                        "False" => false,
                        _ => return Err(self.damaged()),
                    });
                }
                "shape" => sizes = Some(self.sizes()?),
                _ => return Err(format!("its header has an unknown key {}", quoted(key))),
            }
            if !self.takes(',') {
                self.needs('}')?;
                break;
            }
        }
        if !self.rest.trim_start().is_empty() {
            return Err(self.damaged());
        }
        let (Some(descr), Some(fortran), Some(sizes)) = (descr, fortran, sizes) else {
            return Err("its header lacks descr, fortran_order or shape; write the file again".into());
        };
        let (big, name) = match descr.split_at_checked(1) {
            Some((">", name)) => (true, name),
            Some(("<" | "|" | "=", name)) => (false, name),
            _ => (false, descr),
        };
        Ok(Header { kind: Kind::from_code(name)?, big, fortran, sizes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dict: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[1, 0], &(dict.len() as u16).to_le_bytes()].concat();
        bytes.extend(dict.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn dict(descr: &str, fortran: bool, shape: &str) -> String {
        let fortran = if fortran { "True" } else { "False" };
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n")
    }

    fn values(array: &Array) -> Vec<f64> {
        match &array.elements {
            Elements::Bytes(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Elements::F32(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Elements::F64(v) => v.clone(),
        }
    }

    /// 3, 1 and 200, or their like in the type, as Python's struct module packs them.
    #[test]
    fn every_type_is_read_in_both_byte_orders() {
        let three = |little: &[&[u8]]| little.concat();
        for (descr, due, bytes) in [
            ("|b1", [1.0, 0.0], three(&[&[1], &[0]])),
            ("|u1", [3.0, 200.0], three(&[&[3], &[200]])),
            ("|i1", [3.0, -56.0], three(&[&[3], &[200]])),
            ("<u2", [3.0, 40000.0], three(&[&[3, 0], &[0x40, 0x9c]])),
            ("<i2", [3.0, -25536.0], three(&[&[3, 0], &[0x40, 0x9c]])),
            ("<u4", [3.0, 4294967295.0], three(&[&[3, 0, 0, 0], &[255; 4]])),
            ("<i4", [3.0, -1.0], three(&[&[3, 0, 0, 0], &[255; 4]])),
            ("<i8", [3.0, -1.0], three(&[&[3, 0, 0, 0, 0, 0, 0, 0], &[255; 8]])),
            ("<f2", [1.5, -2.0], three(&[&[0, 0x3e], &[0, 0xc0]])),
            ("<f4", [1.5, -2.0], three(&[&1.5f32.to_le_bytes(), &(-2.0f32).to_le_bytes()])),
            ("<f8", [1.5, -2.0], three(&[&1.5f64.to_le_bytes(), &(-2.0f64).to_le_bytes()])),
        ] {
            let found = read(file(&dict(descr, false, "(2,)"), &bytes)).unwrap();
            assert_eq!((values(&found), found.sizes.clone()), (due.to_vec(), vec![2]), "{descr}");
            let size = found.kind.size();
            let turned: Vec<u8> = bytes.chunks(size).flat_map(|v| v.iter().rev()).copied().collect();
            let big = read(file(&dict(&descr.replace('<', ">"), false, "(2,)"), &turned)).unwrap();
            assert_eq!(values(&big), due, "{descr}");
        }
    }

    #[test]
    fn fortran_order_becomes_c_order() {
        let found = read(file(&dict("|u1", true, "(2, 3)"), &[1, 4, 2, 5, 3, 6])).unwrap();
        assert_eq!((found.elements, found.sizes), (Elements::Bytes(vec![1, 2, 3, 4, 5, 6]), vec![2, 3]));
        let found = read(file(&dict("<i8", false, "()"), &7u64.to_le_bytes())).unwrap();
        assert_eq!((values(&found), found.sizes), (vec![7.0], vec![]));
    }

    #[test]
    fn damaged_headers_are_refused_at_once() {
        let whole = file(&dict("<f4", false, "(2, 2)"), &[0; 16]);
        assert!(read(whole.clone()).is_ok());
        for length in 0..whole.len() {
            assert!(read(whole[..length].to_vec()).is_err());
        }
        assert!(read([&whole[..], &[0]].concat()).unwrap_err().contains("1 bytes are left over"));
        for (dict, due) in [
            (format!("{{'descr': {}", "[".repeat(60_000)), "records of several fields"),
            (format!("{{'descr': '<f4', 'shape': {}", "(".repeat(60_000)), "damaged at"),
            ("[".repeat(30), "damaged"),
            (dict("<c8", false, "(2,)"), "element type is 'c8'"),
            (dict("|V2", false, "(2,)"), "element type is 'V2'"),
            (dict("|O", false, "(2,)"), "element type is 'O'"),
            (dict("<f4\\u{1b}", false, "(2,)"), "element type"),
            (dict("<f4", false, "(-1,)"), "damaged"),
            (dict("<f4", false, "(99999999999999999999,)"), "damaged"),
            (dict("<f4", false, "(4294967296, 4294967296, 16)"), "more elements than memory"),
            (dict("<f4", false, &format!("({})", "1,".repeat(40))), "more than 32 axes"),
            ("{'descr': '<f4', 'fortran_order': False}".to_owned(), "lacks"),
            ("{'descr': '<f4', 'other': 1}".to_owned(), "unknown key 'other'"),
            (dict("<f4", false, "(0,)") + "x", "damaged"),
        ] {
            let found = read(file(&dict, &[])).unwrap_err();
            assert!(found.contains(due) && found.len() < 220, "{due}: {found}");
        }
    }
}
