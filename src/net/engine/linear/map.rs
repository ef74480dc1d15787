//! The pairs of pixels and weights of a linear map, computed once.
//!
//! A list of triples describes padding, strides and upsampling: an output pixel, an input pixel, and the matrix of weights
//! between them. Pixels with the same matrices are a class, and tiles of one class skip products with padding.

use crate::shape::Shape;

/// Samples whose pixels share tiles: enough to fill the tiles of small images, and of classes with one pixel per sample.
fn group(pixels: usize) -> usize {
    if pixels == 1 { 24 } else { 384_usize.div_ceil(pixels).clamp(1, 12) }
}

/// Samples whose pixels share a pass over a block of the weight gradient.
fn batch(pixels: usize) -> usize {
    128_usize.div_ceil(pixels)
}

/// Pixels that are computed with the same matrices, for a group of samples.
pub(super) struct Class {
    /// The matrices, in the order of the sum.
    pub(super) matrices: Vec<u32>,
    /// Number of pixels per sample.
    pub(super) pixels: usize,
    /// Index of each pixel's first element, sample by sample, and the sample.
    pub(super) to: Vec<(u32, u32)>,
    /// For each matrix the indices of the first elements of the pixels that are read, `[matrices, to.len()]`.
    pub(super) from: Vec<u32>,
}

/// The computation of pixels, each as a sum of products of other pixels and matrices.
pub(super) struct Gather {
    /// Samples per group.
    pub(super) group: usize,
    /// Elements of an input sample.
    pub(super) from: usize,
    /// Elements of an output sample.
    pub(super) to: usize,
    /// The classes of pixels of a group.
    pub(super) classes: Vec<Class>,
}

impl Gather {
    /// From triples of output pixel, input pixel and matrix.
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

/// A linear map without its weights.
pub(super) struct Map {
    /// For each matrix the positions in the window whose weights it sums. Without upsampling these are the window's
    /// positions in order.
    pub(super) matrices: Vec<Vec<usize>>,
    /// From the input to the output.
    pub(super) forward: Gather,
    /// From the gradient of the output to that of the input.
    pub(super) backward: Gather,
    /// Samples in `pairs`.
    pub(super) batch: usize,
    /// For each matrix the pairs of output and input pixels that it connects (input and output if `transposed`), as indices
    /// of their first elements, sample by sample.
    pub(super) pairs: Vec<Vec<(u32, u32)>>,
}

impl Map {
    pub(super) fn new(
        from: Shape,
        to: Shape,
        (side, stride, before): (usize, usize, usize),
        upsample: bool,
        transposed: bool,
    ) -> Self {
        let scale = if upsample { 2 } else { 1 };
        let (high, wide) = (scale * from.height, scale * from.width);
        // Rows or columns of an image of `len` that position `i` of the output reads: input, positions in the window.
        let reads = |i: usize, len: usize| {
            let mut reads: Vec<(usize, Vec<usize>)> = vec![];
            for k in 0..side {
                let at = i * stride + k;
                if at < before || at >= before + len {
                    continue;
                }
                // In an upsampled image several positions of the window fall on one pixel.
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
        // Indices are u32, which takes half the memory of usize.
        let most = 12.max(batch) * from.len().max(to.len());
        assert!(
            u32::try_from(most).is_ok(),
            "samples of {} and {} elements are too large for indices of 32 bits",
            from.len(),
            to.len()
        );
        let pairs = (0..matrices.len())
            .map(|t| {
                (0..batch)
                    .flat_map(|s| triples.iter().filter(|x| x.2 == t).map(move |x| (s, x)))
                    .map(|(s, &(p, q, _))| {
                        let (p, q) = (p * to.channels, q * from.channels);
                        let (p, q) = ((s * to.len() + p) as u32, (s * from.len() + q) as u32);
                        if transposed { (q, p) } else { (p, q) }
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
