use ndarray::{Array2, ArrayView2, Axis, s};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::rows::curve_rows;
use super::{Arcs, LoopRow, NAME, Potential, PotentialParams, PotentialRow, Relative};
use crate::Error;
use crate::class::Group;
use crate::ops::OpError;
use crate::progress::{ProgressSink, Reporter};
use crate::score::{check_shape, first_bad};
use crate::study::context::{Cells, piece};
use crate::study::error::StudyError;
use crate::study::subject::{Images, Subject};

/// Number of arcs of a piece, which a stopped run does not compute again.
const PIECE: usize = 256;

/// Images of one group.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The group.
    pub group: Group,
    /// Row of each image among the samples, or in the training set, `[n]`.
    pub samples: &'a [usize],
    /// The images, `[n, N]`.
    pub rows: ArrayView2<'a, f64>,
}

/// The arcs of one piece.
#[derive(Serialize, Deserialize)]
struct Piece {
    u: Vec<Vec<f64>>,
    error: Option<Vec<f64>>,
}

/// Relative energies of images of a subject, and of its training images, which the gap of every class refers to (Eqs. 43
/// to 48). With `cells`, finished pieces are read from there and new ones are kept there; all calls with these pieces
/// must have the same subject, images and settings.
///
/// # Errors
/// Those of [`analyse`] and of the training set.
pub fn measure(
    subject: &Subject,
    images: &[Images],
    params: &PotentialParams,
    cells: Option<&Cells>,
    reporter: &dyn Reporter,
) -> Result<Relative, Error> {
    let training = subject.training()?.mapv(f64::from);
    let rows: Vec<Array2<f64>> = images.iter().map(|images| images.rows.mapv(f64::from)).collect();
    let targets: Vec<Targets<'_>> = images
        .iter()
        .zip(&rows)
        .map(|(images, rows)| Targets { group: images.group, samples: &images.ids, rows: rows.view() })
        .collect();
    let sizes: Vec<usize> = images.iter().map(Images::len).collect();
    let progress = reporter.progress("arcs", params.work(training.nrows(), &sizes));
    let potential = Potential::new(subject.score(), subject.vp(), params)?;
    Ok(analyse(&potential, training.view(), &targets, cells, &*progress)?)
}

/// Relative energies of `targets`, and of `training` `[K, N]`, relative to references among `training`, under any score.
/// With `cells`, finished pieces are read from there and new ones are kept there. A step of progress is one arc, see
/// [`PotentialParams::work`].
///
/// A reference is a target, too. Its arc goes to sqrt(2) times the image and back, so its u is 0 if the score is a
/// gradient.
///
/// # Errors
/// [`OpError`] for a wrong shape, for NaN or infinity (with the row of the sample) and for no training images; those of
/// the score and of the pieces.
pub fn analyse(
    potential: &Potential<'_>,
    training: ArrayView2<'_, f64>,
    targets: &[Targets<'_>],
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Relative, StudyError> {
    let settings = potential.params.settings();
    if training.nrows() == 0 {
        let found = training.shape().to_vec();
        return Err(OpError::Empty { operation: NAME, argument: "training images", found }.into());
    }
    let indices: Vec<usize> = (0..training.nrows()).collect();
    let mut given: Vec<(Targets<'_>, usize)> = Vec::with_capacity(targets.len() + 1);
    for &Targets { group, samples, rows } in targets {
        given.push((Targets { group, samples, rows }, settings.max));
    }
    given.push((Targets { group: Group::Training, samples: &indices, rows: training }, settings.training));
    let mut all = Vec::with_capacity(given.len());
    for (images, most) in given {
        check_shape(NAME, "images", &images.rows, (images.samples.len(), potential.score.dim()))?;
        if let Some((row, column, value)) = first_bad(&images.rows) {
            let row = images.samples[row];
            return Err(OpError::NotFinite { operation: NAME, argument: "sample", row, column, value }.into());
        }
        let n = images.rows.nrows().min(most);
        all.push(Targets {
            samples: &images.samples[..n],
            rows: images.rows.slice_move(s![..n, ..]),
            ..images
        });
    }
    let run = Run { potential, cells, progress };
    let mut out = Relative { k: training.nrows(), ..Relative::default() };
    for reference in potential.params.references(training.nrows()) {
        let x = training.row(reference);
        for images in &all {
            let to =
                x.broadcast(images.rows.dim()).expect("a training image has as many columns as the targets");
            let arcs = run.arcs(images, to, reference)?;
            out.curves.extend(curve_rows(images.group, reference, &arcs.u));
            let ends = arcs.u.column(settings.points - 1);
            for (i, (sample, u)) in images.samples.iter().zip(&ends).enumerate() {
                let error = arcs.error.as_ref().map(|e| e[i]);
                out.images.push(PotentialRow {
                    group: images.group,
                    sample: *sample,
                    reference,
                    u: *u,
                    error,
                });
            }
            out.loops.extend(run.loops(images, to, reference, &ends.to_vec())?);
        }
    }
    Ok(out)
}

/// The measurement of one potential.
struct Run<'a> {
    potential: &'a Potential<'a>,
    cells: Option<&'a Cells>,
    progress: &'a dyn ProgressSink,
}

impl Run<'_> {
    /// The piece `id` of this number of arcs.
    fn piece<T: Serialize + DeserializeOwned>(
        &self,
        id: &str,
        arcs: usize,
        make: impl FnOnce() -> Result<T, StudyError>,
    ) -> Result<T, StudyError> {
        let steps = arcs as u64;
        piece(self.cells, id, steps, self.progress, || {
            let result = make()?;
            self.progress.advance(steps);
            Ok(result)
        })
    }

    fn arcs(
        &self,
        images: &Targets<'_>,
        to: ArrayView2<'_, f64>,
        reference: usize,
    ) -> Result<Arcs, StudyError> {
        let n = images.rows.nrows();
        let points = self.potential.params.settings().points;
        let mut u = Array2::zeros((n, points));
        let mut error = self.potential.params.settings().tolerance.map(|_| Vec::with_capacity(n));
        for from in (0..n).step_by(PIECE) {
            let part = from..n.min(from + PIECE);
            let id = format!("{}-{reference}-{from}", images.group);
            let piece: Piece = self.piece(&id, part.len(), || {
                let arcs = self
                    .potential
                    .arcs(images.rows.slice(s![part.clone(), ..]), to.slice(s![part.clone(), ..]))?;
                let u = arcs.u.outer_iter().map(|row| row.to_vec()).collect();
                Ok(Piece { u, error: arcs.error })
            })?;
            for (row, values) in part.zip(&piece.u) {
                u.row_mut(row).iter_mut().zip(values).for_each(|(u, v)| *u = *v);
            }
            if let (Some(all), Some(some)) = (&mut error, piece.error) {
                all.extend(some);
            }
        }
        Ok(Arcs { u, error })
    }

    /// The circuits of the first images, each with the next image.
    fn loops(
        &self,
        images: &Targets<'_>,
        to: ArrayView2<'_, f64>,
        reference: usize,
        u_points: &[f64],
    ) -> Result<Vec<LoopRow>, StudyError> {
        let n = images.rows.nrows();
        let settings = self.potential.params.settings();
        let count = if n < 2 { 0 } else { n.min(settings.loops) };
        if count == 0 {
            return Ok(Vec::new());
        }
        self.piece(&format!("{}-{reference}-loops", images.group), 3 * count, || {
            let next: Vec<usize> = (0..count).map(|i| (i + 1) % n).collect();
            let (from, other) = (images.rows.slice(s![..count, ..]), images.rows.select(Axis(0), &next));
            let to = to.slice(s![..count, ..]);
            let (out, out_error) = self.potential.ends_with_error(from, to)?;
            let (back, back_error) = self.potential.ends_with_error(other.view(), to)?;
            let (close, close_error) = self.potential.ends_with_error(other.view(), from)?;
            let row = |i: usize| LoopRow {
                group: images.group,
                sample: images.samples[i],
                other: images.samples[next[i]],
                reference,
                circulation: out[i] - back[i] + close[i],
                error: out_error[i] + back_error[i] + close_error[i],
                u: out[i],
                u_points: u_points[i],
            };
            Ok((0..count).map(row).collect())
        })
    }
}
