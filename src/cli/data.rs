//! `mem2gen data`: fetch, verify, export and list data sets.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mem2gen::data::emoji::{bases, pictures};
use mem2gen::data::fetch::{Outcome, Step, fetch};
use mem2gen::data::registry::REGISTRY;
use mem2gen::data::weights::{self, Weights};
use mem2gen::data::{DataError, Entry, Manifest, Split, State, check, find, folder, state};
use mem2gen::net::NetError;
use mem2gen::net::text::{Embeddings, TextEncoder};
use mem2gen::project::Layout;

use super::source::Failure;

/// Fetch, verify, export and list data sets
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch data sets and weights into the cache and verify them; complete ones are unchanged
    Fetch {
        /// Names of data sets (mnist, fashion-mnist, cifar10, lsun-church, emoji), of the LPIPS weights
        /// (lpips-weights) or of the text encoder (minilm) [default: mnist fashion-mnist]
        names: Vec<String>,
        /// Folder with the files of one data set: IDX files (also .gz), CIFAR10's batches of the binary or
        /// the Python version or the folder above them, images in any depth for lsun-church, node_modules with
        /// the packages of emoji, alexnet.ckpt and vgg16.ckpt for lpips-weights, model.safetensors and tokenizer.json
        /// for minilm
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Decode data sets and weights and compare them with their checksums
    Verify {
        /// Names of data sets and weights [default: all that were fetched]
        names: Vec<String>,
    },
    Export(Box<super::export::Args>),
    /// Encode the captions of emoji with the text encoder and write their vectors
    Embed {
        /// File of the vectors, safetensors in half precision
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List data sets with images, shape, the paper's metric and critical points, and state
    List,
}

/// Why `mem2gen data` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Captions were not encoded.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A training set was not exported.
    #[error(transparent)]
    Export(#[from] Failure),
    /// `--from` was given with several names or none.
    #[error("fetch data: --from DIR needs exactly one name, found {0}")]
    FromTakesOne(usize),
    /// Several data sets failed.
    #[error("{operation} data: {} of {total} failed: {}", failed.len(), failed.join("; "))]
    Several {
        /// The operation.
        operation: &'static str,
        /// The message of each failure.
        failed: Vec<String>,
        /// Number of data sets.
        total: usize,
    },
    /// No data set was fetched.
    #[error("verify data: no data set was fetched; run 'mem2gen data fetch'")]
    Nothing,
}

/// Runs `mem2gen data`.
///
/// # Errors
/// [`Error`].
pub fn run(args: Args) -> Result<(), Error> {
    let layout = Layout::find();
    match args.command {
        Command::Fetch { names, from } => fetch_all(&layout, &names, from),
        Command::Verify { names } => verify_all(&layout, &names),
        Command::Export(args) => Ok(super::export::run(&args)?),
        Command::Embed { out } => embed(&layout, &out),
        Command::List => list(&layout),
    }
}

/// Writes the vectors of all captions of emoji, without skin tones.
fn embed(layout: &Layout, out: &Path) -> Result<(), Error> {
    let known = pictures(layout, find("emoji")?)?;
    let captions: Vec<String> = bases(&known).into_iter().map(str::to_owned).collect();
    let rows = TextEncoder::load(layout)?.encode(&captions)?;
    let (n, width) = rows.dim();
    Embeddings::new(captions, rows)?.write(out)?;
    put_error!("wrote {n} vectors of {width} values to {}", out.display());
    Ok(())
}

/// A data set or weights that can be fetched.
#[derive(Clone, Copy)]
enum Item {
    Images(&'static Entry),
    Weights(&'static Weights),
}

impl Item {
    fn name(self) -> &'static str {
        match self {
            Self::Images(entry) => entry.name,
            Self::Weights(weights) => weights.name,
        }
    }

    fn folder(self, layout: &Layout) -> PathBuf {
        match self {
            Self::Images(entry) => folder(layout, entry),
            Self::Weights(weights) => weights.folder(layout),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        REGISTRY.iter().map(Self::Images).chain(weights::ALL.into_iter().map(Self::Weights))
    }

    /// The item called `name`; the error lists all names.
    fn find(name: &str) -> Result<Self, DataError> {
        Self::all().find(|item| item.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::all().map(Self::name).collect();
            DataError::UnknownName { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

fn fetch_all(layout: &Layout, names: &[String], from: Option<PathBuf>) -> Result<(), Error> {
    if from.is_some() && names.len() != 1 {
        return Err(Error::FromTakesOne(names.len()));
    }
    let items: Vec<Item> = if names.is_empty() {
        REGISTRY.iter().filter(|entry| entry.by_default).map(Item::Images).collect()
    } else {
        items(names)?
    };
    each("fetch", &items, |item| {
        let mut last = Instant::now();
        let mut tell = |step: Step| {
            // Counts are frequent: print at most one a second, and the last one.
            let skip = matches!(step, Step::Decoding { done, total }
                if done < total && last.elapsed() < Duration::from_secs(1));
            if !skip {
                last = Instant::now();
                put_error!("{}: {step}", item.name());
            }
        };
        let (fetched, what) = match item {
            Item::Images(entry) => match fetch(layout, entry, from.as_deref(), &mut tell)? {
                Outcome::AlreadyThere(manifest) => (false, summary(&manifest)),
                Outcome::Fetched(manifest) => (true, summary(&manifest)),
            },
            Item::Weights(weights) => {
                let fetched = weights::fetch(layout, weights, from.as_deref(), &mut tell)?;
                (fetched, files(weights))
            }
        };
        let how = if fetched { "fetched into" } else { "already in" };
        Ok(format!("{}: {how} {}, {what}", item.name(), item.folder(layout).display()))
    })
}

fn verify_all(layout: &Layout, names: &[String]) -> Result<(), Error> {
    let chosen: Vec<Item> = if names.is_empty() {
        // An incomplete data set has a folder and is reported as damaged.
        Item::all().filter(|item| item.folder(layout).is_dir()).collect()
    } else {
        items(names)?
    };
    if chosen.is_empty() {
        return Err(Error::Nothing);
    }
    each("verify", &chosen, |item| {
        let registry = "the registry's checksums";
        let (what, against) = match item {
            Item::Images(entry) => {
                let manifest = check(layout, entry)?;
                let against = match entry.train.sha256 {
                    Some(_) => registry,
                    None => "the checksums of its fetch (the registry has none)",
                };
                (summary(&manifest), against)
            }
            Item::Weights(weights) => {
                weights::check(layout, weights)?;
                (files(weights), registry)
            }
        };
        Ok(format!("{}: complete, {what}, verified against {against}", item.name()))
    })
}

/// Applies `act` to each item, also after a failure. A single failure keeps its own error.
fn each(
    operation: &'static str,
    items: &[Item],
    mut act: impl FnMut(Item) -> Result<String, DataError>,
) -> Result<(), Error> {
    let mut failed = Vec::new();
    for &item in items {
        match act(item) {
            Ok(line) => put_line!("{line}"),
            Err(error) => failed.push(error),
        }
    }
    match failed.pop() {
        None => Ok(()),
        Some(only) if failed.is_empty() => Err(only.into()),
        Some(last) => {
            failed.push(last);
            let failed = failed.iter().map(ToString::to_string).collect();
            Err(Error::Several { operation, failed, total: items.len() })
        }
    }
}

fn items(names: &[String]) -> Result<Vec<Item>, DataError> {
    names.iter().map(|name| Item::find(name)).collect()
}

fn files(weights: &Weights) -> String {
    format!("{} files ({})", weights.files.len(), weights.source())
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
    let none = || "-".to_owned();
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
            entry.test.map_or_else(none, |spec| spec.images.to_string()),
            entry.shape.to_string(),
            entry.metric.to_string(),
            entry.critical.map_or_else(none, |critical| critical.a.to_string()),
            entry.critical.map_or_else(none, |critical| critical.b.to_string()),
            entry.source.to_string(),
            state,
        ]);
    }
    for weights in weights::ALL {
        let state = match weights::check(layout, weights) {
            Ok(()) => "present".to_owned(),
            Err(_) if !weights.folder(layout).is_dir() => "absent".to_owned(),
            Err(damage) => format!("damaged ({damage})"),
        };
        let (name, source) = (weights.name.to_owned(), weights.source());
        rows.push([name, none(), none(), none(), none(), none(), none(), source, state]);
    }
    super::doctor::print_table(&rows);
    Ok(())
}
