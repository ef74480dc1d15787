//! Networks on candle: the same graph evaluated with candle's operations and gradients.
//!
//! This is how networks run on CUDA devices; in f64 it is also the implementation that tests compare the engine with.
//! Images have channels first inside, as candle's convolutions expect, and the common order of samples outside.

use crate::shape::Shape;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Module, Tensor, Var, WithDType};
use candle_nn::GroupNorm;

use crate::net::weights::from_file_layout;
use crate::net::{Dropout, Graph, NetError, Node, NodeId, Op, ParamId, Weights};
use crate::store::cut_reason;

/// A network on a device of candle, with parameters in the layout of files.
pub struct CandleNet {
    graph: Arc<Graph>,
    params: Vec<Var>,
    dtype: DType,
    device: Device,
}

/// A CUDA device of candle.
///
/// # Errors
/// Why it can't be used, and what to do.
pub(crate) fn cuda(number: usize) -> Result<Device, String> {
    Device::new_cuda(number).map_err(|e| match cfg!(feature = "cuda") {
        true => {
            let reason = cut_reason(&e.to_string());
            format!("it can't be used ({reason}); see 'mem2gen doctor', or use the device cpu")
        }
        false => "this program was built without CUDA for networks; use --device cpu, or build it with \
                  'cargo build --release --features cuda'"
            .into(),
    })
}

/// Output of a network, and gradients of sum(output * dy).
pub struct Pass {
    /// Output, `[m, N]`.
    pub output: Tensor,
    /// Gradient with respect to the input, `[m, N]`.
    pub dx: Tensor,
    /// Gradient with respect to each parameter, in the order of [`Graph::params`]; zero for parameters that are not
    /// trained.
    pub dparams: Vec<Tensor>,
}

impl CandleNet {
    /// Copies the parameters to a device, as f32 or f64.
    ///
    /// # Errors
    /// [`NetError::Candle`], for example for a type that the device does not support.
    pub fn new(weights: &Weights, dtype: DType, device: &Device) -> Result<Self, NetError> {
        let params = tensors(weights, dtype, device)?
            .iter()
            .map(Var::from_tensor)
            .collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Self { graph: weights.graph().clone(), params, dtype, device: device.clone() })
    }

    /// The parameters, in the order of [`Graph::params`].
    pub fn params(&self) -> &[Var] {
        &self.params
    }

    /// The output `[m, N]` for samples `[m, N]` at times `[m]` and, for a network that has one, with a condition
    /// `[m, condition]`, all of the parameters' type and device. Dropout sets the same elements to zero as in the engine.
    ///
    /// # Errors
    /// [`NetError::Length`] for tensors of other shapes, [`NetError::Candle`].
    pub fn forward(
        &self,
        x: &Tensor,
        t: &Tensor,
        condition: Option<&Tensor>,
        dropout: Option<Dropout>,
    ) -> Result<Tensor, NetError> {
        let input = self.graph.input();
        let (rows, length) = x.dims2()?;
        if length != input.len() {
            let expected = input.len();
            return Err(NetError::Length {
                operation: "forward",
                argument: "a sample",
                found: length,
                expected,
            });
        }
        if t.dims() != [rows] {
            let found = t.elem_count();
            return Err(NetError::Length { operation: "forward", argument: "t", found, expected: rows });
        }
        let length = self.graph.condition();
        let found = condition.map_or(0, Tensor::elem_count);
        if found != rows * length {
            let expected = rows * length;
            return Err(NetError::Length { operation: "forward", argument: "condition", found, expected });
        }
        let condition = condition.map(|c| c.reshape((rows, length, 1, 1))).transpose()?;
        let x = x.reshape((rows, input.height, input.width, input.channels))?;
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        let mut values: Vec<Tensor> = Vec::with_capacity(self.graph.nodes().len());
        for (i, node) in self.graph.nodes().iter().enumerate() {
            let reads: Vec<&Tensor> = node.inputs.iter().map(|id| &values[id.0]).collect();
            let value = match node.op {
                Op::Input => x.clone(),
                // The lengths were compared above.
                Op::Condition => condition.iter().next().unwrap_or(&x).clone(),
                _ => self.node(NodeId(i), node, &reads, t, rows, dropout)?,
            };
            values.push(value);
        }
        let output = &values[values.len() - 1];
        Ok(output.permute((0, 2, 3, 1))?.contiguous()?.reshape((rows, self.graph.output().len()))?)
    }

    /// The output, and the gradients of sum(output * dy) for `dy` of shape `[m, N]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn pass(
        &self,
        x: &Tensor,
        t: &Tensor,
        condition: Option<&Tensor>,
        dy: &Tensor,
        dropout: Option<Dropout>,
    ) -> Result<Pass, NetError> {
        let x = Var::from_tensor(x)?;
        let output = self.forward(&x, t, condition, dropout)?;
        // `dy` may have been computed from an output of this network; its own gradient must not be followed.
        let grads = (&output * dy.detach())?.sum_all()?.backward()?;
        let dparams = self
            .params
            .iter()
            .zip(self.graph.params())
            .map(|(var, p)| if p.trained { gradient(&grads, var) } else { Ok(var.zeros_like()?) })
            .collect::<Result<_, NetError>>()?;
        Ok(Pass { output: output.detach(), dx: gradient(&grads, &x)?, dparams })
    }

    /// Tensors of the parameters' shapes as one vector in the layout of [`Weights`]. For gradients, the first
    /// [`Graph::trained`] elements are the engine's gradient.
    ///
    /// # Errors
    /// [`NetError::Candle`] for tensors of other shapes.
    pub fn flatten<T: WithDType + Default>(&self, tensors: &[Tensor]) -> Result<Vec<T>, NetError> {
        let mut flat = vec![T::default(); self.graph.len()];
        for (p, tensor) in self.graph.params().iter().zip(tensors) {
            let values = tensor.to_dtype(T::DTYPE)?.reshape(p.layout.len())?.to_vec1::<T>()?;
            from_file_layout(p.layout, &values, &mut flat[p.offset..p.offset + values.len()]);
        }
        Ok(flat)
    }

    fn param(&self, id: ParamId) -> &Tensor {
        &self.params[id.0]
    }

    fn node(
        &self,
        id: NodeId,
        node: &Node,
        reads: &[&Tensor],
        t: &Tensor,
        rows: usize,
        dropout: Option<Dropout>,
    ) -> Result<Tensor, NetError> {
        Ok(match node.op {
            Op::Input | Op::Condition => reads[0].clone(),
            Op::Sinusoid { period } => {
                let half = node.shape.channels / 2;
                let step = period.ln() / (half - 1) as f64;
                let frequencies: Vec<f64> = (0..half).map(|i| (-step * i as f64).exp()).collect();
                let frequencies = Tensor::new(frequencies, &self.device)?.to_dtype(self.dtype)?;
                waves(t, &frequencies)?
            }
            Op::Fourier { frequencies } => {
                waves(t, &(self.param(frequencies) * (2.0 * std::f64::consts::PI))?)?
            }
            Op::Conv { weight, bias, side, stride, upsample } => {
                let weight = self.param(weight);
                let y = match side {
                    1 => per_pixel(reads[0], weight, node.shape)?,
                    _ => {
                        let x = if upsample { doubled(reads[0])? } else { reads[0].clone() };
                        let (before, after) = if stride == 1 { (1, 1) } else { (0, 1) };
                        x.pad_with_zeros(2, before, after)?
                            .pad_with_zeros(3, before, after)?
                            .conv2d(weight, 0, stride, 1, 1)?
                    }
                };
                let y = y.broadcast_add(&self.param(bias).reshape((1, node.shape.channels, 1, 1))?)?;
                match reads.get(1) {
                    Some(shift) => y.broadcast_add(shift)?,
                    None => y,
                }
            }
            Op::Norm { scale, shift, groups, epsilon, silu, dropout: rate } => {
                let (scale, shift) = (self.param(scale).clone(), self.param(shift).clone());
                let y =
                    GroupNorm::new(scale, shift, node.shape.channels, groups, epsilon)?.forward(reads[0])?;
                let y = if silu { y.silu()? } else { y };
                self.dropped(id, node.shape, y, rate, dropout)?
            }
            Op::Silu { dropout: rate } => self.dropped(id, node.shape, reads[0].silu()?, rate, dropout)?,
            Op::Attention => {
                let Shape { height, width, channels } = node.shape;
                let flat = |x: &Tensor| x.reshape((rows, channels, height * width));
                let (q, k, v) = (flat(reads[0])?, flat(reads[1])?, flat(reads[2])?);
                let logits = (q.transpose(1, 2)?.contiguous()?.matmul(&k)? / (channels as f64).sqrt())?;
                let weights = candle_nn::ops::softmax(&logits, D::Minus1)?;
                let y = v.matmul(&weights.transpose(1, 2)?.contiguous()?)?;
                y.reshape((rows, channels, height, width))?
            }
            Op::Add => (reads[0] + reads[1])?,
            Op::Concat => Tensor::cat(reads, 1)?,
            Op::Fold { side } => {
                let Shape { height, width, channels } = node.shape;
                let x = reads[0].reshape(vec![rows, channels / (side * side), height, side, width, side])?;
                x.permute(vec![0, 1, 3, 5, 2, 4])?.contiguous()?.reshape((rows, channels, height, width))?
            }
            Op::Unfold { side } => {
                let Shape { height, width, channels } = node.shape;
                let x = reads[0].reshape(vec![rows, channels, side, side, height / side, width / side])?;
                x.permute(vec![0, 1, 4, 2, 5, 3])?.contiguous()?.reshape((rows, channels, height, width))?
            }
        })
    }

    fn dropped(
        &self,
        id: NodeId,
        shape: Shape,
        y: Tensor,
        rate: f64,
        dropout: Option<Dropout>,
    ) -> Result<Tensor, NetError> {
        let Some(dropout) = dropout.filter(|_| rate > 0.0) else { return Ok(y) };
        let (rows, n) = (y.dim(0)?, shape.len());
        let mut factors = vec![0.0; rows * n];
        for (row, factors) in factors.chunks_exact_mut(n).enumerate() {
            dropout.factors(id, rate, row, factors);
        }
        let Shape { height, width, channels } = shape;
        let factors = Tensor::from_vec(factors, (rows, height, width, channels), &self.device)?;
        Ok((y * factors.permute((0, 3, 1, 2))?.to_dtype(self.dtype)?)?)
    }
}

fn tensors(weights: &Weights, dtype: DType, device: &Device) -> Result<Vec<Tensor>, NetError> {
    let graph = weights.graph();
    let each = graph.params().iter().map(|p| {
        Ok(Tensor::from_vec(weights.file_values(p), p.layout.file_shape(), device)?.to_dtype(dtype)?)
    });
    each.collect()
}

/// The gradient; zero when the output does not depend on the variable.
fn gradient(grads: &GradStore, var: &Var) -> Result<Tensor, NetError> {
    match grads.get(var) {
        Some(gradient) => Ok(gradient.clone()),
        None => Ok(var.zeros_like()?),
    }
}

/// Sines and cosines of t times frequencies, as `[m, channels, 1, 1]`.
fn waves(t: &Tensor, frequencies: &Tensor) -> Result<Tensor, NetError> {
    let phases = t.unsqueeze(1)?.broadcast_mul(&frequencies.unsqueeze(0)?)?;
    Ok(Tensor::cat(&[phases.sin()?, phases.cos()?], 1)?.unsqueeze(2)?.unsqueeze(3)?)
}

/// A linear map of each pixel's channels.
fn per_pixel(x: &Tensor, weight: &Tensor, shape: Shape) -> Result<Tensor, NetError> {
    let (rows, inputs, height, width) = x.dims4()?;
    let x = x.permute((0, 2, 3, 1))?.contiguous()?.reshape((rows * height * width, inputs))?;
    let y = x.matmul(&weight.reshape((shape.channels, inputs))?.t()?)?;
    Ok(y.reshape((rows, height, width, shape.channels))?.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Each pixel repeated as a block of 2 x 2. Candle's `upsample_nearest2d` is not used: its backward drops the gradient of
/// other uses of its input.
pub(super) fn doubled(x: &Tensor) -> Result<Tensor, NetError> {
    let (rows, channels, height, width) = x.dims4()?;
    let blocks = x.reshape((rows, channels, height, 1, width, 1))?;
    let blocks = blocks.broadcast_as((rows, channels, height, 2, width, 2))?;
    Ok(blocks.contiguous()?.reshape((rows, channels, 2 * height, 2 * width))?)
}
