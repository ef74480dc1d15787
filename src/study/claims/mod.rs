//! The paper's claims, each compared with what was measured. The one study that knows the others.

mod claim;
pub mod frame;
mod run;

pub use claim::*;
pub use run::{capacity, claims, transition_claims};
