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

#[test]
fn parses_all() {
    for f in std::fs::read_dir("kernels/ptx").unwrap() {
        let f = f.unwrap().path();
        let text = std::fs::read_to_string(&f).unwrap();
        let d = PtxEmulator::new([text.as_str()], Schedule::Forward, 1 << 30);
        match d { Ok(d) => println!("{f:?} {:?}", d.kernels().collect::<Vec<_>>()), Err(e) => panic!("{f:?} {e}") }
    }
}

#[test]
fn trial() {
    let text = std::fs::read_to_string("kernels/ptx/readout.ptx").unwrap();
    for (schedule, width) in [(Schedule::Forward, 20usize), (Schedule::Reverse, 64), (Schedule::Random(3), 132)] {
        let d = PtxEmulator::new([text.as_str()], schedule, 1 << 30).unwrap();
        let (m, count) = (70usize, 300usize);
        let span = 200;
        let splits = 2;
        let mut s = 1u64;
        let mut rnd = || { s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); ((s >> 40) as f32) / (1 << 24) as f32 - 0.5 };
        let q: Vec<f32> = (0..m * width).map(|_| rnd()).collect();
        let y: Vec<f32> = (0..count * width).map(|_| rnd()).collect();
        let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let up = |v: &[f32]| { let a = d.alloc(v.len() * 4).unwrap(); d.write(a, 0, &bytes(v)).unwrap(); a };
        let centre = vec![0.0; width];
        let half: Vec<f32> = y.chunks(width).map(|r| r.iter().map(|x| x * x).sum::<f32>() / 2.0).collect();
        let norms: Vec<f64> = q.chunks(width).map(|r| r.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).collect();
        let nb: Vec<u8> = norms.iter().flat_map(|x| x.to_le_bytes()).collect();
        let nq = d.alloc(nb.len()).unwrap(); d.write(nq, 0, &nb).unwrap();
        let (qa, ya, ca, ha) = (up(&q), up(&y), up(&centre), up(&half));
        let outs: Vec<_> = (0..4).map(|_| d.alloc(splits * m * 8).unwrap()).collect();
        let heaviest = d.alloc(splits * m * 4).unwrap();
        let shift = d.alloc(splits * m * width * 4).unwrap();
        let args = [
            Arg::Buffer(qa, 0), Arg::I64(width as i64), Arg::I32(m as i32), Arg::Buffer(nq, 0),
            Arg::Buffer(ya, 0), Arg::I64(width as i64), Arg::I32(count as i32), Arg::Buffer(ca, 0),
            Arg::Buffer(ha, 0), Arg::I32(width as i32), Arg::I32(span), Arg::F64(5.0), Arg::F32(6e-8), Arg::F32(1e-6), Arg::F32(6.0),
            Arg::Buffer(outs[0], 0), Arg::Buffer(outs[1], 0), Arg::Buffer(outs[2], 0), Arg::Buffer(outs[3], 0), Arg::Buffer(heaviest, 0), Arg::Buffer(shift, 0),
        ];
        let t = std::time::Instant::now();
        let r = d.launch(&Launch { kernel: "score_tiles", grid: [2, 2, 1], block: [128, 1, 1], shared: (2 * 192 * 16 + 128 * 64) * 4 + 64 * 44 + 16, args: &args });
        println!("{:?} {} M instr, {:?}", t.elapsed(), d.executed() as f64 / 1e6, r);
        let mut out = vec![0; splits * m * 8];
        d.read(outs[0], 0, &mut out).unwrap();
        let mut worst = 0f64;
        for (i, got) in out.chunks(8).enumerate() {
            let got = f64::from_le_bytes(got.try_into().unwrap());
            let (split, j) = (i / m, i % m);
            let want = (split * 200..(split * 200 + 200).min(count)).map(|k| (0..width).map(|c| (f64::from(q[j * width + c]) - f64::from(y[k * width + c])).powi(2)).sum::<f64>()).fold(f64::INFINITY, f64::min);
            worst = worst.max((got - want).abs());
        }
        println!("worst {worst:e}");
    }
}
