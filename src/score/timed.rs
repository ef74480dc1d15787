use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView2};

use super::{Score, ScoreError};
use crate::process::Level;

/// A score that knows how long it was asked for, all threads together.
pub struct Timed<'a> {
    score: &'a dyn Score,
    nanoseconds: AtomicU64,
}

impl<'a> Timed<'a> {
    /// Of a score that was asked for nothing yet.
    pub fn new(score: &'a dyn Score) -> Self {
        Self { score, nanoseconds: AtomicU64::new(0) }
    }

    /// Time spent in the score.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        let passed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(passed, Ordering::Relaxed);
        result
    }
}

impl Score for Timed<'_> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Vp};
    use crate::score::Gaussian;
    use ndarray::array;

    #[test]
    fn numbers_are_those_of_the_score_and_time_adds_up() {
        let gaussian = Gaussian::new(array![0.3, -0.2], array![0.04, 0.25]).unwrap();
        let timed = Timed::new(&gaussian);
        let (x, levels) = (array![[0.1, 0.2]], [Vp::default().level(100.0).unwrap()]);
        assert_eq!(timed.score(x.view(), &levels).unwrap(), gaussian.score(x.view(), &levels).unwrap());
        let once = timed.spent();
        assert!(once > Duration::ZERO);
        let v = array![[1.0, -1.0]];
        let vjp = timed.vjp(x.view(), &levels, v.view()).unwrap();
        assert_eq!(vjp, gaussian.vjp(x.view(), &levels, v.view()).unwrap());
        assert!(timed.spent() > once);
    }
}
