use ndarray::{ArcArray2, Array1, Array2, ArrayView1, ArrayView2, Axis};
use ndarray_linalg::{Eigh, UPLO};
use rayon::prelude::*;

use super::retrieval::{Certificate, RetrievalSettings, certify, retrieve};
use super::{DenseAm, MemoryError};
use crate::class::Class;
use crate::ops::{Memories, OpError};
use crate::random::{SEED, Stream};
use crate::store::memory_left;

/// Most dimensions in which attractors are refined by Newton steps.
const NEWTON_DIMENSIONS: usize = 256;
/// End states that are refined in parallel before they are merged.
const BATCH: usize = 64;
/// Largest eigenvalue of the Hessian (2 at an isolated memory) of a direction that counts as flat.
const FLAT: f64 = 1e-7;
/// Retrieval steps before the Newton steps.
const PATIENCE: usize = 100;

/// beta_c = 2 / ||xi1 - xi2||^2. At or below beta_c two memories share one minimum at their midpoint, the spurious state
/// of Eq. 7; above beta_c they have two minima.
///
/// ```
/// use mem2gen::memory::critical_beta_of_pair;
/// use ndarray::array;
///
/// assert_eq!(critical_beta_of_pair(array![1.0, 0.0].view(), array![-1.0, 0.0].view()), 0.5);
/// ```
pub fn critical_beta_of_pair(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    2.0 / a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
}

/// Settings of the search for attractors.
#[derive(Debug, Clone, PartialEq)]
pub struct AttractorSettings {
    /// Number of random starts: memories drawn uniformly, each with Gaussian noise of variance 1/(2 beta). These are
    /// samples of p(x_t) of Eq. 4 at the time that corresponds to beta. Basin shares are fractions of this number.
    pub random_starts: usize,
    /// Largest number of starts at midpoints of pairs of memories: all pairs if they fit, else the nearest neighbour of
    /// each memory first, then pairs drawn at random.
    pub midpoints: usize,
    /// Seed of the random starts.
    pub seed: u64,
    /// Distance at which end states are one attractor, as a fraction of the root mean square distance between memories.
    pub merge: f64,
    /// Largest distance to a memory at which an attractor is memorized (Eq. 9), in the units of the memories. `None`
    /// takes a tenth of the median distance from a memory to its nearest distinct neighbour. That default is this
    /// project's own.
    pub delta_m: Option<f64>,
    /// Most retrieval steps for a start, in sets of too many dimensions for Newton steps.
    pub max_steps: usize,
}

impl Default for AttractorSettings {
    fn default() -> Self {
        Self {
            random_starts: 1000,
            midpoints: 500,
            seed: SEED,
            merge: 1e-6,
            delta_m: None,
            max_steps: 20_000,
        }
    }
}

/// A stable fixed point of x <- m(x), a minimum of E^AM.
#[derive(Debug, Clone)]
pub struct Attractor {
    /// Its position, `[N]`.
    pub x: Array1<f64>,
    /// E^AM there.
    pub energy: f64,
    /// Row of the nearest memory.
    pub nearest_memory: usize,
    /// l2 distance to the nearest memory.
    pub distance: f64,
    /// Memorized or spurious.
    pub kind: Class,
    /// Fraction of the random starts that end here.
    pub basin_share: f64,
    /// Eigenvalues of the Hessian of E^AM in ascending order, `[N]`.
    pub spectrum: Array1<f64>,
    /// Proven bounds.
    pub certificate: Certificate,
}

/// The attractors that a search found, lowest energy first.
#[derive(Debug, Clone)]
pub struct Attractors {
    /// The attractors.
    pub found: Vec<Attractor>,
    /// Saddle points at which a start ended, with their index (number of negative eigenvalues).
    pub saddles: Vec<(Array1<f64>, usize)>,
    /// Largest distance to a memory of a memorized attractor.
    pub delta_m: f64,
    /// Number of starts that did not converge.
    pub lost: usize,
}

impl Attractors {
    /// Number of attractors of a kind.
    pub fn count(&self, kind: Class) -> usize {
        self.found.iter().filter(|a| a.kind == kind).count()
    }
}

/// The attractors of a memory set `[K, N]`: retrieval from the memories, from midpoints and from random starts, refined
/// by Newton's method, merged, certified, and classified by the distance to the nearest memory.
///
/// Where a start ends on a saddle, the search continues on both sides of the saddle.
///
/// ```
/// use mem2gen::class::Class;
/// use mem2gen::memory::{AttractorSettings, attractors};
/// use ndarray::array;
///
/// let pair = array![[1.0, 0.0], [-1.0, 0.0]];
/// let settings = AttractorSettings { random_starts: 20, ..AttractorSettings::default() };
/// // Below the critical beta 0.5 of the pair: one spurious attractor at the midpoint.
/// let one = attractors(pair.clone(), 0.4, &settings)?;
/// assert_eq!((one.found.len(), one.count(Class::Spurious)), (1, 1));
/// assert!(one.found[0].x.iter().all(|v| v.abs() < 1e-9));
/// // Far above it: both memories.
/// let two = attractors(pair, 20.0, &settings)?;
/// assert_eq!((two.found.len(), two.count(Class::Memorized)), (2, 2));
/// # Ok::<(), mem2gen::memory::MemoryError>(())
/// ```
///
/// # Errors
/// [`MemoryError`] for settings out of range, arguments that an operation refuses, or a failure of LAPACK.
pub fn attractors(
    memories: impl Into<ArcArray2<f64>>,
    beta: f64,
    settings: &AttractorSettings,
) -> Result<Attractors, MemoryError> {
    OpError::positive("attractors", "merge", settings.merge)?;
    if let Some(delta) = settings.delta_m {
        OpError::positive("attractors", "delta_m", delta)?;
    }
    let memories = memories.into();
    let am = DenseAm::new(memories.clone(), beta)?;
    let set = Memories::new(memories)?;
    let memories = set.rows();
    // A start and its end, and what a step of them all takes.
    let most = memory_left().map_or(usize::MAX, |left| left as usize / (4 * 8 * memories.ncols()));
    if settings.random_starts > most {
        let value = settings.random_starts;
        return Err(MemoryError::TooMany { operation: "attractors", argument: "random_starts", value, most });
    }
    let scale = rms_distance(memories);
    let delta_m = match settings.delta_m {
        Some(delta) => delta,
        None => 0.1 * median_spacing(&set)?,
    };
    // Copies of a single point have no scale.
    let merge = settings.merge * if scale > 0.0 { scale } else { 1.0 };

    let mut search = Search { am: &am, scale, merge, found: Vec::new(), saddles: Vec::new(), lost: 0 };
    let random = random_starts(memories, beta, settings);
    let fixed = ndarray::concatenate![Axis(0), memories, midpoints(memories, &set, settings)?];
    let newton = memories.ncols() <= NEWTON_DIMENSIONS;
    let run = RetrievalSettings {
        tolerance: 0.01 * merge,
        max_steps: if newton { PATIENCE } else { settings.max_steps },
    };
    search.add(retrieve(&set, fixed.view(), beta, run)?.states, newton)?;
    let share = search.add(retrieve(&set, random.view(), beta, run)?.states, newton)?;

    let mut counts = vec![0usize; search.found.len()];
    share.iter().flatten().for_each(|&i| counts[i] += 1);
    let mut found = Vec::with_capacity(counts.len());
    for ((x, certificate), count) in search.found.into_iter().zip(counts) {
        let (nearest_memory, d2) = nearest(memories, x.view());
        let distance = d2.sqrt();
        found.push(Attractor {
            energy: am.energy(x.view())?,
            nearest_memory,
            distance,
            kind: if distance <= delta_m { Class::Memorized } else { Class::Spurious },
            basin_share: count as f64 / settings.random_starts.max(1) as f64,
            spectrum: spectrum(&am, x.view())?.0,
            certificate,
            x,
        });
    }
    found.sort_by(|a, b| a.energy.total_cmp(&b.energy));
    Ok(Attractors { found, saddles: search.saddles, delta_m, lost: search.lost })
}

struct Search<'a> {
    am: &'a DenseAm,
    scale: f64,
    merge: f64,
    found: Vec<(Array1<f64>, Certificate)>,
    saddles: Vec<(Array1<f64>, usize)>,
    lost: usize,
}

impl Search<'_> {
    /// Adds end states `[m, N]`, and gives the attractor of each.
    fn add(&mut self, states: Array2<f64>, newton: bool) -> Result<Vec<Option<usize>>, MemoryError> {
        let mut out = Vec::with_capacity(states.nrows());
        for batch in states.axis_chunks_iter(Axis(0), BATCH) {
            let polished: Vec<Result<Array1<f64>, MemoryError>> = batch
                .outer_iter()
                .into_par_iter()
                .map(|x| {
                    let x = x.to_owned();
                    if newton && self.known(&x).is_none() {
                        descend(self.am, x, self.merge, self.scale)
                    } else {
                        Ok(x)
                    }
                })
                .collect();
            for x in polished {
                out.push(self.place(x?)?);
            }
        }
        Ok(out)
    }

    fn known(&self, x: &Array1<f64>) -> Option<usize> {
        self.found.iter().position(|(y, _)| squared(x.view(), y.view()) <= self.merge * self.merge)
    }

    fn place(&mut self, x: Array1<f64>) -> Result<Option<usize>, MemoryError> {
        if let Some(i) = self.known(&x) {
            return Ok(Some(i));
        }
        let (values, vectors) = spectrum(self.am, x.view())?;
        let shift = self.am.shift(x.view())?;
        let residual = shift.dot(&shift).sqrt();
        let index = values.iter().filter(|&&v| v < -FLAT).count();
        if index == 0 && values[0] <= FLAT {
            // At a critical beta the minimum is flat: rounding blurs its position, and no step comes closer.
            let blur = 1e-3 * self.scale;
            let near = |(y, _): &(Array1<f64>, Certificate)| squared(x.view(), y.view()) <= blur * blur;
            if let Some(i) = self.found.iter().position(near) {
                return Ok(Some(i));
            }
        } else {
            // Distance to the point of zero gradient in the quadratic model.
            let step2: f64 = values
                .iter()
                .zip(vectors.columns())
                .map(|(value, v)| (2.0 * v.dot(&shift) / value.abs().max(FLAT)).powi(2))
                .sum();
            if step2.sqrt() > self.merge {
                self.lost += 1;
                return Ok(None);
            }
        }
        if residual > self.merge {
            self.lost += 1;
            return Ok(None);
        }
        if index == 0 {
            let certificate = certify(self.am, x.view())?;
            self.found.push((x, certificate));
            return Ok(Some(self.found.len() - 1));
        }
        if !self.saddles.iter().any(|(s, _)| squared(s.view(), x.view()) <= self.merge * self.merge) {
            // Both ways down from the saddle, along its steepest direction.
            let down = vectors.column(0).to_owned();
            self.saddles.push((x.clone(), index));
            for sign in [1.0, -1.0] {
                let beside = &x + &(&down * (sign * 100.0 * self.merge));
                let end = descend(self.am, beside, self.merge, self.scale)?;
                self.place(end)?;
            }
        }
        Ok(None)
    }
}

/// Descends from x to a point of zero gradient by Newton steps with the absolute eigenvalues of the Hessian, which
/// descend along ridges too.
///
/// A step is at most 50 times as long as the retrieval step, or a hundredth of `scale` if that is longer. It must lower
/// the energy; otherwise the retrieval step is taken. So the descent stays in the valley where it starts. In a valley so
/// flat that rounding hides the energy, the step must lower the gradient instead.
fn descend(am: &DenseAm, mut x: Array1<f64>, merge: f64, scale: f64) -> Result<Array1<f64>, MemoryError> {
    let mut here = am.local(x.view())?;
    let mut still = 0;
    for _ in 0..5_000 {
        let length = here.shift.dot(&here.shift).sqrt();
        if length == 0.0 || still >= 2 {
            break;
        }
        let (values, vectors) = eigen(&here.hessian(am.beta()), "descend")?;
        // -grad = 2 shift
        let mut step = Array1::zeros(x.len());
        for (value, v) in values.iter().zip(vectors.columns()) {
            let along = 2.0 * v.dot(&here.shift) / value.abs().max(1e-12);
            step.scaled_add(along, &v);
        }
        let size = step.dot(&step).sqrt();
        let cap = (50.0 * length).max(0.01 * scale);
        if size > cap {
            step *= cap / size;
        }
        let candidate = &x + &step;
        let there = am.local(candidate.view())?;
        // Near the minimum rounding hides the change of energy, and a step this small stays in the valley.
        let close = values[0] > 0.0 && size <= merge;
        let level = (there.energy - here.energy).abs() <= 1e-13 * (here.energy.abs() + scale * scale);
        let flatter = values[0] > 0.0 && level && there.shift.dot(&there.shift) < length * length;
        if close || flatter || there.energy < here.energy {
            still = if close && size <= 1e-3 * merge { still + 1 } else { 0 };
            (x, here) = (candidate, there);
        } else {
            x += &here.shift;
            here = am.local(x.view())?;
        }
    }
    Ok(x)
}

fn eigen(h: &Array2<f64>, operation: &'static str) -> Result<(Array1<f64>, Array2<f64>), MemoryError> {
    let size = h.nrows();
    h.eigh(UPLO::Lower).map_err(|source| MemoryError::Lapack { operation, size, source })
}

/// Eigenvalues (ascending) and eigenvectors of the Hessian of E^AM at x.
fn spectrum(am: &DenseAm, x: ArrayView1<'_, f64>) -> Result<(Array1<f64>, Array2<f64>), MemoryError> {
    eigen(&am.hessian(x)?, "spectrum")
}

fn squared(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn nearest(memories: ArrayView2<'_, f64>, x: ArrayView1<'_, f64>) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (i, row) in memories.outer_iter().enumerate() {
        let d2 = squared(row, x);
        if d2 < best.1 {
            best = (i, d2);
        }
    }
    best
}

/// Root mean square distance between two memories drawn at random: sqrt(2 tr Cov).
fn rms_distance(memories: ArrayView2<'_, f64>) -> f64 {
    let k = memories.nrows() as f64;
    let mean = memories.sum_axis(Axis(0)) / k;
    (2.0 * memories.outer_iter().map(|r| squared(r, mean.view())).sum::<f64>() / k).sqrt()
}

/// Median distance from a memory to its nearest neighbour, over memories without a copy; 0 when there is none.
fn median_spacing(set: &Memories<f64>) -> Result<f64, MemoryError> {
    if set.len() < 2 {
        return Ok(0.0);
    }
    let mut apart: Vec<f64> =
        set.nearest(set.rows(), true)?.distance.into_iter().filter(|&d| d > 0.0).collect();
    apart.sort_by(f64::total_cmp);
    // Only copies: every attractor within rounding of a memory is memorized.
    Ok(apart.get(apart.len() / 2).copied().unwrap_or(0.0))
}

fn random_starts(memories: ArrayView2<'_, f64>, beta: f64, settings: &AttractorSettings) -> Array2<f64> {
    let mut stream = Stream::new(settings.seed, "attractors: random starts");
    let sigma = (0.5 / beta).sqrt();
    let mut starts = Array2::zeros((settings.random_starts, memories.ncols()));
    for mut row in starts.outer_iter_mut() {
        let memory = memories.row(stream.below(memories.nrows() as u64) as usize);
        for (x, y) in row.iter_mut().zip(memory) {
            *x = y + sigma * stream.normal();
        }
    }
    starts
}

fn midpoints(
    memories: ArrayView2<'_, f64>,
    set: &Memories<f64>,
    settings: &AttractorSettings,
) -> Result<Array2<f64>, MemoryError> {
    let k = memories.nrows();
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    if k * (k - 1) / 2 <= settings.midpoints {
        pairs.extend((0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))));
    } else {
        pairs.extend(set.nearest(memories, true)?.index.into_iter().enumerate().take(settings.midpoints));
        let mut stream = Stream::new(settings.seed, "attractors: midpoints");
        while pairs.len() < settings.midpoints {
            pairs.push((stream.below(k as u64) as usize, stream.below(k as u64) as usize));
        }
    }
    let mut out = Array2::zeros((pairs.len(), memories.ncols()));
    for (mut row, (i, j)) in out.outer_iter_mut().zip(pairs) {
        for ((x, a), b) in row.iter_mut().zip(memories.row(i)).zip(memories.row(j)) {
            *x = 0.5 * (a + b);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn quick() -> AttractorSettings {
        AttractorSettings { random_starts: 200, ..AttractorSettings::default() }
    }

    #[test]
    fn a_pair_splits_at_its_critical_beta() {
        let pair = array![[-0.882, 0.471], [0.824, -0.566]];
        let critical = critical_beta_of_pair(pair.row(0), pair.row(1));
        assert!((critical - 0.50155).abs() < 1e-3);
        for (factor, count) in [(0.5, 1), (0.98, 1), (1.02, 2), (4.0, 2)] {
            let got = attractors(pair.clone(), factor * critical, &quick()).unwrap();
            assert_eq!(got.found.len(), count, "{factor}");
            assert_eq!(got.lost, 0);
            assert!(got.found.iter().all(|a| a.certificate.radius.is_some()));
            let share: f64 = got.found.iter().map(|a| a.basin_share).sum();
            assert!((share - 1.0).abs() < 1e-12, "{share}");
        }
        let low = attractors(pair.clone(), 0.4, &quick()).unwrap();
        assert_eq!(low.found[0].kind, Class::Spurious);
        assert!((low.found[0].x[0] + 0.029).abs() < 1e-9 && (low.found[0].x[1] + 0.0475).abs() < 1e-9);
        let high = attractors(pair.clone(), 20.0, &quick()).unwrap();
        assert_eq!(high.count(Class::Memorized), 2);
        // The midpoint is a saddle of index 1, and is reported as that.
        assert!(high.saddles.iter().any(|(x, index)| *index == 1 && (x[0] + 0.029).abs() < 1e-9));
    }

    #[test]
    fn one_memory_and_copies_of_it_are_one_attractor() {
        for k in [1, 5] {
            let same = Array2::from_shape_fn((k, 3), |(_, j)| j as f64);
            let got = attractors(same, 7.0, &quick()).unwrap();
            assert_eq!(got.found.len(), 1);
            assert_eq!(got.found[0].kind, Class::Memorized);
            assert_eq!(got.found[0].distance, 0.0);
            assert_eq!(got.found[0].spectrum.to_vec(), [2.0; 3]);
            assert_eq!(got.found[0].basin_share, 1.0);
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let pair = array![[0.0], [1.0]];
        for bad in [
            AttractorSettings { merge: 0.0, ..quick() },
            AttractorSettings { delta_m: Some(f64::NAN), ..quick() },
        ] {
            assert!(matches!(
                attractors(pair.clone(), 1.0, &bad),
                Err(MemoryError::Op(OpError::Parameter { operation: "attractors", .. }))
            ));
        }
    }
}
