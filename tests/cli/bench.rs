//! `mem2gen bench`: one line of JSON whose numbers fit each other, and what it refuses.

use crate::common::Folder;
use serde_json::Value;

const SIZES: [&str; 6] = ["--queries", "30", "--memories", "400", "--dim", "20"];

#[test]
fn each_operation_gives_one_line_whose_rate_is_work_by_time() {
    let folder = Folder::new();
    let pairs = 30.0 * 400.0;
    for (operation, rate, work) in [
        ("energy", "gflops", 2.0 * 20.0 * pairs),
        ("score", "gflops", 4.0 * 20.0 * pairs),
        ("knn", "gflops", 2.0 * 20.0 * pairs),
        ("gemm", "gflops", 4.0 * 20.0 * pairs),
        ("exp", "gexps", pairs),
        ("sum", "gbytes_per_second", 4.0 * 20.0 * 400.0),
    ] {
        let said = folder.runs(&[&["bench", operation, "--repeat", "3"], &SIZES[..]].concat());
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

/// The matrix between the two products is the one thing that is surely held.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_what_was_held_beyond_the_inputs() {
    let folder = Folder::new();
    let call = ["bench", "gemm", "--queries", "2000", "--memories", "5000", "--dim", "50", "--repeat", "1"];
    let line: Value = serde_json::from_str(&folder.runs(&call)).unwrap();
    let (peak, matrix) = (line["peak_bytes"].as_f64().unwrap(), 4.0 * 2000.0 * 5000.0);
    assert!(peak >= matrix && peak < 2.0 * matrix, "{line}");
}

#[test]
fn refusals_are_one_line() {
    let folder = Folder::new();
    let refuses = |more: &[&str], words: &[&str]| {
        folder.refuses(&[&["bench"], more, &SIZES[..]].concat(), &[&["bench"], words].concat());
    };
    refuses(&["knn", "-k", "0"], &["k is 0"]);
    refuses(&["knn", "-k", "401"], &["k is 401"]);
    refuses(&["product"], &["product"]);
    refuses(&["score", "--device", "cuda:4096"], &["cuda"]);
    refuses(&["score", "--device", "gpu"], &["--device"]);
    folder.refuses(&["bench", "energy", "--memories", "0"], &["bench", "memories", "empty"]);
}
