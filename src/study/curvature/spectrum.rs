//! Curvature of log p_t at images: singular values of the score's Jacobian J (Algs. 2 and 3), and of the exact J where it
//! is affordable (Eqs. 35 and 36).
//!
//! A row of the matrix S is the change of the score along a direction u of length step sigma_t at sqrt(alpha_bar_t) x. If
//! the score is linear over this length, S = sigma_t U J^T. With E[U^T U] = c I the singular values of S are
//! sigma_t sqrt(c) times those of J, and this factor is divided out. Along flat directions of log p_t the values are near
//! 0, across the data they are 1/sigma_t^2. At an isolated memory all are.
//!
//! Stacks of whole orthonormal bases have U^T U = c I exactly. Gaussian directions and directions by channel have it on
//! average: with R rows, a J with all values equal to v gives values from v (1 - sqrt(D/R)) to v (1 + sqrt(D/R)), by the
//! law of Marchenko and Pastur.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use ndarray_linalg::{EigValsh, JobSvd, SVDDCInto, UPLO};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::settings::refused;
use super::{CurvatureParams, CurvatureSettings, NAME, Variant};
use crate::Error;
use crate::ops::OpError;
use crate::process::{Level, Process};
use crate::progress::{ProgressSink, Reporter};
use crate::random::Places;
use crate::score::{Score, ScoreError, first_bad};
use crate::shape::Shape;
use crate::study::context::{Cells, piece};
use crate::study::error::StudyError;
use crate::study::lapack::without_threads;
use crate::study::subject::{Images, Subject};

/// Number of values in a call of the score: large enough to fill a network, small enough for the allocator to reuse the
/// memory.
const CALL: usize = 1 << 20;

/// The points at which the Jacobian is taken: sqrt(alpha_bar_t) times clean data.
#[derive(Debug, Clone, Copy)]
pub struct Points<'a> {
    /// Clean data, `[m, D]`.
    pub rows: ArrayView2<'a, f64>,
    /// Rows of the data among the samples, or in the training set, `[m]`. The directions at a point follow from it, so
    /// they don't depend on the other points.
    pub samples: &'a [usize],
    /// Shape of one datum.
    pub shape: Shape,
}

/// The Jacobian at one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Row of the point among the samples, or in the training set.
    pub sample: usize,
    /// ||s||, the length of the score; 0 in the stable set of Eq. 35.
    pub score: f64,
    /// Estimated singular values, `[D]`, descending, in the inverse square of the data's units unless they are raw.
    pub values: Vec<f64>,
    /// The exact Jacobian's spectrum; `None` unless the settings ask for it.
    pub exact: Option<Exact>,
}

/// The spectrum of the exact Jacobian.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exact {
    /// Singular values, `[D]`, descending.
    pub values: Vec<f64>,
    /// ||J - J^T|| / ||J|| in the Frobenius norm: 0 for a gradient, and for J = 0.
    pub asymmetry: f64,
    /// Largest eigenvalue of (J + J^T) / 2: at most 0 when p_t is stable in the sense of Eq. 35.
    pub largest: f64,
}

/// The spectra at images of a subject (Algs. 2 and 3). With `cells`, finished pieces are read from there and new ones
/// are kept there; all calls with these pieces must have the same subject, images and settings.
///
/// # Errors
/// Those of [`curvature`].
pub fn measure(
    subject: &Subject,
    images: &Images,
    params: &CurvatureParams,
    cells: Option<&Cells>,
    reporter: &dyn Reporter,
) -> Result<Vec<Spectrum>, Error> {
    let rows = images.rows.mapv(f64::from);
    let points = Points { rows: rows.view(), samples: &images.ids, shape: subject.shape() };
    let progress = reporter.progress("spectra", images.len() as u64);
    let cells = cells.map(|cells| cells.within(images.group.name()));
    Ok(curvature(subject.score(), subject.vp(), &points, params, cells.as_ref(), &*progress)?)
}

/// The spectra at `points`, in their order, under any score. With `cells`, finished pieces are read from there and new
/// ones are kept there; all calls with these pieces must have the same score, settings and points. Reports one step of
/// progress for each point.
///
/// # Errors
/// [`StudyError::Op`] for arguments whose shapes don't fit; [`StudyError::NotFinite`] for NaN or infinity in the data or
/// the score, with the row of the sample; [`StudyError::Process`] for a time that the process does not have or that is
/// clean; [`StudyError::Lapack`].
pub fn curvature(
    score: &dyn Score,
    process: &dyn Process,
    points: &Points<'_>,
    params: &CurvatureParams,
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<Spectrum>, StudyError> {
    Estimator::new(score, process, points, params)?.run(cells, progress)
}

/// The estimate of the Jacobian's spectrum, as all pieces share it.
struct Estimator<'a, 'p> {
    score: &'a dyn Score,
    points: Points<'p>,
    params: &'a CurvatureParams,
    level: Level,
    dim: usize,
    /// Number of rows of S.
    per_point: usize,
    /// Number of values in a call of the score.
    call: usize,
}

impl<'a, 'p> Estimator<'a, 'p> {
    fn new(
        score: &'a dyn Score,
        process: &dyn Process,
        points: &Points<'p>,
        params: &'a CurvatureParams,
    ) -> Result<Self, StudyError> {
        let (dim, shape, settings) = (score.dim(), points.shape, params.settings());
        if points.rows.ncols() != dim || points.samples.len() != points.rows.nrows() {
            let expected = format!("[{}, {dim}]", points.samples.len());
            let found = points.rows.shape().to_vec();
            return Err(OpError::Shape { operation: NAME, argument: "points", found, expected }.into());
        }
        if shape.len() != dim {
            let found = vec![shape.height, shape.width, shape.channels];
            let expected = format!("{dim} values");
            return Err(OpError::Shape { operation: NAME, argument: "shape", found, expected }.into());
        }
        if settings.per_channel && shape.height != shape.width {
            let need = format!("false for images of {} x {}, or square images", shape.height, shape.width);
            return Err(refused("per_channel", true, need));
        }
        if settings.drop_top >= dim {
            let need = format!("fewer than the {dim} values of a spectrum");
            return Err(refused("drop_top", settings.drop_top, need));
        }
        if let Some((row, _, value)) = first_bad(&points.rows) {
            return Err(not_finite("the sample", points.samples[row], value));
        }
        let level = process.level(settings.t)?;
        without_threads();
        Ok(Self { score, points: *points, params, level, dim, per_point: params.rows(dim), call: CALL })
    }

    fn run(&self, cells: Option<&Cells>, progress: &dyn ProgressSink) -> Result<Vec<Spectrum>, StudyError> {
        let count = self.points.rows.nrows();
        let each = (self.call / self.dim / (2 * self.per_point)).max(1);
        let mut out = Vec::with_capacity(count);
        for start in (0..count).step_by(each) {
            let range = start..count.min(start + each);
            let steps = range.len() as u64;
            let id = format!("points-{}-{}", range.start, range.end);
            let make = || self.spectra(range).inspect(|_| progress.advance(steps));
            out.extend(piece(cells, &id, steps, progress, make)?);
        }
        Ok(out)
    }

    fn settings(&self) -> &CurvatureSettings {
        self.params.settings()
    }

    fn spectra(&self, range: Range<usize>) -> Result<Vec<Spectrum>, StudyError> {
        let centres = self.points.rows.slice(s![range.clone(), ..]).mapv(|v| self.level.alpha() * v);
        let samples = &self.points.samples[range];
        let scores = self.scores(centres.view(), |row| samples[row])?;
        let matrices = self.matrices(centres.view(), scores.view(), samples)?;
        let jacobians = self.settings().exact.then(|| self.jacobians(centres.view(), samples)).transpose()?;
        let factor =
            if self.settings().raw { 1.0 } else { self.params.factor(self.level, self.points.shape) };
        samples
            .par_iter()
            .enumerate()
            .map(|(i, &sample)| {
                let block = |all: &Array2<f64>, rows: usize| {
                    let part = all.slice(s![i * rows..(i + 1) * rows, ..]);
                    // LAPACK may not return when a value is NaN.
                    if let Some(value) = part.iter().find(|v| !v.is_finite()) {
                        return Err(not_finite(SCORE, sample, *value));
                    }
                    // LAPACK's wrapper refuses the strides of a slice of one row and column.
                    let mut own = Array2::zeros(part.dim());
                    own.assign(&part);
                    Ok(own)
                };
                let values = singular_values(block(&matrices, self.per_point)?, sample)?;
                let exact = jacobians.as_ref().map(|all| exact(block(all, self.dim)?, sample)).transpose()?;
                Ok(Spectrum {
                    sample,
                    score: block(&scores, 1)?.iter().map(|v| v * v).sum::<f64>().sqrt(),
                    values: values.iter().map(|v| v / factor).collect(),
                    exact,
                })
            })
            .collect()
    }

    /// The score at rows of `x`; row i belongs to the sample `sample(i)`.
    fn scores(
        &self,
        x: ArrayView2<'_, f64>,
        sample: impl Fn(usize) -> usize,
    ) -> Result<Array2<f64>, StudyError> {
        let scores = self.score.score(x, &vec![self.level; x.nrows()]);
        scores.map_err(|e| with_sample(e, sample))
    }

    /// S of each point, stacked.
    fn matrices(
        &self,
        centres: ArrayView2<'_, f64>,
        scores: ArrayView2<'_, f64>,
        samples: &[usize],
    ) -> Result<Array2<f64>, StudyError> {
        let (each, settings) = (self.per_point, self.settings());
        let length = settings.step * self.level.sigma();
        // The directions, which the score along them replaces.
        let mut matrix = Array2::zeros((samples.len() * each, self.dim));
        matrix
            .axis_chunks_iter_mut(Axis(0), each)
            .into_par_iter()
            .zip(samples)
            .for_each(|(to, &sample)| self.directions(sample, to));
        let sides = if settings.variant == Variant::Symmetrized { 2 } else { 1 };
        let room = (self.call / self.dim / sides).max(1);
        for start in (0..matrix.nrows()).step_by(room) {
            let end = matrix.nrows().min(start + room);
            let rows = end - start;
            let point = |row: usize| (start + row % rows) / each;
            let mut x = Array2::zeros((sides * rows, self.dim));
            each_row(x.view_mut(), |row, mut x| {
                let length = if row < rows { length } else { -length };
                x.assign(&centres.row(point(row)));
                x.scaled_add(length, &matrix.row(start + row % rows));
            });
            let s = self.scores(x.view(), |row| samples[point(row)])?;
            each_row(matrix.slice_mut(s![start..end, ..]), |row, mut to| {
                to.assign(&s.row(row));
                if settings.variant == Variant::Symmetrized {
                    to -= &s.row(rows + row);
                    to *= 0.5;
                } else if !settings.raw {
                    to -= &scores.row(point(row));
                }
            });
        }
        Ok(matrix)
    }

    /// Fills `to` `[R, D]` with directions.
    fn directions(&self, sample: usize, mut to: ArrayViewMut2<'_, f64>) {
        let (settings, shape) = (self.settings(), self.points.shape);
        let basis_normals = |n: usize| n * (n + 1) / 2;
        let count = match settings.variant {
            Variant::Gaussian => to.len(),
            _ if settings.per_channel => to.nrows() * shape.channels * basis_normals(shape.height),
            _ => to.nrows().div_ceil(self.dim) * basis_normals(self.dim),
        };
        let mut drawn = vec![0.0; count];
        Places::new(settings.seed, NAME).normal(sample as u64, &mut drawn);
        let mut normals = drawn.into_iter().map(f64::from);
        if settings.variant == Variant::Gaussian {
            to.iter_mut().zip(normals).for_each(|(v, normal)| *v = normal);
        } else if settings.per_channel {
            for mut u in to.outer_iter_mut() {
                for channel in 0..shape.channels {
                    let block = orthogonal(&mut normals, shape.height);
                    let mut pixels = u.slice_mut(s![channel..;shape.channels]);
                    pixels.iter_mut().zip(&block).for_each(|(v, b)| *v = *b);
                }
            }
        } else {
            for mut block in to.axis_chunks_iter_mut(Axis(0), self.dim) {
                let basis = orthogonal(&mut normals, self.dim);
                let rows = block.nrows();
                block.assign(&basis.slice(s![..rows, ..]));
            }
        }
    }

    /// J at each row of `centres`, stacked: row k of J is J^T e_k.
    fn jacobians(&self, centres: ArrayView2<'_, f64>, samples: &[usize]) -> Result<Array2<f64>, StudyError> {
        let n = self.dim;
        let shape = (samples.len() * n, n);
        let (mut x, mut v) = (Array2::zeros(shape), Array2::zeros(shape));
        each_row(x.view_mut(), |row, mut x| x.assign(&centres.row(row / n)));
        each_row(v.view_mut(), |row, mut v| v[row % n] = 1.0);
        let products = self.score.vjp(x.view(), &vec![self.level; shape.0], v.view());
        products.map_err(|e| with_sample(e, |row| samples[row / n]))
    }
}

/// Calls `work` with the index of each row and the row, on all threads.
fn each_row(mut rows: ArrayViewMut2<'_, f64>, work: impl Fn(usize, ArrayViewMut1<'_, f64>) + Sync) {
    // Handing fewer rows to a thread takes longer than writing them.
    const LEAST: usize = 256;
    let each = rows.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(LEAST);
    each.enumerate().for_each(|(index, row)| work(index, row));
}

/// A uniformly distributed orthogonal matrix (Stewart, 1980). The matrix of size i + 1 is the one of size i, extended by
/// a 1 on the diagonal, times the reflection that takes the first axis to a uniformly distributed direction. This takes
/// n (n + 1) / 2 normals and half the work of a QR decomposition of a Gaussian matrix.
fn orthogonal(normals: &mut impl Iterator<Item = f64>, n: usize) -> Array2<f64> {
    // Row-major.
    let mut q: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i % (n + 1) == 0))).collect();
    let (mut normal, mut along) = (Vec::with_capacity(n), vec![0.0; n]);
    let square = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
    for size in 1..=n {
        let first = n - size;
        normal.clear();
        normal.extend(normals.by_ref().take(size));
        // Of the two reflections, to the direction or to its negative, the longer one loses no digits.
        let away = square(&normal).sqrt().copysign(normal[0]);
        normal[0] += away;
        let (scale, sign) = (2.0 / square(&normal), away.signum());
        let along = &mut along[..size];
        along.fill(0.0);
        for (row, v) in q[first * n..].chunks_exact(n).zip(&normal) {
            row[first..].iter().zip(along.iter_mut()).for_each(|(q, a)| *a += v * q);
        }
        for (row, v) in q[first * n..].chunks_exact_mut(n).zip(&normal) {
            let part = sign * scale * v;
            row[first..].iter_mut().zip(along.iter()).for_each(|(q, a)| *q = part * a - sign * *q);
        }
    }
    Array2::from_shape_fn((n, n), |(row, column)| q[row * n + column])
}

/// The error of a score, with the sample that the row belongs to.
fn with_sample(e: ScoreError, sample: impl Fn(usize) -> usize) -> StudyError {
    match e {
        ScoreError::NotFinite { row, value, .. } => not_finite(SCORE, sample(row), value),
        e => e.into(),
    }
}

/// The array that holds NaN or infinity, in errors.
const SCORE: &str = "the score about the sample";

fn not_finite(what: &'static str, sample: usize, value: f64) -> StudyError {
    StudyError::NotFinite { analysis: NAME, what, sample, value }
}

fn lapack(
    sample: usize,
    (rows, columns): (usize, usize),
) -> impl Fn(ndarray_linalg::error::LinalgError) -> StudyError {
    move |source| StudyError::Lapack { analysis: NAME, sample, rows, columns, source }
}

/// Singular values of a matrix of finite values, descending.
fn singular_values(matrix: Array2<f64>, sample: usize) -> Result<Vec<f64>, StudyError> {
    let size = matrix.dim();
    let (_, values, _) = matrix.svddc_into(JobSvd::None).map_err(lapack(sample, size))?;
    Ok(values.to_vec())
}

fn exact(jacobian: Array2<f64>, sample: usize) -> Result<Exact, StudyError> {
    let norm = |matrix: &Array2<f64>| matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
    let (whole, skew) = (norm(&jacobian), norm(&(&jacobian - &jacobian.t())));
    let symmetric = (&jacobian + &jacobian.t()) * 0.5;
    let eigenvalues = symmetric.eigvalsh(UPLO::Lower).map_err(lapack(sample, jacobian.dim()))?;
    Ok(Exact {
        asymmetry: if whole == 0.0 { 0.0 } else { skew / whole },
        largest: eigenvalues.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        values: singular_values(jacobian, sample)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Arch, MlpSettings, Weights};
    use crate::ops::Memories;
    use crate::process::{Prediction, Vp};
    use crate::progress::Silent;
    use crate::random::Stream;
    use crate::score::{Empirical, Gaussian, Network};
    use crate::study::curvature::dimension;
    use ndarray::Array1;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// s(x) = A x, which is the gradient of nothing unless A is symmetric.
    struct Linear {
        matrix: Array2<f64>,
        calls: AtomicUsize,
        /// The call that gives NaN.
        broken: usize,
    }

    impl Linear {
        fn new(matrix: Array2<f64>) -> Self {
            Self { matrix, calls: AtomicUsize::new(0), broken: usize::MAX }
        }

        fn give(&self, mut rows: Array2<f64>) -> Result<Array2<f64>, ScoreError> {
            if self.calls.fetch_add(1, Ordering::Relaxed) == self.broken {
                let last = rows.nrows() - 1;
                rows[[last, 0]] = f64::NAN;
            }
            Ok(rows)
        }
    }

    impl Score for Linear {
        fn dim(&self) -> usize {
            self.matrix.nrows()
        }

        fn score(&self, x: ArrayView2<'_, f64>, _: &[Level]) -> Result<Array2<f64>, ScoreError> {
            self.give(x.dot(&self.matrix.t()))
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            _: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            self.give(v.dot(&self.matrix))
        }
    }

    fn normals(rows: usize, columns: usize, name: &str) -> Array2<f64> {
        let mut s = Stream::new(7, name);
        Array2::from_shape_fn((rows, columns), |_| s.normal())
    }

    fn settings() -> CurvatureSettings {
        CurvatureSettings { drop_top: 0, ..CurvatureSettings::default() }
    }

    fn spectra(score: &dyn Score, x: &Array2<f64>, settings: CurvatureSettings) -> Vec<Spectrum> {
        let samples: Vec<usize> = (0..x.nrows()).collect();
        let shape = Shape::vector(x.ncols());
        let points = Points { rows: x.view(), samples: &samples, shape };
        let params = settings.check().unwrap();
        curvature(score, &Vp::default(), &points, &params, None, &Silent).unwrap()
    }

    /// The largest difference, relative to the largest of `expected`.
    fn off(values: &[f64], expected: &[f64]) -> f64 {
        assert_eq!(values.len(), expected.len());
        let top = expected.iter().copied().fold(0.0, f64::max);
        values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / top
    }

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    #[test]
    fn at_an_isolated_memory_all_values_are_the_inverse_variance() {
        for (dim, t, rows, step) in
            [(1, 15.0, 4.0, 1.0), (3, 2.0, 1.0, 0.5), (10, 100.0, 3.0, 1.0), (49, 15.0, 4.0, 2.0)]
        {
            let x = normals(1, dim, "memory") * 0.4;
            let score = Empirical::new(Memories::new(x.clone()).unwrap());
            let square = Vp::default().level(t).unwrap().sigma().powi(2);
            for variant in [Variant::Symmetrized, Variant::Plain] {
                let one = CurvatureSettings { t, rows, step, variant, exact: true, ..settings() };
                let got = &spectra(&score, &x, one)[0];
                let expected = vec![1.0 / square; dim];
                // Positions are rounded at 1e-16, over a step of about 0.01.
                assert!(off(&got.values, &expected) < 1e-12, "{dim} {variant:?}");
                let exact = got.exact.as_ref().unwrap();
                assert!(off(&exact.values, &expected) < 1e-13);
                assert!((exact.largest * square + 1.0).abs() < 1e-13 && exact.asymmetry == 0.0);
                assert!(got.score * square < 1e-13);
                assert_eq!(dimension(&got.values, 0).0, 0);
            }
        }
    }

    #[test]
    fn raw_values_agree_with_public_code() {
        let x = normals(1, 8, "memory");
        let score = Empirical::new(Memories::new(x.clone()).unwrap());
        for (t, expected) in [(15.0, 31.7), (2.0, 105.45)] {
            let got = spectra(&score, &x, CurvatureSettings { t, raw: true, ..settings() });
            // sqrt(4) / sigma_t.
            assert!(got[0].values.iter().all(|v| (v - expected).abs() < 0.05), "{:?}", got[0].values);
        }
        // One-sided rows also contain the score itself, which changes at most two values: one becomes much larger, one smaller.
        let far = &x + 1.0;
        let plain = CurvatureSettings { variant: Variant::Plain, ..settings() };
        let centred = &spectra(&score, &far, plain.clone())[0].values;
        let raw = &spectra(&score, &far, CurvatureSettings { raw: true, ..plain })[0].values;
        let level = Vp::default().level(15.0).unwrap();
        let factor = settings().check().unwrap().factor(level, Shape::vector(8));
        let rest: Vec<f64> = centred[1..7].iter().map(|v| v * factor).collect();
        assert!(off(&raw[1..7], &rest) < 1e-9, "{raw:?} {rest:?}");
        assert!(raw[0] > 3.0 * factor * centred[0] && raw[7] < factor * centred[7]);
    }

    #[test]
    fn a_gaussian_has_the_inverse_of_its_noisy_variances() {
        for (dim, t, rows) in [(2, 15.0, 1.0), (5, 400.0, 4.0), (30, 60.0, 2.0)] {
            let mut s = Stream::new(3, "variances");
            let variance: Array1<f64> = (0..dim).map(|_| s.uniform()).collect();
            let mean: Array1<f64> = (0..dim).map(|_| s.normal()).collect();
            let score = Gaussian::new(mean, variance.clone()).unwrap();
            let level = Vp::default().level(t).unwrap();
            let (a, b) = (level.alpha().powi(2), level.sigma().powi(2));
            let expected = sorted(variance.iter().map(|v| 1.0 / (a * v + b)).collect());
            let x = normals(2, dim, "points");
            for variant in [Variant::Symmetrized, Variant::Plain] {
                for got in
                    spectra(&score, &x, CurvatureSettings { t, rows, variant, exact: true, ..settings() })
                {
                    assert!(off(&got.values, &expected) < 1e-11, "{dim} {variant:?}");
                    assert!(off(&got.exact.unwrap().values, &expected) < 1e-13);
                }
            }
            // Many Gaussian directions come to the same: values are off by sqrt(D/R) at most, and a bit.
            let many = CurvatureSettings { t, rows: 400.0, variant: Variant::Gaussian, ..settings() };
            for got in spectra(&score, &x, many) {
                assert!(off(&got.values, &expected) < 0.075, "{dim}");
            }
        }
    }

    #[test]
    fn the_jacobian_is_that_of_the_score_and_no_transpose_of_it() {
        let matrix = normals(6, 6, "asymmetric");
        let (_, values, _) = matrix.clone().svddc_into(JobSvd::None).unwrap();
        let norm = |m: &Array2<f64>| m.mapv(|v| v * v).sum().sqrt();
        let asymmetry = norm(&(&matrix - &matrix.t())) / norm(&matrix);
        let symmetric = (&matrix + &matrix.t()) * 0.5;
        let top = symmetric.eigvalsh(UPLO::Lower).unwrap()[5];
        let score = Linear::new(matrix.clone());
        let x = normals(3, 6, "points");
        let level = Vp::default().level(15.0).unwrap();
        for got in spectra(&score, &x, CurvatureSettings { exact: true, ..settings() }) {
            assert!(off(&got.values, values.as_slice().unwrap()) < 1e-12);
            let exact = got.exact.unwrap();
            assert!(off(&exact.values, values.as_slice().unwrap()) < 1e-13);
            assert!((exact.asymmetry - asymmetry).abs() < 1e-13);
            assert!((exact.largest - top).abs() < 1e-12);
            let length =
                norm(&(x.slice(s![got.sample..got.sample + 1, ..]).dot(&matrix.t()) * level.alpha()));
            assert!((got.score - length).abs() < 1e-12);
        }
        // Row k of J is the slope of s_k.
        let params = settings().check().unwrap();
        let points = Points { rows: x.view(), samples: &[0, 1, 2], shape: Shape::vector(6) };
        let estimator = Estimator::new(&score, &Vp::default(), &points, &params).unwrap();
        assert!(
            off_all(
                &estimator.jacobians(x.view(), &[0, 1, 2]).unwrap().slice(s![6..12, ..]).to_owned(),
                &matrix
            ) == 0.0
        );
    }

    fn off_all(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
        (a - b).iter().fold(0.0, |most, v| v.abs().max(most))
    }

    #[test]
    fn between_two_memories_one_direction_is_flat_and_then_unstable() {
        for (dim, t) in [(2, 300.0), (7, 150.0), (7, 60.0)] {
            let half = Array2::from_shape_fn((1, dim), |(_, k)| if k == 0 { 0.3 } else { 0.0 });
            let rows = ndarray::concatenate![Axis(0), half, -&half];
            let score = Empirical::new(Memories::new(rows.clone()).unwrap());
            let level = Vp::default().level(t).unwrap();
            let (a, b) = (level.alpha(), level.sigma().powi(2));
            // J = -I/sigma^2 + alpha^2 Cov_w / sigma^4, Cov_w being 0.09 along the line.
            let along = (a * 0.3 / b).powi(2) - 1.0 / b;
            let mut expected = vec![1.0 / b; dim - 1];
            expected.push(along.abs());
            let x = Array2::zeros((1, dim));
            let small = CurvatureSettings { t, step: 1e-3, exact: true, ..settings() };
            let got = &spectra(&score, &x, small)[0];
            let exact = got.exact.as_ref().unwrap();
            let expected = sorted(expected);
            assert!(off(&exact.values, &expected) < 1e-12);
            // The third derivative over the square of the step; up to (alpha 0.3 / sigma)^4.
            assert!(off(&got.values, &expected) < 1e-3, "{t}");
            assert!((exact.largest - along.max(-1.0 / b)).abs() < 1e-11 / b);
            assert_eq!(exact.largest > 0.0, t < 150.0, "{t}: {}", exact.largest);
        }
    }

    #[test]
    fn memories_on_a_plane_have_its_dimension() {
        let (dim, t) = (12, 40.0);
        let rows = normals(2000, 2, "plane").dot(&normals(2, dim, "axes")) * 0.1;
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let level = Vp::default().level(t).unwrap();
        let (a, b) = (level.alpha(), level.sigma().powi(2));
        let x = Array2::from_shape_fn((2, dim), |(i, k)| 0.3 * rows[[i, k]]);
        let one = |step| CurvatureSettings { t, step, exact: true, ..settings() };
        for (got, x) in spectra(&score, &x, one(1e-3)).iter().zip(x.outer_iter()) {
            // The closed form, by plain sums.
            let logits: Vec<f64> =
                rows.outer_iter().map(|r| -(&x - &r).mapv(|d| (a * d).powi(2)).sum() / (2.0 * b)).collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let w: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
            let sum: f64 = w.iter().sum();
            let m = rows.outer_iter().zip(&w).fold(Array1::<f64>::zeros(dim), |m, (r, w)| m + &r * (w / sum));
            let mut jacobian = Array2::<f64>::eye(dim) * (-1.0 / b);
            for (r, w) in rows.outer_iter().zip(&w) {
                let d = (&r - &m).insert_axis(Axis(1));
                jacobian += &(d.dot(&d.t()) * (w / sum * (a / b).powi(2)));
            }
            let expected = singular_values(jacobian, 0).unwrap();
            let exact = got.exact.as_ref().unwrap();
            assert!(off(&exact.values, &expected) < 1e-12);
            assert!(off(&got.values, &expected) < 1e-5);
            for values in [&got.values, &exact.values] {
                let (flat, gap) = dimension(values, 5);
                assert!(flat == 2 && gap * b > 0.5, "{flat} {}", gap * b);
            }
        }
        // As far as the paper goes the score is nearly linear here.
        for got in spectra(&score, &x, one(1.0)) {
            assert!(off(&got.values, &got.exact.unwrap().values) < 0.05);
            assert_eq!(dimension(&got.values, 5).0, 2);
        }
    }

    #[test]
    fn directions_are_orthonormal_and_evenly_distributed() {
        let score = Linear::new(Array2::eye(12));
        let x = Array2::zeros((1, 12));
        let shape = Shape::image(2, 2, 3);
        let points = Points { rows: x.view(), samples: &[9], shape };
        let draw = |settings: CurvatureSettings| {
            let params = settings.check().unwrap();
            let estimator = Estimator::new(&score, &Vp::default(), &points, &params).unwrap();
            let mut u = Array2::zeros((estimator.per_point, 12));
            estimator.directions(9, u.view_mut());
            u
        };
        let u = draw(CurvatureSettings { rows: 3.0, ..settings() });
        assert!(off_all(&u.t().dot(&u), &(Array2::eye(12) * 3.0)) < 1e-13);
        assert_ne!(u.slice(s![..12, ..]), u.slice(s![12..24, ..]));
        let u = draw(CurvatureSettings { rows: 1000.0, per_channel: true, ..settings() });
        for u in u.outer_iter() {
            for channel in 0..3 {
                let q = Array2::from_shape_fn((2, 2), |(r, c)| u[(r * 2 + c) * 3 + channel]);
                assert!(off_all(&q.dot(&q.t()), &Array2::eye(2)) < 1e-14);
            }
        }
        // 12,000 rows of entries with variance 1/2: means have a standard error of 0.0065, second moments one of at
        // most as much.
        assert!(u.mean_axis(Axis(0)).unwrap().iter().all(|v| v.abs() < 0.035));
        assert!(off_all(&(u.t().dot(&u) / 12_000.0), &(Array2::eye(12) * 0.5)) < 0.035);
        // Entries of orthogonal matrices of size n have mean fourth powers of 3 / (n (n + 2)): 3/8.
        let fourth = u.mapv(|v| v.powi(4)).sum() / u.len() as f64;
        assert!((fourth - 0.375).abs() < 0.005, "{fourth}");
    }

    #[test]
    fn every_way_of_drawing_is_normalised() {
        let shape = Shape::image(4, 4, 3);
        let memory = normals(1, 48, "memory") * 0.3;
        let score = Empirical::new(Memories::new(memory.clone()).unwrap());
        let points = Points { rows: memory.view(), samples: &[0], shape };
        for (t, rows) in [(15.0, 4.0), (200.0, 2.5)] {
            let square = Vp::default().level(t).unwrap().sigma().powi(2);
            for (variant, per_channel, even) in [
                (Variant::Symmetrized, false, true),
                (Variant::Plain, false, true),
                (Variant::Symmetrized, true, true),
                (Variant::Plain, true, true),
                (Variant::Gaussian, false, false),
            ] {
                let params =
                    CurvatureSettings { t, rows, variant, per_channel, ..settings() }.check().unwrap();
                let got = curvature(&score, &Vp::default(), &points, &params, None, &Silent).unwrap();
                let relative: Vec<f64> = got[0].values.iter().map(|v| v * square).collect();
                let power = relative.iter().map(|v| v * v).sum::<f64>() / 48.0;
                // Lengths of all but Gaussian directions are fixed, and with them the sum of squares; theirs has a
                // relative deviation of sqrt(2 / (R D)), 0.019 at most.
                let tolerance = if even { 1e-10 } else { 0.08 };
                assert!((power - 1.0).abs() < tolerance, "{variant:?} {per_channel} {power}");
                // Marchenko and Pastur's edges, and a bit for 48 dimensions.
                let spread = 1.15 * (1.0 / rows).sqrt();
                assert!(relative.iter().all(|v| (v - 1.0).abs() < spread), "{variant:?} {relative:?}");
                if per_channel || variant == Variant::Gaussian {
                    assert!(relative[0] > 1.2 && relative[47] < 0.8);
                }
            }
        }
    }

    fn network(batch: usize) -> Network {
        let shape = Shape::image(3, 3, 1);
        let arch = Arch::Mlp(MlpSettings { width: 16, blocks: 1, ..MlpSettings::default() });
        let mut weights = Weights::init(arch.graph(shape).unwrap(), 5);
        let mut stream = Stream::new(5, "weights");
        weights.values_mut().iter_mut().for_each(|v| *v += 0.2 * stream.normal() as f32);
        Network::new(weights, Prediction::X0, batch).unwrap()
    }

    #[test]
    fn a_spectrum_depends_only_on_its_point() {
        let x = normals(7, 9, "points") * 0.5;
        let all: Vec<usize> = (20..27).collect();
        let shape = Shape::image(3, 3, 1);
        let process = Vp::default();
        for (variant, per_channel) in
            [(Variant::Symmetrized, false), (Variant::Plain, true), (Variant::Gaussian, false)]
        {
            let params =
                CurvatureSettings { variant, per_channel, exact: true, ..settings() }.check().unwrap();
            let points = Points { rows: x.view(), samples: &all, shape };
            let memories = Empirical::new(Memories::new(x.clone()).unwrap());
            let (few, many) = (network(5), network(64));
            for (score, other) in [(&few as &dyn Score, &many as &dyn Score), (&memories, &memories)] {
                let whole = curvature(score, &process, &points, &params, None, &Silent).unwrap();
                let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                let alone = one.install(|| curvature(other, &process, &points, &params, None, &Silent));
                assert_eq!(alone.unwrap(), whole);
                // Pieces of one point, and calls of three rows.
                let mut small = Estimator::new(other, &process, &points, &params).unwrap();
                small.call = 27;
                assert_eq!(small.run(None, &Silent).unwrap(), whole);
                let some = Points { rows: x.slice(s![3..5, ..]), samples: &all[3..5], shape };
                let some = curvature(other, &process, &some, &params, None, &Silent).unwrap();
                assert_eq!(some, whole[3..5]);
                assert_ne!(whole[0].values, whole[1].values);
            }
        }
    }

    #[test]
    fn the_spectrum_of_a_network_is_near_that_of_its_jacobian() {
        let x = normals(3, 9, "points") * 0.5;
        let small = CurvatureSettings { t: 200.0, step: 0.02, exact: true, ..settings() };
        for got in spectra(&network(32), &x, small) {
            let exact = got.exact.unwrap();
            // Differences of single precision over a step of 0.01.
            assert!(off(&got.values, &exact.values) < 1e-3, "{:?} {:?}", got.values, exact.values);
            assert!(exact.asymmetry > 1e-3);
        }
    }

    #[test]
    fn finished_pieces_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cells = Cells::at(dir.path().join("pieces"));
        let x = normals(5, 3, "points");
        let score = Linear::new(normals(3, 3, "matrix"));
        let points = Points { rows: x.view(), samples: &[0, 1, 2, 3, 4], shape: Shape::vector(3) };
        let params = settings().check().unwrap();
        let mut estimator = Estimator::new(&score, &Vp::default(), &points, &params).unwrap();
        let whole = estimator.run(None, &Silent).unwrap();
        // Two points a piece: 2 sides of 12 rows of 3 numbers each.
        estimator.call = 144;
        let calls = || score.calls.swap(0, Ordering::Relaxed);
        calls();
        assert_eq!(estimator.run(Some(&cells), &Silent).unwrap(), whole);
        // A call for the score at the points and one for the rows, each of three pieces.
        assert_eq!(calls(), 6);
        assert_eq!(estimator.run(Some(&cells), &Silent).unwrap(), whole);
        assert_eq!(calls(), 0);
        std::fs::write(cells.folder().join("points-2-4.json"), "[{").unwrap();
        assert_eq!(estimator.run(Some(&cells), &Silent).unwrap(), whole);
        assert_eq!(calls(), 2);
    }

    #[test]
    fn values_that_are_not_finite_are_refused_by_index() {
        let mut x = normals(3, 4, "points");
        let params = CurvatureSettings { exact: true, ..settings() }.check().unwrap();
        let samples = [5, 8, 13];
        for (call, what) in [(0, 13), (1, 13), (2, 13)] {
            let mut score = Linear::new(Array2::eye(4));
            score.broken = call;
            let points = Points { rows: x.view(), samples: &samples, shape: Shape::vector(4) };
            let e = curvature(&score, &Vp::default(), &points, &params, None, &Silent).unwrap_err();
            assert_eq!(e.to_string(), format!("curvature: the score about the sample {what} holds NaN"));
        }
        x[[1, 2]] = f64::INFINITY;
        let points = Points { rows: x.view(), samples: &samples, shape: Shape::vector(4) };
        let score = Linear::new(Array2::eye(4));
        let e = curvature(&score, &Vp::default(), &points, &params, None, &Silent).unwrap_err();
        assert_eq!(e.to_string(), "curvature: the sample 8 holds inf");
    }

    #[test]
    fn bad_settings_and_shapes_are_refused_by_name() {
        let name = |e: StudyError| match e {
            StudyError::Setting(e) => e.setting,
            StudyError::Op(OpError::Shape { argument, .. }) => argument.into(),
            StudyError::Process(_) => "t".into(),
            StudyError::Score(ScoreError::Clean { .. }) => "clean".into(),
            other => panic!("{other}"),
        };
        for rows in [0.5, f64::NAN, 1e9] {
            assert_eq!(name(CurvatureSettings { rows, ..settings() }.check().unwrap_err()), "rows");
        }
        for step in [0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(name(CurvatureSettings { step, ..settings() }.check().unwrap_err()), "step");
        }
        let both = CurvatureSettings { per_channel: true, variant: Variant::Gaussian, ..settings() };
        assert_eq!(name(both.check().unwrap_err()), "per_channel");
        let x = Array2::zeros((1, 6));
        let score = Gaussian::new(Array1::zeros(6), Array1::ones(6)).unwrap();
        let run = |settings: CurvatureSettings, samples: &[usize], shape| {
            let points = Points { rows: x.view(), samples, shape };
            let params = settings.check().unwrap();
            name(curvature(&score, &Vp::default(), &points, &params, None, &Silent).unwrap_err())
        };
        let flat = Shape::vector(6);
        assert_eq!(run(CurvatureSettings { t: 1000.0, ..settings() }, &[0], flat), "t");
        assert_eq!(run(CurvatureSettings { t: -1.0, ..settings() }, &[0], flat), "clean");
        assert_eq!(run(CurvatureSettings { drop_top: 6, ..settings() }, &[0], flat), "drop_top");
        assert_eq!(run(settings(), &[0, 1], flat), "points");
        assert_eq!(run(settings(), &[0], Shape::vector(5)), "shape");
        let channels = CurvatureSettings { per_channel: true, ..settings() };
        assert_eq!(run(channels, &[0], Shape::image(2, 3, 1)), "per_channel");
    }
}
