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

/// Opens the stand-in, and gives its count of allocations. Whoever asks for libcuda later finds it by the name that it
/// was linked with.
fn stand_in() -> impl Fn() -> i32 {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcuda.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().unwrap().success());
    // SAFETY: it has no initialisers.
    let library = Box::leak(Box::new(unsafe { libloading::Library::new(&library) }.unwrap()));
    std::fs::remove_dir_all(&folder).unwrap();
    // SAFETY: an int of this name, which is there as long as the process.
    let count = unsafe { library.get::<*const i32>(b"stand_in_allocations") }.unwrap();
    // SAFETY: as above, and no other thread writes it.
    move || unsafe { count.read_volatile() }
}

fn freed_memory_is_used_again(driver: &dyn Driver, allocations: impl Fn() -> i32) {
    let free = driver.limits().unwrap().free;
    let first = driver.alloc(40_000).unwrap();
    driver.free(first);
    let before = allocations();
    let second = driver.alloc(40_000).unwrap();
    assert_eq!(allocations(), before, "memory of the same size was asked for again");
    assert!(driver.read(first, 0, &mut [0]).is_err(), "a freed handle is valid");
    assert_eq!(driver.limits().unwrap().free, free - 40_000);
    driver.free(second);
    // All of it: what was kept goes back to the device first.
    let all = driver.alloc(free).unwrap();
    assert_eq!(driver.limits().unwrap().free, 0);
    driver.free(all);
    assert_eq!(driver.limits().unwrap().free, free);
}

/// One test, as its parts share the device, and the last one ends its context.
#[test]
fn memory_launches_and_errors() {
    let allocations = stand_in();
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
    freed_memory_is_used_again(&*driver, allocations);
    device::memory_is_kept_and_guarded(&*driver);
    device::launches_are_checked(&*driver);
    assert_eq!(driver.limits().unwrap().free, limits.free, "memory was not given back");
    device::an_illegal_access_names_its_kernel_and_stops_the_device(&*driver);
}
