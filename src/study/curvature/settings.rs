use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::NAME;
use crate::process::Level;
use crate::random::SEED;
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::study::error::StudyError;

/// How the rows of S are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// (s(x + sigma u) - s(x - sigma u)) / 2 for orthonormal directions u (Alg. 2)
    Symmetrized,
    /// s(x + sigma u) - s(x) for orthonormal u; with raw values s(x + sigma u)
    Plain,
    /// s(x + sigma u) - s(x) for standard normal u (Alg. 3); with raw values s(x + sigma u)
    Gaussian,
}

/// Settings of the spectrum, also its options on the command line: table `curvature` of a profile.
///
/// ```
/// use mem2gen::study::curvature::{CurvatureSettings, Variant};
///
/// let settings = CurvatureSettings::default();
/// assert_eq!((settings.t, settings.rows, settings.variant), (15.0, 4.0, Variant::Symmetrized));
/// assert_eq!(settings.clone().check()?.rows(49), 196);
/// assert!(CurvatureSettings { rows: 0.5, ..settings }.check().is_err());
/// # Ok::<(), mem2gen::study::StudyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct CurvatureSettings {
    /// Time of the process at which the Jacobian is taken; 15 in public code, the paper states none
    #[arg(long, value_name = "T", allow_hyphen_values = true, default_value_t = CurvatureSettings::default().t)]
    pub t: f64,
    /// Number of rows of S as a multiple of the dimension D, at least 1; 4 in public code. The rows of a stack that is
    /// not a whole number of bases are orthogonal only on average
    #[arg(long, value_name = "R", allow_hyphen_values = true, default_value_t = CurvatureSettings::default().rows)]
    pub rows: f64,
    /// Rows of S; public code has all three variants
    #[arg(long, value_enum, default_value_t = CurvatureSettings::default().variant)]
    pub variant: Variant,
    /// Orthonormal directions by channel, as in public code, instead of in all dimensions: each channel of a square
    /// image is a random orthogonal matrix
    #[arg(long)]
    pub per_channel: bool,
    /// Length of the directions in units of sigma_t; 1 in the paper. A smaller one comes closer to the Jacobian of a
    /// score that is not linear, until rounding errors show
    #[arg(long, value_name = "S", allow_hyphen_values = true, default_value_t = CurvatureSettings::default().step)]
    pub step: f64,
    /// Also the exact Jacobian, by D products for each point
    #[arg(long)]
    pub exact: bool,
    /// Values as in public code: one-sided rows hold the score itself, and no factor is divided out
    #[arg(long = "raw-values", id = "raw_values")]
    pub raw: bool,
    /// Number of largest values that means and the local dimension leave out: 5 in the paper, 50 with Alg. 3
    #[arg(long, value_name = "n", default_value_t = CurvatureSettings::default().drop_top)]
    pub drop_top: usize,
    /// Seed of the directions
    #[arg(long, default_value_t = CurvatureSettings::default().seed)]
    pub seed: u64,
}

impl Default for CurvatureSettings {
    fn default() -> Self {
        Self {
            t: 15.0,
            rows: 4.0,
            variant: Variant::Symmetrized,
            per_channel: false,
            step: 1.0,
            exact: false,
            raw: false,
            drop_top: 5,
            seed: SEED,
        }
    }
}

/// Checked [`CurvatureSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct CurvatureParams(CurvatureSettings);

impl CurvatureSettings {
    /// Checks all settings except those that depend on the process or the dimension: `t` and `drop_top`.
    ///
    /// # Errors
    /// [`StudyError::Setting`] with the first setting out of its range.
    pub fn check(self) -> Result<CurvatureParams, StudyError> {
        if !(self.rows >= 1.0 && self.rows <= 1000.0) {
            return Err(refused("rows", self.rows, "a number from 1 to 1000"));
        }
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Err(refused("step", self.step, "a finite number above 0"));
        }
        if self.per_channel && self.variant == Variant::Gaussian {
            return Err(refused("per_channel", true, "false for the Gaussian variant, which has no bases"));
        }
        Ok(CurvatureParams(self))
    }
}

pub(super) fn refused(setting: &'static str, value: impl ToString, need: impl Into<String>) -> StudyError {
    SettingError::new(NAME, setting, value, need.into()).into()
}

impl CurvatureParams {
    /// The settings that were checked.
    pub fn settings(&self) -> &CurvatureSettings {
        &self.0
    }

    /// Number of rows of S in `dim` dimensions.
    pub fn rows(&self, dim: usize) -> usize {
        ((self.0.rows * dim as f64).round() as usize).max(dim)
    }

    /// Ratio of the singular values of S to those of J: step sigma_t sqrt(R E||u||^2 / D) for R rows. The length of u is
    /// 1 (orthonormal), sqrt(D) (Gaussian) or sqrt(c h) (by channel, for c channels of height h).
    pub fn factor(&self, level: Level, shape: Shape) -> f64 {
        let dim = shape.len() as f64;
        let square = match self.0.variant {
            Variant::Gaussian => dim,
            _ if self.0.per_channel => (shape.channels * shape.height) as f64,
            _ => 1.0,
        };
        self.0.step * level.sigma() * (self.rows(shape.len()) as f64 * square / dim).sqrt()
    }
}
