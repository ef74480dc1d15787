use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::readout::check_reach;
use super::{Device, Element, Memories, OpError};

/// The k nearest memories of each of m queries, in order of (distance, index).
#[derive(Debug, Clone, PartialEq)]
pub struct Knn {
    /// Rows of the memories, `[m, k]`.
    pub index: Array2<usize>,
    /// l2 distances to them (not squared), `[m, k]`.
    pub distance: Array2<f64>,
    /// Where it was computed.
    pub device: Device,
}

/// The nearest memory of each of m queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Row of the memory, `[m]`.
    pub index: Vec<usize>,
    /// l2 distance to it (not squared), `[m]`.
    pub distance: Vec<f64>,
    /// Where it was computed.
    pub device: Device,
}

pub(super) fn nearest<T: Element>(
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
    exclude_self: bool,
) -> Result<Nearest, OpError> {
    if exclude_self && memories.len() == 1 && queries.nrows() == 1 {
        return Err(OpError::Empty {
            operation: "nearest",
            argument: "memories without self",
            found: vec![0, memories.dim()],
        });
    }
    let found = knn("nearest", memories, queries, 1, exclude_self)?;
    Ok(Nearest {
        index: found.index.into_raw_vec_and_offset().0,
        distance: found.distance.into_raw_vec_and_offset().0,
        device: found.device,
    })
}

pub(super) fn knn<T: Element>(
    operation: &'static str,
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
    k: usize,
    exclude_self: bool,
) -> Result<Knn, OpError> {
    memories.check_queries(operation, &queries)?;
    check_reach(operation, memories, queries)?;
    let m = queries.nrows();
    if exclude_self && m != memories.len() {
        return Err(OpError::Shape {
            operation,
            argument: "queries",
            found: queries.shape().to_vec(),
            expected: format!(
                "[{}, {}]: with self excluded the queries are the memories",
                memories.len(),
                memories.dim()
            ),
        });
    }
    if k == 0 || k > memories.len() - usize::from(exclude_self) {
        return Err(OpError::Parameter {
            operation,
            argument: "k",
            value: k as f64,
            need: "at least 1 and at most the number of memories, without self where it is excluded",
        });
    }
    let queries = queries.as_standard_layout();
    let mut found =
        Knn { index: Array2::zeros((m, k)), distance: Array2::zeros((m, k)), device: memories.device() };
    found
        .index
        .axis_iter_mut(Axis(0))
        .into_par_iter()
        .zip(found.distance.axis_iter_mut(Axis(0)))
        .zip(queries.axis_iter(Axis(0)))
        .enumerate()
        .for_each(|(q, ((mut index, mut distance), x))| {
            let x = x.to_slice().unwrap_or_default();
            let mut all: Vec<(f64, usize)> = (0..memories.len())
                .filter(|&j| !(exclude_self && j == q))
                .map(|j| (T::distance2(x, memories.rows.row(j).to_slice().unwrap_or_default()), j))
                .collect();
            all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (i, (d2, j)) in all.into_iter().take(k).enumerate() {
                (index[i], distance[i]) = (j, d2.sqrt());
            }
        });
    Ok(found)
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
