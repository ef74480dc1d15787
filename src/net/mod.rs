//! Networks: what the paper trains, on the processor's own engine and on candle.
//!
//! A [`Graph`] says what a network computes: nodes in order, each an operation on earlier ones, and the parameters
//! that they name. Parameters are one vector, [`Weights`], in the order and layout of the graph, so that the optimiser
//! passes over memory once; files have them under their names and in PyTorch's layout.

mod arch;
pub(crate) mod engine;
mod error;
mod graph;
mod mlp;
mod toy;
mod unet;
mod weights;

pub use arch::Arch;
pub use error::NetError;
pub use graph::{
    Builder, ConvSettings, Graph, Init, LayerInit, Layout, Node, NodeId, Op, Param, ParamId, Shape,
};
pub use mlp::MlpSettings;
pub use toy::{ToyForm, ToySettings};
pub use unet::UnetSettings;
pub use weights::Weights;
