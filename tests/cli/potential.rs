//! `mem2gen potential` on a cell of a sweep: comparison with the energies of the mixture, computed term by term; errors.

use std::f64::consts::TAU;
use std::fs;

use crate::common::{Dice, Folder, finish_cell, write_labels};
use mem2gen::class::Group;
use mem2gen::frame::{column_text, parquet_note, read_parquet};
use mem2gen::process::{Process, Vp};
use mem2gen::study::energy::frame::{curves_rows, gaps_rows, loops_rows, potential_rows};
use ndarray::{Array2, ArrayView1};

const K: usize = 5;
const CLASSES: [&str; 4] = ["memorized", "spurious", "generalized", "invalid"];

/// A finished cell of toy points: 40 samples, every fourth of the same class.
fn cell(folder: &Folder, process: &str) -> (String, Array2<f64>) {
    let at = folder.at(process);
    folder.toy_run(&format!("{process}/train"), &K.to_string(), process);
    let mut samples = Dice::new(3).cloud(40, 2, 0.8, 0.0).mapv(|v| v as f32);
    samples.row_mut(7).fill(f32::NAN);
    folder.array(&format!("{process}/samples.npy"), &samples);
    let labels: Vec<&str> = (0..40).map(|i| CLASSES[i % 4]).collect();
    let distances: Vec<f64> = (0..40).map(|i| f64::from(i * 17 % 40)).collect();
    write_labels(&folder.path(&format!("{process}/labels-x4.parquet")), &labels, &distances, &distances);
    finish_cell(&folder.path(process), None);
    (at, samples.mapv(f64::from))
}

/// U = -beta (log p + |x|^2 / 4).
fn energy(points: &Array2<f64>, x: ArrayView1<'_, f64>, t: usize) -> f64 {
    let (vp, level) = (Vp::default(), Vp::default().level(t as f64).unwrap());
    let variance = level.sigma().powi(2);
    let logs: Vec<f64> = points
        .outer_iter()
        .map(|p| {
            let d2: f64 = p.iter().zip(x).map(|(p, x)| (x - level.alpha() * p).powi(2)).sum();
            -0.5 * d2 / variance - (TAU * variance).ln()
        })
        .collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log = top + (logs.iter().map(|l| (l - top).exp()).sum::<f64>() / logs.len() as f64).ln();
    -vp.betas()[t] * (log + 0.25 * x.dot(&x))
}

#[test]
fn the_exact_score_gives_differences_of_energies() {
    let folder = Folder::new();
    let ((run, samples), points) = (cell(&folder, "vp"), folder.toy_memories(&K.to_string()));
    for t in [0, 120] {
        let (time, out) = (t.to_string(), folder.at("T.parquet"));
        let (gaps, curves, circuits) =
            (folder.at("G.parquet"), folder.at("C.parquet"), folder.at("L.parquet"));
        let settings =
            ["--t", &time, "--references", "2", "--tolerance", "1e-6", "--loops", "3", "--max", "8"];
        let call = [&["potential", "--run", &run, "--score", "exact", "--out", &out], &settings[..]].concat();
        let more = ["--gaps", &gaps, "--curves", &curves, "--circuits", &circuits];
        let said = folder.runs(&[&call[..], &more].concat());
        assert!(said.contains("U(reference) - U(target)") && said.contains("generalized"), "{said}");
        assert!(!folder.path("T.parquet.partial").exists());
        let table = read_parquet(&folder.path("T.parquet")).unwrap();
        assert!(column_text(&table, "sign").unwrap()[0].contains("U(reference) - U(target)"));
        assert!(parquet_note(&folder.path("T.parquet"), "sign").unwrap().unwrap().contains("lower energy"));
        let rows = potential_rows(&table).unwrap();
        // Eight of the ten of each class, and all training images, for each reference.
        assert_eq!(rows.len(), 2 * (3 * 8 + K));
        let mut sums = std::collections::BTreeMap::new();
        for row in &rows {
            let x = match row.group {
                Group::Samples(class) => {
                    assert_eq!(CLASSES[row.sample % 4], class.name());
                    samples.row(row.sample)
                }
                Group::Training => points.row(row.sample),
            };
            let expected = energy(&points, points.row(row.reference), t) - energy(&points, x, t);
            assert!((row.u - expected).abs() <= 1e-6, "{row:?} {expected}");
            assert!(row.error.unwrap() <= 1e-6);
            *sums.entry((row.group.name(), row.reference)).or_insert(0.0) += row.u;
        }
        for gap in gaps_rows(&read_parquet(&folder.path("G.parquet")).unwrap()).unwrap() {
            assert_eq!((gap.k, gap.n), (K, if gap.group == Group::Training { K } else { 8 }));
            let of =
                |r: usize| sums[&(gap.group.name(), r)] / gap.n as f64 - sums[&("training", r)] / K as f64;
            if let Some(reference) = gap.reference {
                assert!((gap.gap - of(reference)).abs() < 1e-12, "{gap:?}");
            }
        }
        // Twenty points and three circuits for each class and reference.
        assert_eq!(curves_rows(&read_parquet(&folder.path("C.parquet")).unwrap()).unwrap().len(), 8 * 20);
        let loops = loops_rows(&read_parquet(&folder.path("L.parquet")).unwrap()).unwrap();
        assert_eq!(loops.len(), 8 * 3);
        assert!(loops.iter().all(|l| l.error <= 3e-6 && l.circulation.abs() <= l.error + 1e-9), "{loops:?}");
        let first = fs::read(&out).unwrap();
        folder.runs(&[&call[..], &["--batch", "3"]].concat());
        assert_eq!(fs::read(&out).unwrap(), first);
    }
}

#[test]
fn a_network_gives_the_same_in_any_batch_and_legacy_gives_other_values() {
    let folder = Folder::new();
    let (run, _) = cell(&folder, "vp");
    let out = folder.at("T.parquet");
    let of = |more: &[&str]| {
        let call = ["potential", "--run", &run, "--loops", "2", "--out", &out];
        folder.runs(&[&call[..], more].concat());
        potential_rows(&read_parquet(&folder.path("T.parquet")).unwrap()).unwrap()
    };
    let plain = of(&[]);
    assert_eq!(plain.len(), 3 * 10 + K);
    assert_eq!(plain, of(&["--batch", "7"]));
    assert!(plain.iter().all(|r| r.u.is_finite() && r.error.is_none()));
    assert_ne!(plain, of(&["--raw"]));
    let legacy = of(&["--legacy"]);
    assert!(plain.iter().zip(&legacy).all(|(a, b)| a.sample == b.sample && a.u != b.u));
    let one = of(&["--classes", "spurious"]);
    let same: Vec<_> =
        plain.into_iter().filter(|r| matches!(r.group.name(), "spurious" | "training")).collect();
    assert_eq!((one.len(), &one), (10 + K, &same));
    // A training run outside a sweep has only training images.
    let train = folder.at("vp/train");
    folder.runs(&["potential", "--run", &train, "--out", &out]);
    assert_eq!(potential_rows(&read_parquet(&folder.path("T.parquet")).unwrap()).unwrap().len(), K);
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let (run, _) = cell(&folder, "vp");
    let out = folder.at("T.parquet");
    let refuses = |more: &[&str], words: &[&str]| {
        let call = ["potential", "--run", &run, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), words);
    };
    refuses(&["--points", "1"], &["points", "at least 2"]);
    refuses(&["--references", "0"], &["references"]);
    refuses(&["--loop-points", "20"], &["loop_points", "odd"]);
    refuses(&["--tolerance", "-1"], &["tolerance"]);
    refuses(&["--tolerance", "1", "--legacy"], &["tolerance", "legacy"]);
    refuses(&["--t", "1000"], &["setting t", "999"]);
    refuses(&["--classes", "copied"], &["copied"]);
    refuses(&["--max", "0"], &["--max"]);
    // The seventh sample is NaN and has the label invalid; here the label is changed to generalized.
    let path = folder.path("vp/labels-x4.parquet");
    let labels: Vec<&str> = (0..40).map(|i| if i == 7 { "generalized" } else { CLASSES[i % 4] }).collect();
    write_labels(&path, &labels, &[1.0; 40], &[1.0; 40]);
    refuses(&[], &["labels-x4.parquet is not what cell.json records"]);
    finish_cell(&folder.path("vp"), None);
    refuses(&[], &["sample 7"]);
    fs::remove_file(folder.path("vp/cell.json")).unwrap();
    refuses(&[], &["not finished"]);
    let (ve, _) = cell(&folder, "ve");
    folder.refuses(&["potential", "--run", &ve, "--out", &out], &["vp"]);
}
