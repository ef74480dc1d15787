//! An interpreter of the PTX that NVIDIA's compiler makes of `kernels/`: a [`Driver`] that runs it on the processor
//! and checks more than a device does.
//!
//! It stops, with kernel, thread and line of the PTX, at an access out of bounds or not aligned; a read of shared or
//! global memory that was not written; accesses of two threads to a word of shared memory without a barrier between
//! them, if one of them writes, under any schedule; blocks of one launch that read or overwrite each other's results;
//! barriers that not all threads reach; shuffles from lanes that do not take part. Approximate functions have the
//! largest error that the PTX manual allows.
//!
//! It does not model time, caches, or the order of stores between threads beyond barriers. Shuffles are not barriers.

mod block;
mod memory;
mod op;
mod parse;
mod traffic;

pub use block::Schedule;
use block::{Block, Setting};
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Handle, Launch, LaunchShape, Limits};
use memory::Memory;
use parse::Kernel;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
pub use traffic::Traffic;

/// The opted-in shared memory of a block on sm_80.
const SHARED: u32 = 163 * 1024;
const THREADS: u32 = 1024;

/// A device that interprets PTX.
pub struct PtxEmulator {
    kernels: BTreeMap<String, Kernel>,
    schedule: Schedule,
    total: usize,
    state: Mutex<State>,
    log_traffic: bool,
}

/// Statistics of a kernel over all its launches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Largest number of threads per block, and of bytes of shared memory.
    pub threads: u32,
    pub shared: u32,
    /// Instructions executed by all threads.
    pub executed: u64,
    /// Traffic of all blocks, if it is counted.
    pub traffic: Traffic,
}

#[derive(Default)]
struct State {
    memory: Memory,
    seen: BTreeMap<String, Seen>,
    /// A wrong call of `free`, reported at the next call.
    wrong: Option<String>,
}

impl PtxEmulator {
    /// A device with this many bytes of memory and the kernels of some PTX modules.
    ///
    /// # Errors
    /// The first line of PTX that is not understood.
    pub fn new<'a>(
        modules: impl IntoIterator<Item = &'a str>,
        schedule: Schedule,
        total: usize,
    ) -> Result<Self, String> {
        let mut kernels = BTreeMap::new();
        for text in modules {
            kernels.extend(parse::parse(text)?);
        }
        Ok(Self { kernels, schedule, total, state: Mutex::default(), log_traffic: false })
    }

    /// The same, with counting of memory traffic, which is slow.
    pub fn with_traffic(self) -> Self {
        Self { log_traffic: true, ..self }
    }

    /// Statistics of the kernels launched so far, by name.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, launch: &Launch<'_>) -> Result<(), String> {
        let mut state = self.state();
        if let Some(wrong) = state.wrong.take() {
            return Err(wrong);
        }
        let kernel = self.kernels.get(launch.kernel).ok_or("no module has this kernel")?;
        let threads = launch.block.iter().product::<u32>();
        if threads == 0 || launch.grid.contains(&0) {
            return Err("no threads".into());
        }
        if threads > kernel.max_threads.unwrap_or(THREADS).min(THREADS) {
            return Err(format!("more threads a block than {THREADS}, or than the kernel is compiled for"));
        }
        if launch.grid[1].max(launch.grid[2]) > 65535 || launch.grid[0] > i32::MAX as u32 {
            return Err("more blocks than a grid can have".into());
        }
        if kernel.fixed_shared + launch.shared > SHARED {
            return Err(format!("more shared memory than {SHARED} bytes"));
        }
        let params = parameters(kernel, launch.args)?;
        let setting = Setting {
            kernel,
            memory: &state.memory,
            grid: launch.grid,
            block: launch.block,
            shared: launch.shared,
            params: &params,
            schedule: self.schedule,
            log_traffic: self.log_traffic,
        };
        let all = Mutex::new(Seen { threads, shared: launch.shared, ..Seen::default() });
        let blocks: u32 = launch.grid.iter().product();
        let outcome = (0..blocks).into_par_iter().try_for_each(|i| {
            let number = if self.schedule == Schedule::Reverse { blocks - 1 - i } else { i };
            let mut block = Block::new(&setting, number);
            let outcome = block.run();
            let mut seen = all.lock().unwrap_or_else(PoisonError::into_inner);
            seen.executed += block.executed;
            seen.traffic.shared.add(block.traffic().shared);
            seen.traffic.global.add(block.traffic().global);
            outcome.map_err(|fault| {
                let (line, text) = &kernel.lines[fault.inst];
                let thread = fault.thread;
                format!("block {number}, thread {thread}, PTX line {line}: {}: {text}", fault.why)
            })
        });
        state.memory.end_launch();
        let new = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seen = state.seen.entry(launch.kernel.to_string()).or_default();
        seen.threads = seen.threads.max(new.threads);
        seen.shared = seen.shared.max(new.shared);
        seen.executed += new.executed;
        seen.traffic.shared.add(new.traffic.shared);
        seen.traffic.global.add(new.traffic.global);
        outcome
    }
}

/// Values of a kernel's parameters; number and sizes have to be what the kernel declares.
fn parameters(kernel: &Kernel, args: &[Arg]) -> Result<Vec<u64>, String> {
    if args.len() != kernel.params.len() {
        return Err(format!("{} arguments for {} parameters", args.len(), kernel.params.len()));
    }
    let values = args.iter().zip(&kernel.params).enumerate().map(|(i, (arg, bytes))| {
        let (value, size) = match *arg {
            Arg::Buffer(handle, offset) => (Memory::address(handle.0, offset), 8),
            Arg::Null => (0, 8),
            Arg::I32(v) => (u64::from(v as u32), 4),
            Arg::I64(v) => (v as u64, 8),
            Arg::F32(v) => (u64::from(v.to_bits()), 4),
            Arg::F64(v) => (v.to_bits(), 8),
        };
        match size == *bytes {
            true => Ok(value),
            false => Err(format!("argument {i} has {size} bytes and its parameter {bytes}")),
        }
    });
    values.collect()
}

impl Driver for PtxEmulator {
    fn name(&self) -> String {
        format!("PTX interpreter, schedule {:?}", self.schedule)
    }

    fn limits(&self) -> Result<Limits, DriverError> {
        let free = self.total - self.state().memory.used;
        Ok(Limits { free, total: self.total, processors: 4, shared: SHARED as usize })
    }

    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError> {
        let mut state = self.state();
        let free = self.total - state.memory.used;
        if bytes > free {
            return Err(DriverError::OutOfMemory { asked: bytes, free });
        }
        Ok(Handle(state.memory.alloc(bytes)))
    }

    fn free(&self, memory: Handle) {
        let mut state = self.state();
        if let Err(why) = state.memory.free(memory.0) {
            state.wrong = Some(format!("free: {why}"));
        }
    }

    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        let outcome = self.state().memory.write(to.0, offset, bytes);
        outcome.map_err(|why| DriverError::Call { call: "write", why })
    }

    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        let outcome = self.state().memory.read(from.0, offset, bytes);
        outcome.map_err(|why| DriverError::Call { call: "read", why })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        let shape = LaunchShape::from(launch);
        self.run(launch).map_err(|why| DriverError::Launch { kernel: launch.kernel, shape, why })
    }
}
