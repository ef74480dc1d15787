//! The arrays that a command reads.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::ops::Memories;
use mem2gen::store::{Matrix, read_matrix};
use ndarray::Array2;

/// Memories and queries of one precision: single where both files have it, else double.
pub enum Pair {
    /// Both float32.
    F32(Array2<f32>, Array2<f32>),
    /// At least one float64.
    F64(Array2<f64>, Array2<f64>),
}

/// `--memories` and `--queries`.
#[derive(Debug, clap::Args)]
pub struct Inputs {
    /// Memories, one a row: .npy, [K, N], float32 or float64
    #[arg(long, value_name = "M.npy")]
    pub memories: PathBuf,
    /// Queries, one a row: .npy, [m, N], float32 or float64
    #[arg(long, value_name = "X.npy")]
    pub queries: PathBuf,
}

impl Inputs {
    /// Reads both.
    pub fn read(&self) -> Result<Pair, Error> {
        Ok(match (read_matrix(&self.memories)?, read_matrix(&self.queries)?) {
            (Matrix::F32(m), Matrix::F32(q)) => Pair::F32(m, q),
            (m, q) => Pair::F64(m.into_f64(), q.into_f64()),
        })
    }
}

/// Reads memories in double precision, checked.
pub fn memories(path: &Path) -> Result<Array2<f64>, Error> {
    let rows = read_matrix(path)?.into_f64();
    Memories::new(rows.view())?;
    Ok(rows)
}
