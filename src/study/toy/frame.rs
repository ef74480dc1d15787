//! Frames of the toy model's rows.

use polars::prelude::DataFrame;

use crate::frame::{TableError, column_f64, column_i64, floats, frame, integers, texts};
use crate::memory::Attractors;
use crate::study::toy::{LadderRow, RingGap};

/// One row an attractor: x0, x1, ..., energy, nearest_memory, distance, kind, basin_share, hessian_min.
///
/// # Errors
/// As [`frame`].
pub fn attractors_frame(attractors: &Attractors) -> Result<DataFrame, TableError> {
    let found = &attractors.found;
    let dimensions = found.first().map_or(0, |a| a.x.len());
    let mut columns: Vec<_> =
        (0..dimensions).map(|k| floats(&format!("x{k}"), found.iter().map(|a| a.x[k]).collect())).collect();
    columns.extend([
        floats("energy", found.iter().map(|a| a.energy).collect()),
        integers("nearest_memory", found.iter().map(|a| a.nearest_memory as i64).collect()),
        floats("distance", found.iter().map(|a| a.distance).collect()),
        texts("kind", &found.iter().map(|a| a.kind.name()).collect::<Vec<_>>()),
        floats("basin_share", found.iter().map(|a| a.basin_share).collect()),
        floats("hessian_min", found.iter().map(|a| a.spectrum[0]).collect()),
    ]);
    frame("attractors", columns)
}

/// One row a size and beta: how far a finite sum is from the closed form.
///
/// # Errors
/// As [`frame`].
pub fn ring_frame(rows: &[RingGap]) -> Result<DataFrame, TableError> {
    frame(
        "ring",
        vec![
            integers("k", rows.iter().map(|r| r.k as i64).collect()),
            floats("beta", rows.iter().map(|r| r.beta).collect()),
            floats("rms", rows.iter().map(|r| r.rms).collect()),
            floats("worst", rows.iter().map(|r| r.worst).collect()),
        ],
    )
}

/// One row a size and beta.
///
/// # Errors
/// As [`frame`].
pub fn ladder_frame(rows: &[LadderRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&LadderRow) -> f64| floats(name, rows.iter().map(of).collect());
    let whole =
        |name: &str, of: fn(&LadderRow) -> usize| integers(name, rows.iter().map(|r| of(r) as i64).collect());
    frame(
        "attractors against beta",
        vec![
            whole("k", |r| r.k),
            real("beta", |r| r.beta),
            whole("memorized", |r| r.memorized),
            whole("spurious", |r| r.spurious),
            real("share_memorized", |r| r.share_memorized),
            whole("certified", |r| r.certified),
            real("farthest", |r| r.farthest),
            whole("lost", |r| r.lost),
        ],
    )
}

/// The rows of [`ladder_frame`].
///
/// # Errors
/// [`TableError`] for a missing column or another type.
pub fn ladder_rows(frame: &DataFrame) -> Result<Vec<LadderRow>, TableError> {
    let whole = |name| -> Result<Vec<usize>, TableError> {
        Ok(column_i64(frame, name)?.into_iter().map(|v| usize::try_from(v).unwrap_or(0)).collect())
    };
    let (k, beta) = (whole("k")?, column_f64(frame, "beta")?);
    let (memorized, spurious) = (whole("memorized")?, whole("spurious")?);
    let (certified, lost) = (whole("certified")?, whole("lost")?);
    let (share, farthest) = (column_f64(frame, "share_memorized")?, column_f64(frame, "farthest")?);
    Ok((0..frame.height())
        .map(|i| LadderRow {
            k: k[i],
            beta: beta[i],
            memorized: memorized[i],
            spurious: spurious[i],
            share_memorized: share[i],
            certified: certified[i],
            farthest: farthest[i],
            lost: lost[i],
        })
        .collect())
}
