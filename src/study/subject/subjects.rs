//! The trained networks whose basins, spectra and energies are measured.

use ndarray::{Array2, Axis, s};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{LabelledSamples, OfNetwork, Pick};
use crate::Error;
use crate::class::Group;
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::process::{Steps, Vp};
use crate::random::SEED;
use crate::score::Network;
use crate::shape::Shape;
use crate::store::{StoreError, sha256_hex};
use crate::study::StudyError;
use crate::study::context::Context;
use crate::study::sweep::{self, Plan, Task};
use crate::train::{Kind, RunDir};

/// Rows that a network takes at a time.
pub const ROWS: usize = 1024;

/// Whose basins, spectra and energies are measured, and at how many images.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectSettings {
    /// The networks.
    pub networks: Vec<SubjectNetwork>,
    /// Images of a class, and training images, at most. Which ones is a seeded draw.
    pub most: usize,
    /// Sizes K whose spectra are shown class by class.
    pub spectra: Vec<usize>,
    /// The size K whose potential is shown along the arcs.
    pub arcs: usize,
    /// Draws of noise, to see at which training images they end.
    pub draws: usize,
}

/// One network of one sweep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectNetwork {
    /// The plan of the sweep, by name.
    pub plan: String,
    /// Data set of the plan.
    pub dataset: String,
    /// Network of the plan.
    pub network: String,
    /// Sizes K of the plan.
    pub sizes: Vec<usize>,
}

/// The networks of a profile, and their cells of the sweeps.
#[derive(Debug)]
pub struct Subjects<'a> {
    context: &'a Context,
    settings: SubjectSettings,
    /// The plan of each network.
    plans: Vec<Plan>,
}

/// One trained network with its training set and the samples of each class.
pub struct Subject {
    /// Size of the training set.
    pub k: usize,
    /// The process that the network was trained on.
    pub vp: Vp,
    /// The levels that the cell's samples were drawn along.
    pub steps: Steps,
    /// The network.
    pub score: Network,
    /// The training set, `[K, N]`, values in [-1, 1].
    pub training: Array2<f32>,
    /// Shape of one image.
    pub shape: Shape,
    /// The samples and their labels.
    pub cell: LabelledSamples,
}

impl<'a> Subjects<'a> {
    /// The networks of the profile's table `subject`.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a size that is not in the plan of its network; those of reading the plans.
    pub fn new(context: &'a Context) -> Result<Self, Error> {
        let settings: SubjectSettings = context.settings("subject")?;
        let plan = |of: &SubjectNetwork| Plan::named(context.layout(), &of.plan);
        let plans = settings.networks.iter().map(plan).collect::<Result<_, Error>>()?;
        let subjects = Self { context, settings, plans };
        for (wanted, plan) in subjects.settings.networks.iter().zip(&subjects.plans) {
            let has = |k: usize| subjects.tasks(wanted, plan).iter().any(|(_, task)| task.k == k);
            if let Some(k) = wanted.sizes.iter().find(|k| !has(**k)) {
                let SubjectNetwork { plan, dataset, network, .. } = wanted;
                return Err(StudyError::Setting {
                    analysis: "subject",
                    setting: "sizes",
                    value: k.to_string(),
                    need: format!("a size of {network} on {dataset} in the plan {plan}"),
                }
                .into());
            }
        }
        Ok(subjects)
    }

    /// The cells of a network and their numbers in its plan, by K.
    fn tasks<'p>(&self, of: &SubjectNetwork, plan: &'p Plan) -> Vec<(usize, &'p Task)> {
        let SubjectNetwork { dataset, network, sizes, .. } = of;
        let wanted =
            |task: &Task| task.dataset == *dataset && task.network == *network && sizes.contains(&task.k);
        let mut tasks: Vec<(usize, &Task)> =
            plan.tasks().iter().enumerate().filter(|(_, task)| wanted(task)).collect();
        tasks.sort_by_key(|(_, task)| task.k);
        tasks
    }

    /// What an analysis of these cells depends on: its settings, which cells and images, and the published weights that
    /// are taken instead of training.
    ///
    /// # Errors
    /// Published weights that exist and can't be read.
    pub fn fingerprint(
        &self,
        analysis: &str,
        version: u32,
        settings: &impl Serialize,
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
            "analysis": settings_value(settings)?,
            "cells": tasks.iter().map(|task| task.key()).collect::<Vec<&str>>(),
            "most": self.settings.most,
            "arcs": self.settings.arcs,
            "draws": self.settings.draws,
            "numbers of sweeps": sweep::VERSION,
        });
        let mut fingerprint = Fingerprint::new(analysis, version, asked, self.context.profile().name());
        for task in tasks {
            let file = task.weights().map(|name| self.networks().join(name));
            if let Some(file) = file.filter(|file| file.exists()) {
                let bytes = std::fs::read(&file).map_err(StoreError::io("open", &file))?;
                fingerprint = fingerprint.data(&format!("weights of {}", task.id), &sha256_hex(&bytes));
            }
        }
        Ok(fingerprint)
    }

    /// What the profile says.
    pub fn settings(&self) -> &SubjectSettings {
        &self.settings
    }

    /// Where published weights lie.
    fn networks(&self) -> std::path::PathBuf {
        self.context.layout().results().join("networks")
    }

    /// What `work` gives for each cell of each network, kept one by one so that a killed run goes on.
    ///
    /// # Errors
    /// Those of `work`, of the sweep that makes a missing cell, and of the files.
    pub fn each<T: Serialize + DeserializeOwned>(
        &self,
        fingerprint: &Fingerprint,
        work: impl Fn(&Subject) -> Result<T, Error>,
    ) -> Result<Vec<OfNetwork<T>>, Error> {
        let cells = self.context.cells(fingerprint)?;
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
        let (context, networks) = (self.context, self.networks());
        let runs = context.output().join("landscape").join(plan.name());
        let networks = networks.is_dir().then_some(networks.as_path());
        let options = sweep::Options { device: context.profile().device()?, networks, wait: true };
        let progress = context.progress(&task.id, 1);
        sweep::complete(plan, &[number], &runs, context.layout(), &options, &*progress)?;
        drop(progress);
        let folder = sweep::Cell::of(&runs, task);
        let (train, cell) = (RunDir::open(&folder.train())?, LabelledSamples::open(folder.path())?);
        let (weights, _) = train.weights(Kind::Ema)?;
        let score = Network::new(weights, train.prediction(), ROWS)?;
        let training = train.data(context.layout())?.rows().clone();
        let shape = train.shape();
        let (vp, steps) = (plan.process().clone(), plan.steps().clone());
        Ok(Subject { k: task.k, vp, steps, score, training, shape, cell })
    }
}

impl Subject {
    /// Numbers and rows of up to `most` images of a group: a seeded draw, which stands for its class.
    pub fn images(&self, group: Group, most: usize) -> (Vec<usize>, Array2<f32>) {
        match group {
            Group::Samples(class) => {
                let ids = self.cell.pick(class, most, Pick::Random, SEED);
                let rows = self.cell.samples.select(Axis(0), &ids);
                (ids, rows)
            }
            Group::Training => {
                let count = self.training.nrows().min(most);
                ((0..count).collect(), self.training.slice(s![..count, ..]).to_owned())
            }
        }
    }
}
