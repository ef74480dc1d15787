//! Profiles: the settings of all studies. A profile is data; no study has a branch on its name.

use std::env;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::device::DeviceChoice;

/// An error of a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// An unknown name.
    #[error("profile: {name:?} is unknown, expected smoke, desk or paper")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A file that is not TOML.
    #[error("profile {name}: {source}")]
    Parse {
        /// The name.
        name: &'static str,
        /// Line, column and reason.
        source: toml::de::Error,
    },
    /// A missing table.
    #[error("profile {name}: has no table [{table}]")]
    Missing {
        /// The name.
        name: &'static str,
        /// The table.
        table: &'static str,
    },
    /// A table with an unknown, missing or ill-typed setting.
    #[error("profile {name}: [{table}]: {source}")]
    Settings {
        /// The name.
        name: &'static str,
        /// The table.
        table: &'static str,
        /// The setting and the reason.
        source: toml::de::Error,
    },
}

/// A profile: a table of settings for each study, and the device.
///
/// ```
/// use mem2gen::study::context::Profile;
/// use mem2gen::study::toy::ToySettings;
///
/// let settings: ToySettings = Profile::named("smoke")?.settings("toy")?;
/// assert_eq!(settings.beta, 20.0);
/// # Ok::<(), mem2gen::study::context::ProfileError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    name: &'static str,
    tables: Table,
}

/// The crate's profiles: name and TOML text.
pub const PROFILES: [(&str, &str); 3] = [
    ("smoke", include_str!("../../../data/profiles/smoke.toml")),
    ("desk", include_str!("../../../data/profiles/desk.toml")),
    ("paper", include_str!("../../../data/profiles/paper.toml")),
];

impl Profile {
    /// The profile `name`.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`] for another name, [`ProfileError::Parse`] for a damaged file.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let (name, text) = PROFILES
            .into_iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| ProfileError::Unknown { name: name.into() })?;
        let tables = text.parse().map_err(|source| ProfileError::Parse { name, source })?;
        Ok(Self { name, tables })
    }

    /// The name in the environment variable `MEM2GEN_PROFILE`, or "desk".
    pub fn name_from_env() -> String {
        env::var("MEM2GEN_PROFILE").unwrap_or_else(|_| "desk".into())
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Names of all tables and settings at the top level.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// The table `table` as the settings of a study.
    ///
    /// # Errors
    /// [`ProfileError::Missing`]; [`ProfileError::Settings`] for an unknown, missing or ill-typed setting.
    pub fn settings<T: DeserializeOwned>(&self, table: &'static str) -> Result<T, ProfileError> {
        let name = self.name;
        let value = self.tables.get(table).ok_or(ProfileError::Missing { name, table })?;
        value.clone().try_into().map_err(|source| ProfileError::Settings { name, table, source })
    }

    /// The device for operations with CUDA kernels; the CPU when the profile has no such setting. Results are recorded
    /// with the device that was used and do not depend on it.
    ///
    /// # Errors
    /// [`ProfileError::Settings`] for text that is not a device.
    pub fn device(&self) -> Result<DeviceChoice, ProfileError> {
        let (name, table) = (self.name, "device");
        match self.tables.get(table) {
            None => Ok(DeviceChoice::default()),
            Some(value) => Value::try_into(value.clone()).map_err(|source| ProfileError::Settings {
                name,
                table,
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_parses_and_others_are_refused() {
        for (name, _) in PROFILES {
            assert_eq!(Profile::named(name).unwrap().name(), name);
        }
        assert!(matches!(Profile::named("dusk"), Err(ProfileError::Unknown { .. })));
    }

    #[test]
    fn a_missing_table_and_a_wrong_setting_are_named() {
        let desk = Profile::named("desk").unwrap();
        let e = desk.settings::<Table>("toys").unwrap_err();
        assert_eq!(e.to_string(), "profile desk: has no table [toys]");
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Other {}
        let e = desk.settings::<Other>("toy").unwrap_err();
        assert!(e.to_string().starts_with("profile desk: [toy]: unknown field"), "{e}");
    }
}
