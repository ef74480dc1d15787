use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Class;
use mem2gen::frame::write_parquet;
use mem2gen::memory::{AttractorSettings, attractors};
use mem2gen::study::toy::frame::attractors_frame;

use super::input;

/// Find the attractors of a memory set: minima of the energy, memorized or spurious
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Memories, one per row: .npy, [K, N], float32 or float64
    #[arg(long, value_name = "M.npy")]
    memories: PathBuf,
    /// Inverse temperature, above 0
    #[arg(long, allow_hyphen_values = true)]
    beta: f64,
    /// Attractors: parquet with x0.., energy, nearest_memory, distance, kind, basin_share, hessian_min; - for
    /// standard output
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
    /// Distance to a memory up to which an attractor is memorized [default: a tenth of the median
    /// distance from a memory to its nearest distinct neighbour]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    delta_m: Option<f64>,
    /// Number of random starts; basin shares are fractions of it
    #[arg(long, default_value_t = AttractorSettings::default().random_starts)]
    random_starts: usize,
    /// Seed of the random starts
    #[arg(long, default_value_t = AttractorSettings::default().seed)]
    seed: u64,
}

/// Runs `mem2gen minima`.
pub fn run(args: Args) -> Result<(), Error> {
    let memories = input::memories(&args.memories)?;
    let settings = AttractorSettings {
        delta_m: args.delta_m,
        random_starts: args.random_starts,
        seed: args.seed,
        ..AttractorSettings::default()
    };
    let all = attractors(memories, args.beta, &settings)?;
    write_parquet(&args.out, &attractors_frame(&all)?)?;
    put_line!(
        "{} attractors: {} memorized (within {:.4e} of a memory), {} spurious; {} saddles met; {} starts lost",
        all.found.len(),
        all.count(Class::Memorized),
        all.delta_m,
        all.count(Class::Spurious),
        all.saddles.len(),
        all.lost,
    );
    Ok(())
}
