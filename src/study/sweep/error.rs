use std::path::PathBuf;

use crate::setting::SettingError;

/// What can go wrong with a sweep, beside what its steps refuse.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A plan that does not parse.
    #[error("plan {name}: {reason}")]
    Parse {
        /// Name of the plan or its file.
        name: String,
        /// Where and why.
        reason: String,
    },
    /// A setting of a plan out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A cell that is not in the plan.
    #[error("plan {name}: there is no task {task}, expected a number below {tasks}")]
    Task {
        /// Name of the plan.
        name: String,
        /// The number asked for.
        task: usize,
        /// Tasks of the plan.
        tasks: usize,
    },
    /// A folder that holds another cell, or is damaged.
    #[error("cell {}: {reason}", path.display())]
    Cell {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder with a cell of another configuration.
    #[error("cell {}: {setting} is {there} there, and {asked} is asked for", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs.
        setting: String,
        /// What it is in the folder.
        there: String,
        /// What was asked for.
        asked: String,
    },
    /// Samples that can't be labelled.
    #[error(
        "cell {}: no threshold is known ({because}); give delta_m and delta_s in [detection], or held_out images",
        path.display()
    )]
    NoThreshold {
        /// The folder.
        path: PathBuf,
        /// Why neither was found.
        because: String,
    },
    /// Cells that failed.
    #[error("plan {name}: {failed} of {tasks} cells failed, the first is {first}")]
    Failed {
        /// Name of the plan.
        name: String,
        /// How many.
        failed: usize,
        /// Cells asked for.
        tasks: usize,
        /// The first one, and why.
        first: String,
    },
    /// Cells that are not there yet.
    #[error("plan {name}: {missing} of {tasks} cells are not finished, the first is {first}")]
    Unfinished {
        /// Name of the plan.
        name: String,
        /// How many.
        missing: usize,
        /// Cells of the plan.
        tasks: usize,
        /// The first one.
        first: String,
    },
}
