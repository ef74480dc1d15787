//! Checked wrappers: each knows the grid, block, shared memory and arguments of its kernel, and checks that every buffer
//! is as large as the kernel's accesses.

use super::driver::{Arg, Driver, DriverError, Launch};
use super::memory::{Buffer, DeviceRows};
use crate::ops::Element;

/// Threads of a block, in every kernel.
const THREADS: usize = 128;
/// Threads of a warp.
const WARP: usize = 32;
/// Queries of a block and memories of a tile in the tiled kernels; `TILE_Q` and `TILE_K` of `tile.cuh`.
pub(super) const TILE_QUERIES: usize = 64;
pub(super) const TILE_MEMORIES: usize = 128;
/// Shared memory of the tiled kernels in bytes: two chunks of 16 dimensions, and the values of the tile.
const TILE_SHARED: usize = 4 * (2 * (TILE_QUERIES + TILE_MEMORIES) * 16 + TILE_MEMORIES * TILE_QUERIES);
/// Further shared memory of a block of the read-out in bytes: `BlockSums`.
const SUMS_SHARED: usize = TILE_QUERIES * (5 * 8 + 3 * 4) + 16;
/// Rows that a thread of `column_sums` adds.
const SLAB: usize = 1024;
/// Most dimensions in which read-out and sieve take differences instead of products.
pub(super) const FEW: usize = 32;
/// Most splits of the memories; bounds the shared memory of `readout_merge`.
pub(super) const SPLITS: usize = 128;
/// Columns of the shift that a block of `readout_merge` puts together.
const MERGE_COLUMNS: usize = 128;

/// Memories in splits of `span`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splits {
    pub count: usize,
    pub span: usize,
}

impl Splits {
    /// Splits of about `span` memories, in whole tiles. They depend on the number of memories only, so that no result
    /// depends on the number of queries.
    pub fn new(memories: usize, span: usize) -> Self {
        let span = span.max(memories.div_ceil(SPLITS)).next_multiple_of(TILE_MEMORIES);
        Self { count: memories.div_ceil(span), span }
    }
}

/// Memories on a device with their mean and norms.
pub(super) struct Prepared<'a> {
    pub rows: DeviceRows,
    pub centre: &'a Buffer,
    pub half_norms: &'a Buffer,
    pub reach: f64,
}

/// Running sums of each split and query, in device memory.
pub(super) struct Sums {
    pub near2: Buffer,
    pub sum: Buffer,
    pub moment: Buffer,
    pub product: Buffer,
    pub heaviest: Buffer,
    pub exact: Buffer,
    pub shift: Option<Buffer>,
}

/// Results of the read-out, in device memory.
pub(super) struct Outputs {
    pub energy: Buffer,
    pub entropy: Buffer,
    pub top_weight: Buffer,
    pub heaviest: Buffer,
    /// Number of pairs whose distance was taken again in double.
    pub exact: Buffer,
}

/// Lists of the sieve: `keep` values and memories for each split and query.
pub(super) struct Lists {
    pub value: Buffer,
    pub index: Buffer,
    pub keep: usize,
}

fn int(value: usize) -> Result<Arg, DriverError> {
    i32::try_from(value).map(Arg::I32).map_err(|_| too_many(value))
}

fn long(value: usize) -> Result<Arg, DriverError> {
    i64::try_from(value).map(Arg::I64).map_err(|_| too_many(value))
}

fn too_many(value: usize) -> DriverError {
    DriverError::Call { call: "launch", why: format!("{value} exceeds the integers of the kernels") }
}

fn start(
    driver: &dyn Driver,
    kernel: &'static str,
    grid: [usize; 2],
    shared: usize,
    args: &[Arg],
) -> Result<(), DriverError> {
    let count = |n: usize| u32::try_from(n).map_err(|_| too_many(n));
    driver.launch(&Launch {
        kernel,
        grid: [count(grid[0])?, count(grid[1])?, 1],
        block: [THREADS as u32, 1, 1],
        shared: count(shared)?,
        args,
    })
}

/// The mean of every column, with zeros up to the width of the rows.
pub(super) fn column_means(
    driver: &std::sync::Arc<dyn Driver>,
    rows: &DeviceRows,
    centre: &Buffer,
) -> Result<(), DriverError> {
    let slabs = rows.count.div_ceil(SLAB.max(rows.count.div_ceil(65_535)));
    let span = rows.count.div_ceil(slabs);
    let part = Buffer::new::<f64>(driver, slabs * rows.dim)?;
    let sums = part.arg::<f64>(slabs * rows.dim)?;
    let (count, n) = (long(rows.count)?, int(rows.dim)?);
    let args = [rows.arg(), sums, count, n, long(rows.stride)?, int(span)?];
    start(&**driver, "column_sums", [rows.dim.div_ceil(THREADS), slabs], 0, &args)?;
    let args = [sums, centre.arg::<f32>(rows.width())?, count, n, int(rows.width())?, int(slabs)?];
    start(&**driver, "column_means", [rows.width().div_ceil(THREADS), 1], 0, &args)
}

/// Half the squared norm of every row about the centre, in f32.
pub(super) fn half_norms(
    driver: &dyn Driver,
    rows: &DeviceRows,
    centre: &Buffer,
    out: &Buffer,
) -> Result<(), DriverError> {
    norms(driver, "half_norms", rows, centre, out.arg::<f32>(rows.count)?)
}

/// The squared norm of every row about the centre, in f64.
pub(super) fn norms2(
    driver: &dyn Driver,
    rows: &DeviceRows,
    centre: &Buffer,
    out: &Buffer,
) -> Result<(), DriverError> {
    norms(driver, "norms2", rows, centre, out.arg::<f64>(rows.count)?)
}

fn norms(
    driver: &dyn Driver,
    kernel: &'static str,
    rows: &DeviceRows,
    centre: &Buffer,
    out: Arg,
) -> Result<(), DriverError> {
    let args = [
        rows.arg(),
        centre.arg::<f32>(rows.dim)?,
        out,
        long(rows.count)?,
        int(rows.dim)?,
        long(rows.stride)?,
    ];
    start(driver, kernel, [rows.count.div_ceil(THREADS / WARP), 1], 0, &args)
}

/// First pass of the read-out, with the shift when `sums` has a buffer for it.
pub(super) fn readout(
    driver: &dyn Driver,
    memories: &Prepared<'_>,
    queries: &DeviceRows,
    norms2: &Buffer,
    beta: f64,
    splits: Splits,
    sums: &Sums,
) -> Result<(), DriverError> {
    let (rows, m, n, width) = (&memories.rows, queries.count, queries.dim, queries.width());
    let pairs = splits.count * m;
    let shift = sums.shift.as_ref().map_or(Ok(Arg::Null), |s| s.arg::<f32>(pairs * width))?;
    let (span, rounding, tolerance) =
        (int(splits.span)?, Arg::F32(f32::ROUNDING as f32), Arg::F32(f32::TOLERANCE as f32));
    let outputs = [
        sums.near2.arg::<f64>(pairs)?,
        sums.sum.arg::<f64>(pairs)?,
        sums.moment.arg::<f64>(pairs)?,
        sums.product.arg::<f64>(pairs)?,
        sums.heaviest.arg::<i32>(pairs)?,
        sums.exact.arg::<i32>(pairs)?,
        shift,
    ];
    let (x, y) =
        ([queries.arg(), long(queries.stride)?, int(m)?], [rows.arg(), long(rows.stride)?, int(rows.count)?]);
    if n <= FEW {
        let (kernel, room) = match n {
            0..=2 => ("readout_2", 2),
            3..=4 => ("readout_4", 4),
            5..=8 => ("readout_8", 8),
            9..=16 => ("readout_16", 16),
            _ => ("readout_32", 32),
        };
        let rest = [int(n)?, span, Arg::F64(beta), rounding, tolerance];
        let args = [&x[..], &y, &rest, &outputs].concat();
        let shared = 4 * TILE_MEMORIES * room;
        return start(driver, kernel, [m.div_ceil(THREADS), splits.count], shared, &args);
    }
    let rest = [
        memories.centre.arg::<f32>(width)?,
        memories.half_norms.arg::<f32>(rows.count)?,
        int(width)?,
        span,
        Arg::F64(beta),
        rounding,
        tolerance,
        Arg::F32(memories.reach as f32),
    ];
    let args = [&x[..], &[norms2.arg::<f64>(m)?], &y, &rest, &outputs].concat();
    let kernel = if sums.shift.is_some() { "score_tiles" } else { "energy_tiles" };
    let grid = [m.div_ceil(TILE_QUERIES), splits.count];
    start(driver, kernel, grid, TILE_SHARED + SUMS_SHARED, &args)
}

/// Second pass of the read-out. `shift` is the memory of the shift `[m, N]`.
#[expect(clippy::too_many_arguments, reason = "one for each group of arguments of the kernel")]
pub(super) fn readout_merge(
    driver: &dyn Driver,
    queries: &DeviceRows,
    centre: &Buffer,
    beta: f64,
    splits: Splits,
    sums: &Sums,
    out: &Outputs,
    shift: Option<&Buffer>,
) -> Result<(), DriverError> {
    let (m, n) = (queries.count, queries.dim);
    let pairs = splits.count * m;
    let (part, shift) = match (&sums.shift, shift) {
        (Some(part), Some(shift)) => (part.arg::<f32>(pairs * queries.width())?, shift.arg::<f32>(m * n)?),
        _ => (Arg::Null, Arg::Null),
    };
    let args = [
        queries.arg(),
        long(queries.stride)?,
        int(m)?,
        centre.arg::<f32>(n)?,
        int(n)?,
        int(splits.count)?,
        Arg::F64(beta),
        sums.near2.arg::<f64>(pairs)?,
        sums.sum.arg::<f64>(pairs)?,
        sums.moment.arg::<f64>(pairs)?,
        sums.product.arg::<f64>(pairs)?,
        sums.heaviest.arg::<i32>(pairs)?,
        sums.exact.arg::<i32>(pairs)?,
        part,
        out.energy.arg::<f64>(m)?,
        out.entropy.arg::<f64>(m)?,
        out.top_weight.arg::<f64>(m)?,
        out.heaviest.arg::<i32>(m)?,
        out.exact.arg::<i32>(m)?,
        shift,
    ];
    let warps = THREADS / WARP;
    let columns = if shift == Arg::Null { 1 } else { n.div_ceil(MERGE_COLUMNS) };
    start(driver, "readout_merge", [m.div_ceil(warps), columns], 8 * warps * splits.count, &args)
}

/// Shared memory of a block of the sieve in bytes.
pub(super) fn sieve_shared(keep: usize) -> usize {
    TILE_SHARED + 8 * TILE_QUERIES * keep
}

/// The `keep` best memories of each split and query by the matrix product. With `own` query i skips memory own + i.
pub(super) fn knn_sieve(
    driver: &dyn Driver,
    memories: &Prepared<'_>,
    queries: &DeviceRows,
    splits: Splits,
    own: Option<usize>,
    lists: &Lists,
) -> Result<(), DriverError> {
    let (rows, m, keep) = (&memories.rows, queries.count, lists.keep);
    let size = splits.count * m * keep;
    let args = [
        queries.arg(),
        long(queries.stride)?,
        int(m)?,
        rows.arg(),
        long(rows.stride)?,
        int(rows.count)?,
        memories.centre.arg::<f32>(rows.width())?,
        memories.half_norms.arg::<f32>(rows.count)?,
        int(rows.width())?,
        int(splits.span)?,
        own.map_or(Ok(Arg::I64(-1)), long)?,
        int(keep)?,
        lists.value.arg::<f32>(size)?,
        lists.index.arg::<i32>(size)?,
    ];
    let kernel = if rows.dim <= FEW { "knn_sieve_few" } else { "knn_sieve" };
    start(driver, kernel, [m.div_ceil(TILE_QUERIES), splits.count], sieve_shared(keep), &args)
}

/// The k nearest memories that the sieve kept: squared distances and indices, `[m, k]`, and whether they are certain.
#[derive(Debug)]
pub(super) struct Refined<B> {
    pub squared: B,
    pub index: B,
    pub certain: B,
}

/// Recomputes the distances of the memories that the sieve kept; `eligible` is the number of possible neighbours.
#[expect(clippy::too_many_arguments, reason = "one for each group of arguments of the kernel")]
pub(super) fn knn_refine(
    driver: &dyn Driver,
    memories: &Prepared<'_>,
    queries: &DeviceRows,
    norms2: &Buffer,
    splits: Splits,
    lists: &Lists,
    (k, eligible): (usize, usize),
    out: &Refined<Buffer>,
) -> Result<(), DriverError> {
    let (rows, m, keep) = (&memories.rows, queries.count, lists.keep);
    let size = splits.count * m * keep;
    let args = [
        queries.arg(),
        long(queries.stride)?,
        int(m)?,
        norms2.arg::<f64>(m)?,
        rows.arg(),
        long(rows.stride)?,
        int(rows.width())?,
        int(splits.count)?,
        int(keep)?,
        int(k)?,
        int(eligible)?,
        Arg::I32(i32::from(rows.dim <= FEW)),
        Arg::F32(f32::ROUNDING as f32),
        Arg::F64(memories.reach),
        lists.value.arg::<f32>(size)?,
        lists.index.arg::<i32>(size)?,
        out.squared.arg::<f64>(m * k)?,
        out.index.arg::<i32>(m * k)?,
        out.certain.arg::<i32>(m)?,
    ];
    let warps = THREADS / WARP;
    start(driver, "knn_refine", [m.div_ceil(warps), 1], 16 * warps * keep, &args)
}

/// Squared distances between queries and `count` memories from memory `first`, f32 `[m, count]`, to a relative error
/// of `allowed`.
pub(super) fn pairwise(
    driver: &dyn Driver,
    memories: &Prepared<'_>,
    (first, count): (usize, usize),
    queries: &DeviceRows,
    norms2: &Buffer,
    allowed: f64,
    out: &Buffer,
) -> Result<(), DriverError> {
    let (rows, m) = (memories.rows.part(first, count), queries.count);
    memories.half_norms.arg::<f32>(first + count)?;
    let args = [
        queries.arg(),
        long(queries.stride)?,
        int(m)?,
        norms2.arg::<f64>(m)?,
        rows.arg(),
        long(rows.stride)?,
        int(count)?,
        memories.centre.arg::<f32>(rows.width())?,
        Arg::Buffer(memories.half_norms.handle(), 4 * first),
        int(rows.width())?,
        Arg::F32(f32::ROUNDING as f32),
        Arg::F32(allowed as f32),
        Arg::F32(memories.reach as f32),
        out.arg::<f32>(m * count)?,
    ];
    let grid = [m.div_ceil(TILE_QUERIES), count.div_ceil(TILE_MEMORIES)];
    start(driver, "pairwise", grid, TILE_SHARED, &args)
}

/// Squared distances between queries and all memories in f64, written to `out` `[.., K]` from row `to`.
pub(super) fn distances(
    driver: &dyn Driver,
    memories: &DeviceRows,
    queries: &DeviceRows,
    out: &Buffer,
    to: usize,
) -> Result<(), DriverError> {
    out.arg::<f64>((to + queries.count) * memories.count)?;
    let args = [
        queries.arg(),
        long(queries.stride)?,
        memories.arg(),
        long(memories.stride)?,
        int(memories.count)?,
        int(memories.width())?,
        Arg::Buffer(out.handle(), 8 * to * memories.count),
    ];
    start(driver, "distances", [memories.count.div_ceil(THREADS / WARP), queries.count], 0, &args)
}
