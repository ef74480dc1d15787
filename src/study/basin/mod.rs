//! Basins of attraction (Alg. 1, Eqs. 12 and 34; Figs. 4B, 16 to 19).

pub mod figure;
pub mod frame;
mod run;
mod search;

pub use run::{Basins, basins};
pub use search::{
    AttractorRow, AttractorShares, AttractorSummary, BasinParams, BasinRow, BasinSettings, BasinSummary,
    Distance, Mean, Search, VERSION, log_volume, steps_from, summarise,
};
