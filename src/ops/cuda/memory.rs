//! Owned memory on a device, and rows of values in it.

use std::mem::size_of;
use std::sync::Arc;

use super::driver::{Arg, Driver, DriverError, Handle};

/// Values that are copied to a device byte by byte.
pub(super) trait Number: Copy + Default + sealed::Plain {}

mod sealed {
    pub trait Plain {}
    impl Plain for f32 {}
    impl Plain for f64 {}
    impl Plain for i32 {}
}

impl<T: Copy + Default + sealed::Plain> Number for T {}

fn bytes<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, any byte may be read, and the length in bytes is the slice's.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: Number>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes`, and every pattern of bytes is a value of a `Plain` type.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Device memory that is freed on drop.
pub(super) struct Buffer {
    driver: Arc<dyn Driver>,
    handle: Handle,
    bytes: usize,
}

impl Buffer {
    /// Memory for `count` values of unspecified content.
    pub fn new<T: Number>(driver: &Arc<dyn Driver>, count: usize) -> Result<Self, DriverError> {
        let bytes = count.max(1).saturating_mul(size_of::<T>());
        Ok(Self { driver: driver.clone(), handle: driver.alloc(bytes)?, bytes })
    }

    /// Writes values from position `start`.
    pub fn write<T: Number>(&self, start: usize, values: &[T]) -> Result<(), DriverError> {
        if values.is_empty() {
            return Ok(());
        }
        self.driver.write(self.handle, start * size_of::<T>(), bytes(values))
    }

    /// The first `count` values.
    pub fn read<T: Number>(&self, count: usize) -> Result<Vec<T>, DriverError> {
        let mut values = vec![T::default(); count];
        self.read_into(&mut values)?;
        Ok(values)
    }

    /// The argument of a kernel that reads or writes `count` values.
    pub fn arg<T: Number>(&self, count: usize) -> Result<Arg, DriverError> {
        let asked = count.saturating_mul(size_of::<T>());
        if asked > self.bytes {
            return Err(DriverError::Call {
                call: "launch",
                why: format!("a kernel accesses {asked} bytes of a buffer of {}", self.bytes),
            });
        }
        Ok(Arg::Buffer(self.handle, 0))
    }

    /// Reads as many values as there are places for.
    pub fn read_into<T: Number>(&self, values: &mut [T]) -> Result<(), DriverError> {
        if values.is_empty() { Ok(()) } else { self.driver.read(self.handle, 0, bytes_mut(values)) }
    }

    /// The memory.
    pub fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.driver.free(self.handle);
    }
}

/// f32 rows on a device, `[count, dim]` with a stride between rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceRows {
    /// The memory that holds the rows.
    pub memory: Handle,
    /// Bytes before the first row.
    pub offset: usize,
    /// Number of rows.
    pub count: usize,
    /// Values of a row, N.
    pub dim: usize,
    /// Stride between rows in values.
    pub stride: usize,
}

impl DeviceRows {
    /// `dim` rounded up to a multiple of 4, as the kernels load rows.
    pub fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    /// `count` rows from row `start`.
    pub fn part(&self, start: usize, count: usize) -> Self {
        Self { offset: self.offset + start * self.stride * size_of::<f32>(), count, ..*self }
    }

    pub fn arg(&self) -> Arg {
        Arg::Buffer(self.memory, self.offset)
    }
}
