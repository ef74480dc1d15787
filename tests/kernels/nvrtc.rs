//! Compiling the kernels with NVRTC and keeping what it made. Needs NVRTC and no device; where there is none
//! the tests say so and pass.

use std::fs;
use std::path::PathBuf;

use mem2gen::ops::cuda::compile::{Origin, build};
use mem2gen::ops::cuda::nvrtc::{Nvrtc, Target};
use mem2gen::ops::cuda::sources::{MODULES, Module};

fn nvrtc() -> Option<&'static Nvrtc> {
    Nvrtc::find().inspect_err(|why| eprintln!("skipped, there is no NVRTC: {why}")).ok()
}

fn compiled(nvrtc: &Nvrtc) -> Origin {
    let (major, minor) = nvrtc.numbers();
    Origin::Nvrtc(major, minor)
}

fn kept(nvrtc: &Nvrtc) -> Origin {
    let (major, minor) = nvrtc.numbers();
    assert_eq!(Origin::Cache(major, minor).to_string(), format!("cache of NVRTC {}", nvrtc.version()));
    Origin::Cache(major, minor)
}

/// The one file in a cache.
fn only(folder: &tempfile::TempDir) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    file.clone()
}

#[test]
fn every_source_compiles_without_a_warning() {
    let Some(nvrtc) = nvrtc() else { return };
    for module in MODULES {
        for capability in [80, 90] {
            assert_eq!(nvrtc.target(capability), Some(Target::Cubin(capability)));
            let built = build(module, capability, Some(nvrtc), None);
            assert_eq!((built.origin, built.log.as_str()), (compiled(nvrtc), ""), "{}", module.name);
            assert!(built.image.starts_with(b"\x7fELF"), "{}", module.name);
        }
    }
}

#[test]
fn a_device_that_no_compiler_knows_yet_gets_ptx() {
    let Some(nvrtc) = nvrtc() else { return };
    let built = build(&MODULES[0], 9999, Some(nvrtc), None);
    let text = String::from_utf8(built.image).unwrap();
    assert!(text.ends_with('\0') && text.contains(".target sm_"));
    for kernel in MODULES[0].kernels {
        assert!(text.contains(&format!(".entry {kernel}(")), "{kernel}");
    }
}

#[test]
fn a_kept_image_is_used_and_a_damaged_one_is_made_again() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let make = |module, capability| build(module, capability, Some(nvrtc), Some(folder.path()));
    let first = make(&MODULES[0], 80);
    assert_eq!(first.origin, compiled(nvrtc));
    let file = only(&folder);
    let whole = fs::read(&file).unwrap();
    let again = make(&MODULES[0], 80);
    assert_eq!((again.origin, &again.image), (kept(nvrtc), &first.image));

    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&whole[..whole.len() / 2], &whole[..10], b"", b"something else", &flipped] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(make(&MODULES[0], 80).origin, compiled(nvrtc));
        assert_eq!(make(&MODULES[0], 80).origin, kept(nvrtc));
    }

    // Another device, and another text, are other files.
    assert_eq!(make(&MODULES[0], 90).origin, compiled(nvrtc));
    let edited = Module { text: "#include \"port.cuh\"\n// edited\n", ..MODULES[0] };
    assert_eq!(make(&edited, 80).origin, compiled(nvrtc));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder would be, which refuses the superuser as well.
    let path = folder.path().join("cache");
    fs::write(&path, "").unwrap();
    assert_eq!(build(&MODULES[0], 80, Some(nvrtc), Some(&path)).origin, compiled(nvrtc));
}

#[test]
fn where_nvrtc_fails_the_ptx_of_the_release_is_taken() {
    let Some(nvrtc) = nvrtc() else { return };
    let broken =
        Module { name: "broken", text: "#include \"port.cuh\"\nint f() { return g(); }\n", ..MODULES[0] };
    let folder = tempfile::tempdir().unwrap();
    let built = build(&broken, 80, Some(nvrtc), Some(folder.path()));
    assert_eq!(built.origin, Origin::Release);
    assert_eq!(built.image, build(&MODULES[0], 80, None, None).image);
    let log = built.log;
    assert!(log.contains("broken.cu(") && log.contains("\"g\" is undefined"), "{log}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "it was kept");
}

#[test]
fn without_nvrtc_the_ptx_of_the_release_is_taken() {
    for module in MODULES {
        let built = build(module, 90, None, None);
        assert_eq!(built.origin, Origin::Release);
        let text = String::from_utf8(built.image).unwrap();
        assert!(text.ends_with('\0'));
        for kernel in module.kernels {
            assert!(text.contains(&format!(".entry {kernel}(")), "{kernel}");
        }
    }
}
