//! The fused operations: softmax read-out, energy, score and nearest memory over many queries.
//!
//! Every analysis spends its time here. No function holds a queries x memories matrix: blocks of
//! queries meet tiles of memories in a matrix product, and an online softmax folds each tile into
//! running sums. See [`Memories::readout`] for how the result stays right in single precision.

mod check;
pub mod cuda;
mod device;
mod element;
mod error;
mod knn;
mod lanes;
mod pairwise;
mod placed;
mod readout;
mod sweep;

pub use device::resolve;
pub use element::Element;
pub use error::OpError;
pub use knn::{Knn, Nearest};
pub use pairwise::PairTile;
pub use readout::{Readout, Want};

pub(crate) use check::finite_rows;
pub(crate) use element::exp32;
pub(crate) use lanes::Buffer;

use crate::device::{Device, DeviceChoice};
use ndarray::{ArcArray2, Array1, Array2, ArrayView2};
use placed::Placed;
use readout::Betas;

/// What making [`Memories`] is called in errors.
const PREPARE: &str = "prepare memories";

/// K memories in N dimensions, checked and ready for any number of queries.
///
/// Holds the rows (borrowed where they are contiguous), their mean and their norms about it: 8 bytes a
/// memory and N numbers besides.
pub struct Memories<T: Element> {
    pub(crate) rows: CowArray<'a, T, Ix2>,
    /// Mean of the rows, rounded to T. Products are taken about it, which keeps them small.
    pub(crate) centre: Vec<T>,
    /// Half the squared norm of each centred row.
    pub(crate) half_norms: Vec<T>,
    /// Largest norm of a centred row.
    pub(crate) reach: f64,
    /// The memories on a device, where the operations then run.
    pub(crate) resident: Option<T::Resident>,
}

impl<T: Element> Memories<T> {
    /// Checks the memories, one a row.
    ///
    /// # Errors
    /// [`OpError::Empty`] for no rows or no columns, [`OpError::NotFinite`] for NaN or infinity.
    pub fn new(rows: ArrayView2<'a, T>) -> Result<Self, OpError> {
        T::prepare(rows)
    }

    /// As [`Self::new`], on the device of that choice.
    ///
    /// CUDA devices take f32 alone: with [`DeviceChoice::Auto`] f64 stays on the processor.
    ///
    /// # Errors
    /// As [`Self::new`]; [`OpError::Device`] if the device can't be used.
    pub fn on(rows: ArrayView2<'a, T>, choice: DeviceChoice) -> Result<Self, OpError> {
        let mut memories = Self::new(rows)?;
        memories.resident = T::Resident::place(memories.rows.view(), choice)?;
        Ok(memories)
    }

    /// Where the operations on these memories run.
    pub fn device(&self) -> Device {
        self.resident.as_ref().map_or(Device::Cpu, Placed::device)
    }

    /// K, the number of memories.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Never true: a set without memories can't be made.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// N, the number of dimensions.
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// The memories themselves, `[K, N]`.
    pub fn rows(&self) -> ArrayView2<'_, T> {
        self.rows.view()
    }

    /// Softmax read-out of every query: the mean m(x), and with it, from the same pass, the energy,
    /// the entropy of the weights and the memory of largest weight.
    ///
    /// `beta` is the inverse temperature of Eq. 6, so the weights are softmax(-beta ||x - xi||^2).
    ///
    /// Logits come from the expansion 2 beta (x.xi - ||xi||^2/2) about the memories' mean. Its rounding
    /// error is bounded for each query, and every memory whose share of the weights could carry that
    /// error into the result has its distance taken again, directly and in f64. With that the energy,
    /// and the score where it is not itself a difference of nearly equal numbers, agree with f64 to
    /// 1e-5 in single precision at any beta.
    ///
    /// # Errors
    /// [`OpError::Shape`] where the dimensions differ, [`OpError::NotFinite`], [`OpError::Parameter`]
    /// for a beta that is not positive and finite.
    pub fn readout(&self, queries: ArrayView2<'_, T>, beta: f64, want: Want) -> Result<Readout<T>, OpError> {
        T::readout(self, queries, Betas::All(beta), want)
    }

    /// [`Self::readout`] of queries with a beta each, `[m]`: as one call a query, to the last bit.
    ///
    /// # Errors
    /// As [`Self::readout`]; [`OpError::Shape`] for another number of betas than queries.
    pub fn readout_each(
        &self,
        queries: ArrayView2<'_, T>,
        betas: &[f64],
        want: Want,
    ) -> Result<Readout<T>, OpError> {
        T::readout(self, queries, Betas::Each(betas), want)
    }

    /// E^AM of every query (Eq. 6), `[m]` in f64: -(1/beta) log sum exp(-beta ||x - xi||^2).
    ///
    /// # Errors
    /// As [`Self::readout`].
    pub fn energy(&self, queries: ArrayView2<'_, T>, beta: f64) -> Result<Array1<f64>, OpError> {
        Ok(self.readout(queries, beta, Want::ENERGY)?.energy)
    }

    /// Score of the K-point Gaussian mixture with variance sigma^2, `[m, N]`: (m(x) - x) / sigma^2, the
    /// weights at beta = 1 / (2 sigma^2).
    ///
    /// # Errors
    /// As [`Self::readout`], the parameter being sigma.
    pub fn score(&self, queries: ArrayView2<'_, T>, sigma: f64) -> Result<Array2<T>, OpError> {
        let beta = check_sigma::<T>(sigma)?;
        let shift = self.readout(queries, beta, Want::SHIFT)?.shift;
        over_variance(shift, &[sigma])
    }

    /// [`Self::score`] of queries with a sigma each, `[m]`: as one call a query, to the last bit.
    ///
    /// # Errors
    /// As [`Self::score`]; [`OpError::Shape`] for another number of sigmas than queries.
    pub fn score_each(&self, queries: ArrayView2<'_, T>, sigmas: &[f64]) -> Result<Array2<T>, OpError> {
        let betas = sigmas.iter().map(|sigma| check_sigma::<T>(*sigma)).collect::<Result<Vec<_>, _>>()?;
        over_variance(self.readout_each(queries, &betas, Want::SHIFT)?.shift, sigmas)
    }

    /// The k nearest memories of every query, exact: the same indices as brute force in f64, ties to
    /// the lowest index, and a distance of exactly 0 for a copy.
    ///
    /// With `exclude_self` query i is row i of the memories, and memory i is passed over.
    ///
    /// # Errors
    /// As [`Self::readout`]; [`OpError::Shape`] if `exclude_self` is asked for with another number of
    /// queries than memories, [`OpError::Parameter`] for a k that is 0 or more than there are.
    pub fn knn(&self, queries: ArrayView2<'_, T>, k: usize, exclude_self: bool) -> Result<Knn, OpError> {
        T::knn(self, queries, k, exclude_self)
    }

    /// The nearest memory of every query: [`Self::knn`] with k = 1.
    ///
    /// # Errors
    /// As [`Self::knn`], but [`OpError::Empty`] if nothing is left to be nearest.
    pub fn nearest(&self, queries: ArrayView2<'_, T>, exclude_self: bool) -> Result<Nearest, OpError> {
        knn::nearest(self, queries, exclude_self)
    }

    /// Squared distances between all queries and all memories, handed to `tile` a tile at a time: blocks
    /// of queries in order, and for each of them all memories in order. The whole matrix never exists.
    ///
    /// A copy is at exactly 0, and every other squared distance is right to a relative error of
    /// [`PairTile::ERROR`] roundings: 6e-5 in single and 1.1e-13 in double precision. Those that lose more digits than
    /// that in the expansion are taken again, directly and in f64.
    ///
    /// # Errors
    /// As [`Self::readout`].
    pub fn pairwise(
        &self,
        queries: ArrayView2<'_, T>,
        tile: impl FnMut(PairTile<'_, T>),
    ) -> Result<(), OpError> {
        T::pairwise(self, queries, tile)
    }

    /// Memory j in one slice.
    pub(crate) fn row(&self, j: usize) -> &[T] {
        let n = self.dim();
        // The rows were made contiguous when they were checked.
        &self.rows.as_slice().unwrap_or_default()[j * n..(j + 1) * n]
    }

    pub(crate) fn check_queries(
        &self,
        operation: &'static str,
        queries: &ArrayView2<'_, T>,
    ) -> Result<(), OpError> {
        if queries.ncols() != self.dim() {
            return Err(OpError::Shape {
                operation,
                argument: "queries",
                found: queries.shape().to_vec(),
                expected: format!(
                    "[m, {}], as the memories are [{}, {}]",
                    self.dim(),
                    self.len(),
                    self.dim()
                ),
            });
        }
        finite_rows(operation, "queries", queries)
    }
}

fn sigma_refused(value: f64) -> OpError {
    let need = "a number above 0 with which the score is finite in the precision of the memories";
    OpError::Parameter { operation: "score", argument: "sigma", value, need }
}

/// The beta of a score.
fn check_sigma<T: Element>(sigma: f64) -> Result<f64, OpError> {
    let beta = 1.0 / (2.0 * (sigma * sigma));
    if sigma > 0.0 && beta > 0.0 && T::from_f64(2.0 * beta).f64().is_finite() {
        return Ok(beta);
    }
    Err(sigma_refused(sigma))
}

/// An array in as many even parts as there are sigmas, each over the square of its own.
fn over_variance<T: Element>(mut shift: Array2<T>, sigmas: &[f64]) -> Result<Array2<T>, OpError> {
    let variances: Vec<f64> = sigmas.iter().map(|sigma| sigma * sigma).collect();
    T::divide(&mut shift, &variances);
    match shift.iter().position(|v| !v.f64().is_finite()) {
        Some(place) => Err(sigma_refused(sigmas[place * sigmas.len() / shift.len()])),
        None => Ok(shift),
    }
}
