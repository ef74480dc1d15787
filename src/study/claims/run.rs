//! The paper's claims, each compared with what was measured.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    About, Claim, Claims, SizeMean, SizeShare, ToyPhase, VERSION, transition_range, transition_size,
};
use crate::Error;
use crate::class::{Class, Group};
use crate::device::Device;
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::random::SEED;
use crate::setting::SettingError;
use crate::study::attractors::{FlowRow, Start, census};
use crate::study::basin::{BasinSummary, Mean, basins};
use crate::study::claims::frame::{NAME, claims_frame, claims_rows};
use crate::study::context::Context;
use crate::study::curvature::{SetRow, spectra};
use crate::study::energy::{GapRow, energies};
use crate::study::error::StudyError;
use crate::study::subject::{NetworkRows, SubjectNetwork, SubjectSettings};
use crate::study::sweep::{ClassRow, DistanceRow, EXACT, Plan, SweepRow, Transition};
use crate::study::toy::trained::{SummaryRow, TrainedToy, toy_trained};
use crate::study::transition::frame::{Capacity, CapacityRow};
use crate::study::transition::{self, network_cells, networks, transitions};

/// The time of the level at which claims about attractors are made, that of the curvature.
const CENSUS_TIME: f64 = 15.0;

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
        let (memorized, generalized) = (shares(&cells, |c| &c.memorized), shares(&cells, |c| &c.generalized));
        claims.push(about.generalization_follows(&memorized, &generalized)?);
        claims.push(about.spurious_peak(&shares(&cells, |c| &c.spurious))?);
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
                    claims.push(
                        about.wider_peaks_later(&shares(a, |c| &c.spurious), &shares(b, |c| &c.spurious))?,
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
            let turned = turned_spurious(&all.samples, dataset, network, larger);
            let command = command(dataset, network)?;
            claims
                .push(About { dataset, network, command: &command }.larger_sets_have_more_spurious(&turned)?);
        }
        let exact = network_cells(&all.cells, dataset, EXACT, None);
        if !exact.is_empty() {
            let command = command(dataset, EXACT)?;
            let about = About { dataset, network: "exact score", command: &command };
            claims.push(about.exact_memorizes(&shares(&exact, |c| &c.memorized))?);
        }
    }
    Ok(Claims { rows: claims }.by_figure())
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

/// All claims, in the order of the paper's figures: about the toy networks, the fractions of every network, and attractors,
/// basins, spectra and energies of the networks in the settings of the subject. Stored as `claims`.
///
/// # Errors
/// Those of the studies and of the stored table.
pub fn claims(context: &Context) -> Result<Claims, Error> {
    let mut all = transition_claims(context, &transitions(context)?)?.rows;
    all.extend(landscape_claims(context)?);
    all.push(toy_claim(&toy_trained(context)?)?);
    let all = Claims { rows: all }.by_figure().rows;
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
    let (basins, spectra, energies, census) =
        (basins(context)?, spectra(context)?, energies(context)?, census(context)?);
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
        let about = About { dataset, network, command: "make notebooks ONLY=04_attractors" };
        claims.extend(claims_of_flows(about, rows_of(&census.flows, dataset, network))?);
    }
    Ok(claims)
}

/// The claims about where starts flow under the network's retrieval map, at [`CENSUS_TIME`] or else the smallest time measured.
///
/// # Errors
/// [`StudyError::Setting`] for a count above its samples.
fn claims_of_flows(about: About<'_>, flows: &[FlowRow]) -> Result<Vec<Claim>, Error> {
    let times: Vec<f64> = flows.iter().map(|row| row.t).collect();
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let t = if times.contains(&CENSUS_TIME) { CENSUS_TIME } else { least };
    let shares = |start: Start, share: fn(&FlowRow) -> f64| -> Vec<SizeShare> {
        let wanted = flows.iter().filter(|row| row.t == t && !row.exact && row.start == start);
        let share = |row: &FlowRow| SizeShare {
            k: row.k,
            count: (share(row) * row.starts as f64).round() as usize,
            samples: row.starts,
        };
        wanted.map(share).collect()
    };
    Ok(vec![
        about.images_stop_attracting(&shares(Start::Images(Group::Training), |row| row.stays))?,
        about.noise_flows_elsewhere(&shares(Start::Noise, |row| row.memorized))?,
    ])
}

/// The claim about the toy networks (Fig. 2).
///
/// # Errors
/// [`StudyError::Setting`] for fewer or more than three networks.
fn toy_claim(toy: &TrainedToy) -> Result<Claim, Error> {
    let phase = |row: &SummaryRow| {
        let count = |memorized: bool| {
            let of = toy.attractors.iter().filter(|a| a.k == row.k && a.trained && a.memorized == memorized);
            of.count()
        };
        ToyPhase { k: row.k, memorized: count(true), spurious: count(false), from_ring: row.ring.region_rms }
    };
    let about = About { dataset: "toy", network: "three", command: "make notebooks ONLY=01_toy_energy" };
    Ok(about.three_phases(&toy.summary.iter().map(phase).collect::<Vec<_>>())?)
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
        [Group::MEMORIZED, Group::SPURIOUS, Group::GENERALIZED].map(volume);
    let (what, basin) =
        ("mean log V of the first minus the second, nats", about("make notebooks ONLY=07_basins"));
    let mut claims = Vec::new();
    for (words, high, low) in [
        ("basins of memorized samples are larger than those of spurious ones", &memorized, &spurious),
        ("basins of spurious samples are larger than those of generalized ones", &spurious, &generalized),
    ] {
        claims.push(basin.larger((words, "Fig. 4B", what), high, low)?);
    }

    let curvature = |group: Group| -> Vec<SizeMean> {
        let of = spectra.iter().filter(|row| row.set.group == group);
        of.filter_map(|row| Some(SizeMean { k: row.set.k, mean: row.mean, standard_error: row.mean_error? }))
            .collect()
    };
    let [memorized, spurious, generalized, training] = Group::ALL.map(curvature);
    let what = "mean singular value of the first minus the second";
    let about_spectra = about("make notebooks ONLY=08_curvature");
    for (words, high, low) in [
        ("curvature at memorized samples is larger than at spurious ones", &memorized, &spurious),
        ("curvature at spurious samples is larger than at generalized ones", &spurious, &generalized),
    ] {
        claims.push(about_spectra.larger((words, "Fig. 5A", what), high, low)?);
    }
    let words = ("spectra of training points fall with K", "Fig. 5A", "the mean singular value");
    claims.push(about_spectra.trend(words, &training, false)?);

    let gap = |group: Group| -> Vec<SizeMean> {
        let kept = gaps.iter().filter(|row| row.group == group && row.reference.is_none() && !row.few);
        kept.map(SizeMean::from).collect()
    };
    let [memorized, spurious, generalized] = [Group::MEMORIZED, Group::SPURIOUS, Group::GENERALIZED].map(gap);
    let potential = about("make notebooks ONLY=09_relative_energy");
    claims.push(potential.memorized_gap_diverges(&memorized)?);
    // A larger gap is a lower energy.
    let words = (
        "the energy of memorized samples rises with K",
        "Fig. 6",
        "the memorized gap (larger is lower energy)",
    );
    claims.push(potential.trend(words, &memorized, false)?);
    let words = (
        "the energy of generalized samples falls with K",
        "Fig. 6",
        "the generalized gap (larger is lower energy)",
    );
    claims.push(potential.trend(words, &generalized, true)?);
    claims.push(potential.spurious_lowest(&spurious, &[&memorized, &generalized], transition)?);
    claims.push(potential.generalized_narrowest(
        &generalized,
        &[(Group::MEMORIZED, &memorized), (Group::SPURIOUS, &spurious)],
    )?);
    Ok(claims)
}

fn shares(cells: &[&SweepRow], class: fn(&SweepRow) -> &ClassRow) -> Vec<SizeShare> {
    cells.iter().map(|c| SizeShare { k: c.k, count: class(c).count, samples: c.samples }).collect()
}

/// For each K, the samples that are labelled both in the smallest sets S and in sets of `larger` K samples, and how many more
/// of them are spurious in the larger sets.
fn turned_spurious(samples: &[DistanceRow], dataset: &str, network: &str, larger: usize) -> Vec<SizeShare> {
    // Whether each sample is spurious in the smaller and in the larger set.
    type Labels = BTreeMap<usize, [Option<bool>; 2]>;
    let mut spurious: BTreeMap<(usize, Option<u64>), Labels> = BTreeMap::new();
    for row in samples.iter().filter(|row| &*row.dataset == dataset && &*row.network == network) {
        let of = spurious.entry((row.k, row.seed)).or_default().entry(row.sample).or_default();
        of[usize::from(row.multiple == larger)] = Some(row.label == Class::Spurious);
    }
    let mut all = Vec::new();
    for ((k, _), of) in spurious {
        let both: Vec<(bool, bool)> = of.into_values().filter_map(|[a, b]| a.zip(b)).collect();
        let count = |large: bool| both.iter().filter(|(a, b)| if large { *b } else { *a }).count();
        let count = count(true).saturating_sub(count(false));
        if !both.is_empty() {
            all.push(SizeShare { k, count, samples: both.len() });
        }
    }
    all
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
