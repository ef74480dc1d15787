//! Nested training sets: the first K indices of one seeded permutation.
//!
//! The permutation is Fisher-Yates over `0..n` with bounded integers by Lemire's rejection, drawn from the [`Stream`]
//! called [`STREAM`] under seed 3407 (ChaCha8, see [`crate::random`]). It depends only on n, not on the platform or the
//! version of a `rand` crate. Each training set contains every smaller one.

use crate::random::{SEED, Stream};

use super::DataError;

/// Name of the permutation's random stream.
pub const STREAM: &str = "data subset";

/// The permutation of a full set of `n` images.
pub fn order(n: usize) -> Vec<usize> {
    Stream::new(SEED, STREAM).permutation(n)
}

/// Indices of the training set of size `k` out of `n` images, in the order of the permutation.
///
/// # Errors
/// [`DataError::SubsetSize`] when `k` is 0 or above `n`.
///
/// ```
/// use mem2gen::data::subset;
///
/// let (small, large) = (subset::indices(1000, 3)?, subset::indices(1000, 10)?);
/// assert_eq!(small, large[..3]);
/// assert!(subset::indices(1000, 1001).is_err());
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub fn indices(n: usize, k: usize) -> Result<Vec<usize>, DataError> {
    if k == 0 || k > n {
        return Err(DataError::SubsetSize { k, n });
    }
    let mut order = order(n);
    order.truncate(k);
    Ok(order)
}
