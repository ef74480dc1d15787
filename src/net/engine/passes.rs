//! Elementwise operations: SiLU, sums and copies; and the division of rows into tasks.

use std::cell::RefCell;

use rayon::prelude::*;

use super::dropout::{Dropout, Mask};
use crate::ops::{Buffer, exp32};
use crate::shape::Shape;

/// Largest number of tasks of an operation.
pub(super) const TASKS: usize = 32;

/// Fewest elements in a task; fewer are not worth waking a thread for.
const LEAST: usize = 1 << 14;

/// Rows per task, for m rows of `len` elements. It depends on the sizes alone, so that sums over tasks do not depend on
/// the number of threads.
pub(super) fn rows_a_task(m: usize, len: usize) -> usize {
    m.div_ceil(TASKS).max(LEAST.div_ceil(len.max(1)))
}

/// A gradient to be written, and whether it is added to the content of the slice.
pub(super) type Target<'a> = Option<(&'a mut [f32], bool)>;

/// Parts of `size` elements of a target; as many times `None` when there is no target.
pub(super) fn parts(target: Target<'_>, n: usize, size: usize) -> impl Iterator<Item = Target<'_>> {
    let (all, accumulate) = target.map_or((None, false), |(all, a)| (Some(all), a));
    let count = n.div_ceil(size);
    let mut all = all.map(|all| all.chunks_mut(size));
    (0..count).map(move |_| all.as_mut().and_then(Iterator::next).map(|part| (part, accumulate)))
}

thread_local! {
    static SCRATCH: RefCell<(Buffer<f32>, Buffer<f64>)> = RefCell::default();
}

/// Calls `f` with scratch memory of this thread, with undefined content. `f` must not wait for other tasks.
pub(super) fn with_scratch(singles: usize, doubles: usize, f: impl FnOnce(&mut [f32], &mut [f64])) {
    SCRATCH.with_borrow_mut(|(single, double)| {
        if single.len() < singles {
            *single = Buffer::new(singles);
        }
        if double.len() < doubles {
            *double = Buffer::new(doubles);
        }
        f(&mut single[..singles], &mut double[..doubles]);
    });
}

/// 1 / (1 + e^-x) to 4 units in the last place.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = exp32(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// The derivative of x sigmoid(x).
#[inline(always)]
pub(super) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

/// x sigmoid(x) and dropout.
pub(super) struct Silu {
    pub(super) node: usize,
    pub(super) len: usize,
    pub(super) rate: f64,
}

impl Silu {
    pub(super) fn forward(&self, m: usize, x: &[f32], y: &mut [f32], dropout: Option<Dropout>) {
        let (step, n) = (rows_a_task(m, self.len), m * self.len);
        let tasks = y[..n].par_chunks_mut(step * self.len).zip(x[..n].par_chunks(step * self.len));
        tasks.enumerate().for_each(|(task, (y, x))| match dropout {
            Some(d) if self.rate > 0.0 => {
                for (r, (y, x)) in y.chunks_mut(self.len).zip(x.chunks(self.len)).enumerate() {
                    silu_dropped(x, y, d.mask(self.node, self.rate, task * step + r));
                }
            }
            _ => silu(x, y),
        });
    }

    pub(super) fn backward(
        &self,
        m: usize,
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        accumulate: bool,
        dropout: Option<Dropout>,
    ) {
        let (step, n) = (rows_a_task(m, self.len), m * self.len);
        let size = step * self.len;
        let tasks = dx[..n].par_chunks_mut(size).zip(x[..n].par_chunks(size)).zip(dy[..n].par_chunks(size));
        tasks.enumerate().for_each(|(task, ((dx, x), dy))| {
            let rows = dx.chunks_mut(self.len).zip(x.chunks(self.len)).zip(dy.chunks(self.len));
            for (r, ((dx, x), dy)) in rows.enumerate() {
                let mask = match dropout {
                    Some(d) if self.rate > 0.0 => Some(d.mask(self.node, self.rate, task * step + r)),
                    _ => None,
                };
                silu_back(x, dy, dx, accumulate, mask);
            }
        });
    }
}

fn silu(x: &[f32], y: &mut [f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y = x * sigmoid(*x);
            }
        },
    );
}

fn silu_dropped(x: &[f32], y: &mut [f32], mask: Mask) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = x * sigmoid(*x) * mask.at(i as u32);
            }
        },
    );
}

fn silu_back(x: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool, mask: Option<Mask>) {
    struct Op<'a>(&'a [f32], &'a [f32], &'a mut [f32], bool, Option<Mask>);
    impl pulp::WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Op(x, dy, dx, accumulate, mask) = self;
            match (accumulate, mask) {
                (false, None) => each(x, dy, dx, |_, x, dy, _| dy * silu_slope(x)),
                (true, None) => each(x, dy, dx, |_, x, dy, dx| dx + dy * silu_slope(x)),
                (false, Some(mask)) => each(x, dy, dx, |i, x, dy, _| dy * silu_slope(x) * mask.at(i)),
                (true, Some(mask)) => each(x, dy, dx, |i, x, dy, dx| dx + dy * silu_slope(x) * mask.at(i)),
            }
        }
    }
    #[inline(always)]
    fn each(x: &[f32], dy: &[f32], dx: &mut [f32], f: impl Fn(u32, f32, f32, f32) -> f32) {
        for (i, ((dx, x), dy)) in dx.iter_mut().zip(x).zip(dy).enumerate() {
            *dx = f(i as u32, *x, *dy, *dx);
        }
    }
    pulp::Arch::new().dispatch(Op(x, dy, dx, accumulate, mask));
}

/// y <- a + b.
pub(super) fn sum(a: &[f32], b: &[f32], y: &mut [f32]) {
    let size = y.len().div_ceil(TASKS).max(LEAST);
    y.par_chunks_mut(size).zip(a.par_chunks(size)).zip(b.par_chunks(size)).for_each(|((y, a), b)| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = a + b;
                }
            },
        );
    });
}

/// y <- x, or y <- y + x.
pub(super) fn copy(x: &[f32], y: &mut [f32], accumulate: bool) {
    let size = y.len().div_ceil(TASKS).max(LEAST);
    y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| copy_run(x, y, accumulate));
}

fn copy_run(x: &[f32], y: &mut [f32], accumulate: bool) {
    if !accumulate {
        return y.copy_from_slice(x);
    }
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y += x;
            }
        },
    );
}

/// y <- the channels of a followed by those of b, for each pixel.
pub(super) fn concat(pixels: usize, (a, of_a): (&[f32], usize), (b, of_b): (&[f32], usize), y: &mut [f32]) {
    let (of_y, step) = (of_a + of_b, rows_a_task(pixels, of_a + of_b));
    let parts = a[..pixels * of_a].par_chunks(step * of_a).zip(b[..pixels * of_b].par_chunks(step * of_b));
    y[..pixels * of_y].par_chunks_mut(step * of_y).zip(parts).for_each(|(y, (a, b))| {
        for ((y, a), b) in y.chunks_exact_mut(of_y).zip(a.chunks_exact(of_a)).zip(b.chunks_exact(of_b)) {
            y[..of_a].copy_from_slice(a);
            y[of_a..].copy_from_slice(b);
        }
    });
}

/// The gradient of [`concat`] with respect to one of its inputs, whose channels begin at `from`.
pub(super) fn split(
    pixels: usize,
    (dy, of_y): (&[f32], usize),
    from: usize,
    (dx, of_x): (&mut [f32], usize),
    accumulate: bool,
) {
    let step = rows_a_task(pixels, of_x);
    let dx = dx[..pixels * of_x].par_chunks_mut(step * of_x);
    dx.zip(dy[..pixels * of_y].par_chunks(step * of_y)).for_each(|(dx, dy)| {
        pulp::Arch::new().dispatch(Split { dy, of_y, from, dx, of_x, accumulate });
    });
}

struct Split<'a> {
    dy: &'a [f32],
    of_y: usize,
    from: usize,
    dx: &'a mut [f32],
    of_x: usize,
    accumulate: bool,
}

impl pulp::WithSimd for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { dy, of_y, from, dx, of_x, accumulate } = self;
        for (dx, dy) in dx.chunks_exact_mut(of_x).zip(dy.chunks_exact(of_y)) {
            let dy = &dy[from..from + of_x];
            if accumulate {
                for (dx, dy) in dx.iter_mut().zip(dy) {
                    *dx += dy;
                }
            } else {
                dx.copy_from_slice(dy);
            }
        }
    }
}

/// Blocks of side x side pixels as pixels of this shape, and back.
pub(super) struct Blocks {
    pub(super) coarse: Shape,
    pub(super) side: usize,
}

impl Blocks {
    /// Pixels of blocks to channels.
    pub(super) fn fold(&self, fine: &[f32], coarse: &mut [f32], accumulate: bool) {
        self.each(fine, coarse, |fine, coarse, of_fine, of_coarse| {
            let kept = if accumulate { coarse[of_coarse] } else { 0.0 };
            coarse[of_coarse] = kept + fine[of_fine];
        });
    }

    /// Channels to the pixels of blocks.
    pub(super) fn unfold(&self, coarse: &[f32], fine: &mut [f32], accumulate: bool) {
        self.each(coarse, fine, |coarse, fine, of_fine, of_coarse| {
            let kept = if accumulate { fine[of_fine] } else { 0.0 };
            fine[of_fine] = kept + coarse[of_coarse];
        });
    }

    /// Calls `f` for each sample and each pair of places in the fine and the coarse image.
    fn each(&self, from: &[f32], to: &mut [f32], f: impl Fn(&[f32], &mut [f32], usize, usize) + Sync) {
        let (Shape { height, width, channels }, side) = (self.coarse, self.side);
        let (size, deep) = (self.coarse.len(), channels / (side * side));
        let step = rows_a_task(from.len() / size, size) * size;
        to.par_chunks_mut(step).zip(from.par_chunks(step)).for_each(|(to, from)| {
            for (to, from) in to.chunks_exact_mut(size).zip(from.chunks_exact(size)) {
                let mut of_coarse = 0;
                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                    for (c, i, j) in blocks(deep, side) {
                        let pixel = (side * y + i) * side * width + side * x + j;
                        f(from, to, pixel * deep + c, of_coarse);
                        of_coarse += 1;
                    }
                }
            }
        });
    }
}

/// Channel, row and column of a block, in the order of folded channels.
fn blocks(deep: usize, side: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..deep).flat_map(move |c| (0..side).flat_map(move |i| (0..side).map(move |j| (c, i, j))))
}

/// dshift <- the sum of dy over the pixels of each sample.
pub(super) fn pixel_sums(
    dy: &[f32],
    (pixels, channels): (usize, usize),
    dshift: &mut [f32],
    accumulate: bool,
) {
    for (sum, dy) in dshift.chunks_exact_mut(channels).zip(dy.chunks_exact(pixels * channels)) {
        for (i, pixel) in dy.chunks_exact(channels).enumerate() {
            copy_run(pixel, sum, accumulate || i > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoids_agree_with_the_standard_library() {
        for i in -200_000..200_000 {
            let x = i as f32 * 0.000_43;
            let exact = 1.0 / (1.0 + f64::from(-x).exp());
            let apart = (f64::from(sigmoid(x)) - exact).abs();
            assert!(apart <= 4.0 * f64::from(f32::EPSILON) * exact, "{x}: {} and {exact}", sigmoid(x));
        }
        assert_eq!((sigmoid(1e30), sigmoid(-1e30), silu_slope(-1e30)), (1.0, 0.0, 0.0));
        assert_eq!(sigmoid(0.0), 0.5);
        assert!(sigmoid(f32::NAN).is_nan());
    }
}
