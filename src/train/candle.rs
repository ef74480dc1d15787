use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::TrainError;
use super::adam::{Factors, State};
use super::batch::Batch;
use super::learner::{Learner, StepReport};
use crate::net::{CandleNet, Dropout, Graph, NetError, Weights};

/// Training on a device of candle, with its operations and gradients. Steps differ from those on the CPU by rounding alone.
pub struct Candle {
    graph: Arc<Graph>,
    network: CandleNet,
    /// Average and moments of each parameter, in the layout of files.
    slots: Vec<Slot>,
    device: Device,
}

struct Slot {
    ema: Tensor,
    first: Tensor,
    second: Tensor,
    trained: bool,
}

impl Candle {
    /// Starts from a state.
    ///
    /// # Errors
    /// [`TrainError::Net`] for a state of another network, and errors of the device.
    pub fn new(graph: Arc<Graph>, state: &State, device: Device) -> Result<Self, TrainError> {
        let network = |values: &[f32]| {
            let mut values = values.to_vec();
            // Moments exist for trained parameters alone, which come first.
            values.resize(graph.len(), 0.0);
            CandleNet::new(&Weights::new(graph.clone(), values)?, DType::F32, &device)
        };
        let [ema, first, second] = [network(&state.ema)?, network(&state.first)?, network(&state.second)?];
        let tensor = |network: &CandleNet, i: usize| network.params()[i].as_detached_tensor();
        let slots = (0..graph.params().len())
            .map(|i| Slot {
                ema: tensor(&ema, i),
                first: tensor(&first, i),
                second: tensor(&second, i),
                trained: graph.params()[i].trained,
            })
            .collect();
        Ok(Self { network: network(&state.weights)?, graph, slots, device })
    }

    fn rows(&self, values: &[f32], rows: usize) -> Result<Tensor, NetError> {
        Ok(Tensor::from_slice(values, (rows, values.len() / rows), &self.device)?)
    }

    /// Loss and gradients; `None` for parameters on which the loss does not depend.
    fn gradients(&self, batch: &Batch) -> Result<(f64, Vec<Option<Tensor>>), NetError> {
        let (x, target) = (self.rows(&batch.x, batch.rows)?, self.rows(&batch.target, batch.rows)?);
        let t = Tensor::from_slice(&batch.t, batch.rows, &self.device)?;
        let condition = match self.graph.condition() {
            0 => None,
            _ => Some(self.rows(&batch.condition, batch.rows)?),
        };
        // The same dropout mask as in the engine.
        let y = self.network.forward(&x, &t, condition.as_ref(), Some(Dropout { key: batch.dropout }))?;
        let loss = (y - target)?.sqr()?.mean_all()?;
        let gradients = loss.backward()?;
        let gradient = |(var, slot): (&Var, &Slot)| gradients.get(var).filter(|_| slot.trained).cloned();
        let all = self.network.params().iter().zip(&self.slots).map(gradient).collect();
        Ok((f64::from(loss.to_scalar::<f32>()?), all))
    }

    fn update(
        &mut self,
        gradients: &[Option<Tensor>],
        factors: &Factors,
        scale: f64,
    ) -> Result<(), NetError> {
        let [first, second, square] = [factors.first, factors.second, factors.square].map(f64::from);
        let [rate, root, epsilon, share] =
            [factors.rate, factors.root, factors.epsilon, factors.share].map(f64::from);
        for ((var, slot), gradient) in self.network.params().iter().zip(&mut self.slots).zip(gradients) {
            if !slot.trained {
                continue;
            }
            let g = match gradient {
                Some(g) => (g * scale)?,
                None => var.zeros_like()?,
            };
            slot.first = (&slot.first + ((&g - &slot.first)? * first)?)?.detach();
            slot.second = ((&slot.second * second)? + (g.sqr()? * square)?)?.detach();
            let below = ((slot.second.sqrt()? / root)? + epsilon)?;
            let weights = (var.as_tensor() - ((&slot.first / below)? * rate)?)?.detach();
            slot.ema = (&slot.ema + ((&weights - &slot.ema)? * share)?)?.detach();
            var.set(&weights)?;
        }
        Ok(())
    }
}

impl Learner for Candle {
    fn step(&mut self, batch: &Batch, factors: &Factors) -> Result<StepReport, TrainError> {
        let (loss, gradients) = self.gradients(batch)?;
        let squares = |g: &Tensor| g.to_dtype(DType::F64)?.sqr()?.sum_all();
        let parts = gradients.iter().flatten().map(squares).collect::<candle_core::Result<Vec<_>>>();
        let sum = parts.and_then(|parts| Tensor::stack(&parts, 0)?.sum_all()?.to_scalar::<f64>());
        let report = StepReport { loss, gradient: sum.map_err(NetError::from)?.sqrt() };
        if report.fault().is_none() {
            self.update(&gradients, factors, factors.scale(report.gradient))?;
        }
        Ok(report)
    }

    fn state(&self) -> Result<Cow<'_, State>, TrainError> {
        let all = |part: fn(&Slot) -> &Tensor| {
            let tensors: Vec<Tensor> = self.slots.iter().map(|slot| part(slot).clone()).collect();
            self.network.flatten::<f32>(&tensors)
        };
        let weights: Vec<Tensor> = self.network.params().iter().map(|var| var.as_detached_tensor()).collect();
        let trained = |mut values: Vec<f32>| {
            values.truncate(self.graph.trained());
            values
        };
        Ok(Cow::Owned(State {
            weights: self.network.flatten(&weights)?,
            ema: all(|slot| &slot.ema)?,
            first: trained(all(|slot| &slot.first)?),
            second: trained(all(|slot| &slot.second)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Arch, Engine, MlpSettings, Purpose, UnetSettings};
    use crate::random::Stream;
    use crate::shape::Shape;
    use crate::train::learner::Processor;
    use crate::train::{AdamSettings, EmaSettings};

    fn batch(step: u64, rows: usize, n: usize, condition: usize) -> Batch {
        let mut s = Stream::new(step, "batch");
        let mut normals = |n: usize| (0..n).map(|_| s.normal() as f32).collect::<Vec<_>>();
        let (x, target) = (normals(rows * n), normals(rows * n));
        let condition = normals(rows * condition);
        let t = (0..rows).map(|i| (97 * (i + 1)) as f32).collect();
        Batch { rows, x, t, condition, target, dropout: step }
    }

    fn factors(step: u64) -> Factors {
        // Epsilon is large enough that parameters whose gradient is zero up to rounding do not move.
        let adam = AdamSettings { learning_rate: 1e-2, epsilon: 1e-3, clip: 0.1, ..AdamSettings::default() };
        Factors::new(&adam, &EmaSettings { decay: 0.9, warm_up: false }, step, 10)
    }

    #[test]
    fn steps_agree_with_those_of_the_cpu() {
        let image = Shape::image(4, 4, 2);
        let unet = UnetSettings {
            channels: 8,
            multipliers: vec![1, 2],
            blocks: 1,
            attention: vec![2],
            groups: None,
            dropout: 0.3,
            patch: 1,
            condition: 0,
        };
        let prompted = UnetSettings { multipliers: vec![1], patch: 2, condition: 5, ..unet.clone() };
        let mlp = MlpSettings { width: 12, blocks: 2, time: 8, dropout: 0.2 };
        for arch in [Arch::Unet(unet), Arch::Unet(prompted), Arch::Mlp(mlp)] {
            let graph = arch.graph(image).unwrap();
            let state = State::new(Weights::init(graph.clone(), 3).values().to_vec(), graph.trained());
            let engine = Engine::new(graph.clone(), 5, Purpose::Train).unwrap();
            let mut processor = Processor::new(engine, state.clone());
            let mut candle = Candle::new(graph.clone(), &state, Device::Cpu).unwrap();
            for step in 1..=4 {
                let batch = batch(step, 5, image.len(), graph.condition());
                let a = processor.step(&batch, &factors(step)).unwrap();
                let b = candle.step(&batch, &factors(step)).unwrap();
                // Two orders of sums in single precision.
                assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{step}: {a:?} {b:?}");
                assert!((a.gradient / b.gradient - 1.0).abs() < 1e-4, "{step}: {a:?} {b:?}");
                assert!(a.gradient > 0.1, "nothing is clipped: {a:?}");
                if step == 2 {
                    // Training from a state takes the same steps.
                    candle = Candle::new(graph.clone(), &candle.state().unwrap(), Device::Cpu).unwrap();
                }
            }
            let (a, b) = (processor.state().unwrap(), candle.state().unwrap());
            for ((name, a), (_, b)) in a.parts().into_iter().zip(b.parts()) {
                let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let apart = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(a.len() == b.len() && apart < 1e-4 * largest, "{name}: {apart} of {largest}");
            }
        }
    }

    #[test]
    fn a_step_that_is_not_finite_is_not_taken() {
        let graph = Arch::Mlp(MlpSettings { width: 4, blocks: 1, time: 4, dropout: 0.0 })
            .graph(Shape::vector(3))
            .unwrap();
        let state = State::new(Weights::init(graph.clone(), 3).values().to_vec(), graph.trained());
        let engine = Engine::new(graph.clone(), 2, Purpose::Train).unwrap();
        let learners: [Box<dyn Learner>; 2] = [
            Box::new(Processor::new(engine, state.clone())),
            Box::new(Candle::new(graph, &state, Device::Cpu).unwrap()),
        ];
        for mut learner in learners {
            let mut batch = batch(1, 2, 3, 0);
            batch.target[1] = f32::INFINITY;
            assert!(learner.step(&batch, &factors(1)).unwrap().fault().is_some());
            assert_eq!(*learner.state().unwrap(), state);
        }
    }
}
