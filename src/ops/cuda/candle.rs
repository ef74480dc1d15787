//! The operations on candle's CUDA tensors: kernels read them where they lie, on candle's own stream.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{CudaDevice, DType, Storage, Tensor};

use super::device::CudaDriver;
use super::driver::{Driver, DriverError};
use super::{DeviceRows, Resident};
use crate::device::Device;
use crate::ops::{Knn, OpError, Readout, Want};

impl CudaDriver {
    /// A driver on candle's stream: what it launches follows what candle launched before, and precedes what candle
    /// launches after. It loads the kernels anew, so one is best kept as long as the device.
    ///
    /// # Errors
    /// What the CUDA driver answers.
    pub fn beside_candle(device: &CudaDevice) -> Result<Arc<Self>, DriverError> {
        let driver = Self::on(device.cuda_stream())
            .map_err(|e| DriverError::Call { call: "cuDeviceGetAttribute", why: format!("{:?}", e.0) })?;
        Ok(Arc::new(driver))
    }
}

/// Memories in a tensor.
///
/// Nothing looks at the numbers on their way: they are expected to be finite, with squared distances that don't
/// overflow.
pub struct TensorMemories {
    // First, so that it is dropped while its memory is still known.
    resident: Resident,
    driver: Arc<CudaDriver>,
    _rows: Borrowed,
}

impl TensorMemories {
    /// Takes a contiguous f32 tensor `[K, N]` on the driver's device. It has to stay as it is.
    ///
    /// # Errors
    /// [`OpError::Device`] for any other tensor, and otherwise as [`Resident::take`].
    pub fn new(driver: &Arc<CudaDriver>, rows: &Tensor) -> Result<Self, OpError> {
        let borrowed = Borrowed::new(driver, rows).map_err(failed("prepare memories"))?;
        let resident = Resident::take(driver.clone(), driver.device(), borrowed.rows)?;
        Ok(Self { resident, driver: driver.clone(), _rows: borrowed })
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        self.resident.device()
    }

    /// [`crate::ops::Memories::readout`] of queries `[m, N]`, with m(x) - x as a tensor `[m, N]`. The shift of the
    /// read-out itself is empty.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Resident::readout`].
    pub fn readout(
        &self,
        queries: &Tensor,
        beta: f64,
        want: Want,
    ) -> Result<(Tensor, Readout<f32>), OpError> {
        let failed = failed("readout");
        let x = Borrowed::new(&self.driver, queries).map_err(&failed)?;
        let shift = queries.zeros_like().map_err(|e| failed(refused(e.to_string())))?;
        let out = Borrowed::new(&self.driver, &shift).map_err(&failed)?;
        let DeviceRows { memory, offset, .. } = out.rows;
        let readout = self.resident.readout_into(x.rows, beta, want, memory, offset)?;
        Ok((shift, readout))
    }

    /// [`crate::ops::Memories::knn`] of queries `[m, N]`.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Resident::knn`].
    pub fn knn(&self, queries: &Tensor, k: usize, exclude_self: bool) -> Result<Knn, OpError> {
        let x = Borrowed::new(&self.driver, queries).map_err(failed("knn"))?;
        self.resident.knn(x.rows, k, exclude_self)
    }
}

/// Rows of a tensor that a driver knows by a handle; both are kept as long as this is.
struct Borrowed {
    rows: DeviceRows,
    driver: Arc<CudaDriver>,
    _tensor: Tensor,
}

impl Borrowed {
    fn new(driver: &Arc<CudaDriver>, tensor: &Tensor) -> Result<Self, DriverError> {
        let (count, dim) = tensor.dims2().map_err(|e| refused(e.to_string()))?;
        if tensor.dtype() != DType::F32 {
            return Err(refused(format!("its numbers are {:?}", tensor.dtype())));
        }
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(cuda) = &*storage else {
            return Err(refused("it does not lie on a CUDA device".to_owned()));
        };
        let slice = cuda.as_cuda_slice::<f32>().map_err(|e| refused(e.to_string()))?;
        if slice.context() != driver.stream().context() {
            return Err(refused("it lies on another device".to_owned()));
        }
        let Some((first, _)) = layout.contiguous_offsets() else {
            return Err(refused(format!("its strides are {:?}", layout.stride())));
        };
        // From the start of the allocation, which is aligned as the kernels expect it.
        let memory = driver.borrow(slice.device_ptr(driver.stream()).0, size_of::<f32>() * slice.len());
        let rows = DeviceRows { memory, offset: size_of::<f32>() * first, count, dim, stride: dim };
        Ok(Self { rows, driver: driver.clone(), _tensor: tensor.clone() })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.driver.free(self.rows.memory);
    }
}

fn refused(why: String) -> DriverError {
    DriverError::Call { call: "borrow a tensor", why }
}

fn failed(operation: &'static str) -> impl Fn(DriverError) -> OpError {
    move |source| OpError::Device { operation, source }
}
