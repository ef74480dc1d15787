//! A training run compared with what it was trained on.

use std::path::{Path, PathBuf};

use ndarray::ArcArray2;
use serde_json::json;

use super::{Copies, CopiesError, CopiesParams, Images};
use crate::Error;
use crate::data::image_set::{Format, Nominal};
use crate::data::{DataError, ImageSet, Input};
use crate::detect::DetectError;
use crate::device::DeviceChoice;
use crate::process::Spacing;
use crate::progress::Reporter;
use crate::project::Layout;
use crate::random::SEED;
use crate::sample::{Draw, DrawnSamples, Sampler};
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::{vacant, write_array};
use crate::study::subject::{SAMPLES, ScoreOptions, TrainedScore, training_run};
use crate::train::{RunDir, TrainError, TrainingData};

/// Largest number of held-out images that are taken from the data set of a run.
pub const MOST_HELD_OUT: usize = 10_000;
/// Number of steps of ancestral sampling, as in the paper.
const STEPS: usize = 1000;

/// A training run whose samples are compared with exactly the images that it was trained on.
///
/// ```no_run
/// use mem2gen::device::DeviceChoice;
/// use mem2gen::progress::Printed;
/// use mem2gen::project::Layout;
/// use mem2gen::study::copies::{CopiesSettings, OfRun};
/// use std::path::Path;
///
/// let layout = Layout::find();
/// let question = OfRun { samples: 200, ..OfRun::new("runs/flowers") };
/// let params = CopiesSettings::default().check(&layout)?;
/// let copies = question.classify(&params, &layout, DeviceChoice::default(), &Printed, Path::new("copies"), None)?;
/// println!("{}", copies.answer.verdict(&copies.compared));
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfRun {
    /// Folder of a training run, or of a cell of a sweep.
    pub run: PathBuf,
    /// S; `None` draws samples from the run.
    pub synthetic: Option<Input>,
    /// Number of samples that are drawn.
    pub samples: usize,
    /// Images that are not in the training set; `None` takes those of the run's data set.
    pub held_out: Option<Input>,
}

impl OfRun {
    /// 1000 samples of the run in a folder, with held-out images of its data set.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self { run: run.into(), synthetic: None, samples: 1000, held_out: None }
    }

    /// Compares the samples with the training set of the run and writes the folder of results `out`, which must be
    /// [`vacant`]. The report names the `command`.
    ///
    /// Held-out images are the first 10000 of the test split of the run's data set, or else the images that follow its
    /// training set in the order of the nested training sets. A line to `report` says when there is none; then the
    /// comparison has no held-out images. Samples that are drawn are those of ancestral sampling with 1000 steps, the
    /// moving average of weights and seed 3407. They are written as `samples.npy` into `out`; a call that was interrupted
    /// resumes with the finished batches in the folder `OUT.partial`. Rows that are given without a shape and a layout are
    /// taken for images in the order row, column, channel, as [`Draw::write`] writes them.
    ///
    /// # Errors
    /// [`TrainError`] for a folder that is not a run and a training set that can't be read or is another one; errors of
    /// reading images, of sampling, and as [`CopiesParams::compare`] and [`Copies::write`].
    pub fn classify(
        &self,
        params: &CopiesParams,
        layout: &Layout,
        device: DeviceChoice,
        report: &dyn Reporter,
        out: &Path,
        command: Option<&str>,
    ) -> Result<Copies, Error> {
        vacant(out)?;
        if let Some(synthetic) = &self.synthetic {
            let run = training_run(&self.run)?;
            let synthetic = given(synthetic, run.shape())?;
            let (train, held_out) = self.real(&run, layout, report)?;
            let copies = params.compare(Images::new(train, synthetic, held_out), device, report)?;
            copies.write(out, command)?;
            return Ok(copies);
        }
        if self.samples == 0 {
            let error = SettingError::new("classify", "samples", 0, "at least 1");
            return Err(CopiesError::from(DetectError::from(error)).into());
        }
        let options = ScoreOptions { device, ..ScoreOptions::default() };
        let trained = TrainedScore::open(&self.run, layout, &options)?;
        let (train, held_out) = self.real(trained.run(), layout, report)?;
        let drawn = self.draw(&trained, report, out)?;
        let rows = drawn.rows()?.into_shared();
        let note = format!("drawn by ancestral sampling, {}, seed {SEED}", trained.describe());
        let path = (out.join(SAMPLES), Format::Npy);
        let synthetic = set(trained.run(), path, (trained.run().shape(), rows.clone()), None, note)?;
        let copies = params.compare(Images::new(train, synthetic, held_out), device, report)?;
        copies.write_with(out, command, |folder| Ok(write_array(&folder.join(SAMPLES), &rows)?))?;
        drawn.finish();
        Ok(copies)
    }

    /// The training set of the run and its held-out images.
    fn real(
        &self,
        run: &RunDir,
        layout: &Layout,
        report: &dyn Reporter,
    ) -> Result<(ImageSet, Option<ImageSet>), Error> {
        let (source, data) = run.source(layout)?;
        let of = |data: TrainingData, path: PathBuf, note: String| {
            let files = data.files().map(<[String]>::to_vec);
            set(run, (path, Format::Run), (data.shape(), data.rows().clone()), files, note)
        };
        let (key, sha256) = (run.params().key(), run.data_sha256());
        let note = format!("the training set of the run with key {key}; SHA-256 of its values {sha256}");
        let train = of(data, run.path().to_path_buf(), note)?;
        if let Some(held_out) = &self.held_out {
            return Ok((train, Some(given(held_out, run.shape())?)));
        }
        match source.held_out(MOST_HELD_OUT) {
            Ok(data) => {
                let note = format!("{}, at most {MOST_HELD_OUT}", source.held_out_from());
                Ok((train, Some(of(data, source.settings().name().into(), note)?)))
            }
            Err(TrainError::NoneHeldOut { reason }) => {
                report.line(&format!("classify: without held-out images: {reason}"));
                Ok((train, None))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Draws the samples.
    fn draw(&self, trained: &TrainedScore, report: &dyn Reporter, out: &Path) -> Result<DrawnSamples, Error> {
        let process = trained.run().process();
        let steps = process.steps(STEPS, Spacing::Leading)?;
        let times: Vec<f64> = steps.levels().iter().map(|level| level.t()).collect();
        let clip = trained.is_of_images().then_some(1.0);
        let settings = trained.identity_of_samples(&json!({ "ancestral": times }), clip, SEED);
        let draw = Draw {
            score: trained.score(),
            process: process.as_process(),
            sampler: Sampler::Ancestral(steps),
            clip,
            seed: SEED,
        };
        let total = draw.total(self.samples, trained.batch());
        let progress = report.progress("sampling", total);
        // The folder of finished batches is beside `out`, however its name ends.
        let out: PathBuf = out.components().collect();
        Ok(draw.draw(&out, self.samples, trained.batch(), &settings, &*progress)?)
    }
}

/// Images that are given, of which rows of this shape's length may be samples of `mem2gen sample`.
fn given(input: &Input, shape: Shape) -> Result<ImageSet, DataError> {
    let set = input.read()?;
    let rows = set.shape().is_none() && input.options.layout.is_none() && set.length() == shape.len();
    Ok(if rows { set.with_shape(shape) } else { set })
}

/// Rows of a run as a set: images in [-1, 1], or points.
fn set(
    run: &RunDir,
    from: (PathBuf, Format),
    rows: (Shape, ArcArray2<f32>),
    files: Option<Vec<String>>,
    note: String,
) -> Result<ImageSet, DataError> {
    let images = run.params().settings().data.is_of_images();
    let range = if images { Nominal::Symmetric } else { Nominal::Other };
    ImageSet::from_rows(from, rows, Some(range), files, vec![note])
}
