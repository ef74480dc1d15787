//! The phase diagram of the profile, from the stored table or computed.

use super::frame::{load_cells, load_frame};
use super::retrieval::phase_diagram;
use super::{Example, LoadCell, LoadData, LoadParams, LoadSettings, VERSION, retrieval};
use crate::Error;
use crate::data::{self, Dataset, Range, Split};
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::ops::{OpError, resolve};
use crate::study::context::Context;

/// The settings of the profile.
///
/// # Errors
/// Those of the profile.
pub fn settings(context: &Context) -> Result<LoadSettings, Error> {
    Ok(context.settings("load")?)
}

/// The phase diagram of DenseAM retrieval on real images; stored as `memory_load`.
///
/// # Errors
/// Those of the analysis, of the data sets and of the stored table.
pub fn memory_load(context: &Context) -> Result<Vec<LoadCell>, Error> {
    let params = settings(context)?.check()?.on(context.profile().device()?);
    let names = &params.settings().datasets;
    let sets = names.iter().map(|n| images(context, n)).collect::<Result<Vec<_>, _>>()?;
    let settings = settings_value(params.settings())?;
    let mut fingerprint = Fingerprint::new("memory load", VERSION, settings, context.profile().name());
    for (name, (train, test)) in names.iter().zip(&sets) {
        fingerprint = fingerprint
            .data(&format!("{name} train"), &train.sha256())
            .data(&format!("{name} test"), &test.sha256());
    }
    let (device, _) = resolve(context.profile().device()?)
        .map_err(|source| OpError::Device { operation: "memory load", source })?;
    let frame = context.recall("memory_load", &fingerprint, device, || {
        let data = names
            .iter()
            .zip(sets)
            .map(|(name, (train, test))| load_data(name, &train, &test, train.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let cells = context.cells(&fingerprint)?;
        let progress = context.progress("cells", params.cells(&data) as u64);
        Ok(load_frame(&phase_diagram(&data, &params, Some(&cells), &*progress)?)?)
    })?;
    Ok(load_cells(&frame)?)
}

/// The first `most` starts of one cell of the phase diagram, computed anew from the stored set of size k
/// with the threshold that the cell was labelled with.
///
/// # Errors
/// Those of the analysis and of the data set.
pub fn load_examples(context: &Context, cell: &LoadCell, most: usize) -> Result<Vec<Example>, Error> {
    let params: LoadParams = settings(context)?.check()?.on(context.profile().device()?);
    let noise = params.noise(&cell.noise)?;
    let (train, test) = images(context, &cell.dataset)?;
    let data = load_data(&cell.dataset, &train, &test, cell.k)?;
    Ok(retrieval::load_examples(&data.name, data.train.view(), noise, cell.beta, cell.delta, &params, most)?)
}

/// [`load_examples`] of several cells, each under a line that says which cell it is.
///
/// # Errors
/// As [`load_examples`].
pub fn example_rows(
    context: &Context,
    cells: &[LoadCell],
    most: usize,
) -> Result<Vec<(String, Vec<Example>)>, Error> {
    cells
        .iter()
        .map(|c| Ok((format!("K = {}, \u{3b2} = {}", c.k, c.beta), load_examples(context, c, most)?)))
        .collect()
}

fn images(context: &Context, name: &str) -> Result<(Dataset, Dataset), Error> {
    let layout = context.layout();
    Ok((data::load(layout, name, Split::Train)?, data::load(layout, name, Split::Test)?))
}

fn load_data(name: &str, train: &Dataset, test: &Dataset, k: usize) -> Result<LoadData, Error> {
    Ok(LoadData {
        name: name.to_owned(),
        train: train.subset(k)?.to_f32(Range::Unit),
        held_out: test.to_f32(Range::Unit),
    })
}
