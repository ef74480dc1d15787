use std::path::PathBuf;

use mem2gen::Error;
use mem2gen::frame::fingerprint::Stored;
use mem2gen::project::Layout;
use mem2gen::study::claims::Claims;
use mem2gen::study::claims::frame::{NAME, claims_rows};

use super::source::Failure;

/// Print the paper's claims with the measured value, its interval, the verdict and the command that measures it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stored table, with its record beside it [default: claims.parquet of the project's data/results]
    #[arg(long, value_name = "CLAIMS.parquet")]
    table: Option<PathBuf>,
    /// Output as JSON with full precision
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Output as a Markdown table
    #[arg(long)]
    markdown: bool,
}

/// Runs `mem2gen claims`.
pub fn run(args: Args) -> Result<(), Failure> {
    let path = args.table.unwrap_or_else(|| Layout::find().results().join(format!("{NAME}.parquet")));
    let refused =
        |reason: &str| Failure::Option { option: "--table", reason: format!("{} {reason}", path.display()) };
    let (Some(folder), Some(name)) = (path.parent(), path.file_stem().and_then(|name| name.to_str())) else {
        return Err(refused("is no file"));
    };
    if path.extension().is_none_or(|ending| ending != "parquet") {
        return Err(refused("does not end in .parquet"));
    }
    let frame = Stored::new(folder, name).open().map_err(Error::from)?;
    let rows = claims_rows(&frame).map_err(|e| refused(&format!("is no table of claims: {e}")))?;
    let claims = Claims { rows };
    if args.json {
        let text = serde_json::to_string_pretty(&claims.rows)
            .map_err(|e| Failure::Option { option: "--json", reason: e.to_string() })?;
        put_line!("{text}");
    } else if args.markdown {
        put!("{}", claims.markdown());
    } else {
        let table = claims.table().map_err(Error::from)?;
        put!("{}", table.rows(usize::MAX).to_text());
    }
    Ok(())
}
