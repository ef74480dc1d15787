//! Attractors of any score in the plane: the stable fixed points of its retrieval dynamics.

use ndarray::{Array2, Axis};

use crate::process::Level;
use crate::score::Score;
use crate::study::error::StudyError;

/// Number of plain steps before steps are lengthened.
const PLAIN: usize = 30;
/// Number of passes after which a moving start is abandoned.
const PASSES: usize = 2_000;
/// Largest lengthened step, as a multiple of the plain step and as a distance.
const LONGEST: (f64, f64) = (50.0, 0.1);
/// Spectral radius at which a fixed point counts as neutral, as on the ring, and not as an attractor.
const NEUTRAL: f64 = 1.0 - 1e-6;
/// Number of steps within the merging distance that may fail to lower the residual before a start counts as settled: a
/// network in single precision does not get closer.
const STALLS: usize = 3;

/// A stable fixed point of x <- x + sigma^2 score(x) = alpha m(x), where m(x) is the mean of the clean data given x. The
/// score is 0 there (Eq. 35).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FixedPoint {
    pub(crate) x: [f64; 2],
    /// Spectral radius of the Jacobian of this map, below 1.
    pub(crate) contraction: f64,
}

/// The fixed points that retrieval from many starts reaches.
pub(crate) struct FixedPoints {
    pub(crate) found: Vec<FixedPoint>,
    /// Index into `found` for each start; `None` when it reaches no stable fixed point.
    pub(crate) end: Vec<Option<usize>>,
}

/// Runs x <- x + sigma^2 score(x) from every row of `x` `[m, 2]` at one level. End points within `merge` are merged.
///
/// After [`PLAIN`] plain steps the steps are lengthened, as the plain dynamics takes millions of steps along a nearly
/// flat valley. Where the map contracts, the step is Newton's and must lower the residual. Elsewhere it goes downhill
/// along the eigenvectors of the symmetric part of the Jacobian.
pub(crate) fn fixed_points(
    score: &dyn Score,
    level: Level,
    mut x: Array2<f64>,
    merge: f64,
) -> Result<FixedPoints, StudyError> {
    let m = x.nrows();
    let (mut live, mut stalls, mut settled): (Vec<usize>, _, _) =
        ((0..m).collect(), vec![0; m], vec![false; m]);
    for pass in 0..PASSES {
        if live.is_empty() {
            break;
        }
        let now = x.select(Axis(0), &live);
        let shift = shift(score, level, &now)?;
        if pass < PLAIN {
            live.iter().zip(shift.outer_iter()).for_each(|(&i, s)| x.row_mut(i).scaled_add(1.0, &s));
            live.retain(|&i| x.row(i).iter().all(|v| v.is_finite()));
            continue;
        }
        let steps: Vec<Step> = jacobian(score, level, &now)?
            .iter()
            .zip(shift.outer_iter())
            .map(|(j, s)| lengthened(*j, [s[0], s[1]]))
            .collect();
        let trial = Array2::from_shape_fn(now.dim(), |(row, k)| now[[row, k]] + steps[row].by[k]);
        let then = self::shift(score, level, &trial)?;
        let mut still = Vec::with_capacity(live.len());
        for (row, &i) in live.iter().enumerate() {
            let (before, after) = (length(shift.row(row)), length(then.row(row)));
            let step = &steps[row];
            let taken = !step.stable || after < before;
            let next = if taken { trial.row(row).to_owned() } else { &now.row(row) + &shift.row(row) };
            if !taken && step.length <= 0.5 * merge {
                stalls[i] += 1;
            }
            settled[i] = step.stable && (before == 0.0 || stalls[i] >= STALLS);
            if settled[i] {
                continue;
            }
            if next.iter().all(|v| v.is_finite()) {
                x.row_mut(i).assign(&next);
                still.push(i);
            }
        }
        live = still;
    }
    let mut out = FixedPoints { found: Vec::new(), end: vec![None; m] };
    let near = |a: &FixedPoint, x: [f64; 2]| (a.x[0] - x[0]).hypot(a.x[1] - x[1]) <= merge;
    for i in (0..m).filter(|&i| settled[i]) {
        let at = [x[[i, 0]], x[[i, 1]]];
        out.end[i] = out.found.iter().position(|f| near(f, at));
        if out.end[i].is_none() {
            let j = jacobian(score, level, &x.select(Axis(0), &[i]))?[0];
            let contraction = spectral_radius(j);
            if contraction < NEUTRAL {
                out.end[i] = Some(out.found.len());
                out.found.push(FixedPoint { x: at, contraction });
            }
        }
    }
    Ok(out)
}

struct Step {
    by: [f64; 2],
    length: f64,
    /// Whether the map contracts at the start of the step.
    stable: bool,
}

/// A longer step than the shift s for the Jacobian j of the map. Where the map contracts it is Newton's step
/// (I - j)^-1 s; elsewhere the same with the symmetric part of I - j and the absolute values of its eigenvalues, which
/// leads away from a saddle.
fn lengthened(j: [[f64; 2]; 2], s: [f64; 2]) -> Step {
    let stable = spectral_radius(j) < 1.0;
    let (a, b, c, d) = (1.0 - j[0][0], -j[0][1], -j[1][0], 1.0 - j[1][1]);
    let mut by = if stable {
        let det = (a * d - b * c).max(1e-12);
        [(d * s[0] - b * s[1]) / det, (a * s[1] - c * s[0]) / det]
    } else {
        let (middle, half, side) = (0.5 * (a + d), 0.5 * (a - d), 0.5 * (b + c));
        let spread = half.hypot(side);
        let angle = 0.5 * side.atan2(half);
        let high = [angle.cos(), angle.sin()];
        let along = |value: f64, v: [f64; 2]| (v[0] * s[0] + v[1] * s[1]) / value.abs().max(1e-12);
        let (p, q) = (along(middle + spread, high), along(middle - spread, [-high[1], high[0]]));
        [p * high[0] - q * high[1], p * high[1] + q * high[0]]
    };
    let full = by[0].hypot(by[1]);
    let most = (LONGEST.0 * s[0].hypot(s[1])).min(LONGEST.1);
    if full > most {
        by = by.map(|v| v * most / full);
    }
    Step { by, length: full.min(most), stable }
}

/// sigma^2 score(x) for each row.
fn shift(score: &dyn Score, level: Level, x: &Array2<f64>) -> Result<Array2<f64>, StudyError> {
    Ok(score.score(x.view(), &vec![level; x.nrows()])? * level.sigma().powi(2))
}

/// The Jacobian of the map at each row.
fn jacobian(score: &dyn Score, level: Level, x: &Array2<f64>) -> Result<Vec<[[f64; 2]; 2]>, StudyError> {
    let v = level.sigma().powi(2);
    let levels = vec![level; x.nrows()];
    let mut out = vec![[[0.0; 2]; 2]; x.nrows()];
    for k in 0..2 {
        let unit = Array2::from_shape_fn(x.dim(), |(_, axis)| if axis == k { 1.0 } else { 0.0 });
        let rows = score.vjp(x.view(), &levels, unit.view())?;
        for (j, row) in out.iter_mut().zip(rows.outer_iter()) {
            j[k] = [v * row[0], v * row[1]];
            j[k][k] += 1.0;
        }
    }
    Ok(out)
}

fn spectral_radius(j: [[f64; 2]; 2]) -> f64 {
    let (half, det) = (0.5 * (j[0][0] + j[1][1]), j[0][0] * j[1][1] - j[0][1] * j[1][0]);
    match half * half - det {
        d if d >= 0.0 => half.abs() + d.sqrt(),
        _ => det.sqrt(),
    }
}

fn length(v: ndarray::ArrayView1<'_, f64>) -> f64 {
    v.dot(&v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{AttractorSettings, attractors, toy};
    use crate::ops::Memories;
    use crate::process::{Process, Ve, Vp};
    use crate::score::{Empirical, ScoreError};
    use ndarray::ArrayView2;

    fn grid(side: usize) -> Array2<f64> {
        Array2::from_shape_fn((side * side, 2), |(q, axis)| {
            let i = if axis == 0 { q % side } else { q / side };
            3.0 * i as f64 / (side - 1) as f64 - 1.5
        })
    }

    /// Newton's method on the energy finds the same attractors, for several temperatures and for a process with alpha < 1.
    #[test]
    fn the_exact_score_has_the_attractors_of_its_energy() {
        let vp = Vp::default();
        for k in [2, 9, 100] {
            let points = toy::points(k).unwrap();
            let score = Empirical::new(Memories::new(points.clone()).unwrap());
            for level in [
                Ve::default().level(0.15).unwrap(),
                Ve::default().level(0.025).unwrap(),
                Ve::default().level(1.0).unwrap(),
                vp.level(vp.horizon() * 0.1).unwrap(),
            ] {
                let search = AttractorSettings { random_starts: 200, ..AttractorSettings::default() };
                let wanted = attractors(points.clone(), level.beta(), &search).unwrap().found;
                let starts = grid(20) * level.alpha();
                let got = fixed_points(&score, level, starts, 1e-3).unwrap();
                assert!(got.end.iter().all(Option::is_some), "{k} {level:?}");
                for f in &got.found {
                    let distance = |a: &crate::memory::Attractor| {
                        (a.x[0] - f.x[0] / level.alpha()).hypot(a.x[1] - f.x[1] / level.alpha())
                    };
                    let best = wanted.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
                    assert!(distance(best) < 1e-6, "{k} {level:?}: {f:?}");
                    let slope = best.certificate.contraction;
                    assert!((f.contraction - slope).abs() < 1e-5 && f.contraction < 1.0, "{f:?} {slope}");
                }
                // A grid of 400 starts may miss the smallest of many basins.
                let missed = wanted.len() - got.found.len();
                assert!(missed <= wanted.len() / 4, "{k} {level:?}: {missed} of {}", wanted.len());
                if k <= 9 {
                    assert_eq!(missed, 0, "{k} {level:?}");
                }
            }
        }
    }

    /// x is rotated and scaled about the origin: a score that is not a gradient.
    struct Swirl(f64, f64);

    impl Score for Swirl {
        fn dim(&self) -> usize {
            2
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let (c, s) = (self.0 * self.1.cos(), self.0 * self.1.sin());
            let v = levels[0].sigma().powi(2);
            Ok(Array2::from_shape_fn(x.dim(), |(i, k)| match k {
                0 => (c * x[[i, 0]] - s * x[[i, 1]] - x[[i, 0]]) / v,
                _ => (s * x[[i, 0]] + c * x[[i, 1]] - x[[i, 1]]) / v,
            }))
        }

        fn vjp(
            &self,
            x: ArrayView2<'_, f64>,
            levels: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            // The transpose is the inverse rotation.
            assert_eq!(x.dim(), v.dim());
            Swirl(self.0, -self.1).score(v, levels)
        }
    }

    #[test]
    fn a_swirl_has_a_fixed_point_where_it_contracts_and_none_where_it_grows() {
        let level = Ve::default().level(0.2).unwrap();
        let inwards = fixed_points(&Swirl(0.9, 0.7), level, grid(4), 1e-3).unwrap();
        assert_eq!(inwards.found.len(), 1);
        assert!(inwards.found[0].x[0].hypot(inwards.found[0].x[1]) < 1e-9);
        assert!((inwards.found[0].contraction - 0.9).abs() < 1e-12);
        let outwards = fixed_points(&Swirl(1.1, 0.1), level, grid(4), 1e-3).unwrap();
        assert!(outwards.found.is_empty() && outwards.end.iter().all(Option::is_none));
    }

    #[test]
    fn the_spectral_radius_is_that_of_the_matrix() {
        assert!((spectral_radius([[0.5, 0.0], [0.0, -0.8]]) - 0.8).abs() < 1e-15);
        assert!((spectral_radius([[0.0, -0.6], [0.6, 0.0]]) - 0.6).abs() < 1e-15);
        assert!((spectral_radius([[2.0, 1.0], [1.0, 2.0]]) - 3.0).abs() < 1e-15);
    }
}
