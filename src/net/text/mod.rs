//! Vectors of texts: the encoder all-MiniLM-L6-v2 (Reimers and Gurevych 2019), and the stored vectors of captions.
//!
//! A text becomes a unit vector of 384 values: tokens, six layers of BERT, the mean over all tokens, and a division by its
//! norm. `mem2gen data fetch minilm` downloads the weights. [`Embeddings`] of known captions need no weights.

mod bert;
mod embeddings;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, safetensors};
use ndarray::Array2;
use tokenizers::{Tokenizer, TruncationParams};

pub use bert::Bert;
pub use embeddings::Embeddings;

use super::NetError;
use crate::data::weights::{self, MINILM, MINILM_NET, MINILM_TOKENIZER};
use crate::project::Layout;
use crate::store::cut_reason;

/// Largest number of tokens of a text, with the first and the last, which are added. Further tokens are left out.
pub const MOST_TOKENS: usize = 256;
/// Attention heads of a layer.
const HEADS: usize = 12;
/// Texts that are encoded together.
const BATCH: usize = 64;

/// all-MiniLM-L6-v2 on the CPU.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    bert: Bert,
}

impl TextEncoder {
    /// Reads and verifies the weights.
    ///
    /// # Errors
    /// [`NetError::Data`] when they were not fetched or are damaged; [`NetError::Tokenizer`], [`NetError::Graph`] and
    /// [`NetError::Candle`] for contents of another form, which the checksums exclude.
    pub fn load(layout: &Layout) -> Result<Self, NetError> {
        let mut tokenizer = tokenizer(layout)?;
        let most = TruncationParams { max_length: MOST_TOKENS, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(most)).map_err(refused)?;
        let tensors = safetensors::load_buffer(&weights::read(layout, &MINILM, &MINILM_NET)?, &Device::Cpu)?;
        Ok(Self { tokenizer, bert: Bert::new(tensors, HEADS)? })
    }

    /// Number of values of a text's vector.
    pub fn width(&self) -> usize {
        self.bert.width()
    }

    /// Numbers of the tokens of a text, with the first and the last, at most [`MOST_TOKENS`].
    ///
    /// # Errors
    /// [`NetError::Tokenizer`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, NetError> {
        Ok(self.tokenizer.encode(text, true).map_err(refused)?.get_ids().to_vec())
    }

    /// Unit vectors of texts, `[n, 384]`. Texts with the same number of tokens are computed together, so that a text's
    /// vector depends on other texts in its last bits at most.
    ///
    /// # Errors
    /// [`NetError::Tokenizer`], [`NetError::Candle`].
    pub fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<Array2<f32>, NetError> {
        let mut by_length: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (at, text) in texts.iter().enumerate() {
            let tokens = self.tokens(text.as_ref())?;
            by_length.entry(tokens.len()).or_default().push((at, tokens));
        }
        let mut rows = Array2::zeros((texts.len(), self.width()));
        for batch in by_length.values().flat_map(|texts| texts.chunks(BATCH)) {
            let tokens: Vec<&[u32]> = batch.iter().map(|(_, tokens)| &tokens[..]).collect();
            let vectors = self.bert.embed(&tokens)?.to_vec2::<f32>()?;
            for ((at, _), vector) in batch.iter().zip(vectors) {
                rows.row_mut(*at).assign(&ndarray::ArrayView1::from(&vector));
            }
        }
        Ok(rows)
    }
}

/// Number of tokens of a text that the encoder leaves out, as it takes [`MOST_TOKENS`].
///
/// # Errors
/// As [`TextEncoder::load`]; a text of fewer bytes needs no file.
pub fn dropped(layout: &Layout, text: &str) -> Result<usize, NetError> {
    // A token is at least a byte, and the first and the last are added.
    if text.len() + 2 <= MOST_TOKENS {
        return Ok(0);
    }
    Ok(tokenizer(layout)?.encode(text, true).map_err(refused)?.len().saturating_sub(MOST_TOKENS))
}

/// The tokenizer, which leaves nothing out and fills nothing up.
fn tokenizer(layout: &Layout) -> Result<Tokenizer, NetError> {
    let mut tokenizer =
        Tokenizer::from_bytes(weights::read(layout, &MINILM, &MINILM_TOKENIZER)?).map_err(refused)?;
    tokenizer.with_truncation(None).map_err(refused)?.with_padding(None);
    Ok(tokenizer)
}

fn refused(error: tokenizers::Error) -> NetError {
    NetError::Tokenizer { reason: cut_reason(&error.to_string()) }
}

/// Rows divided by their norms.
fn normalised(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
}
