//! Noising processes: what they do to data, and nothing of how it is undone.
//!
//! A process takes clean data $x_0$ to $p(x_t | x_0) = \mathcal{N}(\alpha x_0, \sigma^2 I)$. A [`Level`] is the time
//! with that $\alpha$ and $\sigma$, and all that scores and discrete samplers ask for. As a stochastic differential
//! equation (Eq. 1) it is $dx = f(t) x dt + g(t) dw$, whose [`Coefficients`] the continuous samplers ask for.
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
pub use vp::{Spacing, Vp, VpSettings};

/// Coefficients of dx = f(t) x dt + g(t) dw at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// f(t), the rate of the linear drift.
    pub drift: f64,
    /// g(t).
    pub diffusion: f64,
}

/// A noising process with Gaussian kernels.
pub trait Process: Sync {
    /// The kernel at a time, from [`Self::clean`] (alpha = 1, sigma = 0) to [`Self::horizon`].
    ///
    /// # Errors
    /// [`ProcessError::Time`] outside of that.
    fn level(&self, t: f64) -> Result<Level, ProcessError>;

    /// Drift and diffusion at a time.
    ///
    /// # Errors
    /// As [`Self::level`].
    fn coefficients(&self, t: f64) -> Result<Coefficients, ProcessError>;

    /// The time of clean data.
    fn clean(&self) -> f64;

    /// T, the last time.
    fn horizon(&self) -> f64;

    /// Standard deviation of the Gaussian about 0 that samplers start from at T.
    fn prior_scale(&self) -> f64;
}
