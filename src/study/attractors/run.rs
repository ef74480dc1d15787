//! The census of the profile's networks, read from stored tables or made.

use super::frame::{census_frame, census_rows, flow_frame, flow_rows};
use super::{CensusRow, CensusSettings, FlowRow, VERSION, measure, starts};
use crate::Error;
use crate::study::context::Context;
use crate::study::subject::{NetworkRows, NetworkTable, Subjects};

/// The attractors of a profile's networks and of the exact scores of their training sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Censuses {
    /// One row for each K, level and score.
    pub census: Vec<NetworkRows<CensusRow>>,
    /// One row for each K, level, score and kind of starts.
    pub flows: Vec<NetworkRows<FlowRow>>,
}

/// The attractors of the profile's networks at the levels of its table `attractors`, against K, with those of the exact
/// score of the same training set from the same starts; stored as `attractors` and `attractor_flows`.
///
/// # Errors
/// Those of the sweep, of [`measure`] and of the stored tables.
pub fn census(context: &Context) -> Result<Censuses, Error> {
    let subjects = Subjects::new(context)?;
    let settings: CensusSettings = context.settings("attractors")?;
    let fingerprint = subjects.fingerprint("attractors", VERSION, &settings)?;
    let first = NetworkTable { name: "attractors", frame: census_frame, rows: census_rows };
    let second = NetworkTable { name: "attractor_flows", frame: flow_frame, rows: flow_rows };
    let (census, flows) = subjects.recall(&fingerprint, first, second, |subject, _, cells| {
        let params = settings.clone().check(subject.delta_m())?;
        let (starts, k) = (starts(subject, &subjects.choice(), &params)?, subject.k()?);
        let (mut census, mut flows) = (Vec::new(), Vec::new());
        for exact in [false, true] {
            for found in measure(subject, &starts, &params, exact, Some(cells), context.reporter())? {
                census.push(found.row(k, exact, &starts));
                flows.extend(found.flows(k, exact, &starts, &params));
            }
        }
        Ok((census, flows))
    })?;
    Ok(Censuses { census, flows })
}
