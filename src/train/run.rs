use std::path::Path;
use std::time::Instant;

use super::adam::{Factors, State};
use super::batch::{Batch, Batches};
use super::checkpoint::{Checkpoint, Header, MetricsRow, Stretch};
use super::learner::{Learner, Processor};
use super::run_dir::{Kind, METRICS, RunDir};
use super::settings::{DataSettings, TrainParams};
use super::standin::{Engine, Purpose, save_weights};
use super::{TrainError, TrainingData};
use crate::net::Weights;
use crate::ops::Device;
use crate::progress::ProgressSink;
use crate::store::write_atomic;

/// How rows of metrics become the bytes of a file; tables are made above this layer.
pub type Encode<'a> = &'a dyn Fn(&[MetricsRow]) -> Result<Vec<u8>, String>;

/// What came of a call of [`train`].
#[derive(Debug)]
pub struct Trained {
    /// The run.
    pub run: RunDir,
    /// The step that it went on from; 0 for one that was begun, the number of steps for one that was finished
    /// before.
    pub from: u64,
    /// Whether it was finished before, so that nothing was done.
    pub already: bool,
    /// Why checkpoints newer than `from` were passed over.
    pub damaged: Vec<TrainError>,
}

/// Trains in the folder `path`: begins a run, goes on with one that was stopped, or finds that it is done. Whether it
/// was stopped does not show in the weights, on the processor to the bit.
///
/// # Errors
/// [`TrainError::Other`] where the folder has a run with other settings, data or device; [`TrainError::Busy`] where
/// another process is at it; [`TrainError::Diverged`] for a loss, a gradient or weights that are not finite, with all
/// that was kept before still there.
pub fn train(
    path: &Path,
    params: &TrainParams,
    data: &TrainingData,
    device: Device,
    encode: Encode<'_>,
    progress: &dyn ProgressSink,
) -> Result<Trained, TrainError> {
    if device != Device::Cpu {
        return Err(TrainError::Device {
            device: device.to_string(),
            reason: "networks train on the processor alone so far".into(),
        });
    }
    if data.shape().len() != params.input().len() {
        return Err(TrainError::Setting {
            setting: "data",
            value: format!("rows of {} numbers", data.shape().len()),
            need: format!("rows of {}", params.input().len()),
        });
    }
    let (run, _lock) = RunDir::begin(path, params, data, &device.to_string())?;
    let steps = params.settings().steps;
    if let Some(manifest) = run.manifest()? {
        run.verify_all(&manifest)?;
        progress.resume(steps);
        return Ok(Trained { run, from: steps, already: true, damaged: vec![] });
    }
    let checkpoints = run.checkpoints();
    let (start, damaged) = checkpoints.newest()?;
    checkpoints.tidy(&damaged)?;
    let start = start.unwrap_or_else(|| Checkpoint {
        header: Header {
            step: 0,
            key: params.key(),
            settings: serde_json::to_value(params.settings()).unwrap_or_default(),
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
    let engine = Engine::new(params.graph().clone(), batches.rows(), Purpose::Train)?;
    let mut learner = Processor::new(engine, start.state);
    let mut walk = Walk { run: &run, encode, header: start.header };
    walk.to_the_end(&mut learner, batches, progress)?;
    Ok(Trained { run, from, already: false, damaged })
}

/// The steps of a run.
struct Walk<'a> {
    run: &'a RunDir,
    encode: Encode<'a>,
    header: Header,
}

impl Walk<'_> {
    fn to_the_end(
        &mut self,
        learner: &mut dyn Learner,
        mut batches: Batches<'_>,
        progress: &dyn ProgressSink,
    ) -> Result<(), TrainError> {
        let settings = self.run.params().settings();
        let unit = match settings.data {
            DataSettings::Images { .. } => "images",
            DataSettings::Toy { .. } => "points",
        };
        progress.resume(self.header.step);
        let mut batch = Batch::default();
        let mut clock = Instant::now();
        while self.header.step < settings.steps {
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
            if step.is_multiple_of(settings.checkpoint_every) && step < settings.steps {
                self.keep(&*learner)?;
            }
            progress.advance(1);
        }
        self.finish(&*learner)
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

    /// Keeps what there is: a checkpoint, and the metrics up to it.
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
        let bytes = (self.encode)(&self.header.metrics)
            .map_err(|reason| TrainError::Metrics { path: path.clone(), reason })?;
        Ok(write_atomic(&path, |w| w.write_all(&bytes))?)
    }

    fn finish(&self, learner: &dyn Learner) -> Result<(), TrainError> {
        self.keep(learner)?;
        let state = learner.state()?;
        for (kind, values) in [(Kind::Ema, &state.ema), (Kind::Raw, &state.weights)] {
            let weights = Weights::new(self.run.graph().clone(), values.clone())?;
            save_weights(&self.run.path().join(kind.file()), &weights)?;
        }
        let header = &self.header;
        let loss = header.metrics.last().map_or(f64::NAN, |row| row.loss);
        self.run.finish(header.step, loss, header.seconds)
    }

    fn diverged(&self, step: u64, what: String) -> TrainError {
        let newest = self.run.checkpoints().newest_step();
        let checkpoint = newest.map_or_else(|| "none".to_owned(), |step| format!("that of step {step}"));
        TrainError::Diverged { step, what, checkpoint }
    }
}
