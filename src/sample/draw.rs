use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis, concatenate};
use serde_json::Value;

use super::{Flow, Rk45, SampleError, ancestral, ddim, euler_maruyama, start};
use crate::process::{Process, Steps};
use crate::progress::ProgressSink;
use crate::random::Streams;
use crate::score::{Score, ScoreError};
use crate::store::{
    Matrix, StoreError, disk_left, read_matrix, rows_sha256, write_array, write_atomic, write_rows,
};

/// Version of the values that [`Draw`] computes. It increases with every change of a value, as it identifies partial
/// results.
pub const VERSION: u32 = 1;

/// A sampler with its levels or tolerances.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// [`ancestral`].
    Ancestral(Steps),
    /// [`ddim`].
    Ddim(Steps),
    /// [`euler_maruyama`].
    EulerMaruyama(Steps),
    /// [`Flow::carry`] from T to the time `end`.
    Flow {
        /// The integrator.
        solver: Rk45,
        /// The last time.
        end: f64,
    },
}

/// Draws samples by their index: sample i does not depend on the others.
pub struct Draw<'a> {
    /// The score.
    pub score: &'a dyn Score,
    /// The process of the score.
    pub process: &'a dyn Process,
    /// The sampler.
    pub sampler: Sampler,
    /// Bound of each value of the predicted x_0, or of the samples of a sampler that predicts none; `None` for no bound.
    pub clip: Option<f64>,
    /// Seed of the starting points and of all noise.
    pub seed: u64,
}

/// What [`Draw::draw`] reused of an earlier call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Number of samples of an earlier call that are kept.
    pub kept: usize,
    /// Whether unfinished samples with other settings were removed.
    pub dropped: bool,
}

impl Draw<'_> {
    /// The samples with these indices, `[n, N]`. Reports [`Self::work`] steps of progress.
    ///
    /// # Errors
    /// Errors of the sampler, with the index of the sample.
    pub fn samples(
        &self,
        range: Range<usize>,
        progress: &dyn ProgressSink,
    ) -> Result<Array2<f64>, SampleError> {
        let first = range.start;
        let mut streams = Streams::new(self.seed, "sample", range);
        let x = start(self.process, self.score.dim(), &mut streams);
        let (score, process) = (self.score, self.process);
        let drawn = match &self.sampler {
            Sampler::Ancestral(steps) => ancestral(score, steps, x, self.clip, &mut streams, progress),
            Sampler::Ddim(steps) => ddim(score, steps, x, self.clip, progress),
            Sampler::EulerMaruyama(steps) => euler_maruyama(score, process, steps, x, &mut streams, progress),
            Sampler::Flow { solver, end } => {
                let flow = Flow { score, process, solver: *solver };
                flow.carry(x, (process.horizon(), *end), progress).map(|solution| solution.y)
            }
        };
        let mut x = drawn.map_err(|e| e.of_samples_from(first))?;
        if let Some(clip) = self.clip {
            x.mapv_inplace(|v| v.clamp(-clip, clip));
        }
        Ok(x)
    }

    /// Steps of progress for a batch of this size.
    pub fn work(&self, samples: usize) -> u64 {
        match &self.sampler {
            Sampler::Ancestral(steps) | Sampler::Ddim(steps) | Sampler::EulerMaruyama(steps) => {
                steps.levels().len() as u64 - 1
            }
            Sampler::Flow { .. } => samples as u64,
        }
    }

    /// Steps of progress for `n` samples in batches of `batch`.
    pub fn total(&self, n: usize, batch: usize) -> u64 {
        let (whole, rest) = (n / batch.max(1), n % batch.max(1));
        let last = if rest == 0 { 0 } else { self.work(rest) };
        self.work(batch).saturating_mul(whole as u64).saturating_add(last)
    }

    /// The batches of [`Self::write`]: the first `n` samples in batches of `batch`.
    pub fn parts(n: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
        (0..n).step_by(batch.max(1)).map(move |from| from..n.min(from + batch.max(1)))
    }

    /// Writes the first `n` samples as .npy, `[n, N]` in single precision, in batches of `batch`, which are drawn as by
    /// [`Self::draw`]. The file does not depend on the batch size.
    ///
    /// # Errors
    /// As [`Self::draw`]; [`SampleError::Store`].
    pub fn write(
        &self,
        out: &Path,
        n: usize,
        batch: usize,
        settings: &Value,
        progress: &dyn ProgressSink,
    ) -> Result<Resumed, SampleError> {
        let drawn = self.draw(out, n, batch, settings, progress)?;
        write_rows(out, (n, self.score.dim()), drawn.parts())?;
        Ok(drawn.finish())
    }

    /// Draws the first `n` samples for the output `out`, in batches of `batch`.
    ///
    /// Finished batches are kept in the folder `OUT.partial` until [`DrawnSamples::finish`], so that the next call resumes after
    /// an interruption. `settings` are everything that the samples depend on; batches with other settings are removed.
    ///
    /// # Errors
    /// As [`Self::samples`]; [`SampleError::Busy`] when another process draws for the same output;
    /// [`SampleError::Store`].
    pub fn draw(
        &self,
        out: &Path,
        n: usize,
        batch: usize,
        settings: &Value,
        progress: &dyn ProgressSink,
    ) -> Result<DrawnSamples, SampleError> {
        let (partial, mut resumed) = Partial::open(out, settings)?;
        let kept = partial.bytes();
        if let Err(e) = self.check_disk(out, n, &partial.path, kept) {
            if kept == 0 {
                partial.remove();
            }
            return Err(e.into());
        }
        let mut files = Vec::new();
        for range in Self::parts(n, batch) {
            let file = partial.path.join(format!("{PART}{:09}-{:09}.npy", range.start, range.end));
            if part(&file, range.len(), self.score.dim()).is_ok() {
                resumed.kept += range.len();
                progress.resume(self.work(range.len()));
            } else {
                match self.samples(range.clone(), progress) {
                    Ok(samples) => write_part(&file, &samples.mapv(|v| v as f32))?,
                    Err(e) if files.is_empty() => {
                        partial.remove();
                        return Err(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            files.push((file, range.len()));
        }
        Ok(DrawnSamples { partial, files, dim: self.score.dim(), resumed })
    }

    /// Refuses more samples than the disk of `folder` has room for: once in parts, of which `kept` bytes are there, and once in
    /// the output.
    fn check_disk(&self, out: &Path, n: usize, folder: &Path, kept: u64) -> Result<(), StoreError> {
        let bytes = (n as u64).saturating_mul(4 * self.score.dim() as u64);
        let needed = bytes.saturating_mul(2).saturating_sub(kept);
        let Some(free) = disk_left(folder).filter(|free| *free < needed) else { return Ok(()) };
        let reason =
            format!("{n} samples need {needed} bytes of the disk, {free} are free; draw fewer with -n");
        Err(StoreError::io("write", out)(io::Error::new(io::ErrorKind::StorageFull, reason)))
    }
}

/// Samples of [`Draw::draw`] in the files of their batches.
pub struct DrawnSamples {
    partial: Partial,
    files: Vec<(PathBuf, usize)>,
    dim: usize,
    resumed: Resumed,
}

impl DrawnSamples {
    /// The batches in order, in single precision.
    pub fn parts(&self) -> impl Iterator<Item = Result<Array2<f32>, StoreError>> + '_ {
        self.files.iter().map(|(file, rows)| part(file, *rows, self.dim))
    }

    /// All samples, `[n, N]`, in memory.
    ///
    /// # Errors
    /// [`StoreError`] for a batch that can't be read again.
    pub fn rows(&self) -> Result<Array2<f32>, StoreError> {
        let parts = self.parts().collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        Ok(concatenate(Axis(0), &views).expect("batches have rows of one length, and there is at least one"))
    }

    /// Removes the files, after the output was written from them.
    pub fn finish(self) -> Resumed {
        self.partial.remove();
        self.resumed
    }
}

const PART: &str = "part-";
/// Ending of the file with the checksum of a part.
const SUM: &str = "sha256";
const SETTINGS: &str = "settings.json";
const LOCK: &str = "lock";

/// Writes a part, then its checksum.
fn write_part(file: &Path, rows: &Array2<f32>) -> Result<(), StoreError> {
    write_array(file, rows)?;
    write_atomic(&file.with_extension(SUM), |w| write!(w, "{}", rows_sha256(rows.view())))
}

/// Rows of a finished part of the expected size, as its checksum records them.
fn part(file: &Path, rows: usize, dim: usize) -> Result<Array2<f32>, StoreError> {
    let bad = |reason: String| StoreError::Array { path: file.into(), reason };
    let part = match read_matrix(file)? {
        Matrix::F32(part) if part.dim() == (rows, dim) => part,
        other => return Err(bad(format!("{:?}, expected [{rows}, {dim}] of float32", other.dim()))),
    };
    let sum = file.with_extension(SUM);
    if fs::read_to_string(&sum).map_err(StoreError::io("open", &sum))? != rows_sha256(part.view()) {
        return Err(bad(format!("its samples are not those of {}; call the command again", sum.display())));
    }
    Ok(part)
}

/// The folder of finished parts, locked for this process.
struct Partial {
    path: PathBuf,
    _lock: File,
}

impl Partial {
    fn open(out: &Path, settings: &Value) -> Result<(Self, Resumed), SampleError> {
        let mut name = out.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        fs::create_dir_all(&path).map_err(StoreError::io("make folder", &path))?;
        let file = path.join(LOCK);
        let open = File::options().create(true).truncate(false).write(true).open(&file);
        let lock = open.map_err(StoreError::io("open", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SampleError::Busy { path }),
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &file)(e).into()),
        }
        let partial = Self { path, _lock: lock };
        let file = partial.path.join(SETTINGS);
        let there = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let mut found = Resumed::default();
        if there.as_ref() != Some(settings) {
            found.dropped = partial.clear().map_err(StoreError::io("clear", &partial.path))?;
            write_atomic(&file, |w| Ok(serde_json::to_writer_pretty(w, settings)?))?;
        }
        Ok((partial, found))
    }

    /// Bytes of all parts.
    fn bytes(&self) -> u64 {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let parts = files.filter(|file| file.file_name().to_string_lossy().starts_with(PART));
        parts.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
    }

    /// Removes all parts, finished or not; true if there was one.
    fn clear(&self) -> io::Result<bool> {
        let mut any = false;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let part = name.starts_with(PART);
            if part || name.starts_with(crate::store::TEMPORARY) {
                fs::remove_file(entry.path())?;
                any |= part;
            }
        }
        Ok(any)
    }

    /// Removes the folder. Errors are ignored, as the result is complete.
    fn remove(self) {
        let _ = self.clear();
        let _ = fs::remove_file(self.path.join(SETTINGS));
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path);
    }
}

impl SampleError {
    /// The error of a batch whose first sample has this index.
    #[must_use]
    pub fn of_samples_from(mut self, first: usize) -> Self {
        match &mut self {
            Self::NotFinite { sample, .. }
            | Self::Stuck { sample, .. }
            | Self::Score(ScoreError::NotFinite { row: sample, .. }) => *sample += first,
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Spacing, Ve, Vp};
    use crate::progress::Silent;
    use crate::sample::Rk45Settings;
    use crate::sample::tests::Broken;
    use crate::score::Gaussian;
    use ndarray::{array, s};
    use serde_json::json;

    fn gaussian() -> Gaussian {
        Gaussian::new(array![0.3, -0.2], array![0.04, 0.25]).unwrap()
    }

    fn samplers() -> Vec<Sampler> {
        let vp = Vp::default();
        let steps = vp.steps(12, Spacing::Linspace).unwrap();
        vec![
            Sampler::Ancestral(steps.clone()),
            Sampler::Ddim(steps),
            Sampler::EulerMaruyama(Steps::even(&vp, 999.0, -1.0, 12).unwrap()),
            Sampler::Flow { solver: Rk45::default(), end: 0.0 },
        ]
    }

    fn read(path: &Path) -> Array2<f32> {
        match read_matrix(path).unwrap() {
            Matrix::F32(a) => a,
            Matrix::F64(_) => panic!("double precision"),
        }
    }

    #[test]
    fn files_hold_the_samples_however_they_are_split() {
        let (score, vp, dir) = (gaussian(), Vp::default(), tempfile::tempdir().unwrap());
        for sampler in samplers() {
            let draw = Draw { score: &score, process: &vp, sampler, clip: Some(0.9), seed: 3 };
            let all = draw.samples(0..11, &Silent).unwrap();
            assert!(all.iter().all(|v| v.abs() <= 0.9) && all.iter().any(|v| v.abs() > 0.5));
            assert_eq!(draw.samples(4..6, &Silent).unwrap(), all.slice(s![4..6, ..]));
            for batch in [1, 4, 11, 50] {
                let out = dir.path().join(format!("S{batch}.npy"));
                let found = draw.write(&out, 11, batch, &json!({ "a": 1 }), &Silent).unwrap();
                assert_eq!(found, Resumed::default());
                assert_eq!(read(&out), all.mapv(|v| v as f32));
                assert_eq!(Draw::parts(11, batch).map(|r| r.len()).sum::<usize>(), 11);
            }
        }
        assert!(fs::read_dir(dir.path()).unwrap().all(|e| e.unwrap().path().extension().unwrap() == "npy"));
    }

    /// Counts what is computed, and fails on the way.
    struct Dying(std::sync::atomic::AtomicU64);

    impl Score for Dying {
        fn dim(&self) -> usize {
            2
        }

        fn score(
            &self,
            x: ndarray::ArrayView2<'_, f64>,
            levels: &[crate::process::Level],
        ) -> Result<Array2<f64>, ScoreError> {
            match self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                30 => Err(ScoreError::Clean { operation: "dying", row: 0, t: 0.0 }),
                _ => gaussian().score(x, levels),
            }
        }

        fn vjp(
            &self,
            x: ndarray::ArrayView2<'_, f64>,
            levels: &[crate::process::Level],
            v: ndarray::ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            gaussian().vjp(x, levels, v)
        }
    }

    #[test]
    fn finished_parts_are_kept_only_for_the_same_settings() {
        let (score, vp, dir) = (gaussian(), Vp::default(), tempfile::tempdir().unwrap());
        let out = dir.path().join("S.npy");
        let sampler = || samplers().swap_remove(0);
        let draw = |score, seed| Draw { score, process: &vp, sampler: sampler(), clip: None, seed };
        let expected = draw(&score, 3).samples(0..10, &Silent).unwrap().mapv(|v| v as f32);
        // 12 steps a part: the third of five parts dies.
        let dying = Dying(0.into());
        draw(&dying, 3).write(&out, 10, 2, &json!({ "seed": 3 }), &Silent).unwrap_err();
        assert!(!out.exists());
        let partial = dir.path().join("S.npy.partial");
        // A truncated part is drawn again, and a foreign file is not taken for a part.
        let first = partial.join("part-000000000-000000002.npy");
        let bytes = fs::read(&first).unwrap();
        fs::write(&first, &bytes[..bytes.len() - 1]).unwrap();
        let found = draw(&dying, 3).write(&out, 10, 2, &json!({ "seed": 3 }), &Silent).unwrap();
        assert_eq!(found, Resumed { kept: 2, dropped: false });
        assert_eq!(read(&out), expected);
        assert!(!partial.exists());
        // 31 scores before it died and four parts after.
        assert_eq!(dying.0.load(std::sync::atomic::Ordering::Relaxed), 31 + 4 * 12);

        let dying = Dying(0.into());
        draw(&dying, 3).write(&out, 10, 2, &json!({ "seed": 3 }), &Silent).unwrap_err();
        let found = draw(&score, 4).write(&out, 10, 2, &json!({ "seed": 4 }), &Silent).unwrap();
        assert_eq!(found, Resumed { kept: 0, dropped: true });
        let other = draw(&score, 4).samples(0..10, &Silent).unwrap().mapv(|v| v as f32);
        assert_eq!(read(&out), other);
        assert_ne!(other, expected);

        // So is a part with one other bit.
        let dying = Dying(0.into());
        draw(&dying, 4).write(&out, 10, 2, &json!({ "seed": 4 }), &Silent).unwrap_err();
        let mut bytes = fs::read(&first).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&first, bytes).unwrap();
        let found = draw(&score, 4).write(&out, 10, 2, &json!({ "seed": 4 }), &Silent).unwrap();
        assert_eq!((found, read(&out)), (Resumed { kept: 2, dropped: false }, other));
    }

    #[test]
    fn one_process_writes_a_file_and_errors_name_the_sample() {
        let (score, vp, dir) = (gaussian(), Vp::default(), tempfile::tempdir().unwrap());
        let out = dir.path().join("S.npy");
        let draw =
            Draw { score: &score, process: &vp, sampler: samplers().swap_remove(1), clip: None, seed: 3 };
        let (held, _) = Partial::open(&out, &json!(1)).unwrap();
        let e = draw.write(&out, 3, 2, &json!(1), &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Busy { .. }), "{e}");
        drop(held);
        draw.write(&out, 3, 2, &json!(1), &Silent).unwrap();

        let broken = Broken { sample: 1, below: 500.0 };
        for sampler in samplers() {
            let draw = Draw { score: &broken, process: &vp, sampler, clip: None, seed: 3 };
            let e = draw.samples(40..43, &Silent).unwrap_err();
            assert!(matches!(e, SampleError::NotFinite { sample: 41, .. }), "{e}");
            // Nothing was finished, so nothing is left.
            let out = dir.path().join("T.npy");
            draw.write(&out, 3, 2, &json!(1), &Silent).unwrap_err();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        let solver = Rk45Settings { max_steps: 1, ..Rk45Settings::default() }.check().unwrap();
        let (sampler, ve) = (Sampler::Flow { solver, end: 1e-5 }, Ve::default());
        let draw = Draw { score: &score, process: &ve, sampler, clip: None, seed: 3 };
        let e = draw.samples(40..41, &Silent).unwrap_err();
        assert!(matches!(e, SampleError::Stuck { sample: 40, .. }), "{e}");
    }
}
