//! The user's own images: a network is trained on a folder of pictures, its training set is exported, its samples are
//! written as pictures, and `classify --run` compares samples with what it was trained on.

use std::fs;
use std::path::Path;

use crate::common::{Dice, Folder, mem2gen, program, said};
use mem2gen::data::subset::order;
use mem2gen::frame::{column_text, read_parquet};
use mem2gen::train::{DataSettings, RunDir};
use ndarray::{Array2, Array3, Array4, Axis, concatenate, s};
use ndarray_npy::read_npy;
use serde_json::Value;

/// The pixel of a picture of noise.
fn noise(i: usize, x: u32, y: u32) -> [u8; 3] {
    let word = Dice::new(1 + 64 * i as u64 + 1024 * u64::from(x) + 65536 * u64::from(y)).word();
    [word as u8, (word >> 8) as u8, (word >> 16) as u8]
}

/// Writes pictures of `height` rows into the folder `at`, named in their order.
fn pictures(
    at: &Path,
    count: usize,
    (height, width): (u32, u32),
    pixel: impl Fn(usize, u32, u32) -> [u8; 3],
) {
    fs::create_dir_all(at).unwrap();
    for i in 0..count {
        let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb(pixel(i, x, y)));
        picture.save(at.join(format!("{i:02}.png"))).unwrap();
    }
}

/// What a network sees of the pictures with these numbers.
fn seen(numbers: &[usize], (height, width): (usize, usize)) -> Array4<f32> {
    Array4::from_shape_fn((numbers.len(), height, width, 3), |(i, y, x, c)| {
        (f64::from(noise(numbers[i], x as u32, y as u32)[c]) / 127.5 - 1.0) as f32
    })
}

/// A network that takes moments to train.
const TINY: [&str; 13] = [
    "--profile",
    "smoke",
    "--arch",
    "mlp",
    "--width",
    "8",
    "--steps",
    "6",
    "--checkpoint-every",
    "2",
    "--log-every",
    "3",
    "--run",
];

fn trains(folder: &Folder, images: &str, run: &str, more: &[&str]) -> String {
    folder.runs(&[&["train", "--dataset", images], more, &TINY, &[run]].concat())
}

/// Values of two arrays that differ by rounding in single precision.
fn close(a: &Array4<f32>, b: &Array4<f32>) -> bool {
    a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn a_folder_is_trained_on_resumed_and_exported() {
    let folder = Folder::new();
    let sizes = (6, 8);
    pictures(&folder.path("pics"), 12, (6, 8), noise);
    let (pics, run) = (folder.at("pics"), folder.at("run"));
    let told = trains(&folder, &pics, &run, &["--k", "5"]);
    assert!(told.contains("train: 6 steps, 5 images, mlp of "), "{told}");
    assert!(told.contains("training set: read 12 images of 6x8x3, bytes, from "), "{told}");
    let opened = RunDir::open(Path::new(&run)).unwrap();
    let DataSettings::Files { images, k } = opened.params().settings().data.clone() else { panic!("{told}") };
    assert_eq!((images.paths, k), (vec![folder.path("pics")], 5));
    assert_eq!(opened.shape().to_string(), "6x8x3");
    assert!(trains(&folder, &pics, &run, &["--k", "5"]).contains("already finished"));
    // K of the run where none is given.
    assert!(trains(&folder, &pics, &run, &[]).contains("already finished"));

    let (training, rest) = (&order(12)[..5], &order(12)[5..]);
    let export = |call: &[&str], out: &str| -> String {
        folder.runs(&[&["data", "export"], call, &["--out", &folder.at(out)]].concat())
    };
    let array = |name: &str| read_npy::<_, Array4<f32>>(folder.path(name)).unwrap();
    let told = export(&["--run", &run], "D.npy");
    assert!(told.contains("data export: 5 images of 6x8x3 in [-1, 1], from the 12 of "), "{told}");
    assert!(close(&array("D.npy"), &seen(training, sizes)));
    assert!(export(&["--run", &run, "--held-out"], "H.npy").contains("not in the training set"));
    assert!(close(&array("H.npy"), &seen(rest, sizes)));
    for (more, of_run) in [(&[][..], "D.npy"), (&["--held-out"], "H.npy")] {
        export(&[&[&*pics, "--k", "5"], more].concat(), "same.npy");
        assert_eq!(fs::read(folder.path("same.npy")).unwrap(), fs::read(folder.path(of_run)).unwrap());
    }
    let told = export(&["--run", &run], "D/");
    assert!(told.contains("rounded to bytes"), "{told}");
    for (i, &number) in training.iter().enumerate() {
        let picture = |path: &str| image::open(folder.path(path)).unwrap().into_rgb8();
        assert_eq!(picture(&format!("D/{i:06}.png")), picture(&format!("pics/{number:02}.png")));
    }
    // Cropped and resized: the same as the reader gives.
    export(&[&pics, "--size", "4"], "small.npy");
    assert_eq!(array("small.npy").dim(), (12, 4, 4, 3));

    // All commands that need a training set have it.
    let out = folder.at("S.npy");
    folder.runs(&[
        "sample",
        "--run",
        &run,
        "-n",
        "6",
        "--score",
        "exact",
        "--sampler",
        "ddim",
        "--out",
        &out,
    ]);
    let drawn: Array2<f32> = read_npy(&out).unwrap();
    let memories = array("D.npy");
    for x in drawn.outer_iter() {
        let distance = |row: ndarray::ArrayView3<'_, f32>| {
            row.iter().zip(x).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
        };
        assert!(memories.outer_iter().map(distance).fold(f32::INFINITY, f32::min) < 1e-2);
    }

    // From the last checkpoint, after a kill before the end.
    for file in ["manifest.json", "ema.safetensors"] {
        fs::remove_file(folder.path("run").join(file)).unwrap();
    }
    let told = trains(&folder, &pics, &run, &[]);
    assert!(told.contains("resumed at 6"), "{told}");

    // Another picture, one more, none: no step is taken and nothing is exported.
    let changed = |words: &[&str]| {
        let train = [&["train", "--dataset", &pics], &TINY[..], &[&run]].concat();
        let export = ["data", "export", "--run", &run, "--out", &folder.at("again.npy")];
        let sample =
            ["sample", "--run", &run, "-n", "2", "--score", "exact", "--out", &folder.at("again.npy")];
        for call in [&train[..], &export, &sample] {
            folder.refuses(call, words);
        }
    };
    let name = folder.path(&format!("pics/{:02}.png", training[0]));
    let kept = fs::read(&name).unwrap();
    image::RgbImage::new(8, 6).save(&name).unwrap();
    changed(&["run", "pics", "changed since training began"]);
    fs::write(&name, &kept).unwrap();
    image::RgbImage::new(8, 6).save(folder.path("pics/99.png")).unwrap();
    changed(&["run", "pics", "changed since training began"]);
    fs::remove_file(folder.path("pics/99.png")).unwrap();
    for &number in rest {
        fs::remove_file(folder.path(&format!("pics/{number:02}.png"))).unwrap();
    }
    fs::remove_file(&name).unwrap();
    changed(&["run", "pics", "changed since training began"]);
    fs::remove_dir_all(folder.path("pics")).unwrap();
    changed(&["pics", "o such file"]);
}

#[test]
fn patterns_and_files_are_found_again_from_any_folder() {
    let folder = Folder::new();
    // The name of the working folder is not a part of the pattern.
    let here = folder.path("a[1]");
    pictures(&here.join("p"), 3, (8, 8), noise);
    let run = folder.at("run");
    let train =
        [&["train", "--dataset", "p/0*.png", "p/02.png", "--dataset", "./p"], &TINY[..], &[&run]].concat();
    let told = said(program(&train).current_dir(&here));
    assert!(told.ok && told.stdout.contains(" 7 images, mlp"), "{} {}", told.stdout, told.stderr);
    let out = folder.at("D.npy");
    folder.runs(&["data", "export", "--run", &run, "--out", &out]);
    let all = [0, 1, 2, 2, 0, 1, 2];
    let permuted: Vec<usize> = order(7).into_iter().map(|i| all[i]).collect();
    assert!(close(&read_npy(&out).unwrap(), &seen(&permuted, (8, 8))));
    // The defaults of the profile are a U-Net for images of any size, also from a file of settings.
    let unet = ["train", "--dataset", "p", "--profile", "smoke", "--steps", "2", "--run", &folder.at("unet")];
    let told = said(program(&unet).current_dir(&here));
    assert!(told.stdout.contains("train: 2 steps, 3 images, unet of "), "{} {}", told.stdout, told.stderr);
    let config = fs::read_to_string(folder.path("unet/config.json")).unwrap();
    let mut settings: Value = serde_json::from_str::<Value>(&config).unwrap()["settings"].take();
    settings["data"]["images"] = serde_json::json!({ "paths": ["p"] });
    fs::write(folder.path("again.json"), settings.to_string()).unwrap();
    let again = ["train", "--config", &folder.at("again.json"), "--run", &folder.at("unet")];
    let told = said(program(&again).current_dir(&here));
    assert!(told.stdout.contains("already finished"), "{} {}", told.stdout, told.stderr);
}

#[test]
fn what_is_neither_name_nor_file_is_refused_in_one_line() {
    let folder = Folder::new();
    let run = folder.at("run");
    pictures(&folder.path("pics"), 4, (8, 8), noise);
    let pics = folder.at("pics");
    let refused = |dataset: &[&str], more: &[&str], words: &[&str]| {
        let call = [&["train", "--dataset"], dataset, more, &TINY, &[&run]].concat();
        folder.refuses(&call, &[&["train"], words].concat());
    };
    refused(&["mnits"], &[], &["mnits", "no such file exists", "mnist, fashion-mnist", "toy"]);
    refused(&[&folder.at("*.gif")], &[], &["*.gif", "no such file exists"]);
    refused(&[&pics, &folder.at("gone")], &[], &["gone", "no such file exists"]);
    refused(&["mnist"], &[], &["--k", "required"]);
    refused(&["mnist", &pics], &["--k", "2"], &["--dataset", "mnist", "./mnist"]);
    refused(&["mnist"], &["--k", "2", "--range", "unit"], &["mnist", "--range"]);
    refused(&[&pics], &["--k", "5"], &["training set", "5", "1 to 4"]);
    refused(&[&pics], &["--k", "0"], &["training set", "0", "1 to 4"]);
    refused(&[&pics], &["--size", "0"], &["--size", "0"]);
    refused(
        &[&pics],
        &["--batch", "1048576", "--repeat", "--size", "512"],
        &["1048576 samples", "GiB", "smaller"],
    );
    // Vectors, and values in no known range.
    let vectors = folder.array("vectors.npy", &Array2::<f32>::zeros((9, 16)));
    refused(&[&vectors], &[], &["vectors.npy", "16 values", "[n, height, width]"]);
    let wide =
        folder.array("wide.npy", &Array3::from_shape_fn((9, 4, 4), |(i, y, x)| (90 * i + y + x) as f32));
    refused(&[&wide], &[], &["wide.npy", "--range"]);
    trains(&folder, &wide, &run, &["--range", "words"]);

    let export = |call: &[&str], words: &[&str]| {
        folder.refuses(&[&["data", "export"], call].concat(), &[&["data"], words].concat());
    };
    export(&[&pics, "--out", &folder.at("D.png")], &["--out", "D.png", ".npy"]);
    export(&[&pics, "--out", &folder.at("D.gif")], &["D.gif", ".npy"]);
    export(&[&pics, "--out", &pics], &["pics", "not empty"]);
    export(&[&pics, "--held-out", "--out", &folder.at("D.npy")], &["held-out", "all 4 images", "pics"]);
    export(&["mnits", "--out", &folder.at("D.npy")], &["mnits", "no such file exists"]);
    export(&["toy", "--k", "3", "--out", &folder.at("D/")], &["D", "1x1x2", ".npy"]);
    export(&["--run", &run, "--k", "3", "--out", &folder.at("D.npy")], &["--run", "--k"]);
    export(&["--run", &pics, "--out", &folder.at("D.npy")], &["pics", "expected a training run"]);
    let toy = folder.toy_run("toy-run", "3", "ve");
    export(&["--run", &toy, "--held-out", "--out", &folder.at("D.npy")], &["held-out", "toy"]);
    folder.runs(&["data", "export", "--run", &toy, "--out", &folder.at("P.npy")]);
    let points: Array2<f32> = read_npy(folder.path("P.npy")).unwrap();
    assert_eq!(points.mapv(f64::from), folder.toy_memories("3"));
}

#[test]
fn a_data_set_without_a_test_split_has_the_rest_as_held_out_images() {
    let folder = Folder::new();
    let with_cache = folder.church(6, |i, x, y| [(40 * i + x) as u8, y as u8, (x / 9) as u8]);
    let export = |more: &[&str]| -> Array4<f32> {
        let out = folder.at("D.npy");
        with_cache(&[&["data", "export", "lsun-church", "--size", "16", "--out", &out], more].concat());
        read_npy(&out).unwrap()
    };
    let (all, first, rest) = (export(&[]), export(&["--k", "2"]), export(&["--k", "2", "--held-out"]));
    assert_eq!((first.len_of(Axis(0)), rest.len_of(Axis(0))), (2, 4));
    assert_eq!(all, concatenate![Axis(0), first, rest]);
}

#[test]
fn samples_are_written_as_pictures() {
    let folder = Folder::new();
    pictures(&folder.path("pics"), 4, (4, 4), noise);
    let run = folder.at("run");
    trains(&folder, &folder.at("pics"), &run, &[]);
    let sample = |out: &str| {
        let call = ["sample", "--run", &run, "-n", "7", "--batch", "3", "--sampler", "ddim", "--steps", "20"];
        folder.runs(&[&call[..], &["--out", out]].concat())
    };
    sample(&folder.at("S.npy"));
    let drawn: Array2<f32> = read_npy(folder.path("S.npy")).unwrap();
    fs::create_dir(folder.path("empty")).unwrap();
    for (out, at) in [("S/", "S"), ("empty", "empty")] {
        let told = sample(&folder.at(out));
        assert!(told.contains("7 samples") && told.contains("rounded to bytes"), "{told}");
        assert_eq!(fs::read_dir(folder.path(at)).unwrap().count(), 7);
        for (i, row) in drawn.outer_iter().enumerate() {
            let picture = image::open(folder.path(at).join(format!("{i:06}.png"))).unwrap().into_rgb8();
            let due: Vec<u8> = row.iter().map(|v| (127.5 * (v + 1.0)).round() as u8).collect();
            assert_eq!((picture.dimensions(), picture.into_raw()), ((4, 4), due));
        }
    }
    sample(&folder.at("S.png"));
    let sheet = image::open(folder.path("S.png")).unwrap();
    assert!(sheet.width() > 300 && sheet.height() > 300, "{sheet:?}");
    let names: Vec<_> = fs::read_dir(folder.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.contains("partial")), "{names:?}");

    let refused = |run: &str, n: &str, out: &str, words: &[&str]| {
        let call = ["sample", "--run", run, "-n", n, "--out", &folder.at(out)];
        folder.refuses(&call, &[&["sample"], words].concat());
    };
    refused(&run, "401", "T.png", &["T.png", "401", "400", "DIR/"]);
    refused(&run, "2", "T.jpg", &["T.jpg", ".npy", ".png"]);
    refused(&run, "2", "S", &["S", "not empty"]);
    let toy = folder.toy_run("toy", "3", "ve");
    for out in ["T.png", "T/"] {
        refused(&toy, "2", out, &["T", "1x1x2", ".npy"]);
    }
}

fn labels(folder: &Folder, out: &str) -> Vec<String> {
    column_text(&read_parquet(&folder.path(out).join("labels.parquet")).unwrap(), "label").unwrap()
}

fn report(folder: &Folder, out: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(out).join("fractions.json")).unwrap()).unwrap()
}

#[test]
fn classify_compares_with_what_the_run_was_trained_on() {
    let folder = Folder::new();
    pictures(&folder.path("pics"), 90, (8, 8), noise);
    let (pics, run) = (folder.at("pics"), folder.at("run"));
    trains(&folder, &pics, &run, &["--k", "30"]);
    for (more, out) in [(&[][..], "D.npy"), (&["--held-out"], "H.npy")] {
        folder.runs(&[&["data", "export", "--run", &run, "--out", &folder.at(out)], more].concat());
    }
    // Copies of images 3 to 12 of the training set, off by one level in places, five held-out images that are no copies, and
    // 15 new ones, as bytes.
    let copies = |i: usize| order(90)[if i < 10 { i + 3 } else { 30 + i }];
    let picture = |i: usize| if i < 15 { copies(i) } else { 100 + i };
    let synthetic = Array4::from_shape_fn((30, 8, 8, 3), |(i, y, x, c)| {
        noise(picture(i), x as u32, y as u32)[c] ^ u8::from(i < 10 && (x + y) % 3 == 0)
    });
    let synthetic = folder.array("S.npy", &synthetic);
    let call = ["classify", "--synthetic", &synthetic, "--delta-s", "0", "--out"];
    let told = folder.runs(&[&call[..], &[&folder.at("out"), "--run", &run]].concat());
    let found = labels(&folder, "out");
    let memorized: Vec<usize> = (0..30).filter(|i| found[*i] == "memorized").collect();
    assert_eq!(memorized, (0..10).collect::<Vec<_>>(), "{told}");
    let table = read_parquet(&folder.path("out/labels.parquet")).unwrap();
    let files = column_text(&table, "train_file").unwrap();
    for (i, file) in files.iter().enumerate().take(10) {
        assert_eq!(*file, format!("{:02}.png", copies(i)));
    }
    let about = report(&folder, "out");
    assert_eq!(about["train"]["path"], run);
    assert_eq!((&about["train"]["format"], &about["train"]["images"]), (&"run".into(), &30.into()));
    let opened = RunDir::open(Path::new(&run)).unwrap();
    let words = about["train"]["said"].as_str().unwrap();
    assert!(words.contains(opened.data_sha256()) && words.contains(&opened.params().key()), "{words}");
    assert_eq!(about["held_out"]["images"], 60);
    assert!(told.contains("not in the training set, at most 10000"), "{told}");

    // The same as with exported files.
    let (train, held_out) = (folder.at("D.npy"), folder.at("H.npy"));
    let files = ["--train", &train, "--held-out", &held_out];
    folder.runs(&[&call[..], &[&folder.at("files")], &files].concat());
    let other = report(&folder, "files");
    for part in ["fractions", "delta_m", "evidence", "null", "decision"] {
        assert_eq!(about[part], other[part], "{part}");
    }
    // Held-out images that are given take the place of the run's own.
    folder.runs(&[&call[..], &[&folder.at("given"), "--run", &run, "--held-out", &held_out]].concat());
    assert_eq!(report(&folder, "given")["held_out"]["path"], held_out);
    assert_eq!(labels(&folder, "given"), found);
    // Rows, as `mem2gen sample` writes them, are images in the order row, column, channel.
    let rows: Array4<u8> = read_npy(&synthetic).unwrap();
    let rows = rows.mapv(|v| f32::from(v) / 127.5 - 1.0).into_shape_with_order((30, 192)).unwrap();
    let rows = folder.array("rows.npy", &rows);
    let row_call = ["classify", "--synthetic", &rows, "--delta-s", "0", "--run", &run, "--out"];
    let told = folder.runs(&[&row_call[..], &[&folder.at("rows")]].concat());
    assert!(told.contains("taken for images of 8x8x3"), "{told}");
    assert_eq!(labels(&folder, "rows"), found);
    // Nothing is left where all images are trained on.
    let all = folder.at("all");
    trains(&folder, &pics, &all, &[]);
    let told = mem2gen(&[&call[..], &[&folder.at("none"), "--run", &all]].concat()).stdout;
    assert!(told.contains("classify: without held-out images: all 90 images of "), "{told}");
    assert!(report(&folder, "none")["held_out"].is_null());

    let refused = |more: &[&str], words: &[&str]| {
        let call = ["classify", "--out", &folder.at("refused")];
        folder.refuses(&[&call[..], more].concat(), &[&["classify"], words].concat());
    };
    refused(&["--synthetic", &synthetic], &["--train"]);
    refused(&["--train", &train], &["--synthetic"]);
    refused(&["--run", &run, "--train", &train], &["--run", "--train"]);
    refused(&["--run", &run, "--synthetic", &synthetic, "--samples", "3"], &["--samples", "--synthetic"]);
    refused(&["--run", &run, "--samples", "0"], &["samples", "0"]);
    refused(&["--run", &pics], &["pics", "expected a training run"]);
    let larger = folder.array("larger.npy", &Array4::<u8>::zeros((3, 9, 9, 3)));
    refused(&["--run", &run, "--synthetic", &larger], &["larger.npy", "9x9x3", "run", "8x8x3"]);
    for more in [&["--run", &*pics][..], &["--run", &run, "--samples", "0"]] {
        let out = folder.at("refused");
        let call = [&["classify", "--out", &out], more].concat();
        assert_eq!(mem2gen(&call).code, Some(2));
    }
}

#[test]
fn classify_draws_the_samples_of_a_run_that_has_none() {
    let folder = Folder::new();
    pictures(&folder.path("pics"), 20, (4, 4), noise);
    let run = folder.at("run");
    trains(&folder, &folder.at("pics"), &run, &["--k", "12"]);
    // A folder of results may be named with a slash.
    let out = format!("{}/", folder.at("out"));
    let told = mem2gen(&["classify", "--run", &run, "--samples", "9", "--out", &out]);
    assert!(matches!(told.code, Some(0 | 3 | 4)), "{} {}", told.stdout, told.stderr);
    assert!(told.stdout.contains("sampling"), "{}", told.stdout);
    folder.runs(&["sample", "--run", &run, "-n", "9", "--out", &folder.at("S.npy")]);
    assert_eq!(
        fs::read(folder.path("out/samples.npy")).unwrap(),
        fs::read(folder.path("S.npy")).unwrap(),
        "the samples are those of mem2gen sample"
    );
    let about = report(&folder, "out");
    assert_eq!((&about["synthetic"]["images"], &about["held_out"]["images"]), (&9.into(), &8.into()));
    assert_eq!(about["synthetic"]["shape"], serde_json::json!([4, 4, 3]));
    assert!(about["synthetic"]["said"].as_str().unwrap().contains("ancestral"), "{about}");
    assert!(!folder.path("out.partial").exists());
    // Points have no pictures, no held-out points, and are not clipped.
    let toy = folder.toy_run("toy", "3", "ve");
    let told = mem2gen(&["classify", "--run", &toy, "--samples", "5", "--out", &folder.at("points")]);
    assert!(matches!(told.code, Some(0 | 3 | 4)), "{} {}", told.stdout, told.stderr);
    let points: Array2<f32> = read_npy(folder.path("points/samples.npy")).unwrap();
    assert_eq!(points.slice(s![.., ..]).dim(), (5, 2));
}
