//! Stand-in.
use super::{Graph, NetError, Op};
use std::sync::Arc;
/// a
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Purpose {
    /// a
    Evaluate,
    /// b
    Train,
}
/// d
pub struct Dropout {
    /// k
    pub key: u64,
}
/// e
pub struct Engine {
    graph: Arc<Graph>,
    rows: usize,
    m: usize,
    values: Vec<Vec<f32>>,
}
impl Engine {
    /// n
    pub fn new(graph: Arc<Graph>, rows: usize, _: Purpose) -> Result<Self, NetError> {
        if rows == 0 {
            return Err(NetError::Rows { operation: "engine", rows, room: 4096 });
        }
        Ok(Self { graph, rows, m: 0, values: vec![] })
    }
    /// f
    pub fn forward(
        &mut self,
        w: &[f32],
        x: &[f32],
        t: &[f32],
        _: Option<Dropout>,
    ) -> Result<&[f32], NetError> {
        let m = t.len();
        assert!(m <= self.rows && x.len() == m * self.graph.input().len());
        self.m = m;
        self.values.clear();
        for node in self.graph.nodes() {
            let c = node.shape.channels;
            let y = match node.op {
                Op::Input => x.to_vec(),
                Op::Sinusoid { period } => t
                    .iter()
                    .flat_map(|t| {
                        let h = c / 2;
                        let f = move |i: usize| f64::from(*t) * period.powf(-(i as f64) / (h as f64 - 1.0));
                        (0..h).map(move |i| f(i).sin() as f32).chain((0..h).map(move |i| f(i).cos() as f32))
                    })
                    .collect(),
                Op::Silu { .. } => {
                    self.values[node.inputs[0].0].iter().map(|v| v / (1.0 + (-v).exp())).collect()
                }
                Op::Add => self.values[node.inputs[0].0]
                    .iter()
                    .zip(&self.values[node.inputs[1].0])
                    .map(|(a, b)| a + b)
                    .collect(),
                Op::Conv { weight, bias, side: 1, .. } => {
                    let (p, b) = (&self.graph.params()[weight.0], &self.graph.params()[bias.0]);
                    let from = &self.values[node.inputs[0].0];
                    let i = self.graph.nodes()[node.inputs[0].0].shape.channels;
                    let px = node.shape.pixels();
                    let mut out = vec![0.0; m * px * c];
                    for r in 0..m * px {
                        for o in 0..c {
                            let mut s = w[b.offset + o];
                            if let Some(sh) = node.inputs.get(1) {
                                s += self.values[sh.0][r / px * c + o];
                            }
                            for k in 0..i {
                                s += from[r * i + k] * w[p.offset + k * c + o];
                            }
                            out[r * c + o] = s;
                        }
                    }
                    out
                }
                _ => panic!("stand-in"),
            };
            self.values.push(y);
        }
        Ok(self.values.last().unwrap())
    }
    /// b
    pub fn backward(
        &mut self,
        w: &[f32],
        dy: &[f32],
        _: Option<&mut [f32]>,
        dx: Option<&mut [f32]>,
    ) -> Result<(), NetError> {
        let m = self.m;
        let mut g: Vec<Vec<f32>> = self.values.iter().map(|v| vec![0.0; v.len()]).collect();
        g.last_mut().unwrap().copy_from_slice(dy);
        for (at, node) in self.graph.nodes().iter().enumerate().rev() {
            let d = g[at].clone();
            match node.op {
                Op::Silu { .. } => {
                    for (k, d) in d.iter().enumerate() {
                        let v = self.values[node.inputs[0].0][k];
                        let s = 1.0 / (1.0 + (-v).exp());
                        g[node.inputs[0].0][k] += d * s * (1.0 + v * (1.0 - s));
                    }
                }
                Op::Add => {
                    for i in &node.inputs {
                        for (k, d) in d.iter().enumerate() {
                            g[i.0][k] += d;
                        }
                    }
                }
                Op::Conv { weight, .. } => {
                    let p = &self.graph.params()[weight.0];
                    let i = self.graph.nodes()[node.inputs[0].0].shape.channels;
                    let c = node.shape.channels;
                    for r in 0..m * node.shape.pixels() {
                        for k in 0..i {
                            for o in 0..c {
                                g[node.inputs[0].0][r * i + k] += d[r * c + o] * w[p.offset + k * c + o];
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(dx) = dx {
            dx.copy_from_slice(&g[0]);
        }
        Ok(())
    }
}
