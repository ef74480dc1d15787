//! The raw layer: what kernels need of a device, and what can go wrong there.

use std::fmt;

/// Memory on a device, by a number that its driver gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer into device memory, so many bytes past its start.
    Buffer(Handle, usize),
    /// A null pointer, where a kernel takes an output that is not wanted.
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
    /// Name of the `extern "C" __global__` function; [`super::sources::module_of`] says where it is.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Its arguments in order.
    pub args: &'a [Arg],
}

/// What a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that can be had now.
    pub free: usize,
    /// Bytes of memory in all.
    pub total: usize,
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes of shared memory that a block can be given, opted in to.
    pub shared: usize,
}

/// The raw layer: memory, copies and launches, in the order in which they are called.
///
/// A CUDA device is one implementation; the tests bring two more, which run the same kernels on the
/// processor.
pub trait Driver: Send + Sync {
    /// Name of the device, for people.
    fn name(&self) -> String;
    /// What it has.
    ///
    /// # Errors
    /// What the driver answers.
    fn limits(&self) -> Result<Limits, DriverError>;
    /// So many bytes of memory, of unspecified content, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`], or what the driver answers.
    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError>;
    /// Gives memory back. A driver that can't, says so at the next call.
    fn free(&self, memory: Handle);
    /// Copies to the device.
    ///
    /// # Errors
    /// What the driver answers.
    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError>;
    /// Copies from the device, after all launches before are done.
    ///
    /// # Errors
    /// What the driver answers, which may be the error of an earlier launch.
    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError>;
    /// Starts a kernel. It may run on after this returns, but before any later call.
    ///
    /// # Errors
    /// [`DriverError::Compile`], [`DriverError::Launch`], or what the driver answers.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError>;
}

/// What can go wrong on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// No driver or no device.
    #[error("{device} can't be used: {why}")]
    Missing {
        /// The device asked for.
        device: String,
        /// Why not.
        why: String,
    },
    /// A kernel that does not compile for the device at hand.
    #[error("the kernels of {module} don't compile: {log}")]
    Compile {
        /// The source, by name.
        module: &'static str,
        /// What the compiler said.
        log: String,
    },
    /// More memory than is free.
    #[error("{asked} bytes of device memory asked for, {free} free")]
    OutOfMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes free.
        free: usize,
    },
    /// A launch that failed, or the call after it that was told of it.
    #[error("kernel {kernel} in {shape}: {why}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Grid, block and shared memory.
        shape: LaunchShape,
        /// The driver's answer.
        why: String,
    },
    /// An earlier error that the context does not survive.
    #[error("{device} stopped at an earlier error and takes no more work in this process: {why}")]
    Stopped {
        /// The device.
        device: String,
        /// The first error.
        why: String,
    },
    /// Any other answer.
    #[error("{call}: {why}")]
    Call {
        /// What was called.
        call: &'static str,
        /// The driver's answer.
        why: String,
    },
}

/// Grid, block and shared memory of a launch, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
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
