//! Which numbers dropout leaves out, as a function of where they stand, so that nothing has to be kept for backward.

use crate::net::NodeId;

/// Dropout of one pass: a number is left out or not by the key, its node, its row and its place in the row, and by
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropout {
    /// Another key is another choice.
    pub key: u64,
}

impl Dropout {
    /// What the numbers of one row of a node are multiplied by: nought for a share of `rate` of them, and
    /// 1 / (1 - rate) for the others.
    pub fn factors(self, node: NodeId, rate: f64, row: usize, out: &mut [f32]) {
        let mask = self.mask(node.0, rate, row);
        for (i, f) in out.iter_mut().enumerate() {
            *f = mask.at(i as u32);
        }
    }

    pub(super) fn mask(self, node: usize, rate: f64, row: usize) -> Mask {
        let bits = mix64(mix64(mix64(self.key) ^ node as u64) ^ row as u64);
        Mask {
            low: bits as u32,
            high: (bits >> 32) as u32,
            // Share of dropped numbers to 2^-32.
            least: (rate * 4_294_967_296.0).round() as u32,
            scale: (1.0 / (1.0 - rate)) as f32,
        }
    }
}

/// The choice for one row.
#[derive(Clone, Copy, Default)]
pub(super) struct Mask {
    low: u32,
    high: u32,
    least: u32,
    scale: f32,
}

impl Mask {
    /// What the number at this place is multiplied by.
    #[inline(always)]
    pub(super) fn at(self, place: u32) -> f32 {
        // Multiplications by odd numbers and shifts, both of which can be undone, with half of the key before each
        // round: 32 uniform bits of 96.
        let mut x = place.wrapping_mul(0x9e37_79b1) ^ self.low;
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_add(self.high).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        if x >= self.least { self.scale } else { 0.0 }
    }
}

/// A bijection of 64 bits whose every output bit depends on every input bit (the finalizer of SplitMix64).
fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
