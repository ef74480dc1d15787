//! What is known about every sample, and what it is known from.

use serde::Serialize;

use crate::class::Class;
use crate::detect::{
    Authenticity, Classification, Compared, Counts, Decision, Fractions, NULL_QUANTILE, NullSource,
    NullSummary, Origin, RatioCriterion, Sensitivity, Share, Statistic, Threshold, c_t,
};
use crate::display::counted;

/// Largest share of samples that one of two rules calls alone, when the rules agree.
const DISAGREE: f64 = 0.1;

/// Label of a sample in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Memorized, spurious, generalized or invalid.
    Class(Class),
    /// Not a copy; delta_s is not known, so whether it repeats among the samples is open.
    New,
    /// Neither thresholds nor null distances tell whether it is a copy.
    Unknown,
}

impl Label {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Class(class) => class.name(),
            Self::New => "new",
            Self::Unknown => "unknown",
        }
    }

    /// The class whose place and colour the label has in figures.
    pub fn class(self) -> Class {
        match self {
            Self::Class(class) => class,
            Self::New => Class::Generalized,
            Self::Unknown => Class::Invalid,
        }
    }
}

/// How much of the question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every valid sample has a class.
    Answered,
    /// Copies are told from the rest, but some samples are `new` or `unknown`.
    InPart,
    /// No sample is valid, or nothing tells copies from other samples.
    NotAnswered,
}

/// Fractions of all labels; `None` for labels that no sample can have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares {
    /// Memorized samples.
    pub memorized: Share,
    /// Spurious samples.
    pub spurious: Option<Share>,
    /// Generalized samples.
    pub generalized: Option<Share>,
    /// Samples that are no copies, where delta_s is not known.
    pub new: Option<Share>,
    /// Samples of which nothing is known.
    pub unknown: Option<Share>,
    /// Samples with NaN or infinity.
    pub invalid: Share,
}

/// One kind of evidence for copies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rung {
    /// Its name.
    pub evidence: &'static str,
    /// Number of samples that it calls copies; `None` when it says nothing, or nothing of single samples.
    pub copies: Option<usize>,
    /// How many of these are labelled memorized.
    pub also_memorized: Option<usize>,
    /// Whether at least 9 in 10 of the samples that it or the label calls a copy are called so by both.
    pub agrees: Option<bool>,
    /// The finding in words.
    pub because: String,
}

/// The answer for a synthetic set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// How much is answered.
    pub status: Status,
    /// Why it is not answered in full; empty otherwise.
    pub open: Vec<String>,
    /// Label of each sample.
    #[serde(skip)]
    pub labels: Vec<Label>,
    /// Number of synthetic samples.
    pub samples: usize,
    /// Samples with NaN, infinity or values too large for a distance.
    pub invalid: usize,
    /// Number of training images.
    pub images: usize,
    /// Samples at a distance of exactly 0 from a training image.
    pub exact_copies: usize,
    /// Valid samples further from the training set than ten times its typical distance.
    pub far: usize,
    /// Root mean square distance between two training images.
    pub scale: f64,
    /// delta_m, for d(x, D). Its origin is `null` and it has no value when p-values decide and neither a given threshold
    /// nor the valley gives the same copies.
    pub delta_m: Threshold,
    /// delta_s, for d(x, S \ x).
    pub delta_s: Threshold,
    /// Fractions with intervals.
    pub fractions: Shares,
    /// The decision by p-values; `None` with fewer than 5 null distances.
    pub decision: Option<Decision>,
    /// What speaks for copies, from the strongest evidence to rules of thumb.
    pub evidence: Vec<Rung>,
    /// Fractions with both thresholds at 3/4 and at 5/4; empty where labels do not come from two thresholds.
    pub sensitivity: Vec<Sensitivity>,
    /// Fraction of a class below which it has too few samples.
    pub least_fraction: f64,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Seed of bootstrap and dip test.
    pub seed: u64,
    /// The criterion of nearest over nearest different training image; `None` for a single training image.
    pub ratio: Option<RatioCriterion>,
    /// Rule of authenticity; `None` for a single training image.
    pub authenticity: Option<Authenticity>,
    /// C_T with one cell; `None` without held-out images that differ from all training images.
    pub c_t: Option<f64>,
    /// Median and low quantiles of real distances.
    pub null: NullSummary,
}

impl Answer {
    /// Labels from the thresholds of `classified` and the `decision`.
    pub fn new(found: &Compared, classified: Classification, decision: Option<Decision>) -> Self {
        let Classification { samples, exact_copies, mut delta_m, delta_s, .. } = classified.clone();
        let delta_s = for_set_sizes(delta_s, found);
        let of_valley = delta_m.because.clone();
        let distance = |i: usize| found.samples[i].map(|near| near.distance);
        let within = |i: usize, delta: &Threshold| distance(i).zip(delta.value).is_some_and(|(d, v)| d <= v);
        let manual = delta_m.origin == Origin::Manual;
        let calls: Vec<bool> = (0..samples)
            .map(|i| {
                let by_rule = match &decision {
                    Some(decision) if !manual => decision.calls(i),
                    Some(_) | None => {
                        matches!(delta_m.origin, Origin::Manual | Origin::Valley) && within(i, &delta_m)
                    }
                };
                by_rule || distance(i) == Some(0.0)
            })
            .collect();
        let valley = (delta_m.origin == Origin::Valley)
            .then(|| (0..samples).map(|i| within(i, &delta_m)).collect::<Vec<bool>>());
        let by_null = decision.is_some() && !manual;
        if by_null && valley.as_ref() != Some(&calls) {
            let number = calls.iter().filter(|c| **c).count();
            let because = format!(
                "p-values call {number} copies; a threshold is stated only where the valley gives the same"
            );
            delta_m = Threshold { value: None, origin: Origin::Null, because, null_rate: None, ..delta_m };
        }
        let known_m = manual || by_null || valley.is_some() || delta_m.origin == Origin::NoDistances;
        // Without distances the threshold has no effect.
        let known_s = delta_s.value.or((delta_s.origin == Origin::NoDistances).then_some(0.0));
        let labels: Vec<Label> = (0..samples)
            .map(|i| match (found.samples[i], known_s) {
                (None, _) => Label::Class(Class::Invalid),
                (Some(_), _) if calls[i] => Label::Class(Class::Memorized),
                (Some(_), _) if !known_m => Label::Unknown,
                (Some(_), None) => Label::New,
                (Some(_), Some(delta)) => {
                    let repeats = found.neighbours.synthetic[i].is_some_and(|n| n.distance <= delta);
                    Label::Class(if repeats { Class::Spurious } else { Class::Generalized })
                }
            })
            .collect();
        let count = |label| labels.iter().filter(|l| **l == label).count();
        let (new, unknown, memorized) =
            (count(Label::New), count(Label::Unknown), count(Label::Class(Class::Memorized)));
        let invalid = count(Label::Class(Class::Invalid));
        let mut open = Vec::new();
        if invalid == samples {
            open.push("every sample has NaN, infinity or a value too large for a distance".to_owned());
        }
        let give = match found.neighbours.held_out {
            Some(_) => "give more held-out images or",
            None => "give --held-out or",
        };
        if unknown > 0 {
            open.push(format!(
                "whether {} copies is not known: {}; {give} --delta-m",
                if unknown == 1 { "1 sample is".to_owned() } else { format!("{unknown} samples are") },
                delta_m.because
            ));
        }
        if new > 0 {
            open.push(format!(
                "whether {} {} among the samples could not be decided: {}; {give} --delta-s",
                counted(new, "new sample"),
                if new == 1 { "repeats" } else { "repeat" },
                delta_s.because
            ));
        }
        let status = match (invalid == samples || (unknown > 0 && memorized == 0), open.is_empty()) {
            (true, _) => Status::NotAnswered,
            (false, true) => Status::Answered,
            (false, false) => Status::InPart,
        };
        let mut ratio = classified.ratio;
        let third = |i: usize| {
            ratio.is_some_and(|rule| found.neighbours.ratio(i).is_some_and(|value| value < rule.below))
        };
        let thirds: Vec<bool> = (0..samples).map(third).collect();
        if let Some(rule) = &mut ratio {
            rule.also_memorized = Some((0..samples).filter(|&i| thirds[i] && calls[i]).count());
        }
        let authenticity = Authenticity::from_distances(found);
        let valid: Vec<f64> = (0..samples).filter_map(distance).collect();
        // Held-out images that count as training images say nothing of what is near.
        let unequal =
            |null: &Vec<f64>| null.iter().copied().filter(|d| *d > found.same).collect::<Vec<f64>>();
        let null = found.neighbours.held_out.as_ref().map(unequal);
        let c_t = null.filter(|null| !valid.is_empty() && !null.is_empty()).map(|null| c_t(&valid, &null));
        let rungs = Rungs { found, calls: &calls };
        let evidence =
            rungs.walk(of_valley, valley.as_deref(), decision.as_ref(), &thirds, authenticity, c_t);
        let from_thresholds = matches!(delta_m.origin, Origin::Manual | Origin::Valley) && known_s.is_some();
        Self {
            status,
            open,
            samples,
            invalid,
            images: classified.images,
            exact_copies,
            far: classified.far,
            scale: classified.scale,
            delta_m,
            delta_s,
            fractions: shares(&labels, known_m, known_s.is_some(), &classified),
            labels,
            decision,
            evidence,
            sensitivity: if from_thresholds { classified.sensitivity.clone() } else { Vec::new() },
            least_fraction: classified.least_fraction,
            resamples: classified.resamples,
            seed: classified.seed,
            ratio,
            authenticity,
            c_t,
            null: classified.null,
        }
    }

    /// The answer in one sentence.
    pub fn verdict(&self, found: &Compared) -> String {
        let copies: Vec<usize> = (0..self.samples)
            .filter(|&i| self.labels[i] == Label::Class(Class::Memorized))
            .filter_map(|i| found.samples[i].map(|near| near.index))
            .collect();
        let valid = self.samples - self.invalid;
        if valid == 0 {
            return "no sample is valid".to_owned();
        }
        if self.status == Status::NotAnswered {
            return format!("whether any of {valid} samples is a copy could not be decided");
        }
        let originals = copies.iter().collect::<std::collections::HashSet<_>>().len();
        let percent = |v: f64| format!("{:.1}", 100.0 * v);
        let share = percent(copies.len() as f64 / valid as f64);
        let mut text = format!("{} of {} ({share} %", copies.len(), counted(valid, "sample"));
        let by_null = self.decision.as_ref().filter(|_| self.delta_m.origin != Origin::Manual);
        let interval = by_null.map_or(self.fractions.memorized.wilson, |decision| decision.interval);
        let (low, high) = (percent(interval[0]), percent(interval[1]));
        let kind = if by_null.is_some() { "recognizable copies" } else { "copies" };
        text.push_str(&format!(
            ", 95 % interval {low} to {high}) are {kind} of {}",
            counted(originals, "training image")
        ));
        if let Some(decision) = by_null {
            text.push_str(&format!(
                "; {} would be expected by chance; with copies too weak to recognize, at most {} % of the samples are \
                 copies",
                short(decision.expected_false),
                percent(decision.at_most)
            ));
        }
        text
    }
}

/// delta_s as it is, unless it is the quantile of held-out distances. A held-out image lies among K training images, but a
/// sample among S - 1 other samples, so with more samples than images the quantile is 0.01 K / (S - 1). Of n distances the
/// least stands for 1 / n; where that is more than twice the quantile, delta_s is unknown.
fn for_set_sizes(delta_s: Threshold, found: &Compared) -> Threshold {
    if delta_s.origin != Origin::Null {
        return delta_s;
    }
    let mut distances = found.neighbours.held_out.clone().unwrap_or_default();
    distances.retain(|distance| *distance > 0.0);
    distances.sort_unstable_by(f64::total_cmp);
    let samples = found.samples.iter().flatten().count().saturating_sub(1).max(1);
    let level = NULL_QUANTILE * (found.neighbours.images as f64 / samples as f64).min(1.0);
    let need = (0.5 / level).ceil();
    if (distances.len() as f64) < need {
        let because = format!(
            "d(x, S \\ x) is unimodal, and {} held-out images are too few to tell what is near among {} samples and {} \
             training images: {need} are needed",
            distances.len(),
            samples + 1,
            found.neighbours.images
        );
        return Threshold { value: None, origin: Origin::Unknown, because, null_rate: None, ..delta_s };
    }
    if samples <= found.neighbours.images {
        return delta_s;
    }
    let value = distances[(level * (distances.len() - 1) as f64) as usize];
    let because = format!(
        "d(x, S \\ x) is unimodal; the {:.2} percent quantile of {} distances from held-out images to the training set, as \
         the samples are more than the {} training images",
        100.0 * level,
        distances.len(),
        found.neighbours.images
    );
    let rate = distances.iter().filter(|d| **d <= value).count() as f64 / distances.len() as f64;
    Threshold { value: Some(value), because, null_rate: Some(rate), ..delta_s }
}

/// A number of samples in few digits.
pub(super) fn short(v: f64) -> String {
    if v < 0.005 { "fewer than 0.01".to_owned() } else { format!("{v:.2}") }
}

/// Shares of all labels, with intervals.
fn shares(labels: &[Label], known_m: bool, known_s: bool, classified: &Classification) -> Shares {
    let mut counts = Counts::default();
    for label in labels {
        match label {
            Label::Class(Class::Memorized) => counts.memorized += 1,
            Label::Class(Class::Spurious) => counts.spurious += 1,
            Label::Class(Class::Invalid) => counts.invalid += 1,
            // At most one of the three occurs.
            Label::Class(Class::Generalized) | Label::New | Label::Unknown => counts.generalized += 1,
        }
    }
    let found = Fractions::new(counts, classified.least_fraction, classified.resamples, classified.seed);
    let rest = Some(found.generalized);
    Shares {
        memorized: found.memorized,
        spurious: (known_m && known_s).then_some(found.spurious),
        generalized: if known_m && known_s { rest } else { None },
        new: if known_m && !known_s { rest } else { None },
        unknown: if known_m { None } else { rest },
        invalid: found.invalid,
    }
}

/// The evidence for and against the calls.
struct Rungs<'a> {
    found: &'a Compared,
    calls: &'a [bool],
}

impl Rungs<'_> {
    fn rung(&self, evidence: &'static str, copies: Option<Vec<bool>>, because: String) -> Rung {
        let any_valid = self.found.samples.iter().any(Option::is_some);
        let numbers = copies.filter(|_| any_valid).map(|copies| {
            let count = |keep: &dyn Fn(usize) -> bool| (0..copies.len()).filter(|&i| keep(i)).count();
            let both = count(&|i| copies[i] && self.calls[i]);
            let any = count(&|i| copies[i] || self.calls[i]);
            (count(&|i| copies[i]), both, (any - both) as f64 <= DISAGREE * any as f64)
        });
        Rung {
            evidence,
            copies: numbers.map(|n| n.0),
            also_memorized: numbers.map(|n| n.1),
            agrees: numbers.map(|n| n.2),
            because,
        }
    }

    fn walk(
        &self,
        of_valley: String,
        valley: Option<&[bool]>,
        decision: Option<&Decision>,
        thirds: &[bool],
        authenticity: Option<Authenticity>,
        c_t: Option<f64>,
    ) -> Vec<Rung> {
        let each = |rule: &dyn Fn(usize) -> bool| (0..self.calls.len()).map(rule).collect::<Vec<bool>>();
        let near = |i: usize| self.found.samples[i];
        let exact = each(&|i| near(i).is_some_and(|near| near.distance == 0.0));
        let exact = self.rung("exact copies", Some(exact), "a distance of 0 to a training image".to_owned());
        let mut rungs = vec![
            // They are copies, but say nothing of the others.
            Rung { agrees: None, ..exact },
            self.rung("valley", valley.map(<[bool]>::to_vec), of_valley),
        ];
        if let Some(decision) = decision {
            let source = match decision.null.source {
                NullSource::HeldOut => "held-out images to the training set",
                NullSource::Training => "training images to the nearest different one",
            };
            let tail = match decision.statistic {
                Statistic::Ratio => decision.null.ratio.as_ref().unwrap_or(&decision.null.distance),
                Statistic::Distance => &decision.null.distance,
            };
            let statistic = match decision.statistic {
                Statistic::Ratio => {
                    "the ratio of the distances to the nearest and to the nearest different training image"
                }
                Statistic::Distance => "the distance",
            };
            let trimmed = match decision.null.equal {
                0 => String::new(),
                equal => format!(", without {equal} held-out images that count as training images"),
            };
            rungs.push(self.rung(
                "null",
                Some(each(&|i| decision.calls(i))),
                format!(
                    "p-values of {statistic}, false discovery rate {}, against {} distances of {source}{trimmed}, with a \
                     tail fitted to the lowest {}",
                    decision.fdr, tail.count, tail.fitted
                ),
            ));
            let level = decision.fdr / self.calls.len().max(1) as f64;
            rungs.push(self.rung(
                "null of the distance",
                Some(each(&|i| decision.p_values[i].is_some_and(|p| p.distance <= level))),
                format!("p-values of the distance up to {level:.1e}, so that any of them is an error once in {:.0} sets", 1.0 / decision.fdr),
            ));
        }
        rungs.push(self.rung(
            "ratio below 1/3",
            (self.found.neighbours.images > 1).then(|| thirds.to_vec()),
            "the nearest training image is less than a third as far as the nearest different one".to_owned(),
        ));
        rungs.push(self.rung(
            "authenticity",
            authenticity.map(|_| each(&|i| self.found.not_authentic(i))),
            "the nearest training image is nearer to the sample than to every other training image (Alaa et al. 2022)"
                .to_owned(),
        ));
        rungs.push(self.rung(
            "C_T",
            None,
            match c_t {
                Some(c_t) => format!(
                    "C_T = {c_t:.2} with one cell; below -3 samples are nearer to the training set than held-out images \
                     (Meehan et al. 2020)"
                ),
                None => "needs held-out images".to_owned(),
            },
        ));
        rungs
    }
}
