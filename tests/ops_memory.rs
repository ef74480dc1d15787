//! Memory of the fused operations, by a counting allocator, and results on different numbers of threads.
//!
//! A test program of its own, because the allocator counts the memory of the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mem2gen::ops::{Memories, Readout, Want};
use ndarray::{Array, Array2, Dimension};
use rayon::ThreadPoolBuilder;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The allocator counts the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn taken(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new block may exist at the same time.
        taken(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `work` and its peak heap in bytes, beyond the heap before.
fn peak<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

/// Values in [-0.5, 0.5) from a cheap generator.
fn numbers(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    })
}

#[test]
fn a_score_against_60000_images_takes_under_64_mb() {
    let _alone = ALONE.lock();
    let (m, k, n) = (1024, 60_000, 784);
    let (rows, queries) = (numbers(k, n, 1).into_shared(), numbers(m, n, 2));
    let (score, bytes) =
        peak(|| Memories::new(rows.clone()).and_then(|set| set.score(queries.view(), 2.0)).unwrap());
    assert_eq!(score.dim(), (m, n));
    assert!(score.iter().all(|v| v.is_finite()));
    let beyond = bytes - size_of::<f32>() * m * n;
    println!("{:.1} MB beyond inputs and output", beyond as f64 / 1e6);
    assert!(beyond < 64_000_000, "{beyond} bytes");
}

#[test]
fn no_read_out_holds_queries_times_memories() {
    let _alone = ALONE.lock();
    for n in [2, 24] {
        let beyond = |m: usize, k: usize| {
            let (rows, queries) = (numbers(k, n, 3).into_shared(), numbers(m, n, 4));
            let (read, bytes) = peak(|| {
                Memories::new(rows.clone())
                    .and_then(|set| set.readout(queries.view(), 3.0, Want::ALL))
                    .unwrap()
            });
            bytes - size_of_val(read.shift.as_slice().unwrap()) - 4 * size_of::<f64>() * read.energy.len()
        };
        // Sixteen times as many pairs. The memory grows with queries and with memories, each four-fold.
        let (small, large) = (beyond(750, 2500), beyond(3000, 10_000));
        let matrix = size_of::<f32>() * 3000 * 10_000;
        println!("N = {n}: {small} bytes, then {large}; the matrix would have {matrix}");
        assert!(large < 5 * small, "N = {n}: {small} {large}");
        assert!(large < matrix / 20, "N = {n}: {large} of {matrix}");

        let nearest = |m: usize, k: usize| {
            let (rows, queries) = (numbers(k, n, 3).into_shared(), numbers(m, n, 4));
            peak(|| Memories::new(rows.clone()).and_then(|set| set.nearest(queries.view(), false)).unwrap()).1
        };
        let large = nearest(3000, 10_000);
        assert!(large < matrix / 20, "nearest, N = {n}: {large} of {matrix}");
    }
}

/// The number of threads changes only the rounding of the matrix product.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let _alone = ALONE.lock();
    for (m, k, n) in [(1, 40, 3), (37, 1300, 5), (300, 700, 60), (515, 2100, 33)] {
        let (rows, queries) = (numbers(k, n, 5).into_shared(), numbers(m, n, 6));
        let (rows64, queries64) = (rows.mapv(f64::from).into_shared(), queries.mapv(f64::from));
        let with = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let single = Memories::new(rows.clone()).unwrap();
                let double = Memories::new(rows64.clone()).unwrap();
                let near = single.nearest(queries.view(), false).unwrap();
                let single = single.readout(queries.view(), 4.0, Want::ALL).unwrap();
                let double = double.readout(queries64.view(), 4.0, Want::ALL).unwrap();
                (near, single, double)
            })
        };
        let (near, single, double) = with(1);
        for threads in [2, 5] {
            let what = format!("{m} {k} {n}, {threads} threads");
            let (other_near, other_single, other_double) = with(threads);
            assert_eq!(near, other_near, "{what}");
            assert_eq!(double.heaviest, other_double.heaviest, "{what}");
            assert!(worst(&double.energy, &other_double.energy) < 1e-13, "{what}");
            assert!(worst(&double.shift, &other_double.shift) < 1e-13, "{what}");
            assert!(worst(&double.entropy, &other_double.entropy) < 1e-13, "{what}");
            assert!(worst(&single.energy, &other_single.energy) < 1e-8, "{what}");
            let wide = |r: &Readout<f32>| r.shift.mapv(f64::from);
            assert!(worst(&wide(&single), &wide(&other_single)) < 1e-6, "{what}");
        }
    }
}

/// Largest difference, as a fraction of the largest value.
fn worst<D: Dimension>(a: &Array<f64, D>, b: &Array<f64, D>) -> f64 {
    let largest = a.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    a.iter().zip(b).fold(0.0f64, |most, (a, b)| most.max((a - b).abs())) / largest
}
