//! The context of a study: the settings of a profile, the project's folders, and a reporter.
//!
//! A [`Context`] needs no notebook and prints nothing itself: its [`Reporter`] does. Notebooks and the program call the
//! same functions with it.

mod cells;
mod profile;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use polars::prelude::DataFrame;
use serde::de::DeserializeOwned;

pub use cells::Cells;
pub(crate) use cells::piece;
pub use profile::{PROFILES, Profile, ProfileError};

use crate::Error;
use crate::device::Device;
use crate::frame::fingerprint::{Fingerprint, Origin, Stored, recall_or_compute};
use crate::progress::{ProgressSink, Reporter, Silent};
use crate::project::Layout;

/// The context of a study: profile, folders and reporter.
///
/// ```
/// use mem2gen::study::basin::BasinSettings;
/// use mem2gen::project::Layout;
/// use mem2gen::study::context::{Context, Profile};
///
/// let context = Context::new(Layout::at("project"), Profile::named("smoke")?);
/// let settings: BasinSettings = context.settings("basin")?;
/// assert_eq!((settings.delta, settings.stride), (Some(0.5), 250));
/// # Ok::<(), mem2gen::Error>(())
/// ```
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
    /// A context that reads stored tables whose fingerprint fits, and reports nothing.
    pub fn new(layout: Layout, profile: Profile) -> Self {
        Self { layout, profile, recompute: false, reporter: Arc::new(Silent) }
    }

    /// The same context with `recompute`: whether stored tables and pieces are ignored and computed again.
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// The same context, reporting to `reporter`.
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
    /// [`ProfileError`] for a missing table and one of another form.
    pub fn settings<T: DeserializeOwned>(&self, table: &'static str) -> Result<T, ProfileError> {
        self.profile.settings(table)
    }

    /// The project's folders.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether stored tables and pieces are ignored and computed again.
    pub fn recompute(&self) -> bool {
        self.recompute
    }

    /// The folder of results that are not committed.
    pub fn output(&self) -> PathBuf {
        self.layout.output(self.profile.name())
    }

    /// Finished pieces of long work with this fingerprint. A stopped run resumes from the pieces of earlier processes,
    /// unless [`Self::recompute`] removes them.
    ///
    /// # Errors
    /// [`StoreError`](crate::store::StoreError) for pieces that can't be removed.
    pub fn cells(&self, fingerprint: &Fingerprint) -> Result<Cells, Error> {
        let folder = format!("{}-{}", fingerprint.analysis, fingerprint.short());
        let cells = Cells::at(self.output().join("cells").join(folder));
        if self.recompute {
            cells.clear()?;
        }
        Ok(cells)
    }

    /// A stored table: read when its fingerprint fits, computed and stored otherwise. One line to the reporter states
    /// which. A computed table is recorded as computed on `device`. Tables of profile desk lie among the committed
    /// results, tables of another profile in its output.
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

    /// The reporter.
    pub fn reporter(&self) -> &dyn Reporter {
        &*self.reporter
    }

    /// Reports one line.
    pub fn line(&self, text: &str) {
        self.reporter.line(text);
    }

    /// A sink for `total` steps of `what`.
    pub fn progress(&self, what: &str, total: u64) -> Box<dyn ProgressSink> {
        self.reporter.progress(what, total)
    }
}

/// The result of `make`, computed at the first call and kept: several tables come from one computation.
pub fn once<T: Clone>(mut make: impl FnMut() -> Result<T, Error>) -> impl FnMut() -> Result<T, Error> {
    let mut made: Option<T> = None;
    move || match &made {
        Some(made) => Ok(made.clone()),
        None => Ok(made.insert(make()?).clone()),
    }
}
