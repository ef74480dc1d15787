//! The kernels on the processor, under three orders of their threads and blocks.

mod emulator;

use emulator::{Flavour, HostEmulator, SCHEDULES};
use mem2gen::ops::cuda::driver::{Arg, Driver, Launch};

#[test]
fn half_norms_under_every_schedule() {
    for schedule in SCHEDULES {
        let device = HostEmulator::new(Flavour::Plain, schedule);
        for (count, n) in [(1, 1), (7, 33), (9, 100)] {
            let rows: Vec<f32> = (0..count * n).map(|k| (k as f32 * 0.37).sin() + 100.0).collect();
            let centre: Vec<f32> = (0..n).map(|k| 100.0 + k as f32 * 0.01).collect();
            let upload = |values: &[f32]| {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
                let handle = device.alloc(bytes.len()).unwrap();
                device.write(handle, 0, &bytes).unwrap();
                handle
            };
            let (x, c) = (upload(&rows), upload(&centre));
            let out = device.alloc(4 * count).unwrap();
            let args = [
                Arg::Buffer(x, 0),
                Arg::Buffer(c, 0),
                Arg::Buffer(out, 0),
                Arg::I64(count as i64),
                Arg::I32(n as i32),
                Arg::I64(n as i64),
            ];
            let grid = [(count as u32).div_ceil(4), 1, 1];
            device
                .launch(&Launch { kernel: "half_norms", grid, block: [128, 1, 1], shared: 0, args: &args })
                .unwrap();
            let mut bytes = vec![0; 4 * count];
            device.read(out, 0, &mut bytes).unwrap();
            for (row, got) in rows.chunks(n).zip(bytes.chunks(4)) {
                let got = f32::from_ne_bytes(got.try_into().unwrap());
                let want: f64 =
                    row.iter().zip(&centre).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                assert_eq!(got, (want / 2.0) as f32, "{schedule:?} {count} {n}");
            }
        }
    }
}
