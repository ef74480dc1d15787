//! The error for a setting out of its range.

use std::borrow::Cow;

use crate::store::memory_left;

/// The longest number that messages write without an exponent.
const SHORT: usize = 24;

/// A number for a message: 1e308 has 309 digits without an exponent.
pub(crate) fn digits(value: f64) -> String {
    let text = value.to_string();
    if text.len() > SHORT { format!("{value:e}") } else { text }
}

/// A setting out of its range; every layer's error carries it as its variant `Setting`.
///
/// ```
/// use mem2gen::setting::SettingError;
///
/// let error = SettingError::new("basin", "stop", 1.5, "a number above 0 and at most 1");
/// assert_eq!(error.to_string(), "basin: setting stop is 1.5, expected a number above 0 and at most 1");
/// assert_eq!(SettingError::new("curvature", "step", 1e308, "less").value, "1e308");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: setting {setting} is {value}, expected {need}")]
pub struct SettingError {
    /// What was asked for: a process, a sampler, a study or a plan.
    pub operation: Cow<'static, str>,
    /// Name of the setting, as in the settings' own struct or file.
    pub setting: Cow<'static, str>,
    /// Its value.
    pub value: String,
    /// The values that are accepted.
    pub need: Cow<'static, str>,
}

impl SettingError {
    /// The error of `operation` for `setting`, which is `value` and has to be `need`.
    pub fn new(
        operation: impl Into<Cow<'static, str>>,
        setting: impl Into<Cow<'static, str>>,
        value: impl ToString,
        need: impl Into<Cow<'static, str>>,
    ) -> Self {
        let value = value.to_string();
        let value = value.parse::<f64>().ok().filter(|_| value.len() > SHORT).map_or(value, digits);
        Self { operation: operation.into(), setting: setting.into(), value, need: need.into() }
    }

    /// Refuses a count for which memory is not left, at `bytes` bytes for each.
    ///
    /// # Errors
    /// The error of the setting, with the largest count.
    pub fn check_room(
        operation: &'static str,
        setting: &'static str,
        count: usize,
        bytes: usize,
    ) -> Result<(), Self> {
        let each = bytes.max(1) as u64;
        match memory_left() {
            Some(left) if each.saturating_mul(count as u64) > left => {
                let need = format!("at most {}, as each needs {each} bytes and {left} are left", left / each);
                Err(Self::new(operation, setting, count, need))
            }
            _ => Ok(()),
        }
    }
}
