//! Which images basins, curvature and energies are measured at.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::random::{SEED, Stream};

/// Which samples of a class are taken when it has more than are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The samples that the paper's code stores: the memorized nearest to the training set, the spurious nearest to
    /// another sample, the generalized furthest from all others. They are the extremes of their class, so their mean is
    /// not the mean of the class
    #[default]
    Order,
    /// A seeded draw without replacement, which represents the class; the paper does not have it
    Random,
}

/// How many images of a group are measured, and which.
///
/// ```
/// use mem2gen::study::subject::{Choice, Pick};
///
/// assert_eq!(Choice::default(), Choice { max: 512, pick: Pick::Order, pick_seed: 3407 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Choice {
    /// Number of images of a class, at most; the paper takes 512
    #[arg(long, value_name = "n", default_value_t = Choice::default().max)]
    pub max: usize,
    /// Samples that are taken of a class with more of them; of training images it is always the first
    #[arg(long, value_enum, default_value_t = Choice::default().pick)]
    pub pick: Pick,
    /// Seed of the random draw
    #[arg(long, value_name = "SEED", default_value_t = Choice::default().pick_seed)]
    pub pick_seed: u64,
}

impl Default for Choice {
    fn default() -> Self {
        Self { max: 512, pick: Pick::Order, pick_seed: SEED }
    }
}

/// A sample with its label and the distances that the label follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled {
    /// Row of the samples.
    pub sample: usize,
    /// Class of the sample.
    pub label: Class,
    /// Distance to the nearest training image; `None` for an invalid sample.
    pub d_train: Option<f64>,
    /// Distance to the nearest other sample; `None` when there is no other.
    pub d_synthetic: Option<f64>,
}

/// The rows of at most `max` samples with this label, in the order of `pick`. Samples at the same distance come in the
/// order of their rows. A sample without neighbours counts as infinitely far from all others.
///
/// ```
/// use mem2gen::class::Class;
/// use mem2gen::study::subject::{Labelled, Pick, pick};
///
/// let sample = |sample, d| Labelled { sample, label: Class::Memorized, d_train: Some(d), d_synthetic: None };
/// let samples = [sample(0, 0.3), sample(1, 0.1), sample(2, 0.2)];
/// assert_eq!(pick(&samples, Class::Memorized, 2, Pick::Order, 1), [1, 2]);
/// ```
pub fn pick(samples: &[Labelled], label: Class, max: usize, pick: Pick, seed: u64) -> Vec<usize> {
    let mut chosen: Vec<Labelled> = samples.iter().copied().filter(|s| s.label == label).collect();
    chosen.sort_by_key(|s| s.sample);
    match pick {
        Pick::Order => {
            let far = |d: Option<f64>| d.unwrap_or(f64::INFINITY);
            chosen.sort_by(|a, b| match label {
                Class::Generalized => far(b.d_synthetic).total_cmp(&far(a.d_synthetic)),
                Class::Spurious => far(a.d_synthetic).total_cmp(&far(b.d_synthetic)),
                Class::Memorized | Class::Invalid => far(a.d_train).total_cmp(&far(b.d_train)),
            });
            chosen.iter().take(max).map(|s| s.sample).collect()
        }
        Pick::Random => {
            let order = Stream::new(seed, &format!("chosen/{}", label.name())).permutation(chosen.len());
            order.iter().take(max).map(|&i| chosen[i].sample).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Labelled> {
        let sample = |sample, label, d_train, d_synthetic| Labelled { sample, label, d_train, d_synthetic };
        vec![
            sample(0, Class::Memorized, Some(0.3), Some(0.1)),
            sample(1, Class::Generalized, Some(2.0), Some(3.0)),
            sample(2, Class::Memorized, Some(0.1), Some(0.9)),
            sample(3, Class::Spurious, Some(1.0), Some(0.2)),
            sample(4, Class::Generalized, Some(2.0), None),
            sample(5, Class::Invalid, None, None),
            sample(6, Class::Spurious, Some(0.9), Some(0.1)),
            sample(7, Class::Generalized, Some(2.5), Some(4.0)),
            sample(8, Class::Memorized, Some(0.1), Some(0.0)),
        ]
    }

    #[test]
    fn the_papers_order_is_that_of_the_distances() {
        let ordered = |label, max| pick(&samples(), label, max, Pick::Order, 1);
        assert_eq!(ordered(Class::Memorized, 9), [2, 8, 0]);
        assert_eq!(ordered(Class::Spurious, 9), [6, 3]);
        assert_eq!(ordered(Class::Generalized, 2), [4, 7]);
        assert!(ordered(Class::Generalized, 0).is_empty());
    }

    #[test]
    fn a_draw_is_fixed_by_its_seed_and_keeps_to_the_class() {
        let many: Vec<Labelled> = (0..400)
            .map(|i| Labelled {
                sample: i,
                label: samples()[i % 9].label,
                d_train: Some(1.0),
                d_synthetic: None,
            })
            .collect();
        let drawn = |max, seed| pick(&many, Class::Memorized, max, Pick::Random, seed);
        assert_eq!(drawn(20, 3), drawn(200, 3)[..20]);
        assert_ne!(drawn(20, 3), drawn(20, 4));
        let mut all = drawn(1000, 3);
        all.sort_unstable();
        let expected: Vec<usize> = (0..400).filter(|i| matches!(i % 9, 0 | 2 | 8)).collect();
        assert_eq!(all, expected);
    }
}
