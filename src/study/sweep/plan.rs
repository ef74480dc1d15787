//! Plans: which networks are trained on how many images, how they are sampled, and how samples are labelled.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::data::{self, Entry};
use crate::detect::ClassifySettings;
use crate::metric::Metric;
use crate::net::Arch;
use crate::process::{Prediction, Spacing, Steps, Vp, VpSettings};
use crate::project::Layout;
use crate::random::SEED;
use crate::sample::{self, Sampler};
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::{StoreError, sha256_hex};
use crate::study::sweep::{SweepError, VERSION};
use crate::train::{
    self, AdamSettings, DataSettings, EmaSettings, ProcessSettings, TrainError, TrainParams, TrainSettings,
};

/// What the exact score is called where networks have names.
pub const EXACT: &str = "exact";

/// A plan as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// Names of data sets.
    pub datasets: Vec<String>,
    /// Height and width of images, a divisor of the data sets' own: means over squares of pixels.
    pub size: usize,
    /// Sizes K of training sets; this or `grid`, here or in every network.
    #[serde(default)]
    pub sizes: Option<Vec<usize>>,
    /// Sizes K by rule.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// Whether the exact score of each training set is sampled too.
    #[serde(default)]
    pub control: bool,
    /// Seeds of training, one or a list.
    #[serde(default, alias = "seed")]
    pub seeds: Seeds,
    /// Seed of starting points and noise of samples.
    #[serde(default = "seed")]
    pub sample_seed: u64,
    /// The networks.
    pub network: Vec<NetworkSettings>,
    /// How they are trained.
    pub training: TrainingSettings,
    /// How they are sampled.
    pub sampling: SamplingSettings,
    /// How samples are labelled.
    #[serde(default)]
    pub detection: DetectionSettings,
}

fn seed() -> u64 {
    SEED
}

/// Seeds of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// One.
    One(u64),
    /// Several, each a cell of its own.
    Several(Vec<u64>),
}

impl Default for Seeds {
    fn default() -> Self {
        Self::One(SEED)
    }
}

impl Seeds {
    fn all(&self) -> &[u64] {
        match self {
            Self::One(seed) => std::slice::from_ref(seed),
            Self::Several(seeds) => seeds,
        }
    }
}

/// Sizes of training sets as the paper chose them: `first`, a ladder that doubles up to the whole data set, and as many
/// evenly spaced ones in the transition as make `total`. The paper gives the ends and the total, its values fit the
/// ladder; how many lie in between is not known. Where no number of them makes `total` beside the whole ladder, its rungs
/// within the transition are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The smallest.
    pub first: usize,
    /// The first of the ladder.
    pub ladder: usize,
    /// A and B of the paper's Table 1: the ends, inclusive, of the evenly spaced ones.
    pub between: [usize; 2],
    /// How many sizes there are in all.
    pub total: usize,
}

impl Grid {
    /// The sizes for a data set of `all` images, ascending; none where there can't be `total`.
    pub fn sizes(&self, all: usize) -> Option<Vec<usize>> {
        let Self { first, ladder, between: [a, b], total } = *self;
        if ladder == 0 || first == 0 || a >= b || b > all || first > all {
            return None;
        }
        let rungs = std::iter::successors(Some(ladder), |k| k.checked_mul(2)).take_while(|k| *k < all);
        let coarse: BTreeSet<usize> = rungs.chain([first, all]).collect();
        let outside = coarse.iter().copied().filter(|k| !(a..=b).contains(k)).collect();
        [coarse, outside].into_iter().find_map(|coarse: BTreeSet<usize>| {
            (2..=total).find_map(|points| {
                let step = (b - a) as f64 / (points - 1) as f64;
                let even = (0..points).map(|i| a + (step * i as f64).round() as usize);
                let sizes: BTreeSet<usize> = coarse.iter().copied().chain(even).collect();
                (sizes.len() == total).then(|| sizes.into_iter().collect())
            })
        })
    }
}

/// A network, and what it is trained with where that is not what `[training]` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Its name: lower-case letters, digits and hyphens. Two of one name may share a plan if their sizes differ.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// Sizes K instead of the plan's.
    #[serde(default)]
    pub sizes: Option<Vec<usize>>,
    /// Sizes K by rule instead of the plan's.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// What it predicts.
    #[serde(default)]
    pub prediction: Option<Prediction>,
    /// Steps.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Rows of a step.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: Option<bool>,
    /// Learning rate; the rest of the optimiser is the plan's.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// The moving average.
    #[serde(default)]
    pub ema: Option<EmaSettings>,
}

/// How networks are trained, as in [`TrainSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// The process.
    #[serde(default)]
    pub process: VpSettings,
    /// What the network predicts.
    #[serde(default = "epsilon")]
    pub prediction: Prediction,
    /// Steps.
    pub steps: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: bool,
    /// The optimiser.
    #[serde(default)]
    pub adam: AdamSettings,
    /// The moving average.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Steps from one checkpoint to the next.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps from one row of metrics to the next.
    #[serde(default = "log_every")]
    pub log_every: u64,
}

fn epsilon() -> Prediction {
    Prediction::Epsilon
}

fn checkpoint_every() -> u64 {
    2500
}

fn log_every() -> u64 {
    500
}

/// Which sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    /// DDPM's, as in the paper.
    Ancestral,
    /// DDIM without noise.
    Ddim,
}

/// How samples are drawn. The predicted clean image is clipped to [-1, 1] in each step, as in the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingSettings {
    /// The sampler.
    pub sampler: SamplerName,
    /// Its steps.
    pub steps: usize,
    /// How they lie among the levels.
    #[serde(default = "leading")]
    pub spacing: Spacing,
    /// |S| / K, each labelled by itself; the paper has 4, and 8 in Fig. 9.
    #[serde(default = "multiples")]
    pub multiples: Vec<usize>,
    /// As many independent sets S are drawn as hold at least so many samples; 0 draws one, as in the paper. A set of
    /// 4K samples says little where K is small.
    #[serde(default)]
    pub least: usize,
}

fn leading() -> Spacing {
    Spacing::Leading
}

fn multiples() -> Vec<usize> {
    vec![4]
}

/// How samples are labelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionSettings {
    /// The distance.
    pub metric: Metric,
    /// The first so many test images are the real data that was not trained on.
    pub held_out: usize,
    /// delta_m of Eq. 9; none finds it.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10; none finds it.
    pub delta_s: Option<f64>,
    /// Fraction below which a class has too few samples.
    pub least_fraction: f64,
    /// Times that the bootstrap draws anew.
    pub resamples: usize,
    /// Examples of a class that are kept, and neighbours of each among D and among S.
    pub examples: usize,
}

impl Default for DetectionSettings {
    fn default() -> Self {
        let ClassifySettings { least_fraction, resamples, .. } = ClassifySettings::default();
        Self {
            metric: Metric::L2,
            held_out: 0,
            delta_m: None,
            delta_s: None,
            least_fraction,
            resamples,
            examples: 4,
        }
    }
}

impl DetectionSettings {
    /// What labels are made with.
    pub fn classify(&self) -> ClassifySettings {
        ClassifySettings {
            delta_m: self.delta_m,
            delta_s: self.delta_s,
            least_fraction: self.least_fraction,
            resamples: self.resamples,
            ..ClassifySettings::default()
        }
    }
}

/// A checked plan.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    settings: PlanSettings,
    vp: Vp,
    steps: Steps,
    tasks: Vec<Task>,
}

/// One cell of a plan: a network, or the exact score, of one training set.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its place in the plan, from 0 on.
    pub index: usize,
    /// Its name, which is that of its folder.
    pub id: String,
    /// The data set.
    pub dataset: String,
    /// Height and width of images.
    pub size: usize,
    /// K.
    pub k: usize,
    /// The network's name, or [`EXACT`].
    pub network: String,
    /// How the network is trained; none for the exact score.
    pub training: Option<TrainParams>,
    /// Samples that are drawn, of all sets.
    pub samples: usize,
    key: String,
}

impl Task {
    /// Seed of training; none for the exact score.
    pub fn seed(&self) -> Option<u64> {
        self.training.as_ref().map(|params| params.settings().seed)
    }

    /// Training steps.
    pub fn train_steps(&self) -> u64 {
        self.training.as_ref().map_or(0, |params| params.settings().steps)
    }

    /// Numbers that are trained.
    pub fn parameters(&self) -> usize {
        self.training.as_ref().map_or(0, |params| params.graph().trained())
    }

    /// The training set.
    pub fn data(&self) -> DataSettings {
        DataSettings::Images { dataset: self.dataset.clone(), size: self.size, k: self.k }
    }

    /// Name of the file of its published weights, `DATASET-SIZE-NETWORK-kK-sSEED.safetensors`; `None` for the exact
    /// score.
    pub fn weights(&self) -> Option<String> {
        self.training.as_ref().map(|_| format!("{}.safetensors", self.id))
    }

    /// What a finished cell is known by: all that its numbers depend on, data apart.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What a folder is held to. Samples and labels can be made again in place; a network can't.
    pub fn identity(&self) -> Value {
        json!({
            "id": self.id,
            "data": self.data(),
            "score": if self.training.is_some() { "network" } else { EXACT },
            "training": self.training.as_ref().map(TrainParams::settings),
        })
    }
}

impl Plan {
    /// Reads a plan's file; its name is the plan's.
    ///
    /// # Errors
    /// [`SweepError`] and [`StoreError`] for a file that is none, and as [`Self::check`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(StoreError::io("open", path))?;
        let shown = path.display().to_string();
        let bad = |reason: String| SweepError::Parse { name: shown.clone(), reason };
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let settings = toml::from_str(&text).map_err(|e| bad(e.to_string().trim().replace('\n', " ")))?;
        Self::check(&name, settings)
    }

    /// The project's plan of that name, in `data/plans`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn named(layout: &Layout, name: &str) -> Result<Self, Error> {
        Self::read(&Self::place(layout, name))
    }

    /// Where the project's plan of that name lies.
    pub fn place(layout: &Layout, name: &str) -> PathBuf {
        layout.root().join("data/plans").join(format!("{name}.toml"))
    }

    /// Checks every setting once and lists the cells: for each data set each network with its sizes ascending, and the
    /// exact scores last.
    ///
    /// # Errors
    /// [`SweepError::Setting`] that names the first one out of its range, and what training, process, network and
    /// labelling refuse.
    pub fn check(name: &str, settings: PlanSettings) -> Result<Self, Error> {
        let refuse = |setting: &str, value: String, need: &str| {
            SweepError::from(SettingError::new(
                format!("plan {name}"),
                setting.to_owned(),
                value,
                need.to_owned(),
            ))
        };
        let ok = |ok: bool, setting: &str, value: String, need: &str| match ok {
            true => Ok(()),
            false => Err(refuse(setting, value, need)),
        };
        const WORD: &str = "lower-case letters, digits and hyphens";
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        ok(word(name), "name", format!("{name:?}"), WORD)?;
        ok(!settings.datasets.is_empty(), "datasets", "empty".into(), "at least one")?;
        ok(!settings.network.is_empty() || settings.control, "network", "empty".into(), "at least one")?;
        ok(!settings.seeds.all().is_empty(), "seeds", "empty".into(), "at least one")?;
        for seed in settings.seeds.all().iter().chain([&settings.sample_seed]) {
            ok(i64::try_from(*seed).is_ok(), "seeds", seed.to_string(), "at most 2^63 - 1")?;
        }
        let sampling = &settings.sampling;
        let many = |m: &usize| !(1..=1000).contains(m);
        ok(!sampling.multiples.is_empty(), "sampling.multiples", "empty".into(), "at least one")?;
        if let Some(m) = sampling.multiples.iter().find(|m| many(m)) {
            return Err(refuse("sampling.multiples", m.to_string(), "1 to 1000").into());
        }
        let distinct: HashSet<usize> = sampling.multiples.iter().copied().collect();
        ok(
            distinct.len() == sampling.multiples.len(),
            "sampling.multiples",
            format!("{:?}", sampling.multiples),
            "each once",
        )?;
        let most = 1_000_000_000;
        ok(sampling.least <= most, "sampling.least", sampling.least.to_string(), "at most 10^9")?;
        settings.detection.classify().check()?;
        ok(
            settings.detection.examples <= 64,
            "detection.examples",
            settings.detection.examples.to_string(),
            "at most 64",
        )?;
        let vp = settings.training.process.check()?;
        let steps = vp.steps(sampling.steps, sampling.spacing)?;

        let mut plan = Self { name: name.to_owned(), settings, vp, steps, tasks: vec![] };
        let mut ids = HashSet::new();
        for dataset in &plan.settings.datasets {
            let entry = data::find(dataset)?;
            plan.check_data(entry, &refuse)?;
            let mut all = BTreeSet::new();
            for network in &plan.settings.network {
                ok(word(&network.name), "network.name", format!("{:?}", network.name), WORD)?;
                ok(network.name != EXACT, "network.name", EXACT.into(), "another: the control has it")?;
                let sizes = plan.sizes(entry, network.sizes.as_ref(), network.grid, &refuse)?;
                for &k in &sizes {
                    for &seed in plan.settings.seeds.all() {
                        let task = plan.network_task(entry, network, k, seed)?;
                        let id = task.id.clone();
                        ok(ids.insert(id.clone()), "network", format!("{id} twice"), "each cell once")?;
                        plan.tasks.push(task);
                    }
                }
                all.extend(sizes);
            }
            if plan.settings.control {
                if plan.settings.network.is_empty() {
                    all.extend(plan.sizes(entry, None, None, &refuse)?);
                }
                for k in all {
                    let task = plan.task(entry, k, EXACT, None);
                    plan.tasks.push(task);
                }
            }
        }
        for (index, task) in plan.tasks.iter_mut().enumerate() {
            task.index = index;
        }
        Ok(plan)
    }

    fn check_data(
        &self,
        entry: &Entry,
        refuse: &dyn Fn(&str, String, &str) -> SweepError,
    ) -> Result<(), SweepError> {
        let size = self.settings.size;
        let shape = entry.shape;
        if size == 0 || !shape.height.is_multiple_of(size) || !shape.width.is_multiple_of(size) {
            let need = format!("a divisor of {} and {}", shape.height, shape.width);
            return Err(refuse("size", size.to_string(), &need));
        }
        let (held_out, most) = (self.settings.detection.held_out, entry.test.map_or(0, |test| test.images));
        if held_out > most {
            let need = format!("at most {most}: {} has no more test images", entry.name);
            return Err(refuse("detection.held_out", held_out.to_string(), &need));
        }
        Ok(())
    }

    /// The sizes of one network, ascending.
    fn sizes(
        &self,
        entry: &Entry,
        sizes: Option<&Vec<usize>>,
        grid: Option<Grid>,
        refuse: &dyn Fn(&str, String, &str) -> SweepError,
    ) -> Result<BTreeSet<usize>, SweepError> {
        let images = entry.train.images;
        let (sizes, grid) = match (sizes, grid) {
            (None, None) => (self.settings.sizes.as_ref(), self.settings.grid),
            own => own,
        };
        let sizes: Vec<usize> = match (sizes, grid) {
            (Some(sizes), None) => sizes.clone(),
            (None, Some(grid)) => grid.sizes(images).ok_or_else(|| {
                let need = format!("sizes within {images} that can be {} in all", grid.total);
                refuse("grid", format!("{grid:?}"), &need)
            })?,
            (Some(_), Some(_)) => return Err(refuse("sizes", "beside grid".into(), "one of both")),
            (None, None) => return Err(refuse("sizes", "not there, nor is grid".into(), "one of both")),
        };
        if let Some(k) = sizes.iter().find(|k| !(1..=images).contains(k)) {
            return Err(refuse("sizes", k.to_string(), &format!("1 to {images}")));
        }
        let all: BTreeSet<usize> = sizes.iter().copied().collect();
        if all.is_empty() || all.len() != sizes.len() {
            return Err(refuse("sizes", format!("{sizes:?}"), "at least one, and each once"));
        }
        Ok(all)
    }

    fn network_task(
        &self,
        entry: &Entry,
        network: &NetworkSettings,
        k: usize,
        seed: u64,
    ) -> Result<Task, TrainError> {
        let PlanSettings { size, training, .. } = &self.settings;
        let adam = AdamSettings {
            learning_rate: network.learning_rate.unwrap_or(training.adam.learning_rate),
            ..training.adam
        };
        let settings = TrainSettings {
            data: DataSettings::Images { dataset: entry.name.to_owned(), size: *size, k },
            arch: network.arch.clone(),
            process: ProcessSettings::Vp(training.process),
            prediction: network.prediction.unwrap_or(training.prediction),
            steps: network.steps.unwrap_or(training.steps),
            batch: network.batch.unwrap_or(training.batch),
            repeat: network.repeat.unwrap_or(training.repeat),
            adam,
            ema: network.ema.unwrap_or(training.ema),
            seed,
            checkpoint_every: training.checkpoint_every,
            log_every: training.log_every,
        };
        let params = settings.check(Shape::image(*size, *size, entry.shape.channels))?;
        Ok(self.task(entry, k, &network.name, Some(params)))
    }

    fn task(&self, entry: &Entry, k: usize, network: &str, training: Option<TrainParams>) -> Task {
        let (size, sampling) = (self.settings.size, &self.settings.sampling);
        let seed = training.as_ref().map(|params| format!("-s{}", params.settings().seed));
        let id = format!("{}-{size}-{network}-k{k}{}", entry.name, seed.unwrap_or_default());
        let rows = |multiple: &usize| sampling.least.div_ceil(multiple * k).max(1) * multiple * k;
        let mut task = Task {
            index: 0,
            id,
            dataset: entry.name.to_owned(),
            size,
            k,
            network: network.to_owned(),
            training,
            samples: sampling.multiples.iter().map(rows).max().unwrap_or(0),
            key: String::new(),
        };
        let all = json!({
            "versions": [VERSION, train::VERSION, sample::VERSION],
            "cell": task.identity(),
            "process": self.settings.training.process,
            "sampling": sampling,
            "sample_seed": self.settings.sample_seed,
            "detection": self.settings.detection,
        });
        task.key = sha256_hex(all.to_string().as_bytes());
        task
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was made of.
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// Its cells.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The process of all cells.
    pub fn process(&self) -> &Vp {
        &self.vp
    }

    /// What the sampler of all cells walks through.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// The sampler of all cells.
    pub fn sampler(&self) -> Sampler {
        match self.settings.sampling.sampler {
            SamplerName::Ancestral => Sampler::Ancestral(self.steps.clone()),
            SamplerName::Ddim => Sampler::Ddim(self.steps.clone()),
        }
    }

    /// What samples of a score depend on, apart from how many there are.
    pub(crate) fn sampling_identity(&self, source: Value) -> Value {
        let times: Vec<f64> = self.steps.levels().iter().map(|level| level.t()).collect();
        json!({
            "version": sample::VERSION,
            "source": source,
            "process": self.settings.training.process,
            "sampler": self.settings.sampling.sampler,
            "times": times,
            "clip": crate::study::sweep::CLIP,
            "seed": self.settings.sample_seed,
        })
    }

    /// Where its cells lie if nothing else is said.
    pub fn runs(&self, layout: &Layout) -> PathBuf {
        layout.root().join("out/sweep").join(&self.name)
    }

    /// What collected tables are called.
    pub fn table(&self) -> String {
        format!("transition_{}", self.name.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Plan {
        Plan::named(&Layout::at(env!("CARGO_MANIFEST_DIR")), name).unwrap()
    }

    /// A plan of small networks, and what is to be said instead of a part of it.
    fn text(from: &str, to: &str) -> Result<Plan, Error> {
        const TEXT: &str = r#"
            datasets = ["mnist"]
            size = 7
            sizes = [2, 64]
            control = true
            seeds = [1, 2]
            [[network]]
            name = "mlp8"
            arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }
            [[network]]
            name = "mlp8"
            arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }
            sizes = [100]
            steps = 7
            learning_rate = 0.5
            [training]
            steps = 10
            batch = 4
            adam = { decay = "cosine" }
            [sampling]
            sampler = "ddim"
            steps = 10
            multiples = [4, 8]
            least = 50
            [detection]
            held_out = 100
        "#;
        assert!(TEXT.contains(from), "{from}");
        Plan::check("p", toml::from_str(&TEXT.replacen(from, to, 1)).unwrap())
    }

    #[test]
    fn cells_are_every_network_with_every_size_and_seed_and_the_exact_scores() {
        let plan = text("", "").unwrap();
        let ids: Vec<&str> = plan.tasks().iter().map(|t| t.id.as_str()).collect();
        let expected = [
            "mnist-7-mlp8-k2-s1",
            "mnist-7-mlp8-k2-s2",
            "mnist-7-mlp8-k64-s1",
            "mnist-7-mlp8-k64-s2",
            "mnist-7-mlp8-k100-s1",
            "mnist-7-mlp8-k100-s2",
            "mnist-7-exact-k2",
            "mnist-7-exact-k64",
            "mnist-7-exact-k100",
        ];
        assert_eq!(ids, expected);
        // Sets of 8 and of 16 that make 50, and one of 800.
        let samples: Vec<usize> = plan.tasks().iter().map(|t| t.samples).collect();
        assert_eq!((samples[0], samples[2], samples[4]), (64, 512, 800));
        let settings = |i: usize| plan.tasks()[i].training.as_ref().unwrap().settings();
        assert_eq!((settings(0).steps, settings(0).adam.learning_rate, settings(0).seed), (10, 2e-4, 1));
        assert_eq!((settings(5).steps, settings(5).adam.learning_rate, settings(5).seed), (7, 0.5, 2));
        assert_eq!(settings(5).adam.decay, train::Decay::Cosine);
        assert_eq!((plan.tasks()[8].seed(), plan.tasks()[8].parameters()), (None, 0));
        // Other cells of a plan, and how it is labelled, are no part of what samples are.
        let more = text("sizes = [2, 64]", "sizes = [2, 9, 64]").unwrap();
        let key = |plan: &Plan, id: &str| plan.tasks().iter().find(|t| t.id == id).unwrap().key().to_owned();
        assert_eq!(key(&plan, expected[2]), key(&more, expected[2]));
        let other = text("held_out = 100", "held_out = 99").unwrap();
        assert_ne!(key(&plan, expected[2]), key(&other, expected[2]));
        assert_eq!(plan.tasks()[2].identity(), other.tasks()[2].identity());
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        for (from, to, words) in [
            ("\"mnist\"", "\"emnist\"", "emnist"),
            ("size = 7", "size = 5", "size is 5"),
            ("[2, 64]", "[2, 2]", "each once"),
            ("[2, 64]", "[0]", "sizes is 0"),
            ("[2, 64]", "[60001]", "60001"),
            ("sizes = [2, 64]", "", "nor is grid"),
            ("[100]", "[64]", "mnist-7-mlp8-k64-s1 twice"),
            ("\"mlp8\"", "\"exact\"", "network.name"),
            ("\"mlp8\"", "\"a b\"", "network.name"),
            ("[1, 2]", "[]", "seeds"),
            ("[4, 8]", "[]", "multiples"),
            ("[4, 8]", "[4, 4]", "multiples"),
            ("[4, 8]", "[0]", "multiples"),
            ("held_out = 100", "held_out = 10001", "10000"),
            ("held_out = 100", "delta_m = -1.0", "delta_m"),
            ("steps = 10\n            multiples", "steps = 1001\n            multiples", "1001"),
            ("steps = 7", "steps = 0", "steps"),
            ("width = 8", "width = 0", "width"),
        ] {
            let error = text(from, to).unwrap_err().to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
    }

    #[test]
    fn a_grid_has_ladder_ends_and_total() {
        let grid = Grid { first: 2, ladder: 500, between: [4000, 32000], total: 38 };
        let sizes = grid.sizes(60000).unwrap();
        assert_eq!(sizes.len(), 38);
        for k in [2, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000] {
            assert!(sizes.contains(&k), "{k}");
        }
        let inner: Vec<usize> = sizes.iter().copied().filter(|k| (4000..=32000).contains(k)).collect();
        assert!(inner.windows(2).all(|w| w[1] - w[0] <= 934), "{inner:?}");
        assert!(grid.sizes(31999).is_none());
        assert!(Grid { total: 5, ..grid }.sizes(60000).is_none());
    }

    #[test]
    fn the_papers_plans_have_its_sizes_networks_and_settings() {
        // Names of networks, A and B, and parameters.
        type Net = (&'static str, usize, usize, usize);
        let plans: [(&str, usize, &[Net]); 4] = [
            ("paper-mnist", 60_000, &[("unet128", 4000, 32000, 24_515_585)]),
            ("paper-fashion-mnist", 60_000, &[("unet128", 4000, 16000, 24_515_585)]),
            (
                "paper-cifar10",
                50_000,
                &[
                    ("unet64", 500, 8000, 8_952_067),
                    ("unet96", 2000, 16000, 20_118_915),
                    ("unet128", 2000, 16000, 35_746_307),
                ],
            ),
            (
                "paper-lsun-church",
                126_227,
                &[
                    ("unet64", 1000, 8000, 27_460_355),
                    ("unet96", 2000, 16000, 61_745_283),
                    ("unet128", 4000, 16000, 109_733_379),
                ],
            ),
        ];
        for (name, images, networks) in plans {
            let plan = plan(name);
            assert_eq!(plan.tasks().len(), 38 * networks.len(), "{name}");
            for (network, a, b, parameters) in networks {
                let of: Vec<&Task> = plan.tasks().iter().filter(|t| t.network == *network).collect();
                let sizes: Vec<usize> = of.iter().map(|t| t.k).collect();
                assert_eq!((sizes.len(), sizes[0], sizes[37]), (38, 2, images), "{name}");
                assert!(sizes.contains(a) && sizes.contains(b), "{name} {network}");
                assert!(sizes.iter().filter(|k| **k >= *a && **k <= *b).count() >= 30, "{name} {network}");
                for task in of {
                    assert_eq!(task.parameters(), *parameters);
                    let settings = task.training.as_ref().unwrap().settings();
                    assert_eq!(settings.adam, AdamSettings::default());
                    assert_eq!(
                        (settings.ema, settings.prediction),
                        (EmaSettings::default(), Prediction::Epsilon)
                    );
                    let lsun = name.contains("lsun");
                    let (steps, batch) = match name {
                        "paper-cifar10" => (500_000, 128),
                        _ if lsun => (800_000, 64),
                        _ => (400_000, 128),
                    };
                    assert_eq!((settings.steps, settings.batch, settings.seed), (steps, batch, 3407));
                    let most = plan.settings().sampling.multiples.iter().max().unwrap();
                    assert_eq!(task.samples, most * task.k);
                }
            }
            assert!(matches!(plan.sampler(), Sampler::Ancestral(steps) if steps.levels().len() == 1001));
        }
    }

    #[test]
    fn every_plan_passes_its_checks() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/plans");
        for entry in fs::read_dir(folder).unwrap() {
            Plan::read(&entry.unwrap().path()).unwrap();
        }
    }
}
