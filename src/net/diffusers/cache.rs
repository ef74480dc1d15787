//! Models in the cache of Hugging Face's programs.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::net::NetError;

/// The folder of a model in the cache of Hugging Face's programs, such as of `CompVis/stable-diffusion-v1-4`.
///
/// The cache is `HF_HUB_CACHE`, else `HF_HOME/hub`, else `XDG_CACHE_HOME/huggingface/hub`, else
/// `~/.cache/huggingface/hub`. In it the folder `models--OWNER--NAME` has the revision of a model in `refs/main`, and the
/// files in `snapshots/REVISION`. Nothing is downloaded.
///
/// # Errors
/// [`NetError::Config`] where there is no such folder, with the place that was searched.
pub fn cached(repository: &str) -> Result<PathBuf, NetError> {
    cached_in(repository, |name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn cached_in(repository: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, NetError> {
    let below = |name: &str, path: &str| Some(Path::new(&variable(name)?).join(path));
    let hub = variable("HF_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| below("HF_HOME", "hub"))
        .or_else(|| below("XDG_CACHE_HOME", "huggingface/hub"))
        .or_else(|| below("HOME", ".cache/huggingface/hub"))
        .unwrap_or_else(|| PathBuf::from(".cache/huggingface/hub"));
    let model = hub.join(format!("models--{}", repository.replace('/', "--")));
    let refs = model.join("refs/main");
    let advice =
        format!("get {repository} there with Hugging Face's own program, or name the folder of a model");
    let missing = |path: &Path| NetError::Config {
        path: path.to_path_buf(),
        reason: format!("is not in the cache of Hugging Face; {advice}"),
    };
    let revision = std::fs::read_to_string(&refs).map_err(|_| missing(&refs))?;
    let revision = revision.trim();
    // A revision is the name of a commit, and no path.
    if revision.is_empty() || !revision.chars().all(|c| c.is_ascii_alphanumeric()) {
        let reason = format!("holds no revision; {advice}");
        return Err(NetError::Config { path: refs, reason });
    }
    let snapshot = model.join("snapshots").join(revision);
    if snapshot.is_dir() { Ok(snapshot) } else { Err(missing(&snapshot)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_cache_is_found_by_the_rules_of_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let model = |hub: &str, revision: &str| {
            let model = dir.path().join(hub).join("models--CompVis--stable-diffusion-v1-4");
            fs::create_dir_all(model.join("refs")).unwrap();
            fs::create_dir_all(model.join("snapshots").join(revision)).unwrap();
            fs::write(model.join("refs/main"), format!("{revision}\n")).unwrap();
            model
        };
        let find = |variables: &[(&str, &str)]| {
            let value = |name: &str| {
                let (_, below) = variables.iter().find(|(known, _)| *known == name)?;
                Some(dir.path().join(below).into_os_string())
            };
            cached_in("CompVis/stable-diffusion-v1-4", value)
        };
        let homes = ["a", "b/hub", "c/huggingface/hub", "d/.cache/huggingface/hub"];
        let models: Vec<PathBuf> =
            homes.iter().zip(["1a", "2b", "3c", "4d"]).map(|(h, r)| model(h, r)).collect();
        let all = [("HF_HUB_CACHE", "a"), ("HF_HOME", "b"), ("XDG_CACHE_HOME", "c"), ("HOME", "d")];
        for (first, (model, revision)) in models.iter().zip(["1a", "2b", "3c", "4d"]).enumerate() {
            assert_eq!(find(&all[first..]).unwrap(), model.join("snapshots").join(revision));
        }
        let error = find(&[("HOME", "e")]).unwrap_err().to_string();
        assert!(error.contains("refs/main") && error.contains("CompVis/stable-diffusion-v1-4"), "{error}");
        for bad in ["", "../x", "9z"] {
            fs::write(models[0].join("refs/main"), bad).unwrap();
            assert!(find(&all).is_err(), "{bad}");
        }
    }
}
