//! Subcommands, one file each: they parse arguments, call the library and print.

#[macro_use]
mod output;

mod arch;
mod attractors;
mod basin;
mod chosen;
mod claims;
mod classify;
mod curvature;
mod data;
mod doctor;
mod ending;
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
mod prompts;
mod sample;
mod score;
mod signals;
mod source;
mod sweep;
mod toy;
mod train;

use std::error::Error;
use std::io::Write as _;

use clap::{CommandFactory, Parser, Subcommand};
use mem2gen::store::{memory_left, quoted};

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
    Sample(Box<sample::Args>),
    Likelihood(likelihood::Args),
    Sweep(Box<sweep::Args>),
    Attractors(Box<attractors::Args>),
    Basin(Box<basin::Args>),
    Curvature(Box<curvature::Args>),
    Potential(Box<potential::Args>),
    Prompts(Box<prompts::Args>),
    Claims(claims::Args),
    Data(data::Args),
    Doctor(doctor::Args),
    // Run by `make gpu-report`.
    #[command(hide = true)]
    GpuReport(gpu_report::Args),
}

/// Starts the threads of the process: `given`, those of `RAYON_NUM_THREADS`, or one a core.
///
/// # Errors
/// A reason, for none, and for more than a machine like this one has use for, which would take all memory.
fn start_threads(given: Option<usize>) -> Result<(), String> {
    let variable = std::env::var("RAYON_NUM_THREADS").ok().filter(|text| !text.is_empty());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (name, text, least) = match (given, variable) {
        (Some(given), _) => ("--threads", given.to_string(), 1),
        (None, Some(text)) => ("RAYON_NUM_THREADS", text, 0),
        (None, None) => ("threads", "0".to_owned(), 0),
    };
    let most = (16 * cores).max(256);
    let count = text.parse().ok().filter(|count| (least..=most).contains(count)).ok_or_else(|| {
        let shown = quoted(&text);
        format!("{name} is {shown}, expected a number from 1 to {most}, as this machine has {cores} cores")
    })?;
    rayon::ThreadPoolBuilder::new().num_threads(count).build_global().map_err(|e| {
        let count = if count == 0 { cores } else { count };
        format!(
            "{count} threads did not start ({e}); free memory, raise its limit, or set RAYON_NUM_THREADS to a smaller number"
        )
    })
}

impl Command {
    /// The name on the command line.
    fn name(&self) -> &'static str {
        match self {
            Self::Energy(_) => "energy",
            Self::Score(_) => "score",
            Self::Knn(_) => "knn",
            Self::Minima(_) => "minima",
            Self::Classify(_) => "classify",
            Self::Toy(_) => "toy",
            Self::Arch(_) => "arch",
            Self::Train(_) => "train",
            Self::Import(_) => "import",
            Self::Sample(_) => "sample",
            Self::Likelihood(_) => "likelihood",
            Self::Sweep(_) => "sweep",
            Self::Attractors(_) => "attractors",
            Self::Basin(_) => "basin",
            Self::Curvature(_) => "curvature",
            Self::Potential(_) => "potential",
            Self::Prompts(_) => "prompts",
            Self::Claims(_) => "claims",
            Self::Data(_) => "data",
            Self::Doctor(_) => "doctor",
            Self::GpuReport(_) => "gpu-report",
        }
    }

    /// Whether a call goes on where an earlier one with the same arguments was stopped.
    fn resumes(&self) -> bool {
        matches!(
            self,
            Self::Train(_)
                | Self::Sample(_)
                | Self::Sweep(_)
                | Self::Attractors(_)
                | Self::Basin(_)
                | Self::Curvature(_)
                | Self::Potential(_)
                | Self::Prompts(_)
        )
    }
}

/// Parses the command line, runs the command and ends the program with its status.
pub fn main() -> ! {
    ending::save_address_space();
    let status = status();
    let _ = std::io::stdout().flush();
    ending::end(status)
}

/// Parses the command line and runs the command. Every error is one line on standard error.
fn status() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version go to standard output, the help of a call without a subcommand to standard error.
        Err(e)
            if !e.use_stderr()
                || e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            let _ = e.print();
            return e.exit_code() as u8;
        }
        Err(e) => {
            let text = e.to_string();
            let what: Vec<&str> = text.lines().map(str::trim).take_while(|l| !l.is_empty()).collect();
            let command = std::env::args_os().nth(1).map(|c| c.to_string_lossy().into_owned());
            let known = command.filter(|c| Cli::command().find_subcommand(c).is_some());
            let name = known.map_or_else(String::new, |c| format!(" {c}"));
            put_error!("mem2gen{name}: {}", what.join(" ").trim_start_matches("error: "));
            return 2;
        }
    };
    let name = cli.command.name();
    ending::names(name);
    let threads = match &cli.command {
        Command::Sweep(args) => args.threads(),
        _ => None,
    };
    if let Err(reason) = start_threads(threads) {
        put_error!("mem2gen {name}: {reason}");
        return 2;
    }
    if let Err(e) = signals::prepare(name, cli.command.resumes()) {
        put_error!("mem2gen {name}: signals keep their defaults: {e}");
    }
    // OpenBLAS asks for 128 MiB, and for ever where it does not get them.
    let lapack = matches!(cli.command, Command::Minima(_) | Command::Curvature(_) | Command::Attractors(_));
    if let Some(left) = memory_left().filter(|left| lapack && *left < 256 << 20) {
        put_error!(
            "mem2gen {name}: {} MiB of memory are left, but LAPACK needs 256 MiB; free memory or raise its limit",
            left >> 20
        );
        return 1;
    }
    let result: Result<(), Box<dyn Error>> = match cli.command {
        Command::Energy(args) => energy::run(args).map_err(Into::into),
        Command::Score(args) => score::run(args).map_err(Into::into),
        Command::Knn(args) => knn::run(args).map_err(Into::into),
        Command::Minima(args) => minima::run(args).map_err(Into::into),
        Command::Classify(args) => classify::run(args).map_err(Into::into),
        Command::Toy(args) => toy::run(args).map_err(Into::into),
        Command::Arch(args) => arch::run(args).map_err(Into::into),
        Command::Train(args) => train::run(*args).map_err(Into::into),
        Command::Import(args) => import::run(*args).map_err(Into::into),
        Command::Sample(args) => sample::run(*args).map_err(Into::into),
        Command::Likelihood(args) => likelihood::run(args).map_err(Into::into),
        Command::Sweep(args) => sweep::run(*args).map_err(Into::into),
        Command::Attractors(args) => attractors::run(*args).map_err(Into::into),
        Command::Basin(args) => basin::run(*args).map_err(Into::into),
        Command::Curvature(args) => curvature::run(*args).map_err(Into::into),
        Command::Potential(args) => potential::run(*args).map_err(Into::into),
        Command::Prompts(args) => prompts::run(*args).map_err(Into::into),
        Command::Claims(args) => claims::run(args).map_err(Into::into),
        Command::Data(args) => data::run(args).map_err(Into::into),
        Command::Doctor(args) => doctor::run(args).map_err(Into::into),
        Command::GpuReport(args) => gpu_report::run(args).map_err(Into::into),
    };
    match (result, output::failure()) {
        (Ok(()), None) => 0,
        (Ok(()), Some(e)) => {
            put_error!("mem2gen {name}: standard output: {e}; files that the command writes are complete");
            1
        }
        (Err(e), lost) => {
            if let Some(lost) = lost {
                put_error!("mem2gen {name}: standard output: {lost}");
            }
            let text = output::one_line(&e.to_string());
            // Some errors name their operation, which is the command.
            put_error!("mem2gen {name}: {}", text.strip_prefix(&format!("{name}: ")).unwrap_or(&text));
            e.downcast_ref::<classify::Error>().map_or(1, classify::Error::exit_code)
        }
    }
}
