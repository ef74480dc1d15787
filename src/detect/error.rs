use crate::ops::OpError;

/// What can go wrong when samples are classified.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// One of the sets can't be used.
    #[error("classify: {set} set: {source}")]
    Set {
        /// training, synthetic or held-out
        set: &'static str,
        /// What the search for neighbours said; rows are those of that set.
        source: OpError,
    },
    /// Sets whose rows differ in length.
    #[error("classify: {set} set has rows of {found} numbers, the training set of {expected}")]
    Columns {
        /// synthetic or held-out
        set: &'static str,
        /// Numbers in its rows.
        found: usize,
        /// Numbers in the rows of the training set.
        expected: usize,
    },
    /// A set without members.
    #[error("classify: {set} set is empty, its shape is {shape:?}")]
    Empty {
        /// training, synthetic or held-out
        set: &'static str,
        /// Rows and columns.
        shape: [usize; 2],
    },
    /// A real image with a number that is none, or with one so large that squared distances overflow. Of the
    /// synthetic set alone such rows are expected.
    #[error("classify: {set} set: row {row} holds {value:e}; only synthetic samples may be so far off")]
    Row {
        /// training or held-out
        set: &'static str,
        /// The row.
        row: usize,
        /// The number in it that is largest, or none.
        value: f32,
    },
    /// A setting outside its range.
    #[error("classify: {setting} is {value}, expected {need}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// What would do.
        need: &'static str,
    },
}
