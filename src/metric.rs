//! The distances that images are compared with.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A distance of images, by the name it has in plans, options and tables.
///
/// ```
/// use mem2gen::metric::Metric;
///
/// assert_eq!(Metric::default(), Metric::L2);
/// assert_eq!(Metric::LpipsAlex.to_string(), "lpips-alex");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Euclidean distance of the values
    #[default]
    L2,
    /// Cosine distance, 1 - cos: for features that another program computed
    Cosine,
    /// LPIPS with AlexNet, squared as LPIPS is; 'mem2gen data fetch lpips-weights' downloads its weights
    LpipsAlex,
    /// LPIPS with VGG16
    LpipsVgg,
}

impl Metric {
    /// The name: `l2`, `cosine`, `lpips-alex` or `lpips-vgg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Cosine => "cosine",
            Self::LpipsAlex => "lpips-alex",
            Self::LpipsVgg => "lpips-vgg",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn plans_options_and_tables_use_one_name() {
        for metric in Metric::value_variants() {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
            assert_eq!(metric.to_possible_value().unwrap().get_name(), metric.name());
        }
    }
}
