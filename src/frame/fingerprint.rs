//! Stored results: a table with a record of its inputs.
//!
//! A long computation runs once and is stored as `<name>.parquet` with the record `<name>.json`, which has the
//! [`Fingerprint`] of the inputs and the checksum of the table. [`recall_or_compute`] reads the table when the
//! fingerprint fits, otherwise computes it, and reports which in one line.

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
use crate::store::{StoreError, from_json, sha256_hex, write_atomic};

/// All inputs that determine a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Name of the study.
    pub analysis: String,
    /// Version of the numbers of the study; raised by hand with every change that moves them.
    pub version: u32,
    /// Its settings.
    pub settings: Value,
    /// SHA-256 of each data set, by name.
    pub data: BTreeMap<String, String>,
    /// Name of the profile.
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

    /// The fingerprint as one line of JSON with sorted keys. Real numbers have 15 significant digits, which are preserved
    /// by writing and reading.
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

    /// The first eight digits of the digest, for messages.
    pub fn short(&self) -> String {
        self.digest().chars().take(8).collect()
    }

    /// The differences from a stored fingerprint in words; empty without a difference.
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
            let _ = write!(s, "{:.14e}", n.as_f64().expect("is_f64 holds"));
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
/// [`TableError::Record`] for settings that have no JSON form.
pub fn settings_value(settings: &impl Serialize) -> Result<Value, TableError> {
    serde_json::to_value(settings)
        .map_err(|e| TableError::Record { name: "settings".into(), reason: e.to_string() })
}

/// The program and machine of a result, for information only.
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
    /// This crate on the CPU, with the threads of the global pool.
    pub fn here() -> Self {
        Self::on(Device::Cpu)
    }

    /// As [`Self::here`], with the device of the operations.
    pub fn on(device: Device) -> Self {
        Self {
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_string(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// The record of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The inputs.
    pub fingerprint: Fingerprint,
    /// Digest of the fingerprint.
    pub digest: String,
    /// SHA-256 of the parquet file.
    pub table_sha256: String,
    /// Program and machine.
    pub origin: Origin,
    /// Seconds of computation.
    pub seconds: f64,
}

/// The state of a stored result.
#[derive(Debug)]
pub enum Outcome {
    /// The stored table has this fingerprint.
    Fits(DataFrame),
    /// Neither table nor record exists.
    Absent,
    /// The table has another fingerprint, or table and record do not belong together.
    Stale {
        /// The differences in words.
        why: String,
    },
}

/// The place of a stored result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    folder: PathBuf,
    shown: String,
    name: String,
    origin: Origin,
}

impl Stored {
    /// A result in `folder`. Messages show the last part of the folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let shown = folder.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        Self { folder: folder.to_path_buf(), shown, name: name.to_owned(), origin: Origin::here() }
    }

    /// A committed result. Messages show paths from the root of the project.
    pub fn committed(layout: &Layout, name: &str) -> Self {
        let folder = layout.results();
        let shown = folder.strip_prefix(layout.root()).unwrap_or(&folder).to_string_lossy().into_owned();
        Self { shown, ..Self::new(&folder, name) }
    }

    /// The same place with another origin.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Path of the table.
    pub fn table_path(&self) -> PathBuf {
        self.folder.join(format!("{}.parquet", self.name))
    }

    /// Path of the record.
    pub fn record_path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// Reads the result and compares its fingerprint with `fingerprint`.
    ///
    /// # Errors
    /// [`TableError::Store`] for a file that exists and cannot be read. Damaged files give [`Outcome::Stale`].
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
        let stored: Record = match from_json(&text) {
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

    /// Reads the result whatever its inputs were, and checks that its record was written with it.
    ///
    /// # Errors
    /// [`TableError::Store`] for a file that cannot be read, [`TableError::Record`] for a missing or damaged record and for a
    /// table that it does not record.
    pub fn open(&self) -> Result<DataFrame, TableError> {
        let (table, record) = (self.table_path(), self.record_path());
        let bytes = fs::read(&table).map_err(StoreError::io("open", &table))?;
        let bad = |reason: String| TableError::Record { name: table.display().to_string(), reason };
        let shown = record.display();
        let text =
            read(&record)?.ok_or_else(|| bad(format!("{shown}, which is written with it, is missing")))?;
        let stored: Record = from_json(&text).map_err(|e| bad(format!("{shown} is damaged ({e})")))?;
        if stored.fingerprint.digest() != stored.digest {
            return Err(bad(format!("{shown} was edited: its digest does not fit its fingerprint")));
        }
        if sha256_hex(&bytes) != stored.table_sha256 {
            return Err(bad(format!("it is not the table that {shown} records")));
        }
        read_parquet_bytes(&table, bytes)
    }

    /// Stores a result: first the table, then the record, so that a record never exists before its table.
    ///
    /// # Errors
    /// [`TableError`] of the failed step.
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

    /// Name of the table in messages.
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

/// Reads the stored result if its fingerprint fits, otherwise computes and stores it; `say` gets one line that states
/// which. With `recompute` the result is always computed.
///
/// ```
/// use mem2gen::frame::fingerprint::{Fingerprint, Stored, recall_or_compute};
/// use mem2gen::frame::{TableError, frame, integers};
///
/// let folder = std::env::temp_dir().join(format!("mem2gen-recall-{}", std::process::id()));
/// let (stored, fingerprint) = (Stored::new(&folder, "sizes"), Fingerprint::new("sizes", 1, 2.into(), "smoke"));
/// let mut lines = Vec::new();
/// for _ in 0..2 {
///     let table = recall_or_compute(&stored, &fingerprint, false, &mut |line| lines.push(line.to_owned()), || {
///         frame("sizes", vec![integers("K", vec![2, 4])])
///     })?;
///     assert_eq!(table.height(), 2);
/// }
/// assert!(lines[0].starts_with("computed") && lines[1].starts_with("read from"));
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), TableError>(())
/// ```
///
/// # Errors
/// Errors of `compute`, and [`TableError`] of reading and writing.
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
