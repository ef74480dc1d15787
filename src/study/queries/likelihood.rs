//! The table of log-likelihoods.

use std::f64::consts::LN_2;

use polars::prelude::DataFrame;

use crate::frame::{Item, TableError, frame};
use crate::sample::Likelihood;

/// One row for each query in N dimensions: `row` (from 0, over all parts), `log_density` (nats), `bits_per_dimension`
/// (-log_density / (N ln 2)), `standard_error` (null where the divergence is exact) and `steps`.
///
/// # Errors
/// As [`frame`].
pub fn likelihood_frame(parts: &[Likelihood], n: usize) -> Result<DataFrame, TableError> {
    let log: Vec<f64> = parts.iter().flat_map(|part| part.log_density.iter().copied()).collect();
    let errors: Vec<Option<f64>> = parts
        .iter()
        .flat_map(|part| {
            let error = |i| part.standard_error.as_ref().map(|errors| errors[i]);
            (0..part.log_density.len()).map(error)
        })
        .collect();
    let steps: Vec<usize> = parts.iter().flat_map(|part| part.steps.iter().copied()).collect();
    frame(
        "likelihoods",
        vec![
            Item::column("row", (0..log.len()).collect()),
            Item::column("log_density", log.clone()),
            Item::column("bits_per_dimension", log.iter().map(|log| -log / (n as f64 * LN_2)).collect()),
            Item::column("standard_error", errors),
            Item::column("steps", steps),
        ],
    )
}
