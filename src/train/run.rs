use std::path::Path;
use std::time::Instant;

use super::adam::{Factors, State};
use super::batch::{Batch, Batches};
use super::candle::Candle;
use super::checkpoint::{Checkpoint, Header, MetricsRow, Stretch};
use super::learner::{Learner, Processor};
use super::metrics::metrics_bytes;
use super::run_dir::{Kind, METRICS, RunDir};
use super::settings::{TrainParams, TrainSettings};
use super::stop::Training;
use super::{TrainError, TrainingData};
use crate::device::{Device, DeviceChoice};
use crate::net::{Engine, Purpose, Weights, cuda};
use crate::progress::ProgressSink;
use crate::project::Layout;
use crate::setting::SettingError;
use crate::store::write_atomic;

/// Result of [`train`].
#[derive(Debug)]
pub struct Trained {
    /// The run.
    pub run: RunDir,
    /// The step from which training started: 0 for a new run, the last step for a run that was finished before.
    pub from: u64,
    /// The step at which the run is now.
    pub to: u64,
    /// Whether the run was finished before, so that nothing was done.
    pub already: bool,
    /// Errors of damaged checkpoints newer than `from`, which were skipped.
    pub damaged: Vec<TrainError>,
}

/// Trains in the folder `path`: starts a run, resumes an interrupted one, or returns a finished one unchanged. On the CPU an
/// interrupted run ends with the same weights as an uninterrupted one. After [`stop`](super::stop) it writes a checkpoint and does not
/// return.
///
/// # Errors
/// [`TrainError::Other`] for a run with other settings, data or device in the folder; [`TrainError::Busy`] when another
/// process uses it; [`TrainError::Device`] for a missing device; [`TrainError::Net`] for a batch that does not fit into
/// memory; [`TrainError::Diverged`] for a loss, a gradient or weights that are not finite, after which earlier checkpoints
/// remain.
pub fn train(
    path: &Path,
    params: &TrainParams,
    data: &TrainingData,
    device: Device,
    progress: &dyn ProgressSink,
) -> Result<Trained, TrainError> {
    train_until(path, params, data, device, params.settings().steps, progress)
}

/// Trains as [`train`], at most up to step `until`: an earlier step than the last ends the call with a checkpoint, from
/// which the next call resumes. A run that is there already is left as it is.
///
/// # Errors
/// As [`train`].
pub fn train_until(
    path: &Path,
    params: &TrainParams,
    data: &TrainingData,
    device: Device,
    until: u64,
    progress: &dyn ProgressSink,
) -> Result<Trained, TrainError> {
    let place = place(device)?;
    if data.shape().len() != params.input().len() {
        return Err(SettingError::new(
            "training",
            "data",
            format!("rows of {} elements", data.shape().len()),
            format!("rows of {}", params.input().len()),
        )
        .into());
    }
    let (condition, vectors) = (params.graph().condition(), data.captions().map_or(0, |c| c.ncols()));
    if condition != vectors {
        let need = format!("{vectors}, the length of the training set's captions (0 where it has none)");
        return Err(SettingError::new("training", "arch.condition", condition, need).into());
    }
    if place.is_none() {
        Engine::fits(params.graph(), params.rows(data.len()), Purpose::Train)?;
    }
    let (run, _lock) = RunDir::begin(path, params, data, &device.to_string())?;
    let steps = params.settings().steps;
    if let Some(manifest) = run.manifest()? {
        run.verify_all(&manifest)?;
        progress.resume(steps);
        return Ok(Trained { run, from: steps, to: steps, already: true, damaged: vec![] });
    }
    let checkpoints = run.checkpoints();
    let (start, damaged) = checkpoints.newest()?;
    checkpoints.tidy(&damaged)?;
    let start = start.unwrap_or_else(|| Checkpoint {
        header: Header {
            step: 0,
            key: params.key(),
            settings: serde_json::to_value(params.settings())
                .expect("settings have named fields and finite numbers, which JSON can hold"),
            metrics: vec![],
            stretch: Stretch::default(),
            seconds: 0.0,
        },
        state: State::new(
            Weights::init(params.graph().clone(), params.settings().seed).values().to_vec(),
            params.graph().trained(),
        ),
    });
    let from = start.header.step;
    let batches = Batches::new(params, data)?;
    let mut learner: Box<dyn Learner> = match place {
        None => {
            let engine = Engine::new(params.graph().clone(), batches.rows(), Purpose::Train)?;
            Box::new(Processor::new(engine, start.state))
        }
        Some(place) => Box::new(Candle::new(params.graph().clone(), &start.state, place)?),
    };
    let mut walk = Walk { run: &run, header: start.header };
    walk.walk(&mut *learner, batches, until, progress)?;
    let to = walk.header.step;
    Ok(Trained { run, from, to, already: false, damaged })
}

/// Loads the data, checks the settings, and trains in the folder `path` as [`train`].
///
/// # Errors
/// Errors of settings and data, and as [`train`].
pub fn train_in(
    path: &Path,
    settings: TrainSettings,
    layout: &Layout,
    choice: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Trained, TrainError> {
    let data = TrainingData::load(layout, &settings.data)?;
    let params = settings.check(data.shape())?;
    train(path, &params, &data, device(choice), progress)
}

/// The device for a choice. `auto` is the first CUDA device if candle can use it, else the CPU; any other choice is taken
/// literally, and [`train`] refuses a device that is missing.
pub fn device(choice: DeviceChoice) -> Device {
    match choice {
        DeviceChoice::Only(device) => device,
        DeviceChoice::Auto if place(Device::Cuda(0)).is_ok() => Device::Cuda(0),
        DeviceChoice::Auto => Device::Cpu,
    }
}

/// Candle's device; `None` for the CPU, where the engine computes.
fn place(device: Device) -> Result<Option<candle_core::Device>, TrainError> {
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(number) => {
            cuda(number).map(Some).map_err(|reason| TrainError::Device { device: device.to_string(), reason })
        }
    }
}

/// The loop over the steps of a run.
struct Walk<'a> {
    run: &'a RunDir,
    header: Header,
}

impl Walk<'_> {
    fn walk(
        &mut self,
        learner: &mut dyn Learner,
        mut batches: Batches<'_>,
        until: u64,
        progress: &dyn ProgressSink,
    ) -> Result<(), TrainError> {
        let settings = self.run.params().settings();
        let unit = settings.data.unit();
        progress.resume(self.header.step);
        let mut batch = Batch::default();
        let mut clock = Instant::now();
        let from = self.header.step;
        let mut kept = from;
        let training = Training::begin();
        while self.header.step < settings.steps.min(until) {
            if training.is_to_stop() {
                if self.header.step > kept {
                    self.keep(&*learner)?;
                }
                training.stand_still(self.header.step);
            }
            batches.fill(self.header.step, &mut batch)?;
            let step = self.header.step + 1;
            let factors = Factors::new(&settings.adam, &settings.ema, step, settings.steps);
            let report = learner.step(&batch, &factors)?;
            if let Some(fault) = report.fault() {
                return Err(self.diverged(step, fault));
            }
            let passed = clock.elapsed().as_secs_f64();
            clock = Instant::now();
            let header = &mut self.header;
            header.step = step;
            header.seconds += passed;
            let stretch = &mut header.stretch;
            stretch.steps += 1;
            stretch.loss += report.loss;
            stretch.gradient += report.gradient;
            stretch.seconds += passed;
            if step.is_multiple_of(settings.log_every) || step == settings.steps {
                let row = self.close_stretch(batch.rows);
                progress.stage(&format!(
                    "loss {:.4e}, gradient {:.3e}, {:.0} {unit}/s",
                    row.loss, row.gradient, row.rate
                ));
            }
            if step.is_multiple_of(settings.checkpoint_every) && step < settings.steps.min(until) {
                self.keep(&*learner)?;
                kept = step;
            }
            progress.advance(1);
        }
        match self.header.step {
            step if step == settings.steps => self.finish(&*learner),
            step if step > from => self.keep(&*learner),
            _ => Ok(()),
        }
    }

    fn close_stretch(&mut self, rows: usize) -> MetricsRow {
        let stretch = std::mem::take(&mut self.header.stretch);
        let n = stretch.steps as f64;
        let row = MetricsRow {
            step: self.header.step,
            loss: stretch.loss / n,
            gradient: stretch.gradient / n,
            rate: n * rows as f64 / stretch.seconds.max(1e-9),
            seconds: self.header.seconds,
        };
        self.header.metrics.push(row);
        row
    }

    /// Writes a checkpoint and the metrics up to it.
    fn keep(&self, learner: &dyn Learner) -> Result<(), TrainError> {
        let state = learner.state()?;
        for (name, values) in state.parts() {
            if values.iter().any(|v| !v.is_finite()) {
                return Err(self.diverged(self.header.step, format!("the {name} are not finite")));
            }
        }
        self.run.checkpoints().put(&self.header, &state)?;
        self.write_metrics()
    }

    fn write_metrics(&self) -> Result<(), TrainError> {
        let path = self.run.path().join(METRICS);
        let bytes = metrics_bytes(&self.header.metrics)
            .map_err(|e| TrainError::Metrics { path: path.clone(), reason: e.to_string() })?;
        Ok(write_atomic(&path, |w| w.write_all(&bytes))?)
    }

    fn finish(&self, learner: &dyn Learner) -> Result<(), TrainError> {
        self.keep(learner)?;
        let state = learner.state()?;
        for (kind, values) in [(Kind::Ema, &state.ema), (Kind::Raw, &state.weights)] {
            let weights = Weights::new(self.run.graph().clone(), values.clone())?;
            self.run.write_weights(kind, weights)?;
        }
        let header = &self.header;
        let last = header.metrics.last().expect("the last step of a run closes an interval of metrics");
        self.run.finish(header.step, last.loss, header.seconds)
    }

    fn diverged(&self, step: u64, what: String) -> TrainError {
        let newest = self.run.checkpoints().newest_step();
        let checkpoint = newest.map_or_else(|| "none".to_owned(), |step| format!("that of step {step}"));
        TrainError::Diverged { step, what, checkpoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::read_parquet;
    use crate::progress::Silent;
    use crate::project::Layout;
    use crate::train::TrainSettings;
    use crate::train::metrics::metrics_rows;
    use crate::train::settings::tests::tiny;
    use std::fs;
    use std::sync::Mutex;

    fn go(path: &Path, settings: TrainSettings) -> Result<Trained, TrainError> {
        go_with(path, settings, &Silent)
    }

    fn go_with(
        path: &Path,
        settings: TrainSettings,
        progress: &dyn ProgressSink,
    ) -> Result<Trained, TrainError> {
        let data = TrainingData::load(&Layout::at("nowhere"), &settings.data)?;
        let params = settings.check(data.shape())?;
        train(path, &params, &data, Device::Cpu, progress)
    }

    fn metrics(path: &Path) -> Vec<MetricsRow> {
        metrics_rows(&read_parquet(&path.join(METRICS)).unwrap()).unwrap()
    }

    #[test]
    fn a_run_that_was_stopped_on_the_way_ends_with_the_same_weights() {
        let (stopped, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = TrainSettings { checkpoint_every: 20, log_every: 7, ..tiny(16, 30) };
        let data = TrainingData::load(&Layout::at("nowhere"), &settings.data).unwrap();
        let params = settings.clone().check(data.shape()).unwrap();
        let until = |step| train_until(stopped.path(), &params, &data, Device::Cpu, step, &Silent).unwrap();
        for (step, from, to) in [(11, 0, 11), (5, 11, 11), (11, 11, 11), (22, 11, 22)] {
            let trained = until(step);
            assert_eq!((trained.from, trained.to, trained.already), (from, to, false));
            assert!(trained.run.manifest().unwrap().is_none());
            assert_eq!(trained.run.weights(Kind::Ema).unwrap().1, to);
        }
        let (trained, whole) = (until(30), go(whole.path(), settings).unwrap());
        assert_eq!((trained.to, until(31).already, until(3).to), (30, true, 30));
        for kind in [Kind::Ema, Kind::Raw] {
            assert_eq!(trained.run.weights(kind).unwrap(), whole.run.weights(kind).unwrap());
        }
        let steps = |run: &RunDir| metrics(run.path()).iter().map(|row| row.step).collect::<Vec<_>>();
        assert_eq!(steps(&trained.run), steps(&whole.run));
    }

    #[test]
    fn a_network_learns_which_caption_belongs_to_which_row() {
        use crate::net::{Arch, UnetSettings};
        use crate::process::Prediction;
        use crate::score::{Network, Score};
        use crate::shape::Shape;
        use crate::train::{ProcessSettings, TrainingData};
        use ndarray::{Array2, array};

        let shape = Shape::image(4, 4, 1);
        let rows = Array2::from_shape_fn((2, 16), |(i, _)| if i == 0 { 0.8 } else { -0.8 });
        let vectors = array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let plain = TrainingData::new(rows, shape).unwrap();
        let data = plain.clone().with_captions(vectors.clone(), vec![3.0, 1.0]).unwrap();
        let unet = UnetSettings {
            multipliers: vec![1],
            blocks: 1,
            dropout: 0.0,
            patch: 2,
            condition: 3,
            ..UnetSettings::desk(shape, 8)
        };
        let settings = TrainSettings {
            arch: Arch::Unet(unet.clone()),
            process: ProcessSettings::Vp(crate::process::VpSettings::default()),
            prediction: Prediction::X0,
            batch: 16,
            repeat: true,
            caption_drop: 0.2,
            ..tiny(2, 300)
        };
        let dir = tempfile::tempdir().unwrap();
        let params = settings.clone().check(shape).unwrap();
        let run = train(&dir.path().join("run"), &params, &data, Device::Cpu, &Silent).unwrap().run;
        let weights = run.weights(Kind::Ema).unwrap().0;
        // At nearly pure noise the caption alone says which row it is; without one the mean of the doses is 0.4.
        let level = params.process().as_process().level(950.0).unwrap();
        let x = Array2::zeros((1, 16));
        for (condition, due) in [(vec![1.0, 0.0, 0.0], 0.8), (vec![0.0, 1.0, 0.0], -0.8), (vec![0.0; 3], 0.4)]
        {
            let network = Network::new(weights.clone(), Prediction::X0, 4).unwrap();
            let score = network.with_condition(&condition).unwrap().score(x.view(), &[level]).unwrap();
            let x0 = level.convert(0.0, score[[0, 5]], Prediction::Score, Prediction::X0);
            assert!((x0 - due).abs() < 0.2, "{condition:?}: {x0}, expected {due}");
        }
        assert!(Network::new(weights, Prediction::X0, 4).unwrap().with_condition(&[1.0]).is_err());
        // Captions and a network that takes none, and the other way round.
        let none = TrainSettings { arch: Arch::Unet(UnetSettings { condition: 0, ..unet }), ..settings };
        for (params, data) in [(none.check(shape).unwrap(), data), (params, plain)] {
            let error = train(&dir.path().join("no"), &params, &data, Device::Cpu, &Silent).unwrap_err();
            assert!(error.to_string().contains("arch.condition"), "{error}");
        }
    }

    #[test]
    fn a_run_learns_and_writes_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let settings = TrainSettings { batch: 64, repeat: true, log_every: 100, ..tiny(2, 450) };
        let trained = go(dir.path(), settings.clone()).unwrap();
        assert_eq!((trained.from, trained.already), (0, false));
        let rows = metrics(dir.path());
        assert_eq!(rows.iter().map(|r| r.step).collect::<Vec<_>>(), [100, 200, 300, 400, 450]);
        // A network with output zero has a loss of 1. With two points half of the noise can be predicted.
        assert!(rows[0].loss > rows[4].loss && rows[4].loss < 0.7, "{rows:?}");
        let run = RunDir::open(dir.path()).unwrap();
        let manifest = run.manifest().unwrap().unwrap();
        assert_eq!((manifest.steps, manifest.loss), (450, rows[4].loss));
        let (ema, raw) = (run.weights(Kind::Ema).unwrap(), run.weights(Kind::Raw).unwrap());
        assert_eq!((ema.1, raw.1), (450, 450));
        // Untrained frequencies are the same in both.
        let trained = run.graph().trained();
        assert!(trained < run.graph().len());
        assert_eq!(ema.0.values()[trained..], raw.0.values()[trained..]);
        assert_ne!(ema.0.values()[..trained], raw.0.values()[..trained]);

        // Killed between the last checkpoint and the manifest.
        fs::remove_file(dir.path().join("manifest.json")).unwrap();
        fs::remove_file(dir.path().join(Kind::Ema.file())).unwrap();
        let last = go(dir.path(), settings.clone()).unwrap();
        assert_eq!((last.from, last.already), (450, false));
        assert_eq!(run.weights(Kind::Ema).unwrap(), ema);
        assert_eq!(metrics(dir.path()), rows);

        // A finished run is not changed, and a modified file is refused.
        let before = fs::metadata(dir.path().join("manifest.json")).unwrap().modified().unwrap();
        let again = go(dir.path(), settings.clone()).unwrap();
        assert_eq!((again.from, again.already), (450, true));
        assert_eq!(fs::metadata(dir.path().join("manifest.json")).unwrap().modified().unwrap(), before);
        let file = dir.path().join(Kind::Ema.file());
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(go(dir.path(), settings).unwrap_err().to_string().contains("ema.safetensors"));
        assert!(run.weights(Kind::Ema).is_err() && run.weights(Kind::Raw).is_ok());
    }

    #[test]
    fn from_any_checkpoint_the_end_is_the_same() {
        let whole = tempfile::tempdir().unwrap();
        // Intervals that share no step, and an epoch of two and a half batches.
        let settings = TrainSettings { checkpoint_every: 7, log_every: 5, ..tiny(9, 33) };
        go(whole.path(), settings.clone()).unwrap();
        let end = RunDir::open(whole.path()).unwrap().checkpoints().newest().unwrap().0.unwrap();

        // Stopped at every checkpoint in turn, by a sink that has had enough.
        struct Enough(Mutex<u64>);
        impl ProgressSink for Enough {
            fn advance(&self, steps: u64) {
                let mut left = self.0.lock().unwrap();
                *left = left.checked_sub(steps).expect("enough");
            }
            fn resume(&self, _steps: u64) {}
        }
        let pieces = tempfile::tempdir().unwrap();
        let mut from = vec![];
        for _ in 0..4 {
            let stopped = std::panic::catch_unwind(|| {
                go_with(pieces.path(), settings.clone(), &Enough(Mutex::new(9))).unwrap()
            });
            assert!(stopped.is_err());
            let run = RunDir::open(pieces.path()).unwrap();
            from.push(run.weights(Kind::Ema).unwrap().1);
        }
        assert_eq!(from, [7, 14, 21, 28]);
        let trained = go(pieces.path(), settings.clone()).unwrap();
        assert_eq!(trained.from, 28);
        let other = trained.run.checkpoints().newest().unwrap().0.unwrap();
        assert_eq!(end.state, other.state);
        let numbers =
            |rows: &[MetricsRow]| rows.iter().map(|r| (r.step, r.loss, r.gradient)).collect::<Vec<_>>();
        assert_eq!(numbers(&metrics(whole.path())), numbers(&metrics(pieces.path())));
        assert_eq!(metrics(pieces.path()).len(), 7);
    }

    #[test]
    fn a_run_that_diverges_stops_with_its_last_good_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = TrainSettings { checkpoint_every: 1, ..tiny(9, 20) };
        settings.adam.learning_rate = 1e12;
        let error = go(dir.path(), settings.clone()).unwrap_err();
        let TrainError::Diverged { step, what, checkpoint } = &error else { panic!("{error}") };
        assert!(what.contains("finite") || what.contains("loss") || what.contains("gradient"), "{error}");
        let run = RunDir::open(dir.path()).unwrap();
        let (weights, kept) = run.weights(Kind::Raw).unwrap();
        assert!(kept < *step && checkpoint.contains(&kept.to_string()), "{error}");
        assert!(weights.values().iter().all(|v| v.is_finite()));
        assert!(run.manifest().unwrap().is_none());
        // It says so again, and keeps what there is.
        assert!(matches!(go(dir.path(), settings), Err(TrainError::Diverged { .. })));
        assert_eq!(run.weights(Kind::Raw).unwrap().1, kept);

        let dir = tempfile::tempdir().unwrap();
        let mut settings = TrainSettings { checkpoint_every: 1000, ..tiny(9, 20) };
        settings.adam.learning_rate = 1e12;
        let error = go(dir.path(), settings).unwrap_err().to_string();
        assert!(error.ends_with("the last good checkpoint is none"), "{error}");
    }

    #[test]
    fn devices_and_data_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let params = tiny(9, 20).check(crate::shape::Shape::vector(2)).unwrap();
        let data = TrainingData::load(&Layout::at("nowhere"), &params.settings().data).unwrap();
        let error = train(&path, &params, &data, Device::Cuda(0), &Silent).unwrap_err();
        assert!(matches!(error, TrainError::Device { .. }), "{error}");
        let three =
            TrainingData::new(ndarray::Array2::zeros((9, 3)), crate::shape::Shape::vector(3)).unwrap();
        let error = train(&path, &params, &three, Device::Cpu, &Silent).unwrap_err();
        assert!(
            matches!(error, TrainError::Setting(SettingError { ref setting, .. }) if setting == "data"),
            "{error}"
        );
        assert!(!path.exists());
    }
}
