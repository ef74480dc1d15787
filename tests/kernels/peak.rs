//! The kernels that measure a card's limits do all the work that their rates count.

use crate::emulator::{Flavour, HostEmulator, Schedule};
use mem2gen::ops::cuda::driver::{Arg, Driver, Launch};

#[test]
fn every_element_is_copied_and_every_chain_is_complete() {
    let driver = HostEmulator::new(Flavour::Plain, Schedule::Forward);
    let run = |kernel, args: &[Arg]| {
        driver.launch(&Launch { kernel, grid: [3, 1, 1], block: [64, 1, 1], shared: 0, args }).unwrap();
    };
    // More pieces than threads, and no multiple of them.
    let bytes: Vec<u8> = (0..16 * 1000).map(|i| (i % 251) as u8).collect();
    let [from, to] = [0; 2].map(|_| driver.alloc(bytes.len()).unwrap());
    driver.write(from, 0, &bytes).unwrap();
    run("peak_copy", &[Arg::Buffer(from, 0), Arg::Buffer(to, 0), Arg::I64(1000)]);
    let mut found = vec![0; bytes.len()];
    driver.read(to, 0, &mut found).unwrap();
    assert!(found == bytes);

    // Chains start at t + 0 to t + 7 and double at each step, after which 1 is added.
    let out = driver.alloc(4 * 3 * 64).unwrap();
    for steps in [0, 1, 5, 16, 17] {
        run("peak_fma", &[Arg::Buffer(out, 0), Arg::F32(2.0), Arg::F32(1.0), Arg::I32(steps)]);
        let mut sums = [0; 4 * 3 * 64];
        driver.read(out, 0, &mut sums).unwrap();
        for (i, sum) in sums.as_chunks::<4>().0.iter().enumerate() {
            let doubled = (1u64 << steps) as f32;
            let due: f32 = (0..8).map(|c| doubled * (i % 64 + c) as f32 + (doubled - 1.0)).sum();
            let found = f32::from_ne_bytes(*sum);
            assert!((found - due).abs() <= 1e-5 * due, "{steps} steps, thread {i}: {found}, not {due}");
        }
    }
}
