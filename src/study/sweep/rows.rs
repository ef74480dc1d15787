//! Rows of the transition from memorization to generalization, the results of a sweep over training set sizes
//! (Sec. 4, Figs. 1B, 3, 4A, 7 to 15).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::detect::{Classification, Origin, Share, Threshold};

/// One class among the samples of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClassRow {
    /// Number of samples.
    pub count: usize,
    /// Their fraction of all samples, including invalid samples.
    pub fraction: f64,
    /// Lower end of its 95 percent interval: by the bootstrap, or by Wilson for a fraction of 0 or 1.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Whether the class has samples, but too few for a statement about the class.
    pub few: bool,
}

impl From<&Share> for ClassRow {
    fn from(share: &Share) -> Self {
        // The bootstrap of equal labels has no spread.
        let [low, high] =
            if share.bootstrap[0] == share.bootstrap[1] { share.wilson } else { share.bootstrap };
        Self { count: share.count, fraction: share.fraction, low, high, few: share.too_few }
    }
}

impl ThresholdRow {
    /// The valley if one of the tests finds two modes at a significance of 1 percent, else `None`.
    pub fn believed(&self) -> Option<f64> {
        let p = self.dip_p.into_iter().chain(self.valley_p).reduce(f64::min)?;
        self.valley.filter(|_| p <= 0.01)
    }
}

/// A threshold and its evidence.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ThresholdRow {
    /// The distance; `None` when no sample was compared with a threshold.
    pub value: Option<f64>,
    /// manual, valley, null (held-out data), unknown or no_distances.
    pub origin: String,
    /// The valley between two modes of the log distances, significant or not; `None` without a valley.
    pub valley: Option<f64>,
    /// p-value of Hartigan's dip test of the log distances.
    pub dip_p: Option<f64>,
    /// p-value of the valley; `None` without a valley.
    pub valley_p: Option<f64>,
}

impl From<&Threshold> for ThresholdRow {
    fn from(threshold: &Threshold) -> Self {
        let origin = match threshold.origin {
            Origin::Manual => "manual",
            Origin::Valley => "valley",
            Origin::Null => "null",
            Origin::Unknown => "unknown",
            Origin::NoDistances => "no_distances",
        };
        let modes = threshold.modes.as_ref();
        Self {
            value: threshold.value,
            origin: origin.to_owned(),
            dip_p: modes.map(|m| m.dip.p),
            valley_p: modes.and_then(|m| m.valley).map(|v| v.p),
            valley: modes.and_then(|m| m.valley).map(|v| v.at),
        }
    }
}

/// One cell of a sweep with one size of S: a network, or the exact score, of one training set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SweepRow {
    /// Data set.
    pub dataset: String,
    /// Height and width of images.
    pub size: usize,
    /// Name of the network in the plan; "exact" for the exact score.
    pub network: String,
    /// "network", or "exact" for the exact score of the training set.
    pub score: String,
    /// Architecture as JSON; `None` for the exact score.
    pub arch: Option<String>,
    /// Number of trained parameters; 0 for the exact score.
    pub parameters: usize,
    /// Prediction target of the network: epsilon, x0 or v; `None` for the exact score.
    pub prediction: Option<String>,
    /// Number of training steps; 0 for the exact score.
    pub steps: u64,
    /// K.
    pub k: usize,
    /// Seed of training; `None` for the exact score.
    pub seed: Option<u64>,
    /// Seed of sampling.
    pub sample_seed: u64,
    /// Distance: l2, lpips-alex or lpips-vgg.
    pub metric: String,
    /// |S| / K.
    pub multiple: usize,
    /// Number of independent sets S of `multiple` K samples each.
    pub sets: usize,
    /// Number of samples of all sets.
    pub samples: usize,
    /// M, Eq. 9.
    pub memorized: ClassRow,
    /// S, Eq. 10.
    pub spurious: ClassRow,
    /// G, Eq. 11.
    pub generalized: ClassRow,
    /// Number of samples too large for a distance.
    pub invalid: usize,
    /// delta_m.
    pub delta_m: ThresholdRow,
    /// delta_s.
    pub delta_s: ThresholdRow,
    /// Fractions memorized, spurious and generalized with both thresholds at 3/4.
    pub narrow: [f64; 3],
    /// The same with both at 5/4.
    pub wide: [f64; 3],
    /// Fraction of samples whose nearest training image is less than a third as far as the second nearest; `None` for
    /// K = 1.
    pub ratio_copies: Option<f64>,
    /// Number of held-out images.
    pub held_out: usize,
    /// Quantiles of their distances to D: 1 percent, 5 percent and the median.
    pub held_out_quantiles: [Option<f64>; 3],
    /// Root mean square distance between two training images.
    pub scale: f64,
    /// Median d(x, D).
    pub d_train: Option<f64>,
    /// Median d(x, S \ x).
    pub d_synthetic: Option<f64>,
    /// Mean loss over the last logged training steps.
    pub loss: Option<f64>,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Seconds of sampling.
    pub sample_seconds: f64,
    /// Seconds of the neighbour search and of labelling, of all multiples together.
    pub label_seconds: f64,
    /// Whether the weights were read from a published file in half precision instead of trained.
    pub restored: bool,
    /// Key of the training settings.
    pub train_key: Option<String>,
    /// SHA-256 of the training set.
    pub data_sha256: String,
    /// SHA-256 of the weights that samples were drawn with.
    pub weights_sha256: Option<String>,
    /// SHA-256 of the samples.
    pub samples_sha256: String,
    /// Device of training; for the exact score the device of the labels.
    pub device: String,
    /// Version of the crate.
    pub program: String,
    /// Versions of the values of sweeps, of training and of sampling.
    pub versions: [usize; 3],
}

/// Distances of one sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DistanceRow {
    /// Data set.
    pub dataset: Arc<str>,
    /// Name of the network in the plan; "exact" for the exact score.
    pub network: Arc<str>,
    /// K.
    pub k: usize,
    /// Seed of training; `None` for the exact score.
    pub seed: Option<u64>,
    /// |S| / K.
    pub multiple: usize,
    /// Row of the sample.
    pub sample: usize,
    /// d(x, D); `None` for an invalid sample.
    pub d_train: Option<f32>,
    /// d(x, S \ x) within the sample's own set S; `None` for an invalid sample and for a set without other samples.
    pub d_synthetic: Option<f32>,
    /// Its label.
    pub label: Class,
}

/// The role of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A sample of a class.
    #[default]
    Sample,
    /// A training image near it.
    Train,
    /// Another sample of the same set near it.
    Synthetic,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sample, Self::Train, Self::Synthetic];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Train => "train",
            Self::Synthetic => "synthetic",
        }
    }
}

/// One picture of Fig. 1B: a sample, or one of its neighbours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExampleRow {
    /// Data set.
    pub dataset: Arc<str>,
    /// Name of the network in the plan; "exact" for the exact score.
    pub network: Arc<str>,
    /// K.
    pub k: usize,
    /// Seed of training; `None` for the exact score.
    pub seed: Option<u64>,
    /// |S| / K.
    pub multiple: usize,
    /// Class of the sample.
    pub class: Class,
    /// Index of the example in its class, from 0.
    pub example: usize,
    /// Role of the picture.
    pub role: Role,
    /// Rank among the neighbours in its set, from 0; 0 for the sample itself.
    pub rank: usize,
    /// Row in the sample file or in the training set.
    pub index: usize,
    /// Distance to the sample; 0 for the sample itself.
    pub distance: f64,
    /// Height, width and channels.
    pub shape: [usize; 3],
    /// Values in [-1, 1] as 0 to 255, in the order row, column, channel.
    pub pixels: Vec<u8>,
}

/// All tables of a sweep.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transition {
    /// One row for each cell and size of S.
    pub cells: Vec<SweepRow>,
    /// One row for each sample.
    pub samples: Vec<DistanceRow>,
    /// One row for each picture.
    pub examples: Vec<ExampleRow>,
}

impl SweepRow {
    /// The row with the results of a classification; `None` when no threshold is known and no sample has a label.
    pub fn classified(mut self, found: &Classification) -> Option<Self> {
        let fractions = found.fractions.as_ref()?;
        let three = |scale: f64| {
            let all = found.sensitivity.iter().find(|s| s.scale == scale)?.fractions;
            Some([all.memorized.fraction, all.spurious.fraction, all.generalized.fraction])
        };
        self.narrow = three(0.75)?;
        self.wide = three(1.25)?;
        self.samples = found.samples;
        self.memorized = (&fractions.memorized).into();
        self.spurious = (&fractions.spurious).into();
        self.generalized = (&fractions.generalized).into();
        self.invalid = found.invalid;
        self.delta_m = (&found.delta_m).into();
        self.delta_s = (&found.delta_s).into();
        self.ratio_copies = found.ratio.map(|r| r.fraction);
        self.held_out = found.null.held_out;
        self.held_out_quantiles =
            found.null.held_out_quantiles.map_or([None; 3], |quantiles| quantiles.map(Some));
        self.scale = found.scale;
        Some(self)
    }
}
