//! Comparison of a synthetic set with its training set: neighbours, thresholds, labels and fractions.

use std::collections::HashSet;

use ndarray::ArcArray2;
use serde::{Deserialize, Serialize};

use super::source::{Blocks, Checked, Found, Part, Searched, Source, check, power};
use super::threshold::quantile;
use super::{Counts, DetectError, Fractions, Null, Origin, Threshold, label, threshold, wilson};
use crate::class::Class;
use crate::device::{Device, DeviceChoice};
use crate::progress::ProgressSink;
use crate::random::SEED;
use crate::setting::SettingError;

/// Smallest distance on logarithmic axes, as a fraction of the typical distance between training images.
pub(super) const LEAST: f64 = 1e-3;
/// Distance at which two images count as the same, as a fraction of the median distance from real images to the nearest
/// other one. Distances below it do not influence thresholds.
pub(super) const SAME: f64 = 0.05;
/// Multiple of the typical distance between training images beyond which a sample counts as far.
const FAR: f64 = 10.0;
/// Largest number of training images whose distance to the rest of the training set is computed.
const WITHIN: usize = 2000;
/// Ratio of the nearest to the second nearest distance below which the ratio criterion counts a copy.
const RATIO: f64 = 1.0 / 3.0;

/// The sets to compare, each `[n, values]` with one image or its features a row.
#[derive(Debug, Clone)]
pub struct Sets {
    /// D.
    pub train: ArcArray2<f32>,
    /// S.
    pub synthetic: ArcArray2<f32>,
    /// Held-out real images.
    pub held_out: Option<ArcArray2<f32>>,
    /// Whether the distance is the squared l2 distance of the rows, as for LPIPS, instead of the l2 distance.
    pub squared: bool,
}

/// The nearest row of another set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its row in the other set.
    pub index: usize,
    /// Distance to it.
    pub distance: f64,
}

impl From<Found> for Neighbour {
    fn from(found: Found) -> Self {
        Self { index: found.index, distance: found.distance }
    }
}

/// All distances that labels depend on.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// Nearest training image of each sample; `None` for an invalid sample.
    pub train: Vec<Option<Neighbour>>,
    /// Distance to the second nearest training image; `None` for an invalid sample or a single training image.
    pub second: Vec<Option<f64>>,
    /// Nearest other sample of the same set; `None` for an invalid sample or when no other sample is valid.
    pub synthetic: Vec<Option<Neighbour>>,
    /// Number of samples of each set S; samples of several sets follow each other.
    pub each: usize,
    /// Distances from the held-out images to the nearest training image.
    pub held_out: Option<Vec<f64>>,
    /// Distances from at most 2000 training images, evenly spaced in D, to the nearest other one.
    pub within: Vec<f64>,
    /// Root mean square distance between two training images; their norm for one image or equal images.
    pub scale: f64,
    /// Position of exact copies on logarithmic axes: a thousandth of the root mean square l2 distance, squared when
    /// distances are squared.
    pub least: f64,
    /// Distance up to which images count as the same: a twentieth (1/400 when distances are squared) of the median distance
    /// from a held-out image to the training set, or without held-out images from a training image to the others; at least
    /// `least`.
    pub floor: f64,
    /// Number of training images.
    pub images: usize,
    /// Device of the search.
    pub device: Device,
}

/// Finds all neighbours exactly, without a samples x images matrix. Progress advances by one a query, at most [`queries`]
/// in all.
///
/// Samples with NaN, infinity or values so large that squared distances overflow are invalid and have no neighbour.
///
/// # Errors
/// [`DetectError::Empty`], [`DetectError::Columns`], [`DetectError::Row`] for real images that are not finite, and
/// [`DetectError::Set`] for what the search refuses, such as a device that can't be used.
///
/// ```
/// use mem2gen::detect::{Sets, neighbours};
/// use mem2gen::device::DeviceChoice;
/// use mem2gen::progress::Silent;
/// use ndarray::array;
///
/// let train = array![[0.0f32, 0.0], [8.0, 0.0]].into_shared();
/// let synthetic = array![[3.0f32, 4.0], [3.0, 5.0]].into_shared();
/// let sets = Sets { train, synthetic, held_out: None, squared: false };
/// let found = neighbours(&sets, DeviceChoice::default(), &Silent)?;
/// let (train, other) = (found.train[0].unwrap(), found.synthetic[0].unwrap());
/// assert_eq!((train.index, train.distance), (0, 5.0));
/// assert_eq!((other.index, other.distance), (1, 1.0));
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub fn neighbours(
    sets: &Sets,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Neighbours, DetectError> {
    let (found, fine) = real_neighbours(sets, device, progress)?;
    let synthetic = others(sets, &fine, found.each, Blocks::default(), device, progress)?;
    Ok(Neighbours { synthetic, ..found })
}

/// As [`neighbours`], for samples of several independent sets S that follow each other: only samples of the same set are
/// neighbours. Gives one result for each set size in `each`, of as many samples as fill whole sets; the search among real
/// images runs once.
///
/// # Errors
/// As [`neighbours`]; [`DetectError::Setting`] for a size of 0 or above the number of samples.
pub fn neighbours_in_sets(
    sets: &Sets,
    each: &[usize],
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Vec<Neighbours>, DetectError> {
    let samples = sets.synthetic.nrows();
    if let Some(&bad) = each.iter().find(|&&each| each == 0 || each > samples) {
        let need = "at least 1 and at most the number of samples";
        return Err(SettingError::new("classify", "size of a set", bad, need).into());
    }
    let (found, fine) = real_neighbours(sets, device, progress)?;
    each.iter()
        .map(|&each| {
            let whole = samples / each * each;
            Ok(Neighbours {
                train: found.train[..whole].to_vec(),
                second: found.second[..whole].to_vec(),
                synthetic: others(sets, &fine[..whole], each, Blocks::default(), device, progress)?,
                each,
                ..found.clone()
            })
        })
        .collect()
}

/// The nearest other sample of each sample in sets of `each`. `fine` says which samples are valid; those beyond its end are
/// left out.
pub(super) fn others<S: Source>(
    source: &S,
    fine: &[bool],
    each: usize,
    blocks: Blocks,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Vec<Option<Neighbour>>, S::Error> {
    let mut near = vec![None; fine.len()];
    progress.stage("samples near the samples");
    for start in (0..fine.len()).step_by(each) {
        let rows: Vec<usize> = (start..fine.len().min(start + each)).filter(|&i| fine[i]).collect();
        if rows.len() > 1 {
            let samples = Searched::new(source, Part::Synthetic, rows.clone(), blocks, device)?;
            samples.search(Part::Synthetic, &rows, 2, progress, |i, found| near[i] = not_self(i, found))?;
        }
    }
    Ok(near)
}

/// All neighbours except the nearest other samples, and whether each sample is valid.
fn real_neighbours(
    sets: &Sets,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<(Neighbours, Vec<bool>), DetectError> {
    let blocks = Blocks::default();
    let Checked { fine, scale } = check(sets, blocks)?;
    let images = sets.train.nrows();
    let train = Searched::new(sets, Part::Train, (0..images).collect(), blocks, device)?;
    let rows: Vec<usize> = (0..fine.len()).filter(|&i| fine[i]).collect();
    let count = fine.len();
    let (mut near, mut second) = (vec![None; count], vec![None; count]);

    progress.stage("training images near the samples");
    train.search(Part::Synthetic, &rows, 2, progress, |i, found| {
        near[i] = found.first().copied().map(Neighbour::from);
        second[i] = found.get(1).map(|found| found.distance);
    })?;

    progress.stage("real images near real images");
    let mut unseen = sets.held_out.as_ref().map(|_| Vec::new());
    if let (Some(held_out), Some(unseen)) = (&sets.held_out, &mut unseen) {
        let rows: Vec<usize> = (0..held_out.nrows()).collect();
        train.search(Part::HeldOut, &rows, 1, progress, |_, found| {
            unseen.extend(found.first().map(|found| found.distance));
        })?;
    }
    let mut within = Vec::new();
    train.search(Part::Train, &spaced(images), 2, progress, |i, found| {
        within.extend(not_self(i, found).map(|near| near.distance));
    })?;
    let power = |d: f64| power(sets.squared, d);
    let least = power(LEAST * scale);
    // Copies among real images are not a measure of their distance.
    let apart: Vec<f64> = unseen.as_ref().unwrap_or(&within).iter().copied().filter(|d| *d > least).collect();
    let found = Neighbours {
        train: near,
        second,
        synthetic: vec![None; count],
        each: count,
        held_out: unseen,
        within,
        scale: power(scale),
        least,
        floor: quantile(&apart, 0.5).map_or(least, |median| least.max(power(SAME) * median)),
        images,
        device: train.device,
    };
    Ok((found, fine))
}

/// At most [`WITHIN`] of the training images, evenly spaced; none of a single one, which has no other.
pub(super) fn spaced(images: usize) -> Vec<usize> {
    let few = if images > 1 { images.min(WITHIN) } else { 0 };
    (0..few).map(|i| i * images / few).collect()
}

/// Largest number of queries of [`neighbours`], the total of its progress.
pub fn queries(sets: &Sets) -> u64 {
    let samples = 2 * sets.synthetic.nrows();
    (samples + sets.held_out.as_ref().map_or(0, |h| h.nrows()) + sets.train.nrows().min(WITHIN)) as u64
}

/// The nearest of two rows or one that is not row `i` itself. Ties go to the lowest index, so when `i` is not among the
/// two, both are copies of it and the first is the nearest.
pub(super) fn not_self(i: usize, found: &[Found]) -> Option<Neighbour> {
    found.iter().find(|found| found.index != i).copied().map(Neighbour::from)
}

/// How samples are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassifySettings {
    /// delta_m of Eq. 9; `None` estimates it.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10; `None` estimates it.
    pub delta_s: Option<f64>,
    /// Fraction of S below which a class has too few samples. The paper uses such a limit but does not state it; the
    /// default is 1 percent.
    pub least_fraction: f64,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Seed of the bootstrap and of the dip test.
    pub seed: u64,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        Self { delta_m: None, delta_s: None, least_fraction: 0.01, resamples: 1000, seed: SEED }
    }
}

impl ClassifySettings {
    /// Checks every setting once.
    ///
    /// # Errors
    /// [`DetectError::Setting`] that names the first one out of its range.
    pub fn check(&self) -> Result<(), DetectError> {
        for (setting, delta) in [("delta_m", self.delta_m), ("delta_s", self.delta_s)] {
            if let Some(value) = delta.filter(|v| !(*v >= 0.0 && v.is_finite())) {
                return Err(
                    SettingError::new("classify", setting, value, "a finite number of at least 0").into()
                );
            }
        }
        let value = self.least_fraction;
        if !(0.0..=1.0).contains(&value) {
            return Err(SettingError::new("classify", "least_fraction", value, "a number from 0 to 1").into());
        }
        Ok(())
    }
}

/// Labels of a synthetic set, with thresholds and fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Label of each sample; `None` when a threshold is unknown.
    #[serde(skip)]
    pub labels: Option<Vec<Class>>,
    /// Number of synthetic samples.
    pub samples: usize,
    /// Samples with NaN, infinity or values too large for a distance.
    pub invalid: usize,
    /// Number of training images.
    pub images: usize,
    /// Samples at a distance of exactly 0 from a training image.
    pub exact_copies: usize,
    /// Valid samples further from the training set than ten times its typical distance. They are labelled by their
    /// distances; many of them mean that the sampler diverged.
    pub far: usize,
    /// Root mean square distance between two training images.
    pub scale: f64,
    /// delta_m, for d(x, D).
    pub delta_m: Threshold,
    /// delta_s, for d(x, S \ x).
    pub delta_s: Threshold,
    /// Fractions with intervals; `None` without labels.
    pub fractions: Option<Fractions>,
    /// Fractions with both thresholds at 3/4 and at 5/4; empty without labels.
    pub sensitivity: Vec<Sensitivity>,
    /// Fraction of a class below which it has too few samples.
    pub least_fraction: f64,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Seed of bootstrap and dip test.
    pub seed: u64,
    /// The criterion of nearest over second nearest; `None` for a single training image.
    pub ratio: Option<RatioCriterion>,
    /// Median and low quantiles of real distances.
    pub null: NullSummary,
}

/// Fractions at scaled thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Factor of both thresholds.
    pub scale: f64,
    /// Fractions at these thresholds.
    pub fractions: Fractions,
}

/// A second criterion of memorization: a sample is a copy when its nearest training image is less than a third as far as the
/// second nearest. An exact copy always counts. Near copies of an image that is in the training set twice are missed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioCriterion {
    /// The ratio below which a sample is a copy.
    pub below: f64,
    /// Number of copies.
    pub copies: usize,
    /// Their fraction of all samples.
    pub fraction: f64,
    /// 95 percent Wilson interval.
    pub wilson: [f64; 2],
    /// Copies that are labelled memorized; `None` without labels.
    pub also_memorized: Option<usize>,
}

/// Distances of real images to real images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NullSummary {
    /// Held-out images.
    pub held_out: usize,
    /// 1 percent quantile, 5 percent quantile and median of their distances to D; `None` without held-out images.
    pub held_out_quantiles: Option<[f64; 3]>,
    /// Training images whose distance to the others was computed.
    pub within: usize,
    /// The same quantiles of those.
    pub within_quantiles: Option<[f64; 3]>,
}

impl Neighbours {
    /// Distance to the nearest over that to the second nearest training image of a sample; 0 for an exact copy. `None` for an
    /// invalid sample or a single training image.
    pub fn ratio(&self, sample: usize) -> Option<f64> {
        let (near, second) = (self.train[sample]?.distance, self.second[sample]?);
        Some(if near == 0.0 { 0.0 } else { near / second })
    }

    /// Labels with these thresholds.
    fn labels(&self, delta_m: f64, delta_s: f64) -> Vec<Class> {
        // A sample without neighbour is invalid, and so is one at the distance NaN.
        let distance = |n: &Option<Neighbour>| n.map_or(f64::NAN, |n| n.distance);
        self.train
            .iter()
            .zip(&self.synthetic)
            .map(|(train, other)| label(distance(train), other.map(|n| n.distance), delta_m, delta_s))
            .collect()
    }
}

/// Thresholds, the label of every sample, and fractions with intervals (Eqs. 9 to 11).
///
/// ```
/// use mem2gen::class::Class;
/// use mem2gen::detect::{ClassifySettings, Sets, classify, neighbours};
/// use mem2gen::device::DeviceChoice;
/// use mem2gen::progress::Silent;
/// use ndarray::array;
///
/// let train = array![[0.0f32, 0.0], [8.0, 0.0]].into_shared();
/// let synthetic = array![[0.0f32, 0.5], [3.0, 4.0], [3.0, 5.0], [8.0, 9.0]].into_shared();
/// let sets = Sets { train, synthetic, held_out: None, squared: false };
/// let found = neighbours(&sets, DeviceChoice::default(), &Silent)?;
/// let settings = ClassifySettings { delta_m: Some(1.0), delta_s: Some(1.0), ..ClassifySettings::default() };
/// let classified = classify(&found, &settings)?;
/// let labels = [Class::Memorized, Class::Spurious, Class::Spurious, Class::Generalized];
/// assert_eq!(classified.labels.unwrap(), labels);
/// assert_eq!(classified.fractions.unwrap().spurious.fraction, 0.5);
/// # Ok::<(), mem2gen::Error>(())
/// ```
///
/// # Errors
/// [`DetectError::Setting`] for a setting out of its range.
pub fn classify(found: &Neighbours, settings: &ClassifySettings) -> Result<Classification, DetectError> {
    settings.check()?;
    let known = |near: &[Option<Neighbour>]| near.iter().flatten().map(|n| n.distance).collect::<Vec<f64>>();
    let (d_train, d_synthetic) = (known(&found.train), known(&found.synthetic));
    let null = Null { held_out: found.held_out.as_deref(), within: &found.within };
    let find = |name, distances: &[f64], manual| {
        threshold(name, distances, found.floor, null, manual, settings.seed)
    };
    let delta_m = find("d(x, D)", &d_train, settings.delta_m);
    let delta_s = find("d(x, S \\ x)", &d_synthetic, settings.delta_s);
    // Without distances the threshold has no effect.
    let usable = |t: &Threshold| t.value.or((t.origin == Origin::NoDistances).then_some(0.0));
    let deltas = usable(&delta_m).zip(usable(&delta_s));
    let labels = deltas.map(|(m, s)| found.labels(m, s));
    let share = |labels: &[Class]| {
        let sets: Vec<Counts> =
            labels.chunks(found.each.max(1)).map(|set| Counts::from_labels(set.iter().copied())).collect();
        Fractions::of_sets(&sets, settings.least_fraction, settings.resamples, settings.seed)
    };
    let fractions = labels.as_deref().map(share);
    let scaled = |(m, s): (f64, f64)| {
        [0.75, 1.25]
            .map(|scale| Sensitivity { scale, fractions: share(&found.labels(scale * m, scale * s)) })
            .to_vec()
    };
    let samples = found.train.len();
    let ratio = (found.images > 1).then(|| {
        let copies: Vec<usize> =
            (0..samples).filter(|&i| found.ratio(i).is_some_and(|r| r < RATIO)).collect();
        let fraction = copies.len() as f64 / samples.max(1) as f64;
        let memorized =
            |labels: &Vec<Class>| copies.iter().filter(|&&i| labels[i] == Class::Memorized).count();
        RatioCriterion {
            below: RATIO,
            copies: copies.len(),
            fraction,
            wilson: wilson(fraction, samples).into(),
            also_memorized: labels.as_ref().map(memorized),
        }
    });
    let quantiles = |distances: &[f64]| {
        let [Some(a), Some(b), Some(c)] = [0.01, 0.05, 0.5].map(|p| quantile(distances, p)) else {
            return None;
        };
        Some([a, b, c])
    };
    Ok(Classification {
        samples,
        invalid: samples - d_train.len(),
        images: found.images,
        exact_copies: d_train.iter().filter(|d| **d == 0.0).count(),
        far: d_train.iter().filter(|d| **d > FAR * found.scale).count(),
        scale: found.scale,
        sensitivity: deltas.map(scaled).unwrap_or_default(),
        labels,
        delta_m,
        delta_s,
        fractions,
        least_fraction: settings.least_fraction,
        resamples: settings.resamples,
        seed: settings.seed,
        ratio,
        null: NullSummary {
            held_out: found.held_out.as_ref().map_or(0, Vec::len),
            held_out_quantiles: found.held_out.as_deref().and_then(quantiles),
            within: found.within.len(),
            within_quantiles: quantiles(&found.within),
        },
    })
}

/// Indices of at most `most` samples with the label `class`, the clearest first as in the paper's code: memorized by
/// increasing d(x, D), spurious by increasing and generalized by decreasing d(x, S \\ x). A sample whose neighbour is
/// already in the list comes last.
pub fn examples(found: &Neighbours, labels: &[Class], class: Class, most: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
    let near = |i: usize| {
        let neighbour = if class == Class::Memorized { found.train[i] } else { found.synthetic[i] };
        neighbour.or(found.train[i])
    };
    let key = |i: &usize| near(*i).map_or(f64::INFINITY, |n| n.distance);
    chosen.sort_by(|a, b| key(a).total_cmp(&key(b)));
    if class == Class::Generalized {
        chosen.reverse();
    }
    let mut seen = HashSet::new();
    let (mut list, mut again) = (Vec::new(), Vec::new());
    for i in chosen {
        let neighbour = near(i).map(|n| n.index);
        let new = neighbour.is_some_and(|j| seen.insert(j));
        // One of two samples that are each other's neighbour is enough.
        if class == Class::Spurious {
            seen.insert(i);
        }
        if new { list.push(i) } else { again.push(i) }
    }
    list.extend(again);
    list.truncate(most);
    list
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn samples_of_another_set_are_not_neighbours() {
        let train = array![[0.0f32, 0.0], [9.0, 0.0]];
        // Two sets of three and one sample more. The second and the fifth are invalid.
        let nan = f32::NAN;
        let s = array![[1.0f32, 0.0], [nan, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, nan], [8.0, 0.0], [1.0, 0.0]];
        let sets = Sets { train: train.into(), synthetic: s.into(), held_out: None, squared: false };
        let all = neighbours_in_sets(&sets, &[3, 7], DeviceChoice::default(), &Silent).unwrap();
        let near = |found: &Neighbours| -> Vec<Option<(usize, f64)>> {
            found.synthetic.iter().map(|n| n.map(|n| (n.index, n.distance))).collect()
        };
        let expected = [Some((2, 2.0)), None, Some((0, 2.0)), Some((5, 7.0)), None, Some((3, 7.0))];
        assert_eq!(near(&all[0]), expected);
        assert_eq!((all[0].each, all[0].train.len(), all[0].second.len()), (3, 6, 6));
        assert_eq!(all[0].train[5], Some(Neighbour { index: 1, distance: 1.0 }));
        // As one set: what `neighbours` finds.
        let one = neighbours(&sets, DeviceChoice::default(), &Silent).unwrap();
        assert_eq!((near(&all[1]), all[1].each), (near(&one), one.each));
        assert_eq!(near(&one)[0], Some((3, 0.0)));
        for bad in [0, 8] {
            let error = neighbours_in_sets(&sets, &[bad], DeviceChoice::default(), &Silent).unwrap_err();
            assert!(matches!(error, DetectError::Setting(_)), "{error}");
        }
    }
}
