//! Stored results: a table beside a record of what it was made from.
//!
//! A result that takes long is computed once and kept as `<name>.parquet` with `<name>.json`. The record
//! holds the [`Fingerprint`] of what went in and the checksum of the table. [`recall_or_compute`] reads
//! the table where the fingerprint still fits and computes it where it does not, and says which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::Device;
use crate::frame::{TableError, parquet_bytes, read_parquet_bytes};
use crate::project::Layout;
use crate::store::{StoreError, sha256_hex, write_atomic};

/// Everything that decides what a result is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Name of the analysis.
    pub analysis: String,
    /// Version of its code; raised by hand with every change that may change the result.
    pub version: u32,
    /// Its settings.
    pub settings: Value,
    /// SHA-256 of each data set that it reads.
    pub data: BTreeMap<String, String>,
    /// The profile that it runs in.
    pub profile: String,
}

impl Fingerprint {
    /// A fingerprint without data sets.
    pub fn new(analysis: &str, version: u32, settings: Value, profile: &str) -> Self {
        let (analysis, profile) = (analysis.to_owned(), profile.to_owned());
        Self { analysis, version, settings, data: BTreeMap::new(), profile }
    }

    /// Adds a data set by its checksum.
    pub fn data(mut self, name: &str, sha256: &str) -> Self {
        self.data.insert(name.to_owned(), sha256.to_owned());
        self
    }

    /// The fingerprint as one line of JSON with sorted keys. Real numbers have 15 significant digits,
    /// which is what survives being written and read.
    pub fn canonical(&self) -> String {
        let data: serde_json::Map<String, Value> =
            self.data.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        let mut s = String::new();
        let all = serde_json::json!({
            "analysis": self.analysis,
            "version": self.version,
            "settings": self.settings,
            "data": data,
            "profile": self.profile,
        });
        write_canonical(&mut s, &all);
        s
    }

    /// SHA-256 of [`Self::canonical`].
    pub fn digest(&self) -> String {
        sha256_hex(self.canonical().as_bytes())
    }

    /// The first digits of the digest, for people.
    pub fn short(&self) -> String {
        self.digest().chars().take(8).collect()
    }

    /// In words, how `self` differs from what was stored; empty where it does not.
    fn differences(&self, stored: &Self) -> Vec<String> {
        let mut why = Vec::new();
        if stored.analysis != self.analysis {
            why.push(format!("analysis {} -> {}", stored.analysis, self.analysis));
        }
        if stored.version != self.version {
            why.push(format!("code version {} -> {}", stored.version, self.version));
        }
        if stored.profile != self.profile {
            why.push(format!("profile {} -> {}", stored.profile, self.profile));
        }
        compare(&mut why, "", &stored.settings, &self.settings);
        let names: BTreeSet<&String> = stored.data.keys().chain(self.data.keys()).collect();
        for name in names {
            let short = |s: &String| s.chars().take(8).collect::<String>();
            match (stored.data.get(name), self.data.get(name)) {
                (Some(a), Some(b)) if a != b => {
                    why.push(format!("checksum of data set {name} {} -> {}", short(a), short(b)));
                }
                (None, Some(_)) => why.push(format!("data set {name} is new")),
                (Some(_), None) => why.push(format!("data set {name} is no longer read")),
                _ => {}
            }
        }
        why
    }
}

fn canonical_text(v: &Value) -> String {
    let mut s = String::new();
    write_canonical(&mut s, v);
    s
}

fn write_canonical(s: &mut String, v: &Value) {
    match v {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            s.push('{');
            for (i, (k, v)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    s.push(',');
                }
                let _ = write!(s, "{}:", Value::from(k.as_str()));
                write_canonical(s, v);
            }
            s.push('}');
        }
        Value::Array(list) => {
            s.push('[');
            for (i, v) in list.iter().enumerate() {
                if i > 0 {
                    s.push(',');
                }
                write_canonical(s, v);
            }
            s.push(']');
        }
        Value::Number(n) if n.is_f64() => {
            let _ = write!(s, "{:.14e}", n.as_f64().unwrap_or(f64::NAN));
        }
        other => {
            let _ = write!(s, "{other}");
        }
    }
}

fn compare(why: &mut Vec<String>, path: &str, stored: &Value, now: &Value) {
    let (Value::Object(a), Value::Object(b)) = (stored, now) else {
        if canonical_text(stored) != canonical_text(now) {
            let name = if path.is_empty() { "settings".to_owned() } else { format!("setting {path}") };
            why.push(format!("{name} {stored} -> {now}"));
        }
        return;
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (a.get(key), b.get(key)) {
            (Some(a), Some(b)) => compare(why, &inner, a, b),
            (None, Some(b)) => why.push(format!("setting {inner} is new ({b})")),
            (Some(a), None) => why.push(format!("setting {inner} is gone (was {a})")),
            (None, None) => {}
        }
    }
}

/// Settings as JSON, for a fingerprint.
///
/// # Errors
/// [`TableError::Record`] where they have no JSON form: a fingerprint without them would fit everything.
pub fn settings_value(settings: &impl Serialize) -> Result<Value, TableError> {
    serde_json::to_value(settings)
        .map_err(|e| TableError::Record { name: "settings".into(), reason: e.to_string() })
}

/// What made a result. It is recorded, and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the crate.
    pub crate_version: String,
    /// The device, in words.
    pub device: String,
    /// Number of threads.
    pub threads: usize,
}

impl Origin {
    /// This crate on the processor, with the threads of the global pool.
    pub fn here() -> Self {
        Self::on(Device::Cpu)
    }

    /// As [`Self::here`], with this device for the operations that ran there.
    pub fn on(device: Device) -> Self {
        Self {
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_string(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// The file beside a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What went in.
    pub fingerprint: Fingerprint,
    /// Digest of the fingerprint.
    pub digest: String,
    /// SHA-256 of the parquet file.
    pub table_sha256: String,
    /// What made it.
    pub origin: Origin,
    /// How long that took.
    pub seconds: f64,
}

/// What was found.
#[derive(Debug)]
pub enum Outcome {
    /// The table was made from exactly this.
    Fits(DataFrame),
    /// There is neither table nor record.
    Absent,
    /// The table was made from something else, or table and record don't belong together.
    Stale {
        /// Which part differs, in words.
        why: String,
    },
}

/// Where a result is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    folder: PathBuf,
    shown: String,
    name: String,
    origin: Origin,
}

impl Stored {
    /// A result in `folder`. Messages name the folder by its last part.
    pub fn new(folder: &Path, name: &str) -> Self {
        let shown = folder.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        Self { folder: folder.to_path_buf(), shown, name: name.to_owned(), origin: Origin::here() }
    }

    /// A result among the committed ones. Messages name files from the root of the project.
    pub fn committed(layout: &Layout, name: &str) -> Self {
        let folder = layout.results();
        let shown = folder.strip_prefix(layout.root()).unwrap_or(&folder).to_string_lossy().into_owned();
        Self { shown, ..Self::new(&folder, name) }
    }

    /// The same place, recording another origin.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The table.
    pub fn table_path(&self) -> PathBuf {
        self.folder.join(format!("{}.parquet", self.name))
    }

    /// The record beside it.
    pub fn record_path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// Looks for a result that was made from `fingerprint`.
    ///
    /// # Errors
    /// [`TableError::Store`] where a file is there and can't be read; damaged files are
    /// [`Outcome::Stale`].
    pub fn load(&self, fingerprint: &Fingerprint) -> Result<Outcome, TableError> {
        let (table, record) = (format!("{}.parquet", self.name), format!("{}.json", self.name));
        let stale = |why: String| Ok(Outcome::Stale { why });
        let (bytes, text) = (read(&self.table_path())?, read(&self.record_path())?);
        let (bytes, text) = match (bytes, text) {
            (None, None) => return Ok(Outcome::Absent),
            (Some(_), None) => return stale(format!("{record} is missing, so {table} was never finished")),
            (None, Some(_)) => return stale(format!("{table} is missing")),
            (Some(bytes), Some(text)) => (bytes, text),
        };
        let stored: Record = match serde_json::from_slice(&text) {
            Ok(r) => r,
            Err(e) => return stale(format!("{record} is damaged ({e})")),
        };
        if stored.fingerprint.digest() != stored.digest {
            return stale(format!("{record} was edited: its digest does not fit its fingerprint"));
        }
        if stored.digest != fingerprint.digest() {
            let why = fingerprint.differences(&stored.fingerprint);
            return stale(if why.is_empty() { "the fingerprint differs".to_owned() } else { why.join("; ") });
        }
        if sha256_hex(&bytes) != stored.table_sha256 {
            return stale(format!("{table} is not the table that {record} records"));
        }
        match read_parquet_bytes(&self.table_path(), bytes) {
            Ok(frame) => Ok(Outcome::Fits(frame)),
            Err(e) => stale(e.to_string()),
        }
    }

    /// Keeps a result: the table first, the record last, so that a record is never ahead of its table.
    ///
    /// # Errors
    /// [`TableError`] of the step that failed.
    pub fn save(&self, fingerprint: &Fingerprint, frame: &DataFrame, seconds: f64) -> Result<(), TableError> {
        let bytes = parquet_bytes(&self.table_path(), frame, &[])?;
        let record = Record {
            fingerprint: fingerprint.clone(),
            digest: fingerprint.digest(),
            table_sha256: sha256_hex(&bytes),
            origin: self.origin.clone(),
            seconds,
        };
        let json = serde_json::to_string_pretty(&record)
            .map_err(|e| TableError::Record { name: self.name.clone(), reason: e.to_string() })?;
        write_atomic(&self.table_path(), |w| w.write_all(&bytes))?;
        write_atomic(&self.record_path(), |w| writeln!(w, "{json}"))?;
        Ok(())
    }

    /// The table's name in messages.
    fn shown(&self) -> String {
        if self.shown.is_empty() {
            format!("{}.parquet", self.name)
        } else {
            format!("{}/{}.parquet", self.shown, self.name)
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TableError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("open", path)(e).into()),
    }
}

/// Reads the stored result where it fits, else computes and keeps it, and says which in one line.
/// With `recompute` it is always computed.
///
/// # Errors
/// Those of `compute`, and [`TableError`] of reading and writing.
pub fn recall_or_compute<E: From<TableError>>(
    store: &Stored,
    fingerprint: &Fingerprint,
    recompute: bool,
    say: &mut dyn FnMut(&str),
    compute: impl FnOnce() -> Result<DataFrame, E>,
) -> Result<DataFrame, E> {
    let reason = if recompute {
        "recomputing was asked for".to_owned()
    } else {
        match store.load(fingerprint)? {
            Outcome::Fits(frame) => {
                say(&format!("read from {}, fingerprint {} fits", store.shown(), fingerprint.short()));
                return Ok(frame);
            }
            Outcome::Absent => "there was no stored result".to_owned(),
            Outcome::Stale { why } => format!("stale because {why}"),
        }
    };
    let start = Instant::now();
    let frame = compute()?;
    let seconds = start.elapsed().as_secs_f64();
    store.save(fingerprint, &frame, seconds)?;
    say(&format!("computed {} in {seconds:.1} s: {reason}", store.shown()));
    Ok(frame)
}
