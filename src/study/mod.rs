//! Studies: one module each, with its settings, algorithm, rows, table, figure and the function that runs it.
//!
//! A study takes a [`context::Context`] and gives rows, which are stored as a table and drawn as figures. Studies are
//! independent of each other, except [`claims`], which compares them with the paper, and [`prompts`], which takes spectra from
//! [`curvature`].

pub mod attractors;
pub mod basin;
pub mod claims;
pub mod context;
pub mod copies;
pub mod curvature;
pub mod energy;
pub mod error;
mod lapack;
pub mod load;
pub mod prompts;
pub mod queries;
pub mod subject;
pub mod sweep;
pub mod toy;
pub mod transition;

pub use error::StudyError;
