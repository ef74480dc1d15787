use std::path::{Path, PathBuf};

use mem2gen::progress::Printed;
use mem2gen::project::Layout;
use mem2gen::store::vacant;
use mem2gen::study::copies::{Copies, CopiesError, CopiesSettings, Status};

use super::input::On;
use super::inputs::Inputs;

/// Are my samples copies? Label each as memorized, spurious or generalized (Eqs. 9 to 11)
///
/// A sample is memorized when it lies within delta_m of a training image, spurious when it does not but lies within
/// delta_s of another sample, and generalized otherwise. Samples with NaN or infinity are invalid and have no class.
///
/// Without --delta-m each sample gets a p-value: how often is a held-out image, compared with its second neighbour, as
/// near to its nearest training image? Without held-out images the training images take their place, each compared with
/// the others. Samples are called copies at the false discovery rate --fdr. The report says how many would be called by
/// chance, and which other evidence agrees: exact copies, the valley between two modes of the distances, the ratio of
/// 1/3, authenticity and C_T.
///
/// Without --delta-s the threshold is the valley between the two modes of the logarithms of the distances between samples,
/// if tests find two modes, and else the 1 percent quantile of the distances from held-out images to the training set.
/// Without held-out images it is then unknown: samples that are not copies are labelled new, neither spurious nor
/// generalized.
///
/// Exit status: 0 when every valid sample has a class; 3 when samples are new or some unknown; 4 when no sample is valid
/// or nothing tells copies from other samples; 2 when the call or an input is refused; 1 for any other failure, such as
/// a full disk. With 3 and 4 all results are written.
///
/// --run compares a training run with exactly the images that it was trained on, and draws its samples where --synthetic
/// gives none; they are then written as samples.npy. An interrupted call resumes with the finished batches in OUT.partial.
///
/// Images are a folder of pictures in any depth (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM), one picture, a zip archive of
/// pictures, a Hugging Face parquet file, an array (.npy, .npz, .safetensors, .pt, a Python pickle) of any number type
/// ([n, height, width], with channels last or second, or [n, values]), an IDX file (also gzipped), or CIFAR10's batches.
/// Several files and patterns in quotes make one set. Bytes become v / 255; sets in different ranges are brought to
/// [0, 1], and what is not clear is refused. Features of other programs, [n, values], are compared with --metric cosine
/// or l2.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "mem2gen classify [OPTIONS] --train <IMAGES>... --synthetic <IMAGES>... --out <DIR>\n       \
    mem2gen classify [OPTIONS] --run <DIR> --out <DIR>"
)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    settings: CopiesSettings,
    #[command(flatten)]
    on: On,
    /// New folder: report.html, the answer on one page that opens in any browser; labels.csv and labels.parquet, a row for
    /// each sample; fractions.json; histograms d_train, ratio and d_synthetic, and examples, a sheet of samples of each class
    /// with the nearest of D above and of S below (PNG and SVG)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Why `mem2gen classify` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library failed.
    #[error(transparent)]
    Library(mem2gen::Error),
    /// The question is answered in part or not at all; everything was written.
    #[error("{} (results are in {})", open.join("; "), out.display())]
    Open {
        /// How much is answered.
        status: Status,
        /// What is not known, each with the reason.
        open: Vec<String>,
        /// The folder that was written.
        out: PathBuf,
    },
}

impl Error {
    /// Exit status of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open { status: Status::NotAnswered, .. } => 4,
            Self::Open { .. } => 3,
            Self::Library(mem2gen::Error::Copies(
                CopiesError::Table(_) | CopiesError::Figure(_) | CopiesError::Store(_),
            )) => 1,
            Self::Library(
                mem2gen::Error::Copies(_)
                | mem2gen::Error::Data(_)
                | mem2gen::Error::Store(_)
                | mem2gen::Error::Train(_),
            ) => 2,
            Self::Library(_) => 1,
        }
    }
}

impl<E: Into<mem2gen::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Library(error.into())
    }
}

/// Runs `mem2gen classify`.
pub fn run(args: Args) -> Result<(), Error> {
    // Settings and the output folder are checked before images are read.
    let project = Layout::find();
    let params = args.settings.check(&project)?.folder(beside(&args.out));
    vacant(&args.out)?;
    let command = command_line();
    let copies = match args.inputs.of_run(args.settings.layout) {
        Some(question) => {
            question.classify(&params, &project, args.on.device, &Printed, &args.out, Some(&command))?
        }
        None => {
            let images = args.inputs.read(args.settings.layout)?;
            let copies = params.compare(images, args.on.device, &Printed)?;
            copies.write(&args.out, Some(&command))?;
            copies
        }
    };
    for line in copies.images.said() {
        put_line!("{line}");
    }
    print(&args, &copies)
}

/// The command line, with quotes where a shell needs them.
fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |argument: std::ffi::OsString| {
        let text = argument.to_string_lossy().into_owned();
        if !text.is_empty() && text.chars().all(plain) {
            return text;
        }
        format!("'{}'", text.replace('\'', "'\\''"))
    };
    let arguments = std::env::args_os().skip(1).map(quoted);
    std::iter::once("mem2gen".to_owned()).chain(arguments).collect::<Vec<String>>().join(" ")
}

/// The nearest folder above a path that exists.
fn beside(path: &Path) -> PathBuf {
    let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Prints the verdict, thresholds, the evidence and fractions, one line each.
fn print(args: &Args, copies: &Copies) -> Result<(), Error> {
    let (answer, out) = (&copies.answer, args.out.display());
    put_line!("classify: {} samples, {} training images -> {out}/report.html", answer.samples, answer.images);
    put_line!("{}", answer.verdict(&copies.compared));
    for (name, threshold) in [("delta_m", &answer.delta_m), ("delta_s", &answer.delta_s)] {
        match threshold.value {
            Some(value) => put_line!("{name} = {value:.6}: {}", threshold.because),
            None => put_line!("{name} has no value: {}", threshold.because),
        }
    }
    put_line!(
        "{} exact copies, {} invalid, {} further than 10 times the distance between training images",
        answer.exact_copies,
        answer.invalid,
        answer.far
    );
    put_line!("evidence (copies, also memorized, agrees with the labels):");
    for rung in &answer.evidence {
        let numbers = match (rung.copies, rung.also_memorized, rung.agrees) {
            (Some(copies), Some(both), Some(agrees)) => {
                format!("{copies}, {both}, {}", if agrees { "yes" } else { "no" })
            }
            (Some(copies), Some(both), None) => format!("{copies}, {both}"),
            _ => "-".to_owned(),
        };
        put_line!("  {}: {numbers}: {}", rung.evidence, rung.because);
    }
    if let Some(decision) = answer.decision.as_ref().filter(|decision| decision.not_called >= 1.0) {
        put_line!(
            "p-values of about {:.0} more samples are smaller than the null explains: copies that can't be called one by one, or \
             samples unlike the null images",
            decision.not_called
        );
    }
    let shares = &answer.fractions;
    let listed = [
        ("memorized", Some(&shares.memorized)),
        ("spurious", shares.spurious.as_ref()),
        ("generalized", shares.generalized.as_ref()),
        ("new", shares.new.as_ref()),
        ("unknown", shares.unknown.as_ref()),
        ("invalid", Some(&shares.invalid)),
    ];
    for (name, share) in listed.into_iter().filter_map(|(name, share)| Some((name, share?))) {
        let few = if share.too_few { ", too few" } else { "" };
        put_line!(
            "{name:<11} {:.4} ({} samples{few}), 95 percent from {:.4} to {:.4}",
            share.fraction,
            share.count,
            share.wilson[0],
            share.wilson[1]
        );
    }
    if answer.status == Status::Answered {
        return Ok(());
    }
    Err(Error::Open { status: answer.status, open: answer.open.clone(), out: args.out.clone() })
}
