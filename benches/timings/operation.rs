use std::fs;
use std::hint::black_box;
use std::time::Instant;

use clap::ValueEnum as _;
use mem2gen::Error;
use mem2gen::device::{Device, DeviceChoice};
use mem2gen::ops::{Memories, OpError};
use mem2gen::random::{SEED, Stream};
use ndarray::Array2;
use serde_json::{Value, json};

use crate::limits;

/// Time an operation on random single-precision data
///
/// One warm-up run precedes the timed runs. `prepare_seconds` is the time to check the memories; `median_seconds` and
/// `least_seconds` are those of the operation alone. `peak_bytes` is the largest amount of host memory that preparation
/// and one run take beyond the inputs, including the result; null when the system does not report it.
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
    /// Number of timed runs
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Device of energy, score and knn: cpu, cuda:N or auto
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// E^AM at beta = 1 / (2 N)
    Energy,
    /// The score at the sigma of that beta
    Score,
    /// The k nearest memories
    Knn,
    /// A bound: the two matrix products of the score alone, on the processor
    Gemm,
    /// A bound: m K exponentials of values in cache, on the processor
    Exp,
    /// A bound: reading the memories once, on the processor
    Sum,
}

impl Operation {
    /// Name of the rate, and the work of one run in 10^9 of its units.
    fn work(self, args: &Args) -> (&'static str, f64) {
        let (m, k, n) = (args.queries as f64, args.memories as f64, args.dim as f64);
        let (rate, count) = match self {
            // 2 N operations a pair for the distance, and 2 N more for the weighted mean.
            Self::Energy | Self::Knn => ("gflops", 2.0 * m * k * n),
            Self::Score | Self::Gemm => ("gflops", 4.0 * m * k * n),
            Self::Exp => ("gexps", m * k),
            Self::Sum => ("gbytes_per_second", size_of::<f32>() as f64 * k * n),
        };
        (rate, count / 1e9)
    }
}

/// Runs `timings operation`.
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
            let memories = Memories::on(rows, args.device)?;
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
        "operation": args.operation.to_possible_value().expect("no operation is hidden").get_name(),
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

/// Time and peak memory since the preparation of an operation began.
struct Watch {
    began: Instant,
    peak: Option<u64>,
}

struct Times {
    prepare: f64,
    /// Seconds of each timed run; never empty.
    seconds: Vec<f64>,
    peak: Option<u64>,
}

impl Watch {
    fn start() -> Self {
        // Resets the peak. Where the system can't, only memory beyond the earlier peak is counted.
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

/// Peak memory of the process in bytes; `None` when the system does not report it.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| 1024 * kib)
}
