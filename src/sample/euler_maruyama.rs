use ndarray::{Array2, Zip};

use super::{SampleError, add_noise, check_step, check_streams, score_at};
use crate::process::{Process, Steps};
use crate::progress::ProgressSink;
use crate::random::Streams;
use crate::score::{Score, check_rows};

/// Euler-Maruyama integration of the reverse equation (Eq. 2), from `x` `[m, N]` at the first time to the last:
/// x - (f x - g^2 score) dt + g sqrt(dt) z. The last step has no noise.
///
/// `steps` are levels of `process`. The paper's toy sampler takes 1000 even steps from 1 to 0 and evaluates the score at
/// 1, ..., 0.001. Reports one step of progress for each step of the whole batch.
///
/// # Errors
/// As [`super::ancestral`]; [`SampleError::Process`] for times outside the range of the process.
pub fn euler_maruyama(
    score: &dyn Score,
    process: &dyn Process,
    steps: &Steps,
    mut x: Array2<f64>,
    streams: &mut Streams,
    progress: &dyn ProgressSink,
) -> Result<Array2<f64>, SampleError> {
    const NAME: &str = "Euler-Maruyama";
    check_streams(NAME, streams, x.nrows())?;
    check_rows(NAME, "x", &x.view(), (x.nrows(), score.dim()))?;
    let last = steps.levels().len() - 2;
    for (i, pair) in steps.levels().windows(2).enumerate() {
        let (t, dt) = (pair[0].t(), pair[0].t() - pair[1].t());
        let c = process.coefficients(t)?;
        let g2 = c.diffusion * c.diffusion;
        let s = score_at(NAME, score, x.view(), pair[0], i)?;
        Zip::from(&mut x).and(&s).par_for_each(|x, &s| *x -= (c.drift * *x - g2 * s) * dt);
        if i < last {
            add_noise(&mut x, c.diffusion * dt.sqrt(), streams);
        }
        check_step(NAME, &x, pair[0], i)?;
        progress.advance(1);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::{Ve, Vp};
    use crate::progress::Silent;
    use crate::sample::start;
    use crate::sample::tests::{Broken, shares};
    use crate::score::{Empirical, Gaussian};
    use ndarray::{array, s};

    #[test]
    fn the_exact_score_gives_the_memories() {
        let rows = array![[0.2, 0.1], [-0.6, 0.7]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let ve = Ve::default();
        let steps = Steps::even(&ve, 1.0, 0.0, 1000).unwrap();
        let m = 1500;
        let mut streams = Streams::new(1, "euler", 0..m);
        // From the true p_1, so that shares have no bias: a memory drawn evenly, and noise.
        let noise = start(&ve, 2, &mut streams);
        let x = Array2::from_shape_fn((m, 2), |(i, k)| rows[[i % 2, k]] + noise[[i, k]]);
        let got = euler_maruyama(&score, &ve, &steps, x, &mut streams, &Silent).unwrap();
        // Four standard deviations of a share of 1/2 in 1500. The last step goes from t = dt to the mean,
        // which is a memory.
        for share in shares(&got, &rows, 1e-3) {
            assert!((share - 0.5).abs() < 0.052, "{share}");
        }
    }

    #[test]
    fn the_reverse_equation_of_vp_gives_the_data() {
        let score = Gaussian::new(array![0.3], array![0.09]).unwrap();
        let vp = Vp::default();
        let steps = Steps::even(&vp, 999.0, -1.0, 1000).unwrap();
        let m = 3000;
        let mut streams = Streams::new(2, "euler", 0..m);
        let x = start(&vp, 1, &mut streams);
        let x = euler_maruyama(&score, &vp, &steps, x, &mut streams, &Silent).unwrap();
        let root = (m as f64).sqrt();
        assert!((x.mean().unwrap() - 0.3).abs() < 4.0 * 0.3 / root);
        // 1000 steps of first order.
        assert!((x.var(1.0) / 0.09 - 1.0).abs() < 0.03 + 4.0 * 2.0f64.sqrt() / root, "{}", x.var(1.0));
    }

    #[test]
    fn samples_do_not_depend_on_their_batch_and_errors_name_the_place() {
        let rows = array![[0.9, 0.1], [-0.6, 0.7]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let ve = Ve::default();
        let steps = Steps::even(&ve, 1.0, 0.5, 5).unwrap();
        let run = |range| {
            let mut streams = Streams::new(4, "batches", range);
            let x = start(&ve, 2, &mut streams);
            euler_maruyama(&score, &ve, &steps, x, &mut streams, &Silent).unwrap()
        };
        assert_eq!(run(0..90).slice(s![13..17, ..]), run(13..17));
        let mut streams = Streams::new(4, "batches", 0..4);
        let x = start(&ve, 2, &mut streams);
        let broken = Broken { sample: 3, below: 0.75 };
        let e = euler_maruyama(&broken, &ve, &steps, x.clone(), &mut streams, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::NotFinite { sample: 3, step: 3, .. }), "{e}");
        let other = Steps::even(&Vp::default(), 900.0, 0.0, 5).unwrap();
        let e = euler_maruyama(&score, &ve, &other, x, &mut streams, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Process(_)), "{e}");
    }
}
