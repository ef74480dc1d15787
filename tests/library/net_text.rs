//! Vectors of texts: comparison with transformers, for a small network and for the fetched one.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use mem2gen::data::DataError;
use mem2gen::net::NetError;
use mem2gen::net::text::{Bert, Embeddings, MOST_TOKENS, TextEncoder, dropped};
use mem2gen::project::Layout;
use ndarray::{Array2, array};
use safetensors::SafeTensors;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Tensors and metadata of a file of tests/golden/make_minilm_golden.py.
fn read(name: &str) -> (HashMap<String, Tensor>, HashMap<String, String>) {
    let bytes = fs::read(golden(name)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let told = header.metadata().clone().unwrap();
    (candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(), told)
}

fn tokens(told: &HashMap<String, String>) -> Vec<Vec<u32>> {
    serde_json::from_str(&told["tokens"]).unwrap()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn small() -> (Bert, Vec<Vec<u32>>, Vec<Vec<f32>>) {
    let (mut tensors, told) = read("bert.safetensors");
    let expected = rows(&tensors.remove("expected").unwrap());
    (Bert::new(tensors, 3).unwrap(), tokens(&told), expected)
}

#[test]
fn a_small_network_gives_the_vectors_of_transformers() {
    let (bert, tokens, expected) = small();
    assert_eq!(bert.width(), 24);
    for (tokens, expected) in tokens.iter().zip(&expected) {
        let found = rows(&bert.embed(&[&tokens[..], tokens]).unwrap());
        for row in found {
            let worst = farthest(&row, expected);
            assert!(worst < 1e-6, "{tokens:?}: {worst:e}");
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let said = |change: &dyn Fn(&mut HashMap<String, Tensor>), heads| {
        let (mut tensors, _) = read("bert.safetensors");
        tensors.remove("expected");
        change(&mut tensors);
        Bert::new(tensors, heads).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(said(&|_| {}, 5).contains("divisor of the width 24"));
    let key = "encoder.layer.1.attention.self.key.bias";
    let text = said(&|tensors| drop(tensors.remove(key)), 3);
    assert!(text.contains(key) && text.contains("missing"), "{text}");
    let short = Tensor::zeros(23, candle_core::DType::F32, &Device::Cpu).unwrap();
    let text = said(&|tensors| drop(tensors.insert(key.into(), short.clone())), 3);
    assert!(text.contains(key) && text.contains("[23], expected [24]"), "{text}");
    let text = said(&|tensors| drop(tensors.insert("decoder.bias".into(), short.clone())), 3);
    assert!(text.contains("decoder.bias") && text.contains("1 unknown"), "{text}");
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let (bert, ..) = small();
    let said = |texts: &[&[u32]]| bert.embed(texts).unwrap_err().to_string();
    assert!(said(&[]).contains("0 tokens, expected 1 to 12"));
    assert!(said(&[&[]]).contains("0 tokens, expected 1 to 12"));
    assert!(said(&[&[1; 13]]).contains("13 tokens, expected 1 to 12"));
    assert!(said(&[&[1, 2], &[1]]).contains("2 and 1 tokens"));
    assert!(matches!(bert.embed(&[&[40]]), Err(NetError::Candle(_))));
}

/// Runs `test` if the weights are in the cache, else prints a line that the test harness does not hide.
fn with_encoder(test: impl FnOnce(&Layout, TextEncoder)) {
    let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
    match TextEncoder::load(&layout) {
        Ok(encoder) => test(&layout, encoder),
        Err(NetError::Data(DataError::Absent { .. })) => {
            let line = format!("SKIPPED: minilm is not in {}\n", layout.data_cache().display());
            // The harness hides the output of a passing test, except this line.
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(damage) => panic!("{damage}"),
    }
}

#[test]
fn the_fetched_network_gives_the_tokens_and_vectors_of_transformers() {
    with_encoder(|_, encoder| {
        let (tensors, told) = read("minilm.safetensors");
        let texts: Vec<String> = serde_json::from_str(&told["texts"]).unwrap();
        for (text, expected) in texts.iter().zip(tokens(&told)) {
            let found = encoder.tokens(text).unwrap();
            assert!(found.len() <= MOST_TOKENS);
            assert_eq!(found, expected, "{text}");
        }
        let found = encoder.encode(&texts).unwrap();
        let expected = rows(&tensors["embeddings"]);
        assert_eq!(found.dim(), (expected.len(), 384));
        let mut worst = 0f32;
        for ((text, row), expected) in texts.iter().zip(found.rows()).zip(&expected) {
            let off = farthest(row.as_slice().unwrap(), expected);
            assert!(off < 1e-6, "{text}: {off:e}");
            worst = worst.max(off);
        }
        println!("{} texts: at most {worst:e} off", texts.len());
    });
}

#[test]
fn tokens_that_do_not_fit_are_counted() {
    with_encoder(|layout, encoder| {
        let one = encoder.tokens("pear").unwrap().len() - 2;
        for words in [1, 127, 254 / one, 254 / one + 1, 300, 600] {
            let text = "pear ".repeat(words);
            let due = (words * one + 2).saturating_sub(MOST_TOKENS);
            assert_eq!(dropped(layout, &text).unwrap(), due, "{words}");
        }
    });
    // A short text needs no file.
    assert_eq!(dropped(&Layout::at("nowhere"), &"a".repeat(254)).unwrap(), 0);
}

#[test]
fn meaning_is_near() {
    with_encoder(|_, encoder| {
        let rows = encoder.encode(&["red apple", "an apple that is red", "police car"]).unwrap();
        let cosine = |a: usize, b: usize| rows.row(a).dot(&rows.row(b));
        assert!((cosine(0, 0) - 1.0).abs() < 1e-6);
        assert!(cosine(0, 1) > 0.8 && cosine(0, 2) < 0.4, "{} {}", cosine(0, 1), cosine(0, 2));
    });
}

#[test]
fn the_committed_vectors_are_those_of_the_encoder() {
    with_encoder(|layout, encoder| {
        let stored = Embeddings::of_emoji(layout).unwrap();
        let some: Vec<&String> = stored.captions().iter().step_by(40).collect();
        assert!(some.len() > 40);
        for (caption, row) in some.iter().zip(encoder.encode(&some).unwrap().rows()) {
            let off = farthest(stored.find(caption).unwrap().to_slice().unwrap(), row.as_slice().unwrap());
            // Half a step of f16 below 0.5.
            assert!(off < 2f32.powi(-13) + 1e-6, "{caption}: {off:e}");
        }
    });
}

#[test]
fn the_committed_vectors_are_unit_vectors() {
    let stored = Embeddings::of_emoji(&Layout::at(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(stored.rows().dim(), (stored.captions().len(), 384));
    assert!(stored.captions().len() > 1900);
    for (caption, row) in stored.captions().iter().zip(stored.rows().rows()) {
        assert!((row.dot(&row) - 1.0).abs() < 1e-3, "{caption}");
    }
    let cosine = |a, b| stored.find(a).unwrap().dot(&stored.find(b).unwrap());
    assert!(
        cosine("grinning face", "grinning face with big eyes") > cosine("grinning face", "police car") + 0.3
    );
}

#[test]
fn stored_vectors_come_back_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("captions.safetensors");
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let rows = array![[0.1, -0.7], [1.0, 0.0]];
    let made = Embeddings::new(names(&["piñata \"x\"", "b"]), rows.clone()).unwrap();
    assert!((made.rows()[[0, 0]] - 0.1).abs() < 1e-4 && made.rows()[[0, 0]] != 0.1);
    made.write(&path).unwrap();
    assert_eq!(Embeddings::read(&path).unwrap(), made);

    let said = made.find("c").unwrap_err().to_string();
    assert!(said.contains("'c'") && said.contains("no stored vector"), "{said}");
    let twice = Embeddings::new(names(&["a", "a"]), rows.clone()).unwrap_err();
    assert!(matches!(twice, NetError::Caption { .. }), "{twice}");
    let three = Embeddings::new(names(&["a", "b", "c"]), rows).unwrap_err();
    assert!(matches!(three, NetError::Length { found: 3, expected: 2, .. }), "{three}");

    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(Embeddings::read(&path), Err(NetError::Weights { .. })));
    let other = Embeddings::read(&golden("mlp.safetensors")).unwrap_err().to_string();
    assert!(other.contains("no list of captions"), "{other}");
    let empty = Embeddings::new(vec![], Array2::zeros((0, 2))).unwrap();
    assert_eq!(empty.captions().len(), 0);
}
