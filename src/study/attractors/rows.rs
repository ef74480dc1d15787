use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::class::{Class, Group};

/// Where starts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Draws from N(0, I).
    #[default]
    Noise,
    /// Samples of a class, or training images.
    Images(Group),
    /// Images of the same data set that the network was not trained on.
    HeldOut,
}

impl Start {
    /// All kinds in the order of tables.
    pub const ALL: [Self; 6] = [
        Self::Noise,
        Self::Images(Group::MEMORIZED),
        Self::Images(Group::SPURIOUS),
        Self::Images(Group::GENERALIZED),
        Self::Images(Group::Training),
        Self::HeldOut,
    ];

    /// The name in tables and legends.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Images(group) => group.name(),
            Self::HeldOut => "held_out",
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Start {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|start| start.name() == name).ok_or(())
    }
}

/// An attractor: a fixed point of the retrieval map whose Jacobian has a spectral radius below 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Attractor {
    /// Time of the level.
    pub t: f64,
    /// Number of the attractor at its level, from 0, in the order of the first start that ends there.
    pub id: usize,
    /// Memorized or spurious.
    pub class: Class,
    /// Row of the nearest training image.
    pub nearest: usize,
    /// l2 distance to it.
    pub distance: f64,
    /// Spectral radius of the map's Jacobian.
    pub contraction: f64,
    /// Length of the map's step there.
    pub residual: f64,
    /// Length of Newton's step to the fixed point.
    pub error: f64,
    /// Number of starts of each kind that end there, in the order of [`Start::ALL`].
    pub starts: [usize; 6],
}

impl Attractor {
    /// Number of starts of one kind that end there.
    pub fn from(&self, start: Start) -> usize {
        self.starts[place(start)]
    }
}

/// The place of a kind of starts in [`Start::ALL`].
pub(super) fn place(start: Start) -> usize {
    Start::ALL.iter().position(|of| *of == start).expect("`Start::ALL` has every kind that is made")
}

/// The attractors of one score at one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CensusRow {
    /// Number of training images, K.
    pub k: usize,
    /// Time of the level.
    pub t: f64,
    /// Whether the score is the exact one of the training set instead of the network's.
    pub exact: bool,
    /// Number of starts from noise.
    pub starts: usize,
    /// Number of attractors within delta of a training image, from all starts.
    pub memorized: usize,
    /// Number of the other attractors, from all starts.
    pub spurious: usize,
    /// Number of fixed points that don't attract at which starts end.
    pub unstable: usize,
    /// Number of attractors if end states are merged within a quarter of the merging distance.
    pub fine: usize,
    /// Number of attractors if end states are merged within four times the merging distance.
    pub coarse: usize,
    /// Number of memorized attractors at which starts from noise end.
    pub reached_memorized: usize,
    /// Number of spurious attractors at which starts from noise end.
    pub reached_spurious: usize,
    /// Number of attractors that noise reaches, with an estimate of those not met, see [`chao1`].
    pub estimate: f64,
    /// Share of the starts from noise that would end at attractors already met, by Good and Turing: 1 - f1 / n.
    pub coverage: f64,
    /// Median spectral radius of the memorized attractors; `None` without any.
    pub contraction_memorized: Option<f64>,
    /// Median spectral radius of the spurious attractors; `None` without any.
    pub contraction_spurious: Option<f64>,
    /// Largest distance by Newton's method from an attractor to its fixed point; `None` without attractors.
    pub error: Option<f64>,
}

/// Where one kind of starts flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Number of training images, K.
    pub k: usize,
    /// Time of the level.
    pub t: f64,
    /// Whether the score is the exact one of the training set instead of the network's.
    pub exact: bool,
    /// Kind of the starts.
    pub start: Start,
    /// Number of starts.
    pub starts: usize,
    /// Share that ends at memorized attractors.
    pub memorized: f64,
    /// Lower end of its 95 percent Wilson interval.
    pub memorized_low: f64,
    /// Upper end.
    pub memorized_high: f64,
    /// Share that ends at spurious attractors. The rest ends at no attractor.
    pub spurious: f64,
    /// Lower end of its 95 percent Wilson interval.
    pub spurious_low: f64,
    /// Upper end.
    pub spurious_high: f64,
    /// Share that ends within delta of where it began.
    pub stays: f64,
    /// Median distance from a start to its end.
    pub moved: f64,
    /// Lower quartile of that distance.
    pub moved_low: f64,
    /// Upper quartile.
    pub moved_high: f64,
}

/// Chao's estimate of the number of kinds from the number of times that each was met (Chao 1984, bias-corrected):
/// S + f1 (f1 - 1) / (2 (f2 + 1)) for S kinds of which f1 were met once and f2 twice. It is a lower bound where kinds differ
/// in frequency.
///
/// ```
/// use mem2gen::study::attractors::chao1;
///
/// assert_eq!(chao1([5, 2, 1, 1, 0]), 4.0 + 2.0 / 4.0);
/// assert_eq!(chao1([3, 3]), 2.0);
/// ```
pub fn chao1(met: impl IntoIterator<Item = usize>) -> f64 {
    let mut times = [0usize; 3];
    for count in met {
        match count {
            0 => {}
            1 => times[1] += 1,
            2 => times[2] += 1,
            _ => times[0] += 1,
        }
    }
    let [once, twice] = [times[1] as f64, times[2] as f64];
    times.iter().sum::<usize>() as f64 + once * (once - 1.0).max(0.0) / (2.0 * (twice + 1.0))
}
