//! Relative energies of the networks of the profile, from stored tables or measured.

use ndarray::Array2;

use super::frame::{curves_frame, curves_rows, gaps_frame, gaps_rows};
use super::{CurveRow, GapRow, Images, Potential, PotentialSettings, VERSION, analyse, gaps};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::study::context::{Context, once};
use crate::study::subject::{OfNetwork, ROWS, Subjects, by_network, halves, networks_of};

/// Relative energies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Energies {
    /// A row a size K, class and reference, and one for all references together.
    pub gaps: Vec<OfNetwork<GapRow>>,
    /// u along the arcs of the size that the settings name.
    pub arcs: Vec<OfNetwork<CurveRow>>,
}

impl Energies {
    /// The gaps over all references together.
    pub fn over_all(&self) -> Vec<OfNetwork<GapRow>> {
        let mut all = self.gaps.clone();
        all.iter_mut().for_each(|of| of.rows.retain(|row| row.reference.is_none()));
        all
    }
}

/// Relative energies of the samples of each class, against K (Figs. 6, 25 to 30); stored as `potential_gaps` and
/// `potential_arcs`.
///
/// # Errors
/// As [`basins`].
pub fn energies(context: &Context) -> Result<Energies, Error> {
    let subjects = Subjects::new(context)?;
    let params = context.settings::<PotentialSettings>("energy")?.check()?;
    let fingerprint = subjects.fingerprint("potential", VERSION, params.settings())?;
    let mut make = once(|| {
        let each = subjects.each(&fingerprint, |subject| {
            let classes: Vec<(Group, Vec<usize>, Array2<f64>)> = Group::SAMPLES
                .into_iter()
                .map(|group| {
                    let (ids, rows) = subject.images(group, subjects.settings().most);
                    (group, ids, rows.mapv(f64::from))
                })
                .collect();
            let given: Vec<Images<'_>> = classes
                .iter()
                .map(|(class, ids, rows)| Images { class: *class, samples: ids, rows: rows.view() })
                .collect();
            let sizes: Vec<usize> = classes.iter().map(|(_, ids, _)| ids.len()).collect();
            let progress = context.progress("arcs", params.work(subject.training.nrows(), &sizes));
            let potential = Potential::new(&subject.score, &subject.vp, &params, ROWS)?;
            let training = subject.training.mapv(f64::from);
            let found = analyse(&potential, training.view(), &given, None, &*progress)?;
            let arcs = if subject.k == subjects.settings().arcs { found.curves.clone() } else { Vec::new() };
            Ok((gaps(&found, &params), arcs))
        })?;
        Ok(halves(each))
    });
    let gaps = context
        .recall("potential_gaps", &fingerprint, Device::Cpu, || Ok(by_network(&make()?.0, gaps_frame)?))?;
    let arcs = context
        .recall("potential_arcs", &fingerprint, Device::Cpu, || Ok(by_network(&make()?.1, curves_frame)?))?;
    Ok(Energies { gaps: networks_of(&gaps, gaps_rows)?, arcs: networks_of(&arcs, curves_rows)? })
}
