//! The kernels as NVIDIA's compiler made PTX of them, run by an interpreter: no toolchain and no device needed.

use crate::ptx::{PtxEmulator, Schedule};
use crate::suite;
use mem2gen::device::Device;
use mem2gen::ops::cuda::Resident;
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Launch};
use mem2gen::ops::cuda::sources::MODULES;
use mem2gen::ops::{PairTile, Want};
use ndarray::Array2;
use rayon::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Random(7)];
const MEMORY: usize = 1 << 30;

fn kernels_file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name)).unwrap()
}

fn committed(module: &str) -> String {
    kernels_file(&format!("ptx/{module}.ptx"))
}

fn device(schedule: Schedule) -> PtxEmulator {
    let texts: Vec<String> = MODULES.iter().map(|m| committed(m.name)).collect();
    PtxEmulator::new(texts.iter().map(String::as_str), schedule, MEMORY).unwrap()
}

/// Whoever changes a kernel makes its PTX again (`make kernels-ptx`), or the tests would run the old one.
#[test]
fn the_committed_ptx_is_of_the_sources_at_hand() {
    for module in MODULES {
        let digest = Sha256::digest(module.unit());
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let text = committed(module.name);
        assert_eq!(
            text.lines().next().unwrap(),
            format!("// Source unit SHA-256 {digest}"),
            "{}",
            module.name
        );
        for kernel in module.kernels {
            assert!(text.contains(&format!(".entry {kernel}(")), "{kernel}");
        }
    }
}

/// A kernel of one parameter, a pointer, run by two warps; what the interpreter says of it.
fn verdict(schedule: Schedule, shared: u32, body: &str) -> Result<Vec<u8>, String> {
    let text = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 s[];\n\
         .visible .entry half_norms(\n.param .u64 p\n)\n{{\n.reg .pred %p<9>;\n\
         ld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd2, %rd1;\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd3, %r1, 4;\n\
         add.s64 %rd4, %rd2, %rd3;\nshl.b32 %r2, %r1, 2;\nmov.u32 %r3, s;\nadd.s32 %r4, %r3, %r2;\n\
         xor.b32 %r5, %r2, 128;\nadd.s32 %r6, %r3, %r5;\n{body}\nret;\n}}\n"
    );
    let device = PtxEmulator::new([text.as_str()], schedule, MEMORY)?;
    let told = |e: DriverError| e.to_string();
    let buffer = device.alloc(256).map_err(told)?;
    let args = [Arg::Buffer(buffer, 0)];
    let launch = Launch { kernel: "half_norms", grid: [1, 1, 1], block: [64, 1, 1], shared, args: &args };
    device.launch(&launch).map_err(told)?;
    let mut bytes = vec![0; 256];
    device.read(buffer, 0, &mut bytes).map_err(told)?;
    Ok(bytes)
}

/// Each thread writes its number to shared memory and gets that of the other warp's thread.
const EXCHANGE: &str =
    "st.shared.u32 [%r4], %r1;\nbar.sync 0;\nld.shared.u32 %r7, [%r6];\nst.global.u32 [%rd4], %r7;";

#[test]
fn what_is_right_runs_under_every_schedule() {
    for schedule in SCHEDULES {
        let got: Vec<u8> = verdict(schedule, 256, EXCHANGE).unwrap();
        assert!(got.chunks(4).enumerate().all(|(i, b)| b == (i as u32 ^ 32).to_le_bytes()), "{schedule:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let warp = "shfl.sync.down.b32 %r8|%p2, %r1, 1, 31, -1;\nst.global.u32 [%rd4], %r8;";
    let cases = [
        // No barrier: the other's word is read before it is written, or without order after it.
        (EXCHANGE.replace("bar.sync 0;\n", ""), 256, "shared memory"),
        // No barrier before the words are written again.
        (format!("{EXCHANGE}\nst.shared.u32 [%r4], %r7;"), 256, "no barrier since thread"),
        (EXCHANGE.to_string(), 252, "at byte 252 of 252"),
        (EXCHANGE.replace("[%r4]", "[%r4+2]"), 512, "not aligned"),
        (
            EXCHANGE.replace("st.global.u32 [%rd4]", "st.global.u32 [%rd4+4]"),
            256,
            "at byte 256 of a buffer of 256",
        ),
        (EXCHANGE.replace("st.global.u32 [%rd4]", "st.global.u32 [%rd3]"), 256, "in no buffer"),
        ("ld.global.u32 %r7, [%rd4];\nst.global.u32 [%rd4], %r7;".into(), 0, "nothing wrote"),
        (String::new(), 0, "was never written"),
        // A barrier that one warp alone comes to, or two that are not the same.
        ("setp.lt.u32 %p1, %r1, 32;\n@%p1 bar.sync 0;".into(), 0, "has left the kernel"),
        (
            "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $L1;\nbar.sync 0;\nbra $L2;\n$L1:\nbar.sync 0;\n$L2:".into(),
            0,
            "is at the one of line",
        ),
        (
            format!("and.b32 %r9, %r1, 31;\nsetp.eq.u32 %p1, %r9, 31;\n@%p1 bra $L1;\n{warp}\n$L1:"),
            0,
            "which takes no part",
        ),
        (
            format!("and.b32 %r9, %r1, 31;\nsetp.eq.u32 %p1, %r9, 31;\n@%p1 bar.sync 0;\n{warp}"),
            0,
            "deadlock: lanes named in the mask never come here",
        ),
        (warp.replace(", -1;", ", 2;"), 0, "without the lane"),
        ("frob.u32 %r7, %r1;".into(), 0, "PTX line 20: unknown instruction: frob.u32 %r7, %r1"),
        (
            "st.global.u32 [%rd4], %r77;".into(),
            0,
            "PTX line 20: half_norms reads a register that nothing writes",
        ),
    ];
    for schedule in SCHEDULES {
        for (body, shared, want) in &cases {
            let why = verdict(schedule, *shared, body).expect_err(body);
            assert!(why.contains(want), "{schedule:?}: {why}, not {want}");
        }
    }
}

fn suite_under(schedule: Schedule, checks: &[(&str, suite::Check)]) {
    let device: Arc<dyn Driver> = Arc::new(device(schedule));
    suite::run(&device, checks).unwrap();
}

// Races are found under any schedule, by barriers and not by values, so one that takes all cases is enough.
#[test]
fn all_cases_forward() {
    suite_under(Schedule::Forward, suite::ALL);
}

#[test]
fn a_case_of_each_kernel_in_reverse() {
    suite_under(Schedule::Reverse, suite::SMOKE);
}

#[test]
fn a_case_of_each_kernel_in_random_order() {
    suite_under(Schedule::Random(7), suite::SMOKE);
}

/// Each barrier of blocks is taken out of the PTX by itself, and each time the interpreter says so.
#[test]
fn no_barrier_of_the_tiles_can_be_spared() {
    let cases: [(&str, &str, suite::Check); 4] = [
        ("readout", "score_tiles", suite::readout_smoke),
        ("readout", "energy_tiles", suite::readout_smoke),
        ("distance", "knn_sieve", suite::knn_smoke),
        ("distance", "pairwise", suite::pairwise_smoke),
    ];
    for (module, kernel, check) in cases {
        let text = committed(module);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.iter().position(|l| l.contains(&format!(".entry {kernel}("))).unwrap();
        let end = start + lines[start..].iter().position(|l| *l == "}").unwrap();
        let barriers: Vec<usize> = (start..end).filter(|i| lines[*i].contains("bar.sync")).collect();
        assert!(barriers.len() >= 3, "{kernel}");
        let spared: Vec<usize> = barriers
            .into_par_iter()
            .filter(|barrier| {
                let without: Vec<&str> = [&lines[..*barrier], &lines[*barrier + 1..]].concat();
                let texts: Vec<String> = MODULES
                    .iter()
                    .map(|m| if m.name == module { without.join("\n") } else { committed(m.name) })
                    .collect();
                let device =
                    PtxEmulator::new(texts.iter().map(String::as_str), Schedule::Forward, MEMORY).unwrap();
                let device: Arc<dyn Driver> = Arc::new(device);
                check(&device).is_ok()
            })
            .collect();
        assert!(
            spared.is_empty(),
            "{kernel}: nothing changes without the barriers of lines {spared:?} and one"
        );
    }
}

/// What `kernels/limits.toml` says of a kernel's launches; the rest of it is for `tools/kernels.py`.
#[derive(Deserialize)]
struct Limit {
    threads: u32,
    shared: u32,
    banks: f64,
    sectors: f64,
}

/// 256 memories and 128 queries in so many dimensions, through all operations; the k nearest for k = 6.
fn operate(device: &Arc<dyn Driver>, n: usize) {
    let number = |i: usize, j: usize| ((i * n + j) as f32 * 0.618_034).fract();
    let rows = Array2::from_shape_fn((256, n), |(i, j)| number(i, j));
    let queries = Array2::from_shape_fn((128, n), |(i, j)| number(i + 999, j));
    let memories = Resident::upload(device.clone(), Device::Cuda(0), rows.view()).unwrap();
    for want in [Want::ENERGY, Want::ALL] {
        memories.readout(queries.view(), 1.0, want).unwrap();
    }
    if n == 8 || n > 32 {
        memories.knn(queries.view(), 6, false).unwrap();
    }
    if n > 32 {
        // More than the sieve keeps.
        memories.knn(queries.view(), 100, false).unwrap();
        memories.pairwise(queries.view(), |_: PairTile<'_, f32>| {}).unwrap();
    }
}

/// Passes over the banks of shared memory, and sectors of global memory, as the lanes of each warp ask for them.
#[test]
fn memory_traffic_is_within_its_limits() {
    let limits: BTreeMap<String, Limit> = toml::from_str(&kernels_file("limits.toml")).unwrap();
    let texts: Vec<String> = MODULES.iter().map(|m| committed(m.name)).collect();
    let texts = texts.iter().map(String::as_str);
    let device = Arc::new(PtxEmulator::new(texts, Schedule::Forward, MEMORY).unwrap().with_traffic());
    let driver: Arc<dyn Driver> = device.clone();
    for n in [2, 4, 8, 16, 32, 64] {
        operate(&driver, n);
    }
    let seen = device.seen();
    // What measures a card itself takes part in no operation.
    let operations = limits.keys().filter(|kernel| !kernel.starts_with("peak_"));
    assert!(seen.keys().eq(operations), "{:?} and {:?}", seen.keys(), limits.keys());
    let mut wrong = Vec::new();
    for (kernel, seen) in seen {
        let limit = &limits[&kernel];
        let (banks, sectors) = (seen.traffic.shared.excess(), seen.traffic.global.excess());
        let launch = (seen.threads, seen.shared);
        println!("{kernel}: {launch:?}, banks {banks:.3}, sectors {sectors:.3}");
        if launch != (limit.threads, limit.shared) || banks > limit.banks || sectors > limit.sectors {
            wrong.push(format!("{kernel}: launch {launch:?}, banks {banks:.3}, sectors {sectors:.3}"));
        }
    }
    assert!(wrong.is_empty(), "not as kernels/limits.toml has it: {wrong:#?}");
}
