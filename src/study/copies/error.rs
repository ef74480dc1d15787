use super::Size;
use crate::data::DataError;
use crate::detect::DetectError;
use crate::distance::DistanceError;
use crate::frame::TableError;
use crate::metric::Metric;
use crate::plot::FigureError;
use crate::store::StoreError;

/// Why a synthetic set could not be compared with its training set.
#[derive(Debug, thiserror::Error)]
pub enum CopiesError {
    /// The images can't be read or compared.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The search for neighbours or the classification failed.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// LPIPS failed.
    #[error(transparent)]
    Distance(#[from] DistanceError),
    /// The table of labels can't be built or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A figure can't be drawn.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// A file can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// LPIPS was asked for vectors whose image shape is unknown.
    #[error(
        "classify: {metric} compares images, but no input gives the shape of its {values} values; give arrays of \
         shape [n, height, width], or --layout for rows of square images, or use l2"
    )]
    UnknownShape {
        /// The metric.
        metric: &'static str,
        /// Values of an image.
        values: usize,
    },
    /// Mirrored or moved images were asked for, but the shape of an image is unknown.
    #[error(
        "classify: --flips and --shifts move images, but no input gives the shape of its {values} values; give arrays of \
         shape [n, height, width], or leave them out"
    )]
    NothingToMove {
        /// Values of an image.
        values: usize,
    },
    /// The held-out images are samples.
    #[error(
        "{equal} of {images} held-out images in {} equal a sample; held-out images must be real images that no model made",
        path.display()
    )]
    HeldOutAreSamples {
        /// The held-out images.
        path: std::path::PathBuf,
        /// Number of those that equal a sample.
        equal: usize,
        /// Number of held-out images.
        images: usize,
    },
    /// A row of zeros has no direction.
    #[error("classify: row {row} of {} is zero, and cosine compares directions; remove it or use l2", path.display())]
    ZeroRow {
        /// The input.
        path: std::path::PathBuf,
        /// The row, from 0.
        row: usize,
    },
    /// The comparison needs more memory than it may take.
    #[error("classify: {}", match given {
        Some(given) => format!("--memory is {given}, expected at least {least} for {images} images; give it more"),
        None => format!(
            "{images} images need at least {least} of memory, {allowed} may be taken; free some or give fewer images"
        ),
    })]
    Memory {
        /// Images of all inputs.
        images: usize,
        /// The given bound.
        given: Option<Size>,
        /// What the system leaves beside the images.
        allowed: Size,
        /// Least memory of the comparison.
        least: Size,
    },
    /// The disk is too small for the features that do not fit into memory.
    #[error(
        "classify: the {metric} features take {needed} in {}, {free} are free; give --memory more, fewer images or another \
         disk to --out{}",
        folder.display(),
        if *metric == Metric::LpipsAlex.name() { "" } else { ", or use lpips-alex" }
    )]
    Disk {
        /// The metric.
        metric: &'static str,
        /// Bytes of the features.
        needed: Size,
        /// The folder of the temporary files.
        folder: std::path::PathBuf,
        /// Free bytes of its disk.
        free: Size,
    },
}
