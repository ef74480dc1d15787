use ndarray::{ArcArray2, Array2, ArrayView2};

use super::cuda::Resident;
use super::knn::{self, Knn};
use super::lanes::Lanes;
use super::pairwise::{self, PairTile};
use super::placed::{Nowhere, Placed};
use super::readout::{self, Betas, Readout, Want};
use super::{Memories, OpError};

/// Partial sums of a reduction, which let the compiler use vectors. The number is fixed, so that the sums are the same
/// on every instruction set.
const LANES: usize = 16;

/// f32 or f64. Sealed. The fused operations are compiled once in this crate, so that a caller built without
/// optimisation (a notebook cell) runs the same machine code.
pub trait Element:
    Lanes + Copy + Send + Sync + PartialOrd + std::fmt::Debug + 'static + sealed::Sealed
{
    /// Half a unit in the last place of 1.
    const ROUNDING: f64;
    /// Error that a logit may carry into its share of the softmax weights.
    const TOLERANCE: f64;
    /// Zero.
    const ZERO: Self;
    /// Minus infinity.
    const LOWEST: Self;
    /// Memories of this precision on a device.
    #[doc(hidden)]
    type Resident: Placed<Self>;

    /// The value in f64.
    fn f64(self) -> f64;
    /// `x` rounded to this precision.
    fn from_f64(x: f64) -> Self;

    /// ||x - y||^2 in f64, from the values as given.
    #[doc(hidden)]
    fn distance2(x: &[Self], y: &[Self]) -> f64;
    /// sum_k += weight (y_k - x_k), in f64.
    #[doc(hidden)]
    fn add_shift(sum: &mut [f64], weight: f64, y: &[Self], x: &[Self]);
    /// out <- row - centre.
    #[doc(hidden)]
    fn centred(out: &mut [Self], row: &[Self], centre: &[Self]);

    #[doc(hidden)]
    fn prepare(rows: ArcArray2<Self>) -> Result<Memories<Self>, OpError>;
    #[doc(hidden)]
    fn readout(
        memories: &Memories<Self>,
        queries: ArrayView2<'_, Self>,
        betas: Betas<'_>,
        want: Want,
    ) -> Result<Readout<Self>, OpError>;
    #[doc(hidden)]
    fn knn(
        memories: &Memories<Self>,
        queries: ArrayView2<'_, Self>,
        k: usize,
        exclude_self: bool,
    ) -> Result<Knn, OpError>;
    #[doc(hidden)]
    fn pairwise(
        memories: &Memories<Self>,
        queries: ArrayView2<'_, Self>,
        tile: impl FnMut(PairTile<'_, Self>),
    ) -> Result<(), OpError>;
    /// Divides each of as many even parts of an array in standard layout as `by` has values by its value.
    #[doc(hidden)]
    fn divide(a: &mut Array2<Self>, by: &[f64]);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// e^x for x <= 0 to 2 units in the last place, 0 below -87, NaN for NaN. Branch-free, so that loops over it
/// vectorise.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; n comes from the low bits of x log2(e) + 1.5 2^23, ln 2 is
/// subtracted in two parts, and e^r is its Taylor polynomial of degree 7 (error under 2^-27).
#[inline(always)]
pub(crate) fn exp32(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let y = if x < -87.0 { -87.0 } else { x };
    let t = y.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = n.mul_add(-0.693_359_4, y);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    let scale = f32::from_bits((t.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { p * scale }
}

/// e^x for x <= 0 to 2 units in the last place, 0 below -708. As [`exp32`], of degree 13.
#[inline(always)]
pub(super) fn exp64(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let y = x.max(-708.0);
    let t = y.mul_add(std::f64::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = n.mul_add(-0.693_147_180_369_123_8, y);
    let r = n.mul_add(-1.908_214_929_270_587_7e-10, r);
    let mut p = 1.0 / 6_227_020_800.0;
    for c in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = r.mul_add(p, c);
    }
    let scale = f64::from_bits((t.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    if x < -708.0 { 0.0 } else { p * scale }
}

macro_rules! element {
    ($t:ty, $tolerance:expr, $resident:ty) => {
        impl Element for $t {
            const ROUNDING: f64 = <$t>::EPSILON as f64 / 2.0;
            const TOLERANCE: f64 = $tolerance;
            const ZERO: Self = 0.0;
            const LOWEST: Self = <$t>::NEG_INFINITY;
            type Resident = $resident;

            #[inline(always)]
            fn f64(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }

            fn distance2(x: &[Self], y: &[Self]) -> f64 {
                // Not a closure: a closure of this size is not inlined and so not compiled for vectors.
                struct Op<'a>(&'a [$t], &'a [$t]);
                impl pulp::WithSimd for Op<'_> {
                    type Output = f64;
                    #[inline(always)]
                    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
                        let mut sums = [0.0f64; LANES];
                        let (xs, ys) = (self.0.chunks_exact(LANES), self.1.chunks_exact(LANES));
                        for (i, (x, y)) in xs.remainder().iter().zip(ys.remainder()).enumerate() {
                            let d = f64::from(*x) - f64::from(*y);
                            sums[i] += d * d;
                        }
                        for (x, y) in xs.zip(ys) {
                            for i in 0..LANES {
                                let d = f64::from(x[i]) - f64::from(y[i]);
                                sums[i] = d.mul_add(d, sums[i]);
                            }
                        }
                        sums.into_iter().sum()
                    }
                }
                pulp::Arch::new().dispatch(Op(x, y))
            }

            fn add_shift(sum: &mut [f64], weight: f64, y: &[Self], x: &[Self]) {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for ((s, y), x) in sum.iter_mut().zip(y).zip(x) {
                            *s = weight.mul_add(f64::from(*y) - f64::from(*x), *s);
                        }
                    },
                );
            }

            fn centred(out: &mut [Self], row: &[Self], centre: &[Self]) {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for ((o, v), c) in out.iter_mut().zip(row).zip(centre) {
                            *o = v - c;
                        }
                    },
                );
            }

            fn prepare(rows: ArcArray2<Self>) -> Result<Memories<Self>, OpError> {
                readout::prepare(rows)
            }

            fn readout(
                memories: &Memories<Self>,
                queries: ArrayView2<'_, Self>,
                betas: Betas<'_>,
                want: Want,
            ) -> Result<Readout<Self>, OpError> {
                readout::readout(memories, queries, betas, want)
            }

            fn knn(
                memories: &Memories<Self>,
                queries: ArrayView2<'_, Self>,
                k: usize,
                exclude_self: bool,
            ) -> Result<Knn, OpError> {
                knn::knn("knn", memories, queries, k, exclude_self)
            }

            fn pairwise(
                memories: &Memories<Self>,
                queries: ArrayView2<'_, Self>,
                tile: impl FnMut(PairTile<'_, Self>),
            ) -> Result<(), OpError> {
                pairwise::pairwise(memories, queries, tile)
            }

            fn divide(a: &mut Array2<Self>, by: &[f64]) {
                let part = (a.len() / by.len().max(1)).max(1);
                let values = a.as_slice_mut().expect("the array is in standard layout");
                for (part, by) in values.chunks_exact_mut(part).zip(by) {
                    part.iter_mut().for_each(|v| *v = (*v as f64 / by) as $t);
                }
            }
        }
    };
}

element!(f32, 1e-6, Resident);
element!(f64, 1e-13, Nowhere);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_agree_with_the_standard_library() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_7;
            let (ours, exact) = (exp64(x), x.exp());
            if x > -708.0 {
                assert!((ours - exact).abs() <= 4.0 * f64::EPSILON * exact, "exp({x}) = {exact}, not {ours}");
            } else {
                assert_eq!(ours, 0.0, "exp({x})");
            }
            let x = x as f32;
            let (ours, exact) = (f64::from(exp32(x)), f64::from(x).exp());
            if x > -87.0 {
                assert!(
                    (ours - exact).abs() <= 4.0 * f64::from(f32::EPSILON) * exact,
                    "exp({x}) = {exact}, not {ours}"
                );
            }
        }
        assert_eq!((exp32(0.0), exp64(0.0)), (1.0, 1.0));
        assert!(exp32(f32::NAN).is_nan());
        assert_eq!((exp32(f32::NEG_INFINITY), exp64(f64::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!((exp32(-1e30), exp64(-1e300)), (0.0, 0.0));
    }

    #[test]
    fn reductions_are_right_at_every_length() {
        for n in 1..70usize {
            let x: Vec<f64> = (0..n).map(|i| (i as f64 * 0.7).sin()).collect();
            let y: Vec<f64> = (0..n).map(|i| (i as f64 * 0.3).cos()).collect();
            let d2: f64 = x.iter().zip(&y).map(|(a, b)| (a - b) * (a - b)).sum();
            assert!((f64::distance2(&x, &y) - d2).abs() < 1e-12);
        }
    }
}
