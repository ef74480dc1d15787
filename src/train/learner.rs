use std::borrow::Cow;

use super::TrainError;
use super::adam::{Factors, State, sum_of_squares};
use super::batch::Batch;
use crate::net::{Dropout, Engine, Given};

/// Loss and gradient of a step, before the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean of (prediction - target)^2 over rows and elements.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient: f64,
}

impl StepReport {
    /// What is not finite, in words; `None` for a step that was taken.
    pub fn fault(&self) -> Option<String> {
        match (self.loss.is_finite(), self.gradient.is_finite()) {
            (true, true) => None,
            (false, _) => Some(format!("the loss is {}", self.loss)),
            (true, false) => Some(format!("the norm of the gradient is {}", self.gradient)),
        }
    }
}

/// An implementation of training steps, which holds the weights.
pub trait Learner {
    /// Takes a step if loss and gradient are finite.
    ///
    /// # Errors
    /// Errors of network and device.
    fn step(&mut self, batch: &Batch, factors: &Factors) -> Result<StepReport, TrainError>;

    /// The weights, their average and the moments.
    ///
    /// # Errors
    /// Errors of the device.
    fn state(&self) -> Result<Cow<'_, State>, TrainError>;
}

/// Training on the CPU, with the engine.
pub struct Processor {
    engine: Engine,
    state: State,
    gradient: Vec<f32>,
    dy: Vec<f32>,
}

impl Processor {
    /// Starts from a state.
    pub fn new(engine: Engine, state: State) -> Self {
        Self { engine, gradient: vec![0.0; state.first.len()], dy: vec![], state }
    }

    /// The engine.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Learner for Processor {
    fn step(&mut self, batch: &Batch, factors: &Factors) -> Result<StepReport, TrainError> {
        let weights = &self.state.weights;
        let dropout = Some(Dropout { key: batch.dropout });
        let given = Given { t: &batch.t, condition: &batch.condition };
        let y = self.engine.forward(weights, &batch.x, given, dropout)?;
        self.dy.clear();
        self.dy.extend(y.iter().zip(&batch.target).map(|(y, target)| y - target));
        let count = self.dy.len() as f64;
        let loss = sum_of_squares(&self.dy) / count;
        let factor = (2.0 / count) as f32;
        self.dy.iter_mut().for_each(|d| *d *= factor);
        if !loss.is_finite() {
            return Ok(StepReport { loss, gradient: f64::NAN });
        }
        self.engine.backward(weights, &self.dy, Some(&mut self.gradient), None)?;
        let report = StepReport { loss, gradient: sum_of_squares(&self.gradient).sqrt() };
        if report.fault().is_none() {
            factors.step(&mut self.state, &self.gradient, report.gradient);
        }
        Ok(report)
    }

    fn state(&self) -> Result<Cow<'_, State>, TrainError> {
        Ok(Cow::Borrowed(&self.state))
    }
}
