//! Classes of samples and attractors, and groups of images that are measured together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Class of a sample or an attractor.
///
/// ```
/// use mem2gen::class::Class;
///
/// assert_eq!(Class::Spurious.to_string(), "spurious");
/// assert_eq!(Class::LABELS.map(Class::name), ["memorized", "spurious", "generalized", "invalid"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// M(x), Eq. 9: a sample within delta_m of a training point; an attractor within delta_m of a memory.
    Memorized,
    /// S(x), Eq. 10: a sample that is not memorized and within delta_s of another sample; an attractor that is not
    /// memorized.
    Spurious,
    /// G(x), Eq. 11: a sample that is neither memorized nor spurious.
    Generalized,
    /// A sample with NaN or infinity, which has no class.
    #[default]
    Invalid,
}

impl Class {
    /// All labels of samples, in the order of tables.
    pub const LABELS: [Self; 4] = [Self::Memorized, Self::Spurious, Self::Generalized, Self::Invalid];

    /// The name in tables, legends and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memorized => "memorized",
            Self::Spurious => "spurious",
            Self::Generalized => "generalized",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Images that are measured together: the samples of one class, or training images.
///
/// ```
/// use mem2gen::class::{Class, Group};
///
/// assert_eq!("spurious".parse::<Group>()?, Group::Samples(Class::Spurious));
/// assert_eq!(Group::Training.to_string(), "training");
/// # Ok::<(), mem2gen::class::UnknownGroup>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Group {
    /// Samples of one class.
    Samples(Class),
    /// Training images.
    Training,
}

impl Group {
    /// Memorized samples.
    pub const MEMORIZED: Self = Self::Samples(Class::Memorized);
    /// Spurious samples.
    pub const SPURIOUS: Self = Self::Samples(Class::Spurious);
    /// Generalized samples.
    pub const GENERALIZED: Self = Self::Samples(Class::Generalized);

    /// The groups of samples in the order of tables.
    pub const SAMPLES: [Self; 3] = [Self::MEMORIZED, Self::SPURIOUS, Self::GENERALIZED];

    /// All groups in the order of tables.
    pub const ALL: [Self; 4] = [Self::MEMORIZED, Self::SPURIOUS, Self::GENERALIZED, Self::Training];

    /// The name in tables, legends and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Samples(class) => class.name(),
            Self::Training => "training",
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::Samples(Class::default())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is not a group of images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a class of images, expected memorized, spurious, generalized or training")]
pub struct UnknownGroup(String);

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(name: &str) -> Result<Self, UnknownGroup> {
        Self::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| UnknownGroup(name.into()))
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.name().into()
    }
}

impl TryFrom<String> for Group {
    type Error = UnknownGroup;

    fn try_from(name: String) -> Result<Self, UnknownGroup> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_names_of_groups_parse_and_others_are_refused() {
        for group in Group::ALL {
            assert_eq!(group.name().parse::<Group>().unwrap(), group);
            let text = serde_json::to_string(&group).unwrap();
            assert_eq!(text, format!("{:?}", group.name()));
            assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), group);
        }
        for name in ["copied", "invalid", "Memorized", ""] {
            let e = name.parse::<Group>().unwrap_err().to_string();
            assert!(e.contains(&format!("`{name}`")) && e.contains("training"), "{e}");
        }
    }
}
