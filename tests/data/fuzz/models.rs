//! Targets of text-to-image models: folders in diffusers' layout, lists of prompts, and icons with captions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mem2gen::Error;
use mem2gen::data::Entry;
use mem2gen::data::emoji::{FILES, Packages, pictures};
use mem2gen::data::registry::Files as Source;
use mem2gen::net::diffusers::{Folder, Tokenizer};
use mem2gen::store::sha256_hex;
use mem2gen::study::prompts::Prompt;

use super::images::Place;
use super::mutate::{changed, changed_text};
use super::records::{Files, changed_file, changed_header, files, one_of, put};
use super::{Case, SMALL, is_clear, peak};
use crate::emoji as emoji_files;

const SHARD: &str = "vae/diffusion_pytorch_model-00001-of-00001.safetensors";
const INDEX: &str = "vae/diffusion_pytorch_model.safetensors.index.json";

/// The small model, with the autoencoder's weights behind an index.
fn model() -> Files {
    let mut files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/diffusers/tiny"));
    let weights = files.remove("vae/diffusion_pytorch_model.safetensors").unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let shard = SHARD.split_once('/').unwrap().1;
    let names: BTreeMap<&str, &str> = tensors.names().into_iter().map(|name| (name, shard)).collect();
    let index = serde_json::to_string_pretty(&serde_json::json!({ "weight_map": names })).unwrap();
    files.insert(INDEX.into(), index.into_bytes());
    files.insert(SHARD.into(), weights);
    files
}

/// Reads the part of a model that a file belongs to, and computes with what was accepted.
fn read_part(folder: &Path, part: &str, dtype: DType, compute: bool) -> Result<(), Error> {
    let cpu = Device::Cpu;
    let zeros = |shape: &[usize]| Tensor::zeros(shape, dtype, &cpu).unwrap();
    let folder = Folder::open(folder)?;
    match part {
        "scheduler" => drop(folder.process()?),
        "tokenizer" => {
            let tokenizer = folder.tokenizer()?;
            let tokens = tokenizer.encode("a red house, don't stop").unwrap();
            assert!(tokens.ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
        }
        "text_encoder" => {
            let clip = folder.text_encoder(dtype, &cpu)?;
            let width = clip.config().width;
            assert_eq!(clip.forward(&[vec![0]]).unwrap().dims(), [1, 1, width]);
        }
        "vae" => {
            let vae = folder.vae(dtype, &cpu)?;
            let config = vae.config();
            let side = 1 << (config.channels.len() - 1);
            if compute {
                let images = vae.decode(&zeros(&[1, config.latent_channels, 1, 1])).unwrap();
                assert_eq!(images.dims(), [1, config.out_channels, side, side]);
            }
        }
        _ => {
            let unet = folder.unet(dtype, &cpu)?;
            let config = unet.config();
            let side = 1 << (config.channels.len() - 1);
            if compute {
                let (latents, text) =
                    (zeros(&[1, config.in_channels, side, side]), zeros(&[1, 2, config.text]));
                let times = Tensor::new(&[3f32], &cpu).unwrap();
                let output = unet.forward(&latents, &times, &text).unwrap();
                assert_eq!(output.dims(), [1, config.out_channels, side, side]);
            }
        }
    }
    Ok(())
}

/// A model of which a file is changed: settings, tensors and their headers, an index, and the tokenizer.
pub fn diffusers() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let folder = place.path("model");
    let good = model();
    put(&folder, &good);
    for part in ["scheduler", "tokenizer", "text_encoder", "vae", "unet"] {
        read_part(&folder, part, DType::F32, true).unwrap();
    }
    let other = good["text_encoder/model.safetensors"].clone();
    move |case| {
        let folder = place.path("model");
        let name = one_of(case, &good);
        let old = &good[&name];
        let new = match &*name {
            _ if name.ends_with(".safetensors") => changed_header(case, old),
            "tokenizer/merges.txt" => {
                changed_text(case, std::str::from_utf8(old).unwrap(), "t h\nq zz\n#version\nin g</w> x")
                    .into_bytes()
            }
            _ => changed_file(case, &name, old, &other),
        };
        case.note(&name, &new);
        let path = folder.join(&name);
        fs::write(&path, &new).unwrap();
        let dtype = if case.one_in(4) { DType::F16 } else { DType::F32 };
        let compute = case.one_in(4);
        let part = name.split('/').next().unwrap();
        let (found, held) = peak(|| read_part(&folder, part, dtype, compute));
        let bytes: usize = good.iter().filter(|(name, _)| name.starts_with(part)).map(|(_, b)| b.len()).sum();
        // Bytes of a tensor beside its values, names and shapes twice, and a pass.
        let most = 16 * (bytes + new.len()) + (8 << 20);
        assert!(held <= most, "{held} bytes held for files of {bytes}");
        fs::write(&path, old).unwrap();
        match found {
            Ok(()) => true,
            Err(e) => {
                is_clear(&e.to_string(), &folder);
                false
            }
        }
    }
}

const LIST: &str = r#"{"caption": "The No Limits Business Woman Podcast", "index": 3, "kind": "memorized", "url": "https://x.org/a.jpg"}
{"prompt": "green heart", "id": "h7", "label": "spurious"}

{"text": "émoji 🍐, don't stop", "width": 512, "aesthetic": 6.5}
{"caption": "a\u0301\ud83c\udf50"}
"#;

/// Lines of odd prompts.
const LINES: &str = "{\"caption\": \"<|endoftext|>\"}\n{\"caption\": \"\\u0000\\u001b[31m\"}\n{\"caption\": \"\\ud800\"}\n\
                     {\"caption\": \"a\", \"index\": 1e999}\n{\"caption\": [[[[[[[[{\n\u{feff}{\"text\": \"\u{130}\u{3a3}\u{1f1e6}\"}\nnull";

/// A list of prompts, and the tokens of what was accepted.
pub fn prompts() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let merges = String::from_utf8(model()["tokenizer/merges.txt"].clone()).unwrap();
    let tokenizer = Tokenizer::from_merges(&merges, 77).unwrap();
    move |case| {
        let bytes = match case.below(3) {
            0 => changed(case, LIST.as_bytes(), LINES.as_bytes()),
            1 => {
                let caption: String = case.value::<Vec<char>>().into_iter().collect();
                serde_json::json!({ "caption": caption, "kind": caption }).to_string().into_bytes()
            }
            _ => changed_text(case, LIST, LINES).into_bytes(),
        };
        case.note("list.jsonl", &bytes);
        let path = place.path("list.jsonl");
        fs::write(&path, &bytes).unwrap();
        let (found, held) = peak(|| Prompt::read(&path));
        assert!(held <= 100 * bytes.len() + SMALL, "{held} bytes held for a list of {}", bytes.len());
        match found {
            Ok(prompts) => {
                let lines = bytes.split(|b| *b == b'\n').count();
                assert!((1..=lines).contains(&prompts.len()));
                for Prompt { caption, index, kind, url } in &prompts {
                    assert!(!caption.is_empty() && caption.trim() == caption);
                    let texts = [index, kind, url].into_iter().flatten();
                    assert!(texts.into_iter().all(|text| !text.contains(char::is_control)));
                    match tokenizer.encode(caption) {
                        Ok(tokens) => {
                            assert_eq!(tokens.ids.len(), 77);
                            assert!(tokens.ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
                        }
                        Err(e) => is_clear(&format!("prompt: {e}"), Path::new("prompt")),
                    }
                }
                true
            }
            Err(e) => {
                is_clear(&e.to_string(), &path);
                false
            }
        }
    }
}

/// Bytes that drawing may hold: icons are of 32x32 pixels, and their trees are small.
const DRAWING: usize = 64 << 20;

/// Names and orders of icons of which a file is changed, and the captions of a fetched data set. The icons' own shapes are not
/// changed: tiny-skia 0.12 ends the process for some paths, so only files with the checksums of the registry are drawn.
pub fn emoji() -> impl FnMut(&mut Case) -> bool + Send {
    let place = Place::new();
    let folder = place.path("packages");
    let mut good = files(&emoji_files::fixture());
    good.retain(|name, _| name.ends_with("json"));
    put(&folder, &good);
    let other = good["@iconify-json/noto/chars.json"].clone();
    good.retain(|name, _| !name.ends_with("icons.json"));
    let fetched = emoji_files::Place::new();
    fetched.fetch(Some(&emoji_files::fixture())).0.unwrap();
    let entry = emoji_files::few();
    let captions = fetched.captions();
    let text = fs::read_to_string(&captions).unwrap();
    move |case| {
        // The whole place, whose folder is removed with it.
        let (folder, fetched) = (place.path("packages"), &fetched);
        if case.one_in(4) {
            let bytes = changed_text(case, &text, "\"tone\":null},\n{\"format\":1\n\"code\":\"\\u0000\"")
                .into_bytes();
            case.note("captions.json", &bytes);
            fs::write(&captions, &bytes).unwrap();
            let fits = case.one_in(2);
            let Source::Emoji { train, captions: name, captions_sha256, packages_sha256 } = entry.files
            else {
                unreachable!()
            };
            let sum: &'static str = if fits { sha256_hex(&bytes).leak() } else { captions_sha256 };
            let entry = Entry {
                files: Source::Emoji { train, captions: name, captions_sha256: sum, packages_sha256 },
                ..entry
            };
            let (found, held) = peak(|| pictures(&fetched.layout, &entry));
            assert!(
                held <= 100 * bytes.len() + (1 << 20),
                "{held} bytes held for captions of {}",
                bytes.len()
            );
            return match found {
                Ok(found) => {
                    assert!(fits || bytes == text.as_bytes(), "changed captions were read");
                    assert!(found.len() <= bytes.len());
                    true
                }
                Err(e) => {
                    is_clear(&e.to_string(), &captions);
                    false
                }
            };
        }
        let name = one_of(case, &good);
        let old = &good[&name];
        let new = changed_file(case, &name, old, &other);
        case.note(&name, &new);
        let path = folder.join(&name);
        fs::write(&path, &new).unwrap();
        // Checksums of the changed files, so that they are parsed; a changed file is refused by that of the registry.
        let sum = sha256_hex(&new);
        let Source::Emoji { packages_sha256, .. } = entry.files else { unreachable!() };
        let refused = Packages::read(&entry, &packages_sha256, &folder);
        assert!(refused.is_err() || &new == old, "a changed file was read");
        let mut sums = packages_sha256;
        let at = FILES.iter().position(|file| *file == name).unwrap();
        sums[at] = &sum;
        let (found, held) = peak(|| Packages::read(&entry, &sums, &folder)?.draw(32, &mut |_| ()));
        assert!(held <= DRAWING, "{held} bytes held for icons");
        fs::write(&path, old).unwrap();
        match found {
            Ok(drawn) => {
                assert_eq!(drawn.images.count, drawn.pictures.len());
                assert_eq!(drawn.images.pixels.len(), 3 * 32 * 32 * drawn.images.count);
                assert!(drawn.pictures.iter().all(|picture| picture.caption.starts_with(&picture.base)));
                true
            }
            Err(e) => {
                is_clear(&e.to_string(), &folder);
                false
            }
        }
    }
}
