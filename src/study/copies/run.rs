//! From images to labels: features, neighbours, thresholds and labels.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::PathBuf;

use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use super::rows::Compare;
use super::{Answer, CopiesError, Images, Size, Transformation};
use crate::data::ImageSet;
use crate::data::image_set::{Layout, Together};
use crate::detect::{
    ClassifySettings, Compared, DetectError, check_fdr, classify, compare, comparisons, decide,
};
use crate::device::DeviceChoice;
use crate::distance::{Backbone, Lpips};
use crate::metric::Metric;
use crate::progress::Reporter;
use crate::project;
use crate::setting::SettingError;
use crate::shape::Shape;

/// Images that are looked at together.
const BLOCK: usize = 1024;
/// Largest number of pixels by which images are moved.
const MOST_SHIFTS: usize = 16;

/// Settings of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct CopiesSettings {
    /// Compare inputs whose values seem to be in different ranges
    #[arg(long)]
    pub any_range: bool,
    /// Distance
    #[arg(long, value_enum, default_value_t)]
    pub metric: Metric,
    /// Order of the values of an image, for arrays and rows of which it is not known [default: found]
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// Distance to D up to which a sample is memorized [default: found]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    pub delta_m: Option<f64>,
    /// Distance to another sample up to which a sample is spurious [default: found]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    pub delta_s: Option<f64>,
    /// Share of false ones among the samples that p-values call copies
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, default_value_t = CopiesSettings::default().fdr)]
    pub fdr: f64,
    /// Compare mirrored images too: for models that are trained with random flips
    #[arg(long)]
    pub flips: bool,
    /// Number of pixels by which images are moved in each direction before they are compared
    #[arg(long, value_name = "P", allow_hyphen_values = true, default_value_t = 0)]
    pub shifts: usize,
    /// Largest amount of memory of the program, such as 4GiB or 3500MB; features of LPIPS that do not fit are kept in
    /// temporary files beside --out [default: three quarters of what is free]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Fraction of S below which a class is marked as having too few samples
    #[arg(long, value_name = "F", allow_hyphen_values = true, default_value_t = ClassifySettings::default().least_fraction)]
    pub least_fraction: f64,
    /// Seed of the bootstrap and of the dip test
    #[arg(long, default_value_t = ClassifySettings::default().seed)]
    pub seed: u64,
}

impl Default for CopiesSettings {
    fn default() -> Self {
        let ClassifySettings { delta_m, delta_s, least_fraction, seed, .. } = ClassifySettings::default();
        Self {
            any_range: false,
            metric: Metric::default(),
            layout: None,
            delta_m,
            delta_s,
            fdr: 0.05,
            flips: false,
            shifts: 0,
            memory: None,
            least_fraction,
            seed,
        }
    }
}

impl CopiesSettings {
    /// Checks every setting and reads the weights of LPIPS where the metric needs them.
    ///
    /// # Errors
    /// [`DetectError::Setting`](crate::detect::DetectError::Setting) that names the first setting out of its range, and
    /// as [`Lpips::open`].
    pub fn check(self, layout: &project::Layout) -> Result<CopiesParams, CopiesError> {
        let Self { delta_m, delta_s, least_fraction, seed, .. } = self;
        let classify =
            ClassifySettings { delta_m, delta_s, least_fraction, seed, ..ClassifySettings::default() };
        classify.check()?;
        check_fdr(self.fdr).map_err(DetectError::from)?;
        if self.shifts > MOST_SHIFTS {
            let need = format!("at most {MOST_SHIFTS}");
            return Err(DetectError::from(SettingError::new("classify", "shifts", self.shifts, need)).into());
        }
        let lpips =
            Backbone::for_metric(self.metric).map(|backbone| Lpips::open(backbone, layout)).transpose()?;
        Ok(CopiesParams { settings: self, classify, lpips, folder: std::env::temp_dir() })
    }
}

/// Checked [`CopiesSettings`].
#[derive(Debug, Clone)]
pub struct CopiesParams {
    settings: CopiesSettings,
    classify: ClassifySettings,
    lpips: Option<Lpips>,
    folder: PathBuf,
}

/// A synthetic set compared with its training set.
#[derive(Debug, Clone)]
pub struct Copies {
    /// The images that were compared, in one shape.
    pub images: Images,
    /// Shape of an image; `None` when no input gives it and the number of values is not that of a square image.
    pub shape: Option<Shape>,
    /// The distance.
    pub metric: Metric,
    /// Transformations of each image that were compared; the first is none.
    pub transformations: Vec<Transformation>,
    /// Neighbours of every sample and real image.
    pub compared: Compared,
    /// Labels, thresholds, evidence and fractions.
    pub answer: Answer,
}

impl CopiesParams {
    /// Compares the synthetic set with the training set and labels every sample (Eqs. 9 to 11).
    ///
    /// ```
    /// use mem2gen::data::Input;
    /// use mem2gen::device::DeviceChoice;
    /// use mem2gen::progress::Silent;
    /// use mem2gen::project::Layout;
    /// use mem2gen::store::write_array;
    /// use mem2gen::study::copies::{CopiesSettings, Images};
    /// use ndarray::array;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let (train, synthetic) = (folder.path().join("D.npy"), folder.path().join("S.npy"));
    /// write_array(&train, &array![[0.0f32, 0.0], [1.0, 1.0]])?;
    /// write_array(&synthetic, &array![[0.0f32, 0.1], [0.5, 0.5], [0.5, 0.6], [1.0, 0.0]])?;
    ///
    /// let settings = CopiesSettings { delta_m: Some(0.2), delta_s: Some(0.2), ..CopiesSettings::default() };
    /// let params = settings.check(&Layout::find())?;
    /// let images = Images::read(&Input::from_path(&train), &Input::from_path(&synthetic), None)?;
    /// let copies = params.compare(images, DeviceChoice::default(), &Silent)?;
    /// let labels: Vec<&str> = copies.answer.labels.iter().map(|label| label.name()).collect();
    /// assert_eq!(labels, ["memorized", "spurious", "spurious", "generalized"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CopiesError::Data`] for images of different shapes or ranges, [`CopiesError::UnknownShape`] for images that LPIPS
    /// can't compare, [`CopiesError::NothingToMove`] for flips and shifts of images of unknown shape,
    /// [`CopiesError::Memory`] and [`CopiesError::Disk`] where memory and disk do not suffice, and as [`compare`] and
    /// [`classify`].
    pub fn compare(
        &self,
        mut images: Images,
        device: DeviceChoice,
        report: &dyn Reporter,
    ) -> Result<Copies, CopiesError> {
        let CopiesSettings { metric, layout, any_range, .. } = self.settings;
        let features = metric == Metric::Cosine;
        let how = Together { any_range: any_range || features, layout, features };
        let shape = images.reconcile(how)?;
        held_out_are_not_samples(&images)?;
        let transformations = self.transformations();
        if let Some(shape) = shape
            && self.settings.shifts >= shape.height.min(shape.width)
        {
            let need = format!("less than the sides of images of {shape}");
            let error = SettingError::new("classify", "shifts", self.settings.shifts, need);
            return Err(DetectError::from(error).into());
        }
        if transformations.len() > 1 && shape.is_none() {
            return Err(CopiesError::NothingToMove { values: images.train().length() });
        }
        if let Some(cost) = self.cost(&images) {
            report.line(&format!("classify: {cost}"));
        }
        let pair = Compare {
            images: &images,
            shape,
            metric,
            transformations: &transformations,
            lpips: self.lpips.as_ref(),
            folder: &self.folder,
        };
        let plan = pair.plan(self.settings.memory)?;
        let rows = pair.rows(&plan, report)?;
        let progress = report.progress("neighbours", comparisons(&rows));
        let compared = compare(&rows, plan.blocks, device, &*progress)?;
        drop((rows, progress));
        let equal = compared.held_out.iter().flatten().filter(|near| near.distance <= compared.same).count();
        images.held_out_equal(equal);
        let decision = decide(&compared, self.settings.fdr);
        // Held-out images that count as training images are not the measure of what is near.
        let mut neighbours = compared.neighbours.clone();
        if let Some(held_out) = &mut neighbours.held_out {
            held_out.retain(|distance| *distance > compared.same);
        }
        neighbours.held_out = neighbours.held_out.filter(|held_out| !held_out.is_empty());
        let answer = Answer::new(&compared, classify(&neighbours, &self.classify)?, decision);
        Ok(Copies { images, shape, metric, transformations, compared, answer })
    }

    /// Puts temporary files into a folder that exists, instead of the system's folder for them.
    pub fn folder(self, folder: PathBuf) -> Self {
        Self { folder, ..self }
    }

    fn transformations(&self) -> Vec<Transformation> {
        Transformation::all(self.settings.flips, self.settings.shifts)
    }

    /// What mirroring and moving costs, in words; `None` when images are compared as they are.
    fn cost(&self, images: &Images) -> Option<String> {
        let times = self.transformations().len();
        (times > 1).then(|| {
            let count = |set: Option<&ImageSet>| set.map_or(0, ImageSet::len);
            let train = count(Some(images.train()));
            let queries = count(Some(images.synthetic())) + count(images.held_out()) + train.min(2000);
            let distances = (times * queries * train) as f64;
            format!("{times} transformations of {queries} images take {times} times as long: {distances:.1e} distances")
        })
    }
}

/// Refuses held-out images of which at least half equal a sample.
fn held_out_are_not_samples(images: &Images) -> Result<(), CopiesError> {
    let Some(held_out) = images.held_out() else { return Ok(()) };
    let key = |row: ArrayView1<'_, f32>| {
        let mut hasher = DefaultHasher::new();
        row.iter().for_each(|v| hasher.write_u32(v.to_bits()));
        hasher.finish()
    };
    let keys = |set: &ImageSet| -> Vec<u64> {
        let rows: Vec<usize> = (0..set.len()).collect();
        rows.chunks(BLOCK)
            .flat_map(|rows| set.select(rows).outer_iter().map(key).collect::<Vec<u64>>())
            .collect()
    };
    let samples: HashSet<u64> = keys(images.synthetic()).into_iter().collect();
    let equal = keys(held_out).into_iter().filter(|key| samples.contains(key)).count();
    if 2 * equal >= held_out.len().max(1) {
        let path = held_out.path().to_path_buf();
        return Err(CopiesError::HeldOutAreSamples { path, equal, images: held_out.len() });
    }
    Ok(())
}
