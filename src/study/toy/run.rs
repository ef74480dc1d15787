//! The toy model with the settings of the profile, from stored tables or computed.

use serde_json::json;

use super::frame::{ladder_frame, ladder_rows};
use super::{
    CircleProfiles, Ladder, Landscapes, RingConvergence, Size, ToySettings, VERSION, along_circle, ladder,
    panel, ring_gap,
};
use crate::Error;
use crate::device::Device;
use crate::frame::fingerprint::Fingerprint;
use crate::memory::toy::points;
use crate::study::context::Context;

/// The settings of the profile.
///
/// # Errors
/// As [`Context::settings`].
pub fn settings(context: &Context) -> Result<ToySettings, Error> {
    Ok(context.settings("toy")?)
}

/// The exact landscapes of Fig. 2: one panel for each size of the profile, and the ring.
///
/// # Errors
/// Errors of the study.
pub fn toy_landscapes(context: &Context) -> Result<Landscapes, Error> {
    let settings = &settings(context)?;
    let sizes = settings.sizes.iter().map(|&k| Size::Points(k)).chain([Size::Infinite]);
    Ok(Landscapes {
        panels: sizes.map(|size| panel(size, settings.beta, settings)).collect::<Result<_, _>>()?,
    })
}

/// The landscape of `k` toy points at each of `betas`.
///
/// # Errors
/// Errors of the study.
pub fn toy_temperatures(context: &Context, k: usize, betas: &[f64]) -> Result<Landscapes, Error> {
    let settings = &settings(context)?;
    let panels = betas.iter().map(|&beta| panel(Size::Points(k), beta, settings));
    Ok(Landscapes { panels: panels.collect::<Result<_, _>>()? })
}

/// Energy along the circle for the sizes of the profile and the ring, at `steps` angles: Fig. 1A.
///
/// # Errors
/// Errors of the study.
pub fn toy_profiles(context: &Context, steps: usize) -> Result<CircleProfiles, Error> {
    let settings = &settings(context)?;
    let sizes = settings.sizes.iter().map(|&k| Size::Points(k)).chain([Size::Infinite]);
    let profiles = sizes.map(|size| along_circle(size, settings.beta, steps)).collect::<Result<_, _>>()?;
    Ok(CircleProfiles { beta: settings.beta, profiles })
}

/// Difference between the first K toy points and the ring, for every pair of `sizes` and `betas`.
///
/// # Errors
/// Errors of the study.
pub fn ring_convergence(sizes: &[usize], betas: &[f64]) -> Result<RingConvergence, Error> {
    let mut rows = Vec::with_capacity(sizes.len() * betas.len());
    for &k in sizes {
        let points = points(k)?;
        for &beta in betas {
            rows.push(ring_gap(points.view(), beta, 720)?);
        }
    }
    Ok(RingConvergence { rows })
}

/// Attractors of the toy's exact energy against beta; stored as `toy_ladder`.
///
/// # Errors
/// Errors of the study and of the stored table.
pub fn toy_ladder(context: &Context) -> Result<Ladder, Error> {
    let settings = &settings(context)?;
    let asked = json!({
        "ladder_sizes": settings.ladder_sizes,
        "ladder": settings.ladder,
        "random_starts": settings.random_starts,
    });
    let fingerprint = Fingerprint::new("toy ladder", VERSION, asked, context.profile().name());
    let frame = context.recall("toy_ladder", &fingerprint, Device::Cpu, || {
        let total = settings.ladder_sizes.len() * settings.ladder.2;
        let progress = context.progress("attractors", total as u64);
        Ok(ladder_frame(&ladder(settings, &*progress)?)?)
    })?;
    Ok(Ladder::new(ladder_rows(&frame)?)?)
}
