//! `mem2gen basin`: two memories with the plane between them, the samples of a cell, and a killed call.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Folder, Running, finish_cell, write_labels};
use mem2gen::frame::{column_f64, column_i64, column_text, parquet_note, read_parquet};
use mem2gen::process::{Process, Vp};
use ndarray::Array2;

/// A folder like a finished cell of a sweep, with a run on two points: five samples, of which the first and the third
/// are copies of the first point.
fn cell(folder: &Folder, delta_m: f64) -> String {
    let points = folder.toy_memories("2");
    let at = folder.at("cell");
    folder.toy_run("cell/train", "2", "vp");
    let far = [0.01, 5.0, 0.002, 9.0, 7.0];
    let samples =
        Array2::from_shape_fn((5, 2), |(i, j)| (points[[0, j]] + if j == 0 { far[i] } else { 0.0 }) as f32);
    folder.array("cell/samples.npy", &samples);
    let label = ["memorized", "spurious", "memorized", "generalized", "spurious"];
    write_labels(&folder.path("cell/labels-x4.parquet"), &label, &far, &[0.008, 2.0, 0.008, 2.0, 1.5]);
    finish_cell(Path::new(&at), Some(delta_m));
    at
}

/// The distribution function of a standard normal, by its series.
fn phi(z: f64) -> f64 {
    // Beyond that it is 1 to nine digits, and the series loses all accuracy.
    let z = z.min(6.0);
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / (2.0 * f64::from(n));
        sum += term / f64::from(2 * n + 1);
    }
    0.5 + sum / std::f64::consts::TAU.sqrt()
}

#[test]
fn two_memories_share_the_plane_and_the_table_records_the_settings() {
    let folder = Folder::new();
    let (run, points) = (folder.toy_run("run", "2", "vp"), folder.toy_memories("2"));
    let a = 0.5 * (points[[0, 0]] - points[[1, 0]]).hypot(points[[0, 1]] - points[[1, 1]]);
    let out = folder.at("T.parquet");
    let call = ["basin", "--run", &run, "--score", "exact", "--class", "training", "--out", &out];
    let ends = folder.at("A.parquet");
    let more = ["--delta", "0.05", "--perturbations", "400", "--stride", "10", "--stop", "0.8"];
    let draws = ["--attractors", &ends, "--draws", "2000", "--draw-steps", "50"];
    let more = [&more[..], &draws].concat();
    let said = folder.runs(&[&call[..], &more].concat());
    assert!(said.contains("2 training images") && said.contains("delta = 0.05 (given)"), "{said}");
    let table = read_parquet(&folder.path("T.parquet")).unwrap();
    let names: Vec<&str> = table.get_column_names().iter().map(|name| name.as_str()).collect();
    let columns = ["class", "id", "t_c", "floor", "ceiling", "t_copies", "radius", "log_volume", "recovered"];
    assert_eq!(names, columns);
    let vp = Vp::default();
    let side = |t: i64| {
        let level = vp.level(t as f64).unwrap();
        phi(level.alpha() * a / level.sigma())
    };
    let expected = (0..100).map(|i| 1 + 10 * i).take_while(|t| side(*t) >= 0.8).last().unwrap();
    for t in column_i64(&table, "t_c").unwrap() {
        // A share of 400 has a standard deviation of 0.02, which is 15 levels here.
        assert!((t - expected).abs() <= 60, "{t} {expected}");
    }
    for (row, t) in column_text(&table, "recovered").unwrap().iter().zip(column_i64(&table, "t_c").unwrap()) {
        let counts: Vec<f64> = row.split(' ').map(|c| c.parse().unwrap()).collect();
        assert_eq!(counts.len() as i64, (t - 1) / 10 + 2);
        for (count, t) in counts.iter().zip((1..).step_by(10)) {
            assert!((count / 400.0 - side(t)).abs() < 0.1, "{t}: {count} {}", side(t));
        }
    }
    let (radius, volume) = (column_f64(&table, "radius").unwrap(), column_f64(&table, "log_volume").unwrap());
    for (r, v) in radius.iter().zip(&volume) {
        assert!((v - (std::f64::consts::PI * r * r).ln()).abs() < 1e-12);
    }
    // Noise does not depend on the memories, so each side of the plane has half of it.
    let ends = read_parquet(&folder.path("A.parquet")).unwrap();
    assert_eq!(column_i64(&ends, "draws").unwrap(), [2000, 2000]);
    let counts = column_i64(&ends, "count").unwrap();
    assert!(counts.iter().sum::<i64>() >= 1990 && (counts[0] - 1000).abs() < 120, "{counts:?}");
    assert!(said.contains("of 2000 draws of noise end at these images"), "{said}");
    let note = |key| parquet_note(&folder.path("T.parquet"), key).unwrap().unwrap();
    assert_eq!((note("delta"), note("delta_from")), ("0.05".into(), "given".into()));
    assert!(note("settings").contains("\"perturbations\":400"));
}

#[test]
fn the_samples_of_a_cell_are_measured_by_class_with_its_threshold() {
    let folder = Folder::new();
    let cell = cell(&folder, 0.125);
    let out = folder.at("T.parquet");
    let ids = |class: &str, more: &[&str]| {
        folder.runs(&[&["basin", "--run", &cell, "--class", class, "--out", &out], more].concat());
        let table = read_parquet(&folder.path("T.parquet")).unwrap();
        assert!(column_text(&table, "class").unwrap().iter().all(|found| found == class));
        column_i64(&table, "id").unwrap()
    };
    assert_eq!(ids("memorized", &[]), [2, 0]);
    let note = |key| parquet_note(&folder.path("T.parquet"), key).unwrap().unwrap();
    assert_eq!((note("delta"), note("delta_from")), ("0.125".into(), "delta_m of the cell".into()));
    assert_eq!(ids("spurious", &["--delta", "0.5"]), [4, 1]);
    assert_eq!((note("delta"), note("delta_from")), ("0.5".into(), "given".into()));
    assert_eq!(ids("generalized", &[]), [3]);
    assert_eq!(ids("training", &["--max", "1"]), [0]);
    assert_eq!(ids("memorized", &["--max", "1"]), [2]);
    let mut drawn = ids("spurious", &["--pick", "random", "--pick-seed", "5"]);
    drawn.sort_unstable();
    assert_eq!(drawn, [1, 4]);
    // The basin of an image does not depend on the network's batch or on the other images.
    let bytes = || fs::read(&out).unwrap();
    ids("memorized", &["--batch", "3"]);
    let three = column_f64(&read_parquet(&folder.path("T.parquet")).unwrap(), "radius").unwrap();
    ids("memorized", &["--batch", "64"]);
    let many = column_f64(&read_parquet(&folder.path("T.parquet")).unwrap(), "radius").unwrap();
    assert_eq!(three, many);
    let first = bytes();
    ids("memorized", &["--batch", "64"]);
    assert_eq!(bytes(), first);
    fs::remove_file(folder.path("cell/cell.json")).unwrap();
    let call = ["basin", "--run", &cell, "--class", "memorized", "--out", &out];
    folder.refuses(&call, &["not finished", "cell.json"]);
}

#[test]
fn a_killed_call_resumes() {
    let folder = Folder::new();
    let run = folder.toy_run("run", "300", "vp");
    let (whole, killed) = (folder.at("whole.parquet"), folder.at("killed.parquet"));
    let call = |out| {
        let more = ["--delta", "0.3", "--perturbations", "20", "--stride", "10", "--stop", "0.05"];
        [&["basin", "--run", &run, "--class", "training", "--out", out], &more[..]].concat()
    };
    folder.runs(&call(&whole));
    let partial = folder.path("killed.parquet.partial");
    let child = Running::start(&call(&killed));
    let pieces = || -> usize {
        let folders = fs::read_dir(&partial).into_iter().flatten().flatten();
        folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).map(Iterator::count).sum()
    };
    let began = Instant::now();
    while pieces() == 0 && began.elapsed() < Duration::from_secs(120) {
        sleep(Duration::from_millis(2));
    }
    drop(child);
    assert!(pieces() > 0 && !Path::new(&killed).exists());
    folder.runs(&call(&killed));
    assert_eq!(fs::read(&killed).unwrap(), fs::read(&whole).unwrap());
    assert!(!partial.exists());
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let (vp, ve) = (folder.toy_run("vp", "2", "vp"), folder.toy_run("ve", "2", "ve"));
    let out = folder.at("T.parquet");
    let refuses = |run: &str, class: &str, more: &[&str], words: &[&str]| {
        let call = ["basin", "--run", run, "--class", class, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["basin"], words].concat());
    };
    refuses(&vp, "training", &[], &["delta", "not set"]);
    refuses(&ve, "training", &["--delta", "0.1"], &["--run", "ve", "vp"]);
    refuses(&vp, "memorized", &["--delta", "0.1"], &["--class", "memorized", "training run"]);
    refuses(&vp, "copied", &["--delta", "0.1"], &["copied", "spurious"]);
    refuses(&folder.at("nowhere"), "training", &[], &["nowhere", "expected a training run"]);
    for (option, value, word) in [
        ("--delta", "0", "delta"),
        ("--delta", "NaN", "delta"),
        ("--stop", "1.5", "stop"),
        ("--perturbations", "0", "perturbations"),
        ("--steps", "0", "steps"),
        ("--stride", "0", "stride"),
        ("--first", "1000", "first"),
        ("--max", "0", "--max"),
        ("--batch", "0", "--batch"),
    ] {
        let delta: &[&str] = if option == "--delta" { &[] } else { &["--delta", "0.1"] };
        refuses(&vp, "training", &[delta, &[option, value]].concat(), &[word]);
    }
    let ends = |more: &[&'static str]| [&["--delta", "0.1", "--attractors"], more].concat();
    refuses(&vp, "training", &ends(&["A.parquet", "--draws", "0"]), &["--draws", "at least 1"]);
    refuses(&vp, "training", &ends(&["A.parquet", "--draw-steps", "0"]), &["steps"]);
    refuses(&vp, "training", &["--delta", "0.1", "--attractors", &out], &["--attractors", "--out"]);
    refuses(&vp, "training", &["--metric", "lpips-alex"], &["delta", "not set"]);
    // A control has samples and no network.
    let control = folder.path("control");
    fs::create_dir(&control).unwrap();
    fs::write(control.join("task.json"), "{}").unwrap();
    refuses(control.to_str().unwrap(), "training", &["--delta", "0.1"], &["not finished"]);
}
