use super::{Level, Process, ProcessError};

/// The noise levels of a sampler: at least two, in order of decreasing time. Samples end at the last level.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps(Vec<Level>);

impl Steps {
    /// Levels of a process at given times.
    ///
    /// # Errors
    /// [`ProcessError::Steps`] for fewer than two times or times that do not decrease; [`ProcessError::Time`].
    pub fn at(process: &dyn Process, times: &[f64]) -> Result<Self, ProcessError> {
        if times.len() < 2 {
            return Err(ProcessError::Steps { place: times.len(), t: f64::NAN });
        }
        let levels = times.iter().map(|&t| process.level(t)).collect::<Result<Vec<_>, _>>()?;
        match times.windows(2).position(|t| t[1] >= t[0]) {
            Some(place) => Err(ProcessError::Steps { place: place + 1, t: times[place + 1] }),
            None => Ok(Self(levels)),
        }
    }

    /// `count` steps of equal length from time `from` down to `to`.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn even(process: &dyn Process, from: f64, to: f64, count: usize) -> Result<Self, ProcessError> {
        let at = |i: usize| if i == count { to } else { from + (to - from) * i as f64 / count as f64 };
        let times: Vec<f64> = (0..=count).map(at).collect();
        Self::at(process, &times)
    }

    /// The levels, by decreasing time.
    pub fn levels(&self) -> &[Level] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ve;

    #[test]
    fn times_have_to_fall() {
        let ve = Ve::default();
        let even = Steps::even(&ve, 1.0, 0.0, 1000).unwrap();
        assert_eq!(even.levels().len(), 1001);
        assert_eq!((even.levels()[0].t(), even.levels()[1000].t()), (1.0, 0.0));
        assert!((even.levels()[1].t() - 0.999).abs() < 1e-15);
        for times in [&[][..], &[1.0], &[1.0, 1.0], &[0.1, 0.5]] {
            assert!(matches!(Steps::at(&ve, times), Err(ProcessError::Steps { .. })), "{times:?}");
        }
        assert!(matches!(Steps::at(&ve, &[2.0, 1.0]), Err(ProcessError::Time { .. })));
        assert!(Steps::even(&ve, 1.0, 0.5, 0).is_err());
    }
}
