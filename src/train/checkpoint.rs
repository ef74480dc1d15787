//! Checkpoints: the state of training in one file with a checksum.
//!
//! A file consists of a line with its format, the length of the header (8 bytes, little-endian), the header as JSON, the
//! four vectors of [`State`] in single precision, little-endian, and the SHA-256 of all bytes before it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TrainError;
use super::adam::State;
use crate::store::{self, StoreError, from_json, write_atomic};

const MAGIC: &[u8] = b"mem2gen checkpoint 1\n";
const SUM: usize = 32;
/// Number of elements that are converted together.
const PIECE: usize = 1 << 14;
const ENDING: &str = "checkpoint";
/// Appended to the name of a damaged checkpoint.
const DAMAGED: &str = "damaged";
/// Number of checkpoints that are kept.
const KEPT: usize = 2;

/// One row of metrics, for an interval of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// Last step of the interval.
    pub step: u64,
    /// Mean loss.
    pub loss: f64,
    /// Mean norm of the gradient before clipping.
    pub gradient: f64,
    /// Rows per second.
    pub rate: f64,
    /// Seconds of training up to the last step, summed over interruptions.
    pub seconds: f64,
}

/// Sums over an unfinished interval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stretch {
    /// Number of steps.
    pub steps: u64,
    /// Sum of losses.
    pub loss: f64,
    /// Sum of gradient norms.
    pub gradient: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Header of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Number of steps taken.
    pub step: u64,
    /// Key of the run, see [`super::TrainParams::key`].
    pub key: String,
    /// Settings of the run.
    pub settings: serde_json::Value,
    /// Metrics so far.
    pub metrics: Vec<MetricsRow>,
    /// The unfinished interval after them.
    pub stretch: Stretch,
    /// Seconds of training.
    pub seconds: f64,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The header.
    pub header: Header,
    /// The vectors.
    pub state: State,
}

/// Writes bytes and computes their checksum.
struct Summed<'a> {
    to: &'a mut dyn Write,
    sum: Sha256,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    key: String,
    /// Lengths of the vectors.
    len: usize,
    trained: usize,
}

impl Checkpoints {
    /// Checkpoints in `folder` of the run with this key, whose network has `len` parameters, of which `trained` are trained.
    pub fn new(folder: PathBuf, key: String, len: usize, trained: usize) -> Self {
        Self { folder, key, len, trained }
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:010}.{ENDING}"))
    }

    /// Steps and files, the newest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(StoreError::io("list", &self.folder))?,
        };
        let mut found = vec![];
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &self.folder))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(&format!(".{ENDING}")));
            if let Some(step) = step.and_then(|s| s.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Writes a checkpoint, and removes all but the last two.
    ///
    /// # Errors
    /// [`TrainError::Store`].
    pub fn put(&self, header: &Header, state: &State) -> Result<PathBuf, TrainError> {
        let path = self.path(header.step);
        write_atomic(&path, |to| {
            let mut to = Summed { to, sum: Sha256::new() };
            let text = serde_json::to_vec(header)?;
            to.put(MAGIC)?;
            to.put(&(text.len() as u64).to_le_bytes())?;
            to.put(&text)?;
            let mut bytes = Vec::with_capacity(4 * PIECE);
            for (_, values) in state.parts() {
                for piece in values.chunks(PIECE) {
                    bytes.clear();
                    bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
                    to.put(&bytes)?;
                }
            }
            let sum = to.sum.finalize();
            to.to.write_all(&sum)
        })?;
        for (_, old) in self.list()?.into_iter().skip(KEPT) {
            fs::remove_file(&old).map_err(StoreError::io("remove", &old))?;
        }
        Ok(path)
    }

    /// The newest intact checkpoint, and the errors of newer, damaged ones.
    ///
    /// # Errors
    /// [`TrainError::Store`] when the folder can't be read.
    pub fn newest(&self) -> Result<(Option<Checkpoint>, Vec<TrainError>), TrainError> {
        let mut damaged = vec![];
        for (step, path) in self.list()? {
            match self.read(step, &path) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(e) => damaged.push(e),
            }
        }
        Ok((None, damaged))
    }

    /// The checkpoint of a step; `None` when it does not exist or is damaged.
    pub fn of_step(&self, step: u64) -> Option<Checkpoint> {
        self.read(step, &self.path(step)).ok()
    }

    /// The step of the newest checkpoint, intact or not.
    pub fn newest_step(&self) -> Option<u64> {
        self.list().ok()?.first().map(|(step, _)| *step)
    }

    /// Renames damaged checkpoints and removes temporary files. The caller has to hold the lock of the run.
    ///
    /// # Errors
    /// [`TrainError::Store`].
    pub fn tidy(&self, damaged: &[TrainError]) -> Result<(), TrainError> {
        for error in damaged {
            if let TrainError::Checkpoint { path, .. } = error {
                let aside = path.with_extension(format!("{ENDING}.{DAMAGED}"));
                fs::rename(path, &aside).map_err(StoreError::io("rename", path))?;
            }
        }
        clear_temporary(&self.folder)
    }

    fn read(&self, step: u64, path: &Path) -> Result<Checkpoint, TrainError> {
        let bad = |reason: &str| TrainError::Checkpoint { path: path.into(), reason: reason.into() };
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => bad("is truncated"),
            _ => bad(&e.to_string()),
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut from = BufReader::with_capacity(1 << 16, file);
        let mut sum = Sha256::new();
        let mut take = |bytes: &mut [u8]| {
            from.read_exact(bytes).map_err(io)?;
            sum.update(&*bytes);
            Ok::<_, TrainError>(())
        };
        let (mut magic, mut size) = ([0; MAGIC.len()], [0; 8]);
        take(&mut magic)?;
        if magic != MAGIC {
            return Err(bad("is not a checkpoint of this format"));
        }
        take(&mut size)?;
        let vectors = 8 * (self.len + self.trained) as u64;
        let fixed = (MAGIC.len() + size.len() + SUM) as u64 + vectors;
        // Nothing is allocated for the header before its length agrees with that of the file.
        let size = u64::from_le_bytes(size);
        if length.checked_sub(fixed) != Some(size) {
            return Err(bad(&format!(
                "has {length} bytes, expected {fixed} and a header of {size}; it is truncated or belongs to another network"
            )));
        }
        let mut text = vec![0; size as usize];
        take(&mut text)?;
        let mut state = State {
            weights: vec![0.0; self.len],
            ema: vec![0.0; self.len],
            first: vec![0.0; self.trained],
            second: vec![0.0; self.trained],
        };
        let mut bytes = vec![0; 4 * PIECE];
        for values in [&mut state.weights, &mut state.ema, &mut state.first, &mut state.second] {
            for piece in values.chunks_mut(PIECE) {
                let bytes = &mut bytes[..4 * piece.len()];
                take(bytes)?;
                for (v, b) in piece.iter_mut().zip(bytes.as_chunks().0) {
                    *v = f32::from_le_bytes(*b);
                }
            }
        }
        let mut stored = [0; SUM];
        from.read_exact(&mut stored).map_err(io)?;
        if sum.finalize().as_slice() != stored {
            return Err(bad("does not match its checksum"));
        }
        let header: Header = from_json(&text).map_err(|e| bad(&e))?;
        if header.key != self.key {
            return Err(bad("belongs to a run with other settings"));
        }
        if header.step != step {
            return Err(bad(&format!("was written at step {}, expected the step in its name", header.step)));
        }
        Ok(Checkpoint { header, state })
    }
}

/// Removes temporary files that interrupted writers left in a folder.
pub(super) fn clear_temporary(folder: &Path) -> Result<(), TrainError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(StoreError::io("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        if entry.file_name().to_string_lossy().starts_with(store::TEMPORARY) {
            fs::remove_file(entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::repeat_with;

    const LEN: usize = 2 * PIECE + 5;
    const TRAINED: usize = LEN - 3;

    fn header(step: u64) -> Header {
        let row = MetricsRow { step, loss: 0.1, gradient: 1.0 / 3.0, rate: 5e3, seconds: 2.5 };
        Header {
            step,
            key: "key".into(),
            settings: serde_json::json!({"seed": 1}),
            metrics: vec![row; step as usize],
            stretch: Stretch { steps: 3, loss: 1.0 / 7.0, gradient: 0.2, seconds: 1e-3 },
            seconds: 1.0 / 3.0,
        }
    }

    fn state(seed: u64) -> State {
        let mut stream = crate::random::Stream::new(seed, "state");
        let mut some = |n| repeat_with(|| stream.normal() as f32).take(n).collect::<Vec<_>>();
        State { weights: some(LEN), ema: some(LEN), first: some(TRAINED), second: some(TRAINED) }
    }

    fn checkpoints(folder: &Path) -> Checkpoints {
        Checkpoints::new(folder.join("checkpoints"), "key".into(), LEN, TRAINED)
    }

    #[test]
    fn the_newest_is_read_to_the_bit_and_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        assert_eq!(all.newest().unwrap().0, None);
        for step in [2, 9, 10, 100] {
            all.put(&header(step), &state(step)).unwrap();
            let (newest, damaged) = all.newest().unwrap();
            assert_eq!(newest.unwrap(), Checkpoint { header: header(step), state: state(step) });
            assert!(damaged.is_empty());
        }
        let steps: Vec<u64> = all.list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [100, 10]);
    }

    /// The newest of two checkpoints, damaged, is reported and skipped.
    #[test]
    fn damage_of_every_kind_leads_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        all.put(&header(1), &state(1)).unwrap();
        let path = all.put(&header(2), &state(2)).unwrap();
        let whole = fs::read(&path).unwrap();
        let text = MAGIC.len() + 8;
        let falls_back = |bytes: &[u8], word: &str| {
            fs::write(&path, bytes).unwrap();
            let (newest, damaged) = all.newest().unwrap();
            assert_eq!(newest.unwrap().header.step, 1);
            let [error] = &damaged[..] else { panic!("{damaged:?}") };
            let message = error.to_string();
            assert!(message.contains("step-0000000002") && message.contains(word), "{message}");
        };
        for length in [0, 5, text - 1, text + 10, whole.len() / 2, whole.len() - 1] {
            falls_back(&whole[..length], "is truncated");
        }
        falls_back(&[&whole[..], b"more"].concat(), "expected");
        for place in [text + 3, text + 400, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[place] ^= 4;
            falls_back(&bytes, "checksum");
        }
        let mut bytes = whole.clone();
        bytes[0] ^= 1;
        falls_back(&bytes, "not a checkpoint");
        // A header of more bytes than there is memory.
        let mut bytes = whole.clone();
        bytes[text - 8..text].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        falls_back(&bytes, "expected");
        fs::copy(all.path(1), &path).unwrap();
        falls_back(&fs::read(&path).unwrap(), "written at step 1");

        let other = Checkpoints { key: "other".into(), ..checkpoints(dir.path()) };
        let (newest, damaged) = other.newest().unwrap();
        assert!(newest.is_none() && damaged[1].to_string().contains("other settings"), "{damaged:?}");
        let smaller = Checkpoints { len: LEN - 1, ..checkpoints(dir.path()) };
        assert!(smaller.newest().unwrap().0.is_none());
    }

    #[test]
    fn damaged_ones_are_put_aside_and_halves_removed() {
        let dir = tempfile::tempdir().unwrap();
        let all = checkpoints(dir.path());
        all.put(&header(1), &state(1)).unwrap();
        let path = all.put(&header(7), &state(7)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
        fs::write(all.folder.join(".mem2gen-half"), b"half").unwrap();
        let (_, damaged) = all.newest().unwrap();
        all.tidy(&damaged).unwrap();
        let mut names: Vec<_> = fs::read_dir(&all.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["step-0000000001.checkpoint", "step-0000000007.checkpoint.damaged"]);
        // Otherwise a damaged checkpoint would replace an intact one among the last two.
        all.put(&header(3), &state(3)).unwrap();
        all.put(&header(5), &state(5)).unwrap();
        let steps: Vec<u64> = all.list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [5, 3]);
    }
}
