//! Printing that ends no command: results are in their files before a command prints about them.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use mem2gen::store::streamed;

static FAILED: OnceLock<io::Error> = OnceLock::new();

fn kept(result: io::Result<()>) {
    if let Err(e) = result {
        FAILED.get_or_init(|| e);
    }
}

/// Writes to standard output, up to the first failure; to standard error where a result went to standard output.
pub fn put(text: fmt::Arguments<'_>) {
    if streamed() {
        let _ = io::stderr().write_fmt(text);
    } else if FAILED.get().is_none() {
        kept(io::stdout().write_fmt(text));
    }
}

/// The failure of standard output; `None` for a pipe that its reader closed, as `head` does.
pub fn failure() -> Option<&'static io::Error> {
    if FAILED.get().is_none() {
        kept(io::stdout().flush());
    }
    FAILED.get().filter(|e| e.kind() != ErrorKind::BrokenPipe)
}

/// A message in one line, with control characters escaped: names of files may have any.
pub fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => " ".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

// In place of print!, println! and eprintln!, which panic when the output is closed or full.
macro_rules! put {
    ($($any:tt)*) => { $crate::cli::output::put(::std::format_args!($($any)*)) };
}
macro_rules! put_line {
    () => { $crate::cli::output::put(::std::format_args!("\n")) };
    ($($any:tt)*) => {
        $crate::cli::output::put(::std::format_args!("{}\n", ::std::format_args!($($any)*)))
    };
}
// Where standard error is closed, nothing is left that could say so.
macro_rules! put_error {
    ($($any:tt)*) => {{
        let _ = ::std::io::Write::write_fmt(
            &mut ::std::io::stderr(),
            ::std::format_args!("{}\n", ::std::format_args!($($any)*)),
        );
    }};
}
