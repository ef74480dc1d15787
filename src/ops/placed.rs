//! Memories on a device, for precisions that have kernels there.

use super::resolve;
use crate::device::{Device, DeviceChoice};
use ndarray::ArrayView2;

use super::cuda::Resident;
use super::{Element, Knn, OpError, PREPARE, PairTile, Readout, Want};

/// The operations of [`super::Memories`] on a device. The caller has checked the arguments.
pub trait Placed<T: Element>: Sized + Send + Sync {
    /// Copies memories to the chosen device; `None` when it is the CPU.
    fn place(rows: ArrayView2<'_, T>, choice: DeviceChoice) -> Result<Option<Self>, OpError>;
    /// Device that holds the memories.
    fn device(&self) -> Device;
    /// As [`super::Memories::readout`].
    fn readout(&self, queries: ArrayView2<'_, T>, beta: f64, want: Want) -> Result<Readout<T>, OpError>;
    /// As [`super::Memories::knn`].
    fn knn(&self, queries: ArrayView2<'_, T>, k: usize, exclude_self: bool) -> Result<Knn, OpError>;
    /// As [`super::Memories::pairwise`].
    fn pairwise(&self, queries: ArrayView2<'_, T>, tile: impl FnMut(PairTile<'_, T>)) -> Result<(), OpError>;
}

impl Placed<f32> for Resident {
    fn place(rows: ArrayView2<'_, f32>, choice: DeviceChoice) -> Result<Option<Self>, OpError> {
        let (device, driver) =
            resolve(choice).map_err(|source| OpError::Device { operation: PREPARE, source })?;
        driver.map(|driver| Self::upload(driver, device, rows)).transpose()
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn readout(&self, queries: ArrayView2<'_, f32>, beta: f64, want: Want) -> Result<Readout<f32>, OpError> {
        self.readout(queries, beta, want)
    }

    fn knn(&self, queries: ArrayView2<'_, f32>, k: usize, exclude_self: bool) -> Result<Knn, OpError> {
        self.knn(queries, k, exclude_self)
    }

    fn pairwise(
        &self,
        queries: ArrayView2<'_, f32>,
        tile: impl FnMut(PairTile<'_, f32>),
    ) -> Result<(), OpError> {
        self.pairwise(queries, tile)
    }
}

/// Memories of a precision without kernels: no value exists.
pub enum Nowhere {}

impl Placed<f64> for Nowhere {
    fn place(_: ArrayView2<'_, f64>, choice: DeviceChoice) -> Result<Option<Self>, OpError> {
        match choice {
            DeviceChoice::Only(device @ Device::Cuda(_)) => {
                Err(OpError::Precision { operation: PREPARE, device })
            }
            DeviceChoice::Only(Device::Cpu) | DeviceChoice::Auto => Ok(None),
        }
    }

    fn device(&self) -> Device {
        match *self {}
    }

    fn readout(&self, _: ArrayView2<'_, f64>, _: f64, _: Want) -> Result<Readout<f64>, OpError> {
        match *self {}
    }

    fn knn(&self, _: ArrayView2<'_, f64>, _: usize, _: bool) -> Result<Knn, OpError> {
        match *self {}
    }

    fn pairwise(&self, _: ArrayView2<'_, f64>, _: impl FnMut(PairTile<'_, f64>)) -> Result<(), OpError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memories;
    use crate::ops::cuda::driver::DriverError;
    use ndarray::array;

    #[test]
    fn only_f32_goes_to_a_device_and_a_missing_device_is_named() {
        let rows = array![[1.0, 2.0], [3.0, 4.0]];
        let there = |name: &str| Memories::on(rows.clone(), name.parse().unwrap()).map(|m| m.device());
        assert_eq!(there("cpu"), Ok(Device::Cpu));
        assert_eq!(there("auto"), Ok(Device::Cpu));
        let device = Device::Cuda(0);
        assert_eq!(there("cuda:0"), Err(OpError::Precision { operation: PREPARE, device }));

        let single = rows.mapv(|v| v as f32);
        // No machine has this many devices.
        let missing = Memories::on(single.clone(), "cuda:4096".parse().unwrap()).map(|m| m.device());
        assert!(
            matches!(&missing, Err(OpError::Device { source: DriverError::Missing { device, .. }, .. })
                if device == "cuda:4096"),
            "{missing:?}"
        );
        let memories = Memories::on(single.clone(), DeviceChoice::Auto).unwrap();
        let device = memories.device();
        assert_eq!(memories.readout(single.view(), 1.0, Want::ALL).unwrap().device, device);
        assert_eq!(memories.nearest(single.view(), false).unwrap().device, device);
    }
}
