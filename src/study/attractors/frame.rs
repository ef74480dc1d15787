//! Tables of the census of attractors.

use polars::prelude::{Column, DataFrame};

use crate::frame::{Item, Table, TableError, columns};
use crate::study::attractors::{Attractor, CensusRow, Censuses, FlowRow, Start};
use crate::study::subject::networks_frame;

impl Censuses {
    /// The attractors of each network, K and level.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        let frame = networks_frame(&self.census, census_frame)?;
        Ok(Table::from_frame("Attractors", frame).rows(400).digits(3))
    }

    /// Where each kind of starts flows.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn flows_table(&self) -> Result<Table, TableError> {
        let frame = networks_frame(&self.flows, flow_frame)?;
        Ok(Table::from_frame("Where starts flow", frame).rows(60).digits(3))
    }
}

impl Item for Start {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Item::column(name, values.into_iter().map(|start| start.name().to_owned()).collect::<Vec<String>>())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        let wrong = || TableError::Frame {
            caption: "starts".into(),
            reason: format!("column {name} has a kind of starts that is not known"),
        };
        String::read(frame, name)?.iter().map(|text| text.parse().map_err(|()| wrong())).collect()
    }
}

columns!(Attractor, "attractors",
    /// One row for each attractor: `t`, `id`, `class`, `nearest` (row of the training set), `distance` (l2),
    /// `contraction` (spectral radius of the map's Jacobian), `residual` (length of a step of the map), `error` (length of
    /// Newton's step) and the number of starts of each kind that end there: `noise`, `memorized`, `spurious`,
    /// `generalized`, `training` and `held_out`.
    attractor_frame, {
    "t": (t),
    "id": (id),
    "class": (class),
    "nearest": (nearest),
    "distance": (distance),
    "contraction": (contraction),
    "residual": (residual),
    "error": (error),
    "noise": [|row| row.starts[0]],
    "memorized": [|row| row.starts[1]],
    "spurious": [|row| row.starts[2]],
    "generalized": [|row| row.starts[3]],
    "training": [|row| row.starts[4]],
    "held_out": [|row| row.starts[5]],
});

columns!(CensusRow, "census of attractors",
    /// One row for each K, level and score: `k`, `t`, `exact`, `starts` (from noise), `memorized`, `spurious`, `unstable`,
    /// `fine`, `coarse`, `reached_memorized`, `reached_spurious`, `estimate` (Chao), `coverage` (Good and Turing),
    /// `contraction_memorized`, `contraction_spurious` (medians) and `error`.
    census_frame, census_rows, {
    "k": (k),
    "t": (t),
    "exact": (exact),
    "starts": (starts),
    "memorized": (memorized),
    "spurious": (spurious),
    "unstable": (unstable),
    "fine": (fine),
    "coarse": (coarse),
    "reached_memorized": (reached_memorized),
    "reached_spurious": (reached_spurious),
    "estimate": (estimate),
    "coverage": (coverage),
    "contraction_memorized": (contraction_memorized),
    "contraction_spurious": (contraction_spurious),
    "error": (error),
});

columns!(FlowRow, "flows of starts",
    /// One row for each K, level, score and kind of starts: `k`, `t`, `exact`, `start`, `starts`, `memorized` and `spurious`
    /// (shares that end at such attractors) with `_low` and `_high`, `stays` (share that ends within delta of where it
    /// began) and `moved` (median distance, l2) with its quartiles `_low` and `_high`.
    flow_frame, flow_rows, {
    "k": (k),
    "t": (t),
    "exact": (exact),
    "start": (start),
    "starts": (starts),
    "memorized": (memorized),
    "memorized_low": (memorized_low),
    "memorized_high": (memorized_high),
    "spurious": (spurious),
    "spurious_low": (spurious_low),
    "spurious_high": (spurious_high),
    "stays": (stays),
    "moved": (moved),
    "moved_low": (moved_low),
    "moved_high": (moved_high),
});

#[cfg(test)]
mod tests {
    use super::super::rows::place;
    use super::*;
    use crate::class::{Class, Group};

    #[test]
    fn rows_survive_writing_and_reading() {
        let census = CensusRow {
            k: 64,
            t: 15.0,
            exact: true,
            starts: 600,
            memorized: 3,
            spurious: 2,
            unstable: 1,
            fine: 6,
            coarse: 4,
            reached_memorized: 2,
            reached_spurious: 1,
            estimate: 5.5,
            coverage: 0.75,
            contraction_memorized: Some(0.5),
            contraction_spurious: None,
            error: Some(1e-6),
        };
        let rows = [census, CensusRow { exact: false, error: None, ..census }];
        assert_eq!(census_rows(&census_frame(&rows).unwrap()).unwrap(), rows);
        let flow = FlowRow {
            k: 64,
            t: 15.0,
            exact: false,
            start: Start::Images(Group::SPURIOUS),
            starts: 128,
            memorized: 0.25,
            memorized_low: 0.125,
            memorized_high: 0.5,
            spurious: 0.75,
            spurious_low: 0.5,
            spurious_high: 0.875,
            stays: 0.1,
            moved: 1.0,
            moved_low: 0.5,
            moved_high: 2.0,
        };
        let rows = [flow, FlowRow { start: Start::HeldOut, ..flow }, FlowRow { start: Start::Noise, ..flow }];
        let frame = flow_frame(&rows).unwrap();
        assert_eq!(flow_rows(&frame).unwrap(), rows);
        let mut other = frame.clone();
        other.replace("start", Item::column("start", vec!["dream".to_owned(); 3])).unwrap();
        assert!(flow_rows(&other).unwrap_err().to_string().contains("start"));
    }

    /// The columns of starts have the names and the order of [`Start::ALL`].
    #[test]
    fn every_kind_of_starts_has_its_column() {
        let mut starts = [0; 6];
        Start::ALL.into_iter().enumerate().for_each(|(i, start)| starts[place(start)] = i + 1);
        let frame =
            attractor_frame(&[Attractor { class: Class::Spurious, starts, ..Attractor::default() }]).unwrap();
        for (i, start) in Start::ALL.into_iter().enumerate() {
            assert_eq!(usize::read(&frame, start.name()).unwrap(), [i + 1], "{start}");
        }
    }
}
