//! Networks: what the paper trains, on the processor's own engine and on candle.
//!
//! A [`Graph`] says what a network computes: nodes in order, each an operation on earlier ones, and the parameters
//! that they name. Parameters are one vector, [`Weights`], in the order and layout of the graph, so that the optimiser
//! passes over memory once; files have them under their names and in PyTorch's layout.

mod arch;
mod candle;
mod engine;
mod error;
mod file;
mod graph;
mod mlp;
mod torch;
mod toy;
mod unet;
mod weights;

pub use arch::Arch;
pub use candle::{CandleNet, Pass};
pub(crate) use engine::Linear;
pub use engine::{Dropout, Engine, Part, Profile, Purpose};
pub use error::NetError;
pub use file::Model;
pub use graph::{Builder, ConvSettings, Graph, Init, LayerInit, Layout, Node, NodeId, Op, Param, ParamId};
pub use mlp::MlpSettings;
pub use torch::CheckpointPart;
pub use toy::{ToyForm, ToySettings};
pub use unet::UnetSettings;
pub use weights::Weights;
