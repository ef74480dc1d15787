//! `mem2gen attractors`: two memories under the exact score, a cell with samples, and refusals.

use std::fs;
use std::path::Path;

use crate::common::{Folder, finish_cell, write_labels};
use mem2gen::frame::{column_f64, column_i64, column_text, parquet_note, read_parquet};
use mem2gen::process::{Process, Vp};
use mem2gen::store::{Matrix, read_matrix};
use ndarray::Array2;

#[test]
fn two_memories_are_attractors_until_the_noise_joins_them() {
    let folder = Folder::new();
    let (run, points) = (folder.toy_run("run", "2", "vp"), folder.toy_memories("2"));
    let (out, positions, flows) = (folder.at("A.parquet"), folder.at("X.npy"), folder.at("F.parquet"));
    // Half the distance of the memories is about 1: beta_c = 1/2, so alpha / sigma = 1 where they join.
    let vp = Vp::default();
    let joined = (0..1000).find(|&t| {
        let level = vp.level(f64::from(t)).unwrap();
        level.alpha() < level.sigma()
    });
    let (low, high) = ("15", (joined.unwrap() + 100).to_string());
    let call =
        ["attractors", "--run", &run, "--score", "exact", "--delta", "0.05", "--starts", "60", "--out", &out];
    let times = format!("{low},{high}");
    let more = ["--t", &times, "--positions", &positions, "--flows", &flows];
    let said = folder.runs(&[&call[..], &more].concat());
    assert!(
        said.contains("t = 15: 2 attractors, 2 memorized (within 0.05 of a training image) and 0 spurious"),
        "{said}"
    );
    assert!(said.contains(&format!("t = {high}: 1 attractors, 0 memorized")), "{said}");
    let table = read_parquet(Path::new(&out)).unwrap();
    assert_eq!(column_text(&table, "class").unwrap(), ["memorized", "memorized", "spurious"]);
    let Matrix::F64(found) = read_matrix(Path::new(&positions)).unwrap() else { panic!("not f64") };
    let nearest = column_i64(&table, "nearest").unwrap();
    for (row, &of) in nearest[..2].iter().enumerate() {
        assert!((&found.row(row) - &points.row(of as usize)).iter().all(|d| d.abs() < 1e-4));
    }
    let middle = points.mean_axis(ndarray::Axis(0)).unwrap();
    assert!((&found.row(2) - &middle).iter().all(|d| d.abs() < 1e-3), "{found}");
    let noise: i64 = column_i64(&table, "noise").unwrap()[..2].iter().sum();
    assert_eq!(noise, 60);
    assert_eq!(column_i64(&table, "training").unwrap()[..2], [1, 1]);
    assert!(column_f64(&table, "contraction").unwrap().iter().all(|c| (0.0..1.0).contains(c)));
    assert!(
        parquet_note(Path::new(&out), "settings")
            .unwrap()
            .is_some_and(|note| note.contains("\"merge\":0.05"))
    );
    let flows = read_parquet(Path::new(&flows)).unwrap();
    assert_eq!(column_text(&flows, "start").unwrap(), ["noise", "training", "noise", "training"]);
    assert_eq!(column_f64(&flows, "stays").unwrap()[1], 1.0);
    assert!(!folder.path("A.parquet.partial").exists());
}

#[test]
fn samples_of_a_cell_are_starts() {
    let folder = Folder::new();
    let points = folder.toy_memories("2");
    let at = folder.at("cell");
    folder.toy_run("cell/train", "2", "vp");
    let far = [0.01, 0.3];
    let samples =
        Array2::from_shape_fn((2, 2), |(i, j)| (points[[0, j]] + if j == 0 { far[i] } else { 0.0 }) as f32);
    folder.array("cell/samples.npy", &samples);
    write_labels(&folder.path("cell/labels-x4.parquet"), &["memorized", "spurious"], &far, &[0.3, 0.3]);
    finish_cell(Path::new(&at), Some(0.05));
    let out = folder.at("A.parquet");
    // delta is delta_m of the cell.
    let said = folder.runs(&["attractors", "--run", &at, "--score", "exact", "--starts", "5", "--out", &out]);
    assert!(said.contains("within 0.05 of a training image"), "{said}");
    let table = read_parquet(Path::new(&out)).unwrap();
    for kind in ["memorized", "spurious"] {
        assert_eq!(column_i64(&table, kind).unwrap().iter().sum::<i64>(), 1, "{kind}");
    }
    assert_eq!(column_i64(&table, "generalized").unwrap().iter().sum::<i64>(), 0);
}

#[test]
fn bad_settings_are_refused_before_any_work() {
    let folder = Folder::new();
    let (run, out) = (folder.toy_run("run", "2", "vp"), folder.at("A.parquet"));
    let call = ["attractors", "--run", &run, "--out", &out];
    folder.refuses(&call, &["delta", "not set", "no delta_m"]);
    let refused: [(&[&str], &[&str]); 7] = [
        (&["--delta", "nan"], &["delta is NaN", "above 0"]),
        (&["--merge", "0"], &["merge is 0", "above 0"]),
        (&["--tolerance", "0.05"], &["tolerance is 0.05", "below `merge`"]),
        (&["--starts", "0"], &["starts is 0", "at least 1"]),
        (&["--starts", "1000000000000"], &["starts is 1000000000000", "bytes", "are left"]),
        (&["--most-steps", "1000"], &["most_steps is 1000", "more than `plain`"]),
        (&["--t", "15,5000"], &["5000"]),
    ];
    for (more, words) in refused {
        let delta: &[&str] = if more[0] == "--delta" { &[] } else { &["--delta", "0.05"] };
        folder.refuses(&[&call[..], delta, more].concat(), words);
    }
    assert!(!Path::new(&out).exists() && fs::read_dir(folder.path("")).unwrap().count() == 1);
}
