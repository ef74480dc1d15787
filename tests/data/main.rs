//! Reading, cutting and fetching data: small files in the true formats, and damaged ones of every kind.
//!
//! One test program. `fetch` and `weights` need caches of their own, and take the variable that would name another away
//! from the whole process; what reads the data of this checkout, where that variable counts, is in `tests/committed`.
//! `fuzz_readers` brings an allocator that counts, thread by thread, so that the tests beside it are not counted.

mod checkpoint;
mod cifar;
mod fetch;
mod fuzz_readers;
mod idx;
mod images;
mod inputs;
mod pickled;
mod subset;
mod weights;

/// Makes the cache of a project the one below its root, whatever `MEM2GEN_DATA` says.
#[cfg(unix)]
fn use_own_caches() {
    static DONE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the environment is read by the standard library alone, which locks it. Whoever asks for this variable
    // comes through here first.
    DONE.call_once(|| unsafe { std::env::remove_var("MEM2GEN_DATA") });
}
