//! Which pixels meet which weights, worked out once.
//!
//! Padding, strides and doubling are nothing but a list of triples: an output pixel, an input pixel, and a matrix of
//! weights between them. Pixels that have the same matrices are a class; tiles of one class take no part in products
//! with padding.

use crate::shape::Shape;

/// Samples whose pixels share tiles: enough that tiles of small images are full, and the pixels of few classes that
/// have but one a sample.
fn group(pixels: usize) -> usize {
    if pixels == 1 { 24 } else { 384_usize.div_ceil(pixels).clamp(1, 12) }
}

/// Samples whose pixels share a pass over a block of the weights' gradient.
fn batch(pixels: usize) -> usize {
    128_usize.div_ceil(pixels)
}

/// Pixels to be computed with the same matrices, for a group of samples.
pub(super) struct Class {
    /// The matrices, in the order of the sum.
    pub(super) matrices: Vec<u32>,
    /// Pixels of a sample.
    pub(super) pixels: usize,
    /// First number of each pixel, sample by sample, and the sample.
    pub(super) to: Vec<(u32, u32)>,
    /// For each matrix the first numbers of the pixels that are read, `[matrices, to.len()]`.
    pub(super) from: Vec<u32>,
}

/// How pixels are computed: each as a sum of products of other pixels and matrices.
pub(super) struct Gather {
    /// Samples in a group.
    pub(super) group: usize,
    /// Numbers in a sample that is read.
    pub(super) from: usize,
    /// Numbers in a sample that is computed.
    pub(super) to: usize,
    /// What is to be done for a group.
    pub(super) classes: Vec<Class>,
}

impl Gather {
    /// From triples of a pixel computed, a pixel read and a matrix.
    fn new(from: Shape, to: Shape, mut triples: Vec<(usize, usize, usize)>) -> Self {
        triples.sort_unstable();
        let group = group(to.pixels());
        let mut classes: Vec<(Vec<u32>, Vec<usize>, Vec<usize>)> = vec![];
        let mut rest = &triples[..];
        for pixel in 0..to.pixels() {
            let (own, others) = rest.split_at(rest.partition_point(|t| t.0 == pixel));
            rest = others;
            let matrices: Vec<u32> = own.iter().map(|t| t.2 as u32).collect();
            let i = classes.iter().position(|c| c.0 == matrices).unwrap_or_else(|| {
                classes.push((matrices, vec![], vec![]));
                classes.len() - 1
            });
            classes[i].1.push(pixel);
            classes[i].2.extend(own.iter().map(|t| t.1));
        }
        let classes = classes
            .into_iter()
            .map(|(matrices, pixels, sources)| {
                let each = |s: usize| pixels.iter().map(move |p| (s, p));
                Class {
                    to: (0..group)
                        .flat_map(each)
                        .map(|(s, p)| ((s * to.len() + p * to.channels) as u32, s as u32))
                        .collect(),
                    from: (0..matrices.len())
                        .flat_map(|t| (0..group).map(move |s| (t, s)))
                        .flat_map(|(t, s)| {
                            sources.iter().skip(t).step_by(matrices.len()).map(move |q| (s, q))
                        })
                        .map(|(s, q)| (s * from.len() + q * from.channels) as u32)
                        .collect(),
                    pixels: pixels.len(),
                    matrices,
                }
            })
            .collect();
        Self { group, from: from.len(), to: to.len(), classes }
    }
}

/// All of a linear map but its weights.
pub(super) struct Map {
    /// For each matrix the places in the window whose weights it is the sum of. Without doubling these are the
    /// window's own places in order.
    pub(super) matrices: Vec<Vec<usize>>,
    /// The output from the input.
    pub(super) forward: Gather,
    /// The input's gradient from the output's.
    pub(super) backward: Gather,
    /// Samples in `pairs`.
    pub(super) batch: usize,
    /// For each matrix the first numbers of the output and the input pixels that it stands between, or of the input and
    /// the output pixels if it was made `turned`, sample by sample.
    pub(super) pairs: Vec<Vec<(u32, u32)>>,
}

impl Map {
    pub(super) fn new(
        from: Shape,
        to: Shape,
        (side, stride, before): (usize, usize, usize),
        upsample: bool,
        turned: bool,
    ) -> Self {
        let scale = if upsample { 2 } else { 1 };
        let (high, wide) = (scale * from.height, scale * from.width);
        // Rows or columns inside an image of `len` that place `i` of the output reads: input, places in the window.
        let reads = |i: usize, len: usize| {
            let mut reads: Vec<(usize, Vec<usize>)> = vec![];
            for k in 0..side {
                let at = i * stride + k;
                if at < before || at >= before + len {
                    continue;
                }
                // Of a doubled image several places of the window fall on one pixel.
                let q = (at - before) / scale;
                match reads.last_mut() {
                    Some(last) if last.0 == q => last.1.push(k),
                    _ => reads.push((q, vec![k])),
                }
            }
            reads
        };
        let mut matrices: Vec<Vec<usize>> =
            if upsample { vec![] } else { (0..side * side).map(|k| vec![k]).collect() };
        let mut triples = vec![];
        for (i, j) in (0..to.height).flat_map(|i| (0..to.width).map(move |j| (i, j))) {
            for (row, rows) in &reads(i, high) {
                for (column, columns) in &reads(j, wide) {
                    let places: Vec<usize> =
                        rows.iter().flat_map(|a| columns.iter().map(move |b| a * side + b)).collect();
                    let t = matrices.iter().position(|m| *m == places).unwrap_or_else(|| {
                        matrices.push(places);
                        matrices.len() - 1
                    });
                    triples.push((i * to.width + j, row * from.width + column, t));
                }
            }
        }
        let batch = batch(to.pixels());
        // Lists have first numbers in half the memory of usize.
        let most = 12.max(batch) * from.len().max(to.len());
        assert!(u32::try_from(most).is_ok(), "samples of {} and {} numbers", from.len(), to.len());
        let pairs = (0..matrices.len())
            .map(|t| {
                (0..batch)
                    .flat_map(|s| triples.iter().filter(|x| x.2 == t).map(move |x| (s, x)))
                    .map(|(s, &(p, q, _))| {
                        let (p, q) = (p * to.channels, q * from.channels);
                        let (p, q) = ((s * to.len() + p) as u32, (s * from.len() + q) as u32);
                        if turned { (q, p) } else { (p, q) }
                    })
                    .collect()
            })
            .collect();
        let inverse = triples.iter().map(|&(p, q, t)| (q, p, t)).collect();
        Self {
            matrices,
            forward: Gather::new(from, to, triples),
            backward: Gather::new(to, from, inverse),
            batch,
            pairs,
        }
    }
}
