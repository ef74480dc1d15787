//! Icons of Iconify's packages, matched with names and drawn.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::data::DataError;
use crate::data::fetch::{CHUNK, Step};
use crate::data::idx::Images;
use crate::data::registry::Entry;
use crate::store::{self, cut_reason, from_json, quoted, sha256_hex};

use super::names::{Named, Names, code_points};
use super::{FILES, Picture, Vendor};

/// Width and height of an icon whose package gives none.
const SIDE: f64 = 16.0;

/// Icons of one vendor: `icons.json`.
#[derive(Deserialize)]
struct IconSet {
    icons: BTreeMap<String, Icon>,
    width: Option<f64>,
    height: Option<f64>,
}

/// One icon: the inside of an SVG, and the rectangle of it that is shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Icon {
    body: String,
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    /// Whether icon pickers leave it out.
    #[serde(default, rename = "hidden")]
    _hidden: bool,
}

/// How many icons were drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Pictures drawn.
    pub pictures: usize,
    /// Icons whose code points have no name, which were left out.
    pub unnamed: usize,
    /// Pictures with the pixels of an earlier one.
    pub repeats: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pictures, unnamed, repeats } = self;
        write!(
            f,
            "drew {pictures} pictures, of which {repeats} equal an earlier one; left out {unnamed} icons without a name in \
             unicode-emoji-json"
        )
    }
}

/// Drawn icons.
#[derive(Debug)]
pub struct Drawn {
    /// The pictures, RGB on white.
    pub images: Images,
    /// What is known about each.
    pub pictures: Vec<Picture>,
}

/// The files of the packages, which have the checksums of the registry: tiny-skia ends the process for some damaged paths.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Packages {
    /// Reads [`FILES`] from a folder of packages and verifies each. `sums` are their SHA-256 in the same order.
    ///
    /// # Errors
    /// [`DataError::MissingFile`] for a missing file, [`DataError::Package`] for one with another checksum.
    pub fn read(entry: &Entry, sums: &[&str; 8], folder: &Path) -> Result<Self, DataError> {
        let mut files = BTreeMap::new();
        for (file, &expected) in FILES.into_iter().zip(sums) {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(DataError::MissingFile {
                    name: entry.name.to_owned(),
                    folder: folder.to_path_buf(),
                    tried: file.to_owned(),
                });
            }
            let bytes = store::read_file(&path)?;
            let found = sha256_hex(&bytes);
            if found != expected {
                let package = entry.source.package_of(file);
                return Err(DataError::Package { path, package, expected: expected.to_owned(), found });
            }
            files.insert(file, bytes);
        }
        Ok(Self { folder: folder.to_path_buf(), files })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// One of [`FILES`].
    pub(super) fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, DataError> {
        from_json(&self.files[file]).map_err(|reason| DataError::Icons { path: self.path(file), reason })
    }

    /// Draws all named icons at `side` x `side` pixels.
    ///
    /// # Errors
    /// [`DataError::Icons`] for a file of another form and an icon that can't be drawn.
    pub fn draw(&self, side: usize, progress: &mut dyn FnMut(Step)) -> Result<Drawn, DataError> {
        let names = Names::read(self)?;
        progress(Step::Reading(self.folder.clone()));
        let mut found = Vec::new();
        let mut unnamed = 0;
        for vendor in Vendor::ALL {
            let [icons, chars] = vendor.files();
            let bad = |file: &str, reason: String| DataError::Icons { path: self.path(file), reason };
            let mut set: IconSet = self.json(icons)?;
            let by_code: BTreeMap<String, String> = self.json(chars)?;
            for (code, icon_name) in by_code {
                let shown = || quoted(&code);
                let points = code_points(&code)
                    .ok_or_else(|| bad(chars, format!("{} is not a list of code points", shown())))?;
                let Some(named) = names.find(&points) else {
                    unnamed += 1;
                    continue;
                };
                let icon = set.icons.remove(&icon_name).ok_or_else(|| {
                    bad(
                        chars,
                        format!("{} names {}, which is not an icon of its own", shown(), quoted(&icon_name)),
                    )
                })?;
                let svg = svg(&icon, [set.width, set.height], side);
                let Named { caption, base, group, tone, at } = named;
                let picture = Picture { caption, base, group, vendor, tone, code };
                found.push((at, picture, icon_name, svg));
            }
        }
        found.sort_by(|(a, x, ..), (b, y, ..)| {
            (a, x.tone, &x.code, x.vendor).cmp(&(b, y.tone, &y.code, y.vendor))
        });
        let (mut pixels, mut pictures) = (Vec::with_capacity(found.len() * 3 * side * side), Vec::new());
        let total = found.len();
        let mut rest = found.into_iter();
        while pictures.len() < total {
            let chunk: Vec<_> = rest.by_ref().take(CHUNK).collect();
            let drawn: Vec<Result<Vec<u8>, String>> =
                chunk.par_iter().map(|(.., svg)| rasterise(svg, side)).collect();
            for ((_, picture, icon, _), drawn) in chunk.into_iter().zip(drawn) {
                pixels.extend(drawn.map_err(|reason| DataError::Icons {
                    path: self.path(picture.vendor.files()[0]),
                    reason: format!("icon {} can't be drawn: {}", quoted(&icon), cut_reason(&reason)),
                })?);
                pictures.push(picture);
            }
            progress(Step::Decoding { done: pictures.len(), total });
        }
        let mut seen = HashSet::new();
        let repeats = pixels.chunks_exact(3 * side * side).filter(|&picture| !seen.insert(picture)).count();
        progress(Step::Drawn(Tally { pictures: total, unnamed, repeats }));
        let images = Images { count: total, height: side, width: side, channels: 3, pixels };
        Ok(Drawn { images, pictures })
    }
}

/// The whole SVG of an icon: its rectangle fits into the picture and lies in the centre.
fn svg(icon: &Icon, size: [Option<f64>; 2], side: usize) -> String {
    let [width, height] = [icon.width.or(size[0]), icon.height.or(size[1])].map(|v| v.unwrap_or(SIDE));
    let [left, top] = [icon.left, icon.top].map(|v| v.unwrap_or(0.0));
    let body = &icon.body;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{side}\" \
         height=\"{side}\" viewBox=\"{left} {top} {width} {height}\">{body}</svg>"
    )
}

/// Draws an SVG of `side` x `side` pixels on white: values in the order row, column, channel.
fn rasterise(svg: &str, side: usize) -> Result<Vec<u8>, String> {
    let tree = Tree::from_str(svg, &Options::default()).map_err(|e| e.to_string())?;
    let mut canvas = u32::try_from(side)
        .ok()
        .and_then(|side| Pixmap::new(side, side))
        .ok_or_else(|| format!("{side} pixels are too many"))?;
    canvas.fill(Color::WHITE);
    resvg::render(&tree, Transform::identity(), &mut canvas.as_mut());
    // On an opaque ground every pixel stays opaque, so that premultiplied values are the values.
    Ok(canvas
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[red, green, blue, _]| [red, green, blue])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn icon(body: &str, size: [Option<f64>; 2]) -> Icon {
        let [width, height] = size;
        Icon { body: body.into(), left: None, top: None, width, height, _hidden: false }
    }

    #[test]
    fn an_icon_fills_the_picture_and_keeps_its_proportions() {
        let red = icon("<path fill=\"#f00\" d=\"M0 0h8v8H0z\"/>", [None, None]);
        let pixels = rasterise(&svg(&red, [Some(8.0), Some(8.0)], 4), 4).unwrap();
        assert_eq!(pixels, [255, 0, 0].repeat(16));
        // Twice as wide as high: white above and below.
        let wide = icon("<path fill=\"#f00\" d=\"M0 0h8v4H0z\"/>", [Some(8.0), Some(4.0)]);
        let pixels = rasterise(&svg(&wide, [None, None], 4), 4).unwrap();
        let (white, red) = ([255; 12].to_vec(), [255, 0, 0].repeat(8));
        assert_eq!(pixels, [&white[..], &red, &white].concat());
        // Half transparent black on white.
        let grey = icon("<path opacity=\".5\" d=\"M0 0h16v16H0z\"/>", [None, None]);
        let pixels = rasterise(&svg(&grey, [None, None], 1), 1).unwrap();
        assert!(pixels == [127; 3] || pixels == [128; 3], "{pixels:?}");
    }

    #[test]
    fn damage_is_an_error() {
        let cut = icon("<path d=\"M0 0h8", [None, None]);
        assert!(rasterise(&svg(&cut, [None, None], 4), 4).is_err());
    }
}
