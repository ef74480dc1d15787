//! LAPACK for many small matrices at once, one thread each.

use std::ffi::c_int;
use std::sync::Once;

/// Stops OpenBLAS from using threads of its own, for the life of the process. One thread needs only milliseconds for a
/// matrix, waiting threads occupy cores that compute scores, and the last digits may depend on the number of threads.
pub(super) fn without_threads() {
    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
    }
    static ONCE: Once = Once::new();
    // SAFETY: the linked library has this function, and it takes any number from 1.
    ONCE.call_once(|| unsafe { openblas_set_num_threads(1) });
}
