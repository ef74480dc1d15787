//! The root of the project and the folders below it.

use std::env;
use std::path::{Path, PathBuf};

/// Folders of one checkout, or of an unpacked archive (`make dist`).
///
/// ```
/// use mem2gen::project::Layout;
/// use std::path::Path;
///
/// let layout = Layout::at("/home/me/mem2gen");
/// assert_eq!(layout.results(), Path::new("/home/me/mem2gen/data/results"));
/// assert_eq!(layout.output("fast"), Path::new("/home/me/mem2gen/out/fast"));
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
    /// folder upwards, else the [`archive`] of the program, else the working folder.
    pub fn find() -> Self {
        if let Some(root) = env::var_os("MEM2GEN_ROOT") {
            return Self::at(root);
        }
        // A working folder that was deleted has no ancestors.
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let root = here.ancestors().find(|p| p.join("notebooks/figures.toml").is_file());
        root.map(PathBuf::from).or_else(archive).map_or_else(|| Self::at(&here), Self::at)
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

/// Folder of the archive that contains the running program; `None` when it was built in a checkout.
pub fn archive() -> Option<PathBuf> {
    archive_of(&env::current_exe().ok()?)
}

/// An archive has the plans beside the program; cargo's folders have no plans.
fn archive_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    folder.join("data/plans").is_dir().then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_plans_next_to_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("mem2gen");
        assert_eq!(archive_of(&program), None);
        std::fs::create_dir_all(folder.path().join("data/plans")).unwrap();
        assert_eq!(archive_of(&program), Some(folder.path().to_owned()));
        // A checkout has plans too, but not in the folder of its programs.
        assert_eq!(archive_of(&folder.path().join("target/release/mem2gen")), None);
        assert_eq!(archive(), None);
    }
}
