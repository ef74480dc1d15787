//! A training run that was killed at any moment resumes and ends with the weights of an uninterrupted run, to the bit.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Dice, Folder, Running, mem2gen};

/// The call that trains in a folder: K = 9 and batches of 4, so that epochs and intervals end at different steps.
fn call<'a>(run: &'a str, width: &'a str, steps: &'a str, every: &'a str) -> Vec<&'a str> {
    let fixed =
        ["train", "--dataset", "toy", "--k", "9", "--profile", "paper", "--batch", "4", "--seed", "5"];
    let given = ["--run", run, "--width", width, "--steps", steps, "--checkpoint-every", every];
    [&fixed[..], &given[..]].concat()
}

/// Kills a process this many milliseconds after its run has a checkpoint, and returns whether it was still running.
fn kill_after(mut process: Running, run: &Path, milliseconds: u64) -> bool {
    let began = Instant::now();
    let written = || fs::read_dir(run.join("checkpoints")).is_ok_and(|mut files| files.next().is_some());
    while !written() && process.0.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(milliseconds));
    process.0.try_wait().unwrap().is_none()
}

fn halves(run: &Path) -> usize {
    let names = fs::read_dir(run.join("checkpoints")).into_iter().flatten().map(|e| e.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".mem2gen-")).count()
}

#[track_caller]
fn same_end(whole: &Path, other: &Path) {
    for file in ["ema.safetensors", "weights.safetensors"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(other.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn killed_at_random_moments_it_ends_in_the_same_weights() {
    let folder = Folder::new();
    let (whole, pieces) = (folder.path("whole"), folder.path("pieces"));
    let (at_whole, at_pieces) = (folder.at("whole"), folder.at("pieces"));
    let all = |run| call(run, "64", "700", "30");
    folder.runs(&all(&at_whole));
    let mut dice = Dice::new(7);
    let mut kills = 0;
    for _ in 0..6 {
        let delay = dice.word() % 60;
        kills += usize::from(kill_after(Running::start(&all(&at_pieces)), &pieces, delay));
    }
    assert!(kills >= 2, "the run ended before it was killed: {kills}");
    folder.runs(&all(&at_pieces));
    same_end(&whole, &pieces);
    assert_eq!(halves(&pieces), 0, "remains of a killed writer exist");
}

#[test]
fn killed_while_it_writes_it_ends_in_the_same_weights() {
    let folder = Folder::new();
    let (whole, pieces) = (folder.path("whole"), folder.path("pieces"));
    let (at_whole, at_pieces) = (folder.at("whole"), folder.at("pieces"));
    // A checkpoint of megabytes after every step: nearly all the time is spent in writing.
    let all = |run| call(run, "128", "30", "1");
    folder.runs(&all(&at_whole));
    let mut dice = Dice::new(8);
    let mut torn = 0;
    for _ in 0..10 {
        if !kill_after(Running::start(&all(&at_pieces)), &pieces, dice.word() % 40) {
            break;
        }
        torn += halves(&pieces);
    }
    assert!(torn > 0, "no kill happened during a write");
    folder.runs(&all(&at_pieces));
    same_end(&whole, &pieces);
    assert_eq!(halves(&pieces), 0);
}

#[test]
fn a_damaged_newest_checkpoint_is_named_and_the_previous_one_is_used() {
    let folder = Folder::new();
    let (whole, pieces) = (folder.path("whole"), folder.path("pieces"));
    let (at_whole, at_pieces) = (folder.at("whole"), folder.at("pieces"));
    let all = |run| call(run, "16", "50", "20");
    folder.runs(&all(&at_whole));
    folder.runs(&all(&at_pieces));
    // As if the run had been stopped after step 40 and the checkpoint of step 40 had been cut.
    let last = pieces.join("checkpoints/step-0000000050.checkpoint");
    let cut = pieces.join("checkpoints/step-0000000040.checkpoint");
    fs::remove_file(pieces.join("manifest.json")).unwrap();
    fs::write(&last, &fs::read(&last).unwrap()[..3000]).unwrap();
    for file in ["ema.safetensors", "weights.safetensors", "metrics.parquet"] {
        fs::remove_file(pieces.join(file)).unwrap();
    }
    let said = mem2gen(&all(&at_pieces));
    assert!(said.ok, "{}", said.stderr);
    assert!(
        said.stderr.contains("step-0000000050.checkpoint") && said.stderr.contains("truncated"),
        "{}",
        said.stderr
    );
    assert!(said.stdout.contains("resumed at 40"), "{}", said.stdout);
    same_end(&whole, &pieces);

    // No intact checkpoint is left: the run starts again and prints the reason.
    fs::remove_file(pieces.join("manifest.json")).unwrap();
    for path in [&last, &cut] {
        fs::write(path, b"").unwrap();
    }
    let said = mem2gen(&all(&at_pieces));
    assert!(said.ok && said.stderr.lines().count() == 2, "{}", said.stderr);
    assert!(!said.stdout.contains("from"), "{}", said.stdout);
    same_end(&whole, &pieces);
}

#[test]
fn a_second_process_is_refused() {
    let folder = Folder::new();
    let (run, at) = (folder.path("run"), folder.at("run"));
    let all = call(&at, "64", "1000000", "50");
    let first = Running::start(&all);
    let began = Instant::now();
    while !run.join("config.json").is_file() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(5));
    }
    let said = mem2gen(&all);
    drop(first);
    assert!(!said.ok && said.stdout.is_empty() && said.stderr.lines().count() == 1, "{}", said.stderr);
    assert!(said.stderr.contains("another process") && said.stderr.contains(&at), "{}", said.stderr);
}
