//! The device for a choice of device.

use std::sync::Arc;

use super::cuda::device::CudaDriver;
use super::cuda::driver::{Driver, DriverError};
use crate::device::{Device, DeviceChoice};

/// The device that a choice selects on this machine, with its driver for a CUDA device. `auto` selects the CPU when no
/// CUDA device can be used.
///
/// # Errors
/// [`DriverError::Missing`] when a CUDA device was chosen by number and can't be used.
pub fn resolve(choice: DeviceChoice) -> Result<(Device, Option<Arc<dyn Driver>>), DriverError> {
    settle(choice, |number| CudaDriver::open(number).map(|driver| driver as Arc<dyn Driver>))
}

fn settle<D>(
    choice: DeviceChoice,
    open: impl FnOnce(usize) -> Result<D, DriverError>,
) -> Result<(Device, Option<D>), DriverError> {
    match choice {
        DeviceChoice::Only(Device::Cpu) => Ok((Device::Cpu, None)),
        DeviceChoice::Only(Device::Cuda(number)) => Ok((Device::Cuda(number), Some(open(number)?))),
        DeviceChoice::Auto => {
            Ok(open(0).map_or((Device::Cpu, None), |driver| (Device::Cuda(0), Some(driver))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_auto_falls_back_to_the_cpu() {
        let there = Ok::<usize, DriverError>;
        let missing = |number| -> Result<usize, _> {
            Err(DriverError::Missing { device: format!("cuda:{number}"), why: "test".to_owned() })
        };
        let choice = |name: &str| name.parse::<DeviceChoice>().unwrap();
        assert_eq!(settle(choice("cuda:2"), there), Ok((Device::Cuda(2), Some(2))));
        assert_eq!(settle(choice("auto"), there), Ok((Device::Cuda(0), Some(0))));
        assert_eq!(settle(choice("auto"), missing), Ok((Device::Cpu, None)));
        assert_eq!(
            settle(choice("cpu"), |_| -> Result<usize, _> { panic!("asked") }),
            Ok((Device::Cpu, None))
        );
        let error = settle(choice("cuda:2"), missing).unwrap_err();
        assert!(matches!(&error, DriverError::Missing { device, .. } if device == "cuda:2"), "{error}");
    }
}
