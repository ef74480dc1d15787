//! `mem2gen prompts`: samples and spectra of prompts.

use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::progress::Printed;
use mem2gen::project::Layout;
use mem2gen::study::prompts::{
    Prompt, PromptModel, PromptSettings, TrainedPrompts, band, run as measure_all,
};
use mem2gen::train::MOST_ROWS;

use super::input::On;
use super::source::Failure;

/// Draw samples of prompts, and measure the curvature at each and what others take for signs of memorization
///
/// Samples are drawn by DDIM with classifier-free guidance from the same starting points for every prompt. Rows of S are
/// differences of the score along Gaussian directions at sqrt(alpha_bar_t) x (Alg. 3). Finished prompts are kept in the folder
/// OUT.partial until the result is written, so a stopped call resumes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a training run with captions
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// List of prompts: a JSON object a line, with the text as caption, prompt or text, and if they are known index, kind and
    /// url [default: the captions of the run with a dose, and its templates]
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    settings: PromptSettings,
    /// Batch size of the network; on the CPU no result depends on it
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[command(flatten)]
    on: On,
    /// Folder of the result: prompts.parquet (a row for each sample), spectra.parquet, samples.npy, prompts.json, and a
    /// picture PROMPT-SEED.png of each sample
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `mem2gen prompts`.
pub fn run(args: Args) -> Result<(), Failure> {
    if !(1..=MOST_ROWS).contains(&args.batch) {
        let reason = format!("is {}, expected 1 to {MOST_ROWS}", args.batch);
        return Err(Failure::Option { option: "--batch", reason });
    }
    let params = args.settings.check().map_err(Error::from)?;
    let listed = args.prompts.as_deref().map(Prompt::read).transpose().map_err(Error::from)?;
    let model = TrainedPrompts::open(&args.run, &Layout::find(), args.on.device, args.batch)?;
    let prompts = listed.unwrap_or_else(|| model.captions().into_iter().map(Prompt::new).collect());
    let written = measure_all(&model, &prompts, &params, &args.out, &Printed)?;
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
    put_line!(
        "prompts: {} prompts, {} samples of each, {} values each, guidance {} -> {}",
        prompts.len(),
        settings.seeds,
        model.shape().len(),
        settings.guidance,
        args.out.display()
    );
    Ok(())
}
