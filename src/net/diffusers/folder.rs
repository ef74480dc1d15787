//! A model folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::config::Settings;
use super::files::TensorFiles;
use super::{Clip, Tokenizer, Unet, Vae, tokenizer};
use crate::net::NetError;
use crate::process::{Curve, Vp, VpSettings};
use crate::store::{StoreError, hex};

/// A folder in the layout of diffusers. Nothing is read before a part is asked for.
///
/// ```
/// use candle_core::{DType, Device};
/// use mem2gen::net::diffusers::Folder;
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/diffusers/tiny");
/// let folder = Folder::open(path.as_ref())?;
/// let tokens = folder.tokenizer()?.encode("a red house")?;
/// let text = folder.text_encoder(DType::F32, &Device::Cpu)?.forward(&[tokens.ids])?;
/// assert_eq!(text.dims(), [1, 77, 16]);
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens a folder with the parts of a model.
    ///
    /// # Errors
    /// [`NetError::Config`] when a part's settings do not exist.
    pub fn open(path: &Path) -> Result<Self, NetError> {
        for part in ["unet", "vae", "text_encoder"] {
            let path = path.join(part).join("config.json");
            if !path.is_file() {
                let reason = "does not exist; give a complete folder of a model in diffusers' layout, not a single checkpoint";
                return Err(NetError::Config { path, reason: reason.into() });
            }
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The U-Net, in f16, f32 or f64.
    ///
    /// # Errors
    /// As [`Unet::read`].
    pub fn unet(&self, dtype: DType, device: &Device) -> Result<Unet, NetError> {
        Unet::read(&self.path.join("unet"), dtype, device)
    }

    /// The autoencoder, in f16, f32 or f64.
    ///
    /// # Errors
    /// As [`Vae::read`].
    pub fn vae(&self, dtype: DType, device: &Device) -> Result<Vae, NetError> {
        Vae::read(&self.path.join("vae"), dtype, device)
    }

    /// The text encoder, in f16, f32 or f64.
    ///
    /// # Errors
    /// As [`Clip::read`].
    pub fn text_encoder(&self, dtype: DType, device: &Device) -> Result<Clip, NetError> {
        Clip::read(&self.path.join("text_encoder"), dtype, device)
    }

    /// The tokenizer, for texts of as many tokens as the text encoder takes.
    ///
    /// # Errors
    /// As [`Tokenizer::read`]; [`NetError::Config`] when the vocabulary has more or fewer tokens than the text encoder.
    pub fn tokenizer(&self) -> Result<Tokenizer, NetError> {
        let config = super::ClipConfig::read(&self.path.join("text_encoder").join("config.json"))?;
        let folder = self.path.join("tokenizer");
        let tokenizer = Tokenizer::read(&folder, config.tokens)?;
        if tokenizer.vocabulary() != config.vocabulary {
            let (found, expected) = (tokenizer.vocabulary(), config.vocabulary);
            let reason = format!(
                "has {found} tokens, but vocab_size of the text encoder is {expected}; copy both again"
            );
            return Err(NetError::Config { path: folder.join("vocab.json"), reason });
        }
        Ok(tokenizer)
    }

    /// The noise levels that the U-Net was trained with.
    ///
    /// # Errors
    /// [`NetError::Config`] for a setting that is missing, unknown, or of a value that is not computed: other predictions
    /// than epsilon, betas of another form, and samplers that clip.
    pub fn process(&self) -> Result<Vp, NetError> {
        let path = self.path.join("scheduler").join("scheduler_config.json");
        let mut s = Settings::read(&path)?;
        s.only(&[
            ("clip_sample", json!(false)),
            ("prediction_type", json!("epsilon")),
            ("rescale_betas_zero_snr", json!(false)),
            ("set_alpha_to_one", json!(false)),
            ("steps_offset", json!(1)),
            ("thresholding", json!(false)),
            ("timestep_spacing", json!("leading")),
            ("trained_betas", json!(null)),
        ])?;
        // Of clipping, and of the first steps of PNDM.
        s.skip(&["clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value", "skip_prk_steps"]);
        let settings = VpSettings {
            levels: s.take("num_train_timesteps", 1000)?,
            beta_start: s.need("beta_start")?,
            beta_end: s.need("beta_end")?,
            curve: match s.need::<String>("beta_schedule")?.as_str() {
                "linear" => Curve::Linear,
                "scaled_linear" => Curve::ScaledLinear,
                other => {
                    let reason = format!("is {other:?}, expected \"linear\" or \"scaled_linear\"");
                    return Err(s.refused("beta_schedule", &reason));
                }
            },
        };
        s.finish()?;
        settings.check().map_err(|e| NetError::Config { path, reason: e.to_string() })
    }

    /// SHA-256 of all files that are read, in lower-case hexadecimal, by their names in the folder with `/`.
    ///
    /// # Errors
    /// [`NetError::Weights`] for missing weights, [`NetError::Store`].
    pub fn hashes(&self) -> Result<BTreeMap<String, String>, NetError> {
        let mut paths: Vec<PathBuf> = [
            "unet/config.json",
            "vae/config.json",
            "text_encoder/config.json",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "scheduler/scheduler_config.json",
        ]
        .iter()
        .map(|name| self.path.join(name))
        .collect();
        let settings = tokenizer::SETTINGS.iter().map(|name| self.path.join("tokenizer").join(name));
        paths.extend(settings.filter(|path| path.is_file()));
        for (part, stem) in [("unet", super::WEIGHTS), ("vae", super::WEIGHTS), ("text_encoder", "model")] {
            let files = TensorFiles::find(&self.path.join(part), stem)?;
            paths.extend(files.paths().map(Path::to_path_buf));
        }
        paths.iter().map(|path| Ok((self.name(path), sha256(path)?))).collect()
    }

    fn name(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.path).unwrap_or(path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

/// SHA-256 of a file, which is not held in memory.
fn sha256(path: &Path) -> Result<String, StoreError> {
    let sum = || {
        let (mut file, mut hash, mut part) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut part)? {
                0 => return Ok(hex(&hash.finalize())),
                count => hash.update(&part[..count]),
            }
        }
    };
    sum().map_err(StoreError::io("read", path))
}
