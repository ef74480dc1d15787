use crate::device::Device;
use ndarray::{ArcArray2, Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::check::finite_rows;
use super::placed::Placed;
use super::sweep::{Panel, Tile, is_direct, pieces, sweep, tile_rows};
use super::{Element, Memories, OpError, PREPARE};

const NAME: &str = "readout";

/// Lower bound of beta d^2 of the nearest memory in the tolerance.
const NEAR: f64 = 1e-8;

/// Memories in one partial sum of the mean. Fixed, so that the mean is the same on any number of threads.
const PREPARED: usize = 2048;

/// Results of a read-out besides the energy, which is always computed.
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

/// The inverse temperature of each query.
#[derive(Clone, Copy)]
pub enum Betas<'a> {
    /// One for all.
    All(f64),
    /// One per query.
    Each(&'a [f64]),
}

impl Betas<'_> {
    fn at(self, query: usize) -> f64 {
        match self {
            Self::All(beta) => beta,
            Self::Each(betas) => betas[query],
        }
    }
}

/// The softmax read-out of m queries.
#[derive(Debug, Clone)]
pub struct Readout<T> {
    /// m(x) - x, `[m, N]`; `[m, 0]` unless wanted. Half the negative gradient of E^AM. Near a fixed point it keeps the
    /// digits that m(x) alone would lose.
    pub shift: Array2<T>,
    /// E^AM of Eq. 6, `[m]`.
    pub energy: Array1<f64>,
    /// Entropy of the weights in nats, `[m]`; empty unless wanted.
    pub entropy: Array1<f64>,
    /// The memory of largest weight, `[m]`. Any of them when distances round to the same value.
    pub heaviest: Array1<usize>,
    /// Weight of the heaviest memory, 0 to 1, `[m]`.
    pub top_weight: Array1<f64>,
    /// Device on which it was computed.
    pub device: Device,
}

impl<T: Element> Readout<T> {
    /// Zeros for m queries in N dimensions.
    fn zeros((m, n): (usize, usize), want: Want, device: Device) -> Self {
        Self {
            shift: Array2::from_elem((m, if want.shift { n } else { 0 }), T::ZERO),
            energy: Array1::zeros(m),
            entropy: Array1::zeros(if want.entropy { m } else { 0 }),
            heaviest: Array1::zeros(m),
            top_weight: Array1::zeros(m),
            device,
        }
    }
}

pub(super) fn prepare<T: Element>(rows: ArcArray2<T>) -> Result<Memories<T>, OpError> {
    let (k, n) = rows.dim();
    if k == 0 || n == 0 {
        return Err(OpError::Empty {
            operation: PREPARE,
            argument: "memories",
            found: rows.shape().to_vec(),
        });
    }
    finite_rows(PREPARE, "memories", &rows.view())?;
    let rows =
        if rows.is_standard_layout() { rows } else { rows.as_standard_layout().into_owned().into_shared() };
    let zero = vec![T::ZERO; n];
    let sums: Vec<Vec<f64>> = rows
        .axis_chunks_iter(Axis(0), PREPARED)
        .into_par_iter()
        .map(|rows| {
            let mut sum = vec![0.0; n];
            // Each is divided first, so that values near the largest of their type don't overflow.
            rows.outer_iter().for_each(|row| T::add_shift(&mut sum, 1.0 / k as f64, slice(&row), &zero));
            sum
        })
        .collect();
    let centre: Vec<T> = (0..n).map(|i| T::from_f64(sums.iter().map(|s| s[i]).sum())).collect();
    let norms2: Vec<f64> =
        rows.axis_iter(Axis(0)).into_par_iter().map(|row| T::distance2(slice(&row), &centre)).collect();
    let reach = norms2.iter().copied().fold(0.0, f64::max);
    let half_norms = norms2.into_iter().map(|norm2| T::from_f64(norm2 / 2.0)).collect();
    Ok(Memories { rows, centre, half_norms, reach: reach.sqrt(), resident: None })
}

fn slice<'a, T>(row: &'a ArrayView1<'_, T>) -> &'a [T] {
    row.as_slice().expect("a row of an array in standard layout is contiguous")
}

/// Running sums of one query: all weights are relative to `top`, the largest logit -beta d^2 so far.
#[derive(Clone, Copy)]
struct Running {
    top: f64,
    heaviest: usize,
    /// Squared distance to the heaviest memory, computed directly.
    nearest2: f64,
    sum: f64,
    /// The part of `sum` from memories that enter through the matrix product.
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

    /// Adds the sums over later memories.
    fn join(&mut self, other: Self, shift: &mut [f64], other_shift: &[f64]) {
        if other.top > self.top {
            self.raise(other.top, other.heaviest, other.nearest2, shift);
        }
        let step = other.top - self.top;
        let factor = step.exp();
        if factor > 0.0 {
            self.sum += factor * other.sum;
            self.by_product += factor * other.by_product;
            self.moment += factor * (other.moment + step * other.sum);
            for (a, b) in shift.iter_mut().zip(other_shift) {
                *a += factor * b;
            }
        }
    }
}

pub(super) fn readout<T: Element>(
    memories: &Memories<T>,
    queries: ArrayView2<'_, T>,
    betas: Betas<'_>,
    want: Want,
) -> Result<Readout<T>, OpError> {
    let (m, n) = queries.dim();
    match betas {
        Betas::All(beta) => check_beta::<T>(beta)?,
        Betas::Each(betas) => {
            if betas.len() != m {
                return Err(OpError::Shape {
                    operation: NAME,
                    argument: "betas",
                    found: vec![betas.len()],
                    expected: format!("[{m}], one for each query"),
                });
            }
            betas.iter().try_for_each(|beta| check_beta::<T>(*beta))?;
        }
    }
    memories.check_queries(NAME, &queries)?;
    check_reach(NAME, memories, queries)?;
    let out = match (&memories.resident, betas) {
        (Some(resident), Betas::All(beta)) => resident.readout(queries, beta, want)?,
        (Some(resident), Betas::Each(betas)) => {
            by_runs(queries, betas, want, memories.device(), |queries, beta| {
                resident.readout(queries, beta, want)
            })?
        }
        (None, _) => on_cpu(memories, queries, betas, want),
    };
    let of_shift = out.shift.iter().position(|v| !v.f64().is_finite()).map(|place| place / n);
    match out.energy.iter().position(|v| !v.is_finite()).or(of_shift) {
        Some(query) => Err(OpError::Overflow { operation: NAME, query, beta: betas.at(query) }),
        None => Ok(out),
    }
}

fn on_cpu<T: Element>(
    memories: &Memories<T>,
    queries: ArrayView2<'_, T>,
    betas: Betas<'_>,
    want: Want,
) -> Readout<T> {
    let (m, n) = queries.dim();
    let queries = queries.as_standard_layout();
    let blocks = sweep(
        memories,
        &queries.view(),
        if want.shift { n } else { 0 },
        |tile, panels, chunk| {
            let mut part = Part::new(panels, n, want);
            for range in pieces(chunk, tile_rows(memories)) {
                tile.fill(memories, range);
                let mut shift = part.shift.as_mut_slice();
                let mut running = part.running.as_mut_slice();
                for panel in panels {
                    let (these, rest) = running.split_at_mut(panel.count);
                    let (shifts, others) = shift.split_at_mut(if want.shift { panel.count * n } else { 0 });
                    fold(memories, tile, panel, these, shifts, betas, want);
                    (running, shift) = (rest, others);
                }
            }
            part
        },
        |panels, parts| Part::joined(memories, panels, &parts),
    );
    let mut out = Readout::zeros((m, n), want, memories.device());
    let (running, shifts): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
    for (out, shift) in out.shift.iter_mut().zip(shifts.into_iter().flatten()) {
        *out = shift;
    }
    for (i, r) in running.into_iter().flatten().enumerate() {
        out.energy[i] = r.nearest2 - r.sum.ln() / betas.at(i);
        out.heaviest[i] = r.heaviest;
        out.top_weight[i] = 1.0 / r.sum;
        if want.entropy {
            out.entropy[i] = (r.sum.ln() - r.moment / r.sum).max(0.0);
        }
    }
    out
}

fn check_beta<T: Element>(beta: f64) -> Result<(), OpError> {
    OpError::positive(NAME, "beta", beta)?;
    // A subnormal number has lost digits.
    if (T::from_f64(2.0 * beta).f64() - 2.0 * beta).abs() <= 1e-6 * beta {
        return Ok(());
    }
    let need = "a number whose double is a normal number in the precision of the memories";
    Err(OpError::Parameter { operation: NAME, argument: "beta", value: beta, need })
}

/// Splits a read-out into runs of queries with the same beta, which the kernels of devices take.
fn by_runs<T: Element>(
    queries: ArrayView2<'_, T>,
    betas: &[f64],
    want: Want,
    device: Device,
    mut readout: impl FnMut(ArrayView2<'_, T>, f64) -> Result<Readout<T>, OpError>,
) -> Result<Readout<T>, OpError> {
    let mut out = Readout::zeros(queries.dim(), want, device);
    let mut start = 0;
    for run in betas.chunk_by(|a, b| a == b) {
        let rows = start..start + run.len();
        let part = readout(queries.slice(s![rows.clone(), ..]), run[0])?;
        out.shift.slice_mut(s![rows.clone(), ..]).assign(&part.shift);
        out.energy.slice_mut(s![rows.clone()]).assign(&part.energy);
        if want.entropy {
            out.entropy.slice_mut(s![rows.clone()]).assign(&part.entropy);
        }
        out.heaviest.slice_mut(s![rows.clone()]).assign(&part.heaviest);
        out.top_weight.slice_mut(s![rows]).assign(&part.top_weight);
        start += run.len();
    }
    Ok(out)
}

/// Err when a squared distance could overflow.
pub(super) fn check_reach<T: Element>(
    operation: &'static str,
    memories: &Memories<T>,
    queries: ArrayView2<'_, T>,
) -> Result<(), OpError> {
    for (row, x) in queries.outer_iter().enumerate() {
        // Slow, but without overflow: for the message and for queries that are not contiguous.
        let norm = || x.iter().zip(&memories.centre).fold(0.0f64, |a, (v, c)| a.hypot(v.f64() - c.f64()));
        let span =
            x.as_slice().map_or_else(norm, |x| T::distance2(x, &memories.centre).sqrt()) + memories.reach;
        if !T::from_f64(4.0 * span * span).f64().is_finite() {
            return Err(OpError::TooFar { operation, row, norm: norm() });
        }
    }
    Ok(())
}

/// The sums of a block of queries over a chunk of memories.
struct Part {
    running: Vec<Running>,
    /// `[queries, n]`: sum of weight times (memory - query) over memories computed directly, plus weight times
    /// (memory - centre) over memories that enter through the product.
    shift: Vec<f64>,
}

impl Part {
    fn new<T: Element>(panels: &[Panel<'_, T>], n: usize, want: Want) -> Self {
        let count = panels.iter().map(|p| p.count).sum();
        Self {
            running: vec![Running::START; count],
            shift: vec![0.0; if want.shift { count * n } else { 0 }],
        }
    }

    /// The sums over all chunks, in their order, and m(x) - x.
    fn joined<T: Element>(
        memories: &Memories<T>,
        panels: &[Panel<'_, T>],
        parts: &[Self],
    ) -> (Vec<Running>, Vec<T>) {
        let queries: Vec<&[T]> = panels.iter().flat_map(|p| (0..p.count).map(|q| p.query(q))).collect();
        let n = parts[0].shift.len() / queries.len();
        let mut out = vec![T::ZERO; queries.len() * n];
        let mut rows: Vec<&mut [T]> = out.chunks_exact_mut(n.max(1)).collect();
        rows.resize_with(queries.len(), || &mut []);
        let running = rows
            .into_par_iter()
            .zip(queries)
            .enumerate()
            .with_min_len(64)
            .map_init(Vec::new, |shift, (q, (out, x))| {
                let place = q * n..(q + 1) * n;
                let mut r = parts[0].running[q];
                shift.clear();
                shift.extend_from_slice(&parts[0].shift[place.clone()]);
                for part in &parts[1..] {
                    r.join(part.running[q], shift, &part.shift[place.clone()]);
                }
                for (k, out) in out.iter_mut().enumerate() {
                    let far = r.by_product * (memories.centre[k].f64() - x[k].f64());
                    *out = T::from_f64((shift[k] + far) / r.sum);
                }
                r
            })
            .collect();
        (running, out)
    }
}

/// Adds the memories of a tile to the sums of the queries of a panel.
fn fold<T: Element>(
    memories: &Memories<T>,
    tile: &mut Tile<T>,
    panel: &Panel<'_, T>,
    running: &mut [Running],
    shift: &mut [f64],
    betas: Betas<'_>,
    want: Want,
) {
    let n = memories.dim();
    let (start, width) = (tile.start, panel.width);
    let beta = |q: usize| betas.at(panel.first + q);
    // Padding has zero weight at any beta.
    let mut two_beta = vec![T::from_f64(1.0); width];
    for (q, two_beta) in two_beta[..panel.count].iter_mut().enumerate() {
        *two_beta = T::from_f64(2.0 * beta(q));
    }
    let never = T::from_f64(f64::INFINITY);
    let values = tile.closeness(panel);
    let mut peaks = vec![T::LOWEST; width];
    T::column_max(&mut peaks, values);
    let mut lanes: Vec<Lane> = running
        .iter()
        .zip(panel.norms2.iter().zip(&peaks))
        .enumerate()
        .map(|(q, (r, (norm2, peak)))| {
            Lane::new(memories, r, *norm2, two_beta[q].f64() * peak.f64(), beta(q))
        })
        .collect();
    if lanes.iter().any(|l| l.is_open::<T>()) {
        // The weight of the whole tile says how much the error of one memory matters.
        let mut level = vec![never; width];
        for (level, l) in level.iter_mut().zip(&lanes) {
            *level = T::from_f64(l.reference + l.offset);
        }
        let mut sums = vec![0.0; width];
        T::column_weights(values, &two_beta, &level, &mut sums, None, false);
        // Open lanes only: no result may depend on which queries share a panel.
        for (l, sum) in lanes.iter_mut().zip(&sums).filter(|(l, _)| l.is_open::<T>()) {
            l.known += sum;
        }
    }
    let mut floors = vec![never; width];
    for (q, l) in lanes.iter().enumerate() {
        let floor = l.floor::<T>(running[q].top);
        if floor < f64::INFINITY {
            floors[q] = T::from_f64((floor + l.offset) / two_beta[q].f64());
            if l.is_new_top(running[q].top) && peaks[q] < floors[q] {
                floors[q] = peaks[q];
            }
        }
    }
    if floors.iter().any(|f| *f < never) {
        let mut candidates = Vec::new();
        T::at_least(values, &floors, |j, q| candidates.push((j, q, 0.0)));
        let mut best = vec![(f64::INFINITY, 0); panel.count];
        for (j, q, d2) in &mut candidates {
            values[*j * width + *q] = T::LOWEST;
            *d2 = T::distance2(panel.query(*q), memories.row(start + *j));
            if *d2 < best[*q].0 {
                best[*q] = (*d2, start + *j);
            }
        }
        let wide = shift.len() / panel.count;
        for (q, ((d2, j), r)) in best.into_iter().zip(running.iter_mut()).enumerate() {
            if -beta(q) * d2 > r.top {
                r.raise(-beta(q) * d2, j, d2, &mut shift[q * wide..(q + 1) * wide]);
            }
        }
        for (j, q, d2) in candidates {
            let r = &mut running[q];
            let logit = -beta(q) * d2 - r.top;
            let weight = logit.exp();
            r.sum += weight;
            if weight > 0.0 {
                r.moment += weight * logit;
                let shift = &mut shift[q * wide..(q + 1) * wide];
                T::add_shift(shift, weight, memories.row(start + j), panel.query(q));
            }
        }
    }
    let mut level = vec![never; width];
    for ((level, r), l) in level.iter_mut().zip(running.iter()).zip(&lanes) {
        *level = T::from_f64(r.top + l.offset);
    }
    let (mut sums, mut moments) = (vec![0.0; width], vec![0.0; width]);
    let wanted = want.entropy.then_some(moments.as_mut_slice());
    T::column_weights(values, &two_beta, &level, &mut sums, wanted, want.shift);
    for (r, (sum, moment)) in running.iter_mut().zip(sums.iter().zip(&moments)) {
        r.sum += sum;
        r.by_product += sum;
        r.moment += moment;
    }
    if want.shift && sums.iter().any(|s| *s > 0.0) {
        tile.add_moments(panel, &mut shift[..panel.count * n]);
    }
}

/// What one tile can change for one query.
struct Lane {
    /// beta |x|^2, by which logits are shifted.
    offset: f64,
    /// Largest approximate logit -beta d^2 of the tile.
    peak: f64,
    /// The larger of `peak` and the largest logit so far.
    reference: f64,
    /// Error of an approximate logit near the largest.
    bound: f64,
    /// Sum of the weights so far, relative to the reference.
    known: f64,
}

impl Lane {
    fn new<T: Element>(memories: &Memories<T>, r: &Running, norm2: f64, peak: f64, beta: f64) -> Self {
        let offset = beta * norm2;
        let peak = peak - offset;
        let reference = r.top.max(peak);
        let n = memories.dim();
        let bound = if is_direct(n) {
            // Proportional to the logit; a weight falls faster than its logit grows.
            T::ROUNDING * (n + 4) as f64 * (1.0 - reference)
        } else {
            // Errors of the product, of the norms and of centring the query.
            let (norm, reach) = (norm2.sqrt(), memories.reach);
            8.0 * beta * T::ROUNDING * (norm * reach + reach * reach + norm2 / (n as f64).sqrt())
        };
        let known = if r.sum > 0.0 { r.sum * (r.top - reference).exp() } else { 0.0 };
        Self { offset, peak, reference, bound, known }
    }

    /// Largest error of a logit that does not matter, times the sum of the weights.
    ///
    /// Where the energy is small, as beside an isolated memory, the tolerance is smaller by the same factor.
    fn tolerance<T: Element>(&self) -> f64 {
        let sum = self.known.max(1.0);
        T::TOLERANCE * (self.reference + sum.ln()).abs().clamp(NEAR, 1.0) * sum
    }

    /// Whether the sum so far does not yet decide which errors matter.
    fn is_open<T: Element>(&self) -> bool {
        self.known < 4.0 && self.bound > self.tolerance::<T>()
    }

    fn is_new_top(&self, top: f64) -> bool {
        self.peak + self.bound > top
    }

    /// Smallest logit whose weight could carry the error into the result; infinite when none could.
    fn floor<T: Element>(&self, top: f64) -> f64 {
        let worth = (self.bound / self.tolerance::<T>()).ln();
        if worth > 0.0 {
            self.reference - worth - 2.0 * self.bound
        } else if self.is_new_top(top) {
            self.peak
        } else {
            f64::INFINITY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::{Axis, array};

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
        let memories = Memories::new(rows.clone()).unwrap();
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
    fn queries_next_to_a_memory_keep_their_digits() {
        let rows = cloud("rows", 900, 40, 1.0, 5.0).mapv(|v| v as f32);
        let mut noise = Stream::new(1, "beside");
        let queries = Array2::from_shape_fn((64, 40), |(i, k)| rows[[i, k]] + 1e-4 * noise.normal() as f32);
        for beta in [1.0, 30.0, 1e5] {
            let (e, s, _) = worst(&rows, &queries, beta);
            assert!(e < 1e-5 && s < 1e-5, "{beta}: {e} {s}");
        }
    }

    #[test]
    fn a_small_energy_next_to_a_memory_keeps_its_digits_with_other_weights() {
        // If a neighbour's weight is of the order of beta d^2, its error would be visible in the energy.
        let rows = cloud("rows", 3000, 12, 1.0, 0.0).mapv(|v| v as f32);
        let mut noise = Stream::new(1, "beside");
        let queries = Array2::from_shape_fn((200, 12), |(i, k)| rows[[i, k]] + 1e-4 * noise.normal() as f32);
        let exact = rows.mapv(f64::from);
        let memories = Memories::new(rows.clone()).unwrap();
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
        let memories = Memories::new(rows.clone()).unwrap();
        for beta in [1e-6, 1.0, 1e6] {
            assert_eq!(memories.energy(rows.view(), beta).unwrap()[0], 0.0);
        }
        let copies = ndarray::concatenate![Axis(0), rows, rows, rows, rows];
        let memories = Memories::new(copies.clone()).unwrap();
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
        let memories = Memories::new(rows.clone()).unwrap();
        let beyond = Array2::from_elem((1, 3), 1e25f32);
        assert!(matches!(
            memories.energy(beyond.view(), 1.0),
            Err(OpError::TooFar { operation: "readout", row: 0, .. })
        ));
    }

    #[test]
    fn bad_arguments_are_named() {
        let rows = cloud("rows", 5, 3, 1.0, 0.0);
        let memories = Memories::new(rows.clone()).unwrap();
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
            Memories::new(Array2::<f32>::zeros((0, 3))),
            Err(OpError::Empty { argument: "memories", .. })
        ));
        assert_eq!(memories.energy(Array2::zeros((0, 3)).view(), 1.0).unwrap().len(), 0);
    }

    #[test]
    fn queries_with_their_own_beta_give_the_results_of_single_calls() {
        for (k, n) in [(1, 1), (300, 2), (700, 9), (5000, 40)] {
            let rows = cloud("rows", k, n, 1.0, 0.3);
            let mut queries = cloud("queries", 130, n, 1.0, 0.3);
            for i in (0..130).step_by(4) {
                let near = rows.row(i % k).mapv(|v| v + 1e-4);
                queries.row_mut(i).assign(&near);
            }
            // Runs of one beta, and neighbours that are orders of magnitude apart.
            let betas: Vec<f64> = (0..130).map(|i| [1e-3, 2.0, 2.0, 300.0, 1e7][i * i % 5]).collect();
            same_as_alone(&rows, &queries, &betas);
            same_as_alone(&rows.mapv(|v| v as f32), &queries.mapv(|v| v as f32), &betas);
        }
    }

    fn same_as_alone<T: Element>(rows: &Array2<T>, queries: &Array2<T>, betas: &[f64]) {
        let memories = Memories::new(rows.clone()).unwrap();
        let sigmas: Vec<f64> = betas.iter().map(|beta| (0.5 / beta).sqrt()).collect();
        let all = memories.readout_each(queries.view(), betas, Want::ALL).unwrap();
        let scores = memories.score_each(queries.view(), &sigmas).unwrap();
        let device = memories.device();
        let runs = by_runs(queries.view(), betas, Want::ALL, device, |queries, beta| {
            memories.readout(queries, beta, Want::ALL)
        })
        .unwrap();
        for (i, beta) in betas.iter().enumerate() {
            let query = queries.slice(s![i..i + 1, ..]);
            let one = memories.readout(query, *beta, Want::ALL).unwrap();
            for all in [&all, &runs] {
                assert_eq!(one.shift.row(0), all.shift.row(i));
                let numbers =
                    |r: &Readout<T>, i: usize| (r.energy[i], r.entropy[i], r.heaviest[i], r.top_weight[i]);
                assert_eq!(numbers(&one, 0), numbers(all, i), "{beta}");
            }
            assert_eq!(memories.score(query, sigmas[i]).unwrap().row(0), scores.row(i));
        }
    }

    #[test]
    fn betas_have_to_be_one_a_query_and_good() {
        let rows = cloud("rows", 5, 3, 1.0, 0.0);
        let memories = Memories::new(rows.clone()).unwrap();
        let queries = Array2::<f64>::zeros((2, 3));
        let e = memories.readout_each(queries.view(), &[1.0], Want::ALL).unwrap_err();
        assert!(matches!(e, OpError::Shape { argument: "betas", .. }), "{e}");
        let e = memories.readout_each(queries.view(), &[1.0, f64::NAN], Want::ALL).unwrap_err();
        assert!(matches!(e, OpError::Parameter { argument: "beta", .. }), "{e}");
        let e = memories.score_each(queries.view(), &[1.0]).unwrap_err();
        assert!(matches!(e, OpError::Shape { .. }), "{e}");
        let e = memories.score_each(queries.view(), &[1.0, -1.0]).unwrap_err();
        assert!(matches!(e, OpError::Parameter { argument: "sigma", .. }), "{e}");
    }

    /// At any beta the result is right or refused: the energy of two memories at distances a and b is known.
    #[test]
    fn extreme_betas_are_right_or_refused() {
        let exact = |a: f64, b: f64, beta: f64| a - (-beta * (b - a)).exp().ln_1p() / beta;
        let (mut right, mut refused) = (0, 0);
        for exponent in (-320..=306).step_by(2) {
            let beta = 10f64.powi(exponent);
            let rows = array![[0.0, 0.0], [3.0, 0.0]];
            let queries = array![[9.0, 9.0], [1.0, 0.0]];
            let single = Memories::new(rows.mapv(|v| v as f32))
                .unwrap()
                .readout(queries.mapv(|v| v as f32).view(), beta, Want::ALL)
                .map(|read| read.energy);
            let double = Memories::new(rows).unwrap().readout(queries.view(), beta, Want::ALL);
            for (found, tolerance) in [(single, 1e-5), (double.map(|read| read.energy), 1e-12)] {
                match found {
                    Ok(energy) => {
                        right += 1;
                        for (found, due) in
                            energy.iter().zip([exact(117.0, 162.0, beta), exact(1.0, 4.0, beta)])
                        {
                            assert!(
                                (found - due).abs() <= tolerance * due.abs().max(1.0),
                                "{beta:e}: {found} {due}"
                            );
                        }
                    }
                    Err(e) => {
                        refused += 1;
                        assert!(
                            matches!(
                                e,
                                OpError::Parameter { argument: "beta", .. } | OpError::Overflow { .. }
                            ),
                            "{e}"
                        );
                    }
                }
            }
        }
        assert!(right > 300 && refused > 200, "{right} {refused}");
    }

    #[test]
    fn views_with_any_strides_give_the_same() {
        let rows = cloud("rows", 70, 9, 1.0, 0.0);
        let queries = cloud("queries", 8, 9, 1.0, 0.0);
        let plain = Memories::new(rows.clone()).unwrap().score(queries.view(), 0.7).unwrap();
        let transposed = rows.t().as_standard_layout().into_owned();
        let transposed_queries = queries.t().as_standard_layout().into_owned();
        let other =
            Memories::new(transposed.reversed_axes()).unwrap().score(transposed_queries.t(), 0.7).unwrap();
        assert_eq!(plain, other);
    }
}
