use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::distance::{Backbone, Lpips};
use mem2gen::frame::write_parquet_with;
use mem2gen::metric::Metric;
use mem2gen::process::Spacing;
use mem2gen::progress::Printed;
use mem2gen::project::Layout;
use mem2gen::study::basin::frame::{attractors_frame, basin_frame};
use mem2gen::study::basin::{
    BasinSettings, Distance, VERSION, attractors as noise_attractors, measure, summarise,
};
use mem2gen::study::context::Cells;
use serde_json::json;

use super::chosen::Chosen;
use super::source::{Failure, say_left};

/// Measure basins of attraction of images: critical time, radius and log-volume of each (Alg. 1, Eq. 12)
///
/// Noise of increasing level is added to several copies of an image, and DDIM without noise takes each copy back. The
/// critical time is the last level up to which enough copies are recovered, for each image on its own. Finished pieces
/// are kept in the folder OUT.partial until the result is written, so a stopped call resumes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Group of images: training, or the memorized, spurious or generalized samples of a cell
    #[arg(long, value_name = "CLASS")]
    class: Group,
    #[command(flatten)]
    settings: BasinSettings,
    /// Distance of an image and a copy; a metric other than l2 needs --delta
    #[arg(long, value_enum, default_value_t = Metric::L2)]
    metric: Metric,
    /// No clamping of predicted clean images to [-1, 1]; toy points are never clamped
    #[arg(long)]
    no_clip: bool,
    /// Basins: parquet with class, id (row of the samples or of the training set), t_c, floor (whether too few copies
    /// were recovered at the first level), ceiling (whether enough copies were recovered at the last level), t_copies
    /// (mean over copies of the last level up to which each was recovered), radius (mean l2 distance to copies at t_c),
    /// log_volume (nats, of the ball with that radius) and recovered (copies recovered at each level); the keys of its
    /// metadata hold the settings
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
    /// Reverse check, the images at which pure noise ends: parquet with class, id, draws, count (draws that end within
    /// the distance), share, low and high (its 95 percent interval)
    #[arg(long, value_name = "A.parquet")]
    attractors: Option<PathBuf>,
    /// Number of noise draws of the reverse check
    #[arg(long, value_name = "n", default_value_t = 4096, requires = "attractors")]
    draws: usize,
    /// Number of DDIM steps of the reverse check, from noise to clean data
    #[arg(long, value_name = "n", default_value_t = 100, requires = "attractors")]
    draw_steps: usize,
}

/// Runs `mem2gen basin`.
pub fn run(args: Args) -> Result<(), Failure> {
    let subject = args.chosen.open()?;
    let clamp = subject.trained().is_of_images() && !args.no_clip;
    let settings = BasinSettings { clamp, ..args.settings };
    if args.attractors.as_ref() == Some(&args.out) {
        return Err(Failure::Option { option: "--attractors", reason: "is the same file as --out".into() });
    }
    if args.draws == 0 {
        return Err(Failure::Option { option: "--draws", reason: "is 0, expected at least 1".into() });
    }
    if args.metric == Metric::Cosine {
        let reason =
            "is cosine, which compares features, not images; expected l2, lpips-alex or lpips-vgg".into();
        return Err(Failure::Option { option: "--metric", reason });
    }
    let draw_steps = subject.vp().steps(args.draw_steps, Spacing::Leading).map_err(Error::from)?;
    let backbone = Backbone::for_metric(args.metric);
    // The threshold of the labels belongs to l2.
    let delta_m = subject.delta_m().filter(|_| backbone.is_none());
    let params = settings.check(delta_m).map_err(Error::from)?;
    params.times(subject.vp()).map_err(Error::from)?;
    let delta_from = if settings.delta.is_some() { "given" } else { "delta_m of the cell" };
    let lpips = backbone.map(|b| Lpips::open(b, &Layout::find())).transpose().map_err(Error::from)?;
    let images = args.chosen.images(&subject, args.class)?;
    if images.is_empty() {
        let reason = format!("no sample is {}", args.class);
        return Err(Failure::Option { option: "--class", reason });
    }
    let distance = match &lpips {
        Some(lpips) => Distance::lpips(lpips, subject.shape()),
        None => Distance::l2(),
    };
    let identity = json!({
        "version": VERSION,
        "source": subject.trained().identity(),
        "settings": params.settings(),
        "delta": params.delta(),
        "metric": args.metric,
        "class": args.class,
        "images": images.sha256(),
    });
    let cells = Cells::beside(&args.out, &identity).map_err(Error::from)?;
    let ((rows, attractors), share) = subject.trained().timed(|| {
        let rows = measure(&subject, &images, &params, &distance, Some(&cells), &Printed)?;
        let attractors = match &args.attractors {
            Some(_) => {
                let (draws, steps) = (args.draws, &draw_steps);
                Some(noise_attractors(&subject, &images, &params, &distance, draws, steps, &Printed)?)
            }
            None => None,
        };
        Ok::<_, Error>((rows, attractors))
    })?;
    let frame = basin_frame(&rows).map_err(Error::from)?;
    let identity = identity.to_string();
    let delta = params.delta().to_string();
    let notes = [("delta", delta.as_str()), ("delta_from", delta_from), ("settings", &identity)];
    if let (Some(path), Some(attractors)) = (&args.attractors, &attractors) {
        let frame = attractors_frame(&attractors.rows).map_err(Error::from)?;
        let steps = args.draw_steps.to_string();
        let notes = [&notes[..], &[("draw_steps", steps.as_str())]].concat();
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    write_parquet_with(&args.out, &frame, &notes).map_err(Error::from)?;
    say_left(cells.clear_beside(&args.out).map_err(Error::from)?.as_deref());
    put_line!(
        "basin: {} {} images, {}, delta = {delta} ({delta_from}) -> {}",
        rows.len(),
        args.class,
        subject.trained().describe(),
        args.out.display()
    );
    put_line!("{share:.0} percent of the time in the score");
    if let (Some(path), Some(attractors)) = (&args.attractors, &attractors) {
        put_line!(
            "{} of {} draws of noise end at these images -> {}",
            args.draws - attractors.elsewhere,
            args.draws,
            path.display()
        );
    }
    // K does not matter: the rows are those of one subject.
    for summary in summarise(0, &rows, &params) {
        let [t, v, r] = [summary.critical_time, summary.log_volume, summary.radius];
        put_line!(
            "mean t_c {:.1}, radius {:.4}, log V {:.3} (95 percent from {:.3} to {:.3}); {} at the floor, {} at the ceiling",
            t.mean,
            r.mean,
            v.mean,
            v.low,
            v.high,
            summary.floor,
            summary.ceiling
        );
    }
    Ok(())
}
