#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod ops;
pub mod data;
pub mod project;
pub mod random;
pub mod store;
