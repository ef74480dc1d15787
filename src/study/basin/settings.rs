use serde::{Deserialize, Serialize};

use super::NAME;
use crate::process::Vp;
use crate::random::SEED;
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Settings of the search for basins, also its options on the command line. The defaults are those of the paper's code.
///
/// ```
/// use mem2gen::process::Vp;
/// use mem2gen::study::basin::BasinSettings;
///
/// let params = BasinSettings { stride: 300, ..BasinSettings::default() }.check(Some(0.25))?;
/// assert_eq!(params.delta(), 0.25);
/// assert_eq!(params.times(&Vp::default())?, [1, 301, 601, 901]);
/// let refused = BasinSettings { stop: 1.5, ..BasinSettings::default() }.check(Some(0.25));
/// assert!(refused.is_err());
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct BasinSettings {
    /// Distance within which a copy counts as recovered [default: delta_m of the samples' labels]. The paper takes
    /// about delta_m for CIFAR10 and LSUN-CHURCH and states no value for MNIST and FMNIST
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    pub delta: Option<f64>,
    /// Share of the copies that has to be recovered, p of Alg. 1
    #[arg(long, value_name = "P", allow_hyphen_values = true, default_value_t = BasinSettings::default().stop)]
    pub stop: f64,
    /// Number of noisy copies of an image at each noise level, n of Alg. 1
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().perturbations)]
    pub perturbations: usize,
    /// Number of DDIM steps from a noise level to clean data, at most
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().steps)]
    pub steps: usize,
    /// Stride between tested noise levels
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().stride)]
    pub stride: usize,
    /// Noise level at which the search starts, and t_c of an image that is not recovered from it
    #[arg(long, value_name = "T", default_value_t = BasinSettings::default().first)]
    pub first: usize,
    /// Whether DDIM clamps the predicted clean image to [-1, 1] in each step.
    #[arg(skip = BasinSettings::default().clamp)]
    pub clamp: bool,
    /// Classes with fewer images are marked. This project's own; the paper's cut is not known.
    #[arg(skip = BasinSettings::default().least)]
    pub least: usize,
    /// Number of bootstrap resamples for the intervals of means. This project's own.
    #[arg(skip = BasinSettings::default().resamples)]
    pub resamples: usize,
    /// Seed of the noise and of the bootstrap
    #[arg(long, default_value_t = BasinSettings::default().seed)]
    pub seed: u64,
}

impl Default for BasinSettings {
    fn default() -> Self {
        Self {
            delta: None,
            stop: 0.9,
            perturbations: 10,
            steps: 20,
            stride: 25,
            first: 1,
            clamp: true,
            least: 10,
            resamples: 1000,
            seed: SEED,
        }
    }
}

/// Checked [`BasinSettings`] with a value of delta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BasinParams {
    settings: BasinSettings,
    delta: f64,
}

impl BasinSettings {
    /// Checks all settings. `delta_m` replaces a delta that is not set.
    ///
    /// # Errors
    /// [`StudyError::Setting`] with the first setting out of its range.
    pub fn check(self, delta_m: Option<f64>) -> Result<BasinParams, StudyError> {
        let refused = |setting: &'static str, value: String, need: &'static str| {
            Err(SettingError::new(NAME, setting, value, need).into())
        };
        let Some(delta) = self.delta.or(delta_m) else {
            return refused(
                "delta",
                "not set".into(),
                "a number above 0, because the labels have no delta_m",
            );
        };
        if !(delta > 0.0 && delta.is_finite()) {
            return refused("delta", delta.to_string(), "a finite number above 0");
        }
        if !(self.stop > 0.0 && self.stop <= 1.0) {
            return refused("stop", self.stop.to_string(), "a number above 0 and at most 1");
        }
        for (setting, value) in [
            ("perturbations", self.perturbations),
            ("steps", self.steps),
            ("stride", self.stride),
            ("first", self.first),
        ] {
            if value == 0 {
                return refused(setting, value.to_string(), "at least 1");
            }
        }
        Ok(BasinParams { settings: self, delta })
    }
}

impl BasinParams {
    /// The settings that were checked.
    pub fn settings(&self) -> &BasinSettings {
        &self.settings
    }

    /// Distance within which a copy counts as recovered.
    pub fn delta(&self) -> f64 {
        self.delta
    }

    /// The tested noise levels, ascending: first, first + stride, ... up to T - 1.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a first level that the process does not have.
    pub fn times(&self, vp: &Vp) -> Result<Vec<usize>, StudyError> {
        let BasinSettings { first, stride, .. } = self.settings;
        let levels = vp.settings().levels;
        if first >= levels {
            let need = format!("a level of the process, at most {}", levels - 1);
            return Err(SettingError::new(NAME, "first", first, need).into());
        }
        Ok((first..levels).step_by(stride).collect())
    }
}
