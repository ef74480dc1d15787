//! Speed of the engine on single linear layers, forward and backward. Each time includes copying the samples into the
//! engine.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mem2gen::net::{Builder, ConvSettings, Engine, Init, LayerInit, Purpose, Weights};
use mem2gen::random::{SEED, Stream};
use mem2gen::shape::Shape;

/// Batch size, input shape, output channels, side, stride and upsampling.
type Layer = (usize, Shape, usize, usize, usize, bool);

/// Layers of the networks for small images, of the paper's networks, and of the MLP.
const LAYERS: [(&str, Layer); 13] = [
    ("14x14-32-32", (128, Shape::image(14, 14, 32), 32, 3, 1, false)),
    ("7x7-64-64", (128, Shape::image(7, 7, 64), 64, 3, 1, false)),
    ("4x4-64-64", (128, Shape::image(4, 4, 64), 64, 3, 1, false)),
    ("28x28-128-128", (16, Shape::image(28, 28, 128), 128, 3, 1, false)),
    ("14x14-256-256", (16, Shape::image(14, 14, 256), 256, 3, 1, false)),
    ("first-14x14-1-32", (128, Shape::image(14, 14, 1), 32, 3, 1, false)),
    ("last-14x14-32-1", (128, Shape::image(14, 14, 32), 1, 3, 1, false)),
    ("1x1-28x28-256-128", (16, Shape::image(28, 28, 256), 128, 1, 1, false)),
    ("down-14x14-32-32", (128, Shape::image(14, 14, 32), 32, 3, 2, false)),
    ("down-28x28-128-128", (16, Shape::image(28, 28, 128), 128, 3, 2, false)),
    ("up-7x7-64-64", (128, Shape::image(7, 7, 64), 64, 3, 1, true)),
    ("dense-784-1024", (128, Shape::vector(784), 1024, 1, 1, false)),
    ("dense-1024-1024", (128, Shape::vector(1024), 1024, 1, 1, false)),
];

fn draw(name: &str, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(SEED, name);
    (0..n).map(|_| stream.normal() as f32).collect()
}

fn layers(criterion: &mut Criterion) {
    for (name, (m, from, outputs, side, stride, upsample)) in LAYERS {
        let (mut builder, input) = Builder::new(from);
        let init = LayerInit { weight: Init::Normal(0.1), bias: Init::Normal(0.1) };
        let dense = from.pixels() == 1;
        let settings = ConvSettings { side, stride, upsample, shift: None, dense, init };
        builder.conv("layer", input, outputs, settings).unwrap();
        let graph = Arc::new(builder.finish());
        let mut engine = Engine::new(graph.clone(), m, Purpose::Train).unwrap();
        let weights = Weights::init(graph.clone(), SEED);
        let (x, dy) = (draw("bench: x", m * from.len()), draw("bench: dy", m * graph.output().len()));
        let (t, mut dw, mut dx) = (vec![0.0; m], vec![0.0; graph.trained()], vec![0.0; x.len()]);
        let mut group = criterion.benchmark_group(name);
        // Floating-point operations, including those with padding.
        group.throughput(Throughput::Elements((m as f64 * graph.flops()) as u64));
        group.bench_function("forward", |b| {
            b.iter(|| engine.forward(weights.values(), &x, &t, None).unwrap()[0]);
        });
        group.bench_function("input", |b| {
            b.iter(|| engine.backward(weights.values(), &dy, None, Some(&mut dx)).unwrap());
        });
        group.bench_function("weight", |b| {
            b.iter(|| engine.backward(weights.values(), &dy, Some(&mut dw), None).unwrap());
        });
        group.finish();
    }
}

criterion_group! {
    name = net;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = layers
}
criterion_main!(net);
