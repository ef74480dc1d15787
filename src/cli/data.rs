//! `mem2gen data`: fetch, verify and list data sets.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mem2gen::data::fetch::{Outcome, Step, fetch};
use mem2gen::data::registry::REGISTRY;
use mem2gen::data::{DataError, Entry, Manifest, Split, State, check, find, folder, state};
use mem2gen::project::Layout;

/// Fetched when no data set is named.
const DEFAULT: [&str; 2] = ["mnist", "fashion-mnist"];

/// Fetch, verify and list data sets
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring data sets into the cache, verified; what is there and whole is left alone
    Fetch {
        /// Data sets (mnist, fashion-mnist, cifar10, lsun-church) [default: mnist fashion-mnist]
        names: Vec<String>,
        /// Take one data set's files out of this folder: IDX files (also .gz), CIFAR10's .bin batches,
        /// or for lsun-church PNG and JPEG images
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Decode data sets again and compare them with their checksums
    Verify {
        /// Data sets [default: all that were fetched]
        names: Vec<String>,
    },
    /// Show all data sets: images, shape, the paper's metric and critical points, and their state
    List,
}

/// Why `mem2gen data` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refused.
    #[error(transparent)]
    Data(#[from] DataError),
    /// `--from` is one data set's folder.
    #[error("fetch data: --from DIR takes exactly one name, not {0}")]
    FromTakesOne(usize),
    /// More than one data set failed; each was reported.
    #[error("{operation} data: {} of {total} failed: {}", failed.len(), failed.join("; "))]
    Several {
        /// What was tried.
        operation: &'static str,
        /// The message for each that failed.
        failed: Vec<String>,
        /// How many were tried.
        total: usize,
    },
    /// Nothing was fetched yet.
    #[error("verify data: no data set was fetched; run 'mem2gen data fetch'")]
    Nothing,
    /// The table could not be printed.
    #[error("print: {0}")]
    Print(#[from] std::io::Error),
}

/// Runs `mem2gen data`.
///
/// # Errors
/// As [`Error`] says.
pub fn run(args: Args) -> Result<(), Error> {
    let layout = Layout::find();
    match args.command {
        Command::Fetch { names, from } => fetch_all(&layout, &names, from),
        Command::Verify { names } => verify_all(&layout, &names),
        Command::List => list(&layout),
    }
}

fn fetch_all(layout: &Layout, names: &[String], from: Option<PathBuf>) -> Result<(), Error> {
    if from.is_some() && names.len() != 1 {
        return Err(Error::FromTakesOne(names.len()));
    }
    let entries = if names.is_empty() { DEFAULT.map(find).into_iter().collect() } else { entries(names) }?;
    each("fetch", &entries, |entry| {
        let mut last = Instant::now();
        let outcome = fetch(layout, entry, from.as_deref(), &mut |step| {
            // Counts come often; a line a second is enough, and the last one.
            let skip = matches!(step, Step::Decoding { done, total }
                if done < total && last.elapsed() < Duration::from_secs(1));
            if !skip {
                last = Instant::now();
                eprintln!("{}: {step}", entry.name);
            }
        })?;
        let folder = folder(layout, entry);
        Ok(match outcome {
            Outcome::AlreadyThere(manifest) => {
                format!("{}: already in {}, {}", entry.name, folder.display(), summary(&manifest))
            }
            Outcome::Fetched(manifest) => {
                format!("{}: fetched into {}, {}", entry.name, folder.display(), summary(&manifest))
            }
        })
    })
}

fn verify_all(layout: &Layout, names: &[String]) -> Result<(), Error> {
    let chosen: Vec<&'static Entry> = if names.is_empty() {
        // A folder is enough: half a data set is to be found damaged, not passed over.
        REGISTRY.iter().filter(|entry| folder(layout, entry).is_dir()).collect()
    } else {
        entries(names)?
    };
    if chosen.is_empty() {
        return Err(Error::Nothing);
    }
    each("verify", &chosen, |entry| {
        let manifest = check(layout, entry)?;
        let against = if entry.train.sha256.is_some() {
            "the registry's sums"
        } else {
            "the sums of its fetch (the registry has none)"
        };
        Ok(format!("{}: whole, {}, by {against}", entry.name, summary(&manifest)))
    })
}

/// Does one thing to each entry. All are tried; one failure is passed on as it is.
fn each(
    operation: &'static str,
    entries: &[&'static Entry],
    mut act: impl FnMut(&'static Entry) -> Result<String, DataError>,
) -> Result<(), Error> {
    let mut failed = Vec::new();
    for entry in entries {
        match act(entry) {
            Ok(line) => writeln!(std::io::stdout(), "{line}")?,
            Err(error) => failed.push(error),
        }
    }
    match failed.pop() {
        None => Ok(()),
        Some(only) if failed.is_empty() => Err(only.into()),
        Some(last) => {
            failed.push(last);
            let failed = failed.iter().map(ToString::to_string).collect();
            Err(Error::Several { operation, failed, total: entries.len() })
        }
    }
}

fn entries(names: &[String]) -> Result<Vec<&'static Entry>, DataError> {
    names.iter().map(|name| find(name)).collect()
}

fn summary(manifest: &Manifest) -> String {
    let counts: Vec<String> = manifest
        .splits
        .iter()
        .map(|(split, record)| match split {
            Split::Train => format!("{} images for training", record.images),
            Split::Test => format!("{} for testing", record.images),
        })
        .collect();
    format!("{} ({})", counts.join(" and "), manifest.source)
}

fn list(layout: &Layout) -> Result<(), Error> {
    let head = ["name", "train", "test", "shape", "metric", "A", "B", "source", "state"];
    let mut rows = vec![head.map(str::to_owned)];
    for entry in &REGISTRY {
        let state = match state(layout, entry) {
            State::Present(manifest) => match manifest.splits.get(&Split::Train) {
                Some(record) if record.images != entry.train.images => {
                    format!("present ({} of {} images)", record.images, entry.train.images)
                }
                _ => "present".to_owned(),
            },
            State::Absent => "absent".to_owned(),
            State::Damaged(damage) => format!("damaged ({damage})"),
        };
        rows.push([
            entry.name.to_owned(),
            entry.train.images.to_string(),
            entry.test.map_or_else(|| "-".to_owned(), |spec| spec.images.to_string()),
            entry.shape.to_string(),
            entry.metric.to_string(),
            entry.critical.a.to_string(),
            entry.critical.b.to_string(),
            entry.source.to_string(),
            state,
        ]);
    }
    super::doctor::print_table(&rows)?;
    Ok(())
}
