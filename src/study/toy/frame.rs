//! Tables of the toy model.

use polars::prelude::DataFrame;

use crate::frame::{Item, Table, TableError, columns, frame};
use crate::memory::Attractors;
use crate::study::toy::{Ladder, LadderRow, RingConvergence, RingGap};

impl Ladder {
    /// The number of attractors for each K and beta.
    ///
    /// # Errors
    /// As [`frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Attractors against \u{3b2}", ladder_frame(&self.rows)?).rows(12))
    }
}

impl RingConvergence {
    /// The difference of a finite sum from the ring for each K and beta.
    ///
    /// # Errors
    /// As [`frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Finite sum against the ring", ring_frame(&self.rows)?))
    }
}

/// [`attractors_frame`] with a caption.
///
/// # Errors
/// As [`frame`].
pub fn attractors_table(caption: &str, attractors: &Attractors) -> Result<Table, TableError> {
    Ok(Table::from_frame(caption, attractors_frame(attractors)?))
}

/// One row for each attractor: `x0`, `x1` and so on, `energy`, `nearest_memory`, `distance`, `kind`, `basin_share` and
/// `hessian_min`.
///
/// # Errors
/// As [`frame`].
pub fn attractors_frame(attractors: &Attractors) -> Result<DataFrame, TableError> {
    let found = &attractors.found;
    let dimensions = found.first().map_or(0, |a| a.x.len());
    let mut columns: Vec<_> = (0..dimensions)
        .map(|axis| Item::column(&format!("x{axis}"), found.iter().map(|a| a.x[axis]).collect()))
        .collect();
    columns.extend([
        Item::column("energy", found.iter().map(|a| a.energy).collect()),
        Item::column("nearest_memory", found.iter().map(|a| a.nearest_memory).collect()),
        Item::column("distance", found.iter().map(|a| a.distance).collect()),
        Item::column("kind", found.iter().map(|a| a.kind).collect()),
        Item::column("basin_share", found.iter().map(|a| a.basin_share).collect()),
        Item::column("hessian_min", found.iter().map(|a| a.spectrum[0]).collect()),
    ]);
    frame("attractors", columns)
}

columns!(RingGap, "ring",
    /// One row for each K and beta: `k`, `beta`, and `rms` and `worst`, the differences of a finite sum from the closed
    /// form of the ring.
    ring_frame, {
    "k": (k),
    "beta": (beta),
    "rms": (rms),
    "worst": (worst),
});

columns!(LadderRow, "attractors against beta",
    /// One row for each K and beta: `k`, `beta`, `memorized`, `spurious`, `share_memorized`, `certified`, `farthest` and
    /// `lost`.
    ladder_frame, ladder_rows, {
    "k": (k),
    "beta": (beta),
    "memorized": (memorized),
    "spurious": (spurious),
    "share_memorized": (share_memorized),
    "certified": (certified),
    "farthest": (farthest),
    "lost": (lost),
});
