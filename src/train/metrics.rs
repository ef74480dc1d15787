//! Frames of a training run's metrics.

use std::path::Path;

use polars::prelude::DataFrame;

use crate::frame::{TableError, column_f64, column_i64, floats, frame, integers, parquet_bytes};
use crate::train::{METRICS, MetricsRow};

/// One row a stretch of steps: step, loss, gradient, rate, seconds.
///
/// # Errors
/// As [`frame`].
pub fn metrics_frame(rows: &[MetricsRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&MetricsRow) -> f64| floats(name, rows.iter().map(of).collect());
    frame(
        "training",
        vec![
            integers("step", rows.iter().map(|r| r.step as i64).collect()),
            real("loss", |r| r.loss),
            real("gradient", |r| r.gradient),
            real("rate", |r| r.rate),
            real("seconds", |r| r.seconds),
        ],
    )
}

/// The rows of [`metrics_frame`].
///
/// # Errors
/// [`TableError`] for a missing column or another type.
pub fn metrics_rows(frame: &DataFrame) -> Result<Vec<MetricsRow>, TableError> {
    let step = column_i64(frame, "step")?;
    let (loss, gradient) = (column_f64(frame, "loss")?, column_f64(frame, "gradient")?);
    let (rate, seconds) = (column_f64(frame, "rate")?, column_f64(frame, "seconds")?);
    Ok((0..frame.height())
        .map(|i| MetricsRow {
            step: u64::try_from(step[i]).unwrap_or(0),
            loss: loss[i],
            gradient: gradient[i],
            rate: rate[i],
            seconds: seconds[i],
        })
        .collect())
}

/// The bytes of [`metrics_frame`] as a parquet file.
///
/// # Errors
/// As [`frame`].
pub fn metrics_bytes(rows: &[MetricsRow]) -> Result<Vec<u8>, TableError> {
    parquet_bytes(Path::new(METRICS), &metrics_frame(rows)?, &[])
}
