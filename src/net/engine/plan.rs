//! Order of a graph's operations, and the buffers they use.

use crate::net::{Graph, NetError, Op};
use crate::store::memory_left;

use super::Purpose;

/// The operations of forward and backward passes. Buffers are indices into `slots`.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// For each of [`Wanted::ALL`]; empty for an engine that only evaluates.
    pub(super) backward: Vec<Backward>,
    /// Elements per row of each buffer.
    pub(super) slots: Vec<usize>,
    pub(super) output: usize,
}

/// One operation.
pub(super) struct Step {
    /// The node whose operation it is.
    pub(super) node: usize,
    /// The buffers of its inputs.
    pub(super) inputs: Vec<usize>,
    /// The buffer that a linear map adds to its result.
    pub(super) add: Option<usize>,
    pub(super) out: usize,
}

/// The gradients that a backward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) weights: bool,
    pub(super) input: bool,
}

impl Wanted {
    pub(super) const ALL: [Self; 3] = [
        Self { weights: true, input: false },
        Self { weights: false, input: true },
        Self { weights: true, input: true },
    ];
}

/// The operations of a backward pass.
pub(super) struct Backward {
    /// The buffer of the gradient of the output; `None` when it is not needed.
    pub(super) output: Option<usize>,
    pub(super) steps: Vec<BackStep>,
    /// The buffer of the gradient of the input.
    pub(super) input: Option<usize>,
    /// Whether the gradient reaches the parameters of each node; otherwise it is zero.
    pub(super) reached: Vec<bool>,
}

/// The gradient of one operation.
pub(super) struct BackStep {
    /// Index in [`Plan::steps`].
    pub(super) step: usize,
    /// The buffer of the gradient of its result.
    pub(super) dy: usize,
    /// Whether gradients of its parameters are computed.
    pub(super) weights: bool,
    /// Targets of the gradients of its inputs; `None` when one is not needed, or when the buffer `dy` becomes it.
    pub(super) targets: Vec<Option<Target>>,
    /// Target of the gradient of the value that a linear map added.
    pub(super) add: Option<Target>,
    /// Buffers that are added to others at the end, for inputs that the operation reads twice.
    pub(super) folds: Vec<Fold>,
}

/// A buffer that a gradient is written to.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) slot: usize,
    /// Whether it is added to the content of the buffer.
    pub(super) accumulate: bool,
}

/// A buffer that is added to another.
pub(super) struct Fold {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Elements per row.
    pub(super) len: usize,
}

/// Buffers, and the free ones among them.
struct Pool {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    /// The smallest free buffer that is large enough, among equals the one that was freed last; else the largest free
    /// buffer, enlarged.
    fn take(&mut self, size: usize) -> usize {
        let fits = |s: &usize| self.sizes[*s] >= size;
        let place = (0..self.free.len()).rev().min_by_key(|&i| {
            let s = self.free[i];
            if fits(&s) { (false, self.sizes[s]) } else { (true, usize::MAX - self.sizes[s]) }
        });
        match place {
            Some(i) => {
                let s = self.free.remove(i);
                self.sizes[s] = self.sizes[s].max(size);
                s
            }
            None => {
                self.sizes.push(size);
                self.sizes.len() - 1
            }
        }
    }

    fn give(&mut self, slot: usize) {
        self.free.push(slot);
    }
}

/// An operation on nodes, before buffers are chosen.
struct Work {
    /// The node whose operation it is.
    node: usize,
    inputs: Vec<usize>,
    add: Option<usize>,
    /// The node whose value it computes: `node`, or the sum that `node` was merged into.
    gives: usize,
}

impl Work {
    fn reads(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().copied().chain(self.add)
    }
}

impl Plan {
    /// Refuses batches of `rows` samples whose buffers do not fit into memory.
    pub(super) fn fits(&self, rows: usize) -> Result<(), NetError> {
        let values: usize = self.slots.iter().sum();
        let needed = (size_of::<f32>() as u64).saturating_mul(values as u64).saturating_mul(rows as u64);
        // The system is asked only where it may have too little.
        let left = if needed < 1 << 30 { None } else { memory_left() };
        match left {
            Some(left) if needed > left => Err(NetError::Memory { rows, needed, left }),
            _ => Ok(()),
        }
    }

    pub(super) fn new(graph: &Graph, purpose: Purpose) -> Self {
        let work = work(graph);
        let size = |n: usize| graph.nodes()[n].shape.len();
        let count = graph.nodes().len();

        // Values that the backward pass reads are kept.
        let mut kept = vec![false; count];
        if purpose == Purpose::Train {
            for w in &work {
                match graph.nodes()[w.node].op {
                    Op::Conv { .. } | Op::Norm { .. } | Op::Silu { .. } => kept[w.inputs[0]] = true,
                    Op::Attention => w.inputs.iter().for_each(|i| kept[*i] = true),
                    _ => {}
                }
            }
        }
        kept[count - 1] = true;
        let mut last = vec![0; count];
        for (i, w) in work.iter().enumerate() {
            w.reads().for_each(|n| last[n] = i);
        }
        let mut pool = Pool { sizes: vec![], free: vec![] };
        let mut slots = vec![usize::MAX; count];
        let mut steps = vec![];
        for (i, w) in work.iter().enumerate() {
            slots[w.gives] = pool.take(size(w.gives));
            steps.push(Step {
                node: w.node,
                inputs: w.inputs.iter().map(|n| slots[*n]).collect(),
                add: w.add.map(|n| slots[n]),
                out: slots[w.gives],
            });
            let mut done: Vec<usize> = w.reads().filter(|n| last[*n] == i && !kept[*n]).collect();
            done.sort_unstable();
            done.dedup();
            done.into_iter().for_each(|n| pool.give(slots[n]));
        }
        let mut backward = vec![];
        if purpose == Purpose::Train {
            let (free, own) = (pool.free.clone(), pool.sizes.len());
            for wanted in Wanted::ALL {
                pool.free = free.iter().copied().chain(own..pool.sizes.len()).collect();
                backward.push(Backward::new(graph, &work, wanted, &mut pool));
            }
        }
        Self { steps, backward, slots: pool.sizes, output: slots[count - 1] }
    }
}

/// The operations that the output depends on, in order. A sum is merged into one of its linear maps if nothing else reads
/// that map.
fn work(graph: &Graph) -> Vec<Work> {
    let nodes = graph.nodes();
    let mut readers = vec![0; nodes.len()];
    let mut needed = vec![false; nodes.len()];
    needed[nodes.len() - 1] = true;
    for (n, node) in nodes.iter().enumerate().rev().filter(|(n, _)| *n > 0) {
        if needed[n] {
            for i in &node.inputs {
                needed[i.0] = true;
                readers[i.0] += 1;
            }
        }
    }
    let mut folded = vec![false; nodes.len()];
    let mut into = vec![None; nodes.len()];
    for (n, node) in nodes.iter().enumerate().filter(|(n, node)| needed[*n] && node.op == Op::Add) {
        let [a, b] = [node.inputs[0].0, node.inputs[1].0];
        let alone = |i: usize| matches!(nodes[i].op, Op::Conv { .. }) && readers[i] == 1;
        let pair = if alone(a) { Some((a, b)) } else { alone(b).then_some((b, a)) };
        if let Some((linear, other)) = pair {
            folded[linear] = true;
            into[n] = Some((linear, other));
        }
    }
    let mut work = vec![];
    for n in (0..nodes.len()).filter(|n| needed[*n] && !folded[*n]) {
        let (node, add) = into[n].map_or((n, None), |(linear, other)| (linear, Some(other)));
        let inputs = nodes[node].inputs.iter().map(|i| i.0).collect();
        work.push(Work { node, inputs, add, gives: n });
    }
    work
}

impl Backward {
    fn new(graph: &Graph, work: &[Work], wanted: Wanted, pool: &mut Pool) -> Self {
        let nodes = graph.nodes();
        let trained = |n: usize| matches!(nodes[n].op, Op::Conv { .. } | Op::Norm { .. });
        // Nodes whose gradient is needed.
        let mut useful = vec![false; nodes.len()];
        for w in work {
            useful[w.gives] = (wanted.weights && trained(w.node))
                || (wanted.input && w.node == 0)
                || w.reads().any(|n| useful[n]);
        }
        let last = nodes.len() - 1;
        let mut slots: Vec<Option<usize>> = vec![None; nodes.len()];
        if useful[last] {
            slots[last] = Some(pool.take(nodes[last].shape.len()));
        }
        let output = slots[last];
        let mut reached = vec![false; nodes.len()];
        let mut steps = vec![];
        for (step, w) in work.iter().enumerate().rev().filter(|(_, w)| w.node > 0) {
            let Some(dy) = slots[w.gives] else { continue };
            let mut moved = false;
            let mut folds = vec![];
            // A sum passes its gradient on to the first input that has none yet.
            let sum = nodes[w.node].op == Op::Add && w.inputs[0] != w.inputs[1];
            let mut targets = vec![];
            for (place, &n) in w.inputs.iter().enumerate() {
                targets.push(if !useful[n] {
                    None
                } else if w.inputs[..place].contains(&n) {
                    let len = nodes[n].shape.len();
                    let slot = pool.take(len);
                    folds.extend(slots[n].map(|to| Fold { from: slot, to, len }));
                    Some(Target { slot, accumulate: false })
                } else if let Some(slot) = slots[n] {
                    Some(Target { slot, accumulate: true })
                } else if sum && !moved {
                    moved = true;
                    slots[n] = Some(dy);
                    None
                } else {
                    let slot = pool.take(nodes[n].shape.len());
                    slots[n] = Some(slot);
                    Some(Target { slot, accumulate: false })
                });
            }
            let mut add = None;
            if let Some(n) = w.add.filter(|n| useful[*n]) {
                match slots[n] {
                    Some(slot) => add = Some(Target { slot, accumulate: true }),
                    None => {
                        moved = true;
                        slots[n] = Some(dy);
                    }
                }
            }
            let weights = wanted.weights && trained(w.node);
            reached[w.node] = weights;
            folds.iter().for_each(|fold| pool.give(fold.from));
            if !moved {
                pool.give(dy);
            }
            steps.push(BackStep { step, dy, weights, targets, add, folds });
        }
        Self { output, steps, input: slots[0], reached }
    }
}
