use serde::{Deserialize, Serialize};

use super::NAME;
use crate::random::SEED;
use crate::score::MOST_GUIDANCE;
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Settings of the study, also its options on the command line: table `prompts` of a profile. The paper states none of
/// them; the defaults are those of the detectors that it cites.
///
/// ```
/// use mem2gen::study::prompts::PromptSettings;
///
/// let settings = PromptSettings::default();
/// assert_eq!((settings.seeds, settings.steps, settings.guidance, settings.rows), (4, 50, 7.5, 512));
/// assert!(PromptSettings { seeds: 0, ..settings }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSettings {
    /// Number of samples of each prompt, from different starting points
    #[arg(long, default_value_t = PromptSettings::default().seeds)]
    pub seeds: usize,
    /// Scale g of classifier-free guidance in sampling: s + g (s_prompt - s).
    #[arg(skip = PromptSettings::default().guidance)]
    pub guidance: f64,
    /// Number of DDIM steps
    #[arg(long, default_value_t = PromptSettings::default().steps)]
    pub steps: usize,
    /// Number of rows of Alg. 3: random directions at which the score is taken
    #[arg(long, default_value_t = PromptSettings::default().rows)]
    pub rows: usize,
    /// Number of samples of each prompt at which also Alg. 2 and the exact Jacobian are taken. In D dimensions Alg. 2 takes
    /// 2 D passes of the network for a sample, and the exact one D products with the transposed Jacobian
    #[arg(long, value_name = "N", default_value_t = PromptSettings::default().exact)]
    pub exact: usize,
    /// Time of the process at which the Jacobian is taken
    #[arg(long, value_name = "T", allow_hyphen_values = true, default_value_t = PromptSettings::default().t)]
    pub t: f64,
    /// Scale of guidance of the score whose Jacobian is taken; 1 is the score with the prompt itself
    #[arg(long, value_name = "G", allow_hyphen_values = true, default_value_t = PromptSettings::default().spectrum_guidance)]
    pub spectrum_guidance: f64,
    /// Seed of the starting points and the directions
    #[arg(long, default_value_t = PromptSettings::default().seed)]
    pub seed: u64,
}

impl Default for PromptSettings {
    fn default() -> Self {
        Self {
            seeds: 4,
            guidance: 7.5,
            steps: 50,
            rows: 512,
            exact: 0,
            t: 15.0,
            spectrum_guidance: 1.0,
            seed: SEED,
        }
    }
}

/// Checked [`PromptSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct PromptParams(PromptSettings);

impl PromptSettings {
    /// Checks all settings except those that depend on the process: `steps` and `t`.
    ///
    /// # Errors
    /// [`StudyError::Setting`] with the first setting out of its range.
    pub fn check(self) -> Result<PromptParams, StudyError> {
        let refused = |setting: &'static str, value: String, need: &'static str| {
            Err(SettingError::new(NAME, setting, value, need).into())
        };
        if !(1..=1 << 20).contains(&self.seeds) {
            return refused("seeds", self.seeds.to_string(), "1 to 1048576");
        }
        // The Gram matrix of the rows has their square of elements.
        if !(2..=1 << 14).contains(&self.rows) {
            return refused("rows", self.rows.to_string(), "2 to 16384");
        }
        if self.exact > self.seeds {
            let need = format!("at most {}, the number of samples of a prompt", self.seeds);
            return Err(SettingError::new(NAME, "exact", self.exact.to_string(), need).into());
        }
        for (setting, value) in [("guidance", self.guidance), ("spectrum_guidance", self.spectrum_guidance)] {
            if !(-MOST_GUIDANCE..=MOST_GUIDANCE).contains(&value) {
                return refused(setting, value.to_string(), "a number from -1000 to 1000");
            }
        }
        Ok(PromptParams(self))
    }
}

impl PromptParams {
    /// The settings that were checked.
    pub fn settings(&self) -> &PromptSettings {
        &self.0
    }
}
