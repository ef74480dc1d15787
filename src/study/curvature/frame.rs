//! Frames of curvature.

use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use crate::frame::{TableError, column_f64, column_i64, column_text, floats, frame, integers, texts};
use crate::study::curvature::{CurveRow, PointRow, Set, SetRow, Spectrum};
use crate::study::subject::cell::distances as optional;

/// One row a point and value: `sample`, `index` (from 1, values descending), `value` and `exact` (null where the
/// Jacobian itself was not asked for).
///
/// # Errors
/// As [`frame`].
pub fn spectra_frame(spectra: &[Spectrum]) -> Result<DataFrame, TableError> {
    let each = || spectra.iter().flat_map(|s| (0..s.values.len()).map(move |i| (s, i)));
    let exact = each().map(|(s, i)| s.exact.as_ref().map(|e| e.values[i])).collect();
    frame(
        "spectra",
        vec![
            integers("sample", each().map(|(s, _)| s.sample as i64).collect()),
            integers("index", each().map(|(_, i)| i as i64 + 1).collect()),
            floats("value", each().map(|(s, i)| s.values[i]).collect()),
            nullable("exact", exact),
        ],
    )
}

/// One row a point: `sample`, `score`, `mean`, `dimension`, `gap`, and of the exact Jacobian `exact_mean`,
/// `exact_dimension`, `asymmetry` and `largest`, null where it was not asked for.
///
/// # Errors
/// As [`frame`].
pub fn points_frame(rows: &[PointRow]) -> Result<DataFrame, TableError> {
    let real = |name, of: fn(&PointRow) -> f64| floats(name, rows.iter().map(of).collect());
    let exact = |name, of: fn(&PointRow) -> Option<f64>| nullable(name, rows.iter().map(of).collect());
    let dimensions: Vec<Option<i64>> = rows.iter().map(|r| r.exact_dimension.map(|d| d as i64)).collect();
    frame(
        "curvature of points",
        vec![
            integers("sample", rows.iter().map(|r| r.sample as i64).collect()),
            real("score", |r| r.score),
            real("mean", |r| r.mean),
            integers("dimension", rows.iter().map(|r| r.dimension as i64).collect()),
            real("gap", |r| r.gap),
            exact("exact_mean", |r| r.exact_mean),
            Series::new("exact_dimension".into(), dimensions).into(),
            exact("asymmetry", |r| r.asymmetry),
            exact("largest", |r| r.largest),
        ],
    )
}

/// Mean spectra, one row a set and value: `class`, `k`, `sigma`, `count`, `index`, `mean`, and `std` and `exact`, null
/// where there are none.
///
/// # Errors
/// As [`frame`].
pub fn curves_frame(rows: &[CurveRow]) -> Result<DataFrame, TableError> {
    let mut columns = sets(rows, |r| (r.set, r.count));
    columns.extend([
        integers("index", rows.iter().map(|r| r.index as i64).collect()),
        floats("mean", rows.iter().map(|r| r.mean).collect()),
        nullable("std", rows.iter().map(|r| r.std).collect()),
        nullable("exact", rows.iter().map(|r| r.exact).collect()),
    ]);
    frame("mean spectra", columns)
}

/// The rows of [`curves_frame`].
///
/// # Errors
/// [`TableError`] for a missing column, another type, or a class that there is not.
pub fn curves_rows(frame: &DataFrame) -> Result<Vec<CurveRow>, TableError> {
    let (index, mean) = (column_i64(frame, "index")?, column_f64(frame, "mean")?);
    let (std, exact) = (optional(frame, "std")?, optional(frame, "exact")?);
    let row = |(i, (set, count))| CurveRow {
        set,
        count,
        index: whole(index[i]),
        mean: mean[i],
        std: std[i],
        exact: exact[i],
    };
    Ok(read_sets(frame)?.into_iter().enumerate().map(row).collect())
}

/// One row a set: `class`, `k`, `sigma`, `count`, `mean`, `mean_error`, `dimension`, `dimension_error`, `score`,
/// `asymmetry` and `stable`; errors of single points are null, and so is what the exact Jacobian would say.
///
/// # Errors
/// As [`frame`].
pub fn sets_frame(rows: &[SetRow]) -> Result<DataFrame, TableError> {
    let real = |name, of: fn(&SetRow) -> f64| floats(name, rows.iter().map(of).collect());
    let some = |name, of: fn(&SetRow) -> Option<f64>| nullable(name, rows.iter().map(of).collect());
    let mut columns = sets(rows, |r| (r.set, r.count));
    columns.extend([
        real("mean", |r| r.mean),
        some("mean_error", |r| r.mean_error),
        real("dimension", |r| r.dimension),
        some("dimension_error", |r| r.dimension_error),
        real("score", |r| r.score),
        some("asymmetry", |r| r.asymmetry),
        some("stable", |r| r.stable),
    ]);
    frame("curvature", columns)
}

/// The rows of [`sets_frame`].
///
/// # Errors
/// As [`curves_rows`].
pub fn sets_rows(frame: &DataFrame) -> Result<Vec<SetRow>, TableError> {
    let (mean, dimension, score) =
        (column_f64(frame, "mean")?, column_f64(frame, "dimension")?, column_f64(frame, "score")?);
    let (mean_error, dimension_error) = (optional(frame, "mean_error")?, optional(frame, "dimension_error")?);
    let (asymmetry, stable) = (optional(frame, "asymmetry")?, optional(frame, "stable")?);
    let row = |(i, (set, count))| SetRow {
        set,
        count,
        mean: mean[i],
        mean_error: mean_error[i],
        dimension: dimension[i],
        dimension_error: dimension_error[i],
        score: score[i],
        asymmetry: asymmetry[i],
        stable: stable[i],
    };
    Ok(read_sets(frame)?.into_iter().enumerate().map(row).collect())
}

fn nullable(name: &str, values: Vec<Option<f64>>) -> Column {
    Series::new(name.into(), values).into()
}

fn sets<R>(rows: &[R], of: impl Fn(&R) -> (Set, usize)) -> Vec<Column> {
    let names: Vec<&str> = rows.iter().map(|r| of(r).0.group.name()).collect();
    vec![
        texts("class", &names),
        integers("k", rows.iter().map(|r| of(r).0.k as i64).collect()),
        floats("sigma", rows.iter().map(|r| of(r).0.sigma).collect()),
        integers("count", rows.iter().map(|r| of(r).1 as i64).collect()),
    ]
}

fn read_sets(frame: &DataFrame) -> Result<Vec<(Set, usize)>, TableError> {
    let (names, k) = (column_text(frame, "class")?, column_i64(frame, "k")?);
    let (sigma, count) = (column_f64(frame, "sigma")?, column_i64(frame, "count")?);
    names
        .into_iter()
        .enumerate()
        .map(|(i, name)| {
            let wrong = |_| TableError::WrongType {
                name: "class".into(),
                wanted: "names of classes",
                found: name.clone(),
            };
            let group = name.parse().map_err(wrong)?;
            Ok((Set { group, k: whole(k[i]), sigma: sigma[i] }, whole(count[i])))
        })
        .collect()
}

fn whole(v: i64) -> usize {
    usize::try_from(v).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;
    use crate::study::curvature::Exact;

    #[test]
    fn rows_come_back_as_they_were() {
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
        assert_eq!(column_i64(&frame, "sample").unwrap(), [9, 9, 4, 4]);
        assert_eq!(column_i64(&frame, "index").unwrap(), [1, 2, 1, 2]);
        assert_eq!(column_f64(&frame, "value").unwrap(), [5.0, 2.0, 5.0, 2.0]);
        assert_eq!(optional(&frame, "exact").unwrap(), [Some(4.0), Some(3.0), None, None]);
        let row = PointRow { sample: 9, dimension: 3, exact_dimension: Some(2), ..PointRow::default() };
        let frame = points_frame(&[row, PointRow { exact_dimension: None, ..row }]).unwrap();
        assert_eq!(column_i64(&frame, "dimension").unwrap(), [3, 3]);
        assert_eq!(frame.column("exact_dimension").unwrap().null_count(), 1);
        assert_eq!(optional(&frame, "largest").unwrap(), [None, None]);
    }
}
