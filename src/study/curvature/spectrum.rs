//! How log p_t bends about images: singular values of the score's Jacobian J by Algs. 2 and 3, and J itself where it is
//! affordable (Eqs. 35 and 36).
//!
//! A row of the matrix S is the score's change along a direction u of length proportional to sigma_t, about
//! sqrt(alpha_bar_t) x, so S = sigma_t U J^T wherever the score is linear that far. With E[U^T U] = c I the values of S
//! are sigma_t sqrt(c) times those of J, and that factor is divided out. Flat directions of log p_t have values near
//! 0; across the data they are 1/sigma_t^2, which all of them are at an isolated memory.
//!
//! Orthonormal directions in stacks of whole bases have U^T U = c I exactly. Gaussian ones, and those by channel, have
//! it on average: with R rows even a J all of whose values are v then gives values from v (1 - sqrt(D/R)) to
//! v (1 + sqrt(D/R)), by the law of Marchenko and Pastur.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use ndarray_linalg::{EigValsh, JobSvd, SVDDCInto, UPLO};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::class::Group;
use crate::ops::OpError;
use crate::process::{Level, Process};
use crate::progress::ProgressSink;
use crate::random::{Places, SEED};
use crate::score::{Score, ScoreError, first_bad};
use crate::shape::Shape;
use crate::study::StudyError;
use crate::study::context::Cells;
use crate::study::curvature::lapack;

/// Version of the numbers that this analysis gives. It goes up with any change that moves them.
pub const VERSION: u32 = 2;

const NAME: &str = "curvature";

/// Numbers in a call of the score: enough to fill a network, little enough for the allocator to give the same memory
/// again.
const CALL: usize = 1 << 20;

/// How the rows of S are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// (s(x + sigma u) - s(x - sigma u)) / 2, u orthonormal (Alg. 2).
    Symmetrized,
    /// s(x + sigma u), u orthonormal. The score at x is subtracted, unless raw values are asked for.
    Plain,
    /// s(x + sigma u), u standard normal (Alg. 3). The score at x is subtracted, unless raw values are asked for.
    Gaussian,
}

/// Settings of the analysis, a table of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurvatureSettings {
    /// Time of the process; 15 in public code. What the paper has is not known.
    pub t: f64,
    /// Rows of S as a multiple of the D dimensions, at least 1; 4 in public code. A stack that is no whole number of
    /// bases is orthogonal on average only.
    pub rows: f64,
    /// How rows are made. Public code offers all three; the default, symmetrised, is this project's own.
    pub variant: Variant,
    /// Orthonormal directions by channel, as public code has them: each channel of a square image is a random
    /// orthogonal matrix of its own. Else they are orthonormal in R^D.
    pub per_channel: bool,
    /// Length of the directions in units of sigma_t; 1 in the paper. Less comes closer to the Jacobian where the score
    /// is not linear as far as that, until rounding shows.
    pub step: f64,
    /// Whether the Jacobian itself is made as well, by D products a point.
    pub exact: bool,
    /// Values as public code gives them: the rows as they are, and no factor divided out.
    pub raw: bool,
    /// Largest values that means and the local dimension leave out: 5 in the paper, 50 with Alg. 3.
    pub drop_top: usize,
    /// Seed of the directions.
    pub seed: u64,
}

impl Default for CurvatureSettings {
    fn default() -> Self {
        Self {
            t: 15.0,
            rows: 4.0,
            variant: Variant::Symmetrized,
            per_channel: false,
            step: 1.0,
            exact: false,
            raw: false,
            drop_top: 5,
            seed: SEED,
        }
    }
}

/// Checked [`CurvatureSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct CurvatureParams(CurvatureSettings);

impl CurvatureSettings {
    /// Checks every setting once. Time and `drop_top` are checked where process and dimensions are known.
    ///
    /// # Errors
    /// [`StudyError::Setting`] that names the first one out of its range.
    pub fn check(self) -> Result<CurvatureParams, StudyError> {
        if !(self.rows >= 1.0 && self.rows <= 1000.0) {
            return Err(refused("rows", self.rows, "a number from 1 to 1000"));
        }
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Err(refused("step", self.step, "a finite number above 0"));
        }
        if self.per_channel && self.variant == Variant::Gaussian {
            return Err(refused("per_channel", true, "false for the Gaussian variant, which has no bases"));
        }
        Ok(CurvatureParams(self))
    }
}

fn refused(setting: &'static str, value: impl ToString, need: impl Into<String>) -> StudyError {
    StudyError::Setting { analysis: NAME, setting, value: value.to_string(), need: need.into() }
}

impl CurvatureParams {
    /// What was checked.
    pub fn settings(&self) -> &CurvatureSettings {
        &self.0
    }

    /// Rows of S in `dim` dimensions.
    pub fn rows(&self, dim: usize) -> usize {
        ((self.0.rows * dim as f64).round() as usize).max(dim)
    }

    /// Singular values of S over those of J: step sigma_t sqrt(R E||u||^2 / D) for R rows, u having length 1
    /// (orthonormal), sqrt(D) (Gaussian) or, by channel of c images of side h, sqrt(c h).
    pub fn factor(&self, level: Level, shape: Shape) -> f64 {
        let dim = shape.len() as f64;
        let square = match self.0.variant {
            Variant::Gaussian => dim,
            _ if self.0.per_channel => (shape.channels * shape.height) as f64,
            _ => 1.0,
        };
        self.0.step * level.sigma() * (self.rows(shape.len()) as f64 * square / dim).sqrt()
    }
}

/// The points that the Jacobian is taken at: sqrt(alpha_bar_t) times clean data.
#[derive(Debug, Clone, Copy)]
pub struct Points<'a> {
    /// Clean data, `[m, D]`.
    pub rows: ArrayView2<'a, f64>,
    /// Its numbers, `[m]`: the directions at a point depend on its number, whatever is analysed with it.
    pub samples: &'a [usize],
    /// Shape of a row.
    pub shape: Shape,
}

/// The Jacobian at one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Number of the point.
    pub sample: usize,
    /// ||s||, the length of the score; 0 in the stable set of Eq. 35.
    pub score: f64,
    /// Estimated singular values, `[D]`, descending; in the inverse square of the data's units, unless they are raw.
    pub values: Vec<f64>,
    /// What the Jacobian itself says, if it was asked for.
    pub exact: Option<Exact>,
}

/// Of the exact Jacobian.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exact {
    /// Singular values, `[D]`, descending.
    pub values: Vec<f64>,
    /// ||J - J^T|| / ||J||, in Frobenius' norm: 0 for the gradient of anything. 0 where J is 0.
    pub asymmetry: f64,
    /// Largest eigenvalue of (J + J^T) / 2: at most 0 where p_t is stable in the sense of Eq. 35.
    pub largest: f64,
}

/// The spectra at `points`, in their order. With `cells`, finished pieces are read from there and new ones kept; the
/// folder has to be one that no other score, settings or points share. Reports a step of progress for each point.
///
/// # Errors
/// [`StudyError`] for shapes that don't fit each other, data that is not finite, a time that the process doesn't
/// have or that is clean, a score that is not finite, each with the number of the sample; or what LAPACK refuses.
pub fn curvature(
    score: &dyn Score,
    process: &dyn Process,
    points: &Points<'_>,
    params: &CurvatureParams,
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<Spectrum>, StudyError> {
    Of::new(score, process, points, params)?.run(cells, progress)
}

/// What all pieces share.
struct Of<'a, 'p> {
    score: &'a dyn Score,
    points: Points<'p>,
    params: &'a CurvatureParams,
    level: Level,
    dim: usize,
    /// Rows of S.
    per_point: usize,
    /// Numbers in a call of the score.
    call: usize,
}

impl<'a, 'p> Of<'a, 'p> {
    fn new(
        score: &'a dyn Score,
        process: &dyn Process,
        points: &Points<'p>,
        params: &'a CurvatureParams,
    ) -> Result<Self, StudyError> {
        let (dim, shape, settings) = (score.dim(), points.shape, &params.0);
        if points.rows.ncols() != dim || points.samples.len() != points.rows.nrows() {
            let expected = format!("[{}, {dim}]", points.samples.len());
            let found = points.rows.shape().to_vec();
            return Err(OpError::Shape { operation: NAME, argument: "points", found, expected }.into());
        }
        if shape.len() != dim {
            let found = vec![shape.height, shape.width, shape.channels];
            let expected = format!("{dim} numbers");
            return Err(OpError::Shape { operation: NAME, argument: "shape", found, expected }.into());
        }
        if settings.per_channel && shape.height != shape.width {
            let need = format!("false for images of {} x {}, or square ones", shape.height, shape.width);
            return Err(refused("per_channel", true, need));
        }
        if settings.drop_top >= dim {
            let need = format!("fewer than the {dim} values that there are");
            return Err(refused("drop_top", settings.drop_top, need));
        }
        if let Some((row, _, value)) = first_bad(&points.rows) {
            return Err(not_finite("the sample", points.samples[row], value));
        }
        let level = process.level(settings.t)?;
        lapack::without_threads();
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
            let kept: Option<Vec<Spectrum>> = cells.and_then(|c| c.get(&id));
            if let Some(piece) = kept {
                out.extend(piece);
                progress.resume(steps);
            } else {
                let piece = self.spectra(range)?;
                cells.map_or(Ok(()), |c| c.put(&id, &piece))?;
                out.extend(piece);
                progress.advance(steps);
            }
        }
        Ok(out)
    }

    fn settings(&self) -> &CurvatureSettings {
        &self.params.0
    }

    fn spectra(&self, range: Range<usize>) -> Result<Vec<Spectrum>, StudyError> {
        let centres = self.points.rows.slice(s![range.clone(), ..]).mapv(|v| self.level.alpha() * v);
        let samples = &self.points.samples[range];
        let scores = self.scores(centres.view(), |row| samples[row])?;
        let matrices = self.matrices(centres.view(), scores.view(), samples)?;
        let exact = self.settings().exact.then(|| self.jacobians(centres.view(), samples)).transpose()?;
        let factor =
            if self.settings().raw { 1.0 } else { self.params.factor(self.level, self.points.shape) };
        samples
            .par_iter()
            .enumerate()
            .map(|(i, &sample)| {
                let of = |all: &Array2<f64>, rows: usize| {
                    let part = all.slice(s![i * rows..(i + 1) * rows, ..]);
                    // LAPACK may never come back from a NaN.
                    if let Some(value) = part.iter().find(|v| !v.is_finite()) {
                        return Err(not_finite(SCORE, sample, *value));
                    }
                    // A slice of one row and column has strides that LAPACK's wrapper refuses.
                    let mut own = Array2::zeros(part.dim());
                    own.assign(&part);
                    Ok(own)
                };
                let values = singular_values(of(&matrices, self.per_point)?, sample)?;
                let exact = exact.as_ref().map(|all| exact_of(of(all, self.dim)?, sample)).transpose()?;
                Ok(Spectrum {
                    sample,
                    score: of(&scores, 1)?.iter().map(|v| v * v).sum::<f64>().sqrt(),
                    values: values.iter().map(|v| v / factor).collect(),
                    exact,
                })
            })
            .collect()
    }

    /// The score at rows of `x`, row i being about the sample `sample(i)`.
    fn scores(
        &self,
        x: ArrayView2<'_, f64>,
        sample: impl Fn(usize) -> usize,
    ) -> Result<Array2<f64>, StudyError> {
        let scores = self.score.score(x, &vec![self.level; x.nrows()]);
        scores.map_err(|e| of_sample(e, sample))
    }

    /// S of each point, one below the other.
    fn matrices(
        &self,
        centres: ArrayView2<'_, f64>,
        scores: ArrayView2<'_, f64>,
        samples: &[usize],
    ) -> Result<Array2<f64>, StudyError> {
        let (each, settings) = (self.per_point, self.settings());
        let length = settings.step * self.level.sigma();
        // Directions at first, and in their place what the score says along them.
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
        let of_basis = |n: usize| n * (n + 1) / 2;
        let count = match settings.variant {
            Variant::Gaussian => to.len(),
            _ if settings.per_channel => to.nrows() * shape.channels * of_basis(shape.height),
            _ => to.nrows().div_ceil(self.dim) * of_basis(self.dim),
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

    /// J at each row of `centres`, one below the other: row k of J is J^T e_k.
    fn jacobians(&self, centres: ArrayView2<'_, f64>, samples: &[usize]) -> Result<Array2<f64>, StudyError> {
        let n = self.dim;
        let shape = (samples.len() * n, n);
        let (mut x, mut v) = (Array2::zeros(shape), Array2::zeros(shape));
        each_row(x.view_mut(), |row, mut x| x.assign(&centres.row(row / n)));
        each_row(v.view_mut(), |row, mut v| v[row % n] = 1.0);
        let products = self.score.vjp(x.view(), &vec![self.level; shape.0], v.view());
        products.map_err(|e| of_sample(e, |row| samples[row / n]))
    }
}

/// Calls `work` with the number of each row and the row, on all threads.
fn each_row(mut rows: ArrayViewMut2<'_, f64>, work: impl Fn(usize, ArrayViewMut1<'_, f64>) + Sync) {
    // Fewer rows than this are sooner written than handed over.
    const LEAST: usize = 256;
    let each = rows.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(LEAST);
    each.enumerate().for_each(|(row, of)| work(row, of));
}

/// A uniformly distributed orthogonal matrix (Stewart, 1980): from that of each size, 1 beside it, the next one by the
/// reflection that takes the first axis to a uniformly distributed direction. That takes n (n + 1) / 2 normals, and half
/// the work of Q of a Gaussian matrix.
fn orthogonal(normals: &mut impl Iterator<Item = f64>, n: usize) -> Array2<f64> {
    // Rows one after the other.
    let mut q: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i % (n + 1) == 0))).collect();
    let (mut normal, mut along) = (Vec::with_capacity(n), vec![0.0; n]);
    let square = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
    for size in 1..=n {
        let first = n - size;
        normal.clear();
        normal.extend(normals.by_ref().take(size));
        // The further of the two reflections, to the direction or away from it, loses no digits.
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

/// The error of a score, with the number of the sample that its row is about.
fn of_sample(e: ScoreError, sample: impl Fn(usize) -> usize) -> StudyError {
    match e {
        ScoreError::NotFinite { row, value, .. } => not_finite(SCORE, sample(row), value),
        e => e.into(),
    }
}

/// What holds a number that is not finite.
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

/// Singular values of finite numbers, descending.
fn singular_values(matrix: Array2<f64>, sample: usize) -> Result<Vec<f64>, StudyError> {
    let size = matrix.dim();
    let (_, values, _) = matrix.svddc_into(JobSvd::None).map_err(lapack(sample, size))?;
    Ok(values.to_vec())
}

fn exact_of(jacobian: Array2<f64>, sample: usize) -> Result<Exact, StudyError> {
    let norm = |of: &Array2<f64>| of.iter().map(|v| v * v).sum::<f64>().sqrt();
    let (whole, skew) = (norm(&jacobian), norm(&(&jacobian - &jacobian.t())));
    let symmetric = (&jacobian + &jacobian.t()) * 0.5;
    let eigenvalues = symmetric.eigvalsh(UPLO::Lower).map_err(lapack(sample, jacobian.dim()))?;
    Ok(Exact {
        asymmetry: if whole == 0.0 { 0.0 } else { skew / whole },
        largest: eigenvalues.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        values: singular_values(jacobian, sample)?,
    })
}

/// Local dimension from descending singular values: D minus the number of values above the largest gap s_i - s_(i+1),
/// and that gap. The `drop_top` largest values are left out, and s_(D+1) counts as 0, so that a point without flat
/// directions has dimension 0 rather than one by chance. No values, or none left, have dimension 0 and no gap.
pub fn dimension(values: &[f64], drop_top: usize) -> (usize, f64) {
    let mut found = (0, 0.0);
    for (i, value) in values.iter().enumerate().skip(drop_top) {
        let gap = value - values.get(i + 1).unwrap_or(&0.0);
        if gap > found.1 {
            found = (values.len() - i - 1, gap);
        }
    }
    found
}

/// The numbers of one point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PointRow {
    /// Number of the point.
    pub sample: usize,
    /// Length of the score.
    pub score: f64,
    /// Mean of the estimated singular values without the largest.
    pub mean: f64,
    /// Local dimension by [`dimension`].
    pub dimension: usize,
    /// The gap that it comes from.
    pub gap: f64,
    /// Mean of the exact singular values without the largest.
    pub exact_mean: Option<f64>,
    /// Local dimension from the exact values.
    pub exact_dimension: Option<usize>,
    /// [`Exact::asymmetry`].
    pub asymmetry: Option<f64>,
    /// [`Exact::largest`].
    pub largest: Option<f64>,
}

/// The numbers of each point, without the `drop_top` largest values.
pub fn point_rows(spectra: &[Spectrum], drop_top: usize) -> Vec<PointRow> {
    let rest = |values: &[f64]| mean(&values[drop_top.min(values.len())..]);
    let row = |s: &Spectrum| {
        let (dimension, gap) = dimension(&s.values, drop_top);
        let exact = s.exact.as_ref();
        PointRow {
            sample: s.sample,
            score: s.score,
            mean: rest(&s.values),
            dimension,
            gap,
            exact_mean: exact.map(|e| rest(&e.values)),
            exact_dimension: exact.map(|e| self::dimension(&e.values, drop_top).0),
            asymmetry: exact.map(|e| e.asymmetry),
            largest: exact.map(|e| e.largest),
        }
    };
    spectra.iter().map(row).collect()
}

/// Which points rows are about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// Samples of a class, or training images.
    pub group: Group,
    /// Training points, K.
    pub k: usize,
    /// sigma_t.
    pub sigma: f64,
}

/// A value of the mean spectrum of a set of points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    /// The points.
    pub set: Set,
    /// How many there are.
    pub count: usize,
    /// Place of the value among the descending ones, from 1.
    pub index: usize,
    /// Mean over the points.
    pub mean: f64,
    /// Standard deviation between them; None for a single one.
    pub std: Option<f64>,
    /// Mean of the exact values.
    pub exact: Option<f64>,
}

/// The mean spectrum of a set: D rows, or none without points.
///
/// # Errors
/// [`OpError::Shape`] for spectra of different lengths.
pub fn curve_rows(set: Set, spectra: &[Spectrum]) -> Result<Vec<CurveRow>, StudyError> {
    let Some(first) = spectra.first() else { return Ok(Vec::new()) };
    let dim = first.values.len();
    for s in spectra {
        let bad = [Some(&s.values), s.exact.as_ref().map(|e| &e.values)].into_iter().flatten();
        if let Some(values) = bad.into_iter().find(|v| v.len() != dim) {
            let (found, expected) = (vec![values.len()], format!("[{dim}]"));
            return Err(OpError::Shape { operation: NAME, argument: "spectra", found, expected }.into());
        }
    }
    let row = |i: usize| {
        let values: Vec<f64> = spectra.iter().map(|s| s.values[i]).collect();
        let exact: Option<Vec<f64>> = spectra.iter().map(|s| s.exact.as_ref().map(|e| e.values[i])).collect();
        CurveRow {
            set,
            count: values.len(),
            index: i + 1,
            mean: mean(&values),
            std: deviation(&values),
            exact: exact.map(|values| mean(&values)),
        }
    };
    Ok((0..dim).map(row).collect())
}

/// The numbers of a set of points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SetRow {
    /// The points.
    pub set: Set,
    /// How many there are.
    pub count: usize,
    /// Mean of [`PointRow::mean`].
    pub mean: f64,
    /// Its standard error; None for a single point, as below.
    pub mean_error: Option<f64>,
    /// Mean local dimension.
    pub dimension: f64,
    /// Its standard error.
    pub dimension_error: Option<f64>,
    /// Mean length of the score.
    pub score: f64,
    /// Mean asymmetry of the exact Jacobian.
    pub asymmetry: Option<f64>,
    /// Share of points whose exact Jacobian is negative semi-definite (Eq. 35).
    pub stable: Option<f64>,
}

/// The numbers of a set; None without points.
pub fn set_row(set: Set, points: &[PointRow]) -> Option<SetRow> {
    let column = |of: fn(&PointRow) -> f64| points.iter().map(of).collect::<Vec<f64>>();
    let optional = |of: fn(&PointRow) -> Option<f64>| points.iter().map(of).collect::<Option<Vec<f64>>>();
    let error = |values: &[f64]| deviation(values).map(|std| std / (values.len() as f64).sqrt());
    let (means, dimensions) = (column(|p| p.mean), column(|p| p.dimension as f64));
    (!points.is_empty()).then(|| SetRow {
        set,
        count: points.len(),
        mean: mean(&means),
        mean_error: error(&means),
        dimension: mean(&dimensions),
        dimension_error: error(&dimensions),
        score: mean(&column(|p| p.score)),
        asymmetry: optional(|p| p.asymmetry).map(|v| mean(&v)),
        stable: optional(|p| p.largest.map(|l| f64::from(u8::from(l <= 0.0)))).map(|v| mean(&v)),
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation by n - 1.
fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let square: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| (square / (values.len() - 1) as f64).sqrt())
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
            let score = Empirical::new(Memories::new(x.view()).unwrap());
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
    fn raw_values_are_those_of_public_code() {
        let x = normals(1, 8, "memory");
        let score = Empirical::new(Memories::new(x.view()).unwrap());
        for (t, expected) in [(15.0, 31.7), (2.0, 105.45)] {
            let got = spectra(&score, &x, CurvatureSettings { t, raw: true, ..settings() });
            // sqrt(4) / sigma_t.
            assert!(got[0].values.iter().all(|v| (v - expected).abs() < 0.05), "{:?}", got[0].values);
        }
        // Plain rows hold the score itself as well, which moves no more than two values: one far up, one down.
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
        let of = Of::new(&score, &Vp::default(), &points, &params).unwrap();
        assert!(
            off_all(&of.jacobians(x.view(), &[0, 1, 2]).unwrap().slice(s![6..12, ..]).to_owned(), &matrix)
                == 0.0
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
            let score = Empirical::new(Memories::new(rows.view()).unwrap());
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
        let score = Empirical::new(Memories::new(rows.view()).unwrap());
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
            let of = Of::new(&score, &Vp::default(), &points, &params).unwrap();
            let mut u = Array2::zeros((of.per_point, 12));
            of.directions(9, u.view_mut());
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
        let score = Empirical::new(Memories::new(memory.view()).unwrap());
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
    fn a_spectrum_depends_on_its_point_alone() {
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
            let memories = Empirical::new(Memories::new(x.view()).unwrap());
            let (few, many) = (network(5), network(64));
            for (score, other) in [(&few as &dyn Score, &many as &dyn Score), (&memories, &memories)] {
                let whole = curvature(score, &process, &points, &params, None, &Silent).unwrap();
                let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                let alone = one.install(|| curvature(other, &process, &points, &params, None, &Silent));
                assert_eq!(alone.unwrap(), whole);
                // Pieces of one point, and calls of three rows.
                let mut small = Of::new(other, &process, &points, &params).unwrap();
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
    fn a_network_is_near_its_own_jacobian() {
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
        let mut of = Of::new(&score, &Vp::default(), &points, &params).unwrap();
        let whole = of.run(None, &Silent).unwrap();
        // Two points a piece: 2 sides of 12 rows of 3 numbers each.
        of.call = 144;
        let calls = || score.calls.swap(0, Ordering::Relaxed);
        calls();
        assert_eq!(of.run(Some(&cells), &Silent).unwrap(), whole);
        // A call for the score at the points and one for the rows, each of three pieces.
        assert_eq!(calls(), 6);
        assert_eq!(of.run(Some(&cells), &Silent).unwrap(), whole);
        assert_eq!(calls(), 0);
        std::fs::write(cells.folder().join("points-2-4.json"), "[{").unwrap();
        assert_eq!(of.run(Some(&cells), &Silent).unwrap(), whole);
        assert_eq!(calls(), 2);
    }

    #[test]
    fn what_is_not_finite_is_refused_by_its_number() {
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
            StudyError::Setting { setting, .. } => setting,
            StudyError::Op(OpError::Shape { argument, .. }) => argument,
            StudyError::Process(_) => "t",
            StudyError::Score(ScoreError::Clean { .. }) => "clean",
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

    #[test]
    fn the_dimension_counts_what_lies_below_the_largest_gap() {
        let values = [9.0, 8.0, 7.5, 1.0, 0.5];
        assert_eq!(dimension(&values, 0), (2, 6.5));
        assert_eq!(dimension(&values, 2), (2, 6.5));
        assert_eq!(dimension(&values, 3), (1, 0.5));
        assert_eq!(dimension(&[20.0, 8.0, 7.5, 1.0, 0.5], 1), (2, 6.5));
        assert_eq!(dimension(&[20.0, 8.0, 7.5, 1.0, 0.5], 0), (4, 12.0));
        assert_eq!(dimension(&[3.0, 3.0, 3.0], 0), (0, 3.0));
        assert_eq!(dimension(&[0.0, 0.0], 0), (0, 0.0));
        assert_eq!(dimension(&[], 0), (0, 0.0));
    }

    #[test]
    fn sets_are_summed_up() {
        let spectrum = |sample, values: &[f64], largest| Spectrum {
            sample,
            score: sample as f64,
            values: values.to_vec(),
            exact: Some(Exact { values: values.to_vec(), asymmetry: 0.5, largest }),
        };
        let mut spectra = vec![spectrum(1, &[9.0, 4.0, 1.0], -1.0), spectrum(3, &[9.0, 8.0, 7.0], 2.0)];
        let set = Set { group: Group::SPURIOUS, k: 9, sigma: 0.1 };
        let curve = curve_rows(set, &spectra).unwrap();
        assert_eq!(
            curve.iter().map(|r| (r.index, r.mean)).collect::<Vec<_>>(),
            [(1, 9.0), (2, 6.0), (3, 4.0)]
        );
        assert_eq!(curve[1].std, Some(8f64.sqrt()));
        assert_eq!((curve[2].exact, curve[2].count), (Some(4.0), 2));
        let points = point_rows(&spectra, 1);
        assert_eq!((points[0].mean, points[0].dimension, points[0].gap), (2.5, 1, 3.0));
        assert_eq!((points[1].mean, points[1].dimension, points[1].gap), (7.5, 0, 7.0));
        let row = set_row(set, &points).unwrap();
        // Means 2.5 and 7.5 have a standard error of 2.5.
        assert_eq!((row.mean, row.mean_error, row.dimension), (5.0, Some(2.5), 0.5));
        assert_eq!((row.score, row.asymmetry, row.stable), (2.0, Some(0.5), Some(0.5)));
        assert_eq!(set_row(set, &points[..1]).unwrap().mean_error, None);
        assert_eq!((set_row(set, &[]), curve_rows(set, &[]).unwrap().len()), (None, 0));
        spectra[1].exact = None;
        assert_eq!(curve_rows(set, &spectra).unwrap()[0].exact, None);
        assert_eq!(set_row(set, &point_rows(&spectra, 1)).unwrap().stable, None);
        spectra[1].values.pop();
        assert!(curve_rows(set, &spectra).is_err());
    }
}
