use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::frame::write_parquet_with;
use mem2gen::process::Process;
use mem2gen::progress::Printed;
use mem2gen::study::context::Cells;
use mem2gen::study::curvature::frame::{points_frame, spectra_frame};
use mem2gen::study::curvature::{CurvatureSettings, Set, VERSION, measure, point_rows, set_row};
use serde_json::json;

use super::chosen::Chosen;
use super::source::{Failure, say_left};

/// Measure singular values of the score's Jacobian at samples or training images (Algs. 2 and 3)
///
/// Rows are differences of the score along random directions at sqrt(alpha_bar_t) x. A factor is divided out, so their
/// singular values estimate those of the Jacobian for all directions: near 0 along the data, 1/sigma_t^2 across it. The
/// directions at an image follow from its row alone. Finished pieces are kept in the folder OUT.partial until the result
/// is written, so a stopped call resumes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Group of images: training, or the memorized, spurious or generalized samples of a cell
    #[arg(long, value_name = "CLASS")]
    class: Group,
    #[command(flatten)]
    settings: CurvatureSettings,
    /// Spectra: parquet with sample (row of the samples or of the training set), index (from 1, in descending order),
    /// value and exact (null without --exact), in the inverse square of the data's units; the keys `class`, `k`, `t`,
    /// `sigma` (sigma_t) and `settings` of its metadata hold the settings
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
    /// Points, one row each: parquet with sample, score (its length), mean (of the values without the largest),
    /// dimension and gap (index and width of the largest gap between values), and with --exact exact_mean,
    /// exact_dimension, asymmetry (||J - J^T|| / ||J||) and largest (eigenvalue of J's symmetric part), else null;
    /// metadata as above
    #[arg(long, value_name = "P.parquet")]
    points: Option<PathBuf>,
}

/// Runs `mem2gen curvature`.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.points.as_ref() == Some(&args.out) {
        return Err(Failure::Option { option: "--points", reason: "is the same file as --out".into() });
    }
    let settings = args.settings;
    let params = settings.clone().check().map_err(Error::from)?;
    let subject = args.chosen.open()?;
    let images = args.chosen.images(&subject, args.class)?;
    let identity = json!({
        "version": VERSION,
        "source": subject.trained().identity(),
        "settings": settings,
        "images": images.sha256(),
    });
    let cells = Cells::beside(&args.out, &identity).map_err(Error::from)?;
    let (spectra, share) =
        subject.trained().timed(|| measure(&subject, &images, &params, Some(&cells), &Printed))?;
    let k = subject.k()?;
    let sigma = subject.vp().level(settings.t).map_err(Error::from)?.sigma();
    let notes = [
        ("class", args.class.to_string()),
        ("k", k.to_string()),
        ("t", settings.t.to_string()),
        ("sigma", sigma.to_string()),
        ("settings", json!(settings).to_string()),
    ];
    let notes = notes.each_ref().map(|(key, value)| (*key, value.as_str()));
    let points = point_rows(&spectra, settings.drop_top);
    if let Some(path) = &args.points {
        let frame = points_frame(&points).map_err(Error::from)?;
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    let frame = spectra_frame(&spectra).map_err(Error::from)?;
    write_parquet_with(&args.out, &frame, &notes).map_err(Error::from)?;
    say_left(cells.clear_beside(&args.out).map_err(Error::from)?.as_deref());
    let set = Set { group: args.class, k, sigma };
    let summary = set_row(set, &points).map_or_else(String::new, |row| {
        format!(", mean value {:.4}, mean dimension {:.2}", row.mean, row.dimension)
    });
    put_line!(
        "curvature: {} {} points{summary}, {}, {share:.0} percent of the time in the score -> {}",
        images.len(),
        args.class,
        subject.trained().describe(),
        args.out.display()
    );
    Ok(())
}
