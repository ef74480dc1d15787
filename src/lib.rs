#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod analyse;
pub mod data;
pub mod detect;
pub mod distance;
mod error;
pub mod figure;
pub mod memory;
pub mod net;
pub mod notebook;
pub mod ops;
pub mod prelude;
pub mod process;
pub mod profile;
pub mod progress;
pub mod project;
pub mod random;
pub mod sample;
pub mod score;
pub mod store;
pub mod study;
pub mod sweep;
pub mod table;
pub mod train;

pub use error::Error;
