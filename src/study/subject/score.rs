//! The score of a training run: its network, or the exact score of its training set.

use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::LabelledSamples;
use crate::Error;
use crate::device::{Device, DeviceChoice};
use crate::ops::Memories;
use crate::project::Layout;
use crate::sample;
use crate::score::{Empirical, Network, Score, ScoreError, Timed};
use crate::store::sha256_hex;
use crate::study::sweep::network_device;
use crate::train::{Kind, RunDir};

/// Which score of a training run is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, ValueEnum)]
pub enum ScoreKind {
    /// The score that the network learned
    #[default]
    Network,
    /// The exact score of the training set (Eq. 4), which a perfectly trained network would have
    Exact,
}

/// How the score of a training run is computed.
///
/// ```
/// use mem2gen::study::subject::{ScoreKind, ScoreOptions};
///
/// let options = ScoreOptions::default();
/// assert_eq!((options.score, options.raw, options.batch), (ScoreKind::Network, false, 128));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct ScoreOptions {
    /// Score of the run
    #[arg(long, value_enum, default_value_t = ScoreOptions::default().score)]
    pub score: ScoreKind,
    /// Weights themselves instead of their moving average
    #[arg(long)]
    pub raw: bool,
    /// Batch size of the network; on the CPU no result depends on it
    #[arg(long, default_value_t = ScoreOptions::default().batch)]
    pub batch: usize,
    /// Device.
    #[arg(skip)]
    pub device: DeviceChoice,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self { score: ScoreKind::Network, raw: false, batch: 128, device: DeviceChoice::default() }
    }
}

/// The training run in a folder, or in the cell of a sweep.
///
/// # Errors
/// As [`RunDir::open`].
pub fn training_run(folder: &Path) -> Result<RunDir, Error> {
    let inside = folder.join("train");
    let training = if LabelledSamples::is_at(folder) && inside.is_dir() { &inside } else { folder };
    Ok(RunDir::open(training)?)
}

/// The score of a training run, with the run it belongs to.
pub struct TrainedScore {
    run: RunDir,
    origin: Origin,
    batch: usize,
    score: Timed,
}

enum Origin {
    Network { kind: Kind, step: u64, sha256: String, device: Device },
    Exact { memories: usize, device: Device },
}

impl TrainedScore {
    /// Opens a training run, or the training run of a cell of a sweep, and makes its score.
    ///
    /// The exact score has no weights, so `raw` and `batch` don't matter to it.
    ///
    /// # Errors
    /// [`TrainError`](crate::train::TrainError) for a folder that is not a training run or is damaged, and for a
    /// training set that can't be read; [`ScoreError`] for a device that can't be used.
    pub fn open(folder: &Path, layout: &Layout, options: &ScoreOptions) -> Result<Self, Error> {
        let run = training_run(folder)?;
        let (origin, score) = match options.score {
            ScoreKind::Network => {
                let kind = if options.raw { Kind::Raw } else { Kind::Ema };
                let (weights, step) = run.weights(kind)?;
                let bytes: Vec<u8> = weights.values().iter().flat_map(|v| v.to_le_bytes()).collect();
                let device = network_device(options.device)?;
                let network = Network::on(weights, run.prediction(), options.batch, device)?;
                (Origin::Network { kind, step, sha256: sha256_hex(&bytes), device }, Timed::new(network))
            }
            ScoreKind::Exact => {
                let rows = run.data(layout)?.rows().mapv(f64::from);
                let memories = Memories::on(rows, options.device).map_err(ScoreError::from)?;
                let origin = Origin::Exact { memories: memories.len(), device: memories.device() };
                (origin, Timed::new(Empirical::new(memories)))
            }
        };
        Ok(Self { run, origin, batch: options.batch, score })
    }

    /// The training run.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// Batch size of the network.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The score.
    pub fn score(&self) -> &dyn Score {
        &self.score
    }

    /// The result of `work`, and the percentage of its time that was spent in the score.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn timed<R, E>(&self, work: impl FnOnce() -> Result<R, E>) -> Result<(R, f64), E> {
        let (before, start) = (self.score.spent(), Instant::now());
        let result = work()?;
        let spent = self.score.spent() - before;
        Ok((result, 100.0 * spent.as_secs_f64() / start.elapsed().as_secs_f64()))
    }

    /// Whether the training set consists of images, whose values lie in [-1, 1].
    pub fn is_of_images(&self) -> bool {
        self.run.params().settings().data.is_of_images()
    }

    /// Everything that the values of the score depend on.
    pub fn identity(&self) -> Value {
        let settings = self.run.params().settings();
        let score = match &self.origin {
            Origin::Network { sha256, device, .. } => {
                json!({ "weights_sha256": sha256, "arch": settings.arch, "device": device })
            }
            Origin::Exact { .. } => json!({ "training_set_sha256": self.run.data_sha256() }),
        };
        json!({ "score": score, "process": settings.process, "prediction": settings.prediction })
    }

    /// Everything that the values of samples depend on; `sampler` is the sampler with its times or tolerances.
    pub fn identity_of_samples(&self, sampler: &Value, clip: Option<f64>, seed: u64) -> Value {
        json!({
            "version": sample::VERSION,
            "source": self.identity(),
            "sampler": sampler,
            "clip": clip,
            "seed": seed,
        })
    }

    /// The score in words, such as "average weights of step 8000, cpu".
    pub fn describe(&self) -> String {
        match &self.origin {
            Origin::Network { kind, step, device, .. } => {
                let which = match kind {
                    Kind::Ema => "average weights",
                    Kind::Raw => "weights",
                };
                format!("{which} of step {step}, {device}")
            }
            Origin::Exact { memories, device } => format!("exact score of {memories} memories, {device}"),
        }
    }
}
