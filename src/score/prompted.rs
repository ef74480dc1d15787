use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2, s};

use super::{Score, ScoreError, check, check_rows};
use crate::net::NetError;
use crate::net::diffusers::{AttentionMap, Unet};
use crate::process::{Level, Prediction};

const NAME: &str = "prompted score";

/// The score of a U-Net of Stable Diffusion for a text: -epsilon(x, t, text) / sigma. [`Guided`](super::Guided) makes guidance
/// of two.
///
/// A row of x is one image of latents in the order channels, height, width, as diffusers stores it, in units of the
/// diffusion model (those of the encoder times the scaling factor). The level's time is the U-Net's.
///
/// The network computes in its own type; products J^T v exist in f32 and f64.
pub struct Prompted {
    unet: Arc<Unet>,
    /// The vectors of the text, `[1, tokens, d]`.
    text: Tensor,
    height: usize,
    width: usize,
    batch: usize,
}

impl Prompted {
    /// A score from the vectors of a text, `[tokens, d]`, height and width of the latents, and the number of rows that the
    /// network computes at a time.
    ///
    /// # Errors
    /// [`ScoreError::Net`] for a text of another shape, a U-Net whose output has other channels than its input, sizes that
    /// cannot be halved at each level, and a batch size of 0.
    pub fn new(
        unet: Arc<Unet>,
        text: &Tensor,
        (height, width): (usize, usize),
        batch: usize,
    ) -> Result<Self, ScoreError> {
        let config = unet.config();
        let shape = |argument, found: &[usize], expected: String| NetError::Shape {
            operation: NAME,
            argument,
            found: found.to_vec(),
            expected,
        };
        if config.in_channels != config.out_channels {
            let expected = format!("{} channels, as the latents have", config.in_channels);
            return Err(shape("the prediction", &[config.out_channels], expected).into());
        }
        if text.rank() != 2 || text.dims()[1] != config.text {
            let expected = format!("[tokens, {}]", config.text);
            return Err(shape("the text", text.dims(), expected).into());
        }
        let halved = 1 << (config.channels.len() - 1);
        if height == 0 || width == 0 || !height.is_multiple_of(halved) || !width.is_multiple_of(halved) {
            let expected = format!("multiples of {halved}");
            return Err(shape("height and width", &[height, width], expected).into());
        }
        if batch == 0 {
            return Err(NetError::Rows { operation: NAME, rows: 0, room: usize::MAX }.into());
        }
        let place = || text.to_dtype(unet.dtype())?.to_device(unet.device())?.unsqueeze(0);
        let text = place().map_err(NetError::from)?;
        Ok(Self { unet, text, height, width, batch })
    }

    /// The attention that each latent pays to one token of the text, `[m, N]` in the order of x, the same for all channels: mean
    /// over the heads of the layers in the first block with cross-attention. In Stable Diffusion these are two layers at the
    /// resolution of the latents.
    ///
    /// # Errors
    /// As [`Self::score`](Score::score), and [`ScoreError::Net`] for a token that the text does not have.
    pub fn attention(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        token: usize,
    ) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let block = |map: &AttentionMap| map.layer.split(".attentions").next().map(str::to_owned);
        let paid = |rows: Range<usize>| -> Result<(Vec<Vec<f64>>, [usize; 2]), NetError> {
            let [latents, times, texts] =
                self.arguments(x.slice(s![rows.clone(), ..]), &levels[rows.clone()])?;
            let (_, maps) = self.unet.forward_with_maps(&latents, &times, &texts)?;
            let first = maps.iter().take_while(|map| block(map) == block(&maps[0]));
            let first = first.map(|map| map.probabilities.narrow(2, token, 1)?.to_dtype(DType::F64));
            let mean = Tensor::cat(&first.collect::<Result<Vec<_>, _>>()?, 2)?.mean(2)?;
            Ok((mean.to_vec2()?, maps.first().map_or([1, 1], |map| [map.height, map.width])))
        };
        let mut out = Array2::zeros(x.dim());
        for start in (0..x.nrows()).step_by(self.batch) {
            let rows = start..x.nrows().min(start + self.batch);
            let (paid, [height, width]) = paid(rows.clone())?;
            for (row, paid) in rows.zip(paid) {
                for (i, out) in out.row_mut(row).iter_mut().enumerate() {
                    let pixel = i % (self.height * self.width);
                    let y = pixel / self.width * height / self.height;
                    *out = paid[y * width + pixel % self.width * width / self.width];
                }
            }
        }
        Ok(out)
    }

    /// Latents, times and texts of rows.
    fn arguments(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<[Tensor; 3], NetError> {
        let times: Vec<f64> = levels.iter().map(|level| level.t()).collect();
        let times = Tensor::from_vec(times, levels.len(), self.unet.device())?;
        let (_, tokens, d) = self.text.dims3()?;
        Ok([self.images(x)?, times, self.text.broadcast_as((levels.len(), tokens, d))?])
    }

    /// Rows as images of the U-Net's type.
    fn images(&self, rows: ArrayView2<'_, f64>) -> Result<Tensor, NetError> {
        let shape = (rows.nrows(), self.unet.config().in_channels, self.height, self.width);
        let values: Vec<f64> = rows.iter().copied().collect();
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(images.to_dtype(self.unet.dtype())?.to_device(self.unet.device())?)
    }

    /// The result of `part` for each batch of rows, divided by -sigma.
    fn batches(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        part: impl Fn(Range<usize>, [Tensor; 3]) -> Result<Tensor, NetError>,
    ) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut out = Array2::zeros((m, n));
        for start in (0..m).step_by(self.batch) {
            let rows = start..m.min(start + self.batch);
            let arguments = self.arguments(x.slice(s![rows.clone(), ..]), &levels[rows.clone()])?;
            let values = part(rows.clone(), arguments)?.to_dtype(DType::F64).map_err(NetError::from)?;
            let values =
                values.flatten_all().and_then(|values| values.to_vec1::<f64>()).map_err(NetError::from)?;
            for (row, values) in rows.zip(values.chunks_exact(n)) {
                let level = levels[row];
                for (out, value) in out.row_mut(row).iter_mut().zip(values) {
                    *out = level.convert(0.0, *value, Prediction::Epsilon, Prediction::Score);
                    if !out.is_finite() {
                        return Err(ScoreError::NotFinite {
                            operation: NAME,
                            row,
                            t: level.t(),
                            value: *out,
                        });
                    }
                }
            }
        }
        Ok(out)
    }
}

impl Score for Prompted {
    fn dim(&self) -> usize {
        self.unet.config().in_channels * self.height * self.width
    }

    fn score(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<Array2<f64>, ScoreError> {
        self.batches(x, levels, |_, [latents, times, texts]| self.unet.forward(&latents, &times, &texts))
    }

    fn vjp(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        v: ArrayView2<'_, f64>,
    ) -> Result<Array2<f64>, ScoreError> {
        check_rows(NAME, "v", &v, x.dim())?;
        self.batches(x, levels, |rows, [latents, times, texts]| {
            let v = self.images(v.slice(s![rows, ..]))?;
            Ok(self.unet.vjp(&latents, &times, &texts, &v)?.1)
        })
    }
}
