//! `mem2gen import`: a checkpoint of PyTorch as the folder of a finished run.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::data;
use mem2gen::net::{Arch, Checkpoint, CheckpointPart, NetError, UnetSettings};
use mem2gen::process::VpSettings;
use mem2gen::project::Layout;
use mem2gen::random::SEED;
use mem2gen::shape::Shape;
use mem2gen::store::{StoreError, sha256_hex};
use mem2gen::train::{
    AdamSettings, DataSettings, EmaSettings, Imported, ProcessSettings, RunDir, TrainSettings, TrainingData,
};

use super::source::Failure;
use super::train::Target;

/// Import a U-Net from a PyTorch checkpoint of the authors' code, as a run for --run of other commands
///
/// The checkpoint is a file of torch.save with the weights under `model` and their moving average under `ema`, named as
/// in score_sde. Only tensors are read, and nothing in the file is executed. The options say what a checkpoint does
/// not: without --k the training set is unknown, and commands that need training images refuse the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint of the authors' code, .pt or .pth
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Data set of the training images: mnist, fashion-mnist, cifar10 or lsun-church
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// Training set size K: the first K images of this project's nested training sets [default: unknown]
    #[arg(long)]
    k: Option<usize>,
    /// Height and width of images [default: the data set's]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Channels of the U-Net's first level [default: those of the checkpoint]
    #[arg(long)]
    channels: Option<usize>,
    /// Channels of each level, as multiples of --channels [default: the paper's for the data set]
    #[arg(long, value_name = "M,...", value_delimiter = ',')]
    multipliers: Option<Vec<usize>>,
    /// Residual blocks of a level on the way down
    #[arg(long, default_value_t = 2)]
    blocks: usize,
    /// Heights of the levels with attention
    #[arg(long, value_name = "PIXELS,...", value_delimiter = ',', default_value = "16")]
    attention: Vec<usize>,
    /// Groups of group normalisation [default: 32, or a quarter of --channels below 64 channels]
    #[arg(long)]
    groups: Option<usize>,
    /// Target that the network predicts
    #[arg(long, default_value = "epsilon")]
    prediction: Target,
    /// Number of noise levels of the process
    #[arg(long, default_value_t = VpSettings::default().levels)]
    levels: usize,
    /// Variance that the first step of the process adds
    #[arg(long, value_name = "BETA", default_value_t = VpSettings::default().beta_start)]
    beta_start: f64,
    /// Variance that the last step of the process adds
    #[arg(long, value_name = "BETA", default_value_t = VpSettings::default().beta_end)]
    beta_end: f64,
    /// Number of training steps [default: the iterations of the checkpoint]
    #[arg(long)]
    steps: Option<u64>,
    /// Folder of the run
    #[arg(long, value_name = "RUN_DIR")]
    out: PathBuf,
}

/// Runs `mem2gen import`.
pub fn run(args: Args) -> Result<(), Failure> {
    let own = data::find(&args.dataset).map_err(Error::from)?.shape;
    let input = Shape::image(args.size.unwrap_or(own.height), args.size.unwrap_or(own.width), own.channels);
    let mut checkpoint = Checkpoint::open(&args.checkpoint).map_err(Error::from)?;
    let Some(channels) = args.channels.or(checkpoint.channels()) else {
        let reason = "is needed, as the checkpoint has no tensor all_modules.0.weight".into();
        return Err(Failure::Option { option: "--channels", reason });
    };
    let Some(steps) = args.steps.or(checkpoint.iterations()) else {
        let reason = "is needed, as the checkpoint has no iterations".into();
        return Err(Failure::Option { option: "--steps", reason });
    };
    let unet = args.unet(channels)?;
    let mut weights = |part| checkpoint.model(unet.clone(), input, part).map_err(layout);
    let (raw, ema) = (weights(CheckpointPart::Model)?, weights(CheckpointPart::Ema)?);
    let imported = Imported { raw: raw.weights, ema: ema.weights, sha256: checksum(&args.checkpoint)? };

    let settings = args.settings(Arch::Unet(unet), input, steps);
    let params = settings.check(input).map_err(Error::from)?;
    let data = match args.k {
        Some(_) => Some(TrainingData::load(&Layout::find(), &params.settings().data).map_err(Error::from)?),
        None => None,
    };
    let run = RunDir::import(&args.out, &params, data.as_ref(), &imported).map_err(Error::from)?;
    let set = match args.k {
        Some(k) => format!("{k} images of {}", args.dataset),
        None => "an unknown training set".to_owned(),
    };
    put_line!(
        "import: unet of {} parameters, step {steps}, {set} -> {}",
        run.graph().trained(),
        run.path().display()
    );
    Ok(())
}

impl Args {
    fn unet(&self, channels: usize) -> Result<UnetSettings, Failure> {
        let paper = UnetSettings::paper(&self.dataset, channels).map_err(Error::from)?;
        Ok(UnetSettings {
            multipliers: self.multipliers.clone().unwrap_or(paper.multipliers),
            blocks: self.blocks,
            attention: self.attention.clone(),
            groups: self.groups,
            ..paper
        })
    }

    fn settings(&self, arch: Arch, input: Shape, steps: u64) -> TrainSettings {
        let data = match self.k {
            Some(k) => DataSettings::Images { dataset: self.dataset.clone(), size: input.height, k },
            None => DataSettings::Unknown,
        };
        let (levels, beta_start, beta_end) = (self.levels, self.beta_start, self.beta_end);
        TrainSettings {
            data,
            arch,
            process: ProcessSettings::Vp(VpSettings {
                levels,
                beta_start,
                beta_end,
                ..VpSettings::default()
            }),
            prediction: self.prediction.into(),
            steps,
            batch: 128,
            repeat: false,
            caption_drop: 0.0,
            adam: AdamSettings::default(),
            ema: EmaSettings::default(),
            seed: SEED,
            checkpoint_every: 2500,
            log_every: 500,
        }
    }
}

/// Tensors that don't fit can come from a wrong option as well as from a wrong file.
fn layout(error: NetError) -> Error {
    let NetError::Weights { path, reason } = error else { return error.into() };
    let reason = format!(
        "{reason}; --channels, --multipliers, --blocks, --attention and --size give the expected tensors"
    );
    NetError::Weights { path, reason }.into()
}

fn checksum(path: &Path) -> Result<String, Error> {
    Ok(sha256_hex(&std::fs::read(path).map_err(StoreError::io("open", path))?))
}
