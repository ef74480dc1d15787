//! Progress of long work.
//!
//! A long function takes a `&dyn ProgressSink` and reports steps to it. A study takes a [`Reporter`], which makes a sink
//! for each piece of work. [`Printed`] shows both on a terminal, in a notebook or in a pipe. [`Silent`] shows nothing.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shortest time between two lines of progress in a notebook or a pipe.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Receives the steps of one piece of work. Several threads may report at the same time.
pub trait ProgressSink: Sync {
    /// Reports `steps` more as done.
    fn advance(&self, steps: u64);

    /// Reports `steps` that an earlier process has done.
    fn resume(&self, steps: u64) {
        self.advance(steps);
    }

    /// Names the current part of the work in a few words.
    fn stage(&self, _what: &str) {}
}

/// A sink that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn advance(&self, _steps: u64) {}
}

/// Receives the messages of a study: lines, and the progress of each piece of work.
pub trait Reporter: Send + Sync {
    /// Reports one line, such as the stored table that was read.
    fn line(&self, text: &str);

    /// A sink for `total` steps of `what`, dropped at the end of the work.
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
        print_line(text);
    }

    fn progress(&self, what: &str, total: u64) -> Box<dyn ProgressSink> {
        Box::new(Progress::new(what, total))
    }
}

/// Prints a line. Nobody reads it where standard output is closed, and the work goes on.
fn print_line(text: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Shows the progress of long work: a bar on a terminal, lines in a notebook or a pipe, at most one in five seconds and
/// one at the end.
///
/// Shared by reference among worker threads. The last line is printed on drop, with the number of steps done, unless no
/// step was done.
///
/// ```
/// use mem2gen::progress::{Progress, ProgressSink};
///
/// let progress = Progress::new("images", 3);
/// progress.advance(2);
/// assert_eq!(progress.done(), 2);
/// ```
#[derive(Debug)]
pub struct Progress {
    what: Mutex<String>,
    total: u64,
    done: AtomicU64,
    /// Steps of `done` from an earlier process.
    before: AtomicU64,
    began: Instant,
    /// Milliseconds after `began` at which the last line was printed.
    last_line: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// The progress of `total` steps of `what`.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = "{msg} {wide_bar} {pos}/{len} {per_sec} {eta} left";
            bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
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

    fn print(&self, done: u64, elapsed: Duration, over: bool) {
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let here = done - self.before.load(Ordering::Relaxed).min(done);
        print_line(&line(&what, done, here, self.total, elapsed, over));
    }

    /// Whether the caller has to print a line now.
    fn may_print(&self, elapsed: Duration) -> bool {
        let now = elapsed.as_millis() as u64;
        let last = self.last_line.load(Ordering::Relaxed);
        now.saturating_sub(last) >= LINE_EVERY.as_millis() as u64
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
            self.print(done, elapsed, false);
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
        what.clone_into(&mut self.what.lock().unwrap_or_else(PoisonError::into_inner));
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
                self.print(self.done(), self.began.elapsed(), true);
            }
            None => {}
        }
    }
}

/// `what: done/total, rate, time left`, or the time taken when the work is over, also with fewer steps than were expected.
/// The rate is that of `here` steps in `elapsed`.
fn line(what: &str, done: u64, here: u64, total: u64, elapsed: Duration, over: bool) -> String {
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let rate = if seconds > 0.0 { here as f64 / seconds } else { 0.0 };
    let mut text = format!("{what}: {done}/{total}");
    let tail = if over || done >= total {
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

/// A duration in seconds, minutes or hours.
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

/// Keeps the lines that were reported, for tests.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<String>>);

#[cfg(test)]
impl Reporter for Heard {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }

    fn progress(&self, _: &str, _: u64) -> Box<dyn ProgressSink> {
        Box::new(Silent)
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
    fn lines_show_rate_and_time_left_and_zero_is_allowed() {
        assert_eq!(line("a", 5, 5, 10, Duration::from_secs(10), false), "a: 5/10, 0.500/s, 10 s left");
        assert_eq!(line("a", 8, 5, 10, Duration::from_secs(10), false), "a: 8/10, 0.500/s, 4.0 s left");
        assert_eq!(line("a", 10, 10, 10, Duration::from_secs(200), false), "a: 10/10, took 3 min");
        assert_eq!(line("a", 0, 0, 10, Duration::from_secs(10), false), "a: 0/10");
        assert_eq!(line("a", 0, 0, 0, Duration::ZERO, false), "a: 0/0, took 0.0 s");
        assert_eq!(line("a", 12, 12, 10, Duration::from_secs(1), false), "a: 12/10, took 1.0 s");
        assert_eq!(line("a", 8, 8, 10, Duration::from_secs(2), true), "a: 8/10, took 2.0 s");
    }
}
