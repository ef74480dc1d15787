//! Profiles: how much of everything is computed. A profile is data, never a branch in an analysis.

use std::collections::BTreeMap;
use std::env;

use serde::Deserialize;

use crate::analyse::basin::BasinSettings;
use crate::analyse::curvature::CurvatureSettings;
use crate::analyse::load::LoadSettings;
use crate::analyse::potential::PotentialSettings;
use crate::analyse::toy::ToySettings;
use crate::analyse::toy_trained::TrainedSettings;
use crate::analyse::transition::TransitionSettings;
use crate::net::Arch;
use crate::ops::DeviceChoice;
use crate::train::EmaSettings;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no profile of that name.
    #[error("profile: {name:?} is unknown, expected smoke, desk or paper")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Its file does not parse.
    #[error("profile {name}: {source}")]
    Parse {
        /// The name.
        name: &'static str,
        /// Where and why.
        source: toml::de::Error,
    },
}

/// The settings of every analysis.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where operations run that have kernels there; results are recorded with the device that was used,
    /// and are no others for it.
    #[serde(default)]
    pub device: DeviceChoice,
    /// The toy model's landscapes.
    pub toy: ToySettings,
    /// The trained half of Fig. 2.
    pub toy_trained: TrainedSettings,
    /// DenseAM retrieval under load.
    pub load: LoadSettings,
    /// The transition of trained networks.
    pub transition: TransitionSettings,
    /// The landscape of networks of the sweeps.
    pub landscape: LandscapeSettings,
    /// What `mem2gen train` does where nothing else is said, by the name of the data set; "toy" for the toy model.
    pub train: BTreeMap<String, TrainDefaults>,
}

/// Whose landscape is measured, and how.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandscapeSettings {
    /// The networks.
    pub networks: Vec<LandscapeNetwork>,
    /// Images of a class, and training images, at most. Which ones is a seeded draw.
    pub most: usize,
    /// Sizes K whose spectra are shown class by class.
    pub spectra: Vec<usize>,
    /// The size K whose potential is shown along the arcs.
    pub arcs: usize,
    /// Draws of noise, to see at which training images they end.
    pub draws: usize,
    /// Alg. 1.
    #[serde(default)]
    pub basin: BasinSettings,
    /// Algs. 2 and 3.
    #[serde(default)]
    pub curvature: CurvatureSettings,
    /// Eqs. 43 to 48.
    #[serde(default)]
    pub potential: PotentialSettings,
}

/// One network of one sweep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandscapeNetwork {
    /// The plan of the sweep, by name.
    pub plan: String,
    /// Data set of the plan.
    pub dataset: String,
    /// Network of the plan.
    pub network: String,
    /// Sizes K of the plan.
    pub sizes: Vec<usize>,
}

/// Settings of a training run on one data set; the rest of [`crate::train::TrainSettings`] is the same in all profiles.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainDefaults {
    /// Height and width of images.
    #[serde(default)]
    pub size: usize,
    /// The network.
    pub arch: Arch,
    /// Steps.
    pub steps: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: bool,
    /// Learning rate.
    pub learning_rate: f64,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// Steps from one row of metrics to the next.
    pub log_every: u64,
}

/// The profiles that come with the crate: name and TOML text.
pub const PROFILES: [(&str, &str); 3] = [
    ("smoke", include_str!("../data/profiles/smoke.toml")),
    ("desk", include_str!("../data/profiles/desk.toml")),
    ("paper", include_str!("../data/profiles/paper.toml")),
];

impl Profile {
    /// The profile called `name`.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`]; [`ProfileError::Parse`] for a damaged file.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let (name, text) = PROFILES
            .into_iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| ProfileError::Unknown { name: name.into() })?;
        toml::from_str(text).map_err(|source| ProfileError::Parse { name, source })
    }

    /// The name in `MEM2GEN_PROFILE`, or "desk".
    pub fn name_from_env() -> String {
        env::var("MEM2GEN_PROFILE").unwrap_or_else(|_| "desk".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::find;
    use crate::net::Shape;
    use crate::process::{Prediction, VpSettings};
    use crate::train::{AdamSettings, DataSettings, ProcessSettings, TrainSettings, VeTraining};

    #[test]
    fn every_profile_parses_and_passes_its_checks() {
        for (name, _) in PROFILES {
            let profile = Profile::named(name).unwrap();
            profile.toy.betas().unwrap();
            profile.load.check().unwrap();
            profile.toy_trained.check().unwrap();
            profile.landscape.basin.check(Some(0.1)).unwrap();
            profile.landscape.curvature.check().unwrap();
            profile.landscape.potential.check().unwrap();
            for (dataset, d) in profile.train {
                let (data, input, process) = match dataset.as_str() {
                    "toy" => (
                        DataSettings::Toy { k: 9 },
                        Shape::vector(2),
                        ProcessSettings::Ve(VeTraining::default()),
                    ),
                    _ => {
                        let shape = find(&dataset).unwrap().shape;
                        assert_eq!(shape.height % d.size, 0, "{name} {dataset}");
                        (
                            DataSettings::Images { dataset, size: d.size, k: 9 },
                            Shape::image(d.size, d.size, shape.channels),
                            ProcessSettings::Vp(VpSettings::default()),
                        )
                    }
                };
                let adam = AdamSettings { learning_rate: d.learning_rate, ..AdamSettings::default() };
                let settings = TrainSettings {
                    data,
                    arch: d.arch,
                    process,
                    prediction: Prediction::Epsilon,
                    steps: d.steps,
                    batch: d.batch,
                    repeat: d.repeat,
                    adam,
                    ema: d.ema,
                    seed: 1,
                    checkpoint_every: d.checkpoint_every,
                    log_every: d.log_every,
                };
                settings.check(input).unwrap();
            }
        }
        assert!(matches!(Profile::named("dusk"), Err(ProfileError::Unknown { .. })));
    }
}
