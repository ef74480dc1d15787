//! From images to labels: features, neighbours, thresholds and labels.

use ndarray::{ArcArray2, Array2};
use serde::{Deserialize, Serialize};

use super::{CopiesError, Images};
use crate::data::ImageSet;
use crate::data::image_set::{Layout, Together};
use crate::detect::{Classification, ClassifySettings, Neighbours, Sets, classify, neighbours, queries};
use crate::device::DeviceChoice;
use crate::distance::{Backbone, Lpips};
use crate::metric::Metric;
use crate::progress::{ProgressSink, Reporter};
use crate::project;
use crate::shape::Shape;

/// Largest number of bytes that the features of all images may take.
const FEATURE_BYTES: usize = 12 << 30;

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
        let lpips = Backbone::of(self.metric).map(|backbone| Lpips::open(backbone, layout)).transpose()?;
        Ok(CopiesParams { settings: self, classify, lpips })
    }
}

/// Checked [`CopiesSettings`].
#[derive(Debug, Clone)]
pub struct CopiesParams {
    settings: CopiesSettings,
    classify: ClassifySettings,
    lpips: Option<Lpips>,
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
    /// Neighbours of every sample.
    pub neighbours: Neighbours,
    /// Thresholds, labels and fractions.
    pub classification: Classification,
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
    /// let images = Images::read(&Input::of(&train), &Input::of(&synthetic), None)?;
    /// let copies = params.compare(images, DeviceChoice::default(), &Silent)?;
    /// let labels: Vec<&str> = copies.classification.labels.iter().flatten().map(|label| label.name()).collect();
    /// assert_eq!(labels, ["memorized", "spurious", "spurious", "generalized"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CopiesError::Data`] for images of different shapes or ranges, [`CopiesError::UnknownShape`] and
    /// [`CopiesError::FeaturesTooLarge`] for images that LPIPS can't compare, and as [`neighbours`] and [`classify`].
    pub fn compare(
        &self,
        mut images: Images,
        device: DeviceChoice,
        report: &dyn Reporter,
    ) -> Result<Copies, CopiesError> {
        let CopiesSettings { metric, layout, any_range, .. } = self.settings;
        let how = Together { any_range: any_range || metric == Metric::Cosine, layout };
        let shape = images.reconcile(how)?;
        let neighbours = self.neighbours(&images, shape, device, report)?;
        let classification = classify(&neighbours, &self.classify)?;
        Ok(Copies { images, shape, metric: self.settings.metric, neighbours, classification })
    }

    fn neighbours(
        &self,
        images: &Images,
        shape: Option<Shape>,
        device: DeviceChoice,
        report: &dyn Reporter,
    ) -> Result<Neighbours, CopiesError> {
        let cosine = self.settings.metric == Metric::Cosine;
        let rows = match &self.lpips {
            None if cosine => images.sets().iter().map(directions).collect::<Result<_, _>>()?,
            None => images.sets().iter().map(|set| set.rows().clone()).collect(),
            Some(lpips) => {
                let progress = report.progress("features", images.count() as u64);
                features(lpips, images, shape, &*progress)?
            }
        };
        let sets = Sets {
            train: rows[0].clone(),
            synthetic: rows[1].clone(),
            held_out: rows.get(2).cloned(),
            squared: self.lpips.is_some() || cosine,
        };
        let progress = report.progress("neighbours", queries(&sets));
        Ok(neighbours(&sets, device, &*progress)?)
    }
}

/// Rows of length 1/sqrt(2), whose squared l2 distance is 1 - cos.
fn directions(set: &ImageSet) -> Result<ArcArray2<f32>, CopiesError> {
    let mut rows = set.rows().clone();
    for (row, mut values) in rows.outer_iter_mut().enumerate() {
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(CopiesError::ZeroRow { path: set.path().to_path_buf(), row });
        }
        let scale = 0.5f64.sqrt() / length;
        values.mapv_inplace(|v| (f64::from(v) * scale) as f32);
    }
    Ok(rows)
}

/// Features of all images of each set, whose squared l2 distance is LPIPS. Values are clipped to their range. An image
/// with NaN or infinity has NaN for features.
fn features(
    lpips: &Lpips,
    images: &Images,
    shape: Option<Shape>,
    progress: &dyn ProgressSink,
) -> Result<Vec<ArcArray2<f32>>, CopiesError> {
    let metric = lpips.backbone().name();
    let values = images.train().length();
    // Vectors that could be square images are not taken for them unless their layout is given.
    let said = images.sets().iter().any(|set| set.shape().is_some());
    let shape = shape.filter(|_| said).ok_or(CopiesError::UnknownShape { metric, values })?;
    let length = lpips.length(shape)?;
    let bytes = images.count().saturating_mul(length).saturating_mul(size_of::<f32>());
    if bytes > FEATURE_BYTES {
        return Err(CopiesError::FeaturesTooLarge {
            metric,
            images: images.count(),
            bytes,
            limit: FEATURE_BYTES,
        });
    }
    images
        .sets()
        .iter()
        .map(|set| {
            let finite = set.finite();
            let found = lpips.features(shape, set.clipped(&finite).view(), progress)?;
            if finite.len() == set.len() {
                return Ok(found.into());
            }
            let mut all = Array2::from_elem((set.len(), length), f32::NAN);
            for (features, i) in found.outer_iter().zip(finite) {
                all.row_mut(i).assign(&features);
            }
            Ok(all.into())
        })
        .collect()
}
