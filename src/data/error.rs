//! Errors of reading, fetching and verifying data.

use std::io;
use std::path::{Path, PathBuf};

use crate::display::counted;
use crate::store::StoreError;

use super::Split;

/// Why data could not be read, fetched, verified or cut.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The registry has no entry of this name.
    #[error("data set '{name}': unknown name, expected one of {known}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// All known names, separated by commas.
        known: String,
    },
    /// Neither a data set nor a file has this name.
    #[error("data set '{name}': no such file exists, and the known names are {known}")]
    NoSuch {
        /// The name asked for.
        name: String,
        /// All known names, separated by commas.
        known: String,
    },
    /// The data set has no such split.
    #[error("load {name}: the data set has no {split} split")]
    NoSplit {
        /// The data set.
        name: String,
        /// The split asked for.
        split: Split,
    },
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file does not start with the magic number of its format.
    #[error("read {}: magic number {found:#010x}, expected {expected}", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// The first four bytes, most significant first.
        found: u32,
        /// Accepted magic numbers.
        expected: &'static str,
    },
    /// The array has no element, or the file is empty.
    #[error("read {}: empty, the sizes are {sizes:?}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Sizes in the header, or the length of the file.
        sizes: Vec<u64>,
    },
    /// The product of the sizes in the header overflows.
    #[error("read {}: the product of the sizes {sizes:?} in the header overflows", path.display())]
    Overflow {
        /// The file.
        path: PathBuf,
        /// The sizes in the header.
        sizes: Vec<u64>,
    },
    /// The file has fewer bytes than its header gives.
    #[error("read {}: truncated, {found} bytes, expected {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The file has more bytes than its header gives.
    #[error("read {}: trailing bytes, {found} bytes, expected {expected}", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: u64,
        /// Bytes found; a lower bound for a compressed file.
        found: u64,
    },
    /// The header gives more bytes than the compressed bytes can hold.
    #[error("inflate {}: the header gives {promised} bytes, but {compressed} compressed bytes hold at most {most}", path.display())]
    Inflation {
        /// The file.
        path: PathBuf,
        /// Bytes that the header gives.
        promised: u64,
        /// Bytes of the compressed file.
        compressed: u64,
        /// Largest number of bytes that DEFLATE can produce from them.
        most: u64,
    },
    /// The gzip stream is damaged or truncated.
    #[error("inflate {} ({compressed} bytes): {source}", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Bytes of the compressed file.
        compressed: u64,
        /// The decoder's own error.
        source: io::Error,
    },
    /// The length of a batch file is not a multiple of the record length.
    #[error("read {}: {found} bytes, expected a multiple of {record}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        found: u64,
        /// Bytes of a record.
        record: u64,
    },
    /// A label beyond the last class.
    #[error("read {}: label {label} at index {index}, expected a label below {classes}", path.display())]
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
    /// An image can't be decoded.
    #[error("decode image {} ({size} bytes): {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        size: u64,
        /// Description of the damage.
        reason: String,
    },
    /// The images have another shape than the data set's.
    #[error("read {}: images are {found:?} (height, width, channels), expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Height, width and channels of the data set.
        expected: (usize, usize, usize),
        /// Height, width and channels in the file.
        found: (usize, usize, usize),
    },
    /// A file or folder has another number of items than expected.
    #[error("read {}: {found} {what}, expected {expected}", path.display())]
    Count {
        /// The file or folder.
        path: PathBuf,
        /// What was counted.
        what: &'static str,
        /// Number expected.
        expected: usize,
        /// Number found.
        found: usize,
    },
    /// Images, labels and shape do not fit together.
    #[error(
        "data set: {images} images of {pixels} values and {labels} labels, expected one label an image and the values of \
         shape {shape:?}"
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
    /// Inputs that look like images were not read.
    #[error("read {}: read {}, passed over {count}: {names}; {advice}", path.display(), counted(*read, "image"))]
    Passed {
        /// The folder or file.
        path: PathBuf,
        /// Number of images that can be read.
        read: usize,
        /// Number of what was passed over.
        count: usize,
        /// The first of them, each with the reason.
        names: String,
        /// What to do.
        advice: &'static str,
    },
    /// An input can be understood in more than one way.
    #[error("read {}: {reason}", path.display())]
    Unclear {
        /// The file.
        path: PathBuf,
        /// What is not clear, and the option that says it.
        reason: String,
    },
    /// The images take more memory than is left.
    #[error("read {}: {images} images need {bytes} bytes of memory, but {left} are left; use fewer or smaller images", path.display())]
    Memory {
        /// The file or folder.
        path: PathBuf,
        /// Number of images.
        images: usize,
        /// Bytes needed.
        bytes: u64,
        /// Bytes left.
        left: u64,
    },
    /// Images that a network can't be trained on.
    #[error("train on {}: {reason}", path.display())]
    NotImages {
        /// The file or folder.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        reason: String,
    },
    /// Images of two inputs have different shapes.
    #[error(
        "compare images: {} has {found}, {} has {expected}; give images of one shape ('classify' resizes them with --size)",
        path.display(), other.display()
    )]
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
    /// Values of two inputs are in different ranges.
    #[error(
        "compare images: values of {} are in {found}, those of {} in {expected}; say their ranges with \
         --train-range, --synthetic-range and --held-out-range, or give --any-range to compare them as they are",
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
    /// The checksum of the decoded arrays is wrong.
    #[error("verify {name}, {split}: SHA-256 of the decoded arrays is {found}, expected {expected}")]
    Checksum {
        /// The data set.
        name: String,
        /// The split.
        split: Split,
        /// Expected checksum.
        expected: String,
        /// Checksum found.
        found: String,
    },
    /// A pickle has other contents than expected, or other instructions.
    #[error("read {}: {reason}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
    /// Icons, their names or captions have another form than expected.
    #[error("read {}: {reason}", path.display())]
    Icons {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A file of weights can't be read or written.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
    /// The checksum of a file is wrong.
    #[error("verify {}: SHA-256 is {found}, expected {expected}", path.display())]
    Sum {
        /// The file.
        path: PathBuf,
        /// Expected checksum.
        expected: String,
        /// Checksum found.
        found: String,
    },
    /// A file of a package differs from that of the version in the registry.
    #[error("verify {}: SHA-256 is {found}, expected {expected} of {package}; give the unchanged files of this version", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Name and version of the package.
        package: String,
        /// Expected checksum.
        expected: String,
        /// Checksum found.
        found: String,
    },
    /// The size of a training set is 0 or above the number of images.
    #[error("training set: size K is {k}, expected 1 to {n}")]
    SubsetSize {
        /// Size requested.
        k: usize,
        /// Number of images.
        n: usize,
    },
    /// An index is beyond the last image.
    #[error("select images: index is {index}, expected below {n}")]
    Index {
        /// The index.
        index: usize,
        /// Number of images.
        n: usize,
    },
    /// The data set was not fetched.
    #[error("load {name}: not in {}; fetch it with 'mem2gen data fetch {name}{from}'", folder.display())]
    Absent {
        /// The data set.
        name: String,
        /// Its folder in the cache.
        folder: PathBuf,
        /// ` --from DIR` for a data set that only the user has; else empty.
        from: &'static str,
    },
    /// The manifest of a fetched data set is missing or unreadable.
    #[error("read manifest {}: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
    /// The folder lacks a file of the data set.
    #[error("fetch {name}: no file in {} is called {tried}", folder.display())]
    MissingFile {
        /// The data set.
        name: String,
        /// The folder searched.
        folder: PathBuf,
        /// The names tried, separated by commas.
        tried: String,
    },
    /// The data set has no public source.
    #[error("fetch {name}: it has no public package; give your own files with --from DIR ({needs})")]
    NoSource {
        /// The data set.
        name: String,
        /// The files that DIR must hold.
        needs: String,
    },
    /// A program that the fetch runs is not installed.
    #[error("fetch {name}: program '{tool}' not found; install it, or give the files with --from DIR")]
    MissingTool {
        /// The data set.
        name: String,
        /// The program.
        tool: &'static str,
    },
    /// A program that the fetch runs failed.
    #[error("fetch {name}: '{command}' failed ({status}): {message}; or give the files with --from DIR")]
    Tool {
        /// The data set.
        name: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// Last lines of its output, joined, with advice.
        message: String,
    },
}

impl DataError {
    /// Adds operation and path to an I/O error.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}
