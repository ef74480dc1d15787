use std::f64::consts::FRAC_PI_2;

use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{PotentialParams, PotentialSettings};
use crate::class::Group;
use crate::random::Stream;

/// The relative energy of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PotentialRow {
    /// Group of the image.
    pub group: Group,
    /// Row of the image among the samples, or in the training set.
    pub sample: usize,
    /// Row of the reference in the training set.
    pub reference: usize,
    /// u(pi/2), see [`SIGN`](super::SIGN).
    pub u: f64,
    /// Estimated error of the integral; `None` without a tolerance.
    pub error: Option<f64>,
}

/// Mean u along the arcs from the images of a group to one reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    /// The group.
    pub group: Group,
    /// Row of the reference in the training set.
    pub reference: usize,
    /// Angle alpha, in radians.
    pub alpha: f64,
    /// Number of images.
    pub n: usize,
    /// Mean of u(alpha).
    pub mean: f64,
    /// Standard deviation over the images; 0 for one image.
    pub std: f64,
}

/// A closed circuit along three arcs: from an image to the reference, to another image of the group, and back. The
/// circulation is 0 if the score is a gradient. For a network it measures how far u depends on the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopRow {
    /// The group.
    pub group: Group,
    /// Row of the first image.
    pub sample: usize,
    /// Row of the other image.
    pub other: usize,
    /// Row of the reference in the training set.
    pub reference: usize,
    /// Integral of grad U along the circuit.
    pub circulation: f64,
    /// Sum of the estimated errors of the three arcs: within the tolerance, or the change of the trapezoid rule when every
    /// second point is left out. A circulation near this error is not distinguishable from 0.
    pub error: f64,
    /// u of the first image, with the points of the circuit.
    pub u: f64,
    /// u of the same image in its [`PotentialRow`]: the difference is the error of that row's points.
    pub u_points: f64,
}

/// The relative energies of a subject.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Relative {
    /// Size of the training set, K.
    pub k: usize,
    /// One row for each image and reference.
    pub images: Vec<PotentialRow>,
    /// One row for each group, reference and point of the arc.
    pub curves: Vec<CurveRow>,
    /// One row for each circuit.
    pub loops: Vec<LoopRow>,
}

/// The mean of `u` `[n, points]` at each point.
pub(super) fn curve_rows(group: Group, reference: usize, u: &Array2<f64>) -> Vec<CurveRow> {
    let (n, points) = u.dim();
    if n == 0 {
        return Vec::new();
    }
    let row = |i: usize| {
        let (mean, std) = moments(u.column(i).iter().copied());
        let alpha = FRAC_PI_2 * i as f64 / (points - 1) as f64;
        CurveRow { group, reference, alpha, n, mean, std }
    };
    (0..points).map(row).collect()
}

/// The energy gap of a group (Eq. 48): the mean of u over its images minus the mean over training images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GapRow {
    /// Size of the training set, K.
    pub k: usize,
    /// The group; training images have a gap of 0 without an error.
    pub group: Group,
    /// Row of the reference in the training set; `None` for the mean over all references, taken for each image.
    pub reference: Option<usize>,
    /// Number of images.
    pub n: usize,
    /// Whether there are fewer images than `least`.
    pub few: bool,
    /// Mean of u.
    pub mean: f64,
    /// Standard deviation of u over the images, the bands of the paper's figures; 0 for one image.
    pub std: f64,
    /// The gap, see [`SIGN`](super::SIGN): above 0 if the group has lower energy than training images.
    pub gap: f64,
    /// Standard error of the gap, from the images of the group and the training images.
    pub standard_error: f64,
    /// 95 percent percentile interval of the gap, from a bootstrap over the images of both.
    pub interval: [f64; 2],
    /// Standard deviation of the gap over references; 0 for one reference. If the score is a gradient, it is 0 except for
    /// the error of the rule.
    pub between: f64,
    /// Number of circuits, see [`LoopRow`].
    pub loops: usize,
    /// Mean absolute value of their circulation.
    pub circulation: f64,
    /// Mean of their [`LoopRow::error`].
    pub circulation_error: f64,
    /// Mean absolute value of their u.
    pub size: f64,
}

impl GapRow {
    /// Circulation relative to u: the measure of how far the score is from a gradient. `None` without circuits.
    pub fn relative_circulation(&self) -> Option<f64> {
        (self.loops > 0 && self.size > 0.0).then(|| self.circulation / self.size)
    }
}

/// The gap of each group for each reference, and over all references.
pub fn gaps(relative: &Relative, params: &PotentialParams) -> Vec<GapRow> {
    let mut groups: Vec<Group> = Vec::new();
    let mut references: Vec<Option<usize>> = Vec::new();
    for row in &relative.images {
        if !groups.contains(&row.group) {
            groups.push(row.group);
        }
        if !references.contains(&Some(row.reference)) {
            references.push(Some(row.reference));
        }
    }
    references.push(None);
    let values = |group: Group, reference: Option<usize>| -> Vec<f64> {
        let rows = relative.images.iter().filter(|r| r.group == group);
        match reference {
            Some(_) => rows.filter(|r| Some(r.reference) == reference).map(|r| r.u).collect(),
            None => {
                let all: Vec<f64> = rows.map(|r| r.u).collect();
                let count = references.len() - 1;
                // The rows are ordered by reference, each with the same images.
                let n = all.len() / count;
                (0..n).map(|i| (0..count).map(|r| all[r * n + i]).sum::<f64>() / count as f64).collect()
            }
        }
    };
    let mut rows = Vec::new();
    for group in groups {
        let mut single = Vec::new();
        for &reference in &references {
            let mut row = gap(group, &values(group, reference), &values(Group::Training, reference), params);
            (row.k, row.reference) = (relative.k, reference);
            match reference {
                Some(_) => single.push(row.gap),
                None => row.between = moments(single.iter().copied()).1,
            }
            let belongs = |r: &&LoopRow| r.group == group && reference.is_none_or(|one| one == r.reference);
            let loops: Vec<&LoopRow> = relative.loops.iter().filter(belongs).collect();
            // Without circuits the means are 0.
            let mean = |value: fn(&LoopRow) -> f64| {
                loops.iter().map(|r| value(r)).sum::<f64>() / loops.len().max(1) as f64
            };
            row.loops = loops.len();
            row.circulation = mean(|r| r.circulation.abs());
            row.circulation_error = mean(|r| r.error);
            row.size = mean(|r| r.u.abs());
            rows.push(row);
        }
    }
    rows
}

fn gap(group: Group, values: &[f64], training: &[f64], params: &PotentialParams) -> GapRow {
    let PotentialSettings { least, resamples, seed, .. } = *params.settings();
    let (mean, std) = moments(values.iter().copied());
    let mut row = GapRow {
        k: 0,
        group,
        reference: None,
        n: values.len(),
        few: values.len() < least,
        mean,
        std,
        gap: 0.0,
        standard_error: 0.0,
        interval: [0.0; 2],
        between: 0.0,
        loops: 0,
        circulation: 0.0,
        circulation_error: 0.0,
        size: 0.0,
    };
    if group == Group::Training {
        return row;
    }
    let (base, spread) = moments(training.iter().copied());
    row.gap = mean - base;
    row.standard_error = (std * std / values.len() as f64 + spread * spread / training.len() as f64).sqrt();
    let mut drawn: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map(|i| {
            let mut stream = Stream::new(seed, &format!("potential: bootstrap/{group}/{i}"));
            let mut resampled = |values: &[f64]| {
                let n = values.len();
                (0..n).map(|_| values[stream.below(n as u64) as usize]).sum::<f64>() / n as f64
            };
            resampled(values) - resampled(training)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    row.interval = [0.025, 0.975].map(|p| drawn[((drawn.len() - 1) as f64 * p).round() as usize]);
    row
}

/// Mean and standard deviation with n - 1; the latter is 0 for one value.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let square = values.map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if n > 1.0 { (square / (n - 1.0)).sqrt() } else { 0.0 })
}
