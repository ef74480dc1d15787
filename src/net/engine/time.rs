//! Embeddings of time.

use rayon::prelude::*;

use super::passes::rows_a_task;

/// The sines and then the cosines of 2 pi t w_i.
pub(super) struct Waves {
    /// w.
    pub(super) frequencies: Vec<f64>,
}

impl Waves {
    /// The frequencies of DDPM's embedding with this number of channels.
    pub(super) fn sinusoid(channels: usize, period: f64) -> Self {
        let half = channels / 2;
        let turn = std::f64::consts::TAU;
        let frequency = |i| libm::pow(period, -(i as f64) / (half - 1) as f64) / turn;
        Self { frequencies: (0..half).map(frequency).collect() }
    }

    pub(super) fn forward(&self, t: &[f32], y: &mut [f32]) {
        let half = self.frequencies.len();
        // A sine costs about as much as 12 multiplications.
        let step = rows_a_task(t.len(), 8 * half);
        y[..t.len() * 2 * half].par_chunks_mut(step * 2 * half).zip(t.par_chunks(step)).for_each(|(y, t)| {
            for (y, t) in y.chunks_exact_mut(2 * half).zip(t) {
                let (sines, cosines) = y.split_at_mut(half);
                waves(f64::from(*t), &self.frequencies, sines, cosines);
            }
        });
    }
}

fn waves(t: f64, frequencies: &[f64], sines: &mut [f32], cosines: &mut [f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((w, s), c) in frequencies.iter().zip(sines).zip(cosines) {
                let (sine, cosine) = wave(t * w);
                *s = sine as f32;
                *c = cosine as f32;
            }
        },
    );
}

/// Sine and cosine of an angle in turns, to 1e-11. Angles of at least 2^49 turns, for which f64 has almost no fraction of
/// a turn left, count as 0.
///
/// x = n/4 + g with |g| <= 1/8, and n from the low bits of 4 x + 1.5 2^52; the polynomials are Taylor's of degree 11
/// and 12 in 2 pi g, at most pi/4. Branch-free, so that loops over it vectorise.
#[inline(always)]
fn wave(turns: f64) -> (f64, f64) {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let x = if turns.abs() < 562_949_953_421_312.0 { turns } else { turns * 0.0 };
    let shifted = x.mul_add(4.0, MAGIC);
    let n = shifted - MAGIC;
    let angle = n.mul_add(-0.25, x) * std::f64::consts::TAU;
    let z = angle * angle;
    let mut sine = -1.0 / 39_916_800.0;
    for c in [1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        sine = z.mul_add(sine, c);
    }
    sine *= angle;
    let mut cosine = 1.0 / 479_001_600.0;
    for c in [-1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0] {
        cosine = z.mul_add(cosine, c);
    }
    let quarter = shifted.to_bits();
    let (a, b) = if quarter & 1 == 0 { (sine, cosine) } else { (cosine, sine) };
    let flip = |v: f64, bit: u64| f64::from_bits(v.to_bits() ^ ((bit & 1) << 63));
    (flip(a, quarter >> 1), flip(b, (quarter >> 1) ^ quarter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_agree_with_the_standard_library() {
        for i in -40_000..40_000 {
            let turns = f64::from(i) * 0.003_217;
            let (s, c) = wave(turns);
            let angle = (turns - turns.round()) * std::f64::consts::TAU;
            assert!((s - angle.sin()).abs() < 1e-11 && (c - angle.cos()).abs() < 1e-11, "{turns}: {s}, {c}");
        }
        assert_eq!(wave(1e300), (0.0, 1.0));
        assert!(wave(f64::NAN).0.is_nan() && wave(f64::INFINITY).1.is_nan());
    }
}
