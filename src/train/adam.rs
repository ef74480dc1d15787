//! Adam and the moving average of weights, in one pass over memory.

use rayon::prelude::*;

use super::settings::{AdamSettings, Decay, EmaSettings};

/// Elements per task. Sums over a task have a fixed order, so that no result depends on the number of threads, and six
/// vectors of this length fit into the second-level cache.
const TASK: usize = 1 << 14;

/// State of the optimiser: everything that a step changes.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The weights, as in [`crate::net::Weights`].
    pub weights: Vec<f32>,
    /// Their moving average.
    pub ema: Vec<f32>,
    /// First moments of the gradient, for trained parameters alone.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl State {
    /// The state before the first step, in which the average equals the weights.
    pub fn new(weights: Vec<f32>, trained: usize) -> Self {
        Self { ema: weights.clone(), weights, first: vec![0.0; trained], second: vec![0.0; trained] }
    }

    /// The vectors with their names.
    pub(super) fn parts(&self) -> [(&'static str, &[f32]); 4] {
        [
            ("weights", &self.weights),
            ("ema", &self.ema),
            ("first moments", &self.first),
            ("second moments", &self.second),
        ]
    }
}

/// Factors of one step, common to all parameters.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// 1 - beta1.
    pub(super) first: f32,
    /// beta2.
    pub(super) second: f32,
    /// 1 - beta2.
    pub(super) square: f32,
    /// Learning rate over the first moment's bias.
    pub(super) rate: f32,
    /// Root of the second moment's bias.
    pub(super) root: f32,
    pub(super) epsilon: f32,
    /// Weight of the new weights in the average.
    pub(super) share: f32,
    /// Largest norm of the gradient.
    pub(super) clip: f64,
}

impl Factors {
    /// The factors of step `step`, counted from 1, of `steps`.
    pub fn new(adam: &AdamSettings, ema: &EmaSettings, step: u64, steps: u64) -> Self {
        let n = step as f64;
        let fall = match adam.decay {
            Decay::None => 1.0,
            Decay::Cosine => {
                0.5 * (1.0 + libm::cos(std::f64::consts::PI * (n - 1.0) / (steps.max(2) - 1) as f64))
            }
        };
        let keep = if ema.warm_up { ema.decay.min((1.0 + n) / (10.0 + n)) } else { ema.decay };
        Self {
            first: (1.0 - adam.beta1) as f32,
            second: adam.beta2 as f32,
            square: (1.0 - adam.beta2) as f32,
            rate: (fall * adam.learning_rate / (1.0 - libm::pow(adam.beta1, n))) as f32,
            root: libm::sqrt(1.0 - libm::pow(adam.beta2, n)) as f32,
            epsilon: adam.epsilon as f32,
            share: (1.0 - keep) as f32,
            clip: adam.clip,
        }
    }

    /// Factor for a gradient of this norm: at most 1, else clip / (norm + 1e-6), as in PyTorch.
    pub(super) fn scale(&self, norm: f64) -> f64 {
        (self.clip / (norm + 1e-6)).min(1.0)
    }

    /// Takes the step with a gradient of this norm.
    pub fn step(&self, state: &mut State, gradient: &[f32], norm: f64) {
        let scale = self.scale(norm) as f32;
        let n = gradient.len();
        state.weights[..n]
            .par_chunks_mut(TASK)
            .zip(state.ema[..n].par_chunks_mut(TASK))
            .zip(state.first.par_chunks_mut(TASK))
            .zip(state.second.par_chunks_mut(TASK))
            .zip(gradient.par_chunks(TASK))
            .for_each(|((((w, e), m), v), g)| {
                pulp::Arch::new().dispatch(|| self.update(scale, w, e, m, v, g));
            });
    }

    #[inline(always)]
    fn update(&self, scale: f32, w: &mut [f32], e: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for ((((w, e), m), v), g) in w.iter_mut().zip(e).zip(m).zip(v).zip(g) {
            let g = scale * g;
            *m += self.first * (g - *m);
            *v = self.second * *v + self.square * g * g;
            *w -= self.rate * (*m / (v.sqrt() / self.root + self.epsilon));
            *e += self.share * (*w - *e);
        }
    }
}

/// Sum of squares, in an order that does not depend on the number of threads.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    #[inline(always)]
    fn task(values: &[f32]) -> f64 {
        let mut sums = [0.0f64; LANES];
        let mut whole = values.chunks_exact(LANES);
        for lanes in whole.by_ref() {
            for (s, &v) in sums.iter_mut().zip(lanes) {
                *s += f64::from(v) * f64::from(v);
            }
        }
        for (s, &v) in sums.iter_mut().zip(whole.remainder()) {
            *s += f64::from(v) * f64::from(v);
        }
        sums.iter().sum()
    }
    if values.len() <= TASK {
        return pulp::Arch::new().dispatch(|| task(values));
    }
    let parts: Vec<f64> =
        values.par_chunks(TASK).map(|part| pulp::Arch::new().dispatch(|| task(part))).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// Adam in f64, as its paper has it, with the clip and the average.
    struct Plain {
        w: Vec<f64>,
        e: Vec<f64>,
        m: Vec<f64>,
        v: Vec<f64>,
    }

    impl Plain {
        fn step(&mut self, a: &AdamSettings, keep: f64, rate: f64, n: i32, gradient: &[f32]) {
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let scale = (a.clip / (norm + 1e-6)).min(1.0);
            for (i, &g) in gradient.iter().enumerate() {
                let g = scale * f64::from(g);
                self.m[i] = a.beta1 * self.m[i] + (1.0 - a.beta1) * g;
                self.v[i] = a.beta2 * self.v[i] + (1.0 - a.beta2) * g * g;
                let (m, v) = (self.m[i] / (1.0 - a.beta1.powi(n)), self.v[i] / (1.0 - a.beta2.powi(n)));
                self.w[i] -= rate * m / (v.sqrt() + a.epsilon);
                self.e[i] = keep * self.e[i] + (1.0 - keep) * self.w[i];
            }
        }
    }

    fn gradient(n: usize, step: u64, scale: f64) -> Vec<f32> {
        let mut s = Stream::new(step, "gradient");
        (0..n).map(|_| (scale * s.normal()) as f32).collect()
    }

    #[test]
    fn steps_agree_with_the_plain_formulas() {
        let (n, steps) = (TASK + 37, 20u64);
        let start: Vec<f32> = gradient(n, 99, 0.1);
        for (decay, warm_up) in [(Decay::None, false), (Decay::Cosine, true)] {
            let adam = AdamSettings { learning_rate: 1e-3, decay, ..AdamSettings::default() };
            let ema = EmaSettings { decay: 0.99, warm_up };
            // Two numbers that are not trained stay as they are.
            let mut state = State::new([&start[..], &[7.0, 8.0]].concat(), n);
            let w: Vec<f64> = start.iter().map(|&w| f64::from(w)).collect();
            let mut plain = Plain { e: w.clone(), w, m: vec![0.0; n], v: vec![0.0; n] };
            for step in 1..=steps {
                // Small gradients are left alone, large ones clipped.
                let g = gradient(n, step, if step % 3 == 0 { 1e-4 } else { 1.0 });
                Factors::new(&adam, &ema, step, steps).step(&mut state, &g, sum_of_squares(&g).sqrt());
                let x = step as f64;
                let keep = if warm_up { 0.99f64.min((1.0 + x) / (10.0 + x)) } else { 0.99 };
                let fall = match decay {
                    Decay::None => 1.0,
                    Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (x - 1.0) / 19.0).cos()),
                };
                plain.step(&adam, keep, fall * 1e-3, step as i32, &g);
            }
            for i in 0..n {
                // A step moves by at most the rate, of which each has a few roundings; and the sums round.
                let tolerance =
                    steps as f64 * (1e-3 * 1e-6 + 6e-8 * f64::from(state.weights[i]).abs()) + 1e-9;
                assert!((f64::from(state.weights[i]) - plain.w[i]).abs() < tolerance, "{i}");
                assert!((f64::from(state.ema[i]) - plain.e[i]).abs() < tolerance, "{i}");
                assert!((f64::from(state.second[i]) / plain.v[i] - 1.0).abs() < 1e-5, "{i}");
            }
            assert_eq!((&state.weights[n..], &state.ema[n..]), (&[7.0, 8.0][..], &[7.0, 8.0][..]));
        }
    }

    #[test]
    fn threads_do_not_show() {
        let n = 5 * TASK + 11;
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut state = State::new(gradient(n, 1, 0.1), n);
                for step in 1..=3 {
                    let g = gradient(n, step, 1.0);
                    let factors = Factors::new(&AdamSettings::default(), &EmaSettings::default(), step, 3);
                    factors.step(&mut state, &g, sum_of_squares(&g).sqrt());
                }
                state
            })
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn squares_are_summed() {
        for n in [0, 1, 15, 17, TASK, TASK + 1, 3 * TASK + 5] {
            let values = gradient(n, 4, 1e25);
            let plain: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
            // Single precision would overflow. Sums of f64 in two orders.
            assert!((sum_of_squares(&values) - plain).abs() <= 1e-13 * plain, "{n}");
        }
        assert!(sum_of_squares(&[1.0, f32::NAN]).is_nan());
        assert!(sum_of_squares(&[1.0, f32::INFINITY]).is_infinite());
    }
}
