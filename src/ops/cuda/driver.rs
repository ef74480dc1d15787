//! The raw layer: memory, copies and launches on a device, and their errors.

use std::fmt;

/// Number of a block of device memory, given out by its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer into device memory: a block and an offset in bytes.
    Buffer(Handle, usize),
    /// A null pointer for an output that is not wanted.
    Null,
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

/// One launch of one kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name of the `extern "C" __global__` function; [`super::sources::module_of`] gives its source.
    pub kernel: &'static str,
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Its arguments in order.
    pub args: &'a [Arg],
}

/// Resources of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of free memory, with what the driver keeps.
    pub free: usize,
    /// Bytes of memory in total.
    pub total: usize,
    /// Number of multiprocessors.
    pub processors: usize,
    /// Largest dynamic shared memory of a block in bytes, after opting in.
    pub shared: usize,
}

/// The raw layer: memory, copies and launches, which take effect in the order of the calls.
///
/// A CUDA device is one implementation. The tests have two more, which run the same kernels on the CPU.
pub trait Driver: Send + Sync {
    /// Name of the device.
    fn name(&self) -> String;
    /// Its resources.
    ///
    /// # Errors
    /// The driver's error.
    fn limits(&self) -> Result<Limits, DriverError>;
    /// Allocates memory of unspecified content, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`], or the driver's error.
    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError>;
    /// Frees memory, or keeps it for a later allocation of its size. An error is returned by the next call.
    fn free(&self, memory: Handle);
    /// Copies to the device.
    ///
    /// # Errors
    /// The driver's error.
    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError>;
    /// Copies from the device, after all earlier launches.
    ///
    /// # Errors
    /// The driver's error, which may be that of an earlier launch.
    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError>;
    /// Starts a kernel. The kernel may still run when this returns, and ends before any later call takes effect.
    ///
    /// # Errors
    /// [`DriverError::Compile`], [`DriverError::Launch`], or the driver's error.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError>;
}

/// An error of a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// No driver or no such device.
    #[error("{device} can't be used: {why}")]
    Missing {
        /// The requested device.
        device: String,
        /// The reason.
        why: String,
    },
    /// A kernel that does not compile for the device.
    #[error("the kernels of {module} don't compile: {log}")]
    Compile {
        /// The source, by name.
        module: &'static str,
        /// The log of the compiler.
        log: String,
    },
    /// More memory than is free.
    #[error("allocate device memory: {asked} bytes requested, {free} free")]
    OutOfMemory {
        /// Bytes requested.
        asked: usize,
        /// Bytes free.
        free: usize,
    },
    /// A launch that failed, reported by the launch or by a later call.
    #[error("kernel {kernel} in {shape}: {why}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Grid, block and shared memory.
        shape: LaunchShape,
        /// The driver's answer.
        why: String,
    },
    /// Work after an error that ended the context.
    #[error(
        "{device} stopped after an earlier error and accepts no more work in this process: {why}; run again"
    )]
    Stopped {
        /// The device.
        device: String,
        /// The first error.
        why: String,
    },
    /// Any other error.
    #[error("{call}: {why}")]
    Call {
        /// The call.
        call: &'static str,
        /// The driver's answer.
        why: String,
    },
}

/// Grid, block and shared memory of a launch, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl From<&Launch<'_>> for LaunchShape {
    fn from(l: &Launch<'_>) -> Self {
        Self { grid: l.grid, block: l.block, shared: l.shared }
    }
}

impl fmt::Display for LaunchShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [gx, gy, gz] = self.grid;
        let [bx, by, bz] = self.block;
        write!(f, "grid {gx}x{gy}x{gz}, block {bx}x{by}x{bz}, {} bytes shared", self.shared)
    }
}
