//! What the program does when it is told to stop, and the rights of the files that it makes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use mem2gen::store::remove_temporaries;
use mem2gen::train::{Stopped, stop};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::ending::end;

/// Status of a program that a signal ends, as shells count it.
const ENDED_BY: u8 = 128;

/// Longest time that a stopped program waits for the steps of its training runs. Systems kill a program some 30 s after SIGTERM.
const LONGEST: Duration = Duration::from_secs(20);

/// From here on files get at most the rights 0644 and folders 0755; a file beyond the size that the system allows is an error
/// of the write; and SIGINT and SIGTERM let training runs write a checkpoint, remove temporary files, say where the work
/// goes on, and end the program.
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
        let first = signals.forever().next();
        if let Some(signal) = first {
            // A second signal does not wait.
            let stopped = stop(LONGEST, || signals.pending().next().is_some());
            remove_temporaries();
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            let kept =
                if resumes { goes_on(&stopped) } else { "no file is left unfinished; call it again".into() };
            put_error!("mem2gen {command}: stopped by {name}; {kept}");
            end(ENDED_BY + signal as u8);
        }
    })?;
    Ok(())
}

/// Where the same call goes on.
fn goes_on(Stopped { kept, late }: &Stopped) -> String {
    match (&kept[..], late) {
        (_, 1..) => {
            "a step of training did not end in time, and the same call goes on after the last checkpoint"
                .into()
        }
        ([], 0) => {
            "the same call goes on after the last finished part (in training, the last checkpoint)".into()
        }
        ([step], 0) => {
            format!("the checkpoint of step {step} is written, and the same call goes on from there")
        }
        (kept, 0) => {
            format!(
                "checkpoints of {} networks are written, and the same call goes on from there",
                kept.len()
            )
        }
    }
}
