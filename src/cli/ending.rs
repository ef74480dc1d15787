//! How the program ends: with its status, and with one line where the system gives it no more memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mem2gen::store::remove_temporaries;

/// Name of the command that runs.
static COMMAND: OnceLock<&'static str> = OnceLock::new();
/// Whether memory has run out once.
static OUT: AtomicBool = AtomicBool::new(false);

/// Keeps the name of the command for the line about memory.
pub fn names(command: &'static str) {
    COMMAND.get_or_init(|| command);
}

/// Starts the program again, with what takes less of it, where its address space is limited. OpenBLAS starts its threads before
/// `main`, and one that gets no memory asks for it for ever and holds a lock that LAPACK needs; glibc reserves 64 MiB for each
/// thread that allocates; and polars panics where its threads do not start.
pub fn save_address_space() {
    const FEWER: [&str; 3] = ["OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX", "POLARS_MAX_THREADS"];
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the struct that it is given.
    let limited =
        unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
    let missing: Vec<&str> = FEWER.into_iter().filter(|name| std::env::var_os(name).is_none()).collect();
    if limited
        && !missing.is_empty()
        && let Ok(program) = std::env::current_exe()
    {
        let fewer = missing.into_iter().map(|name| (name, "1"));
        // It only comes back when the program can't be started; then this process goes on.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(fewer).exec();
    }
}

/// Ends the program at once, and writes nothing that standard output still holds: another thread may hold it and wait for its
/// reader. OpenBLAS waits for its threads when a program exits, also for those that a limit of memory did not let start.
pub fn end(status: u8) -> ! {
    // SAFETY: ends the process; files are complete, as all of them are written and renamed by then.
    unsafe { libc::_exit(i32::from(status)) }
}

/// The system's allocator, which ends the program with one line where no memory is left. Otherwise Rust aborts with a trace.
struct OrEnd;

#[global_allocator]
static ALLOCATOR: OrEnd = OrEnd;

/// Passes on what the system gave for `bytes` bytes.
fn given(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        out_of_memory(bytes);
    }
    memory
}

#[cold]
fn out_of_memory(bytes: usize) {
    if OUT.swap(true, Ordering::SeqCst) {
        // Another thread, or this one while it says so.
        std::thread::sleep(std::time::Duration::from_secs(2));
        end(1);
    }
    // Standard error has no buffer, so that nothing here asks for memory.
    put_error!(
        "mem2gen {}: out of memory: {bytes} bytes more were needed; free memory, raise its limit, or give a smaller input or \
         smaller numbers",
        COMMAND.get().unwrap_or(&"")
    );
    remove_temporaries();
    end(1);
}

// SAFETY: the system's allocator does all the work: what a caller promises to one of these functions is passed on to it.
unsafe impl GlobalAlloc for OrEnd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}
