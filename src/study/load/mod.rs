//! DenseAM retrieval of real images under load.

pub mod figure;
pub mod frame;
mod retrieval;
mod run;

pub use retrieval::{
    Example, Fractions, LoadCell, LoadData, LoadParams, LoadSettings, Noise, VERSION, at_size, find,
    load_cell, null_distance,
};
pub use run::{example_rows, load_examples, memory_load, settings};
