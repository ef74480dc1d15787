//! Perceptual distances, made into distances of vectors.
//!
//! LPIPS of two images is the squared l2 distance between two [rows of features](Lpips::features), one an image. So all
//! pairs of n images cost n passes through the network and one search for nearest [memories](crate::ops::Memories),
//! which [`Features::knn`] does, out of memory or out of a file.
//!
//! Rows are long. An image of 32x32 or less takes 23 kB with AlexNet and 500 kB with VGG16, one of 64x64 127 kB and 2 MB:
//! 10000 images make 0.23 and 5 GB, or 1.3 and 20 GB. [`Lpips::features`] has them in memory; [`Lpips::stored`] writes
//! them to a file (which a run that is killed leaves behind as `.mem2gen-*`) and needs room for a batch only;
//! [`Lpips::distances`] keeps none.

mod error;
mod features;
mod lpips;

pub use error::DistanceError;
pub use features::{Features, Neighbours};
pub use lpips::{Backbone, Lpips};
