//! Networks: the paper's architectures, computed by this crate's CPU engine or by candle.
//!
//! A [`Graph`] describes the computation: nodes in order of evaluation, each an operation on earlier nodes, and the
//! parameters that they use. All parameters form one vector, [`Weights`], in the order and layout of the graph, so that
//! the optimiser passes over memory once. Files hold them by name and in PyTorch's layout. [`Engine`] evaluates a graph
//! on the CPU, [`CandleNet`] on the devices of candle. [`Checkpoint`] reads the authors' PyTorch files. [`diffusers`] has the
//! networks of Stable Diffusion.

mod arch;
mod candle;
pub mod diffusers;
mod engine;
mod error;
mod file;
mod graph;
mod mlp;
pub mod text;
mod torch;
mod toy;
mod unet;
mod weights;

pub use arch::Arch;
pub(crate) use candle::cuda;
pub use candle::{CandleNet, Pass};
pub(crate) use engine::Linear;
pub use engine::{Dropout, Engine, Given, Part, Purpose, Timings};
pub use error::NetError;
pub use file::Model;
pub use graph::{Builder, ConvSettings, Graph, Init, LayerInit, Layout, Node, NodeId, Op, Param, ParamId};
pub use mlp::MlpSettings;
pub use torch::{Checkpoint, CheckpointPart};
pub use toy::{ToyForm, ToySettings};
pub use unet::UnetSettings;
pub use weights::Weights;
