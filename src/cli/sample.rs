use std::path::PathBuf;

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::plot::{ImageOutput, sheet, write_pictures};
use mem2gen::process::{Spacing, Steps};
use mem2gen::progress::Progress;
use mem2gen::random::SEED;
use mem2gen::sample::{Draw, DrawnSamples, Rk45Settings, Sampler};
use mem2gen::shape::Shape;
use mem2gen::store::{write_atomic, write_rows};
use mem2gen::study::subject::TrainedScore;
use mem2gen::train::TrainedProcess;
use serde_json::{Value, json};

use super::source::{Failure, Source};

/// Draw samples from a trained network, or from the exact score of its training set
///
/// Sample i does not depend on the number of samples or the batch size. Finished batches are kept in the folder OUT.partial
/// until the result is complete, so that an interrupted call resumes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Number of samples
    #[arg(short, value_name = "n", default_value_t = 1)]
    n: usize,
    /// Sampler: ancestral sampling of DDPM; DDIM without noise; the probability-flow equation with an adaptive integrator
    /// (ode); or Euler-Maruyama on the reverse equation (em)
    #[arg(long, default_value = "ancestral")]
    sampler: Which,
    /// Number of steps [default: 1000, or 100 for ddim; not for ode]
    #[arg(long)]
    steps: Option<usize>,
    /// Spacing of the steps of ancestral and ddim: that of the diffusers package (leading), or even with the last level
    /// included (linspace) [default: leading]
    #[arg(long)]
    spacing: Option<Way>,
    /// Relative and absolute tolerance of the ode [default: 1e-5]
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    tolerance: Option<f64>,
    /// Last time of the ode [default: the smallest time in training, 0, or 1e-5 for the toy model]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    until: Option<f64>,
    /// No clipping to [-1, 1], as for toy points. Otherwise ancestral and ddim clip the predicted clean image in each
    /// step, and ode and em clip the samples
    #[arg(long)]
    no_clip: bool,
    /// Seed of starting points and noise
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// File of the samples: .npy, [n, N], float32, with images in [-1, 1] in the order row, column, channel; .png, one
    /// sheet of at most 400 images; or a folder, with a slash at the end or existing and empty, for one PNG each
    #[arg(long, value_name = "S.npy|S.png|DIR/")]
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
    let output = ImageOutput::of(&args.out).map_err(Error::from)?;
    let opened = args.source.open()?;
    let shape = opened.run().shape();
    output.check(shape, args.n).map_err(Error::from)?;
    let (sampler, settings) = args.sampler(&opened)?;
    let clip = (opened.is_of_images() && !args.no_clip).then_some(1.0);
    let settings = opened.identity_of_samples(&settings, clip, args.seed);
    let (score, process) = (opened.score(), opened.run().process().as_process());
    let draw = Draw { score, process, sampler, clip, seed: args.seed };
    let total = draw.total(args.n, opened.batch());
    let progress = Progress::new("sampling", total);
    let drawn =
        draw.draw(output.path(), args.n, opened.batch(), &settings, &progress).map_err(Error::from)?;
    drop(progress);
    write(&output, (args.n, shape), &drawn)?;
    let resumed = drawn.finish();
    if resumed.dropped {
        put_line!("sample: unfinished samples with other settings were removed");
    }
    let kept = match resumed.kept {
        0 => String::new(),
        kept => format!(", {kept} of them resumed"),
    };
    let rounded = if matches!(output, ImageOutput::Array(_)) { "" } else { ", values rounded to bytes" };
    let plural = if args.n == 1 { "" } else { "s" };
    let (n, told) = (args.n, opened.describe());
    put_line!("sample: {n} sample{plural}{kept}, {told}{rounded} -> {}", args.out.display());
    Ok(())
}

/// Writes the samples in the form of the output.
fn write(output: &ImageOutput, (n, shape): (usize, Shape), drawn: &DrawnSamples) -> Result<(), Error> {
    match output {
        ImageOutput::Array(path) => Ok(write_rows(path, (n, shape.len()), drawn.parts())?),
        ImageOutput::Folder(path) => Ok(write_pictures(path, shape, drawn.parts())?),
        ImageOutput::Sheet(path) => {
            let figure = sheet(&format!("{n} samples"), drawn.rows()?.view(), shape)?;
            Ok(write_atomic(path, |w| w.write_all(figure.png()))?)
        }
    }
}

impl Args {
    /// The sampler, and what its samples depend on.
    fn sampler(&self, opened: &TrainedScore) -> Result<(Sampler, Value), Failure> {
        let refused = |option, reason: &str| Err(Failure::Option { option, reason: reason.into() });
        let process = opened.run().process();
        if self.sampler == Which::Ode {
            if self.steps.is_some() {
                return refused("--steps", "the ode chooses its steps; use --tolerance");
            }
        } else if self.tolerance.is_some() {
            return refused("--tolerance", "is for --sampler ode alone");
        } else if self.until.is_some() {
            return refused("--until", "is for --sampler ode alone");
        }
        let levels = matches!(self.sampler, Which::Ancestral | Which::Ddim);
        if self.spacing.is_some() && !(levels && matches!(process, TrainedProcess::Vp(_))) {
            return refused("--spacing", "is for --sampler ancestral and ddim under the process vp alone");
        }
        let count = self.steps.unwrap_or(if self.sampler == Which::Ddim { 100 } else { 1000 });
        let spacing = match self.spacing.unwrap_or(Way::Leading) {
            Way::Leading => Spacing::Leading,
            Way::Linspace => Spacing::Linspace,
        };
        let steps = match self.sampler {
            Which::Ode => None,
            Which::Ancestral | Which::Ddim => Some(process.steps(count, spacing).map_err(Error::from)?),
            Which::Em => {
                let process = process.as_process();
                let (from, to) = (process.horizon(), process.clean());
                Some(Steps::even(process, from, to, count).map_err(Error::from)?)
            }
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
