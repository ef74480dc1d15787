//! The [`Driver`] of a CUDA device.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cudarc::driver::result::{self, module};
use cudarc::driver::sys::{
    CUdevice_attribute, CUdeviceptr, CUfunction, CUfunction_attribute, CUmodule, CUresult,
};
use cudarc::driver::{CudaContext, CudaStream};

use super::compile::{Origin, build, cache_folder};
use super::driver::{Arg, Driver, DriverError, Handle, Launch, Limits};
use super::nvrtc::Nvrtc;
use super::signature::{Kind, signature};
use super::sources::{MODULES, Module, module_of};
use super::standing::{Standing, ends_context};
use crate::device::Device;

/// One CUDA device: its primary context and one stream, on which all calls run in order.
///
/// A source is compiled at the first launch of one of its kernels, see [`super::compile::build`].
pub struct CudaDriver {
    name: String,
    capability: u32,
    stream: Arc<CudaStream>,
    inner: Mutex<Inner>,
}

/// Total time of the launches of a kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct KernelTime {
    /// Number of launches.
    pub launches: u64,
    /// Time from each launch to its end in seconds, by the host's clock.
    pub seconds: f64,
}

struct Inner {
    standing: Standing,
    memory: HashMap<Handle, Block>,
    next: u64,
    /// Freed blocks by size, which later allocations of the same size get.
    kept: HashMap<usize, Vec<CUdeviceptr>>,
    kept_bytes: usize,
    /// Bytes of memory of the device; 0 before it was asked.
    total: usize,
    /// Loaded sources with their origins.
    origins: BTreeMap<&'static str, Origin>,
    functions: HashMap<&'static str, Function>,
    /// `None` when launches are not timed.
    times: Option<BTreeMap<&'static str, KernelTime>>,
}

#[derive(Clone, Copy)]
struct Block {
    pointer: CUdeviceptr,
    bytes: usize,
}

struct Function {
    raw: CUfunction,
    signature: Vec<Kind>,
    /// Bytes of dynamic shared memory that it is allowed.
    shared: u32,
}

// SAFETY: a function handle belongs to its context and not to a thread.
unsafe impl Send for Function {}

/// Freed memory that is kept for later allocations: one part in so many of the device's.
const KEPT_PART: usize = 4;
/// Shared memory in bytes that every kernel is allowed by default.
const SHARED_BY_DEFAULT: u32 = 48 * 1024;

/// Names of the CUDA devices of this machine in the order of their numbers; empty without a driver.
///
/// # Errors
/// [`DriverError::Call`] when the driver is present and does not work.
pub fn devices() -> Result<Vec<String>, DriverError> {
    let call = |call| move |e: result::DriverError| DriverError::Call { call, why: format!("{:?}", e.0) };
    (0..count().map_err(|code| call("cuInit")(result::DriverError(code)))?)
        .map(|number| result::device::get_name(result::device::get(number)?))
        .collect::<Result<_, _>>()
        .map_err(call("cuDeviceGetName"))
}

fn count() -> Result<i32, CUresult> {
    if !library_is_present() {
        return Ok(0);
    }
    match CudaContext::device_count() {
        Err(result::DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        answer => answer.map_err(|e| e.0),
    }
}

/// Without the library every call of cudarc panics.
#[cfg(not(feature = "cuda"))]
fn library_is_present() -> bool {
    // SAFETY: only tries to open the library by its name.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// With candle's kernels the program is linked against the library and does not start without it.
#[cfg(feature = "cuda")]
fn library_is_present() -> bool {
    true
}

/// Whether a device number is valid, from the number of devices or the driver's error.
fn choose(number: usize, count: Result<i32, CUresult>) -> Result<i32, String> {
    match (count, i32::try_from(number)) {
        (Err(code), _) => Err(format!("the CUDA driver answers {code:?}")),
        (Ok(0), _) => Err("this machine has no CUDA driver or no CUDA device".to_owned()),
        (Ok(count), Ok(number)) if number < count => Ok(number),
        (Ok(count), _) => Err(format!("this machine has cuda:0 to cuda:{}", count - 1)),
    }
}

impl CudaDriver {
    /// The device of this number. A process has one driver for each device, and later calls return the same one.
    ///
    /// # Errors
    /// [`DriverError::Missing`] when there is no such device or it refuses a context.
    pub fn open(number: usize) -> Result<Arc<Self>, DriverError> {
        static OPEN: Mutex<BTreeMap<usize, Arc<CudaDriver>>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = open.get(&number) {
            return Ok(driver.clone());
        }
        let missing = |why| DriverError::Missing { device: format!("cuda:{number}"), why };
        choose(number, count()).map_err(missing)?;
        let driver = CudaContext::new(number)
            .and_then(|context| Self::on(context.new_stream()?))
            .map_err(|e| missing(format!("the CUDA driver answers {:?}", e.0)))?;
        Ok(open.entry(number).or_insert(Arc::new(driver)).clone())
    }

    fn on(stream: Arc<CudaStream>) -> Result<Self, result::DriverError> {
        let context = stream.context();
        let (major, minor) = context.compute_capability()?;
        let standing = Standing::new(Device::Cuda(context.ordinal()).to_string());
        Ok(Self {
            name: context.name()?,
            capability: u32::try_from(10 * major + minor).expect("a compute capability is positive"),
            stream,
            inner: Mutex::new(Inner {
                standing,
                memory: HashMap::new(),
                next: 0,
                kept: HashMap::new(),
                kept_bytes: 0,
                total: 0,
                origins: BTreeMap::new(),
                functions: HashMap::new(),
                times: None,
            }),
        })
    }

    /// The device.
    pub fn device(&self) -> Device {
        Device::Cuda(self.stream.context().ordinal())
    }

    /// Its compute capability, 90 for 9.0.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// Loads every source, and gives the origin of each.
    ///
    /// # Errors
    /// [`DriverError::Compile`], or the driver's error.
    pub fn load_all(&self) -> Result<BTreeMap<&'static str, Origin>, DriverError> {
        let mut inner = self.enter()?;
        for module in MODULES {
            if !inner.origins.contains_key(module.name) {
                inner.load(module, self.capability)?;
            }
        }
        Ok(inner.origins.clone())
    }

    /// Waits for all launches.
    ///
    /// # Errors
    /// The error of an earlier launch.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.wait(&mut *self.enter()?)
    }

    /// Starts or stops timing launches, each of which is then waited for. Gives the times so far; empty when launches
    /// were not timed.
    ///
    /// # Errors
    /// The error of an earlier launch.
    pub fn time_launches(&self, on: bool) -> Result<BTreeMap<&'static str, KernelTime>, DriverError> {
        let times = on.then(BTreeMap::new);
        Ok(std::mem::replace(&mut self.enter()?.times, times).unwrap_or_default())
    }

    fn wait(&self, inner: &mut Inner) -> Result<(), DriverError> {
        inner.told("cuStreamSynchronize", self.stream.synchronize())?;
        inner.standing.finished();
        Ok(())
    }

    /// Gives the memory that was kept back to the device.
    fn release(&self, inner: &mut Inner) -> Result<(), DriverError> {
        // A kernel may still use it.
        self.wait(inner)?;
        inner.kept_bytes = 0;
        for pointer in std::mem::take(&mut inner.kept).into_values().flatten() {
            // SAFETY: it was allocated here, nothing has its handle, and no kernel runs.
            inner.told("cuMemFree", unsafe { result::free_sync(pointer) })?;
        }
        Ok(())
    }

    /// The state, if the device accepts work. Binds the context to the calling thread.
    fn enter(&self) -> Result<MutexGuard<'_, Inner>, DriverError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.standing.check()?;
        inner.told("cuCtxSetCurrent", self.stream.context().bind_to_thread())?;
        Ok(inner)
    }

    fn attribute(&self, inner: &mut Inner, attribute: CUdevice_attribute) -> Result<usize, DriverError> {
        let value = inner.told("cuDeviceGetAttribute", self.stream.context().attribute(attribute))?;
        Ok(usize::try_from(value).expect("a size is at least 0"))
    }
}

impl Inner {
    /// Records an answer of the driver.
    fn told<T>(
        &mut self,
        call: &'static str,
        answer: Result<T, result::DriverError>,
    ) -> Result<T, DriverError> {
        answer.map_err(|e| self.standing.failed(call, e.0))
    }

    fn insert(&mut self, block: Block) -> Handle {
        self.next += 1;
        self.memory.insert(Handle(self.next), block);
        Handle(self.next)
    }

    /// The address of `length` bytes, `offset` past the start of a block.
    fn address(&self, memory: Handle, offset: usize, length: usize) -> Result<CUdeviceptr, String> {
        let block = self.memory.get(&memory).ok_or_else(|| format!("{memory:?} is not allocated"))?;
        match offset.checked_add(length) {
            Some(end) if end <= block.bytes => Ok(block.pointer + offset as CUdeviceptr),
            _ => Err(format!("{length} bytes at {offset} of a block of {}", block.bytes)),
        }
    }

    /// An argument for the driver: its bytes at the start of eight.
    fn value(&self, arg: Arg) -> Result<[u8; 8], String> {
        let mut value = [0; 8];
        match arg {
            Arg::Buffer(memory, offset) => value = self.address(memory, offset, 0)?.to_ne_bytes(),
            Arg::Null => {}
            Arg::I32(v) => value[..4].copy_from_slice(&v.to_ne_bytes()),
            Arg::I64(v) => value = v.to_ne_bytes(),
            Arg::F32(v) => value[..4].copy_from_slice(&v.to_ne_bytes()),
            Arg::F64(v) => value = v.to_ne_bytes(),
        }
        Ok(value)
    }

    fn load(&mut self, module: &'static Module, capability: u32) -> Result<(), DriverError> {
        let mut built = build(module, capability, Nvrtc::find().ok(), cache_folder().as_deref());
        let mut answer = load_image(&built.image);
        if built.origin != Origin::Release && answer.is_err_and(|e| !ends_context(e.0)) {
            // The driver may refuse the output of a newer NVRTC.
            built = build(module, capability, None, None);
            answer = load_image(&built.image);
        }
        let loaded = answer.map_err(|e| match self.standing.failed("cuModuleLoadData", e.0) {
            DriverError::Call { why, .. } => DriverError::Compile {
                module: module.name,
                log: format!("{why} at loading the {}", built.origin),
            },
            ended => ended,
        })?;
        for kernel in module.kernels {
            let missing = |why| DriverError::Compile { module: module.name, log: format!("{kernel}: {why}") };
            let signature = signature(module, kernel)
                .ok_or_else(|| missing("its parameters can't be read from the source".to_owned()))?;
            let name = CString::new(*kernel).map_err(|e| missing(e.to_string()))?;
            // SAFETY: the module is loaded and is never unloaded.
            let raw =
                unsafe { module::get_function(loaded, name) }.map_err(|e| missing(format!("{:?}", e.0)))?;
            self.functions.insert(kernel, Function { raw, signature, shared: SHARED_BY_DEFAULT });
        }
        self.origins.insert(module.name, built.origin);
        Ok(())
    }
}

fn load_image(image: &[u8]) -> Result<CUmodule, result::DriverError> {
    // SAFETY: the image is complete, and PTX ends in a null byte.
    unsafe { module::load_data(image.as_ptr().cast()) }
}

impl Driver for CudaDriver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn limits(&self) -> Result<Limits, DriverError> {
        let mut inner = self.enter()?;
        let (free, total) = inner.told("cuMemGetInfo", result::mem_get_info())?;
        inner.total = total;
        Ok(Limits {
            free: free + inner.kept_bytes,
            total,
            processors: self
                .attribute(&mut inner, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared: self.attribute(
                &mut inner,
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
        })
    }

    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError> {
        let mut inner = self.enter()?;
        // The driver refuses 0 bytes.
        let size = bytes.max(1);
        if let Some(pointer) = inner.kept.get_mut(&size).and_then(Vec::pop) {
            inner.kept_bytes -= size;
            return Ok(inner.insert(Block { pointer, bytes }));
        }
        // SAFETY: nothing reads the memory before it is written.
        let mut answer = unsafe { result::malloc_sync(size) };
        if answer == Err(result::DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) && inner.kept_bytes > 0 {
            self.release(&mut inner)?;
            // SAFETY: as above.
            answer = unsafe { result::malloc_sync(size) };
        }
        match answer {
            Ok(pointer) => Ok(inner.insert(Block { pointer, bytes })),
            Err(result::DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, _) = inner.told("cuMemGetInfo", result::mem_get_info())?;
                Err(DriverError::OutOfMemory { asked: bytes, free })
            }
            Err(e) => Err(inner.standing.failed("cuMemAlloc", e.0)),
        }
    }

    fn free(&self, memory: Handle) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(block) = inner.memory.remove(&memory) else {
            let why = format!("{memory:?} is not allocated");
            return inner.standing.later(DriverError::Call { call: "free", why });
        };
        if inner.standing.is_stopped() {
            return;
        }
        let size = block.bytes.max(1);
        if inner.kept_bytes + size <= inner.total / KEPT_PART {
            // Calls take effect in order, so whoever gets it next uses it after the kernels that still do.
            inner.kept.entry(size).or_default().push(block.pointer);
            inner.kept_bytes += size;
            return;
        }
        // A kernel may still use it.
        let freed = self.wait(&mut inner).and_then(|()| {
            // SAFETY: it was allocated here, its handle is gone, and no kernel runs.
            inner.told("cuMemFree", unsafe { result::free_sync(block.pointer) })
        });
        if let Err(e) = freed {
            inner.standing.later(e);
        }
    }

    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        let mut inner = self.enter()?;
        let address =
            inner.address(to, offset, bytes.len()).map_err(|why| DriverError::Call { call: "write", why })?;
        // SAFETY: the block has this length, and the bytes are borrowed until the copy is complete.
        let copied = unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) };
        inner.told("cuMemcpyHtoDAsync", copied)?;
        self.wait(&mut inner)
    }

    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        let mut inner = self.enter()?;
        let address = inner
            .address(from, offset, bytes.len())
            .map_err(|why| DriverError::Call { call: "read", why })?;
        // SAFETY: as for `write`.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream()) };
        inner.told("cuMemcpyDtoHAsync", copied)?;
        self.wait(&mut inner)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        let mut inner = self.enter()?;
        let refused = |why: String| DriverError::Launch { kernel: launch.kernel, shape: launch.into(), why };
        if !inner.functions.contains_key(launch.kernel) {
            let module = module_of(launch.kernel)
                .ok_or_else(|| refused("unknown kernel, expected one of `sources::MODULES`".to_owned()))?;
            inner.load(module, self.capability)?;
        }
        let values: Result<Vec<_>, _> = launch.args.iter().map(|arg| inner.value(*arg)).collect();
        let mut values = values.map_err(refused)?;
        let function = &inner.functions[launch.kernel];
        if !launch.args.iter().map(Kind::of_arg).eq(function.signature.iter().copied()) {
            return Err(refused(format!("it takes {:?}", function.signature)));
        }
        let (raw, opted) = (function.raw, function.shared);
        if launch.shared > opted {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared).map_err(|e| refused(e.to_string()))?;
            // SAFETY: the function is loaded.
            let answer = unsafe { result::function::set_function_attribute(raw, attribute, bytes) };
            answer.map_err(|e| inner.standing.failed_launch(launch, e.0))?;
            inner.functions.get_mut(launch.kernel).expect("the kernel is loaded").shared = launch.shared;
        }
        if inner.times.is_some() {
            self.wait(&mut inner)?;
        }
        let clock = Instant::now();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: the arguments have the number and sizes that the kernel takes, and the driver copies them before it
        // returns.
        let answer = unsafe {
            result::launch_kernel(
                raw,
                (gx, gy, gz),
                (bx, by, bz),
                launch.shared,
                self.stream.cu_stream(),
                &mut pointers,
            )
        };
        answer.map_err(|e| inner.standing.failed_launch(launch, e.0))?;
        inner.standing.launched(launch);
        if inner.times.is_some() {
            self.wait(&mut inner)?;
        }
        if let Some(times) = &mut inner.times {
            let time = times.entry(launch.kernel).or_default();
            time.launches += 1;
            time.seconds += clock.elapsed().as_secs_f64();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named_with_the_reason() {
        assert_eq!(choose(1, Ok(2)), Ok(1));
        assert!(choose(0, Ok(0)).unwrap_err().contains("no CUDA"));
        assert!(choose(2, Ok(2)).unwrap_err().contains("cuda:1"));
        assert!(choose(usize::MAX, Ok(2)).unwrap_err().contains("cuda:1"));
        let broken = choose(0, Err(CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)).unwrap_err();
        assert!(broken.contains("SYSTEM_DRIVER_MISMATCH"), "{broken}");
        // No machine has this many devices, and a machine without a driver must not panic.
        let error = CudaDriver::open(1 << 20).err().unwrap();
        assert!(matches!(error, DriverError::Missing { .. }), "{error}");
        assert!(error.to_string().starts_with("cuda:1048576 can't be used: "), "{error}");
    }
}
