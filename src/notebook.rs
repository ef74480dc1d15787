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
use std::io::{self, Write as _};
use std::ops::Deref;
use std::panic;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use crate::frame::{Table, TableError};
use crate::plot::{Figure, FigureError};
use crate::progress::Printed;
use crate::project::Layout;
use crate::study::context::{Context, Profile};

/// Start of the line that [`Run::finish`] prints; the notebook's name and profile follow.
pub const SENTINEL: &str = "mem2gen: finished";

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

/// One run of one notebook. Studies take it as the [`Context`] that it holds.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    context: Context,
}

/// Starts the run of the notebook `name`, with the settings that the environment carries:
/// `MEM2GEN_PROFILE` (without it `desk`), `MEM2GEN_ROOT` and `MEM2GEN_RECOMPUTE=1`.
///
/// # Panics
/// Where `MEM2GEN_PROFILE` names no profile: another one must not take its place.
pub fn begin(name: &str) -> Run {
    let profile = Profile::named(&Profile::name_from_env()).or_stop();
    let recompute = env::var_os("MEM2GEN_RECOMPUTE").is_some_and(|v| v == "1");
    let context = Context::new(Layout::find(), profile).recomputing(recompute).reporting(Arc::new(Printed));
    Run { name: name.to_owned(), context }
}

impl Deref for Run {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl Run {
    /// The notebook's name.
    pub fn name(&self) -> &str {
        &self.name
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

    /// Says that the notebook ran to its end. Belongs at the end of the last cell: the runner takes a run
    /// without this line, or with anything after it, for a failed one.
    pub fn finish(&self) {
        println!("{SENTINEL} {} in profile {}", self.name, self.profile().name());
        let _ = io::stdout().flush();
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
}
