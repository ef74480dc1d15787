//! Fuzz targets of every reader: changed copies of good files, and files that are put together at random.
//!
//! `cargo test` runs each target for half a second with a fixed seed, so that a failure comes back; `make fuzz` runs it for as
//! long as is asked for, with a new seed. Case `n` of a target depends on the seed and `n` only. `docs/fuzzing.md`
//! describes the properties.

mod corpus;
mod images;
mod models;
mod mutate;
mod readers;
mod records;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use bolero::TypeGenerator;
use bolero::generator::bolero_generator::driver::{ByteSliceDriver, Options};
use mem2gen::random::Stream;

thread_local! {
    /// Bytes that this thread holds, and the most it has held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Bytes that no reader may ask for at once: the largest picture takes 1 GiB, and a file of a test some kilobytes.
const MOST_AT_ONCE: usize = 4 << 30;
/// The case that began last, for a failure that ends the process.
static LAST: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count(change: isize) {
    // The counter no longer exists while a thread ends; that is not measured.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + change, most.max(now + change)));
    });
}

/// Whether a request is small enough. A reader that can't go on without the memory ends the process.
fn allowed(layout: Layout) -> bool {
    let fits = layout.size() <= MOST_AT_ONCE;
    if fits {
        count(layout.size() as isize);
    } else {
        eprintln!("fuzz: case {} asks for {} bytes at once", LAST.load(Ordering::Relaxed), layout.size());
    }
    fits
}

// SAFETY: passes calls to the system's allocator, and counts the bytes. A null pointer says that there is no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if allowed(layout) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if allowed(layout) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The largest number of bytes that `work` held beyond those held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = work();
    let most = HELD.with(|held| held.get().1);
    (result, (most - before).max(0) as usize)
}

/// Bytes allowed for error texts and tables of sizes.
pub const SMALL: usize = 16 << 10;
/// Bytes that an inflater holds besides its output.
pub const INFLATER: usize = 128 << 10;
/// Largest number of bytes that DEFLATE produces from one.
pub const INFLATION: usize = 1032;

/// Seed of `cargo test`.
const SEED: u64 = 1;
/// Seconds of a target in `cargo test`.
const SECONDS: f64 = 0.5;
/// Seconds after which a case counts as endless.
const ENDLESS: u64 = 60;

/// One case of a target: a source of choices, and the input that was made from them.
pub struct Case {
    stream: Stream,
    input: Vec<(String, Vec<u8>)>,
}

impl Case {
    fn new(target: &str, seed: u64, number: u64) -> Self {
        Self { stream: Stream::new(seed, &format!("{target} {number}")), input: vec![] }
    }

    /// An index below `n`, which is above 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.stream.below(n as u64) as usize
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// At most `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.byte()).collect()
    }

    /// A value of a type, from at most 500 bytes.
    pub fn value<T: TypeGenerator>(&mut self) -> T {
        loop {
            let bytes = self.bytes(500);
            if let Some(value) = T::generate(&mut ByteSliceDriver::new(&bytes, &Options::default())) {
                return value;
            }
        }
    }

    /// Notes a file of the input, which is kept when the case fails.
    pub fn note(&mut self, name: &str, bytes: &[u8]) {
        self.input.push((name.to_owned(), bytes.to_vec()));
    }

    /// Writes the noted files below a folder.
    fn keep(&self, folder: &Path) {
        for (name, bytes) in &self.input {
            let path = folder.join(name);
            let kept =
                path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
            match kept {
                Ok(()) => eprintln!("the input is {} ({} bytes)", path.display(), bytes.len()),
                Err(e) => eprintln!("the input can't be written to {}: {e}", path.display()),
            }
        }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    let Ok(value) = text.parse() else { panic!("{name} is {text}, expected a number") };
    Some(value)
}

/// Runs cases of a target for some seconds; `one` gives whether the input was accepted.
///
/// Decoders that use several threads have one here, so that [`peak`] counts all their memory.
fn fuzz(target: &str, mut one: impl FnMut(&mut Case) -> bool + Send) {
    let asked: Option<f64> = variable("MEM2GEN_FUZZ_SECONDS");
    let only: Option<u64> = variable("MEM2GEN_FUZZ_CASE");
    let seed = variable("MEM2GEN_FUZZ_SEED").unwrap_or_else(|| match asked {
        Some(_) => RandomState::new().hash_one(target),
        None => SEED,
    });
    let seconds = asked.unwrap_or(SECONDS);
    let again = |number: u64| format!("make fuzz TARGET={target} SEED={seed} CASE={number}");
    let (mut tried, mut accepted, mut slowest) = (0u64, 0u64, Duration::ZERO);
    let number = AtomicU64::new(only.unwrap_or(0));
    if asked.is_some() {
        println!("fuzz {target}: SEED={seed}");
    }
    let begun = Instant::now();
    let (ended, end) = channel::<()>();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    thread::scope(|scope| {
        let (number, again) = (&number, &again);
        scope.spawn(move || {
            let mut last = (u64::MAX, Instant::now());
            while end.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let now = number.load(Ordering::Relaxed);
                if now != last.0 {
                    last = (now, Instant::now());
                } else if last.1.elapsed() > Duration::from_secs(ENDLESS) {
                    eprintln!("fuzz {target}: case {now} does not end; run it again with\n  {}", again(now));
                    process::abort();
                }
            }
        });
        // The sender ends the watch when it is dropped, also by a panic.
        let _ended = ended;
        pool.install(|| {
            loop {
                let at = number.load(Ordering::Relaxed);
                LAST.store(at, Ordering::Relaxed);
                let mut case = Case::new(target, seed, at);
                let began = Instant::now();
                match catch_unwind(AssertUnwindSafe(|| one(&mut case))) {
                    Ok(taken) => accepted += u64::from(taken),
                    Err(failure) => {
                        eprintln!("fuzz {target}: case {at} failed; run it again with\n  {}", again(at));
                        case.keep(&failures().join(format!("{target}-{seed}-{at}")));
                        resume_unwind(failure);
                    }
                }
                tried += 1;
                slowest = slowest.max(began.elapsed());
                number.store(at + 1, Ordering::Relaxed);
                if only.is_some() || begun.elapsed().as_secs_f64() >= seconds {
                    break;
                }
            }
        });
    });
    println!(
        "fuzz {target}: {tried} tried, {accepted} accepted, {} refused, {:.1} s, slowest {} ms",
        tried - accepted,
        begun.elapsed().as_secs_f64(),
        slowest.as_millis()
    );
    assert!(
        only.is_some() || accepted < tried,
        "{target}: no input was refused, so that no error was checked"
    );
}

fn failures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("out/fuzz")
}

/// Checks that an error is one line of bounded length that names the file.
#[track_caller]
pub fn is_clear(said: &str, path: &Path) {
    let name = path.to_string_lossy();
    assert!(said.contains(&*name), "the file {name} is not named: {said:?}");
    let shown = said.replace(&*name, "");
    assert!(shown.len() < 600, "{} bytes: {shown:?}", shown.len());
    assert!(!shown.contains(char::is_control), "a control character: {shown:?}");
}

/// One test for each target, with the name of the target.
macro_rules! targets {
    ($($name:ident: $target:expr;)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name), $target);
        })*
    };
}

targets! {
    npy: images::npy();
    npz: images::npz();
    safetensors: images::safetensors();
    pictures: images::pictures();
    folder: images::folder();
    zip: images::zip();
    parquet: images::parquet();
    torch: images::torch();
    numpy_pickle: images::pickle();
    raw: images::raw();
    idx: readers::idx;
    gzip: readers::gzip;
    cifar: readers::cifar;
    pickle: readers::pickle;
    checkpoint: readers::checkpoint();
    weights: records::weights();
    run: records::run();
    stored: records::stored();
    table: records::table();
    cell: records::cell();
    plan: records::plan();
    settings: records::settings();
    diffusers: models::diffusers();
    prompts: models::prompts();
    emoji: models::emoji();
}

#[test]
fn the_counter_counts_allocations() {
    let (kept, held) = peak(|| {
        drop(vec![1u8; 1 << 20]);
        vec![1u8; 1 << 10]
    });
    assert!((1 << 20..1 << 21).contains(&held) && kept.len() == 1 << 10, "{held}");
}

#[test]
fn a_case_depends_on_its_seed_and_number_alone() {
    let drawn = |seed, number| Case::new("x", seed, number).bytes(100);
    assert_eq!(drawn(1, 7), drawn(1, 7));
    assert_ne!(drawn(1, 7), drawn(1, 8));
    assert_ne!(drawn(1, 7), drawn(2, 7));
}

#[test]
#[should_panic(expected = "is not named")]
fn an_error_without_the_file_is_found() {
    is_clear("read array: truncated", Path::new("x.npy"));
}

#[test]
#[should_panic(expected = "a control character")]
fn an_error_of_two_lines_is_found() {
    is_clear("x.npy: line 1\nline 2", Path::new("x.npy"));
}
