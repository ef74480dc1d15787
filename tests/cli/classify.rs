//! `mem2gen classify` on sets with planted copies, planted repeats of new images, and noise, in every form of input;
//! what it writes, what it does without a threshold, and what it refuses.

use std::fs;
use std::io::{Cursor, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Dice, Folder, mem2gen};
use candle_core::{DType, Device, Tensor};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, ImageFormat, RgbImage};
use mem2gen::frame::{column_i64, column_text, parquet_note, read_parquet};
use ndarray::{Array2, Array3, Array4, Axis, s};
use serde_json::Value;

const SIDE: usize = 8;
const TRAIN: usize = 60;

/// Bytes of images, `[n, 8, 8, channels]`.
type Pixels = Array4<u8>;

/// A training set, synthetic samples and their labels.
struct World {
    train: Pixels,
    synthetic: Pixels,
    labels: Vec<&'static str>,
}

/// 60 training images of noise; 18 exact copies and 12 that are off by one level in places, of different images; 8 new
/// images three times each; 26 new images; mixed.
fn world(channels: usize) -> World {
    let mut dice = Dice::new(11);
    let mut noise =
        |n: usize| Pixels::from_shape_fn((n, SIDE, SIDE, channels), |_| (dice.word() >> 32) as u8);
    let (train, new, alone) = (noise(TRAIN), noise(8), noise(26));
    let mut rows = Vec::new();
    for i in 0..30 {
        let mut copy = train.index_axis(Axis(0), 2 * i).to_owned();
        if i >= 18 {
            copy.iter_mut().step_by(1 + i % 3).for_each(|v| *v ^= 1);
        }
        rows.push((copy, "memorized"));
    }
    rows.extend((0..24).map(|i| (new.index_axis(Axis(0), i % 8).to_owned(), "spurious")));
    rows.extend((0..26).map(|i| (alone.index_axis(Axis(0), i).to_owned(), "generalized")));
    // 37 and 80 have no common divisor.
    let mixed: Vec<_> = (0..80).map(|i| rows[37 * i % 80].clone()).collect();
    let views: Vec<_> = mixed.iter().map(|(image, _)| image.view()).collect();
    World {
        train,
        synthetic: ndarray::stack(Axis(0), &views).unwrap(),
        labels: mixed.iter().map(|(_, label)| *label).collect(),
    }
}

fn unit(pixels: &Pixels) -> Array4<f32> {
    pixels.mapv(|v| f32::from(v) / 255.0)
}

fn gray(pixels: &Pixels) -> Array3<u8> {
    pixels.slice(s![.., .., .., 0]).to_owned()
}

fn tensor(values: &Array4<f32>) -> Tensor {
    let values: Vec<f32> = values.iter().copied().collect();
    Tensor::from_vec(values, (80, SIDE, SIDE, 1), &Device::Cpu).unwrap()
}

fn idx(pixels: &Pixels) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    for size in &pixels.shape()[..3] {
        bytes.extend((*size as u32).to_be_bytes());
    }
    bytes.extend(pixels.iter());
    bytes
}

fn write(folder: &Folder, name: &str, bytes: &[u8]) -> String {
    fs::write(folder.path(name), bytes).unwrap();
    folder.at(name)
}

/// A folder of pictures, each written by `encode`.
fn pictures(
    folder: &Folder,
    name: &str,
    pixels: &Pixels,
    encode: impl Fn(&Pixels, usize) -> Vec<u8>,
) -> String {
    fs::create_dir(folder.path(name)).unwrap();
    for i in 0..pixels.shape()[0] {
        fs::write(folder.path(name).join(format!("{i:03}.png")), encode(pixels, i)).unwrap();
    }
    folder.at(name)
}

fn as_gray(pixels: &Pixels, i: usize) -> Vec<u8> {
    let of = |x: u32, y: u32| image::Luma([pixels[[i, y as usize, x as usize, 0]]]);
    encoded(GrayImage::from_fn(SIDE as u32, SIDE as u32, of).into(), ImageFormat::Png)
}

fn as_rgb(pixels: &Pixels, i: usize) -> Vec<u8> {
    encoded(rgb(pixels, i).into(), ImageFormat::Png)
}

fn as_coloured(pixels: &Pixels, i: usize) -> Vec<u8> {
    let mut image = rgb(pixels, i);
    image.get_pixel_mut(0, 0).0[0] ^= 1;
    encoded(image.into(), ImageFormat::Png)
}

fn rgb(pixels: &Pixels, i: usize) -> RgbImage {
    let last = pixels.shape()[3] - 1;
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        image::Rgb([0, 1, 2].map(|c: usize| pixels[[i, y as usize, x as usize, c.min(last)]]))
    })
}

fn encoded(image: image::DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn report(folder: &Folder, out: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(out).join("fractions.json")).unwrap()).unwrap()
}

fn labels(folder: &Folder, out: &str) -> Vec<String> {
    column_text(&read_parquet(&folder.path(out).join("labels.parquet")).unwrap(), "label").unwrap()
}

/// Classifies and holds all labels and fractions to what was planted.
#[track_caller]
fn finds(
    folder: &Folder,
    (train, synthetic): (&str, &str),
    more: &[&str],
    world: &World,
    out: &str,
) -> Value {
    let call = ["classify", "--train", train, "--synthetic", synthetic, "--out", &folder.at(out)];
    let said = folder.runs(&[&call[..], more].concat());
    assert_eq!(labels(folder, out), world.labels, "{more:?}: {said}");
    let report = report(folder, out);
    for (label, count) in [("memorized", 30), ("spurious", 24), ("generalized", 26), ("invalid", 0)] {
        let share = &report["fractions"][label];
        assert_eq!(share["count"], count, "{label}: {share}");
        let (fraction, fine) = (f64::from(count) / 80.0, share["fraction"].as_f64().unwrap());
        assert_eq!(fine, fraction);
        for interval in ["bootstrap", "wilson"] {
            let ends = [0, 1].map(|i| share[interval][i].as_f64().unwrap());
            assert!(ends[0] <= fine && fine <= ends[1] && ends[1] - ends[0] < 0.25, "{label}: {share}");
        }
    }
    report
}

#[test]
fn planted_labels_are_found_in_every_form() {
    let folder = Folder::new();
    let world = world(1);
    let World { train, synthetic, .. } = &world;
    let bytes = folder.array("bytes.npy", &gray(train));
    let zipped = {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(&idx(train)).unwrap();
        write(&folder, "train-images.gz", &out.finish().unwrap())
    };
    let train_pictures = pictures(&folder, "train-pictures", train, as_gray);
    let real = unit(synthetic);
    let several = folder.at("several.safetensors");
    let named = [("images".to_owned(), tensor(&real)), ("labels".to_owned(), tensor(&real))].into();
    candle_core::safetensors::save(&named, &several).unwrap();
    let one = |name: &str, tensor: Tensor| {
        let path = folder.at(name);
        candle_core::safetensors::save(&[("x".to_owned(), tensor)].into(), &path).unwrap();
        path
    };
    let half = one("half.safetensors", tensor(&real).to_dtype(DType::F16).unwrap());
    let stored = one(
        "bytes.safetensors",
        Tensor::from_vec(synthetic.iter().copied().collect(), (80, 1, SIDE, SIDE), &Device::Cpu).unwrap(),
    );
    let flat = Array2::from_shape_vec((80, 64), real.iter().copied().collect()).unwrap();
    let channels_first = real.view().permuted_axes([0, 3, 1, 2]).mapv(f64::from);
    let forms: Vec<(&str, String, &[&str])> = vec![
        (&bytes, folder.array("s-bytes.npy", &gray(synthetic)), &[]),
        (&bytes, folder.array("s-single.npy", &real.slice(s![.., .., .., 0]).to_owned()), &[]),
        (&bytes, folder.array("s-double.npy", &channels_first.as_standard_layout().to_owned()), &[]),
        (
            &bytes,
            folder.array("s-fortran.npy", &real.t().as_standard_layout().reversed_axes().to_owned()),
            &[],
        ),
        (&zipped, folder.array("s-flat.npy", &flat), &[]),
        (&zipped, write(&folder, "s-images.idx", &idx(synthetic)), &[]),
        (&train_pictures, several, &["--tensor", "images"]),
        (&train_pictures, half, &[]),
        (&train_pictures, stored, &[]),
        (&zipped, pictures(&folder, "s-gray", synthetic, as_gray), &[]),
        // Gray images in three equal channels, as torchvision saves them.
        (&bytes, pictures(&folder, "s-rgb", synthetic, as_rgb), &[]),
        // With one pixel of a colour, so that gray images get three channels.
        (&bytes, pictures(&folder, "s-colour", synthetic, as_coloured), &[]),
        (
            &train_pictures,
            pictures(&folder, "s-jpeg", synthetic, |pixels, i| {
                let mut bytes = Vec::new();
                let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
                rgb(pixels, i).write_with_encoder(encoder).unwrap();
                bytes
            }),
            &[],
        ),
    ];
    for (i, (train, synthetic, more)) in forms.iter().enumerate() {
        let out = format!("out{i}");
        let report = finds(&folder, (train, synthetic), more, &world, &out);
        assert_eq!(report["delta_m"]["origin"], "valley", "{synthetic}");
        assert_eq!(report["delta_s"]["origin"], "valley", "{synthetic}");
        assert_eq!(report["synthetic"]["values"]["range"], "[0, 1]");
    }
}

#[test]
fn colour_images_are_compared_whatever_the_order_of_their_axes() {
    let folder = Folder::new();
    let world = world(3);
    let last = folder.array("last.npy", &unit(&world.train));
    let first = unit(&world.synthetic).permuted_axes([0, 3, 1, 2]).as_standard_layout().to_owned();
    let first = folder.array("first.npy", &first);
    let report = finds(&folder, (&last, &first), &[], &world, "out0");
    assert_eq!(report["synthetic"]["shape"], serde_json::json!([8, 8, 3]));
    finds(&folder, (&last, &pictures(&folder, "pictures", &world.synthetic, as_rgb)), &[], &world, "out1");
    // [-1, 1] with [-1, 1].
    let symmetric = |name: &str, pixels: &Pixels| folder.array(name, &unit(pixels).mapv(|v| 2.0 * v - 1.0));
    let both = (symmetric("t.npy", &world.train), symmetric("s.npy", &world.synthetic));
    let report = finds(&folder, (&both.0, &both.1), &[], &world, "out2");
    assert_eq!(report["train"]["values"]["range"], "[-1, 1]");
}

#[test]
fn all_that_is_written_says_the_same() {
    let folder = Folder::new();
    let world = world(1);
    let train = folder.array("D.npy", &gray(&world.train));
    let synthetic = pictures(&folder, "S", &world.synthetic, as_gray);
    let report = finds(&folder, (&train, &synthetic), &[], &world, "out");
    let mut names: Vec<_> = fs::read_dir(folder.path("out"))
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let drawn = ["d_synthetic", "d_train", "examples", "ratio"];
    let drawn = drawn.iter().flat_map(|name| [format!("{name}.png"), format!("{name}.svg")]);
    let others = ["fractions.json", "labels.csv", "labels.parquet", "report.html"].map(str::to_owned);
    let mut due: Vec<String> = drawn.chain(others).collect();
    due.sort();
    assert_eq!(names, due);

    let path = folder.path("out/labels.parquet");
    let frame = read_parquet(&path).unwrap();
    let columns: Vec<&str> = frame.get_column_names().iter().map(|n| n.as_str()).collect();
    let fixed = ["sample", "label", "d_train", "nearest_train", "d_synthetic", "nearest_synthetic", "ratio"];
    let p_values = ["p_value", "q_value", "p_distance"];
    let due = [&fixed[..], &p_values, &["sample_file", "synthetic_file"]].concat();
    assert_eq!(columns, due);
    let csv = fs::read_to_string(folder.path("out/labels.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (81, due.join(",").as_str()));
    assert!(lines[80].starts_with(&format!("79,{},", world.labels[79])) && lines[80].contains(",079.png,"));
    assert_eq!(column_text(&frame, "sample_file").unwrap()[79], "079.png");
    assert_eq!(parquet_note(&path, "device").unwrap().as_deref(), Some("cpu"));

    // Distances against sums in f64, and neighbours of copies by what was planted.
    let near = column_i64(&frame, "nearest_train").unwrap();
    let d = mem2gen::frame::column_f64(&frame, "d_train").unwrap();
    for i in 0..80 {
        let to = |j: usize| -> f64 {
            let pairs = world.synthetic.index_axis(Axis(0), i).to_owned();
            let pairs = pairs.iter().zip(world.train.index_axis(Axis(0), j).to_owned()).map(|(a, b)| (*a, b));
            pairs.map(|(a, b)| ((f64::from(a) - f64::from(b)) / 255.0).powi(2)).sum::<f64>().sqrt()
        };
        let (j, least) = (0..TRAIN).map(|j| (j, to(j))).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert_eq!(near[i], j as i64);
        assert!((d[i] - least).abs() < 1e-6 * (1.0 + least), "{} {least}", d[i]);
    }
    let (delta_m, delta_s) = (report["delta_m"]["value"].as_f64(), report["delta_s"]["value"].as_f64());
    let (delta_m, delta_s) = (delta_m.unwrap(), delta_s.unwrap());
    assert_eq!(d.iter().filter(|d| **d <= delta_m).count(), 30);
    assert_eq!((report["exact_copies"].as_u64(), report["far"].as_u64()), (Some(18), Some(0)));
    // Copies of images that are there once: the second opinion is the same.
    assert_eq!(report["ratio"]["copies"], 30);
    assert_eq!(report["ratio"]["also_memorized"], 30);
    for part in report["sensitivity"].as_array().unwrap() {
        assert_eq!(part["fractions"]["memorized"]["count"], 30, "{part}");
    }

    // The thresholds that were found, given: the same labels. Another: other labels.
    let (m, s) = (delta_m.to_string(), delta_s.to_string());
    let again = finds(&folder, (&train, &synthetic), &["--delta-m", &m, "--delta-s", &s], &world, "given");
    assert_eq!(again["delta_m"]["origin"], "manual");
    assert_eq!(again["fractions"], report["fractions"]);
    let out = folder.at("none");
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--out", &out];
    folder.runs(&[&call[..], &["--delta-m", "0", "--delta-s", "0"]].concat());
    assert_eq!(labels(&folder, "none").iter().filter(|l| *l == "memorized").count(), 18);

    // The same call gives the same bytes.
    finds(&folder, (&train, &synthetic), &[], &world, "twice");
    for name in names {
        // Two files have the command line, with the name of the folder.
        let read = |out: &str| {
            let bytes = fs::read(folder.path(out).join(&name)).unwrap();
            let place = folder.at(out);
            String::from_utf8(bytes.clone()).map_or(bytes, |text| text.replace(&place, "OUT").into_bytes())
        };
        assert!(read("out") == read("twice"), "{name} differs");
    }
}

/// With the weights of LPIPS where they were fetched.
#[test]
fn planted_labels_are_found_by_lpips() {
    let cache = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cache/lpips-weights");
    if !cache.exists() {
        eprintln!("skipped: the weights of LPIPS were not fetched");
        return;
    }
    let folder = Folder::new();
    let world = world(1);
    let train = folder.array("D.npy", &gray(&world.train));
    let mut real = unit(&world.synthetic).mapv(|v| 2.0 * v - 1.0);
    let synthetic = folder.array("S.npy", &real);
    let metric = ["--metric", "lpips-alex", "--any-range"];
    finds(&folder, (&train, &synthetic), &metric, &world, "out");
    // An image without features has no class.
    real[[4, 0, 0, 0]] = f32::NAN;
    let synthetic = folder.array("bad.npy", &real);
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--out", &folder.at("bad")];
    folder.runs(&[&call[..], &metric].concat());
    let mut due = world.labels.clone();
    due[4] = "invalid";
    assert_eq!(labels(&folder, "bad"), due);
}

#[test]
fn what_is_not_finite_is_counted_and_has_no_class() {
    let folder = Folder::new();
    let world = world(1);
    let mut rows =
        Array2::from_shape_vec((80, 64), unit(&world.synthetic).iter().copied().collect()).unwrap();
    let mut due: Vec<&str> = world.labels.clone();
    for (i, bad) in [(3, f32::NAN), (40, f32::INFINITY), (79, f32::NEG_INFINITY), (5, 1e30)] {
        rows[[i, i % 64]] = bad;
        due[i] = "invalid";
    }
    let (train, synthetic) = (folder.array("D.npy", &gray(&world.train)), folder.array("S.npy", &rows));
    folder.runs(&["classify", "--train", &train, "--synthetic", &synthetic, "--out", &folder.at("out")]);
    assert_eq!(labels(&folder, "out"), due);
    let report = report(&folder, "out");
    assert_eq!((report["invalid"].as_u64(), report["samples"].as_u64()), (Some(4), Some(80)));
    assert_eq!(report["fractions"]["invalid"]["fraction"], 0.05);
    let frame = read_parquet(&folder.path("out/labels.parquet")).unwrap();
    assert_eq!(frame.column("d_train").unwrap().null_count(), 4);

    // Nothing but such samples.
    rows.fill(f32::NAN);
    let synthetic = folder.array("all.npy", &rows);
    let said =
        mem2gen(&["classify", "--train", &train, "--synthetic", &synthetic, "--out", &folder.at("all")]);
    assert!(said.code == Some(4) && said.stderr.contains("every sample has NaN"), "{}", said.stderr);
    assert_eq!(self::report(&folder, "all")["status"], "not_answered");
    assert!(labels(&folder, "all").iter().all(|l| l == "invalid"));
    assert!(!folder.path("all/d_train.png").exists());
    assert_eq!(self::report(&folder, "all")["not_drawn"].as_array().unwrap().len(), 4);
}

#[test]
fn where_delta_s_is_not_known_copies_are_told_from_new_samples() {
    let folder = Folder::new();
    let mut dice = Dice::new(5);
    let mut noise = |n: usize| Array2::from_shape_fn((n, 64), |_| dice.uniform() as f32);
    let (real, samples, held_out) = (noise(200), noise(150), noise(300));
    let train = folder.array("D.npy", &real);
    let synthetic = folder.array("S.npy", &samples);
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--out"];
    let out = folder.at("out");
    let said = mem2gen(&[&call[..], &[&out]].concat());
    assert!(said.code == Some(3) && said.stderr.lines().count() == 1, "{}", said.stderr);
    for word in ["150 new samples", "d(x, S \\ x) is unimodal", "--held-out"] {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    assert!(labels(&folder, "out").iter().all(|l| l == "new"));
    let found = report(&folder, "out");
    assert_eq!((&found["status"], &found["delta_m"]["origin"]), (&"in_part".into(), &"null".into()));
    assert_eq!(
        (&found["fractions"]["new"]["count"], &found["fractions"]["spurious"]),
        (&150.into(), &Value::Null)
    );
    assert_eq!((&found["decision"]["called"], &found["decision"]["interval"][0]), (&0.into(), &0.0.into()));
    assert_eq!(found["decision"]["null"]["source"], "training");
    assert!(folder.path("out/d_train.svg").exists() && folder.path("out/examples.svg").exists());

    // Held-out data of the same kind: no sample is a copy.
    let null = folder.array("H.npy", &held_out);
    folder.runs(&[&call[..], &[&folder.at("null"), "--held-out", &null]].concat());
    let found = report(&folder, "null");
    assert_eq!(
        (&found["decision"]["null"]["source"], &found["status"]),
        (&"held_out".into(), &"answered".into())
    );
    assert_eq!(found["held_out"]["images"], 300);
    assert_eq!(found["fractions"]["memorized"]["count"], 0);
    assert!(found["fractions"]["generalized"]["fraction"].as_f64().unwrap() > 0.9, "{found}");
    assert!(found["c_t"].as_f64().unwrap().abs() < 4.0, "{found}");

    // One threshold alone is not enough, and with both there are labels.
    assert!(!mem2gen(&[&call[..], &[&folder.at("half"), "--delta-m", "0.1"]].concat()).ok);
    folder.runs(&[&call[..], &[&folder.at("both"), "--delta-m", "0.1", "--delta-s", "0.1"]].concat());
    assert!(labels(&folder, "both").iter().all(|l| l == "generalized"));

    // A model that has nothing but copies: one mode too, and the null tells it from the other.
    let copies = Array2::from_shape_fn((150, 64), |(i, j)| real[[i, j]] + 1e-3 * samples[[i, j]]);
    let synthetic = folder.array("copies.npy", &copies);
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--held-out", &null, "--out"];
    folder.runs(&[&call[..], &[&folder.at("copies")]].concat());
    assert!(labels(&folder, "copies").iter().all(|l| l == "memorized"));
}

#[test]
fn one_training_image_and_one_sample_are_enough() {
    let folder = Folder::new();
    let world = world(1);
    let part = |name: &str, pixels: &Pixels, n: usize| {
        folder.array(name, &gray(pixels).slice(s![..n, .., ..]).to_owned())
    };
    let (one, all) = (part("one.npy", &world.train, 1), part("all.npy", &world.train, TRAIN));
    let deltas = ["--delta-m", "0.5", "--delta-s", "0.5"];
    // Sample 0 is training image 0.
    let run = |train: &str, synthetic: &str, deltas: &[&str], out: &str| {
        let call = ["classify", "--train", train, "--synthetic", synthetic, "--out", &folder.at(out)];
        folder.runs(&[&call[..], deltas].concat());
        (labels(&folder, out), report(&folder, out))
    };
    let (found, report) = run(&one, &part("s80.npy", &world.synthetic, 80), &deltas, "k1");
    assert_eq!(found.iter().filter(|l| *l == "memorized").count(), 1);
    assert_eq!(report["ratio"], Value::Null);
    let (found, report) = run(&all, &part("s1.npy", &world.synthetic, 1), &deltas[..2], "s1");
    assert_eq!(found, ["memorized"]);
    assert_eq!(report["delta_s"]["origin"], "no_distances");
    assert_eq!(report["not_drawn"].as_array().unwrap().len(), 1);
    assert_eq!(run(&one, &part("s1.npy", &world.synthetic, 1), &deltas[..2], "both").0, ["memorized"]);
    // A training set of the same image again and again.
    let same = gray(&world.train).slice(s![..1, .., ..]).broadcast((20, SIDE, SIDE)).unwrap().to_owned();
    let (found, report) = run(&folder.array("same.npy", &same), &folder.at("s80.npy"), &deltas, "same");
    assert_eq!(found.iter().filter(|l| *l == "memorized").count(), 1);
    assert_eq!(report["ratio"]["copies"], 1);
}

/// Images with a slope of random direction and noise, as bytes: 8x8.
fn slopes(dice: &mut Dice, n: usize) -> Array3<u8> {
    let mut out = Array3::zeros((n, SIDE, SIDE));
    for mut image in out.outer_iter_mut() {
        let [a, b, c] = [0; 3].map(|_| dice.normal());
        for ((y, x), v) in image.indexed_iter_mut() {
            let slope = 10.0 * (a * (x as f64 - 3.5) + b * (y as f64 - 3.5)) + 20.0 * c;
            *v = (128.0 + slope + 12.0 * dice.normal()).clamp(0.0, 255.0) as u8;
        }
    }
    out
}

/// Each value moved by up to `most` levels.
fn noisy(dice: &mut Dice, images: &Array3<u8>, most: u64) -> Array3<u8> {
    images.mapv(|v| (i64::from(v) + (dice.word() % (2 * most + 1)) as i64 - most as i64).clamp(0, 255) as u8)
}

/// Classifies and gives the exit status, the labels and the report.
fn answer(
    folder: &Folder,
    sets: [&Array3<u8>; 2],
    held_out: Option<&Array3<u8>>,
    more: &[&str],
) -> (i32, Vec<String>, Value) {
    let out = tempfile::tempdir().unwrap();
    let at = out.path().join("out");
    let (train, synthetic) = (folder.array("D.npy", sets[0]), folder.array("S.npy", sets[1]));
    let mut call =
        vec!["classify", "--train", &train, "--synthetic", &synthetic, "--out", at.to_str().unwrap()];
    let file = held_out.map(|images| folder.array("H.npy", images));
    if let Some(file) = &file {
        call.extend(["--held-out", file]);
    }
    let said = mem2gen(&[&call[..], more].concat());
    let report = serde_json::from_slice(&fs::read(at.join("fractions.json")).unwrap()).unwrap();
    let frame = read_parquet(&at.join("labels.parquet")).unwrap();
    (said.code.unwrap(), column_text(&frame, "label").unwrap(), report)
}

fn memorized(labels: &[String]) -> Vec<usize> {
    (0..labels.len()).filter(|&i| labels[i] == "memorized").collect()
}

#[test]
fn copies_are_found_whatever_else_is_known() {
    let folder = Folder::new();
    let mut dice = Dice::new(21);
    let train = slopes(&mut dice, 100);
    // The training set as its own samples: no label is open.
    let (code, labels, report) = answer(&folder, [&train, &train], None, &[]);
    assert_eq!((code, memorized(&labels).len(), &report["exact_copies"]), (0, 100, &100.into()));

    // Eight noisy copies of 160, with held-out images; 15 of 60 without.
    let new = slopes(&mut dice, 152);
    let copies = noisy(&mut dice, &train.slice(s![..15, .., ..]).to_owned(), 5);
    let planted = |n: usize, all: usize| {
        let (copies, new) = (copies.slice(s![..n, .., ..]), new.slice(s![..all - n, .., ..]));
        ndarray::concatenate(Axis(0), &[copies, new]).unwrap()
    };
    let held_out = slopes(&mut dice, 160);
    let (code, labels, _) = answer(&folder, [&train, &planted(8, 160)], Some(&held_out), &[]);
    assert_eq!((code, memorized(&labels)), (0, (0..8).collect()));
    let (code, labels, report) = answer(&folder, [&train, &planted(15, 60)], None, &[]);
    assert_eq!((code, memorized(&labels)), (3, (0..15).collect()));
    assert!(labels[15..].iter().all(|label| label == "new"), "{labels:?}");
    let interval = [0, 1].map(|i| report["decision"]["interval"][i].as_f64().unwrap());
    assert!(
        interval[0] < 0.25 && interval[0] > 0.1 && interval[1] > 0.25 && interval[1] < 0.4,
        "{interval:?}"
    );
    assert!(
        report["verdict"].as_str().unwrap().starts_with("15 of 60 samples (25.0 %"),
        "{}",
        report["verdict"]
    );

    // 30 training images stand twice.
    let mut twice = train.clone();
    let first = train.slice(s![..30, .., ..]).to_owned();
    twice.slice_mut(s![70.., .., ..]).assign(&first);
    let (_, labels, report) = answer(&folder, [&twice, &planted(15, 60)], None, &[]);
    assert_eq!((memorized(&labels), &report["ratio"]["copies"]), ((0..15).collect(), &15.into()));

    // Held-out images that are near copies are no reason to call samples copies, or to give up.
    let mut held_out = slopes(&mut dice, 100);
    held_out.slice_mut(s![..4, .., ..]).assign(&noisy(
        &mut dice,
        &train.slice(s![..4, .., ..]).to_owned(),
        4,
    ));
    let (code, labels, report) = answer(&folder, [&train, &planted(0, 100)], Some(&held_out), &[]);
    assert_eq!((code, memorized(&labels).len()), (0, 0), "{report}");
    let (_, labels, report) = answer(&folder, [&train, &planted(15, 100)], Some(&held_out), &[]);
    assert_eq!(memorized(&labels), (0..15).collect::<Vec<_>>());
    assert_eq!(report["decision"]["null"]["equal"], 4);
}

#[test]
fn held_out_images_that_are_training_images_hide_no_copy() {
    let folder = Folder::new();
    let mut dice = Dice::new(25);
    let (train, new, other) = (slopes(&mut dice, 100), slopes(&mut dice, 85), slopes(&mut dice, 100));
    let copies = noisy(&mut dice, &train.slice(s![..15, .., ..]).to_owned(), 5);
    let samples = ndarray::concatenate(Axis(0), &[copies.view(), new.view()]).unwrap();
    for (equal, source) in [(0, "held_out"), (10, "held_out"), (50, "held_out"), (100, "training")] {
        let mut held_out = other.clone();
        held_out.slice_mut(s![..equal, .., ..]).assign(&train.slice(s![..equal, .., ..]));
        let (_, labels, report) = answer(&folder, [&train, &samples], Some(&held_out), &[]);
        assert_eq!(memorized(&labels), (0..15).collect::<Vec<_>>(), "{equal}");
        let null = &report["decision"]["null"];
        assert_eq!((&null["source"], &null["equal"]), (&source.into(), &equal.into()));
    }
    // Samples in their place.
    let [train, synthetic, held_out] = [("D.npy", &train), ("S.npy", &samples), ("H.npy", &samples)]
        .map(|(name, images)| folder.array(name, images));
    let out = folder.at("refused");
    let call =
        ["classify", "--train", &train, "--synthetic", &synthetic, "--held-out", &held_out, "--out", &out];
    folder.refuses(&call, &["100 of 100 held-out images", "H.npy", "real images"]);
    assert_eq!(mem2gen(&call).code, Some(2));
}

#[test]
fn too_few_held_out_images_call_no_sample_spurious() {
    let folder = Folder::new();
    let mut dice = Dice::new(26);
    let (train, synthetic, held_out) =
        (slopes(&mut dice, 100), slopes(&mut dice, 300), slopes(&mut dice, 200));
    let spurious = |labels: &[String]| labels.iter().filter(|label| *label == "spurious").count();
    for few in [3, 15, 49] {
        let held_out = held_out.slice(s![..few, .., ..]).to_owned();
        let (code, labels, report) = answer(&folder, [&train, &synthetic], Some(&held_out), &[]);
        assert_eq!((code, spurious(&labels)), (3, 0), "{few}");
        let because = report["delta_s"]["because"].as_str().unwrap();
        assert!(because.contains("too few") && because.contains("150 are needed"), "{because}");
    }
    // 299 other samples, 100 training images: the quantile is a third of a percent.
    let (code, labels, report) = answer(&folder, [&train, &synthetic], Some(&held_out), &[]);
    assert_eq!(code, 0, "{report}");
    assert!(spurious(&labels) <= 9, "{} of 300", spurious(&labels));
    assert!(report["delta_s"]["because"].as_str().unwrap().contains("0.33 percent"), "{report}");
}

#[test]
fn mirrored_and_moved_copies_are_found_when_asked_for() {
    let folder = Folder::new();
    let mut dice = Dice::new(22);
    let (train, held_out) = (slopes(&mut dice, 100), slopes(&mut dice, 100));
    let mut synthetic = slopes(&mut dice, 60);
    let copies = noisy(&mut dice, &train, 2);
    for i in 0..15 {
        let copy = copies.index_axis(Axis(0), i);
        let mut place = synthetic.index_axis_mut(Axis(0), i);
        if i < 8 {
            place.assign(&copy.slice(s![.., ..;-1]));
        } else {
            // One pixel to the right.
            place.slice_mut(s![.., 1..]).assign(&copy.slice(s![.., ..SIDE - 1]));
            let edge = copy.column(0).to_owned();
            place.column_mut(0).assign(&edge);
        }
    }
    let sets = [&train, &synthetic];
    let (_, labels, _) = answer(&folder, sets, Some(&held_out), &[]);
    assert!(memorized(&labels).iter().all(|i| *i >= 8), "{labels:?}");
    let (code, labels, report) = answer(&folder, sets, Some(&held_out), &["--flips"]);
    assert!(code == 0 && (0..8).all(|i| labels[i] == "memorized"), "{labels:?}");
    assert_eq!(report["transformations"], 2);

    let out = folder.at("both");
    let files = ["D.npy", "S.npy", "H.npy"].map(|name| folder.at(name));
    let call =
        ["classify", "--train", &files[0], "--synthetic", &files[1], "--held-out", &files[2], "--out", &out];
    let said = folder.runs(&[&call[..], &["--flips", "--shifts", "1"]].concat());
    assert!(said.starts_with("classify: 18 transformations of 260 images take 18 times as long"), "{said}");
    let frame = read_parquet(&folder.path("both/labels.parquet")).unwrap();
    let found = memorized(&column_text(&frame, "label").unwrap());
    // A false discovery rate of 5 percent allows for one more.
    assert!((0..15).all(|i| found.contains(&i)) && found.len() <= 16, "{found:?}");
    let how: Vec<String> = column_text(&frame, "transformation").unwrap();
    assert!(how[..8].iter().all(|t| t == "mirrored") && how[8..15].iter().all(|t| t == "1 left"), "{how:?}");
    // Exact: the least over all transformations, in f64.
    let d = mem2gen::frame::column_f64(&frame, "d_train").unwrap();
    for (sample, d) in synthetic.outer_iter().zip(d).step_by(7) {
        let at = |x: i64, y: i64, mirrored: bool| {
            let (x, y) = (x.clamp(0, 7) as usize, y.clamp(0, 7) as usize);
            f64::from(sample[[y, if mirrored { 7 - x } else { x }]])
        };
        let mut least = f64::INFINITY;
        for image in train.outer_iter() {
            for t in 0..18 {
                let (mirrored, right, down) = (t >= 9, t % 3 - 1, t / 3 % 3 - 1);
                let squared: f64 = image
                    .indexed_iter()
                    .map(|((y, x), v)| {
                        (at(x as i64 - right, y as i64 - down, mirrored) - f64::from(*v)).powi(2)
                    })
                    .sum();
                least = least.min(squared.sqrt() / 255.0);
            }
        }
        assert!((d - least).abs() < 1e-6 * (1.0 + least), "{d} {least}");
    }
    folder.refuses(
        &[&call[..8], &[&folder.at("no"), "--shifts", "17"]].concat(),
        &["classify", "shifts", "17"],
    );
}

#[test]
fn exit_codes_say_how_much_is_answered() {
    let folder = Folder::new();
    let mut dice = Dice::new(23);
    let (train, synthetic) = (slopes(&mut dice, 40), slopes(&mut dice, 20));
    let one = train.slice(s![..1, .., ..]).to_owned();
    // One training image and no held-out image tell nothing.
    let (code, labels, report) = answer(&folder, [&one, &synthetic], None, &[]);
    assert_eq!((code, &report["status"], &report["decision"]), (4, &"not_answered".into(), &Value::Null));
    assert!(labels.iter().all(|label| label == "unknown"), "{labels:?}");
    // An exact copy among them is a part of the answer.
    let mut some = synthetic.clone();
    some.index_axis_mut(Axis(0), 3).assign(&train.index_axis(Axis(0), 0));
    let (code, labels, _) = answer(&folder, [&one, &some], None, &[]);
    assert_eq!((code, memorized(&labels)), (3, vec![3]));
    let call = [
        "classify",
        "--train",
        &folder.at("D.npy"),
        "--synthetic",
        &folder.at("none.npy"),
        "--out",
        &folder.at("o"),
    ];
    assert_eq!(mem2gen(&call).code, Some(2));
    for fdr in ["0", "1", "NaN"] {
        let call = [
            "classify",
            "--train",
            &folder.at("D.npy"),
            "--synthetic",
            &folder.at("S.npy"),
            "--out",
            &folder.at("o"),
            "--fdr",
            fdr,
        ];
        folder.refuses(&call, &["classify", "fdr", fdr]);
    }
}

#[test]
fn without_copies_none_is_called_and_the_interval_holds_zero() {
    let folder = Folder::new();
    let (mut called, mut sets) = (0, 0);
    for seed in 0..20 {
        let mut dice = Dice::new(100 + seed);
        let (train, synthetic, held_out) =
            (slopes(&mut dice, 100), slopes(&mut dice, 100), slopes(&mut dice, 20));
        for held_out in [None, Some(&held_out)] {
            let (_, labels, report) = answer(&folder, [&train, &synthetic], held_out, &[]);
            called += usize::from(!memorized(&labels).is_empty());
            sets += 1;
            if memorized(&labels).is_empty() {
                assert_eq!(report["decision"]["interval"][0], 0.0);
            }
        }
    }
    // At most 5 percent of 40, and three standard deviations.
    assert!(called <= 6, "{called} of {sets}");
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let world = world(1);
    let train = folder.array("D.npy", &gray(&world.train));
    let synthetic = folder.array("S.npy", &gray(&world.synthetic));
    let out = folder.at("out");
    let refuses = |train: &str, synthetic: &str, more: &[&str], words: &[&str]| {
        let call = ["classify", "--train", train, "--synthetic", synthetic, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["classify"], words].concat());
    };
    // Another size, another range, other channels: both are named.
    let small = folder.array("small.npy", &gray(&world.synthetic).slice(s![.., ..7, ..]).to_owned());
    refuses(&train, &small, &[], &["small.npy", "7x8x1", "D.npy", "8x8x1"]);
    let row = folder.array("row.npy", &Array2::<f32>::zeros((4, 63)));
    refuses(&train, &row, &[], &["row.npy", "63", "D.npy", "8x8x1"]);
    refuses(&train, &synthetic, &["--held-out", &small], &["small.npy", "7x8x1"]);
    let four = folder.array("four.npy", &Array4::<f32>::zeros((4, 8, 8, 4)));
    refuses(&train, &four, &[], &["four.npy", "8x8x4", "D.npy"]);
    let strange = folder.array("strange.npy", &unit(&world.synthetic).mapv(|v| 20.0 * v));
    refuses(&train, &strange, &[], &["strange.npy", "[0, 20]", "D.npy", "[0, 1]", "--synthetic-range"]);

    // A range that the values leave, rows of planes beside rows of pixels, and a run in place of images.
    let symmetric = folder.array("symmetric.npy", &unit(&world.synthetic).mapv(|v| 2.0 * v - 1.0));
    refuses(&train, &symmetric, &["--synthetic-range", "unit"], &["symmetric.npy", "from -1 to 1", "[0, 1]"]);
    let three = self::world(3);
    let rows = |pixels: &Pixels, order: [usize; 4]| {
        let (n, length) = (pixels.shape()[0], 3 * SIDE * SIDE);
        let moved = pixels.view().permuted_axes(order).as_standard_layout().into_owned();
        moved.into_shape_with_order((n, length)).unwrap()
    };
    let pixels = folder.array("pixels.npy", &rows(&three.train, [0, 1, 2, 3]));
    let planes = folder.array("planes.npy", &rows(&three.synthetic, [0, 3, 1, 2]));
    refuses(&pixels, &planes, &[], &["planes.npy", "pixels.npy", "different orders"]);
    fs::create_dir(folder.path("run")).unwrap();
    for name in ["config.json", "ema.safetensors"] {
        fs::write(folder.path("run").join(name), "{}").unwrap();
    }
    refuses(&folder.at("run"), &synthetic, &[], &["run", "training run", "--run"]);

    // A name is refused where no input has names, and a set of bytes is resized whatever its file is.
    refuses(&train, &synthetic, &["--tensor", "x"], &["D.npy", "--tensor 'x'"]);
    refuses(&train, &synthetic, &["--synthetic-tensor", "x"], &["S.npy", "an .npy file", "'x'"]);
    let floats = folder.array("floats.npy", &unit(&world.synthetic));
    refuses(&train, &floats, &["--size", "4"], &["floats.npy", "--size 4", "8x8x1"]);
    let (rows, samples) =
        (write(&folder, "D.idx", &idx(&world.train)), write(&folder, "S.idx", &idx(&world.synthetic)));
    refuses(&rows, &samples, &["--size", "4", "--shifts", "4"], &["shifts is 4", "4x4x1"]);

    // Real images have to be finite; thresholds and fractions in their range.
    let mut bad = unit(&world.train);
    bad[[7, 1, 1, 0]] = f32::NAN;
    let bad = folder.array("bad.npy", &bad);
    refuses(&bad, &synthetic, &[], &["training", "row 7"]);
    refuses(&train, &synthetic, &["--held-out", &bad], &["held-out", "row 7"]);
    for value in ["-1", "NaN", "inf"] {
        refuses(&train, &synthetic, &["--delta-m", value], &["delta_m"]);
        refuses(&train, &synthetic, &["--delta-s", value], &["delta_s"]);
        refuses(&train, &synthetic, &["--least-fraction", value], &["least_fraction"]);
    }
    refuses(&train, &synthetic, &["--memory", "4 apples"], &["--memory", "4 apples", "4GiB"]);

    // A vector of three values is no image.
    let plane = folder.array("plane.npy", &Array2::from_shape_fn((4, 3), |(i, j)| (i + j) as f32 / 9.0));
    let cache = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cache/lpips-weights");
    let word = if cache.exists() { "3 values" } else { "data fetch lpips-weights" };
    refuses(&plane, &plane, &["--metric", "lpips-alex"], &[word]);
    refuses(&train, &synthetic, &["--metric", "ssim"], &["--metric"]);

    // Files that are none of the formats, or damaged.
    let whole = fs::read(&synthetic).unwrap();
    let idx = idx(&world.synthetic);
    for (name, bytes) in [
        ("text.csv", &b"1,2,3"[..]),
        ("nothing", b""),
        ("short.npy", &whole[..whole.len() - 1]),
        ("long.npy", &[&whole[..], &[0]].concat()),
        ("short.idx", &idx[..idx.len() - 1]),
        ("broken.gz", &[0x1f, 0x8b, 8, 0, 0]),
        ("broken.safetensors", &[&9u64.to_le_bytes()[..], b"{\"x\": 1, }"].concat()),
    ] {
        let path = write(&folder, name, bytes);
        refuses(&train, &path, &[], &[name]);
        refuses(&path, &synthetic, &[], &[name]);
    }
    for (name, array) in [
        ("whole.npy", folder.array("whole.npy", &ndarray::array![[1i32, 2]])),
        ("line.npy", folder.array("line.npy", &ndarray::array![1.0f32, 2.0])),
        ("five.npy", folder.array("five.npy", &ndarray::Array5::<f32>::zeros((1, 1, 1, 1, 1)))),
        ("two.npy", folder.array("two.npy", &Array4::<f32>::zeros((4, 2, 8, 8)))),
        ("none.npy", folder.array("none.npy", &Array2::<f32>::zeros((0, 64)))),
        ("missing.npy", folder.at("missing.npy")),
    ] {
        refuses(&train, &array, &[], &[name]);
    }
    let two = folder.at("two.safetensors");
    let both = [
        ("a".to_owned(), tensor(&unit(&world.synthetic))),
        ("b".to_owned(), tensor(&unit(&world.synthetic))),
    ];
    candle_core::safetensors::save(&both.into(), &two).unwrap();
    refuses(&train, &two, &[], &["two.safetensors", "'a', 'b'", "--tensor"]);
    refuses(&train, &two, &["--tensor", "c"], &["two.safetensors", "'a', 'b'", "'c'"]);
    let mixed = pictures(&folder, "mixed", &world.synthetic, as_gray);
    fs::write(folder.path("mixed/zzz.png"), encoded(GrayImage::new(9, 8).into(), ImageFormat::Png)).unwrap();
    refuses(&train, &mixed, &[], &["zzz.png", "8x9", "--size"]);
    fs::create_dir(folder.path("empty")).unwrap();
    refuses(&train, &folder.at("empty"), &[], &["empty", "PNG"]);

    // A folder with something in it is nobody's to overwrite.
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--out"];
    folder.refuses(&[&call[..], &[&mixed]].concat(), &["mixed", "not empty"]);
    folder.refuses(&[&call[..], &[&synthetic]].concat(), &["S.npy"]);
    folder.runs(&[&call[..], &[&folder.at("empty")]].concat());
}

/// Within the least memory, and without a bound, the same is written.
#[test]
fn a_bound_on_memory_changes_no_result() {
    let folder = Folder::new();
    let mut dice = Dice::new(12);
    let mut noise = |n: usize| Array3::from_shape_simple_fn((n, 40, 40), || (dice.word() >> 40) as u8);
    let (train, mut synthetic) = (noise(320), noise(300));
    for (from, to) in [(0, 20), (255, 21), (256, 22), (319, 299)] {
        let copy = train.slice(s![from, .., ..;-1]).to_owned();
        synthetic.slice_mut(s![to, .., ..]).assign(&copy);
    }
    let large = (folder.array("D.npy", &train), folder.array("S.npy", &synthetic));
    let world = world(1);
    let small =
        (folder.array("few-D.npy", &gray(&world.train)), folder.array("few-S.npy", &gray(&world.synthetic)));
    for (metric, (train, synthetic), images, more) in [
        ("l2", &large, 620, &["--flips"][..]),
        ("cosine", &large, 620, &[][..]),
        ("lpips-alex", &small, TRAIN + world.synthetic.len_of(Axis(0)), &[][..]),
    ] {
        let cache = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cache/lpips-weights");
        if metric == "lpips-alex" && !cache.exists() {
            eprintln!("skipped: the weights of LPIPS were not fetched");
            return;
        }
        let call = ["classify", "--train", train, "--synthetic", synthetic, "--metric", metric];
        let call = [&call[..], &["--delta-s", "0.01"], more].concat();
        let to = |name: &str| folder.at(&format!("{metric}-{name}"));
        let refused = mem2gen(&[&call[..], &["--memory", "1kB", "--out", &to("none")]].concat());
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        let (_, least) = refused.stderr.split_once("at least ").unwrap();
        let least = least.split(' ').next().unwrap();
        let due = format!(
            "mem2gen classify: --memory is 1000B, expected at least {least} for {images} images; give it more\n"
        );
        assert_eq!(refused.stderr, due);
        folder.runs(&[&call[..], &["--out", &to("free")]].concat());
        let said = folder.runs(&[&call[..], &["--memory", least, "--out", &to("bounded")]].concat());
        let stored = said.contains("lpips-alex features of training images and samples: ")
            && said.contains(&format!(
                " in temporary files in {}, from which ",
                folder.at("").trim_end_matches('/')
            ));
        assert_eq!(stored, metric == "lpips-alex", "{said}");
        if metric == "l2" {
            let labels = labels(&folder, "l2-bounded");
            assert_eq!([20, 21, 22, 299].map(|i| labels[i].as_str()), ["memorized"; 4]);
        }
        let [free, bounded] = ["free", "bounded"].map(|out| {
            let mut numbers = report(&folder, &format!("{metric}-{out}"));
            numbers.as_object_mut().unwrap().remove("command");
            (fs::read(folder.path(&format!("{metric}-{out}/labels.csv"))).unwrap(), numbers)
        });
        assert!(free == bounded, "{metric}");
        let names = folder.names();
        assert_eq!(names.iter().filter(|name| name.starts_with(&format!("{metric}-"))).count(), 2);
        assert!(names.iter().all(|name| !name.starts_with('.')), "a temporary file is left: {names:?}");
    }
}

#[test]
fn a_killed_run_leaves_nothing_that_looks_whole() {
    let folder = Folder::new();
    let mut dice = Dice::new(9);
    let rows = Array2::from_shape_fn((1500, 64), |_| (dice.word() >> 40) as u8);
    let train = folder.array("D.npy", &rows);
    for wait in [20, 60, 120, 200, 300] {
        let out = folder.path(&format!("out{wait}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_mem2gen"))
            .args([
                "classify",
                "--train",
                &train,
                "--synthetic",
                &train,
                "--delta-m",
                "1",
                "--delta-s",
                "1",
                "--out",
            ])
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        let ended = child.wait().unwrap();
        let whole = out.join("fractions.json").exists() && out.join("examples.svg").exists();
        assert!(whole || !out.exists(), "half of a result after {wait} ms");
        assert!(whole || !ended.success());
    }
}

#[test]
fn nothing_is_left_out_without_a_word() {
    let folder = Folder::new();
    let world = world(3);
    let train = folder.array("D.npy", &world.train);
    let synthetic = pictures(&folder, "S", &world.synthetic, as_rgb);
    fs::create_dir(folder.path("S/deeper")).unwrap();
    fs::rename(folder.path("S/079.png"), folder.path("S/deeper/x.png")).unwrap();
    fs::write(folder.path("S/.DS_Store"), b"x").unwrap();
    finds(&folder, (&train, &synthetic), &[], &world, "deep");
    let jpeg = encoded(rgb(&world.synthetic, 0).into(), ImageFormat::Jpeg);
    fs::write(folder.path("S/cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    fs::write(folder.path("S/photo.heic"), b"x").unwrap();
    let call = ["classify", "--train", &train, "--synthetic", &synthetic, "--out", &folder.at("out")];
    folder.refuses(&call, &["read 80 images, passed over 2", "photo.heic", "cut.jpg", "--allow-skipped"]);
    let said = folder.runs(&[&call[..], &["--allow-skipped"]].concat());
    assert!(said.contains("samples: read 80 images of 8x8x3") && said.contains("passed over 2"), "{said}");
}

#[test]
fn ranges_and_shards_are_brought_together() {
    let folder = Folder::new();
    let world = world(1);
    let train = folder.array("D.npy", &gray(&world.train));
    let real = unit(&world.synthetic).mapv(|v| 2.0 * v - 1.0);
    let parts = [("S0.npy", 0..30), ("S1.npy", 30..80)]
        .map(|(name, rows)| folder.array(name, &real.slice(s![rows, .., .., ..]).to_owned()));
    finds(&folder, (&train, &parts[0]), &["--synthetic", &parts[1]], &world, "out");
    let pattern = folder.at("S?.npy");
    let report = finds(&folder, (&train, &pattern), &[], &world, "pattern");
    assert!(
        report["synthetic"]["said"].as_str().unwrap().contains("brought from [-1, 1] to [0, 1]"),
        "{report}"
    );
}

#[test]
fn features_are_compared_by_their_cosine() {
    let folder = Folder::new();
    let train = Array2::from_shape_vec((2, 3), vec![1.0f32, 0.0, 0.0, 0.0, 2.0, 0.0]).unwrap();
    let samples = Array2::from_shape_vec((2, 3), vec![5.0f32, 0.0, 0.0, 3.0, 3.0, 0.0]).unwrap();
    let (d, s) = (folder.array("D.npy", &train), folder.array("S.npy", &samples));
    let call = ["classify", "--train", &d, "--synthetic", &s, "--metric", "cosine", "--delta-m", "0.1"];
    folder.runs(&[&call[..], &["--delta-s", "0.1", "--out", &folder.at("out")]].concat());
    let frame = read_parquet(&folder.path("out/labels.parquet")).unwrap();
    let found = mem2gen::frame::column_f64(&frame, "d_train").unwrap();
    // 1 - cos of 0 and of 45 degrees.
    for (found, due) in found.iter().zip([0.0, 1.0 - 0.5f64.sqrt()]) {
        assert!((found - due).abs() < 1e-6, "{found} {due}");
    }
    let zero = folder.array("zero.npy", &Array2::<f32>::zeros((2, 3)));
    let call =
        ["classify", "--train", &zero, "--synthetic", &s, "--metric", "cosine", "--out", &folder.at("no")];
    folder.refuses(&call, &["zero.npy", "row 0", "cosine"]);
}
