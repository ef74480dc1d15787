//! The kernels on the processor, under three orders of their threads and blocks.

use std::sync::Arc;

use crate::emulator::{Flavour, HostEmulator, Schedule};
use crate::suite;
use mem2gen::device::Device;
use mem2gen::ops::cuda::Resident;
use mem2gen::ops::cuda::driver::{Driver, Limits};
use mem2gen::ops::{OpError, Want};
use ndarray::Array2;

fn hold(schedule: Schedule) {
    let driver: Arc<dyn Driver> = Arc::new(HostEmulator::new(Flavour::Plain, schedule));
    suite::run(&driver, suite::ALL).unwrap();
}

#[test]
fn forward() {
    hold(Schedule::Forward);
}

#[test]
fn reverse() {
    hold(Schedule::Reverse);
}

#[test]
fn random() {
    hold(Schedule::Random(1));
}

/// When only some of the queries fit on the device at once, results are the same to the last bit, and all memory is
/// freed.
#[test]
fn batches_that_a_small_device_needs() {
    let rows = Array2::from_shape_fn((300, 40), |(i, k)| ((i * 41 + k * k) as f32 * 0.37).sin());
    let queries = Array2::from_shape_fn((200, 40), |(i, k)| ((i * 17 + k * k) as f32 * 0.61).cos());
    let run = |free: usize| {
        let limits = Limits { free, total: free, processors: 1, shared: 99 << 10 };
        let emulator = HostEmulator::new(Flavour::Plain, Schedule::Forward).with_limits(limits);
        let driver: Arc<dyn Driver> = Arc::new(emulator);
        let memories = Resident::upload(Arc::clone(&driver), Device::Cuda(0), rows.view())?;
        let read = memories.readout(queries.view(), 0.7, Want::ALL)?;
        let near = memories.knn(queries.view(), 5, false)?;
        drop(memories);
        assert_eq!(driver.limits().map(|l| l.free), Ok(free));
        Ok((read.energy, read.entropy, read.shift, near.index, near.distance))
    };
    let whole = run(1 << 30).unwrap();
    // 48 kB of memories, and 64 queries at a time.
    assert_eq!(run(128 << 10).unwrap(), whole);
    let none: OpError = run(32 << 10).unwrap_err();
    assert!(none.to_string().contains("allocate device memory"), "{none}");
}
