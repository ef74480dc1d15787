//! A list of prompts, from a model to a folder.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde_json::json;

use super::frame::{prompts_frame, spectra_frame};
use super::measures::steps;
use super::{Measured, Prompt, PromptModel, PromptParams, PromptRow, VERSION, measure};
use crate::Error;
use crate::frame::write_parquet_with;
use crate::plot::bytes_png;
use crate::progress::Reporter;
use crate::shape::Shape;
use crate::store::{vacant, write_array, write_atomic, write_folder};
use crate::study::context::{Cells, piece};

/// What [`run`] wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The rows of the table.
    pub rows: Vec<PromptRow>,
    /// The folder `OUT.partial` where it still has pieces of calls with other settings.
    pub left: Option<PathBuf>,
}

/// Measures each prompt and writes the folder `out`, which must be vacant: `prompts.parquet`, `spectra.parquet`,
/// `samples.npy` `[prompts x seeds, N]` (images or latents, single precision), `prompts.json` (prompts, settings and
/// identity of the model) and a picture for each sample, `PROMPT-SEED.png` with numbers from 0.
///
/// Finished prompts, and of an unfinished one finished rows of S, are kept in the folder `OUT.partial` until the folder is
/// written, so that a stopped call resumes.
///
/// # Errors
/// Those of [`measure`] and of files that can't be written.
pub fn run(
    model: &dyn PromptModel,
    prompts: &[Prompt],
    params: &PromptParams,
    out: &Path,
    reporter: &dyn Reporter,
) -> Result<Written, Error> {
    let identity = json!({
        "version": VERSION,
        "model": model.identity(),
        "settings": params.settings(),
        "prompts": prompts,
    });
    vacant(out)?;
    let cells = Cells::beside(out, &identity)?;
    let all = measure_each(model, prompts, params, Some(&cells), reporter)?;
    write(out, &all, &identity.to_string())?;
    let left = cells.clear_beside(out)?;
    Ok(Written { rows: all.into_iter().map(|one| one.row).collect(), left })
}

/// Measures each prompt of a list as [`measure`], in the order of prompts and seeds. With `cells`, finished prompts, and of an
/// unfinished one finished rows of S, are kept there; all calls with these pieces must have the same model, prompts and
/// settings.
///
/// # Errors
/// Those of [`measure`] and of the pieces.
pub fn measure_each(
    model: &dyn PromptModel,
    prompts: &[Prompt],
    params: &PromptParams,
    cells: Option<&Cells>,
    reporter: &dyn Reporter,
) -> Result<Vec<Measured>, Error> {
    let each = steps(params, model.shape().len());
    let progress = reporter.progress("prompts", each * prompts.len() as u64);
    let mut all = Vec::new();
    for (place, prompt) in prompts.iter().enumerate() {
        let id = format!("prompt-{place}");
        let rows = cells.map(|cells| cells.within(&id));
        let make = || measure(model, (place, prompt), params, rows.as_ref(), &*progress);
        all.extend(piece(cells, &id, each, &*progress, make)?);
        if let Some(rows) = rows {
            rows.clear()?;
        }
    }
    Ok(all)
}

fn write(out: &Path, all: &[Measured], identity: &str) -> Result<(), Error> {
    write_folder(out, |folder| -> Result<(), Error> {
        let rows: Vec<PromptRow> = all.iter().map(|one| one.row.clone()).collect();
        let notes = [("identity", identity)];
        write_parquet_with(&folder.join("prompts.parquet"), &prompts_frame(&rows)?, &notes)?;
        write_parquet_with(&folder.join("spectra.parquet"), &spectra_frame(all)?, &notes)?;
        let dim = all.first().map_or(0, |one| one.sample.len());
        let samples = Array2::from_shape_fn((all.len(), dim), |(i, k)| all[i].sample[k]);
        write_array(&folder.join("samples.npy"), &samples)?;
        write_atomic(&folder.join("prompts.json"), |w| writeln!(w, "{identity}"))?;
        for Measured { row, picture, shape: [height, width, channels], .. } in all {
            let png = bytes_png(picture, Shape::image(*height, *width, *channels))?;
            let name = format!("{:04}-{:02}.png", row.prompt, row.seed);
            write_atomic(&folder.join(name), |w| w.write_all(&png))?;
        }
        Ok(())
    })
}
