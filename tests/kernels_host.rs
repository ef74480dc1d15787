//! The kernels on the processor, under three orders of their threads and blocks.

mod emulator;
#[path = "kernels/suite.rs"]
mod suite;

use std::sync::Arc;

use emulator::{Flavour, HostEmulator, Schedule};
use mem2gen::ops::cuda::driver::Driver;

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
