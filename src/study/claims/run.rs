//! The paper's claims, each compared with what was measured.

use serde_json::json;

use super::{About, Claim, Claims, SizeMean, SizeShare, VERSION, transition_range, transition_size};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::random::SEED;
use crate::setting::SettingError;
use crate::study::basin::{BasinSummary, Mean, basins};
use crate::study::claims::frame::{NAME, claims_frame, claims_rows};
use crate::study::context::Context;
use crate::study::curvature::{SetRow, spectra};
use crate::study::energy::{GapRow, energies};
use crate::study::error::StudyError;
use crate::study::subject::{NetworkRows, SubjectNetwork, SubjectSettings};
use crate::study::sweep::{ClassRow, EXACT, Plan, SweepRow, Transition};
use crate::study::transition::frame::{Capacity, CapacityRow};
use crate::study::transition::{self, network_cells, networks, transitions};

/// The claims about the fractions (Figs. 4A and 7 to 9), for every network of the sweeps.
///
/// # Errors
/// [`StudyError::Setting`] for a count above its samples, or for rows of a network that is in no plan of the profile.
pub fn transition_claims(context: &Context, all: &Transition) -> Result<Claims, Error> {
    let mut claims = Vec::new();
    let mut datasets: Vec<&str> = Vec::new();
    let names = transition::settings(context)?.plans;
    let plans =
        names.iter().map(|name| Plan::named(context.layout(), name)).collect::<Result<Vec<Plan>, Error>>()?;
    let command = |dataset: &str, network: &str| {
        let has =
            |plan: &&Plan| plan.tasks().iter().any(|task| task.dataset == dataset && task.network == network);
        plans.iter().find(has).map(|plan| format!("mem2gen sweep --plan {}", plan.name())).ok_or_else(|| {
            let need = format!("a plan with {network} on {dataset}");
            StudyError::from(SettingError::new("claims", "plans", names.join(", "), need))
        })
    };
    for (dataset, network) in networks(&all.cells) {
        let command = command(dataset, network)?;
        let about = About { dataset, network, command: &command };
        let cells = network_cells(&all.cells, dataset, network, None);
        claims.push(about.memorized_at_small_sizes(&shares(&cells, |c| &c.memorized))?);
        claims.push(about.not_memorized_at_large_sizes(&shares(&cells, |c| &c.memorized))?);
        claims.push(about.spurious_peak(&shares(&cells, |c| &c.spurious))?);
        claims.push(about.generalized_at_large_sizes(&shares(&cells, |c| &c.generalized))?);
        if !datasets.contains(&dataset) {
            datasets.push(dataset);
        }
    }
    for dataset in datasets {
        let each: Vec<(&str, Vec<&SweepRow>)> = networks(&all.cells)
            .into_iter()
            .filter(|(d, _)| *d == dataset)
            .map(|(_, network)| (network, network_cells(&all.cells, dataset, network, None)))
            .collect();
        for (i, (narrow, a)) in each.iter().enumerate() {
            for (wide, b) in &each[i + 1..] {
                if kind(a) == kind(b) && parameters(a).zip(parameters(b)).is_some_and(|(a, b)| a < b) {
                    let (network, command) = (format!("{wide} over {narrow}"), command(dataset, wide)?);
                    let about = About { dataset, network: &network, command: &command };
                    claims.push(
                        about.wider_is_later(&shares(a, |c| &c.memorized), &shares(b, |c| &c.memorized))?,
                    );
                }
            }
        }
        for (network, four) in &each {
            let Some(larger) = all
                .cells
                .iter()
                .filter(|c| c.dataset == dataset && c.network == *network)
                .map(|c| c.multiple)
                .max()
                .filter(|larger| four.first().is_some_and(|c| c.multiple < *larger))
            else {
                continue;
            };
            let eight = network_cells(&all.cells, dataset, network, Some(larger));
            let pairs: Vec<(SizeShare, SizeShare)> = four
                .iter()
                .filter_map(|a| eight.iter().find(|b| b.k == a.k).map(|b| (a, b)))
                .map(|(a, b)| (share(a, &a.spurious), share(b, &b.spurious)))
                .collect();
            let command = command(dataset, network)?;
            claims
                .push(About { dataset, network, command: &command }.larger_sets_have_more_spurious(&pairs)?);
        }
        let exact = network_cells(&all.cells, dataset, EXACT, None);
        if !exact.is_empty() {
            let command = command(dataset, EXACT)?;
            let about = About { dataset, network: "exact score", command: &command };
            claims.push(about.exact_memorizes(&shares(&exact, |c| &c.memorized))?);
        }
    }
    Ok(Claims { rows: claims })
}

/// The K at which half of the samples are memorized, for each network of a data set.
///
/// # Errors
/// [`StudyError::Setting`] for a count above its samples.
pub fn capacity(all: &Transition, dataset: &str) -> Result<Capacity, Error> {
    let mut rows = Vec::new();
    for (_, network) in networks(&all.cells).into_iter().filter(|(d, _)| *d == dataset) {
        let cells = network_cells(&all.cells, dataset, network, None);
        let peak = cells.iter().max_by(|a, b| a.spurious.fraction.total_cmp(&b.spurious.fraction));
        let Some(parameters) = parameters(&cells) else { continue };
        rows.push(CapacityRow {
            network: network.to_owned(),
            parameters,
            half: transition_size(&shares(&cells, |c| &c.memorized), SEED)?.map(|t| (t.k, t.interval)),
            peak: peak.map(|c| (c.k, c.spurious.fraction)),
        });
    }
    Ok(Capacity { rows })
}

/// All claims: about the fractions of every network, and about basins, spectra and energies of the networks in the
/// settings of the subject. Stored as `claims`.
///
/// # Errors
/// Those of the studies and of the stored table.
pub fn claims(context: &Context) -> Result<Claims, Error> {
    let mut all = transition_claims(context, &transitions(context)?)?.rows;
    all.extend(landscape_claims(context)?);
    let asked = json!({ "claims": settings_value(&all)? });
    let fingerprint = Fingerprint::new("claims", VERSION, asked, context.profile().name());
    let frame = context.recall(NAME, &fingerprint, Device::Cpu, || Ok(claims_frame(&all)?))?;
    Ok(Claims { rows: claims_rows(&frame)? })
}

/// The claims about the landscape (Figs. 4B, 5 and 6), for every network in the settings of the subject.
///
/// # Errors
/// Those of the studies.
fn landscape_claims(context: &Context) -> Result<Vec<Claim>, Error> {
    let (basins, spectra, energies) = (basins(context)?, spectra(context)?, energies(context)?);
    let (all, mut claims) = (transitions(context)?, Vec::new());
    for SubjectNetwork { dataset, network, .. } in &context.settings::<SubjectSettings>("subject")?.networks {
        let cells = network_cells(&all.cells, dataset, network, None);
        claims.extend(claims_of_landscape(
            |command| About { dataset, network, command },
            &shares(&cells, |c| &c.memorized),
            rows_of(&basins.classes, dataset, network),
            rows_of(&spectra.sets, dataset, network),
            rows_of(&energies.gaps, dataset, network),
        )?);
    }
    Ok(claims)
}

/// The rows of one network, which may have none.
fn rows_of<'a, R>(all: &'a [NetworkRows<R>], dataset: &str, network: &str) -> &'a [R] {
    all.iter().find(|one| one.is_of(dataset, network)).map_or(&[], |one| &one.rows)
}

/// The claims about the landscape of one network, with its memorized fractions. A mean of one value has no standard
/// error and says nothing about a claim.
///
/// # Errors
/// [`StudyError::Setting`] for a count above its samples.
fn claims_of_landscape<'a>(
    about: impl Fn(&'static str) -> About<'a>,
    memorized: &[SizeShare],
    volumes: &[BasinSummary],
    spectra: &[SetRow],
    gaps: &[GapRow],
) -> Result<Vec<Claim>, Error> {
    let transition = transition_range(memorized)?;
    let volume = |group: Group| -> Vec<SizeMean> {
        let kept = volumes.iter().filter(|row| row.group == group && !row.too_few);
        kept.filter_map(|BasinSummary { k, log_volume: Mean { mean, error, .. }, .. }| {
            Some(SizeMean { k: *k, mean: *mean, standard_error: (*error)? })
        })
        .collect()
    };
    let [memorized, spurious, generalized] =
        [Group::MEMORIZED, Group::SPURIOUS, Group::GENERALIZED].map(|group| (group, volume(group)));
    let basin = about("make notebooks ONLY=06_basins");
    let mut claims = vec![
        basin.larger_basins((memorized.0, &memorized.1), (spurious.0, &spurious.1))?,
        basin.larger_basins((spurious.0, &spurious.1), (generalized.0, &generalized.1))?,
    ];

    let training: Vec<SizeMean> = spectra
        .iter()
        .filter(|row| row.set.group == Group::Training)
        .filter_map(|row| Some(SizeMean { k: row.set.k, mean: row.mean, standard_error: row.mean_error? }))
        .collect();
    claims.push(about("make notebooks ONLY=07_curvature").spectra_fall(&training)?);

    let gap = |group: Group| -> Vec<SizeMean> {
        let kept = gaps.iter().filter(|row| row.group == group && row.reference.is_none() && !row.few);
        kept.map(SizeMean::from).collect()
    };
    let [memorized, spurious, generalized] = [Group::MEMORIZED, Group::SPURIOUS, Group::GENERALIZED].map(gap);
    let potential = about("make notebooks ONLY=08_relative_energy");
    claims.push(potential.memorized_gap_diverges(&memorized)?);
    claims.push(potential.spurious_lowest(&spurious, &[&memorized, &generalized], transition)?);
    claims.push(potential.generalized_narrowest(
        &generalized,
        &[(Group::MEMORIZED, &memorized), (Group::SPURIOUS, &spurious)],
    )?);
    Ok(claims)
}

fn share(cell: &SweepRow, class: &ClassRow) -> SizeShare {
    SizeShare { k: cell.k, count: class.count, samples: cell.samples }
}

fn shares(cells: &[&SweepRow], class: fn(&SweepRow) -> &ClassRow) -> Vec<SizeShare> {
    cells.iter().map(|c| share(c, class(c))).collect()
}

/// Number of parameters; `None` without cells.
fn parameters(cells: &[&SweepRow]) -> Option<usize> {
    cells.first().map(|c| c.parameters)
}

/// Kind of the architecture, from its JSON.
fn kind(cells: &[&SweepRow]) -> Option<serde_json::Value> {
    let arch: serde_json::Value = serde_json::from_str(cells.first()?.arch.as_deref()?).ok()?;
    arch.get("kind").cloned()
}
