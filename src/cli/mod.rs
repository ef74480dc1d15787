//! Subcommands, one file each: they parse arguments, call the library and print.

#[macro_use]
mod output;

mod arch;
mod basin;
mod chosen;
mod claims;
mod classify;
mod curvature;
mod data;
mod doctor;
mod energy;
mod export;
mod gpu_report;
mod import;
mod input;
mod inputs;
mod knn;
mod likelihood;
mod minima;
mod own;
mod potential;
mod sample;
mod score;
mod source;
mod sweep;
mod toy;
mod train;

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Memorization to generalization: diffusion models as dense associative memories
#[derive(Debug, Parser)]
#[command(name = "mem2gen", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Energy(energy::Args),
    Score(score::Args),
    Knn(knn::Args),
    Minima(minima::Args),
    Classify(classify::Args),
    Toy(toy::Args),
    Arch(arch::Args),
    Train(Box<train::Args>),
    Import(Box<import::Args>),
    Sample(sample::Args),
    Likelihood(likelihood::Args),
    Sweep(Box<sweep::Args>),
    Basin(Box<basin::Args>),
    Curvature(Box<curvature::Args>),
    Potential(Box<potential::Args>),
    Claims(claims::Args),
    Data(data::Args),
    Doctor(doctor::Args),
    // Run by `make gpu-report`.
    #[command(hide = true)]
    GpuReport(gpu_report::Args),
}

/// Parses the command line and runs the command. Every error is one line on standard error.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help, version and the help of a call without a subcommand go to standard output.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) if e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => e.exit(),
        Err(e) => {
            let text = e.to_string();
            let what: Vec<&str> = text.lines().map(str::trim).take_while(|l| !l.is_empty()).collect();
            let command = std::env::args_os().nth(1).map(|c| c.to_string_lossy().into_owned());
            let known = command.filter(|c| Cli::command().find_subcommand(c).is_some());
            let name = known.map_or_else(String::new, |c| format!(" {c}"));
            put_error!("mem2gen{name}: {}", what.join(" ").trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    let (name, result): (_, Result<(), Box<dyn Error>>) = match cli.command {
        Command::Energy(args) => ("energy", energy::run(args).map_err(Into::into)),
        Command::Score(args) => ("score", score::run(args).map_err(Into::into)),
        Command::Knn(args) => ("knn", knn::run(args).map_err(Into::into)),
        Command::Minima(args) => ("minima", minima::run(args).map_err(Into::into)),
        Command::Classify(args) => ("classify", classify::run(args).map_err(Into::into)),
        Command::Toy(args) => ("toy", toy::run(args).map_err(Into::into)),
        Command::Arch(args) => ("arch", arch::run(args).map_err(Into::into)),
        Command::Train(args) => ("train", train::run(*args).map_err(Into::into)),
        Command::Import(args) => ("import", import::run(*args).map_err(Into::into)),
        Command::Sample(args) => ("sample", sample::run(args).map_err(Into::into)),
        Command::Likelihood(args) => ("likelihood", likelihood::run(args).map_err(Into::into)),
        Command::Sweep(args) => ("sweep", sweep::run(*args).map_err(Into::into)),
        Command::Basin(args) => ("basin", basin::run(*args).map_err(Into::into)),
        Command::Curvature(args) => ("curvature", curvature::run(*args).map_err(Into::into)),
        Command::Potential(args) => ("potential", potential::run(*args).map_err(Into::into)),
        Command::Claims(args) => ("claims", claims::run(args).map_err(Into::into)),
        Command::Data(args) => ("data", data::run(args).map_err(Into::into)),
        Command::Doctor(args) => ("doctor", doctor::run(args).map_err(Into::into)),
        Command::GpuReport(args) => ("gpu-report", gpu_report::run(args).map_err(Into::into)),
    };
    match (result, output::failure()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(e)) => {
            put_error!("mem2gen {name}: standard output: {e}; files that the command writes are complete");
            ExitCode::FAILURE
        }
        (Err(e), _) => {
            put_error!("mem2gen {name}: {}", e.to_string().replace('\n', " "));
            e.downcast_ref::<classify::Error>().map_or(ExitCode::FAILURE, |e| ExitCode::from(e.exit_code()))
        }
    }
}
