//! The toy model: Fig. 1A and the exact side of Fig. 2.

use std::f64::consts::TAU;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::memory::{AttractorSettings, Attractors, attractors, critical_beta_of_pair, ring, toy};
use crate::ops::Memories;
use crate::progress::ProgressSink;
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Version of the numbers of this study. Raise it with every change that moves them.
pub const VERSION: u32 = 2;

/// Settings of the toy study, a table of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToySettings {
    /// Sizes K of the drawn landscapes.
    pub sizes: Vec<usize>,
    /// Inverse temperature of the exact landscapes; 20 in the paper's code.
    pub beta: f64,
    /// Grid points on a side of a drawn landscape; 20 in the paper's figure.
    pub grid: usize,
    /// The landscape covers [-half_width, half_width]^2; 1.5 in the paper's code.
    pub half_width: f64,
    /// Sizes K of the attractor counts against beta.
    pub ladder_sizes: Vec<usize>,
    /// Inverse temperatures of these counts: first, last, and number of values on a logarithmic scale.
    pub ladder: (f64, f64, usize),
    /// Number of random starts of the attractor search.
    pub random_starts: usize,
}

impl ToySettings {
    /// The betas of the ladder, evenly spaced in the logarithm.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a ladder that does not rise from above 0 in at least two steps.
    pub fn betas(&self) -> Result<Vec<f64>, StudyError> {
        let (first, last, steps) = self.ladder;
        if !(first > 0.0 && last > first && last.is_finite() && steps >= 2) {
            return Err(SettingError::new(
                "toy",
                "ladder",
                format!("{:?}", self.ladder),
                "[first > 0, last > first, steps >= 2]",
            )
            .into());
        }
        let ratio = (last / first).ln() / (steps - 1) as f64;
        Ok((0..steps).map(|i| first * (ratio * i as f64).exp()).collect())
    }
}

/// The number of memories on the circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The first K toy training points.
    Points(usize),
    /// The whole circle, in closed form.
    Infinite,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Points(k) => write!(f, "K = {k}"),
            Self::Infinite => write!(f, "K = \u{221e}"),
        }
    }
}

/// An energy on a square grid.
#[derive(Debug, Clone)]
pub struct Landscape {
    /// Number of memories.
    pub size: Size,
    /// Inverse temperature.
    pub beta: f64,
    /// The grid covers [-half_width, half_width]^2.
    pub half_width: f64,
    /// E^AM minus its minimum, `[grid, grid]`; row i is y, column j is x, both ascending.
    pub energy: Array2<f64>,
    /// The subtracted minimum.
    pub minimum: f64,
}

/// E^AM on a grid x grid lattice over [-half_width, half_width]^2.
///
/// ```
/// use mem2gen::study::toy::{Size, landscape};
///
/// let land = landscape(Size::Points(2), 20.0, 21, 1.5)?;
/// assert_eq!(land.energy.dim(), (21, 21));
/// assert_eq!(land.energy.iter().copied().fold(f64::INFINITY, f64::min), 0.0);
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
///
/// # Errors
/// [`StudyError::Setting`] for a grid of fewer than 2 points; the errors of the energies.
pub fn landscape(size: Size, beta: f64, grid: usize, half_width: f64) -> Result<Landscape, StudyError> {
    if grid < 2 {
        return Err(SettingError::new("toy", "grid", grid, "at least 2 points a side").into());
    }
    let at = |i: usize| half_width * (2.0 * i as f64 / (grid - 1) as f64 - 1.0);
    let mut energy =
        match size {
            Size::Infinite => {
                let mut energy = Array2::zeros((grid, grid));
                for ((i, j), e) in energy.indexed_iter_mut() {
                    *e = ring::energy(at(j).hypot(at(i)), beta)?;
                }
                energy
            }
            Size::Points(k) => {
                let points = toy::points(k)?;
                let queries = Array2::from_shape_fn((grid * grid, 2), |(q, axis)| {
                    if axis == 0 { at(q % grid) } else { at(q / grid) }
                });
                let flat = Memories::new(points)?.energy(queries.view(), beta)?;
                Array2::from_shape_fn((grid, grid), |(i, j)| flat[i * grid + j])
            }
        };
    let minimum = energy.iter().copied().fold(f64::INFINITY, f64::min);
    energy.mapv_inplace(|e| e - minimum);
    Ok(Landscape { size, beta, half_width, energy, minimum })
}

/// A landscape with its training points and attractors.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The energy.
    pub landscape: Landscape,
    /// Training points to draw, `[n, 2]`: the memories, or for the ring the first 1000.
    pub points: Array2<f64>,
    /// The attractors; `None` for the ring, whose minima form a circle.
    pub attractors: Option<Attractors>,
}

/// Several landscapes.
#[derive(Debug, Clone)]
pub struct Landscapes {
    /// One panel for each landscape.
    pub panels: Vec<Panel>,
}

/// The landscape of `size` at beta with its memories and attractors.
///
/// # Errors
/// As [`landscape`] and [`find_attractors`].
pub fn panel(size: Size, beta: f64, settings: &ToySettings) -> Result<Panel, StudyError> {
    let (points, attractors) = match size {
        Size::Points(k) => (toy::points(k)?, Some(find_attractors(k, beta, settings)?)),
        Size::Infinite => (toy::points(toy::POINTS_MAX)?, None),
    };
    Ok(Panel { landscape: landscape(size, beta, settings.grid, settings.half_width)?, points, attractors })
}

/// The minima of the first two toy points near their critical beta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairRow {
    /// beta / beta_c.
    pub ratio: f64,
    /// Distance of the found minima from the midpoint, in units of half the distance of the points.
    pub found: f64,
    /// The same in closed form: the largest root of u = tanh(ratio u) (exact condition of Eq. 7).
    pub closed_form: f64,
}

/// The minima of two memories for several beta.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSplitting {
    /// One row for each beta.
    pub rows: Vec<PairRow>,
}

impl PairSplitting {
    /// Largest difference between a minimum that was found and the closed form, in units of half the distance of the
    /// two points.
    pub fn largest_error(&self) -> f64 {
        self.rows.iter().map(|r| (r.found - r.closed_form).abs()).fold(0.0, f64::max)
    }
}

/// The minima of the first two toy points at each `ratio` of beta to their critical beta.
///
/// # Errors
/// As [`find_attractors`].
pub fn pair_splitting(ratios: &[f64], settings: &ToySettings) -> Result<PairSplitting, StudyError> {
    let points = toy::points(2)?;
    let critical = critical_beta_of_pair(points.row(0), points.row(1));
    let middle = (&points.row(0) + &points.row(1)) / 2.0;
    let half = (&points.row(0) - &middle).mapv(|v| v * v).sum().sqrt();
    let rows = ratios
        .iter()
        .map(|&ratio| {
            let all = find_attractors(2, ratio * critical, settings)?;
            let found = all
                .found
                .iter()
                .map(|a| (&a.x - &middle).mapv(|v| v * v).sum().sqrt() / half)
                .fold(0.0, f64::max);
            // From 1 the iteration decreases to the largest root, slowly near the critical point.
            let closed_form = (0..1_000_000).fold(1.0f64, |u, _| (ratio * u).tanh());
            Ok(PairRow { ratio, found, closed_form: if ratio <= 1.0 { 0.0 } else { closed_form } })
        })
        .collect::<Result<_, StudyError>>()?;
    Ok(PairSplitting { rows })
}

/// An energy along the circle.
#[derive(Debug, Clone)]
pub struct CircleProfile {
    /// Number of memories.
    pub size: Size,
    /// Angle in radians and E^AM + (log K)/beta.
    pub points: Vec<(f64, f64)>,
}

/// Energies along the circle for several sizes.
#[derive(Debug, Clone)]
pub struct CircleProfiles {
    /// Inverse temperature.
    pub beta: f64,
    /// One profile for each size.
    pub profiles: Vec<CircleProfile>,
}

/// E^AM + (log K)/beta along the unit circle at `steps` angles in radians (Fig. 1A). The closed form of the ring is
/// constant.
///
/// # Errors
/// As [`landscape`].
pub fn along_circle(size: Size, beta: f64, steps: usize) -> Result<CircleProfile, StudyError> {
    let angle = |i: usize| TAU * i as f64 / steps as f64;
    let points = match size {
        Size::Infinite => {
            let e = ring::energy(1.0, beta)?;
            (0..=steps).map(|i| (angle(i), e)).collect()
        }
        Size::Points(k) => {
            let points = toy::points(k)?;
            let queries = Array2::from_shape_fn((steps + 1, 2), |(i, axis)| {
                if axis == 0 { angle(i).cos() } else { angle(i).sin() }
            });
            let e = Memories::new(points)?.energy(queries.view(), beta)?;
            let level = (k as f64).ln() / beta;
            (0..=steps).map(|i| (angle(i), e[i] + level)).collect()
        }
    };
    Ok(CircleProfile { size, points })
}

/// The attractors of the first K toy points.
///
/// # Errors
/// As [`attractors`].
pub fn find_attractors(k: usize, beta: f64, settings: &ToySettings) -> Result<Attractors, StudyError> {
    let points = toy::points(k)?;
    let search = AttractorSettings { random_starts: settings.random_starts, ..AttractorSettings::default() };
    Ok(attractors(points, beta, &search)?)
}

/// The attractors for one size and beta.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LadderRow {
    /// Number of memories.
    pub k: usize,
    /// Inverse temperature.
    pub beta: f64,
    /// Number of attractors within delta_m of a memory.
    pub memorized: usize,
    /// Number of attractors that are not a memory.
    pub spurious: usize,
    /// Share of random starts that end in a memorized attractor.
    pub share_memorized: f64,
    /// Number of attractors with a proof that they are stable fixed points.
    pub certified: usize,
    /// Largest distance from an attractor to its nearest memory.
    pub farthest: f64,
    /// Number of starts that did not converge.
    pub lost: usize,
}

/// The number of attractors against beta.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    /// One row for each size and beta.
    pub rows: Vec<LadderRow>,
    /// Critical beta of K = 2, below which two memories have one minimum.
    pub critical_beta: f64,
}

impl Ladder {
    /// The ladder of these rows.
    ///
    /// # Errors
    /// Those of [`toy::points`].
    pub fn new(rows: Vec<LadderRow>) -> Result<Self, StudyError> {
        let pair = toy::points(2)?;
        Ok(Self { rows, critical_beta: critical_beta_of_pair(pair.row(0), pair.row(1)) })
    }

    /// Number of attractors, over all rows.
    pub fn attractors(&self) -> usize {
        self.rows.iter().map(|r| r.memorized + r.spurious).sum()
    }

    /// Number of attractors with a proof that they are stable fixed points, over all rows.
    pub fn certified(&self) -> usize {
        self.rows.iter().map(|r| r.certified).sum()
    }

    /// Number of starts that did not converge, over all rows.
    pub fn lost(&self) -> usize {
        self.rows.iter().map(|r| r.lost).sum()
    }
}

/// Counts attractors for every size and beta of the settings.
///
/// # Errors
/// As [`find_attractors`].
pub fn ladder(settings: &ToySettings, progress: &dyn ProgressSink) -> Result<Vec<LadderRow>, StudyError> {
    let betas = settings.betas()?;
    let mut rows = Vec::with_capacity(settings.ladder_sizes.len() * betas.len());
    for &k in &settings.ladder_sizes {
        for &beta in &betas {
            let all = find_attractors(k, beta, settings)?;
            rows.push(LadderRow {
                k,
                beta,
                memorized: all.count(Class::Memorized),
                spurious: all.count(Class::Spurious),
                share_memorized: all
                    .found
                    .iter()
                    .filter(|a| a.kind == Class::Memorized)
                    .map(|a| a.basin_share)
                    .sum(),
                certified: all.found.iter().filter(|a| a.certificate.radius.is_some()).count(),
                farthest: all.found.iter().map(|a| a.distance).fold(0.0, f64::max),
                lost: all.lost,
            });
            progress.advance(1);
        }
    }
    Ok(rows)
}

/// The difference of a finite sum from the closed form, for one size and beta.
#[derive(Debug, Clone, PartialEq)]
pub struct RingGap {
    /// Number of memories.
    pub k: usize,
    /// Inverse temperature.
    pub beta: f64,
    /// Root mean square over the angle, at the ring's minimum radius, of E_K + (log K)/beta - E_infinity.
    pub rms: f64,
    /// Largest absolute difference.
    pub worst: f64,
}

/// The difference of finite sums from the closed form, for several sizes and beta.
#[derive(Debug, Clone, PartialEq)]
pub struct RingConvergence {
    /// One row for each size and beta.
    pub rows: Vec<RingGap>,
}

/// Difference between the energy of K memories and that of infinitely many, at `steps` angles.
///
/// # Errors
/// As [`landscape`].
pub fn ring_gap(memories: ArrayView2<'_, f64>, beta: f64, steps: usize) -> Result<RingGap, StudyError> {
    let k = memories.nrows();
    let radius = ring::minimum_radius(beta)?;
    let queries = Array2::from_shape_fn((steps, 2), |(i, axis)| {
        let angle = TAU * i as f64 / steps as f64;
        radius * if axis == 0 { angle.cos() } else { angle.sin() }
    });
    let exact = ring::energy(radius, beta)?;
    let energy = Memories::new(memories.to_owned())?.energy(queries.view(), beta)?;
    let gaps = energy.mapv(|e| e + (k as f64).ln() / beta - exact);
    Ok(RingGap {
        k,
        beta,
        rms: (gaps.iter().map(|g| g * g).sum::<f64>() / steps.max(1) as f64).sqrt(),
        worst: gaps.iter().map(|g| g.abs()).fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn settings() -> ToySettings {
        ToySettings {
            sizes: vec![2, 9],
            beta: 20.0,
            grid: 20,
            half_width: 1.5,
            ladder_sizes: vec![2, 9],
            ladder: (0.3, 30.0, 5),
            random_starts: 100,
        }
    }

    #[test]
    fn a_landscape_has_its_minimum_at_zero_and_x_along_columns() {
        let land = landscape(Size::Points(2), 20.0, 61, 1.5).unwrap();
        let ((i, j), least) =
            land.energy.indexed_iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(at, e)| (at, *e)).unwrap();
        assert_eq!(least, 0.0);
        let (x, y) = (-1.5 + 0.05 * j as f64, -1.5 + 0.05 * i as f64);
        let near = toy::points(2).unwrap();
        assert!(near.outer_iter().any(|p| (p[0] - x).hypot(p[1] - y) < 0.05), "{x} {y}");
        assert!(landscape(Size::Infinite, 20.0, 1, 1.5).is_err());
    }

    #[test]
    fn the_ladder_gives_known_counts() {
        let rows = ladder(&settings(), &Silent).unwrap();
        assert_eq!(rows.len(), 10);
        // K = 2 below and above its critical beta of 0.5016.
        assert_eq!((rows[0].memorized, rows[0].spurious), (0, 1));
        assert_eq!((rows[4].memorized, rows[4].spurious), (2, 0));
        assert!(rows.iter().all(|r| r.lost == 0 && r.certified == r.memorized + r.spurious));
        assert!(ToySettings { ladder: (1.0, 0.5, 5), ..settings() }.betas().is_err());
    }

    #[test]
    fn evenly_spaced_memories_reach_the_ring_exponentially_fast() {
        let even = |k: usize| {
            Array2::from_shape_fn((k, 2), |(i, axis)| {
                let a = TAU * i as f64 / k as f64;
                if axis == 0 { a.cos() } else { a.sin() }
            })
        };
        let gap = |k: usize| ring_gap(even(k).view(), 5.0, 97).unwrap().worst;
        assert!(gap(12) < 0.1 * gap(8) && gap(60) < 1e-12, "{} {} {}", gap(8), gap(12), gap(60));
        let drawn = |k: usize| ring_gap(toy::points(k).unwrap().view(), 5.0, 97).unwrap().rms;
        assert!(drawn(1000) < drawn(9) && drawn(1000) > 1e-4);
    }

    #[test]
    fn a_pair_follows_its_closed_form() {
        let pair = pair_splitting(&[0.5, 0.97, 1.05, 1.5, 3.0], &settings()).unwrap();
        assert!(pair.largest_error() < 1e-9, "{pair:?}");
    }

    #[test]
    fn the_profile_of_the_ring_is_flat_and_that_of_two_points_is_not() {
        let spread = |size| {
            let e = along_circle(size, 20.0, 100).unwrap().points;
            let (low, high) =
                e.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), (_, e)| (l.min(*e), h.max(*e)));
            high - low
        };
        assert_eq!(spread(Size::Infinite), 0.0);
        assert!(spread(Size::Points(2)) > 1.0 && spread(Size::Points(1000)) < 0.1);
    }
}
