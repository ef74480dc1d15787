//! Tables of relative energies. Each has a column `sign` that contains [`SIGN`], so that a table can be read alone.

use polars::prelude::{Column, DataFrame};

use crate::frame::{Item, Table, TableError, columns, strings, take};
use crate::study::energy::{CurveRow, Energies, GapRow, LoopRow, PotentialRow, SIGN};
use crate::study::subject::networks_frame;

impl Energies {
    /// The gaps over all references together, for every network.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        let gaps = networks_frame(&self.over_all(), gaps_frame)?;
        Ok(Table::from_frame("Gaps over all references", gaps).rows(200).digits(3))
    }
}

columns!(PotentialRow, "relative energies",
    /// One row for each image and reference: `class`, `sample`, `reference`, `u`, `error` (null without a tolerance) and
    /// `sign`.
    potential_frame, potential_rows, {
    "class": (group),
    "sample": (sample),
    "reference": (reference),
    "u": (u),
    "error": (error),
    "sign": [|_| SIGN.to_owned()],
});

columns!(CurveRow, "relative energies along arcs",
    /// One row for each class, reference and point of the arc: `class`, `reference`, `alpha`, `n`, `mean` and `std` of
    /// u(alpha), and `sign`.
    curves_frame, curves_rows, {
    "class": (group),
    "reference": (reference),
    "alpha": (alpha),
    "n": (n),
    "mean": (mean),
    "std": (std),
    "sign": [|_| SIGN.to_owned()],
});

columns!(LoopRow, "circuits",
    /// One row for each circuit: `class`, `sample`, `other`, `reference`, `circulation`, `error`, `u`, `u_points` and
    /// `sign`.
    loops_frame, loops_rows, {
    "class": (group),
    "sample": (sample),
    "other": (other),
    "reference": (reference),
    "circulation": (circulation),
    "error": (error),
    "u": (u),
    "u_points": (u_points),
    "sign": [|_| SIGN.to_owned()],
});

columns!(GapRow, "relative energy gaps",
    /// One row for each class and reference, and one for all references together, whose `reference` is "all": `k`,
    /// `class`, `reference`, `n`, `few`, `mean`, `std`, `gap`, `standard_error`, `low` and `high` (95 percent interval),
    /// `between`, `loops`, `circulation`, `circulation_error`, `size`, `relative_circulation` (null without circuits)
    /// and `sign`.
    gaps_frame, gaps_rows, {
    "k": (k),
    "class": (group),
    "reference": (reference) as Reference,
    "n": (n),
    "few": (few),
    "mean": (mean),
    "std": (std),
    "gap": (gap),
    "standard_error": (standard_error),
    "low": (interval[0]),
    "high": (interval[1]),
    "between": (between),
    "loops": (loops),
    "circulation": (circulation),
    "circulation_error": (circulation_error),
    "size": (size),
    "relative_circulation": [GapRow::relative_circulation],
    "sign": [|_| SIGN.to_owned()],
});

/// Name of the mean over references in the column `reference`.
const ALL: &str = "all";

/// A reference as text: its place, or [`ALL`].
struct Reference(Option<usize>);

impl From<Option<usize>> for Reference {
    fn from(place: Option<usize>) -> Self {
        Self(place)
    }
}

impl From<Reference> for Option<usize> {
    fn from(reference: Reference) -> Self {
        reference.0
    }
}

impl Item for Reference {
    fn column(name: &str, values: Vec<Self>) -> Column {
        let text = |v: &Self| v.0.map_or_else(|| ALL.to_owned(), |place| place.to_string());
        strings(name, values.iter().map(text).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, "places or all", |v| match v.get_str()? {
            ALL => Some(Self(None)),
            place => place.parse().ok().map(|place| Self(Some(place))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;

    #[test]
    fn rows_survive_writing_and_have_their_sign() {
        let one =
            PotentialRow { group: Group::SPURIOUS, sample: 7, reference: 3, u: -1.5, error: Some(0.25) };
        let images = [one, PotentialRow { group: Group::Training, error: None, ..one }];
        let curves =
            [CurveRow { group: Group::MEMORIZED, reference: 3, alpha: 0.5, n: 9, mean: 1.5, std: 0.125 }];
        let loops = [LoopRow {
            group: Group::GENERALIZED,
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
            group: Group::SPURIOUS,
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
        assert_eq!(
            <Option<f64>>::read(&frames[3], "relative_circulation").unwrap(),
            [Some(9.0 / 11.0), None]
        );
        for frame in &frames {
            assert!(String::read(frame, "sign").unwrap().iter().all(|s| s == SIGN));
            assert!(frame.column("sign").unwrap().len() == frame.height());
        }
    }
}
