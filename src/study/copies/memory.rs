//! What a comparison holds in memory at a time, and how it keeps to a bound.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CopiesError;
use crate::detect::Blocks;
use crate::ops::tile_bytes;
use crate::setting::SettingError;
use crate::store::memory_left;

/// Bytes of the program and its libraries, with their buffers.
const PROGRAM: u64 = 64 << 20;
/// Bytes of the neighbours, the table and the figures, for an image.
const EACH: u64 = 1 << 10;
/// Bound where the system does not say how much memory is left.
const UNKNOWN: u64 = 4 << 30;
/// Fewest rows that are searched, and fewest queries.
const LEAST: Blocks = Blocks { searched: 256, queries: 64 };

/// A number of bytes.
///
/// ```
/// use mem2gen::study::copies::Size;
///
/// let size: Size = "1.5GiB".parse()?;
/// assert_eq!((size.0, size.to_string()), (3 << 29, "1536MiB".into()));
/// assert_eq!("3500MB".parse::<Size>()?.0, 3_500_000_000);
/// # Ok::<(), mem2gen::setting::SettingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let units: [(&str, f64); 10] = [
            ("KiB", 1024.0),
            ("MiB", f64::from(1 << 20)),
            ("GiB", f64::from(1 << 30)),
            ("TiB", 1_099_511_627_776.0),
            ("kB", 1e3),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("TB", 1e12),
            ("B", 1.0),
        ];
        let found = units.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
        let (number, bytes) = found.unwrap_or((text, 1.0));
        match number.trim().parse::<f64>() {
            Ok(number) if number >= 0.0 && number.is_finite() => Ok(Self((number * bytes) as u64)),
            _ => {
                let need = "a number of bytes such as 4GiB, 3500MB or 4000000000";
                Err(SettingError::new("classify", "memory", text, need))
            }
        }
    }
}

impl fmt::Display for Size {
    /// Rounded up, as `FromStr` reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1024 => write!(f, "{}B", self.0),
            1024..0xa0_0000 => write!(f, "{}KiB", self.0.div_ceil(1 << 10)),
            0xa0_0000..0x2_8000_0000 => write!(f, "{}MiB", self.0.div_ceil(1 << 20)),
            bytes => write!(f, "{}GiB", bytes.div_ceil(1 << 30)),
        }
    }
}

/// What is compared, in numbers.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Number of images of each set: D, S and held-out images.
    pub counts: Vec<usize>,
    /// Bytes of the images as they were read.
    pub images: u64,
    /// Values of an image.
    pub values: usize,
    /// For LPIPS, features of an image and bytes of the network.
    pub network: Option<(usize, u64)>,
}

/// What is kept where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rows in memory at a time.
    pub blocks: Blocks,
    /// For LPIPS, whether the features of each set are in memory; else they are in a file.
    pub kept: Vec<bool>,
}

impl Load {
    /// Columns of the rows that are searched.
    fn columns(&self) -> usize {
        self.network.map_or(self.values, |(features, _)| features)
    }

    /// Bytes of the features of as many images.
    pub fn features(&self, images: usize) -> u64 {
        self.network.map_or(0, |(features, _)| 4 * (features as u64).saturating_mul(images as u64))
    }

    /// Bytes that are read from files, about: once to check them, once as queries, and at each search of the set.
    pub fn read(&self, plan: &Plan, transformations: usize) -> u64 {
        let searches = |queries: usize| queries.div_ceil(plan.blocks.queries) as u64;
        let [images, samples] = [self.counts[0], self.counts[1]];
        let moved = self.counts[1..].iter().map(|n| searches(*n)).sum::<u64>() + searches(images.min(2000));
        let of_images = transformations as u64 * moved + searches(samples.min(images));
        let times = [of_images, searches(samples), 0];
        let read = |(set, times): (usize, u64)| {
            let again = if self.counts[set] > plan.blocks.searched { times } else { 1 };
            if plan.kept[set] { 0 } else { (2 + again) * self.features(self.counts[set]) }
        };
        (0..self.counts.len()).zip(times).map(read).sum()
    }

    /// Bytes of blocks. Queries stand twice, as rows and side by side as they are searched, before which the second place is
    /// that of images before they are mirrored or moved. For LPIPS, pixels come to the features.
    fn blocks(&self, blocks: Blocks) -> u64 {
        let row = 4 * self.columns() as u64;
        let pixels = if self.network.is_some() { 8 * self.values as u64 } else { 0 };
        row * blocks.searched as u64 + (2 * row + pixels) * blocks.queries as u64
    }

    /// Bytes of what does not depend on the plan, without the images. The peak of a comparison is
    ///
    /// - the images as they were read, 1 byte a value for bytes and 4 bytes for others,
    /// - the program, and neighbours, tables and figures of each image,
    /// - the tiles of a search, one a thread, and for LPIPS the network with the layers of a batch,
    /// - features that are kept in memory,
    /// - the rows that are searched, in single precision (rows that follow each other in memory are not copied, so that this
    ///   is an upper limit), and the queries.
    fn fixed(&self) -> u64 {
        let count: usize = self.counts.iter().sum();
        PROGRAM
            + EACH * count as u64
            + tile_bytes(self.columns())
            + self.network.map_or(0, |(_, network)| network)
    }

    /// Plans a comparison within a bound of the memory of the program, by default three quarters of what is left.
    pub fn plan(&self, bound: Option<Size>) -> Result<Plan, CopiesError> {
        let left = memory_left();
        // The images are in memory when the bound is found, so that they are no part of what is left.
        let more = match bound {
            Some(Size(bytes)) => bytes.saturating_sub(self.images).min(left.unwrap_or(u64::MAX)),
            None => left.map_or(UNKNOWN.saturating_sub(self.images), |left| left / 4 * 3),
        };
        self.within(more).ok_or_else(|| {
            let given = bound.filter(|bound| bound.0.saturating_sub(self.images) <= more);
            CopiesError::Memory {
                images: self.counts.iter().sum(),
                given,
                allowed: Size(more),
                least: Size(self.least() + given.map_or(0, |_| self.images)),
            }
        })
    }

    /// Fewest bytes beside the images.
    fn least(&self) -> u64 {
        self.fixed() + self.blocks(LEAST)
    }

    /// A plan for so many bytes beside the images; `None` where they are too few.
    fn within(&self, bytes: u64) -> Option<Plan> {
        let room = bytes.checked_sub(self.fixed())?;
        let spare = room.checked_sub(self.blocks(LEAST))?;
        // A quarter is for blocks, so that files are not read too often.
        let mut spare = spare.min(room / 4 * 3);
        let kept: Vec<bool> = self
            .counts
            .iter()
            .map(|&images| {
                let fits = self.features(images) <= spare;
                spare -= if fits { self.features(images) } else { 0 };
                fits
            })
            .collect();
        let held = self.counts.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(n, _)| self.features(*n));
        let room = room - held.sum::<u64>();
        let most = self.counts.iter().copied().max().unwrap_or(1).max(1);
        let whole = Blocks { searched: most, queries: most.min(Blocks::default().queries) };
        if self.blocks(whole) <= room {
            return Some(Plan { blocks: whole, kept });
        }
        let row = self.blocks(Blocks { searched: 1, queries: 0 });
        let query = self.blocks(Blocks { searched: 0, queries: 1 });
        let searched =
            usize::try_from(room / 2 / row).unwrap_or(most).clamp(LEAST.searched, most.max(LEAST.searched));
        let queries = usize::try_from((room - row * searched as u64) / query).unwrap_or(most);
        let queries = queries.clamp(LEAST.queries, whole.queries.max(LEAST.queries));
        let searched = usize::try_from((room - query * queries as u64) / row).unwrap_or(most).min(most);
        Some(Plan { blocks: Blocks { searched: searched.max(1), queries }, kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_units_of_both_kinds() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("17B", 17), ("2 kB", 2000), ("2KiB", 2048), ("0.5MB", 500_000)]
        {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1 GiBs", "nan", "inf", "4G", "1e400"] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.to_string().contains("4GiB"), "{error}");
        }
        // What is printed suffices.
        for bytes in [1023, 1025, (1 << 20) + 1, (10 << 30) - 1, (10 << 30) + 1, 123_456_789_012] {
            let printed = Size(bytes).to_string();
            assert!(printed.parse::<Size>().unwrap().0 >= bytes, "{printed}");
        }
    }

    /// A bound on memory is kept, and 1 byte less than the least is refused.
    #[test]
    fn a_plan_keeps_to_its_bound() {
        let alex = Some((5760, 40 << 20));
        for (counts, values, network) in [
            (&[60_000, 60_000][..], 3072, None),
            (&[60_000, 60_000], 3072, alex),
            (&[500, 300, 100], 3072, Some((124_928, 90 << 20))),
            (&[1, 1], 4, None),
            (&[70_000, 10, 300], 784, None),
        ] {
            let load = Load { counts: counts.to_vec(), images: 1 << 20, values, network };
            let least = load.least();
            assert_eq!(load.within(least - 1), None);
            for more in [0, 1, 1 << 20, 100 << 20, 1 << 30, 3 << 30, 1 << 36] {
                let plan = load.within(least + more).unwrap();
                let kept: u64 =
                    counts.iter().zip(&plan.kept).filter(|(_, k)| **k).map(|(n, _)| load.features(*n)).sum();
                let planned = load.fixed() + kept + load.blocks(plan.blocks);
                assert!(planned <= least + more, "{load:?} {more}: {plan:?} takes {planned}");
                assert!(plan.blocks.searched >= 1 && plan.blocks.queries >= 1);
                assert_eq!(plan.kept.len(), counts.len());
            }
            let all = load.within(1 << 40).unwrap();
            assert_eq!(all.blocks.searched, *counts.iter().max().unwrap());
            assert!(all.kept.iter().all(|kept| *kept));
        }
    }
}
