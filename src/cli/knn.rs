use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::frame::write_parquet_with;
use mem2gen::ops::{Element, Memories};
use mem2gen::study::queries::knn_frame;
use ndarray::Array2;

use super::input::{On, Pair, done};

/// Find the k nearest reference points of every query; exact, ties to the lowest index
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Reference points (the memories), one per row: .npy, [K, N], float32 or float64; or images, as for 'classify'
    #[arg(long, value_name = "R.npy")]
    reference: PathBuf,
    /// Queries, one per row: .npy, [m, N], float32 or float64; or images, as for 'classify'
    #[arg(long, value_name = "X.npy")]
    queries: PathBuf,
    /// Number of neighbours of each query, 1 to K
    #[arg(short, value_name = "k")]
    k: usize,
    /// Exclude reference point i from the neighbours of query i; copies of it remain
    #[arg(long)]
    exclude_self: bool,
    #[command(flatten)]
    on: On,
    /// Neighbours: parquet with query and index (rows of the two files, from 0), rank (1 is the nearest)
    /// and distance (l2, float64), sorted by query and rank; the key `device` of its metadata names the
    /// device; - for standard output
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
}

/// Runs `mem2gen knn`.
pub fn run(args: Args) -> Result<(), Error> {
    match Pair::read(&args.reference, &args.queries)? {
        Pair::F32(r, q) => write(&args, r, q),
        Pair::F64(r, q) => write(&args, r, q),
    }
}

fn write<T: Element>(args: &Args, reference: Array2<T>, queries: Array2<T>) -> Result<(), Error> {
    let memories = Memories::on(reference, args.on.device)?;
    let found = memories.knn(queries.view(), args.k, args.exclude_self)?;
    write_parquet_with(&args.out, &knn_frame(&found)?, &[("device", &found.device.to_string())])?;
    done("knn", queries.nrows(), &memories, &args.out);
    Ok(())
}
