#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod class;
pub mod data;
pub mod detect;
pub mod device;
mod display;
pub mod distance;
mod error;
pub mod frame;
pub mod memory;
pub mod metric;
pub mod net;
pub mod notebook;
pub mod ops;
pub mod plot;
pub mod prelude;
pub mod process;
pub mod progress;
pub mod project;
pub mod random;
pub mod sample;
pub mod score;
pub mod setting;
pub mod shape;
pub mod store;
pub mod study;
pub mod train;

pub use error::Error;
