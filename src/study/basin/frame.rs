//! Frames of basins of attraction.

use polars::prelude::{AnyValue, DataFrame, NamedFrom, Series};

use crate::class::Group;
use crate::frame::{
    TableError, column_f64, column_i64, column_text, flags, floats, frame, integers, strings, take, texts,
};
use crate::study::basin::{AttractorRow, AttractorSummary, BasinRow, BasinSummary, Mean};
use crate::study::subject::cell::distances;

/// One row an image: `class`, `id` (row of the samples or of the training set), `t_c`, `floor`, `ceiling`, `t_copies`,
/// `radius` (l2), `log_volume` (nats) and `recovered`, the copies that came back from each level that was tried.
///
/// # Errors
/// As [`frame`].
pub fn basin_frame(rows: &[BasinRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&BasinRow) -> f64| floats(name, rows.iter().map(of).collect());
    let whole =
        |name: &str, of: fn(&BasinRow) -> usize| integers(name, rows.iter().map(|r| of(r) as i64).collect());
    let flag = |name: &str, of: fn(&BasinRow) -> bool| flags(name, rows.iter().map(of).collect());
    let counts = |row: &BasinRow| row.recovered.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    frame(
        "basins of attraction",
        vec![
            texts("class", &rows.iter().map(|r| r.group.name()).collect::<Vec<_>>()),
            whole("id", |r| r.id),
            whole("t_c", |r| r.t_c),
            flag("floor", |r| r.floor),
            flag("ceiling", |r| r.ceiling),
            real("t_copies", |r| r.t_copies),
            real("radius", |r| r.radius),
            real("log_volume", |r| r.log_volume),
            strings("recovered", rows.iter().map(counts).collect()),
        ],
    )
}

/// The rows of [`basin_frame`].
///
/// # Errors
/// [`TableError`] for a missing column, another type, or a class or count that is none.
pub fn basin_rows(frame: &DataFrame) -> Result<Vec<BasinRow>, TableError> {
    let (group, id, t_c) = (groups(frame)?, counts(frame, "id")?, counts(frame, "t_c")?);
    let (floor, ceiling) = (column_flag(frame, "floor")?, column_flag(frame, "ceiling")?);
    let (t_copies, radius) = (column_f64(frame, "t_copies")?, column_f64(frame, "radius")?);
    let log_volume = column_f64(frame, "log_volume")?;
    column_text(frame, "recovered")?
        .into_iter()
        .enumerate()
        .map(|(i, recovered)| {
            let numbers = recovered.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>();
            Ok(BasinRow {
                group: group[i],
                id: id[i],
                t_c: t_c[i],
                floor: floor[i],
                ceiling: ceiling[i],
                t_copies: t_copies[i],
                radius: radius[i],
                log_volume: log_volume[i],
                recovered: numbers.map_err(|_| wrong("recovered", "numbers", recovered))?,
            })
        })
        .collect()
}

/// One row an image: `class`, `id`, `draws`, `count` (of them, that ended within delta of it), `share`, `low` and
/// `high`.
///
/// # Errors
/// As [`frame`].
pub fn attractors_frame(rows: &[AttractorRow]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&AttractorRow) -> f64| floats(name, rows.iter().map(of).collect());
    let whole = |name: &str, of: fn(&AttractorRow) -> usize| {
        integers(name, rows.iter().map(|r| of(r) as i64).collect())
    };
    frame(
        "attractors of noise",
        vec![
            texts("class", &rows.iter().map(|r| r.group.name()).collect::<Vec<_>>()),
            whole("id", |r| r.id),
            whole("draws", |r| r.draws),
            whole("count", |r| r.count),
            real("share", |r| r.share),
            real("low", |r| r.low),
            real("high", |r| r.high),
        ],
    )
}

/// The rows of [`attractors_frame`].
///
/// # Errors
/// As [`basin_rows`].
pub fn attractors_rows(frame: &DataFrame) -> Result<Vec<AttractorRow>, TableError> {
    let (group, id) = (groups(frame)?, counts(frame, "id")?);
    let (draws, count) = (counts(frame, "draws")?, counts(frame, "count")?);
    let (share, low, high) =
        (column_f64(frame, "share")?, column_f64(frame, "low")?, column_f64(frame, "high")?);
    let row = |i: usize| AttractorRow {
        group: group[i],
        id: id[i],
        draws: draws[i],
        count: count[i],
        share: share[i],
        low: low[i],
        high: high[i],
    };
    Ok((0..frame.height()).map(row).collect())
}

/// One row a K: `k`, `draws`, `share` (of them, that ended at a training image), `low`, `high`, `images` (whose basins
/// were searched), `reached` (of these, by a draw) and `correlation` (of ranks of draws and volume; null where there is
/// none).
///
/// # Errors
/// As [`frame`].
pub fn attractor_summary_frame(rows: &[AttractorSummary]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&AttractorSummary) -> f64| floats(name, rows.iter().map(of).collect());
    let whole = |name: &str, of: fn(&AttractorSummary) -> usize| {
        integers(name, rows.iter().map(|r| of(r) as i64).collect())
    };
    let correlations: Vec<Option<f64>> = rows.iter().map(|r| r.correlation).collect();
    frame(
        "attractors by size",
        vec![
            whole("k", |r| r.k),
            whole("draws", |r| r.draws),
            real("share", |r| r.share),
            real("low", |r| r.low),
            real("high", |r| r.high),
            whole("images", |r| r.images),
            whole("reached", |r| r.reached),
            Series::new("correlation".into(), correlations).into(),
        ],
    )
}

/// The rows of [`attractor_summary_frame`].
///
/// # Errors
/// As [`basin_rows`].
pub fn attractor_summary_rows(frame: &DataFrame) -> Result<Vec<AttractorSummary>, TableError> {
    let (k, draws) = (counts(frame, "k")?, counts(frame, "draws")?);
    let (images, reached) = (counts(frame, "images")?, counts(frame, "reached")?);
    let (share, low, high) =
        (column_f64(frame, "share")?, column_f64(frame, "low")?, column_f64(frame, "high")?);
    let correlation = distances(frame, "correlation")?;
    let row = |i: usize| AttractorSummary {
        k: k[i],
        draws: draws[i],
        share: share[i],
        low: low[i],
        high: high[i],
        images: images[i],
        reached: reached[i],
        correlation: correlation[i],
    };
    Ok((0..frame.height()).map(row).collect())
}

type Of = fn(&BasinSummary) -> Mean;

/// The means of a summary, and the prefix of their columns.
const MEANS: [(&str, Of); 3] =
    [("log_volume", |r| r.log_volume), ("critical_time", |r| r.critical_time), ("radius", |r| r.radius)];

/// One row a class and K: `k`, `class`, `images`, `too_few`, `floor`, `ceiling`, and for `log_volume` (nats),
/// `critical_time` and `radius` mean, `_median`, `_error` (standard error; NaN of one image), `_low` and `_high`.
///
/// # Errors
/// As [`frame`].
pub fn basin_summary_frame(rows: &[BasinSummary]) -> Result<DataFrame, TableError> {
    let whole = |name: &str, of: fn(&BasinSummary) -> usize| {
        integers(name, rows.iter().map(|r| of(r) as i64).collect())
    };
    let mut columns = vec![
        whole("k", |r| r.k),
        texts("class", &rows.iter().map(|r| r.group.name()).collect::<Vec<_>>()),
        whole("images", |r| r.images),
        flags("too_few", rows.iter().map(|r| r.too_few).collect()),
        whole("floor", |r| r.floor),
        whole("ceiling", |r| r.ceiling),
    ];
    for (prefix, mean) in MEANS {
        let real =
            |name: String, of: fn(&Mean) -> f64| floats(&name, rows.iter().map(|r| of(&mean(r))).collect());
        columns.extend([
            real(prefix.into(), |m| m.mean),
            real(format!("{prefix}_median"), |m| m.median),
            real(format!("{prefix}_error"), |m| m.error.unwrap_or(f64::NAN)),
            real(format!("{prefix}_low"), |m| m.low),
            real(format!("{prefix}_high"), |m| m.high),
        ]);
    }
    frame("basins by class", columns)
}

/// The rows of [`basin_summary_frame`].
///
/// # Errors
/// As [`basin_rows`].
pub fn basin_summary_rows(frame: &DataFrame) -> Result<Vec<BasinSummary>, TableError> {
    let (group, k, images) = (groups(frame)?, counts(frame, "k")?, counts(frame, "images")?);
    let (floor, ceiling) = (counts(frame, "floor")?, counts(frame, "ceiling")?);
    let too_few = column_flag(frame, "too_few")?;
    let means = |prefix: &str| -> Result<Vec<Mean>, TableError> {
        let of = |name: &str| column_f64(frame, &format!("{prefix}{name}"));
        let (mean, median, error) = (of("")?, of("_median")?, of("_error")?);
        let (low, high) = (of("_low")?, of("_high")?);
        let row = |i: usize| Mean {
            mean: mean[i],
            median: median[i],
            error: Some(error[i]).filter(|e| !e.is_nan()),
            low: low[i],
            high: high[i],
        };
        Ok((0..mean.len()).map(row).collect())
    };
    let (log_volume, critical_time, radius) =
        (means("log_volume")?, means("critical_time")?, means("radius")?);
    let row = |i: usize| BasinSummary {
        k: k[i],
        group: group[i],
        images: images[i],
        too_few: too_few[i],
        floor: floor[i],
        ceiling: ceiling[i],
        log_volume: log_volume[i],
        critical_time: critical_time[i],
        radius: radius[i],
    };
    Ok((0..frame.height()).map(row).collect())
}

fn wrong(name: &str, wanted: &'static str, found: String) -> TableError {
    TableError::WrongType { name: name.to_owned(), wanted, found }
}

fn groups(frame: &DataFrame) -> Result<Vec<Group>, TableError> {
    let names = column_text(frame, "class")?;
    names.into_iter().map(|name| name.parse().map_err(|_| wrong("class", "names of classes", name))).collect()
}

fn counts(frame: &DataFrame, name: &str) -> Result<Vec<usize>, TableError> {
    let values = column_i64(frame, name)?.into_iter();
    values.map(|v| usize::try_from(v).map_err(|_| wrong(name, "counts", v.to_string()))).collect()
}

fn column_flag(frame: &DataFrame, name: &str) -> Result<Vec<bool>, TableError> {
    take(frame, name, "yes or no", |v| match v {
        AnyValue::Boolean(v) => Some(*v),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let one = BasinRow {
            group: Group::SPURIOUS,
            id: 3,
            t_c: 26,
            floor: false,
            ceiling: false,
            t_copies: 28.5,
            radius: 0.75,
            log_volume: -12.5,
            recovered: vec![10, 9, 0],
        };
        let other = BasinRow { group: Group::Training, floor: true, recovered: vec![], ..one.clone() };
        let rows = [one, other];
        let frame = basin_frame(&rows).unwrap();
        assert_eq!(basin_rows(&frame).unwrap(), rows);
        assert!(basin_rows(&frame.drop("floor").unwrap()).is_err());
        let shares = [AttractorRow {
            group: Group::MEMORIZED,
            id: 1,
            draws: 100,
            count: 25,
            share: 0.25,
            low: 0.125,
            high: 0.5,
        }];
        assert_eq!(attractors_rows(&attractors_frame(&shares).unwrap()).unwrap(), shares);
        let one = AttractorSummary {
            k: 16,
            draws: 100,
            share: 0.5,
            low: 0.25,
            high: 0.75,
            images: 12,
            reached: 9,
            correlation: Some(-0.5),
        };
        let summary = [one, AttractorSummary { k: 32, correlation: None, ..one }];
        let frame = attractor_summary_frame(&summary).unwrap();
        assert_eq!(attractor_summary_rows(&frame).unwrap(), summary);
    }

    #[test]
    fn summaries_come_back_as_they_were() {
        let mean = |v, error| Mean { mean: v, median: v + 1.0, error, low: v - 1.0, high: v + 2.0 };
        let one = BasinSummary {
            k: 64,
            group: Group::GENERALIZED,
            images: 12,
            too_few: false,
            floor: 1,
            ceiling: 2,
            log_volume: mean(-3.0, Some(0.5)),
            critical_time: mean(26.0, Some(4.0)),
            radius: mean(0.5, Some(0.125)),
        };
        let alone = mean(1.0, None);
        let other = BasinSummary { too_few: true, images: 1, log_volume: alone, ..one.clone() };
        let rows = [one, other];
        assert_eq!(basin_summary_rows(&basin_summary_frame(&rows).unwrap()).unwrap(), rows);
    }
}
