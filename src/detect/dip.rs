//! Hartigan's dip test of unimodality.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// Number of uniform samples with which a dip is compared.
const DRAWS: usize = 1000;

/// Largest size of those samples; above it the dip is scaled as 1 / sqrt(n).
const LARGEST_DRAW: usize = 1000;

/// The dip of a sample and its p-value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dip {
    /// Largest difference between the empirical distribution function and the nearest unimodal one.
    pub dip: f64,
    /// Fraction of uniform samples of this size, including the sample itself, with a dip at least as large. It is an upper
    /// bound, as the uniform distribution is the least favourable unimodal one.
    pub p: f64,
}

/// Tests finite `values` for more than one mode. Uniform samples come from the streams `dip/i` under `seed`.
///
/// ```
/// use mem2gen::detect::dip_test;
///
/// let one: Vec<f64> = (0..100).map(f64::from).collect();
/// let two: Vec<f64> = one.iter().map(|v| if *v < 50.0 { *v } else { v + 1000.0 }).collect();
/// assert!(dip_test(&one, 1).p > 0.5);
/// assert!(dip_test(&two, 1).p < 0.01);
/// ```
pub fn dip_test(values: &[f64], seed: u64) -> Dip {
    let dip = dip(values);
    let n = values.len();
    let size = n.min(LARGEST_DRAW);
    let scaled = dip * (n as f64 / size.max(1) as f64).sqrt();
    let above = (0..DRAWS)
        .into_par_iter()
        .filter(|i| {
            let mut stream = Stream::new(seed, &format!("dip/{i}"));
            let draw: Vec<f64> = (0..size).map(|_| stream.uniform()).collect();
            self::dip(&draw) >= scaled
        })
        .count();
    Dip { dip, p: (1 + above) as f64 / (1 + DRAWS) as f64 }
}

/// The dip of finite `values` (Hartigan and Hartigan 1985): the largest difference between the empirical distribution
/// function and the nearest unimodal one. 0 for fewer than two different values.
///
/// The algorithm compares the greatest convex minorant with the least concave majorant of the distribution function on a
/// modal interval. While their gap exceeds the misfit outside, the interval shrinks to the place of the gap.
pub fn dip(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    // Distinct values with the distribution function before and after its step there.
    let mut steps: Vec<Step> = Vec::new();
    for (i, &x) in sorted.iter().enumerate() {
        let after = (i + 1) as f64 / n;
        match steps.last_mut() {
            Some(last) if last.x == x => last.after = after,
            _ => steps.push(Step { x, before: i as f64 / n, after }),
        }
    }
    if steps.len() < 2 {
        return 0.0;
    }
    let (mut first, mut last) = (0, steps.len() - 1);
    let mut misfit = 1.0 / n;
    loop {
        let part = &steps[first..=last];
        let below = minorant(part.iter().map(|s| (s.x, s.before)));
        let above = minorant(part.iter().map(|s| (s.x, -s.after)));
        let low = along(part, &below, |s| s.before);
        let high = along(part, &above, |s| s.after);
        let contact = below.iter().chain(&above).map(|&i| (high[i] - low[i], i));
        let (gap, widest) = contact.fold((f64::NEG_INFINITY, 0), |best, next| {
            if next.0 > best.0 || (next.0 == best.0 && next.1 < best.1) { next } else { best }
        });
        if gap <= misfit {
            return 0.5 * misfit;
        }
        let left = below.iter().copied().filter(|&i| i <= widest).max();
        let left = left.expect("the first point is a corner of the minorant");
        let right = above.iter().copied().filter(|&i| i >= widest).min();
        let right = right.expect("the last point is a corner of the majorant");
        for i in 0..left {
            misfit = misfit.max(part[i].after - low[i]);
        }
        for i in right + 1..part.len() {
            misfit = misfit.max(high[i] - part[i].before);
        }
        if left == 0 && right == part.len() - 1 {
            return 0.5 * misfit;
        }
        (first, last) = (first + left, first + right);
    }
}

/// A distinct value, with the distribution function before and after it.
struct Step {
    x: f64,
    before: f64,
    after: f64,
}

/// Corners of the greatest convex function below the points; x ascends.
fn minorant(points: impl Iterator<Item = (f64, f64)>) -> Vec<usize> {
    let mut corners: Vec<(usize, f64, f64)> = Vec::new();
    for (i, (x, y)) in points.enumerate() {
        while let [.., (_, x0, y0), (_, x1, y1)] = corners[..] {
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0) {
                break;
            }
            corners.pop();
        }
        corners.push((i, x, y));
    }
    corners.into_iter().map(|(i, ..)| i).collect()
}

/// Values at every step of the piecewise linear function with these corners.
fn along(part: &[Step], corners: &[usize], height: impl Fn(&Step) -> f64) -> Vec<f64> {
    let mut out = vec![height(&part[0])];
    for pair in corners.windows(2) {
        let (a, b) = (&part[pair[0]], &part[pair[1]]);
        let slope = (height(b) - height(a)) / (b.x - a.x);
        out.extend(part[pair[0] + 1..pair[1]].iter().map(|s| height(a) + slope * (s.x - a.x)));
        out.push(height(b));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SEED;

    /// Values that a formula makes; tests/fixtures/detect/dip_golden.py gives what `diptest` says of them.
    fn waves(n: usize, gap: f64) -> Vec<f64> {
        (0..n).map(|i| (0.7 * i as f64).sin() + gap * ((i * i) % 3) as f64).collect()
    }

    const GOLDEN: [(usize, f64, f64); 8] = [
        (3, 0.0, 0.16666666666666666),
        (10, 0.0, 0.07954379089498236),
        (40, 0.0, 0.07869942509628611),
        (333, 0.0, 0.06431337466041008),
        (40, 1.0, 0.07079916823336987),
        (41, 2.5, 0.07258808041036763),
        (500, 2.2, 0.06040658825835571),
        (1000, 10.0, 0.1336008396563096),
    ];
    const WHOLE: f64 = 0.09278350515463918;

    #[test]
    fn the_dip_is_that_of_the_reference() {
        for (n, gap, expected) in GOLDEN {
            let got = dip(&waves(n, gap));
            assert!((got - expected).abs() < 1e-12, "n {n}, gap {gap}: {got} {expected}");
        }
        let whole: Vec<f64> = (0..97).map(|i| f64::from((i * i) % 11)).collect();
        assert!((dip(&whole) - WHOLE).abs() < 1e-12, "{}", dip(&whole));
    }

    #[test]
    fn few_values_and_equal_ones_have_no_dip() {
        assert_eq!((dip(&[]), dip(&[1.0]), dip(&[2.0, 2.0, 2.0])), (0.0, 0.0, 0.0));
        // The least that n values can have: 1 / (2 n).
        assert_eq!(dip(&[0.0, 1.0]), 0.25);
        assert_eq!(dip_test(&[], 1).p, 1.0);
        assert_eq!(dip_test(&[2.0; 9], 1).p, 1.0);
    }

    #[test]
    fn one_mode_passes_and_two_are_found() {
        let mut s = Stream::new(SEED, "test of modes");
        let mut draw = |n: usize, of: &mut dyn FnMut(&mut Stream) -> f64| -> Vec<f64> {
            (0..n).map(|_| of(&mut s)).collect()
        };
        for n in [60, 300, 3000] {
            let one = [
                draw(n, &mut Stream::normal),
                draw(n, &mut |s| s.normal().exp()),
                draw(n, &mut |s| -(1.0 - s.uniform()).ln()),
                draw(n, &mut Stream::uniform),
            ];
            for values in one {
                assert!(dip_test(&values, SEED).p > 0.01, "n {n}: {:?}", dip_test(&values, SEED));
            }
            let two = draw(n, &mut |s| s.normal() + if s.uniform() < 0.4 { 12.0 } else { 0.0 });
            assert!(dip_test(&two, SEED).p < 0.01, "n {n}: {:?}", dip_test(&two, SEED));
        }
    }

    #[test]
    fn the_test_is_as_strict_as_it_says() {
        // Of the distribution that is hardest.
        let low = (0..60)
            .filter(|i| {
                let mut s = Stream::new(SEED, &format!("strict/{i}"));
                let values: Vec<f64> = (0..100).map(|_| s.uniform()).collect();
                dip_test(&values, SEED).p <= 0.05
            })
            .count();
        // 3 expected with standard deviation 1.7: four of those.
        assert!(low <= 10, "{low}");
    }
}
