//! The kernels of `kernels/` without a device: compiled for the processor, as PTX in an interpreter, and by NVRTC.
//!
//! One test program: the emulation runs in processes of its own with a limit on processor time instead of wall time, and
//! its kernels are compiled once for all tests. `kernels_gpu` needs a device, and `cuda_driver` uses a replacement of
//! libcuda.

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
