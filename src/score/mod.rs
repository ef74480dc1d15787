//! Scores: the gradient of log p_t at a noise level, exact or learned.
//!
//! Samplers and analyses take a [`Score`]. [`Network`] is the learned score, and
//! [`Prompted`] that of Stable Diffusion for a text. The others are exact: [`Empirical`] is the
//! score of K memories (Eq. 4), which a perfectly trained network would have, [`Ring`] the toy model's limit of
//! infinitely many memories (Eqs. 13 to 18), and [`Gaussian`] has closed forms for every sampler. Their densities are
//! known, see [`Density`].
//!
//! A level defines the kernel N(alpha x_0, sigma^2 I), so a score serves every process. Rows of a batch may be at
//! different levels, as trajectories with adaptive step sizes are.

mod divergence;
mod empirical;
mod error;
mod gaussian;
mod guided;
mod network;
mod prompted;
mod ring;
mod timed;

pub use divergence::{Probe, hutchinson};
pub use empirical::Empirical;
pub use error::ScoreError;
pub use gaussian::Gaussian;
pub use guided::{Guided, MOST_GUIDANCE};
pub use network::Network;
pub use prompted::Prompted;
pub use ring::Ring;
pub use timed::Timed;

use ndarray::{Array1, Array2, ArrayView2};

use crate::ops::OpError;
use crate::process::Level;

/// The score of p_t.
///
/// Each row of a result depends on that row of the arguments alone, so that samples do not depend on the batch size.
pub trait Score: Sync {
    /// N, the number of dimensions.
    fn dim(&self) -> usize;

    /// grad log p_t at each row of `x` `[m, N]`, with row i at `levels[i]`: `[m, N]`.
    ///
    /// # Errors
    /// [`ScoreError`] for a wrong shape, values that are not finite, or a level without noise.
    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError>;

    /// J^T v for each row, `[m, N]`: J is the Jacobian of the score at the row of `x`, and v the row of `v` `[m, N]`. There
    /// is no default, as finite differences of a network in single precision would be silently inaccurate.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError>;

    /// Trace of J for each row, `[m]`, by N products unless a closed form exists.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        let mut trace = Array1::zeros(x.nrows());
        for k in 0..self.dim() {
            let mut v = Array2::zeros(x.dim());
            v.column_mut(k).fill(1.0);
            trace += &self.vjp(x, levels, v.view())?.column(k);
        }
        Ok(trace)
    }

    /// [`Self::score`] and [`Self::divergence`], in one pass if that is cheaper.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn score_and_divergence(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
    ) -> Result<(Array2<f64>, Array1<f64>), ScoreError> {
        Ok((self.score(x, levels)?, self.divergence(x, levels)?))
    }

    /// [`Self::score`] and the terms of [`hutchinson`], in one pass if that is cheaper.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn score_and_terms(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        directions: &[Array2<f64>],
    ) -> Result<(Array2<f64>, Array2<f64>), ScoreError> {
        Ok((self.score(x, levels)?, hutchinson(self, x, levels, directions)?))
    }
}

impl<S: Score + ?Sized> Score for &S {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        (**self).score(x, levels)
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        (**self).vjp(x, levels, v)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        (**self).divergence(x, levels)
    }

    fn score_and_divergence(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
    ) -> Result<(Array2<f64>, Array1<f64>), ScoreError> {
        (**self).score_and_divergence(x, levels)
    }

    fn score_and_terms(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        directions: &[Array2<f64>],
    ) -> Result<(Array2<f64>, Array2<f64>), ScoreError> {
        (**self).score_and_terms(x, levels, directions)
    }
}

/// A density p_t that is known.
pub trait Density: Sync {
    /// N, the number of dimensions.
    fn dim(&self) -> usize;

    /// log p_t at each row of `x` `[m, N]`, with row i at `levels[i]`: `[m]`, in nats.
    ///
    /// # Errors
    /// As [`Score::score`].
    fn log_density(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError>;
}

/// Checks that x is finite and `[m, dim]`, with a noisy level for each row.
pub(crate) fn check(
    operation: &'static str,
    dim: usize,
    x: &ArrayView2<'_, f64>,
    levels: &[Level],
) -> Result<(), ScoreError> {
    check_rows(operation, "x", x, (levels.len(), dim))?;
    match levels.iter().position(|l| !l.beta().is_finite()) {
        Some(row) => Err(ScoreError::Clean { operation, row, t: levels[row].t() }),
        None => Ok(()),
    }
}

/// Checks that `rows` has the given shape and is finite.
pub(crate) fn check_rows(
    operation: &'static str,
    argument: &'static str,
    rows: &ArrayView2<'_, f64>,
    shape: (usize, usize),
) -> Result<(), OpError> {
    check_shape(operation, argument, rows, shape)?;
    match first_bad(rows) {
        Some((row, column, value)) => Err(OpError::NotFinite { operation, argument, row, column, value }),
        None => Ok(()),
    }
}

/// Checks that `rows` has the given shape.
pub(crate) fn check_shape(
    operation: &'static str,
    argument: &'static str,
    rows: &ArrayView2<'_, f64>,
    shape: (usize, usize),
) -> Result<(), OpError> {
    if rows.dim() == shape {
        return Ok(());
    }
    let expected = format!("[{}, {}]", shape.0, shape.1);
    Err(OpError::Shape { operation, argument, found: rows.shape().to_vec(), expected })
}

/// Row, column and value of the first NaN or infinity.
pub(crate) fn first_bad(rows: &ArrayView2<'_, f64>) -> Option<(usize, usize, f64)> {
    // The common case is one fast pass.
    let clean =
        |values: &[f64]| values.chunks(256).all(|v| v.iter().fold(true, |all, v| all & v.is_finite()));
    if rows.as_slice().is_some_and(clean) {
        return None;
    }
    rows.indexed_iter().find(|(_, v)| !v.is_finite()).map(|((row, column), &v)| (row, column, v))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::{Process, Ve, Vp};
    use crate::random::{Stream, Streams};
    use ndarray::array;

    fn cloud(k: usize, n: usize) -> Array2<f64> {
        let mut s = Stream::new(2, "cloud");
        Array2::from_shape_fn((k, n), |_| 0.6 * s.normal())
    }

    /// Levels of both processes, with the same number of points each, in pairs of rows.
    fn places(n: usize) -> (Array2<f64>, Vec<Level>) {
        let (ve, vp) = (Ve::default(), Vp::default());
        let levels: Vec<Level> =
            [ve.level(0.05), ve.level(0.4), ve.level(1.0), vp.level(90.0), vp.level(400.5), vp.level(999.0)]
                .into_iter()
                .flat_map(|l| {
                    let l = l.unwrap();
                    [l, l]
                })
                .collect();
        (Streams::new(5, "places", 0..levels.len()).normal(n), levels)
    }

    /// Compares the score with differences of the density, J^T v with differences of the score, and the divergence with both.
    fn agrees(score: &(impl Score + Density)) {
        let n = Score::dim(score);
        let (x, levels) = places(n);
        let (s, h) = (score.score(x.view(), &levels).unwrap(), 1e-5);
        let v = Streams::new(6, "directions", 0..levels.len()).normal(n);
        let vjp = score.vjp(x.view(), &levels, v.view()).unwrap();
        let divergence = score.divergence(x.view(), &levels).unwrap();
        let (mut by_products, mut by_slopes) =
            (Array1::<f64>::zeros(levels.len()), Array1::zeros(levels.len()));
        let mut by_rows = Array2::<f64>::zeros(x.dim());
        for k in 0..n {
            let mut unit = Array2::zeros(x.dim());
            unit.column_mut(k).fill(1.0);
            by_products += &score.vjp(x.view(), &levels, unit.view()).unwrap().column(k);
            let (up, down) = (&x + &unit * h, &x - &unit * h);
            let slope = (score.log_density(up.view(), &levels).unwrap()
                - score.log_density(down.view(), &levels).unwrap())
                / (2.0 * h);
            let bend = (score.score(up.view(), &levels).unwrap()
                - score.score(down.view(), &levels).unwrap())
                / (2.0 * h);
            by_slopes += &bend.column(k);
            for (i, level) in levels.iter().enumerate() {
                let scale = 1.0 / level.sigma().powi(2);
                // Central differences: h^2 times third derivatives, and rounding over h.
                assert!(
                    (slope[i] - s[[i, k]]).abs() < 1e-7 * scale * scale,
                    "{i}: {} {}",
                    slope[i],
                    s[[i, k]]
                );
                // Row k of J^T v is column k of J with v: the derivative of s.v along axis k.
                by_rows[[i, k]] = bend.row(i).dot(&v.row(i));
                let error = (by_rows[[i, k]] - vjp[[i, k]]).abs();
                assert!(error < 1e-6 * scale * scale, "{i}: {} {}", by_rows[[i, k]], vjp[[i, k]]);
            }
        }
        for (i, level) in levels.iter().enumerate() {
            let scale = 1.0 / level.sigma().powi(2);
            assert!((divergence[i] - by_products[i]).abs() < 1e-10 * scale * scale, "{i}");
            assert!((divergence[i] - by_slopes[i]).abs() < 1e-6 * scale * scale, "{i}");
        }
    }

    #[test]
    fn scores_are_the_slopes_of_their_densities() {
        for (k, n) in [(1, 1), (2, 2), (9, 3), (20, 12)] {
            let rows = cloud(k, n);
            agrees(&Empirical::new(Memories::new(rows.clone()).unwrap()));
        }
        agrees(&Ring);
        agrees(&Gaussian::new(array![0.3, -0.1, 0.8], array![0.25, 0.0, 2.0]).unwrap());
    }

    #[test]
    fn guidance_is_a_combination_of_two_scores_and_of_their_products() {
        let memories = |seed: u64| {
            let mut s = Stream::new(seed, "memories");
            Empirical::new(Memories::new(Array2::from_shape_fn((4, 3), |_| 0.6 * s.normal())).unwrap())
        };
        let (x, levels) = places(3);
        let v = Streams::new(6, "directions", 0..levels.len()).normal(3);
        for scale in [0.0, 1.0, -0.5, 7.5] {
            let guided = Guided::new(memories(1), memories(2), scale).unwrap();
            let of = |a: Array2<f64>, b: Array2<f64>| &a + &((&b - &a) * scale);
            let each = |i: u64| memories(i).score(x.view(), &levels).unwrap();
            let products = |i: u64| memories(i).vjp(x.view(), &levels, v.view()).unwrap();
            let found = guided.score(x.view(), &levels).unwrap();
            let product = guided.vjp(x.view(), &levels, v.view()).unwrap();
            let trace = guided.divergence(x.view(), &levels).unwrap();
            let (one, other) = (memories(1), memories(2));
            let traces = [one, other].map(|s| s.divergence(x.view(), &levels).unwrap());
            let due = &traces[0] + &((&traces[1] - &traces[0]) * scale);
            for (found, due) in [(found, of(each(1), each(2))), (product, of(products(1), products(2)))] {
                let most = due.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
                assert!((&found - &due).iter().all(|d| d.abs() < 1e-12 * most), "{scale}");
            }
            assert!((&trace - &due).iter().zip(&due).all(|(d, v)| d.abs() < 1e-12 * v.abs().max(1.0)));
        }
        assert!(Guided::new(memories(1), memories(2), f64::NAN).is_err());
    }

    #[test]
    fn hutchinson_agrees_within_its_standard_error() {
        let rows = cloud(20, 12);
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let (x, levels) = places(12);
        let exact = score.divergence(x.view(), &levels).unwrap();
        for probe in [Probe::Rademacher, Probe::Gaussian] {
            let probes = 400;
            let mut streams = Streams::new(1, "probes", 0..levels.len());
            let drawn: Vec<_> = (0..probes).map(|_| probe.draw(&mut streams, 12)).collect();
            let terms = hutchinson(&score, x.view(), &levels, &drawn).unwrap();
            let mean = terms.mean_axis(ndarray::Axis(1)).unwrap();
            for i in 0..levels.len() {
                let error = terms.row(i).std(1.0) / (probes as f64).sqrt();
                // Twelve rows and two kinds: four standard errors are passed once in 600 such tests. The
                // floor is rounding, for levels whose J is nearly a multiple of I.
                assert!((mean[i] - exact[i]).abs() < 4.0 * error + 1e-9 * exact[i].abs(), "{probe:?} {i}");
            }
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        let rows = cloud(3, 2);
        let empirical = Empirical::new(Memories::new(rows.clone()).unwrap());
        let gaussian = Gaussian::new(array![0.0, 0.0], array![1.0, 1.0]).unwrap();
        let (noisy, clean) = (Ve::default().level(0.1).unwrap(), Ve::default().level(0.0).unwrap());
        let scores: [&dyn Score; 3] = [&empirical, &Ring, &gaussian];
        for score in scores {
            let x = array![[0.1, 0.2]];
            let shape = |e| matches!(e, ScoreError::Op(OpError::Shape { .. }));
            assert!(shape(score.score(x.view(), &[noisy, noisy]).unwrap_err()));
            assert!(shape(score.score(array![[0.1]].view(), &[noisy]).unwrap_err()));
            assert!(shape(score.vjp(x.view(), &[noisy], array![[1.0]].view()).unwrap_err()));
            assert!(matches!(score.score(x.view(), &[clean]).unwrap_err(), ScoreError::Clean { row: 0, .. }));
            for bad in [array![[0.1, f64::NAN]], array![[0.1, f64::INFINITY]]] {
                let not_finite = |e| matches!(e, ScoreError::Op(OpError::NotFinite { column: 1, .. }));
                assert!(not_finite(score.score(bad.view(), &[noisy]).unwrap_err()));
                assert!(not_finite(score.divergence(bad.view(), &[noisy]).unwrap_err()));
            }
            let none = Array2::zeros((0, 2));
            assert_eq!(score.score(none.view(), &[]).unwrap().dim(), (0, 2));
        }
        assert!(Gaussian::new(array![0.0], array![-1.0]).is_err());
        assert!(Gaussian::new(array![0.0], array![1.0, 1.0]).is_err());
        assert!(Gaussian::new(array![], array![]).is_err());
    }
}
