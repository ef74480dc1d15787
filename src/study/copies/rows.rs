//! The rows that a metric compares: values, directions or features, some at a time.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ndarray::{ArcArray2, Array2, s};
use pulp::bytemuck;

use super::memory::{Load, Plan, Size};
use super::{CopiesError, Images, Transformation};
use crate::data::ImageSet;
use crate::data::image_set::selected;
use crate::detect::{Part, Source};
use crate::distance::Lpips;
use crate::metric::Metric;
use crate::progress::{ProgressSink, Reporter, Silent};
use crate::shape::Shape;
use crate::store::{StoreError, disk_left};

/// Reads the sets of [`Images`] as rows for a search.
pub(super) struct Rows<'a> {
    images: &'a Images,
    shape: Option<Shape>,
    metric: Metric,
    transformations: &'a [Transformation],
    /// The network and the features of each set, for LPIPS.
    lpips: Option<(&'a Lpips, Vec<Features>)>,
}

/// Features of a set, `[images, features]`.
enum Features {
    Kept(ArcArray2<f32>),
    Stored(Stored),
}

/// Features in a file without a name, which ends with its handle, however the program ends.
struct Stored {
    file: Mutex<File>,
    folder: PathBuf,
    length: usize,
}

impl Stored {
    fn new(folder: &Path, length: usize) -> Result<Self, StoreError> {
        let file =
            tempfile::tempfile_in(folder).map_err(StoreError::io("make a temporary file in", folder))?;
        Ok(Self { file: Mutex::new(file), folder: folder.to_path_buf(), length })
    }

    /// Adds rows at the end.
    fn write(&self, rows: &Array2<f32>) -> Result<(), StoreError> {
        let values = rows.as_slice().expect("features are in standard layout");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytemuck::cast_slice(values))
            .map_err(StoreError::io("write features to a temporary file in", &self.folder))
    }

    fn read(&self, rows: &[usize]) -> Result<Array2<f32>, StoreError> {
        let mut found = Array2::zeros((rows.len(), self.length));
        let values = found.as_slice_mut().expect("a new array is in standard layout");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let to = &mut values[done * self.length..(done + run.len()) * self.length];
            let start = (run[0] * self.length * size_of::<f32>()) as u64;
            file.seek(SeekFrom::Start(start))
                .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(to)))
                .map_err(StoreError::io("read features from a temporary file in", &self.folder))?;
            done += run.len();
        }
        Ok(found)
    }
}

/// What is compared and how.
pub(super) struct Compare<'a> {
    /// The sets, in one shape and range.
    pub images: &'a Images,
    /// Shape of an image.
    pub shape: Option<Shape>,
    /// The distance.
    pub metric: Metric,
    /// What is done to queries; the first is none.
    pub transformations: &'a [Transformation],
    /// The network, for LPIPS.
    pub lpips: Option<&'a Lpips>,
    /// Folder for temporary files.
    pub folder: &'a Path,
}

impl<'a> Compare<'a> {
    /// Sizes of what is compared.
    fn load(&self) -> Result<Load, CopiesError> {
        let sets = self.images.sets();
        let network = self.lpips.map(|network| -> Result<_, CopiesError> {
            let shape = self.shape_for_lpips()?;
            Ok((network.length(shape)?, network.bytes(shape)?))
        });
        Ok(Load {
            counts: sets.iter().map(ImageSet::len).collect(),
            images: sets.iter().map(ImageSet::bytes).sum(),
            values: self.images.train().length(),
            network: network.transpose()?,
        })
    }

    /// Vectors that could be square images are not taken for them unless their layout is given.
    fn shape_for_lpips(&self) -> Result<Shape, CopiesError> {
        let said = self.images.sets().iter().any(|set| set.shape().is_some());
        let (metric, values) = (self.metric.name(), self.images.train().length());
        self.shape.filter(|_| said).ok_or(CopiesError::UnknownShape { metric, values })
    }

    /// What is kept where, within a bound of the program's memory.
    pub fn plan(&self, memory: Option<Size>) -> Result<Plan, CopiesError> {
        self.load()?.plan(memory)
    }

    /// The rows, with the features of all images for LPIPS.
    pub fn rows(&self, plan: &Plan, report: &dyn Reporter) -> Result<Rows<'a>, CopiesError> {
        let lpips = self.lpips.map(|network| -> Result<_, CopiesError> {
            let shape = self.shape_for_lpips()?;
            let progress = self.announce(plan, report)?;
            let sets = self.images.sets().iter().zip(&plan.kept);
            let block = plan.blocks.queries;
            let features =
                sets.map(|(set, kept)| self.features(network, (set, shape), *kept, block, &*progress));
            Ok((network, features.collect::<Result<Vec<_>, _>>()?))
        });
        let Self { images, shape, metric, transformations, .. } = *self;
        Ok(Rows { images, shape, metric, transformations, lpips: lpips.transpose()? })
    }

    /// Says where features are kept, and refuses a disk that is too small for them.
    fn announce(&self, plan: &Plan, report: &dyn Reporter) -> Result<Box<dyn ProgressSink>, CopiesError> {
        let load = self.load()?;
        let (metric, names) = (self.metric.name(), ["training images", "samples", "held-out images"]);
        let place = |kept: bool| -> (u64, String) {
            let sets = names.iter().zip(&load.counts).zip(&plan.kept).filter(|(_, of)| **of == kept);
            let (names, sizes): (Vec<&str>, Vec<u64>) =
                sets.map(|((name, images), _)| (*name, load.features(*images))).unzip();
            (sizes.iter().sum(), names.join(" and "))
        };
        let ((inside, kept), (outside, stored)) = (place(true), place(false));
        let folder = self.folder.display();
        let mut said = Vec::new();
        if inside > 0 {
            said.push(format!("{metric} features of {kept}: {} in memory", Size(inside)));
        }
        if outside > 0 {
            if let Some(free) = disk_left(self.folder).filter(|free| *free < outside) {
                return Err(CopiesError::Disk {
                    metric,
                    needed: Size(outside),
                    folder: self.folder.to_path_buf(),
                    free: Size(free),
                });
            }
            said.push(format!(
                "{metric} features of {stored}: {} in temporary files in {folder}, from which {} are read",
                Size(outside),
                Size(load.read(plan, self.transformations.len()))
            ));
        }
        for line in said {
            report.line(&format!("classify: {line}"));
        }
        Ok(report.progress("features", self.images.count() as u64))
    }

    /// Features of all images of a set, whose squared l2 distance is LPIPS, `block` images at a time. Values are clipped to
    /// their range. An image with NaN or infinity has NaN for features.
    fn features(
        &self,
        lpips: &Lpips,
        (set, shape): (&ImageSet, Shape),
        kept: bool,
        block: usize,
        progress: &dyn ProgressSink,
    ) -> Result<Features, CopiesError> {
        let length = lpips.length(shape)?;
        let mut all = Array2::zeros((if kept { set.len() } else { 0 }, length));
        let stored = if kept { None } else { Some(Stored::new(self.folder, length)?) };
        let mut fine = vec![false; set.len()];
        set.finite().into_iter().for_each(|row| fine[row] = true);
        let rows: Vec<usize> = (0..set.len()).collect();
        for block in rows.chunks(block) {
            let finite: Vec<usize> = block.iter().copied().filter(|row| fine[*row]).collect();
            let mut found = lpips.features(shape, set.clipped(&finite).view(), progress)?;
            if finite.len() < block.len() {
                let some = std::mem::replace(&mut found, Array2::from_elem((block.len(), length), f32::NAN));
                for (features, row) in some.outer_iter().zip(finite) {
                    found.row_mut(row - block[0]).assign(&features);
                }
            }
            match &stored {
                Some(stored) => stored.write(&found)?,
                None => all.slice_mut(s![block[0]..block[0] + block.len(), ..]).assign(&found),
            }
        }
        Ok(stored.map_or_else(|| Features::Kept(all.into_shared()), Features::Stored))
    }
}

impl Rows<'_> {
    /// A set and its number among [`Images::sets`].
    fn set(&self, part: Part) -> Option<(usize, &ImageSet)> {
        let number = match part {
            Part::Train => 0,
            Part::Synthetic => 1,
            Part::HeldOut => 2,
        };
        Some((number, self.images.sets().get(number)?))
    }
}

impl Source for Rows<'_> {
    type Error = CopiesError;

    fn dim(&self, part: Part) -> Option<[usize; 2]> {
        let (number, set) = self.set(part)?;
        let columns = match self.lpips.as_ref().map(|(_, features)| &features[number]) {
            None => set.length(),
            Some(Features::Kept(features)) => features.ncols(),
            Some(Features::Stored(stored)) => stored.length,
        };
        Some([set.len(), columns])
    }

    fn rows(&self, part: Part, transformation: usize, rows: &[usize]) -> Result<ArcArray2<f32>, CopiesError> {
        let (number, set) = self.set(part).expect("only sets that have a size are asked for");
        let moved = |values: ArcArray2<f32>| match (transformation, self.shape) {
            (0, _) => Ok(values),
            (number, Some(shape)) => {
                Ok(self.transformations[number].apply(values.view(), shape).into_shared())
            }
            (_, None) => Err(CopiesError::NothingToMove { values: set.length() }),
        };
        match &self.lpips {
            None if self.metric == Metric::Cosine => directions(set, rows, moved(set.select(rows))?),
            None => moved(set.select(rows)),
            Some((_, features)) if transformation == 0 => match &features[number] {
                Features::Kept(features) => Ok(selected(features, rows)),
                Features::Stored(stored) => Ok(stored.read(rows)?.into_shared()),
            },
            Some((lpips, _)) => {
                let shape = self.shape.ok_or(CopiesError::NothingToMove { values: set.length() })?;
                let pixels = moved(set.clipped(rows).into_shared())?;
                Ok(lpips.features(shape, pixels.view(), &Silent)?.into_shared())
            }
        }
    }

    fn transformations(&self) -> usize {
        self.transformations.len()
    }

    fn squared(&self) -> bool {
        self.lpips.is_some() || self.metric == Metric::Cosine
    }
}

/// Rows of length 1/sqrt(2), whose squared l2 distance is 1 - cos, for the images at `numbers` of a set.
fn directions(
    set: &ImageSet,
    numbers: &[usize],
    mut rows: ArcArray2<f32>,
) -> Result<ArcArray2<f32>, CopiesError> {
    for (row, mut values) in numbers.iter().zip(rows.outer_iter_mut()) {
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(CopiesError::ZeroRow { path: set.path().to_path_buf(), row: *row });
        }
        let scale = 0.5f64.sqrt() / length;
        values.mapv_inplace(|v| (f64::from(v) * scale) as f32);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::{Array4, ArrayD, IxDyn};

    use super::*;
    use crate::data::Input;
    use crate::data::image_set::Together;
    use crate::detect::{Blocks, Compared, compare};
    use crate::device::DeviceChoice;
    use crate::distance::Backbone;
    use crate::progress::Heard;
    use crate::random::{SEED, Stream};
    use crate::store::write_array;

    /// Weights that no one trained.
    fn network() -> Lpips {
        let mut stream = Stream::new(SEED, "weights");
        let mut array = |shape: &[usize], scale: f64| -> ArrayD<f32> {
            ArrayD::from_shape_simple_fn(IxDyn(shape), || (scale * stream.normal()) as f32)
        };
        let mut arrays = BTreeMap::new();
        let mut inputs = 3;
        for (i, (side, outputs)) in [(11, 64), (5, 192), (3, 384), (3, 256), (3, 256)].into_iter().enumerate()
        {
            let scale = 1.0 / ((side * side * inputs) as f64).sqrt();
            arrays.insert(format!("AlexNet_0.Conv_{i}.kernel"), array(&[side, side, inputs, outputs], scale));
            arrays.insert(format!("AlexNet_0.Conv_{i}.bias"), array(&[outputs], 0.1));
            arrays.insert(
                format!("NetLinLayer_{i}.Conv_0.kernel"),
                array(&[1, 1, outputs, 1], 1.0).mapv(f32::abs),
            );
            inputs = outputs;
        }
        Lpips::new(Backbone::AlexNet, &arrays).unwrap()
    }

    fn bytes(stream: &mut Stream, n: usize) -> Array4<u8> {
        Array4::from_shape_simple_fn((n, 8, 8, 1), || (255.0 * stream.uniform()) as u8)
    }

    /// 30 training images as bytes, 20 samples as numbers, two of them invalid, and 12 held-out images.
    fn images(folder: &Path) -> Images {
        let mut stream = Stream::new(SEED, "images");
        let (mut train, samples, held_out) =
            (bytes(&mut stream, 30), bytes(&mut stream, 20), bytes(&mut stream, 12));
        let mut samples = samples.mapv(|v| f32::from(v) / 255.0);
        // Copies across the ends of chunks; a mirrored copy among the samples.
        let first = train.slice(s![0, .., .., ..]).to_owned();
        for i in [6, 7, 13, 14] {
            train.slice_mut(s![i, .., .., ..]).assign(&first);
        }
        samples
            .slice_mut(s![3, .., .., ..])
            .assign(&first.slice(s![.., ..;-1, ..]).mapv(|v| f32::from(v) / 255.0));
        samples[[4, 0, 0, 0]] = f32::NAN;
        samples[[11, 7, 7, 0]] = f32::INFINITY;
        let read = |name: &str| Input::from_path(&folder.join(name)).read().unwrap();
        write_array(&folder.join("D.npy"), &train).unwrap();
        write_array(&folder.join("S.npy"), &samples).unwrap();
        write_array(&folder.join("H.npy"), &held_out).unwrap();
        Images::new(read("D.npy"), read("S.npy"), Some(read("H.npy")))
    }

    fn text(found: &Compared) -> String {
        let mut around: Vec<(&usize, &f64)> = found.around.iter().collect();
        around.sort_by_key(|(row, _)| **row);
        format!(
            "{:?} {:?} {:?} {:?} {around:?}",
            found.neighbours, found.samples, found.held_out, found.within
        )
    }

    #[test]
    fn no_distance_depends_on_what_is_kept_where() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut images = images(folder.path());
        let shape = images.reconcile(Together::default()).unwrap();
        let transformations = Transformation::all(true, 1);
        let network = network();
        for metric in [Metric::L2, Metric::Cosine, Metric::LpipsAlex] {
            let lpips = (metric == Metric::LpipsAlex).then_some(&network);
            let few = if lpips.is_some() { 2 } else { transformations.len() };
            let chosen: Vec<Transformation> =
                transformations.iter().filter(|t| few > 2 || (t.right, t.down) == (0, 0)).copied().collect();
            let pair = Compare {
                images: &images,
                shape,
                metric,
                transformations: &chosen,
                lpips,
                folder: scratch.path(),
            };
            let found = |searched, queries, kept: [bool; 3]| {
                let plan = Plan { blocks: Blocks { searched, queries }, kept: kept.to_vec() };
                let heard = Heard::default();
                let rows = pair.rows(&plan, &heard).unwrap();
                let found = compare(&rows, plan.blocks, DeviceChoice::default(), &Silent).unwrap();
                let heard = heard.0.into_inner().unwrap().join("\n");
                assert_eq!(
                    heard.contains("temporary files"),
                    lpips.is_some() && kept != [true; 3],
                    "{heard}"
                );
                text(&found)
            };
            let whole = found(30, 30, [true; 3]);
            let moved = if few > 2 { 10 } else { 1 };
            assert!(whole.contains(&format!("transformation: {}", chosen.len() - moved)), "{whole}");
            for (searched, queries, kept) in
                [(7, 5, [false, false, false]), (14, 30, [false, true, true]), (30, 4, [true, false, false])]
            {
                assert!(found(searched, queries, kept) == whole, "{metric} {searched} {queries}");
            }
        }
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0, "a temporary file is left");
    }

    #[test]
    fn features_leave_no_file_after_an_error_and_a_full_disk_is_refused_first() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let right = images(folder.path());
        // Real images that are not finite are found when features are searched.
        let images = Images::new(right.synthetic().clone(), right.train().clone(), None);
        let (network, transformations) = (network(), [Transformation::all(false, 0)[0]]);
        let plan = Plan { blocks: Blocks { searched: 7, queries: 5 }, kept: vec![false; 2] };
        let pair = |folder| Compare {
            images: &images,
            shape: images.train().shape(),
            metric: Metric::LpipsAlex,
            transformations: &transformations,
            lpips: Some(&network),
            folder,
        };
        let heard = Heard::default();
        let rows = pair(scratch.path()).rows(&plan, &heard).unwrap();
        let error = compare(&rows, plan.blocks, DeviceChoice::default(), &Silent).unwrap_err();
        drop(rows);
        assert!(error.to_string().contains("row 4"), "{error}");
        let said = heard.0.into_inner().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("training images and samples: 1125KiB in temporary files"), "{said:?}");
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0, "a temporary file is left");

        let missing = scratch.path().join("missing");
        let missing = pair(&missing).rows(&plan, &Silent).map(|_| ()).unwrap_err();
        assert!(missing.to_string().starts_with("make a temporary file in "), "{missing}");
        // This file system has no room at all.
        #[cfg(target_os = "linux")]
        {
            let full = pair(Path::new("/proc")).rows(&plan, &Silent).map(|_| ()).unwrap_err();
            let due = "classify: the lpips-alex features take 1125KiB in /proc, 0B are free; ";
            assert!(full.to_string().starts_with(due), "{full}");
        }
    }
}
