//! `mem2gen claims`: the stored table as text, JSON and Markdown.

use crate::common::Folder;
use mem2gen::frame::fingerprint::{Fingerprint, Stored};
use mem2gen::frame::write_parquet;
use mem2gen::study::claims::frame::claims_frame;
use mem2gen::study::claims::{About, Claim, SizeShare, Verdict};
use polars::prelude::Column;

fn claims() -> Vec<Claim> {
    let about = About { dataset: "mnist", network: "mlp128", command: "mem2gen sweep --plan desk" };
    let share = |k, count| SizeShare { k, count, samples: 512 };
    vec![
        about.spurious_peak(&[share(2, 0), share(64, 200), share(512, 20)]).unwrap(),
        about.noise_flows_elsewhere(&[share(2, 100), share(512, 0)]).unwrap(),
        about.exact_memorizes(&[]).unwrap(),
    ]
}

#[test]
fn the_stored_table_is_printed_in_three_forms() {
    let folder = Folder::new();
    let frame = claims_frame(&claims()).unwrap();
    let inputs = Fingerprint::new("claims", 1, 1.into(), "smoke");
    Stored::new(&folder.path(""), "claims").save(&inputs, &frame, 0.0).unwrap();
    let at = folder.at("claims.parquet");
    let text = folder.runs(&["claims", "--table", &at]);
    for words in ["spurious samples", "0.391 [", "p < 0.0001", "holds", "does not hold here", "not measured"]
    {
        assert!(text.contains(words), "no {words}: {text}");
    }
    let json = folder.runs(&["claims", "--table", &at, "--json"]);
    let back: Vec<Claim> = serde_json::from_str(&json).unwrap();
    assert_eq!(back, claims());
    let verdicts: Vec<Verdict> = back.iter().map(|c| c.verdict).collect();
    assert_eq!(verdicts, [Verdict::Holds, Verdict::DoesNotHold, Verdict::NotMeasured]);
    let markdown = folder.runs(&["claims", "--table", &at, "--markdown"]);
    assert_eq!(markdown.lines().count(), 5 + 1 + 5);
    assert!(markdown.contains("| **not measured** | `mem2gen sweep --plan desk` |"), "{markdown}");

    // Other verdicts in a table that its record does not know.
    let mut other = claims();
    other[1].verdict = Verdict::Holds;
    write_parquet(&folder.path("claims.parquet"), &claims_frame(&other).unwrap()).unwrap();
    folder.refuses(&["claims", "--table", &at], &["claims.parquet", "claims.json records"]);
    // A table of something else, with a record that fits.
    let other = mem2gen::frame::frame("other", vec![Column::new("k".into(), [1i64])]).unwrap();
    Stored::new(&folder.path(""), "other").save(&inputs, &other, 0.0).unwrap();
    let other = folder.at("other.parquet");
    folder.refuses(&["claims", "--table", &other], &["--table", "other.parquet", "no table of claims"]);
    std::fs::remove_file(folder.path("claims.json")).unwrap();
    folder.refuses(&["claims", "--table", &at], &["claims.parquet", "claims.json", "missing"]);
}

#[test]
fn refusals_are_one_line() {
    let folder = Folder::new();
    let none = folder.at("none.parquet");
    folder.refuses(&["claims", "--table", &none], &["none.parquet"]);
    folder.refuses(&["claims", "--table", &none, "--json", "--markdown"], &["--markdown"]);
    std::fs::write(folder.path("bad.parquet"), b"PAR1").unwrap();
    folder.refuses(&["claims", "--table", &folder.at("bad.parquet")], &["bad.parquet"]);
}
