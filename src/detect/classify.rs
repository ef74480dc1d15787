//! A synthetic set against its training set: neighbours, thresholds, labels, fractions.

use std::collections::HashSet;

use ndarray::{ArrayView1, ArrayView2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::threshold::quantile;
use super::{Counts, DetectError, Fractions, Null, Origin, Threshold, label, threshold, wilson};
use crate::class::Class;
use crate::device::{Device, DeviceChoice};
use crate::ops::{Knn, Memories, OpError};
use crate::progress::ProgressSink;
use crate::random::SEED;

/// A part of the typical distance between training images that is told from nought.
const LEAST: f64 = 1e-3;
/// A part of the median distance from real images to the nearest other one at which two images are the same: how copies
/// lie among themselves below it, and whether they come in several kinds, says nothing.
const SAME: f64 = 0.05;
/// Multiple of the typical distance between training images beyond which a sample has run away.
const FAR: f64 = 10.0;
/// Most training images whose distance to the rest of the training set is taken.
const WITHIN: usize = 2000;
/// Queries of one search, after which progress is told.
const BLOCK: usize = 4096;
/// Norm beyond which the squared distance of two rows may overflow in single precision.
const LARGEST_NORM: f64 = 1e18;
/// Nearest over second nearest below which the peers call a sample a copy.
const RATIO: f64 = 1.0 / 3.0;

/// The sets, an image or its features a row.
#[derive(Debug, Clone, Copy)]
pub struct Sets<'a> {
    /// D.
    pub train: ArrayView2<'a, f32>,
    /// S.
    pub synthetic: ArrayView2<'a, f32>,
    /// Real data that was not trained on.
    pub held_out: Option<ArrayView2<'a, f32>>,
    /// Whether the distance is the squared l2 distance of the rows, as LPIPS is, and not the l2 distance.
    pub squared: bool,
}

impl Sets<'_> {
    fn power(&self, d: f64) -> f64 {
        if self.squared { d * d } else { d }
    }
}

/// What one synthetic sample is near to; none where there is nothing or the sample is invalid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its row in the other set.
    pub index: usize,
    /// How far it is.
    pub distance: f64,
}

/// All distances that labels are made from.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// Nearest training image of each sample; none for an invalid sample.
    pub train: Vec<Option<Neighbour>>,
    /// Distance to the second nearest training image; none also where there is one training image.
    pub second: Vec<Option<f64>>,
    /// Nearest other sample of the same set; none also where no other is valid.
    pub synthetic: Vec<Option<Neighbour>>,
    /// Samples of a set S, of which there may be several one after the other.
    pub each: usize,
    /// Distances from the held-out images to the nearest training image.
    pub held_out: Option<Vec<f64>>,
    /// Distances from up to 2000 training images, evenly spaced in D, to the nearest other one.
    pub within: Vec<f64>,
    /// Typical distance between two training images, the root of the mean square; of one image or equal
    /// ones their norm.
    pub scale: f64,
    /// A distance to show exact copies at, where axes are logarithmic: a thousandth of `scale`, or of its root where
    /// distances are squared.
    pub least: f64,
    /// Distance at and below which images are the same: a twentieth (of the root where distances are squared) of the
    /// median distance from a held-out image to the training set, or without those from a training image to the others;
    /// never below `least`.
    pub floor: f64,
    /// Training images.
    pub images: usize,
    /// Where it was computed.
    pub device: Device,
}

/// Searches for all neighbours, exactly, without a samples x images matrix. Each step of progress is a
/// query; [`queries`] says how many there are.
///
/// Samples with NaN or infinity, or so large that squared distances overflow, are left out.
///
/// # Errors
/// [`DetectError`] for an empty set, rows of different lengths, real data that is not finite, and a device that
/// can't be used.
pub fn neighbours(
    sets: &Sets<'_>,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Neighbours, DetectError> {
    let found = real_neighbours(sets, device, progress)?;
    let synthetic = others(sets, found.each, device, progress)?;
    Ok(Neighbours { synthetic, ..found })
}

/// As [`neighbours`], for samples that are several independent sets S one after the other: a sample of another set is
/// no neighbour. One result for each size of a set in `each`, of the first samples that make whole sets of it; the
/// search among real images is done once.
///
/// # Errors
/// As [`neighbours`]; [`DetectError::Setting`] for a size of 0 or of more samples than there are.
pub fn neighbours_in_sets(
    sets: &Sets<'_>,
    each: &[usize],
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Vec<Neighbours>, DetectError> {
    let samples = sets.synthetic.nrows();
    if let Some(&bad) = each.iter().find(|&&each| each == 0 || each > samples) {
        let need = "at least 1 and at most the number of samples";
        return Err(DetectError::Setting { setting: "size of a set", value: bad as f64, need });
    }
    let found = real_neighbours(sets, device, progress)?;
    each.iter()
        .map(|&each| {
            let whole = samples / each * each;
            let some = Sets { synthetic: sets.synthetic.slice(s![..whole, ..]), ..*sets };
            Ok(Neighbours {
                train: found.train[..whole].to_vec(),
                second: found.second[..whole].to_vec(),
                synthetic: others(&some, each, device, progress)?,
                each,
                ..found.clone()
            })
        })
        .collect()
}

/// The nearest other sample of each sample in sets of `each`.
fn others(
    sets: &Sets<'_>,
    each: usize,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Vec<Option<Neighbour>>, DetectError> {
    let of = |source: OpError| DetectError::Set { set: "synthetic", source };
    let mut near = vec![None; sets.synthetic.nrows()];
    progress.stage("samples near the samples");
    for (number, set) in sets.synthetic.axis_chunks_iter(Axis(0), each).enumerate() {
        let rows: Vec<usize> = (0..).zip(valid(set)).filter_map(|(i, fine)| fine.then_some(i)).collect();
        let queries: CowArray<'_, f32, Ix2> =
            if rows.len() == set.nrows() { set.into() } else { set.select(Axis(0), &rows).into() };
        if rows.len() > 1 {
            let samples = Memories::on(queries.view(), device).map_err(of)?;
            search(&samples, queries.view(), 2, progress, |i, found, q| {
                near[number * each + rows[i]] = not_self(i, found, q)
                    .map(|(j, d)| Neighbour { index: number * each + rows[j], distance: sets.power(d) });
            })
            .map_err(of)?;
        }
    }
    Ok(near)
}

/// All but the nearest other samples.
fn real_neighbours(
    sets: &Sets<'_>,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Neighbours, DetectError> {
    let Sets { train, synthetic, held_out, .. } = *sets;
    let shaped = [("training", Some(train)), ("synthetic", Some(synthetic)), ("held-out", held_out)];
    for (set, rows) in shaped.iter().filter_map(|(set, rows)| Some((*set, (*rows)?))) {
        let (m, n) = rows.dim();
        if m == 0 || n == 0 {
            return Err(DetectError::Empty { set, shape: [m, n] });
        }
        if n != train.ncols() {
            return Err(DetectError::Columns { set, found: n, expected: train.ncols() });
        }
        if set != "synthetic"
            && let Some(row) = valid(rows).iter().position(|v| !v)
        {
            let value = rows.row(row).iter().copied().fold(0.0, worse);
            return Err(DetectError::Row { set, row, value });
        }
    }
    let of = |set| move |source: OpError| DetectError::Set { set, source };
    let power = |d: f64| sets.power(d);

    let memories = Memories::on(train, device).map_err(of("training"))?;
    let images = memories.len();
    let fine = valid(synthetic);
    let rows: Vec<usize> = (0..fine.len()).filter(|&i| fine[i]).collect();
    let copied;
    let queries = if rows.len() == fine.len() {
        synthetic
    } else {
        copied = synthetic.select(Axis(0), &rows);
        copied.view()
    };
    let count = synthetic.nrows();
    let (mut near, mut second) = (vec![None; count], vec![None; count]);

    progress.stage("training images near the samples");
    search(&memories, queries, images.min(2), progress, |i, found, q| {
        let at = |rank: usize| Neighbour {
            index: found.index[[q, rank]],
            distance: power(found.distance[[q, rank]]),
        };
        near[rows[i]] = Some(at(0));
        second[rows[i]] = (images > 1).then(|| at(1).distance);
    })
    .map_err(of("synthetic"))?;

    progress.stage("real images near real images");
    let mut unseen = held_out.map(|_| Vec::new());
    if let (Some(held_out), Some(unseen)) = (held_out, &mut unseen) {
        search(&memories, held_out, 1, progress, |_, found, q| unseen.push(power(found.distance[[q, 0]])))
            .map_err(of("held-out"))?;
    }
    let mut within = Vec::new();
    if images > 1 {
        let some: Vec<usize> = (0..images.min(WITHIN)).map(|i| i * images / images.min(WITHIN)).collect();
        let asked = train.select(Axis(0), &some);
        search(&memories, asked.view(), 2, progress, |i, found, q| {
            within.extend(not_self(some[i], found, q).map(|(_, d)| power(d)));
        })
        .map_err(of("training"))?;
    }
    let scale = scale(train);
    let least = power(LEAST * scale);
    // Copies among real images are no measure of how far those are.
    let apart: Vec<f64> = unseen.as_ref().unwrap_or(&within).iter().copied().filter(|d| *d > least).collect();
    Ok(Neighbours {
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
        device: memories.device(),
    })
}

/// How many steps of progress [`neighbours`] tells at most.
pub fn queries(sets: &Sets<'_>) -> u64 {
    let samples = 2 * sets.synthetic.nrows();
    (samples + sets.held_out.map_or(0, |h| h.nrows()) + sets.train.nrows().min(WITHIN)) as u64
}

/// Searches block by block; `take` gets the number of the query, the block's neighbours and the row in it.
fn search(
    memories: &Memories<f32>,
    queries: ArrayView2<'_, f32>,
    k: usize,
    progress: &dyn ProgressSink,
    mut take: impl FnMut(usize, &Knn, usize),
) -> Result<(), OpError> {
    for start in (0..queries.nrows()).step_by(BLOCK) {
        let end = (start + BLOCK).min(queries.nrows());
        let found = memories.knn(queries.slice(s![start..end, ..]), k, false)?;
        for q in 0..end - start {
            take(start + q, &found, q);
        }
        progress.advance((end - start) as u64);
    }
    Ok(())
}

/// The first of two neighbours that is not row `i` itself. Ties go to the lowest index, so if `i` is not among
/// the two, both are copies of it, and the first is the right one.
fn not_self(i: usize, found: &Knn, q: usize) -> Option<(usize, f64)> {
    (0..2).map(|rank| (found.index[[q, rank]], found.distance[[q, rank]])).find(|(j, _)| *j != i)
}

/// Which rows are finite, and so near that squared distances are finite too.
fn valid(rows: ArrayView2<'_, f32>) -> Vec<bool> {
    let norm2 = |x: ArrayView1<'_, f32>| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    // A sum with NaN is no number, and compares as false.
    rows.axis_iter(Axis(0)).into_par_iter().map(|x| norm2(x) <= LARGEST_NORM.powi(2)).collect()
}

/// The worse of two numbers: what is not finite, else the larger one.
fn worse(a: f32, b: f32) -> f32 {
    if !a.is_finite() || b.abs() <= a.abs() { a } else { b }
}

/// Root of the mean squared distance between two rows; where that is 0 the norm of a row, and 1 for nought.
fn scale(rows: ArrayView2<'_, f32>) -> f64 {
    let (m, n) = rows.dim();
    let mut mean = vec![0.0f64; n];
    let mut square = 0.0f64;
    for x in rows.outer_iter() {
        for (sum, v) in mean.iter_mut().zip(x) {
            *sum += f64::from(*v);
            square += f64::from(*v).powi(2);
        }
    }
    let square = square / m as f64;
    let centre: f64 = mean.iter().map(|sum| (sum / m as f64).powi(2)).sum();
    let variance = square - centre;
    // What is left of equal rows is rounding.
    let found = if variance > 1e-10 * square { (2.0 * variance).sqrt() } else { square.sqrt() };
    if found > 0.0 { found } else { 1.0 }
}

/// How samples are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassifySettings {
    /// delta_m of Eq. 9; none finds it.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10; none finds it.
    pub delta_s: Option<f64>,
    /// Fraction of S below which a class has too few samples. The paper has such a cut and does not give it:
    /// the default of 1 percent is this project's own.
    pub least_fraction: f64,
    /// Times that the bootstrap draws a set anew.
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
                return Err(DetectError::Setting { setting, value, need: "a finite number of at least 0" });
            }
        }
        let value = self.least_fraction;
        if !(0.0..=1.0).contains(&value) {
            return Err(DetectError::Setting {
                setting: "least_fraction",
                value,
                need: "a number from 0 to 1",
            });
        }
        Ok(())
    }
}

/// What a synthetic set is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// A label a sample; none where a threshold that it takes is not known.
    #[serde(skip)]
    pub labels: Option<Vec<Class>>,
    /// Synthetic samples, and how many are NaN, infinite, or too large for a distance.
    pub samples: usize,
    /// Of those.
    pub invalid: usize,
    /// Training images.
    pub images: usize,
    /// Samples at a distance of exactly 0 from a training image.
    pub exact_copies: usize,
    /// Valid samples further from the training set than ten times the typical distance in it. They count as
    /// what their distances make them; many of them mean that the sampler ran away.
    pub far: usize,
    /// Typical distance between two training images, the root of the mean square.
    pub scale: f64,
    /// delta_m, for d(x, D).
    pub delta_m: Threshold,
    /// delta_s, for d(x, S \ x).
    pub delta_s: Threshold,
    /// Fractions with intervals; none where labels are none.
    pub fractions: Option<Fractions>,
    /// The same with both thresholds at 3/4 and at 5/4; empty where labels are none.
    pub sensitivity: Vec<Sensitivity>,
    /// Fraction of a class below which it has too few samples.
    pub least_fraction: f64,
    /// Times that the bootstrap drew.
    pub resamples: usize,
    /// Seed of bootstrap and dip test.
    pub seed: u64,
    /// The criterion of nearest over second nearest; none with one training image.
    pub ratio: Option<RatioCriterion>,
    /// Median and low quantiles of real distances.
    pub null: NullSummary,
}

/// Fractions at scaled thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// What both thresholds were multiplied by.
    pub scale: f64,
    /// The fractions then.
    pub fractions: Fractions,
}

/// A second opinion on memorization: a sample is a copy where its nearest training image is less than a third
/// as far as the second nearest. An exact copy is one whatever the second; near copies of an image that is in
/// the training set twice are missed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioCriterion {
    /// The ratio below which a sample is a copy.
    pub below: f64,
    /// Samples that are.
    pub copies: usize,
    /// Their fraction of all samples.
    pub fraction: f64,
    /// 95 percent Wilson interval.
    pub wilson: [f64; 2],
    /// How many of them are labelled memorized; none without labels.
    pub also_memorized: Option<usize>,
}

/// Distances of real images to real images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NullSummary {
    /// Held-out images.
    pub held_out: usize,
    /// 1 percent quantile, 5 percent quantile and median of their distances to D; none without them.
    pub held_out_quantiles: Option<[f64; 3]>,
    /// Training images whose distance to the others was taken.
    pub within: usize,
    /// The same quantiles of those.
    pub within_quantiles: Option<[f64; 3]>,
}

impl Neighbours {
    /// Nearest over second nearest training image of a sample; 0 for an exact copy.
    pub fn ratio(&self, sample: usize) -> Option<f64> {
        let (near, second) = (self.train[sample]?.distance, self.second[sample]?);
        Some(if near == 0.0 { 0.0 } else { near / second })
    }

    /// Labels with these thresholds; `delta_s` may be missing where no sample has another beside it.
    fn labels(&self, delta_m: f64, delta_s: f64) -> Vec<Class> {
        let of = |n: &Option<Neighbour>| n.map_or(f64::NAN, |n| n.distance);
        self.train
            .iter()
            .zip(&self.synthetic)
            .map(|(train, other)| label(of(train), other.map(|n| n.distance), delta_m, delta_s))
            .collect()
    }
}

/// Labels every sample.
///
/// # Errors
/// [`DetectError::Setting`].
pub fn classify(found: &Neighbours, settings: &ClassifySettings) -> Result<Classification, DetectError> {
    settings.check()?;
    let known = |of: &[Option<Neighbour>]| of.iter().flatten().map(|n| n.distance).collect::<Vec<f64>>();
    let (d_train, d_synthetic) = (known(&found.train), known(&found.synthetic));
    let null = Null { held_out: found.held_out.as_deref(), within: &found.within };
    let find = |name, distances: &[f64], manual| {
        threshold(name, distances, found.floor, null, manual, settings.seed)
    };
    let delta_m = find("d(x, D)", &d_train, settings.delta_m);
    let delta_s = find("d(x, S \\ x)", &d_synthetic, settings.delta_s);
    // Without distances any threshold will do: no sample is held against it.
    let usable = |t: &Threshold| t.value.or((t.origin == Origin::NoDistances).then_some(0.0));
    let deltas = usable(&delta_m).zip(usable(&delta_s));
    let labels = deltas.map(|(m, s)| found.labels(m, s));
    let share = |labels: &[Class]| {
        let sets: Vec<Counts> =
            labels.chunks(found.each.max(1)).map(|set| Counts::of(set.iter().copied())).collect();
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
    let quantiles = |of: &[f64]| {
        let [Some(a), Some(b), Some(c)] = [0.01, 0.05, 0.5].map(|p| quantile(of, p)) else { return None };
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

/// Up to `most` samples with one label, the clearest first as in the paper's code: memorized by d(x, D), spurious by
/// d(x, S \\ x), generalized by the latter downwards. A sample whose neighbour is on the list already comes last.
pub fn examples(found: &Neighbours, labels: &[Class], of: Class, most: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == of).collect();
    let near = |i: usize| {
        let neighbour = if of == Class::Memorized { found.train[i] } else { found.synthetic[i] };
        neighbour.or(found.train[i])
    };
    let key = |i: &usize| near(*i).map_or(f64::INFINITY, |n| n.distance);
    chosen.sort_by(|a, b| key(a).total_cmp(&key(b)));
    if of == Class::Generalized {
        chosen.reverse();
    }
    let mut seen = HashSet::new();
    let (mut list, mut again) = (Vec::new(), Vec::new());
    for i in chosen {
        let neighbour = near(i).map(|n| n.index);
        let new = neighbour.is_some_and(|j| seen.insert(j));
        // Of two samples that are each other's neighbour one is enough.
        if of == Class::Spurious {
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
    fn samples_of_another_set_are_no_neighbours() {
        let train = array![[0.0f32, 0.0], [9.0, 0.0]];
        // Two sets of three, and one sample over. The second and the fifth are no samples.
        let nan = f32::NAN;
        let s = array![[1.0f32, 0.0], [nan, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, nan], [8.0, 0.0], [1.0, 0.0]];
        let sets = Sets { train: train.view(), synthetic: s.view(), held_out: None, squared: false };
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
            assert!(matches!(error, DetectError::Setting { .. }), "{error}");
        }
    }
}
