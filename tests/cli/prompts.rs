//! `mem2gen prompts`, with the small model of diffusers' layout and a network of captions.

use std::io::Write;

use crate::common::{Folder, mem2gen};
use mem2gen::data::{State, find, state};
use mem2gen::frame::{Item, read_parquet};
use mem2gen::project::Layout;
use mem2gen::shape::Shape;
use mem2gen::store::from_toml;
use mem2gen::study::prompts::frame::{prompts_rows, roc_rows};
use mem2gen::train::TrainSettings;
use ndarray::Array2;
use ndarray_npy::read_npy;

const MODEL: &str = "tests/golden/diffusers/tiny";
const FEW: [&str; 8] = ["--seeds", "2", "--steps", "4", "--rows", "24", "--seed", "5"];

fn list(folder: &Folder) -> String {
    let path = folder.path("list.jsonl");
    let text =
        "{\"caption\": \"a pear\", \"index\": 3, \"kind\": \"memorized\"}\n{\"prompt\": \"green heart\"}\n";
    std::fs::write(path, text).unwrap();
    folder.at("list.jsonl")
}

#[test]
fn a_model_of_diffusers_layout_gives_pictures_spectra_and_a_table() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let call = [&["prompts", "--weights", MODEL, "--prompts", &list, "--out", &out], &FEW[..]].concat();
    let told = folder.runs(&call);
    for words in ["OpenRAIL", "24 rows in 256 dimensions", "2 prompts, 2 samples of each", "guidance 7.5"] {
        assert!(told.contains(words), "no {words}: {told}");
    }
    let rows = prompts_rows(&read_parquet(&folder.path("out/prompts.parquet")).unwrap()).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!((rows[0].index.as_deref(), rows[0].kind.as_deref()), (Some("3"), Some("memorized")));
    assert_eq!((rows[3].prompt, rows[3].seed, rows[3].caption.as_str()), (1, 1, "green heart"));
    assert!(
        rows.iter()
            .all(|row| row.dim == 256 && row.rows == 24 && row.curvature > 0.0 && row.nearest.is_none())
    );
    assert!(rows.iter().all(|row| row.noise_first > 0.0 && row.diversity.is_some_and(|apart| apart > 0.0)));
    assert_eq!(read_parquet(&folder.path("out/spectra.parquet")).unwrap().height(), 4 * 24);
    assert!(rows.iter().all(|row| row.curvature_exact.is_none() && row.dimension.is_none()));
    assert!(rows.iter().all(|row| row.bright.is_some_and(|paid| paid > 0.0 && paid < 1.0)));
    let latents: Array2<f32> = read_npy(folder.path("out/samples.npy")).unwrap();
    assert_eq!(latents.dim(), (4, 256));
    for name in ["0000-00.png", "0000-01.png", "0001-00.png", "0001-01.png"] {
        let picture = image::open(folder.path("out").join(name)).unwrap();
        assert_eq!(picture.width(), picture.height());
    }
    let notes = std::fs::read_to_string(folder.path("out/prompts.json")).unwrap();
    assert!(notes.contains("unet/config.json") && notes.contains("green heart"), "{notes}");
    assert!(!folder.path("out.partial").exists());

    // Another list: a prompt does not depend on the others.
    std::fs::write(folder.path("list.jsonl"), "{\"text\": \"a pear\"}").unwrap();
    let other = folder.at("other");
    folder.runs(&[&["prompts", "--weights", MODEL, "--prompts", &list, "--out", &other], &FEW[..]].concat());
    let again = prompts_rows(&read_parquet(&folder.path("other/prompts.parquet")).unwrap()).unwrap();
    assert_eq!((again[1].curvature, again[1].noise_mean), (rows[1].curvature, rows[1].noise_mean));
    folder.refuses(&call, &["out", "exists"]);
}

#[test]
fn the_exact_jacobian_is_that_of_the_first_samples() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let call = ["prompts", "--weights", MODEL, "--size", "8", "--prompts", &list, "--out", &out];
    folder.runs(&[&call[..], &FEW, &["--exact", "1"]].concat());
    let rows = prompts_rows(&read_parquet(&folder.path("out/prompts.parquet")).unwrap()).unwrap();
    let spectra = read_parquet(&folder.path("out/spectra.parquet")).unwrap();
    let [prompts, seeds] = ["prompt", "seed"].map(|name| usize::read(&spectra, name).unwrap());
    let (matrices, values) =
        (String::read(&spectra, "matrix").unwrap(), f64::read(&spectra, "value").unwrap());
    for row in &rows {
        let of = |matrix: &str| -> Vec<f64> {
            let is = |i: &usize| (prompts[*i], seeds[*i]) == (row.prompt, row.seed) && matrices[*i] == matrix;
            (0..values.len()).filter(is).map(|i| values[i]).collect()
        };
        assert_eq!((row.dim, of("rows").len()), (64, 24));
        if row.seed == 1 {
            assert_eq!((row.curvature_2, row.curvature_exact, row.dimension), (None, None, None));
            assert_eq!(of("exact"), [0.0; 0]);
            continue;
        }
        let exact = of("exact");
        let square: f64 = exact.iter().map(|v| v * v).sum();
        let due = row.sigma.powi(2) * (square / 64.0).sqrt();
        assert!(exact.len() == 64 && (row.curvature_exact.unwrap() / due - 1.0).abs() < 1e-12);
        let low = exact.iter().filter(|v| **v < 0.5 / row.sigma.powi(2)).count();
        assert_eq!(row.dimension, Some(low));
        assert!(row.curvature_2.unwrap() > 0.0 && row.asymmetry.unwrap() > 0.0);
    }
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let call = |model: &[&str], more: &[&str]| {
        let call = [&["prompts"], model, &["--prompts", &list, "--out", &out], &FEW[..], more].concat();
        let said = mem2gen(&call);
        assert!(!said.ok && said.stderr.trim_end().lines().count() == 1, "{call:?}: {}", said.stderr);
        assert!(!folder.path("out").exists() && !folder.path("out.partial").exists(), "{call:?}");
        said.stderr
    };
    let model = ["--weights", MODEL];
    for (said, words) in [
        (call(&["--weights", &folder.at("none")], &[]), "unet/config.json: does not exist"),
        (call(&["--run", &folder.at("none")], &[]), "expected a training run"),
        (call(&model, &["--t", "5000"]), "5000"),
        (call(&model, &["--guidance", "NaN"]), "guidance"),
        (
            call(&model, &["--exact", "3"]),
            "exact is 3, expected at most 2, the number of samples of a prompt",
        ),
        (call(&model, &["--size", "7"]), "multiple of"),
        (call(&model, &["--batch", "0"]), "--batch"),
        (call(&model, &["--guidance", "1e30"]), "guidance is 1e30, expected a number from -1000 to 1000"),
    ] {
        assert!(said.contains(words), "no {words}: {said}");
    }
    for (option, value) in [("--seeds", "0"), ("--rows", "1"), ("--steps", "0"), ("--steps", "1000")] {
        let call = ["prompts", "--weights", MODEL, "--prompts", &list, "--out", &out, option, value];
        let said = mem2gen(&call);
        assert!(!said.ok && said.stderr.contains(&option[2..]), "{}", said.stderr);
        assert!(!folder.path("out").exists(), "{option}");
    }
    #[cfg(not(feature = "cuda"))]
    {
        let said = call(&model, &["--device", "cuda:0"]);
        assert!(said.contains("device cuda:0: this program was built without CUDA for networks"), "{said}");
    }
    std::fs::write(folder.path("list.jsonl"), "a pear\n").unwrap();
    assert!(call(&model, &[]).contains("line 1: is plain text"));
    // No model in the cache of Hugging Face.
    let said = crate::common::said(
        crate::common::program(&["prompts", "--weights", "--out", &out])
            .env("HF_HUB_CACHE", folder.path("hub")),
    );
    assert!(!said.ok && said.stderr.contains("stable-diffusion-v1-4"), "{}", said.stderr);
}

#[test]
fn a_prompt_beyond_the_context_is_said_to_be_cut() {
    let folder = Folder::new();
    let list = folder.at("list.jsonl");
    let long = format!("{{\"caption\": \"a pear\"}}\n{{\"caption\": \"{}\"}}\n", "1 ".repeat(80).trim());
    std::fs::write(&list, long).unwrap();
    let call = ["prompts", "--weights", MODEL, "--prompts", &list, "--out", &folder.at("out")];
    let said = mem2gen(&[&call[..], &["--seeds", "1", "--steps", "2", "--rows", "2"]].concat());
    let due = "prompt 1 '1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 ...' is too long for the text encoder: its last 5 tokens are \
               left out";
    assert!(said.ok && said.stderr.contains(due), "{}", said.stderr);
    assert_eq!(said.stderr.matches("too long").count(), 1, "{}", said.stderr);
    assert!(said.stdout.contains("2 prompts, 1 sample of each, 256 values each"), "{}", said.stdout);
}

#[test]
fn pieces_of_a_call_with_other_settings_stay_and_are_named() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let call = [&["prompts", "--weights", MODEL, "--prompts", &list, "--out", &out], &FEW[..]].concat();
    let piece = folder.path("out.partial/0123456789abcdef/prompt-0.json");
    std::fs::create_dir_all(piece.parent().unwrap()).unwrap();
    std::fs::write(&piece, "of another call").unwrap();
    let said = mem2gen(&call);
    assert!(said.ok && said.stderr.contains("out.partial still has finished parts"), "{}", said.stderr);
    let left: Vec<_> = std::fs::read_dir(folder.path("out.partial")).unwrap().collect();
    assert!(left.len() == 1 && piece.is_file());
}

#[test]
fn roc_refuses_what_it_cannot_compare() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let roc = |name: &str, more: &[&str], words: &[&str]| {
        folder.refuses(&[&["prompts", "roc", "--in", &folder.at(name)], more].concat(), words);
    };
    roc("none", &[], &["--in", "none has no prompts.parquet", "'mem2gen prompts --run'"]);
    std::fs::create_dir_all(folder.path("half.partial")).unwrap();
    roc("half", &[], &["--in", "half is not finished; repeat the call"]);
    folder.runs(&[&["prompts", "--weights", MODEL, "--prompts", &list, "--out", &out], &FEW[..]].concat());
    roc("out", &[], &["no caption has a known dose"]);
    for (option, value, words) in [
        ("--delta", "nan", "delta is NaN, expected a number from 0"),
        ("--delta", "inf", "delta is inf, expected a number from 0"),
        ("--share", "0", "share is 0, expected a number above 0, at most 1"),
        ("--rarely", "0", "rarely is 0, expected a dose above 0"),
        ("--often", "3", "often is 3, expected a dose above 4, that of rarely"),
    ] {
        roc("out", &[option, value], &[words]);
    }
}

#[test]
fn the_committed_training_with_doses_is_one() {
    let text = std::fs::read_to_string("data/training/emoji-doses.toml").unwrap();
    let settings: TrainSettings = from_toml(&text).unwrap();
    let params = settings.check(Shape::image(16, 16, 3)).unwrap();
    assert_eq!(params.graph().condition(), 384);
    let list = mem2gen::study::prompts::Prompt::read("data/prompts/stable-diffusion.jsonl".as_ref()).unwrap();
    let kinds: Vec<&str> = list.iter().filter_map(|prompt| prompt.kind.as_deref()).collect();
    assert_eq!(kinds, [vec!["memorized"; 2], vec!["spurious"; 4], vec!["generalized"; 3]].concat());
    let none = mem2gen(&["train", "--plan", "nothing", "--run", "nowhere"]);
    let due = "data/training/nothing.toml: does not exist, expected one of emoji-doses";
    assert!(!none.ok && none.stderr.contains(due), "{}", none.stderr);
}

#[test]
fn a_network_of_captions_takes_prompts() {
    let layout = Layout::at(env!("CARGO_MANIFEST_DIR"));
    if let State::Absent = state(&layout, find("emoji").unwrap()) {
        // The harness hides the output of a passing test, except this line.
        std::io::stderr().write_all(b"SKIPPED: emoji are not in the cache\n").unwrap();
        return;
    }
    let folder = Folder::new();
    let text = std::fs::read_to_string("data/training/emoji-doses.toml").unwrap();
    let change = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let text = change(text, "steps = 40000", "steps = 6");
    let text = change(text, "channels = 32", "channels = 4");
    let text = change(text, "captions = 24", "captions = 1");
    std::fs::write(folder.path("small.toml"), change(text, "templates = 24", "templates = 1")).unwrap();
    let (run, out) = (folder.at("run"), folder.at("out"));
    folder.runs(&["train", "--config", &folder.at("small.toml"), "--run", &run]);
    let few = ["--seeds", "2", "--steps", "2", "--rows", "4"];
    let told = folder.runs(&[&["prompts", "--run", &run, "--out", &out], &few[..]].concat());
    // Six steps teach nothing.
    for words in [
        "prompts: 0 of 10 prompts returned a training image in at least one sample, 0 in every",
        "guidance 1 ->",
    ] {
        assert!(told.contains(words), "no {words}: {told}");
    }
    let rows = prompts_rows(&read_parquet(&folder.path("out/prompts.parquet")).unwrap()).unwrap();
    // Nine doses and a template, two seeds each.
    assert_eq!(rows.len(), 20);
    let doses: Vec<f64> = rows.iter().step_by(2).map(|row| row.dose.unwrap()).collect();
    assert_eq!(doses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 16.0]);
    assert_eq!(rows[18].part.as_deref(), Some("template"));
    assert!(rows.iter().all(|row| row.dim == 768 && row.nearest.is_some() && row.own >= row.nearest));
    let told = folder.runs(&["prompts", "roc", "--in", &out, "--out", &folder.at("roc.parquet")]);
    assert!(told.contains("curvature") && told.contains("dose"), "{told}");
    assert_eq!(roc_rows(&read_parquet(&folder.path("roc.parquet")).unwrap()).unwrap().len() % 8, 0);

    // A network with a prompt is a score like any other, and another prompt is another score.
    let caption = &rows[0].caption;
    let draw = |name: &str, more: &[&str]| {
        let call = ["sample", "--run", &run, "--sampler", "ddim", "--steps", "2", "--out", &folder.at(name)];
        let told = folder.runs(&[&call[..], more].concat());
        (told, std::fs::read(folder.path(name)).unwrap())
    };
    let (told, with) = draw("with.npy", &["--prompt", caption, "--guidance", "3"]);
    assert!(told.contains("1 sample,") && told.contains("with guidance 3"), "{told}");
    let (_, without) = draw("without.npy", &[]);
    let (_, other) = draw("other.npy", &["--prompt", &rows[2].caption, "--guidance", "3"]);
    assert!(with != without && with != other);
    let sample = |more: &[&str], words: &[&str]| {
        folder.refuses(&[&["sample", "--run", &run, "--out", &folder.at("no.npy")], more].concat(), words);
    };
    sample(&["--guidance", "3"], &["--guidance: is given without --prompt; give both"]);
    for value in ["1e30", "nan", "-1001"] {
        let need = "expected a number from -1000 to 1000";
        sample(&["--prompt", caption, "--guidance", value], &["--guidance: is ", need]);
    }
    let long = "pear ".repeat(300);
    let call = ["sample", "--run", &run, "--sampler", "ddim", "--steps", "2", "--prompt", &long];
    let said = mem2gen(&[&call[..], &["--out", &folder.at("long.npy")]].concat());
    if said.ok {
        let due = "--prompt 'pear pear pear pear pear pear pear pear ...' is too long for the text encoder: its last 46 tokens";
        assert!(said.stderr.contains(due), "{}", said.stderr);
    } else {
        assert!(said.stderr.contains("mem2gen data fetch minilm"), "{}", said.stderr);
    }
    folder.refuses(
        &["sample", "--run", &run, "--prompt", caption, "--score", "exact", "--out", &folder.at("no.npy")],
        &["--prompt", "knows no captions"],
    );
}

/// A copy of the model in a folder.
fn copied(folder: &Folder, name: &str) -> std::path::PathBuf {
    let to = folder.path(name);
    for entry in walkdir::WalkDir::new(MODEL) {
        let entry = entry.unwrap();
        let path = to.join(entry.path().strip_prefix(MODEL).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(path).unwrap();
        } else {
            std::fs::copy(entry.path(), path).unwrap();
        }
    }
    to
}

#[test]
fn the_doctor_says_what_a_model_takes() {
    let folder = Folder::new();
    let table = folder.runs(&["doctor", "--weights", MODEL]);
    for words in [
        "unet          208      200644      802576",
        "vae           124      43711       174844",
        "text_encoder  36       17136       68544",
        "714 tokens, at most 77",
        "1000 noise levels",
        "latents: 8x8x4, pictures: 16x16x3",
        "of which the weights take 1 MB",
        "2500 with 4 seeds, 50 steps and 512 rows",
        "values of tensors, which were not read",
        "OpenRAIL",
        "time: one pass took",
    ] {
        assert!(table.contains(words), "no {words}: {table}");
    }
    // Nothing of the weights is read: a value that `prompts` refuses changes no line but that of the time.
    let model = copied(&folder, "nan");
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let untimed = |table: &str| table.lines().filter(|l| !l.starts_with("time")).map(str::to_owned).collect();
    let found: Vec<String> = untimed(&folder.runs(&["doctor", "--weights", &folder.at("nan")]));
    assert_eq!(found, untimed(&table) as Vec<String>);
}

#[test]
fn the_doctor_refuses_a_model_as_prompts_does() {
    let folder = Folder::new();
    let (list, out) = (list(&folder), folder.at("out"));
    let config = |part: &str, from: &str, to: &str| {
        let (part, from, to) = (part.to_owned(), from.to_owned(), to.to_owned());
        move |model: &std::path::Path| {
            let path = model.join(&part).join("config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(&from), "{from}: {text}");
            std::fs::write(path, text.replacen(&from, &to, 1)).unwrap();
        }
    };
    type Damage = Box<dyn Fn(&std::path::Path)>;
    let cases: [(&str, Damage, &str); 8] = [
        ("setting", Box::new(config("unet", "\"act_fn\": \"silu\"", "\"act_fn\": \"gelu\"")), "act_fn"),
        (
            "shape",
            Box::new(config("unet", "\"cross_attention_dim\": 16", "\"cross_attention_dim\": 17")),
            "17",
        ),
        ("size", Box::new(config("unet", "\"sample_size\": 8", "\"sample_size\": null")), "sample_size"),
        ("odd", Box::new(config("unet", "\"sample_size\": 8", "\"sample_size\": 7")), "multiples of 2"),
        ("part", Box::new(|m| std::fs::remove_dir_all(m.join("vae")).unwrap()), "vae/config.json"),
        (
            "schedule",
            Box::new(|m| std::fs::remove_dir_all(m.join("scheduler")).unwrap()),
            "scheduler_config.json",
        ),
        (
            "tokens",
            Box::new(|m| std::fs::write(m.join("tokenizer/merges.txt"), "a b").unwrap()),
            "merges.txt",
        ),
        (
            "pickle",
            Box::new(|m| {
                let stem = m.join("vae/diffusion_pytorch_model");
                std::fs::rename(stem.with_extension("safetensors"), stem.with_extension("bin")).unwrap();
            }),
            "is a pickle",
        ),
    ];
    for (name, damage, words) in cases {
        damage(&copied(&folder, name));
        let said = mem2gen(&["doctor", "--weights", &folder.at(name)]);
        assert!(!said.ok && said.stdout.is_empty(), "{name}: {}", said.stdout);
        assert!(said.stderr.contains(words) && said.stderr.lines().count() == 1, "{name}: {}", said.stderr);
        let call = ["prompts", "--weights", &folder.at(name), "--prompts", &list, "--out", &out];
        let prompts = mem2gen(&[&call, &FEW[..]].concat());
        let reason = |text: &str| text.split_once(": ").unwrap().1.to_owned();
        assert_eq!(reason(&said.stderr), reason(&prompts.stderr), "{name}");
    }
    let said = crate::common::said(
        crate::common::program(&["doctor", "--weights"]).env("HF_HUB_CACHE", folder.path("hub")),
    );
    assert!(!said.ok && said.stderr.contains("stable-diffusion-v1-4"), "{}", said.stderr);
}

#[test]
fn half_precision_gives_nearly_the_same_and_no_sharpness() {
    let folder = Folder::new();
    let list = list(&folder);
    let rows = |name: &str, more: &[&str]| {
        let call = ["prompts", "--weights", MODEL, "--prompts", &list, "--out", &folder.at(name)];
        folder.runs(&[&call[..], &FEW[..], more].concat());
        let notes = std::fs::read_to_string(folder.path(name).join("prompts.json")).unwrap();
        let notes: serde_json::Value = serde_json::from_str(&notes).unwrap();
        let table = read_parquet(&folder.path(name).join("prompts.parquet")).unwrap();
        (prompts_rows(&table).unwrap(), notes["model"]["precision"].as_str().unwrap().to_owned())
    };
    let (single, half) = (rows("single", &[]), rows("half", &["--half"]));
    assert_eq!((single.1.as_str(), half.1.as_str()), ("single", "half"));
    assert_eq!((single.0.len(), half.0.len()), (4, 4));
    for (one, other) in single.0.iter().zip(&half.0) {
        assert!(one.sharpness.is_some_and(|v| v > 0.0) && other.sharpness.is_none());
        for (what, a, b) in [
            ("noise_first", one.noise_first, other.noise_first),
            ("noise_mean", one.noise_mean, other.noise_mean),
            ("alignment", one.alignment, other.alignment),
            ("variation", one.variation, other.variation),
            ("diversity", one.diversity.unwrap(), other.diversity.unwrap()),
            ("curvature", one.curvature, other.curvature),
        ] {
            assert!((a - b).abs() < 0.03 * a.abs(), "{what}: {a} in single and {b} in half precision");
        }
    }
    let told = folder.runs(&["doctor", "--weights", MODEL, "--half"]);
    assert!(told.contains("with half precision") && told.contains("2476 with 4 seeds"), "{told}");
    folder.refuses(&["doctor", "--half"], &["--weights"]);
    let out = folder.at("out");
    let call = ["prompts", "--weights", MODEL, "--out", &out];
    folder.refuses(&[&call[..], &["--half", "--exact", "1"]].concat(), &["--exact", "--half"]);
    folder.refuses(&[&call[..], &["--t", "-1"]].concat(), &["--t", "-1", "no noise"]);
    for option in [&["--half"][..], &["--size", "16"]] {
        folder.refuses(
            &[&["prompts", "--run", &folder.at("none"), "--out", &out], option].concat(),
            &[option[0]],
        );
    }
}
