//! The engine against sums in f64 that are written out here, and against itself.

use std::sync::Arc;

use super::{Dropout, Engine, Given, Part, Purpose};
use crate::net::{
    Builder, ConvSettings, Graph, Init, LayerInit, Layout, NetError, Node, NodeId, Op, ParamId,
};
use crate::shape::Shape;

const ROWS: usize = 3;
const KEY: Dropout = Dropout { key: 7 };

/// Uniform in -1..1, independent of the crate's generators.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 23) - 1.0
    }

    fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next() as f32).collect()
    }
}

fn plain(side: usize) -> ConvSettings {
    let init = LayerInit { weight: Init::Zeros, bias: Init::Zeros };
    ConvSettings { side, stride: 1, upsample: false, shift: None, dense: side == 1, init }
}

/// A network with a name for messages.
fn graph(shape: Shape, build: impl FnOnce(&mut Builder, NodeId) -> Result<(), NetError>) -> Arc<Graph> {
    let (mut b, x) = Builder::new(shape);
    build(&mut b, x).unwrap();
    Arc::new(b.finish())
}

/// Every operation with all of its options, alone and in combinations.
fn cases() -> Vec<(&'static str, Arc<Graph>)> {
    let image = Shape::image(4, 4, 3);
    vec![
        ("input alone", graph(image, |_, _| Ok(()))),
        ("dense", graph(Shape::vector(5), |b, x| b.conv("a", x, 7, plain(1)).map(drop))),
        ("1x1", graph(image, |b, x| b.conv("a", x, 2, ConvSettings { dense: false, ..plain(1) }).map(drop))),
        ("3x3", graph(image, |b, x| b.conv("a", x, 2, plain(3)).map(drop))),
        ("stride", graph(image, |b, x| b.conv("a", x, 2, ConvSettings { stride: 2, ..plain(3) }).map(drop))),
        (
            "upsample",
            graph(image, |b, x| b.conv("a", x, 2, ConvSettings { upsample: true, ..plain(3) }).map(drop)),
        ),
        (
            "shift",
            graph(image, |b, x| {
                let t = b.sinusoid("t", 6, 100.0)?;
                let shift = b.conv("s", t, 2, plain(1))?;
                b.conv("a", x, 2, ConvSettings { shift: Some(shift), ..plain(3) }).map(drop)
            }),
        ),
        (
            "shift from the input",
            graph(Shape::vector(4), |b, x| {
                let h = b.silu("h", x, 0.0)?;
                let y = b.conv("a", x, 4, ConvSettings { shift: Some(h), ..plain(1) })?;
                // Its own input is the shift, too.
                let y = b.conv("b", y, 4, ConvSettings { shift: Some(y), ..plain(1) })?;
                b.add("c", y, x).map(drop)
            }),
        ),
        (
            "fourier",
            graph(Shape::vector(3), |b, x| {
                let t = b.fourier("t", 8, 0.3)?;
                let h = b.conv("a", t, 3, plain(1))?;
                b.add("b", x, h).map(drop)
            }),
        ),
        ("norm", graph(Shape::image(3, 3, 6), |b, x| b.norm("n", x, 2, 1e-6, false, 0.0).map(drop))),
        ("norm of one group", graph(Shape::vector(20), |b, x| b.norm("n", x, 1, 1e-5, true, 0.0).map(drop))),
        (
            "norm of many groups",
            graph(Shape::image(5, 3, 32), |b, x| b.norm("n", x, 32, 1e-6, true, 0.0).map(drop)),
        ),
        (
            "norm, silu, dropout",
            graph(Shape::image(3, 5, 8), |b, x| b.norm("n", x, 4, 1e-6, true, 0.3).map(drop)),
        ),
        ("norm, dropout", graph(Shape::image(3, 3, 4), |b, x| b.norm("n", x, 2, 1e-6, false, 0.5).map(drop))),
        ("silu", graph(image, |b, x| b.silu("s", x, 0.0).map(drop))),
        ("silu, dropout", graph(image, |b, x| b.silu("s", x, 0.4).map(drop))),
        (
            "attention",
            graph(Shape::image(3, 3, 4), |b, x| {
                let q = b.conv("q", x, 4, plain(1))?;
                let k = b.conv("k", x, 4, plain(1))?;
                let v = b.conv("v", x, 4, plain(1))?;
                let h = b.attention("a", q, k, v)?;
                let h = b.conv("p", h, 4, plain(1))?;
                b.add("y", x, h).map(drop)
            }),
        ),
        ("attention of one", graph(Shape::image(5, 4, 3), |b, x| b.attention("a", x, x, x).map(drop))),
        ("twice", graph(image, |b, x| b.add("a", x, x).map(drop))),
        (
            "twice a layer",
            graph(image, |b, x| {
                let y = b.conv("a", x, 2, plain(3))?;
                b.add("b", y, y).map(drop)
            }),
        ),
        (
            "two layers",
            graph(image, |b, x| {
                let y = b.conv("a", x, 2, plain(3))?;
                let z = b.conv("b", x, 2, plain(1))?;
                b.add("c", y, z).map(drop)
            }),
        ),
        (
            "a layer and what it reads",
            graph(image, |b, x| {
                let h = b.silu("s", x, 0.0)?;
                let y = b.conv("a", h, 3, plain(3))?;
                let y = b.add("b", y, h)?;
                let z = b.silu("z", y, 0.0)?;
                let w = b.silu("w", y, 0.0)?;
                b.add("v", z, w).map(drop)
            }),
        ),
        (
            "concat",
            graph(image, |b, x| {
                let y = b.conv("a", x, 2, plain(3))?;
                let z = b.concat("b", x, y)?;
                let z = b.concat("c", z, z)?;
                b.concat("d", z, y).map(drop)
            }),
        ),
        (
            "what leads nowhere",
            graph(image, |b, x| {
                b.param("alone".into(), Layout::Vector(3), Init::Ones)?;
                let y = b.conv("a", x, 2, plain(3))?;
                b.norm("n", y, 1, 1e-6, true, 0.0)?;
                b.conv("c", x, 2, plain(1)).map(drop)
            }),
        ),
        (
            "time alone",
            graph(image, |b, _| {
                let t = b.sinusoid("t", 6, 100.0)?;
                b.silu("y", t, 0.0).map(drop)
            }),
        ),
        (
            "condition",
            graph(image, |b, x| {
                let c = b.condition("c", 5)?;
                let c = b.silu("silu", c, 0.0)?;
                let shift = Some(b.conv("s", c, 2, plain(1))?);
                b.conv("a", x, 2, ConvSettings { shift, ..plain(3) }).map(drop)
            }),
        ),
        ("fold", graph(Shape::image(4, 6, 3), |b, x| b.fold("f", x, 2).map(drop))),
        ("unfold", graph(Shape::image(2, 3, 18), |b, x| b.unfold("f", x, 3).map(drop))),
        (
            "fold and unfold",
            graph(Shape::image(4, 6, 2), |b, x| {
                let y = b.fold("a", x, 2)?;
                let y = b.conv("b", y, 8, plain(3))?;
                let z = b.unfold("c", y, 2)?;
                let z = b.add("d", x, z)?;
                let z = b.fold("e", z, 2)?;
                b.add("f", z, y).map(drop)
            }),
        ),
        ("u-net", u_net(Shape::image(4, 4, 1), 4, 0.2)),
    ]
}

/// A small network with all kinds of layers of the paper's network.
fn u_net(shape: Shape, width: usize, dropout: f64) -> Arc<Graph> {
    fn block(
        b: &mut Builder,
        name: &str,
        x: NodeId,
        t: NodeId,
        width: usize,
        dropout: f64,
    ) -> Result<NodeId, NetError> {
        let h = b.norm(&format!("{name}.n1"), x, 2, 1e-6, true, 0.0)?;
        let shift = Some(b.conv(&format!("{name}.t"), t, width, plain(1))?);
        let h = b.conv(&format!("{name}.c1"), h, width, ConvSettings { shift, ..plain(3) })?;
        let h = b.norm(&format!("{name}.n2"), h, 2, 1e-6, true, dropout)?;
        let h = b.conv(&format!("{name}.c2"), h, width, plain(3))?;
        let short = if b.shape(x).channels == width {
            x
        } else {
            b.conv(&format!("{name}.short"), x, width, plain(1))?
        };
        b.add(&format!("{name}.sum"), short, h)
    }
    graph(shape, |b, x| {
        let t = b.sinusoid("time", width, 10_000.0)?;
        let t = b.conv("time.0", t, 2 * width, plain(1))?;
        let t = b.silu("time.1", t, 0.0)?;
        let h0 = b.conv("in", x, width, plain(3))?;
        let h1 = block(b, "down", h0, t, width, dropout)?;
        let h2 = b.conv("smaller", h1, width, ConvSettings { stride: 2, ..plain(3) })?;
        let h = block(b, "middle", h2, t, 2 * width, dropout)?;
        let n = b.norm("attention.n", h, 2, 1e-6, false, 0.0)?;
        let [q, k, v] = ["q", "k", "v"].map(|name| b.conv(name, n, 2 * width, plain(1)));
        let a = b.attention("attention", q?, k?, v?)?;
        let a = b.conv("attention.p", a, 2 * width, plain(1))?;
        let h = b.add("attention.sum", h, a)?;
        let h = b.concat("join.1", h, h2)?;
        let h = block(b, "up.1", h, t, width, dropout)?;
        let h = b.conv("larger", h, width, ConvSettings { upsample: true, ..plain(3) })?;
        let h = b.concat("join.2", h, h1)?;
        let h = block(b, "up.2", h, t, width, dropout)?;
        let h = b.concat("join.3", h, h0)?;
        let h = block(b, "up.3", h, t, width, dropout)?;
        let h = b.norm("out.n", h, 2, 1e-6, true, 0.0)?;
        b.conv("out", h, shape.channels, plain(3)).map(drop)
    })
}

/// Inputs of a graph.
struct Case {
    graph: Arc<Graph>,
    weights: Vec<f32>,
    x: Vec<f32>,
    t: Vec<f32>,
    condition: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(graph: &Arc<Graph>, m: usize) -> Self {
        let mut numbers = Numbers(3);
        let weights = numbers.vec(graph.len());
        let x = numbers.vec(m * graph.input().len());
        let dy = numbers.vec(m * graph.output().len());
        let t = (0..m).map(|i| 0.5 + 1.7 * i as f32).collect();
        let condition = numbers.vec(m * graph.condition());
        Self { graph: graph.clone(), weights, x, t, condition, dy }
    }

    fn given(&self) -> Given<'_> {
        Given { t: &self.t, condition: &self.condition }
    }

    fn engine(&self, rows: usize, purpose: Purpose) -> Engine {
        Engine::new(self.graph.clone(), rows, purpose).unwrap()
    }

    /// Output, gradient of the weights, gradient of the input.
    fn run(&self, engine: &mut Engine) -> [Vec<f32>; 3] {
        let y = engine.forward(&self.weights, &self.x, self.given(), Some(KEY)).unwrap().to_vec();
        let mut dw = vec![f32::NAN; self.graph.trained()];
        let mut dx = vec![f32::NAN; self.x.len()];
        engine.backward(&self.weights, &self.dy, Some(&mut dw), Some(&mut dx)).unwrap();
        [y, dw, dx]
    }

    /// The rows from..to alone.
    fn rows(&self, from: usize, to: usize) -> Self {
        let part = |v: &[f32]| v[from * v.len() / self.t.len()..to * v.len() / self.t.len()].to_vec();
        Self {
            graph: self.graph.clone(),
            weights: self.weights.clone(),
            x: part(&self.x),
            t: part(&self.t),
            condition: part(&self.condition),
            dy: part(&self.dy),
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// The output for one sample, by the definitions alone.
fn naive(
    graph: &Graph,
    weights: &[f64],
    x: &[f64],
    (t, condition): (f64, &[f64]),
    row: usize,
    dropout: Option<Dropout>,
) -> Vec<f64> {
    let param = |id: ParamId| {
        let p = graph.param(id);
        &weights[p.offset..p.offset + p.layout.len()]
    };
    let mut values: Vec<Vec<f64>> = vec![];
    for (place, Node { op, inputs, shape, .. }) in graph.nodes().iter().enumerate() {
        let read = |i: usize| &values[inputs[i].0];
        let from = |i: usize| graph.node(inputs[i]).shape;
        let drop = |y: &mut Vec<f64>, rate: f64| {
            if let Some(d) = dropout {
                let mut factors = vec![0.0; y.len()];
                d.factors(NodeId(place), rate, row, &mut factors);
                y.iter_mut().zip(factors).for_each(|(y, f)| *y *= f64::from(f));
            }
        };
        let silu = |v: f64| v / (1.0 + (-v).exp());
        values.push(match *op {
            Op::Input => x.to_vec(),
            Op::Condition => condition.to_vec(),
            Op::Sinusoid { period } => {
                let half = shape.channels / 2;
                let angle = |i: usize| t * period.powf(-(i as f64) / (half as f64 - 1.0));
                (0..2 * half).map(|i| if i < half { angle(i).sin() } else { angle(i - half).cos() }).collect()
            }
            Op::Fourier { frequencies } => {
                let angles = param(frequencies).iter().map(|w| 2.0 * std::f64::consts::PI * t * w);
                angles.clone().map(f64::sin).chain(angles.map(f64::cos)).collect()
            }
            Op::Conv { weight, bias, side, stride, upsample } => {
                let (x, f) = (read(0), from(0));
                let scale = if upsample { 2 } else { 1 };
                let before = if stride == 2 { 0 } else { side as isize / 2 };
                let at = |i: isize, j: isize, c: usize| {
                    let inside = |v: isize, n: usize| v >= 0 && v < (n * scale) as isize;
                    if inside(i, f.height) && inside(j, f.width) {
                        x[(i as usize / scale * f.width + j as usize / scale) * f.channels + c]
                    } else {
                        0.0
                    }
                };
                let mut y = vec![];
                for p in 0..shape.pixels() {
                    for o in 0..shape.channels {
                        let mut v = param(bias)[o] + if inputs.len() == 2 { read(1)[o] } else { 0.0 };
                        for (a, b) in (0..side).flat_map(|a| (0..side).map(move |b| (a, b))) {
                            let i = (p / shape.width * stride + a) as isize - before;
                            let j = (p % shape.width * stride + b) as isize - before;
                            for c in 0..f.channels {
                                let w = param(weight)[((a * side + b) * f.channels + c) * shape.channels + o];
                                v += w * at(i, j, c);
                            }
                        }
                        y.push(v);
                    }
                }
                y
            }
            Op::Norm { scale, shift, groups, epsilon, silu: with, dropout: rate } => {
                let (x, per) = (read(0), shape.channels / groups);
                let mut y = x.clone();
                for g in 0..groups {
                    let group: Vec<usize> = (0..x.len()).filter(|i| i % shape.channels / per == g).collect();
                    let n = group.len() as f64;
                    let mean = group.iter().map(|i| x[*i]).sum::<f64>() / n;
                    let var = group.iter().map(|i| (x[*i] - mean).powi(2)).sum::<f64>() / n;
                    for i in group {
                        let c = i % shape.channels;
                        let v = (x[i] - mean) / (var + epsilon).sqrt() * param(scale)[c] + param(shift)[c];
                        y[i] = if with { silu(v) } else { v };
                    }
                }
                drop(&mut y, rate);
                y
            }
            Op::Silu { dropout: rate } => {
                let mut y = read(0).iter().map(|v| silu(*v)).collect();
                drop(&mut y, rate);
                y
            }
            Op::Attention => {
                let (n, c) = (shape.pixels(), shape.channels);
                let pixel = |i: usize, p: usize| &read(i)[p * c..(p + 1) * c];
                let mut y = vec![];
                for p in 0..n {
                    let dot = |r| pixel(0, p).iter().zip(pixel(1, r)).map(|(a, b)| a * b).sum::<f64>();
                    let w: Vec<f64> = (0..n).map(|r| (dot(r) / (c as f64).sqrt()).exp()).collect();
                    let total: f64 = w.iter().sum();
                    y.extend((0..c).map(|k| (0..n).map(|r| w[r] / total * pixel(2, r)[k]).sum::<f64>()));
                }
                y
            }
            Op::Add => read(0).iter().zip(read(1)).map(|(a, b)| a + b).collect(),
            Op::Concat => {
                let pixels = read(0).chunks(from(0).channels).zip(read(1).chunks(from(1).channels));
                pixels.flat_map(|(a, b)| a.iter().chain(b).copied().collect::<Vec<_>>()).collect()
            }
            Op::Fold { side } => {
                let (x, f) = (read(0), from(0));
                let value = |p: usize, c: usize| {
                    let (i, j) = (c / side % side, c % side);
                    let (row, column) = (p / shape.width * side + i, p % shape.width * side + j);
                    x[(row * f.width + column) * f.channels + c / (side * side)]
                };
                (0..shape.len()).map(|k| value(k / shape.channels, k % shape.channels)).collect()
            }
            Op::Unfold { side } => {
                let (x, f) = (read(0), from(0));
                let value = |p: usize, c: usize| {
                    let (row, column) = (p / shape.width, p % shape.width);
                    let pixel = row / side * f.width + column / side;
                    x[pixel * f.channels + (c * side + row % side) * side + column % side]
                };
                (0..shape.len()).map(|k| value(k / shape.channels, k % shape.channels)).collect()
            }
        });
    }
    values.pop().unwrap()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// Compares values, with a tolerance relative to the largest expected value, or to 1 if that is larger.
fn assert_close(name: &str, what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: {what}");
    let scale = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*f) - e).abs() <= tolerance * scale,
            "{name}: {what}[{i}] is {f}, expected {e}, among numbers up to {scale}"
        );
    }
}

#[test]
fn outputs_and_gradients_are_those_of_the_definitions() {
    for (name, graph) in cases() {
        let case = Case::new(&graph, ROWS);
        let (weights, x, dy) = (wide(&case.weights), wide(&case.x), wide(&case.dy));
        let (of_x, of_y) = (graph.input().len(), graph.output().len());
        let outputs = |weights: &[f64], x: &[f64]| -> Vec<f64> {
            let row = |r: usize| {
                let of_c = graph.condition();
                let condition = wide(&case.condition[r * of_c..(r + 1) * of_c]);
                let given = (f64::from(case.t[r]), &condition[..]);
                naive(&graph, weights, &x[r * of_x..(r + 1) * of_x], given, r, Some(KEY))
            };
            (0..ROWS).flat_map(row).collect()
        };
        let loss = |weights: &[f64], x: &[f64]| -> f64 {
            outputs(weights, x).iter().zip(&dy).map(|(y, d)| y * d).sum()
        };
        let step = 1e-5;
        let slope = |at: &dyn Fn(f64) -> f64| (at(step) - at(-step)) / (2.0 * step);
        // Of larger networks some of the weights.
        let checked: Vec<usize> = (0..graph.trained()).step_by(1 + graph.trained() / 300).collect();
        let dw: Vec<f64> = checked
            .iter()
            .map(|i| {
                slope(&|s| {
                    let mut w = weights.clone();
                    w[*i] += s;
                    loss(&w, &x)
                })
            })
            .collect();
        let dx: Vec<f64> = (0..x.len())
            .map(|i| {
                slope(&|s| {
                    let mut x = x.clone();
                    x[i] += s;
                    loss(&weights, &x)
                })
            })
            .collect();
        // More room than rows.
        let mut engine = case.engine(ROWS + 2, Purpose::Train);
        let [y, gw, gx] = case.run(&mut engine);
        assert_eq!(y.len(), ROWS * of_y);
        assert_close(name, "output", &y, &outputs(&weights, &x), 1e-5);
        let gw: Vec<f32> = checked.iter().map(|i| gw[*i]).collect();
        assert_close(name, "gradient of weights", &gw, &dw, 1e-4);
        assert_close(name, "gradient of x", &gx, &dx, 1e-4);
    }
}

#[test]
fn no_gradient_depends_on_which_others_are_asked_for() {
    for (name, graph) in cases() {
        let case = Case::new(&graph, ROWS);
        let mut engine = case.engine(ROWS, Purpose::Train);
        let [_, dw, dx] = case.run(&mut engine);
        let mut dw2 = vec![f32::NAN; dw.len()];
        let mut dx2 = vec![f32::NAN; dx.len()];
        engine.backward(&case.weights, &case.dy, None, Some(&mut dx2)).unwrap();
        engine.backward(&case.weights, &case.dy, Some(&mut dw2), None).unwrap();
        assert_eq!((bits(&dw), bits(&dx)), (bits(&dw2), bits(&dx2)), "{name}");
        engine.backward(&case.weights, &case.dy, None, None).unwrap();
    }
}

#[test]
fn a_row_does_not_feel_the_others() {
    // Large enough to be split into tasks of several rows.
    for graph in cases().into_iter().map(|(_, g)| g).chain([u_net(Shape::image(14, 14, 3), 16, 0.0)]) {
        let m = if graph.input().height == 14 { 37 } else { 5 };
        let mut case = Case::new(&graph, m);
        let mut engine = case.engine(m, Purpose::Train);
        let run = |case: &Case, engine: &mut Engine| {
            let y = engine.forward(&case.weights, &case.x, case.given(), None).unwrap().to_vec();
            let mut dx = vec![0.0; case.x.len()];
            engine.backward(&case.weights, &case.dy, None, Some(&mut dx)).unwrap();
            (bits(&y), bits(&dx))
        };
        let (y, dx) = run(&case, &mut engine);
        let (of_x, of_y) = (graph.input().len(), graph.output().len());
        for (from, to) in [(0, 1), (1, m), (m - 1, m), (m / 2, m / 2 + 2)] {
            let (part, dpart) = run(&case.rows(from, to), &mut engine);
            assert_eq!(part, y[from * of_y..to * of_y], "rows {from}..{to} of {graph:?}");
            assert_eq!(dpart, dx[from * of_x..to * of_x], "rows {from}..{to} of {graph:?}");
        }
        // NaN does not spread to other rows.
        case.x[of_x..2 * of_x].fill(f32::NAN);
        let (nan, dnan) = run(&case, &mut engine);
        assert_eq!((&nan[..of_y], &nan[2 * of_y..]), (&y[..of_y], &y[2 * of_y..]));
        assert_eq!((&dnan[..of_x], &dnan[2 * of_x..]), (&dx[..of_x], &dx[2 * of_x..]));
    }
}

#[test]
fn what_is_not_a_number_is_not_lost() {
    for (name, graph) in cases().into_iter().filter(|(name, _)| *name != "time alone") {
        let mut case = Case::new(&graph, 1);
        let n = case.x.len();
        case.x[n / 2] = f32::NAN;
        let mut engine = case.engine(1, Purpose::Evaluate);
        let y = engine.forward(&case.weights, &case.x, case.given(), None).unwrap();
        assert!(y.iter().any(|v| v.is_nan()), "{name}");
    }
}

#[test]
fn nothing_depends_on_threads_or_on_what_was_computed_before() {
    let graph = u_net(Shape::image(14, 14, 2), 16, 0.1);
    let case = Case::new(&graph, 40);
    let in_pool = |threads: usize, engine: &mut Engine| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.run(engine)).map(|v| bits(&v))
    };
    let first = in_pool(1, &mut case.engine(40, Purpose::Train));
    assert_eq!(first, in_pool(2, &mut case.engine(64, Purpose::Train)));
    let mut engine = case.engine(64, Purpose::Train);
    Case::new(&graph, 64).run(&mut engine);
    assert_eq!(first, in_pool(3, &mut engine));

    let timings = engine.timings();
    for part in Part::ALL {
        assert!(timings.seconds(part) > 0.0, "{part:?}");
    }
    engine.reset_timings();
    for part in Part::ALL {
        assert_eq!(engine.timings().seconds(part), 0.0, "{part:?}");
    }
}

#[test]
fn evaluation_is_training_without_backward() {
    for (name, graph) in cases() {
        let case = Case::new(&graph, ROWS);
        let [y, ..] = case.run(&mut case.engine(ROWS, Purpose::Train));
        let mut engine = case.engine(ROWS + 1, Purpose::Evaluate);
        for _ in 0..2 {
            let again = engine.forward(&case.weights, &case.x, case.given(), Some(KEY)).unwrap();
            assert_eq!(bits(&y), bits(again), "{name}");
        }
    }
}

#[test]
fn evaluation_needs_few_buffers() {
    let graph = graph(Shape::image(8, 8, 4), |b, mut x| {
        for i in 0..20 {
            let h = b.norm(&format!("n{i}"), x, 2, 1e-6, true, 0.0)?;
            let h = b.conv(&format!("c{i}"), h, 4, plain(3))?;
            x = b.add(&format!("s{i}"), x, h)?;
        }
        Ok(())
    });
    assert_eq!(Engine::new(graph.clone(), 1, Purpose::Evaluate).unwrap().slots.len(), 3);
    // The values of 20 norms and 20 sums and the image, and the output's and two gradients'.
    assert_eq!(Engine::new(graph, 1, Purpose::Train).unwrap().slots.len(), 41 + 2);
}

#[test]
fn wrong_arguments_are_refused() {
    let graph = u_net(Shape::image(4, 4, 1), 4, 0.0);
    let case = Case::new(&graph, 2);
    assert!(matches!(Engine::new(graph.clone(), 0, Purpose::Train), Err(NetError::Rows { rows: 0, .. })));
    let mut engine = case.engine(2, Purpose::Train);
    let mut dw = vec![0.0; graph.trained()];
    assert!(matches!(engine.backward(&case.weights, &case.dy, None, None), Err(NetError::Backward { .. })));
    let mut refused = |weights: &[f32], x: &[f32], t: &[f32]| match engine.forward(weights, x, t, None) {
        Err(e) => e.to_string(),
        Ok(_) => "no error".into(),
    };
    assert_eq!(refused(&case.weights, &case.x, &[0.0; 3]), "forward: 3 samples, expected 1 to 2");
    assert_eq!(refused(&case.weights, &case.x, &[]), "forward: 0 samples, expected 1 to 2");
    assert_eq!(refused(&case.weights, &case.x[1..], &case.t), "forward: x has 31 elements, expected 32");
    let n = case.weights.len();
    assert_eq!(
        refused(&case.weights[1..], &case.x, &case.t),
        format!("forward: weights has {} elements, expected {n}", n - 1)
    );
    engine.forward(&case.weights, &case.x, case.given(), None).unwrap();
    let mut refused = |dy: &[f32], dw: Option<&mut [f32]>, dx: Option<&mut [f32]>| {
        engine.backward(&case.weights, dy, dw, dx).unwrap_err().to_string()
    };
    assert_eq!(refused(&case.dy[1..], None, None), "backward: dy has 31 elements, expected 32");
    assert_eq!(refused(&case.dy, None, Some(&mut [0.0])), "backward: dx has 1 elements, expected 32");
    let short = dw.len() - 1;
    assert_eq!(
        refused(&case.dy, Some(&mut dw[1..]), None),
        format!("backward: dweights has {short} elements, expected {}", short + 1)
    );
    // A refused forward pass does not change the results of the last one.
    assert!(engine.forward(&case.weights, &case.x, &[0.0; 3], None).is_err());
    engine.backward(&case.weights, &case.dy, None, None).unwrap();
    let mut engine = case.engine(2, Purpose::Evaluate);
    engine.forward(&case.weights, &case.x, case.given(), None).unwrap();
    assert!(matches!(engine.backward(&case.weights, &case.dy, None, None), Err(NetError::Backward { .. })));
}

#[test]
fn normalisation_is_exact_far_from_zero() {
    // Groups of four channels of 28 x 28 pixels about a mean of 50 with a deviation of 1/2.
    let shape = Shape::image(28, 28, 8);
    let graph = graph(shape, |b, x| b.norm("n", x, 2, 1e-6, false, 0.0).map(drop));
    let mut case = Case::new(&graph, 2);
    case.x.iter_mut().for_each(|v| *v = 50.0 + 0.5 * *v);
    case.weights = [[1.0; 8], [0.0; 8]].concat();
    let [y, dw, _] = case.run(&mut case.engine(2, Purpose::Train));
    let mut expected = vec![];
    let mut dscale = [0.0; 8];
    for r in 0..2 {
        let x = wide(&case.x[r * shape.len()..(r + 1) * shape.len()]);
        let y = naive(&graph, &wide(&case.weights), &x, (0.0, &[]), r, None);
        for (i, y) in y.iter().enumerate() {
            dscale[i % 8] += y * f64::from(case.dy[r * shape.len() + i]);
        }
        expected.extend(y);
    }
    // The mean is rounded by up to 2^-19, which is 7e-6 of the deviation of 0.29, and the gradient is a sum of 1568
    // such errors times up to 1.
    assert_close("norm", "output", &y, &expected, 1e-5);
    assert_close("norm", "gradient of the scale", &dw[..8], &dscale, 1e-3);
}

#[test]
fn dropout_leaves_out_its_share_and_no_pattern() {
    let n = 1 << 16;
    let mut rows = vec![vec![0.0f32; n]; 8];
    for rate in [0.1, 0.5, 0.9] {
        for (r, row) in rows.iter_mut().enumerate() {
            KEY.factors(NodeId(3), rate, r, row);
        }
        let kept = |row: &Vec<f32>| row.iter().filter(|v| **v > 0.0).count() as f64 / n as f64;
        let deviation = (rate * (1.0 - rate) / n as f64).sqrt();
        for row in &rows {
            assert!((kept(row) - (1.0 - rate)).abs() < 5.0 * deviation, "{rate}: {}", kept(row));
            assert!(row.iter().all(|v| *v == 0.0 || *v == (1.0 / (1.0 - rate)) as f32));
        }
        // Kept in both as often as chance has it: rows, neighbours, nodes and keys.
        let together = |a: &[f32], b: &[f32]| {
            let both = a.iter().zip(b).filter(|(a, b)| **a > 0.0 && **b > 0.0).count() as f64;
            let share = (1.0 - rate) * (1.0 - rate);
            let n = a.len().min(b.len()) as f64;
            assert!((both / n - share).abs() < 5.0 * (share * (1.0 - share) / n).sqrt(), "{rate}");
        };
        together(&rows[0], &rows[1]);
        for by in [1, 2, 16, 32, 1024] {
            together(&rows[0], &rows[0][by..]);
        }
        let mut other = vec![0.0; n];
        KEY.factors(NodeId(4), rate, 0, &mut other);
        together(&rows[0], &other);
        Dropout { key: KEY.key + 1 }.factors(NodeId(3), rate, 0, &mut other);
        together(&rows[0], &other);
    }
}

#[test]
fn dropout_is_by_place_alone() {
    let graph = graph(Shape::vector(1000), |b, x| b.silu("s", x, 0.25).map(drop));
    let mut case = Case::new(&graph, 20);
    case.x.fill(1.0);
    let [y, _, dx] = case.run(&mut case.engine(20, Purpose::Train));
    let mut factors = vec![0.0; 1000];
    for r in 0..20 {
        KEY.factors(NodeId(1), 0.25, r, &mut factors);
        for i in 0..1000 {
            let kept = factors[i] > 0.0;
            assert_eq!((y[r * 1000 + i] > 0.0, dx[r * 1000 + i] != 0.0), (kept, kept), "row {r}, number {i}");
        }
    }
    // Fewer rows, the same choice for the first ones.
    let few = case.rows(0, 2);
    assert_eq!(bits(&few.run(&mut few.engine(2, Purpose::Train))[0]), bits(&y[..2000]));
}
