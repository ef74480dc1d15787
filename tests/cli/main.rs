//! The program as a process: every test starts `mem2gen` and looks at what it says and leaves.
//!
//! One test program, as its parts share nothing but the functions of `common`: each test has a temporary folder of its
//! own, changes no variable except those of the processes that it starts, and writes nowhere else.

mod arch;
mod basin;
mod claims;
mod classify;
mod common;
mod curvature;
mod data;
mod energy;
mod help;
mod import;
mod knn;
mod likelihood;
mod minima;
mod potential;
mod sample;
mod score;
mod sweep;
mod timings;
mod toy;
mod train;
mod train_resume;
