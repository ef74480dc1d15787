//! BERT (Devlin et al. 2019) as an encoder of whole texts.

use std::collections::HashMap;

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;

use super::normalised;
use crate::net::NetError;

/// Added to the variance by layer normalisation.
const EPSILON: f64 = 1e-12;
/// Tensors of a file of BERT that an encoder of whole texts does not use.
const UNUSED: [&str; 3] = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];

/// Weights of an affine map.
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

/// One layer: attention among the tokens, and two affine maps of each token.
struct Layer {
    query: Affine,
    key: Affine,
    value: Affine,
    attention: Affine,
    attention_norm: Affine,
    wide: Affine,
    narrow: Affine,
    norm: Affine,
}

/// The encoder.
pub struct Bert {
    words: Tensor,
    positions: Tensor,
    /// The row that is added to every token: the type of the tokens of a first text.
    kind: Tensor,
    norm: Affine,
    layers: Vec<Layer>,
    heads: usize,
}

impl Bert {
    /// A network with the tensors of a safetensors file as transformers' `BertModel` writes it, in f32.
    ///
    /// # Errors
    /// [`NetError::Graph`] for tensors that are missing, of another shape, or unknown, and for a number of heads that
    /// does not divide the width.
    pub fn new(tensors: HashMap<String, Tensor>, heads: usize) -> Result<Self, NetError> {
        let mut file = File(tensors);
        let words = file.matrix("embeddings.word_embeddings.weight")?;
        let width = words.dim(1)?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return refused("heads", format!("{heads}, expected a divisor of the width {width}"));
        }
        let positions = file.matrix("embeddings.position_embeddings.weight")?;
        let kind = file.matrix("embeddings.token_type_embeddings.weight")?.get(0)?;
        let norm = file.norm("embeddings.LayerNorm", width)?;
        let mut layers = Vec::new();
        while file.0.contains_key(&format!("encoder.layer.{}.output.dense.weight", layers.len())) {
            let name = |part: &str| format!("encoder.layer.{}.{part}", layers.len());
            let narrow = name("output.dense");
            let inner = file.0[&format!("{narrow}.weight")].dim(D::Minus1)?;
            let layer = Layer {
                query: file.affine(&name("attention.self.query"), width, width)?,
                key: file.affine(&name("attention.self.key"), width, width)?,
                value: file.affine(&name("attention.self.value"), width, width)?,
                attention: file.affine(&name("attention.output.dense"), width, width)?,
                attention_norm: file.norm(&name("attention.output.LayerNorm"), width)?,
                wide: file.affine(&name("intermediate.dense"), width, inner)?,
                narrow: file.affine(&narrow, inner, width)?,
                norm: file.norm(&name("output.LayerNorm"), width)?,
            };
            layers.push(layer);
        }
        file.0.retain(|name, _| !UNUSED.contains(&&name[..]));
        if let Some(name) = file.0.keys().min() {
            return refused(name, format!("{} unknown tensors, expected none", file.0.len()));
        }
        Ok(Self { words, positions, kind, norm, layers, heads })
    }

    /// Number of values of a vector.
    pub fn width(&self) -> usize {
        self.norm.bias.elem_count()
    }

    /// Unit vectors of texts of the same number of tokens, `[n, width]`: the mean over the last layer's tokens, divided
    /// by its norm.
    ///
    /// # Errors
    /// [`NetError::Tokenizer`] for no text, texts of different lengths, no token or more tokens than there are positions;
    /// [`NetError::Candle`], for example for an unknown token.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Tensor, NetError> {
        let (n, most) = (texts.len(), self.positions.dim(0)?);
        let length = texts.first().map_or(0, |tokens| tokens.len());
        if length == 0 || length > most {
            return Err(NetError::Tokenizer {
                reason: format!("a text has {length} tokens, expected 1 to {most}"),
            });
        }
        if let Some(other) = texts.iter().map(|tokens| tokens.len()).find(|&other| other != length) {
            return Err(NetError::Tokenizer {
                reason: format!("texts have {length} and {other} tokens, expected the same number"),
            });
        }
        let tokens = Tensor::new(texts.concat(), &Device::Cpu)?;
        let width = self.width();
        let words = self.words.embedding(&tokens)?.reshape((n, length, width))?;
        let places = self.positions.narrow(0, 0, length)?.broadcast_add(&self.kind)?;
        let mut x = self.norm.normalise(&words.broadcast_add(&places)?.reshape((n * length, width))?)?;
        for layer in &self.layers {
            let mixed = self.attention(layer, &x, n, length)?;
            x = layer.attention_norm.normalise(&(x + layer.attention.apply(&mixed)?)?)?;
            let inner = layer.wide.apply(&x)?.gelu_erf()?;
            x = layer.norm.normalise(&(x + layer.narrow.apply(&inner)?)?)?;
        }
        Ok(normalised(&x.reshape((n, length, width))?.mean(1)?)?)
    }

    /// Each token's mixture of the values of all tokens of its text, `[n x length, width]`.
    fn attention(&self, layer: &Layer, x: &Tensor, n: usize, length: usize) -> candle_core::Result<Tensor> {
        let width = self.width();
        let depth = width / self.heads;
        let split = |affine: &Affine| {
            let values = affine.apply(x)?.reshape((n, length, self.heads, depth))?;
            values.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (split(&layer.query)?, split(&layer.key)?, split(&layer.value)?);
        let logits = (query.matmul(&key.t()?)? / (depth as f64).sqrt())?;
        let mixed = softmax(&logits, D::Minus1)?.matmul(&value)?;
        mixed.transpose(1, 2)?.reshape((n * length, width))
    }
}

impl Affine {
    /// x W^T + b of rows.
    fn apply(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        rows.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }

    /// Rows without their mean, divided by their deviation; each value times its weight plus its bias. candle's own
    /// subtracts squares of f32 from one another, which loses digits.
    fn normalise(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(1)? + EPSILON)?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Tensors that were not taken yet.
struct File(HashMap<String, Tensor>);

impl File {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, NetError> {
        match self.0.remove(name) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor),
            Some(tensor) => refused(name, format!("shape {:?}, expected {shape:?}", tensor.dims())),
            None => refused(name, "missing".into()),
        }
    }

    fn matrix(&mut self, name: &str) -> Result<Tensor, NetError> {
        let tensor = self.0.remove(name).map_or_else(|| refused(name, "missing".into()), Ok)?;
        match tensor.dims() {
            &[rows, columns] if rows > 0 && columns > 0 => Ok(tensor),
            other => refused(name, format!("shape {other:?}, expected two axes")),
        }
    }

    fn affine(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Affine, NetError> {
        let weight = self.take(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Affine { weight, bias: self.take(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Affine, NetError> {
        let weight = self.take(&format!("{name}.weight"), &[width])?;
        Ok(Affine { weight, bias: self.take(&format!("{name}.bias"), &[width])? })
    }
}

fn refused<T>(layer: &str, reason: String) -> Result<T, NetError> {
    Err(NetError::Graph { layer: layer.to_owned(), reason })
}
