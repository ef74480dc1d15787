//! A strict reader of pickles: numbers, texts, lists and dictionaries, tensors of PyTorch and arrays of numpy.
//!
//! A pickle is a program for a machine with a stack. This machine knows the instructions that `torch.save` and numpy write,
//! and the globals that name tensors, their storages and arrays. It calls nothing and refuses every other instruction and
//! global by name. The attributes of `argparse.Namespace` are read and dropped. Values are bounded in depth, and memory by
//! the number of instructions: texts and arrays are parts of the input.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ndarray::ArrayD;

use super::DataError;
use crate::display::counted;
use crate::store::npy::{Elements, Header, Kind};
use crate::store::quoted;

/// Deepest nesting of dictionaries and tuples.
const DEEPEST: usize = 16;
/// Largest number of axes of a tensor.
const AXES: usize = 8;
/// Characters of a name in an error.
const NAME: usize = 64;

/// A tensor: a view of a storage, which is an entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name of the storage.
    pub storage: String,
    /// Type of the elements.
    pub kind: Kind,
    /// Number of elements of the storage.
    pub elements: usize,
    /// Index of the first element.
    pub offset: usize,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Strides of the axes, in elements.
    pub strides: Vec<usize>,
}

/// A type of numpy; the byte order is `None` until it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    kind: Kind,
    big: Option<bool>,
}

/// An array of numpy: its elements are a part of the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'a> {
    /// Type, order and sizes.
    pub header: Header,
    /// The elements, as many as the header gives.
    pub bytes: &'a [u8],
}

impl Tensor {
    /// Whether the elements lie one after the other in the order of the axes.
    pub fn contiguous(&self) -> bool {
        let mut due = 1;
        let mut axes = self.shape.iter().zip(&self.strides).rev();
        axes.all(|(size, stride)| {
            let fits = *size == 1 || *stride == due;
            due = size.saturating_mul(due);
            fits
        })
    }
}

/// A value of the pickle, as far as checkpoints are read.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// None.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float,
    /// Bytes that are not a text.
    Bytes(&'a [u8]),
    /// A list of Python, and its depth.
    List(Vec<Self>, usize),
    /// A type of numpy: its byte order is set after it is made.
    Dtype(Rc<Cell<Dtype>>),
    /// An array of numpy.
    Array(Rc<Array<'a>>),
    /// A text.
    Text(&'a str),
    /// A tuple and its depth.
    Tuple(Rc<[Self]>, usize),
    /// A known class or function.
    Global(Global),
    /// A storage: name, type and number of elements.
    Storage(&'a str, Storage, usize),
    /// A tensor.
    Tensor(Rc<Tensor>),
    /// A dictionary, of which entries with texts as keys are kept, its depth, and what is known of the others.
    Dict(BTreeMap<&'a str, Self>, usize, Unnamed),
    /// Something that is not looked at.
    Opaque(&'static str),
}

/// Tensors and arrays of a dictionary whose keys are not texts, so that they have no name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unnamed {
    count: usize,
    /// The first key.
    first: Option<String>,
}

impl Unnamed {
    /// Refuses them.
    ///
    /// # Errors
    /// A reason in one line, with their number and the first key.
    pub fn none(&self) -> Result<(), String> {
        match &self.first {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} with a key that is not a text (the first is {first}), expected texts; save a dictionary with texts as keys, or \
                 one array alone",
                counted(self.count, "array")
            )),
        }
    }
}

/// Type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    kind: Kind,
}

/// A known class or function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `collections.OrderedDict`.
    Dict,
    /// `argparse.Namespace`.
    Namespace,
    /// `numpy.core.multiarray._reconstruct`.
    Reconstruct,
    /// `numpy.ndarray`; called by `_reconstruct`, an array before its contents.
    NdArray,
    /// `numpy.dtype`.
    Dtype,
    /// The class of a storage.
    Storage(Storage),
}

const fn storage(kind: Kind) -> Global {
    Global::Storage(Storage { kind })
}

const GLOBALS: [(&str, &str, Global); 18] = [
    ("numpy.core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy._core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy", "ndarray", Global::NdArray),
    ("numpy", "dtype", Global::Dtype),
    ("torch._utils", "_rebuild_tensor_v2", Global::Tensor),
    ("torch._utils", "_rebuild_parameter", Global::Parameter),
    ("collections", "OrderedDict", Global::Dict),
    ("argparse", "Namespace", Global::Namespace),
    ("torch", "FloatStorage", storage(Kind::Float(4))),
    ("torch", "HalfStorage", storage(Kind::Float(2))),
    ("torch", "BFloat16Storage", storage(Kind::Bfloat)),
    ("torch", "DoubleStorage", storage(Kind::Float(8))),
    ("torch", "LongStorage", storage(Kind::Signed(8))),
    ("torch", "IntStorage", storage(Kind::Signed(4))),
    ("torch", "ShortStorage", storage(Kind::Signed(2))),
    ("torch", "CharStorage", storage(Kind::Signed(1))),
    ("torch", "ByteStorage", storage(Kind::Unsigned(1))),
    ("torch", "BoolStorage", storage(Kind::Bool)),
];

impl<'a> Value<'a> {
    /// What it is, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::Float => "a floating-point number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(..) => "a list",
            Self::Dtype(_) => "a dtype",
            Self::Array(_) => "an array",
            Self::Tuple(..) => "a tuple",
            Self::Global(_) => "a class",
            Self::Storage(..) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Dict(..) => "a dictionary",
            Self::Opaque(name) => name,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Tuple(_, depth) | Self::Dict(_, depth, _) | Self::List(_, depth) => *depth,
            _ => 0,
        }
    }
}

/// The value that a pickle is.
///
/// # Errors
/// Byte and reason, for any other instruction or global, damage, and bytes after the end.
pub fn read(bytes: &[u8]) -> Result<Value<'_>, String> {
    let mut machine = Machine { bytes, at: 0, stack: vec![], marks: vec![], memo: BTreeMap::new() };
    let refused = |at: usize, reason: String| format!("pickle, byte {at}: {reason}");
    loop {
        let at = machine.at;
        if machine.step().map_err(|reason| refused(at, reason))? {
            break;
        }
    }
    let at = machine.at;
    if at < bytes.len() {
        return Err(refused(at, format!("{} bytes follow the end", bytes.len() - at)));
    }
    match (machine.stack.pop(), machine.stack.is_empty() && machine.marks.is_empty()) {
        (Some(value), true) => Ok(value),
        (last, _) => {
            let found = last.map_or("nothing", |value| value.name());
            Err(refused(at, format!("ends with {found} and more on its stack, expected one value")))
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack at its marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..length)
            .ok_or_else(|| format!("truncated, {length} bytes are needed and {} are left", rest.len()))?;
        self.at += length;
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

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Takes the last value above the last mark.
    fn pop(&mut self) -> Result<Value<'a>, String> {
        let last = if self.stack.len() > self.floor() { self.stack.pop() } else { None };
        last.ok_or_else(|| "the stack has too few values".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn put_memo(&mut self, place: u32) -> Result<(), String> {
        let value = match self.stack.last() {
            // A copy would not see what is set later.
            Some(Value::Dict(..)) => Value::Opaque("a dictionary that occurs twice"),
            Some(Value::List(..)) => Value::Opaque("a list that occurs twice"),
            Some(value) => value.clone(),
            None => return Err("the stack has too few values".into()),
        };
        self.memo.insert(place, value);
        Ok(())
    }

    fn get_memo(&self, place: u32) -> Result<Value<'a>, String> {
        self.memo.get(&place).cloned().ok_or_else(|| format!("the memo has no value {place}"))
    }

    /// Executes one instruction; true for the last one.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.number()?;
        let value = match code {
            // Protocol, and the length of a frame.
            b'\x80' => match self.number()? {
                [2..=5] => return Ok(false),
                [other] => return Err(format!("protocol {other}, expected 2 to 5")),
            },
            b'\x95' => return self.number::<8>().map(|_| false),
            b'.' => return Ok(true),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(false);
            }
            b'q' => {
                let [place] = self.number()?;
                return self.put_memo(place.into()).map(|()| false);
            }
            b'r' => {
                let place = u32::from_le_bytes(self.number()?);
                return self.put_memo(place).map(|()| false);
            }
            b'\x94' => {
                let place = u32::try_from(self.memo.len()).map_err(|e| e.to_string())?;
                return self.put_memo(place).map(|()| false);
            }
            b'h' => {
                let [place] = self.number()?;
                self.get_memo(place.into())?
            }
            b'j' => {
                let place = u32::from_le_bytes(self.number()?);
                self.get_memo(place)?
            }
            b'N' => Value::None,
            b'\x88' => Value::Bool(true),
            b'\x89' => Value::Bool(false),
            b'K' => Value::Int(u8::from_le_bytes(self.number()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.number()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.number()?).into()),
            b'\x8a' => {
                let [length] = self.number()?;
                Value::Int(long(self.take(length.into())?)?)
            }
            b'G' => self.number::<8>().map(|_| Value::Float)?,
            b'X' => {
                let length = u32::from_le_bytes(self.number()?);
                Value::Text(text(self.take(length as usize)?)?)
            }
            b'\x8c' => {
                let [length] = self.number()?;
                Value::Text(text(self.take(length.into())?)?)
            }
            // Texts of Python 2, which are bytes.
            b'U' => {
                let [length] = self.number()?;
                string(self.take(length.into())?)
            }
            b'T' => {
                let length = u32::from_le_bytes(self.number()?);
                string(self.take(length as usize)?)
            }
            b'C' => {
                let [length] = self.number()?;
                string(self.take(length.into())?)
            }
            b'B' => {
                let length = u32::from_le_bytes(self.number()?);
                string(self.take(length as usize)?)
            }
            b'\x8e' => {
                let length =
                    usize::try_from(u64::from_le_bytes(self.number()?)).map_err(|e| e.to_string())?;
                string(self.take(length)?)
            }
            b'c' => global(self.line()?, self.line()?)?,
            b'\x93' => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => global(module, name)?,
                (name, module) => {
                    return Err(format!("a global is named by {} and {}", module.name(), name.name()));
                }
            },
            b'}' => Value::Dict(BTreeMap::new(), 1, Unnamed::default()),
            b']' => Value::List(vec![], 1),
            b')' => Value::Tuple([].into(), 1),
            b'\x85' => tuple(vec![self.pop()?])?,
            b'\x86' => {
                let (b, a) = (self.pop()?, self.pop()?);
                tuple(vec![a, b])?
            }
            b'\x87' => {
                let (c, b, a) = (self.pop()?, self.pop()?, self.pop()?);
                tuple(vec![a, b, c])?
            }
            b't' => tuple(self.since_mark()?)?,
            b'a' => {
                let value = self.pop()?;
                return self.extend_list(vec![value]);
            }
            b'e' => {
                let values = self.since_mark()?;
                return self.extend_list(values);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set(vec![key, value]);
            }
            b'u' => {
                let items = self.since_mark()?;
                return self.set(items);
            }
            b'Q' => persistent(&self.pop()?)?,
            b'R' | b'\x81' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                call(&function, &arguments)?
            }
            b'b' => {
                let state = self.pop()?;
                match self.pop()? {
                    built @ (Value::Dict(..) | Value::Opaque(_)) => built,
                    Value::Dtype(dtype) => {
                        order(&dtype, &state)?;
                        Value::Dtype(dtype)
                    }
                    Value::Global(Global::NdArray) => array(&state)?,
                    other => return Err(format!("{} is given attributes", other.name())),
                }
            }
            other => return Err(format!("instruction {} is not allowed", instruction(other))),
        };
        self.stack.push(value);
        Ok(false)
    }

    fn last(&mut self) -> Result<&mut Value<'a>, String> {
        let floor = self.floor();
        if self.stack.len() <= floor {
            return Err("the stack has too few values".into());
        }
        self.stack.last_mut().ok_or_else(|| "the stack has too few values".into())
    }

    fn extend_list(&mut self, values: Vec<Value<'a>>) -> Result<bool, String> {
        let (list, depth) = match self.last()? {
            Value::List(list, depth) => (list, depth),
            other => return Err(format!("{} takes no elements", other.name())),
        };
        *depth = values.iter().fold(*depth, |depth, value| depth.max(value.depth() + 1));
        if *depth > DEEPEST {
            return Err(format!("values are nested more than {DEEPEST} deep"));
        }
        list.extend(values);
        Ok(false)
    }

    /// Puts pairs of keys and values into the dictionary on the stack.
    fn set(&mut self, items: Vec<Value<'a>>) -> Result<bool, String> {
        let (entries, depth, unnamed) = match self.last()? {
            Value::Dict(entries, depth, unnamed) => (entries, depth, unnamed),
            other => return Err(format!("{} takes no entries", other.name())),
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key has no value".into());
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            *depth = (*depth).max(value.depth() + 1);
            if *depth > DEEPEST {
                return Err(format!("values are nested more than {DEEPEST} deep"));
            }
            let Value::Text(key) = key else {
                if matches!(value, Value::Tensor(_) | Value::Array(_)) {
                    unnamed.count += 1;
                    unnamed.first.get_or_insert_with(|| match key {
                        Value::Int(number) => number.to_string(),
                        other => other.name().to_owned(),
                    });
                }
                continue;
            };
            if let Some(_earlier) = entries.insert(key, value) {
                return Err(format!("key '{}' occurs twice", cut(key)));
            }
        }
        Ok(false)
    }
}

/// A text where the bytes are one.
fn string(bytes: &[u8]) -> Value<'_> {
    str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
}

/// Sets the byte order of a type, from `(3, '<', None, None, None, -1, -1, 0)`.
fn order(dtype: &Cell<Dtype>, state: &Value<'_>) -> Result<(), String> {
    let Value::Tuple(state, _) = state else {
        return Err(format!("a state is {}, expected a tuple", state.name()));
    };
    let big = match &state[..] {
        [Value::Int(3), Value::Text("<" | "|"), Value::None, Value::None, Value::None, ..] => false,
        [Value::Int(3), Value::Text(">"), Value::None, Value::None, Value::None, ..] => true,
        _ => return Err("a dtype has a state that is not one of plain numbers".into()),
    };
    dtype.set(Dtype { big: Some(big), ..dtype.get() });
    Ok(())
}

/// An array, from `(1, sizes, dtype, fortran, bytes)`.
fn array<'a>(state: &Value<'a>) -> Result<Value<'a>, String> {
    let Value::Tuple(state, _) = state else {
        return Err(format!("a state is {}, expected a tuple", state.name()));
    };
    let [Value::Int(1), Value::Tuple(shape, _), Value::Dtype(dtype), Value::Bool(fortran), values] =
        &state[..]
    else {
        return Err("an array has a state that is not numpy's".into());
    };
    let bytes = match values {
        Value::Bytes(bytes) => bytes,
        Value::Text(text) => text.as_bytes(),
        other => return Err(format!("the values of an array are {}, expected bytes", other.name())),
    };
    let Dtype { kind, big: Some(big) } = dtype.get() else {
        return Err("a dtype has no byte order".into());
    };
    let header = Header { kind, big, fortran: *fortran, sizes: sizes(shape)? };
    if header.bytes()? != bytes.len() {
        let Header { sizes, .. } = header;
        return Err(format!("an array of shape {sizes:?} has {} bytes of {}", bytes.len(), kind.name()));
    }
    Ok(Value::Array(Rc::new(Array { header, bytes })))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(bytes).map_err(|e| format!("a text is not UTF-8: {e}"))
}

/// A signed integer of at most 8 bytes, little-endian.
fn long(bytes: &[u8]) -> Result<i64, String> {
    if bytes.len() > 8 {
        return Err(format!("an integer of {} bytes, expected at most 8", bytes.len()));
    }
    let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if sign { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(wide))
}

/// The first characters of a text, for messages, with control characters escaped.
fn cut(text: &str) -> String {
    text.chars().take(NAME).flat_map(char::escape_debug).collect()
}

fn instruction(code: u8) -> String {
    if code.is_ascii_graphic() { format!("'{}'", char::from(code)) } else { format!("{code:#04x}") }
}

fn global<'a>(module: &str, name: &str) -> Result<Value<'a>, String> {
    let known = GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name);
    let (.., global) =
        known.ok_or_else(|| format!("global '{} {}' is not allowed", cut(module), cut(name)))?;
    Ok(Value::Global(*global))
}

fn tuple<'a>(values: Vec<Value<'a>>) -> Result<Value<'a>, String> {
    let mut depth = 1;
    for value in &values {
        // Hooks of a tensor: an empty dictionary. Tuples are shared, and would keep a larger one alive.
        match value {
            Value::Dict(entries, ..) if !entries.is_empty() => {
                return Err("a tuple holds a dictionary that is not empty".into());
            }
            Value::List(list, _) if !list.is_empty() => {
                return Err("a tuple holds a list that is not empty".into());
            }
            _ => {}
        }
        depth = depth.max(value.depth() + 1);
    }
    if depth > DEEPEST {
        return Err(format!("values are nested more than {DEEPEST} deep"));
    }
    Ok(Value::Tuple(values.into(), depth))
}

/// A storage, `('storage', class, name, device, elements)`.
fn persistent<'a>(id: &Value<'a>) -> Result<Value<'a>, String> {
    let Value::Tuple(parts, _) = id else {
        return Err(format!("a storage is named by {}", id.name()));
    };
    match &parts[..] {
        [
            Value::Text(kind),
            Value::Global(Global::Storage(class)),
            Value::Text(name),
            Value::Text(_),
            Value::Int(elements),
        ] if *kind == "storage" => Ok(Value::Storage(name, *class, size(*elements)?)),
        _ => Err("a storage is not named as PyTorch does".into()),
    }
}

fn size(value: i64) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("a size or stride is {value}"))
}

fn sizes(values: &[Value<'_>]) -> Result<Vec<usize>, String> {
    if values.len() > AXES {
        return Err(format!("a tensor of {} axes, expected at most {AXES}", values.len()));
    }
    let each = values.iter().map(|value| match value {
        Value::Int(value) => size(*value),
        other => Err(format!("a size or stride is {}", other.name())),
    });
    each.collect()
}

/// The calls and constructors that are known.
fn call<'a>(function: &Value<'a>, arguments: &Value<'a>) -> Result<Value<'a>, String> {
    let Value::Tuple(arguments, _) = arguments else {
        return Err(format!("the arguments of a call are {}, expected a tuple", arguments.name()));
    };
    match (function, &arguments[..]) {
        // An array before its contents.
        (
            Value::Global(Global::Reconstruct),
            [Value::Global(Global::NdArray), Value::Tuple(sizes, _), Value::Text("b")],
        ) if matches!(sizes[..], [Value::Int(0)]) => Ok(Value::Global(Global::NdArray)),
        (Value::Global(Global::Dtype), [Value::Text(name), _, _]) => {
            let known = Kind::from_code(name)?;
            Ok(Value::Dtype(Rc::new(Cell::new(Dtype { kind: known, big: None }))))
        }
        (Value::Global(Global::Dict), []) => Ok(Value::Dict(BTreeMap::new(), 1, Unnamed::default())),
        (Value::Global(Global::Namespace), _) => Ok(Value::Opaque("a namespace")),
        (Value::Global(Global::Parameter), [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
        (
            Value::Global(Global::Tensor),
            [
                Value::Storage(storage, class, elements),
                Value::Int(offset),
                Value::Tuple(shape, _),
                Value::Tuple(strides, _),
                ..,
            ],
        ) => {
            let tensor = Tensor {
                storage: storage.to_string(),
                kind: class.kind,
                elements: *elements,
                offset: size(*offset)?,
                shape: sizes(shape)?,
                strides: sizes(strides)?,
            };
            within(&tensor)?;
            Ok(Value::Tensor(tensor.into()))
        }
        (Value::Global(_), _) => Err("a call with unexpected arguments".into()),
        (other, _) => Err(format!("{} is called", other.name())),
    }
}

/// Refuses a tensor that does not lie within its storage.
fn within(tensor: &Tensor) -> Result<(), String> {
    if tensor.shape.len() != tensor.strides.len() {
        return Err(format!(
            "a tensor has {} sizes and {} strides",
            tensor.shape.len(),
            tensor.strides.len()
        ));
    }
    if tensor.shape.contains(&0) {
        return Ok(());
    }
    let last =
        tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, |last, (size, stride)| {
            last.checked_add((size - 1).checked_mul(*stride)?)
        });
    match last {
        Some(last) if last < tensor.elements => Ok(()),
        _ => Err(format!(
            "a tensor of shape {:?} and strides {:?} does not fit its storage of {} elements",
            tensor.shape, tensor.strides, tensor.elements
        )),
    }
}

/// The float32 arrays of a dictionary of dictionaries, each under the names of its keys, joined by dots, with its sizes.
///
/// `path` is used in error messages only.
///
/// # Errors
/// [`DataError::Pickle`] for any other content, and damage.
pub fn read_arrays(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, ArrayD<f32>>, DataError> {
    let refused = |reason: String| DataError::Pickle { path: path.to_path_buf(), reason };
    let mut arrays = BTreeMap::new();
    match read(bytes).map_err(refused)? {
        Value::Dict(items, _, unnamed) => {
            unnamed.none().map_err(refused)?;
            flatten("", items, &mut arrays).map_err(refused)?;
        }
        other => return Err(refused(format!("it is {}, expected a dictionary", other.name()))),
    }
    Ok(arrays)
}

/// Adds all arrays below `items`; the depth of dictionaries is at most [`DEEPEST`].
fn flatten(
    prefix: &str,
    items: BTreeMap<&str, Value<'_>>,
    arrays: &mut BTreeMap<String, ArrayD<f32>>,
) -> Result<(), String> {
    for (key, value) in items {
        if key.is_empty() || key.len() > NAME || key.contains('.') {
            return Err(format!("key {} is empty, too long or contains a dot", quoted(key)));
        }
        let name = format!("{prefix}{key}");
        match value {
            Value::Array(found) if found.header.kind == Kind::Float(4) => {
                let Array { header, bytes } = &*found;
                let array = header.clone().read(bytes.to_vec())?;
                let Elements::F32(values) = array.elements else { continue };
                let array = ArrayD::from_shape_vec(array.sizes, values).map_err(|e| e.to_string())?;
                arrays.insert(name, array);
            }
            Value::Array(found) => {
                return Err(format!("'{name}' is {}, expected float32", found.header.kind.name()));
            }
            Value::Dict(items, _, unnamed) => {
                unnamed.none()?;
                flatten(&format!("{name}."), items, arrays)?;
            }
            other => return Err(format!("'{name}' is {}, expected an array or a dictionary", other.name())),
        }
    }
    Ok(())
}
