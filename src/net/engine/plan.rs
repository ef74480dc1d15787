//! In which order and in which buffers a graph is computed.

use crate::net::{Graph, Op};

use super::Purpose;

/// What is computed, forward and backward. Buffers are named by their place in `slots`.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// For each of [`Wanted::ALL`]; empty where nothing is trained.
    pub(super) backward: Vec<Backward>,
    /// Numbers a row in each buffer.
    pub(super) slots: Vec<usize>,
    pub(super) output: usize,
}

/// One operation.
pub(super) struct Step {
    /// The node whose operation it is.
    pub(super) node: usize,
    /// The buffers of what it reads.
    pub(super) inputs: Vec<usize>,
    /// The buffer of what a linear map adds to its result.
    pub(super) add: Option<usize>,
    pub(super) out: usize,
}

/// Which gradients a backward is to give.
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

/// All of a backward.
pub(super) struct Backward {
    /// The buffer that the gradient of the output is put into, where any of it is needed.
    pub(super) output: Option<usize>,
    pub(super) steps: Vec<BackStep>,
    /// The buffer of the gradient of the input.
    pub(super) input: Option<usize>,
    /// Whether the parameters of each node get their gradient; those of others are nought.
    pub(super) reached: Vec<bool>,
}

/// The gradient of one operation.
pub(super) struct BackStep {
    /// Which of [`Plan::steps`].
    pub(super) step: usize,
    /// The buffer of the gradient of its result.
    pub(super) dy: usize,
    /// Whether those of its parameters are wanted.
    pub(super) weights: bool,
    /// Where the gradients of its inputs go. None where it is not wanted, and where the buffer `dy` becomes it.
    pub(super) targets: Vec<Option<Target>>,
    /// That of what a linear map added.
    pub(super) add: Option<Target>,
    /// Buffers to be added to others at last: those of inputs that the operation has twice.
    pub(super) folds: Vec<Fold>,
}

/// A buffer that a gradient is written to.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) slot: usize,
    /// Whether it is added to what is there.
    pub(super) accumulate: bool,
}

/// A buffer that is added to another.
pub(super) struct Fold {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Numbers a row.
    pub(super) len: usize,
}

/// Buffers, and which of them hold nothing.
struct Pool {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    /// The smallest free buffer that is large enough, the one that was used last among equals; else the largest, made
    /// larger.
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
    /// The node whose value it gives: `node`, or the sum that `node` was folded into.
    gives: usize,
}

impl Work {
    fn reads(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().copied().chain(self.add)
    }
}

impl Plan {
    pub(super) fn new(graph: &Graph, purpose: Purpose) -> Self {
        let work = work(graph);
        let size = |n: usize| graph.nodes()[n].shape.len();
        let count = graph.nodes().len();

        // Values that backward reads stay.
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

/// The operations that the output needs, in order. A sum with a linear map that nothing else reads is part of it.
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
        // Nodes whose gradient something is made of.
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
            // A sum hands its gradient on to the first that has none yet.
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
