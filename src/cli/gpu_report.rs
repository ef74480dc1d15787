//! `mem2gen gpu-report`: checks and times every kernel on a CUDA device and compares it with the card's limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mem2gen::device::{Device, DeviceChoice};
use mem2gen::ops::cuda::Resident;
use mem2gen::ops::cuda::device::{CudaDriver, KernelTime};
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Launch};
use mem2gen::ops::cuda::sources::MODULES;
use mem2gen::ops::{Element, Memories, OpError, Want};
use mem2gen::random::{SEED, Stream};
use mem2gen::store::{StoreError, write_atomic};
use ndarray::{Array2, ArrayView2, Axis, s};
use serde::Serialize;

use super::doctor::print_table;

/// Check and time every kernel on a CUDA device and compare it with the card's measured limits
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of the CUDA device
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Number of timed runs of each operation
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// JSON file for the report
    #[arg(long, value_name = "R.json")]
    json: Option<PathBuf>,
}

/// Why `mem2gen gpu-report` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The report could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Results differ from the processor's.
    #[error("results differ from the processor's: {}", .0.join(", "))]
    Wrong(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Energy,
    Score,
    Knn,
    Pairwise,
}

/// An operation on m queries and K memories in N dimensions.
#[derive(Debug, Clone, Copy, Serialize)]
struct Case {
    operation: Operation,
    queries: usize,
    memories: usize,
    dim: usize,
    /// Noise level of energy and score as a part of sqrt(N).
    sigma: f64,
    /// Number of neighbours of knn.
    neighbours: usize,
}

const fn case(operation: Operation, queries: usize, memories: usize, dim: usize) -> Case {
    Case { operation, queries, memories, dim, sigma: 1.0, neighbours: 6 }
}

const fn at(sigma: f64, case: Case) -> Case {
    Case { sigma, ..case }
}

/// The cases run every kernel.
const CASES: [Case; 23] = [
    case(Operation::Energy, 100_000, 1000, 2),
    case(Operation::Energy, 100_000, 1000, 4),
    case(Operation::Energy, 100_000, 1000, 8),
    case(Operation::Energy, 100_000, 1000, 16),
    case(Operation::Energy, 100_000, 1000, 32),
    at(0.25, case(Operation::Energy, 100_000, 1000, 2)),
    at(0.1, case(Operation::Energy, 100_000, 1000, 2)),
    at(0.05, case(Operation::Energy, 100_000, 1000, 2)),
    case(Operation::Energy, 4096, 60_000, 784),
    at(0.25, case(Operation::Energy, 4096, 60_000, 784)),
    at(0.1, case(Operation::Energy, 4096, 60_000, 784)),
    at(0.05, case(Operation::Energy, 4096, 60_000, 784)),
    case(Operation::Score, 4096, 60_000, 784),
    at(0.25, case(Operation::Score, 4096, 60_000, 784)),
    at(0.1, case(Operation::Score, 4096, 60_000, 784)),
    at(0.05, case(Operation::Score, 4096, 60_000, 784)),
    case(Operation::Score, 16, 60_000, 784),
    case(Operation::Score, 1024, 10_000, 12_288),
    case(Operation::Knn, 4096, 60_000, 2),
    case(Operation::Knn, 4096, 60_000, 784),
    case(Operation::Knn, 16, 60_000, 784),
    // More than the sieve keeps: all distances in double.
    Case { neighbours: 100, ..case(Operation::Knn, 16, 60_000, 784) },
    case(Operation::Pairwise, 4096, 8192, 784),
];

/// Number of queries, spread from the first to the last, whose result is compared with the processor's in double precision.
const CHECKED: usize = 8;
/// Largest error relative to the largest value of a result. The operations guarantee 1e-5 for energy and score, and 6.1e-5
/// for squared distances.
const TOLERANCE: f64 = 6.2e-5;

impl Case {
    /// Additions and multiplications: one product for each pair and dimension, and one more for the weighted mean of a score.
    fn flops(&self) -> f64 {
        let per_product = if self.operation == Operation::Score { 4.0 } else { 2.0 };
        per_product * self.queries as f64 * self.memories as f64 * self.dim as f64
    }

    /// Smallest number of bytes moved: the inputs read once and the result written once.
    fn bytes(&self) -> f64 {
        let (m, k, n) = (self.queries as f64, self.memories as f64, self.dim as f64);
        let result = match self.operation {
            Operation::Energy => 8.0 * m,
            Operation::Score => 4.0 * m * n,
            Operation::Knn => 12.0 * m * self.neighbours as f64,
            Operation::Pairwise => 4.0 * m * k,
        };
        4.0 * (k * n + m * n) + result
    }

    fn name(&self) -> String {
        let Self { operation, queries, memories, dim, sigma, neighbours } = self;
        let mut name = format!("{operation:?} {queries} x {memories} x {dim}").to_lowercase();
        if *sigma != 1.0 {
            name += &format!(" at {sigma} sqrt(N)");
        }
        if *neighbours != 6 {
            name += &format!(", k {neighbours}");
        }
        name
    }

    fn beta(&self) -> f64 {
        0.5 / (self.sigma * self.sigma * self.dim as f64)
    }

    /// The queries that are checked: the first, the last, and others as far apart as they can be.
    fn checked(&self) -> Vec<usize> {
        let count = CHECKED.min(self.queries);
        (0..count).map(|i| i * (self.queries - 1) / (count - 1).max(1)).collect()
    }

    /// Runs the case and gives the part of the result that is checked, in rising order of the queries.
    fn run<T: Element>(
        &self,
        memories: &Memories<T>,
        queries: ArrayView2<'_, T>,
        checked: &[usize],
    ) -> Result<Outcome, OpError> {
        let sigma = self.sigma * (self.dim as f64).sqrt();
        let mut outcome = Outcome::default();
        match self.operation {
            Operation::Energy => {
                let energy = memories.energy(queries, self.beta())?;
                outcome.numbers.extend(checked.iter().map(|q| energy[*q]));
            }
            Operation::Score => {
                let score = memories.score(queries, sigma)?;
                outcome.numbers.extend(score.select(Axis(0), checked).iter().map(|v| v.f64()));
            }
            Operation::Knn => {
                let knn = memories.knn(queries, self.neighbours, false)?;
                outcome.indices.extend(knn.index.select(Axis(0), checked));
                outcome.numbers.extend(knn.distance.select(Axis(0), checked));
            }
            Operation::Pairwise => {
                let mut kept = Array2::zeros((checked.len(), memories.len()));
                memories.pairwise(queries, |tile| {
                    for (mut row, q) in kept.outer_iter_mut().zip(checked) {
                        if tile.queries.contains(q) {
                            let part = tile.squared.row(q - tile.queries.start).mapv(|v| v.f64());
                            row.slice_mut(s![tile.memories.clone()]).assign(&part);
                        }
                    }
                })?;
                outcome.numbers.extend(kept);
            }
        }
        Ok(outcome)
    }
}

/// The part of a result that is checked.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    numbers: Vec<f64>,
    indices: Vec<usize>,
}

impl Outcome {
    /// Whether it equals `due` within [`TOLERANCE`]; false for NaN.
    fn agrees(&self, due: &Self) -> bool {
        let largest = due.numbers.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * largest;
        self.indices == due.indices
            && self.numbers.len() == due.numbers.len()
            && self.numbers.iter().zip(&due.numbers).all(near)
    }
}

/// Measured limits of a card.
#[derive(Debug, Clone, Copy, Serialize)]
struct Limits {
    /// Bandwidth of a copy, counting bytes read and written.
    gbytes_per_second: f64,
    /// Fused multiply-adds in single precision, each counted as two operations.
    gflops: f64,
}

/// Times and rates of a case.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    case: Case,
    /// Whether the result agrees with the processor's.
    agrees: bool,
    /// Seconds of the whole call, including copies from and to the host.
    median_seconds: f64,
    /// Median of the seconds of its kernels, without those that prepare the memories.
    kernel_seconds: f64,
    /// Of energy and score, the share of pairs whose distance was taken again in double.
    double_share: Option<f64>,
    rates: Rates,
    preparing: BTreeMap<&'static str, KernelTime>,
    kernels: BTreeMap<&'static str, KernelTime>,
}

impl Row {
    /// Every kernel that was launched.
    fn all(&self) -> impl Iterator<Item = (&&'static str, &KernelTime)> {
        self.preparing.iter().chain(&self.kernels)
    }
}

/// Work per second, and as a fraction of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Rates {
    gflops: f64,
    of_peak: f64,
    gbytes_per_second: f64,
    of_copy: f64,
}

impl Rates {
    fn from_seconds(case: &Case, seconds: f64, limits: &Limits) -> Self {
        let (gflops, gbytes_per_second) = (case.flops() / seconds / 1e9, case.bytes() / seconds / 1e9);
        Self {
            gflops,
            of_peak: gflops / limits.gflops,
            gbytes_per_second,
            of_copy: gbytes_per_second / limits.gbytes_per_second,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    name: String,
    capability: u32,
    /// Origin of each kernel source.
    sources: BTreeMap<&'static str, String>,
    limits: Limits,
    rows: Vec<Row>,
    small: Small,
    /// Kernels that no case ran.
    not_run: Vec<&'static str>,
}

/// Runs `mem2gen gpu-report`.
///
/// # Errors
/// [`Error::Driver`] and [`Error::Op`] for a missing device or a failure on it; [`Error::Wrong`] for cases whose results
/// differ from the processor's.
pub fn run(args: Args) -> Result<(), Error> {
    let driver = CudaDriver::open(args.device)?;
    let origins = driver.load_all()?;
    warm_up(&driver)?;
    let limits = measure(&driver)?;
    let mut rows = Vec::with_capacity(CASES.len());
    for case in CASES {
        rows.push(row(case, args.repeat.max(1), &driver, args.device, &limits)?);
    }
    let small = small_calls(&driver, args.device)?;
    let ran =
        |kernel: &&str| kernel.starts_with("peak_") || rows.iter().any(|r| r.all().any(|(k, _)| k == kernel));
    let not_run = MODULES.iter().flat_map(|m| m.kernels).copied().filter(|k| !ran(k)).collect();
    let report = Report {
        device: Device::Cuda(args.device).to_string(),
        name: driver.name(),
        capability: driver.capability(),
        sources: origins.into_iter().map(|(name, origin)| (name, origin.to_string())).collect(),
        limits,
        rows,
        small,
        not_run,
    };
    if let Some(path) = args.json {
        write_atomic(&path, |w| Ok(serde_json::to_writer_pretty(w, &report)?))?;
    }
    print(&report);
    let wrong: Vec<String> = report.rows.iter().filter(|r| !r.agrees).map(|r| r.case.name()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::Wrong(wrong)) }
}

fn row(
    case: Case,
    repeat: usize,
    driver: &Arc<CudaDriver>,
    number: usize,
    limits: &Limits,
) -> Result<Row, Error> {
    let draw = |name, rows| {
        let mut stream = Stream::new(SEED, name);
        Array2::from_shape_fn((rows, case.dim), |_| stream.normal() as f32)
    };
    let (rows, queries) = (draw("report: memories", case.memories), draw("report: queries", case.queries));
    let exact_rows = rows.mapv(f64::from);
    let checked = case.checked();
    let few = queries.select(Axis(0), &checked).mapv(f64::from);
    let all: Vec<usize> = (0..checked.len()).collect();
    let due = case.run(&Memories::new(exact_rows)?, few.view(), &all)?;

    let choice = DeviceChoice::Only(Device::Cuda(number));
    let rows = rows.into_shared();
    // The first launch of a kernel may load it, so one run precedes the timed ones.
    let agrees = case.run(&Memories::on(rows.clone(), choice)?, queries.view(), &checked)?.agrees(&due);
    driver.time_launches(true)?;
    let memories = Memories::on(rows.clone(), choice)?;
    let preparing = driver.time_launches(true)?;
    let total = |kernels: &BTreeMap<_, KernelTime>| kernels.values().map(|k| k.seconds).sum::<f64>();
    let mut timed = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        case.run(&memories, queries.view(), &[])?;
        timed.push(driver.time_launches(true)?);
    }
    driver.time_launches(false)?;
    timed.sort_by(|a, b| total(a).total_cmp(&total(b)));
    let kernels = timed.swap_remove(repeat / 2);
    let mut seconds = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let clock = Instant::now();
        case.run(&memories, queries.view(), &[])?;
        seconds.push(clock.elapsed().as_secs_f64());
    }
    drop(memories);
    let want = match case.operation {
        Operation::Energy => Some(Want::ENERGY),
        Operation::Score => Some(Want::SHIFT),
        Operation::Knn | Operation::Pairwise => None,
    };
    let double_share = want
        .map(|want| -> Result<f64, OpError> {
            let device: Arc<dyn Driver> = driver.clone();
            let memories = Resident::upload(device, Device::Cuda(number), rows.view())?;
            let (_, pairs) = memories.readout_counted(queries.view(), case.beta(), want)?;
            Ok(pairs as f64 / (case.queries as f64 * case.memories as f64))
        })
        .transpose()?;
    seconds.sort_by(f64::total_cmp);
    let kernel_seconds = total(&kernels);
    Ok(Row {
        case,
        agrees,
        median_seconds: seconds[repeat / 2],
        kernel_seconds,
        double_share,
        rates: Rates::from_seconds(&case, kernel_seconds, limits),
        preparing,
        kernels,
    })
}

/// Seconds of one small call and of its parts.
#[derive(Debug, Serialize)]
struct Small {
    /// Number of calls, of which each number here is the mean.
    calls: usize,
    /// The energy of one query from 1000 memories in 2 dimensions.
    call_seconds: f64,
    /// An allocation of 64 bytes and its end.
    allocation_seconds: f64,
    /// A launch of one block.
    launch_seconds: f64,
    /// A copy of 64 bytes from the device.
    copy_seconds: f64,
}

fn small_calls(driver: &CudaDriver, number: usize) -> Result<Small, Error> {
    const CALLS: usize = 1000;
    let rows = Array2::from_shape_fn((1000, 2), |(i, j)| ((2 * i + j) as f32).sin());
    let memories = Memories::on(rows.clone().into_shared(), DeviceChoice::Only(Device::Cuda(number)))?;
    let query = rows.slice(s![..1, ..]);
    let block = driver.alloc(64)?;
    driver.write(block, 0, &[0; 64])?;
    let block_of = |offset| Arg::Buffer(block, offset);
    let args = [block_of(0), block_of(16), block_of(32), Arg::I64(1), Arg::I32(2), Arg::I64(2)];
    let launch = Launch { kernel: "half_norms", grid: [1, 1, 1], block: [128, 1, 1], shared: 0, args: &args };
    let mean = |call: &mut dyn FnMut() -> Result<(), Error>| -> Result<f64, Error> {
        call()?;
        driver.synchronize()?;
        let clock = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        driver.synchronize()?;
        Ok(clock.elapsed().as_secs_f64() / CALLS as f64)
    };
    let small = Small {
        calls: CALLS,
        call_seconds: mean(&mut || Ok(memories.energy(query, 0.5).map(drop)?))?,
        allocation_seconds: mean(&mut || {
            let block = driver.alloc(64)?;
            driver.free(block);
            Ok(())
        })?,
        launch_seconds: mean(&mut || Ok(driver.launch(&launch)?))?,
        copy_seconds: mean(&mut || Ok(driver.read(block, 0, &mut [0; 64])?))?,
    };
    driver.free(block);
    Ok(small)
}

/// Seconds of work before anything is timed, in which the card's clock rises.
const WARM_UP: f64 = 0.5;

fn warm_up(driver: &CudaDriver) -> Result<(), DriverError> {
    let out = driver.alloc(4 * 256 * 1024)?;
    let args = [Arg::Buffer(out, 0), Arg::F32(0.5), Arg::F32(1.0), Arg::I32(1 << 14)];
    let launch =
        Launch { kernel: "peak_fma", grid: [1024, 1, 1], block: [256, 1, 1], shared: 0, args: &args };
    let clock = Instant::now();
    while clock.elapsed().as_secs_f64() < WARM_UP {
        driver.launch(&launch)?;
        driver.synchronize()?;
    }
    driver.free(out);
    Ok(())
}

/// Number of launches that are timed together, to exclude the cost of a launch on the host.
const TOGETHER: usize = 20;

/// Measures the limits: a copy of a quarter of the free memory, at most 1 GiB, and multiply-adds in registers.
fn measure(driver: &CudaDriver) -> Result<Limits, Error> {
    let device = driver.limits()?;
    let wide = 8 * u32::try_from(device.processors).expect("a card has fewer than 2^32 processors");
    let threads = 256 * u64::from(wide);
    let time = |kernel, args: &[Arg]| -> Result<f64, DriverError> {
        let launch = Launch { kernel, grid: [wide, 1, 1], block: [256, 1, 1], shared: 0, args };
        driver.launch(&launch)?;
        driver.synchronize()?;
        let clock = Instant::now();
        for _ in 0..TOGETHER {
            driver.launch(&launch)?;
        }
        driver.synchronize()?;
        Ok(clock.elapsed().as_secs_f64() / TOGETHER as f64)
    };
    let pieces = (device.free / 4).min(1 << 30) / 16;
    let (from, to) = (driver.alloc(16 * pieces)?, driver.alloc(16 * pieces)?);
    let mark: Vec<u8> = (1..=16).collect();
    driver.write(from, 16 * (pieces - 1), &mark)?;
    let copy = time("peak_copy", &[Arg::Buffer(from, 0), Arg::Buffer(to, 0), Arg::I64(pieces as i64)])?;
    let mut found = [0; 16];
    driver.read(to, 16 * (pieces - 1), &mut found)?;
    driver.free(from);
    driver.free(to);

    let out = driver.alloc(4 * threads as usize)?;
    const STEPS: i32 = 1 << 14;
    // x / 2 + 1 converges to 2 in each of the eight chains.
    let multiply = time("peak_fma", &[Arg::Buffer(out, 0), Arg::F32(0.5), Arg::F32(1.0), Arg::I32(STEPS)])?;
    let mut sum = [0; 4];
    driver.read(out, 4 * (threads as usize - 1), &mut sum)?;
    driver.free(out);
    if mark != found || f32::from_ne_bytes(sum) != 16.0 {
        return Err(Error::Wrong(vec!["the kernels that measure the limits".to_owned()]));
    }
    Ok(Limits {
        gbytes_per_second: 32.0 * pieces as f64 / copy / 1e9,
        gflops: 16.0 * f64::from(STEPS) * threads as f64 / multiply / 1e9,
    })
}

fn print(report: &Report) {
    put_line!("{}: {}, capability {}", report.device, report.name, report.capability);
    let sources: Vec<String> = report.sources.iter().map(|(name, from)| format!("{name} {from}")).collect();
    put_line!("sources: {}", sources.join(", "));
    let Limits { gbytes_per_second, gflops } = report.limits;
    put_line!("limits: copy {gbytes_per_second:.0} GB/s, multiply-add {gflops:.0} GFLOP/s");
    put_line!();
    let head =
        ["operation", "right", "call ms", "kernels ms", "GFLOP/s", "of peak", "GB/s", "of copy", "in double"];
    let mut table = vec![head.map(str::to_owned)];
    table.extend(report.rows.iter().map(|row| {
        let r = &row.rates;
        [
            row.case.name(),
            if row.agrees { "yes" } else { "NO" }.to_owned(),
            format!("{:.3}", 1e3 * row.median_seconds),
            format!("{:.3}", 1e3 * row.kernel_seconds),
            format!("{:.0}", r.gflops),
            format!("{:.0} %", 100.0 * r.of_peak),
            format!("{:.0}", r.gbytes_per_second),
            format!("{:.0} %", 100.0 * r.of_copy),
            row.double_share.map_or_else(String::new, |share| format!("{:.2} %", 100.0 * share)),
        ]
    }));
    print_table(&table);
    put_line!();
    let mut table = vec![["operation", "kernel", "launches", "ms"].map(str::to_owned)];
    for row in &report.rows {
        table.extend(row.all().map(|(kernel, time)| {
            let ms = format!("{:.3}", 1e3 * time.seconds);
            [row.case.name(), (*kernel).to_owned(), time.launches.to_string(), ms]
        }));
    }
    print_table(&table);
    let Small { calls, call_seconds, allocation_seconds, launch_seconds, copy_seconds } = report.small;
    let us = |seconds: f64| format!("{:.1} us", 1e6 * seconds);
    put_line!(
        "\nsmall calls, mean of {calls}: energy 1 x 1000 x 2 {}, allocation {}, launch {}, copy {}",
        us(call_seconds),
        us(allocation_seconds),
        us(launch_seconds),
        us(copy_seconds)
    );
    if !report.not_run.is_empty() {
        put_line!("\nnot run: {}", report.not_run.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_by_hand() {
        // 2 x 3 pairs in 5 dimensions.
        let by = |operation| case(operation, 2, 3, 5);
        assert_eq!(by(Operation::Knn).flops(), 60.0);
        assert_eq!(by(Operation::Score).flops(), 120.0);
        // 25 floats of input.
        assert_eq!(by(Operation::Energy).bytes(), 100.0 + 16.0);
        assert_eq!(by(Operation::Score).bytes(), 100.0 + 40.0);
        assert_eq!(by(Operation::Knn).bytes(), 100.0 + 2.0 * 6.0 * 12.0);
        assert_eq!(by(Operation::Pairwise).bytes(), 100.0 + 24.0);
        let limits = Limits { gbytes_per_second: 580e-9, gflops: 240e-9 };
        let rates = Rates::from_seconds(&by(Operation::Energy), 0.5, &limits);
        let due = Rates { gflops: 120e-9, of_peak: 0.5, gbytes_per_second: 232e-9, of_copy: 0.4 };
        for (a, b) in [
            (rates.gflops, due.gflops),
            (rates.of_peak, due.of_peak),
            (rates.gbytes_per_second, due.gbytes_per_second),
            (rates.of_copy, due.of_copy),
        ] {
            assert!((a - b).abs() < 1e-12 * b, "{rates:?}");
        }
    }

    #[test]
    fn checked_queries_reach_to_the_last() {
        let rows_for = |queries| case(Operation::Energy, queries, 1, 1).checked();
        assert_eq!(rows_for(1), [0]);
        assert_eq!(rows_for(3), [0, 1, 2]);
        assert_eq!(rows_for(71), [0, 10, 20, 30, 40, 50, 60, 70]);
        assert_eq!(at(0.25, case(Operation::Energy, 3, 4, 5)).name(), "energy 3 x 4 x 5 at 0.25 sqrt(N)");
        assert_eq!(at(0.5, case(Operation::Energy, 3, 4, 2)).beta(), 1.0);
    }

    #[test]
    fn single_precision_agrees_with_double_and_a_wrong_result_does_not() {
        for operation in [Operation::Energy, Operation::Score, Operation::Knn, Operation::Pairwise] {
            let case = case(operation, 11, 40, 7);
            let all = case.checked();
            let mut stream = Stream::new(SEED, "test");
            let mut draw = |rows| Array2::from_shape_fn((rows, 7), |_| stream.normal() as f32);
            let (rows, queries) = (draw(40), draw(11));
            let single = case.run(&Memories::new(rows.clone()).unwrap(), queries.view(), &all).unwrap();
            let (rows, queries) = (rows.mapv(f64::from), queries.mapv(f64::from));
            let due = case.run(&Memories::new(rows).unwrap(), queries.view(), &all).unwrap();
            assert!(single.agrees(&due), "{operation:?}");
            for wrong in [f64::NAN, due.numbers[0] * 1.1 + 1.0] {
                let mut other = Outcome { numbers: due.numbers.clone(), indices: due.indices.clone() };
                other.numbers[0] = wrong;
                assert!(!other.agrees(&due), "{operation:?} {wrong}");
            }
        }
        let due = Outcome { numbers: vec![1.0], indices: vec![3] };
        assert!(!Outcome { numbers: vec![1.0], indices: vec![4] }.agrees(&due));
        assert!(!Outcome { numbers: vec![], indices: vec![3] }.agrees(&due));
    }
}
