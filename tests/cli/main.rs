//! The program as a process: every test starts `mem2gen` and checks its output and its files.
//!
//! One test program, because its parts share only the functions of `common`: each test has its own temporary folder, sets
//! variables only for the processes that it starts, and writes nowhere else.

mod arch;
mod attractors;
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
mod output;
mod own;
mod potential;
mod prompts;
mod sample;
mod score;
mod signals;
mod sweep;
mod timings;
mod toy;
mod train;
mod train_resume;
