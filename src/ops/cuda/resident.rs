//! Memories on a device, and the operations on them.
//!
//! Queries are cut into batches that fit the memory of the device. The result for a query does not depend on the other
//! queries of its batch, to the last bit.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::driver::{Driver, DriverError};
use super::kernels::{self, FEW, Lists, Outputs, Prepared, Refined, Splits, Sums, TILE_QUERIES};
use super::memory::{Buffer, DeviceRows};
use crate::device::Device;
use crate::ops::{Element, Knn, OpError, PairTile, Readout, Want};

/// Most device memory of the batches of one operation in bytes.
const BUDGET: usize = 4 << 30;
/// Memories in a split of the read-out.
const READOUT_SPAN: usize = 512;
/// Most and fewest memories in a split of the sieve.
const KNN_SPAN: usize = 4096;
const KNN_LEAST: usize = 256;
/// Blocks of the sieve that a multiprocessor has on average, if there are as many. Its neighbours don't depend on splits.
const KNN_BLOCKS: usize = 12;
/// Most neighbours that the sieve searches for.
const MOST: usize = 64;
/// Further candidates that the sieve keeps, so that rounding rarely hides a neighbour.
const SLACK: usize = 8;
/// Memories in a tile of [`Resident::pairwise`].
const PAIR_MEMORIES: usize = 8192;
/// Rows that are padded and copied to the device at a time.
const UPLOAD: usize = 4096;

/// K memories in N dimensions on a device, with their mean and their norms about it.
///
/// Rows are padded to a multiple of 4 values. Values must be finite and squared distances must not overflow, which
/// [`crate::ops::Memories`] checks.
pub struct Resident {
    driver: Arc<dyn Driver>,
    device: Device,
    rows: DeviceRows,
    centre: Buffer,
    half_norms: Buffer,
    /// Largest norm of a centred row, rounded up.
    reach: f64,
    spans: [usize; 2],
    /// Owner of `rows`.
    _copy: Buffer,
}

impl Resident {
    /// Copies memories `[K, N]` to a device. `device` is the device that results name.
    ///
    /// # Errors
    /// [`OpError::Empty`] when there are no rows or no columns, [`OpError::Device`] when an allocation or a launch fails.
    pub fn upload(
        driver: Arc<dyn Driver>,
        device: Device,
        rows: ArrayView2<'_, f32>,
    ) -> Result<Self, OpError> {
        let (count, dim) = rows.dim();
        not_empty(count, dim)?;
        let width = dim.next_multiple_of(4);
        let prepared = || {
            let copy = Buffer::new::<f32>(&driver, count * width)?;
            write_rows(&copy, rows)?;
            let rows = DeviceRows { memory: copy.handle(), offset: 0, count, dim, stride: width };
            let centre = Buffer::new::<f32>(&driver, width)?;
            kernels::column_means(&driver, &rows, &centre)?;
            let half_norms = Buffer::new::<f32>(&driver, count)?;
            kernels::half_norms(&*driver, &rows, &centre, &half_norms)?;
            let largest = half_norms.read::<f32>(count)?.into_iter().fold(0.0, f32::max);
            Ok((copy, rows, centre, half_norms, largest))
        };
        let (copy, rows, centre, half_norms, largest) = prepared().map_err(failed("prepare memories"))?;
        let reach = (2.0 * f64::from(largest)).sqrt() * (1.0 + 1e-6);
        let spans = [READOUT_SPAN, KNN_SPAN];
        Ok(Self { driver, device, rows, centre, half_norms, reach, spans, _copy: copy })
    }

    /// Cuts the memories into splits of about `memories`, for tests and tuning. Results change by rounding only.
    #[must_use]
    pub fn with_span(mut self, memories: usize) -> Self {
        self.spans = [memories; 2];
        self
    }

    /// K.
    pub fn len(&self) -> usize {
        self.rows.count
    }

    /// Always false: a set has at least one memory.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// N.
    pub fn dim(&self) -> usize {
        self.rows.dim
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// [`crate::ops::Memories::readout`] on the device.
    ///
    /// # Errors
    /// [`OpError::Parameter`] for a beta whose double is not a normal number in f32, [`OpError::Shape`],
    /// [`OpError::Device`].
    pub fn readout(
        &self,
        queries: ArrayView2<'_, f32>,
        beta: f64,
        want: Want,
    ) -> Result<Readout<f32>, OpError> {
        self.read(queries, beta, want, None)
    }

    /// [`Self::readout`], and the number of pairs whose distance was taken again in double precision because rounding
    /// could have shown in the result.
    ///
    /// # Errors
    /// As [`Self::readout`].
    pub fn readout_counted(
        &self,
        queries: ArrayView2<'_, f32>,
        beta: f64,
        want: Want,
    ) -> Result<(Readout<f32>, u64), OpError> {
        let mut exact = 0;
        let out = self.read(queries, beta, want, Some(&mut exact))?;
        Ok((out, exact))
    }

    fn read(
        &self,
        queries: ArrayView2<'_, f32>,
        beta: f64,
        want: Want,
        exact: Option<&mut u64>,
    ) -> Result<Readout<f32>, OpError> {
        let operation = "readout";
        if !(2.0 * beta as f32).is_normal() || beta <= 0.0 {
            return Err(OpError::Parameter {
                operation,
                argument: "beta",
                value: beta,
                need: "a number above 0 whose double is a normal number in single precision",
            });
        }
        let m = self.check(operation, queries)?;
        let mut out = Readout {
            shift: Array2::zeros((m, if want.shift { self.dim() } else { 0 })),
            energy: Array1::zeros(m),
            entropy: Array1::zeros(if want.entropy { m } else { 0 }),
            heaviest: Array1::zeros(m),
            top_weight: Array1::zeros(m),
            device: self.device,
        };
        self.readout_batches(queries, beta, want, exact, &mut out).map_err(failed(operation))?;
        Ok(out)
    }

    fn readout_batches(
        &self,
        queries: ArrayView2<'_, f32>,
        beta: f64,
        want: Want,
        mut exact: Option<&mut u64>,
        out: &mut Readout<f32>,
    ) -> Result<(), DriverError> {
        let (driver, (m, n)) = (&self.driver, queries.dim());
        let width = self.rows.width();
        let splits = Splits::new(self.len(), self.spans[0]);
        let each = splits.count * (40 + if want.shift { 4 * width } else { 0 }) + 8 * width + 64;
        let size = self.batch(m, each, TILE_QUERIES)?;
        let pairs = splits.count * size;
        let sums = Sums {
            near2: Buffer::new::<f64>(driver, pairs)?,
            sum: Buffer::new::<f64>(driver, pairs)?,
            moment: Buffer::new::<f64>(driver, pairs)?,
            product: Buffer::new::<f64>(driver, pairs)?,
            heaviest: Buffer::new::<i32>(driver, pairs)?,
            exact: Buffer::new::<i32>(driver, pairs)?,
            shift: want.shift.then(|| Buffer::new::<f32>(driver, pairs * width)).transpose()?,
        };
        let results = Outputs {
            energy: Buffer::new::<f64>(driver, size)?,
            entropy: Buffer::new::<f64>(driver, size)?,
            top_weight: Buffer::new::<f64>(driver, size)?,
            heaviest: Buffer::new::<i32>(driver, size)?,
            exact: Buffer::new::<i32>(driver, size)?,
        };
        let shift = want.shift.then(|| Buffer::new::<f32>(driver, size * n)).transpose()?;
        let norms2 = Buffer::new::<f64>(driver, size)?;
        let rows = Buffer::new::<f32>(driver, size * width)?;
        let whole = "a new array is contiguous";
        for range in batches(m, size) {
            let x = self.fetch(queries, range.clone(), &rows)?;
            if n > FEW {
                kernels::norms2(&**driver, &x, &self.centre, &norms2)?;
            }
            kernels::readout(&**driver, &self.prepared(), &x, &norms2, beta, splits, &sums)?;
            let (all, centre) = (&results, &self.centre);
            kernels::readout_merge(&**driver, &x, centre, beta, splits, &sums, all, shift.as_ref())?;
            let (count, part) = (range.len(), range.clone());
            results.energy.read_into(&mut out.energy.as_slice_mut().expect(whole)[part.clone()])?;
            results.top_weight.read_into(&mut out.top_weight.as_slice_mut().expect(whole)[part.clone()])?;
            let heaviest = results.heaviest.read::<i32>(count)?;
            for (to, memory) in out.heaviest.slice_mut(s![part.clone()]).iter_mut().zip(heaviest) {
                *to = memory as usize;
            }
            if want.entropy {
                results.entropy.read_into(&mut out.entropy.as_slice_mut().expect(whole)[part])?;
            }
            if let Some(exact) = exact.as_deref_mut() {
                *exact +=
                    results.exact.read::<i32>(count)?.into_iter().map(|pairs| pairs as u64).sum::<u64>();
            }
            if let Some(shift) = &shift {
                let values = out.shift.as_slice_mut().expect(whole);
                shift.read_into(&mut values[range.start * n..range.end * n])?;
            }
        }
        Ok(())
    }

    /// [`crate::ops::Memories::knn`] on the device. With `exclude_self` query i is memory i.
    ///
    /// When rounding of the matrix product could have hidden a neighbour, and for k above 64, all distances are computed
    /// in f64.
    ///
    /// # Errors
    /// [`OpError::Parameter`] when k is 0 or exceeds the number of memories, [`OpError::Shape`], [`OpError::Device`].
    pub fn knn(&self, queries: ArrayView2<'_, f32>, k: usize, exclude_self: bool) -> Result<Knn, OpError> {
        let operation = "knn";
        let m = self.check(operation, queries)?;
        if exclude_self && m != self.len() {
            return Err(OpError::Shape {
                operation,
                argument: "queries",
                found: queries.shape().to_vec(),
                expected: format!(
                    "[{}, {}], the shape of the memories, when self is excluded",
                    self.len(),
                    self.dim()
                ),
            });
        }
        if k == 0 || k > self.len() - usize::from(exclude_self) {
            return Err(OpError::Parameter {
                operation,
                argument: "k",
                value: k as f64,
                need: "at least 1 and at most the number of memories, one less when self is excluded",
            });
        }
        let mut out = Knn {
            index: Array2::zeros((m, k)),
            distance: Array2::zeros((m, k)),
            squared: Array2::zeros((m, k)),
            device: self.device,
        };
        self.knn_batches(queries, k, exclude_self, &mut out).map_err(failed(operation))?;
        out.distance = out.squared.mapv(f64::sqrt);
        Ok(out)
    }

    fn knn_batches(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        exclude_self: bool,
        out: &mut Knn,
    ) -> Result<(), DriverError> {
        let (driver, m) = (&self.driver, queries.nrows());
        let keep = k + SLACK;
        let limits = driver.limits()?;
        let sieved = k <= MOST && kernels::sieve_shared(keep) <= limits.shared;
        let blocks = m.div_ceil(TILE_QUERIES).max(1);
        let mut span = self.spans[1];
        while span >= 2 * KNN_LEAST
            && blocks * Splits::new(self.len(), span).count < KNN_BLOCKS * limits.processors
        {
            span /= 2;
        }
        let splits = Splits::new(self.len(), span);
        let each = splits.count * keep * 8 + 12 * k + 4 * self.rows.width() + 16;
        let size = self.batch(m, each, TILE_QUERIES)?;
        let norms2 = Buffer::new::<f64>(driver, size)?;
        let entries = if sieved { splits.count * size * keep } else { 0 };
        let lists = Lists {
            value: Buffer::new::<f32>(driver, entries)?,
            index: Buffer::new::<i32>(driver, entries)?,
            keep,
        };
        let found = Refined {
            squared: Buffer::new::<f64>(driver, size * k)?,
            index: Buffer::new::<i32>(driver, size * k)?,
            certain: Buffer::new::<i32>(driver, size)?,
        };
        let eligible = self.len() - usize::from(exclude_self);
        let rows = Buffer::new::<f32>(driver, size * self.rows.width())?;
        for range in batches(m, size) {
            let x = self.fetch(queries, range.clone(), &rows)?;
            let own = exclude_self.then_some(range.start);
            let count = range.len();
            let mut certain = vec![0; count];
            if sieved {
                let memories = self.prepared();
                kernels::norms2(&**driver, &x, &self.centre, &norms2)?;
                kernels::knn_sieve(&**driver, &memories, &x, splits, own, &lists)?;
                kernels::knn_refine(
                    &**driver,
                    &memories,
                    &x,
                    &norms2,
                    splits,
                    &lists,
                    (k, eligible),
                    &found,
                )?;
                certain = found.certain.read::<i32>(count)?;
                let squared = found.squared.read::<f64>(count * k)?;
                let index = found.index.read::<i32>(count * k)?;
                for (q, row) in range.clone().enumerate() {
                    if certain[q] != 0 {
                        for i in 0..k {
                            out.index[[row, i]] = index[q * k + i] as usize;
                            out.squared[[row, i]] = squared[q * k + i];
                        }
                    }
                }
            }
            let open: Vec<usize> = (0..count).filter(|&q| certain[q] == 0).collect();
            self.knn_exact(&x, &open, k, range.start, exclude_self, out)?;
        }
        Ok(())
    }

    /// The k nearest memories of some queries of a batch that starts at query `first`, from all distances in f64.
    fn knn_exact(
        &self,
        x: &DeviceRows,
        open: &[usize],
        k: usize,
        first: usize,
        exclude_self: bool,
        out: &mut Knn,
    ) -> Result<(), DriverError> {
        if open.is_empty() {
            return Ok(());
        }
        let memories = self.len();
        let size = self.batch(open.len(), 8 * memories, 1)?.min(65_535);
        let squared = Buffer::new::<f64>(&self.driver, size * memories)?;
        for part in open.chunks(size) {
            let mut done = 0;
            for run in part.chunk_by(|a, b| a + 1 == *b) {
                kernels::distances(&*self.driver, &self.rows, &x.part(run[0], run.len()), &squared, done)?;
                done += run.len();
            }
            let all = squared.read::<f64>(part.len() * memories)?;
            let nearest: Vec<Vec<(f64, usize)>> = all
                .par_chunks(memories)
                .zip(part)
                .map(|(squared, q)| select(squared, k, exclude_self.then_some(first + q)))
                .collect();
            for (q, nearest) in part.iter().zip(nearest) {
                for (i, (d2, memory)) in nearest.into_iter().enumerate() {
                    out.index[[first + q, i]] = memory;
                    out.squared[[first + q, i]] = d2;
                }
            }
        }
        Ok(())
    }

    /// [`crate::ops::Memories::pairwise`] on the device.
    ///
    /// # Errors
    /// [`OpError::Shape`], [`OpError::Device`].
    pub fn pairwise(
        &self,
        queries: ArrayView2<'_, f32>,
        tile: impl FnMut(PairTile<'_, f32>),
    ) -> Result<(), OpError> {
        let operation = "pairwise";
        self.check(operation, queries)?;
        self.pair_tiles(queries, tile).map_err(failed(operation))
    }

    fn pair_tiles(
        &self,
        queries: ArrayView2<'_, f32>,
        mut tile: impl FnMut(PairTile<'_, f32>),
    ) -> Result<(), DriverError> {
        let (driver, m) = (&self.driver, queries.nrows());
        let columns = self.len().min(PAIR_MEMORIES);
        let size = self.batch(m, 4 * columns + 4 * self.rows.width() + 8, TILE_QUERIES)?.min(1024);
        let norms2 = Buffer::new::<f64>(driver, size)?;
        let squared = Buffer::new::<f32>(driver, size * columns)?;
        let allowed = PairTile::<f32>::ERROR * f32::ROUNDING;
        let rows = Buffer::new::<f32>(driver, size * self.rows.width())?;
        for range in batches(m, size) {
            let x = self.fetch(queries, range.clone(), &rows)?;
            kernels::norms2(&**driver, &x, &self.centre, &norms2)?;
            for memories in batches(self.len(), columns) {
                let (first, count) = (memories.start, memories.len());
                let prepared = self.prepared();
                kernels::pairwise(&**driver, &prepared, (first, count), &x, &norms2, allowed, &squared)?;
                let values = squared.read::<f32>(range.len() * count)?;
                let squared = ArrayView2::from_shape((range.len(), count), &values)
                    .expect("the tile has this many values");
                tile(PairTile { queries: range.clone(), memories, squared });
            }
        }
        Ok(())
    }

    fn prepared(&self) -> Prepared<'_> {
        Prepared { rows: self.rows, centre: &self.centre, half_norms: &self.half_norms, reach: self.reach }
    }

    /// m, after a check that the queries match the memories.
    fn check(&self, operation: &'static str, queries: ArrayView2<'_, f32>) -> Result<usize, OpError> {
        let (m, n) = queries.dim();
        if n != self.dim() {
            return Err(OpError::Shape {
                operation,
                argument: "queries",
                found: vec![m, n],
                expected: format!(
                    "[m, {}], as the memories are [{}, {}]",
                    self.dim(),
                    self.len(),
                    self.dim()
                ),
            });
        }
        Ok(m)
    }

    /// Queries of a batch: the largest multiple of `block` that fits half of the free memory at `each` bytes a query.
    fn batch(&self, queries: usize, each: usize, block: usize) -> Result<usize, DriverError> {
        let room = (self.driver.limits()?.free / 2).min(BUDGET);
        Ok(queries.min((room / each / block).max(1) * block).max(1))
    }

    /// Queries of a batch, copied to the device.
    fn fetch(
        &self,
        queries: ArrayView2<'_, f32>,
        range: Range<usize>,
        to: &Buffer,
    ) -> Result<DeviceRows, DriverError> {
        let count = range.len();
        write_rows(to, queries.slice(s![range, ..]))?;
        Ok(DeviceRows { memory: to.handle(), offset: 0, count, dim: self.dim(), stride: self.rows.width() })
    }
}

fn failed(operation: &'static str) -> impl Fn(DriverError) -> OpError {
    move |source| OpError::Device { operation, source }
}

fn not_empty(count: usize, dim: usize) -> Result<(), OpError> {
    if count == 0 || dim == 0 {
        return Err(OpError::Empty {
            operation: "prepare memories",
            argument: "memories",
            found: vec![count, dim],
        });
    }
    Ok(())
}

fn batches(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |start| start..count.min(start + size))
}

/// Copies rows to the start of a buffer, each padded with zeros to a multiple of 4 values.
fn write_rows(to: &Buffer, rows: ArrayView2<'_, f32>) -> Result<(), DriverError> {
    let n = rows.ncols();
    let width = n.next_multiple_of(4);
    if let Some(values) = rows.as_slice().filter(|_| n == width) {
        return to.write(0, values);
    }
    let mut padded = vec![0.0; rows.nrows().min(UPLOAD) * width];
    for (i, part) in rows.axis_chunks_iter(Axis(0), UPLOAD).enumerate() {
        for (to, row) in padded.chunks_exact_mut(width).zip(part.outer_iter()) {
            to.iter_mut().zip(row).for_each(|(to, v)| *to = *v);
        }
        to.write(i * UPLOAD * width, &padded[..part.nrows() * width])?;
    }
    Ok(())
}

/// The k nearest memories by (distance, index), without memory `own`.
fn select(squared: &[f64], k: usize, own: Option<usize>) -> Vec<(f64, usize)> {
    let mut all: Vec<(f64, usize)> =
        squared.iter().copied().zip(0..).filter(|&(_, memory)| Some(memory) != own).collect();
    let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
    all
}
