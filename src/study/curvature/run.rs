//! Spectra of the networks of the profile, from stored tables or measured.

use super::frame::{curves_frame, curves_rows, sets_frame, sets_rows};
use super::{
    CurvatureSettings, CurveRow, Points, Set, SetRow, VERSION, curvature, curve_rows, point_rows, set_row,
};
use crate::Error;
use crate::class::Group;
use crate::device::Device;
use crate::process::Process;
use crate::study::context::{Context, once};
use crate::study::subject::{OfNetwork, Subjects, by_network, halves, networks_of};

/// Spectra of the score's Jacobian.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spectra {
    /// Mean spectra, a row a value.
    pub curves: Vec<OfNetwork<CurveRow>>,
    /// A row a set of points.
    pub sets: Vec<OfNetwork<SetRow>>,
}

/// Spectra of the score's Jacobian at the samples of each class and at training images, against K (Figs. 5A, 20 to 23);
/// stored as `curvature_spectra` and `curvature_sets`.
///
/// # Errors
/// As [`basins`].
pub fn spectra(context: &Context) -> Result<Spectra, Error> {
    let subjects = Subjects::new(context)?;
    let params = context.settings::<CurvatureSettings>("curvature")?.check()?;
    let fingerprint = subjects.fingerprint("curvature", VERSION, params.settings())?;
    let mut make = once(|| {
        let each = subjects.each(&fingerprint, |subject| {
            let sigma = subject.vp.level(params.settings().t)?.sigma();
            let (mut curves, mut sets) = (Vec::new(), Vec::new());
            for group in Group::ALL {
                let (ids, images) = subject.images(group, subjects.settings().most);
                let rows = images.mapv(f64::from);
                let points = Points { rows: rows.view(), samples: &ids, shape: subject.shape };
                if ids.is_empty() {
                    continue;
                }
                let progress = context.progress("spectra", ids.len() as u64);
                let found = curvature(&subject.score, &subject.vp, &points, &params, None, &*progress)?;
                let set = Set { group, k: subject.k, sigma };
                curves.extend(curve_rows(set, &found)?);
                sets.extend(set_row(set, &point_rows(&found, params.settings().drop_top)));
            }
            Ok((curves, sets))
        })?;
        Ok(halves(each))
    });
    let curves = context.recall("curvature_spectra", &fingerprint, Device::Cpu, || {
        Ok(by_network(&make()?.0, curves_frame)?)
    })?;
    let sets = context
        .recall("curvature_sets", &fingerprint, Device::Cpu, || Ok(by_network(&make()?.1, sets_frame)?))?;
    Ok(Spectra { curves: networks_of(&curves, curves_rows)?, sets: networks_of(&sets, sets_rows)? })
}
