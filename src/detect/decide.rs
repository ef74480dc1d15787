//! Which samples are copies, at a false discovery rate, and the other rules in use.

use serde::{Deserialize, Serialize};

use super::{Compared, Near, Tail, wilson};
use crate::setting::SettingError;

/// Fewest held-out images that are taken for the null distribution where the training set gives at least twice as many.
const FEWEST_HELD_OUT: usize = 100;
/// Smallest ratio on a logarithmic axis.
pub const LEAST_RATIO: f64 = 1e-3;
/// Largest probability that a sample which is called a copy is none, given its p-value.
const LOCAL: f64 = 0.2;
/// p-values up to which more samples than expected indicate copies that were not called.
const LEVELS: [f64; 4] = [0.01, 0.05, 0.2, 0.5];
/// Standard errors of 97.5 percent, and of the same for four levels at once.
const Z: f64 = 1.96;
const Z_OF_FOUR: f64 = 2.5;
/// Share of the copies, weak ones too, that are taken to have p-values up to 1/2.
const NEARER: f64 = 0.9;

/// Origin of the null distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullSource {
    /// Held-out images and the training set.
    HeldOut,
    /// Each of at most 2000 training images and the others, without those that are almost equal to it.
    Training,
}

/// Statistic from which the p-value of the decision comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// ln of the distance to the nearest over that to the nearest different training image.
    Ratio,
    /// ln of the distance to the nearest training image.
    Distance,
}

/// The null distributions of both statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NullFit {
    /// Origin of the null distances.
    pub source: NullSource,
    /// Held-out images that equal a training image or [count as the same](Compared::same), which are left out.
    pub equal: usize,
    /// ln d(x, D).
    pub distance: Tail,
    /// ln of the ratio; `None` where fewer than 5 images have one.
    pub ratio: Option<Tail>,
}

/// p-values of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PValues {
    /// Of the distance.
    pub distance: f64,
    /// Of the ratio; `None` for a sample without a nearest different training image.
    pub ratio: Option<f64>,
    /// The one that is decided with.
    pub used: f64,
    /// Smallest false discovery rate at which Benjamini and Hochberg's procedure calls the sample.
    pub q: f64,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// False discovery rate that was asked for.
    pub fdr: f64,
    /// Statistic of the p-values.
    pub statistic: Statistic,
    /// The null distribution.
    pub null: NullFit,
    /// p-values of each sample; `None` for an invalid one.
    #[serde(skip)]
    pub p_values: Vec<Option<PValues>>,
    /// Largest p-value with which a sample is called a copy, or would be if no sample has it.
    pub cutoff: f64,
    /// Number of samples that are called copies.
    pub called: usize,
    /// Number of valid samples that are no copies and would be called by chance: those with p-values up to the cutoff. A
    /// p-value p that is a rank among n null values counts with its standard error, p + sqrt(p / n), as the cutoff is found
    /// where the null values happen to be few.
    pub expected_false: f64,
    /// 95 percent interval of the fraction of recognizable copies, those with p-values up to the cutoff: the Wilson interval of
    /// the called fraction, its lower end less the expected false ones.
    pub interval: [f64; 2],
    /// Largest fraction of copies of any kind that the p-values leave possible, a 97.5 percent bound: at least 9 in 10 copies
    /// are taken to be nearer, by the statistic, than half of the null distribution. Copies of which fewer are nearer look like
    /// new images, and no bound holds for them.
    pub at_most: f64,
    /// Estimated number of copies beyond the called ones: samples whose p-values are small more often than chance explains,
    /// although none of them alone can be called. 0 when there is no sign of them.
    pub not_called: f64,
}

impl Decision {
    /// Whether a sample is called a copy.
    pub fn calls(&self, sample: usize) -> bool {
        self.p_values[sample].is_some_and(|p| p.used <= self.cutoff)
    }
}

/// Checks a false discovery rate.
///
/// # Errors
/// [`SettingError`] unless it is above 0 and below 1.
pub fn check_fdr(fdr: f64) -> Result<(), SettingError> {
    if fdr > 0.0 && fdr < 1.0 {
        return Ok(());
    }
    Err(SettingError::new("classify", "fdr", fdr, "a number above 0 and below 1"))
}

/// Calls copies at the false discovery rate `fdr`; `None` when fewer than 5 real images have a neighbour.
///
/// The null hypothesis of a sample is that it lies as near to the training set as held-out images do, or as training images
/// lie to the others. Its [p-value](Tail) is that of the ratio of the distances to the nearest and to the nearest different
/// training image, which a blurred sample does not make small, or of the distance where there is no ratio. Samples are called
/// up to the largest p-value that passes Benjamini and Hochberg's procedure, but only as far as the density of p-values says
/// that a sample is a copy rather than not (local false discovery rate up to 1/5, from the decreasing density estimate of
/// Grenander).
pub fn decide(found: &Compared, fdr: f64) -> Option<Decision> {
    let least = found.neighbours.least;
    let held_out = found.held_out.as_deref().unwrap_or_default();
    let unequal: Vec<Near> = held_out.iter().copied().filter(|near| near.distance > found.same).collect();
    let equal = held_out.len() - unequal.len();
    let (source, null) =
        if !unequal.is_empty() && unequal.len() >= FEWEST_HELD_OUT.min(found.within.len() / 2) {
            (NullSource::HeldOut, &unequal)
        } else {
            (NullSource::Training, &found.within)
        };
    let log = |near: &Near| near.distance.max(least).ln();
    let log_ratio = |near: &Near| near.ratio().map(|r| r.max(LEAST_RATIO).ln());
    let distance = Tail::fit(&null.iter().map(log).collect::<Vec<f64>>())?;
    let ratio = Tail::fit(&null.iter().filter_map(log_ratio).collect::<Vec<f64>>());
    let statistic = if ratio.is_some() { Statistic::Ratio } else { Statistic::Distance };
    let mut p_values: Vec<Option<PValues>> = found
        .samples
        .iter()
        .map(|near| {
            let near = near.as_ref()?;
            let of_distance = distance.p(log(near));
            let of_ratio = ratio.as_ref().zip(log_ratio(near)).map(|(tail, value)| tail.p(value));
            // An exact copy is one, whatever the null.
            let used = if near.distance == 0.0 { 0.0 } else { of_ratio.unwrap_or(of_distance) };
            Some(PValues { distance: of_distance, ratio: of_ratio, used, q: 1.0 })
        })
        .collect();
    let mut order: Vec<usize> = (0..p_values.len()).filter(|&i| p_values[i].is_some()).collect();
    let used = |i: &usize| p_values[*i].map_or(1.0, |p| p.used);
    order.sort_by(|a, b| used(a).total_cmp(&used(b)));
    let sorted: Vec<f64> = order.iter().map(used).collect();
    for (i, q) in order.iter().zip(q_values(&sorted)) {
        if let Some(p) = &mut p_values[*i] {
            p.q = q;
        }
    }
    let share_of_null = share_of_null(&sorted);
    let called = called(&sorted, fdr, share_of_null);
    let cutoff = cutoff(&sorted, called, fdr, share_of_null);
    let samples = sorted.len();
    let values = ratio.as_ref().unwrap_or(&distance).values().len();
    let ranked = cutoff > 1.0 / (values + 1) as f64;
    let error = if ranked { (cutoff / values as f64).sqrt() } else { 0.0 };
    let expected_false = share_of_null * samples as f64 * (cutoff + error);
    let (low, high) = wilson(called as f64 / samples.max(1) as f64, samples);
    Some(Decision {
        fdr,
        statistic,
        null: NullFit { source, equal, distance, ratio },
        p_values,
        cutoff,
        called,
        expected_false,
        interval: [(low - expected_false / samples.max(1) as f64).max(0.0), high],
        at_most: at_most(&sorted, values).clamp(high, 1.0),
        not_called: not_called(&sorted, called, values),
    })
}

/// q-values of sorted p-values.
fn q_values(sorted: &[f64]) -> Vec<f64> {
    let m = sorted.len() as f64;
    let mut least = 1.0f64;
    let mut out: Vec<f64> = sorted
        .iter()
        .enumerate()
        .rev()
        .map(|(i, p)| {
            least = least.min(p * m / (i + 1) as f64);
            least
        })
        .collect();
    out.reverse();
    out
}

/// Estimate of the share of samples that are no copies, from sorted p-values above 1/2 (Storey 2002).
fn share_of_null(sorted: &[f64]) -> f64 {
    let above = sorted.len() - sorted.partition_point(|p| *p <= 0.5);
    (2.0 * (above + 1) as f64 / sorted.len().max(1) as f64).min(1.0)
}

/// Number of the smallest p-values that are called.
fn called(sorted: &[f64], fdr: f64, share_of_null: f64) -> usize {
    let m = sorted.len() as f64;
    let most = q_values(sorted).iter().filter(|q| **q <= fdr).count();
    // Corners of the least concave majorant of the empirical distribution, from (0, 0) to (1, 1): slopes decrease.
    let mut corners = vec![(0.0, 0usize)];
    let points = sorted.iter().copied().zip(1..).chain([(1.0, sorted.len())]);
    for point in points {
        while let [.., a, b] = corners[..] {
            let slope = |from: (f64, usize), to: (f64, usize)| (to.1 - from.1) as f64 / (to.0 - from.0);
            if slope(a, b) > slope(b, point) {
                break;
            }
            corners.pop();
        }
        if corners.len() == 1 && point.0 <= 0.0 {
            corners[0] = point;
        } else {
            corners.push(point);
        }
    }
    let steep = corners
        .windows(2)
        .take_while(|pair| {
            let slope = (pair[1].1 - pair[0].1) as f64 / m / (pair[1].0 - pair[0].0);
            share_of_null <= LOCAL * slope
        })
        .last()
        .map_or(corners[0].1, |pair| pair[1].1);
    // Equal p-values are called together.
    let count = most.min(steep);
    count.checked_sub(1).map_or(0, |last| sorted.partition_point(|p| *p <= sorted[last]))
}

/// Largest p-value with which one more sample would be called.
fn cutoff(sorted: &[f64], called: usize, fdr: f64, share_of_null: f64) -> f64 {
    let m = sorted.len().max(1) as f64;
    let last = called.checked_sub(1).map_or(0.0, |last| sorted[last]);
    (fdr * (called + 1) as f64 / m).min(last + LOCAL / (share_of_null * m)).max(last)
}

/// Upper end of the 95 percent interval of the fraction of copies, where [`NEARER`] of them have p-values up to 1/2. `null` is
/// the number of null values.
fn at_most(sorted: &[f64], null: usize) -> f64 {
    let m = sorted.len().max(1) as f64;
    let near = sorted.partition_point(|p| *p <= 0.5) as f64 / m;
    let error = (near * (1.0 - near) / m + 0.25 / null.max(1) as f64).sqrt();
    (near - 0.5 + Z * error) / (NEARER - 0.5)
}

/// Estimated number of copies that are not among the `called` smallest of the sorted p-values; 0 when the rest is as chance
/// has it. `null` is the number of null values.
fn not_called(sorted: &[f64], called: usize, null: usize) -> f64 {
    let rest = &sorted[called..];
    let (from, m) = (called.checked_sub(1).map_or(0.0, |last| sorted[last]), rest.len() as f64);
    LEVELS
        .into_iter()
        .filter(|level| *level > from)
        .filter_map(|level| {
            let share = (level - from) / (1.0 - from);
            let excess = rest.partition_point(|p| *p <= level) as f64 - m * share;
            let error = (m * share * (1.0 - share) * (1.0 + m / null.max(1) as f64)).sqrt();
            (excess > Z_OF_FOUR * error).then_some(excess / (1.0 - share))
        })
        .fold(0.0, f64::max)
}

/// The rule of authenticity (Alaa et al. 2022): a sample is not authentic when its nearest training image is nearer to it
/// than to every other training image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Authenticity {
    /// Samples that are not authentic.
    pub copies: usize,
    /// Their fraction of valid samples.
    pub fraction: f64,
}

impl Authenticity {
    /// Applies the rule; `None` for a single training image.
    pub fn from_distances(found: &Compared) -> Option<Self> {
        if found.neighbours.images < 2 {
            return None;
        }
        let valid = found.samples.iter().flatten().count();
        let copies = (0..found.samples.len()).filter(|&i| found.not_authentic(i)).count();
        Some(Self { copies, fraction: copies as f64 / valid.max(1) as f64 })
    }
}

impl Compared {
    /// Whether the rule of [authenticity](Authenticity) calls a sample a copy.
    pub fn not_authentic(&self, sample: usize) -> bool {
        let near = self.samples[sample].as_ref();
        near.is_some_and(|near| self.around.get(&near.index).is_some_and(|around| near.distance < *around))
    }
}

/// C_T (Meehan et al. 2020) with one cell: the standardized Mann-Whitney statistic of d(x, D) of samples and held-out images,
/// ties counted half. Below -3 samples are nearer to the training set than held-out images are.
///
/// C_T = (U - mn/2) / sqrt(mn (m + n + 1) / 12), where U is the number of pairs in which the sample is further.
///
/// ```
/// let held_out = [3.0, 4.0, 5.0, 6.0];
/// assert_eq!(mem2gen::detect::c_t(&held_out, &held_out), 0.0);
/// assert!((mem2gen::detect::c_t(&[1.0, 1.5], &held_out) + 4.0 / (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
/// ```
pub fn c_t(samples: &[f64], held_out: &[f64]) -> f64 {
    let mut sorted = held_out.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let further: f64 = samples
        .iter()
        .map(|d| (sorted.partition_point(|h| h < d) + sorted.partition_point(|h| h <= d)) as f64 / 2.0)
        .sum();
    let (m, n) = (samples.len() as f64, sorted.len() as f64);
    (further - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SEED, Stream};

    #[test]
    fn q_values_are_those_of_benjamini_and_hochberg() {
        let q = q_values(&[0.01, 0.02, 0.03, 0.5]);
        let due = [0.04, 0.04, 0.04, 0.5];
        assert!(q.iter().zip(due).all(|(q, due)| (q - due).abs() < 1e-12), "{q:?}");
        assert!(q_values(&[]).is_empty());
    }

    #[test]
    fn clear_copies_are_called_without_the_next_in_line() {
        // 30 copies and 50 others: the procedure alone calls all p-values up to 0.019.
        let sorted: Vec<f64> =
            (0..30).map(|_| 1e-9).chain((0..50).map(|i| 0.01 + 0.0198 * f64::from(i))).collect();
        assert_eq!(q_values(&sorted).iter().filter(|q| **q <= 0.05).count(), 31);
        assert_eq!(called(&sorted, 0.05, share_of_null(&sorted)), 30);
        // Nothing but copies, none, and no samples.
        assert_eq!(called(&[1e-9; 7], 0.05, share_of_null(&[1e-9; 7])), 7);
        assert_eq!(called(&[0.0; 7], 0.05, share_of_null(&[0.0; 7])), 7);
        let even: Vec<f64> = (1..=99).map(|i| f64::from(i) / 100.0).collect();
        assert_eq!(called(&even, 0.05, 1.0), 0);
        assert_eq!(called(&[], 0.05, 1.0), 0);
    }

    #[test]
    fn copies_that_can_not_be_called_are_estimated_and_bounded() {
        let even: Vec<f64> = (1..1000).map(|i| f64::from(i) / 1000.0).collect();
        assert_eq!(not_called(&even, 0, 1000), 0.0);
        // 1.96 standard errors of two shares of 1/2 among 1000, over 0.4.
        assert!(
            (at_most(&even, 1000) - 1.96 * 0.0005f64.sqrt() / 0.4).abs() < 0.002,
            "{}",
            at_most(&even, 1000)
        );
        // A tenth of 1000 with p-values of 0.01 to 0.02.
        let mut weak: Vec<f64> = (1..=900).map(|i| f64::from(i) / 901.0).collect();
        weak.extend((0..100).map(|i| 0.01 + 1e-4 * f64::from(i)));
        weak.sort_unstable_by(f64::total_cmp);
        let estimate = not_called(&weak, 0, 1000);
        assert!((estimate - 100.0).abs() < 15.0, "{estimate}");
        assert!(at_most(&weak, 1000) > 0.2, "{}", at_most(&weak, 1000));
    }

    #[test]
    fn the_expected_number_is_that_up_to_the_largest_p_value_that_would_be_called() {
        // Nothing but new images: as many as were promised.
        let even: Vec<f64> = (1..1000).map(|i| f64::from(i) / 1000.0).collect();
        assert!((999.0 * cutoff(&even, 0, 0.05, 1.0) - 0.05).abs() < 1e-12);
        // 30 clear copies: up to a local false discovery rate of 1/5, although the last of them has a p-value of 1e-9.
        let sorted: Vec<f64> =
            (0..30).map(|_| 1e-9).chain((0..970).map(|i| (f64::from(i) + 1.0) / 971.0)).collect();
        let found = cutoff(&sorted, 30, 0.05, 0.97);
        assert!((970.0 * found - 0.2).abs() < 1e-3, "{found}");
        let with = |p: f64| {
            let mut more = sorted.clone();
            more[30] = p;
            called(&more, 0.05, 0.97)
        };
        assert_eq!((with(0.99 * found), with(1.01 * found)), (31, 30));
    }

    #[test]
    fn the_false_discovery_rate_is_kept_and_the_interval_holds() {
        // p-values of 200 samples against a null of 500 values, copies 6 standard deviations below.
        let mut false_rate = [0.0; 3];
        let (mut held, mut expected, mut wrongs) = ([0; 3], [0.0; 3], [0.0; 3]);
        let sets = 200;
        for (k, copies) in [0usize, 4, 60].into_iter().enumerate() {
            for set in 0..sets {
                let mut s = Stream::new(SEED, &format!("decision/{copies}/{set}"));
                let null: Vec<f64> = (0..500).map(|_| s.normal()).collect();
                let tail = Tail::fit(&null).unwrap();
                let mut p: Vec<(f64, bool)> = (0..200)
                    .map(|i| (tail.p(s.normal() - if i < copies { 8.0 } else { 0.0 }), i < copies))
                    .collect();
                p.sort_by(|a, b| a.0.total_cmp(&b.0));
                let sorted: Vec<f64> = p.iter().map(|p| p.0).collect();
                let share = share_of_null(&sorted);
                let n = called(&sorted, 0.05, share);
                let cutoff = cutoff(&sorted, n, 0.05, share);
                assert_eq!(sorted.partition_point(|p| *p <= cutoff), n);
                let wrong = p[..n].iter().filter(|p| !p.1).count();
                false_rate[k] += wrong as f64 / n.max(1) as f64 / f64::from(sets);
                let (low, high) = wilson(n as f64 / 200.0, 200);
                expected[k] += share * 200.0 * cutoff;
                wrongs[k] += wrong as f64;
                held[k] += usize::from((low..=high).contains(&(copies as f64 / 200.0)));
            }
        }
        // 5 percent and 3 standard errors of a mean of 200.
        assert!(false_rate.iter().all(|rate| *rate <= 0.05 + 0.046), "{false_rate:?}");
        assert!(held.iter().all(|held| *held >= 186), "{held:?}");
        // No more than expected; 3 standard deviations of a Poisson number.
        for (wrong, expected) in wrongs.iter().zip(expected) {
            assert!(*wrong <= expected + 3.0 * expected.sqrt(), "{wrong} {expected}");
        }
    }
}
