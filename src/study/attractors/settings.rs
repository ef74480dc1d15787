use serde::{Deserialize, Serialize};

use super::NAME;
use crate::random::SEED;
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Settings of the census, also its options on the command line: table `attractors` of a profile. All are this project's
/// own.
///
/// ```
/// use mem2gen::study::attractors::CensusSettings;
///
/// let settings = CensusSettings::default();
/// assert_eq!((settings.t.clone(), settings.starts), (vec![15.0], 1000));
/// assert_eq!(settings.clone().check(Some(0.2))?.delta(), 0.2);
/// assert!(settings.check(None).is_err());
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct CensusSettings {
    /// Times of the process at which the map is iterated
    #[arg(long, value_name = "T", value_delimiter = ',', allow_hyphen_values = true, default_values_t = CensusSettings::default().t)]
    pub t: Vec<f64>,
    /// Number of starts from noise, N(0, I)
    #[arg(long, value_name = "n", default_value_t = CensusSettings::default().starts)]
    pub starts: usize,
    /// Most training images that are starts, the first of the training set
    #[arg(long, value_name = "n", default_value_t = CensusSettings::default().training)]
    pub training: usize,
    /// Largest distance to a training image of a memorized attractor [default: delta_m of the samples' labels]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    pub delta: Option<f64>,
    /// Distance at which end states belong to one attractor
    #[arg(long, value_name = "D", allow_hyphen_values = true, default_value_t = CensusSettings::default().merge)]
    pub merge: f64,
    /// Length of a step of the map below which a start has settled
    #[arg(long, value_name = "D", allow_hyphen_values = true, default_value_t = CensusSettings::default().tolerance)]
    pub tolerance: f64,
    /// Number of plain steps of the map before steps are lengthened
    #[arg(long, value_name = "n", default_value_t = CensusSettings::default().plain)]
    pub plain: usize,
    /// Most steps of a start
    #[arg(long, value_name = "n", default_value_t = CensusSettings::default().most_steps)]
    pub most_steps: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = CensusSettings::default().seed)]
    pub seed: u64,
}

impl Default for CensusSettings {
    fn default() -> Self {
        Self {
            t: vec![15.0],
            starts: 1000,
            training: 1024,
            delta: None,
            merge: 0.05,
            tolerance: 1e-5,
            plain: 1000,
            most_steps: 1500,
            seed: SEED,
        }
    }
}

/// Checked [`CensusSettings`] with a value of delta.
#[derive(Debug, Clone, PartialEq)]
pub struct CensusParams {
    settings: CensusSettings,
    delta: f64,
}

impl CensusSettings {
    /// Checks all settings except whether the process has the times. `delta_m` replaces a delta that is not set.
    ///
    /// # Errors
    /// [`StudyError::Setting`] with the first setting out of its range.
    pub fn check(self, delta_m: Option<f64>) -> Result<CensusParams, StudyError> {
        let refused = |setting: &'static str, value: String, need: &'static str| {
            Err(SettingError::new(NAME, setting, value, need).into())
        };
        let Some(delta) = self.delta.or(delta_m) else {
            let need = "a number above 0, because the labels have no delta_m";
            return refused("delta", "not set".into(), need);
        };
        for (setting, value) in [("delta", delta), ("merge", self.merge), ("tolerance", self.tolerance)] {
            if !(value > 0.0 && value.is_finite()) {
                return refused(setting, value.to_string(), "a finite number above 0");
            }
        }
        if self.tolerance >= self.merge {
            return refused("tolerance", self.tolerance.to_string(), "a number below `merge`");
        }
        if self.t.is_empty() {
            return refused("t", "empty".into(), "at least one time");
        }
        if self.starts == 0 {
            return refused("starts", "0".into(), "at least 1");
        }
        if self.most_steps <= self.plain {
            return refused("most_steps", self.most_steps.to_string(), "more than `plain`");
        }
        Ok(CensusParams { settings: self, delta })
    }
}

impl CensusParams {
    /// The settings that were checked.
    pub fn settings(&self) -> &CensusSettings {
        &self.settings
    }

    /// Largest distance to a training image of a memorized attractor.
    pub fn delta(&self) -> f64 {
        self.delta
    }
}
