//! What notebooks show of the cells of a sweep.

use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use crate::frame::{TableError, floats, frame, integers, strings};
use crate::study::sweep::{SweepRow, ThresholdRow};
use crate::study::transition::{networks, of_network};

/// Fractions and their intervals, a row a cell; the smallest |S| / K of each network, and the exact score last.
///
/// # Errors
/// As [`frame`].
pub fn summary_frame(cells: &[SweepRow]) -> Result<DataFrame, TableError> {
    let rows = in_order(cells);
    let real = |value: fn(&SweepRow) -> f64| rows.iter().map(|r| value(r)).collect::<Vec<f64>>();
    let mut columns = first(&rows);
    columns.extend([
        integers("samples", rows.iter().map(|r| r.samples as i64).collect()),
        floats("memorized", real(|r| r.memorized.fraction)),
        floats("spurious", real(|r| r.spurious.fraction)),
        strings("interval", rows.iter().map(|r| interval(r)).collect()),
        floats("generalized", real(|r| r.generalized.fraction)),
        integers("invalid", rows.iter().map(|r| r.invalid as i64).collect()),
        maybe("ratio below 1/3", rows.iter().map(|r| r.ratio_copies).collect()),
        maybe("loss", rows.iter().map(|r| r.loss).collect()),
    ]);
    frame("summary", columns)
}

/// Thresholds and the evidence for them, a row a cell.
///
/// # Errors
/// As [`frame`].
pub fn thresholds_frame(cells: &[SweepRow]) -> Result<DataFrame, TableError> {
    let rows = in_order(cells);
    let mut columns = first(&rows);
    for (name, of) in
        [("delta_m", (|r| &r.delta_m) as fn(&SweepRow) -> &ThresholdRow), ("delta_s", |r| &r.delta_s)]
    {
        columns.extend([
            maybe(name, rows.iter().map(|r| of(r).value).collect()),
            strings(&format!("{name} is"), rows.iter().map(|r| of(r).origin.clone()).collect()),
            maybe(&format!("{name} valley"), rows.iter().map(|r| of(r).believed()).collect()),
        ]);
    }
    columns.extend([
        maybe("held-out 1%", rows.iter().map(|r| r.held_out_quantiles[0]).collect()),
        maybe("held-out median", rows.iter().map(|r| r.held_out_quantiles[2]).collect()),
    ]);
    frame("thresholds", columns)
}

fn in_order(cells: &[SweepRow]) -> Vec<&SweepRow> {
    let names = networks(cells);
    let mut datasets: Vec<&str> = names.iter().map(|(dataset, _)| *dataset).collect();
    datasets.dedup();
    let all = names.into_iter().chain(datasets.into_iter().map(|dataset| (dataset, "exact")));
    all.flat_map(|(dataset, network)| of_network(cells, dataset, network, None)).collect()
}

fn first(rows: &[&SweepRow]) -> Vec<Column> {
    vec![
        strings("dataset", rows.iter().map(|r| r.dataset.clone()).collect()),
        strings("network", rows.iter().map(|r| r.network.clone()).collect()),
        integers("K", rows.iter().map(|r| r.k as i64).collect()),
    ]
}

fn maybe(name: &str, values: Vec<Option<f64>>) -> Column {
    Series::new(name.into(), values).into()
}

/// The interval of the spurious fraction.
fn interval(row: &SweepRow) -> String {
    format!("{:.3} to {:.3}", row.spurious.low, row.spurious.high)
}

/// The transition of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct CapacityRow {
    /// Its name.
    pub network: String,
    /// Numbers that are trained.
    pub parameters: usize,
    /// K at which half the samples are memorized, with a 95 percent interval; none where it is not between the sizes
    /// measured.
    pub half: Option<(f64, [f64; 2])>,
    /// K of the largest spurious fraction, and that.
    pub peak: Option<(usize, f64)>,
}

/// The transitions of networks, a row each.
///
/// # Errors
/// As [`frame`].
pub fn capacity_frame(rows: &[CapacityRow]) -> Result<DataFrame, TableError> {
    frame(
        "capacity",
        vec![
            strings("network", rows.iter().map(|r| r.network.clone()).collect()),
            integers("parameters", rows.iter().map(|r| r.parameters as i64).collect()),
            maybe("K of half", rows.iter().map(|r| r.half.map(|(k, _)| k)).collect()),
            maybe("from", rows.iter().map(|r| r.half.map(|(_, [low, _])| low)).collect()),
            maybe("to", rows.iter().map(|r| r.half.map(|(_, [_, high])| high)).collect()),
            maybe("K of the peak", rows.iter().map(|r| r.peak.map(|(k, _)| k as f64)).collect()),
            maybe("spurious there", rows.iter().map(|r| r.peak.map(|(_, f)| f)).collect()),
        ],
    )
}
