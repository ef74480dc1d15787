//! Fractions of memorized, spurious and generalized samples against K (Sec. 4, Figs. 1B, 3, 4A, 7 to 15).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::detect::label;
use crate::study::sweep::{DistanceRow, SweepRow};

/// Settings of the figures of the sweeps, a table of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitionSettings {
    /// Names of the plans; a table of each is stored.
    pub plans: Vec<String>,
    /// Data sets and networks of the histograms and examples.
    pub shown: Vec<(String, String)>,
    /// Sizes K of the histograms.
    pub sizes: Vec<usize>,
    /// Pairs delta_m, delta_s of the figure with the same thresholds at every K.
    pub thresholds: Vec<(f64, f64)>,
    /// The data set whose networks are compared by their width.
    pub widths: String,
    /// The network that was sampled with two sizes of S, and the two as multiples of K.
    pub set_sizes: ((String, String), [usize; 2]),
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

/// The cells of one network ("exact" for the exact score) in the order of K, with one size of S: `multiple`, or the
/// smallest |S| / K for `None`. Of several training seeds the lowest is taken.
pub fn network_cells<'a>(
    rows: &'a [SweepRow],
    dataset: &str,
    network: &str,
    multiple: Option<usize>,
) -> Vec<&'a SweepRow> {
    let all = || rows.iter().filter(|r| r.dataset == dataset && r.network == network);
    let Some(multiple) = multiple.or_else(|| all().map(|r| r.multiple).min()) else { return Vec::new() };
    let seed = all().filter_map(|r| r.seed).min();
    let mut cells: Vec<&SweepRow> = all().filter(|r| r.multiple == multiple && r.seed == seed).collect();
    cells.sort_by_key(|r| r.k);
    cells
}

/// Fractions at one K with given thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PooledRow {
    /// K.
    pub k: usize,
    /// Number of samples, including invalid ones.
    pub samples: usize,
    /// Fractions memorized, spurious and generalized.
    pub fractions: [f64; 3],
}

/// Fractions of one network with the same thresholds at every K (Eqs. 9 to 11), for its smallest |S| / K and lowest
/// training seed. A missing distance to the training set counts as an invalid sample.
pub fn pooled(
    samples: &[DistanceRow],
    dataset: &str,
    network: &str,
    (delta_m, delta_s): (f64, f64),
) -> Vec<PooledRow> {
    let all = || samples.iter().filter(|s| *s.dataset == *dataset && *s.network == *network);
    let (multiple, seed) = (all().map(|s| s.multiple).min(), all().filter_map(|s| s.seed).min());
    let mut counts: BTreeMap<usize, (usize, [usize; 3])> = BTreeMap::new();
    for s in all().filter(|s| Some(s.multiple) == multiple && s.seed == seed) {
        let (all, classes) = counts.entry(s.k).or_default();
        *all += 1;
        let d_train = s.d_train.map_or(f64::NAN, f64::from);
        match label(d_train, s.d_synthetic.map(f64::from), delta_m, delta_s) {
            Class::Memorized => classes[0] += 1,
            Class::Spurious => classes[1] += 1,
            Class::Generalized => classes[2] += 1,
            Class::Invalid => {}
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
    fn cells_of_a_network_are_sorted_by_size_with_one_set_size_and_seed() {
        let rows = [
            cell("exact", 2, 4, None),
            cell("mlp", 16, 8, Some(2)),
            cell("mlp", 16, 4, Some(2)),
            cell("mlp", 2, 4, Some(2)),
            cell("mlp", 2, 4, Some(3)),
            cell("unet", 4, 4, Some(2)),
        ];
        assert_eq!(networks(&rows), [("mnist", "mlp"), ("mnist", "unet")]);
        let found = |network, multiple| {
            let cells = network_cells(&rows, "mnist", network, multiple);
            cells.into_iter().map(|c| (c.k, c.multiple, c.seed)).collect::<Vec<_>>()
        };
        assert_eq!(found("mlp", None), [(2, 4, Some(2)), (16, 4, Some(2))]);
        assert_eq!(found("mlp", Some(8)), [(16, 8, Some(2))]);
        assert_eq!(found("exact", None), [(2, 4, None)]);
        assert_eq!(found("resnet", None), []);
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
            // Exactly representable in single precision, so that it is not above the threshold.
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
