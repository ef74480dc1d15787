//! The autoencoder of Stable Diffusion: `AutoencoderKL` of diffusers.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::config::Settings;
use super::files::{Loader, Stored, TensorFiles, Values};
use super::layers::{Conv, Linear, Norm, Scores, Width, to_image, to_rows};
use super::unet::{Resnet, SCORE_BYTES};
use crate::net::NetError;
use crate::net::candle::doubled;

/// Settings of an autoencoder, from its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Channels of images.
    pub in_channels: usize,
    /// Channels of decoded images.
    pub out_channels: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Latents of the diffusion model are those of the encoder times this factor.
    pub scaling_factor: f64,
    blocks: usize,
    groups: usize,
    attention: bool,
    quant: bool,
    post_quant: bool,
}

impl VaeConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`NetError::Config`] for a setting that is missing, unknown, or of a value that is not computed.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let mut s = Settings::read(path)?;
        s.only(&[
            ("act_fn", json!("silu")),
            ("latents_mean", json!(null)),
            ("latents_std", json!(null)),
            ("shift_factor", json!(0.0)),
        ])?;
        // `force_upcast` is advice for half precision.
        s.skip(&["sample_size", "force_upcast"]);
        let channels: Vec<usize> = s.need("block_out_channels")?;
        for (name, kind) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let kinds: Vec<String> = s.need(name)?;
            if let Some(other) = kinds.iter().find(|other| *other != kind) {
                return Err(s.refused(name, &format!("has {other}, expected {kind}")));
            }
            if kinds.len() != channels.len() {
                let reason = format!("has {} levels, block_out_channels has {}", kinds.len(), channels.len());
                return Err(s.refused(name, &reason));
            }
        }
        let config = Self {
            in_channels: s.take("in_channels", 3)?,
            out_channels: s.take("out_channels", 3)?,
            latent_channels: s.take("latent_channels", 4)?,
            blocks: s.take("layers_per_block", 1)?,
            groups: s.take("norm_num_groups", 32)?,
            scaling_factor: s.take("scaling_factor", 0.18215)?,
            attention: s.take("mid_block_add_attention", true)?,
            quant: s.take("use_quant_conv", true)?,
            post_quant: s.take("use_post_quant_conv", true)?,
            channels,
        };
        s.counts(&[
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("latent_channels", config.latent_channels),
            ("layers_per_block", config.blocks),
            ("norm_num_groups", config.groups),
        ])?;
        s.channels(&config.channels, config.groups)?;
        s.positive(&[("scaling_factor", config.scaling_factor)])?;
        s.finish()?;
        Ok(config)
    }
}

/// An autoencoder with its weights.
pub struct Vae {
    config: VaeConfig,
    dtype: DType,
    device: Device,
    score_bytes: usize,
    encoder: Half,
    quant: Option<Conv>,
    post_quant: Option<Conv>,
    decoder: Half,
}

/// Mean and logarithm of the variance of the latents of images, `[m, latent_channels, height / r, width / r]`.
#[derive(Debug, Clone)]
pub struct Moments {
    /// The mean.
    pub mean: Tensor,
    /// Logarithm of the variance, clipped to [-30, 20].
    pub logvar: Tensor,
}

/// Encoder or decoder.
struct Half {
    input: Conv,
    levels: Vec<Level>,
    middle: Middle,
    norm: Norm,
    output: Conv,
}

struct Level {
    resnets: Vec<Resnet>,
    resize: Option<Conv>,
}

struct Middle {
    first: Resnet,
    attention: Option<Attention>,
    second: Resnet,
}

struct Attention {
    norm: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

const EPSILON: f64 = 1e-6;

impl Vae {
    /// Reads `config.json` and the weights of the folder `vae`, and converts them.
    ///
    /// # Errors
    /// As [`super::Unet::read`].
    pub fn read(folder: &Path, dtype: DType, device: &Device) -> Result<Self, NetError> {
        Ok(Self::load(folder, Values::File, dtype, device)?.0)
    }

    /// As [`super::Unet::zeros`].
    ///
    /// # Errors
    /// As [`super::Unet::zeros`].
    pub fn zeros(folder: &Path, dtype: DType, device: &Device) -> Result<(Self, Stored), NetError> {
        Self::load(folder, Values::Zeros, dtype, device)
    }

    fn load(
        folder: &Path,
        values: Values,
        dtype: DType,
        device: &Device,
    ) -> Result<(Self, Stored), NetError> {
        super::check_dtype("autoencoder", dtype)?;
        let config = VaeConfig::read(&folder.join("config.json"))?;
        let files = TensorFiles::find(folder, super::WEIGHTS)?;
        files.load(values, dtype, device, |_| false, |l| Self::build(&config, dtype, device, l))
    }

    fn build(c: &VaeConfig, dtype: DType, device: &Device, l: &mut Loader<'_>) -> Result<Self, NetError> {
        let reversed: Vec<usize> = c.channels.iter().rev().copied().collect();
        let (z, images) = (c.latent_channels, [c.in_channels, c.out_channels]);
        let pixel = |l: &mut Loader<'_>, name: &str, n: usize| Conv::load(l, name, n, n, 1);
        Ok(Self {
            encoder: Half::load(l, c, "encoder", &c.channels, [images[0], 2 * z])?,
            quant: c.quant.then(|| pixel(l, "quant_conv", 2 * z)).transpose()?,
            post_quant: c.post_quant.then(|| pixel(l, "post_quant_conv", z)).transpose()?,
            decoder: Half::load(l, c, "decoder", &reversed, [z, images[1]])?,
            config: c.clone(),
            dtype,
            device: device.clone(),
            score_bytes: SCORE_BYTES,
        })
    }

    /// The settings.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The type of weights, images and latents.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of weights, images and latents.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// As [`super::Unet::set_score_bytes`].
    pub fn set_score_bytes(&mut self, bytes: usize) {
        self.score_bytes = bytes;
    }

    /// Bytes that [`Self::decode`] takes beside the weights, for one row of latents of a height and a width, as
    /// [`super::Unet::pass_bytes`].
    pub fn decode_bytes(&self, (height, width): (usize, usize)) -> f64 {
        let (size, decoder) = (Width::of(self.dtype), &self.decoder);
        let mut pixels = height as f64 * width as f64;
        let mut most: f64 = 0.0;
        let resnet =
            |resnet: &Resnet, pixels: f64| size.value * resnet.inputs() * pixels + resnet.held(pixels, size);
        if decoder.middle.attention.is_some() {
            let scores = Scores::at_a_time(self.score_bytes, 1, pixels, pixels, size);
            // Input, normalised input, q, k, v and output.
            most = size.value * 8.0 * decoder.middle.first.outputs() * pixels + 4.0 * scores;
        }
        most = most.max(resnet(&decoder.middle.first, pixels));
        for level in &decoder.levels {
            most = level.resnets.iter().fold(most, |most, one| most.max(resnet(one, pixels)));
            if let Some(conv) = &level.resize {
                pixels *= 4.0;
                // The image before and after it is doubled.
                most = most.max(size.value * 1.25 * conv.inputs() * pixels + conv.held(pixels, size));
            }
        }
        most
    }

    /// Moments of the latents of images `[m, in_channels, height, width]` with values in [-1, 1], without the scaling
    /// factor.
    ///
    /// # Errors
    /// [`NetError::Shape`] for other shapes, or a height or width that cannot be halved at each level;
    /// [`NetError::Candle`].
    pub fn encode(&self, images: &Tensor) -> Result<Moments, NetError> {
        let c = &self.config;
        super::check_image("autoencoder", "images", images, c.in_channels, 1 << (c.channels.len() - 1))?;
        let mut x = self.encoder.input.forward(images)?;
        for level in &self.encoder.levels {
            for resnet in &level.resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(conv) = &level.resize {
                x = conv.forward(&x)?;
            }
        }
        let x = self.encoder.middle.forward(&x, self.score_bytes)?;
        let x = self.encoder.end(&x)?;
        let x = match &self.quant {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        let z = c.latent_channels;
        Ok(Moments { mean: x.narrow(1, 0, z)?, logvar: x.narrow(1, z, z)?.clamp(-30.0, 20.0)? })
    }

    /// Images `[m, out_channels, r height, r width]`, about [-1, 1], of latents `[m, latent_channels, height, width]` without
    /// the scaling factor.
    ///
    /// # Errors
    /// [`NetError::Shape`] for other shapes, [`NetError::Candle`].
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor, NetError> {
        super::check_image("autoencoder", "latents", latents, self.config.latent_channels, 1)?;
        let x = match &self.post_quant {
            Some(conv) => conv.forward(latents)?,
            None => latents.clone(),
        };
        let x = self.decoder.input.forward(&x)?;
        let mut x = self.decoder.middle.forward(&x, self.score_bytes)?;
        for level in &self.decoder.levels {
            for resnet in &level.resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(conv) = &level.resize {
                x = conv.forward(&doubled(&x)?)?;
            }
        }
        self.decoder.end(&x)
    }
}

impl Half {
    /// Between `ends` channels. Levels in the order of evaluation; the decoder has one residual block more in each.
    fn load(
        l: &mut Loader<'_>,
        c: &VaeConfig,
        name: &str,
        channels: &[usize],
        ends: [usize; 2],
    ) -> Result<Self, NetError> {
        let encodes = name == "encoder";
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let input = Conv::load(l, &format!("{name}.conv_in"), ends[0], first, 3)?;
        let mut levels = Vec::new();
        let mut inputs = first;
        for (i, &outputs) in channels.iter().enumerate() {
            let at = format!("{name}.{}_blocks.{i}", if encodes { "down" } else { "up" });
            let mut resnets = Vec::new();
            for j in 0..c.blocks + usize::from(!encodes) {
                let name = format!("{at}.resnets.{j}");
                resnets.push(Resnet::timeless(l, &name, inputs, outputs, c.groups, EPSILON)?);
                inputs = outputs;
            }
            let resize = match (i + 1 < channels.len(), encodes) {
                (false, _) => None,
                (true, true) => {
                    let conv = Conv::load(l, &format!("{at}.downsamplers.0.conv"), outputs, outputs, 3)?;
                    Some(conv.halving(0))
                }
                (true, false) => {
                    Some(Conv::load(l, &format!("{at}.upsamplers.0.conv"), outputs, outputs, 3)?)
                }
            };
            levels.push(Level { resnets, resize });
        }
        let width = if encodes { last } else { first };
        let at = format!("{name}.mid_block");
        let mut resnet =
            |i: usize| Resnet::timeless(l, &format!("{at}.resnets.{i}"), width, width, c.groups, EPSILON);
        let (one, two) = (resnet(0)?, resnet(1)?);
        let attention = match c.attention {
            true => Some(Attention::load(l, &format!("{at}.attentions.0"), width, c.groups)?),
            false => None,
        };
        Ok(Self {
            input,
            levels,
            middle: Middle { first: one, attention, second: two },
            norm: Norm::groups(l, &format!("{name}.conv_norm_out"), last, c.groups, EPSILON)?,
            output: Conv::load(l, &format!("{name}.conv_out"), last, ends[1], 3)?,
        })
    }

    fn end(&self, x: &Tensor) -> Result<Tensor, NetError> {
        Ok(self.output.forward(&self.norm.forward(x)?.silu()?)?)
    }
}

impl Middle {
    fn forward(&self, x: &Tensor, bytes: usize) -> Result<Tensor, NetError> {
        let x = self.first.forward(x, None)?;
        let x = match &self.attention {
            Some(attention) => attention.forward(&x, bytes)?,
            None => x,
        };
        self.second.forward(&x, None)
    }
}

impl Attention {
    /// With the names of diffusers, or those before its version 0.15.
    fn load(l: &mut Loader<'_>, name: &str, channels: usize, groups: usize) -> Result<Self, NetError> {
        let names = match l.has(&format!("{name}.query.weight")) {
            true => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        let mut layer = |part: &str| Linear::load(l, &format!("{name}.{part}"), channels, channels, true);
        let (q, k, v, out) = (layer(names[0])?, layer(names[1])?, layer(names[2])?, layer(names[3])?);
        Ok(Self {
            norm: Norm::groups(l, &format!("{name}.group_norm"), channels, groups, EPSILON)?,
            q,
            k,
            v,
            out,
        })
    }

    fn forward(&self, x: &Tensor, bytes: usize) -> Result<Tensor, NetError> {
        let (_, channels, height, width) = x.dims4()?;
        let y = to_rows(&self.norm.forward(x)?)?;
        let scores = Scores { scale: 1.0 / (channels as f64).sqrt(), mask: None, bytes };
        let y = scores.attend(&self.q.forward(&y)?, &self.k.forward(&y)?, &self.v.forward(&y)?)?;
        Ok((x + to_image(&self.out.forward(&y)?, height, width)?)?)
    }
}
