//! The frame of log-likelihoods.

use std::f64::consts::LN_2;

use polars::prelude::{DataFrame, NamedFrom, Series};

use crate::frame::{TableError, floats, frame, integers};
use crate::sample::Likelihood;

/// One row a query in N dimensions: `row` (from 0, over all parts), `log_density` (nats), `bits_per_dimension`
/// (-log_density / (N ln 2)), `standard_error` (null where the divergence is exact) and `steps`.
///
/// # Errors
/// Those of [`frame`].
pub fn likelihood_frame(parts: &[Likelihood], n: usize) -> Result<DataFrame, TableError> {
    let log: Vec<f64> = parts.iter().flat_map(|part| part.log_density.iter().copied()).collect();
    let errors: Vec<Option<f64>> = parts
        .iter()
        .flat_map(|part| {
            let error = |i| part.standard_error.as_ref().map(|errors| errors[i]);
            (0..part.log_density.len()).map(error)
        })
        .collect();
    let steps = parts.iter().flat_map(|part| part.steps.iter().map(|steps| *steps as i64)).collect();
    frame(
        "likelihoods",
        vec![
            integers("row", (0..log.len() as i64).collect()),
            floats("log_density", log.clone()),
            floats("bits_per_dimension", log.iter().map(|log| -log / (n as f64 * LN_2)).collect()),
            Series::new("standard_error".into(), errors).into(),
            integers("steps", steps),
        ],
    )
}
