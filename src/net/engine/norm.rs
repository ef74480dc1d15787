//! Group normalisation, SiLU and dropout as one operation.

use pulp::{Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use super::dropout::{Dropout, Mask};
use super::passes::{TASKS, Target, parts, rows_a_task, sigmoid, silu_slope, with_scratch};
use crate::shape::Shape;

/// Vectors that are summed in parallel, as an addition takes this many cycles.
const SIDE: usize = 4;

/// Elements of [`SIDE`] vectors of the largest size.
const BLOCK: usize = 16 * SIDE;

/// Elements that are summed in f32 before the sum is added in f64.
const RUN: usize = 32;

/// [`crate::net::Op::Norm`].
pub(super) struct Norm {
    settings: Settings,
    /// For each row the means and then the inverse standard deviations of its groups.
    stats: Vec<f32>,
    /// For each task the sums for the gradient of the scale and then of the shift.
    partial: Vec<f64>,
}

/// Settings of [`Norm`].
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) node: usize,
    pub(super) shape: Shape,
    pub(super) groups: usize,
    pub(super) epsilon: f64,
    pub(super) silu: bool,
    pub(super) rate: f64,
}

impl Settings {
    /// Number of elements after which the assignment of channels to lanes repeats.
    fn period(&self) -> usize {
        let (mut a, mut b) = (self.shape.channels, BLOCK);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        self.shape.channels / a * BLOCK
    }

    /// Elements of a group in one sample.
    fn size(&self) -> f64 {
        (self.shape.len() / self.groups) as f64
    }

    /// Whether the elements of a group are contiguous.
    fn is_contiguous(&self) -> bool {
        self.groups == 1 || self.shape.pixels() == 1
    }

    /// The mean, from the sum of the elements.
    fn mean(&self, sum: f64) -> f32 {
        (sum / self.size()) as f32
    }

    /// The inverse standard deviation, from the sum of squared deviations from the mean.
    fn inverse(&self, squares: f64) -> f32 {
        (1.0 / (squares / self.size() + self.epsilon).sqrt()) as f32
    }

    fn mask(&self, dropout: Option<Dropout>, row: usize) -> Option<Mask> {
        dropout.filter(|_| self.rate > 0.0).map(|d| d.mask(self.node, self.rate, row))
    }
}

impl Norm {
    /// A normalisation for batches of at most `rows` samples.
    pub(super) fn new(settings: Settings, rows: usize) -> Self {
        Self {
            settings,
            stats: vec![0.0; rows * 2 * settings.groups],
            partial: vec![0.0; TASKS * 2 * settings.shape.channels],
        }
    }

    pub(super) fn forward(
        &mut self,
        m: usize,
        x: &[f32],
        (scale, shift): (&[f32], &[f32]),
        y: &mut [f32],
        dropout: Option<Dropout>,
    ) {
        let settings = self.settings;
        let (len, groups, period) = (settings.shape.len(), settings.groups, settings.period());
        let step = rows_a_task(m, len);
        let tasks = y[..m * len].par_chunks_mut(step * len).zip(x[..m * len].par_chunks(step * len));
        let stats = self.stats[..m * 2 * groups].par_chunks_mut(step * 2 * groups);
        tasks.zip(stats).enumerate().for_each(|(task, ((y, x), stats))| {
            with_scratch(3 * period, period + settings.shape.channels, |single, double| {
                pulp::Arch::new().dispatch(Forward {
                    settings,
                    first: task * step,
                    x,
                    scale,
                    shift,
                    y,
                    stats,
                    dropout,
                    single,
                    double,
                });
            });
        });
    }

    /// Gradients of the last forward pass. `dx` is overwritten, or added to according to its flag; the gradients of scale
    /// and shift are overwritten.
    #[allow(clippy::too_many_arguments, reason = "one for each input and output of the gradient")]
    pub(super) fn backward(
        &mut self,
        m: usize,
        x: &[f32],
        dy: &[f32],
        (scale, shift): (&[f32], &[f32]),
        dx: Target<'_>,
        dweights: Option<(&mut [f32], &mut [f32])>,
        dropout: Option<Dropout>,
    ) {
        let settings = self.settings;
        let (len, groups, period) = (settings.shape.len(), settings.groups, settings.period());
        let channels = settings.shape.channels;
        let step = rows_a_task(m, len);
        let mut targets = parts(dx, m * len, step * len);
        let mut targets: [_; TASKS] = std::array::from_fn(|_| targets.next().flatten());
        let tasks = self.partial.par_chunks_mut(2 * channels).zip(&mut targets);
        let tasks = tasks.zip(x[..m * len].par_chunks(step * len)).zip(dy[..m * len].par_chunks(step * len));
        let tasks = tasks.zip(self.stats[..m * 2 * groups].par_chunks(step * 2 * groups));
        tasks.enumerate().for_each(|(task, ((((partial, dx), x), dy), stats))| {
            let singles = 5 * period + BLOCK + channels + len;
            with_scratch(singles, 2 * (period + channels), |single, double| {
                partial.fill(0.0);
                pulp::Arch::new().dispatch(Backward {
                    settings,
                    first: task * step,
                    x,
                    dy,
                    scale,
                    shift,
                    stats,
                    dx: dx.take(),
                    partial,
                    dropout,
                    single,
                    double,
                });
            });
        });
        if let Some((dscale, dshift)) = dweights {
            let sum = |at: usize| -> f64 {
                self.partial.chunks_exact(2 * channels).take(m.div_ceil(step)).map(|p| p[at]).sum()
            };
            for c in 0..channels {
                dscale[c] = sum(c) as f32;
                dshift[c] = sum(channels + c) as f32;
            }
        }
    }
}

struct Forward<'a> {
    settings: Settings,
    first: usize,
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    y: &'a mut [f32],
    stats: &'a mut [f32],
    dropout: Option<Dropout>,
    single: &'a mut [f32],
    double: &'a mut [f64],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { settings, first, x, scale, shift, y, stats, dropout, single, double } = self;
        let (len, groups, channels) = (settings.shape.len(), settings.groups, settings.shape.channels);
        let period = settings.period();
        let (mean, single) = single.split_at_mut(period);
        let (slope, level) = single.split_at_mut(period);
        let (lanes, sums) = double.split_at_mut(period);
        repeat(level, shift);
        let rows = x.chunks_exact(len).zip(y.chunks_exact_mut(len)).zip(stats.chunks_exact_mut(2 * groups));
        for (r, ((x, y), stats)) in rows.enumerate() {
            let (means, inverses) = stats.split_at_mut(groups);
            if settings.is_contiguous() {
                // A group is contiguous, so its channels need no distinction.
                let lanes = &mut lanes[..BLOCK];
                let parts = x.chunks_exact(len / groups).zip(means.iter_mut()).zip(inverses.iter_mut());
                for ((x, m), i) in parts {
                    let mean = &mut mean[..BLOCK];
                    lane_sums::<S, false>(simd, x, mean, lanes);
                    *m = settings.mean(sum(lanes));
                    mean.fill(*m);
                    lane_sums::<S, true>(simd, x, mean, lanes);
                    *i = settings.inverse(sum(lanes));
                }
                spread(mean, means, channels);
            } else {
                lane_sums::<S, false>(simd, x, mean, lanes);
                fold(lanes, sums);
                for (m, sums) in means.iter_mut().zip(sums.chunks_exact(channels / groups)) {
                    *m = settings.mean(sum(sums));
                }
                spread(mean, means, channels);
                lane_sums::<S, true>(simd, x, mean, lanes);
                fold(lanes, sums);
                for (i, sums) in inverses.iter_mut().zip(sums.chunks_exact(channels / groups)) {
                    *i = settings.inverse(sum(sums));
                }
            }
            slopes(slope, inverses, scale);
            match (settings.silu, settings.mask(dropout, first + r)) {
                (false, None) => apply::<false, false>(x, y, mean, slope, level, Mask::default()),
                (true, None) => apply::<true, false>(x, y, mean, slope, level, Mask::default()),
                (false, Some(mask)) => apply::<false, true>(x, y, mean, slope, level, mask),
                (true, Some(mask)) => apply::<true, true>(x, y, mean, slope, level, mask),
            }
        }
    }
}

struct Backward<'a> {
    settings: Settings,
    first: usize,
    x: &'a [f32],
    dy: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    stats: &'a [f32],
    dx: Target<'a>,
    partial: &'a mut [f64],
    dropout: Option<Dropout>,
    single: &'a mut [f32],
    double: &'a mut [f64],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { settings, first, x, dy, scale, shift, stats, mut dx, partial, dropout, single, double } =
            self;
        let (len, groups, channels) = (settings.shape.len(), settings.groups, settings.shape.channels);
        let (period, per) = (settings.period(), channels / groups);
        let (mean, single) = single.split_at_mut(period);
        let (slope, single) = single.split_at_mut(period);
        let (level, single) = single.split_at_mut(period);
        let (tilt, single) = single.split_at_mut(period);
        let (rest, single) = single.split_at_mut(period);
        let (scaled, single) = single.split_at_mut(channels);
        let (one_mean, inner) = single.split_at_mut(BLOCK);
        let inner = &mut inner[..len];
        let (lanes, double) = double.split_at_mut(period);
        let (lanes_x, double) = double.split_at_mut(period);
        let (sums, sums_x) = double.split_at_mut(channels);
        let (dscale, dshift) = partial.split_at_mut(channels);
        repeat(level, shift);
        let rows = x.chunks_exact(len).zip(dy.chunks_exact(len)).zip(stats.chunks_exact(2 * groups));
        for (r, ((x, dy), stats)) in rows.enumerate() {
            let (means, inverses) = stats.split_at(groups);
            spread(mean, means, channels);
            slopes(slope, inverses, scale);
            let mask = settings.mask(dropout, first + r);
            // The gradient before SiLU and dropout.
            let du: &[f32] = match (settings.silu, mask) {
                (false, None) => dy,
                (true, None) => {
                    undo::<true, false>(x, dy, inner, mean, slope, level, Mask::default());
                    inner
                }
                (false, Some(mask)) => {
                    undo::<false, true>(x, dy, inner, mean, slope, level, mask);
                    inner
                }
                (true, Some(mask)) => {
                    undo::<true, true>(x, dy, inner, mean, slope, level, mask);
                    inner
                }
            };
            let mut set = |g: usize, sum: f64, sum_x: f64| {
                let group = g * per..(g + 1) * per;
                let inverse = f64::from(inverses[g]);
                let by = -inverse / settings.size();
                tilt[group.clone()].fill((by * inverse * inverse * sum_x) as f32);
                rest[group].fill((by * sum) as f32);
            };
            if settings.shape.pixels() == 1 {
                for (g, inverse) in inverses.iter().enumerate() {
                    let group = g * per..(g + 1) * per;
                    let (du, x) = (&du[group.clone()], &x[group.clone()]);
                    let with = du.iter().zip(x).zip(&scale[group.clone()]).zip(&mut scaled[group.clone()]);
                    let d = dscale[group.clone()].iter_mut().zip(&mut dshift[group.clone()]);
                    for ((((du, x), scale), scaled), (dscale, dshift)) in with.zip(d) {
                        *scaled = scale * du;
                        *dscale += f64::from((x - means[g]) * inverse * du);
                        *dshift += f64::from(*du);
                    }
                    // The whole group has one mean.
                    let (lanes, lanes_x) = (&mut lanes[..BLOCK], &mut lanes_x[..BLOCK]);
                    one_mean.fill(means[g]);
                    lane_products(simd, &scaled[group], x, one_mean, lanes, lanes_x);
                    set(g, sum(lanes), sum(lanes_x));
                }
            } else {
                lane_products(simd, du, x, mean, lanes, lanes_x);
                fold(lanes, sums);
                fold(lanes_x, sums_x);
                for (d, s) in dshift.iter_mut().zip(&*sums) {
                    *d += s;
                }
                for (g, inverse) in inverses.iter().enumerate() {
                    let group = g * per..(g + 1) * per;
                    let (sums, sums_x) = (&mut sums[group.clone()], &mut sums_x[group.clone()]);
                    let both = sums.iter_mut().zip(&mut *sums_x).zip(&scale[group.clone()]);
                    for (d, ((s, s_x), scale)) in dscale[group].iter_mut().zip(both) {
                        *d += f64::from(*inverse) * *s_x;
                        *s *= f64::from(*scale);
                        *s_x *= f64::from(*scale);
                    }
                    set(g, sum(sums), sum(sums_x));
                }
            }
            let Some((dx, accumulate)) = &mut dx else { continue };
            again(tilt, channels);
            again(rest, channels);
            let dx = &mut dx[r * len..(r + 1) * len];
            if *accumulate {
                pull::<true>(x, du, dx, mean, slope, tilt, rest);
            } else {
                pull::<false>(x, du, dx, mean, slope, tilt, rest);
            }
        }
    }
}

/// Repeats the first `n` elements to the end.
#[inline(always)]
fn again(out: &mut [f32], n: usize) {
    let (from, to) = out.split_at_mut(n);
    for to in to.chunks_exact_mut(n) {
        to.copy_from_slice(from);
    }
}

/// The values of the channels, repeated.
#[inline(always)]
fn repeat(out: &mut [f32], channels: &[f32]) {
    out[..channels.len()].copy_from_slice(channels);
    again(out, channels.len());
}

/// The values of the groups for each of their channels, repeated.
#[inline(always)]
fn spread(out: &mut [f32], groups: &[f32], channels: usize) {
    let per = channels / groups.len();
    for (out, v) in out.chunks_exact_mut(per).zip(groups) {
        out.fill(*v);
    }
    again(out, channels);
}

/// The scale of each channel over the standard deviation of its group, repeated.
#[inline(always)]
fn slopes(out: &mut [f32], inverses: &[f32], scale: &[f32]) {
    let per = scale.len() / inverses.len();
    for ((out, inverse), scale) in out.chunks_exact_mut(per).zip(inverses).zip(scale.chunks_exact(per)) {
        for (out, scale) in out.iter_mut().zip(scale) {
            *out = inverse * scale;
        }
    }
    again(out, scale.len());
}

/// Sums over lanes as sums over channels.
#[inline(always)]
fn fold(lanes: &[f64], sums: &mut [f64]) {
    let n = sums.len();
    sums.copy_from_slice(&lanes[..n]);
    for lanes in lanes[n..].chunks_exact(n) {
        for (s, l) in sums.iter_mut().zip(lanes) {
            *s += l;
        }
    }
}

#[inline(always)]
fn sum(x: &[f64]) -> f64 {
    let (blocks, tail) = x.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for block in blocks {
        for i in 0..16 {
            sums[i] += block[i];
        }
    }
    sums.iter().sum::<f64>() + tail.iter().sum::<f64>()
}

/// lanes_i <- the sum of x_j over the j that are i modulo the period or, with `SQUARES`, of (x_j - mean_i)^2.
#[inline(always)]
fn lane_sums<S: Simd, const SQUARES: bool>(simd: S, x: &[f32], mean: &[f32], lanes: &mut [f64]) {
    let period = lanes.len();
    let (whole, tail) = x.split_at(x.len() / period * period);
    lanes.fill(0.0);
    for ((v, lanes), mean) in lanes_of::<S>(lanes).zip(blocks_of(simd, mean)) {
        for run in whole.chunks(RUN * period) {
            let mut sums = [simd.splat_f32s(0.0); SIDE];
            for x in run.chunks_exact(period) {
                let x = block(simd, x, v);
                for i in 0..SIDE {
                    sums[i] = if SQUARES {
                        let d = simd.sub_f32s(x[i], mean[i]);
                        simd.mul_add_e_f32s(d, d, sums[i])
                    } else {
                        simd.add_f32s(sums[i], x[i])
                    };
                }
            }
            add_to(lanes, bytemuck::cast_slice(&sums));
        }
    }
    for ((lane, x), mean) in lanes.iter_mut().zip(tail).zip(mean) {
        let d = x - mean;
        *lane += f64::from(if SQUARES { d * d } else { *x });
    }
}

/// lanes_i <- the sum of dy_j over the j that are i modulo the period, and lanes_x_i that of dy_j (x_j - mean_i).
#[inline(always)]
fn lane_products<S: Simd>(
    simd: S,
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    lanes: &mut [f64],
    lanes_x: &mut [f64],
) {
    let period = lanes.len();
    let whole = x.len() / period * period;
    lanes.fill(0.0);
    lanes_x.fill(0.0);
    let both = lanes_of::<S>(lanes).zip(lanes_of::<S>(lanes_x)).zip(blocks_of(simd, mean));
    for (((v, lanes), (_, lanes_x)), mean) in both {
        for (dy, x) in dy[..whole].chunks(RUN * period).zip(x[..whole].chunks(RUN * period)) {
            let mut sums = [simd.splat_f32s(0.0); SIDE];
            let mut sums_x = sums;
            for (dy, x) in dy.chunks_exact(period).zip(x.chunks_exact(period)) {
                let (dy, x) = (block(simd, dy, v), block(simd, x, v));
                for i in 0..SIDE {
                    sums[i] = simd.add_f32s(sums[i], dy[i]);
                    sums_x[i] = simd.mul_add_e_f32s(dy[i], simd.sub_f32s(x[i], mean[i]), sums_x[i]);
                }
            }
            add_to(lanes, bytemuck::cast_slice(&sums));
            add_to(lanes_x, bytemuck::cast_slice(&sums_x));
        }
    }
    let tail = dy[whole..].iter().zip(&x[whole..]).zip(mean);
    for (((dy, x), mean), (lane, lane_x)) in tail.zip(lanes.iter_mut().zip(lanes_x)) {
        *lane += f64::from(*dy);
        *lane_x += f64::from(dy * (x - mean));
    }
}

/// The sums of [`SIDE`] vectors together, with the index of the first vector.
#[inline(always)]
fn lanes_of<S: Simd>(lanes: &mut [f64]) -> impl Iterator<Item = (usize, &mut [f64])> {
    lanes.chunks_exact_mut(SIDE * S::F32_LANES).enumerate().map(|(i, l)| (SIDE * i, l))
}

/// Blocks of [`SIDE`] vectors.
#[inline(always)]
fn blocks_of<S: Simd>(_: S, x: &[f32]) -> impl Iterator<Item = &[S::f32s; SIDE]> {
    S::as_simd_f32s(x).0.as_chunks::<SIDE>().0.iter()
}

/// [`SIDE`] vectors starting at vector `v`.
#[inline(always)]
fn block<S: Simd>(_: S, x: &[f32], v: usize) -> [S::f32s; SIDE] {
    let x = &S::as_simd_f32s(x).0[v..v + SIDE];
    std::array::from_fn(
        #[inline(always)]
        |i| x[i],
    )
}

#[inline(always)]
fn add_to(lanes: &mut [f64], sums: &[f32]) {
    for (lane, sum) in lanes.iter_mut().zip(sums) {
        *lane += f64::from(*sum);
    }
}

/// y <- f(slope (x - mean) + level).
#[inline(always)]
fn apply<const SILU: bool, const DROP: bool>(
    x: &[f32],
    y: &mut [f32],
    mean: &[f32],
    slope: &[f32],
    level: &[f32],
    mask: Mask,
) {
    let period = mean.len();
    for (at, (x, y)) in x.chunks(period).zip(y.chunks_mut(period)).enumerate() {
        let place = (at * period) as u32;
        let with = mean.iter().zip(slope).zip(level);
        for (i, ((y, x), ((mean, slope), level))) in y.iter_mut().zip(x).zip(with).enumerate() {
            let u = (x - mean).mul_add(*slope, *level);
            let v = if SILU { u * sigmoid(u) } else { u };
            *y = if DROP { v * mask.at(place.wrapping_add(i as u32)) } else { v };
        }
    }
}

/// du <- dy f'(slope (x - mean) + level).
#[inline(always)]
fn undo<const SILU: bool, const DROP: bool>(
    x: &[f32],
    dy: &[f32],
    du: &mut [f32],
    mean: &[f32],
    slope: &[f32],
    level: &[f32],
    mask: Mask,
) {
    let period = mean.len();
    let chunks = x.chunks(period).zip(dy.chunks(period)).zip(du.chunks_mut(period));
    for (at, ((x, dy), du)) in chunks.enumerate() {
        let place = (at * period) as u32;
        let with = mean.iter().zip(slope).zip(level);
        for (i, (((du, dy), x), ((mean, slope), level))) in du.iter_mut().zip(dy).zip(x).zip(with).enumerate()
        {
            let dy = if DROP { dy * mask.at(place.wrapping_add(i as u32)) } else { *dy };
            *du = if SILU { dy * silu_slope((x - mean).mul_add(*slope, *level)) } else { dy };
        }
    }
}

/// dx <- slope du + tilt (x - mean) + rest, added to its content if `ADD`.
#[inline(always)]
fn pull<const ADD: bool>(
    x: &[f32],
    du: &[f32],
    dx: &mut [f32],
    mean: &[f32],
    slope: &[f32],
    tilt: &[f32],
    rest: &[f32],
) {
    let period = mean.len();
    for ((x, du), dx) in x.chunks(period).zip(du.chunks(period)).zip(dx.chunks_mut(period)) {
        let with = mean.iter().zip(slope).zip(tilt.iter().zip(rest));
        for (((dx, du), x), ((mean, slope), (tilt, rest))) in dx.iter_mut().zip(du).zip(x).zip(with) {
            let d = slope.mul_add(*du, tilt.mul_add(x - mean, *rest));
            *dx = if ADD { *dx + d } else { d };
        }
    }
}
