//! The U-Net of Stable Diffusion 1 and 2: `UNet2DConditionModel` of diffusers.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::json;

use super::config::{Setting, Settings};
use super::files::{Loader, Stored, TensorFiles, Values};
use super::layers::{Conv, Linear, Norm, Scores, Width, gelu, join_heads, split_heads, to_image, to_rows};
use crate::net::NetError;
use crate::net::candle::doubled;

/// Bytes of attention scores at a time. An image of 64 x 64 latents has 512 MiB in f32, which are computed in eight parts.
pub const SCORE_BYTES: usize = 64 << 20;

/// Settings of a U-Net, from its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Whether each level on the way down has attention.
    pub down_attention: Vec<bool>,
    /// Whether each level on the way up has attention, the lowest resolution first.
    pub up_attention: Vec<bool>,
    /// Residual blocks of a level on the way down; the way up has one more.
    pub blocks: usize,
    /// Attention heads of each level.
    pub heads: Vec<usize>,
    /// Length of a token's vector.
    pub text: usize,
    /// Height and width of the latents that the model was trained on; other sizes are computed, too.
    pub sample_size: Option<usize>,
    groups: usize,
    epsilon: f64,
    time: usize,
    flip: bool,
    shift: f64,
    center: bool,
    padding: usize,
    mid_scale: f64,
    linear: bool,
    transformers: usize,
}

/// One number, or one for each level.
#[derive(Deserialize)]
#[serde(untagged)]
enum Each {
    All(usize),
    List(Vec<usize>),
}

impl Setting for Each {
    const EXPECTED: &str = "a whole number from 0 or a list of them";
}

impl UnetConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`NetError::Config`] for a setting that is missing, unknown, or of a value that is not computed.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let mut s = Settings::read(path)?;
        s.only(&[
            ("act_fn", json!("silu")),
            ("addition_embed_type", json!(null)),
            ("addition_embed_type_num_heads", json!(64)),
            ("addition_time_embed_dim", json!(null)),
            ("attention_type", json!("default")),
            ("class_embed_type", json!(null)),
            ("class_embeddings_concat", json!(false)),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("cross_attention_norm", json!(null)),
            ("dual_cross_attention", json!(false)),
            ("encoder_hid_dim", json!(null)),
            ("encoder_hid_dim_type", json!(null)),
            ("mid_block_only_cross_attention", json!(null)),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("num_attention_heads", json!(null)),
            ("num_class_embeds", json!(null)),
            ("only_cross_attention", json!(false)),
            ("projection_class_embeddings_input_dim", json!(null)),
            ("resnet_out_scale_factor", json!(1.0)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("reverse_transformer_layers_per_block", json!(null)),
            ("time_cond_proj_dim", json!(null)),
            ("time_embedding_act_fn", json!(null)),
            ("time_embedding_type", json!("positional")),
            ("timestep_post_act", json!(null)),
        ])?;
        // Dropout is off, and scores are in single precision at least.
        s.skip(&["dropout", "upcast_attention"]);
        let channels: Vec<usize> = s.need("block_out_channels")?;
        let levels = channels.len();
        let heads = match s.take("attention_head_dim", Each::All(8))? {
            Each::All(heads) => vec![heads; levels],
            Each::List(heads) => heads,
        };
        let mut kinds = |name: &str, plain: &str, crossed: &str| -> Result<Vec<bool>, NetError> {
            let kinds: Vec<String> = s.need(name)?;
            if let Some(kind) = kinds.iter().find(|kind| *kind != plain && *kind != crossed) {
                return Err(s.refused(name, &format!("has {kind}, expected {plain} or {crossed}")));
            }
            if kinds.len() != levels {
                let reason = format!("has {} levels, block_out_channels has {levels}", kinds.len());
                return Err(s.refused(name, &reason));
            }
            Ok(kinds.iter().map(|kind| kind == crossed).collect())
        };
        let down_attention = kinds("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D")?;
        let up_attention = kinds("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D")?;
        let first = channels.first().copied().unwrap_or(0);
        let config = Self {
            in_channels: s.take("in_channels", 4)?,
            out_channels: s.take("out_channels", 4)?,
            blocks: s.take("layers_per_block", 2)?,
            text: s.take("cross_attention_dim", 1280)?,
            sample_size: s.take("sample_size", None)?,
            groups: s.need("norm_num_groups")?,
            epsilon: s.take("norm_eps", 1e-5)?,
            time: s.take("time_embedding_dim", 4 * first)?,
            flip: s.take("flip_sin_to_cos", true)?,
            shift: s.take("freq_shift", 0.0)?,
            center: s.take("center_input_sample", false)?,
            padding: s.take("downsample_padding", 1)?,
            mid_scale: s.take("mid_block_scale_factor", 1.0)?,
            linear: s.take("use_linear_projection", false)?,
            transformers: s.take("transformer_layers_per_block", 1)?,
            channels,
            down_attention,
            up_attention,
            heads,
        };
        s.counts(&[
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("layers_per_block", config.blocks),
            ("cross_attention_dim", config.text),
            ("norm_num_groups", config.groups),
            ("time_embedding_dim", config.time),
            ("transformer_layers_per_block", config.transformers),
            ("sample_size", config.sample_size.unwrap_or(1)),
        ])?;
        s.channels(&config.channels, config.groups)?;
        s.positive(&[("norm_eps", config.epsilon), ("mid_block_scale_factor", config.mid_scale)])?;
        if config.heads.len() != levels {
            let reason = format!("has {} levels, block_out_channels has {levels}", config.heads.len());
            return Err(s.refused("attention_head_dim", &reason));
        }
        for (&channels, &heads) in config.channels.iter().zip(&config.heads) {
            if heads == 0 || !channels.is_multiple_of(heads) {
                let reason = format!("is {heads} heads for {channels} channels, expected a divisor");
                return Err(s.refused("attention_head_dim", &reason));
            }
        }
        if first < 4 || !first.is_multiple_of(2) {
            return Err(s.refused("block_out_channels", "begins with an odd number or one below 4"));
        }
        if config.padding > 1 {
            return Err(s.refused("downsample_padding", &format!("is {}, expected 0 or 1", config.padding)));
        }
        s.finish()?;
        Ok(config)
    }
}

/// A U-Net with its weights: a prediction for noisy latents, a time and the vectors of a text.
///
/// It is differentiable with respect to latents and text in f32 and f64 ([`Self::vjp`]). In f16 only the forward pass
/// exists; sines of the time, normalisation and attention scores are in single precision there.
pub struct Unet {
    config: UnetConfig,
    dtype: DType,
    device: Device,
    score_bytes: usize,
    time: (Linear, Linear),
    input: Conv,
    down: Vec<Level>,
    middle: (Resnet, Transformer, Resnet),
    up: Vec<Level>,
    norm: Norm,
    output: Conv,
}

/// Where the probabilities of a cross-attention layer were computed, and their mean over heads.
#[derive(Debug, Clone)]
pub struct AttentionMap {
    /// Name of the layer in the file.
    pub layer: String,
    /// Height of the layer's image.
    pub height: usize,
    /// Width of the layer's image.
    pub width: usize,
    /// Mean probability of each token for each pixel, `[m, height * width, tokens]`.
    pub probabilities: Tensor,
}

/// What all layers of one pass share.
struct Pass<'a> {
    /// Vector of the time of each row, after the activation.
    time: Tensor,
    text: &'a Tensor,
    bytes: usize,
    maps: Option<&'a mut Vec<AttentionMap>>,
}

/// What the layers of a pass hold.
struct Count {
    size: Width,
    /// Bytes of scores at a time.
    bytes: usize,
    /// Values that a graph keeps.
    kept: f64,
    /// Bytes of the largest layer, with its input.
    forward: f64,
    /// Bytes that the backward pass of the largest layer takes.
    backward: f64,
}

impl Count {
    fn conv(&mut self, conv: &Conv, pixels: f64) {
        let (held, value) = (conv.held(pixels, self.size), self.size.value);
        self.forward = self.forward.max(held + value * conv.inputs() * pixels);
        // Of a stride of 1, the kernel is turned twice.
        self.backward = self.backward.max(held + value * 2.0 * conv.kernel());
        self.kept += conv.outputs() * pixels / conv.stride().powi(2);
    }

    fn resnet(&mut self, resnet: &Resnet, pixels: f64) {
        for conv in [Some(&resnet.conv1), Some(&resnet.conv2), resnet.shortcut.as_ref()].into_iter().flatten()
        {
            self.conv(conv, pixels);
        }
        let (inputs, outputs) = (resnet.inputs() * pixels, resnet.outputs() * pixels);
        self.forward = self.forward.max(self.size.value * inputs + resnet.held(pixels, self.size));
        // Each normalisation, its activation, the vector of the time, and the sum of both ways.
        self.kept += 2.0 * inputs + 4.0 * outputs;
    }

    fn transformer(&mut self, transformer: &Transformer, pixels: f64, tokens: f64) {
        let Width { value, wide } = self.size;
        let Some(block) = transformer.blocks.first() else { return };
        let image = transformer.channels() * pixels;
        let scores = Scores::at_a_time(self.bytes, block.own.heads, pixels, pixels, self.size);
        // Scores, their differences to the largest, exponentials and quotients, beside input, normalised input, q, k, v
        // and output; or the wide layer with the products behind its gates.
        let attention = value * 9.0 * image + 4.0 * scores;
        self.forward = self.forward.max(attention).max(value * 22.0 * image);
        // Probabilities, and four values of their size.
        self.backward = self.backward.max(wide * 12.0 * image + 5.0 * scores);
        // Three at each end; in a block 12 of attention to the image, 7 of that to the text, and 35 of the wide layer.
        self.kept += 6.0 * image;
        self.kept += transformer.blocks.len() as f64 * (54.0 * image + 2.0 * tokens * transformer.channels());
    }
}

struct Level {
    resnets: Vec<Resnet>,
    /// One for each residual block, or none.
    transformers: Vec<Transformer>,
    /// The change of resolution.
    resize: Option<Conv>,
}

impl Unet {
    /// Reads `config.json` and the weights of the folder `unet`, and converts them.
    ///
    /// # Errors
    /// [`NetError::Config`], [`NetError::Weights`], [`NetError::Store`]; [`NetError::Precision`] for types other than f16,
    /// f32 and f64.
    pub fn read(folder: &Path, dtype: DType, device: &Device) -> Result<Self, NetError> {
        Ok(Self::load(folder, Values::File, dtype, device)?.0)
    }

    /// The network of a folder with zeros for its weights, and what the weights take in the files: all settings, names
    /// and shapes are checked, and no value is read. A pass takes the time of one with the true weights.
    ///
    /// # Errors
    /// As [`Self::read`], except for values.
    pub fn zeros(folder: &Path, dtype: DType, device: &Device) -> Result<(Self, Stored), NetError> {
        Self::load(folder, Values::Zeros, dtype, device)
    }

    fn load(
        folder: &Path,
        values: Values,
        dtype: DType,
        device: &Device,
    ) -> Result<(Self, Stored), NetError> {
        super::check_dtype("U-Net", dtype)?;
        let config = UnetConfig::read(&folder.join("config.json"))?;
        let files = TensorFiles::find(folder, super::WEIGHTS)?;
        files.load(values, dtype, device, |_| false, |l| Self::build(&config, dtype, device, l))
    }

    fn build(c: &UnetConfig, dtype: DType, device: &Device, l: &mut Loader<'_>) -> Result<Self, NetError> {
        let (first, last) = (c.channels[0], c.channels[c.channels.len() - 1]);
        let levels = c.channels.len();
        let time = (
            Linear::load(l, "time_embedding.linear_1", first, c.time, true)?,
            Linear::load(l, "time_embedding.linear_2", c.time, c.time, true)?,
        );
        let input = Conv::load(l, "conv_in", c.in_channels, first, 3)?;
        // Channels of the values that the way up reads again.
        let mut skips = vec![first];
        let mut down = Vec::new();
        let mut inputs = first;
        for (i, &channels) in c.channels.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            let mut level = Level { resnets: Vec::new(), transformers: Vec::new(), resize: None };
            for j in 0..c.blocks {
                level.resnets.push(Resnet::load(
                    l,
                    &format!("{name}.resnets.{j}"),
                    c,
                    inputs,
                    channels,
                    1.0,
                )?);
                if c.down_attention[i] {
                    let name = format!("{name}.attentions.{j}");
                    level.transformers.push(Transformer::load(l, &name, c, channels, c.heads[i])?);
                }
                inputs = channels;
                skips.push(channels);
            }
            if i + 1 < levels {
                let conv = Conv::load(l, &format!("{name}.downsamplers.0.conv"), channels, channels, 3)?;
                level.resize = Some(conv.halving(c.padding));
                skips.push(channels);
            }
            down.push(level);
        }
        let middle = (
            Resnet::load(l, "mid_block.resnets.0", c, last, last, c.mid_scale)?,
            Transformer::load(l, "mid_block.attentions.0", c, last, c.heads[levels - 1])?,
            Resnet::load(l, "mid_block.resnets.1", c, last, last, c.mid_scale)?,
        );
        let mut up = Vec::new();
        for i in 0..levels {
            let (name, channels) = (format!("up_blocks.{i}"), c.channels[levels - 1 - i]);
            let mut level = Level { resnets: Vec::new(), transformers: Vec::new(), resize: None };
            for j in 0..=c.blocks {
                let width = inputs + skips.pop().unwrap_or(0);
                level.resnets.push(Resnet::load(l, &format!("{name}.resnets.{j}"), c, width, channels, 1.0)?);
                if c.up_attention[i] {
                    let name = format!("{name}.attentions.{j}");
                    level.transformers.push(Transformer::load(
                        l,
                        &name,
                        c,
                        channels,
                        c.heads[levels - 1 - i],
                    )?);
                }
                inputs = channels;
            }
            if i + 1 < levels {
                level.resize =
                    Some(Conv::load(l, &format!("{name}.upsamplers.0.conv"), channels, channels, 3)?);
            }
            up.push(level);
        }
        let norm = Norm::groups(l, "conv_norm_out", first, c.groups, c.epsilon)?;
        let output = Conv::load(l, "conv_out", first, c.out_channels, 3)?;
        let (config, device, score_bytes) = (c.clone(), device.clone(), SCORE_BYTES);
        Ok(Self { config, dtype, device, score_bytes, time, input, down, middle, up, norm, output })
    }

    /// The settings.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The type of weights, latents and output.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of weights, latents and output.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that a pass of one row takes beside the weights, for latents of a height and a width: an estimate from the sizes
    /// of the layers, as candle computes on the CPU. The second number is that of [`Self::vjp`].
    ///
    /// A forward pass holds the values that the way up reads again, and what the largest layer holds at its fullest moment.
    /// A product holds the values of all operations between the layers' inputs and outputs, once more the values that
    /// the way up reads, as their gradients, and what the backward pass of the largest layer holds.
    pub fn pass_bytes(&self, (height, width): (usize, usize), tokens: usize) -> (f64, f64) {
        let (size, levels) = (Width::of(self.dtype), self.down.len());
        let pixels = |level: usize| height as f64 * width as f64 / 4f64.powi(level as i32);
        let text = tokens as f64;
        let mut count = Count { size, bytes: self.score_bytes, kept: 0.0, forward: 0.0, backward: 0.0 };
        let mut skips = self.input.outputs() * pixels(0);
        count.kept += skips;
        for (i, level) in self.down.iter().enumerate() {
            for (j, resnet) in level.resnets.iter().enumerate() {
                count.resnet(resnet, pixels(i));
                if let Some(transformer) = level.transformers.get(j) {
                    count.transformer(transformer, pixels(i), text);
                }
                skips += resnet.outputs() * pixels(i);
            }
            if let Some(conv) = &level.resize {
                count.conv(conv, pixels(i));
                skips += conv.outputs() * pixels(i + 1);
            }
        }
        count.resnet(&self.middle.0, pixels(levels - 1));
        count.transformer(&self.middle.1, pixels(levels - 1), text);
        count.resnet(&self.middle.2, pixels(levels - 1));
        for (i, level) in self.up.iter().enumerate() {
            let pixels = |below: usize| pixels(levels - 1 - i - below);
            for (j, resnet) in level.resnets.iter().enumerate() {
                // Values from the way down are joined with those from below.
                count.kept += resnet.inputs() * pixels(0);
                count.resnet(resnet, pixels(0));
                if let Some(transformer) = level.transformers.get(j) {
                    count.transformer(transformer, pixels(0), text);
                }
            }
            if let Some(conv) = &level.resize {
                count.kept += conv.outputs() * pixels(1);
                count.conv(conv, pixels(1));
            }
        }
        // The last normalisation and its activation.
        count.kept += 2.0 * self.input.outputs() * pixels(0);
        let skips = size.value * skips;
        (skips + count.forward, size.value * count.kept + skips + count.backward)
    }

    /// Sets the bytes that attention scores may take at a time ([`SCORE_BYTES`] unless set); one query of one head is
    /// computed in any case. Fewer bytes give the same result up to rounding, in more time.
    pub fn set_score_bytes(&mut self, bytes: usize) {
        self.score_bytes = bytes;
    }

    /// The prediction `[m, out_channels, height, width]` for latents `[m, in_channels, height, width]`, the time of each row
    /// `[m]` (f32 or f64, 0 is the first noise level), and the vectors of a text for each row `[m, tokens, d]`.
    ///
    /// # Errors
    /// [`NetError::Shape`] for other shapes, or a height or width that cannot be halved at each level;
    /// [`NetError::Candle`].
    pub fn forward(&self, latents: &Tensor, times: &Tensor, text: &Tensor) -> Result<Tensor, NetError> {
        self.run(latents, times, text, None)
    }

    /// As [`Self::forward`], with the attention that each pixel pays to each token, in the order of evaluation.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with_maps(
        &self,
        latents: &Tensor,
        times: &Tensor,
        text: &Tensor,
    ) -> Result<(Tensor, Vec<AttentionMap>), NetError> {
        let mut maps = Vec::new();
        let output = self.run(latents, times, text, Some(&mut maps))?;
        Ok((output, maps))
    }

    /// The prediction, and J^T v for each row: J is the Jacobian of the prediction with respect to the latents, and v has
    /// the shape of the prediction.
    ///
    /// # Errors
    /// [`NetError::Precision`] in half precision; as [`Self::forward`].
    pub fn vjp(
        &self,
        latents: &Tensor,
        times: &Tensor,
        text: &Tensor,
        v: &Tensor,
    ) -> Result<(Tensor, Tensor), NetError> {
        if self.dtype == DType::F16 {
            let reason = "f16 has no vector-Jacobian products; read the model in f32".to_owned();
            return Err(NetError::Precision { operation: "U-Net", reason });
        }
        let latents = Var::from_tensor(latents)?;
        let output = self.forward(&latents, times, text)?;
        super::check_shape("v", v, output.dims())?;
        let gradients = (&output * v.detach())?.sum_all()?.backward()?;
        match gradients.get(&latents) {
            Some(gradient) => Ok((output.detach(), gradient.clone())),
            None => Ok((output.detach(), latents.zeros_like()?)),
        }
    }

    fn run(
        &self,
        latents: &Tensor,
        times: &Tensor,
        text: &Tensor,
        maps: Option<&mut Vec<AttentionMap>>,
    ) -> Result<Tensor, NetError> {
        let c = &self.config;
        super::check_image("U-Net", "latents", latents, c.in_channels, 1 << (c.channels.len() - 1))?;
        let rows = latents.dim(0)?;
        super::check_shape("times", times, &[rows])?;
        let tokens = if text.rank() == 3 { text.dim(1)?.max(1) } else { 1 };
        super::check_shape("text", text, &[rows, tokens, c.text])?;

        let (half, flip, shift) = (c.channels[0] / 2, c.flip, c.shift);
        let waves = waves(times, half, flip, shift)?.to_dtype(self.dtype)?;
        let time = self.time.1.forward(&self.time.0.forward(&waves)?.silu()?)?.silu()?;
        let mut pass = Pass { time, text, bytes: self.score_bytes, maps };
        let x = if c.center { ((latents * 2.0)? - 1.0)? } else { latents.clone() };
        let mut x = self.input.forward(&x)?;
        let mut skips = vec![x.clone()];
        for (i, level) in self.down.iter().enumerate() {
            for (j, resnet) in level.resnets.iter().enumerate() {
                x = resnet.forward(&x, Some(&pass.time))?;
                if let Some(transformer) = level.transformers.get(j) {
                    x = transformer.forward(&x, &mut pass, || format!("down_blocks.{i}.attentions.{j}"))?;
                }
                skips.push(x.clone());
            }
            if let Some(conv) = &level.resize {
                x = conv.forward(&x)?;
                skips.push(x.clone());
            }
        }
        x = self.middle.0.forward(&x, Some(&pass.time))?;
        x = self.middle.1.forward(&x, &mut pass, || "mid_block.attentions.0".into())?;
        x = self.middle.2.forward(&x, Some(&pass.time))?;
        for (i, level) in self.up.iter().enumerate() {
            for (j, resnet) in level.resnets.iter().enumerate() {
                if let Some(skip) = skips.pop() {
                    x = Tensor::cat(&[&x, &skip], 1)?;
                }
                x = resnet.forward(&x, Some(&pass.time))?;
                if let Some(transformer) = level.transformers.get(j) {
                    x = transformer.forward(&x, &mut pass, || format!("up_blocks.{i}.attentions.{j}"))?;
                }
            }
            if let Some(conv) = &level.resize {
                x = conv.forward(&doubled(&x)?)?;
            }
        }
        Ok(self.output.forward(&self.norm.forward(&x)?.silu()?)?)
    }
}

/// Cosines and sines of the times, `[m, 2 half]`, in single precision in the order of operations of diffusers: at t = 999
/// another order moves the phases by 1e-4.
fn waves(times: &Tensor, half: usize, flip: bool, shift: f64) -> Result<Tensor, NetError> {
    let step = -(10000f64.ln()) as f32;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (step * i as f32 / (half as f64 - shift) as f32).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), times.device())?;
    let phases = times.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?;
    let (sines, cosines) = (phases.sin()?, phases.cos()?);
    let pair = if flip { [cosines, sines] } else { [sines, cosines] };
    Ok(Tensor::cat(&pair, 1)?)
}

/// A residual block: two normalised convolutions, and the vector of the time between them.
pub(super) struct Resnet {
    norm1: Norm,
    conv1: Conv,
    time: Option<Linear>,
    norm2: Norm,
    conv2: Conv,
    shortcut: Option<Conv>,
    /// The sum is divided by it.
    scale: f64,
}

impl Resnet {
    fn load(
        l: &mut Loader<'_>,
        name: &str,
        c: &UnetConfig,
        inputs: usize,
        outputs: usize,
        scale: f64,
    ) -> Result<Self, NetError> {
        let time = Linear::load(l, &format!("{name}.time_emb_proj"), c.time, outputs, true)?;
        let plain = Self::timeless(l, name, inputs, outputs, c.groups, c.epsilon)?;
        Ok(Self { time: Some(time), scale, ..plain })
    }

    /// Without a time.
    pub(super) fn timeless(
        l: &mut Loader<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        groups: usize,
        epsilon: f64,
    ) -> Result<Self, NetError> {
        let shortcut = match inputs == outputs {
            true => None,
            false => Some(Conv::load(l, &format!("{name}.conv_shortcut"), inputs, outputs, 1)?),
        };
        Ok(Self {
            norm1: Norm::groups(l, &format!("{name}.norm1"), inputs, groups, epsilon)?,
            conv1: Conv::load(l, &format!("{name}.conv1"), inputs, outputs, 3)?,
            time: None,
            norm2: Norm::groups(l, &format!("{name}.norm2"), outputs, groups, epsilon)?,
            conv2: Conv::load(l, &format!("{name}.conv2"), outputs, outputs, 3)?,
            shortcut,
            scale: 1.0,
        })
    }

    pub(super) fn inputs(&self) -> f64 {
        self.conv1.inputs()
    }

    pub(super) fn outputs(&self) -> f64 {
        self.conv1.outputs()
    }

    /// Bytes held at most beside an input of `pixels`.
    pub(super) fn held(&self, pixels: f64, width: Width) -> f64 {
        let (inputs, outputs) = (self.inputs() * pixels, self.outputs() * pixels);
        // Three while it is normalised, else two beside those of the convolution.
        let half = |values: f64, conv: &Conv| {
            (3.0 * width.wide * values).max(2.0 * width.value * values + conv.held(pixels, width))
        };
        let shortcut = self.shortcut.as_ref().map_or(0.0, |conv| conv.held(pixels, width));
        let second = half(outputs, &self.conv2).max(2.0 * width.value * outputs + shortcut);
        half(inputs, &self.conv1).max(width.value * outputs + second)
    }

    pub(super) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor, NetError> {
        let mut y = self.conv1.forward(&self.norm1.forward(x)?.silu()?)?;
        if let (Some(layer), Some(time)) = (&self.time, time) {
            y = y.broadcast_add(&layer.forward(time)?.unsqueeze(2)?.unsqueeze(3)?)?;
        }
        let y = self.conv2.forward(&self.norm2.forward(&y)?.silu()?)?;
        let y = match &self.shortcut {
            Some(conv) => (conv.forward(x)? + y)?,
            None => (x + y)?,
        };
        Ok(if self.scale == 1.0 { y } else { (y / self.scale)? })
    }
}

/// Attention of an image to itself and to a text.
struct Transformer {
    norm: Norm,
    input: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

struct Block {
    norms: [Norm; 3],
    own: Attention,
    cross: Attention,
    /// Values and gates.
    wide: Linear,
    narrow: Linear,
}

impl Transformer {
    fn channels(&self) -> f64 {
        self.norm.channels() as f64
    }

    fn load(
        l: &mut Loader<'_>,
        name: &str,
        c: &UnetConfig,
        channels: usize,
        heads: usize,
    ) -> Result<Self, NetError> {
        // A convolution of one pixel is the same map.
        let mut project = |part: &str| {
            let name = format!("{name}.{part}");
            match c.linear {
                true => Linear::load(l, &name, channels, channels, true),
                false => Linear::load_pixel(l, &name, channels, channels),
            }
        };
        let (input, output) = (project("proj_in")?, project("proj_out")?);
        let mut block = |i: usize| -> Result<Block, NetError> {
            let at = |part: &str| format!("{name}.transformer_blocks.{i}.{part}");
            let mut norm = |part: &str| Norm::last(l, &at(part), channels, 1e-5);
            Ok(Block {
                norms: [norm("norm1")?, norm("norm2")?, norm("norm3")?],
                own: Attention::load(l, &at("attn1"), channels, channels, heads)?,
                cross: Attention::load(l, &at("attn2"), channels, c.text, heads)?,
                wide: Linear::load(l, &at("ff.net.0.proj"), channels, 8 * channels, true)?,
                narrow: Linear::load(l, &at("ff.net.2"), 4 * channels, channels, true)?,
            })
        };
        let blocks = (0..c.transformers).map(&mut block).collect::<Result<_, _>>()?;
        let norm = Norm::groups(l, &format!("{name}.norm"), channels, c.groups, 1e-6)?;
        Ok(Self { norm, input, blocks, output })
    }

    fn forward(
        &self,
        x: &Tensor,
        pass: &mut Pass<'_>,
        name: impl Fn() -> String,
    ) -> Result<Tensor, NetError> {
        let (_, channels, height, width) = x.dims4()?;
        let mut y = self.input.forward(&to_rows(&self.norm.forward(x)?)?)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let own = block.norms[0].forward(&y)?;
            y = (block.own.forward(&own, &own, pass.bytes, None)? + y)?;
            let q = block.norms[1].forward(&y)?;
            let mut map = None;
            let seen = pass.maps.is_some().then_some(&mut map);
            y = (block.cross.forward(&q, pass.text, pass.bytes, seen)? + y)?;
            if let (Some(maps), Some(probabilities)) = (pass.maps.as_mut(), map) {
                let layer = format!("{}.transformer_blocks.{i}.attn2", name());
                maps.push(AttentionMap { layer, height, width, probabilities });
            }
            let wide = block.wide.forward(&block.norms[2].forward(&y)?)?;
            let (values, gates) =
                (wide.narrow(2, 0, 4 * channels)?, wide.narrow(2, 4 * channels, 4 * channels)?);
            y = (block.narrow.forward(&(values * gelu(&gates)?)?)? + y)?;
        }
        Ok((to_image(&self.output.forward(&y)?, height, width)? + x)?)
    }
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    /// Of `channels` to vectors of length `other`.
    fn load(
        l: &mut Loader<'_>,
        name: &str,
        channels: usize,
        other: usize,
        heads: usize,
    ) -> Result<Self, NetError> {
        Ok(Self {
            q: Linear::load(l, &format!("{name}.to_q"), channels, channels, false)?,
            k: Linear::load(l, &format!("{name}.to_k"), other, channels, false)?,
            v: Linear::load(l, &format!("{name}.to_v"), other, channels, false)?,
            out: Linear::load(l, &format!("{name}.to_out.0"), channels, channels, true)?,
            heads,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        other: &Tensor,
        bytes: usize,
        map: Option<&mut Option<Tensor>>,
    ) -> Result<Tensor, NetError> {
        let split = |layer: &Linear, x: &Tensor| split_heads(&layer.forward(x)?, self.heads);
        let (q, k, v) = (split(&self.q, x)?, split(&self.k, other)?, split(&self.v, other)?);
        let scores = Scores { scale: 1.0 / (q.dim(2)? as f64).sqrt(), mask: None, bytes };
        if let Some(map) = map {
            let p = scores.probabilities(&q.detach(), &k.detach(), 0)?;
            let (rows, queries, keys) = p.dims3()?;
            *map = Some(p.reshape((rows / self.heads, self.heads, queries, keys))?.mean(1)?);
        }
        Ok(self.out.forward(&join_heads(&scores.attend(&q, &k, &v)?, self.heads)?)?)
    }
}
