//! Compiled kernels for a device: from a cache on disk, from NVRTC, or from the PTX of the release.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::nvrtc::{Nvrtc, Target};
use super::sources::Module;
use crate::store::{StoreError, sha256_hex, write_atomic};

/// Compiler options of every kernel, besides the architecture.
pub const OPTIONS: &[&str] = &["--std=c++17"];

/// Origin of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Compiled by an earlier process, by the NVRTC of this CUDA version.
    Cache(i32, i32),
    /// Compiled by this process, by the NVRTC of this CUDA version.
    Nvrtc(i32, i32),
    /// The PTX of the release: NVRTC is missing or fails, or the device or driver refuses its output.
    Release,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(major, minor) => write!(f, "cache of NVRTC {major}.{minor}"),
            Self::Nvrtc(major, minor) => write!(f, "NVRTC {major}.{minor}"),
            Self::Release => f.write_str("release PTX"),
        }
    }
}

/// One compiled source.
#[derive(Debug, Clone)]
pub struct Built {
    /// ELF, or PTX that ends in a null byte.
    pub image: Vec<u8>,
    /// Its origin.
    pub origin: Origin,
    /// Warnings of the compiler, or its errors when the PTX of the release stands in; empty when it did not run.
    pub log: String,
}

/// Compiles a source for devices of a compute capability (90 for 9.0), or takes it from the cache.
///
/// `cache` is the folder of earlier compilations, see [`cache_folder`]. A file there with a wrong checksum is compiled
/// again. A folder that can't be written to is not used. When NVRTC fails, the PTX of the release is taken.
pub fn build(module: &Module, capability: u32, nvrtc: Option<&Nvrtc>, cache: Option<&Path>) -> Built {
    let release = |log| {
        let image = [module.ptx.as_bytes(), b"\0"].concat();
        Built { image, origin: Origin::Release, log }
    };
    let Some((nvrtc, target)) = nvrtc.and_then(|n| Some((n, n.target(capability)?))) else {
        return release(String::new());
    };
    let (major, minor) = nvrtc.numbers();
    let unit = module.unit();
    let file = cache.map(|folder| folder.join(key(&unit, target, &nvrtc.version())));
    if let Some(image) = file.as_deref().and_then(recall) {
        return Built { image, origin: Origin::Cache(major, minor), log: String::new() };
    }
    let compiled = match nvrtc.compile(module.name, &unit, target, OPTIONS) {
        Ok(compiled) => compiled,
        Err(log) => return release(log),
    };
    if let Some(file) = file {
        // If this fails, the next process compiles again.
        let _ = keep(&file, &compiled.image);
    }
    Built { image: compiled.image, origin: Origin::Nvrtc(major, minor), log: compiled.log }
}

/// Folder of compiled kernels: `MEM2GEN_CACHE`, else `mem2gen/kernels` in the user's cache folder. `None` when the user
/// has no home.
pub fn cache_folder() -> Option<PathBuf> {
    folder_of(|name| env::var_os(name).map(PathBuf::from))
}

fn folder_of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = variable("MEM2GEN_CACHE") {
        return Some(folder);
    }
    // The XDG specification says to ignore relative paths.
    let user = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(user.or_else(|| Some(variable("HOME")?.join(".cache")))?.join("mem2gen/kernels"))
}

/// SHA-256 of everything that the image depends on.
fn key(unit: &str, target: Target, version: &str) -> String {
    let mut parts = vec![unit.to_owned(), target.to_string(), version.to_owned()];
    parts.extend(OPTIONS.iter().map(|o| (*o).to_owned()));
    // Each with its length, so that different parts never give the same text.
    sha256_hex(parts.iter().map(|p| format!("{}:{p}", p.len())).collect::<String>().as_bytes())
}

/// Length of a SHA-256 in hexadecimal.
const SUM: usize = 64;

/// The image in a file, if the file is intact: the SHA-256, then the image.
fn recall(file: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(file).ok()?;
    let (sum, image) = bytes.split_at_checked(SUM)?;
    (sha256_hex(image).as_bytes() == sum).then(|| image.to_vec())
}

fn keep(file: &Path, image: &[u8]) -> Result<(), StoreError> {
    write_atomic(file, |w| {
        w.write_all(sha256_hex(image).as_bytes())?;
        w.write_all(image)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_variables_say() {
        let at = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, path)| ((*name).to_owned(), PathBuf::from(path))).collect();
            folder_of(|asked| set.iter().find(|(name, _)| name == asked).map(|(_, path)| path.clone()))
        };
        let (own, user, home) = (("MEM2GEN_CACHE", "here"), ("XDG_CACHE_HOME", "/cache"), ("HOME", "/me"));
        assert_eq!(at(&[own, user, home]), Some("here".into()));
        assert_eq!(at(&[user, home]), Some("/cache/mem2gen/kernels".into()));
        assert_eq!(at(&[("XDG_CACHE_HOME", "relative"), home]), Some("/me/.cache/mem2gen/kernels".into()));
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn only_an_intact_file_is_recalled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er");
        assert_eq!(recall(&file), None);
        keep(&file, b"image").unwrap();
        assert_eq!(recall(&file).as_deref(), Some(&b"image"[..]));
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(recall(&file), None, "{length} bytes");
        }
        fs::write(&file, [&whole[..], b"s"].concat()).unwrap();
        assert_eq!(recall(&file), None);
    }

    #[test]
    fn whatever_changes_the_image_changes_its_name() {
        let names = [
            key("unit", Target::Cubin(90), "13.0"),
            key("unit ", Target::Cubin(90), "13.0"),
            key("unit", Target::Cubin(80), "13.0"),
            key("unit", Target::Ptx(90), "13.0"),
            key("unit", Target::Cubin(90), "13.1"),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() == SUM && !names[..i].contains(name), "{name}");
        }
    }
}
