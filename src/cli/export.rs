use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::plot::{ImageOutput, write_pictures};
use mem2gen::project::Layout;
use mem2gen::store::write_array;
use mem2gen::study::subject::training_run;
use mem2gen::train::{DataSettings, TrainingData, TrainingSource};
use ndarray::Axis;

use super::own::{Named, Reading};
use super::source::Failure;

/// Write a training set, exactly as a network takes it, or held-out images
#[derive(Debug, clap::Args)]
#[command(override_usage = "mem2gen data export [OPTIONS] --out <D.npy|DIR/> <NAME|PATH>...\n       \
    mem2gen data export [OPTIONS] --out <D.npy|DIR/> --run <DIR>")]
pub struct Args {
    /// Data set (mnist, fashion-mnist, cifar10, lsun-church), or own images: files, folders and patterns, as for 'classify'
    #[arg(value_name = "NAME|PATH", required_unless_present = "run", conflicts_with = "run")]
    dataset: Vec<PathBuf>,
    /// Folder of a training run, whose training set is written
    #[arg(long, value_name = "DIR", conflicts_with_all = ["k", "size", "Reading"])]
    run: Option<PathBuf>,
    /// Training set size K: the first K images of the nested training sets [default: all]
    #[arg(long)]
    k: Option<usize>,
    /// Height and width of images, as for 'train' [default: those of the data set]
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// Images that are not in the training set: those of the test split, or, for own images and data sets without one, the
    /// images that follow the first K
    #[arg(long)]
    held_out: bool,
    #[command(flatten)]
    reading: Reading,
    /// File .npy, float32, [K, height, width, channels], values in [-1, 1]; or a folder, with a slash at the end or
    /// existing and empty, for PNG files 000000.png and so on
    #[arg(long, value_name = "D.npy|DIR/")]
    out: PathBuf,
}

/// Runs `mem2gen data export`.
pub fn run(args: &Args) -> Result<(), Failure> {
    let output = ImageOutput::of(&args.out).map_err(Error::from)?;
    if let ImageOutput::Sheet(path) = &output {
        let reason =
            format!("is {}, expected a name that ends in .npy, or in / for a folder", path.display());
        return Err(Failure::Option { option: "--out", reason });
    }
    let (source, training) = args.source()?;
    let (data, from) = match args.held_out {
        true => (source.held_out(usize::MAX).map_err(Error::from)?, source.held_out_from()),
        false => (training, format!("the {} of {}", source.count(), source.settings().name())),
    };
    let (shape, of_images) = (data.shape(), source.settings().is_of_images());
    output.check(shape, data.len()).map_err(Error::from)?;
    let mut said = if of_images { format!(" of {shape} in [-1, 1]") } else { String::new() };
    match &output {
        ImageOutput::Folder(path) => {
            let parts = data.rows().axis_chunks_iter(Axis(0), 256).map(|part| Ok(part.to_owned()));
            write_pictures(path, shape, parts).map_err(Error::from)?;
            said.push_str(", rounded to bytes");
        }
        array if of_images => {
            let images = data.rows().to_shape((data.len(), shape.height, shape.width, shape.channels));
            let images = images.expect("rows have the length of their shape");
            write_array(array.path(), &images).map_err(Error::from)?;
        }
        array => write_array(array.path(), data.rows()).map_err(Error::from)?,
    }
    if let Some(read) = source.said() {
        put_line!("training set: {read}");
    }
    let (count, unit) = (data.len(), source.settings().unit());
    put_line!("data export: {count} {unit}{said}, from {from} -> {}", output.path().display());
    Ok(())
}

impl Args {
    /// The data set, and the training set from it.
    fn source(&self) -> Result<(TrainingSource, TrainingData), Failure> {
        let layout = Layout::find();
        if let Some(run) = &self.run {
            return Ok(training_run(run)?.source(&layout).map_err(Error::from)?);
        }
        let source = match self.reading.named(&self.dataset, self.size, "NAME|PATH")? {
            Named::Own(images) => TrainingSource::from_files(images, self.k),
            Named::Registered(entry) => {
                let size = self.size.unwrap_or(entry.shape.height);
                TrainingSource::from_dataset(&layout, entry.name, size, self.k)
            }
            Named::Toy => {
                let Some(k) = self.k else {
                    return Err(Failure::Option { option: "--k", reason: "is required for toy".into() });
                };
                TrainingSource::open(&layout, &DataSettings::Toy { k })
            }
        };
        let source = source.map_err(Error::from)?;
        let training = source.training().map_err(Error::from)?;
        Ok((source, training))
    }
}
