//! Memorized, spurious, generalized: the labels of Eqs. 9 to 11, the thresholds that they take, and the
//! fractions that they give. And clusters of samples.

mod classify;
mod cluster;
mod dip;
mod error;
mod fractions;
mod threshold;

pub use classify::{
    Classification, ClassifySettings, Neighbour, Neighbours, NullSummary, RatioCriterion, Sensitivity, Sets,
    classify, examples, neighbours, neighbours_in_sets, queries,
};
pub use cluster::{Clusters, ward};
pub use dip::{Dip, dip, dip_test};
pub use error::DetectError;
pub use fractions::{Counts, Fractions, Share, wilson};
pub use threshold::{CAP_QUANTILE, Modes, NULL_QUANTILE, Null, Origin, Threshold, Valley, threshold};

use serde::{Deserialize, Serialize};

/// What a synthetic sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// M(x), Eq. 9: within delta_m of a training point.
    Memorized,
    /// S(x), Eq. 10: not memorized, and within delta_s of another synthetic sample.
    Spurious,
    /// G(x), Eq. 11: neither.
    Generalized,
    /// NaN or infinite, so no class at all.
    #[default]
    Invalid,
}

impl Label {
    /// All labels in the order of tables.
    pub const ALL: [Self; 4] = [Self::Memorized, Self::Spurious, Self::Generalized, Self::Invalid];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memorized => "memorized",
            Self::Spurious => "spurious",
            Self::Generalized => "generalized",
            Self::Invalid => "invalid",
        }
    }
}

/// Labels one sample from its distance to the training set D and to the other synthetic samples, with
/// thresholds inclusive as in the paper. A sample that is alone in S has an infinite distance to the
/// rest of it, which is no fault of the sample; every other NaN or infinity makes it invalid.
pub fn label(d_train: f64, d_synthetic: Option<f64>, delta_m: f64, delta_s: f64) -> Label {
    if !d_train.is_finite() || d_synthetic.is_some_and(|d| !d.is_finite()) {
        Label::Invalid
    } else if d_train <= delta_m {
        Label::Memorized
    } else if d_synthetic.is_some_and(|d| d <= delta_s) {
        Label::Spurious
    } else {
        Label::Generalized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_inclusive_and_memorized_comes_first() {
        assert_eq!(label(0.5, Some(0.0), 0.5, 0.2), Label::Memorized);
        assert_eq!(label(0.6, Some(0.2), 0.5, 0.2), Label::Spurious);
        assert_eq!(label(0.6, Some(0.3), 0.5, 0.2), Label::Generalized);
        assert_eq!(label(0.6, None, 0.5, 0.2), Label::Generalized);
    }

    #[test]
    fn what_is_not_finite_has_no_class() {
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(label(bad, Some(0.0), 1.0, 1.0), Label::Invalid);
            assert_eq!(label(2.0, Some(bad), 1.0, 1.0), Label::Invalid);
        }
    }
}
