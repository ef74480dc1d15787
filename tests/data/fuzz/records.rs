//! Targets of the files that the program itself writes or is configured by: runs, cells, tables, plans, settings.
//!
//! What has a checksum is changed with and without a checksum that fits: the second must never be accepted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mem2gen::class::Class;
use mem2gen::data::DataError;
use mem2gen::data::weights::{self, Arrays, WeightFile, arrays_sha256};
use mem2gen::device::{Device, DeviceChoice};
use mem2gen::frame::fingerprint::{Fingerprint, Outcome, Stored};
use mem2gen::frame::{floats, frame, integers, parquet_note, read_parquet, texts, write_parquet_with};
use mem2gen::net::{Arch, Model, ToySettings};
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::shape::Shape;
use mem2gen::store::{from_toml, rows_sha256, sha256_hex, write_array};
use mem2gen::study::basin::BasinSettings;
use mem2gen::study::context::PROFILES;
use mem2gen::study::curvature::CurvatureSettings;
use mem2gen::study::energy::PotentialSettings;
use mem2gen::study::load::LoadSettings;
use mem2gen::study::subject::{LabelledSamples, labelled_rows};
use mem2gen::study::sweep::Plan;
use mem2gen::train::metrics::metrics_rows;
use mem2gen::train::{Kind, RunDir, TrainSettings, train_in};
use ndarray::{Array2, ArrayD};
use polars::prelude::{Column, NamedFrom, Series};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::images::Place;
use super::mutate::{changed, changed_text};
use super::{Case, SMALL, is_clear, peak};

/// The files of a folder, by their names below it.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn files(folder: &Path) -> Files {
    let all = walkdir::WalkDir::new(folder).into_iter().map(|item| item.unwrap());
    all.filter(|item| item.file_type().is_file())
        .map(|item| {
            let name = item.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            (name, fs::read(item.path()).unwrap())
        })
        .collect()
}

/// Puts files in place of whatever the folder holds.
pub fn put(folder: &Path, files: &Files) {
    let _ = fs::remove_dir_all(folder);
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub fn one_of(case: &mut Case, files: &Files) -> String {
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    case.of(&names).to_owned()
}

/// A changed text or changed bytes.
pub fn changed_file(case: &mut Case, name: &str, good: &[u8], other: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(good) {
        Ok(text) if name.ends_with("json") && !case.one_in(4) => {
            changed_text(case, text, "\"step\": -1,\n}\n\"k\": [[[[[[[[[[\n\"seed\": 1e999,").into_bytes()
        }
        _ => changed(case, good, other),
    }
}

/// Replaces a checksum in a JSON file by that of other bytes.
fn with_sum(text: &[u8], old: &str, new: &str) -> Vec<u8> {
    String::from_utf8_lossy(text).replace(old, new).into_bytes()
}

/// Weights of the cache, whose arrays have a checksum, and models, which have none.
pub fn weights() -> impl FnMut(&mut Case) -> bool + Send {
    crate::use_own_caches();
    let place = Place::new();
    let arch = Arch::Toy(ToySettings { width: 4, depth: 2, time: 4, ..ToySettings::code() });
    let model = Model::init(arch, Shape::vector(2), 1).unwrap();
    model.write(&place.path("model.safetensors")).unwrap();
    let good = fs::read(place.path("model.safetensors")).unwrap();

    let arrays: Arrays = [("a", vec![2, 3]), ("b", vec![4])]
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), ArrayD::from_elem(&shape[..], 0.5)))
        .collect();
    let leak = |text: String| -> &'static str { text.leak() };
    let file: &'static WeightFile = Box::leak(Box::new(WeightFile {
        source: "a.ckpt",
        source_sha256: "",
        name: "a.safetensors",
        form: weights::Form::Arrays { sha256: leak(arrays_sha256(&arrays)) },
    }));
    let known = weights::Weights {
        name: "tiny-weights",
        package: "tiny",
        version: "1.0",
        kind: weights::Package::Source,
        archive_sha256: "",
        inside: "",
        files: std::slice::from_ref(file),
    };
    let layout = Layout::at(place.path("project"));
    let cached = known.folder(&layout).join(file.name);
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = arrays
        .iter()
        .map(|(name, a)| (name, (a.shape().to_vec(), a.iter().flat_map(|v| v.to_le_bytes()).collect())))
        .collect();
    let views = bytes.iter().map(|(name, (shape, values))| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), values);
        (name.as_str(), view.unwrap())
    });
    let stored = safetensors::serialize(views, None).unwrap();
    fs::write(&cached, &stored).unwrap();
    assert_eq!(weights::load(&layout, &known, file).unwrap(), arrays);

    move |case| {
        if case.one_in(2) {
            let bytes = changed_header(case, &good);
            case.note("model.safetensors", &bytes);
            let path = place.path("x.safetensors");
            fs::write(&path, &bytes).unwrap();
            let (found, held) = peak(|| Model::read(&path));
            assert!(held <= 400 * bytes.len() + (4 << 20), "{held} bytes held for a file of {}", bytes.len());
            return match found {
                Ok(model) => {
                    assert_eq!(model.weights.values().len(), model.weights.graph().len());
                    true
                }
                Err(e) => {
                    is_clear(&e.to_string(), &path);
                    false
                }
            };
        }
        let bytes = changed_header(case, &stored);
        case.note("a.safetensors", &bytes);
        fs::write(&cached, &bytes).unwrap();
        match weights::load(&layout, &known, file) {
            // The same arrays with another header.
            Ok(found) => {
                assert_eq!(found, arrays);
                true
            }
            Err(e) => {
                assert!(!matches!(e, DataError::Absent { .. }), "{e}");
                is_clear(&e.to_string(), &cached);
                false
            }
        }
    }
}

/// A `.safetensors` file with another header of the right length, or other bytes.
pub fn changed_header(case: &mut Case, good: &[u8]) -> Vec<u8> {
    if case.one_in(2) {
        return changed(case, good, good);
    }
    let length = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let header = String::from_utf8_lossy(&good[8..length]).replace(',', "\n,");
    let header = changed_text(case, &header, "\"y\":{\"dtype\":\"F16\"\n,\"shape\":[2\n,\"data_offsets\":[0")
        .replace('\n', "");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &good[length..]].concat()
}

const TRAIN: &str = r#"
steps = 8
batch = 4
seed = 1
checkpoint_every = 4
log_every = 4
data = { kind = "toy", k = 9 }
arch = { kind = "toy", form = "paper", width = 4, depth = 2, time = 4, scale = 4.0 }
process = { kind = "ve", sigma = 1.0, horizon = 1.0, from = 1e-5 }
adam = { learning_rate = 1e-2 }
ema = { decay = 0.9, warm_up = false }
"#;

/// The files of a finished training run, which has two checkpoints.
pub fn trained(place: &Place) -> Files {
    let folder = place.path("run");
    let settings: TrainSettings = toml::from_str(TRAIN).unwrap();
    let layout = Layout::at(place.path("project"));
    let cpu = DeviceChoice::Only(Device::Cpu);
    train_in(&folder, settings, &layout, cpu, &Silent).unwrap();
    files(&folder)
}

/// Everything that is read of a run: its two kinds of weights with their step.
fn read_run(folder: &Path) -> Result<[(Vec<f32>, u64); 2], mem2gen::Error> {
    let run = RunDir::open(folder)?;
    run.manifest()?;
    let read = |kind| -> Result<(Vec<f32>, u64), mem2gen::Error> {
        let (weights, step) = run.weights(kind)?;
        assert_eq!(weights.values().len(), run.graph().len());
        Ok((weights.values().to_vec(), step))
    };
    Ok([read(Kind::Ema)?, read(Kind::Raw)?])
}

/// A run whose files are changed: finished, or interrupted with two checkpoints.
pub fn run() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let finished = trained(&place);
    let mut interrupted = finished.clone();
    interrupted.retain(|name, _| name == "config.json" || name.starts_with("checkpoints/"));
    assert_eq!(interrupted.len(), 3, "{:?}", interrupted.keys());
    let folder = place.path("work");
    let mut good = Vec::new();
    let mut older = interrupted.clone();
    older.retain(|name, _| !name.contains("0008"));
    for files in [&finished, &interrupted, &older] {
        put(&folder, files);
        good.push(read_run(&folder).unwrap());
    }
    move |case| {
        let mut files = if case.one_in(2) { finished.clone() } else { interrupted.clone() };
        let name = one_of(case, &files);
        let old = files[&name].clone();
        let other = one_of(case, &files);
        let mut new = changed_file(case, &name, &old, &files[&other]);
        let fits = case.one_in(2);
        if fits && name.ends_with(".checkpoint") && new.len() > 32 {
            let at = new.len() - 32;
            let sum = sha256_bytes(&new[..at]);
            new[at..].copy_from_slice(&sum);
        }
        if fits && let Some(manifest) = files.get_mut("manifest.json") {
            *manifest = with_sum(manifest, &sha256_hex(&old), &sha256_hex(&new));
        }
        case.note(&name, &new);
        files.insert(name.clone(), new.clone());
        put(&folder, &files);
        let (found, held) = peak(|| read_run(&folder));
        let bytes: usize = files.values().map(Vec::len).sum();
        assert!(held <= 100 * bytes + (4 << 20), "{held} bytes held for files of {bytes}");
        match found {
            Ok(found) => {
                // Without a checksum that fits, a change is found, or it is in a file that is not read.
                let summed = name.ends_with(".safetensors") || name.ends_with(".checkpoint");
                if summed && !fits && new != old {
                    assert!(good.contains(&found), "{name} was changed and read");
                }
                true
            }
            Err(e) => {
                // A file of the folder, or the folder.
                let said = e.to_string();
                is_clear(&said, &folder);
                false
            }
        }
    }
}

fn sha256_bytes(bytes: &[u8]) -> Vec<u8> {
    let hex = sha256_hex(bytes);
    (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Labels as a cell has them.
fn labels() -> Vec<Column> {
    let distance = |name: &str| Column::from(Series::new(name.into(), &[Some(0.5f64), None, Some(0.25)]));
    vec![
        integers("sample", vec![0, 1, 2]),
        texts("label", &["memorized", "invalid", "spurious"]),
        distance("d_train"),
        distance("d_synthetic"),
    ]
}

fn parquet(place: &Place, columns: Vec<Column>) -> Vec<u8> {
    let path = place.path("made.parquet");
    write_parquet_with(&path, &frame("made", columns).unwrap(), &[("note", "a text")]).unwrap();
    fs::read(path).unwrap()
}

/// A column of this name with values of a random type, some out of the range that is read.
fn column(case: &mut Case, name: &str) -> Column {
    match case.below(7) {
        0 => integers(name, vec![0, 1, 2]),
        1 => integers(name, vec![-1, i64::MIN, i64::MAX]),
        2 => floats(name, vec![f64::NAN, f64::INFINITY, 0.5]),
        3 => texts(name, &["memorized", "invalid", "spurious"]),
        4 => texts(name, &["a\u{1b}[31m\n", &"x".repeat(2000), ""]),
        5 => Series::new(name.into(), &[None, None, Some(0.5f64)]).into(),
        _ => Series::new(name.into(), &[true, false, true]).into(),
    }
}

/// A table of columns of any type, or a changed file of one.
pub fn table() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let good = parquet(&place, labels());
    let metrics = ["step", "loss", "gradient", "rate", "seconds"];
    let metrics = metrics.map(|name| match name {
        "step" => integers(name, vec![4, 8, 12]),
        _ => floats(name, vec![0.1, 0.2, 0.3]),
    });
    let other = parquet(&place, metrics.to_vec());
    move |case| {
        let bytes = if case.one_in(3) {
            let names = ["sample", "label", "d_train", "d_synthetic", "step", "loss", "\n\u{1b}[31m"];
            let columns = names.iter().filter(|_| !case.one_in(9)).collect::<Vec<_>>();
            let columns = columns.into_iter().map(|name| column(case, name)).collect();
            parquet(&place, columns)
        } else if case.one_in(2) {
            changed(case, &good, &other)
        } else {
            changed(case, &other, &good)
        };
        case.note("x.parquet", &bytes);
        let path = place.path("x.parquet");
        fs::write(&path, &bytes).unwrap();
        if let Err(e) = parquet_note(&path, "note") {
            is_clear(&e.to_string(), &path);
        }
        match read_parquet(&path) {
            Ok(frame) => {
                let rows = labelled_rows(&frame).map(|rows| rows.len());
                let steps = metrics_rows(&frame).map(|rows| rows.len());
                for read in [&rows, &steps] {
                    match read {
                        Ok(count) => assert_eq!(*count, frame.height()),
                        // A frame has no file.
                        Err(e) => is_clear(&format!("frame: {e}"), Path::new("frame")),
                    }
                }
                rows.is_ok() || steps.is_ok()
            }
            Err(e) => {
                is_clear(&e.to_string(), &path);
                false
            }
        }
    }
}

/// A stored result whose table or record is changed.
pub fn stored() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let folder = place.path("results");
    let stored = Stored::new(&folder, "sizes");
    let print =
        Fingerprint::new("sizes", 1, json!({"beta": 20.0, "k": [2, 9]}), "smoke").data("mnist", "00ff");
    let table = frame("sizes", labels()).unwrap();
    stored.save(&print, &table, 1.0).unwrap();
    let good = files(&folder);
    move |case| {
        let mut files = good.clone();
        let name = one_of(case, &files);
        let old = files[&name].clone();
        let new = changed_file(case, &name, &old, &good["sizes.parquet"]);
        let fits = case.one_in(2) && name.ends_with("parquet");
        if fits {
            let record = files.get_mut("sizes.json").unwrap();
            *record = with_sum(record, &sha256_hex(&old), &sha256_hex(&new));
        }
        case.note(&name, &new);
        files.insert(name.clone(), new.clone());
        put(&folder, &files);
        let other = name.ends_with("parquet") && !fits && new != old;
        match stored.load(&print).unwrap() {
            Outcome::Fits(found) => {
                assert!(!other, "a changed table was accepted");
                assert!(fits || found.equals_missing(&table));
            }
            Outcome::Absent => panic!("both files exist"),
            Outcome::Stale { why } => is_clear(&format!("sizes: {why}"), Path::new("sizes")),
        }
        match stored.open() {
            Ok(found) => {
                assert!(!other, "a changed table was accepted");
                assert!(fits || found.equals_missing(&table));
                true
            }
            Err(e) => {
                is_clear(&e.to_string(), &stored.table_path());
                false
            }
        }
    }
}

/// The files of a finished cell of a sweep.
fn cell_files(place: &Place, samples: &Array2<f32>, labels: Vec<u8>) -> Files {
    let folder = place.path("made");
    write_array(&folder.join("samples.npy"), samples).unwrap();
    let found = json!([{
        "multiple": 4,
        "labels_sha256": sha256_hex(&labels),
        "classification": { "delta_m": { "value": 0.25 }, "delta_s": { "value": null } },
    }]);
    let about = json!({ "samples_sha256": rows_sha256(samples.view()), "found": found });
    fs::write(folder.join("cell.json"), serde_json::to_string_pretty(&about).unwrap()).unwrap();
    fs::write(folder.join("labels-x4.parquet"), labels).unwrap();
    files(&folder)
}

/// A cell of a sweep of which a file is changed.
pub fn cell() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let samples = Array2::from_shape_fn((3, 4), |(i, j)| (i + j) as f32 / 6.0 - 0.5);
    let good = cell_files(&place, &samples, parquet(&place, labels()));
    let folder = place.path("work");
    put(&folder, &good);
    let known = LabelledSamples::open(&folder).unwrap();
    move |case| {
        let mut files = good.clone();
        let name = one_of(case, &files);
        let old = files[&name].clone();
        let new = if name.ends_with("parquet") && case.one_in(2) {
            let names = ["sample", "label", "d_train", "d_synthetic"];
            let columns = names.iter().map(|name| {
                if case.one_in(3) {
                    column(case, name)
                } else {
                    labels().into_iter().find(|c| c.name() == name).unwrap()
                }
            });
            let columns = columns.collect();
            parquet(&place, columns)
        } else {
            changed_file(case, &name, &old, &good["samples.npy"])
        };
        let fits = case.one_in(2);
        if fits {
            let about = files.get_mut("cell.json").unwrap();
            *about = with_sum(about, &sha256_hex(&old), &sha256_hex(&new));
        }
        case.note(&name, &new);
        files.insert(name.clone(), new.clone());
        put(&folder, &files);
        let (found, held) = peak(|| LabelledSamples::open(&folder));
        let bytes: usize = files.values().map(Vec::len).sum();
        assert!(held <= 400 * bytes + (1 << 20), "{held} bytes held for files of {bytes}");
        match found {
            Ok(found) => {
                assert_eq!(found.labels.len(), found.samples.nrows());
                assert!(found.labels.iter().all(|row| Class::LABELS.contains(&row.label)));
                // Samples are summed by their values; the header may differ.
                assert!(fits || found.samples == known.samples, "{name} was changed and read");
                assert!(fits || found.labels == known.labels, "{name} was changed and read");
                true
            }
            Err(e) => {
                is_clear(&e.to_string(), &folder);
                false
            }
        }
    }
}

const PLAN: &str = r#"datasets = ["mnist", "fashion-mnist"]
size = 7
sizes = [2, 64]
control = true
seeds = [3407, 1]
sample_seed = 3407

[[network]]
name = "mlp8"
arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }

[[network]]
name = "unet8"
arch = { kind = "unet", channels = 8, multipliers = [1], blocks = 1, attention = [], dropout = 0.0 }
grid = { first = 2, ladder = 4, between = [16, 64], total = 20 }
ema = { decay = 0.999, warm_up = true }

[training]
prediction = "x0"
process = { levels = 1000, beta_start = 1e-4, beta_end = 0.02 }
steps = 60000
batch = 64
repeat = true
adam = { learning_rate = 2e-3, decay = "cosine" }
checkpoint_every = 20000
log_every = 1000

[sampling]
sampler = "ddim"
steps = 100
multiples = [4, 8]
least = 512

[detection]
metric = "l2"
held_out = 4000
delta_m = 0.2
delta_s = 0.2
"#;

/// Bytes that may be held for a plan or settings: the largest architecture that is accepted takes some megabytes.
const SETTINGS: usize = 256 << 20;

pub fn plan() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    move |case| {
        let text = changed_text(case, PLAN, TRAIN);
        case.note("plan.toml", text.as_bytes());
        let path = place.path("plan.toml");
        fs::write(&path, &text).unwrap();
        let (found, held) = peak(|| Plan::read(&path));
        assert!(held <= SETTINGS, "{held} bytes held for a plan of {}", text.len());
        match found {
            Ok(plan) => {
                assert!(plan.tasks().iter().enumerate().all(|(i, task)| task.index == i && task.k > 0));
                true
            }
            Err(e) => {
                // What the plan says is checked under its name, the file's.
                let said = e.to_string();
                let named =
                    if said.contains(&*path.to_string_lossy()) { path.as_path() } else { Path::new("") };
                is_clear(&said, named);
                false
            }
        }
    }
}

/// Inputs that once gave errors of several lines, without the file, or no end.
#[test]
fn what_was_once_wrong() {
    let place = Place::new();
    let path = place.path("plan.toml");
    let plan = |from: &str, to: &str| {
        fs::write(&path, PLAN.replacen(from, to, 1)).unwrap();
        Plan::read(&path).unwrap_err().to_string()
    };
    let said = plan("sample_seed = ", "\u{1b}[31m = ");
    is_clear(&said, &path);
    assert!(said.contains("line 6, column "), "{said}");
    for total in ["total = 9223372036854775807", "total = 19000"] {
        assert!(plan("total = 20", total).contains("grid"));
    }

    let arch = Arch::Toy(ToySettings { width: 4, depth: 2, time: 4, ..ToySettings::code() });
    let path = place.path("model.safetensors");
    Model::init(arch, Shape::vector(2), 1).unwrap().write(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let width = br#"\"width\":4"#;
    let at = bytes.windows(width.len()).position(|window| window == width).unwrap();
    bytes[at + width.len() - 1] = b'0';
    fs::write(&path, bytes).unwrap();
    let said = Model::read(&path).unwrap_err().to_string();
    is_clear(&said, &path);
    assert!(said.contains("width 0"), "{said}");

    let mut run = trained(&place);
    let config = String::from_utf8(run["config.json"].clone()).unwrap();
    run.insert("config.json".to_owned(), config.replacen("\"decay\": 0.9", "\"decay\": 9.9", 1).into_bytes());
    put(&place.path("run"), &run);
    let said = RunDir::open(&place.path("run")).unwrap_err().to_string();
    is_clear(&said, &place.path("run"));
    assert!(said.contains("ema.decay"), "{said}");

    let mut columns = labels();
    columns[1] = texts("label", &["memorized", "\u{1b}[31m", &"x".repeat(2000)]);
    let table = parquet(&place, columns);
    put(&place.path("cell"), &cell_files(&place, &Array2::zeros((3, 4)), table));
    let said = LabelledSamples::open(&place.path("cell")).unwrap_err().to_string();
    is_clear(&said, &place.path("cell"));
    assert!(said.contains("\\u{1b}[31m"), "{said}");
}

/// polars reserves memory for what a page claims to hold, and some bytes make it panic.
#[test]
fn every_byte_of_a_table_may_be_damaged() {
    let place = Place::new();
    let good = parquet(&place, labels());
    let path = place.path("x.parquet");
    let mut refused = 0;
    for at in 0..good.len() {
        for value in [1, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            fs::write(&path, bytes).unwrap();
            if let Err(e) = read_parquet(&path) {
                is_clear(&e.to_string(), &path);
                refused += 1;
            }
        }
    }
    assert!(refused > good.len() / 2, "{refused} of {}", 2 * good.len());
}

/// Settings of a study from a table of a profile.
fn table_of<T: DeserializeOwned>(profile: &toml::Table, name: &str) -> Option<T> {
    match profile.get(name)?.clone().try_into() {
        Ok(settings) => Some(settings),
        Err(e) => {
            drop(e.to_string());
            None
        }
    }
}

/// Checks a result of `check`.
fn checked<T, E: std::fmt::Display>(found: Option<Result<T, E>>) -> bool {
    match found {
        Some(Ok(_)) => true,
        Some(Err(e)) => {
            is_clear(&e.to_string(), Path::new(""));
            false
        }
        None => false,
    }
}

/// Settings of training, and tables of a profile.
pub fn settings() -> impl FnMut(&mut Case) -> bool + Send {
    let smoke = PROFILES[0].1;
    move |case| {
        let training = case.one_in(2);
        let text = if training { changed_text(case, TRAIN, PLAN) } else { changed_text(case, smoke, TRAIN) };
        case.note("settings.toml", text.as_bytes());
        let (taken, held) = peak(|| {
            if training {
                return match from_toml::<TrainSettings>(&text) {
                    Ok(settings) => checked(Some(settings.check(Shape::vector(2)))),
                    Err(reason) => {
                        is_clear(&reason, Path::new(""));
                        false
                    }
                };
            }
            let Ok(profile) = text.parse::<toml::Table>() else { return false };
            let (basin, curvature) =
                (table_of::<BasinSettings>(&profile, "basin"), table_of(&profile, "curvature"));
            let (energy, load) = (table_of(&profile, "energy"), table_of(&profile, "load"));
            checked(basin.map(|settings| settings.check(None)))
                & checked(curvature.map(CurvatureSettings::check))
                & checked(energy.map(PotentialSettings::check))
                & checked(load.map(LoadSettings::check))
        });
        assert!(held <= SETTINGS + SMALL, "{held} bytes held for settings of {}", text.len());
        taken
    }
}
