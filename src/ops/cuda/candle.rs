//! Candle's CUDA tensors as device memory that kernels take without a copy.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{CudaDevice, Storage, Tensor};

use super::device::CudaDriver;
use super::driver::{Driver, DriverError, Handle};

/// A tensor that a driver knows by a handle, kept alive as long as this is.
pub struct Borrowed {
    driver: Arc<CudaDriver>,
    handle: Handle,
    tensor: Tensor,
}

impl CudaDriver {
    /// A driver on candle's own stream: what it launches follows what candle launched before, and precedes what
    /// candle launches after.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn beside_candle(device: &CudaDevice) -> Result<Arc<Self>, DriverError> {
        let driver = Self::on(device.cuda_stream())
            .map_err(|e| DriverError::Call { call: "cuDeviceGetAttribute", why: format!("{:?}", e.0) })?;
        Ok(Arc::new(driver))
    }
}

impl Borrowed {
    /// Borrows a contiguous f32 tensor on the driver's device.
    ///
    /// # Errors
    /// [`DriverError::Call`] for any other tensor.
    pub fn new(driver: &Arc<CudaDriver>, tensor: &Tensor) -> Result<Self, DriverError> {
        let refused = |why: String| DriverError::Call { call: "borrow a tensor", why };
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(cuda) = &*storage else {
            return Err(refused("it does not lie on a CUDA device".to_owned()));
        };
        let slice = cuda.as_cuda_slice::<f32>().map_err(|e| refused(e.to_string()))?;
        let (first, last) = layout
            .contiguous_offsets()
            .ok_or_else(|| refused(format!("its strides are {:?}", layout.stride())))?;
        if slice.context() != driver.stream().context() {
            return Err(refused("it lies on another device".to_owned()));
        }
        let view = slice.slice(first..last);
        let (pointer, _in_use) = view.device_ptr(driver.stream());
        let handle = driver.borrow(pointer, 4 * (last - first));
        Ok(Self { driver: driver.clone(), handle, tensor: tensor.clone() })
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Its shape.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Memory that is borrowed is only forgotten.
        self.driver.free(self.handle);
    }
}
