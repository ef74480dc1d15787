//! Networks against PyTorch: outputs, gradients and the authors' checkpoint layout, from the files of
//! tests/golden/make_net_golden.py. `MEM2GEN_GOLDEN` names a folder with files of another seed.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use mem2gen::net::{
    Arch, CandleNet, Checkpoint, CheckpointPart, Engine, Given, NetError, Purpose, UnetSettings, Weights,
};
use mem2gen::shape::Shape;
use mem2gen::train::adam::{Factors, State, sum_of_squares};
use mem2gen::train::{AdamSettings, EmaSettings};
use safetensors::SafeTensors;

const CASES: [&str; 6] = ["unet", "unet_three", "unet_prompted", "mlp", "toy_paper", "toy_code"];

fn folder() -> PathBuf {
    match std::env::var_os("MEM2GEN_GOLDEN") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// A golden file.
struct Golden {
    arch: Arch,
    input: Shape,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = folder().join(format!("{name}.safetensors"));
        let bytes = fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = header.metadata().as_ref().unwrap();
        Self {
            arch: serde_json::from_str(&about["arch"]).unwrap(),
            input: serde_json::from_str(&about["input"]).unwrap(),
            tensors: candle_core::safetensors::load(&path, &Device::Cpu).unwrap(),
        }
    }

    /// The weights below a key: exactly those of the graph.
    fn weights(&self, below: &str) -> Weights {
        let graph = self.arch.graph(self.input).unwrap();
        let mut weights = Weights::new(graph.clone(), vec![0.0; graph.len()]).unwrap();
        for p in graph.params() {
            let tensor = &self.tensors[&format!("{below}/{}", p.name)];
            assert_eq!(tensor.dims(), p.layout.file_shape(), "{}", p.name);
            weights.set_file_values(p, &tensor.flatten_all().unwrap().to_vec1().unwrap()).unwrap();
        }
        let there = self.tensors.keys().filter(|k| k.starts_with(&format!("{below}/"))).count();
        assert_eq!(there, graph.params().len());
        weights
    }

    fn f64(&self, name: &str) -> Tensor {
        self.tensors[name].to_dtype(DType::F64).unwrap()
    }

    /// The conditions, `[m, condition]`; `None` for a network without one.
    fn condition(&self, dtype: DType) -> Option<Tensor> {
        self.tensors.get("condition").map(|tensor| tensor.to_dtype(dtype).unwrap())
    }

    fn gradients(&self) -> HashMap<&str, &Tensor> {
        self.tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix("grads/")?, t))).collect()
    }
}

/// The largest difference, relative to the largest value.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / most
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Compares gradients, in the order of the weights, with PyTorch's.
fn check_gradients(golden: &Golden, weights: &Weights, gradients: &[f64], tolerance: f64, what: &str) {
    let expected = golden.gradients();
    let trained = weights.graph().params().iter().filter(|p| p.trained);
    assert_eq!(expected.len(), trained.clone().count());
    // Some gradients, such as that of the bias of k, are zero up to rounding, so tolerances are relative to at least a
    // hundredth of the largest gradient.
    let largest = |values: &[f64]| values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let least = 0.01 * expected.values().map(|g| largest(&values(g))).fold(0.0, f64::max);
    let gradients = gradients.iter().map(|g| *g as f32).collect();
    let gradients = Weights::new(weights.graph().clone(), gradients).unwrap();
    for p in trained {
        let b = values(expected[p.name.as_str()]);
        let a = gradients.file_values(p);
        let apart = a.iter().zip(&b).fold(0.0, |m: f64, (a, b)| m.max((f64::from(*a) - b).abs()));
        let apart = apart / largest(&b).max(least);
        assert!(apart < tolerance, "{what}: {} {apart}", p.name);
    }
}

/// The gradient of the mean squared error with respect to the output.
fn dy(output: &Tensor, target: &Tensor) -> Tensor {
    ((output - target).unwrap() * (2.0 / output.elem_count() as f64)).unwrap()
}

#[test]
fn candle_agrees_with_pytorch() {
    for name in CASES {
        let golden = Golden::read(name);
        let weights = golden.weights("weights");
        let graph = weights.graph().clone();
        // Golden files have f32, the sums behind them are f64 on both sides.
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            let network = CandleNet::new(&weights, dtype, &Device::Cpu).unwrap();
            let tensor = |key: &str| golden.tensors[key].to_dtype(dtype).unwrap();
            let (x, t) = (tensor("x"), tensor("t"));
            let condition = golden.condition(dtype);
            let output = network.forward(&x, &t, condition.as_ref(), None).unwrap();
            let apart = difference(&values(&output), &values(&golden.f64("output")));
            assert!(apart < tolerance, "{name} {dtype:?}: output {apart}");

            let pass =
                network.pass(&x, &t, condition.as_ref(), &dy(&output, &tensor("target")), None).unwrap();
            let apart = difference(&values(&pass.dx), &values(&golden.f64("dx")));
            assert!(apart < 10.0 * tolerance, "{name} {dtype:?}: dx {apart}");
            let gradients = network.flatten::<f64>(&pass.dparams).unwrap();
            assert!(gradients[graph.trained()..].iter().all(|g| *g == 0.0));
            check_gradients(&golden, &weights, &gradients, 10.0 * tolerance, &format!("{name} {dtype:?}"));
        }
    }
}

#[test]
fn the_engine_agrees_with_pytorch() {
    for name in CASES {
        let golden = Golden::read(name);
        let weights = golden.weights("weights");
        let graph = weights.graph().clone();
        let tensor = |key: &str| golden.tensors[key].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (x, t, target) = (tensor("x"), tensor("t"), tensor("target"));
        let condition =
            golden.condition(DType::F32).map_or(vec![], |c| c.flatten_all().unwrap().to_vec1().unwrap());
        let given = Given { t: &t, condition: &condition };
        let mut engine = Engine::new(graph.clone(), t.len() + 1, Purpose::Train).unwrap();
        let output = engine.forward(weights.values(), &x, given, None).unwrap().to_vec();
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let apart = difference(&wide(&output), &values(&golden.f64("output")));
        assert!(apart < 1e-4, "{name}: output {apart}");

        let scale = 2.0 / output.len() as f32;
        let dy: Vec<f32> = output.iter().zip(&target).map(|(y, target)| scale * (y - target)).collect();
        let (mut dweights, mut dx) = (vec![0.0; graph.trained()], vec![0.0; x.len()]);
        engine.backward(weights.values(), &dy, Some(&mut dweights), Some(&mut dx)).unwrap();
        let apart = difference(&wide(&dx), &values(&golden.f64("dx")));
        assert!(apart < 1e-3, "{name}: dx {apart}");
        dweights.resize(graph.len(), 0.0);
        check_gradients(&golden, &weights, &wide(&dweights), 1e-3, name);
    }
}

#[test]
fn three_steps_of_adam_agree_with_pytorch() {
    let mut cases = 0;
    for name in CASES {
        let golden = Golden::read(name);
        if !golden.tensors.keys().any(|k| k.starts_with("adam/")) {
            continue;
        }
        cases += 1;
        let (start, expected) = (golden.weights("weights"), golden.weights("adam"));
        let single =
            |key: &str| -> Vec<f32> { values(&golden.tensors[key]).iter().map(|&v| v as f32).collect() };
        let (x, t, target) = (single("x"), single("t"), single("target"));
        let condition =
            golden.condition(DType::F32).map_or(vec![], |c| c.flatten_all().unwrap().to_vec1().unwrap());
        let graph = start.graph().clone();
        let mut engine = Engine::new(graph.clone(), t.len(), Purpose::Train).unwrap();
        let mut state = State::new(start.values().to_vec(), graph.trained());
        let mut gradient = vec![0.0; graph.trained()];
        let (adam, ema) = (AdamSettings::default(), EmaSettings::default());
        for (step, (loss, norm)) in
            (1..).zip(values(&golden.f64("losses")).iter().zip(values(&golden.f64("norms"))))
        {
            let given = Given { t: &t, condition: &condition };
            let y = engine.forward(&state.weights, &x, given, None).unwrap();
            let apart: Vec<f32> = y.iter().zip(&target).map(|(y, target)| y - target).collect();
            let count = apart.len() as f64;
            let found = sum_of_squares(&apart) / count;
            assert!((found / loss - 1.0).abs() < 1e-4, "{name} step {step}: loss {found} {loss}");
            let dy: Vec<f32> = apart.iter().map(|d| d * (2.0 / count) as f32).collect();
            engine.backward(&state.weights, &dy, Some(&mut gradient), None).unwrap();
            let found = sum_of_squares(&gradient).sqrt();
            assert!(
                (found / norm - 1.0).abs() < 1e-3 && norm > 1.0,
                "{name} step {step}: norm {found} {norm}"
            );
            Factors::new(&adam, &ema, step, 3).step(&mut state, &gradient, found);
        }
        // A first step moves each parameter by the whole rate, 2e-4, whatever the size of its gradient, whose sign is
        // arbitrary when it is zero up to rounding. So all parameters are compared together.
        let (mut apart, mut moved) = (0.0, 0.0);
        for ((a, b), from) in state.weights.iter().zip(expected.values()).zip(start.values()) {
            apart += f64::from(a - b).powi(2);
            moved += f64::from(b - from).powi(2);
        }
        assert!(apart.sqrt() < 0.02 * moved.sqrt(), "{name}: {} of {}", apart.sqrt(), moved.sqrt());
    }
    assert!(cases > 0);
}

#[test]
fn a_checkpoint_of_the_authors_layout_is_read_by_name() {
    let golden = Golden::read("checkpoint");
    let path = folder().join("checkpoint.pth");
    let Arch::Unet(settings) = golden.arch.clone() else { panic!() };
    let expected = golden.weights("model");
    let read = |settings: &UnetSettings, part| {
        Checkpoint::open(&path).and_then(|mut file| file.model(settings.clone(), golden.input, part))
    };
    let model = read(&settings, CheckpointPart::Model).unwrap();
    assert_eq!(model.weights, expected);
    // The file's running mean is the model plus one.
    let ema = read(&settings, CheckpointPart::Ema).unwrap();
    assert!(ema.weights.values().iter().zip(expected.values()).all(|(a, b)| *a == b + 1.0));

    // Another width: shapes. Another depth: names.
    let wider = UnetSettings { channels: 8, ..settings.clone() };
    let error = read(&wider, CheckpointPart::Model).unwrap_err().to_string();
    assert!(error.contains("all_modules.0.weight is [16, 4], expected [32, 8]"), "{error}");
    let deeper = UnetSettings { blocks: 2, ..settings.clone() };
    let error = read(&deeper, CheckpointPart::Model).unwrap_err().to_string();
    assert!(error.contains("missing all_modules.") && error.contains("checkpoint.pth"), "{error}");
    let flat = UnetSettings { attention: vec![], ..settings.clone() };
    let error = read(&flat, CheckpointPart::Model).unwrap_err().to_string();
    assert!(error.contains("not of this network all_modules."), "{error}");

    let no = Checkpoint::open(&folder().join("checkpoint.safetensors"));
    assert!(matches!(no, Err(NetError::Weights { .. })));
}
