use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::SampleError;
use crate::progress::ProgressSink;
use crate::score::first_bad;
use crate::setting::SettingError;

/// Settings of [`Rk45`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rk45Settings {
    /// Relative tolerance of a step; the paper has 1e-5.
    pub rtol: f64,
    /// Absolute tolerance of a step; the paper has 1e-5.
    pub atol: f64,
    /// Largest number of steps that a trajectory tries.
    pub max_steps: usize,
}

impl Default for Rk45Settings {
    fn default() -> Self {
        Self { rtol: 1e-5, atol: 1e-5, max_steps: 100_000 }
    }
}

impl Rk45Settings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`SampleError::Setting`] with the first setting out of its range.
    pub fn check(self) -> Result<Rk45, SampleError> {
        let refused = |setting, value: f64, need| {
            Err(SettingError::new(Rk45::NAME, setting, format!("{value:e}"), need).into())
        };
        if !(self.rtol >= 1e-14 && self.rtol < 1.0) {
            return refused("rtol", self.rtol, "a number from 1e-14 to below 1");
        }
        if !(self.atol > 0.0 && self.atol.is_finite()) {
            return refused("atol", self.atol, "a finite number above 0");
        }
        if self.max_steps == 0 {
            return refused("max_steps", 0.0, "at least 1");
        }
        Ok(Rk45(self))
    }
}

/// End points of trajectories.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// End points, `[m, n]`.
    pub y: Array2<f64>,
    /// Number of steps that each trajectory tried, `[m]`.
    pub steps: Vec<usize>,
}

/// The Dormand-Prince method of order 5 with an error estimate of order 4, for many trajectories with times and step sizes
/// of their own.
///
/// Error norm, step control and first step are those of Hairer, Norsett and Wanner (II.4), as in SciPy's
/// RK45: the root mean square over a trajectory's coordinates of error / (atol + rtol max(|y|, |y_new|)).
/// Crates for differential equations integrate one state: a state for each trajectory would lose the network's batches, and
/// one state for all would couple their step sizes. Their right-hand sides also can't return errors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rk45(Rk45Settings);

/// Times of the stages as fractions of a step, and weights of the earlier slopes. The last row is the solution of order 5.
const TIMES: [f64; 6] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];
const STAGES: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Weights of the seven slopes in the difference between order 5 and order 4.
const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// Fewest trajectories per task.
const TASK: usize = 16;

/// Unfinished trajectories, one per row.
struct Moving {
    /// Row of each in the batch.
    rows: Vec<usize>,
    y: Array2<f64>,
    slope: Array2<f64>,
    t: Vec<f64>,
    /// Signed length of the next step.
    h: Vec<f64>,
    /// Whether the previous step was rejected, after which the step size does not grow.
    refused: Vec<bool>,
}

impl Rk45 {
    const NAME: &str = "RK45";

    /// Integrates dy/dt = `slope` for each row of `y` `[m, n]` from time `from` to `to`, in either direction.
    /// `slope(rows, t, y)` receives the indices of rows in the batch, with a time and a point for each. Reports one step of
    /// progress for each finished trajectory.
    ///
    /// # Errors
    /// Errors of `slope`; [`SampleError::NotFinite`] for a slope that is not finite; [`SampleError::Stuck`] for too many
    /// steps, or a step that rounding makes zero; [`SampleError::Setting`] for times that are not finite.
    pub fn integrate(
        &self,
        y: Array2<f64>,
        (from, to): (f64, f64),
        mut slope: impl FnMut(&[usize], &[f64], ArrayView2<'_, f64>) -> Result<Array2<f64>, SampleError>,
        progress: &dyn ProgressSink,
    ) -> Result<Solution, SampleError> {
        for (setting, value) in [("from", from), ("to", to)] {
            if !value.is_finite() {
                let need = "a finite number";
                return Err(SettingError::new(Self::NAME, setting, value, need).into());
            }
        }
        let m = y.nrows();
        let mut out = Solution { y: y.clone(), steps: vec![0; m] };
        if from == to || y.is_empty() {
            progress.advance(m as u64);
            return Ok(out);
        }
        let mut asked = |steps: &[usize], rows: &[usize], t: &[f64], y: ArrayView2<'_, f64>| {
            let slopes = slope(rows, t, y)?;
            match first_bad(&slopes.view()) {
                Some((i, _, value)) => Err(SampleError::NotFinite {
                    sampler: Self::NAME,
                    sample: rows[i],
                    step: steps[rows[i]],
                    t: t[i],
                    value,
                }),
                None => Ok(slopes),
            }
        };
        let rows: Vec<usize> = (0..m).collect();
        let start = asked(&out.steps, &rows, &vec![from; m], y.view())?;
        // A small Euler step estimates how fast the slope changes.
        let mut h: Vec<f64> =
            (0..m).map(|i| (to - from).signum() * self.first_guess(y.row(i), start.row(i))).collect();
        let probe = Array2::from_shape_fn(y.dim(), |(i, k)| y[[i, k]] + h[i] * start[[i, k]]);
        let t: Vec<f64> = h.iter().map(|h| within(from + h, from, to)).collect();
        let then = asked(&out.steps, &rows, &t, probe.view())?;
        for (i, h) in h.iter_mut().enumerate() {
            *h = self.first_step(y.row(i), start.row(i), then.row(i), *h);
        }
        let mut at = Moving { rows, y, slope: start, t: vec![from; m], h, refused: vec![false; m] };
        while !at.rows.is_empty() {
            for i in 0..at.rows.len() {
                let (row, t) = (at.rows[i], at.t[i]);
                // The last step ends at `to`. A step that rounding makes zero is an error.
                let shortest = 10.0 * f64::EPSILON * t.abs().max(f64::MIN_POSITIVE);
                let (steps, length) = (out.steps[row], at.h[i].abs());
                if steps >= self.0.max_steps || length < shortest || !length.is_finite() {
                    return Err(SampleError::Stuck { sampler: Self::NAME, sample: row, t, steps, length });
                }
                if length >= (to - t).abs() {
                    at.h[i] = to - t;
                }
                out.steps[row] += 1;
            }
            let (new, slopes) = step(&at, to, |t, y| asked(&out.steps, &at.rows, t, y))?;
            self.advance(&mut at, new, slopes, to);
            let arrived: Vec<bool> = at.t.iter().map(|t| *t == to).collect();
            if arrived.contains(&true) {
                for (i, _) in arrived.iter().enumerate().filter(|(_, a)| **a) {
                    out.y.row_mut(at.rows[i]).assign(&at.y.row(i));
                    progress.advance(1);
                }
                at.keep(&arrived.iter().map(|a| !a).collect::<Vec<_>>());
            }
        }
        Ok(out)
    }

    /// Accepts or rejects each trajectory's step, and sets the next step size.
    fn advance(&self, at: &mut Moving, new: Array2<f64>, slopes: [Array2<f64>; 7], to: f64) {
        let error = |i: usize| {
            root_mean_square((0..new.ncols()).map(|k| {
                let sum: f64 = ERROR.iter().zip(&slopes).map(|(w, s)| w * s[[i, k]]).sum();
                let scale = self.0.atol + self.0.rtol * at.y[[i, k]].abs().max(new[[i, k]].abs());
                at.h[i] * sum / scale
            }))
        };
        let norms: Vec<f64> = (0..at.rows.len()).into_par_iter().with_min_len(TASK).map(error).collect();
        for (i, norm) in norms.into_iter().enumerate() {
            let factor = 0.9 * norm.powf(-0.2);
            let taken = norm < 1.0;
            if taken {
                let arrives = at.h[i] == to - at.t[i];
                at.t[i] = if arrives { to } else { within(at.t[i] + at.h[i], at.t[i], to) };
                at.h[i] *= factor.min(if at.refused[i] { 1.0 } else { 10.0 });
                at.y.row_mut(i).assign(&new.row(i));
                at.slope.row_mut(i).assign(&slopes[6].row(i));
            } else {
                at.h[i] *= factor.max(0.2);
            }
            at.refused[i] = !taken;
        }
    }

    fn first_guess(&self, y: ArrayView1<'_, f64>, slope: ArrayView1<'_, f64>) -> f64 {
        let size = self.norm(y, y.iter().copied());
        let speed = self.norm(y, slope.iter().copied());
        if size < 1e-5 || speed < 1e-5 { 1e-6 } else { 0.01 * size / speed }
    }

    fn first_step(
        &self,
        y: ArrayView1<'_, f64>,
        start: ArrayView1<'_, f64>,
        then: ArrayView1<'_, f64>,
        h: f64,
    ) -> f64 {
        let speed = self.norm(y, start.iter().copied());
        let bend = self.norm(y, then.iter().zip(start).map(|(a, b)| a - b)) / h.abs();
        let most = speed.max(bend);
        let length = if most <= 1e-15 { (h.abs() * 1e-3).max(1e-6) } else { (0.01 / most).powf(0.2) };
        h.signum() * length.min(100.0 * h.abs())
    }

    /// Root mean square of `values` relative to the tolerances at y.
    fn norm(&self, y: ArrayView1<'_, f64>, values: impl Iterator<Item = f64>) -> f64 {
        root_mean_square(y.iter().zip(values).map(|(y, v)| v / (self.0.atol + self.0.rtol * y.abs())))
    }
}

impl Moving {
    /// Removes trajectories that are not kept.
    fn keep(&mut self, keep: &[bool]) {
        let kept: Vec<usize> = (0..keep.len()).filter(|&i| keep[i]).collect();
        self.rows = kept.iter().map(|&i| self.rows[i]).collect();
        self.t = kept.iter().map(|&i| self.t[i]).collect();
        self.h = kept.iter().map(|&i| self.h[i]).collect();
        self.refused = kept.iter().map(|&i| self.refused[i]).collect();
        self.y = self.y.select(Axis(0), &kept);
        self.slope = self.slope.select(Axis(0), &kept);
    }
}

/// One step of all trajectories: its end point and seven slopes.
fn step<E>(
    at: &Moving,
    to: f64,
    mut slope: impl FnMut(&[f64], ArrayView2<'_, f64>) -> Result<Array2<f64>, E>,
) -> Result<(Array2<f64>, [Array2<f64>; 7]), E> {
    let empty = || Array2::zeros((0, 0));
    let mut slopes = [at.slope.clone(), empty(), empty(), empty(), empty(), empty(), empty()];
    let mut y = at.y.clone();
    for (stage, (c, weights)) in TIMES.iter().zip(STAGES).enumerate() {
        let rows = y.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(TASK).enumerate();
        rows.for_each(|(i, mut y)| {
            y.assign(&at.y.row(i));
            for (w, s) in weights.iter().zip(&slopes) {
                y.scaled_add(at.h[i] * w, &s.row(i));
            }
        });
        let t: Vec<f64> = at.t.iter().zip(&at.h).map(|(t, h)| within(t + c * h, *t, to)).collect();
        slopes[stage + 1] = slope(&t, y.view())?;
    }
    Ok((y, slopes))
}

/// `t`, or `to` if t lies beyond it.
fn within(t: f64, from: f64, to: f64) -> f64 {
    if from <= to { t.min(to) } else { t.max(to) }
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v * v, n + 1.0));
    (sum / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use ndarray::{array, s};

    fn solver(tolerance: f64) -> Rk45 {
        Rk45Settings { rtol: tolerance, atol: tolerance, ..Rk45Settings::default() }.check().unwrap()
    }

    /// y' = y cos t, so y = y0 exp(sin t).
    fn wave(_: &[usize], t: &[f64], y: ArrayView2<'_, f64>) -> Result<Array2<f64>, SampleError> {
        Ok(Array2::from_shape_fn(y.dim(), |(i, k)| y[[i, k]] * t[i].cos()))
    }

    #[test]
    fn a_step_is_of_order_five_and_its_error_estimate_of_order_four() {
        let errors = |h: f64| {
            let y = array![[1.0]];
            let slope = wave(&[0], &[0.3], y.view()).unwrap();
            let at = Moving { rows: vec![0], y, slope, t: vec![0.3], h: vec![h], refused: vec![false] };
            let (new, slopes) = step(&at, 9.0, |t, y| wave(&[0], t, y)).unwrap();
            let estimate: f64 = ERROR.iter().zip(&slopes).map(|(w, s)| h * w * s[[0, 0]]).sum();
            ((new[[0, 0]] - ((0.3 + h).sin() - 0.3f64.sin()).exp()).abs(), estimate.abs())
        };
        let ((a, p), (b, q)) = (errors(0.2), errors(0.1));
        // Local errors are of one order more.
        assert!(((a / b).log2() - 6.0).abs() < 0.4, "{}", (a / b).log2());
        assert!(((p / q).log2() - 5.0).abs() < 0.4, "{}", (p / q).log2());
    }

    #[test]
    fn the_error_follows_the_tolerance_at_order_five() {
        // Three turns of a circle: the error of the end point against the steps that it took.
        let turn = |_: &[usize], _: &[f64], y: ArrayView2<'_, f64>| {
            Ok(Array2::from_shape_fn(y.dim(), |(i, k)| if k == 0 { -y[[i, 1]] } else { y[[i, 0]] }))
        };
        let run = |tolerance| {
            let end = 6.0 * std::f64::consts::PI;
            let got = solver(tolerance).integrate(array![[1.0, 0.0]], (0.0, end), turn, &Silent).unwrap();
            ((got.y[[0, 0]] - 1.0).hypot(got.y[[0, 1]]), got.steps[0] as f64)
        };
        let runs: Vec<(f64, f64)> = (5..=11).map(|digits| run(0.1f64.powi(digits))).collect();
        for (digits, (error, _)) in (5..=11).zip(&runs) {
            assert!(*error < 20.0 * 0.1f64.powi(digits), "{digits}: {error:e}");
        }
        let order = (runs[0].0 / runs[6].0).ln() / (runs[6].1 / runs[0].1).ln();
        assert!((order - 5.0).abs() < 0.3, "{order} {runs:?}");
    }

    #[test]
    fn both_directions_and_many_trajectories() {
        let y = Array2::from_shape_fn((40, 2), |(i, k)| 0.5 + i as f64 + 10.0 * k as f64);
        // Trajectories of their own stiffness.
        let slope = |rows: &[usize], _: &[f64], y: ArrayView2<'_, f64>| {
            Ok(Array2::from_shape_fn(y.dim(), |(i, k)| -(rows[i] as f64) * (y[[i, k]] - 1.0)))
        };
        let all = solver(1e-8).integrate(y.clone(), (0.0, 1.5), slope, &Silent).unwrap();
        for i in 0..40 {
            for k in 0..2 {
                let expected = 1.0 + (y[[i, k]] - 1.0) * (-1.5 * i as f64).exp();
                assert!((all.y[[i, k]] - expected).abs() < 1e-5, "{i}: {} {expected}", all.y[[i, k]]);
            }
        }
        assert!(all.steps[39] > 2 * all.steps[1]);
        // The rows of the batch alone, to the last bit.
        let shifted = |rows: &[usize], t: &[f64], y: ArrayView2<'_, f64>| {
            slope(&rows.iter().map(|r| r + 7).collect::<Vec<_>>(), t, y)
        };
        let some =
            solver(1e-8).integrate(y.slice(s![7..9, ..]).to_owned(), (0.0, 1.5), shifted, &Silent).unwrap();
        assert_eq!(some.y, all.y.slice(s![7..9, ..]));
        assert_eq!(some.steps, all.steps[7..9]);
        let there = solver(1e-10).integrate(array![[2.0]], (3.0, -1.0), wave, &Silent).unwrap();
        let expected = 2.0 * ((-1.0f64).sin() - 3.0f64.sin()).exp();
        assert!((there.y[[0, 0]] - expected).abs() < 1e-7);
    }

    #[test]
    fn an_integration_that_does_not_reach_its_end_is_an_error() {
        let refused = |s: Rk45Settings| matches!(s.check(), Err(SampleError::Setting(_)));
        let d = Rk45Settings::default();
        assert!(refused(Rk45Settings { rtol: 0.0, ..d }) && refused(Rk45Settings { atol: f64::NAN, ..d }));
        assert!(refused(Rk45Settings { max_steps: 0, ..d }) && refused(Rk45Settings { rtol: 1.0, ..d }));
        let few = Rk45Settings { max_steps: 3, ..d }.check().unwrap();
        let e = few.integrate(array![[1.0]], (0.0, 100.0), wave, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Stuck { sample: 0, steps: 3, .. }), "{e}");
        // y' = y^2 leaves for infinity at t = 1.
        let burst = |_: &[usize], _: &[f64], y: ArrayView2<'_, f64>| Ok(&y * &y);
        let e = solver(1e-5).integrate(array![[1.0]], (0.0, 2.0), burst, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Stuck { .. } | SampleError::NotFinite { .. }), "{e}");
        let bad = |rows: &[usize], t: &[f64], y: ArrayView2<'_, f64>| {
            let worse = |i: usize| if rows[i] == 1 && t[i] > 0.5 { f64::NAN } else { 1.0 };
            Ok(Array2::from_shape_fn(y.dim(), |(i, _)| worse(i)))
        };
        let e = solver(1e-5).integrate(array![[1.0], [1.0]], (0.0, 2.0), bad, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::NotFinite { sample: 1, t, .. } if t > 0.5), "{e}");
        assert!(solver(1e-5).integrate(array![[1.0]], (0.0, f64::NAN), wave, &Silent).is_err());
        let none = solver(1e-5).integrate(Array2::zeros((0, 3)), (0.0, 1.0), wave, &Silent).unwrap();
        assert_eq!(none.y.dim(), (0, 3));
    }
}
