//! What bounds the operations on the processor, for `mem2gen bench`: a matrix product, exponentials, memory.

use mem2gen::ops::Element;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// The two products of a score without what stands between them: queries times memories, and that times
/// memories again.
pub struct Products {
    between: Array2<f32>,
    out: Array2<f32>,
}

impl Products {
    /// For m queries and K memories in N dimensions.
    pub fn new(m: usize, k: usize, n: usize) -> Self {
        Self { between: Array2::zeros((m, k)), out: Array2::zeros((m, n)) }
    }

    /// Takes both, on all threads.
    pub fn run(&mut self, queries: ArrayView2<'_, f32>, memories: ArrayView2<'_, f32>) {
        product(self.between.view_mut(), queries, memories.t());
        product(self.out.view_mut(), self.between.view(), memories);
    }
}

fn product(mut out: ArrayViewMut2<'_, f32>, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) {
    let ((m, k), n) = (a.dim(), b.ncols());
    assert_eq!((out.dim(), b.nrows()), ((m, n), k));
    let (to, from, by) = (out.strides().to_vec(), a.strides(), b.strides());
    // SAFETY: the assert makes the three shapes those of one product, and pointers and strides come from
    // the arrays themselves; `out` is borrowed mutably and so overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            to[1],
            to[0],
            false,
            a.as_ptr(),
            from[1],
            from[0],
            b.as_ptr(),
            by[1],
            by[0],
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

/// So many exponentials as the softmax takes them, their sums included, of numbers that stay in cache.
pub fn exponentials<T: Element>(count: usize) {
    // A panel of queries and as many memories as are summed before anything else is done with them.
    let (width, rows) = (T::PANEL, 32);
    let (level, two_beta) = (vec![T::ZERO; width], vec![T::from_f64(-1.0); width]);
    (0..count.div_ceil(width * rows)).into_par_iter().for_each_init(
        // e^-v of a number from 0 to 1 is one again, so they can be used over and over.
        || (vec![T::from_f64(0.5); width * rows], vec![0.0; width]),
        |(values, sums), _| T::column_weights(values, &two_beta, &level, sums, None, true),
    );
}

/// Reads an array once and adds it up, on all threads.
pub fn sum(array: ArrayView2<'_, f32>) -> f32 {
    const LANES: usize = 64;
    let numbers = array.to_slice().unwrap_or_default();
    let part = |part: &[f32]| {
        let mut sums = [0.0f32; LANES];
        for lanes in part.chunks_exact(LANES) {
            for (s, v) in sums.iter_mut().zip(lanes) {
                *s += v;
            }
        }
        sums.iter().sum::<f32>()
    };
    numbers.par_chunks(1 << 20).map(part).sum()
}
