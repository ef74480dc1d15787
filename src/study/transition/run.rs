//! The sweeps of the profile, from stored tables or by training, sampling and labelling.

use super::TransitionSettings;
use crate::Error;
use crate::device::Device;
use crate::ops::Memories;
use crate::store::StoreError;
use crate::study::context::{Context, once};
use crate::study::sweep::{self, Plan, Transition};
use crate::study::transition::{network_cells, networks};
use crate::train::{DataSettings, TrainingData};

/// The settings of the profile.
///
/// # Errors
/// As [`Context::settings`].
pub fn settings(context: &Context) -> Result<TransitionSettings, Error> {
    Ok(context.settings("transition")?)
}

/// The transition from memorization to generalization for a plan in `data/plans`. Stored as `transition_PLAN`,
/// `transition_PLAN_samples` and `transition_PLAN_examples`. When the tables do not fit, the unfinished cells of the plan
/// are trained, sampled and labelled in `out/sweep/PLAN`.
///
/// # Errors
/// Errors of the plan, of the data sets and of the stored tables;
/// [`SweepError::Failed`](crate::study::sweep::SweepError::Failed) for a cell that failed.
pub fn transition(context: &Context, plan: &str) -> Result<Transition, Error> {
    let plan = Plan::named(context.layout(), plan)?;
    let fingerprint = sweep::fingerprint(&plan, context.layout(), context.profile().name(), &[])?;
    let mut make = once(|| transition_tables(context, &plan));
    let mut all = Transition::default();
    for form in &sweep::FORMS {
        let frame =
            context.recall(&form.name(&plan), &fingerprint, Device::Cpu, || Ok((form.frame)(&make()?)?))?;
        (form.take)(&mut all, &frame)?;
    }
    Ok(all)
}

/// All sweeps of the profile together.
///
/// # Errors
/// As [`transition`].
pub fn transitions(context: &Context) -> Result<Transition, Error> {
    let mut all = Transition::default();
    for plan in &settings(context)?.plans {
        let one = transition(context, plan)?;
        all.cells.extend(one.cells);
        all.samples.extend(one.samples);
        all.examples.extend(one.examples);
    }
    Ok(all)
}

/// Real images that have a near duplicate among as many real images as there were samples.
#[derive(Debug, Clone, PartialEq)]
pub struct NearRow {
    /// Data set.
    pub dataset: String,
    /// K of the cell with this number of samples.
    pub k: usize,
    /// Number of images.
    pub images: usize,
    /// Share of them with another one within delta_s.
    pub share: f64,
}

/// The share of real images that would count as spurious: for each data set and K, the first images of the data set, as
/// many as the first network has samples, of which another one is within the cell's delta_s.
///
/// # Errors
/// Those of the data set.
pub fn near_duplicates(context: &Context, all: &Transition) -> Result<Vec<NearRow>, Error> {
    let mut rows: Vec<NearRow> = Vec::new();
    for (dataset, network) in networks(&all.cells) {
        if rows.iter().any(|row| row.dataset == dataset) {
            continue;
        }
        for cell in network_cells(&all.cells, dataset, network, None) {
            let Some(delta) = cell.delta_s.value else { continue };
            let settings =
                DataSettings::Images { dataset: dataset.to_owned(), size: cell.size, k: cell.samples };
            let images =
                TrainingData::load(context.layout(), &settings)?.rows().mapv(f64::from).into_shared();
            let near = Memories::new(images.clone())?.knn(images.view(), 1, true)?;
            let count = near.distance.iter().filter(|d| **d <= delta).count();
            let share = count as f64 / cell.samples as f64;
            rows.push(NearRow { dataset: dataset.to_owned(), k: cell.k, images: cell.samples, share });
        }
    }
    Ok(rows)
}

/// Completes the cells of a plan and collects them.
fn transition_tables(context: &Context, plan: &Plan) -> Result<Transition, Error> {
    let runs = plan.runs(context.layout());
    if context.recompute() && runs.exists() {
        std::fs::remove_dir_all(&runs).map_err(StoreError::io("remove", &runs))?;
    }
    let tasks: Vec<usize> = (0..plan.tasks().len()).collect();
    let progress = context.progress("cells", tasks.len() as u64);
    let options = sweep::Options { device: context.profile().device()?, networks: None, wait: true };
    sweep::complete(plan, &tasks, &runs, context.layout(), &options, &*progress)?;
    drop(progress);
    Ok(sweep::collect(plan, &runs, false)?.tables)
}
