use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::frame::write_parquet_with;
use mem2gen::process::Process as _;
use mem2gen::progress::Printed;
use mem2gen::store::write_array;
use mem2gen::study::attractors::frame::{attractor_frame, flow_frame};
use mem2gen::study::attractors::{Attractor, CensusSettings, FlowRow, VERSION, measure, starts};
use mem2gen::study::context::Cells;
use ndarray::{ArrayView2, Axis, concatenate};
use serde_json::json;

use super::chosen::Chosen;
use super::source::{Failure, say_left};

/// Find the attractors of a trained network: stable fixed points of its retrieval map x <- sqrt(alpha_bar) x0hat(x, t)
///
/// The map is iterated from noise, from samples of each class if --run is a cell of a sweep, from training images and from
/// held-out images, until it stands still. A fixed point is an attractor if the spectral radius of the map's Jacobian is
/// below 1; it is memorized within --delta of a training image and spurious elsewhere. With --score exact the score is
/// that of the training set. The Jacobian takes N passes for each fixed point of N values.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    settings: CensusSettings,
    /// Attractors: parquet with t, id, class, nearest (row of the training set), distance (l2), contraction (spectral radius
    /// of the Jacobian), residual (length of a step of the map), error (length of Newton's step) and noise, memorized,
    /// spurious, generalized, training and held_out (starts of each kind that end there)
    #[arg(long, value_name = "A.parquet")]
    out: PathBuf,
    /// Positions of the attractors, in the order of --out
    #[arg(long, value_name = "X.npy")]
    positions: Option<PathBuf>,
    /// Where each kind of starts flows: parquet with k, t, exact, start, starts, memorized, spurious (shares, with 95 percent
    /// intervals), stays (share that ends within delta of where it began) and moved (median distance, with quartiles)
    #[arg(long, value_name = "F.parquet")]
    flows: Option<PathBuf>,
}

/// Runs `mem2gen attractors`.
pub fn run(args: Args) -> Result<(), Failure> {
    let subject = args.chosen.open()?;
    let params = args.settings.check(subject.delta_m()).map_err(Error::from)?;
    for &t in &params.settings().t {
        subject.vp().level(t).map_err(Error::from)?;
    }
    let starts = starts(&subject, args.chosen.choice(), &params)?;
    let identity = json!({
        "version": VERSION,
        "source": subject.trained().identity(),
        "settings": params.settings(),
        "delta": params.delta(),
        "starts_sha256": starts.sha256(),
    });
    let cells = Cells::beside(&args.out, &identity).map_err(Error::from)?;
    let all = measure(&subject, &starts, &params, false, Some(&cells), &Printed)?;
    let (exact, k) = (args.chosen.is_exact(), subject.k()?);
    let identity = identity.to_string();
    let notes = [("settings", identity.as_str())];
    if let Some(path) = &args.flows {
        let rows: Vec<FlowRow> =
            all.iter().flat_map(|found| found.flows(k, exact, &starts, &params)).collect();
        write_parquet_with(path, &flow_frame(&rows).map_err(Error::from)?, &notes).map_err(Error::from)?;
    }
    if let Some(path) = &args.positions {
        let views: Vec<ArrayView2<'_, f64>> = all.iter().map(|found| found.positions.view()).collect();
        let positions = concatenate(Axis(0), &views).expect("positions have the length of an image");
        write_array(path, &positions).map_err(Error::from)?;
    }
    let rows: Vec<Attractor> = all.iter().flat_map(|found| found.attractors.clone()).collect();
    write_parquet_with(&args.out, &attractor_frame(&rows).map_err(Error::from)?, &notes)
        .map_err(Error::from)?;
    say_left(cells.clear_beside(&args.out).map_err(Error::from)?.as_deref());
    for found in &all {
        let row = found.row(k, exact, &starts);
        put_line!(
            "t = {}: {} attractors, {} memorized (within {} of a training image) and {} spurious; from {} draws of noise {} \
             and {} are reached, {:.0} in all by Chao's estimate",
            row.t,
            row.memorized + row.spurious,
            row.memorized,
            params.delta(),
            row.spurious,
            row.starts,
            row.reached_memorized,
            row.reached_spurious,
            row.estimate
        );
    }
    put_line!("attractors: {} -> {}", subject.trained().describe(), args.out.display());
    Ok(())
}
