use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::ops::Memories;
use mem2gen::store::write_array;

use super::input::{Inputs, Pair};

/// Score of the Gaussian mixture about the memories: (m(x) - x) / sigma^2
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Standard deviation of each Gaussian, above 0
    #[arg(long, allow_hyphen_values = true)]
    sigma: f64,
    /// Scores: .npy, [m, N], in the precision of the inputs
    #[arg(long, value_name = "S.npy")]
    out: PathBuf,
}

/// Runs `mem2gen score`.
pub fn run(args: Args) -> Result<(), Error> {
    match args.inputs.read()? {
        Pair::F32(m, q) => {
            let score = Memories::new(m.view())?.score(q.view(), args.sigma)?;
            Ok(write_array(&args.out, &score)?)
        }
        Pair::F64(m, q) => {
            let score = Memories::new(m.view())?.score(q.view(), args.sigma)?;
            Ok(write_array(&args.out, &score)?)
        }
    }
}
