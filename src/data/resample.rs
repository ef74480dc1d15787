//! Resizing that is bit-identical to Pillow 11, with which ADM crops. (Pillow 13 starts with the vertical pass for tall
//! images, so its rounding differs.)
//!
//! The filter is separable, with the horizontal pass first, and is stretched when an image shrinks. Weights are fixed point
//! with 22 fractional bits, and each pass rounds to bytes.

/// The filters of the centre crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Mean over the source pixels that a target pixel covers.
    Box,
    /// Keys' cubic with a = -1/2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
        }
    }
}

/// Fractional bits of a weight.
const BITS: u32 = 22;

/// For each target position, the first source position and the weights from it on.
fn weights(source: usize, target: usize, filter: Filter) -> Vec<(usize, Vec<i64>)> {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..target)
        .map(|position| {
            let centre = (position as f64 + 0.5) * scale;
            // Casts truncate towards zero and saturate, as Pillow's.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(source);
            let raw: Vec<f64> =
                (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = raw
                .iter()
                .map(|w| {
                    let scaled = if sum == 0.0 { *w } else { w / sum } * f64::from(1u32 << BITS);
                    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i64
                })
                .collect();
            (first, fixed)
        })
        .collect()
}

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Resizes an RGB image from `from` = (width, height) to `to`; all sides must be above zero.
pub fn resize(rgb: &[u8], from: (usize, usize), to: (usize, usize), filter: Filter) -> Vec<u8> {
    let across = if from.0 == to.0 { rgb.to_vec() } else { horizontal(rgb, from, to.0, filter) };
    if from.1 == to.1 { across } else { vertical(&across, to.0, from.1, to.1, filter) }
}

fn horizontal(rgb: &[u8], (width, height): (usize, usize), target: usize, filter: Filter) -> Vec<u8> {
    let table = weights(width, target, filter);
    let mut out = Vec::with_capacity(3 * target * height);
    for row in rgb.chunks_exact(3 * width) {
        for (first, weights) in &table {
            for channel in 0..3 {
                let values = row[3 * first + channel..].iter().step_by(3);
                out.push(rounded(values.zip(weights).map(|(&v, &w)| i64::from(v) * w).sum()));
            }
        }
    }
    out
}

fn vertical(rgb: &[u8], width: usize, height: usize, target: usize, filter: Filter) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * width * target);
    for (first, weights) in weights(height, target, filter) {
        for x in 0..3 * width {
            let values = rgb[3 * width * first + x..].iter().step_by(3 * width);
            out.push(rounded(values.zip(&weights).map(|(&v, &w)| i64::from(v) * w).sum()));
        }
    }
    out
}
