//! The frame of nearest neighbours.

use polars::prelude::DataFrame;

use crate::frame::{TableError, floats, frame, integers};
use crate::ops::Knn;

/// One row a neighbour: `query` and `index` (rows of the two arrays, from 0), `rank` (1 is the nearest) and
/// `distance` (l2, not squared), sorted by query and rank.
///
/// # Errors
/// Those of [`frame`].
pub fn knn_frame(found: &Knn) -> Result<DataFrame, TableError> {
    let places = || found.index.indexed_iter();
    frame(
        "nearest neighbours",
        vec![
            integers("query", places().map(|((query, _), _)| query as i64).collect()),
            integers("rank", places().map(|((_, rank), _)| rank as i64 + 1).collect()),
            integers("index", places().map(|(_, index)| *index as i64).collect()),
            floats("distance", found.distance.iter().copied().collect()),
        ],
    )
}
