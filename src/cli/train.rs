//! `mem2gen train`: trains a network in a folder, and resumes an interrupted run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use mem2gen::data::{DataError, Input};
use mem2gen::net::{Arch, MlpSettings, ToySettings, UnetSettings};
use mem2gen::process::{Prediction, VpSettings};
use mem2gen::progress::Progress;
use mem2gen::project::Layout;
use mem2gen::random::SEED;
use mem2gen::shape::Shape;
use mem2gen::study::context::Profile;
use mem2gen::train::{
    AdamSettings, DataSettings, Decay, EmaSettings, ProcessSettings, RunDir, TrainDefaults, TrainError,
    TrainSettings, Trained, TrainingData, TrainingSource, VeTraining, device, train_until,
};

use super::input::On;
use super::own::{Named, Reading};
use super::source::Failure;

/// Train a network in a folder; an interrupted run resumes, a finished run is not changed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// File with all settings, .toml or .json, instead of the options below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Choices", "Reading"])]
    config: Option<PathBuf>,
    /// Settings of the project by name, such as emoji-doses, instead of the options below: data/training/NAME.toml
    #[arg(long, value_name = "NAME", conflicts_with_all = ["Choices", "Reading", "config"])]
    plan: Option<String>,
    /// Stop after this step with a checkpoint, from which the next call resumes
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Write the average weights of the finished run in half precision, with settings and checksums
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "until")]
    publish: Option<PathBuf>,
    /// Take the weights of a file of --publish with the same settings and data, instead of training
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["until", "publish"])]
    restore: Option<PathBuf>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    on: On,
}

/// Options of the settings; the profile has the defaults for each data set.
#[derive(Debug, clap::Args)]
#[group(id = "Choices", multiple = true)]
struct Choices {
    /// Data set: mnist, fashion-mnist, cifar10, lsun-church or toy; or own images: files, folders and patterns, as for
    /// 'classify'
    #[arg(long, value_name = "NAME|PATH", required_unless_present_any = ["config", "plan"], num_args = 1..)]
    dataset: Vec<PathBuf>,
    /// Training set size K: the first K rows of the nested training sets [default: all own images]
    #[arg(long)]
    k: Option<usize>,
    /// Profile with the defaults: smoke, desk or paper [default: MEM2GEN_PROFILE, else desk]
    #[arg(long)]
    profile: Option<String>,
    /// Height and width of images: of a data set a divisor of its own, with means over squares of pixels; own images are
    /// cropped in the centre and resized, by default they keep their size
    #[arg(long)]
    size: Option<usize>,
    /// Architecture
    #[arg(long)]
    arch: Option<ArchName>,
    /// Channels of the U-Net's first level
    #[arg(long)]
    channels: Option<usize>,
    /// Width of the MLP or the toy network
    #[arg(long)]
    width: Option<usize>,
    /// Process: vp as in DDPM, or ve [default: ve for toy, else vp]
    #[arg(long)]
    process: Option<ProcessName>,
    /// Target that the network predicts
    #[arg(long, default_value = "epsilon")]
    prediction: Target,
    /// Number of steps
    #[arg(long)]
    steps: Option<u64>,
    /// Batch size, at most K without --repeat
    #[arg(long)]
    batch: Option<usize>,
    /// Batches larger than the training set, in which rows repeat with other times and noise
    #[arg(long)]
    repeat: bool,
    /// Learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Cosine decay of the learning rate to zero
    #[arg(long)]
    cosine: bool,
    /// Decay of the moving average per step
    #[arg(long, value_name = "SHARE")]
    ema: Option<f64>,
    /// Seed of initial weights, order, times, noise and dropout
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Number of steps between checkpoints
    #[arg(long, value_name = "STEPS")]
    checkpoint_every: Option<u64>,
    /// Number of steps between rows of metrics
    #[arg(long, value_name = "STEPS")]
    log_every: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArchName {
    Unet,
    Mlp,
    Toy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProcessName {
    Vp,
    Ve,
}

/// `--prediction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The noise.
    Epsilon,
    /// The clean data.
    X0,
    /// The velocity.
    V,
}

impl From<Target> for Prediction {
    fn from(target: Target) -> Self {
        match target {
            Target::Epsilon => Self::Epsilon,
            Target::X0 => Self::X0,
            Target::V => Self::V,
        }
    }
}

/// Why `mem2gen train` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the library.
    #[error(transparent)]
    Library(#[from] mem2gen::Error),
    /// An option that contradicts another one, or an unknown data set.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Runs `mem2gen train`.
pub fn run(args: Args) -> Result<(), Error> {
    let layout = Layout::find();
    let planned = match (&args.config, &args.plan) {
        (Some(path), _) => Some(TrainSettings::read(path)),
        (None, Some(name)) => Some(TrainSettings::named(&layout, name)),
        (None, None) => None,
    };
    let (settings, data) = match planned {
        Some(settings) => (settings.map_err(mem2gen::Error::from)?, None),
        None => args.settings()?,
    };
    let steps = settings.steps;
    if let Some(until) = args.until.filter(|until| *until > steps) {
        let reason =
            format!("is {until}, but the run has {steps} steps; give at most {steps} or leave --until away");
        return Err(refused("--until", &reason));
    }
    let until = args.until.unwrap_or(steps);
    let progress = Progress::new("training", until);
    let (data, read) = data.unzip();
    let begin = || {
        let data = data.map_or_else(|| TrainingData::load(&layout, &settings.data), Ok)?;
        let params = settings.check(data.shape())?;
        let device = device(args.on.device);
        if let Some(file) = &args.restore {
            RunDir::restore(&args.run, &params, &data, device, file)?;
        }
        let trained = train_until(&args.run, &params, &data, device, until, &progress)?;
        if let Some(file) = &args.publish {
            trained.run.publish(file)?;
        }
        Ok((trained, data.len()))
    };
    let begun: Result<_, TrainError> = begin();
    let (trained, k) = begun.map_err(mem2gen::Error::from)?;
    drop(progress);
    for damaged in &trained.damaged {
        put_error!("mem2gen train: skipped: {damaged}");
    }
    if let Some(read) = read {
        put_line!("training set: {read}");
    }
    say(&trained, k)?;
    if let Some(file) = &args.publish {
        put_line!("train: average weights in half precision -> {}", file.display());
    }
    Ok(())
}

fn say(Trained { run, from, to, already, .. }: &Trained, k: usize) -> Result<(), Error> {
    let settings = run.params().settings();
    let unit = settings.data.unit();
    let (name, parameters, device) = (settings.arch.name(), run.graph().trained(), run.device());
    let what = format!("{k} {unit}, {name} of {parameters} parameters, {device}");
    let (steps, dir) = (settings.steps, run.path().display());
    let Some(manifest) = run.manifest().map_err(mem2gen::Error::from)? else {
        put_line!("train: stopped at step {to} of {steps}, {what} -> {dir}");
        return Ok(());
    };
    let loss = manifest.loss;
    match (already, from) {
        (true, _) if manifest.restored_from.is_some() => {
            put_line!("train: published weights after {steps} steps, {what} -> {dir}");
        }
        (true, _) => {
            put_line!(
                "train: already finished, nothing was done: {steps} steps, {what}, loss {loss:.4e} in {dir}"
            );
        }
        (false, 0) => put_line!("train: {steps} steps, {what}, loss {loss:.4e} -> {dir}"),
        (false, _) => {
            put_line!("train: {steps} steps, resumed at {from}, {what}, loss {loss:.4e} -> {dir}");
        }
    }
    Ok(())
}

impl Args {
    /// The settings, and own images, which were read to know their shape, with what was read in words.
    fn settings(&self) -> Result<(TrainSettings, Option<(TrainingData, String)>), Error> {
        let choices = &self.choices;
        let named = self.reading.named(&choices.dataset, choices.size, "--dataset")?;
        let needed =
            || choices.k.ok_or_else(|| refused("--k", "is required for a data set of the registry and toy"));
        match named {
            Named::Toy => {
                if choices.size.is_some() {
                    return Err(refused("--size", "is not for toy points"));
                }
                let data = DataSettings::Toy { k: needed()? };
                Ok((choices.settings(&choices.defaults("toy")?, data, Shape::vector(2))?, None))
            }
            Named::Registered(entry) => {
                let defaults = choices.defaults(entry.name)?;
                let size = choices.size.unwrap_or(defaults.size);
                let data = DataSettings::Images { dataset: entry.name.to_owned(), size, k: needed()? };
                let input = Shape::image(size, size, entry.shape.channels);
                Ok((choices.settings(&defaults, data, input)?, None))
            }
            Named::Own(images) => {
                let begun = self.begun(&images);
                let source = TrainingSource::from_files(images, choices.k.or(begun));
                let source = source.map_err(mem2gen::Error::from)?;
                if begun.is_some_and(|k| choices.k.is_none() && k > source.count()) {
                    let images = source.settings().name();
                    return Err(
                        mem2gen::Error::from(TrainError::Changed { path: self.run.clone(), images }).into()
                    );
                }
                let data = source.training().map_err(mem2gen::Error::from)?;
                let settings =
                    choices.settings(&choices.defaults("own")?, source.settings().clone(), data.shape())?;
                Ok((settings, Some(data).zip(source.said())))
            }
        }
    }

    /// K of the run in the folder, if it is of these images.
    fn begun(&self, own: &Input) -> Option<usize> {
        match &RunDir::open(&self.run).ok()?.params().settings().data {
            DataSettings::Files { images, k } if images == own => Some(*k),
            _ => None,
        }
    }
}

fn refused(option: &'static str, reason: &str) -> Error {
    Failure::Option { option, reason: reason.into() }.into()
}

impl Choices {
    /// The profile's defaults for a data set; `own` has those for own images.
    fn defaults(&self, dataset: &str) -> Result<TrainDefaults, Error> {
        let profile = self.profile.clone().unwrap_or_else(Profile::name_from_env);
        let profile = Profile::named(&profile).map_err(mem2gen::Error::from)?;
        let mut all: BTreeMap<String, TrainDefaults> =
            profile.settings("train").map_err(mem2gen::Error::from)?;
        let known = all.keys().cloned().collect::<Vec<_>>().join(", ");
        let missing = DataError::UnknownName { name: dataset.to_owned(), known };
        Ok(all.remove(dataset).ok_or_else(|| mem2gen::Error::from(missing))?)
    }

    fn settings(
        &self,
        defaults: &TrainDefaults,
        data: DataSettings,
        input: Shape,
    ) -> Result<TrainSettings, Error> {
        let toy = !data.is_of_images();
        // The toy model's points have no size.
        let resized = !toy && (input.height, input.width) != (defaults.size, defaults.size);
        let arch = self.arch(defaults, input, resized)?;
        let process = match self.process.unwrap_or(if toy { ProcessName::Ve } else { ProcessName::Vp }) {
            ProcessName::Vp => ProcessSettings::Vp(VpSettings::default()),
            ProcessName::Ve => ProcessSettings::Ve(VeTraining::default()),
        };
        let decay = if self.cosine { Decay::Cosine } else { Decay::None };
        Ok(TrainSettings {
            data,
            arch,
            process,
            prediction: self.prediction.into(),
            steps: self.steps.unwrap_or(defaults.steps),
            batch: self.batch.unwrap_or(defaults.batch),
            repeat: self.repeat || defaults.repeat,
            caption_drop: 0.0,
            adam: AdamSettings {
                learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
                decay,
                ..AdamSettings::default()
            },
            ema: EmaSettings { decay: self.ema.unwrap_or(defaults.ema.decay), ..defaults.ema },
            seed: self.seed,
            checkpoint_every: self.checkpoint_every.unwrap_or(defaults.checkpoint_every),
            log_every: self.log_every.unwrap_or(defaults.log_every),
        })
    }

    /// The network of the profile, unless another network or another size of images was asked for.
    fn arch(&self, defaults: &TrainDefaults, input: Shape, resized: bool) -> Result<Arch, Error> {
        let named = |arch: &Arch| match arch {
            Arch::Unet(_) => ArchName::Unet,
            Arch::Mlp(_) => ArchName::Mlp,
            Arch::Toy(_) => ArchName::Toy,
        };
        let mut arch = match (self.arch.unwrap_or_else(|| named(&defaults.arch)), &defaults.arch) {
            (ArchName::Unet, Arch::Unet(unet)) if resized => {
                Arch::Unet(UnetSettings::desk(input, unet.channels))
            }
            (name, arch) if named(arch) == name => arch.clone(),
            (ArchName::Unet, _) => Arch::Unet(UnetSettings::desk(input, 32)),
            (ArchName::Mlp, _) => Arch::Mlp(MlpSettings::default()),
            (ArchName::Toy, _) => Arch::Toy(ToySettings::paper()),
        };
        match (&mut arch, self.channels, self.width) {
            (Arch::Unet(_), _, Some(_)) => {
                return Err(refused("--width", "is not for the U-Net; use --channels"));
            }
            (Arch::Mlp(_) | Arch::Toy(_), Some(_), _) => {
                return Err(refused("--channels", "is for the U-Net alone; use --width"));
            }
            (Arch::Unet(unet), Some(channels), _) => unet.channels = channels,
            (Arch::Mlp(mlp), _, Some(width)) => mlp.width = width,
            (Arch::Toy(toy), _, Some(width)) => toy.width = width,
            _ => {}
        }
        Ok(arch)
    }
}
