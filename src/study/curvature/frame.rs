//! Tables of curvature.

use polars::prelude::DataFrame;

use crate::frame::{Item, Table, TableError, columns, frame};
use crate::study::curvature::{CurveRow, PointRow, SetRow, Spectra, Spectrum};
use crate::study::subject::networks_frame;

impl Spectra {
    /// The curvature of each set of images, for every network.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        let frame = networks_frame(&self.sets, sets_frame)?;
        Ok(Table::from_frame("Each set of images", frame).rows(200).digits(3))
    }
}

/// One row for each point and singular value: `sample`, `index` (from 1, values descending), `value`, and `exact`, null
/// where the exact Jacobian was not computed.
///
/// # Errors
/// As [`frame`].
pub fn spectra_frame(spectra: &[Spectrum]) -> Result<DataFrame, TableError> {
    let each = || spectra.iter().flat_map(|s| (0..s.values.len()).map(move |i| (s, i)));
    let exact = each().map(|(s, i)| s.exact.as_ref().map(|e| e.values[i])).collect();
    frame(
        "spectra",
        vec![
            Item::column("sample", each().map(|(s, _)| s.sample).collect()),
            Item::column("index", each().map(|(_, i)| i + 1).collect()),
            Item::column("value", each().map(|(s, i)| s.values[i]).collect()),
            <Option<f64>>::column("exact", exact),
        ],
    )
}

columns!(PointRow, "curvature of points",
    /// One row for each point: `sample`, `score`, `mean`, `dimension`, `gap`, and of the exact Jacobian `exact_mean`,
    /// `exact_dimension`, `asymmetry` and `largest`, null where it was not computed.
    points_frame, {
    "sample": (sample),
    "score": (score),
    "mean": (mean),
    "dimension": (dimension),
    "gap": (gap),
    "exact_mean": (exact_mean),
    "exact_dimension": (exact_dimension),
    "asymmetry": (asymmetry),
    "largest": (largest),
});

columns!(CurveRow, "mean spectra",
    /// Mean spectra, one row for each set and singular value: `class`, `k`, `sigma`, `count`, `index`, `mean`, and `std`
    /// and `exact`, null where they are not defined.
    curves_frame, curves_rows, {
    "class": (set.group),
    "k": (set.k),
    "sigma": (set.sigma),
    "count": (count),
    "index": (index),
    "mean": (mean),
    "std": (std),
    "exact": (exact),
});

columns!(SetRow, "curvature",
    /// One row for each set: `class`, `k`, `sigma`, `count`, `mean`, `mean_error`, `dimension`, `dimension_error`,
    /// `score`, `asymmetry` and `stable`. Errors of single points are null, as are values of an exact Jacobian that was
    /// not computed.
    sets_frame, sets_rows, {
    "class": (set.group),
    "k": (set.k),
    "sigma": (set.sigma),
    "count": (count),
    "mean": (mean),
    "mean_error": (mean_error),
    "dimension": (dimension),
    "dimension_error": (dimension_error),
    "score": (score),
    "asymmetry": (asymmetry),
    "stable": (stable),
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;
    use crate::study::curvature::{Exact, Set};

    #[test]
    fn rows_survive_writing_and_reading() {
        let set = Set { group: Group::SPURIOUS, k: 2000, sigma: 0.063 };
        let one = CurveRow { set, count: 7, index: 3, mean: 0.1, std: Some(0.2), exact: Some(0.3) };
        let other =
            CurveRow { set: Set { group: Group::Training, ..set }, count: 1, std: None, exact: None, ..one };
        let rows = [one, other];
        assert_eq!(curves_rows(&curves_frame(&rows).unwrap()).unwrap(), rows);
        assert_eq!(curves_rows(&curves_frame(&[]).unwrap()).unwrap(), []);
        let one = SetRow {
            set,
            count: 7,
            mean: 0.1,
            mean_error: Some(0.2),
            dimension: 0.3,
            dimension_error: Some(0.4),
            score: 0.5,
            asymmetry: Some(0.6),
            stable: Some(0.7),
        };
        let other = SetRow { mean_error: None, dimension_error: None, asymmetry: None, stable: None, ..one };
        let rows = [one, other];
        assert_eq!(sets_rows(&sets_frame(&rows).unwrap()).unwrap(), rows);
    }

    #[test]
    fn every_value_of_a_spectrum_has_its_row() {
        let exact = Exact { values: vec![4.0, 3.0], asymmetry: 0.1, largest: -1.0 };
        let with = Spectrum { sample: 9, score: 0.5, values: vec![5.0, 2.0], exact: Some(exact) };
        let without = Spectrum { sample: 4, exact: None, ..with.clone() };
        let frame = spectra_frame(&[with, without]).unwrap();
        assert_eq!(usize::read(&frame, "sample").unwrap(), [9, 9, 4, 4]);
        assert_eq!(usize::read(&frame, "index").unwrap(), [1, 2, 1, 2]);
        assert_eq!(f64::read(&frame, "value").unwrap(), [5.0, 2.0, 5.0, 2.0]);
        assert_eq!(<Option<f64>>::read(&frame, "exact").unwrap(), [Some(4.0), Some(3.0), None, None]);
        let row = PointRow { sample: 9, dimension: 3, exact_dimension: Some(2), ..PointRow::default() };
        let frame = points_frame(&[row, PointRow { exact_dimension: None, ..row }]).unwrap();
        assert_eq!(usize::read(&frame, "dimension").unwrap(), [3, 3]);
        assert_eq!(frame.column("exact_dimension").unwrap().null_count(), 1);
        assert_eq!(<Option<f64>>::read(&frame, "largest").unwrap(), [None, None]);
    }
}
