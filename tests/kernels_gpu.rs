//! The kernels on a real CUDA device. Without a device the test prints a line and passes.
//!
//! A test program of its own, which only the feature `gpu-tests` builds: it ends with an illegal access, after which its
//! process can't use the device.

mod device;
#[path = "kernels/suite.rs"]
mod suite;

use std::sync::Arc;

use mem2gen::ops::cuda::device::CudaDriver;
use mem2gen::ops::cuda::driver::{Driver, DriverError};

/// One test, because its parts share the device and the last part ends its context.
#[test]
fn on_the_first_device() {
    let driver = match CudaDriver::open(0) {
        Ok(driver) => driver,
        Err(DriverError::Missing { device, why }) => {
            eprintln!("skipped, {device} can't be used: {why}");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    eprintln!("{}: {:?}, kernels from {:?}", driver.name(), driver.limits(), driver.load_all());
    device::memory_is_kept_and_guarded(&*driver);
    device::launches_are_checked(&*driver);
    let device: Arc<dyn Driver> = driver.clone();
    suite::run(&device, suite::ALL).unwrap_or_else(|why| panic!("{why}"));
    device::an_illegal_access_names_its_kernel_and_stops_the_device(&*driver);
}
