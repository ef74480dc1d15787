//! The transition from memorization to generalization: fractions of the three classes against K.

pub mod figure;
mod fractions;
pub mod frame;
mod run;

pub use figure::FractionBand;
pub use fractions::{PooledRow, TransitionSettings, network_cells, networks, pooled};
pub use run::{NearRow, near_duplicates, settings, transition, transitions};
