//! Settings in the JSON files of a folder in diffusers' layout.
//!
//! Every setting of a file is read, or compared with the one value that the modules compute, or known to have no effect.
//! What is left is an error, so that no setting is ignored silently.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::net::NetError;
use crate::store::{cut_reason, from_json, read_file};

/// Most channels, groups, layers and tokens.
const MOST: usize = 1 << 20;

/// A value of a setting.
pub(super) trait Setting: DeserializeOwned {
    /// What the file must have, in words.
    const EXPECTED: &str;
}

/// Declares what is expected of types of settings.
macro_rules! settings {
    ($($kind:ty: $expected:literal,)*) => {
        $(impl Setting for $kind {
            const EXPECTED: &str = $expected;
        })*
    };
}

settings! {
    usize: "a whole number from 0",
    Option<usize>: "a whole number from 0 or null",
    Vec<usize>: "a list of whole numbers from 0",
    f64: "a number",
    bool: "true or false",
    String: "a text",
    Vec<String>: "a list of texts",
}

/// Settings of a file that were not read yet.
pub(super) struct Settings {
    path: PathBuf,
    left: Map<String, Value>,
}

impl Settings {
    /// Reads a file. Names that begin with `_` (class, version) have no effect on the computation.
    pub(super) fn read(path: &Path) -> Result<Self, NetError> {
        let mut left: Map<String, Value> =
            from_json(&file_of_folder(path)?).map_err(|reason| bad(path, reason))?;
        left.retain(|name, _| !name.starts_with('_'));
        Ok(Self { path: path.to_path_buf(), left })
    }

    /// Removes and returns a setting; the default where it is absent or null.
    pub(super) fn take<T: Setting>(&mut self, name: &str, default: T) -> Result<T, NetError> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => self.parse(name, value),
        }
    }

    /// Removes and returns a setting that has no default.
    pub(super) fn need<T: Setting>(&mut self, name: &str) -> Result<T, NetError> {
        match self.left.remove(name) {
            None | Some(Value::Null) => {
                Err(self.refused(name, "is missing; copy the file of the model again"))
            }
            Some(value) => self.parse(name, value),
        }
    }

    fn parse<T: Setting>(&self, name: &str, value: Value) -> Result<T, NetError> {
        let shown = value.to_string();
        serde_json::from_value(value).map_err(|_| {
            self.refused(
                name,
                &format!("is {shown}, expected {}; copy the file of the model again", T::EXPECTED),
            )
        })
    }

    /// Removes settings of which only one value is computed. Absent and null are that value.
    pub(super) fn only(&mut self, values: &[(&str, Value)]) -> Result<(), NetError> {
        for (name, expected) in values {
            let found = self.left.remove(*name).unwrap_or(Value::Null);
            // 1 and 1.0 are the same setting.
            let same = found == *expected
                || matches!((found.as_f64(), expected.as_f64()), (Some(a), Some(b)) if a == b);
            if !found.is_null() && !same {
                let reason = format!("is {found}, expected {expected}; no other value is computed");
                return Err(self.refused(name, &reason));
            }
        }
        Ok(())
    }

    /// Removes settings without effect on the computation.
    pub(super) fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.left.remove(*name);
        }
    }

    /// Checks settings that count something. The limit keeps products of sizes from overflowing.
    pub(super) fn counts(&self, counts: &[(&str, usize)]) -> Result<(), NetError> {
        match counts.iter().find(|(_, count)| !(1..=MOST).contains(count)) {
            None => Ok(()),
            Some((name, count)) => {
                Err(self.refused(name, &format!("is {count}, expected a number from 1 to {MOST}")))
            }
        }
    }

    /// Checks the channels of each level, of which groups are normalised.
    pub(super) fn channels(&self, channels: &[usize], groups: usize) -> Result<(), NetError> {
        let fits = |count: &usize| (1..=MOST).contains(count) && count.is_multiple_of(groups);
        if (1..=16).contains(&channels.len()) && channels.iter().all(fits) {
            return Ok(());
        }
        let reason = format!("is {channels:?}, expected 1 to 16 multiples of norm_num_groups = {groups}");
        Err(self.refused("block_out_channels", &reason))
    }

    /// Checks settings that are above 0.
    pub(super) fn positive(&self, values: &[(&str, f64)]) -> Result<(), NetError> {
        match values.iter().find(|(_, value)| *value <= 0.0) {
            None => Ok(()),
            Some((name, value)) => Err(self.refused(name, &format!("is {value}, expected a number above 0"))),
        }
    }

    /// Checks that nothing but nulls is left.
    pub(super) fn finish(self) -> Result<(), NetError> {
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => {
                let reason = format!("is {value}, and its meaning is unknown; remove it if it has no effect");
                Err(self.refused(name, &reason))
            }
        }
    }

    /// The error of a setting.
    pub(super) fn refused(&self, name: &str, reason: &str) -> NetError {
        bad(&self.path, format!("{name} {reason}"))
    }
}

/// The bytes of a file that a folder of a model must have.
pub(super) fn file_of_folder(path: &Path) -> Result<Vec<u8>, NetError> {
    if path.exists() {
        return Ok(read_file(path)?);
    }
    Err(bad(path, "does not exist; give a complete folder of a model in diffusers' layout".into()))
}

fn bad(path: &Path, reason: String) -> NetError {
    NetError::Config { path: path.to_path_buf(), reason: cut_reason(&reason) }
}
