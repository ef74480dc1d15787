use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor};
use ndarray::{Array1, Array2, ArrayView2, s};

use super::{Score, ScoreError, check, check_rows};
use crate::device::Device;
use crate::net::{CandleNet, Engine, Given, NetError, Purpose, Timings, Weights, cuda};
use crate::ops::OpError;
use crate::process::{Level, Prediction};

const NAME: &str = "network score";

/// The score of a trained network, from its prediction at x and the level's time. Dropout is off.
///
/// The network computes in single precision, in batches of `batch` rows. On the CPU the result of a row depends on no
/// other row and not on the batch size; on CUDA devices, where candle computes, it differs by rounding.
///
/// ```
/// use mem2gen::device::Device;
/// use mem2gen::net::{Arch, ToySettings, Weights};
/// use mem2gen::process::{Prediction, Process, Ve};
/// use mem2gen::score::{Network, Score};
/// use mem2gen::shape::Shape;
/// use ndarray::array;
///
/// let weights = Weights::init(Arch::Toy(ToySettings::code()).graph(Shape::vector(2))?, 1);
/// let network = Network::on(weights, Prediction::Epsilon, 16, Device::Cpu)?;
/// let score = network.score(array![[0.5, -1.0]].view(), &[Ve::default().level(0.5)?])?;
/// assert_eq!(score.dim(), (1, 2));
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub struct Network {
    weights: Weights,
    prediction: Prediction,
    /// The condition of every row; empty for a network without one.
    condition: Vec<f32>,
    batch: usize,
    device: Place,
    scores: Mutex<Vec<Worker>>,
    products: Mutex<Vec<Worker>>,
}

/// Implementation that evaluates a network.
enum Place {
    Processor,
    Candle(candle_core::Device),
}

/// An evaluator for one caller.
///
/// Idle workers are kept in a list. A worker is taken out of it to compute, so that no lock is held meanwhile: a thread
/// that waits for the engine's tasks may execute another task of the caller, which evaluates the score as well.
enum Worker {
    Engine(Engine),
    Candle { net: CandleNet, rows: Option<(Tensor, Tensor)>, output: Vec<f32> },
}

impl Worker {
    fn new(network: &Network, purpose: Purpose) -> Result<Self, NetError> {
        let weights = &network.weights;
        Ok(match &network.device {
            Place::Processor => Self::Engine(Engine::new(weights.graph().clone(), network.batch, purpose)?),
            Place::Candle(device) => Self::Candle {
                net: CandleNet::new(weights, DType::F32, device)?,
                rows: None,
                output: Vec::new(),
            },
        })
    }

    fn forward(&mut self, network: &Network, x: &[f32], t: &[f32]) -> Result<&[f32], NetError> {
        match (self, &network.device) {
            (Self::Candle { net, rows, output }, Place::Candle(device)) => {
                let x = Tensor::from_slice(x, (t.len(), x.len() / t.len().max(1)), device)?;
                let t = Tensor::from_slice(t, t.len(), device)?;
                let condition = network.condition(t.dims1()?, device)?;
                *output = net.forward(&x, &t, condition.as_ref(), None)?.flatten_all()?.to_vec1()?;
                *rows = Some((x, t));
                Ok(output)
            }
            (Self::Engine(engine), _) => {
                let condition = network.condition.repeat(t.len());
                engine.forward(network.weights.values(), x, Given { t, condition: &condition }, None)
            }
            (Self::Candle { .. }, Place::Processor) => Err(NO_FORWARD),
        }
    }

    /// J^T dy for the Jacobian J of the network's output, after a forward pass.
    fn backward(&mut self, network: &Network, dy: &[f32], dx: &mut [f32]) -> Result<(), NetError> {
        match self {
            Self::Engine(engine) => engine.backward(network.weights.values(), dy, None, Some(dx)),
            Self::Candle { net, rows: Some((x, t)), .. } => {
                let dy = Tensor::from_slice(dy, x.shape(), x.device())?;
                let condition = network.condition(t.dims1()?, x.device())?;
                let back = net.pass(x, t, condition.as_ref(), &dy, None)?.dx.flatten_all()?.to_vec1()?;
                dx.copy_from_slice(&back);
                Ok(())
            }
            Self::Candle { rows: None, .. } => Err(NO_FORWARD),
        }
    }
}

const NO_FORWARD: NetError = NetError::Backward { reason: "no forward pass precedes it on this device" };

/// The score as a (x) + b (output).
#[derive(Clone, Copy)]
struct Affine {
    a: f64,
    b: f64,
}

/// Rows that are evaluated together, each repeated for as many directions as the batch has room for.
struct Chunk<'a> {
    x: ArrayView2<'a, f64>,
    levels: &'a [Level],
    /// The first row.
    start: usize,
    copies: usize,
}

impl Network {
    /// A score from weights, the quantity that the network predicts, and the batch size, on the CPU.
    ///
    /// # Errors
    /// [`ScoreError::Net`] for an output of another shape than the input, and a batch size of 0.
    pub fn new(weights: Weights, prediction: Prediction, batch: usize) -> Result<Self, ScoreError> {
        Self::at(weights, prediction, batch, Place::Processor)
    }

    /// As [`Self::new`], on a device.
    ///
    /// # Errors
    /// As [`Self::new`]; [`NetError::Device`] for a device that is missing, and for a build without CUDA.
    pub fn on(
        weights: Weights,
        prediction: Prediction,
        batch: usize,
        device: Device,
    ) -> Result<Self, ScoreError> {
        let place = match device {
            Device::Cpu => Place::Processor,
            Device::Cuda(number) => Place::Candle(
                cuda(number).map_err(|reason| NetError::Device { device: device.to_string(), reason })?,
            ),
        };
        Self::at(weights, prediction, batch, place)
    }

    fn at(weights: Weights, prediction: Prediction, batch: usize, device: Place) -> Result<Self, ScoreError> {
        let (input, output) = (weights.graph().input(), weights.graph().output());
        if input != output {
            return Err(NetError::Graph {
                layer: "output".into(),
                reason: format!("the output has shape {output:?}, expected that of the input, {input:?}"),
            }
            .into());
        }
        let idle = || Mutex::new(Vec::new());
        let condition = vec![0.0; weights.graph().condition()];
        let network =
            Self { weights, prediction, condition, batch, device, scores: idle(), products: idle() };
        if batch == 0 {
            return Err(NetError::Rows { operation: NAME, rows: 0, room: usize::MAX }.into());
        }
        network.with(Purpose::Evaluate, |_| Ok(()))?;
        Ok(network)
    }

    /// The same network with a condition, such as the vector of a caption; without this call it is zero, which stands for
    /// none.
    ///
    /// # Errors
    /// [`NetError::Length`] for a vector of another length than the network's condition, and [`OpError::NotFinite`].
    pub fn with_condition(self, condition: &[f32]) -> Result<Self, ScoreError> {
        let (argument, expected) = ("the condition", self.weights.graph().condition());
        if condition.len() != expected {
            let found = condition.len();
            return Err(NetError::Length { operation: NAME, argument, found, expected }.into());
        }
        if let Some(column) = condition.iter().position(|v| !v.is_finite()) {
            let value = f64::from(condition[column]);
            return Err(OpError::NotFinite { operation: NAME, argument, row: 0, column, value }.into());
        }
        Ok(Self { condition: condition.to_vec(), ..self })
    }

    /// The condition for m rows; `None` for a network without one.
    fn condition(&self, m: usize, device: &candle_core::Device) -> Result<Option<Tensor>, NetError> {
        if self.condition.is_empty() {
            return Ok(None);
        }
        let row = Tensor::from_slice(&self.condition, (1, self.condition.len()), device)?;
        Ok(Some(row.broadcast_as((m, self.condition.len()))?.contiguous()?))
    }

    fn with<R>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&mut Worker) -> Result<R, ScoreError>,
    ) -> Result<R, ScoreError> {
        let idle = match purpose {
            Purpose::Evaluate => &self.scores,
            Purpose::Train => &self.products,
        };
        let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        let free = lock().pop();
        let mut worker = match free {
            Some(worker) => worker,
            None => Worker::new(self, purpose)?,
        };
        let done = work(&mut worker);
        lock().push(worker);
        done
    }

    /// Time by kind of operation that scores took on the CPU since the network was made.
    pub fn timings(&self) -> Timings {
        let idle = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().fold(Timings::default(), |sum, worker| match worker {
            Worker::Engine(engine) => sum.plus(engine.timings()),
            Worker::Candle { .. } => sum,
        })
    }

    fn affine(&self, level: Level) -> Affine {
        // Every form is linear in x and in the output.
        let convert = |x, output| level.convert(x, output, self.prediction, Prediction::Score);
        Affine { a: convert(1.0, 0.0), b: convert(0.0, 1.0) }
    }

    /// The network's output for every row of the chunk and every copy.
    fn forward<'w>(&self, worker: &'w mut Worker, chunk: &Chunk<'_>) -> Result<&'w [f32], ScoreError> {
        let (rows, n) = chunk.x.dim();
        let mut x = Vec::with_capacity(chunk.copies * rows * n);
        for row in chunk.x.outer_iter() {
            x.extend(row.iter().map(|v| *v as f32));
        }
        if let Some(place) = x.iter().position(|v| !v.is_finite()) {
            let (row, column, value) = (chunk.start + place / n, place % n, chunk.x[[place / n, place % n]]);
            return Err(OpError::NotFinite { operation: NAME, argument: "x", row, column, value }.into());
        }
        let mut t: Vec<f32> = chunk.levels.iter().map(|level| level.t() as f32).collect();
        for _ in 1..chunk.copies {
            x.extend_from_within(..rows * n);
            t.extend_from_within(..rows);
        }
        Ok(worker.forward(self, &x, &t)?)
    }

    /// The score of a row from the output.
    fn read(
        &self,
        chunk: &Chunk<'_>,
        row: usize,
        output: &[f32],
        mut take: impl FnMut(usize, f64),
    ) -> Result<(), ScoreError> {
        let level = chunk.levels[row];
        let Affine { a, b } = self.affine(level);
        for (k, (x, y)) in chunk.x.row(row).iter().zip(output).enumerate() {
            let value = a * x + b * f64::from(*y);
            if !value.is_finite() {
                return Err(bad_output(chunk.start + row, level, value));
            }
            take(k, value);
        }
        Ok(())
    }

    /// J^T v of each row for `count` directions, with one forward pass for each row and one backward pass for each
    /// direction, in full batches. Returns the scores.
    ///
    /// `direction(d, row, v)` writes a direction into zeros, and `product(d, row, J^T v)` receives the product.
    fn products(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        count: usize,
        mut direction: impl FnMut(usize, usize, &mut [f64]),
        mut product: impl FnMut(usize, usize, &[f64]),
    ) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut scores = Array2::zeros((m, n));
        let (mut v, mut dy, mut dx) = (vec![0.0; n], Vec::new(), Vec::new());
        for start in (0..m).step_by(self.batch) {
            let rows = (m - start).min(self.batch);
            let room = (self.batch / rows).min(count).max(1);
            let passes = count.div_ceil(room);
            let chunk = Chunk {
                x: x.slice(s![start..start + rows, ..]),
                levels: &levels[start..start + rows],
                start,
                copies: count.div_ceil(passes.max(1)).max(1),
            };
            self.with(Purpose::Train, |worker| {
                let output = self.forward(worker, &chunk)?;
                for (row, output) in output.chunks_exact(n).take(rows).enumerate() {
                    self.read(&chunk, row, output, |k, value| scores[[start + row, k]] = value)?;
                }
                dx.resize(chunk.copies * rows * n, 0.0);
                for pass in 0..passes {
                    let first = pass * chunk.copies;
                    let directions = first..count.min(first + chunk.copies);
                    dy.clear();
                    for d in directions.clone() {
                        for row in 0..rows {
                            v.fill(0.0);
                            direction(d, start + row, &mut v);
                            dy.extend(v.iter().map(|v| *v as f32));
                        }
                    }
                    dy.resize(dx.len(), 0.0);
                    worker.backward(self, &dy, &mut dx)?;
                    for (place, dx) in dx.chunks_exact(n).take(directions.len() * rows).enumerate() {
                        let (d, row) = (first + place / rows, place % rows);
                        let level = chunk.levels[row];
                        let Affine { a, b } = self.affine(level);
                        v.fill(0.0);
                        direction(d, start + row, &mut v);
                        for (v, dx) in v.iter_mut().zip(dx) {
                            *v = a * *v + b * f64::from(*dx);
                        }
                        match v.iter().find(|v| !v.is_finite()) {
                            Some(&value) => return Err(bad_output(start + row, level, value)),
                            None => product(d, start + row, &v),
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(scores)
    }
}

fn bad_output(row: usize, level: Level, value: f64) -> ScoreError {
    ScoreError::NotFinite { operation: NAME, row, t: level.t(), value }
}

impl Score for Network {
    fn dim(&self) -> usize {
        self.weights.graph().input().len()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut out = Array2::zeros((m, n));
        for start in (0..m).step_by(self.batch) {
            let rows = start..m.min(start + self.batch);
            let chunk = Chunk { x: x.slice(s![rows.clone(), ..]), levels: &levels[rows], start, copies: 1 };
            self.with(Purpose::Evaluate, |worker| {
                let output = self.forward(worker, &chunk)?;
                for (row, output) in output.chunks_exact(n).enumerate() {
                    let mut out = out.row_mut(start + row);
                    self.read(&chunk, row, output, |k, value| out[k] = value)?;
                }
                Ok(())
            })?;
        }
        Ok(out)
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check_rows(NAME, "v", &v, x.dim())?;
        let mut out = Array2::zeros(x.dim());
        self.products(
            x,
            levels,
            1,
            |_, row, to| to.iter_mut().zip(v.row(row)).for_each(|(to, v)| *to = *v),
            |_, row, product| out.row_mut(row).iter_mut().zip(product).for_each(|(out, p)| *out = *p),
        )?;
        Ok(out)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        Ok(self.score_and_divergence(x, levels)?.1)
    }

    fn score_and_divergence(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
    ) -> Result<(Array2<f64>, Array1<f64>), ScoreError> {
        let mut trace = Array1::zeros(x.nrows());
        let scores = self.products(
            x,
            levels,
            self.dim(),
            |d, _, v| v[d] = 1.0,
            |d, row, product| trace[row] += product[d],
        )?;
        Ok((scores, trace))
    }

    fn score_and_terms(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        directions: &[Array2<f64>],
    ) -> Result<(Array2<f64>, Array2<f64>), ScoreError> {
        for v in directions {
            check_rows(NAME, "v", &v.view(), x.dim())?;
        }
        let mut terms = Array2::zeros((x.nrows(), directions.len()));
        let scores = self.products(
            x,
            levels,
            directions.len(),
            |d, row, to| to.iter_mut().zip(directions[d].row(row)).for_each(|(to, v)| *to = *v),
            |d, row, product| {
                terms[[row, d]] = directions[d].row(row).iter().zip(product).map(|(v, p)| v * p).sum();
            },
        )?;
        Ok((scores, terms))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::{Arch, Builder, ConvSettings, Graph, Init, LayerInit, MlpSettings};
    use crate::process::{Process, Spacing, Steps, Ve, Vp};
    use crate::progress::Silent;
    use crate::random::{Stream, Streams};
    use crate::sample::{Divergence, Flow, Prior, Rk45Settings, ancestral, ddim, euler_maruyama, start};
    use crate::score::{Density, Gaussian, Probe, hutchinson};
    use crate::shape::Shape;
    use ndarray::{Axis, array};
    use rayon::prelude::*;

    /// y = W x + b.
    fn linear(w: &Array2<f64>, b: &[f64]) -> Weights {
        let n = b.len();
        let (mut builder, x) = Builder::new(Shape::vector(n));
        let init = LayerInit { weight: Init::Zeros, bias: Init::Zeros };
        let settings = ConvSettings { side: 1, stride: 1, upsample: false, shift: None, dense: true, init };
        builder.conv("y", x, n, settings).unwrap();
        let graph = Arc::new(builder.finish());
        let mut weights = Weights::init(graph.clone(), 0);
        let single: Vec<f32> = w.iter().map(|v| *v as f32).collect();
        weights.set_file_values(&graph.params()[0], &single).unwrap();
        let single: Vec<f32> = b.iter().map(|v| *v as f32).collect();
        weights.set_file_values(&graph.params()[1], &single).unwrap();
        weights
    }

    /// The score that `linear` is, in double precision.
    struct Direct {
        w: Array2<f64>,
        b: Array1<f64>,
        prediction: Prediction,
    }

    impl Score for Direct {
        fn dim(&self) -> usize {
            self.b.len()
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let y = x.dot(&self.w.t()) + &self.b;
            Ok(Array2::from_shape_fn(x.dim(), |(i, k)| {
                levels[i].convert(x[[i, k]], y[[i, k]], self.prediction, Prediction::Score)
            }))
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            levels: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            // dy/dx = W, and x itself is in the conversion.
            let back = v.dot(&self.w);
            Ok(Array2::from_shape_fn(v.dim(), |(i, k)| {
                levels[i].convert(v[[i, k]], back[[i, k]], self.prediction, Prediction::Score)
            }))
        }
    }

    const FORMS: [Prediction; 4] = [Prediction::Score, Prediction::Epsilon, Prediction::X0, Prediction::V];

    fn matrix() -> (Array2<f64>, Array1<f64>) {
        // Multiples of 1/64, which are the same in single precision.
        let w = array![[-0.25, 0.125, 0.0], [0.1875, -0.5, 0.015625], [0.0625, 0.25, -0.375]];
        (w, array![0.25, -0.5, 0.125])
    }

    fn places(m: usize) -> (Array2<f64>, Vec<Level>) {
        let (vp, ve) = (Vp::default(), Ve::default());
        let levels = (0..m).map(|i| match i % 4 {
            0 => vp.level((i * 37 % 1000) as f64).unwrap(),
            1 => vp.level(0.0).unwrap(),
            2 => ve.level(0.01 + (i % 7) as f64 / 8.0).unwrap(),
            _ => vp.level(500.5).unwrap(),
        });
        (Streams::new(1, "places", 0..m).normal(3), levels.collect())
    }

    fn near(a: &Array2<f64>, b: &Array2<f64>, share: f64) {
        assert_eq!(a.dim(), b.dim());
        for (i, (a, b)) in a.outer_iter().zip(b.outer_iter()).enumerate() {
            let scale = b.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= share * scale, "row {i}: {a} {b}");
            }
        }
    }

    #[test]
    fn a_linear_network_is_its_matrix_in_every_form() {
        let (w, b) = matrix();
        let (x, levels) = places(23);
        let v = Streams::new(2, "directions", 0..23).normal(3);
        for prediction in FORMS {
            let direct = Direct { w: w.clone(), b: b.clone(), prediction };
            for batch in [1, 4, 64] {
                let network = Network::new(linear(&w, b.as_slice().unwrap()), prediction, batch).unwrap();
                // Roundings of a few products of single numbers, about 1, over the sigma of the level, whose inverse
                // is in the score as well; x0 and v have its square, and x of up to 3.
                let share = 1e-6 * 100.0;
                near(
                    &network.score(x.view(), &levels).unwrap(),
                    &direct.score(x.view(), &levels).unwrap(),
                    share,
                );
                near(
                    &network.vjp(x.view(), &levels, v.view()).unwrap(),
                    &direct.vjp(x.view(), &levels, v.view()).unwrap(),
                    share,
                );
                let (score, trace) = network.score_and_divergence(x.view(), &levels).unwrap();
                assert_eq!(score, network.score(x.view(), &levels).unwrap());
                let expected = direct.divergence(x.view(), &levels).unwrap();
                near(&trace.insert_axis(Axis(1)), &expected.insert_axis(Axis(1)), share);
            }
        }
    }

    /// Both samplers' walks are sums and products of the outputs, so a network and its matrix end at the same points.
    #[test]
    fn every_sampler_ends_where_the_matrix_does() {
        let (w, b) = matrix();
        let vp = Vp::default();
        let (leading, even) =
            (vp.steps(50, Spacing::Leading).unwrap(), Steps::even(&vp, 999.0, -1.0, 1000).unwrap());
        for (prediction, w) in
            [(Prediction::X0, w.clone()), (Prediction::V, &w * 0.25), (Prediction::Epsilon, &w * 0.0)]
        {
            let direct = Direct { w: w.clone(), b: b.clone(), prediction };
            let network = Network::new(linear(&w, b.as_slice().unwrap()), prediction, 4).unwrap();
            let run = |score: &dyn Score| {
                let mut streams = Streams::new(4, "samplers", 0..6);
                let x = start(&vp, 3, &mut streams);
                let clip = (prediction != Prediction::X0).then_some(1.0);
                let solver = Rk45Settings { rtol: 1e-6, atol: 1e-6, ..Rk45Settings::default() };
                let flow = Flow { score, process: &vp, solver: solver.check().unwrap() };
                [
                    ddim(score, &leading, x.clone(), clip, &Silent).unwrap(),
                    ancestral(score, &leading, x.clone(), clip, &mut streams, &Silent).unwrap(),
                    euler_maruyama(score, &vp, &even, x.clone(), &mut streams, &Silent).unwrap(),
                    flow.carry(x, (999.0, 20.0), &Silent).unwrap().y,
                ]
            };
            for (got, expected) in run(&network).iter().zip(run(&direct)) {
                // Single precision, through at most 1000 steps that mostly contract.
                near(got, &expected, 2e-4);
            }
        }
    }

    /// The network says x0 = mu whatever it sees: the score of a point, and so of N(mu, sigma^2 t I).
    #[test]
    fn samples_and_likelihoods_of_gaussian_data_are_the_closed_form() {
        let mu = array![0.25, -0.5, 0.125];
        let point = Gaussian::new(mu.clone(), Array1::zeros(3)).unwrap();
        let network =
            Network::new(linear(&Array2::zeros((3, 3)), mu.as_slice().unwrap()), Prediction::X0, 8).unwrap();
        let (ve, vp) = (Ve::default(), Vp::default());
        let mut streams = Streams::new(5, "point", 0..20);
        let x = start(&vp, 3, &mut streams);
        let steps = vp.steps(100, Spacing::Leading).unwrap();
        let to_mu = |x: &Array2<f64>| near(x, &(Array2::zeros(x.dim()) + &mu), 1e-6);
        to_mu(&ddim(&network, &steps, x.clone(), Some(1.0), &Silent).unwrap());
        to_mu(&ancestral(&network, &steps, x, Some(1.0), &mut streams, &Silent).unwrap());

        let solver = Rk45Settings { rtol: 1e-6, atol: 1e-6, ..Rk45Settings::default() }.check().unwrap();
        let x = Streams::new(6, "queries", 0..9).normal(3) * 0.5 + &mu;
        for (process, t) in [(&ve as &dyn Process, 0.05), (&vp, 150.0)] {
            let flow = Flow { score: &network, process, solver };
            let level = process.level(t).unwrap();
            let exact = point.log_density(x.view(), &[level; 9]).unwrap();
            let prior = || Prior::Known(&point);
            let got = flow.log_density(x.view(), t, prior(), Divergence::Exact, &Silent).unwrap();
            // Ten times the integrator's tolerance, for numbers whose slope at the start is 1/sigma^2.
            let scale = 1e-5 / level.sigma().powi(2);
            assert!((&got.log_density - &exact).iter().all(|d| d.abs() < scale), "{got:?} {exact}");
            let mut streams = Streams::new(7, "probes", 0..9);
            let divergence =
                Divergence::Hutchinson { probes: 3, probe: Probe::Rademacher, streams: &mut streams };
            let got = flow.log_density(x.view(), t, prior(), divergence, &Silent).unwrap();
            // J is a multiple of I, so signs are exact.
            assert!((&got.log_density - &exact).iter().all(|d| d.abs() < scale));
        }
        // The velocity of N(0, I) under VP is zero, and so is its network: log p is exactly that of the prior.
        let network = Network::new(linear(&Array2::zeros((3, 3)), &[0.0; 3]), Prediction::V, 8).unwrap();
        let flow = Flow { score: &network, process: &vp, solver };
        let got = flow.log_density(x.view(), 0.0, Prior::Gaussian, Divergence::Exact, &Silent).unwrap();
        let normal = Gaussian::new(Array1::zeros(3), Array1::ones(3)).unwrap();
        let exact = normal.log_density(x.view(), &[vp.level(0.0).unwrap(); 9]).unwrap();
        assert!((&got.log_density - &exact).iter().all(|d| d.abs() < 1e-9), "{got:?} {exact}");
    }

    /// A small network with all kinds of layers, and weights that are not near zero.
    fn mlp() -> (Arc<Graph>, Weights) {
        let arch = Arch::Mlp(MlpSettings { width: 24, blocks: 2, time: 8, dropout: 0.1 });
        let graph = arch.graph(Shape::image(2, 3, 1)).unwrap();
        let mut weights = Weights::init(graph.clone(), 1);
        let mut stream = Stream::new(1, "weights");
        weights.values_mut().iter_mut().for_each(|w| *w += 0.15 * stream.normal() as f32);
        (graph, weights)
    }

    #[test]
    fn products_and_traces_are_the_slopes_of_the_network_in_double_precision() {
        let (_, weights) = mlp();
        let n = 6;
        let vp = Vp::default();
        let levels: Vec<Level> = [5.0, 60.5, 400.0, 999.0].map(|t| vp.level(t).unwrap()).to_vec();
        // What single precision holds, so that both see the same x.
        let single = |m: Array2<f64>| m.mapv(|v| f64::from(v as f32));
        let x = single(Streams::new(1, "x", 0..4).normal(n));
        let v = single(Streams::new(2, "v", 0..4).normal(n));
        let t = Tensor::from_iter(levels.iter().map(|l| l.t()), &candle_core::Device::Cpu).unwrap();
        let double = CandleNet::new(&weights, DType::F64, &candle_core::Device::Cpu).unwrap();
        for prediction in FORMS {
            let network = Network::new(weights.clone(), prediction, 5).unwrap();
            let exact = |x: &Array2<f64>| -> Array2<f64> {
                let rows = Tensor::from_iter(x.iter().copied(), &candle_core::Device::Cpu)
                    .unwrap()
                    .reshape((4, n))
                    .unwrap();
                let y =
                    double.forward(&rows, &t, None, None).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let y = Array2::from_shape_vec((4, n), y).unwrap();
                Array2::from_shape_fn((4, n), |(i, k)| {
                    levels[i].convert(x[[i, k]], y[[i, k]], prediction, Prediction::Score)
                })
            };
            // Sums of tens of single numbers, with the division by sigma (0.08 at the least) and its square.
            let share = 2e-5;
            near(&network.score(x.view(), &levels).unwrap(), &exact(&x), share);
            let h = 1e-5;
            let (mut trace, mut back) = (Array1::<f64>::zeros(4), Array2::zeros((4, n)));
            for k in 0..n {
                let mut unit = Array2::zeros((4, n));
                unit.column_mut(k).fill(h);
                let slope = (exact(&(&x + &unit)) - exact(&(&x - &unit))) / (2.0 * h);
                trace += &slope.column(k);
                back.column_mut(k).assign(&(&slope * &v).sum_axis(Axis(1)));
            }
            let scaled = |a: &Array2<f64>| {
                let mut a = a.clone();
                for (mut row, level) in a.outer_iter_mut().zip(&levels) {
                    row *= level.sigma();
                }
                a
            };
            let got = network.vjp(x.view(), &levels, v.view()).unwrap();
            near(&scaled(&got), &scaled(&back), 1e-4);
            let got = network.divergence(x.view(), &levels).unwrap();
            near(&scaled(&got.clone().insert_axis(Axis(1))), &scaled(&trace.insert_axis(Axis(1))), 1e-4);
            // Products along the axes are the trace's terms, to the bit.
            let units: Vec<Array2<f64>> =
                (0..n).map(|k| Array2::from_shape_fn((4, n), |(_, j)| f64::from(u8::from(j == k)))).collect();
            let (score, terms) = network.score_and_terms(x.view(), &levels, &units).unwrap();
            assert_eq!(score, network.score(x.view(), &levels).unwrap());
            assert_eq!(terms.sum_axis(Axis(1)), got);
            assert_eq!(hutchinson(&network, x.view(), &levels, &units).unwrap(), terms);
        }
    }

    #[test]
    fn a_row_is_the_same_in_any_batch_and_from_any_thread() {
        let (_, weights) = mlp();
        let vp = Vp::default();
        let m = 37;
        let x = Streams::new(3, "x", 0..m).normal(6);
        let levels: Vec<Level> = (0..m).map(|i| vp.level((i * 27) as f64).unwrap()).collect();
        let network = |batch| Network::new(weights.clone(), Prediction::Epsilon, batch).unwrap();
        let whole = network(64);
        let score = whole.score(x.view(), &levels).unwrap();
        let trace = whole.divergence(x.view(), &levels).unwrap();
        let v = Streams::new(4, "v", 0..m).normal(6);
        let product = whole.vjp(x.view(), &levels, v.view()).unwrap();
        for batch in [1, 5, 16] {
            let other = network(batch);
            assert_eq!(score, other.score(x.view(), &levels).unwrap());
            assert_eq!(trace, other.divergence(x.view(), &levels).unwrap());
            assert_eq!(product, other.vjp(x.view(), &levels, v.view()).unwrap());
        }
        (0..m).into_par_iter().for_each(|i| {
            let (x, level) = (x.slice(s![i..i + 1, ..]), &levels[i..=i]);
            assert_eq!(score.row(i), whole.score(x, level).unwrap().row(0));
            assert_eq!(trace[i], whole.divergence(x, level).unwrap()[0]);
        });
    }

    #[test]
    fn candle_and_the_engine_agree() {
        let (_, weights) = mlp();
        let vp = Vp::default();
        let x = Streams::new(3, "x", 0..9).normal(6);
        let levels: Vec<Level> = (0..9).map(|i| vp.level((50 + i * 100) as f64).unwrap()).collect();
        let engine = Network::new(weights.clone(), Prediction::V, 4).unwrap();
        let candle =
            Network::at(weights.clone(), Prediction::V, 4, Place::Candle(candle_core::Device::Cpu)).unwrap();
        // Single precision both, in another order.
        near(&candle.score(x.view(), &levels).unwrap(), &engine.score(x.view(), &levels).unwrap(), 1e-4);
        let trace = |network: &Network| network.divergence(x.view(), &levels).unwrap().insert_axis(Axis(1));
        near(&trace(&candle), &trace(&engine), 1e-4);
        #[cfg(not(feature = "cuda"))]
        {
            let e = Network::on(weights, Prediction::V, 4, Device::Cuda(0)).err().unwrap();
            assert!(matches!(e, ScoreError::Net(NetError::Device { .. })), "{e}");
            assert!(e.to_string().starts_with("device cuda:0: this program was built without CUDA"), "{e}");
        }
    }

    #[test]
    fn errors_name_the_argument() {
        let (_, weights) = mlp();
        let vp = Vp::default();
        let levels = [vp.level(5.0).unwrap(); 3];
        let network = Network::new(weights.clone(), Prediction::Epsilon, 2).unwrap();
        let mut x = Array2::from_elem((3, 6), 0.1);
        for bad in [f64::NAN, f64::INFINITY, 1e300] {
            x[[2, 4]] = bad;
            let not_finite =
                |e| matches!(e, ScoreError::Op(OpError::NotFinite { argument: "x", row: 2, column: 4, .. }));
            assert!(not_finite(network.score(x.view(), &levels).unwrap_err()));
            assert!(not_finite(network.divergence(x.view(), &levels).unwrap_err()));
        }
        x[[2, 4]] = 0.1;
        let clean = [levels[0], levels[0], vp.level(-1.0).unwrap()];
        let e = network.score(x.view(), &clean).unwrap_err();
        assert!(matches!(e, ScoreError::Clean { row: 2, .. }), "{e}");
        let e = network.vjp(x.view(), &levels, Array2::zeros((3, 5)).view()).unwrap_err();
        assert!(matches!(e, ScoreError::Op(OpError::Shape { argument: "v", .. })), "{e}");
        let e = Network::new(weights, Prediction::Epsilon, 0).err().unwrap();
        assert!(matches!(e, ScoreError::Net(NetError::Rows { .. })), "{e}");

        // A weight that overflows for large x alone: 3e38 times 2.
        let huge = Network::new(linear(&array![[3e38]], &[0.0]), Prediction::Epsilon, 2).unwrap();
        let x = array![[0.5], [-1.0], [2.0]];
        let e = huge.score(x.view(), &levels).unwrap_err();
        assert!(matches!(e, ScoreError::NotFinite { row: 2, t: 5.0, .. }), "{e}");
        let e = huge.divergence(x.view(), &levels).unwrap_err();
        assert!(matches!(e, ScoreError::NotFinite { row: 2, .. }), "{e}");
        // Samplers know the sample by its own number.
        let e = ddim(&huge, &vp.steps(3, Spacing::Leading).unwrap(), x, None, &Silent).unwrap_err();
        assert!(matches!(e, crate::sample::SampleError::NotFinite { sample: 2, step: 0, .. }), "{e}");

        let (mut b, x) = Builder::new(Shape::vector(3));
        let init = LayerInit { weight: Init::Ones, bias: Init::Zeros };
        let settings = ConvSettings { side: 1, stride: 1, upsample: false, shift: None, dense: true, init };
        b.conv("y", x, 2, settings).unwrap();
        let narrow = Weights::init(Arc::new(b.finish()), 0);
        let e = Network::new(narrow, Prediction::X0, 1).err().unwrap();
        assert!(matches!(e, ScoreError::Net(NetError::Graph { .. })), "{e}");
    }
}
