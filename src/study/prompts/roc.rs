//! How well a measure tells prompts that were memorized from others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::measures::{ALG_2_PASSES, EXACT_PASSES};
use super::{NAME, PromptRow};
use crate::random::{SEED, Stream};
use crate::setting::SettingError;
use crate::study::error::StudyError;

/// Resamples of prompts for an interval.
const RESAMPLES: usize = 1000;

/// Settings of [`roc`], also its options on the command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct RocSettings {
    /// Least dose of a caption that counts as seen often
    #[arg(long, value_name = "DOSE", default_value_t = RocSettings::default().often)]
    pub often: f64,
    /// Largest dose of a caption that counts as seen rarely
    #[arg(long, value_name = "DOSE", default_value_t = RocSettings::default().rarely)]
    pub rarely: f64,
    /// Root mean square difference, of values in [-1, 1], up to which a sample is a training image of its caption
    #[arg(long, value_name = "D", default_value_t = RocSettings::default().delta)]
    pub delta: f64,
    /// Share of the seeds that give a training image, from which on a prompt counts as memorized
    #[arg(long, value_name = "SHARE", default_value_t = RocSettings::default().share)]
    pub share: f64,
}

impl Default for RocSettings {
    fn default() -> Self {
        Self { often: 64.0, rarely: 4.0, delta: 0.1, share: 0.75 }
    }
}

/// What prompts are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Captions with a dose: seen often, or rarely.
    Dose,
    /// Captions with a dose: their training image is returned from most seeds, or not.
    Returned,
}

impl Target {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dose => "dose",
            Self::Returned => "returned",
        }
    }

    /// Whether a caption was memorized by this truth; `None` for a dose between.
    fn of(self, caption: &Caption, settings: &RocSettings) -> Option<bool> {
        match self {
            Self::Dose if caption.dose >= settings.often => Some(true),
            Self::Dose if caption.dose <= settings.rarely => Some(false),
            Self::Dose => None,
            Self::Returned => Some(caption.returned >= settings.share),
        }
    }
}

/// One measure against one truth.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RocRow {
    /// The measure.
    pub measure: String,
    /// The truth.
    pub truth: String,
    /// Number of prompts that were memorized.
    pub positives: usize,
    /// Number of prompts that were not.
    pub negatives: usize,
    /// Area under the curve: the probability that the measure of a memorized prompt is larger, or smaller where `larger` is
    /// false, than that of another prompt.
    pub auc: f64,
    /// 95 percent interval, by resampling prompts.
    pub interval: [f64; 2],
    /// Whether a larger value is taken for memorization.
    pub larger: bool,
    /// The area for what is left of the measure after a linear fit on the total variation of pictures, made on the other
    /// prompts.
    pub residual_auc: f64,
    /// Correlation with total variation among the other prompts.
    pub correlation: f64,
    /// Forward passes of the network for one sample, beside those that draw it; a backward pass counts as two.
    pub passes: usize,
}

/// A measure of a prompt, of which larger values are taken for memorization unless it says otherwise.
struct Measure {
    name: &'static str,
    larger: bool,
    of: fn(&PromptRow) -> Option<f64>,
    passes: fn(&PromptRow) -> usize,
}

const MEASURES: [Measure; 13] = [
    Measure { name: "curvature", larger: true, of: |r| Some(r.curvature), passes: |r| r.rows + 1 },
    Measure { name: "flat", larger: false, of: |r| Some(r.flat), passes: |r| r.rows + 1 },
    Measure { name: "curvature_2", larger: true, of: |r| r.curvature_2, passes: |r| ALG_2_PASSES * r.dim },
    Measure {
        name: "curvature_exact",
        larger: true,
        of: |r| r.curvature_exact,
        passes: |r| EXACT_PASSES * r.dim,
    },
    Measure {
        name: "dimension",
        larger: false,
        of: |r| r.dimension.map(|d| d as f64),
        passes: |r| EXACT_PASSES * r.dim,
    },
    Measure { name: "noise_first", larger: true, of: |r| Some(r.noise_first), passes: |_| 0 },
    Measure { name: "noise_mean", larger: true, of: |r| Some(r.noise_mean), passes: |_| 0 },
    Measure { name: "sharpness", larger: true, of: |r| r.sharpness, passes: |_| 8 },
    Measure { name: "alignment", larger: true, of: |r| Some(r.alignment), passes: |_| 2 },
    Measure { name: "bright", larger: true, of: |r| r.bright, passes: |_| 1 },
    Measure { name: "noise_bright", larger: true, of: |r| r.noise_bright, passes: |_| 1 },
    Measure { name: "diversity", larger: false, of: |r| r.diversity, passes: |_| 0 },
    Measure { name: "nearest", larger: false, of: |r| r.nearest, passes: |_| 0 },
];

/// A caption with a dose: the mean of each measure over those seeds that have it, of the total variation, and what is known
/// of it.
struct Caption {
    values: Vec<Option<f64>>,
    variation: f64,
    dose: f64,
    returned: f64,
}

/// The measures against the doses of captions, and against whether their training image is returned. Templates and captions
/// without a dose are left out. Without prompts of both kinds a truth has no rows.
///
/// # Errors
/// [`StudyError::Setting`] for settings out of range; [`StudyError::NoDoses`] for rows without any caption with a dose.
pub fn roc(rows: &[PromptRow], settings: &RocSettings) -> Result<Vec<RocRow>, StudyError> {
    let refused = |setting: &'static str, value: f64, need: String| {
        Err(SettingError::new(NAME, setting, value, need).into())
    };
    let RocSettings { often, rarely, delta, share } = *settings;
    if !(rarely > 0.0 && rarely.is_finite()) {
        return refused("rarely", rarely, "a dose above 0".into());
    }
    if !(often > rarely && often.is_finite()) {
        return refused("often", often, format!("a dose above {rarely}, that of rarely"));
    }
    if !(delta >= 0.0 && delta.is_finite()) {
        return refused("delta", delta, "a number from 0".into());
    }
    if !(share > 0.0 && share <= 1.0) {
        return refused("share", share, "a number above 0, at most 1".into());
    }
    let all: Vec<&PromptRow> = rows.iter().collect();
    let captions = captions(&all, settings.delta);
    if captions.is_empty() {
        return Err(StudyError::NoDoses);
    }
    let mut out = Vec::new();
    for truth in [Target::Dose, Target::Returned] {
        let known: Vec<(&Caption, bool)> =
            captions.iter().filter_map(|c| Some((c, truth.of(c, settings)?))).collect();
        out.extend((0..MEASURES.len()).filter_map(|m| row(m, truth, &known, rows)));
    }
    Ok(out)
}

/// The curve of a measure against a truth: false and true positive rates, from (0, 0) to (1, 1); `None` without prompts of
/// both kinds, and for a measure that a prompt does not have.
pub(super) fn points(
    rows: &[&PromptRow],
    settings: &RocSettings,
    measure: &str,
    truth: Target,
) -> Option<(Vec<f64>, Vec<f64>)> {
    let m = MEASURES.iter().position(|m| m.name == measure)?;
    let sign = if MEASURES[m].larger { 1.0 } else { -1.0 };
    let mut known: Vec<(f64, bool)> = captions(rows, settings.delta)
        .iter()
        .filter_map(|c| Some((c, truth.of(c, settings)?)))
        .map(|(c, positive)| Some((sign * c.values[m]?, positive)))
        .collect::<Option<_>>()?;
    let positives = known.iter().filter(|(_, positive)| *positive).count();
    let negatives = known.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    known.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut x, mut y, mut found) = (vec![0.0], vec![0.0], [0usize; 2]);
    for tied in known.chunk_by(|a, b| a.0 == b.0) {
        tied.iter().for_each(|(_, positive)| found[usize::from(*positive)] += 1);
        x.push(found[0] as f64 / negatives as f64);
        y.push(found[1] as f64 / positives as f64);
    }
    Some((x, y))
}

/// The captions with a dose, in the order of their prompts.
fn captions(rows: &[&PromptRow], delta: f64) -> Vec<Caption> {
    let mut of_prompt: BTreeMap<usize, Vec<&PromptRow>> = BTreeMap::new();
    for row in rows.iter().copied().filter(|row| row.part.as_deref() == Some("dosed")) {
        of_prompt.entry(row.prompt).or_default().push(row);
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    of_prompt
        .into_values()
        .filter_map(|seeds| {
            let values = MEASURES.iter().map(|m| {
                let found: Vec<f64> = seeds.iter().filter_map(|row| (m.of)(row)).collect();
                (!found.is_empty()).then(|| mean(found))
            });
            let returned = seeds.iter().filter(|row| row.own.is_some_and(|own| own <= delta)).count();
            Some(Caption {
                values: values.collect(),
                variation: mean(seeds.iter().map(|row| row.variation).collect()),
                dose: seeds[0].dose?,
                returned: returned as f64 / seeds.len() as f64,
            })
        })
        .collect()
}

fn row(m: usize, truth: Target, known: &[(&Caption, bool)], rows: &[PromptRow]) -> Option<RocRow> {
    let Measure { name, larger, passes, .. } = &MEASURES[m];
    let sign = if *larger { 1.0 } else { -1.0 };
    let values: Vec<f64> = known.iter().map(|(c, _)| c.values[m].map(|v| sign * v)).collect::<Option<_>>()?;
    let positive: Vec<bool> = known.iter().map(|(_, positive)| *positive).collect();
    let variation: Vec<f64> = known.iter().map(|(c, _)| c.variation).collect();
    let split = |of: &dyn Fn(usize) -> f64| -> [Vec<f64>; 2] {
        let side = |wanted: bool| (0..positive.len()).filter(|&i| positive[i] == wanted).map(of).collect();
        [side(true), side(false)]
    };
    let [high, low] = split(&|i| values[i]);
    if high.is_empty() || low.is_empty() {
        return None;
    }
    let [_, flat] = split(&|i| variation[i]);
    let (slope, correlation) = line(&flat, &low);
    let [high_left, low_left] = split(&|i| values[i] - slope * variation[i]);
    Some(RocRow {
        measure: (*name).to_owned(),
        truth: truth.name().to_owned(),
        positives: high.len(),
        negatives: low.len(),
        auc: area(&high, &low),
        interval: interval(&high, &low, &format!("{name} {}", truth.name())),
        larger: *larger,
        residual_auc: area(&high_left, &low_left),
        correlation: sign * correlation,
        passes: rows.first().map_or(0, passes),
    })
}

/// The share of pairs in which the first is larger; equal ones count half.
fn area(high: &[f64], low: &[f64]) -> f64 {
    let won = |a: &f64| {
        low.iter()
            .map(|b| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
            .sum::<f64>()
    };
    high.iter().map(won).sum::<f64>() / (high.len() * low.len()) as f64
}

/// The 2.5 and 97.5 percent points of the area over resamples of both sets of prompts.
fn interval(high: &[f64], low: &[f64], name: &str) -> [f64; 2] {
    let mut stream = Stream::new(SEED, &format!("roc {name}"));
    let mut draw = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|_| values[stream.below(values.len() as u64) as usize]).collect()
    };
    let mut areas: Vec<f64> = (0..RESAMPLES).map(|_| area(&draw(high), &draw(low))).collect();
    areas.sort_unstable_by(f64::total_cmp);
    [0.025, 0.975].map(|p| areas[(p * (RESAMPLES - 1) as f64).round() as usize])
}

/// Slope of the least-squares line and correlation; 0 where x or y does not vary.
fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(x - mx, y - my)).sum::<f64>();
    let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
    if xx > 0.0 && yy > 0.0 { (xy / xx, xy / (xx * yy).sqrt()) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_the_shares_of_pairs() {
        assert_eq!(area(&[3.0, 2.0], &[1.0, 0.0]), 1.0);
        assert_eq!(area(&[1.0], &[1.0]), 0.5);
        assert_eq!(area(&[0.0, 2.0], &[1.0, 3.0]), 0.25);
        let (slope, correlation) = line(&[0.0, 1.0, 2.0], &[5.0, 3.0, 1.0]);
        assert!((slope + 2.0).abs() < 1e-12 && (correlation + 1.0).abs() < 1e-12);
        assert_eq!(line(&[1.0, 1.0], &[0.0, 3.0]), (0.0, 0.0));
    }

    /// 20 captions of dose 128 and 30 of dose 1, four seeds each. Curvature is larger for large doses by much, but follows
    /// the variation as well; the noise difference knows nothing.
    fn rows() -> Vec<PromptRow> {
        let mut stream = Stream::new(3, "rows");
        let mut rows = Vec::new();
        for prompt in 0..50 {
            let often = prompt < 20;
            let variation = stream.uniform();
            for seed in 0..4 {
                rows.push(PromptRow {
                    prompt,
                    seed,
                    rows: 64,
                    part: Some("dosed".into()),
                    dose: Some(if often { 128.0 } else { 1.0 }),
                    variation,
                    curvature: 1.0 - 0.5 * variation + if often { 2.0 } else { 0.0 } + 0.01 * stream.normal(),
                    // Only the first seed has it.
                    curvature_exact: (seed == 0).then_some(if often { 2.0 } else { 1.0 }),
                    dim: 10,
                    noise_mean: stream.normal(),
                    own: Some(if often && (seed > 0 || prompt > 4) { 0.01 } else { 0.5 }),
                    diversity: Some(if often { 0.1 } else { 0.4 } + 0.01 * stream.normal()),
                    ..PromptRow::default()
                });
            }
        }
        rows.push(PromptRow {
            prompt: 50,
            part: Some("template".into()),
            dose: Some(16.0),
            ..PromptRow::default()
        });
        rows
    }

    #[test]
    fn a_measure_that_knows_is_told_from_one_that_does_not() {
        let found = roc(&rows(), &RocSettings::default()).unwrap();
        let of = |measure: &str, truth: &str| {
            found.iter().find(|row| row.measure == measure && row.truth == truth).unwrap()
        };
        let curvature = of("curvature", "dose");
        assert_eq!((curvature.positives, curvature.negatives, curvature.passes), (20, 30, 65));
        assert_eq!((curvature.auc, curvature.interval, curvature.residual_auc), (1.0, [1.0, 1.0], 1.0));
        assert!(curvature.correlation < -0.99, "{curvature:?}");
        let exact = of("curvature_exact", "dose");
        assert_eq!((exact.auc, exact.positives, exact.negatives, exact.passes), (1.0, 20, 30, 30));
        let noise = of("noise_mean", "dose");
        assert!(noise.interval[0] < 0.5 && noise.interval[1] > 0.5 && noise.auc > 0.2 && noise.auc < 0.8);
        assert!((of("diversity", "dose").auc, of("diversity", "dose").larger) == (1.0, false));
        // Three of four seeds are enough.
        assert_eq!(of("curvature", "returned").positives, 20);
        let strict = RocSettings { share: 1.0, ..RocSettings::default() };
        let strict = roc(&rows(), &strict).unwrap();
        assert_eq!(strict.iter().find(|row| row.truth == "returned").unwrap().positives, 15);
        // No training set, no distance to it: no row. The same without an exact Jacobian.
        assert!(found.iter().all(|row| row.measure != "nearest" && row.measure != "dimension"));
    }

    #[test]
    fn curves_go_through_what_a_threshold_finds() {
        let all = rows();
        let all: Vec<&PromptRow> = all.iter().collect();
        let of = |measure, truth| points(&all, &RocSettings::default(), measure, truth);
        let (x, y) = of("curvature", Target::Dose).unwrap();
        assert_eq!((x.len(), x[20], y[20], x[50], y[50]), (51, 0.0, 1.0, 1.0, 1.0));
        // The area under the steps is the one of the table.
        let (x, y) = of("noise_mean", Target::Dose).unwrap();
        let under: f64 = (1..x.len()).map(|i| (x[i] - x[i - 1]) * 0.5 * (y[i] + y[i - 1])).sum();
        let table = roc(&rows(), &RocSettings::default()).unwrap();
        let row = table.iter().find(|row| row.measure == "noise_mean" && row.truth == "dose").unwrap();
        assert!((under - row.auc).abs() < 1e-12, "{under} {}", row.auc);
        assert!(of("nearest", Target::Dose).is_none() && of("unknown", Target::Dose).is_none());
    }

    #[test]
    fn rows_without_doses_and_bad_settings_are_refused() {
        let none = [PromptRow::default()];
        assert!(roc(&none, &RocSettings::default()).unwrap_err().to_string().contains("dose"));
        for settings in [
            RocSettings { often: 2.0, ..RocSettings::default() },
            RocSettings { rarely: f64::NAN, ..RocSettings::default() },
            RocSettings { delta: -1.0, ..RocSettings::default() },
            RocSettings { share: 0.0, ..RocSettings::default() },
        ] {
            assert!(roc(&rows(), &settings).is_err(), "{settings:?}");
        }
    }
}
