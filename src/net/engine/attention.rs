//! Attention with one head over the pixels of a sample.

use rayon::prelude::*;

use super::passes::{TASKS, Target, parts, rows_a_task, with_scratch};
use crate::ops::exp32;
use crate::shape::Shape;

/// [`crate::net::Op::Attention`]. Attention weights are not kept; the backward pass recomputes them for each sample.
pub(super) struct Attention {
    pub(super) shape: Shape,
}

impl Attention {
    /// Rows per task, by the number of multiplications per row.
    fn step(&self, m: usize) -> usize {
        rows_a_task(m, self.shape.pixels() * self.shape.len() / 8)
    }

    pub(super) fn forward(&self, m: usize, q: &[f32], k: &[f32], v: &[f32], y: &mut [f32]) {
        let (len, pixels) = (self.shape.len(), self.shape.pixels());
        let size = self.step(m) * len;
        let n = m * len;
        let tasks = q[..n].par_chunks(size).zip(k[..n].par_chunks(size)).zip(v[..n].par_chunks(size));
        tasks.zip(y[..n].par_chunks_mut(size)).for_each(|(((q, k), v), y)| {
            with_scratch(pixels * pixels, 0, |p, _| {
                let rows = q.chunks_exact(len).zip(k.chunks_exact(len)).zip(v.chunks_exact(len));
                for (((q, k), v), y) in rows.zip(y.chunks_exact_mut(len)) {
                    self.weights(q, k, p);
                    self.product(self.square(p), self.sample(v), y, false);
                }
            });
        });
    }

    #[allow(clippy::too_many_arguments, reason = "q, k, v, their gradients and dy")]
    pub(super) fn backward(
        &self,
        m: usize,
        (q, k, v): (&[f32], &[f32], &[f32]),
        dy: &[f32],
        [dq, dk, dv]: [Target<'_>; 3],
    ) {
        let (len, pixels) = (self.shape.len(), self.shape.pixels());
        let size = self.step(m) * len;
        let n = m * len;
        let tasks = q[..n].par_chunks(size).zip(k[..n].par_chunks(size)).zip(v[..n].par_chunks(size));
        let mut targets = parts(dq, n, size).zip(parts(dk, n, size)).zip(parts(dv, n, size));
        let mut targets: [_; TASKS] = std::array::from_fn(|_| targets.next());
        let tasks = tasks.zip(dy[..n].par_chunks(size)).zip(&mut targets);
        tasks.for_each(|((((q, k), v), dy), targets)| {
            let Some(((dq, dk), dv)) = targets.take() else { return };
            with_scratch(2 * pixels * pixels, 0, |scratch, _| {
                let (p, ds) = scratch.split_at_mut(pixels * pixels);
                let rows = q.chunks_exact(len).zip(k.chunks_exact(len)).zip(v.chunks_exact(len));
                let targets = parts(dq, size, len).zip(parts(dk, size, len)).zip(parts(dv, size, len));
                let rows = rows.zip(dy.chunks_exact(len)).zip(targets);
                for ((((q, k), v), dy), ((dq, dk), dv)) in rows {
                    self.weights(q, k, p);
                    if let Some((dv, accumulate)) = dv {
                        self.product(transposed(self.square(p)), self.sample(dy), dv, accumulate);
                    }
                    if dq.is_none() && dk.is_none() {
                        continue;
                    }
                    self.product(self.sample(dy), transposed(self.sample(v)), ds, false);
                    let back = SoftmaxBack { p, d: ds, n: pixels, scale: self.scale() };
                    pulp::Arch::new().dispatch(back);
                    if let Some((dq, accumulate)) = dq {
                        self.product(self.square(ds), self.sample(k), dq, accumulate);
                    }
                    if let Some((dk, accumulate)) = dk {
                        self.product(transposed(self.square(ds)), self.sample(q), dk, accumulate);
                    }
                }
            });
        });
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.shape.channels as f64).sqrt()) as f32
    }

    fn sample<'a>(&self, x: &'a [f32]) -> Matrix<'a> {
        let (rows, columns) = (self.shape.pixels(), self.shape.channels);
        Matrix { values: x, rows, columns, down: columns, right: 1 }
    }

    fn square<'a>(&self, x: &'a [f32]) -> Matrix<'a> {
        let n = self.shape.pixels();
        Matrix { values: x, rows: n, columns: n, down: n, right: 1 }
    }

    /// p <- softmax(q k^T / sqrt(channels)).
    fn weights(&self, q: &[f32], k: &[f32], p: &mut [f32]) {
        self.product(self.sample(q), transposed(self.sample(k)), p, false);
        let (n, scale) = (self.shape.pixels(), self.scale());
        pulp::Arch::new().dispatch(Softmax { values: p, n, scale });
    }

    /// out <- a b, or out <- out + a b.
    fn product(&self, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: bool) {
        assert!(a.fits() && b.fits() && a.columns == b.rows && a.rows * b.columns <= out.len());
        // SAFETY: the assertion bounds all three matrices.
        unsafe {
            gemm::gemm(
                a.rows,
                b.columns,
                a.columns,
                out.as_mut_ptr(),
                1,
                b.columns as isize,
                accumulate,
                a.values.as_ptr(),
                a.right as isize,
                a.down as isize,
                b.values.as_ptr(),
                b.right as isize,
                b.down as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    down: usize,
    right: usize,
}

impl Matrix<'_> {
    fn fits(&self) -> bool {
        (self.rows - 1) * self.down + (self.columns - 1) * self.right < self.values.len()
    }
}

fn transposed(a: Matrix<'_>) -> Matrix<'_> {
    Matrix { rows: a.columns, columns: a.rows, down: a.right, right: a.down, ..a }
}

const LANES: usize = 16;

/// Each row of n numbers x becomes softmax(scale x).
struct Softmax<'a> {
    values: &'a mut [f32],
    n: usize,
    scale: f32,
}

impl pulp::WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for row in self.values.chunks_exact_mut(self.n) {
            let mut most = [f32::NEG_INFINITY; LANES];
            let (blocks, tail) = row.as_chunks::<LANES>();
            for block in blocks {
                for i in 0..LANES {
                    most[i] = if block[i] > most[i] { block[i] } else { most[i] };
                }
            }
            // The maximum ignores NaN, and the exponential of NaN is NaN.
            let most = tail.iter().chain(&most).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            for v in row.iter_mut() {
                *v = exp32((*v - most) * self.scale);
            }
            let inverse = 1.0 / sum(row);
            for v in row.iter_mut() {
                *v *= inverse;
            }
        }
    }
}

/// Each row of n gradients d in weights p becomes that in what [`Softmax`] took: scale p (d - sum p d).
struct SoftmaxBack<'a> {
    p: &'a [f32],
    d: &'a mut [f32],
    n: usize,
    scale: f32,
}

impl pulp::WithSimd for SoftmaxBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (p, d) in self.p.chunks_exact(self.n).zip(self.d.chunks_exact_mut(self.n)) {
            for (d, p) in d.iter_mut().zip(p) {
                *d *= p * self.scale;
            }
            let total = sum(d);
            for (d, p) in d.iter_mut().zip(p) {
                *d -= p * total;
            }
        }
    }
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for i in 0..LANES {
            sums[i] += block[i];
        }
    }
    sums.iter().chain(tail).sum()
}
