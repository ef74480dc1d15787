use std::path::PathBuf;

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::frame::write_parquet_with;
use mem2gen::ops::Memories;
use mem2gen::progress::Progress;
use mem2gen::project::Layout;
use mem2gen::random::{SEED, Streams};
use mem2gen::sample::{Divergence, Flow, Likelihood, Prior, Rk45Settings};
use mem2gen::score::{Empirical, Probe, ScoreError};
use mem2gen::store::read_matrix;
use mem2gen::study::queries::likelihood_frame;
use ndarray::s;

use super::source::{Failure, Source};

/// Compute log-likelihoods of queries by the probability flow of a trained network
///
/// log p_t(x) is the log-density of the prior at the end of the flow from t to T plus the integral of the divergence along
/// the flow.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Queries, one per row: .npy, [m, N], float32 or float64; images in [-1, 1] in the order row, column, channel
    #[arg(long, value_name = "X.npy")]
    queries: PathBuf,
    /// Time of the density [default: the smallest time in training, 0, or 1e-5 for the toy model]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    t: Option<f64>,
    /// Density at T: the Gaussian from which samplers start, which lacks the variance of the data and so is biased for the
    /// toy model; or the true mixture of the noised training set
    #[arg(long, default_value = "gaussian")]
    prior: PriorName,
    /// Divergence: exact, with N Jacobian products in each step, or Hutchinson's estimate
    #[arg(long, default_value = "exact")]
    divergence: Way,
    /// Number of random sign vectors per query in Hutchinson's estimate, at least 2 [default: 16]
    #[arg(long)]
    probes: Option<usize>,
    /// Seed of the random signs
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Relative and absolute tolerance of the integration
    #[arg(long, value_name = "E", default_value_t = Rk45Settings::default().rtol, allow_hyphen_values = true)]
    tolerance: f64,
    /// Table of likelihoods: parquet with row (of the queries, from 0), log_density (in nats, in the units of the queries),
    /// bits_per_dimension (its negative in bits, divided by N), standard_error (of log_density over random signs; null for
    /// an exact divergence) and steps (of the integration); metadata keys `t`, `prior` and `divergence`; - for standard output
    #[arg(long, value_name = "L.parquet")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PriorName {
    Gaussian,
    Mixture,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Exact,
    Hutchinson,
}

/// Runs `mem2gen likelihood`.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.divergence == Way::Exact && args.probes.is_some() {
        let reason = "is for --divergence hutchinson, not exact".into();
        return Err(Failure::Option { option: "--probes", reason });
    }
    let probes = args.probes.unwrap_or(16);
    let opened = args.source.open()?;
    let queries = read_matrix(&args.queries).map_err(Error::from)?.into_f64();
    let tolerance = Rk45Settings { rtol: args.tolerance, atol: args.tolerance, ..Rk45Settings::default() };
    let solver = tolerance.check().map_err(|e| Failure::Option {
        option: "--tolerance",
        reason: format!("is {:e}: {e}", args.tolerance),
    })?;
    let t = args.t.unwrap_or(opened.run().params().first_time());
    let rows = match args.prior {
        PriorName::Gaussian => None,
        PriorName::Mixture => {
            Some(opened.run().data(&Layout::find()).map_err(Error::from)?.rows().mapv(f64::from))
        }
    };
    let mixture = match rows {
        Some(rows) => {
            Some(Empirical::new(Memories::new(rows).map_err(|e| Error::from(ScoreError::from(e)))?))
        }
        None => None,
    };
    let prior = mixture.as_ref().map_or(Prior::Gaussian, |mixture| Prior::Known(mixture));
    let parts = {
        let flow = Flow { score: opened.score(), process: opened.run().process().as_process(), solver };
        let progress = Progress::new("likelihoods", queries.nrows() as u64);
        let part = |from: usize| -> Result<Likelihood, Error> {
            let range = from..queries.nrows().min(from + opened.batch());
            let mut streams = Streams::new(args.seed, "likelihood", range.clone());
            let divergence = match args.divergence {
                Way::Exact => Divergence::Exact,
                Way::Hutchinson => {
                    Divergence::Hutchinson { probes, probe: Probe::Rademacher, streams: &mut streams }
                }
            };
            let x = queries.slice(s![range, ..]);
            let got = flow.log_density(x, t, prior, divergence, &progress);
            got.map_err(|e| Error::from(e.of_samples_from(from)))
        };
        // Without queries the table still has its columns, and arguments are still checked.
        let mut parts = vec![part(0)?];
        for from in (opened.batch()..queries.nrows()).step_by(opened.batch()) {
            parts.push(part(from)?);
        }
        parts
    };
    let prior = match args.prior {
        PriorName::Gaussian => "gaussian",
        PriorName::Mixture => "mixture",
    };
    let divergence = match args.divergence {
        Way::Exact => "exact".to_owned(),
        Way::Hutchinson => format!("hutchinson, {probes} signs"),
    };
    let frame = likelihood_frame(&parts, queries.ncols()).map_err(Error::from)?;
    let notes = [("t", t.to_string()), ("prior", prior.to_owned()), ("divergence", divergence)];
    let notes = notes.each_ref().map(|(key, value)| (*key, value.as_str()));
    write_parquet_with(&args.out, &frame, &notes).map_err(Error::from)?;
    put_line!("likelihood: {} queries, {} -> {}", queries.nrows(), opened.describe(), args.out.display());
    Ok(())
}
