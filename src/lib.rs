#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod memory;
pub mod ops;
pub mod project;
pub mod random;
pub mod store;
