//! The loop over queries and memories: blocks of queries and chunks of memories, tile by tile.

use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::lanes::{Buffer, Lanes, Pairs, ROWS, Rows, chain};
use super::{Element, Memories};

/// Most panels of queries that share one tile.
const PANELS: usize = 20;

/// Most values that a chunk holds for one query of each panel of a block.
const PANEL_VALUES: usize = 10_000;

/// Most memories in a tile.
const TILE: usize = 256;

/// Most values in a tile of long memories.
const TILE_VALUES: usize = 1 << 19;

/// Number of chunks that the memories are cut into, if they are enough.
const CHUNKS: usize = 8;

/// Fewest memories in a chunk.
const CHUNK: usize = 2048;

/// Up to this number of dimensions, distances are computed directly. That costs no more than the expansion, and each
/// error is relative to its own distance.
const FEW: usize = 8;

/// Up to [`Lanes::PANEL`] queries side by side.
pub(super) struct Panel<'a, T> {
    /// Row of the first query.
    pub(super) first: usize,
    /// The queries as given, `[count, n]`.
    pub(super) given: &'a [T],
    /// Number of queries.
    pub(super) count: usize,
    /// Number of queries with padding.
    pub(super) width: usize,
    /// `[n, width]`: about the memories' centre, or as given when distances are computed directly.
    transposed: Buffer<T>,
    /// Squared distance plus twice the closeness: the squared norm, or 0 for direct distances.
    pub(super) norms2: Vec<f64>,
}

impl<'a, T: Element> Panel<'a, T> {
    pub(super) fn new(memories: &Memories<T>, first: usize, given: &'a [T]) -> Self {
        let n = memories.dim();
        let count = given.len() / n;
        let width = count.next_multiple_of(T::LINE);
        let mut transposed = Buffer::new(n * width);
        let mut norms2 = vec![0.0; count];
        let mut centred = vec![T::ZERO; n];
        for (q, x) in given.chunks_exact(n).enumerate() {
            if n <= FEW {
                centred.copy_from_slice(x);
            } else {
                T::centred(&mut centred, x, &memories.centre);
                norms2[q] = centred.iter().map(|v| v.f64() * v.f64()).sum();
            }
            for (k, v) in centred.iter().enumerate() {
                transposed[k * width + q] = *v;
            }
        }
        Self { first, given, count, width, transposed, norms2 }
    }

    /// Query q as given.
    pub(super) fn query(&self, q: usize) -> &'a [T] {
        let n = self.given.len() / self.count;
        &self.given[q * n..(q + 1) * n]
    }
}

/// A range of memories, centred, with their closeness to a panel of queries.
pub(super) struct Tile<T> {
    /// The first memory.
    pub(super) start: usize,
    /// Number of memories.
    pub(super) size: usize,
    /// About the centre, `[size, stride]`.
    centred: Buffer<T>,
    stride: usize,
    /// As given, when distances are computed directly.
    given: Buffer<T>,
    half_norms: Buffer<T>,
    /// `[size, width]`: (|x|^2 - d^2) / 2, larger for closer memories.
    closeness: Buffer<T>,
}

impl<T: Element> Tile<T> {
    pub(super) fn new(memories: &Memories<T>) -> Self {
        let n = memories.dim();
        let rows = tile_rows(memories).next_multiple_of(ROWS);
        let mut stride = n.next_multiple_of(T::LINE);
        // A power of two would map all rows to the same few lines of a cache.
        if stride.is_multiple_of(16 * T::LINE) {
            stride += T::LINE;
        }
        Self {
            start: 0,
            size: 0,
            centred: Buffer::new(rows * stride),
            stride,
            given: Buffer::new(if n <= FEW { rows * n } else { 0 }),
            half_norms: Buffer::new(rows),
            closeness: Buffer::new(rows * T::PANEL),
        }
    }

    /// Loads a range of memories. Padding rows keep their old values, and their results are never read.
    pub(super) fn fill(&mut self, memories: &Memories<T>, range: Range<usize>) {
        let n = memories.dim();
        (self.start, self.size) = (range.start, range.len());
        for (j, out) in range.clone().zip(self.centred.chunks_exact_mut(self.stride)) {
            T::centred(&mut out[..n], memories.row(j), &memories.centre);
        }
        if n <= FEW {
            for (j, out) in range.clone().zip(self.given.chunks_exact_mut(n)) {
                out.copy_from_slice(memories.row(j));
            }
        }
        self.half_norms[..range.len()].copy_from_slice(&memories.half_norms[range]);
    }

    /// Closeness of each memory to each query of the panel, `[size, width]`.
    pub(super) fn closeness(&mut self, panel: &Panel<'_, T>) -> &mut [T] {
        let n = panel.transposed.len() / panel.width;
        let rows = self.size.next_multiple_of(ROWS);
        let (from, pairs) = if n <= FEW {
            (Rows { values: &self.given, stride: n }, Pairs::Differences)
        } else {
            (Rows { values: &self.centred, stride: self.stride }, Pairs::Products(&self.half_norms))
        };
        T::closeness(&mut self.closeness[..rows * panel.width], &panel.transposed, from, n, pairs);
        &mut self.closeness[..self.size * panel.width]
    }

    /// Adds the centred memories to the sums `[count, n]` of the panel, with the weights that have replaced the
    /// closeness.
    pub(super) fn add_moments(&self, panel: &Panel<'_, T>, sums: &mut [f64]) {
        let weights = &self.closeness[..self.size * panel.width];
        let from = Rows { values: &self.centred, stride: self.stride };
        T::moments(sums, weights, panel.width, from, panel.transposed.len() / panel.width);
    }
}

/// Bound on the error of the closeness of memories to one query.
#[derive(Clone, Copy)]
pub(super) struct Slack {
    /// Constant part.
    flat: f64,
    /// Part for each unit of closeness.
    share: f64,
}

impl Slack {
    pub(super) fn new<T: Element>(memories: &Memories<T>, norm2: f64) -> Self {
        let n = memories.dim();
        if n <= FEW {
            return Self { flat: 0.0, share: T::ROUNDING * (n + 4) as f64 };
        }
        // The roundings of the product, and those of centring both sides, of norms and of limits.
        let (norm, reach) = (norm2.sqrt(), memories.reach);
        let flat = T::ROUNDING * ((chain(n) + 4) as f64 * norm * reach + 4.0 * (norm + reach).powi(2));
        Self { flat, share: 0.0 }
    }

    /// Bound for memories of this closeness.
    pub(super) fn at(self, closeness: f64) -> f64 {
        self.flat + self.share * closeness.abs()
    }
}

/// Whether distances in n dimensions are computed directly.
pub(super) fn is_direct(n: usize) -> bool {
    n <= FEW
}

/// Memories in a tile. Depends on N only.
pub(super) fn tile_rows<T: Element>(memories: &Memories<T>) -> usize {
    tile_size(memories.dim())
}

fn tile_size(n: usize) -> usize {
    (TILE_VALUES / n.max(1)).clamp(128, TILE)
}

/// Bytes that a search in n dimensions holds on the CPU beside the memories and, twice, the queries: a tile for each thread.
pub(crate) fn tile_bytes(n: usize) -> u64 {
    (rayon::current_num_threads()
        * (tile_size(n) + ROWS)
        * (n + 2 * f32::LINE + f32::PANEL)
        * size_of::<f32>()) as u64
}

/// Cuts a range into as few and as even pieces of at most `most` as possible.
pub(super) fn pieces(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(most);
    let (start, size) = (range.start, range.len());
    (0..count).map(move |i| start + i * size / count..start + (i + 1) * size / count)
}

/// Calls `work` for every block of panels of queries and every chunk of memories, and `join` for each block with the
/// results of its chunks in order. The results of the blocks come in order.
///
/// `held` is the number of values that a chunk holds for one query. Chunks depend on K only, so that no sum depends on
/// the number of queries. One query is enough work for all cores.
pub(super) fn sweep<T: Element, P: Send, R: Send>(
    memories: &Memories<T>,
    queries: &ArrayView2<'_, T>,
    held: usize,
    work: impl Fn(&mut Tile<T>, &[Panel<'_, T>], Range<usize>) -> P + Sync,
    join: impl Fn(&[Panel<'_, T>], Vec<P>) -> R + Sync,
) -> Vec<R> {
    let (n, len) = (memories.dim(), memories.len());
    let queries = queries.as_slice().expect("the queries are in standard layout");
    let chunk = len.div_ceil(CHUNKS).max(CHUNK);
    let chunks: Vec<Range<usize>> = pieces(0..len, chunk).collect();
    let panels: Vec<(usize, &[T])> = (0..).step_by(T::PANEL).zip(queries.chunks(T::PANEL * n)).collect();
    let blocks: Vec<Range<usize>> =
        pieces(0..panels.len(), (PANEL_VALUES / held.max(1)).clamp(1, PANELS)).collect();
    // Every chunk of a block holds sums until they are joined, so the number of blocks in flight is limited.
    let together = (4 * rayon::current_num_threads() / chunks.len()).max(1);
    let mut out = Vec::with_capacity(blocks.len());
    for group in blocks.chunks(together) {
        let results = group.par_iter().map(|block| {
            let panels: Vec<Panel<'_, T>> =
                panels[block.clone()].iter().map(|&(first, x)| Panel::new(memories, first, x)).collect();
            let parts = chunks
                .par_iter()
                .map_init(|| Tile::new(memories), |tile, chunk| work(tile, &panels, chunk.clone()))
                .collect();
            join(&panels, parts)
        });
        out.par_extend(results);
    }
    out
}
