//! Stable Diffusion.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2};
use serde::Serialize;
use serde_json::{Value, json};

use super::{PromptModel, PromptParams, PromptScores, Truth};
use crate::Error;
use crate::device::{self, DeviceChoice};
use crate::net::diffusers::{Clip, Folder, Stored, Tokenizer, Unet, UnetConfig, Vae, VaeConfig};
use crate::net::{NetError, cuda};
use crate::process::{Level, Process, ProcessError, Spacing, Steps, Vp};
use crate::score::{Prompted, Score};
use crate::shape::Shape;
use crate::store::memory_left;
use crate::study::sweep::network_device;

/// Largest height and width of pictures.
const MOST_PIXELS: usize = 1 << 20;

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
    precision: Precision,
    device: device::Device,
    side: usize,
    batch: usize,
}

/// Floating-point numbers of the U-Net. Text encoder and autoencoder compute in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    Single,
    /// 16 bits: half of the memory for the weights, and no products with the transposed Jacobian.
    Half,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::Single => DType::F32,
            Self::Half => DType::F16,
        }
    }
}

impl DiffusersPrompts {
    /// Reads a model. `size` is the height and width of pictures; `None` for that of the model.
    ///
    /// # Errors
    /// [`NetError`] for a folder, settings and weights that are not those of a model, a size that the autoencoder does not
    /// give, and a device that can't be used.
    pub fn open(
        path: &Path,
        device: DeviceChoice,
        precision: Precision,
        size: Option<usize>,
        batch: usize,
    ) -> Result<Self, Error> {
        let folder = Folder::open(path)?;
        let (device, place) = place(device)?;
        let (vp, tokenizer, hashes) = (folder.process()?, folder.tokenizer()?, folder.hashes()?);
        let clip = folder.text_encoder(DType::F32, &place)?;
        let vae = folder.vae(DType::F32, &place)?;
        let unet = folder.unet(precision.dtype(), &place)?;
        let side = side(path, size, unet.config(), vae.config())?;
        Ok(Self { unet: Arc::new(unet), vae, clip, tokenizer, vp, hashes, precision, device, side, batch })
    }

    /// What [`Self::open`] reads of a folder, and what a run of [`measure`](super::measure) with it takes. Settings, names
    /// and shapes of all tensors are checked; their values are not read, and nothing is hashed. One pass of the network is
    /// computed with zeros for its weights, where the memory is there.
    ///
    /// # Errors
    /// As [`Self::open`], except for values of tensors.
    pub fn needs(
        path: &Path,
        device: DeviceChoice,
        precision: Precision,
        params: &PromptParams,
    ) -> Result<Needs, Error> {
        let folder = Folder::open(path)?;
        let (device, place) = place(device)?;
        let (vp, tokenizer) = (folder.process()?, folder.tokenizer()?);
        let below = |part: &str| path.join(part);
        let (clip, clip_stored) = Clip::zeros(&below("text_encoder"), DType::F32, &Device::Cpu)?;
        let (vae, vae_stored) = Vae::zeros(&below("vae"), DType::F32, &Device::Cpu)?;
        let (unet, unet_stored) = Unet::zeros(&below("unet"), precision.dtype(), &Device::Cpu)?;
        let parts = [("unet", unet_stored), ("vae", vae_stored), ("text_encoder", clip_stored)];
        let side = side(path, None, unet.config(), vae.config())?;
        let latents = Shape::image(side, side, unet.config().in_channels);
        let pixels = side << (vae.config().channels.len() - 1);
        let size = |(part, stored): &(&str, Stored)| {
            let dtype = if *part == "unet" { precision.dtype() } else { DType::F32 };
            dtype.size_in_bytes() as f64 * stored.parameters as f64
        };
        let weights = parts.iter().map(size).sum();
        let (pass, product) = unet.pass_bytes((side, side), clip.config().tokens);
        // Rows of S in f64.
        let rows = 8.0 * params.settings().rows as f64 * latents.len() as f64;
        let product = if precision == Precision::Half { 0.0 } else { product };
        let activations = (pass + rows).max(product).max(vae.decode_bytes((side, side)));
        let bytes: f64 = weights + activations;

        let text = Tensor::zeros((clip.config().tokens, clip.config().width), DType::F32, &Device::Cpu);
        let text = text.map_err(NetError::from)?;
        let level = vp.level(params.settings().t)?;
        let unet = match device {
            device::Device::Cpu => unet,
            device::Device::Cuda(_) => Unet::zeros(&below("unet"), precision.dtype(), &place)?.0,
        };
        let score = Prompted::new(Arc::new(unet), &text, (side, side), 1)?;
        // Of a GPU's memory nothing is known before it is used.
        let fits = device != device::Device::Cpu || memory_left().is_none_or(|left| bytes <= left as f64);
        let pass = match fits {
            true => {
                let start = Instant::now();
                score.score(Array2::zeros((1, latents.len())).view(), &[level])?;
                Some(start.elapsed())
            }
            false => None,
        };
        Ok(Needs {
            parts,
            vocabulary: tokenizer.vocabulary(),
            tokens: clip.config().tokens,
            levels: vp.settings().levels,
            latents,
            pictures: Shape::image(pixels, pixels, vae.config().out_channels),
            weights,
            bytes,
            // And one for the attention to the end of the prompt.
            passes: passes(params, precision) + params.settings().seeds,
            pass,
            device,
        })
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

/// A model in a folder, and what a run with it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// Folders with weights, and what these take in their files.
    pub parts: [(&'static str, Stored); 3],
    /// Number of tokens that the tokenizer knows.
    pub vocabulary: usize,
    /// Largest number of tokens of a prompt.
    pub tokens: usize,
    /// Number of noise levels.
    pub levels: usize,
    /// Shape of what is sampled.
    pub latents: Shape,
    /// Shape of a picture.
    pub pictures: Shape,
    /// Bytes of the weights in memory.
    pub weights: f64,
    /// Bytes that a run with a batch size of 1 takes at its fullest moment, with the weights: an estimate for the CPU, where
    /// `docs/prompts.md` compares it with measurements. A GPU's convolutions may take more.
    pub bytes: f64,
    /// Passes of the network for each prompt, where a product with the transposed Jacobian counts as three.
    pub passes: usize,
    /// Time of one pass; `None` where less memory is left than a run takes.
    pub pass: Option<Duration>,
    /// Where it was computed.
    pub device: device::Device,
}

/// Passes of the network that [`measure`](super::measure) takes for one prompt.
fn passes(params: &PromptParams, precision: Precision) -> usize {
    let settings = params.settings();
    let each = if [0.0, 1.0].contains(&settings.spectrum_guidance) { 1 } else { 2 };
    let sharpness = if precision == Precision::Half { 0 } else { 6 };
    // With and without the prompt: each step, the first difference, two products of sharpness, and for the alignment another
    // difference and the score without the prompt. A point of the spectrum is a row more.
    settings.seeds * (2 * settings.steps + 2 + sharpness + 3 + each * (settings.rows + 1))
}

/// The device for candle.
fn place(choice: DeviceChoice) -> Result<(device::Device, Device), Error> {
    let device = network_device(choice)?;
    let place = match device {
        device::Device::Cpu => Device::Cpu,
        device::Device::Cuda(number) => {
            cuda(number).map_err(|reason| NetError::Device { device: device.to_string(), reason })?
        }
    };
    Ok((device, place))
}

/// Height and width of the latents of networks that fit each other.
fn side(path: &Path, size: Option<usize>, unet: &UnetConfig, vae: &VaeConfig) -> Result<usize, NetError> {
    if vae.latent_channels != unet.in_channels {
        let (found, expected) = (vae.latent_channels, unet.in_channels);
        let reason = format!("latent_channels is {found}, expected {expected}, the in_channels of the U-Net");
        return Err(NetError::Config { path: path.join("vae/config.json"), reason });
    }
    let pixels = 1 << (vae.channels.len() - 1);
    match (size, unet.sample_size) {
        (Some(size), _) if (1..=MOST_PIXELS).contains(&size) && size.is_multiple_of(pixels) => {
            Ok(size / pixels)
        }
        (Some(size), _) => {
            let reason = format!(
                "pictures of size {size} were asked for, expected a multiple of {pixels} up to {MOST_PIXELS}"
            );
            Err(NetError::Config { path: path.into(), reason })
        }
        (None, Some(side)) => Ok(side),
        (None, None) => {
            let reason = "sample_size of the U-Net is missing; give the size of pictures".into();
            Err(NetError::Config { path: path.join("unet/config.json"), reason })
        }
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
        let end = self.tokenizer.encode(caption)?.end;
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

    fn dropped(&self, caption: &str) -> Result<usize, Error> {
        Ok(self.tokenizer.encode(caption)?.dropped)
    }

    fn products(&self) -> bool {
        self.precision != Precision::Half
    }

    fn identity(&self) -> Value {
        json!({
            "files": self.hashes,
            "size": self.side,
            "precision": self.precision,
            "device": self.device,
        })
    }

    fn truth(&self) -> Option<&Truth> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Level;
    use crate::progress::Silent;
    use crate::score::{Gaussian, ScoreError};
    use crate::study::prompts::{Prompt, PromptSettings, measure};
    use ndarray::Array1;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A score that counts its rows.
    struct Counted(Gaussian, Arc<AtomicUsize>);

    impl Score for Counted {
        fn dim(&self) -> usize {
            self.0.dim()
        }

        fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
            self.1.fetch_add(x.nrows(), Ordering::Relaxed);
            self.0.score(x, levels)
        }

        fn vjp(
            &self,
            x: ArrayView2<'_, f64>,
            levels: &[Level],
            v: ArrayView2<'_, f64>,
        ) -> Result<Array2<f64>, ScoreError> {
            self.1.fetch_add(3 * x.nrows(), Ordering::Relaxed);
            self.0.vjp(x, levels, v)
        }
    }

    struct Model(Vp, Arc<AtomicUsize>, Precision);

    impl PromptModel for Model {
        fn shape(&self) -> Shape {
            Shape::image(2, 2, 1)
        }

        fn process(&self) -> &Vp {
            &self.0
        }

        fn clip(&self) -> Option<f64> {
            None
        }

        fn prompted(&self, _: &str) -> Result<PromptScores, Error> {
            let score = |mean: f64| -> Result<Box<dyn Score + Send>, Error> {
                let gaussian = Gaussian::new(Array1::from_elem(4, mean), Array1::ones(4))?;
                Ok(Box::new(Counted(gaussian, self.1.clone())))
            };
            Ok(PromptScores { without: score(0.0)?, with: score(0.5)? })
        }

        fn pictures(&self, samples: ArrayView2<'_, f32>) -> Result<(Array2<f32>, Shape), Error> {
            Ok((samples.to_owned(), self.shape()))
        }

        fn products(&self) -> bool {
            self.2 == Precision::Single
        }

        fn identity(&self) -> Value {
            json!("counted")
        }

        fn truth(&self) -> Option<&Truth> {
            None
        }
    }

    #[test]
    fn passes_are_those_of_a_prompt() {
        for (spectrum_guidance, precision) in [
            (1.0, Precision::Single),
            (0.0, Precision::Single),
            (2.0, Precision::Single),
            (1.0, Precision::Half),
        ] {
            let settings =
                PromptSettings { seeds: 3, steps: 5, rows: 70, spectrum_guidance, ..Default::default() };
            let params = settings.check().unwrap();
            let model = Model(Vp::default(), Arc::default(), precision);
            let measured = measure(&model, (0, &Prompt::new("a pear")), &params, None, &Silent).unwrap();
            assert_eq!(model.1.load(Ordering::Relaxed), passes(&params, precision), "{spectrum_guidance}");
            let single = precision == Precision::Single;
            assert!(measured.iter().all(|one| one.row.sharpness.is_some() == single));
        }
    }
}
