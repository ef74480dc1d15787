use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, concatenate, s};

use super::{Rk45, SampleError, Solution, check_streams};
use crate::process::{Level, Process};
use crate::progress::ProgressSink;
use crate::random::Streams;
use crate::score::{Density, Probe, Score, ScoreError, check_rows, check_shape};
use crate::setting::SettingError;

/// The probability-flow equation dx/dt = f x - (1/2) g^2 score, whose trajectories have the densities p_t.
///
/// ```
/// use mem2gen::process::Ve;
/// use mem2gen::progress::Silent;
/// use mem2gen::sample::{Divergence, Flow, Prior, Rk45Settings};
/// use mem2gen::score::Gaussian;
/// use ndarray::array;
///
/// // Data N(0, 1/4): the density at t = 0.75 is N(0, 1).
/// let score = Gaussian::new(array![0.0], array![0.25])?;
/// let ve = Ve::default();
/// let flow = Flow { score: &score, process: &ve, solver: Rk45Settings::default().check()? };
/// let x = array![[0.5]];
/// let likelihood =
///     flow.log_density(x.view(), 0.75, Prior::Known(&score), Divergence::Exact, &Silent)?;
/// let expected = -0.125 - 0.5 * std::f64::consts::TAU.ln();
/// assert!((likelihood.log_density[0] - expected).abs() < 1e-3);
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// The score of p_t.
    pub score: &'a dyn Score,
    /// The process of the score.
    pub process: &'a dyn Process,
    /// The integrator.
    pub solver: Rk45,
}

/// The density at T in a likelihood.
#[derive(Clone, Copy)]
pub enum Prior<'a> {
    /// The Gaussian from which samplers start, as in the paper: N(0, I) for VP; N(0, sigma^2 T I) for VE, which lacks the
    /// variance of the data and so biases the likelihood.
    Gaussian,
    /// A known density, such as the true mixture.
    Known(&'a dyn Density),
}

/// Computation of the divergence of the score.
pub enum Divergence<'a> {
    /// The exact divergence.
    Exact,
    /// Hutchinson's estimate, with directions that are drawn once for a whole trajectory.
    Hutchinson {
        /// Number of directions per sample, at least 2 for a standard error.
        probes: usize,
        /// Distribution of the directions.
        probe: Probe,
        /// One stream for each sample.
        streams: &'a mut Streams,
    },
}

/// Log-likelihoods of m samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// log p_t(x) in nats, `[m]`.
    pub log_density: Array1<f64>,
    /// Standard error of each, from the standard deviation over directions, `[m]`; `None` for an exact divergence.
    pub standard_error: Option<Array1<f64>>,
    /// End point of each trajectory at T, `[m, N]`.
    pub end: Array2<f64>,
    /// Number of steps that each trajectory tried, `[m]`.
    pub steps: Vec<usize>,
}

impl Flow<'_> {
    const NAME: &'static str = "probability flow";

    /// Integrates from `x` `[m, N]` at one time to another; from T to a small time this draws samples. Reports one step of
    /// progress for each finished trajectory.
    ///
    /// # Errors
    /// [`SampleError`] for a wrong shape, times outside the range of the process, errors of the score, values that are not
    /// finite, and an integration that does not reach its end.
    pub fn carry(
        &self,
        x: Array2<f64>,
        (from, to): (f64, f64),
        progress: &dyn ProgressSink,
    ) -> Result<Solution, SampleError> {
        check_rows(Self::NAME, "x", &x.view(), (x.nrows(), self.score.dim()))?;
        self.process.level(from)?;
        self.process.level(to)?;
        let slope = |rows: &[usize], t: &[f64], x: ArrayView2<'_, f64>| {
            let levels = self.levels(t)?;
            self.velocity(&levels, x, self.score.score(x, &levels).map_err(|e| sample_of(e, rows))?)
        };
        self.solver.integrate(x, (from, to), slope, progress)
    }

    /// log p_t of the points `x` `[m, N]` at time t: log p_T at the end of the flow plus the integral of its divergence.
    /// Reports one step of progress for each finished trajectory.
    ///
    /// # Errors
    /// As [`Self::carry`]; [`SampleError::Streams`], and [`SampleError::Setting`] for fewer than 2 probes.
    pub fn log_density(
        &self,
        x: ArrayView2<'_, f64>,
        t: f64,
        prior: Prior<'_>,
        divergence: Divergence<'_>,
        progress: &dyn ProgressSink,
    ) -> Result<Likelihood, SampleError> {
        let (m, n) = (x.nrows(), self.score.dim());
        check_rows(Self::NAME, "x", &x, (m, n))?;
        self.process.level(t)?;
        let directions = match divergence {
            Divergence::Exact => Vec::new(),
            Divergence::Hutchinson { probes, probe, streams } => {
                check_streams(Self::NAME, streams, m)?;
                if probes < 2 {
                    return Err(SettingError::new(Self::NAME, "probes", probes, "at least 2").into());
                }
                (0..probes).map(|_| probe.draw(streams, n)).collect()
            }
        };
        // The state is x and one integral of the divergence for each direction.
        let integrals = directions.len().max(1);
        let y = concatenate![Axis(1), x, Array2::zeros((m, integrals))];
        let slope = |rows: &[usize], t: &[f64], y: ArrayView2<'_, f64>| {
            let x = y.slice(s![.., ..n]);
            let levels = self.levels(t)?;
            let both = if directions.is_empty() {
                let both = self.score.score_and_divergence(x, &levels);
                both.map(|(score, trace)| (score, trace.insert_axis(Axis(1))))
            } else {
                let own: Vec<Array2<f64>> = directions.iter().map(|d| d.select(Axis(0), rows)).collect();
                self.score.score_and_terms(x, &levels, &own)
            };
            let (score, mut traces) = both.map_err(|e| sample_of(e, rows))?;
            for (mut row, level) in traces.outer_iter_mut().zip(&levels) {
                let c = self.process.coefficients(level.t())?;
                row.mapv_inplace(|trace| c.drift * n as f64 - 0.5 * c.diffusion * c.diffusion * trace);
            }
            Ok(concatenate![Axis(1), self.velocity(&levels, x, score)?, traces])
        };
        let end = self.process.horizon();
        let Solution { y, steps } = self.solver.integrate(y, (t, end), slope, progress)?;
        let (x, integral) = (y.slice(s![.., ..n]).to_owned(), y.slice(s![.., n..]));
        let mut log_density = self.prior(prior, x.view())?;
        log_density.zip_mut_with(&(integral.sum_axis(Axis(1)) / integrals as f64), |log, i| *log += i);
        let standard_error =
            (integrals > 1).then(|| integral.std_axis(Axis(1), 1.0) / (integrals as f64).sqrt());
        Ok(Likelihood { log_density, standard_error, end: x, steps })
    }

    fn prior(&self, prior: Prior<'_>, x: ArrayView2<'_, f64>) -> Result<Array1<f64>, SampleError> {
        match prior {
            Prior::Gaussian => {
                let variance = self.process.prior_scale().powi(2);
                let norm = 0.5 * x.ncols() as f64 * (TAU * variance).ln();
                Ok(x.outer_iter().map(|x| -0.5 * x.dot(&x) / variance - norm).collect())
            }
            Prior::Known(density) => {
                check_rows(Self::NAME, "x", &x, (x.nrows(), density.dim()))?;
                let level = self.process.level(self.process.horizon())?;
                Ok(density.log_density(x, &vec![level; x.nrows()])?)
            }
        }
    }

    fn levels(&self, t: &[f64]) -> Result<Vec<Level>, SampleError> {
        Ok(t.iter().map(|&t| self.process.level(t)).collect::<Result<_, _>>()?)
    }

    /// Replaces the score of each row by dx/dt.
    fn velocity(
        &self,
        levels: &[Level],
        x: ArrayView2<'_, f64>,
        mut out: Array2<f64>,
    ) -> Result<Array2<f64>, SampleError> {
        check_shape(Self::NAME, "score", &out.view(), x.dim())?;
        let rates = levels.iter().map(|l| self.process.coefficients(l.t())).collect::<Result<Vec<_>, _>>()?;
        Zip::from(out.rows_mut()).and(x.rows()).and(&rates).par_for_each(|mut out, x, c| {
            out.zip_mut_with(&x, |s, x| *s = c.drift * x - 0.5 * c.diffusion * c.diffusion * *s);
        });
        Ok(out)
    }
}

/// An error of the score, with its row among unfinished trajectories replaced by the sample.
fn sample_of(error: ScoreError, rows: &[usize]) -> ScoreError {
    match error {
        ScoreError::NotFinite { operation, row, t, value } => {
            ScoreError::NotFinite { operation, row: rows[row], t, value }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::toy;
    use crate::ops::Memories;
    use crate::process::{Ve, Vp};
    use crate::progress::Silent;
    use crate::sample::tests::{Broken, shares};
    use crate::sample::{Rk45Settings, start};
    use crate::score::{Empirical, Gaussian, Ring};
    use ndarray::array;

    const EPS: f64 = 1e-5;

    /// Data N(0, 1/4 I) in the plane at a point of norm 1/2: -0.9516 exactly, and -0.8535 with the paper's
    /// prior N(0, I), which lacks the data's variance at T.
    #[test]
    fn the_prior_has_the_bias_of_the_paper() {
        let score = Gaussian::new(array![0.0, 0.0], array![0.25, 0.25]).unwrap();
        let ve = Ve::default();
        let flow = Flow { score: &score, process: &ve, solver: Rk45::default() };
        let x = array![[0.3, 0.4], [-0.5, 0.0]];
        let exact = score.log_density(x.view(), &[ve.level(EPS).unwrap(); 2]).unwrap();
        let known =
            flow.log_density(x.view(), EPS, Prior::Known(&score), Divergence::Exact, &Silent).unwrap();
        let paper = flow.log_density(x.view(), EPS, Prior::Gaussian, Divergence::Exact, &Silent).unwrap();
        for i in 0..2 {
            assert!((exact[i] + 0.9516).abs() < 6e-5, "{exact}");
            // Ten times the integrator's tolerance.
            assert!((known.log_density[i] - exact[i]).abs() < 1e-4, "{known:?}");
            assert!((paper.log_density[i] + 0.8535).abs() < 1e-4, "{paper:?}");
            // The flow keeps x over the standard deviation.
            assert!((known.end[[i, 0]] - x[[i, 0]] * (1.25 / (0.25 + EPS)).sqrt()).abs() < 1e-4);
        }
        assert!(known.standard_error.is_none());
    }

    #[test]
    fn likelihoods_of_a_mixture_and_the_ring_are_their_densities() {
        let rows = toy::points(9).unwrap();
        let empirical = Empirical::new(Memories::new(rows.clone()).unwrap());
        let (ve, vp) = (Ve::default(), Vp::default());
        let x = array![[0.8, -0.3], [-0.7, 0.7], [0.1, 0.0], [1.5, 1.5]];
        let solver = Rk45Settings { rtol: 1e-8, atol: 1e-8, ..Rk45Settings::default() }.check().unwrap();
        let cases: [(&dyn Score, &dyn Density, &dyn Process, f64); 4] = [
            (&empirical, &empirical, &ve, 0.05),
            (&empirical, &empirical, &vp, 200.0),
            (&Ring, &Ring, &ve, 0.02),
            (&Ring, &Ring, &vp, 100.0),
        ];
        for (score, density, process, t) in cases {
            let flow = Flow { score, process, solver };
            let direct = density.log_density(x.view(), &[process.level(t).unwrap(); 4]).unwrap();
            let got =
                flow.log_density(x.view(), t, Prior::Known(density), Divergence::Exact, &Silent).unwrap();
            for i in 0..4 {
                let error = (got.log_density[i] - direct[i]).abs();
                assert!(error < 1e-5 * (1.0 + direct[i].abs()), "{t} {i}: {error:e}");
            }
        }
        // On the mixture at small t as the paper has it: its tolerances, and log-sum-exp at eps.
        let near = &rows + 1e-3;
        let flow = Flow { score: &empirical, process: &ve, solver: Rk45::default() };
        let direct = empirical.log_density(near.view(), &vec![ve.level(EPS).unwrap(); 9]).unwrap();
        let got =
            flow.log_density(near.view(), EPS, Prior::Known(&empirical), Divergence::Exact, &Silent).unwrap();
        assert!(
            (&got.log_density - &direct).iter().all(|d| d.abs() < 2e-3),
            "{:?}",
            &got.log_density - &direct
        );
    }

    #[test]
    fn hutchinson_gives_the_exact_value_within_its_standard_error() {
        let rows = toy::points(4).unwrap();
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let ve = Ve::default();
        let flow = Flow { score: &score, process: &ve, solver: Rk45::default() };
        let x = array![[0.8, -0.3], [-0.7, 0.6], [0.2, 0.1]];
        let exact = flow
            .log_density(x.view(), 0.05, Prior::Gaussian, Divergence::Exact, &Silent)
            .unwrap()
            .log_density;
        for probe in [Probe::Rademacher, Probe::Gaussian] {
            let mut streams = Streams::new(1, "likelihood", 0..3);
            let divergence = Divergence::Hutchinson { probes: 200, probe, streams: &mut streams };
            let got = flow.log_density(x.view(), 0.05, Prior::Gaussian, divergence, &Silent).unwrap();
            let errors = got.standard_error.unwrap();
            for i in 0..3 {
                let off = (got.log_density[i] - exact[i]).abs();
                assert!(off < 4.0 * errors[i], "{probe:?} {i}: {off} {errors}");
            }
        }
        let mut streams = Streams::new(1, "likelihood", 0..3);
        let one = Divergence::Hutchinson { probes: 1, probe: Probe::Gaussian, streams: &mut streams };
        let e = flow.log_density(x.view(), 0.05, Prior::Gaussian, one, &Silent).unwrap_err();
        assert!(
            matches!(e, SampleError::Setting(SettingError { ref setting, .. }) if setting == "probes"),
            "{e}"
        );
    }

    /// For data N(0, v I) every direction u gives c |u|^2 with c = (1/2) log((v + T) / (v + t)): the same for
    /// all signs, and of variance 2 N c^2 for normal u.
    #[test]
    fn the_standard_error_is_that_of_the_closed_form() {
        let score = Gaussian::new(array![0.0, 0.0], array![0.25, 0.25]).unwrap();
        let ve = Ve::default();
        let flow = Flow { score: &score, process: &ve, solver: Rk45::default() };
        let x = array![[0.3, 0.4]];
        let probes = 1600;
        let run = |probe| {
            let mut streams = Streams::new(1, "closed form", 0..1);
            let divergence = Divergence::Hutchinson { probes, probe, streams: &mut streams };
            flow.log_density(x.view(), EPS, Prior::Known(&score), divergence, &Silent).unwrap()
        };
        let signs = run(Probe::Rademacher);
        assert!((signs.log_density[0] + 0.9516).abs() < 2e-4, "{signs:?}");
        assert!(signs.standard_error.unwrap()[0] < 1e-12);
        let c = 0.5 * (1.25f64 / (0.25 + EPS)).ln();
        let expected = c * (4.0 / probes as f64).sqrt();
        // The kurtosis is 9, so the error of 1600 is known to 3.5 percent: four of that.
        let got = run(Probe::Gaussian).standard_error.unwrap()[0];
        assert!((got / expected - 1.0).abs() < 0.14, "{got} {expected}");
    }

    #[test]
    fn the_flow_of_the_exact_score_ends_on_the_memories() {
        let rows = array![[0.9, 0.1], [-0.6, 0.7], [-0.2, -0.8]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let (ve, vp) = (Ve::default(), Vp::default());
        let processes: [(&dyn Process, f64); 2] = [(&ve, EPS), (&vp, 0.0)];
        for (process, end) in processes {
            let m = 400;
            let mut streams = Streams::new(3, "flow", 0..m);
            let x = start(process, 2, &mut streams);
            let flow = Flow { score: &score, process, solver: Rk45::default() };
            let got = flow.carry(x.clone(), (process.horizon(), end), &Silent).unwrap();
            // Within six standard deviations of the noise that is left.
            let radius = 6.0 * process.level(end).unwrap().sigma();
            let total: f64 = shares(&got.y, &rows, radius).iter().sum();
            assert!((total - 1.0).abs() < 1e-12, "{total}");
            // A smooth beta(t): steps are far longer than those between levels.
            assert!(got.steps.iter().all(|s| *s < 100), "{:?}", got.steps);
            let part =
                flow.carry(x.slice(s![7..9, ..]).to_owned(), (process.horizon(), end), &Silent).unwrap();
            assert_eq!(part.y, got.y.slice(s![7..9, ..]));
            assert_eq!(part.steps, got.steps[7..9]);
        }
    }

    #[test]
    fn the_flow_is_reversible() {
        let rows = array![[0.9, 0.1], [-0.6, 0.7]];
        let score = Empirical::new(Memories::new(rows.clone()).unwrap());
        let vp = Vp::default();
        let solver = Rk45Settings { rtol: 1e-9, atol: 1e-9, ..Rk45Settings::default() }.check().unwrap();
        let flow = Flow { score: &score, process: &vp, solver };
        let x = array![[0.3, -1.2], [1.1, 0.4]];
        let there = flow.carry(x.clone(), (999.0, 50.0), &Silent).unwrap();
        let back = flow.carry(there.y, (50.0, 999.0), &Silent).unwrap();
        // The flow contracts by about 1/0.17, and the way back expands errors by that.
        assert!((back.y - x).iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn errors_name_the_argument() {
        let ve = Ve::default();
        let broken = Broken { sample: 1, below: 0.5 };
        let flow = Flow { score: &broken, process: &ve, solver: Rk45::default() };
        let e = flow.carry(Array2::ones((3, 2)), (1.0, EPS), &Silent).unwrap_err();
        assert!(matches!(e, SampleError::NotFinite { sample: 1, t, .. } if t < 0.5), "{e}");
        for times in [(1.0, -0.1), (2.0, EPS), (1.0, f64::NAN)] {
            let e = flow.carry(Array2::ones((3, 2)), times, &Silent).unwrap_err();
            assert!(matches!(e, SampleError::Process(_)), "{e}");
        }
        // Clean data has no score.
        let gaussian = Gaussian::new(array![0.0, 0.0], array![1.0, 1.0]).unwrap();
        let flow = Flow { score: &gaussian, process: &ve, solver: Rk45::default() };
        assert!(matches!(flow.carry(Array2::ones((3, 2)), (1.0, 0.0), &Silent), Err(SampleError::Score(_))));
        let e = flow.log_density(array![[1.0]].view(), EPS, Prior::Gaussian, Divergence::Exact, &Silent);
        assert!(matches!(e, Err(SampleError::Op(_))));
        let other = Gaussian::new(array![0.0], array![1.0]).unwrap();
        let x = array![[1.0, 0.0]];
        let e = flow.log_density(x.view(), EPS, Prior::Known(&other), Divergence::Exact, &Silent);
        assert!(matches!(e, Err(SampleError::Op(_))));
    }
}
