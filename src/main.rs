//! The program: parse, check, call, print.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
