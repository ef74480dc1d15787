//! How near noised images return, for images that the network was trained on and for others: a basin without a threshold.

use ndarray::{ArrayView2, Axis, Zip};
use serde::{Deserialize, Serialize};

use super::frame::{return_frame, return_rows};
use super::{NAME, steps_from};
use crate::Error;
use crate::detect::quantile;
use crate::process::{Process, Vp};
use crate::progress::{Reporter, Silent};
use crate::random::{SEED, Streams};
use crate::sample::ddim;
use crate::score::Score;
use crate::setting::SettingError;
use crate::study::context::Context;
use crate::study::error::StudyError;
use crate::study::subject::{NetworkRows, NetworkTable, Subject, Subjects};

/// Settings of the distances of return: table `returns` of a profile. All are this project's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReturnSettings {
    /// Noise levels from which images return.
    pub t: Vec<usize>,
    /// Number of noisy copies of an image.
    pub copies: usize,
    /// Number of DDIM steps to clean data, at most.
    pub steps: usize,
    /// Seed of the noise.
    pub seed: u64,
}

impl Default for ReturnSettings {
    fn default() -> Self {
        Self { t: vec![26, 101, 201], copies: 4, steps: 20, seed: SEED }
    }
}

/// Distances of return of one kind of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ReturnRow {
    /// Number of training images, K.
    pub k: usize,
    /// The noise level.
    pub t: usize,
    /// Whether the images were not in the training set.
    pub held_out: bool,
    /// Number of images.
    pub images: usize,
    /// Median over images and copies of the l2 distance from the image to what the noisy copy is denoised to.
    pub median: f64,
    /// Lower quartile.
    pub low: f64,
    /// Upper quartile.
    pub high: f64,
}

/// The distances of return of the first `most` training images of a subject, and of as many held-out ones.
///
/// Noise of level t is added to several copies of an image, and DDIM takes each back. The median distance of the results from
/// the image says how far the network's idea of the image is from the image, with no threshold on the distance. Noise follows
/// from seed, image and copy, and is the same for both kinds.
///
/// # Errors
/// [`StudyError::Setting`] for no copies; errors of the images, the process and the sampler.
pub fn returns(
    subject: &Subject,
    settings: &ReturnSettings,
    most: usize,
    reporter: &dyn Reporter,
) -> Result<Vec<ReturnRow>, Error> {
    if settings.copies == 0 {
        return Err(StudyError::from(SettingError::new(NAME, "copies", 0, "at least 1")).into());
    }
    let training = subject.training()?;
    let count = training.nrows().min(most);
    let training = training.select(Axis(0), &(0..count).collect::<Vec<_>>()).into_shared();
    let kinds = [(false, Some(training)), (true, subject.held_out(most)?)];
    let mut rows = Vec::new();
    for (held_out, images) in kinds.into_iter().filter_map(|(held_out, images)| Some((held_out, images?))) {
        let clean = images.mapv(f64::from);
        let progress = reporter.progress("returns", settings.t.len() as u64);
        for &t in &settings.t {
            let distances = distances(subject.score(), subject.vp(), clean.view(), t, settings)?;
            progress.advance(1);
            let [low, median, high] = [0.25, 0.5, 0.75].map(|q| quantile(&distances, q).unwrap_or(f64::NAN));
            rows.push(ReturnRow { k: subject.k()?, t, held_out, images: clean.nrows(), median, low, high });
        }
    }
    Ok(rows)
}

/// The distance of each of `images` `[m, N]` from what its noisy copies are denoised to, copy by copy: `[m copies]`.
fn distances(
    score: &dyn Score,
    vp: &Vp,
    images: ArrayView2<'_, f64>,
    t: usize,
    settings: &ReturnSettings,
) -> Result<Vec<f64>, StudyError> {
    let copied: Vec<usize> = (0..images.nrows() * settings.copies).map(|i| i / settings.copies).collect();
    let clean = images.select(Axis(0), &copied);
    let noise = Streams::new(settings.seed, "returns", 0..copied.len()).normal(clean.ncols());
    let level = vp.level(t as f64)?;
    let mut noisy = clean.clone();
    Zip::from(&mut noisy).and(&noise).for_each(|x, &z| *x = level.perturb(*x, z));
    let ends = ddim(score, &steps_from(vp, t, settings.steps)?, noisy, Some(1.0), &Silent)?;
    Ok((&ends - &clean).outer_iter().map(|d| d.dot(&d).sqrt()).collect())
}

/// Distances of return of the profile's networks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Returns {
    /// One row for each K, level and kind of images.
    pub networks: Vec<NetworkRows<ReturnRow>>,
}

/// The distances at which noised training images and held-out images return, against K; stored as `basin_returns`.
///
/// # Errors
/// Those of the sweep, of [`returns`] and of the stored table.
pub fn all_returns(context: &Context) -> Result<Returns, Error> {
    let subjects = Subjects::new(context)?;
    let settings: ReturnSettings = context.settings("returns")?;
    let fingerprint = subjects.fingerprint("returns", 1, &settings)?;
    let table = NetworkTable { name: "basin_returns", frame: return_frame, rows: return_rows };
    let networks = subjects.recall_one(&fingerprint, table, |subject, _, _| {
        returns(subject, &settings, subjects.settings().most, context.reporter())
    })?;
    Ok(Returns { networks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::score::Empirical;
    use ndarray::array;

    /// The exact score returns its memories, and takes another image to the memory that is nearest.
    #[test]
    fn memories_return_and_others_go_to_the_nearest_memory() {
        let memories = array![[0.9, 0.9, -0.9], [-0.9, 0.9, 0.9], [-0.9, -0.9, -0.9]];
        let score = Empirical::new(Memories::new(memories.clone()).unwrap());
        let settings = ReturnSettings { copies: 3, ..ReturnSettings::default() };
        let found =
            |images: ArrayView2<'_, f64>| distances(&score, &Vp::default(), images, 26, &settings).unwrap();
        let kept = found(memories.view());
        assert!(kept.len() == 9 && kept.iter().all(|d| *d < 1e-3), "{kept:?}");
        let moved = found(array![[0.9, 0.6, -0.9], [-0.9, -0.9, -0.5]].view());
        for (d, due) in moved.iter().zip([0.3, 0.3, 0.3, 0.4, 0.4, 0.4]) {
            assert!((d - due).abs() < 1e-3, "{moved:?}");
        }
    }
}
