//! Signals, limits and rights: what a stopped call leaves behind.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Dice, Folder, program};
use mem2gen::train::{Kind, RunDir};

/// All files and folders below a folder.
fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all
}

/// Training of a small network on four points, with a checkpoint every 20 steps.
fn training<'a>(run: &'a str, steps: &'a str) -> Vec<&'a str> {
    let small = ["--dataset", "toy", "--k", "4", "--width", "16", "--batch", "4", "--checkpoint-every", "20"];
    [&["train", "--run", run, "--steps", steps], &small[..]].concat()
}

/// A call through a shell that sets a limit first.
fn limited(limit: &str, arguments: &[&str]) -> Command {
    let call = program(arguments);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{limit}; exec \"$0\" \"$@\"")).arg(call.get_program()).args(call.get_args());
    shell
}

#[test]
fn a_stopped_training_leaves_no_temporary_file_and_goes_on() {
    for (signal, name, code) in [("INT", "SIGINT", 130), ("TERM", "SIGTERM", 143)] {
        let folder = Folder::new();
        let run = folder.at("run");
        let train = training(&run, "1000000");
        let mut child = program(&train).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while fs::read_dir(folder.path("run/checkpoints")).map_or(0, Iterator::count) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint was written");
            sleep(Duration::from_millis(20));
        }
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains(name) && said.contains("the same call goes on"),
            "{said}"
        );
        let left = below(&folder.path(""));
        assert!(
            !left.iter().any(|p| p.file_name().unwrap().to_string_lossy().starts_with(".mem2gen-")),
            "{left:?}"
        );
    }
}

#[test]
fn a_training_that_is_stopped_before_its_first_checkpoint_loses_no_step() {
    let folder = Folder::new();
    let begin = |run: &str| {
        let run = folder.at(run);
        let small = ["--dataset", "toy", "--k", "4", "--width", "16", "--batch", "4"];
        let words =
            [&["train", "--run", &run, "--steps", "1000000", "--checkpoint-every", "1000000"], &small[..]];
        words.concat().into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let words = begin("run");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = program(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !folder.path("run/config.json").is_file() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no run was begun");
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(300));
    assert!(!folder.path("run/checkpoints").exists());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{said}");
    let step = said.split_once("the checkpoint of step ").and_then(|(_, rest)| rest.split_once(' '));
    let step: u64 = step.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
    assert!(
        step > 0 && said.lines().count() == 1 && said.contains("the same call goes on from there"),
        "{said}"
    );
    let weights = |run: &str| RunDir::open(&folder.path(run)).unwrap().weights(Kind::Raw).unwrap();
    assert_eq!(weights("run").1, step);

    // The stopped run and an undisturbed one have the same weights later on.
    let until = (step + 10).to_string();
    for run in ["run", "whole"] {
        let words = begin(run);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--until", &until]).collect();
        folder.runs(&words);
    }
    assert_eq!(weights("run").1, step + 10);
    assert_eq!(weights("run"), weights("whole"));
}

#[test]
fn a_file_beyond_the_limit_is_an_error_of_one_line() {
    let folder = Folder::new();
    let rows = Dice::new(1).cloud(3000, 8, 1.0, 0.0).mapv(|v| v as f32);
    let (rows, out) = (folder.array("D.npy", &rows), folder.at("S.npy"));
    let call = ["score", "--memories", &rows, "--queries", &rows, "--sigma", "1", "--out", &out];
    let said = crate::common::said(&mut limited("ulimit -f 16", &call));
    assert!(!said.ok && said.stderr.lines().count() == 1, "{} {}", said.stdout, said.stderr);
    assert!(said.stderr.contains("S.npy") && said.stderr.contains("arge"), "{}", said.stderr);
    assert_eq!(below(&folder.path("")).len(), 1);
}

#[test]
fn no_file_has_more_rights_than_0644_and_no_folder_more_than_0755() {
    let folder = Folder::new();
    let run = folder.at("run");
    let call = training(&run, "40");
    let said = crate::common::said(&mut limited("umask 000", &call));
    assert!(said.ok, "{}", said.stderr);
    for path in below(&folder.path("run")).into_iter().chain([folder.path("run")]) {
        let most = if path.is_dir() { 0o755 } else { 0o644 };
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !most, 0, "{} has {mode:o}", path.display());
    }
}

#[test]
fn counts_beyond_the_machine_are_refused_before_memory_is_taken() {
    let folder = Folder::new();
    let (run, out) = (folder.toy_run("run", "4", "vp"), folder.at("T.parquet"));
    let basin = ["basin", "--run", &run, "--class", "training", "--delta", "0.05", "--out", &out];
    let refuses = |more: &[&str], words: &[&str]| folder.refuses(&[&basin[..], more].concat(), words);
    refuses(&["--perturbations", "1000000000000"], &["perturbations is 1000000000000", "bytes", "are left"]);
    refuses(&["--batch", "18446744073709551615"], &["--batch", "expected 1 to 1048576"]);
    let (samples, many) = (folder.at("S.npy"), "18446744073709551615");
    let sample = ["sample", "--run", &run, "-n", "4", "--out", &samples];
    for (option, words) in [("--steps", "expected 1 to 1000"), ("--batch", "expected 1 to 1048576")] {
        folder.refuses(&[&sample[..], &[option, many]].concat(), &[many, words]);
    }
    let sample = ["sample", "--run", &run, "-n", "1000000000000", "--out", &samples];
    folder.refuses(&sample, &["write ", "S.npy", " bytes of the disk, ", "draw fewer"]);
    let said = crate::common::said(
        program(&["toy", "--points", "4", "--out", &out]).env("RAYON_NUM_THREADS", "100000"),
    );
    assert!(said.code == Some(2) && said.stderr.contains("RAYON_NUM_THREADS is '100000'"), "{}", said.stderr);
}

#[test]
fn memory_that_runs_out_is_one_line_and_no_exit_hangs() {
    let folder = Folder::new();
    let out = folder.at("run");
    // OpenBLAS can't start its threads under the first limit.
    let mut small = limited("ulimit -v 150000", &["arch", "--arch", "mlp", "--size", "8"]);
    let mut child = small.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the program does not end");
        }
        sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    let train = [
        "train",
        "--run",
        &out,
        "--dataset",
        "toy",
        "--k",
        "4",
        "--arch",
        "mlp",
        "--width",
        "6000",
        "--batch",
        "4",
    ];
    let said = crate::common::said(&mut limited("ulimit -v 800000", &train));
    let line = "mem2gen train: out of memory: ";
    assert!(said.code == Some(1) && said.stderr.starts_with(line), "{:?}: {}", said.code, said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    let temporary = |path: &Path| path.to_string_lossy().contains(".mem2gen");
    assert!(!below(&folder.path("")).iter().any(|path| temporary(path)), "a temporary file is left");
}

#[test]
fn a_dash_is_standard_output() {
    let folder = Folder::new();
    let rows = folder.array("D.npy", &Dice::new(1).cloud(5, 2, 1.0, 0.0).mapv(|v| v as f32));
    let out = folder.at("E.npy");
    let energy = ["energy", "--memories", &rows, "--queries", &rows, "--beta", "1", "--out"];
    folder.runs(&[&energy[..], &[&out]].concat());
    let piped = program(&[&energy[..], &["-"]].concat()).output().unwrap();
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(&out).unwrap());
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(said.starts_with("energy: 5 queries, 5 memories, cpu -> -"), "{said}");
    let full = program(&[&energy[..], &["-"]].concat())
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert!(
        full.status.code() == Some(1) && said.starts_with("mem2gen energy: write to standard output: "),
        "{said}"
    );
}

#[test]
fn a_result_that_nobody_reads_does_not_hold_a_signal_up() {
    let folder = Folder::new();
    let rows = folder.array("D.npy", &Dice::new(1).cloud(20_000, 2, 1.0, 0.0).mapv(|v| v as f32));
    let few = folder.array("M.npy", &Dice::new(2).cloud(5, 2, 1.0, 0.0).mapv(|v| v as f32));
    let call = ["energy", "--memories", &few, "--queries", &rows, "--beta", "1", "--out", "-"];
    // A pipe holds 64 KiB of the 160 KB.
    let mut child = program(&call).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "the program does not wait for its reader");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("SIGTERM does not end the program");
        }
        sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(143));
}

#[test]
fn lapack_is_not_begun_without_the_memory_that_it_waits_for() {
    let folder = Folder::new();
    let (rows, out) = (folder.array("D.npy", &Dice::new(1).cloud(5, 2, 1.0, 0.0)), folder.at("T.parquet"));
    let minima = ["minima", "--memories", &rows, "--beta", "2", "--out", &out];
    let said = crate::common::said(&mut limited("ulimit -v 250000", &minima));
    assert!(said.code == Some(1) && said.stderr.contains("LAPACK needs 256 MiB"), "{}", said.stderr);
    // With more it ends.
    let said = crate::common::said(&mut limited("ulimit -v 600000", &minima));
    assert!(said.ok, "{}", said.stderr);
}

#[test]
fn a_link_stays_a_link() {
    let folder = Folder::new();
    let rows = folder.array("D.npy", &Dice::new(1).cloud(5, 2, 1.0, 0.0).mapv(|v| v as f32));
    fs::create_dir(folder.path("there")).unwrap();
    fs::write(folder.path("there/E.npy"), "old").unwrap();
    let out = folder.at("link.npy");
    std::os::unix::fs::symlink(folder.path("there/E.npy"), &out).unwrap();
    let call = ["energy", "--memories", &rows, "--queries", &rows, "--beta", "1", "--out", &out];
    folder.runs(&call);
    assert!(Path::new(&out).is_symlink());
    assert!(fs::read(folder.path("there/E.npy")).unwrap().starts_with(b"\x93NUMPY"));
    fs::remove_file(folder.path("there/E.npy")).unwrap();
    folder.refuses(&call, &["link.npy", "follow the link"]);
}
