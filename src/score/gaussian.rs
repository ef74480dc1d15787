use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView2};

use super::{Density, Score, ScoreError, check, check_rows};
use crate::ops::OpError;
use crate::process::Level;

/// Normal data with independent coordinates. p_t is then normal as well, which gives closed forms to test samplers and
/// likelihoods with.
///
/// ```
/// use mem2gen::process::{Process, Ve};
/// use mem2gen::score::{Gaussian, Score};
/// use ndarray::array;
///
/// let score = Gaussian::new(array![1.0], array![0.5])?;
/// // At t = 0.5 the variance is 1, so the score at 3 is -(3 - 1) / 1.
/// let at = score.score(array![[3.0]].view(), &[Ve::default().level(0.5)?])?;
/// assert!((at[[0, 0]] + 2.0).abs() < 1e-12);
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: Array1<f64>,
    variance: Array1<f64>,
}

impl Gaussian {
    /// The score of a normal distribution with the mean and the variance of each coordinate, both `[N]`. A variance of 0
    /// means a constant coordinate.
    ///
    /// # Errors
    /// [`OpError`] for no coordinates, different lengths, values that are not finite, or a negative variance.
    pub fn new(mean: Array1<f64>, variance: Array1<f64>) -> Result<Self, ScoreError> {
        const NAME: &str = "Gaussian";
        if mean.is_empty() {
            return Err(OpError::Empty { operation: NAME, argument: "mean", found: vec![0] }.into());
        }
        let (means, variances) =
            (mean.view().insert_axis(ndarray::Axis(0)), variance.view().insert_axis(ndarray::Axis(0)));
        check_rows(NAME, "mean", &means, (1, mean.len()))?;
        check_rows(NAME, "variance", &variances, (1, mean.len()))?;
        match variance.iter().find(|v| **v < 0.0) {
            Some(&value) => {
                let need = "a finite number of at least 0";
                Err(OpError::Parameter { operation: NAME, argument: "variance", value, need }.into())
            }
            None => Ok(Self { mean, variance }),
        }
    }

    /// Mean and variance of coordinate k at a level.
    fn at(&self, k: usize, level: Level) -> (f64, f64) {
        let (a, s) = (level.alpha(), level.sigma());
        (a * self.mean[k], a * a * self.variance[k] + s * s)
    }
}

impl Score for Gaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        check("Gaussian score", self.mean.len(), &x, levels)?;
        Ok(Array2::from_shape_fn(x.dim(), |(i, k)| {
            let (mean, variance) = self.at(k, levels[i]);
            (mean - x[[i, k]]) / variance
        }))
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check("Gaussian score", self.mean.len(), &x, levels)?;
        check_rows("Gaussian score", "v", &v, x.dim())?;
        Ok(Array2::from_shape_fn(x.dim(), |(i, k)| -v[[i, k]] / self.at(k, levels[i]).1))
    }
}

impl Density for Gaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn log_density(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        check("Gaussian density", self.mean.len(), &x, levels)?;
        let log = |i: usize, k: usize| {
            let (mean, variance) = self.at(k, levels[i]);
            -0.5 * ((TAU * variance).ln() + (x[[i, k]] - mean).powi(2) / variance)
        };
        Ok((0..x.nrows()).map(|i| (0..x.ncols()).map(|k| log(i, k)).sum()).collect())
    }
}
