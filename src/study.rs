//! The stored results: for each one the settings of the run's profile, its data, its fingerprint, and the
//! analysis that makes it where no stored table fits.

mod claims;
mod landscape;

use std::path::Path;

use polars::prelude::DataFrame;
use serde_json::{Value, json};

pub use claims::{capacity, claims, transition_claims};
pub use landscape::{Basins, Energies, Spectra, basins, energies, spectra};

use crate::Error;
use crate::analyse::load::{Example, LoadCell, LoadData, LoadParams};
use crate::analyse::toy::{LadderRow, ToySettings};
use crate::analyse::toy_trained::{ToyNetwork, TrainedToy};
use crate::analyse::transition::Transition;
use crate::analyse::{load, toy, toy_trained};
use crate::data::{self, DataError, Dataset, Range, Split};
use crate::notebook::Run;
use crate::ops::{Device, DeviceChoice, OpError};
use crate::process::{Prediction, Process, Ve};
use crate::profile::TrainDefaults;
use crate::progress::{ProgressSink, Silent};
use crate::project::Layout;
use crate::random::SEED;
use crate::score::Network;
use crate::store::StoreError;
use crate::sweep::{self, Plan, SweepError, Task};
use crate::table::TableError;
use crate::table::fingerprint::Fingerprint;
use crate::table::load::{load_cells, load_frame};
use crate::table::toy::{ladder_frame, ladder_rows};
use crate::table::toy_trained as frames;
use crate::table::train::metrics_bytes;
use crate::train::{
    self, AdamSettings, DataSettings, Kind, ProcessSettings, RunDir, TrainSettings, Trained, TrainingData,
    VeTraining,
};

/// The exact row of Fig. 2: a panel for each size of the profile, and the ring.
///
/// # Errors
/// Those of the analysis.
pub fn toy_panels(run: &Run) -> Result<Vec<toy::Panel>, Error> {
    let settings = &run.settings().toy;
    let sizes = settings.sizes.iter().map(|&k| toy::Size::Points(k)).chain([toy::Size::Infinite]);
    Ok(sizes.map(|size| toy::panel(size, settings.beta, settings)).collect::<Result<_, _>>()?)
}

/// The landscape of `k` toy points at each of `betas`.
///
/// # Errors
/// Those of the analysis.
pub fn toy_temperatures(run: &Run, k: usize, betas: &[f64]) -> Result<Vec<toy::Panel>, Error> {
    let settings = &run.settings().toy;
    Ok(betas
        .iter()
        .map(|&beta| toy::panel(toy::Size::Points(k), beta, settings))
        .collect::<Result<_, _>>()?)
}

/// Energy along the circle for the sizes of the profile and the ring, at `steps` angles: Fig. 1A.
///
/// # Errors
/// Those of the analysis.
pub fn toy_profiles(run: &Run, steps: usize) -> Result<Vec<toy::CircleProfile>, Error> {
    let settings = &run.settings().toy;
    let sizes = settings.sizes.iter().map(|&k| toy::Size::Points(k)).chain([toy::Size::Infinite]);
    Ok(sizes.map(|size| toy::along_circle(size, settings.beta, steps)).collect::<Result<_, _>>()?)
}

/// How far the first K toy points are from the ring, for every pair of `sizes` and `betas`.
///
/// # Errors
/// Those of the analysis.
pub fn ring_convergence(sizes: &[usize], betas: &[f64]) -> Result<Vec<toy::RingGap>, Error> {
    let mut rows = Vec::with_capacity(sizes.len() * betas.len());
    for &k in sizes {
        let points = crate::memory::toy::points(k)?;
        for &beta in betas {
            rows.push(toy::ring_gap(points.view(), beta, 720)?);
        }
    }
    Ok(rows)
}

/// Attractors of the toy's exact energy against beta; stored as `toy_ladder`.
///
/// # Errors
/// Those of the analysis and of the stored table.
pub fn toy_ladder(run: &Run) -> Result<Vec<LadderRow>, Error> {
    let settings = &run.settings().toy;
    let asked = json!({
        "ladder_sizes": settings.ladder_sizes,
        "ladder": settings.ladder,
        "random_starts": settings.random_starts,
    });
    let fingerprint = Fingerprint::new("toy ladder", toy::VERSION, asked, run.profile());
    let frame = run.recall("toy_ladder", &fingerprint, Device::Cpu, || {
        let total = settings.ladder_sizes.len() * settings.ladder.2;
        let progress = run.progress("attractors", total as u64);
        Ok(ladder_frame(&toy::ladder(settings, &progress)?)?)
    })?;
    Ok(ladder_rows(&frame)?)
}

/// Rows that a toy network takes at a time.
const NETWORK_ROWS: usize = 512;

/// The trained half of Fig. 2: networks are trained in folders below the run's output, where one that was stopped goes
/// on, and analysed. Stored as `toy_trained`, `toy_trained_grid`, `toy_trained_attractors` and
/// `toy_trained_clusters`.
///
/// # Errors
/// Those of training, of the analysis and of the stored tables.
pub fn toy_trained(run: &Run) -> Result<TrainedToy, Error> {
    let params = run.settings().toy_trained.clone().check()?;
    let settings = params.settings();
    let Some(defaults) = run.settings().train.get("toy") else {
        return Err(DataError::UnknownName { name: "toy".into(), known: "none in [train]".into() }.into());
    };
    let networks: Vec<(ToyNetwork, TrainSettings)> =
        settings.networks.iter().map(|n| (*n, toy_network(defaults, n))).collect();
    let training: Vec<&TrainSettings> = networks.iter().map(|(_, t)| t).collect();
    let asked = json!({ "analysis": settings, "training": training, "numbers of training": train::VERSION });
    let mut fingerprint = Fingerprint::new("toy trained", toy_trained::VERSION, asked, run.profile());
    for (n, settings) in &networks {
        let sha256 = TrainingData::load(run.layout(), &settings.data)?.sha256();
        fingerprint = fingerprint.data(&format!("toy points, K = {}", n.k), &sha256);
    }

    // All tables come of one computation, which happens where the first of them doesn't fit.
    let mut made: Option<TrainedToy> = None;
    let mut make = || -> Result<TrainedToy, Error> {
        if let Some(all) = &made {
            return Ok(all.clone());
        }
        let cells = run.cells(&fingerprint);
        if run.recompute() {
            cells.clear()?;
        }
        let mut all = TrainedToy::default();
        for (n, training) in &networks {
            let id = format!("k{}", n.k);
            let one = match cells.get(&id) {
                Some(one) => one,
                None => {
                    let one = toy_trained_one(run, n, training, &params)?;
                    cells.put(&id, &one)?;
                    one
                }
            };
            all.extend(one);
        }
        Ok(made.insert(all).clone())
    };
    let mut recall = |name: &str, frame: fn(&TrainedToy) -> Result<DataFrame, TableError>| {
        run.recall(name, &fingerprint, Device::Cpu, || Ok(frame(&make()?)?))
    };
    let summary = recall("toy_trained", |all| frames::summary_frame(&all.summary))?;
    let grid = recall("toy_trained_grid", |all| frames::grid_frame(&all.grid))?;
    let attractors = recall("toy_trained_attractors", |all| frames::attractors_frame(&all.attractors))?;
    let clusters = recall("toy_trained_clusters", |all| frames::clusters_frame(&all.clusters))?;
    Ok(TrainedToy {
        grid: frames::grid_rows(&grid)?,
        attractors: frames::attractors_rows(&attractors)?,
        clusters: frames::clusters_rows(&clusters)?,
        summary: frames::summary_rows(&summary)?,
    })
}

/// One network: trained, and analysed with the average of its weights.
fn toy_trained_one(
    run: &Run,
    network: &ToyNetwork,
    training: &TrainSettings,
    params: &toy_trained::TrainedParams,
) -> Result<TrainedToy, Error> {
    let k = network.k;
    let data = TrainingData::load(run.layout(), &training.data)?;
    let path = RunDir::place(&run.output().join("runs"), &training.clone().check(data.shape())?);
    // From nothing: what is finished is made again. What was stopped goes on, as a run from nothing has to end too.
    if run.recompute() && path.exists() && RunDir::open(&path)?.manifest()?.is_some() {
        std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
    }
    println!("K = {k}:");
    let progress = run.progress("training", training.steps);
    let trained =
        self::train(training.clone(), run.layout(), &path, DeviceChoice::Only(Device::Cpu), &progress)?;
    drop(progress);
    let (weights, _) = trained.run.weights(Kind::Ema)?;
    let score = Network::new(weights, trained.run.prediction(), NETWORK_ROWS)?;
    let settings = params.settings();
    let steps = settings.grid * settings.grid + settings.draws + settings.sampler_steps;
    let progress = run.progress("likelihood", steps as u64);
    Ok(toy_trained::analyse(&score, Ve::default(), (k, network.threshold), params, &progress)?)
}

/// How a network of Fig. 2 is trained: as `mem2gen train --dataset toy` does in the same profile, but for the steps.
fn toy_network(defaults: &TrainDefaults, network: &ToyNetwork) -> TrainSettings {
    TrainSettings {
        data: DataSettings::Toy { k: network.k },
        arch: defaults.arch.clone(),
        process: ProcessSettings::Ve(VeTraining::default()),
        prediction: Prediction::Epsilon,
        steps: network.steps,
        batch: defaults.batch,
        repeat: defaults.repeat,
        adam: AdamSettings { learning_rate: defaults.learning_rate, ..AdamSettings::default() },
        ema: defaults.ema,
        seed: SEED,
        checkpoint_every: defaults.checkpoint_every,
        log_every: defaults.log_every,
    }
}

/// The exact energies at the time of the trained ones, for every size and the ring, and the panel that the paper shows
/// beside its trained ones: the ring at the exact panel's beta.
///
/// # Errors
/// Those of the analysis.
pub fn toy_trained_exact(run: &Run) -> Result<(Vec<toy::Panel>, toy::Panel), Error> {
    let trained = run.settings().toy_trained.clone().check()?;
    let trained = trained.settings();
    let settings =
        ToySettings { grid: trained.grid, half_width: trained.half_width, ..run.settings().toy.clone() };
    let beta = Ve::default().level(trained.t)?.beta();
    let sizes = trained.networks.iter().map(|n| toy::Size::Points(n.k)).chain([toy::Size::Infinite]);
    let exact = sizes.map(|size| toy::panel(size, beta, &settings)).collect::<Result<_, _>>()?;
    Ok((exact, toy::panel(toy::Size::Infinite, settings.beta, &settings)?))
}

/// The transition from memorization to generalization by the plan of this name in `data/plans`: stored as
/// `transition_PLAN`, `transition_PLAN_samples` and `transition_PLAN_examples`. Where they do not fit, the cells of the
/// plan that are left are trained, sampled and labelled in `out/sweep/PLAN`.
///
/// # Errors
/// Those of the plan, of the data sets and of the stored tables; [`SweepError::Failed`] where a cell failed.
pub fn transition(run: &Run, plan: &str) -> Result<Transition, Error> {
    let plan = Plan::named(run.layout(), plan)?;
    let fingerprint = sweep::fingerprint(&plan, run.layout(), run.profile(), &[])?;
    let mut made: Option<Transition> = None;
    let mut make = || -> Result<Transition, Error> {
        if made.is_none() {
            made = Some(transition_tables(run, &plan)?);
        }
        Ok(made.clone().unwrap_or_default())
    };
    let mut all = Transition::default();
    for form in &sweep::FORMS {
        let frame =
            run.recall(&form.name(&plan), &fingerprint, Device::Cpu, || Ok((form.frame)(&make()?)?))?;
        (form.take)(&mut all, &frame)?;
    }
    Ok(all)
}

/// All sweeps of the profile together.
///
/// # Errors
/// As [`transition`].
pub fn transitions(run: &Run) -> Result<Transition, Error> {
    let mut all = Transition::default();
    for plan in &run.settings().transition.plans {
        let one = transition(run, plan)?;
        all.cells.extend(one.cells);
        all.samples.extend(one.samples);
        all.examples.extend(one.examples);
    }
    Ok(all)
}

/// Does what is left of a plan and collects it.
fn transition_tables(run: &Run, plan: &Plan) -> Result<Transition, Error> {
    let runs = plan.runs(run.layout());
    if run.recompute() && runs.exists() {
        std::fs::remove_dir_all(&runs).map_err(StoreError::io("remove", &runs))?;
    }
    let tasks: Vec<usize> = (0..plan.tasks().len()).collect();
    let progress = run.progress("cells", tasks.len() as u64);
    let options = sweep::Options { device: run.settings().device, networks: None, wait: true };
    stopped(plan, sweep::run(plan, &tasks, &runs, run.layout(), &options, &Counted(&progress))?)?;
    drop(progress);
    Ok(sweep::collect(plan, &runs, false)?.tables)
}

/// Err with the first cell that failed.
fn stopped(plan: &Plan, summary: sweep::Summary) -> Result<(), Error> {
    match summary.failed.first() {
        None => Ok(()),
        Some((id, e)) => Err(SweepError::Failed {
            name: plan.name().into(),
            failed: summary.failed.len(),
            tasks: summary.tasks,
            first: format!("{id}: {e}"),
        }
        .into()),
    }
}

/// Counts the cells of a sweep.
struct Counted<'a>(&'a dyn ProgressSink);

impl sweep::Watch for Counted<'_> {
    fn sink(&self) -> &dyn ProgressSink {
        &Silent
    }

    fn step(&self, task: &Task, step: &'static str, _: u64) {
        self.0.stage(&format!("{} {step}", task.id));
    }

    fn over(&self, _: &Task, _: &sweep::Outcome) {
        self.0.advance(1);
    }
}

/// The phase diagram of DenseAM retrieval on real images; stored as `memory_load`.
///
/// # Errors
/// Those of the analysis, of the data sets and of the stored table.
pub fn memory_load(run: &Run) -> Result<Vec<LoadCell>, Error> {
    let params = run.settings().load.clone().check()?.on(run.settings().device);
    let names = &params.settings().datasets;
    let sets = names.iter().map(|n| images(run, n)).collect::<Result<Vec<_>, _>>()?;
    let settings = serde_json::to_value(params.settings()).unwrap_or(Value::Null);
    let mut fingerprint = Fingerprint::new("memory load", load::VERSION, settings, run.profile());
    for (name, (train, test)) in names.iter().zip(&sets) {
        fingerprint = fingerprint
            .data(&format!("{name} train"), &train.sha256())
            .data(&format!("{name} test"), &test.sha256());
    }
    let (device, _) = run
        .settings()
        .device
        .resolve()
        .map_err(|source| OpError::Device { operation: "memory load", source })?;
    let frame = run.recall("memory_load", &fingerprint, device, || {
        let data = names
            .iter()
            .zip(sets)
            .map(|(name, (train, test))| load_data(name, &train, &test, train.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let cells = run.cells(&fingerprint);
        if run.recompute() {
            cells.clear()?;
        }
        let progress = run.progress("cells", params.cells(&data) as u64);
        Ok(load_frame(&load::memory_load(&data, &params, Some(&cells), &progress)?)?)
    })?;
    Ok(load_cells(&frame)?)
}

/// The first `most` starts of one cell of the phase diagram, computed anew from the stored set of size k
/// with the threshold that the cell was labelled with.
///
/// # Errors
/// Those of the analysis and of the data set.
pub fn load_examples(run: &Run, cell: &LoadCell, most: usize) -> Result<Vec<Example>, Error> {
    let params: LoadParams = run.settings().load.clone().check()?.on(run.settings().device);
    let noise = params.noise(&cell.noise)?;
    let (train, test) = images(run, &cell.dataset)?;
    let data = load_data(&cell.dataset, &train, &test, cell.k)?;
    Ok(load::load_examples(&data.name, data.train.view(), noise, cell.beta, cell.delta, &params, most)?)
}

/// [`load_examples`] of several cells, each under a line that says which cell it is.
///
/// # Errors
/// As [`load_examples`].
pub fn example_rows(
    run: &Run,
    cells: &[LoadCell],
    most: usize,
) -> Result<Vec<(String, Vec<Example>)>, Error> {
    cells
        .iter()
        .map(|c| Ok((format!("K = {}, \u{3b2} = {}", c.k, c.beta), load_examples(run, c, most)?)))
        .collect()
}

/// Trains a network in a folder, or goes on where a run was stopped there, or finds that it is done.
///
/// # Errors
/// Those of the settings, the data and [`train::train`].
pub fn train(
    settings: TrainSettings,
    layout: &Layout,
    path: &Path,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Trained, Error> {
    let data = TrainingData::load(layout, &settings.data)?;
    let params = settings.check(data.shape())?;
    let device = train::device(device);
    let encode = |rows: &[train::MetricsRow]| metrics_bytes(rows).map_err(|e| e.to_string());
    Ok(train::train(path, &params, &data, device, &encode, progress)?)
}

fn images(run: &Run, name: &str) -> Result<(Dataset, Dataset), Error> {
    let layout = run.layout();
    Ok((data::load(layout, name, Split::Train)?, data::load(layout, name, Split::Test)?))
}

fn load_data(name: &str, train: &Dataset, test: &Dataset, k: usize) -> Result<LoadData, Error> {
    Ok(LoadData {
        name: name.to_owned(),
        train: train.subset(k)?.to_f32(Range::Unit),
        held_out: test.to_f32(Range::Unit),
    })
}
