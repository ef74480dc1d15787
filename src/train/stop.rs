//! A process that is told to end asks its training runs for a checkpoint first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Whether the process was told to end.
static ASKED: AtomicBool = AtomicBool::new(false);
static RUNS: Mutex<Runs> = Mutex::new(Runs { training: 0, kept: Vec::new() });

/// The runs that this process trains.
struct Runs {
    training: usize,
    /// Steps of runs that stand still after a checkpoint.
    kept: Vec<u64>,
}

fn runs() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What [`stop`] reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The step of each run that has a checkpoint of its last step.
    pub kept: Vec<u64>,
    /// Number of runs that did not end their step in time.
    pub late: usize,
}

/// Asks all training runs of this process to write a checkpoint after their current step, and waits for that at most `most`, or
/// until `hurry` is true. From then on the runs stand still, so the program has to end.
pub fn stop(most: Duration, mut hurry: impl FnMut() -> bool) -> Stopped {
    ASKED.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    loop {
        let ends = begun.elapsed() >= most || hurry();
        let found = runs();
        if found.training == 0 || ends {
            return Stopped { kept: found.kept.clone(), late: found.training };
        }
        drop(found);
        thread::sleep(Duration::from_millis(10));
    }
}

/// A run while it is trained.
pub(super) struct Training(());

impl Training {
    pub(super) fn begin() -> Self {
        runs().training += 1;
        Self(())
    }

    /// Whether the run has to write a checkpoint and to stand still.
    pub(super) fn is_to_stop(&self) -> bool {
        ASKED.load(Ordering::SeqCst)
    }

    /// Stands still until the process ends. `step` is that of the last checkpoint, 0 without one.
    pub(super) fn stand_still(self, step: u64) -> ! {
        if step > 0 {
            runs().kept.push(step);
        }
        drop(self);
        loop {
            thread::park();
        }
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        runs().training -= 1;
    }
}
