//! The inner loops: blocks of pixels and channels in registers.
#![expect(
    clippy::needless_range_loop,
    reason = "blocks are arrays of arrays, with indices as sums are written"
)]

use std::ops::Range;

use pulp::{MemMask, Simd, WithSimd};

use super::map::{Class, Gather};

/// Most vectors of channels in a block; pixels fill the other registers.
pub(super) const fn most_vectors(registers: usize) -> usize {
    if registers >= 32 { 4 } else { 2 }
}

/// Most rows in a block with this number of vectors: sums take three quarters of the registers.
const fn most_rows(registers: usize, vectors: usize) -> usize {
    let rows = 3 * registers / 4 / vectors;
    if rows > 12 { 12 } else { rows }
}

/// The fewest and most even pieces of 0..n of at most `most` each; one piece for n = 0.
fn pieces(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most).max(1);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}

/// Runs a block as a function of its own, as the compiler handles dozens of blocks in one function badly.
#[inline(never)]
fn apart<S: Simd>(simd: S, block: impl WithSimd<Output = ()>) {
    simd.vectorize(block);
}

/// Calls the block with its number of rows, at most `most`, as a constant.
macro_rules! with_rows {
    ($rows:expr, $most:expr, $r:ident => $call:expr) => {
        with_rows!(@ $rows, $most, $r, $call, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $most:expr, $r:ident, $call:expr, $($n:literal)*) => {
        match $rows {
            $($n => {
                const $r: usize = $n;
                // Blocks that do not occur are not compiled.
                if const { $r <= $most } { $call }
            })*
            _ => unreachable!("a block of {} rows", $rows),
        }
    };
}

/// Pixels of samples `0..m`, in columns that are a panel of the weights.
pub(super) struct Sweep<'a> {
    pub(super) gather: &'a Gather,
    pub(super) m: usize,
    /// Groups of samples.
    pub(super) groups: Range<usize>,
    /// Channels that are read and written, and the panel's range of the latter.
    pub(super) channels: (usize, usize),
    pub(super) columns: Range<usize>,
    /// `[m, pixels, channels.0]`.
    pub(super) x: *const f32,
    /// `[matrices, channels.0, whole vectors]`, aligned to a cache line.
    pub(super) panel: *const f32,
    /// `[channels.1]`, or null.
    pub(super) bias: *const f32,
    /// `[m, channels.1]`, or null.
    pub(super) shift: *const f32,
    /// `[m, pixels, channels.1]`, or null.
    pub(super) add: *const f32,
    /// `[m, pixels, channels.1]`, which may be `add`.
    pub(super) y: *mut f32,
}

/// R pixels of a class.
struct Tile<'a, const R: usize, const V: usize> {
    class: &'a Class,
    first: usize,
    channels: usize,
    x: *const f32,
    panel: *const f32,
    bias: *const f32,
    shift: *const f32,
    shift_stride: usize,
    add: *const f32,
    y: *mut f32,
    /// Elements of the last vector.
    last: usize,
}

impl<const R: usize, const V: usize> WithSimd for Tile<'_, R, V> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { class, first, channels, x, panel, bias, shift, shift_stride, add, y, last } = self;
        let count = class.to.len();
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // SAFETY: `Linear` checked that the arrays hold all pixels of the map, and the panel has every matrix that the
        // class names.
        unsafe {
            let mut from = class.from.as_ptr().add(first);
            for &matrix in &class.matrices {
                let mut w = panel.add(matrix as usize * channels * V * S::F32_LANES).cast::<S::f32s>();
                let rows: [*const f32; R] = std::array::from_fn(|r| x.add(*from.add(r) as usize));
                for c in 0..channels {
                    let mut ws = [simd.splat_f32s(0.0); V];
                    for v in 0..V {
                        ws[v] = *w.add(v);
                    }
                    for r in 0..R {
                        let x = simd.splat_f32s(*rows[r].add(c));
                        for v in 0..V {
                            sums[r][v] = simd.mul_add_e_f32s(x, ws[v], sums[r][v]);
                        }
                    }
                    w = w.add(V);
                }
                from = from.wrapping_add(count);
            }
            let mask = MemMask::new(simd.mask_between_m32s(0, last as u32).mask());
            let load = |v: usize, p: *const f32| {
                let p = p.add(v * S::F32_LANES);
                if v + 1 < V {
                    p.cast::<S::f32s>().read_unaligned()
                } else {
                    simd.mask_load_ptr_f32s(mask, p)
                }
            };
            let mut bs = [simd.splat_f32s(0.0); V];
            if !bias.is_null() {
                for v in 0..V {
                    bs[v] = load(v, bias);
                }
            }
            // The compiler unrolls this short loop but not the next one, which alone would keep the sums in memory.
            let mut done = [[simd.splat_f32s(0.0); V]; R];
            for r in 0..R {
                for v in 0..V {
                    done[r][v] = simd.add_f32s(sums[r][v], bs[v]);
                }
            }
            for r in 0..R {
                let (to, sample) = class.to[first + r];
                for v in 0..V {
                    let mut sum = done[r][v];
                    if !shift.is_null() {
                        sum = simd.add_f32s(sum, load(v, shift.add(sample as usize * shift_stride)));
                    }
                    if !add.is_null() {
                        sum = simd.add_f32s(sum, load(v, add.add(to as usize)));
                    }
                    let y = y.add(to as usize + v * S::F32_LANES);
                    if v + 1 < V {
                        y.cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        simd.mask_store_ptr_f32s(mask, y, sum);
                    }
                }
            }
        }
    }
}

impl Sweep<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let most = const { most_rows(S::REGISTER_COUNT, V) };
        let gather = self.gather;
        let last = self.columns.len() - (V - 1) * S::F32_LANES;
        let at = |p: *const f32, n: usize| if p.is_null() { p } else { p.wrapping_add(n) };
        for group in self.groups {
            let sample = group * gather.group;
            let samples = (self.m - sample).min(gather.group);
            let (outputs, column) = (self.channels.1, self.columns.start);
            for class in &gather.classes {
                for tile in pieces(samples * class.pixels, most) {
                    with_rows!(tile.len(), most_rows(S::REGISTER_COUNT, V), R => apart(simd, Tile::<R, V> {
                        class,
                        first: tile.start,
                        channels: self.channels.0,
                        x: at(self.x, sample * gather.from),
                        panel: self.panel,
                        bias: at(self.bias, column),
                        shift: at(self.shift, sample * outputs + column),
                        shift_stride: outputs,
                        add: at(self.add, sample * gather.to + column),
                        y: self.y.wrapping_add(sample * gather.to + column),
                        last,
                    }));
                }
            }
        }
    }
}

impl WithSimd for Sweep<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.columns.len().div_ceil(S::F32_LANES) {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            3 => self.run::<S, 3>(simd),
            4 => self.run::<S, 4>(simd),
            n => unreachable!("a panel of {n} vectors"),
        }
    }
}

/// Most columns that are computed as dot products over the channels, with one sum per lane.
pub(super) const FEW: usize = 4;

/// As [`Sweep`], for all of at most [`FEW`] columns.
pub(super) struct Dots<'a> {
    pub(super) gather: &'a Gather,
    pub(super) m: usize,
    pub(super) groups: Range<usize>,
    pub(super) channels: (usize, usize),
    pub(super) x: *const f32,
    /// `[matrices, channels.1, channels.0]`.
    pub(super) weight: *const f32,
    pub(super) bias: *const f32,
    pub(super) shift: *const f32,
    pub(super) add: *const f32,
    pub(super) y: *mut f32,
}

/// R pixels of a class.
struct DotTile<'a, const R: usize, const N: usize> {
    class: &'a Class,
    first: usize,
    channels: usize,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    shift: *const f32,
    add: *const f32,
    y: *mut f32,
}

impl<const R: usize, const N: usize> WithSimd for DotTile<'_, R, N> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { class, first, channels, x, weight, bias, shift, add, y } = self;
        let count = class.to.len();
        let whole = channels / S::F32_LANES * S::F32_LANES;
        let mask = MemMask::new(simd.mask_between_m32s(0, (channels - whole) as u32).mask());
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        // SAFETY: as in `Tile`.
        unsafe {
            let mut from = class.from.as_ptr().add(first);
            for &matrix in &class.matrices {
                let w = weight.add(matrix as usize * channels * N);
                let rows: [*const f32; R] = std::array::from_fn(|r| x.add(*from.add(r) as usize));
                for c in (0..whole).step_by(S::F32_LANES) {
                    let mut ws = [simd.splat_f32s(0.0); N];
                    for n in 0..N {
                        ws[n] = w.add(n * channels + c).cast::<S::f32s>().read_unaligned();
                    }
                    for r in 0..R {
                        let x = rows[r].add(c).cast::<S::f32s>().read_unaligned();
                        for n in 0..N {
                            sums[r][n] = simd.mul_add_e_f32s(x, ws[n], sums[r][n]);
                        }
                    }
                }
                if whole < channels {
                    for n in 0..N {
                        let w = simd.mask_load_ptr_f32s(mask, w.add(n * channels + whole));
                        for r in 0..R {
                            let x = simd.mask_load_ptr_f32s(mask, rows[r].add(whole));
                            sums[r][n] = simd.mul_add_e_f32s(x, w, sums[r][n]);
                        }
                    }
                }
                from = from.wrapping_add(count);
            }
            let mut done = [[0.0; N]; R];
            for r in 0..R {
                for n in 0..N {
                    done[r][n] = simd.reduce_sum_f32s(sums[r][n]);
                }
            }
            for r in 0..R {
                let (to, sample) = class.to[first + r];
                for n in 0..N {
                    let mut sum = done[r][n];
                    if !bias.is_null() {
                        sum += *bias.add(n);
                    }
                    if !shift.is_null() {
                        sum += *shift.add(sample as usize * N + n);
                    }
                    if !add.is_null() {
                        sum += *add.add(to as usize + n);
                    }
                    *y.add(to as usize + n) = sum;
                }
            }
        }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let gather = self.gather;
        let at = |p: *const f32, n: usize| if p.is_null() { p } else { p.wrapping_add(n) };
        for group in self.groups {
            let sample = group * gather.group;
            let samples = (self.m - sample).min(gather.group);
            for class in &gather.classes {
                for tile in pieces(samples * class.pixels, 4) {
                    macro_rules! tile {
                        ($r:literal) => {
                            apart(
                                simd,
                                DotTile::<$r, N> {
                                    class,
                                    first: tile.start,
                                    channels: self.channels.0,
                                    x: at(self.x, sample * gather.from),
                                    weight: self.weight,
                                    bias: self.bias,
                                    shift: at(self.shift, sample * N),
                                    add: at(self.add, sample * gather.to),
                                    y: self.y.wrapping_add(sample * gather.to),
                                },
                            )
                        };
                    }
                    match tile.len() {
                        1 => tile!(1),
                        2 => tile!(2),
                        3 => tile!(3),
                        _ => tile!(4),
                    }
                }
            }
        }
    }
}

impl WithSimd for Dots<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.channels.1 {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            3 => self.run::<S, 3>(simd),
            FEW => self.run::<S, FEW>(simd),
            n => unreachable!("{n} columns of dot products"),
        }
    }
}

/// Part of a matrix of the weight gradient: the sum over pixels of a b^T, in blocks.
pub(super) struct Outer<'a> {
    /// Indices of the first elements of b's and a's pixels, for a batch of samples.
    pub(super) pairs: &'a [(u32, u32)],
    /// Pairs of a sample, samples of a batch.
    pub(super) pixels: usize,
    pub(super) batch: usize,
    /// Samples.
    pub(super) samples: Range<usize>,
    /// `[m, pixels, rows of the matrix]`, and its elements per sample.
    pub(super) a: (*const f32, usize),
    /// `[m, pixels, columns of the matrix]`, and its elements per sample.
    pub(super) b: (*const f32, usize),
    /// Rows and columns that are computed.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// The matrix, the stride of its rows, and whether its content is added to.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) accumulate: bool,
    /// Scratch for [`PASS`] pixels of b in whole vectors, aligned to a cache line.
    pub(super) room: &'a mut [f32],
}

/// Most pixels in a pass over a block, so that their part of b stays in the first-level cache.
pub(super) const PASS: usize = 128;

/// Number of rows, and stride of b's pixels, from which copying b's columns pays: pixels this far apart map to few sets of
/// the first-level cache.
const PACKED: (usize, usize) = (96, 256);

struct Block<'a, const R: usize, const V: usize, const PACKED: bool> {
    pairs: &'a [(u32, u32)],
    a: *const f32,
    /// With PACKED, whole vectors of consecutive pixels; `pairs` is not used.
    b: *const f32,
    out: *mut f32,
    stride: usize,
    last: usize,
    accumulate: bool,
}

impl<const R: usize, const V: usize, const PACKED: bool> WithSimd for Block<'_, R, V, PACKED> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pairs, a, mut b, out, stride, last, accumulate } = self;
        let mask = MemMask::new(simd.mask_between_m32s(0, last as u32).mask());
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // SAFETY: as in `Tile`.
        unsafe {
            for &(p, q) in pairs {
                let a = a.add(q as usize);
                let at = if PACKED { b } else { b.add(p as usize) }.cast::<S::f32s>();
                let mut bs = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    bs[v] = at.add(v).read_unaligned();
                }
                if PACKED {
                    b = b.add(V * S::F32_LANES);
                }
                for r in 0..R {
                    let a = simd.splat_f32s(*a.add(r));
                    for v in 0..V {
                        sums[r][v] = simd.mul_add_e_f32s(a, bs[v], sums[r][v]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..V {
                    let out = out.add(r * stride + v * S::F32_LANES);
                    let mut sum = sums[r][v];
                    if v + 1 < V {
                        if accumulate {
                            sum = simd.add_f32s(sum, out.cast::<S::f32s>().read_unaligned());
                        }
                        out.cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        if accumulate {
                            sum = simd.add_f32s(sum, simd.mask_load_ptr_f32s(mask, out));
                        }
                        simd.mask_store_ptr_f32s(mask, out, sum);
                    }
                }
            }
        }
    }
}

impl Outer<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const PACKED: bool>(self, simd: S) {
        let most = const { most_rows(S::REGISTER_COUNT, V) };
        let width = V * S::F32_LANES;
        let last = self.columns.len() - (V - 1) * S::F32_LANES;
        let room = self.room;
        let mut accumulate = self.accumulate;
        for sample in self.samples.clone().step_by(self.batch) {
            let samples = (self.samples.end - sample).min(self.batch);
            for pass in pieces(samples * self.pixels, PASS) {
                let pairs = &self.pairs[pass];
                let mut b = self.b.0.wrapping_add(sample * self.b.1 + self.columns.start);
                if PACKED {
                    for (packed, &(p, _)) in room.chunks_exact_mut(width).zip(pairs) {
                        let (packed, padding) = packed.split_at_mut(self.columns.len());
                        // SAFETY: as in `Tile`.
                        let pixel = unsafe { std::slice::from_raw_parts(b.add(p as usize), packed.len()) };
                        packed.copy_from_slice(pixel);
                        padding.fill(0.0);
                    }
                    b = room.as_ptr();
                }
                for rows in pieces(self.rows.len(), most) {
                    let row = self.rows.start + rows.start;
                    with_rows!(rows.len(), most_rows(S::REGISTER_COUNT, V), R => apart(simd, Block::<R, V, PACKED> {
                        pairs,
                        a: self.a.0.wrapping_add(sample * self.a.1 + row),
                        b,
                        out: self.out.wrapping_add(row * self.stride + self.columns.start),
                        stride: self.stride,
                        last,
                        accumulate,
                    }));
                }
                accumulate = true;
            }
        }
    }
}

impl WithSimd for Outer<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.columns.len();
        let far = self.rows.len() >= PACKED.0 && self.stride >= PACKED.1;
        let packed = far || !n.is_multiple_of(S::F32_LANES);
        match (n.div_ceil(S::F32_LANES), packed) {
            (1, false) => self.run::<S, 1, false>(simd),
            (2, false) => self.run::<S, 2, false>(simd),
            (3, false) => self.run::<S, 3, false>(simd),
            (4, false) => self.run::<S, 4, false>(simd),
            (1, true) => self.run::<S, 1, true>(simd),
            (2, true) => self.run::<S, 2, true>(simd),
            (3, true) => self.run::<S, 3, true>(simd),
            (4, true) => self.run::<S, 4, true>(simd),
            (n, _) => unreachable!("a panel of {n} vectors"),
        }
    }
}
