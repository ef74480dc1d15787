//! The table of claims follows from the other committed tables. Of the crate only the reader of parquet is used: every
//! value, interval and verdict is computed here a second time, from the columns.

use std::collections::BTreeMap;
use std::path::Path;

use mem2gen::frame::read_parquet;
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

fn near_nought(s: Share) -> Wanted {
    let [low, high] = s.wilson();
    of(s.fraction(), s.wilson(), at_least([1.0 - high, 1.0 - low], 0.9))
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

fn more_in_larger_sets(pairs: &[(Share, Share)]) -> Wanted {
    let z = quantile(0.025 / pairs.len() as f64);
    let of_pair = |a: Share, b: Share| {
        let [(p, n), (q, m)] = [a, b].map(|s| ((s.count + 1.0) / (s.samples + 2.0), s.samples + 2.0));
        let half = z * (p * (1.0 - p) / n + q * (1.0 - q) / m).sqrt();
        (b.fraction() - a.fraction(), [q - p - half, q - p + half])
    };
    let all: Vec<(f64, [f64; 2])> = pairs.iter().map(|(a, b)| of_pair(*a, *b)).collect();
    // The first of equal values.
    let most = all.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let verdict = if all.iter().any(|(_, [low, _])| *low >= 0.0) {
        "holds"
    } else if all.iter().all(|(_, [_, high])| *high < 0.0) {
        "does not hold here"
    } else {
        "holds in part"
    };
    of(most.0, most.1, verdict)
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
        let words: Vec<&str> = text.split(' ').collect();
        let wanted = match words.as_slice() {
            ["nearly", "all", "samples", "are", "memorized", ..] => Some(near_one(of_class("memorized")[0])),
            ["hardly", ..] => of_class("memorized").last().map(|s| near_nought(*s)),
            ["spurious", "samples", "are", "most", ..] => Some(peak(&of_class("spurious"))),
            ["nearly", "all", "samples", "generalize", ..] => {
                of_class("generalized").last().map(|s| near_one(*s))
            }
            ["the", "transition", "comes", "later", ..] => {
                let (wide, narrow) = network.split_once(" over ").unwrap();
                let of = |network| shares(&sweep, dataset, network, "memorized");
                Some(later(&of(narrow), &of(wide)))
            }
            ["with", "8K", ..] => {
                let (four, eight) =
                    (cells(&sweep, dataset, network, Some(4.0)), cells(&sweep, dataset, network, Some(8.0)));
                assert_eq!(four.len(), eight.len());
                let pairs = four.iter().zip(&eight).map(|(a, b)| (a.share("spurious"), b.share("spurious")));
                Some(more_in_larger_sets(&pairs.collect::<Vec<_>>()))
            }
            ["the", "exact", "score", ..] => {
                let all = shares(&sweep, dataset, "exact", "memorized");
                all.into_iter().min_by(|a, b| a.fraction().total_cmp(&b.fraction())).map(near_one)
            }
            ["basins", "of", high, .., low, "ones"] => Some(larger(&volume(high), &volume(low))),
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
            assert!(near(claim.numbers[column], end, wanted.slack), "{:?} {claim:?}", wanted.interval);
        }
        assert!(claim.is("verdict", wanted.verdict), "{} {claim:?}", wanted.verdict);
        match (claim.numbers.get("p"), wanted.p) {
            (None, None) => {}
            (Some(p), Some(wanted)) => assert!(near(p.ln(), wanted.ln(), 1e-6) || p.max(wanted) < 1e-250),
            (p, wanted) => panic!("{p:?} {wanted:?} {claim:?}"),
        }
    }
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    assert!(kinds.values().all(|count| *count >= 2), "{kinds:?}");
}
