//! Frames of the memory load analysis.

use polars::prelude::DataFrame;

use crate::frame::{TableError, column_f64, column_i64, column_text, floats, frame, integers, strings};
use crate::study::load::{Fractions, LoadCell};

/// A named number of a row.
type Named<R, V> = (&'static str, fn(&R) -> V);

/// The three sets of fractions and the prefix of their columns.
const SETS: [Named<LoadCell, Fractions>; 3] =
    [("", |c| c.fractions), ("strict_", |c| c.strict), ("loose_", |c| c.loose)];

/// The classes of a set of fractions.
const CLASSES: [Named<Fractions, f64>; 5] = [
    ("memorized", |f| f.memorized),
    ("spurious", |f| f.spurious),
    ("generalized", |f| f.generalized),
    ("unconverged", |f| f.unconverged),
    ("invalid", |f| f.invalid),
];

/// One row a cell of the phase diagram. `strict_` and `loose_` are the fractions at three quarters and at
/// five quarters of both thresholds; `d_train` is NaN where nothing converged.
///
/// # Errors
/// As [`frame`].
pub fn load_frame(cells: &[LoadCell]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&LoadCell) -> f64| floats(name, cells.iter().map(of).collect());
    let whole =
        |name: &str, of: fn(&LoadCell) -> usize| integers(name, cells.iter().map(|c| of(c) as i64).collect());
    let mut columns = vec![
        strings("dataset", cells.iter().map(|c| c.dataset.clone()).collect()),
        strings("noise", cells.iter().map(|c| c.noise.clone()).collect()),
        real("noise_std", |c| c.noise_std),
        whole("k", |c| c.k),
        real("beta", |c| c.beta),
        whole("starts", |c| c.starts),
    ];
    for (prefix, set) in SETS {
        for (class, of) in CLASSES {
            let values = cells.iter().map(|c| of(&set(c))).collect();
            columns.push(floats(&format!("{prefix}{class}"), values));
        }
    }
    columns.extend([
        real("recall", |c| c.recall),
        whole("distinct", |c| c.distinct),
        real("blended", |c| c.blended),
        real("d_train", |c| c.d_train.unwrap_or(f64::NAN)),
        whole("steps", |c| c.steps),
        real("delta", |c| c.delta),
        real("seconds", |c| c.seconds),
    ]);
    frame("memory load", columns)
}

/// What a reader looks for first: the classes, recall, and how much the fractions move when both thresholds
/// move by a quarter either way.
///
/// # Errors
/// As [`frame`].
pub fn summary_frame(cells: &[LoadCell]) -> Result<DataFrame, TableError> {
    let real = |name: &str, of: fn(&LoadCell) -> f64| floats(name, cells.iter().map(of).collect());
    let whole =
        |name: &str, of: fn(&LoadCell) -> usize| integers(name, cells.iter().map(|c| of(c) as i64).collect());
    frame(
        "memory load",
        vec![
            whole("k", |c| c.k),
            real("beta", |c| c.beta),
            whole("starts", |c| c.starts),
            real("memorized", |c| c.fractions.memorized),
            real("spurious", |c| c.fractions.spurious),
            real("generalized", |c| c.fractions.generalized),
            real("unconverged", |c| c.fractions.unconverged),
            real("recall", |c| c.recall),
            whole("distinct", |c| c.distinct),
            real("blended", |c| c.blended),
            real("d_train", |c| c.d_train.unwrap_or(f64::NAN)),
            real("moved_by_thresholds", |c| c.fractions.change(&c.strict).max(c.fractions.change(&c.loose))),
        ],
    )
}

/// The cells of [`load_frame`].
///
/// # Errors
/// [`TableError`] for a missing column or another type.
pub fn load_cells(frame: &DataFrame) -> Result<Vec<LoadCell>, TableError> {
    let real = |name: &str| column_f64(frame, name);
    let whole = |name: &str| -> Result<Vec<usize>, TableError> {
        Ok(column_i64(frame, name)?.into_iter().map(|v| usize::try_from(v).unwrap_or(0)).collect())
    };
    let fractions = |prefix: &str| -> Result<Vec<Fractions>, TableError> {
        let column = |class: &str| real(&format!("{prefix}{class}"));
        let (m, s, g) = (column("memorized")?, column("spurious")?, column("generalized")?);
        let (u, i) = (column("unconverged")?, column("invalid")?);
        Ok((0..m.len())
            .map(|r| Fractions {
                memorized: m[r],
                spurious: s[r],
                generalized: g[r],
                unconverged: u[r],
                invalid: i[r],
            })
            .collect())
    };
    let (dataset, noise) = (column_text(frame, "dataset")?, column_text(frame, "noise")?);
    let (noise_std, k, beta) = (real("noise_std")?, whole("k")?, real("beta")?);
    let (plain, strict, loose) = (fractions("")?, fractions("strict_")?, fractions("loose_")?);
    let (starts, recall, distinct) = (whole("starts")?, real("recall")?, whole("distinct")?);
    let (blended, d_train, steps) = (real("blended")?, real("d_train")?, whole("steps")?);
    let (delta, seconds) = (real("delta")?, real("seconds")?);
    Ok((0..frame.height())
        .map(|i| LoadCell {
            dataset: dataset[i].clone(),
            noise: noise[i].clone(),
            noise_std: noise_std[i],
            k: k[i],
            beta: beta[i],
            starts: starts[i],
            fractions: plain[i],
            strict: strict[i],
            loose: loose[i],
            recall: recall[i],
            distinct: distinct[i],
            blended: blended[i],
            d_train: Some(d_train[i]).filter(|d| d.is_finite()),
            steps: steps[i],
            delta: delta[i],
            seconds: seconds[i],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_from_their_frame() {
        let fractions = Fractions {
            memorized: 0.5,
            spurious: 0.25,
            generalized: 0.125,
            unconverged: 0.125,
            invalid: 0.0,
        };
        let cell = LoadCell {
            dataset: "mnist".into(),
            noise: "thermal".into(),
            noise_std: 1.5,
            k: 32,
            beta: 0.1,
            starts: 8,
            fractions,
            strict: Fractions { memorized: 0.25, ..fractions },
            loose: Fractions { memorized: 0.75, ..fractions },
            recall: 0.3,
            distinct: 5,
            blended: 1.7,
            d_train: Some(0.2),
            steps: 11,
            delta: 0.44,
            seconds: 0.01,
        };
        let cells = vec![cell.clone(), LoadCell { d_train: None, k: 64, ..cell }];
        assert_eq!(load_cells(&load_frame(&cells).unwrap()).unwrap(), cells);
    }
}
