//! Times one operation or one network step on random data and prints one line of JSON. `make bench-peers`, `make
//! bench-train` and `make latency` compare it with other libraries.

mod limits;
mod network;
mod operation;

use std::process::ExitCode;

use clap::Parser;

/// Time operations and networks on random data
#[derive(Debug, Parser)]
#[command(name = "timings")]
enum Timings {
    Operation(operation::Args),
    Network(network::Args),
}

fn main() -> ExitCode {
    let result = match Timings::parse() {
        Timings::Operation(args) => operation::run(args),
        Timings::Network(args) => network::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("timings: {e}");
            ExitCode::FAILURE
        }
    }
}
