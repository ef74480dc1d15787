//! Tables for measurements at given points: nearest memories and likelihoods.

mod knn;
mod likelihood;

pub use knn::knn_frame;
pub use likelihood::likelihood_frame;
