//! One block: its threads run one after the other, each until it blocks, in an order that the schedule sets.

use super::memory::Memory;
use super::parse::{Inst, Kernel, Op, POISON, Reduce, SHARED_BASE, SPECIAL, Shape, Shuffle, Space, Vote};
use super::traffic::{Log, Traffic};
use std::fmt;

const WARP: usize = 32;
/// Largest number of instructions of a thread between two barriers.
const ENDLESS: u64 = 1 << 31;

/// The order in which warps of a block, lanes of a warp, and blocks of a grid run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    Forward,
    Reverse,
    Random(u64),
}

/// The reason why a thread stopped, and its instruction.
pub struct Fault {
    pub thread: usize,
    pub inst: usize,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// At an instruction that its warp executes together.
    Warp,
    Barrier,
    Done,
}

/// The last writer and reader of a word of shared memory, and the number of block and warp barriers before. These times
/// reveal a missing barrier under any schedule, even one that gives correct values.
#[derive(Debug, Clone, Copy, Default)]
struct Shadow {
    /// Thread + 1; 0 for no thread.
    writer: u32,
    written: Time,
    reader: Reader,
    read: Time,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reader {
    #[default]
    Nobody,
    One(u32),
    Warp(u32),
    Many,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "nobody"),
            Self::One(thread) => write!(f, "thread {thread}"),
            Self::Warp(warp) => write!(f, "warp {warp}"),
            Self::Many => write!(f, "several warps"),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Time {
    block: u32,
    warp: u32,
}

/// The memory of a block.
struct Sight<'a> {
    memory: &'a Memory,
    block: u32,
    shared: Vec<u32>,
    shadows: Vec<Shadow>,
    shared_bytes: usize,
    /// Barriers passed by the block, and by each warp.
    barriers: u32,
    warp_barriers: Vec<u32>,
    /// The counter of traffic.
    log: Option<Log>,
}

impl Sight<'_> {
    fn now(&self, thread: usize) -> Time {
        Time { block: self.barriers, warp: self.warp_barriers[thread / WARP] }
    }

    /// Whether a barrier separates an access of `other` at `time` from the present access of `thread`.
    fn over(&self, time: Time, other: u32, thread: usize) -> bool {
        let now = self.now(thread);
        time.block < now.block
            || other as usize == thread
            || (other as usize / WARP == thread / WARP && time.warp < now.warp)
    }

    fn read_shared(&mut self, word: usize, thread: usize) -> Result<u32, String> {
        let shadow = self.shadows[word];
        if shadow.writer == 0 {
            return Err(format!("of byte {} of shared memory, which nothing wrote", 4 * word));
        }
        if !self.over(shadow.written, shadow.writer - 1, thread) {
            let writer = shadow.writer - 1;
            return Err(format!(
                "of byte {} of shared memory with no barrier since thread {writer} wrote it",
                4 * word
            ));
        }
        let (me, warp) = (thread as u32, (thread / WARP) as u32);
        let now = self.now(thread);
        let past = shadow.read.block < now.block;
        let shadow = &mut self.shadows[word];
        shadow.reader = match shadow.reader {
            Reader::One(other) if !past && other != me && other / WARP as u32 == warp => Reader::Warp(warp),
            Reader::One(other) if !past && other / WARP as u32 != warp => Reader::Many,
            Reader::Warp(other) if !past => {
                if other == warp {
                    Reader::Warp(warp)
                } else {
                    Reader::Many
                }
            }
            Reader::Many if !past => Reader::Many,
            _ => Reader::One(me),
        };
        shadow.read = now;
        Ok(self.shared[word])
    }

    fn write_shared(&mut self, word: usize, value: u32, thread: usize) -> Result<(), String> {
        let shadow = self.shadows[word];
        // Threads that write the same value together are well defined.
        if shadow.writer != 0
            && value != self.shared[word]
            && !self.over(shadow.written, shadow.writer - 1, thread)
        {
            let writer = shadow.writer - 1;
            return Err(format!(
                "of byte {} of shared memory with no barrier since thread {writer} wrote it",
                4 * word
            ));
        }
        let reader = match shadow.reader {
            Reader::Nobody => None,
            Reader::One(other) => Some(other),
            // Any other lane represents its warp.
            Reader::Warp(warp) => Some(warp * WARP as u32 + u32::from(thread.is_multiple_of(WARP))),
            Reader::Many => Some(u32::MAX),
        };
        if reader.is_some_and(|other| !self.over(shadow.read, other, thread)) {
            let reader = shadow.reader;
            return Err(format!(
                "of byte {} of shared memory with no barrier since {reader} read it",
                4 * word
            ));
        }
        let written = self.now(thread);
        let shadow = &mut self.shadows[word];
        (shadow.writer, shadow.written, shadow.reader) = (thread as u32 + 1, written, Reader::Nobody);
        self.shared[word] = value;
        Ok(())
    }

    /// Offset of an access within shared memory.
    fn place_shared(&self, address: u64, bytes: usize) -> Result<usize, String> {
        let size = self.shared_bytes;
        match usize::try_from(address) {
            Ok(at) if at.checked_add(bytes).is_some_and(|end| end <= size) => {
                match at.is_multiple_of(bytes) {
                    true => Ok(at),
                    false => {
                        Err(format!("{bytes} bytes at byte {at} of shared memory, which is not aligned"))
                    }
                }
            }
            _ => Err(format!("{bytes} bytes at byte {} of {size} bytes of shared memory", address as i64)),
        }
    }

    fn resolve(space: Space, address: u64) -> (Space, u64) {
        match space {
            Space::Generic if address >= SHARED_BASE => (Space::Shared, address - SHARED_BASE),
            Space::Generic => (Space::Global, address),
            _ => (space, address),
        }
    }

    fn note(&mut self, inst: usize, space: Space, shape: Shape, address: u64, thread: usize) {
        if let Some(log) = &mut self.log {
            let (space, address) = Self::resolve(space, address);
            let bytes = usize::from(shape.bytes) * usize::from(shape.count);
            log.note(inst, thread % WARP, space == Space::Shared, address, bytes);
        }
    }

    fn load(&mut self, space: Space, shape: Shape, address: u64, thread: usize) -> Result<[u64; 4], String> {
        let (bytes, count) = (usize::from(shape.bytes), usize::from(shape.count));
        let (space, address) = Self::resolve(space, address);
        let mut out = [0; 4];
        if space == Space::Shared {
            let at = self.place_shared(address, bytes * count)?;
            for (i, value) in out.iter_mut().enumerate().take(count) {
                let byte = at + i * bytes;
                *value = u64::from(self.read_shared(byte / 4, thread)?);
                match bytes {
                    4 => {}
                    8 => *value |= u64::from(self.read_shared(byte / 4 + 1, thread)?) << 32,
                    _ => *value = (*value >> (8 * (byte % 4))) & ((1 << (8 * bytes)) - 1),
                }
            }
        } else {
            let place = self.memory.place(address, bytes * count)?;
            for (i, value) in out.iter_mut().enumerate().take(count) {
                *value = place.load(i, bytes, self.block)?;
            }
        }
        if shape.signed && bytes < 4 {
            let unused = 64 - 8 * bytes as u32;
            out = out.map(|v| (((v << unused) as i64) >> unused) as u32 as u64);
        }
        Ok(out)
    }

    fn store(
        &mut self,
        space: Space,
        shape: Shape,
        address: u64,
        values: [u64; 4],
        thread: usize,
    ) -> Result<(), String> {
        let (bytes, count) = (usize::from(shape.bytes), usize::from(shape.count));
        let (space, address) = Self::resolve(space, address);
        if space == Space::Shared {
            let at = self.place_shared(address, bytes * count)?;
            for (i, value) in values.iter().enumerate().take(count) {
                let word = (at + i * bytes) / 4;
                match bytes {
                    4 => self.write_shared(word, *value as u32, thread)?,
                    8 => {
                        self.write_shared(word, *value as u32, thread)?;
                        self.write_shared(word + 1, (*value >> 32) as u32, thread)?;
                    }
                    _ => return Err("of less than 4 bytes of shared memory, which is not followed".into()),
                }
            }
            return Ok(());
        }
        let place = self.memory.place(address, bytes * count)?;
        for (i, value) in values.iter().enumerate().take(count) {
            place.store(i, bytes, *value, self.block)?;
        }
        Ok(())
    }
}

/// A block at work.
pub struct Block<'a> {
    kernel: &'a Kernel,
    threads: usize,
    registers: Vec<u64>,
    /// Next instruction of each thread.
    next: Vec<u32>,
    states: Vec<State>,
    sight: Sight<'a>,
    random: u64,
    schedule: Schedule,
    /// Instructions executed by all threads.
    pub executed: u64,
}

/// Grid, block and other data that all blocks of a launch share.
pub struct Setting<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    /// Values of the parameters.
    pub params: &'a [u64],
    pub schedule: Schedule,
    pub log_traffic: bool,
}

impl<'a> Block<'a> {
    /// The block of this number in the grid, before its first instruction.
    pub fn new(setting: &Setting<'a>, number: u32) -> Self {
        let kernel = setting.kernel;
        let [bx, by, bz] = setting.block;
        let [gx, gy, gz] = setting.grid;
        let threads = (bx * by * bz) as usize;
        let mut template = kernel.template.clone();
        let places = [number % gx, number / gx % gy, number / gx / gy];
        let special = [0, 0, 0, bx, by, bz, places[0], places[1], places[2], gx, gy, gz, 0];
        for (slot, value) in template.iter_mut().zip(special) {
            *slot = u64::from(value);
        }
        template[SPECIAL.len()..SPECIAL.len() + setting.params.len()].copy_from_slice(setting.params);
        let mut registers = Vec::with_capacity(threads * template.len());
        for thread in 0..threads as u32 {
            template[..3].copy_from_slice(&[thread % bx, thread / bx % by, thread / bx / by].map(u64::from));
            template[SPECIAL.len() - 1] = u64::from(thread) % WARP as u64;
            registers.extend_from_slice(&template);
        }
        let shared_bytes = (kernel.fixed_shared + setting.shared) as usize;
        let words = shared_bytes.div_ceil(4);
        let seed = match setting.schedule {
            Schedule::Random(seed) => seed,
            _ => 0,
        };
        Self {
            kernel,
            threads,
            registers,
            next: vec![0; threads],
            states: vec![State::Ready; threads],
            sight: Sight {
                memory: setting.memory,
                block: number,
                shared: vec![POISON as u32; words],
                shadows: vec![Shadow::default(); words],
                shared_bytes,
                barriers: 1,
                warp_barriers: vec![0; threads.div_ceil(WARP)],
                log: setting.log_traffic.then(Log::default),
            },
            random: seed ^ (u64::from(number) << 32),
            schedule: setting.schedule,
            executed: 0,
        }
    }

    /// Traffic of its accesses, if it is counted.
    pub fn traffic(&self) -> Traffic {
        self.sight.log.as_ref().map_or_else(Traffic::default, |log| log.traffic)
    }

    /// `0..count` in the order of the schedule.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        match self.schedule {
            Schedule::Forward => {}
            Schedule::Reverse => order.reverse(),
            Schedule::Random(_) => {
                for i in (1..count).rev() {
                    order.swap(i, splitmix(&mut self.random) as usize % (i + 1));
                }
            }
        }
        order
    }

    /// Runs all threads to their end.
    pub fn run(&mut self) -> Result<(), Fault> {
        loop {
            for warp in self.order(self.threads.div_ceil(WARP)) {
                let first = warp * WARP;
                let lanes = WARP.min(self.threads - first);
                loop {
                    for lane in self.order(lanes) {
                        if self.states[first + lane] == State::Ready {
                            self.run_thread(first + lane)?;
                        }
                    }
                    if let Some(log) = &mut self.sight.log {
                        log.close();
                    }
                    if !self.warp_step(first, lanes)? {
                        break;
                    }
                }
            }
            if self.states.iter().all(|s| *s == State::Done) {
                return Ok(());
            }
            self.barrier()?;
        }
    }

    fn fault(&self, thread: usize, why: String) -> Fault {
        Fault { thread, inst: self.next[thread] as usize, why }
    }

    fn line(&self, thread: usize) -> usize {
        self.kernel.lines[self.next[thread] as usize].0
    }

    /// Lets the block pass a barrier that all its threads have reached; otherwise the barrier would hang or be undefined.
    fn barrier(&mut self) -> Result<(), Fault> {
        if let Some(stuck) = self.states.iter().position(|s| *s == State::Warp) {
            return Err(self.fault(stuck, "deadlock: lanes named in the mask never come here".into()));
        }
        let at = self.states.iter().position(|s| *s == State::Barrier).unwrap_or(0);
        if let Some(gone) = self.states.iter().position(|s| *s == State::Done) {
            return Err(self.fault(at, format!("barrier after thread {gone} has left the kernel")));
        }
        if let Some(other) = (0..self.threads).find(|t| self.next[*t] != self.next[at]) {
            let line = self.line(other);
            return Err(self.fault(at, format!("barrier while thread {other} is at the one of line {line}")));
        }
        self.sight.barriers += 1;
        self.states.fill(State::Ready);
        self.next.iter_mut().for_each(|n| *n += 1);
        Ok(())
    }

    /// Executes the instructions at which lanes of a warp wait, once all lanes of the mask have reached them.
    fn warp_step(&mut self, first: usize, lanes: usize) -> Result<bool, Fault> {
        let mut stepped = false;
        let mut looked_at = 0u32;
        for lane in 0..lanes {
            if self.states[first + lane] != State::Warp || looked_at >> lane & 1 == 1 {
                continue;
            }
            let thread = first + lane;
            let inst = self.kernel.code[self.next[thread] as usize];
            let mask = self.mask(inst, thread);
            if mask >> lane & 1 == 0 {
                return Err(
                    self.fault(thread, format!("mask {mask:#x} without the lane {lane} that gives it"))
                );
            }
            let members: Vec<usize> = (0..lanes)
                .filter(|l| mask >> l & 1 == 1 && self.states[first + l] != State::Done)
                .map(|l| first + l)
                .collect();
            for member in &members {
                looked_at |= 1 << (member - first);
                let other = *member;
                if self.states[other] == State::Warp
                    && (self.next[other] != self.next[thread] || self.mask(inst, other) != mask)
                {
                    let line = self.line(other);
                    return Err(
                        self.fault(thread, format!("not taken together: thread {other} is at line {line}"))
                    );
                }
            }
            if members.iter().all(|m| self.states[*m] == State::Warp) {
                self.together(inst, &members)?;
                for member in members {
                    self.states[member] = State::Ready;
                    self.next[member] += 1;
                }
                stepped = true;
            }
        }
        Ok(stepped)
    }

    fn register(&self, thread: usize, slot: u16) -> u64 {
        self.registers[thread * self.kernel.template.len() + usize::from(slot)]
    }

    fn set(&mut self, thread: usize, slot: u16, value: u64) {
        self.registers[thread * self.kernel.template.len() + usize::from(slot)] = value;
    }

    fn mask(&self, inst: Inst, thread: usize) -> u32 {
        match inst.op {
            Op::WarpBarrier { mask }
            | Op::Shuffle { mask, .. }
            | Op::Vote { mask, .. }
            | Op::Reduce { mask, .. } => self.register(thread, mask) as u32,
            _ => 0,
        }
    }

    /// Executes one instruction for all lanes that take part.
    fn together(&mut self, inst: Inst, members: &[usize]) -> Result<(), Fault> {
        self.executed += members.len() as u64;
        match inst.op {
            Op::WarpBarrier { .. } => self.sight.warp_barriers[members[0] / WARP] += 1,
            Op::Shuffle { kind, d, inside, a, b, c, .. } => {
                let values: Vec<u64> = members.iter().map(|m| self.register(*m, a)).collect();
                for thread in members {
                    let lane = thread % WARP;
                    let (b, c) =
                        (self.register(*thread, b) as usize & 31, self.register(*thread, c) as usize);
                    let (clamp, segment) = (c & 31, c >> 8 & 31);
                    let low = lane & segment;
                    let high = low | (clamp & !segment);
                    let (from, ok) = match kind {
                        Shuffle::Up => (lane.wrapping_sub(b), lane as isize - b as isize >= high as isize),
                        Shuffle::Down => (lane + b, lane + b <= high),
                        Shuffle::Butterfly => (lane ^ b, lane ^ b <= high),
                        Shuffle::Index => (low | (b & !segment), low | (b & !segment) <= high),
                    };
                    let from = if ok { from } else { lane };
                    let Some(at) = members.iter().position(|m| m % WARP == from) else {
                        return Err(self.fault(*thread, format!("value of lane {from}, which takes no part")));
                    };
                    self.set(*thread, d, values[at]);
                    self.set(*thread, inside, u64::from(ok));
                }
            }
            Op::Vote { kind, d, a, negated, .. } => {
                let votes = members.iter().fold(0u32, |v, m| {
                    v | (((self.register(*m, a) as u32 & 1) ^ u32::from(negated)) << (m % WARP))
                });
                let all = members.iter().fold(0u32, |v, m| v | 1 << (m % WARP));
                let value = match kind {
                    Vote::All => u32::from(votes == all),
                    Vote::Any => u32::from(votes != 0),
                    Vote::Uniform => u32::from(votes == all || votes == 0),
                    Vote::Ballot => votes,
                };
                for thread in members {
                    self.set(*thread, d, u64::from(value));
                }
            }
            Op::Reduce { kind, signed, d, a, .. } => {
                let values = members.iter().map(|m| self.register(*m, a) as u32);
                let value = values.reduce(|x, y| match (kind, signed) {
                    (Reduce::Add, _) => x.wrapping_add(y),
                    (Reduce::Min, false) => x.min(y),
                    (Reduce::Max, false) => x.max(y),
                    (Reduce::Min, true) => (x as i32).min(y as i32) as u32,
                    (Reduce::Max, true) => (x as i32).max(y as i32) as u32,
                    (Reduce::And, _) => x & y,
                    (Reduce::Or, _) => x | y,
                    (Reduce::Xor, _) => x ^ y,
                });
                for thread in members {
                    self.set(*thread, d, u64::from(value.unwrap_or(0)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn run_thread(&mut self, thread: usize) -> Result<(), Fault> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instruction set.
            return unsafe { self.run_thread_fma(thread) };
        }
        self.run_thread_plain(thread)
    }

    /// The same code with fused multiply-add as one instruction instead of a call.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "fma,avx2")]
    fn run_thread_fma(&mut self, thread: usize) -> Result<(), Fault> {
        self.run_thread_plain(thread)
    }

    /// Runs a thread until it blocks or ends.
    #[inline(always)]
    fn run_thread_plain(&mut self, thread: usize) -> Result<(), Fault> {
        let width = self.kernel.template.len();
        let code = &self.kernel.code[..];
        let r = &mut self.registers[thread * width..(thread + 1) * width];
        let sight = &mut self.sight;
        let mut next = self.next[thread] as usize;
        let mut executed = 0;
        macro_rules! get {
            ($slot:expr) => {
                r[$slot as usize]
            };
        }
        macro_rules! single {
            ($slot:expr) => {
                f32::from_bits(get!($slot) as u32)
            };
        }
        let outcome = loop {
            let inst = &code[next];
            executed += 1;
            if inst.when != 0 && (get!(inst.guard) != 0) != (inst.when == 1) {
                next += 1;
                continue;
            }
            match inst.op {
                Op::Move { d, a } => get!(d) = get!(a),
                Op::One { f, d, a } => get!(d) = f(get!(a)),
                Op::Two { f, d, a, b } => get!(d) = f(get!(a), get!(b)),
                Op::Three { f, d, a, b, c } => get!(d) = f(get!(a), get!(b), get!(c)),
                Op::AddF32 { d, a, b } => get!(d) = u64::from((single!(a) + single!(b)).to_bits()),
                Op::MulF32 { d, a, b } => get!(d) = u64::from((single!(a) * single!(b)).to_bits()),
                Op::FmaF32 { d, a, b, c } => {
                    get!(d) = u64::from(single!(a).mul_add(single!(b), single!(c)).to_bits());
                }
                Op::FmaF64 { d, a, b, c } => {
                    let [a, b, c] = [get!(a), get!(b), get!(c)].map(f64::from_bits);
                    get!(d) = a.mul_add(b, c).to_bits();
                }
                Op::Lop3 { d, a, b, c, table } => {
                    let (a, b, c) = (get!(a), get!(b), get!(c));
                    let mut out = 0;
                    for row in 0..8 {
                        if table >> row & 1 == 1 {
                            let pick = |x: u64, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
                            out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
                        }
                    }
                    get!(d) = u64::from(out as u32);
                }
                Op::Insert { d, a, b, at, len } => {
                    let (at, len) = ((get!(at) & 0xff).min(32), (get!(len) & 0xff).min(32));
                    let mask = ((1u64 << len) - 1) << at & 0xffff_ffff;
                    get!(d) = (get!(b) & !mask & 0xffff_ffff) | ((get!(a) << at) & mask);
                }
                Op::Load { space, shape, d, at, off } => {
                    let address = get!(at).wrapping_add_signed(i64::from(off));
                    sight.note(next, space, shape, address, thread);
                    match sight.load(space, shape, address, thread) {
                        Ok(values) => {
                            for (d, value) in d.iter().zip(values).take(usize::from(shape.count)) {
                                get!(*d) = value;
                            }
                        }
                        Err(why) => break Err(format!("load {why}")),
                    }
                }
                Op::Store { space, shape, a, at, off } => {
                    let address = get!(at).wrapping_add_signed(i64::from(off));
                    sight.note(next, space, shape, address, thread);
                    if let Err(why) = sight.store(space, shape, address, a.map(|a| get!(a)), thread) {
                        break Err(format!("store {why}"));
                    }
                }
                Op::Branch { to } => {
                    next = to as usize;
                    if executed > ENDLESS {
                        break Err("a loop without end".into());
                    }
                    continue;
                }
                Op::Exit => break Ok(State::Done),
                Op::Barrier => break Ok(State::Barrier),
                Op::WarpBarrier { .. } | Op::Shuffle { .. } | Op::Vote { .. } | Op::Reduce { .. } => {
                    break Ok(State::Warp);
                }
                Op::Trap => break Err("trap".into()),
            }
            next += 1;
        };
        self.executed += executed;
        self.next[thread] = next as u32;
        self.states[thread] = outcome.map_err(|why| Fault { thread, inst: next, why })?;
        Ok(())
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
