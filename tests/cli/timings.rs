//! The program `timings`: one line of JSON with consistent values; errors.

use std::process::Command;

use serde_json::Value;

use crate::common::{Folder, Said, said};

fn timings(arguments: &[&str]) -> Said {
    said(Command::new(env!("CARGO_BIN_EXE_timings")).arg("operation").args(arguments))
}

fn runs(arguments: &[&str]) -> String {
    let said = timings(arguments);
    assert!(said.ok && said.stderr.is_empty(), "{arguments:?}: {}", said.stderr);
    said.stdout
}

const SIZES: [&str; 6] = ["--queries", "30", "--memories", "400", "--dim", "20"];

#[test]
fn each_operation_gives_one_line_whose_rate_is_work_by_time() {
    let pairs = 30.0 * 400.0;
    for (operation, rate, work) in [
        ("energy", "gflops", 2.0 * 20.0 * pairs),
        ("score", "gflops", 4.0 * 20.0 * pairs),
        ("knn", "gflops", 2.0 * 20.0 * pairs),
        ("gemm", "gflops", 4.0 * 20.0 * pairs),
        ("exp", "gexps", pairs),
        ("sum", "gbytes_per_second", 4.0 * 20.0 * 400.0),
    ] {
        let said = runs(&[&[operation, "--repeat", "3"], &SIZES[..]].concat());
        assert_eq!(said.lines().count(), 1, "{said}");
        let line: Value = serde_json::from_str(&said).unwrap();
        let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {said}"));
        let sizes = [number("queries"), number("memories"), number("dim"), number("repeat")];
        assert_eq!(sizes, [30.0, 400.0, 20.0, 3.0]);
        assert_eq!(line["operation"], operation);
        assert_eq!(line["device"], "cpu");
        assert!(number("threads") >= 1.0 && number("prepare_seconds") >= 0.0);
        assert!(number("least_seconds") > 0.0 && number("least_seconds") <= number("median_seconds"));
        assert!((number(rate) * number("median_seconds") * 1e9 / work - 1.0).abs() < 1e-9, "{said}");
        assert_eq!(line["k"], if operation == "knn" { Value::from(6) } else { Value::Null });
        if cfg!(target_os = "linux") {
            number("peak_bytes");
        }
    }
}

/// The matrix between the two products is certainly in memory.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_count_the_inputs() {
    let call = ["gemm", "--queries", "2000", "--memories", "5000", "--dim", "50", "--repeat", "1"];
    let line: Value = serde_json::from_str(&runs(&call)).unwrap();
    let (peak, matrix) = (line["peak_bytes"].as_f64().unwrap(), 4.0 * 2000.0 * 5000.0);
    assert!(peak >= matrix && peak < 2.0 * matrix, "{line}");
}

#[test]
fn refusals_name_the_argument() {
    let refuses = |arguments: &[&str], words: &[&str]| {
        let Said { ok, stdout, stderr: error, .. } = timings(arguments);
        assert!(!ok && stdout.is_empty(), "{arguments:?} was accepted");
        for word in words {
            assert!(error.contains(word), "{arguments:?}: no {word:?} in: {error}");
        }
    };
    let sized = |arguments: &[&'static str]| [arguments, &SIZES[..]].concat();
    refuses(&sized(&["knn", "-k", "0"]), &["k is 0"]);
    refuses(&sized(&["knn", "-k", "401"]), &["k is 401"]);
    refuses(&sized(&["product"]), &["product"]);
    refuses(&sized(&["score", "--device", "cuda:4096"]), &["cuda"]);
    refuses(&sized(&["score", "--device", "gpu"]), &["--device"]);
    refuses(&["energy", "--memories", "0"], &["memories", "empty"]);
}

#[test]
fn planted_copies_are_found_and_seeds_that_were_measured_are_kept() {
    let folder = Folder::new();
    // 4x4 blocks of random colour.
    let word = |i: u32, x: u32, y: u32| (i * 256 + x / 16 * 16 + y / 16 + 1).wrapping_mul(0x9E37_79B1) >> 8;
    let pictures = folder.pictures(70, |i, x, y| [0, 8, 16].map(|shift| (word(i, x, y) >> shift) as u8));
    let results = folder.path("results.jsonl");
    let run = |seeds: &str| {
        let call = ["--datasets", "", "--colour", &pictures, "--images", "20", "--held-out", "20"];
        let out = ["--seeds", seeds, "--results", results.to_str().unwrap()];
        let said = said(Command::new(env!("CARGO_BIN_EXE_timings")).arg("planted").args(call).args(out));
        assert!(said.ok && said.stderr.is_empty(), "{}", said.stderr);
        said.stdout
    };
    let text = run("1");
    let exact = text.lines().find(|line| line.starts_with("| none, 100 %")).unwrap();
    assert!(exact.starts_with("| none, 100 % | 1.000 / 0.000 |"), "{exact}");
    assert!(text.contains("**colour, near duplicates left out, with held-out images, 1 seed.**"), "{text}");

    // A second seed is added; half a line of a run that was ended is dropped.
    let before = std::fs::read_to_string(&results).unwrap();
    std::fs::write(&results, format!("{before}{}", &before[..40])).unwrap();
    run("2");
    let after = std::fs::read_to_string(&results).unwrap();
    assert!(after.starts_with(&before) && after.lines().count() == 2, "{after}");
}
