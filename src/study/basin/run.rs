//! Basins of the networks of the profile, from stored tables or measured.

use super::frame::{
    attractor_summary_frame, attractor_summary_rows, basin_summary_frame, basin_summary_rows,
};
use super::{AttractorSummary, BasinRow, BasinSettings, BasinSummary, Distance, Search, VERSION, summarise};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::study::context::{Context, once};
use crate::study::subject::{OfNetwork, Subjects, by_network, halves, networks_of};

/// Basins of attraction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Basins {
    /// A row a size K and class.
    pub classes: Vec<OfNetwork<BasinSummary>>,
    /// A row a size K: where noise ends, beside the volumes of the training images' basins.
    pub attractors: Vec<OfNetwork<AttractorSummary>>,
}

/// Basins of attraction of the samples of each class and of training images, against K (Fig. 4B, 16 to 19); stored as
/// `basins` and `basin_attractors`.
///
/// # Errors
/// Those of the sweep, of the analysis and of the stored tables.
pub fn basins(context: &Context) -> Result<Basins, Error> {
    let subjects = Subjects::new(context)?;
    let settings: BasinSettings = context.settings("basin")?;
    let fingerprint = subjects.fingerprint("basins", VERSION, &settings)?;
    let mut make = once(|| {
        let each = subjects.each(&fingerprint, |subject| {
            let params = settings.check(subject.cell.delta_m)?;
            let search = Search { score: &subject.score, vp: &subject.vp, params, distance: Distance::l2() };
            let mut rows = Vec::new();
            for group in Group::ALL {
                let (ids, images) = subject.images(group, subjects.settings().most);
                if !ids.is_empty() {
                    let progress = context.progress("basins", search.work(ids.len())?);
                    rows.extend(search.rows(group, images.view(), &ids, &*progress)?);
                }
            }
            let all: Vec<usize> = (0..subject.training.nrows()).collect();
            let (group, draws, steps) = (Group::Training, subjects.settings().draws, &subject.steps);
            let progress = context.progress("draws", draws as u64);
            let shares =
                search.attractor_shares(group, subject.training.view(), &all, draws, steps, &*progress)?;
            let training: Vec<BasinRow> = rows.iter().filter(|row| row.group == group).cloned().collect();
            Ok((summarise(subject.k, &rows, &params), vec![AttractorSummary::of(&shares, &training)]))
        })?;
        Ok(halves(each))
    });
    let classes = context
        .recall("basins", &fingerprint, Device::Cpu, || Ok(by_network(&make()?.0, basin_summary_frame)?))?;
    let attractors = context.recall("basin_attractors", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.1, attractor_summary_frame)?)
    })?;
    Ok(Basins {
        classes: networks_of(&classes, basin_summary_rows)?,
        attractors: networks_of(&attractors, attractor_summary_rows)?,
    })
}
