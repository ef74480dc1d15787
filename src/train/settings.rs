use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::net::{Arch, Graph};
use crate::process::{Prediction, Process, Ve, VeSettings, Vp, VpSettings};
use crate::random::SEED;
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::sha256_hex;

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DataSettings {
    /// Images with values in [-1, 1], without flips.
    Images {
        /// Name of the data set.
        dataset: String,
        /// Height and width. Where it is below the data set's own, every number is the mean over a square of pixels.
        size: usize,
        /// K: the first so many of the nested training sets.
        k: usize,
    },
    /// The toy model's points on the circle.
    Toy {
        /// K: the first so many.
        k: usize,
    },
    /// Images in [-1, 1] that this project does not know: those of an imported network.
    Unknown,
}

impl DataSettings {
    /// K; `None` when the training set is unknown.
    pub const fn k(&self) -> Option<usize> {
        match self {
            Self::Images { k, .. } | Self::Toy { k } => Some(*k),
            Self::Unknown => None,
        }
    }

    /// Whether the rows are images, with values in [-1, 1].
    pub const fn is_of_images(&self) -> bool {
        matches!(self, Self::Images { .. } | Self::Unknown)
    }

    /// What the rows are called in messages.
    pub const fn unit(&self) -> &'static str {
        if self.is_of_images() { "images" } else { "points" }
    }
}

/// The process whose score is learned, and the times that are trained at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProcessSettings {
    /// DDPM's; times are its levels, all equally likely.
    Vp(VpSettings),
    /// The toy model's; times are uniform.
    Ve(VeTraining),
}

/// Settings of [`ProcessSettings::Ve`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VeTraining {
    /// sigma of dx = sigma dw.
    pub sigma: f64,
    /// T, the last time.
    pub horizon: f64,
    /// The first time that is trained at; the paper's code has 1e-5.
    pub from: f64,
}

impl Default for VeTraining {
    fn default() -> Self {
        let VeSettings { sigma, horizon } = VeSettings::default();
        Self { sigma, horizon, from: 1e-5 }
    }
}

/// How the learning rate goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays, as in the paper.
    None,
    /// It falls to nought at the last step as half a cosine.
    Cosine,
}

/// Settings of Adam; the defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamSettings {
    /// Learning rate; the paper's toy model has 1e-4.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// A gradient whose norm is above this is shortened to it.
    pub clip: f64,
    /// How the learning rate goes.
    pub decay: Decay,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 1.0, decay: Decay::None }
    }
}

/// Settings of the moving average of weights, which is what samples; the defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaSettings {
    /// Share of the average that stays in a step.
    pub decay: f64,
    /// Whether the share is at most (1 + n) / (10 + n) in step n, so that the first weights are soon forgotten. The
    /// paper has none; short runs want it.
    pub warm_up: bool,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { decay: 0.9999, warm_up: false }
    }
}

/// All that a training run depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    /// What is trained on.
    pub data: DataSettings,
    /// The network.
    pub arch: Arch,
    /// The process.
    pub process: ProcessSettings,
    /// What the network predicts; anything but the score itself, whose plain mean square has no bound at small
    /// noise.
    #[serde(default = "epsilon")]
    pub prediction: Prediction,
    /// Steps.
    pub steps: u64,
    /// Rows of a step; min(batch, K) with `repeat` off, as in the paper.
    pub batch: usize,
    /// Whether a batch may be larger than the training set: every datum is then taken several times, with times and
    /// noise of its own. This project's own, for small K, where it makes better use of a step.
    #[serde(default)]
    pub repeat: bool,
    /// The optimiser.
    #[serde(default)]
    pub adam: AdamSettings,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Seed of initial weights, order, times, noise and dropout.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Steps from one checkpoint to the next; the paper's code has 2500.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps from one row of metrics to the next; the paper's code has 500.
    #[serde(default = "log_every")]
    pub log_every: u64,
}

fn epsilon() -> Prediction {
    Prediction::Epsilon
}

fn seed() -> u64 {
    SEED
}

fn checkpoint_every() -> u64 {
    2500
}

fn log_every() -> u64 {
    500
}

/// The process of a trained network.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainedProcess {
    /// Variance-preserving.
    Vp(Vp),
    /// Variance-exploding.
    Ve(Ve),
}

impl TrainedProcess {
    /// As samplers and scores take it.
    pub fn as_process(&self) -> &dyn Process {
        match self {
            Self::Vp(vp) => vp,
            Self::Ve(ve) => ve,
        }
    }
}

/// Checked [`TrainSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct TrainParams {
    settings: TrainSettings,
    process: TrainedProcess,
    input: Shape,
    graph: Arc<Graph>,
    canonical: String,
}

impl TrainSettings {
    /// Checks every setting once and makes process and network. `input` is the shape of a datum, as
    /// [`super::TrainingData`] has it.
    ///
    /// # Errors
    /// [`TrainError::Setting`] that names the first one out of its range, or what process and network refuse.
    pub fn check(self, input: Shape) -> Result<TrainParams, TrainError> {
        let ok = |ok: bool, setting: &'static str, value: String, need: &str| match ok {
            true => Ok(()),
            false => Err(TrainError::from(SettingError::new("training", setting, value, need.to_owned()))),
        };
        for (setting, value) in [
            ("steps", self.steps),
            ("checkpoint_every", self.checkpoint_every),
            ("log_every", self.log_every),
        ] {
            ok((1..=1 << 53).contains(&value), setting, value.to_string(), "1 to 2^53")?;
        }
        ok((1..=1 << 20).contains(&self.batch), "batch", self.batch.to_string(), "1 to 1048576")?;
        ok(
            self.prediction != Prediction::Score,
            "prediction",
            "score".into(),
            "epsilon, x0 or v: the mean square of a score has no bound",
        )?;
        let AdamSettings { learning_rate, beta1, beta2, epsilon, clip, .. } = self.adam;
        for (setting, value) in
            [("adam.learning_rate", learning_rate), ("adam.epsilon", epsilon), ("adam.clip", clip)]
        {
            ok(value > 0.0 && value.is_finite(), setting, value.to_string(), "a finite number above 0")?;
        }
        for (setting, value) in [("adam.beta1", beta1), ("adam.beta2", beta2), ("ema.decay", self.ema.decay)]
        {
            ok((0.0..1.0).contains(&value), setting, value.to_string(), "0 to below 1")?;
        }
        let process = match self.process {
            ProcessSettings::Vp(settings) => TrainedProcess::Vp(settings.check()?),
            ProcessSettings::Ve(VeTraining { sigma, horizon, from }) => {
                let ve = VeSettings { sigma, horizon }.check()?;
                ok(
                    from > 0.0 && from < horizon,
                    "process.from",
                    from.to_string(),
                    "a number between 0 and horizon",
                )?;
                TrainedProcess::Ve(ve)
            }
        };
        let graph = self.arch.graph(input)?;
        ok(
            graph.input().len() == input.len() && graph.output().len() == input.len(),
            "arch",
            format!("from {} to {} numbers", graph.input().len(), graph.output().len()),
            &format!("from and to {}", input.len()),
        )?;
        // Fields come in the order in which they are declared, and numbers so that they are read back to the bit.
        let canonical = serde_json::to_string(&self)
            .map_err(|e| SettingError::new("training", "all", e, "what JSON can hold"))?;
        Ok(TrainParams { settings: self, process, input, graph, canonical })
    }
}

impl TrainParams {
    /// The settings.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// The process.
    pub fn process(&self) -> &TrainedProcess {
        &self.process
    }

    /// The first time that is trained at. What the network says below it was never learned.
    pub fn first_time(&self) -> f64 {
        match self.settings.process {
            ProcessSettings::Vp(_) => 0.0,
            ProcessSettings::Ve(VeTraining { from, .. }) => from,
        }
    }

    /// Shape of a datum.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// The network.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The settings as one line of JSON, always the same for the same settings.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of [`Self::canonical`]: what a run is known by.
    pub fn key(&self) -> String {
        sha256_hex(self.canonical.as_bytes())
    }

    /// Rows of a step with K data.
    pub fn rows(&self, k: usize) -> usize {
        if self.settings.repeat { self.settings.batch } else { self.settings.batch.min(k) }
    }
}

/// Settings of a training run on one data set; the rest of [`TrainSettings`] is the same for all data sets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainDefaults {
    /// Height and width of images.
    #[serde(default)]
    pub size: usize,
    /// The network.
    pub arch: Arch,
    /// Steps.
    pub steps: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: bool,
    /// Learning rate.
    pub learning_rate: f64,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// Steps from one row of metrics to the next.
    pub log_every: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::{ToyForm, ToySettings};

    /// A network of a few hundred numbers on the toy model's points.
    pub fn tiny(k: usize, steps: u64) -> TrainSettings {
        let arch = ToySettings { form: ToyForm::Paper, width: 8, depth: 2, time: 8, scale: 4.0 };
        TrainSettings {
            data: DataSettings::Toy { k },
            arch: Arch::Toy(arch),
            process: ProcessSettings::Ve(VeTraining::default()),
            prediction: Prediction::Epsilon,
            steps,
            batch: 4,
            repeat: false,
            adam: AdamSettings { learning_rate: 1e-2, ..AdamSettings::default() },
            ema: EmaSettings { decay: 0.9, warm_up: false },
            seed: 1,
            checkpoint_every: 5,
            log_every: 4,
        }
    }

    #[test]
    fn settings_come_back_from_json_and_toml_and_have_the_papers_defaults() {
        let settings = tiny(9, 20);
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<TrainSettings>(&json).unwrap(), settings);
        let text = r#"
            steps = 400000
            batch = 128
            data = { kind = "images", dataset = "mnist", size = 28, k = 4000 }
            arch = { kind = "toy", form = "code", width = 8, depth = 2, time = 8, scale = 16.0 }
            process = { kind = "vp", levels = 1000, beta_start = 1e-4, beta_end = 0.02 }
        "#;
        let paper: TrainSettings = toml::from_str(text).unwrap();
        assert_eq!((paper.adam, paper.ema), (AdamSettings::default(), EmaSettings::default()));
        let AdamSettings { learning_rate, clip, .. } = paper.adam;
        assert_eq!((learning_rate, clip, paper.ema.decay, paper.seed), (2e-4, 1.0, 0.9999, 3407));
        assert_eq!((paper.checkpoint_every, paper.log_every), (2500, 500));
        assert_eq!((paper.prediction, paper.repeat), (Prediction::Epsilon, false));
        for more in ["colour = 1", "[adam]\nmomentum = 1.0", "[ema]\nwarmth = 1"] {
            assert!(toml::from_str::<TrainSettings>(&format!("{text}\n{more}")).is_err(), "{more}");
        }
    }

    #[test]
    fn the_key_is_that_of_the_settings() {
        let key = |s: TrainSettings| s.check(Shape::vector(2)).unwrap().key();
        assert_eq!(key(tiny(9, 20)), key(tiny(9, 20)));
        assert_ne!(key(tiny(9, 20)), key(TrainSettings { seed: 2, ..tiny(9, 20) }));
        // Held fast: another text for the same settings would leave every run behind.
        let canonical = tiny(9, 20).check(Shape::vector(2)).unwrap().canonical().to_owned();
        assert!(
            canonical.starts_with(r#"{"data":{"kind":"toy","k":9},"arch":{"kind":"toy","form":"paper","#)
        );
    }

    #[test]
    fn every_setting_out_of_its_range_is_refused_by_name() {
        type Change = fn(&mut TrainSettings);
        let changes: [(&str, Change); 15] = [
            ("steps", |s| s.steps = 0),
            ("batch", |s| s.batch = 0),
            ("checkpoint_every", |s| s.checkpoint_every = 0),
            ("log_every", |s| s.log_every = 0),
            ("prediction", |s| s.prediction = Prediction::Score),
            ("adam.learning_rate", |s| s.adam.learning_rate = 0.0),
            ("adam.learning_rate", |s| s.adam.learning_rate = f64::NAN),
            ("adam.epsilon", |s| s.adam.epsilon = f64::INFINITY),
            ("adam.clip", |s| s.adam.clip = -1.0),
            ("adam.beta1", |s| s.adam.beta1 = 1.0),
            ("adam.beta2", |s| s.adam.beta2 = -0.1),
            ("ema.decay", |s| s.ema.decay = 1.0),
            ("process.from", |s| s.process = ve(0.0)),
            ("process.from", |s| s.process = ve(1.0)),
            ("process.from", |s| s.process = ve(f64::NAN)),
        ];
        fn ve(from: f64) -> ProcessSettings {
            ProcessSettings::Ve(VeTraining { from, ..VeTraining::default() })
        }
        for (name, change) in changes {
            let mut settings = tiny(9, 20);
            change(&mut settings);
            match settings.check(Shape::vector(2)) {
                Err(TrainError::Setting(e)) => assert_eq!(e.setting, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let levels = VpSettings { levels: 0, ..VpSettings::default() };
        let bad = TrainSettings { process: ProcessSettings::Vp(levels), ..tiny(9, 20) };
        assert!(matches!(bad.check(Shape::vector(2)), Err(TrainError::Process(_))));
        assert!(matches!(tiny(9, 20).check(Shape::vector(0)), Err(TrainError::Net(_))));
    }
}
