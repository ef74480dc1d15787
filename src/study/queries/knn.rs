//! The table of nearest neighbours.

use polars::prelude::DataFrame;

use crate::frame::{Item, TableError, frame};
use crate::ops::Knn;

/// One row for each neighbour: `query` and `index` (rows of the two arrays, from 0), `rank` (1 is the nearest) and
/// `distance` (l2, not squared), sorted by query and rank.
///
/// ```
/// use mem2gen::frame::Item;
/// use mem2gen::ops::Memories;
/// use mem2gen::study::queries::knn_frame;
/// use ndarray::array;
///
/// let reference = array![[0.0f32, 0.0], [3.0, 4.0]];
/// let found = Memories::new(reference)?.knn(array![[0.0f32, 1.0]].view(), 2, false)?;
/// let table = knn_frame(&found)?;
/// assert_eq!(usize::read(&table, "index")?, [0, 1]);
/// assert_eq!(f64::read(&table, "distance")?, [1.0, 18f64.sqrt()]);
/// # Ok::<(), mem2gen::Error>(())
/// ```
///
/// # Errors
/// As [`frame`].
pub fn knn_frame(found: &Knn) -> Result<DataFrame, TableError> {
    let places = || found.index.indexed_iter();
    frame(
        "nearest neighbours",
        vec![
            Item::column("query", places().map(|((query, _), _)| query).collect()),
            Item::column("rank", places().map(|((_, rank), _)| rank + 1).collect()),
            Item::column("index", places().map(|(_, index)| *index).collect()),
            Item::column("distance", found.distance.iter().copied().collect()),
        ],
    )
}
