use ndarray::{ArcArray2, Array2, ArrayView2, Axis};

use std::collections::HashSet;

use super::settings::DataSettings;
use super::{DoseSettings, Dosed, TrainError};
use crate::data::emoji::pictures;
use crate::data::{DataError, Dataset, ImageSet, Input, Range, Split, find, load, subset};
use crate::memory::toy::points;
use crate::net::text::Embeddings;
use crate::project::Layout;
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::{rows_sha256, sha256_hex};

/// The training set as networks take it, `[K, N]`, with images in the order row, column, channel.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingData {
    rows: ArcArray2<f32>,
    shape: Shape,
    files: Option<Vec<String>>,
    captions: Option<Captions>,
}

/// What a conditional network is trained with beside the rows.
#[derive(Debug, Clone, PartialEq)]
struct Captions {
    /// `[K, C]`.
    vectors: Array2<f32>,
    /// `[K]`.
    doses: Vec<f64>,
}

/// The data set from which a training set is taken, read once: the training set is its first K rows in the order of the
/// nested training sets.
///
/// ```
/// use mem2gen::data::Input;
/// use mem2gen::store::write_array;
/// use mem2gen::train::TrainingSource;
/// use ndarray::Array3;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_array(&path, &Array3::from_shape_fn((5, 2, 2), |(i, y, x)| (40 * i + y + x) as u8))?;
///
/// let source = TrainingSource::from_files(Input::from_path(&path), Some(3))?;
/// assert_eq!((source.training()?.len(), source.held_out(10_000)?.len()), (3, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TrainingSource {
    settings: DataSettings,
    images: Images,
}

#[derive(Debug, Clone)]
enum Images {
    /// The training split of a data set of the registry, the size of its images in training, and the folders in which its
    /// test split is.
    Registered(Dataset, usize, Layout),
    /// Pictures of a data set with captions, the size of images in training, the rows of the training set and the vectors of
    /// their captions.
    Captioned(Dataset, usize, Vec<Dosed>, Array2<f32>),
    /// The user's own images.
    Own(ImageSet),
    /// Points of the toy model.
    Toy,
}

impl TrainingSource {
    /// Reads the data set of a training set.
    ///
    /// # Errors
    /// Errors of [`load`] and [`Input::read`]; [`TrainError::UnknownData`] for the unknown training set of an imported
    /// network.
    pub fn open(layout: &Layout, settings: &DataSettings) -> Result<Self, TrainError> {
        match settings {
            DataSettings::Images { dataset, size, k } => Self::from_dataset(layout, dataset, *size, Some(*k)),
            DataSettings::Captions { dataset, size, doses } => {
                Self::from_doses(layout, dataset, *size, doses.clone())
            }
            DataSettings::Files { images, k } => Self::from_files(images.clone(), Some(*k)),
            DataSettings::Toy { .. } => Ok(Self { settings: settings.clone(), images: Images::Toy }),
            DataSettings::Unknown => Err(TrainError::UnknownData),
        }
    }

    /// Reads a data set of the registry, of which the first `k` images are trained on, or all, reduced to `size`.
    ///
    /// # Errors
    /// Errors of [`load`].
    pub fn from_dataset(
        layout: &Layout,
        dataset: &str,
        size: usize,
        k: Option<usize>,
    ) -> Result<Self, TrainError> {
        let images = load(layout, dataset, Split::Train)?;
        let k = k.unwrap_or(images.len());
        let settings = DataSettings::Images { dataset: dataset.to_owned(), size, k };
        Ok(Self { settings, images: Images::Registered(images, size, layout.clone()) })
    }

    /// Reads a data set of pictures with captions, of which each is seen as often as its dose says, reduced to `size`.
    ///
    /// # Errors
    /// Errors of [`load`], [`pictures`], [`DoseSettings::allot`] and [`Embeddings::of_emoji`].
    pub fn from_doses(
        layout: &Layout,
        dataset: &str,
        size: usize,
        doses: DoseSettings,
    ) -> Result<Self, TrainError> {
        let rows = doses.allot(&pictures(layout, find(dataset)?)?)?;
        let images = load(layout, dataset, Split::Train)?;
        let known = Embeddings::of_emoji(layout)?;
        let mut vectors = Array2::zeros((rows.len(), known.rows().ncols()));
        for (row, mut vector) in rows.iter().zip(vectors.outer_iter_mut()) {
            vector.assign(&known.find(&row.caption)?);
        }
        let settings = DataSettings::Captions { dataset: dataset.to_owned(), size, doses };
        Ok(Self { settings, images: Images::Captioned(images, size, rows, vectors) })
    }

    /// Caption, part and dose of each row; `None` for a training set without captions.
    pub fn dosed(&self) -> Option<&[Dosed]> {
        match &self.images {
            Images::Captioned(_, _, rows, _) => Some(rows),
            Images::Registered(..) | Images::Own(_) | Images::Toy => None,
        }
    }

    /// Reads the user's own images, of which the first `k` are trained on, or all.
    ///
    /// # Errors
    /// Errors of [`Input::read`]; [`DataError::NotImages`] for vectors.
    pub fn from_files(images: Input, k: Option<usize>) -> Result<Self, TrainError> {
        let set = images.read()?;
        if set.shape().is_none() {
            let reason = format!(
                "its rows are vectors of {} values, expected images: arrays of shape [n, height, width] or [n, height, \
                 width, channels], or pictures",
                set.length()
            );
            return Err(DataError::NotImages { path: set.path().to_path_buf(), reason }.into());
        }
        let k = k.unwrap_or(set.len());
        Ok(Self { settings: DataSettings::Files { images, k }, images: Images::Own(set) })
    }

    /// The settings of the training set.
    pub fn settings(&self) -> &DataSettings {
        &self.settings
    }

    /// What was read of own images, in one line; `None` for other data sets.
    pub fn said(&self) -> Option<String> {
        match &self.images {
            Images::Own(images) => Some(images.said()),
            Images::Registered(..) | Images::Captioned(..) | Images::Toy => None,
        }
    }

    /// Training set size K that is asked for.
    pub fn k(&self) -> usize {
        match &self.images {
            Images::Captioned(_, _, rows, _) => rows.len(),
            _ => self.settings.k().expect("an unknown training set has no source"),
        }
    }

    /// Number of rows of which the training set is a part.
    pub fn count(&self) -> usize {
        match &self.images {
            Images::Registered(images, ..) | Images::Captioned(images, ..) => images.len(),
            Images::Own(images) => images.len(),
            Images::Toy => self.k(),
        }
    }

    /// The training set.
    ///
    /// # Errors
    /// [`DataError::SubsetSize`] for a K of 0 or above [`Self::count`]; [`TrainError::Setting`] for a size that does not
    /// divide that of the images and values that are not finite; errors of [`points`] and [`ImageSet::symmetric`].
    pub fn training(&self) -> Result<TrainingData, TrainError> {
        match &self.images {
            Images::Toy => self.rows(&(0..self.k()).collect::<Vec<_>>()),
            Images::Captioned(_, _, rows, vectors) => {
                let data = self.rows(&rows.iter().map(|row| row.picture).collect::<Vec<_>>())?;
                data.with_captions(vectors.clone(), rows.iter().map(|row| row.dose).collect())
            }
            _ => self.rows(&subset::indices(self.count(), self.k())?),
        }
    }

    /// At most `most` images that are not in the training set: the first of the test split, or, for own images and data
    /// sets without a test split, those that follow in the order of the nested training sets.
    ///
    /// # Errors
    /// [`TrainError::NoneHeldOut`] when there is none; else as [`Self::training`].
    pub fn held_out(&self, most: usize) -> Result<TrainingData, TrainError> {
        if let Images::Registered(_, size, layout) = &self.images
            && self.has_test_split()
        {
            let test = load(layout, &self.settings.name(), Split::Test)?;
            let first: Vec<usize> = (0..test.len().min(most)).collect();
            return TrainingData::of_images(&test.select(&first)?, *size);
        }
        let none = |reason: String| Err(TrainError::NoneHeldOut { reason });
        let (count, k) = (self.count(), self.k());
        if matches!(self.images, Images::Toy) {
            return none("the toy model has none".to_owned());
        }
        if k >= count {
            return none(format!(
                "all {count} images of {} are in the training set; give other images, or train with a --k below {count}",
                self.settings.name()
            ));
        }
        if let Some(dosed) = self.dosed() {
            let seen: HashSet<usize> = dosed.iter().map(|row| row.picture).collect();
            let rest = subset::order(count).into_iter().filter(|picture| !seen.contains(picture));
            return self.rows(&rest.take(most).collect::<Vec<_>>());
        }
        self.rows(&subset::order(count)[k..count.min(k.saturating_add(most))])
    }

    /// Where [`Self::held_out`] takes its images from, in words.
    pub fn held_out_from(&self) -> String {
        let name = self.settings.name();
        match self.has_test_split() {
            true => format!("the test split of {name}"),
            false => format!("the images of {name} that are not in the training set"),
        }
    }

    fn has_test_split(&self) -> bool {
        matches!(&self.settings, DataSettings::Images { dataset, .. }
            if find(dataset).is_ok_and(|entry| entry.test.is_some()))
    }

    /// Rows of the data set.
    fn rows(&self, rows: &[usize]) -> Result<TrainingData, TrainError> {
        match &self.images {
            Images::Registered(images, size, _) | Images::Captioned(images, size, ..) => {
                TrainingData::of_images(&images.select(rows)?, *size)
            }
            Images::Own(images) => {
                let shape = images.shape().expect("`from_files` refuses vectors");
                let made = TrainingData::new(images.symmetric(rows)?, shape)?;
                let named = |files: &[String]| rows.iter().map(|&row| files[row].clone()).collect();
                Ok(TrainingData { files: images.files().map(named), ..made })
            }
            Images::Toy => {
                let points = points(self.k())?.select(Axis(0), rows);
                TrainingData::new(points.mapv(|v| v as f32), Shape::vector(2))
            }
        }
    }
}

impl TrainingData {
    /// Reads the training set: a data set from the cache, own images from their files, or the points of the toy model.
    ///
    /// # Errors
    /// As [`TrainingSource::open`] and [`TrainingSource::training`].
    pub fn load(layout: &Layout, settings: &DataSettings) -> Result<Self, TrainError> {
        TrainingSource::open(layout, settings)?.training()
    }

    /// Images in [-1, 1], reduced to `size` rows and columns by means over squares of pixels.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a size that does not divide that of the images.
    pub fn of_images(images: &Dataset, size: usize) -> Result<Self, TrainError> {
        let from = images.shape();
        if size == 0 || !from.height.is_multiple_of(size) || !from.width.is_multiple_of(size) {
            return Err(SettingError::new(
                "training",
                "data.size",
                size,
                format!("a divisor of {} and {}", from.height, from.width),
            )
            .into());
        }
        let (down, across) = (from.height / size, from.width / size);
        let shape = Shape::image(size, size, from.channels);
        let stored = images.images();
        let area = (down * across) as f64;
        let rows = Array2::from_shape_fn((images.len(), shape.len()), |(i, place)| {
            let (row, column, channel) =
                (place / (size * from.channels), place / from.channels % size, place % from.channels);
            let mut sum = 0.0;
            for y in row * down..(row + 1) * down {
                for x in column * across..(column + 1) * across {
                    sum +=
                        Range::Symmetric.value(stored[[i, (y * from.width + x) * from.channels + channel]]);
                }
            }
            (sum / area) as f32
        });
        Self::new(rows, shape)
    }

    /// A training set from rows `[K, N]` of this shape.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for 0 rows, rows of another length, and values that are not finite.
    pub fn new(rows: Array2<f32>, shape: Shape) -> Result<Self, TrainError> {
        let refused = |value: String, need: String| {
            TrainError::from(SettingError::new("training", "data", value, need))
        };
        if rows.nrows() == 0 || rows.ncols() != shape.len() || shape.is_empty() {
            return Err(refused(format!("{:?}", rows.dim()), format!("[K, {}] with K above 0", shape.len())));
        }
        if let Some(((row, column), v)) = rows.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(refused(format!("{v} in row {row}, column {column}"), "finite numbers".into()));
        }
        let rows = if rows.is_standard_layout() { rows } else { rows.as_standard_layout().into_owned() };
        Ok(Self { rows: rows.into_shared(), shape, files: None, captions: None })
    }

    /// The same rows with a caption's vector for each, `[K, C]`, and a dose for each, `[K]`: training draws rows with
    /// probabilities in proportion to their doses.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for another number of vectors or doses, no columns, values that are not finite, and doses that
    /// are not above 0.
    pub fn with_captions(self, vectors: Array2<f32>, doses: Vec<f64>) -> Result<Self, TrainError> {
        let refused = |setting: &'static str, value: String, need: String| {
            Err(SettingError::new("training", setting, value, need).into())
        };
        let k = self.len();
        if vectors.nrows() != k || vectors.ncols() == 0 {
            let need = format!("[{k}, C] with C above 0, a row for each of {k} images");
            return refused("captions", format!("of shape {:?}", vectors.dim()), need);
        }
        if let Some(((row, _), v)) = vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return refused("captions", format!("{v} in row {row}"), "finite numbers".into());
        }
        if doses.len() != k {
            return refused("doses", format!("{} numbers", doses.len()), format!("{k}, one for each image"));
        }
        if let Some(dose) = doses.iter().find(|dose| !(dose.is_finite() && **dose > 0.0)) {
            return refused("doses", dose.to_string(), "finite numbers above 0".into());
        }
        let vectors = vectors.as_standard_layout().into_owned();
        Ok(Self { captions: Some(Captions { vectors, doses }), ..self })
    }

    /// The captions' vectors, `[K, C]`; `None` for a training set without captions.
    pub fn captions(&self) -> Option<ArrayView2<'_, f32>> {
        self.captions.as_ref().map(|captions| captions.vectors.view())
    }

    /// The dose of each row; `None` for a training set without captions, whose rows are drawn equally often.
    pub fn doses(&self) -> Option<&[f64]> {
        self.captions.as_ref().map(|captions| &captions.doses[..])
    }

    /// The rows, `[K, N]`.
    pub fn rows(&self) -> &ArcArray2<f32> {
        &self.rows
    }

    /// Shape of a row.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Name of the file of each row; `None` for images that do not come from files of their own.
    pub fn files(&self) -> Option<&[String]> {
        self.files.as_deref()
    }

    /// Number of rows, K.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Whether there are no rows, which [`Self::new`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of the values in single precision, little-endian, row by row. With captions, that of three sums in
    /// hexadecimal: of the rows, of the captions' vectors and of the doses, these in double precision.
    pub fn sha256(&self) -> String {
        let rows = rows_sha256(self.rows.view());
        let Some(Captions { vectors, doses }) = &self.captions else { return rows };
        let doses: Vec<u8> = doses.iter().flat_map(|dose| dose.to_le_bytes()).collect();
        sha256_hex([rows, rows_sha256(vectors.view()), sha256_hex(&doses)].concat().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    #[test]
    fn smaller_images_are_means_of_squares() {
        let shape = crate::shape::Shape { height: 4, width: 4, channels: 3 };
        let stored = Array2::from_shape_fn((2, 48), |(i, j)| (5 * j + 7 * i) as u8);
        let images = Dataset::new(shape, stored.clone(), Array1::zeros(2)).unwrap();
        let whole = TrainingData::of_images(&images, 4).unwrap();
        assert_eq!(whole.rows(), &images.to_f32(Range::Symmetric));
        let half = TrainingData::of_images(&images, 2).unwrap();
        assert_eq!((half.shape(), half.len()), (Shape::image(2, 2, 3), 2));
        // Second image, second row, first column, third channel: rows 2 and 3, columns 0 and 1.
        let mean = [26, 29, 38, 41].map(|j| f64::from(stored[[1, j]])).iter().sum::<f64>() / 4.0;
        assert!((f64::from(half.rows()[[1, 8]]) - (mean / 127.5 - 1.0)).abs() < 1e-7);
        for size in [0, 3, 8] {
            let error = TrainingData::of_images(&images, size).unwrap_err();
            assert!(
                matches!(error, TrainError::Setting(SettingError { ref setting, .. }) if setting == "data.size"),
                "{error}"
            );
        }
    }

    #[test]
    fn own_images_are_the_first_of_the_permutation_and_the_rest_is_held_out() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at("nowhere");
        let bytes = ndarray::Array3::from_shape_fn((9, 2, 3), |(i, y, x)| (28 * i + 3 * y + x) as u8);
        let path = dir.path().join("a.npy");
        crate::store::write_array(&path, &bytes).unwrap();
        let images = Input::from_path(&path);
        let at = |k| DataSettings::Files { images: images.clone(), k };
        let source = TrainingSource::open(&layout, &at(4)).unwrap();
        assert_eq!((source.k(), source.count()), (4, 9));
        let (data, rest) = (source.training().unwrap(), source.held_out(100).unwrap());
        assert_eq!((data.shape(), data.len(), rest.len()), (Shape::image(2, 3, 1), 4, 5));
        let order = subset::order(9);
        for (rows, numbers) in [(data.rows(), &order[..4]), (rest.rows(), &order[4..])] {
            for (row, i) in rows.outer_iter().zip(numbers) {
                let due = bytes.index_axis(Axis(0), *i).mapv(|v| Range::Symmetric.value(v) as f32);
                assert!(row.iter().eq(due.iter()));
            }
        }
        assert_eq!(source.held_out(2).unwrap().rows(), &rest.rows().slice(ndarray::s![..2, ..]));
        // Each set contains every smaller one, and in [0, 1] the values agree up to rounding.
        let larger = TrainingData::load(&layout, &at(6)).unwrap();
        assert_eq!(larger.rows().slice(ndarray::s![..4, ..]), data.rows());
        let floats = bytes.mapv(|v| f32::from(v) / 255.0);
        crate::store::write_array(&path, &floats).unwrap();
        let same = TrainingData::load(&layout, &at(4)).unwrap();
        assert!(same.rows().iter().zip(data.rows()).all(|(a, b)| (a - b).abs() < 1e-6));

        let all = TrainingSource::from_files(images.clone(), None).unwrap();
        assert!(matches!(all.held_out(1), Err(TrainError::NoneHeldOut { .. })));
        for k in [0, 10] {
            let error = TrainingData::load(&layout, &at(k)).unwrap_err();
            assert!(matches!(error, TrainError::Data(DataError::SubsetSize { n: 9, .. })), "{error}");
        }
        let mut bad = floats;
        bad.fill(f32::NAN);
        crate::store::write_array(&path, &bad).unwrap();
        assert!(TrainingData::load(&layout, &at(4)).is_err());
    }

    #[test]
    fn toy_points_are_loaded_and_bad_rows_are_refused() {
        let layout = Layout::at("nowhere");
        let toy = TrainingData::load(&layout, &DataSettings::Toy { k: 9 }).unwrap();
        assert_eq!((toy.shape(), toy.len()), (Shape::vector(2), 9));
        assert_ne!(toy.sha256(), TrainingData::load(&layout, &DataSettings::Toy { k: 8 }).unwrap().sha256());
        assert!(TrainingData::load(&layout, &DataSettings::Toy { k: 0 }).is_err());
        for rows in [Array2::zeros((0, 2)), Array2::zeros((3, 3)), Array2::from_elem((1, 2), f32::NAN)] {
            assert!(TrainingData::new(rows, Shape::vector(2)).is_err());
        }
    }
}
