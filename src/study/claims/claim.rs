//! The paper's claims, each compared with a measured value, its interval and a verdict.
//!
//! The functions take curves over K. One rule gives every verdict: a claim holds when the whole interval is on its side,
//! does not hold when the whole interval is on the other side, and holds in part otherwise. Where the paper says "near
//! one" and the like, the bounds are this project's own.
//!
//! Intervals assume independent samples. Samples of one spurious group are not independent, so the intervals of
//! fractions tend to be too narrow. They do not include the variation between training seeds.

use serde::{Deserialize, Serialize};

use crate::class::Group;
use crate::detect::wilson;
use crate::frame::real;
use crate::random::{SEED, Stream};
use crate::setting::SettingError;
use crate::study::energy::GapRow;
use crate::study::error::StudyError;

/// Version of the numbers of this study. Raise it with every change that moves them.
pub const VERSION: u32 = 4;

/// A fraction of at least this is near one; one of at most one minus this is near zero.
pub const NEAR_ONE: f64 = 0.9;

/// Significance level.
pub const LEVEL: f64 = 0.05;

/// Number of bootstrap resamples.
const RESAMPLES: usize = 2000;

/// Whether a claim holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The whole interval is on the claim's side.
    #[serde(rename = "holds")]
    Holds,
    /// The interval includes both sides, or only a part of the claim holds; the statistic says which.
    #[serde(rename = "holds in part")]
    InPart,
    /// The whole interval is on the other side, or the claim is met at no K.
    #[serde(rename = "does not hold here")]
    DoesNotHold,
    /// A quantity that the claim needs was not measured; the statistic says which.
    #[default]
    #[serde(rename = "not measured")]
    NotMeasured,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 4] = [Self::Holds, Self::InPart, Self::DoesNotHold, Self::NotMeasured];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::InPart => "holds in part",
            Self::DoesNotHold => "does not hold here",
            Self::NotMeasured => "not measured",
        }
    }

    /// The verdict for a quantity claimed to be at least `bound`.
    fn above([low, high]: [f64; 2], bound: f64) -> Self {
        match (low >= bound, high < bound) {
            (true, _) => Self::Holds,
            (_, true) => Self::DoesNotHold,
            _ => Self::InPart,
        }
    }

    /// The verdict for a quantity claimed to be at most `bound`.
    fn below([low, high]: [f64; 2], bound: f64) -> Self {
        Self::above([-high, -low], -bound)
    }
}

/// One row of the table of claims.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The claim in words.
    pub claim: String,
    /// Figure in the paper; "-" without one.
    pub figure: String,
    /// The data set.
    pub dataset: String,
    /// The network or networks.
    pub network: String,
    /// The measured statistic, in words.
    pub statistic: String,
    /// Value of the statistic; `None` when it was not measured.
    pub value: Option<f64>,
    /// 95 percent interval of the value, including both ends.
    pub interval: Option<[f64; 2]>,
    /// p-value, corrected for multiple comparisons, for claims with a test.
    pub p: Option<f64>,
    /// Whether the claim holds.
    pub verdict: Verdict,
    /// The command that measures the statistic again.
    pub command: String,
}

/// Claims, one row each.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The rows.
    pub rows: Vec<Claim>,
}

/// The subject of a claim.
///
/// ```
/// use mem2gen::study::claims::{About, SizeShare, Verdict};
///
/// let about = About { dataset: "mnist", network: "mlp128", command: "mem2gen sweep --plan mnist-mlp" };
/// let share = |k, count| SizeShare { k, count, samples: 512 };
/// let claim = about.spurious_peak(&[share(16, 0), share(128, 200), share(1024, 10)])?;
/// assert_eq!((claim.value, claim.verdict), (Some(200.0 / 512.0), Verdict::Holds));
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The data set.
    pub dataset: &'a str,
    /// The network or networks.
    pub network: &'a str,
    /// The command that measures the statistic again.
    pub command: &'a str,
}

/// The number of samples with a label, for a model with K training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeShare {
    /// Training images.
    pub k: usize,
    /// Number of samples with the label.
    pub count: usize,
    /// Number of all samples.
    pub samples: usize,
}

impl SizeShare {
    fn fraction(self) -> f64 {
        self.count as f64 / self.samples as f64
    }

    fn interval(self) -> [f64; 2] {
        wilson(self.fraction(), self.samples).into()
    }

    /// The others.
    fn rest(self) -> Self {
        Self { count: self.samples - self.count, ..self }
    }
}

/// A mean at K training images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizeMean {
    /// Training images.
    pub k: usize,
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// The standard error combines the error over images with the standard deviation between references: the score of a
/// network is not a gradient, so that the gap depends on the reference.
impl From<&GapRow> for SizeMean {
    fn from(row: &GapRow) -> Self {
        Self { k: row.k, mean: row.gap, standard_error: row.standard_error.hypot(row.between) }
    }
}

/// What was found of a toy network on K points of the circle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToyPhase {
    /// Training points.
    pub k: usize,
    /// Number of memorized attractors of the network.
    pub memorized: usize,
    /// Number of its spurious attractors.
    pub spurious: usize,
    /// Root mean square difference of its energy from the energy of the ring, in nats.
    pub from_ring: f64,
}

/// The measured side of a claim.
struct Measured {
    statistic: String,
    value: Option<f64>,
    interval: Option<[f64; 2]>,
    p: Option<f64>,
    verdict: Verdict,
}

impl Measured {
    fn new(statistic: String, value: f64, interval: [f64; 2], verdict: Verdict) -> Self {
        Self { statistic, value: Some(value), interval: Some(interval), p: None, verdict }
    }

    fn missing(what: &str) -> Self {
        let verdict = Verdict::NotMeasured;
        Self { statistic: what.into(), value: None, interval: None, p: None, verdict }
    }
}

impl About<'_> {
    fn claim(&self, claim: &str, figure: &str, found: Measured) -> Claim {
        let Measured { statistic, value, interval, p, verdict } = found;
        Claim {
            claim: claim.into(),
            figure: figure.into(),
            dataset: self.dataset.into(),
            network: self.network.into(),
            statistic,
            value,
            interval,
            p,
            verdict,
            command: self.command.into(),
        }
    }

    /// The claim that several fractions are near one: the value is the least of them.
    fn near_one(&self, claim: &str, figure: &str, parts: &[(String, SizeShare)]) -> Claim {
        let least = |a: SizeShare, b: SizeShare| if b.fraction() < a.fraction() { b } else { a };
        let found = match parts.iter().map(|(_, share)| *share).reduce(least) {
            None => Measured::missing("fewer than two K"),
            Some(s) => {
                let each: Vec<String> = parts
                    .iter()
                    .map(|(what, s)| format!("{what} at K = {} ({})", s.k, real(s.fraction(), 4)))
                    .collect();
                let statistic = format!("least of {}, claimed near 1 ({NEAR_ONE})", each.join(", "));
                Measured::new(statistic, s.fraction(), s.interval(), Verdict::above(s.interval(), NEAR_ONE))
            }
        };
        self.claim(claim, figure, found)
    }

    /// "Few training images are memorized, many are not": at the smallest K nearly all samples are memorized; at the largest
    /// hardly any are, and nearly all are generalized.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a count above its samples.
    pub fn generalization_follows(
        &self,
        memorized: &[SizeShare],
        generalized: &[SizeShare],
    ) -> Result<Claim, StudyError> {
        let parts = match (tidy(memorized)?.as_slice(), tidy(generalized)?.last()) {
            ([first, .., last], Some(g)) => vec![
                ("the memorized fraction".to_owned(), *first),
                ("1 minus it".to_owned(), last.rest()),
                ("the generalized fraction".to_owned(), *g),
            ],
            _ => Vec::new(),
        };
        Ok(self.near_one("samples are memorized at small K and generalized at large K", "Fig. 4A", &parts))
    }

    /// Training images are attractors of the network at the smallest K and no longer at the largest: the numbers of training
    /// images from which the retrieval map stays within delta. They are counts of all images, so they have no interval. Not in
    /// the paper.
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn images_stop_attracting(&self, stay: &[SizeShare]) -> Result<Claim, StudyError> {
        let all = tidy(stay)?;
        let found = match all.as_slice() {
            [first, .., last] => {
                let more = |a: SizeShare, b: SizeShare| if b.count > a.count { b } else { a };
                let most = all.iter().copied().fold(*first, more);
                let each =
                    [*first, most, *last].map(|s| format!("{} of {} at K = {}", s.count, s.samples, s.k));
                let [at_first, at_most, at_last] = each;
                let statistic = format!(
                    "training images that the retrieval map keeps: {at_first}, most {at_most}, {at_last}"
                );
                let kept = [first.fraction() >= NEAR_ONE, last.fraction() <= 1.0 - NEAR_ONE];
                let verdict = match kept {
                    [true, true] => Verdict::Holds,
                    [false, false] => Verdict::DoesNotHold,
                    _ => Verdict::InPart,
                };
                Measured { statistic, value: Some(most.count as f64), interval: None, p: None, verdict }
            }
            _ => Measured::missing("fewer than two K"),
        };
        Ok(self.claim("training images are attractors at small K and none at large K", "-", found))
    }

    /// Noise flows to training images at the smallest K and to none at the largest. Not in the paper.
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn noise_flows_elsewhere(&self, memorized: &[SizeShare]) -> Result<Claim, StudyError> {
        let parts = match tidy(memorized)?.as_slice() {
            [first, .., last] => vec![
                ("the share of noise that flows to memorized attractors".to_owned(), *first),
                ("1 minus it".to_owned(), last.rest()),
            ],
            _ => Vec::new(),
        };
        Ok(self.near_one("noise flows to training images at small K and to none at large K", "-", &parts))
    }

    /// "Spurious states appear at the transition": the spurious fraction is largest between the smallest and the
    /// largest K, and larger than at both. The probability is the larger of two tests of equal proportions (pooled,
    /// one-sided), times the number of K that the peak was chosen from (Bonferroni).
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn spurious_peak(&self, spurious: &[SizeShare]) -> Result<Claim, StudyError> {
        let all = tidy(spurious)?;
        let found = match all.as_slice() {
            [first, inner @ .., last] if !inner.is_empty() => {
                let top = |a: SizeShare, b: SizeShare| if b.fraction() > a.fraction() { b } else { a };
                let peak = all.iter().copied().fold(*first, top);
                let p =
                    [first, last].map(|end| equal_proportions(peak, *end)).into_iter().fold(0.0, f64::max);
                let p = (p * all.len() as f64).min(1.0);
                let verdict = match inner.iter().any(|s| s.k == peak.k) {
                    true if p < LEVEL => Verdict::Holds,
                    true => Verdict::InPart,
                    false => Verdict::DoesNotHold,
                };
                let statistic = format!(
                    "largest spurious fraction, at K = {}; at the ends {:.3} (K = {}) and {:.3} (K = {})",
                    peak.k,
                    first.fraction(),
                    first.k,
                    last.fraction(),
                    last.k
                );
                Measured { p: Some(p), ..Measured::new(statistic, peak.fraction(), peak.interval(), verdict) }
            }
            _ => Measured::missing("fewer than three K"),
        };
        Ok(self.claim("spurious samples are most frequent between small and large K", "Fig. 4A", found))
    }

    /// "The more parameters, the later the transition": log2 of the ratio of the K at which half of the samples are
    /// memorized, wider over narrower network. The interval is a bootstrap of the counts.
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn wider_is_later(&self, narrow: &[SizeShare], wide: &[SizeShare]) -> Result<Claim, StudyError> {
        let (narrow, wide) = (tidy(narrow)?, tidy(wide)?);
        let found = match (transition_size(&narrow, SEED)?, transition_size(&wide, SEED)?) {
            (Some(a), Some(b)) => {
                let drawn = |shares, name| resampled(shares, SEED, name, half);
                let ratios = drawn(&wide, "wide").into_iter().zip(drawn(&narrow, "narrow"));
                let interval = percentiles(ratios.map(|(b, a)| (b / a).log2()).collect());
                let statistic = format!(
                    "log2 of the ratio of K where half the samples are memorized: {} over {}",
                    b.described(),
                    a.described()
                );
                Measured::new(statistic, (b.k / a.k).log2(), interval, Verdict::above(interval, 0.0))
            }
            _ => Measured::missing("half of the samples are memorized at no K between those measured"),
        };
        Ok(self.claim("the transition comes later for the wider network", "Figs. 7, 8", found))
    }

    /// The spurious fraction peaks at a larger K for the wider network: log2 of the ratio of the two K. The interval is a
    /// bootstrap of the counts, and K is one of those measured.
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn wider_peaks_later(&self, narrow: &[SizeShare], wide: &[SizeShare]) -> Result<Claim, StudyError> {
        let (narrow, wide) = (tidy(narrow)?, tidy(wide)?);
        let found = match (peak(&fractions(&narrow)), peak(&fractions(&wide))) {
            (Some(a), Some(b)) => {
                let drawn =
                    |shares, name| resampled(shares, SEED, name, |points| peak(points).unwrap_or(f64::NAN));
                let ratios = drawn(&wide, "wide peak").into_iter().zip(drawn(&narrow, "narrow peak"));
                let interval = percentiles(ratios.map(|(b, a)| (b / a).log2()).collect());
                let statistic =
                    format!("log2 of the ratio of K with the most spurious samples: {b} over {a}");
                Measured::new(
                    statistic,
                    (b / a).log2(),
                    interval,
                    Verdict::above(interval, f64::MIN_POSITIVE),
                )
            }
            _ => Measured::missing("no samples"),
        };
        Ok(self.claim("the spurious peak comes later for the wider network", "Figs. 7, 8", found))
    }

    /// "With 8K samples slightly more are spurious than with 4K" (B.5): the largest share over K of the samples of the smaller
    /// sets that count as spurious in the larger ones alone. A sample's nearest other sample can only come nearer when samples
    /// are added, so that with the same thresholds a decrease is impossible; the size of the increase is the result. The interval is Wilson's, and has
    /// 95 percent for all K together (Bonferroni).
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn larger_sets_have_more_spurious(&self, turned: &[SizeShare]) -> Result<Claim, StudyError> {
        let all = tidy(turned)?;
        let z = normal_quantile(1.0 - 0.5 * LEVEL / all.len().max(1) as f64);
        let top = |a: SizeShare, b: SizeShare| if b.fraction() > a.fraction() { b } else { a };
        let found = match all.iter().copied().reduce(top) {
            None => Measured::missing("no two sets of one network"),
            Some(most) => {
                let interval = score_interval(most, z);
                let statistic = format!(
                    "largest share of the samples of 4K that are spurious among 8K alone: K = {}, of {} K; with the same thresholds none is lost",
                    most.k,
                    all.len()
                );
                let verdict = match (most.count, interval[0] > 0.0) {
                    (0, _) => Verdict::DoesNotHold,
                    (_, true) => Verdict::Holds,
                    (_, false) => Verdict::InPart,
                };
                Measured::new(statistic, most.fraction(), interval, verdict)
            }
        };
        Ok(self.claim("with 8K samples more are spurious than with 4K", "Fig. 9", found))
    }

    /// The three phases of the toy (Fig. 2): with few points every point is an attractor and nothing else is, with more there are
    /// spurious attractors, and with many the energy is that of the whole ring, to at most a tenth of the difference before.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for other than three phases in the order of K.
    pub fn three_phases(&self, phases: &[ToyPhase]) -> Result<Claim, StudyError> {
        let [few, some, many] = phases else {
            return refused("phases", format!("{} networks", phases.len()), "three networks");
        };
        if !(few.k < some.k && some.k < many.k) {
            return refused("phases", format!("K = {}, {}, {}", few.k, some.k, many.k), "ascending K");
        }
        let kept = [
            few.memorized == few.k && few.spurious == 0,
            some.spurious > 0,
            many.from_ring <= 0.1 * some.from_ring,
        ];
        let statistic = format!(
            "memorized attractors {} of {} and spurious {} at K = {}; spurious {} at K = {}; energy from the ring's {} nats there and \
             {} at K = {}",
            few.memorized,
            few.k,
            few.spurious,
            few.k,
            some.spurious,
            some.k,
            real(some.from_ring, 3),
            real(many.from_ring, 3),
            many.k
        );
        let verdict = match kept.iter().filter(|kept| **kept).count() {
            3 => Verdict::Holds,
            0 => Verdict::DoesNotHold,
            _ => Verdict::InPart,
        };
        let found =
            Measured { statistic, value: Some(some.spurious as f64), interval: None, p: None, verdict };
        Ok(self.claim("memorized, then spurious, then the whole circle", "Fig. 2", found))
    }

    /// "The exact score memorizes at every K": the smallest memorized fraction of its samples is near one.
    ///
    /// # Errors
    /// As [`Self::generalization_follows`].
    pub fn exact_memorizes(&self, memorized: &[SizeShare]) -> Result<Claim, StudyError> {
        let all = tidy(memorized)?;
        let least = |a: SizeShare, b: SizeShare| if b.fraction() < a.fraction() { b } else { a };
        let found = match all.iter().copied().reduce(least) {
            None => Measured::missing("no samples of the exact score"),
            Some(s) => Measured::new(
                format!(
                    "smallest memorized fraction of {} K, at K = {}, claimed near 1 ({NEAR_ONE})",
                    all.len(),
                    s.k
                ),
                s.fraction(),
                s.interval(),
                Verdict::above(s.interval(), NEAR_ONE),
            ),
        };
        Ok(self.claim("the exact score memorizes at every K", "-", found))
    }

    /// One group has a larger mean than another: the difference of the means, averaged over the K with both. It holds in
    /// part when a single K contradicts it significantly. Fig. 4B: basins of memorized samples are larger than those of spurious
    /// samples, which are larger than those of generalized samples. Fig. 5A: the curvature is in the same order.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a mean that is not finite.
    pub fn larger(
        &self,
        (claim, figure, what): (&str, &str, &str),
        high: &[SizeMean],
        low: &[SizeMean],
    ) -> Result<Claim, StudyError> {
        let found = direction(what, &differences(high, low)?, "no K with enough of both groups");
        Ok(self.claim(claim, figure, found))
    }

    /// A mean falls, or `rises`, with K: the least-squares slope over log2 K. It holds in part when a single step goes the
    /// other way significantly.
    ///
    /// # Errors
    /// As [`Self::larger`].
    pub fn trend(
        &self,
        (claim, figure, what): (&str, &str, &str),
        means: &[SizeMean],
        rises: bool,
    ) -> Result<Claim, StudyError> {
        let all = ascending(means)?;
        let found = if all.len() < 2 {
            Measured::missing("fewer than two K")
        } else {
            let x: Vec<f64> = all.iter().map(|m| (m.k as f64).log2()).collect();
            let centre = x.iter().sum::<f64>() / x.len() as f64;
            let square: f64 = x.iter().map(|x| (x - centre).powi(2)).sum();
            let weights = x.iter().map(|x| (x - centre) / square);
            let slope: f64 = weights.clone().zip(&all).map(|(w, m)| w * m.mean).sum();
            let variance: f64 = weights.zip(&all).map(|(w, m)| (w * m.standard_error).powi(2)).sum();
            let half = normal_quantile(1.0 - 0.5 * LEVEL) * variance.sqrt();
            let interval = [slope - half, slope + half];
            let step = |w: &[SizeMean]| match rises {
                true => Difference::between(w[1].k, &w[1], &w[0]),
                false => Difference::between(w[1].k, &w[0], &w[1]),
            };
            let steps: Vec<Difference> = all.windows(2).map(step).collect();
            let with = steps.iter().filter(|d| d.value > 0.0).count();
            let (way, verdict) = match rises {
                true => ("rises", Verdict::above(interval, 0.0)),
                false => ("falls", Verdict::below(interval, 0.0)),
            };
            let statistic =
                format!("slope of {what} over log2 K; it {way} in {with} of {} steps", steps.len());
            Measured::new(statistic, slope, interval, in_part_if(contradicted(&steps), verdict))
        };
        Ok(self.claim(claim, figure, found))
    }

    /// "The memorized gap is near zero at first and then diverges": the increase of its absolute value from the smallest
    /// to the largest K with memorized samples. It holds in part when the increase is above zero but the first gap is
    /// neither within its error of zero nor at most a tenth of the last.
    ///
    /// # Errors
    /// As [`Self::larger`].
    pub fn memorized_gap_diverges(&self, memorized: &[SizeMean]) -> Result<Claim, StudyError> {
        let found = match ascending(memorized)?.as_slice() {
            [first, .., last] => {
                let z = normal_quantile(1.0 - 0.5 * LEVEL);
                let value = last.mean.abs() - first.mean.abs();
                let half = z * first.standard_error.hypot(last.standard_error);
                let interval = [value - half, value + half];
                let near = first.mean.abs() <= (z * first.standard_error).max(0.1 * last.mean.abs());
                let statistic = format!(
                    "size of the memorized gap at K = {} ({:.4}) minus that at K = {} ({:.4}, {} zero)",
                    last.k,
                    last.mean,
                    first.k,
                    first.mean,
                    if near { "near" } else { "not near" }
                );
                Measured::new(statistic, value, interval, in_part_if(!near, Verdict::above(interval, 0.0)))
            }
            _ => Measured::missing("fewer than two K with enough memorized samples"),
        };
        Ok(self.claim("the memorized energy gap is near zero at small K and then diverges", "Fig. 6", found))
    }

    /// "Spurious samples have the lowest energy in the transition": their gap minus the largest gap of the other classes
    /// (a larger gap is a lower energy), averaged over the K within `transition`, including both ends. See
    /// [`transition_range`].
    ///
    /// # Errors
    /// As [`Self::larger`].
    pub fn spurious_lowest(
        &self,
        spurious: &[SizeMean],
        others: &[&[SizeMean]],
        transition: Option<(f64, f64)>,
    ) -> Result<Claim, StudyError> {
        let mut all = Vec::new();
        let others = others.iter().map(|o| ascending(o)).collect::<Result<Vec<_>, _>>()?;
        for s in ascending(spurious)? {
            let inside = transition.is_some_and(|(from, to)| (from..=to).contains(&(s.k as f64)));
            let there = others.iter().flatten().filter(|o| o.k == s.k);
            let rival = there.reduce(|a, b| if b.mean > a.mean { b } else { a });
            if let (true, Some(rival)) = (inside, rival) {
                all.push(Difference::between(s.k, &s, rival));
            }
        }
        let what = match transition {
            Some((from, to)) => format!(
                "gap of spurious samples minus the largest other one, K from {from:.0} to {to:.0} (larger gap, lower \
                 energy)"
            ),
            None => String::new(),
        };
        let found = direction(&what, &all, "no K in the transition with enough samples of two classes");
        Ok(self.claim("spurious samples have the lowest energy in the transition", "Fig. 6", found))
    }

    /// "The generalized gap is the narrowest at large K": the smallest absolute gap of the other classes minus that of the
    /// generalized samples, at the largest K with generalized samples and another class.
    ///
    /// # Errors
    /// As [`Self::larger`].
    pub fn generalized_narrowest(
        &self,
        generalized: &[SizeMean],
        others: &[(Group, &[SizeMean])],
    ) -> Result<Claim, StudyError> {
        let mut found = Measured::missing("no K with enough generalized samples and those of another class");
        for g in ascending(generalized)?.iter().rev() {
            let mut rivals = Vec::new();
            for (class, means) in others {
                rivals.extend(ascending(means)?.into_iter().filter(|m| m.k == g.k).map(|m| (*class, m)));
            }
            let narrower = |a: (Group, SizeMean), b: (Group, SizeMean)| {
                if b.1.mean.abs() < a.1.mean.abs() { b } else { a }
            };
            let classes = rivals.len();
            if let Some((class, rival)) = rivals.into_iter().reduce(narrower) {
                let value = rival.mean.abs() - g.mean.abs();
                let half = normal_quantile(1.0 - 0.5 * LEVEL) * rival.standard_error.hypot(g.standard_error);
                let interval = [value - half, value + half];
                let statistic = format!(
                    "size of the {class} gap ({:.4}, narrowest of {classes}) minus that of the generalized one \
                     ({:.4}), at K = {}, the largest with both",
                    rival.mean, g.mean, g.k
                );
                found = Measured::new(statistic, value, interval, Verdict::above(interval, 0.0));
                break;
            }
        }
        Ok(self.claim("the generalized energy gap is the narrowest at large K", "Fig. 6", found))
    }
}

/// The K at which half of the samples of a network are memorized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HalfSize {
    /// K, interpolated in log K between the two neighbouring sizes.
    pub k: f64,
    /// 95 percent percentile interval of a bootstrap of the counts, within the measured sizes.
    pub interval: [f64; 2],
}

impl HalfSize {
    fn described(&self) -> String {
        let [low, high] = self.interval;
        format!("{:.0} [{low:.0}, {high:.0}]", self.k)
    }
}

/// The K at which half of the samples are memorized; `None` when it is not between the measured sizes.
///
/// ```
/// use mem2gen::study::claims::{SizeShare, transition_size};
///
/// let shares = [(64, 750), (256, 250)].map(|(k, count)| SizeShare { k, count, samples: 1000 });
/// let half = transition_size(&shares, 1)?.expect("the fraction crosses one half");
/// assert!((half.k - 128.0).abs() < 1e-9);
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
///
/// # Errors
/// [`StudyError::Setting`] for a count above its samples.
pub fn transition_size(memorized: &[SizeShare], seed: u64) -> Result<Option<HalfSize>, StudyError> {
    let all = tidy(memorized)?;
    let Some(k) = falls_to(&fractions(&all), 0.5) else { return Ok(None) };
    Ok(Some(HalfSize { k, interval: percentiles(resampled(&all, seed, "transition", half)) }))
}

/// The K at which the memorized fraction falls to [`NEAR_ONE`] and to one minus [`NEAR_ONE`], interpolated in log K. The
/// first or the last K stands for a level that the fraction does not cross.
///
/// # Errors
/// As [`transition_size`].
pub fn transition_range(memorized: &[SizeShare]) -> Result<Option<(f64, f64)>, StudyError> {
    let points = fractions(&tidy(memorized)?);
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(None) };
    let at = |level, other| falls_to(&points, level).unwrap_or(other);
    Ok(Some((at(NEAR_ONE, first.0), at(1.0 - NEAR_ONE, last.0))))
}

fn fractions(shares: &[SizeShare]) -> Vec<(f64, f64)> {
    shares.iter().map(|s| (s.k as f64, s.fraction())).collect()
}

/// The first K at which a curve of (K, fraction) falls from `level` or above to below it.
fn falls_to(points: &[(f64, f64)], level: f64) -> Option<f64> {
    points.windows(2).find(|w| w[0].1 >= level && w[1].1 < level).map(|w| {
        let part = (w[0].1 - level) / (w[0].1 - w[1].1);
        w[0].0 * (w[1].0 / w[0].0).powf(part)
    })
}

/// The K with the largest fraction, the first of equal ones.
fn peak(points: &[(f64, f64)]) -> Option<f64> {
    points.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(k, _)| k)
}

/// The K at which a fraction falls below one half. A curve that does not cross one half gives the first K when it starts
/// below one half, else the last.
fn half(points: &[(f64, f64)]) -> f64 {
    falls_to(points, 0.5).unwrap_or_else(|| {
        let (first, last) = (points[0], points[points.len() - 1]);
        if first.1 < 0.5 { first.0 } else { last.0 }
    })
}

/// A statistic of the curve of (K, fraction), for resampled counts.
fn resampled(
    shares: &[SizeShare],
    seed: u64,
    name: &str,
    statistic: impl Fn(&[(f64, f64)]) -> f64,
) -> Vec<f64> {
    let again = |i: usize| {
        let mut stream = Stream::new(seed, &format!("claims: {name}/{i}"));
        let points: Vec<(f64, f64)> = shares
            .iter()
            .map(|s| (s.k as f64, binomial(&mut stream, s.samples, s.fraction()) as f64 / s.samples as f64))
            .collect();
        statistic(&points)
    };
    (0..RESAMPLES).map(again).collect()
}

/// Wilson's interval at z standard deviations.
fn score_interval(s: SizeShare, z: f64) -> [f64; 2] {
    let (p, n) = (s.fraction(), s.samples as f64);
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let low = if s.count == 0 { 0.0 } else { (centre - half) / (1.0 + z * z / n) };
    [low, (centre + half) / (1.0 + z * z / n)]
}

/// A draw from a binomial distribution: from waiting times for a small variance, else from the normal limit.
fn binomial(stream: &mut Stream, n: usize, p: f64) -> usize {
    let variance = n as f64 * p * (1.0 - p);
    if variance > 30.0 {
        let drawn = n as f64 * p + variance.sqrt() * stream.normal();
        return drawn.round().clamp(0.0, n as f64) as usize;
    }
    if p > 0.5 {
        return n - binomial(stream, n, 1.0 - p);
    }
    if p <= 0.0 {
        return 0;
    }
    let (mut count, mut at) = (0, 0.0);
    loop {
        // Number of trials up to and including the next success.
        at += ((-stream.uniform()).ln_1p() / (-p).ln_1p()).floor() + 1.0;
        if at > n as f64 {
            return count;
        }
        count += 1;
    }
}

fn percentiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|p| values[((values.len() - 1) as f64 * p).round() as usize])
}

/// A difference that is claimed to be above zero.
struct Difference {
    k: usize,
    value: f64,
    error: f64,
}

impl Difference {
    fn between(k: usize, more: &SizeMean, less: &SizeMean) -> Self {
        Self { k, value: more.mean - less.mean, error: more.standard_error.hypot(less.standard_error) }
    }
}

fn differences(high: &[SizeMean], low: &[SizeMean]) -> Result<Vec<Difference>, StudyError> {
    let low = ascending(low)?;
    let pair = |h: SizeMean| low.iter().find(|l| l.k == h.k).map(|l| Difference::between(h.k, &h, l));
    Ok(ascending(high)?.into_iter().filter_map(pair).collect())
}

/// Whether one of them is significantly below zero, corrected for their number (Bonferroni).
fn contradicted(all: &[Difference]) -> bool {
    let z = normal_quantile(1.0 - LEVEL / all.len().max(1) as f64);
    all.iter().any(|d| d.value + z * d.error < 0.0)
}

fn in_part_if(exception: bool, verdict: Verdict) -> Verdict {
    if exception && verdict == Verdict::Holds { Verdict::InPart } else { verdict }
}

/// The mean of differences over K with equal weights. A claim that is met at no K does not hold, whatever the interval
/// of the mean.
fn direction(what: &str, all: &[Difference], missing: &str) -> Measured {
    if all.is_empty() {
        return Measured::missing(missing);
    }
    let n = all.len() as f64;
    let mean = all.iter().map(|d| d.value).sum::<f64>() / n;
    let error = all.iter().map(|d| d.error * d.error).sum::<f64>().sqrt() / n;
    let half = normal_quantile(1.0 - 0.5 * LEVEL) * error;
    let interval = [mean - half, mean + half];
    let positive: Vec<String> = all.iter().filter(|d| d.value > 0.0).map(|d| d.k.to_string()).collect();
    let at = match positive.len() {
        0 => "at no K".to_owned(),
        count if count == all.len() => format!("at all {count} K"),
        count => format!("at {count} of {} K ({})", all.len(), positive.join(", ")),
    };
    let verdict = match positive.is_empty() {
        true => Verdict::DoesNotHold,
        false => in_part_if(contradicted(all), Verdict::above(interval, 0.0)),
    };
    Measured::new(format!("{what}; above 0 {at}"), mean, interval, verdict)
}

/// One-sided p-value of the fraction of `high` being above that of `low`, for equal proportions (pooled).
fn equal_proportions(high: SizeShare, low: SizeShare) -> f64 {
    let (n, m) = (high.samples as f64, low.samples as f64);
    let pooled = (high.count + low.count) as f64 / (n + m);
    let error = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    if error == 0.0 { 1.0 } else { normal_tail((high.fraction() - low.fraction()) / error) }
}

/// Probability that a standard normal variable is above z.
fn normal_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * std::f64::consts::FRAC_1_SQRT_2)
}

/// Quantile of the standard normal distribution, by bisection.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if normal_tail(middle) > 1.0 - p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

fn refused<T>(setting: &'static str, value: String, need: &str) -> Result<T, StudyError> {
    Err(SettingError::new("claims", setting, value, need.to_owned()).into())
}

fn check(s: SizeShare) -> Result<(), StudyError> {
    if s.k == 0 || s.samples == 0 || s.count > s.samples {
        let value = format!("{} of {} at K = {}", s.count, s.samples, s.k);
        return refused("shares", value, "K and samples above 0 and a count of at most the samples");
    }
    Ok(())
}

/// Shares in the order of K; shares of the same K are added.
fn tidy(shares: &[SizeShare]) -> Result<Vec<SizeShare>, StudyError> {
    let mut all = shares.to_vec();
    all.sort_by_key(|s| s.k);
    let mut out: Vec<SizeShare> = Vec::with_capacity(all.len());
    for s in all {
        check(s)?;
        match out.last_mut() {
            Some(last) if last.k == s.k => {
                last.count += s.count;
                last.samples += s.samples;
            }
            _ => out.push(s),
        }
    }
    Ok(out)
}

/// Means in the order of K, at most one for each K.
fn ascending(means: &[SizeMean]) -> Result<Vec<SizeMean>, StudyError> {
    let mut all = means.to_vec();
    all.sort_by_key(|m| m.k);
    if let Some(m) = all
        .iter()
        .find(|m| !(m.k > 0 && m.mean.is_finite() && m.standard_error >= 0.0 && m.standard_error.is_finite()))
    {
        return refused("means", format!("{m:?}"), "finite means with a standard error of at least 0");
    }
    if let Some(w) = all.windows(2).find(|w| w[0].k == w[1].k) {
        return refused("means", format!("two of K = {}", w[0].k), "one mean for each K");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About { dataset: "mnist", network: "mlp", command: "mem2gen sweep --plan desk" };

    fn shares(samples: usize, curve: &[(usize, f64)]) -> Vec<SizeShare> {
        let share =
            |&(k, p): &(usize, f64)| SizeShare { k, count: (p * samples as f64).round() as usize, samples };
        curve.iter().map(share).collect()
    }

    fn means(curve: &[(usize, f64, f64)]) -> Vec<SizeMean> {
        curve.iter().map(|&(k, mean, standard_error)| SizeMean { k, mean, standard_error }).collect()
    }

    #[test]
    fn ends_of_the_curves_are_judged_by_the_least_of_them() {
        // Wilson's half width for 1000 samples at 0.9 is 0.019.
        for (p, verdict) in [
            (1.0, Verdict::Holds),
            (0.91, Verdict::InPart),
            (0.89, Verdict::InPart),
            (0.5, Verdict::DoesNotHold),
        ] {
            let ends = |small: f64, large: f64| shares(1000, &[(8192, large), (2, small), (64, 0.5)]);
            for (memorized, generalized) in [
                (ends(p, 0.0), ends(0.0, 1.0)),
                (ends(1.0, 1.0 - p), ends(0.0, 1.0)),
                (ends(1.0, 0.0), ends(0.0, p)),
            ] {
                let claim = ABOUT.generalization_follows(&memorized, &generalized).unwrap();
                assert_eq!((claim.verdict, claim.value), (verdict, Some(p)), "{claim:?}");
                assert!(claim.statistic.contains("K = 2 (") && claim.statistic.contains("K = 8192 ("));
            }
            let flows = |small, large| ABOUT.noise_flows_elsewhere(&ends(small, large)).unwrap().verdict;
            assert_eq!((flows(p, 0.0), flows(1.0, 1.0 - p)), (verdict, verdict));
        }
        assert_eq!(ABOUT.generalization_follows(&[], &[]).unwrap().verdict, Verdict::NotMeasured);
        let one = shares(10, &[(2, 1.0)]);
        assert_eq!(ABOUT.noise_flows_elsewhere(&one).unwrap().verdict, Verdict::NotMeasured);
        let bad = ABOUT.noise_flows_elsewhere(&[SizeShare { k: 2, count: 3, samples: 2 }]);
        assert!(matches!(bad, Err(StudyError::Setting(e)) if e.setting == "shares"));
        // Two seeds of one K count together.
        let share = |k, count| SizeShare { k, count, samples: 100 };
        let two = [share(2, 90), share(2, 100), share(64, 0)];
        assert_eq!(ABOUT.noise_flows_elsewhere(&two).unwrap().value, Some(0.95));
    }

    #[test]
    fn kept_images_are_counted() {
        let claim = |counts: [usize; 3]| {
            let share = |(k, count)| SizeShare { k, count, samples: k };
            let all: Vec<SizeShare> = [8, 128, 512].into_iter().zip(counts).map(share).collect();
            ABOUT.images_stop_attracting(&all).unwrap()
        };
        let holds = claim([8, 92, 0]);
        assert_eq!((holds.verdict, holds.value, holds.interval), (Verdict::Holds, Some(92.0), None));
        assert!(holds.statistic.ends_with("8 of 8 at K = 8, most 92 of 128 at K = 128, 0 of 512 at K = 512"));
        assert_eq!(claim([8, 128, 512]).verdict, Verdict::InPart);
        assert_eq!(claim([4, 92, 0]).verdict, Verdict::InPart);
        assert_eq!(claim([4, 92, 500]).verdict, Verdict::DoesNotHold);
        assert_eq!(ABOUT.images_stop_attracting(&[]).unwrap().verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_toy_needs_all_three_phases() {
        let phase = |k, memorized, spurious, from_ring| ToyPhase { k, memorized, spurious, from_ring };
        let claim = |all: &[ToyPhase]| ABOUT.three_phases(all).unwrap().verdict;
        let (few, some, many) = (phase(2, 2, 0, 1.0), phase(9, 0, 3, 0.5), phase(1000, 0, 2, 0.05));
        assert_eq!(claim(&[few, some, many]), Verdict::Holds);
        assert_eq!(claim(&[few, some, phase(1000, 0, 2, 0.06)]), Verdict::InPart);
        assert_eq!(
            claim(&[phase(2, 1, 0, 1.0), phase(9, 9, 0, 0.5), phase(1000, 0, 2, 0.5)]),
            Verdict::DoesNotHold
        );
        assert!(ABOUT.three_phases(&[few, some]).is_err() && ABOUT.three_phases(&[some, few, many]).is_err());
    }

    #[test]
    fn a_peak_has_to_lie_between_and_above_chance() {
        let claim = |samples, curve: &[(usize, f64)]| ABOUT.spurious_peak(&shares(samples, curve)).unwrap();
        let holds = claim(512, &[(2, 0.0), (64, 0.1), (256, 0.3), (1024, 0.05), (8192, 0.0)]);
        assert_eq!((holds.verdict, holds.value), (Verdict::Holds, Some(154.0 / 512.0)));
        assert!(holds.statistic.contains("K = 256"), "{}", holds.statistic);
        // 3 of 512 over 0 of 512: z = 1.737 for one, p = 0.0412, times 5.
        let weak = claim(512, &[(2, 0.0), (64, 3.0 / 512.0), (256, 0.0), (1024, 0.0), (8192, 0.0)]);
        assert_eq!(weak.verdict, Verdict::InPart);
        assert!((weak.p.unwrap() - 5.0 * 0.0412).abs() < 2e-3, "{:?}", weak.p);
        let rising = claim(512, &[(2, 0.0), (64, 0.1), (256, 0.3)]);
        assert_eq!((rising.verdict, rising.p), (Verdict::DoesNotHold, Some(1.0)));
        let flat = claim(512, &[(2, 0.0), (64, 0.0), (256, 0.0)]);
        assert_eq!((flat.verdict, flat.p), (Verdict::DoesNotHold, Some(1.0)));
        assert_eq!(claim(512, &[(2, 0.0), (64, 0.1)]).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_transition_is_interpolated_in_log_k() {
        let curve = shares(1000, &[(16, 1.0), (64, 0.75), (256, 0.25), (1024, 0.0)]);
        let found = transition_size(&curve, 1).unwrap().unwrap();
        assert!((found.k - 128.0).abs() < 1e-9);
        // A fraction has an error of 0.0137 at both, so the middle of them one of 0.0097, and 2 log2 K are one half.
        let half = 1.96 * 0.0097 * 4.0;
        let [low, high] = found.interval.map(|k| (k / 128.0).log2());
        assert!((low + half).abs() < 0.15 * half && (high - half).abs() < 0.15 * half, "{low} {high} {half}");
        let (from, to) = transition_range(&curve).unwrap().unwrap();
        // 0.4 of the way from 16 to 64, and 0.6 of that from 256 to 1024.
        assert!(
            (from - 16.0 * 4.0f64.powf(0.4)).abs() < 1e-9 && (to - 256.0 * 4.0f64.powf(0.6)).abs() < 1e-9
        );
        assert_eq!(transition_size(&shares(9, &[(2, 1.0), (4, 1.0)]), 1).unwrap(), None);
        assert_eq!(transition_range(&shares(9, &[(2, 1.0), (4, 1.0)])).unwrap(), Some((2.0, 4.0)));
    }

    #[test]
    fn later_earlier_and_equal_transitions_are_distinguished() {
        let at = |k: usize| shares(600, &[(k / 8, 1.0), (k / 2, 0.8), (2 * k, 0.2), (8 * k, 0.0)]);
        let claim = |narrow: usize, wide: usize| ABOUT.wider_is_later(&at(narrow), &at(wide)).unwrap();
        let later = claim(128, 512);
        assert_eq!(later.verdict, Verdict::Holds);
        assert!((later.value.unwrap() - 2.0).abs() < 0.05, "{later:?}");
        assert_eq!(claim(512, 128).verdict, Verdict::DoesNotHold);
        let same = claim(128, 128);
        assert_eq!((same.verdict, same.value), (Verdict::InPart, Some(0.0)));
        let [low, high] = same.interval.unwrap();
        assert!(low < 0.0 && high > 0.0);
        let never = shares(600, &[(2, 1.0), (4, 1.0)]);
        assert_eq!(ABOUT.wider_is_later(&at(128), &never).unwrap().verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_peak_of_the_wider_network_is_later() {
        let at = |k: usize| shares(600, &[(k / 8, 0.0), (k / 2, 0.1), (k, 0.3), (2 * k, 0.1), (8 * k, 0.0)]);
        let claim = |narrow: usize, wide: usize| ABOUT.wider_peaks_later(&at(narrow), &at(wide)).unwrap();
        let later = claim(64, 256);
        assert_eq!(
            (later.verdict, later.value, later.interval),
            (Verdict::Holds, Some(2.0), Some([2.0, 2.0]))
        );
        assert_eq!(claim(256, 64).verdict, Verdict::DoesNotHold);
        // Two sizes that share the peak: a resample takes either.
        let level = shares(600, &[(16, 0.0), (64, 0.3), (256, 0.3), (1024, 0.0)]);
        assert_eq!(ABOUT.wider_peaks_later(&at(64), &level).unwrap().interval, Some([0.0, 2.0]));
        assert_eq!(ABOUT.wider_peaks_later(&at(64), &[]).unwrap().verdict, Verdict::NotMeasured);
    }

    #[test]
    fn a_larger_set_has_more_spurious_samples_where_one_increase_is_clear() {
        let claim = |curve: &[SizeShare]| ABOUT.larger_sets_have_more_spurious(curve).unwrap();
        let share = |k, count, samples| SizeShare { k, count, samples };
        let more = claim(&[share(2, 60, 1000), share(4, 0, 1000)]);
        assert_eq!((more.verdict, more.value), (Verdict::Holds, Some(0.06)));
        assert!(more.statistic.contains("K = 2,"), "{}", more.statistic);
        // Wilson's interval at z = 2.2414, that of two intervals with 97.5 percent each.
        let [low, high] = more.interval.unwrap();
        assert!((low - 0.045_265).abs() < 1e-6 && (high - 0.079_134).abs() < 1e-6, "{low} {high}");
        assert_eq!(claim(&[share(2, 0, 1000), share(4, 0, 1000)]).verdict, Verdict::DoesNotHold);
        assert_eq!(claim(&[]).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_exact_score_is_judged_by_its_worst_size() {
        let claim = |curve: &[(usize, f64)]| ABOUT.exact_memorizes(&shares(1000, curve)).unwrap();
        assert_eq!(claim(&[(2, 1.0), (64, 0.98), (512, 1.0)]).verdict, Verdict::Holds);
        let fails = claim(&[(2, 1.0), (64, 0.3), (512, 1.0)]);
        assert_eq!((fails.verdict, fails.value), (Verdict::DoesNotHold, Some(0.3)));
        assert_eq!(claim(&[]).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn basins_are_compared_where_both_were_measured() {
        let high = means(&[(2, 10.0, 0.1), (64, 8.0, 0.1), (512, 6.0, 0.1)]);
        let claim = |low: &[(usize, f64, f64)]| {
            let low = means(low);
            ABOUT.larger(("larger", "Fig. 4B", "difference"), &high, &low).unwrap()
        };
        let holds = claim(&[(64, 7.0, 0.1), (512, 3.0, 0.1), (1024, 9.0, 0.1)]);
        assert_eq!((holds.verdict, holds.value), (Verdict::Holds, Some(2.0)));
        let half = 1.959_964 * (0.04f64).sqrt() / 2.0;
        assert!((holds.interval.unwrap()[0] - (2.0 - half)).abs() < 1e-6, "{:?}", holds.interval);
        assert!(holds.statistic.contains("all 2 K"));
        let mixed = claim(&[(64, 3.0, 0.1), (512, 8.0, 0.1)]);
        assert_eq!(mixed.verdict, Verdict::InPart);
        assert!(mixed.statistic.contains("1 of 2 K (64)"), "{}", mixed.statistic);
        assert_eq!(claim(&[(64, 8.1, 1.0)]).verdict, Verdict::DoesNotHold);
        assert_eq!(claim(&[(64, 7.9, 1.0)]).verdict, Verdict::InPart);
        assert_eq!(claim(&[(64, 9.0, 0.1)]).verdict, Verdict::DoesNotHold);
        assert_eq!(claim(&[(4, 9.0, 0.1)]).verdict, Verdict::NotMeasured);
        let nan = means(&[(64, f64::NAN, 0.1)]);
        let larger = |low: &[SizeMean]| ABOUT.larger(("larger", "Fig. 4B", "difference"), &high, low);
        let refused = larger(&nan);
        assert!(matches!(refused, Err(StudyError::Setting(e)) if e.setting == "means"));
        let twice = means(&[(64, 1.0, 0.1), (64, 1.0, 0.1)]);
        assert!(larger(&twice).is_err());
    }

    #[test]
    fn spectra_fall_by_the_slope_over_log_k() {
        let trend = |curve: &[(usize, f64, f64)], rises| {
            ABOUT.trend(("falls", "Fig. 5A", "the mean"), &means(curve), rises).unwrap()
        };
        let claim = |curve: &[(usize, f64, f64)]| trend(curve, false);
        let rises = trend(&[(2, 5.0, 0.1), (8, 7.0, 0.1), (32, 9.0, 0.1)], true);
        assert_eq!((rises.verdict, rises.value), (Verdict::Holds, Some(1.0)));
        assert!(rises.statistic.contains("rises in 2 of 2 steps"), "{}", rises.statistic);
        assert_eq!(trend(&[(2, 9.0, 0.1), (32, 5.0, 0.1)], true).verdict, Verdict::DoesNotHold);
        let holds = claim(&[(2, 9.0, 0.1), (8, 7.0, 0.1), (32, 5.0, 0.1)]);
        assert_eq!(holds.verdict, Verdict::Holds);
        assert!((holds.value.unwrap() + 1.0).abs() < 1e-12 && holds.statistic.contains("2 of 2 steps"));
        // Errors of 0.1 at x = -2 and 2, over a sum of squares of 8.
        let half = 1.959_964 * 0.1 * 8.0f64.sqrt() / 8.0;
        assert!((holds.interval.unwrap()[1] - (half - 1.0)).abs() < 1e-6);
        assert_eq!(claim(&[(2, 9.0, 0.1), (8, 10.0, 0.1), (32, 5.0, 0.1)]).verdict, Verdict::InPart);
        assert_eq!(claim(&[(2, 5.0, 0.1), (32, 9.0, 0.1)]).verdict, Verdict::DoesNotHold);
        assert_eq!(claim(&[(2, 5.0, 1.0), (32, 4.9, 1.0)]).verdict, Verdict::InPart);
        assert_eq!(claim(&[(2, 5.0, 1.0)]).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_three_claims_of_the_energy_gap() {
        let diverges =
            |curve: &[(usize, f64, f64)]| ABOUT.memorized_gap_diverges(&means(curve)).unwrap().verdict;
        assert_eq!(diverges(&[(2, 0.01, 0.02), (64, -1.0, 0.1), (512, -4.0, 0.2)]), Verdict::Holds);
        assert_eq!(diverges(&[(2, 1.0, 0.02), (512, -4.0, 0.2)]), Verdict::InPart);
        assert_eq!(diverges(&[(2, 4.0, 0.2), (512, 0.1, 0.2)]), Verdict::DoesNotHold);
        assert_eq!(diverges(&[(2, 4.0, 0.2)]), Verdict::NotMeasured);

        let spurious = means(&[(64, 2.0, 0.1), (256, 3.0, 0.1), (4096, -9.0, 0.1)]);
        let (memorized, generalized) = (means(&[(64, 1.0, 0.1), (256, 1.0, 0.1)]), means(&[(256, 2.0, 0.1)]));
        let lowest = |range| ABOUT.spurious_lowest(&spurious, &[&memorized, &generalized], range).unwrap();
        let holds = lowest(Some((50.0, 300.0)));
        assert_eq!((holds.verdict, holds.value), (Verdict::Holds, Some(1.0)));
        assert_eq!(lowest(None).verdict, Verdict::NotMeasured);
        assert_eq!(lowest(Some((1.0, 50.0))).verdict, Verdict::NotMeasured);
        let reversed = ABOUT.spurious_lowest(&generalized, &[&spurious], Some((1.0, 1e4))).unwrap();
        assert_eq!((reversed.verdict, reversed.value), (Verdict::DoesNotHold, Some(-1.0)));

        let narrowest = |generalized: &[(usize, f64, f64)]| {
            let others = [(Group::MEMORIZED, memorized.as_slice()), (Group::SPURIOUS, spurious.as_slice())];
            ABOUT.generalized_narrowest(&means(generalized), &others).unwrap()
        };
        let holds = narrowest(&[(256, 5.0, 0.1), (4096, -1.0, 0.1), (8192, 7.0, 0.1)]);
        assert_eq!((holds.verdict, holds.value), (Verdict::Holds, Some(8.0)));
        assert!(holds.statistic.contains("K = 4096") && holds.statistic.contains("spurious"));
        assert_eq!(narrowest(&[(256, 5.0, 0.1)]).verdict, Verdict::DoesNotHold);
        assert_eq!(narrowest(&[(256, 1.05, 0.1)]).verdict, Verdict::InPart);
        assert_eq!(narrowest(&[(8192, 1.0, 0.1)]).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn the_error_of_a_gap_counts_images_and_references() {
        let gap = GapRow {
            k: 64,
            group: Group::SPURIOUS,
            reference: None,
            n: 100,
            few: false,
            mean: 2.0,
            std: 1.0,
            gap: 0.5,
            standard_error: 0.03,
            interval: [0.4, 0.6],
            between: 0.04,
            loops: 0,
            circulation: 0.0,
            circulation_error: 0.0,
            size: 0.0,
        };
        assert_eq!(SizeMean::from(&gap), SizeMean { k: 64, mean: 0.5, standard_error: 0.05 });
    }

    #[test]
    fn normal_numbers_and_counts_have_their_distributions() {
        for (p, z) in [(0.975, 1.959_963_985), (0.5, 0.0), (0.995, 2.575_829_304), (0.025, -1.959_963_985)] {
            assert!((normal_quantile(p) - z).abs() < 1e-8, "{p}");
        }
        for (n, p) in [(40, 0.2), (40, 0.9), (1000, 0.001), (1000, 0.4), (7, 0.0), (7, 1.0)] {
            let mut stream = Stream::new(5, "binomial");
            let drawn: Vec<f64> = (0..4000).map(|_| binomial(&mut stream, n, p) as f64).collect();
            let (mean, variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
            let got = drawn.iter().sum::<f64>() / 4000.0;
            let spread = drawn.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 4000.0;
            // Four standard errors of a mean, and of a variance with a kurtosis of at most 3 + 1/variance.
            assert!((got - mean).abs() <= 4.0 * (variance / 4000.0).sqrt(), "{n} {p}: {got}");
            let error = variance * ((2.0 + 1.0 / variance.max(1e-9)) / 4000.0).sqrt();
            assert!((spread - variance).abs() <= 4.0 * error + 1e-12, "{n} {p}: {spread} {variance}");
        }
    }

    #[test]
    fn verdicts_are_written_by_their_names() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
    }
}
