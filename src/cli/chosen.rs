//! What commands that measure at images share: the subject, and the choice of its images.

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::project::Layout;
use mem2gen::study::StudyError;
use mem2gen::study::subject::{Choice, Images, Subject};

use super::source::{Failure, Source};

/// `--run` with its score, and the choice of its images.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
}

impl Chosen {
    /// Opens the subject in `--run`.
    pub fn open(&self) -> Result<Subject, Failure> {
        if self.choice.max == 0 {
            return Err(Failure::Option { option: "--max", reason: "is 0, expected at least 1".into() });
        }
        let options = self.source.options()?;
        Subject::open(self.source.folder(), &Layout::find(), &options).map_err(named)
    }

    /// The choice of images.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Whether the score is the exact one of the training set.
    pub fn is_exact(&self) -> bool {
        self.source.is_exact()
    }

    /// The chosen images of a group.
    pub fn images(&self, subject: &Subject, group: Group) -> Result<Images, Failure> {
        subject.images(group, &self.choice).map_err(named)
    }
}

/// The failure of an error, with the option that caused it.
fn named(error: Error) -> Failure {
    let option = match &error {
        Error::Analysis(StudyError::Subject { .. }) => "--run",
        Error::Analysis(StudyError::NoSamples { .. }) => "--class",
        _ => return error.into(),
    };
    Failure::Option { option, reason: error.to_string() }
}
