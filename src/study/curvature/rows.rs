use serde::{Deserialize, Serialize};

use super::{NAME, Spectrum};
use crate::class::Group;
use crate::ops::OpError;
use crate::study::error::StudyError;

/// Local dimension from descending singular values: D minus the number of values above the largest gap s_i - s_(i+1);
/// and that gap. The `drop_top` largest values are left out. s_(D+1) counts as 0, so a point without flat directions has
/// dimension 0. Without any value left the dimension is 0 and the gap is 0.
///
/// ```
/// use mem2gen::study::curvature::dimension;
///
/// assert_eq!(dimension(&[9.0, 8.0, 7.5, 1.0, 0.5], 0), (2, 6.5));
/// assert_eq!(dimension(&[3.0, 3.0, 3.0], 0), (0, 3.0));
/// ```
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

/// The spectrum of one point, summarised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PointRow {
    /// Row of the point among the samples, or in the training set.
    pub sample: usize,
    /// ||s||, the length of the score.
    pub score: f64,
    /// Mean of the estimated singular values without the largest.
    pub mean: f64,
    /// Local dimension, see [`dimension`].
    pub dimension: usize,
    /// The gap at which it is read.
    pub gap: f64,
    /// Mean of the exact singular values without the largest.
    pub exact_mean: Option<f64>,
    /// Local dimension from the exact values.
    pub exact_dimension: Option<usize>,
    /// [`Exact::asymmetry`](super::Exact::asymmetry).
    pub asymmetry: Option<f64>,
    /// [`Exact::largest`](super::Exact::largest).
    pub largest: Option<f64>,
}

/// A summary of each spectrum without its `drop_top` largest values.
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

/// A set of points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// Samples of a class, or training images.
    pub group: Group,
    /// Size of the training set, K.
    pub k: usize,
    /// sigma_t.
    pub sigma: f64,
}

/// One value of the mean spectrum of a set of points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    /// The points.
    pub set: Set,
    /// Number of points.
    pub count: usize,
    /// Index of the value in descending order, from 1.
    pub index: usize,
    /// Mean over the points.
    pub mean: f64,
    /// Standard deviation over the points; `None` for one point.
    pub std: Option<f64>,
    /// Mean of the exact values; `None` without the exact Jacobian.
    pub exact: Option<f64>,
}

/// The mean spectrum of a set: D rows, or no rows without points.
///
/// # Errors
/// [`OpError::Shape`] for spectra of different lengths.
pub fn curve_rows(set: Set, spectra: &[Spectrum]) -> Result<Vec<CurveRow>, StudyError> {
    let Some(first) = spectra.first() else { return Ok(Vec::new()) };
    let dim = first.values.len();
    for s in spectra {
        let mut all = [Some(&s.values), s.exact.as_ref().map(|e| &e.values)].into_iter().flatten();
        if let Some(values) = all.find(|v| v.len() != dim) {
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

/// The spectra of a set of points, summarised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SetRow {
    /// The points.
    pub set: Set,
    /// Number of points.
    pub count: usize,
    /// Mean of [`PointRow::mean`].
    pub mean: f64,
    /// Its standard error; `None` for one point.
    pub mean_error: Option<f64>,
    /// Mean local dimension.
    pub dimension: f64,
    /// Its standard error; `None` for one point.
    pub dimension_error: Option<f64>,
    /// Mean length of the score.
    pub score: f64,
    /// Mean asymmetry of the exact Jacobian; `None` when it was not computed.
    pub asymmetry: Option<f64>,
    /// Share of points whose exact Jacobian is negative semi-definite (Eq. 35); `None` when it was not computed.
    pub stable: Option<f64>,
}

/// The summary of a set; `None` without points.
pub fn set_row(set: Set, points: &[PointRow]) -> Option<SetRow> {
    let column = |value: fn(&PointRow) -> f64| points.iter().map(value).collect::<Vec<f64>>();
    let optional =
        |value: fn(&PointRow) -> Option<f64>| points.iter().map(value).collect::<Option<Vec<f64>>>();
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

/// Standard deviation with n - 1; `None` for one value.
fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let square: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| (square / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::curvature::Exact;

    #[test]
    fn the_dimension_counts_values_below_the_largest_gap() {
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
