//! LAPACK as the analyses call it: many small matrices at once, a thread each.

use std::ffi::c_int;
use std::sync::Once;

/// Tells OpenBLAS to use no threads of its own, for as long as the process lives. They share out what takes a single
/// thread milliseconds, wait for each other by spinning on cores that compute scores, and may make last digits
/// depend on how many there are.
pub(crate) fn without_threads() {
    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
    }
    static ONCE: Once = Once::new();
    // SAFETY: the library that is linked has this function, and it takes any number from 1 on.
    ONCE.call_once(|| unsafe { openblas_set_num_threads(1) });
}
