//! Tables as HTML and parquet, and stored results with their fingerprints.

use std::cell::Cell;
use std::fs;

use mem2gen::frame::fingerprint::{Fingerprint, Origin, Outcome, Stored, recall_or_compute};
use mem2gen::frame::{
    Table, TableError, column_f64, column_i64, column_text, flags, floats, frame, integers, read_parquet,
    strings, texts, write_parquet,
};
use mem2gen::project::Layout;
use polars::prelude::{DataFrame, NamedFrom, Series};
use serde_json::json;

fn sample() -> DataFrame {
    frame(
        "sample",
        vec![
            integers("K", vec![2, 9, 60_000]),
            floats("beta", vec![0.1, 1.0 / 3.0, -2.5e-9]),
            texts("kind", &["memorized", "<script>alert(1)</script>", "a & b"]),
            flags("found", vec![true, false, true]),
        ],
    )
    .unwrap()
}

#[test]
fn html_is_escaped_aligned_and_rounded() {
    let html = Table::from_frame("K & <b>", sample()).to_html();
    assert!(!html.contains("<script>") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    assert!(html.contains("<caption>K &amp; &lt;b&gt;</caption>"));
    assert!(html.contains("<td style=\"text-align:right\">0.3333</td>"));
    assert!(html.contains("<td style=\"text-align:right\">−2.5e−9</td>"), "{html}");
    assert!(html.contains("<td style=\"text-align:left\">yes</td>"));
    assert!(!html.contains("more rows"));
    for tag in ["table", "thead", "tbody", "tr", "td", "th", "caption"] {
        let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn long_tables_state_the_number_of_hidden_rows() {
    let long = Table::new("long", vec![integers("i", (0..55).collect())]).unwrap();
    let html = long.to_html();
    assert_eq!(html.matches("<tr><td style").count(), 20);
    assert!(html.contains("… and 35 more rows of 55"), "{html}");
    let text = long.rows(3).to_text();
    assert_eq!(text, "long\n i\n 0\n 1\n 2\n… and 52 more rows of 55\n".replace("\n ", "\n"), "{text}");
}

#[test]
fn a_table_is_shown_in_both_forms() {
    let mut out = Vec::new();
    Table::from_frame("shown", sample()).write_display(&mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("EVCXR_BEGIN_CONTENT text/html\n<table>"), "{out}");
    assert!(out.contains("EVCXR_END_CONTENT\nEVCXR_BEGIN_CONTENT text/plain\nshown\n"), "{out}");
    assert_eq!(out.matches("\nEVCXR_END_CONTENT\n").count(), 2);
}

#[test]
fn columns_that_do_not_form_a_frame_are_refused() {
    let uneven = Table::new("uneven", vec![integers("a", vec![1]), integers("b", vec![1, 2, 3])]);
    assert!(matches!(uneven, Err(TableError::Frame { caption, .. }) if caption == "uneven"));
    let twice = Table::new("twice", vec![integers("a", vec![1]), integers("a", vec![2])]);
    assert!(matches!(twice, Err(TableError::Frame { .. })));
}

#[test]
fn parquet_returns_the_same_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b.parquet");
    write_parquet(&path, &sample()).unwrap();
    assert_eq!(read_parquet(&path).unwrap(), sample());
    let first = fs::read(&path).unwrap();
    write_parquet(&path, &sample()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first, "the same frame gives the same bytes");

    fs::write(&path, &first[..first.len() / 2]).unwrap();
    let message = read_parquet(&path).unwrap_err().to_string();
    assert!(message.contains("b.parquet"), "{message}");
    let absent = read_parquet(&folder.path().join("none.parquet"));
    assert!(matches!(absent, Err(TableError::Store(_))));
}

#[test]
fn columns_are_read_by_type() {
    let f = sample();
    assert_eq!(column_i64(&f, "K").unwrap(), [2, 9, 60_000]);
    assert_eq!(column_f64(&f, "beta").unwrap()[0], 0.1);
    assert_eq!(column_text(&f, "kind").unwrap()[2], "a & b");
    match column_f64(&f, "sigma") {
        Err(TableError::NoColumn { name, have }) => {
            assert_eq!((name.as_str(), have.as_str()), ("sigma", "K, beta, kind, found"))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(column_f64(&f, "K"), Err(TableError::WrongType { wanted: "real numbers", .. })));
    assert!(matches!(column_i64(&f, "beta"), Err(TableError::WrongType { .. })));
    assert!(matches!(column_text(&f, "K"), Err(TableError::WrongType { .. })));
    let gaps = Series::new("g".into(), [Some(1.0), None, None]);
    let f = frame("gaps", vec![gaps.into(), strings("s", vec![String::new(); 3])]).unwrap();
    assert!(matches!(column_f64(&f, "g"), Err(TableError::Nulls { count: 2, .. })));
    assert!(Table::from_frame("gaps", f).to_html().contains('—'));
}

fn fingerprint() -> Fingerprint {
    let settings = json!({ "noise": 0.2, "starts": { "random": 100, "seed": 9 }, "betas": [0.1, 1.0] });
    Fingerprint::new("memory load", 1, settings, "desk")
        .data("mnist", "aaaabbbbcccc")
        .data("fashion", "ddddeeee")
}

#[test]
fn a_fingerprint_does_not_depend_on_the_order_of_keys() {
    let a = Fingerprint::new("a", 1, json!({ "x": 1, "y": 2.5 }), "desk");
    let b = Fingerprint::new("a", 1, json!({ "y": 2.5, "x": 1 }), "desk");
    assert_eq!(a.digest(), b.digest());
    assert_eq!(
        a.canonical(),
        "{\"analysis\":\"a\",\"data\":{},\"profile\":\"desk\",\"settings\":{\"x\":1,\"y\":2.50000000000000e0},\"version\":1}"
    );
    assert_ne!(a.digest(), Fingerprint::new("a", 1, json!({ "x": 1.0, "y": 2.5 }), "desk").digest());
}

#[test]
fn every_reason_to_be_stale_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Stored::new(folder.path(), "load");
    assert!(matches!(store.load(&fingerprint()).unwrap(), Outcome::Absent));
    let origin = Origin { crate_version: "9.9".into(), device: "a processor".into(), threads: 3 };
    store.clone().origin(origin).save(&fingerprint(), &sample(), 12.5).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(store.record_path()).unwrap()).unwrap();
    assert_eq!(record["origin"]["device"], "a processor");
    assert_eq!(record["seconds"], 12.5);
    match store.load(&fingerprint()).unwrap() {
        Outcome::Fits(frame) => assert_eq!(frame, sample()),
        other => panic!("{other:?}"),
    }

    let why = |f: &Fingerprint| match store.load(f).unwrap() {
        Outcome::Stale { why } => why,
        other => panic!("{other:?}"),
    };
    let with = |change: fn(&mut Fingerprint)| {
        let mut f = fingerprint();
        change(&mut f);
        why(&f)
    };
    assert_eq!(with(|f| f.version = 2), "code version 1 -> 2");
    assert_eq!(with(|f| f.analysis = "other".into()), "analysis memory load -> other");
    assert_eq!(with(|f| f.profile = "smoke".into()), "profile desk -> smoke");
    assert_eq!(with(|f| f.settings["noise"] = json!(0.3)), "setting noise 0.2 -> 0.3");
    assert_eq!(with(|f| f.settings["starts"]["seed"] = json!(10)), "setting starts.seed 9 -> 10");
    assert_eq!(with(|f| f.settings["betas"] = json!([0.1])), "setting betas [0.1,1.0] -> [0.1]");
    assert_eq!(with(|f| f.settings["new"] = json!(true)), "setting new is new (true)");
    assert_eq!(
        with(|f| f.settings = json!({ "noise": 0.2, "betas": [0.1, 1.0] })),
        "setting starts is gone (was {\"random\":100,\"seed\":9})"
    );
    assert_eq!(
        with(|f| drop(f.data.insert("mnist".into(), "ffff".into()))),
        "checksum of data set mnist aaaabbbb -> ffff"
    );
    assert_eq!(with(|f| drop(f.data.remove("fashion"))), "data set fashion is no longer read");
    assert_eq!(with(|f| drop(f.data.insert("cifar".into(), "1".into()))), "data set cifar is new");
    assert_eq!(
        with(|f| {
            f.version = 3;
            f.settings["noise"] = json!(0.5);
        }),
        "code version 1 -> 3; setting noise 0.2 -> 0.5"
    );

    // The record: edited, damaged, missing.
    let text = fs::read_to_string(store.record_path()).unwrap();
    fs::write(store.record_path(), text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(why(&fingerprint()).contains("load.json was edited"), "{}", why(&fingerprint()));
    fs::write(store.record_path(), &text[..text.len() / 2]).unwrap();
    assert!(why(&fingerprint()).contains("load.json is damaged"));
    fs::remove_file(store.record_path()).unwrap();
    assert!(why(&fingerprint()).contains("load.json is missing"));
    fs::write(store.record_path(), &text).unwrap();
    assert!(matches!(store.load(&fingerprint()).unwrap(), Outcome::Fits(_)));

    // The table: one byte changed, truncated, from another run, missing.
    let bytes = fs::read(store.table_path()).unwrap();
    let mut edited = bytes.clone();
    edited[bytes.len() / 2] ^= 1;
    fs::write(store.table_path(), &edited).unwrap();
    assert_eq!(why(&fingerprint()), "load.parquet is not the table that load.json records");
    fs::write(store.table_path(), &bytes[..10]).unwrap();
    assert!(why(&fingerprint()).contains("load.parquet is not the table"));
    write_parquet(&store.table_path(), &frame("x", vec![integers("a", vec![1])]).unwrap()).unwrap();
    assert!(why(&fingerprint()).contains("load.parquet is not the table"));
    fs::remove_file(store.table_path()).unwrap();
    assert_eq!(why(&fingerprint()), "load.parquet is missing");
}

#[test]
fn a_result_is_computed_once_and_this_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::at(folder.path());
    let store = Stored::committed(&layout, "load");
    let runs = Cell::new(0);
    let recall = |f: &Fingerprint, recompute: bool| {
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let frame = recall_or_compute::<TableError>(&store, f, recompute, &mut say, || {
            runs.set(runs.get() + 1);
            Ok(sample())
        })
        .unwrap();
        assert_eq!(frame, sample());
        assert_eq!(said.len(), 1);
        said.remove(0)
    };
    let first = recall(&fingerprint(), false);
    assert!(
        first.starts_with("computed data/results/load.parquet in ")
            && first.ends_with("there was no stored result"),
        "{first}"
    );
    let second = recall(&fingerprint(), false);
    assert_eq!(
        second,
        format!("read from data/results/load.parquet, fingerprint {} fits", fingerprint().short())
    );
    assert_eq!(runs.get(), 1);
    assert!(recall(&fingerprint(), true).ends_with("recomputing was asked for"));
    let mut changed = fingerprint();
    changed.version = 2;
    assert!(recall(&changed, false).ends_with("stale because code version 1 -> 2"));
    assert!(recall(&changed, false).starts_with("read from"));
    assert_eq!(runs.get(), 3);

    let failed = recall_or_compute::<TableError>(&store, &fingerprint(), false, &mut |_| (), || {
        Err(TableError::NoColumn { name: "x".into(), have: String::new() })
    });
    assert!(matches!(failed, Err(TableError::NoColumn { .. })));
    assert!(matches!(store.load(&changed).unwrap(), Outcome::Fits(_)), "a failed run leaves the old result");
}
