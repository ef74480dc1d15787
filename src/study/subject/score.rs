//! The score of a training run: its network, or the exact score of its training set.

use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::LabelledSamples;
use crate::Error;
use crate::device::{Device, DeviceChoice};
use crate::net::text::{Embeddings, TextEncoder};
use crate::ops::Memories;
use crate::project::Layout;
use crate::sample;
use crate::score::{Empirical, Guided, Network, Score, ScoreError, Timed};
use crate::store::{quoted, sha256_hex};
use crate::study::error::StudyError;
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
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ScoreOptions {
    /// Score of the run
    #[arg(long, value_enum, default_value_t = ScoreOptions::default().score)]
    pub score: ScoreKind,
    /// Weights themselves instead of their moving average
    #[arg(long)]
    pub raw: bool,
    /// Caption for a network that was trained with captions; without it the score is that of all captions together
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Scale g of classifier-free guidance towards the prompt: s + g (s_prompt - s); 1 is the score with the prompt itself.
    #[arg(skip = ScoreOptions::default().guidance)]
    pub guidance: f64,
    /// Batch size of the network; on the CPU no result depends on it
    #[arg(long, default_value_t = ScoreOptions::default().batch)]
    pub batch: usize,
    /// Device.
    #[arg(skip)]
    pub device: DeviceChoice,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self {
            score: ScoreKind::Network,
            raw: false,
            prompt: None,
            guidance: 1.0,
            batch: 128,
            device: DeviceChoice::default(),
        }
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
    Network { kind: Kind, step: u64, sha256: String, device: Device, prompt: Option<Prompt> },
    Exact { memories: usize, device: Device },
}

/// A prompt and the scale of guidance towards it.
struct Prompt {
    text: String,
    sha256: String,
    guidance: f64,
}

/// The vector of a caption: the stored one, or the encoder's for a new prompt.
///
/// # Errors
/// Those of [`Embeddings::of_emoji`] and [`TextEncoder::load`], whose weights `mem2gen data fetch minilm` brings.
pub fn caption_vector(layout: &Layout, caption: &str) -> Result<Vec<f32>, Error> {
    let known = Embeddings::of_emoji(layout)?;
    if let Ok(vector) = known.find(caption) {
        return Ok(vector.to_vec());
    }
    Ok(TextEncoder::load(layout)?.encode(&[caption])?.row(0).to_vec())
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
                let network = Network::on(weights.clone(), run.prediction(), options.batch, device)?;
                let (score, prompt) = match &options.prompt {
                    None => (Timed::new(network), None),
                    Some(text) => {
                        if weights.graph().condition() == 0 {
                            let reason =
                                "its network was trained without captions, so it takes no prompt".into();
                            return Err(StudyError::Subject { path: folder.into(), reason }.into());
                        }
                        let vector = caption_vector(layout, text)?;
                        let with = Network::on(weights, run.prediction(), options.batch, device)?;
                        let guided = Guided::new(network, with.with_condition(&vector)?, options.guidance)?;
                        let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                        let (text, guidance) = (text.clone(), options.guidance);
                        (Timed::new(guided), Some(Prompt { text, sha256: sha256_hex(&bytes), guidance }))
                    }
                };
                (Origin::Network { kind, step, sha256: sha256_hex(&bytes), device, prompt }, score)
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
            Origin::Network { sha256, device, prompt, .. } => {
                let mut score = json!({ "weights_sha256": sha256, "arch": settings.arch, "device": device });
                if let Some(Prompt { sha256, guidance, .. }) = prompt {
                    score["prompt"] = json!({ "vector_sha256": sha256, "guidance": guidance });
                }
                score
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
            Origin::Network { kind, step, device, prompt, .. } => {
                let which = match kind {
                    Kind::Ema => "average weights",
                    Kind::Raw => "weights",
                };
                let prompt = prompt.as_ref().map_or_else(String::new, |Prompt { text, guidance, .. }| {
                    format!(", prompt {} with guidance {guidance}", quoted(text))
                });
                format!("{which} of step {step}{prompt}, {device}")
            }
            Origin::Exact { memories, device } => format!("exact score of {memories} memories, {device}"),
        }
    }
}
