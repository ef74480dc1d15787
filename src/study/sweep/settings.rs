use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::detect::ClassifySettings;
use crate::metric::Metric;
use crate::net::Arch;
use crate::process::{Prediction, Spacing, VpSettings};
use crate::random::SEED;
use crate::train::{AdamSettings, EmaSettings, default};

/// The settings of a plan, as its TOML file has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// Names of data sets.
    pub datasets: Vec<String>,
    /// Height and width of images, a divisor of the data sets' own. Images are reduced by means over squares of pixels.
    pub size: usize,
    /// Sizes K of training sets. Either `sizes` or `grid` is set, here or in every network.
    #[serde(default)]
    pub sizes: Option<Vec<usize>>,
    /// Sizes K by a rule.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// Whether the exact score of each training set is sampled, too.
    #[serde(default)]
    pub control: bool,
    /// Seeds of training, one or a list.
    #[serde(default, alias = "seed")]
    pub seeds: Seeds,
    /// Seed of the samples' starting points and noise.
    #[serde(default = "default::seed")]
    pub sample_seed: u64,
    /// The networks.
    pub network: Vec<NetworkSettings>,
    /// Training settings.
    pub training: TrainingSettings,
    /// Sampling settings.
    pub sampling: SamplingSettings,
    /// Settings of the labels.
    #[serde(default)]
    pub detection: DetectionSettings,
}

/// Seeds of training: one, or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// One seed.
    One(u64),
    /// Several seeds; each has its own cell.
    Several(Vec<u64>),
}

impl Default for Seeds {
    fn default() -> Self {
        Self::One(SEED)
    }
}

impl Seeds {
    pub(super) fn all(&self) -> &[u64] {
        match self {
            Self::One(seed) => std::slice::from_ref(seed),
            Self::Several(seeds) => seeds,
        }
    }
}

/// Sizes of training sets as in the paper: `first`, powers of two times `ladder` up to the whole data set, and evenly
/// spaced sizes in the transition, as many as give `total` sizes. The paper states the ends and the total, and its sizes
/// fit the ladder. The number of sizes in between is not known. If no number of them gives `total` together with the
/// whole ladder, the ladder's sizes within the transition are left out.
///
/// ```
/// use mem2gen::study::sweep::Grid;
///
/// let grid = Grid { first: 2, ladder: 4, between: [8, 20], total: 8 };
/// assert_eq!(grid.sizes(40).unwrap(), [2, 4, 8, 14, 16, 20, 32, 40]);
/// assert!(grid.sizes(10).is_none());
/// assert!(Grid { total: usize::MAX, ..grid }.sizes(40).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The smallest size.
    pub first: usize,
    /// The first size of the ladder.
    pub ladder: usize,
    /// Inclusive ends of the evenly spaced sizes: A and B of the paper's Table 1.
    pub between: [usize; 2],
    /// Number of all sizes.
    pub total: usize,
}

impl Grid {
    /// The sizes for a data set of `all` images, ascending; `None` when there are no `total` sizes.
    pub fn sizes(&self, all: usize) -> Option<Vec<usize>> {
        let Self { first, ladder, between: [a, b], total } = *self;
        if ladder == 0 || first == 0 || a >= b || b > all || first > all {
            return None;
        }
        let rungs = std::iter::successors(Some(ladder), |k| k.checked_mul(2)).take_while(|k| *k < all);
        let coarse: BTreeSet<usize> = rungs.chain([first, all]).collect();
        let outside = coarse.iter().copied().filter(|k| !(a..=b).contains(k)).collect();
        [coarse, outside].into_iter().find_map(|coarse: BTreeSet<usize>| {
            // Each point adds one size at most, and more points than whole numbers add none.
            let least = total.saturating_sub(coarse.len()).max(2);
            (least..=total.min(b - a + 1)).find_map(|points| {
                let step = (b - a) as f64 / (points - 1) as f64;
                let even = (0..points).map(|i| a + (step * i as f64).round() as usize);
                let sizes: BTreeSet<usize> = coarse.iter().copied().chain(even).collect();
                (sizes.len() == total).then(|| sizes.into_iter().collect())
            })
        })
    }
}

/// A network, with the training settings in which it differs from `[training]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Name: lower-case letters, digits and hyphens. Two networks of a plan may share a name if their sizes differ.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Sizes K instead of the plan's.
    #[serde(default)]
    pub sizes: Option<Vec<usize>>,
    /// Sizes K by a rule instead of the plan's.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// Prediction target.
    #[serde(default)]
    pub prediction: Option<Prediction>,
    /// Number of training steps.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Batch size.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: Option<bool>,
    /// Learning rate; the optimiser's other settings are the plan's.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// Moving average of the weights.
    #[serde(default)]
    pub ema: Option<EmaSettings>,
}

/// How networks are trained, see [`TrainSettings`](crate::train::TrainSettings).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// Noising process.
    #[serde(default)]
    pub process: VpSettings,
    /// Prediction target.
    #[serde(default = "default::epsilon")]
    pub prediction: Prediction,
    /// Number of training steps.
    pub steps: u64,
    /// Batch size.
    pub batch: usize,
    /// Whether a batch may be larger than the training set.
    #[serde(default)]
    pub repeat: bool,
    /// Optimiser.
    #[serde(default)]
    pub adam: AdamSettings,
    /// Moving average of the weights.
    #[serde(default)]
    pub ema: EmaSettings,
    /// Steps between checkpoints.
    #[serde(default = "default::checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps between rows of metrics.
    #[serde(default = "default::log_every")]
    pub log_every: u64,
}

/// Name of a sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    /// Ancestral sampling of DDPM, as in the paper.
    Ancestral,
    /// DDIM without noise.
    Ddim,
}

/// How samples are drawn. The predicted clean image is clamped to [-1, 1] in each step, as in the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingSettings {
    /// Sampler.
    pub sampler: SamplerName,
    /// Number of its steps.
    pub steps: usize,
    /// Spacing of the steps among the levels.
    #[serde(default = "leading")]
    pub spacing: Spacing,
    /// Values of |S| / K; each gives its own labels. The paper has 4, and 8 in Fig. 9.
    #[serde(default = "multiples")]
    pub multiples: Vec<usize>,
    /// Least number of samples in all independent sets S together; 0 draws one set, as in the paper. For small K one set
    /// of 4K samples gives large errors.
    #[serde(default)]
    pub least: usize,
}

fn leading() -> Spacing {
    Spacing::Leading
}

fn multiples() -> Vec<usize> {
    vec![4]
}

/// How samples are labelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionSettings {
    /// Distance.
    pub metric: Metric,
    /// Number of held-out images: the first test images.
    pub held_out: usize,
    /// delta_m of Eq. 9; `None` estimates it.
    pub delta_m: Option<f64>,
    /// delta_s of Eq. 10; `None` estimates it.
    pub delta_s: Option<f64>,
    /// Fraction below which a class has too few samples.
    pub least_fraction: f64,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Number of examples kept of each class, and of the neighbours of each in D and in S.
    pub examples: usize,
}

impl Default for DetectionSettings {
    fn default() -> Self {
        let ClassifySettings { least_fraction, resamples, .. } = ClassifySettings::default();
        Self {
            metric: Metric::L2,
            held_out: 0,
            delta_m: None,
            delta_s: None,
            least_fraction,
            resamples,
            examples: 4,
        }
    }
}

impl DetectionSettings {
    /// The settings of the classification.
    pub fn classify(&self) -> ClassifySettings {
        ClassifySettings {
            delta_m: self.delta_m,
            delta_s: self.delta_s,
            least_fraction: self.least_fraction,
            resamples: self.resamples,
            ..ClassifySettings::default()
        }
    }
}
