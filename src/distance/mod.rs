//! Perceptual distances, made into distances of vectors.
//!
//! LPIPS of two images is the squared l2 distance between two [rows of features](Lpips::features), one an image. So all
//! pairs of n images cost n passes through the network and one search for nearest [memories](crate::ops::Memories),
//! which [`Features::knn`] does, out of memory or out of a file.

mod error;
mod features;
mod lpips;

pub use error::DistanceError;
pub use features::{Features, Neighbours};
pub use lpips::{Backbone, Lpips};
