use std::path::PathBuf;

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::process::{Spacing, Steps};
use mem2gen::progress::Progress;
use mem2gen::random::SEED;
use mem2gen::sample::{self, Draw, Rk45Settings, Sampler};
use mem2gen::study::subject::TrainedScore;
use mem2gen::train::TrainedProcess;
use serde_json::{Value, json};

use super::source::{Failure, Source};

/// Samples of a trained network, or of the exact score of its training set
///
/// Sample i is the same whatever is drawn with it. Finished parts are kept beside the result until it is
/// there, in a folder called OUT.partial, so that a call that was stopped goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// How many
    #[arg(short, value_name = "n")]
    n: usize,
    /// The sampler: the noisy one of DDPM; DDIM without noise; the probability-flow equation by an adaptive
    /// method; or Euler and Maruyama on the reverse equation
    #[arg(long, default_value = "ancestral")]
    sampler: Which,
    /// Steps [default: 1000; 100 for ddim; the ode has its own]
    #[arg(long)]
    steps: Option<usize>,
    /// How the steps of ancestral and ddim lie among the levels of DDPM: as the diffusers package has them,
    /// or evenly from the last one on [default: leading]
    #[arg(long)]
    spacing: Option<Way>,
    /// Relative and absolute tolerance of the ode [default: 1e-5]
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    tolerance: Option<f64>,
    /// Last time of the ode [default: the first that was trained at: 0, or 1e-5 for the toy model]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    until: Option<f64>,
    /// Let values go beyond [-1, 1]; for toy points they always may. Else the predicted clean image is
    /// clipped in each step, and what comes out of ode and em at the end
    #[arg(long)]
    no_clip: bool,
    /// Seed of starting points and noise
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Samples: .npy, [n, N], float32; images are rows of [-1, 1] in the order row, column, channel
    #[arg(long, value_name = "S.npy")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Ancestral,
    Ddim,
    Ode,
    Em,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Leading,
    Linspace,
}

/// Runs `mem2gen sample`.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.n == 0 {
        return Err(Failure::Option { option: "-n", reason: "is 0, expected at least 1".into() });
    }
    let opened = args.source.open()?;
    let (sampler, settings) = args.sampler(&opened)?;
    let clip = (opened.is_of_images() && !args.no_clip).then_some(1.0);
    let settings = json!({
        "version": sample::VERSION,
        "source": opened.identity(),
        "sampler": settings,
        "clip": clip,
        "seed": args.seed,
    });
    let (score, process) = (opened.score(), opened.run().process().as_process());
    let draw = Draw { score, process, sampler, clip, seed: args.seed };
    let total = Draw::parts(args.n, opened.batch()).map(|part| draw.work(part.len())).sum();
    let progress = Progress::new("sampling", total);
    let found = draw.write(&args.out, args.n, opened.batch(), &settings, &progress).map_err(Error::from)?;
    drop(progress);
    if found.dropped {
        println!("sample: unfinished samples with other settings were there and are no more");
    }
    let kept = match found.kept {
        0 => String::new(),
        kept => format!(", {kept} of them from before"),
    };
    println!("sample: {} samples{kept}, {} -> {}", args.n, opened.describe(), args.out.display());
    Ok(())
}

impl Args {
    /// The sampler, and what its samples depend on.
    fn sampler(&self, opened: &TrainedScore) -> Result<(Sampler, Value), Failure> {
        let refused = |option, reason: &str| Err(Failure::Option { option, reason: reason.into() });
        let process = opened.run().process();
        if self.sampler == Which::Ode {
            if self.steps.is_some() {
                return refused("--steps", "the ode chooses its own; there is --tolerance");
            }
        } else if self.tolerance.is_some() {
            return refused("--tolerance", "only the ode has one");
        } else if self.until.is_some() {
            return refused("--until", "only the ode has one");
        }
        let levels = matches!(self.sampler, Which::Ancestral | Which::Ddim);
        if self.spacing.is_some() && !(levels && matches!(process, TrainedProcess::Vp(_))) {
            return refused("--spacing", "only ancestral and ddim have one, under the process vp");
        }
        let count = self.steps.unwrap_or(if self.sampler == Which::Ddim { 100 } else { 1000 });
        let even = || {
            let process = process.as_process();
            Steps::even(process, process.horizon(), process.clean(), count).map_err(Error::from)
        };
        let steps = match (process, self.spacing.unwrap_or(Way::Leading)) {
            _ if self.sampler == Which::Ode => None,
            (TrainedProcess::Vp(vp), way) if levels => {
                let spacing = match way {
                    Way::Leading => Spacing::Leading,
                    Way::Linspace => Spacing::Linspace,
                };
                Some(vp.steps(count, spacing).map_err(Error::from)?)
            }
            _ => Some(even()?),
        };
        let times: Option<Vec<f64>> = steps.as_ref().map(|s| s.levels().iter().map(|l| l.t()).collect());
        Ok(match (self.sampler, steps) {
            (Which::Ancestral, Some(steps)) => (Sampler::Ancestral(steps), json!({ "ancestral": times })),
            (Which::Ddim, Some(steps)) => (Sampler::Ddim(steps), json!({ "ddim": times })),
            (Which::Em, Some(steps)) => (Sampler::EulerMaruyama(steps), json!({ "em": times })),
            (Which::Ode, _) | (_, None) => {
                let tolerance = self.tolerance.unwrap_or(Rk45Settings::default().rtol);
                let settings = Rk45Settings { rtol: tolerance, atol: tolerance, ..Rk45Settings::default() };
                let end = self.until.unwrap_or(opened.run().params().first_time());
                let solver = settings.check().map_err(Error::from)?;
                (Sampler::Flow { solver, end }, json!({ "ode": settings, "until": end }))
            }
        })
    }
}
