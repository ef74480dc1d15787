//! Are my samples copies? Labels of samples that a person brings.

pub mod figure;
pub mod frame;
