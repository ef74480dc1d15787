//! The computation of a network, independent of how it is evaluated.

use super::NetError;
use crate::shape::Shape;

/// Index of a node of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) usize);

/// Index of a parameter of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub(super) usize);

/// Layout of a parameter, in [`super::Weights`] and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// A vector `[n]`, in both.
    Vector(usize),
    /// A dense layer: `[inputs, outputs]` in memory, `[outputs, inputs]` in files.
    Dense {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
    /// A convolution: `[side, side, inputs, outputs]` in memory, `[outputs, inputs, side, side]` in files.
    Conv {
        /// Height and width of the window.
        side: usize,
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
}

impl Layout {
    /// Number of elements.
    pub const fn len(self) -> usize {
        match self {
            Self::Vector(n) => n,
            Self::Dense { inputs, outputs } => inputs * outputs,
            Self::Conv { side, inputs, outputs } => side * side * inputs * outputs,
        }
    }

    /// Whether there are no elements.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Shape in files, which is PyTorch's.
    pub fn file_shape(self) -> Vec<usize> {
        match self {
            Self::Vector(n) => vec![n],
            Self::Dense { inputs, outputs } => vec![outputs, inputs],
            Self::Conv { side, inputs, outputs } => vec![outputs, inputs, side, side],
        }
    }
}

/// Initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Zero.
    Zeros,
    /// One.
    Ones,
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal of mean 0 and this standard deviation.
    Normal(f64),
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Name in files.
    pub name: String,
    /// Shape and layout.
    pub layout: Layout,
    /// Initial values.
    pub init: Init,
    /// Whether it is trained. Others, such as the frequencies of Fourier features, keep their initial values.
    pub trained: bool,
    /// Index of the first element in [`super::Weights`]; trained parameters come first.
    pub offset: usize,
}

/// Operation of a node, for each sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// The sample itself.
    Input,
    /// The sample's condition, such as the vector of its caption: a second input, without a gradient.
    Condition,
    /// DDPM's embedding of the sample's time t: with h = channels / 2, the sines and then the cosines of
    /// t period^(-i / (h - 1)), i = 0..h.
    Sinusoid {
        /// Longest period over 2 pi; 10000 in DDPM.
        period: f64,
    },
    /// Random Fourier features of the sample's time: the sines and then the cosines of 2 pi t w_i.
    Fourier {
        /// Frequencies w, `[channels / 2]`, not trained.
        frequencies: ParamId,
    },
    /// A linear map of each window of pixels, of side 1 or 3: y = W x + b. Pixels outside the image are zero.
    ///
    /// With stride 1 windows are centred. With stride 2 (side 3) the window of output pixel (i, j) begins at (2i, 2j),
    /// so that an even image is padded by one row below and one column on the right, as in DDPM. With `upsample` each
    /// pixel is first repeated as a block of 2 x 2.
    ///
    /// The optional second input is a vector for each sample that is added to the bias.
    Conv {
        /// W: [`Layout::Conv`], or [`Layout::Dense`] for side 1.
        weight: ParamId,
        /// b.
        bias: ParamId,
        /// Height and width of the window.
        side: usize,
        /// Stride of the windows in pixels.
        stride: usize,
        /// Whether height and width are doubled first.
        upsample: bool,
    },
    /// Group normalisation with a scale and a shift for each channel, then SiLU if `silu`, then dropout in training.
    Norm {
        /// Scale of each channel.
        scale: ParamId,
        /// Shift of each channel.
        shift: ParamId,
        /// Number of groups of neighbouring channels; mean and variance are taken over a group and all pixels.
        groups: usize,
        /// Added to the variance.
        epsilon: f64,
        /// Whether x sigmoid(x) follows.
        silu: bool,
        /// Probability that training sets an element to zero; other elements are divided by one minus it.
        dropout: f64,
    },
    /// x sigmoid(x), then dropout in training.
    Silu {
        /// As in [`Op::Norm`].
        dropout: f64,
    },
    /// Attention with one head over pixels: inputs q, k and v, softmax(q k^T / sqrt(channels)) v.
    Attention,
    /// The sum of two nodes.
    Add,
    /// The channels of one node followed by those of another.
    Concat,
    /// Each block of side x side pixels as one pixel: channel (c side + i) side + j is channel c of the pixel in row i and
    /// column j of the block, the order of PyTorch's `pixel_unshuffle`.
    Fold {
        /// Height and width of a block.
        side: usize,
    },
    /// The inverse of [`Op::Fold`].
    Unfold {
        /// Height and width of a block.
        side: usize,
    },
}

/// A node: an operation on earlier nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Nodes that it reads.
    pub inputs: Vec<NodeId>,
    /// Shape of its value for one sample.
    pub shape: Shape,
    /// Name of its layer, for tables and errors.
    pub layer: String,
}

/// A network: nodes in order of evaluation, of which the last is the output, and parameters.
///
/// ```
/// use mem2gen::net::{Arch, ToySettings};
/// use mem2gen::shape::Shape;
///
/// let graph = Arch::Toy(ToySettings::code()).graph(Shape::vector(2))?;
/// assert_eq!((graph.input(), graph.output()), (Shape::vector(2), Shape::vector(2)));
/// // 64 frequencies of the Fourier features are not trained.
/// assert_eq!(graph.len() - graph.trained(), 64);
/// # Ok::<(), mem2gen::net::NetError>(())
/// ```
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

    /// The parameters, in the order in which they were added.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// A parameter.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// Number of trained parameters, as papers count them. They come first in [`super::Weights`].
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// Length of [`super::Weights`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shape of an input sample.
    pub fn input(&self) -> Shape {
        self.nodes[0].shape
    }

    /// Length of a sample's condition; 0 for a network without one.
    pub fn condition(&self) -> usize {
        self.nodes.iter().find(|node| node.op == Op::Condition).map_or(0, |node| node.shape.channels)
    }

    /// Shape of an output sample.
    pub fn output(&self) -> Shape {
        self.nodes[self.nodes.len() - 1].shape
    }

    /// Floating-point operations of linear maps and attention in one forward pass of one sample.
    pub fn flops(&self) -> f64 {
        self.nodes.iter().map(|n| self.node_flops(n)).sum()
    }

    /// Floating-point operations of a node in one forward pass of one sample: multiplications and additions of linear
    /// maps and attention, zero for other operations.
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

/// Builds a [`Graph`]. Each method adds a node and checks the shapes of its inputs.
pub struct Builder {
    nodes: Vec<Node>,
    params: Vec<Param>,
}

impl Builder {
    /// A network for samples of this shape, and its input node.
    pub fn new(input: Shape) -> (Self, NodeId) {
        let node = Node { op: Op::Input, inputs: vec![], shape: input, layer: "input".into() };
        (Self { nodes: vec![node], params: vec![] }, NodeId(0))
    }

    /// Shape of a node's value.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// [`NetError::Graph`] when the name exists.
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
            return Err(NetError::Graph { layer: name, reason: "a parameter of this name exists".into() });
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

    /// The condition of a sample, a vector of `length` values.
    ///
    /// # Errors
    /// [`NetError::Graph`] for a length of 0 and for a second condition.
    pub fn condition(&mut self, layer: &str, length: usize) -> Result<NodeId, NetError> {
        if length == 0 || self.nodes.iter().any(|node| node.op == Op::Condition) {
            return Self::refuse(
                layer,
                format!("a condition of {length} values, expected one of at least 1"),
            );
        }
        Ok(self.push(layer, Op::Condition, &[], Shape::vector(length)))
    }

    /// DDPM's embedding of time with an even number of channels.
    ///
    /// # Errors
    /// [`NetError::Graph`] for an odd number or one below 4.
    pub fn sinusoid(&mut self, layer: &str, channels: usize, period: f64) -> Result<NodeId, NetError> {
        if channels < 4 || !channels.is_multiple_of(2) {
            return Self::refuse(
                layer,
                format!("{channels} channels of time, expected an even number of at least 4"),
            );
        }
        Ok(self.push(layer, Op::Sinusoid { period }, &[], Shape::vector(channels)))
    }

    /// Random Fourier features of time with an even number of channels and normal frequencies of this standard
    /// deviation, the parameter `layer.frequencies`.
    ///
    /// # Errors
    /// [`NetError::Graph`] for an odd number or an existing name.
    pub fn fourier(&mut self, layer: &str, channels: usize, scale: f64) -> Result<NodeId, NetError> {
        if channels < 2 || !channels.is_multiple_of(2) {
            return Self::refuse(
                layer,
                format!("{channels} channels of time, expected an even number of at least 2"),
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
                format!("stride 2 needs an even height and width, found {}x{}", from.height, from.width),
            );
        }
        if outputs == 0 {
            return Self::refuse(layer, "0 output channels, expected at least 1".into());
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
                    format!("the shift has shape {:?}, expected {outputs} channels", self.shape(shift)),
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
    /// [`NetError::Graph`] for groups that do not divide the channels, or a dropout below 0 or at least 1.
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
            return Self::refuse(
                layer,
                format!("{groups} groups of {} channels, expected a divisor", shape.channels),
            );
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
            false => Self::refuse(layer, format!("dropout {dropout}, expected at least 0 and below 1")),
        }
    }

    /// x sigmoid(x) and dropout.
    ///
    /// # Errors
    /// [`NetError::Graph`] for a dropout below 0 or at least 1.
    pub fn silu(&mut self, layer: &str, x: NodeId, dropout: f64) -> Result<NodeId, NetError> {
        Self::check_dropout(layer, dropout)?;
        Ok(self.push(layer, Op::Silu { dropout }, &[x], self.shape(x)))
    }

    /// Attention with one head over pixels.
    ///
    /// # Errors
    /// [`NetError::Graph`] when the three shapes differ.
    pub fn attention(&mut self, layer: &str, q: NodeId, k: NodeId, v: NodeId) -> Result<NodeId, NetError> {
        let shape = self.shape(q);
        if self.shape(k) != shape || self.shape(v) != shape {
            return Self::refuse(layer, "q, k and v differ in shape, expected one shape".into());
        }
        Ok(self.push(layer, Op::Attention, &[q, k, v], shape))
    }

    /// a + b.
    ///
    /// # Errors
    /// [`NetError::Graph`] when the shapes differ.
    pub fn add(&mut self, layer: &str, a: NodeId, b: NodeId) -> Result<NodeId, NetError> {
        let shape = self.shape(a);
        if self.shape(b) != shape {
            return Self::refuse(
                layer,
                format!("a sum of {shape:?} and {:?}, expected one shape", self.shape(b)),
            );
        }
        Ok(self.push(layer, Op::Add, &[a, b], shape))
    }

    /// The channels of a followed by those of b.
    ///
    /// # Errors
    /// [`NetError::Graph`] when heights or widths differ.
    pub fn concat(&mut self, layer: &str, a: NodeId, b: NodeId) -> Result<NodeId, NetError> {
        let (left, right) = (self.shape(a), self.shape(b));
        if (left.height, left.width) != (right.height, right.width) {
            return Self::refuse(
                layer,
                format!("channels of {left:?} and {right:?}, expected one height and width"),
            );
        }
        let shape = Shape { channels: left.channels + right.channels, ..left };
        Ok(self.push(layer, Op::Concat, &[a, b], shape))
    }

    /// Blocks of side x side pixels as pixels.
    ///
    /// # Errors
    /// [`NetError::Graph`] unless the side divides height and width.
    pub fn fold(&mut self, layer: &str, x: NodeId, side: usize) -> Result<NodeId, NetError> {
        let Shape { height, width, channels } = self.shape(x);
        if side == 0 || !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            return Self::refuse(
                layer,
                format!("blocks of side {side} in {height}x{width} pixels, expected a divisor"),
            );
        }
        let shape = Shape::image(height / side, width / side, channels * side * side);
        Ok(self.push(layer, Op::Fold { side }, &[x], shape))
    }

    /// The inverse of [`Self::fold`].
    ///
    /// # Errors
    /// [`NetError::Graph`] unless the square of the side divides the channels.
    pub fn unfold(&mut self, layer: &str, x: NodeId, side: usize) -> Result<NodeId, NetError> {
        let Shape { height, width, channels } = self.shape(x);
        if side == 0 || !channels.is_multiple_of(side * side) {
            return Self::refuse(
                layer,
                format!(
                    "blocks of side {side} from {channels} channels, expected a multiple of {}",
                    side * side
                ),
            );
        }
        let shape = Shape::image(height * side, width * side, channels / (side * side));
        Ok(self.push(layer, Op::Unfold { side }, &[x], shape))
    }

    /// The network, whose output is the last node.
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
    /// Weight.
    pub weight: Init,
    /// Bias.
    pub bias: Init,
}

/// Settings of [`Builder::conv`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvSettings {
    /// Height and width of the window, 1 or 3.
    pub side: usize,
    /// Stride in pixels, 1 or 2.
    pub stride: usize,
    /// Whether height and width are doubled first.
    pub upsample: bool,
    /// A vector for each sample that is added to the bias.
    pub shift: Option<NodeId>,
    /// Whether files hold a window of side 1 as a dense layer, `[outputs, inputs]`.
    pub dense: bool,
    /// Initial values.
    pub init: LayerInit,
}
