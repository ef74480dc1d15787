//! What a network is given beside the samples.

/// Times of samples and, for a network with a condition, their conditions. Times alone convert into it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Given<'a> {
    /// Times, `[m]`.
    pub t: &'a [f32],
    /// Conditions, `[m, condition]`; empty for a network without one.
    pub condition: &'a [f32],
}

impl<'a> From<&'a [f32]> for Given<'a> {
    fn from(t: &'a [f32]) -> Self {
        Self { t, condition: &[] }
    }
}

impl<'a> From<&'a Vec<f32>> for Given<'a> {
    fn from(t: &'a Vec<f32>) -> Self {
        t.as_slice().into()
    }
}

impl<'a, const M: usize> From<&'a [f32; M]> for Given<'a> {
    fn from(t: &'a [f32; M]) -> Self {
        t.as_slice().into()
    }
}
