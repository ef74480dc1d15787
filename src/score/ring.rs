use std::f64::consts::TAU;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{Density, Score, ScoreError, check, check_rows};
use crate::memory::ring;
use crate::process::Level;

/// The exact score of infinitely many memories, uniform on the unit circle (Eqs. 13 to 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ring;

/// Radius and first derivatives at x/alpha, in the units of x/alpha.
struct Radial {
    /// x/alpha.
    y: [f64; 2],
    radius: f64,
    /// Radial score over the radius: the eigenvalue of J along the circle, and the factor of y in the score.
    along: f64,
    /// Derivative of the radial score: the eigenvalue of J across the circle.
    across: f64,
}

impl Radial {
    fn at(x: ArrayView1<'_, f64>, level: Level) -> Self {
        let y = [x[0] / level.alpha(), x[1] / level.alpha()];
        let (radius, beta) = (y[0].hypot(y[1]), level.beta());
        let z = 2.0 * beta * radius;
        // A(z) = I_1/I_0 is z/2 near 0, and A' = 1 - A/z - A^2.
        let a = ring::ratio(z);
        let slope = if z < 1e-8 { 0.5 } else { a / z };
        let along = 2.0 * beta * (2.0 * beta * slope - 1.0);
        let across = 2.0 * beta * (2.0 * beta * (1.0 - slope - a * a) - 1.0);
        Self { y, radius, along, across }
    }
}

impl Score for Ring {
    fn dim(&self) -> usize {
        2
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        check("ring score", 2, &x, levels)?;
        let mut out = Array2::zeros(x.dim());
        for ((mut out, x), &level) in out.outer_iter_mut().zip(x.outer_iter()).zip(levels) {
            let r = Radial::at(x, level);
            for (out, y) in out.iter_mut().zip(r.y) {
                *out = r.along * y / level.alpha();
            }
        }
        Ok(out)
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check("ring score", 2, &x, levels)?;
        check_rows("ring score", "v", &v, x.dim())?;
        let mut out = Array2::zeros(x.dim());
        for (i, mut out) in out.outer_iter_mut().enumerate() {
            let (r, v) = (Radial::at(x.row(i), levels[i]), v.row(i));
            let unit = r.y.map(|y| if r.radius > 0.0 { y / r.radius } else { 0.0 });
            let project = unit[0] * v[0] + unit[1] * v[1];
            for k in 0..2 {
                let value = r.along * v[k] + (r.across - r.along) * project * unit[k];
                out[k] = value / levels[i].alpha().powi(2);
            }
        }
        Ok(out)
    }

    fn divergence(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        check("ring score", 2, &x, levels)?;
        let trace = |(x, level): (ArrayView1<'_, f64>, &Level)| {
            let r = Radial::at(x, *level);
            (r.along + r.across) / level.alpha().powi(2)
        };
        Ok(x.outer_iter().zip(levels).map(trace).collect())
    }
}

impl Density for Ring {
    fn dim(&self) -> usize {
        2
    }

    fn log_density(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array1<f64>, ScoreError> {
        check("ring density", 2, &x, levels)?;
        let mut out = Array1::zeros(x.nrows());
        for ((out, x), level) in out.iter_mut().zip(x.outer_iter()).zip(levels) {
            let radius = x[0].hypot(x[1]) / level.alpha();
            let norm = (TAU * level.sigma().powi(2)).ln();
            *out = -level.beta() * ring::energy(radius, level.beta())? - norm;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::process::{Process, Ve, Vp};
    use crate::score::Empirical;
    use ndarray::array;

    #[test]
    fn many_even_memories_approach_the_ring() {
        let n = 720;
        let angle = |i: usize| TAU * i as f64 / n as f64;
        let rows =
            Array2::from_shape_fn((n, 2), |(i, k)| if k == 0 { angle(i).cos() } else { angle(i).sin() });
        let many = Empirical::new(Memories::new(rows.clone()).unwrap());
        let x = array![[0.0, 0.0], [0.3, 0.1], [-0.7, 0.7], [1.9, -0.2]];
        let v = array![[1.0, 0.5], [0.2, -1.0], [0.6, 0.6], [1.0, 0.0]];
        for level in [
            Ve::default().level(0.02).unwrap(),
            Ve::default().level(1.0).unwrap(),
            Vp::default().level(300.0).unwrap(),
        ] {
            let levels = [level; 4];
            // The trapezoid rule on a circle converges faster than any power.
            let near = |a: &Array2<f64>, b: &Array2<f64>| {
                assert!((a - b).iter().all(|d| d.abs() < 1e-8 / level.sigma().powi(4)), "{a} {b}");
            };
            near(&Ring.score(x.view(), &levels).unwrap(), &many.score(x.view(), &levels).unwrap());
            near(
                &Ring.vjp(x.view(), &levels, v.view()).unwrap(),
                &many.vjp(x.view(), &levels, v.view()).unwrap(),
            );
            let logs =
                Ring.log_density(x.view(), &levels).unwrap() - many.log_density(x.view(), &levels).unwrap();
            assert!(logs.iter().all(|d| d.abs() < 1e-9), "{logs}");
        }
        // The radial score of Eqs. 17 and 18.
        let level = Ve::default().level(0.05).unwrap();
        let got = Ring.score(array![[0.6, 0.8 + 1e-3]].view(), &[level]).unwrap();
        let radius = 0.6f64.hypot(0.8 + 1e-3);
        assert!((got[[0, 0]] - ring::score(radius, level.beta()).unwrap() * 0.6 / radius).abs() < 1e-12);
    }
}
