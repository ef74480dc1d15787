//! How log p_t bends about images: singular values of the score's Jacobian J by Algs. 2 and 3, and J itself where it is
//! affordable (Eqs. 35 and 36).
//!
//! A row of the matrix S is the score's change along a direction u of length proportional to sigma_t, about
//! sqrt(alpha_bar_t) x, so S = sigma_t U J^T wherever the score is linear that far. With E[U^T U] = c I the values of S
//! are sigma_t sqrt(c) times those of J, and that factor is divided out. Flat directions of log p_t have values near
//! 0; across the data they are 1/sigma_t^2, which all of them are at an isolated memory.
//!
//! Orthonormal directions in stacks of whole bases have U^T U = c I exactly. Gaussian ones, and those by channel, have
//! it on average: then values of a J with one value v scatter between v (1 - sqrt(D/R)) and v (1 + sqrt(D/R)) for R
//! rows, by the law of Marchenko and Pastur, however J is.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use ndarray_linalg::{EigValsh, JobSvd, QRSquareInto, SVDDCInto, UPLO};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{AnalysisError, Cells};
use crate::net::Shape;
use crate::ops::OpError;
use crate::process::{Level, Process};
use crate::progress::ProgressSink;
use crate::random::{SEED, Stream};
use crate::score::{Score, ScoreError, first_bad};

/// Version of the numbers that this analysis gives. It goes up with any change that moves them.
pub const VERSION: u32 = 1;

const NAME: &str = "curvature";

/// Numbers in a call of the score: enough to fill a network, little enough to keep.
const CALL: usize = 1 << 22;

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
#[serde(deny_unknown_fields)]
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
    /// [`AnalysisError::Setting`] that names the first one out of its range.
    pub fn check(self) -> Result<CurvatureParams, AnalysisError> {
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

fn refused(setting: &'static str, value: impl ToString, need: impl Into<String>) -> AnalysisError {
    AnalysisError::Setting { analysis: NAME, setting, value: value.to_string(), need: need.into() }
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
/// [`AnalysisError`] for shapes that don't fit each other, data that is not finite, a time that the process doesn't
/// have or that is clean, a score that is not finite, each with the number of the sample; or what LAPACK refuses.
pub fn curvature(
    score: &dyn Score,
    process: &dyn Process,
    points: &Points<'_>,
    params: &CurvatureParams,
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<Spectrum>, AnalysisError> {
    let of = Of::new(score, process, points, params)?;
    let count = points.rows.nrows();
    let each = (CALL / of.dim / (2 * of.per_point)).max(1);
    let mut out = Vec::with_capacity(count);
    for start in (0..count).step_by(each) {
        let range = start..count.min(start + each);
        let id = format!("points-{}-{}", range.start, range.end);
        let kept: Option<Vec<Spectrum>> = cells.and_then(|c| c.get(&id));
        if let Some(piece) = kept {
            out.extend(piece);
            progress.resume(range.len() as u64);
        } else {
            let piece = of.spectra(range.clone())?;
            cells.map_or(Ok(()), |c| c.put(&id, &piece))?;
            out.extend(piece);
            progress.advance(range.len() as u64);
        }
    }
    Ok(out)
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
}

impl<'a, 'p> Of<'a, 'p> {
    fn new(
        score: &'a dyn Score,
        process: &dyn Process,
        points: &Points<'p>,
        params: &'a CurvatureParams,
    ) -> Result<Self, AnalysisError> {
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
        Ok(Self { score, points: *points, params, level, dim, per_point: params.rows(dim) })
    }

    fn settings(&self) -> &CurvatureSettings {
        &self.params.0
    }

    fn spectra(&self, range: Range<usize>) -> Result<Vec<Spectrum>, AnalysisError> {
        let centres = self.points.rows.slice(s![range.clone(), ..]).mapv(|v| self.level.alpha() * v);
        let samples = &self.points.samples[range];
        let scores = self.scores(centres.view(), |row| samples[row])?;
        let matrices = self.matrices(centres.view(), scores.view(), samples)?;
        let exact = self.settings().exact.then(|| self.jacobians(centres.view(), samples)).transpose()?;
        let factor = if self.settings().raw { 1.0 } else { self.params.factor(self.level, self.points.shape) };
        samples
            .par_iter()
            .enumerate()
            .map(|(i, &sample)| {
                let of = |all: &Array2<f64>, rows: usize| all.slice(s![i * rows..(i + 1) * rows, ..]).to_owned();
                let values = singular_values(of(&matrices, self.per_point), sample)?;
                Ok(Spectrum {
                    sample,
                    score: scores.row(i).iter().map(|v| v * v).sum::<f64>().sqrt(),
                    values: values.iter().map(|v| v / factor).collect(),
                    exact: exact.as_ref().map(|all| exact_of(of(all, self.dim), sample)).transpose()?,
                })
            })
            .collect()
    }

    /// The score at rows of `x`, row i being about the sample `sample(i)`.
    fn scores(
        &self,
        x: ArrayView2<'_, f64>,
        sample: impl Fn(usize) -> usize,
    ) -> Result<Array2<f64>, AnalysisError> {
        let scores = self.score.score(x, &vec![self.level; x.nrows()]);
        finite(scores, sample)
    }

    /// S of each point, one below the other.
    fn matrices(
        &self,
        centres: ArrayView2<'_, f64>,
        scores: ArrayView2<'_, f64>,
        samples: &[usize],
    ) -> Result<Array2<f64>, AnalysisError> {
        let (each, settings) = (self.per_point, self.settings());
        let length = settings.step * self.level.sigma();
        // Directions at first, and in their place what the score says along them.
        let mut matrix = Array2::zeros((samples.len() * each, self.dim));
        matrix
            .axis_chunks_iter_mut(Axis(0), each)
            .into_par_iter()
            .zip(samples)
            .try_for_each(|(to, &sample)| self.directions(sample, to))?;
        let sides = if settings.variant == Variant::Symmetrized { 2 } else { 1 };
        let room = (CALL / self.dim / sides).max(1);
        for start in (0..matrix.nrows()).step_by(room) {
            let end = matrix.nrows().min(start + room);
            let rows = end - start;
            let point = |row: usize| (start + row % rows) / each;
            let mut x = Array2::zeros((sides * rows, self.dim));
            for (row, mut x) in x.outer_iter_mut().enumerate() {
                let length = if row < rows { length } else { -length };
                x.assign(&centres.row(point(row)));
                x.scaled_add(length, &matrix.row(start + row % rows));
            }
            let s = self.scores(x.view(), |row| samples[point(row)])?;
            for (row, mut to) in matrix.slice_mut(s![start..end, ..]).outer_iter_mut().enumerate() {
                to.assign(&s.row(row));
                if settings.variant == Variant::Symmetrized {
                    to -= &s.row(rows + row);
                    to *= 0.5;
                } else if !settings.raw {
                    to -= &scores.row(point(row));
                }
            }
        }
        Ok(matrix)
    }

    /// Fills `to` `[R, D]` with directions.
    fn directions(&self, sample: usize, mut to: ArrayViewMut2<'_, f64>) -> Result<(), AnalysisError> {
        let (settings, shape) = (self.settings(), self.points.shape);
        let mut stream = Stream::new(settings.seed, &format!("curvature/{sample}"));
        if settings.variant == Variant::Gaussian {
            to.iter_mut().for_each(|v| *v = stream.normal());
        } else if settings.per_channel {
            for mut u in to.outer_iter_mut() {
                for channel in 0..shape.channels {
                    let block = orthogonal(&mut stream, shape.height, sample)?;
                    let mut pixels = u.slice_mut(s![channel..;shape.channels]);
                    pixels.iter_mut().zip(&block).for_each(|(v, b)| *v = *b);
                }
            }
        } else {
            for mut block in to.axis_chunks_iter_mut(Axis(0), self.dim) {
                let basis = orthogonal(&mut stream, self.dim, sample)?;
                let rows = block.nrows();
                block.assign(&basis.slice(s![..rows, ..]));
            }
        }
        Ok(())
    }

    /// J at each row of `centres`, one below the other: row k of J is J^T e_k.
    fn jacobians(
        &self,
        centres: ArrayView2<'_, f64>,
        samples: &[usize],
    ) -> Result<Array2<f64>, AnalysisError> {
        let n = self.dim;
        let shape = (samples.len() * n, n);
        let x = Array2::from_shape_fn(shape, |(row, column)| centres[[row / n, column]]);
        let v = Array2::from_shape_fn(shape, |(row, column)| f64::from(u8::from(row % n == column)));
        let products = self.score.vjp(x.view(), &vec![self.level; shape.0], v.view());
        finite(products, |row| samples[row / n])
    }
}

/// A uniformly distributed orthogonal matrix: Q of the QR of a Gaussian one, R having a positive diagonal.
fn orthogonal(stream: &mut Stream, n: usize, sample: usize) -> Result<Array2<f64>, AnalysisError> {
    let gaussian = Array2::from_shape_fn((n, n), |_| stream.normal());
    let (mut q, r) = gaussian.qr_square_into().map_err(lapack(sample, (n, n)))?;
    for (mut column, r) in q.axis_iter_mut(Axis(1)).zip(r.diag()) {
        if *r < 0.0 {
            column *= -1.0;
        }
    }
    Ok(q)
}

/// Numbers of a score that are finite; else the sample that row belongs to is named.
fn finite(
    rows: Result<Array2<f64>, ScoreError>,
    sample: impl Fn(usize) -> usize,
) -> Result<Array2<f64>, AnalysisError> {
    let rows = match rows {
        Err(ScoreError::NotFinite { row, value, .. }) => {
            return Err(not_finite("the score about the sample", sample(row), value));
        }
        rows => rows?,
    };
    // LAPACK may never come back from a NaN.
    match first_bad(&rows.view()) {
        Some((row, _, value)) => Err(not_finite("the score about the sample", sample(row), value)),
        None => Ok(rows),
    }
}

fn not_finite(what: &'static str, sample: usize, value: f64) -> AnalysisError {
    AnalysisError::NotFinite { analysis: NAME, what, sample, value }
}

fn lapack(
    sample: usize,
    (rows, columns): (usize, usize),
) -> impl Fn(ndarray_linalg::error::LinalgError) -> AnalysisError {
    move |source| AnalysisError::Lapack { analysis: NAME, sample, rows, columns, source }
}

/// Singular values of finite numbers, descending.
fn singular_values(matrix: Array2<f64>, sample: usize) -> Result<Vec<f64>, AnalysisError> {
    let size = matrix.dim();
    let (_, values, _) = matrix.svddc_into(JobSvd::None).map_err(lapack(sample, size))?;
    Ok(values.to_vec())
}

fn exact_of(jacobian: Array2<f64>, sample: usize) -> Result<Exact, AnalysisError> {
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// Their class, or `training`.
    pub name: String,
    /// Training points, K.
    pub k: usize,
    /// sigma_t.
    pub sigma: f64,
}

/// A value of the mean spectrum of a set of points.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
pub fn curve_rows(set: &Set, spectra: &[Spectrum]) -> Result<Vec<CurveRow>, AnalysisError> {
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
        let exact: Option<Vec<f64>> =
            spectra.iter().map(|s| s.exact.as_ref().map(|e| e.values[i])).collect();
        CurveRow {
            set: set.clone(),
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
pub fn set_row(set: &Set, points: &[PointRow]) -> Option<SetRow> {
    let column = |of: fn(&PointRow) -> f64| points.iter().map(of).collect::<Vec<f64>>();
    let optional = |of: fn(&PointRow) -> Option<f64>| points.iter().map(of).collect::<Option<Vec<f64>>>();
    let error = |values: &[f64]| deviation(values).map(|std| std / (values.len() as f64).sqrt());
    let (means, dimensions) = (column(|p| p.mean), column(|p| p.dimension as f64));
    (!points.is_empty()).then(|| SetRow {
        set: set.clone(),
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
