//! Layers that networks of diffusers share, differentiable with respect to their inputs.
//!
//! Weights are constants here. Candle's own backward pass would compute the gradient of each weight, too, which takes as
//! much time as that of the inputs and as much memory as the network. It would also keep all probabilities of attention.
//! So layers with weights and attention bring their own backward pass ([`Own`]).

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, D, DType, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::files::Loader;
use crate::net::NetError;

/// Bytes of a value, and of one in normalisation and attention.
#[derive(Clone, Copy)]
pub(super) struct Width {
    pub(super) value: f64,
    pub(super) wide: f64,
}

impl Width {
    pub(super) fn of(dtype: DType) -> Self {
        let value = dtype.size_in_bytes() as f64;
        Self { value, wide: value.max(4.0) }
    }
}

/// A value that was computed without a graph, and its backward pass.
struct Own<F> {
    name: &'static str,
    value: Mutex<Option<Tensor>>,
    backward: F,
}

impl<F> Own<F> {
    fn new(name: &'static str, value: Tensor, backward: F) -> Self {
        Self { name, value: Mutex::new(Some(value)), backward }
    }

    /// Takes the value, so that the graph does not keep a second copy.
    fn take(&self) -> Result<Tensor> {
        match self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => value.contiguous(),
            None => bail!("{}: the value was taken before", self.name),
        }
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => {
                // `try_clone` copies all of the storage, so the value must fill it.
                Ok((storage.try_clone(layout)?, layout.shape().clone()))
            }
            _ => bail!("{}: the value is on another device", self.name),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the value is on another device", self.name),
        }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Tensor>> CustomOp1 for Own<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((self.backward)(&x.detach(), &dy.detach())?))
    }
}

impl<F: Fn([&Tensor; 3], &Tensor) -> Result<[Tensor; 3]>> CustomOp3 for Own<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (a, b, c) = (a.detach(), b.detach(), c.detach());
        let [a, b, c] = (self.backward)([&a, &b, &c], &dy.detach())?;
        Ok((Some(a), Some(b), Some(c)))
    }
}

/// A value computed from `x`, with its backward pass `(x, dy) -> dx` if `x` is part of a graph.
fn own(
    name: &'static str,
    x: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let value = forward(&x.detach())?;
    if x.track_op() { x.apply_op1(Own::new(name, value, backward)) } else { Ok(value) }
}

/// x W^T + b over the last axis.
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> std::result::Result<Self, NetError> {
        let weight = loader.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = bias.then(|| loader.tensor(&format!("{name}.bias"), &[outputs])).transpose()?;
        Ok(Self { weight, bias })
    }

    /// A convolution with a kernel of one pixel, as a linear map of channels.
    pub(super) fn load_pixel(
        loader: &mut Loader<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> std::result::Result<Self, NetError> {
        let weight =
            loader.reshaped(&format!("{name}.weight"), &[outputs, inputs, 1, 1], &[outputs, inputs])?;
        let bias = Some(loader.tensor(&format!("{name}.bias"), &[outputs])?);
        Ok(Self { weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let forward = |x: &Tensor| {
            let y = over_last(x, &self.weight.t()?)?;
            match &self.bias {
                Some(bias) => y.broadcast_add(bias),
                None => Ok(y),
            }
        };
        let weight = self.weight.clone();
        own("linear", x, forward, move |_, dy| over_last(dy, &weight))
    }
}

/// The product of each vector of the last axis with a matrix.
fn over_last(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let inputs = shape.pop().unwrap_or(1);
    let rows = shape.iter().product::<usize>();
    shape.push(matrix.dim(1)?);
    x.contiguous()?.reshape((rows, inputs))?.matmul(matrix)?.reshape(shape)
}

/// Pixels of which candle gathers the inputs at a time.
const TILE: usize = 512;

/// A convolution of images `[m, channels, height, width]`.
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Conv {
    /// With a kernel of `side` x `side` pixels and a stride of 1, which keeps the size.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        side: usize,
    ) -> std::result::Result<Self, NetError> {
        let weight = loader.tensor(&format!("{name}.weight"), &[outputs, inputs, side, side])?;
        let bias = loader.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { weight, bias, stride: 1, padding: side / 2 })
    }

    /// With a stride of 2, which halves the size. A padding of 0 stands for one pixel of zeros at the right and below.
    pub(super) fn halving(self, padding: usize) -> Self {
        Self { stride: 2, padding, ..self }
    }

    /// Bytes held at most beside an input of `pixels`: candle copies input and kernel on the CPU, each thread gathers the
    /// inputs of [`TILE`] pixels, and the bias makes a second output.
    pub(super) fn held(&self, pixels: f64, width: Width) -> f64 {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let (reached, kernel) = (pixels / self.stride().powi(2), self.kernel());
        let tiles = reached.min((rayon::current_num_threads() * TILE) as f64);
        let copies = inputs * pixels + kernel + tiles * (kernel / outputs + outputs);
        width.value * (outputs * reached + copies.max(outputs * reached))
    }

    /// Number of channels of the input.
    pub(super) fn inputs(&self) -> f64 {
        self.weight.dims()[1] as f64
    }

    /// Number of pixels of the input from one output to the next.
    pub(super) fn stride(&self) -> f64 {
        self.stride as f64
    }

    /// Number of channels of the output.
    pub(super) fn outputs(&self) -> f64 {
        self.weight.dims()[0] as f64
    }

    /// Number of elements of the kernel.
    pub(super) fn kernel(&self) -> f64 {
        self.weight.elem_count() as f64
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (padding, stride) = (self.padding, self.stride);
        let padded = match (stride, padding) {
            (2, 0) => x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?,
            _ => x.clone(),
        };
        let forward = |x: &Tensor| {
            let y = x.contiguous()?.conv2d(&self.weight, padding, stride, 1, 1)?;
            y.broadcast_add(&self.bias.reshape((1, (), 1, 1))?)
        };
        let weight = self.weight.clone();
        let side = weight.dim(2)?;
        own("convolution", &padded, forward, move |x, dy| {
            let dy = dy.contiguous()?;
            if stride == 1 {
                let turned = weight.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?;
                return dy.conv2d(&turned, side - 1 - padding, 1, 1, 1);
            }
            let reached = (dy.dim(2)? - 1) * stride + side - 2 * padding;
            dy.conv_transpose2d(&weight, padding, x.dim(2)? - reached, stride, 1)
        })
    }
}

/// Normalisation of groups of channels `[m, channels, ...]`, or of the last axis.
pub(super) struct Norm {
    scale: Tensor,
    shift: Tensor,
    /// Number of groups; `None` for the last axis.
    groups: Option<usize>,
    epsilon: f64,
}

impl Norm {
    /// Of each group of channels. `groups` divides `channels`.
    pub(super) fn groups(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        groups: usize,
        epsilon: f64,
    ) -> std::result::Result<Self, NetError> {
        Self::load(loader, name, channels, Some(groups), epsilon)
    }

    /// Of the last axis.
    pub(super) fn last(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        epsilon: f64,
    ) -> std::result::Result<Self, NetError> {
        Self::load(loader, name, channels, None, epsilon)
    }

    fn load(
        loader: &mut Loader<'_>,
        name: &str,
        channels: usize,
        groups: Option<usize>,
        epsilon: f64,
    ) -> std::result::Result<Self, NetError> {
        let scale = loader.tensor(&format!("{name}.weight"), &[channels])?;
        let shift = loader.tensor(&format!("{name}.bias"), &[channels])?;
        Ok(Self { scale, shift, groups, epsilon })
    }

    /// Number of channels.
    pub(super) fn channels(&self) -> usize {
        self.scale.elem_count()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = self.channels();
        // Rows that are normalised, and the shape with which scales broadcast.
        let (rows, mut shape) = match self.groups {
            Some(groups) => (x.dim(0)? * groups, vec![1; x.rank()]),
            None => (x.elem_count() / channels.max(1), vec![channels]),
        };
        if self.groups.is_some() {
            shape[1] = channels;
        }
        // Sums of half precision would lose digits.
        let wide = if x.dtype() == DType::F16 { DType::F32 } else { x.dtype() };
        let scale = self.scale.to_dtype(wide)?.reshape(shape.as_slice())?;
        let shift = self.shift.to_dtype(wide)?.reshape(shape.as_slice())?;
        let epsilon = self.epsilon;
        let forward = |x: &Tensor| {
            let (unit, _) = normalised(&x.to_dtype(wide)?, rows, epsilon)?;
            unit.reshape(x.shape())?.broadcast_mul(&scale)?.broadcast_add(&shift)?.to_dtype(x.dtype())
        };
        let scale = scale.clone();
        own("normalisation", x, forward, move |x, dy| {
            // dx = (g - mean(g) - unit mean(g unit)) / deviation with g = scale dy.
            let (unit, inverse) = normalised(x, rows, epsilon)?;
            let g = dy.broadcast_mul(&scale)?.reshape(unit.shape())?;
            let dx = g.broadcast_sub(&mean(&g)?)?;
            let dx = (dx - unit.broadcast_mul(&mean(&(&g * &unit)?)?)?)?;
            dx.broadcast_mul(&inverse)?.reshape(x.shape())
        })
    }
}

/// (x - mean) / deviation as `[rows, length]`, and 1 / deviation as `[rows, 1]`.
fn normalised(x: &Tensor, rows: usize, epsilon: f64) -> Result<(Tensor, Tensor)> {
    let x = x.contiguous()?.reshape((rows, x.elem_count() / rows.max(1)))?;
    let x = x.broadcast_sub(&mean(&x)?)?;
    let inverse = (mean(&x.sqr()?)? + epsilon)?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&inverse)?, inverse))
}

fn mean(x: &Tensor) -> Result<Tensor> {
    x.sum_keepdim(1)? / x.dim(1)? as f64
}

/// x Phi(x) with the exact Phi, from operations whose derivatives candle has in full precision.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    x * (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?
}

/// Scores and probabilities of attention: softmax(scale q k^T + mask).
#[derive(Clone)]
pub(super) struct Scores {
    /// 1 / sqrt(dimensions of a head).
    pub(super) scale: f64,
    /// Added to the scores, `[queries, keys]`.
    pub(super) mask: Option<Tensor>,
    /// Bytes that scores may take at a time.
    pub(super) bytes: usize,
}

/// A part of the scores: heads of rows, and queries.
struct Part {
    heads: (usize, usize),
    queries: (usize, usize),
}

impl Scores {
    /// Bytes of one copy of the scores that are computed at a time.
    pub(super) fn at_a_time(bytes: usize, heads: usize, queries: f64, keys: f64, width: Width) -> f64 {
        (bytes as f64).max(width.wide * keys).min(width.wide * heads as f64 * queries * keys)
    }

    /// Probabilities `[heads, queries, keys]` for some queries, which begin at `first`; at least in single precision.
    pub(super) fn probabilities(&self, q: &Tensor, k: &Tensor, first: usize) -> Result<Tensor> {
        let wide = if q.dtype() == DType::F16 { DType::F32 } else { q.dtype() };
        let q = (q.to_dtype(wide)? * self.scale)?;
        let scores = q.contiguous()?.matmul(&k.to_dtype(wide)?.transpose(1, 2)?)?;
        let scores = match &self.mask {
            Some(mask) => scores.broadcast_add(&mask.narrow(0, first, q.dim(1)?)?.to_dtype(wide)?)?,
            None => scores,
        };
        candle_nn::ops::softmax(&scores, D::Minus1)
    }

    /// Softmax(...) v for `q` `[heads, queries, d]`, `k` and `v` `[heads, keys, d]`.
    pub(super) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let value = self.forward(&q.detach(), &k.detach(), &v.detach())?;
        if !(q.track_op() || k.track_op() || v.track_op()) {
            return Ok(value);
        }
        let scores = self.clone();
        let backward = move |[q, k, v]: [&Tensor; 3], dy: &Tensor| scores.backward(q, k, v, dy);
        q.apply_op3(k, v, Own::new("attention", value, backward))
    }

    /// Parts of at most `bytes` of scores, or of one query, grouped by their heads.
    fn parts(&self, q: &Tensor, k: &Tensor) -> Result<Vec<Vec<Part>>> {
        let (heads, queries, _) = q.dims3()?;
        let size = q.dtype().size_in_bytes().max(DType::F32.size_in_bytes());
        let room = (self.bytes / (size * k.dim(1)?).max(1)).max(1);
        let (many, each) =
            if room >= queries { ((room / queries.max(1)).min(heads), queries) } else { (1, room) };
        let starts = |count: usize, step: usize| {
            let step = step.max(1);
            (0..count).step_by(step).map(move |start| (start, step.min(count - start)))
        };
        Ok(starts(heads, many)
            .map(|heads| starts(queries, each).map(|queries| Part { heads, queries }).collect())
            .collect())
    }

    fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let mut out = Vec::new();
        for group in self.parts(q, k)? {
            let mut rows = Vec::new();
            for Part { heads: (h, hs), queries: (first, count) } in group {
                let (q, k, v) = (q.narrow(0, h, hs)?, k.narrow(0, h, hs)?, v.narrow(0, h, hs)?);
                let p = self.probabilities(&q.narrow(1, first, count)?, &k, first)?;
                rows.push(p.to_dtype(v.dtype())?.matmul(&v.contiguous()?)?);
            }
            out.push(joined(rows, 1)?);
        }
        joined(out, 0)
    }

    /// Gradients of sum(output * dy) with respect to q, k and v, with the probabilities computed a second time.
    fn backward(&self, q: &Tensor, k: &Tensor, v: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        for group in self.parts(q, k)? {
            let (mut dq_rows, mut sums) = (Vec::new(), None);
            for Part { heads: (h, hs), queries: (first, count) } in group {
                let (k, v) = (k.narrow(0, h, hs)?.contiguous()?, v.narrow(0, h, hs)?.contiguous()?);
                let q = q.narrow(0, h, hs)?.narrow(1, first, count)?.contiguous()?;
                let dy = dy.narrow(0, h, hs)?.narrow(1, first, count)?.contiguous()?;
                let p = self.probabilities(&q, &k, first)?;
                let dp = dy.matmul(&v.transpose(1, 2)?)?;
                let ds = (&p * dp.broadcast_sub(&(&p * &dp)?.sum_keepdim(D::Minus1)?)?)?;
                dq_rows.push((ds.matmul(&k)? * self.scale)?);
                let dk = (ds.transpose(1, 2)?.matmul(&q)? * self.scale)?;
                let dv = p.transpose(1, 2)?.matmul(&dy)?;
                sums = match sums {
                    Some((a, b)) => Some(((a + dk)?, (b + dv)?)),
                    None => Some((dk, dv)),
                };
            }
            dq.push(joined(dq_rows, 1)?);
            if let Some((a, b)) = sums {
                dk.push(a);
                dv.push(b);
            }
        }
        Ok([joined(dq, 0)?, joined(dk, 0)?, joined(dv, 0)?])
    }
}

/// Tensors along an axis; one tensor is not copied.
fn joined(mut parts: Vec<Tensor>, axis: usize) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Tensor::cat(&parts, axis),
    }
}

/// `[m, n, heads * d]` as `[m * heads, n, d]`.
pub(super) fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (m, n, width) = x.dims3()?;
    let x = x.reshape((m, n, heads, width / heads))?.transpose(1, 2)?.contiguous()?;
    x.reshape((m * heads, n, width / heads))
}

/// `[m * heads, n, d]` as `[m, n, heads * d]`.
pub(super) fn join_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, n, d) = x.dims3()?;
    let x = x.reshape((rows / heads, heads, n, d))?.transpose(1, 2)?.contiguous()?;
    x.reshape((rows / heads, n, heads * d))
}

/// `[m, channels, height, width]` as `[m, height * width, channels]`.
pub(super) fn to_rows(x: &Tensor) -> Result<Tensor> {
    x.flatten(2, 3)?.transpose(1, 2)?.contiguous()
}

/// `[m, height * width, channels]` as `[m, channels, height, width]`.
pub(super) fn to_image(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (m, _, channels) = x.dims3()?;
    x.transpose(1, 2)?.contiguous()?.reshape((m, channels, height, width))
}
