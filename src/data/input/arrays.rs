//! Arrays in archives, tensors and pickles.

use std::io::Cursor;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{Input, Piece, array, cifar_piece};
use crate::data::archive::Archive;
use crate::data::image_set::Format;
use crate::data::pickle::{self, Tensor, Value};
use crate::data::torch::TorchFile;
use crate::data::{DataError, cifar};
use crate::store::npy::{self, Header, Kind};
use crate::store::{memory_left, quoted};

/// Names that are taken where a file has several arrays and none was named.
const USUAL: &str = "arr_0";

/// Whether the bytes start with the length of a JSON header and an opening brace.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|length| {
        u64::from_le_bytes(*length) <= bytes.len() as u64 - 8 && bytes.get(8) == Some(&b'{')
    })
}

/// Whether the bytes are records of CIFAR10: a label below 10 before each image.
pub(super) fn is_cifar(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len().is_multiple_of(cifar::RECORD)
        && bytes.iter().step_by(cifar::RECORD).all(|label| *label < cifar::CLASSES)
}

impl Input {
    /// The name to take of several; `what` they are.
    fn chosen<'a>(&self, path: &Path, what: &str, names: &[&'a str]) -> Result<&'a str, DataError> {
        let list = || {
            let mut shown: Vec<String> = names.iter().take(6).map(|name| quoted(name)).collect();
            if names.len() > 6 {
                shown.push(format!("and {} more", names.len() - 6));
            }
            shown.join(", ")
        };
        let wanted = self.tensor.as_deref();
        if let Some(found) = names.iter().copied().find(|name| Some(*name) == wanted) {
            return Ok(found);
        }
        match (names, wanted) {
            ([], _) => Err(array(path, format!("it has no {what}"))),
            ([only], None) => Ok(only),
            ([only], Some(_)) if !self.strict => Ok(only),
            (_, Some(wanted)) => Err(array(
                path,
                format!("no {what} is called {}, expected one of {}", quoted(wanted), list()),
            )),
            (_, None) => match names.iter().find(|name| **name == USUAL) {
                Some(usual) => Ok(usual),
                None => Err(array(
                    path,
                    format!(
                        "{} {what}s ({}), expected one; choose one with --tensor, or for one of several inputs with \
                         --train-tensor and the like",
                        names.len(),
                        list()
                    ),
                )),
            },
        }
    }

    /// An archive of `.npy` files.
    pub(super) fn npz(
        &self,
        path: &Path,
        mut archive: Archive<Cursor<&[u8]>>,
        names: &[&String],
    ) -> Result<Piece, DataError> {
        let bad = |reason: String| array(path, reason);
        let short: Vec<&str> = names.iter().map(|name| name.trim_end_matches(".npy")).collect();
        let name = format!("{}.npy", self.chosen(path, "array", &short)?);
        let most = memory_left().unwrap_or(u64::MAX);
        let found = archive
            .read(&name, most)
            .and_then(npy::read)
            .map_err(|reason| bad(format!("{}: {reason}", quoted(&name))))?;
        self.arranged(path, Format::Npz, found)
    }

    /// A tensor of a `.safetensors` file.
    pub(super) fn safetensors(&self, path: &Path, bytes: &[u8]) -> Result<Piece, DataError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| array(path, format!("it is not a .safetensors file: {}", quoted(&e.to_string()))))?;
        let mut names = file.names();
        names.sort_unstable();
        let name = self.chosen(path, "tensor", &names)?;
        let found = file.tensor(name).map_err(|e| array(path, e.to_string()))?;
        let kind = match found.dtype() {
            Dtype::BOOL => Kind::Bool,
            Dtype::U8 => Kind::Unsigned(1),
            Dtype::I8 => Kind::Signed(1),
            Dtype::U16 => Kind::Unsigned(2),
            Dtype::I16 => Kind::Signed(2),
            Dtype::U32 => Kind::Unsigned(4),
            Dtype::I32 => Kind::Signed(4),
            Dtype::U64 => Kind::Unsigned(8),
            Dtype::I64 => Kind::Signed(8),
            Dtype::F16 => Kind::Float(2),
            Dtype::BF16 => Kind::Bfloat,
            Dtype::F32 => Kind::Float(4),
            Dtype::F64 => Kind::Float(8),
            other => {
                return Err(array(
                    path,
                    format!("tensor {} has type {other:?}, expected numbers of 8 to 64 bits", quoted(name)),
                ));
            }
        };
        let header = Header { kind, big: false, fortran: false, sizes: found.shape().to_vec() };
        let found = header.read(found.data().to_vec()).map_err(|reason| array(path, reason))?;
        self.arranged(path, Format::Safetensors, found)
    }

    /// A tensor of a file of `torch.save`.
    pub(super) fn torch(&self, path: &Path, bytes: &[u8]) -> Result<Piece, DataError> {
        let bad = |reason: String| array(path, reason);
        let (mut file, pickled) = TorchFile::open(Cursor::new(bytes)).map_err(bad)?;
        let saved = pickle::read(&pickled).map_err(bad)?;
        let mut tensors: Vec<(&str, &Tensor)> = Vec::new();
        match &saved {
            Value::Tensor(tensor) => tensors.push(("", tensor)),
            Value::Dict(entries, _, unnamed) => {
                unnamed.none().map_err(bad)?;
                for (name, value) in entries {
                    if let Value::Tensor(tensor) = value {
                        tensors.push((*name, &**tensor));
                    }
                }
            }
            other => {
                return Err(bad(format!(
                    "it is {}, expected a tensor or a dictionary of tensors",
                    other.name()
                )));
            }
        }
        let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
        let name = self.chosen(path, "tensor", &names)?;
        let Some((_, tensor)) = tensors.into_iter().find(|(other, _)| *other == name) else {
            return Err(bad("it has no tensor".into()));
        };
        let elements = file.elements(tensor).map_err(bad)?;
        let found = npy::Array { kind: tensor.kind, sizes: tensor.shape.clone(), elements };
        self.arranged(path, Format::Torch, found)
    }

    /// An array of a Python pickle; CIFAR10's batches are dictionaries with `data` of channel planes.
    pub(super) fn pickled(&self, path: &Path, bytes: &[u8]) -> Result<Piece, DataError> {
        let bad = |reason: String| array(path, reason);
        if bytes[2..].starts_with(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.") {
            return Err(bad(
                "it was saved by PyTorch before version 1.6; load it and save it again with torch.save"
                    .into(),
            ));
        }
        let found = match pickle::read(bytes).map_err(bad)? {
            Value::Array(found) => found,
            Value::Dict(entries, _, unnamed) => {
                if let Ok(batch) = cifar::of_pickle(&entries) {
                    return Ok(cifar_piece(Format::Pickle, batch.pixels));
                }
                unnamed.none().map_err(bad)?;
                let arrays: Vec<_> = entries
                    .iter()
                    .filter_map(|(name, value)| match value {
                        Value::Array(found) => Some((*name, found)),
                        _ => None,
                    })
                    .collect();
                let names: Vec<&str> = arrays.iter().map(|(name, _)| *name).collect();
                let name = self.chosen(path, "array", &names)?;
                match arrays.into_iter().find(|(other, _)| *other == name) {
                    Some((_, found)) => found.clone(),
                    None => return Err(bad("it has no array".into())),
                }
            }
            other => return Err(bad(format!("it is {}, expected an array of numpy", other.name()))),
        };
        let found = found.header.clone().read(found.bytes.to_vec()).map_err(bad)?;
        self.arranged(path, Format::Pickle, found)
    }
}
