use std::path::PathBuf;

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::frame::write_parquet_with;
use mem2gen::process::Process;
use mem2gen::progress::Progress;
use mem2gen::random::SEED;
use mem2gen::store::sha256_hex;
use mem2gen::study::curvature::frame::{points_frame, spectra_frame};
use mem2gen::study::curvature::{
    self, CurvatureSettings, Points, Set, Variant, curvature, point_rows, set_row,
};
use mem2gen::train::DataSettings;
use serde_json::json;

use super::chosen::{Chosen, forget_pieces, pieces};
use super::source::Failure;

/// Singular values of the Jacobian of a score at samples or training images
///
/// Rows are differences of the score along random directions about sqrt(alpha_bar_t) x, their lengths in units of
/// sigma_t. What is divided out makes their singular values estimates of the Jacobian's, whatever the directions: near 0
/// along the data, 1/sigma_t^2 across it. A point's directions depend on its number alone. Finished parts are kept
/// beside the result until it is there, in a folder called OUT.partial, so that a call that was stopped goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Where: at samples called memorized, spurious or generalized, or at training images
    #[arg(long, value_name = "CLASS")]
    class: Group,
    /// Time of the process, from 0
    #[arg(long, value_name = "T", default_value_t = 15.0, allow_hyphen_values = true)]
    t: f64,
    /// Rows as a multiple of the number of dimensions, at least 1
    #[arg(long, value_name = "R", default_value_t = 4.0, allow_hyphen_values = true)]
    rows: f64,
    /// How rows are made: half the difference of the scores either side along orthonormal directions; the score on one
    /// side, less the one at the point; or the same along Gaussian directions
    #[arg(long, default_value = "symmetrized")]
    variant: Which,
    /// Orthonormal directions by channel, as public code has them, instead of in all dimensions
    #[arg(long)]
    per_channel: bool,
    /// Length of the directions in units of sigma_t
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_hyphen_values = true)]
    step: f64,
    /// The Jacobian itself as well, by as many products as there are dimensions
    #[arg(long)]
    exact: bool,
    /// Estimates as public code gives them: one-sided rows hold the score itself, and nothing is divided out
    #[arg(long)]
    raw_values: bool,
    /// Largest values that means and dimensions leave out
    #[arg(long, value_name = "n", default_value_t = 5)]
    drop_top: usize,
    /// Seed of the directions
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Spectra: parquet with sample (its number, or the training image's), index (from 1, values descending), value and
    /// exact (null without --exact), in the inverse square of the data's units; the keys `class`, `k`, `t`, `sigma`
    /// (sigma_t) and `settings` of its metadata say of what
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
    /// A row a point: parquet with sample, score (its length), mean (of the values without the largest), dimension and
    /// gap (where the largest gap between them is, and how wide), and with --exact exact_mean, exact_dimension,
    /// asymmetry (||J - J^T|| / ||J||) and largest (eigenvalue of J's symmetric part), else null; metadata as above
    #[arg(long, value_name = "P.parquet")]
    points: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Symmetrized,
    Plain,
    Gaussian,
}

/// Runs `mem2gen curvature`.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.points.as_ref() == Some(&args.out) {
        return Err(Failure::Option { option: "--points", reason: "is the same file as --out".into() });
    }
    let settings = CurvatureSettings {
        t: args.t,
        rows: args.rows,
        variant: match args.variant {
            Which::Symmetrized => Variant::Symmetrized,
            Which::Plain => Variant::Plain,
            Which::Gaussian => Variant::Gaussian,
        },
        per_channel: args.per_channel,
        step: args.step,
        exact: args.exact,
        raw: args.raw_values,
        drop_top: args.drop_top,
        seed: args.seed,
    };
    let params = settings.clone().check().map_err(Error::from)?;
    let found = args.chosen.open()?;
    let images = found.images(args.class)?;
    let bytes: Vec<u8> = images.rows.iter().flat_map(|v| v.to_le_bytes()).collect();
    let cells = pieces(
        &args.out,
        &json!({
            "version": curvature::VERSION,
            "source": found.opened.identity(),
            "settings": settings,
            "images_sha256": sha256_hex(&bytes),
            "samples": images.ids,
        }),
    );
    let rows = images.rows.mapv(f64::from);
    let points = Points { rows: rows.view(), samples: &images.ids, shape: found.opened.run.shape() };
    let progress = Progress::new("curvature", images.ids.len() as u64);
    let (spectra, share) = found
        .opened
        .timed(|score| Ok(curvature(score, &found.vp, &points, &params, Some(&cells), &progress)?))?;
    let (DataSettings::Images { k, .. } | DataSettings::Toy { k }) =
        found.opened.run.params().settings().data;
    let sigma = found.vp.level(args.t).map_err(Error::from)?.sigma();
    let notes = [
        ("class", args.class.to_string()),
        ("k", k.to_string()),
        ("t", args.t.to_string()),
        ("sigma", sigma.to_string()),
        ("settings", json!(settings).to_string()),
    ];
    let notes = notes.each_ref().map(|(key, value)| (*key, value.as_str()));
    let of_points = point_rows(&spectra, args.drop_top);
    if let Some(path) = &args.points {
        let frame = points_frame(&of_points).map_err(Error::from)?;
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    let frame = spectra_frame(&spectra).map_err(Error::from)?;
    write_parquet_with(&args.out, &frame, &notes).map_err(Error::from)?;
    forget_pieces(&args.out)?;
    let set = Set { group: args.class, k, sigma };
    let summary = set_row(set, &of_points).map_or_else(String::new, |row| {
        format!(", mean value {:.4}, mean dimension {:.2}", row.mean, row.dimension)
    });
    println!(
        "curvature: {} {} points{summary}, {}, {share:.0} percent of the time in the score -> {}",
        images.ids.len(),
        args.class,
        found.opened.describe(),
        args.out.display()
    );
    Ok(())
}
