//! Dense Associative Memory in f64, exact: energies, score, Hessian, retrieval, attractors, the ring.
//!
//! Here every distance is taken term by term, so the modules are the reference that the fused
//! operations of [`crate::ops`] are tested against, and the tool for sets small enough to look into.

mod attractors;
mod energy;
mod error;
mod retrieval;
pub mod ring;
pub mod toy;

pub use attractors::{Attractor, AttractorSettings, Attractors, Kind, attractors, critical_beta_of_pair};
pub use energy::{DenseAm, beta_from_time, diffusion_energy};
pub use error::MemoryError;
pub use retrieval::{Certificate, Retrieval, RetrievalSettings, certify, retrieve};
