//! Basins of attraction: up to which noise an image comes back (Alg. 1), and the volume of the ball with that radius
//! (Eqs. 12 and 34).
//!
//! An image is noised to a level t in several copies, and each is carried back by DDIM. At the first level at which too
//! few copies come back to the image its search is over, and the level before is its critical time t_c. That is asked
//! of every image on its own: the public code asks it of a whole batch, so that its results depend on the batching.
//!
//! The images that are still searched go through the score together, at one level. The noise of a copy is known by
//! seed, image, level and copy, so that no result depends on what else is searched, nor on the number of threads, as
//! far as the score's rows don't.

use std::f64::consts::PI;

use ndarray::{Array2, ArrayView2, Axis, Zip, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::class::Group;
use crate::detect::wilson;
use crate::distance::Lpips;
use crate::ops::Memories;
use crate::process::{Level, Process, Steps, Vp};
use crate::progress::{ProgressSink, Silent};
use crate::random::{SEED, Stream};
use crate::sample::{Draw, SampleError, Sampler, ddim};
use crate::score::{Score, check_rows};
use crate::shape::Shape;
use crate::study::StudyError;

/// Version of the numbers that this analysis gives. It goes up with any change that moves them.
pub const VERSION: u32 = 2;

const NAME: &str = "basin";

/// Settings of the search; the defaults are those of the paper's code.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BasinSettings {
    /// Distance up to which a copy has come back; none takes the delta_m of the samples' labels. The paper takes
    /// about that for CIFAR10 and LSUN-CHURCH, and gives no number for MNIST and FMNIST.
    pub delta: Option<f64>,
    /// Share of the copies that have to come back, p of Alg. 1.
    pub stop: f64,
    /// Copies of an image at each level, n of Alg. 1.
    pub perturbations: usize,
    /// Steps of DDIM at most; see [`steps_from`].
    pub steps: usize,
    /// From one level that is tried to the next.
    pub stride: usize,
    /// The first level that is tried, which is t_c as well where too few copies come back even from there.
    pub first: usize,
    /// Whether the predicted clean image is clamped to [-1, 1] in each step.
    pub clamp: bool,
    /// Classes with fewer images are marked. This project's own; the paper's cut is not known.
    pub least: usize,
    /// Times that a class is drawn anew for the intervals of its means. This project's own.
    pub resamples: usize,
    /// Seed of noise and bootstrap.
    pub seed: u64,
}

impl Default for BasinSettings {
    fn default() -> Self {
        Self {
            delta: None,
            stop: 0.9,
            perturbations: 10,
            steps: 20,
            stride: 25,
            first: 1,
            clamp: true,
            least: 10,
            resamples: 1000,
            seed: SEED,
        }
    }
}

/// Checked [`BasinSettings`], with a delta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BasinParams {
    settings: BasinSettings,
    delta: f64,
}

impl BasinSettings {
    /// Checks every setting once. `delta_m` stands in for a delta that is not set.
    ///
    /// # Errors
    /// [`StudyError::Setting`] that names the first one out of its range.
    pub fn check(self, delta_m: Option<f64>) -> Result<BasinParams, StudyError> {
        let refused = |setting, value: String, need: &str| {
            Err(StudyError::Setting { analysis: NAME, setting, value, need: need.into() })
        };
        let Some(delta) = self.delta.or(delta_m) else {
            return refused("delta", "not set".into(), "a number, as no delta_m of labels is known");
        };
        if !(delta > 0.0 && delta.is_finite()) {
            return refused("delta", delta.to_string(), "a finite number above 0");
        }
        if !(self.stop > 0.0 && self.stop <= 1.0) {
            return refused("stop", self.stop.to_string(), "a number above 0, of at most 1");
        }
        for (setting, value) in [
            ("perturbations", self.perturbations),
            ("steps", self.steps),
            ("stride", self.stride),
            ("first", self.first),
        ] {
            if value == 0 {
                return refused(setting, value.to_string(), "at least 1");
            }
        }
        Ok(BasinParams { settings: self, delta })
    }
}

impl BasinParams {
    /// What was checked.
    pub fn settings(&self) -> &BasinSettings {
        &self.settings
    }

    /// Distance up to which a copy has come back.
    pub fn delta(&self) -> f64 {
        self.delta
    }

    /// The levels that are tried, ascending: first, first + stride, ... up to T - 1.
    ///
    /// # Errors
    /// [`StudyError::Setting`] where the first is none of the process.
    pub fn times(&self, vp: &Vp) -> Result<Vec<usize>, StudyError> {
        let BasinSettings { first, stride, .. } = self.settings;
        let levels = vp.settings().levels;
        if first >= levels {
            let need = format!("a level of the process, at most {}", levels - 1);
            return Err(StudyError::Setting {
                analysis: NAME,
                setting: "first",
                value: first.to_string(),
                need,
            });
        }
        Ok((first..levels).step_by(stride).collect())
    }
}

/// What DDIM walks through from level t: `most` steps or t, whichever is less, of t over their number, rounded up. So
/// there may be fewer: from 26, 13 steps of 2. The last step goes to clean data, at t = -1; public code leaves its end
/// open, and this one is this project's own.
///
/// # Errors
/// As [`Steps::at`].
pub fn steps_from(vp: &Vp, t: usize, most: usize) -> Result<Steps, StudyError> {
    let length = t.div_ceil(most.min(t).max(1)).max(1);
    let mut times: Vec<f64> =
        (0..).map(|i| t as f64 - (i * length) as f64).take_while(|t| *t > 0.0).collect();
    times.push(vp.clean());
    Ok(Steps::at(vp, &times)?)
}

/// log V_N(R) = (N/2) log pi + N log R - log Gamma(N/2 + 1) of the ball with radius R in N dimensions (Eqs. 12 and 34).
/// Minus infinity for R = 0.
pub fn log_volume(dim: usize, radius: f64) -> f64 {
    let n = dim as f64;
    0.5 * n * PI.ln() + n * radius.ln() - libm::lgamma(0.5 * n + 1.0)
}

/// Rows of features, an image each.
type Map<'a> = dyn Fn(ArrayView2<'_, f32>) -> Result<Array2<f32>, StudyError> + Sync + 'a;

/// The distance that delta is one of.
pub struct Distance<'a> {
    map: Option<Box<Map<'a>>>,
    squared: bool,
}

impl<'a> Distance<'a> {
    /// l2 of the images' values.
    pub fn l2() -> Self {
        Self { map: None, squared: false }
    }

    /// l2, or its square, of features. `map` makes a row of features from each row, an image with values in [-1, 1].
    pub fn features(
        map: impl Fn(ArrayView2<'_, f32>) -> Result<Array2<f32>, StudyError> + Sync + 'a,
        squared: bool,
    ) -> Self {
        Self { map: Some(Box::new(map)), squared }
    }

    /// LPIPS, of images of this shape. Values beyond [-1, 1] are cut off.
    pub fn lpips(lpips: &'a Lpips, shape: Shape) -> Self {
        let map = move |x: ArrayView2<'_, f32>| {
            let unit = x.mapv(|v| (0.5 * v + 0.5).clamp(0.0, 1.0));
            Ok(lpips.features(shape, unit.view(), &Silent)?)
        };
        Self::features(map, true)
    }

    fn rows(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>, StudyError> {
        match &self.map {
            None => Ok(x.to_owned()),
            Some(map) => {
                let rows = map(x.mapv(|v| v as f32).view())?.mapv(f64::from);
                check_rows(NAME, "features", &rows.view(), (x.nrows(), rows.ncols()))?;
                Ok(rows)
            }
        }
    }

    fn power(&self, l2: f64) -> f64 {
        if self.squared { l2 * l2 } else { l2 }
    }

    /// From each image to its copies, which lie one after the other: `[m]`, `[m n]` to m n distances.
    fn to_copies(
        &self,
        images: ArrayView2<'_, f64>,
        copies: ArrayView2<'_, f64>,
    ) -> Result<Vec<f64>, StudyError> {
        let each = copies.nrows() / images.nrows().max(1);
        let mut out = Vec::with_capacity(copies.nrows());
        // Features can be long, so there are never more than those of one image's copies.
        for (image, copies) in images.axis_chunks_iter(Axis(0), 1).zip(copies.axis_chunks_iter(Axis(0), each))
        {
            let (from, to) = (self.rows(image)?, self.rows(copies)?);
            out.extend(to.outer_iter().map(|to| {
                let square: f64 = to.iter().zip(from.row(0)).map(|(a, b)| (a - b) * (a - b)).sum();
                self.power(square.sqrt())
            }));
        }
        Ok(out)
    }
}

/// What was found of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BasinRow {
    /// What the image is.
    pub group: Group,
    /// Its row among the samples, or in the training set.
    pub id: usize,
    /// The critical time of Alg. 1: the last level up to which at every level that was tried a share of `stop` or more
    /// came back.
    pub t_c: usize,
    /// Whether too few came back even from the first level, which then stands for t_c.
    pub floor: bool,
    /// Whether enough came back from the last level as well, so that t_c may be later.
    pub ceiling: bool,
    /// Mean over the copies of the last level up to which that copy came back from every one, the level at which the
    /// search ended included: how the public code has the critical time. The first level for a copy that never did.
    pub t_copies: f64,
    /// R: mean distance, in l2, from the image to copies that are noised to t_c anew.
    pub radius: f64,
    /// log V_N(R), in nats.
    pub log_volume: f64,
    /// How many copies came back from each level that was tried, from the first on.
    pub recovered: Vec<usize>,
}

/// A search for basins.
pub struct Search<'a> {
    /// The score.
    pub score: &'a dyn Score,
    /// Its process.
    pub vp: &'a Vp,
    /// The settings.
    pub params: BasinParams,
    /// What delta is a distance of.
    pub distance: Distance<'a>,
}

impl Search<'_> {
    /// Alg. 1 for each row of `images` `[m, N]`; `ids` are their numbers, by which noise is drawn and rows are named.
    /// Reports as many steps of progress as [`Self::work`] says.
    ///
    /// # Errors
    /// Images of another shape or that are not finite, as many numbers as there are images not, a first level that is
    /// none, what score and sampler refuse (with the number of the image) and what the distance refuses.
    pub fn rows(
        &self,
        group: Group,
        images: ArrayView2<'_, f32>,
        ids: &[usize],
        progress: &dyn ProgressSink,
    ) -> Result<Vec<BasinRow>, StudyError> {
        let settings = self.params.settings;
        let (clean, times) = (self.checked(images, ids)?, self.params.times(self.vp)?);
        let copies = settings.perturbations;
        let mut recovered = vec![Vec::new(); ids.len()];
        // The last level up to which a copy always came back, and whether it does still.
        let mut of_copies = vec![vec![(settings.first, true); copies]; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for (place, &t) in times.iter().enumerate() {
            if open.is_empty() {
                break;
            }
            let level = self.vp.level(t as f64)?;
            let from = clean.select(Axis(0), &open);
            let names: Vec<usize> = open.iter().map(|&i| ids[i]).collect();
            let x = self.noised("basin", &from, &names, level);
            let steps = steps_from(self.vp, t, settings.steps)?;
            let ends = ddim(self.score, &steps, x, self.clip(), &Silent)
                .map_err(|e| of_image(e, |row| names[row / copies]))?;
            let back: Vec<bool> = self
                .distance
                .to_copies(from.view(), ends.view())?
                .iter()
                .map(|d| *d <= self.params.delta)
                .collect();
            for (&i, back) in open.iter().zip(back.chunks(copies)) {
                recovered[i].push(back.iter().filter(|back| **back).count());
                for ((last, still), back) in of_copies[i].iter_mut().zip(back) {
                    *still &= back;
                    *last = if *still { t } else { *last };
                }
            }
            progress.advance(open.len() as u64);
            let before = open.len();
            open.retain(|&i| recovered[i].last().is_some_and(|count| self.enough(*count)));
            progress.advance(((before - open.len()) * (times.len() - place - 1)) as u64);
        }
        let row = |i: usize| {
            let recovered: Vec<usize> = std::mem::take(&mut recovered[i]);
            let ceiling = recovered.last().is_some_and(|count| self.enough(*count));
            let passed = recovered.len() - usize::from(!ceiling);
            let t_c = times[passed.max(1) - 1];
            let clean = clean.slice(s![i..=i, ..]).to_owned();
            let around = self.noised("basin radius", &clean, &ids[i..=i], self.vp.level(t_c as f64)?);
            let radii = around.outer_iter().map(|x| {
                Zip::from(x).and(clean.row(0)).fold(0.0, |sum, x, c| sum + (x - c) * (x - c)).sqrt()
            });
            let radius = radii.sum::<f64>() / copies as f64;
            Ok(BasinRow {
                group,
                id: ids[i],
                t_c,
                floor: passed == 0,
                ceiling,
                t_copies: of_copies[i].iter().map(|(t, _)| *t as f64).sum::<f64>() / copies as f64,
                radius,
                log_volume: log_volume(clean.ncols(), radius),
                recovered,
            })
        };
        (0..ids.len()).map(row).collect()
    }

    /// Steps of progress for so many images.
    ///
    /// # Errors
    /// As [`BasinParams::times`].
    pub fn work(&self, images: usize) -> Result<u64, StudyError> {
        Ok((images * self.params.times(self.vp)?.len()) as u64)
    }

    /// The check from the other side: of `draws` starts of pure noise, how many DDIM carries along `steps` to within
    /// delta of each image. An end is counted for the nearest image alone. Reports a step of progress for each draw.
    ///
    /// # Errors
    /// As [`Self::rows`]; errors name the number of the draw.
    pub fn attractor_shares(
        &self,
        group: Group,
        images: ArrayView2<'_, f32>,
        ids: &[usize],
        draws: usize,
        steps: &Steps,
        progress: &dyn ProgressSink,
    ) -> Result<AttractorShares, StudyError> {
        /// Draws that go through the score together.
        const PART: usize = 1024;
        if draws == 0 {
            let (value, need) = (draws.to_string(), "at least 1".into());
            return Err(StudyError::Setting { analysis: NAME, setting: "draws", value, need });
        }
        let clean = self.checked(images, ids)?;
        let memories = self.distance.rows(clean.view())?;
        let memories = Memories::new(memories.view())?;
        let draw = Draw {
            score: self.score,
            process: self.vp,
            sampler: Sampler::Ddim(steps.clone()),
            clip: self.clip(),
            seed: self.params.settings.seed,
        };
        let mut counts = vec![0; ids.len()];
        for part in Draw::parts(draws, PART) {
            let ends = draw.samples(part.clone(), &Silent)?;
            let near = memories.nearest(self.distance.rows(ends.view())?.view(), false)?;
            for (&i, &d) in near.index.iter().zip(&near.distance) {
                counts[i] += usize::from(self.distance.power(d) <= self.params.delta);
            }
            progress.advance(part.len() as u64);
        }
        let elsewhere = draws - counts.iter().sum::<usize>();
        let row = |(&id, &count): (&usize, &usize)| {
            let share = count as f64 / draws as f64;
            let (low, high) = wilson(share, draws);
            AttractorRow { group, id, draws, count, share, low, high }
        };
        Ok(AttractorShares { elsewhere, rows: ids.iter().zip(&counts).map(row).collect() })
    }

    fn clip(&self) -> Option<f64> {
        self.params.settings.clamp.then_some(1.0)
    }

    /// Whether so many copies are the share that has to come back.
    fn enough(&self, count: usize) -> bool {
        // A quotient is rounded as a decimal is: 55 of 100 are 0.55, and 0.55 times 100 is more than 55.
        count as f64 / self.params.settings.perturbations as f64 >= self.params.settings.stop
    }

    fn checked(&self, images: ArrayView2<'_, f32>, ids: &[usize]) -> Result<Array2<f64>, StudyError> {
        let clean = images.mapv(f64::from);
        check_rows(NAME, "images", &clean.view(), (ids.len(), self.score.dim()))?;
        Ok(clean)
    }

    /// The copies of each row at a level, one after the other. Those of one image and level are one stream.
    fn noised(&self, name: &str, clean: &Array2<f64>, ids: &[usize], level: Level) -> Array2<f64> {
        let copies = self.params.settings.perturbations;
        let mut out = Array2::zeros((clean.nrows() * copies, clean.ncols()));
        out.axis_chunks_iter_mut(Axis(0), copies).into_par_iter().enumerate().for_each(|(i, mut rows)| {
            let name = format!("{name}/{}/{}", ids[i], level.t());
            let mut stream = Stream::new(self.params.settings.seed, &name);
            for mut row in rows.outer_iter_mut() {
                row.zip_mut_with(&clean.row(i), |x, clean| *x = level.perturb(*clean, stream.normal()));
            }
        });
        out
    }
}

/// The error of a row, with the number of the image in its place.
fn of_image(mut e: SampleError, id: impl Fn(usize) -> usize) -> SampleError {
    if let SampleError::NotFinite { sample, .. } = &mut e {
        *sample = id(*sample);
    }
    e
}

/// How many noise draws end at an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AttractorRow {
    /// What the image is.
    pub group: Group,
    /// Its row among the samples, or in the training set.
    pub id: usize,
    /// Draws of all images together.
    pub draws: usize,
    /// Those that end within delta of this image, and of no other one nearer.
    pub count: usize,
    /// Their share.
    pub share: f64,
    /// Lower end of its 95 percent Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Where noise draws end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttractorShares {
    /// Draws that end at none of the images.
    pub elsewhere: usize,
    /// A row an image.
    pub rows: Vec<AttractorRow>,
}

/// How the noise that ends at training images spreads over them, beside the volumes of their basins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AttractorSummary {
    /// Training images.
    pub k: usize,
    /// Noise draws.
    pub draws: usize,
    /// Share of them that end at any training image.
    pub share: f64,
    /// Lower end of its 95 percent Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Training images whose basin was searched.
    pub images: usize,
    /// Those of them that a draw ended at.
    pub reached: usize,
    /// Spearman's rank correlation of the draws that end at an image and the log-volume of its basin, over the images
    /// that were searched; None where one of them is the same for all.
    pub correlation: Option<f64>,
}

impl AttractorSummary {
    /// Of the shares of all training images, and the basins of some of them.
    pub fn of(shares: &AttractorShares, basins: &[BasinRow]) -> Self {
        let count: usize = shares.rows.iter().map(|row| row.count).sum();
        let draws = count + shares.elsewhere;
        let share = count as f64 / draws as f64;
        let (low, high) = wilson(share, draws);
        let pairs: Vec<(f64, f64)> = basins
            .iter()
            .filter_map(|basin| shares.rows.iter().find(|row| row.id == basin.id).map(|row| (row, basin)))
            .map(|(row, basin)| (row.count as f64, basin.log_volume))
            .collect();
        let (counts, volumes): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        Self {
            k: shares.rows.len(),
            draws,
            share,
            low,
            high,
            images: counts.len(),
            reached: counts.iter().filter(|count| **count > 0.0).count(),
            correlation: correlation(&ranks(&counts), &ranks(&volumes)),
        }
    }
}

/// The place of each value among all, from 1; equal ones share the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let place = |value: &f64| {
        let (below, equal) = values.iter().fold((0, 0), |(below, equal), other| {
            (below + usize::from(other < value), equal + usize::from(other == value))
        });
        below as f64 + 0.5 * (equal as f64 + 1.0)
    };
    values.iter().map(place).collect()
}

/// Pearson's correlation; None where one of the two does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let centred = |of: &[f64]| -> Vec<f64> {
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        of.iter().map(|v| v - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = (product(&a, &a) * product(&b, &b)).sqrt();
    (spread > 0.0).then(|| product(&a, &b) / spread)
}

/// A mean over images, with what is known of its error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The median of the images.
    pub median: f64,
    /// Standard deviation of the images over the root of their number; none of one image.
    pub error: Option<f64>,
    /// Lower end of the mean's 95 percent bootstrap interval over images.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Mean {
    /// Of numbers, of which there has to be one; the bootstrap draws from the streams `basin bootstrap/NAME/i`. Images
    /// are drawn as if they were independent: copies of one training image are not, which makes the interval too narrow.
    fn of(values: &[f64], resamples: usize, seed: u64, name: &str) -> Self {
        let n = values.len();
        let mean = |sum: f64| sum / n as f64;
        let centre = mean(values.iter().sum());
        let square: f64 = values.iter().map(|v| (v - centre) * (v - centre)).sum();
        let sorted = |mut v: Vec<f64>| {
            v.sort_by(f64::total_cmp);
            v
        };
        let all = sorted(values.to_vec());
        let drawn: Vec<f64> = (0..resamples)
            .into_par_iter()
            .map(|i| {
                let mut stream = Stream::new(seed, &format!("basin bootstrap/{name}/{i}"));
                mean((0..n).map(|_| values[stream.below(n as u64) as usize]).sum())
            })
            .collect();
        let drawn = sorted(drawn);
        // Without draws the interval is the number itself.
        let at = |q: f64| match drawn.len() {
            0 => centre,
            m => drawn[(q * (m - 1) as f64).round() as usize],
        };
        Self {
            mean: centre,
            median: 0.5 * (all[(n - 1) / 2] + all[n / 2]),
            error: (n > 1).then(|| (square / (n - 1) as f64 / n as f64).sqrt()),
            low: at(0.025),
            high: at(0.975),
        }
    }
}

/// What basins of a class are like at one K.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BasinSummary {
    /// Training images.
    pub k: usize,
    /// The class.
    pub group: Group,
    /// Images.
    pub images: usize,
    /// Whether they are too few to say anything of the class.
    pub too_few: bool,
    /// Images whose critical time is the floor.
    pub floor: usize,
    /// Images whose search found no end.
    pub ceiling: usize,
    /// Of log V_N(R), in nats.
    pub log_volume: Mean,
    /// Of t_c.
    pub critical_time: Mean,
    /// Of R.
    pub radius: Mean,
}

/// A summary of each group that has a row, in their order.
pub fn summarise(k: usize, rows: &[BasinRow], params: &BasinParams) -> Vec<BasinSummary> {
    let BasinSettings { least, resamples, seed, .. } = params.settings;
    let of = |group: Group| {
        let rows: Vec<&BasinRow> = rows.iter().filter(|row| row.group == group).collect();
        let mean = |name: &str, of: fn(&BasinRow) -> f64| {
            let values: Vec<f64> = rows.iter().map(|row| of(row)).collect();
            Mean::of(&values, resamples, seed, &format!("{k}/{group}/{name}"))
        };
        (!rows.is_empty()).then(|| BasinSummary {
            k,
            group,
            images: rows.len(),
            too_few: rows.len() < least,
            floor: rows.iter().filter(|row| row.floor).count(),
            ceiling: rows.iter().filter(|row| row.ceiling).count(),
            log_volume: mean("log volume", |row| row.log_volume),
            critical_time: mean("critical time", |row| row.t_c as f64),
            radius: mean("radius", |row| row.radius),
        })
    };
    Group::ALL.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Prediction, Spacing, VpSettings};
    use crate::score::{Empirical, Gaussian, ScoreError};
    use ndarray::{Array1, array};

    fn params(delta: f64, perturbations: usize) -> BasinParams {
        BasinSettings { delta: Some(delta), perturbations, ..BasinSettings::default() }.check(None).unwrap()
    }

    fn search<'a>(score: &'a dyn Score, vp: &'a Vp, params: BasinParams) -> Search<'a> {
        Search { score, vp, params, distance: Distance::l2() }
    }

    fn exact<R>(rows: &Array2<f32>, then: impl FnOnce(&Empirical<'_>) -> R) -> R {
        let rows = rows.mapv(f64::from);
        then(&Empirical::new(Memories::new(rows.view()).unwrap()))
    }

    /// The distribution function of a standard normal.
    fn phi(z: f64) -> f64 {
        0.5 * libm::erfc(-z / 2.0f64.sqrt())
    }

    /// Whether a count out of n is one that a probability gives, but for one time in 10^6 and for an error of the
    /// probability of `slack`.
    fn plausible(count: usize, n: usize, p: f64, slack: f64) -> bool {
        let share = count as f64 / n as f64;
        (share - p).abs() <= slack + 5.0 * (p.max(1e-3) * (1.0 - p).max(1e-3) / n as f64).sqrt()
    }

    /// Two memories 2a apart. The plane between them stays where it is, and DDIM leaves each point on its side: of the
    /// copies of a memory a share of Phi(alpha a / sigma) comes back.
    #[test]
    fn of_two_memories_each_has_its_side_of_the_plane_between_them() {
        let short = VpSettings { levels: 300, beta_start: 1e-3, beta_end: 0.05 }.check().unwrap();
        for (n, a, vp) in
            [(1, 0.6, Vp::default()), (2, 0.25, Vp::default()), (49, 2.0, Vp::default()), (12, 0.8, short)]
        {
            // In a direction that is none of the axes, about a centre that is not the origin.
            let unit = Array1::from_shape_fn(n, |k| if k % 2 == 0 { 1.0 } else { -1.0 }) / (n as f64).sqrt();
            let mut rows = Array2::from_elem((2, n), 0.05f32);
            rows.row_mut(0).zip_mut_with(&unit, |x, u| *x += (a * u) as f32);
            rows.row_mut(1).zip_mut_with(&unit, |x, u| *x -= (a * u) as f32);
            let copies = 400;
            let got = exact(&rows, |score| {
                let search = search(score, &vp, params(0.05 * a, copies));
                search.rows(Group::Training, rows.view(), &[0, 1], &Silent).unwrap()
            });
            let expected = |t: usize| {
                let level = vp.level(t as f64).unwrap();
                phi(level.alpha() * a / level.sigma())
            };
            let times = params(1.0, 1).times(&vp).unwrap();
            let place = times.iter().position(|t| expected(*t) < 0.9).unwrap();
            for row in got {
                for (count, t) in row.recovered.iter().zip(&times) {
                    // Copies next to the plane may end between the memories.
                    assert!(
                        plausible(*count, copies, expected(*t), 0.005),
                        "{n} {t}: {count} {}",
                        expected(*t)
                    );
                }
                assert!(row.t_c.abs_diff(times[place - 1]) <= 25, "{n}: {} {}", row.t_c, times[place - 1]);
                assert!(!row.floor && !row.ceiling);
                // The search ends at the level after t_c, and no copy is lost for long before that.
                assert_eq!(row.recovered.len(), 2 + times.iter().position(|t| *t == row.t_c).unwrap());
                assert!((row.t_copies - row.t_c as f64).abs() < 100.0, "{row:?}");
            }
        }
    }

    /// In one dimension the flow keeps quantiles: a copy at t ends at the memory in whose part of p_0 the quantile
    /// lies that it has in p_t. So every basin is an interval between two quantiles of a mixture.
    #[test]
    fn of_memories_on_a_line_each_has_its_quantiles() {
        let xs = [-0.9f32, -0.4, 0.0, 0.2, 0.95];
        let rows = Array2::from_shape_vec((5, 1), xs.to_vec()).unwrap();
        let vp = Vp::default();
        let copies = 400;
        let settings = BasinSettings { steps: 200, ..*params(0.03, copies).settings() };
        let got = exact(&rows, |score| {
            let search = search(score, &vp, settings.check(None).unwrap());
            search.rows(Group::Training, rows.view(), &[0, 1, 2, 3, 4], &Silent).unwrap()
        });
        let times = params(1.0, 1).times(&vp).unwrap();
        for (i, row) in got.iter().enumerate() {
            for (count, t) in row.recovered.iter().zip(&times) {
                let level = vp.level(*t as f64).unwrap();
                let below = |x: f64, xi: f32| phi((x - level.alpha() * f64::from(xi)) / level.sigma());
                let quantile = |q: f64| {
                    let (mut lo, mut hi) = (-20.0, 20.0);
                    for _ in 0..80 {
                        let x = 0.5 * (lo + hi);
                        let mass = xs.iter().map(|xi| below(x, *xi)).sum::<f64>() / 5.0;
                        if mass < q { lo = x } else { hi = x }
                    }
                    lo
                };
                let upper = if i == 4 { 1.0 } else { below(quantile((i + 1) as f64 / 5.0), xs[i]) };
                let lower = if i == 0 { 0.0 } else { below(quantile(i as f64 / 5.0), xs[i]) };
                // Steps of 1 to 5 levels in the place of the flow.
                assert!(plausible(*count, copies, upper - lower, 0.03), "{i} {t}: {count} {}", upper - lower);
            }
        }
        // The neighbours 0.2 apart have the smallest basins, the outermost the largest.
        let t: Vec<usize> = got.iter().map(|row| row.t_c).collect();
        assert!(t[2].max(t[3]) < t[1] && t[1] < t[0].max(t[4]), "{t:?}");
    }

    #[test]
    fn all_of_space_is_the_basin_of_a_single_memory_and_none_of_an_image_far_from_it() {
        let memory = array![[0.5f32, -0.25, 0.0]];
        let vp = Vp::default();
        let images = array![[0.5f32, -0.25, 0.0], [0.5, -0.05, 0.0], [0.5, -0.15, 0.0]];
        let got = exact(&memory, |score| {
            search(score, &vp, params(0.11, 10))
                .rows(Group::SPURIOUS, images.view(), &[4, 9, 2], &Silent)
                .unwrap()
        });
        assert_eq!(got.iter().map(|row| row.id).collect::<Vec<_>>(), [4, 9, 2]);
        for row in [&got[0], &got[2]] {
            assert_eq!((row.t_c, row.floor, row.ceiling, row.t_copies), (976, false, true, 976.0));
            assert_eq!(row.recovered, [10; 40]);
        }
        let row = &got[1];
        assert_eq!((row.t_c, row.floor, row.ceiling, row.t_copies), (1, true, false, 1.0));
        assert_eq!(row.recovered, [0]);
    }

    /// DDIM takes a Gaussian's deviation from its mean by a factor a step, so that the copies of the mean end within
    /// delta with the probability of a chi square.
    #[test]
    fn the_mean_of_a_gaussian_comes_back_as_a_chi_square_says() {
        let vp = Vp::default();
        for (v, delta) in [(0.01, 0.15), (0.25, 0.4)] {
            let score = Gaussian::new(array![0.2, -0.1], array![v, v]).unwrap();
            let image = array![[0.2f32, -0.1]];
            let copies = 2000;
            let search = search(&score, &vp, params(delta, copies));
            let row = search.rows(Group::GENERALIZED, image.view(), &[0], &Silent).unwrap().remove(0);
            for (place, count) in row.recovered.iter().enumerate() {
                let t = 1 + 25 * place;
                let length = t.div_ceil(t.min(20));
                let mut factor = 1.0;
                let mut at = t as f64;
                while at > 0.0 {
                    let next = if at - length as f64 > 0.0 { at - length as f64 } else { -1.0 };
                    let (from, to) = (vp.level(at).unwrap(), vp.level(next).unwrap());
                    let variance = from.alpha().powi(2) * v + from.sigma().powi(2);
                    factor *= (to.alpha() * from.alpha() * v + to.sigma() * from.sigma()) / variance;
                    at = next;
                }
                let radius = delta / (factor * vp.level(t as f64).unwrap().sigma());
                let p = 1.0 - (-0.5 * radius * radius).exp();
                assert!(plausible(*count, copies, p, 0.0), "{v} {t}: {count} {p}");
            }
            assert!(row.t_c > 1 && !row.ceiling, "{row:?}");
        }
    }

    #[test]
    fn the_walk_is_that_of_the_sampler_in_the_documented_steps() {
        let vp = Vp::default();
        let times =
            |t| -> Vec<f64> { steps_from(&vp, t, 20).unwrap().levels().iter().map(|l| l.t()).collect() };
        assert_eq!(times(1), [1.0, -1.0]);
        assert_eq!(times(3), [3.0, 2.0, 1.0, -1.0]);
        let expected: Vec<f64> = (1..=13).rev().map(|i| 2.0 * f64::from(i)).chain([-1.0]).collect();
        assert_eq!(times(26), expected);
        assert_eq!((times(976).len(), times(976)[1], times(976)[19]), (21, 927.0, 45.0));
        assert_eq!(times(999).len(), 21);
        // Level by level it is all of DDIM.
        let score = Gaussian::new(array![0.2, -0.1], array![0.04, 0.3]).unwrap();
        let x = array![[1.3, -0.4], [0.1, 2.0]];
        let all = vp.steps(1000, Spacing::Leading).unwrap();
        let mut levels = all.levels()[..1000].to_vec();
        levels.pop();
        let ours = steps_from(&vp, 999, 999).unwrap();
        assert_eq!(ours.levels()[..999], levels);
        let ours = ddim(&score, &ours, x.clone(), None, &Silent).unwrap();
        let theirs = ddim(&score, &all, x, None, &Silent).unwrap();
        // The last two of 1000 steps in one: to second order in the sigma of t = 1.
        assert!((ours - theirs).iter().all(|d| d.abs() < 1e-3));
    }

    #[test]
    fn an_image_does_not_feel_its_batch_nor_the_threads() {
        let rows = array![[0.9f32, 0.1], [-0.6, 0.7], [-0.2, -0.8], [-0.25, -0.7], [0.5, 0.5]];
        let vp = Vp::default();
        let ids = [3, 1, 4, 15, 9];
        exact(&rows, |score| {
            let search = search(score, &vp, params(0.05, 10));
            let all = search.rows(Group::Training, rows.view(), &ids, &Silent).unwrap();
            for (i, row) in all.iter().enumerate() {
                let alone = rows.slice(s![i..=i, ..]);
                assert_eq!(&search.rows(Group::Training, alone, &ids[i..=i], &Silent).unwrap()[0], row);
            }
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let again = one.install(|| search.rows(Group::Training, rows.view(), &ids, &Silent).unwrap());
            assert_eq!(again, all);
            // Two of them end at once, so that the rest is searched in another batch.
            assert!(all.iter().any(|row| row.t_c == 1) && all.iter().any(|row| row.t_c > 50), "{all:?}");
        });
    }

    #[test]
    fn radii_and_volumes_are_those_of_the_noise() {
        assert!((log_volume(2, 1.5) - (PI * 2.25).ln()).abs() < 1e-12);
        assert!((log_volume(3, 2.0) - (4.0 / 3.0 * PI * 8.0).ln()).abs() < 1e-12);
        assert!((log_volume(1, 0.5) - 0.0).abs() < 1e-12);
        assert_eq!(log_volume(5, 0.0), f64::NEG_INFINITY);
        // An image of 28x28 with a mean square of 1/4, as the notes on the paper have it.
        let vp = Vp::default();
        for (t, expected) in [(1, -2193.0), (101, 234.0), (301, 936.0)] {
            let level = vp.level(t as f64).unwrap();
            let square = 784.0 * ((1.0 - level.alpha()).powi(2) * 0.25 + level.sigma().powi(2));
            assert!((log_volume(784, square.sqrt()) - expected).abs() < 1.0, "{t}");
        }
        let memory = Array2::from_elem((1, 49), 0.5f32);
        let row = exact(&memory, |score| {
            let settings = BasinSettings { stride: 300, first: 301, ..*params(0.1, 200).settings() };
            let search = search(score, &vp, settings.check(None).unwrap());
            search.rows(Group::MEMORIZED, memory.view(), &[0], &Silent).unwrap().remove(0)
        });
        let level = vp.level(901.0).unwrap();
        let square = 49.0 * ((1.0 - level.alpha()).powi(2) * 0.25 + level.sigma().powi(2));
        // R is about sqrt(49) with a standard deviation of 0.7 a copy: five of those of 200, and the root's bias of 0.04.
        assert!((row.radius - square.sqrt()).abs() < 0.25 + 0.04, "{row:?}");
        assert_eq!(row.log_volume, log_volume(49, row.radius));
        assert_eq!(row.t_c, 901);
    }

    #[test]
    fn noise_ends_at_memories_in_their_shares() {
        // The third stands twice, so half of the noise ends there, and of two copies the first is counted.
        let rows = array![[0.9f32, 0.1], [-0.6, 0.7], [-0.2, -0.8], [-0.2, -0.8]];
        let vp = Vp::default();
        let steps = vp.steps(100, Spacing::Linspace).unwrap();
        exact(&rows, |score| {
            let search = search(score, &vp, params(0.01, 10));
            let of = |images: ArrayView2<'_, f32>| {
                let ids: Vec<usize> = (0..images.nrows()).collect();
                search.attractor_shares(Group::Training, images, &ids, 1500, &steps, &Silent).unwrap()
            };
            let all = of(rows.view());
            for (row, share) in all.rows.iter().zip([0.25, 0.25, 0.5, 0.0]) {
                assert!(plausible(row.count, 1500, share, 0.0), "{row:?}");
                assert!((row.share * 1500.0 - row.count as f64).abs() < 1e-9 && row.low <= row.share);
            }
            assert!(all.elsewhere < 15 && all.rows[3].count == 0, "{all:?}");
            let first = of(rows.slice(s![..1, ..]));
            assert_eq!((first.rows[0], first.elsewhere), (all.rows[0], 1500 - all.rows[0].count));
        });
    }

    #[test]
    fn draws_and_volumes_are_compared_by_rank() {
        assert_eq!(ranks(&[3.0, -1.0, 3.0, 7.0]), [2.5, 1.0, 2.5, 4.0]);
        let row = |id, count| AttractorRow {
            group: Group::Training,
            id,
            draws: 100,
            count,
            share: count as f64 / 100.0,
            low: 0.0,
            high: 1.0,
        };
        let basin = |id, log_volume| BasinRow {
            group: Group::Training,
            id,
            t_c: 1,
            floor: false,
            ceiling: false,
            t_copies: 1.0,
            radius: 1.0,
            log_volume,
            recovered: vec![],
        };
        let counts = [9, 0, 20, 5, 0, 6];
        let rows = counts.iter().enumerate().map(|(id, &count)| row(id, count)).collect();
        let shares = AttractorShares { elsewhere: 60, rows };
        // Four of the six were searched, in another order. Squares of differences of ranks: 1, 0, 1, 0.
        let basins = [basin(3, -2.0), basin(2, 9.0), basin(1, -1.0), basin(0, 3.0)];
        let found = AttractorSummary::of(&shares, &basins);
        assert_eq!((found.k, found.draws, found.images, found.reached), (6, 100, 4, 3));
        assert_eq!(found.share, 0.4);
        assert!(found.low < 0.4 && 0.4 < found.high);
        // 1 - 6 sum / (n (n^2 - 1)).
        assert!((found.correlation.unwrap() - (1.0 - 6.0 * 2.0 / 60.0)).abs() < 1e-12, "{found:?}");
        let same = [basin(0, 1.0), basin(2, 1.0)];
        assert_eq!(AttractorSummary::of(&shares, &same).correlation, None);
    }

    #[test]
    fn features_take_the_place_of_values() {
        let rows = array![[0.8f32, 0.8], [-0.8, 0.8]];
        let vp = Vp::default();
        exact(&rows, |score| {
            let of = |distance| {
                let search = Search { score, vp: &vp, params: params(0.1, 10), distance };
                search.rows(Group::Training, rows.view(), &[0, 1], &Silent).unwrap()
            };
            let l2 = of(Distance::l2());
            assert!(!l2[0].ceiling);
            // By the second value alone nobody can tell the two.
            let second = |x: ArrayView2<'_, f32>| Ok(x.slice(s![.., 1..]).to_owned());
            assert!(of(Distance::features(second, false)).iter().all(|row| row.ceiling));
            // Ten times the values and their square: delta = 0.1 is 0.0316 of values.
            let scaled = |x: ArrayView2<'_, f32>| Ok(x.mapv(|v| 10.0 * v));
            let nearer = of(Distance::features(scaled, true));
            assert!(nearer.iter().zip(&l2).all(|(a, b)| a.t_c <= b.t_c));
            let bad = Distance::features(|x: ArrayView2<'_, f32>| Ok(x.mapv(|_| f32::NAN)), false);
            let search = Search { score, vp: &vp, params: params(0.1, 10), distance: bad };
            let e = search.rows(Group::Training, rows.view(), &[0, 1], &Silent).unwrap_err();
            assert!(e.to_string().contains("features"), "{e}");
        });
    }

    /// NaN for whatever lies to the left.
    struct Broken;

    impl Score for Broken {
        fn dim(&self) -> usize {
            1
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let mut out = x.to_owned();
            for (v, level) in out.iter_mut().zip(levels) {
                let x0 = if *v < -5.0 { f64::NAN } else { *v };
                *v = level.convert(*v, x0, Prediction::X0, Prediction::Score);
            }
            Ok(out)
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            _: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            Ok(v.to_owned())
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let vp = Vp::default();
        let search = search(&Broken, &vp, params(100.0, 3));
        let e = search.rows(Group::Training, array![[0.5f32], [-9.0]].view(), &[7, 31], &Silent).unwrap_err();
        assert!(matches!(e, StudyError::Sample(SampleError::NotFinite { sample: 31, .. })), "{e}");
        let e = search.rows(Group::Training, array![[0.5f32], [f32::NAN]].view(), &[7, 31], &Silent);
        assert!(matches!(e, Err(StudyError::Op(_))));
        let e = search.rows(Group::Training, array![[0.5f32], [0.1]].view(), &[7], &Silent);
        assert!(matches!(e, Err(StudyError::Op(_))));
        let steps = vp.steps(2, Spacing::Leading).unwrap();
        let e = search.attractor_shares(Group::Training, array![[0.5f32]].view(), &[7], 0, &steps, &Silent);
        assert!(matches!(e, Err(StudyError::Setting { setting: "draws", .. })));

        let d = BasinSettings { delta: Some(0.1), ..BasinSettings::default() };
        for (bad, name) in [
            (BasinSettings { delta: None, ..d }, "delta"),
            (BasinSettings { delta: Some(f64::NAN), ..d }, "delta"),
            (BasinSettings { stop: 0.0, ..d }, "stop"),
            (BasinSettings { stop: 1.1, ..d }, "stop"),
            (BasinSettings { perturbations: 0, ..d }, "perturbations"),
            (BasinSettings { steps: 0, ..d }, "steps"),
            (BasinSettings { stride: 0, ..d }, "stride"),
            (BasinSettings { first: 0, ..d }, "first"),
        ] {
            let e = bad.check(None).unwrap_err();
            assert!(matches!(e, StudyError::Setting { setting, .. } if setting == name), "{e}");
        }
        let late = BasinSettings { first: 1000, ..d }.check(None).unwrap();
        assert!(matches!(late.times(&vp), Err(StudyError::Setting { setting: "first", .. })));
        assert_eq!(BasinSettings::default().check(Some(0.25)).unwrap().delta(), 0.25);
        assert_eq!(d.check(Some(0.25)).unwrap().delta(), 0.1);
        assert_eq!(toml::from_str::<BasinSettings>("stride = 5").unwrap().stride, 5);
        assert!(toml::from_str::<BasinSettings>("strides = 5").is_err());
    }

    #[test]
    fn summaries_are_those_of_their_groups() {
        let row = |group, id, t_c, log_volume| BasinRow {
            group,
            id,
            t_c,
            floor: t_c == 1,
            ceiling: t_c == 976,
            t_copies: 0.0,
            radius: 1.0 + id as f64,
            log_volume,
            recovered: vec![10],
        };
        let mut rows: Vec<BasinRow> =
            (0..50).map(|i| row(Group::Training, i, 101 + 50 * (i % 2), (i % 2) as f64)).collect();
        rows.insert(3, row(Group::MEMORIZED, 5, 1, -4.0));
        rows.push(row(Group::MEMORIZED, 6, 976, 2.0));
        let got = summarise(64, &rows, &params(0.1, 10));
        assert_eq!(got.iter().map(|s| s.group).collect::<Vec<_>>(), [Group::MEMORIZED, Group::Training]);
        let (few, many) = (&got[0], &got[1]);
        assert_eq!((few.k, few.images, few.too_few, few.floor, few.ceiling), (64, 2, true, 1, 1));
        assert_eq!(
            (few.log_volume.mean, few.log_volume.median, few.log_volume.error),
            (-1.0, -1.0, Some(3.0))
        );
        assert_eq!((few.log_volume.low, few.log_volume.high), (-4.0, 2.0));
        assert_eq!((many.images, many.too_few, many.floor), (50, false, 0));
        assert_eq!((many.critical_time.mean, many.radius.mean), (126.0, 25.5));
        // 50 fair coins: a standard error of 0.0714, of which the interval has 1.96 either way, in steps of 0.02.
        assert!((many.log_volume.error.unwrap() - 0.0714).abs() < 1e-4);
        assert!((many.log_volume.low - 0.36).abs() < 0.05 && (many.log_volume.high - 0.64).abs() < 0.05);
        assert!(summarise(64, &[], &params(0.1, 10)).is_empty());
    }
}
