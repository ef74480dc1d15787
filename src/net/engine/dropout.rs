//! Dropout masks as a function of position, so that nothing has to be kept for the backward pass.

use crate::net::NodeId;

/// Dropout of one pass. Whether an element is set to zero depends on the key, the node, the row and the position in the
/// row alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropout {
    /// Seed of the masks.
    pub key: u64,
}

impl Dropout {
    /// Factors for the elements of one row of a node: zero with probability `rate`, else 1 / (1 - rate).
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
            // The probability, to 2^-32.
            least: (rate * 4_294_967_296.0).round() as u32,
            scale: (1.0 / (1.0 - rate)) as f32,
        }
    }
}

/// The mask of one row.
#[derive(Clone, Copy, Default)]
pub(super) struct Mask {
    low: u32,
    high: u32,
    least: u32,
    scale: f32,
}

impl Mask {
    /// Factor of the element at this position.
    #[inline(always)]
    pub(super) fn at(self, place: u32) -> f32 {
        // Two rounds of shifts and multiplications by odd numbers, which are invertible, each with half of the key.
        let mut x = place ^ self.low;
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_add(self.high).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        if x >= self.least { self.scale } else { 0.0 }
    }
}

/// A bijection of 64 bits in which each output bit depends on every input bit: the finalizer of SplitMix64.
fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
