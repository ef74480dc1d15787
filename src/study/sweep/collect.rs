//! Tables and published weights from finished cells.

use std::fs;
use std::path::Path;

use polars::prelude::DataFrame;
use serde_json::json;

use crate::data::{Split, load};
use crate::frame::TableError;
use crate::frame::fingerprint::{Fingerprint, Stored};
use crate::project::Layout;
use crate::store::StoreError;
use crate::study::sweep::data::Bench;
use crate::study::sweep::frame::{
    cells_frame, cells_rows, examples_frame, examples_rows, samples_frame, samples_rows,
};
use crate::study::sweep::{Plan, SweepCell, SweepError, Transition, VERSION};
use crate::train::{self, RunDir};
use crate::{Error, sample};

/// The tables of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    /// The tables.
    pub tables: Transition,
    /// Names of the cells that are not finished.
    pub missing: Vec<String>,
}

/// Reads all finished cells of a plan, in its order.
///
/// # Errors
/// [`SweepError::Unfinished`] when cells are missing, unless `partial`; [`SweepError::Cell`] for files that were changed
/// after a cell was finished.
pub fn collect(plan: &Plan, runs: &Path, partial: bool) -> Result<Collected, Error> {
    let mut collected = Collected { tables: Transition::default(), missing: vec![] };
    for task in plan.tasks() {
        let cell = SweepCell::from_task(runs, task);
        let Some(record) = cell.record(task)? else {
            collected.missing.push(task.id.clone());
            continue;
        };
        let rows = cell.rows(plan, task, &record)?;
        collected.tables.cells.extend(rows.cells);
        collected.tables.samples.extend(rows.samples);
        collected.tables.examples.extend(rows.examples);
    }
    match collected.missing.first() {
        Some(first) if !partial => Err(SweepError::Unfinished {
            name: plan.name().into(),
            missing: collected.missing.len(),
            tasks: plan.tasks().len(),
            first: first.clone(),
        }
        .into()),
        _ => Ok(collected),
    }
}

/// Everything that the tables of a plan depend on: its settings, versions, data sets, and the missing cells.
///
/// # Errors
/// [`DataError`](crate::data::DataError) for a data set that can't be read.
pub fn fingerprint(
    plan: &Plan,
    layout: &Layout,
    profile: &str,
    missing: &[String],
) -> Result<Fingerprint, Error> {
    let settings = plan.settings();
    let asked = json!({
        "plan": settings,
        "versions": { "training": train::VERSION, "sampling": sample::VERSION },
        "missing": missing,
    });
    let mut fingerprint = Fingerprint::new("transition", VERSION, asked, profile);
    let mut bench = Bench::new(layout);
    for name in &settings.datasets {
        fingerprint = fingerprint.data(&format!("{name} train"), &bench.open(name)?.sha256());
        if settings.detection.held_out > 0 {
            let test = load(layout, name, Split::Test)?;
            fingerprint = fingerprint.data(&format!("{name} test"), &test.sha256());
        }
    }
    Ok(fingerprint)
}

/// One of the three tables of a plan: its name, and the functions that write and read it.
pub(crate) struct Form {
    ending: &'static str,
    pub(crate) frame: fn(&Transition) -> Result<DataFrame, TableError>,
    pub(crate) take: fn(&mut Transition, &DataFrame) -> Result<(), TableError>,
}

pub(crate) const FORMS: [Form; 3] = [
    Form {
        ending: "",
        frame: |all| cells_frame(&all.cells),
        take: |all, frame| {
            all.cells = cells_rows(frame)?;
            Ok(())
        },
    },
    Form {
        ending: "_samples",
        frame: |all| samples_frame(&all.samples),
        take: |all, frame| {
            all.samples = samples_rows(frame)?;
            Ok(())
        },
    },
    Form {
        ending: "_examples",
        frame: |all| examples_frame(&all.examples),
        take: |all, frame| {
            all.examples = examples_rows(frame)?;
            Ok(())
        },
    },
];

impl Form {
    /// The table's name.
    pub(crate) fn name(&self, plan: &Plan) -> String {
        format!("{}{}", plan.table(), self.ending)
    }
}

/// Stores the tables, each with its record, and returns their names. `place` gives the place of a table by its name.
///
/// # Errors
/// Those of writing.
pub fn store(
    plan: &Plan,
    tables: &Transition,
    fingerprint: &Fingerprint,
    place: &dyn Fn(&str) -> Stored,
) -> Result<Vec<String>, TableError> {
    let seconds = tables.cells.iter().map(|c| c.train_seconds + c.sample_seconds + c.label_seconds).sum();
    FORMS
        .iter()
        .map(|form| {
            let name = form.name(plan);
            place(&name).save(fingerprint, &(form.frame)(tables)?, seconds)?;
            Ok(name)
        })
        .collect()
}

/// Writes the average weights of every finished network of a plan in half precision. Returns the number of files and the
/// names of unfinished cells. Networks with restored weights are skipped, because they are published already.
///
/// # Errors
/// Those of reading and writing.
pub fn publish(plan: &Plan, runs: &Path, out: &Path) -> Result<(usize, Vec<String>), Error> {
    fs::create_dir_all(out).map_err(StoreError::io("make folder", out))?;
    let (mut written, mut missing) = (0, vec![]);
    for task in plan.tasks() {
        let Some(file) = task.weights() else { continue };
        let cell = SweepCell::from_task(runs, task);
        match cell.record(task)? {
            None => missing.push(task.id.clone()),
            Some(record) if record.network.as_ref().is_some_and(|n| n.restored) => {}
            Some(_) => {
                RunDir::open(&cell.train())?.publish(&out.join(file))?;
                written += 1;
            }
        }
    }
    Ok((written, missing))
}
