//! How long work reports its progress, without knowing who listens.
//!
//! A function that takes long gets a `&dyn ProgressSink` and reports steps to it. A study gets a [`Reporter`], which
//! makes such a sink for each piece of work. [`Printed`] shows both on a terminal, in a notebook or in a pipe;
//! [`Silent`] shows nothing.

use std::io::{self, IsTerminal, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A notebook or a pipe gets at most one line of progress in this time.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Receives the steps of one piece of work. Workers on several threads may report at once.
pub trait ProgressSink: Sync {
    /// `steps` more of the work are done.
    fn advance(&self, steps: u64);

    /// `steps` of the work were done before, by another process.
    fn resume(&self, steps: u64) {
        self.advance(steps);
    }

    /// What is being worked on right now, in a few words.
    fn stage(&self, _what: &str) {}
}

/// A sink that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn advance(&self, _steps: u64) {}
}

/// Who is told what a study does: one line at a time, and the progress of each piece of work.
pub trait Reporter: Send + Sync {
    /// One line, such as which stored table was read.
    fn line(&self, text: &str);

    /// A sink for `total` steps of `what`; it is dropped when the work ends.
    fn progress(&self, what: &str, total: u64) -> Box<dyn ProgressSink>;
}

impl Reporter for Silent {
    fn line(&self, _text: &str) {}

    fn progress(&self, _what: &str, _total: u64) -> Box<dyn ProgressSink> {
        Box::new(Self)
    }
}

/// Prints lines to standard output, and progress by [`Progress`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Printed;

impl Reporter for Printed {
    fn line(&self, text: &str) {
        println!("{text}");
    }

    fn progress(&self, what: &str, total: u64) -> Box<dyn ProgressSink> {
        Box::new(Progress::new(what, total))
    }
}

/// Shows how far long work is: a bar on a terminal; in a notebook or a pipe whole lines, one in five
/// seconds at most and one at the end.
///
/// Shared by reference among worker threads. Dropping it before the work is done says how far it came; where
/// nothing was done here it says nothing.
#[derive(Debug)]
pub struct Progress {
    what: Mutex<String>,
    total: u64,
    done: AtomicU64,
    /// Steps of `done` that another process took.
    before: AtomicU64,
    began: Instant,
    /// Milliseconds after `began` at which the last line was printed.
    last_line: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A reporter for `total` steps of `what`.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) =
                ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta} left")
            {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar
        });
        Self {
            what: Mutex::new(what.to_owned()),
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            began: Instant::now(),
            last_line: AtomicU64::new(0),
            bar,
        }
    }

    /// Steps done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn print(&self, done: u64, elapsed: Duration) {
        let what = self.what.lock().map_or_else(|e| e.into_inner().clone(), |w| w.clone());
        let here = done - self.before.load(Ordering::Relaxed).min(done);
        println!("{}", line(&what, done, here, self.total, elapsed));
        let _ = io::stdout().flush();
    }

    /// Whether the caller is the one who prints now.
    fn may_print(&self, elapsed: Duration) -> bool {
        let now = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let last = self.last_line.load(Ordering::Relaxed);
        now.saturating_sub(last) >= u64::try_from(LINE_EVERY.as_millis()).unwrap_or(u64::MAX)
            && self.last_line.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl ProgressSink for Progress {
    fn advance(&self, steps: u64) {
        let done = self.done.fetch_add(steps, Ordering::Relaxed).saturating_add(steps);
        if let Some(bar) = &self.bar {
            bar.inc(steps);
            return;
        }
        let elapsed = self.began.elapsed();
        if done < self.total && self.may_print(elapsed) {
            self.print(done, elapsed);
        }
    }

    fn resume(&self, steps: u64) {
        self.before.fetch_add(steps, Ordering::Relaxed);
        self.done.fetch_add(steps, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(steps);
            bar.reset_eta();
        }
    }

    fn stage(&self, what: &str) {
        if let Ok(mut now) = self.what.lock() {
            what.clone_into(&mut now);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None if self.done() > self.before.load(Ordering::Relaxed) => {
                self.print(self.done(), self.began.elapsed());
            }
            None => {}
        }
    }
}

/// `what: done/total, rate, time left`, or the time taken once all is done; `here` of the steps in this time.
fn line(what: &str, done: u64, here: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let rate = if seconds > 0.0 { here as f64 / seconds } else { 0.0 };
    let mut text = format!("{what}: {done}/{total}");
    let tail = if done >= total {
        format!(", took {}", span(seconds))
    } else if rate > 0.0 {
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let left = (total - done) as f64 / rate;
        format!(", {rate:.3}/s, {} left", span(left))
    } else {
        String::new()
    };
    text.push_str(&tail);
    text
}

/// Seconds as a person says them.
fn span(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn progress_counts_every_step_of_every_worker() {
        let p = Progress::new("work", 4000);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..1000).for_each(|_| p.advance(1)));
            }
        });
        assert_eq!(p.done(), 4000);
    }

    #[test]
    fn one_of_many_callers_prints_and_only_after_the_pause() {
        let p = Progress::new("work", 10);
        assert!(!p.may_print(Duration::from_secs(4)));
        assert!(p.may_print(Duration::from_secs(6)));
        assert!(!p.may_print(Duration::from_secs(7)));
        assert!(p.may_print(Duration::from_secs(11)));
    }

    #[test]
    fn lines_say_rate_and_time_left_and_survive_zero() {
        assert_eq!(line("a", 5, 5, 10, Duration::from_secs(10)), "a: 5/10, 0.500/s, 10 s left");
        assert_eq!(line("a", 8, 5, 10, Duration::from_secs(10)), "a: 8/10, 0.500/s, 4.0 s left");
        assert_eq!(line("a", 10, 10, 10, Duration::from_secs(200)), "a: 10/10, took 3 min");
        assert_eq!(line("a", 0, 0, 10, Duration::from_secs(10)), "a: 0/10");
        assert_eq!(line("a", 0, 0, 0, Duration::ZERO), "a: 0/0, took 0.0 s");
        assert_eq!(line("a", 12, 12, 10, Duration::from_secs(1)), "a: 12/10, took 1.0 s");
    }
}
