//! A reader for pickles of nested dictionaries of float32 arrays.
//!
//! A pickle is a program for a stack machine. This machine has the instructions that such dictionaries need and the three
//! globals of numpy's arrays. It calls nothing, and refuses everything else by name. Arrays borrow from the input, so that
//! memory is bounded by the number of instructions.

use std::collections::BTreeMap;
use std::path::Path;

use super::DataError;

/// Largest depth of nested dictionaries.
const DEEPEST: usize = 6;
/// Largest length of a key in bytes.
const KEY: usize = 64;

/// An array in the bytes of a pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'a> {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its values in C order, little-endian.
    pub bytes: &'a [u8],
}

impl Array<'_> {
    /// Its values in C order.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))
    }
}

/// The known callables and classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    Reconstruct,
    NdArray,
    Dtype,
}

const GLOBALS: [(&str, Global); 3] = [
    ("numpy.core.multiarray _reconstruct", Global::Reconstruct),
    ("numpy ndarray", Global::NdArray),
    ("numpy dtype", Global::Dtype),
];

#[derive(Debug)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Vec<Self>),
    Global(Global),
    /// The dtype float32 before its byte order is set.
    Float,
    /// The dtype little-endian float32.
    LittleFloat,
    /// An array before its contents.
    Empty,
    Array(Array<'a>),
    Dict {
        depth: usize,
        items: BTreeMap<&'a str, Self>,
    },
}

impl Value<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::Global(_) => "a global",
            Self::Float | Self::LittleFloat => "a dtype",
            Self::Empty | Self::Array(_) => "an array",
            Self::Dict { .. } => "a dictionary",
        }
    }
}

/// Values in the memo: only small, immutable values can be read from it. A dtype is the same object before and after its
/// byte order is set.
#[derive(Debug, Clone, Copy)]
enum Memo<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Global(Global),
    Float,
    Other(&'static str),
}

/// The arrays of a pickle, each under the names of its keys, joined by dots.
///
/// `path` is used in error messages only.
///
/// # Errors
/// [`DataError::Pickle`] for any other instruction or global, another type of array, damage, and bytes after the end.
pub fn read_arrays<'a>(path: &Path, bytes: &'a [u8]) -> Result<BTreeMap<String, Array<'a>>, DataError> {
    let mut machine =
        Machine { bytes, at: 0, stack: vec![], marks: vec![], memo: BTreeMap::new(), told: false };
    let refused = |at: usize, reason: String| DataError::Pickle { path: path.to_path_buf(), at, reason };
    loop {
        let at = machine.at;
        if machine.step().map_err(|reason| refused(at, reason))? {
            break;
        }
    }
    let at = machine.at;
    if at < bytes.len() {
        return Err(refused(at, format!("{} bytes left over", bytes.len() - at)));
    }
    let mut arrays = BTreeMap::new();
    match (machine.stack.pop(), machine.stack.is_empty() && machine.marks.is_empty()) {
        (Some(Value::Dict { items, .. }), true) => {
            flatten("", items, &mut arrays).map_err(|reason| refused(at, reason))?;
        }
        (last, _) => {
            let found = last.map_or("nothing", |v| v.name());
            return Err(refused(at, format!("ends with {found}, expected one dictionary")));
        }
    }
    Ok(arrays)
}

/// Adds all arrays below `items`; the recursion depth is at most [`DEEPEST`].
fn flatten<'a>(
    prefix: &str,
    items: BTreeMap<&'a str, Value<'a>>,
    arrays: &mut BTreeMap<String, Array<'a>>,
) -> Result<(), String> {
    for (key, value) in items {
        let name = format!("{prefix}{key}");
        match value {
            Value::Array(array) => drop(arrays.insert(name, array)),
            Value::Dict { items, .. } => flatten(&format!("{name}."), items, arrays)?,
            other => return Err(format!("'{name}' is {}, expected an array or a dictionary", other.name())),
        }
    }
    Ok(())
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Length of the stack at each mark.
    marks: Vec<usize>,
    memo: BTreeMap<u8, Memo<'a>>,
    /// Whether the byte order of the dtype was set.
    told: bool,
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..n) else {
            return Err(format!("truncated, {} bytes, expected {n}", rest.len()));
        };
        self.at += n;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or("truncated, a line does not end")?;
        let line = text(self.take(length)?)?;
        self.at += 1;
        Ok(line)
    }

    /// Removes the last value above the last mark.
    fn pop(&mut self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack has too few values".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    /// Executes an instruction; true for the last one.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.number()?;
        let value = match code {
            b'\x80' => match self.number()? {
                [3] => return Ok(false),
                [n] => return Err(format!("protocol {n}, expected 3")),
            },
            b'.' => return Ok(true),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(false);
            }
            b'q' => {
                let [place] = self.number()?;
                let memo = match self.stack.last() {
                    Some(Value::Text(t)) => Memo::Text(t),
                    Some(Value::Bytes(b)) => Memo::Bytes(b),
                    Some(Value::Global(g)) => Memo::Global(*g),
                    Some(Value::Float | Value::LittleFloat) => Memo::Float,
                    Some(other) => Memo::Other(other.name()),
                    None => return Err("the stack is empty".into()),
                };
                self.memo.insert(place, memo);
                return Ok(false);
            }
            b'h' => {
                let [place] = self.number()?;
                match self.memo.get(&place) {
                    Some(Memo::Text(t)) => Value::Text(t),
                    Some(Memo::Bytes(b)) => Value::Bytes(b),
                    Some(Memo::Global(g)) => Value::Global(*g),
                    Some(Memo::Float) if self.told => Value::LittleFloat,
                    Some(Memo::Float) => Value::Float,
                    Some(Memo::Other(name)) => return Err(format!("{name} is used twice")),
                    None => return Err(format!("the memo has nothing at {place}")),
                }
            }
            b'}' => Value::Dict { depth: 1, items: BTreeMap::new() },
            b'N' => Value::None,
            b'\x88' => Value::Bool(true),
            b'\x89' => Value::Bool(false),
            b'K' => Value::Int(u8::from_le_bytes(self.number()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.number()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.number()?).into()),
            b'X' => {
                let length = u32::from_le_bytes(self.number()?) as usize;
                Value::Text(text(self.take(length)?)?)
            }
            b'C' => {
                let [length] = self.number()?;
                Value::Bytes(self.take(length.into())?)
            }
            b'B' => {
                let length = u32::from_le_bytes(self.number()?) as usize;
                Value::Bytes(self.take(length)?)
            }
            b'c' => {
                let name = format!("{} {}", cut(self.line()?), cut(self.line()?));
                match GLOBALS.iter().find(|(known, _)| *known == name) {
                    Some((_, global)) => Value::Global(*global),
                    None => return Err(format!("global '{name}' is not allowed")),
                }
            }
            b'\x85' => tuple(vec![self.pop()?])?,
            b'\x87' => {
                let (c, b, a) = (self.pop()?, self.pop()?, self.pop()?);
                tuple(vec![a, b, c])?
            }
            b't' => tuple(self.since_mark()?)?,
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                call(&function, &arguments)?
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.pop()?);
                let built = build(&object, state)?;
                self.told |= matches!(built, Value::LittleFloat);
                built
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
                return Ok(false);
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(items)?;
                return Ok(false);
            }
            other => return Err(format!("instruction {} is not allowed", instruction(other))),
        };
        self.stack.push(value);
        Ok(false)
    }

    /// Adds pairs of keys and values to the dictionary on the stack.
    fn set(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.len() > floor;
        let (depth, into) = match self.stack.last_mut() {
            Some(Value::Dict { depth, items }) if above => (depth, items),
            Some(other) if above => return Err(format!("{} has no items", other.name())),
            _ => return Err("the stack has too few values".into()),
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let key = match key {
                Value::Text(key) if !key.is_empty() && key.len() <= KEY && !key.contains('.') => key,
                Value::Text(key) => {
                    return Err(format!("key '{}' is empty, too long or contains a dot", cut(key)));
                }
                other => return Err(format!("a key is {}, expected a string", other.name())),
            };
            if let Value::Dict { depth: inner, .. } = value {
                *depth = (*depth).max(inner + 1);
                if *depth > DEEPEST {
                    return Err(format!("dictionaries are nested more than {DEEPEST} deep"));
                }
            }
            if into.insert(key, value).is_some() {
                return Err(format!("key '{key}' occurs twice"));
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(bytes).map_err(|e| format!("a string is not UTF-8: {e}"))
}

/// The first characters of a string, for messages.
fn cut(text: &str) -> &str {
    text.char_indices().nth(KEY).map_or(text, |(end, _)| &text[..end])
}

/// A tuple, which may hold the parts of arrays and dtypes: numbers, strings and one tuple of sizes.
fn tuple(values: Vec<Value<'_>>) -> Result<Value<'_>, String> {
    for value in &values {
        match value {
            Value::Array(_) | Value::Dict { .. } | Value::Empty => {
                return Err(format!("{} is in a tuple", value.name()));
            }
            Value::Tuple(inner) if inner.iter().any(|v| matches!(v, Value::Tuple(_))) => {
                return Err("tuples are nested more than two deep".into());
            }
            _ => {}
        }
    }
    Ok(Value::Tuple(values))
}

/// Emulates the two allowed calls: `_reconstruct(ndarray, (0,), b'b')` and `dtype('f4', False, True)`.
fn call<'a>(function: &Value<'a>, arguments: &Value<'a>) -> Result<Value<'a>, String> {
    let Value::Tuple(arguments) = arguments else {
        return Err(format!("arguments are {}, expected a tuple", arguments.name()));
    };
    match (function, &arguments[..]) {
        (
            Value::Global(Global::Reconstruct),
            [Value::Global(Global::NdArray), Value::Tuple(sizes), Value::Bytes(b"b")],
        ) if matches!(sizes[..], [Value::Int(0)]) => Ok(Value::Empty),
        (Value::Global(Global::Dtype), [Value::Text("f4"), Value::Bool(false), Value::Bool(true)]) => {
            Ok(Value::Float)
        }
        (Value::Global(Global::Dtype), [Value::Text(other), ..]) => {
            Err(format!("the dtype is '{}', expected 'f4'", cut(other)))
        }
        (Value::Global(_), _) => Err("a call has other arguments than numpy's".into()),
        (other, _) => Err(format!("{} is called", other.name())),
    }
}

/// Sets the state of a dtype, `(3, '<', None, None, None, -1, -1, 0)`, and of an array, `(1, sizes, dtype, False, bytes)`.
fn build<'a>(object: &Value<'a>, state: Value<'a>) -> Result<Value<'a>, String> {
    let Value::Tuple(state) = state else {
        return Err(format!("a state is {}, expected a tuple", state.name()));
    };
    match (object, &state[..]) {
        (
            Value::Float,
            [
                Value::Int(3),
                Value::Text("<"),
                Value::None,
                Value::None,
                Value::None,
                Value::Int(-1),
                Value::Int(-1),
                Value::Int(0),
            ],
        ) => Ok(Value::LittleFloat),
        (Value::Float, _) => Err("a dtype has another state than little-endian float32".into()),
        (
            Value::Empty,
            [Value::Int(1), Value::Tuple(sizes), Value::LittleFloat, Value::Bool(false), Value::Bytes(bytes)],
        ) => {
            let size = |v: &Value<'_>| match v {
                Value::Int(n) => usize::try_from(*n).map_err(|_| format!("an array with size {n}")),
                other => Err(format!("a size of an array is {}", other.name())),
            };
            let shape = sizes.iter().map(size).collect::<Result<Vec<_>, _>>()?;
            let due = shape.iter().try_fold(4usize, |product, &n| product.checked_mul(n));
            if due != Some(bytes.len()) {
                let sizes: Vec<usize> = shape.iter().copied().take(8).collect();
                return Err(format!("an array of sizes {sizes:?} has {} bytes", bytes.len()));
            }
            Ok(Value::Array(Array { shape, bytes }))
        }
        (Value::Empty, _) => Err("an array has another state than little-endian float32 in C order".into()),
        (other, _) => Err(format!("{} has no state", other.name())),
    }
}

/// The name of an instruction in Python's pickletools, protocols 0 to 5.
fn instruction(code: u8) -> String {
    const NAMES: [(u8, &str); 46] = [
        (b'I', "INT"),
        (b'L', "LONG"),
        (b'\x8a', "LONG1"),
        (b'\x8b', "LONG4"),
        (b'S', "STRING"),
        (b'T', "BINSTRING"),
        (b'U', "SHORT_BINSTRING"),
        (b'\x8e', "BINBYTES8"),
        (b'\x96', "BYTEARRAY8"),
        (b'\x97', "NEXT_BUFFER"),
        (b'\x98', "READONLY_BUFFER"),
        (b'V', "UNICODE"),
        (b'\x8c', "SHORT_BINUNICODE"),
        (b'\x8d', "BINUNICODE8"),
        (b'F', "FLOAT"),
        (b'G', "BINFLOAT"),
        (b']', "EMPTY_LIST"),
        (b'a', "APPEND"),
        (b'e', "APPENDS"),
        (b'l', "LIST"),
        (b')', "EMPTY_TUPLE"),
        (b'\x86', "TUPLE2"),
        (b'd', "DICT"),
        (b'\x8f', "EMPTY_SET"),
        (b'\x90', "ADDITEMS"),
        (b'\x91', "FROZENSET"),
        (b'0', "POP"),
        (b'2', "DUP"),
        (b'1', "POP_MARK"),
        (b'g', "GET"),
        (b'j', "LONG_BINGET"),
        (b'p', "PUT"),
        (b'r', "LONG_BINPUT"),
        (b'\x94', "MEMOIZE"),
        (b'\x82', "EXT1"),
        (b'\x83', "EXT2"),
        (b'\x84', "EXT4"),
        (b'\x93', "STACK_GLOBAL"),
        (b'i', "INST"),
        (b'o', "OBJ"),
        (b'\x81', "NEWOBJ"),
        (b'\x92', "NEWOBJ_EX"),
        (b'\x95', "FRAME"),
        (b'P', "PERSID"),
        (b'Q', "BINPERSID"),
        (b'\x80', "PROTO"),
    ];
    match NAMES.iter().find(|(known, _)| *known == code) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{code:#04x}"),
    }
}
