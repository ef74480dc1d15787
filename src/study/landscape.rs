//! The landscape of trained networks: basins, curvature and relative energies at the images of cells of a sweep.

use ndarray::{Array2, Axis, s};
use serde_json::{Value, json};

use super::{Counted, stopped};
use crate::Error;
use crate::analyse::AnalysisError;
use crate::analyse::basin::{self, AttractorSummary, BasinRow, BasinSummary, Distance, Search, summarise};
use crate::analyse::chosen::{Group, OfNetwork, Pick};
use crate::analyse::curvature::{self, Points, Set, curve_rows, point_rows, set_row};
use crate::analyse::potential::{self, GapRow, Images, Potential, analyse, gaps};
use crate::net::Shape;
use crate::notebook::Run;
use crate::ops::Device;
use crate::process::{Process, Steps, Vp};
use crate::profile::{LandscapeNetwork, LandscapeSettings};
use crate::random::SEED;
use crate::score::Network;
use crate::store::sha256_hex;
use crate::sweep::{self, Plan, Task};
use crate::table::chosen::Cell;
use crate::table::fingerprint::Fingerprint;
use crate::table::network::{by_network, networks_of};
use crate::table::{basin as basin_table, curvature as curvature_table, potential as potential_table};
use crate::train::{Kind, RunDir};

/// Rows that a network takes at a time.
const ROWS: usize = 1024;

/// Basins of attraction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Basins {
    /// A row a size K and class.
    pub classes: Vec<OfNetwork<BasinSummary>>,
    /// A row a size K: where noise ends, beside the volumes of the training images' basins.
    pub attractors: Vec<OfNetwork<AttractorSummary>>,
}

/// Spectra of the score's Jacobian.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectra {
    /// Mean spectra, a row a value.
    pub curves: Vec<OfNetwork<curvature::CurveRow>>,
    /// A row a set of points.
    pub sets: Vec<OfNetwork<curvature::SetRow>>,
}

/// Relative energies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Energies {
    /// A row a size K, class and reference, and one for all references together.
    pub gaps: Vec<OfNetwork<GapRow>>,
    /// u along the arcs of the size that the settings name.
    pub arcs: Vec<OfNetwork<potential::CurveRow>>,
}

impl Energies {
    /// The gaps over all references together.
    pub fn over_all(&self) -> Vec<OfNetwork<GapRow>> {
        let mut all = self.gaps.clone();
        all.iter_mut().for_each(|of| of.rows.retain(|row| row.reference.is_none()));
        all
    }
}

/// The networks that the landscape is of, and their cells.
struct Of<'a> {
    run: &'a Run,
    settings: &'a LandscapeSettings,
    /// The plan of each network.
    plans: Vec<Plan>,
}

/// One network with its images.
struct Subject {
    k: usize,
    vp: Vp,
    /// Those of the cell's samples.
    steps: Steps,
    score: Network,
    training: Array2<f32>,
    shape: Shape,
    cell: Cell,
}

/// Basins of attraction of the samples of each class and of training images, against K (Fig. 4B, 16 to 19); stored as
/// `basins` and `basin_attractors`.
///
/// # Errors
/// Those of the sweep, of the analysis and of the stored tables.
pub fn basins(run: &Run) -> Result<Basins, Error> {
    let of = Of::new(run)?;
    let settings = of.settings.basin;
    let fingerprint = of.fingerprint("basins", basin::VERSION, serde_json::to_value(settings))?;
    let mut make = once(|| {
        let each = of.each(&fingerprint, |subject| {
            let params = settings.check(subject.cell.delta_m)?;
            let search = Search { score: &subject.score, vp: &subject.vp, params, distance: Distance::l2() };
            let mut rows = Vec::new();
            for group in Group::ALL {
                let (ids, images) = subject.images(group, of.settings.most);
                if !ids.is_empty() {
                    let progress = run.progress("basins", search.work(ids.len())?);
                    rows.extend(search.rows(group, images.view(), &ids, &progress)?);
                }
            }
            let all: Vec<usize> = (0..subject.training.nrows()).collect();
            let (group, draws, steps) = (Group::Training, of.settings.draws, &subject.steps);
            let progress = run.progress("draws", draws as u64);
            let shares =
                search.attractor_shares(group, subject.training.view(), &all, draws, steps, &progress)?;
            let training: Vec<BasinRow> = rows.iter().filter(|row| row.group == group).cloned().collect();
            Ok((summarise(subject.k, &rows, &params), vec![AttractorSummary::of(&shares, &training)]))
        })?;
        Ok(halves(each))
    });
    let classes = run.recall("basins", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.0, basin_table::basin_summary_frame)?)
    })?;
    let attractors = run.recall("basin_attractors", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.1, basin_table::attractor_summary_frame)?)
    })?;
    Ok(Basins {
        classes: networks_of(&classes, basin_table::basin_summary_rows)?,
        attractors: networks_of(&attractors, basin_table::attractor_summary_rows)?,
    })
}

/// Spectra of the score's Jacobian at the samples of each class and at training images, against K (Figs. 5A, 20 to 23);
/// stored as `curvature_spectra` and `curvature_sets`.
///
/// # Errors
/// As [`basins`].
pub fn spectra(run: &Run) -> Result<Spectra, Error> {
    let of = Of::new(run)?;
    let params = of.settings.curvature.clone().check()?;
    let fingerprint =
        of.fingerprint("curvature", curvature::VERSION, serde_json::to_value(params.settings()))?;
    let mut make = once(|| {
        let each = of.each(&fingerprint, |subject| {
            let sigma = subject.vp.level(params.settings().t)?.sigma();
            let (mut curves, mut sets) = (Vec::new(), Vec::new());
            for group in Group::ALL {
                let (ids, images) = subject.images(group, of.settings.most);
                let rows = images.mapv(f64::from);
                let points = Points { rows: rows.view(), samples: &ids, shape: subject.shape };
                if ids.is_empty() {
                    continue;
                }
                let progress = run.progress("spectra", ids.len() as u64);
                let found =
                    curvature::curvature(&subject.score, &subject.vp, &points, &params, None, &progress)?;
                let set = Set { group, k: subject.k, sigma };
                curves.extend(curve_rows(set, &found)?);
                sets.extend(set_row(set, &point_rows(&found, params.settings().drop_top)));
            }
            Ok((curves, sets))
        })?;
        Ok(halves(each))
    });
    let curves = run.recall("curvature_spectra", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.0, curvature_table::curves_frame)?)
    })?;
    let sets = run.recall("curvature_sets", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.1, curvature_table::sets_frame)?)
    })?;
    Ok(Spectra {
        curves: networks_of(&curves, curvature_table::curves_rows)?,
        sets: networks_of(&sets, curvature_table::sets_rows)?,
    })
}

/// Relative energies of the samples of each class, against K (Figs. 6, 25 to 30); stored as `potential_gaps` and
/// `potential_arcs`.
///
/// # Errors
/// As [`basins`].
pub fn energies(run: &Run) -> Result<Energies, Error> {
    let of = Of::new(run)?;
    let params = of.settings.potential.clone().check()?;
    let fingerprint =
        of.fingerprint("potential", potential::VERSION, serde_json::to_value(params.settings()))?;
    let mut make = once(|| {
        let each = of.each(&fingerprint, |subject| {
            let classes: Vec<(Group, Vec<usize>, Array2<f64>)> = Group::ALL
                .into_iter()
                .filter(|group| group.label().is_some())
                .map(|group| {
                    let (ids, rows) = subject.images(group, of.settings.most);
                    (group, ids, rows.mapv(f64::from))
                })
                .collect();
            let given: Vec<Images<'_>> = classes
                .iter()
                .map(|(class, ids, rows)| Images { class: *class, samples: ids, rows: rows.view() })
                .collect();
            let sizes: Vec<usize> = classes.iter().map(|(_, ids, _)| ids.len()).collect();
            let progress = run.progress("arcs", params.work(subject.training.nrows(), &sizes));
            let potential = Potential::new(&subject.score, &subject.vp, &params, ROWS)?;
            let training = subject.training.mapv(f64::from);
            let found = analyse(&potential, training.view(), &given, None, &progress)?;
            let arcs = if subject.k == of.settings.arcs { found.curves.clone() } else { Vec::new() };
            Ok((gaps(&found, &params), arcs))
        })?;
        Ok(halves(each))
    });
    let gaps = run.recall("potential_gaps", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.0, potential_table::gaps_frame)?)
    })?;
    let arcs = run.recall("potential_arcs", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.1, potential_table::curves_frame)?)
    })?;
    Ok(Energies {
        gaps: networks_of(&gaps, potential_table::gaps_rows)?,
        arcs: networks_of(&arcs, potential_table::curves_rows)?,
    })
}

/// What `make` gives, made at the first call that wants it: two tables may come from one computation.
fn once<T: Clone>(mut make: impl FnMut() -> Result<T, Error>) -> impl FnMut() -> Result<T, Error> {
    let mut made: Option<T> = None;
    move || match &made {
        Some(made) => Ok(made.clone()),
        None => Ok(made.insert(make()?).clone()),
    }
}

/// Both kinds of rows of each network, all its cells together.
fn halves<A, B>(networks: Vec<OfNetwork<(Vec<A>, Vec<B>)>>) -> (Vec<OfNetwork<A>>, Vec<OfNetwork<B>>) {
    networks
        .into_iter()
        .map(|OfNetwork { dataset, network, rows }| {
            let (a, b): (Vec<Vec<A>>, Vec<Vec<B>>) = rows.into_iter().unzip();
            let (a, b) = (a.into_iter().flatten().collect(), b.into_iter().flatten().collect());
            let first = OfNetwork { dataset: dataset.clone(), network: network.clone(), rows: a };
            (first, OfNetwork { dataset, network, rows: b })
        })
        .unzip()
}

impl<'a> Of<'a> {
    fn new(run: &'a Run) -> Result<Self, Error> {
        let settings = &run.settings().landscape;
        let plan = |of: &LandscapeNetwork| Plan::named(run.layout(), &of.plan);
        let plans = settings.networks.iter().map(plan).collect::<Result<_, Error>>()?;
        let of = Self { run, settings, plans };
        for (wanted, plan) in settings.networks.iter().zip(&of.plans) {
            let has = |k: usize| of.tasks(wanted, plan).iter().any(|(_, task)| task.k == k);
            if let Some(k) = wanted.sizes.iter().find(|k| !has(**k)) {
                let LandscapeNetwork { plan, dataset, network, .. } = wanted;
                return Err(AnalysisError::Setting {
                    analysis: "landscape",
                    setting: "sizes",
                    value: k.to_string(),
                    need: format!("a size of {network} on {dataset} in the plan {plan}"),
                }
                .into());
            }
        }
        Ok(of)
    }

    /// The cells of a network and their numbers in its plan, by K.
    fn tasks<'p>(&self, of: &LandscapeNetwork, plan: &'p Plan) -> Vec<(usize, &'p Task)> {
        let LandscapeNetwork { dataset, network, sizes, .. } = of;
        let wanted =
            |task: &Task| task.dataset == *dataset && task.network == *network && sizes.contains(&task.k);
        let mut tasks: Vec<(usize, &Task)> =
            plan.tasks().iter().enumerate().filter(|(_, task)| wanted(task)).collect();
        tasks.sort_by_key(|(_, task)| task.k);
        tasks
    }

    /// What an analysis of these cells depends on: its settings, which cells and images, and the published weights that
    /// are taken instead of training.
    fn fingerprint(
        &self,
        analysis: &str,
        version: u32,
        settings: Result<Value, serde_json::Error>,
    ) -> Result<Fingerprint, Error> {
        let tasks: Vec<&Task> = self
            .settings
            .networks
            .iter()
            .zip(&self.plans)
            .flat_map(|(of, plan)| self.tasks(of, plan))
            .map(|(_, task)| task)
            .collect();
        let asked = json!({
            "analysis": settings.unwrap_or(Value::Null),
            "cells": tasks.iter().map(|task| task.key()).collect::<Vec<&str>>(),
            "most": self.settings.most,
            "arcs": self.settings.arcs,
            "draws": self.settings.draws,
            "numbers of sweeps": sweep::VERSION,
        });
        let mut fingerprint = Fingerprint::new(analysis, version, asked, self.run.profile());
        for task in tasks {
            let file = task.weights().map(|name| self.networks().join(format!("{name}.safetensors")));
            if let Some(Ok(bytes)) = file.map(std::fs::read) {
                fingerprint = fingerprint.data(&format!("weights of {}", task.id), &sha256_hex(&bytes));
            }
        }
        Ok(fingerprint)
    }

    /// Where published weights lie.
    fn networks(&self) -> std::path::PathBuf {
        self.run.layout().results().join("networks")
    }

    /// What `work` gives for each cell of each network, kept one by one so that a killed run goes on.
    fn each<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        fingerprint: &Fingerprint,
        work: impl Fn(&Subject) -> Result<T, Error>,
    ) -> Result<Vec<OfNetwork<T>>, Error> {
        let cells = self.run.cells(fingerprint);
        if self.run.recompute() {
            cells.clear()?;
        }
        let mut all = Vec::new();
        for (of, plan) in self.settings.networks.iter().zip(&self.plans) {
            let mut rows = Vec::new();
            for (number, task) in self.tasks(of, plan) {
                let one = match cells.get(&task.id) {
                    Some(one) => one,
                    None => {
                        let one = work(&self.subject(plan, number, task)?)?;
                        cells.put(&task.id, &one)?;
                        one
                    }
                };
                rows.push(one);
            }
            all.push(OfNetwork { dataset: of.dataset.clone(), network: of.network.clone(), rows });
        }
        Ok(all)
    }

    /// A cell, finished: its network trained or taken from what is published, sampled and labelled. Cells lie apart from
    /// those of the sweep itself, as published weights are rounded.
    fn subject(&self, plan: &Plan, number: usize, task: &Task) -> Result<Subject, Error> {
        let (run, networks) = (self.run, self.networks());
        let runs = run.output().join("landscape").join(plan.name());
        let networks = networks.is_dir().then_some(networks.as_path());
        let options = sweep::Options { device: run.settings().device, networks, wait: true };
        let progress = run.progress(&task.id, 1);
        stopped(plan, sweep::run(plan, &[number], &runs, run.layout(), &options, &Counted(&progress))?)?;
        drop(progress);
        let folder = sweep::Cell::of(&runs, task);
        let (train, cell) = (RunDir::open(&folder.train())?, Cell::open(folder.path())?);
        let (weights, _) = train.weights(Kind::Ema)?;
        let score = Network::new(weights, train.prediction(), ROWS)?;
        let training = train.data(run.layout())?.rows().clone();
        let shape = train.shape();
        let (vp, steps) = (plan.process().clone(), plan.steps().clone());
        Ok(Subject { k: task.k, vp, steps, score, training, shape, cell })
    }
}

impl Subject {
    /// Numbers and rows of up to `most` images of a group: a seeded draw, which stands for its class.
    fn images(&self, group: Group, most: usize) -> (Vec<usize>, Array2<f32>) {
        match group.label() {
            Some(label) => {
                let ids = self.cell.pick(label, most, Pick::Random, SEED);
                let rows = self.cell.samples.select(Axis(0), &ids);
                (ids, rows)
            }
            None => {
                let count = self.training.nrows().min(most);
                ((0..count).collect(), self.training.slice(s![..count, ..]).to_owned())
            }
        }
    }
}
