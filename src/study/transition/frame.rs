//! Tables of the cells of a sweep.

use polars::prelude::{Column, DataFrame};

use crate::frame::{Item, Table, TableError, columns, frame};
use crate::study::sweep::{SweepRow, ThresholdRow, Transition};
use crate::study::transition::{network_cells, networks};

impl Transition {
    /// Fractions and their intervals, one row for each cell: the smallest |S| / K of each network, then the exact score.
    ///
    /// # Errors
    /// As [`frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Every cell", summary_frame(&self.cells)?).rows(90).digits(3))
    }

    /// Thresholds and the evidence for them, one row for each cell.
    ///
    /// # Errors
    /// As [`frame`].
    pub fn thresholds_table(&self) -> Result<Table, TableError> {
        let frame = thresholds_frame(&self.cells)?;
        Ok(Table::from_frame("Thresholds and where they came from", frame).rows(80).digits(3))
    }
}

fn summary_frame(cells: &[SweepRow]) -> Result<DataFrame, TableError> {
    let rows = in_order(cells);
    let mut columns = keys(&rows);
    columns.extend([
        column("samples", &rows, |r| r.samples),
        column("memorized", &rows, |r| r.memorized.fraction),
        column("spurious", &rows, |r| r.spurious.fraction),
        column("interval", &rows, |r| format!("{:.3} to {:.3}", r.spurious.low, r.spurious.high)),
        column("generalized", &rows, |r| r.generalized.fraction),
        column("invalid", &rows, |r| r.invalid),
        column("ratio below 1/3", &rows, |r| r.ratio_copies),
        column("loss", &rows, |r| r.loss),
    ]);
    frame("summary", columns)
}

fn thresholds_frame(cells: &[SweepRow]) -> Result<DataFrame, TableError> {
    let rows = in_order(cells);
    let mut columns = keys(&rows);
    type Named = (&'static str, fn(&SweepRow) -> &ThresholdRow);
    let thresholds: [Named; 2] = [("delta_m", |r| &r.delta_m), ("delta_s", |r| &r.delta_s)];
    for (name, threshold) in thresholds {
        columns.extend([
            column(name, &rows, |r| threshold(r).value),
            column(&format!("{name} is"), &rows, |r| threshold(r).origin.clone()),
            column(&format!("{name} valley"), &rows, |r| threshold(r).believed()),
        ]);
    }
    columns.extend([
        column("held-out 1%", &rows, |r| r.held_out_quantiles[0]),
        column("held-out median", &rows, |r| r.held_out_quantiles[2]),
    ]);
    frame("thresholds", columns)
}

fn in_order(cells: &[SweepRow]) -> Vec<&SweepRow> {
    let names = networks(cells);
    let mut datasets: Vec<&str> = names.iter().map(|(dataset, _)| *dataset).collect();
    datasets.dedup();
    let all = names.into_iter().chain(datasets.into_iter().map(|dataset| (dataset, "exact")));
    all.flat_map(|(dataset, network)| network_cells(cells, dataset, network, None)).collect()
}

fn keys(rows: &[&SweepRow]) -> Vec<Column> {
    vec![
        column("dataset", rows, |r| r.dataset.clone()),
        column("network", rows, |r| r.network.clone()),
        column("K", rows, |r| r.k),
    ]
}

fn column<T: Item>(name: &str, rows: &[&SweepRow], value: impl Fn(&SweepRow) -> T) -> Column {
    T::column(name, rows.iter().map(|r| value(r)).collect())
}

/// The transition of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct CapacityRow {
    /// Name of the network.
    pub network: String,
    /// Number of parameters.
    pub parameters: usize,
    /// K at which half of the samples are memorized, with a 95 percent interval; `None` when it is not between the
    /// measured sizes.
    pub half: Option<(f64, [f64; 2])>,
    /// K of the largest spurious fraction, and this fraction.
    pub peak: Option<(usize, f64)>,
}

/// The transitions of several networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// One row for each network.
    pub rows: Vec<CapacityRow>,
}

impl Capacity {
    /// The transitions, one row for each network.
    ///
    /// # Errors
    /// As [`capacity_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Where the fractions cross one half", capacity_frame(&self.rows)?).digits(3))
    }
}

columns!(CapacityRow, "capacity",
    /// One row for each network.
    capacity_frame, {
    "network": (network),
    "parameters": (parameters),
    "K of half": [|r| r.half.map(|(k, _)| k)],
    "from": [|r| r.half.map(|(_, [low, _])| low)],
    "to": [|r| r.half.map(|(_, [_, high])| high)],
    "K of the peak": [|r| r.peak.map(|(k, _)| k as f64)],
    "spurious there": [|r| r.peak.map(|(_, fraction)| fraction)],
});
