//! Rows from memory or from elsewhere, and the search among them in chunks.

use ndarray::{ArcArray2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::{DetectError, Sets};
use crate::data::image_set::selected;
use crate::device::{Device, DeviceChoice};
use crate::ops::{Memories, OpError};
use crate::progress::ProgressSink;

/// Norm above which the squared distance of two rows may overflow in single precision.
const LARGEST_NORM: f64 = 1e18;

/// A set to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Training images.
    Train,
    /// Samples.
    Synthetic,
    /// Held-out images.
    HeldOut,
}

impl Part {
    const ALL: [Self; 3] = [Self::Train, Self::Synthetic, Self::HeldOut];

    fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Synthetic => "synthetic",
            Self::HeldOut => "held-out",
        }
    }
}

/// Gives the rows of the sets to compare, some at a time: from memory ([`Sets`]), converted or from a file.
pub trait Source {
    /// Why rows can't be given.
    type Error: From<DetectError>;

    /// Rows and columns of a set; `None` for held-out images that are not given.
    fn dim(&self, part: Part) -> Option<[usize; 2]>;

    /// Rows of a set, `[rows, columns]`, under a transformation from 0, which is none, to [`Source::transformations`] - 1.
    ///
    /// # Errors
    /// Where the rows come from a file, those of reading it.
    fn rows(&self, part: Part, transformation: usize, rows: &[usize]) -> Result<ArcArray2<f32>, Self::Error>;

    /// Number of transformations under which queries are compared, with none of them counted as one.
    fn transformations(&self) -> usize {
        1
    }

    /// Whether the distance is the squared l2 distance of the rows, as for LPIPS, instead of the l2 distance.
    fn squared(&self) -> bool;
}

impl Source for Sets {
    type Error = DetectError;

    fn dim(&self, part: Part) -> Option<[usize; 2]> {
        let (rows, columns) = self.set(part)?.dim();
        Some([rows, columns])
    }

    /// Neighbouring rows are shared, others copied.
    fn rows(&self, part: Part, _: usize, rows: &[usize]) -> Result<ArcArray2<f32>, DetectError> {
        let Some(set) = self.set(part) else {
            return Err(DetectError::Empty { set: part.name(), shape: [0, 0] });
        };
        Ok(selected(set, rows))
    }

    fn squared(&self) -> bool {
        self.squared
    }
}

impl Sets {
    fn set(&self, part: Part) -> Option<&ArcArray2<f32>> {
        match part {
            Part::Train => Some(&self.train),
            Part::Synthetic => Some(&self.synthetic),
            Part::HeldOut => self.held_out.as_ref(),
        }
    }
}

/// The distance for an l2 distance of rows.
pub(super) fn power(squared: bool, d: f64) -> f64 {
    if squared { d * d } else { d }
}

/// Numbers of rows that are in memory at a time, each at least 1. No result depends on them.
///
/// The search holds `searched` rows of one set and `queries` rows twice, as they are given and as they are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Rows of the set that is searched; the set is searched once for each block of queries.
    pub searched: usize,
    /// Queries, after which progress is reported.
    pub queries: usize,
}

impl Default for Blocks {
    /// A whole set, and 4096 queries.
    fn default() -> Self {
        Self { searched: usize::MAX, queries: 4096 }
    }
}

/// What is known of the sets after one pass over each.
pub(super) struct Checked {
    /// Whether each sample is finite and small enough for finite squared distances.
    pub fine: Vec<bool>,
    /// Root mean square l2 distance between two training images, as [`Moments::scale`].
    pub scale: f64,
}

/// Refuses sets that are empty or of different lengths, and real images that are not finite.
pub(super) fn check<S: Source>(source: &S, blocks: Blocks) -> Result<Checked, S::Error> {
    let mut columns = None;
    for part in Part::ALL {
        let Some([m, n]) = source.dim(part) else { continue };
        let (set, expected) = (part.name(), *columns.get_or_insert(n));
        if m == 0 || n == 0 {
            return Err(DetectError::Empty { set, shape: [m, n] }.into());
        }
        if n != expected {
            return Err(DetectError::Columns { set, found: n, expected }.into());
        }
    }
    let mut moments = Moments::new(columns.unwrap_or(0));
    let mut samples = Vec::new();
    for part in Part::ALL {
        let all: Vec<usize> = (0..source.dim(part).map_or(0, |[m, _]| m)).collect();
        for block in all.chunks(blocks.queries) {
            let rows = source.rows(part, 0, block)?;
            let fine = valid(rows.view());
            match fine.iter().position(|fine| !fine) {
                _ if part == Part::Synthetic => samples.extend(fine),
                Some(row) => {
                    let value = rows.row(row).iter().copied().fold(0.0, worse);
                    return Err(DetectError::Row { set: part.name(), row: block[row], value }.into());
                }
                None if part == Part::Train => moments.add(rows.view()),
                None => {}
            }
        }
    }
    Ok(Checked { fine: samples, scale: moments.scale() })
}

/// Whether each row is finite and small enough for finite squared distances.
fn valid(rows: ArrayView2<'_, f32>) -> Vec<bool> {
    let norm2 = |x: ArrayView1<'_, f32>| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    // A sum with NaN is NaN, which compares as false.
    rows.axis_iter(Axis(0)).into_par_iter().map(|x| norm2(x) <= LARGEST_NORM.powi(2)).collect()
}

/// The value that is not finite, else the one of larger magnitude.
fn worse(a: f32, b: f32) -> f32 {
    if !a.is_finite() || b.abs() <= a.abs() { a } else { b }
}

/// Sums over rows, added in their order.
struct Moments {
    rows: usize,
    sums: Vec<f64>,
    square: f64,
}

impl Moments {
    fn new(columns: usize) -> Self {
        Self { rows: 0, sums: vec![0.0; columns], square: 0.0 }
    }

    fn add(&mut self, rows: ArrayView2<'_, f32>) {
        self.rows += rows.nrows();
        for x in rows.outer_iter() {
            for (sum, v) in self.sums.iter_mut().zip(x) {
                *sum += f64::from(*v);
                self.square += f64::from(*v).powi(2);
            }
        }
    }

    /// Root mean square distance between two rows; the norm of a row when that is 0, and 1 when the norm is 0.
    fn scale(&self) -> f64 {
        let m = self.rows as f64;
        let square = self.square / m;
        let centre: f64 = self.sums.iter().map(|sum| (sum / m).powi(2)).sum();
        let variance = square - centre;
        // The variance of equal rows is rounding error.
        let found = if variance > 1e-10 * square { (2.0 * variance).sqrt() } else { square.sqrt() };
        if found > 0.0 { found } else { 1.0 }
    }
}

/// A row near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// Its row in the set.
    pub index: usize,
    /// Squared l2 distance, which decides the order.
    pub squared: f64,
    /// Distance.
    pub distance: f64,
}

/// Rows of a set among which neighbours are searched, [`Blocks::searched`] at a time.
///
/// A search in chunks gives what a search of all rows at once gives, to the bit: the distance of a query and a row is
/// computed from these two alone, each chunk gives its k nearest in order of (squared distance, row), and the k nearest of
/// all are among those.
pub(super) struct Searched<'a, S> {
    source: &'a S,
    part: Part,
    rows: Vec<usize>,
    blocks: Blocks,
    choice: DeviceChoice,
    /// All rows, where they are one chunk.
    whole: Option<Memories<f32>>,
    /// Device of the search.
    pub device: Device,
}

impl<'a, S: Source> Searched<'a, S> {
    /// At least one row, in increasing order.
    pub fn new(
        source: &'a S,
        part: Part,
        rows: Vec<usize>,
        blocks: Blocks,
        choice: DeviceChoice,
    ) -> Result<Self, S::Error> {
        let mut searched = Self { source, part, rows, blocks, choice, whole: None, device: Device::Cpu };
        let first = &searched.rows[..blocks.searched.min(searched.rows.len())];
        let memories = searched.memories(first)?;
        searched.device = memories.device();
        // The device is looked for once.
        searched.choice = DeviceChoice::Only(searched.device);
        searched.whole = (memories.len() == searched.rows.len()).then_some(memories);
        Ok(searched)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn memories(&self, rows: &[usize]) -> Result<Memories<f32>, S::Error> {
        let refused = |source: OpError| DetectError::Set { set: self.part.name(), source };
        Ok(Memories::on(self.source.rows(self.part, 0, rows)?, self.choice).map_err(refused)?)
    }

    /// The `k` nearest rows of each query, or all where there are fewer, in order of (squared distance, row). The queries
    /// are of the set `asked`.
    pub fn nearest(
        &self,
        asked: Part,
        queries: ArrayView2<'_, f32>,
        k: usize,
    ) -> Result<Vec<Vec<Found>>, S::Error> {
        let refused = |source: OpError| DetectError::Set { set: asked.name(), source };
        let squared = self.source.squared();
        let mut lists = vec![Vec::new(); queries.nrows()];
        for (number, chunk) in self.rows.chunks(self.blocks.searched).enumerate() {
            let some;
            let memories = match &self.whole {
                Some(whole) => whole,
                None => {
                    some = self.memories(chunk)?;
                    &some
                }
            };
            let found = memories.knn(queries, k.min(chunk.len()), false).map_err(refused)?;
            for ((list, index), distance2) in
                lists.iter_mut().zip(found.index.outer_iter()).zip(found.squared.outer_iter())
            {
                list.extend(index.iter().zip(distance2).map(|(j, d2)| Found {
                    index: chunk[*j],
                    squared: *d2,
                    distance: power(squared, d2.sqrt()),
                }));
                if number > 0 {
                    list.sort_by(|a, b| a.squared.total_cmp(&b.squared).then(a.index.cmp(&b.index)));
                    list.truncate(k);
                }
            }
        }
        Ok(lists)
    }

    /// Searches for rows of the set `asked` block by block; `take` gets each row and its `k` nearest.
    pub fn search(
        &self,
        asked: Part,
        rows: &[usize],
        k: usize,
        progress: &dyn ProgressSink,
        mut take: impl FnMut(usize, &[Found]),
    ) -> Result<(), S::Error> {
        for block in rows.chunks(self.blocks.queries) {
            let queries = self.source.rows(asked, 0, block)?;
            for (row, found) in block.iter().zip(self.nearest(asked, queries.view(), k)?) {
                take(*row, &found);
            }
            progress.advance(block.len() as u64);
        }
        Ok(())
    }
}
