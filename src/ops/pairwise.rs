use std::ops::Range;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::placed::Placed;
use super::readout::check_reach;
use super::sweep::{Panel, Slack, Tile, pieces, tile_rows};
use super::{Element, Memories, OpError};

/// Number of tiles of the inner loops in one tile of the result. They are computed in parallel.
const TOGETHER: usize = 32;

/// Squared distances between some queries and some memories.
#[derive(Debug)]
pub struct PairTile<'a, T> {
    /// Rows of the queries.
    pub queries: Range<usize>,
    /// Rows of the memories.
    pub memories: Range<usize>,
    /// ||x - y||^2, `[queries, memories]`.
    pub squared: ArrayView2<'a, T>,
}

impl<T> PairTile<'_, T> {
    /// Largest relative error of a squared distance in roundings, half units in the last place of 1: 6e-5 in f32 and
    /// 1.1e-13 in f64.
    pub const ERROR: f64 = 1024.0;
}

pub(super) fn pairwise<T: Element>(
    memories: &Memories<T>,
    queries: ArrayView2<'_, T>,
    mut tile: impl FnMut(PairTile<'_, T>),
) -> Result<(), OpError> {
    memories.check_queries("pairwise", &queries)?;
    check_reach("pairwise", memories, queries)?;
    if let Some(resident) = &memories.resident {
        return resident.pairwise(queries, tile);
    }
    let n = memories.dim();
    let queries = queries.as_standard_layout();
    let rows = queries.as_slice().expect("the queries are in standard layout");
    let most = tile_rows(memories);
    let mut out = Vec::new();
    for (first, x) in (0..).step_by(T::PANEL).zip(rows.chunks(T::PANEL * n)) {
        let panel = Panel::new(memories, first, x);
        for columns in pieces(0..memories.len(), TOGETHER * most) {
            out.resize(columns.len() * panel.width, T::ZERO);
            out.par_chunks_mut(most * panel.width).enumerate().for_each_init(
                || Tile::new(memories),
                |tile, (i, out)| {
                    let start = columns.start + i * most;
                    tile.fill(memories, start..start + out.len() / panel.width);
                    distances(memories, tile, &panel, out);
                },
            );
            let shape = (columns.len(), panel.width);
            let view = ArrayView2::from_shape(shape, &out).expect("the tile has this many values");
            tile(PairTile {
                queries: first..first + panel.count,
                memories: columns,
                squared: view.slice(s![.., ..panel.count]).reversed_axes(),
            });
        }
    }
    Ok(())
}

/// Squared distances of the memories of a tile to the queries of a panel, `[size, width]`.
fn distances<T: Element>(memories: &Memories<T>, tile: &mut Tile<T>, panel: &Panel<'_, T>, out: &mut [T]) {
    let start = tile.start;
    let mut floors = vec![T::from_f64(f64::INFINITY); panel.width];
    let mut norms2 = vec![0.0; panel.width];
    for (q, norm2) in panel.norms2.iter().enumerate() {
        // Closer memories have lost too many digits in the expansion.
        let limit = 2.0 * Slack::new(memories, *norm2).at(0.0) / (PairTile::<T>::ERROR * T::ROUNDING);
        floors[q] = T::from_f64((norm2 - limit) / 2.0);
        norms2[q] = *norm2;
    }
    let values = tile.closeness(panel);
    for (out, values) in out.chunks_exact_mut(panel.width).zip(values.chunks_exact(panel.width)) {
        for ((out, v), norm2) in out.iter_mut().zip(values).zip(&norms2) {
            *out = T::from_f64(norm2 - 2.0 * v.f64());
        }
    }
    T::at_least(values, &floors, |j, q| {
        let d2 = T::distance2(panel.query(q), memories.row(start + j));
        out[j * panel.width + q] = T::from_f64(d2);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::Array2;

    fn check<T: Element>(rows: &Array2<T>, queries: &Array2<T>) {
        let memories = Memories::new(rows.clone()).unwrap();
        let mut next = (0, 0);
        let bound = PairTile::<T>::ERROR * T::ROUNDING;
        memories
            .pairwise(queries.view(), |tile| {
                assert_eq!((tile.queries.start, tile.memories.start), next);
                assert_eq!(tile.squared.dim(), (tile.queries.len(), tile.memories.len()));
                next = match tile.memories.end == rows.nrows() {
                    true => (tile.queries.end, 0),
                    false => (tile.queries.start, tile.memories.end),
                };
                for ((i, j), d2) in tile.squared.indexed_iter() {
                    let (x, y) = (queries.row(tile.queries.start + i), rows.row(tile.memories.start + j));
                    let exact: f64 = x.iter().zip(y).map(|(a, b)| (a.f64() - b.f64()).powi(2)).sum();
                    assert!((d2.f64() - exact).abs() <= bound * exact, "{i} {j}: {d2:?}, not {exact}");
                }
            })
            .unwrap();
        assert_eq!(next, (queries.nrows(), 0));
    }

    #[test]
    fn every_distance_is_accurate_and_copies_are_at_zero() {
        let mut s = Stream::new(1, "pairwise");
        for (k, n, offset) in [(1, 1, 0.0), (300, 2, 1e4), (9000, 3, 0.0), (700, 20, 100.0), (530, 400, 3.0)]
        {
            let rows = Array2::from_shape_fn((k, n), |_| (offset + s.normal()) as f32);
            // Copies, near copies at many distances, and points apart.
            let queries = Array2::from_shape_fn((61, n), |(i, j)| {
                rows[[i % k, j]] + [0.0, 1.0][i % 2] * (10f32).powi(-(i as i32 % 6)) * s.normal() as f32
            });
            check(&rows, &queries);
            check(&rows.mapv(f64::from), &queries.mapv(f64::from));
        }
    }
}
