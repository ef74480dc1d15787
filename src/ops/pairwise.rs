use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use super::readout::check_reach;
use super::{Element, Memories, OpError};

/// Queries in a tile.
const QUERIES: usize = 240;
/// Memories in a tile.
const MEMORIES: usize = 4096;

/// Squared distances between some queries and some memories.
#[derive(Debug)]
pub struct PairTile<'a, T> {
    /// Rows of the queries.
    pub queries: Range<usize>,
    /// Rows of the memories.
    pub memories: Range<usize>,
    /// ||x - y||^2, a row a query and a column a memory.
    pub squared: ArrayView2<'a, T>,
}

impl<T> PairTile<'_, T> {
    /// Largest relative error of a squared distance, in units of half a unit in the last place of 1.
    pub const ERROR: f64 = 256.0;
}

pub(super) fn pairwise<T: Element>(
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
    mut tile: impl FnMut(PairTile<'_, T>),
) -> Result<(), OpError> {
    memories.check_queries("pairwise", &queries)?;
    check_reach("pairwise", memories, queries)?;
    let queries = queries.as_standard_layout();
    for q in (0..queries.nrows()).step_by(QUERIES) {
        let rows = q..queries.nrows().min(q + QUERIES);
        for start in (0..memories.len()).step_by(MEMORIES) {
            let columns = start..memories.len().min(start + MEMORIES);
            let squared = Array2::from_shape_fn((rows.len(), columns.len()), |(i, j)| {
                let x = queries.row(rows.start + i).to_slice().unwrap_or_default();
                T::from_f64(T::distance2(x, memories.rows.row(start + j).to_slice().unwrap_or_default()))
            });
            tile(PairTile { queries: rows.clone(), memories: columns, squared: squared.view() });
        }
    }
    Ok(())
}
