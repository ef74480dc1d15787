use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::frame::{
    Table, column_f64, column_i64, column_text, floats, integers, strings, write_parquet_with,
};
use mem2gen::progress::Printed;
use mem2gen::study::context::Cells;
use mem2gen::study::energy::frame::{curves_frame, gaps_frame, loops_frame, potential_frame};
use mem2gen::study::energy::{PotentialSettings, SIGN, VERSION, gaps, measure};
use mem2gen::study::subject::Images;
use serde_json::json;

use super::chosen::Chosen;
use super::source::{Failure, say_left};

/// Measure relative energies of samples and training images along arcs to training images (Eqs. 43 to 48)
///
/// u = U(reference) - U(target) if the score is a gradient: the larger u, the lower the energy of the target. Training
/// images are always measured, because the gap of a class is the mean of u over its images minus the mean over training
/// images. Closed circuits measure how far the score is from a gradient. Finished pieces are kept in the folder
/// OUT.partial until the result is written, so a stopped call resumes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Classes of samples; a training run outside a sweep has training images only
    #[arg(
        long,
        value_name = "CLASS,...",
        value_delimiter = ',',
        default_value = "memorized,spurious,generalized"
    )]
    classes: Vec<Group>,
    #[command(flatten)]
    settings: PotentialSettings,
    /// Gaps: parquet with one row for each class and reference, and one for all references together
    #[arg(long, value_name = "GAPS.parquet")]
    gaps: Option<PathBuf>,
    /// Mean and standard deviation of u along the arcs: parquet with one row for each class, reference and point
    #[arg(long, value_name = "CURVES.parquet")]
    curves: Option<PathBuf>,
    /// Circuits: parquet with one row each
    #[arg(long, value_name = "CIRCUITS.parquet")]
    circuits: Option<PathBuf>,
    /// Relative energies: parquet with class, sample (row of the samples or of the training set), reference (row of the
    /// training set), u, error (estimated, of the integral; null without a tolerance) and sign (meaning of u); the key
    /// `settings` of its metadata holds the settings
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
}

/// Runs `mem2gen potential`.
pub fn run(args: Args) -> Result<(), Failure> {
    args.settings.clone().check().map_err(Error::from)?;
    let subject = args.chosen.open()?;
    let mut images = Vec::new();
    if subject.samples().is_some() {
        for group in Group::SAMPLES.into_iter().filter(|group| args.classes.contains(group)) {
            images.push(args.chosen.images(&subject, group)?);
        }
    }
    // --max has chosen the images already, so the setting takes all of them.
    let max = images.iter().map(Images::len).max().unwrap_or(0).max(1);
    let settings = PotentialSettings { max, ..args.settings };
    let params = settings.clone().check().map_err(Error::from)?;

    let chosen: Vec<_> =
        images.iter().map(|images| json!({ "class": images.group, "sha256": images.sha256() })).collect();
    let identity = json!({
        "version": VERSION,
        "settings": settings,
        "source": subject.trained().identity(),
        "training_set_sha256": subject.trained().run().data_sha256(),
        "images": chosen,
    });
    let cells = Cells::beside(&args.out, &identity).map_err(Error::from)?;
    let (relative, share) =
        subject.trained().timed(|| measure(&subject, &images, &params, Some(&cells), &Printed))?;

    let rows = gaps(&relative, &params);
    let text = json!({ "settings": settings, "source": subject.trained().identity() }).to_string();
    let notes = [("sign", SIGN), ("settings", text.as_str())];
    let mut frames = Vec::new();
    if let Some(path) = &args.gaps {
        frames.push((path, gaps_frame(&rows).map_err(Error::from)?));
    }
    if let Some(path) = &args.curves {
        frames.push((path, curves_frame(&relative.curves).map_err(Error::from)?));
    }
    if let Some(path) = &args.circuits {
        frames.push((path, loops_frame(&relative.loops).map_err(Error::from)?));
    }
    // --out is written last, because the pieces are removed after it.
    frames.push((&args.out, potential_frame(&relative.images).map_err(Error::from)?));
    for (path, frame) in frames {
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    say_left(cells.clear_beside(&args.out).map_err(Error::from)?.as_deref());

    let all: Vec<_> = rows.iter().filter(|r| r.reference.is_none()).copied().collect();
    put!("{}", shown(&gaps_frame(&all).map_err(Error::from)?)?.to_text());
    put_line!(
        "potential: {} arcs, {}, {share:.0} percent of the time in the score -> {}",
        relative.images.len(),
        subject.trained().describe(),
        args.out.display()
    );
    Ok(())
}

/// The gaps over all references, for the terminal.
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
