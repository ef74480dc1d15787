//! Networks that were trained elsewhere, as folders of finished runs.

use std::path::Path;

use super::run_dir::{DataRecord, Kind, RunDir, RunManifest};
use super::settings::TrainParams;
use super::{TrainError, TrainingData};
use crate::net::Weights;
use crate::setting::SettingError;

/// The weights of an imported network.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The trained weights.
    pub raw: Weights,
    /// Their moving average.
    pub ema: Weights,
    /// SHA-256 of the file that they were read from.
    pub sha256: String,
}

impl RunDir {
    /// Writes the folder of a finished run with the weights of a network that was trained elsewhere.
    ///
    /// `data` is the training set, `None` when it is unknown; then [`Self::data`] refuses. The settings that a run
    /// depends on are those of `params`. The manifest is written last and names the checksum of the file.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for weights of another network or that are not finite; [`TrainError::Run`],
    /// [`TrainError::Other`] and [`TrainError::Busy`] for a folder that holds something else; [`TrainError::Store`].
    pub fn import(
        path: &Path,
        params: &TrainParams,
        data: Option<&TrainingData>,
        imported: &Imported,
    ) -> Result<Self, TrainError> {
        let refused = |value: String, need: &'static str| {
            TrainError::from(SettingError::new("import", "weights", value, need))
        };
        for weights in [&imported.raw, &imported.ema] {
            if weights.graph() != params.graph() {
                return Err(refused("of another network".into(), "those of the network in the settings"));
            }
            if let Some(value) = weights.values().iter().find(|value| !value.is_finite()) {
                return Err(refused(value.to_string(), "finite numbers"));
            }
        }
        let record = data.map_or_else(|| DataRecord::unknown(params.input()), DataRecord::from_data);
        let (run, _lock) = Self::begin_on(path, params, record, "cpu")?;
        if let Some(manifest) = run.manifest()? {
            if manifest.imported_from.as_ref() != Some(&imported.sha256) {
                let reason = "holds a finished run from another source; choose another folder".into();
                return Err(TrainError::Run { path: path.into(), reason });
            }
            run.verify_all(&manifest)?;
            return Ok(run);
        }
        run.write_weights(Kind::Ema, imported.ema.clone())?;
        run.write_weights(Kind::Raw, imported.raw.clone())?;
        let files = run.checksums(&[Kind::Ema.file(), Kind::Raw.file()])?;
        run.write_manifest(&RunManifest {
            imported_from: Some(imported.sha256.clone()),
            ..run.new_manifest(params.settings().steps, files)
        })?;
        Ok(run)
    }
}
