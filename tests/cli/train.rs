//! `mem2gen train`: output and files, files of settings, images, errors.

use std::fs;

use crate::common::{Folder, mem2gen};
use mem2gen::frame::read_parquet;
use mem2gen::train::metrics::metrics_rows;
use mem2gen::train::{DataSettings, Kind, RunDir};

const QUICK: [&str; 12] = [
    "train",
    "--dataset",
    "toy",
    "--k",
    "9",
    "--profile",
    "smoke",
    "--steps",
    "30",
    "--log-every",
    "10",
    "--run",
];

#[test]
fn a_run_writes_metrics_weights_and_a_manifest_and_is_not_repeated() {
    let folder = Folder::new();
    let at = folder.at("run");
    let all = [&QUICK[..], &[&at]].concat();
    let said = folder.runs(&all);
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("train: 30 steps, 9 points, toy of ") && last.contains(", cpu, loss "),
        "{said}"
    );
    assert!(last.ends_with(&format!("-> {at}")), "{said}");
    let path = folder.path("run");
    let rows = metrics_rows(&read_parquet(&path.join("metrics.parquet")).unwrap()).unwrap();
    assert_eq!(rows.iter().map(|r| r.step).collect::<Vec<_>>(), [10, 20, 30]);
    assert!(rows.iter().all(|r| r.loss > 0.0 && r.gradient > 0.0 && r.rate > 0.0 && r.seconds > 0.0));
    let run = RunDir::open(&path).unwrap();
    assert_eq!(run.params().settings().data, DataSettings::Toy { k: 9 });
    let (weights, step) = run.weights(Kind::Ema).unwrap();
    assert!(step == 30 && weights.values().len() == run.graph().len());
    let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
    for part in ["\"data_sha256\"", "\"device\": \"cpu\"", env!("CARGO_PKG_VERSION"), "ema.safetensors"] {
        assert!(manifest.contains(part), "{part}: {manifest}");
    }
    let again = folder.runs(&all);
    assert!(again.starts_with("train: already finished, nothing was done: 30 steps"), "{again}");

    folder.refuses(&[&all[..], &["--seed", "4"]].concat(), &["train", "run", "seed", "3407", "4"]);
    folder.refuses(&[&all[..], &["--width", "32"]].concat(), &["train", "arch.width", "16", "32"]);
}

#[test]
fn a_run_stops_on_the_way_and_its_published_weights_replace_training() {
    let folder = Folder::new();
    let (at, other) = (folder.at("run"), folder.at("other"));
    let file = folder.at("half.safetensors");
    let all = [&QUICK[..], &[&at]].concat();
    let said = folder.runs(&[&all[..], &["--until", "7"]].concat());
    assert!(said.contains("train: stopped at step 7 of 30"), "{said}");
    let said = folder.runs(&[&all[..], &["--publish", &file]].concat());
    assert!(said.contains("resumed at 7") && said.contains("half precision"), "{said}");
    let restored = [&QUICK[..], &[&other, "--restore", &file]].concat();
    for _ in 0..2 {
        let said = folder.runs(&restored);
        assert!(said.contains("train: published weights after 30 steps"), "{said}");
    }
    let weights =
        |run: &str| RunDir::open(&folder.path(run)).unwrap().weights(Kind::Ema).unwrap().0.values().to_vec();
    for (half, whole) in weights("other").iter().zip(weights("run")) {
        assert!((half - whole).abs() <= 1e-3 * whole.abs() + 1e-7, "{half} {whole}");
    }
    folder.refuses(&[&all[..], &["--restore", &file]].concat(), &["train", "run", "another folder"]);
    let new = folder.at("new");
    let to = [&QUICK[..], &[&new, "--restore", &file]].concat();
    folder
        .refuses(&[&to[..], &["--seed", "4"]].concat(), &["train", "half.safetensors", "belongs to the run"]);
    folder.refuses(&[&to[..], &["--until", "4"]].concat(), &["--until"]);
    let beyond = [&QUICK[..], &[&new, "--until", "31"]].concat();
    folder.refuses(&beyond, &["--until: is 31, but the run has 30 steps; give at most 30"]);
    // Cut, of another program, and no weights at all.
    let whole = fs::read(&file).unwrap();
    let header = b"\x02\0\0\0\0\0\0\0{}";
    for (bytes, words) in [
        (&whole[..whole.len() - 5], "is not a whole .safetensors file"),
        (
            &whole[..20],
            "is not a whole .safetensors file (20 bytes), expected one of --publish; copy it again",
        ),
        (b"a text", "is not a whole .safetensors file"),
        (header, "has no metadata \"mem2gen run\", expected a file of --publish"),
    ] {
        fs::write(&file, bytes).unwrap();
        folder.refuses(&to, &["half.safetensors", words]);
    }
    assert!(!folder.path("new").exists());
    folder.refuses(&[&QUICK[..], &[&new, "--until", "0"]].concat(), &["--until", "0"]);
}

#[test]
fn a_run_can_be_started_from_a_file_of_settings() {
    let folder = Folder::new();
    let text = r#"
        steps = 12
        batch = 4
        prediction = "v"
        data = { kind = "toy", k = 5 }
        arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.2 }
        process = { kind = "ve", sigma = 2.0, horizon = 1.0, from = 1e-3 }
        adam = { learning_rate = 1e-3, decay = "cosine" }
    "#;
    fs::write(folder.path("a.toml"), text).unwrap();
    let said = folder.runs(&["train", "--config", &folder.at("a.toml"), "--run", &folder.at("a")]);
    assert!(said.contains("5 points, mlp of "), "{said}");
    // The settings that a run stores are also such a file.
    let config = fs::read_to_string(folder.path("a/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    fs::write(folder.path("b.json"), config["settings"].to_string()).unwrap();
    folder.runs(&["train", "--config", &folder.at("b.json"), "--run", &folder.at("b")]);
    let weights = |run: &str| fs::read(folder.path(run).join("weights.safetensors")).unwrap();
    assert_eq!(weights("a"), weights("b"));

    let refused = |name: &str, text: &str, words: &[&str]| {
        fs::write(folder.path(name), text).unwrap();
        let call = ["train", "--config", &folder.at(name), "--run", &folder.at("c")];
        folder.refuses(&call, &[words, &["train", name][..]].concat());
    };
    refused("colour.toml", &format!("colour = 3\n{text}"), &["colour"]);
    refused("broken.toml", "steps = ", &[]);
    refused("broken.json", "{", &[]);
    refused("settings.yaml", text, &[".toml", ".json"]);
    let call = ["train", "--config", &folder.at("none.toml"), "--run", &folder.at("c")];
    folder.refuses(&call, &["train", "none.toml"]);
    let call = ["train", "--config", &folder.at("a.toml"), "--steps", "3", "--run", &folder.at("c")];
    folder.refuses(&call, &["train", "--config", "--steps"]);
    fs::write(folder.path("rate.toml"), text.replace("1e-3, decay", "-1.0, decay")).unwrap();
    let call = ["train", "--config", &folder.at("rate.toml"), "--run", &folder.at("c")];
    folder.refuses(&call, &["train", "adam.learning_rate", "-1"]);
}

#[test]
fn images_are_reduced_to_the_requested_size() {
    let folder = Folder::new();
    let with_cache = folder.church(6, |i, x, y| [(3 * x + 40 * i) as u8, (2 * y) as u8, ((x + y) * i) as u8]);
    let base = ["train", "--dataset", "lsun-church", "--k", "5", "--profile", "smoke", "--steps", "3"];
    for (name, more) in [
        ("unet", &["--channels", "4"][..]),
        ("other-size", &["--size", "4", "--prediction", "x0"]),
        ("mlp", &["--arch", "mlp", "--width", "8", "--prediction", "v"]),
    ] {
        let at = folder.at(name);
        let said = with_cache(&[&base[..], more, &["--run", &at]].concat());
        assert!(said.contains("5 images, "), "{said}");
        let run = RunDir::open(&folder.path(name)).unwrap();
        let side = if name == "other-size" { 4 } else { 8 };
        assert_eq!((run.shape().height, run.shape().channels), (side, 3));
        assert!(run.weights(Kind::Raw).unwrap().0.values().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn invalid_calls_are_refused_in_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let at = folder.at("run");
    let toy = [&QUICK[..], &[&at]].concat();
    let refused = |more: &[&str], words: &[&str]| {
        folder.refuses(&[&toy[..], more].concat(), &[words, &["train"]].concat());
    };
    refused(&["--steps", "0"], &["steps"]);
    refused(&["--batch", "0"], &["batch"]);
    refused(&["--learning-rate", "NaN"], &["learning_rate"]);
    refused(&["--ema", "1"], &["ema.decay"]);
    refused(&["--size", "14"], &["--size"]);
    refused(&["--channels", "14"], &["--channels"]);
    refused(&["--arch", "transformer"], &["--arch"]);
    refused(&["--device", "cuda:4096"], &["cuda:4096"]);
    let other = |dataset: &str, k: &str, words: &[&str]| {
        let call = ["train", "--dataset", dataset, "--k", k, "--run", &at, "--profile", "smoke"];
        folder.refuses(&call, &[words, &["train"]].concat());
    };
    other("toy", "0", &["points"]);
    other("toy", "1001", &["1001", "1000"]);
    other("emnist", "3", &["emnist", "toy", "mnist"]);
    let call = ["train", "--dataset", "toy", "--k", "9", "--run", &at, "--profile", "dusk"];
    folder.refuses(&call, &["train", "dusk"]);
    folder.refuses(&["train", "--run", &at], &["train", "--dataset"]);
    folder.refuses(&["train", "--run", &at, "--dataset", "toy"], &["train", "--k"]);
    folder.refuses(&["train", "--dataset", "toy", "--k", "2"], &["train", "--run"]);
    fs::create_dir(folder.path("full")).unwrap();
    fs::write(folder.path("full/letter.txt"), "dear").unwrap();
    folder.refuses(&[&QUICK[..], &[&folder.at("full")]].concat(), &["train", "full", "letter.txt"]);
}

#[test]
fn a_run_that_diverges_fails_with_an_error() {
    let folder = Folder::new();
    let at = folder.at("run");
    let call = [&QUICK[..], &[&at, "--learning-rate", "1e12", "--checkpoint-every", "1"]].concat();
    let said = mem2gen(&call);
    assert!(!said.ok && said.stderr.lines().count() == 1, "{}", said.stderr);
    for word in ["train", "diverged", "step", "checkpoint"] {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    assert!(!folder.path("run/manifest.json").exists());
    RunDir::open(&folder.path("run")).unwrap().weights(Kind::Ema).unwrap();
}
