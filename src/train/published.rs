//! Published files of finished runs: the moving average in half precision, with the settings of the run.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::run_dir::{Config, DataRecord, Kind, RunDir, RunManifest};
use super::settings::TrainParams;
use super::{TrainError, TrainingData};
use crate::net::{NetError, Weights};
use crate::store::{from_json, hex, read_file, sha256_hex, write_atomic};

/// Key of [`About`] in the metadata.
const ABOUT: &str = "mem2gen run";

/// The metadata of a file, in one entry, so that equal runs give equal files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// Checksum of `run` as JSON and of the weights.
    sha256: String,
    run: Run,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    config: Config,
    manifest: RunManifest,
}

impl Run {
    fn sum(&self, weights: &Weights) -> Result<String, serde_json::Error> {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_vec(self)?);
        for v in weights.values() {
            hash.update(v.to_le_bytes());
        }
        Ok(hex(&hash.finalize()))
    }
}

impl RunDir {
    /// Writes the moving average of a finished run in half precision, with settings and checksums. Equal runs give equal
    /// files except for the seconds.
    ///
    /// # Errors
    /// [`TrainError::Run`] for an unfinished run, and for weights that half precision can't represent.
    pub fn publish(&self, path: &Path) -> Result<(), TrainError> {
        let bad = |reason: String| TrainError::Run { path: self.path().into(), reason };
        let manifest = self.manifest()?.ok_or_else(|| bad("is not finished".into()))?;
        let (mut weights, _) = self.weights(Kind::Ema)?;
        let graph = self.graph().clone();
        let mut tensors = vec![];
        for p in graph.params() {
            let values = Tensor::from_vec(weights.file_values(p), p.layout.file_shape(), &Device::Cpu)
                .and_then(|t| t.to_dtype(DType::F16))
                .map_err(NetError::from)?;
            let rounded = values
                .to_dtype(DType::F32)
                .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
                .map_err(NetError::from)?;
            if !rounded.iter().all(|v| v.is_finite()) {
                return Err(bad(format!("{} has a value that half precision can't represent", p.name)));
            }
            weights.set_file_values(p, &rounded)?;
            tensors.push((p.name.clone(), values));
        }
        let run = Run { config: self.config().clone(), manifest };
        let sha256 = run.sum(&weights).map_err(|e| bad(e.to_string()))?;
        let about = serde_json::to_string(&About { sha256, run }).map_err(|e| bad(e.to_string()))?;
        let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
        let file = safetensors::serialize(tensors, Some(metadata)).map_err(|e| bad(e.to_string()))?;
        Ok(write_atomic(path, |out| out.write_all(&file))?)
    }

    /// Restores a finished run from a file of [`Self::publish`]: the average weights, rounded to half precision, without raw
    /// weights, checkpoints and metrics. The manifest is written last and names the file and the device of training;
    /// `device` is the device on which the run is used. A run that was restored from the same file is left as it is.
    ///
    /// # Errors
    /// [`TrainError::Run`] for a damaged file, other settings and other data, and for a folder with other weights; [`TrainError::Net`] for weights of another
    /// network.
    pub fn restore(
        path: &Path,
        params: &TrainParams,
        data: &TrainingData,
        device: crate::device::Device,
        file: &Path,
    ) -> Result<Self, TrainError> {
        let bad = |reason: String| TrainError::Run { path: file.into(), reason };
        let bytes = read_file(file)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|_| {
            let length = bytes.len();
            bad(format!(
                "is not a whole .safetensors file ({length} bytes), expected one of --publish; copy it again"
            ))
        })?;
        let about = header.metadata().as_ref().and_then(|m| m.get(ABOUT));
        let about = about.ok_or_else(|| {
            bad(format!("has no metadata {ABOUT:?}, expected a file of --publish; give such a file"))
        })?;
        let About { sha256, run } =
            from_json(about.as_bytes()).map_err(|_| {
                bad(format!(
                    "has metadata {ABOUT:?} of another form, expected that of this version; write the file again with --publish"
                ))
            })?;
        if run.config.key != params.key() {
            return Err(bad(format!(
                "belongs to the run {}, expected {}; give the settings that it was trained with",
                run.config.key,
                params.key()
            )));
        }
        let weights = Weights::read(file, params.graph().clone())?;
        if run.sum(&weights).map_err(|e| bad(e.to_string()))? != sha256 {
            return Err(bad("does not match its checksum; copy it again".into()));
        }
        let record = DataRecord::from_data(data);
        if record != run.config.data {
            let reason = format!(
                "was trained on data with the checksum {}, expected {}; fetch the data set again",
                run.config.data.sha256, record.sha256
            );
            return Err(bad(reason));
        }
        let restored_from = Some(sha256_hex(&bytes));
        let (there, _lock) = Self::begin_on(path, params, record, &device.to_string())?;
        match there.manifest()? {
            Some(manifest) if manifest.restored_from == restored_from => {
                there.verify_all(&manifest)?;
                return Ok(there);
            }
            None if !Self::is_begun(path) => {}
            _ => {
                let reason =
                    format!("has weights that are not those of {}; choose another folder", file.display());
                return Err(TrainError::Run { path: path.into(), reason });
            }
        }
        there.write_weights(Kind::Ema, weights)?;
        there.write_manifest(&RunManifest {
            files: there.checksums(&[Kind::Ema.file()])?,
            restored_from,
            ..run.manifest
        })?;
        Ok(there)
    }
}
