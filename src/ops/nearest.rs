use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::readout::{TILE, block_size, check_reach, product};
use super::{Element, Memories, OpError};

/// The nearest memory of each of m queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Row of the memory, `[m]`.
    pub index: Vec<usize>,
    /// l2 distance to it (not squared), `[m]`.
    pub distance: Vec<f64>,
}

pub(super) fn nearest<T: Element>(
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
    exclude_self: bool,
) -> Result<Nearest, OpError> {
    memories.check_queries("nearest", &queries)?;
    check_reach("nearest", memories, queries)?;
    let m = queries.nrows();
    if exclude_self && m != memories.len() {
        return Err(OpError::Shape {
            operation: "nearest",
            argument: "queries",
            found: queries.shape().to_vec(),
            expected: format!(
                "[{}, {}]: with self excluded the queries are the memories",
                memories.len(),
                memories.dim()
            ),
        });
    }
    if exclude_self && m == 1 {
        return Err(OpError::Empty {
            operation: "nearest",
            argument: "memories without self",
            found: vec![0, memories.dim()],
        });
    }
    let queries = queries.as_standard_layout();
    let block = block_size(m);
    let found: Vec<Vec<(usize, f64)>> = queries
        .axis_chunks_iter(Axis(0), block)
        .into_par_iter()
        .enumerate()
        .map(|(b, x)| search(memories, x.to_slice().unwrap_or_default(), exclude_self.then_some(b * block)))
        .collect();
    let (index, distance) = found.into_iter().flatten().map(|(i, d2)| (i, d2.sqrt())).unzip();
    Ok(Nearest { index, distance })
}

/// Index and squared distance of the nearest memory of each query in `x`, of which the first is memory
/// `own`, if any.
fn search<T: Element>(memories: &Memories<'_, T>, x: &[T], own: Option<usize>) -> Vec<(usize, f64)> {
    let n = memories.dim();
    let m = x.len() / n;
    let tile_size = TILE.min(memories.len());
    let mut centred = vec![T::ZERO; m * n];
    let mut tile = vec![T::ZERO; tile_size * n];
    let mut products = vec![T::ZERO; m * tile_size];
    let mut norms2 = Vec::with_capacity(m);
    for (out, row) in centred.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        T::centred(out, row, &memories.centre);
        norms2.push(out.iter().map(|v| v.f64() * v.f64()).sum::<f64>());
    }
    let mut best = vec![(0usize, f64::INFINITY); m];
    for start in (0..memories.len()).step_by(TILE) {
        let size = TILE.min(memories.len() - start);
        for (i, out) in tile.chunks_exact_mut(n).take(size).enumerate() {
            T::centred(out, memories.rows.row(start + i).as_slice().unwrap_or_default(), &memories.centre);
        }
        product(&mut products, &centred, &tile, (m, n, size), (1, n));
        let half = &memories.half_norms[start..start + size];
        for (i, (found, least)) in best.iter_mut().enumerate() {
            let row = &mut products[i * size..(i + 1) * size];
            if let Some(own) = own.map(|o| o + i).filter(|o| (start..start + size).contains(o)) {
                row[own - start] = T::LOWEST;
            }
            // x.y - |y|^2/2 = (|x|^2 - d^2)/2, wrong by no more than this: n roundings in the product,
            // and those of centring both sides.
            let (norm, reach) = (norms2[i].sqrt(), memories.reach);
            let bound = T::ROUNDING * ((n + 4) as f64 * norm * reach + 4.0 * (norm + reach).powi(2));
            let mut floor = T::row_max(row, half).f64() - 2.0 * bound;
            floor = floor.max((norms2[i] - *least) / 2.0 - 2.0 * bound);
            for (j, (v, h)) in row.iter().zip(half).enumerate() {
                if v.f64() - h.f64() < floor || !v.f64().is_finite() {
                    continue;
                }
                let memory = memories.rows.row(start + j);
                let d2 = T::distance2(&x[i * n..(i + 1) * n], memory.as_slice().unwrap_or_default());
                if d2 < *least {
                    (*found, *least) = (start + j, d2);
                    floor = floor.max((norms2[i] - d2) / 2.0 - 2.0 * bound);
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::{Array2, s};

    fn brute(rows: &Array2<f32>, queries: &Array2<f32>, exclude_self: bool) -> (Vec<usize>, Vec<f64>) {
        queries
            .outer_iter()
            .enumerate()
            .map(|(q, x)| {
                let mut best = (0, f64::INFINITY);
                for (i, y) in rows.outer_iter().enumerate() {
                    let d: f64 = x.iter().zip(y).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                    if d < best.1 && !(exclude_self && i == q) {
                        best = (i, d);
                    }
                }
                (best.0, best.1.sqrt())
            })
            .unzip()
    }

    #[test]
    fn agrees_with_brute_force_among_copies_and_near_copies() {
        let mut s = Stream::new(1, "nearest");
        for (k, n, offset) in [(3, 1, 0.0), (700, 2, 100.0), (1300, 33, 0.0), (600, 200, 50.0)] {
            let mut rows = Array2::from_shape_fn((k, n), |_| (offset + s.normal()) as f32);
            if k > 100 {
                for i in 0..40 {
                    let copy = rows.row(i).to_owned();
                    rows.row_mut(k - 1 - 2 * i).assign(&copy);
                    rows.row_mut(k - 2 - 2 * i).assign(&copy.mapv(|v| v * (1.0 + f32::EPSILON)));
                }
            }
            let memories = Memories::new(rows.view()).unwrap();
            let queries = Array2::from_shape_fn((90, n), |(i, j)| rows[[i % k, j]] + (i % 3) as f32 * 1e-5);
            for (queries, exclude) in [(&queries, false), (&rows, true)] {
                let got = memories.nearest(queries.view(), exclude).unwrap();
                let (index, distance) = brute(&rows, queries, exclude);
                assert_eq!(got.index, index, "{k} {n} {exclude}");
                for (a, b) in got.distance.iter().zip(&distance) {
                    assert!((a - b).abs() <= 1e-12 * b, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn self_is_excluded_by_index_so_a_copy_is_at_nought() {
        let mut rows = Array2::<f32>::zeros((4, 3));
        rows.slice_mut(s![2.., ..]).fill(5.0);
        let memories = Memories::new(rows.view()).unwrap();
        let got = memories.nearest(rows.view(), true).unwrap();
        assert_eq!(got.index, [1, 0, 3, 2]);
        assert_eq!(got.distance, [0.0; 4]);
        assert!(memories.nearest(rows.slice(s![..2, ..]), true).is_err());
        let lone = Memories::new(rows.slice(s![..1, ..])).unwrap();
        assert!(matches!(lone.nearest(rows.slice(s![..1, ..]), true), Err(OpError::Empty { .. })));
    }
}
