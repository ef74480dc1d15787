//! Samplers and likelihoods over any [`Score`].
//!
//! | | integrates along | noise |
//! |---|---|---|
//! | [`ancestral`] | levels, by the posterior of DDPM | yes |
//! | [`ddim`] | levels | no |
//! | [`euler_maruyama`] | times, the reverse equation (Eq. 2) | yes |
//! | [`Flow`] | times, the probability-flow equation, adaptively | no |
//!
//! Starting points are an array, which [`start`] draws. Noise comes from [`Streams`], one for each sample, and each sample
//! has step sizes of its own, so a sample does not depend on its batch (as far as rows of the score do not). [`Draw`]
//! relies on this: it writes any number of samples in batches, and resumes after an interruption.

mod discrete;
mod draw;
mod error;
mod euler_maruyama;
mod flow;
mod rk45;

pub use discrete::{ancestral, ddim};
pub use draw::{Draw, DrawnSamples, Resumed, Sampler, VERSION};
pub use error::SampleError;
pub use euler_maruyama::euler_maruyama;
pub use flow::{Divergence, Flow, Likelihood, Prior};
pub use rk45::{Rk45, Rk45Settings, Solution};

use ndarray::{Array2, ArrayView2, Zip};

use crate::process::{Level, Process};
use crate::random::Streams;
use crate::score::{Score, ScoreError, check_shape, first_bad};

/// Starting points at T, `[m, N]`: the next normal numbers of each stream times the standard deviation of the prior, which
/// is N(0, I) for VP and N(0, sigma^2 T I) for VE.
pub fn start(process: &dyn Process, dim: usize, streams: &mut Streams) -> Array2<f64> {
    streams.normal(dim) * process.prior_scale()
}

/// The score of all rows at one level, with a check of shape and values.
fn score_at(
    sampler: &'static str,
    score: &dyn Score,
    x: ArrayView2<'_, f64>,
    level: Level,
    step: usize,
) -> Result<Array2<f64>, SampleError> {
    let s = score.score(x, &vec![level; x.nrows()]).map_err(|e| match e {
        ScoreError::NotFinite { row, t, value, .. } => {
            SampleError::NotFinite { sampler, sample: row, step, t, value }
        }
        other => other.into(),
    })?;
    check_shape(sampler, "score", &s.view(), x.dim())?;
    check_step(sampler, &s, level, step)?;
    Ok(s)
}

/// x += scale z, with the next normal numbers of each stream.
fn add_noise(x: &mut Array2<f64>, scale: f64, streams: &mut Streams) {
    let z = streams.normal(x.ncols());
    Zip::from(x).and(&z).par_for_each(|x, z| *x += scale * z);
}

/// Checks that all samples are finite; the error names the first that is not.
fn check_step(
    sampler: &'static str,
    rows: &Array2<f64>,
    level: Level,
    step: usize,
) -> Result<(), SampleError> {
    match first_bad(&rows.view()) {
        Some((sample, _, value)) => {
            Err(SampleError::NotFinite { sampler, sample, step, t: level.t(), value })
        }
        None => Ok(()),
    }
}

fn check_streams(sampler: &'static str, streams: &Streams, samples: usize) -> Result<(), SampleError> {
    if streams.len() == samples {
        return Ok(());
    }
    Err(SampleError::Streams { sampler, streams: streams.len(), samples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::ArrayView1;

    /// A standard normal score in the plane, NaN in one row below a time.
    pub(super) struct Broken {
        pub(super) sample: usize,
        pub(super) below: f64,
    }

    impl Score for Broken {
        fn dim(&self) -> usize {
            2
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            let mut out = x.mapv(|v| -v);
            if self.sample < x.nrows() && levels[self.sample].t() < self.below {
                out.row_mut(self.sample).fill(f64::NAN);
            }
            Ok(out)
        }

        fn vjp(
            &self,
            _: ArrayView2<'_, f64>,
            _: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            Ok(v.mapv(|v| -v))
        }
    }

    /// Share of the samples within `radius` of each row of `memories`; a copy counts for the first.
    pub(super) fn shares(x: &Array2<f64>, memories: &Array2<f64>, radius: f64) -> Vec<f64> {
        let far = |a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>| (&a - &b).mapv(|d| d * d).sum().sqrt();
        let mut counts = vec![0.0; memories.nrows()];
        for x in x.outer_iter() {
            if let Some(i) = memories.outer_iter().position(|xi| far(x, xi) <= radius) {
                counts[i] += 1.0;
            }
        }
        counts.iter().map(|c| c / x.nrows() as f64).collect()
    }
}
