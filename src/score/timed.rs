use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, ArrayView2};

use super::{Score, ScoreError};
use crate::process::Level;

/// A score that counts the time spent in it, summed over threads.
///
/// ```
/// use mem2gen::process::{Process, Vp};
/// use mem2gen::score::{Gaussian, Score, Timed};
/// use ndarray::array;
///
/// let timed = Timed::new(Gaussian::new(array![0.0, 0.0], array![1.0, 1.0])?);
/// assert!(timed.spent().is_zero());
/// timed.score(array![[0.1, 0.2]].view(), &[Vp::default().level(100.0)?])?;
/// assert!(!timed.spent().is_zero());
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub struct Timed {
    score: Box<dyn Score + Send>,
    nanoseconds: AtomicU64,
}

impl Timed {
    /// Wraps a score. No time has been spent yet.
    pub fn new(score: impl Score + Send + 'static) -> Self {
        Self { score: Box::new(score), nanoseconds: AtomicU64::new(0) }
    }

    /// Time spent in the score.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        // 2^64 nanoseconds are 584 years.
        let passed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(passed, Ordering::Relaxed);
        result
    }
}

impl Score for Timed {
    fn dim(&self) -> usize {
        self.score.dim()
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        self.time(|| self.score.score(x, levels))
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        self.time(|| self.score.vjp(x, levels, v))
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        self.time(|| self.score.divergence(x, levels))
    }

    fn score_and_divergence(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
    ) -> Result<(Array2<f64>, Array1<f64>), ScoreError> {
        self.time(|| self.score.score_and_divergence(x, levels))
    }

    fn score_and_terms(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        directions: &[Array2<f64>],
    ) -> Result<(Array2<f64>, Array2<f64>), ScoreError> {
        self.time(|| self.score.score_and_terms(x, levels, directions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Vp};
    use crate::score::Gaussian;
    use ndarray::array;

    #[test]
    fn values_equal_those_of_the_score_and_time_adds_up() {
        let gaussian = || Gaussian::new(array![0.3, -0.2], array![0.04, 0.25]).unwrap();
        let (gaussian, timed) = (gaussian(), Timed::new(gaussian()));
        let (x, levels) = (array![[0.1, 0.2]], [Vp::default().level(100.0).unwrap()]);
        assert_eq!(timed.score(x.view(), &levels).unwrap(), gaussian.score(x.view(), &levels).unwrap());
        let once = timed.spent();
        assert!(once > Duration::ZERO);
        let v = array![[1.0, -1.0]];
        let vjp = timed.vjp(x.view(), &levels, v.view()).unwrap();
        assert_eq!(vjp, gaussian.vjp(x.view(), &levels, v.view()).unwrap());
        assert!(timed.spent() > once);
        let divergence = timed.divergence(x.view(), &levels).unwrap();
        assert_eq!(divergence, gaussian.divergence(x.view(), &levels).unwrap());
    }
}
