//! What every study is given: the settings of a profile, where its results lie, and who is told what it does.
//!
//! A [`Context`] needs no notebook and prints nothing: a [`Reporter`] does. Notebooks and the program call the same
//! functions with it.

mod cells;
mod profile;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use polars::prelude::DataFrame;
use serde::de::DeserializeOwned;

pub use cells::Cells;
pub use profile::{PROFILES, Profile, ProfileError};

use crate::Error;
use crate::device::Device;
use crate::frame::fingerprint::{Fingerprint, Origin, Stored, recall_or_compute};
use crate::progress::{ProgressSink, Reporter, Silent};
use crate::project::Layout;

/// What a study is given.
#[derive(Clone)]
pub struct Context {
    layout: Layout,
    profile: Profile,
    recompute: bool,
    reporter: Arc<dyn Reporter>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("layout", &self.layout)
            .field("profile", &self.profile.name())
            .field("recompute", &self.recompute)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context that reads stored tables where they fit, and reports to nobody.
    pub fn new(layout: Layout, profile: Profile) -> Self {
        Self { layout, profile, recompute: false, reporter: Arc::new(Silent) }
    }

    /// The same, with stored tables computed again from nothing or not.
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// The same, reporting to `reporter`.
    pub fn reporting(mut self, reporter: Arc<dyn Reporter>) -> Self {
        self.reporter = reporter;
        self
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The settings in the profile's table of this name, such as `toy`.
    ///
    /// # Errors
    /// [`ProfileError`] where the profile has no such table, or one of another form.
    pub fn settings<T: DeserializeOwned>(&self, table: &'static str) -> Result<T, ProfileError> {
        self.profile.settings(table)
    }

    /// The project's folders.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether stored tables are to be made again from nothing.
    pub fn recompute(&self) -> bool {
        self.recompute
    }

    /// Where results that are not committed lie.
    pub fn output(&self) -> PathBuf {
        self.layout.output(self.profile.name())
    }

    /// Finished pieces of long work with this fingerprint. Those of an earlier process are kept, so that work that was
    /// stopped resumes, unless everything is to be made from nothing.
    ///
    /// # Errors
    /// Pieces that can't be removed.
    pub fn cells(&self, fingerprint: &Fingerprint) -> Result<Cells, Error> {
        let folder = format!("{}-{}", fingerprint.analysis, fingerprint.short());
        let cells = Cells::at(self.output().join("cells").join(folder));
        if self.recompute {
            cells.clear()?;
        }
        Ok(cells)
    }

    /// A stored table: read where its fingerprint fits, else computed and stored; one line to the reporter says which.
    /// What is computed is recorded as computed on `device`. Tables of profile desk lie among the committed results,
    /// those of every other profile in its output.
    ///
    /// # Errors
    /// Those of `compute`, and of reading and writing the table.
    pub fn recall(
        &self,
        name: &str,
        fingerprint: &Fingerprint,
        device: Device,
        compute: impl FnOnce() -> Result<DataFrame, Error>,
    ) -> Result<DataFrame, Error> {
        let stored = if self.profile.name() == "desk" {
            Stored::committed(&self.layout, name)
        } else {
            Stored::new(&self.output().join("tables"), name)
        };
        let stored = stored.origin(Origin::on(device));
        recall_or_compute(&stored, fingerprint, self.recompute, &mut |line| self.line(line), compute)
    }

    /// Tells the reporter one line.
    pub fn line(&self, text: &str) {
        self.reporter.line(text);
    }

    /// A sink for `total` steps of `what`.
    pub fn progress(&self, what: &str, total: u64) -> Box<dyn ProgressSink> {
        self.reporter.progress(what, total)
    }
}

/// What `make` gives, made at the first call that wants it: several tables may come from one computation.
pub fn once<T: Clone>(mut make: impl FnMut() -> Result<T, Error>) -> impl FnMut() -> Result<T, Error> {
    let mut made: Option<T> = None;
    move || match &made {
        Some(made) => Ok(made.clone()),
        None => Ok(made.insert(make()?).clone()),
    }
}
