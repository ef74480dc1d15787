//! Labels memorized, spurious and generalized (Eqs. 9 to 11), their thresholds and fractions, and clusters of samples.

mod classify;
mod cluster;
mod compare;
mod decide;
mod dip;
mod error;
mod fractions;
mod source;
mod tail;
mod threshold;

pub use classify::{
    Classification, ClassifySettings, Neighbour, Neighbours, NullSummary, RatioCriterion, Sensitivity, Sets,
    classify, examples, neighbours, neighbours_in_sets, queries,
};
pub use cluster::{Clusters, linked, ward};
pub use compare::{Compared, Near, compare, comparisons};
pub use decide::{
    Authenticity, Decision, LEAST_RATIO, NullFit, NullSource, PValues, Statistic, c_t, check_fdr, decide,
};
pub use dip::{Dip, dip, dip_test};
pub use error::DetectError;
pub use fractions::{Counts, Fractions, Share, wilson};
pub use source::{Blocks, Part, Source};
pub use tail::{FEWEST_NULL, Tail};
pub(crate) use threshold::quantile;
pub use threshold::{CAP_QUANTILE, Modes, NULL_QUANTILE, Null, Origin, Threshold, Valley, threshold};

use crate::class::Class;

/// The label of one sample from its distances to the training set D and to the other synthetic samples. Thresholds are
/// inclusive, as in the paper. `d_synthetic` is `None` for a sample that is alone in S; NaN or infinity makes a sample
/// invalid.
///
/// ```
/// use mem2gen::class::Class;
/// use mem2gen::detect::label;
///
/// assert_eq!(label(0.1, Some(0.1), 0.1, 0.2), Class::Memorized);
/// assert_eq!(label(0.3, Some(0.2), 0.1, 0.2), Class::Spurious);
/// assert_eq!(label(0.3, None, 0.1, 0.2), Class::Generalized);
/// assert_eq!(label(f64::NAN, None, 0.1, 0.2), Class::Invalid);
/// ```
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
