//! The image inputs of `classify`.

use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::data::image_folder::Background;
use mem2gen::data::image_set::{Layout, Nominal};
use mem2gen::data::input::Options;
use mem2gen::data::{DataError, Input};
use mem2gen::store::quoted;
use mem2gen::study::copies::{Images, OfRun};

/// The sets and how they are read.
#[derive(Debug, clap::Args)]
pub struct Inputs {
    /// Training images D; files, folders and patterns
    #[arg(long, value_name = "IMAGES", required_unless_present = "run", num_args = 1..)]
    train: Vec<PathBuf>,
    /// Folder of a training run in place of --train: its training set, in its size and in [-1, 1]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["train", "train_tensor", "train_range"])]
    run: Option<PathBuf>,
    /// Synthetic images S; files, folders and patterns [default with --run: samples that are drawn from it]
    #[arg(long, value_name = "IMAGES", required_unless_present = "run", num_args = 1..)]
    synthetic: Vec<PathBuf>,
    /// Number of samples that are drawn from --run, by ancestral sampling as 'mem2gen sample' does it
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "synthetic")]
    samples: usize,
    /// Real images that are not in the training set; files, folders and patterns [default with --run: those of its data set
    /// that are not in its training set, at most 10000]
    #[arg(long, value_name = "IMAGES", num_args = 1..)]
    held_out: Vec<PathBuf>,
    /// Name of the array, tensor or column in files that hold several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Name of the array, tensor or column of --train
    #[arg(long, value_name = "NAME")]
    train_tensor: Option<String>,
    /// Name of the array, tensor or column of --synthetic
    #[arg(long, value_name = "NAME")]
    synthetic_tensor: Option<String>,
    /// Name of the array, tensor or column of --held-out
    #[arg(long, value_name = "NAME")]
    held_out_tensor: Option<String>,
    /// Range of the values of --train [default: found]
    #[arg(long, value_enum, value_name = "RANGE", allow_hyphen_values = true)]
    train_range: Option<Nominal>,
    /// Range of the values of --synthetic [default: found]
    #[arg(long, value_enum, value_name = "RANGE", allow_hyphen_values = true)]
    synthetic_range: Option<Nominal>,
    /// Range of the values of --held-out [default: found]
    #[arg(long, value_enum, value_name = "RANGE", allow_hyphen_values = true)]
    held_out_range: Option<Nominal>,
    /// Side of the squares to which images are cropped in the centre and resized, by box halvings and an antialiased
    /// bicubic filter (ADM's); another filter in one of the sets moves every distance
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    size: Option<u16>,
    /// What transparent pixels are laid on
    #[arg(long, value_enum, value_name = "COLOUR", default_value_t)]
    background: Background,
    /// Leave out what looks like an image and can't be read; without it such files are an error
    #[arg(long)]
    allow_skipped: bool,
}

impl Inputs {
    /// Reads the sets.
    pub fn read(&self, layout: Option<Layout>) -> Result<Images, Error> {
        let [train, synthetic, held_out] = self.inputs(layout);
        let images = Images::read(&train, &synthetic, (!held_out.paths.is_empty()).then_some(&held_out))?;
        if let Some(name) = &self.tensor
            && !images.sets().iter().any(|set| set.format().has_names())
        {
            let path = images.train().path().to_path_buf();
            let reason = format!("--tensor {} was given, and no input has arrays with names", quoted(name));
            return Err(DataError::Unclear { path, reason }.into());
        }
        Ok(images)
    }

    /// The comparison with --run; `None` without it.
    pub fn of_run(&self, layout: Option<Layout>) -> Option<OfRun> {
        let [_, synthetic, held_out] = self.inputs(layout);
        let given = |input: Input| (!input.paths.is_empty()).then_some(input);
        Some(OfRun {
            run: self.run.clone()?,
            synthetic: given(synthetic),
            samples: self.samples,
            held_out: given(held_out),
        })
    }

    /// Training, synthetic and held-out images.
    fn inputs(&self, layout: Option<Layout>) -> [Input; 3] {
        let options = Options {
            layout,
            background: self.background,
            size: self.size.map(usize::from),
            allow_skipped: self.allow_skipped,
        };
        let input = |paths: &[PathBuf], own: &Option<String>, range| Input {
            paths: paths.to_vec(),
            tensor: own.clone().or_else(|| self.tensor.clone()),
            strict: own.is_some(),
            range,
            options,
        };
        [
            input(&self.train, &self.train_tensor, self.train_range),
            input(&self.synthetic, &self.synthetic_tensor, self.synthetic_range),
            input(&self.held_out, &self.held_out_tensor, self.held_out_range),
        ]
    }
}
