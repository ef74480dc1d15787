//! Standard output that is closed or full: no command panics, and none stops before its work is done.

use std::fs::File;
use std::process::{Command, Output};

use crate::common::{Folder, program};

/// Commands that print without long work.
const CALLS: [&[&str]; 5] = [
    &["arch", "--arch", "mlp", "--size", "7"],
    &["arch", "--arch", "mlp", "--size", "7", "--json"],
    &["data", "list"],
    &["sweep", "--plan", "mnist-mlp", "--dry-run", "--runs", "RUNS"],
    &["toy", "--help"],
];

fn each(mut with: impl FnMut(&mut Command) -> Output, check: impl Fn(&str, &Output, &str)) {
    let folder = Folder::new();
    let runs = folder.at("runs");
    for call in CALLS {
        let call: Vec<&str> = call.iter().map(|word| if *word == "RUNS" { &runs } else { *word }).collect();
        let output = with(&mut program(&call));
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(!said.contains("panicked") && said.lines().count() <= 1, "{call:?}: {said}");
        check(call[0], &output, &said);
    }
}

#[test]
fn a_closed_pipe_ends_no_command() {
    let closed = |command: &mut Command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer).output().unwrap()
    };
    each(closed, |name, output, said| assert!(output.status.success() && said.is_empty(), "{name}: {said}"));
}

#[test]
fn a_full_output_is_one_line() {
    let full = |command: &mut Command| command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
    each(full, |name, output, said| {
        // Help is printed by clap, which says nothing.
        if name != "toy" {
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains("standard output") && said.contains("No space left"), "{name}: {said}");
        }
    });
}
