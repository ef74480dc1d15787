use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::distance::Lpips;
use mem2gen::frame::write_parquet_with;
use mem2gen::process::Spacing;
use mem2gen::progress::{Progress, ProgressSink};
use mem2gen::project::Layout;
use mem2gen::random::SEED;
use mem2gen::shape::Shape;
use mem2gen::study::basin::frame::{attractors_frame, basin_frame};
use mem2gen::study::basin::{BasinRow, BasinSettings, Distance, Search, VERSION, summarise};
use ndarray::s;
use serde_json::json;

use super::chosen::{Chosen, forget_pieces, pieces};
use super::classify::Metric;
use super::source::Failure;

/// Images that are searched together, and kept together when the program is stopped.
const PIECE: usize = 64;

/// Basins of attraction of images under the score: critical time, radius and log-volume of each (Alg. 1, Eq. 12)
///
/// An image is noised to more and more, in several copies, and DDIM without noise takes each back. The critical time
/// is the last level up to which enough copies come back, for each image on its own. Finished pieces are kept beside
/// the result until it is there, in a folder called OUT.partial, so that a call that was stopped goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Which images: training, or the memorized, spurious or generalized samples of a cell
    #[arg(long, value_name = "CLASS")]
    class: Group,
    /// Distance up to which a copy has come back [default: the delta_m of the cell]
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    delta: Option<f64>,
    /// Distance of an image and a copy; --delta has to be given for any but l2
    #[arg(long, value_enum, default_value = "l2")]
    metric: Metric,
    /// Share of the copies that have to come back
    #[arg(long, value_name = "P", allow_hyphen_values = true, default_value_t = BasinSettings::default().stop)]
    stop: f64,
    /// Copies of an image at each level
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().perturbations)]
    perturbations: usize,
    /// Steps of DDIM at most, from a level down to clean data
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().steps)]
    steps: usize,
    /// Levels from one that is tried to the next
    #[arg(long, value_name = "n", default_value_t = BasinSettings::default().stride)]
    stride: usize,
    /// The first level that is tried
    #[arg(long, value_name = "T", default_value_t = BasinSettings::default().first)]
    first: usize,
    /// Let predicted clean images go beyond [-1, 1]; for toy points they always may
    #[arg(long)]
    no_clip: bool,
    /// Seed of the noise
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Basins: parquet with class, id (row of the samples or of the training set), t_c, floor (whether too few copies
    /// came back even from the first level), ceiling (whether enough came back from the last as well), t_copies
    /// (mean over copies of the last level that each came back from), radius (mean l2 distance to copies at t_c),
    /// log_volume (nats, of the ball with that radius) and recovered (copies that came back from each level); the
    /// keys of its metadata say how
    #[arg(long, value_name = "T.parquet")]
    out: PathBuf,
    /// The check from the other side, at which of these images pure noise ends: parquet with class, id, draws, count
    /// (of them, that end within the distance), share, low and high (its 95 percent interval)
    #[arg(long, value_name = "A.parquet")]
    attractors: Option<PathBuf>,
    /// Draws of noise for it
    #[arg(long, value_name = "n", default_value_t = 4096, requires = "attractors")]
    draws: usize,
    /// Steps of DDIM for it, from noise to clean data
    #[arg(long, value_name = "n", default_value_t = 100, requires = "attractors")]
    draw_steps: usize,
}

/// Runs `mem2gen basin`.
pub fn run(args: Args) -> Result<(), Failure> {
    let found = args.chosen.open()?;
    let opened = &found.opened;
    let settings = BasinSettings {
        delta: args.delta,
        stop: args.stop,
        perturbations: args.perturbations,
        steps: args.steps,
        stride: args.stride,
        first: args.first,
        clamp: opened.is_of_images() && !args.no_clip,
        seed: args.seed,
        ..BasinSettings::default()
    };
    if args.attractors.as_ref() == Some(&args.out) {
        return Err(Failure::Option { option: "--attractors", reason: "is the same file as --out".into() });
    }
    if args.draws == 0 {
        return Err(Failure::Option { option: "--draws", reason: "is 0, expected at least 1".into() });
    }
    let draw_steps = found.vp.steps(args.draw_steps, Spacing::Leading).map_err(Error::from)?;
    let backbone = args.metric.backbone();
    // The labels' threshold is one of another distance.
    let delta_m = found.cell.as_ref().and_then(|cell| cell.delta_m).filter(|_| backbone.is_none());
    let params = settings.check(delta_m).map_err(Error::from)?;
    params.times(&found.vp).map_err(Error::from)?;
    let delta_from = if args.delta.is_some() { "given" } else { "delta_m of the cell" };
    let lpips = backbone.map(|b| Lpips::open(b, &Layout::find())).transpose().map_err(Error::from)?;
    let images = found.images(args.class)?;
    if images.ids.is_empty() {
        let reason = format!("no sample is {}", args.class);
        return Err(Failure::Option { option: "--class", reason });
    }
    let shape = opened.run.shape();
    let shape = Shape { height: shape.height, width: shape.width, channels: shape.channels };
    let about = json!({
        "version": VERSION,
        "source": opened.identity(),
        "settings": params.settings(),
        "delta": params.delta(),
        "metric": args.metric,
        "class": args.class,
        "images": images.sha256(),
    });
    let kept = pieces(&args.out, &about);
    let ((rows, attractors), share) = opened.timed(|score| {
        let distance = match &lpips {
            Some(lpips) => Distance::lpips(lpips, shape),
            None => Distance::l2(),
        };
        let search = Search { score, vp: &found.vp, params, distance };
        let progress = Progress::new("basins", search.work(images.ids.len())?);
        let mut rows: Vec<BasinRow> = Vec::new();
        for from in (0..images.ids.len()).step_by(PIECE) {
            let part = from..images.ids.len().min(from + PIECE);
            let id = format!("images-{:09}-{:09}", part.start, part.end);
            let there: Option<Vec<BasinRow>> = kept.get(&id);
            rows.extend(match there.filter(|rows| rows.len() == part.len()) {
                Some(rows) => {
                    progress.resume(search.work(part.len())?);
                    rows
                }
                None => {
                    let x = images.rows.slice(s![part.clone(), ..]);
                    let rows = search.rows(args.class, x, &images.ids[part], &progress)?;
                    kept.put(&id, &rows)?;
                    rows
                }
            });
        }
        let attractors = match &args.attractors {
            Some(_) => {
                let progress = Progress::new("draws", args.draws as u64);
                let (x, ids) = (images.rows.view(), &images.ids);
                Some(search.attractor_shares(args.class, x, ids, args.draws, &draw_steps, &progress)?)
            }
            None => None,
        };
        Ok::<_, Error>((rows, attractors))
    })?;
    let frame = basin_frame(&rows).map_err(Error::from)?;
    let about = about.to_string();
    let delta = params.delta().to_string();
    let notes = [("delta", delta.as_str()), ("delta_from", delta_from), ("settings", &about)];
    if let (Some(path), Some(found)) = (&args.attractors, &attractors) {
        let frame = attractors_frame(&found.rows).map_err(Error::from)?;
        let steps = args.draw_steps.to_string();
        let notes = [&notes[..], &[("draw_steps", steps.as_str())]].concat();
        write_parquet_with(path, &frame, &notes).map_err(Error::from)?;
    }
    write_parquet_with(&args.out, &frame, &notes).map_err(Error::from)?;
    forget_pieces(&args.out)?;
    println!(
        "basin: {} {} images, {}, delta = {delta} ({delta_from}) -> {}",
        rows.len(),
        args.class,
        opened.describe(),
        args.out.display()
    );
    println!("{share:.0} percent of the time in the score");
    if let (Some(path), Some(found)) = (&args.attractors, &attractors) {
        println!(
            "{} of {} draws of noise end at these images -> {}",
            args.draws - found.elsewhere,
            args.draws,
            path.display()
        );
    }
    for of in summarise(0, &rows, &params) {
        let [t, v, r] = [of.critical_time, of.log_volume, of.radius];
        println!(
            "mean t_c {:.1}, radius {:.4}, log V {:.3} (95 percent from {:.3} to {:.3}); {} at the floor, {} at the ceiling",
            t.mean, r.mean, v.mean, v.low, v.high, of.floor, of.ceiling
        );
    }
    Ok(())
}
