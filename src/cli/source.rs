//! What commands that take a trained network share: the run and its score.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::display::counted;
use mem2gen::net::text;
use mem2gen::project::Layout;
use mem2gen::score::MOST_GUIDANCE;
use mem2gen::store::quoted;
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
    /// Scale g of classifier-free guidance towards --prompt: s + g (s_prompt - s); 1 is the score with the prompt itself
    /// [default: 1]
    #[arg(long, value_name = "G", allow_hyphen_values = true)]
    guidance: Option<f64>,
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
        let mut options = ScoreOptions { device: self.on.device, ..self.options.clone() };
        if let Some(guidance) = self.guidance {
            let refused = |reason| Err(Failure::Option { option: "--guidance", reason });
            if options.prompt.is_none() {
                return refused("is given without --prompt; give both, or leave --guidance away".into());
            }
            if !(-MOST_GUIDANCE..=MOST_GUIDANCE).contains(&guidance) {
                let need = format!("expected a number from -{MOST_GUIDANCE} to {MOST_GUIDANCE}");
                return refused(format!("is {guidance}, {need}"));
            }
            options.guidance = guidance;
        }
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
        let (layout, options) = (Layout::find(), self.options()?);
        let opened = TrainedScore::open(self.folder(), &layout, &options)?;
        if let Some(prompt) = &options.prompt {
            say_dropped("--prompt", prompt, text::dropped(&layout, prompt).map_err(Error::from)?);
        }
        Ok(opened)
    }
}

/// Says in one line that a text encoder leaves out the end of a prompt.
pub fn say_dropped(what: &str, prompt: &str, tokens: usize) {
    if tokens > 0 {
        let shown = quoted(prompt);
        let tokens = counted(tokens, "token");
        put_error!(
            "mem2gen: {what} {shown} is too long for the text encoder: its last {tokens} are left out"
        );
    }
}

/// Says in one line where pieces of calls with other settings were left.
pub fn say_left(folder: Option<&Path>) {
    if let Some(folder) = folder {
        let folder = folder.display();
        put_error!(
            "mem2gen: {folder} still has finished parts of calls with other settings, which the same calls take up; remove it if \
             they are not wanted"
        );
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
