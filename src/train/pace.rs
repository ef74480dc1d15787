use std::time::Instant;

use super::adam::{Factors, State};
use super::batch::{Batch, Batches};
use super::learner::{Learner, Processor};
use super::settings::TrainParams;
use super::{TrainError, TrainingData};
use crate::net::{Engine, Purpose, Timings, Weights};

/// Number of steps before the timed ones.
const BEFORE: u64 = 2;

/// Seconds of each of a number of training steps, and the engine's time by kind of operation. No file is written.
///
/// # Errors
/// As [`super::train`].
pub fn pace(
    params: &TrainParams,
    data: &TrainingData,
    steps: u64,
) -> Result<(Vec<f64>, Timings), TrainError> {
    let settings = params.settings();
    let mut batches = Batches::new(params, data)?;
    let engine = Engine::new(params.graph().clone(), batches.rows(), Purpose::Train)?;
    let weights = Weights::init(params.graph().clone(), settings.seed);
    let mut learner = Processor::new(engine, State::new(weights.values().to_vec(), params.graph().trained()));
    let mut batch = Batch::default();
    let mut seconds = Vec::new();
    for step in 0..BEFORE + steps {
        if step == BEFORE {
            learner.engine_mut().reset_timings();
        }
        let clock = Instant::now();
        batches.fill(step, &mut batch)?;
        let factors = Factors::new(&settings.adam, &settings.ema, step + 1, BEFORE + steps);
        let report = learner.step(&batch, &factors)?;
        if let Some(what) = report.fault() {
            let checkpoint = "none: nothing is written".into();
            return Err(TrainError::Diverged { step: step + 1, what, checkpoint });
        }
        if step >= BEFORE {
            seconds.push(clock.elapsed().as_secs_f64());
        }
    }
    Ok((seconds, learner.engine_mut().timings()))
}
