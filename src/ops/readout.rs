use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray};
use rayon::prelude::*;

use super::check::finite_rows;
use super::{Device, Element, Memories, OpError, PREPARE};

/// Queries in a block: one thread's share of work, and the rows of its matrix products.
const BLOCK: usize = 256;
/// Memories in a tile.
pub(super) const TILE: usize = 512;

/// Smallest beta d^2 of the nearest memory that tightens the tolerance further.
const NEAR: f64 = 1e-8;

/// Up to so many dimensions products are taken a row at a time: a matrix product would spend its time
/// packing.
const FEW: usize = 8;

/// What a read-out is to give beyond the energy, which costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// m(x) - x.
    pub shift: bool,
    /// Entropy of the weights.
    pub entropy: bool,
}

impl Want {
    /// Energy only: no second matrix product.
    pub const ENERGY: Self = Self { shift: false, entropy: false };
    /// Energy and m(x) - x.
    pub const SHIFT: Self = Self { shift: true, entropy: false };
    /// Everything.
    pub const ALL: Self = Self { shift: true, entropy: true };
}

/// The softmax read-out of m queries.
#[derive(Debug, Clone)]
pub struct Readout<T> {
    /// m(x) - x, `[m, N]`; `[m, 0]` unless wanted. Half the negative gradient of E^AM. Where x is near a
    /// fixed point this keeps the digits that m(x) alone would lose.
    pub shift: Array2<T>,
    /// E^AM of Eq. 6, `[m]`.
    pub energy: Array1<f64>,
    /// Entropy of the weights in nats, `[m]`; empty unless wanted.
    pub entropy: Array1<f64>,
    /// The memory of largest weight. Among memories at distances that round alike it may be any.
    pub heaviest: Array1<usize>,
    /// Share of the weights that the heaviest memory has, `[m]`.
    pub top_weight: Array1<f64>,
    /// Where it was computed.
    pub device: Device,
}

pub(super) fn prepare<T: Element>(rows: ArrayView2<'_, T>) -> Result<Memories<'_, T>, OpError> {
    let (k, n) = rows.dim();
    if k == 0 || n == 0 {
        return Err(OpError::Empty {
            operation: PREPARE,
            argument: "memories",
            found: rows.shape().to_vec(),
        });
    }
    finite_rows(PREPARE, "memories", &rows)?;
    let rows = if rows.is_standard_layout() {
        CowArray::from(rows)
    } else {
        CowArray::from(rows.as_standard_layout().into_owned())
    };
    let mut sum = vec![0.0; n];
    for row in rows.outer_iter() {
        for (s, v) in sum.iter_mut().zip(row) {
            // Divided first, so that numbers near the largest don't overflow.
            *s += v.f64() / k as f64;
        }
    }
    let centre: Vec<T> = sum.into_iter().map(T::from_f64).collect();
    let mut reach = 0.0f64;
    let half_norms = rows
        .outer_iter()
        .map(|row| {
            let norm: f64 = row.iter().zip(&centre).map(|(v, c)| (v.f64() - c.f64()).powi(2)).sum();
            reach = reach.max(norm);
            T::from_f64(norm / 2.0)
        })
        .collect();
    Ok(Memories { rows, centre, half_norms, reach: reach.sqrt() })
}

/// `out[i, j] = sum_k a[i, k] b[k, j]`; `out` and `a` row-major, `b` with the strides given.
///
/// Safe because the three slices are checked against the sizes that the product will touch.
pub(super) fn product<T: Element>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    (m, k, n): (usize, usize, usize),
    (b_row, b_column): (usize, usize),
) {
    assert!(out.len() >= m * n && a.len() >= m * k);
    assert!(k == 0 || n == 0 || b.len() > (k - 1) * b_row + (n - 1) * b_column);
    // SAFETY: the asserts above bound every index i*n+j, i*k+l and l*b_row+j*b_column; `out` is borrowed
    // mutably and so overlaps neither input; T is f32 or f64, which gemm supports.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            T::ZERO,
            T::from_f64(1.0),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Running sums of one query: all weights are relative to `top`, the largest logit -beta d^2 so far.
struct Running {
    top: f64,
    heaviest: usize,
    /// Squared distance to the heaviest memory, taken directly.
    nearest2: f64,
    sum: f64,
    /// The share of `sum` whose memories enter through the matrix product.
    by_product: f64,
    /// Sum of weight times (logit - top).
    moment: f64,
}

impl Running {
    const START: Self = Self {
        top: f64::NEG_INFINITY,
        heaviest: 0,
        nearest2: f64::INFINITY,
        sum: 0.0,
        by_product: 0.0,
        moment: 0.0,
    };

    /// Moves the reference up to a memory at squared distance `d2`, and the sums with it.
    fn raise(&mut self, top: f64, heaviest: usize, d2: f64, shift: &mut [f64]) {
        if self.sum > 0.0 {
            let step = self.top - top;
            let factor = step.exp();
            // sum w' (l - top) = factor (sum w (l - old top) + step sum w)
            self.moment = if factor > 0.0 { factor * (self.moment + step * self.sum) } else { 0.0 };
            self.sum *= factor;
            self.by_product *= factor;
            shift.iter_mut().for_each(|s| *s *= factor);
        }
        (self.top, self.heaviest, self.nearest2) = (top, heaviest, d2);
    }
}

/// Buffers of one thread.
struct Scratch<T> {
    queries: Vec<T>,
    tile: Vec<T>,
    turned: Vec<T>,
    logits: Vec<T>,
    part: Vec<T>,
    /// Sum of weight times (memory - query) for what is taken directly, times (memory - centre) for
    /// what enters through the product.
    shift: Vec<f64>,
    candidates: Vec<(usize, f64)>,
}

pub(super) fn readout<T: Element>(
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
    beta: f64,
    want: Want,
) -> Result<Readout<T>, OpError> {
    OpError::positive("readout", "beta", beta)?;
    if !T::from_f64(2.0 * beta).f64().is_finite() {
        return Err(OpError::Parameter {
            operation: "readout",
            argument: "beta",
            value: beta,
            need: "a number whose double is finite in the precision of the memories",
        });
    }
    memories.check_queries("readout", &queries)?;
    check_reach("readout", memories, queries)?;
    let (m, n) = queries.dim();
    let mut out = Readout {
        shift: Array2::from_elem((m, if want.shift { n } else { 0 }), T::ZERO),
        energy: Array1::zeros(m),
        entropy: Array1::zeros(if want.entropy { m } else { 0 }),
        heaviest: Array1::zeros(m),
        top_weight: Array1::zeros(m),
        device: memories.device(),
    };
    if m == 0 {
        return Ok(out);
    }
    let queries = queries.as_standard_layout();
    let block = block_size(m);
    let sums: Vec<Vec<Running>> = queries
        .axis_chunks_iter(Axis(0), block)
        .into_par_iter()
        .zip(out.shift.axis_chunks_iter_mut(Axis(0), block))
        .map_init(
            || Scratch::new(memories, block.min(m), want),
            |scratch, (x, mut shift)| {
                let x = x.to_slice().unwrap_or_default();
                let sums = scratch.run(memories, x, beta, want);
                for ((out, r), (x, total)) in shift
                    .outer_iter_mut()
                    .zip(&sums)
                    .zip(x.chunks_exact(n).zip(scratch.shift.chunks_exact(n)))
                {
                    for (k, out) in out.into_iter().enumerate() {
                        let far = r.by_product * (memories.centre[k].f64() - x[k].f64());
                        *out = T::from_f64((total[k] + far) / r.sum);
                    }
                }
                sums
            },
        )
        .collect();
    for (i, r) in sums.into_iter().flatten().enumerate() {
        out.energy[i] = r.nearest2 - r.sum.ln() / beta;
        out.heaviest[i] = r.heaviest;
        out.top_weight[i] = 1.0 / r.sum;
        if want.entropy {
            out.entropy[i] = (r.sum.ln() - r.moment / r.sum).max(0.0);
        }
    }
    Ok(out)
}

/// Queries a block: at least two blocks where there are few. It does not depend on the number of threads,
/// and so neither does any result.
pub(super) fn block_size(queries: usize) -> usize {
    queries.div_ceil(2).clamp(1, BLOCK)
}

/// Norms of centred queries and memories that would overflow when squared are refused.
pub(super) fn check_reach<T: Element>(
    operation: &'static str,
    memories: &Memories<'_, T>,
    queries: ArrayView2<'_, T>,
) -> Result<(), OpError> {
    let far = |row: usize, norm: f64| OpError::TooFar { operation, row, norm };
    for (row, x) in queries.outer_iter().enumerate() {
        let norm = x.iter().zip(&memories.centre).fold(0.0f64, |a, (v, c)| a.hypot(v.f64() - c.f64()));
        let span = norm + memories.reach;
        if !T::from_f64(4.0 * span * span).f64().is_finite() {
            return Err(far(row, norm));
        }
    }
    Ok(())
}

impl<T: Element> Scratch<T> {
    fn new(memories: &Memories<'_, T>, block: usize, want: Want) -> Self {
        let (n, tile) = (memories.dim(), TILE.min(memories.len()));
        let wide = if want.shift { block * n } else { 0 };
        Self {
            queries: vec![T::ZERO; block * n],
            tile: vec![T::ZERO; tile * n],
            turned: Vec::new(),
            logits: vec![T::ZERO; block * tile],
            part: vec![T::ZERO; wide],
            shift: vec![0.0; wide],
            candidates: Vec::new(),
        }
    }

    /// Memories from `start` about the centre: a row each, or a row a dimension where there are few.
    fn fill_tile(&mut self, memories: &Memories<'_, T>, start: usize, size: usize) {
        let n = memories.dim();
        for (i, out) in self.tile.chunks_exact_mut(n).take(size).enumerate() {
            T::centred(out, memories.rows.row(start + i).as_slice().unwrap_or_default(), &memories.centre);
        }
        if n <= FEW {
            self.turned.resize(size * n, T::ZERO);
            for k in 0..n {
                for i in 0..size {
                    self.turned[k * size + i] = self.tile[i * n + k];
                }
            }
            self.tile[..size * n].copy_from_slice(&self.turned);
        }
    }

    /// Folds every memory into the sums of the queries `x` (rows in one slice).
    fn run(&mut self, memories: &Memories<'_, T>, x: &[T], beta: f64, want: Want) -> Vec<Running> {
        let n = memories.dim();
        let m = x.len() / n;
        let two_beta = T::from_f64(2.0 * beta);
        let mut norms2 = Vec::with_capacity(m);
        for (out, row) in self.queries.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
            T::centred(out, row, &memories.centre);
            norms2.push(out.iter().map(|v| v.f64() * v.f64()).sum::<f64>());
        }
        self.shift.fill(0.0);
        let mut sums: Vec<Running> = (0..m).map(|_| Running::START).collect();
        for start in (0..memories.len()).step_by(TILE) {
            let size = TILE.min(memories.len() - start);
            self.fill_tile(memories, start, size);
            if n <= FEW {
                for (row, x) in self.logits.chunks_exact_mut(size).zip(self.queries.chunks_exact(n)).take(m) {
                    T::row_products(row, x, &self.tile[..size * n]);
                }
            } else {
                product(&mut self.logits, &self.queries, &self.tile, (m, n, size), (1, n));
            }
            let half = &memories.half_norms[start..start + size];
            let mut any = false;
            for (i, r) in sums.iter_mut().enumerate() {
                let row = &mut self.logits[i * size..(i + 1) * size];
                let xi = &x[i * n..(i + 1) * n];
                let shift = if want.shift { &mut self.shift[i * n..(i + 1) * n] } else { &mut [][..] };
                // Rounding error of a logit: of the product, of the norms and of centring the query.
                let norm = norms2[i].sqrt();
                let reach = memories.reach;
                let bound =
                    8.0 * beta * T::ROUNDING * (norm * reach + reach * reach + norms2[i] / (n as f64).sqrt());
                let offset = beta * norms2[i];
                let peak = T::row_max(row, half);
                let approximate = two_beta.f64() * peak.f64() - offset;
                self.candidates.clear();
                // Beside a memory the energy is small, and an error has to be smaller by as much.
                let near = (beta * r.nearest2.min(-approximate / beta)).clamp(NEAR, 1.0);
                let tolerance = T::TOLERANCE * near;
                if approximate + bound > r.top || bound > tolerance {
                    // Weights from here up could carry the error into the result.
                    let reference = r.top.max(approximate);
                    let known = if r.sum > 0.0 { r.sum * (r.top - reference).exp() } else { 0.0 };
                    let worth = (bound / (tolerance * known.max(1.0))).ln();
                    let floor = if worth > 0.0 { reference - worth - 2.0 * bound } else { approximate };
                    let floor = T::from_f64((floor + offset) / two_beta.f64());
                    for (j, (v, h)) in row.iter_mut().zip(half).enumerate() {
                        let value = T::from_f64(v.f64() - h.f64());
                        if value >= floor || value >= peak {
                            self.candidates.push((start + j, 0.0));
                            *v = T::LOWEST;
                        }
                    }
                }
                let memory = |j: usize| memories.rows.row(j).to_slice().unwrap_or_default();
                for (j, d2) in &mut self.candidates {
                    *d2 = T::distance2(xi, memory(*j));
                    let logit = -beta * *d2;
                    if logit > r.top {
                        r.raise(logit, *j, *d2, shift);
                    }
                }
                for &(j, d2) in &self.candidates {
                    let logit = -beta * d2 - r.top;
                    let weight = logit.exp();
                    r.sum += weight;
                    if weight > 0.0 {
                        r.moment += weight * logit;
                        T::add_shift(shift, weight, memory(j), xi);
                    }
                }
                let level = T::from_f64(r.top + offset);
                let (sum, moment) = T::row_weights(row, half, two_beta, level, want.entropy);
                r.sum += sum;
                r.by_product += sum;
                r.moment += moment;
                any |= sum > 0.0;
            }
            if want.shift && any {
                if n <= FEW {
                    for (out, w) in self.part.chunks_exact_mut(n).zip(self.logits.chunks_exact(size)).take(m)
                    {
                        T::row_moments(out, w, &self.tile[..size * n]);
                    }
                } else {
                    product(&mut self.part, &self.logits, &self.tile, (m, size, n), (n, 1));
                }
                T::add_part(&mut self.shift[..m * n], &self.part[..m * n]);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// Eq. 6 and m(x) - x term by term, with the entropy of the weights.
    fn reference(rows: &Array2<f64>, x: &[f64], beta: f64) -> (f64, Vec<f64>, f64) {
        let d2: Vec<f64> =
            rows.outer_iter().map(|r| r.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum()).collect();
        let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
        let w: Vec<f64> = d2.iter().map(|d| (-beta * (d - least)).exp()).collect();
        let z: f64 = w.iter().sum();
        let mut shift = vec![0.0; x.len()];
        for (row, w) in rows.outer_iter().zip(&w) {
            for (k, s) in shift.iter_mut().enumerate() {
                *s += w / z * (row[k] - x[k]);
            }
        }
        let entropy = w.iter().filter(|&&w| w > 0.0).map(|w| -(w / z) * (w / z).ln()).sum();
        (least - z.ln() / beta, shift, entropy)
    }

    fn cloud(name: &str, k: usize, n: usize, scale: f64, offset: f64) -> Array2<f64> {
        let mut s = Stream::new(1, name);
        Array2::from_shape_fn((k, n), |_| offset + scale * s.normal())
    }

    fn worst<T: Element>(rows: &Array2<T>, queries: &Array2<T>, beta: f64) -> (f64, f64, f64) {
        let memories = Memories::new(rows.view()).unwrap();
        let got = memories.readout(queries.view(), beta, Want::ALL).unwrap();
        let exact = rows.mapv(Element::f64);
        let (mut energy, mut shift, mut entropy) = (0.0f64, 0.0f64, 0.0f64);
        for (i, x) in queries.outer_iter().enumerate() {
            let x: Vec<f64> = x.iter().map(|v| v.f64()).collect();
            let (e, s, h) = reference(&exact, &x, beta);
            let scale = e.abs().max((exact.nrows() as f64).ln() / beta);
            energy = energy.max((got.energy[i] - e).abs() / scale.max(f64::MIN_POSITIVE));
            let norm = s.iter().map(|v| v * v).sum::<f64>().sqrt();
            let error: f64 =
                got.shift.row(i).iter().zip(&s).map(|(a, b)| (a.f64() - b).powi(2)).sum::<f64>().sqrt();
            shift = shift.max(error / norm.max(f64::MIN_POSITIVE));
            entropy = entropy.max((got.entropy[i] - h).abs());
        }
        (energy, shift, entropy)
    }

    #[test]
    fn both_precisions_agree_with_the_sum_term_by_term() {
        for (k, n) in [(1, 1), (2, 2), (7, 3), (511, 5), (513, 17), (1500, 64), (1100, 301)] {
            for offset in [0.0, 30.0] {
                let rows = cloud("rows", k, n, 1.0, offset);
                let queries = cloud("queries", 37, n, 1.3, offset);
                for beta in [1e-6, 1e-3, 0.03, 0.3, 3.0, 100.0, 1e6] {
                    let (e, s, h) = worst(&rows, &queries, beta);
                    assert!(e < 1e-12 && s < 1e-10 && h < 1e-9, "f64 {k} {n} {offset} {beta}: {e} {s} {h}");
                    let (e, s, h) = worst(&rows.mapv(|v| v as f32), &queries.mapv(|v| v as f32), beta);
                    assert!(e < 1e-5 && s < 1e-5 && h < 1e-4, "f32 {k} {n} {offset} {beta}: {e} {s} {h}");
                }
            }
        }
    }

    #[test]
    fn queries_beside_a_memory_keep_their_digits() {
        let rows = cloud("rows", 900, 40, 1.0, 5.0).mapv(|v| v as f32);
        let mut noise = Stream::new(1, "beside");
        let queries = Array2::from_shape_fn((64, 40), |(i, k)| rows[[i, k]] + 1e-4 * noise.normal() as f32);
        for beta in [1.0, 30.0, 1e5] {
            let (e, s, _) = worst(&rows, &queries, beta);
            assert!(e < 1e-5 && s < 1e-5, "{beta}: {e} {s}");
        }
    }

    #[test]
    fn the_small_energy_beside_a_memory_keeps_its_digits_among_others_that_count() {
        // Where a neighbour's weight is of the order of beta d^2, its error would show in the energy.
        let rows = cloud("rows", 3000, 12, 1.0, 0.0).mapv(|v| v as f32);
        let mut noise = Stream::new(1, "beside");
        let queries = Array2::from_shape_fn((200, 12), |(i, k)| rows[[i, k]] + 1e-4 * noise.normal() as f32);
        let exact = rows.mapv(f64::from);
        let memories = Memories::new(rows.view()).unwrap();
        for beta in [2.0, 4.0, 8.0, 16.0] {
            let got = memories.energy(queries.view(), beta).unwrap();
            for (x, got) in queries.outer_iter().zip(got) {
                let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                let e = reference(&exact, &x, beta).0;
                assert!((got - e).abs() <= 1e-5 * e.abs(), "{beta}: {got} {e}");
            }
        }
    }

    #[test]
    fn one_memory_and_copies_of_it_are_exact() {
        let rows = cloud("rows", 1, 30, 1.0, 9.0).mapv(|v| v as f32);
        let memories = Memories::new(rows.view()).unwrap();
        for beta in [1e-6, 1.0, 1e6] {
            assert_eq!(memories.energy(rows.view(), beta).unwrap()[0], 0.0);
        }
        let copies = ndarray::concatenate![Axis(0), rows, rows, rows, rows];
        let memories = Memories::new(copies.view()).unwrap();
        let got = memories.readout(rows.view(), 2.0, Want::ALL).unwrap();
        assert!((got.energy[0] + 4f64.ln() / 2.0).abs() < 1e-12);
        assert!((got.entropy[0] - 4f64.ln()).abs() < 1e-12);
        assert!(got.shift.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn far_queries_see_the_nearest_memory_and_those_that_overflow_are_refused() {
        let rows = cloud("rows", 20, 3, 1.0, 0.0).mapv(|v| v as f32);
        let far = Array2::from_elem((1, 3), 1e7f32);
        let (e, s, _) = worst(&rows, &far, 1e6);
        assert!(e < 1e-5 && s < 1e-5, "{e} {s}");
        let memories = Memories::new(rows.view()).unwrap();
        let beyond = Array2::from_elem((1, 3), 1e25f32);
        assert!(matches!(
            memories.energy(beyond.view(), 1.0),
            Err(OpError::TooFar { operation: "readout", row: 0, .. })
        ));
    }

    #[test]
    fn bad_arguments_are_named() {
        let rows = cloud("rows", 5, 3, 1.0, 0.0);
        let memories = Memories::new(rows.view()).unwrap();
        let queries = Array2::<f64>::zeros((2, 4));
        assert!(matches!(
            memories.energy(queries.view(), 1.0),
            Err(OpError::Shape { operation: "readout", argument: "queries", .. })
        ));
        let queries = Array2::<f64>::zeros((2, 3));
        for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                memories.energy(queries.view(), beta),
                Err(OpError::Parameter { argument: "beta", .. })
            ));
        }
        for sigma in [0.0, -1.0, f64::NAN, 1e-200, 1e200] {
            assert!(matches!(
                memories.score(queries.view(), sigma),
                Err(OpError::Parameter { argument: "sigma", .. })
            ));
        }
        assert!(matches!(
            Memories::new(Array2::<f32>::zeros((0, 3)).view()),
            Err(OpError::Empty { argument: "memories", .. })
        ));
        assert_eq!(memories.energy(Array2::zeros((0, 3)).view(), 1.0).unwrap().len(), 0);
    }

    #[test]
    fn views_with_any_strides_give_the_same() {
        let rows = cloud("rows", 70, 9, 1.0, 0.0);
        let queries = cloud("queries", 8, 9, 1.0, 0.0);
        let plain = Memories::new(rows.view()).unwrap().score(queries.view(), 0.7).unwrap();
        let turned = rows.t().as_standard_layout().into_owned();
        let turned_queries = queries.t().as_standard_layout().into_owned();
        let other = Memories::new(turned.t()).unwrap().score(turned_queries.t(), 0.7).unwrap();
        assert_eq!(plain, other);
    }
}
