//! The table of a training run's metrics.

use std::path::Path;

use crate::frame::{TableError, columns, parquet_bytes};
use crate::train::{METRICS, MetricsRow};

columns!(MetricsRow, "training",
    /// One row for each interval of logging: `step`, `loss`, `gradient`, `rate` and `seconds`.
    metrics_frame, metrics_rows, {
    "step": (step),
    "loss": (loss),
    "gradient": (gradient),
    "rate": (rate),
    "seconds": (seconds),
});

/// The bytes of [`metrics_frame`] as a parquet file.
///
/// # Errors
/// As [`metrics_frame`].
pub fn metrics_bytes(rows: &[MetricsRow]) -> Result<Vec<u8>, TableError> {
    parquet_bytes(Path::new(METRICS), &metrics_frame(rows)?, &[])
}
