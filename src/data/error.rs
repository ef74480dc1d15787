//! Everything that can go wrong between a data set's source and its arrays in memory.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::StoreError;

use super::Split;

/// Why data could not be read, fetched, verified or cut.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No entry of the registry has this name.
    #[error("find data set '{name}': unknown; known are {known}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// All names there are, separated by commas.
        known: String,
    },
    /// The data set comes without this split.
    #[error("load {name}: it has no {split} split")]
    NoSplit {
        /// The data set.
        name: String,
        /// The split asked for.
        split: Split,
    },
    /// The operating system refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first bytes are not those of the format.
    #[error("read {}: magic number {found:#010x}, expected {expected}", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// The first four bytes, most significant first.
        found: u32,
        /// What would be right.
        expected: &'static str,
    },
    /// An array with no element, or an empty file.
    #[error("read {}: empty, its sizes are {sizes:?}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The sizes that the header gives, or the length of the file.
        sizes: Vec<u64>,
    },
    /// The product of the sizes in the header is no number of bytes that a file can have.
    #[error("read {}: sizes {sizes:?} of the header overflow", path.display())]
    Overflow {
        /// The file.
        path: PathBuf,
        /// The sizes in the header.
        sizes: Vec<u64>,
    },
    /// Fewer bytes than the header promises.
    #[error("read {}: truncated, {found} bytes where {expected} are due", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes due.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// More bytes than the header promises.
    #[error("read {}: trailing bytes, {found} bytes where {expected} are due", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes due.
        expected: u64,
        /// Bytes there; of a compressed file a lower bound.
        found: u64,
    },
    /// The header promises more than so few compressed bytes can hold.
    #[error("inflate {}: the header promises {promised} bytes, {compressed} compressed bytes hold at most {most}", path.display())]
    Inflation {
        /// The file.
        path: PathBuf,
        /// Bytes promised.
        promised: u64,
        /// Bytes of the compressed file.
        compressed: u64,
        /// The most that DEFLATE makes of them.
        most: u64,
    },
    /// The gzip stream is damaged or cut short.
    #[error("inflate {} ({compressed} bytes): {source}", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Bytes of the compressed file.
        compressed: u64,
        /// The decoder's own error.
        source: io::Error,
    },
    /// A batch file that is no whole number of records.
    #[error("read {}: {found} bytes are no whole number of {record}-byte records", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        found: u64,
        /// Bytes of a record.
        record: u64,
    },
    /// A label beyond the last class.
    #[error("read {}: label {label} at index {index} is out of range, there are {classes} classes", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Position in the file.
        index: usize,
        /// The label.
        label: u8,
        /// Number of classes.
        classes: u8,
    },
    /// A picture that can't be decoded.
    #[error("decode image {} ({size} bytes): {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        size: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Images of another shape than the data set's.
    #[error("read {}: images are {found:?} (height, width, channels), expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Height, width and channels of the data set.
        expected: (usize, usize, usize),
        /// Height, width and channels in the file.
        found: (usize, usize, usize),
    },
    /// Another number of things than is due.
    #[error("read {}: {found} {what}, expected {expected}", path.display())]
    Count {
        /// The file or folder.
        path: PathBuf,
        /// What was counted.
        what: &'static str,
        /// How many are due.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Arrays that do not belong together.
    #[error(
        "make a data set: {images} images of {pixels} values and {labels} labels do not fit shape {shape:?}"
    )]
    Mismatch {
        /// Rows of the image array.
        images: usize,
        /// Columns of the image array.
        pixels: usize,
        /// Number of labels.
        labels: usize,
        /// Height, width and channels.
        shape: (usize, usize, usize),
    },
    /// Images of two inputs that can't be compared.
    #[error("compare images: {} has {found}, {} has {expected}", path.display(), other.display())]
    Unlike {
        /// One input.
        path: PathBuf,
        /// Shape of its images.
        found: String,
        /// The other input.
        other: PathBuf,
        /// Shape of its images.
        expected: String,
    },
    /// Values of two inputs that are not in the same range.
    #[error(
        "compare images: values of {} are in {found}, of {} in {expected}; bring them to one range, or say that \
         they are comparable with --any-range",
        path.display(), other.display()
    )]
    UnlikeRange {
        /// One input.
        path: PathBuf,
        /// Range of its values.
        found: String,
        /// The other input.
        other: PathBuf,
        /// Range of its values.
        expected: String,
    },
    /// The decoded arrays are not those that they should be.
    #[error("verify {name}, {split}: SHA-256 of the decoded arrays is {found}, expected {expected}")]
    Checksum {
        /// The data set.
        name: String,
        /// The split.
        split: Split,
        /// The sum due.
        expected: String,
        /// The sum of what is there.
        found: String,
    },
    /// A pickle that is no dictionary of float32 arrays, or does anything else.
    #[error("read {}: pickle, byte {at}: {reason}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where the instruction begins.
        at: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of weights that can't be read or written.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is not the one that it should be.
    #[error("verify {}: SHA-256 is {found}, expected {expected}", path.display())]
    Sum {
        /// The file.
        path: PathBuf,
        /// The sum due.
        expected: String,
        /// The sum of what is there.
        found: String,
    },
    /// A training set of no or of too many images.
    #[error("take subset: size {k} is not in 1..={n}")]
    SubsetSize {
        /// The size asked for.
        k: usize,
        /// Images there are.
        n: usize,
    },
    /// An index beyond the last image.
    #[error("take rows: index {index} is not below {n}")]
    Index {
        /// The index.
        index: usize,
        /// Images there are.
        n: usize,
    },
    /// The data set was not fetched.
    #[error("load {name}: not in {}; bring it with 'mem2gen data fetch {name}{from}'", folder.display())]
    Absent {
        /// The data set.
        name: String,
        /// Where it would lie.
        folder: PathBuf,
        /// ` --from DIR` where nothing else can bring it.
        from: &'static str,
    },
    /// The note that a fetch leaves is unreadable.
    #[error("read manifest {}: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the data set needs is not in the folder.
    #[error("fetch {name}: {} has none of {tried}", folder.display())]
    MissingFile {
        /// The data set.
        name: String,
        /// The folder searched.
        folder: PathBuf,
        /// The names tried, separated by commas.
        tried: String,
    },
    /// Only the user can bring this data set.
    #[error("fetch {name}: it has no public package; give your own files with --from DIR ({needs})")]
    NoSource {
        /// The data set.
        name: String,
        /// The files that DIR must hold.
        needs: String,
    },
    /// A program that the fetch calls is not installed.
    #[error("fetch {name}: program '{tool}' not found; install it, or give the files with --from DIR")]
    MissingTool {
        /// The data set.
        name: String,
        /// The program.
        tool: &'static str,
    },
    /// A program that the fetch calls failed.
    #[error("fetch {name}: '{command}' failed ({status}): {message}; or give the files with --from DIR")]
    Tool {
        /// The data set.
        name: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of what it said, on one line, and what may help.
        message: String,
    },
}

impl DataError {
    /// Names the operation and the path of an I/O error.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}
