use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::progress::ProgressSink;
use crate::store::{StoreError, check_output, sha256_hex, write_atomic};

/// Finished pieces of a long measurement, one JSON file each with its SHA-256 in the last line, from which a stopped run
/// resumes.
///
/// Only runs with the same fingerprint or settings may share a folder.
///
/// ```
/// use mem2gen::study::context::Cells;
///
/// let folder = tempfile::tempdir().unwrap();
/// let cells = Cells::at(folder.path().join("pieces"));
/// let make = || Ok::<_, mem2gen::Error>(vec![1.0, 2.5]);
/// assert_eq!(cells.get_or_make("images-0-2", make)?, [1.0, 2.5]);
/// assert_eq!(cells.get::<Vec<f64>>("images-0-2"), Some(vec![1.0, 2.5]));
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cells {
    folder: PathBuf,
}

impl Cells {
    /// Pieces in `folder`, which is created by the first write.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Pieces of the result that will be written to `out`, in the folder `out.partial`. Each `identity` has its own
    /// pieces; it states everything that the result depends on.
    ///
    /// # Errors
    /// [`StoreError::Io`] when `out` can't be written, before any work is done.
    pub fn beside(out: &Path, identity: &Value) -> Result<Self, StoreError> {
        check_output(out)?;
        Ok(Self::at(partial(out).join(&sha256_hex(identity.to_string().as_bytes())[..16])))
    }

    /// Removes these pieces of [`Self::beside`], once `out` is written, and the folder `out.partial` unless it has pieces of calls
    /// with other settings: that folder is returned.
    ///
    /// # Errors
    /// As [`Self::clear`].
    pub fn clear_beside(&self, out: &Path) -> Result<Option<PathBuf>, StoreError> {
        self.clear()?;
        let folder = partial(out);
        match std::fs::remove_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(Some(folder)),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &folder)(e)),
            _ => Ok(None),
        }
    }

    /// Pieces of the piece `id`, in a folder of their own.
    pub fn within(&self, id: &str) -> Self {
        Self::at(self.folder.join(id))
    }

    /// The folder of the pieces.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The piece `id`. `None` when it does not exist and when it is damaged or of another form: in each case it is
    /// computed again, and writing it replaces the file.
    pub fn get<T: DeserializeOwned>(&self, id: &str) -> Option<T> {
        let text = std::fs::read_to_string(self.path(id)).ok()?;
        let (piece, sum) = text.rsplit_once('\n')?;
        (sha256_hex(piece.as_bytes()) == sum).then(|| serde_json::from_str(piece).ok())?
    }

    /// Keeps the piece `id`.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be written.
    pub fn put<T: Serialize>(&self, id: &str, piece: &T) -> Result<(), StoreError> {
        write_atomic(&self.path(id), |w| {
            let piece = serde_json::to_string(piece)?;
            write!(w, "{piece}\n{}", sha256_hex(piece.as_bytes()))
        })
    }

    /// The piece `id`, or the result of `make`, which is kept.
    ///
    /// # Errors
    /// Those of `make` and [`Self::put`].
    pub fn get_or_make<T, E>(&self, id: &str, make: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<StoreError>,
    {
        if let Some(piece) = self.get(id) {
            return Ok(piece);
        }
        let piece = make()?;
        self.put(id, &piece)?;
        Ok(piece)
    }

    /// Removes every piece.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder exists and can't be removed.
    pub fn clear(&self) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &self.folder)(e))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

/// The piece `id` of a measurement that keeps its pieces in `cells`, or keeps none. A piece that was kept resumes
/// `steps` of progress; `make` reports its own.
pub(crate) fn piece<T, E>(
    cells: Option<&Cells>,
    id: &str,
    steps: u64,
    progress: &dyn ProgressSink,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: From<StoreError>,
{
    let Some(cells) = cells else { return make() };
    if let Some(piece) = cells.get(id) {
        progress.resume(steps);
        return Ok(piece);
    }
    let piece = make()?;
    cells.put(id, &piece)?;
    Ok(piece)
}

fn partial(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_damaged_piece_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let cells = Cells::at(dir.path().join("run"));
        assert_eq!(cells.get::<Vec<f64>>("a"), None);
        cells.put("a", &vec![1.0, 2.5]).unwrap();
        assert_eq!(cells.get::<Vec<f64>>("a"), Some(vec![1.0, 2.5]));
        let file = cells.folder().join("a.json");
        let good = std::fs::read_to_string(&file).unwrap();
        for bad in [good.replace("2.5", "2.6"), good[..7].to_owned(), String::new()] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(cells.get::<Vec<f64>>("a"), None);
        }
        let again = cells.get_or_make("a", || Ok::<_, StoreError>(vec![3.0])).unwrap();
        assert_eq!((again, cells.get::<Vec<f64>>("a")), (vec![3.0], Some(vec![3.0])));
        cells.clear().unwrap();
        cells.clear().unwrap();
        assert!(!cells.folder().exists());
    }

    #[test]
    fn pieces_of_different_identities_are_separate() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("T.parquet");
        let beside = |t: usize| Cells::beside(&out, &json!({ "t": t })).unwrap();
        let (one, other) = (beside(1), beside(2));
        one.put("a", &1).unwrap();
        one.within("a").put("b", &2).unwrap();
        assert_eq!((one.get::<i32>("a"), other.get::<i32>("a")), (Some(1), None));
        assert_eq!(one.within("a").get::<i32>("b"), Some(2));
        // Pieces of a call with other settings stay.
        other.put("a", &3).unwrap();
        assert_eq!(one.clear_beside(&out).unwrap(), Some(dir.path().join("T.parquet.partial")));
        assert_eq!((one.get::<i32>("a"), other.get::<i32>("a")), (None, Some(3)));
        assert_eq!(other.clear_beside(&out).unwrap(), None);
        assert!(!dir.path().join("T.parquet.partial").exists());
        assert_eq!(other.clear_beside(&out).unwrap(), None);
    }
}
