//! The inner loops of every operation, with queries side by side in the lanes of vectors.
//!
//! A panel is up to [`Lanes::PANEL`] queries, transposed: `[n, width]`, where the width is a multiple of
//! [`Lanes::LINE`] and missing queries are zero. Memories are read row by row. The result for a query and a memory comes
//! from the same chain of operations at every position, so it does not depend on the number of queries or on the queries
//! that share a panel.

use pulp::{Simd, WithSimd, bytemuck};

/// Dimensions whose products are summed in registers at a time: a panel of this many fits the first cache.
const DEPTH: usize = 192;

/// Rows of memories come in multiples of this; the last rows are padding.
pub(super) const ROWS: usize = 8;

/// Rows whose moments are summed in registers before they are added in f64.
const SLAB: usize = 256;

/// Weights that are summed in the precision of the memories before they are added in f64.
const RUN: usize = 32;

/// Dimensions in one chain of additions, for N of them.
fn depth(n: usize) -> usize {
    n.div_ceil(n.div_ceil(DEPTH))
}

/// Largest number of additions in the chain of a product of n dimensions.
pub(super) fn chain(n: usize) -> usize {
    depth(n) + n.div_ceil(DEPTH)
}

/// How [`Lanes::closeness`] is computed from a query and a memory.
#[derive(Clone, Copy)]
pub enum Pairs<'a, T> {
    /// x.y - h, from centred values and half the squared norm h of every memory.
    Products(&'a [T]),
    /// -|x - y|^2 / 2, from the values as given.
    Differences,
}

/// Rows of memories, `stride` values apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub(super) values: &'a [T],
    pub(super) stride: usize,
}

/// Values that start on a cache line, where vectors are read fastest.
#[derive(Default)]
pub(crate) struct Buffer<T> {
    values: Vec<T>,
    from: usize,
    len: usize,
}

impl<T: Lanes> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        let values = vec![T::default(); len + T::LINE];
        let from = values.as_ptr().align_offset(64);
        Self { values, from, len }
    }
}

impl<T> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.from..self.from + self.len]
    }
}

impl<T> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.from..self.from + self.len]
    }
}

/// The inner loops for one precision.
pub trait Lanes: Copy + Default + 'static {
    /// Values in 64 bytes.
    const LINE: usize;
    /// Most queries in a panel.
    const PANEL: usize;

    /// out_(j, q) <- x_q.y_j - |y_j|^2/2 or -|x_q - y_j|^2/2, larger for closer memories. `out` is `[rows, width]`, and
    /// its number of rows is a multiple of [`ROWS`].
    fn closeness(out: &mut [Self], panel: &[Self], rows: Rows<'_, Self>, n: usize, pairs: Pairs<'_, Self>);
    /// most_q <- max_j values_(j, q).
    fn column_max(most: &mut [Self], values: &[Self]);
    /// sums_q += sum_j w_(j, q) and, with `moments`, moments_q += sum_j w_(j, q) l_(j, q), where
    /// l_(j, q) = two_beta_q values_(j, q) - level_q and w = exp(l). With `store` values_(j, q) <- w.
    fn column_weights(
        values: &mut [Self],
        two_beta: &[Self],
        level: &[Self],
        sums: &mut [f64],
        moments: Option<&mut [f64]>,
        store: bool,
    );
    /// Calls `found(j, q)` for each values_(j, q) >= floor_q, in order of j and then q.
    fn at_least(values: &[Self], floor: &[Self], found: impl FnMut(usize, usize));
    /// sums_(q, k) += sum_j weights_(j, q) rows_(j, k), for the first queries of a panel and n dimensions.
    fn moments(sums: &mut [f64], weights: &[Self], width: usize, rows: Rows<'_, Self>, n: usize);
}

macro_rules! lanes {
    ($t:ident, $line:literal, $exp:path, $vector:ident, $count:ident, $as_simd:ident, $as_mut_simd:ident,
     $splat:ident, $fma:ident, $sub:ident, $mul:ident, $ge:ident, $first:ident) => {
        impl Lanes for $t {
            const LINE: usize = $line;
            const PANEL: usize = 3 * $line;

            fn closeness(out: &mut [$t], panel: &[$t], rows: Rows<'_, $t>, n: usize, pairs: Pairs<'_, $t>) {
                struct Op<'a> {
                    out: &'a mut [$t],
                    panel: &'a [$t],
                    rows: Rows<'a, $t>,
                    n: usize,
                    pairs: Pairs<'a, $t>,
                }
                /// R memories and V vectors of queries over dimensions k0..k1, in registers.
                #[inline(always)]
                fn block<S: Simd, const R: usize, const V: usize>(
                    simd: S,
                    op: &mut Op<'_>,
                    width: usize,
                    (j, v): (usize, usize),
                    (k0, k1): (usize, usize),
                ) {
                    let panel = S::$as_simd(op.panel).0;
                    let out = S::$as_mut_simd(op.out).0;
                    let values = op.rows.values;
                    let stride = op.rows.stride;
                    assert!((j + R - 1) * stride + k1 <= values.len() && v + V <= width);
                    assert!(k1 * width <= panel.len() && (j + R) * width <= out.len() && k0 <= k1);
                    let mut sums = [[simd.$splat(0.0); V]; R];
                    let differences = matches!(op.pairs, Pairs::Differences);
                    match op.pairs {
                        Pairs::Products(half) if k0 == 0 => {
                            for (sums, half) in sums.iter_mut().zip(&half[j..j + R]) {
                                *sums = [simd.$splat(-half); V];
                            }
                        }
                        Pairs::Differences if k0 == 0 => {}
                        _ => {
                            for r in 0..R {
                                for i in 0..V {
                                    sums[r][i] = out[(j + r) * width + v + i];
                                }
                            }
                        }
                    }
                    // SAFETY: the asserts above bound every index below.
                    unsafe {
                        let mut x = panel.as_ptr().add(k0 * width + v);
                        let mut y = values.as_ptr().add(j * stride + k0);
                        if differences {
                            let minus_half = simd.$splat(-0.5);
                            for _ in k0..k1 {
                                for r in 0..R {
                                    let y = simd.$splat(*y.add(r * stride));
                                    for i in 0..V {
                                        let d = simd.$sub(*x.add(i), y);
                                        sums[r][i] = simd.$fma(simd.$mul(d, minus_half), d, sums[r][i]);
                                    }
                                }
                                x = x.wrapping_add(width);
                                y = y.wrapping_add(1);
                            }
                        } else {
                            for _ in k0..k1 {
                                let mut xs = [simd.$splat(0.0); V];
                                for i in 0..V {
                                    xs[i] = *x.add(i);
                                }
                                for r in 0..R {
                                    let y = simd.$splat(*y.add(r * stride));
                                    for i in 0..V {
                                        sums[r][i] = simd.$fma(y, xs[i], sums[r][i]);
                                    }
                                }
                                x = x.wrapping_add(width);
                                y = y.wrapping_add(1);
                            }
                        }
                    }
                    for r in 0..R {
                        for i in 0..V {
                            out[(j + r) * width + v + i] = sums[r][i];
                        }
                    }
                }
                #[inline(always)]
                fn all<S: Simd, const R: usize>(simd: S, mut op: Op<'_>) {
                    let width = op.panel.len() / op.n / S::$count;
                    let rows = op.out.len() / (width * S::$count);
                    let step = depth(op.n);
                    for k0 in (0..op.n).step_by(step) {
                        let k = (k0, op.n.min(k0 + step));
                        for j in (0..rows).step_by(R) {
                            for v in (0..width).step_by(3) {
                                match width - v {
                                    1 => block::<S, R, 1>(simd, &mut op, width, (j, v), k),
                                    2 => block::<S, R, 2>(simd, &mut op, width, (j, v), k),
                                    _ => block::<S, R, 3>(simd, &mut op, width, (j, v), k),
                                }
                            }
                        }
                    }
                }
                impl WithSimd for Op<'_> {
                    type Output = ();
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, simd: S) {
                        // As many sums as fit the registers.
                        if S::REGISTER_COUNT >= 32 {
                            all::<S, ROWS>(simd, self);
                        } else {
                            all::<S, { ROWS / 2 }>(simd, self);
                        }
                    }
                }
                pulp::Arch::new().dispatch(Op { out, panel, rows, n, pairs });
            }

            fn column_max(most: &mut [$t], values: &[$t]) {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        let width = most.len();
                        for (c, most) in most.as_chunks_mut::<$line>().0.iter_mut().enumerate() {
                            let mut best = [<$t>::NEG_INFINITY; $line];
                            for row in values.chunks_exact(width) {
                                let row = &row.as_chunks::<$line>().0[c];
                                for i in 0..$line {
                                    best[i] = if row[i] > best[i] { row[i] } else { best[i] };
                                }
                            }
                            *most = best;
                        }
                    },
                );
            }

            fn column_weights(
                values: &mut [$t],
                two_beta: &[$t],
                level: &[$t],
                sums: &mut [f64],
                moments: Option<&mut [f64]>,
                store: bool,
            ) {
                #[inline(always)]
                fn fold<const MOMENTS: bool, const STORE: bool>(
                    values: &mut [$t],
                    two_beta: &[$t],
                    level: &[$t],
                    sums: &mut [f64],
                    moments: &mut [f64],
                ) {
                    let width = level.len();
                    for run in values.chunks_mut(width * RUN) {
                        let (betas, levels) = (two_beta.as_chunks::<$line>().0, level.as_chunks::<$line>().0);
                        for (c, (two_beta, level)) in betas.iter().zip(levels).enumerate() {
                            let mut sum = [0.0 as $t; $line];
                            let mut moment = [0.0 as $t; $line];
                            for row in run.chunks_exact_mut(width) {
                                let row = &mut row.as_chunks_mut::<$line>().0[c];
                                for i in 0..$line {
                                    let l = row[i].mul_add(two_beta[i], -level[i]);
                                    let w = $exp(l);
                                    if STORE {
                                        row[i] = w;
                                    }
                                    sum[i] += w;
                                    if MOMENTS {
                                        // Zero weight times minus infinity counts as 0.
                                        moment[i] += if w > 0.0 { w * l } else { 0.0 };
                                    }
                                }
                            }
                            for i in 0..$line {
                                sums[c * $line + i] += f64::from(sum[i]);
                                if MOMENTS {
                                    moments[c * $line + i] += f64::from(moment[i]);
                                }
                            }
                        }
                    }
                }
                struct Op<'a> {
                    values: &'a mut [$t],
                    two_beta: &'a [$t],
                    level: &'a [$t],
                    sums: &'a mut [f64],
                    moments: Option<&'a mut [f64]>,
                    store: bool,
                }
                // Not a closure: a closure called by value is not inlined and so not compiled for vectors.
                impl WithSimd for Op<'_> {
                    type Output = ();
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, _: S) {
                        let Op { values, two_beta, level, sums, moments, store } = self;
                        match (moments, store) {
                            (Some(m), true) => fold::<true, true>(values, two_beta, level, sums, m),
                            (Some(m), false) => fold::<true, false>(values, two_beta, level, sums, m),
                            (None, true) => fold::<false, true>(values, two_beta, level, sums, &mut []),
                            (None, false) => fold::<false, false>(values, two_beta, level, sums, &mut []),
                        }
                    }
                }
                pulp::Arch::new().dispatch(Op { values, two_beta, level, sums, moments, store });
            }

            fn at_least(values: &[$t], floor: &[$t], found: impl FnMut(usize, usize)) {
                struct Op<'a, F> {
                    values: &'a [$t],
                    floor: &'a [$t],
                    found: F,
                }
                impl<F: FnMut(usize, usize)> WithSimd for Op<'_, F> {
                    type Output = ();
                    #[inline(always)]
                    fn with_simd<S: Simd>(mut self, simd: S) {
                        let floors = S::$as_simd(self.floor).0;
                        for (j, row) in self.values.chunks_exact(self.floor.len()).enumerate() {
                            for (v, (x, floor)) in S::$as_simd(row).0.iter().zip(floors).enumerate() {
                                if simd.$first(simd.$ge(*x, *floor)) < S::$count {
                                    for q in v * S::$count..(v + 1) * S::$count {
                                        if row[q] >= self.floor[q] {
                                            (self.found)(j, q);
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                pulp::Arch::new().dispatch(Op { values, floor, found });
            }

            fn moments(sums: &mut [f64], weights: &[$t], width: usize, rows: Rows<'_, $t>, n: usize) {
                struct Op<'a> {
                    sums: &'a mut [f64],
                    weights: &'a [$t],
                    width: usize,
                    rows: Rows<'a, $t>,
                    n: usize,
                }
                /// R queries from q and V vectors of dimensions from v, in registers.
                #[inline(always)]
                fn block<S: Simd, const R: usize, const V: usize>(
                    simd: S,
                    op: &mut Op<'_>,
                    (q, v): (usize, usize),
                    (j0, j1): (usize, usize),
                ) {
                    let (width, stride) = (op.width, op.rows.stride);
                    assert!(q + R <= width && (v + V) * S::$count <= stride);
                    assert!(j0 < j1 && j1 * width <= op.weights.len());
                    assert!(j1 * stride <= op.rows.values.len());
                    let mut sums = [[simd.$splat(0.0); V]; R];
                    // SAFETY: the asserts above bound every index below; a vector has the alignment of its elements.
                    unsafe {
                        let mut w = op.weights.as_ptr().add(j0 * width + q);
                        let mut y = op.rows.values.as_ptr().add(j0 * stride + v * S::$count);
                        for _ in j0..j1 {
                            let mut ys = [simd.$splat(0.0); V];
                            for i in 0..V {
                                ys[i] = *y.cast::<S::$vector>().add(i);
                            }
                            for r in 0..R {
                                let w = simd.$splat(*w.add(r));
                                for i in 0..V {
                                    sums[r][i] = simd.$fma(w, ys[i], sums[r][i]);
                                }
                            }
                            w = w.wrapping_add(width);
                            y = y.wrapping_add(stride);
                        }
                    }
                    let from = v * S::$count;
                    for (r, sums) in sums.iter().enumerate() {
                        let Some(out) = op.sums.get_mut((q + r) * op.n..(q + r + 1) * op.n) else { break };
                        let part: &[$t] = bytemuck::cast_slice(&sums[..]);
                        for (out, part) in out[from..].iter_mut().zip(part) {
                            *out += f64::from(*part);
                        }
                    }
                }
                #[inline(always)]
                fn all<S: Simd, const R: usize>(simd: S, mut op: Op<'_>) {
                    let vectors = op.n.div_ceil(S::$count);
                    let (rows, queries) = (op.weights.len() / op.width, op.sums.len() / op.n);
                    for j0 in (0..rows).step_by(SLAB) {
                        let j = (j0, rows.min(j0 + SLAB));
                        for v in (0..vectors).step_by(3) {
                            for q in (0..queries).step_by(R) {
                                match vectors - v {
                                    1 => block::<S, R, 1>(simd, &mut op, (q, v), j),
                                    2 => block::<S, R, 2>(simd, &mut op, (q, v), j),
                                    _ => block::<S, R, 3>(simd, &mut op, (q, v), j),
                                }
                            }
                        }
                    }
                }
                impl WithSimd for Op<'_> {
                    type Output = ();
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, simd: S) {
                        if S::REGISTER_COUNT >= 32 {
                            all::<S, 8>(simd, self);
                        } else {
                            all::<S, 4>(simd, self);
                        }
                    }
                }
                pulp::Arch::new().dispatch(Op { sums, weights, width, rows, n });
            }
        }
    };
}

lanes!(
    f32,
    16,
    super::element::exp32,
    f32s,
    F32_LANES,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    mul_add_e_f32s,
    sub_f32s,
    mul_f32s,
    greater_than_or_equal_f32s,
    first_true_m32s
);
lanes!(
    f64,
    8,
    super::element::exp64,
    f64s,
    F64_LANES,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    mul_add_e_f64s,
    sub_f64s,
    mul_f64s,
    greater_than_or_equal_f64s,
    first_true_m64s
);
