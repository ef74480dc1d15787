use crate::device::Device;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::placed::Placed;
use super::readout::check_reach;
use super::sweep::{Panel, Slack, Tile, pieces, sweep, tile_rows};
use super::{Element, Memories, OpError};

/// The k nearest memories of each of m queries, in order of (distance, index).
#[derive(Debug, Clone, PartialEq)]
pub struct Knn {
    /// Rows of the memories, `[m, k]`.
    pub index: Array2<usize>,
    /// l2 distances to them (not squared), `[m, k]`.
    pub distance: Array2<f64>,
    /// Squared distances, which decide the order: two of them can have one root. `[m, k]`.
    pub squared: Array2<f64>,
    /// Device on which it was computed.
    pub device: Device,
}

/// The nearest memory of each of m queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Row of the memory, `[m]`.
    pub index: Vec<usize>,
    /// l2 distance to it (not squared), `[m]`.
    pub distance: Vec<f64>,
    /// Device on which it was computed.
    pub device: Device,
}

pub(super) fn nearest<T: Element>(
    memories: &Memories<T>,
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
    memories: &Memories<T>,
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
                "[{}, {}], the shape of the memories, when self is excluded",
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
            need: "at least 1 and at most the number of memories, one less when self is excluded",
        });
    }
    if let Some(resident) = &memories.resident {
        return resident.knn(queries, k, exclude_self);
    }
    let queries = queries.as_standard_layout();
    let blocks = sweep(
        memories,
        &queries.view(),
        // Most entries of a sieve.
        3 * k + WAITING,
        |tile, panels, chunk| {
            let mut sieves: Vec<Vec<Sieve<T>>> = panels
                .iter()
                .map(|p| p.norms2.iter().map(|norm2| Sieve::new(memories, *norm2, k)).collect())
                .collect();
            for range in pieces(chunk, tile_rows(memories)) {
                tile.fill(memories, range);
                for (panel, sieves) in panels.iter().zip(&mut sieves) {
                    scan(memories, tile, panel, sieves, exclude_self);
                }
            }
            sieves.into_iter().flatten().collect::<Vec<_>>()
        },
        |panels, parts| {
            let queries: Vec<&[T]> = panels.iter().flat_map(|p| (0..p.count).map(|q| p.query(q))).collect();
            let mut parts = parts.into_iter();
            let mut sieves = parts.next().expect("there is at least one chunk of memories");
            for part in parts {
                sieves.iter_mut().zip(part).for_each(|(sieve, other)| sieve.join(other));
            }
            sieves
                .into_par_iter()
                .zip(queries)
                .map(|(sieve, x)| sieve.finished(memories, x))
                .collect::<Vec<Vec<(f64, usize)>>>()
        },
    );
    let found = blocks.into_iter().flatten().flatten();
    let (index, squared) = found.map(|(d2, j)| (j, d2)).unzip();
    let full = "every query has k memories";
    let squared = Array2::from_shape_vec((m, k), squared).expect(full);
    Ok(Knn {
        index: Array2::from_shape_vec((m, k), index).expect(full),
        distance: squared.mapv(f64::sqrt),
        squared,
        device: memories.device(),
    })
}

/// Rows of a tile after which the sieves are tightened: an empty sieve passes everything.
const RUN: usize = 32;

/// Candidates beyond 2 k that a sieve keeps before it is tightened.
const WAITING: usize = 32;

/// Passes the memories of a tile through the sieves of the queries of a panel.
fn scan<T: Element>(
    memories: &Memories<T>,
    tile: &mut Tile<T>,
    panel: &Panel<'_, T>,
    sieves: &mut [Sieve<T>],
    exclude_self: bool,
) {
    let start = tile.start;
    let mut floors = vec![T::from_f64(f64::INFINITY); panel.width];
    for (run, values) in tile.closeness(panel).chunks(RUN * panel.width).enumerate() {
        for (floor, sieve) in floors.iter_mut().zip(sieves.iter()) {
            *floor = sieve.floor;
        }
        T::at_least(values, &floors, |j, q| {
            let memory = start + run * RUN + j;
            if !(exclude_self && memory == panel.first + q) {
                sieves[q].waiting.push((values[j * panel.width + q], memory));
            }
        });
        for (q, sieve) in sieves.iter_mut().enumerate() {
            if sieve.waiting.len() > 2 * sieve.k + WAITING {
                sieve.tighten(memories, panel.query(q));
            }
        }
    }
}

/// The search for the k nearest memories of one query.
///
/// Closeness and the bound on its error select candidates. Distances computed directly in f64 decide among them.
struct Sieve<T> {
    k: usize,
    norm2: f64,
    slack: Slack,
    /// Closeness below which a memory can't be among the k nearest.
    floor: T,
    /// Closeness and index of the candidates.
    waiting: Vec<(T, usize)>,
    /// Squared distance and index of the nearest memories whose distance is known, in order.
    best: Vec<(f64, usize)>,
}

impl<T: Element> Sieve<T> {
    fn new(memories: &Memories<T>, norm2: f64, k: usize) -> Self {
        let slack = Slack::new(memories, norm2);
        Self { k, norm2, slack, floor: T::LOWEST, waiting: Vec::new(), best: Vec::new() }
    }

    /// Adds the candidates among later memories.
    fn join(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.best.extend(other.best);
        if other.floor > self.floor {
            self.floor = other.floor;
        }
    }

    /// Drops every candidate that is further than k others by more than the error. If too many are left, computes
    /// their distances.
    fn tighten(&mut self, memories: &Memories<T>, x: &[T]) {
        self.thin();
        if self.waiting.len() > self.k + WAITING / 2 {
            self.resolve(memories, x);
        }
    }

    fn thin(&mut self) {
        if self.waiting.len() > self.k {
            let by_closeness = |a: &(T, usize), b: &(T, usize)| b.0.f64().total_cmp(&a.0.f64());
            let kth = self.waiting.select_nth_unstable_by(self.k - 1, by_closeness).1.0.f64();
            self.raise(kth);
        }
        let floor = self.floor;
        self.waiting.retain(|(closeness, _)| *closeness >= floor);
    }

    /// Raises the floor to this closeness, less the errors of both sides.
    fn raise(&mut self, closeness: f64) {
        let floor = T::from_f64(closeness - 2.0 * self.slack.at(closeness));
        if floor > self.floor {
            self.floor = floor;
        }
    }

    /// Computes the distances of all candidates.
    fn resolve(&mut self, memories: &Memories<T>, x: &[T]) {
        let looked_at = self.waiting.drain(..).map(|(_, j)| (T::distance2(x, memories.row(j)), j));
        self.best.extend(looked_at);
        self.best.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.best.truncate(self.k);
        if self.best.len() == self.k {
            self.raise((self.norm2 - self.best[self.k - 1].0) / 2.0);
        }
    }

    /// Squared distances and indices of the k nearest, in order.
    fn finished(mut self, memories: &Memories<T>, x: &[T]) -> Vec<(f64, usize)> {
        self.thin();
        self.resolve(memories, x);
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::{Array2, s};

    /// Index and distance of the k nearest of each query, from all distances in f64.
    fn brute<T: Element>(rows: &Array2<T>, queries: &Array2<T>, k: usize, exclude_self: bool) -> Knn {
        let (mut index, mut squared) = (Vec::new(), Vec::new());
        for (q, x) in queries.outer_iter().enumerate() {
            let mut all: Vec<(f64, usize)> = rows
                .outer_iter()
                .map(|y| x.iter().zip(y).map(|(a, b)| (a.f64() - b.f64()).powi(2)).sum())
                .zip(0..)
                .filter(|(_, j)| !(exclude_self && *j == q))
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (d2, j) in &all[..k] {
                index.push(*j);
                squared.push(*d2);
            }
        }
        let shape = (queries.nrows(), k);
        let squared = Array2::from_shape_vec(shape, squared).unwrap();
        Knn {
            index: Array2::from_shape_vec(shape, index).unwrap(),
            distance: squared.mapv(f64::sqrt),
            squared,
            device: Device::Cpu,
        }
    }

    fn check<T: Element>(rows: &Array2<T>, queries: &Array2<T>, k: usize, exclude_self: bool) {
        let memories = Memories::new(rows.clone()).unwrap();
        let got = memories.knn(queries.view(), k, exclude_self).unwrap();
        let exact = brute(rows, queries, k, exclude_self);
        let what = format!("{:?}, {} queries, k {k}, exclude {exclude_self}", rows.dim(), queries.nrows());
        assert_eq!(got.index, exact.index, "{what}");
        for (a, b) in got.distance.iter().zip(&exact.distance) {
            assert!((a - b).abs() <= 1e-12 * b, "{what}: {a} {b}");
        }
        assert_eq!(got.distance, got.squared.mapv(f64::sqrt), "{what}");
        let nearest = memories.nearest(queries.view(), exclude_self).unwrap();
        assert_eq!(nearest.index, exact.index.column(0).to_vec(), "{what}");
        assert_eq!(nearest.distance, got.distance.column(0).to_vec(), "{what}");
    }

    /// Rows in which some are copies of others and some nearly so, in blocks that lie apart.
    fn planted(k: usize, n: usize, offset: f64) -> Array2<f32> {
        let mut s = Stream::new(1, "knn");
        let mut rows = Array2::from_shape_fn((k, n), |_| (offset + s.normal()) as f32);
        for i in 0..k / 12 {
            let copy = rows.row(i).to_owned();
            rows.row_mut(k - 1 - 2 * i).assign(&copy);
            rows.row_mut(k - 2 - 2 * i).assign(&copy.mapv(|v| v * (1.0 + f32::EPSILON)));
            rows.row_mut(k / 2 - i).assign(&copy);
        }
        rows
    }

    #[test]
    fn agrees_with_brute_force_among_copies_and_near_copies() {
        for (k, n, offset) in
            [(3, 1, 0.0), (700, 2, 100.0), (1300, 33, 0.0), (600, 200, 50.0), (5000, 5, 0.0), (4500, 12, 1e3)]
        {
            let rows = planted(k, n, offset);
            let queries = Array2::from_shape_fn((90, n), |(i, j)| rows[[i % k, j]] + (i % 3) as f32 * 1e-5);
            for neighbours in [1, 6, 40, 300] {
                if neighbours <= k {
                    check(&rows, &queries, neighbours, false);
                    check(&rows.mapv(f64::from), &queries.mapv(f64::from), neighbours, false);
                }
            }
        }
        for (k, n) in [(3, 2), (600, 40), (1100, 3)] {
            let rows = planted(k, n, 3.0);
            for neighbours in [1, 2, 6, k - 1] {
                check(&rows, &rows, neighbours.min(k - 1), true);
            }
            check(&rows, &rows, k, false);
        }
    }

    #[test]
    fn among_many_copies_the_lowest_indices_are_nearest() {
        let rows = Array2::from_shape_fn((3000, 30), |(_, j)| 1.0 + j as f32);
        let memories = Memories::new(rows.clone()).unwrap();
        let got = memories.knn(rows.slice(s![5..8, ..]), 100, false).unwrap();
        for (index, distance) in got.index.outer_iter().zip(got.distance.outer_iter()) {
            assert!(index.iter().copied().eq(0..100), "{index}");
            assert!(distance.iter().all(|d| *d == 0.0));
        }
    }

    #[test]
    fn a_k_out_of_range_is_refused() {
        let rows = planted(20, 3, 0.0);
        let memories = Memories::new(rows.clone()).unwrap();
        for (k, exclude) in [(0, false), (0, true), (21, false), (20, true)] {
            assert!(matches!(
                memories.knn(rows.view(), k, exclude),
                Err(OpError::Parameter { operation: "knn", argument: "k", .. })
            ));
        }
        assert_eq!(memories.knn(rows.slice(s![..0, ..]), 3, false).unwrap().index.dim(), (0, 3));
    }

    #[test]
    fn self_is_excluded_by_index_so_a_copy_is_at_zero() {
        let mut rows = Array2::<f32>::zeros((4, 3));
        rows.slice_mut(s![2.., ..]).fill(5.0);
        let memories = Memories::new(rows.clone()).unwrap();
        let got = memories.nearest(rows.view(), true).unwrap();
        assert_eq!(got.index, [1, 0, 3, 2]);
        assert_eq!(got.distance, [0.0; 4]);
        assert!(memories.nearest(rows.slice(s![..2, ..]), true).is_err());
        let lone = Memories::new(rows.slice(s![..1, ..]).to_owned()).unwrap();
        assert!(matches!(lone.nearest(rows.slice(s![..1, ..]), true), Err(OpError::Empty { .. })));
    }
}
