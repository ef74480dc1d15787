//! `mem2gen data` and `mem2gen doctor`, as a user calls them, in a project of their own.

use std::fs;
use std::path::Path;

use crate::common::{Said, program, said};

fn mem2gen(root: &Path, arguments: &[&str]) -> Said {
    said(program(arguments).env("MEM2GEN_ROOT", root).env_remove("MEM2GEN_DATA"))
}

#[track_caller]
fn refused(root: &Path, arguments: &[&str], words: &[&str]) {
    let Said { ok, stderr: said, .. } = mem2gen(root, arguments);
    assert!(!ok, "{arguments:?} went well");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn the_list_shows_the_registry() {
    let root = tempfile::tempdir().unwrap();
    let Said { ok, stdout: table, .. } = mem2gen(root.path(), &["data", "list"]);
    assert!(ok);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 8, "{table}");
    assert_eq!(lines[1][..7], ["mnist", "60000", "10000", "28x28x1", "l2", "4000", "32000"]);
    assert_eq!(lines[4][..7], ["lsun-church", "126227", "-", "64x64x3", "lpips-alex", "2000", "16000"]);
    assert_eq!(lines[5][..7], ["emoji", "10770", "-", "32x32x3", "l2", "-", "-"]);
    assert_eq!([lines[6][0], lines[7][0]], ["lpips-weights", "minilm"]);
    assert!(lines[1..].iter().all(|line| line.last() == Some(&"absent")), "{table}");
}

#[test]
fn mistakes_are_named_in_one_line() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    refused(root, &["data", "fetch", "minst"], &["minst", "fashion-mnist", "emoji", "minilm"]);
    refused(root, &["data", "fetch", "cifar10"], &["cifar10", "--from DIR", "test_batch.bin"]);
    refused(root, &["data", "fetch", "--from", "x"], &["--from", "one name"]);
    refused(root, &["data", "fetch", "mnist", "cifar10", "--from", "x"], &["--from", "2"]);
    refused(root, &["data", "fetch", "mnist", "--from", "/no/such/folder"], &["mnist", "/no/such/folder"]);
    refused(
        root,
        &["data", "fetch", "lpips-weights", "--from", "/no/such"],
        &["lpips-weights", "alexnet.ckpt"],
    );
    refused(root, &["data", "fetch", "minilm", "--from", "/no/such"], &["minilm", "model.safetensors"]);
    refused(root, &["data", "fetch", "emoji", "--from", "/no/such"], &["emoji", "noto/icons.json"]);
    refused(root, &["data", "embed", "--out", "x"], &["mem2gen data fetch emoji"]);
    refused(root, &["data", "verify"], &["data fetch"]);
    refused(root, &["data", "verify", "lpips-weights"], &["data fetch lpips-weights"]);
    refused(root, &["data", "verify", "mnist"], &["mnist", "data fetch mnist"]);
}

#[test]
fn damage_is_listed_and_fails_a_verification() {
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("data/cache/mnist");
    fs::create_dir_all(&cache).unwrap();
    let manifest = r#"{"format": 1, "name": "mnist", "source": "a test", "splits": {}}"#;
    fs::write(cache.join("manifest.json"), manifest).unwrap();
    fs::write(cache.join("train-images-idx3-ubyte"), [0, 0, 8, 3, 0, 0, 234, 96, 0, 0, 0, 28]).unwrap();
    refused(root.path(), &["data", "verify"], &["train-images-idx3-ubyte", "truncated", "12 bytes"]);
    let Said { ok, stdout: table, .. } = mem2gen(root.path(), &["data", "list"]);
    assert!(ok && table.contains("damaged (read "), "{table}");
}

#[test]
fn a_folder_of_images_is_fetched_listed_and_verified() {
    let root = tempfile::tempdir().unwrap();
    let mine = root.path().join("mine");
    fs::create_dir_all(&mine).unwrap();
    for name in ["1.png", "2.png"] {
        image::RgbImage::from_pixel(70, 80, image::Rgb([1, 2, 3])).save(mine.join(name)).unwrap();
    }
    let Said { ok, stdout: said, .. } =
        mem2gen(root.path(), &["data", "fetch", "lsun-church", "--from", mine.to_str().unwrap()]);
    assert!(ok && said.contains("lsun-church: fetched") && said.contains("2 images"), "{said}");
    let Said { ok, stdout: said, .. } = mem2gen(root.path(), &["data", "verify"]);
    assert!(ok && said.contains("lsun-church: complete"), "{said}");
    let Said { stdout: table, .. } = mem2gen(root.path(), &["data", "list"]);
    assert!(table.contains("present (2 of 126227 images)"), "{table}");
}

#[test]
fn the_doctor_names_missing_parts_and_the_commands_that_install_them() {
    let root = tempfile::tempdir().unwrap();
    let Said { ok, stdout: table, stderr: said, .. } = mem2gen(root.path(), &["doctor"]);
    assert!(!ok);
    for need in ["evcxr kernel", "kernelspec", "Jupyter", "data mnist", "data fashion-mnist"] {
        assert!(said.contains(need), "{need}: {said}");
        let line = table.lines().find(|line| line.starts_with(need)).unwrap();
        assert!(line.contains("missing"), "{line}");
    }
    assert!(table.contains("mem2gen data fetch fashion-mnist"), "{table}");
    // Parts that never fail, and parts that this test itself needs.
    for fine in ["GPU", "NVRTC", "cifar10", "lsun-church", "emoji", "BLAS", "Rust"] {
        assert!(table.contains(fine) && !said.contains(fine), "{fine}: {said}");
    }
    let blas = table.lines().find(|line| line.starts_with("BLAS")).unwrap();
    assert!(blas.contains("ok") && blas.contains("eigenvalues right"), "{blas}");
}
