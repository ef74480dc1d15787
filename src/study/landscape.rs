//! The landscape of trained networks: basins, curvature and relative energies at the images of cells of a sweep.

use ndarray::{Array2, Axis, s};
use serde_json::{Value, json};

use super::{Counted, stopped};
use crate::Error;
use crate::analyse::basin::{self, BasinSummary, Distance, Search, summarise};
use crate::analyse::chosen::{Group, Pick};
use crate::analyse::curvature::{self, Points, Set, curve_rows, point_rows, set_row};
use crate::analyse::potential::{self, GapRow, Images, Potential, analyse, gaps};
use crate::net::Shape;
use crate::notebook::Run;
use crate::ops::Device;
use crate::process::{Process, Vp};
use crate::profile::LandscapeSettings;
use crate::random::SEED;
use crate::score::Network;
use crate::store::sha256_hex;
use crate::sweep::{self, Plan, Task};
use crate::table::chosen::Cell;
use crate::table::fingerprint::Fingerprint;
use crate::table::{basin as basin_table, curvature as curvature_table, potential as potential_table};
use crate::train::{Kind, RunDir};

/// Rows that a network takes at a time.
const ROWS: usize = 1024;

/// Spectra of the score's Jacobian.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectra {
    /// Mean spectra, a row a value.
    pub curves: Vec<curvature::CurveRow>,
    /// A row a set of points.
    pub sets: Vec<curvature::SetRow>,
}

/// Relative energies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Energies {
    /// A row a size K, class and reference, and one for all references together.
    pub gaps: Vec<GapRow>,
    /// u along the arcs of the size that the settings name.
    pub arcs: Vec<potential::CurveRow>,
}

impl Energies {
    /// The gaps over all references together.
    pub fn over_all(&self) -> Vec<GapRow> {
        self.gaps.iter().filter(|row| row.reference.is_none()).copied().collect()
    }
}

/// The sweep that the landscape is of, and its cells.
struct Of<'a> {
    run: &'a Run,
    settings: &'a LandscapeSettings,
    plan: Plan,
}

/// One network with its images.
struct Subject {
    k: usize,
    vp: Vp,
    score: Network,
    training: Array2<f32>,
    shape: Shape,
    cell: Cell,
}

/// Basins of attraction of the samples of each class and of training images, against K (Fig. 4B, 16 to 19); stored as
/// `basins`.
///
/// # Errors
/// Those of the sweep, of the analysis and of the stored table.
pub fn basins(run: &Run) -> Result<Vec<BasinSummary>, Error> {
    let of = Of::new(run)?;
    let settings = of.settings.basin;
    let fingerprint = of.fingerprint("basins", basin::VERSION, serde_json::to_value(settings))?;
    let frame = run.recall("basins", &fingerprint, Device::Cpu, || {
        let rows = of.each(&fingerprint, |subject| {
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
            Ok(summarise(&of.settings.network, subject.k, &rows, &params))
        })?;
        Ok(basin_table::basin_summary_frame(&rows.concat())?)
    })?;
    Ok(basin_table::basin_summary_rows(&frame)?)
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
    let mut made: Option<Spectra> = None;
    let mut make = || -> Result<Spectra, Error> {
        if let Some(all) = &made {
            return Ok(all.clone());
        }
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
        let (curves, sets): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        Ok(made.insert(Spectra { curves: curves.concat(), sets: sets.concat() }).clone())
    };
    let curves = run.recall("curvature_spectra", &fingerprint, Device::Cpu, || {
        Ok(curvature_table::curves_frame(&make()?.curves)?)
    })?;
    let sets = run.recall("curvature_sets", &fingerprint, Device::Cpu, || {
        Ok(curvature_table::sets_frame(&make()?.sets)?)
    })?;
    Ok(Spectra { curves: curvature_table::curves_rows(&curves)?, sets: curvature_table::sets_rows(&sets)? })
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
    let mut made: Option<Energies> = None;
    let mut make = || -> Result<Energies, Error> {
        if let Some(all) = &made {
            return Ok(all.clone());
        }
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
        let (gaps, arcs): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        Ok(made.insert(Energies { gaps: gaps.concat(), arcs: arcs.concat() }).clone())
    };
    let gaps = run.recall("potential_gaps", &fingerprint, Device::Cpu, || {
        Ok(potential_table::gaps_frame(&make()?.gaps)?)
    })?;
    let arcs = run.recall("potential_arcs", &fingerprint, Device::Cpu, || {
        Ok(potential_table::curves_frame(&make()?.arcs)?)
    })?;
    Ok(Energies { gaps: potential_table::gaps_rows(&gaps)?, arcs: potential_table::curves_rows(&arcs)? })
}

impl<'a> Of<'a> {
    fn new(run: &'a Run) -> Result<Self, Error> {
        let settings = &run.settings().landscape;
        Ok(Self { run, settings, plan: Plan::named(run.layout(), &settings.plan)? })
    }

    /// The numbers of the cells of the network that is looked at, by K.
    fn tasks(&self) -> Vec<(usize, &Task)> {
        let LandscapeSettings { dataset, network, sizes, .. } = self.settings;
        let wanted =
            |task: &Task| task.dataset == *dataset && task.network == *network && sizes.contains(&task.k);
        let mut tasks: Vec<(usize, &Task)> =
            self.plan.tasks().iter().enumerate().filter(|(_, task)| wanted(task)).collect();
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
        let keys: Vec<&str> = self.tasks().iter().map(|(_, task)| task.key()).collect();
        let asked = json!({
            "analysis": settings.unwrap_or(Value::Null),
            "cells": keys,
            "most": self.settings.most,
            "arcs": self.settings.arcs,
            "numbers of sweeps": sweep::VERSION,
        });
        let mut fingerprint = Fingerprint::new(analysis, version, asked, self.run.profile());
        for (_, task) in self.tasks() {
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

    /// What `work` gives for each cell, kept one by one so that a killed run goes on.
    fn each<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        fingerprint: &Fingerprint,
        work: impl Fn(&Subject) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let cells = self.run.cells(fingerprint);
        if self.run.recompute() {
            cells.clear()?;
        }
        let mut all = Vec::new();
        for (number, task) in self.tasks() {
            let one = match cells.get(&task.id) {
                Some(one) => one,
                None => {
                    let one = work(&self.subject(number, task)?)?;
                    cells.put(&task.id, &one)?;
                    one
                }
            };
            all.push(one);
        }
        Ok(all)
    }

    /// A cell, finished: its network trained or taken from what is published, sampled and labelled. Cells lie apart from
    /// those of the sweep itself, as published weights are rounded.
    fn subject(&self, number: usize, task: &Task) -> Result<Subject, Error> {
        let (run, networks) = (self.run, self.networks());
        let runs = run.output().join("landscape").join(self.plan.name());
        let networks = networks.is_dir().then_some(networks.as_path());
        let options = sweep::Options { device: run.settings().device, networks, wait: true };
        let progress = run.progress(&task.id, 1);
        stopped(
            &self.plan,
            sweep::run(&self.plan, &[number], &runs, run.layout(), &options, &Counted(&progress))?,
        )?;
        drop(progress);
        let folder = sweep::Cell::of(&runs, task);
        let (train, cell) = (RunDir::open(&folder.train())?, Cell::open(folder.path())?);
        let (weights, _) = train.weights(Kind::Ema)?;
        let score = Network::new(weights, train.prediction(), ROWS)?;
        let training = train.data(run.layout())?.rows().clone();
        let shape = train.shape();
        let vp = self.plan.process().clone();
        Ok(Subject { k: task.k, vp, score, training, shape, cell })
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
