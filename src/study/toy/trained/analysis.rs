//! The trained side of Fig. 2: energy, attractors and samples of a network that was trained on K points of the circle,
//! compared with the exact ones.
//!
//! The functions take any [`Score`]. With the exact score of the K points every difference is zero up to the tolerance
//! of the integrator; the tests use this.

use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};

use crate::detect::ward;
use crate::memory::{AttractorSettings, attractors, toy};
use crate::ops::Memories;
use crate::process::{Level, Process, Steps, Ve};
use crate::progress::ProgressSink;
use crate::random::{Stream, Streams};
use crate::sample::{Divergence, Flow, Prior, Rk45, euler_maruyama, start};
use crate::score::{Density, Empirical, Ring, Score};
use crate::setting::SettingError;
use crate::study::error::StudyError;
use crate::study::toy::trained::fixed_points::fixed_points;

/// Version of the numbers of this study. Raise it with every change that moves them.
pub const VERSION: u32 = 1;

/// A network and its own settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToyNetwork {
    /// Training points: 2, 9 and 1000 in the paper.
    pub k: usize,
    /// Ward distance above which clusters of samples are not merged; 3.0, 2.0 and 0.45 in the paper's code. Ward
    /// distances grow with the number of samples.
    pub threshold: f64,
    /// Training steps; 800,000, 800,000 and 500,000 in the paper's code. The profile has the other training settings.
    pub steps: u64,
}

/// Settings of the analysis, a table of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedSettings {
    /// Time of the landscape; 0.15 in the paper's code, which is beta = 10/3.
    pub t: f64,
    /// Grid points on a side; 20 in the paper's code.
    pub grid: usize,
    /// The grid covers [-half_width, half_width]^2; 1.5 in the paper's code.
    pub half_width: f64,
    /// Fraction of its maximum above which p_t counts as not negligible; not from the paper.
    pub region: f64,
    /// Number of exact draws of p_t, for means over p_t and as starts of the retrieval.
    pub draws: usize,
    /// Number of clustered samples; 10,000 in the paper's code, 1,500 in its tutorial. Memory: 4 samples^2 bytes.
    pub samples: usize,
    /// Steps of the sampler; 1000 in the paper's code.
    pub sampler_steps: usize,
    /// Distance within which end points of the retrieval are merged into one attractor.
    pub merge: f64,
    /// Largest distance between a trained and an exact attractor that are paired; not from the paper.
    pub pair: f64,
    /// Random starts of the search for the exact attractors.
    pub random_starts: usize,
    /// Seed of draws, samples and starts.
    pub seed: u64,
    /// The networks.
    pub networks: Vec<ToyNetwork>,
}

/// Checked [`TrainedSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedParams(TrainedSettings);

impl TrainedSettings {
    /// Checks every setting once.
    ///
    /// # Errors
    /// [`StudyError::Setting`] that names the first one out of its range.
    pub fn check(self) -> Result<TrainedParams, StudyError> {
        let refused = |setting: &'static str, value: String, need: &str| {
            Err(SettingError::new("trained toy", setting, value, need.to_owned()).into())
        };
        for (setting, value) in
            [("t", self.t), ("half_width", self.half_width), ("merge", self.merge), ("pair", self.pair)]
        {
            if !(value > 0.0 && value.is_finite()) {
                return refused(setting, value.to_string(), "a finite number above 0");
            }
        }
        if !(self.region > 0.0 && self.region < 1.0) {
            return refused("region", self.region.to_string(), "a number between 0 and 1");
        }
        for (setting, value, least) in [
            ("grid", self.grid, 2),
            ("draws", self.draws, 2),
            ("samples", self.samples, 2),
            ("sampler_steps", self.sampler_steps, 1),
        ] {
            if value < least {
                return refused(setting, value.to_string(), &format!("at least {least}"));
            }
        }
        let sizes: Vec<usize> = self.networks.iter().map(|n| n.k).collect();
        if sizes.is_empty() || !sizes.is_sorted_by(|a, b| a < b) || sizes[0] == 0 {
            return refused("networks", format!("for K = {sizes:?}"), "ascending sizes above 0");
        }
        if let Some(n) = self.networks.iter().find(|n| !(n.threshold > 0.0 && n.threshold.is_finite())) {
            return refused("threshold", n.threshold.to_string(), "a finite number above 0");
        }
        Ok(TrainedParams(self))
    }
}

impl TrainedParams {
    /// What was checked.
    pub fn settings(&self) -> &TrainedSettings {
        &self.0
    }
}

/// Energies at a point of the grid: -(1/beta) log p_t (Eq. 25), from normalized densities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GridRow {
    /// Training points.
    pub k: usize,
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// From the score, with the true mixture at T as the prior.
    pub trained: f64,
    /// From the score, with the paper's Gaussian prior.
    pub gaussian_prior: f64,
    /// Exact energy of the K points.
    pub exact: f64,
    /// Exact energy of infinitely many points: the ring.
    pub ring: f64,
}

/// An attractor of the score or of the exact energy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AttractorRow {
    /// Training points.
    pub k: usize,
    /// Whether it is an attractor of the score; otherwise of the exact energy.
    pub trained: bool,
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Whether it is memorized: within a tenth of the median spacing of the points of one of them. Otherwise spurious.
    pub memorized: bool,
    /// Distance to the nearest training point.
    pub to_memory: f64,
    /// Distance to the nearest attractor of the other side; `None` when the other side has no attractor.
    pub to_other: Option<f64>,
    /// Whether it has a partner on the other side.
    pub paired: bool,
    /// Spectral radius of the retrieval dynamics there.
    pub contraction: f64,
    /// Share of draws of p_t whose retrieval ends there.
    pub share: f64,
}

/// A cluster of samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Training points.
    pub k: usize,
    /// Horizontal position of the mean.
    pub x: f64,
    /// Vertical position of the mean.
    pub y: f64,
    /// Share of the samples.
    pub share: f64,
    /// Distance of the mean to the nearest training point.
    pub to_memory: f64,
}

/// Difference of two energies without its mean: root mean square and maximum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Misfit {
    /// Root mean square over the grid.
    pub rms: f64,
    /// Maximum over the grid.
    pub max: f64,
    /// Root mean square over the region where the exact p_t is not negligible.
    pub region_rms: f64,
    /// Maximum over the region.
    pub region_max: f64,
}

/// The summary of one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Training points.
    pub k: usize,
    /// Inverse temperature of the landscape.
    pub beta: f64,
    /// Trained minus exact energy.
    pub misfit: Misfit,
    /// The same with the paper's prior.
    pub gaussian_prior: Misfit,
    /// Trained energy minus the energy of the ring, over the same region.
    pub ring: Misfit,
    /// Grid points in the region.
    pub region_points: usize,
    /// Mean of log(p_t / p_trained) over exact draws of p_t, in nats: the Kullback-Leibler divergence.
    pub divergence: f64,
    /// Its standard error.
    pub divergence_error: f64,
    /// Mean over these draws of the offset of log p_t by the paper's prior, in nats.
    pub offset: f64,
    /// Its standard error.
    pub offset_error: f64,
    /// The same without a network: minus the Kullback-Leibler divergence of the paper's prior from p_T.
    pub offset_exact: f64,
    /// Number of attractors of the score.
    pub attractors: usize,
    /// Number of attractors of the exact energy.
    pub exact_attractors: usize,
    /// Number of pairs.
    pub paired: usize,
    /// Largest distance in a pair.
    pub farthest_pair: f64,
    /// Number of starts of the retrieval that reach no attractor.
    pub lost: usize,
    /// Number of clusters of samples.
    pub clusters: usize,
    /// Median distance of a sample to the nearest training point.
    pub sample_to_memory: f64,
    /// Root mean square distance of a sample from the circle.
    pub sample_to_circle: f64,
}

/// The results of one or several networks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedToy {
    /// Energies, row by row of each grid.
    pub grid: Vec<GridRow>,
    /// Attractors of both sides.
    pub attractors: Vec<AttractorRow>,
    /// Clusters, largest first.
    pub clusters: Vec<ClusterRow>,
    /// One row for each network.
    pub summary: Vec<SummaryRow>,
}

impl TrainedToy {
    /// Appends the results of another network.
    pub fn extend(&mut self, other: Self) {
        self.grid.extend(other.grid);
        self.attractors.extend(other.attractors);
        self.clusters.extend(other.clusters);
        self.summary.extend(other.summary);
    }
}

/// Analyses a score that was trained under `ve` on the first `k` toy points, with its samples clustered at `threshold`.
/// Advances `progress` by one for each trajectory of the likelihood and each step of the sampler.
///
/// # Errors
/// [`StudyError`] for a score that is not two-dimensional, a time out of the range of the process, and the errors of
/// score, sampler and integrator.
pub fn analyse(
    score: &dyn Score,
    ve: Ve,
    (k, threshold): (usize, f64),
    params: &TrainedParams,
    progress: &dyn ProgressSink,
) -> Result<TrainedToy, StudyError> {
    let settings = &params.0;
    let points = toy::points(k)?;
    let exact = Empirical::new(Memories::new(points.clone())?);
    let level = ve.level(settings.t)?;
    let analysis = Analysis { k, score, ve, exact: &exact, level, settings };

    let lattice = lattice(settings.grid, settings.half_width);
    let draws = analysis.draws();
    progress.stage("likelihood");
    let rows = concatenate![Axis(0), lattice, draws];
    let logs = analysis.likelihood(rows.view(), progress)?;
    let (grid, region) = analysis.grid(lattice.view(), &logs);
    let on_draws = |v: &Array1<f64>| mean(v.slice(s![lattice.nrows()..]).to_owned());
    let (divergence, divergence_error) = on_draws(&(&logs.exact - &logs.trained));
    let (offset, offset_error) = on_draws(&(&logs.gaussian - &logs.trained));

    progress.stage("samples");
    let samples = analysis.samples(progress)?;
    let clusters = analysis.clusters(samples.view(), threshold)?;

    progress.stage("retrieval");
    let some = samples.slice(s![..settings.draws.min(samples.nrows()), ..]);
    let found = analysis.attractors(lattice.view(), draws.view(), some)?;
    let pairs = found.rows.iter().filter(|a| a.trained && a.paired);

    let column = |value: fn(&GridRow) -> f64| grid.iter().map(value).collect::<Vec<f64>>();
    let (trained, plain, true_energy, ring) =
        (column(|r| r.trained), column(|r| r.gaussian_prior), column(|r| r.exact), column(|r| r.ring));
    let mut off: Vec<f64> = samples.outer_iter().map(|x| nearest(points.view(), [x[0], x[1]])).collect();
    off.sort_by(f64::total_cmp);
    let circle = samples.outer_iter().map(|x| (x[0].hypot(x[1]) - 1.0).powi(2)).sum::<f64>();
    let summary = SummaryRow {
        k,
        beta: level.beta(),
        misfit: misfit(&trained, &true_energy, &region),
        gaussian_prior: misfit(&plain, &true_energy, &region),
        ring: misfit(&trained, &ring, &region),
        region_points: region.iter().filter(|r| **r).count(),
        divergence,
        divergence_error,
        offset,
        offset_error,
        offset_exact: prior_offset(&exact, ve)?,
        attractors: found.rows.iter().filter(|a| a.trained).count(),
        exact_attractors: found.rows.iter().filter(|a| !a.trained).count(),
        paired: pairs.clone().count(),
        farthest_pair: pairs.filter_map(|a| a.to_other).fold(0.0, f64::max),
        lost: found.lost,
        clusters: clusters.len(),
        sample_to_memory: off[off.len() / 2],
        sample_to_circle: (circle / samples.nrows() as f64).sqrt(),
    };
    Ok(TrainedToy { grid, attractors: found.rows, clusters, summary: vec![summary] })
}

/// The arguments that all parts of the analysis share.
struct Analysis<'a> {
    k: usize,
    score: &'a dyn Score,
    ve: Ve,
    exact: &'a Empirical,
    level: Level,
    settings: &'a TrainedSettings,
}

/// log p_t of rows, in nats.
struct Logs {
    /// From the score with the true mixture at T as the prior.
    trained: Array1<f64>,
    /// From the score with the paper's prior.
    gaussian: Array1<f64>,
    /// Exact, for the K points.
    exact: Array1<f64>,
    /// Exact, for the ring.
    ring: Array1<f64>,
}

/// The attractors of both sides, and the number of starts that reach none.
struct BothAttractors {
    rows: Vec<AttractorRow>,
    lost: usize,
}

impl Analysis<'_> {
    /// Draws of p_t: a uniformly drawn point plus noise.
    fn draws(&self) -> Array2<f64> {
        let mut stream = Stream::new(self.settings.seed, "trained toy: draws");
        let points = self.exact.memories().rows();
        let mut out = Array2::zeros((self.settings.draws, 2));
        for mut row in out.outer_iter_mut() {
            let point = points.row(stream.below(points.nrows() as u64) as usize);
            for (x, xi) in row.iter_mut().zip(point) {
                *x = self.level.perturb(*xi, stream.normal());
            }
        }
        out
    }

    fn likelihood(&self, rows: ArrayView2<'_, f64>, progress: &dyn ProgressSink) -> Result<Logs, StudyError> {
        let flow = Flow { score: self.score, process: &self.ve, solver: Rk45::default() };
        let got =
            flow.log_density(rows, self.settings.t, Prior::Known(self.exact), Divergence::Exact, progress)?;
        // The flow is the same under both priors, so that only the density at its end differs.
        let last = vec![self.ve.level(self.ve.horizon())?; rows.nrows()];
        let mixture = self.exact.log_density(got.end.view(), &last)?;
        let gaussian = paper_prior(self.ve, got.end.view());
        let levels = vec![self.level; rows.nrows()];
        Ok(Logs {
            gaussian: &got.log_density + &(gaussian - mixture),
            trained: got.log_density,
            exact: self.exact.log_density(rows, &levels)?,
            ring: Ring.log_density(rows, &levels)?,
        })
    }

    /// The energies of the lattice, which are the first rows of the logs, and whether p_t is not negligible there.
    fn grid(&self, lattice: ArrayView2<'_, f64>, logs: &Logs) -> (Vec<GridRow>, Vec<bool>) {
        let e = |log: f64| self.level.energy(log);
        let rows = lattice.outer_iter().enumerate().map(|(i, x)| GridRow {
            k: self.k,
            x: x[0],
            y: x[1],
            trained: e(logs.trained[i]),
            gaussian_prior: e(logs.gaussian[i]),
            exact: e(logs.exact[i]),
            ring: e(logs.ring[i]),
        });
        let exact = logs.exact.slice(s![..lattice.nrows()]);
        let top = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = top + self.settings.region.ln();
        (rows.collect(), exact.iter().map(|l| *l >= least).collect())
    }

    fn samples(&self, progress: &dyn ProgressSink) -> Result<Array2<f64>, StudyError> {
        let &TrainedSettings { samples, sampler_steps, seed, .. } = self.settings;
        let mut streams = Streams::new(seed, "trained toy: samples", 0..samples);
        let x = start(&self.ve, 2, &mut streams);
        let steps = Steps::even(&self.ve, self.ve.horizon(), self.ve.clean(), sampler_steps)?;
        Ok(euler_maruyama(self.score, &self.ve, &steps, x, &mut streams, progress)?)
    }

    fn clusters(&self, samples: ArrayView2<'_, f64>, threshold: f64) -> Result<Vec<ClusterRow>, StudyError> {
        let got = ward(samples, threshold)?;
        let row = |(c, size): (ndarray::ArrayView1<'_, f64>, &usize)| ClusterRow {
            k: self.k,
            x: c[0],
            y: c[1],
            share: *size as f64 / samples.nrows() as f64,
            to_memory: nearest(self.exact.memories().rows(), [c[0], c[1]]),
        };
        let mut rows: Vec<ClusterRow> = got.centroid.outer_iter().zip(&got.size).map(row).collect();
        rows.sort_by(|a, b| b.share.total_cmp(&a.share));
        Ok(rows)
    }

    /// The attractors of the score, from starts at draws of p_t, the lattice and samples, and those of the exact energy.
    fn attractors(
        &self,
        lattice: ArrayView2<'_, f64>,
        draws: ArrayView2<'_, f64>,
        samples: ArrayView2<'_, f64>,
    ) -> Result<BothAttractors, StudyError> {
        let &TrainedSettings { merge, pair, random_starts, seed, .. } = self.settings;
        let points = self.exact.memories().rows();
        let search = AttractorSettings { random_starts, seed, ..AttractorSettings::default() };
        let exact = attractors(points.to_owned(), self.level.beta(), &search)?;
        let starts = concatenate![Axis(0), draws, lattice, samples];
        let got = fixed_points(self.score, self.level, starts, merge)?;
        let mut share = vec![0.0; got.found.len()];
        for i in got.end[..draws.nrows()].iter().flatten() {
            share[*i] += 1.0 / draws.nrows() as f64;
        }
        let row = |trained, x: [f64; 2], contraction, share| {
            let to_memory = nearest(points, x);
            AttractorRow {
                k: self.k,
                trained,
                x: x[0],
                y: x[1],
                memorized: to_memory <= exact.delta_m,
                to_memory,
                to_other: None,
                paired: false,
                contraction,
                share,
            }
        };
        let mut rows: Vec<AttractorRow> =
            got.found.iter().zip(share).map(|(f, share)| row(true, f.x, f.contraction, share)).collect();
        rows.sort_by(|a, b| b.share.total_cmp(&a.share));
        rows.extend(
            exact
                .found
                .iter()
                .map(|a| row(false, [a.x[0], a.x[1]], a.certificate.contraction, a.basin_share)),
        );
        pair_up(&mut rows, pair);
        Ok(BothAttractors { rows, lost: got.end.iter().filter(|e| e.is_none()).count() })
    }
}

/// Sets the distances between the two sides and pairs attractors greedily, the nearest two first, up to `most` apart.
fn pair_up(rows: &mut [AttractorRow], most: f64) {
    let apart = |a: &AttractorRow, b: &AttractorRow| (a.x - b.x).hypot(a.y - b.y);
    let mut pairs = Vec::new();
    for i in 0..rows.len() {
        for j in 0..rows.len() {
            if rows[i].trained != rows[j].trained {
                let d = apart(&rows[i], &rows[j]);
                rows[i].to_other = Some(rows[i].to_other.map_or(d, |near| near.min(d)));
                if i < j && d <= most {
                    pairs.push((d, i, j));
                }
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, i, j) in pairs {
        if !rows[i].paired && !rows[j].paired {
            (rows[i].paired, rows[j].paired) = (true, true);
        }
    }
}

/// The points of the grid, row by row from the bottom, x along rows.
fn lattice(side: usize, half: f64) -> Array2<f64> {
    let at = |i: usize| half * (2.0 * i as f64 / (side - 1) as f64 - 1.0);
    Array2::from_shape_fn((side * side, 2), |(q, axis)| if axis == 0 { at(q % side) } else { at(q / side) })
}

/// log N(x; 0, s^2 I) of each row, where s is the standard deviation of the samplers' start.
fn paper_prior(ve: Ve, x: ArrayView2<'_, f64>) -> Array1<f64> {
    let v = ve.prior_scale().powi(2);
    let norm = 0.5 * x.ncols() as f64 * (TAU * v).ln();
    x.outer_iter().map(|x| -0.5 * x.dot(&x) / v - norm).collect()
}

/// The mean over p_T of log(prior / p_T) for the paper's prior, by the trapezoid rule with a step of a quarter of a
/// standard deviation, which is exact to rounding for sums of Gaussians.
fn prior_offset(exact: &Empirical, ve: Ve) -> Result<f64, StudyError> {
    let level = ve.level(ve.horizon())?;
    // Memories lie on the unit circle.
    let half = 1.0 + 9.0 * level.sigma();
    let side = (8.0 * half / level.sigma()).ceil() as usize + 1;
    let x = lattice(side, half);
    let cell = (2.0 * half / (side - 1) as f64).powi(2);
    let log = exact.log_density(x.view(), &vec![level; x.nrows()])?;
    let prior = paper_prior(ve, x.view());
    Ok(log.iter().zip(&prior).map(|(p, q)| p.exp() * (q - p)).sum::<f64>() * cell)
}

/// Mean and standard error.
fn mean(v: Array1<f64>) -> (f64, f64) {
    let n = v.len() as f64;
    (v.sum() / n, v.std(1.0) / n.sqrt())
}

fn misfit(a: &[f64], b: &[f64], region: &[bool]) -> Misfit {
    let over = |kept: &dyn Fn(usize) -> bool| {
        let d: Vec<f64> = (0..a.len()).filter(|&i| kept(i)).map(|i| a[i] - b[i]).collect();
        let n = d.len() as f64;
        let constant = d.iter().sum::<f64>() / n;
        let rms = (d.iter().map(|d| (d - constant).powi(2)).sum::<f64>() / n).sqrt();
        (rms, d.iter().map(|d| (d - constant).abs()).fold(0.0, f64::max))
    };
    let ((rms, max), (region_rms, region_max)) = (over(&|_| true), over(&|i| region[i]));
    Misfit { rms, max, region_rms, region_max }
}

/// Distance from x to the nearest row.
fn nearest(rows: ArrayView2<'_, f64>, x: [f64; 2]) -> f64 {
    rows.outer_iter().map(|r| (r[0] - x[0]).hypot(r[1] - x[1])).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ring;
    use crate::progress::Silent;
    use crate::score::ScoreError;

    fn settings() -> TrainedSettings {
        TrainedSettings {
            t: 0.15,
            grid: 12,
            half_width: 1.5,
            region: 0.01,
            draws: 100,
            samples: 150,
            sampler_steps: 200,
            merge: 1e-2,
            pair: 0.15,
            random_starts: 100,
            seed: 1,
            networks: vec![ToyNetwork { k: 2, threshold: 3.0, steps: 1 }],
        }
    }

    fn analysed(score: &dyn Score, k: usize, threshold: f64) -> TrainedToy {
        analyse(score, Ve::default(), (k, threshold), &settings().check().unwrap(), &Silent).unwrap()
    }

    /// The score of a perfectly trained network.
    fn exact<R>(k: usize, then: impl FnOnce(&Empirical) -> R) -> R {
        let points = toy::points(k).unwrap();
        then(&Empirical::new(Memories::new(points.clone()).unwrap()))
    }

    #[test]
    fn the_exact_score_in_the_place_of_a_network_has_the_exact_energy() {
        for (k, attractors) in [(2, 2), (9, 3), (1000, 2)] {
            let got = exact(k, |score| analysed(score, k, 1.0));
            let row = got.summary[0];
            // Ten times the integrator's tolerance, times 1/beta = 0.3.
            for m in [row.misfit.max, row.misfit.region_max, row.divergence.abs() * 0.3] {
                assert!(m < 3e-4, "{row:?}");
            }
            assert!((40..144).contains(&row.region_points), "{row:?}");
            // Eq. 6 on the whole grid, including the constant.
            let points = toy::points(k).unwrap();
            let memories = Memories::new(points.clone()).unwrap();
            let constant = ((k as f64).ln() + (TAU * 0.15).ln()) * 0.3;
            for r in &got.grid {
                let e = memories.energy(ndarray::array![[r.x, r.y]].view(), 10.0 / 3.0).unwrap()[0];
                assert!((r.exact - constant - e).abs() < 1e-12 && (r.trained - constant - e).abs() < 3e-4);
            }
            // Eq. 15, whose density has the same constant without log K.
            let r = got.grid[5];
            let ring = ring::energy(r.x.hypot(r.y), 10.0 / 3.0).unwrap();
            assert!((r.ring - (TAU * 0.15).ln() * 0.3 - ring).abs() < 1e-12);
            // The offset of the paper's prior, averaged over 100 draws.
            assert!((row.offset - row.offset_exact).abs() < 4.0 * row.offset_error, "{row:?}");
            assert!(row.gaussian_prior.max > 10.0 * row.misfit.max);
            // The paper's notes have three attractors for nine points.
            assert_eq!(
                (row.attractors, row.exact_attractors, row.paired),
                (attractors, attractors, attractors)
            );
            assert!(row.farthest_pair < 1e-6 && row.lost == 0, "{row:?}");
            let both = |trained| got.attractors.iter().filter(move |a| a.trained == trained);
            let share: f64 = both(true).map(|a| a.share).sum();
            assert!((share - 1.0).abs() < 1e-12);
            let kind = |trained| both(trained).filter(|a| a.memorized).count();
            assert_eq!((kind(true), kind(false)), if k == 2 { (2, 2) } else { (0, 0) });
        }
    }

    #[test]
    fn the_paper_prior_is_that_of_the_flow() {
        let x = ndarray::array![[0.3, -0.8], [1.2, 1.1]];
        let flowed = exact(9, |score| {
            let flow = Flow { score, process: &Ve::default(), solver: Rk45::default() };
            flow.log_density(x.view(), 0.15, Prior::Gaussian, Divergence::Exact, &Silent).unwrap().log_density
        });
        let here = exact(9, |score| {
            let (ve, settings) = (Ve::default(), settings());
            let level = ve.level(0.15).unwrap();
            let analysis = Analysis { k: 9, score, ve, exact: score, level, settings: &settings };
            analysis.likelihood(x.view(), &Silent).unwrap().gaussian
        });
        assert!((flowed - here).iter().all(|d| d.abs() < 1e-12));
        // One memory: the mean of log N(x; 0, I) - log N(x; xi, I) over N(xi, I) is -|xi|^2 / 2.
        let one = exact(1, |score| prior_offset(score, Ve::default()).unwrap());
        assert!((one + 0.5).abs() < 1e-12, "{one}");
    }

    #[test]
    fn samples_of_separated_memories_make_a_cluster_each() {
        // The first four are 13 degrees apart and more. With 35 samples each, neighbours of 0.23 are 1.3 apart.
        for (k, threshold) in [(2, 3.0), (4, 0.9)] {
            let params = TrainedSettings { sampler_steps: 1000, ..settings() }.check().unwrap();
            let got =
                exact(k, |score| analyse(score, Ve::default(), (k, threshold), &params, &Silent).unwrap());
            assert_eq!(got.clusters.len(), k);
            // The last steps still mix the nearest two a little.
            assert!(got.clusters.iter().all(|c| c.to_memory < 1e-2), "{:?}", got.clusters);
            assert!((got.clusters.iter().map(|c| c.share).sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(got.summary[0].sample_to_memory < 1e-3 && got.summary[0].sample_to_circle < 1e-2);
        }
    }

    /// A score that is 1.5 times too long.
    struct Longer<'a>(&'a Empirical);

    impl Score for Longer<'_> {
        fn dim(&self) -> usize {
            2
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            Ok(self.0.score(x, levels)? * 1.5)
        }

        fn vjp(
            &self,
            x: ArrayView2<'_, f64>,
            levels: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            Ok(self.0.vjp(x, levels, v)? * 1.5)
        }
    }

    #[test]
    fn a_wrong_score_is_seen_in_every_measure() {
        let row = exact(9, |score| analysed(&Longer(score), 9, 1.0)).summary[0];
        assert!(row.misfit.region_rms > 0.02 && row.misfit.rms > row.misfit.region_rms, "{row:?}");
        assert!(row.divergence > 0.1 && row.divergence > 2.0 * row.divergence_error, "{row:?}");
        // Its zeros are those of the exact score.
        assert_eq!((row.attractors, row.paired, row.lost), (3, 3, 0));
        // The ring's own score has the ring's energy up to the prior, and a circle of neutral points.
        let row = analysed(&Ring, 9, 1.0).summary[0];
        assert!(row.ring.region_rms < 0.5 * row.misfit.region_rms, "{row:?}");
        // 144 of the grid, 100 draws and 100 samples.
        assert_eq!((row.attractors, row.exact_attractors, row.lost), (0, 3, 344));
    }

    #[test]
    fn attractors_pair_up_one_to_one_and_the_nearest_first() {
        let at = |trained, x| AttractorRow {
            k: 2,
            trained,
            x,
            y: 0.0,
            memorized: false,
            to_memory: 0.0,
            to_other: None,
            paired: false,
            contraction: 0.0,
            share: 0.0,
        };
        let mut rows = [at(true, 0.0), at(true, 0.5), at(true, 3.0), at(false, 0.4), at(false, 9.0)];
        pair_up(&mut rows, 1.0);
        assert_eq!(rows.map(|r| r.paired), [false, true, false, true, false]);
        assert_eq!((rows[0].to_other, rows[4].to_other), (Some(0.4), Some(6.0)));
        let mut alone = [at(true, 0.0)];
        pair_up(&mut alone, 1.0);
        assert!(alone[0].to_other.is_none() && !alone[0].paired);
    }

    #[test]
    fn the_misfit_takes_the_best_constant_off() {
        let m = misfit(&[1.0, 3.0, 9.0], &[0.0, 0.0, 0.0], &[true, true, false]);
        assert_eq!((m.region_rms, m.region_max), (1.0, 1.0));
        assert!((m.max - 14.0 / 3.0).abs() < 1e-15 && m.rms > m.region_rms);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let d = settings;
        for (bad, name) in [
            (TrainedSettings { t: 0.0, ..d() }, "t"),
            (TrainedSettings { region: 1.0, ..d() }, "region"),
            (TrainedSettings { grid: 1, ..d() }, "grid"),
            (TrainedSettings { samples: 1, ..d() }, "samples"),
            (TrainedSettings { merge: f64::NAN, ..d() }, "merge"),
            (TrainedSettings { networks: vec![], ..d() }, "networks"),
            (
                TrainedSettings { networks: vec![ToyNetwork { k: 2, threshold: 0.0, steps: 1 }], ..d() },
                "threshold",
            ),
        ] {
            assert!(matches!(bad.check(), Err(StudyError::Setting(e)) if e.setting == name));
        }
    }
}
