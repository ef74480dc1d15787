//! Stable Diffusion.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2};
use serde_json::{Value, json};

use super::{PromptModel, PromptScores, Truth};
use crate::Error;
use crate::device::{self, DeviceChoice};
use crate::net::NetError;
use crate::net::diffusers::{Clip, Folder, Tokenizer, Unet, Vae};
use crate::process::{Level, ProcessError, Spacing, Steps, Vp};
use crate::score::{Prompted, Score};
use crate::shape::Shape;
use crate::study::sweep::network_device;

/// Where the paper's model is published.
pub const STABLE_DIFFUSION: &str = "CompVis/stable-diffusion-v1-4";

/// A model of Stable Diffusion in a folder of diffusers' layout. It samples latents, in the order channel, row, column.
pub struct DiffusersPrompts {
    unet: Arc<Unet>,
    vae: Vae,
    clip: Clip,
    tokenizer: Tokenizer,
    vp: Vp,
    hashes: BTreeMap<String, String>,
    device: device::Device,
    side: usize,
    batch: usize,
}

impl DiffusersPrompts {
    /// Reads a model in single precision. `size` is the height and width of pictures; `None` for that of the model.
    ///
    /// # Errors
    /// [`NetError`] for a folder, settings and weights that are not those of a model, a size that the autoencoder does not
    /// give, and a device that can't be used.
    pub fn open(path: &Path, device: DeviceChoice, size: Option<usize>, batch: usize) -> Result<Self, Error> {
        let folder = Folder::open(path)?;
        let device = network_device(device)?;
        let place = match device {
            device::Device::Cpu => Device::Cpu,
            device::Device::Cuda(number) => Device::new_cuda(number).map_err(NetError::from)?,
        };
        let (vp, tokenizer, hashes) = (folder.process()?, folder.tokenizer()?, folder.hashes()?);
        let clip = folder.text_encoder(DType::F32, &place)?;
        let vae = folder.vae(DType::F32, &place)?;
        let unet = folder.unet(DType::F32, &place)?;
        let pixels = 1 << (vae.config().channels.len() - 1);
        let side = match (size, unet.config().sample_size) {
            (Some(size), _) if size > 0 && size.is_multiple_of(pixels) => size / pixels,
            (Some(size), _) => {
                let reason =
                    format!("pictures of size {size} were asked for, expected a multiple of {pixels}");
                return Err(NetError::Config { path: path.into(), reason }.into());
            }
            (None, Some(side)) => side,
            (None, None) => {
                let reason = "sample_size of the U-Net is missing; give the size of pictures".into();
                return Err(NetError::Config { path: path.join("unet/config.json"), reason }.into());
            }
        };
        Ok(Self { unet: Arc::new(unet), vae, clip, tokenizer, vp, hashes, device, side, batch })
    }

    /// The vectors of a text, `[tokens, d]`.
    fn text(&self, text: &str) -> Result<Tensor, NetError> {
        let tokens = self.tokenizer.encode(text)?.ids;
        Ok(self.clip.forward(&[tokens])?.squeeze(0)?)
    }

    fn score(&self, text: &str) -> Result<Box<dyn Score + Send>, Error> {
        let size = (self.side, self.side);
        Ok(Box::new(Prompted::new(self.unet.clone(), &self.text(text)?, size, self.batch)?))
    }

    /// Pictures of latents, `[m, channels, height, width]`.
    fn decoded(&self, samples: ArrayView2<'_, f32>) -> Result<Tensor, NetError> {
        let config = self.vae.config();
        let shape = (samples.nrows(), config.latent_channels, self.side, self.side);
        let latents = Tensor::from_vec(samples.iter().copied().collect::<Vec<f32>>(), shape, &Device::Cpu)?;
        let latents = (latents.to_device(self.vae.device())? / config.scaling_factor)?;
        // One at a time: activations of a picture of 512x512 take gigabytes.
        let each = (0..samples.nrows()).map(|row| self.vae.decode(&latents.narrow(0, row, 1)?));
        Ok(Tensor::cat(&each.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}

impl PromptModel for DiffusersPrompts {
    fn shape(&self) -> Shape {
        Shape::image(self.side, self.side, self.unet.config().in_channels)
    }

    fn process(&self) -> &Vp {
        &self.vp
    }

    fn steps(&self, count: usize) -> Result<Steps, ProcessError> {
        self.vp.steps(count, Spacing::Offset)
    }

    fn clip(&self) -> Option<f64> {
        None
    }

    fn prompted(&self, caption: &str) -> Result<PromptScores, Error> {
        Ok(PromptScores { without: self.score("")?, with: self.score(caption)? })
    }

    fn end_attention(
        &self,
        caption: &str,
        x: ArrayView2<'_, f64>,
        level: Level,
    ) -> Result<Option<Array2<f64>>, Error> {
        // The first end closes the text, the others fill the context.
        let tokens = self.tokenizer.encode(caption)?.ids;
        let end = tokens.iter().position(|token| Some(token) == tokens.last()).unwrap_or(0);
        let size = (self.side, self.side);
        let score = Prompted::new(self.unet.clone(), &self.text(caption)?, size, self.batch)?;
        Ok(Some(score.attention(x, &vec![level; x.nrows()], end)?))
    }

    fn pictures(&self, samples: ArrayView2<'_, f32>) -> Result<(Array2<f32>, Shape), Error> {
        let decoded = self.decoded(samples)?;
        let (rows, channels, height, width) = decoded.dims4().map_err(NetError::from)?;
        let values = decoded
            .permute((0, 2, 3, 1))
            .and_then(|images| images.contiguous()?.flatten_all()?.to_vec1::<f32>())
            .map_err(NetError::from)?;
        let shape = Shape::image(height, width, channels);
        let clamped = values.into_iter().map(|v| v.clamp(-1.0, 1.0)).collect();
        let pictures = Array2::from_shape_vec((rows, shape.len()), clamped);
        Ok((pictures.expect("a tensor has as many values as its shape"), shape))
    }

    fn identity(&self) -> Value {
        json!({ "files": self.hashes, "size": self.side, "device": self.device })
    }

    fn truth(&self) -> Option<&Truth> {
        None
    }
}
