#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod analyse;
pub mod data;
pub mod detect;
pub mod figure;
pub mod memory;
pub mod notebook;
pub mod ops;
pub mod progress;
pub mod profile;
pub mod project;
pub mod random;
pub mod store;
pub mod table;
