//! Named streams of one counter-based generator.
//!
//! Everything random in the crate takes a [`Stream`]. A stream is ChaCha with 8 rounds (`ChaCha8Rng`,
//! a counter-mode cipher whose output is fixed by its key and its position), keyed by
//! SHA-256("mem2gen stream v1", seed, name). Bounded integers, permutations, uniforms and normals are
//! derived from its 64-bit words by the code in this file and `libm` alone, so that every platform
//! and every version of the `rand` crates draws the same numbers; golden tests hold them fast.

use std::ops::Range;

use ndarray::{Array2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The seed of the paper's own runs, and the default everywhere.
pub const SEED: u64 = 3407;

/// One named, seeded stream of random numbers.
#[derive(Clone)]
pub struct Stream {
    rng: ChaCha8Rng,
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream called `name` under `seed`. Two names never share a key.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mem2gen stream v1\0");
        hash.update(seed.to_le_bytes());
        hash.update(name.as_bytes());
        Self { rng: ChaCha8Rng::from_seed(hash.finalize().into()), spare_normal: None }
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n` without bias, by rejection of the top of a 128-bit product (Lemire).
    /// `n = 0` gives 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal by Box and Muller, the second of each pair kept for the next call.
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare_normal = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Fisher-Yates permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(i as u64 + 1) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// One stream for each sample, named by the sample's index, so that a sample's numbers do not depend on
/// the batch that it is drawn in.
#[derive(Clone)]
pub struct Streams(Vec<Stream>);

impl Streams {
    /// The streams of the samples with these indices: sample i has the one called `name`/i under `seed`.
    pub fn new(seed: u64, name: &str, samples: Range<usize>) -> Self {
        Self(samples.into_par_iter().map(|i| Stream::new(seed, &format!("{name}/{i}"))).collect())
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` standard normals of every sample, `[m, n]`.
    pub fn normal(&mut self, n: usize) -> Array2<f64> {
        self.draw(n, Stream::normal)
    }

    /// The next `n` signs, +1 or -1, of every sample, `[m, n]`.
    pub fn sign(&mut self, n: usize) -> Array2<f64> {
        self.draw(n, |s| if s.bits() >> 63 == 0 { 1.0 } else { -1.0 })
    }

    fn draw(&mut self, n: usize, next: impl Fn(&mut Stream) -> f64 + Sync) -> Array2<f64> {
        let mut out = Array2::zeros((self.0.len(), n));
        out.axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(&mut self.0)
            .for_each(|(mut row, stream)| row.iter_mut().for_each(|v| *v = next(stream)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_by_seed_and_name() {
        let draw = |seed, name| {
            let mut s = Stream::new(seed, name);
            [s.bits(), s.bits(), s.bits()]
        };
        assert_eq!(draw(SEED, "a"), draw(SEED, "a"));
        assert_ne!(draw(SEED, "a"), draw(SEED, "b"));
        assert_ne!(draw(SEED, "a"), draw(1, "a"));
    }

    #[test]
    fn bounded_integers_cover_their_range_evenly() {
        let mut s = Stream::new(1, "below");
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[s.below(7) as usize] += 1;
        }
        // 10000 expected each with standard deviation 93: five of those either side.
        assert!(counts.iter().all(|&c| (9_530..10_470).contains(&c)), "{counts:?}");
    }

    #[test]
    fn normals_have_unit_variance() {
        let mut s = Stream::new(1, "normal");
        let n = 100_000;
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let z = s.normal();
            sum += z;
            square += z * z;
        }
        assert!((sum / n as f64).abs() < 5.0 / (n as f64).sqrt());
        assert!((square / n as f64 - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
    }

    #[test]
    fn a_permutation_holds_each_index_once() {
        let mut order = Stream::new(SEED, "permutation").permutation(1000);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &j)| i == j));
    }

    #[test]
    fn the_numbers_of_a_sample_do_not_depend_on_its_batch() {
        let mut all = Streams::new(SEED, "batch", 0..7);
        let mut some = Streams::new(SEED, "batch", 4..6);
        let (a, b) = (all.normal(3), some.normal(3));
        assert_eq!(a.slice(ndarray::s![4..6, ..]), b);
        assert_eq!(all.sign(70).slice(ndarray::s![4..6, ..]), some.sign(70));
        assert_ne!(a.row(0), a.row(1));
        let signs = all.sign(1000);
        assert!(signs.iter().all(|s| s.abs() == 1.0));
        // 7000 signs have a standard deviation of 84 about 0: five of those.
        assert!(signs.sum().abs() < 420.0);
    }
}
