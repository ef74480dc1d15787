use std::path::PathBuf;

use crate::setting::SettingError;

/// An error of a sweep itself; the steps of a cell have their own.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A plan that does not parse.
    #[error("plan {name}: {reason}")]
    Parse {
        /// Name of the plan or its file.
        name: String,
        /// Line, column and reason.
        reason: String,
    },
    /// A setting of a plan out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A cell that is not in the plan.
    #[error("plan {name}: has no task {task}, expected a number below {tasks}")]
    Task {
        /// Name of the plan.
        name: String,
        /// The number asked for.
        task: usize,
        /// Number of tasks of the plan.
        tasks: usize,
    },
    /// A folder that is not the folder of a cell, or is damaged.
    #[error("cell {}: {reason}", path.display())]
    Cell {
        /// The folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A folder with a cell of other settings.
    #[error("cell {}: was begun with {setting} = {there}, the plan has {asked}; choose another folder", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs.
        setting: String,
        /// Its value in the folder.
        there: String,
        /// Its value in the plan.
        asked: String,
    },
    /// Samples that can't be labelled.
    #[error(
        "cell {}: no threshold is known ({because}); set delta_m and delta_s in [detection], or held_out images",
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
        /// The first one and its error.
        first: String,
    },
    /// Cells that are not finished.
    #[error(
        "plan {name}: {missing} of {tasks} cells are not finished, the first is {first}; run mem2gen sweep"
    )]
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
