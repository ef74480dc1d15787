//! Help texts equal the stored files. `MEM2GEN_UPDATE_SNAPSHOTS=1` writes the files again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::common::mem2gen;

/// Every command, and the file of its help.
const COMMANDS: [&[&str]; 31] = [
    &[],
    &["energy"],
    &["score"],
    &["knn"],
    &["minima"],
    &["classify"],
    &["toy"],
    &["arch"],
    &["train"],
    &["import"],
    &["sample"],
    &["likelihood"],
    &["sweep"],
    &["sweep", "status"],
    &["sweep", "collect"],
    &["sweep", "publish"],
    &["sweep", "plan"],
    &["attractors"],
    &["basin"],
    &["curvature"],
    &["potential"],
    &["prompts"],
    &["prompts", "roc"],
    &["claims"],
    &["data"],
    &["data", "fetch"],
    &["data", "verify"],
    &["data", "export"],
    &["data", "embed"],
    &["data", "list"],
    &["doctor"],
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help")
}

fn file_name(command: &[&str]) -> String {
    format!("{}.txt", [&["mem2gen"], command].concat().join("-"))
}

fn help(command: &[&str]) -> String {
    let said = mem2gen(&[command, &["--help"]].concat());
    assert!(said.ok && said.stderr.is_empty(), "{command:?}: {}", said.stderr);
    // Trailing blanks do not matter, and editors remove them.
    said.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The names under `Commands:` in a help text.
fn listed(help: &str) -> BTreeSet<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_texts_equal_the_stored_files() {
    let update = std::env::var_os("MEM2GEN_UPDATE_SNAPSHOTS").is_some_and(|v| v == "1");
    let mut changed = Vec::new();
    for command in COMMANDS {
        let (now, path) = (help(command), folder().join(file_name(command)));
        if fs::read_to_string(&path).ok().as_deref() == Some(now.as_str()) {
            continue;
        }
        if update {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &now).unwrap();
        } else {
            changed.push(format!("--- {} now says:\n{now}", file_name(command)));
        }
    }
    assert!(
        changed.is_empty(),
        "help texts differ from tests/snapshots/help; if that is meant, run this test once with \
         MEM2GEN_UPDATE_SNAPSHOTS=1 and commit the files\n{}",
        changed.join("\n")
    );
    let on_file: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(on_file, COMMANDS.iter().map(|c| file_name(c)).collect());
}

#[test]
fn every_command_of_the_program_is_known_here() {
    for command in COMMANDS {
        let below = COMMANDS
            .iter()
            .filter(|c| c.len() == command.len() + 1 && c.starts_with(command))
            .filter_map(|c| c.last())
            .map(|name| (*name).to_owned());
        assert_eq!(listed(&help(command)), below.collect(), "{command:?}");
    }
}

#[test]
fn help_fits_into_a_hundred_columns_on_any_terminal() {
    for command in COMMANDS {
        let text = help(command);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[test]
fn a_call_without_a_command_or_with_an_unknown_one_fails() {
    let said = mem2gen(&[]);
    assert!(!said.ok && said.stderr.contains("Usage: mem2gen"), "{}", said.stderr);
    let said = mem2gen(&["enrgy"]);
    assert!(!said.ok && said.stdout.is_empty());
    assert!(said.stderr.lines().count() == 1 && said.stderr.contains("enrgy"), "{}", said.stderr);
    let said = mem2gen(&["--version"]);
    assert_eq!((said.ok, said.stdout), (true, format!("mem2gen {}\n", env!("CARGO_PKG_VERSION"))));
}
