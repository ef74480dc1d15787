//! Spectra of the profile's networks, read from stored tables or measured.

use super::frame::{curves_frame, curves_rows, sets_frame, sets_rows};
use super::{CurvatureSettings, CurveRow, Set, SetRow, VERSION, curve_rows, measure, point_rows, set_row};
use crate::Error;
use crate::class::Group;
use crate::process::Process;
use crate::study::context::Context;
use crate::study::subject::{NetworkRows, NetworkTable, Subjects};

/// Spectra of the score's Jacobian for a profile's networks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectra {
    /// Mean spectra, one row for each set of points and singular value.
    pub curves: Vec<NetworkRows<CurveRow>>,
    /// One row for each set of points.
    pub sets: Vec<NetworkRows<SetRow>>,
}

/// Spectra of the score's Jacobian at the samples of each class and at training images, against K (Figs. 5A, 20 to 23);
/// stored as `curvature_spectra` and `curvature_sets`.
///
/// # Errors
/// Those of the sweep, of [`measure`] and of the stored tables.
pub fn spectra(context: &Context) -> Result<Spectra, Error> {
    let subjects = Subjects::new(context)?;
    let params = context.settings::<CurvatureSettings>("curvature")?.check()?;
    let fingerprint = subjects.fingerprint("curvature", VERSION, params.settings())?;
    let first = NetworkTable { name: "curvature_spectra", frame: curves_frame, rows: curves_rows };
    let second = NetworkTable { name: "curvature_sets", frame: sets_frame, rows: sets_rows };
    let (curves, sets) = subjects.recall(&fingerprint, first, second, |subject, _, cells| {
        let sigma = subject.vp().level(params.settings().t)?.sigma();
        let (mut curves, mut sets) = (Vec::new(), Vec::new());
        for group in Group::ALL {
            let images = subject.images(group, &subjects.choice())?;
            if images.is_empty() {
                continue;
            }
            let spectra = measure(subject, &images, &params, Some(cells), context.reporter())?;
            let set = Set { group, k: subject.k()?, sigma };
            curves.extend(curve_rows(set, &spectra)?);
            sets.extend(set_row(set, &point_rows(&spectra, params.settings().drop_top)));
        }
        Ok((curves, sets))
    })?;
    Ok(Spectra { curves, sets })
}
