//! What commands that take a trained network share: the run and its score.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::project::Layout;
use mem2gen::study::subject::{ScoreKind, ScoreOptions, TrainedScore};
use mem2gen::train::MOST_ROWS;

use super::input::On;

/// `--run`, and the choice of its score.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Folder of a training run, or of a cell of a sweep with a training run; a run that is not finished counts with its
    /// newest checkpoint
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    #[command(flatten)]
    options: ScoreOptions,
    #[command(flatten)]
    on: On,
}

impl Source {
    /// The folder in `--run`.
    pub fn folder(&self) -> &Path {
        &self.run
    }

    /// Whether the score is the exact one of the training set.
    pub fn is_exact(&self) -> bool {
        self.options.score == ScoreKind::Exact
    }

    /// The options of the score, checked.
    pub fn options(&self) -> Result<ScoreOptions, Failure> {
        let options = ScoreOptions { device: self.on.device, ..self.options.clone() };
        if !(1..=MOST_ROWS).contains(&options.batch) {
            let reason = format!("is {}, expected 1 to {MOST_ROWS}", options.batch);
            return Err(Failure::Option { option: "--batch", reason });
        }
        if options.raw && options.score == ScoreKind::Exact {
            return Err(Failure::Option { option: "--raw", reason: "the exact score has no weights".into() });
        }
        if options.prompt.is_some() && options.score == ScoreKind::Exact {
            let reason = "the exact score of a training set knows no captions".into();
            return Err(Failure::Option { option: "--prompt", reason });
        }
        Ok(options)
    }

    /// Opens the run and makes its score.
    pub fn open(&self) -> Result<TrainedScore, Failure> {
        Ok(TrainedScore::open(self.folder(), &Layout::find(), &self.options()?)?)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An error of the library.
    #[error(transparent)]
    Library(#[from] Error),
    /// An option that is out of its range or contradicts another one.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was found and what is expected.
        reason: String,
    },
}
