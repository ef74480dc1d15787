//! Tensors in safetensors files, read one at a time and accounted for by name and shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use crate::net::NetError;
use crate::net::file::{FileTensor, bad, check};
use crate::store::{StoreError, from_json, read_file};

/// The files of one network: one file, or the shards that an index lists.
pub(super) struct TensorFiles {
    /// The file that errors name.
    path: PathBuf,
    /// All files, for hashes.
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Place>,
}

/// What the weights of a network take in its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of parameters in them.
    pub parameters: u64,
    /// Their bytes, without headers.
    pub bytes: u64,
}

/// Tensors that may be missing beside as many as a file has, before a network is given up.
const MORE: usize = 1000;

/// Where the values of a network come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// The files.
    File,
    /// Zeros, and no value is read.
    Zeros,
}

/// Where a tensor lies.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// Finds the weights of a network in a folder: `STEM.safetensors`, its shards, or the file in half precision.
    pub(super) fn find(folder: &Path, stem: &str) -> Result<Self, NetError> {
        let at = |suffix: &str| folder.join(format!("{stem}{suffix}"));
        for suffix in [".safetensors", ".fp16.safetensors"] {
            if at(suffix).is_file() {
                return Self::open(at(suffix), vec![at(suffix)]);
            }
            let index = at(&format!("{suffix}.index.json"));
            if index.is_file() {
                let Index { weight_map } =
                    from_json(&read_file(&index)?).map_err(|reason| bad(&index, reason))?;
                let names: BTreeSet<String> = weight_map.into_values().collect();
                let odd = |name: &str| {
                    name.contains(['/', '\\']) || name.contains(char::is_control) || name.len() > 255
                };
                if let Some(name) = names.iter().find(|name| odd(name)) {
                    return Err(bad(&index, format!("lists {name:?}, expected names of files beside it")));
                }
                return Self::open(index, names.iter().map(|name| folder.join(name)).collect());
            }
        }
        Err(bad(&at(".safetensors"), absent(folder)))
    }

    fn open(path: PathBuf, files: Vec<PathBuf>) -> Result<Self, NetError> {
        let mut tensors = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for (name, place) in header(file, number)? {
                if tensors.insert(name.clone(), place).is_some() {
                    return Err(bad(file, format!("{name} is in another file of the index, too")));
                }
            }
        }
        Ok(Self { path, files, tensors })
    }

    /// Whether a tensor of this name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// All files, and the index.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let index = (!self.files.contains(&self.path)).then_some(&self.path);
        index.into_iter().chain(&self.files).map(PathBuf::as_path)
    }

    /// Builds a network: first without values, to compare names and shapes of all tensors with the file, then with them.
    /// Tensors whose name `ignored` accepts are not part of the network. Gives also what the network takes in the files.
    ///
    /// # Errors
    /// [`NetError::Weights`] with all tensors that are missing, unknown or of another shape or type, or with the first
    /// tensor that has NaN or infinity.
    pub(super) fn load<M>(
        &self,
        values: Values,
        dtype: DType,
        device: &Device,
        ignored: impl Fn(&str) -> bool,
        build: impl Fn(&mut Loader<'_>) -> Result<M, NetError>,
    ) -> Result<(M, Stored), NetError> {
        let mut plan = Loader { files: self, dtype, device, values, wanted: Some(Vec::new()) };
        build(&mut plan)?;
        let wanted = plan.wanted.unwrap_or_default();
        let found: Vec<FileTensor> = self
            .tensors
            .iter()
            .filter(|(name, _)| !ignored(name))
            .map(|(name, place)| FileTensor {
                name: name.clone(),
                shape: place.shape.clone(),
                float: stored(place.dtype).is_some(),
                dtype: place.dtype.to_string(),
            })
            .collect();
        check(&self.path, &wanted, &found)?;
        let places = || wanted.iter().filter_map(|(name, _)| self.tensors.get(name));
        let stored = Stored {
            tensors: wanted.len(),
            parameters: places().map(|place| place.shape.iter().product::<usize>() as u64).sum(),
            bytes: places().map(|place| place.bytes as u64).sum(),
        };
        Ok((build(&mut Loader { files: self, dtype, device, values, wanted: None })?, stored))
    }

    fn read(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, NetError> {
        let fail = |reason: String| bad(&self.path, format!("{name} {reason}"));
        let Some(place) = self.tensors.get(name) else { return Err(fail("is missing".into())) };
        let path = &self.files[place.file];
        let mut bytes = vec![0; place.bytes];
        let read = |bytes: &mut [u8]| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(place.start))?;
            file.read_exact(bytes)
        };
        read(&mut bytes).map_err(StoreError::io("read", path))?;
        let Some(from) = stored(place.dtype) else { return Err(fail(format!("is {}", place.dtype))) };
        if !finite(&bytes, place.dtype) {
            let reason = "has NaN or infinity, expected finite numbers; copy the file again";
            return Err(bad(path, format!("{name} {reason}")));
        }
        let tensor = Tensor::from_raw_buffer(&bytes, from, &place.shape, &Device::Cpu)?;
        if dtype == DType::F16 && from != DType::F16 && tensor.elem_count() > 0 {
            let most = tensor.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>()?;
            // The largest number of half precision.
            if most > 65504.0 {
                return Err(fail(format!(
                    "has the value {most}, beyond half precision; use single precision"
                )));
            }
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }
}

/// Gives a network its tensors by name.
pub(super) struct Loader<'a> {
    files: &'a TensorFiles,
    dtype: DType,
    device: &'a Device,
    values: Values,
    /// Names and shapes that were asked for; `None` while values are read.
    wanted: Option<Vec<(String, Vec<usize>)>>,
}

impl Loader<'_> {
    /// A tensor of the file.
    pub(super) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, NetError> {
        self.reshaped(name, shape, shape)
    }

    /// A tensor of the file that has `shape` there, as one of the shape `to`.
    pub(super) fn reshaped(&mut self, name: &str, shape: &[usize], to: &[usize]) -> Result<Tensor, NetError> {
        match &mut self.wanted {
            Some(wanted) => {
                // Settings may speak of millions of layers; names of some are enough for the error.
                if wanted.len() > 2 * self.files.tensors.len() + MORE {
                    let found = self.files.tensors.len();
                    let reason =
                        format!("has {found} tensors, and its settings speak of more than {}", wanted.len());
                    return Err(bad(&self.files.path, format!("{reason}; copy both again")));
                }
                wanted.push((name.to_owned(), shape.to_vec()));
                // One element stands for all, and takes no memory.
                Ok(Tensor::zeros((), self.dtype, self.device)?.broadcast_as(to)?)
            }
            None if self.values == Values::Zeros => Ok(Tensor::zeros(to, self.dtype, self.device)?),
            None => Ok(self.files.read(name, self.dtype, self.device)?.reshape(to)?),
        }
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.has(name)
    }
}

/// Names and places of the tensors of a file, whose length must fit.
fn header(path: &Path, number: usize) -> Result<Vec<(String, Place)>, NetError> {
    // The limit of the format.
    const MOST: u64 = 100_000_000;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)?;
        let mut text = Vec::new();
        file.take(u64::from_le_bytes(size).min(MOST)).read_to_end(&mut text)?;
        Ok((length, u64::from_le_bytes(size), text))
    };
    let (length, size, text) = read().map_err(StoreError::io("read", path))?;
    let fail =
        |reason: String| bad(path, format!("is not a safetensors file ({reason}); copy the file again"));
    if size != text.len() as u64 {
        return Err(fail(format!("it has {length} bytes, and its header {size}")));
    }
    // It checks that the places of all tensors follow each other and fit their shapes.
    let metadata: Metadata = from_json(&text).map_err(fail)?;
    let (start, tensors) = (8 + size, metadata.tensors());
    let end = start + tensors.values().map(|t| t.data_offsets.1 as u64).max().unwrap_or(0);
    if end != length {
        let reason = format!("has {length} bytes, expected {end} from its header; copy the file again");
        return Err(bad(path, reason));
    }
    let place = |t: &TensorInfo| {
        let (from, to) = t.data_offsets;
        let (dtype, shape) = (t.dtype, t.shape.clone());
        Place { file: number, dtype, shape, start: start + from as u64, bytes: to - from }
    };
    Ok(tensors.into_iter().map(|(name, t)| (name, place(t))).collect())
}

/// The type in candle of floating-point numbers that single precision holds.
fn stored(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Whether no value has all bits of its exponent set.
fn finite(bytes: &[u8], dtype: Dtype) -> bool {
    let halves = |mask: u16| bytes.as_chunks().0.iter().all(|b| u16::from_le_bytes(*b) & mask != mask);
    match dtype {
        Dtype::F16 => halves(0x7c00),
        Dtype::BF16 => halves(0x7f80),
        _ => bytes.as_chunks().0.iter().all(|b| u32::from_le_bytes(*b) & 0x7f80_0000 != 0x7f80_0000),
    }
}

/// What a folder without safetensors holds instead.
fn absent(folder: &Path) -> String {
    let pickle = |path: &Path| {
        path.extension()
            .is_some_and(|e| ["bin", "ckpt", "pt", "pth"].iter().any(|p| e.eq_ignore_ascii_case(p)))
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names: Vec<String> = files
        .filter(|path| pickle(path))
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    match names.first() {
        Some(name) => format!(
            "does not exist, and {name} is a pickle, which is not read; save the model as safetensors with \
             save_pretrained of diffusers"
        ),
        None => "does not exist; copy the complete folder of the model in diffusers' layout".into(),
    }
}
