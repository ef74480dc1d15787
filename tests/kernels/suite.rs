//! What every driver's kernels are held to: the operations on small sizes that cross every tile's edge, against plain
//! sums in f64. Each check answers with the first thing that is wrong.

#![allow(dead_code, reason = "`kernels_gpu` uses a part of it")]

use std::sync::Arc;

use mem2gen::device::Device;
use mem2gen::ops::cuda::Resident;
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Handle, Launch, Limits};
use mem2gen::ops::{OpError, PairTile, Want};
use mem2gen::random::Stream;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};

/// What a check answers with.
pub type Outcome = Result<(), String>;
/// A check.
pub type Check = fn(&Arc<dyn Driver>) -> Outcome;

/// All checks.
pub const ALL: &[(&str, Check)] = &[
    ("prepare", prepare),
    ("readout of few dimensions", readout_few),
    ("readout by tiles", readout_tiles),
    ("readout of hard cases", readout_hard),
    ("knn", knn),
    ("knn of hard cases", knn_hard),
    ("pairwise", pairwise),
    ("readout counted", readout_counted),
    ("little memory", little_memory),
];

/// A few small cases of each operation, such that every kind of bug shows.
pub const SMOKE: &[(&str, Check)] =
    &[("prepare", prepare), ("readout", readout_smoke), ("knn", knn_smoke), ("pairwise", pairwise_smoke)];

/// Runs checks one after the other, up to the first that fails.
pub fn run(driver: &Arc<dyn Driver>, checks: &[(&str, Check)]) -> Outcome {
    for (name, check) in checks {
        check(driver).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

fn told(error: OpError) -> String {
    error.to_string()
}

/// Err unless the number is at most `most`; NaN is not.
fn at_most(what: &str, value: f64, most: f64) -> Outcome {
    if value <= most { Ok(()) } else { Err(format!("{what} is {value:e}, at most {most:e} was expected")) }
}

fn require(what: &str, holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// The largest number, and NaN where there is one.
fn worst(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |a, b| if a >= b { a } else { b })
}

fn cloud(name: &str, count: usize, n: usize, scale: f64, offset: f64) -> Array2<f32> {
    let mut s = Stream::new(1, name);
    Array2::from_shape_fn((count, n), |_| (offset + scale * s.normal()) as f32)
}

fn upload(driver: &Arc<dyn Driver>, rows: &Array2<f32>, span: usize) -> Result<Resident, String> {
    Ok(Resident::upload(driver.clone(), Device::Cuda(0), rows.view()).map_err(told)?.with_span(span))
}

fn squared(x: ArrayView1<'_, f32>, y: ArrayView1<'_, f32>) -> f64 {
    x.iter().zip(y).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Energy, shift, entropy of the weights and squared distances of one query, term by term.
fn reference(rows: &Array2<f32>, x: ArrayView1<'_, f32>, beta: f64) -> (f64, Array1<f64>, f64, Vec<f64>) {
    let d2: Vec<f64> = rows.outer_iter().map(|y| squared(x, y)).collect();
    let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
    let w: Vec<f64> = d2.iter().map(|d| (-beta * (d - least)).exp()).collect();
    let z: f64 = w.iter().sum();
    let mut shift = Array1::zeros(x.len());
    for (y, w) in rows.outer_iter().zip(&w) {
        for (k, s) in shift.iter_mut().enumerate() {
            *s += w / z * (f64::from(y[k]) - f64::from(x[k]));
        }
    }
    let entropy = w.iter().map(|w| w / z).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum();
    (least - z.ln() / beta, shift, entropy, d2)
}

/// Holds the read-out of all queries to 1e-5 of the reference, the entropy to 1e-4 nats.
fn hold_readout(memories: &Resident, rows: &Array2<f32>, queries: &Array2<f32>, beta: f64) -> Outcome {
    let label =
        |what: &str| format!("{what} of {:?} from {:?} at beta {beta:e}", queries.shape(), rows.shape());
    let got = memories.readout(queries.view(), beta, Want::ALL).map_err(told)?;
    let plain = memories.readout(queries.view(), beta, Want::ENERGY).map_err(told)?;
    for (i, x) in queries.outer_iter().enumerate() {
        let (e, shift, h, d2) = reference(rows, x, beta);
        let scale = e.abs().max((rows.nrows() as f64).ln() / beta).max(f64::MIN_POSITIVE);
        at_most(&label("error of the energy"), (got.energy[i] - e).abs() / scale, 1e-5)?;
        at_most(&label("error of the energy alone"), (plain.energy[i] - e).abs() / scale, 1e-5)?;
        let norm = shift.dot(&shift).sqrt().max(f64::MIN_POSITIVE);
        let off = got.shift.row(i).mapv(f64::from) - &shift;
        at_most(&label("error of the shift"), off.dot(&off).sqrt() / norm, 1e-5)?;
        at_most(&label("error of the entropy"), (got.entropy[i] - h).abs(), 1e-4)?;
        let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
        let heaviest = *d2.get(got.heaviest[i]).ok_or_else(|| label("a heaviest memory that is none"))?;
        // One that lies no farther than rounding of a logit can tell.
        at_most(
            &label("distance of the heaviest memory"),
            beta * (heaviest - least),
            1e-4 * (1.0 + beta * least),
        )?;
        let share = (-beta * (heaviest - e)).exp();
        at_most(&label("error of the heaviest weight"), (got.top_weight[i] - share).abs(), 1e-4)?;
    }
    Ok(())
}

const BETAS: [f64; 5] = [1e-6, 1e-2, 0.3, 30.0, 1e6];

/// Cases are (K, N, m, memories a split), each at all of the betas, with all numbers moved by `offset`.
fn hold_cases(
    driver: &Arc<dyn Driver>,
    cases: &[(usize, usize, usize, usize)],
    betas: &[f64],
    offset: f64,
) -> Outcome {
    for &(count, n, m, span) in cases {
        let rows = cloud("rows", count, n, 1.0, offset);
        let queries = cloud("queries", m, n, 1.3, offset);
        let memories = upload(driver, &rows, span)?;
        for &beta in betas {
            hold_readout(&memories, &rows, &queries, beta)
                .map_err(|why| format!("{why}, offset {offset}, splits of {span}"))?;
        }
    }
    Ok(())
}

/// Dimensions up to 32: one kernel for each of five sizes.
pub fn readout_few(driver: &Arc<dyn Driver>) -> Outcome {
    let cases = [
        (1, 1, 1, 1024),
        (2, 2, 3, 1024),
        (127, 2, 129, 1024),
        (800, 2, 5, 128),
        (129, 3, 128, 128),
        (128, 5, 33, 1024),
        (65, 8, 64, 1024),
        (130, 9, 2, 1024),
        (63, 16, 65, 1024),
        (300, 31, 7, 128),
        (129, 32, 31, 1024),
    ];
    hold_cases(driver, &cases, &BETAS, 30.0)
}

/// More dimensions: tiles of products.
pub fn readout_tiles(driver: &Arc<dyn Driver>) -> Outcome {
    let cases = [
        (1, 33, 1, 1024),
        (63, 33, 64, 1024),
        (64, 64, 65, 1024),
        (128, 65, 3, 1024),
        (129, 36, 63, 1024),
        (300, 48, 2, 128),
        (800, 33, 5, 128),
        (140, 129, 66, 1024),
        (65, 301, 3, 1024),
    ];
    hold_cases(driver, &cases, &BETAS, 30.0)
}

/// Where a neighbour's weight is of the order of beta d^2, its error would show in the energy.
fn hold_small_energies(memories: &Resident, rows: &Array2<f32>, beside: &Array2<f32>) -> Outcome {
    for beta in [2.0, 8.0] {
        let got = memories.readout(beside.view(), beta, Want::ENERGY).map_err(told)?;
        for (x, got) in beside.outer_iter().zip(&got.energy) {
            let e = reference(rows, x, beta).0;
            at_most("error of a small energy beside a memory", (got - e).abs() / e.abs(), 1e-5)?;
        }
    }
    Ok(())
}

/// Copies, near-copies, queries beside a memory and far from all of them, tiny sigma, batches.
pub fn readout_hard(driver: &Arc<dyn Driver>) -> Outcome {
    for n in [3, 12, 40] {
        let rows = cloud("rows", 300, n, 1.0, 5.0);
        let memories = upload(driver, &rows, 128)?;
        let mut noise = Stream::new(1, "beside");
        let beside = Array2::from_shape_fn((20, n), |(i, k)| rows[[7 * i, k]] + 1e-4 * noise.normal() as f32);
        for beta in [1.0, 30.0, 1e5] {
            hold_readout(&memories, &rows, &beside, beta).map_err(|why| format!("{why}, beside a memory"))?;
        }
        hold_small_energies(&memories, &rows, &beside)?;
        let far = Array2::from_elem((1, n), 1e6f32);
        for beta in [1e-6, 1e6] {
            hold_readout(&memories, &rows, &far, beta).map_err(|why| format!("{why}, far off"))?;
        }
        // Pairs of near-copies: both weigh, and what is between them is small.
        let near = rows.mapv(|v| v * (1.0 + 4.0 * f32::EPSILON));
        let pairs = concatenate![Axis(0), rows, near];
        let between = rows.slice(s![..9, ..]).mapv(|v| v * (1.0 + f32::EPSILON));
        let memories = upload(driver, &pairs, 1024)?;
        for beta in [1.0, 1e4] {
            hold_readout(&memories, &pairs, &between, beta)
                .map_err(|why| format!("{why}, between near-copies"))?;
        }

        let one = rows.slice(s![..1, ..]).to_owned();
        let copies = concatenate![Axis(0), one, one, one, one];
        let lone = upload(driver, &one, 1024)?;
        for beta in [1e-6, 1.0, 1e6] {
            let energy = lone.readout(one.view(), beta, Want::ENERGY).map_err(told)?.energy[0];
            require("the energy of a lone memory's copy is 0", energy == 0.0)?;
        }
        let got = upload(driver, &copies, 1024)?.readout(one.view(), 2.0, Want::ALL).map_err(told)?;
        at_most("error of four copies' energy", (got.energy[0] + 4f64.ln() / 2.0).abs(), 1e-12)?;
        at_most("error of four copies' entropy", (got.entropy[0] - 4f64.ln()).abs(), 1e-6)?;
        require("the shift among copies is 0", got.shift.iter().all(|&v| v == 0.0))?;
    }
    for n in [2, 35] {
        let rows = cloud("rows", 260, n, 1.0, 0.0);
        let queries = cloud("queries", 130, n, 1.3, 0.0);
        let memories = upload(driver, &rows, 128)?;
        let all = memories.readout(queries.view(), 0.7, Want::ALL).map_err(told)?;
        for cut in [0..1, 63..66, 129..130] {
            let part = memories.readout(queries.slice(s![cut.clone(), ..]), 0.7, Want::ALL).map_err(told)?;
            require("results don't depend on the batch", part.energy == all.energy.slice(s![cut.clone()]))?;
            require("results don't depend on the batch", part.shift == all.shift.slice(s![cut, ..]))?;
        }
        let whole = upload(driver, &rows, 1024)?;
        let other = whole.readout(queries.view(), 0.7, Want::ALL).map_err(told)?;
        let off = worst(all.shift.iter().zip(&other.shift).map(|(a, b)| f64::from((a - b).abs())));
        at_most("difference between 3 splits and 1", off, 1e-5)?;
        let empty = memories.readout(queries.slice(s![..0, ..]), 0.7, Want::ALL).map_err(told)?;
        require("no queries give no results", empty.energy.is_empty())?;
    }
    let memories = upload(driver, &cloud("rows", 5, 3, 1.0, 0.0), 1024)?;
    let wide = Array2::<f32>::zeros((2, 4));
    require(
        "other dimensions are refused",
        matches!(memories.readout(wide.view(), 1.0, Want::ALL), Err(OpError::Shape { .. })),
    )?;
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60] {
        let refused = memories.readout(wide.slice(s![.., ..3]), beta, Want::ALL);
        require("a beta that is none is refused", matches!(refused, Err(OpError::Parameter { .. })))?;
    }
    Ok(())
}

/// One case of each kernel, with more than one tile, split and block, tails everywhere; few threads, as sanitizers
/// take long for each.
pub fn readout_smoke(driver: &Arc<dyn Driver>) -> Outcome {
    hold_cases(driver, &[(129, 2, 130, 128)], &[0.3], 3.0)?;
    let few = [(40, 3, 5, 128), (40, 7, 5, 128), (40, 13, 5, 128), (130, 30, 3, 1024)];
    hold_cases(driver, &few, &[0.3, 1e4], 3.0)?;
    hold_cases(driver, &[(140, 35, 66, 128)], &[0.3], 3.0)?;
    hold_cases(driver, &[(300, 133, 5, 1024)], &[1e-2, 0.3, 30.0], 3.0)?;
    let rows = cloud("rows", 40, 12, 1.0, 5.0);
    let beside = rows.slice(s![20..25, ..]).mapv(|v| v + 1e-4);
    hold_small_energies(&upload(driver, &rows, 128)?, &rows, &beside)?;
    hold_counted(driver, (260, 64, 5, 1.0, 0.005))?;
    hold_overflow(driver)
}

/// How few pairs are taken again in double where all memories weigh alike, and that memories past the end are none of
/// them where the bound of the rounding overflows.
pub fn readout_counted(driver: &Arc<dyn Driver>) -> Outcome {
    // In few dimensions some at the start of each split, before the sum is large.
    let cases = [
        (600, 2, 130, 1.0, 0.03),
        (600, 16, 130, 1.0, 0.03),
        (600, 64, 66, 1.0, 0.005),
        (600, 64, 66, 0.25, 0.05),
        (600, 784, 9, 1.0, 0.005),
        (600, 784, 9, 0.25, 0.005),
    ];
    for case in cases {
        hold_counted(driver, case)?;
    }
    hold_overflow(driver)
}

/// At most a share `most` of all pairs, at sigma = sqrt(N) times `part`.
fn hold_counted(
    driver: &Arc<dyn Driver>,
    (count, n, m, part, most): (usize, usize, usize, f64, f64),
) -> Outcome {
    let rows = cloud("rows", count, n, 1.0, 0.0);
    let queries = cloud("queries", m, n, 1.0, 0.0);
    let memories = upload(driver, &rows, 512)?;
    let beta = 0.5 / (n as f64 * part * part);
    hold_readout(&memories, &rows, &queries, beta)?;
    for want in [Want::ENERGY, Want::ALL] {
        let (got, exact) = memories.readout_counted(queries.view(), beta, want).map_err(told)?;
        let plain = memories.readout(queries.view(), beta, want).map_err(told)?;
        require("counting changes no result", got.energy == plain.energy && got.shift == plain.shift)?;
        let share = exact as f64 / (count * m) as f64;
        at_most(&format!("share of pairs in double, N {n}, sigma {part} sqrt(N)"), share, most)?;
    }
    Ok(())
}

/// Values so large that the bound of the rounding, or its ratio to what is allowed, is infinite.
fn hold_overflow(driver: &Arc<dyn Driver>) -> Outcome {
    let rows = cloud("rows", 5, 40, 1e4, 0.0);
    let memories = upload(driver, &rows, 128)?;
    for beta in [1e30, 1e37] {
        hold_readout(&memories, &rows, &cloud("queries", 3, 40, 1e4, 0.0), beta)?;
        let (got, exact) = memories.readout_counted(rows.view(), beta, Want::ALL).map_err(told)?;
        require("no more than all memories are taken again in double", (5..=25).contains(&exact))?;
        require("a memory is its own heaviest", got.heaviest.iter().copied().eq(0..5))?;
    }
    Ok(())
}

/// The k nearest by (distance, index) in f64.
fn brute(
    rows: &Array2<f32>,
    queries: &Array2<f32>,
    k: usize,
    exclude_self: bool,
) -> (Array2<usize>, Array2<f64>) {
    let (mut index, mut distance) =
        (Array2::zeros((queries.nrows(), k)), Array2::zeros((queries.nrows(), k)));
    for (q, x) in queries.outer_iter().enumerate() {
        let mut all: Vec<(f64, usize)> = rows
            .outer_iter()
            .enumerate()
            .filter(|&(j, _)| !(exclude_self && j == q))
            .map(|(j, y)| (squared(x, y), j))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (i, (d2, j)) in all.into_iter().take(k).enumerate() {
            (index[[q, i]], distance[[q, i]]) = (j, d2.sqrt());
        }
    }
    (index, distance)
}

fn hold_knn(
    driver: &Arc<dyn Driver>,
    rows: &Array2<f32>,
    queries: &Array2<f32>,
    k: usize,
    exclude_self: bool,
    span: usize,
) -> Outcome {
    hold_knn_of(&upload(driver, rows, span)?, rows, queries, k, exclude_self)
}

fn hold_knn_of(
    memories: &Resident,
    rows: &Array2<f32>,
    queries: &Array2<f32>,
    k: usize,
    exclude_self: bool,
) -> Outcome {
    let label = |what: &str| {
        format!(
            "{what} of {:?} among {:?}, k {k}, self excluded {exclude_self}",
            queries.shape(),
            rows.shape()
        )
    };
    let got = memories.knn(queries.view(), k, exclude_self).map_err(told)?;
    let (index, distance) = brute(rows, queries, k, exclude_self);
    for q in 0..queries.nrows() {
        if got.index.row(q) != index.row(q) {
            return Err(label(&format!(
                "query {q} has neighbours {}, not {}: those",
                got.index.row(q),
                index.row(q)
            )));
        }
        for (a, b) in got.distance.row(q).iter().zip(distance.row(q)) {
            at_most(&label("error of a distance"), (a - b).abs(), 1e-12 * b)?;
        }
    }
    Ok(())
}

/// Random rows, of which some are copies and others near-copies of one another.
fn planted(count: usize, n: usize, offset: f64) -> Array2<f32> {
    let mut rows = cloud("planted", count, n, 1.0, offset);
    for i in 0..count / 8 {
        let copy = rows.row(i).to_owned();
        rows.row_mut(count - 1 - 2 * i).assign(&copy);
        rows.row_mut(count - 2 - 2 * i).assign(&copy.mapv(|v| v * (1.0 + f32::EPSILON)));
    }
    rows
}

/// The nearest memories of rows and of queries beside them.
pub fn knn(driver: &Arc<dyn Driver>) -> Outcome {
    let cases = [
        (1, 1, 1, 1, 4096),
        (63, 2, 3, 6, 4096),
        (64, 33, 64, 1, 4096),
        (65, 31, 65, 7, 4096),
        (129, 65, 33, 64, 4096),
        (200, 16, 5, 65, 128),
        (800, 17, 66, 5, 128),
        (130, 301, 9, 24, 128),
    ];
    for (count, n, m, k, span) in cases {
        let rows = planted(count, n, 50.0);
        let queries = Array2::from_shape_fn((m, n), |(i, j)| rows[[i % count, j]] + (i % 3) as f32 * 1e-5);
        hold_knn(driver, &rows, &queries, k, false, span)?;
        if k < count && count < 150 {
            hold_knn(driver, &rows, &rows, k, true, span)?;
        }
    }
    Ok(())
}

/// More copies than the sieve keeps, all memories for neighbours, far queries, batches, refusals.
pub fn knn_hard(driver: &Arc<dyn Driver>) -> Outcome {
    hold_nan(driver)?;
    for n in [2, 40] {
        let mut rows = planted(150, n, 3.0);
        for i in 30..90 {
            let copy = rows.row(20).to_owned();
            rows.row_mut(i).assign(&copy);
        }
        hold_knn(driver, &rows, &rows, 5, true, 128)?;
        let some = rows.slice(s![15..35, ..]).to_owned();
        hold_knn(driver, &rows, &some, 5, false, 128)?;
        hold_knn(driver, &rows, &some, 150, false, 128)?;
        // Rounding of the product hides everything about queries that are this far off.
        hold_knn(driver, &rows, &cloud("far", 5, n, 1.0, 3e5), 3, false, 128)?;
        // Squares that are no normal numbers, or 0, in single precision.
        for scale in [1e-20, 1e-24] {
            hold_knn(driver, &rows.mapv(|v| v * scale), &some.mapv(|v| v * scale), 3, false, 128)?;
        }
        let memories = upload(driver, &rows, 128)?;
        let all = memories.knn(rows.view(), 3, false).map_err(told)?;
        for cut in [0..1, 63..66, 149..150] {
            let part = memories.knn(rows.slice(s![cut.clone(), ..]), 3, false).map_err(told)?;
            require("neighbours don't depend on the batch", part.index == all.index.slice(s![cut, ..]))?;
        }
        for (k, exclude) in [(0, false), (151, false), (150, true)] {
            let refused = memories.knn(rows.view(), k, exclude);
            require("a k that is too large is refused", matches!(refused, Err(OpError::Parameter { .. })))?;
        }
    }
    Ok(())
}

/// A query with a NaN has no neighbours that the sieve keeps; whatever is answered are memories.
fn hold_nan(driver: &Arc<dyn Driver>) -> Outcome {
    for n in [2, 34] {
        let mut queries = cloud("queries", 3, n, 1.0, 3.0);
        queries[[1, 1]] = f32::NAN;
        let got = upload(driver, &planted(30, n, 3.0), 128)?.knn(queries.view(), 4, false).map_err(told)?;
        require("neighbours are memories", got.index.iter().all(|&index| index < 30))?;
        require("distances of a NaN are NaN", got.distance.row(1).iter().all(|d| d.is_nan()))?;
    }
    Ok(())
}

/// Ties, self, splits and tails in small.
pub fn knn_smoke(driver: &Arc<dyn Driver>) -> Outcome {
    hold_nan(driver)?;
    let rows = planted(134, 2, 3.0);
    hold_knn(driver, &rows, &cloud("queries", 67, 2, 1.0, 3.0), 40, false, 128)?;
    let rows = planted(150, 34, 3.0);
    let memories = upload(driver, &rows, 128)?;
    hold_knn_of(&memories, &rows, &rows, 3, true)?;
    hold_knn_of(&memories, &rows, &cloud("queries", 2, 34, 1.0, 3.0), 70, false)
}

fn hold_pairwise(driver: &Arc<dyn Driver>, count: usize, n: usize, m: usize, offset: f64) -> Outcome {
    let rows = planted(count, n, offset);
    let mut queries = cloud("queries", m, n, 1.0, offset);
    queries.row_mut(0).assign(&rows.row(count - 1));
    let memories = upload(driver, &rows, 1024)?;
    let mut seen = Array2::from_elem((m, count), f32::NAN);
    memories
        .pairwise(queries.view(), |tile: PairTile<'_, f32>| {
            seen.slice_mut(s![tile.queries, tile.memories]).assign(&tile.squared);
        })
        .map_err(told)?;
    for (q, x) in queries.outer_iter().enumerate() {
        for (j, y) in rows.outer_iter().enumerate() {
            let d2 = squared(x, y);
            let most = PairTile::<f32>::ERROR * 0.5 * f64::from(f32::EPSILON) * d2;
            let what = format!("error of the squared distance {q} {j} of [{m}, {n}] and [{count}, {n}]");
            at_most(&what, (f64::from(seen[[q, j]]) - d2).abs(), most)?;
        }
    }
    Ok(())
}

/// All squared distances.
pub fn pairwise(driver: &Arc<dyn Driver>) -> Outcome {
    let cases = [(1, 1, 1), (63, 2, 65), (65, 3, 64), (129, 33, 1), (128, 64, 130), (300, 301, 3)];
    for (count, n, m) in cases {
        for offset in [0.0, 100.0] {
            hold_pairwise(driver, count, n, m, offset)?;
        }
    }
    Ok(())
}

/// Two tiles, two blocks.
pub fn pairwise_smoke(driver: &Arc<dyn Driver>) -> Outcome {
    hold_pairwise(driver, 131, 21, 67, 3.0)
}

/// Memory of the suite's own.
struct Held<'a>(&'a Arc<dyn Driver>, Handle);

impl<'a> Held<'a> {
    fn new(driver: &'a Arc<dyn Driver>, bytes: &[u8]) -> Result<Self, DriverError> {
        let held = Self(driver, driver.alloc(bytes.len())?);
        driver.write(held.1, 0, bytes)?;
        Ok(held)
    }

    fn rows(driver: &'a Arc<dyn Driver>, rows: ArrayView2<'_, f32>) -> Result<Self, DriverError> {
        Self::new(driver, &rows.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>())
    }

    fn read<const B: usize>(&self, count: usize) -> Result<Vec<[u8; B]>, DriverError> {
        let mut bytes = vec![0; count * B];
        self.0.read(self.1, 0, &mut bytes)?;
        let (numbers, _) = bytes.as_chunks::<B>();
        Ok(numbers.to_vec())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

/// The kernels that come before the others, each by itself.
pub fn prepare(driver: &Arc<dyn Driver>) -> Outcome {
    for (count, n, stride, span) in [(1, 1, 1, 1), (7, 33, 40, 2), (131, 3, 3, 64), (5, 131, 132, 5)] {
        prepare_of(driver, count, n, stride, span).map_err(|e| e.to_string())??;
    }
    Ok(())
}

fn prepare_of(
    driver: &Arc<dyn Driver>,
    count: usize,
    n: usize,
    stride: usize,
    span: usize,
) -> Result<Outcome, DriverError> {
    let rows = cloud("prepare", count, stride, 1.0, 100.0);
    let (width, slabs) = (n.next_multiple_of(4), count.div_ceil(span));
    let x = Held::rows(driver, rows.view())?;
    let part = Held::new(driver, &vec![0xff; 8 * slabs * n])?;
    let centre = Held::new(driver, &vec![0xff; 4 * width])?;
    let launch = |kernel, threads: usize, y: usize, args: &[Arg]| {
        let grid = [threads.div_ceil(64) as u32, y as u32, 1];
        driver.launch(&Launch { kernel, grid, block: [64, 1, 1], shared: 0, args })
    };
    let at = |held: &Held<'_>| Arg::Buffer(held.1, 0);
    let (k, d) = (Arg::I64(count as i64), Arg::I32(n as i32));
    let step = Arg::I64(stride as i64);
    launch("column_sums", n, slabs, &[at(&x), at(&part), k, d, step, Arg::I32(span as i32)])?;
    let args = [at(&part), at(&centre), k, d, Arg::I32(width as i32), Arg::I32(slabs as i32)];
    launch("column_means", width, 1, &args)?;
    let means: Vec<f32> = centre.read::<4>(width)?.into_iter().map(f32::from_ne_bytes).collect();
    let halves = Held::new(driver, &vec![0xff; 4 * count])?;
    let norms = Held::new(driver, &vec![0xff; 8 * count])?;
    launch("half_norms", 32 * count, 1, &[at(&x), at(&centre), at(&halves), k, d, step])?;
    launch("norms2", 32 * count, 1, &[at(&x), at(&centre), at(&norms), k, d, step])?;
    let halves: Vec<f32> = halves.read::<4>(count)?.into_iter().map(f32::from_ne_bytes).collect();
    let norms: Vec<f64> = norms.read::<8>(count)?.into_iter().map(f64::from_ne_bytes).collect();

    let checked = || {
        for (column, got) in means.iter().enumerate() {
            let mean = match column < n {
                true => rows.column(column).iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64,
                false => 0.0,
            };
            let error = (f64::from(*got) - mean).abs();
            at_most("error of a column's mean", error, 1e-7 * mean.abs())?;
        }
        for (i, row) in rows.outer_iter().enumerate() {
            let norm2: f64 =
                row.iter().zip(&means).take(n).map(|(v, c)| (f64::from(*v) - f64::from(*c)).powi(2)).sum();
            at_most("error of a norm", (norms[i] - norm2).abs(), 1e-14 * norm2)?;
            at_most("error of a half norm", (f64::from(halves[i]) - norm2 / 2.0).abs(), 1e-7 * norm2)?;
        }
        Ok(())
    };
    Ok(checked())
}

/// A device with so many bytes free, whatever is taken.
struct Tight(Arc<dyn Driver>, usize);

impl Driver for Tight {
    fn name(&self) -> String {
        self.0.name()
    }

    fn limits(&self) -> Result<Limits, DriverError> {
        Ok(Limits { free: self.1, ..self.0.limits()? })
    }

    fn alloc(&self, bytes: usize) -> Result<Handle, DriverError> {
        if bytes > self.1 {
            return Err(DriverError::OutOfMemory { asked: bytes, free: self.1 });
        }
        self.0.alloc(bytes)
    }

    fn free(&self, memory: Handle) {
        self.0.free(memory);
    }

    fn write(&self, to: Handle, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        self.0.write(to, offset, bytes)
    }

    fn read(&self, from: Handle, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError> {
        self.0.read(from, offset, bytes)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        self.0.launch(launch)
    }
}

/// Batches of 64 queries give what one batch gives; what doesn't fit is refused.
pub fn little_memory(driver: &Arc<dyn Driver>) -> Outcome {
    let tight = |bytes| -> Arc<dyn Driver> { Arc::new(Tight(driver.clone(), bytes)) };
    for n in [3, 34] {
        let rows = planted(140, n, 2.0);
        let (small, large) = (upload(&tight(50_000), &rows, 128)?, upload(driver, &rows, 128)?);
        let read = |memories: &Resident| memories.readout(rows.view(), 0.3, Want::ALL).map_err(told);
        let (a, b) = (read(&small)?, read(&large)?);
        require("batches give the same read-out", a.energy == b.energy && a.entropy == b.entropy)?;
        require("batches give the same shift", a.shift == b.shift && a.heaviest == b.heaviest)?;
        // The many are taken one batch of distances after the other.
        for k in if n == 3 { &[2][..] } else { &[2, 66] } {
            let near = |memories: &Resident| memories.knn(rows.view(), *k, true).map_err(told);
            require("batches give the same neighbours", near(&small)? == near(&large)?)?;
        }
        let mut rows_seen = 0;
        small.pairwise(rows.view(), |tile| rows_seen += tile.queries.len()).map_err(told)?;
        require("batches give all tiles", rows_seen == rows.nrows())?;
    }
    let refused = upload(&tight(1000), &cloud("rows", 140, 3, 1.0, 0.0), 128).err();
    require("memories that don't fit are refused", refused.is_some_and(|why| why.contains("1000 free")))
}
