//! `mem2gen curvature`: comparison with the Jacobian of a mixture, computed term by term, for training runs and the folder
//! of a cell; independence of the batch size; errors.

use std::fs;

use crate::common::{Folder, finish_cell, write_labels};
use mem2gen::frame::{column_f64, column_i64, parquet_note, read_parquet};
use mem2gen::process::{Process, Vp};
use ndarray::{Array2, array};

/// Singular values, descending, and the largest eigenvalue of J = -I/sigma^2 + alpha^2 Cov_w / sigma^4 at alpha x.
fn jacobian(rows: &Array2<f64>, x: [f64; 2], alpha: f64, sigma: f64) -> ([f64; 2], f64) {
    let square = sigma * sigma;
    let logit =
        |r: usize| -(0..2).map(|k| (alpha * (x[k] - rows[[r, k]])).powi(2)).sum::<f64>() / (2.0 * square);
    let top = (0..rows.nrows()).map(logit).fold(f64::NEG_INFINITY, f64::max);
    let w: Vec<f64> = (0..rows.nrows()).map(|r| (logit(r) - top).exp()).collect();
    let sum: f64 = w.iter().sum();
    let mean = [0, 1].map(|k| (0..rows.nrows()).map(|r| w[r] / sum * rows[[r, k]]).sum::<f64>());
    let entry = |i: usize, j: usize| {
        let cov = (0..rows.nrows()).map(|r| w[r] / sum * (rows[[r, i]] - mean[i]) * (rows[[r, j]] - mean[j]));
        (alpha / square).powi(2) * cov.sum::<f64>() - if i == j { 1.0 / square } else { 0.0 }
    };
    let (a, b, c) = (entry(0, 0), entry(0, 1), entry(1, 1));
    let (centre, radius) = (0.5 * (a + c), (0.25 * (a - c).powi(2) + b * b).sqrt());
    let (high, low) = (centre + radius, centre - radius);
    ([high.abs().max(low.abs()), high.abs().min(low.abs())], high)
}

#[test]
fn spectra_of_the_exact_score_are_those_of_the_mixture_term_by_term() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "9", "vp");
    let rows = folder.toy_memories("9");
    let (out, of_points) = (folder.at("T.parquet"), folder.at("P.parquet"));
    for t in ["15", "200"] {
        let call = ["curvature", "--run", &run, "--score", "exact", "--class", "training", "--t", t];
        let more = ["--step", "1e-3", "--exact", "--drop-top", "0", "--max", "7"];
        let more = [&more[..], &["--out", &out, "--points", &of_points]].concat();
        let said = folder.runs(&[&call[..], &more].concat());
        let mut lines = said.lines();
        assert!(lines.any(|line| line.starts_with("curvature: 7 training points, mean value ")), "{said}");
        let level = Vp::default().level(t.parse().unwrap()).unwrap();
        let spectra = read_parquet(&folder.path("T.parquet")).unwrap();
        let (value, exact) = (column_f64(&spectra, "value").unwrap(), column_f64(&spectra, "exact").unwrap());
        let samples: Vec<i64> = (0..14).map(|i| i / 2).collect();
        assert_eq!(column_i64(&spectra, "sample").unwrap(), samples);
        let table = read_parquet(&folder.path("P.parquet")).unwrap();
        assert_eq!(column_i64(&table, "sample").unwrap(), (0..7).collect::<Vec<i64>>());
        let (largest, asymmetry) =
            (column_f64(&table, "largest").unwrap(), column_f64(&table, "asymmetry").unwrap());
        for i in 0..7 {
            let x = [rows[[i, 0]], rows[[i, 1]]];
            let (expected, high) = jacobian(&rows, x, level.alpha(), level.sigma());
            for (j, expected) in expected.into_iter().enumerate() {
                assert!((exact[2 * i + j] / expected - 1.0).abs() < 1e-9, "{t} {i} {j}");
                // Third derivatives times the square of the step.
                let off = (value[2 * i + j] - expected).abs() * level.sigma().powi(2);
                assert!(off < 1e-3, "{t} {i} {j} {off}");
            }
            assert!((largest[i] - high).abs() < 1e-9 / level.sigma().powi(2));
            assert!(asymmetry[i] < 1e-12);
        }
        let note = |key| parquet_note(&folder.path("T.parquet"), key).unwrap().unwrap();
        assert_eq!((note("class"), note("k"), note("t")), ("training".into(), "9".into(), t.into()));
        assert_eq!(note("sigma").parse::<f64>().unwrap(), level.sigma());
        assert!(note("settings").contains(r#""variant":"symmetrized""#));
    }
}

#[test]
fn results_do_not_depend_on_the_batch() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "4", "vp");
    let mut tables = Vec::new();
    for batch in ["3", "128"] {
        let out = folder.at("T.parquet");
        let call = ["curvature", "--run", &run, "--class", "training", "--variant", "gaussian", "--exact"];
        folder.runs(&[&call[..], &["--drop-top", "0", "--batch", batch, "--out", &out]].concat());
        tables.push(fs::read(out).unwrap());
        assert!(!folder.path("T.parquet.partial").exists());
    }
    assert_eq!(tables[0], tables[1]);
}

#[test]
fn samples_of_a_class_are_those_of_the_cell() {
    let folder = Folder::new();
    fs::create_dir(folder.path("cell")).unwrap();
    folder.toy_run("cell/train", "4", "vp");
    folder.array("cell/samples.npy", &array![[0.1f32, 0.2], [0.3, -0.4], [-0.5, 0.6], [0.7, 0.8]]);
    let classes = ["spurious", "memorized", "spurious", "memorized"];
    let labels = folder.path("cell/labels-x4.parquet");
    write_labels(&labels, &classes, &[0.4, 0.3, 0.2, 0.1], &[0.5, 0.1, 0.1, 0.2]);
    finish_cell(&folder.path("cell"), None);
    let (cell, out) = (folder.at("cell"), folder.at("T.parquet"));
    let samples = |class: &str| {
        folder.runs(&["curvature", "--run", &cell, "--class", class, "--drop-top", "0", "--out", &out]);
        let table = read_parquet(&folder.path("T.parquet")).unwrap();
        assert_eq!(table.column("exact").unwrap().null_count(), table.height());
        assert!(column_f64(&table, "value").unwrap().iter().all(|v| v.is_finite() && *v > 0.0));
        column_i64(&table, "sample").unwrap()
    };
    assert_eq!(samples("memorized"), [3, 3, 1, 1]);
    assert_eq!(samples("spurious"), [2, 2, 0, 0]);
    assert_eq!(samples("generalized"), [0i64; 0]);
    assert_eq!(samples("training"), [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn invalid_calls_are_refused_in_one_line() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "4", "vp");
    let out = folder.at("T.parquet");
    let refuses = |more: &[&str], words: &[&str]| {
        let call = ["curvature", "--run", &run, "--class", "training", "--out", &out];
        folder.refuses(&[&call[..], more].concat(), words);
    };
    refuses(&[], &["drop_top", "5", "fewer than the 2 values"]);
    refuses(&["--rows", "0.5"], &["rows", "0.5", "from 1 to 1000"]);
    refuses(&["--step", "NaN"], &["step", "NaN"]);
    refuses(&["--t", "1000", "--drop-top", "0"], &["1000"]);
    refuses(&["--t=-1", "--drop-top", "0"], &["no noise"]);
    refuses(&["--per-channel", "--variant", "gaussian"], &["per_channel", "Gaussian"]);
    refuses(&["--points", &out], &["--points", "--out"]);
    let call = ["curvature", "--run", &run, "--class", "nobody", "--out", &out];
    folder.refuses(&call, &["--class", "nobody", "memorized, spurious, generalized or training"]);
    let call = ["curvature", "--run", &run, "--class", "spurious", "--out", &out];
    folder.refuses(&call, &["--class", "cell"]);
}
