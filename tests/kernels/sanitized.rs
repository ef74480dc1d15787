//! The kernels on the processor under sanitizers.

use std::sync::Arc;

use crate::emulator::{Flavour, HostEmulator, Schedule};
use crate::suite;
use mem2gen::ops::cuda::driver::Driver;

fn hold(flavour: Flavour, schedule: Schedule) {
    let driver: Arc<dyn Driver> = Arc::new(HostEmulator::new(flavour, schedule));
    suite::run(&driver, suite::SMOKE).unwrap();
}

#[test]
fn address_and_undefined_behaviour() {
    hold(Flavour::Address, Schedule::Forward);
}

#[test]
fn races() {
    hold(Flavour::Thread, Schedule::Forward);
}
