//! `mem2gen prompts`: samples and spectra of prompts.

use std::path::{Path, PathBuf};

use mem2gen::Error;
use mem2gen::display::counted;
use mem2gen::frame::{Table, read_parquet, write_parquet};
use mem2gen::net::diffusers::cached;
use mem2gen::process::Process;
use mem2gen::progress::Printed;
use mem2gen::project::Layout;
use mem2gen::store::vacant;
use mem2gen::study::prompts::frame::{prompts_rows, roc_frame};
use mem2gen::study::prompts::{
    DiffusersPrompts, Precision, Prompt, PromptModel, PromptRow, PromptSettings, RocSettings,
    STABLE_DIFFUSION, TrainedPrompts, band, roc, run as measure_all,
};
use mem2gen::train::MOST_ROWS;

use super::input::On;
use super::source::{Failure, say_dropped, say_left};

/// The table of a result.
const TABLE: &str = "prompts.parquet";

pub(super) const LICENCE: &str =
    "CreativeML OpenRAIL-M: https://huggingface.co/spaces/CompVis/stable-diffusion-license";

/// Draw samples of prompts, and measure the curvature at each and what others take for signs of memorization
///
/// Samples are drawn by DDIM with classifier-free guidance from the same starting points for every prompt. Rows of S are
/// differences of the score along Gaussian directions at sqrt(alpha_bar_t) x (Alg. 3). Finished prompts are kept in the folder
/// OUT.partial until the result is written, so a stopped call resumes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder of a training run with captions
    #[arg(long, value_name = "DIR", required_unless_present = "weights", conflicts_with = "weights")]
    run: Option<PathBuf>,
    /// Folder of Stable Diffusion 1 in diffusers' layout, with safetensors; without a folder
    /// CompVis/stable-diffusion-v1-4 in the cache of Hugging Face
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    weights: Option<Option<PathBuf>>,
    /// Height and width of pictures, with --weights [default: those of the model]
    #[arg(long, value_name = "PIXELS", requires = "weights", conflicts_with = "run")]
    size: Option<usize>,
    /// Half precision for the U-Net: half of the memory for its weights, and no sharpness
    #[arg(long, requires = "weights", conflicts_with = "run")]
    half: bool,
    /// List of prompts: a JSON object a line, with the text as caption, prompt or text, and if they are known index, kind and
    /// url [default: the captions of the run with a dose and its templates; with --weights the nine prompts of the paper]
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: Option<PathBuf>,
    /// Scale g of classifier-free guidance in sampling: s + g (s_prompt - s) [default: 1 with --run, as its captions were learned,
    /// and 7.5 with --weights]
    #[arg(long, value_name = "G", allow_hyphen_values = true)]
    guidance: Option<f64>,
    #[command(flatten)]
    settings: PromptSettings,
    /// Batch size of the network; on the CPU no result of a run depends on it [default: 64, or 1 with --weights]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    on: On,
    /// Folder of the result: prompts.parquet (a row for each sample), spectra.parquet, samples.npy, prompts.json, and a
    /// picture PROMPT-SEED.png of each sample
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare measures with the known doses of captions: areas under the curves, with intervals
    Roc {
        /// Folder that `mem2gen prompts --run` wrote
        #[arg(long = "in", value_name = "DIR")]
        input: PathBuf,
        #[command(flatten)]
        settings: RocSettings,
        /// Table: parquet with measure, truth (dose, or returned: the training image of the caption comes back), positives,
        /// negatives, auc, low and high (95 percent interval), larger (whether larger values are taken for memorization),
        /// residual_auc and correlation (with the total variation of pictures), and passes of the network
        #[arg(long, value_name = "T.parquet")]
        out: Option<PathBuf>,
    },
}

/// Runs `mem2gen prompts`.
pub fn run(args: Args) -> Result<(), Failure> {
    if let Some(Command::Roc { input, settings, out }) = args.command {
        return compare(&input, &settings, out.as_deref());
    }
    let Some(out) = args.out else {
        return Err(Failure::Option { option: "--out", reason: "is required".into() });
    };
    vacant(&out).map_err(Error::from)?;
    if let Some(batch) = args.batch.filter(|batch| !(1..=MOST_ROWS).contains(batch)) {
        let reason = format!("is {batch}, expected 1 to {MOST_ROWS}");
        return Err(Failure::Option { option: "--batch", reason });
    }
    let usual = if args.run.is_some() { 1.0 } else { PromptSettings::default().guidance };
    let settings = PromptSettings { guidance: args.guidance.unwrap_or(usual), ..args.settings };
    let params = settings.check().map_err(Error::from)?;
    let PromptSettings { exact, t, .. } = params.settings().clone();
    if args.half && exact > 0 {
        let reason = "needs single precision, as products with the transposed Jacobian do; leave --half away";
        return Err(Failure::Option { option: "--exact", reason: reason.into() });
    }
    let listed = args.prompts.as_deref().map(Prompt::read).transpose().map_err(Error::from)?;
    let layout = Layout::find();
    let (model, own): (Box<dyn PromptModel>, Vec<Prompt>) = match (args.run, args.weights) {
        (Some(run), _) => {
            let model = TrainedPrompts::open(&run, &layout, args.on.device, args.batch.unwrap_or(64))?;
            let own = model.captions().into_iter().map(Prompt::new).collect();
            (Box::new(model), own)
        }
        (None, weights) => {
            let weights = weights_folder(weights.flatten())?;
            let list = layout.root().join("data/prompts/stable-diffusion.jsonl");
            let own = if listed.is_none() { Prompt::read(&list).map_err(Error::from)? } else { Vec::new() };
            let batch = args.batch.unwrap_or(1);
            (
                Box::new(DiffusersPrompts::open(
                    &weights,
                    args.on.device,
                    precision(args.half),
                    args.size,
                    batch,
                )?),
                own,
            )
        }
    };
    if model.process().level(t).map_err(Error::from)?.sigma() == 0.0 {
        let reason = format!("is {t}, where there is no noise, expected a time from 0");
        return Err(Failure::Option { option: "--t", reason });
    }
    let prompts = listed.unwrap_or(own);
    for (place, prompt) in prompts.iter().enumerate() {
        let dropped = model.dropped(&prompt.caption)?;
        say_dropped(&format!("prompt {place}"), &prompt.caption, dropped);
    }
    let licence = model.truth().is_none().then_some(LICENCE);
    let written = measure_all(&*model, &prompts, &params, &out, &Printed)?;
    say_left(written.left.as_deref());
    let settings = params.settings();
    if let Some(row) = written.rows.first() {
        let [low, high] = band(row.rows, row.dim, row.sigma);
        put_line!(
            "prompts: {} rows in {} dimensions at sigma = {:.4}; at an isolated memory the singular values lie between {low:.1} \
             and {high:.1}",
            row.rows,
            row.dim,
            row.sigma
        );
    }
    if let Some(licence) = licence {
        put_line!("prompts: the weights have a licence of their own, {licence}");
    }
    if let Some(verdict) = returned(&written.rows) {
        put_line!("prompts: {verdict}");
    }
    put_line!(
        "prompts: {}, {} of each, {} each, guidance {} -> {}",
        counted(prompts.len(), "prompt"),
        counted(settings.seeds, "sample"),
        counted(model.shape().len(), "value"),
        settings.guidance,
        out.display()
    );
    Ok(())
}

/// How many prompts returned a training image, in words; `None` where the training set is not known.
fn returned(rows: &[PromptRow]) -> Option<String> {
    let delta = RocSettings::default().delta;
    let (mut prompts, mut some, mut every) = (0, 0, 0);
    for rows in rows.chunk_by(|a, b| a.prompt == b.prompt) {
        let apart = rows.iter().map(|row| row.nearest).collect::<Option<Vec<f64>>>()?;
        let near = apart.iter().filter(|apart| **apart <= delta).count();
        prompts += 1;
        some += usize::from(near > 0);
        every += usize::from(near == rows.len());
    }
    Some(format!(
        "{some} of {} returned a training image in at least one sample, {every} in every sample (root mean square difference at \
         most {delta})",
        counted(prompts, "prompt")
    ))
}

/// The precision that `--half` asks for.
pub(super) fn precision(half: bool) -> Precision {
    if half { Precision::Half } else { Precision::Single }
}

/// The folder of `--weights`, or else that of the paper's model in the cache of Hugging Face.
pub(super) fn weights_folder(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    match given {
        Some(folder) => Ok(folder),
        None => Ok(cached(STABLE_DIFFUSION)?),
    }
}

/// Runs `mem2gen prompts roc`.
fn compare(input: &Path, settings: &RocSettings, out: Option<&Path>) -> Result<(), Failure> {
    let table = input.join(TABLE);
    if !table.is_file() {
        // Without a slash at the end.
        let mut partial = input.components().collect::<PathBuf>().into_os_string();
        partial.push(".partial");
        let shown = input.display();
        let reason = match Path::new(&partial).is_dir() {
            true => format!(
                "{shown} is not finished; repeat the call of 'mem2gen prompts' that writes it, which resumes"
            ),
            false => format!(
                "{shown} has no {TABLE}, expected a folder that 'mem2gen prompts --run' wrote; give such a folder"
            ),
        };
        return Err(Failure::Option { option: "--in", reason });
    }
    let rows = read_parquet(&table).and_then(|frame| prompts_rows(&frame)).map_err(Error::from)?;
    let found = roc(&rows, settings).map_err(Error::from)?;
    let frame = roc_frame(&found).map_err(Error::from)?;
    if let Some(out) = out {
        write_parquet(out, &frame).map_err(Error::from)?;
    }
    put!(
        "{}",
        Table::from_frame("Measures of memorized prompts", frame).rows(usize::MAX).digits(3).to_text()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_return_a_training_image_are_counted() {
        let row = |(prompt, nearest)| PromptRow { prompt, nearest, ..PromptRow::default() };
        let told =
            |rows: &[(usize, Option<f64>)]| returned(&rows.iter().copied().map(row).collect::<Vec<_>>());
        let known = [(0, 0.02), (0, 0.1), (1, 0.4), (1, 0.05), (2, 0.3), (2, 0.11)];
        let found = told(&known.map(|(prompt, apart)| (prompt, Some(apart)))).unwrap();
        let due = "2 of 3 prompts returned a training image in at least one sample, 1 in every sample";
        assert!(found.starts_with(due), "{found}");
        assert_eq!(told(&[(0, None)]), None);
    }
}
