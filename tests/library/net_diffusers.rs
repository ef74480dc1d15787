//! Networks of Stable Diffusion against diffusers and transformers, and damaged folders, with the small models of
//! tests/golden/make_diffusers_golden.py. `MEM2GEN_GOLDEN_DIFFUSERS` names a folder with other models.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flate2::read::GzDecoder;
use mem2gen::device::DeviceChoice;
use mem2gen::net::NetError;
use mem2gen::net::diffusers::{Clip, Folder, Tokenizer, Unet, Vae};
use mem2gen::process::{Process, Spacing, VpSettings};
use mem2gen::progress::Silent;
use mem2gen::random::Streams;
use mem2gen::sample::ddim;
use mem2gen::score::{Guided, Prompted, Score};
use mem2gen::shape::Shape;
use mem2gen::study::curvature::{CurvatureSettings, Points, curvature};
use mem2gen::study::prompts::{DiffusersPrompts, Precision, PromptModel};
use ndarray::{Array2, Axis};
use tempfile::TempDir;

type Tensors = HashMap<String, Tensor>;

const UNETS: [(&str, &str); 2] = [("tiny", "tiny/unet"), ("unet_32", "unet_32")];
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn folder() -> PathBuf {
    match std::env::var_os("MEM2GEN_GOLDEN_DIFFUSERS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/diffusers"),
    }
}

fn load(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Inputs and results of a model.
fn golden(name: &str) -> Tensors {
    load(&folder().join(format!("{name}.safetensors")))
}

fn read_unet(below: &str, dtype: DType) -> Unet {
    Unet::read(&folder().join(below), dtype, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let most = b.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / most
}

fn close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let apart = difference(a, b);
    println!("{what}: {apart:.2e}");
    assert!(apart < tolerance, "{what}: {apart}");
}

/// Latents, times, text and v of a case.
fn inputs(golden: &Tensors, dtype: DType) -> [Tensor; 4] {
    ["latents", "times", "text", "v"].map(|name| match name {
        "times" => golden[name].clone(),
        _ => golden[name].to_dtype(dtype).unwrap(),
    })
}

/// A copy of a folder with changed tensors.
fn changed(from: &Path, file: &str, change: impl FnOnce(&mut Tensors)) -> TempDir {
    let to = TempDir::new().unwrap();
    fs::copy(from.join("config.json"), to.path().join("config.json")).unwrap();
    let mut tensors = load(&from.join(file));
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, to.path().join(file)).unwrap();
    to
}

fn renamed(tensors: &mut Tensors, to: impl Fn(&str) -> String) {
    *tensors = tensors.drain().map(|(name, tensor)| (to(&name), tensor)).collect();
}

#[test]
fn the_u_net_and_its_products_agree_with_diffusers() {
    for (name, below) in UNETS {
        let golden = golden(name);
        // Golden files have f32, the sums behind them are f64 on both sides.
        for (dtype, output_within, product_within) in [(DType::F64, 3e-7, 3e-7), (DType::F32, 1e-5, 1e-4)] {
            let unet = read_unet(below, dtype);
            let [latents, times, text, v] = inputs(&golden, dtype);
            let output = unet.forward(&latents, &times, &text).unwrap();
            close(&format!("{name} {dtype:?} output"), &output, &golden["output"], output_within);
            let (again, product) = unet.vjp(&latents, &times, &text, &v).unwrap();
            // The graph changes no operation.
            assert_eq!(difference(&again, &output), 0.0);
            close(&format!("{name} {dtype:?} product"), &product, &golden["vjp"], product_within);
        }
        let unet = read_unet(below, DType::F16);
        let [latents, times, text, v] = inputs(&golden, DType::F16);
        let output = unet.forward(&latents, &times, &text).unwrap();
        assert_eq!(output.dtype(), DType::F16);
        // 11 bits.
        close(&format!("{name} half output"), &output, &golden["output"], 5e-3);
        let error = unet.vjp(&latents, &times, &text, &v).unwrap_err().to_string();
        assert_eq!(error, "U-Net: f16 has no vector-Jacobian products; read the model in f32");
    }
}

#[test]
fn attention_in_parts_is_attention() {
    for (name, below) in UNETS {
        let golden = golden(name);
        // In f64 both are the same sums. In f32 they differ by rounding, of which the backward pass has twice as much.
        for (dtype, output_within, product_within) in [(DType::F64, 1e-13, 1e-13), (DType::F32, 1e-6, 3e-6)] {
            let mut unet = read_unet(below, dtype);
            let [latents, times, text, v] = inputs(&golden, dtype);
            unet.set_score_bytes(usize::MAX);
            let (whole, product) = unet.vjp(&latents, &times, &text, &v).unwrap();
            // One query, some queries of a head, some heads of a row.
            for bytes in [0, 5000, 60_000] {
                unet.set_score_bytes(bytes);
                let (parts, parts_product) = unet.vjp(&latents, &times, &text, &v).unwrap();
                let what = format!("{name} {dtype:?} {bytes} bytes");
                close(&format!("{what} output"), &parts, &whole, output_within);
                close(&format!("{what} product"), &parts_product, &product, product_within);
            }
        }
    }
}

#[test]
fn rows_have_their_own_times_and_maps_are_probabilities() {
    let golden = golden("tiny");
    let unet = read_unet("tiny/unet", DType::F64);
    let [latents, times, text, _] = inputs(&golden, DType::F64);
    let (output, maps) = unet.forward_with_maps(&latents, &times, &text).unwrap();
    for row in 0..2 {
        let at = |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap();
        let alone = unet.forward(&at(&latents), &at(&times), &at(&text)).unwrap();
        close("a row alone", &alone, &at(&output), 1e-12);
    }
    let found: Vec<_> = maps.iter().map(|map| (map.layer.as_str(), map.height, map.width)).collect();
    let expected = [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2", 8, 12),
        ("mid_block.attentions.0.transformer_blocks.0.attn2", 4, 6),
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn2", 8, 12),
        ("up_blocks.1.attentions.1.transformer_blocks.0.attn2", 8, 12),
    ];
    assert_eq!(found, expected);
    for map in &maps {
        assert_eq!(map.probabilities.dims(), [2, map.height * map.width, 5]);
        let sums = values(&map.probabilities.sum(2).unwrap());
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12));
    }
    // A token whose vector all others share is attended to as they are.
    let same = text.narrow(1, 0, 1).unwrap().broadcast_as(text.shape()).unwrap();
    let (_, maps) = unet.forward_with_maps(&latents, &times, &same).unwrap();
    assert!(values(&maps[0].probabilities).iter().all(|p| (p - 0.2).abs() < 1e-12));
}

#[test]
fn the_autoencoder_agrees_with_diffusers_by_new_and_old_names() {
    let golden = golden("tiny");
    let path = folder().join("tiny/vae");
    let old = changed(&path, WEIGHTS, |tensors| {
        renamed(tensors, |name| {
            let pairs = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
            pairs.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
        });
        assert!(tensors.contains_key("decoder.mid_block.attentions.0.proj_attn.bias"));
    });
    for (path, dtype, within) in
        [(path.as_path(), DType::F64, 3e-7), (&path, DType::F32, 1e-4), (old.path(), DType::F64, 3e-7)]
    {
        let mut vae = Vae::read(path, dtype, &Device::Cpu).unwrap();
        let input = |name: &str| golden[name].to_dtype(dtype).unwrap();
        for bytes in [usize::MAX, 1000] {
            vae.set_score_bytes(bytes);
            let moments = vae.encode(&input("images")).unwrap();
            close(&format!("{dtype:?} mean"), &moments.mean, &golden["mean"], within);
            close(&format!("{dtype:?} logvar"), &moments.logvar, &golden["logvar"], within);
            let decoded = vae.decode(&input("encoded")).unwrap();
            close(&format!("{dtype:?} decoded"), &decoded, &golden["decoded"], within);
        }
        assert_eq!(vae.config().scaling_factor, 0.18215);
        let zeros = |n: &[usize]| Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
        for bad in [&[1, 3, 8, 9][..], &[1, 4, 8, 8], &[3, 8, 8]] {
            assert!(matches!(vae.encode(&zeros(bad)), Err(NetError::Shape { .. })), "{bad:?}");
        }
        for bad in [&[1, 3, 8, 8][..], &[1, 4, 0, 8]] {
            assert!(matches!(vae.decode(&zeros(bad)), Err(NetError::Shape { .. })), "{bad:?}");
        }
    }
}

#[test]
fn the_text_encoder_agrees_with_transformers() {
    let prefixed = changed(&folder().join("text_gelu"), "model.safetensors", |tensors| {
        renamed(tensors, |name| format!("text_model.{name}"));
        let positions = Tensor::new(&[[0i64, 1, 2]], &Device::Cpu).unwrap();
        tensors.insert("text_model.embeddings.position_ids".into(), positions);
    });
    let cases = [
        ("tiny", folder().join("tiny/text_encoder")),
        ("text_gelu", folder().join("text_gelu")),
        ("text_gelu", prefixed.path().to_path_buf()),
    ];
    for (name, path) in &cases {
        let golden = golden(name);
        let ids: Vec<Vec<f32>> = golden["ids"].to_vec2().unwrap();
        let ids: Vec<Vec<u32>> = ids.iter().map(|row| row.iter().map(|id| *id as u32).collect()).collect();
        for (dtype, within) in [(DType::F64, 3e-7), (DType::F32, 1e-4), (DType::F16, 5e-3)] {
            let clip = Clip::read(path, dtype, &Device::Cpu).unwrap();
            close(&format!("{name} {dtype:?}"), &clip.forward(&ids).unwrap(), &golden["hidden"], within);
            // A token does not see those after it.
            let first: Vec<Vec<u32>> = ids.iter().map(|row| row[..4].to_vec()).collect();
            let expected = golden["hidden"].narrow(1, 0, 4).unwrap();
            close(&format!("{name} {dtype:?} start"), &clip.forward(&first).unwrap(), &expected, within);
            for bad in [vec![], vec![vec![]], vec![vec![0; 78]], vec![vec![714]], vec![vec![0], vec![0, 1]]] {
                assert!(matches!(clip.forward(&bad), Err(NetError::Shape { .. })), "{bad:?}");
            }
        }
    }
}

#[test]
fn tokens_of_prompts_are_those_of_transformers() {
    let mut merges = String::new();
    let packed = fs::File::open(folder().join("merges.txt.gz")).unwrap();
    GzDecoder::new(packed).read_to_string(&mut merges).unwrap();
    let tokenizer = Tokenizer::from_merges(&merges, 77).unwrap();
    assert_eq!(tokenizer.vocabulary(), 49408);
    let rows = fs::read(folder().join("prompts.json")).unwrap();
    let rows: Vec<(String, Vec<u32>, usize)> = serde_json::from_slice(&rows).unwrap();
    assert_eq!(rows.len(), 200);
    let mut wrong = Vec::new();
    for (text, mut ids, dropped) in rows {
        ids.resize(77, 49407);
        let found = tokenizer.encode(&text).unwrap();
        if found.ids != ids
            || found.dropped != dropped
            || ids.iter().position(|id| *id == 49407) != Some(found.end)
        {
            wrong.push((text, found, ids, dropped));
        }
    }
    assert!(wrong.is_empty(), "{} {wrong:?}", wrong.len());
    for name in ["<|startoftext|>", "a <|ENDOFTEXT|> b", "<start_of_text>", "<end_of_text>"] {
        assert!(matches!(tokenizer.encode(name), Err(NetError::Prompt { .. })), "{name}");
    }
}

/// A copy of the tokenizer of the small model.
fn tokenizer_folder() -> TempDir {
    let to = TempDir::new().unwrap();
    for name in ["merges.txt", "vocab.json"] {
        fs::copy(folder().join("tiny/tokenizer").join(name), to.path().join(name)).unwrap();
    }
    to
}

#[test]
fn the_padding_of_a_folder_is_that_of_transformers() {
    let rows: serde_json::Value =
        serde_json::from_slice(&fs::read(folder().join("padding.json")).unwrap()).unwrap();
    let cases = rows.as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let to = tokenizer_folder();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            if !case[name].is_null() {
                fs::write(to.path().join(name), case[name].to_string()).unwrap();
            }
        }
        let tokenizer = Tokenizer::read(to.path(), 12).unwrap();
        for text in case["texts"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(text[1].clone()).unwrap();
            let found = tokenizer.encode(text[0].as_str().unwrap()).unwrap();
            assert_eq!(found.ids, ids, "{text} {case}");
            assert_eq!(found.ids[found.end], 713, "{text}");
            assert_eq!(found.dropped as u64, text[2].as_u64().unwrap(), "{text}");
        }
    }
    let to = tokenizer_folder();
    let path = to.path().join("special_tokens_map.json");
    for (text, words) in [
        ("{\"pad_token\": \"<pad>\"}", "pad_token is \"<pad>\", expected \"<|endoftext|>\""),
        ("{\"pad_token\": {\"content\": 3}}", "no other padding is computed"),
        ("[]", "special_tokens_map.json"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Tokenizer::read(to.path(), 12).err().unwrap().to_string();
        assert!(error.contains(words) && error.contains("special_tokens_map.json"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    fs::remove_file(to.path().join("merges.txt")).unwrap();
    let error = Tokenizer::read(to.path(), 12).err().unwrap().to_string();
    assert!(error.contains("merges.txt: does not exist; give a complete folder of a model"), "{error}");
}

#[test]
fn a_folder_is_opened_whole_and_its_files_are_hashed() {
    let folder = Folder::open(&folder().join("tiny")).unwrap();
    let tokenizer = folder.tokenizer().unwrap();
    assert_eq!(tokenizer.vocabulary(), 714);
    let hashes = folder.hashes().unwrap();
    let names: Vec<&str> = hashes.keys().map(String::as_str).collect();
    let expected = [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(names, expected);
    for (name, hash) in &hashes {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        assert_eq!(*hash, mem2gen::store::sha256_hex(&bytes), "{name}");
    }
}

/// A tensor of one image as a row.
fn row(tensor: &Tensor) -> Array2<f64> {
    Array2::from_shape_vec((1, tensor.elem_count()), values(tensor)).unwrap()
}

fn image(rows: &Array2<f64>, shape: &[usize], dtype: DType) -> Tensor {
    let tensor = Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), shape, &Device::Cpu).unwrap();
    tensor.to_dtype(dtype).unwrap()
}

/// The score of the golden prompt with guidance, and the vectors of its two texts.
fn prompted(dtype: DType, guidance: f64, side: usize, batch: usize) -> (Guided<Prompted>, Tensor) {
    let folder = Folder::open(&folder().join("tiny")).unwrap();
    let tokenizer = folder.tokenizer().unwrap();
    let ids = ["", "a red house, don't stop"].map(|text| tokenizer.encode(text).unwrap().ids);
    let states = folder.text_encoder(dtype, &Device::Cpu).unwrap().forward(&ids).unwrap();
    let unet = Arc::new(folder.unet(dtype, &Device::Cpu).unwrap());
    let score =
        |text: usize| Prompted::new(unet.clone(), &states.get(text).unwrap(), (side, side), batch).unwrap();
    (Guided::new(score(0), score(1), guidance).unwrap(), states)
}

#[test]
fn ten_steps_of_ddim_from_a_prompt_to_a_picture_agree_with_diffusers() {
    let golden = golden("tiny");
    let folder = Folder::open(&folder().join("tiny")).unwrap();
    let process = folder.process().unwrap();
    assert_eq!(process.settings(), VpSettings::stable_diffusion());
    let table = golden["alphas_cumprod"].to_vec1::<f32>().unwrap();
    for (t, alpha_bar) in table.iter().enumerate() {
        // A product of a thousand factors in f32.
        assert!((process.alpha_bar(t) / f64::from(*alpha_bar) - 1.0).abs() < 2e-5, "{t}");
    }
    let steps = process.steps(10, Spacing::Offset).unwrap();
    let times: Vec<f64> = steps.levels().iter().take(10).map(|level| level.t()).collect();
    assert_eq!(times, values(&golden["timesteps"]));

    for (dtype, within) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
        let (score, states) = prompted(dtype, 7.5, 8, 1);
        close(&format!("{dtype:?} states"), &states, &golden["prompt_states"], within);
        let start = row(&golden["start"]);
        let first = score.score(start.view(), &steps.levels()[..1]).unwrap();
        let epsilon = image(&(first * -steps.levels()[0].sigma()), &[1, 4, 8, 8], dtype);
        close(&format!("{dtype:?} first epsilon"), &epsilon, &golden["first_epsilon"], within);
        let end = image(&ddim(&score, &steps, start, None, &Silent).unwrap(), &[1, 4, 8, 8], dtype);
        close(&format!("{dtype:?} end"), &end, &golden["end"], within);
        let vae = folder.vae(dtype, &Device::Cpu).unwrap();
        let picture = vae.decode(&(end / vae.config().scaling_factor).unwrap()).unwrap();
        close(&format!("{dtype:?} picture"), &picture, &golden["picture"], within);
    }
}

#[test]
fn schedules_and_guidance_that_are_not_computed_are_refused() {
    let from = folder().join("tiny");
    let to = TempDir::new().unwrap();
    for part in ["unet", "vae", "text_encoder", "scheduler"] {
        fs::create_dir(to.path().join(part)).unwrap();
        let name = if part == "scheduler" { "scheduler_config.json" } else { "config.json" };
        fs::copy(from.join(part).join(name), to.path().join(part).join(name)).unwrap();
    }
    let copy = Folder::open(to.path()).unwrap();
    let path = to.path().join("scheduler/scheduler_config.json");
    let parsed: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, value, expected) in [
        (
            "prediction_type",
            "\"v_prediction\"",
            "is \"v_prediction\", expected \"epsilon\"; no other value is computed",
        ),
        ("clip_sample", "true", "clip_sample is true, expected false"),
        ("steps_offset", "0", "steps_offset is 0, expected 1"),
        ("beta_schedule", "\"squaredcos_cap_v2\"", "expected \"linear\" or \"scaled_linear\""),
        ("beta_end", "2.0", "beta_end"),
        ("num_train_timesteps", "1", "levels"),
        ("new_setting", "0", "its meaning is unknown"),
    ] {
        let mut config = parsed.clone();
        config[name] = serde_json::from_str(value).unwrap();
        fs::write(&path, config.to_string()).unwrap();
        let error = copy.process().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("scheduler_config.json"), "{error}");
    }
    fs::remove_file(to.path().join("vae/config.json")).unwrap();
    let error = Folder::open(to.path()).unwrap_err().to_string();
    assert!(error.contains("config.json: does not exist; give a complete folder"), "{error}");

    let unet = Arc::new(read_unet("tiny/unet", DType::F64));
    let text = |n: &[usize]| Tensor::zeros(n, DType::F64, &Device::Cpu).unwrap();
    let line = |text: &Tensor, size, batch| {
        Prompted::new(unet.clone(), text, size, batch).err().unwrap().to_string()
    };
    let good = text(&[5, 16]);
    assert!(line(&text(&[5, 15]), (8, 8), 1).contains("the text has shape [5, 15], expected [tokens, 16]"));
    assert!(line(&good, (8, 9), 1).contains("has shape [8, 9], expected multiples of 2"));
    assert!(line(&good, (8, 8), 0).contains("0 samples"));
}

#[test]
fn products_of_the_prompted_score_are_its_slopes() {
    let vp = VpSettings::stable_diffusion().check().unwrap();
    let levels: Vec<_> = [15.0, 600.0, 999.0].iter().map(|t| vp.level(*t).unwrap()).collect();
    let mut streams = Streams::new(3, "places", 0..3);
    let (x, v, along) = (streams.normal(256), streams.normal(256), streams.normal(256));
    for guidance in [7.5, 1.0, 0.0] {
        let (score, _) = prompted(DType::F64, guidance, 8, 2);
        let product = score.vjp(x.view(), &levels, v.view()).unwrap();
        let h = 1e-5;
        let (up, down) = (&x + &along * h, &x - &along * h);
        let bend = (score.score(up.view(), &levels).unwrap() - score.score(down.view(), &levels).unwrap())
            / (2.0 * h);
        for (i, level) in levels.iter().enumerate() {
            let (by_product, by_slope) = (product.row(i).dot(&along.row(i)), bend.row(i).dot(&v.row(i)));
            // Rounding over h, relative to 1 / sigma.
            let scale = 256.0 * guidance.max(1.0) / level.sigma();
            assert!((by_product - by_slope).abs() < 1e-8 * scale, "{guidance} {i}: {by_product} {by_slope}");
            assert!(by_slope.abs() > 1e-3, "{by_slope}");
        }
        let (whole, _) = prompted(DType::F64, guidance, 8, 9);
        let apart = &whole.score(x.view(), &levels).unwrap() - &score.score(x.view(), &levels).unwrap();
        assert!(apart.iter().all(|a| a.abs() < 1e-10));
    }
    let (half, _) = prompted(DType::F16, 7.5, 8, 2);
    assert!(half.score(x.view(), &levels).is_ok());
    let error = half.vjp(x.view(), &levels, v.view()).unwrap_err().to_string();
    assert!(error.contains("f16 has no vector-Jacobian products"), "{error}");
}

#[test]
fn singular_values_of_the_prompted_score_agree_with_autograd() {
    let golden = golden("tiny_prompt");
    let vp = VpSettings::stable_diffusion().check().unwrap();
    let settings = CurvatureSettings { exact: true, rows: 1.0, ..CurvatureSettings::default() };
    assert_eq!(settings.t, 15.0);
    let params = settings.check().unwrap();
    let clean = row(&golden["clean"]);
    let points = Points { rows: clean.view(), samples: &[0], shape: Shape::image(4, 4, 4) };
    for (place, guidance) in [1.0, 3.0].into_iter().enumerate() {
        // The golden values are f64 rounded to f32; in f32 the passes have six digits.
        for (dtype, within) in [(DType::F64, 3e-7), (DType::F32, 1e-5)] {
            let (score, _) = prompted(dtype, guidance, 4, 64);
            let found = curvature(&score, &vp, &points, &params, None, &Silent).unwrap();
            let exact = found[0].exact.as_ref().unwrap();
            let values = Tensor::new(exact.values.as_slice(), &Device::Cpu).unwrap();
            let due = golden["singular_values"].get(place).unwrap();
            close(&format!("{dtype:?} guidance {guidance}"), &values, &due, within);
            let due = self::values(&golden["asymmetry"])[place];
            let apart = (exact.asymmetry / due - 1.0).abs();
            assert!(apart < within, "{dtype:?} guidance {guidance}: {} {due}", exact.asymmetry);
        }
    }
}

#[test]
fn attention_to_the_end_of_a_prompt_agrees_with_diffusers() {
    let due = golden("tiny_prompt");
    let start = row(&golden("tiny")["start"]);
    let rows = ndarray::concatenate(Axis(0), &[(&start * 0.5).view(), start.view(), start.view()]).unwrap();
    let prompt = "a red house, don't stop";
    let mut found = Vec::new();
    for batch in [1, 2] {
        let (tiny, device) = (folder().join("tiny"), DeviceChoice::default());
        let model = DiffusersPrompts::open(&tiny, device, Precision::Single, None, batch).unwrap();
        let level = model.process().level(1.0).unwrap();
        found.push(model.end_attention(prompt, rows.view(), level).unwrap().unwrap());
    }
    for paid in &found {
        for row in 1..3 {
            // The same for each of four channels.
            for channel in paid.row(row).as_slice().unwrap().chunks_exact(64) {
                let channel = Tensor::new(channel, &Device::Cpu).unwrap().reshape((8, 8)).unwrap();
                close("attention to the end", &channel, &due["end_attention"], 1e-5);
            }
        }
        assert!(paid.row(0).iter().zip(paid.row(1)).any(|(a, b)| (a - b).abs() > 1e-4));
    }
    assert!((&found[0] - &found[1]).iter().all(|apart| apart.abs() < 1e-6));

    // A first block with attention at half the resolution: a pixel has the value of its quarter.
    let unet = Arc::new(read_unet("unet_32", DType::F64));
    let [latents, times, text, _] = inputs(&golden("unet_32"), DType::F64);
    let (_, maps) = unet.forward_with_maps(&latents, &times, &text).unwrap();
    assert_eq!((maps[0].layer.starts_with("down_blocks.1."), maps[0].height, maps[0].width), (true, 4, 6));
    let due = values(&maps[0].probabilities.get(0).unwrap().narrow(1, 2, 1).unwrap());
    let score = Prompted::new(unet, &text.get(0).unwrap(), (8, 12), 1).unwrap();
    let level = VpSettings::stable_diffusion().check().unwrap().level(1.0).unwrap();
    let x = row(&latents.get(0).unwrap());
    let paid = score.attention(x.view(), &[level], 2).unwrap();
    for (i, paid) in paid.iter().enumerate() {
        let (y, x) = (i % 96 / 12, i % 12);
        assert!((paid - due[y / 2 * 6 + x / 2]).abs() < 1e-12, "{i}");
    }
    assert!(score.attention(x.view(), &[level], 5).is_err());
}

#[test]
fn shards_are_one_model() {
    let from = folder().join("tiny/unet");
    let to = TempDir::new().unwrap();
    fs::copy(from.join("config.json"), to.path().join("config.json")).unwrap();
    let mut names: Vec<(String, Tensor)> = load(&from.join(WEIGHTS)).into_iter().collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len() / 2 + 1).enumerate() {
        let file = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
        map.extend(part.iter().map(|(name, _)| (name.clone(), file.clone().into())));
        let part: Tensors = part.iter().cloned().collect();
        candle_core::safetensors::save(&part, to.path().join(file)).unwrap();
    }
    let index = to.path().join(format!("{WEIGHTS}.index.json"));
    fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    let golden = golden("tiny");
    let [latents, times, text, _] = inputs(&golden, DType::F64);
    let unet = Unet::read(to.path(), DType::F64, &Device::Cpu).unwrap();
    close("shards", &unet.forward(&latents, &times, &text).unwrap(), &golden["output"], 3e-7);

    let long = "x".repeat(2000);
    for (name, shown) in
        [("../a.safetensors", "../a.safetensors"), ("a\u{1b}[31m", "a\\u{1b}[31m"), (&long, "xxx")]
    {
        fs::write(&index, serde_json::json!({ "weight_map": { "a": name } }).to_string()).unwrap();
        let error = Unet::read(to.path(), DType::F64, &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains(&format!("lists \"{shown}")) && error.len() < 600, "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

/// The line of a U-Net that can't be read.
fn refusal(path: &Path) -> String {
    let error = Unet::read(path, DType::F32, &Device::Cpu).err().unwrap().to_string();
    assert!(!error.contains('\n') && error.contains(&*path.to_string_lossy()), "{error}");
    error
}

#[test]
fn damaged_weights_are_one_line() {
    let from = folder().join("tiny/unet");
    let one = |n: &[usize]| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    type Change<'a> = Box<dyn FnOnce(&mut Tensors) + 'a>;
    let cases: [(Change<'_>, &str); 6] = [
        (Box::new(|t| drop(t.remove("conv_in.bias"))), "missing conv_in.bias"),
        (Box::new(|t| drop(t.insert("extra.bias".into(), one(&[2])))), "not of this network extra.bias"),
        (
            Box::new(|t| drop(t.insert("conv_in.bias".into(), one(&[3])))),
            "conv_in.bias is [3], expected [16]",
        ),
        (
            Box::new(|t| drop(t.insert("conv_in.bias".into(), (one(&[16]) + f64::NAN).unwrap()))),
            "conv_in.bias has NaN or infinity, expected finite numbers; copy the file again",
        ),
        (
            Box::new(|t| drop(t.insert("conv_in.bias".into(), (one(&[16]) + f64::INFINITY).unwrap()))),
            "conv_in.bias has NaN or infinity, expected finite numbers; copy the file again",
        ),
        (
            Box::new(|t| drop(t.insert("conv_in.bias".into(), one(&[16]).to_dtype(DType::F64).unwrap()))),
            "conv_in.bias is F64, expected F32, F16 or BF16",
        ),
    ];
    for (change, expected) in cases {
        let folder = changed(&from, WEIGHTS, change);
        let error = refusal(folder.path());
        assert!(error.ends_with(expected), "{error}");
    }
    let large =
        changed(&from, WEIGHTS, |t| drop(t.insert("conv_in.bias".into(), (one(&[16]) + 7e4).unwrap())));
    let error = Unet::read(large.path(), DType::F16, &Device::Cpu).err().unwrap().to_string();
    assert!(
        error.ends_with("conv_in.bias has the value 70000, beyond half precision; use single precision"),
        "{error}"
    );

    let folder = changed(&from, WEIGHTS, |_| ());
    let path = folder.path().join(WEIGHTS);
    let whole = fs::read(&path).unwrap();
    for (bytes, expected) in [
        (&whole[..whole.len() - 1], "; copy the file again"),
        (&whole[..100], "is not a safetensors file"),
        (&whole[..3], "failed to fill whole buffer"),
        (b"PK\x03\x04 a zip archive of pickles", "is not a safetensors file"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let error = refusal(folder.path());
    assert!(
        error.ends_with("does not exist; copy the complete folder of the model in diffusers' layout"),
        "{error}"
    );
    fs::write(folder.path().join("diffusion_pytorch_model.bin"), b"PK").unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("diffusion_pytorch_model.bin is a pickle, which is not read"), "{error}");
}

#[test]
fn settings_are_honoured_or_refused() {
    let from = folder().join("tiny/unet");
    let text = fs::read_to_string(from.join("config.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let folder = changed(&from, WEIGHTS, |_| ());
    let path = folder.path().join("config.json");
    for (name, value, expected) in [
        ("act_fn", "\"gelu\"", "act_fn is \"gelu\", expected \"silu\"; no other value is computed"),
        ("class_embed_type", "\"timestep\"", "class_embed_type is \"timestep\", expected null"),
        ("num_class_embeds", "10", "num_class_embeds is 10, expected null"),
        ("resnet_time_scale_shift", "\"scale_shift\"", "expected \"default\""),
        ("dual_cross_attention", "true", "dual_cross_attention is true, expected false"),
        ("only_cross_attention", "true", "only_cross_attention is true, expected false"),
        (
            "down_block_types",
            "[\"AttnDownBlock2D\", \"DownBlock2D\"]",
            "has AttnDownBlock2D, expected DownBlock2D or",
        ),
        ("down_block_types", "[\"DownBlock2D\"]", "has 1 levels, block_out_channels has 2"),
        ("norm_num_groups", "null", "norm_num_groups is missing"),
        ("norm_num_groups", "7", "is [16, 32], expected 1 to 16 multiples of norm_num_groups = 7"),
        ("norm_num_groups", "0", "norm_num_groups is 0, expected a number from 1 to 1048576"),
        ("norm_num_groups", "-1", "norm_num_groups is -1"),
        ("attention_head_dim", "5", "is 5 heads for 16 channels, expected a divisor"),
        (
            "attention_head_dim",
            "\"8\"",
            "attention_head_dim is \"8\", expected a whole number from 0 or a list of them; copy",
        ),
        ("attention_head_dim", "[2]", "has 1 levels, block_out_channels has 2"),
        ("block_out_channels", "[]", "block_out_channels has 0"),
        ("layers_per_block", "[1, 2]", "layers_per_block is [1,2]"),
        ("layers_per_block", "2", "missing down_blocks.0.resnets.1."),
        (
            "layers_per_block",
            "1000000",
            "has 208 tensors, and its settings speak of more than 1417; copy both again",
        ),
        ("sample_size", "0", "sample_size is 0, expected a number from 1 to 1048576"),
        ("use_linear_projection", "true", "proj_in.weight is [16, 16, 1, 1], expected [16, 16]"),
        ("downsample_padding", "2", "downsample_padding is 2, expected 0 or 1"),
        ("new_setting", "3", "new_setting is 3, and its meaning is unknown; remove it if it has no effect"),
    ] {
        let mut config = parsed.clone();
        config[name] = serde_json::from_str(value).unwrap();
        fs::write(&path, config.to_string()).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains(expected), "{error}");
    }
    // Old files have fewer settings.
    let few = [
        "act_fn",
        "attention_head_dim",
        "block_out_channels",
        "cross_attention_dim",
        "down_block_types",
        "in_channels",
        "layers_per_block",
        "norm_num_groups",
        "out_channels",
        "up_block_types",
    ];
    let old: serde_json::Map<_, _> =
        few.iter().map(|name| ((*name).to_owned(), parsed[*name].clone())).collect();
    fs::write(&path, serde_json::Value::from(old).to_string()).unwrap();
    let golden = golden("tiny");
    let [latents, times, text, _] = inputs(&golden, DType::F64);
    let unet = Unet::read(folder.path(), DType::F64, &Device::Cpu).unwrap();
    close("few settings", &unet.forward(&latents, &times, &text).unwrap(), &golden["output"], 3e-7);

    for (latents, times, text) in [
        (&[2usize, 4, 8, 9][..], &[2usize][..], &[2usize, 5, 16][..]),
        (&[2, 3, 8, 8], &[2], &[2, 5, 16]),
        (&[2, 4, 0, 8], &[2], &[2, 5, 16]),
        (&[2, 4, 8, 8], &[1], &[2, 5, 16]),
        (&[2, 4, 8, 8], &[2], &[2, 5, 17]),
        (&[2, 4, 8, 8], &[2], &[1, 5, 16]),
        (&[2, 4, 8, 8], &[2], &[2, 16]),
    ] {
        let zeros = |n: &[usize]| Tensor::zeros(n, DType::F64, &Device::Cpu).unwrap();
        let found = unet.forward(&zeros(latents), &zeros(times), &zeros(text));
        assert!(matches!(found, Err(NetError::Shape { .. })), "{latents:?} {times:?} {text:?}");
    }
    fs::write(&path, "{").unwrap();
    assert!(refusal(folder.path()).starts_with("settings "));
}

#[test]
fn a_vocabulary_that_differs_is_named() {
    let from = folder().join("tiny/tokenizer");
    let to = TempDir::new().unwrap();
    let (merges, vocabulary) = (to.path().join("merges.txt"), to.path().join("vocab.json"));
    let text = fs::read_to_string(from.join("merges.txt")).unwrap();
    let tokens: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(from.join("vocab.json")).unwrap()).unwrap();
    fs::write(&merges, &text).unwrap();
    let read = |tokens: &serde_json::Map<String, serde_json::Value>| {
        fs::write(&vocabulary, serde_json::to_string(tokens).unwrap()).unwrap();
        Tokenizer::read(to.path(), 77)
    };
    let line = |tokens: &serde_json::Map<String, serde_json::Value>| read(tokens).err().unwrap().to_string();
    assert!(read(&tokens).is_ok());
    let with = |name: &str, id: u32| {
        let mut tokens = tokens.clone();
        tokens.insert(name.to_owned(), id.into());
        tokens
    };
    assert!(line(&with("the</w>", 3)).contains("is 3, expected 5"), "{}", line(&with("the</w>", 3)));
    assert!(line(&with("more", 714)).contains("has 715 tokens, expected 714 from merges.txt"));
    let mut less = tokens.clone();
    less.remove("!").unwrap();
    assert!(line(&less).contains("is missing, expected 0 from merges.txt"), "{}", line(&less));
    for (text, expected) in [
        (text.replacen("#version", "version", 1), "does not begin with #version"),
        (format!("{text}q zz\n"), "copy the file of the model again"),
        (format!("{text}one\n"), "copy the file of the model again"),
    ] {
        fs::write(&merges, text).unwrap();
        assert!(line(&tokens).contains(expected), "{}", line(&tokens));
    }
}

/// Models of the size of Stable Diffusion 1.4, which are not in the repository: `make_diffusers_golden.py --full` makes them
/// in the folder that `MEM2GEN_GOLDEN_FULL` names. Without it this test says so and passes.
#[test]
fn models_of_full_size_agree_with_diffusers() {
    let Some(folder) = std::env::var_os("MEM2GEN_GOLDEN_FULL").map(PathBuf::from) else {
        return println!("MEM2GEN_GOLDEN_FULL is not set; models of full size are not compared");
    };
    let golden = load(&folder.join("full.safetensors"));
    let timed =
        |what: &str, from: std::time::Instant| println!("{what}: {:.1} s", from.elapsed().as_secs_f64());
    let start = std::time::Instant::now();
    let unet = Unet::read(&folder.join("unet"), DType::F32, &Device::Cpu).unwrap();
    timed("read", start);
    for size in ["small", "large"] {
        let [latents, times, text, v] =
            ["latents", "times", "text", "v"].map(|name| golden[&format!("{size}/{name}")].clone());
        let start = std::time::Instant::now();
        let output = unet.forward(&latents, &times, &text).unwrap();
        timed(&format!("{size} forward"), start);
        close(&format!("{size} output"), &output, &golden[&format!("{size}/output")], 1e-5);
        if let Some(expected) = golden.get(&format!("{size}/vjp")) {
            let start = std::time::Instant::now();
            let (_, product) = unet.vjp(&latents, &times, &text, &v).unwrap();
            timed(&format!("{size} product"), start);
            close(&format!("{size} product"), &product, expected, 1e-4);
        }
    }
    drop(unet);
    let clip = Clip::read(&folder.join("text_encoder"), DType::F32, &Device::Cpu).unwrap();
    let ids = golden["ids"].to_vec2::<f32>().unwrap();
    let ids: Vec<Vec<u32>> = ids.iter().map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    close("text encoder", &clip.forward(&ids).unwrap(), &golden["hidden"], 1e-4);
    let vae = Vae::read(&folder.join("vae"), DType::F32, &Device::Cpu).unwrap();
    close("autoencoder", &vae.decode(&golden["encoded"]).unwrap(), &golden["decoded"], 1e-4);
}
