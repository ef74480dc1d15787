//! Classifier-free guidance.

use ndarray::{Array1, Array2, ArrayView2};

use super::{Score, ScoreError};
use crate::process::Level;
use crate::setting::SettingError;

/// Largest scale of guidance; with more, samples are noise or no numbers.
pub const MOST_GUIDANCE: f64 = 1000.0;

/// Classifier-free guidance (Ho and Salimans, 2022): s_g(x) = s(x) + g (s(x | c) - s(x)), with the score s of the network
/// without a condition, s(. | c) with one, and the scale g. With g = 1 it is the score with the condition, with g = 0 the
/// one without, each at the cost of one score; others cost both.
///
/// ```
/// use mem2gen::process::{Process, Ve};
/// use mem2gen::score::{Gaussian, Guided, Score};
/// use ndarray::array;
///
/// let at = |mean: f64| Gaussian::new(array![mean], array![0.0]);
/// let guided = Guided::new(at(0.0)?, at(2.0)?, 3.0)?;
/// // Two Gaussians of equal width: the mean moves to 0 + 3 (2 - 0).
/// let score = guided.score(array![[6.0]].view(), &[Ve::default().level(0.5)?])?;
/// assert!(score[[0, 0]].abs() < 1e-12);
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Guided<S> {
    without: S,
    with: S,
    scale: f64,
}

impl<S: Score> Guided<S> {
    /// Guidance from the score without a condition towards the one with it.
    ///
    /// # Errors
    /// [`ScoreError::Setting`] for a scale that is not finite or above [`MOST_GUIDANCE`], and for scores of different dimensions.
    pub fn new(without: S, with: S, scale: f64) -> Result<Self, ScoreError> {
        let refused =
            |setting, value, need: String| Err(SettingError::new("guidance", setting, value, need).into());
        if !(-MOST_GUIDANCE..=MOST_GUIDANCE).contains(&scale) {
            let need = format!("a number from -{MOST_GUIDANCE} to {MOST_GUIDANCE}");
            return refused("scale", scale.to_string(), need);
        }
        if without.dim() != with.dim() {
            let need = format!("{}, as without a condition", without.dim());
            return refused("dimensions with a condition", with.dim().to_string(), need);
        }
        Ok(Self { without, with, scale })
    }

    /// The combination of what `f` gives for both scores.
    fn both<D: ndarray::Dimension>(
        &self,
        f: impl Fn(&S) -> Result<ndarray::Array<f64, D>, ScoreError>,
    ) -> Result<ndarray::Array<f64, D>, ScoreError> {
        if self.scale == 1.0 {
            return f(&self.with);
        }
        let mut without = f(&self.without)?;
        if self.scale != 0.0 {
            without.zip_mut_with(&f(&self.with)?, |s, with| *s += self.scale * (with - *s));
        }
        Ok(without)
    }
}

impl<S: Score> Score for Guided<S> {
    fn dim(&self) -> usize {
        self.with.dim()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        self.both(|score| score.score(x, levels))
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        self.both(|score| score.vjp(x, levels, v))
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        self.both(|score| score.divergence(x, levels))
    }
}
