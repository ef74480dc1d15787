//! Which images basins, curvature and energies are measured at.

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::random::Stream;

/// Which samples of a class are taken where there are more than are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// Those that the paper's code stores: the memorized nearest to the training set, the spurious nearest to another
    /// sample, the generalized furthest from all others. They are the extremes of their class, so that a mean over
    /// them is none over the class.
    #[default]
    Order,
    /// A seeded draw, which stands for the class. The paper has none.
    Random,
}

/// A sample with what it is labelled by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled {
    /// Row of the samples.
    pub sample: usize,
    /// Its class.
    pub label: Class,
    /// Distance to the nearest training image; none of an invalid sample.
    pub d_train: Option<f64>,
    /// Distance to the nearest other sample; none where there is none.
    pub d_synthetic: Option<f64>,
}

/// The numbers of at most `max` samples with this label, in the order of `pick`. Samples at one distance come in the
/// order of their numbers. A sample that is alone counts as infinitely far from others.
pub fn pick(samples: &[Labelled], label: Class, max: usize, pick: Pick, seed: u64) -> Vec<usize> {
    let mut of: Vec<Labelled> = samples.iter().copied().filter(|s| s.label == label).collect();
    of.sort_by_key(|s| s.sample);
    match pick {
        Pick::Order => {
            let far = |d: Option<f64>| d.unwrap_or(f64::INFINITY);
            of.sort_by(|a, b| match label {
                Class::Generalized => far(b.d_synthetic).total_cmp(&far(a.d_synthetic)),
                Class::Spurious => far(a.d_synthetic).total_cmp(&far(b.d_synthetic)),
                Class::Memorized | Class::Invalid => far(a.d_train).total_cmp(&far(b.d_train)),
            });
            of.iter().take(max).map(|s| s.sample).collect()
        }
        Pick::Random => {
            let order = Stream::new(seed, &format!("chosen/{}", label.name())).permutation(of.len());
            order.iter().take(max).map(|&i| of[i].sample).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Labelled> {
        let of = |sample, label, d_train, d_synthetic| Labelled { sample, label, d_train, d_synthetic };
        vec![
            of(0, Class::Memorized, Some(0.3), Some(0.1)),
            of(1, Class::Generalized, Some(2.0), Some(3.0)),
            of(2, Class::Memorized, Some(0.1), Some(0.9)),
            of(3, Class::Spurious, Some(1.0), Some(0.2)),
            of(4, Class::Generalized, Some(2.0), None),
            of(5, Class::Invalid, None, None),
            of(6, Class::Spurious, Some(0.9), Some(0.1)),
            of(7, Class::Generalized, Some(2.5), Some(4.0)),
            of(8, Class::Memorized, Some(0.1), Some(0.0)),
        ]
    }

    #[test]
    fn the_papers_order_is_that_of_the_distances() {
        let of = |label, max| pick(&samples(), label, max, Pick::Order, 1);
        assert_eq!(of(Class::Memorized, 9), [2, 8, 0]);
        assert_eq!(of(Class::Spurious, 9), [6, 3]);
        assert_eq!(of(Class::Generalized, 2), [4, 7]);
        assert!(of(Class::Generalized, 0).is_empty());
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
        let of = |max, seed| pick(&many, Class::Memorized, max, Pick::Random, seed);
        assert_eq!(of(20, 3), of(200, 3)[..20]);
        assert_ne!(of(20, 3), of(20, 4));
        let mut all = of(1000, 3);
        all.sort_unstable();
        let expected: Vec<usize> = (0..400).filter(|i| matches!(i % 9, 0 | 2 | 8)).collect();
        assert_eq!(all, expected);
    }
}
