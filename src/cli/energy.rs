use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::ops::Memories;
use mem2gen::store::write_array;

use super::input::{Inputs, Pair};

/// DenseAM energy of queries (Eq. 6): -(1/beta) log sum exp(-beta ||x - xi||^2)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Inverse temperature, above 0; 1/(2 sigma^2 t) for a diffusion at time t
    #[arg(long, allow_hyphen_values = true)]
    beta: f64,
    /// Energies: .npy, [m], float64
    #[arg(long, value_name = "E.npy")]
    out: PathBuf,
}

/// Runs `mem2gen energy`.
pub fn run(args: Args) -> Result<(), Error> {
    let energy = match args.inputs.read()? {
        Pair::F32(m, q) => Memories::new(m.view())?.energy(q.view(), args.beta)?,
        Pair::F64(m, q) => Memories::new(m.view())?.energy(q.view(), args.beta)?,
    };
    Ok(write_array(&args.out, &energy)?)
}
