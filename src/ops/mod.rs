//! Fused operations on a set of memories: softmax read-out, energy, score, nearest memories, pairwise distances.
//!
//! No function holds a queries x memories matrix. Blocks of queries meet tiles of memories in a matrix product, and an
//! online softmax adds each tile to running sums. [`Memories::readout`] states the accuracy in single precision.
//!
//! ```
//! use mem2gen::ops::Memories;
//! use ndarray::array;
//!
//! let memories = Memories::new(array![[0.0, 0.0], [2.0, 0.0]])?;
//! let queries = array![[1.0, 0.0]];
//! // Both memories are at distance 1: E = 1 - log 2.
//! assert!((memories.energy(queries.view(), 1.0)?[0] - (1.0 - 2f64.ln())).abs() < 1e-12);
//! # Ok::<(), mem2gen::ops::OpError>(())
//! ```

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
pub(crate) use sweep::tile_bytes;

use crate::device::{Device, DeviceChoice};
use ndarray::{ArcArray2, Array1, Array2, ArrayView2};
use placed::Placed;
use readout::Betas;

/// Name of the preparation of [`Memories`] in errors.
const PREPARE: &str = "prepare memories";

/// K memories in N dimensions, checked and ready for any number of queries.
///
/// Shares the rows with their owner. Also holds the mean of the rows and their norms about it: one value for each
/// dimension and one for each memory.
///
/// ```
/// use mem2gen::ops::Memories;
/// use ndarray::{ArcArray2, array};
///
/// let rows: ArcArray2<f64> = array![[0.0, 0.0], [3.0, 4.0]].into_shared();
/// // No copy: both hold the same values.
/// let memories: Memories<f64> = Memories::new(rows.clone())?;
/// assert_eq!((memories.len(), memories.dim()), (2, 2));
/// assert_eq!(memories.rows().as_ptr(), rows.as_ptr());
/// # Ok::<(), mem2gen::ops::OpError>(())
/// ```
pub struct Memories<T: Element> {
    /// In standard layout.
    rows: ArcArray2<T>,
    /// Mean of the rows, rounded to T. Products are taken about it, which keeps them small.
    centre: Vec<T>,
    /// Half the squared norm of each centred row.
    half_norms: Vec<T>,
    /// Largest norm of a centred row.
    reach: f64,
    /// The memories on a device, where the operations then run.
    resident: Option<T::Resident>,
}

impl<T: Element> Memories<T> {
    /// Checks memories `[K, N]`, one per row. An `Array2` or an `ArcArray2` in standard layout is not copied; write
    /// `view.to_owned()` for a view.
    ///
    /// # Errors
    /// [`OpError::Empty`] when there are no rows or no columns, [`OpError::NotFinite`] for NaN or infinity.
    pub fn new(rows: impl Into<ArcArray2<T>>) -> Result<Self, OpError> {
        T::prepare(rows.into())
    }

    /// As [`Self::new`], on a device.
    ///
    /// CUDA devices take f32 only. With [`DeviceChoice::Auto`] f64 stays on the CPU.
    ///
    /// # Errors
    /// As [`Self::new`]; [`OpError::Device`] if the device can't be used; [`OpError::Precision`] for f64 on a CUDA
    /// device.
    pub fn on(rows: impl Into<ArcArray2<T>>, choice: DeviceChoice) -> Result<Self, OpError> {
        let mut memories = Self::new(rows)?;
        memories.resident = T::Resident::place(memories.rows.view(), choice)?;
        Ok(memories)
    }

    /// Device on which the operations run.
    pub fn device(&self) -> Device {
        self.resident.as_ref().map_or(Device::Cpu, Placed::device)
    }

    /// K, the number of memories.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Always false: a set has at least one memory.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// N, the number of dimensions.
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// The memories, `[K, N]`.
    pub fn rows(&self) -> ArrayView2<'_, T> {
        self.rows.view()
    }

    /// The memories as a shared array, `[K, N]`, without a copy.
    pub(crate) fn shared(&self) -> ArcArray2<T> {
        self.rows.clone()
    }

    /// Softmax read-out of queries `[m, N]`: the shift m(x) - x to the mean of the memories and, from the same pass,
    /// the energy, the entropy of the weights and the memory of largest weight.
    ///
    /// `beta` is the inverse temperature of Eq. 6: the weights are softmax(-beta ||x - xi||^2).
    ///
    /// Logits come from the expansion 2 beta (x.xi - ||xi||^2/2) about the memories' mean. The rounding error of the
    /// expansion is bounded for each query. The distance to every memory whose weight could carry that error into the
    /// result is recomputed directly in f64. In single precision the energy agrees with f64 to 1e-5 at any beta, and so
    /// does the score, except where the score itself is a difference of nearly equal values.
    ///
    /// ```
    /// use mem2gen::ops::{Memories, Want};
    /// use ndarray::array;
    ///
    /// let memories = Memories::new(array![[0.0, 0.0], [2.0, 0.0]])?;
    /// let read = memories.readout(array![[1.0, 0.0]].view(), 1.0, Want::ALL)?;
    /// // Two equal weights: m(x) = x, and the entropy is log 2.
    /// assert_eq!(read.shift, array![[0.0, 0.0]]);
    /// assert!((read.entropy[0] - 2f64.ln()).abs() < 1e-12);
    /// assert_eq!(read.top_weight[0], 0.5);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpError::Shape`] when the dimensions differ, [`OpError::NotFinite`], [`OpError::TooFar`],
    /// [`OpError::Parameter`] unless beta is positive and a normal number in the precision of the memories, and
    /// [`OpError::Overflow`] where a result is not finite.
    pub fn readout(&self, queries: ArrayView2<'_, T>, beta: f64, want: Want) -> Result<Readout<T>, OpError> {
        T::readout(self, queries, Betas::All(beta), want)
    }

    /// [`Self::readout`] with one beta for each query, `[m]`. Equal to one call for each query, to the last bit.
    ///
    /// # Errors
    /// As [`Self::readout`]; [`OpError::Shape`] when the number of betas is not the number of queries.
    pub fn readout_each(
        &self,
        queries: ArrayView2<'_, T>,
        betas: &[f64],
        want: Want,
    ) -> Result<Readout<T>, OpError> {
        T::readout(self, queries, Betas::Each(betas), want)
    }

    /// E^AM of queries `[m, N]` (Eq. 6), `[m]` in f64: -(1/beta) log sum exp(-beta ||x - xi||^2).
    ///
    /// ```
    /// use mem2gen::ops::Memories;
    /// use ndarray::array;
    ///
    /// // One memory: the squared distance, at any beta.
    /// let memory = Memories::new(array![[0.0, 0.0]])?;
    /// assert_eq!(memory.energy(array![[3.0, 4.0]].view(), 0.1)?, array![25.0]);
    /// let two = Memories::new(array![[0.0, 0.0], [2.0, 0.0]])?;
    /// let energy = two.energy(array![[0.0, 0.0], [1.0, 0.0]].view(), 1.0)?;
    /// assert!((energy[0] + 0.01814992791780978).abs() < 1e-12);
    /// assert!((energy[1] - 0.3068528194400547).abs() < 1e-12);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::readout`].
    pub fn energy(&self, queries: ArrayView2<'_, T>, beta: f64) -> Result<Array1<f64>, OpError> {
        Ok(self.readout(queries, beta, Want::ENERGY)?.energy)
    }

    /// Score of the mixture of K Gaussians of variance sigma^2 at queries `[m, N]`, `[m, N]`: (m(x) - x) / sigma^2,
    /// with the weights at beta = 1 / (2 sigma^2).
    ///
    /// ```
    /// use mem2gen::ops::Memories;
    /// use ndarray::array;
    ///
    /// let one = Memories::new(array![[1.0, 0.0]])?;
    /// assert_eq!(one.score(array![[3.0, 4.0]].view(), 2.0)?, array![[-0.5, -1.0]]);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::readout`], with sigma as the parameter.
    pub fn score(&self, queries: ArrayView2<'_, T>, sigma: f64) -> Result<Array2<T>, OpError> {
        let beta = check_sigma::<T>(sigma)?;
        let shift = self.readout(queries, beta, Want::SHIFT)?.shift;
        over_variance(shift, &[sigma])
    }

    /// [`Self::score`] with one sigma for each query, `[m]`. Equal to one call for each query, to the last bit.
    ///
    /// # Errors
    /// As [`Self::score`]; [`OpError::Shape`] when the number of sigmas is not the number of queries.
    pub fn score_each(&self, queries: ArrayView2<'_, T>, sigmas: &[f64]) -> Result<Array2<T>, OpError> {
        let betas = sigmas.iter().map(|sigma| check_sigma::<T>(*sigma)).collect::<Result<Vec<_>, _>>()?;
        over_variance(self.readout_each(queries, &betas, Want::SHIFT)?.shift, sigmas)
    }

    /// The k nearest memories of queries `[m, N]`, exact: the indices of brute force in f64, ties to the lowest index,
    /// and a distance of exactly 0 for a copy.
    ///
    /// With `exclude_self` query i is row i of the memories, and memory i is left out.
    ///
    /// ```
    /// use mem2gen::ops::Memories;
    /// use ndarray::array;
    ///
    /// let memories = Memories::new(array![[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])?;
    /// let found = memories.knn(array![[0.0, 0.0]].view(), 2, false)?;
    /// assert_eq!(found.index, array![[0, 2]]);
    /// assert_eq!(found.distance, array![[0.0, 1.0]]);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::readout`]; [`OpError::Shape`] when `exclude_self` is set and there are not as many queries as
    /// memories, [`OpError::Parameter`] when k is 0 or exceeds the number of memories.
    pub fn knn(&self, queries: ArrayView2<'_, T>, k: usize, exclude_self: bool) -> Result<Knn, OpError> {
        T::knn(self, queries, k, exclude_self)
    }

    /// The nearest memory of each query: [`Self::knn`] with k = 1.
    ///
    /// ```
    /// use mem2gen::ops::Memories;
    /// use ndarray::array;
    ///
    /// let rows = array![[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]];
    /// let memories = Memories::new(rows.clone())?;
    /// let found = memories.nearest(rows.view(), true)?;
    /// assert_eq!(found.index, [2, 2, 0]);
    /// assert_eq!(found.distance, [1.0, 18f64.sqrt(), 1.0]);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::knn`], but [`OpError::Empty`] when the only memory is left out.
    pub fn nearest(&self, queries: ArrayView2<'_, T>, exclude_self: bool) -> Result<Nearest, OpError> {
        knn::nearest(self, queries, exclude_self)
    }

    /// Squared distances between queries `[m, N]` and all memories, handed to `tile` one tile at a time: blocks of
    /// queries in order, and for each block all memories in order. The whole matrix never exists.
    ///
    /// A copy is at exactly 0. The relative error of every other squared distance is at most [`PairTile::ERROR`]
    /// roundings: 6e-5 in single and 1.1e-13 in double precision. Distances that lose more digits in the expansion are
    /// recomputed directly in f64.
    ///
    /// ```
    /// use mem2gen::ops::Memories;
    /// use ndarray::{Array2, array, s};
    ///
    /// let memories = Memories::new(array![[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])?;
    /// let mut squared = Array2::<f64>::zeros((1, 3));
    /// memories.pairwise(array![[0.0, 0.0]].view(), |tile| {
    ///     squared.slice_mut(s![tile.queries, tile.memories]).assign(&tile.squared);
    /// })?;
    /// assert_eq!(squared, array![[0.0, 25.0, 1.0]]);
    /// # Ok::<(), mem2gen::ops::OpError>(())
    /// ```
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
        &self.rows.as_slice().expect("the rows are in standard layout")[j * n..(j + 1) * n]
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

/// The beta of a score of this sigma.
fn check_sigma<T: Element>(sigma: f64) -> Result<f64, OpError> {
    let beta = 1.0 / (2.0 * (sigma * sigma));
    if sigma > 0.0 && beta > 0.0 && T::from_f64(2.0 * beta).f64().is_finite() {
        return Ok(beta);
    }
    Err(sigma_refused(sigma))
}

/// Divides each of as many even parts of an array as there are sigmas by the square of its sigma.
fn over_variance<T: Element>(mut shift: Array2<T>, sigmas: &[f64]) -> Result<Array2<T>, OpError> {
    let variances: Vec<f64> = sigmas.iter().map(|sigma| sigma * sigma).collect();
    T::divide(&mut shift, &variances);
    match shift.iter().position(|v| !v.f64().is_finite()) {
        Some(place) => Err(sigma_refused(sigmas[place * sigmas.len() / shift.len()])),
        None => Ok(shift),
    }
}
