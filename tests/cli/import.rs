//! `mem2gen import`: a PyTorch checkpoint becomes a run, with the samples of the same weights.

use std::fs;
use std::path::Path;

use crate::common::Folder;
use mem2gen::device::Device;
use mem2gen::net::Weights;
use mem2gen::process::{Prediction, Spacing, Vp};
use mem2gen::progress::Silent;
use mem2gen::sample::{Draw, Sampler};
use mem2gen::score::Network;
use mem2gen::train::{Kind, RunDir};
use ndarray::Array2;
use ndarray_npy::read_npy;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/checkpoint.pth");

/// The options that describe the network of the golden checkpoint.
const NETWORK: [&str; 12] = [
    "--dataset",
    "mnist",
    "--size",
    "8",
    "--multipliers",
    "1,1",
    "--blocks",
    "1",
    "--attention",
    "4",
    "--groups",
    "2",
];

fn import(folder: &Folder, more: &[&str]) -> String {
    let out = folder.at("run");
    let said = folder.runs(&[&["import", GOLDEN, "--out", &out], &NETWORK[..], more].concat());
    assert!(said.starts_with("import: unet of ") && said.contains("step 400000"), "{said}");
    out
}

/// The weights below `model/` of the golden safetensors file, which PyTorch wrote together with the checkpoint.
fn same_weights() -> Weights {
    let run = RunDir::open(Path::new(&import(&Folder::new(), &[]))).unwrap();
    let graph = run.graph().clone();
    let file = candle_core::safetensors::load(
        Path::new(GOLDEN).with_extension("safetensors"),
        &candle_core::Device::Cpu,
    )
    .unwrap();
    let mut weights = Weights::new(graph.clone(), vec![0.0; graph.len()]).unwrap();
    for p in graph.params() {
        let tensor = &file[&format!("model/{}", p.name)];
        weights.set_file_values(p, &tensor.flatten_all().unwrap().to_vec1().unwrap()).unwrap();
    }
    weights
}

#[test]
fn samples_are_those_of_the_same_weights_as_safetensors() {
    let folder = Folder::new();
    let run = import(&folder, &[]);
    let weights = same_weights();
    let opened = RunDir::open(Path::new(&run)).unwrap();
    assert_eq!(opened.weights(Kind::Raw).unwrap(), (weights.clone(), 400_000));
    // The file's moving average is the model plus one.
    let (ema, _) = opened.weights(Kind::Ema).unwrap();
    assert!(ema.values().iter().zip(weights.values()).all(|(a, b)| *a == b + 1.0));

    let out = folder.at("s.npy");
    let call = ["-n", "3", "--sampler", "ddim", "--steps", "5", "--seed", "7", "--raw"];
    folder.runs(&[&["sample", "--run", &run, "--out", &out], &call[..]].concat());
    let got: Array2<f32> = read_npy(&out).unwrap();
    let score = Network::on(weights, Prediction::Epsilon, 128, Device::Cpu).unwrap();
    let vp = Vp::default();
    let sampler = Sampler::Ddim(vp.steps(5, Spacing::Leading).unwrap());
    let draw = Draw { score: &score, process: &vp, sampler, clip: Some(1.0), seed: 7 };
    let expected = draw.samples(0..3, &Silent).unwrap().mapv(|v| v as f32);
    assert_eq!(got, expected);
}

#[test]
fn an_imported_run_with_an_unknown_training_set_has_no_training_images() {
    let folder = Folder::new();
    let run = import(&folder, &[]);
    // A second import gives the same run, and another source is refused.
    import(&folder, &[]);
    folder.refuses(
        &[&["import", GOLDEN, "--out", &run], &NETWORK[..], &["--prediction", "v"]].concat(),
        &["prediction"],
    );
    let queries = folder.array("x.npy", &Array2::<f32>::zeros((2, 64)));
    let out = folder.at("l.parquet");
    let call = ["--divergence", "hutchinson", "--probes", "2", "--tolerance", "0.1"];
    folder.runs(&[&["likelihood", "--run", &run, "--queries", &queries, "--out", &out], &call[..]].concat());
    let unknown = "the training set of this network is unknown";
    for command in [
        &["basin", "--class", "training", "--delta", "1"][..],
        &["curvature", "--class", "training"],
        &["potential"],
        &["sample", "-n", "1", "--score", "exact"],
    ] {
        folder.refuses(
            &[command, &["--run", &run, "--out", &folder.at("out.npy")]].concat(),
            &[unknown, "--k"],
        );
    }
}

#[test]
fn files_and_options_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let out = folder.at("run");
    let call = |file: &str, more: &[&str]| {
        [&["import", file, "--out", &out][..], &NETWORK, more]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect()
    };
    let refuses = |arguments: Vec<String>, words: &[&str]| {
        folder.refuses(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    refuses(call(GOLDEN, &["--channels", "8"]), &["all_modules.0.weight is [16, 4], expected [32, 8]"]);
    refuses(call(GOLDEN, &["--levels", "1"]), &["levels"]);
    refuses(call(&folder.at("missing.pth"), &[]), &["missing.pth"]);
    refuses(call(env!("CARGO_MANIFEST_DIR"), &[]), &["is not a regular file"]);
    let text = folder.at("text.pth");
    fs::write(&text, b"no archive").unwrap();
    refuses(call(&text, &[]), &["text.pth", "is not a zip archive"]);
    let whole = fs::read(GOLDEN).unwrap();
    fs::write(&text, &whole[..whole.len() / 2]).unwrap();
    refuses(call(&text, &[]), &["text.pth"]);
    folder.refuses(&["import", GOLDEN, "--out", &out, "--dataset", "imagenet"], &["imagenet"]);
}
