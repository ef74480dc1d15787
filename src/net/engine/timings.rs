//! Time of the engine by kind of operation.

use std::time::Instant;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Convolutions of side 3.
    Conv,
    /// Their gradient with respect to the input.
    ConvInput,
    /// Their gradient with respect to the weights.
    ConvWeight,
    /// Dense layers, and convolutions of side 1.
    Dense,
    /// Their gradient with respect to the input.
    DenseInput,
    /// Their gradient with respect to the weights.
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
    /// Sums and copies that are not part of another operation, and their gradients.
    Copy,
}

impl Part {
    /// All kinds.
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

    /// Name in tables.
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

/// Seconds by kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    seconds: [f64; Part::ALL.len()],
}

impl Timings {
    /// Seconds of one kind.
    pub fn seconds(&self, part: Part) -> f64 {
        self.seconds[part as usize]
    }

    /// The sum of two timings.
    pub fn plus(mut self, other: Self) -> Self {
        for (own, others) in self.seconds.iter_mut().zip(other.seconds) {
            *own += others;
        }
        self
    }

    pub(super) fn add(&mut self, part: Part, since: Instant) {
        self.seconds[part as usize] += since.elapsed().as_secs_f64();
    }
}
