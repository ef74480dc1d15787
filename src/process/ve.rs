use serde::{Deserialize, Serialize};

use super::{Coefficients, Level, Process, ProcessError};
use crate::setting::SettingError;

/// Settings of [`Ve`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VeSettings {
    /// sigma of dx = sigma dw; the paper's toy model has 1.
    pub sigma: f64,
    /// T, the last time; the paper's toy model has 1.
    pub horizon: f64,
}

impl Default for VeSettings {
    fn default() -> Self {
        Self { sigma: 1.0, horizon: 1.0 }
    }
}

impl VeSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`ProcessError::Setting`] with the first setting that is not positive and finite.
    pub fn check(self) -> Result<Ve, ProcessError> {
        let variance = self.sigma * self.sigma * self.horizon;
        for (setting, value) in
            [("sigma", self.sigma), ("horizon", self.horizon), ("sigma^2 horizon", variance)]
        {
            if !(value > 0.0 && value.is_finite()) {
                let need = "a finite number above 0";
                return Err(SettingError::new(Ve::NAME, setting, value, need).into());
            }
        }
        Ok(Ve(self))
    }
}

/// The variance-exploding process dx = sigma dw, from t = 0 to T: p(x_t | x_0) = N(x_0, sigma^2 t I).
///
/// ```
/// use mem2gen::process::{Process, Ve};
///
/// let ve = Ve::default();
/// let level = ve.level(0.25)?;
/// assert_eq!((level.alpha(), level.sigma(), level.beta()), (1.0, 0.5, 2.0));
/// # Ok::<(), mem2gen::process::ProcessError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ve(VeSettings);

impl Ve {
    const NAME: &str = "VE";

    fn check(&self, t: f64) -> Result<(), ProcessError> {
        if (0.0..=self.0.horizon).contains(&t) {
            return Ok(());
        }
        Err(ProcessError::Time { process: Self::NAME, t, clean: 0.0, horizon: self.0.horizon })
    }
}

impl Process for Ve {
    fn level(&self, t: f64) -> Result<Level, ProcessError> {
        self.check(t)?;
        Ok(Level::unchecked(t, 1.0, self.0.sigma * t.sqrt()))
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients, ProcessError> {
        self.check(t)?;
        Ok(Coefficients { drift: 0.0, diffusion: self.0.sigma })
    }

    fn clean(&self) -> f64 {
        0.0
    }

    fn horizon(&self) -> f64 {
        self.0.horizon
    }

    fn prior_scale(&self) -> f64 {
        self.0.sigma * self.0.horizon.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::beta_from_time;

    #[test]
    fn beta_is_that_of_the_energy() {
        let ve = VeSettings { sigma: 1.7, horizon: 2.0 }.check().unwrap();
        for t in [1e-5, 0.05, 0.15, 1.0, 2.0] {
            let (got, expected) = (ve.level(t).unwrap().beta(), beta_from_time(1.7, t).unwrap());
            assert!((got / expected - 1.0).abs() < 1e-14, "{t}");
        }
        let level = ve.level(0.5).unwrap();
        // Eq. 25: -2 sigma^2 t log p.
        assert!((level.energy(-3.0) - 2.0 * 1.7 * 1.7 * 0.5 * 3.0).abs() < 1e-14);
        assert!((ve.prior_scale() - ve.level(2.0).unwrap().sigma()).abs() < 1e-15);
        assert!(ve.level(0.0).unwrap().is_clean());
    }

    #[test]
    fn bad_settings_and_times_are_refused() {
        for (sigma, horizon) in [(0.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0), (1e200, 1.0)] {
            assert!(matches!(VeSettings { sigma, horizon }.check(), Err(ProcessError::Setting(_))));
        }
        for t in [-1e-9, 1.1, f64::NAN] {
            assert!(matches!(Ve::default().level(t), Err(ProcessError::Time { .. })));
            assert!(Ve::default().coefficients(t).is_err());
        }
    }
}
