use std::time::Instant;

use mem2gen::Error;
use mem2gen::ops::Memories;
use mem2gen::random::{SEED, Stream};
use ndarray::Array2;
use serde_json::json;

/// Times a fused operation on random single-precision data; prints one line of JSON
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The operation
    operation: Operation,
    /// Queries m
    #[arg(long, default_value_t = 1024)]
    queries: usize,
    /// Memories K
    #[arg(long, default_value_t = 60_000)]
    memories: usize,
    /// Dimensions N
    #[arg(long, default_value_t = 784)]
    dim: usize,
    /// Runs, of which the median counts
    #[arg(long, default_value_t = 5)]
    repeat: usize,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Operation {
    /// E^AM at beta = 1 / (2 N)
    Energy,
    /// The score at the sigma of that beta
    Score,
}

/// Runs `mem2gen bench`.
pub fn run(args: Args) -> Result<(), Error> {
    let draw = |name, rows| {
        let mut stream = Stream::new(SEED, name);
        Array2::from_shape_fn((rows, args.dim), |_| stream.normal() as f32)
    };
    let (rows, queries) = (draw("bench: memories", args.memories), draw("bench: queries", args.queries));
    let memories = Memories::new(rows.view())?;
    let sigma = (args.dim as f64).sqrt();
    let mut seconds = Vec::with_capacity(args.repeat.max(1));
    for _ in 0..args.repeat.max(1) {
        let clock = Instant::now();
        match args.operation {
            Operation::Energy => drop(memories.energy(queries.view(), 0.5 / (sigma * sigma))?),
            Operation::Score => drop(memories.score(queries.view(), sigma)?),
        }
        seconds.push(clock.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    // Two operations a product of the expansion, and as many for the weighted mean.
    let (name, products) = match args.operation {
        Operation::Energy => ("energy", 2.0),
        Operation::Score => ("score", 4.0),
    };
    let flop = products * args.queries as f64 * args.memories as f64 * args.dim as f64;
    println!(
        "{}",
        json!({
            "operation": name,
            "queries": args.queries,
            "memories": args.memories,
            "dim": args.dim,
            "repeat": seconds.len(),
            "median_seconds": median,
            "gflops": flop / median / 1e9,
            "threads": rayon::current_num_threads(),
            "device": "cpu",
        })
    );
    Ok(())
}
