//! What the program does when it is told to stop, and the rights of the files that it makes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use mem2gen::store::remove_temporaries;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::ending::end;

/// Status of a program that a signal ends, as shells count it.
const ENDED_BY: u8 = 128;

/// From here on files get at most the rights 0644 and folders 0755; a file beyond the size that the system allows is an error
/// of the write; and SIGINT and SIGTERM remove temporary files, say where the work goes on, and end the program.
///
/// # Errors
/// Those of the system, which then treats signals as it does by default.
pub fn prepare(command: &'static str, resumes: bool) -> io::Result<()> {
    // SAFETY: umask changes a number of the process and has no other effect.
    unsafe { libc::umask(libc::umask(0o077) | 0o022) };
    // A signal that is noted does not end the process, and the write fails.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            remove_temporaries();
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            let kept = if resumes {
                "the same call goes on after the last finished part (in training, the last checkpoint)"
            } else {
                "no file is left unfinished; call it again"
            };
            put_error!("mem2gen {command}: stopped by {name}; {kept}");
            end(ENDED_BY + signal as u8);
        }
    })?;
    Ok(())
}
