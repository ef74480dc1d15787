//! `mem2gen likelihood`: comparison with the closed forms of one memory, which is a Gaussian, and of a mixture, and with
//! itself for a network.

use std::f64::consts::{LN_2, TAU};

use crate::common::{Dice, Folder};
use mem2gen::frame::{column_f64, column_i64, parquet_note, read_parquet};
use mem2gen::process::{Process, Ve, Vp};
use ndarray::{Array2, ArrayView1};

/// log density, and standard errors where there are any.
fn likelihood(folder: &Folder, run: &str, x: &Array2<f64>, more: &[&str]) -> (Vec<f64>, Option<Vec<f64>>) {
    let (queries, out) = (folder.array("X.npy", x), folder.at("L.parquet"));
    folder.runs(&[&["likelihood", "--run", run, "--queries", &queries, "--out", &out], more].concat());
    let frame = read_parquet(&folder.path("L.parquet")).unwrap();
    let names: Vec<&str> = frame.get_column_names().iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["row", "log_density", "bits_per_dimension", "standard_error", "steps"]);
    let rows: Vec<i64> = (0..x.nrows() as i64).collect();
    assert_eq!(column_i64(&frame, "row").unwrap(), rows);
    assert!(column_i64(&frame, "steps").unwrap().iter().all(|steps| *steps > 0));
    let log = column_f64(&frame, "log_density").unwrap();
    for (bits, log) in column_f64(&frame, "bits_per_dimension").unwrap().iter().zip(&log) {
        assert!((bits + log / LN_2 / x.ncols() as f64).abs() < 1e-12);
    }
    let errors = frame.column("standard_error").unwrap();
    let errors = match errors.null_count() {
        0 => Some(column_f64(&frame, "standard_error").unwrap()),
        nulls => {
            assert_eq!(nulls, x.nrows());
            None
        }
    };
    (log, errors)
}

/// log of the mean of N(alpha xi, sigma^2 I) over the memories.
fn mixture(rows: &Array2<f64>, x: ArrayView1<'_, f64>, alpha: f64, sigma: f64) -> f64 {
    let logs: Vec<f64> = rows
        .outer_iter()
        .map(|row| {
            let d2: f64 = row.iter().zip(x).map(|(xi, x)| (x - alpha * xi).powi(2)).sum();
            -0.5 * d2 / (sigma * sigma) - 0.5 * x.len() as f64 * (TAU * sigma * sigma).ln()
        })
        .collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + (logs.iter().map(|l| (l - top).exp()).sum::<f64>() / logs.len() as f64).ln()
}

#[test]
fn likelihoods_of_the_exact_score_are_those_of_the_mixture_term_by_term() {
    let folder = Folder::new();
    let (ve, vp) = (Ve::default(), Vp::default());
    for (name, process, t) in [("ve", &ve as &dyn Process, "0.05"), ("vp", &vp, "150")] {
        let level = process.level(t.parse().unwrap()).unwrap();
        for k in ["1", "4"] {
            let (run, points) = (folder.toy_run(&format!("{name}{k}"), k, name), folder.toy_memories(k));
            let x = Dice::new(3).cloud(9, 2, 0.7, 0.0);
            let call = ["--score", "exact", "--t", t, "--prior", "mixture", "--tolerance", "1e-8"];
            let (got, errors) = likelihood(&folder, &run, &x, &call);
            assert!(errors.is_none());
            for (got, x) in got.iter().zip(x.outer_iter()) {
                let expected = mixture(&points, x, level.alpha(), level.sigma());
                // A thousand tolerances: the error of a step grows on the way to T.
                assert!(
                    (got - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                    "{name} {k}: {got} {expected}"
                );
            }
            let (in_parts, _) = likelihood(&folder, &run, &x, &[&call[..], &["--batch", "2"]].concat());
            assert_eq!(got, in_parts);
        }
    }
}

/// The flow of one memory keeps (x - xi) / sigma, so the likelihood under N(0, I) at T = 1 is known, including the bias of
/// that prior.
#[test]
fn the_gaussian_prior_has_the_expected_bias() {
    let folder = Folder::new();
    let (run, points) = (folder.toy_run("run", "1", "ve"), folder.toy_memories("1"));
    let t: f64 = 0.09;
    let x = Dice::new(4).cloud(6, 2, 0.3, 0.4);
    let call = ["--score", "exact", "--t", "0.09", "--tolerance", "1e-8"];
    let (got, _) = likelihood(&folder, &run, &x, &call);
    let path = folder.path("L.parquet");
    let note = |key| parquet_note(&path, key).unwrap().unwrap();
    assert_eq!(
        (note("t"), note("prior"), note("divergence")),
        ("0.09".into(), "gaussian".into(), "exact".into())
    );
    for (got, x) in got.iter().zip(x.outer_iter()) {
        let end: f64 = x.iter().zip(points.row(0)).map(|(x, xi)| (xi + (x - xi) / t.sqrt()).powi(2)).sum();
        let expected = -0.5 * end - TAU.ln() - t.ln();
        assert!((got - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{got} {expected}");
    }
    // J is a multiple of I, for which signs are exact.
    let hutchinson = [&call[..], &["--divergence", "hutchinson", "--probes", "3"]].concat();
    let (signs, errors) = likelihood(&folder, &run, &x, &hutchinson);
    assert!(errors.unwrap().iter().all(|e| *e < 1e-9));
    assert!(signs.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(note("divergence"), "hutchinson, 3 signs");
}

#[test]
fn both_divergences_of_a_network_agree() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "4", "ve");
    let x = Dice::new(5).cloud(7, 2, 0.7, 0.0);
    let call = ["--t", "0.05"];
    let (exact, _) = likelihood(&folder, &run, &x, &call);
    let (parts, _) = likelihood(&folder, &run, &x, &[&call[..], &["--batch", "3"]].concat());
    assert_eq!(exact, parts);
    let (raw, _) = likelihood(&folder, &run, &x, &[&call[..], &["--raw"]].concat());
    assert_ne!(exact, raw);
    let more = ["--divergence", "hutchinson", "--probes", "100", "--seed", "2"];
    let (estimate, errors) = likelihood(&folder, &run, &x, &[&call[..], &more].concat());
    for ((exact, estimate), error) in exact.iter().zip(&estimate).zip(errors.unwrap()) {
        // Seven of four standard errors; beside them the tolerance of the integration.
        assert!((exact - estimate).abs() < 4.0 * error + 1e-3, "{exact} {estimate} {error}");
    }
    let (other, _) = likelihood(&folder, &run, &x, &[&call[..], &more, &["--batch", "2"]].concat());
    assert_eq!(other, estimate);
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "2", "ve");
    let good = folder.array("good.npy", &Array2::<f64>::zeros((3, 2)));
    let (out, nowhere, none) = (folder.at("L.parquet"), folder.at("nowhere"), folder.at("none.npy"));
    let refuses = |run: &str, queries: &str, more: &[&str], words: &[&str]| {
        let call = ["likelihood", "--run", run, "--queries", queries, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["likelihood"], words].concat());
    };
    refuses(&nowhere, &good, &[], &["nowhere", "expected a training run"]);
    refuses(&run, &none, &[], &["none.npy"]);
    let wide = folder.array("wide.npy", &Array2::<f64>::zeros((3, 5)));
    refuses(&run, &wide, &[], &["[3, 5]", "[3, 2]"]);
    let mut bad = Array2::<f64>::zeros((3, 2));
    bad[[2, 1]] = f64::NAN;
    let bad = folder.array("bad.npy", &bad);
    refuses(&run, &bad, &[], &["row 2", "column 1"]);
    for t in ["-0.1", "1.5", "NaN"] {
        refuses(&run, &good, &["--t", t], &["time"]);
    }
    refuses(&run, &good, &["--t", "0"], &["no noise"]);
    refuses(&run, &good, &["--tolerance", "-1"], &["rtol"]);
    refuses(&run, &good, &["--probes", "8"], &["--probes", "exact"]);
    refuses(&run, &good, &["--divergence", "hutchinson", "--probes", "1"], &["probes", "at least 2"]);
    refuses(&run, &good, &["--device", "cuda:4096"], &["cuda"]);
    refuses(&run, &good, &["--prior", "flat"], &["flat"]);
}
