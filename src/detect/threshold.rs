//! Thresholds of distances: the valley between two modes, or a quantile of held-out distances.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dip::{Dip, dip_test};

/// Largest p-value at which one of the two tests for two modes is significant.
const SIGNIFICANT: f64 = 0.01;
/// Smallest depth of a valley below the lower of its peaks, as a fraction of that peak.
const LEAST_DEPTH: f64 = 0.1;
/// Fraction of the lower peak within which the bottom of a valley counts as flat.
const FLAT: f64 = 0.01;
/// The smallest bandwidth in log distance: 2 percent of a distance.
const LEAST_BANDWIDTH: f64 = 0.02;
/// Grid points of a density.
const GRID: usize = 1024;
/// Quantile of the null distances from which on a distance does not indicate a copy.
pub const CAP_QUANTILE: f64 = 0.05;
/// Quantile of the held-out distances that is the threshold of a unimodal distribution.
pub const NULL_QUANTILE: f64 = 0.01;

/// Origin of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Given by the user.
    Manual,
    /// The valley between the two modes of the log distances.
    Valley,
    /// One mode: the quantile [`NULL_QUANTILE`] of the distances from held-out images to the training set.
    Null,
    /// Unknown: one mode and no usable held-out images.
    Unknown,
    /// Not needed: there are no distances, as a sample is alone or no sample is valid.
    NoDistances,
}

/// A threshold with its origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The largest distance within the threshold; `None` when it is unknown.
    pub value: Option<f64>,
    /// Its origin.
    pub origin: Origin,
    /// The origin in words.
    pub because: String,
    /// Fraction of held-out images within the threshold of the training set; `None` without held-out images.
    pub null_rate: Option<f64>,
    /// Evidence on modes, for every origin; `None` without distances.
    pub modes: Option<Modes>,
}

/// Evidence for one or two modes of log distances, and the valley between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Modes {
    /// Hartigan's dip test of the log distances between `floor` and `cap`.
    pub dip: Dip,
    /// Smaller distances are raised to this one, as exact copies have no logarithm.
    pub floor: f64,
    /// Distances at or below the floor.
    pub at_floor: usize,
    /// Larger distances are lowered to this one, the 5 percent quantile of the null distances, as modes beyond it belong to
    /// real data. `None` without null distances.
    pub cap: Option<f64>,
    /// Distances at or above the cap.
    pub at_cap: usize,
    /// Bandwidth of the kernel density in units of log distance.
    pub bandwidth: f64,
    /// The two peaks and the valley between them; `None` without a valley.
    pub valley: Option<Valley>,
}

impl Modes {
    /// The valley, if one of the tests is significant.
    fn two(&self) -> Option<Valley> {
        self.valley.filter(|v| self.dip.p.min(v.p) <= SIGNIFICANT)
    }
}

/// The valley of a density with two peaks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Valley {
    /// Distance at the highest peak below the valley.
    pub lower_peak: f64,
    /// Distance at the highest peak above the valley.
    pub upper_peak: f64,
    /// Distance at the valley; the middle of a flat valley in log distance.
    pub at: f64,
    /// 1 - density at the valley / density at the lower peak.
    pub depth: f64,
    /// p-value of a binomial test on the counts in three windows of equal width, around the valley and both peaks. A unimodal
    /// density is at least as high in the valley as at one of the peaks. The value is the larger of the two one-sided
    /// probabilities of a fair coin, multiplied by the number of windows in the range of the data (Bonferroni). In 400 draws
    /// from each of seven unimodal distributions, with 20 to 10000 values, fewer than 1 in 100 were below 0.01.
    pub p: f64,
}

/// Distances between real images, the null distribution.
#[derive(Debug, Clone, Copy)]
pub struct Null<'a> {
    /// Distances from held-out images to the training set.
    pub held_out: Option<&'a [f64]>,
    /// Distances from training images to the nearest different one; may be empty.
    pub within: &'a [f64],
}

impl Null<'_> {
    /// Distance from which on a distance does not indicate a copy.
    fn cap(&self, floor: f64) -> Option<f64> {
        let all = self.held_out.unwrap_or(self.within);
        let apart: Vec<f64> = all.iter().copied().filter(|d| *d > floor).collect();
        quantile(&apart, CAP_QUANTILE)
    }
}

/// The threshold of finite `distances` called `name`: `manual` when given; else the valley between two modes; else the
/// [`NULL_QUANTILE`] of the held-out distances; else unknown.
///
/// Modes are those of the kernel density of log distances, after distances are clipped to `floor` (above 0) and to the 5
/// percent quantile of the null distances. There are two modes when the density has a valley at least a tenth deep and one
/// of two tests is significant at 1 percent: Hartigan's dip test, which needs two modes of some size, or the [test of the
/// valley](Valley::p), which detects few copies far from the rest. Of several valleys the one with the smallest p-value is
/// used. The bandwidth is Silverman's 0.9 s n^(-1/5), at least 0.02, where s is the standard deviation within the two
/// classes of k-means, so that the distance between modes does not widen it.
///
/// ```
/// use mem2gen::detect::{Null, Origin, threshold};
///
/// let copies = (0..50).map(|i| 0.1 + 0.001 * f64::from(i));
/// let others = (0..50).map(|i| 4.0 + 0.01 * f64::from(i));
/// let distances: Vec<f64> = copies.chain(others).collect();
/// let null = Null { held_out: None, within: &[] };
/// let found = threshold("d", &distances, 1e-3, null, None, 1);
/// assert_eq!(found.origin, Origin::Valley);
/// assert!(found.value.is_some_and(|value| value > 0.15 && value < 4.0));
///
/// let given = threshold("d", &distances, 1e-3, null, Some(2.5), 1);
/// assert_eq!((given.value, given.origin), (Some(2.5), Origin::Manual));
/// ```
pub fn threshold(
    name: &str,
    distances: &[f64],
    floor: f64,
    null: Null<'_>,
    manual: Option<f64>,
    seed: u64,
) -> Threshold {
    let modes = (!distances.is_empty()).then(|| modes(distances, floor, null.cap(floor), seed));
    let valley = modes.as_ref().and_then(Modes::two);
    let held_out = null.held_out.and_then(|d| quantile(d, NULL_QUANTILE));
    let one = || match &modes {
        Some(m) => format!("{name} is unimodal (dip test, p = {:.3})", m.dip.p),
        None => format!("there is no {name}"),
    };
    let (value, origin, because) = match (manual, &modes, valley, held_out) {
        (Some(v), ..) => (Some(v), Origin::Manual, "given".to_owned()),
        (_, None, ..) => (None, Origin::NoDistances, format!("there is no {name}")),
        (_, Some(m), Some(v), _) => {
            // A mode at the cap contains all larger distances.
            let beyond = if m.cap.is_some_and(|cap| v.upper_peak > 0.95 * cap) { " or more" } else { "" };
            let because = format!(
                "the valley between two modes of {name}, around {:.4} and {:.4}{beyond} (dip test, p = {:.3}; valley, \
                 p = {:.1e})",
                v.lower_peak, v.upper_peak, m.dip.p, v.p
            );
            (Some(v.at), Origin::Valley, because)
        }
        (_, _, None, Some(v)) if v > floor => (
            Some(v),
            Origin::Null,
            format!(
                "{}; this is the {} percent quantile of the distances of {} held-out images to the training set",
                one(),
                100.0 * NULL_QUANTILE,
                null.held_out.map_or(0, <[f64]>::len)
            ),
        ),
        (_, _, None, Some(_)) => (
            None,
            Origin::Unknown,
            format!("{}, and the held-out set holds copies of training images", one()),
        ),
        (_, _, None, None) => (
            None,
            Origin::Unknown,
            format!("{}, and there are no held-out images to tell what is near", one()),
        ),
    };
    let null_rate = value.zip(null.held_out).map(|(v, d)| share_within(d, v));
    Threshold { value, origin, because, null_rate, modes }
}

fn share_within(distances: &[f64], threshold: f64) -> f64 {
    distances.iter().filter(|d| **d <= threshold).count() as f64 / distances.len().max(1) as f64
}

/// The order statistic at the quantile `p`; `None` for no values.
pub(crate) fn quantile(values: &[f64], p: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((p * sorted.len().saturating_sub(1) as f64) as usize).copied()
}

/// Evidence on modes, significant or not.
fn modes(distances: &[f64], floor: f64, cap: Option<f64>, seed: u64) -> Modes {
    let top = cap.unwrap_or(f64::INFINITY).max(floor);
    let mut logs: Vec<f64> = distances.iter().map(|d| d.min(top).max(floor).ln()).collect();
    logs.sort_unstable_by(f64::total_cmp);
    let bandwidth = (0.9 * spread(&logs) * (logs.len() as f64).powf(-0.2)).max(LEAST_BANDWIDTH);
    Modes {
        dip: dip_test(&logs, seed),
        floor,
        at_floor: distances.iter().filter(|d| **d <= floor).count(),
        cap,
        at_cap: distances.iter().filter(|d| **d >= top).count(),
        bandwidth,
        valley: valley(&logs, bandwidth),
    }
}

/// Smallest standard deviation within two classes of sorted values (k-means with two means).
fn spread(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    let mean = sorted.iter().sum::<f64>() / n.max(1) as f64;
    let total: f64 = sorted.iter().map(|v| (v - mean).powi(2)).sum();
    let mut below = 0.0;
    let mut between = 0.0f64;
    for (i, v) in sorted.iter().enumerate().take(n.saturating_sub(1)) {
        below += v - mean;
        let (left, right) = ((i + 1) as f64, (n - i - 1) as f64);
        between = between.max(below * below / left + below * below / right);
    }
    ((total - between).max(0.0) / n.max(1) as f64).sqrt()
}

/// The valley with the smallest p-value of the Gaussian kernel density of sorted values, as distances.
fn valley(sorted: &[f64], bandwidth: f64) -> Option<Valley> {
    let (&lo, &hi) = (sorted.first()?, sorted.last()?);
    let (start, end) = (lo - 3.0 * bandwidth, hi + 3.0 * bandwidth);
    let step = (end - start) / (GRID - 1) as f64;
    let at = |i: usize| start + i as f64 * step;
    let reach = 5.0 * bandwidth;
    let density: Vec<f64> = (0..GRID)
        .into_par_iter()
        .map(|i| {
            let x = at(i);
            let from = sorted.partition_point(|v| *v < x - reach);
            let to = sorted.partition_point(|v| *v <= x + reach);
            sorted[from..to].iter().map(|v| (-0.5 * ((v - x) / bandwidth).powi(2)).exp()).sum()
        })
        .collect();
    // Index of the highest point up to each grid point in the order given.
    let highest = |order: &mut dyn Iterator<Item = usize>| {
        let mut best = None;
        let mut out = vec![0; GRID];
        for i in order {
            let top = best.filter(|&b: &usize| density[b] >= density[i]).unwrap_or(i);
            best = Some(top);
            out[i] = top;
        }
        out
    };
    let (left, right) = (highest(&mut (0..GRID)), highest(&mut (0..GRID).rev()));
    let found = (1..GRID - 1).filter(|&i| density[i] < density[i - 1] && density[i] <= density[i + 1]);
    let judged = found.filter_map(|i| {
        let peak = density[left[i]].min(density[right[i]]);
        let depth = 1.0 - density[i] / peak;
        if depth < LEAST_DEPTH {
            return None;
        }
        let flat = |j: &usize| density[*j] <= density[i] + FLAT * peak;
        let from = (0..=i).rev().take_while(flat).last()?;
        let to = (i..GRID).take_while(flat).last()?;
        let (below, middle, above) = (at(left[i]), 0.5 * (at(from) + at(to)), at(right[i]));
        let half = 0.5 * (middle - below).min(above - middle);
        let within = |centre: f64| {
            sorted.partition_point(|v| *v <= centre + half) - sorted.partition_point(|v| *v < centre - half)
        };
        let few = within(middle);
        let uneven = [below, above].map(|peak| log_heads(within(peak), within(peak) + few));
        let log_p = uneven[0].max(uneven[1]) + ((hi - lo) / (2.0 * half)).ln_1p();
        // For large sets the p-value is below the smallest f64.
        let p = log_p.min(0.0).max(f64::MIN_POSITIVE.ln()).exp();
        let valley = Valley { lower_peak: below.exp(), upper_peak: above.exp(), at: middle.exp(), depth, p };
        Some((log_p, valley))
    });
    judged.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, valley)| valley)
}

/// Logarithm of the probability of at least `least` heads in `n` throws of a fair coin.
fn log_heads(least: usize, n: usize) -> f64 {
    let factorial = |k: usize| libm::lgamma(k as f64 + 1.0);
    let one = |k: usize| factorial(n) - factorial(k) - factorial(n - k) - n as f64 * std::f64::consts::LN_2;
    let all: Vec<f64> = (least..=n).map(one).collect();
    let top = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + all.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SEED, Stream};

    const FLOOR: f64 = 1e-3;
    const NONE: Null<'_> = Null { held_out: None, within: &[] };

    /// Lognormal distances around `centre`.
    fn around(s: &mut Stream, n: usize, centre: f64, width: f64) -> Vec<f64> {
        (0..n).map(|_| centre * (width * s.normal()).exp()).collect()
    }

    fn found(distances: &[f64], null: Null<'_>) -> Threshold {
        threshold("d", distances, FLOOR, null, None, SEED)
    }

    #[test]
    fn the_valley_lies_between_two_modes() {
        let mut s = Stream::new(SEED, "valley");
        for (n, m) in [(300, 300), (60, 1000), (20, 3000), (1000, 60), (20, 20)] {
            let d = [around(&mut s, n, 0.1, 0.4), around(&mut s, m, 4.0, 0.15)].concat();
            let t = found(&d, NONE);
            assert_eq!(t.origin, Origin::Valley, "{n}, {m}: {t:?}");
            let v = t.value.unwrap();
            assert!(v > 0.3 && v < 2.6, "{n}, {m}: {v}");
            let wrong =
                d[..n].iter().filter(|d| **d > v).count() + d[n..].iter().filter(|d| **d <= v).count();
            assert!(wrong <= (n + m) / 100, "{n}, {m}: {wrong} on the wrong side");
        }
        // Two modes of the same width with as many each: the valley is halfway in log distance.
        let d = [around(&mut s, 4000, 1.0, 0.3), around(&mut s, 4000, 9.0, 0.3)].concat();
        let v = found(&d, NONE).value.unwrap();
        assert!((v.ln() - 3.0f64.ln()).abs() < 0.3, "{v}");
    }

    #[test]
    fn one_mode_has_no_threshold_without_held_out_data() {
        let mut s = Stream::new(SEED, "one mode");
        for (n, width) in [(2000, 0.1), (2000, 0.5), (50, 0.3), (8, 0.2)] {
            let t = found(&around(&mut s, n, 3.0, width), NONE);
            assert_eq!((t.value, t.origin), (None, Origin::Unknown), "{t:?}");
            assert!(t.because.contains("unimodal") && t.because.contains("no held-out"), "{}", t.because);
        }
        // Skewed both ways, and evenly spread.
        let long: Vec<f64> = (0..2000).map(|_| (-(1.0 - s.uniform()).ln()).exp()).collect();
        let short: Vec<f64> = long.iter().map(|v| 1.0 / v).collect();
        let even: Vec<f64> = (0..2000).map(|_| (2.0 * s.uniform()).exp()).collect();
        for d in [long, short, even] {
            assert_eq!(found(&d, NONE).origin, Origin::Unknown);
        }
    }

    #[test]
    fn with_one_mode_the_null_gives_the_threshold() {
        let mut s = Stream::new(SEED, "null");
        let held_out = around(&mut s, 1000, 4.0, 0.15);
        let null = Null { held_out: Some(&held_out), within: &[] };
        for centre in [0.05, 4.0] {
            let t = found(&around(&mut s, 500, centre, 0.15), null);
            assert_eq!(t.origin, Origin::Null, "{t:?}");
            let v = t.value.unwrap();
            assert!(v > 2.4 && v < 3.2, "{v}");
            assert!((t.null_rate.unwrap() - NULL_QUANTILE).abs() < 0.002, "{t:?}");
        }
        // Held-out data that was trained on says nothing.
        let copies = vec![0.0; 100];
        let t = found(&held_out, Null { held_out: Some(&copies), within: &[] });
        assert!(t.value.is_none() && t.because.contains("copies"), "{t:?}");
    }

    #[test]
    fn modes_of_the_real_data_itself_are_no_threshold() {
        // A tenth of real images lie close together, as the digit 1 does.
        let mut s = Stream::new(SEED, "real modes");
        let mut real =
            |n: usize| [around(&mut s, n / 10, 2.0, 0.1), around(&mut s, n - n / 10, 7.0, 0.1)].concat();
        let (within, samples) = (real(1000), real(2000));
        assert_eq!(found(&samples, NONE).origin, Origin::Valley);
        let null = Null { held_out: None, within: &within };
        assert_eq!(found(&samples, null).origin, Origin::Unknown);
        // Copies below both are found, and what has run away does not matter.
        let d = [around(&mut s, 300, 0.1, 0.4), samples, vec![1e9; 500]].concat();
        let v = found(&d, null).value.unwrap();
        assert!(v > 0.3 && v < 1.6, "{v}");
    }

    #[test]
    fn the_valleys_own_test_is_not_fooled_by_one_mode() {
        let kinds: [fn(&mut Stream) -> f64; 4] = [
            |s| s.normal(),
            |s| s.uniform(),
            |s| -(1.0 - s.uniform()).ln(),
            // Half of them at the cap.
            |s| s.normal().min(0.0),
        ];
        let mut fooled = 0;
        for (k, kind) in kinds.iter().enumerate() {
            for i in 0..100 {
                let mut s = Stream::new(SEED, &format!("one mode {k}/{i}"));
                let mut logs: Vec<f64> = (0..[30, 300][i % 2]).map(|_| kind(&mut s)).collect();
                logs.sort_unstable_by(f64::total_cmp);
                let bandwidth = (0.9 * spread(&logs) * (logs.len() as f64).powf(-0.2)).max(LEAST_BANDWIDTH);
                fooled += usize::from(valley(&logs, bandwidth).is_some_and(|v| v.p <= SIGNIFICANT));
            }
        }
        // 1 in 100 at most, that is 4 with standard deviation 2: that and two of those.
        assert!(fooled <= 8, "{fooled} of 400");
        assert!((log_heads(9, 10).exp() - 11.0 / 1024.0).abs() < 1e-12);
        assert!(log_heads(0, 0) == 0.0 && log_heads(5, 10) > -0.5);
    }

    #[test]
    fn exact_copies_stand_at_the_floor() {
        let mut s = Stream::new(SEED, "floor");
        let d = [vec![0.0; 200], vec![1e-9; 10], around(&mut s, 200, 5.0, 0.1)].concat();
        let t = found(&d, NONE);
        let modes = t.modes.unwrap();
        assert_eq!((t.origin, modes.at_floor), (Origin::Valley, 210));
        assert!(t.value.unwrap() > 0.01 && t.value.unwrap() < 1.0, "{:?}", t.value);
        // Nothing but copies.
        let t = found(&[0.0; 50], NONE);
        assert_eq!((t.value, t.origin), (None, Origin::Unknown));
    }

    #[test]
    fn the_users_threshold_wins_and_no_distances_give_none() {
        let d = [1.0, 2.0, 3.0];
        let t = threshold("d", &d, FLOOR, NONE, Some(2.5), SEED);
        assert_eq!((t.value, t.origin), (Some(2.5), Origin::Manual));
        assert_eq!(found(&[], NONE).origin, Origin::NoDistances);
        let t = found(&[7.0], NONE);
        assert_eq!((t.value, t.origin), (None, Origin::Unknown));
    }
}
