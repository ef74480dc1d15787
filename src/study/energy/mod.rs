//! Relative energy along arcs (Eqs. 43 to 48; Figs. 6, 25 to 30).

pub mod figure;
pub mod frame;
mod potential;
mod run;

pub use potential::{
    Arcs, CurveRow, GapRow, Images, LoopRow, Potential, PotentialParams, PotentialRow, PotentialSettings,
    Relative, SIGN, VERSION, analyse, gaps,
};
pub use run::{Energies, energies};
