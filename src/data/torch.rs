//! Files of `torch.save`: a zip archive of storages, and a pickle that names tensors in them.

use std::io::{Read, Seek};

use super::archive::Archive;
use super::pickle::Tensor;
use crate::store::npy::{Elements, Header};
use crate::store::quoted;

/// Most bytes of the pickle, which holds names and shapes and no values.
const PICKLE: u64 = 64 << 20;

/// An open file.
#[derive(Debug)]
pub struct TorchFile<R> {
    archive: Archive<R>,
    /// What the names of all entries begin with.
    root: String,
}

impl<R: Read + Seek> TorchFile<R> {
    /// Opens a file, and gives the bytes of its pickle.
    ///
    /// # Errors
    /// A reason, for another format and damage.
    pub fn open(from: R) -> Result<(Self, Vec<u8>), String> {
        let mut archive = Archive::open(from)
            .map_err(|reason| format!("{reason}, expected a file of torch.save from PyTorch 1.6 or later"))?;
        let roots: Vec<&str> = archive.names().filter_map(|name| name.strip_suffix("data.pkl")).collect();
        let root = match roots[..] {
            [root] if root.is_empty() || root.ends_with('/') => root.to_owned(),
            _ => return Err("has not exactly one entry data.pkl, expected a file of torch.save".into()),
        };
        let order = format!("{root}byteorder");
        if archive.size(&order).is_some() && archive.read(&order, 64)? != b"little" {
            return Err("holds big-endian values, expected little-endian".into());
        }
        let pickled = archive.read(&format!("{root}data.pkl"), PICKLE)?;
        Ok((Self { archive, root }, pickled))
    }

    /// The elements of a tensor, in the order of its axes.
    ///
    /// # Errors
    /// A reason, for damage.
    pub fn elements(&mut self, tensor: &Tensor) -> Result<Elements, String> {
        let header = Header { kind: tensor.kind, big: false, fortran: false, sizes: vec![tensor.elements] };
        let expected = header.bytes()? as u64;
        let name = format!("{}data/{}", self.root, tensor.storage);
        let bytes = self.archive.read(&name, expected)?;
        if bytes.len() as u64 != expected {
            return Err(format!("entry {} has {} bytes, expected {expected}", quoted(&name), bytes.len()));
        }
        let storage = header.read(bytes)?.elements;
        let count = tensor.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        let count = count.filter(|count| *count <= tensor.elements).ok_or_else(|| {
            format!("a tensor of shape {:?} repeats its storage; save a copy of it", tensor.shape)
        })?;
        if tensor.contiguous() {
            let part = tensor.offset..tensor.offset + count;
            return Ok(match storage {
                Elements::Bytes(all) => Elements::Bytes(all[part].to_vec()),
                Elements::F32(all) => Elements::F32(all[part].to_vec()),
                Elements::F64(all) => Elements::F64(all[part].to_vec()),
            });
        }
        let mut places = vec![tensor.offset];
        for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
            places = places.iter().flat_map(|from| (0..*size).map(move |i| from + i * stride)).collect();
        }
        Ok(match storage {
            Elements::Bytes(all) => Elements::Bytes(places.into_iter().map(|at| all[at]).collect()),
            Elements::F32(all) => Elements::F32(places.into_iter().map(|at| all[at]).collect()),
            Elements::F64(all) => Elements::F64(places.into_iter().map(|at| all[at]).collect()),
        })
    }
}
