//! Memory load: DenseAM retrieval of real images.

pub mod figure;
pub mod frame;
mod retrieval;
mod run;

pub use retrieval::{
    Example, Fractions, LoadCell, LoadData, LoadParams, LoadSettings, MemoryLoad, Noise, VERSION, load_cell,
    null_distance,
};
pub use run::{CellExamples, Examples, load_examples, memory_load, settings};
