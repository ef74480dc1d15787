use ndarray::{ArcArray2, Array2};

use super::TrainError;
use super::settings::DataSettings;
use crate::data::{Dataset, Range, Split, load};
use crate::memory::toy::points;
use crate::project::Layout;
use crate::setting::SettingError;
use crate::shape::Shape;
use crate::store::rows_sha256;

/// The training set as networks take it, `[K, N]`, with images in the order row, column, channel.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingData {
    rows: ArcArray2<f32>,
    shape: Shape,
}

impl TrainingData {
    /// Reads the training set from the cache, or computes the points of the toy model.
    ///
    /// # Errors
    /// Errors of [`load`], [`Dataset::subset`] and [`points`]; [`TrainError::Setting`] for a size that does not divide that
    /// of the images; [`TrainError::UnknownData`] for the unknown training set of an imported network.
    pub fn load(layout: &Layout, settings: &DataSettings) -> Result<Self, TrainError> {
        match settings {
            DataSettings::Images { dataset, size, k } => {
                Self::of_images(&load(layout, dataset, Split::Train)?.subset(*k)?, *size)
            }
            DataSettings::Toy { k } => Self::new(points(*k)?.mapv(|v| v as f32), Shape::vector(2)),
            DataSettings::Unknown => Err(TrainError::UnknownData),
        }
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
        Ok(Self { rows: rows.into_shared(), shape })
    }

    /// The rows, `[K, N]`.
    pub fn rows(&self) -> &ArcArray2<f32> {
        &self.rows
    }

    /// Shape of a row.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of rows, K.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Whether there are no rows, which [`Self::new`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of the values in single precision, little-endian, row by row.
    pub fn sha256(&self) -> String {
        rows_sha256(self.rows.view())
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
