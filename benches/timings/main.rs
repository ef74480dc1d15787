//! Times one operation or one network step on random data and prints one line of JSON. `make bench-peers`, `make
//! bench-train` and `make latency` compare it with other libraries. `planted` measures how well copies are found, for `make
//! bench-classify`.

mod limits;
mod network;
mod operation;
mod planted;

use std::process::ExitCode;

use clap::Parser;

/// Time operations and networks on random data, and find planted copies
#[derive(Debug, Parser)]
#[command(name = "timings")]
enum Timings {
    Operation(operation::Args),
    Network(network::Args),
    Planted(planted::Args),
}

fn main() -> ExitCode {
    let result = match Timings::parse() {
        Timings::Operation(args) => operation::run(args),
        Timings::Network(args) => network::run(args),
        Timings::Planted(args) => planted::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("timings: {e}");
            ExitCode::FAILURE
        }
    }
}
