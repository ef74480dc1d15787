use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use mem2gen::class::Class;
use mem2gen::data::ImageSet;
use mem2gen::data::image_set::{Format, Values, reconcile};
use mem2gen::detect::{
    Classification, ClassifySettings, Neighbour, Neighbours, Origin, Sets, Share, classify, examples,
    neighbours, queries,
};
use mem2gen::distance::{Backbone, Lpips};
use mem2gen::frame::write_parquet_with;
use mem2gen::plot::style::{GRAY, OLIVE};
use mem2gen::progress::{Progress, ProgressSink, Silent};
use mem2gen::project::Layout;
use mem2gen::random::SEED;
use mem2gen::shape::Shape;
use mem2gen::store::{vacant, write_atomic, write_folder};
use mem2gen::study::copies::figure::{Example, contact_sheet, distances};
use mem2gen::study::copies::frame::{Names, labels_frame};
use ndarray::{Array2, CowArray, Ix2};
use serde::Serialize;

use super::input::On;

/// Samples of a class on the contact sheet.
const COLUMNS: usize = 8;

/// Most bytes that features of images may take.
const ROOM: usize = 12 << 30;

/// Are my samples copies? Label each as memorized, spurious or generalized (Eqs. 9 to 11)
///
/// Memorized is what lies within delta_m of a training image; spurious what does not, and lies within delta_s of
/// another sample; generalized the rest. Samples with NaN or infinity are invalid and have no class.
///
/// A threshold that is not given is the valley between the two modes of its log distances, if tests find two; with one
/// mode it is the 1 percent quantile of the distances from held-out real images to the
/// training set. Without those too no threshold is known: distances and histograms are written, samples have no
/// label, and the command fails.
///
/// Images are a .npy array or .safetensors tensor (uint8 or floating point; [n, height, width], with 1 or 3 channels
/// last or second, or [n, values]), an IDX file (also gzipped), or a folder of PNG or JPEG images of one size. Bytes
/// become v / 255; other numbers stay as they are, in single precision.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Training images D
    #[arg(long, value_name = "IMAGES")]
    train: PathBuf,
    /// Synthetic images S
    #[arg(long, value_name = "IMAGES")]
    synthetic: PathBuf,
    /// Real images that were not trained on
    #[arg(long, value_name = "IMAGES")]
    held_out: Option<PathBuf>,
    /// Name of the tensor in .safetensors files that hold several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Compare inputs whose values seem to be in different ranges
    #[arg(long)]
    any_range: bool,
    /// Distance
    #[arg(long, value_enum, default_value = "l2")]
    metric: Metric,
    /// Distance to D up to which a sample is memorized [default: found]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    delta_m: Option<f64>,
    /// Distance to another sample up to which one is spurious [default: found]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    delta_s: Option<f64>,
    /// Fraction of S below which a class is marked as having too few samples
    #[arg(long, value_name = "F", allow_hyphen_values = true, default_value_t = ClassifySettings::default().least_fraction)]
    least_fraction: f64,
    /// Seed of the bootstrap and of the dip test
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    #[command(flatten)]
    on: On,
    /// New folder: labels.parquet (sample, label, d_train, nearest_train, d_synthetic, nearest_synthetic, ratio),
    /// fractions.json, histograms d_train and d_synthetic, and examples, a sheet of samples of each class with the
    /// nearest of D above and of S below (PNG and SVG)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Euclidean distance of the values
    L2,
    /// LPIPS with AlexNet, squared as LPIPS is; its weights come by 'mem2gen data fetch lpips-weights'
    LpipsAlex,
    /// LPIPS with VGG16
    LpipsVgg,
}

impl Metric {
    /// The network of LPIPS; none of l2.
    pub fn backbone(self) -> Option<Backbone> {
        match self {
            Self::L2 => None,
            Self::LpipsAlex => Some(Backbone::AlexNet),
            Self::LpipsVgg => Some(Backbone::Vgg16),
        }
    }
}

/// Why `mem2gen classify` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refused.
    #[error(transparent)]
    Library(mem2gen::Error),
    /// LPIPS of vectors.
    #[error("classify: {metric} compares images, and no input says which shape {values} values have")]
    Vectors {
        /// The metric.
        metric: &'static str,
        /// Values of an image.
        values: usize,
    },
    /// More features than memory can be expected to hold.
    #[error(
        "classify: the {metric} features of {images} images take {} GiB, more than {} GiB; take fewer images, or lpips-alex",
        bytes >> 30,
        ROOM >> 30
    )]
    Room {
        /// The metric.
        metric: &'static str,
        /// Images of all inputs.
        images: usize,
        /// Bytes that their features take.
        bytes: usize,
    },
    /// All was written but labels.
    #[error("samples have no labels: {}; give --held-out, --delta-m or --delta-s (distances and histograms are in {})", because.join("; "), out.display())]
    NoThreshold {
        /// What is missing, and why.
        because: Vec<String>,
        /// The folder that was written.
        out: PathBuf,
    },
}

impl<E: Into<mem2gen::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Library(error.into())
    }
}

/// What fractions.json says of an input.
#[derive(Serialize)]
struct Input {
    path: PathBuf,
    format: Format,
    images: usize,
    /// Height, width and channels, where the file says.
    shape: Option<[usize; 3]>,
    values: Values,
}

impl Input {
    fn of(set: &ImageSet) -> Self {
        Self {
            path: set.path().to_path_buf(),
            format: set.format(),
            images: set.rows().nrows(),
            shape: set.shape().map(|s| [s.height, s.width, s.channels]),
            values: *set.values(),
        }
    }
}

/// fractions.json.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    metric: Metric,
    device: String,
    train: Input,
    synthetic: Input,
    held_out: Option<Input>,
    #[serde(flatten)]
    result: &'a Classification,
    /// What was left out of the folder, and why.
    not_drawn: Vec<String>,
}

/// Runs `mem2gen classify`.
pub fn run(args: Args) -> Result<(), Error> {
    let settings = ClassifySettings {
        delta_m: args.delta_m,
        delta_s: args.delta_s,
        least_fraction: args.least_fraction,
        seed: args.seed,
        ..ClassifySettings::default()
    };
    // What can be refused is refused before the work.
    settings.check()?;
    vacant(&args.out)?;
    let lpips = args.metric.backbone().map(|b| Lpips::open(b, &Layout::find())).transpose()?;
    let paths = [Some(&args.train), Some(&args.synthetic), args.held_out.as_ref()];
    let mut images = paths
        .into_iter()
        .flatten()
        .map(|path| ImageSet::read(path, args.tensor.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    let shape = reconcile(&mut images, args.any_range)?;
    let total: usize = images.iter().map(|set| set.rows().nrows()).sum();
    let bar = io::stderr().is_terminal().then(|| Progress::new("features", total as u64));
    let progress = bar.as_ref().map_or(&Silent as &dyn ProgressSink, |bar| bar);
    let rows = match &lpips {
        None => images.iter().map(|set| set.rows().into()).collect(),
        Some(lpips) => perceptual(lpips, &images, shape, progress)?,
    };
    drop(bar);
    let sets = Sets {
        train: rows[0].view(),
        synthetic: rows[1].view(),
        held_out: rows.get(2).map(|rows| rows.view()),
        squared: lpips.is_some(),
    };
    let bar = io::stderr().is_terminal().then(|| Progress::new("neighbours", queries(&sets)));
    let progress = bar.as_ref().map_or(&Silent as &dyn ProgressSink, |bar| bar);
    let found = neighbours(&sets, args.on.device, progress)?;
    drop(bar);
    let result = classify(&found, &settings)?;
    write_folder(&args.out, |folder| write(folder, &args, &images, shape, &found, &result))?;
    say(&args, &result)
}

/// Features of all images, whose squared l2 distance is LPIPS. Values are cut off at the ends of their range; an image
/// with NaN or infinity has NaN for features.
fn perceptual<'a>(
    lpips: &Lpips,
    images: &[ImageSet],
    shape: Option<Shape>,
    progress: &dyn ProgressSink,
) -> Result<Vec<CowArray<'a, f32, Ix2>>, Error> {
    let metric = lpips.backbone().name();
    let values = images.first().map_or(0, |set| set.rows().ncols());
    let shape = shape.ok_or(Error::Vectors { metric, values })?;
    let (length, total) = (lpips.length(shape)?, images.iter().map(|set| set.rows().nrows()).sum::<usize>());
    let bytes = total.saturating_mul(length).saturating_mul(4);
    if bytes > ROOM {
        return Err(Error::Room { metric, images: total, bytes });
    }
    images
        .iter()
        .map(|set| {
            let rows = set.rows();
            let finite = |i: &usize| rows.row(*i).iter().all(|v| v.is_finite());
            let some: Vec<usize> = (0..rows.nrows()).filter(finite).collect();
            let found = lpips.features(shape, set.clipped(&some).view(), progress)?;
            if some.len() == rows.nrows() {
                return Ok(found.into());
            }
            let mut all = Array2::from_elem((rows.nrows(), length), f32::NAN);
            for (features, i) in found.outer_iter().zip(some) {
                all.row_mut(i).assign(&features);
            }
            Ok(all.into())
        })
        .collect()
}

fn write(
    folder: &Path,
    args: &Args,
    images: &[ImageSet],
    shape: Option<Shape>,
    found: &Neighbours,
    result: &Classification,
) -> Result<(), mem2gen::Error> {
    let names = Names { train: images[0].files(), synthetic: images[1].files() };
    let frame = labels_frame(found, result.labels.as_deref(), names)?;
    let device = found.device.to_string();
    write_parquet_with(&folder.join("labels.parquet"), &frame, &[("device", &device)])?;

    let mut not_drawn = Vec::new();
    let known = |of: &[Option<Neighbour>]| -> Vec<f64> { of.iter().flatten().map(|n| n.distance).collect() };
    for (id, title, name, samples, held_out, threshold, colour) in [
        (
            "d_train",
            "Distance to the training set",
            "d(x, D)",
            known(&found.train),
            found.held_out.as_deref(),
            &result.delta_m,
            OLIVE,
        ),
        (
            "d_synthetic",
            "Distance to the other samples",
            "d(x, S \\ x)",
            known(&found.synthetic),
            None,
            &result.delta_s,
            GRAY,
        ),
    ] {
        if samples.is_empty() {
            not_drawn.push(format!("{id}: there is no {name}"));
        } else {
            distances(title, name, &samples, held_out, found.least, threshold, colour)?.save(folder, id)?;
        }
    }
    match (sheet(images, shape, found, result), shape) {
        (Some(classes), Some(_)) => {
            contact_sheet("Samples, with the nearest of D above and of S below", &classes)?
                .save(folder, "examples")?;
        }
        (_, None) => not_drawn.push("examples: the inputs do not say the shape of an image".to_owned()),
        (None, _) => not_drawn.push("examples: no sample has a class".to_owned()),
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        metric: args.metric,
        device,
        train: Input::of(&images[0]),
        synthetic: Input::of(&images[1]),
        held_out: images.get(2).map(Input::of),
        result,
        not_drawn,
    };
    write_atomic(&folder.join("fractions.json"), |w| {
        serde_json::to_writer_pretty(&mut *w, &report)?;
        writeln!(w)
    })?;
    Ok(())
}

type Row = (Class, Share, Vec<Example>);

/// Samples of each class with their neighbours; none where no sample has one.
fn sheet(
    images: &[ImageSet],
    shape: Option<Shape>,
    found: &Neighbours,
    result: &Classification,
) -> Option<Vec<Row>> {
    let (shape, labels, fractions) = (shape?, result.labels.as_ref()?, result.fractions.as_ref()?);
    let [train, synthetic, ..] = images else { return None };
    let example = |i: usize| {
        let near = found.train[i]?;
        let other = found.synthetic[i]
            .and_then(|other| Some((synthetic.picture(other.index, shape)?, other.distance)));
        Some(Example {
            sample: synthetic.picture(i, shape)?,
            train: (train.picture(near.index, shape)?, near.distance),
            synthetic: other,
        })
    };
    let classes: Vec<Row> = [Class::Memorized, Class::Spurious, Class::Generalized]
        .into_iter()
        .map(|label| {
            let chosen = examples(found, labels, label, COLUMNS);
            (label, *fractions.get(label), chosen.into_iter().filter_map(example).collect())
        })
        .collect();
    classes.iter().any(|(.., examples)| !examples.is_empty()).then_some(classes)
}

/// Says what was found, a line a class.
fn say(args: &Args, result: &Classification) -> Result<(), Error> {
    let out = args.out.display();
    println!("classify: {} samples, {} training images -> {out}", result.samples, result.images);
    for (name, threshold) in [("delta_m", &result.delta_m), ("delta_s", &result.delta_s)] {
        match threshold.value {
            Some(value) => println!("{name} = {value:.6}: {}", threshold.because),
            None => println!("{name} is not known: {}", threshold.because),
        }
    }
    println!(
        "{} exact copies, {} invalid, {} further than 10 times the distance between training images",
        result.exact_copies, result.invalid, result.far
    );
    if let Some(ratio) = &result.ratio {
        println!(
            "{} with a nearest training image less than a third as far as the second ({:.4})",
            ratio.copies, ratio.fraction
        );
    }
    let Some(fractions) = &result.fractions else {
        let because = [&result.delta_m, &result.delta_s]
            .into_iter()
            .filter(|t| t.origin == Origin::Unknown)
            .map(|t| t.because.clone())
            .collect();
        return Err(Error::NoThreshold { because, out: args.out.clone() });
    };
    for label in Class::LABELS {
        let share = fractions.get(label);
        let few = if share.too_few { ", too few" } else { "" };
        println!(
            "{:<11} {:.4} ({} samples{few}), 95 percent from {:.4} to {:.4}",
            label.name(),
            share.fraction,
            share.count,
            share.wilson[0],
            share.wilson[1]
        );
    }
    Ok(())
}
