//! Bounds of the operations on the processor: a matrix product, exponentials and memory bandwidth.

use mem2gen::ops::Element;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// The two matrix products of a score without the softmax between them: queries times memories, and the result times
/// memories.
pub struct Products {
    between: Array2<f32>,
    out: Array2<f32>,
}

impl Products {
    /// For m queries and K memories in N dimensions.
    pub fn new(m: usize, k: usize, n: usize) -> Self {
        Self { between: Array2::zeros((m, k)), out: Array2::zeros((m, n)) }
    }

    /// Computes both products on all threads.
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

/// Computes `count` exponentials of values in cache as the softmax does, with their sums.
pub fn exponentials<T: Element>(count: usize) {
    // One panel of queries, and the number of memories that are summed at a time.
    let (width, rows) = (T::PANEL, 32);
    let (level, two_beta) = (vec![T::ZERO; width], vec![T::from_f64(-1.0); width]);
    (0..count.div_ceil(width * rows)).into_par_iter().for_each_init(
        // e^-v of a value in [0, 1] is in [0, 1], so the buffer is reused.
        || (vec![T::from_f64(0.5); width * rows], vec![0.0; width]),
        |(values, sums), _| T::column_weights(values, &two_beta, &level, sums, None, true),
    );
}

/// The sum of an array, read once on all threads.
pub fn sum(array: ArrayView2<'_, f32>) -> f32 {
    const LANES: usize = 64;
    let numbers = array.to_slice().expect("the array is in standard layout");
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
