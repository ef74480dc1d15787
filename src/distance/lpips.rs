//! LPIPS (Zhang et al. 2018), version 0.1, on the processor.
//!
//! An image goes through a network; at five of its layers the channels of each pixel are divided by their norm, and
//! LPIPS is the sum over layers of the mean over pixels of the weighted squared differences. With the square roots of
//! the weights and of the number of pixels put into the features it is a squared distance.

use std::path::Path;

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{DistanceError, Features, features};
use crate::data::weights::{self, Arrays, LPIPS, LPIPS_ALEX, LPIPS_VGG};
use crate::metric::Metric;
use crate::net::Linear;
use crate::ops::finite_rows;
use crate::progress::ProgressSink;
use crate::project::Layout;
use crate::shape::Shape;
use crate::store::hex;

/// What the images' place is called in errors.
const FEATURES: &str = "LPIPS features";
/// Images with shorter sides are enlarged.
const SHORTEST: usize = 32;
/// Images with longer sides are refused.
const LONGEST: usize = 1024;
/// What a value may lie outside of 0 to 1 by rounding.
const SLACK: f32 = 1e-3;
/// Mean and deviation of red, green and blue in the images that the networks were trained on, of values 0 to 1.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// Added to norms.
const EPSILON: f64 = 1e-10;
/// Numbers of the largest layer for the images that go through the network together, and most and fewest of these.
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
    /// Side and stride of the maximum that is taken before it.
    pool: Option<(usize, usize)>,
    outputs: usize,
    side: usize,
    stride: usize,
    padding: usize,
    /// Whether what comes out is compared.
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
    /// The network of a metric; `None` for [`Metric::L2`], which compares the values themselves.
    pub fn of(metric: Metric) -> Option<Self> {
        match metric {
            Metric::L2 => None,
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

    /// Its name in the weights.
    fn module(self) -> &'static str {
        match self {
            Self::AlexNet => "AlexNet_0",
            Self::Vgg16 => "VGG16_0",
        }
    }

    /// Its name in commands and of files.
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
    /// Square roots of the weights of channels, for each layer that is compared.
    heads: Vec<Vec<f32>>,
    /// Sum of the weights.
    sha256: String,
}

impl Lpips {
    /// Reads a network's weights, which `mem2gen data fetch lpips-weights` brings, and verifies them.
    ///
    /// # Errors
    /// [`DataError::Absent`](crate::data::DataError::Absent) where they were not fetched, and all damage.
    pub fn open(backbone: Backbone, layout: &Layout) -> Result<Self, DistanceError> {
        let file = match backbone {
            Backbone::AlexNet => &LPIPS_ALEX,
            Backbone::Vgg16 => &LPIPS_VGG,
        };
        Self::new(backbone, &weights::load(layout, &LPIPS, file)?)
    }

    /// Takes weights under the names that the fetched files have.
    ///
    /// # Errors
    /// [`DistanceError::Weights`] for missing arrays and other shapes, [`DistanceError::Value`] for numbers that are not
    /// finite and weights of channels below 0, of which there is no square root.
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
                    return Err(DistanceError::Value { network, name, value, need: "numbers from 0 on" });
                }
                heads.push(head.iter().map(|v| v.sqrt()).collect());
            }
        }
        Ok(Self { backbone, convolutions, heads, sha256: weights::arrays_sha256(arrays) })
    }

    /// The network.
    pub fn backbone(&self) -> Backbone {
        self.backbone
    }

    /// Features of an image of this shape; each takes 4 bytes.
    ///
    /// # Errors
    /// [`DistanceError::Images`] for a shape that is not taken.
    pub fn length(&self, shape: Shape) -> Result<usize, DistanceError> {
        Ok(self.plan(shape)?.length)
    }

    /// The features of images, a row an image: LPIPS of two images is the squared l2 distance of their rows.
    ///
    /// A row of `images` holds values from 0 to 1 in the order row, column, channel. One channel is taken for all three,
    /// and a side below 32 is enlarged to 32, each new pixel being the old one in which its centre lies.
    ///
    /// What comes out of an image depends on no other image, to the last bit.
    ///
    /// # Errors
    /// [`DistanceError::Images`] for a shape that is not taken, [`DistanceError::Sizes`] for rows of another length,
    /// [`OpError::NotFinite`](crate::ops::OpError::NotFinite) and [`DistanceError::Range`] with the first row that holds
    /// such a number.
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
            pass.run(&images, rows.as_slice_mut().unwrap_or_default());
            progress.advance(images.nrows() as u64);
        }
        Ok(out)
    }

    /// As [`Self::features`], kept in a file of `folder` whose name depends on weights and images. A file that is there
    /// already is taken.
    ///
    /// # Errors
    /// As [`Self::features`], and where the file can't be written or is damaged.
    pub fn stored(
        &self,
        shape: Shape,
        images: ArrayView2<'_, f32>,
        folder: &Path,
        progress: &dyn ProgressSink,
    ) -> Result<Features, DistanceError> {
        let plan = self.plan(shape)?;
        check("images", shape, &images)?;
        let path = folder.join(format!("{}-{}.npy", self.backbone.name(), self.key(shape, &images)));
        let sizes = [images.nrows(), plan.length];
        if path.exists() {
            progress.advance(sizes[0] as u64);
            return Features::open(&path, sizes);
        }
        let mut pass = Pass::new(self, plan);
        let mut rows = vec![0.0f32; plan.batch * plan.length];
        features::write(&path, sizes, |put| {
            for images in images.axis_chunks_iter(Axis(0), plan.batch) {
                let rows = &mut rows[..images.nrows() * plan.length];
                pass.run(&images, rows);
                put(rows)?;
                progress.advance(images.nrows() as u64);
            }
            Ok(())
        })?;
        Features::open(&path, sizes)
    }

    /// LPIPS of each row of `a` and the same row of `b`. Features are kept for few images at a time.
    ///
    /// # Errors
    /// As [`Self::features`], and [`DistanceError::Sizes`] where there are not as many rows in both.
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

    /// What a file of features depends on.
    fn key(&self, shape: Shape, images: &ArrayView2<'_, f32>) -> String {
        let mut hash = Sha256::new();
        // The number goes up when other features come from the same weights and images.
        hash.update(format!("mem2gen LPIPS features 1 {} {shape} {}", self.sha256, images.nrows()));
        let mut bytes = Vec::new();
        for row in images.outer_iter() {
            bytes.clear();
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
            hash.update(&bytes);
        }
        hex(&hash.finalize()[..16])
    }

    /// The shapes of all layers for images of a shape.
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

/// Refuses images that are no images.
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

/// What is known of images of a shape before any is seen.
#[derive(Debug, Clone, Copy)]
struct Plan {
    shape: Shape,
    /// What goes into the network.
    input: Shape,
    /// Features of an image.
    length: usize,
    /// Numbers of the largest layer.
    largest: usize,
    /// Images that go through the network together.
    batch: usize,
}

/// The network laid out for images of a shape.
struct Pass<'a> {
    lpips: &'a Lpips,
    plan: Plan,
    layers: Vec<(Linear, Shape)>,
    /// Rows and columns of the image that the network's pixels are taken from.
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// What goes into a layer, and what comes out.
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

    /// The features of at most a batch of images.
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

    /// Enlarges images, makes them colour, and takes mean and deviation out.
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

/// For each of `to` places the one of `from` in which its centre lies, computed in single precision as PyTorch does it.
fn nearest_exact(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| (((i as f32 + 0.5) * scale).floor() as usize).min(from - 1)).collect()
}

/// The maximum over windows, of numbers from 0 on.
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

/// A layer's part of the features of an image: channels divided by their norm and by the square root of the number of
/// pixels, and weighted.
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
