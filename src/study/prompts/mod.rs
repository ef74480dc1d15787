//! Prompts of text-to-image models: samples, the spectrum of the score's Jacobian (Figs. 5B and 24), and measures by which
//! others recognize memorized prompts.
//!
//! [`measure`] draws samples of one prompt from several starting points and measures each; [`run`] does it for a list of
//! prompts and writes pictures, latents, spectra and one table.

mod diffusion;
mod doses;
mod figure;
pub mod frame;
mod list;
mod measures;
mod model;
mod roc;
mod run;
mod settings;
mod spectrum;

pub use diffusion::{DiffusersPrompts, Needs, Precision, STABLE_DIFFUSION};
pub use doses::{DoseGroup, DoseRow, Doses, DosesSettings, SpectrumRow, doses, trained};
pub use figure::sample_pictures;
pub use list::Prompt;
pub use measures::{Measured, PromptRow, measure};
pub use model::{PromptModel, PromptScores, TrainedPrompts, Truth};
pub use roc::{RocRow, RocSettings, Target, roc};
pub use run::{Written, measure_each, run};
pub use settings::{PromptParams, PromptSettings};
pub use spectrum::band;

/// Version of the values that this study computes. It is raised by every change that moves a value.
pub const VERSION: u32 = 1;

/// The study's name in errors.
const NAME: &str = "prompts";
