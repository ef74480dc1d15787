//! Lower tail of a null distribution, for p-values below the resolution of its values.

use serde::{Deserialize, Serialize};

/// Fewest null values for a p-value.
pub const FEWEST_NULL: usize = 5;
/// Fewest and most values to which a tail is fitted.
const FITTED: [usize; 2] = [10, 500];
/// Least shape. Where the images near an image have a local dimension m, the m-th power of its ratio is uniform, so ln ratio
/// has an exponential tail; where m varies with a coefficient of variation of 1/4, the tail has the shape 1/16.
const LEAST_SHAPE: f64 = 1.0 / 16.0;
/// Standard errors by which an estimated shape has to exceed the least one.
const HEAVY: f64 = 1.5;
/// Shape that stands for the error of the fit, times the number of fitted values. With 1 the p-value of an exponential tail
/// whose scale is estimated from k values is exact; 3 leaves room for tails that are heavier than their start shows.
const MARGIN: f64 = 3.0;

/// The null distribution of a statistic of which small values indicate a copy, such as a log distance.
///
/// The p-value of a value t is (1 + number of null values up to t) / (n + 1), which is valid for values that are exchangeable
/// with the null values, or, below `start`, the probability of a generalized Pareto tail where that is smaller,
///
/// p(t) = (k + 1) / (n + 1) (1 + xi (start - t) / scale)^(-1 / xi)
///
/// with the k smallest null values below `start`. Its shape is that of the probability-weighted moments less one and a half of
/// its standard errors, and at least 1/16, plus 3 / k for the error of the fit. For a density with a concave logarithm, such as
/// a Gaussian, the p-value is too large rather than too small.
///
/// ```
/// use mem2gen::detect::Tail;
///
/// let null: Vec<f64> = (1..=99).map(|i| 2.0 + 0.01 * f64::from(i)).collect();
/// let tail = Tail::fit(&null).unwrap();
/// assert_eq!(tail.p(2.505), 0.51);
/// assert!(tail.p(0.0) < 1e-3);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// The null values in increasing order.
    #[serde(skip)]
    values: Vec<f64>,
    /// Number of null values.
    pub count: usize,
    /// Number k of values to which the tail is fitted.
    pub fitted: usize,
    /// Value below which p-values come from the fitted tail.
    pub start: f64,
    /// Scale of the tail; 0 when the fitted values are equal, and then all p-values are empirical.
    pub scale: f64,
    /// Shape xi of the tail without 3 / k, at least 1/16; 0 when the fitted values are equal.
    pub shape: f64,
}

impl Tail {
    /// The null distribution of finite values; `None` for fewer than [`FEWEST_NULL`].
    pub fn fit(null: &[f64]) -> Option<Self> {
        if null.len() < FEWEST_NULL {
            return None;
        }
        let mut values = null.to_vec();
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        let fitted = (n / 3).clamp(FITTED[0], FITTED[1]).min(n / 2);
        let start = values[fitted];
        let mean = values[..fitted].iter().map(|v| start - v).sum::<f64>() / fitted as f64;
        let shape = if mean > 0.0 { shape(&values[..fitted], start) } else { 0.0 };
        Some(Self { values, count: n, fitted, start, scale: mean * (1.0 - shape), shape })
    }

    /// Probability of a value up to `value` under the null distribution.
    pub fn p(&self, value: f64) -> f64 {
        let n = (self.values.len() + 1) as f64;
        let ranked = (self.values.partition_point(|v| *v <= value) + 1) as f64 / n;
        if value > self.start || self.scale <= 0.0 {
            return ranked;
        }
        let k = self.fitted as f64;
        let xi = self.shape + MARGIN / k;
        let tail = (k + 1.0) / n * (1.0 + xi * (self.start - value) / self.scale).powf(-1.0 / xi);
        tail.min(ranked)
    }

    /// The null values in increasing order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// Shape of the generalized Pareto distribution of `start` minus sorted values by probability-weighted moments (Hosking and
/// Wallis 1987) less its error, from the least shape to 0.9.
fn shape(values: &[f64], start: f64) -> f64 {
    let k = values.len() as f64;
    if k < 2.0 {
        return LEAST_SHAPE;
    }
    let mean = values.iter().map(|v| start - v).sum::<f64>() / k;
    // E[x (1 - F(x))]: the furthest value is the first, with 1 - F = 0.
    let weighted =
        values.iter().zip(0..).map(|(v, i)| (start - v) * f64::from(i) / (k - 1.0)).sum::<f64>() / k;
    let shape = 2.0 - mean / (mean - 2.0 * weighted);
    (shape - HEAVY / k.sqrt()).clamp(LEAST_SHAPE, 0.9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SEED, Stream};

    #[test]
    fn an_exponential_tail_is_extrapolated_to_its_own_probability() {
        // P(value <= -x) = exp(-x).
        let mut s = Stream::new(SEED, "exponential tail");
        let null: Vec<f64> = (0..20_000).map(|_| s.uniform().max(1e-12).ln()).collect();
        let tail = Tail::fit(&null).unwrap();
        assert_eq!(tail.fitted, 500);
        for x in [1.0, 5.0, 8.0, 12.0] {
            let ratio = tail.p(-x) / (-x).exp();
            // The least shape and the margin make p-values too large, more so further out.
            assert!(ratio > 0.6 && ratio < 5.0, "{x}: {ratio}");
        }
    }

    #[test]
    fn few_and_equal_values_have_ranks_alone() {
        assert!(Tail::fit(&[1.0; 4]).is_none());
        let equal = Tail::fit(&[1.0; 9]).unwrap();
        assert_eq!((equal.p(0.5), equal.p(1.0)), (0.1, 1.0));
    }

    /// Largest number of false alarms in `sets` null sets that is compatible with 5 percent: mean and 3 standard deviations.
    fn allowed(sets: usize) -> usize {
        let n = sets as f64;
        (0.05 * n + 3.0 * (0.05 * 0.95 * n).sqrt()) as usize
    }

    #[test]
    fn the_smallest_p_value_of_many_is_not_too_small() {
        type Draw = fn(&mut Stream) -> f64;
        let kinds: [(&str, Draw); 4] = [
            ("Gaussian", |s| s.normal()),
            ("uniform", |s| s.uniform()),
            ("exponential below", |s| s.uniform().max(1e-12).ln()),
            ("two modes", |s| if s.uniform() < 0.1 { -3.0 + 0.5 * s.normal() } else { 0.5 * s.normal() }),
        ];
        for (kind, draw) in kinds {
            for n in [20, 100, 1000] {
                let (sets, samples) = (300, 200);
                let alarms = (0..sets)
                    .filter(|set| {
                        let mut s = Stream::new(SEED, &format!("{kind}/{n}/{set}"));
                        let null: Vec<f64> = (0..n).map(|_| draw(&mut s)).collect();
                        let tail = Tail::fit(&null).unwrap();
                        (0..samples).any(|_| tail.p(draw(&mut s)) <= 0.05 / f64::from(samples))
                    })
                    .count();
                assert!(alarms <= allowed(sets), "{kind}, {n} null values: {alarms} of {sets}");
            }
        }
    }
}
