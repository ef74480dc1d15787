//! Pictures of folders, archives and tables.

use std::io::Cursor;
use std::path::Path;

use rayon::prelude::*;

use super::{Input, Piece, array, bytes_piece, room};
use crate::data::DataError;
use crate::data::archive::Archive;
use crate::data::image_folder::{self, Background, Listing, Passed, Picture};
use crate::data::image_set::Format;
use crate::display::counted;
use crate::frame::pictures_of_table;
use crate::shape::Shape;

/// Pictures decoded at a time.
const CHUNK: usize = 64;
/// Most bytes of one encoded picture in an archive.
const MOST: u64 = 1 << 30;

/// Pictures of one size, as they are decoded.
#[derive(Debug, Default)]
struct Collected {
    shape: Option<Shape>,
    pixels: Vec<u8>,
    names: Vec<String>,
    passed: Vec<Passed>,
    transparent: usize,
    turned: usize,
    rounded: usize,
    /// First frames and pages of several.
    firsts: usize,
    /// Gray pictures that got three channels.
    gray: usize,
    /// Size of the first picture that was resized.
    resized: Option<Shape>,
}

impl Collected {
    /// Adds a picture; `due` is the number of pictures that come.
    fn add(
        &mut self,
        path: &Path,
        name: String,
        picture: Picture,
        size: Option<usize>,
        due: usize,
    ) -> Result<(), DataError> {
        let original = picture.shape;
        let Picture { shape, pixels, transparent, turned, rounded, first } = match size {
            Some(size) => picture.resized(size),
            None => picture,
        };
        if shape != original {
            self.resized.get_or_insert(original);
        }
        let kept = match self.shape {
            Some(kept) => kept,
            None => {
                room(path, due, (due as u64).saturating_mul(shape.len() as u64))?;
                self.pixels.reserve_exact(due * shape.len());
                *self.shape.insert(shape)
            }
        };
        if (kept.height, kept.width) != (shape.height, shape.width) {
            return Err(DataError::Unclear {
                path: path.to_path_buf(),
                reason: format!(
                    "{} is {}x{} and {} is {}x{} (height x width); bring them to one size with --size N",
                    image_folder::shown(&name),
                    shape.height,
                    shape.width,
                    image_folder::shown(&self.names[0]),
                    kept.height,
                    kept.width
                ),
            });
        }
        // Gray images get three channels when another image has colour.
        if kept.channels < shape.channels {
            room(path, due, 3 * (due as u64).saturating_mul(kept.len() as u64))?;
            self.pixels = self.pixels.iter().flat_map(|v| [*v; 3]).collect();
            self.gray = self.names.len();
            self.shape = Some(shape);
        }
        if shape.channels < kept.channels {
            self.pixels.extend(pixels.into_iter().flat_map(|v| [v; 3]));
            self.gray += 1;
        } else {
            self.pixels.extend(pixels);
        }
        self.names.push(name);
        self.transparent += usize::from(transparent);
        self.turned += usize::from(turned);
        self.rounded += usize::from(rounded);
        self.firsts += usize::from(first);
        Ok(())
    }

    fn piece(
        self,
        input: &Input,
        path: &Path,
        format: Format,
        others: Vec<String>,
    ) -> Result<Piece, DataError> {
        let said = input.allow(path, self.names.len(), &self.passed)?;
        let Some(shape) = self.shape else { return Err(image_folder::none(path)) };
        let mut notes = others;
        if let (Some(old), Some(size)) = (self.resized, input.options.size) {
            notes.push(filter(old, size));
        }
        let background = input.options.background.name();
        for (count, what) in [
            (self.transparent, format!("with transparent pixels were laid on {background}")),
            (self.turned, "were turned as EXIF says".to_owned()),
            (self.gray, "are gray and were given three channels".to_owned()),
            (self.rounded, "of more than 8 bits were rounded to 8".to_owned()),
            (self.firsts, "have several frames or pages, of which the first was read".to_owned()),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        notes.extend(said);
        let count = self.names.len();
        Ok(Piece { names: Some(self.names), notes, ..bytes_piece(format, Some(shape), count, self.pixels) })
    }
}

/// How images are resized.
pub(super) fn filter(old: Shape, size: usize) -> String {
    format!(
        "resized from {}x{} to {size}x{size} by box halvings and an antialiased bicubic filter, cropped in the centre",
        old.height, old.width
    )
}

/// Images of bytes, each resized.
pub(super) fn resized(pixels: &[u8], shape: Shape, size: usize) -> Vec<u8> {
    let one = |image: &[u8]| {
        let image = image.to_vec();
        Picture { shape, pixels: image, transparent: false, turned: false, rounded: false, first: false }
            .resized(size)
            .pixels
    };
    pixels.par_chunks_exact(shape.len()).flat_map_iter(one).collect()
}

/// Colours of red, green, blue and alpha laid on a background, and whether some were transparent.
pub(super) fn laid(rgba: &[u8], background: Background) -> (Vec<u8>, bool) {
    let some = rgba.as_chunks::<4>().0.iter().any(|p| p[3] < u8::MAX);
    (
        rgba.as_chunks::<4>()
            .0
            .iter()
            .flat_map(|[r, g, b, a]| [*r, *g, *b].map(|v| background.lay(v, *a)))
            .collect(),
        some,
    )
}

impl Input {
    /// The pictures of a folder.
    pub(super) fn folder(&self, path: &Path, found: Listing) -> Result<Piece, DataError> {
        let mut all = Collected { passed: found.passed, ..Collected::default() };
        let background = self.options.background;
        let due = found.pictures.len();
        for files in found.pictures.chunks(CHUNK) {
            let decoded: Vec<_> = files.par_iter().map(|file| image_folder::read(file, background)).collect();
            for (file, picture) in files.iter().zip(decoded) {
                match picture {
                    Ok(picture) => {
                        let name = image_folder::name_below(path, file);
                        all.add(path, name, picture, self.options.size, due)?;
                    }
                    Err(e) => all.passed.push(Passed::new(path, file, &e)),
                }
            }
        }
        let mut notes = Vec::new();
        if found.mixed {
            notes.push("from folders of several depths".to_owned());
        }
        if found.others > 0 {
            notes.push(not_images(found.others));
        }
        all.piece(self, path, Format::Folder, notes)
    }

    /// A file that is one picture.
    pub(super) fn single(&self, path: &Path, bytes: &[u8]) -> Result<Piece, DataError> {
        let picture = image_folder::decode_whole(path, bytes, self.options.background)?;
        let mut all = Collected::default();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        all.add(path, name, picture, self.options.size, 1)?;
        all.piece(self, path, Format::Picture, vec![])
    }

    /// A zip archive: of arrays (npz), of `torch.save`, or of pictures.
    pub(super) fn zip(&self, path: &Path, bytes: &[u8]) -> Result<Piece, DataError> {
        let bad = |reason: String| array(path, reason);
        let mut archive = Archive::open(Cursor::new(bytes)).map_err(bad)?;
        let mut names: Vec<String> = archive.names().map(str::to_owned).collect();
        names.sort();
        if names.iter().any(|name| name == "data.pkl" || name.ends_with("/data.pkl")) {
            return self.torch(path, bytes);
        }
        let real = |name: &&String| {
            !name.ends_with('/')
                && !name.split('/').any(|part| part != ".." && image_folder::ignored(part.as_ref()))
        };
        let names: Vec<&String> = names.iter().filter(real).collect();
        if !names.is_empty() && names.iter().all(|name| name.ends_with(".npy")) {
            return self.npz(path, archive, &names);
        }
        let mut all = Collected::default();
        let mut others = 0;
        let background = self.options.background;
        let due = names.len();
        for names in names.chunks(CHUNK) {
            let mut files = Vec::new();
            for name in names {
                match archive.read(name, MOST) {
                    Ok(file)
                        if image_folder::is_image(&file)
                            || image_folder::looks_like_image(Path::new(name)) =>
                    {
                        files.push((*name, file));
                    }
                    Ok(_) => others += 1,
                    Err(reason) => all.passed.push(Passed { name: (*name).clone(), reason }),
                }
            }
            let decoded: Vec<_> = files
                .par_iter()
                .map(|(_, file)| image_folder::decode_whole(path, file, background))
                .collect();
            for ((name, _), picture) in files.into_iter().zip(decoded) {
                match picture {
                    Ok(picture) => all.add(path, name.clone(), picture, self.options.size, due)?,
                    Err(e) => all.passed.push(Passed::named(name, &e)),
                }
            }
        }
        let notes = if others > 0 { vec![not_images(others)] } else { vec![] };
        all.piece(self, path, Format::Zip, notes)
    }

    /// A parquet table with a column of pictures, as Hugging Face writes it.
    pub(super) fn parquet(&self, path: &Path, bytes: Vec<u8>) -> Result<Piece, DataError> {
        let found = pictures_of_table(path, bytes, self.tensor.as_deref()).map_err(|e| array(path, e))?;
        let mut all = Collected::default();
        let background = self.options.background;
        let due = found.len();
        let named = |i: usize, name: &Option<String>| name.clone().unwrap_or_else(|| i.to_string());
        for (at, chunk) in found.chunks(CHUNK).enumerate() {
            let decoded: Vec<_> = chunk
                .par_iter()
                .map(|(file, _)| file.as_ref().map(|file| image_folder::decode_whole(path, file, background)))
                .collect();
            for (i, ((_, name), picture)) in chunk.iter().zip(decoded).enumerate() {
                let name = named(at * CHUNK + i, name);
                match picture {
                    Some(Ok(picture)) => all.add(path, name, picture, self.options.size, due)?,
                    Some(Err(e)) => all.passed.push(Passed::named(&name, &e)),
                    None => all.passed.push(Passed { name, reason: "no image in this row".into() }),
                }
            }
        }
        all.piece(self, path, Format::Parquet, vec![])
    }
}

fn not_images(count: usize) -> String {
    let verb = if count == 1 { "is no image" } else { "are no images" };
    format!("{} that {verb}", counted(count, "file"))
}
