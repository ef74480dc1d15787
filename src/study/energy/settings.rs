use serde::{Deserialize, Serialize};

use super::NAME;
use crate::random::{SEED, Stream};
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Settings of relative energies, also their options on the command line: table `energy` of a profile. The defaults are
/// the paper's where it states any.
///
/// ```
/// use mem2gen::study::energy::PotentialSettings;
///
/// let params = PotentialSettings { references: 2, ..PotentialSettings::default() }.check()?;
/// assert_eq!(params.references(128).len(), 2);
/// assert!(PotentialSettings { points: 1, ..PotentialSettings::default() }.check().is_err());
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct PotentialSettings {
    /// Noise level of the process, an index of DDPM; 0 in the paper
    #[arg(long, value_name = "T", default_value_t = PotentialSettings::default().t)]
    pub t: usize,
    /// Number of points of an arc, including both ends; 20 in the paper's code
    #[arg(long, default_value_t = PotentialSettings::default().points)]
    pub points: usize,
    /// Values of the paper's code, with its two errors: a noise variance of 1 - prod beta instead of 1 - prod (1 - beta),
    /// which at t = 0 makes the score a hundred times too small, and a sum that counts both ends of an arc twice
    #[arg(long)]
    pub legacy: bool,
    /// Estimated error of each arc, in the units of u, up to which intervals are halved; without it the points are
    /// fixed, as in the paper
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    pub tolerance: Option<f64>,
    /// Number of training images that are references, drawn with the seed, at most all; the figures of the paper take one
    /// each
    #[arg(long, default_value_t = PotentialSettings::default().references)]
    pub references: usize,
    /// Number of images of each class, at most: the first ones; 512 in the paper.
    #[arg(skip = PotentialSettings::default().max)]
    pub max: usize,
    /// Number of training images that are measured, at most: the first ones; 2048 in the paper's code
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().training)]
    pub training: usize,
    /// Number of closed circuits for each class and reference
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().loops)]
    pub loops: usize,
    /// Number of points of each arc of a circuit, odd; a tolerance adds more
    #[arg(long, value_name = "POINTS", default_value_t = PotentialSettings::default().loop_points)]
    pub loop_points: usize,
    /// Number of images below which a class is marked
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().least)]
    pub least: usize,
    /// Number of bootstrap resamples. This project's own.
    #[arg(skip = PotentialSettings::default().resamples)]
    pub resamples: usize,
    /// Seed of the references and of the bootstrap
    #[arg(long, default_value_t = PotentialSettings::default().seed)]
    pub seed: u64,
}

impl Default for PotentialSettings {
    fn default() -> Self {
        Self {
            t: 0,
            points: 20,
            legacy: false,
            tolerance: None,
            references: 1,
            max: 512,
            training: 2048,
            loops: 16,
            loop_points: 201,
            least: 16,
            resamples: 1000,
            seed: SEED,
        }
    }
}

/// Checked [`PotentialSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct PotentialParams(PotentialSettings);

impl PotentialSettings {
    /// Checks all settings except `t`, which depends on the process.
    ///
    /// # Errors
    /// [`StudyError::Setting`] with the first setting out of its range.
    pub fn check(self) -> Result<PotentialParams, StudyError> {
        let refused = |setting: &'static str, value: String, need: &str| {
            Err(SettingError::new(NAME, setting, value, need.to_owned()).into())
        };
        for (setting, value, least) in [
            ("points", self.points, 2),
            ("references", self.references, 1),
            ("max", self.max, 1),
            ("training", self.training, 1),
            ("resamples", self.resamples, 1),
        ] {
            if value < least {
                return refused(setting, value.to_string(), &format!("at least {least}"));
            }
        }
        if self.loop_points < 3 || self.loop_points.is_multiple_of(2) {
            return refused("loop_points", self.loop_points.to_string(), "an odd number, at least 3");
        }
        for (setting, count) in
            [("points", self.points), ("loop_points", self.loop_points), ("resamples", self.resamples)]
        {
            // Two numbers at each point.
            SettingError::check_room(NAME, setting, count, 16)?;
        }
        match self.tolerance {
            Some(e) if !(e > 0.0 && e.is_finite()) => {
                refused("tolerance", e.to_string(), "a finite number above 0")
            }
            Some(e) if self.legacy => {
                refused("tolerance", e.to_string(), "no tolerance together with legacy")
            }
            _ => Ok(PotentialParams(self)),
        }
    }
}

impl PotentialParams {
    /// The settings that were checked.
    pub fn settings(&self) -> &PotentialSettings {
        &self.0
    }

    /// Indices of the references among `k` training images, in the order of the draw.
    pub fn references(&self, k: usize) -> Vec<usize> {
        let mut order = Stream::new(self.0.seed, "potential: references").permutation(k);
        order.truncate(self.0.references);
        order
    }

    /// Steps of progress of [`analyse`](super::analyse), which are arcs, for `k` training images and groups of these
    /// sizes.
    pub fn work(&self, k: usize, groups: &[usize]) -> u64 {
        let targets = |n: &usize| *n.min(&self.0.max);
        let circuits = |n: usize| if n < 2 { 0 } else { 3 * n.min(self.0.loops) };
        let training = k.min(self.0.training);
        let each: usize = groups.iter().map(targets).chain([training]).map(|n| n + circuits(n)).sum();
        (self.0.references.min(k) * each) as u64
    }
}
