//! All parameters of a network as one vector.

use std::sync::Arc;

use super::{Graph, Init, Layout, NetError, Param};
use crate::random::Stream;

/// The parameters of a network, in the order and layout of its [`Graph`].
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    graph: Arc<Graph>,
    values: Vec<f32>,
}

impl Weights {
    /// Initial values. Each parameter has a random stream of its own, `init/NAME`, and is drawn in the layout of files.
    pub fn init(graph: Arc<Graph>, seed: u64) -> Self {
        let mut values = vec![0.0; graph.len()];
        for p in graph.params() {
            let mut stream = Stream::new(seed, &format!("init/{}", p.name));
            let drawn: Vec<f32> = (0..p.layout.len())
                .map(|_| match p.init {
                    Init::Zeros => 0.0,
                    Init::Ones => 1.0,
                    Init::Uniform(bound) => (bound * (2.0 * stream.uniform() - 1.0)) as f32,
                    Init::Normal(scale) => (scale * stream.normal()) as f32,
                })
                .collect();
            from_file_layout(p.layout, &drawn, &mut values[p.offset..p.offset + p.layout.len()]);
        }
        Self { graph, values }
    }

    /// Parameters from a vector in the graph's order and layout.
    ///
    /// # Errors
    /// [`NetError::Length`] for a vector of another length.
    pub fn new(graph: Arc<Graph>, values: Vec<f32>) -> Result<Self, NetError> {
        if values.len() != graph.len() {
            let (found, expected) = (values.len(), graph.len());
            return Err(NetError::Length { operation: "weights", argument: "values", found, expected });
        }
        Ok(Self { graph, values })
    }

    /// The network.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// All values, those of trained parameters first.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, mutable.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Values of a parameter in the layout of files.
    pub fn file_values(&self, param: &Param) -> Vec<f32> {
        let mut out = vec![0.0; param.layout.len()];
        to_file_layout(param.layout, &self.values[param.offset..param.offset + param.layout.len()], &mut out);
        out
    }

    /// Sets a parameter from values in the layout of files.
    ///
    /// # Errors
    /// [`NetError::Length`] for another number of values.
    pub fn set_file_values(&mut self, param: &Param, values: &[f32]) -> Result<(), NetError> {
        let expected = param.layout.len();
        if values.len() != expected {
            return Err(NetError::Length {
                operation: "weights",
                argument: "values of a parameter",
                found: values.len(),
                expected,
            });
        }
        from_file_layout(param.layout, values, &mut self.values[param.offset..param.offset + expected]);
        Ok(())
    }
}

/// `[outputs, inputs, windows]` -> `[windows, inputs, outputs]`.
pub(super) fn from_file_layout<T: Copy>(layout: Layout, file: &[T], own: &mut [T]) {
    each(layout, |memory, stored| own[memory] = file[stored]);
}

fn to_file_layout(layout: Layout, own: &[f32], file: &mut [f32]) {
    each(layout, |memory, stored| file[stored] = own[memory]);
}

/// Calls `pair` with the index of each element in memory and in files.
fn each(layout: Layout, mut pair: impl FnMut(usize, usize)) {
    let (windows, inputs, outputs) = match layout {
        Layout::Vector(n) => (1, 1, n),
        Layout::Dense { inputs, outputs } => (1, inputs, outputs),
        Layout::Conv { side, inputs, outputs } => (side * side, inputs, outputs),
    };
    for w in 0..windows {
        for i in 0..inputs {
            for o in 0..outputs {
                pair((w * inputs + i) * outputs + o, (o * inputs + i) * windows + w);
            }
        }
    }
}
