//! The kernels of `kernels/` without a device: compiled for the processor, as PTX in an interpreter, and by NVRTC.
//!
//! One test program: what the emulation runs are processes of their own, held to their own time on the processor and
//! not to the clock, and what is compiled for it is compiled once for all. With a device are `kernels_gpu`, and
//! `cuda_driver` with what stands in for one.

mod compiled;
mod emulation;
mod emulator;
mod host;
mod mutants;
mod nvrtc;
mod peak;
mod ptx;
mod sanitized;
mod suite;
