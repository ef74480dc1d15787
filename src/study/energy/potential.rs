//! Relative energy (Eqs. 43 to 48): the difference in potential between an image and a training image. The gradient of
//! the potential is the drift of the reverse process.
//!
//! The gradient grad U = -beta x / 2 - beta s(x, t) is integrated along the arc
//! x(alpha) = cos(alpha) target + sin(alpha) reference, alpha from 0 to pi/2; u(alpha) is the integral of grad U . dx up
//! to alpha. If the score is a gradient, the end of it is [`SIGN`](super::SIGN): U(reference) - U(target), with
//! U = -beta (log p_t + |x|^2 / 4). So the larger u, the lower the energy of the target.
//!
//! The number of points that an arc needs depends on the score. At t = 0 the exact score of K memories jumps where the
//! nearest memory changes, within about sigma^2 / distance. The trapezoid rule converges at first order until its step is
//! that small. With 2 to 1000 random memories of 49 dimensions, 20 points are wrong by 1 to 4 percent of the mean |u|,
//! 200 points by 0.1 to 0.4 percent and 2000 points by 0.01 to 0.05 percent.
//! [`PotentialSettings::tolerance`] halves the intervals where this matters, and [`LoopRow::error`](super::LoopRow::error)
//! is the error of the rule for a network.

use std::f64::consts::FRAC_PI_2;

use ndarray::{Array2, ArrayView2, Axis};

use super::{NAME, PotentialParams, PotentialSettings};
use crate::ops::OpError;
use crate::process::{Level, Process, Vp};
use crate::score::{Score, check_shape, first_bad};
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Number of rows in a call of the score.
const ROWS: usize = 1024;

/// Number of halvings of an interval after which the remaining error is reported and not reduced further.
const ROUNDS: usize = 40;

/// Integrals of a batch of arcs.
#[derive(Debug, Clone, PartialEq)]
pub struct Arcs {
    /// u(alpha) at the points of each arc, `[m, points]`.
    pub u: Array2<f64>,
    /// Estimated error of the last column, `[m]`; `None` without a tolerance.
    pub error: Option<Vec<f64>>,
}

/// The potential U of a score at one noise level.
///
/// ```
/// use mem2gen::process::Vp;
/// use mem2gen::score::Gaussian;
/// use mem2gen::study::energy::{Potential, PotentialSettings};
/// use ndarray::array;
///
/// let score = Gaussian::new(array![0.0, 0.0], array![1.0, 1.0])?;
/// let params = PotentialSettings { points: 3, ..PotentialSettings::default() }.check()?;
/// let potential = Potential::new(&score, &Vp::default(), &params)?;
/// // Two points on a circle about the mean have the same energy.
/// let arcs = potential.arcs(array![[1.0, 0.0]].view(), array![[0.0, 1.0]].view())?;
/// assert_eq!(arcs.u.dim(), (1, 3));
/// assert!(arcs.u[[0, 2]].abs() < 1e-15);
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub struct Potential<'a> {
    pub(super) score: &'a dyn Score,
    level: Level,
    beta: f64,
    /// Factor of the score: 1, or the one of the paper's code.
    factor: f64,
    pub(super) params: &'a PotentialParams,
    /// Rows of a call of the score; no result depends on it.
    pub(super) rows: usize,
}

/// An interval of an arc, with the slope at both ends and in the middle.
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

    /// Integral by the trapezoid rule on both halves.
    fn integral(&self) -> f64 {
        0.25 * self.width() * (self.slopes[0] + 2.0 * self.slopes[1] + self.slopes[2])
    }

    /// Change of the integral by halving: three times the remaining error for a smooth slope, at least the error for a
    /// jump.
    fn error(&self) -> f64 {
        (0.25 * self.width() * (self.slopes[0] - 2.0 * self.slopes[1] + self.slopes[2])).abs()
    }
}

impl<'a> Potential<'a> {
    /// The potential of a score under `vp`.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a level that the process does not have.
    pub fn new(score: &'a dyn Score, vp: &Vp, params: &'a PotentialParams) -> Result<Self, StudyError> {
        let t = params.settings().t;
        let Some(&beta) = vp.betas().get(t) else {
            let need = format!("a level from 0 to {}", vp.betas().len() - 1);
            return Err(SettingError::new(NAME, "t", t, need).into());
        };
        let level = vp.level(t as f64)?;
        let factor = if params.settings().legacy {
            let product: f64 = vp.betas()[..=t].iter().product();
            level.sigma() / (1.0 - product).sqrt()
        } else {
            1.0
        };
        Ok(Self { score, level, beta, factor, params, rows: ROWS })
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

    /// u along the arcs from each row of `targets` `[m, N]` to the same row of `references` `[m, N]` (Eqs. 45 to 47).
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
        let slopes = self.even_slopes(targets, references, points)?;
        let step = FRAC_PI_2 / (points - 1) as f64;
        if let Some(tolerance) = tolerance {
            let (u, error) = self.refined(targets, references, &slopes, tolerance)?;
            return Ok(Arcs { u, error: Some(error) });
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

    /// u at the end of each arc of a circuit, and its error, both `[m]`. Without a tolerance the error is the change of the
    /// trapezoid rule when every second point is left out.
    pub(super) fn ends_with_error(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
    ) -> Result<(Vec<f64>, Vec<f64>), StudyError> {
        let PotentialSettings { loop_points: points, tolerance, .. } = *self.params.settings();
        let slopes = self.even_slopes(targets, references, points)?;
        if let Some(tolerance) = tolerance {
            let (u, error) = self.refined(targets, references, &slopes, tolerance)?;
            return Ok((u.column(points - 1).to_vec(), error));
        }
        let step = FRAC_PI_2 / (points - 1) as f64;
        let rule = |g: ndarray::ArrayView1<'_, f64>, stride: usize| {
            let sum: f64 = g.iter().step_by(stride).sum();
            step * stride as f64 * (sum - 0.5 * (g[0] + g[points - 1]))
        };
        Ok(slopes.outer_iter().map(|g| (rule(g, 1), (rule(g, 1) - rule(g, 2)).abs())).unzip())
    }

    /// The slope grad U . dx/dalpha at evenly spaced points of each arc, `[m, points]`.
    fn even_slopes(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
        points: usize,
    ) -> Result<Array2<f64>, StudyError> {
        let step = FRAC_PI_2 / (points - 1) as f64;
        let at = (0..targets.nrows()).flat_map(|arc| (0..points).map(move |i| (arc, step * i as f64)));
        let slopes = self.slopes(targets, references, &at.collect::<Vec<_>>())?;
        Ok(Array2::from_shape_vec((targets.nrows(), points), slopes).expect("one slope for each point"))
    }

    /// The slope at each of the points (arc, alpha).
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

    /// u `[m, points]` and its error `[m]`: halves intervals of all arcs together, until the errors of each arc sum to at
    /// most the tolerance.
    fn refined(
        &self,
        targets: ArrayView2<'_, f64>,
        references: ArrayView2<'_, f64>,
        slopes: &Array2<f64>,
        tolerance: f64,
    ) -> Result<(Array2<f64>, Vec<f64>), StudyError> {
        let (m, points) = slopes.dim();
        let step = FRAC_PI_2 / (points - 1) as f64;
        let middle_slopes = |new: &[(usize, Interval)]| {
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
            for (middle, (_, interval)) in middle_slopes(&new)?.into_iter().zip(&mut new) {
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
            // An order that does not depend on the other arcs.
            intervals.sort_by(|a, b| a.ends[0].total_cmp(&b.ends[0]));
            for interval in &intervals {
                u[[arc, interval.point + 1]] += interval.integral();
            }
            error.push(intervals.iter().map(Interval::error).sum());
        }
        u.accumulate_axis_inplace(Axis(1), |before, now| *now += before);
        Ok((u, error))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;
    use crate::ops::Memories;
    use crate::process::VpSettings;
    use crate::progress::Silent;
    use crate::random::Streams;
    use crate::score::{Density, Empirical, Gaussian, ScoreError};
    use crate::study::context::Cells;
    use crate::study::energy::{Targets, analyse, gaps};
    use ndarray::{Array1, array, s};

    fn params(settings: PotentialSettings) -> PotentialParams {
        settings.check().unwrap()
    }

    fn cloud(name: &str, m: usize, n: usize) -> Array2<f64> {
        Streams::new(8, name, 0..m).normal(n)
    }

    /// u at the ends of the arcs from rows to rows.
    fn ends(score: &dyn Score, params: &PotentialParams, from: &Array2<f64>, to: &Array2<f64>) -> Arcs {
        Potential::new(score, &Vp::default(), params).unwrap().arcs(from.view(), to.view()).unwrap()
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
                // Half the step gives a quarter of the error; the next order adds a part h^2 = 0.007 of it.
                assert!((coarse / fine - 4.0).abs() < 0.05, "{t} {variance}: {coarse} {fine}");
                let size = exact.iter().map(|u| u.abs()).fold(0.0, f64::max);
                assert!(coarse < 0.01 * size, "{coarse} of {size}");
                let tight = PotentialSettings { t, tolerance: Some(1e-5 * size), ..Default::default() };
                let got = ends(&gaussian, &params(tight), &from, &to);
                assert!(worst(&got, &exact) < 1e-5 * size && coarse > 1e-5 * size);
            }
        }
    }

    /// Three memories for which the sum over 20 points is 6.275, the trapezoid rule 6.008 and the exact value 6.010.
    #[test]
    fn summing_all_points_weighs_five_percent_too_much() {
        let rows = array![[2.0, -0.7], [-0.3, 2.9], [-0.2, 0.0]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let (from, to) = (array![[0.9, 1.0]], array![[0.4, -2.1]]);
        let unit = 6.010 / exact(&score, 150, &from, &to)[0];
        let params = params(PotentialSettings { t: 150, ..Default::default() });
        let potential = Potential::new(&score, &Vp::default(), &params).unwrap();
        let trapezoid = potential.arcs(from.view(), to.view()).unwrap().u[[0, 19]] * unit;
        assert!((trapezoid - 6.008).abs() < 5e-4, "{trapezoid}");
        let slopes = potential.even_slopes(from.view(), to.view(), 20).unwrap();
        let sum = slopes.sum() * FRAC_PI_2 / 19.0 * unit;
        assert!((sum - 6.275).abs() < 5e-4, "{sum}");
    }

    #[test]
    fn legacy_is_the_code_of_the_paper_step_by_step() {
        let rows = cloud("memories", 4, 3);
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
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
            let score = Empirical::new(Memories::new(rows.clone()).unwrap());
            let to = rows.slice(s![1..2, ..]).broadcast((6, n)).unwrap().to_owned();
            let from = cloud("targets", 6, n);
            let exact = exact(&score, 0, &from, &to);
            let error = |points| {
                let params = params(PotentialSettings { points, ..Default::default() });
                worst(&ends(&score, &params, &from, &to), &exact)
            };
            let (twenty, more) = (error(20), error(2000));
            let size = exact.iter().map(|u| u.abs()).fold(0.0, f64::max);
            // Each jump costs a part of half a step: a few percent at 20 points, a hundredth of this at 2000.
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
    fn results_do_not_depend_on_the_rows_of_a_call_or_on_other_arcs() {
        let rows = cloud("memories", 9, 4);
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let (from, to) = (cloud("from", 8, 4), cloud("to", 8, 4));
        for tolerance in [None, Some(1e-3)] {
            let params = params(PotentialSettings { tolerance, ..Default::default() });
            let arcs = |rows: usize, from: ArrayView2<'_, f64>, to: ArrayView2<'_, f64>| {
                let potential = Potential::new(&score, &Vp::default(), &params).unwrap();
                Potential { rows, ..potential }.arcs(from, to).unwrap()
            };
            let all = arcs(1000, from.view(), to.view());
            assert_eq!(all, arcs(3, from.view(), to.view()));
            for i in 0..8 {
                let one = arcs(7, from.slice(s![i..=i, ..]), to.slice(s![i..=i, ..]));
                assert_eq!(one.u.row(0), all.u.row(i));
                assert_eq!(one.error.map(|e| e[0]), all.error.as_ref().map(|e| e[i]));
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(all, pool.install(|| arcs(50, from.view(), to.view())));
        }
    }

    /// The Gaussian N(0, v) plus a rotation of the plane, which is not a gradient.
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
    fn the_circulation_of_a_rotation_is_twice_the_swept_area() {
        let training = cloud("training", 3, 2);
        let samples = cloud("samples", 5, 2);
        let numbers: Vec<usize> = (10..15).collect();
        let classes = [Targets { group: Group::SPURIOUS, samples: &numbers, rows: samples.view() }];
        let params = params(PotentialSettings { t: 7, references: 2, loops: 4, ..Default::default() });
        let beta = Vp::default().betas()[7];
        for turn in [0.0, 0.4, -1.0] {
            let score = Turning(turn);
            let potential = Potential::new(&score, &Vp::default(), &params).unwrap();
            let got = analyse(&potential, training.view(), &classes, None, &Silent).unwrap();
            // Two references, four circuits of the class and three of the training images.
            assert_eq!((got.loops.len(), got.images.len()), (14, 16));
            let cross =
                |a: ndarray::ArrayView1<'_, f64>, b: ndarray::ArrayView1<'_, f64>| a[0] * b[1] - a[1] * b[0];
            for row in got.loops.iter().filter(|r| r.group == Group::SPURIOUS) {
                let (a, b) = (samples.row(row.sample - 10), samples.row(row.other - 10));
                let r = training.row(row.reference);
                // On an arc x dy - y dx is constant.
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
    fn the_gap_of_a_gradient_is_the_difference_of_mean_energies_for_any_reference() {
        let gaussian = Gaussian::new(array![0.5, -0.2, 0.0], array![1.0, 0.4, 0.7]).unwrap();
        let training = cloud("training", 40, 3);
        let samples = cloud("samples", 30, 3) * 1.5;
        let numbers: Vec<usize> = (0..30).collect();
        let classes = [Targets { group: Group::MEMORIZED, samples: &numbers, rows: samples.view() }];
        let settings = PotentialSettings { t: 30, points: 400, references: 3, ..Default::default() };
        let params = params(settings);
        let potential = Potential::new(&gaussian, &Vp::default(), &params).unwrap();
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
            if row.group == Group::Training {
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
        let last = got.curves.iter().filter(|c| c.group == Group::MEMORIZED).nth(399).unwrap();
        assert!((last.alpha - FRAC_PI_2).abs() < 1e-12 && last.n == 30);
        let first = rows.iter().find(|r| r.reference == Some(last.reference) && r.group == last.group);
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
        let classes = [Targets { group: Group::GENERALIZED, samples: &numbers, rows: samples.view() }];
        for tolerance in [None, Some(1e-6)] {
            cells.clear().unwrap();
            let params = params(PotentialSettings { tolerance, points: 4, ..Default::default() });
            let measured = |score: &dyn Score, cells: Option<&Cells>| {
                let potential = Potential::new(score, &Vp::default(), &params).unwrap();
                analyse(&potential, training.view(), &classes, cells, &Silent)
            };
            let plain = measured(&Turning(0.3), None).unwrap();
            assert_eq!(plain, measured(&Turning(0.3), Some(&cells)).unwrap());
            assert_eq!(plain, measured(&Refusing, Some(&cells)).unwrap());
            assert!(measured(&Refusing, None).is_err());
            // 512 of 600.
            assert_eq!(plain.images.iter().filter(|r| r.group == Group::GENERALIZED).count(), 512);
            let total: u64 = params.work(4, &[600]);
            assert_eq!(total, 512 + 3 * 16 + 4 + 3 * 4);
        }
    }

    #[test]
    fn values_out_of_range_and_not_finite_are_named() {
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
            assert!(matches!(bad.check(), Err(StudyError::Setting(e)) if e.setting == name));
        }
        let potential = |settings: PotentialSettings, vp: VpSettings| {
            Potential::new(&Turning(0.0), &vp.check().unwrap(), &params(settings)).map(|_| ())
        };
        let short = VpSettings { levels: 10, ..VpSettings::default() };
        let t = potential(PotentialSettings { t: 10, ..d() }, short);
        assert!(matches!(t, Err(StudyError::Setting(e)) if e.setting == "t"));
        assert!(potential(PotentialSettings { t: 9, ..d() }, short).is_ok());

        let params = params(d());
        let potential = Potential::new(&Turning(0.0), &Vp::default(), &params).unwrap();
        let mut samples = cloud("samples", 3, 2);
        samples[[1, 0]] = f64::NAN;
        let training = cloud("training", 2, 2);
        let classes = [Targets { group: Group::SPURIOUS, samples: &[4, 17, 9], rows: samples.view() }];
        let refused = analyse(&potential, training.view(), &classes, None, &Silent).unwrap_err();
        assert!(matches!(refused, StudyError::Op(OpError::NotFinite { row: 17, .. })), "{refused}");
        let none = Array2::zeros((0, 2));
        let refused = analyse(&potential, none.view(), &[], None, &Silent).unwrap_err();
        assert!(matches!(refused, StudyError::Op(OpError::Empty { .. })), "{refused}");
        let shape = potential.arcs(training.view(), samples.view());
        assert!(matches!(shape, Err(StudyError::Op(OpError::Shape { argument: "references", .. }))));
    }
}
