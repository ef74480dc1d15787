//! The operations on CUDA devices, in three layers: the raw launch ([`driver::Driver`]), checked wrappers
//! that know each kernel's arguments, and the functions that [`super::Memories`] calls.

pub mod driver;
mod kernels;
mod memory;
pub mod resident;
pub mod sources;

pub use memory::DeviceRows;
pub use resident::{Queries, Resident};
