use std::sync::Arc;
use std::time::Instant;

use mem2gen::Error;
use mem2gen::data::DataError;
use mem2gen::net::{Arch, Graph, MlpSettings, Part, Timings, UnetSettings, Weights};
use mem2gen::process::{Prediction, Spacing, VpSettings};
use mem2gen::progress::Silent;
use mem2gen::random::{SEED, Streams};
use mem2gen::sample::{ddim, start};
use mem2gen::score::Network;
use mem2gen::shape::Shape;
use mem2gen::train::{
    AdamSettings, DataSettings, EmaSettings, ProcessSettings, TrainSettings, TrainingData, pace,
};
use serde_json::{Map, Value, json};

/// Time training steps or sampling steps of a network on random data
///
/// A training step includes the batch, times and noise, forward pass, loss, backward pass, clipping, Adam and the moving
/// average of the weights. A sampling step is one step of DDIM. `gflop` counts the operations of convolutions, dense layers
/// and attention in one step; `profile` gives the network's seconds by part.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The network and its batch
    network: Name,
    /// The kind of step
    #[arg(long, default_value = "step")]
    phase: Phase,
    /// Number of timed steps
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// The desk U-Net: 14x14, 32 channels; 128 images a training step, 256 a sampling step
    UnetDesk,
    /// The residual MLP: 7x7; 64 images a training step, 1024 a sampling step
    MlpDesk,
    /// The paper's U-Net for MNIST: 28x28, 128 channels; 16 images
    UnetPaper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Phase {
    /// A training step
    Step,
    /// A step of DDIM
    Sample,
}

/// Images in the training set; the time of a step does not depend on them.
const IMAGES: usize = 512;

impl Name {
    fn network(self) -> Result<(Arch, Shape), DataError> {
        Ok(match self {
            Self::UnetDesk => {
                let shape = Shape::image(14, 14, 1);
                (Arch::Unet(UnetSettings::desk(shape, 32)), shape)
            }
            Self::MlpDesk => (Arch::Mlp(MlpSettings::default()), Shape::image(7, 7, 1)),
            Self::UnetPaper => (Arch::Unet(UnetSettings::paper("mnist", 128)?), Shape::image(28, 28, 1)),
        })
    }

    fn batch(self, phase: Phase) -> usize {
        match (self, phase) {
            (Self::UnetDesk, Phase::Step) => 128,
            (Self::UnetDesk, Phase::Sample) => 256,
            (Self::MlpDesk, Phase::Step) => 64,
            (Self::MlpDesk, Phase::Sample) => 1024,
            (Self::UnetPaper, _) => 16,
        }
    }
}

/// Runs `timings network`.
pub fn run(args: Args) -> Result<(), Error> {
    let (arch, shape) = args.network.network()?;
    let batch = args.network.batch(args.phase);
    let graph = arch.graph(shape)?;
    let (mut seconds, profile, passes) = match args.phase {
        Phase::Step => {
            let (seconds, profile) = steps(&args, arch.clone(), shape, batch)?;
            // Backward computes the gradient of both factors of every product.
            (seconds, profile, 3.0)
        }
        Phase::Sample => {
            let (seconds, profile) = samples(&args, &graph, batch)?;
            (seconds, profile, 1.0)
        }
    };
    seconds.sort_by(f64::total_cmp);
    let parts: Map<String, Value> =
        Part::ALL.into_iter().map(|part| (part.name().into(), json!(profile.seconds(part)))).collect();
    let all = json!({
        "arch": arch,
        "input": [shape.height, shape.width, shape.channels],
        "batch": batch,
        "parameters": graph.trained(),
        "gflop": passes * graph.flops() * batch as f64 / 1e9,
        "median_seconds": seconds[seconds.len() / 2],
        "least_seconds": seconds[0],
        "threads": rayon::current_num_threads(),
        "profile": parts,
    });
    println!("{all}");
    Ok(())
}

fn steps(args: &Args, arch: Arch, shape: Shape, batch: usize) -> Result<(Vec<f64>, Timings), Error> {
    let mut streams = Streams::new(SEED, "bench: images", 0..IMAGES);
    let rows = streams.normal(shape.len()).mapv(|v| v.clamp(-1.0, 1.0) as f32);
    let settings = TrainSettings {
        data: DataSettings::Images { dataset: "mnist".into(), size: shape.height, k: IMAGES },
        arch,
        process: ProcessSettings::Vp(VpSettings::default()),
        prediction: Prediction::Epsilon,
        steps: 1 << 20,
        batch,
        repeat: false,
        caption_drop: 0.0,
        adam: AdamSettings::default(),
        ema: EmaSettings::default(),
        seed: SEED,
        checkpoint_every: 1 << 20,
        log_every: 1 << 20,
    };
    let params = settings.check(shape)?;
    Ok(pace(&params, &TrainingData::new(rows, shape)?, args.repeat.into())?)
}

fn samples(args: &Args, graph: &Arc<Graph>, batch: usize) -> Result<(Vec<f64>, Timings), Error> {
    let network = Network::new(Weights::init(graph.clone(), SEED), Prediction::Epsilon, batch)?;
    let vp = VpSettings::default().check()?;
    let mut streams = Streams::new(SEED, "bench: samples", 0..batch);
    let mut x = start(&vp, graph.input().len(), &mut streams);
    let mut seconds = Vec::new();
    // A warm-up trajectory of two steps precedes the timed trajectories of one step each.
    x = ddim(&network, &vp.steps(2, Spacing::Linspace)?, x, Some(1.0), &Silent)?;
    for _ in 0..args.repeat {
        let clock = Instant::now();
        x = ddim(&network, &vp.steps(1, Spacing::Linspace)?, x, Some(1.0), &Silent)?;
        seconds.push(clock.elapsed().as_secs_f64());
    }
    Ok((seconds, network.timings()))
}
