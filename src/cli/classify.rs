use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use mem2gen::class::Class;
use mem2gen::progress::{Printed, Reporter, Silent};
use mem2gen::project::Layout;
use mem2gen::store::vacant;
use mem2gen::study::copies::{Copies, CopiesSettings};

use super::input::On;
use super::inputs::Inputs;

/// Are my samples copies? Label each as memorized, spurious or generalized (Eqs. 9 to 11)
///
/// A sample is memorized when it lies within delta_m of a training image, spurious when it does not but lies within
/// delta_s of another sample, and generalized otherwise. Samples with NaN or infinity are invalid and have no class.
///
/// A threshold that is not given is the valley between the two modes of the logarithms of its distances, if tests find
/// two modes. With one mode it is the 1 percent quantile of the distances from held-out images to the training set.
/// Without held-out images it is then unknown: the command writes distances and histograms, gives no labels, and
/// fails.
///
/// Images are a folder of pictures in any depth (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM), one picture, a zip archive of
/// pictures, a Hugging Face parquet file, an array (.npy, .npz, .safetensors, .pt, a Python pickle) of any number type
/// ([n, height, width], with channels last or second, or [n, values]), an IDX file (also gzipped), or CIFAR10's batches.
/// Several files and patterns in quotes make one set. Bytes become v / 255; sets in different ranges are brought to
/// [0, 1], and what is not clear is refused. Features of other programs, [n, values], are compared with --metric cosine
/// or l2.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    settings: CopiesSettings,
    #[command(flatten)]
    on: On,
    /// New folder: labels.parquet (sample, label, d_train, nearest_train, d_synthetic, nearest_synthetic, ratio),
    /// fractions.json, histograms d_train and d_synthetic, and examples, a sheet of samples of each class with the
    /// nearest of D above and of S below (PNG and SVG)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Why `mem2gen classify` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library failed.
    #[error(transparent)]
    Library(mem2gen::Error),
    /// A threshold is unknown: everything except labels was written.
    #[error("samples have no labels: {}; give --held-out, --delta-m or --delta-s (distances and histograms are in {})", because.join("; "), out.display())]
    NoThreshold {
        /// The unknown thresholds, each with the reason.
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

/// Runs `mem2gen classify`.
pub fn run(args: Args) -> Result<(), Error> {
    // Settings and the output folder are checked before images are read.
    let params = args.settings.check(&Layout::find())?;
    vacant(&args.out)?;
    let images = args.inputs.read(args.settings.layout)?;
    let report: &dyn Reporter = if io::stderr().is_terminal() { &Printed } else { &Silent };
    let copies = params.compare(images, args.on.device, report)?;
    copies.write(&args.out)?;
    for line in copies.images.said() {
        println!("{line}");
    }
    print(&args, &copies)
}

/// Prints thresholds and fractions, one line a class.
fn print(args: &Args, copies: &Copies) -> Result<(), Error> {
    let (found, out) = (&copies.classification, args.out.display());
    println!("classify: {} samples, {} training images -> {out}", found.samples, found.images);
    for (name, threshold) in [("delta_m", &found.delta_m), ("delta_s", &found.delta_s)] {
        match threshold.value {
            Some(value) => println!("{name} = {value:.6}: {}", threshold.because),
            None => println!("{name} is not known: {}", threshold.because),
        }
    }
    println!(
        "{} exact copies, {} invalid, {} further than 10 times the distance between training images",
        found.exact_copies, found.invalid, found.far
    );
    if let Some(ratio) = &found.ratio {
        println!(
            "{} with a nearest training image less than a third as far as the second ({:.4})",
            ratio.copies, ratio.fraction
        );
    }
    let Some(fractions) = &found.fractions else {
        return Err(Error::NoThreshold { because: copies.unknown_thresholds(), out: args.out.clone() });
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
