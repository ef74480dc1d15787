//! Frames of relative energies. Each has a column `sign` that states [`SIGN`], as a table may be read alone.

use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use crate::class::Group;
use crate::frame::{
    TableError, column_f64, column_i64, column_text, flags, floats, frame, integers, strings, texts,
};
use crate::study::energy::{CurveRow, GapRow, LoopRow, PotentialRow, SIGN};
use crate::study::subject::cell::distances;

/// What stands for the mean over references in the column `reference` of [`gaps_frame`].
const ALL: &str = "all";

fn sign(rows: usize) -> Column {
    texts("sign", &vec![SIGN; rows])
}

fn classes(of: impl Iterator<Item = Group>) -> Column {
    texts("class", &of.map(Group::name).collect::<Vec<_>>())
}

fn whole(name: &str, of: impl Iterator<Item = usize>) -> Column {
    integers(name, of.map(|v| v as i64).collect())
}

/// One row an image and reference: `class`, `sample`, `reference`, `u`, and `error`, missing where no tolerance was
/// asked for.
///
/// # Errors
/// As [`frame`].
pub fn potential_frame(rows: &[PotentialRow]) -> Result<DataFrame, TableError> {
    frame(
        "relative energies",
        vec![
            classes(rows.iter().map(|r| r.class)),
            whole("sample", rows.iter().map(|r| r.sample)),
            whole("reference", rows.iter().map(|r| r.reference)),
            floats("u", rows.iter().map(|r| r.u).collect()),
            Series::new("error".into(), rows.iter().map(|r| r.error).collect::<Vec<_>>()).into(),
            sign(rows.len()),
        ],
    )
}

/// The rows of [`potential_frame`].
///
/// # Errors
/// [`TableError`] for a missing column, another type, an unknown class.
pub fn potential_rows(frame: &DataFrame) -> Result<Vec<PotentialRow>, TableError> {
    let (class, sample, reference) =
        (groups(frame)?, column_usize(frame, "sample")?, column_usize(frame, "reference")?);
    let (u, error) = (column_f64(frame, "u")?, distances(frame, "error")?);
    let row = |i: usize| PotentialRow {
        class: class[i],
        sample: sample[i],
        reference: reference[i],
        u: u[i],
        error: error[i],
    };
    Ok((0..u.len()).map(row).collect())
}

/// One row a class, reference and point: `class`, `reference`, `alpha`, `n`, `mean` and `std` of u(alpha).
///
/// # Errors
/// As [`frame`].
pub fn curves_frame(rows: &[CurveRow]) -> Result<DataFrame, TableError> {
    frame(
        "relative energies along arcs",
        vec![
            classes(rows.iter().map(|r| r.class)),
            whole("reference", rows.iter().map(|r| r.reference)),
            floats("alpha", rows.iter().map(|r| r.alpha).collect()),
            whole("n", rows.iter().map(|r| r.n)),
            floats("mean", rows.iter().map(|r| r.mean).collect()),
            floats("std", rows.iter().map(|r| r.std).collect()),
            sign(rows.len()),
        ],
    )
}

/// The rows of [`curves_frame`].
///
/// # Errors
/// As [`potential_rows`].
pub fn curves_rows(frame: &DataFrame) -> Result<Vec<CurveRow>, TableError> {
    let (class, reference, n) =
        (groups(frame)?, column_usize(frame, "reference")?, column_usize(frame, "n")?);
    let (alpha, mean, std) =
        (column_f64(frame, "alpha")?, column_f64(frame, "mean")?, column_f64(frame, "std")?);
    let row = |i: usize| CurveRow {
        class: class[i],
        reference: reference[i],
        alpha: alpha[i],
        n: n[i],
        mean: mean[i],
        std: std[i],
    };
    Ok((0..n.len()).map(row).collect())
}

/// One row a circuit: `class`, `sample`, `other`, `reference`, `circulation`, `error`, `u` and `u_points`.
///
/// # Errors
/// As [`frame`].
pub fn loops_frame(rows: &[LoopRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&LoopRow) -> f64| floats(name, rows.iter().map(of).collect());
    frame(
        "circuits",
        vec![
            classes(rows.iter().map(|r| r.class)),
            whole("sample", rows.iter().map(|r| r.sample)),
            whole("other", rows.iter().map(|r| r.other)),
            whole("reference", rows.iter().map(|r| r.reference)),
            real("circulation", |r| r.circulation),
            real("error", |r| r.error),
            real("u", |r| r.u),
            real("u_points", |r| r.u_points),
            sign(rows.len()),
        ],
    )
}

/// The rows of [`loops_frame`].
///
/// # Errors
/// As [`potential_rows`].
pub fn loops_rows(frame: &DataFrame) -> Result<Vec<LoopRow>, TableError> {
    let class = groups(frame)?;
    let [sample, other, reference] = ["sample", "other", "reference"].map(|name| column_usize(frame, name));
    let (sample, other, reference) = (sample?, other?, reference?);
    let [circulation, error, u, points] =
        ["circulation", "error", "u", "u_points"].map(|name| column_f64(frame, name));
    let (circulation, error, u, points) = (circulation?, error?, u?, points?);
    let row = |i: usize| LoopRow {
        class: class[i],
        sample: sample[i],
        other: other[i],
        reference: reference[i],
        circulation: circulation[i],
        error: error[i],
        u: u[i],
        u_points: points[i],
    };
    Ok((0..class.len()).map(row).collect())
}

/// One row a class and reference, and one for all references together, whose `reference` is "all": `k`, `class`,
/// `reference`, `n`, `few`, `mean`, `std`, `gap`, `standard_error`, `low`, `high` (of the 95 percent interval),
/// `between`, `loops`, `circulation`, `circulation_error`, `size`, and `relative_circulation`, missing without
/// circuits.
///
/// # Errors
/// As [`frame`].
pub fn gaps_frame(rows: &[GapRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&GapRow) -> f64| floats(name, rows.iter().map(of).collect());
    let reference = |r: &GapRow| r.reference.map_or_else(|| ALL.to_owned(), |place| place.to_string());
    let relative: Vec<Option<f64>> = rows.iter().map(GapRow::relative_circulation).collect();
    frame(
        "relative energy gaps",
        vec![
            whole("k", rows.iter().map(|r| r.k)),
            classes(rows.iter().map(|r| r.class)),
            strings("reference", rows.iter().map(reference).collect()),
            whole("n", rows.iter().map(|r| r.n)),
            flags("few", rows.iter().map(|r| r.few).collect()),
            real("mean", |r| r.mean),
            real("std", |r| r.std),
            real("gap", |r| r.gap),
            real("standard_error", |r| r.standard_error),
            real("low", |r| r.interval[0]),
            real("high", |r| r.interval[1]),
            real("between", |r| r.between),
            whole("loops", rows.iter().map(|r| r.loops)),
            real("circulation", |r| r.circulation),
            real("circulation_error", |r| r.circulation_error),
            real("size", |r| r.size),
            Series::new("relative_circulation".into(), relative).into(),
            sign(rows.len()),
        ],
    )
}

/// The rows of [`gaps_frame`].
///
/// # Errors
/// As [`potential_rows`].
pub fn gaps_rows(frame: &DataFrame) -> Result<Vec<GapRow>, TableError> {
    let class = groups(frame)?;
    let (k, n, loops) = (column_usize(frame, "k")?, column_usize(frame, "n")?, column_usize(frame, "loops")?);
    let few = column_flag(frame, "few")?;
    let references = column_text(frame, "reference")?;
    let mut reference = Vec::with_capacity(references.len());
    for text in references {
        reference.push(match text.as_str() {
            ALL => None,
            place => Some(place.parse::<usize>().map_err(|_| wrong("reference", "places or all", place))?),
        });
    }
    let names = [
        "mean",
        "std",
        "gap",
        "standard_error",
        "low",
        "high",
        "between",
        "circulation",
        "circulation_error",
        "size",
    ];
    let columns = names.iter().map(|name| column_f64(frame, name)).collect::<Result<Vec<_>, _>>()?;
    let row = |i: usize| GapRow {
        k: k[i],
        class: class[i],
        reference: reference[i],
        n: n[i],
        few: few[i],
        mean: columns[0][i],
        std: columns[1][i],
        gap: columns[2][i],
        standard_error: columns[3][i],
        interval: [columns[4][i], columns[5][i]],
        between: columns[6][i],
        loops: loops[i],
        circulation: columns[7][i],
        circulation_error: columns[8][i],
        size: columns[9][i],
    };
    Ok((0..class.len()).map(row).collect())
}

fn wrong(name: &str, wanted: &'static str, found: impl ToString) -> TableError {
    TableError::WrongType { name: name.into(), wanted, found: found.to_string() }
}

fn groups(frame: &DataFrame) -> Result<Vec<Group>, TableError> {
    let names = column_text(frame, "class")?;
    names.iter().map(|name| name.parse().map_err(|_| wrong("class", "names of classes", name))).collect()
}

fn column_usize(frame: &DataFrame, name: &str) -> Result<Vec<usize>, TableError> {
    let values = column_i64(frame, name)?;
    values.into_iter().map(|v| usize::try_from(v).map_err(|_| wrong(name, "numbers from 0 on", v))).collect()
}

fn column_flag(frame: &DataFrame, name: &str) -> Result<Vec<bool>, TableError> {
    crate::frame::take(frame, name, "yes and no", |v| match v {
        polars::prelude::AnyValue::Boolean(v) => Some(*v),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_say_their_sign() {
        let one =
            PotentialRow { class: Group::SPURIOUS, sample: 7, reference: 3, u: -1.5, error: Some(0.25) };
        let images = [one, PotentialRow { class: Group::Training, error: None, ..one }];
        let curves =
            [CurveRow { class: Group::MEMORIZED, reference: 3, alpha: 0.5, n: 9, mean: 1.5, std: 0.125 }];
        let loops = [LoopRow {
            class: Group::GENERALIZED,
            sample: 4,
            other: 5,
            reference: 6,
            circulation: 0.5,
            error: 0.25,
            u: 1.0,
            u_points: 1.25,
        }];
        let gap = GapRow {
            k: 64,
            class: Group::SPURIOUS,
            reference: Some(12),
            n: 100,
            few: true,
            mean: 1.0,
            std: 2.0,
            gap: 3.0,
            standard_error: 4.0,
            interval: [5.0, 6.0],
            between: 7.0,
            loops: 8,
            circulation: 9.0,
            circulation_error: 10.0,
            size: 11.0,
        };
        let gaps = [gap, GapRow { reference: None, few: false, loops: 0, ..gap }];
        let frames = [
            potential_frame(&images).unwrap(),
            curves_frame(&curves).unwrap(),
            loops_frame(&loops).unwrap(),
            gaps_frame(&gaps).unwrap(),
        ];
        assert_eq!(potential_rows(&frames[0]).unwrap(), images);
        assert_eq!(curves_rows(&frames[1]).unwrap(), curves);
        assert_eq!(loops_rows(&frames[2]).unwrap(), loops);
        assert_eq!(gaps_rows(&frames[3]).unwrap(), gaps);
        assert_eq!(distances(&frames[3], "relative_circulation").unwrap(), [Some(9.0 / 11.0), None]);
        for frame in &frames {
            assert!(column_text(frame, "sign").unwrap().iter().all(|s| s == SIGN));
            assert!(frame.column("sign").unwrap().len() == frame.height());
        }
    }
}
