//! Nearest training images under mirroring and shifts, and the nearest that differs from them.

use std::collections::{HashMap, HashSet};

use ndarray::{ArcArray2, Axis};

use super::classify::{BLOCK, LEAST, SAME, WITHIN, others, scale, valid};
use super::threshold::quantile;
use super::{DetectError, Neighbour, Neighbours, Sets};
use crate::device::DeviceChoice;
use crate::ops::{Memories, OpError};
use crate::progress::{ProgressSink, Silent};

/// Neighbours that are searched first, and where none of them differs from the nearest.
const NEIGHBOURS: [usize; 2] = [8, 64];
/// Distance up to which two training images count as the same, as a fraction of the median distance from real images to the
/// nearest other one.
const DIFFERENT: f64 = 0.25;

/// A set whose images are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Training images, which are compared with the other ones.
    Train,
    /// Samples.
    Synthetic,
    /// Held-out images.
    HeldOut,
}

/// The nearest training image of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Its row.
    pub index: usize,
    /// Distance to it.
    pub distance: f64,
    /// Number of the transformation of the query at which it is nearest; 0 is the image itself.
    pub transformation: usize,
    /// Distance to the nearest training image that differs from it; `None` when the 64 nearest are the same.
    pub different: Option<f64>,
}

impl Near {
    /// Distance to the nearest over that to the nearest different training image; 0 for an exact copy.
    pub fn ratio(&self) -> Option<f64> {
        Some(if self.distance == 0.0 { 0.0 } else { self.distance / self.different? })
    }
}

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Neighbours as [`neighbours`](super::neighbours) finds them, except that `second` is the distance to the nearest
    /// different training image, and that distances to the training set are the least over all transformations.
    pub neighbours: Neighbours,
    /// Nearest training image of each sample; `None` for an invalid one.
    pub samples: Vec<Option<Near>>,
    /// Nearest training image of each held-out image.
    pub held_out: Option<Vec<Near>>,
    /// Nearest different training image of at most 2000 training images, and the nearest that differs from both.
    pub within: Vec<Near>,
    /// Distance from each training image that is the nearest one of a sample to the nearest other training image, without
    /// transformations.
    pub around: HashMap<usize, f64>,
    /// Distance up to which two images count as the same: a quarter of the median distance from real images to the nearest
    /// other one (a sixteenth when distances are squared), and at least the position of exact copies on logarithmic axes.
    pub same: f64,
}

/// A training image near a query.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    distance: f64,
    transformation: usize,
}

/// Searches among the training images.
struct Search<'a, F> {
    sets: &'a Sets,
    memories: Memories<f32>,
    transformations: usize,
    moved: F,
    progress: &'a dyn ProgressSink,
}

/// Compares the sets exactly, without a samples x images matrix. Progress advances by one a query and transformation, at most
/// [`comparisons`] in all.
///
/// `moved` gives rows of a set under a transformation, from 1 to `transformations - 1`; transformation 0 is the set itself.
/// Samples, held-out images and training images are moved alike. Distances between samples are without transformations.
///
/// # Errors
/// As [`neighbours`](super::neighbours), and those of `moved`.
pub fn compare<E: From<DetectError>>(
    sets: &Sets,
    transformations: usize,
    moved: impl Fn(Part, usize, &[usize]) -> Result<ArcArray2<f32>, E>,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Compared, E> {
    sets.check()?;
    let refused = |source: OpError| DetectError::Set { set: "training", source };
    let memories = Memories::on(sets.train.clone(), device).map_err(refused)?;
    let images = memories.len();
    let searched = memories.device();
    let search = Search { sets, memories, transformations, moved, progress };

    let fine = valid(sets.synthetic.view());
    let rows: Vec<usize> = (0..fine.len()).filter(|&i| fine[i]).collect();
    progress.stage("training images near the samples");
    let samples = search.first(Part::Synthetic, &rows)?;
    progress.stage("real images near real images");
    let held_out = sets.held_out.as_ref().map(|held_out| (0..held_out.nrows()).collect::<Vec<_>>());
    let unseen = held_out.as_ref().map(|rows| search.first(Part::HeldOut, rows)).transpose()?;
    let some: Vec<usize> = if images > 1 {
        (0..images.min(WITHIN)).map(|i| i * images / images.min(WITHIN)).collect()
    } else {
        Vec::new()
    };
    let within = search.first(Part::Train, &some)?;
    let others_of = |i: usize, list: &[Candidate]| list.iter().find(|c| c.index != i).map(|c| c.distance);
    let within_distances: Vec<f64> =
        some.iter().zip(&within).filter_map(|(i, list)| others_of(*i, list)).collect();
    let held_out_distances: Option<Vec<f64>> =
        unseen.as_ref().map(|lists| lists.iter().map(|list| list[0].distance).collect());

    let scale = scale(sets.train.view());
    let least = sets.power(LEAST * scale);
    let real = held_out_distances.as_ref().unwrap_or(&within_distances);
    let apart: Vec<f64> = real.iter().copied().filter(|d| *d > least).collect();
    let median = quantile(&apart, 0.5).unwrap_or(0.0);
    let same = least.max(sets.power(DIFFERENT) * median);

    let samples = search.nearest(Part::Synthetic, &rows, samples, same)?;
    let unseen = held_out
        .as_ref()
        .zip(unseen)
        .map(|(rows, lists)| search.nearest(Part::HeldOut, rows, lists, same))
        .transpose()?;
    let within = search.nearest(Part::Train, &some, within, same)?;

    let count = sets.synthetic.nrows();
    let mut found = vec![None; count];
    for (i, near) in rows.iter().zip(samples) {
        found[*i] = near;
    }
    let train = found.iter().map(|n| n.map(|n| Neighbour { index: n.index, distance: n.distance })).collect();
    let neighbours = Neighbours {
        train,
        second: found
            .iter()
            .map(|n| n.and_then(|n| n.different.or((n.distance == 0.0).then_some(0.0))))
            .collect(),
        synthetic: others(sets, count, device, progress)?,
        each: count,
        held_out: held_out_distances,
        within: within_distances,
        scale: sets.power(scale),
        least,
        floor: least.max(sets.power(SAME) * median),
        images,
        device: searched,
    };
    let around = search.around(&found)?;
    Ok(Compared {
        neighbours,
        samples: found,
        held_out: unseen.map(|found| found.into_iter().flatten().collect()),
        within: within.into_iter().flatten().collect(),
        around,
        same,
    })
}

/// Largest number of queries of [`compare`], the total of its progress.
pub fn comparisons(sets: &Sets, transformations: usize) -> u64 {
    let (samples, held_out) = (sets.synthetic.nrows(), sets.held_out.as_ref().map_or(0, |h| h.nrows()));
    let real = held_out + sets.train.nrows().min(WITHIN);
    ((samples + real) * transformations + samples + samples.min(sets.train.nrows())) as u64
}

impl<E: From<DetectError>, F: Fn(Part, usize, &[usize]) -> Result<ArcArray2<f32>, E>> Search<'_, F> {
    fn first(&self, part: Part, rows: &[usize]) -> Result<Vec<Vec<Candidate>>, E> {
        self.candidates(part, rows, NEIGHBOURS[0], self.transformations, self.progress)
    }

    /// The `k` nearest training images of rows of a set, least over the first `transformations`, in order of
    /// distance.
    fn candidates(
        &self,
        part: Part,
        rows: &[usize],
        k: usize,
        transformations: usize,
        progress: &dyn ProgressSink,
    ) -> Result<Vec<Vec<Candidate>>, E> {
        let k = k.min(self.memories.len());
        let name = ["training", "synthetic", "held-out"][part as usize];
        let mut lists = Vec::with_capacity(rows.len());
        for block in rows.chunks(BLOCK) {
            let mut best: Vec<Vec<Candidate>> = vec![Vec::new(); block.len()];
            for transformation in 0..transformations {
                let queries = if transformation == 0 {
                    let set = match part {
                        Part::Train => &self.sets.train,
                        Part::Synthetic => &self.sets.synthetic,
                        Part::HeldOut => self.sets.held_out.as_ref().unwrap_or(&self.sets.synthetic),
                    };
                    set.select(Axis(0), block).into_shared()
                } else {
                    (self.moved)(part, transformation, block)?
                };
                let found = self
                    .memories
                    .knn(queries.view(), k, false)
                    .map_err(|source| DetectError::Set { set: name, source })?;
                for (q, list) in best.iter_mut().enumerate() {
                    for rank in 0..k {
                        let distance = self.sets.power(found.distance[[q, rank]]);
                        let index = found.index[[q, rank]];
                        match list.iter_mut().find(|c| c.index == index) {
                            Some(known) if known.distance <= distance => {}
                            Some(known) => *known = Candidate { index, distance, transformation },
                            None => list.push(Candidate { index, distance, transformation }),
                        }
                    }
                }
                progress.advance(block.len() as u64);
            }
            for list in &mut best {
                list.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.index.cmp(&b.index)));
                list.truncate(k);
            }
            lists.extend(best);
        }
        Ok(lists)
    }

    /// The nearest and the nearest different training image of rows, from their `lists`; `None` for a training image without
    /// one. A training image is compared with those that are not the same as itself.
    fn nearest(
        &self,
        part: Part,
        rows: &[usize],
        lists: Vec<Vec<Candidate>>,
        same: f64,
    ) -> Result<Vec<Option<Near>>, E> {
        let own = part == Part::Train;
        let mut found: Vec<Option<Near>> =
            rows.iter().zip(&lists).map(|(row, list)| self.pick(own.then_some(*row), list, same)).collect();
        let open: Vec<usize> = (0..rows.len())
            .filter(|&q| found[q].is_none_or(|near| near.different.is_none()))
            .filter(|_| self.memories.len() > NEIGHBOURS[0])
            .collect();
        let again: Vec<usize> = open.iter().map(|&q| rows[q]).collect();
        let lists = self.candidates(part, &again, NEIGHBOURS[1], self.transformations, &Silent)?;
        for (q, list) in open.into_iter().zip(lists) {
            found[q] = self.pick(own.then_some(rows[q]), &list, same);
        }
        Ok(found)
    }

    fn pick(&self, own: Option<usize>, list: &[Candidate], same: f64) -> Option<Near> {
        let others: Vec<&Candidate> =
            list.iter().filter(|c| own.is_none_or(|own| !self.same(own, c.index, same))).collect();
        let first = others.first()?;
        let different = others[1..].iter().find(|c| !self.same(first.index, c.index, same));
        Some(Near {
            index: first.index,
            distance: first.distance,
            transformation: first.transformation,
            different: different.map(|c| c.distance),
        })
    }

    /// Whether two training images are at most `same` apart.
    fn same(&self, a: usize, b: usize, same: f64) -> bool {
        let (a, b) = (self.sets.train.row(a), self.sets.train.row(b));
        let squared: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        self.sets.power(squared.sqrt()) <= same
    }

    fn around(&self, samples: &[Option<Near>]) -> Result<HashMap<usize, f64>, E> {
        if self.memories.len() < 2 {
            return Ok(HashMap::new());
        }
        let distinct: HashSet<usize> = samples.iter().flatten().map(|near| near.index).collect();
        let mut rows: Vec<usize> = distinct.into_iter().collect();
        rows.sort_unstable();
        let lists = self.candidates(Part::Train, &rows, 2, 1, self.progress)?;
        let other = |(i, list): (usize, Vec<Candidate>)| {
            // Of three equal images the search may give two that are not the image itself.
            list.iter().find(|c| c.index != i).map(|c| (i, c.distance))
        };
        Ok(rows.into_iter().zip(lists).filter_map(other).collect())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array, s};

    use super::*;
    use crate::random::{SEED, Stream};

    fn sets(train: Array2<f32>, synthetic: Array2<f32>) -> Sets {
        Sets { train: train.into(), synthetic: synthetic.into(), held_out: None, squared: false }
    }

    fn plain(sets: &Sets) -> Compared {
        let none = |_: Part, _: usize, _: &[usize]| -> Result<ArcArray2<f32>, DetectError> {
            Ok(sets.train.clone())
        };
        compare(sets, 1, none, DeviceChoice::default(), &Silent).unwrap()
    }

    #[test]
    fn neighbours_are_those_of_the_plain_search() {
        let mut stream = Stream::new(SEED, "compare");
        let mut noise = |n| Array2::from_shape_simple_fn((n, 9), || stream.normal() as f32);
        let (train, synthetic, held_out) = (noise(50), noise(30), noise(40));
        let sets = Sets { held_out: Some(held_out.into()), ..sets(train, synthetic) };
        let due = super::super::neighbours(&sets, DeviceChoice::default(), &Silent).unwrap();
        let found = plain(&sets).neighbours;
        assert_eq!((found.train, found.second), (due.train, due.second));
        assert_eq!(
            (found.synthetic, found.held_out, found.within),
            (due.synthetic, due.held_out, due.within)
        );
        assert_eq!((found.scale, found.least, found.floor), (due.scale, due.least, due.floor));
    }

    #[test]
    fn an_image_that_stands_often_is_not_its_own_second_neighbour() {
        // The first image stands 20 times; the others are 10 apart.
        let train =
            Array2::from_shape_fn(
                (40, 2),
                |(i, j)| if j == 0 && i >= 20 { 10.0 * (i - 19) as f32 } else { 0.0 },
            );
        let found = plain(&sets(train.clone(), array![[1.0f32, 0.0], [12.0, 0.0]]));
        let near = found.samples[0].unwrap();
        assert_eq!((near.index, near.distance, near.different), (0, 1.0, Some(9.0)));
        assert_eq!(found.samples[1].unwrap().different, Some(8.0));
        // None of the 20 is as near as itself in the null either.
        assert!(found.within.iter().all(|near| near.distance == 10.0), "{:?}", found.within);
        assert_eq!(found.within.len(), 40);
        // The rule of authenticity takes every other image.
        assert_eq!((found.around[&0], found.around[&20]), (0.0, 10.0));
        // Nothing but one image.
        let found = plain(&sets(train.slice(s![..20, ..]).to_owned(), array![[1.0f32, 0.0]]));
        assert_eq!((found.samples[0].unwrap().different, found.within.len()), (None, 0));
    }

    #[test]
    fn the_distance_is_the_least_over_transformations_for_all_sets() {
        let mut stream = Stream::new(SEED, "transformations");
        let mut noise = |n| Array2::from_shape_simple_fn((n, 6), || stream.normal() as f32);
        let (train, held_out) = (noise(30), noise(20));
        let reversed = |rows: &ArcArray2<f32>| rows.slice(s![.., ..;-1]).to_owned();
        let synthetic = reversed(&train.slice(s![..5, ..]).to_owned().into());
        let sets = Sets { held_out: Some(held_out.into()), ..sets(train, synthetic) };
        let moved = |part: Part, transformation: usize, rows: &[usize]| -> Result<_, DetectError> {
            assert_eq!(transformation, 1);
            let set = match part {
                Part::Train => &sets.train,
                Part::Synthetic => &sets.synthetic,
                Part::HeldOut => sets.held_out.as_ref().unwrap(),
            };
            Ok(reversed(&set.select(Axis(0), rows).into()).into_shared())
        };
        let found = compare(&sets, 2, moved, DeviceChoice::default(), &Silent).unwrap();
        for (i, near) in found.samples.iter().flatten().enumerate() {
            assert_eq!((near.index, near.distance, near.transformation), (i, 0.0, 1));
        }
        let l2 = |a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>| {
            a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        let images = sets.train.nrows();
        for (h, near) in sets.held_out.as_ref().unwrap().outer_iter().zip(found.held_out.unwrap()) {
            let backwards = h.slice(s![..;-1]);
            let to = |j: usize| l2(h, sets.train.row(j)).min(l2(backwards, sets.train.row(j)));
            let least = (0..images).map(to).fold(f64::INFINITY, f64::min);
            assert!((near.distance - least).abs() < 1e-5, "{} {least}", near.distance);
        }
    }
}
