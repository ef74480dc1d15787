//! Alg. 3 with any number of rows.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use ndarray_linalg::{EigValsh, UPLO};

use super::NAME;
use crate::process::Level;
use crate::progress::ProgressSink;
use crate::random::Places;
use crate::score::Score;
use crate::study::context::{Cells, piece};
use crate::study::error::StudyError;
use crate::study::lapack::without_threads;

/// Rows of S in a call of the score, and in a piece that is kept.
const BLOCK: usize = 64;

/// The singular values of S `[R, D]` with rows s(x + sigma u) - s(x) for standard normal u `[D]` (Alg. 3), descending,
/// min(R, D) of them, at the point x `[D]`.
///
/// They are the roots of the eigenvalues of S S^T or S^T S, whichever is smaller, in f64; values below 1e-8 of the largest
/// are lost to rounding. With `cells`, blocks of rows are kept there, so that a stopped call resumes. Reports a step of
/// progress for each row.
///
/// # Errors
/// Those of the score; [`StudyError::NotFinite`] for NaN or infinity in S; [`StudyError::Lapack`].
pub(super) fn spectrum(
    score: &dyn Score,
    level: Level,
    x: ArrayView1<'_, f64>,
    (rows, seed, sample): (usize, u64, usize),
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<f64>, StudyError> {
    let dim = x.len();
    let centre = score.score(x.insert_axis(Axis(0)), &[level])?;
    let mut matrix = Array2::<f64>::zeros((rows, dim));
    for start in (0..rows).step_by(BLOCK) {
        let range = start..rows.min(start + BLOCK);
        let steps = range.len() as u64;
        let make = || -> Result<Vec<f32>, StudyError> {
            let found = block(score, level, x, &centre, (range.clone(), seed, sample))?;
            progress.advance(steps);
            Ok(found.iter().map(|v| *v as f32).collect())
        };
        let id = format!("rows-{}-{}", range.start, range.end);
        let found: Vec<f32> = piece(cells, &id, steps, progress, make)?;
        let found = Array1::from(found).mapv(f64::from);
        // A kept piece of another length is of other settings, which have other pieces.
        let found = found.into_shape_with_order((range.len(), dim)).map_err(|_| StudyError::NotFinite {
            analysis: NAME,
            what: "the rows of sample",
            sample,
            value: f64::NAN,
        })?;
        matrix.slice_mut(s![range, ..]).assign(&found);
    }
    if let Some(value) = matrix.iter().find(|v| !v.is_finite()) {
        return Err(StudyError::NotFinite {
            analysis: NAME,
            what: "the score of sample",
            sample,
            value: *value,
        });
    }
    singular_values(matrix.view(), sample)
}

/// Rows of S.
fn block(
    score: &dyn Score,
    level: Level,
    x: ArrayView1<'_, f64>,
    centre: &Array2<f64>,
    (range, seed, sample): (Range<usize>, u64, usize),
) -> Result<Array2<f64>, StudyError> {
    let dim = x.len();
    let places = Places::new(seed, &format!("prompts directions/{sample}"));
    let mut at = Array2::<f64>::zeros((range.len(), dim));
    let mut normals = vec![0.0; dim];
    for (row, mut at) in range.zip(at.outer_iter_mut()) {
        places.normal(row as u64, &mut normals);
        at.assign(&x);
        at.iter_mut().zip(&normals).for_each(|(v, u)| *v += level.sigma() * f64::from(*u));
    }
    let levels = vec![level; at.nrows()];
    Ok(score.score(at.view(), &levels)? - centre)
}

/// The singular values of a matrix `[R, D]`, descending, min(R, D) of them, from its smaller Gram matrix.
fn singular_values(matrix: ArrayView2<'_, f64>, sample: usize) -> Result<Vec<f64>, StudyError> {
    let (rows, columns) = matrix.dim();
    without_threads();
    let gram = if rows <= columns { matrix.dot(&matrix.t()) } else { matrix.t().dot(&matrix) };
    let values = gram.eigvalsh(UPLO::Lower).map_err(|source| StudyError::Lapack {
        analysis: NAME,
        sample,
        rows,
        columns,
        source,
    })?;
    Ok(values.iter().rev().map(|v| v.max(0.0).sqrt()).collect())
}

/// Where the singular values of S lie when all values of the Jacobian in D dimensions are 1 / sigma^2, as at an isolated
/// memory: between |sqrt(D) - sqrt(R)| / sigma and (sqrt(D) + sqrt(R)) / sigma for R rows (Marchenko and Pastur).
///
/// ```
/// use mem2gen::study::prompts::band;
///
/// // 512 rows of the latents of Stable Diffusion at t = 15, where sigma is 0.1186.
/// let [low, high] = band(512, 16_384, 0.1186);
/// assert!((low - 888.5).abs() < 0.1 && (high - 1270.0).abs() < 0.1);
/// ```
pub fn band(rows: usize, dim: usize, sigma: f64) -> [f64; 2] {
    let (rows, dim) = ((rows as f64).sqrt(), (dim as f64).sqrt());
    [(dim - rows).abs() / sigma, (dim + rows) / sigma]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Vp};
    use crate::progress::Silent;
    use crate::random::Stream;
    use crate::score::Gaussian;
    use ndarray_linalg::SVD;

    #[test]
    fn the_gram_matrix_gives_lapacks_singular_values() {
        let mut stream = Stream::new(1, "matrix");
        for (rows, columns) in [(7, 30), (30, 7), (12, 12), (2, 1)] {
            let matrix = Array2::from_shape_fn((rows, columns), |_| stream.normal());
            let found = singular_values(matrix.view(), 0).unwrap();
            let (_, due, _) = matrix.svd(false, false).unwrap();
            assert_eq!(found.len(), rows.min(columns));
            for (found, due) in found.iter().zip(&due) {
                assert!((found - due).abs() < 1e-7 * due.max(1.0), "{found} {due}");
            }
        }
    }

    #[test]
    fn an_isolated_memory_fills_the_band_and_a_flat_direction_is_near_zero() {
        let level = Vp::default().level(15.0).unwrap();
        let (dim, rows) = (400, 64);
        let point = Gaussian::new(Array1::zeros(dim), Array1::zeros(dim)).unwrap();
        let x = Array1::from_elem(dim, 0.3);
        let values = spectrum(&point, level, x.view(), (rows, 1, 0), None, &Silent).unwrap();
        let [low, high] = band(rows, dim, level.sigma());
        let (least, most) = (values[rows - 1], values[0]);
        // The ends fluctuate by D^(-2/3).
        assert!(
            least > 0.95 * low && least < 1.1 * low && most < 1.05 * high && most > 0.9 * high,
            "{least} {most}"
        );
        // Of 10 dimensions with data of variance 100 hardly anything is left: 10 values of 40 rows.
        let spread = Array1::from_shape_fn(20, |i| if i < 10 { 100.0 } else { 0.0 });
        let flat = Gaussian::new(Array1::zeros(20), spread).unwrap();
        let values = spectrum(&flat, level, Array1::zeros(20).view(), (40, 1, 0), None, &Silent).unwrap();
        assert_eq!(values.len(), 20);
        assert!(values[10] < 1e-3 * values[9], "{values:?}");
    }

    #[test]
    fn kept_rows_give_the_same_values() {
        let folder = tempfile::tempdir().unwrap();
        let cells = Cells::at(folder.path().join("p"));
        let level = Vp::default().level(15.0).unwrap();
        let score = Gaussian::new(Array1::zeros(30), Array1::from_elem(30, 0.02)).unwrap();
        let x = Array1::from_elem(30, 0.1);
        let run = |cells| spectrum(&score, level, x.view(), (150, 5, 2), cells, &Silent).unwrap();
        let first = run(Some(&cells));
        let names: Vec<_> =
            std::fs::read_dir(cells.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3);
        std::fs::remove_file(cells.folder().join("rows-64-128.json")).unwrap();
        assert_eq!((run(Some(&cells)), run(None)), (first.clone(), first));
    }
}
