//! Named streams of one counter-based generator.
//!
//! All random draws of the crate come from a [`Stream`]: ChaCha with 8 rounds (`ChaCha8Rng`, a counter-mode cipher whose
//! output is fixed by key and position), keyed by SHA-256("mem2gen stream v1", seed, name). Bounded integers,
//! permutations, uniforms and normals are derived from its 64-bit words by this file and `libm` only, so that every
//! platform and every version of the `rand` crates draws the same values. Golden tests fix them.
//!
//! [`Places`] gives values by position, such as the noise of a training step: Philox, whose blocks can be computed in any
//! order and in parallel.

use std::ops::Range;

use ndarray::{Array2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The seed of the paper's runs, and the default seed of the crate.
pub const SEED: u64 = 3407;

/// One named, seeded stream of random numbers.
///
/// ```
/// use mem2gen::random::{SEED, Stream};
///
/// let mut stream = Stream::new(SEED, "example");
/// let (u, z) = (stream.uniform(), stream.normal());
/// assert!((0.0..1.0).contains(&u) && z.is_finite());
/// // The same seed and name give the same values.
/// let mut again = Stream::new(SEED, "example");
/// assert_eq!((again.uniform(), again.normal()), (u, z));
/// ```
#[derive(Clone)]
pub struct Stream {
    rng: ChaCha8Rng,
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream of this seed and name. Different names have different keys.
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
    ///
    /// # Panics
    /// When n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below: n is 0, expected at least 1");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal by the Box-Muller transform. The second value of each pair is kept for the next call.
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
    ///
    /// ```
    /// use mem2gen::random::Stream;
    ///
    /// let mut order = Stream::new(1, "example").permutation(4);
    /// order.sort();
    /// assert_eq!(order, [0, 1, 2, 3]);
    /// ```
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(i as u64 + 1) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// One stream for each sample, named by the index of the sample, so that the values of a sample do not depend on its
/// batch.
#[derive(Clone)]
pub struct Streams(Vec<Stream>);

impl Streams {
    /// The streams of the samples with these indices: sample i has the stream called `name`/i.
    pub fn new(seed: u64, name: &str, samples: Range<usize>) -> Self {
        Self(samples.into_par_iter().map(|i| Stream::new(seed, &format!("{name}/{i}"))).collect())
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` standard normals of each sample, `[m, n]`.
    pub fn normal(&mut self, n: usize) -> Array2<f64> {
        self.draw(n, Stream::normal)
    }

    /// The next `n` signs, +1 or -1, of each sample, `[m, n]`.
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

/// Random numbers by position: Philox 4x32 with 10 rounds (Salmon et al., 2011), keyed by a seed and a name. A position
/// is a page, such as a training step, and an index on it.
///
/// Normals are in single precision, by the Box-Muller transform from 31 and 32 bits. Logarithm, sine and cosine are short
/// series of sums, products, quotients and square roots, so that the values are the same on every platform and for every
/// vector width. Their absolute value is at most 6.6.
///
/// ```
/// use mem2gen::random::{Places, SEED};
///
/// let places = Places::new(SEED, "example");
/// let (mut few, mut many) = ([0.0; 3], [0.0; 100]);
/// places.normal(7, &mut few);
/// places.normal(7, &mut many);
/// assert_eq!(few, many[..3]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Places {
    key: [u32; 2],
}

/// Blocks that are computed in parallel in one vector.
const LANES: usize = 16;

/// Normals of such a group of blocks, four for each block.
const GROUP: usize = 4 * LANES;

/// The words of a group: four vectors of one word of each block.
type Words = [[u32; LANES]; 4];

impl Places {
    /// The positions of this seed and name.
    pub fn new(seed: u64, name: &str) -> Self {
        let key = Stream::new(seed, name).bits();
        Self { key: [key as u32, (key >> 32) as u32] }
    }

    /// Two words of 64 uniform bits at a position.
    pub fn bits(&self, page: u64, index: u64) -> [u64; 2] {
        let [low, high] = [|v: u64| v as u32, |v: u64| (v >> 32) as u32];
        // Computes a whole group for one block, which is fast enough.
        let words = philox([low(index), high(index), low(page), high(page)].map(|w| [w; LANES]), self.key);
        let pair = |i: usize| u64::from(words[i][0]) | u64::from(words[i + 1][0]) << 32;
        [pair(0), pair(2)]
    }

    /// Fills `out` with the standard normals at the first positions of a page, on all threads.
    pub fn normal(&self, page: u64, out: &mut [f32]) {
        // Few and large tasks: a group takes less time than its scheduling.
        const TASK: usize = 64 * GROUP;
        out.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| {
            let first = (task * (TASK / GROUP)) as u64;
            pulp::Arch::new().dispatch(|| self.groups(page, first, out));
        });
    }

    #[inline(always)]
    fn groups(&self, page: u64, first: u64, out: &mut [f32]) {
        let mut whole = out.chunks_exact_mut(GROUP);
        let mut group = first;
        for out in whole.by_ref() {
            out.copy_from_slice(self.group(page, group).as_flattened());
            group += 1;
        }
        let rest = whole.into_remainder();
        if !rest.is_empty() {
            rest.copy_from_slice(&self.group(page, group).as_flattened()[..rest.len()]);
        }
    }

    #[inline(always)]
    fn group(&self, page: u64, group: u64) -> [[f32; LANES]; 4] {
        let index = group * LANES as u64;
        // `index` is a multiple of the lanes, so that the sum never carries.
        let low: [u32; LANES] = std::array::from_fn(|lane| index as u32 | lane as u32);
        let same = |w: u32| [w; LANES];
        let counter = [low, same((index >> 32) as u32), same(page as u32), same((page >> 32) as u32)];
        let words = philox(counter, self.key);
        let (a, b) = box_muller(&words[0], &words[1]);
        let (c, d) = box_muller(&words[2], &words[3]);
        [a, b, c, d]
    }
}

#[inline(always)]
fn philox(mut counter: Words, mut key: [u32; 2]) -> Words {
    for _ in 0..10 {
        let mut next = [[0; LANES]; 4];
        for lane in 0..LANES {
            let even = u64::from(counter[0][lane]) * 0xd251_1f53;
            let odd = u64::from(counter[2][lane]) * 0xcd9e_8d57;
            next[0][lane] = (odd >> 32) as u32 ^ counter[1][lane] ^ key[0];
            next[1][lane] = odd as u32;
            next[2][lane] = (even >> 32) as u32 ^ counter[3][lane] ^ key[1];
            next[3][lane] = even as u32;
        }
        counter = next;
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// Two normals for each pair of words.
#[inline(always)]
fn box_muller(radius: &[u32; LANES], angle: &[u32; LANES]) -> ([f32; LANES], [f32; LANES]) {
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        // In (0, 1]. One instruction converts signed integers, and small values keep their digits.
        let uniform = ((radius[lane] >> 1) as i32 as f32 + 0.5) * (1.0 / (1u32 << 31) as f32);
        let r = (-2.0 * ln(uniform)).max(0.0).sqrt();
        // Two bits for the quarter, the rest for an angle of at most an eighth of the circle.
        let quarter = angle[lane] >> 30;
        let a = (angle[lane] << 2) as i32 as f32 * (std::f32::consts::FRAC_PI_4 / (1u32 << 31) as f32);
        let s = a * a;
        let sin = a * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s / 362_880.0))));
        let cos =
            1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40_320.0 - s / 3_628_800.0))));
        let odd = quarter & 1 == 1;
        let (c, s) = if odd { (sin, cos) } else { (cos, sin) };
        // Quarters 1 and 2 have negative cosines, 2 and 3 negative sines.
        first[lane] = f32::from_bits((r * c).to_bits() ^ ((quarter ^ quarter << 1) & 2) << 30);
        second[lane] = f32::from_bits((r * s).to_bits() ^ (quarter & 2) << 30);
    }
    (first, second)
}

/// Natural logarithm of a normal positive number.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = 2^e m with m from sqrt(1/2) to sqrt(2), and ln m = 2 atanh((m - 1) / (m + 1)).
    let shifted = x.to_bits().wrapping_add(0x3f80_0000 - std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let e = (shifted >> 23) as i32 - 127;
    let m = f32::from_bits((shifted & 0x007f_ffff) + std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let z = (m - 1.0) / (m + 1.0);
    let s = z * z;
    let series = z * s * (2.0 / 3.0 + s * (2.0 / 5.0 + s * (2.0 / 7.0 + s * (2.0 / 9.0))));
    e as f32 * std::f32::consts::LN_2 + (2.0 * z + series)
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
    fn a_permutation_contains_each_index_once() {
        let mut order = Stream::new(SEED, "permutation").permutation(1000);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &j)| i == j));
    }

    #[test]
    fn the_values_of_a_sample_do_not_depend_on_its_batch() {
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

    #[test]
    fn philox_gives_the_published_words() {
        // The three test vectors of Random123.
        for (counter, key, words) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            let got = philox(counter.map(|w| [w; LANES]), key);
            assert_eq!(got.map(|w| w[LANES - 1]), words);
        }
    }

    #[test]
    fn normals_at_positions_follow_from_their_words() {
        let places = Places::new(SEED, "places");
        let mut drawn = vec![0.0f32; 3 * GROUP];
        places.normal(5, &mut drawn);
        let mut worst = 0.0f64;
        for (i, &z) in drawn.iter().enumerate() {
            let (group, pair, second, lane) = (i / GROUP, i / (2 * LANES) % 2, i / LANES % 2 == 1, i % LANES);
            let bits = places.bits(5, (group * LANES + lane) as u64)[pair];
            let uniform = (f64::from(bits as u32 >> 1) + 0.5) / f64::from(1u32 << 31);
            let within = ((bits >> 32) << 2) as u32 as i32;
            let angle = std::f64::consts::FRAC_PI_2 * (bits >> 62) as f64
                + std::f64::consts::FRAC_PI_4 * f64::from(within) / f64::from(1u32 << 31);
            let wave = if second { angle.sin() } else { angle.cos() };
            worst = worst.max(((-2.0 * uniform.ln()).sqrt() * wave - f64::from(z)).abs());
        }
        // A few roundings of values below 7 in single precision.
        assert!(worst < 2e-6, "{worst}");
    }

    #[test]
    fn values_at_positions_are_golden() {
        let places = Places::new(SEED, "golden");
        assert_eq!(places.bits(7, 3), [0xd231_d354_dd54_9601, 0xc653_eb00_d51d_bcf8]);
        let mut drawn = [0.0; 256];
        places.normal(7, &mut drawn);
        let bits = [0, 17, 33, 200].map(|i: usize| drawn[i].to_bits());
        assert_eq!(bits, [1_040_938_765, 3_214_237_070, 3_227_446_914, 1_048_087_437]);
    }

    #[test]
    fn normals_at_positions_are_normal() {
        let places = Places::new(1, "moments");
        let n = 1 << 20;
        let mut drawn = vec![0.0f32; n];
        places.normal(0, &mut drawn);
        let moment = |p: i32| drawn.iter().map(|&z| f64::from(z).powi(p)).sum::<f64>() / n as f64;
        // Moments of a normal, and the variances of their estimates over n: five standard deviations.
        for (p, mean, variance) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10_170.0)]
        {
            let error = (moment(p) - mean).abs();
            assert!(error < 5.0 * (variance / n as f64).sqrt(), "{p}: {error}");
        }
        for far in [1usize, 16, 64, 196] {
            let product: f64 =
                drawn.iter().zip(&drawn[far..]).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!((product / n as f64).abs() < 5.0 / (n as f64).sqrt(), "{far}");
        }
        // Shares beyond three and four standard deviations: 2.7e-3 and 6.3e-5.
        for (limit, share) in [(3.0f32, 2.699_8e-3), (4.0, 6.334e-5)] {
            let count = drawn.iter().filter(|z| z.abs() > limit).count() as f64;
            let expected = share * n as f64;
            assert!((count - expected).abs() < 5.0 * expected.sqrt(), "{limit}: {count} {expected}");
        }
    }

    #[test]
    fn a_value_depends_on_its_position_only() {
        let places = Places::new(SEED, "batch");
        let mut long = vec![0.0; 10_000];
        places.normal(3, &mut long);
        for n in [1, 15, 64, 65, 4096, 4097, 9999] {
            let mut short = vec![0.0; n];
            places.normal(3, &mut short);
            assert_eq!(short, long[..n]);
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut alone = vec![0.0; 10_000];
        one.install(|| places.normal(3, &mut alone));
        assert_eq!(alone, long);
        let mut other = vec![0.0; 64];
        places.normal(4, &mut other);
        assert_ne!(other, long[..64]);
        Places::new(SEED, "other").normal(3, &mut other);
        assert_ne!(other, long[..64]);
    }
}
