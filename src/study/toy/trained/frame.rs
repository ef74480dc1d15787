//! Frames of the trained toy.

use polars::prelude::{Column, DataFrame};

use crate::frame::{TableError, column_f64, column_i64, column_text, floats, frame, integers, texts};
use crate::study::toy::trained::{AttractorRow, ClusterRow, GridRow, SummaryRow};

/// A column of real numbers: its name, how a row's number is got, and how it is set.
type Real<R> = (&'static str, fn(&R) -> f64, fn(&mut R, f64));
/// A column of counts.
type Whole<R> = (&'static str, fn(&R) -> usize, fn(&mut R, usize));

/// Columns by name and field.
macro_rules! columns {
    ($($name:literal: $($field:ident).+),* $(,)?) => {
        &[$(($name, |r| r.$($field).+, |r, v| r.$($field).+ = v)),*]
    };
}

const GRID: &[Real<GridRow>] = columns![
    "x": x, "y": y, "trained": trained, "gaussian_prior": gaussian_prior, "exact": exact, "ring": ring,
];
const ATTRACTORS: &[Real<AttractorRow>] =
    columns!["x": x, "y": y, "to_memory": to_memory, "contraction": contraction, "share": share];
const CLUSTERS: &[Real<ClusterRow>] = columns!["x": x, "y": y, "share": share, "to_memory": to_memory];
const SUMMARY: &[Real<SummaryRow>] = columns![
    "beta": beta,
    "rms": misfit.rms,
    "max": misfit.max,
    "region_rms": misfit.region_rms,
    "region_max": misfit.region_max,
    "gaussian_prior_rms": gaussian_prior.rms,
    "gaussian_prior_max": gaussian_prior.max,
    "gaussian_prior_region_rms": gaussian_prior.region_rms,
    "gaussian_prior_region_max": gaussian_prior.region_max,
    "ring_rms": ring.rms,
    "ring_max": ring.max,
    "ring_region_rms": ring.region_rms,
    "ring_region_max": ring.region_max,
    "divergence": divergence,
    "divergence_error": divergence_error,
    "offset": offset,
    "offset_error": offset_error,
    "offset_exact": offset_exact,
    "farthest_pair": farthest_pair,
    "sample_to_memory": sample_to_memory,
    "sample_to_circle": sample_to_circle,
];
const COUNTS: &[Whole<SummaryRow>] = columns![
    "k": k,
    "region_points": region_points,
    "attractors": attractors,
    "exact_attractors": exact_attractors,
    "paired": paired,
    "lost": lost,
    "clusters": clusters,
];

/// One row a point of the grid.
///
/// # Errors
/// As [`frame`].
pub fn grid_frame(rows: &[GridRow]) -> Result<DataFrame, TableError> {
    frame("trained energies", written::<GridRow>(rows, columns!["k": k], GRID))
}

/// The rows of [`grid_frame`].
///
/// # Errors
/// [`TableError`] for a missing column or another type.
pub fn grid_rows(frame: &DataFrame) -> Result<Vec<GridRow>, TableError> {
    read::<GridRow>(frame, columns!["k": k], GRID)
}

/// One row an attractor; `to_other` is NaN where the other side has none.
///
/// # Errors
/// As [`frame`].
pub fn attractors_frame(rows: &[AttractorRow]) -> Result<DataFrame, TableError> {
    let word = |name: &str, of: fn(&AttractorRow) -> &'static str| {
        texts(name, &rows.iter().map(of).collect::<Vec<_>>())
    };
    let mut columns = written::<AttractorRow>(rows, columns!["k": k], ATTRACTORS);
    columns.extend([
        word("of", |r| if r.trained { "network" } else { "exact" }),
        word("kind", |r| if r.memorized { "memorized" } else { "spurious" }),
        word("paired", |r| if r.paired { "yes" } else { "no" }),
        floats("to_other", rows.iter().map(|r| r.to_other.unwrap_or(f64::NAN)).collect()),
    ]);
    frame("trained attractors", columns)
}

/// The rows of [`attractors_frame`].
///
/// # Errors
/// As [`grid_rows`].
pub fn attractors_rows(frame: &DataFrame) -> Result<Vec<AttractorRow>, TableError> {
    let mut rows = read::<AttractorRow>(frame, columns!["k": k], ATTRACTORS)?;
    let (of, kind, paired) =
        (column_text(frame, "of")?, column_text(frame, "kind")?, column_text(frame, "paired")?);
    let other = column_f64(frame, "to_other")?;
    for (i, row) in rows.iter_mut().enumerate() {
        row.trained = of[i] == "network";
        row.memorized = kind[i] == "memorized";
        row.paired = paired[i] == "yes";
        row.to_other = Some(other[i]).filter(|d| !d.is_nan());
    }
    Ok(rows)
}

/// One row a cluster.
///
/// # Errors
/// As [`frame`].
pub fn clusters_frame(rows: &[ClusterRow]) -> Result<DataFrame, TableError> {
    frame("clusters of samples", written::<ClusterRow>(rows, columns!["k": k], CLUSTERS))
}

/// The rows of [`clusters_frame`].
///
/// # Errors
/// As [`grid_rows`].
pub fn clusters_rows(frame: &DataFrame) -> Result<Vec<ClusterRow>, TableError> {
    read::<ClusterRow>(frame, columns!["k": k], CLUSTERS)
}

/// One row a network.
///
/// # Errors
/// As [`frame`].
pub fn summary_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    frame("trained toy", written(rows, COUNTS, SUMMARY))
}

/// Of [`summary_frame`] the errors of the energies.
///
/// # Errors
/// As [`frame`].
pub fn errors_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    some(
        rows,
        &[
            "k",
            "region_points",
            "rms",
            "max",
            "region_rms",
            "region_max",
            "ring_region_rms",
            "divergence",
            "divergence_error",
        ],
    )
}

/// Of [`summary_frame`] what the prior does.
///
/// # Errors
/// As [`frame`].
pub fn prior_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    some(
        rows,
        &[
            "k",
            "offset",
            "offset_error",
            "offset_exact",
            "region_rms",
            "gaussian_prior_region_rms",
            "region_max",
            "gaussian_prior_region_max",
        ],
    )
}

/// Of [`summary_frame`] attractors, clusters and samples.
///
/// # Errors
/// As [`frame`].
pub fn counts_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    some(
        rows,
        &[
            "k",
            "attractors",
            "exact_attractors",
            "paired",
            "farthest_pair",
            "lost",
            "clusters",
            "sample_to_memory",
            "sample_to_circle",
        ],
    )
}

fn some(rows: &[SummaryRow], names: &[&str]) -> Result<DataFrame, TableError> {
    summary_frame(rows)?
        .select(names.iter().copied())
        .map_err(|e| TableError::Frame { caption: "trained toy".into(), reason: e.to_string() })
}

/// The rows of [`summary_frame`].
///
/// # Errors
/// As [`grid_rows`].
pub fn summary_rows(frame: &DataFrame) -> Result<Vec<SummaryRow>, TableError> {
    read(frame, COUNTS, SUMMARY)
}

fn written<R>(rows: &[R], counts: &[Whole<R>], reals: &[Real<R>]) -> Vec<Column> {
    let counts =
        counts.iter().map(|(name, of, _)| integers(name, rows.iter().map(|r| of(r) as i64).collect()));
    counts.chain(reals.iter().map(|(name, of, _)| floats(name, rows.iter().map(of).collect()))).collect()
}

fn read<R: Default + Clone>(
    frame: &DataFrame,
    counts: &[Whole<R>],
    reals: &[Real<R>],
) -> Result<Vec<R>, TableError> {
    let mut rows = vec![R::default(); frame.height()];
    for (name, _, set) in counts {
        for (row, v) in rows.iter_mut().zip(column_i64(frame, name)?) {
            set(row, usize::try_from(v).unwrap_or(0));
        }
    }
    for (name, _, set) in reals {
        for (row, v) in rows.iter_mut().zip(column_f64(frame, name)?) {
            set(row, v);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::toy::trained::Misfit;

    #[test]
    fn rows_come_back_as_they_were() {
        let grid =
            [GridRow { k: 9, x: 0.1, y: 0.2, trained: 0.3, gaussian_prior: 0.4, exact: 0.5, ring: 0.6 }];
        assert_eq!(grid_rows(&grid_frame(&grid).unwrap()).unwrap(), grid);
        let clusters = [ClusterRow { k: 2, x: 0.1, y: 0.2, share: 0.3, to_memory: 0.4 }];
        assert_eq!(clusters_rows(&clusters_frame(&clusters).unwrap()).unwrap(), clusters);
        let one = AttractorRow {
            k: 2,
            trained: true,
            x: 0.1,
            y: 0.2,
            memorized: true,
            to_memory: 0.3,
            to_other: Some(0.4),
            paired: true,
            contraction: 0.5,
            share: 0.6,
        };
        let other = AttractorRow { trained: false, memorized: false, paired: false, to_other: None, ..one };
        let both = [one, other];
        assert_eq!(attractors_rows(&attractors_frame(&both).unwrap()).unwrap(), both);
        let misfit = |v| Misfit { rms: v, max: v + 0.1, region_rms: v + 0.2, region_max: v + 0.3 };
        let summary = [SummaryRow {
            k: 1000,
            beta: 10.0 / 3.0,
            misfit: misfit(1.0),
            gaussian_prior: misfit(2.0),
            ring: misfit(3.0),
            region_points: 4,
            divergence: 5.0,
            divergence_error: 6.0,
            offset: 7.0,
            offset_error: 8.0,
            offset_exact: 9.0,
            attractors: 10,
            exact_attractors: 11,
            paired: 12,
            farthest_pair: 13.0,
            lost: 14,
            clusters: 15,
            sample_to_memory: 16.0,
            sample_to_circle: 17.0,
        }];
        assert_eq!(summary_rows(&summary_frame(&summary).unwrap()).unwrap(), summary);
        for part in [errors_frame(&summary), prior_frame(&summary), counts_frame(&summary)] {
            assert_eq!(column_i64(&part.unwrap(), "k").unwrap(), [1000]);
        }
    }
}
