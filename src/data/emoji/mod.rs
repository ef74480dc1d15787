//! Pictures of emoji with captions, drawn from the icons of three vendors.
//!
//! Each picture is one emoji of one vendor. Its caption is the emoji's name in the package `unicode-emoji-json`, followed by
//! its skin tones. The label of a picture is its
//! [`Group`]. Pictures of the same emoji by several vendors, and those that differ in the [`SkinTone`] alone, are near
//! duplicates; they share [`Picture::base`].
//!
//! The order is that of `data-ordered-emoji.json` in the package `unicode-emoji-json`; of one emoji the picture without
//! a skin tone comes first, then the tones from light to dark, then two different tones in the order of their code
//! points; of one emoji and tone, the vendors follow in the order of [`Vendor::ALL`].
//!
//! `resvg` draws each icon at 32x32 on white. Its rasteriser `tiny-skia` chooses instructions when it is compiled, not when
//! it runs, and adds, multiplies and takes roots by IEEE's rules; sines and powers come from the C library. So processors
//! of x86-64 give the same pixels with one build of the program. Other processors are not promised to: where a pixel differs,
//! the fetch fails with the checksum that it found.

mod draw;
mod names;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use draw::{Drawn, Packages, Tally};

use crate::project::Layout;
use crate::store::{self, from_json, sha256_hex};

use super::registry::{Entry, Files};
use super::{DataError, folder, manifest};

/// Version of the format of the captions.
const FORMAT: u32 = 1;

/// The files that are read from a folder of packages.
pub const FILES: [&str; 8] = [
    "@iconify-json/noto/icons.json",
    "@iconify-json/noto/chars.json",
    "@iconify-json/twemoji/icons.json",
    "@iconify-json/twemoji/chars.json",
    "@iconify-json/fluent-emoji-flat/icons.json",
    "@iconify-json/fluent-emoji-flat/chars.json",
    names::NAMES,
    names::ORDER,
];

/// Who drew an icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// Noto Emoji of Google.
    Noto,
    /// Twemoji of Twitter.
    Twemoji,
    /// Fluent Emoji Flat of Microsoft.
    Fluent,
}

impl Vendor {
    /// All vendors, in the order of pictures.
    pub const ALL: [Self; 3] = [Self::Noto, Self::Twemoji, Self::Fluent];

    /// The files with its icons, and with the names of icons by code points.
    const fn files(self) -> [&'static str; 2] {
        let first = 2 * self as usize;
        [FILES[first], FILES[first + 1]]
    }
}

/// Skin tone of a person or of a part of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkinTone {
    /// Type 1-2 of the Fitzpatrick scale.
    Light,
    /// Type 3.
    MediumLight,
    /// Type 4.
    Medium,
    /// Type 5.
    MediumDark,
    /// Type 6.
    Dark,
    /// Two people of different tones.
    Mixed,
}

impl SkinTone {
    /// The five tones of one person, from light to dark.
    pub const FIVE: [Self; 5] = [Self::Light, Self::MediumLight, Self::Medium, Self::MediumDark, Self::Dark];

    /// The name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light skin tone",
            Self::MediumLight => "medium-light skin tone",
            Self::Medium => "medium skin tone",
            Self::MediumDark => "medium-dark skin tone",
            Self::Dark => "dark skin tone",
            Self::Mixed => "mixed skin tones",
        }
    }
}

/// Unicode's group of an emoji, which is the label of its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// Label 0.
    #[serde(rename = "Smileys & Emotion")]
    Smileys,
    /// Label 1.
    #[serde(rename = "People & Body")]
    People,
    /// Label 2.
    #[serde(rename = "Animals & Nature")]
    Nature,
    /// Label 3.
    #[serde(rename = "Food & Drink")]
    Food,
    /// Label 4.
    #[serde(rename = "Travel & Places")]
    Travel,
    /// Label 5.
    Activities,
    /// Label 6.
    Objects,
    /// Label 7.
    Symbols,
    /// Label 8.
    Flags,
}

impl Group {
    /// The label of pictures of this group.
    pub const fn label(self) -> u8 {
        self as u8
    }
}

/// What is known about one picture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Name of the emoji with its skin tones, as in `waving hand: light skin tone`.
    pub caption: String,
    /// The name without a skin tone; all pictures of one emoji have the same.
    pub base: String,
    /// The group of the emoji.
    pub group: Group,
    /// Who drew it.
    pub vendor: Vendor,
    /// Its skin tone; `None` for a picture without one, which vendors draw in yellow.
    pub tone: Option<SkinTone>,
    /// Code points in hexadecimal, joined by hyphens, as in the vendor's package.
    pub code: String,
}

/// The file of captions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Captions {
    format: u32,
    pictures: Vec<Picture>,
}

/// What is known about each picture of a data set of emoji in the cache, in the order of its images.
///
/// # Errors
/// [`DataError::Absent`] when it was not fetched, [`DataError::Icons`] for a data set without captions, and the variant of
/// any damage.
pub fn pictures(layout: &Layout, entry: &Entry) -> Result<Vec<Picture>, DataError> {
    manifest::read(layout, entry)?;
    let Files::Emoji { captions, captions_sha256, .. } = entry.files else {
        let reason = format!("{} has no captions; name a data set of emoji", entry.name);
        return Err(DataError::Icons { path: folder(layout, entry), reason });
    };
    let path = folder(layout, entry).join(captions);
    read_captions(&path, &store::read_file(&path)?, captions_sha256)
}

/// The distinct names without skin tones, in the order of the pictures.
///
/// ```
/// use mem2gen::data::emoji::{Group, Picture, Vendor, bases};
///
/// let picture = |base: &str, vendor| Picture {
///     caption: base.into(),
///     base: base.into(),
///     group: Group::Food,
///     vendor,
///     tone: None,
///     code: "1f34e".into(),
/// };
/// let pictures = [picture("red apple", Vendor::Noto), picture("red apple", Vendor::Twemoji), picture("pear", Vendor::Noto)];
/// assert_eq!(bases(&pictures), ["red apple", "pear"]);
/// ```
pub fn bases(pictures: &[Picture]) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    pictures.iter().map(|picture| picture.base.as_str()).filter(|&base| seen.insert(base)).collect()
}

/// Reads captions and verifies the checksum of their file.
pub(super) fn read_captions(path: &Path, bytes: &[u8], sha256: &str) -> Result<Vec<Picture>, DataError> {
    let found = sha256_hex(bytes);
    if found != sha256 {
        return Err(DataError::Sum { path: path.to_path_buf(), expected: sha256.to_owned(), found });
    }
    let bad = |reason| DataError::Icons { path: path.to_path_buf(), reason };
    let captions: Captions = from_json(bytes).map_err(bad)?;
    match captions.format {
        FORMAT => Ok(captions.pictures),
        other => Err(bad(format!("format {other}, expected {FORMAT}"))),
    }
}

/// The text of the file of captions, one picture a line.
pub(super) fn captions_text(pictures: &[Picture]) -> String {
    let line = |picture| serde_json::to_string(picture).expect("text and names of variants are JSON");
    let lines: Vec<String> = pictures.iter().map(line).collect();
    format!("{{\"format\":{FORMAT},\"pictures\":[\n{}\n]}}\n", lines.join(",\n"))
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noto => "noto",
            Self::Twemoji => "twemoji",
            Self::Fluent => "fluent",
        })
    }
}
