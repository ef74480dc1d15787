//! The trained half of Fig. 2, from stored tables or by training and analysis.

use std::collections::BTreeMap;

use polars::prelude::DataFrame;
use serde_json::json;

use super::frame::{
    attractors_frame, attractors_rows, clusters_frame, clusters_rows, grid_frame, grid_rows, summary_frame,
    summary_rows,
};
use super::{ToyNetwork, TrainedParams, TrainedSettings, TrainedToy, VERSION, analyse};
use crate::Error;
use crate::data::DataError;
use crate::device::{Device, DeviceChoice};
use crate::frame::TableError;
use crate::frame::fingerprint::Fingerprint;
use crate::process::{Prediction, Process, Ve};
use crate::random::SEED;
use crate::score::Network;
use crate::store::StoreError;
use crate::study::context::{Context, once};
use crate::study::toy::{Panel, Size, ToySettings, panel, settings};
use crate::train::{
    self, AdamSettings, DataSettings, Kind, ProcessSettings, RunDir, TrainDefaults, TrainSettings,
    TrainingData, VeTraining, train_in,
};

/// Batch size of the toy networks.
const NETWORK_ROWS: usize = 512;

/// The trained half of Fig. 2. Networks are trained in folders below the output, where an interrupted training resumes,
/// and analysed. Stored as `toy_trained`, `toy_trained_grid`, `toy_trained_attractors` and `toy_trained_clusters`.
///
/// # Errors
/// Errors of training, of the analysis and of the stored tables.
pub fn toy_trained(context: &Context) -> Result<TrainedToy, Error> {
    let params = context.settings::<TrainedSettings>("toy_trained")?.check()?;
    let settings = params.settings();
    let Some(defaults) = context.settings::<BTreeMap<String, TrainDefaults>>("train")?.remove("toy") else {
        return Err(DataError::UnknownName { name: "toy".into(), known: "none in [train]".into() }.into());
    };
    let networks: Vec<(ToyNetwork, TrainSettings)> =
        settings.networks.iter().map(|n| (*n, network_settings(&defaults, n))).collect();
    let training: Vec<&TrainSettings> = networks.iter().map(|(_, t)| t).collect();
    let asked = json!({ "analysis": settings, "training": training, "numbers of training": train::VERSION });
    let mut fingerprint = Fingerprint::new("toy trained", VERSION, asked, context.profile().name());
    for (n, settings) in &networks {
        let sha256 = TrainingData::load(context.layout(), &settings.data)?.sha256();
        fingerprint = fingerprint.data(&format!("toy points, K = {}", n.k), &sha256);
    }

    // One computation gives all tables. It runs when the first table does not fit.
    let mut make = once(|| {
        let cells = context.cells(&fingerprint)?;
        let mut all = TrainedToy::default();
        for (n, training) in &networks {
            let id = format!("k{}", n.k);
            let one = match cells.get(&id) {
                Some(one) => one,
                None => {
                    let one = trained_one(context, n, training, &params)?;
                    cells.put(&id, &one)?;
                    one
                }
            };
            all.extend(one);
        }
        Ok(all)
    });
    let mut recall = |name: &str, frame: fn(&TrainedToy) -> Result<DataFrame, TableError>| {
        context.recall(name, &fingerprint, Device::Cpu, || Ok(frame(&make()?)?))
    };
    let summary = recall("toy_trained", |all| summary_frame(&all.summary))?;
    let grid = recall("toy_trained_grid", |all| grid_frame(&all.grid))?;
    let attractors = recall("toy_trained_attractors", |all| attractors_frame(&all.attractors))?;
    let clusters = recall("toy_trained_clusters", |all| clusters_frame(&all.clusters))?;
    Ok(TrainedToy {
        grid: grid_rows(&grid)?,
        attractors: attractors_rows(&attractors)?,
        clusters: clusters_rows(&clusters)?,
        summary: summary_rows(&summary)?,
    })
}

/// Trains one network and analyses it with the exponential moving average of its weights.
fn trained_one(
    context: &Context,
    network: &ToyNetwork,
    training: &TrainSettings,
    params: &TrainedParams,
) -> Result<TrainedToy, Error> {
    let k = network.k;
    let data = TrainingData::load(context.layout(), &training.data)?;
    let path = RunDir::place(&context.output().join("runs"), &training.clone().check(data.shape())?);
    // Recompute: a finished training is repeated. An interrupted one resumes, so that the run can complete in pieces.
    if context.recompute() && path.exists() && RunDir::open(&path)?.manifest()?.is_some() {
        std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
    }
    context.line(&format!("K = {k}:"));
    let progress = context.progress("training", training.steps);
    let trained =
        train_in(&path, training.clone(), context.layout(), DeviceChoice::Only(Device::Cpu), &*progress)?;
    drop(progress);
    let (weights, _) = trained.run.weights(Kind::Ema)?;
    let score = Network::new(weights, trained.run.prediction(), NETWORK_ROWS)?;
    let settings = params.settings();
    let steps = settings.grid * settings.grid + settings.draws + settings.sampler_steps;
    let progress = context.progress("likelihood", steps as u64);
    Ok(analyse(&score, Ve::default(), (k, network.threshold), params, &*progress)?)
}

/// Training settings of a network of Fig. 2: those of `mem2gen train --dataset toy` in the same profile, except the
/// number of steps.
fn network_settings(defaults: &TrainDefaults, network: &ToyNetwork) -> TrainSettings {
    TrainSettings {
        data: DataSettings::Toy { k: network.k },
        arch: defaults.arch.clone(),
        process: ProcessSettings::Ve(VeTraining::default()),
        prediction: Prediction::Epsilon,
        steps: network.steps,
        batch: defaults.batch,
        repeat: defaults.repeat,
        caption_drop: 0.0,
        adam: AdamSettings { learning_rate: defaults.learning_rate, ..AdamSettings::default() },
        ema: defaults.ema,
        seed: SEED,
        checkpoint_every: defaults.checkpoint_every,
        log_every: defaults.log_every,
    }
}

/// Exact landscapes beside the trained ones.
#[derive(Debug, Clone)]
pub struct ExactLandscapes {
    /// Each size of a network, and the ring, at the time of the trained landscapes.
    pub sizes: Vec<Panel>,
    /// The exact panel of the paper: the ring at the beta of the exact landscapes.
    pub published: Panel,
}

/// The exact landscapes of Fig. 2 beside the trained ones.
///
/// # Errors
/// Errors of the study.
pub fn toy_trained_exact(context: &Context) -> Result<ExactLandscapes, Error> {
    let trained = context.settings::<TrainedSettings>("toy_trained")?.check()?;
    let trained = trained.settings();
    let settings = ToySettings { grid: trained.grid, half_width: trained.half_width, ..settings(context)? };
    let beta = Ve::default().level(trained.t)?.beta();
    let sizes = trained.networks.iter().map(|n| Size::Points(n.k)).chain([Size::Infinite]);
    Ok(ExactLandscapes {
        sizes: sizes.map(|size| panel(size, beta, &settings)).collect::<Result<_, _>>()?,
        published: panel(Size::Infinite, settings.beta, &settings)?,
    })
}
