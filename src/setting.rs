//! The error for a setting out of its range.

use std::borrow::Cow;

/// A setting out of its range; every layer's error carries it as its variant `Setting`.
///
/// ```
/// use mem2gen::setting::SettingError;
///
/// let error = SettingError::new("basin", "stop", 1.5, "a number above 0 and at most 1");
/// assert_eq!(error.to_string(), "basin: setting stop is 1.5, expected a number above 0 and at most 1");
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
        Self {
            operation: operation.into(),
            setting: setting.into(),
            value: value.to_string(),
            need: need.into(),
        }
    }
}
