//! LPIPS (Zhang et al. 2018), version 0.1, on the CPU.
//!
//! At five layers of a network the channels of each pixel are divided by their norm. LPIPS is the sum over layers of the
//! mean over pixels of the weighted squared differences. Features include the square roots of the weights and of the
//! inverse number of pixels, so that LPIPS is their squared distance.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::DistanceError;
use crate::data::weights::{self, Arrays, LPIPS, LPIPS_ALEX, LPIPS_VGG};
use crate::metric::Metric;
use crate::net::Linear;
use crate::ops::finite_rows;
use crate::progress::ProgressSink;
use crate::project::Layout;
use crate::shape::Shape;

/// Name of the operation in errors.
const FEATURES: &str = "LPIPS features";
/// Smallest number of rows and columns; smaller images are enlarged.
const SHORTEST: usize = 32;
/// Largest number of rows and columns.
const LONGEST: usize = 1024;
/// Tolerance for values outside of 0 to 1, for rounding.
const SLACK: f32 = 1e-3;
/// Mean and standard deviation of red, green and blue in the networks' training images, for values from 0 to 1.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// Added to norms.
const EPSILON: f64 = 1e-10;
/// Most elements of the largest layer for a batch, and fewest and most images of a batch.
const BATCH: usize = 4 << 20;
const IMAGES: (usize, usize) = (8, 256);

/// The network whose layers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backbone {
    /// AlexNet: 5760 features for an image of 32x32.
    AlexNet,
    /// VGG16: 124928 features for an image of 32x32.
    Vgg16,
}

/// A convolution and the rectifier after it.
#[derive(Debug, Clone, Copy)]
struct Stage {
    /// Side and stride of the max pooling before it; `None` for no pooling.
    pool: Option<(usize, usize)>,
    outputs: usize,
    side: usize,
    stride: usize,
    padding: usize,
    /// Whether its output is compared.
    compared: bool,
}

const fn stage(pool: Option<(usize, usize)>, outputs: usize, compared: bool) -> Stage {
    Stage { pool, outputs, side: 3, stride: 1, padding: 1, compared }
}

const ALEXNET: [Stage; 5] = [
    Stage { pool: None, outputs: 64, side: 11, stride: 4, padding: 2, compared: true },
    Stage { pool: Some((3, 2)), outputs: 192, side: 5, stride: 1, padding: 2, compared: true },
    stage(Some((3, 2)), 384, true),
    stage(None, 256, true),
    stage(None, 256, true),
];

const VGG16: [Stage; 13] = [
    stage(None, 64, false),
    stage(None, 64, true),
    stage(Some((2, 2)), 128, false),
    stage(None, 128, true),
    stage(Some((2, 2)), 256, false),
    stage(None, 256, false),
    stage(None, 256, true),
    stage(Some((2, 2)), 512, false),
    stage(None, 512, false),
    stage(None, 512, true),
    stage(Some((2, 2)), 512, false),
    stage(None, 512, false),
    stage(None, 512, true),
];

impl Backbone {
    /// The network of a metric; `None` for [`Metric::L2`] and [`Metric::Cosine`], which compare the values themselves.
    pub fn for_metric(metric: Metric) -> Option<Self> {
        match metric {
            Metric::L2 | Metric::Cosine => None,
            Metric::LpipsAlex => Some(Self::AlexNet),
            Metric::LpipsVgg => Some(Self::Vgg16),
        }
    }

    /// The metric that compares this network's features.
    pub fn metric(self) -> Metric {
        match self {
            Self::AlexNet => Metric::LpipsAlex,
            Self::Vgg16 => Metric::LpipsVgg,
        }
    }

    fn stages(self) -> &'static [Stage] {
        match self {
            Self::AlexNet => &ALEXNET,
            Self::Vgg16 => &VGG16,
        }
    }

    /// Name in the files of weights.
    fn module(self) -> &'static str {
        match self {
            Self::AlexNet => "AlexNet_0",
            Self::Vgg16 => "VGG16_0",
        }
    }

    /// Name in commands and file names.
    pub fn name(self) -> &'static str {
        self.metric().name()
    }
}

/// A network with its weights.
#[derive(Debug, Clone)]
pub struct Lpips {
    backbone: Backbone,
    /// Weights, as `[side, side, inputs, outputs]`, and biases.
    convolutions: Vec<(Vec<f32>, Vec<f32>)>,
    /// Square roots of the weights of the channels, for each compared layer.
    heads: Vec<Vec<f32>>,
}

impl Lpips {
    /// Reads and verifies a network's weights, which `mem2gen data fetch lpips-weights` downloads.
    ///
    /// # Errors
    /// [`DataError::Absent`](crate::data::DataError::Absent) when they were not fetched; errors for damaged files.
    pub fn open(backbone: Backbone, layout: &Layout) -> Result<Self, DistanceError> {
        let file = match backbone {
            Backbone::AlexNet => &LPIPS_ALEX,
            Backbone::Vgg16 => &LPIPS_VGG,
        };
        Self::new(backbone, &weights::load(layout, &LPIPS, file)?)
    }

    /// A network from weights, by the names in the fetched files.
    ///
    /// # Errors
    /// [`DistanceError::Weights`] for missing arrays and other shapes; [`DistanceError::Value`] for values that are not
    /// finite and negative weights of channels, which have no square root.
    pub fn new(backbone: Backbone, arrays: &Arrays) -> Result<Self, DistanceError> {
        let network = backbone.name();
        let take = |name: String, expected: Vec<usize>| {
            let found = arrays.get(&name);
            let Some(array) = found.filter(|a| a.shape() == expected) else {
                let found = found.map(|a| a.shape().to_vec());
                return Err(DistanceError::Weights { network, name, found, expected });
            };
            let values: Vec<f32> = array.iter().copied().collect();
            match values.iter().find(|v| !v.is_finite()) {
                Some(&value) => Err(DistanceError::Value { network, name, value, need: "finite numbers" }),
                None => Ok(values),
            }
        };
        let (mut convolutions, mut heads, mut inputs) = (vec![], vec![], 3);
        for (i, stage) in backbone.stages().iter().enumerate() {
            let name = format!("{}.Conv_{i}", backbone.module());
            let weight = take(format!("{name}.kernel"), vec![stage.side, stage.side, inputs, stage.outputs])?;
            convolutions.push((weight, take(format!("{name}.bias"), vec![stage.outputs])?));
            inputs = stage.outputs;
            if stage.compared {
                let name = format!("NetLinLayer_{}.Conv_0.kernel", heads.len());
                let head = take(name.clone(), vec![1, 1, inputs, 1])?;
                if let Some(&value) = head.iter().find(|v| **v < 0.0) {
                    return Err(DistanceError::Value { network, name, value, need: "numbers of at least 0" });
                }
                heads.push(head.iter().map(|v| v.sqrt()).collect());
            }
        }
        Ok(Self { backbone, convolutions, heads })
    }

    /// The network.
    pub fn backbone(&self) -> Backbone {
        self.backbone
    }

    /// Number of features of an image of this shape, of 4 bytes each.
    ///
    /// # Errors
    /// [`DistanceError::Images`] for a shape that is not supported.
    pub fn length(&self, shape: Shape) -> Result<usize, DistanceError> {
        Ok(self.plan(shape)?.length)
    }

    /// Bytes of memory of the weights and of the layers of a batch of images of this shape.
    ///
    /// # Errors
    /// As [`Self::length`].
    pub fn bytes(&self, shape: Shape) -> Result<u64, DistanceError> {
        let plan = self.plan(shape)?;
        let weights = self.convolutions.iter().map(|(weight, bias)| weight.len() + bias.len()).sum::<usize>();
        Ok((size_of::<f32>() * (weights + 2 * plan.batch * plan.largest)) as u64)
    }

    /// Features of images, one row per image. LPIPS of two images is the squared l2 distance between their rows.
    ///
    /// A row of `images` has values from 0 to 1 in the order row, column, channel. A single channel is used for all three.
    /// Fewer than 32 rows or columns are enlarged to 32 by nearest-neighbour interpolation.
    ///
    /// The features of an image do not depend on other images.
    ///
    /// # Errors
    /// [`DistanceError::Images`] for a shape that is not supported, [`DistanceError::Sizes`] for rows of another length,
    /// [`OpError::NotFinite`](crate::ops::OpError::NotFinite) and [`DistanceError::Range`] for values that are not finite or
    /// not from 0 to 1.
    pub fn features(
        &self,
        shape: Shape,
        images: ArrayView2<'_, f32>,
        progress: &dyn ProgressSink,
    ) -> Result<Array2<f32>, DistanceError> {
        let plan = self.plan(shape)?;
        check("images", shape, &images)?;
        let mut out = Array2::zeros((images.nrows(), plan.length));
        let mut pass = Pass::new(self, plan);
        for (images, mut rows) in
            images.axis_chunks_iter(Axis(0), plan.batch).zip(out.axis_chunks_iter_mut(Axis(0), plan.batch))
        {
            pass.run(
                &images,
                rows.as_slice_mut().expect("rows of an array in standard layout are contiguous"),
            );
            progress.advance(images.nrows() as u64);
        }
        Ok(out)
    }

    /// LPIPS between each row of `a` and the same row of `b`, `[m]`. Features are kept for one batch alone.
    ///
    /// # Errors
    /// As [`Self::features`], and [`DistanceError::Sizes`] for different numbers of rows.
    pub fn distances(
        &self,
        shape: Shape,
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Vec<f64>, DistanceError> {
        let plan = self.plan(shape)?;
        check("a", shape, &a)?;
        check("b", shape, &b)?;
        if a.nrows() != b.nrows() {
            return Err(DistanceError::Sizes {
                operation: "LPIPS",
                argument: "b",
                found: [b.nrows(), b.ncols()],
                expected: [a.nrows(), a.ncols()],
            });
        }
        let mut pass = Pass::new(self, plan);
        let mut rows = [vec![0.0f32; plan.batch * plan.length], vec![0.0f32; plan.batch * plan.length]];
        let mut distances = Vec::with_capacity(a.nrows());
        for (a, b) in a.axis_chunks_iter(Axis(0), plan.batch).zip(b.axis_chunks_iter(Axis(0), plan.batch)) {
            pass.run(&a, &mut rows[0][..a.nrows() * plan.length]);
            pass.run(&b, &mut rows[1][..b.nrows() * plan.length]);
            let pairs = rows[0].chunks(plan.length).zip(rows[1].chunks(plan.length)).take(a.nrows());
            distances.extend(pairs.map(|(a, b)| {
                let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
                a.iter().zip(b).map(square).sum::<f64>()
            }));
        }
        Ok(distances)
    }

    /// Sizes of the layers for images of a shape.
    fn plan(&self, shape: Shape) -> Result<Plan, DistanceError> {
        let sides = [shape.height, shape.width];
        if !matches!(shape.channels, 1 | 3) || sides.iter().any(|n| !(1..=LONGEST).contains(n)) {
            return Err(DistanceError::Images { operation: FEATURES, shape, most: LONGEST });
        }
        let input = Shape::image(shape.height.max(SHORTEST), shape.width.max(SHORTEST), 3);
        let (mut length, mut largest, mut at) = (0, input.len(), input);
        for stage in self.backbone.stages() {
            if let Some((side, stride)) = stage.pool {
                at = pooled(at, side, stride);
            }
            at = convolved(at, stage);
            largest = largest.max(at.len());
            if stage.compared {
                length += at.len();
            }
        }
        Ok(Plan { shape, input, length, largest, batch: (BATCH / largest).clamp(IMAGES.0, IMAGES.1) })
    }
}

fn pooled(from: Shape, side: usize, stride: usize) -> Shape {
    let fit = |n: usize| (n - side) / stride + 1;
    Shape::image(fit(from.height), fit(from.width), from.channels)
}

fn convolved(from: Shape, stage: &Stage) -> Shape {
    let fit = |n: usize| (n + 2 * stage.padding - stage.side) / stage.stride + 1;
    Shape::image(fit(from.height), fit(from.width), stage.outputs)
}

/// Checks shape and values of images.
fn check(argument: &'static str, shape: Shape, images: &ArrayView2<'_, f32>) -> Result<(), DistanceError> {
    if images.ncols() != shape.len() {
        return Err(DistanceError::Sizes {
            operation: FEATURES,
            argument,
            found: [images.nrows(), images.ncols()],
            expected: [images.nrows(), shape.len()],
        });
    }
    finite_rows(FEATURES, argument, images)?;
    for (row, image) in images.outer_iter().enumerate() {
        if let Some(&value) = image.iter().find(|v| !(-SLACK..=1.0 + SLACK).contains(*v)) {
            return Err(DistanceError::Range { operation: FEATURES, argument, row, value });
        }
    }
    Ok(())
}

/// Sizes that depend on the shape of images alone.
#[derive(Debug, Clone, Copy)]
struct Plan {
    shape: Shape,
    /// Shape of the network's input.
    input: Shape,
    /// Number of features per image.
    length: usize,
    /// Elements of the largest layer.
    largest: usize,
    /// Number of images in a batch.
    batch: usize,
}

/// The network with buffers for images of one shape.
struct Pass<'a> {
    lpips: &'a Lpips,
    plan: Plan,
    layers: Vec<(Linear, Shape)>,
    /// Rows and columns of the image for each row and column of the input.
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// Input and output of a layer.
    from: Vec<f32>,
    to: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(lpips: &'a Lpips, plan: Plan) -> Self {
        let mut at = plan.input;
        let layers = lpips.backbone.stages().iter().map(|stage| {
            if let Some((side, stride)) = stage.pool {
                at = pooled(at, side, stride);
            }
            let linear =
                Linear::padded(at, stage.outputs, stage.side, stage.stride, stage.padding, plan.batch);
            at = linear.1;
            linear
        });
        Self {
            lpips,
            plan,
            layers: layers.collect(),
            rows: nearest_exact(plan.shape.height, plan.input.height),
            columns: nearest_exact(plan.shape.width, plan.input.width),
            from: vec![0.0; plan.batch * plan.largest],
            to: vec![0.0; plan.batch * plan.largest],
        }
    }

    /// Computes the features of at most one batch of images.
    fn run(&mut self, images: &ArrayView2<'_, f32>, features: &mut [f32]) {
        let (m, mut at, mut done, mut heads) = (images.nrows(), self.plan.input, 0, self.lpips.heads.iter());
        self.enter(images);
        let stages = self.lpips.backbone.stages().iter();
        for ((stage, (linear, shape)), (weight, bias)) in
            stages.zip(&mut self.layers).zip(&self.lpips.convolutions)
        {
            if let Some((side, stride)) = stage.pool {
                let to = pooled(at, side, stride);
                let outputs = self.to[..m * to.len()].par_chunks_mut(to.len());
                self.from
                    .par_chunks(at.len())
                    .zip(outputs)
                    .for_each(|(x, y)| pool(at, to, side, stride, x, y));
                std::mem::swap(&mut self.from, &mut self.to);
            }
            linear.forward(m, &self.from, weight, bias, None, None, &mut self.to);
            at = *shape;
            self.to[..m * at.len()].par_chunks_mut(at.len()).for_each(|y| {
                y.iter_mut().for_each(|v| *v = v.max(0.0));
            });
            std::mem::swap(&mut self.from, &mut self.to);
            if let Some(head) = stage.compared.then(|| heads.next()).flatten() {
                let rows = features.par_chunks_mut(self.plan.length);
                self.from[..m * at.len()].par_chunks(at.len()).zip(rows).for_each(|(x, row)| {
                    unit(at, head, x, &mut row[done..done + at.len()]);
                });
                done += at.len();
            }
        }
    }

    /// Enlarges images, repeats a single channel, and normalises by mean and standard deviation.
    fn enter(&mut self, images: &ArrayView2<'_, f32>) {
        let Plan { shape, input, .. } = self.plan;
        let (rows, columns) = (&self.rows, &self.columns);
        self.from.par_chunks_mut(input.len()).zip(images.axis_iter(Axis(0)).into_par_iter()).for_each(
            |(x, image)| {
                let pixels =
                    rows.iter().flat_map(|row| columns.iter().map(move |column| row * shape.width + column));
                for (x, pixel) in x.chunks_exact_mut(3).zip(pixels) {
                    for (c, x) in x.iter_mut().enumerate() {
                        *x = (image[pixel * shape.channels + c.min(shape.channels - 1)] - MEAN[c])
                            / DEVIATION[c];
                    }
                }
            },
        );
    }
}

/// Index in `from` of the pixel that contains the centre of each of `to` pixels, computed in single precision as in PyTorch.
fn nearest_exact(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| (((i as f32 + 0.5) * scale).floor() as usize).min(from - 1)).collect()
}

/// Max pooling of values of at least 0.
fn pool(from: Shape, to: Shape, side: usize, stride: usize, x: &[f32], y: &mut [f32]) {
    let c = from.channels;
    y.fill(0.0);
    for (pixel, y) in y.chunks_exact_mut(c).enumerate() {
        let (i, j) = (pixel / to.width * stride, pixel % to.width * stride);
        for (row, column) in (i..i + side).flat_map(|row| (j..j + side).map(move |column| (row, column))) {
            let x = &x[(row * from.width + column) * c..][..c];
            y.iter_mut().zip(x).for_each(|(y, x)| *y = y.max(*x));
        }
    }
}

/// Features of an image from one layer: channels divided by their norm and by the square root of the number of pixels, and
/// weighted.
fn unit(shape: Shape, head: &[f32], x: &[f32], features: &mut [f32]) {
    let share = (shape.pixels() as f64).sqrt();
    for (x, features) in x.chunks_exact(shape.channels).zip(features.chunks_exact_mut(shape.channels)) {
        let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() + EPSILON;
        let scale = (norm * share).recip();
        for ((f, x), w) in features.iter_mut().zip(x).zip(head) {
            *f = (f64::from(*x) * scale) as f32 * w;
        }
    }
}
