use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::frame::{
    Table, column_f64, column_i64, column_text, floats, integers, strings, write_parquet_with,
};
use mem2gen::progress::Progress;
use mem2gen::random::SEED;
use mem2gen::store::sha256_hex;
use mem2gen::study::energy::frame::{curves_frame, gaps_frame, loops_frame, potential_frame};
use mem2gen::study::energy::{self, Images, Potential, PotentialSettings, SIGN, analyse, gaps};
use ndarray::Array2;
use serde_json::json;

use super::chosen::{Chosen, forget_pieces, pieces};
use super::source::{Failure, training_set};

/// Rows that a score is asked for at a time; what is computed together is --batch.
const ROWS: usize = 4096;

/// Relative energy of samples and training images, by integrals along circular arcs to training images
///
/// u = U(reference) - U(target) for a score that is a gradient: the larger u, the lower the energy of the
/// target. Training images are always measured too, as the gap of a class is the mean of u over it minus
/// that over training images. Closed circuits say how far the score is from a gradient. Finished parts
/// are kept beside the result until it is there, in a folder called OUT.partial, so that a call that was
/// stopped goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Classes of samples; none for a plain training run, which has training images alone
    #[arg(
        long,
        value_name = "CLASS,...",
        value_delimiter = ',',
        default_value = "memorized,spurious,generalized"
    )]
    classes: Vec<Group>,
    /// Training images that are references, drawn with the seed, or all where there are fewer; the paper
    /// takes one at a time
    #[arg(long, default_value_t = 1)]
    references: usize,
    /// The first so many training images are measured
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().training)]
    training: usize,
    /// Level of the process, an index of DDPM
    #[arg(long, value_name = "T", default_value_t = 0)]
    t: usize,
    /// Points of an arc, both ends among them
    #[arg(long, default_value_t = PotentialSettings::default().points)]
    points: usize,
    /// Halve intervals until the estimated error of each arc is at most this, in the units of u
    #[arg(long, value_name = "E", allow_hyphen_values = true)]
    tolerance: Option<f64>,
    /// The numbers of the paper's code: a noise variance of 1 - prod beta in the place of
    /// 1 - prod (1 - beta), and a sum of all points with the step of one interval less
    #[arg(long)]
    legacy: bool,
    /// Closed circuits for each class and reference
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().loops)]
    loops: usize,
    /// Points of each arc of a circuit, an odd number; a tolerance adds to them
    #[arg(long, value_name = "POINTS", default_value_t = PotentialSettings::default().loop_points)]
    loop_points: usize,
    /// Classes with fewer images are marked
    #[arg(long, value_name = "n", default_value_t = PotentialSettings::default().least)]
    least: usize,
    /// Seed of the references and of the bootstrap
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Gaps: parquet with a row a class and reference, and one for all references together
    #[arg(long, value_name = "GAPS.parquet")]
    gaps: Option<PathBuf>,
    /// Mean and standard deviation of u along the arcs: parquet with a row a class, reference and point
    #[arg(long, value_name = "CURVES.parquet")]
    curves: Option<PathBuf>,
    /// Circuits: parquet with a row each
    #[arg(long, value_name = "CIRCUITS.parquet")]
    circuits: Option<PathBuf>,
    /// Relative energies: parquet with class, sample (row of the samples, or place in the training set),
    /// reference (place in the training set), u, error (estimated, of the integral; missing without a
    /// tolerance) and sign (what u means, in words); the key `settings` of its metadata says how
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
}

/// Runs `mem2gen potential`.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut settings = PotentialSettings {
        t: args.t,
        points: args.points,
        legacy: args.legacy,
        tolerance: args.tolerance,
        references: args.references,
        training: args.training,
        loops: args.loops,
        loop_points: args.loop_points,
        least: args.least,
        seed: args.seed,
        ..PotentialSettings::default()
    };
    settings.clone().check().map_err(Error::from)?;
    let found = args.chosen.open()?;
    let mut classes: Vec<(Group, Vec<usize>, Array2<f64>)> = Vec::new();
    if found.cell.is_some() {
        for group in Group::SAMPLES.into_iter().filter(|g| args.classes.contains(g)) {
            let images = found.images(group)?;
            classes.push((group, images.ids, images.rows.mapv(f64::from)));
        }
    }
    let training = training_set(&found.opened.run)?;
    // The images are chosen already.
    settings.max = classes.iter().map(|(_, ids, _)| ids.len()).max().unwrap_or(0).max(1);
    let params = settings.clone().check().map_err(Error::from)?;

    let given: Vec<Images<'_>> = classes
        .iter()
        .map(|(class, ids, rows)| Images { class: *class, samples: ids, rows: rows.view() })
        .collect();
    let chosen: Vec<_> = classes
        .iter()
        .map(|(class, ids, rows)| {
            let bytes: Vec<u8> = rows.iter().flat_map(|v| v.to_le_bytes()).collect();
            json!({ "class": class, "samples": ids, "sha256": sha256_hex(&bytes) })
        })
        .collect();
    let identity = json!({
        "version": energy::VERSION,
        "settings": settings,
        "source": found.opened.identity(),
        "training_set_sha256": found.opened.run.data_sha256(),
        "images": chosen,
    });
    let cells = pieces(&args.out, &identity);
    let sizes: Vec<usize> = classes.iter().map(|(_, ids, _)| ids.len()).collect();
    let (relative, share) = found.opened.timed(|score| {
        let progress = Progress::new("arcs", params.work(training.nrows(), &sizes));
        let potential = Potential::new(score, &found.vp, &params, ROWS)?;
        Ok(analyse(&potential, training.view(), &given, Some(&cells), &progress)?)
    })?;

    let rows = gaps(&relative, &params);
    let text = json!({ "settings": settings, "source": found.opened.identity() }).to_string();
    let notes = [("sign", SIGN), ("settings", text.as_str())];
    let summary = gaps_frame(&rows).map_err(Error::from)?;
    let mut frames = Vec::new();
    if let Some(path) = &args.gaps {
        frames.push((path, summary.clone()));
    }
    if let Some(path) = &args.curves {
        frames.push((path, curves_frame(&relative.curves).map_err(Error::from)?));
    }
    if let Some(path) = &args.circuits {
        frames.push((path, loops_frame(&relative.loops).map_err(Error::from)?));
    }
    // The last one, as pieces go once it is there.
    frames.push((&args.out, potential_frame(&relative.images).map_err(Error::from)?));
    for (path, frame) in frames {
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    forget_pieces(&args.out)?;

    let all: Vec<_> = rows.iter().filter(|r| r.reference.is_none()).copied().collect();
    print!("{}", shown(&gaps_frame(&all).map_err(Error::from)?)?.to_text());
    let (count, source) = (relative.images.len(), found.opened.describe());
    println!(
        "potential: {count} arcs, {source}, {share:.0} percent of the time in the score -> {}",
        args.out.display()
    );
    Ok(())
}

/// The gaps over all references, on the terminal.
fn shown(frame: &polars::prelude::DataFrame) -> Result<Table, Failure> {
    let real = |name: &str| column_f64(frame, name).map_err(Error::from);
    let columns = vec![
        strings("class", column_text(frame, "class").map_err(Error::from)?),
        integers("n", column_i64(frame, "n").map_err(Error::from)?),
        floats("mean u", real("mean")?),
        floats("std", real("std")?),
        floats("gap", real("gap")?),
        floats("low", real("low")?),
        floats("high", real("high")?),
        floats("circulation", real("circulation")?),
        floats("its error", real("circulation_error")?),
    ];
    Ok(Table::new(SIGN, columns).map_err(Error::from)?)
}
