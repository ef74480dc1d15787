//! Parses a PTX module into kernels whose operands are slots of one register file. Unknown text is refused with its line.

use super::op::{Function, conversion, function};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Value of a register before it is written: NaN as f32 and as f64, outside every buffer as an address.
pub const POISON: u64 = 0x7fff_dead_7fff_dead;
/// Generic address at which shared memory begins.
pub const SHARED_BASE: u64 = 1 << 60;

/// Registers that are set when a thread starts, in this order at the front of its file.
pub const SPECIAL: [&str; 13] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
];

/// Index of a register of 64 bits.
pub type Slot = u16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Generic,
}

/// Bytes, count and sign of what a load or a store moves.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub bytes: u8,
    pub count: u8,
    pub signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy)]
pub enum Op {
    Move {
        d: Slot,
        a: Slot,
    },
    One {
        f: fn(u64) -> u64,
        d: Slot,
        a: Slot,
    },
    Two {
        f: fn(u64, u64) -> u64,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Three {
        f: fn(u64, u64, u64) -> u64,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    // The four that the inner loops are made of.
    AddF32 {
        d: Slot,
        a: Slot,
        b: Slot,
    },
    MulF32 {
        d: Slot,
        a: Slot,
        b: Slot,
    },
    FmaF32 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    FmaF64 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Lop3 {
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        table: u8,
    },
    /// The low `len` bits of `a` put into `b` at bit `at`, in 32 bits.
    Insert {
        d: Slot,
        a: Slot,
        b: Slot,
        at: Slot,
        len: Slot,
    },
    Load {
        space: Space,
        shape: Shape,
        d: [Slot; 4],
        at: Slot,
        off: i32,
    },
    Store {
        space: Space,
        shape: Shape,
        a: [Slot; 4],
        at: Slot,
        off: i32,
    },
    Branch {
        to: u32,
    },
    Exit,
    Barrier,
    WarpBarrier {
        mask: Slot,
    },
    Shuffle {
        kind: Shuffle,
        d: Slot,
        inside: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        mask: Slot,
    },
    Vote {
        kind: Vote,
        d: Slot,
        a: Slot,
        negated: bool,
        mask: Slot,
    },
    Reduce {
        kind: Reduce,
        signed: bool,
        d: Slot,
        a: Slot,
        mask: Slot,
    },
    Trap,
}

/// One instruction and its predicate.
#[derive(Clone, Copy)]
pub struct Inst {
    pub op: Op,
    pub guard: Slot,
    /// 0: always, 1: if the guard is true, 2: if it is false.
    pub when: u8,
}

/// A kernel, decoded.
pub struct Kernel {
    pub name: String,
    /// Bytes of each parameter.
    pub params: Vec<u8>,
    pub code: Vec<Inst>,
    /// Line and text of each instruction.
    pub lines: Vec<(usize, String)>,
    /// Initial register file of a thread; parameters follow [`SPECIAL`].
    pub template: Vec<u64>,
    /// Bytes of shared memory that the module declares.
    pub fixed_shared: u32,
    /// Largest number of threads of a block, if the kernel states it.
    pub max_threads: Option<u32>,
}

/// The kernels of a module, by name.
///
/// # Errors
/// The first line that is not understood.
pub fn parse(text: &str) -> Result<BTreeMap<String, Kernel>, String> {
    let mut kernels = BTreeMap::new();
    let mut globals = Globals::default();
    let mut open: Option<Decoder> = None;
    for (line, statement) in statements(text) {
        let at = |why: String| format!("PTX line {line}: {why}: {statement}");
        match &mut open {
            None => match header(&statement, &mut globals).map_err(at)? {
                Some(decoder) => open = Some(decoder),
                None => continue,
            },
            Some(decoder) => {
                if decoder.statement(line, &statement).map_err(at)? {
                    let kernel = open.take().map(|d| d.finish(&globals)).transpose()?;
                    kernels.extend(kernel.map(|k| (k.name.clone(), k)));
                }
            }
        }
    }
    if open.is_some() {
        return Err("the module ends within a kernel".into());
    }
    Ok(kernels)
}

/// Shared variables of the module: offset of each by name.
#[derive(Default)]
struct Globals {
    shared: HashMap<String, u32>,
    fixed: u32,
}

/// Statements with the line that each begins on; braces that open or close a scope, and labels with their colon,
/// are statements too.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let (mut current, mut began) = (String::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or("");
        for c in line.chars() {
            let start = current.trim_start();
            let head =
                start.is_empty() || start.starts_with(".visible .entry") || start.starts_with(".entry");
            match c {
                ';' => out.push((began, std::mem::take(&mut current))),
                '{' | '}' if head => {
                    if !start.is_empty() {
                        out.push((began, std::mem::take(&mut current)));
                    }
                    out.push((number + 1, c.to_string()));
                    current.clear();
                }
                ':' if start.starts_with('$') && !start.contains(' ') => {
                    current.push(c);
                    out.push((began, std::mem::take(&mut current)));
                }
                _ => {
                    if start.is_empty() {
                        current.clear();
                        began = number + 1;
                    }
                    current.push(if c.is_whitespace() { ' ' } else { c });
                }
            }
        }
        let start = current.trim();
        if [".version", ".target", ".address_size"].iter().any(|d| start.starts_with(d)) {
            current.clear();
        } else {
            current.push(' ');
        }
    }
    out.into_iter()
        .map(|(line, s)| (line, s.split_whitespace().collect::<Vec<_>>().join(" ")))
        .filter(|(_, s)| !s.is_empty())
        .collect()
}

/// A declaration outside of kernels; a kernel's header opens its decoder.
fn header(statement: &str, globals: &mut Globals) -> Result<Option<Decoder>, String> {
    if statement == "{" || statement == "}" {
        return Ok(None);
    }
    let words: Vec<&str> = statement.split(' ').collect();
    if words.contains(&".shared") {
        let name = words.last().copied().unwrap_or("");
        let (name, size) = name.split_once('[').unwrap_or((name, "0]"));
        let size: u32 = size.trim_end_matches(']').parse().unwrap_or(0);
        // Dynamic shared memory begins behind what has a size; with no such variable it begins at 0.
        if size > 0 && globals.shared.values().any(|o| *o == u32::MAX) {
            return Err("shared variables of fixed size come first".into());
        }
        let offset = if size == 0 { u32::MAX } else { globals.fixed };
        globals.shared.insert(name.to_string(), offset);
        globals.fixed += size.next_multiple_of(16);
        return Ok(None);
    }
    let Some(rest) = statement.split(".entry ").nth(1) else {
        return Err("not a kernel and not shared memory".into());
    };
    let (name, rest) = rest.split_once('(').ok_or("no parameters")?;
    let (list, after) = rest.split_once(')').ok_or("no end of parameters")?;
    let mut decoder = Decoder::new(name.trim());
    for param in list.split(',').filter(|p| !p.trim().is_empty()) {
        let words: Vec<&str> = param.split_whitespace().collect();
        let bytes = words.get(1).and_then(|t| bytes_of(t.trim_start_matches('.'))).ok_or("parameter type")?;
        decoder.params.insert(words.last().unwrap_or(&"").to_string(), decoder.slots.len() as Slot);
        decoder.param_bytes.push(bytes);
        decoder.slots.push(POISON);
    }
    for (directive, numbers) in after.split('.').filter_map(|d| d.trim().split_once(' ')) {
        if directive == "maxntid" || directive == "reqntid" {
            let threads = numbers.split(',').map(|n| n.trim().parse::<u32>()).product::<Result<u32, _>>();
            decoder.max_threads = Some(threads.map_err(|e| e.to_string())?);
        }
    }
    Ok(Some(decoder))
}

fn bytes_of(of: &str) -> Option<u8> {
    Some(match of {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" => 2,
        "b32" | "u32" | "s32" | "f32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => return None,
    })
}

struct Decoder {
    name: String,
    params: HashMap<String, Slot>,
    param_bytes: Vec<u8>,
    max_threads: Option<u32>,
    slots: Vec<u64>,
    names: HashMap<String, Slot>,
    constants: HashMap<u64, Slot>,
    /// Names declared in the braces that are open, with the number of each pair of braces.
    scopes: Vec<(usize, HashSet<String>)>,
    scope_count: usize,
    code: Vec<Inst>,
    lines: Vec<(usize, String)>,
    labels: HashMap<String, u32>,
    /// Branches whose label comes later, by instruction.
    branches: Vec<(usize, String)>,
    /// Shared variables whose address is taken, by the slot that holds it.
    addresses: Vec<(Slot, String)>,
    read: HashMap<Slot, usize>,
    written: HashSet<Slot>,
    line: usize,
}

impl Decoder {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            params: HashMap::new(),
            param_bytes: Vec::new(),
            max_threads: None,
            slots: vec![0; SPECIAL.len()],
            names: HashMap::new(),
            constants: HashMap::new(),
            scopes: Vec::new(),
            scope_count: 0,
            code: Vec::new(),
            lines: Vec::new(),
            labels: HashMap::new(),
            branches: Vec::new(),
            addresses: Vec::new(),
            read: HashMap::new(),
            written: HashSet::new(),
            line: 0,
        }
    }

    /// Reads one statement; true at the brace that ends the kernel.
    fn statement(&mut self, line: usize, text: &str) -> Result<bool, String> {
        self.line = line;
        if text == "{" {
            self.scope_count += 1;
            self.scopes.push((self.scope_count, HashSet::new()));
            return Ok(false);
        }
        if text == "}" {
            self.scopes.pop();
            return Ok(self.scopes.is_empty());
        }
        if let Some(label) = text.strip_suffix(':') {
            self.labels.insert(label.to_string(), self.code.len() as u32);
            return Ok(false);
        }
        if let Some(rest) = text.strip_prefix(".reg ") {
            if let (true, Some(scope)) = (self.scopes.len() > 1, self.scopes.last_mut()) {
                let names = rest.split_once(' ').map_or("", |(_, names)| names);
                scope.1.extend(names.split(',').map(|n| n.trim().to_string()));
            }
            return Ok(false);
        }
        if text.starts_with(".pragma") {
            return Ok(false);
        }
        let (guard, rest) = match text.strip_prefix('@') {
            Some(guarded) => guarded.split_once(' ').ok_or("nothing behind the guard")?,
            None => ("", text),
        };
        let (guard, when) = match (guard, guard.strip_prefix('!')) {
            ("", _) => (0, 0),
            (_, Some(name)) => (self.source(name)?, 2),
            (name, None) => (self.source(name)?, 1),
        };
        let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        let before = self.code.len();
        let operands = split(operands);
        self.instruction(opcode, &operands.iter().map(String::as_str).collect::<Vec<_>>())?;
        for inst in &mut self.code[before..] {
            (inst.guard, inst.when) = (guard, when);
        }
        while self.lines.len() < self.code.len() {
            self.lines.push((line, text.to_string()));
        }
        Ok(false)
    }

    fn push(&mut self, op: Op) {
        self.code.push(Inst { op, guard: 0, when: 0 });
    }

    fn constant(&mut self, value: u64) -> Slot {
        *self.constants.entry(value).or_insert_with(|| {
            self.slots.push(value);
            (self.slots.len() - 1) as Slot
        })
    }

    /// The register of this name, in the innermost braces that declare it.
    fn register(&mut self, name: &str) -> Slot {
        let scope = self.scopes.iter().rev().find(|(_, names)| names.contains(name)).map_or(0, |s| s.0);
        *self.names.entry(format!("{scope} {name}")).or_insert_with(|| {
            self.slots.push(POISON);
            (self.slots.len() - 1) as Slot
        })
    }

    fn declared(&self, name: &str) -> bool {
        name.starts_with('%') || self.scopes.iter().any(|(_, names)| names.contains(name))
    }

    fn target(&mut self, name: &str) -> Result<Slot, String> {
        if name == "_" {
            self.slots.push(POISON);
            return Ok((self.slots.len() - 1) as Slot);
        }
        if !self.declared(name) || SPECIAL.contains(&name) {
            return Err(format!("{name} is no register to write to"));
        }
        let slot = self.register(name);
        self.written.insert(slot);
        Ok(slot)
    }

    fn source(&mut self, text: &str) -> Result<Slot, String> {
        if let Some(at) = SPECIAL.iter().position(|s| *s == text) {
            return Ok(at as Slot);
        }
        if self.declared(text) {
            if text.contains('.') || text.starts_with("%clock") {
                return Err(format!("unknown special register {text}"));
            }
            let slot = self.register(text);
            self.read.entry(slot).or_insert(self.line);
            return Ok(slot);
        }
        if text == "WARP_SZ" {
            return Ok(self.constant(32));
        }
        match number(text) {
            Some(value) => Ok(self.constant(value)),
            None if text.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                self.slots.push(POISON);
                let slot = (self.slots.len() - 1) as Slot;
                self.addresses.push((slot, text.to_string()));
                Ok(slot)
            }
            None => Err(format!("operand {text}")),
        }
    }

    /// `[base+offset]`.
    fn address(&mut self, text: &str) -> Result<(Slot, i32), String> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or("no address")?;
        match inner.split_once('+') {
            Some((base, off)) => {
                let off = off.trim().parse().map_err(|_| format!("offset {off}"))?;
                Ok((self.source(base.trim())?, off))
            }
            None => Ok((self.source(inner.trim())?, 0)),
        }
    }

    /// Registers of `{a, b}`, or the one that stands alone; at most four.
    fn vector(&mut self, text: &str, written: bool) -> Result<([Slot; 4], u8), String> {
        let names = match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(inner) => split(inner),
            None => vec![text.to_string()],
        };
        let mut slots = [0; 4];
        for (i, name) in names.iter().enumerate() {
            let slot = if written { self.target(name)? } else { self.source(name)? };
            *slots.get_mut(i).ok_or("more than four registers")? = slot;
        }
        Ok((slots, names.len() as u8))
    }

    fn instruction(&mut self, opcode: &str, o: &[&str]) -> Result<(), String> {
        let words: Vec<&str> = opcode.split('.').filter(|w| !w.is_empty()).collect();
        let of = words.last().copied().unwrap_or("");
        let has = |word: &str| words.contains(&word);
        let need = |count: usize| match o.len() == count {
            true => Ok(()),
            false => Err(format!("{count} operands expected")),
        };
        match words[0] {
            "ret" | "exit" => self.push(Op::Exit),
            "trap" => self.push(Op::Trap),
            "bra" => {
                need(1)?;
                self.branches.push((self.code.len(), o[0].to_string()));
                self.push(Op::Branch { to: 0 });
            }
            "bar" | "barrier" if has("warp") => {
                need(1)?;
                let mask = self.source(o[0])?;
                self.push(Op::WarpBarrier { mask });
            }
            "bar" | "barrier" if has("sync") && o == ["0"] => self.push(Op::Barrier),
            // Values pass between blocks by launches alone, and within a block at barriers.
            "membar" | "fence" => {}
            "mov" => self.mov(of, o)?,
            "cvta" => {
                need(2)?;
                let (d, a) = (self.target(o[0])?, self.source(o[1])?);
                if has("shared") {
                    let base =
                        self.constant(if has("to") { SHARED_BASE.wrapping_neg() } else { SHARED_BASE });
                    self.push(Op::Two { f: |a, b| a.wrapping_add(b), d, a, b: base });
                } else if has("global") {
                    self.push(Op::Move { d, a });
                } else {
                    return Err("cvta of this space".into());
                }
            }
            "ld" if has("param") => {
                need(2)?;
                let name = o[1].trim_matches(['[', ']']);
                let a = *self.params.get(name).ok_or_else(|| format!("parameter {name}"))?;
                let d = self.target(o[0])?;
                self.push(Op::Move { d, a });
            }
            "ld" | "st" => {
                need(2)?;
                let known =
                    ["ld", "st", "global", "shared", "nc", "volatile", "relaxed", "gpu", "v2", "v4", "cta"];
                let plain = words[..words.len() - 1].iter().all(|w| known.contains(w) || w.starts_with("L1"));
                let space = match (has("global"), has("shared")) {
                    (true, _) => Space::Global,
                    (_, true) => Space::Shared,
                    _ => Space::Generic,
                };
                let bytes = bytes_of(of).filter(|_| plain).ok_or("kind of access")?;
                let signed = of.starts_with('s');
                let load = words[0] == "ld";
                let (registers, memory) = if load { (o[0], o[1]) } else { (o[1], o[0]) };
                let (at, off) = self.address(memory)?;
                let (slots, count) = self.vector(registers, load)?;
                let asked = if has("v4") {
                    4
                } else if has("v2") {
                    2
                } else {
                    1
                };
                if asked != count {
                    return Err("registers and vector width differ".into());
                }
                let shape = Shape { bytes, count, signed };
                self.push(match load {
                    true => Op::Load { space, shape, d: slots, at, off },
                    false => Op::Store { space, shape, a: slots, at, off },
                });
            }
            "shfl" => {
                need(5)?;
                let kind = match words.get(2) {
                    Some(&"up") => Shuffle::Up,
                    Some(&"down") => Shuffle::Down,
                    Some(&"bfly") => Shuffle::Butterfly,
                    Some(&"idx") => Shuffle::Index,
                    _ => return Err("kind of shuffle".into()),
                };
                let (d, inside) = o[0].split_once('|').unwrap_or((o[0], "_"));
                let (d, inside) = (self.target(d)?, self.target(inside)?);
                let (a, b) = (self.source(o[1])?, self.source(o[2])?);
                let (c, mask) = (self.source(o[3])?, self.source(o[4])?);
                self.push(Op::Shuffle { kind, d, inside, a, b, c, mask });
            }
            "vote" => {
                need(3)?;
                let kind = match words.get(2) {
                    Some(&"all") => Vote::All,
                    Some(&"any") => Vote::Any,
                    Some(&"uni") => Vote::Uniform,
                    Some(&"ballot") => Vote::Ballot,
                    _ => return Err("kind of vote".into()),
                };
                let (name, negated) = o[1].strip_prefix('!').map_or((o[1], false), |name| (name, true));
                let (d, a, mask) = (self.target(o[0])?, self.source(name)?, self.source(o[2])?);
                self.push(Op::Vote { kind, d, a, negated, mask });
            }
            "redux" => {
                need(3)?;
                let kind = match words.get(2) {
                    Some(&"add") => Reduce::Add,
                    Some(&"min") => Reduce::Min,
                    Some(&"max") => Reduce::Max,
                    Some(&"and") => Reduce::And,
                    Some(&"or") => Reduce::Or,
                    Some(&"xor") => Reduce::Xor,
                    _ => return Err("kind of reduction".into()),
                };
                let (d, a, mask) = (self.target(o[0])?, self.source(o[1])?, self.source(o[2])?);
                self.push(Op::Reduce { kind, signed: of == "s32", d, a, mask });
            }
            "lop3" => {
                need(5)?;
                let table = number(o[4]).ok_or("table")? as u8;
                let (d, a) = (self.target(o[0])?, self.source(o[1])?);
                let (b, c) = (self.source(o[2])?, self.source(o[3])?);
                self.push(Op::Lop3 { d, a, b, c, table });
            }
            "bfi" if of == "b32" => {
                need(5)?;
                let (d, a, b) = (self.target(o[0])?, self.source(o[1])?, self.source(o[2])?);
                let (at, len) = (self.source(o[3])?, self.source(o[4])?);
                self.push(Op::Insert { d, a, b, at, len });
            }
            "setp" => self.setp(&words, of, o)?,
            "cvt" => {
                need(2)?;
                let (to, from) = (words[words.len() - 2], of);
                let how = words[1..words.len() - 2].join(".");
                let f = conversion(&how, to, from).ok_or("unknown conversion")?;
                self.apply(f, o)?;
            }
            _ => {
                let name = words[..words.len() - 1].join(".");
                match (name.as_str(), of) {
                    ("add" | "add.rn", "f32") => {
                        need(3)?;
                        let (d, a, b) = (self.target(o[0])?, self.source(o[1])?, self.source(o[2])?);
                        self.push(Op::AddF32 { d, a, b });
                    }
                    ("mul" | "mul.rn", "f32") => {
                        need(3)?;
                        let (d, a, b) = (self.target(o[0])?, self.source(o[1])?, self.source(o[2])?);
                        self.push(Op::MulF32 { d, a, b });
                    }
                    ("fma.rn", "f32" | "f64") => {
                        need(4)?;
                        let (d, a) = (self.target(o[0])?, self.source(o[1])?);
                        let (b, c) = (self.source(o[2])?, self.source(o[3])?);
                        self.push(match of {
                            "f32" => Op::FmaF32 { d, a, b, c },
                            _ => Op::FmaF64 { d, a, b, c },
                        });
                    }
                    _ => {
                        let f = function(&name, of).ok_or("unknown instruction")?;
                        self.apply(f, o)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, f: Function, o: &[&str]) -> Result<(), String> {
        let d = self.target(o.first().ok_or("no target")?)?;
        let mut slots = Vec::new();
        for operand in &o[1..] {
            slots.push(self.source(operand)?);
        }
        self.push(match (f, slots.as_slice()) {
            (Function::One(f), &[a]) => Op::One { f, d, a },
            (Function::Two(f), &[a, b]) => Op::Two { f, d, a, b },
            (Function::Three(f), &[a, b, c]) => Op::Three { f, d, a, b, c },
            _ => return Err("number of operands".into()),
        });
        Ok(())
    }

    /// Plain, or halves into a whole, or a whole into its halves.
    fn mov(&mut self, of: &str, o: &[&str]) -> Result<(), String> {
        let &[to, from] = o else { return Err("two operands expected".into()) };
        let narrow = of == "b32";
        match (to.starts_with('{'), from.starts_with('{')) {
            (false, false) => {
                // A negative immediate fills 64 bits, and moves are what would pass them on.
                let a = match number(from) {
                    Some(value) if of.ends_with("32") => self.constant(value & 0xffff_ffff),
                    Some(value) if of == "pred" => self.constant(value & 1),
                    _ => self.source(from)?,
                };
                let d = self.target(to)?;
                self.push(Op::Move { d, a });
            }
            (false, true) => {
                let ([a, b, ..], 2) = self.vector(from, false)? else {
                    return Err("two halves expected".into());
                };
                let d = self.target(to)?;
                self.push(match narrow {
                    true => Op::Two { f: |a, b| (a & 0xffff) | ((b & 0xffff) << 16), d, a, b },
                    false => Op::Two { f: |a, b| (a & 0xffff_ffff) | (b << 32), d, a, b },
                });
            }
            (true, false) => {
                let a = self.source(from)?;
                let ([low, high, ..], 2) = self.vector(to, true)? else {
                    return Err("two halves expected".into());
                };
                let halves: [fn(u64) -> u64; 2] = match narrow {
                    true => [|a| a & 0xffff, |a| (a >> 16) & 0xffff],
                    false => [|a| a & 0xffff_ffff, |a| a >> 32],
                };
                self.push(Op::One { f: halves[0], d: low, a });
                self.push(Op::One { f: halves[1], d: high, a });
            }
            (true, true) => return Err("operands".into()),
        }
        Ok(())
    }

    /// `setp.CMP[.BOOL].TYPE p[|q], a, b[, [!]c]`.
    fn setp(&mut self, words: &[&str], of: &str, o: &[&str]) -> Result<(), String> {
        let compare = match function(&format!("setp.{}", words[1]), of) {
            Some(Function::Two(f)) if o.len() >= 3 => f,
            _ => return Err("unknown comparison".into()),
        };
        let (p, q) = o[0].split_once('|').map_or((o[0], None), |(p, q)| (p, Some(q)));
        let (a, b) = (self.source(o[1])?, self.source(o[2])?);
        type Connective = fn(u64, u64) -> u64;
        let combine: Option<(Connective, Slot)> = match (words.len(), o.get(3)) {
            (3, None) => None,
            (4, Some(c)) => {
                let (name, negated) = c.strip_prefix('!').map_or((*c, false), |name| (name, true));
                let c = self.source(name)?;
                let f: Connective = match (words[2], negated) {
                    ("and", false) => |t, c| t & c,
                    ("and", true) => |t, c| t & (c ^ 1),
                    ("or", false) => |t, c| t | c,
                    ("or", true) => |t, c| t | (c ^ 1),
                    ("xor", false) => |t, c| t ^ c,
                    ("xor", true) => |t, c| t ^ c ^ 1,
                    _ => return Err("unknown connective".into()),
                };
                Some((f, c))
            }
            _ => return Err("operands of a comparison".into()),
        };
        let d = self.target(p)?;
        if combine.is_none() && q.is_none() {
            self.push(Op::Two { f: compare, d, a, b });
            return Ok(());
        }
        // Through a slot of its own, as c may be p.
        let t = self.target("_")?;
        self.push(Op::Two { f: compare, d: t, a, b });
        if let Some(q) = q {
            let d = self.target(q)?;
            self.push(Op::One { f: |t| t ^ 1, d, a: t });
            if let Some((f, c)) = combine {
                self.push(Op::Two { f, d, a: d, b: c });
            }
        }
        self.push(match combine {
            Some((f, c)) => Op::Two { f, d, a: t, b: c },
            None => Op::Move { d, a: t },
        });
        Ok(())
    }

    fn finish(mut self, globals: &Globals) -> Result<Kernel, String> {
        let kernel = &self.name;
        self.code.push(Inst { op: Op::Exit, guard: 0, when: 0 });
        self.lines.push((self.line, "}".into()));
        for (at, label) in &self.branches {
            let to = *self.labels.get(label).ok_or_else(|| format!("{kernel}: no label {label}"))?;
            self.code[*at].op = Op::Branch { to };
        }
        for (slot, name) in &self.addresses {
            let offset = globals.shared.get(name).ok_or_else(|| format!("{kernel}: no variable {name}"))?;
            let offset = if *offset == u32::MAX { globals.fixed } else { *offset };
            self.slots[usize::from(*slot)] = u64::from(offset);
        }
        if let Some((_, line)) = self.read.iter().find(|(slot, _)| !self.written.contains(slot)) {
            return Err(format!("PTX line {line}: {kernel} reads a register that nothing writes"));
        }
        if self.slots.len() > usize::from(Slot::MAX) {
            return Err(format!("{kernel}: too many registers"));
        }
        Ok(Kernel {
            name: self.name,
            params: self.param_bytes,
            code: self.code,
            lines: self.lines,
            template: self.slots,
            fixed_shared: globals.fixed,
            max_threads: self.max_threads,
        })
    }
}

/// At the commas that are not within braces or brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts.iter().map(|p| p.trim().to_string()).filter(|p| !p.is_empty()).collect()
}

/// An immediate: integer, `0f` and 8 digits, `0d` and 16 digits.
fn number(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return u32::from_str_radix(bits, 16).ok().map(u64::from);
    }
    if let Some(bits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    let text = text.trim_end_matches('U');
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    match text {
        "true" => Some(1),
        "false" => Some(0),
        _ => text.parse::<i64>().ok().map(|n| n as u64).or_else(|| text.parse().ok()),
    }
}
