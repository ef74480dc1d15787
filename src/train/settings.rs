use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DoseSettings, TrainError};
use crate::data::{DataError, Input};
use crate::net::{Arch, Graph};
use crate::process::{Prediction, Process, ProcessError, Spacing, Steps, Ve, VeSettings, Vp, VpSettings};
use crate::project::Layout;
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::{StoreError, from_json, from_toml, sha256_hex, stems};

/// Most rows of one batch.
pub const MOST_ROWS: usize = 1 << 20;

/// A training set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DataSettings {
    /// Images with values in [-1, 1], without flips.
    Images {
        /// Name of the data set.
        dataset: String,
        /// Height and width. If smaller than those of the data set, each pixel is the mean over a square of pixels.
        size: usize,
        /// Training set size K: the first K images of the nested training sets.
        k: usize,
    },
    /// Pictures with captions, of which it is known how often each is seen. Values are in [-1, 1].
    Captions {
        /// Name of the data set of emoji.
        dataset: String,
        /// As for [`Self::Images`].
        size: usize,
        /// The captions and how often each is seen.
        doses: DoseSettings,
    },
    /// The user's own images, brought to [-1, 1] and not flipped.
    Files {
        /// Files, folders and patterns, and how they are read. Their order is part of the settings.
        images: Input,
        /// Training set size K: the first K images of the nested training sets.
        k: usize,
    },
    /// The toy model's points on the circle.
    Toy {
        /// Training set size K: the first K points.
        k: usize,
    },
    /// Unknown images with values in [-1, 1], on which an imported network was trained.
    Unknown,
}

impl DataSettings {
    /// K as it is asked for; `None` when the training set is unknown, and for captions, whose pictures have yet to be counted.
    pub const fn k(&self) -> Option<usize> {
        match self {
            Self::Captions { .. } => None,
            Self::Images { k, .. } | Self::Files { k, .. } | Self::Toy { k } => Some(*k),
            Self::Unknown => None,
        }
    }

    /// Whether the rows are images, with values in [-1, 1].
    pub const fn is_of_images(&self) -> bool {
        !matches!(self, Self::Toy { .. })
    }

    /// The settings with absolute paths, so that they mean the same from any working folder.
    ///
    /// # Errors
    /// As [`Input::absolute`].
    pub fn absolute(self) -> Result<Self, DataError> {
        Ok(match self {
            Self::Files { images, k } => Self::Files { images: images.absolute()?, k },
            other => other,
        })
    }

    /// The data set in words: its name, or the paths of own images.
    pub fn name(&self) -> String {
        match self {
            Self::Images { dataset, .. } | Self::Captions { dataset, .. } => dataset.clone(),
            Self::Files { images, .. } => {
                images.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
            }
            Self::Toy { .. } => "toy".to_owned(),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// What the rows are called in messages.
    pub const fn unit(&self) -> &'static str {
        if self.is_of_images() { "images" } else { "points" }
    }
}

/// The process whose score is learned, and the distribution of times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProcessSettings {
    /// The process of DDPM; times are its levels, uniformly distributed.
    Vp(VpSettings),
    /// The process of the toy model; times are uniform.
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
    /// Smallest time in training; the paper's code has 1e-5.
    pub from: f64,
}

impl Default for VeTraining {
    fn default() -> Self {
        let VeSettings { sigma, horizon } = VeSettings::default();
        Self { sigma, horizon, from: 1e-5 }
    }
}

/// Schedule of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Constant, as in the paper.
    None,
    /// Half a cosine, from the learning rate at the first step to zero at the last.
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
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Largest norm of the gradient; larger gradients are scaled down to it.
    pub clip: f64,
    /// Schedule of the learning rate.
    pub decay: Decay,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 1.0, decay: Decay::None }
    }
}

/// Settings of the moving average of weights, with which samples are drawn; the defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaSettings {
    /// Weight of the old average in a step.
    pub decay: f64,
    /// Whether the decay is at most (1 + n) / (10 + n) in step n, which reduces the weight of the initial values. The paper
    /// does not do this; short runs need it.
    pub warm_up: bool,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { decay: 0.9999, warm_up: false }
    }
}

/// Everything that a training run depends on.
///
/// ```
/// use mem2gen::shape::Shape;
/// use mem2gen::train::TrainSettings;
///
/// let settings: TrainSettings = serde_json::from_str(
///     r#"{
///         "steps": 1000,
///         "batch": 9,
///         "data": { "kind": "toy", "k": 9 },
///         "arch": { "kind": "toy", "form": "paper", "width": 8, "depth": 2, "time": 8, "scale": 16.0 },
///         "process": { "kind": "ve", "sigma": 1.0, "horizon": 1.0, "from": 1e-5 }
///     }"#,
/// )?;
/// assert_eq!((settings.seed, settings.checkpoint_every), (3407, 2500));
/// let params = settings.check(Shape::vector(2))?;
/// assert_eq!(params.first_time(), 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    /// The training set.
    pub data: DataSettings,
    /// The network.
    pub arch: Arch,
    /// The process.
    pub process: ProcessSettings,
    /// The quantity that the network predicts: epsilon, x0 or v. The mean square of a score is unbounded at small noise.
    #[serde(default = "default::epsilon")]
    pub prediction: Prediction,
    /// Number of training steps.
    pub steps: u64,
    /// Batch size; at most K unless `repeat`, as in the paper.
    pub batch: usize,
    /// Whether a batch may be larger than the training set, which repeats each row with other times and noise. This
    /// project's own addition, for a better use of steps at small K.
    #[serde(default)]
    pub repeat: bool,
    /// Probability that a row's caption is replaced by zeros, so that the network learns to do without one, which
    /// classifier-free guidance needs.
    #[serde(default, skip_serializing_if = "default::is_zero")]
    pub caption_drop: f64,
    /// The optimiser.
    #[serde(default)]
    pub adam: AdamSettings,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Seed of initial weights, order, times, noise and dropout.
    #[serde(default = "default::seed")]
    pub seed: u64,
    /// Number of steps between checkpoints; the paper's code has 2500.
    #[serde(default = "default::checkpoint_every")]
    pub checkpoint_every: u64,
    /// Number of steps between rows of metrics; the paper's code has 500.
    #[serde(default = "default::log_every")]
    pub log_every: u64,
}

/// Defaults of a run, which are those of a sweep's plan, too.
pub(crate) mod default {
    use crate::process::Prediction;
    use crate::random::SEED;

    pub(crate) fn is_zero(value: &f64) -> bool {
        *value == 0.0
    }

    pub(crate) fn epsilon() -> Prediction {
        Prediction::Epsilon
    }

    pub(crate) fn seed() -> u64 {
        SEED
    }

    pub(crate) fn checkpoint_every() -> u64 {
        2500
    }

    pub(crate) fn log_every() -> u64 {
        500
    }
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
    /// The process as samplers and scores take it.
    pub fn as_process(&self) -> &dyn Process {
        match self {
            Self::Vp(vp) => vp,
            Self::Ve(ve) => ve,
        }
    }

    /// `count` steps of a sampler to clean data: levels of the process vp, times at equal distances of ve.
    ///
    /// # Errors
    /// [`ProcessError`] for 0 steps, and for more than the process vp has levels.
    pub fn steps(&self, count: usize, spacing: Spacing) -> Result<Steps, ProcessError> {
        match self {
            Self::Vp(vp) => vp.steps(count, spacing),
            Self::Ve(ve) => Steps::even(ve, ve.horizon(), ve.clean(), count),
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
    /// Reads settings from a file, `.toml` or `.json`. Paths of own images become absolute.
    ///
    /// # Errors
    /// [`TrainError::Store`] for a file that can't be read; [`TrainError::Config`] for one that can't be parsed, and for
    /// another ending.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = fs::read_to_string(path).map_err(StoreError::io("open", path))?;
        let bad = |reason: String| TrainError::Config { path: path.into(), reason };
        let settings: Self = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => from_json(text.as_bytes()).map_err(bad)?,
            Some("toml") => from_toml(&text).map_err(bad)?,
            _ => return Err(bad("expected a file name ending in .toml or .json".into())),
        };
        Ok(Self { data: settings.data.absolute()?, ..settings })
    }

    /// The project's settings `name`, such as `emoji-doses`: the file `data/training/NAME.toml`.
    ///
    /// ```
    /// use mem2gen::project::Layout;
    /// use mem2gen::train::TrainSettings;
    ///
    /// let settings = TrainSettings::named(&Layout::at(env!("CARGO_MANIFEST_DIR")), "emoji-doses")?;
    /// assert_eq!((settings.steps, settings.batch), (40_000, 32));
    /// # Ok::<(), mem2gen::train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::read`]; [`TrainError::Config`] with the known names for another name.
    pub fn named(layout: &Layout, name: &str) -> Result<Self, TrainError> {
        let folder = layout.root().join("data/training");
        let path = folder.join(format!("{name}.toml"));
        if !path.is_file() {
            let known = stems(&folder, "toml").join(", ");
            let reason = format!("does not exist, expected one of {known}; give one of these names");
            return Err(TrainError::Config { path, reason });
        }
        Self::read(&path)
    }

    /// Checks the settings and builds process and network. `input` is the shape of a row of the training set.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first setting out of its range; errors of process and network.
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
        ok((1..=MOST_ROWS).contains(&self.batch), "batch", self.batch.to_string(), "1 to 1048576")?;
        ok(
            self.prediction != Prediction::Score,
            "prediction",
            "score".into(),
            "epsilon, x0 or v, as the mean square of a score is unbounded",
        )?;
        let AdamSettings { learning_rate, beta1, beta2, epsilon, clip, .. } = self.adam;
        for (setting, value) in
            [("adam.learning_rate", learning_rate), ("adam.epsilon", epsilon), ("adam.clip", clip)]
        {
            ok(value > 0.0 && value.is_finite(), setting, value.to_string(), "a finite number above 0")?;
        }
        for (setting, value) in [
            ("adam.beta1", beta1),
            ("adam.beta2", beta2),
            ("ema.decay", self.ema.decay),
            ("caption_drop", self.caption_drop),
        ] {
            ok(
                (0.0..1.0).contains(&value),
                setting,
                value.to_string(),
                "a number of at least 0 and below 1",
            )?;
        }
        let process = match self.process {
            ProcessSettings::Vp(settings) => TrainedProcess::Vp(settings.check()?),
            ProcessSettings::Ve(VeTraining { sigma, horizon, from }) => {
                let ve = VeSettings { sigma, horizon }.check()?;
                ok(
                    from > 0.0 && from < horizon,
                    "process.from",
                    from.to_string(),
                    "a number above 0 and below horizon",
                )?;
                TrainedProcess::Ve(ve)
            }
        };
        let graph = self.arch.graph(input)?;
        ok(
            graph.input().len() == input.len() && graph.output().len() == input.len(),
            "arch",
            format!("from {} to {} elements", graph.input().len(), graph.output().len()),
            &format!("from and to {}", input.len()),
        )?;
        // Fields are in the order of declaration, and numbers have enough digits to be read back exactly.
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

    /// Smallest time in training. Predictions at smaller times were not learned.
    pub fn first_time(&self) -> f64 {
        match self.settings.process {
            ProcessSettings::Vp(_) => 0.0,
            ProcessSettings::Ve(VeTraining { from, .. }) => from,
        }
    }

    /// Shape of a row of the training set.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// The network.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The settings as one line of JSON, the same for equal settings.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of [`Self::canonical`], which identifies a run.
    pub fn key(&self) -> String {
        sha256_hex(self.canonical.as_bytes())
    }

    /// Batch size for a training set of size K.
    pub fn rows(&self, k: usize) -> usize {
        if self.settings.repeat { self.settings.batch } else { self.settings.batch.min(k) }
    }
}

/// A profile's training settings for one data set; other fields of [`TrainSettings`] are the same for all data sets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainDefaults {
    /// Height and width of images.
    #[serde(default)]
    pub size: usize,
    /// The network.
    pub arch: Arch,
    /// Number of training steps.
    pub steps: u64,
    /// Batch size.
    pub batch: usize,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: bool,
    /// Learning rate.
    pub learning_rate: f64,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Number of steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number of steps between rows of metrics.
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
            caption_drop: 0.0,
            adam: AdamSettings { learning_rate: 1e-2, ..AdamSettings::default() },
            ema: EmaSettings { decay: 0.9, warm_up: false },
            seed: 1,
            checkpoint_every: 5,
            log_every: 4,
        }
    }

    #[test]
    fn settings_survive_json_and_toml_and_have_the_papers_defaults() {
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
        // With another text for the same settings, existing runs could not be resumed.
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
