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

use crate::class::Class;

/// Labels one sample from its distance to the training set D and to the other synthetic samples, with
/// thresholds inclusive as in the paper. A sample that is alone in S has an infinite distance to the
/// rest of it, which is no fault of the sample; every other NaN or infinity makes it invalid.
pub fn label(d_train: f64, d_synthetic: Option<f64>, delta_m: f64, delta_s: f64) -> Class {
    if !d_train.is_finite() || d_synthetic.is_some_and(|d| !d.is_finite()) {
        Class::Invalid
    } else if d_train <= delta_m {
        Class::Memorized
    } else if d_synthetic.is_some_and(|d| d <= delta_s) {
        Class::Spurious
    } else {
        Class::Generalized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_inclusive_and_memorized_comes_first() {
        assert_eq!(label(0.5, Some(0.0), 0.5, 0.2), Class::Memorized);
        assert_eq!(label(0.6, Some(0.2), 0.5, 0.2), Class::Spurious);
        assert_eq!(label(0.6, Some(0.3), 0.5, 0.2), Class::Generalized);
        assert_eq!(label(0.6, None, 0.5, 0.2), Class::Generalized);
    }

    #[test]
    fn what_is_not_finite_has_no_class() {
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(label(bad, Some(0.0), 1.0, 1.0), Class::Invalid);
            assert_eq!(label(2.0, Some(bad), 1.0, 1.0), Class::Invalid);
        }
    }
}
