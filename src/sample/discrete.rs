use ndarray::{Array2, Zip};

use super::{SampleError, add_noise, check_step, check_streams, score_at};
use crate::process::{Level, Prediction, Steps};
use crate::progress::ProgressSink;
use crate::random::Streams;
use crate::score::{Score, check_rows};
use crate::setting::SettingError;

/// DDPM's ancestral sampling from `x` `[m, N]` at the first level to the last: each step draws from p(x_s | x_t, x_0) for
/// the predicted x_0, with the variance that DDPM calls "fixed_small".
///
/// `clip` bounds each coordinate of the predicted x_0 to [-clip, clip]; the paper has 1. A step to clean data has no noise.
/// Reports one step of progress for each step of the whole batch.
///
/// # Errors
/// [`SampleError`] for a wrong shape or number of streams, a clip that is not positive, errors of the score, and values that
/// are not finite.
pub fn ancestral(
    score: &dyn Score,
    steps: &Steps,
    x: Array2<f64>,
    clip: Option<f64>,
    streams: &mut Streams,
    progress: &dyn ProgressSink,
) -> Result<Array2<f64>, SampleError> {
    const NAME: &str = "ancestral sampling";
    check_streams(NAME, streams, x.nrows())?;
    let noise = |x: &mut Array2<f64>, t: Level, s: Level| {
        if !s.is_clean() {
            add_noise(x, t.posterior(s).variance.sqrt(), streams);
        }
    };
    let step = |t: Level, s: Level| {
        let posterior = t.posterior(s);
        move |x, x0, _| posterior.x0 * x0 + posterior.x * x
    };
    walk(NAME, score, steps, x, clip, progress, step, noise)
}

/// DDIM without noise (eta = 0) from `x` `[m, N]` at the first level to the last: each step computes
/// alpha_s x_0 + sigma_s epsilon from the predicted x_0 and epsilon.
///
/// `clip` bounds each coordinate of the predicted x_0 to [-clip, clip]; epsilon is not changed, as in the diffusers
/// package. Reports one step of progress for each step of the whole batch.
///
/// ```
/// use mem2gen::process::{Spacing, Vp};
/// use mem2gen::progress::Silent;
/// use mem2gen::sample::ddim;
/// use mem2gen::score::Gaussian;
/// use ndarray::array;
///
/// // Data at one point: every sample ends there.
/// let score = Gaussian::new(array![0.5, -0.25], array![0.0, 0.0])?;
/// let steps = Vp::default().steps(50, Spacing::Linspace)?;
/// let x = ddim(&score, &steps, array![[1.0, 2.0]], Some(1.0), &Silent)?;
/// assert!((x[[0, 0]] - 0.5).abs() < 1e-9 && (x[[0, 1]] + 0.25).abs() < 1e-9);
/// # Ok::<(), mem2gen::Error>(())
/// ```
///
/// # Errors
/// As [`ancestral`].
pub fn ddim(
    score: &dyn Score,
    steps: &Steps,
    x: Array2<f64>,
    clip: Option<f64>,
    progress: &dyn ProgressSink,
) -> Result<Array2<f64>, SampleError> {
    let step = |_, s: Level| move |_, x0, epsilon| s.perturb(x0, epsilon);
    walk("DDIM", score, steps, x, clip, progress, step, |_, _, _| ())
}

/// The loop of both samplers. `step(t, s)` computes the sample at s from x, the predicted x_0 and epsilon at t, and `noise`
/// then adds noise.
#[expect(clippy::too_many_arguments, reason = "private, and called in two places")]
fn walk<F: Fn(f64, f64, f64) -> f64 + Sync>(
    sampler: &'static str,
    score: &dyn Score,
    steps: &Steps,
    mut x: Array2<f64>,
    clip: Option<f64>,
    progress: &dyn ProgressSink,
    step: impl Fn(Level, Level) -> F,
    mut noise: impl FnMut(&mut Array2<f64>, Level, Level),
) -> Result<Array2<f64>, SampleError> {
    check_rows(sampler, "x", &x.view(), (x.nrows(), score.dim()))?;
    if let Some(value) = clip.filter(|c| !(*c > 0.0 && c.is_finite())) {
        let need = "a finite number above 0";
        return Err(SettingError::new(sampler, "clip", value, need).into());
    }
    let most = clip.unwrap_or(f64::INFINITY);
    for (i, pair) in steps.levels().windows(2).enumerate() {
        let (t, s) = (pair[0], pair[1]);
        let scores = score_at(sampler, score, x.view(), t, i)?;
        let step = step(t, s);
        Zip::from(&mut x).and(&scores).par_for_each(|x, &score| {
            let epsilon = t.convert(0.0, score, Prediction::Score, Prediction::Epsilon);
            let x0 = t.convert(*x, epsilon, Prediction::Epsilon, Prediction::X0).clamp(-most, most);
            *x = step(*x, x0, epsilon);
        });
        noise(&mut x, t, s);
        check_step(sampler, &x, t, i)?;
        progress.advance(1);
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::{Process, Spacing, Vp};
    use crate::progress::Silent;
    use crate::sample::start;
    use crate::sample::tests::{Broken, shares};
    use crate::score::{Empirical, Gaussian};
    use ndarray::{array, s};

    #[test]
    fn the_exact_score_gives_the_memories_in_their_shares() {
        // The third memory occurs twice, so it has half of the weight.
        let rows = array![[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8], [-0.2, -0.8]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let vp = Vp::default();
        let m = 1500;
        let mut streams = Streams::new(1, "ancestral", 0..m);
        let x = start(&vp, 2, &mut streams);
        let every = vp.steps(1000, Spacing::Leading).unwrap();
        let drawn = ancestral(&score, &every, x.clone(), Some(1.0), &mut streams, &Silent).unwrap();
        // Four standard deviations of a share of 1/2 in 1500: 0.052.
        for (share, expected) in shares(&drawn, &rows, 1e-3).iter().zip([0.25, 0.25, 0.5]) {
            assert!((share - expected).abs() < 0.052, "ancestral {share} {expected}");
        }
        for (n, spacing) in [(200, Spacing::Linspace), (250, Spacing::Leading)] {
            let steps = vp.steps(n, spacing).unwrap();
            let drawn = ddim(&score, &steps, x.clone(), None, &Silent).unwrap();
            for (share, expected) in shares(&drawn, &rows, 1e-3).iter().zip([0.25, 0.25, 0.5]) {
                assert!((share - expected).abs() < 0.052, "{spacing:?} {share} {expected}");
            }
        }
    }

    #[test]
    fn ancestral_samples_of_gaussian_data_have_its_moments() {
        let score = Gaussian::new(array![0.3, -0.2], array![0.04, 0.25]).unwrap();
        let vp = Vp::default();
        let m = 2000;
        let mut streams = Streams::new(2, "moments", 0..m);
        let x = start(&vp, 2, &mut streams);
        let steps = vp.steps(1000, Spacing::Linspace).unwrap();
        let x = ancestral(&score, &steps, x, None, &mut streams, &Silent).unwrap();
        for (k, (mean, variance)) in [(0.3, 0.04f64), (-0.2, 0.25)].into_iter().enumerate() {
            let (got, spread) = (x.column(k).mean().unwrap(), x.column(k).var(1.0));
            let root = (m as f64).sqrt();
            assert!((got - mean).abs() < 4.0 * variance.sqrt() / root, "{got} {mean}");
            // "fixed_small" is the lower bound of the variance; over 1000 steps it costs under 2 percent.
            assert!(
                (spread / variance - 1.0).abs() < 0.02 + 4.0 * 2.0f64.sqrt() / root,
                "{spread} {variance}"
            );
        }
    }

    #[test]
    fn one_ddim_step_and_many_agree_with_the_flow_of_a_gaussian() {
        // The flow of N(mu, v) keeps (x - alpha mu) / sqrt(alpha^2 v + sigma^2).
        let score = Gaussian::new(array![0.4], array![0.3]).unwrap();
        let vp = Vp::default();
        let x = array![[1.3], [-0.4]];
        let from = vp.level(999.0).unwrap();
        let z = (&x - from.alpha() * 0.4) / (from.alpha().powi(2) * 0.3 + from.sigma().powi(2)).sqrt();
        let expected = z * 0.3f64.sqrt() + 0.4;
        let mut errors = Vec::new();
        for n in [50, 100, 200] {
            let steps = vp.steps(n, Spacing::Linspace).unwrap();
            let got = ddim(&score, &steps, x.clone(), None, &Silent).unwrap();
            errors.push((got - &expected).mapv(f64::abs).sum());
        }
        // First order: twice the steps, half the error.
        assert!(errors[0] < 0.1 && errors.windows(2).all(|e| e[1] < 0.65 * e[0]), "{errors:?}");
    }

    #[test]
    fn the_last_step_has_no_noise_and_clipping_binds() {
        let score = Gaussian::new(array![0.0, 0.0], array![0.0, 0.0]).unwrap();
        let vp = Vp::default();
        let steps = Steps::at(&vp, &[0.0, -1.0]).unwrap();
        let x = array![[0.02, -0.01]];
        let mut streams = Streams::new(3, "last", 0..1);
        // Point data at 0: x0 is 0 exactly, whatever x.
        let got = ancestral(&score, &steps, x.clone(), None, &mut streams, &Silent).unwrap();
        assert!(got.iter().all(|v| v.abs() < 1e-15), "{got}");
        let far = Gaussian::new(array![3.0, -0.5], array![0.0, 0.0]).unwrap();
        let got = ddim(&far, &steps, x, Some(1.0), &Silent).unwrap();
        assert_eq!(got[[0, 0]], 1.0);
        assert!((got[[0, 1]] + 0.5).abs() < 1e-12);
    }

    #[test]
    fn samples_do_not_depend_on_their_batch_and_ddim_draws_no_noise() {
        let rows = array![[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let vp = Vp::default();
        let steps = vp.steps(20, Spacing::Leading).unwrap();
        let run = |range| {
            let mut streams = Streams::new(4, "batches", range);
            let x = start(&vp, 2, &mut streams);
            let a = ancestral(&score, &steps, x.clone(), Some(1.0), &mut streams, &Silent).unwrap();
            (a, ddim(&score, &steps, x, None, &Silent).unwrap())
        };
        let (all, part, again) = (run(0..600), run(13..17), run(0..600));
        assert_eq!(all.0.slice(s![13..17, ..]), part.0);
        assert_eq!(all.1.slice(s![13..17, ..]), part.1);
        assert_eq!(all, again);
    }

    #[test]
    fn errors_name_the_argument() {
        let vp = Vp::default();
        let steps = vp.steps(10, Spacing::Leading).unwrap();
        let x = || Array2::from_elem((3, 2), 0.1);
        let mut streams = Streams::new(0, "bad", 0..3);
        let broken = Broken { sample: 2, below: 500.0 };
        for e in [
            ddim(&broken, &steps, x(), None, &Silent).unwrap_err(),
            ancestral(&broken, &steps, x(), None, &mut streams, &Silent).unwrap_err(),
        ] {
            // Steps at 900 to 500 are finite; 400 is step 5.
            assert!(matches!(e, SampleError::NotFinite { sample: 2, step: 5, t: 400.0, .. }), "{e}");
        }
        let well = Gaussian::new(array![0.0, 0.0], array![1.0, 1.0]).unwrap();
        let mut two = Streams::new(0, "bad", 0..2);
        let e = ancestral(&well, &steps, x(), None, &mut two, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Streams { streams: 2, samples: 3, .. }));
        for clip in [0.0, -1.0, f64::NAN] {
            assert!(matches!(ddim(&well, &steps, x(), Some(clip), &Silent), Err(SampleError::Setting(_))));
        }
        assert!(matches!(ddim(&well, &steps, array![[1.0]], None, &Silent), Err(SampleError::Op(_))));
        assert!(matches!(ddim(&well, &steps, x() * f64::NAN, None, &Silent), Err(SampleError::Op(_))));
    }
}
