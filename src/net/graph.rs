//! What a network computes, apart from how.

use super::NetError;
use crate::shape::Shape;

/// A node of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) usize);

/// A parameter of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub(super) usize);

/// How a parameter lies in [`super::Weights`], and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[n]`, the same in both.
    Vector(usize),
    /// A dense layer: `[inputs, outputs]` here, `[outputs, inputs]` in files.
    Dense {
        /// Channels that it reads.
        inputs: usize,
        /// Channels that it gives.
        outputs: usize,
    },
    /// A convolution: `[side, side, inputs, outputs]` here, `[outputs, inputs, side, side]` in files.
    Conv {
        /// Rows and columns of the window.
        side: usize,
        /// Channels that it reads.
        inputs: usize,
        /// Channels that it gives.
        outputs: usize,
    },
}

impl Layout {
    /// Numbers in the parameter.
    pub const fn len(self) -> usize {
        match self {
            Self::Vector(n) => n,
            Self::Dense { inputs, outputs } => inputs * outputs,
            Self::Conv { side, inputs, outputs } => side * side * inputs * outputs,
        }
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Its shape in files, PyTorch's.
    pub fn file_shape(self) -> Vec<usize> {
        match self {
            Self::Vector(n) => vec![n],
            Self::Dense { inputs, outputs } => vec![outputs, inputs],
            Self::Conv { side, inputs, outputs } => vec![outputs, inputs, side, side],
        }
    }
}

/// What a parameter is before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Nought.
    Zeros,
    /// One.
    Ones,
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name in files.
    pub name: String,
    /// Its shape and layout.
    pub layout: Layout,
    /// What it is before training.
    pub init: Init,
    /// Whether it is trained. What is not is drawn once and kept, such as the frequencies of Fourier features.
    pub trained: bool,
    /// Where it begins in [`super::Weights`]; parameters that are trained come first.
    pub offset: usize,
}

/// What a node computes, for each sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// The sample itself.
    Input,
    /// The embedding of DDPM of the sample's time t: with h = channels / 2, the sines and then the cosines of
    /// t period^(-i / (h - 1)), i = 0..h.
    Sinusoid {
        /// The longest period over 2 pi: 10000 in DDPM.
        period: f64,
    },
    /// Random Fourier features of the sample's time: the sines and then the cosines of 2 pi t w_i.
    Fourier {
        /// The frequencies w, a vector of half as many as there are channels, not trained.
        frequencies: ParamId,
    },
    /// A linear map of each window of pixels, side 1 or 3: y = W x + b. Beyond the edge there is nought.
    ///
    /// With stride 1 windows are centred. With stride 2 (side 3) the window of output pixel (i, j) begins at (2i, 2j),
    /// so that there is one row and column of nought below and on the right of an even image, as in DDPM. With
    /// `upsample` every pixel is taken for a block of 2 x 2 first.
    ///
    /// A second input, where there is one, is a vector a sample that is added to the bias.
    Conv {
        /// W: [`Layout::Conv`], or [`Layout::Dense`] for side 1.
        weight: ParamId,
        /// b.
        bias: ParamId,
        /// Rows and columns of the window.
        side: usize,
        /// Pixels between windows.
        stride: usize,
        /// Whether the image is doubled first.
        upsample: bool,
    },
    /// Group normalisation with a scale and a shift for each channel, then x sigmoid(x) with `silu`, then dropout
    /// while training.
    Norm {
        /// The scale.
        scale: ParamId,
        /// The shift.
        shift: ParamId,
        /// Groups of neighbouring channels; the mean and the variance are those of a group over all pixels.
        groups: usize,
        /// Added to the variance.
        epsilon: f64,
        /// Whether x sigmoid(x) follows.
        silu: bool,
        /// Share of numbers that training makes nought; the others are divided by one minus it.
        dropout: f64,
    },
    /// x sigmoid(x), then dropout while training.
    Silu {
        /// As in [`Op::Norm`].
        dropout: f64,
    },
    /// Attention with one head over pixels: inputs q, k and v, softmax(q k^T / sqrt(channels)) v.
    Attention,
    /// The sum of two nodes.
    Add,
    /// The channels of two nodes side by side.
    Concat,
}

/// An operation on earlier nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The nodes that it reads.
    pub inputs: Vec<NodeId>,
    /// The shape of a sample of it.
    pub shape: Shape,
    /// The layer that it belongs to, for lists of layers and profiles.
    pub layer: String,
}

/// A network: nodes in the order in which they are computed, the last one being its output, and parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    params: Vec<Param>,
    trained: usize,
    len: usize,
}

impl Graph {
    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The parameters, in the order in which they were named.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// A parameter.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// Numbers that are trained: the count that papers give. They come first in [`super::Weights`].
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// All numbers in [`super::Weights`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The shape of a sample that goes in.
    pub fn input(&self) -> Shape {
        self.nodes[0].shape
    }

    /// The shape of what comes out.
    pub fn output(&self) -> Shape {
        self.nodes[self.nodes.len() - 1].shape
    }

    /// Floating-point operations of the linear maps and attention for one sample, forward.
    pub fn flops(&self) -> f64 {
        self.nodes.iter().map(|n| self.node_flops(n)).sum()
    }

    /// Floating-point operations of a node for one sample, forward: multiplications and additions of linear maps and
    /// attention, nought for others.
    pub fn node_flops(&self, node: &Node) -> f64 {
        match node.op {
            Op::Conv { side, .. } => {
                let read = self.node(node.inputs[0]).shape.channels;
                2.0 * (side * side * read) as f64 * node.shape.len() as f64
            }
            Op::Attention => 4.0 * (node.shape.pixels() * node.shape.len()) as f64,
            _ => 0.0,
        }
    }
}

/// Puts a [`Graph`] together. Every method adds a node, checked against the shapes of what it reads.
pub struct Builder {
    nodes: Vec<Node>,
    params: Vec<Param>,
}

impl Builder {
    /// A network of samples of this shape, and its first node.
    pub fn new(input: Shape) -> (Self, NodeId) {
        let node = Node { op: Op::Input, inputs: vec![], shape: input, layer: "input".into() };
        (Self { nodes: vec![node], params: vec![] }, NodeId(0))
    }

    /// The shape of a node.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    /// Names a parameter.
    ///
    /// # Errors
    /// [`NetError::Graph`] where the name is taken.
    pub fn param(&mut self, name: String, layout: Layout, init: Init) -> Result<ParamId, NetError> {
        self.named(name, layout, init, true)
    }

    fn named(
        &mut self,
        name: String,
        layout: Layout,
        init: Init,
        trained: bool,
    ) -> Result<ParamId, NetError> {
        if self.params.iter().any(|p| p.name == name) {
            return Err(NetError::Graph { layer: name, reason: "there is a parameter of that name".into() });
        }
        self.params.push(Param { name, layout, init, trained, offset: 0 });
        Ok(ParamId(self.params.len() - 1))
    }

    fn push(&mut self, layer: &str, op: Op, inputs: &[NodeId], shape: Shape) -> NodeId {
        self.nodes.push(Node { op, inputs: inputs.to_vec(), shape, layer: layer.into() });
        NodeId(self.nodes.len() - 1)
    }

    fn refuse<T>(layer: &str, reason: String) -> Result<T, NetError> {
        Err(NetError::Graph { layer: layer.into(), reason })
    }

    /// DDPM's embedding of time with an even number of channels.
    ///
    /// # Errors
    /// [`NetError::Graph`] for an odd or too small number.
    pub fn sinusoid(&mut self, layer: &str, channels: usize, period: f64) -> Result<NodeId, NetError> {
        if channels < 4 || !channels.is_multiple_of(2) {
            return Self::refuse(
                layer,
                format!("{channels} channels of time, expected an even number from 4 on"),
            );
        }
        Ok(self.push(layer, Op::Sinusoid { period }, &[], Shape::vector(channels)))
    }

    /// Random Fourier features of time with an even number of channels and normal frequencies of this standard
    /// deviation, kept as `layer.frequencies`.
    ///
    /// # Errors
    /// [`NetError::Graph`] for an odd number or a name that is taken.
    pub fn fourier(&mut self, layer: &str, channels: usize, scale: f64) -> Result<NodeId, NetError> {
        if channels < 2 || !channels.is_multiple_of(2) {
            return Self::refuse(
                layer,
                format!("{channels} channels of time, expected an even number from 2 on"),
            );
        }
        let name = format!("{layer}.frequencies");
        let frequencies = self.named(name, Layout::Vector(channels / 2), Init::Normal(scale), false)?;
        Ok(self.push(layer, Op::Fourier { frequencies }, &[], Shape::vector(channels)))
    }

    /// A convolution with parameters `layer.weight` and `layer.bias`; side 1 is a dense layer for each pixel.
    ///
    /// # Errors
    /// [`NetError::Graph`] for a window, a stride or shapes that do not fit.
    pub fn conv(
        &mut self,
        layer: &str,
        x: NodeId,
        outputs: usize,
        conv: ConvSettings,
    ) -> Result<NodeId, NetError> {
        let ConvSettings { side, stride, upsample, shift, dense, init } = conv;
        let from = self.shape(x);
        if !matches!((side, stride, upsample), (1, 1, false) | (3, 1, _) | (3, 2, false)) {
            return Self::refuse(
                layer,
                format!("side {side}, stride {stride}, upsample {upsample} is not supported"),
            );
        }
        if stride == 2 && (!from.height.is_multiple_of(2) || !from.width.is_multiple_of(2)) {
            return Self::refuse(
                layer,
                format!("stride 2 wants an even image, found {}x{}", from.height, from.width),
            );
        }
        if outputs == 0 {
            return Self::refuse(layer, "no channels come out".into());
        }
        let (height, width) = match (upsample, stride) {
            (true, _) => (2 * from.height, 2 * from.width),
            (_, stride) => (from.height / stride, from.width / stride),
        };
        let mut inputs = vec![x];
        if let Some(shift) = shift {
            if self.shape(shift) != Shape::vector(outputs) {
                return Self::refuse(
                    layer,
                    format!("the shift has shape {:?}, not {outputs} channels", self.shape(shift)),
                );
            }
            inputs.push(shift);
        }
        let inputs_of = from.channels;
        let layout = match dense {
            true if side == 1 => Layout::Dense { inputs: inputs_of, outputs },
            _ => Layout::Conv { side, inputs: inputs_of, outputs },
        };
        let weight = self.param(format!("{layer}.weight"), layout, init.weight)?;
        let bias = self.param(format!("{layer}.bias"), Layout::Vector(outputs), init.bias)?;
        let op = Op::Conv { weight, bias, side, stride, upsample };
        Ok(self.push(layer, op, &inputs, Shape::image(height, width, outputs)))
    }

    /// Group normalisation with parameters `layer.weight` and `layer.bias`.
    ///
    /// # Errors
    /// [`NetError::Graph`] for groups that do not divide the channels, or a dropout outside of 0 to below 1.
    pub fn norm(
        &mut self,
        layer: &str,
        x: NodeId,
        groups: usize,
        epsilon: f64,
        silu: bool,
        dropout: f64,
    ) -> Result<NodeId, NetError> {
        let shape = self.shape(x);
        if groups == 0 || !shape.channels.is_multiple_of(groups) {
            return Self::refuse(layer, format!("{groups} groups of {} channels", shape.channels));
        }
        Self::check_dropout(layer, dropout)?;
        let n = Layout::Vector(shape.channels);
        let scale = self.param(format!("{layer}.weight"), n, Init::Ones)?;
        let shift = self.param(format!("{layer}.bias"), n, Init::Zeros)?;
        Ok(self.push(layer, Op::Norm { scale, shift, groups, epsilon, silu, dropout }, &[x], shape))
    }

    fn check_dropout(layer: &str, dropout: f64) -> Result<(), NetError> {
        match (0.0..1.0).contains(&dropout) {
            true => Ok(()),
            false => Self::refuse(layer, format!("dropout {dropout}, expected 0 to below 1")),
        }
    }

    /// x sigmoid(x) and dropout.
    ///
    /// # Errors
    /// [`NetError::Graph`] for a dropout outside of 0 to below 1.
    pub fn silu(&mut self, layer: &str, x: NodeId, dropout: f64) -> Result<NodeId, NetError> {
        Self::check_dropout(layer, dropout)?;
        Ok(self.push(layer, Op::Silu { dropout }, &[x], self.shape(x)))
    }

    /// Attention over pixels.
    ///
    /// # Errors
    /// [`NetError::Graph`] where the three shapes are not one.
    pub fn attention(&mut self, layer: &str, q: NodeId, k: NodeId, v: NodeId) -> Result<NodeId, NetError> {
        let shape = self.shape(q);
        if self.shape(k) != shape || self.shape(v) != shape {
            return Self::refuse(layer, "q, k and v differ in shape".into());
        }
        Ok(self.push(layer, Op::Attention, &[q, k, v], shape))
    }

    /// a + b.
    ///
    /// # Errors
    /// [`NetError::Graph`] where the shapes differ.
    pub fn add(&mut self, layer: &str, a: NodeId, b: NodeId) -> Result<NodeId, NetError> {
        let shape = self.shape(a);
        if self.shape(b) != shape {
            return Self::refuse(layer, format!("{shape:?} and {:?} are added", self.shape(b)));
        }
        Ok(self.push(layer, Op::Add, &[a, b], shape))
    }

    /// The channels of a and then those of b.
    ///
    /// # Errors
    /// [`NetError::Graph`] where the images differ in size.
    pub fn concat(&mut self, layer: &str, a: NodeId, b: NodeId) -> Result<NodeId, NetError> {
        let (left, right) = (self.shape(a), self.shape(b));
        if (left.height, left.width) != (right.height, right.width) {
            return Self::refuse(layer, format!("{left:?} and {right:?} are put side by side"));
        }
        let shape = Shape { channels: left.channels + right.channels, ..left };
        Ok(self.push(layer, Op::Concat, &[a, b], shape))
    }

    /// The network whose output is the last node.
    pub fn finish(mut self) -> Graph {
        let mut len = 0;
        let mut trained = 0;
        for wanted in [true, false] {
            for p in self.params.iter_mut().filter(|p| p.trained == wanted) {
                p.offset = len;
                len += p.layout.len();
            }
            if wanted {
                trained = len;
            }
        }
        Graph { nodes: self.nodes, params: self.params, trained, len }
    }
}

/// Initial values of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerInit {
    /// Of its weight.
    pub weight: Init,
    /// Of its bias.
    pub bias: Init,
}

/// Settings of [`Builder::conv`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvSettings {
    /// Rows and columns of the window, 1 or 3.
    pub side: usize,
    /// Pixels between windows, 1 or 2.
    pub stride: usize,
    /// Whether the image is doubled first.
    pub upsample: bool,
    /// A vector a sample that is added to the bias.
    pub shift: Option<NodeId>,
    /// Whether files hold a window of side 1 as a dense layer, `[outputs, inputs]`.
    pub dense: bool,
    /// Initial values.
    pub init: LayerInit,
}
