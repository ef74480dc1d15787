//! Wrong kernels: each of these changes is seen by a detector, and the kernels as they are by none. What passes
//! here would pass if a kernel were broken in the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::emulator::{Flavour, HostEmulator, Schedule, Source};
use crate::suite;
use mem2gen::ops::cuda::driver::Driver;
use mem2gen::ops::cuda::sources::MODULES;

/// What may see a mutant, cheapest first.
const DETECTORS: [(Flavour, Schedule); 5] = [
    (Flavour::Plain, Schedule::Forward),
    (Flavour::Plain, Schedule::Reverse),
    (Flavour::Plain, Schedule::Random(1)),
    (Flavour::Address, Schedule::Forward),
    (Flavour::Thread, Schedule::Forward),
];

/// A file of `kernels/`, what is wrong, and the text that is there once and what takes its place.
struct Mutant(&'static str, &'static str, &'static str, &'static str);

const MUTANTS: &[Mutant] = &[
    Mutant("prepare.cu", "centre not subtracted", "(double)row[k] - (double)centre[k]", "(double)row[k]"),
    Mutant("prepare.cu", "wrong factor", "(float)(0.5 * norm2)", "(float)norm2"),
    Mutant(
        "prepare.cu",
        "no guard on output",
        "if (row >= count) return;\n  const double norm2 = centred_norm2(rows + row * stride, centre, n);\n  \
         if (threadIdx.x % M2G_WARP == 0) out[row] = (float)",
        "const double norm2 = centred_norm2(rows + row * stride, centre, n);\n  \
         if (threadIdx.x % M2G_WARP == 0) out[row] = (float)",
    ),
    Mutant("prepare.cu", "wrong shuffle step", "int step = M2G_WARP / 2;", "int step = M2G_WARP / 4;"),
    Mutant(
        "tile.cuh",
        "dropped barrier after the first chunk",
        "  put(stage);\n  __syncthreads();\n",
        "  put(stage);\n",
    ),
    Mutant(
        "tile.cuh",
        "dropped barrier between chunks",
        "    if (more) put(stage + buffer * STAGE);\n    __syncthreads();\n",
        "    if (more) put(stage + buffer * STAGE);\n",
    ),
    Mutant(
        "tile.cuh",
        "barrier in a branch",
        "    if (more) put(stage + buffer * STAGE);\n    __syncthreads();\n",
        "    if (more) put(stage + buffer * STAGE);\n    if (threadIdx.x < 64) __syncthreads();\n",
    ),
    Mutant("tile.cuh", "dropped barrier after the values", "  __syncthreads();\n}\n", "}\n"),
    Mutant("tile.cuh", "chunks not exchanged", "    buffer ^= 1;\n", ""),
    Mutant("tile.cuh", "wrong bound of columns", "if (column >= width) return", "if (column > width) return"),
    Mutant(
        "tile.cuh",
        "missed tail of columns",
        "column < width; column += TILE_D",
        "column + TILE_D <= width; column += TILE_D",
    ),
    Mutant("tile.cuh", "rows past the end", "(row < rows.count ? row : rows.count - 1)", "row"),
    Mutant("tile.cuh", "no -inf past the end", "sums[i][j] - half : -M2G_INF", "sums[i][j] - half : 0.0f"),
    Mutant("tile.cuh", "wrong sign", "sums[i][j] - half", "sums[i][j] + half"),
    Mutant("tile.cuh", "centre not subtracted from memories", "minus(y[i], c)", "y[i]"),
    Mutant("tile.cuh", "missed lanes of a distance", "column += 4 * M2G_WARP", "column += 8 * M2G_WARP"),
    Mutant(
        "tile.cuh",
        "half norms read past the end",
        "there ? half_norms[memory] : 0.0f",
        "half_norms[memory]",
    ),
    Mutant("readout.cu", "unscaled accumulator", "sum = sum * scale + own;", "sum = sum + own;"),
    Mutant(
        "readout.cu",
        "unscaled shift",
        "y[column] - x[column], out[column] * s)",
        "y[column] - x[column], out[column])",
    ),
    Mutant("readout.cu", "unscaled shift in few dimensions", "shift[i] *= scale;", "shift[i] *= 1.0f;"),
    Mutant("readout.cu", "unscaled product", "          product *= scale;\n", ""),
    Mutant("readout.cu", "chosen memory counted twice", "if (chosen) values[at] = -M2G_INF;", ""),
    Mutant("readout.cu", "wrong lanes take a memory", "if (lane % 4 == from % 4) {", "if (lane == from) {"),
    Mutant(
        "readout.cu",
        "dropped barrier after the fold",
        "shift);\n    __syncthreads();\n    if (SCORE",
        "shift);\n    if (SCORE",
    ),
    Mutant(
        "readout.cu",
        "tail read as full",
        "int size = end - at < FEW_K ? end - at : FEW_K;",
        "int size = FEW_K;",
    ),
    Mutant(
        "readout.cu",
        "dropped barrier before a tile",
        "    __syncthreads();\n    for (int i = threadIdx.x; i < size * N;",
        "    for (int i = threadIdx.x; i < size * N;",
    ),
    Mutant(
        "readout.cu",
        "dropped barrier after a tile",
        "    __syncthreads();\n    for (int k = 0; k < size; k++) {",
        "    for (int k = 0; k < size; k++) {",
    ),
    Mutant("readout.cu", "no guard on output", "if (!live) return;", ""),
    Mutant(
        "readout.cu",
        "split dropped",
        "#pragma unroll 4\n  for (int s = 0;",
        "#pragma unroll 4\n  for (int s = 1;",
    ),
    Mutant("readout.cu", "splits unscaled", "total += scale * sum[at];", "total += sum[at];"),
    Mutant("readout.cu", "centre not given back", "- (double)centre[column + i]);", ");"),
    Mutant(
        "readout.cu",
        "missed tail of a product",
        "memory < end; memory += TILE_D",
        "memory + TILE_D <= end; memory += TILE_D",
    ),
    Mutant(
        "readout.cu",
        "wrong shuffle step",
        "    for (int step = 4; step < M2G_WARP; step *= 2) {\n      total",
        "    for (int step = 8; step < M2G_WARP; step *= 2) {\n      total",
    ),
    Mutant(
        "readout.cu",
        "all lanes write what one should",
        "if (lane == 0) sums.any[warp] = any;",
        "sums.any[warp] = any;",
    ),
    Mutant(
        "readout.cu",
        "dropped barrier before a product",
        "put(stage);\n    __syncthreads();",
        "put(stage);",
    ),
    Mutant(
        "readout.cu",
        "splits write to one place",
        "const long long to = split * queries.count + first;",
        "const long long to = first;",
    ),
    Mutant("readout.cu", "memories past the end chosen", " && values[at] > -M2G_INF;", ";"),
    Mutant(
        "readout.cu",
        "the tile's own sum unknown",
        "known += own * exp2f(-2.0f * bound * LOG2_E);",
        "known += 0.0f * own;",
    ),
    Mutant("readout.cu", "sum not moved to a new peak", "      sum *= weight;\n", ""),
    Mutant("readout.cu", "shift not moved to a new peak", "rescale = (float)weight;", "rescale = 1.0f;"),
    Mutant("readout.cu", "wrong peak", "heaviest = first + highest;", "heaviest = first;"),
    Mutant("readout.cu", "reference not moved at the end", "if (best < mark) {", "if (best < -1.0f) {"),
    Mutant("readout.cu", "columns read twice", "128 * blockIdx.y + 4 * lane", "4 * lane"),
    Mutant("distance.cu", "certain not written", "if (lane == 0) certain[q] = 0;", ""),
    Mutant(
        "distance.cu",
        "missing __syncwarp after an entry",
        "moved : memory;\n    }\n    __syncwarp();\n",
        "moved : memory;\n    }\n",
    ),
    Mutant("distance.cu", "forgotten self", "&& memory != own", ""),
    Mutant("distance.cu", "self of another block", "self + first + q - at;", "self + q - at;"),
    Mutant("distance.cu", "tie to the last", "kept[j] < kept[i])", "kept[j] > kept[i])"),
    Mutant("distance.cu", "one more than k", "if (rank < k) {", "if (rank <= k) {"),
    Mutant("distance.cu", "split dropped", "own < splits ?", "own + 1 < splits ?"),
    Mutant(
        "distance.cu",
        "missing __syncwarp",
        "    __syncwarp();\n    if (i < keep && here < value)",
        "    if (i < keep && here < value)",
    ),
    Mutant(
        "distance.cu",
        "lists not begun",
        "for (int i = threadIdx.x; i < TILE_Q * keep;",
        "for (int i = threadIdx.x; i < TILE_Q;",
    ),
    Mutant(
        "distance.cu",
        "dropped barrier before output",
        "  __syncthreads();\n  const long long to",
        "  const long long to",
    ),
    Mutant("distance.cu", "no guard on output", "if (there) squared[", "squared["),
    Mutant("distance.cu", "one distance for all lanes", "if (lane == from) d2", "d2"),
    Mutant("distance.cu", "queries past the end", "if (q >= m) return;", ""),
    Mutant(
        "distance.cu",
        "missing __syncwarp before the ranks",
        "  __syncwarp();\n  for (int i = lane; i < found",
        "  for (int i = lane; i < found",
    ),
    Mutant("distance.cu", "rounding ignored", "found >= eligible || exact[i] < floor;", "1;"),
];

impl Mutant {
    /// Every module, with the change in those that it concerns; what is wrong where the text is not there once.
    fn sources(&self) -> Result<Vec<Source>, String> {
        let Self(file, what, from, to) = self;
        let mut sources: Vec<Source> = MODULES.iter().map(Source::from).collect();
        let mut changed = 0;
        for source in &mut sources {
            let own = (format!("{}.cu", source.name) == *file).then_some(&mut source.text);
            let header = source.headers.iter_mut().find(|(name, _)| name == file).map(|(_, text)| text);
            if let Some(text) = own.or(header) {
                let times = text.matches(from).count();
                if times != 1 {
                    return Err(format!("{file}, {what}: there {times} times: {from}"));
                }
                *text = text.replacen(from, to, 1);
                changed += 1;
            }
        }
        if changed == 0 { Err(format!("{file}, {what}: no such file")) } else { Ok(sources) }
    }

    /// The checks that the file has a part in.
    fn checks(&self) -> Vec<(&'static str, suite::Check)> {
        let names: &[&str] = match self.0 {
            "prepare.cu" => &["prepare"],
            "readout.cu" => &["readout"],
            "distance.cu" => &["knn", "pairwise"],
            _ => &["readout", "knn", "pairwise"],
        };
        let mut checks: Vec<_> =
            suite::SMOKE.iter().copied().filter(|(name, _)| names.contains(name)).collect();
        assert_eq!(checks.len(), names.len());
        if names[0] == "knn" {
            // The only one where rounding hides neighbours.
            checks.push(("knn of hard cases", suite::knn_hard));
        }
        checks
    }

    /// The first detector that sees it, and what that says.
    fn seen_by(&self) -> Option<String> {
        let sources = self.sources().unwrap();
        DETECTORS.into_iter().find_map(|(flavour, schedule)| {
            let device: Arc<dyn Driver> =
                Arc::new(HostEmulator::with_sources(flavour, schedule, sources.clone()));
            let why = suite::run(&device, &self.checks()).err()?;
            Some(format!("{flavour:?} {schedule:?}: {}", why.lines().next().unwrap_or_default()))
        })
    }
}

#[test]
fn every_mutant_is_seen() {
    let stale: Vec<String> = MUTANTS.iter().filter_map(|m| m.sources().err()).collect();
    assert!(stale.is_empty(), "changes that don't fit the kernels: {stale:#?}");
    let next = AtomicUsize::new(0);
    let work = || {
        let mut seen = Vec::new();
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            seen.push((mutant, mutant.seen_by()));
        }
        seen
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let seen: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let mut missed = Vec::new();
    for (Mutant(file, what, ..), by) in &seen {
        match by {
            Some(by) => println!("{file}, {what}: {by}"),
            None => missed.push(format!("{file}, {what}")),
        }
    }
    assert_eq!(seen.len(), MUTANTS.len());
    assert!(missed.is_empty(), "seen by nothing: {missed:#?}");
}
