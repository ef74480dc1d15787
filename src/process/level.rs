use serde::{Deserialize, Serialize};

use super::ProcessError;
use crate::setting::SettingError;

/// A noise level: p(x_t | x_0) = N(alpha x_0, sigma^2 I) at time t.
///
/// ```
/// use mem2gen::process::{Level, Prediction};
///
/// let level = Level::new(0.3, 0.8, 0.6)?;
/// // Clean data 0.5 with noise -1.
/// let x = level.perturb(0.5, -1.0);
/// let score = level.convert(x, -1.0, Prediction::Epsilon, Prediction::Score);
/// assert!((x + 0.2).abs() < 1e-12 && (score - 1.0 / 0.6).abs() < 1e-12);
/// # Ok::<(), mem2gen::process::ProcessError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    t: f64,
    alpha: f64,
    sigma: f64,
}

/// Quantity that a network predicts. Each determines the others, see [`Level::convert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// grad log p_t(x).
    Score,
    /// The noise: -sigma score.
    Epsilon,
    /// The clean data: (x + sigma^2 score) / alpha.
    X0,
    /// The velocity: alpha epsilon - sigma x0.
    V,
}

/// Mean and variance of p(x_s | x_t, x_0) at a lower level s:
/// N(`x0` x_0 + `x` x_t, `variance` I).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// Weight of the clean data.
    pub x0: f64,
    /// Weight of the noisy data.
    pub x: f64,
    /// Variance; that of DDPM's "fixed_small".
    pub variance: f64,
}

impl Level {
    /// A level from time, alpha and sigma.
    ///
    /// # Errors
    /// [`ProcessError::Setting`] for a t that is not finite, an alpha that is not positive and finite, or a
    /// sigma that is negative or not finite.
    pub fn new(t: f64, alpha: f64, sigma: f64) -> Result<Self, ProcessError> {
        let refused = |setting, value: f64, need| SettingError::new("level", setting, value, need).into();
        if !t.is_finite() {
            return Err(refused("t", t, "a finite number"));
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(refused("alpha", alpha, "a finite number above 0"));
        }
        if !(sigma >= 0.0 && sigma.is_finite()) {
            return Err(refused("sigma", sigma, "a finite number of at least 0"));
        }
        Ok(Self { t, alpha, sigma })
    }

    /// A level of a process, whose settings are valid.
    pub(super) fn unchecked(t: f64, alpha: f64, sigma: f64) -> Self {
        Self { t, alpha, sigma }
    }

    /// Time, in the units of the process.
    pub fn t(self) -> f64 {
        self.t
    }

    /// Factor of the clean data.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// Standard deviation of the noise.
    pub fn sigma(self) -> f64 {
        self.sigma
    }

    /// Whether there is no noise.
    pub fn is_clean(self) -> bool {
        self.sigma == 0.0
    }

    /// beta = alpha^2 / (2 sigma^2): the inverse temperature of Eq. 6 for x/alpha and the unscaled memories. For VE it is
    /// 1/(2 sigma^2 t). Infinite for clean data.
    pub fn beta(self) -> f64 {
        let ratio = self.alpha / self.sigma;
        0.5 * ratio * ratio
    }

    /// E of Eq. 25 up to a constant: -(1/beta) log p_t(x), which for VE is -2 sigma^2 t log p_t(x). For K
    /// memories in N dimensions E^AM is this minus (1/beta) (log K + (N/2) log(2 pi sigma^2)), at x/alpha.
    pub fn energy(self, log_density: f64) -> f64 {
        -log_density / self.beta()
    }

    /// x_t = alpha x0 + sigma z, with z standard normal.
    pub fn perturb(self, x0: f64, z: f64) -> f64 {
        self.alpha * x0 + self.sigma * z
    }

    /// Converts one coordinate of a prediction at x to another form. Division by a small sigma or alpha amplifies
    /// rounding errors, which no formula avoids.
    #[inline]
    pub fn convert(self, x: f64, value: f64, from: Prediction, to: Prediction) -> f64 {
        if from == to {
            return value;
        }
        let (a, s) = (self.alpha, self.sigma);
        let (epsilon, x0) = match from {
            Prediction::Score => (-s * value, (x + s * s * value) / a),
            Prediction::Epsilon => (value, (x - s * value) / a),
            Prediction::X0 => ((x - a * value) / s, value),
            // x = a x0 + s epsilon and v = a epsilon - s x0, solved; for VP a^2 + s^2 = 1.
            Prediction::V => {
                let square = a * a + s * s;
                ((s * x + a * value) / square, (a * x - s * value) / square)
            }
        };
        match to {
            Prediction::Score => -epsilon / s,
            Prediction::Epsilon => epsilon,
            Prediction::X0 => x0,
            Prediction::V => a * epsilon - s * x0,
        }
    }

    /// p(x_s | x_t, x_0) at a lower level s, this level being t. For clean data as s the result is x_0.
    pub fn posterior(self, s: Self) -> Posterior {
        let ratio = self.alpha / s.alpha;
        // Variance of the kernel from s to t; 1 - alpha_bar_t/alpha_bar_s in DDPM.
        let beta = (self.sigma * self.sigma - ratio * ratio * s.sigma * s.sigma).max(0.0);
        let (t2, s2) = (self.sigma * self.sigma, s.sigma * s.sigma);
        Posterior { x0: s.alpha * beta / t2, x: ratio * s2 / t2, variance: s2 * beta / t2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Ve, Vp};

    #[test]
    fn predictions_go_round() {
        use Prediction::{Epsilon, Score, V, X0};
        let ve = Ve::default();
        let vp = Vp::default();
        for level in [
            ve.level(0.3).unwrap(),
            ve.level(1e-3).unwrap(),
            vp.level(15.0).unwrap(),
            vp.level(700.0).unwrap(),
        ] {
            let (x0, z) = (0.7, -1.3);
            let x = level.perturb(x0, z);
            let (a, s) = (level.alpha(), level.sigma());
            // The same prediction in four forms.
            let truth = [(Score, -z / s), (Epsilon, z), (X0, x0), (V, a * z - s * x0)];
            for (from, value) in truth {
                for (to, expected) in truth {
                    let got = level.convert(x, value, from, to);
                    // Division by sigma and alpha amplifies rounding.
                    let tolerance = 1e-14 / (s * s * a * a);
                    assert!(
                        (got - expected).abs() < tolerance,
                        "{from:?} {to:?} {level:?}: {got} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_posterior_is_that_of_the_joint_gaussian() {
        // Bayes by hand: precision 1/s^2 of the kernel at s, ratio^2/beta of the step from s to t.
        let vp = Vp::default();
        for (t, s) in [(999.0, 998.0), (500.0, 250.0), (1.0, 0.0)] {
            let (t, s) = (vp.level(t).unwrap(), vp.level(s).unwrap());
            let ratio = t.alpha() / s.alpha();
            let beta = t.sigma().powi(2) - (ratio * s.sigma()).powi(2);
            let precision = 1.0 / s.sigma().powi(2) + ratio * ratio / beta;
            let got = t.posterior(s);
            assert!((got.variance * precision - 1.0).abs() < 1e-9);
            assert!((got.x0 - s.alpha() / s.sigma().powi(2) / precision).abs() < 1e-9);
            assert!((got.x - ratio / beta / precision).abs() < 1e-9);
        }
        let to_clean = vp.level(0.0).unwrap().posterior(vp.level(-1.0).unwrap());
        assert_eq!(to_clean, Posterior { x0: 1.0, x: 0.0, variance: 0.0 });
    }

    #[test]
    fn bad_levels_are_refused() {
        assert!(Level::new(0.0, 1.0, 0.0).unwrap().is_clean());
        for (t, alpha, sigma) in
            [(f64::NAN, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, -1.0), (0.0, f64::INFINITY, 1.0)]
        {
            assert!(matches!(Level::new(t, alpha, sigma), Err(ProcessError::Setting(_))));
        }
    }
}
