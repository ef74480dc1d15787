//! Plans: the networks, training set sizes, sampling and labelling of a sweep, checked and listed as cells.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Error;
use crate::data::{self, Entry};
use crate::metric::Metric;
use crate::process::{Steps, Vp};
use crate::project::Layout;
use crate::sample::{self, Sampler};
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::{StoreError, from_toml, sha256_hex};
use crate::study::sweep::{Grid, NetworkSettings, PlanSettings, SamplerName, SweepError, VERSION};
use crate::train::{
    self, AdamSettings, DataSettings, ProcessSettings, TrainError, TrainParams, TrainSettings,
};

/// Name of the exact score in place of a network's name.
pub const EXACT: &str = "exact";

/// A checked plan.
///
/// ```
/// use mem2gen::study::sweep::Plan;
///
/// let text = r#"
///     datasets = ["mnist"]
///     size = 7
///     sizes = [2, 64]
///     control = true
///     network = [{ name = "mlp8", arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 } }]
///     training = { steps = 100, batch = 16 }
///     sampling = { sampler = "ddim", steps = 10 }
/// "#;
/// let plan = Plan::check("tiny", toml::from_str(text).unwrap())?;
/// let cells: Vec<&str> = plan.tasks().iter().map(|task| task.id.as_str()).collect();
/// assert_eq!(cells[..2], ["mnist-7-mlp8-k2-s3407", "mnist-7-mlp8-k64-s3407"]);
/// assert_eq!(cells[2..], ["mnist-7-exact-k2", "mnist-7-exact-k64"]);
/// # Ok::<(), mem2gen::Error>(())
/// ```
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
    /// Index in the plan, from 0.
    pub index: usize,
    /// Name of the cell and of its folder, such as `mnist-7-mlp128-k128-s3407`.
    pub id: String,
    /// Name of the data set.
    pub dataset: String,
    /// Height and width of images.
    pub size: usize,
    /// Size of the training set, K.
    pub k: usize,
    /// Name of the network, or [`EXACT`].
    pub network: String,
    /// Training of the network; `None` for the exact score.
    pub training: Option<TrainParams>,
    /// Number of samples of all sets S.
    pub samples: usize,
    key: String,
}

impl Task {
    /// Seed of training; `None` for the exact score.
    pub fn seed(&self) -> Option<u64> {
        self.training.as_ref().map(|params| params.settings().seed)
    }

    /// Number of training steps; 0 for the exact score.
    pub fn train_steps(&self) -> u64 {
        self.training.as_ref().map_or(0, |params| params.settings().steps)
    }

    /// Number of trained parameters; 0 for the exact score.
    pub fn parameters(&self) -> usize {
        self.training.as_ref().map_or(0, |params| params.graph().trained())
    }

    /// Settings of the training set.
    pub fn data(&self) -> DataSettings {
        DataSettings::Images { dataset: self.dataset.clone(), size: self.size, k: self.k }
    }

    /// Name of the file of its published weights, `DATASET-SIZE-NETWORK-kK-sSEED.safetensors`; `None` for the exact
    /// score.
    pub fn weights(&self) -> Option<String> {
        self.training.as_ref().map(|_| format!("{}.safetensors", self.id))
    }

    /// Hash of everything that the results of the cell depend on, except the data.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The settings that a folder must have been begun with. Samples and labels can be replaced in a folder, a network
    /// can't.
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
    /// Reads the TOML file of a plan. The file's name is the name of the plan.
    ///
    /// # Errors
    /// [`StoreError`] for a file that can't be read, [`SweepError::Parse`] for a file that is not a plan; as
    /// [`Self::check`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(StoreError::io("open", path))?;
        let shown = path.display().to_string();
        let bad = |reason: String| SweepError::Parse { name: shown.clone(), reason };
        let stem = path.file_stem().expect("a file that was read has a name");
        let name = stem.to_string_lossy().into_owned();
        let settings = from_toml(&text).map_err(bad)?;
        Self::check(&name, settings)
    }

    /// The project's plan `name`, in the folder `data/plans`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn named(layout: &Layout, name: &str) -> Result<Self, Error> {
        Self::read(&Self::place(layout, name))
    }

    /// The file of the project's plan `name`.
    pub fn place(layout: &Layout, name: &str) -> PathBuf {
        layout.root().join("data/plans").join(format!("{name}.toml"))
    }

    /// Checks all settings and lists the cells: for each data set the networks with ascending sizes, then the exact
    /// scores.
    ///
    /// # Errors
    /// [`SweepError::Setting`] with the first setting out of its range; those of training, process, network and labels.
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
        let metric = settings.detection.metric;
        ok(
            metric != Metric::Cosine,
            "detection.metric",
            metric.to_string(),
            "l2, lpips-alex or lpips-vgg: cosine compares features, not images",
        )?;
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
                ok(network.name != EXACT, "network.name", EXACT.into(), "another name: it is the control's")?;
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
            let need = format!("at most {most}, the number of test images of {}", entry.name);
            return Err(refuse("detection.held_out", held_out.to_string(), &need));
        }
        Ok(())
    }

    /// The sizes K of one network, ascending.
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
                let need = format!("a grid of {} sizes within {images} images", grid.total);
                refuse("grid", format!("{grid:?}"), &need)
            })?,
            (Some(_), Some(_)) => {
                return Err(refuse("sizes", "set together with grid".into(), "one of the two"));
            }
            (None, None) => return Err(refuse("sizes", "not set, nor is grid".into(), "one of the two")),
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
            caption_drop: 0.0,
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
            samples: sampling.multiples.iter().map(rows).max().expect("a checked plan has a multiple"),
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

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings that were checked.
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// The cells.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The process of all cells.
    pub fn process(&self) -> &Vp {
        &self.vp
    }

    /// The steps of the sampler of all cells.
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

    /// Everything that the samples of a score depend on, except their number.
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

    /// The default folder of its cells.
    pub fn runs(&self, layout: &Layout) -> PathBuf {
        layout.root().join("out/sweep").join(&self.name)
    }

    /// Name of the collected tables.
    pub fn table(&self) -> String {
        format!("transition_{}", self.name.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Prediction;
    use crate::train::EmaSettings;

    fn plan(name: &str) -> Plan {
        Plan::named(&Layout::at(env!("CARGO_MANIFEST_DIR")), name).unwrap()
    }

    /// A plan of small networks with `from` replaced by `to`.
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
        // Samples depend neither on the other cells of a plan nor on its labels.
        let more = text("sizes = [2, 64]", "sizes = [2, 9, 64]").unwrap();
        let key = |plan: &Plan, id: &str| plan.tasks().iter().find(|t| t.id == id).unwrap().key().to_owned();
        assert_eq!(key(&plan, expected[2]), key(&more, expected[2]));
        let other = text("held_out = 100", "held_out = 99").unwrap();
        assert_ne!(key(&plan, expected[2]), key(&other, expected[2]));
        assert_eq!(plan.tasks()[2].identity(), other.tasks()[2].identity());
    }

    #[test]
    fn invalid_settings_are_refused_by_name() {
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
        // Name of the network, A, B and number of parameters.
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
                let tasks: Vec<&Task> = plan.tasks().iter().filter(|t| t.network == *network).collect();
                let sizes: Vec<usize> = tasks.iter().map(|t| t.k).collect();
                assert_eq!((sizes.len(), sizes[0], sizes[37]), (38, 2, images), "{name}");
                assert!(sizes.contains(a) && sizes.contains(b), "{name} {network}");
                assert!(sizes.iter().filter(|k| **k >= *a && **k <= *b).count() >= 30, "{name} {network}");
                for task in tasks {
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
