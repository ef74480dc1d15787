use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::{Density, Score, ScoreError, check, check_rows};
use crate::ops::{Memories, Want};
use crate::process::Level;

/// The exact score of K memories under a process (Eqs. 3 and 4): (alpha m - x) / sigma^2, m being the mean
/// of the memories under the weights softmax(-||x - alpha xi||^2 / (2 sigma^2)).
///
/// With x/alpha and sigma/alpha in place of x and sigma it is the score of the variance-exploding process, so the memories
/// are prepared once for all levels.
pub struct Empirical {
    memories: Memories<f64>,
}

impl Empirical {
    /// The score of K memories in N dimensions.
    pub fn new(memories: Memories<f64>) -> Self {
        Self { memories }
    }

    /// The memories.
    pub fn memories(&self) -> &Memories<f64> {
        &self.memories
    }

    /// x/alpha, for rows at different levels.
    fn unscaled(x: ArrayView2<'_, f64>, levels: &[Level]) -> Array2<f64> {
        let mut y = x.to_owned();
        for (mut row, level) in y.outer_iter_mut().zip(levels) {
            row /= level.alpha();
        }
        y
    }

    /// Positive weights of the memories at x, and the weighted mean of the memories.
    fn posterior(&self, x: ArrayView1<'_, f64>, level: Level) -> Posterior<'_> {
        let d2: Vec<f64> = self
            .memories
            .rows()
            .outer_iter()
            .map(|row| row.iter().zip(&x).map(|(xi, x)| (x / level.alpha() - xi).powi(2)).sum())
            .collect();
        let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
        let beta = level.beta();
        let mut kept: Vec<(usize, f64)> =
            d2.iter().map(|d| (-beta * (d - least)).exp()).enumerate().filter(|(_, w)| *w > 0.0).collect();
        let sum: f64 = kept.iter().map(|(_, w)| w).sum();
        let mut mean = Array1::zeros(x.len());
        for (i, w) in &mut kept {
            *w /= sum;
            mean.scaled_add(*w, &self.memories.rows().row(*i));
        }
        Posterior { rows: self.memories.rows(), kept, mean }
    }
}

/// The posterior over memories given a noisy point.
struct Posterior<'a> {
    rows: ArrayView2<'a, f64>,
    kept: Vec<(usize, f64)>,
    mean: Array1<f64>,
}

impl Posterior<'_> {
    /// Each weight with xi - m.
    fn centred(&self) -> impl Iterator<Item = (f64, Array1<f64>)> {
        self.kept.iter().map(|&(i, w)| (w, &self.rows.row(i) - &self.mean))
    }
}

impl Score for Empirical {
    fn dim(&self) -> usize {
        self.memories.dim()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        check("empirical score", self.memories.dim(), &x, levels)?;
        let sigmas: Vec<f64> = levels.iter().map(|level| level.sigma() / level.alpha()).collect();
        let mut out = self.memories.score_each(Self::unscaled(x, levels).view(), &sigmas)?;
        for (mut row, level) in out.outer_iter_mut().zip(levels) {
            row /= level.alpha();
        }
        Ok(out)
    }

    /// J = -I/sigma^2 + alpha^2 Cov_w / sigma^4, without the matrix.
    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check("empirical score", self.memories.dim(), &x, levels)?;
        check_rows("empirical score", "v", &v, x.dim())?;
        let mut out = Array2::zeros(x.dim());
        out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut out)| {
            let (level, v) = (levels[i], v.row(i));
            for (w, d) in self.posterior(x.row(i), level).centred() {
                out.scaled_add(w * d.dot(&v), &d);
            }
            let ratio = level.alpha() / level.sigma().powi(2);
            out *= ratio * ratio;
            out.scaled_add(-1.0 / level.sigma().powi(2), &v);
        });
        Ok(out)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        check("empirical score", self.memories.dim(), &x, levels)?;
        let trace = |(i, level): (usize, &Level)| {
            let variance: f64 = self.posterior(x.row(i), *level).centred().map(|(w, d)| w * d.dot(&d)).sum();
            let ratio = level.alpha() / level.sigma().powi(2);
            ratio * ratio * variance - x.ncols() as f64 / level.sigma().powi(2)
        };
        Ok(Array1::from_vec(levels.par_iter().enumerate().map(trace).collect()))
    }
}

impl Density for Empirical {
    fn dim(&self) -> usize {
        self.memories.dim()
    }

    fn log_density(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        check("empirical density", self.memories.dim(), &x, levels)?;
        let betas: Vec<f64> = levels.iter().map(|level| level.beta()).collect();
        let y = Self::unscaled(x, levels);
        let mut out = self.memories.readout_each(y.view(), &betas, Want::ENERGY)?.energy;
        let half = 0.5 * self.memories.dim() as f64;
        for (log, level) in out.iter_mut().zip(levels) {
            let norm = (self.memories.len() as f64).ln() + half * (TAU * level.sigma().powi(2)).ln();
            *log = *log * -level.beta() - norm;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{DenseAm, toy};
    use crate::process::{Process, Ve, Vp};
    use ndarray::{array, s};

    #[test]
    fn the_variance_exploding_score_is_that_of_the_energy() {
        let rows = array![[0.3, 0.8], [-0.4, 0.1], [0.9, -0.7]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let x = array![[0.2, -0.3], [1.4, 0.6]];
        let level = Ve::default().level(0.15).unwrap();
        let am = DenseAm::new(rows.clone(), level.beta()).unwrap();
        let log = score.log_density(x.view(), &[level; 2]).unwrap();
        let got = score.score(x.view(), &[level; 2]).unwrap();
        for i in 0..2 {
            let expected = am.score(x.row(i)).unwrap();
            assert!((&got.row(i) - &expected).iter().all(|d| d.abs() < 1e-12));
            // Eq. 25 with its constant, as `Level::energy` states it.
            let constant = (3.0f64.ln() + (TAU * 0.15).ln()) / level.beta();
            assert!((level.energy(log[i]) - constant - am.energy(x.row(i)).unwrap()).abs() < 1e-13);
        }
    }

    #[test]
    fn the_variance_preserving_score_is_the_direct_sum() {
        let rows = array![[0.3, 0.8], [-0.4, 0.1], [0.9, -0.7]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let x = array![[0.2, -0.3]];
        for t in [0.0, 150.0, 700.0, 999.0] {
            let level = Vp::default().level(t).unwrap();
            let (a, s2) = (level.alpha(), level.sigma().powi(2));
            let logits: Vec<f64> = rows
                .outer_iter()
                .map(|r| -(&x.row(0) - &(&r * a)).mapv(|d| d * d).sum() / (2.0 * s2))
                .collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let w: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
            let sum: f64 = w.iter().sum();
            let m = rows.outer_iter().zip(&w).fold(Array1::<f64>::zeros(2), |m, (r, w)| m + &r * (w / sum));
            let expected = (&m * a - x.row(0)) / s2;
            let got = score.score(x.view(), &[level]).unwrap();
            assert!((&got.row(0) - &expected).iter().all(|d| d.abs() < 1e-11 / s2), "{t}");
            let log = top + (sum / 3.0).ln() - (TAU * s2).ln();
            assert!(
                (score.log_density(x.view(), &[level]).unwrap()[0] - log).abs() < 1e-10 * (1.0 + log.abs())
            );
        }
    }

    #[test]
    fn rows_with_their_own_level_give_the_results_of_single_rows() {
        let rows = toy::points(9).unwrap();
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let vp = Vp::default();
        let levels: Vec<Level> =
            [3.0, 3.0, 500.0, 3.0, 900.0].iter().map(|&t| vp.level(t).unwrap()).collect();
        let x = array![[0.1, 0.2], [0.9, 0.1], [0.1, 0.2], [-1.0, 1.0], [2.0, 0.0]];
        let all = score.score(x.view(), &levels).unwrap();
        let logs = score.log_density(x.view(), &levels).unwrap();
        for (i, level) in levels.iter().enumerate() {
            let one = x.slice(s![i..i + 1, ..]);
            assert_eq!(score.score(one, &[*level]).unwrap().row(0), all.row(i));
            assert_eq!(score.log_density(one, &[*level]).unwrap()[0], logs[i]);
        }
    }
}
