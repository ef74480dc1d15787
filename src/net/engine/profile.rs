//! Where the time goes.

use std::time::Instant;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Convolutions of side 3.
    Conv,
    /// Their gradient in what they read.
    ConvInput,
    /// Their gradient in their weights.
    ConvWeight,
    /// Dense layers, and convolutions of side 1.
    Dense,
    /// Their gradient in what they read.
    DenseInput,
    /// Their gradient in their weights.
    DenseWeight,
    /// Normalisation, with the SiLU and the dropout that follow it.
    Norm,
    /// Its gradient.
    NormBackward,
    /// SiLU and dropout alone.
    Silu,
    /// Their gradient.
    SiluBackward,
    /// Attention.
    Attention,
    /// Its gradient.
    AttentionBackward,
    /// Embeddings of time.
    Time,
    /// Sums and copies that are part of nothing else, and their gradients.
    Copy,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Conv,
        Self::ConvInput,
        Self::ConvWeight,
        Self::Dense,
        Self::DenseInput,
        Self::DenseWeight,
        Self::Norm,
        Self::NormBackward,
        Self::Silu,
        Self::SiluBackward,
        Self::Attention,
        Self::AttentionBackward,
        Self::Time,
        Self::Copy,
    ];

    /// What tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "convolution",
            Self::ConvInput => "convolution, input gradient",
            Self::ConvWeight => "convolution, weight gradient",
            Self::Dense => "dense",
            Self::DenseInput => "dense, input gradient",
            Self::DenseWeight => "dense, weight gradient",
            Self::Norm => "normalisation",
            Self::NormBackward => "normalisation, gradient",
            Self::Silu => "SiLU",
            Self::SiluBackward => "SiLU, gradient",
            Self::Attention => "attention",
            Self::AttentionBackward => "attention, gradient",
            Self::Time => "time",
            Self::Copy => "sums and copies",
        }
    }
}

/// Seconds by kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Profile {
    seconds: [f64; Part::ALL.len()],
}

impl Profile {
    /// Those of a kind.
    pub fn seconds(&self, part: Part) -> f64 {
        self.seconds[part as usize]
    }

    /// All of them.
    pub fn total(&self) -> f64 {
        self.seconds.iter().sum()
    }

    pub(super) fn add(&mut self, part: Part, since: Instant) {
        self.seconds[part as usize] += since.elapsed().as_secs_f64();
    }
}
