use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::{Score, ScoreError};
use crate::process::Level;
use crate::random::Streams;

/// Distribution of the random directions of Hutchinson's estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// +1 or -1. The diagonal of J adds no variance, so the estimate has the smaller variance.
    Rademacher,
    /// Standard normal.
    Gaussian,
}

impl Probe {
    /// One direction for every sample, `[m, n]`.
    pub fn draw(self, streams: &mut Streams, n: usize) -> Array2<f64> {
        match self {
            Self::Rademacher => streams.sign(n),
            Self::Gaussian => streams.normal(n),
        }
    }
}

/// Terms of Hutchinson's estimate of the trace of J, `[m, n]`: v^T J v for each row and each of the n directions
/// (`[m, N]` each). Their mean over n is the estimate, and their standard deviation gives its standard error.
///
/// # Errors
/// As [`Score::score`].
pub fn hutchinson<S: Score + ?Sized>(
    score: &S,
    x: ArrayView2<'_, f64>,
    levels: &[Level],
    directions: &[Array2<f64>],
) -> Result<Array2<f64>, ScoreError> {
    let mut terms = Array2::zeros((x.nrows(), directions.len()));
    for (mut column, v) in terms.columns_mut().into_iter().zip(directions) {
        let product = score.vjp(x, levels, v.view())?;
        for (i, term) in column.iter_mut().enumerate() {
            *term = product.row(i).dot(&v.row(i));
        }
    }
    Ok(terms)
}
