//! Fractions of labels with confidence intervals.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::random::Stream;

/// Smallest number of sets for a bootstrap of sets instead of samples.
const FEWEST_SETS: usize = 20;

/// Number of samples with each label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Memorized samples.
    pub memorized: usize,
    /// Spurious samples.
    pub spurious: usize,
    /// Generalized samples.
    pub generalized: usize,
    /// Samples with NaN or infinity, which have no class.
    pub invalid: usize,
}

impl Counts {
    /// Counts labels.
    pub fn from_labels(labels: impl IntoIterator<Item = Class>) -> Self {
        let mut counts = Self::default();
        for label in labels {
            *counts.at(label) += 1;
        }
        counts
    }

    /// The count of one label.
    pub fn get(&self, label: Class) -> usize {
        let mut copy = *self;
        *copy.at(label)
    }

    /// Number of all samples.
    pub fn total(&self) -> usize {
        self.memorized + self.spurious + self.generalized + self.invalid
    }

    fn at(&mut self, label: Class) -> &mut usize {
        match label {
            Class::Memorized => &mut self.memorized,
            Class::Spurious => &mut self.spurious,
            Class::Generalized => &mut self.generalized,
            Class::Invalid => &mut self.invalid,
        }
    }
}

/// Count and fraction of one label in the synthetic set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Samples with the label.
    pub count: usize,
    /// Their fraction of all samples, including invalid ones.
    pub fraction: f64,
    /// 95 percent percentile interval of the [bootstrap](Fractions::new). It has length 0 for the fractions 0 and 1, for which
    /// the Wilson interval is meaningful.
    pub bootstrap: [f64; 2],
    /// 95 percent Wilson interval, which has positive length for the fractions 0 and 1.
    pub wilson: [f64; 2],
    /// Whether the class has samples, but too few for a statement.
    pub too_few: bool,
}

/// Fractions of all labels, whose sum is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fractions {
    /// Memorized samples.
    pub memorized: Share,
    /// Spurious samples.
    pub spurious: Share,
    /// Generalized samples.
    pub generalized: Share,
    /// Samples with NaN or infinity, which have no class.
    pub invalid: Share,
}

impl Fractions {
    /// Fractions of `counts`. A class with a fraction above 0 and below `least` has too few samples.
    ///
    /// The bootstrap draws `resamples` times as many labelled samples as there are, with replacement, from the streams
    /// `bootstrap/i` under `seed`. Labels, distances and thresholds are not recomputed, because a sample that is drawn twice
    /// would be its own neighbour and spurious. Samples of one spurious group count as independent draws of the model.
    ///
    /// ```
    /// use mem2gen::detect::{Counts, Fractions};
    ///
    /// let counts = Counts { memorized: 60, spurious: 1, generalized: 139, invalid: 0 };
    /// let fractions = Fractions::new(counts, 0.01, 100, 1);
    /// assert_eq!((fractions.memorized.fraction, fractions.spurious.fraction), (0.3, 0.005));
    /// assert!(fractions.spurious.too_few);
    /// assert!(fractions.memorized.wilson[0] < 0.3 && fractions.memorized.wilson[1] > 0.3);
    /// ```
    pub fn new(counts: Counts, least: f64, resamples: usize, seed: u64) -> Self {
        let n = counts.total();
        let edges = [
            counts.memorized,
            counts.memorized + counts.spurious,
            counts.memorized + counts.spurious + counts.generalized,
        ];
        let drawn: Vec<[usize; 4]> = (0..resamples)
            .into_par_iter()
            .map(|i| {
                let mut stream = Stream::new(seed, &format!("bootstrap/{i}"));
                let mut again = [0; 4];
                for _ in 0..n {
                    let sample = stream.below(n as u64) as usize;
                    again[edges.iter().filter(|e| sample >= **e).count()] += 1;
                }
                again
            })
            .collect();
        Self::with(counts, least, &drawn)
    }

    /// As [`Self::new`], for samples of several sets, within which neighbours were searched. Labels within a set depend on
    /// each other, so the bootstrap resamples whole sets when there are at least 20, and samples otherwise.
    pub fn of_sets(sets: &[Counts], least: f64, resamples: usize, seed: u64) -> Self {
        let counts = sets.iter().fold(Counts::default(), |sum, set| Counts {
            memorized: sum.memorized + set.memorized,
            spurious: sum.spurious + set.spurious,
            generalized: sum.generalized + set.generalized,
            invalid: sum.invalid + set.invalid,
        });
        if sets.len() < FEWEST_SETS {
            return Self::new(counts, least, resamples, seed);
        }
        let drawn: Vec<[usize; 4]> = (0..resamples)
            .into_par_iter()
            .map(|i| {
                let mut stream = Stream::new(seed, &format!("bootstrap/{i}"));
                let mut again = [0; 4];
                for _ in sets {
                    let set = &sets[stream.below(sets.len() as u64) as usize];
                    for (sum, label) in again.iter_mut().zip(Class::LABELS) {
                        *sum += set.get(label);
                    }
                }
                again
            })
            .collect();
        Self::with(counts, least, &drawn)
    }

    /// Fractions with intervals from the label counts of resamples.
    fn with(counts: Counts, least: f64, drawn: &[[usize; 4]]) -> Self {
        let n = counts.total();
        let share = |place: usize, count: usize| {
            let mut sorted: Vec<usize> = drawn.iter().map(|again| again[place]).collect();
            sorted.sort_unstable();
            let fraction = count as f64 / n.max(1) as f64;
            let at = |p: f64| match sorted.len() {
                0 => fraction,
                r => sorted[((r - 1) as f64 * p).round() as usize] as f64 / n.max(1) as f64,
            };
            let (low, high) = wilson(fraction, n);
            Share {
                count,
                fraction,
                bootstrap: [at(0.025), at(0.975)],
                wilson: [low, high],
                too_few: count > 0 && fraction < least,
            }
        };
        Self {
            memorized: share(0, counts.memorized),
            spurious: share(1, counts.spurious),
            generalized: share(2, counts.generalized),
            invalid: share(3, counts.invalid),
        }
    }

    /// Count and fraction of one label.
    pub fn get(&self, label: Class) -> &Share {
        match label {
            Class::Memorized => &self.memorized,
            Class::Spurious => &self.spurious,
            Class::Generalized => &self.generalized,
            Class::Invalid => &self.invalid,
        }
    }
}

/// 95 percent Wilson interval of a fraction `p` of `n` samples; [0, 1] for no samples.
pub fn wilson(p: f64, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (n as f64, 1.959_963_985);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // Exact at the ends of [0, 1].
    let low = if p == 0.0 { 0.0 } else { (centre - half).max(0.0) };
    (low, if p == 1.0 { 1.0 } else { (centre + half).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SEED;

    #[test]
    fn wilsons_interval_holds_the_fraction_and_is_never_empty() {
        // Newcombe 1998, table I: 81 of 263 has 0.2553 to 0.3662.
        let (low, high) = wilson(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (none, all) = (wilson(0.0, 10), wilson(1.0, 10));
        assert!(none.0 == 0.0 && none.1 > 0.2 && all.1 == 1.0 && all.0 < 0.8, "{none:?} {all:?}");
        assert_eq!(wilson(0.0, 0), (0.0, 1.0));
    }

    #[test]
    fn the_bootstrap_agrees_with_the_binomial_distribution() {
        let counts = Counts { memorized: 300, spurious: 100, generalized: 1590, invalid: 10 };
        let shares = Fractions::new(counts, 0.01, 2000, SEED);
        for (label, p) in [
            (Class::Memorized, 0.15),
            (Class::Spurious, 0.05),
            (Class::Generalized, 0.795),
            (Class::Invalid, 0.005),
        ] {
            let share = shares.get(label);
            assert_eq!((share.count, share.fraction), (counts.get(label), p));
            let half = 1.96 * (p * (1.0 - p) / 2000.0f64).sqrt();
            // The ends of 2000 resamples have an error of 4 percent of the width, and counts are whole.
            let tolerance = 0.15 * half + 0.0005;
            assert!((share.bootstrap[0] - (p - half)).abs() < tolerance, "{share:?}");
            assert!((share.bootstrap[1] - (p + half)).abs() < tolerance, "{share:?}");
            assert_eq!(share.too_few, label == Class::Invalid);
        }
        assert_eq!(shares, Fractions::new(counts, 0.01, 2000, SEED));
        assert_ne!(shares, Fractions::new(counts, 0.01, 2000, 1));
    }

    #[test]
    fn labels_that_come_in_sets_are_drawn_in_sets() {
        // All of a set has one label, so 40 sets of 8 are as uncertain as 40 samples.
        let set = |memorized: bool| {
            if memorized {
                Counts { memorized: 8, ..Counts::default() }
            } else {
                Counts { spurious: 8, ..Counts::default() }
            }
        };
        let sets: Vec<Counts> = (0..40).map(|i| set(i % 2 == 0)).collect();
        let shares = Fractions::of_sets(&sets, 0.01, 2000, SEED);
        assert_eq!((shares.memorized.count, shares.memorized.fraction), (160, 0.5));
        let half = 1.96 * (0.25f64 / 40.0).sqrt();
        assert!((shares.memorized.bootstrap[1] - (0.5 + half)).abs() < 0.2 * half, "{shares:?}");
        // Of few sets samples are drawn, as if there were none.
        let counts = Counts { memorized: 16, spurious: 8, ..Counts::default() };
        let few = Fractions::of_sets(&[set(true), set(false), set(true)], 0.01, 100, SEED);
        assert_eq!(few, Fractions::new(counts, 0.01, 100, SEED));
    }

    #[test]
    fn a_fraction_of_nought_or_one_has_an_interval_all_the_same() {
        let shares = Fractions::new(Counts { memorized: 8, ..Counts::default() }, 0.01, 100, SEED);
        assert_eq!((shares.memorized.bootstrap, shares.spurious.bootstrap), ([1.0; 2], [0.0; 2]));
        assert!(shares.memorized.wilson[0] < 0.7 && shares.spurious.wilson[1] > 0.3);
        // What is not there at all is not too few of it.
        assert!(!shares.spurious.too_few);
    }
}
