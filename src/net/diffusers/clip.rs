//! The text encoder of Stable Diffusion: `CLIPTextModel` of transformers.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::config::Settings;
use super::files::{Loader, Stored, TensorFiles, Values};
use super::layers::{Linear, Norm, Scores, gelu, join_heads, split_heads};
use super::unet::SCORE_BYTES;
use crate::net::NetError;

/// Settings of a text encoder, from its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Length of a token's vector.
    pub width: usize,
    /// Number of tokens of the vocabulary.
    pub vocabulary: usize,
    /// Largest number of tokens of a text.
    pub tokens: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    epsilon: f64,
    quick: bool,
}

impl ClipConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`NetError::Config`] for a setting that is missing, unknown, or of a value that is not computed.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let mut s = Settings::read(path)?;
        s.only(&[("model_type", json!("clip_text_model"))])?;
        // Training, projection to images, and the form of transformers' own outputs. Special tokens come from the
        // vocabulary, and files before transformers 4.31 have wrong ones here.
        s.skip(&[
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dropout",
            "dtype",
            "eos_token_id",
            "initializer_factor",
            "initializer_range",
            "output_attentions",
            "output_hidden_states",
            "pad_token_id",
            "projection_dim",
            "return_dict",
            "torch_dtype",
            "transformers_version",
        ]);
        let act: String = s.take("hidden_act", "quick_gelu".to_owned())?;
        if act != "quick_gelu" && act != "gelu" {
            return Err(s.refused("hidden_act", &format!("is {act:?}, expected \"quick_gelu\" or \"gelu\"")));
        }
        let config = Self {
            width: s.need("hidden_size")?,
            vocabulary: s.need("vocab_size")?,
            tokens: s.take("max_position_embeddings", 77)?,
            inner: s.need("intermediate_size")?,
            layers: s.need("num_hidden_layers")?,
            heads: s.need("num_attention_heads")?,
            epsilon: s.take("layer_norm_eps", 1e-5)?,
            quick: act == "quick_gelu",
        };
        s.counts(&[
            ("hidden_size", config.width),
            ("vocab_size", config.vocabulary),
            ("max_position_embeddings", config.tokens),
            ("intermediate_size", config.inner),
            ("num_hidden_layers", config.layers),
            ("num_attention_heads", config.heads),
        ])?;
        s.positive(&[("layer_norm_eps", config.epsilon)])?;
        if !config.width.is_multiple_of(config.heads) {
            let reason = format!("is {}, expected a divisor of hidden_size = {}", config.heads, config.width);
            return Err(s.refused("num_attention_heads", &reason));
        }
        s.finish()?;
        Ok(config)
    }
}

/// A text encoder with its weights.
pub struct Clip {
    config: ClipConfig,
    /// `[vocabulary, width]`.
    tokens: Tensor,
    /// `[tokens, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    dtype: DType,
}

struct Layer {
    norm1: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: Norm,
    wide: Linear,
    narrow: Linear,
}

impl Clip {
    /// Reads `config.json` and the weights of the folder `text_encoder`, and converts them. Names may begin with
    /// `text_model.`, and an extra tensor `position_ids` is ignored.
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
        super::check_dtype("text encoder", dtype)?;
        let config = ClipConfig::read(&folder.join("config.json"))?;
        let files = TensorFiles::find(folder, "model")?;
        let below = if files.has("embeddings.token_embedding.weight") { "" } else { "text_model." };
        let ignored = format!("{below}embeddings.position_ids");
        files.load(values, dtype, device, |name| name == ignored, |l| Self::build(&config, dtype, l, below))
    }

    fn build(c: &ClipConfig, dtype: DType, l: &mut Loader<'_>, below: &str) -> Result<Self, NetError> {
        let n = c.width;
        let at = |name: &str| format!("{below}embeddings.{name}.weight");
        let tokens = l.tensor(&at("token_embedding"), &[c.vocabulary, n])?;
        let positions = l.tensor(&at("position_embedding"), &[c.tokens, n])?;
        let mut layer = |i: usize| -> Result<Layer, NetError> {
            let at = |part: &str| format!("{below}encoder.layers.{i}.{part}");
            Ok(Layer {
                norm1: Norm::last(l, &at("layer_norm1"), n, c.epsilon)?,
                q: Linear::load(l, &at("self_attn.q_proj"), n, n, true)?,
                k: Linear::load(l, &at("self_attn.k_proj"), n, n, true)?,
                v: Linear::load(l, &at("self_attn.v_proj"), n, n, true)?,
                out: Linear::load(l, &at("self_attn.out_proj"), n, n, true)?,
                norm2: Norm::last(l, &at("layer_norm2"), n, c.epsilon)?,
                wide: Linear::load(l, &at("mlp.fc1"), n, c.inner, true)?,
                narrow: Linear::load(l, &at("mlp.fc2"), c.inner, n, true)?,
            })
        };
        let layers = (0..c.layers).map(&mut layer).collect::<Result<_, _>>()?;
        let norm = Norm::last(l, &format!("{below}final_layer_norm"), n, c.epsilon)?;
        Ok(Self { config: c.clone(), tokens, positions, layers, norm, dtype })
    }

    /// The settings.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The vectors of tokens, `[m, tokens, width]`, of the last layer and normalised (`last_hidden_state`), for texts of the
    /// same number of tokens each. A token sees those before it, and not those after.
    ///
    /// # Errors
    /// [`NetError::Shape`] for no texts, texts of different lengths, none or too many tokens, or a token that the
    /// vocabulary does not have; [`NetError::Candle`].
    pub fn forward(&self, texts: &[Vec<u32>]) -> Result<Tensor, NetError> {
        let (c, device) = (&self.config, self.tokens.device());
        let length = texts.first().map_or(0, Vec::len);
        let fits =
            |text: &Vec<u32>| text.len() == length && text.iter().all(|t| (*t as usize) < c.vocabulary);
        if !(1..=c.tokens).contains(&length) || !texts.iter().all(fits) {
            let expected = format!("[rows, 1 to {}] of numbers below {}", c.tokens, c.vocabulary);
            let found = vec![texts.len(), length];
            return Err(NetError::Shape { operation: "text encoder", argument: "tokens", found, expected });
        }
        let ids = Tensor::from_vec(texts.concat(), texts.len() * length, device)?;
        let x = self.tokens.index_select(&ids, 0)?.reshape((texts.len(), length, c.width))?;
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        let hidden = |i: usize| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..length * length).map(hidden).collect();
        let scores = Scores {
            scale: 1.0 / ((c.width / c.heads) as f64).sqrt(),
            mask: Some(Tensor::from_vec(mask, (length, length), device)?),
            bytes: SCORE_BYTES,
        };
        for layer in &self.layers {
            let y = layer.norm1.forward(&x)?;
            let split = |map: &Linear| split_heads(&map.forward(&y)?, c.heads);
            let y = scores.attend(&split(&layer.q)?, &split(&layer.k)?, &split(&layer.v)?)?;
            x = (x + layer.out.forward(&join_heads(&y, c.heads)?)?)?;
            let y = layer.wide.forward(&layer.norm2.forward(&x)?)?;
            let y = match c.quick {
                // x sigmoid(1.702 x).
                true => ((&y * 1.702)?.silu()? / 1.702)?,
                false => gelu(&y)?,
            };
            x = (x + layer.narrow.forward(&y)?)?;
        }
        Ok(self.norm.forward(&x)?.to_dtype(self.dtype)?)
    }
}
