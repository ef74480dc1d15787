use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::ops::{Element, Memories};
use mem2gen::store::write_array;
use ndarray::Array2;

use super::input::{Inputs, On, Pair, done};

/// Compute the DenseAM energy of queries (Eq. 6): -(1/beta) log sum exp(-beta ||x - xi||^2)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Inverse temperature, above 0; 1/(2 sigma^2 t) for a diffusion at time t
    #[arg(long, allow_hyphen_values = true)]
    beta: f64,
    #[command(flatten)]
    on: On,
    /// Energies: .npy, [m], float64; - for standard output
    #[arg(long, value_name = "E.npy")]
    out: PathBuf,
}

/// Runs `mem2gen energy`.
pub fn run(args: Args) -> Result<(), Error> {
    match args.inputs.read()? {
        Pair::F32(m, q) => write(&args, m, q),
        Pair::F64(m, q) => write(&args, m, q),
    }
}

fn write<T: Element>(args: &Args, memories: Array2<T>, queries: Array2<T>) -> Result<(), Error> {
    let memories = Memories::on(memories, args.on.device)?;
    write_array(&args.out, &memories.energy(queries.view(), args.beta)?)?;
    done("energy", queries.nrows(), &memories, &args.out);
    Ok(())
}
