//! The fixed points of the retrieval map of any score at one noise level.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use ndarray_linalg::{Eig, Solve};
use rayon::prelude::*;

use super::NAME;
use crate::process::Level;
use crate::progress::ProgressSink;
use crate::score::Score;
use crate::study::error::StudyError;
use crate::study::lapack::without_threads;

/// Number of earlier steps from which a lengthened step is made.
const DEPTH: usize = 6;
/// Longest step, as a multiple of the plain step.
const LONGEST: f64 = 50.0;
/// Number of values in a call of the score.
const CALL: usize = 1 << 20;

/// How starts are followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Length of a step of the map at which a start has settled.
    pub(super) tolerance: f64,
    /// Number of plain steps before steps are lengthened.
    pub(super) plain: usize,
    /// Most steps.
    pub(super) most: usize,
    /// Longest lengthened step.
    pub(super) reach: f64,
}

/// Where starts end.
pub(super) struct Ends {
    /// End states in the units of clean data, `[m, N]`.
    pub(super) y: Array2<f64>,
    /// Length of the map's step at each end, `[m]`.
    pub(super) residual: Vec<f64>,
    /// Whether the step is below the tolerance, `[m]`.
    pub(super) settled: Vec<bool>,
}

/// A step of the retrieval map y <- x0hat(sqrt(alpha_bar) y, t) at each row: x0hat - y = (sigma^2 / alpha) score(alpha y).
pub(super) fn steps(
    score: &dyn Score,
    level: Level,
    y: ArrayView2<'_, f64>,
) -> Result<Array2<f64>, StudyError> {
    let x = y.mapv(|v| level.alpha() * v);
    let scale = level.sigma().powi(2) / level.alpha();
    Ok(score.score(x.view(), &vec![level; y.nrows()])? * scale)
}

/// Iterates the retrieval map from every row of `y` `[m, N]` until its step is below the tolerance.
///
/// The first steps are plain, so the map itself decides which way a start goes. After them steps are lengthened by
/// Anderson's method: the next state is the combination of the last ones whose steps cancel best. Near a weakly
/// contracting fixed point the plain map would take thousands of steps. A lengthened step is at most [`LONGEST`] times
/// as long as the plain one and at most `reach`, and the memory of earlier steps is dropped when the step grows to more
/// than twice the shortest since.
pub(super) fn settle(
    score: &dyn Score,
    level: Level,
    mut y: Array2<f64>,
    rule: &Rule,
    progress: &dyn ProgressSink,
) -> Result<Ends, StudyError> {
    let m = y.nrows();
    let mut residual = vec![f64::INFINITY; m];
    let mut settled = vec![false; m];
    let mut live: Vec<(usize, Track)> = (0..m).map(|i| (i, Track::default())).collect();
    for pass in 0..=rule.most {
        if live.is_empty() {
            break;
        }
        let rows: Vec<usize> = live.iter().map(|(i, _)| *i).collect();
        let mut now = y.select(Axis(0), &rows);
        let plain = steps(score, level, now.view())?;
        let lengths: Vec<f64> = plain.outer_iter().map(|s| s.dot(&s).sqrt()).collect();
        live.par_iter_mut()
            .zip(now.axis_iter_mut(Axis(0)).into_par_iter())
            .zip(plain.axis_iter(Axis(0)).into_par_iter())
            .for_each(|(((_, track), mut y), step)| {
                let by = track.next(y.to_owned(), step.to_owned(), pass >= rule.plain, rule.reach);
                y += &by;
            });
        let before = live.len();
        let mut row = 0;
        live.retain(|(i, _)| {
            let (here, next) = (lengths[row], now.row(row));
            row += 1;
            residual[*i] = here;
            settled[*i] = here <= rule.tolerance;
            let goes_on = !settled[*i] && pass < rule.most && next.iter().all(|v| v.is_finite());
            if goes_on {
                y.row_mut(*i).assign(&next);
            }
            goes_on
        });
        progress.advance((before - live.len()) as u64);
    }
    Ok(Ends { y, residual, settled })
}

/// The earlier steps of one start.
#[derive(Default)]
struct Track {
    last: Option<(Array1<f64>, Array1<f64>)>,
    /// Changes of the state, and of the map's step.
    changes: Vec<(Array1<f64>, Array1<f64>)>,
    shortest: f64,
}

impl Track {
    /// The change of the state `y` at which the map's step is `step`.
    fn next(&mut self, y: Array1<f64>, step: Array1<f64>, lengthen: bool, reach: f64) -> Array1<f64> {
        if !lengthen {
            return step;
        }
        let length = step.dot(&step).sqrt();
        if length > 2.0 * self.shortest || self.last.is_none() {
            self.changes.clear();
            self.shortest = length;
        } else if let Some((y0, step0)) = self.last.take() {
            self.changes.push((&y - &y0, &step - &step0));
            if self.changes.len() > DEPTH {
                self.changes.remove(0);
            }
            self.shortest = self.shortest.min(length);
        }
        let mut by = step.clone();
        if let Some(weights) = self.weights(&step) {
            for (weight, (dy, dstep)) in weights.iter().zip(&self.changes) {
                by.scaled_add(-weight, dy);
                by.scaled_add(-weight, dstep);
            }
            let (long, most) = (by.dot(&by).sqrt(), (LONGEST * length).min(reach.max(length)));
            if long > most {
                by *= most / long;
            }
        }
        self.last = Some((y, step));
        by
    }

    /// The weights that make the step shortest, by Cholesky's method on the normal equations.
    fn weights(&self, step: &Array1<f64>) -> Option<Vec<f64>> {
        let n = self.changes.len();
        if n == 0 {
            return None;
        }
        let mut gram = Array2::from_shape_fn((n, n), |(i, j)| self.changes[i].1.dot(&self.changes[j].1));
        let mut right: Vec<f64> = self.changes.iter().map(|(_, d)| d.dot(step)).collect();
        let ridge = 1e-12 * gram.diag().sum();
        gram.diag_mut().mapv_inplace(|v| v + ridge);
        for i in 0..n {
            let pivot = gram[[i, i]] - (0..i).map(|k| gram[[i, k]] * gram[[i, k]]).sum::<f64>();
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            gram[[i, i]] = pivot.sqrt();
            for j in i + 1..n {
                let rest = gram[[j, i]] - (0..i).map(|k| gram[[j, k]] * gram[[i, k]]).sum::<f64>();
                gram[[j, i]] = rest / gram[[i, i]];
            }
        }
        for i in 0..n {
            right[i] = (right[i] - (0..i).map(|k| gram[[i, k]] * right[k]).sum::<f64>()) / gram[[i, i]];
        }
        for i in (0..n).rev() {
            right[i] = (right[i] - (i + 1..n).map(|k| gram[[k, i]] * right[k]).sum::<f64>()) / gram[[i, i]];
        }
        Some(right)
    }
}

/// What the map's Jacobian says about a settled point.
pub(super) struct Certificate {
    /// Spectral radius of the Jacobian; below 1 the point attracts.
    pub(super) contraction: f64,
    /// Length of Newton's step to the fixed point; infinity where the Jacobian has the eigenvalue 1.
    pub(super) error: f64,
    /// Real part of the eigenvector of the largest eigenvalue, of length 1.
    pub(super) leading: Array1<f64>,
}

/// Certificates of settled points `[c, N]`, by N products with the Jacobian for each.
pub(super) fn certify(
    score: &dyn Score,
    level: Level,
    y: ArrayView2<'_, f64>,
) -> Result<Vec<Certificate>, StudyError> {
    without_threads();
    let dim = y.ncols();
    let v = level.sigma().powi(2);
    let mut out = Vec::with_capacity(y.nrows());
    for points in y.axis_chunks_iter(Axis(0), (CALL / (dim * dim)).max(1)) {
        let step = steps(score, level, points)?;
        let rows = points.nrows() * dim;
        let x = Array2::from_shape_fn((rows, dim), |(row, k)| level.alpha() * points[[row / dim, k]]);
        let unit = Array2::from_shape_fn((rows, dim), |(row, k)| f64::from(u8::from(row % dim == k)));
        let products = score.vjp(x.view(), &vec![level; rows], unit.view())?;
        let one = |i: usize| {
            let mut map = Array2::eye(dim);
            map.scaled_add(v, &products.slice(s![i * dim..(i + 1) * dim, ..]));
            certificate(&map, step.row(i).to_owned(), i)
        };
        out.extend((0..points.nrows()).into_par_iter().map(one).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(out)
}

fn certificate(map: &Array2<f64>, step: Array1<f64>, point: usize) -> Result<Certificate, StudyError> {
    let dim = map.nrows();
    let (values, vectors) = map.eig().map_err(|source| StudyError::Lapack {
        analysis: NAME,
        sample: point,
        rows: dim,
        columns: dim,
        source,
    })?;
    let (largest, contraction) = values
        .iter()
        .map(|value| value.norm())
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("a score has at least one dimension");
    let mut leading = vectors.column(largest).mapv(|v| v.re);
    let length = leading.dot(&leading).sqrt();
    if length > 0.0 {
        leading /= length;
    }
    let error = (Array2::eye(dim) - map).solve_into(step).map_or(f64::INFINITY, |by| by.dot(&by).sqrt());
    Ok(Certificate { contraction, error, leading })
}
