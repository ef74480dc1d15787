//! The table of claims follows from the other committed tables. Of the crate only the reader of parquet is used: every
//! value, interval and verdict is computed here a second time, from the columns.

use std::collections::BTreeMap;
use std::path::Path;

use mem2gen::frame::{column_i64, column_text, read_parquet};
use polars::prelude::{AnyValue, DataFrame};

/// A row by the names of its columns: numbers and texts. Yes and no are 1 and 0, and missing values are left out.
#[derive(Debug, Default, Clone)]
struct Row {
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
}

impl Row {
    fn is(&self, column: &str, text: &str) -> bool {
        self.texts[column] == text
    }

    fn share(&self, class: &str) -> Share {
        Share { k: self.numbers["k"], count: self.numbers[class], samples: self.numbers["samples"] }
    }
}

fn rows(name: &str) -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results");
    let table: DataFrame = read_parquet(&folder.join(format!("{name}.parquet"))).unwrap();
    let mut rows = vec![Row::default(); table.height()];
    for column in table.columns() {
        for (i, row) in rows.iter_mut().enumerate() {
            let name = column.name().to_string();
            match column.get(i).unwrap() {
                AnyValue::Null => {}
                AnyValue::Boolean(flag) => {
                    row.numbers.insert(name, f64::from(u8::from(flag)));
                }
                value => match value.get_str() {
                    Some(text) => {
                        row.texts.insert(name, text.to_owned());
                    }
                    None => {
                        row.numbers.insert(name, value.extract::<f64>().unwrap());
                    }
                },
            }
        }
    }
    rows
}

#[derive(Debug, Clone, Copy)]
struct Share {
    k: f64,
    count: f64,
    samples: f64,
}

impl Share {
    fn fraction(self) -> f64 {
        self.count / self.samples
    }

    fn wilson(self) -> [f64; 2] {
        let (n, p, z) = (self.samples, self.fraction(), Z);
        let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [(centre - half).max(0.0), (centre + half).min(1.0)]
    }
}

/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Probability that a standard normal variable is above z.
fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / 2f64.sqrt())
}

/// The z with this probability, by Newton's method from 2.
fn quantile(above: f64) -> f64 {
    (0..60).fold(2.0, |z: f64, _| {
        let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        z + (tail(z) - above) / density
    })
}

/// A mean at K and its standard error.
type Means = BTreeMap<u64, (f64, f64)>;

/// The expected content of a row.
struct Wanted {
    value: f64,
    interval: [f64; 2],
    p: Option<f64>,
    verdict: &'static str,
    /// Tolerance of the ends of the interval; the value is exact.
    slack: f64,
}

fn at_least([low, high]: [f64; 2], bound: f64) -> &'static str {
    if low >= bound {
        "holds"
    } else if high < bound {
        "does not hold here"
    } else {
        "holds in part"
    }
}

fn of(value: f64, interval: [f64; 2], verdict: &'static str) -> Wanted {
    Wanted { value, interval, p: None, verdict, slack: 1e-9 }
}

fn near_one(s: Share) -> Wanted {
    of(s.fraction(), s.wilson(), at_least(s.wilson(), 0.9))
}

/// The least of several fractions that are claimed to be near one.
fn least(all: &[Share]) -> Wanted {
    near_one(*all.iter().min_by(|a, b| a.fraction().total_cmp(&b.fraction())).unwrap())
}

fn others(s: Share) -> Share {
    Share { count: s.samples - s.count, ..s }
}

fn peak(all: &[Share]) -> Wanted {
    let (first, last) = (all[0], all[all.len() - 1]);
    let top = *all.iter().rev().max_by(|a, b| a.fraction().total_cmp(&b.fraction())).unwrap();
    let test = |end: Share| {
        let pooled = (top.count + end.count) / (top.samples + end.samples);
        let error = (pooled * (1.0 - pooled) * (1.0 / top.samples + 1.0 / end.samples)).sqrt();
        tail((top.fraction() - end.fraction()) / error)
    };
    let p = (test(first).max(test(last)) * all.len() as f64).min(1.0);
    assert!(first.k < top.k && top.k < last.k);
    let verdict = if p < 0.05 { "holds" } else { "holds in part" };
    Wanted { p: Some(p), ..of(top.fraction(), top.wilson(), verdict) }
}

/// log2 of the K at which a curve falls to `level`, and its variance from the counts at the two neighbouring K.
fn falls_to(all: &[Share], level: f64) -> Option<(f64, f64)> {
    all.windows(2).find(|w| w[0].fraction() >= level && w[1].fraction() < level).map(|w| {
        let (p, q, step) = (w[0].fraction(), w[1].fraction(), (w[1].k / w[0].k).log2());
        let slopes = [(level - q) / (p - q).powi(2), (p - level) / (p - q).powi(2)];
        let variance: f64 =
            w.iter().zip(slopes).map(|(s, d)| d * d * s.fraction() * (1.0 - s.fraction()) / s.samples).sum();
        (w[0].k.log2() + (p - level) / (p - q) * step, step * step * variance)
    })
}

fn later(narrow: &[Share], wide: &[Share]) -> Wanted {
    let ((a, v), (b, w)) = (falls_to(narrow, 0.5).unwrap(), falls_to(wide, 0.5).unwrap());
    let half = Z * (v + w).sqrt();
    let interval = [b - a - half, b - a + half];
    // The table's is a bootstrap of 2000 draws, whose percentiles vary by some hundredths of the interval.
    Wanted { slack: 0.1 * half, ..of(b - a, interval, at_least(interval, 0.0)) }
}

/// The peak of the wider network over that of the narrower one. The interval is a bootstrap, whose ends are ratios of the
/// measured K, so it is taken from the claim.
fn peaks_later(narrow: &[Share], wide: &[Share], claim: &Row) -> Wanted {
    let at = |all: &[Share]| {
        all.iter().rev().max_by(|a, b| a.fraction().total_cmp(&b.fraction())).map(|s| s.k.log2()).unwrap()
    };
    let value = at(wide) - at(narrow);
    let interval = ["low", "high"].map(|end| claim.numbers[end]);
    assert!((interval[0]..=interval[1]).contains(&value));
    for end in interval {
        let ratio = |b: &Share| narrow.iter().any(|a| (b.k.log2() - a.k.log2() - end).abs() < 1e-9);
        assert!(wide.iter().any(ratio), "{end} is no ratio of two K");
    }
    of(value, interval, at_least(interval, 1e-12))
}

/// For each K, the samples of the sets of 4K and how many of them are spurious in the sets of 8K alone.
fn turned(table: &DataFrame, network: &str) -> Vec<Share> {
    let [ks, multiples, samples] = ["k", "multiple", "sample"].map(|name| column_i64(table, name).unwrap());
    let [networks, labels] = ["network", "label"].map(|name| column_text(table, name).unwrap());
    let mut spurious = BTreeMap::<i64, [BTreeMap<i64, bool>; 2]>::new();
    for i in (0..ks.len()).filter(|&i| networks[i] == network) {
        let of = &mut spurious.entry(ks[i]).or_default()[usize::from(multiples[i] == 8)];
        of.insert(samples[i], labels[i] == "spurious");
    }
    let share = |(k, [four, eight]): (i64, [BTreeMap<i64, bool>; 2])| {
        let turned = four.iter().filter(|(sample, was)| !**was && eight[*sample]).count();
        Share { k: k as f64, count: turned as f64, samples: four.len() as f64 }
    };
    spurious.into_iter().map(share).collect()
}

fn more_in_larger_sets(turned: &[Share]) -> Wanted {
    let z = quantile(0.025 / turned.len() as f64);
    // The first of equal values.
    let most = turned.iter().rev().max_by(|a, b| a.fraction().total_cmp(&b.fraction())).unwrap();
    let (p, n) = (most.fraction(), most.samples);
    // The roots of (p - x)^2 = z^2 x (1 - x) / n.
    let (a, b) = (1.0 + z * z / n, -(2.0 * p + z * z / n));
    let root = (b * b - 4.0 * a * p * p).sqrt();
    let interval = [(-b - root) / (2.0 * a), (-b + root) / (2.0 * a)];
    of(p, interval, if interval[0] > 0.0 { "holds" } else { "holds in part" })
}

/// The mean of differences over K.
fn over_all(differences: &[(f64, f64)]) -> Wanted {
    let n = differences.len() as f64;
    let mean = differences.iter().map(|d| d.0).sum::<f64>() / n;
    let half = Z * differences.iter().map(|d| d.1 * d.1).sum::<f64>().sqrt() / n;
    let interval = [mean - half, mean + half];
    let verdict = match (differences.iter().any(|d| d.0 > 0.0), at_least(interval, 0.0)) {
        (false, _) => "does not hold here",
        (true, "holds") if against(differences) => "holds in part",
        (true, verdict) => verdict,
    };
    of(mean, interval, verdict)
}

/// Whether one of them is significantly below 0, corrected for their number.
fn against(differences: &[(f64, f64)]) -> bool {
    let z = quantile(0.05 / differences.len() as f64);
    differences.iter().any(|(value, error)| value + z * error < 0.0)
}

fn minus((a, e): (f64, f64), (b, f): (f64, f64)) -> (f64, f64) {
    (a - b, (e * e + f * f).sqrt())
}

fn larger(high: &Means, low: &Means) -> Wanted {
    let pairs = high.iter().filter_map(|(k, h)| low.get(k).map(|l| minus(*h, *l)));
    over_all(&pairs.collect::<Vec<_>>())
}

fn rise(means: &Means) -> Wanted {
    let minus: Means = means.iter().map(|(k, (mean, error))| (*k, (-mean, *error))).collect();
    let Wanted { value, interval: [low, high], verdict, .. } = fall(&minus);
    of(-value, [-high, -low], verdict)
}

fn fall(means: &Means) -> Wanted {
    let x: Vec<f64> = means.keys().map(|k| (*k as f64).log2()).collect();
    let n = x.len() as f64;
    let (sx, sxx) = (x.iter().sum::<f64>(), x.iter().map(|x| x * x).sum::<f64>());
    // Normal equations of a line, as weights of the means.
    let weight = |x: f64| (n * x - sx) / (n * sxx - sx * sx);
    let slope: f64 = x.iter().zip(means.values()).map(|(x, m)| weight(*x) * m.0).sum();
    let square: f64 = x.iter().zip(means.values()).map(|(x, m)| (weight(*x) * m.1).powi(2)).sum();
    let interval = [slope - Z * square.sqrt(), slope + Z * square.sqrt()];
    let values: Vec<(f64, f64)> = means.values().copied().collect();
    let steps: Vec<(f64, f64)> = values.windows(2).map(|w| minus(w[0], w[1])).collect();
    let verdict = match at_least([-interval[1], -interval[0]], 0.0) {
        "holds" if against(&steps) => "holds in part",
        verdict => verdict,
    };
    of(slope, interval, verdict)
}

fn diverges(means: &Means) -> Wanted {
    let (first, last) = (means.values().next().unwrap(), means.values().last().unwrap());
    let (value, error) = minus((last.0.abs(), last.1), (first.0.abs(), first.1));
    let interval = [value - Z * error, value + Z * error];
    let near = first.0.abs() <= Z * first.1 || first.0.abs() <= 0.1 * last.0.abs();
    let verdict = match at_least(interval, 0.0) {
        "holds" if !near => "holds in part",
        verdict => verdict,
    };
    of(value, interval, verdict)
}

fn lowest(spurious: &Means, others: [&Means; 2], memorized: &[Share]) -> Option<Wanted> {
    let ends = [0.9, 0.1].map(|level| falls_to(memorized, level).map(|(at, _)| at));
    let inside = |k: u64| {
        let at = (k as f64).log2();
        ends[0].is_none_or(|from| at >= from - 1e-12) && ends[1].is_none_or(|to| at <= to + 1e-12)
    };
    let mut differences = Vec::new();
    for (k, s) in spurious.iter().filter(|(k, _)| inside(**k)) {
        let rivals = others.iter().filter_map(|o| o.get(k));
        differences.extend(rivals.max_by(|a, b| a.0.total_cmp(&b.0)).map(|rival| minus(*s, *rival)));
    }
    (!differences.is_empty()).then(|| over_all(&differences))
}

fn narrowest(generalized: &Means, others: [&Means; 2]) -> Option<Wanted> {
    let (k, g) = generalized.iter().rfind(|(k, _)| others.iter().any(|o| o.contains_key(*k)))?;
    let rivals = others.iter().filter_map(|o| o.get(k));
    let rival = rivals.min_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))?;
    let (value, error) = minus((rival.0.abs(), rival.1), (g.0.abs(), g.1));
    let interval = [value - Z * error, value + Z * error];
    Some(of(value, interval, at_least(interval, 0.0)))
}

/// The cells of a network with the fewest samples per training image, or with `multiple` samples per image.
fn cells<'a>(all: &'a [Row], dataset: &str, network: &str, multiple: Option<f64>) -> Vec<&'a Row> {
    let of = || all.iter().filter(|r| r.is("dataset", dataset) && r.is("network", network));
    let least = of().map(|r| r.numbers["multiple"]).fold(f64::INFINITY, f64::min);
    let mut found: Vec<&Row> = of().filter(|r| r.numbers["multiple"] == multiple.unwrap_or(least)).collect();
    found.sort_by(|a, b| a.numbers["k"].total_cmp(&b.numbers["k"]));
    found
}

fn shares(all: &[Row], dataset: &str, network: &str, class: &str) -> Vec<Share> {
    cells(all, dataset, network, None).into_iter().map(|r| r.share(class)).collect()
}

fn means(
    rows: &[Row],
    (dataset, network): (&str, &str),
    class: &str,
    value: impl Fn(&Row) -> Option<(f64, f64)>,
) -> Means {
    rows.iter()
        .filter(|r| r.is("dataset", dataset) && r.is("network", network) && r.is("class", class))
        .filter_map(|r| value(r).map(|mean| (r.numbers["k"] as u64, mean)))
        .collect()
}

#[test]
fn every_claim_follows_from_the_tables() {
    let plans = ["mnist_mlp", "mnist_unet", "fashion_mnist_mlp", "fashion_mnist_unet"];
    let sweep: Vec<Row> = plans.iter().flat_map(|plan| rows(&format!("transition_{plan}"))).collect();
    let (basins, sets, gaps) = (rows("basins"), rows("curvature_sets"), rows("potential_gaps"));
    let (flows, toy, summary) =
        (rows("attractor_flows"), rows("toy_trained_attractors"), rows("toy_trained"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results");
    let samples = read_parquet(&folder.join("transition_mnist_mlp_samples.parquet")).unwrap();
    let mut kinds = BTreeMap::<String, usize>::new();
    for claim in rows("claims") {
        let (text, dataset, network) =
            (&claim.texts["claim"], claim.texts["dataset"].as_str(), claim.texts["network"].as_str());
        let on = (dataset, network);
        let of_class = |class| shares(&sweep, dataset, network, class);
        let volume = |class| {
            means(&basins, on, class, |r| {
                let error = r.numbers["log_volume_error"];
                (r.numbers["too_few"] == 0.0).then(|| (r.numbers["log_volume"], error))
            })
        };
        let gap = |class| {
            means(&gaps, on, class, |r| {
                let error = (r.numbers["standard_error"].powi(2) + r.numbers["between"].powi(2)).sqrt();
                (r.is("reference", "all") && r.numbers["few"] == 0.0).then(|| (r.numbers["gap"], error))
            })
        };
        let curvature = |class| {
            means(&sets, on, class, |r| r.numbers.get("mean_error").map(|error| (r.numbers["mean"], *error)))
        };
        let flow = |start: &str, share: &str| -> Vec<Share> {
            let wanted = |r: &&Row| {
                r.is("dataset", dataset)
                    && r.is("network", network)
                    && r.is("start", start)
                    && (r.numbers["t"], r.numbers["exact"]) == (15.0, 0.0)
            };
            let mut all: Vec<Share> = flows
                .iter()
                .filter(wanted)
                .map(|r| {
                    let (k, samples) = (r.numbers["k"], r.numbers["starts"]);
                    Share { k, count: (r.numbers[share] * samples).round(), samples }
                })
                .collect();
            all.sort_by(|a, b| a.k.total_cmp(&b.k));
            all
        };
        let words: Vec<&str> = text.split(' ').collect();
        let wanted = match words.as_slice() {
            ["memorized,", "then", "spurious,", ..] => {
                let count = |k: f64, kind: &str| {
                    let of = toy.iter().filter(|r| r.is("of", "network") && r.is("kind", kind));
                    of.filter(|r| r.numbers["k"] == k).count() as f64
                };
                let ring =
                    |k: f64| summary.iter().find(|r| r.numbers["k"] == k).unwrap().numbers["ring_region_rms"];
                assert_eq!((count(2.0, "memorized"), count(2.0, "spurious")), (2.0, 0.0));
                assert!(ring(1000.0) <= 0.1 * ring(9.0));
                Some(of(count(9.0, "spurious"), [f64::NAN; 2], "holds"))
            }
            ["samples", "are", "memorized", ..] => {
                let (m, g) = (of_class("memorized"), of_class("generalized"));
                Some(least(&[m[0], others(m[m.len() - 1]), g[g.len() - 1]]))
            }
            ["training", "images", "are", ..] => {
                let stay = flow("training", "stays");
                let (first, last) = (stay[0], stay[stay.len() - 1]);
                assert!(first.fraction() >= 0.9 && last.fraction() <= 0.1);
                let most = stay.iter().map(|s| s.count).fold(0.0, f64::max);
                Some(of(most, [f64::NAN; 2], "holds"))
            }
            ["noise", "flows", ..] => {
                let m = flow("noise", "memorized");
                Some(least(&[m[0], others(m[m.len() - 1])]))
            }
            ["spurious", "samples", "are", "most", ..] => Some(peak(&of_class("spurious"))),
            ["the", "spurious", "peak", ..] => {
                let (wide, narrow) = network.split_once(" over ").unwrap();
                let of = |network| shares(&sweep, dataset, network, "spurious");
                Some(peaks_later(&of(narrow), &of(wide), &claim))
            }
            ["the", "transition", "comes", "later", ..] => {
                let (wide, narrow) = network.split_once(" over ").unwrap();
                let of = |network| shares(&sweep, dataset, network, "memorized");
                Some(later(&of(narrow), &of(wide)))
            }
            ["with", "8K", ..] => {
                assert_eq!(dataset, "mnist");
                Some(more_in_larger_sets(&turned(&samples, network)))
            }
            ["the", "exact", "score", ..] => {
                let all = shares(&sweep, dataset, "exact", "memorized");
                all.into_iter().min_by(|a, b| a.fraction().total_cmp(&b.fraction())).map(near_one)
            }
            ["basins", "of", high, .., low, "ones"] => Some(larger(&volume(high), &volume(low))),
            ["curvature", "at", high, .., low, "ones"] => Some(larger(&curvature(high), &curvature(low))),
            ["the", "energy", "of", "memorized", ..] => Some(fall(&gap("memorized"))),
            ["the", "energy", "of", "generalized", ..] => Some(rise(&gap("generalized"))),
            ["spectra", ..] => Some(fall(&means(&sets, on, "training", |r| {
                Some((r.numbers["mean"], r.numbers.get("mean_error").copied().unwrap_or(0.0)))
            }))),
            ["the", "memorized", "energy", ..] => Some(diverges(&gap("memorized"))),
            ["spurious", "samples", "have", ..] => {
                lowest(&gap("spurious"), [&gap("memorized"), &gap("generalized")], &of_class("memorized"))
            }
            ["the", "generalized", "energy", ..] => {
                narrowest(&gap("generalized"), [&gap("memorized"), &gap("spurious")])
            }
            _ => panic!("{text}: this test does not compute this claim"),
        };
        *kinds.entry(text.clone()).or_default() += 1;
        let Some(wanted) = wanted else {
            assert!(claim.is("verdict", "not measured") && !claim.numbers.contains_key("value"), "{claim:?}");
            continue;
        };
        let near = |a: f64, b: f64, slack: f64| (a - b).abs() <= slack * (1.0 + b.abs());
        assert!(near(claim.numbers["value"], wanted.value, 1e-9), "{} {claim:?}", wanted.value);
        for (column, end) in ["low", "high"].into_iter().zip(wanted.interval) {
            if end.is_nan() {
                assert!(!claim.numbers.contains_key(column), "{claim:?}");
                continue;
            }
            assert!(near(claim.numbers[column], end, wanted.slack), "{:?} {claim:?}", wanted.interval);
        }
        assert!(claim.is("verdict", wanted.verdict), "{} {claim:?}", wanted.verdict);
        match (claim.numbers.get("p"), wanted.p) {
            (None, None) => {}
            (Some(p), Some(wanted)) => assert!(near(p.ln(), wanted.ln(), 1e-6) || p.max(wanted) < 1e-250),
            (p, wanted) => panic!("{p:?} {wanted:?} {claim:?}"),
        }
    }
    assert_eq!(kinds.len(), 19, "{kinds:?}");
    assert!(kinds.values().filter(|count| **count >= 2).count() == 18, "{kinds:?}");
}
