//! The files of this checkout: the committed tables and claims, and the fetched data sets.
//!
//! A test program of its own: `tests/data` unsets `MEM2GEN_DATA`, which counts here.

mod claims;
mod data_sets;
mod results;
mod tables;
