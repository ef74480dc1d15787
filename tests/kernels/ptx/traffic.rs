//! Memory traffic of the lanes of a warp together: passes over the banks of shared memory, and sectors of global memory.
//! Lanes run one after the other, so their n-th executions of an instruction count as one access.

use std::collections::{BTreeMap, BTreeSet, HashMap};

const BANKS: u64 = 32;
const SECTOR: u64 = 32;

/// Passes or sectors that were needed, and the least possible number for the same bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Need {
    pub moved: u64,
    pub least: u64,
}

impl Need {
    /// Ratio of the two, 1 at best; also 1 without traffic.
    pub fn excess(&self) -> f64 {
        if self.least == 0 { 1.0 } else { self.moved as f64 / self.least as f64 }
    }

    pub fn add(&mut self, other: Self) {
        self.moved += other.moved;
        self.least += other.least;
    }
}

/// Needs of a kernel in shared and in global memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    pub shared: Need,
    pub global: Need,
}

/// Accesses of one warp since its lanes last came together.
#[derive(Default)]
pub struct Log {
    times: HashMap<(u32, u32), u32>,
    /// Bytes a lane, and each lane's address, by instruction and how often it was come to.
    accesses: BTreeMap<(u32, u32), (bool, u64, Vec<u64>)>,
    pub traffic: Traffic,
}

impl Log {
    pub fn note(&mut self, inst: usize, lane: usize, shared: bool, address: u64, bytes: usize) {
        let time = self.times.entry((inst as u32, lane as u32)).or_default();
        *time += 1;
        let access = self.accesses.entry((inst as u32, *time));
        access.or_insert((shared, bytes as u64, Vec::new())).2.push(address);
    }

    /// Counts the accesses when the lanes meet.
    pub fn close(&mut self) {
        self.times.clear();
        for (shared, bytes, addresses) in std::mem::take(&mut self.accesses).into_values() {
            match shared {
                true => self.traffic.shared.add(passes(bytes, &addresses)),
                false => self.traffic.global.add(sectors(bytes, &addresses)),
            }
        }
    }
}

/// 32 lanes go at once with 4 bytes each, 16 with 8, 8 with 16; a bank gives one word a pass, to any number of them.
fn passes(bytes: u64, addresses: &[u64]) -> Need {
    let mut need = Need::default();
    for lanes in addresses.chunks((4 * BANKS / bytes.max(4)) as usize) {
        let words: BTreeSet<u64> = lanes.iter().flat_map(|a| a / 4..(a + bytes).div_ceil(4)).collect();
        let mut banks = [0; BANKS as usize];
        for word in words {
            banks[(word % BANKS) as usize] += 1;
        }
        need.add(Need { moved: banks.iter().copied().max().unwrap_or(0), least: 1 });
    }
    need
}

fn sectors(bytes: u64, addresses: &[u64]) -> Need {
    let distinct: BTreeSet<u64> = addresses.iter().copied().collect();
    let touched: BTreeSet<u64> =
        distinct.iter().flat_map(|a| a / SECTOR..(a + bytes).div_ceil(SECTOR)).collect();
    Need { moved: touched.len() as u64, least: (distinct.len() as u64 * bytes).div_ceil(SECTOR) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(shared: bool, bytes: usize, address: impl Fn(u64) -> u64) -> f64 {
        let mut log = Log::default();
        for lane in 0..32 {
            log.note(0, lane, shared, address(lane as u64), bytes);
        }
        log.close();
        if shared { log.traffic.shared.excess() } else { log.traffic.global.excess() }
    }

    #[test]
    fn banks_and_sectors_are_counted_as_the_hardware_has_them() {
        assert_eq!(excess(true, 4, |lane| 4 * lane), 1.0);
        assert_eq!(excess(true, 4, |_| 64), 1.0);
        assert_eq!(excess(true, 4, |lane| 8 * lane), 2.0);
        assert_eq!(excess(true, 4, |lane| 128 * lane), 32.0);
        assert_eq!(excess(true, 4, |lane| 132 * lane), 1.0);
        assert_eq!(excess(true, 16, |lane| 16 * lane), 1.0);
        assert_eq!(excess(true, 16, |lane| 128 * lane), 8.0);
        assert_eq!(excess(false, 4, |lane| 4 * lane), 1.0);
        assert_eq!(excess(false, 4, |lane| 16 + 4 * lane), 1.25);
        assert_eq!(excess(false, 4, |lane| 32 * lane), 8.0);
    }
}
