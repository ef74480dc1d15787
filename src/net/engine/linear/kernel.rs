//! The inner loops: blocks of pixels and channels in registers.

use std::ops::Range;

use pulp::{MemMask, Simd, WithSimd};

use super::map::{Class, Gather};

/// Most vectors of channels in a block. Pixels fill the rest of the registers.
pub(super) const fn most_vectors(registers: usize) -> usize {
    if registers >= 32 { 4 } else { 2 }
}

/// Most rows in a block with so many vectors: sums take three quarters of the registers.
const fn most_rows(registers: usize, vectors: usize) -> usize {
    let rows = 3 * registers / 4 / vectors;
    if rows > 12 { 12 } else { rows }
}

/// As few and as even pieces of 0..n as there can be with at most `most` in each; one for n = 0.
fn pieces(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most).max(1);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}

/// Calls the block with the number of rows as a constant.
macro_rules! with_rows {
    ($rows:expr, $r:ident => $call:expr) => {
        with_rows!(@ $rows, $r, $call, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $r:ident, $call:expr, $($n:literal)*) => {
        match $rows {
            $($n => { const $r: usize = $n; $call })*
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
    /// Channels that are read, those that are written, and the panel's part of them.
    pub(super) channels: (usize, usize),
    pub(super) columns: Range<usize>,
    /// `[m, pixels, channels.0]`.
    pub(super) x: *const f32,
    /// `[matrices, channels.0, whole vectors]`, beginning on a cache line.
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
    /// Numbers in the last vector.
    last: usize,
}

impl<const R: usize, const V: usize> WithSimd for Tile<'_, R, V> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { class, first, channels, x, panel, bias, shift, shift_stride, add, y, last } = self;
        let count = class.to.len();
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // SAFETY: the map's pixels lie in the arrays whose lengths `Linear` has checked, and the panel has a matrix
        // for each that the class names.
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
            for r in 0..R {
                let (to, sample) = class.to[first + r];
                for v in 0..V {
                    let mut sum = sums[r][v];
                    if !bias.is_null() {
                        sum = simd.add_f32s(sum, load(v, bias));
                    }
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
                    with_rows!(tile.len(), R => simd.vectorize(Tile::<R, V> {
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

/// Part of a matrix of the weights' gradient: the sum over pixels of x dy^T, in blocks.
pub(super) struct Outer<'a> {
    /// First numbers of dy and x for each pixel, for a batch of samples.
    pub(super) pairs: &'a [(u32, u32)],
    /// Pairs of a sample, samples of a batch.
    pub(super) pixels: usize,
    pub(super) batch: usize,
    /// Samples.
    pub(super) samples: Range<usize>,
    /// Numbers in a sample of x and of dy.
    pub(super) lens: (usize, usize),
    /// `[m, pixels, inputs]`.
    pub(super) x: *const f32,
    /// `[m, pixels, outputs]`.
    pub(super) dy: *const f32,
    /// Rows and columns of the matrix to be computed.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Numbers from a row of the matrix to the next.
    pub(super) stride: usize,
    /// The matrix, and whether it is added to.
    pub(super) out: *mut f32,
    pub(super) accumulate: bool,
}

struct Block<'a, const R: usize, const V: usize, const MASKED: bool> {
    pairs: &'a [(u32, u32)],
    x: *const f32,
    dy: *const f32,
    out: *mut f32,
    stride: usize,
    last: usize,
    accumulate: bool,
}

impl<const R: usize, const V: usize, const MASKED: bool> WithSimd for Block<'_, R, V, MASKED> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pairs, x, dy, out, stride, last, accumulate } = self;
        let mask = MemMask::new(simd.mask_between_m32s(0, last as u32).mask());
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // SAFETY: as in `Tile`.
        unsafe {
            let load = |v: usize, p: *const f32| {
                let p = p.add(v * S::F32_LANES);
                if !MASKED || v + 1 < V {
                    p.cast::<S::f32s>().read_unaligned()
                } else {
                    simd.mask_load_ptr_f32s(mask, p)
                }
            };
            for &(p, q) in pairs {
                let (x, dy) = (x.add(q as usize), dy.add(p as usize));
                let mut dys = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    dys[v] = load(v, dy);
                }
                for r in 0..R {
                    let x = simd.splat_f32s(*x.add(r));
                    for v in 0..V {
                        sums[r][v] = simd.mul_add_e_f32s(x, dys[v], sums[r][v]);
                    }
                }
            }
            for r in 0..R {
                let out = out.add(r * stride);
                for v in 0..V {
                    let mut sum = sums[r][v];
                    if accumulate {
                        sum = simd.add_f32s(sum, load(v, out));
                    }
                    let out = out.add(v * S::F32_LANES);
                    if !MASKED || v + 1 < V {
                        out.cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        simd.mask_store_ptr_f32s(mask, out, sum);
                    }
                }
            }
        }
    }
}

/// Pixels in a pass over a block: their dy stay in the first cache.
const PASS: usize = 160;

impl Outer<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const MASKED: bool>(self, simd: S) {
        let most = const { most_rows(S::REGISTER_COUNT, V) };
        let last = self.columns.len() - (V - 1) * S::F32_LANES;
        let mut accumulate = self.accumulate;
        for sample in self.samples.clone().step_by(self.batch) {
            let samples = (self.samples.end - sample).min(self.batch);
            for pass in pieces(samples * self.pixels, PASS) {
                for rows in pieces(self.rows.len(), most) {
                    let row = self.rows.start + rows.start;
                    with_rows!(rows.len(), R => simd.vectorize(Block::<R, V, MASKED> {
                        pairs: &self.pairs[pass.clone()],
                        x: self.x.wrapping_add(sample * self.lens.0 + row),
                        dy: self.dy.wrapping_add(sample * self.lens.1 + self.columns.start),
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
        match (n.div_ceil(S::F32_LANES), n % S::F32_LANES != 0) {
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
