//! Relative energies of the profile's networks, read from stored tables or measured.

use super::frame::{curves_frame, curves_rows, gaps_frame, gaps_rows};
use super::{CurveRow, GapRow, PotentialSettings, VERSION, gaps, measure};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::study::context::{Context, once};
use crate::study::subject::{NetworkRows, Subjects, networks_frame, networks_rows, unzip_rows};

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
    let mut make = once(|| {
        let each = subjects.each(&fingerprint, |subject, _, cells| {
            let images = Group::SAMPLES
                .into_iter()
                .map(|group| subject.images(group, &subjects.choice()))
                .collect::<Result<Vec<_>, Error>>()?;
            let relative = measure(subject, &images, &params, Some(cells), context.reporter())?;
            let gaps = gaps(&relative, &params);
            let arcs = if subject.k()? == subjects.settings().arcs { relative.curves } else { Vec::new() };
            Ok((gaps, arcs))
        })?;
        Ok(unzip_rows(each))
    });
    let gaps = context.recall("potential_gaps", &fingerprint, Device::Cpu, || {
        Ok(networks_frame(&make()?.0, gaps_frame)?)
    })?;
    let arcs = context.recall("potential_arcs", &fingerprint, Device::Cpu, || {
        Ok(networks_frame(&make()?.1, curves_frame)?)
    })?;
    Ok(Energies { gaps: networks_rows(&gaps, gaps_rows)?, arcs: networks_rows(&arcs, curves_rows)? })
}
