use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType};
use mem2gen::Error;
use mem2gen::data::input::Options;
use mem2gen::data::{Dataset, ImageSet, Input, Range, Split, load};
use mem2gen::detect::{Blocks, Compared, DetectError, Near, Part, Sets, Source, c_t, compare, decide};
use mem2gen::device::DeviceChoice;
use mem2gen::distance::{Backbone, Lpips};
use mem2gen::ops::Memories;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::random::Stream;
use mem2gen::setting::SettingError;
use mem2gen::shape::Shape;
use mem2gen::store::{StoreError, write_atomic};
use mem2gen::study::copies::Transformation;
use ndarray::{ArcArray2, Array2, Axis};
use serde::{Deserialize, Serialize};

/// Side of colour images.
const COLOUR_SIDE: usize = 32;
/// Fractions of the samples that are copies.
const RATES: [f64; 5] = [0.0, 0.001, 0.01, 0.1, 1.0];
/// False discovery rate of the decision.
const FDR: f64 = 0.05;
/// Distance up to which images are near duplicates, as a fraction of the median distance to the nearest training image.
const APART: f64 = 0.5;
/// Lines between which the table of a page stands.
const MARKS: [&str; 2] = ["<!-- planted:begin -->\n", "<!-- planted:end -->\n"];

/// Plant disturbed copies among new images and compare rules that find copies
///
/// Each seed draws a training set, new images and held-out images without overlap. Prints tables in Markdown of all seeds in
/// the file of results, to which those that are missing are added first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data sets of gray images, in the cache; "" for none
    #[arg(long, value_delimiter = ',', default_value = "mnist,fashion-mnist")]
    datasets: Vec<String>,
    /// Data sets of which near duplicates are left out, too
    #[arg(long, value_delimiter = ',', default_value = "fashion-mnist")]
    apart: Vec<String>,
    /// Colour images, cropped and resized to 32x32; near duplicates are left out
    #[arg(long, value_name = "FOLDER_OR_FILE")]
    colour: Option<PathBuf>,
    /// Number of seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Number of seeds with mirrored and moved images, for the gray images
    #[arg(long, default_value_t = 20)]
    moved_seeds: u64,
    /// Number of seeds with LPIPS-AlexNet
    #[arg(long, default_value_t = 0)]
    lpips_seeds: u64,
    /// Number of training images and of samples
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Number of held-out images
    #[arg(long, default_value_t = 500)]
    held_out: usize,
    /// File of results, one line a seed; those of another rule have to be deleted
    #[arg(long, value_name = "FILE.jsonl", default_value = "out/planted.jsonl")]
    results: PathBuf,
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

    fn apply(self, rows: &Array2<f32>, shape: Shape, stream: &mut Stream) -> Array2<f32> {
        let Shape { height, width, channels } = shape;
        let moved = |right: isize, mirrored: bool| {
            Transformation { mirrored, right, down: 0 }.apply(rows.view(), shape)
        };
        match self {
            Self::None => rows.clone(),
            Self::Noise(sigma) => rows.mapv(|v| (v + (sigma * stream.normal()) as f32).clamp(0.0, 1.0)),
            Self::Shift => moved(1, false),
            Self::Mirror => moved(0, true),
            Self::Brightness(factor) => rows * factor as f32,
            Self::Blur => {
                let mut out = Array2::zeros(rows.dim());
                for (right, a) in [(-1, 0.25), (0, 0.5), (1, 0.25)] {
                    for (down, b) in [(-1, 0.25), (0, 0.5), (1, 0.25)] {
                        let moved = Transformation { mirrored: false, right, down };
                        out.scaled_add(a * b, &moved.apply(rows.view(), shape));
                    }
                }
                out
            }
            Self::Jpeg(quality) => {
                let mut out = rows.clone();
                for mut row in out.outer_iter_mut() {
                    let pixels: Vec<u8> =
                        row.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
                    let decoded = through_jpeg(&pixels, [height, width, channels], quality);
                    row.iter_mut().zip(decoded).for_each(|(to, v)| *to = f32::from(v) / 255.0);
                }
                out
            }
        }
    }
}

fn through_jpeg(pixels: &[u8], [height, width, channels]: [usize; 3], quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(pixels, width as u32, height as u32, colour)
        .expect("images have one or three channels and their size");
    let decoded: DynamicImage = image::load_from_memory(&bytes).expect("what was encoded can be decoded");
    if channels == 1 { decoded.into_luma8().into_raw() } else { decoded.into_rgb8().into_raw() }
}

/// The rules, in the order of the columns.
const RULES: [&str; 6] =
    ["mem2gen", "ratio 1/3", "authenticity", "half the median", "1 % quantile", "C_T < -3"];

/// What one rule finds in one set.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Score {
    recall: f64,
    false_rate: f64,
    wrong: usize,
}

/// One set: copies at a rate among new images.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    held_out: bool,
    copies: String,
    rate: f64,
    scores: Vec<Score>,
    /// Whether the interval holds the fraction of copies with p-values up to the cutoff.
    covered: bool,
    /// Whether the planted fraction lies between the lower end of the interval and the upper bound of the decision.
    bounded: bool,
    at_most: f64,
    expected_false: f64,
}

/// All sets of a seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    case: String,
    seed: u64,
    images: usize,
    held_out: usize,
    /// Fraction of the drawn images that are left out as near duplicates.
    left_out: f64,
    cells: Vec<Cell>,
}

/// Images to draw from.
enum Pool {
    Known(Dataset),
    Read(ImageSet, Shape),
}

impl Pool {
    fn len(&self) -> usize {
        match self {
            Self::Known(set) => set.len(),
            Self::Read(set, _) => set.len(),
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Known(set) => set.shape(),
            Self::Read(_, shape) => *shape,
        }
    }

    fn rows(&self, indices: &[usize]) -> Result<Array2<f32>, Error> {
        Ok(match self {
            Self::Known(set) => set.select(indices)?.to_f32(Range::Unit),
            Self::Read(set, _) => set.rows().select(Axis(0), indices),
        })
    }
}

/// How sets are drawn and compared.
struct Case {
    name: String,
    pool: usize,
    seeds: u64,
    apart: bool,
    moved: bool,
    lpips: bool,
}

/// The training and held-out images of a seed, with what they are compared by.
struct Drawn<'a> {
    train: &'a Array2<f32>,
    held_out: &'a Array2<f32>,
    shape: Shape,
    transformations: Vec<Transformation>,
    lpips: Option<&'a Lpips>,
}

impl Drawn<'_> {
    fn compare(&self, samples: &Array2<f32>) -> Result<Compared, Error> {
        let rows = |images: &Array2<f32>| -> Result<ArcArray2<f32>, Error> {
            Ok(match self.lpips {
                Some(lpips) => lpips.features(self.shape, images.view(), &Silent)?.into(),
                None => images.clone().into(),
            })
        };
        let sets = Sets {
            train: rows(self.train)?,
            synthetic: rows(samples)?,
            held_out: Some(rows(self.held_out)?),
            squared: self.lpips.is_some(),
        };
        let source = Moved { drawn: self, samples, sets };
        compare(&source, Blocks::default(), DeviceChoice::default(), &Silent)
    }
}

/// The sets of a seed, with the samples under all transformations.
struct Moved<'a> {
    drawn: &'a Drawn<'a>,
    samples: &'a Array2<f32>,
    sets: Sets,
}

impl Source for Moved<'_> {
    type Error = Error;

    fn dim(&self, part: Part) -> Option<[usize; 2]> {
        self.sets.dim(part)
    }

    fn rows(&self, part: Part, transformation: usize, rows: &[usize]) -> Result<ArcArray2<f32>, Error> {
        if transformation == 0 {
            return Ok(self.sets.rows(part, 0, rows)?);
        }
        let set = match part {
            Part::Train => self.drawn.train,
            Part::Synthetic => self.samples,
            Part::HeldOut => self.drawn.held_out,
        };
        let images = set.select(Axis(0), rows);
        let moved = self.drawn.transformations[transformation].apply(images.view(), self.drawn.shape);
        Ok(match self.drawn.lpips {
            Some(lpips) => lpips.features(self.drawn.shape, moved.view(), &Silent)?.into(),
            None => moved.into(),
        })
    }

    fn transformations(&self) -> usize {
        self.drawn.transformations.len()
    }

    fn squared(&self) -> bool {
        self.sets.squared()
    }
}

/// Runs `timings planted`.
pub fn run(args: Args) -> Result<(), Error> {
    let layout = Layout::find();
    let (pools, cases) = cases(&args, &layout)?;
    let lpips = (args.lpips_seeds > 0).then(|| Lpips::open(Backbone::AlexNet, &layout)).transpose()?;
    let known = results(&args)?;
    let done: HashSet<(String, u64)> = known.into_iter().map(|line| (line.case, line.seed)).collect();
    if let Some(folder) = args.results.parent() {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    }
    for seed in 0..cases.iter().map(|case| case.seeds).max().unwrap_or(0) {
        for case in &cases {
            if seed >= case.seeds || done.contains(&(case.name.clone(), seed)) {
                continue;
            }
            let measured = measure(&args, case, &pools[case.pool], lpips.as_ref(), seed)?;
            let line = serde_json::to_string(&measured).expect("numbers and names can be written");
            let append =
                |path: &Path| writeln!(OpenOptions::new().create(true).append(true).open(path)?, "{line}");
            append(&args.results).map_err(StoreError::io("append to", &args.results))?;
        }
    }
    let text = tables(&results(&args)?);
    print!("{text}");
    if let Some(page) = &args.page {
        let old = fs::read_to_string(page).map_err(StoreError::io("open", page))?;
        let cut =
            old.split_once(MARKS[0]).and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
        let (before, after) = cut.unwrap_or((&old, ""));
        write_atomic(page, |w| write!(w, "{before}{}\n{text}\n{}{after}", MARKS[0], MARKS[1]))?;
    }
    Ok(())
}

/// The error of a setting.
fn refused(setting: &'static str, value: impl ToString, need: impl Into<Cow<'static, str>>) -> Error {
    DetectError::from(SettingError::new("planted", setting, value, need)).into()
}

fn cases(args: &Args, layout: &Layout) -> Result<(Vec<Pool>, Vec<Case>), Error> {
    let (mut pools, mut cases) = (Vec::new(), Vec::new());
    let colour = args.colour.as_ref().map(|path| ("colour".to_owned(), Some(path)));
    let known = args.datasets.iter().filter(|name| !name.is_empty()).map(|name| (name.clone(), None));
    for (name, path) in known.chain(colour) {
        pools.push(match path {
            None => Pool::Known(load(layout, &name, Split::Train)?),
            Some(path) => {
                let options = Options { size: Some(COLOUR_SIDE), ..Options::default() };
                let set = Input { options, ..Input::from_path(path) }.read()?;
                let shape = set
                    .shape()
                    .filter(|shape| shape.channels == 3)
                    .ok_or_else(|| refused("colour", path.display(), "images with three channels"))?;
                Pool::Read(set, shape)
            }
        });
        let pool = pools.len() - 1;
        let of = |what: &str, seeds, apart| Case {
            name: format!("{name}{what}"),
            pool,
            seeds,
            apart,
            moved: false,
            lpips: false,
        };
        let alone = path.is_some();
        if !alone {
            cases.push(of("", args.seeds, false));
            cases.push(Case { moved: true, ..of(", --flips --shifts 1", args.moved_seeds, false) });
        }
        if alone || args.apart.contains(&name) {
            cases.push(of(", near duplicates left out", args.seeds, true));
        }
        cases.push(Case { lpips: true, ..of(", lpips-alex", args.lpips_seeds, alone) });
    }
    Ok((pools, cases))
}

/// The lines of the file of results that were measured with the same numbers of images; none when there is no file.
fn results(args: &Args) -> Result<Vec<Measured>, Error> {
    if !args.results.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&args.results).map_err(StoreError::io("read", &args.results))?;
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        match serde_json::from_str::<Measured>(line) {
            Ok(measured) => found.push(measured),
            // A run that was ended may leave part of its last line.
            Err(_) if number + 1 == lines.len() => {
                let whole: String = lines[..number].iter().flat_map(|line| [line, "\n"]).collect();
                write_atomic(&args.results, |w| w.write_all(whole.as_bytes()))?;
            }
            Err(_) => {
                let path = args.results.display();
                let at = format!("line {} of {path}", number + 1);
                return Err(refused("results", at, "a line that this program wrote"));
            }
        }
    }
    found.retain(|line| (line.images, line.held_out) == (args.images, args.held_out));
    Ok(found)
}

fn measure(
    args: &Args,
    case: &Case,
    pool: &Pool,
    lpips: Option<&Lpips>,
    seed: u64,
) -> Result<Measured, Error> {
    let mut stream = Stream::new(seed, "planted");
    let (n, shape) = (args.images, pool.shape());
    let need = 2 * n + args.held_out;
    let mut chosen = stream.permutation(pool.len());
    let mut left_out = 0.0;
    if case.apart {
        (chosen, left_out) = apart(pool, &chosen, need, n, &mut stream)?;
    }
    if chosen.len() < need {
        let need = format!("at most {} images, without near duplicates, in all three sets", chosen.len());
        return Err(refused("images", format!("{n} in \"{}\"", case.name), need));
    }
    let (train, new) = (pool.rows(&chosen[..n])?, pool.rows(&chosen[n..2 * n])?);
    let held_out = pool.rows(&chosen[2 * n..need])?;
    let transformations =
        if case.moved { Transformation::all(true, 1) } else { Transformation::all(false, 0) };
    let lpips = lpips.filter(|_| case.lpips);
    let drawn = Drawn { train: &train, held_out: &held_out, shape, transformations, lpips };
    let found_new = drawn.compare(&new)?;
    let mut cells = Vec::new();
    let moved = [Disturbance::Shift, Disturbance::Mirror];
    let disturbances = if case.moved { &moved[..] } else { &DISTURBANCES };
    for (d, disturbance) in disturbances.iter().enumerate() {
        let copies = drawn.compare(&disturbance.apply(&train, shape, &mut stream))?;
        for with in [true, false] {
            let all = decide(&mixed(&copies, &found_new, n, with), FDR);
            let all: Vec<f64> = all.iter().flat_map(|all| &all.p_values).flatten().map(|p| p.used).collect();
            for rate in RATES {
                // Without copies all disturbances give the same set.
                if rate > 0.0 || d == 0 {
                    let count = (rate * n as f64).round() as usize;
                    cells.push(Cell {
                        held_out: with,
                        copies: disturbance.name(),
                        rate,
                        ..judge(&mixed(&copies, &found_new, count, with), count, &all)
                    });
                }
            }
        }
    }
    Ok(Measured { case: case.name.clone(), seed, images: n, held_out: args.held_out, left_out, cells })
}

/// Images of which none is a near duplicate of an earlier one in `order`, in random order, and the fraction that is left out.
///
/// Of several near duplicates the first stays, so that in the given order the first images would have more of them.
fn apart(
    pool: &Pool,
    order: &[usize],
    need: usize,
    train: usize,
    stream: &mut Stream,
) -> Result<(Vec<usize>, f64), Error> {
    let order = &order[..pool.len().min(need + need / 2)];
    let rows = pool.rows(order)?.into_shared();
    let nearest = |rows: &ArcArray2<f32>, k: usize| {
        let memories = Memories::on(rows.clone(), DeviceChoice::default());
        memories.and_then(|memories| memories.knn(rows.view(), k.min(rows.nrows()), false))
    };
    let error = |source| DetectError::Set { set: "training", source };
    let first: Vec<usize> = (0..train.min(order.len())).collect();
    let found = nearest(&rows.select(Axis(0), &first).into_shared(), 2).map_err(error)?;
    let mut distances = found.distance.column(1).to_vec();
    distances.sort_unstable_by(f64::total_cmp);
    let least = APART * distances[distances.len() / 2];
    let found = nearest(&rows, 64).map_err(error)?;
    let repeats = |i: usize| {
        let near = found.index.row(i).into_iter().zip(found.distance.row(i));
        near.into_iter().any(|(j, distance)| *j < i && *distance < least)
    };
    let kept: Vec<usize> = (0..order.len()).filter(|i| !repeats(*i)).collect();
    let left_out = 1.0 - kept.len() as f64 / order.len() as f64;
    let mixed = stream.permutation(kept.len());
    Ok((mixed.into_iter().map(|i| order[kept[i]]).collect(), left_out))
}

/// The first `count` copies and the new images after as many.
fn mixed(copies: &Compared, new: &Compared, count: usize, held_out: bool) -> Compared {
    let mut one = new.clone();
    one.samples[..count].copy_from_slice(&copies.samples[..count]);
    one.around.extend(&copies.around);
    if !held_out {
        one.held_out = None;
        one.neighbours.held_out = None;
    }
    one
}

/// What each rule calls among samples of which the first `copies` are copies. `all` has the p-values of all copies.
fn judge(found: &Compared, copies: usize, all: &[f64]) -> Cell {
    let samples: Vec<Near> = found.samples.iter().flatten().copied().collect();
    let real = found.neighbours.held_out.as_ref().unwrap_or(&found.neighbours.within);
    let mut sorted = real.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |p: f64| sorted[(p * (sorted.len() - 1) as f64) as usize];
    let (fixed, low) = (0.5 * at(0.5), at(0.01));
    let n = samples.len();
    let decision = decide(found, FDR).expect("hundreds of real images have neighbours");
    let distances: Vec<f64> = samples.iter().map(|near| near.distance).collect();
    let nearer = c_t(&distances, real) < -3.0;
    let scores = (0..RULES.len())
        .map(|k| {
            let calls = |i: usize| match k {
                0 => decision.calls(i),
                1 => samples[i].ratio().is_some_and(|ratio| ratio < 1.0 / 3.0),
                2 => found.not_authentic(i),
                3 => distances[i] <= fixed,
                4 => distances[i] <= low,
                // One answer for the whole set.
                _ => nearer,
            };
            let right = (0..copies).filter(|&i| calls(i)).count();
            let wrong = (copies..n).filter(|&i| calls(i)).count();
            Score {
                recall: if copies == 0 { 0.0 } else { right as f64 / copies as f64 },
                false_rate: wrong as f64 / (right + wrong).max(1) as f64,
                wrong,
            }
        })
        .collect();
    let planted = copies as f64 / n as f64;
    let near = all.iter().filter(|p| **p <= decision.cutoff).count() as f64 / all.len().max(1) as f64;
    let [least, most] = decision.interval;
    Cell {
        held_out: false,
        copies: String::new(),
        rate: 0.0,
        scores,
        covered: (least..=most).contains(&(planted * near)),
        bounded: (least..=decision.at_most).contains(&planted),
        at_most: decision.at_most,
        expected_false: decision.expected_false,
    }
}

fn row(out: &mut String, head: &str, cells: &[String]) {
    let _ = writeln!(out, "| {head} | {} |", cells.join(" | "));
}

fn heads(out: &mut String, first: &str, heads: &[&str]) {
    row(out, first, &heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
    row(out, "---", &vec!["---".to_owned(); heads.len()]);
}

fn mean<T>(of: &[T], value: impl Fn(&T) -> f64) -> f64 {
    of.iter().map(value).sum::<f64>() / of.len() as f64
}

fn tables(lines: &[Measured]) -> String {
    let mut cases: BTreeMap<&str, Vec<&Measured>> = BTreeMap::new();
    for line in lines {
        cases.entry(&line.case).or_default().push(line);
    }
    let null = |with: bool| if with { "with" } else { "without" };
    let cells = |lines: &[&Measured], with: bool, copies: &str, rate: f64| -> Vec<Cell> {
        let cells = lines.iter().flat_map(|line| &line.cells);
        cells.filter(|c| (c.held_out, c.copies.as_str(), c.rate) == (with, copies, rate)).cloned().collect()
    };
    let mut out = "**No copies.** Share of the sets in which any sample is called.\n\n".to_owned();
    let mut columns = vec!["held-out images", "seeds", "left out"];
    columns.extend(RULES);
    columns.push("up to");
    heads(&mut out, "set", &columns);
    for (name, lines) in &cases {
        for with in [true, false] {
            let Some(first) = lines[0].cells.first() else { continue };
            let sets = cells(lines, with, &first.copies, 0.0);
            let left_out = 100.0 * mean(lines, |line| line.left_out);
            let mut texts = vec![null(with).to_owned(), lines.len().to_string(), format!("{left_out:.1} %")];
            texts.extend((0..RULES.len()).map(|rule| {
                format!("{:.3}", mean(&sets, |cell| f64::from(u8::from(cell.scores[rule].wrong > 0))))
            }));
            texts.push(format!("{:.3}", mean(&sets, |cell| cell.at_most)));
            row(&mut out, name, &texts);
        }
    }
    for (name, lines) in &cases {
        for with in [true, false] {
            let _ = write!(
                out,
                "\n**{name}, {} held-out images, {} seed{}.** Recall / false discovery rate; coverage of the interval, and of \
                 its lower end to the upper bound; false discoveries of mem2gen, expected and found in all sets.\n\n",
                null(with),
                lines.len(),
                if lines.len() == 1 { "" } else { "s" }
            );
            let mut columns = RULES[..5].to_vec();
            columns.extend(["interval", "upper bound", "expected / found", RULES[5]]);
            heads(&mut out, "copies", &columns);
            for disturbance in DISTURBANCES {
                for rate in &RATES[1..] {
                    let sets = cells(lines, with, &disturbance.name(), *rate);
                    if sets.is_empty() {
                        continue;
                    }
                    let recall = |rule: usize| mean(&sets, |cell| cell.scores[rule].recall);
                    let wrong = |rule: usize| mean(&sets, |cell| cell.scores[rule].false_rate);
                    let share = |is: fn(&Cell) -> bool| mean(&sets, |cell| f64::from(u8::from(is(cell))));
                    let mut texts: Vec<String> =
                        (0..5).map(|rule| format!("{:.3} / {:.3}", recall(rule), wrong(rule))).collect();
                    texts.push(format!("{:.3}", share(|cell| cell.covered)));
                    texts.push(format!("{:.3}", share(|cell| cell.bounded)));
                    let expected: f64 = sets.iter().map(|cell| cell.expected_false).sum();
                    let found: usize = sets.iter().map(|cell| cell.scores[0].wrong).sum();
                    texts.push(format!("{expected:.1} / {found}"));
                    texts.push(format!("{:.3}", recall(5)));
                    row(&mut out, &format!("{}, {} %", disturbance.name(), 100.0 * rate), &texts);
                }
            }
        }
    }
    out
}
