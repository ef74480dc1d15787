//! Models that draw pictures from prompts.

use std::collections::HashSet;
use std::path::Path;

use ndarray::{Array2, ArrayView2};
use serde_json::{Value, json};

use super::Prompt;
use crate::Error;
use crate::device::{Device, DeviceChoice};
use crate::net::{Weights, text};
use crate::process::{Level, ProcessError, Spacing, Steps, Vp};
use crate::project::Layout;
use crate::score::{Network, Score};
use crate::shape::Shape;
use crate::store::sha256_hex;
use crate::study::error::StudyError;
use crate::study::subject::{caption_vector, training_run};
use crate::study::sweep::network_device;
use crate::train::{Dosed, Kind, Part, RunDir, TrainedProcess};

/// The scores of one prompt.
pub struct PromptScores {
    /// Without the prompt.
    pub without: Box<dyn Score + Send>,
    /// With the prompt.
    pub with: Box<dyn Score + Send>,
}

/// What is known about the training of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The training images, `[K, N]`.
    pub images: Array2<f32>,
    /// Caption, part and dose of each.
    pub rows: Vec<Dosed>,
    /// Step of the training after which the network was taken.
    pub step: u64,
}

/// A model that draws pictures from prompts.
pub trait PromptModel: Sync {
    /// Shape of what is sampled: images, or latents of them.
    fn shape(&self) -> Shape;

    /// The process of the scores.
    fn process(&self) -> &Vp;

    /// The levels of a sampler with `count` steps.
    ///
    /// # Errors
    /// [`ProcessError`] for 0 steps, and for more than the process has levels.
    fn steps(&self, count: usize) -> Result<Steps, ProcessError> {
        self.process().steps(count, Spacing::Leading)
    }

    /// Bound of each value of the predicted clean sample; `None` for latents, which have none.
    fn clip(&self) -> Option<f64>;

    /// The scores of a prompt.
    ///
    /// # Errors
    /// Those of the text encoder and the network.
    fn prompted(&self, caption: &str) -> Result<PromptScores, Error>;

    /// Number of tokens of a prompt that the text encoder does not take, which are left out.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn dropped(&self, _caption: &str) -> Result<usize, Error> {
        Ok(0)
    }

    /// The attention that each value of x `[m, N]` pays to the token that ends the prompt, `[m, N]`; `None` for a model without
    /// cross-attention.
    ///
    /// # Errors
    /// Those of the text encoder and the network.
    fn end_attention(
        &self,
        _caption: &str,
        _x: ArrayView2<'_, f64>,
        _level: Level,
    ) -> Result<Option<Array2<f64>>, Error> {
        Ok(None)
    }

    /// The pictures of samples `[m, N]`, with values in [-1, 1], and their shape.
    ///
    /// # Errors
    /// Those of the decoder.
    fn pictures(&self, samples: ArrayView2<'_, f32>) -> Result<(Array2<f32>, Shape), Error>;

    /// Whether scores have products with their transposed Jacobian.
    fn products(&self) -> bool {
        true
    }

    /// Everything that the scores depend on.
    fn identity(&self) -> Value;

    /// What is known about the training; `None` for a model whose training set is not at hand.
    fn truth(&self) -> Option<&Truth>;
}

/// A network of a training run with captions. It samples images themselves.
pub struct TrainedPrompts {
    run: RunDir,
    weights: Weights,
    sha256: String,
    vp: Vp,
    layout: Layout,
    device: Device,
    batch: usize,
    truth: Truth,
}

impl TrainedPrompts {
    /// Opens a training run with captions, with the moving average of its weights and its training set.
    ///
    /// # Errors
    /// [`StudyError::Subject`] for a run without captions or of another process than vp;
    /// [`TrainError`](crate::train::TrainError) for a damaged run and another training set;
    /// [`ScoreError`](crate::score::ScoreError) for a device that can't be used.
    pub fn open(folder: &Path, layout: &Layout, device: DeviceChoice, batch: usize) -> Result<Self, Error> {
        let run = training_run(folder)?;
        let weights = run.weights(Kind::Ema)?;
        Self::with_weights(run, weights, layout, device, batch)
    }

    /// As [`Self::open`], with the weights after `step` steps.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StudyError::Subject`] for a run that has no weights of this step.
    pub fn open_after(
        folder: &Path,
        step: u64,
        layout: &Layout,
        device: DeviceChoice,
        batch: usize,
    ) -> Result<Self, Error> {
        let run = training_run(folder)?;
        let Some(weights) = run.weights_after(Kind::Ema, step)? else {
            let reason = format!("it has no checkpoint of step {step}");
            return Err(StudyError::Subject { path: folder.into(), reason }.into());
        };
        Self::with_weights(run, (weights, step), layout, device, batch)
    }

    fn with_weights(
        run: RunDir,
        (weights, step): (Weights, u64),
        layout: &Layout,
        device: DeviceChoice,
        batch: usize,
    ) -> Result<Self, Error> {
        let folder = run.path();
        let refused = |reason: &str| StudyError::Subject { path: folder.into(), reason: reason.into() };
        let TrainedProcess::Vp(vp) = run.process().clone() else {
            return Err(refused("the process of the run is ve, expected vp").into());
        };
        if run.graph().condition() == 0 {
            return Err(refused("its network was trained without captions, so it takes no prompt").into());
        }
        let (source, data) = run.source(layout)?;
        let rows = source.dosed().ok_or_else(|| refused("its training set has no captions"))?.to_vec();
        let bytes: Vec<u8> = weights.values().iter().flat_map(|v| v.to_le_bytes()).collect();
        let truth = Truth { images: data.rows().to_owned().into_owned(), rows, step };
        let (layout, device) = (layout.clone(), network_device(device)?);
        Ok(Self { run, sha256: sha256_hex(&bytes), weights, vp, layout, device, batch, truth })
    }

    /// The training run.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// Number of training images.
    pub fn images(&self) -> usize {
        self.truth.images.nrows()
    }

    /// The captions of the training set with a dose and of templates, in the order of the training set, each once.
    pub fn captions(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let known = self.truth.rows.iter().filter(|row| row.part != Part::Other);
        known.map(|row| row.caption.as_str()).filter(|caption| seen.insert(*caption)).collect()
    }

    /// The first caption of each of these doses, and the first template.
    pub fn examples(&self, doses: &[f64]) -> Vec<Prompt> {
        let first = |wanted: &dyn Fn(&&Dosed) -> bool| self.truth.rows.iter().find(wanted);
        let of = |dose: &f64| first(&|row| row.part == Part::Dosed && row.dose == *dose);
        let template = first(&|row| row.part == Part::Template);
        doses.iter().filter_map(of).chain(template).map(|row| Prompt::new(&row.caption)).collect()
    }

    fn network(&self) -> Result<Network, Error> {
        Ok(Network::on(self.weights.clone(), self.run.prediction(), self.batch, self.device)?)
    }
}

impl PromptModel for TrainedPrompts {
    fn shape(&self) -> Shape {
        self.run.shape()
    }

    fn process(&self) -> &Vp {
        &self.vp
    }

    fn clip(&self) -> Option<f64> {
        Some(1.0)
    }

    fn prompted(&self, caption: &str) -> Result<PromptScores, Error> {
        let vector = caption_vector(&self.layout, caption)?;
        Ok(PromptScores {
            without: Box::new(self.network()?),
            with: Box::new(self.network()?.with_condition(&vector)?),
        })
    }

    fn dropped(&self, caption: &str) -> Result<usize, Error> {
        Ok(text::dropped(&self.layout, caption)?)
    }

    fn pictures(&self, samples: ArrayView2<'_, f32>) -> Result<(Array2<f32>, Shape), Error> {
        Ok((samples.mapv(|v| v.clamp(-1.0, 1.0)), self.shape()))
    }

    fn identity(&self) -> Value {
        let settings = self.run.params().settings();
        json!({
            "weights_sha256": self.sha256,
            "arch": settings.arch,
            "prediction": settings.prediction,
            "process": settings.process,
            "device": self.device,
        })
    }

    fn truth(&self) -> Option<&Truth> {
        Some(&self.truth)
    }
}
