//! The trained networks of a profile whose basins, spectra and energies are measured.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::networks::{NetworkRows, NetworkTable, NetworkTables, networks_frame, networks_rows, unzip_rows};
use super::{Choice, Pick, ScoreOptions, Subject};
use crate::Error;
use crate::device::Device;
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::random::SEED;
use crate::setting::SettingError;
use crate::store::{StoreError, sha256_hex};
use crate::study::context::{Cells, Context, once};
use crate::study::error::StudyError;
use crate::study::sweep::{self, Plan, Task};

/// Batch size of the profile's networks; no result depends on it.
pub const BATCH: usize = 1024;

/// The networks whose basins, spectra and energies are measured, and the number of images: table `subject` of a profile.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectSettings {
    /// The networks.
    pub networks: Vec<SubjectNetwork>,
    /// Number of images of each group, at most. Samples are a seeded draw.
    pub most: usize,
    /// Sizes K whose spectra are shown class by class.
    pub spectra: Vec<usize>,
    /// Size K whose potential is shown along the arcs.
    pub arcs: usize,
    /// Number of noise draws that are followed to the training images where they end.
    pub draws: usize,
}

/// One network of one sweep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectNetwork {
    /// Name of the sweep's plan.
    pub plan: String,
    /// Name of a data set of the plan.
    pub dataset: String,
    /// Name of a network of the plan.
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

impl<'a> Subjects<'a> {
    /// The networks in the profile's table `subject`.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a size that is not in the plan of its network; those of [`Plan::named`].
    pub fn new(context: &'a Context) -> Result<Self, Error> {
        let settings: SubjectSettings = context.settings("subject")?;
        let plan = |of: &SubjectNetwork| Plan::named(context.layout(), &of.plan);
        let plans = settings.networks.iter().map(plan).collect::<Result<_, Error>>()?;
        let subjects = Self { context, settings, plans };
        for (wanted, plan) in subjects.settings.networks.iter().zip(&subjects.plans) {
            let has = |k: usize| subjects.tasks(wanted, plan).iter().any(|(_, task)| task.k == k);
            if let Some(k) = wanted.sizes.iter().find(|k| !has(**k)) {
                let SubjectNetwork { plan, dataset, network, .. } = wanted;
                return Err(StudyError::from(SettingError::new(
                    "subject",
                    "sizes",
                    k,
                    format!("a size of {network} on {dataset} in the plan {plan}"),
                ))
                .into());
            }
        }
        Ok(subjects)
    }

    /// The cells of a network with their indices in its plan, in the order of K.
    fn tasks<'p>(&self, of: &SubjectNetwork, plan: &'p Plan) -> Vec<(usize, &'p Task)> {
        let SubjectNetwork { dataset, network, sizes, .. } = of;
        let wanted =
            |task: &Task| task.dataset == *dataset && task.network == *network && sizes.contains(&task.k);
        let mut tasks: Vec<(usize, &Task)> =
            plan.tasks().iter().enumerate().filter(|(_, task)| wanted(task)).collect();
        tasks.sort_by_key(|(_, task)| task.k);
        tasks
    }

    /// Everything that a measurement of these cells depends on: its settings, the cells, the choice of images, and the
    /// published weights that replace training.
    ///
    /// # Errors
    /// [`StoreError`] for published weights that can't be read.
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
        let networks = networks(self.context);
        for task in tasks {
            let file = task.weights().map(|name| networks.join(name));
            if let Some(file) = file.filter(|file| file.exists()) {
                let bytes = std::fs::read(&file).map_err(StoreError::io("open", &file))?;
                fingerprint = fingerprint.data(&format!("weights of {}", task.id), &sha256_hex(&bytes));
            }
        }
        Ok(fingerprint)
    }

    /// The profile's table `subject`.
    pub fn settings(&self) -> &SubjectSettings {
        &self.settings
    }

    /// The choice of images: a seeded draw, which represents its class.
    pub fn choice(&self) -> Choice {
        Choice { max: self.settings.most, pick: Pick::Random, pick_seed: SEED }
    }

    /// The rows of two tables, which `work` gives for each cell of each network. Tables whose fingerprint fits are read.
    ///
    /// Each finished cell is kept as a piece of the study; `work` gets the place for the pieces of its own cell.
    ///
    /// # Errors
    /// Those of `work`, of the sweep that makes a missing cell, and of the tables and pieces.
    pub fn recall<A, B>(
        &self,
        fingerprint: &Fingerprint,
        first: NetworkTable<A>,
        second: NetworkTable<B>,
        work: impl Fn(&Subject, &Plan, &Cells) -> Result<(Vec<A>, Vec<B>), Error>,
    ) -> Result<NetworkTables<A, B>, Error>
    where
        A: Clone + Serialize + DeserializeOwned,
        B: Clone + Serialize + DeserializeOwned,
    {
        let mut make = once(|| Ok(unzip_rows(self.each(fingerprint, &work)?)));
        let a = self
            .context
            .recall(first.name, fingerprint, Device::Cpu, || Ok(networks_frame(&make()?.0, first.frame)?))?;
        let b = self.context.recall(second.name, fingerprint, Device::Cpu, || {
            Ok(networks_frame(&make()?.1, second.frame)?)
        })?;
        Ok((networks_rows(&a, first.rows)?, networks_rows(&b, second.rows)?))
    }

    /// As [`Self::recall`], for one table.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub fn recall_one<A>(
        &self,
        fingerprint: &Fingerprint,
        table: NetworkTable<A>,
        work: impl Fn(&Subject, &Plan, &Cells) -> Result<Vec<A>, Error>,
    ) -> Result<Vec<NetworkRows<A>>, Error>
    where
        A: Clone + Serialize + DeserializeOwned,
    {
        let frame = self.context.recall(table.name, fingerprint, Device::Cpu, || {
            let pairs = self.each(fingerprint, |subject, plan, cells| {
                Ok((work(subject, plan, cells)?, Vec::<()>::new()))
            })?;
            Ok(networks_frame(&unzip_rows(pairs).0, table.frame)?)
        })?;
        Ok(networks_rows(&frame, table.rows)?)
    }

    fn each<T: Serialize + DeserializeOwned>(
        &self,
        fingerprint: &Fingerprint,
        work: impl Fn(&Subject, &Plan, &Cells) -> Result<T, Error>,
    ) -> Result<Vec<NetworkRows<T>>, Error> {
        let cells = self.context.cells(fingerprint)?;
        let mut all = Vec::new();
        for (wanted, plan) in self.settings.networks.iter().zip(&self.plans) {
            let mut rows = Vec::new();
            for (index, task) in self.tasks(wanted, plan) {
                let pieces = cells.within(&task.id);
                rows.push(cells.get_or_make(&task.id, || {
                    work(&open(self.context, plan, index, task)?, plan, &pieces)
                })?);
                pieces.clear()?;
            }
            let SubjectNetwork { dataset, network, .. } = wanted.clone();
            all.push(NetworkRows { dataset, network, rows });
        }
        Ok(all)
    }
}

impl Subject {
    /// The cell `id` of the project's plan `plan`, such as `mnist-7-mlp128-k128-s3407` of `mnist-mlp`. Its network is
    /// read from the published weights, or trained when they don't exist; then it is sampled and the samples are
    /// labelled.
    ///
    /// # Errors
    /// [`StudyError::Setting`] for a cell that is not in the plan; those of the plan, of the sweep and of
    /// [`Self::open`].
    pub fn published(context: &Context, plan: &str, id: &str) -> Result<Self, Error> {
        let plan = Plan::named(context.layout(), plan)?;
        let Some((index, task)) = plan.tasks().iter().enumerate().find(|(_, task)| task.id == id) else {
            let need = format!("a cell of the plan {}, as mem2gen sweep --dry-run lists them", plan.name());
            return Err(StudyError::from(SettingError::new("subject", "id", id, need)).into());
        };
        open(context, &plan, index, task)
    }
}

/// The folder of published weights.
fn networks(context: &Context) -> PathBuf {
    context.layout().results().join("networks")
}

/// A finished cell. Cells with published weights have a folder apart from the sweep's own, because published weights
/// are rounded.
fn open(context: &Context, plan: &Plan, index: usize, task: &Task) -> Result<Subject, Error> {
    let networks = networks(context);
    let runs = context.output().join("landscape").join(plan.name());
    let networks = networks.is_dir().then_some(networks.as_path());
    let device = context.profile().device()?;
    let options = sweep::Options { device, networks, wait: true };
    let progress = context.progress(&task.id, 1);
    sweep::complete(plan, &[index], &runs, context.layout(), &options, &*progress)?;
    drop(progress);
    let options = ScoreOptions { batch: BATCH, ..ScoreOptions::default() };
    Subject::open(sweep::SweepCell::from_task(&runs, task).path(), context.layout(), &options)
}
