//! `mem2gen sample`: samples of the exact score are the memories, samples of a network agree with the formulas in double
//! precision, and the file depends neither on batches nor on a kill.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Folder, Running};
use candle_core::{DType, Device, Tensor};
use mem2gen::net::CandleNet;
use mem2gen::random::Streams;
use mem2gen::train::{Kind, RunDir};
use ndarray::{Array2, ArrayView1};
use ndarray_npy::read_npy;

fn samples(folder: &Folder, run: &str, n: &str, more: &[&str]) -> Array2<f32> {
    let out = folder.at("S.npy");
    folder.runs(&[&["sample", "--run", run, "-n", n, "--out", &out], more].concat());
    assert!(!folder.path("S.npy.partial").exists());
    read_npy(out).unwrap()
}

/// The nearest row, and its distance.
fn nearest(rows: &Array2<f64>, x: ArrayView1<'_, f32>) -> (usize, f64) {
    rows.outer_iter()
        .map(|row| row.iter().zip(x).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>().sqrt())
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap()
}

#[test]
fn samples_of_the_exact_score_are_the_memories() {
    let folder = Folder::new();
    for process in ["ve", "vp"] {
        let run = folder.toy_run(process, "3", process);
        let points = folder.toy_points("3");
        // The last step of em under vp takes beta/sigma^2 = 1.1 of the way from noise of 0.01. The ode ends with the
        // noise of its last time: 0.01, and 0.0032 for ve. Six standard deviations of either.
        let em = if process == "vp" { 0.01 } else { 1e-3 };
        for (sampler, radius) in [("ancestral", 1e-3), ("ddim", 1e-3), ("em", em), ("ode", 0.07)] {
            let drawn = samples(&folder, &run, "60", &["--score", "exact", "--sampler", sampler]);
            assert_eq!(drawn.dim(), (60, 2));
            let mut counts = [0; 3];
            for x in drawn.outer_iter() {
                let (which, far) = nearest(&points, x);
                assert!(far < radius, "{process} {sampler}: {x} is {far} from a memory");
                counts[which] += 1;
            }
            // About a third each; the prior of ve lacks the variance of the data.
            assert!(counts.iter().all(|count| *count > 3), "{process} {sampler}: {counts:?}");
        }
    }
}

/// DDIM by its formulas, with the network in double precision on candle.
#[test]
fn samples_of_a_network_are_those_of_the_formulas() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "5", "vp");
    let (n, steps) = (7, 40);
    let call = ["--sampler", "ddim", "--steps", "40", "--seed", "11"];
    let got = samples(&folder, &run, "7", &call);
    let opened = RunDir::open(Path::new(&run)).unwrap();
    let by_formulas = |kind| {
        let (weights, _) = opened.weights(kind).unwrap();
        let network = CandleNet::new(&weights, DType::F64, &Device::Cpu).unwrap();
        let alpha_bar: Vec<f64> = (0..1000)
            .scan(1.0, |product, i| {
                *product *= 1.0 - (1e-4 + (0.02 - 1e-4) * f64::from(i) / 999.0);
                Some(*product)
            })
            .collect();
        let mut x = Streams::new(11, "sample", 0..n).normal(2);
        for step in (0..steps).rev() {
            let t = step * (1000 / steps);
            let rows = Tensor::from_iter(x.iter().copied(), &Device::Cpu).unwrap().reshape((n, 2)).unwrap();
            let times = Tensor::from_vec(vec![t as f64; n], n, &Device::Cpu).unwrap();
            let epsilon = network
                .forward(&rows, &times, None, None)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            let epsilon = Array2::from_shape_vec((n, 2), epsilon).unwrap();
            let (now, then) = (alpha_bar[t], if step == 0 { 1.0 } else { alpha_bar[t - 1000 / steps] });
            let x0 = (&x - &(&epsilon * (1.0 - now).sqrt())) / now.sqrt();
            x = x0 * then.sqrt() + epsilon * (1.0 - then).sqrt();
        }
        x
    };
    let (ema, raw) = (by_formulas(Kind::Ema), by_formulas(Kind::Raw));
    // The first steps divide by alpha, 0.0095 at t = 975: a few times the rounding of 6e-8 of values of about 1, divided
    // by this alpha.
    let far = |a: &Array2<f32>, b: &Array2<f64>| {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max)
    };
    assert!(far(&got, &ema) < 1e-4, "{got} {ema}");
    let got = samples(&folder, &run, "7", &[&call[..], &["--raw"]].concat());
    assert!(far(&got, &raw) < 1e-4, "{got} {raw}");
    assert!(far(&got, &ema) > 1e-3);
}

#[test]
fn the_file_does_not_depend_on_batches() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "5", "ve");
    for sampler in ["ancestral", "ddim", "em", "ode"] {
        let steps: &[&str] = if sampler == "ode" { &["--tolerance", "1e-3"] } else { &["--steps", "30"] };
        let call = |batch, seed| {
            let more = ["--sampler", sampler, "--batch", batch, "--seed", seed];
            samples(&folder, &run, "21", &[&more[..], steps].concat())
        };
        let whole = call("64", "1");
        assert!(whole == call("4", "1") && whole == call("1", "1"), "{sampler}");
        assert!(whole != call("64", "2"), "{sampler}");
        let fewer = folder.at("F.npy");
        let call = ["sample", "--run", &run, "-n", "5", "--sampler", sampler, "--seed", "1", "--out", &fewer];
        folder.runs(&[&call[..], steps].concat());
        assert_eq!(read_npy::<_, Array2<f32>>(fewer).unwrap(), whole.slice(ndarray::s![..5, ..]));
    }
}

#[test]
fn a_killed_call_resumes_and_other_settings_start_again() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "5", "ve");
    let (out, partial) = (folder.at("S.npy"), folder.path("S.npy.partial"));
    let call = |seed| {
        let more = ["--batch", "4", "--sampler", "em", "--seed", seed, "--out", &out];
        [&["sample", "--run", &run, "-n", "40"], &more[..]].concat()
    };
    let killed = |seed| {
        let child = Running::start(&call(seed));
        let parts = || {
            fs::read_dir(&partial).map_or(0, |all| {
                all.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("part-")).count()
            })
        };
        let began = Instant::now();
        while parts() < 2 && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(child);
        assert!(!folder.path("S.npy").exists() && parts() >= 2);
    };
    let finish = |seed| folder.runs(&call(seed));
    killed("1");
    let said = finish("1");
    assert!(
        said.contains("sample: 40 samples, ") && said.contains(" of them resumed, average weights"),
        "{said}"
    );
    let first: Array2<f32> = read_npy(&out).unwrap();
    fs::remove_file(&out).unwrap();
    let said = finish("1");
    assert!(!said.contains("of them resumed"), "{said}");
    assert_eq!(read_npy::<_, Array2<f32>>(&out).unwrap(), first);

    fs::remove_file(&out).unwrap();
    killed("2");
    let said = finish("1");
    assert!(!said.contains("of them resumed"), "{said}");
    assert_eq!(read_npy::<_, Array2<f32>>(&out).unwrap(), first);
    assert!(!partial.exists());
}

fn picture(i: u32, x: u32, y: u32) -> [u8; 3] {
    [(255 * ((x / 16 + i) % 2)) as u8, (60 * i + y) as u8, ((x * y) >> 4) as u8]
}

#[test]
fn images_stay_within_their_range() {
    let folder = Folder::new();
    let with_cache = folder.church(4, picture);
    let (run, out) = (folder.at("run"), folder.at("S.npy"));
    let train = ["train", "--dataset", "lsun-church", "--k", "4", "--profile", "smoke", "--size", "4"];
    let network = ["--arch", "mlp", "--width", "8", "--steps", "4", "--run", &run];
    with_cache(&[&train[..], &network].concat());
    let drawn = |more: &[&str]| -> Array2<f32> {
        with_cache(&[&["sample", "--run", &run, "-n", "24", "--out", &out], more].concat());
        read_npy(&out).unwrap()
    };
    let most = |x: &Array2<f32>| x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for sampler in ["ancestral", "ddim", "em", "ode"] {
        let steps: &[&str] = if sampler == "ode" { &[] } else { &["--steps", "50"] };
        let call = [&["--sampler", sampler][..], steps].concat();
        let clipped = drawn(&call);
        assert!(clipped.dim() == (24, 48) && most(&clipped) <= 1.0, "{sampler}");
        // Such a network does not keep to the range.
        assert!(most(&drawn(&[&call[..], &["--no-clip"]].concat())) > 1.0, "{sampler}");
    }
    // Means over squares of 16 pixels, computed here.
    let memories = Array2::from_shape_fn((4, 48), |(i, place)| {
        let (row, column, channel) = (place as u32 / 12, place as u32 / 3 % 4, place % 3);
        let block = (0..256).map(|at| picture(i as u32, 16 * column + at % 16, 16 * row + at / 16)[channel]);
        block.map(|v| f64::from(v) / 127.5 - 1.0).sum::<f64>() / 256.0
    });
    for sampler in ["ancestral", "ddim"] {
        for x in drawn(&["--score", "exact", "--sampler", sampler, "--steps", "100"]).outer_iter() {
            let (_, far) = nearest(&memories, x);
            assert!(far < 1e-2, "{sampler}: {far}");
        }
    }
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let (ve, vp) = (folder.toy_run("ve", "2", "ve"), folder.toy_run("vp", "2", "vp"));
    let (out, nowhere) = (folder.at("S.npy"), folder.at("nowhere"));
    let refuses = |run: &str, more: &[&str], words: &[&str]| {
        let call = ["sample", "--run", run, "-n", "3", "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["sample"], words].concat());
    };
    refuses(&nowhere, &[], &["nowhere", "expected a training run"]);
    refuses(&vp, &["--steps", "0"], &["steps"]);
    refuses(&vp, &["--steps", "1001"], &["1001"]);
    refuses(&ve, &["--steps", "0", "--sampler", "em"], &["steps"]);
    refuses(&vp, &["--sampler", "ode", "--steps", "5"], &["--steps", "ode"]);
    refuses(&vp, &["--sampler", "ode", "--tolerance", "0"], &["rtol"]);
    refuses(&vp, &["--sampler", "ode", "--until", "-1"], &["no noise"]);
    refuses(&vp, &["--sampler", "ode", "--until", "1e9"], &["time"]);
    refuses(&vp, &["--tolerance", "1e-3"], &["--tolerance", "ode"]);
    refuses(&vp, &["--until", "3"], &["--until", "ode"]);
    refuses(&ve, &["--spacing", "linspace"], &["--spacing", "vp"]);
    refuses(&vp, &["--score", "exact", "--raw"], &["--raw", "weights"]);
    refuses(&vp, &["--batch", "0"], &["--batch"]);
    refuses(&vp, &["--device", "cuda:4096"], &["cuda"]);
    refuses(&vp, &["--device", "cuda:4096", "--score", "exact"], &["cuda:4096"]);
    refuses(&vp, &["--sampler", "heun"], &["heun"]);
    let call = ["sample", "--run", &vp, "-n", "0", "--out", &out];
    folder.refuses(&call, &["sample", "-n", "0"]);
    // Without -n it is one sample.
    for missing in [1, 5] {
        folder.refuses(&[&call[..missing], &call[missing + 2..]].concat(), &["sample", call[missing]]);
    }
    // A file of weights that does not match the manifest.
    let file = folder.path("vp/ema.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    refuses(&vp, &[], &["ema.safetensors"]);
}
