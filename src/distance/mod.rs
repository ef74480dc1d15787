//! Perceptual distances as distances between vectors.
//!
//! LPIPS of two images is the squared l2 distance between their [rows of features](Lpips::features). All pairs of n images
//! thus cost n passes through the network and one search for nearest [memories](crate::ops::Memories).
//!
//! Rows are long. An image of 32x32 or less takes 23 kB with AlexNet and 500 kB with VGG16, one of 64x64 127 kB and 2 MB:
//! 10000 images take 0.23 and 5 GB, or 1.3 and 20 GB. [`Lpips::features`] keeps them in memory; [`Lpips::distances`] needs
//! memory for one batch.

mod error;
mod lpips;

pub use error::DistanceError;
pub use lpips::{Backbone, Lpips};
