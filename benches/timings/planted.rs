use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{ColorType, ExtendedColorType, GrayImage};
use mem2gen::Error;
use mem2gen::data::{Range, Split, load};
use mem2gen::detect::{Blocks, Compared, Near, NullSource, Sets, c_t, compare, decide, wilson};
use mem2gen::device::DeviceChoice;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::random::Stream;
use mem2gen::store::write_atomic;
use ndarray::{Array2, Axis, concatenate};

/// Height and width of the images.
const SIDE: usize = 28;
/// Fractions of the samples that are copies.
const RATES: [f64; 5] = [0.0, 0.001, 0.01, 0.1, 1.0];
/// Lines between which the table of a page stands.
const MARKS: [&str; 2] = ["<!-- planted:begin -->\n", "<!-- planted:end -->\n"];

/// Plant disturbed copies among new images and compare rules that find copies
///
/// Each seed draws a training set, new images and held-out images without overlap. Prints tables in Markdown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data sets of 28x28 gray images, in the cache
    #[arg(long, value_delimiter = ',', default_value = "mnist,fashion-mnist")]
    datasets: Vec<String>,
    /// Number of seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Number of training images and of samples
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Number of held-out images
    #[arg(long, default_value_t = 500)]
    held_out: usize,
    /// File whose part between the two marks is replaced by the tables
    #[arg(long, value_name = "PAGE.md")]
    page: Option<PathBuf>,
}

/// What is done to a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Disturbance {
    None,
    Noise(f64),
    Blur,
    Jpeg(u8),
    Shift,
    Mirror,
    Brightness(f64),
}

const DISTURBANCES: [Disturbance; 10] = [
    Disturbance::None,
    Disturbance::Noise(0.05),
    Disturbance::Noise(0.15),
    Disturbance::Noise(0.3),
    Disturbance::Blur,
    Disturbance::Jpeg(75),
    Disturbance::Jpeg(20),
    Disturbance::Shift,
    Disturbance::Mirror,
    Disturbance::Brightness(0.7),
];

impl Disturbance {
    fn name(self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Noise(sigma) => format!("noise {sigma}"),
            Self::Blur => "blur".into(),
            Self::Jpeg(quality) => format!("JPEG {quality}"),
            Self::Shift => "shift by 1".into(),
            Self::Mirror => "mirror".into(),
            Self::Brightness(factor) => format!("brightness {factor}"),
        }
    }

    fn apply(self, rows: &Array2<f32>, stream: &mut Stream) -> Array2<f32> {
        let mut out = rows.clone();
        for (from, mut to) in rows.outer_iter().zip(out.outer_iter_mut()) {
            let at = |y: usize, x: usize| from[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)];
            let mut fill = |value: &mut dyn FnMut(usize, usize) -> f32| {
                for y in 0..SIDE {
                    for x in 0..SIDE {
                        to[y * SIDE + x] = value(y, x);
                    }
                }
            };
            match self {
                Self::None => {}
                Self::Noise(sigma) => {
                    fill(&mut |y, x| (at(y, x) + (sigma * stream.normal()) as f32).clamp(0.0, 1.0));
                }
                Self::Blur => fill(&mut |y, x| {
                    let (weights, mut sum) = ([0.25, 0.5, 0.25], 0.0);
                    for (dy, a) in weights.iter().enumerate() {
                        for (dx, b) in weights.iter().enumerate() {
                            sum += a * b * at((y + dy).saturating_sub(1), (x + dx).saturating_sub(1));
                        }
                    }
                    sum
                }),
                Self::Jpeg(quality) => {
                    let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
                    let pixels: Vec<u8> = from.iter().map(|v| byte(*v)).collect();
                    let decoded = through_jpeg(&pixels, quality);
                    fill(&mut |y, x| f32::from(decoded[y * SIDE + x]) / 255.0);
                }
                Self::Shift => fill(&mut |y, x| at(y, x.saturating_sub(1))),
                Self::Mirror => fill(&mut |y, x| at(y, SIDE - 1 - x)),
                Self::Brightness(factor) => fill(&mut |y, x| at(y, x) * factor as f32),
            }
        }
        out
    }
}

fn through_jpeg(pixels: &[u8], quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let side = SIDE as u32;
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(pixels, side, side, ExtendedColorType::from(ColorType::L8))
        .expect("a gray image of 28x28 can be encoded");
    let decoded: GrayImage =
        image::load_from_memory(&bytes).expect("what was encoded can be decoded").into_luma8();
    decoded.into_raw()
}

/// The rules, in the order of the columns.
const RULES: [&str; 6] =
    ["mem2gen", "ratio 1/3", "authenticity", "half the median", "1 % quantile", "C_T < -3"];

/// Sums over seeds of one rule.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    sets: f64,
    recall: f64,
    false_rate: f64,
    alarms: f64,
    covered: f64,
}

/// Data set, held-out or training null, disturbance and rate.
type Key = (String, bool, usize, usize);

/// Runs `timings planted`.
pub fn run(args: Args) -> Result<(), Error> {
    let layout = Layout::find();
    let mut scores: BTreeMap<Key, [Score; RULES.len()]> = BTreeMap::new();
    for name in &args.datasets {
        let pool = load(&layout, name, Split::Train)?;
        for seed in 0..args.seeds {
            let mut stream = Stream::new(seed, "planted");
            let order = stream.permutation(pool.len());
            let n = args.images;
            let part = |from: usize, count: usize| {
                Ok::<_, Error>(pool.select(&order[from..from + count])?.to_f32(Range::Unit))
            };
            let (train, new, held_out) = (part(0, n)?, part(n, n)?, part(2 * n, args.held_out)?);
            for (d, disturbance) in DISTURBANCES.into_iter().enumerate() {
                let copies = disturbance.apply(&train, &mut stream);
                let both = concatenate(Axis(0), &[copies.view(), new.view()]).expect("rows of one length");
                let sets = Sets {
                    train: train.clone().into(),
                    synthetic: both.into(),
                    held_out: Some(held_out.clone().into()),
                    squared: false,
                };
                let found = compare(&sets, Blocks::default(), DeviceChoice::default(), &Silent)?;
                for (r, rate) in RATES.into_iter().enumerate() {
                    let count = (rate * n as f64).round() as usize;
                    for with in [true, false] {
                        let key = (name.clone(), with, d, r);
                        let set = scores.entry(key).or_default();
                        judge(&mixed(&found, count, n, with), count, with, set);
                    }
                }
            }
        }
    }
    let text = tables(&args, &scores);
    print!("{text}");
    if let Some(page) = &args.page {
        let old = fs::read_to_string(page).map_err(mem2gen::store::StoreError::io("open", page))?;
        let cut =
            old.split_once(MARKS[0]).and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
        let (before, after) = cut.unwrap_or((&old, ""));
        write_atomic(page, |w| write!(w, "{before}{}\n{text}\n{}{after}", MARKS[0], MARKS[1]))?;
    }
    Ok(())
}

/// The first `count` of `n` copies and new images up to `n` in all.
fn mixed(found: &Compared, count: usize, n: usize, held_out: bool) -> Compared {
    let chosen: Vec<usize> = (0..count).chain(n + count..2 * n).collect();
    let mut one = found.clone();
    one.samples = chosen.iter().map(|&i| found.samples[i]).collect();
    one.neighbours.train = chosen.iter().map(|&i| found.neighbours.train[i]).collect();
    one.neighbours.second = chosen.iter().map(|&i| found.neighbours.second[i]).collect();
    if !held_out {
        one.held_out = None;
        one.neighbours.held_out = None;
    }
    one
}

/// Adds what each rule calls.
fn judge(found: &Compared, copies: usize, held_out: bool, scores: &mut [Score; RULES.len()]) {
    let samples: Vec<Near> = found.samples.iter().flatten().copied().collect();
    let real = found.neighbours.held_out.as_ref().unwrap_or(&found.neighbours.within);
    let mut sorted = real.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |p: f64| sorted[(p * (sorted.len() - 1) as f64) as usize];
    let (fixed, low) = (0.5 * at(0.5), at(0.01));
    let n = samples.len();
    let decision = decide(found, 0.05);
    let distances: Vec<f64> = samples.iter().map(|near| near.distance).collect();
    let nearer = c_t(&distances, real) < -3.0;
    let truth = copies as f64 / n as f64;
    for (k, score) in scores.iter_mut().enumerate() {
        let calls = |i: usize| match k {
            0 => decision.as_ref().is_some_and(|decision| decision.calls(i)),
            1 => samples[i].ratio().is_some_and(|ratio| ratio < 1.0 / 3.0),
            2 => found.around.get(&samples[i].index).is_some_and(|around| distances[i] < *around),
            3 => distances[i] <= fixed,
            4 => distances[i] <= low,
            // One answer for the whole set.
            _ => nearer,
        };
        let right = (0..copies).filter(|&i| calls(i)).count();
        let wrong = (copies..n).filter(|&i| calls(i)).count();
        let called = right + wrong;
        let interval = match (k, &decision) {
            (0, Some(decision)) => decision.interval,
            _ => wilson(called as f64 / n as f64, n).into(),
        };
        score.sets += 1.0;
        score.recall += if copies == 0 { 0.0 } else { right as f64 / copies as f64 };
        score.false_rate += wrong as f64 / called.max(1) as f64;
        score.alarms += f64::from(u8::from(wrong > 0));
        score.covered += f64::from(u8::from((interval[0]..=interval[1]).contains(&truth)));
    }
    let expected = if held_out { NullSource::HeldOut } else { NullSource::Training };
    debug_assert!(decision.is_none_or(|decision| decision.null.source == expected));
}

fn tables(args: &Args, scores: &BTreeMap<Key, [Score; RULES.len()]>) -> String {
    let mut out = format!(
        "{} seeds, {} training images, {} samples, {} held-out images, false discovery rate 0.05.\n",
        args.seeds, args.images, args.images, args.held_out
    );
    let mean = |value: f64, score: &Score| format!("{:.3}", value / score.sets);
    for name in &args.datasets {
        for with in [true, false] {
            let null = if with { "with held-out images" } else { "without held-out images" };
            let row = |out: &mut String, head: &str, cells: Vec<String>| {
                let _ = writeln!(out, "| {head} | {} |", cells.join(" | "));
            };
            let _ = write!(
                out,
                "\n**{name}, {null}: no copies.** Share of the sets in which any sample is called.\n\n"
            );
            row(&mut out, "", RULES.map(str::to_owned).to_vec());
            row(&mut out, "---", vec!["---".to_owned(); RULES.len()]);
            let null_scores = &scores[&(name.clone(), with, 0, 0)];
            row(&mut out, "false alarm", null_scores.iter().map(|s| mean(s.alarms, s)).collect());
            let _ = write!(
                out,
                "\n**{name}, {null}: copies.** Recall / false discovery rate, and the share of the sets in which the \
                 interval of the rule holds the planted fraction.\n\n"
            );
            let heads: Vec<String> = RULES[..5]
                .iter()
                .map(|r| (*r).to_owned())
                .chain(["interval".into(), RULES[5].into()])
                .collect();
            row(&mut out, "copies", heads.clone());
            row(&mut out, "---", vec!["---".to_owned(); heads.len()]);
            for (d, disturbance) in DISTURBANCES.into_iter().enumerate() {
                for (r, rate) in RATES.into_iter().enumerate().skip(1) {
                    let set = &scores[&(name.clone(), with, d, r)];
                    let mut cells: Vec<String> = set[..5]
                        .iter()
                        .map(|s| format!("{} / {}", mean(s.recall, s), mean(s.false_rate, s)))
                        .collect();
                    cells.push(mean(set[0].covered, &set[0]));
                    cells.push(mean(set[5].recall, &set[5]));
                    row(&mut out, &format!("{}, {} %", disturbance.name(), 100.0 * rate), cells);
                }
            }
        }
    }
    out
}
