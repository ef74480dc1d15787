//! How long work tells how far it is, without knowing who listens.
//!
//! Analyses take a `&dyn ProgressSink` and report steps; a terminal, a notebook or nobody shows them.

/// Receives the steps of one piece of work. Workers on several threads may report at once.
pub trait ProgressSink: Sync {
    /// `steps` more of the work are done.
    fn advance(&self, steps: u64);

    /// `steps` of the work were done before, by another process.
    fn resume(&self, steps: u64) {
        self.advance(steps);
    }

    /// What is being worked on right now, in a few words.
    fn stage(&self, _what: &str) {}
}

/// A sink that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn advance(&self, _steps: u64) {}
}
