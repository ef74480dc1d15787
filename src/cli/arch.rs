//! `mem2gen arch`: the layers of a network and its exact number of parameters.

use mem2gen::data::{DataError, find};
use mem2gen::net::{Arch, Graph, MlpSettings, NetError, Node, Op, ToySettings, UnetSettings};
use mem2gen::shape::Shape;
use serde_json::{Value, json};

use super::doctor::print_table;

/// Print the layers of a network, with the exact number of parameters and the cost
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Network: the U-Net, the residual MLP, or the toy network after the paper's text or after the public code
    #[arg(long)]
    arch: Name,
    /// Data set of the images, for unet and mlp: mnist, fashion-mnist, cifar10 or lsun-church
    #[arg(long, default_value = "mnist", value_name = "NAME")]
    dataset: String,
    /// Channels of the U-Net's first level, or width of other networks [default: 128 for unet, else the network's own]
    #[arg(long)]
    channels: Option<usize>,
    /// Height and width of images; if not those of the data set, the U-Net has as many levels as fit [default: the data
    /// set's]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Channels of images [default: the data set's]
    #[arg(long)]
    in_channels: Option<usize>,
    /// JSON output instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    Unet,
    Mlp,
    Toy,
    ToyCode,
}

/// Why `mem2gen arch` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An unknown data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Settings without a network.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Runs `mem2gen arch`.
pub fn run(args: Args) -> Result<(), Error> {
    let own = find(&args.dataset)?.shape;
    let mut input = Shape::image(own.height, own.width, args.in_channels.unwrap_or(own.channels));
    if let Some(size) = args.size {
        (input.height, input.width) = (size, size);
    }
    let arch = match args.arch {
        Name::Unet => {
            let channels = args.channels.unwrap_or(128);
            let whole = (own.height, own.width) == (input.height, input.width);
            Arch::Unet(match whole {
                true => UnetSettings::paper(&args.dataset, channels)?,
                false => UnetSettings::desk(input, channels),
            })
        }
        Name::Mlp => {
            let default = MlpSettings::default();
            Arch::Mlp(MlpSettings { width: args.channels.unwrap_or(default.width), ..default })
        }
        Name::Toy | Name::ToyCode => {
            input = Shape::vector(2);
            let default = if args.arch == Name::Toy { ToySettings::paper() } else { ToySettings::code() };
            Arch::Toy(ToySettings { width: args.channels.unwrap_or(default.width), ..default })
        }
    };
    let graph = arch.graph(input)?;
    let layers: Vec<Layer> = graph.nodes().iter().map(|node| Layer::new(&graph, node)).collect();
    let kept = graph.len() - graph.trained();
    if args.json {
        let all = json!({
            "arch": arch,
            "input": input,
            "parameters": graph.trained(),
            "not_trained": kept,
            "mflop": graph.flops() / 1e6,
            "layers": layers.iter().map(Layer::json).collect::<Vec<_>>(),
        });
        put_line!("{all}");
        return Ok(());
    }
    let mut rows = vec![["layer", "operation", "output", "parameters", "MFLOP"].map(str::to_owned)];
    rows.extend(layers.into_iter().map(Layer::row));
    print_table(&rows);
    let kept = if kept > 0 { format!(" and {kept} that are not trained") } else { String::new() };
    put_line!(
        "\n{} for {}: {} parameters{kept}, {:.1} MFLOP a sample, forward",
        arch.name(),
        size(input),
        graph.trained(),
        graph.flops() / 1e6
    );
    Ok(())
}

/// A line of the table.
struct Layer {
    name: String,
    operation: String,
    output: Shape,
    parameters: usize,
    mflop: f64,
}

impl Layer {
    fn new(graph: &Graph, node: &Node) -> Self {
        let params = match node.op {
            Op::Conv { weight, bias, .. } => vec![weight, bias],
            Op::Norm { scale, shift, .. } => vec![scale, shift],
            Op::Fourier { frequencies } => vec![frequencies],
            _ => vec![],
        };
        Self {
            name: node.layer.clone(),
            operation: operation(node),
            output: node.shape,
            parameters: params.into_iter().map(|id| graph.param(id).layout.len()).sum(),
            mflop: graph.node_flops(node) / 1e6,
        }
    }

    fn row(self) -> [String; 5] {
        let count = |n: usize| if n > 0 { n.to_string() } else { String::new() };
        let mflop = if self.mflop > 0.0 { format!("{:.3}", self.mflop) } else { String::new() };
        [self.name, self.operation, size(self.output), count(self.parameters), mflop]
    }

    fn json(&self) -> Value {
        json!({
            "layer": self.name,
            "operation": self.operation,
            "output": [self.output.height, self.output.width, self.output.channels],
            "parameters": self.parameters,
            "mflop": self.mflop,
        })
    }
}

fn size(shape: Shape) -> String {
    match (shape.height, shape.width) {
        (1, 1) => shape.channels.to_string(),
        (height, width) => format!("{height}x{width}x{}", shape.channels),
    }
}

fn operation(node: &Node) -> String {
    let after = |silu: bool, dropout: f64| {
        let silu = if silu { ", silu" } else { "" };
        let dropout = if dropout > 0.0 { format!(", dropout {dropout}") } else { String::new() };
        format!("{silu}{dropout}")
    };
    match node.op {
        Op::Input => "input".into(),
        Op::Condition => "condition".into(),
        Op::Sinusoid { .. } => "sines of time".into(),
        Op::Fourier { .. } => "random Fourier features of time".into(),
        Op::Conv { side: 1, .. } if node.shape.pixels() == 1 => format!("linear{}", shifted(node)),
        Op::Conv { side, stride, upsample, .. } => {
            let before = if upsample { "upsample, " } else { "" };
            let stride = if stride > 1 { format!(", stride {stride}") } else { String::new() };
            format!("{before}conv {side}x{side}{stride}{}", shifted(node))
        }
        Op::Norm { groups, silu, dropout, .. } => {
            format!("norm of {groups} group{}{}", if groups > 1 { "s" } else { "" }, after(silu, dropout))
        }
        Op::Silu { dropout } => format!("silu{}", after(false, dropout)),
        Op::Attention => "attention".into(),
        Op::Add => "add".into(),
        Op::Concat => "concat".into(),
        Op::Fold { side } => format!("blocks of {side}x{side} to channels"),
        Op::Unfold { side } => format!("channels to blocks of {side}x{side}"),
    }
}

fn shifted(node: &Node) -> &'static str {
    if node.inputs.len() > 1 { ", shift by time" } else { "" }
}
