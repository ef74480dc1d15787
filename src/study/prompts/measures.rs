//! Samples of one prompt, and what is measured at them.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::spectrum::spectrum;
use super::{Prompt, PromptModel, PromptParams, PromptScores, PromptSettings, Truth};
use crate::Error;
use crate::plot::byte;
use crate::process::{Level, Process};
use crate::progress::{ProgressSink, Silent};
use crate::random::Streams;
use crate::sample::{ddim, start};
use crate::score::{Guided, Score, ScoreError};
use crate::shape::Shape;
use crate::study::context::{Cells, piece};
use crate::study::curvature::{CurvatureSettings, Points, Spectrum, curvature};

/// What is measured of one sample of one prompt.
///
/// Differences d(x, t) = epsilon(x, t | c) - epsilon(x, t) are those of the noise that the model predicts with the prompt c
/// and without, epsilon = -sigma s. They are taken along the sampler's path.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PromptRow {
    /// Number of the prompt in its list, from 0.
    pub prompt: usize,
    /// The prompt.
    pub caption: String,
    /// What the list calls it.
    pub index: Option<String>,
    /// What the list says of it.
    pub kind: Option<String>,
    /// Number of the starting point, from 0; the same for all prompts.
    pub seed: usize,
    /// Number of rows of S.
    pub rows: usize,
    /// sigma of the level at which S was taken.
    pub sigma: f64,
    /// Number of dimensions D of a sample.
    pub dim: usize,
    /// Curvature: sigma ||S|| / sqrt(R D) in the Frobenius norm for R rows, which estimates sigma^2 ||J|| / sqrt(D). 1 at an
    /// isolated memory, 0 where p_t is flat.
    pub curvature: f64,
    /// Share of the singular values of S below half of sqrt(max(R, D)) / sigma, the middle of the band of an isolated memory.
    pub flat: f64,
    /// The same from Alg. 2: sigma^2 times the root mean square of its estimated singular values of J. `None` for samples at
    /// which it was not taken, as for the next three.
    pub curvature_2: Option<f64>,
    /// The same of the exact Jacobian: sigma^2 ||J|| / sqrt(D).
    pub curvature_exact: Option<f64>,
    /// Local dimension: number of singular values of the exact Jacobian below 1 / (2 sigma^2), half of their value at an
    /// isolated memory. (The gap rule of [`dimension`](crate::study::curvature::dimension) names one in any spectrum.)
    pub dimension: Option<usize>,
    /// ||J - J^T|| / ||J|| of the exact Jacobian: 0 for a gradient.
    pub asymmetry: Option<f64>,
    /// ||d|| at the first step (Wen et al.).
    pub noise_first: f64,
    /// Mean of ||d|| over the steps (Wen et al.).
    pub noise_mean: f64,
    /// sigma^3 ||(J(x | c) - J(x))^T (s(x | c) - s(x))|| at the first step: the sharpness difference of Jeon et al., with
    /// the transposed Jacobian, which is that of a gradient itself; `None` for a model in half precision.
    pub sharpness: Option<f64>,
    /// Cosine of s(x | c) - s(x) with s(x) at the starting point and the level of the spectrum (after Asthana et al.).
    pub alignment: f64,
    /// Mean attention that the latents pay to the token that ends the prompt, at the last step (after Chen et al.); `None` for
    /// models without cross-attention.
    pub bright: Option<f64>,
    /// ||m d|| / mean(m) at the first step, weighted by this attention m (after Chen et al.).
    pub noise_bright: Option<f64>,
    /// Mean root mean square difference to the pictures of the other seeds; `None` for a single seed.
    pub diversity: Option<f64>,
    /// Total variation of the picture: mean absolute difference of neighbouring pixels, in [-1, 1] units.
    pub variation: f64,
    /// Root mean square difference to the nearest training image; `None` where the training set is not known.
    pub nearest: Option<f64>,
    /// Row of that image in the training set.
    pub nearest_row: Option<usize>,
    /// Root mean square difference to the nearest training image of the same caption; `None` where there is none.
    pub own: Option<f64>,
    /// Part of the caption in the training set, such as dosed.
    pub part: Option<String>,
    /// Its dose.
    pub dose: Option<f64>,
    /// Step of the training after which the network was taken; `None` where the training is not known.
    pub step: Option<u64>,
}

/// One sample of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub row: PromptRow,
    /// Singular values of S, descending, min(R, D) of them.
    pub values: Vec<f64>,
    /// Singular values of the exact Jacobian, descending, D of them; `None` where it was not taken.
    pub exact: Option<Vec<f64>>,
    /// The sample, `[N]`: an image in [-1, 1], or latents.
    pub sample: Vec<f32>,
    /// The picture, in bytes, in the order row, column, channel.
    pub picture: Vec<u8>,
    /// Height, width and channels of the picture.
    pub shape: [usize; 3],
}

/// A guided score that notes its calls.
struct Watched<'a> {
    prompted: &'a PromptScores,
    scale: f64,
    noted: Mutex<Noted>,
}

/// ||d|| of each row in each call, and the rows of the last call.
#[derive(Default)]
struct Noted {
    norms: Vec<Vec<f64>>,
    last: Array2<f64>,
}

impl Score for Watched<'_> {
    fn dim(&self) -> usize {
        self.prompted.with.dim()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        let without = self.prompted.without.score(x, levels)?;
        let with = self.prompted.with.score(x, levels)?;
        let apart = &with - &without;
        let norms = apart.outer_iter().zip(levels).map(|(row, level)| level.sigma() * norm(row)).collect();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.norms.push(norms);
        noted.last = x.to_owned();
        Ok(without + apart * self.scale)
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        Guided::new(&*self.prompted.without, &*self.prompted.with, self.scale)?.vjp(x, levels, v)
    }
}

/// Forward passes of Alg. 2 for each dimension of a sample: a row of S, which is a difference of two.
pub(super) const ALG_2_PASSES: usize = 2;

/// Passes of the exact Jacobian for each dimension: a product with its transpose, forward and backward.
pub(super) const EXACT_PASSES: usize = 3;

/// Steps of progress of the exact Jacobian and Alg. 2 in `dim` dimensions.
fn exact_steps(dim: usize) -> u64 {
    ((ALG_2_PASSES + EXACT_PASSES) * dim) as u64
}

/// Steps of progress of [`measure`] in `dim` dimensions.
pub(super) fn steps(params: &PromptParams, dim: usize) -> u64 {
    let settings = params.settings();
    (settings.steps + settings.seeds * settings.rows) as u64 + settings.exact as u64 * exact_steps(dim)
}

/// Draws samples of a prompt by DDIM, the same starting points for every prompt, and measures each. `place` is the number of
/// the prompt in its list. With `cells`, rows of S are kept there.
///
/// # Errors
/// Those of the model and the sampler.
pub fn measure(
    model: &dyn PromptModel,
    (place, prompt): (usize, &Prompt),
    params: &PromptParams,
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Vec<Measured>, Error> {
    let settings = params.settings();
    let (process, dim) = (model.process(), model.shape().len());
    let prompted = model.prompted(&prompt.caption)?;
    let path = model.steps(settings.steps)?;
    let level = process.level(settings.t)?;
    let mut streams = Streams::new(settings.seed, "prompts start", 0..settings.seeds);
    let x = start(process, dim, &mut streams);

    let watched = Watched { prompted: &prompted, scale: settings.guidance, noted: Mutex::default() };
    let samples = ddim(&watched, &path, x.clone(), model.clip(), progress)?;
    let Noted { norms, last } = watched.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let samples = samples.mapv(|v| v as f32);
    let (pictures, shape) = model.pictures(samples.view())?;

    let first = vec![path.levels()[0]; settings.seeds];
    let apart = difference(&prompted, x.view(), &first)?;
    let bent = match model.products() {
        true => {
            let with = prompted.with.vjp(x.view(), &first, apart.view())?;
            Some(with - prompted.without.vjp(x.view(), &first, apart.view())?)
        }
        false => None,
    };
    let low = vec![level; settings.seeds];
    let (guidance, plain) = (difference(&prompted, x.view(), &low)?, prompted.without.score(x.view(), &low)?);

    let ended = model.end_attention(&prompt.caption, last.view(), path.levels()[norms.len() - 1])?;

    let curved = Guided::new(&*prompted.without, &*prompted.with, settings.spectrum_guidance)?;
    (0..settings.seeds)
        .map(|seed| {
            let at = samples.row(seed).mapv(|v| level.alpha() * f64::from(v));
            let cells = cells.map(|cells| cells.within(&format!("seed-{seed}")));
            let which = (settings.rows, settings.seed, seed);
            let values = spectrum(&curved, level, at.view(), which, cells.as_ref(), progress)?;
            let square: f64 = values.iter().map(|v| v * v).sum();
            let middle = (settings.rows.max(dim) as f64).sqrt() / level.sigma();
            let each = norms.iter().map(|norms| norms[seed]);
            let weighted = ended.as_ref().map(|paid| {
                let mean = paid.row(seed).sum() / dim as f64;
                (mean, first[seed].sigma() * norm((&paid.row(seed) * &apart.row(seed)).view()) / mean)
            });
            let both = (seed < settings.exact)
                .then(|| {
                    jacobian(&curved, model, samples.row(seed), (settings, seed), cells.as_ref(), progress)
                })
                .transpose()?;
            let exact = both.as_ref().and_then(|both| both.exact.as_ref());
            let scaled = |values: &[f64]| level.sigma().powi(2) * root_mean_square(values);
            let half = 0.5 / level.sigma().powi(2);
            let row = PromptRow {
                prompt: place,
                caption: prompt.caption.clone(),
                index: prompt.index.clone(),
                kind: prompt.kind.clone(),
                seed,
                rows: settings.rows,
                sigma: level.sigma(),
                dim,
                curvature: level.sigma() * (square / (settings.rows * dim) as f64).sqrt(),
                flat: values.iter().filter(|v| **v < 0.5 * middle).count() as f64 / values.len() as f64,
                curvature_2: both.as_ref().map(|both| scaled(&both.values)),
                curvature_exact: exact.map(|exact| scaled(&exact.values)),
                dimension: exact.map(|exact| exact.values.iter().filter(|v| **v < half).count()),
                asymmetry: exact.map(|exact| exact.asymmetry),
                noise_first: norms[0][seed],
                noise_mean: each.sum::<f64>() / norms.len() as f64,
                sharpness: bent.as_ref().map(|bent| first[seed].sigma().powi(3) * norm(bent.row(seed))),
                alignment: cosine(guidance.row(seed), plain.row(seed)),
                bright: weighted.map(|(mean, _)| mean),
                noise_bright: weighted.map(|(_, weighted)| weighted),
                diversity: diversity(pictures.view(), seed),
                variation: variation(pictures.row(seed), shape),
                ..PromptRow::default()
            };
            let row = match model.truth() {
                Some(truth) => compared(row, truth, pictures.row(seed)),
                None => row,
            };
            Ok(Measured {
                row,
                values,
                exact: exact.map(|exact| exact.values.clone()),
                sample: samples.row(seed).to_vec(),
                picture: pictures.row(seed).iter().map(|v| byte(*v)).collect(),
                shape: [shape.height, shape.width, shape.channels],
            })
        })
        .collect()
}

/// s(x | c) - s(x).
fn difference(
    prompted: &PromptScores,
    x: ArrayView2<'_, f64>,
    levels: &[Level],
) -> Result<Array2<f64>, ScoreError> {
    Ok(prompted.with.score(x, levels)? - prompted.without.score(x, levels)?)
}

/// The spectra of Alg. 2 and of the exact Jacobian at a sample `[N]`. With `cells`, they are kept there.
fn jacobian(
    score: &dyn Score,
    model: &dyn PromptModel,
    sample: ArrayView1<'_, f32>,
    (settings, seed): (&PromptSettings, usize),
    cells: Option<&Cells>,
    progress: &dyn ProgressSink,
) -> Result<Spectrum, Error> {
    // No value is left out here, and a small model may have fewer than curvature leaves out of its means.
    let wanted = CurvatureSettings {
        t: settings.t,
        // One orthonormal basis, whose root mean square is that of all.
        rows: 1.0,
        exact: true,
        drop_top: 0,
        seed: settings.seed,
        ..CurvatureSettings::default()
    };
    let rows = sample.mapv(f64::from).insert_axis(Axis(0));
    let points = Points { rows: rows.view(), samples: &[seed], shape: model.shape() };
    let steps = exact_steps(sample.len());
    let make = || -> Result<Spectrum, Error> {
        let mut found = curvature(score, model.process(), &points, &wanted.check()?, None, &Silent)?;
        progress.advance(steps);
        Ok(found.pop().expect("one point has one spectrum"))
    };
    piece(cells, "exact", steps, progress, make)
}

/// The row with the distances to the training set.
fn compared(row: PromptRow, truth: &Truth, picture: ArrayView1<'_, f32>) -> PromptRow {
    let apart: Array1<f64> = truth.images.map_axis(Axis(1), |image| rms(image, picture));
    let least = |rows: &mut dyn Iterator<Item = usize>| {
        rows.min_by(|a, b| apart[*a].total_cmp(&apart[*b])).map(|row| (row, apart[row]))
    };
    let nearest = least(&mut (0..apart.len()));
    let own: Vec<usize> = (0..apart.len()).filter(|&k| truth.rows[k].caption == row.caption).collect();
    let known = own.first().map(|&k| &truth.rows[k]);
    PromptRow {
        nearest: nearest.map(|(_, apart)| apart),
        nearest_row: nearest.map(|(row, _)| row),
        own: least(&mut own.iter().copied()).map(|(_, apart)| apart),
        part: known.map(|known| known.part.name().to_owned()),
        dose: known.map(|known| known.dose),
        step: Some(truth.step),
        ..row
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

fn norm(v: ArrayView1<'_, f64>) -> f64 {
    v.dot(&v).sqrt()
}

/// 0 where a vector has no length.
fn cosine(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    let length = norm(a) * norm(b);
    if length > 0.0 { a.dot(&b) / length } else { 0.0 }
}

fn rms(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    (a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64).sqrt()
}

fn diversity(pictures: ArrayView2<'_, f32>, seed: usize) -> Option<f64> {
    let others = (0..pictures.nrows()).filter(|other| *other != seed);
    let apart: Vec<f64> = others.map(|other| rms(pictures.row(seed), pictures.row(other))).collect();
    (!apart.is_empty()).then(|| apart.iter().sum::<f64>() / apart.len() as f64)
}

/// Mean absolute difference of pixels beside and below each other, over all such pairs; 0 for a single pixel.
fn variation(picture: ArrayView1<'_, f32>, shape: Shape) -> f64 {
    let Shape { height, width, channels } = shape;
    let at = |y: usize, x: usize, c: usize| f64::from(picture[(y * width + x) * channels + c]);
    let (mut sum, mut pairs) = (0.0, 0usize);
    for (y, x, c) in
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))))
    {
        if x + 1 < width {
            sum += (at(y, x + 1, c) - at(y, x, c)).abs();
            pairs += 1;
        }
        if y + 1 < height {
            sum += (at(y + 1, x, c) - at(y, x, c)).abs();
            pairs += 1;
        }
    }
    sum / pairs.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::Vp;
    use crate::score::{Empirical, Gaussian};
    use crate::train::{Dosed, Part};
    use ndarray::array;
    use serde_json::{Value, json};

    /// Four images of 2 x 2 pixels. "first" means the first of them, "wide" all of them.
    struct Toy {
        vp: Vp,
        truth: Truth,
    }

    impl Toy {
        fn new() -> Self {
            let images =
                array![[0.9, 0.9, -0.9, -0.9], [-0.9, 0.9, 0.9, -0.9], [0.0, 0.5, 0.0, -0.5], [-0.9; 4]];
            let row = |picture: usize| Dosed {
                picture,
                caption: ["first", "second", "third", "third"][picture].into(),
                part: Part::Dosed,
                dose: [8.0, 1.0, 2.0, 2.0][picture],
            };
            Self { vp: Vp::default(), truth: Truth { images, rows: (0..4).map(row).collect(), step: 7 } }
        }

        fn of(&self, rows: &[usize]) -> Box<dyn Score + Send> {
            let rows = self.truth.images.select(Axis(0), rows).mapv(f64::from);
            Box::new(Empirical::new(Memories::new(rows).unwrap()))
        }
    }

    impl PromptModel for Toy {
        fn shape(&self) -> Shape {
            Shape::image(2, 2, 1)
        }

        fn process(&self) -> &Vp {
            &self.vp
        }

        fn clip(&self) -> Option<f64> {
            Some(1.0)
        }

        fn prompted(&self, caption: &str) -> Result<PromptScores, Error> {
            let with: Box<dyn Score + Send> = match caption {
                "first" => self.of(&[0]),
                "flat" => {
                    let (mean, variance) = (array![0.9, 0.9, -0.9, -0.9], array![0.5, 0.0, 0.5, 0.0]);
                    Box::new(Gaussian::new(mean, variance).unwrap())
                }
                _ => self.of(&[0, 1, 2, 3]),
            };
            Ok(PromptScores { without: self.of(&[0, 1, 2, 3]), with })
        }

        fn pictures(&self, samples: ArrayView2<'_, f32>) -> Result<(Array2<f32>, Shape), Error> {
            Ok((samples.to_owned(), self.shape()))
        }

        fn end_attention(
            &self,
            caption: &str,
            x: ArrayView2<'_, f64>,
            level: Level,
        ) -> Result<Option<Array2<f64>>, Error> {
            // The last step of the sampler, where a sample of one memory is alpha x0 with noise.
            assert_eq!(level, self.steps(50).unwrap().levels()[49]);
            let due = self.truth.images.row(0).mapv(|v| level.alpha() * f64::from(v));
            let paid = match caption {
                "first" => {
                    assert!(x.outer_iter().all(|x| norm((&x - &due).view()) < 10.0 * level.sigma()));
                    array![0.5, 0.0, 0.0, 0.5]
                }
                "flat" => array![0.2, 0.2, 0.2, 0.2],
                _ => return Ok(None),
            };
            Ok(Some(paid.broadcast(x.dim()).unwrap().to_owned()))
        }

        fn identity(&self) -> Value {
            json!("toy")
        }

        fn truth(&self) -> Option<&Truth> {
            Some(&self.truth)
        }
    }

    fn measured(caption: &str) -> Vec<Measured> {
        let settings = PromptSettings { seeds: 6, guidance: 1.0, rows: 400, ..PromptSettings::default() };
        let params = settings.check().unwrap();
        measure(&Toy::new(), (3, &Prompt::new(caption)), &params, None, &Silent).unwrap()
    }

    #[test]
    fn a_prompt_of_one_memory_is_told_from_one_that_changes_nothing() {
        let (first, wide) = (measured("first"), measured("wide"));
        for one in &first {
            let row = &one.row;
            assert_eq!((row.prompt, row.caption.as_str(), row.nearest_row), (3, "first", Some(0)));
            // DDIM ends at alpha x0 + sigma epsilon of the last level, then at x0 itself.
            assert!(row.nearest.unwrap() < 1e-3 && row.own.unwrap() < 1e-3, "{row:?}");
            assert_eq!((row.part.as_deref(), row.dose), (Some("dosed"), Some(8.0)));
            // One memory: J = -1 / sigma^2, with the fluctuation of 400 rows in 4 dimensions.
            assert!((row.curvature - 1.0).abs() < 0.1 && row.flat == 0.0, "{row:?}");
            assert!(row.noise_first > 0.0 && row.noise_mean > 0.0 && row.sharpness.unwrap() > 0.0);
            assert!(row.diversity.unwrap() < 1e-3);
            assert_eq!(row.bright, Some(0.25));
            // Beside: 0 and 0 apart in both rows; below: 1.8 twice.
            assert!((row.variation - 0.9).abs() < 1e-3, "{row:?}");
        }
        for one in &wide {
            let row = &one.row;
            assert_eq!((row.noise_first, row.noise_mean, row.alignment), (0.0, 0.0, 0.0));
            assert_eq!(row.sharpness, Some(0.0));
            assert_eq!((row.own, row.part.as_deref()), (None, None));
            assert_eq!((row.bright, row.noise_bright), (None, None));
            assert!(row.nearest.unwrap() < 0.05);
        }
        assert!(wide[0].row.diversity.unwrap() > 0.3);
        // The same starting points, whatever the prompt, and a sample does not depend on the number of seeds.
        let settings = PromptSettings { seeds: 2, guidance: 1.0, rows: 400, ..PromptSettings::default() };
        let few = measure(&Toy::new(), (3, &Prompt::new("first")), &settings.check().unwrap(), None, &Silent)
            .unwrap();
        assert_eq!((&few[1].sample, &few[1].values), (&first[1].sample, &first[1].values));
    }

    #[test]
    fn exact_jacobians_have_the_values_of_closed_forms() {
        let settings =
            PromptSettings { seeds: 3, exact: 2, guidance: 1.0, rows: 20, ..PromptSettings::default() };
        let folder = tempfile::tempdir().unwrap();
        let cells = Cells::at(folder.path());
        let of = |caption: &str, settings: PromptSettings, cells: Option<&Cells>| {
            let params = settings.check().unwrap();
            measure(&Toy::new(), (0, &Prompt::new(caption)), &params, cells, &Silent).unwrap()
        };
        let level = Toy::new().vp.level(settings.t).unwrap();
        // A variance v adds alpha^2 v to sigma^2: two of the four values are smaller by this ratio.
        let ratio = level.sigma().powi(2) / (level.sigma().powi(2) + 0.5 * level.alpha().powi(2));
        for (caption, curvature, dimension) in
            [("first", 1.0, 0), ("flat", ((1.0 + ratio * ratio) / 2.0).sqrt(), 2)]
        {
            let kept = cells.within(caption);
            let found = of(caption, settings.clone(), Some(&kept));
            for one in &found[..2] {
                let row = &one.row;
                // Both scores are linear, so Alg. 2 is exact as well.
                for value in [row.curvature_2, row.curvature_exact] {
                    assert!((value.unwrap() - curvature).abs() < 1e-9, "{caption} {row:?}");
                }
                assert_eq!(row.dimension, Some(dimension));
                assert!(row.asymmetry.unwrap() < 1e-9);
                if caption == "flat" {
                    // Equal attention is no weight.
                    assert!((row.noise_bright.unwrap() / row.noise_first - 1.0).abs() < 1e-12);
                }
                let values = one.exact.as_ref().unwrap();
                assert!((values[0] * level.sigma().powi(2) - 1.0).abs() < 1e-9 && values.len() == 4);
            }
            assert_eq!(
                (&found[2].exact, found[2].row.curvature_2, found[2].row.dimension),
                (&None, None, None)
            );
            // Kept values are the values, and the other measures do not depend on the setting.
            assert_eq!(of(caption, settings.clone(), Some(&kept)), found);
            let plain = of(caption, PromptSettings { exact: 0, ..settings.clone() }, None);
            for (plain, one) in plain.iter().zip(&found) {
                assert_eq!((&plain.values, plain.row.sharpness), (&one.values, one.row.sharpness));
                assert_eq!((plain.row.curvature_exact, &plain.exact), (None, &None));
            }
        }
        assert!(cells.folder().join("first/seed-1/exact.json").exists());
        assert!(!cells.folder().join("first/seed-2/exact.json").exists());
    }

    #[test]
    fn the_first_difference_is_that_of_the_definition() {
        let toy = Toy::new();
        let first = measured("first");
        let steps = toy.steps(PromptSettings::default().steps).unwrap();
        let level = steps.levels()[0];
        let mut streams = Streams::new(PromptSettings::default().seed, "prompts start", 0..6);
        let x = start(&toy.vp, 4, &mut streams);
        for (seed, one) in first.iter().enumerate() {
            let x = x.row(seed);
            // epsilon = (x - alpha E[x0 | x]) / sigma.
            let mean = |rows: &[usize]| {
                let weight = |k: usize| {
                    let image = toy.truth.images.row(k).mapv(f64::from);
                    let apart = &x - &(&image * level.alpha());
                    ((-apart.dot(&apart) / (2.0 * level.sigma().powi(2))).exp(), image)
                };
                let all: Vec<(f64, Array1<f64>)> = rows.iter().map(|k| weight(*k)).collect();
                let total: f64 = all.iter().map(|(w, _)| w).sum();
                all.iter().fold(Array1::<f64>::zeros(4), |sum, (w, image)| sum + image * (*w / total))
            };
            let apart = (mean(&[0, 1, 2, 3]) - mean(&[0])) * (level.alpha() / level.sigma());
            assert!((one.row.noise_first / norm(apart.view()) - 1.0).abs() < 1e-9);
            // Attention 0.5, 0, 0, 0.5 with the mean 0.25.
            let weighted = 2.0 * apart[0].hypot(apart[3]);
            assert!((one.row.noise_bright.unwrap() / weighted - 1.0).abs() < 1e-9);
        }
    }
}
