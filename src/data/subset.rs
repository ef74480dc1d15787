//! Nested training sets: one seeded permutation, and its first K indices.
//!
//! The permutation is Fisher-Yates over `0..n` with bounded integers by Lemire's rejection, drawn from
//! the [`Stream`] called [`STREAM`] under seed 3407 (ChaCha8, see [`crate::random`]). It depends on n
//! alone: not on the platform, nor on the version of any `rand` crate. A training set of size K is the
//! first K of it, so that each set holds every smaller one.

use crate::random::{SEED, Stream};

use super::DataError;

/// Name of the stream that the permutation is drawn from.
pub const STREAM: &str = "data subset";

/// The permutation of a full set of `n` images.
pub fn order(n: usize) -> Vec<usize> {
    Stream::new(SEED, STREAM).permutation(n)
}

/// Indices of the training set of size `k` out of `n` images, in the order of the permutation.
///
/// # Errors
/// [`DataError::SubsetSize`] where `k` is 0 or above `n`.
pub fn indices(n: usize, k: usize) -> Result<Vec<usize>, DataError> {
    if k == 0 || k > n {
        return Err(DataError::SubsetSize { k, n });
    }
    let mut order = order(n);
    order.truncate(k);
    Ok(order)
}
