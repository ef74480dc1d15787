//! The engine and candle in f64 give the same values and gradients for every architecture.

use candle_core::{DType, Device, Tensor};
use mem2gen::net::{
    Arch, CandleNet, Dropout, Engine, MlpSettings, Purpose, ToySettings, UnetSettings, Weights,
};
use mem2gen::random::Stream;
use mem2gen::shape::Shape;

fn numbers(name: &str, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(1, name);
    (0..n).map(|_| stream.normal() as f32).collect()
}

/// max |found - expected| / max |expected|.
fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let apart = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs());
    let size = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    apart.fold(0.0, f64::max) / size
}

fn architectures() -> Vec<(Arch, Shape)> {
    let small = Shape::image(14, 14, 1);
    // Attention at side 16, and groups with channels of both parts of a skip connection.
    let colour = Shape::image(16, 16, 3);
    let colour_net = UnetSettings { channels: 8, multipliers: vec![1, 3], ..UnetSettings::desk(colour, 8) };
    vec![
        (Arch::Unet(UnetSettings::desk(small, 16)), small),
        (Arch::Unet(colour_net), colour),
        (Arch::Mlp(MlpSettings { width: 96, blocks: 2, time: 32, dropout: 0.1 }), Shape::image(7, 7, 1)),
        (Arch::Toy(ToySettings::paper()), Shape::vector(2)),
        (Arch::Toy(ToySettings::code()), Shape::vector(2)),
    ]
}

#[test]
fn the_engine_is_candle_in_f64() {
    let device = Device::Cpu;
    for (arch, shape) in architectures() {
        let name = arch.name();
        let graph = arch.graph(shape).unwrap();
        let mut weights = Weights::init(graph.clone(), 5);
        // Layers with zero weights would hide the layers behind them.
        for (w, n) in weights.values_mut().iter_mut().zip(numbers("weights", graph.len())) {
            *w += 0.02 * n;
        }
        let m = 3;
        let x = numbers("x", m * shape.len());
        let dy = numbers("dy", m * graph.output().len());
        // Toy networks have times in 0..1, the others steps.
        let t: Vec<f32> = match arch {
            Arch::Toy(_) => vec![0.013, 0.5, 0.97],
            _ => vec![0.0, 37.0, 999.0],
        };
        let dropout = Some(Dropout { key: 11 });

        let mut engine = Engine::new(graph.clone(), m + 1, Purpose::Train).unwrap();
        let y = engine.forward(weights.values(), &x, &t, dropout).unwrap().to_vec();
        let (mut dw, mut dx) = (vec![f32::NAN; graph.trained()], vec![f32::NAN; x.len()]);
        engine.backward(weights.values(), &dy, Some(&mut dw), Some(&mut dx)).unwrap();

        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let tensor = |v: &[f32]| Tensor::from_vec(wide(v), (m, v.len() / m), &device).unwrap();
        let reference = CandleNet::new(&weights, DType::F64, &device).unwrap();
        let times = Tensor::from_vec(wide(&t), m, &device).unwrap();
        let pass = reference.pass(&tensor(&x), &times, None, &tensor(&dy), dropout).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let dparams: Vec<f64> = reference.flatten(&pass.dparams).unwrap();

        for (what, apart, most) in [
            ("output", distance(&y, &flat(&pass.output)), 1e-5),
            ("gradient of weights", distance(&dw, &dparams[..graph.trained()]), 1e-4),
            ("gradient of x", distance(&dx, &flat(&pass.dx)), 1e-4),
        ] {
            assert!(apart < most, "{name}: {what} differs by {apart:e}");
            println!("{name}: {what} {apart:.1e}");
        }
    }
}
