//! The operations on CUDA devices, in three layers: raw launches ([`driver::Driver`]), checked wrappers that know the
//! arguments of each kernel, and the functions that [`super::Memories`] calls.

pub mod compile;
pub mod device;
pub mod driver;
mod kernels;
mod memory;
pub mod nvrtc;
pub mod resident;
mod signature;
pub mod sources;
mod standing;

pub use resident::Resident;
