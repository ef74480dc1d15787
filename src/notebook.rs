//! Notebook runs whose errors are reported.
//!
//! The notebook kernel answers `ok` for a cell that panics and for a cell that returns an error through `?`. So the
//! kernel's prelude calls [`install`] and imports [`eprintln!`](crate::notebook::eprintln) into every cell. In a headless
//! run both end the process that runs the cells, and every client sees an error of that cell. With
//! `MEM2GEN_INTERACTIVE=1`, as `make lab` sets it, both only print, so the variables of a session are kept.
//!
//! A notebook starts with [`begin`] and ends with [`Run::finish`], which prints the line that the runner expects last.

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

/// Start of the line that [`Run::finish`] prints, before the notebook's name and profile.
pub const SENTINEL: &str = "mem2gen: finished";

/// Whether a person runs the cells: `MEM2GEN_INTERACTIVE=1`.
fn interactive() -> bool {
    env::var_os("MEM2GEN_INTERACTIVE").is_some_and(|v| v == "1")
}

/// Prepares the process that runs the cells. The kernel's prelude calls it; further calls do nothing.
///
/// Sets a panic hook that prints the panic and its place to stderr. In a headless run the hook then aborts the process, on
/// any thread, so the cell fails. A watcher thread ends the process when the kernel or the program that started the
/// kernel has ended, so no cell continues as an orphan.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let headless = !interactive();
        panic::set_hook(Box::new(move |info| {
            let message = info.payload_as_str().unwrap_or("a value that is not text");
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            say(&format!("panicked at {place}: {message}"));
            if headless {
                process::abort();
            }
        }));
        watch_parents();
    });
}

/// Writes one line to stderr, after flushing stdout. Errors are ignored, because there is nowhere to report them.
fn say(line: &str) {
    let _ = io::stdout().flush();
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{line}");
    let _ = stderr.flush();
}

/// Prints a line to stdout and to stderr that tells the runner which cell the next lines belong to. The runner puts a
/// call before the first statement of every cell. Errors are ignored, as for all output to the kernel.
#[doc(hidden)]
pub fn mark(cell: usize) {
    let _ = writeln!(io::stdout(), "mem2gen: cell {cell}");
    let _ = io::stdout().flush();
    let _ = writeln!(io::stderr(), "mem2gen: cell {cell}");
}

/// Ends this process when its parent changes (the kernel has ended), and both when the program that started the kernel
/// has ended (Jupyter states it in `JPY_PARENT_PID`).
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
        // Without the thread the notebook still runs, but is not cleaned up after a killed client.
        if Path::new("/proc/self").exists() {
            let _ = thread::Builder::new().name("mem2gen-watch".to_owned()).spawn(watched);
        }
    }
}

/// Whether a process has ended, including one whose parent has not read its status.
#[cfg(unix)]
fn gone(process: u32) -> bool {
    // The state is one letter after the name in parentheses.
    std::fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| {
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Prints an error that a cell returns through `?`. A headless run then aborts, so the cell is not answered with `ok`.
#[doc(hidden)]
pub fn question_mark(error: &dyn Display) {
    say(&format!("an error left the cell through `?`: {error}"));
    if !interactive() {
        process::abort();
    }
}

/// The `eprintln!` of notebook cells. The kernel expands a cell's `?` to `eprintln!("{}", error)`. This macro, which the
/// kernel's prelude imports into every cell, handles this form; all other calls go to [`std::eprintln!`].
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

/// Stops a cell at an error.
///
/// ```
/// use mem2gen::notebook::OrStop;
///
/// let value: Result<i32, std::io::Error> = Ok(3);
/// assert_eq!(value.or_stop(), 3);
/// ```
pub trait OrStop<T> {
    /// The value. An error ends the cell, with the error and its sources on stderr, and a headless run.
    ///
    /// # Panics
    /// On an error.
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

/// An error and its sources in one line; a source whose text is already in the line is left out.
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

/// One run of one notebook. It dereferences to the [`Context`] that studies take.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    context: Context,
}

/// Starts the run of the notebook `name` with the settings of the environment: `MEM2GEN_PROFILE` (default `desk`),
/// `MEM2GEN_ROOT` and `MEM2GEN_RECOMPUTE=1`.
///
/// # Panics
/// When `MEM2GEN_PROFILE` is not the name of a profile.
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

    /// Saves a figure as PNG and SVG in the run's folder `figures` and returns it for display.
    ///
    /// # Errors
    /// [`FigureError`] when it can't be written.
    pub fn figure(&self, id: &str, figure: Figure) -> Result<Figure, FigureError> {
        figure.save(&self.output().join("figures"), id)?;
        Ok(figure)
    }

    /// Saves a table as parquet in the run's folder `tables` and returns it for display.
    ///
    /// # Errors
    /// [`TableError`] when it can't be written.
    pub fn table(&self, id: &str, table: Table) -> Result<Table, TableError> {
        table.save(&self.output().join("tables").join(format!("{id}.parquet")))?;
        Ok(table)
    }

    /// Prints that the notebook ran to its end. It is the last call of the last cell: without this line, or with output
    /// after it, the runner reports a failed run.
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
    fn an_error_is_printed_with_each_source_once() {
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
        // Its status has not been read yet, so it is a zombie.
        let ended = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            gone(child.id())
        });
        assert!(ended);
        child.wait().unwrap();
        assert!(gone(child.id()));
    }
}
