//! Relative energies of the profile's networks, read from stored tables or measured.

use super::frame::{curves_frame, curves_rows, gaps_frame, gaps_rows};
use super::{CurveRow, GapRow, PotentialSettings, VERSION, gaps, measure};
use crate::Error;
use crate::class::Group;
use crate::study::context::Context;
use crate::study::subject::{NetworkRows, NetworkTable, Subjects};

/// Relative energies of a profile's networks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Energies {
    /// One row for each size K, group and reference, and one for all references together.
    pub gaps: Vec<NetworkRows<GapRow>>,
    /// u along the arcs, for the size K that the settings name.
    pub arcs: Vec<NetworkRows<CurveRow>>,
}

impl Energies {
    /// The gaps over all references together.
    pub fn over_all(&self) -> Vec<NetworkRows<GapRow>> {
        let mut all = self.gaps.clone();
        all.iter_mut().for_each(|network| network.rows.retain(|row| row.reference.is_none()));
        all
    }
}

/// Relative energies of the samples of each class, against K (Figs. 6, 25 to 30); stored as `potential_gaps` and
/// `potential_arcs`.
///
/// # Errors
/// Those of the sweep, of [`measure`] and of the stored tables.
pub fn energies(context: &Context) -> Result<Energies, Error> {
    let subjects = Subjects::new(context)?;
    let params = context.settings::<PotentialSettings>("energy")?.check()?;
    let fingerprint = subjects.fingerprint("potential", VERSION, params.settings())?;
    let first = NetworkTable { name: "potential_gaps", frame: gaps_frame, rows: gaps_rows };
    let second = NetworkTable { name: "potential_arcs", frame: curves_frame, rows: curves_rows };
    let (gaps, arcs) = subjects.recall(&fingerprint, first, second, |subject, _, cells| {
        let images = Group::SAMPLES
            .into_iter()
            .map(|group| subject.images(group, &subjects.choice()))
            .collect::<Result<Vec<_>, Error>>()?;
        let relative = measure(subject, &images, &params, Some(cells), context.reporter())?;
        let gaps = gaps(&relative, &params);
        let arcs = if subject.k()? == subjects.settings().arcs { relative.curves } else { Vec::new() };
        Ok((gaps, arcs))
    })?;
    Ok(Energies { gaps, arcs })
}
