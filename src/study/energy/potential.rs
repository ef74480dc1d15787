//! Relative energy (Eqs. 43 to 48): what it takes to go from an image to a training image in the potential whose
//! gradient the reverse process follows.
//!
//! Along the arc x(alpha) = cos(alpha) target + sin(alpha) reference, alpha from 0 to pi/2, the gradient
//! grad U = -beta x / 2 - beta s(x, t) is integrated: u(alpha) is the integral of grad U . dx up to alpha. For a
//! score that is a gradient the end of it is [`SIGN`]: U(reference) - U(target), with
//! U = -beta (log p_t + |x|^2 / 4), so the larger u, the lower the energy of the target.
//!
//! How many points an arc needs depends on the score. At t = 0 the exact score of K memories jumps where the nearest
//! memory changes, within about sigma^2 / distance; until its step is as small as that the trapezoid rule converges at
//! first order. With 2 to 1000 random memories of 49 dimensions 20 points are wrong by 1 to 4 percent of the mean |u|,
//! 200 points by 0.1 to 0.4 and 2000 by 0.01 to 0.05. [`PotentialSettings::tolerance`] halves the intervals where it
//! matters, and [`LoopRow::error`] says what the rule leaves with a network.

use std::f64::consts::FRAC_PI_2;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::class::Group;
use crate::ops::OpError;
use crate::process::{Level, Process, Vp};
use crate::progress::ProgressSink;
use crate::random::{SEED, Stream};
use crate::score::{Score, check_shape, first_bad};
use crate::study::StudyError;
use crate::study::context::Cells;

/// Version of the numbers that this analysis gives. It goes up with any change that moves them.
pub const VERSION: u32 = 2;

/// The sign convention, as every table and figure states it.
pub const SIGN: &str = "u = U(reference) - U(target): larger u, lower energy of the target";

const NAME: &str = "relative energy";

/// Arcs of a piece that a killed run need not compute again.
const PIECE: usize = 256;

/// Halvings of an interval before the rest of its error is left standing.
const ROUNDS: usize = 40;

/// Settings of the analysis; the defaults are the paper's where it has any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PotentialSettings {
    /// Level of the process, an index of DDPM; 0 in the paper.
    pub t: usize,
    /// Points of an arc, both ends among them; 20 in the paper's code.
    pub points: usize,
    /// Whether to give the numbers of the paper's code, with its two flaws. Its noise has the variance
    /// 1 - prod beta in the place of 1 - prod (1 - beta), which at t = 0 makes the score a hundred times too small,
    /// and it sums all points with the step of one interval less, which counts both ends twice.
    pub legacy: bool,
    /// Intervals are halved until the estimated error of each arc is at most this, in the units of u. Without it the
    /// points are all there is, as in the paper. This project's own.
    pub tolerance: Option<f64>,
    /// Training images that are references, or all where there are fewer. The paper's figures take one each.
    pub references: usize,
    /// The first so many images of each class are targets; 512 in the paper.
    pub max: usize,
    /// The first so many training images are targets; 2048 in the paper's code.
    pub training: usize,
    /// Closed circuits for each class and reference, see [`LoopRow`]. This project's own.
    pub loops: usize,
    /// Points of each arc of a circuit, an odd number; a tolerance adds to them. This project's own.
    pub loop_points: usize,
    /// Classes with fewer images are marked. This project's own.
    pub least: usize,
    /// Resamples of the bootstrap. This project's own.
    pub resamples: usize,
    /// Seed of the choice of references and of the bootstrap.
    pub seed: u64,
}

impl Default for PotentialSettings {
    fn default() -> Self {
        Self {
            t: 0,
            points: 20,
            legacy: false,
            tolerance: None,
            references: 1,
            max: 512,
            training: 2048,
            loops: 16,
            loop_points: 201,
            least: 16,
            resamples: 1000,
            seed: SEED,
        }
    }
}

/// Checked [`PotentialSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct PotentialParams(PotentialSettings);

impl PotentialSettings {
    /// Checks every setting once.
    ///
    /// # Errors
    /// [`StudyError::Setting`] that names the first one out of its range.
    pub fn check(self) -> Result<PotentialParams, StudyError> {
        let refused = |setting, value: String, need: &str| {
            Err(StudyError::Setting { analysis: NAME, setting, value, need: need.into() })
        };
        for (setting, value, least) in [
            ("points", self.points, 2),
            ("references", self.references, 1),
            ("max", self.max, 1),
            ("training", self.training, 1),
            ("resamples", self.resamples, 1),
        ] {
            if value < least {
                return refused(setting, value.to_string(), &format!("at least {least}"));
            }
        }
        if self.loop_points < 3 || self.loop_points.is_multiple_of(2) {
            return refused("loop_points", self.loop_points.to_string(), "an odd number of at least 3");
        }
        match self.tolerance {
            Some(e) if !(e > 0.0 && e.is_finite()) => {
                refused("tolerance", e.to_string(), "a finite number above 0")
            }
            Some(e) if self.legacy => refused("tolerance", e.to_string(), "none where legacy is set"),
            _ => Ok(PotentialParams(self)),
        }
    }
}

impl PotentialParams {
    /// What was checked.
    pub fn settings(&self) -> &PotentialSettings {
        &self.0
    }

    /// Places of the references among `k` training images, as drawn.
    pub fn references(&self, k: usize) -> Vec<usize> {
        let mut order = Stream::new(self.0.seed, "potential: references").permutation(k);
        order.truncate(self.0.references);
        order
    }

    /// Steps of progress of [`analyse`] for `k` training images and classes of these sizes: arcs.
    pub fn work(&self, k: usize, classes: &[usize]) -> u64 {
        let targets = |n: &usize| *n.min(&self.0.max);
        let circuits = |n: usize| if n < 2 { 0 } else { 3 * n.min(self.0.loops) };
        let training = k.min(self.0.training);
        let each: usize = classes.iter().map(targets).chain([training]).map(|n| n + circuits(n)).sum();
        (self.0.references.min(k) * each) as u64
    }
}

/// Integrals of a batch of arcs.
#[derive(Debug, Clone, PartialEq)]
pub struct Arcs {
    /// u(alpha) at the points of each arc, `[m, points]`.
    pub u: Array2<f64>,
    /// Estimated error of the last column, `[m]`, where the tolerance asked for one.
    pub error: Option<Vec<f64>>,
}

/// The potential of a score at one level.
pub struct Potential<'a> {
    score: &'a dyn Score,
    level: Level,
    beta: f64,
    /// Factor of the score: 1, or that of the paper's code.
    factor: f64,
    params: &'a PotentialParams,
    rows: usize,
}

/// A part of an arc, with the slope at both ends and in the middle.
struct Interval {
    point: usize,
    ends: [f64; 2],
    slopes: [f64; 3],
}

impl Interval {
    fn width(&self) -> f64 {
        self.ends[1] - self.ends[0]
    }

    fn middle(&self) -> f64 {
        0.5 * (self.ends[0] + self.ends[1])
    }

    /// By the trapezoid rule on both halves.
    fn integral(&self) -> f64 {
        0.25 * self.width() * (self.slopes[0] + 2.0 * self.slopes[1] + self.slopes[2])
    }

    /// What halving changed. For a smooth slope that is three times the error that is left, and for a jump at
    /// least as much.
    fn error(&self) -> f64 {
        (0.25 * self.width() * (self.slopes[0] - 2.0 * self.slopes[1] + self.slopes[2])).abs()
    }
}

impl<'a> Potential<'a> {
    /// Of a score under `vp`, which is asked for `rows` rows at a time; nothing depends on how many.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a t that the process has no level of.
    pub fn new(
        score: &'a dyn Score,
        vp: &Vp,
        params: &'a PotentialParams,
        rows: usize,
    ) -> Result<Self, StudyError> {
        let t = params.0.t;
        let Some(&beta) = vp.betas().get(t) else {
            let need = format!("a level from 0 to {}", vp.betas().len() - 1);
            return Err(StudyError::Setting { analysis: NAME, setting: "t", value: t.to_string(), need });
        };
        let level = vp.level(t as f64)?;
        let factor = if params.0.legacy {
            let product: f64 = vp.betas()[..=t].iter().product();
            level.sigma() / (1.0 - product).sqrt()
        } else {
            1.0
        };
        Ok(Self { score, level, beta, factor, params, rows: rows.max(1) })
    }

    /// grad U at each row of `x` `[m, N]` (Eq. 43): `[m, N]`.
    ///
    /// # Errors
    /// Those of the score.
    pub fn gradient(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>, StudyError> {
        let mut g = self.score.score(x, &vec![self.level; x.nrows()])?;
        g.zip_mut_with(&x, |s, x| *s = -self.beta * (0.5 * x + self.factor * *s));
        Ok(g)
    }

    /// The arcs from each row of `targets` `[m, N]` to the row of `references` `[m, N]` beside it (Eqs. 45 to 47).
    ///
    /// # Errors
    /// [`OpError`] for a wrong shape, NaN or infinity; those of the score.
    pub fn arcs(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
    ) -> Result<Arcs, StudyError> {
        self.check(&targets, &references)?;
        let PotentialSettings { points, legacy, tolerance, .. } = *self.params.settings();
        let m = targets.nrows();
        let slopes = self.even(targets, references, points)?;
        let step = FRAC_PI_2 / (points - 1) as f64;
        if let Some(tolerance) = tolerance {
            return self.refined(targets, references, &slopes, tolerance);
        }
        let mut u = Array2::zeros((m, points));
        for (mut u, g) in u.outer_iter_mut().zip(slopes.outer_iter()) {
            let mut sum = 0.0;
            for i in 0..points {
                sum += match (legacy, i) {
                    (true, _) => step * g[i],
                    (false, 0) => 0.0,
                    (false, _) => 0.5 * step * (g[i - 1] + g[i]),
                };
                u[i] = sum;
            }
        }
        Ok(Arcs { u, error: None })
    }

    /// u of each arc of a circuit and the error of it, `[m]` both: to the tolerance where there is one, else what the
    /// trapezoid rule changes by with every second point left out.
    fn with_error(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
    ) -> Result<(Vec<f64>, Vec<f64>), StudyError> {
        let PotentialSettings { loop_points: points, tolerance, .. } = *self.params.settings();
        let slopes = self.even(targets, references, points)?;
        if let Some(tolerance) = tolerance {
            let arcs = self.refined(targets, references, &slopes, tolerance)?;
            return Ok((arcs.u.column(points - 1).to_vec(), arcs.error.unwrap_or_default()));
        }
        let step = FRAC_PI_2 / (points - 1) as f64;
        let rule = |g: ndarray::ArrayView1<'_, f64>, stride: usize| {
            let sum: f64 = g.iter().step_by(stride).sum();
            step * stride as f64 * (sum - 0.5 * (g[0] + g[points - 1]))
        };
        Ok(slopes.outer_iter().map(|g| (rule(g, 1), (rule(g, 1) - rule(g, 2)).abs())).unzip())
    }

    /// The slope grad U . dx/dalpha at evenly spaced points of each arc, `[m, points]`.
    fn even(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
        points: usize,
    ) -> Result<Array2<f64>, StudyError> {
        let step = FRAC_PI_2 / (points - 1) as f64;
        let at = (0..targets.nrows()).flat_map(|arc| (0..points).map(move |i| (arc, step * i as f64)));
        let slopes = self.slopes(targets, references, &at.collect::<Vec<_>>())?;
        let mut slopes = slopes.into_iter();
        Ok(Array2::from_shape_simple_fn((targets.nrows(), points), || slopes.next().unwrap_or_default()))
    }

    /// The slope at each of these points (arc, alpha).
    fn slopes(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
        at: &[(usize, f64)],
    ) -> Result<Vec<f64>, StudyError> {
        let n = targets.ncols();
        let mut out = Vec::with_capacity(at.len());
        for part in at.chunks(self.rows) {
            let (mut x, mut v) = (Array2::zeros((part.len(), n)), Array2::zeros((part.len(), n)));
            for (row, &(arc, alpha)) in part.iter().enumerate() {
                let (sin, cos) = (libm::sin(alpha), libm::cos(alpha));
                for k in 0..n {
                    let (a, b) = (targets[[arc, k]], references[[arc, k]]);
                    x[[row, k]] = cos * a + sin * b;
                    v[[row, k]] = cos * b - sin * a;
                }
            }
            let g = self.gradient(x.view())?;
            out.extend(g.outer_iter().zip(v.outer_iter()).map(|(g, v)| g.dot(&v)));
        }
        Ok(out)
    }

    /// Halves intervals, all arcs together, until the errors of each arc sum to the tolerance.
    fn refined(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
        slopes: &Array2<f64>,
        tolerance: f64,
    ) -> Result<Arcs, StudyError> {
        let (m, points) = slopes.dim();
        let step = FRAC_PI_2 / (points - 1) as f64;
        let middles = |new: &[(usize, Interval)]| {
            let at: Vec<(usize, f64)> = new.iter().map(|(arc, i)| (*arc, i.middle())).collect();
            self.slopes(targets, references, &at)
        };
        let mut new: Vec<(usize, Interval)> = (0..m)
            .flat_map(|arc| (0..points - 1).map(move |i| (arc, i)))
            .map(|(arc, i)| {
                let ends = [step * i as f64, step * (i + 1) as f64];
                let slopes = [slopes[[arc, i]], 0.0, slopes[[arc, i + 1]]];
                (arc, Interval { point: i, ends, slopes })
            })
            .collect();
        let mut kept: Vec<Vec<Interval>> = (0..m).map(|_| Vec::new()).collect();
        for round in 0..=ROUNDS {
            for (middle, (_, interval)) in middles(&new)?.into_iter().zip(&mut new) {
                interval.slopes[1] = middle;
            }
            for (arc, interval) in new.drain(..) {
                kept[arc].push(interval);
            }
            if round == ROUNDS {
                break;
            }
            for (arc, intervals) in kept.iter_mut().enumerate() {
                let sum: f64 = intervals.iter().map(Interval::error).sum();
                if sum <= tolerance {
                    continue;
                }
                let most = tolerance / intervals.len() as f64;
                let (stay, split) = std::mem::take(intervals).into_iter().partition(|i| i.error() <= most);
                *intervals = stay;
                for Interval { point, ends: [a, b], slopes: [first, middle, last] } in split {
                    let half = 0.5 * (a + b);
                    new.push((arc, Interval { point, ends: [a, half], slopes: [first, 0.0, middle] }));
                    new.push((arc, Interval { point, ends: [half, b], slopes: [middle, 0.0, last] }));
                }
            }
            if new.is_empty() {
                break;
            }
        }
        let mut u = Array2::zeros((m, points));
        let mut error = Vec::with_capacity(m);
        for (arc, mut intervals) in kept.into_iter().enumerate() {
            // In an order that does not depend on the other arcs.
            intervals.sort_by(|a, b| a.ends[0].total_cmp(&b.ends[0]));
            for interval in &intervals {
                u[[arc, interval.point + 1]] += interval.integral();
            }
            error.push(intervals.iter().map(Interval::error).sum());
        }
        u.accumulate_axis_inplace(Axis(1), |before, now| *now += before);
        Ok(Arcs { u, error: Some(error) })
    }

    fn check(
        &self,
        targets: &ArrayView2<'_, f64>,
        references: &ArrayView2<'_, f64>,
    ) -> Result<(), StudyError> {
        let shape = (targets.nrows(), self.score.dim());
        for (argument, rows) in [("targets", targets), ("references", references)] {
            check_shape(NAME, argument, rows, shape)?;
            if let Some((row, column, value)) = first_bad(rows) {
                return Err(OpError::NotFinite { operation: NAME, argument, row, column, value }.into());
            }
        }
        Ok(())
    }
}

/// Images of one class.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// Their class.
    pub class: Group,
    /// Number of each image in the sample file, or its place in the training set.
    pub samples: &'a [usize],
    /// The images, `[n, N]`.
    pub rows: ArrayView2<'a, f64>,
}

/// The relative energy of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PotentialRow {
    /// Its class.
    pub class: Group,
    /// Number of the image in the sample file, or its place in the training set.
    pub sample: usize,
    /// Place of the reference in the training set.
    pub reference: usize,
    /// u at pi/2, see [`SIGN`].
    pub u: f64,
    /// Estimated error of the integral, where a tolerance was asked for.
    pub error: Option<f64>,
}

/// u along the arcs of a class to one reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    /// The class.
    pub class: Group,
    /// Place of the reference in the training set.
    pub reference: usize,
    /// The angle, in radians.
    pub alpha: f64,
    /// Images.
    pub n: usize,
    /// Mean of u(alpha).
    pub mean: f64,
    /// Standard deviation over the images, 0 for one.
    pub std: f64,
}

/// A closed circuit along three arcs: an image, the reference, another image of the class, and back. A score that is
/// a gradient has a circulation of 0; what a network has is what u depends on the way by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoopRow {
    /// The class.
    pub class: Group,
    /// Number of the first image.
    pub sample: usize,
    /// Number of the other.
    pub other: usize,
    /// Place of the reference in the training set.
    pub reference: usize,
    /// Integral of grad U along the circuit.
    pub circulation: f64,
    /// Estimated error of its three arcs, in sum: the tolerance's, or what they change by where every second point is
    /// left out. A circulation that is not well above it says nothing.
    pub error: f64,
    /// u of the first image, as the circuit has it.
    pub u: f64,
    /// u of the same image as its own row has it: what those points leave is the difference.
    pub u_points: f64,
}

/// All rows of an analysis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Relative {
    /// Training images.
    pub k: usize,
    /// A row an image and reference.
    pub images: Vec<PotentialRow>,
    /// A row a class, reference and point.
    pub curves: Vec<CurveRow>,
    /// A row a circuit.
    pub loops: Vec<LoopRow>,
}

/// What is kept of a piece of arcs.
#[derive(Serialize, Deserialize)]
struct Piece {
    u: Vec<Vec<f64>>,
    error: Option<Vec<f64>>,
}

/// Relative energies of the images of `classes`, and of those of `training` `[K, N]`, against references out of
/// `training`. A step of progress is an arc, see [`PotentialParams::work`]; pieces that are in `cells` are not
/// computed again.
///
/// A reference is a target as well, with u = 0 for a score that is a gradient, though its arc is none: it goes out to
/// sqrt(2) times the image and back.
///
/// # Errors
/// [`OpError`] for a wrong shape, NaN or infinity, with the number of the image; no training images; those of the
/// score and of the cells.
pub fn analyse(
    potential: &Potential<'_>,
    training: ArrayView2<'_, f64>,
    classes: &[Images<'_>],
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Relative, StudyError> {
    let settings = potential.params.settings();
    if training.nrows() == 0 {
        let found = training.shape().to_vec();
        return Err(OpError::Empty { operation: NAME, argument: "training images", found }.into());
    }
    let places: Vec<usize> = (0..training.nrows()).collect();
    let mut given: Vec<(Images<'_>, usize)> = Vec::with_capacity(classes.len() + 1);
    for &Images { class, samples, rows } in classes {
        given.push((Images { class, samples, rows }, settings.max));
    }
    given.push((Images { class: Group::Training, samples: &places, rows: training }, settings.training));
    let mut all = Vec::with_capacity(given.len());
    for (images, most) in given {
        check_shape(NAME, "images", &images.rows, (images.samples.len(), potential.score.dim()))?;
        if let Some((row, column, value)) = first_bad(&images.rows) {
            let row = images.samples[row];
            return Err(OpError::NotFinite { operation: NAME, argument: "sample", row, column, value }.into());
        }
        let n = images.rows.nrows().min(most);
        all.push(Images {
            samples: &images.samples[..n],
            rows: images.rows.slice_move(s![..n, ..]),
            ..images
        });
    }
    let of = Of { potential, cells, progress };
    let mut out = Relative { k: training.nrows(), ..Relative::default() };
    for reference in potential.params.references(training.nrows()) {
        let x = training.row(reference);
        for images in &all {
            let to = x.broadcast(images.rows.dim()).unwrap_or(images.rows.view());
            let arcs = of.arcs(images, to, reference)?;
            out.curves.extend(curve(images.class, reference, &arcs.u));
            let ends = arcs.u.column(settings.points - 1);
            for (i, (sample, u)) in images.samples.iter().zip(&ends).enumerate() {
                let error = arcs.error.as_ref().map(|e| e[i]);
                out.images.push(PotentialRow {
                    class: images.class,
                    sample: *sample,
                    reference,
                    u: *u,
                    error,
                });
            }
            out.loops.extend(of.loops(images, to, reference, &ends.to_vec())?);
        }
    }
    Ok(out)
}

/// An analysis under way.
struct Of<'a> {
    potential: &'a Potential<'a>,
    cells: Option<&'a Cells>,
    progress: &'a dyn ProgressSink,
}

impl Of<'_> {
    fn kept<T: Serialize + for<'de> Deserialize<'de>>(
        &self,
        id: &str,
        arcs: usize,
        make: impl FnOnce() -> Result<T, StudyError>,
    ) -> Result<T, StudyError> {
        if let Some(piece) = self.cells.and_then(|cells| cells.get(id)) {
            self.progress.resume(arcs as u64);
            return Ok(piece);
        }
        let piece = make()?;
        if let Some(cells) = self.cells {
            cells.put(id, &piece)?;
        }
        self.progress.advance(arcs as u64);
        Ok(piece)
    }

    fn arcs(
        &self,
        images: &Images<'_>,
        to: ArrayView2<'_, f64>,
        reference: usize,
    ) -> Result<Arcs, StudyError> {
        let n = images.rows.nrows();
        let points = self.potential.params.0.points;
        let mut u = Array2::zeros((n, points));
        let mut error = self.potential.params.0.tolerance.map(|_| Vec::with_capacity(n));
        for from in (0..n).step_by(PIECE) {
            let part = from..n.min(from + PIECE);
            let id = format!("{}-{reference}-{from}", images.class);
            let piece: Piece = self.kept(&id, part.len(), || {
                let arcs = self
                    .potential
                    .arcs(images.rows.slice(s![part.clone(), ..]), to.slice(s![part.clone(), ..]))?;
                let u = arcs.u.outer_iter().map(|row| row.to_vec()).collect();
                Ok(Piece { u, error: arcs.error })
            })?;
            for (row, values) in part.zip(&piece.u) {
                u.row_mut(row).iter_mut().zip(values).for_each(|(u, v)| *u = *v);
            }
            if let (Some(all), Some(some)) = (&mut error, piece.error) {
                all.extend(some);
            }
        }
        Ok(Arcs { u, error })
    }

    /// Circuits of the first images, each with the one after it.
    fn loops(
        &self,
        images: &Images<'_>,
        to: ArrayView2<'_, f64>,
        reference: usize,
        u_points: &[f64],
    ) -> Result<Vec<LoopRow>, StudyError> {
        let n = images.rows.nrows();
        let settings = self.potential.params.settings();
        let count = if n < 2 { 0 } else { n.min(settings.loops) };
        if count == 0 {
            return Ok(Vec::new());
        }
        self.kept(&format!("{}-{reference}-loops", images.class), 3 * count, || {
            let next: Vec<usize> = (0..count).map(|i| (i + 1) % n).collect();
            let (from, other) = (images.rows.slice(s![..count, ..]), images.rows.select(Axis(0), &next));
            let to = to.slice(s![..count, ..]);
            let (out, out_error) = self.potential.with_error(from, to)?;
            let (back, back_error) = self.potential.with_error(other.view(), to)?;
            let (close, close_error) = self.potential.with_error(other.view(), from)?;
            let row = |i: usize| LoopRow {
                class: images.class,
                sample: images.samples[i],
                other: images.samples[next[i]],
                reference,
                circulation: out[i] - back[i] + close[i],
                error: out_error[i] + back_error[i] + close_error[i],
                u: out[i],
                u_points: u_points[i],
            };
            Ok((0..count).map(row).collect())
        })
    }
}

fn curve(class: Group, reference: usize, u: &Array2<f64>) -> Vec<CurveRow> {
    let (n, points) = u.dim();
    if n == 0 {
        return Vec::new();
    }
    let at = |i: usize| {
        let (mean, std) = moments(u.column(i).iter().copied());
        let alpha = FRAC_PI_2 * i as f64 / (points - 1) as f64;
        CurveRow { class, reference, alpha, n, mean, std }
    };
    (0..points).map(at).collect()
}

/// The gap of a class (Eq. 48): the mean of u over its images minus that over training images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GapRow {
    /// Training images.
    pub k: usize,
    /// The class; training images have a gap of 0 and no error of it.
    pub class: Group,
    /// Place of the reference in the training set; None for the mean over all references, image by image.
    pub reference: Option<usize>,
    /// Images.
    pub n: usize,
    /// Whether there are too few of them to say anything of the class.
    pub few: bool,
    /// Mean of u.
    pub mean: f64,
    /// Standard deviation of u over the images, 0 for one: the paper's bands.
    pub std: f64,
    /// The gap, see [`SIGN`]: above 0 where the class has less energy than training images.
    pub gap: f64,
    /// Standard error of the gap, of the images of the class and of the training images.
    pub standard_error: f64,
    /// 95 percent percentile interval of the gap, of a bootstrap that draws the images of both sets anew.
    pub interval: [f64; 2],
    /// Standard deviation of the gap between references, 0 for one. It is 0 for a score that is a gradient, but for
    /// the error of the rule.
    pub between: f64,
    /// Circuits, see [`LoopRow`].
    pub loops: usize,
    /// Mean size of their circulation.
    pub circulation: f64,
    /// Mean of their [`LoopRow::error`].
    pub circulation_error: f64,
    /// Mean size of their u.
    pub size: f64,
}

impl GapRow {
    /// Circulation relative to u, the measure of how far the score is from a gradient; None without circuits.
    pub fn relative_circulation(&self) -> Option<f64> {
        (self.loops > 0 && self.size > 0.0).then(|| self.circulation / self.size)
    }
}

/// The gap of each class for each reference, and over the references.
pub fn gaps(relative: &Relative, params: &PotentialParams) -> Vec<GapRow> {
    let mut classes: Vec<Group> = Vec::new();
    let mut references: Vec<Option<usize>> = Vec::new();
    for row in &relative.images {
        if !classes.contains(&row.class) {
            classes.push(row.class);
        }
        if !references.contains(&Some(row.reference)) {
            references.push(Some(row.reference));
        }
    }
    references.push(None);
    let values = |class: Group, reference: Option<usize>| -> Vec<f64> {
        let mine = relative.images.iter().filter(|r| r.class == class);
        match reference {
            Some(_) => mine.filter(|r| Some(r.reference) == reference).map(|r| r.u).collect(),
            None => {
                let all: Vec<f64> = mine.map(|r| r.u).collect();
                let count = references.len() - 1;
                // Rows lie reference by reference, each with the same images.
                let n = all.len() / count;
                (0..n).map(|i| (0..count).map(|r| all[r * n + i]).sum::<f64>() / count as f64).collect()
            }
        }
    };
    let mut rows = Vec::new();
    for class in classes {
        let mut single = Vec::new();
        for &reference in &references {
            let mut row = gap(class, &values(class, reference), &values(Group::Training, reference), params);
            (row.k, row.reference) = (relative.k, reference);
            match reference {
                Some(_) => single.push(row.gap),
                None => row.between = moments(single.iter().copied()).1,
            }
            let of = |r: &&LoopRow| r.class == class && reference.is_none_or(|one| one == r.reference);
            let loops: Vec<&LoopRow> = relative.loops.iter().filter(of).collect();
            let mean =
                |f: fn(&LoopRow) -> f64| loops.iter().map(|r| f(r)).sum::<f64>() / loops.len().max(1) as f64;
            row.loops = loops.len();
            row.circulation = mean(|r| r.circulation.abs());
            row.circulation_error = mean(|r| r.error);
            row.size = mean(|r| r.u.abs());
            rows.push(row);
        }
    }
    rows
}

fn gap(class: Group, values: &[f64], training: &[f64], params: &PotentialParams) -> GapRow {
    let PotentialSettings { least, resamples, seed, .. } = *params.settings();
    let (mean, std) = moments(values.iter().copied());
    let mut row = GapRow {
        k: 0,
        class,
        reference: None,
        n: values.len(),
        few: values.len() < least,
        mean,
        std,
        gap: 0.0,
        standard_error: 0.0,
        interval: [0.0; 2],
        between: 0.0,
        loops: 0,
        circulation: 0.0,
        circulation_error: 0.0,
        size: 0.0,
    };
    if class == Group::Training {
        return row;
    }
    let (base, spread) = moments(training.iter().copied());
    row.gap = mean - base;
    row.standard_error = (std * std / values.len() as f64 + spread * spread / training.len() as f64).sqrt();
    let mut drawn: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map(|i| {
            let mut stream = Stream::new(seed, &format!("potential: bootstrap/{class}/{i}"));
            let mut again = |values: &[f64]| {
                let n = values.len();
                (0..n).map(|_| values[stream.below(n as u64) as usize]).sum::<f64>() / n as f64
            };
            again(values) - again(training)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    row.interval = [0.025, 0.975].map(|p| drawn[((drawn.len() - 1) as f64 * p).round() as usize]);
    row
}

/// Mean and standard deviation, with n - 1; 0 for a single number.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let square = values.map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if n > 1.0 { (square / (n - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::VpSettings;
    use crate::progress::Silent;
    use crate::random::Streams;
    use crate::score::{Density, Empirical, Gaussian, ScoreError};
    use ndarray::{Array1, array};

    fn params(settings: PotentialSettings) -> PotentialParams {
        settings.check().unwrap()
    }

    fn cloud(name: &str, m: usize, n: usize) -> Array2<f64> {
        Streams::new(8, name, 0..m).normal(n)
    }

    /// u at the ends of the arcs from rows to rows.
    fn ends(score: &dyn Score, params: &PotentialParams, from: &Array2<f64>, to: &Array2<f64>) -> Arcs {
        Potential::new(score, &Vp::default(), params, 50).unwrap().arcs(from.view(), to.view()).unwrap()
    }

    /// U(reference) - U(target) of Eq. 44.
    fn exact(density: &dyn Density, t: usize, from: &Array2<f64>, to: &Array2<f64>) -> Vec<f64> {
        let (vp, level) = (Vp::default(), Vp::default().level(t as f64).unwrap());
        let energy = |x: &Array2<f64>| -> Vec<f64> {
            let log = density.log_density(x.view(), &vec![level; x.nrows()]).unwrap();
            log.iter().zip(x.outer_iter()).map(|(l, x)| -vp.betas()[t] * (l + 0.25 * x.dot(&x))).collect()
        };
        energy(to).iter().zip(energy(from)).map(|(to, from)| to - from).collect()
    }

    fn worst(got: &Arcs, exact: &[f64]) -> f64 {
        let last = got.u.ncols() - 1;
        got.u.column(last).iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_gaussian_has_the_difference_of_its_energies_and_the_rule_is_of_second_order() {
        let (from, to) = (cloud("from", 7, 5), cloud("to", 7, 5));
        for t in [0, 40, 600] {
            for variance in [0.3, 2.0] {
                let gaussian =
                    Gaussian::new(array![0.5, -0.2, 0.0, 0.1, 1.0], Array1::from_elem(5, variance)).unwrap();
                let exact = exact(&gaussian, t, &from, &to);
                let error = |points| {
                    let params = params(PotentialSettings { t, points, ..Default::default() });
                    worst(&ends(&gaussian, &params, &from, &to), &exact)
                };
                let (coarse, fine) = (error(20), error(39));
                // Half the step is a quarter of the error; the next order is a part of h^2 = 0.007 of it.
                assert!((coarse / fine - 4.0).abs() < 0.05, "{t} {variance}: {coarse} {fine}");
                let size = exact.iter().map(|u| u.abs()).fold(0.0, f64::max);
                assert!(coarse < 0.01 * size, "{coarse} of {size}");
                let tight = PotentialSettings { t, tolerance: Some(1e-5 * size), ..Default::default() };
                let got = ends(&gaussian, &params(tight), &from, &to);
                assert!(worst(&got, &exact) < 1e-5 * size && coarse > 1e-5 * size);
            }
        }
    }

    /// Three memories for which 20 points give 6.275 in sum and 6.008 by the trapezoid rule, the truth being 6.010.
    #[test]
    fn summing_all_points_weighs_five_percent_too_much() {
        let rows = array![[2.0, -0.7], [-0.3, 2.9], [-0.2, 0.0]];
        let score = Empirical::new(Memories::new(rows.view()).unwrap());
        let (from, to) = (array![[0.9, 1.0]], array![[0.4, -2.1]]);
        let unit = 6.010 / exact(&score, 150, &from, &to)[0];
        let params = params(PotentialSettings { t: 150, ..Default::default() });
        let potential = Potential::new(&score, &Vp::default(), &params, 7).unwrap();
        let trapezoid = potential.arcs(from.view(), to.view()).unwrap().u[[0, 19]] * unit;
        assert!((trapezoid - 6.008).abs() < 5e-4, "{trapezoid}");
        let slopes = potential.even(from.view(), to.view(), 20).unwrap();
        let sum = slopes.sum() * FRAC_PI_2 / 19.0 * unit;
        assert!((sum - 6.275).abs() < 5e-4, "{sum}");
    }

    #[test]
    fn legacy_is_the_code_of_the_paper_step_by_step() {
        let rows = cloud("memories", 4, 3);
        let score = Empirical::new(Memories::new(rows.view()).unwrap());
        let (from, to) = (cloud("from", 3, 3), cloud("to", 3, 3));
        for (t, points) in [(0, 20), (3, 11)] {
            let params = params(PotentialSettings { t, points, legacy: true, ..Default::default() });
            let got = ends(&score, &params, &from, &to);
            let betas: Vec<f64> = (0..1000).map(|i| 1e-4 + (0.02 - 1e-4) * i as f64 / 999.0).collect();
            let keep: f64 = betas[..=t].iter().map(|b| 1.0 - b).product();
            let wrong: f64 = betas[..=t].iter().product();
            let level = Vp::default().level(t as f64).unwrap();
            for i in 0..3 {
                let mut u = 0.0;
                for j in 0..points {
                    let a = FRAC_PI_2 * j as f64 / (points - 1) as f64;
                    let x = &from.row(i) * a.cos() + &to.row(i) * a.sin();
                    let v = &to.row(i) * a.cos() - &from.row(i) * a.sin();
                    let x = x.insert_axis(Axis(0));
                    let epsilon = score.score(x.view(), &[level]).unwrap() * -(1.0 - keep).sqrt();
                    let score = epsilon / -(1.0 - wrong).sqrt();
                    let gradient = &x * (-0.5 * betas[t]) - score * betas[t];
                    u += gradient.row(0).dot(&v) * FRAC_PI_2 / (points - 1) as f64;
                    assert!((got.u[[i, j]] - u).abs() < 1e-12, "{t} {i} {j}: {} {u}", got.u[[i, j]]);
                }
            }
        }
    }

    #[test]
    fn memories_at_the_first_level_need_more_than_twenty_points_and_the_tolerance_finds_them() {
        for (k, n) in [(2, 2), (5, 12), (40, 49)] {
            let rows = cloud("memories", k, n);
            let score = Empirical::new(Memories::new(rows.view()).unwrap());
            let to = rows.slice(s![1..2, ..]).broadcast((6, n)).unwrap().to_owned();
            let from = cloud("targets", 6, n);
            let exact = exact(&score, 0, &from, &to);
            let error = |points| {
                let params = params(PotentialSettings { points, ..Default::default() });
                worst(&ends(&score, &params, &from, &to), &exact)
            };
            let (twenty, more) = (error(20), error(2000));
            let size = exact.iter().map(|u| u.abs()).fold(0.0, f64::max);
            // The jumps cost a part of a half step each: a few percent at 20 points, and a hundredth of it at 2000.
            assert!(twenty > 0.005 * size && twenty < 0.2 * size, "{k}: {twenty} of {size}");
            assert!(more < 0.1 * twenty, "{k}: {more}");
            let tolerance = 1e-5 * size;
            let refined = PotentialSettings { tolerance: Some(tolerance), ..Default::default() };
            let got = ends(&score, &params(refined), &from, &to);
            assert!(got.error.as_ref().unwrap().iter().all(|e| *e <= tolerance));
            assert!(worst(&got, &exact) <= tolerance, "{k}: {}", worst(&got, &exact));
        }
    }

    #[test]
    fn nothing_depends_on_rows_at_a_time_or_on_the_other_arcs() {
        let rows = cloud("memories", 9, 4);
        let score = Empirical::new(Memories::new(rows.view()).unwrap());
        let (from, to) = (cloud("from", 8, 4), cloud("to", 8, 4));
        for tolerance in [None, Some(1e-3)] {
            let params = params(PotentialSettings { tolerance, ..Default::default() });
            let of = |rows: usize, from: ArrayView2<'_, f64>, to: ArrayView2<'_, f64>| {
                Potential::new(&score, &Vp::default(), &params, rows).unwrap().arcs(from, to).unwrap()
            };
            let all = of(1000, from.view(), to.view());
            assert_eq!(all, of(3, from.view(), to.view()));
            for i in 0..8 {
                let one = of(7, from.slice(s![i..=i, ..]), to.slice(s![i..=i, ..]));
                assert_eq!(one.u.row(0), all.u.row(i));
                assert_eq!(one.error.map(|e| e[0]), all.error.as_ref().map(|e| e[i]));
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(all, pool.install(|| of(50, from.view(), to.view())));
        }
    }

    /// The Gaussian N(0, v) with a rotation of the plane added, which no gradient has.
    struct Turning(f64);

    impl Score for Turning {
        fn dim(&self) -> usize {
            2
        }

        fn score(&self, x: ArrayView2<'_, f64>, _: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let turned = |(i, k): (usize, usize)| if k == 0 { -x[[i, 1]] } else { x[[i, 0]] };
            Ok(Array2::from_shape_fn(x.dim(), |at| -x[at] / 3.0 + self.0 * turned(at)))
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            _: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            Ok(v.to_owned())
        }
    }

    #[test]
    fn a_circuit_about_a_turning_field_has_twice_the_area_that_it_sweeps() {
        let training = cloud("training", 3, 2);
        let samples = cloud("samples", 5, 2);
        let numbers: Vec<usize> = (10..15).collect();
        let classes = [Images { class: Group::SPURIOUS, samples: &numbers, rows: samples.view() }];
        let params = params(PotentialSettings { t: 7, references: 2, loops: 4, ..Default::default() });
        let beta = Vp::default().betas()[7];
        for turn in [0.0, 0.4, -1.0] {
            let score = Turning(turn);
            let potential = Potential::new(&score, &Vp::default(), &params, 64).unwrap();
            let got = analyse(&potential, training.view(), &classes, None, &Silent).unwrap();
            // Two references, four circuits of the class and three of the training images.
            assert_eq!((got.loops.len(), got.images.len()), (14, 16));
            let cross =
                |a: ndarray::ArrayView1<'_, f64>, b: ndarray::ArrayView1<'_, f64>| a[0] * b[1] - a[1] * b[0];
            for row in got.loops.iter().filter(|r| r.class == Group::SPURIOUS) {
                let (a, b) = (samples.row(row.sample - 10), samples.row(row.other - 10));
                let r = training.row(row.reference);
                // On an arc x dy - y dx is the same at every alpha.
                let swept = FRAC_PI_2 * (cross(a, r) - cross(b, r) + cross(b, a));
                assert!((row.circulation + beta * turn * swept).abs() < row.error + 1e-15, "{row:?}");
                assert!(row.error < 1e-3 * beta && (row.u - row.u_points).abs() < 1e-2 * beta);
            }
            for gap in gaps(&got, &params) {
                let relative = gap.relative_circulation().unwrap();
                assert!(if turn == 0.0 { relative < 1e-3 } else { relative > 0.05 }, "{turn} {gap:?}");
            }
        }
    }

    #[test]
    fn the_gap_of_a_gradient_is_the_difference_of_mean_energies_whatever_the_reference() {
        let gaussian = Gaussian::new(array![0.5, -0.2, 0.0], array![1.0, 0.4, 0.7]).unwrap();
        let training = cloud("training", 40, 3);
        let samples = cloud("samples", 30, 3) * 1.5;
        let numbers: Vec<usize> = (0..30).collect();
        let classes = [Images { class: Group::MEMORIZED, samples: &numbers, rows: samples.view() }];
        let settings = PotentialSettings { t: 30, points: 400, references: 3, ..Default::default() };
        let params = params(settings);
        let potential = Potential::new(&gaussian, &Vp::default(), &params, 999).unwrap();
        let got = analyse(&potential, training.view(), &classes, None, &Silent).unwrap();
        let mean = |x: &Array2<f64>| {
            let zero = Array2::zeros(x.dim());
            exact(&gaussian, 30, x, &zero).iter().sum::<f64>() / x.nrows() as f64
        };
        let expected = mean(&samples) - mean(&training);
        let rows = gaps(&got, &params);
        // Two classes, three references and the mean over them.
        assert_eq!(rows.len(), 8);
        for row in &rows {
            if row.class == Group::Training {
                assert_eq!((row.gap, row.n, row.interval), (0.0, 40, [0.0; 2]));
                continue;
            }
            assert!((row.gap - expected).abs() < 1e-4 * expected.abs(), "{row:?} {expected}");
            assert!((row.n, row.k, row.few) == (30, 40, false) && row.between < 1e-4 * expected.abs());
            // 1.96 standard errors, with the error of the ends of a thousand resamples and of 30 images.
            let half = 0.5 * (row.interval[1] - row.interval[0]) / row.standard_error;
            assert!((half - 1.96).abs() < 0.25, "{half}");
            assert!(row.interval[0] < row.gap && row.gap < row.interval[1]);
        }
        // Fig. 25: the last point of the curve is the mean of u.
        let last = got.curves.iter().filter(|c| c.class == Group::MEMORIZED).nth(399).unwrap();
        assert!((last.alpha - FRAC_PI_2).abs() < 1e-12 && last.n == 30);
        let first = rows.iter().find(|r| r.reference == Some(last.reference) && r.class == last.class);
        assert_eq!((last.mean, last.std), (first.unwrap().mean, first.unwrap().std));
    }

    #[test]
    fn pieces_are_not_computed_again_and_give_the_same_rows() {
        struct Refusing;
        impl Score for Refusing {
            fn dim(&self) -> usize {
                2
            }
            fn score(&self, _: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
                Err(ScoreError::Clean { operation: "test", row: 0, t: levels[0].t() })
            }
            fn vjp(
                &self,
                _: ArrayView2<'_, f64>,
                _: &[Level],
                v: ArrayView2<'_, f64>,
            ) -> Result<Array2<f64>, ScoreError> {
                Ok(v.to_owned())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let cells = Cells::at(folder.path().join("pieces"));
        let (training, samples) = (cloud("training", 4, 2), cloud("samples", 600, 2));
        let numbers: Vec<usize> = (0..600).collect();
        let classes = [Images { class: Group::GENERALIZED, samples: &numbers, rows: samples.view() }];
        for tolerance in [None, Some(1e-6)] {
            cells.clear().unwrap();
            let params = params(PotentialSettings { tolerance, points: 4, ..Default::default() });
            let of = |score: &dyn Score, cells: Option<&Cells>| {
                let potential = Potential::new(score, &Vp::default(), &params, 100).unwrap();
                analyse(&potential, training.view(), &classes, cells, &Silent)
            };
            let plain = of(&Turning(0.3), None).unwrap();
            assert_eq!(plain, of(&Turning(0.3), Some(&cells)).unwrap());
            assert_eq!(plain, of(&Refusing, Some(&cells)).unwrap());
            assert!(of(&Refusing, None).is_err());
            // 512 of 600.
            assert_eq!(plain.images.iter().filter(|r| r.class == Group::GENERALIZED).count(), 512);
            let total: u64 = params.work(4, &[600]);
            assert_eq!(total, 512 + 3 * 16 + 4 + 3 * 4);
        }
    }

    #[test]
    fn what_is_out_of_range_or_not_finite_is_named() {
        let d = PotentialSettings::default;
        for (bad, name) in [
            (PotentialSettings { points: 1, ..d() }, "points"),
            (PotentialSettings { references: 0, ..d() }, "references"),
            (PotentialSettings { max: 0, ..d() }, "max"),
            (PotentialSettings { training: 0, ..d() }, "training"),
            (PotentialSettings { resamples: 0, ..d() }, "resamples"),
            (PotentialSettings { loop_points: 20, ..d() }, "loop_points"),
            (PotentialSettings { tolerance: Some(0.0), ..d() }, "tolerance"),
            (PotentialSettings { tolerance: Some(1.0), legacy: true, ..d() }, "tolerance"),
        ] {
            assert!(matches!(bad.check(), Err(StudyError::Setting { setting, .. }) if setting == name));
        }
        let of = |settings: PotentialSettings, vp: VpSettings| {
            Potential::new(&Turning(0.0), &vp.check().unwrap(), &params(settings), 1).map(|_| ())
        };
        let short = VpSettings { levels: 10, ..VpSettings::default() };
        let t = of(PotentialSettings { t: 10, ..d() }, short);
        assert!(matches!(t, Err(StudyError::Setting { setting: "t", .. })));
        assert!(of(PotentialSettings { t: 9, ..d() }, short).is_ok());

        let params = params(d());
        let potential = Potential::new(&Turning(0.0), &Vp::default(), &params, 1).unwrap();
        let mut samples = cloud("samples", 3, 2);
        samples[[1, 0]] = f64::NAN;
        let training = cloud("training", 2, 2);
        let classes = [Images { class: Group::SPURIOUS, samples: &[4, 17, 9], rows: samples.view() }];
        let refused = analyse(&potential, training.view(), &classes, None, &Silent).unwrap_err();
        assert!(matches!(refused, StudyError::Op(OpError::NotFinite { row: 17, .. })), "{refused}");
        let none = Array2::zeros((0, 2));
        let refused = analyse(&potential, none.view(), &[], None, &Silent).unwrap_err();
        assert!(matches!(refused, StudyError::Op(OpError::Empty { .. })), "{refused}");
        let shape = potential.arcs(training.view(), samples.view());
        assert!(matches!(shape, Err(StudyError::Op(OpError::Shape { argument: "references", .. }))));
    }
}
