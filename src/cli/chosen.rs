//! What commands that measure at images share: the score, the images, and the thresholds of the cell.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mem2gen::Error;
use mem2gen::class::Group;
use mem2gen::process::Vp;
use mem2gen::project::Layout;
use mem2gen::random::SEED;
use mem2gen::store::sha256_hex;
use mem2gen::study::context::Cells;
use mem2gen::study::subject::{LabelledSamples, Pick};
use mem2gen::train::TrainedProcess;
use ndarray::{Array2, Axis, s};
use serde_json::Value;

use super::source::{Failure, Opened, Source};

/// `--run` with its score, and how its images are chosen.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    #[command(flatten)]
    source: Source,
    /// Images of a class at most; the paper takes 512
    #[arg(long, value_name = "n", default_value_t = 512)]
    max: usize,
    /// Which samples are taken of a class that has more: in the order of their distances, as the paper does
    /// (memorized nearest to the training set, spurious nearest to another sample, generalized furthest from
    /// all), which picks the extremes of the class; or a seeded draw, which stands for it. Of training images
    /// it is always the first
    #[arg(long, default_value = "order")]
    pick: Way,
    /// Seed of that draw
    #[arg(long, value_name = "SEED", default_value_t = SEED)]
    pick_seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Order,
    Random,
}

/// A run that was opened, with the cell that it is of.
pub struct Found {
    /// The run and its score.
    pub opened: Opened,
    /// Its process.
    pub vp: Vp,
    /// The cell; none of a plain training run.
    pub cell: Option<LabelledSamples>,
    max: usize,
    pick: Pick,
    seed: u64,
}

/// Images to measure at.
pub struct Images {
    /// A row an image, values in [-1, 1], `[m, N]`.
    pub rows: Array2<f32>,
    /// Row of each among the cell's samples, or in the training set.
    pub ids: Vec<usize>,
}

impl Images {
    /// SHA-256 of numbers and values.
    pub fn sha256(&self) -> String {
        let ids = self.ids.iter().flat_map(|id| (*id as u64).to_le_bytes());
        let values = self.rows.iter().flat_map(|v| v.to_le_bytes());
        sha256_hex(&ids.chain(values).collect::<Vec<u8>>())
    }
}

impl Chosen {
    /// Opens the run, which has to be of the process vp, and reads the cell's samples.
    pub fn open(&self) -> Result<Found, Failure> {
        if self.max == 0 {
            return Err(Failure::Option { option: "--max", reason: "is 0, expected at least 1".into() });
        }
        let folder = self.source.folder();
        let cell = LabelledSamples::is_at(folder)
            .then(|| LabelledSamples::open(folder))
            .transpose()
            .map_err(Error::from)?;
        if cell.is_some() && !folder.join("train").is_dir() {
            let reason = format!(
                "{} has no network; for the exact score take the cell of a network with the same training set \
                 and --score exact",
                folder.display()
            );
            return Err(Failure::Option { option: "--run", reason });
        }
        let opened = self.source.open()?;
        let TrainedProcess::Vp(vp) = opened.run.process().clone() else {
            let reason = "the process of the run is ve, expected vp".into();
            return Err(Failure::Option { option: "--run", reason });
        };
        if let Some(cell) = &cell {
            let (found, n) = (cell.samples.ncols(), opened.run.shape().len());
            if found != n {
                let reason = format!("samples of {found} numbers, and a network of {n}");
                return Err(Failure::Option { option: "--run", reason });
            }
        }
        let pick = match self.pick {
            Way::Order => Pick::Order,
            Way::Random => Pick::Random,
        };
        Ok(Found { opened, vp, cell, max: self.max, pick, seed: self.pick_seed })
    }
}

impl Found {
    /// The images of a group: none where no sample is of the class.
    pub fn images(&self, group: Group) -> Result<Images, Failure> {
        let Group::Samples(class) = group else {
            let data = self.opened.run.data(&Layout::find()).map_err(Error::from)?;
            let count = data.len().min(self.max);
            return Ok(Images {
                rows: data.rows().slice(s![..count, ..]).to_owned(),
                ids: (0..count).collect(),
            });
        };
        let Some(cell) = &self.cell else {
            let reason =
                format!("{group} samples are those of a cell of a sweep, and --run is a training run");
            return Err(Failure::Option { option: "--class", reason });
        };
        let ids = cell.pick(class, self.max, self.pick, self.seed);
        let rows = cell.samples.select(Axis(0), &ids);
        if let Some(((row, _), value)) = rows.indexed_iter().find(|(_, v)| !v.is_finite()) {
            let reason = format!("sample {} of {} holds {value}", ids[row], cell.path.display());
            return Err(Failure::Option { option: "--run", reason });
        }
        Ok(Images { rows, ids })
    }
}

/// Finished pieces of a result, kept beside it in OUT.partial; only calls with the same settings share them.
pub fn pieces(out: &Path, settings: &Value) -> Cells {
    Cells::at(partial(out).join(&sha256_hex(settings.to_string().as_bytes())[..16]))
}

/// Removes all pieces, once the result is there.
pub fn forget_pieces(out: &Path) -> Result<(), Error> {
    Ok(Cells::at(partial(out)).clear()?)
}

fn partial(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}
