//! Linear maps of windows of pixels: dense layers and convolutions.
//!
//! No pixel is copied: [`map`] lists the pairs of pixels and weights, and [`kernel`] processes them with a block of pixels
//! and channels in registers. A pixel's result is the same chain of operations at any position in a block, so it depends
//! neither on other samples nor on the number of threads.

mod kernel;
mod map;
mod pack;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::passes::with_scratch;
use crate::shape::Shape;
use kernel::{Dots, FEW, Outer, PASS, Sweep, most_vectors};
use map::Map;

/// Elements of x and dy that one pass over the weight gradient keeps in the second-level cache.
const SLICE: usize = 96 * 1024;

/// Fewest multiplications that are worth waking a thread for.
const LEAST: usize = 1 << 19;

/// A linear map y = W x + b of each window of pixels; see [`crate::net::Op::Conv`].
pub(crate) struct Linear {
    from: Shape,
    to: Shape,
    /// Positions in the window.
    places: usize,
    map: Map,
    simd: Arch,
    /// Elements of a vector register, and most vectors in a block.
    lanes: usize,
    vectors: usize,
    /// Whether the weight gradient is computed as `[matrices, outputs, inputs]`, with inputs as columns. This is faster
    /// when there are fewer outputs than elements of a vector.
    transposed: bool,
    /// Sums over parts of the samples, which add up to the weight gradient.
    parts: Vec<f32>,
    /// The sum of dy over the pixels of each sample.
    sums: Vec<f32>,
}

/// Memory that threads write, each its own part.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: every task writes elements of its own, and none is read before all tasks are done.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, n: usize) -> *mut f32 {
        self.0.wrapping_add(n)
    }
}

/// Fewest tasks per thread.
fn tasks_a_piece(threads: usize) -> usize {
    if threads == 1 { usize::MAX } else { 1 }
}

/// Elements of a vector, and number of registers.
struct Sizes;
impl WithSimd for Sizes {
    type Output = (usize, usize);
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (S::F32_LANES, S::REGISTER_COUNT)
    }
}

impl Linear {
    /// A map for batches of at most `rows` samples.
    pub(super) fn new(
        from: Shape,
        outputs: usize,
        side: usize,
        stride: usize,
        upsample: bool,
        rows: usize,
    ) -> Self {
        Self::on(Arch::new(), from, outputs, side, stride, upsample, rows)
    }

    /// A map with windows of any side and `before` pixels of zero padding on each side, with the shape of its output.
    pub(crate) fn padded(
        from: Shape,
        outputs: usize,
        side: usize,
        stride: usize,
        before: usize,
        rows: usize,
    ) -> (Self, Shape) {
        let fit = |len: usize| (len + 2 * before - side) / stride + 1;
        let to = Shape::image(fit(from.height), fit(from.width), outputs);
        (Self::between(Arch::new(), from, to, (side, stride, before), false, rows), to)
    }

    /// As [`Self::new`], with a given instruction set.
    fn on(
        simd: Arch,
        from: Shape,
        outputs: usize,
        side: usize,
        stride: usize,
        upsample: bool,
        rows: usize,
    ) -> Self {
        let scale = if upsample { 2 } else { 1 };
        let to = Shape::image(scale * from.height / stride, scale * from.width / stride, outputs);
        // A window with stride 2 begins at its pixel; others are centred.
        let before = if stride == 1 { side / 2 } else { 0 };
        Self::between(simd, from, to, (side, stride, before), upsample, rows)
    }

    /// A map between two shapes, for windows given by side, stride and padding before the first.
    fn between(
        simd: Arch,
        from: Shape,
        to: Shape,
        window: (usize, usize, usize),
        upsample: bool,
        rows: usize,
    ) -> Self {
        let outputs = to.channels;
        let (lanes, registers) = simd.dispatch(Sizes);
        let transposed = 2 * outputs <= lanes && from.channels > outputs;
        Self {
            from,
            to,
            places: window.0 * window.0,
            map: Map::new(from, to, window, upsample, transposed),
            simd,
            lanes,
            vectors: most_vectors(registers),
            transposed,
            parts: vec![],
            sums: vec![0.0; rows * outputs],
        }
    }

    /// Number of threads for m rows.
    fn threads(&self, m: usize) -> usize {
        let products = m * self.to.len() * self.places * self.from.channels;
        if products < LEAST { 1 } else { rayon::current_num_threads() }
    }

    /// Ranges of channels that a block computes together.
    fn panels(&self, channels: usize) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        let (lanes, vectors) = (self.lanes, channels.div_ceil(self.lanes));
        let count = vectors.div_ceil(self.vectors);
        (0..count)
            .map(move |i| i * vectors / count * lanes..((i + 1) * vectors / count * lanes).min(channels))
    }

    /// y = W x + b, plus `shift[m, outputs]` for each sample, plus `add`, which has the shape of y.
    #[expect(clippy::too_many_arguments, reason = "one for each term of the sum")]
    pub(crate) fn forward(
        &mut self,
        m: usize,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        shift: Option<&[f32]>,
        add: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (inputs, outputs) = (self.from.channels, self.to.channels);
        assert!(x.len() >= m * self.from.len() && y.len() >= m * self.to.len());
        assert!(weight.len() == self.places * inputs * outputs && bias.len() == outputs);
        assert!(shift.is_none_or(|s| s.len() >= m * outputs));
        assert!(add.is_none_or(|a| a.len() >= m * self.to.len()));
        let null = |s: Option<&[f32]>| s.map_or(std::ptr::null(), <[f32]>::as_ptr);
        self.sweep(false, m, x, weight, [bias.as_ptr(), null(shift), null(add)], y.as_mut_ptr());
    }

    /// dx = W^T dy, added to what `dx` holds with `accumulate`.
    pub(super) fn backward_input(
        &mut self,
        m: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        accumulate: bool,
    ) {
        let (inputs, outputs) = (self.from.channels, self.to.channels);
        assert!(dx.len() >= m * self.from.len() && dy.len() >= m * self.to.len());
        assert!(weight.len() == self.places * inputs * outputs);
        let none = std::ptr::null();
        let dx = dx.as_mut_ptr();
        let add = if accumulate { dx.cast_const() } else { none };
        self.sweep(true, m, dy, weight, [none, none, add], dx);
    }

    /// Runs a kernel on all pixels: forward, or from dy to dx if `back`.
    fn sweep(&self, back: bool, m: usize, x: &[f32], weight: &[f32], added: [*const f32; 3], y: *mut f32) {
        let (inputs, outputs) = (self.from.channels, self.to.channels);
        let (gather, channels) = match back {
            false => (&self.map.forward, (inputs, outputs)),
            true => (&self.map.backward, (outputs, inputs)),
        };
        let groups = m.div_ceil(gather.group);
        let dots = channels.1 <= FEW && channels.0 >= self.lanes;
        let panels = if dots { 1 } else { self.panels(channels.1).count() };
        let threads = self.threads(m);
        // Each task packs its own panel, so the samples are split only if the panels don't occupy all threads.
        let splits =
            if panels.is_multiple_of(threads) || panels >= 4 * threads { 1 } else { threads.min(groups) };
        let [bias, shift, add] = added.map(|p| Shared(p.cast_mut()));
        let y = Shared(y);
        let run = |columns: Range<usize>, groups: Range<usize>| {
            let places = &self.map.matrices;
            let width = if dots { columns.len() } else { columns.len().next_multiple_of(self.lanes) };
            let rows = if dots { channels.1 } else { channels.0 };
            with_scratch(places.len() * rows * width, 0, |panel, _| {
                if back == dots {
                    pack::straight(places, weight, rows, outputs, columns.clone(), width, panel);
                } else {
                    let len = inputs * outputs;
                    pack::transposed(self.simd, places, weight, rows, len, columns.clone(), width, panel);
                }
                let (x, weight) = (x.as_ptr(), panel.as_ptr());
                let (bias, shift, add, y) = (bias.at(0), shift.at(0), add.at(0), y.at(0));
                if dots {
                    self.simd.dispatch(Dots { gather, m, groups, channels, x, weight, bias, shift, add, y });
                } else {
                    let panel = weight;
                    self.simd.dispatch(Sweep {
                        gather,
                        m,
                        groups,
                        channels,
                        columns,
                        x,
                        panel,
                        bias,
                        shift,
                        add,
                        y,
                    });
                }
            });
        };
        (0..panels * splits).into_par_iter().with_min_len(tasks_a_piece(threads)).for_each(|task| {
            let (panel, split) = (task / splits, task % splits);
            let columns = if dots { Some(0..channels.0) } else { self.panels(channels.1).nth(panel) };
            if let Some(columns) = columns {
                run(columns, split * groups / splits..(split + 1) * groups / splits);
            }
        });
    }

    /// Gradients of weights, bias and shift; the flag says whether that of the shift is added to its content.
    pub(super) fn backward_weight(
        &mut self,
        m: usize,
        x: &[f32],
        dy: &[f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
        dshift: Option<(&mut [f32], bool)>,
    ) {
        let (inputs, outputs) = (self.from.channels, self.to.channels);
        let matrix = inputs * outputs;
        let (x, dy) = (&x[..m * self.from.len()], &dy[..m * self.to.len()]);
        assert!(dweight.len() == self.places * matrix && dbias.len() == outputs);
        if m == 0 {
            dweight.fill(0.0);
            dbias.fill(0.0);
            return;
        }
        let matrices = self.map.matrices.len();
        let size = matrices * matrix;
        let batches = m.div_ceil(self.map.batch);
        // Sums over parts of the samples are worth their memory when samples have more elements than the weights. Their
        // number must not depend on threads, as the result depends on it.
        let parts = match 4 * size <= x.len() + dy.len() {
            true if size <= 32 * 1024 => batches.min(4),
            true => batches.min(2),
            false => 1,
        };
        let direct = parts == 1 && matrices == self.places && !self.transposed;
        let out = if direct {
            Shared(dweight.as_mut_ptr())
        } else {
            if self.parts.len() < parts * size {
                self.parts.resize(parts * size, 0.0);
            }
            Shared(self.parts.as_mut_ptr())
        };
        let one_pixel = self.to.pixels() == 1;
        let sums = Shared(self.sums.as_mut_ptr());
        assert!(self.sums.len() >= m * outputs);
        // Rows of the matrices are divided among threads when parts do not occupy all of them.
        let (a, b) = ((x.as_ptr(), self.from.len()), (dy.as_ptr(), self.to.len()));
        let (a, b, rows, columns) =
            if self.transposed { (b, a, outputs, inputs) } else { (a, b, inputs, outputs) };
        let (a, b) = ((Shared(a.0.cast_mut()), a.1), (Shared(b.0.cast_mut()), b.1));
        let threads = self.threads(m);
        let shares = threads.div_ceil(parts).min(rows);
        let slice = (SLICE / ((self.from.len() + self.to.len()) * self.map.batch)).max(1) * self.map.batch;
        let (this, stride) = (&*self, columns);
        (0..parts * shares).into_par_iter().with_min_len(tasks_a_piece(threads)).for_each(|task| {
            let (part, share) = (task / shares, task % shares);
            let start = |i: usize| (i * batches / parts * this.map.batch).min(m);
            let samples = start(part)..start(part + 1);
            let rows = share * rows / shares..(share + 1) * rows / shares;
            for from in samples.clone().step_by(slice) {
                let samples = from..samples.end.min(from + slice);
                if share == 0 && !one_pixel {
                    let dy = &dy[samples.start * this.to.len()..samples.end * this.to.len()];
                    this.simd.dispatch(PixelSums {
                        dy,
                        len: this.to.len(),
                        outputs,
                        sums: sums.at(samples.start * outputs),
                    });
                }
                for (t, pairs) in this.map.pairs.iter().enumerate() {
                    for columns in this.panels(columns) {
                        let width = columns.len().next_multiple_of(this.lanes);
                        with_scratch(PASS * width, 0, |room, _| {
                            this.simd.dispatch(Outer {
                                pairs,
                                pixels: pairs.len() / this.map.batch,
                                batch: this.map.batch,
                                samples: samples.clone(),
                                a: (a.0.at(0), a.1),
                                b: (b.0.at(0), b.1),
                                rows: rows.clone(),
                                columns: columns.clone(),
                                out: out.at(part * size + t * matrix),
                                stride,
                                accumulate: from > start(part),
                                room,
                            });
                        });
                    }
                }
            }
        });
        if !direct {
            let parts = &self.parts[..parts * size];
            dweight.par_chunks_mut(matrix).enumerate().for_each(|(place, dweight)| {
                dweight.fill(0.0);
                let own = self.map.matrices.iter().enumerate().filter(|(_, places)| places.contains(&place));
                for (t, _) in own {
                    for part in parts.chunks_exact(size) {
                        let part = &part[t * matrix..][..matrix];
                        if self.transposed {
                            for (o, part) in part.chunks_exact(inputs).enumerate() {
                                let own = dweight[o..].iter_mut().step_by(outputs);
                                own.zip(part).for_each(|(dw, p)| *dw += p);
                            }
                        } else {
                            dweight.iter_mut().zip(part).for_each(|(dw, p)| *dw += p);
                        }
                    }
                }
            });
        }
        let sums = if one_pixel { dy } else { &self.sums[..m * outputs] };
        dbias.fill(0.0);
        for row in sums.chunks_exact(outputs) {
            dbias.iter_mut().zip(row).for_each(|(b, s)| *b += s);
        }
        if let Some((dshift, accumulate)) = dshift {
            let dshift = &mut dshift[..m * outputs];
            if accumulate {
                dshift.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
            } else {
                dshift.copy_from_slice(sums);
            }
        }
    }
}

/// The sum of dy over the pixels of each sample.
struct PixelSums<'a> {
    dy: &'a [f32],
    /// Elements of a sample.
    len: usize,
    outputs: usize,
    sums: *mut f32,
}

impl WithSimd for PixelSums<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, sample) in self.dy.chunks_exact(self.len).enumerate() {
            // SAFETY: `sums` has `outputs` elements for each sample, and no other task has these samples.
            let sums =
                unsafe { std::slice::from_raw_parts_mut(self.sums.add(i * self.outputs), self.outputs) };
            sums.fill(0.0);
            for pixel in sample.chunks_exact(self.outputs) {
                sums.iter_mut().zip(pixel).for_each(|(s, dy)| *s += dy);
            }
        }
    }
}

#[cfg(test)]
mod tests;
