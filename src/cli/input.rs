//! Shared by commands: input arrays, the device, and the line printed at the end.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::data::image_set::{Together, reconcile};
use mem2gen::data::{ImageSet, Input};
use mem2gen::device::DeviceChoice;
use mem2gen::ops::{Element, Memories};
use mem2gen::store::{Matrix, read_matrix};
use ndarray::{ArcArray2, Array2};

/// Memories and queries of one precision: single when both files have it, else double.
pub enum Pair {
    /// Both float32.
    F32(Array2<f32>, Array2<f32>),
    /// At least one float64.
    F64(Array2<f64>, Array2<f64>),
}

impl Pair {
    /// Reads both files: rows as they are, or images, which are brought to one range.
    pub fn read(memories: &Path, queries: &Path) -> Result<Self, Error> {
        let (m, q) = match (rows(memories)?, rows(queries)?) {
            (Rows::Plain(m), Rows::Plain(q)) => (m, q),
            (m, q) => {
                let mut sets = [m.into_images(memories)?, q.into_images(queries)?];
                reconcile(&mut sets, Together::default())?;
                let [m, q] = sets;
                put_error!("memories: {}\nqueries: {}", m.said(), q.said());
                (Matrix::F32(m.rows().to_owned()), Matrix::F32(q.rows().to_owned()))
            }
        };
        Ok(match (m, q) {
            (Matrix::F32(m), Matrix::F32(q)) => Self::F32(m, q),
            (m, q) => Self::F64(m.into_f64(), q.into_f64()),
        })
    }
}

/// What a file holds.
enum Rows {
    /// A matrix, used as it is.
    Plain(Matrix),
    /// Images.
    Images(Box<ImageSet>),
}

impl Rows {
    /// A matrix beside images is read as they are.
    fn into_images(self, path: &Path) -> Result<ImageSet, Error> {
        match self {
            Self::Images(set) => Ok(*set),
            Self::Plain(_) => Ok(Input::from_path(path).read()?),
        }
    }
}

/// Rows of a file: a matrix, or else images.
fn rows(path: &Path) -> Result<Rows, Error> {
    let refused = match read_matrix(path) {
        Ok(found) => return Ok(Rows::Plain(found)),
        Err(e) => e,
    };
    let array = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
    match Input::from_path(path).read() {
        // Integers in the rows of a .npy file are not bytes of images.
        Ok(set) if !array || set.shape().is_some() => Ok(Rows::Images(Box::new(set))),
        Err(e) if !array => Err(e.into()),
        _ => Err(refused.into()),
    }
}

/// `--memories` and `--queries`.
#[derive(Debug, clap::Args)]
pub struct Inputs {
    /// Memories, one per row: .npy, [K, N], float32 or float64; or images, as for 'classify'
    #[arg(long, value_name = "M.npy")]
    pub memories: PathBuf,
    /// Queries, one per row: .npy, [m, N], float32 or float64; or images, as for 'classify'
    #[arg(long, value_name = "X.npy")]
    pub queries: PathBuf,
}

impl Inputs {
    /// Reads both.
    pub fn read(&self) -> Result<Pair, Error> {
        Pair::read(&self.memories, &self.queries)
    }
}

/// `--device`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct On {
    /// Device: cpu, cuda:N, or auto for cuda:0 when it is usable and else cpu
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
}

/// Prints the numbers of queries and memories, the device and the path of the result.
pub fn done<T: Element>(command: &str, queries: usize, memories: &Memories<T>, out: &Path) {
    let (count, device) = (memories.len(), memories.device());
    put_line!("{command}: {queries} queries, {count} memories, {device} -> {}", out.display());
}

/// Reads and checks memories in double precision.
pub fn memories(path: &Path) -> Result<ArcArray2<f64>, Error> {
    let rows = read_matrix(path)?.into_f64().into_shared();
    Memories::new(rows.clone())?;
    Ok(rows)
}
