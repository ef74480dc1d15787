//! Basins of the profile's networks, read from stored tables or measured.

use super::frame::{
    attractor_summary_frame, attractor_summary_rows, basin_summary_frame, basin_summary_rows,
};
use super::{
    AttractorSummary, BasinRow, BasinSettings, BasinSummary, Distance, VERSION, attractors, measure,
    summarise,
};
use crate::Error;
use crate::class::Group;
use crate::study::context::Context;
use crate::study::subject::{Choice, NetworkRows, NetworkTable, Subjects};

/// Basins of attraction of a profile's networks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Basins {
    /// One row for each size K and group.
    pub classes: Vec<NetworkRows<BasinSummary>>,
    /// One row for each size K: the training images where noise draws end, compared with the volumes of their basins.
    pub attractors: Vec<NetworkRows<AttractorSummary>>,
}

/// Basins of attraction of the samples of each class and of training images, against K (Figs. 4B, 16 to 19); stored as
/// `basins` and `basin_attractors`.
///
/// # Errors
/// Those of the sweep, of [`measure`] and of the stored tables.
pub fn basins(context: &Context) -> Result<Basins, Error> {
    let subjects = Subjects::new(context)?;
    let settings: BasinSettings = context.settings("basin")?;
    let fingerprint = subjects.fingerprint("basins", VERSION, &settings)?;
    let first = NetworkTable { name: "basins", frame: basin_summary_frame, rows: basin_summary_rows };
    let second = NetworkTable {
        name: "basin_attractors",
        frame: attractor_summary_frame,
        rows: attractor_summary_rows,
    };
    let (classes, attractors) = subjects.recall(&fingerprint, first, second, |subject, plan, cells| {
        let params = settings.check(subject.delta_m())?;
        let (l2, reporter) = (Distance::l2(), context.reporter());
        let mut rows: Vec<BasinRow> = Vec::new();
        for group in Group::ALL {
            let images = subject.images(group, &subjects.choice())?;
            if !images.is_empty() {
                rows.extend(measure(subject, &images, &params, &l2, Some(cells), reporter)?);
            }
        }
        let all = subject.images(Group::Training, &Choice { max: subject.k()?, ..subjects.choice() })?;
        let draws = subjects.settings().draws;
        let shares = attractors(subject, &all, &params, &l2, draws, plan.steps(), reporter)?;
        let training: Vec<BasinRow> =
            rows.iter().filter(|row| row.group == Group::Training).cloned().collect();
        Ok((summarise(subject.k()?, &rows, &params), vec![AttractorSummary::from_shares(&shares, &training)]))
    })?;
    Ok(Basins { classes, attractors })
}
