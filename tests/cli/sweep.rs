//! `mem2gen sweep`: plans; killed, shared, relabelled and restored cells; the collected tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::common::{Dice, Folder, Said, program, said};
use mem2gen::class::Class;
use mem2gen::frame::{column_i64, read_parquet, write_parquet};
use mem2gen::project::Layout;
use mem2gen::store::{Matrix, read_matrix, write_array};
use mem2gen::study::context::{Context, Profile};
use mem2gen::study::sweep::frame::{cells_frame, cells_rows, examples_rows, samples_rows};
use mem2gen::study::sweep::{Plan, Role, SweepRow};
use mem2gen::study::transition::transition;
use mem2gen::train::{Kind, RunDir, TrainingData};
use ndarray::{Array2, ArrayView1};

/// Cells of a few milliseconds.
const PLAN: &str = r#"
datasets = ["lsun-church"]
size = 4
sizes = [2, 5, 9]
control = true

[[network]]
name = "mlp8"
arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }

[training]
prediction = "x0"
steps = 60
batch = 8
repeat = true
adam = { learning_rate = 1e-2, decay = "cosine" }
ema = { decay = 0.9, warm_up = true }
checkpoint_every = 10
log_every = 20

[sampling]
sampler = "ddim"
steps = 5
multiples = [2, 4]
least = 30

[detection]
delta_m = 1.5
delta_s = 0.5
resamples = 50
"#;

/// A project with 12 images and a plan.
struct Place(Folder);

impl Place {
    fn new(plan: &str) -> Self {
        let place = Self(Folder::new());
        let pictures = place.0.pictures(12, |i, x, y| {
            [(3 * x + 40 * i) as u8, (2 * y + 17 * i * i) as u8, ((x + y) * (i + 1)) as u8]
        });
        place.plan(plan);
        let said = place.call(&["data", "fetch", "lsun-church", "--from", &pictures]);
        assert!(said.ok, "{}", said.stderr);
        place
    }

    fn plan(&self, text: &str) {
        let folder = self.0.path("data/plans");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tiny-one.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command
            .env("MEM2GEN_ROOT", self.0.path(""))
            .env("MEM2GEN_DATA", self.0.path("data/cache"))
            .env_remove("MEM2GEN_PROFILE")
            .env("RAYON_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn call(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    /// Calls `mem2gen sweep`, expects success, and returns its output.
    #[track_caller]
    fn sweep(&self, arguments: &[&str]) -> String {
        let said = self.call(&[&["sweep"], arguments].concat());
        assert!(said.ok && said.stderr.is_empty(), "{arguments:?}: {}", said.stderr);
        said.stdout
    }

    /// As [`Self::sweep`], but expects an error of one line that contains these words.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let said = self.call(&[&["sweep"], arguments].concat());
        assert!(!said.ok, "{arguments:?} was accepted: {}", said.stdout);
        for word in words {
            assert!(said.stderr.contains(word), "{arguments:?}: no {word:?} in {}", said.stderr);
        }
    }

    fn runs(&self) -> PathBuf {
        self.0.path("out/sweep/tiny-one")
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(&[&["sweep"], arguments].concat()).spawn().unwrap()
    }
}

const ALL: [&str; 2] = ["--plan", "tiny-one"];
const TABLES: [&str; 3] =
    ["transition_tiny_one", "transition_tiny_one_samples", "transition_tiny_one_examples"];

/// The three tables, byte for byte except the seconds.
fn tables(place: &Place, runs: &Path) -> [Vec<u8>; 3] {
    let out = place.0.path("collected");
    let runs = runs.to_str().unwrap();
    place.sweep(&["collect", "--plan", "tiny-one", "--runs", runs, "--out", out.to_str().unwrap()]);
    let timeless = out.join("timeless.parquet");
    let rows: Vec<SweepRow> = cells(&out)
        .into_iter()
        .map(|r| SweepRow { train_seconds: 0.0, sample_seconds: 0.0, label_seconds: 0.0, ..r })
        .collect();
    write_parquet(&timeless, &cells_frame(&rows).unwrap()).unwrap();
    let [_, samples, examples] = TABLES.map(|name| out.join(format!("{name}.parquet")));
    [timeless, samples, examples].map(|path| fs::read(path).unwrap())
}

fn cells(folder: &Path) -> Vec<SweepRow> {
    cells_rows(&read_parquet(&folder.join("transition_tiny_one.parquet")).unwrap()).unwrap()
}

/// Modification times of the files of each cell.
fn written(runs: &Path, name: &str) -> BTreeMap<PathBuf, SystemTime> {
    let cells = fs::read_dir(runs).unwrap().map(|e| e.unwrap().path().join(name));
    cells.filter_map(|file| Some((file.clone(), fs::metadata(&file).ok()?.modified().unwrap()))).collect()
}

#[test]
fn killed_at_random_moments_it_ends_in_the_same_tables() {
    let place = Place::new(PLAN);
    let whole = place.0.path("whole");
    let said = place.sweep(&[&ALL[..], &["--runs", whole.to_str().unwrap()]].concat());
    assert!(said.contains("sweep: 6 cells, 0 done before or elsewhere, 6 done now, 0 failed"), "{said}");
    assert!(said.contains("sweep: 6 done, 0 running, 0 left, 0 failed\n"), "{said}");
    let mut dice = Dice::new(11);
    let mut kills = 0;
    for _ in 0..12 {
        let mut child = place.start(&ALL);
        sleep(Duration::from_millis(dice.word() % 120));
        kills += usize::from(child.try_wait().unwrap().is_none());
        // SIGKILL on Unix: nothing of the program runs after it.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills >= 3, "the sweep ended before it was killed: {kills}");
    place.sweep(&ALL);
    assert!(tables(&place, &whole) == tables(&place, &place.runs()));
    // Nothing is done twice.
    let files = ["cell.json", "samples.npy", "train/manifest.json", "labels-x2.parquet"];
    let before = files.map(|name| written(&place.runs(), name));
    let said = place.sweep(&ALL);
    assert!(said.contains("6 done before or elsewhere, 0 done now"), "{said}");
    assert_eq!(before, files.map(|name| written(&place.runs(), name)));
    // Weights are kept, checkpoints are not.
    let run = place.runs().join("lsun-church-4-mlp8-k5-s3407/train");
    assert!(run.join("ema.safetensors").is_file() && !run.join("checkpoints").exists());
}

#[test]
fn two_workers_share_the_cells() {
    let place = Place::new(&PLAN.replace("steps = 60", "steps = 600"));
    let workers = [place.start(&ALL), place.start(&ALL)];
    let mut sum = 0;
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        let last = said.lines().last().unwrap();
        let now: usize = last.split(" done now").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        // No worker ends before all cells are finished.
        assert!(last.contains("0 failed ->"), "{last}");
        sum += now;
    }
    assert_eq!(sum, 6);
    assert!(place.sweep(&["status", "--plan", "tiny-one"]).starts_with("sweep: 6 done, 0 running, 0 left"));

    // A cell that another process has locked is skipped, or waited for and taken over.
    let cell = place.runs().join("lsun-church-4-mlp8-k2-s3407");
    fs::remove_file(cell.join("cell.json")).unwrap();
    let lock = fs::File::open(cell.join("lock")).unwrap();
    lock.lock().unwrap();
    assert!(place.sweep(&["status", "--plan", "tiny-one"]).contains("5 done, 1 running, 0 left"));
    assert!(place.sweep(&[&ALL[..], &["--no-wait"]].concat()).contains("1 left to others"));
    let mut waiting = place.start(&ALL);
    sleep(Duration::from_millis(700));
    assert!(waiting.try_wait().unwrap().is_none());
    drop(lock);
    assert!(waiting.wait().unwrap().success() && cell.join("cell.json").is_file());
}

#[test]
fn other_detection_repeats_only_the_labels() {
    let place = Place::new(PLAN);
    place.sweep(&ALL);
    let before = ["samples.npy", "train/manifest.json"].map(|name| written(&place.runs(), name));
    let labels = written(&place.runs(), "labels-x2.parquet");
    let first = tables(&place, &place.runs());
    place.plan(&PLAN.replace("delta_m = 1.5", "delta_m = 1e-6"));
    assert!(place.sweep(&["status", "--plan", "tiny-one"]).contains("0 done, 0 running, 6 left"));
    place.sweep(&ALL);
    assert_eq!(before, ["samples.npy", "train/manifest.json"].map(|name| written(&place.runs(), name)));
    assert!(labels.iter().zip(written(&place.runs(), "labels-x2.parquet")).all(|(a, b)| *a.1 < b.1));
    assert!(tables(&place, &place.runs())[1] != first[1]);
    let rows = cells(&place.0.path("collected"));
    assert!(rows.iter().all(|r| r.delta_m.value == Some(1e-6) && r.delta_m.origin == "manual"));
    // Fewer multiples: the labels of the others are removed, and no samples are drawn for them.
    place.plan(&PLAN.replace("[2, 4]", "[2]"));
    place.sweep(&ALL);
    let cell = place.runs().join("lsun-church-4-mlp8-k9-s3407");
    assert!(cell.join("labels-x2.parquet").is_file() && !cell.join("labels-x4.parquet").exists());
    // Additional cells do not change the finished ones.
    place.plan(&PLAN.replace("[2, 4]", "[2]").replace("[2, 5, 9]", "[2, 3, 5, 9]"));
    let said = place.sweep(&ALL);
    assert!(said.contains("8 cells, 6 done before or elsewhere, 2 done now"), "{said}");
}

#[test]
fn labels_are_those_of_plain_sums_set_by_set() {
    let place = Place::new(PLAN);
    place.sweep(&ALL);
    place.sweep(&["collect", "--plan", "tiny-one"]);
    let rows = cells(&place.0.path("data/results"));
    assert_eq!(rows.len(), 12);
    let distances = samples_rows(
        &read_parquet(&place.0.path("data/results").join(format!("{}.parquet", TABLES[1]))).unwrap(),
    )
    .unwrap();
    let pictures = examples_rows(
        &read_parquet(&place.0.path("data/results").join(format!("{}.parquet", TABLES[2]))).unwrap(),
    )
    .unwrap();
    let layout = Layout::at(place.0.path(""));
    let plan = Plan::named(&layout, "tiny-one").unwrap();
    let far = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
    };
    let mut rest = &distances[..];
    for task in plan.tasks() {
        let Matrix::F32(s) = read_matrix(&place.runs().join(&task.id).join("samples.npy")).unwrap() else {
            panic!()
        };
        let d = TrainingData::load(&layout, &task.data()).unwrap();
        for multiple in [2, 4] {
            let each = multiple * task.k;
            let sets = 30usize.div_ceil(2 * task.k) * 2 * task.k / each;
            let total =
                (30usize.div_ceil(4 * task.k) * 4 * task.k).max(30usize.div_ceil(2 * task.k) * 2 * task.k);
            assert!(s.nrows() == total && total / each >= sets);
            let row = rows
                .iter()
                .find(|r| (&r.network, r.k, r.multiple) == (&task.network, task.k, multiple))
                .unwrap();
            assert_eq!((row.sets, row.samples), (total / each, total / each * each));
            let mut counts = [0; 3];
            let labels =
                read_parquet(&place.runs().join(&task.id).join(format!("labels-x{multiple}.parquet")));
            let set_of = column_i64(&labels.unwrap(), "set").unwrap();
            for i in 0..row.samples {
                let x = s.row(i);
                let set = i / each * each..(i / each + 1) * each;
                let near = |it: &mut dyn Iterator<Item = f64>| it.fold(f64::INFINITY, f64::min);
                let d_train = near(&mut d.rows().outer_iter().map(|y| far(x, y)));
                let d_synthetic = near(&mut set.filter(|j| *j != i).map(|j| far(x, s.row(j))));
                let label = match () {
                    () if d_train <= 1.5 => 0,
                    () if d_synthetic <= 0.5 => 1,
                    () => 2,
                };
                counts[label] += 1;
                let told = &rest[i];
                assert_eq!((told.sample, told.k, told.multiple), (i, task.k, multiple));
                assert_eq!(told.label, Class::LABELS[label]);
                assert_eq!(set_of[i] as usize, i / each);
                // Squared distances of numbers below 1 in single precision; of equal rows they leave the root of that.
                assert!((f64::from(told.d_train.unwrap()) - d_train).abs() < 2e-3, "{told:?} {d_train}");
                assert!((f64::from(told.d_synthetic.unwrap()) - d_synthetic).abs() < 2e-3, "{told:?}");
            }
            rest = &rest[row.samples..];
            assert_eq!(
                counts,
                [row.memorized.count, row.spurious.count, row.generalized.count],
                "{}",
                task.id
            );
            let share = counts[0] as f64 / row.samples as f64;
            assert!((row.memorized.fraction - share).abs() < 1e-15);
            assert!(row.memorized.low <= share && share <= row.memorized.high);
        }
        // Images match their rows, and distances refer to the image of the sample.
        let of: Vec<_> = pictures.iter().filter(|p| (&*p.network, p.k) == (&*task.network, task.k)).collect();
        assert!(!of.is_empty() && of.iter().all(|p| p.multiple == 2 && p.shape == [4, 4, 3]));
        let mut sample = 0;
        for p in of {
            let from = if p.role == Role::Train { d.rows().row(p.index) } else { s.row(p.index) };
            let bytes: Vec<u8> = from.iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect();
            assert!(bytes.iter().zip(&p.pixels).all(|(a, b)| a.abs_diff(*b) <= 1) && bytes.len() == 48);
            if p.role == Role::Sample {
                sample = p.index;
            } else if p.role == Role::Synthetic {
                assert!(p.index != sample && p.index / (2 * task.k) == sample / (2 * task.k));
            }
            assert!((far(s.row(sample), from) - p.distance).abs() < 2e-3, "{p:?}");
        }
    }
    assert!(rest.is_empty());
    // A notebook finds the tables.
    let context = Context::new(layout, Profile::named("desk").unwrap());
    fs::remove_dir_all(place.runs()).unwrap();
    let tables = transition(&context, "tiny-one").unwrap();
    assert_eq!((tables.cells, tables.samples, tables.examples), (rows, distances, pictures));
    assert!(!place.runs().exists());
}

#[test]
fn foreign_missing_and_wrong_cells_are_refused() {
    let place = Place::new(PLAN);
    let listed = place.sweep(&[&ALL[..], &["--dry-run"]].concat());
    assert!(!place.runs().exists());
    assert!(listed.contains("lsun-church-4-mlp8-k5-s3407") && listed.lines().count() == 8, "{listed}");
    let line = listed.lines().find(|l| l.contains("k9-s3407")).unwrap();
    let columns: Vec<&str> = line.split_whitespace().collect();
    // Linear maps of 8: time 2, input, a block of three, output; two normalisations of a block and one.
    let parameters = 72 + 72 + (48 + 1) * 8 + 3 * 72 + 2 * 16 + 16 + 9 * 48;
    assert_eq!(columns, ["2", "lsun-church-4-mlp8-k9-s3407", &parameters.to_string(), "60", "36", "left"]);

    place.refuses(&["collect", "--plan", "tiny-one"], &["tiny-one", "6 of 6"]);
    place.sweep(&[&ALL[..], &["--task", "1"]].concat());
    place.sweep(&[&ALL[..], &["--only", "exact"]].concat());
    let listed = place.sweep(&[&ALL[..], &["--dry-run"]].concat());
    assert_eq!(listed.lines().filter(|l| l.ends_with("done")).count(), 4, "{listed}");
    place.refuses(&["collect", "--plan", "tiny-one"], &["2 of 6", "lsun-church-4-mlp8-k2-s3407"]);
    let said = place.sweep(&["collect", "--plan", "tiny-one", "--partial"]);
    assert!(said.contains("2 of 6 cells are missing") && said.contains("8 rows"), "{said}");
    let record = fs::read_to_string(place.0.path("data/results/transition_tiny_one.json")).unwrap();
    assert!(record.contains("lsun-church-4-mlp8-k2-s3407"));

    place.refuses(&[&ALL[..], &["--task", "6"]].concat(), &["no task 6"]);
    place.refuses(&[&ALL[..], &["--only", "unet"]].concat(), &["--only"]);
    place.refuses(&["--plan", "none"], &["none.toml"]);
    place.refuses(&[], &["--plan"]);
    place.refuses(&["plan", "--plan", "tiny-one"], &["--slurm"]);

    // The same name with other training.
    place.plan(&PLAN.replace("batch = 8", "batch = 7"));
    place.refuses(&[&ALL[..], &["--task", "1"]].concat(), &["training.batch", "8", "7"]);
    // A folder that is not a cell.
    fs::create_dir(place.runs().join("lsun-church-4-mlp8-k2-s3407")).unwrap();
    fs::write(place.runs().join("lsun-church-4-mlp8-k2-s3407/thesis.tex"), "text").unwrap();
    place.refuses(&[&ALL[..], &["--task", "0"]].concat(), &["thesis.tex"]);
    // Files that were changed after the cell was finished.
    place.plan(PLAN);
    let labels = place.runs().join("lsun-church-4-exact-k2/labels-x4.parquet");
    fs::copy(place.runs().join("lsun-church-4-exact-k5/labels-x4.parquet"), labels).unwrap();
    place.refuses(&["collect", "--plan", "tiny-one", "--partial"], &["exact-k2", "labels-x4.parquet"]);
    place.plan(&PLAN.replace("size = 4", "size = 4\ncolour = 3"));
    place.refuses(&[&ALL[..], &["--dry-run"]].concat(), &["colour"]);
}

#[test]
fn a_damaged_cell_is_found_set_aside_and_made_again() {
    let place = Place::new(PLAN);
    place.sweep(&ALL);
    let whole = tables(&place, &place.runs());
    let cell = place.runs().join("lsun-church-4-mlp8-k5-s3407");
    let zeros = Array2::<f32>::zeros((30, 48));
    let flipped = |name: &str| {
        let mut bytes = fs::read(cell.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(cell.join(name), bytes).unwrap();
    };
    let changed = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(cell.join(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        fs::write(cell.join(name), text.replacen(from, to, 1)).unwrap();
    };
    let damages: [(&str, &dyn Fn()); 10] = [
        ("samples.npy", &|| write_array(&cell.join("samples.npy"), &zeros).unwrap()),
        ("labels-x4.parquet", &|| flipped("labels-x4.parquet")),
        ("examples.parquet", &|| fs::remove_file(cell.join("examples.parquet")).unwrap()),
        ("cell.json", &|| fs::write(cell.join("cell.json"), "{").unwrap()),
        ("train", &|| flipped("train/ema.safetensors")),
        ("train", &|| fs::remove_dir_all(cell.join("train")).unwrap()),
        ("train", &|| changed("train/manifest.json", "\"loss\": ", "\"loss\": 1")),
        ("samples.json", &|| changed("samples.json", "\"sha256\": \"", "\"sha256\": \"0")),
        ("task.json", &|| changed("task.json", "{", "[")),
        ("task.json", &|| fs::remove_file(cell.join("task.json")).unwrap()),
    ];
    for (part, damage) in damages {
        damage();
        let landscape = [
            "basin",
            "--run",
            cell.to_str().unwrap(),
            "--class",
            "memorized",
            "--out",
            &place.0.at("b.parquet"),
        ];
        if part == "samples.npy" {
            let said = place.call(&landscape);
            assert!(
                !said.ok && said.stderr.contains("samples.npy is not what cell.json records"),
                "{}",
                said.stderr
            );
        }
        let said = place.call(&[&["sweep"], &ALL[..]].concat());
        let heard = format!("{}{}", said.stdout, said.stderr);
        assert!(
            said.ok && heard.contains(&format!("kept as {part}.damaged and made again")),
            "{part}: {heard}"
        );
        assert!(tables(&place, &place.runs()) == whole, "{part}");
        assert!(place.sweep(&ALL).contains("6 done before or elsewhere, 0 done now"), "{part}");
    }
}

#[test]
fn a_failed_cell_is_reported_and_the_others_continue() {
    let wild = r#"
        [[network]]
        name = "wild"
        arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }
        sizes = [2]
        learning_rate = 1e30

        [[network]]
        name = "mlp8""#;
    let place = Place::new(&PLAN.replacen("\n[[network]]\nname = \"mlp8\"", wild, 1));
    let said = place.call(&[&["sweep"], &ALL[..]].concat());
    assert!(!said.ok && said.stdout.contains("6 done now, 1 failed"), "{}", said.stdout);
    assert!(said.stderr.lines().all(|l| l.contains("wild-k2") && l.contains("diverged")), "{}", said.stderr);
    // No threshold is known without two modes and held-out images: the samples are kept.
    let place = Place::new(&PLAN.replace("delta_m = 1.5\n", "").replace("delta_s = 0.5\n", ""));
    let said = place.call(&["sweep", "--plan", "tiny-one", "--only", "mlp8-k9"]);
    assert!(!said.ok && said.stderr.contains("no threshold is known"), "{}", said.stderr);
    place.plan(PLAN);
    let before = written(&place.runs(), "samples.npy");
    place.sweep(&[&ALL[..], &["--only", "mlp8-k9"]].concat());
    assert!(before.len() == 1 && before == written(&place.runs(), "samples.npy"));
}

/// The nearest number of half precision, ties to even.
fn half(v: f32) -> f32 {
    let v = f64::from(v);
    let exponent = if v == 0.0 { -14 } else { (v.abs().log2().floor() as i32).max(-14) };
    let step = 2f64.powi(exponent - 10);
    ((v / step).round_ties_even() * step) as f32
}

#[test]
fn published_weights_replace_training() {
    let place = Place::new(PLAN);
    place.sweep(&ALL);
    let nets = place.0.path("nets");
    let at = nets.to_str().unwrap();
    let said = place.sweep(&["publish", "--plan", "tiny-one", "--out", at]);
    assert!(said.starts_with("sweep: 3 networks, 0 not finished"), "{said}");
    let files: Vec<PathBuf> = fs::read_dir(&nets).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    let again = place.0.path("again");
    let with = [&ALL[..], &["--runs", again.to_str().unwrap(), "--networks", at]].concat();
    place.sweep(&with);
    for k in [2, 5, 9] {
        let run =
            |runs: &Path| RunDir::open(&runs.join(format!("lsun-church-4-mlp8-k{k}-s3407/train"))).unwrap();
        let (trained, restored) = (run(&place.runs()), run(&again));
        let values = |run: &RunDir| run.weights(Kind::Ema).unwrap().0.values().to_vec();
        let expected: Vec<f32> = values(&trained).into_iter().map(half).collect();
        assert_eq!(values(&restored), expected);
        assert!(expected != values(&trained));
        let (a, b) = (trained.manifest().unwrap().unwrap(), restored.manifest().unwrap().unwrap());
        assert!(a.restored_from.is_none() && b.restored_from.is_some());
        assert_eq!((a.key, a.loss, a.seconds, a.steps), (b.key, b.loss, b.seconds, b.steps));
        assert!(restored.weights(Kind::Raw).is_err());
    }
    tables(&place, &again);
    let rows = cells(&place.0.path("collected"));
    assert!(rows.iter().all(|r| r.restored == (r.score == "network")));
    // Finished cells stay unchanged, with and without the folder.
    assert!(place.sweep(&with).contains("6 done before"));
    assert!(place.sweep(&with[..4]).contains("6 done before"));

    // A changed byte, a file with the name of another cell, a file of another kind.
    let third = place.0.path("third");
    let with = [&ALL[..], &["--runs", third.to_str().unwrap(), "--networks", at, "--task", "0"]].concat();
    let plan = Plan::named(&Layout::at(place.0.path("")), "tiny-one").unwrap();
    let name = |i: usize| nets.join(plan.tasks()[i].weights().unwrap());
    let whole = fs::read(name(0)).unwrap();
    let loss = whole.windows(7).position(|w| w == b"\\\"loss\\").unwrap() + 12;
    for place_of in [9, loss, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[place_of] ^= 1;
        fs::write(name(0), bytes).unwrap();
        place.refuses(&with, &["k2-s3407"]);
        assert!(!third.join("lsun-church-4-mlp8-k2-s3407/cell.json").exists());
        assert!(!third.join("lsun-church-4-mlp8-k2-s3407/train/manifest.json").exists());
    }
    fs::copy(name(1), name(0)).unwrap();
    place.refuses(&with, &["belongs to the run"]);
    fs::write(name(0), &whole[..whole.len() - 2]).unwrap();
    place.refuses(&with, &["safetensors"]);
    write_array(&name(0), &Array2::<f32>::zeros((2, 2))).unwrap();
    place.refuses(&with, &["safetensors"]);
    // The correct file, in the same folder.
    fs::write(name(0), &whole).unwrap();
    place.sweep(&with);
}

#[test]
fn each_task_of_the_array_job_computes_one_cell() {
    let place = Place::new(PLAN);
    let folder = place.0.path("it's $HOME");
    let runs = folder.to_str().unwrap();
    let script =
        place.sweep(&["plan", "--plan", "tiny-one", "--runs", runs, "--slurm", "--array-limit", "2"]);
    assert!(script.starts_with("#!/bin/sh\n") && script.contains("\n#SBATCH --array=0-5%2\n"), "{script}");
    let file = place.0.path("job.sh");
    let to = ["plan", "--plan", "tiny-one", "--runs", runs, "--slurm", "--out", file.to_str().unwrap()];
    place.sweep(&to);
    assert!(fs::read_to_string(&file).unwrap().contains("--array=0-5\n"));
    let output = Command::new("sh")
        .arg(&file)
        .env("SLURM_ARRAY_TASK_ID", "4")
        .env("MEM2GEN_DATA", place.0.path("data/cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8(output.stderr).unwrap());
    assert!(folder.join("lsun-church-4-exact-k5/cell.json").is_file());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
