//! Rows of features in memory or in a file, and the search for nearest rows.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{ArcArray2, Array2, s};

use super::DistanceError;
use crate::device::DeviceChoice;
use crate::ops::{Memories, OpError};
use crate::progress::ProgressSink;
use crate::store;

/// Number of bytes that are read together.
const PIECE: usize = 1 << 20;
/// Name of the search in errors.
const KNN: &str = "LPIPS neighbours";

/// Features of images, one row per image.
#[derive(Debug, Clone)]
pub struct Features {
    sizes: [usize; 2],
    rows: Rows,
}

#[derive(Debug, Clone)]
enum Rows {
    Memory(ArcArray2<f32>),
    /// A `.npy` file, and the offset of its values.
    File(PathBuf, u64),
}

/// The nearest images of each of m images, in order of (distance, index).
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Indices of the neighbours, `[m, k]`.
    pub index: Array2<usize>,
    /// LPIPS to each neighbour, `[m, k]`.
    pub distance: Array2<f64>,
}

impl From<Array2<f32>> for Features {
    fn from(rows: Array2<f32>) -> Self {
        Self { sizes: rows.dim().into(), rows: Rows::Memory(rows.into_shared()) }
    }
}

impl Features {
    /// Opens a file of [`super::Lpips::stored`].
    pub(super) fn open(path: &Path, sizes: [usize; 2]) -> Result<Self, DistanceError> {
        let bad = |reason: String| DistanceError::Features { path: path.to_path_buf(), reason };
        let header = header(sizes);
        let mut found = vec![0; header.len()];
        let mut file = File::open(path).map_err(store::StoreError::io("open", path))?;
        file.read_exact(&mut found).map_err(|e| bad(e.to_string()))?;
        if found != header {
            return Err(bad(format!("its header does not declare {sizes:?} values of type f4")));
        }
        let due = header.len() as u64 + (sizes[0] * sizes[1] * 4) as u64;
        let length = fs::metadata(path).map_err(store::StoreError::io("open", path))?.len();
        if length != due {
            return Err(bad(format!("has {length} bytes, expected {due}")));
        }
        Ok(Self { sizes, rows: Rows::File(path.to_path_buf(), header.len() as u64) })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sizes[0]
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of features per image.
    pub fn length(&self) -> usize {
        self.sizes[1]
    }

    /// Rows of the matrix, shared when in memory, else read.
    ///
    /// # Errors
    /// [`OpError::Shape`] for rows out of range; [`DistanceError::Store`] when the file can't be read.
    pub fn block(&self, rows: Range<usize>) -> Result<ArcArray2<f32>, DistanceError> {
        if rows.start > rows.end || rows.end > self.len() {
            return Err(DistanceError::Op(OpError::Shape {
                operation: "read features",
                argument: "rows",
                found: vec![rows.start, rows.end],
                expected: format!("rows of 0..{}", self.len()),
            }));
        }
        match &self.rows {
            Rows::Memory(all) => Ok(all.clone().slice_move(s![rows, ..])),
            Rows::File(path, start) => {
                let sizes = (rows.len(), self.length());
                let from = start + (rows.start * self.length() * 4) as u64;
                let values =
                    read(path, from, sizes.0 * sizes.1).map_err(store::StoreError::io("read", path))?;
                let bad = |e: ndarray::ShapeError| DistanceError::Features {
                    path: path.clone(),
                    reason: e.to_string(),
                };
                Ok(Array2::from_shape_vec(sizes, values).map_err(bad)?.into())
            }
        }
    }

    /// The exact k nearest images among `memories` of each image of `self` by LPIPS. A copy is at distance 0.
    ///
    /// Files are read in blocks that fit into about `room` bytes; each query is read once for each block of memories. With
    /// `exclude_self` both must be the same images, and image i is not a neighbour of itself. `progress` advances in total
    /// by the number of queries times the number of memories.
    ///
    /// # Errors
    /// As [`Memories::knn`], and [`DistanceError::Store`] when a file can't be read.
    pub fn knn(
        &self,
        memories: &Self,
        k: usize,
        exclude_self: bool,
        room: usize,
        device: DeviceChoice,
        progress: &dyn ProgressSink,
    ) -> Result<Neighbours, DistanceError> {
        let refused = |argument: &'static str, found: &Self, expected: String| {
            Err(DistanceError::Op(OpError::Shape {
                operation: KNN,
                argument,
                found: found.sizes.into(),
                expected,
            }))
        };
        if self.length() != memories.length() {
            return refused("queries", self, format!("[m, {}]", memories.length()));
        }
        if exclude_self && self.len() != memories.len() {
            return refused(
                "queries",
                self,
                format!("{:?}, as exclude_self needs the memories themselves", memories.sizes),
            );
        }
        if k == 0 || k + usize::from(exclude_self) > memories.len() {
            return Err(DistanceError::Op(OpError::Parameter {
                operation: KNN,
                argument: "k",
                value: k as f64,
                need: "at least 1 and at most the number of memories, less one with exclude_self",
            }));
        }
        // Memories take three quarters, as queries are read again for each block of memories. The search packs queries,
        // so they are counted twice.
        let fit = |bytes: usize| (bytes / (4 * self.length()).max(1)).max(1);
        let (most, few) = (fit(room / 4 * 3), fit(room / 8));
        let mut best: Vec<Vec<(f64, usize)>> = vec![Vec::with_capacity(2 * k + 1); self.len()];
        for block in blocks(memories.len(), most) {
            let rows = memories.block(block.clone())?;
            let prepared = Memories::on(rows, device)?;
            for queries in blocks(self.len(), few) {
                // The image itself may be among them and is removed below.
                let k_block = (k + usize::from(exclude_self)).min(block.len());
                let found = prepared.knn(self.block(queries.clone())?.view(), k_block, false)?;
                for ((best, query), (index, distance)) in best[queries.clone()]
                    .iter_mut()
                    .zip(queries.clone())
                    .zip(found.index.outer_iter().zip(found.distance.outer_iter()))
                {
                    let found = distance.iter().zip(index).map(|(d, j)| (d * d, block.start + j));
                    best.extend(found.filter(|(_, j)| !(exclude_self && *j == query)));
                    best.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    best.truncate(k);
                }
                progress.advance((queries.len() * block.len()) as u64);
            }
        }
        Ok(Neighbours {
            index: Array2::from_shape_fn((self.len(), k), |(q, i)| best[q][i].1),
            distance: Array2::from_shape_fn((self.len(), k), |(q, i)| best[q][i].0),
        })
    }
}

/// The fewest and most even pieces of 0..n of at most `most` each.
fn blocks(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}

/// The header of a `.npy` file of f32.
fn header([rows, columns]: [usize; 2]) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Values begin at a multiple of 64 bytes.
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Writes a `.npy` file atomically, with rows that `fill` passes piece by piece.
pub(super) fn write(
    path: &Path,
    sizes: [usize; 2],
    fill: impl FnOnce(&mut dyn FnMut(&[f32]) -> io::Result<()>) -> io::Result<()>,
) -> Result<(), DistanceError> {
    store::write_atomic(path, |out| {
        out.write_all(&header(sizes))?;
        let mut bytes = Vec::new();
        fill(&mut |values| {
            for piece in values.chunks(PIECE / 4) {
                bytes.clear();
                bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
                out.write_all(&bytes)?;
            }
            Ok(())
        })
    })?;
    Ok(())
}

fn read(path: &Path, from: u64, count: usize) -> io::Result<Vec<f32>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0; PIECE.min(4 * count)];
    while values.len() < count {
        let piece = bytes.len().min(4 * (count - values.len()));
        file.read_exact(&mut bytes[..piece])?;
        values.extend(bytes[..piece].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok(values)
}
