//! The root of the project and the folders below it.

use std::env;
use std::path::{Path, PathBuf};

/// Folders of one checkout.
///
/// ```
/// use mem2gen::project::Layout;
/// use std::path::Path;
///
/// let layout = Layout::at("/work");
/// assert_eq!(layout.results(), Path::new("/work/data/results"));
/// assert_eq!(layout.output("fast"), Path::new("/work/out/fast"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that `MEM2GEN_ROOT` names, else the nearest folder with `notebooks/figures.toml`, from the working
    /// folder upwards, else the working folder.
    pub fn find() -> Self {
        if let Some(root) = env::var_os("MEM2GEN_ROOT") {
            return Self::at(root);
        }
        // A working folder that was deleted has no ancestors.
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let root = here.ancestors().find(|p| p.join("notebooks/figures.toml").is_file());
        Self::at(root.unwrap_or(&here))
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of fetched data sets; `MEM2GEN_DATA` overrides it. Ignored by git.
    pub fn data_cache(&self) -> PathBuf {
        env::var_os("MEM2GEN_DATA").map_or_else(|| self.root.join("data/cache"), PathBuf::from)
    }

    /// Folder of committed result tables with their fingerprints.
    pub fn results(&self) -> PathBuf {
        self.root.join("data/results")
    }

    /// Folder of the output of a profile: `tables/`, `figures/`, `notebooks/`, `gallery/`. Ignored by git.
    pub fn output(&self, profile: &str) -> PathBuf {
        self.root.join("out").join(profile)
    }
}
