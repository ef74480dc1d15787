//! What commands that take a trained network share: the run, its score, and what the results depend on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::device::{Device, DeviceChoice};
use mem2gen::net::Weights;
use mem2gen::ops::{Memories, resolve};
use mem2gen::project::Layout;
use mem2gen::score::{Empirical, Network, Score, ScoreError, Timed};
use mem2gen::store::sha256_hex;
use mem2gen::study::subject::LabelledSamples;
use mem2gen::train::{DataSettings, Kind, RunDir};
use ndarray::Array2;
use serde_json::{Value, json};

use super::input::On;

/// `--run` and which of its scores.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Folder of a training run, as `mem2gen train` leaves it, or of a cell of a sweep, which holds one; of a run
    /// that is not over, the newest checkpoint counts
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The score: what was learned, or the exact one of the run's training set, which a network trained to
    /// perfection would have
    #[arg(long, default_value = "network")]
    score: Which,
    /// The weights as they are, instead of their moving average
    #[arg(long)]
    raw: bool,
    /// Rows that are computed together; on the processor no result depends on it
    #[arg(long, default_value_t = 128)]
    batch: usize,
    #[command(flatten)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Network,
    Exact,
}

/// A run that was opened, with what its score is made of.
pub struct Opened {
    /// The run.
    pub run: RunDir,
    /// Rows that are computed together.
    pub batch: usize,
    from: From,
    choice: DeviceChoice,
}

enum From {
    Weights { weights: Weights, kind: Kind, step: u64, device: Device },
    Data(Array2<f64>),
}

impl Source {
    /// The folder that was given.
    pub fn folder(&self) -> &Path {
        &self.run
    }

    /// The folder of the training run: the one given, or the one of the cell there.
    fn training(&self) -> PathBuf {
        let inside = self.run.join("train");
        if LabelledSamples::is_at(&self.run) && inside.is_dir() { inside } else { self.run.clone() }
    }

    /// Opens the run and reads what the score is made of.
    pub fn open(&self) -> Result<Opened, Failure> {
        if self.batch == 0 {
            return Err(Failure::Option { option: "--batch", reason: "is 0, expected at least 1".into() });
        }
        let run = RunDir::open(&self.training()).map_err(Error::from)?;
        let from = match self.score {
            Which::Network => {
                let kind = if self.raw { Kind::Raw } else { Kind::Ema };
                let (weights, step) = run.weights(kind).map_err(Error::from)?;
                // Without candle's kernels there is no choice.
                let device = match self.on.device {
                    DeviceChoice::Only(device) => device,
                    DeviceChoice::Auto if cfg!(feature = "cuda") => {
                        let resolved = resolve(DeviceChoice::Auto);
                        resolved.map_or(Device::Cpu, |(device, _)| device)
                    }
                    DeviceChoice::Auto => Device::Cpu,
                };
                From::Weights { weights, kind, step, device }
            }
            Which::Exact if self.raw => {
                return Err(Failure::Option {
                    option: "--raw",
                    reason: "the exact score has no weights".into(),
                });
            }
            Which::Exact => From::Data(training_set(&run)?),
        };
        Ok(Opened { run, batch: self.batch, from, choice: self.on.device })
    }
}

/// The rows that a run was trained on.
pub fn training_set(run: &RunDir) -> Result<Array2<f64>, Error> {
    Ok(run.data(&Layout::find())?.rows().mapv(f64::from))
}

impl Opened {
    /// Calls `work` with the score.
    pub fn with<R>(&self, work: impl FnOnce(&dyn Score) -> Result<R, Error>) -> Result<R, Error> {
        match &self.from {
            From::Weights { weights, device, .. } => {
                work(&Network::on(weights.clone(), self.run.prediction(), self.batch, *device)?)
            }
            From::Data(rows) => {
                let memories = Memories::on(rows.view(), self.choice).map_err(ScoreError::from)?;
                work(&Empirical::new(memories))
            }
        }
    }

    /// As [`Self::with`], with the percentage of the time that was spent in the score.
    pub fn timed<R>(&self, work: impl FnOnce(&dyn Score) -> Result<R, Error>) -> Result<(R, f64), Error> {
        self.with(|score| {
            let (timed, start) = (Timed::new(score), Instant::now());
            let result = work(&timed)?;
            Ok((result, 100.0 * timed.spent().as_secs_f64() / start.elapsed().as_secs_f64()))
        })
    }

    /// Whether values lie in [-1, 1].
    pub fn is_of_images(&self) -> bool {
        matches!(self.run.params().settings().data, DataSettings::Images { .. })
    }

    /// What the score depends on.
    pub fn identity(&self) -> Value {
        let settings = self.run.params().settings();
        let of = match &self.from {
            From::Weights { weights, device, .. } => {
                let bytes: Vec<u8> = weights.values().iter().flat_map(|v| v.to_le_bytes()).collect();
                json!({ "weights_sha256": sha256_hex(&bytes), "arch": settings.arch, "device": device })
            }
            From::Data(_) => json!({ "training_set_sha256": self.run.data_sha256() }),
        };
        json!({ "score": of, "process": settings.process, "prediction": settings.prediction })
    }

    /// The score in words.
    pub fn describe(&self) -> String {
        match &self.from {
            From::Weights { kind, step, device, .. } => {
                let which = match kind {
                    Kind::Ema => "average weights",
                    Kind::Raw => "weights",
                };
                format!("{which} of step {step}, {device}")
            }
            From::Data(rows) => format!("exact score of {} memories, cpu", rows.nrows()),
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The library refused.
    #[error(transparent)]
    Library(#[from] Error),
    /// An option that has no meaning with the others, or is out of its range.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// Why.
        reason: String,
    },
}
