use std::fs;
use std::hint::black_box;
use std::time::Instant;

use clap::ValueEnum as _;
use mem2gen::Error;
use mem2gen::device::Device;
use mem2gen::ops::{Memories, OpError};
use mem2gen::random::{SEED, Stream};
use ndarray::Array2;
use serde_json::{Value, json};

use super::input::On;
use super::limits;

/// Times an operation on random single-precision data; prints one line of JSON
///
/// One run goes before those that are timed. `prepare_seconds` is what checking the memories took,
/// `median_seconds` and `least_seconds` what the operation took then. `peak_bytes` is the most memory that
/// preparing and one run took on the host beyond the inputs, the result included; null where the system
/// doesn't tell.
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
    /// Neighbours k
    #[arg(short, long, default_value_t = 6)]
    k: usize,
    /// Runs, of which the median counts
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    #[command(flatten)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// E^AM at beta = 1 / (2 N)
    Energy,
    /// The score at the sigma of that beta
    Score,
    /// The k nearest memories
    Knn,
    /// A limit: the two matrix products of the score, and nothing between them (processor)
    Gemm,
    /// A limit: m K exponentials, of numbers that stay in cache (processor)
    Exp,
    /// A limit: the memories read once (processor)
    Sum,
}

impl Operation {
    /// What one run does: under which name its rate is given, and how many thousand millions of what.
    fn work(self, args: &Args) -> (&'static str, f64) {
        let (m, k, n) = (args.queries as f64, args.memories as f64, args.dim as f64);
        let (rate, count) = match self {
            // Two operations a product of the expansion, and as many for the weighted mean.
            Self::Energy | Self::Knn => ("gflops", 2.0 * m * k * n),
            Self::Score | Self::Gemm => ("gflops", 4.0 * m * k * n),
            Self::Exp => ("gexps", m * k),
            Self::Sum => ("gbytes_per_second", size_of::<f32>() as f64 * k * n),
        };
        (rate, count / 1e9)
    }
}

/// Runs `mem2gen bench`.
pub fn run(args: Args) -> Result<(), Error> {
    let (m, k, n) = (args.queries, args.memories, args.dim);
    let draw = |name, rows| {
        let mut stream = Stream::new(SEED, name);
        Array2::from_shape_fn((rows, n), |_| stream.normal() as f32)
    };
    let (rows, queries) = (draw("bench: memories", k), draw("bench: queries", m));
    let watch = Watch::start();
    let (device, times) = match args.operation {
        Operation::Gemm => {
            let mut products = limits::Products::new(m, k, n);
            let run = || {
                products.run(queries.view(), rows.view());
                Ok(())
            };
            (Device::Cpu, watch.time(args.repeat, run)?)
        }
        Operation::Exp => {
            let run = || {
                limits::exponentials::<f32>(m * k);
                Ok(())
            };
            (Device::Cpu, watch.time(args.repeat, run)?)
        }
        Operation::Sum => (Device::Cpu, watch.time(args.repeat, || Ok(limits::sum(rows.view())))?),
        Operation::Energy | Operation::Score | Operation::Knn => {
            let memories = Memories::on(rows.view(), args.on.device)?;
            let sigma = (n as f64).sqrt();
            let times = match args.operation {
                Operation::Energy => {
                    watch.time(args.repeat, || memories.energy(queries.view(), 0.5 / (sigma * sigma)))
                }
                Operation::Score => watch.time(args.repeat, || memories.score(queries.view(), sigma)),
                _ => watch.time(args.repeat, || memories.knn(queries.view(), args.k, false)),
            };
            (memories.device(), times?)
        }
    };
    println!("{}", report(&args, device, &times));
    Ok(())
}

fn report(args: &Args, device: Device, times: &Times) -> Value {
    let mut seconds = times.seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let (rate, work) = args.operation.work(args);
    json!({
        "operation": args.operation.to_possible_value().map(|v| v.get_name().to_owned()),
        "queries": args.queries,
        "memories": args.memories,
        "dim": args.dim,
        "k": (args.operation == Operation::Knn).then_some(args.k),
        "repeat": seconds.len(),
        "prepare_seconds": times.prepare,
        "median_seconds": median,
        "least_seconds": seconds[0],
        rate: work / median,
        "peak_bytes": times.peak,
        "threads": rayon::current_num_threads(),
        "device": device,
    })
}

/// Time and memory since an operation's preparation began.
struct Watch {
    began: Instant,
    peak: Option<u64>,
}

struct Times {
    prepare: f64,
    /// Of each timed run; never empty.
    seconds: Vec<f64>,
    peak: Option<u64>,
}

impl Watch {
    fn start() -> Self {
        // The system forgets the peak so far. Where it doesn't, only what goes beyond that is counted.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { peak: peak_memory(), began: Instant::now() }
    }

    fn time<T>(self, repeat: usize, mut once: impl FnMut() -> Result<T, OpError>) -> Result<Times, OpError> {
        let prepare = self.began.elapsed().as_secs_f64();
        drop(black_box(once()?));
        let peak = self.peak.zip(peak_memory()).map(|(before, now)| now - before);
        let mut seconds = Vec::with_capacity(repeat.max(1));
        for _ in 0..repeat.max(1) {
            let clock = Instant::now();
            drop(black_box(once()?));
            seconds.push(clock.elapsed().as_secs_f64());
        }
        Ok(Times { prepare, seconds, peak })
    }
}

/// Most memory that the process held so far, in bytes.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| 1024 * kib)
}
