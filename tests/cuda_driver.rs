//! The driver layer without a device: memory, launches and errors, against a library that stands in for libcuda.
//!
//! A test program of its own: it changes the environment, and whatever looks for a device in its process finds the
//! stand-in, whose context ends with the test.

// Linked against the real library, the program would not take another.
#![cfg(not(feature = "cuda"))]

mod device;

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mem2gen::device::{Device, DeviceChoice};
use mem2gen::ops::cuda::compile::Origin;
use mem2gen::ops::cuda::device::{CudaDriver, devices};
use mem2gen::ops::cuda::driver::{Driver, DriverError};
use mem2gen::ops::cuda::sources::MODULES;
use mem2gen::ops::resolve;

/// Opens the stand-in. Whoever asks for libcuda later finds it by the name that it was linked with.
fn stand_in() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcuda.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().unwrap().success());
    // SAFETY: it has no initialisers.
    std::mem::forget(unsafe { libloading::Library::new(&library) }.unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// One test, as its parts share the device, and the last one ends its context.
#[test]
fn memory_launches_and_errors() {
    stand_in();
    let cache = tempfile::tempdir().unwrap();
    // SAFETY: nothing else runs in this process.
    unsafe { env::set_var("MEM2GEN_CACHE", cache.path()) };
    assert_eq!(devices(), Ok(vec!["stand-in".to_owned()]));
    let driver = CudaDriver::open(0).unwrap();
    assert!(Arc::ptr_eq(&driver, &CudaDriver::open(0).unwrap()));
    assert!(
        matches!(CudaDriver::open(1), Err(DriverError::Missing { why, .. }) if why.contains("cuda:0 to cuda:0"))
    );
    let (device, auto) = resolve(DeviceChoice::Auto).unwrap();
    assert_eq!((device, auto.map(|d| d.name())), (Device::Cuda(0), Some("stand-in".to_owned())));
    assert_eq!((driver.name(), driver.capability()), ("stand-in".to_owned(), 80));
    let limits = driver.limits().unwrap();
    assert_eq!((limits.free, limits.processors, limits.shared), (1 << 20, 4, 99 << 10));

    // It takes PTX alone, so what an NVRTC of this machine makes is refused.
    let origins = driver.load_all().unwrap();
    assert!(MODULES.iter().all(|m| origins[m.name] == Origin::Release), "{origins:?}");
    device::memory_is_kept_and_guarded(&*driver);
    device::launches_are_checked(&*driver);
    assert_eq!(driver.limits().unwrap().free, limits.free, "memory was not given back");
    device::an_illegal_access_names_its_kernel_and_stops_the_device(&*driver);
}
