//! Profiles: how much of everything is computed. A profile is data, never a branch in an analysis.

use std::env;

use serde::Deserialize;

use crate::analyse::load::LoadSettings;
use crate::analyse::toy::ToySettings;
use crate::ops::DeviceChoice;

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
    /// DenseAM retrieval under load.
    pub load: LoadSettings,
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

    #[test]
    fn every_profile_parses_and_passes_its_checks() {
        for (name, _) in PROFILES {
            let profile = Profile::named(name).unwrap();
            profile.toy.betas().unwrap();
            profile.load.check().unwrap();
        }
        assert!(matches!(Profile::named("dusk"), Err(ProfileError::Unknown { .. })));
    }
}
