//! `mem2gen knn`: comparison with brute force in f64, with planted copies and near-copies; errors.

use crate::common::{
    Dice, Folder, PRECISIONS, cases, common_refusals, common_usage_mistakes, lying_headers, says_the_device,
    tried,
};
use mem2gen::frame::{column_f64, column_i64, parquet_note, read_parquet};
use ndarray::{Array, Array2, array};

/// A row of the table: query, rank, index, distance.
type Row = (i64, i64, i64, f64);

/// All neighbours by differences and sums in f64, ties to the lowest index.
fn brute(reference: &Array2<f64>, queries: &Array2<f64>, k: usize, exclude_self: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (q, x) in queries.outer_iter().enumerate() {
        let mut all: Vec<(f64, usize)> = reference
            .outer_iter()
            .enumerate()
            .filter(|(i, _)| !(exclude_self && *i == q))
            .map(|(i, y)| (x.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum(), i))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let near = all.iter().take(k).zip(1..);
        rows.extend(near.map(|((d2, i), rank)| (q as i64, rank, *i as i64, d2.sqrt())));
    }
    rows
}

fn table(folder: &Folder, name: &str) -> Vec<Row> {
    let frame = read_parquet(&folder.path(name)).unwrap();
    let names: Vec<&str> = frame.get_column_names().iter().map(|n| n.as_str()).collect();
    assert_eq!(names, ["query", "rank", "index", "distance"]);
    let whole = |name| column_i64(&frame, name).unwrap();
    let places = whole("query").into_iter().zip(whole("rank")).zip(whole("index"));
    places.zip(column_f64(&frame, "distance").unwrap()).map(|(((q, r), i), d)| (q, r, i, d)).collect()
}

/// Runs the program and compares its table with brute force.
#[track_caller]
fn holds(
    folder: &Folder,
    (reference, queries): (&Array2<f64>, &Array2<f64>),
    files: (&str, &str),
    k: usize,
    exclude_self: bool,
    what: &str,
) {
    let (out, count) = (folder.at("T.parquet"), k.to_string());
    let mut call = vec!["knn", "--reference", files.0, "--queries", files.1, "-k", &count, "--out", &out];
    if exclude_self {
        call.push("--exclude-self");
    }
    folder.runs(&call);
    let (got, exact) = (table(folder, "T.parquet"), brute(reference, queries, k, exclude_self));
    assert_eq!(got.len(), exact.len(), "{what}, k {k}");
    for (got, exact) in got.iter().zip(&exact) {
        assert_eq!((got.0, got.1, got.2), (exact.0, exact.1, exact.2), "{what}, k {k}: {got:?} {exact:?}");
        // The sums have another order; a copy is at 0 in any order.
        assert!((got.3 - exact.3).abs() <= 1e-12 * exact.3, "{what}, k {k}: {got:?} {exact:?}");
    }
}

#[test]
fn neighbours_are_those_of_brute_force() {
    let folder = Folder::new();
    for case in cases() {
        for precision in PRECISIONS {
            let (reference, queries) = folder.case(&case, precision);
            let all = case.memories.nrows();
            for &k in tried(&[1, 2, 5, all - 1, all], precision) {
                if (1..=all).contains(&k) {
                    let what = format!("{}, {precision:?}", case.name);
                    let arrays = (&case.memories, &case.queries);
                    holds(&folder, arrays, (&reference, &queries), k, false, &what);
                }
            }
        }
    }
}

/// Rows with many repetitions, exact or changed by one unit in the last place of f32, far from the first occurrence in the
/// order of rows, and with a large offset.
fn planted(dice: &mut Dice, count: usize, dim: usize, offset: f64) -> Array2<f64> {
    let mut rows = dice.cloud(count, dim, 1.0, offset).mapv(|v| f64::from(v as f32));
    for i in 0..count / 5 {
        let first = rows.row(i).to_owned();
        let beside = first.mapv(|v| f64::from((v as f32) * (1.0 + f32::EPSILON)));
        rows.row_mut(count - 1 - 3 * i).assign(&first);
        rows.row_mut(count - 2 - 3 * i).assign(&beside);
        rows.row_mut(count - 3 - 3 * i).assign(&first);
    }
    rows
}

#[test]
fn copies_and_near_copies_are_in_the_order_of_brute_force() {
    let folder = Folder::new();
    let mut dice = Dice::new(7);
    for (count, dim, offset) in [(60, 1, 0.0), (1100, 2, 50.0), (700, 17, 0.0), (640, 130, 300.0)] {
        let reference = planted(&mut dice, count, dim, offset);
        // On reference points, next to them, and elsewhere.
        let queries = Array2::from_shape_fn((45, dim), |(i, j)| {
            let apart = [0.0, 1e-6, 0.5][i % 3] * dice.normal();
            f64::from((reference[[7 * i % count, j]] + apart) as f32)
        });
        for single in [true, false] {
            let write = |name: &str, a: &Array2<f64>| {
                if single { folder.array(name, &a.mapv(|v| v as f32)) } else { folder.array(name, a) }
            };
            let (r, x) = (write("R.npy", &reference), write("X.npy", &queries));
            let what = format!("[{count}, {dim}], single {single}");
            for k in [1, 6, 33] {
                holds(&folder, (&reference, &queries), (&r, &x), k, false, &what);
                holds(
                    &folder,
                    (&reference, &reference),
                    (&r, &r),
                    k,
                    true,
                    &format!("{what}, self excluded"),
                );
            }
        }
    }
}

#[test]
fn self_is_excluded_by_index_and_its_copies_are_not() {
    let folder = Folder::new();
    let rows = array![[0.0, 0.0], [5.0, 5.0], [0.0, 0.0], [5.0, 5.0], [0.0, 0.0]];
    let file = folder.array("R.npy", &rows);
    let out = folder.at("T.parquet");
    let call = ["knn", "--reference", &file, "--queries", &file, "-k", "2", "--out", &out];
    folder.runs(&[&call[..], &["--exclude-self"]].concat());
    let index = |name| -> Vec<i64> { table(&folder, name).iter().map(|row| row.2).collect() };
    assert_eq!(index("T.parquet"), [2, 4, 3, 0, 0, 4, 1, 0, 0, 2]);
    folder.runs(&call);
    assert_eq!(index("T.parquet"), [0, 2, 1, 3, 0, 2, 1, 3, 0, 2]);
}

#[test]
fn no_queries_give_no_rows() {
    let folder = Folder::new();
    let reference = folder.array("R.npy", &array![[1.0f32, 2.0]]);
    let none = folder.array("none.npy", &Array2::<f32>::zeros((0, 2)));
    let out = folder.at("T.parquet");
    folder.runs(&["knn", "--reference", &reference, "--queries", &none, "-k", "1", "--out", &out]);
    assert_eq!(table(&folder, "T.parquet"), []);
}

#[test]
fn the_device_is_printed_and_stored_with_the_table() {
    says_the_device("knn", "--reference", "-k");
    let folder = Folder::new();
    let file = folder.array("R.npy", &array![[1.0f32, 2.0], [3.0, 4.0]]);
    let out = folder.at("T.parquet");
    folder.runs(&["knn", "--reference", &file, "--queries", &file, "-k", "1", "--out", &out]);
    assert_eq!(parquet_note(&folder.path("T.parquet"), "device").unwrap().as_deref(), Some("cpu"));
    assert_eq!(parquet_note(&folder.path("T.parquet"), "engine").unwrap(), None);
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    common_refusals("knn", "--reference", "-k");
    let folder = Folder::new();
    let three = folder.array("R.npy", &array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]);
    let two = folder.array("X.npy", &array![[0.0, 1.0], [2.0, 3.0]]);
    let one = folder.array("one.npy", &array![[0.0, 1.0]]);
    let out = folder.at("T.parquet");
    let refuses = |queries: &str, k: &str, more: &[&str], words: &[&str]| {
        let call = ["knn", "--reference", &three, "--queries", queries, "-k", k, "--out", &out];
        folder.refuses(&[&call[..], more].concat(), &[&["knn"], words].concat());
    };
    refuses(&two, "0", &[], &["k is 0"]);
    refuses(&two, "4", &[], &["k is 4"]);
    refuses(&two, "4294967297", &[], &["k is 4294967297"]);
    // Without itself a query has two neighbours.
    refuses(&three, "3", &["--exclude-self"], &["k is 3"]);
    refuses(&two, "1", &["--exclude-self"], &["queries", "[2, 2]", "[3, 2]"]);
    let alone = ["knn", "--reference", &one, "--queries", &one, "-k", "1", "--exclude-self", "--out", &out];
    folder.refuses(&alone, &["knn"]);
}

#[test]
fn wrong_options_give_one_line() {
    common_usage_mistakes("knn", "--reference", "-k");
}

#[test]
fn headers_with_too_many_values_are_refused() {
    lying_headers("knn", "--reference", "-k");
}

#[test]
fn images_are_taken_where_rows_are() {
    let folder = Folder::new();
    let bytes = Array::from_shape_fn((5, 4, 4), |(i, y, x)| (40 * i + 4 * y + x) as u8);
    let reference = folder.array("R.npy", &bytes);
    let queries = folder.array("X.npy", &bytes.mapv(|v| f32::from(v) / 127.5 - 1.0));
    let said = crate::common::mem2gen(&[
        "knn",
        "--reference",
        &reference,
        "--queries",
        &queries,
        "-k",
        "1",
        "--out",
        &folder.at("T.parquet"),
    ]);
    assert!(said.ok && said.stderr.contains("brought from [-1, 1] to [0, 1]"), "{}", said.stderr);
    let frame = read_parquet(&folder.path("T.parquet")).unwrap();
    assert_eq!(column_i64(&frame, "index").unwrap(), [0, 1, 2, 3, 4]);
}
