//! Noising processes.
//!
//! A process takes clean data $x_0$ to $p(x_t | x_0) = \mathcal{N}(\alpha x_0, \sigma^2 I)$. A [`Level`] is a
//! time with its $\alpha$ and $\sigma$, which scores and discrete samplers use. As a stochastic differential equation
//! (Eq. 1) a process is $dx = f(t) x dt + g(t) dw$, whose [`Coefficients`] continuous samplers use.
//!
//! [`Vp`] is the variance-preserving process of DDPM, [`Ve`] the variance-exploding one of the toy model.

mod error;
mod level;
mod steps;
mod ve;
mod vp;

pub use error::ProcessError;
pub use level::{Level, Posterior, Prediction};
pub use steps::Steps;
pub use ve::{Ve, VeSettings};
pub use vp::{Curve, Spacing, Vp, VpSettings};

/// Drift and diffusion of dx = f(t) x dt + g(t) dw at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// f(t), the rate of the linear drift.
    pub drift: f64,
    /// g(t).
    pub diffusion: f64,
}

/// A noising process with Gaussian kernels.
pub trait Process: Sync {
    /// The noise level at a time from [`Self::clean`] (alpha = 1, sigma = 0) to [`Self::horizon`].
    ///
    /// # Errors
    /// [`ProcessError::Time`] for any other time.
    fn level(&self, t: f64) -> Result<Level, ProcessError>;

    /// Drift and diffusion at a time.
    ///
    /// # Errors
    /// As [`Self::level`].
    fn coefficients(&self, t: f64) -> Result<Coefficients, ProcessError>;

    /// Time of clean data.
    fn clean(&self) -> f64;

    /// T, the last time.
    fn horizon(&self) -> f64;

    /// Standard deviation of the Gaussian of mean 0 from which samplers start at T.
    fn prior_scale(&self) -> f64;
}
