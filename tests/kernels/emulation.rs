//! The emulation with which the kernels are tested: its results, and the faults that it must report.

use crate::emulator::{Flavour, HostEmulator, SCHEDULES, Schedule, Source, headers};
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Handle, Launch};

const FLAVOURS: [Flavour; 4] = [Flavour::Plain, Flavour::Portable, Flavour::Address, Flavour::Thread];

fn device(flavour: Flavour, schedule: Schedule) -> HostEmulator {
    let kernels = vec!["sums", "places", "shuffles", "early", "neighbours", "faults", "unwritten"];
    let text = include_str!("emulator/selftest.cu");
    let source = Source { name: "selftest", text: text.into(), kernels, headers: headers(text) };
    HostEmulator::with_sources(flavour, schedule, vec![source]).with_seconds(1)
}

fn devices() -> impl Iterator<Item = HostEmulator> {
    FLAVOURS.into_iter().flat_map(|flavour| SCHEDULES.map(|schedule| device(flavour, schedule)))
}

fn run(
    device: &HostEmulator,
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    args: &[Arg],
) -> Result<(), DriverError> {
    device.launch(&Launch { kernel, grid, block, shared, args })
}

fn upload(device: &HostEmulator, values: &[f32]) -> Handle {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let handle = device.alloc(bytes.len()).unwrap();
    device.write(handle, 0, &bytes).unwrap();
    handle
}

fn download<const N: usize, T>(
    device: &HostEmulator,
    from: Handle,
    count: usize,
    of: fn([u8; N]) -> T,
) -> Vec<T> {
    let mut bytes = vec![0; N * count];
    device.read(from, 0, &mut bytes).unwrap();
    bytes.chunks_exact(N).map(|b| of(b.try_into().unwrap())).collect()
}

#[test]
fn sums_through_shared_memory() {
    let x: Vec<f32> = (0..1000).map(|k| (k % 17) as f32).collect();
    let want: Vec<f32> = x.chunks(64).map(|part| 2.0 * part.iter().sum::<f32>()).collect();
    for device in devices() {
        let (from, out) = (upload(&device, &x), device.alloc(4 * want.len()).unwrap());
        let args = [Arg::Buffer(from, 0), Arg::Buffer(out, 0), Arg::I32(1000)];
        for _ in 0..2 {
            run(&device, "sums", [want.len() as u32, 1, 1], [64, 1, 1], 256, &args).unwrap();
        }
        assert_eq!(download(&device, out, want.len(), f32::from_ne_bytes), want, "{}", device.name());
    }
}

#[test]
fn every_thread_has_its_indices() {
    let (grid, block) = ([3, 2, 2], [5, 3, 2]);
    let mut want = Vec::new();
    for b in 0..12 {
        for t in 0..30 {
            want.extend([b % 3, b / 3 % 2, b / 6, t % 5, t / 5 % 3, t / 15]);
        }
    }
    for device in devices() {
        let out = device.alloc(4 * want.len()).unwrap();
        run(&device, "places", grid, block, 0, &[Arg::Buffer(out, 0)]).unwrap();
        assert_eq!(download(&device, out, want.len(), i32::from_ne_bytes), want, "{}", device.name());
    }
}

#[test]
fn shuffles_and_votes() {
    let mut want = Vec::new();
    for lane in 0..32_i32 {
        let low = lane < 16;
        let up = if lane % 8 < 2 { lane } else { lane - 2 };
        let down = if lane + 3 < 16 { lane + 3 } else { lane };
        let threes = (16..32).filter(|l| l % 3 == 0).map(|l| f64::from(1_u32 << l)).sum();
        want.extend([
            f64::from(lane / 8 * 8 + 5) * 1.5,
            f64::from(if low { lane ^ 3 } else { up }),
            if low { f64::from(down) } else { threes },
            f64::from(low),
            f64::from(!low),
            f64::from(lane ^ 16),
            f64::from(0xaaaa_aaaa_u32),
            f64::from((lane - 1).max(0)),
        ]);
    }
    for device in devices() {
        let out = device.alloc(8 * want.len()).unwrap();
        run(&device, "shuffles", [1; 3], [32, 1, 1], 0, &[Arg::Buffer(out, 0)]).unwrap();
        assert_eq!(download(&device, out, want.len(), f64::from_ne_bytes), want, "{}", device.name());
    }
}

#[test]
fn other_lanes_do_not_wait_for_lanes_that_ended() {
    for device in devices() {
        let out = upload(&device, &[0.0; 32]);
        // 20 threads, so that 12 lanes do not exist, and 13 of the 20 continue.
        run(&device, "early", [1; 3], [20, 1, 1], 0, &[Arg::Buffer(out, 0), Arg::I32(13)]).unwrap();
        let got = download(&device, out, 32, f32::from_ne_bytes);
        for (lane, got) in got.into_iter().enumerate() {
            match lane {
                0..12 => assert_eq!(got, 13.0 + lane as f32 + 1.0, "{}", device.name()),
                12 => assert!(got.is_nan(), "{}", device.name()),
                _ => assert_eq!(got, 0.0),
            }
        }
    }
}

#[test]
fn lanes_see_writes_before_a_warp_barrier() {
    let want: Vec<f32> = (0..64).map(|t| (t ^ 1) as f32 + 2.0).collect();
    for device in devices() {
        let out = upload(&device, &[0.0; 64]);
        run(&device, "neighbours", [1; 3], [64, 1, 1], 256, &[Arg::Buffer(out, 0)]).unwrap();
        assert_eq!(download(&device, out, 64, f32::from_ne_bytes), want, "{}", device.name());
    }
}

#[test]
fn unwritten_memory_is_nan() {
    for device in devices() {
        let (out, fresh) = (upload(&device, &[0.0; 64]), device.alloc(64 * 4).unwrap());
        assert!(download(&device, fresh, 64, f32::from_ne_bytes).iter().all(|v| v.is_nan()));
        for _ in 0..2 {
            run(&device, "neighbours", [1; 3], [64, 1, 1], 256, &[Arg::Buffer(out, 0)]).unwrap();
            run(&device, "unwritten", [1; 3], [64, 1, 1], 256, &[Arg::Buffer(out, 0)]).unwrap();
            assert!(download(&device, out, 64, f32::from_ne_bytes).iter().all(|v| v.is_nan()));
        }
    }
}

/// The message about fault `which` in a grid of this many blocks.
fn fault(flavour: Flavour, schedule: Schedule, which: i32, blocks: u32) -> Option<String> {
    let device = device(flavour, schedule);
    let out = upload(&device, &[0.0; 64]);
    let args = [Arg::Buffer(out, 0), Arg::I32(which)];
    match run(&device, "faults", [blocks, 1, 1], [64, 1, 1], 256, &args) {
        Ok(()) => None,
        Err(DriverError::Launch { kernel: "faults", why, .. }) => {
            assert!(matches!(device.alloc(4), Err(DriverError::Stopped { .. })));
            Some(why)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_fault_is_reported() {
    let (plain, address, thread) = ([Flavour::Plain], [Flavour::Address], [Flavour::Thread]);
    let cases: [(i32, &[Flavour], &str); 21] = [
        (0, &FLAVOURS, "divergent barrier of faults in block (0,0,0)"),
        (
            0,
            &plain,
            "threads 0-31 at __syncthreads, selftest.cu:85\n  threads 32-63 at __syncthreads, selftest.cu:86",
        ),
        (1, &FLAVOURS, "threads 0-31 at __syncthreads, selftest.cu:89\n  threads 32-63 ended"),
        (2, &FLAVOURS, "divergent barrier"),
        (3, &FLAVOURS, "deadlock"),
        (
            3,
            &plain,
            "threads 0-30 at __shfl_sync, selftest.cu:97, for lanes ffffffff\n  threads 31-63 at __syncthreads",
        ),
        (4, &FLAVOURS, "lane"),
        (5, &plain, "faults wrote to byte 1 past the end of a buffer of 256 bytes"),
        (5, &address, "heap-buffer-overflow"),
        (6, &plain, "before a buffer of 256 bytes"),
        (6, &address, "heap-buffer-overflow"),
        (7, &plain, "past the end of its 256 bytes of shared memory"),
        (7, &address, "heap-buffer-overflow"),
        (8, &plain, "crashed in block (0,0,0), thread 5"),
        (10, &thread, "data race"),
        (11, &thread, "data race"),
        (13, &thread, "data race"),
        (14, &address, "heap-buffer-overflow"),
        (15, &address, "misaligned address"),
        (16, &thread, "data race"),
        (17, &address, "shift"),
    ];
    for (which, flavours, want) in cases {
        for &flavour in flavours {
            let one = [Schedule::Random(2)];
            for &schedule in if flavour == Flavour::Plain { &SCHEDULES[..] } else { &one[..] } {
                let why = fault(flavour, schedule, which, 1).unwrap_or_default();
                assert!(why.contains(want), "fault {which}, {flavour:?}, {schedule:?}:\n{why}");
            }
        }
    }
    let endless = fault(Flavour::Plain, Schedule::Forward, 9, 1).unwrap_or_default();
    assert!(endless.contains("ran out of time in block (0,0,0), thread 7"), "{endless}");
    for schedule in SCHEDULES {
        let race = fault(Flavour::Thread, schedule, 12, 2).unwrap_or_default();
        assert!(race.contains("data race") && race.contains("selftest.cu:"), "{race}");
        assert_eq!(fault(Flavour::Thread, schedule, 12, 1), None);
    }
}

#[test]
fn invalid_launches_are_refused() {
    let device = device(Flavour::Plain, Schedule::Forward);
    let out = device.alloc(256).unwrap();
    let args = [Arg::Buffer(out, 0)];
    let refused =
        |grid, block, shared| run(&device, "unwritten", grid, block, shared, &args).unwrap_err().to_string();
    assert!(refused([1; 3], [1025, 1, 1], 0).contains("1025 threads"));
    assert!(refused([1; 3], [0, 1, 1], 0).contains("0 threads"));
    assert!(refused([0, 1, 1], [1; 3], 0).contains("grid"));
    assert!(refused([1, 65536, 1], [1; 3], 0).contains("grid"));
    assert!(refused([1; 3], [1; 3], 1 << 20).contains("shared memory"));
    let free = device.limits().unwrap().free;
    assert_eq!(device.alloc(free + 1), Err(DriverError::OutOfMemory { asked: free + 1, free }));
    device.free(out);
    assert_eq!(device.limits().unwrap().free, free + 256);
    let wrong = run(&device, "places", [1; 3], [1; 3], 0, &[Arg::I32(3)]).unwrap_err().to_string();
    assert!(wrong.contains("argument 0 of places is of kind p, given i"), "{wrong}");
}

#[test]
fn a_compile_error_is_reported() {
    let text = "int f() { return x; }\n".into();
    let source = Source { name: "broken", text, kernels: vec!["none"], headers: Vec::new() };
    let device = HostEmulator::with_sources(Flavour::Plain, Schedule::Forward, vec![source]);
    match run(&device, "none", [1; 3], [1; 3], 0, &[]) {
        Err(DriverError::Compile { module: "broken", log }) => assert!(log.contains("broken.cu:1"), "{log}"),
        other => panic!("{other:?}"),
    }
}
