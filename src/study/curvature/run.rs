//! Spectra of the profile's networks, read from stored tables or measured.

use super::frame::{curves_frame, curves_rows, sets_frame, sets_rows};
use super::{CurvatureSettings, CurveRow, Set, SetRow, VERSION, curve_rows, measure, point_rows, set_row};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::process::Process;
use crate::study::context::{Context, once};
use crate::study::subject::{NetworkRows, Subjects, networks_frame, networks_rows, unzip_rows};

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
    let mut make = once(|| {
        let each = subjects.each(&fingerprint, |subject, _, cells| {
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
        Ok(unzip_rows(each))
    });
    let curves = context.recall("curvature_spectra", &fingerprint, Device::Cpu, || {
        Ok(networks_frame(&make()?.0, curves_frame)?)
    })?;
    let sets = context.recall("curvature_sets", &fingerprint, Device::Cpu, || {
        Ok(networks_frame(&make()?.1, sets_frame)?)
    })?;
    Ok(Spectra { curves: networks_rows(&curves, curves_rows)?, sets: networks_rows(&sets, sets_rows)? })
}
