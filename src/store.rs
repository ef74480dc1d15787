//! Files: the atomic writer, SHA-256 and `.npy` arrays.
//!
//! The crate writes every file through [`write_atomic`], so that a reader sees the old file or the new one and never a
//! part of either.
//!
//! ```
//! use mem2gen::store::{Matrix, read_matrix, write_array};
//! use ndarray::array;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("a.npy");
//! write_array(&path, &array![[1.0f32, 2.0], [3.0, 4.0]])?;
//! let Matrix::F32(rows) = read_matrix(&path)? else { panic!("the file has float32") };
//! assert_eq!(rows, array![[1.0, 2.0], [3.0, 4.0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod npy;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use ndarray::{Array2, ArrayBase, ArrayView2, Data, Dimension};
use ndarray_npy::{WritableElement, WriteNpyExt};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Prefix of the names of temporary files. A killed writer leaves one behind.
pub(crate) const TEMPORARY: &str = ".mem2gen-";

/// A file that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An error of the operating system.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file that is not an array of the expected kind.
    #[error("read array {}: {reason}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl StoreError {
    /// Names the operation and the path of an I/O error. A path in a temporary folder is that of the output.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path: Noted::output(path), source: without_path(source) }
    }
}

/// Writes `path` through a temporary file in the same folder: fill, fsync, rename, fsync of the folder.
///
/// Creates the folder if it is missing. On any error the old file stays unchanged, and the temporary file is removed. A link
/// stays a link: the file that it points to is replaced. The path `-` is standard output, which takes one result.
///
/// # Errors
/// [`StoreError::Io`] with the step that failed, also when `path` exists and is not a regular file (the rename would
/// replace a device or a pipe by a file), and for `-` when standard output is a terminal or has a result already.
pub fn write_atomic<F>(path: &Path, fill: F) -> Result<(), StoreError>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    if path == Path::new("-") {
        return stream(fill);
    }
    let target = check_output(path)?;
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(StoreError::io("make folder", folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let (mut temporary, _noted) =
        Noted::make(path, || builder.tempfile_in(folder), tempfile::NamedTempFile::path)
            .map_err(StoreError::io("make a temporary file for", path))?;
    {
        let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
        fill(&mut writer).and_then(|()| writer.flush()).map_err(StoreError::io("write", path))?;
    }
    temporary.as_file().sync_all().map_err(StoreError::io("flush", path))?;
    temporary.persist(&target).map_err(|e| StoreError::io("rename into", path)(e.error))?;
    // The rename is durable after an fsync of the folder. Not every file system supports that.
    if let Ok(handle) = File::open(folder) {
        let _ = handle.sync_all();
    }
    Ok(())
}

/// The error without the name of a temporary file, which tempfile puts behind it.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(" at path \"") {
        Some((reason, _)) => io::Error::new(error.kind(), reason),
        None => error,
    }
}

/// Whether standard output has taken a result.
static STREAMED: AtomicBool = AtomicBool::new(false);

/// Whether standard output has taken a result of [`write_atomic`], so that text belongs to standard error.
pub fn streamed() -> bool {
    STREAMED.load(Ordering::Relaxed)
}

/// Writes a result to standard output.
fn stream(fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), StoreError> {
    let path = Path::new("standard output");
    let reason = if io::stdout().is_terminal() {
        "is a terminal; give the name of a file"
    } else if STREAMED.swap(true, Ordering::Relaxed) {
        "has a result already; give the name of a file"
    } else {
        let mut writer = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        return fill(&mut writer).and_then(|()| writer.flush()).map_err(StoreError::io("write to", path));
    };
    Err(StoreError::io("write to", path)(io::Error::new(io::ErrorKind::InvalidInput, reason)))
}

/// The file that an output stands for: the target of a link, so that the link stays.
///
/// # Errors
/// [`StoreError::Io`] for a link to nothing, and for what exists and is no regular file or can be none.
pub fn check_output(path: &Path) -> Result<PathBuf, StoreError> {
    let refused = |reason: &str| {
        Err(StoreError::io("write", path)(io::Error::new(io::ErrorKind::InvalidInput, reason)))
    };
    if path.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || path.file_name().is_none() {
        return refused("is the name of a folder; give that of a file");
    }
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return refused("exists and is not a regular file; choose another path");
    }
    if !path.is_symlink() {
        return Ok(path.to_path_buf());
    }
    // A link to a file that does not exist yet has no target to find.
    fs::canonicalize(path).map_err(StoreError::io("follow the link", path))
}

/// Temporary files and folders of this process, with the outputs that they become.
static TEMPORARIES: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

/// A temporary file or folder while it exists.
pub(crate) struct Noted(PathBuf);

impl Noted {
    /// Makes a temporary file or folder for `output`. It is noted before [`remove_temporaries`] can pass it over.
    pub(crate) fn make<T>(
        output: &Path,
        make: impl FnOnce() -> io::Result<T>,
        path: impl FnOnce(&T) -> &Path,
    ) -> io::Result<(T, Self)> {
        let mut all = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let made = make()?;
        let noted = Self(path(&made).to_path_buf());
        all.insert(noted.0.clone(), output.to_path_buf());
        Ok((made, noted))
    }

    /// The path of the output for one in a temporary file or folder.
    fn output(path: PathBuf) -> PathBuf {
        let all = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find_map(|(from, to)| Some(to.join(path.strip_prefix(from).ok()?)));
        // Joining nothing would end the path in a slash.
        found.map_or(path, |found| found.components().collect())
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Removes the temporary files and folders of this process, for a program that is told to stop. Writers wait from then on, so
/// the program has to end.
pub fn remove_temporaries() {
    // Where memory runs out, the thread itself may hold the lock: then the files stay for the next call.
    let held = (0..100).find_map(|_| match TEMPORARIES.try_lock() {
        Ok(all) => Some(all),
        Err(TryLockError::Poisoned(all)) => Some(all.into_inner()),
        Err(TryLockError::WouldBlock) => {
            thread::sleep(Duration::from_millis(10));
            None
        }
    });
    let Some(all) = held else { return };
    for path in all.keys() {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    std::mem::forget(all);
}

/// Refuses a path that exists, unless it is an empty folder.
///
/// # Errors
/// [`StoreError::Io`] when the path exists and is not an empty folder.
pub fn vacant(path: &Path) -> Result<(), StoreError> {
    let refused = StoreError::io("make folder", path);
    match fs::read_dir(path).map(|mut items| items.next().is_none()) {
        Ok(true) if path.is_symlink() => Err(refused(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is a link; give the folder that it points to",
        ))),
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "exists and is not empty; choose another folder or remove this one",
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_symlink() => Err(refused(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is a link to a folder that does not exist; make that folder and give its own path",
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(refused(e)),
    }
}

/// Writes a folder through a temporary folder beside it, which is renamed after `fill`: a reader sees all of it or
/// nothing. `path` must be [`vacant`].
///
/// # Errors
/// Those of `fill`, and [`StoreError::Io`] with the step that failed. The temporary folder is then removed.
pub fn write_folder<T, E: From<StoreError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    vacant(path)?;
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(StoreError::io("make folder", parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o755));
    }
    let (temporary, _noted) = Noted::make(path, || builder.tempdir_in(parent), tempfile::TempDir::path)
        .map_err(StoreError::io("make a temporary folder for", path))?;
    let done = fill(temporary.path())?;
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("replace", path)(e).into());
        }
        _ => {}
    }
    fs::rename(temporary.path(), path).map_err(StoreError::io("rename into", path))?;
    // It was renamed: nothing is left to remove.
    let _ = temporary.keep();
    if let Ok(handle) = File::open(parent) {
        let _ = handle.sync_all();
    }
    Ok(done)
}

/// Names of the files in a folder with this ending, without it, in order; none for a folder that can't be read.
pub fn stems(folder: &Path, ending: &str) -> Vec<String> {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = items.map(|item| item.path()).filter(|path| path.extension().is_some_and(|e| e == ending));
    let mut names: Vec<String> =
        paths.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort_unstable();
    names
}

/// SHA-256 of bytes, in lower-case hexadecimal.
///
/// ```
/// let sum = mem2gen::store::sha256_hex(b"abc");
/// assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of values in single precision, little-endian, row by row.
pub fn rows_sha256(rows: ArrayView2<'_, f32>) -> String {
    let mut hash = Sha256::new();
    for row in rows.outer_iter() {
        hash.update(row.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    hex(&hash.finalize())
}

/// Bytes in lower-case hexadecimal.
///
/// ```
/// assert_eq!(mem2gen::store::hex(&[0, 255]), "00ff");
/// ```
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut s, b| {
        // Writing into a String can't fail.
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// A matrix from a `.npy` file, in the precision of the file.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// `<f4`
    F32(Array2<f32>),
    /// `<f8`
    F64(Array2<f64>),
}

impl Matrix {
    /// Number of rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::F32(a) => a.dim(),
            Self::F64(a) => a.dim(),
        }
    }

    /// The matrix in f64.
    pub fn into_f64(self) -> Array2<f64> {
        match self {
            Self::F32(a) => a.mapv(f64::from),
            Self::F64(a) => a,
        }
    }
}

/// Reads a two-dimensional `.npy` array of f32 or f64, in either byte order. The result is in standard layout for any
/// order in the file.
///
/// # Errors
/// [`StoreError::Io`] when the file can't be read; [`StoreError::Array`] for other element types or numbers of axes,
/// and when bytes are missing or left over at the end.
pub fn read_matrix(path: &Path) -> Result<Matrix, StoreError> {
    matrix(path, read_file(path)?)
}

/// As [`read_matrix`], from the bytes of the file.
///
/// # Errors
/// As [`read_matrix`].
pub(crate) fn matrix(path: &Path, bytes: Vec<u8>) -> Result<Matrix, StoreError> {
    let bad = |reason: String| StoreError::Array { path: path.to_path_buf(), reason };
    let npy::Array { kind, sizes, elements } = npy::read(bytes).map_err(bad)?;
    let [rows, columns] = sizes[..] else {
        return Err(bad(format!("its shape is {sizes:?}, expected [rows, columns]")));
    };
    let found = match elements {
        npy::Elements::F32(values) if kind == npy::Kind::Float(4) => {
            Array2::from_shape_vec((rows, columns), values).map(Matrix::F32)
        }
        npy::Elements::F64(values) if kind == npy::Kind::Float(8) => {
            Array2::from_shape_vec((rows, columns), values).map(Matrix::F64)
        }
        _ => return Err(bad(format!("the element type is {}, expected float32 or float64", kind.name()))),
    };
    found.map_err(|e| bad(e.to_string()))
}

/// The bytes of a file.
///
/// # Errors
/// [`StoreError::Io`] when it can't be read, is not a regular file (a pipe or a device has no length), or has more
/// bytes than memory is left.
pub fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let refused = |kind, reason: String| StoreError::io("open", path)(io::Error::new(kind, reason));
    // Opening a pipe would wait for a writer.
    let found = fs::metadata(path).map_err(StoreError::io("open", path))?;
    if !found.is_file() {
        let reason = "is not a regular file; write the data to a file first".to_owned();
        return Err(refused(io::ErrorKind::InvalidInput, reason));
    }
    if let Some(left) = memory_left()
        && found.len() > left
    {
        let reason = format!("has {} bytes, but {left} bytes of memory are left", found.len());
        return Err(refused(io::ErrorKind::OutOfMemory, reason));
    }
    let mut bytes = Vec::new();
    let length = usize::try_from(found.len()).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(length)
        .map_err(|_| refused(io::ErrorKind::OutOfMemory, format!("{length} bytes of memory are not left")))?;
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    // A file that grows is read to the length that it had, and files of the kernel say that they have none.
    file.take(found.len()).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(bytes)
}

/// Bytes of memory that the process can still take: the least that the limit of its address space, its control group and
/// the machine leave. `None` where the system does not say.
pub fn memory_left() -> Option<u64> {
    let text = |path: &str| fs::read_to_string(path).ok();
    let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
    let field = |path: &str, name: &str| {
        let text = text(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?.to_owned();
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok())
    };
    let used = || field("/proc/self/status", "VmSize:").map(|kib| kib << 10);
    // "unlimited" is not a number; the hard limit behind it is then not the one that counts.
    let address = || {
        let text = text("/proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?.to_owned();
        let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(limit.saturating_sub(used()?))
    };
    let group = || {
        let most = number("/sys/fs/cgroup/memory.max")?;
        Some(most.saturating_sub(number("/sys/fs/cgroup/memory.current")?))
    };
    let machine = || field("/proc/meminfo", "MemAvailable:").map(|kib| kib << 10);
    [address(), group(), machine()].into_iter().flatten().min()
}

/// Bytes that the user can still write in the file system of a folder. `None` where the system does not say.
pub fn disk_left(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// A part of an input for a message: at most 40 characters in quotes, with control characters escaped.
///
/// ```
/// use mem2gen::store::quoted;
///
/// assert_eq!(quoted("images"), "'images'");
/// assert_eq!(quoted("a\u{1b}[31m"), "'a\\u{1b}[31m'");
/// assert_eq!(quoted(&"x".repeat(1000)).len(), 45);
/// ```
pub fn quoted(text: &str) -> String {
    let mut kept: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if let Some((end, _)) = kept.char_indices().nth(80) {
        kept.truncate(end);
    }
    let cut = if text.chars().nth(40).is_some() { "..." } else { "" };
    format!("'{kept}{cut}'")
}

/// A reason that another library gives, for a message: at most 300 characters, with control characters escaped.
///
/// ```
/// use mem2gen::store::cut_reason;
///
/// assert_eq!(cut_reason("line 1\nline 2"), "line 1\\nline 2");
/// assert_eq!(cut_reason(&"x".repeat(1000)).len(), 303);
/// ```
pub fn cut_reason(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut kept: String = text.chars().take(301).map(escaped).collect();
    if let Some((end, _)) = kept.char_indices().nth(300) {
        kept.truncate(end);
        kept.push_str("...");
    }
    kept
}

/// A value from JSON.
///
/// # Errors
/// A reason in one line, as [`cut_reason`]: serde quotes what it did not expect.
///
/// ```
/// use mem2gen::store::from_json;
///
/// assert_eq!(from_json::<[u8; 2]>(b"[1, 2]")?, [1, 2]);
/// assert!(from_json::<u8>(b"\"a\\u001b\"").unwrap_err().starts_with("invalid type: string \"a\\u{1b}\""));
/// # Ok::<(), String>(())
/// ```
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|e| cut_reason(&e.to_string()))
}

/// A value from TOML.
///
/// # Errors
/// Line, column and reason in one line, as [`cut_reason`].
///
/// ```
/// use mem2gen::store::from_toml;
///
/// let read = from_toml::<std::collections::BTreeMap<String, u8>>;
/// assert_eq!(read("k = 2")?["k"], 2);
/// assert!(read("k = 2\nl = 1000").unwrap_err().starts_with("line 2, column 5: "));
/// # Ok::<(), String>(())
/// ```
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        cut_reason(&format!("line {}, column {column}: {}", before.matches('\n').count() + 1, e.message()))
    })
}

/// Writes an array as `.npy`, atomically.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_array<A, S, D>(path: &Path, array: &ArrayBase<S, D>) -> Result<(), StoreError>
where
    A: WritableElement,
    S: Data<Elem = A>,
    D: Dimension,
{
    write_atomic(path, |w| array.write_npy(w).map_err(io::Error::other))
}

/// Writes a `.npy` of f32, `[rows, columns]`, atomically and part by part, so that only one part is in memory.
///
/// # Errors
/// As [`write_atomic`]; the error of the first part that is one; [`StoreError::Array`] when the parts do not have this
/// shape.
pub fn write_rows(
    path: &Path,
    (rows, columns): (usize, usize),
    parts: impl IntoIterator<Item = Result<Array2<f32>, StoreError>>,
) -> Result<(), StoreError> {
    let mut fault = None;
    let written = write_atomic(path, |w| {
        // Version 1.0: the header with its length is a multiple of 64 bytes and ends in a new line.
        let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns})}}");
        let width = (10 + dict.len() + 1).next_multiple_of(64) - 11;
        w.write_all(b"\x93NUMPY\x01\x00")?;
        w.write_all(&((width + 1) as u16).to_le_bytes())?;
        writeln!(w, "{dict:width$}")?;
        let mut written = 0;
        for part in parts {
            let part = part.map_err(|e| {
                fault = Some(e);
                io::Error::other("a part can't be read")
            })?;
            if part.ncols() != columns {
                written = usize::MAX;
                break;
            }
            written += part.nrows();
            for v in &part {
                w.write_all(&v.to_le_bytes())?;
            }
        }
        if written != rows {
            let reason = format!("the parts do not have the shape [{rows}, {columns}]");
            fault = Some(StoreError::Array { path: path.to_path_buf(), reason });
            return Err(io::Error::other("wrong shape"));
        }
        Ok(())
    });
    match fault {
        Some(fault) => Err(fault),
        None => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn arrays_come_back_and_fortran_order_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/a.npy");
        let a = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        write_array(&path, &a.t()).unwrap();
        match read_matrix(&path).unwrap() {
            Matrix::F32(b) => assert_eq!(b, a.t()),
            Matrix::F64(_) => panic!("the precision changed"),
        }
    }

    #[test]
    fn rows_written_in_parts_are_one_array() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for columns in [1, 3, 784] {
            let all = Array2::from_shape_fn((11, columns), |(i, k)| (i * columns + k) as f32 - 0.5);
            let parts = all.axis_chunks_iter(ndarray::Axis(0), 4).map(|part| Ok(part.to_owned()));
            write_rows(&path, (11, columns), parts).unwrap();
            assert!(matches!(read_matrix(&path).unwrap(), Matrix::F32(b) if b == all));
            // The bytes of `write_array`.
            let bytes = fs::read(&path).unwrap();
            write_array(&path, &all).unwrap();
            assert_eq!(bytes, fs::read(&path).unwrap());
        }
        let part = || Ok(Array2::<f32>::zeros((2, 3)));
        fs::remove_file(&path).unwrap();
        for (rows, columns) in [(5, 3), (3, 3), (4, 2)] {
            let e = write_rows(&path, (rows, columns), [part(), part()]).unwrap_err();
            assert!(matches!(e, StoreError::Array { .. }), "{e}");
        }
        let bad = || StoreError::Array { path: "part".into(), reason: "cut".into() };
        let e = write_rows(&path, (4, 3), [part(), Err(bad())]).unwrap_err();
        assert_eq!(e.to_string(), bad().to_string());
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_a_regular_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for path in [path.as_path(), dir.path()] {
            let error = write_atomic(path, |w| w.write_all(b"new")).unwrap_err();
            assert!(matches!(&error, StoreError::Io { operation: "write", .. }), "{error}");
            assert!(!fs::metadata(path).unwrap().is_file());
        }
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(failed, Err(StoreError::Io { operation: "write", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_written_completely_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/out");
        let fill = |ok: bool| {
            move |folder: &Path| {
                write_atomic(&folder.join("a"), |w| w.write_all(b"a"))?;
                if ok { Ok(1) } else { Err(StoreError::Array { path: "b".into(), reason: "bad".into() }) }
            }
        };
        assert!(write_folder(&path, fill(false)).is_err());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
        fs::create_dir(&path).unwrap();
        assert_eq!(write_folder(&path, fill(true)).unwrap(), 1);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"a");
        // The existing folder stays unchanged.
        let error = write_folder(&path, fill(true)).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        assert!(vacant(&path.join("a")).is_err());
        // A rename would replace the link, or fail at the end of the work.
        for (link, target) in [("to nothing", "none"), ("to an empty folder", "empty")] {
            fs::create_dir_all(dir.path().join("empty")).unwrap();
            let link = dir.path().join(link);
            std::os::unix::fs::symlink(dir.path().join(target), &link).unwrap();
            let error = vacant(&link).unwrap_err().to_string();
            assert!(error.contains("is a link"), "{error}");
        }
    }

    #[test]
    fn other_element_types_and_cut_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        write_array(&path, &array![[1i32, 2]]).unwrap();
        let message = read_matrix(&path).unwrap_err().to_string();
        assert!(message.contains("a.npy") && message.contains("float32"), "{message}");

        write_array(&path, &array![[1.0f64, 2.0]]).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(matches!(read_matrix(&path), Err(StoreError::Array { .. })));
        fs::write(&path, [&bytes[..], b"tail"].concat()).unwrap();
        assert!(matches!(read_matrix(&path), Err(StoreError::Array { .. })));
    }
}
