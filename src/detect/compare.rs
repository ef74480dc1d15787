//! Nearest training images under mirroring and shifts, and the nearest that differs from them.

use std::collections::{HashMap, HashSet};

use super::classify::{LEAST, SAME, not_self, others, spaced};
use super::source::{Blocks, Checked, Part, Searched, Source, check, power};
use super::threshold::quantile;
use super::{Neighbour, Neighbours};
use crate::device::DeviceChoice;
use crate::progress::{ProgressSink, Silent};

/// Neighbours that are searched first, and where none of them differs from the nearest.
const NEIGHBOURS: [usize; 2] = [8, 64];
/// Distance up to which two training images count as the same, as a fraction of the median distance from real images to the
/// nearest other one.
const DIFFERENT: f64 = 0.25;

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
    /// Squared l2 distance, which decides the order.
    squared: f64,
    distance: f64,
    transformation: usize,
}

/// Searches among the training images.
struct Search<'a, S> {
    source: &'a S,
    train: Searched<'a, S>,
    blocks: Blocks,
    progress: &'a dyn ProgressSink,
}

/// Compares the sets exactly, without a samples x images matrix. Progress advances by one a query and transformation, at most
/// [`comparisons`] in all.
///
/// Samples, held-out images and training images are moved alike. Distances between samples are without transformations.
///
/// # Errors
/// As [`neighbours`](super::neighbours), and those of [`Source::rows`].
pub fn compare<S: Source>(
    source: &S,
    blocks: Blocks,
    device: DeviceChoice,
    progress: &dyn ProgressSink,
) -> Result<Compared, S::Error> {
    let Checked { fine, scale } = check(source, blocks)?;
    let count = |part| source.dim(part).map(|[rows, _]| rows);
    let images = count(Part::Train).unwrap_or(0);
    let train = Searched::new(source, Part::Train, (0..images).collect(), blocks, device)?;
    let searched = train.device;
    let search = Search { source, train, blocks, progress };

    let rows: Vec<usize> = (0..fine.len()).filter(|&i| fine[i]).collect();
    progress.stage("training images near the samples");
    let samples = search.first(Part::Synthetic, &rows)?;
    progress.stage("real images near real images");
    let held_out = count(Part::HeldOut).map(|rows| (0..rows).collect::<Vec<_>>());
    let unseen = held_out.as_ref().map(|rows| search.first(Part::HeldOut, rows)).transpose()?;
    let some = spaced(images);
    let within = search.first(Part::Train, &some)?;
    let others_of = |i: usize, list: &[Candidate]| list.iter().find(|c| c.index != i).map(|c| c.distance);
    let within_distances: Vec<f64> =
        some.iter().zip(&within).filter_map(|(i, list)| others_of(*i, list)).collect();
    let held_out_distances: Option<Vec<f64>> =
        unseen.as_ref().map(|lists| lists.iter().map(|list| list[0].distance).collect());

    let power = |d: f64| power(source.squared(), d);
    let least = power(LEAST * scale);
    let real = held_out_distances.as_ref().unwrap_or(&within_distances);
    let apart: Vec<f64> = real.iter().copied().filter(|d| *d > least).collect();
    let median = quantile(&apart, 0.5).unwrap_or(0.0);
    let same = least.max(power(DIFFERENT) * median);

    let samples = search.nearest(Part::Synthetic, &rows, samples, same)?;
    let unseen = held_out
        .as_ref()
        .zip(unseen)
        .map(|(rows, lists)| search.nearest(Part::HeldOut, rows, lists, same))
        .transpose()?;
    let within = search.nearest(Part::Train, &some, within, same)?;

    let mut found = vec![None; fine.len()];
    for (i, near) in rows.iter().zip(samples) {
        found[*i] = near;
    }
    let train = found.iter().map(|n| n.map(|n| Neighbour { index: n.index, distance: n.distance })).collect();
    let around = search.around(&found)?;
    // The training images make room for the samples.
    drop(search);
    let neighbours = Neighbours {
        train,
        second: found
            .iter()
            .map(|n| n.and_then(|n| n.different.or((n.distance == 0.0).then_some(0.0))))
            .collect(),
        synthetic: others(source, &fine, fine.len(), blocks, device, progress)?,
        each: fine.len(),
        held_out: held_out_distances,
        within: within_distances,
        scale: power(scale),
        least,
        floor: least.max(power(SAME) * median),
        images,
        device: searched,
    };
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
pub fn comparisons<S: Source>(source: &S) -> u64 {
    let count = |part| source.dim(part).map_or(0, |[rows, _]| rows);
    let (samples, images) = (count(Part::Synthetic), count(Part::Train));
    let real = count(Part::HeldOut) + spaced(images).len();
    ((samples + real) * source.transformations() + samples + samples.min(images)) as u64
}

impl<S: Source> Search<'_, S> {
    fn first(&self, part: Part, rows: &[usize]) -> Result<Vec<Vec<Candidate>>, S::Error> {
        self.candidates(part, rows, NEIGHBOURS[0], self.progress)
    }

    /// The `k` nearest training images of rows of a set, least over all transformations, in order of distance. Of equal
    /// distances the first transformation counts.
    fn candidates(
        &self,
        part: Part,
        rows: &[usize],
        k: usize,
        progress: &dyn ProgressSink,
    ) -> Result<Vec<Vec<Candidate>>, S::Error> {
        let mut lists = Vec::with_capacity(rows.len());
        for block in rows.chunks(self.blocks.queries) {
            let mut best: Vec<Vec<Candidate>> = vec![Vec::new(); block.len()];
            for transformation in 0..self.source.transformations() {
                let queries = self.source.rows(part, transformation, block)?;
                for (list, found) in best.iter_mut().zip(self.train.nearest(part, queries.view(), k)?) {
                    for near in found {
                        let new = Candidate {
                            index: near.index,
                            squared: near.squared,
                            distance: near.distance,
                            transformation,
                        };
                        match list.iter_mut().find(|c| c.index == near.index) {
                            Some(known) if known.squared <= new.squared => {}
                            Some(known) => *known = new,
                            None => list.push(new),
                        }
                    }
                    list.sort_by(|a, b| a.squared.total_cmp(&b.squared).then(a.index.cmp(&b.index)));
                    list.truncate(k);
                }
                progress.advance(block.len() as u64);
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
    ) -> Result<Vec<Option<Near>>, S::Error> {
        let own = |row: usize| (part == Part::Train).then_some(row);
        let picked = rows.iter().zip(&lists).map(|(row, list)| self.pick(own(*row), list, same));
        let mut found: Vec<Option<Near>> = picked.collect::<Result<_, _>>()?;
        let open: Vec<usize> = (0..rows.len())
            .filter(|&q| found[q].is_none_or(|near| near.different.is_none()))
            .filter(|_| self.train.len() > NEIGHBOURS[0])
            .collect();
        let again: Vec<usize> = open.iter().map(|&q| rows[q]).collect();
        let lists = self.candidates(part, &again, NEIGHBOURS[1], &Silent)?;
        for (q, list) in open.into_iter().zip(lists) {
            found[q] = self.pick(own(rows[q]), &list, same)?;
        }
        Ok(found)
    }

    fn pick(&self, own: Option<usize>, list: &[Candidate], same: f64) -> Result<Option<Near>, S::Error> {
        let mut first: Option<Near> = None;
        for c in list {
            if let Some(own) = own
                && self.same(own, c.index, same)?
            {
                continue;
            }
            match &mut first {
                None => {
                    let Candidate { index, distance, transformation, .. } = *c;
                    first = Some(Near { index, distance, transformation, different: None });
                }
                Some(first) if !self.same(first.index, c.index, same)? => {
                    first.different = Some(c.distance);
                    break;
                }
                Some(_) => {}
            }
        }
        Ok(first)
    }

    /// Whether two training images are at most `same` apart.
    fn same(&self, a: usize, b: usize, same: f64) -> Result<bool, S::Error> {
        let row = |row| self.source.rows(Part::Train, 0, &[row]);
        let squared: f64 =
            row(a)?.iter().zip(&row(b)?).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        Ok(power(self.source.squared(), squared.sqrt()) <= same)
    }

    fn around(&self, samples: &[Option<Near>]) -> Result<HashMap<usize, f64>, S::Error> {
        let distinct: HashSet<usize> = samples.iter().flatten().map(|near| near.index).collect();
        let mut rows: Vec<usize> = distinct.into_iter().collect();
        rows.sort_unstable();
        let mut around = HashMap::new();
        if self.train.len() > 1 {
            // Of three equal images the search may give two that are not the image itself.
            self.train.search(Part::Train, &rows, 2, self.progress, |i, found| {
                around.extend(not_self(i, found).map(|near| (i, near.distance)));
            })?;
        }
        Ok(around)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArcArray2, Array2, array, s};

    use super::super::{DetectError, Sets};
    use super::*;
    use crate::random::{SEED, Stream};

    fn sets(train: Array2<f32>, synthetic: Array2<f32>) -> Sets {
        Sets { train: train.into(), synthetic: synthetic.into(), held_out: None, squared: false }
    }

    fn plain(sets: &Sets) -> Compared {
        compare(sets, Blocks::default(), DeviceChoice::default(), &Silent).unwrap()
    }

    /// Sets whose images are also compared reversed, which is transformation 1.
    struct Reversed(Sets);

    fn reversed(rows: &ArcArray2<f32>) -> Array2<f32> {
        rows.slice(s![.., ..;-1]).to_owned()
    }

    impl Source for Reversed {
        type Error = DetectError;

        fn dim(&self, part: Part) -> Option<[usize; 2]> {
            self.0.dim(part)
        }

        fn rows(
            &self,
            part: Part,
            transformation: usize,
            rows: &[usize],
        ) -> Result<ArcArray2<f32>, DetectError> {
            let rows = self.0.rows(part, 0, rows)?;
            Ok(if transformation == 1 { reversed(&rows).into() } else { rows })
        }

        fn transformations(&self) -> usize {
            2
        }

        fn squared(&self) -> bool {
            self.0.squared
        }
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
        let synthetic = reversed(&train.slice(s![..5, ..]).to_owned().into());
        let sets = Sets { held_out: Some(held_out.into()), ..sets(train, synthetic) };
        let found =
            compare(&Reversed(sets.clone()), Blocks::default(), DeviceChoice::default(), &Silent).unwrap();
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

    /// All that was found, as text that differs where a number differs in its last bit.
    fn text(found: &Compared) -> String {
        let mut around: Vec<(&usize, &f64)> = found.around.iter().collect();
        around.sort_by_key(|(row, _)| **row);
        format!(
            "{:?}\n{:?}\n{:?}\n{:?}\n{around:?}",
            found.neighbours, found.samples, found.held_out, found.within
        )
    }

    #[test]
    fn a_search_in_chunks_finds_the_same_to_the_last_bit() {
        for columns in [5, 12] {
            let mut stream = Stream::new(SEED, "chunks");
            let mut noise = |n| Array2::from_shape_simple_fn((n, columns), || stream.normal() as f32);
            let (mut train, mut synthetic, mut held_out) = (noise(90), noise(40), noise(25));
            // To a query of equal values, an image and itself in reverse are equally far: up to the last bit of the sums.
            let mirror = reversed(&train.slice(s![..30, ..]).to_owned().into());
            train.slice_mut(s![50..80, ..]).assign(&mirror);
            for i in 0..10 {
                synthetic.row_mut(i).fill(0.1 * i as f32);
                held_out.row_mut(i).fill(-0.1 * i as f32);
            }
            // More copies than are searched first, at the ends of chunks, and twins of samples.
            let (first, last) = (train.row(0).to_owned(), train.row(44).to_owned());
            for i in [6, 7, 13, 14, 26, 27, 28, 45, 46, 85, 88, 89] {
                train.row_mut(i).assign(&first);
            }
            for i in [41, 42, 43] {
                train.row_mut(i).assign(&last);
            }
            synthetic.row_mut(20).assign(&first);
            synthetic.row_mut(21).assign(&last);
            for i in [33, 34, 35] {
                synthetic.row_mut(i).assign(&first);
            }
            synthetic[[12, 1]] = f32::NAN;
            synthetic[[25, 0]] = f32::INFINITY;
            synthetic[[39, 2]] = 3e18;
            for squared in [false, true] {
                let sets = Sets {
                    train: train.clone().into(),
                    synthetic: synthetic.clone().into(),
                    held_out: Some(held_out.clone().into()),
                    squared,
                };
                let by = |searched, queries| {
                    let blocks = Blocks { searched, queries };
                    let device = DeviceChoice::default();
                    let plain = text(&compare(&sets, blocks, device, &Silent).unwrap());
                    let moved = text(&compare(&Reversed(sets.clone()), blocks, device, &Silent).unwrap());
                    [plain, moved]
                };
                let whole = by(90, 90);
                assert!(whole[0] != whole[1], "reversed images are nearer to some");
                for (searched, queries) in [(1, 90), (7, 5), (14, 40), (45, 17), (89, 90), (usize::MAX, 1)] {
                    assert!(by(searched, queries) == whole, "{columns} {squared} {searched} {queries}");
                }
            }
        }
    }
}
