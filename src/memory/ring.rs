//! Closed form of the toy model with infinitely many memories on the unit circle (Eqs. 13 to 18).
//!
//! Everything is a function of the radius R and of beta, through the exponentially scaled Bessel functions e^-z I_0(z)
//! and e^-z I_1(z) at z = 2 beta R. Nothing overflows at any beta.

use spec_math::cephes64::{i0e, i1e};

use crate::ops::OpError;

/// E^AM(R) = R^2 + 1 - (1/beta) log I_0(2 beta R) of Eq. 15, computed as (R - 1)^2 - (1/beta) log(e^-z I_0(z)).
///
/// The density of the memories is normalised to 1: E_K + (log K)/beta of K memories approaches this energy.
///
/// ```
/// use mem2gen::memory::ring;
///
/// assert_eq!(ring::energy(0.0, 3.0)?, 1.0);
/// // 2 - log I_0(2)
/// assert!((ring::energy(1.0, 1.0)? - 1.176006458517044).abs() < 1e-12);
/// # Ok::<(), mem2gen::ops::OpError>(())
/// ```
///
/// # Errors
/// [`OpError::Parameter`] unless beta is positive and finite and R is finite and at least 0.
pub fn energy(radius: f64, beta: f64) -> Result<f64, OpError> {
    check(radius, beta)?;
    Ok((radius - 1.0).powi(2) - i0e(2.0 * beta * radius).ln() / beta)
}

/// dE/dR = 2 (R - I_1(z)/I_0(z)) with z = 2 beta R.
///
/// ```
/// use mem2gen::memory::ring;
///
/// assert_eq!(ring::slope(0.0, 3.0)?, 0.0);
/// // 2 (1 - I_1(2)/I_0(2))
/// assert!((ring::slope(1.0, 1.0)? - 0.6044506840719839).abs() < 1e-12);
/// # Ok::<(), mem2gen::ops::OpError>(())
/// ```
///
/// # Errors
/// As [`energy`].
pub fn slope(radius: f64, beta: f64) -> Result<f64, OpError> {
    check(radius, beta)?;
    Ok(2.0 * (radius - ratio(2.0 * beta * radius)))
}

/// Radial score of p ~ exp(-beta E): 2 beta (I_1(z)/I_0(z) - R) (Eqs. 17 and 18). The score vector is this times x/R.
///
/// # Errors
/// As [`energy`].
pub fn score(radius: f64, beta: f64) -> Result<f64, OpError> {
    Ok(-beta * slope(radius, beta)?)
}

/// Radius of the minimum: 0 for beta <= 1, else the root of I_1(2 beta R)/I_0(2 beta R) = R.
///
/// ```
/// use mem2gen::memory::ring;
///
/// assert_eq!(ring::minimum_radius(0.7)?, 0.0);
/// assert!((ring::minimum_radius(2.0)? - 0.83146).abs() < 6e-6);
/// # Ok::<(), mem2gen::ops::OpError>(())
/// ```
///
/// # Errors
/// As [`energy`].
pub fn minimum_radius(beta: f64) -> Result<f64, OpError> {
    check(0.0, beta)?;
    if beta <= 1.0 {
        return Ok(0.0);
    }
    // ratio(z)/z falls from 1/2 to 0, so ratio(2 beta R) - R changes sign once between 0 and 1. Bisection to the last
    // bit.
    let (mut low, mut high) = (0.0f64, 1.0f64);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return Ok(middle);
        }
        if ratio(2.0 * beta * middle) > middle { low = middle } else { high = middle }
    }
}

/// I_1(z)/I_0(z).
pub(crate) fn ratio(z: f64) -> f64 {
    i1e(z) / i0e(z)
}

fn check(radius: f64, beta: f64) -> Result<(), OpError> {
    OpError::positive("ring", "beta", beta)?;
    if radius >= 0.0 && radius.is_finite() {
        return Ok(());
    }
    Err(OpError::Parameter {
        operation: "ring",
        argument: "radius",
        value: radius,
        need: "a finite number of at least 0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// -(1/beta) log of the mean of exp(-beta ||x - y||^2) over the circle, by the periodic trapezoid rule, which
    /// converges exponentially.
    fn quadrature(radius: f64, beta: f64) -> f64 {
        let n = 20_000;
        let least = (radius - 1.0).powi(2);
        let sum: f64 = (0..n)
            .map(|i| {
                let d2 = radius * radius + 1.0 - 2.0 * radius * (TAU * f64::from(i) / f64::from(n)).cos();
                (-beta * (d2 - least)).exp()
            })
            .sum();
        least - (sum / f64::from(n)).ln() / beta
    }

    #[test]
    fn the_closed_form_is_the_integral() {
        for beta in [1e-3, 0.25, 1.0, 10.0 / 3.0, 20.0, 400.0, 1e5] {
            for radius in [0.0, 1e-3, 0.4, 1.0, 1.7, 5.0] {
                let (a, b) = (energy(radius, beta).unwrap(), quadrature(radius, beta));
                assert!((a - b).abs() < 1e-12 * (1.0 + 1.0 / beta), "{beta} {radius}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_slope_is_that_of_the_energy() {
        for beta in [0.3, 2.0, 50.0] {
            for radius in [0.2, 0.9, 1.4] {
                let h = 1e-6;
                let s = (energy(radius + h, beta).unwrap() - energy(radius - h, beta).unwrap()) / (2.0 * h);
                assert!((s - slope(radius, beta).unwrap()).abs() < 1e-8);
                assert!((score(radius, beta).unwrap() + beta * s).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn minima_and_barriers_agree_with_the_paper() {
        for (beta, radius) in [
            (1.1, 0.41339),
            (1.5, 0.72416),
            (2.0, 0.83146),
            (10.0 / 3.0, 0.91376),
            (5.0, 0.94554),
            (10.0, 0.97398),
            (20.0, 0.98726),
            (100.0, 0.99749),
        ] {
            assert!((minimum_radius(beta).unwrap() - radius).abs() < 6e-6, "{beta}");
        }
        for (beta, barrier) in [
            (2.0, 0.2351),
            (10.0 / 3.0, 0.4526),
            (5.0, 0.5914),
            (10.0, 0.7596),
            (20.0, 0.8621),
            (100.0, 0.9643),
        ] {
            let radius = minimum_radius(beta).unwrap();
            let got = energy(0.0, beta).unwrap() - energy(radius, beta).unwrap();
            assert!((got - barrier).abs() < 6e-5, "{beta}: {got}");
        }
        assert_eq!(minimum_radius(1.0).unwrap(), 0.0);
        assert_eq!(minimum_radius(0.2).unwrap(), 0.0);
    }

    #[test]
    fn no_value_overflows_at_large_beta() {
        for beta in [400.0, 1e4, 1e6] {
            let e = energy(1.2, beta).unwrap();
            let expansion = 0.04 + (4.0 * std::f64::consts::PI * beta * 1.2).ln() / (2.0 * beta);
            assert!((e - expansion).abs() < 1.0 / (beta * beta), "{beta}: {e} {expansion}");
            assert!((minimum_radius(beta).unwrap() - (1.0 - 0.25 / beta)).abs() < 1.0 / (beta * beta));
        }
        assert!(energy(-0.1, 1.0).is_err() && energy(1.0, 0.0).is_err() && energy(f64::NAN, 1.0).is_err());
    }

    /// The published exact panel: 20 x 20 grid on [-1.5, 1.5]^2 at beta = 20, minimum subtracted, has the
    /// range 1.2761 (its colour bar tops at 1.29 in steps of 0.015) and 0.733 at the grid's centre.
    #[test]
    fn the_landscape_has_the_range_of_the_published_colour_bar() {
        let at = |i: i32| -1.5 + 3.0 * f64::from(i) / 19.0;
        let grid: Vec<f64> = (0..400).map(|i| energy(at(i / 20).hypot(at(i % 20)), 20.0).unwrap()).collect();
        let low = grid.iter().copied().fold(f64::INFINITY, f64::min);
        let high = grid.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((high - low - 1.2761).abs() < 1e-4, "{}", high - low);
        assert!((grid[9 * 20 + 9] - low - 0.733).abs() < 1e-3, "{}", grid[9 * 20 + 9] - low);
    }
}
