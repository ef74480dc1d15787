//! The operations on CUDA devices, in three layers: the raw launch ([`driver::Driver`]), checked wrappers
//! that know each kernel's arguments, and the functions that [`super::Memories`] calls.

#[cfg(feature = "cuda")]
pub mod candle;
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

pub use memory::DeviceRows;
pub use resident::{Queries, Resident};
