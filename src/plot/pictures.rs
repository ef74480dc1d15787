//! Images of a network as picture files: one PNG each, or one sheet of all.

use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ndarray::{Array2, Array3, ArrayView1, ArrayView2};

use super::{Figure, FigureError, ImageGrid, ImageRow, Picture, image_grid, input};
use crate::shape::Shape;
use crate::store::{StoreError, check_output, vacant, write_atomic, write_folder};

/// Largest number of images on a sheet.
const MOST_ON_A_SHEET: usize = 400;

/// What the name of an output says of its form.
///
/// ```
/// use mem2gen::plot::ImageOutput;
/// use std::path::Path;
///
/// let of = |name: &str| ImageOutput::of(Path::new(name));
/// assert_eq!(of("S.npy")?, ImageOutput::Array("S.npy".into()));
/// assert_eq!(of("S.png")?, ImageOutput::Sheet("S.png".into()));
/// assert_eq!(of("S/")?, ImageOutput::Folder("S".into()));
/// assert!(of("S.jpg").is_err());
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOutput {
    /// An array: a name ending in `.npy`.
    Array(PathBuf),
    /// A sheet of all images: a name ending in `.png`.
    Sheet(PathBuf),
    /// A folder with a PNG for each image: a name ending in a slash, or an empty folder.
    Folder(PathBuf),
}

impl ImageOutput {
    /// The form of the output `path`.
    ///
    /// # Errors
    /// [`FigureError::Output`] for another name; [`FigureError::Store`] for a folder that is not empty.
    pub fn of(path: &Path) -> Result<Self, FigureError> {
        let slash = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
        if slash || path.is_dir() {
            vacant(path)?;
            return Ok(Self::Folder(path.components().collect()));
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("npy") => Ok(Self::Array(path.into())),
            Some("png") => Ok(Self::Sheet(path.into())),
            _ => Err(FigureError::Output { path: path.into() }),
        }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Array(path) | Self::Sheet(path) | Self::Folder(path) => path,
        }
    }

    /// Refuses what can't be a picture or written, before long work: other numbers of channels, and too many images for a
    /// sheet. An array takes everything.
    ///
    /// # Errors
    /// [`FigureError::Input`] and [`FigureError::Store`].
    pub fn check(&self, shape: Shape, images: usize) -> Result<(), FigureError> {
        let refused = |reason: String| Err(input(&self.path().display().to_string(), reason));
        if !matches!(self, Self::Folder(_)) {
            check_output(self.path())?;
        }
        match self {
            Self::Array(_) => Ok(()),
            _ if shape.pixels() == 1 || !matches!(shape.channels, 1 | 3) => refused(format!(
                "rows of shape {shape} are not pictures, expected images of 1 or 3 channels; write a .npy array"
            )),
            Self::Sheet(_) if images > MOST_ON_A_SHEET => refused(format!(
                "a sheet of {images} images, expected at most {MOST_ON_A_SHEET}; write one PNG each into a folder, as in --out \
                 DIR/"
            )),
            Self::Sheet(_) | Self::Folder(_) => Ok(()),
        }
    }
}

/// The byte of a value in [-1, 1], rounded; values outside are clamped.
pub(crate) fn byte(value: f32) -> u8 {
    (127.5 * (value.clamp(-1.0, 1.0) + 1.0)).round() as u8
}

/// Writes images in [-1, 1], in parts of rows, into the folder `path`, which must be [`vacant`]: `000000.png` and so on.
/// Values are rounded to bytes.
///
/// # Errors
/// [`FigureError::Store`], also for a part that is one; [`FigureError::Encode`].
pub fn write_pictures(
    path: &Path,
    shape: Shape,
    parts: impl IntoIterator<Item = Result<Array2<f32>, StoreError>>,
) -> Result<(), FigureError> {
    write_folder(path, |folder| {
        let mut count = 0;
        for part in parts {
            for row in part?.outer_iter() {
                let png = png(row, shape)?;
                write_atomic(&folder.join(format!("{count:06}.png")), |w| w.write_all(&png))?;
                count += 1;
            }
        }
        Ok(())
    })
}

/// An image `[N]` in [-1, 1] as PNG, with values rounded to bytes.
fn png(row: ArrayView1<'_, f32>, shape: Shape) -> Result<Vec<u8>, FigureError> {
    bytes_png(&row.iter().map(|v| byte(*v)).collect::<Vec<u8>>(), shape)
}

/// An image of bytes `[N]` as PNG.
///
/// # Errors
/// [`FigureError::Encode`].
pub fn bytes_png(bytes: &[u8], shape: Shape) -> Result<Vec<u8>, FigureError> {
    let colour = if shape.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut out = Vec::new();
    PngEncoder::new(&mut out)
        .write_image(bytes, shape.width as u32, shape.height as u32, colour)
        .map_err(|e| FigureError::Encode { reason: e.to_string() })?;
    Ok(out)
}

/// A sheet of images in [-1, 1], as many in a row as rows.
///
/// # Errors
/// As [`image_grid`].
pub fn sheet(title: &str, rows: ArrayView2<'_, f32>, shape: Shape) -> Result<Figure, FigureError> {
    let pictures: Vec<Picture> = rows
        .outer_iter()
        .map(|row| {
            let value = |(y, x, c)| 0.5 * (row[(y * shape.width + x) * shape.channels + c] + 1.0);
            Picture::new(Array3::from_shape_fn(shape.sizes(), value))
        })
        .collect();
    let columns = (1..=pictures.len()).find(|side| side * side >= pictures.len()).unwrap_or(1);
    let grid = pictures
        .chunks(columns)
        .fold(ImageGrid::new(title), |grid, row| grid.row(ImageRow::new("", row.to_vec())));
    image_grid(&grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_rounded_values() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::image(2, 3, 3);
        let bytes = Array2::from_shape_fn((5, 18), |(i, j)| (50 * i + 13 * j) as u8);
        let rows = bytes.mapv(|v| f32::from(v) / 127.5 - 1.0);
        let parts = rows.axis_chunks_iter(ndarray::Axis(0), 2).map(|part| Ok(part.to_owned()));
        let out = dir.path().join("pictures");
        write_pictures(&out, shape, parts).unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 5);
        for (i, row) in bytes.outer_iter().enumerate() {
            let read = image::open(out.join(format!("{i:06}.png"))).unwrap().into_rgb8();
            assert_eq!((read.width(), read.height()), (3, 2));
            assert_eq!(read.into_raw(), row.to_vec());
        }
        assert_eq!([-7.0, -1.0, 0.0, 1.0, 7.0].map(byte), [0, 0, 128, 255, 255]);
        // A part that can't be read leaves nothing.
        let bad = StoreError::Array { path: "part".into(), reason: "damaged".into() };
        let out = dir.path().join("none");
        write_pictures(&out, shape, [Ok(rows), Err(bad)]).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_sheet_is_about_square_and_has_every_image() {
        let rows = Array2::from_elem((7, 4), 0.25);
        let figure = sheet("seven", rows.view(), Shape::image(2, 2, 1)).unwrap();
        assert!(figure.svg().matches("<image").count() == 7, "{}", figure.svg());
        assert!(figure.width().abs_diff(figure.height()) < 60, "{figure:?}");
    }

    #[test]
    fn outputs_are_refused_before_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| ImageOutput::of(&dir.path().join(name));
        assert!(
            matches!(ImageOutput::of(dir.path()).unwrap(), ImageOutput::Folder(path) if path == dir.path())
        );
        let (array, sheet, folder) = (at("a.NPY").unwrap(), at("a.png").unwrap(), at("a/").unwrap());
        std::fs::write(dir.path().join("b"), b"").unwrap();
        for (name, words) in [("", "not empty"), ("b", ".npy"), ("c.jpg", ".png"), ("b/", "Not a directory")]
        {
            let error = at(name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        let (image, points) = (Shape::image(2, 2, 1), Shape::vector(2));
        for output in [&sheet, &folder] {
            output.check(image, 400).unwrap();
            assert!(output.check(points, 1).is_err() && output.check(Shape::image(2, 2, 4), 1).is_err());
        }
        array.check(points, 1000).unwrap();
        folder.check(image, 401).unwrap();
        assert!(sheet.check(image, 401).unwrap_err().to_string().contains("DIR/"));
    }
}
