//! Rows of the transition from memorization to generalization: what a sweep over training set sizes gives
//! (Sec. 4, Figs. 1B, 3, 4A, 7 to 15).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::{Classification, Label, Origin, Share, Threshold, label};

/// Which sweeps are shown, and what of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitionSettings {
    /// Plans by name; a table of each is stored.
    pub plans: Vec<String>,
    /// Data sets and networks whose histograms and examples are drawn.
    pub shown: Vec<(String, String)>,
    /// Sizes K of the histograms.
    pub sizes: Vec<usize>,
    /// Pairs delta_m, delta_s that are held the same at every K.
    pub thresholds: Vec<(f64, f64)>,
    /// The data set whose networks are compared by their width.
    pub widths: String,
    /// The network that was sampled with two sizes of S, and the two as multiples of K.
    pub set_sizes: ((String, String), [usize; 2]),
}

/// One class among the samples of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClassRow {
    /// Samples.
    pub count: usize,
    /// Their fraction of all samples, the invalid ones among them.
    pub fraction: f64,
    /// Lower end of its 95 percent interval: the bootstrap's, or Wilson's where the fraction is 0 or 1.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Whether the class is there but has too few samples to say anything of it.
    pub few: bool,
}

impl From<&Share> for ClassRow {
    fn from(share: &Share) -> Self {
        // Of equal labels the bootstrap draws nothing else.
        let [low, high] =
            if share.bootstrap[0] == share.bootstrap[1] { share.wilson } else { share.bootstrap };
        Self { count: share.count, fraction: share.fraction, low, high, few: share.too_few }
    }
}

impl ThresholdRow {
    /// The valley, if one of the tests says at 1 percent that there are two modes.
    pub fn believed(&self) -> Option<f64> {
        let p = self.dip_p.into_iter().chain(self.valley_p).reduce(f64::min)?;
        self.valley.filter(|_| p <= 0.01)
    }
}

/// A threshold and the evidence for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ThresholdRow {
    /// The distance; none where no sample was held against it.
    pub value: Option<f64>,
    /// manual, valley, null (held-out data), unknown or no_distances.
    pub origin: String,
    /// The valley between two modes of the log distances, whether it is believed or not; none without one.
    pub valley: Option<f64>,
    /// p-value of Hartigan's dip test of the log distances.
    pub dip_p: Option<f64>,
    /// p-value of the valley itself; none where there is none.
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

/// One cell of a sweep with one size of S: a network (or the exact score) of one training set.
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
    /// Architecture as JSON; none for the exact score.
    pub arch: Option<String>,
    /// Numbers that are trained; 0 for the exact score.
    pub parameters: usize,
    /// What the network predicts: epsilon, x0 or v.
    pub prediction: Option<String>,
    /// Training steps; 0 for the exact score.
    pub steps: u64,
    /// K.
    pub k: usize,
    /// Seed of training; none for the exact score.
    pub seed: Option<u64>,
    /// Seed of sampling.
    pub sample_seed: u64,
    /// Distance: l2, lpips-alex or lpips-vgg.
    pub metric: String,
    /// |S| / K.
    pub multiple: usize,
    /// Independent sets S of `multiple` K samples each.
    pub sets: usize,
    /// Samples of all sets.
    pub samples: usize,
    /// M, Eq. 9.
    pub memorized: ClassRow,
    /// S, Eq. 10.
    pub spurious: ClassRow,
    /// G, Eq. 11.
    pub generalized: ClassRow,
    /// Samples that are too large for a distance.
    pub invalid: usize,
    /// delta_m.
    pub delta_m: ThresholdRow,
    /// delta_s.
    pub delta_s: ThresholdRow,
    /// Fractions memorized, spurious and generalized with both thresholds at 3/4.
    pub narrow: [f64; 3],
    /// The same with both at 5/4.
    pub wide: [f64; 3],
    /// Fraction of samples whose nearest training image is less than a third as far as the second nearest; none for
    /// K = 1.
    pub ratio_copies: Option<f64>,
    /// Held-out images.
    pub held_out: usize,
    /// 1 and 5 percent quantile and median of their distances to D.
    pub held_out_quantiles: [Option<f64>; 3],
    /// Typical distance between two training images, the root of the mean square.
    pub scale: f64,
    /// Median d(x, D).
    pub d_train: Option<f64>,
    /// Median d(x, S \ x).
    pub d_synthetic: Option<f64>,
    /// Mean loss of the last stretch of training.
    pub loss: Option<f64>,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Seconds of sampling.
    pub sample_seconds: f64,
    /// Seconds of the search for neighbours and of labelling, all multiples together.
    pub label_seconds: f64,
    /// Whether the weights came out of a published file, in half precision, and not from training.
    pub restored: bool,
    /// Key of the training settings.
    pub train_key: Option<String>,
    /// SHA-256 of the training set.
    pub data_sha256: String,
    /// SHA-256 of the weights that were sampled with.
    pub weights_sha256: Option<String>,
    /// SHA-256 of the samples.
    pub samples_sha256: String,
    /// Where it was computed.
    pub device: String,
    /// Version of the crate.
    pub program: String,
    /// Versions of the numbers of sweeps, of training and of sampling.
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
    /// Seed of training; none for the exact score.
    pub seed: Option<u64>,
    /// |S| / K.
    pub multiple: usize,
    /// Number of the sample.
    pub sample: usize,
    /// d(x, D); none of an invalid sample.
    pub d_train: Option<f32>,
    /// d(x, S \ x), within the sample's own set S; none also of a sample that is alone in it.
    pub d_synthetic: Option<f32>,
    /// Its label.
    pub label: Label,
}

/// What a picture shows.
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

/// One picture of Fig. 1B: a sample, or one that is near to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExampleRow {
    /// Data set.
    pub dataset: Arc<str>,
    /// Name of the network in the plan; "exact" for the exact score.
    pub network: Arc<str>,
    /// K.
    pub k: usize,
    /// Seed of training; none for the exact score.
    pub seed: Option<u64>,
    /// |S| / K.
    pub multiple: usize,
    /// Class of the sample.
    pub class: Label,
    /// Number of the example in its class, from 0 on.
    pub example: usize,
    /// What it shows.
    pub role: Role,
    /// 0 for the sample and for the nearest of each set.
    pub rank: usize,
    /// Row in the sample file or in the training set.
    pub index: usize,
    /// Distance to the sample; 0 of itself.
    pub distance: f64,
    /// Height, width and channels.
    pub shape: [usize; 3],
    /// Values from -1 to 1 as 0 to 255, in the order row, column, channel.
    pub pixels: Vec<u8>,
}

/// All tables of a sweep.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transition {
    /// A row a cell and size of S.
    pub cells: Vec<SweepRow>,
    /// A row a sample.
    pub samples: Vec<DistanceRow>,
    /// A row a picture.
    pub examples: Vec<ExampleRow>,
}

impl SweepRow {
    /// Takes what was found of the samples; none where no threshold is known, so that nothing has a label.
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

/// The data sets and networks of a sweep in the order of its rows, without the exact score.
pub fn networks(rows: &[SweepRow]) -> Vec<(&str, &str)> {
    let mut names = Vec::new();
    for row in rows.iter().filter(|r| r.score != "exact") {
        let name = (row.dataset.as_str(), row.network.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The cells of one network ("exact" for the exact score) by K, with one size of S: `multiple`, or the smallest that
/// there is. Of several training seeds the lowest is taken.
pub fn of_network<'a>(
    rows: &'a [SweepRow],
    dataset: &str,
    network: &str,
    multiple: Option<usize>,
) -> Vec<&'a SweepRow> {
    let of = || rows.iter().filter(|r| r.dataset == dataset && r.network == network);
    let Some(multiple) = multiple.or_else(|| of().map(|r| r.multiple).min()) else { return Vec::new() };
    let seed = of().filter_map(|r| r.seed).min();
    let mut cells: Vec<&SweepRow> = of().filter(|r| r.multiple == multiple && r.seed == seed).collect();
    cells.sort_by_key(|r| r.k);
    cells
}

/// Fractions at one K with given thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PooledRow {
    /// K.
    pub k: usize,
    /// Samples, the invalid ones among them.
    pub samples: usize,
    /// Fractions memorized, spurious and generalized.
    pub fractions: [f64; 3],
}

/// Labels all samples of one network anew (Eqs. 9 to 11), with the same thresholds at every K; for the smallest
/// |S| / K and the lowest training seed that there is.
pub fn pooled(
    samples: &[DistanceRow],
    dataset: &str,
    network: &str,
    (delta_m, delta_s): (f64, f64),
) -> Vec<PooledRow> {
    let of = || samples.iter().filter(|s| *s.dataset == *dataset && *s.network == *network);
    let (multiple, seed) = (of().map(|s| s.multiple).min(), of().filter_map(|s| s.seed).min());
    let mut counts: BTreeMap<usize, (usize, [usize; 3])> = BTreeMap::new();
    for s in of().filter(|s| Some(s.multiple) == multiple && s.seed == seed) {
        let (all, classes) = counts.entry(s.k).or_default();
        *all += 1;
        let d_train = s.d_train.map_or(f64::NAN, f64::from);
        match label(d_train, s.d_synthetic.map(f64::from), delta_m, delta_s) {
            Label::Memorized => classes[0] += 1,
            Label::Spurious => classes[1] += 1,
            Label::Generalized => classes[2] += 1,
            Label::Invalid => {}
        }
    }
    let rows = counts.into_iter().map(|(k, (samples, classes))| PooledRow {
        k,
        samples,
        fractions: classes.map(|n| n as f64 / samples as f64),
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(network: &str, k: usize, multiple: usize, seed: Option<u64>) -> SweepRow {
        let score = if seed.is_some() { "network" } else { "exact" };
        SweepRow {
            dataset: "mnist".into(),
            network: network.into(),
            score: score.into(),
            k,
            multiple,
            seed,
            ..SweepRow::default()
        }
    }

    #[test]
    fn cells_of_a_network_come_by_size_with_one_set_size_and_seed() {
        let rows = [
            cell("exact", 2, 4, None),
            cell("mlp", 16, 8, Some(2)),
            cell("mlp", 16, 4, Some(2)),
            cell("mlp", 2, 4, Some(2)),
            cell("mlp", 2, 4, Some(3)),
            cell("unet", 4, 4, Some(2)),
        ];
        assert_eq!(networks(&rows), [("mnist", "mlp"), ("mnist", "unet")]);
        let of = |network, multiple| {
            let cells = of_network(&rows, "mnist", network, multiple);
            cells.into_iter().map(|c| (c.k, c.multiple, c.seed)).collect::<Vec<_>>()
        };
        assert_eq!(of("mlp", None), [(2, 4, Some(2)), (16, 4, Some(2))]);
        assert_eq!(of("mlp", Some(8)), [(16, 8, Some(2))]);
        assert_eq!(of("exact", None), [(2, 4, None)]);
        assert_eq!(of("resnet", None), []);
    }

    #[test]
    fn one_pair_of_thresholds_labels_every_size() {
        let sample = |k, multiple, d_train, d_synthetic| DistanceRow {
            dataset: "mnist".into(),
            network: "mlp".into(),
            k,
            seed: Some(1),
            multiple,
            d_train,
            d_synthetic,
            ..DistanceRow::default()
        };
        let samples = [
            sample(8, 4, Some(0.1), Some(0.0)),
            // Single precision holds it, so that it is not above the threshold.
            sample(8, 4, Some(0.3), Some(0.25)),
            sample(8, 4, Some(0.3), None),
            sample(8, 4, None, None),
            sample(8, 8, Some(0.1), Some(0.1)),
            sample(2, 4, Some(0.2), Some(0.9)),
        ];
        let found = pooled(&samples, "mnist", "mlp", (0.25, 0.25));
        let row = |k, samples, fractions| PooledRow { k, samples, fractions };
        assert_eq!(found, [row(2, 1, [1.0, 0.0, 0.0]), row(8, 4, [0.25, 0.25, 0.25])]);
    }
}
