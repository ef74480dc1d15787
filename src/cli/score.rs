use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::ops::{Element, Memories};
use mem2gen::store::write_array;
use ndarray::Array2;
use ndarray_npy::WritableElement;

use super::input::{Inputs, On, Pair, done};

/// Compute the score of the Gaussian mixture centred at the memories: (m(x) - x) / sigma^2
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Standard deviation of each Gaussian, above 0
    #[arg(long, allow_hyphen_values = true)]
    sigma: f64,
    #[command(flatten)]
    on: On,
    /// Scores: .npy, [m, N], in the precision of the inputs; - for standard output
    #[arg(long, value_name = "S.npy")]
    out: PathBuf,
}

/// Runs `mem2gen score`.
pub fn run(args: Args) -> Result<(), Error> {
    match args.inputs.read()? {
        Pair::F32(m, q) => write(&args, m, q),
        Pair::F64(m, q) => write(&args, m, q),
    }
}

fn write<T: Element + WritableElement>(
    args: &Args,
    memories: Array2<T>,
    queries: Array2<T>,
) -> Result<(), Error> {
    let memories = Memories::on(memories, args.on.device)?;
    write_array(&args.out, &memories.score(queries.view(), args.sigma)?)?;
    done("score", queries.nrows(), &memories, &args.out);
    Ok(())
}
