//! The present code gives the committed tables: a few of their rows are computed again.
//!
//! A change that moves the numbers without increasing the study's `VERSION` fails here. Another kind of processor rounds
//! sums differently, so one or two starts may end at another attractor.

use std::path::Path;

use mem2gen::class::Group;
use mem2gen::data::{self, Range, Split};
use mem2gen::device::{Device, DeviceChoice};
use mem2gen::frame::read_parquet;
use mem2gen::memory::toy::points;
use mem2gen::memory::{self, AttractorSettings};
use mem2gen::ops::Memories;
use mem2gen::process::Process;
use mem2gen::progress::Silent;
use mem2gen::project::Layout;
use mem2gen::random::Streams;
use mem2gen::sample::start;
use mem2gen::score::Network;
use mem2gen::study::attractors::frame::census_rows;
use mem2gen::study::attractors::{CensusSettings, Start, Starts, find};
use mem2gen::study::basin::frame::basin_summary_rows;
use mem2gen::study::basin::{BasinSettings, Distance, Search, summarise};
use mem2gen::study::claims::Claims;
use mem2gen::study::claims::frame::claims_rows;
use mem2gen::study::context::Profile;
use mem2gen::study::curvature::frame::sets_rows;
use mem2gen::study::curvature::{CurvatureSettings, Points, curvature, point_rows, set_row};
use mem2gen::study::load::frame::load_rows;
use mem2gen::study::load::{LoadData, LoadSettings, load_cell, null_distance};
use mem2gen::study::prompts::frame::prompts_rows;
use mem2gen::study::prompts::{DosesSettings, Prompt, PromptSettings, TrainedPrompts, measure};
use mem2gen::study::subject::networks_rows;
use mem2gen::study::sweep::frame::cells_rows;
use mem2gen::study::sweep::{self, Options, Plan, Task, Watch};
use mem2gen::study::toy::frame::ladder_rows;
use mem2gen::study::toy::trained::frame::{attractors_rows, grid_rows, summary_rows};
use mem2gen::study::toy::trained::{GridRow, TrainedSettings};
use mem2gen::study::toy::{ToySettings, ladder};
use mem2gen::train::{Kind, RunDir, TrainSettings, TrainingData};
use ndarray::{Axis, concatenate, s};

fn layout() -> Layout {
    Layout::at(env!("CARGO_MANIFEST_DIR"))
}

/// A table of settings of profile desk.
fn settings<T: serde::de::DeserializeOwned>(table: &'static str) -> T {
    Profile::named("desk").unwrap().settings(table).unwrap()
}

fn table(name: &str) -> polars::prelude::DataFrame {
    read_parquet(&layout().results().join(format!("{name}.parquet"))).unwrap()
}

#[test]
fn rows_of_the_toy_ladder_are_reproduced() {
    let committed = ladder_rows(&table("toy_ladder")).unwrap();
    let settings: ToySettings = settings("toy");
    assert_eq!(committed.len(), settings.ladder_sizes.len() * settings.ladder.2);
    for wanted in committed.iter().filter(|r| r.k <= 9).step_by(11) {
        let one = ToySettings {
            ladder_sizes: vec![wanted.k],
            ladder: (wanted.beta, 2.0 * wanted.beta, 2),
            ..settings.clone()
        };
        let got = &ladder(&one, &Silent).unwrap()[0];
        assert_eq!((got.memorized, got.spurious), (wanted.memorized, wanted.spurious), "{wanted:?}");
        assert_eq!(got.certified, wanted.certified, "{wanted:?}");
        assert!((got.share_memorized - wanted.share_memorized).abs() <= 0.01, "{wanted:?}");
        assert!((got.farthest - wanted.farthest).abs() <= 1e-9, "{wanted:?}");
    }
}

/// The trained half of Fig. 2 without training: the exact values in its tables, and the errors in its summary.
#[test]
fn errors_of_the_trained_toy_follow_from_its_grid() {
    let path = layout().results().join("toy_trained.parquet");
    if !path.exists() {
        eprintln!("SKIPPED: {} was not made; `make check` says so too", path.display());
        return;
    }
    let (grid, summary) =
        (grid_rows(&table("toy_trained_grid")).unwrap(), summary_rows(&table("toy_trained")).unwrap());
    let attractors = attractors_rows(&table("toy_trained_attractors")).unwrap();
    let settings: TrainedSettings = settings("toy_trained");
    assert_eq!(grid.len(), settings.networks.len() * settings.grid * settings.grid);
    for (row, network) in summary.iter().zip(&settings.networks) {
        assert_eq!(row.k, network.k);
        let points = points(row.k).unwrap();
        let memories = Memories::new(points.clone()).unwrap();
        let constant = ((row.k as f64).ln() + (std::f64::consts::PI / row.beta).ln()) / row.beta;
        let of: Vec<&GridRow> = grid.iter().filter(|r| r.k == row.k).collect();
        let least = of.iter().map(|r| r.exact).fold(f64::INFINITY, f64::min);
        let kept: Vec<&GridRow> =
            of.iter().copied().filter(|r| r.exact <= least - settings.region.ln() / row.beta).collect();
        assert_eq!(kept.len(), row.region_points);
        let n = kept.len() as f64;
        let mean = kept.iter().map(|r| r.trained - r.exact).sum::<f64>() / n;
        let square = kept.iter().map(|r| (r.trained - r.exact - mean).powi(2)).sum::<f64>() / n;
        assert!((square.sqrt() - row.misfit.region_rms).abs() < 1e-12, "{row:?}");
        for r in of.iter().step_by(7) {
            let exact = memories.energy(ndarray::array![[r.x, r.y]].view(), row.beta).unwrap()[0];
            assert!((r.exact - constant - exact).abs() < 1e-10, "{r:?}");
        }
        let search = AttractorSettings {
            random_starts: settings.random_starts,
            seed: settings.seed,
            ..AttractorSettings::default()
        };
        let exact = memory::attractors(points.clone(), row.beta, &search).unwrap();
        assert_eq!(exact.found.len(), row.exact_attractors);
        for (a, committed) in exact.found.iter().zip(attractors.iter().filter(|a| a.k == row.k && !a.trained))
        {
            assert!((a.x[0] - committed.x).hypot(a.x[1] - committed.y) < 1e-6, "{committed:?}");
        }
    }
}

#[test]
fn cells_of_the_memory_load_are_reproduced() {
    let committed = load_rows(&table("memory_load")).unwrap();
    let params = settings::<LoadSettings>("load").check().unwrap();
    for name in &params.settings().datasets {
        let Ok(train) = data::load(&layout(), name, Split::Train) else {
            assert!(!Path::new(&layout().data_cache().join(name)).exists(), "{name} exists but is damaged");
            eprintln!("SKIPPED: {name} was not fetched");
            continue;
        };
        let test = data::load(&layout(), name, Split::Test).unwrap();
        let set = LoadData {
            name: name.clone(),
            train: train.subset(train.len()).unwrap().to_f32(Range::Unit).into_shared(),
            held_out: test.to_f32(Range::Unit),
        };
        let held_out = set.held_out.slice(s![..params.settings().held_out, ..]);
        let delta = params.settings().delta_fraction
            * null_distance(held_out, set.train.clone(), DeviceChoice::default()).unwrap();
        let small = committed.iter().filter(|c| c.dataset == *name && c.k <= 512).step_by(17);
        for wanted in small {
            let stored = set.train.clone().slice_move(s![..wanted.k, ..]);
            let noise = params.noise(&wanted.noise).unwrap();
            let got = load_cell(name, &stored, noise, wanted.beta, delta, &params).unwrap();
            assert!((got.delta - wanted.delta).abs() <= 1e-9 * wanted.delta);
            assert_eq!(got.starts, wanted.starts);
            let two = 2.0 / wanted.starts as f64 + 1e-12;
            assert!(got.fractions.change(&wanted.fractions) <= two, "{got:?} {wanted:?}");
            assert!((got.recall - wanted.recall).abs() <= two, "{got:?} {wanted:?}");
        }
    }
}

/// Cells of the committed sweep sampled and labelled again from their published weights, which are rounded to half
/// precision.
#[test]
fn cells_of_the_transition_follow_from_their_published_weights() {
    if data::load(&layout(), "mnist", Split::Train).is_err() {
        eprintln!("SKIPPED: mnist is not in the cache");
        return;
    }
    let rows = cells_rows(&table("transition_mnist_mlp")).unwrap();
    let plan = Plan::named(&layout(), "mnist-mlp").unwrap();
    let (runs, networks) = (tempfile::tempdir().unwrap(), layout().results().join("networks"));
    for id in ["mnist-7-mlp32-k16-s3407", "mnist-7-mlp32-k64-s3407", "mnist-7-exact-k64"] {
        let task = plan.tasks().iter().find(|task| task.id == id).unwrap();
        let options = Options { device: DeviceChoice::default(), networks: Some(&networks), wait: false };
        let summary = sweep::run(&plan, &[task.index], runs.path(), &layout(), &options, &Quiet).unwrap();
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        let record = sweep::SweepCell::from_task(runs.path(), task).record(task).unwrap().unwrap();
        assert!(record.network.is_none_or(|n| n.restored));
        let committed =
            rows.iter().find(|r| r.k == task.k && r.network == task.network && r.multiple == 4).unwrap();
        let found = &record.found.iter().find(|f| f.multiple == 4).unwrap().classification;
        let fractions = found.fractions.unwrap();
        assert_eq!(found.samples, committed.samples);
        for (got, wanted) in [
            (fractions.memorized.fraction, committed.memorized.fraction),
            (fractions.spurious.fraction, committed.spurious.fraction),
            (fractions.generalized.fraction, committed.generalized.fraction),
        ] {
            // Samples near a threshold may cross it with rounded weights.
            assert!((got - wanted).abs() <= 0.03, "{id}: {got} {wanted}");
        }
    }
}

/// Basins and spectra at the training images of one cell of each data set, from its published weights.
#[test]
fn landscapes_follow_from_the_published_weights() {
    let (basin, spectrum): (BasinSettings, CurvatureSettings) = (settings("basin"), settings("curvature"));
    let basins = networks_rows(&table("basins"), basin_summary_rows).unwrap();
    let sets = networks_rows(&table("curvature_sets"), sets_rows).unwrap();
    let censuses = networks_rows(&table("attractors"), census_rows).unwrap();
    let (runs, networks) = (tempfile::tempdir().unwrap(), layout().results().join("networks"));
    for (dataset, plan) in [("mnist", "mnist-mlp"), ("fashion-mnist", "fashion-mnist-mlp")] {
        if data::load(&layout(), dataset, Split::Train).is_err() {
            eprintln!("SKIPPED: {dataset} is not in the cache");
            continue;
        }
        let plan = Plan::named(&layout(), plan).unwrap();
        let task = plan.tasks().iter().find(|task| task.network == "mlp128" && task.k == 16).unwrap();
        let options = Options { device: DeviceChoice::default(), networks: Some(&networks), wait: false };
        let summary = sweep::run(&plan, &[task.index], runs.path(), &layout(), &options, &Quiet).unwrap();
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        let train = RunDir::open(&sweep::SweepCell::from_task(runs.path(), task).train()).unwrap();
        let score = Network::new(train.weights(Kind::Ema).unwrap().0, train.prediction(), 128).unwrap();
        let data = train.data(&layout()).unwrap();
        let (images, ids, vp) = (data.rows(), Vec::from_iter(0..16), plan.process());

        let params = basin.check(None).unwrap();
        let search = Search { score: &score, vp, params, distance: &Distance::l2() };
        let rows = search.rows(Group::Training, images.view(), &ids, &Silent).unwrap();
        let got = &summarise(16, &rows, &params)[0];
        let of = basins.iter().find(|of| of.is_of(dataset, "mlp128")).unwrap();
        let wanted = of.rows.iter().find(|r| r.k == 16 && r.group == Group::Training).unwrap();
        // On another processor a copy at the edge of its basin may end elsewhere, which changes one image by one level.
        let stride = basin.stride as f64;
        assert!(
            (got.critical_time.mean - wanted.critical_time.mean).abs() <= stride / 8.0,
            "{got:?} {wanted:?}"
        );
        assert!((got.log_volume.mean - wanted.log_volume.mean).abs() <= 0.5, "{got:?} {wanted:?}");

        let census: CensusSettings = settings("attractors");
        let params = CensusSettings { t: vec![15.0], ..census }.check(Some(0.2)).unwrap();
        let mut streams = Streams::new(params.settings().seed, "attractors", 0..params.settings().starts);
        let rows = concatenate![Axis(0), start(vp, images.ncols(), &mut streams), images.mapv(f64::from)];
        let noise = vec![Start::Noise; params.settings().starts];
        let starts = Starts { kinds: [noise, vec![Start::Images(Group::Training); 16]].concat(), rows };
        let memories = Memories::new(images.mapv(f64::from)).unwrap();
        let found = find(&score, vp.level(15.0).unwrap(), &starts, &memories, &params, &Silent).unwrap();
        let got = found.row(16, false, &starts);
        let of = censuses.iter().find(|of| of.is_of(dataset, "mlp128")).unwrap();
        let wanted = of.rows.iter().find(|r| r.k == 16 && r.t == 15.0 && !r.exact).unwrap();
        assert_eq!(got.memorized, wanted.memorized);
        // On another processor a start at the edge of its basin may end at another attractor.
        for (a, b) in [(got.spurious, wanted.spurious), (got.reached_memorized, wanted.reached_memorized)] {
            assert!(a.abs_diff(b) <= 1, "{got:?} {wanted:?}");
        }

        let params = spectrum.clone().check().unwrap();
        let x = images.mapv(f64::from);
        let points = Points { rows: x.view(), samples: &ids, shape: train.shape() };
        let spectra = curvature(&score, vp, &points, &params, None, &Silent).unwrap();
        let of = sets.iter().find(|of| of.is_of(dataset, "mlp128")).unwrap();
        let wanted = of.rows.iter().find(|r| r.set.k == 16 && r.set.group == Group::Training).unwrap();
        let got = set_row(wanted.set, &point_rows(&spectra, params.settings().drop_top)).unwrap();
        // Differences of a score in single precision.
        assert!((got.mean / wanted.mean - 1.0).abs() < 1e-4, "{got:?} {wanted:?}");
        let (a, b) = (got.asymmetry.unwrap(), wanted.asymmetry.unwrap());
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// Two captions of the network of doses, from its published weights.
#[test]
fn captions_follow_from_the_published_weights() {
    let DosesSettings { plan, steps, measure: wanted, .. } = settings("prompts");
    let training = TrainSettings::named(&layout(), &plan).unwrap();
    let Ok(data) = TrainingData::load(&layout(), &training.data) else {
        eprintln!("SKIPPED: emoji are not in the cache");
        return;
    };
    let (params, run) = (training.check(data.shape()).unwrap(), tempfile::tempdir().unwrap());
    let file = layout().results().join("networks").join(format!("{plan}.safetensors"));
    RunDir::restore(run.path(), &params, &data, Device::Cpu, &file).unwrap();
    let model = TrainedPrompts::open(run.path(), &layout(), DeviceChoice::default(), 64).unwrap();
    let wanted = PromptSettings { exact: 0, seeds: 2, ..wanted }.check().unwrap();
    let rows = prompts_rows(&table("prompts_doses")).unwrap();
    for (number, caption) in model.captions().into_iter().enumerate().filter(|(n, _)| [0, 200].contains(n)) {
        let found = measure(&model, (number, &Prompt::new(caption)), &wanted, None, &Silent).unwrap();
        for one in found {
            let due = rows
                .iter()
                .find(|r| {
                    (r.step, r.prompt, r.seed) == (steps.last().copied(), number, one.row.seed)
                        && r.caption == caption
                })
                .unwrap();
            // Another processor rounds the sums of the sampler's 50 steps in another way.
            assert!((one.row.curvature / due.curvature - 1.0).abs() < 0.02, "{:?} {due:?}", one.row);
            assert!((one.row.own.unwrap() - due.own.unwrap()).abs() < 0.01, "{:?} {due:?}", one.row);
            assert_eq!((one.row.dose, &one.row.part), (due.dose, &due.part));
        }
    }
}

/// The page of claims contains the output of `mem2gen claims --markdown` for the committed table.
#[test]
fn the_page_of_claims_is_that_of_the_table() {
    let page = std::fs::read_to_string(layout().root().join("docs/claims.md")).unwrap();
    let printed = Claims { rows: claims_rows(&table("claims")).unwrap() }.markdown();
    assert!(
        page.ends_with(&format!("\n{printed}")),
        "docs/claims.md does not match data/results/claims.parquet"
    );
}

struct Quiet;

impl Watch for Quiet {
    fn sink(&self) -> &dyn mem2gen::progress::ProgressSink {
        &Silent
    }

    fn step(&self, _: &Task, _: &'static str, _: u64) {}
}
