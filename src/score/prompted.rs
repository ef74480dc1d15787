use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView2, s};

use super::{Score, ScoreError, check, check_rows};
use crate::net::NetError;
use crate::net::diffusers::Unet;
use crate::process::{Level, Prediction};

const NAME: &str = "prompted score";

/// The score of a U-Net of Stable Diffusion for a text, with guidance:
/// -epsilon / sigma with epsilon = (1 - g) epsilon(x, without) + g epsilon(x, with).
///
/// A row of x is one image of latents in the order channels, height, width, as diffusers stores it, in units of the
/// diffusion model (those of the encoder times the scaling factor). The level's time is the U-Net's. With a guidance of
/// 1 or 0 the network computes one of the two texts alone, else both.
///
/// The network computes in its own type; products J^T v exist in f32 and f64.
pub struct Prompted {
    unet: Arc<Unet>,
    /// Vectors of the texts and their weights, `[1, tokens, d]`; those of weight 0 are left out.
    texts: Vec<(Tensor, f64)>,
    height: usize,
    width: usize,
    batch: usize,
}

impl Prompted {
    /// A score from the vectors of a text and of the text without a prompt, both `[tokens, d]`, the guidance g, height and
    /// width of the latents, and the number of rows that the network computes at a time.
    ///
    /// # Errors
    /// [`ScoreError::Net`] for texts of another shape, a U-Net whose output has other channels than its input, a guidance
    /// that is not finite, sizes that cannot be halved at each level, and a batch size of 0.
    pub fn new(
        unet: Arc<Unet>,
        with: &Tensor,
        without: &Tensor,
        guidance: f64,
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
        for (argument, text) in [("with", with), ("without", without)] {
            if text.rank() != 2 || text.dims()[1] != config.text || text.dims() != with.dims() {
                let expected = format!("[tokens, {}], the same for both texts", config.text);
                return Err(shape(argument, text.dims(), expected).into());
            }
        }
        if !guidance.is_finite() {
            let reason = format!("is {guidance}, expected a finite number");
            return Err(NetError::Graph { layer: "guidance".into(), reason }.into());
        }
        let halved = 1 << (config.channels.len() - 1);
        if height == 0 || width == 0 || height % halved != 0 || width % halved != 0 {
            let expected = format!("multiples of {halved}");
            return Err(shape("height and width", &[height, width], expected).into());
        }
        if batch == 0 {
            return Err(NetError::Rows { operation: NAME, rows: 0, room: usize::MAX }.into());
        }
        let text = |tensor: &Tensor| -> Result<Tensor, NetError> {
            Ok(tensor.to_dtype(unet.dtype())?.to_device(unet.device())?.unsqueeze(0)?)
        };
        let mut texts = vec![(text(without)?, 1.0 - guidance), (text(with)?, guidance)];
        texts.retain(|(_, weight)| *weight != 0.0);
        Ok(Self { unet, texts, height, width, batch })
    }

    /// Latents, times and texts of rows, once for each text.
    fn arguments(&self, x: ArrayView2<'_, f64>, levels: &[Level]) -> Result<[Tensor; 3], NetError> {
        let copies = self.texts.len();
        let latents = self.images(x)?;
        let latents = Tensor::cat(&vec![&latents; copies], 0)?;
        let times: Vec<f64> = levels.iter().map(|level| level.t()).collect();
        let times = Tensor::from_vec(times.repeat(copies), copies * levels.len(), self.unet.device())?;
        let texts = self.texts.iter().map(|(text, _)| {
            let (_, tokens, d) = text.dims3()?;
            text.broadcast_as((levels.len(), tokens, d))
        });
        let texts = texts.collect::<candle_core::Result<Vec<_>>>()?;
        Ok([latents, times, Tensor::cat(&texts, 0)?])
    }

    /// Rows as images of the U-Net's type.
    fn images(&self, rows: ArrayView2<'_, f64>) -> Result<Tensor, NetError> {
        let shape = (rows.nrows(), self.unet.config().in_channels, self.height, self.width);
        let values: Vec<f64> = rows.iter().copied().collect();
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(images.to_dtype(self.unet.dtype())?.to_device(self.unet.device())?)
    }

    /// sum over texts of weight * part, in f64, as rows.
    fn combined(&self, parts: &Tensor, rows: usize) -> Result<Vec<f64>, NetError> {
        let mut sum = vec![0.0; rows * self.dim()];
        for (i, (_, weight)) in self.texts.iter().enumerate() {
            let part = parts.narrow(0, i * rows, rows)?.to_dtype(DType::F64)?;
            let part: Vec<f64> = part.flatten_all()?.to_vec1()?;
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += weight * part);
        }
        Ok(sum)
    }

    /// The result of `part` for each batch of rows, divided by -sigma.
    fn batches(
        &self,
        x: ArrayView2<'_, f64>,
        levels: &[Level],
        part: impl Fn(std::ops::Range<usize>, [Tensor; 3]) -> Result<Tensor, NetError>,
    ) -> Result<Array2<f64>, ScoreError> {
        check(NAME, self.dim(), &x, levels)?;
        let (m, n) = x.dim();
        let mut out = Array2::zeros((m, n));
        for start in (0..m).step_by(self.batch) {
            let rows = start..m.min(start + self.batch);
            let arguments = self.arguments(x.slice(s![rows.clone(), ..]), &levels[rows.clone()])?;
            let values = self.combined(&part(rows.clone(), arguments)?, rows.len())?;
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
            // The Jacobian is linear in the prediction, so weights apply to the products.
            let v = self.images(v.slice(s![rows, ..]))?;
            let v = Tensor::cat(&vec![&v; self.texts.len()], 0)?;
            Ok(self.unet.vjp(&latents, &times, &texts, &v)?.1)
        })
    }
}
