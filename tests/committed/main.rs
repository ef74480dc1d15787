//! What lies in this checkout: the committed tables and claims, and the data sets where they were fetched.
//!
//! One test program, apart from that of `tests/data`, which takes `MEM2GEN_DATA` away: here it counts.

mod claims;
mod data_sets;
mod results;
mod tables;
