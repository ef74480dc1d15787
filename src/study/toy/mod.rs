//! The toy model: memories on a circle (Figs. 1A and 2, Eqs. 7 and 15).

mod exact;
pub mod figure;
pub mod frame;
mod run;
pub mod trained;

pub use exact::*;
pub use run::{ring_convergence, settings, toy_ladder, toy_landscapes, toy_profiles, toy_temperatures};
