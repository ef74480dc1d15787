//! The kernels of `kernels/` compiled for the processor, behind the same trait as a CUDA device.
//!
//! A separate process (`runtime.cpp`) runs them with one fiber for each CUDA thread, so that a crash, a deadlock or a
//! sanitizer's report is an error of the test and does not end the tests. Compiled files are in cargo's folder for the
//! files of tests, named by a hash of sources and flags.
//!
//! It does not reproduce what only a GPU or NVIDIA's compiler does: contraction and approximate functions to the last
//! bit, the order in which other blocks see writes to global memory, registers, occupancy, speed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Handle, Launch, LaunchShape, Limits};
use mem2gen::ops::cuda::sources::{MODULES, Module};
use sha2::{Digest, Sha256};

const HEADER: &str = include_str!("emulator.hpp");
const RUNTIME: &str = include_str!("runtime.cpp");
/// Lines of a report that go into an error.
const LINES: usize = 40;

/// The order in which the threads of a block run, and the blocks of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// The first that can run, until it waits.
    Forward,
    /// The last that can run, until it waits.
    Reverse,
    /// Any that can run, by a seed.
    Random(u64),
}

/// Forward, reverse and one random order.
pub const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Random(1)];

/// The checks while the kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Only guards around memory.
    Plain,
    /// As plain, with the C library's fibers, the only ones on processors other than x86-64.
    Portable,
    /// AddressSanitizer and UndefinedBehaviorSanitizer.
    Address,
    /// ThreadSanitizer, for which every CUDA thread is a thread.
    Thread,
}

impl Flavour {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Portable => &["-O2"],
            Self::Address => &["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
            Self::Thread => &["-O1", "-g1", "-fsanitize=thread"],
        }
    }

    fn define(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Portable => Some("-DM2G_UCONTEXT"),
            Self::Address => Some("-DM2G_ASAN"),
            Self::Thread => Some("-DM2G_TSAN"),
        }
    }
}

/// One kernel file, with the files that it may include.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: &'static str,
    pub text: String,
    pub kernels: Vec<&'static str>,
    pub headers: Vec<(String, String)>,
}

/// The files of `kernels/` that a text includes, and those that they include.
pub fn headers(text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for name in text.lines().filter_map(|l| l.strip_prefix("#include \"")?.strip_suffix('"')) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name);
        if let Ok(text) = fs::read_to_string(path) {
            files.extend(headers(&text));
            files.push((name.into(), text));
        }
    }
    files
}

impl From<&Module> for Source {
    fn from(module: &Module) -> Self {
        Self {
            name: module.name,
            text: module.text.into(),
            kernels: module.kernels.to_vec(),
            headers: headers(module.text),
        }
    }
}

/// A driver that runs the kernels on the processor.
pub struct HostEmulator {
    flavour: Flavour,
    schedule: Schedule,
    sources: Vec<Source>,
    limits: Limits,
    seconds: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    loaded: Vec<&'static str>,
    sizes: HashMap<Handle, usize>,
    used: usize,
    stopped: Option<String>,
}

struct Process {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    errors: File,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process has no result to wait for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl HostEmulator {
    /// The kernels as they are.
    pub fn new(flavour: Flavour, schedule: Schedule) -> Self {
        Self::with_sources(flavour, schedule, MODULES.iter().map(Source::from).collect())
    }

    /// Other kernels.
    pub fn with_sources(flavour: Flavour, schedule: Schedule, sources: Vec<Source>) -> Self {
        let limits = Limits { free: 1 << 30, total: 1 << 30, processors: 4, shared: 99 << 10 };
        Self { flavour, schedule, sources, limits, seconds: 20, state: Mutex::default() }
    }

    /// A device of another size.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits each launch to this many seconds of processor time.
    pub fn with_seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, DriverError> {
        let state = self.state.lock().unwrap();
        match &state.stopped {
            Some(why) => Err(DriverError::Stopped { device: self.name(), why: why.clone() }),
            None => Ok(state),
        }
    }

    fn start(&self) -> Result<Process, String> {
        let runtime = build(self.flavour, "runtime", None)?;
        let (order, seed) = match self.schedule {
            Schedule::Forward => ("forward", 0),
            Schedule::Reverse => ("reverse", 0),
            Schedule::Random(seed) => ("random", seed),
        };
        let errors = tempfile::tempfile().map_err(|e| e.to_string())?;
        let mut child = Command::new(&runtime)
            .args([order, &seed.to_string(), &self.seconds.to_string()])
            .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0:redzone=1024")
            .env("UBSAN_OPTIONS", "print_stacktrace=1")
            .env("TSAN_OPTIONS", "halt_on_error=1:atexit_sleep_ms=0:report_signal_unsafe=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().map_err(|e| e.to_string())?)
            .spawn()
            .map_err(|e| format!("{}: {e}", runtime.display()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { unreachable!("piped") };
        Ok(Process { child, to, from, errors })
    }

    /// Sends a request and reads the answer; for a process that ended, the error is its report.
    fn ask(&self, state: &mut State, request: &[&[u8]], answer: &mut [u8]) -> Result<(), String> {
        if state.process.is_none() {
            state.process = Some(self.start()?);
        }
        let Some(process) = &mut state.process else { unreachable!("started") };
        let Err(broken) = process.ask(request, answer) else { return Ok(()) };
        let why = process.last_words().unwrap_or(broken.to_string());
        state.process = None;
        state.stopped = Some(why.clone());
        Err(why)
    }

    fn load(&self, state: &mut State, kernel: &'static str) -> Result<(), DriverError> {
        let source = self.sources.iter().find(|s| s.kernels.contains(&kernel));
        let Some(source) = source else {
            return Err(DriverError::Call { call: "load", why: format!("no kernel {kernel}") });
        };
        if state.loaded.contains(&source.name) {
            return Ok(());
        }
        let library = build(self.flavour, source.name, Some(source))
            .map_err(|log| DriverError::Compile { module: source.name, log })?;
        let path = library.to_string_lossy();
        self.ask(state, &[b"m", &word(path.len()), path.as_bytes()], &mut [])
            .map_err(|why| DriverError::Call { call: "load", why })?;
        state.loaded.push(source.name);
        Ok(())
    }
}

impl Process {
    fn ask(&mut self, request: &[&[u8]], answer: &mut [u8]) -> io::Result<()> {
        for part in request {
            self.to.write_all(part)?;
        }
        self.to.flush()?;
        self.from.read_exact(answer)?;
        self.from.read_exact(&mut [0])
    }

    fn last_words(&mut self) -> io::Result<String> {
        let end = self.child.wait()?;
        let mut text = String::new();
        self.errors.rewind()?;
        self.errors.read_to_string(&mut text)?;
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim_matches('=').is_empty()).take(LINES).collect();
        Ok(if lines.is_empty() { end.to_string() } else { lines.join("\n") })
    }
}

fn word(number: usize) -> [u8; 8] {
    (number as u64).to_ne_bytes()
}

impl Driver for HostEmulator {
    fn name(&self) -> String {
        format!("emulator, {:?}, {:?}", self.flavour, self.schedule)
    }

    fn limits(&self) -> Result<Limits, DriverError> {
        let used = self.state()?.used;
        Ok(Limits { free: self.limits.free - used, ..self.limits })
    }

    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError> {
        let mut state = self.state()?;
        let free = self.limits.free - state.used;
        if bytes > free {
            return Err(DriverError::OutOfMemory { asked: bytes, free });
        }
        let mut number = [0; 8];
        self.ask(&mut state, &[b"a", &word(bytes)], &mut number)
            .map_err(|why| DriverError::Call { call: "alloc", why })?;
        let handle = Handle(u64::from_ne_bytes(number));
        state.used += bytes;
        state.sizes.insert(handle, bytes);
        Ok(handle)
    }

    fn free(&self, memory: Handle) {
        let Ok(mut state) = self.state() else { return };
        state.used -= state.sizes.remove(&memory).unwrap_or(0);
        // A failure is kept for the next call.
        self.ask(&mut state, &[b"f", &memory.0.to_ne_bytes()], &mut []).ok();
    }

    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        let mut state = self.state()?;
        let request: [&[u8]; 5] = [b"w", &to.0.to_ne_bytes(), &word(offset), &word(bytes.len()), bytes];
        self.ask(&mut state, &request, &mut []).map_err(|why| DriverError::Call { call: "write", why })
    }

    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        let mut state = self.state()?;
        let request: [&[u8]; 4] = [b"r", &from.0.to_ne_bytes(), &word(offset), &word(bytes.len())];
        self.ask(&mut state, &request, bytes).map_err(|why| DriverError::Call { call: "read", why })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        let mut state = self.state()?;
        let shape = LaunchShape::from(launch);
        let failed = |why| DriverError::Launch { kernel: launch.kernel, shape, why };
        let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
        let [_, y, z] = launch.grid;
        if !(1..=1024).contains(&threads) || launch.block[2] > 64 {
            return Err(failed(format!("no block can have {threads} threads")));
        }
        if launch.grid.contains(&0) || launch.grid[0] > i32::MAX as u32 || y > 65535 || z > 65535 {
            return Err(failed("no grid can have this shape".into()));
        }
        if launch.shared as usize > self.limits.shared {
            return Err(failed(format!("a block has at most {} bytes of shared memory", self.limits.shared)));
        }
        self.load(&mut state, launch.kernel)?;
        let mut request = b"x".to_vec();
        request.extend(word(launch.kernel.len()));
        request.extend(launch.kernel.as_bytes());
        request.extend(launch.grid.iter().chain(&launch.block).flat_map(|n| n.to_ne_bytes()));
        request.extend(word(launch.shared as usize));
        request.extend(word(launch.args.len()));
        for &arg in launch.args {
            // Eight bytes each, of which a kernel reads as many as its type has.
            let (kind, bits) = match arg {
                Arg::Buffer(handle, _) => (b'p', handle.0),
                Arg::Null => (b'n', 0),
                Arg::I32(v) => (b'i', u64::from(v.cast_unsigned())),
                Arg::I64(v) => (b'l', v.cast_unsigned()),
                Arg::F32(v) => (b'f', u64::from(v.to_bits())),
                Arg::F64(v) => (b'd', v.to_bits()),
            };
            request.push(kind);
            request.extend(bits.to_ne_bytes());
            if let Arg::Buffer(_, offset) = arg {
                request.extend(word(offset));
            }
        }
        self.ask(&mut state, &[&request], &mut []).map_err(failed)
    }
}

type Built = Arc<OnceLock<Result<PathBuf, String>>>;

/// The runtime, or a library of the kernels of one source. Threads that need the same file wait for each other.
fn build(flavour: Flavour, name: &str, source: Option<&Source>) -> Result<PathBuf, String> {
    static BUILDS: Mutex<Option<HashMap<String, Built>>> = Mutex::new(None);
    let mut unit = String::new();
    let mut flags: Vec<String> = vec!["-std=c++20".into(), "-DMEM2GEN_HOST".into()];
    flags.extend(flavour.flags().iter().map(|&f| f.into()));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        flags.push("-march=x86-64-v3".into());
    }
    match source {
        Some(source) => {
            unit += &format!("#include \"{}.cu\"\n", source.name);
            for kernel in &source.kernels {
                unit += &format!("M2G_KERNEL({kernel})\n");
            }
            flags.extend(["-shared", "-fPIC"].map(String::from));
        }
        None => flags.push("-rdynamic".into()),
    }
    let text = source.map_or(RUNTIME, |s| &s.text);
    let mut hash = Sha256::new();
    let headers = source.map_or(&[][..], |s| &s.headers);
    let parts = [&flags.join(" "), HEADER, &unit, text];
    for part in parts.into_iter().chain(headers.iter().flat_map(|(name, text)| [&name[..], &text[..]])) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hash: String = hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
    let key = format!("{name}-{flavour:?}-{hash}").to_lowercase();
    let built = {
        let mut builds = BUILDS.lock().unwrap();
        Arc::clone(builds.get_or_insert_default().entry(key.clone()).or_default())
    };
    built
        .get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
            let done = folder.join(&key);
            if !done.exists() {
                fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
                let work = tempfile::tempdir_in(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
                compile(flavour, &flags, &unit, source, work.path())?;
                fs::rename(work.path().join("out"), &done).map_err(|e| format!("{}: {e}", done.display()))?;
            }
            Ok(done)
        })
        .clone()
}

/// Compiles into `out`. Files are named without their folder, so that messages say `score.cu:12`.
fn compile(
    flavour: Flavour,
    flags: &[String],
    unit: &str,
    source: Option<&Source>,
    folder: &Path,
) -> Result<(), String> {
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).map_err(|e| format!("{name}: {e}"));
    let mut compiler = Command::new("g++");
    compiler.current_dir(folder).args(flags);
    put("emulator.hpp", HEADER)?;
    match source {
        Some(source) => {
            for (name, text) in &source.headers {
                put(name, text)?;
            }
            put(&format!("{}.cu", source.name), &source.text)?;
            put("unit.cpp", unit)?;
            compiler.args(["unit.cpp", "-o", "out"]);
            return finish(&mut compiler);
        }
        None => put("runtime.cpp", RUNTIME)?,
    }
    // The runtime's code goes without the sanitizer that it is linked with.
    compiler.args(flavour.define()).args(["-fno-sanitize=all", "-c", "runtime.cpp", "-o", "runtime.o"]);
    finish(&mut compiler)?;
    let mut linker = Command::new("g++");
    linker.current_dir(folder).args(flags).args(["runtime.o", "-o", "out"]);
    finish(&mut linker)
}

fn finish(compiler: &mut Command) -> Result<(), String> {
    match compiler.output() {
        Ok(said) if said.status.success() => Ok(()),
        Ok(said) => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
        Err(e) => Err(format!("g++ is needed to run the kernels without a GPU, and can't be started: {e}")),
    }
}
