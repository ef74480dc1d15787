//! The kernels as NVIDIA's compiler made PTX of them, run by an interpreter: no toolchain and no device needed.

mod ptx;

use mem2gen::ops::cuda::driver::{Arg, Driver, Launch};
use ptx::{PtxEmulator, Schedule};

const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Random(7)];

fn emulator(schedule: Schedule) -> PtxEmulator {
    let text = std::fs::read_to_string("kernels/ptx/prepare.ptx").unwrap();
    PtxEmulator::new([text.as_str()], schedule, 1 << 30).unwrap()
}

#[test]
fn half_norms() {
    for schedule in SCHEDULES {
        let d = emulator(schedule);
        let (count, n) = (37, 77);
        let rows: Vec<f32> = (0..count * n).map(|i| (i as f32 * 0.37).sin()).collect();
        let centre: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
        let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let a = d.alloc(rows.len() * 4).unwrap();
        let b = d.alloc(n * 4).unwrap();
        let c = d.alloc(count * 4).unwrap();
        d.write(a, 0, &bytes(&rows)).unwrap();
        d.write(b, 0, &bytes(&centre)).unwrap();
        let args = [
            Arg::Buffer(a, 0), Arg::Buffer(b, 0), Arg::Buffer(c, 0),
            Arg::I64(count as i64), Arg::I32(n as i32), Arg::I64(n as i64),
        ];
        d.launch(&Launch { kernel: "half_norms", grid: [10, 1, 1], block: [128, 1, 1], shared: 0, args: &args }).unwrap();
        let mut out = vec![0; count * 4];
        d.read(c, 0, &mut out).unwrap();
        for (k, got) in out.chunks(4).enumerate() {
            let got = f32::from_le_bytes(got.try_into().unwrap());
            let want: f64 = (0..n).map(|j| (f64::from(rows[k * n + j]) - f64::from(centre[j])).powi(2)).sum();
            assert!((f64::from(got) - want / 2.0).abs() < 1e-5 * want, "{got} {want}");
        }
    }
}
