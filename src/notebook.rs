//! What makes a headless notebook run tell the truth.
//!
//! The notebook kernel answers `ok` for a cell that panicked and for one that returned an error through
//! `?`. The kernel's prelude therefore calls [`install`] and imports [`eprintln!`](crate::notebook::eprintln)
//! into every cell. In a headless run both then end the process that runs the cells, which every client sees
//! as an error of that cell. With `MEM2GEN_INTERACTIVE=1`, as `make lab` sets it, both only print, so that
//! the variables of a session survive a mistake.
//!
//! A notebook starts with [`begin`] and ends with [`Run::finish`]; the line that the latter prints is what
//! the runner demands of the last cell.

use std::env;
use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use polars::prelude::DataFrame;

use crate::Error as CrateError;
use crate::analyse::Cells;
use crate::figure::{Figure, FigureError};
use crate::ops::Device;
use crate::profile::{Profile, ProfileError};
use crate::progress::ProgressSink;
use crate::project::Layout;
use crate::table::fingerprint::{Fingerprint, Origin, Stored, recall_or_compute};
use crate::table::{Table, TableError};

/// Start of the line that [`Run::finish`] prints; the notebook's name and profile follow.
pub const SENTINEL: &str = "mem2gen: finished";

/// How often a notebook or a pipe gets a line of progress at most.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Whether a person steps through the cells: `MEM2GEN_INTERACTIVE=1`.
fn interactive() -> bool {
    env::var_os("MEM2GEN_INTERACTIVE").is_some_and(|v| v == "1")
}

/// Prepares the process that runs the cells; the kernel's prelude calls it, once more does no harm.
///
/// Sets a panic hook that prints the panic and its place to stderr. In a headless run the hook then aborts,
/// on whichever thread the panic was, so the cell comes back as an error. A watcher thread ends the process
/// when the kernel or the program that started the kernel is gone, so no cell goes on as an orphan.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let headless = !interactive();
        panic::set_hook(Box::new(move |info| {
            let message = info.payload_as_str().unwrap_or("a value that is no text");
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            say(&format!("panicked at {place}: {message}"));
            if headless {
                process::abort();
            }
        }));
        watch_parents();
    });
}

/// Writes one line to stderr with everything before it on stdout flushed. Failures are ignored: there is
/// nobody left to tell.
fn say(line: &str) {
    let _ = io::stdout().flush();
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{line}");
    let _ = stderr.flush();
}

/// Prints a line to stdout and to stderr by which the runner knows whose lines follow: it puts a call before
/// the first statement of every cell. Failures are ignored, as in all that is printed for the kernel.
#[doc(hidden)]
pub fn mark(cell: usize) {
    let _ = writeln!(io::stdout(), "mem2gen: cell {cell}");
    let _ = io::stdout().flush();
    let _ = writeln!(io::stderr(), "mem2gen: cell {cell}");
}

/// Ends this process when its parent changes (the kernel died), and parent and process when the program
/// that started the kernel is gone (Jupyter names it in `JPY_PARENT_PID`).
fn watch_parents() {
    #[cfg(unix)]
    {
        let kernel = std::os::unix::process::parent_id();
        let starter = env::var("JPY_PARENT_PID").ok().and_then(|v| v.parse::<u32>().ok()).filter(|p| *p > 1);
        let watched = move || loop {
            thread::sleep(Duration::from_millis(500));
            if std::os::unix::process::parent_id() != kernel {
                process::abort();
            }
            if starter.is_some_and(gone) {
                let order = format!("kill -KILL {kernel}");
                let _ = Command::new("sh").args(["-c", &order]).stdin(Stdio::null()).status();
                process::abort();
            }
        };
        // Without the thread the notebook still runs; only the clean-up after a killed client is lost.
        if Path::new("/proc/self").exists() {
            let _ = thread::Builder::new().name("mem2gen-watch".to_owned()).spawn(watched);
        }
    }
}

/// Whether a process has ended, its parent having asked for its status or not.
#[cfg(unix)]
fn gone(process: u32) -> bool {
    // After the name in parentheses comes the state in one letter.
    std::fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| {
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// What happens to an error that a cell returns through `?`: printed, and in a headless run the end of the
/// process, so that the cell does not come back as `ok`.
#[doc(hidden)]
pub fn question_mark(error: &dyn Display) {
    say(&format!("an error left the cell through `?`: {error}"));
    if !interactive() {
        process::abort();
    }
}

/// The `eprintln!` of notebook cells. The kernel expands a cell's `?` to `eprintln!("{}", error)`, and this
/// macro, imported into every cell by the kernel's prelude, catches exactly that form; all other calls go to
/// [`std::eprintln!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __mem2gen_eprintln {
    ("{}", $error:ident) => {
        $crate::notebook::question_mark(&$error)
    };
    ($($any:tt)*) => {
        ::std::eprintln!($($any)*)
    };
}

#[doc(inline)]
pub use crate::__mem2gen_eprintln as eprintln;

/// Turns an error into a stop.
pub trait OrStop<T> {
    /// The value; or the end of the cell, with the error and everything that caused it on stderr. A headless
    /// run ends there.
    ///
    /// # Panics
    /// On an error: that is the stop.
    #[track_caller]
    fn or_stop(self) -> T;
}

impl<T, E: Error> OrStop<T> for Result<T, E> {
    #[track_caller]
    fn or_stop(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("stopped by an error: {}", chain(&error)),
        }
    }
}

/// An error and its sources in one line, each source once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            // Writing into a String can't fail.
            let _ = write!(text, "; caused by: {said}");
        }
        next = source.source();
    }
    text
}

/// One run of one notebook.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    profile: String,
    settings: Profile,
    layout: Layout,
    recompute: bool,
}

/// Starts the run of the notebook `name`, with the settings that the environment carries:
/// `MEM2GEN_PROFILE` (without it `desk`), `MEM2GEN_ROOT` and `MEM2GEN_RECOMPUTE=1`.
///
/// # Panics
/// Where `MEM2GEN_PROFILE` names no profile: going on with another one would be a lie.
pub fn begin(name: &str) -> Run {
    let profile = Profile::name_from_env();
    Run {
        name: name.to_owned(),
        settings: Profile::named(&profile).or_stop(),
        profile,
        layout: Layout::find(),
        recompute: env::var_os("MEM2GEN_RECOMPUTE").is_some_and(|v| v == "1"),
    }
}

impl Run {
    /// A run without a notebook, for the program and for tests.
    pub fn new(name: &str, profile: &str, layout: Layout, recompute: bool) -> Result<Self, ProfileError> {
        Ok(Self {
            name: name.to_owned(),
            profile: profile.to_owned(),
            settings: Profile::named(profile)?,
            layout,
            recompute,
        })
    }

    /// The notebook's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the profile of this run.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// What that profile says.
    pub fn settings(&self) -> &Profile {
        &self.settings
    }

    /// The project's folders.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether committed tables are to be made again from nothing.
    pub fn recompute(&self) -> bool {
        self.recompute
    }

    /// Where this run leaves what it makes.
    pub fn output(&self) -> PathBuf {
        self.layout.output(&self.profile)
    }

    /// Pieces of long work whose fingerprint is `fingerprint`, kept so that a killed run goes on.
    pub fn cells(&self, fingerprint: &Fingerprint) -> Cells {
        Cells::at(self.output().join("cells").join(format!(
            "{}-{}",
            fingerprint.analysis,
            fingerprint.short()
        )))
    }

    /// A stored result: read where its fingerprint fits, computed and stored where it does not, and said
    /// in one line which of both. What is computed is recorded as computed on `device`. Profile desk keeps results among the committed ones, every other
    /// profile among its own output.
    ///
    /// # Errors
    /// Those of `compute`, and of reading and writing the table.
    pub fn recall(
        &self,
        name: &str,
        fingerprint: &Fingerprint,
        device: Device,
        compute: impl FnOnce() -> Result<DataFrame, CrateError>,
    ) -> Result<DataFrame, CrateError> {
        let stored = if self.profile == "desk" {
            Stored::committed(&self.layout, name)
        } else {
            Stored::new(&self.output().join("tables"), name)
        };
        let stored = stored.origin(Origin::on(device));
        recall_or_compute(&stored, fingerprint, self.recompute, &mut |line| println!("{line}"), compute)
    }

    /// Saves a figure as PNG and SVG among this run's figures and hands it back to be shown.
    ///
    /// # Errors
    /// [`FigureError`] where it can't be written.
    pub fn figure(&self, id: &str, figure: Figure) -> Result<Figure, FigureError> {
        figure.save(&self.output().join("figures"), id)?;
        Ok(figure)
    }

    /// Saves a table as parquet among this run's tables and hands it back to be shown.
    ///
    /// # Errors
    /// [`TableError`] where it can't be written.
    pub fn table(&self, id: &str, table: Table) -> Result<Table, TableError> {
        table.save(&self.output().join("tables").join(format!("{id}.parquet")))?;
        Ok(table)
    }

    /// A reporter for `total` steps of `what`.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        Progress::new(what, total)
    }

    /// Says that the notebook ran to its end. Belongs at the end of the last cell: the runner takes a run
    /// without this line, or with anything after it, for a failed one.
    pub fn finish(&self) {
        println!("{SENTINEL} {} in profile {}", self.name, self.profile);
        let _ = io::stdout().flush();
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

    #[derive(Debug, thiserror::Error)]
    #[error("read table")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_sources_each_once() {
        assert_eq!(chain(&Outer(io::Error::other("disk gone"))), "read table; caused by: disk gone");
        #[derive(Debug, thiserror::Error)]
        #[error("read table: {0}")]
        struct Says(#[source] io::Error);
        assert_eq!(chain(&Says(io::Error::other("disk gone"))), "read table: disk gone");
    }

    #[test]
    fn or_stop_hands_out_values_and_stops_on_errors_with_the_cause() {
        assert_eq!(Ok::<_, io::Error>(3).or_stop(), 3);
        let stopped = panic::catch_unwind(|| Err::<(), _>(Outer(io::Error::other("disk gone"))).or_stop());
        let text = stopped.unwrap_err().downcast_ref::<String>().unwrap().clone();
        assert_eq!(text, "stopped by an error: read table; caused by: disk gone");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_gone_once_it_ended_and_no_sooner() {
        assert!(!gone(process::id()));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!gone(child.id()));
        child.kill().unwrap();
        // Not asked for its status yet: a zombie.
        let ended = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            gone(child.id())
        });
        assert!(ended);
        child.wait().unwrap();
        assert!(gone(child.id()));
    }

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
