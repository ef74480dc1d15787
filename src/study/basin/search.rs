//! Basins of attraction: the largest noise level from which an image is recovered (Alg. 1), and the volume of the ball
//! with the radius of that noise (Eqs. 12 and 34).
//!
//! Noise of increasing level t is added to several copies of an image, and DDIM takes each copy back to clean data. The
//! search of an image stops at the first level at which too few copies are recovered; the level before is its critical
//! time t_c. Every image is searched on its own. The public code searches a batch as a whole, so its results depend on
//! the batches.
//!
//! All images whose search has not stopped go through the score together, at one level. The noise of a copy follows
//! from seed, image, level and copy. So no result depends on the other images or on the number of threads, provided that
//! the rows of the score don't.

use std::f64::consts::PI;

use ndarray::{Array2, ArrayView2, Axis, Zip, s};
use rayon::prelude::*;

use super::{AttractorRow, AttractorShares, BasinParams, BasinRow, NAME};
use crate::Error;
use crate::class::Group;
use crate::detect::wilson;
use crate::distance::Lpips;
use crate::ops::Memories;
use crate::process::{Level, Process, Steps, Vp};
use crate::progress::{ProgressSink, Reporter, Silent};
use crate::random::Stream;
use crate::sample::{Draw, SampleError, Sampler, ddim};
use crate::score::{Score, check_rows};
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::study::context::{Cells, piece};
use crate::study::error::StudyError;
use crate::study::subject::{Images, Subject};

/// Number of images of a piece: they are searched together, and kept together when the run is stopped.
const PIECE: usize = 64;

/// The basins of `images` of a subject (Alg. 1). With `cells`, finished pieces are read from there and new ones are kept
/// there; all calls with these pieces must have the same subject, images, settings and distance.
///
/// # Errors
/// Those of [`Search::rows`] and of the pieces.
pub fn measure(
    subject: &Subject,
    images: &Images,
    params: &BasinParams,
    distance: &Distance<'_>,
    cells: Option<&Cells>,
    reporter: &dyn Reporter,
) -> Result<Vec<BasinRow>, Error> {
    let search = Search { score: subject.score(), vp: subject.vp(), params: *params, distance };
    let progress = reporter.progress("basins", search.work(images.len())?);
    let mut rows = Vec::with_capacity(images.len());
    for from in (0..images.len()).step_by(PIECE) {
        let part = from..images.len().min(from + PIECE);
        let id = format!("{}-{:09}-{:09}", images.group, part.start, part.end);
        let (x, ids) = (images.rows.slice(s![part.clone(), ..]), &images.ids[part.clone()]);
        let make = || search.rows(images.group, x, ids, &*progress);
        rows.extend(piece(cells, &id, search.work(part.len())?, &*progress, make)?);
    }
    Ok(rows)
}

/// The number of noise draws that end at each of `images` of a subject, see [`Search::attractor_shares`].
///
/// # Errors
/// As [`Search::attractor_shares`].
pub fn attractors(
    subject: &Subject,
    images: &Images,
    params: &BasinParams,
    distance: &Distance<'_>,
    draws: usize,
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<AttractorShares, Error> {
    let search = Search { score: subject.score(), vp: subject.vp(), params: *params, distance };
    let progress = reporter.progress("draws", draws as u64);
    Ok(search.attractor_shares(images.group, images.rows.view(), &images.ids, draws, steps, &*progress)?)
}

/// The DDIM steps from level t to clean data, t = -1: equal steps of t / min(most, t), rounded up, so there may be fewer
/// than `most`. From 26, for example, 13 steps of 2. The last step is this project's own; public code leaves it open.
///
/// ```
/// use mem2gen::process::Vp;
/// use mem2gen::study::basin::steps_from;
///
/// let times = |t| Ok::<_, mem2gen::study::StudyError>(
///     steps_from(&Vp::default(), t, 4)?.levels().iter().map(|level| level.t()).collect::<Vec<f64>>()
/// );
/// assert_eq!(times(8)?, [8.0, 6.0, 4.0, 2.0, -1.0]);
/// assert_eq!(times(2)?, [2.0, 1.0, -1.0]);
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
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

/// log V_N(R) = (N/2) log pi + N log R - log Gamma(N/2 + 1), in nats: the volume of the ball with radius R in N
/// dimensions (Eqs. 12 and 34). Minus infinity for R = 0.
///
/// ```
/// use mem2gen::study::basin::log_volume;
///
/// let disc = std::f64::consts::PI * 2.25;
/// assert!((log_volume(2, 1.5) - disc.ln()).abs() < 1e-12);
/// assert_eq!(log_volume(2, 0.0), f64::NEG_INFINITY);
/// ```
pub fn log_volume(dim: usize, radius: f64) -> f64 {
    let n = dim as f64;
    0.5 * n * PI.ln() + n * radius.ln() - libm::lgamma(0.5 * n + 1.0)
}

/// A map from images to features, row by row.
type FeatureMap<'a> = dyn Fn(ArrayView2<'_, f32>) -> Result<Array2<f32>, StudyError> + Sync + 'a;

/// The distance that delta refers to.
pub struct Distance<'a> {
    map: Option<Box<FeatureMap<'a>>>,
    squared: bool,
}

impl<'a> Distance<'a> {
    /// l2 of the images' values.
    pub fn l2() -> Self {
        Self { map: None, squared: false }
    }

    /// l2 of features, or its square. `map` takes images `[m, N]` with values in [-1, 1] to features, one row each.
    pub fn features(
        map: impl Fn(ArrayView2<'_, f32>) -> Result<Array2<f32>, StudyError> + Sync + 'a,
        squared: bool,
    ) -> Self {
        Self { map: Some(Box::new(map)), squared }
    }

    /// LPIPS of images of this shape. Values outside [-1, 1] are clamped.
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

    /// Distances from each of `[m]` images to its n copies, which are consecutive rows: `[m n]`.
    fn to_copies(
        &self,
        images: ArrayView2<'_, f64>,
        copies: ArrayView2<'_, f64>,
    ) -> Result<Vec<f64>, StudyError> {
        let each = copies.nrows() / images.nrows().max(1);
        let mut out = Vec::with_capacity(copies.nrows());
        // Features can be long, so those of one image's copies are held at a time.
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

/// The search for basins under any score.
pub struct Search<'a> {
    /// The score.
    pub score: &'a dyn Score,
    /// Its process.
    pub vp: &'a Vp,
    /// The settings.
    pub params: BasinParams,
    /// The distance that delta refers to.
    pub distance: &'a Distance<'a>,
}

impl Search<'_> {
    /// Alg. 1 for each row of `images` `[m, N]`. `ids` `[m]` name the images: the noise of an image follows from its id.
    /// Reports as many steps of progress as [`Self::work`] states.
    ///
    /// # Errors
    /// [`StudyError::Op`] for images of another shape, with NaN or infinity, or of another number than `ids`;
    /// [`StudyError::Setting`] as [`BasinParams::times`]; those of the score, of the sampler (with the id of the image)
    /// and of the distance.
    pub fn rows(
        &self,
        group: Group,
        images: ArrayView2<'_, f32>,
        ids: &[usize],
        progress: &dyn ProgressSink,
    ) -> Result<Vec<BasinRow>, StudyError> {
        let settings = *self.params.settings();
        let (clean, times) = (self.checked(images, ids)?, self.params.times(self.vp)?);
        let copies = settings.perturbations;
        self.room(ids.len(), copies)?;
        let mut recovered = vec![Vec::new(); ids.len()];
        // For each copy the last level up to which it was always recovered, and whether it still is.
        let mut last_levels = vec![vec![(settings.first, true); copies]; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for (place, &t) in times.iter().enumerate() {
            if open.is_empty() {
                break;
            }
            let level = self.vp.level(t as f64)?;
            let from = clean.select(Axis(0), &open);
            let open_ids: Vec<usize> = open.iter().map(|&i| ids[i]).collect();
            let x = self.noised("basin", &from, &open_ids, level);
            let steps = steps_from(self.vp, t, settings.steps)?;
            let ends = ddim(self.score, &steps, x, self.clip(), &Silent)
                .map_err(|e| with_id(e, |row| open_ids[row / copies]))?;
            let back: Vec<bool> = self
                .distance
                .to_copies(from.view(), ends.view())?
                .iter()
                .map(|d| *d <= self.params.delta())
                .collect();
            for (&i, back) in open.iter().zip(back.chunks(copies)) {
                recovered[i].push(back.iter().filter(|back| **back).count());
                for ((last, still), back) in last_levels[i].iter_mut().zip(back) {
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
                t_copies: last_levels[i].iter().map(|(t, _)| *t as f64).sum::<f64>() / copies as f64,
                radius,
                log_volume: log_volume(clean.ncols(), radius),
                recovered,
            })
        };
        (0..ids.len()).map(row).collect()
    }

    /// Steps of progress of [`Self::rows`] for this number of images.
    ///
    /// # Errors
    /// As [`BasinParams::times`].
    pub fn work(&self, images: usize) -> Result<u64, StudyError> {
        Ok((images * self.params.times(self.vp)?.len()) as u64)
    }

    /// The reverse check: of `draws` starts of pure noise, the number that DDIM takes along `steps` to within delta of
    /// each image. Each end is counted for the nearest image only. Reports one step of progress for each draw.
    ///
    /// # Errors
    /// As [`Self::rows`], with the row of the draw; [`StudyError::Setting`] for no draws.
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
            return Err(SettingError::new(NAME, "draws", draws, "at least 1").into());
        }
        let clean = self.checked(images, ids)?;
        let memories = Memories::new(self.distance.rows(clean.view())?)?;
        let draw = Draw {
            score: self.score,
            process: self.vp,
            sampler: Sampler::Ddim(steps.clone()),
            clip: self.clip(),
            seed: self.params.settings().seed,
        };
        let mut counts = vec![0; ids.len()];
        for part in Draw::parts(draws, PART) {
            let ends = draw.samples(part.clone(), &Silent)?;
            let near = memories.nearest(self.distance.rows(ends.view())?.view(), false)?;
            for (&i, &d) in near.index.iter().zip(&near.distance) {
                counts[i] += usize::from(self.distance.power(d) <= self.params.delta());
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
        self.params.settings().clamp.then_some(1.0)
    }

    /// Whether this number of recovered copies is at least the share `stop`.
    fn enough(&self, count: usize) -> bool {
        // The quotient is rounded like the decimal: 55 / 100 is 0.55, but 0.55 times 100 is above 55.
        count as f64 / self.params.settings().perturbations as f64 >= self.params.settings().stop
    }

    /// Refuses more noisy copies than memory is left for: a copy is held as noise, as its way back and as the two slopes of
    /// a step, all in double precision.
    fn room(&self, images: usize, copies: usize) -> Result<(), StudyError> {
        let each = 4 * 8 * images.max(1) * self.score.dim();
        Ok(SettingError::check_room(NAME, "perturbations", copies, each)?)
    }

    fn checked(&self, images: ArrayView2<'_, f32>, ids: &[usize]) -> Result<Array2<f64>, StudyError> {
        let clean = images.mapv(f64::from);
        check_rows(NAME, "images", &clean.view(), (ids.len(), self.score.dim()))?;
        Ok(clean)
    }

    /// The noisy copies of each row at a level, as consecutive rows. One image at one level has one stream of noise.
    fn noised(&self, name: &str, clean: &Array2<f64>, ids: &[usize], level: Level) -> Array2<f64> {
        let copies = self.params.settings().perturbations;
        let mut out = Array2::zeros((clean.nrows() * copies, clean.ncols()));
        out.axis_chunks_iter_mut(Axis(0), copies).into_par_iter().enumerate().for_each(|(i, mut rows)| {
            let name = format!("{name}/{}/{}", ids[i], level.t());
            let mut stream = Stream::new(self.params.settings().seed, &name);
            for mut row in rows.outer_iter_mut() {
                row.zip_mut_with(&clean.row(i), |x, clean| *x = level.perturb(*clean, stream.normal()));
            }
        });
        out
    }
}

/// The error of a sampler, with the id of the image in place of the row.
fn with_id(mut e: SampleError, id: impl Fn(usize) -> usize) -> SampleError {
    if let SampleError::NotFinite { sample, .. } = &mut e {
        *sample = id(*sample);
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Prediction, Spacing, VpSettings};
    use crate::score::{Empirical, Gaussian, ScoreError};
    use crate::study::basin::BasinSettings;
    use ndarray::{Array1, array};

    fn params(delta: f64, perturbations: usize) -> BasinParams {
        BasinSettings { delta: Some(delta), perturbations, ..BasinSettings::default() }.check(None).unwrap()
    }

    const L2: Distance<'static> = Distance { map: None, squared: false };

    fn search<'a>(score: &'a dyn Score, vp: &'a Vp, params: BasinParams) -> Search<'a> {
        Search { score, vp, params, distance: &L2 }
    }

    fn exact<R>(rows: &Array2<f32>, then: impl FnOnce(&Empirical) -> R) -> R {
        let rows = rows.mapv(f64::from);
        then(&Empirical::new(Memories::new(rows.clone()).unwrap()))
    }

    /// The distribution function of a standard normal.
    fn phi(z: f64) -> f64 {
        0.5 * libm::erfc(-z / 2.0f64.sqrt())
    }

    /// Whether `count` of n is plausible for a probability p with an error of `slack`: within 5 standard deviations.
    fn plausible(count: usize, n: usize, p: f64, slack: f64) -> bool {
        let share = count as f64 / n as f64;
        (share - p).abs() <= slack + 5.0 * (p.max(1e-3) * (1.0 - p).max(1e-3) / n as f64).sqrt()
    }

    /// Two memories at a distance of 2a. DDIM keeps each point on its side of the plane between them, so a share
    /// Phi(alpha a / sigma) of the copies of a memory is recovered.
    #[test]
    fn of_two_memories_each_has_its_side_of_the_plane_between_them() {
        let short = VpSettings { levels: 300, beta_start: 1e-3, beta_end: 0.05, ..VpSettings::default() }
            .check()
            .unwrap();
        for (n, a, vp) in
            [(1, 0.6, Vp::default()), (2, 0.25, Vp::default()), (49, 2.0, Vp::default()), (12, 0.8, short)]
        {
            // Along a direction other than an axis, about a centre other than the origin.
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
                // The search stops at the level after t_c, and few copies are lost long before it.
                assert_eq!(row.recovered.len(), 2 + times.iter().position(|t| *t == row.t_c).unwrap());
                assert!((row.t_copies - row.t_c as f64).abs() < 100.0, "{row:?}");
            }
        }
    }

    /// In one dimension the flow keeps quantiles: a copy ends at the memory whose interval of quantiles of p_0 contains
    /// the copy's quantile of p_t. So every basin is an interval between two quantiles of a mixture.
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
                // Steps of 1 to 5 levels instead of the flow.
                assert!(plausible(*count, copies, upper - lower, 0.03), "{i} {t}: {count} {}", upper - lower);
            }
        }
        // The neighbours 0.2 apart have the smallest basins, the outermost the largest.
        let t: Vec<usize> = got.iter().map(|row| row.t_c).collect();
        assert!(t[2].max(t[3]) < t[1] && t[1] < t[0].max(t[4]), "{t:?}");
    }

    #[test]
    fn a_single_memory_has_the_whole_space_as_basin_and_a_far_image_has_none() {
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

    /// Each DDIM step multiplies a Gaussian's deviation from its mean by a factor, so copies of the mean end within delta
    /// with the probability of a chi square.
    #[test]
    fn copies_of_the_mean_of_a_gaussian_return_with_a_chi_square_probability() {
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
    fn a_basin_does_not_depend_on_the_batch_or_on_threads() {
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
            // Two of them stop at the first levels, so the others are searched in another batch.
            assert!(all.iter().any(|row| row.t_c == 1) && all.iter().any(|row| row.t_c > 50), "{all:?}");
        });
    }

    #[test]
    fn radii_and_volumes_match_the_noise() {
        assert!((log_volume(2, 1.5) - (PI * 2.25).ln()).abs() < 1e-12);
        assert!((log_volume(3, 2.0) - (4.0 / 3.0 * PI * 8.0).ln()).abs() < 1e-12);
        assert!((log_volume(1, 0.5) - 0.0).abs() < 1e-12);
        assert_eq!(log_volume(5, 0.0), f64::NEG_INFINITY);
        // A 28 x 28 image with a mean square of 1/4, as in the notes on the paper.
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
        // R is about sqrt(49), with a standard deviation of 0.7 for one copy: five of those for 200 copies, and the
        // root's bias of 0.04.
        assert!((row.radius - square.sqrt()).abs() < 0.25 + 0.04, "{row:?}");
        assert_eq!(row.log_volume, log_volume(49, row.radius));
        assert_eq!(row.t_c, 901);
    }

    #[test]
    fn noise_ends_at_memories_in_their_shares() {
        // The third memory occurs twice, so half of the draws end there; the first of two copies is counted.
        let rows = array![[0.9f32, 0.1], [-0.6, 0.7], [-0.2, -0.8], [-0.2, -0.8]];
        let vp = Vp::default();
        let steps = vp.steps(100, Spacing::Linspace).unwrap();
        exact(&rows, |score| {
            let search = search(score, &vp, params(0.01, 10));
            let shares = |images: ArrayView2<'_, f32>| {
                let ids: Vec<usize> = (0..images.nrows()).collect();
                search.attractor_shares(Group::Training, images, &ids, 1500, &steps, &Silent).unwrap()
            };
            let all = shares(rows.view());
            for (row, share) in all.rows.iter().zip([0.25, 0.25, 0.5, 0.0]) {
                assert!(plausible(row.count, 1500, share, 0.0), "{row:?}");
                assert!((row.share * 1500.0 - row.count as f64).abs() < 1e-9 && row.low <= row.share);
            }
            assert!(all.elsewhere < 15 && all.rows[3].count == 0, "{all:?}");
            let first = shares(rows.slice(s![..1, ..]));
            assert_eq!((first.rows[0], first.elsewhere), (all.rows[0], 1500 - all.rows[0].count));
        });
    }

    #[test]
    fn features_take_the_place_of_values() {
        let rows = array![[0.8f32, 0.8], [-0.8, 0.8]];
        let vp = Vp::default();
        exact(&rows, |score| {
            let basins = |distance| {
                let search = Search { score, vp: &vp, params: params(0.1, 10), distance: &distance };
                search.rows(Group::Training, rows.view(), &[0, 1], &Silent).unwrap()
            };
            let l2 = basins(Distance::l2());
            assert!(!l2[0].ceiling);
            // The second value of both memories is the same.
            let second = |x: ArrayView2<'_, f32>| Ok(x.slice(s![.., 1..]).to_owned());
            assert!(basins(Distance::features(second, false)).iter().all(|row| row.ceiling));
            // Ten times the values and their square: delta = 0.1 is 0.0316 of values.
            let scaled = |x: ArrayView2<'_, f32>| Ok(x.mapv(|v| 10.0 * v));
            let nearer = basins(Distance::features(scaled, true));
            assert!(nearer.iter().zip(&l2).all(|(a, b)| a.t_c <= b.t_c));
            let bad = Distance::features(|x: ArrayView2<'_, f32>| Ok(x.mapv(|_| f32::NAN)), false);
            let search = Search { score, vp: &vp, params: params(0.1, 10), distance: &bad };
            let e = search.rows(Group::Training, rows.view(), &[0, 1], &Silent).unwrap_err();
            assert!(e.to_string().contains("features"), "{e}");
        });
    }

    /// A score that is NaN to the left of -5.
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
    fn errors_name_the_argument() {
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
        assert!(matches!(e, Err(StudyError::Setting(e)) if e.setting == "draws"));

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
            assert!(matches!(&e, StudyError::Setting(e) if e.setting == name), "{e}");
        }
        let late = BasinSettings { first: 1000, ..d }.check(None).unwrap();
        assert!(matches!(late.times(&vp), Err(StudyError::Setting(e)) if e.setting == "first"));
        assert_eq!(BasinSettings::default().check(Some(0.25)).unwrap().delta(), 0.25);
        assert_eq!(d.check(Some(0.25)).unwrap().delta(), 0.1);
        assert_eq!(toml::from_str::<BasinSettings>("stride = 5").unwrap().stride, 5);
        assert!(toml::from_str::<BasinSettings>("strides = 5").is_err());
    }
}
