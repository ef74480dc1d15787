use crate::ops::OpError;
use crate::setting::SettingError;

/// Why samples could not be classified.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The search for neighbours refused a set.
    #[error("classify: {set} set: {source}")]
    Set {
        /// training, synthetic or held-out
        set: &'static str,
        /// Error of the search; rows are those of that set.
        source: OpError,
    },
    /// The rows of a set differ in length from those of the training set.
    #[error("classify: the {set} set has {found} columns, expected {expected}, as in the training set")]
    Columns {
        /// synthetic or held-out
        set: &'static str,
        /// Its columns.
        found: usize,
        /// Columns of the training set.
        expected: usize,
    },
    /// A set has no element.
    #[error("classify: the {set} set is empty, its shape is {shape:?}")]
    Empty {
        /// training, synthetic or held-out
        set: &'static str,
        /// Rows and columns.
        shape: [usize; 2],
    },
    /// A real image has a value that is not finite, or so large that squared distances overflow. Only synthetic samples
    /// may have such values.
    #[error(
        "classify: {set} set: row {row} has the value {value:e}, expected finite values whose squares do not overflow"
    )]
    Row {
        /// training or held-out
        set: &'static str,
        /// The row.
        row: usize,
        /// Its first value that is not finite, else its largest.
        value: f32,
    },
    /// A setting outside its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
}
