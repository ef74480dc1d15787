//! The phase diagram of the profile, from the stored table or computed.

use super::frame::{load_frame, load_rows};
use super::retrieval::phase_diagram;
use super::{Example, LoadCell, LoadData, LoadParams, LoadSettings, MemoryLoad, VERSION, retrieval};
use crate::Error;
use crate::data::{self, Dataset, Range, Split};
use crate::frame::fingerprint::{Fingerprint, settings_value};
use crate::ops::{OpError, resolve};
use crate::shape::Shape;
use crate::study::context::Context;

/// The settings of the profile.
///
/// # Errors
/// As [`Context::settings`].
pub fn settings(context: &Context) -> Result<LoadSettings, Error> {
    Ok(context.settings("load")?)
}

/// The phase diagram of DenseAM retrieval on real images; stored as `memory_load`.
///
/// # Errors
/// Errors of the study, of the data sets and of the stored table.
pub fn memory_load(context: &Context) -> Result<MemoryLoad, Error> {
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
    Ok(MemoryLoad { cells: load_rows(&frame)? })
}

/// Examples of several cells.
#[derive(Debug, Clone)]
pub struct Examples {
    /// One row for each cell.
    pub rows: Vec<CellExamples>,
}

/// Examples of one cell.
#[derive(Debug, Clone)]
pub struct CellExamples {
    /// K and beta of the cell.
    pub label: String,
    /// Shape of the images.
    pub shape: Shape,
    /// The examples.
    pub examples: Vec<Example>,
}

/// The first `most` converged starts of each cell, computed again from the stored patterns with the threshold of the
/// cell.
///
/// # Errors
/// Errors of the study and of the data sets.
pub fn load_examples(context: &Context, cells: &[LoadCell], most: usize) -> Result<Examples, Error> {
    let params: LoadParams = settings(context)?.check()?.on(context.profile().device()?);
    let examples_of = |cell: &LoadCell| -> Result<CellExamples, Error> {
        let noise = params.noise(&cell.noise)?;
        let (train, test) = images(context, &cell.dataset)?;
        let data = load_data(&cell.dataset, &train, &test, cell.k)?;
        let examples =
            retrieval::load_examples(&data.name, &data.train, noise, cell.beta, cell.delta, &params, most)?;
        let label = format!("K = {}, \u{3b2} = {}", cell.k, cell.beta);
        Ok(CellExamples { label, shape: train.shape(), examples })
    };
    Ok(Examples { rows: cells.iter().map(examples_of).collect::<Result<_, _>>()? })
}

fn images(context: &Context, name: &str) -> Result<(Dataset, Dataset), Error> {
    let layout = context.layout();
    Ok((data::load(layout, name, Split::Train)?, data::load(layout, name, Split::Test)?))
}

fn load_data(name: &str, train: &Dataset, test: &Dataset, k: usize) -> Result<LoadData, Error> {
    Ok(LoadData {
        name: name.to_owned(),
        train: train.subset(k)?.to_f32(Range::Unit).into_shared(),
        held_out: test.to_f32(Range::Unit),
    })
}
