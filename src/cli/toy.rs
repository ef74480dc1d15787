use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::memory::toy::points;
use mem2gen::store::write_array;

/// Write the first K training points of the toy model, as drawn by the paper's code
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of points, 1 to 1000
    #[arg(long, value_name = "K")]
    points: usize,
    /// Points: .npy, [K, 2], float64; - for standard output
    #[arg(long, value_name = "P.npy")]
    out: PathBuf,
}

/// Runs `mem2gen toy`.
pub fn run(args: Args) -> Result<(), Error> {
    Ok(write_array(&args.out, &points(args.points)?)?)
}
