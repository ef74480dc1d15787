//! Reading, cropping and fetching data: small files in the true formats, and damaged files of every kind.
//!
//! One test program. `fetch` and `weights` need caches of their own, so they unset `MEM2GEN_DATA` for the whole process.
//! Tests that read the data of this checkout are in `tests/committed`. The allocator of `fuzz` counts each thread
//! separately, so that other tests do not count.

mod checkpoint;
mod cifar;
mod emoji;
mod fetch;
mod fuzz;
mod idx;
mod images;
mod inputs;
mod needs;
mod pickled;
mod subset;
mod weights;

/// Unsets `MEM2GEN_DATA`, so that the cache of a project is below its root.
#[cfg(unix)]
fn use_own_caches() {
    static DONE: std::sync::Once = std::sync::Once::new();
    // SAFETY: only the standard library reads the environment, under a lock, and every test that reads this variable
    // calls this function first.
    DONE.call_once(|| unsafe { std::env::remove_var("MEM2GEN_DATA") });
}
