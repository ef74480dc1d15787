use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checkpoint::{Checkpoints, clear_temporary};
use super::settings::{TrainParams, TrainSettings, TrainedProcess};
use super::{DataSettings, TrainError, TrainingData, TrainingSource};
use crate::net::{Graph, Model, Weights};
use crate::process::Prediction;
use crate::project::Layout;
use crate::shape::Shape;
use crate::store::{self, StoreError, from_json, sha256_hex, write_atomic};

/// Version of the weights that training computes. It increases with every change of a value; older runs can't be resumed
/// then.
pub const VERSION: u32 = 1;

/// Version of the folder's format.
const FORMAT: u32 = 1;
const CONFIG: &str = "config.json";
const LOCK: &str = "lock";
const CHECKPOINTS: &str = "checkpoints";
const MANIFEST: &str = "manifest.json";
/// File of a run's metrics in its folder.
pub const METRICS: &str = "metrics.parquet";

/// Kind of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The moving average, with which the paper samples.
    Ema,
    /// The weights themselves.
    Raw,
}

impl Kind {
    /// File name in the folder of a finished run.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Ema => "ema.safetensors",
            Self::Raw => "weights.safetensors",
        }
    }
}

/// Content of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    format: u32,
    /// [`TrainParams::key`].
    pub(super) key: String,
    /// Version of the crate at the start of training.
    program: String,
    /// [`VERSION`].
    numbers: u32,
    pub(super) device: String,
    pub(super) data: DataRecord,
    settings: TrainSettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataRecord {
    /// Number of rows.
    k: usize,
    /// Height, width and channels of a row.
    shape: [usize; 3],
    /// [`TrainingData::sha256`].
    pub(super) sha256: String,
}

impl DataRecord {
    pub(super) fn from_data(data: &TrainingData) -> Self {
        let Shape { height, width, channels } = data.shape();
        Self { k: data.len(), shape: [height, width, channels], sha256: data.sha256() }
    }

    /// The record of an unknown training set of this shape.
    pub(super) fn unknown(shape: Shape) -> Self {
        let Shape { height, width, channels } = shape;
        Self { k: 0, shape: [height, width, channels], sha256: "unknown".into() }
    }
}

/// Content of `manifest.json`, which is written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// Version of the folder's format.
    pub format: u32,
    /// [`TrainParams::key`].
    pub key: String,
    /// Version of the crate at the end of training.
    pub program: String,
    /// Device of training.
    pub device: String,
    /// [`TrainingData::sha256`].
    pub data_sha256: String,
    /// Number of training steps.
    pub steps: u64,
    /// Mean loss of the last interval of metrics; NaN for an imported network, whose loss is unknown.
    #[serde(default = "no_loss", skip_serializing_if = "is_nan")]
    pub loss: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// SHA-256 of the other files.
    pub files: BTreeMap<String, String>,
    /// SHA-256 of the published file of half-precision weights that the run was restored from; `None` for a run that
    /// was trained in this folder or imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// SHA-256 of the checkpoint that the weights were imported from; `None` for any other run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<String>,
}

fn no_loss() -> f64 {
    f64::NAN
}

/// Serde passes a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_nan(value: &f64) -> bool {
    value.is_nan()
}

/// Folder of a training run.
///
/// `config.json` is written first, with settings, checksum of the data, device and version. `checkpoints/` has the last two
/// checkpoints, `metrics.parquet` the metrics up to the last. A finished run has `ema.safetensors` and
/// `weights.safetensors`, and `manifest.json`, which is written last. `lock` is locked during training; its existence alone
/// has no meaning.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    config: Config,
    params: TrainParams,
}

/// The lock of a run, which the system releases when the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the file is locked for as long as it is open")] File);

impl RunDir {
    /// Opens a run, finished or not.
    ///
    /// # Errors
    /// [`TrainError::Run`] for a folder that is not a run or is damaged.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let file = path.join(CONFIG);
        let bad = |reason: String| TrainError::Run { path: path.into(), reason };
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(bad(format!("has no {CONFIG}, expected a training run")));
            }
            Err(e) => return Err(StoreError::io("open", &file)(e).into()),
        };
        let config: Config = from_json(&text).map_err(|e| bad(format!("{CONFIG}: {e}")))?;
        if config.format != FORMAT {
            return Err(bad(format!("{CONFIG}: format {}, expected {FORMAT}", config.format)));
        }
        let [height, width, channels] = config.data.shape;
        let params = config.settings.clone().check(Shape::image(height, width, channels));
        let params = params.map_err(|e| bad(format!("{CONFIG}: {e}")))?;
        if params.key() != config.key {
            return Err(bad(format!("{CONFIG}: the settings do not match the key")));
        }
        Ok(Self { path: path.into(), config, params })
    }

    /// Default folder of a run with these settings, below a folder of runs.
    pub fn place(root: &Path, params: &TrainParams) -> PathBuf {
        root.join(&params.key()[..16])
    }

    /// Begins a run or opens an existing one, with a lock that excludes other processes.
    pub(super) fn begin(
        path: &Path,
        params: &TrainParams,
        data: &TrainingData,
        device: &str,
    ) -> Result<(Self, Lock), TrainError> {
        Self::begin_on(path, params, DataRecord::from_data(data), device)
    }

    /// As [`Self::begin`], on a training set that need not be known.
    pub(super) fn begin_on(
        path: &Path,
        params: &TrainParams,
        data: DataRecord,
        device: &str,
    ) -> Result<(Self, Lock), TrainError> {
        let config = Config {
            format: FORMAT,
            key: params.key(),
            program: env!("CARGO_PKG_VERSION").into(),
            numbers: VERSION,
            device: device.into(),
            data,
            settings: params.settings().clone(),
        };
        let file = path.join(CONFIG);
        if !file.is_file()
            && let Some(foreign) = foreign(path)?
        {
            return Err(TrainError::Run {
                path: path.into(),
                reason: format!("contains {foreign} and is not a training run; choose another folder"),
            });
        }
        fs::create_dir_all(path).map_err(StoreError::io("make folder", path))?;
        let lock = lock(path)?;
        clear_temporary(path)?;
        if file.is_file() {
            let there = Self::open(path)?;
            there.same(&config)?;
            return Ok((there, lock));
        }
        write_atomic(&file, |w| Ok(serde_json::to_writer_pretty(w, &config)?))?;
        Ok((Self { path: path.into(), config, params: params.clone() }, lock))
    }

    /// Checks that this run is the one that was asked for; the error names the first difference.
    fn same(&self, asked: &Config) -> Result<(), TrainError> {
        let there = &self.config;
        if there.settings.data == asked.settings.data && there.data != asked.data {
            self.unchanged()?;
        }
        let pairs = [
            ("", value(&there.settings), value(&asked.settings)),
            ("data", value(&there.data), value(&asked.data)),
            ("device", value(&there.device), value(&asked.device)),
            ("version of the numbers", value(&there.numbers), value(&asked.numbers)),
        ];
        for (name, there, asked) in pairs {
            if let Some((setting, there, asked)) = first_difference(name, &there, &asked) {
                return Err(TrainError::Other { path: self.path.clone(), setting, there, asked });
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checked settings.
    pub fn params(&self) -> &TrainParams {
        &self.params
    }

    /// The process whose score the network learned.
    pub fn process(&self) -> &TrainedProcess {
        self.params.process()
    }

    /// The quantity that the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.params.settings().prediction
    }

    /// The network.
    pub fn graph(&self) -> &Arc<Graph> {
        self.params.graph()
    }

    /// Shape of a row of the training set and of a sample.
    pub fn shape(&self) -> Shape {
        self.params.input()
    }

    /// Device of training.
    pub fn device(&self) -> &str {
        &self.config.device
    }

    /// SHA-256 of the training set, see [`TrainingData::sha256`].
    pub fn data_sha256(&self) -> &str {
        &self.config.data.sha256
    }

    /// The error for images of the user that are others than at the start; nothing for other training sets.
    fn unchanged(&self) -> Result<(), TrainError> {
        match &self.params.settings().data {
            files @ DataSettings::Files { .. } => {
                Err(TrainError::Changed { path: self.path.clone(), images: files.name() })
            }
            _ => Ok(()),
        }
    }

    /// The training set of the run, verified by its checksum.
    ///
    /// # Errors
    /// As [`Self::source`].
    pub fn data(&self, layout: &Layout) -> Result<TrainingData, TrainError> {
        Ok(self.source(layout)?.1)
    }

    /// The data set of the run, and the training set that was taken from it, verified by its checksum.
    ///
    /// # Errors
    /// As [`TrainingSource::open`]; [`TrainError::Changed`] for own images that are not those of the start, and
    /// [`TrainError::Run`] for another data set whose checksum differs.
    pub fn source(&self, layout: &Layout) -> Result<(TrainingSource, TrainingData), TrainError> {
        let source = TrainingSource::open(layout, &self.params.settings().data)?;
        if source.k() > source.count() {
            self.unchanged()?;
        }
        let data = source.training()?;
        let found = data.sha256();
        if found != self.config.data.sha256 {
            self.unchanged()?;
            let expected = &self.config.data.sha256;
            return Err(TrainError::Run {
                path: self.path.clone(),
                reason: format!(
                    "the training set in the cache has checksum {found}, expected {expected}; fetch the data set again"
                ),
            });
        }
        Ok((source, data))
    }

    /// The manifest; `None` for an unfinished run.
    ///
    /// # Errors
    /// [`TrainError::Run`] for a damaged manifest.
    pub fn manifest(&self) -> Result<Option<RunManifest>, TrainError> {
        let file = self.path.join(MANIFEST);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("open", &file)(e).into()),
        };
        let bad = |reason: String| TrainError::Run { path: self.path.clone(), reason };
        let manifest: RunManifest = from_json(&text).map_err(|e| bad(format!("{MANIFEST}: {e}")))?;
        if manifest.format != FORMAT || manifest.key != self.config.key {
            return Err(bad(format!("{MANIFEST} belongs to another run")));
        }
        Ok(Some(manifest))
    }

    /// Weights and their step: of the end of training, or of the newest intact checkpoint of an unfinished run.
    ///
    /// # Errors
    /// [`TrainError::Run`] for a run without checkpoints, and for a file that does not match the manifest; errors of reading.
    pub fn weights(&self, kind: Kind) -> Result<(Weights, u64), TrainError> {
        let bad = |reason: String| TrainError::Run { path: self.path.clone(), reason };
        if let Some(manifest) = self.manifest()? {
            let file = self.path.join(kind.file());
            self.verify(&manifest, kind.file())?;
            return Ok((Weights::read(&file, self.graph().clone())?, manifest.steps));
        }
        match self.checkpoints().newest()? {
            (Some(checkpoint), _) => {
                let state = checkpoint.state;
                let values = match kind {
                    Kind::Ema => state.ema,
                    Kind::Raw => state.weights,
                };
                Ok((Weights::new(self.graph().clone(), values)?, checkpoint.header.step))
            }
            (None, damaged) => {
                Err(damaged.into_iter().next().unwrap_or_else(|| bad("has no checkpoint yet".into())))
            }
        }
    }

    /// Weights after `step` steps: of the end of training, or of an intact checkpoint; `None` when neither is of this step.
    ///
    /// # Errors
    /// As [`Self::weights`].
    pub fn weights_after(&self, kind: Kind, step: u64) -> Result<Option<Weights>, TrainError> {
        if self.manifest()?.is_some_and(|manifest| manifest.steps == step) {
            return Ok(Some(self.weights(kind)?.0));
        }
        let state = self.checkpoints().of_step(step).map(|checkpoint| checkpoint.state);
        let values = state.map(|state| match kind {
            Kind::Ema => state.ema,
            Kind::Raw => state.weights,
        });
        Ok(values.map(|values| Weights::new(self.graph().clone(), values)).transpose()?)
    }

    /// Checks that a file matches the manifest.
    fn verify(&self, manifest: &RunManifest, name: &str) -> Result<(), TrainError> {
        let file = self.path.join(name);
        let bytes = fs::read(&file).map_err(StoreError::io("open", &file))?;
        if manifest.files.get(name).is_some_and(|sum| *sum == sha256_hex(&bytes)) {
            return Ok(());
        }
        let reason = format!("{name} does not match its checksum in {MANIFEST}");
        Err(TrainError::Run { path: self.path.clone(), reason })
    }

    /// Checks that all files match the manifest.
    pub(super) fn verify_all(&self, manifest: &RunManifest) -> Result<(), TrainError> {
        manifest.files.keys().try_for_each(|name| self.verify(manifest, name))
    }

    /// Writes the manifest of a run that was trained in this folder, with checksums of its files.
    pub(super) fn finish(&self, steps: u64, loss: f64, seconds: f64) -> Result<(), TrainError> {
        let files = self.checksums(&[Kind::Ema.file(), Kind::Raw.file(), METRICS])?;
        self.write_manifest(&RunManifest { seconds, loss, ..self.new_manifest(steps, files) })
    }

    /// Writes weights, with architecture and shape, as the file of their kind.
    pub(super) fn write_weights(&self, kind: Kind, weights: Weights) -> Result<(), TrainError> {
        let model = Model { arch: self.params.settings().arch.clone(), input: self.shape(), weights };
        Ok(model.write(&self.path.join(kind.file()))?)
    }

    /// SHA-256 of files of the folder.
    pub(super) fn checksums(&self, names: &[&str]) -> Result<BTreeMap<String, String>, TrainError> {
        let checksum = |name: &&str| {
            let file = self.path.join(name);
            let bytes = fs::read(&file).map_err(StoreError::io("open", &file))?;
            Ok(((*name).to_owned(), sha256_hex(&bytes)))
        };
        names.iter().map(checksum).collect()
    }

    /// The manifest of this run with these files, without loss and time.
    pub(super) fn new_manifest(&self, steps: u64, files: BTreeMap<String, String>) -> RunManifest {
        RunManifest {
            format: FORMAT,
            key: self.config.key.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            device: self.config.device.clone(),
            data_sha256: self.config.data.sha256.clone(),
            steps,
            loss: f64::NAN,
            seconds: 0.0,
            files,
            restored_from: None,
            imported_from: None,
        }
    }

    pub(super) fn write_manifest(&self, manifest: &RunManifest) -> Result<(), TrainError> {
        Ok(write_atomic(&self.path.join(MANIFEST), |w| Ok(serde_json::to_writer_pretty(w, manifest)?))?)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a folder has a finished run or checkpoints.
    pub fn is_begun(path: &Path) -> bool {
        [MANIFEST, CHECKPOINTS].iter().any(|name| path.join(name).exists())
    }

    /// Removes the checkpoints of a finished run, which are no longer needed and take 16 bytes per parameter each.
    ///
    /// # Errors
    /// [`TrainError::Store`]; [`TrainError::Run`] for an unfinished run.
    pub fn forget_checkpoints(&self) -> Result<(), TrainError> {
        if self.manifest()?.is_none() {
            let reason = "is not finished and needs its checkpoints".into();
            return Err(TrainError::Run { path: self.path.clone(), reason });
        }
        let folder = self.path.join(CHECKPOINTS);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &folder)(e).into()),
            _ => Ok(()),
        }
    }

    pub(super) fn checkpoints(&self) -> Checkpoints {
        let graph = self.graph();
        Checkpoints::new(self.path.join(CHECKPOINTS), self.config.key.clone(), graph.len(), graph.trained())
    }
}

/// A file in a folder that the start of a run does not write.
fn foreign(path: &Path) -> Result<Option<String>, TrainError> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(StoreError::io("list", path))?,
    };
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", path))?.file_name().to_string_lossy().into_owned();
        if name != LOCK && !name.starts_with(store::TEMPORARY) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn lock(path: &Path) -> Result<Lock, TrainError> {
    let file = path.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&file);
    let handle = open.map_err(StoreError::io("open", &file))?;
    match handle.try_lock() {
        Ok(()) => Ok(Lock(handle)),
        Err(TryLockError::WouldBlock) => Err(TrainError::Busy { path: path.into() }),
        Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &file)(e).into()),
    }
}

fn value<T: Serialize>(record: &T) -> Value {
    serde_json::to_value(record).expect("settings have named fields and finite numbers, which JSON can hold")
}

/// Name and both values of the first difference, at `name` or below it.
pub(crate) fn first_difference(name: &str, there: &Value, asked: &Value) -> Option<(String, String, String)> {
    let text = |v: Option<&Value>| v.map_or_else(|| "not set".to_owned(), ToString::to_string);
    match (there, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let new = b.keys().filter(|key| !a.contains_key(*key));
            a.keys().chain(new).find_map(|key| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => first_difference(&name, a, b),
                    (a, b) => Some((name, text(a), text(b))),
                }
            })
        }
        (a, b) if a == b => None,
        (a, b) => Some((name.to_owned(), text(Some(a)), text(Some(b)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Arch;
    use crate::train::DataSettings;
    use crate::train::settings::tests::tiny;

    fn data(settings: &TrainSettings) -> TrainingData {
        TrainingData::load(&Layout::at("nowhere"), &settings.data).unwrap()
    }

    fn begin(path: &Path, settings: TrainSettings) -> Result<(RunDir, Lock), TrainError> {
        let data = data(&settings);
        RunDir::begin(path, &settings.check(data.shape()).unwrap(), &data, "cpu")
    }

    #[test]
    fn another_configuration_is_refused_by_the_first_setting_that_differs() {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path(), tiny(9, 20)).unwrap();
        begin(dir.path(), tiny(9, 20)).unwrap();
        type Change = fn(&mut TrainSettings);
        let changes: [(&str, &str, &str, Change); 5] = [
            ("adam.learning_rate", "0.01", "0.5", |s| s.adam.learning_rate = 0.5),
            ("data.k", "9", "8", |s| s.data = DataSettings::Toy { k: 8 }),
            ("seed", "1", "2", |s| s.seed = 2),
            ("prediction", "\"epsilon\"", "\"v\"", |s| s.prediction = Prediction::V),
            ("arch.width", "8", "16", |s| {
                if let Arch::Toy(toy) = &mut s.arch {
                    toy.width = 16;
                }
            }),
        ];
        for (name, was, now, change) in changes {
            let mut settings = tiny(9, 20);
            change(&mut settings);
            match begin(dir.path(), settings) {
                Err(TrainError::Other { setting, there, asked, .. }) => {
                    assert_eq!((&*setting, &*there, &*asked), (name, was, now));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        let (settings, other) =
            (tiny(9, 20), TrainingData::new(ndarray::Array2::zeros((9, 2)), Shape::vector(2)));
        let params = settings.check(Shape::vector(2)).unwrap();
        let error = RunDir::begin(dir.path(), &params, &other.unwrap(), "cpu").unwrap_err();
        assert!(error.to_string().contains("data.sha256"), "{error}");
        let error = RunDir::begin(dir.path(), &params, &data(params.settings()), "cuda:0").unwrap_err();
        assert!(error.to_string().contains("device is \"cpu\""), "{error}");
    }

    #[test]
    fn one_process_trains_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (run, lock) = begin(dir.path(), tiny(9, 20)).unwrap();
        let error = begin(dir.path(), tiny(9, 20)).unwrap_err();
        assert!(matches!(&error, TrainError::Busy { path } if path == dir.path()), "{error}");
        // Readers need no lock.
        assert_eq!(RunDir::open(dir.path()).unwrap().params(), run.params());
        drop(lock);
        begin(dir.path(), tiny(9, 20)).unwrap();
    }

    #[test]
    fn folders_that_are_not_runs_are_refused_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), b"text").unwrap();
        let error = begin(dir.path(), tiny(9, 20)).unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(CONFIG), "{error}");

        // Files of an interrupted start are no obstacle.
        let dir = tempfile::tempdir().unwrap();
        for name in [LOCK, ".mem2gen-half"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let (run, _lock) = begin(dir.path(), tiny(9, 20)).unwrap();
        assert!(!dir.path().join(".mem2gen-half").exists());
        assert!(run.manifest().unwrap().is_none());
        assert!(run.weights(Kind::Ema).unwrap_err().to_string().contains("no checkpoint"));
    }

    #[test]
    fn a_configuration_that_was_changed_by_hand_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path(), tiny(9, 20)).unwrap();
        let file = dir.path().join(CONFIG);
        let text = fs::read_to_string(&file).unwrap();
        for (from, to) in [("\"seed\": 1", "\"seed\": 2"), ("\"format\": 1", "\"format\": 9"), ("{", "")] {
            fs::write(&file, text.replacen(from, to, 1)).unwrap();
            assert!(matches!(RunDir::open(dir.path()), Err(TrainError::Run { .. })), "{to}");
        }
    }
}
