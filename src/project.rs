//! Where things lie: the project's root and the folders below it.

use std::env;
use std::path::{Path, PathBuf};

/// Folders of one checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root that `MEM2GEN_ROOT` names; without it the nearest folder, from the working folder
    /// upwards, that holds `notebooks/figures.toml`; without that the working folder.
    pub fn find() -> Self {
        if let Some(root) = env::var_os("MEM2GEN_ROOT") {
            return Self::at(root);
        }
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let root = here.ancestors().find(|p| p.join("notebooks/figures.toml").is_file());
        Self::at(root.unwrap_or(&here))
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Fetched data sets; `MEM2GEN_DATA` overrides it. Ignored by git.
    pub fn data_cache(&self) -> PathBuf {
        env::var_os("MEM2GEN_DATA").map_or_else(|| self.root.join("data/cache"), PathBuf::from)
    }

    /// Committed result tables with their fingerprints.
    pub fn results(&self) -> PathBuf {
        self.root.join("data/results")
    }

    /// What one profile's run leaves: `tables/`, `figures/`, `notebooks/`, `gallery/`. Ignored by git.
    pub fn output(&self, profile: &str) -> PathBuf {
        self.root.join("out").join(profile)
    }
}
