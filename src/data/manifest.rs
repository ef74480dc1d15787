//! The manifest of a fetched data set, which is written last, and the checks against it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::project::Layout;
use crate::store::{self, from_json};

use super::registry::{Entry, Files, SplitSpec};
use super::{DataError, Dataset, Split, decode, folder};

/// Version of the manifest's format.
const FORMAT: u32 = 1;
const FILE: &str = "manifest.json";

/// Name, source and checksums of a fetched data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// The data set.
    pub name: String,
    /// Source of the files, as text.
    pub source: String,
    /// Number of images and checksum of each split.
    pub splits: BTreeMap<Split, Record>,
}

/// One fetched split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Number of images.
    pub images: usize,
    /// SHA-256 of the decoded arrays, as [`SplitSpec::sha256`].
    pub sha256: String,
}

/// State of a data set in the cache.
#[derive(Debug)]
pub enum State {
    /// All files are present and their checksums are right.
    Present(Manifest),
    /// No file is present.
    Absent,
    /// Files are missing or damaged.
    Damaged(DataError),
}

impl Manifest {
    pub(super) fn new(entry: &Entry, source: String) -> Self {
        Self { format: FORMAT, name: entry.name.to_owned(), source, splits: BTreeMap::new() }
    }

    pub(super) fn record(&mut self, split: Split, data: &Dataset) {
        self.splits.insert(split, Record { images: data.len(), sha256: data.sha256() });
    }

    /// Compares the checksum of decoded data with the manifest's and, where it has one, the registry's.
    pub(super) fn verify(&self, entry: &Entry, split: Split, data: &Dataset) -> Result<(), DataError> {
        let found = data.sha256();
        let noted = self.splits.get(&split).map(|record| record.sha256.as_str());
        let known = specs(entry).find(|(s, _)| *s == split).and_then(|(_, spec)| spec.sha256);
        let noted = noted.unwrap_or("missing in the manifest");
        for expected in known.into_iter().chain([noted]) {
            if expected != found {
                return Err(DataError::Checksum {
                    name: entry.name.to_owned(),
                    split,
                    expected: expected.to_owned(),
                    found,
                });
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, layout: &Layout, entry: &Entry) -> Result<(), DataError> {
        let path = path(layout, entry);
        store::write_atomic(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, self).map_err(io::Error::from)?;
            out.write_all(b"\n")
        })?;
        Ok(())
    }
}

/// The splits of an entry.
pub(super) fn specs(entry: &Entry) -> impl Iterator<Item = (Split, SplitSpec)> {
    [Some((Split::Train, entry.train)), entry.test.map(|spec| (Split::Test, spec))].into_iter().flatten()
}

/// Names of the files of an entry in the cache.
pub(super) fn stored(entry: &Entry) -> Vec<&'static str> {
    match entry.files {
        Files::Idx { train, test } => {
            let test = entry.test.map_or(vec![], |_| vec![test.0, test.1]);
            [vec![train.0, train.1], test].concat()
        }
        Files::CifarBatches { train, test } => [train, test].concat(),
        Files::ImageFolder { train } => vec![train],
        Files::Emoji { train, captions, .. } => vec![train, captions],
    }
}

pub(super) fn path(layout: &Layout, entry: &Entry) -> PathBuf {
    folder(layout, entry).join(FILE)
}

/// Reads the manifest of a data set.
///
/// # Errors
/// [`DataError::Absent`] when neither manifest nor data files exist; [`DataError::Manifest`] when it is missing beside data
/// files, unreadable, of another version or of another data set.
pub(super) fn read(layout: &Layout, entry: &Entry) -> Result<Manifest, DataError> {
    let path = path(layout, entry);
    let folder = folder(layout, entry);
    let bad = |reason: String| DataError::Manifest { path: path.clone(), reason };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let alone = stored(entry).iter().all(|name| !folder.join(name).exists());
            return Err(if alone {
                let from = match entry.source {
                    super::registry::Source::UserFiles => " --from DIR",
                    _ => "",
                };
                DataError::Absent { name: entry.name.to_owned(), folder, from }
            } else {
                bad(format!("missing, but data files exist; run 'mem2gen data fetch {}' again", entry.name))
            });
        }
        Err(e) => return Err(DataError::io("open", &path)(e)),
    };
    let manifest: Manifest = from_json(&text).map_err(bad)?;
    if manifest.format != FORMAT {
        return Err(bad(format!("format {}, expected {FORMAT}", manifest.format)));
    }
    if manifest.name != entry.name {
        return Err(bad(format!("data set '{}', expected '{}'", manifest.name, entry.name)));
    }
    Ok(manifest)
}

/// Decodes all splits of a data set and compares them with their checksums.
///
/// # Errors
/// [`DataError::Absent`] when it was not fetched, otherwise the first damage found.
pub fn check(layout: &Layout, entry: &Entry) -> Result<Manifest, DataError> {
    let manifest = read(layout, entry)?;
    let folder = folder(layout, entry);
    for (split, _) in specs(entry) {
        manifest.verify(entry, split, &decode(entry, split, &folder, &BTreeMap::new())?)?;
    }
    Ok(manifest)
}

/// The result of [`check`] as a state.
pub fn state(layout: &Layout, entry: &Entry) -> State {
    match check(layout, entry) {
        Ok(manifest) => State::Present(manifest),
        Err(DataError::Absent { .. }) => State::Absent,
        Err(damage) => State::Damaged(damage),
    }
}
