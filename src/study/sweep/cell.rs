//! One cell in its folder: trained, sampled and labelled. Finished steps are not done again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ndarray::ArcArray2;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::detect::{self, Origin, Sets, classify};
use crate::device::{Device, DeviceChoice};
use crate::distance::{Backbone, Lpips};
use crate::frame::{read_parquet, write_parquet};
use crate::net::Weights;
use crate::ops::{Memories, OpError, resolve};
use crate::process::Prediction;
use crate::progress::ProgressSink;
use crate::sample::{self, Draw};
use crate::score::{Empirical, Network, ScoreError};
use crate::shape::Shape;
use crate::store::{
    Matrix, StoreError, cut_reason, from_json, read_matrix, rows_sha256, sha256_hex, write_atomic,
};
use crate::study::sweep::data::Bench;
use crate::study::sweep::examples::Picker;
use crate::study::sweep::frame::{examples_frame, examples_rows, labels_frame, labels_rows};
use crate::study::sweep::plan::{Plan, Task};
use crate::study::sweep::record::{CellRecord, LabelledSet, NetworkRecord};
use crate::study::sweep::{CLIP, DistanceRow, Options, SweepError, SweepRow, Transition, VERSION, Watch};
use crate::train::{self, Kind, RunDir, TrainingData, first_difference};

const RECORD: &str = "cell.json";
const TASK: &str = "task.json";
const LOCK: &str = "lock";
const TRAIN: &str = "train";
const SAMPLES: &str = "samples.npy";
const SIDECAR: &str = "samples.json";
const EXAMPLES: &str = "examples.parquet";

/// Batch sizes of a network and of an exact score.
const NETWORK_ROWS: usize = 128;
const EXACT_ROWS: usize = 1024;

/// The folder of a cell.
#[derive(Debug, Clone)]
pub struct SweepCell {
    path: PathBuf,
}

/// The lock of a process that works on a cell. The system releases it when the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the file is locked for as long as it is open")] File);

/// The record of the samples.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawn {
    settings: Value,
    samples: usize,
    sha256: String,
    seconds: f64,
}

impl SweepCell {
    /// The folder of a task's cell within a folder of cells.
    pub fn from_task(runs: &Path, task: &Task) -> Self {
        Self { path: runs.join(&task.id) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the training run.
    pub fn train(&self) -> PathBuf {
        self.path.join(TRAIN)
    }

    /// The file of the samples.
    pub fn samples(&self) -> PathBuf {
        self.path.join(SAMPLES)
    }

    /// The file of the labels with |S| = `multiple` K.
    pub fn labels(&self, multiple: usize) -> PathBuf {
        self.path.join(format!("labels-x{multiple}.parquet"))
    }

    /// The record of the cell: `None` when it is not finished, or was finished with other settings.
    ///
    /// # Errors
    /// [`SweepError::Cell`] for a damaged record, [`StoreError`] for a record that can't be read.
    pub fn record(&self, task: &Task) -> Result<Option<CellRecord>, Error> {
        let record = self.read_json(RECORD)?.filter(|record| record["key"] == task.key());
        record.map(|record| self.parsed(RECORD, record)).transpose()
    }

    /// The first part of a finished cell that is not what its record says: the record itself, a file, or the training run.
    /// `None` for a sound cell and for one that is not finished.
    ///
    /// # Errors
    /// [`StoreError`] for a file that can't be read.
    pub(crate) fn damage(&self, task: &Task) -> Result<Option<String>, Error> {
        let record = match self.record(task) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(Error::Sweep(SweepError::Cell { .. })) => return Ok(Some(RECORD.to_owned())),
            Err(e) => return Err(e),
        };
        let labels = record.found.iter().map(|found| (self.labels(found.multiple), &found.labels_sha256));
        for (path, sha256) in labels.chain([(self.path.join(EXAMPLES), &record.examples_sha256)]) {
            if !path.is_file() || file_sha256(&path)? != *sha256 {
                return Ok(Some(file_name(&path)));
            }
        }
        let samples = match read_matrix(&self.path.join(SAMPLES)) {
            Ok(Matrix::F32(rows)) => rows_sha256(rows.view()),
            Ok(Matrix::F64(_)) | Err(StoreError::Array { .. }) => String::new(),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e.into()),
        };
        if samples != record.samples_sha256 {
            return Ok(Some(SAMPLES.to_owned()));
        }
        let drawn = self.read_json(SIDECAR).ok().flatten();
        if drawn.is_none_or(|drawn| drawn["sha256"] != record.samples_sha256) {
            return Ok(Some(SIDECAR.to_owned()));
        }
        if !matches!(self.read_json(TASK), Ok(Some(begun)) if begun == task.identity()) {
            return Ok(Some(TASK.to_owned()));
        }
        let Some(network) = &record.network else { return Ok(None) };
        let sound = RunDir::open(&self.train()).and_then(|run| {
            let manifest = run.manifest()?;
            let (weights, _) = run.weights(Kind::Ema)?;
            let numbers = [network.loss, network.seconds].map(f64::to_bits);
            Ok(weights_sha256(&weights) == network.weights_sha256
                && manifest.is_some_and(|m| {
                    m.key == network.key && [m.loss, m.seconds].map(f64::to_bits) == numbers
                }))
        });
        Ok((!sound.unwrap_or(false)).then(|| TRAIN.to_owned()))
    }

    /// Sets the damaged part of a finished cell aside, as `NAME.damaged`, so that it is made again; gives its name. The
    /// caller holds the lock.
    ///
    /// # Errors
    /// As [`Self::damage`], and [`StoreError`] for a part that can't be renamed.
    pub(crate) fn heal(&self, task: &Task) -> Result<Option<String>, Error> {
        let Some(name) = self.damage(task)? else { return Ok(None) };
        let (from, to) = (self.path.join(&name), self.path.join(format!("{name}.damaged")));
        if to.is_dir() {
            fs::remove_dir_all(&to).map_err(StoreError::io("remove", &to))?;
        }
        match fs::rename(&from, &to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("rename", &from)(e).into());
            }
            _ => {}
        }
        // Without its record the cell counts as unfinished. The record's key has shown whose cell it is.
        remove(&self.path.join(RECORD))?;
        if name == TASK {
            write_json(&from, &task.identity())?;
        }
        Ok(Some(name))
    }

    /// The JSON file `name` of the folder; `None` when it does not exist.
    fn read_json(&self, name: &str) -> Result<Option<Value>, Error> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(text) => Ok(Some(from_json(&text).map_err(|e| self.damaged(name, &e))?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("open", &path)(e).into()),
        }
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str, value: Value) -> Result<T, Error> {
        Ok(serde_json::from_value(value).map_err(|e| self.damaged(name, &cut_reason(&e.to_string())))?)
    }

    fn damaged(&self, name: &str, error: &str) -> SweepError {
        let reason = format!("{name} is damaged ({error}); remove it and run the sweep again");
        SweepError::Cell { path: self.path.clone(), reason }
    }

    /// Whether another process works on the cell. A process that wants to begin at the same moment has to try again.
    pub fn is_busy(&self) -> bool {
        let file = File::open(self.path.join(LOCK));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Locks the cell; `None` when another process has it.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, StoreError> {
        fs::create_dir_all(&self.path).map_err(StoreError::io("make folder", &self.path))?;
        let path = self.path.join(LOCK);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(StoreError::io("open", &path))?;
        // `is_busy` of another process holds the lock for a moment.
        for pause in [5, 20, 80, 0] {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(pause)),
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
            }
        }
        Ok(None)
    }

    /// Does all unfinished steps of the cell. The caller holds its lock.
    pub(crate) fn work(
        &self,
        plan: &Plan,
        task: &Task,
        bench: &mut Bench,
        options: &Options<'_>,
        watch: &dyn Watch,
    ) -> Result<CellRecord, Error> {
        self.claim(task)?;
        if let Some(record) = self.record(task)? {
            return Ok(record);
        }
        // Without its record the cell counts as unfinished while files are replaced.
        remove(&self.path.join(RECORD))?;
        let data = bench.training(task)?;
        let device = train::device(options.device);
        let run = self.trained(task, &data, device, options, watch)?;
        let drawn = self.drawn(plan, task, &data, run.as_ref(), options, watch)?;
        self.labelled(plan, task, &data, run, drawn, bench, options, watch)
    }

    /// Checks that the folder belongs to this task, or makes it so when it is empty.
    fn claim(&self, task: &Task) -> Result<(), Error> {
        let asked = task.identity();
        if let Some(begun) = self.read_json(TASK)? {
            return match first_difference("", &begun, &asked) {
                None => Ok(()),
                Some((setting, there, asked)) => {
                    Err(SweepError::Other { path: self.path.clone(), setting, there, asked }.into())
                }
            };
        }
        for entry in fs::read_dir(&self.path).map_err(StoreError::io("list", &self.path))? {
            let name = entry.map_err(StoreError::io("list", &self.path))?.file_name();
            let name = name.to_string_lossy();
            if name != LOCK && !name.starts_with(crate::store::TEMPORARY) {
                let reason = format!("holds {name} and is not a cell of a sweep; choose another folder");
                return Err(SweepError::Cell { path: self.path.clone(), reason }.into());
            }
        }
        Ok(write_json(&self.path.join(TASK), &asked)?)
    }

    /// The finished training run; `None` for the exact score.
    fn trained(
        &self,
        task: &Task,
        data: &TrainingData,
        device: Device,
        options: &Options<'_>,
        watch: &dyn Watch,
    ) -> Result<Option<RunDir>, Error> {
        let Some(params) = &task.training else { return Ok(None) };
        let path = self.train();
        if let Some(folder) = options.networks
            && let Some(name) = task.weights()
            && !RunDir::is_begun(&path)
        {
            let file = folder.join(name);
            if file.is_file() {
                watch.step(task, "restoring", 0);
                return Ok(Some(RunDir::restore(&path, params, data, device, &file)?));
            }
        }
        watch.step(task, "training", params.settings().steps);
        let run = train::train(&path, params, data, device, watch.sink())?.run;
        run.forget_checkpoints()?;
        Ok(Some(run))
    }

    /// The samples and their record. Samples of other settings or of another number, and samples that don't match their
    /// record, are drawn again.
    fn drawn(
        &self,
        plan: &Plan,
        task: &Task,
        data: &TrainingData,
        run: Option<&RunDir>,
        options: &Options<'_>,
        watch: &dyn Watch,
    ) -> Result<(ArcArray2<f32>, Drawn), Error> {
        let weights = run.map(|run| Ok::<_, Error>(run.weights(Kind::Ema)?.0)).transpose()?;
        let device = network_device(options.device)?;
        let source = match (&weights, run) {
            (Some(weights), Some(run)) => json!({
                "weights_sha256": weights_sha256(weights),
                "arch": run.params().settings().arch,
                "prediction": run.prediction(),
                "device": device,
            }),
            _ => json!({ "training_set_sha256": data.sha256() }),
        };
        let settings = plan.sampling_identity(source);
        let (file, sidecar) = (self.samples(), self.path.join(SIDECAR));
        let dim = data.shape().len();
        let drawn = self.read_json(SIDECAR)?.filter(|drawn| drawn["settings"] == settings);
        let drawn: Option<Drawn> = drawn.map(|drawn| self.parsed(SIDECAR, drawn)).transpose()?;
        if let Some(drawn) = drawn
            && drawn.samples == task.samples
            && let Ok(Matrix::F32(rows)) = read_matrix(&file)
            && rows.dim() == (task.samples, dim)
            && rows_sha256(rows.view()) == drawn.sha256
        {
            return Ok((rows.into_shared(), drawn));
        }
        let batch = if weights.is_some() { NETWORK_ROWS } else { EXACT_ROWS };
        let clock = Instant::now();
        let draw = |score: &dyn crate::score::Score| {
            let draw = Draw {
                score,
                process: plan.process(),
                sampler: plan.sampler(),
                clip: Some(CLIP),
                seed: plan.settings().sample_seed,
            };
            let total = draw.total(task.samples, batch);
            watch.step(task, "sampling", total);
            draw.write(&file, task.samples, batch, &settings, watch.sink())
        };
        let found = match (weights, run) {
            (Some(weights), Some(run)) => draw(&Network::on(weights, run.prediction(), batch, device)?)?,
            _ => {
                let rows = data.rows().mapv(f64::from);
                draw(&Empirical::new(Memories::on(rows, options.device).map_err(ScoreError::from)?))?
            }
        };
        let seconds =
            clock.elapsed().as_secs_f64() * task.samples as f64 / (task.samples - found.kept).max(1) as f64;
        let rows = match read_matrix(&file)? {
            Matrix::F32(rows) => rows,
            Matrix::F64(rows) => rows.mapv(|v| v as f32),
        };
        let drawn = Drawn { settings, samples: task.samples, sha256: rows_sha256(rows.view()), seconds };
        write_json(&sidecar, &drawn)?;
        Ok((rows.into_shared(), drawn))
    }

    /// Labels, examples and the record.
    #[expect(clippy::too_many_arguments, reason = "private, and called in one place")]
    fn labelled(
        &self,
        plan: &Plan,
        task: &Task,
        data: &TrainingData,
        run: Option<RunDir>,
        (samples, drawn): (ArcArray2<f32>, Drawn),
        bench: &mut Bench,
        options: &Options<'_>,
        watch: &dyn Watch,
    ) -> Result<CellRecord, Error> {
        let clock = Instant::now();
        let settings = &plan.settings().detection;
        let held_out = bench.held_out(&task.dataset, task.size, settings.held_out)?;
        let held_out = held_out.as_ref().map(|data| data.rows());
        let lpips =
            Backbone::for_metric(settings.metric).map(|b| Lpips::open(b, bench.layout())).transpose()?;
        let count = samples.nrows() + data.len() + held_out.map_or(0, |rows| rows.nrows());
        if lpips.is_some() {
            watch.step(task, "features", count as u64);
        }
        let net = data.shape();
        let shape = Shape { height: net.height, width: net.width, channels: net.channels };
        let sink = watch.sink();
        let [train, synthetic] = [
            features(lpips.as_ref(), shape, data.rows(), sink)?,
            features(lpips.as_ref(), shape, &samples, sink)?,
        ];
        let far = held_out.map(|rows| features(lpips.as_ref(), shape, rows, sink)).transpose()?;
        let sets = Sets { train, synthetic, held_out: far, squared: lpips.is_some() };
        let multiples = &plan.settings().sampling.multiples;
        let each: Vec<usize> = multiples.iter().map(|m| m * task.k).collect();
        watch.step(task, "neighbours", detect::queries(&sets) + ((each.len() - 1) * samples.nrows()) as u64);
        let all = detect::neighbours_in_sets(&sets, &each, options.device, watch.sink())?;
        let mut found = vec![];
        let mut pictures = vec![];
        let smallest = multiples.iter().min();
        for (&multiple, neighbours) in multiples.iter().zip(&all) {
            let classification = classify(neighbours, &settings.classify())?;
            let Some(labels) = &classification.labels else {
                let because = [&classification.delta_m, &classification.delta_s]
                    .into_iter()
                    .filter(|threshold| threshold.origin == Origin::Unknown)
                    .map(|threshold| threshold.because.clone())
                    .collect::<Vec<_>>()
                    .join("; ");
                return Err(SweepError::NoThreshold { path: self.path.clone(), because }.into());
            };
            let path = self.labels(multiple);
            write_parquet(&path, &labels_frame(neighbours, labels)?)?;
            if Some(&multiple) == smallest {
                let picker = Picker {
                    task,
                    multiple,
                    most: settings.examples,
                    shape,
                    data,
                    samples: &samples,
                    sets: &sets,
                    device: options.device,
                };
                pictures = picker.pick(neighbours, labels)?;
            }
            let median_distance = |near: &[Option<detect::Neighbour>]| {
                median(near.iter().flatten().map(|n| n.distance).collect())
            };
            found.push(LabelledSet {
                multiple,
                sets: neighbours.train.len() / neighbours.each,
                medians: [median_distance(&neighbours.train), median_distance(&neighbours.synthetic)],
                classification,
                labels_sha256: file_sha256(&path)?,
            });
        }
        let path = self.path.join(EXAMPLES);
        write_parquet(&path, &examples_frame(&pictures)?)?;
        self.clear_labels(multiples)?;
        let device = all.first().expect("a checked plan has a multiple").device;
        let network = run
            .map(|run| -> Result<_, Error> {
                let manifest = run.manifest()?.ok_or_else(|| SweepError::Cell {
                    path: self.path.clone(),
                    reason: "the manifest of its training run was removed during the sweep".into(),
                })?;
                let record = NetworkRecord {
                    key: manifest.key,
                    weights_sha256: weights_sha256(&run.weights(Kind::Ema)?.0),
                    restored: manifest.restored_from.is_some(),
                    loss: manifest.loss,
                    seconds: manifest.seconds,
                };
                Ok((record, manifest.device))
            })
            .transpose()?;
        let (network, trained_on) = network.unzip();
        let record = CellRecord {
            key: task.key().to_owned(),
            id: task.id.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            versions: [VERSION, train::VERSION, sample::VERSION],
            device: trained_on.unwrap_or_else(|| device.to_string()),
            data_sha256: data.sha256(),
            network,
            sample_seconds: drawn.seconds,
            samples_sha256: drawn.sha256,
            label_seconds: clock.elapsed().as_secs_f64(),
            found,
            examples_sha256: file_sha256(&path)?,
        };
        write_json(&self.path.join(RECORD), &record)?;
        Ok(record)
    }

    /// Removes the labels of multiples that are no longer in the plan.
    fn clear_labels(&self, multiples: &[usize]) -> Result<(), StoreError> {
        let kept: Vec<PathBuf> = multiples.iter().map(|m| self.labels(*m)).collect();
        for entry in fs::read_dir(&self.path).map_err(StoreError::io("list", &self.path))? {
            let path = entry.map_err(StoreError::io("list", &self.path))?.path();
            let name = file_name(&path);
            let old = name.starts_with("labels-x") && !kept.contains(&path);
            if old || name.starts_with(crate::store::TEMPORARY) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The rows of a finished cell for all three tables.
    ///
    /// # Errors
    /// [`SweepError::Cell`] for files that differ from the record.
    pub(crate) fn rows(&self, plan: &Plan, task: &Task, record: &CellRecord) -> Result<Transition, Error> {
        let bad = |reason: String| SweepError::Cell { path: self.path.clone(), reason };
        let check = |path: &Path, sha256: &str| -> Result<(), Error> {
            if file_sha256(path)? == sha256 {
                return Ok(());
            }
            let name = file_name(path);
            Err(bad(format!("{name} was changed after the cell was finished; run the sweep again")).into())
        };
        let (mut cells, mut samples) = (vec![], vec![]);
        let settings = task.training.as_ref().map(|params| params.settings());
        let arch = settings
            .map(|s| serde_json::to_string(&s.arch).expect("an architecture without maps is always JSON"));
        let [sweep, training, sampling] = record.versions.map(|v| v as usize);
        for found in &record.found {
            let base = SweepRow {
                dataset: task.dataset.clone(),
                size: task.size,
                network: task.network.clone(),
                score: if settings.is_some() { "network" } else { crate::study::sweep::EXACT }.into(),
                arch: arch.clone(),
                parameters: task.parameters(),
                prediction: settings.map(|s| prediction_name(s.prediction).to_owned()),
                steps: task.train_steps(),
                k: task.k,
                seed: task.seed(),
                sample_seed: plan.settings().sample_seed,
                metric: plan.settings().detection.metric.name().into(),
                multiple: found.multiple,
                sets: found.sets,
                d_train: found.medians[0],
                d_synthetic: found.medians[1],
                loss: record.network.as_ref().map(|n| n.loss),
                train_seconds: record.network.as_ref().map_or(0.0, |n| n.seconds),
                sample_seconds: record.sample_seconds,
                label_seconds: record.label_seconds,
                restored: record.network.as_ref().is_some_and(|n| n.restored),
                train_key: record.network.as_ref().map(|n| n.key.clone()),
                data_sha256: record.data_sha256.clone(),
                weights_sha256: record.network.as_ref().map(|n| n.weights_sha256.clone()),
                samples_sha256: record.samples_sha256.clone(),
                device: record.device.clone(),
                program: record.program.clone(),
                versions: [sweep, training, sampling],
                ..SweepRow::default()
            };
            let row = base.classified(&found.classification);
            cells.push(row.ok_or_else(|| bad(format!("{RECORD} has no fractions")))?);
            let path = self.labels(found.multiple);
            check(&path, &found.labels_sha256)?;
            let (dataset, network): (Arc<str>, Arc<str>) =
                (task.dataset.as_str().into(), task.network.as_str().into());
            let labels = labels_rows(&read_parquet(&path)?)?;
            samples.extend(labels.into_iter().enumerate().map(|(sample, (label, d, other))| DistanceRow {
                dataset: dataset.clone(),
                network: network.clone(),
                k: task.k,
                seed: task.seed(),
                multiple: found.multiple,
                sample,
                d_train: d.map(|d| d as f32),
                d_synthetic: other.map(|d| d as f32),
                label,
            }));
        }
        let path = self.path.join(EXAMPLES);
        check(&path, &record.examples_sha256)?;
        Ok(Transition { cells, samples, examples: examples_rows(&read_parquet(&path)?)? })
    }
}

/// The device of a network's forward passes: without the feature `cuda` they run on the CPU.
pub(crate) fn network_device(choice: DeviceChoice) -> Result<Device, OpError> {
    match choice {
        DeviceChoice::Only(device) => Ok(device),
        DeviceChoice::Auto if cfg!(feature = "cuda") => {
            let (device, _) =
                resolve(choice).map_err(|source| OpError::Device { operation: "sampling", source })?;
            Ok(device)
        }
        DeviceChoice::Auto => Ok(Device::Cpu),
    }
}

/// The rows between which distances are taken: values, or features of LPIPS.
fn features(
    lpips: Option<&Lpips>,
    shape: Shape,
    rows: &ArcArray2<f32>,
    sink: &dyn ProgressSink,
) -> Result<ArcArray2<f32>, Error> {
    let Some(lpips) = lpips else { return Ok(rows.clone()) };
    let unit = rows.mapv(|v| (0.5 * (v + 1.0)).clamp(0.0, 1.0));
    Ok(lpips.features(shape, unit.view(), sink)?.into_shared())
}

fn prediction_name(prediction: Prediction) -> &'static str {
    match prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::X0 => "x0",
        Prediction::V => "v",
        Prediction::Score => "score",
    }
}

/// The median, the lower of the two middle values of an even number; `None` without values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn weights_sha256(weights: &Weights) -> String {
    sha256_hex(&weights.values().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn file_sha256(path: &Path) -> Result<String, StoreError> {
    Ok(sha256_hex(&fs::read(path).map_err(StoreError::io("open", path))?))
}

/// The name of a file of the cell.
fn file_name(path: &Path) -> String {
    path.file_name().expect("a file of the cell has a name").to_string_lossy().into_owned()
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    write_atomic(path, |w| Ok(serde_json::to_writer_pretty(w, value)?))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
