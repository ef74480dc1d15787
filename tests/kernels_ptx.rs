//! The kernels as NVIDIA's compiler made PTX of them, run by an interpreter: no toolchain and no device needed.

mod ptx;

use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Launch};
use mem2gen::ops::cuda::sources::MODULES;
use ptx::{PtxEmulator, Schedule};
use sha2::{Digest, Sha256};
use std::path::Path;

const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Random(7)];
const MEMORY: usize = 1 << 30;

fn committed(module: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kernels/ptx/{module}.ptx"));
    std::fs::read_to_string(path).unwrap()
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
