//! The CPU engine: forward and backward passes of a graph in f32, in buffers that are allocated once.
//!
//! A [`plan::Plan`] fixes the order of operations and the buffer that each writes. The result of a row is computed by
//! the same sequence of operations whatever the other rows are, and sums over rows are split by the sizes alone, so that
//! no result depends on the number of threads.

mod attention;
mod dropout;
mod given;
mod linear;
mod norm;
mod passes;
mod plan;
mod time;
mod timings;

#[cfg(test)]
mod tests;

use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use attention::Attention;
use norm::Norm;
use passes::{Blocks, Silu};
use plan::{Backward, Plan, Wanted};
use time::Waves;

pub use dropout::Dropout;
pub use given::Given;
pub(crate) use linear::Linear;
pub use timings::{Part, Timings};

use super::{Graph, NetError, Node, Op, ParamId};
use crate::ops::Buffer;

/// Purpose of an [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward passes only; buffers are reused as soon as nothing reads them.
    Evaluate,
    /// Forward and backward passes; the values that a backward pass reads are kept.
    Train,
}

/// Evaluates a graph on the CPU, for batches up to a fixed size.
///
/// ```
/// use mem2gen::net::{Arch, Engine, Purpose, ToySettings, Weights};
/// use mem2gen::shape::Shape;
///
/// let graph = Arch::Toy(ToySettings::code()).graph(Shape::vector(2))?;
/// let weights = Weights::init(graph.clone(), 1);
/// let mut engine = Engine::new(graph, 4, Purpose::Evaluate)?;
/// let (x, t) = ([0.5, -1.0, 0.25, 0.0], [0.1, 0.9]);
/// let y = engine.forward(weights.values(), &x, &t, None)?.to_vec();
/// // A row does not depend on the others.
/// assert_eq!(engine.forward(weights.values(), &x[2..], &t[1..], None)?, &y[2..]);
/// # Ok::<(), mem2gen::net::NetError>(())
/// ```
pub struct Engine {
    graph: Arc<Graph>,
    rows: usize,
    plan: Plan,
    kernels: Vec<Kernel>,
    slots: Vec<Buffer<f32>>,
    /// Batch size and dropout of the last forward pass.
    last: Option<(usize, Option<Dropout>)>,
    timings: Timings,
}

/// Implementation of a node.
enum Kernel {
    Input,
    Condition,
    Waves(Waves),
    /// Random frequencies, which are part of the weights.
    Fourier(Waves, Range<usize>),
    Linear {
        linear: Box<Linear>,
        weight: Range<usize>,
        bias: Range<usize>,
        dense: bool,
    },
    Norm {
        norm: Norm,
        scale: Range<usize>,
        shift: Range<usize>,
    },
    Silu(Silu),
    Attention(Attention),
    Add,
    Concat,
    Fold(Blocks),
    Unfold(Blocks),
}

impl Engine {
    /// An engine for batches of at most `rows` samples.
    ///
    /// # Errors
    /// [`NetError::Rows`] for 0 rows; [`NetError::Memory`] for more than fit into memory.
    pub fn new(graph: Arc<Graph>, rows: usize, purpose: Purpose) -> Result<Self, NetError> {
        if rows == 0 {
            return Err(NetError::Rows { operation: "engine", rows, room: usize::MAX });
        }
        let plan = Plan::new(&graph, purpose);
        plan.fits(rows)?;
        let kernels = (0..graph.nodes().len()).map(|n| Kernel::new(&graph, n, rows)).collect();
        let slots = plan.slots.iter().map(|n| Buffer::new(n * rows)).collect();
        Ok(Self { graph, rows, plan, kernels, slots, last: None, timings: Timings::default() })
    }

    /// Refuses a batch whose activations do not fit into memory, as [`Self::new`] does, without taking memory.
    ///
    /// # Errors
    /// [`NetError::Memory`].
    pub fn fits(graph: &Graph, rows: usize, purpose: Purpose) -> Result<(), NetError> {
        Plan::new(graph, purpose).fits(rows)
    }

    /// Time by kind of operation since the engine was made or [`Self::reset_timings`] was called.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Sets all times to zero.
    pub fn reset_timings(&mut self) {
        self.timings = Timings::default();
    }

    /// The output `[m, outputs]` for samples `[m, inputs]` at times `[m]` and, for a network that has one, with a condition
    /// `[m, condition]`. A row of the output depends on no other row and not on m, except that dropout depends on the index
    /// of the row.
    ///
    /// # Errors
    /// [`NetError::Rows`] for an empty or too large batch, [`NetError::Length`] for arrays of another length.
    pub fn forward<'a>(
        &mut self,
        weights: &[f32],
        x: &[f32],
        given: impl Into<Given<'a>>,
        dropout: Option<Dropout>,
    ) -> Result<&[f32], NetError> {
        const OPERATION: &str = "forward";
        let Given { t, condition } = given.into();
        let m = t.len();
        if m == 0 || m > self.rows {
            return Err(NetError::Rows { operation: OPERATION, rows: m, room: self.rows });
        }
        check(OPERATION, "weights", weights.len(), self.graph.len())?;
        check(OPERATION, "x", x.len(), m * self.graph.input().len())?;
        check(OPERATION, "condition", condition.len(), m * self.graph.condition())?;
        self.last = None;
        let nodes = self.graph.nodes();
        let Self { plan, kernels, slots, timings, .. } = self;
        // In a thread of the pool, so that operations do not enter the pool one by one.
        rayon::scope(|_| {
            for step in &plan.steps {
                let shape = nodes[step.node].shape;
                let clock = Instant::now();
                let mut buffer = take(&mut slots[step.out]);
                let y = &mut buffer[..m * shape.len()];
                let read = |i: usize| &slots[step.inputs[i]][..];
                let part = match &mut kernels[step.node] {
                    Kernel::Input => {
                        y.copy_from_slice(x);
                        Part::Copy
                    }
                    Kernel::Condition => {
                        y.copy_from_slice(condition);
                        Part::Copy
                    }
                    Kernel::Waves(waves) => {
                        waves.forward(t, y);
                        Part::Time
                    }
                    Kernel::Fourier(waves, frequencies) => {
                        for (w, f) in waves.frequencies.iter_mut().zip(&weights[frequencies.clone()]) {
                            *w = f64::from(*f);
                        }
                        waves.forward(t, y);
                        Part::Time
                    }
                    Kernel::Linear { linear, weight, bias, dense } => {
                        let shift = step.inputs.get(1).map(|s| &slots[*s][..m * shape.channels]);
                        let add = step.add.map(|s| &slots[s][..m * shape.len()]);
                        let of_x = nodes[step.node].inputs[0];
                        let x = &read(0)[..m * nodes[of_x.0].shape.len()];
                        linear.forward(m, x, &weights[weight.clone()], &weights[bias.clone()], shift, add, y);
                        if *dense { Part::Dense } else { Part::Conv }
                    }
                    Kernel::Norm { norm, scale, shift } => {
                        let affine = (&weights[scale.clone()], &weights[shift.clone()]);
                        norm.forward(m, read(0), affine, y, dropout);
                        Part::Norm
                    }
                    Kernel::Silu(silu) => {
                        silu.forward(m, read(0), y, dropout);
                        Part::Silu
                    }
                    Kernel::Attention(attention) => {
                        attention.forward(m, read(0), read(1), read(2), y);
                        Part::Attention
                    }
                    Kernel::Add => {
                        passes::sum(&read(0)[..y.len()], &read(1)[..y.len()], y);
                        Part::Copy
                    }
                    Kernel::Concat => {
                        let [a, b] = channels(&self.graph, step.node);
                        passes::concat(m * shape.pixels(), (read(0), a), (read(1), b), y);
                        Part::Copy
                    }
                    Kernel::Fold(blocks) => {
                        blocks.fold(&read(0)[..y.len()], y, false);
                        Part::Copy
                    }
                    Kernel::Unfold(blocks) => {
                        blocks.unfold(&read(0)[..y.len()], y, false);
                        Part::Copy
                    }
                };
                slots[step.out] = buffer;
                timings.add(part, clock);
            }
        });
        self.last = Some((m, dropout));
        Ok(&self.slots[self.plan.output][..m * self.graph.output().len()])
    }

    /// Gradients of sum(dy * y) for the output y of the last forward pass: `dweights` with respect to the trained weights
    /// and `dx` with respect to the samples, each of which may be left out. Both are overwritten. One forward pass serves
    /// any number of calls.
    ///
    /// # Errors
    /// [`NetError::Backward`] without a forward pass or for an engine that is not for training; [`NetError::Length`].
    pub fn backward(
        &mut self,
        weights: &[f32],
        dy: &[f32],
        mut dweights: Option<&mut [f32]>,
        dx: Option<&mut [f32]>,
    ) -> Result<(), NetError> {
        const OPERATION: &str = "backward";
        if self.plan.backward.is_empty() {
            return Err(NetError::Backward {
                reason: "the engine was made for evaluation, expected Purpose::Train",
            });
        }
        let Some((m, dropout)) = self.last else {
            return Err(NetError::Backward { reason: "no forward pass precedes it" });
        };
        check(OPERATION, "weights", weights.len(), self.graph.len())?;
        check(OPERATION, "dy", dy.len(), m * self.graph.output().len())?;
        if let Some(dweights) = &dweights {
            check(OPERATION, "dweights", dweights.len(), self.graph.trained())?;
        }
        if let Some(dx) = &dx {
            check(OPERATION, "dx", dx.len(), m * self.graph.input().len())?;
        }
        let wanted = Wanted { weights: dweights.is_some(), input: dx.is_some() };
        let Some(place) = Wanted::ALL.iter().position(|w| *w == wanted) else { return Ok(()) };
        let Self { graph, plan, kernels, slots, timings, .. } = self;
        let (graph, plan) = (&**graph, &*plan);
        let backward = &plan.backward[place];
        if let Some(dweights) = dweights.as_deref_mut() {
            clear(graph, backward, dweights);
        }
        if let Some(slot) = backward.output {
            slots[slot][..dy.len()].copy_from_slice(dy);
        }
        rayon::scope(|_| {
            for back in &backward.steps {
                let step = &plan.steps[back.step];
                let dweights = if back.weights { dweights.as_deref_mut() } else { None };
                back_step(
                    Call { graph, m, weights, dropout, back, step },
                    &mut kernels[step.node],
                    slots,
                    dweights,
                    timings,
                );
            }
        });
        if let Some(dx) = dx {
            match backward.input {
                Some(slot) => dx.copy_from_slice(&slots[slot][..dx.len()]),
                None => dx.fill(0.0),
            }
        }
        Ok(())
    }
}

/// Arguments of [`back_step`] that it only reads.
#[derive(Clone, Copy)]
struct Call<'a> {
    graph: &'a Graph,
    m: usize,
    weights: &'a [f32],
    dropout: Option<Dropout>,
    back: &'a plan::BackStep,
    step: &'a plan::Step,
}

fn back_step(
    call: Call<'_>,
    kernel: &mut Kernel,
    slots: &mut [Buffer<f32>],
    dweights: Option<&mut [f32]>,
    timings: &mut Timings,
) {
    let Call { graph, m, weights, dropout, back, step } = call;
    let shape = graph.nodes()[step.node].shape;
    let n = m * shape.len();
    let clock = Instant::now();
    let part = match kernel {
        Kernel::Input | Kernel::Condition | Kernel::Waves(_) | Kernel::Fourier(..) => Part::Time,
        Kernel::Linear { linear, weight, bias, dense } => {
            if let Some(to) = back.targets[0] {
                let mut dx = take(&mut slots[to.slot]);
                let of_x = graph.nodes()[step.node].inputs[0];
                let len = m * graph.node(of_x).shape.len();
                let dy = &slots[back.dy][..n];
                linear.backward_input(m, dy, &weights[weight.clone()], &mut dx[..len], to.accumulate);
                slots[to.slot] = dx;
                timings.add(if *dense { Part::DenseInput } else { Part::ConvInput }, clock);
            }
            let clock = Instant::now();
            let to = back.targets.get(1).copied().flatten();
            let mut shift = to.map(|to| (to, take(&mut slots[to.slot])));
            let dshift =
                shift.as_mut().map(|(to, buffer)| (&mut buffer[..m * shape.channels], to.accumulate));
            let dy = &slots[back.dy][..n];
            match (dweights, dshift) {
                (Some(dweights), dshift) => {
                    let of_x = graph.nodes()[step.node].inputs[0];
                    let x = &slots[step.inputs[0]][..m * graph.node(of_x).shape.len()];
                    let (dweight, dbias) = two(dweights, weight, bias);
                    linear.backward_weight(m, x, dy, dweight, dbias, dshift);
                }
                (None, Some((dshift, accumulate))) => {
                    passes::pixel_sums(dy, (shape.pixels(), shape.channels), dshift, accumulate);
                }
                (None, None) => {}
            }
            if let Some((to, buffer)) = shift {
                slots[to.slot] = buffer;
            }
            timings.add(if *dense { Part::DenseWeight } else { Part::ConvWeight }, clock);
            add_back(call, slots, timings);
            return;
        }
        Kernel::Norm { norm, scale, shift } => {
            let mut dx = back.targets[0].map(|to| (to, take(&mut slots[to.slot])));
            norm.backward(
                m,
                &slots[step.inputs[0]],
                &slots[back.dy],
                (&weights[scale.clone()], &weights[shift.clone()]),
                dx.as_mut().map(|(to, dx)| (&mut dx[..n], to.accumulate)),
                dweights.map(|d| two(d, scale, shift)),
                dropout,
            );
            if let Some((to, dx)) = dx {
                slots[to.slot] = dx;
            }
            Part::NormBackward
        }
        Kernel::Silu(silu) => {
            if let Some(to) = back.targets[0] {
                let mut dx = take(&mut slots[to.slot]);
                let (x, dy) = (&slots[step.inputs[0]], &slots[back.dy]);
                silu.backward(m, x, dy, &mut dx, to.accumulate, dropout);
                slots[to.slot] = dx;
            }
            Part::SiluBackward
        }
        Kernel::Attention(attention) => {
            let mut targets: [_; 3] =
                std::array::from_fn(|i| back.targets[i].map(|to| (to, take(&mut slots[to.slot]))));
            let read = |i: usize| &slots[step.inputs[i]][..n];
            let [dq, dk, dv] =
                targets.each_mut().map(|t| t.as_mut().map(|(to, d)| (&mut d[..n], to.accumulate)));
            attention.backward(m, (read(0), read(1), read(2)), &slots[back.dy][..n], [dq, dk, dv]);
            for (to, buffer) in targets.into_iter().flatten() {
                slots[to.slot] = buffer;
            }
            Part::AttentionBackward
        }
        Kernel::Add => {
            for to in back.targets.iter().flatten() {
                let mut dx = take(&mut slots[to.slot]);
                passes::copy(&slots[back.dy][..n], &mut dx[..n], to.accumulate);
                slots[to.slot] = dx;
            }
            Part::Copy
        }
        Kernel::Concat => {
            let widths = channels(graph, step.node);
            for (i, to) in back.targets.iter().enumerate().filter_map(|(i, to)| Some((i, (*to)?))) {
                let mut dx = take(&mut slots[to.slot]);
                let from = if i == 0 { 0 } else { widths[0] };
                let dy = (&slots[back.dy][..n], shape.channels);
                passes::split(m * shape.pixels(), dy, from, (&mut dx, widths[i]), to.accumulate);
                slots[to.slot] = dx;
            }
            Part::Copy
        }
        Kernel::Fold(blocks) => {
            if let Some(to) = back.targets[0] {
                let mut dx = take(&mut slots[to.slot]);
                blocks.unfold(&slots[back.dy][..n], &mut dx[..n], to.accumulate);
                slots[to.slot] = dx;
            }
            Part::Copy
        }
        Kernel::Unfold(blocks) => {
            if let Some(to) = back.targets[0] {
                let mut dx = take(&mut slots[to.slot]);
                blocks.fold(&slots[back.dy][..n], &mut dx[..n], to.accumulate);
                slots[to.slot] = dx;
            }
            Part::Copy
        }
    };
    timings.add(part, clock);
    add_back(call, slots, timings);
}

/// Gradients that are copies of others.
fn add_back(call: Call<'_>, slots: &mut [Buffer<f32>], timings: &mut Timings) {
    let Call { graph, m, back, step, .. } = call;
    let clock = Instant::now();
    if let Some(to) = back.add {
        let n = m * graph.nodes()[step.node].shape.len();
        let mut dx = take(&mut slots[to.slot]);
        passes::copy(&slots[back.dy][..n], &mut dx[..n], to.accumulate);
        slots[to.slot] = dx;
    }
    for fold in &back.folds {
        let mut sum = take(&mut slots[fold.to]);
        let n = m * fold.len;
        passes::copy(&slots[fold.from][..n], &mut sum[..n], true);
        slots[fold.to] = sum;
    }
    timings.add(Part::Copy, clock);
}

impl Kernel {
    fn new(graph: &Graph, node: usize, rows: usize) -> Self {
        let Node { op, inputs, shape, .. } = &graph.nodes()[node];
        let range = |id: ParamId| {
            let p = graph.param(id);
            p.offset..p.offset + p.layout.len()
        };
        match *op {
            Op::Input => Self::Input,
            Op::Condition => Self::Condition,
            Op::Sinusoid { period } => Self::Waves(Waves::sinusoid(shape.channels, period)),
            Op::Fourier { frequencies } => {
                let frequencies = range(frequencies);
                Self::Fourier(Waves { frequencies: vec![0.0; frequencies.len()] }, frequencies)
            }
            Op::Conv { weight, bias, side, stride, upsample } => {
                let from = graph.node(inputs[0]).shape;
                let linear = Linear::new(from, shape.channels, side, stride, upsample, rows);
                Self::Linear {
                    linear: Box::new(linear),
                    weight: range(weight),
                    bias: range(bias),
                    dense: side == 1,
                }
            }
            Op::Norm { scale, shift, groups, epsilon, silu, dropout: rate } => {
                let settings = norm::Settings { node, shape: *shape, groups, epsilon, silu, rate };
                Self::Norm { norm: Norm::new(settings, rows), scale: range(scale), shift: range(shift) }
            }
            Op::Silu { dropout: rate } => Self::Silu(Silu { node, len: shape.len(), rate }),
            Op::Attention => Self::Attention(Attention { shape: *shape }),
            Op::Add => Self::Add,
            Op::Concat => Self::Concat,
            Op::Fold { side } => Self::Fold(Blocks { coarse: *shape, side }),
            Op::Unfold { side } => Self::Unfold(Blocks { coarse: graph.node(inputs[0]).shape, side }),
        }
    }
}

fn check(
    operation: &'static str,
    argument: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), NetError> {
    if found == expected { Ok(()) } else { Err(NetError::Length { operation, argument, found, expected }) }
}

/// Channels of the two inputs of a node.
fn channels(graph: &Graph, node: usize) -> [usize; 2] {
    let inputs = &graph.nodes()[node].inputs;
    [0, 1].map(|i| graph.node(inputs[i]).shape.channels)
}

/// Two disjoint parts of a slice.
fn two<'a>(all: &'a mut [f32], a: &Range<usize>, b: &Range<usize>) -> (&'a mut [f32], &'a mut [f32]) {
    if a.start <= b.start {
        let (low, high) = all.split_at_mut(b.start);
        (&mut low[a.clone()], &mut high[..b.len()])
    } else {
        let (b, a) = two(all, b, a);
        (a, b)
    }
}

/// The trained parameters of an operation.
fn params(op: Op) -> [Option<ParamId>; 2] {
    match op {
        Op::Conv { weight, bias, .. } => [Some(weight), Some(bias)],
        Op::Norm { scale, shift, .. } => [Some(scale), Some(shift)],
        _ => [None; 2],
    }
}

/// Sets the gradient of parameters that the output does not depend on to zero.
fn clear(graph: &Graph, backward: &Backward, dweights: &mut [f32]) {
    let mut written = vec![false; graph.params().len()];
    for (node, _) in graph.nodes().iter().zip(&backward.reached).filter(|(_, reached)| **reached) {
        for id in params(node.op).into_iter().flatten() {
            written[id.0] = true;
        }
    }
    for (p, _) in graph.params().iter().zip(written).filter(|(p, written)| p.trained && !written) {
        dweights[p.offset..p.offset + p.layout.len()].fill(0.0);
    }
}
