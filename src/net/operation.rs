//! The engine as one operation of candle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor, WithDType};

use super::{Dropout, Engine, Graph, NetError, Purpose};

/// A network as one differentiable operation of candle on the processor, computed by the [`Engine`].
pub struct EngineOp {
    graph: Arc<Graph>,
    state: Arc<Mutex<State>>,
}

/// What all calls share.
struct State {
    engine: Engine,
    /// The number of the call whose forward the engine has kept.
    last: u64,
    calls: u64,
}

impl EngineOp {
    /// For at most so many rows a call.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(graph: Arc<Graph>, rows: usize) -> std::result::Result<Self, NetError> {
        let engine = Engine::new(graph.clone(), rows, Purpose::Train)?;
        Ok(Self { graph, state: Arc::new(Mutex::new(State { engine, last: 0, calls: 0 })) })
    }

    /// The outputs `[m, numbers of a sample]` for weights in the order of [`super::Weights`], samples
    /// `[m, numbers of a sample]` and times `[m]`, all f32. Candle's `backward` gives the gradients by weights and
    /// samples; times have none. Where another call came between, backward computes the forward once more.
    ///
    /// # Errors
    /// As [`Engine::forward`], and [`NetError::Candle`] for tensors of another type or device.
    pub fn apply(
        &self,
        weights: &Tensor,
        x: &Tensor,
        t: &Tensor,
        dropout: Option<Dropout>,
    ) -> std::result::Result<Tensor, NetError> {
        let (rows, numbers) = x.dims2()?;
        let expected = self.graph.input().len();
        if numbers != expected {
            return Err(NetError::Length {
                operation: "forward",
                argument: "a sample",
                found: numbers,
                expected,
            });
        }
        let call = Call {
            state: self.state.clone(),
            dropout,
            outputs: (rows, self.graph.output().len()),
            number: AtomicU64::new(0),
        };
        Ok(weights.contiguous()?.apply_op3(&x.contiguous()?, &t.contiguous()?, call)?)
    }
}

/// One application.
struct Call {
    state: Arc<Mutex<State>>,
    dropout: Option<Dropout>,
    outputs: (usize, usize),
    number: AtomicU64,
}

impl Call {
    fn state(&self) -> MutexGuard<'_, State> {
        // The engine makes no use of a forward that did not end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self, state: &mut State, weights: &[f32], x: &[f32], t: &[f32]) -> Result<Vec<f32>> {
        state.calls += 1;
        state.last = state.calls;
        self.number.store(state.last, Ordering::Relaxed);
        let output = state.engine.forward(weights, x, t, self.dropout).map_err(Error::wrap)?;
        Ok(output.to_vec())
    }
}

impl CustomOp3 for Call {
    fn name(&self) -> &'static str {
        "mem2gen engine"
    }

    fn cpu_fwd(
        &self,
        weights: &CpuStorage,
        weights_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        t: &CpuStorage,
        t_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weights = numbers(weights, weights_layout)?;
        let (x, t) = (numbers(x, x_layout)?, numbers(t, t_layout)?);
        let output = self.forward(&mut self.state(), weights, x, t)?;
        Ok((CpuStorage::F32(output), self.outputs.into()))
    }

    fn bwd(
        &self,
        weights: &Tensor,
        x: &Tensor,
        t: &Tensor,
        _output: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let vector = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let (values, dy) = (vector(weights)?, vector(dy)?);
        let mut state = self.state();
        if state.last != self.number.load(Ordering::Relaxed) {
            self.forward(&mut state, &values, &vector(x)?, &vector(t)?)?;
        }
        // What is not trained has no gradient.
        let trained = state.engine.graph().trained();
        let (mut dweights, mut dx) = (vec![0.0; values.len()], vec![0.0; x.elem_count()]);
        state
            .engine
            .backward(&values, &dy, Some(&mut dweights[..trained]), Some(&mut dx))
            .map_err(Error::wrap)?;
        let of = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
        Ok((Some(of(dweights, weights)?), Some(of(dx, x)?), None))
    }
}

/// The numbers of a contiguous tensor of f32.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = f32::cpu_storage_as_slice(storage)?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => Err(Error::RequiresContiguous { op: "mem2gen engine" }),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::net::{Arch, Reference, UnetSettings, Weights};
    use crate::shape::Shape;

    #[test]
    fn gradients_go_through_it_as_through_the_reference() {
        let input = Shape::image(8, 8, 1);
        let settings = UnetSettings { dropout: 0.3, ..UnetSettings::desk(input, 8) };
        let graph = Arch::Unet(settings).graph(input).unwrap();
        let mut weights = Weights::init(graph.clone(), 1);
        // Nothing at nought, or the inner gradients would be.
        for (i, w) in weights.values_mut().iter_mut().enumerate() {
            *w += 0.05 * ((i * 37 % 101) as f32 / 50.0 - 1.0);
        }
        let op = EngineOp::new(graph.clone(), 3).unwrap();
        let reference = Reference::new(&weights, DType::F64, &Device::Cpu).unwrap();
        let w = Var::new(weights.values(), &Device::Cpu).unwrap();
        let x: Vec<f32> = (0..3 * 64).map(|i| (i * 29 % 83) as f32 / 41.0 - 1.0).collect();
        let x = Var::from_vec(x, (3, 64), &Device::Cpu).unwrap();
        let t = Tensor::new(&[0f32, 300.0, 999.0], &Device::Cpu).unwrap();
        let dropout = Some(Dropout { key: 5 });

        // Operations of candle before and after, and another call between forward and backward.
        let loss = |y: &Tensor| y.sqr().unwrap().mean_all().unwrap();
        let y = op.apply(&w, &(x.as_tensor() * 0.5).unwrap(), &t, dropout).unwrap();
        op.apply(&w, &x, &t, None).unwrap();
        let grads = loss(&y).backward().unwrap();

        let wide = |t: &Tensor| t.detach().to_dtype(DType::F64).unwrap();
        let half = (wide(&x) * 0.5).unwrap();
        let expected = reference.forward(&half, &wide(&t), dropout).unwrap();
        let dy = (expected.detach() * (2.0 / expected.elem_count() as f64)).unwrap();
        let pass = reference.pass(&half, &wide(&t), &dy, dropout).unwrap();

        let vec = |t: &Tensor| wide(t).flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let close = |what: &str, a: Vec<f64>, b: Vec<f64>| {
            let most = b.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert!(most > 0.0 && a.len() == b.len());
            let apart = a.iter().zip(&b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / most;
            // Rounding of f32 over some thousand terms.
            assert!(apart < 1e-4, "{what}: {apart}");
        };
        close("output", vec(&y), vec(&expected));
        close("weights", vec(grads.get(&w).unwrap()), reference.flatten(&pass.dparams).unwrap());
        close("samples", vec(grads.get(&x).unwrap()), vec(&(pass.dx * 0.5).unwrap()));

        assert!(matches!(op.apply(&w, &t.unsqueeze(1).unwrap(), &t, None), Err(NetError::Length { .. })));
        assert!(matches!(op.apply(&wide(&w), &x, &t, None), Err(NetError::Candle(_))));
    }
}
