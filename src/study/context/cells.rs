use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{StoreError, write_atomic};

/// Finished pieces of a long analysis, a JSON file each, so that a killed run goes on where it was.
///
/// The folder has to be one that only runs of the same fingerprint share.
#[derive(Debug, Clone)]
pub struct Cells {
    folder: PathBuf,
}

impl Cells {
    /// Pieces in `folder`, made on the first write.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the pieces lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The piece `id` if it is there and whole.
    pub fn get<T: DeserializeOwned>(&self, id: &str) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.path(id)).ok()?).ok()
    }

    /// Keeps the piece `id`.
    ///
    /// # Errors
    /// [`StoreError`] where it can't be written.
    pub fn put<T: Serialize>(&self, id: &str, piece: &T) -> Result<(), StoreError> {
        write_atomic(&self.path(id), |w| Ok(serde_json::to_writer(w, piece)?))
    }

    /// Forgets every piece.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the folder is there and can't be removed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_piece_counts_as_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let cells = Cells::at(dir.path().join("run"));
        assert_eq!(cells.get::<Vec<f64>>("a"), None);
        cells.put("a", &vec![1.0, 2.5]).unwrap();
        assert_eq!(cells.get::<Vec<f64>>("a"), Some(vec![1.0, 2.5]));
        std::fs::write(cells.folder().join("a.json"), b"[1.0, 2").unwrap();
        assert_eq!(cells.get::<Vec<f64>>("a"), None);
        cells.clear().unwrap();
        cells.clear().unwrap();
        assert!(!cells.folder().exists());
    }
}
