use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ndarray::{ArcArray2, Array2, Axis, s};

use super::{Choice, LabelledSamples, ScoreOptions, TrainedScore};
use crate::Error;
use crate::class::Group;
use crate::process::Vp;
use crate::project::Layout;
use crate::score::Score;
use crate::shape::Shape;
use crate::store::sha256_hex;
use crate::study::error::StudyError;
use crate::train::{TrainError, TrainedProcess};

/// One trained network, or the exact score of its training set, with the training set and the labelled samples.
///
/// ```no_run
/// use mem2gen::class::Group;
/// use mem2gen::prelude::*;
/// use mem2gen::study::basin::{Distance, measure};
/// use mem2gen::study::context::{Context, Profile};
/// use mem2gen::study::subject::{Choice, Pick, Subject};
/// use mem2gen::project::Layout;
///
/// let context = Context::new(Layout::find(), Profile::named("desk")?);
/// let subject = Subject::published(&context, "mnist-mlp", "mnist-7-mlp128-k128-s3407")?;
/// let one = Choice { max: 1, ..Choice::default() };
/// let images = subject.images(Group::MEMORIZED, &one)?;
/// let params = BasinSettings::default().check(subject.delta_m())?;
/// let rows = measure(&subject, &images, &params, &Distance::l2(), None, context.reporter())?;
/// println!("t_c = {}, log V = {}", rows[0].t_c, rows[0].log_volume);
/// # Ok::<(), Error>(())
/// ```
pub struct Subject {
    path: PathBuf,
    layout: Layout,
    trained: TrainedScore,
    vp: Vp,
    samples: Option<LabelledSamples>,
    training: OnceLock<ArcArray2<f32>>,
}

/// Images of one group that are measured together.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// The group.
    pub group: Group,
    /// Row of each image among the cell's samples, or in the training set, `[m]`.
    pub ids: Vec<usize>,
    /// The images, `[m, N]`, values in [-1, 1].
    pub rows: Array2<f32>,
}

impl Images {
    /// Number of images, m.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// SHA-256 of ids and values.
    pub fn sha256(&self) -> String {
        let ids = self.ids.iter().flat_map(|id| (*id as u64).to_le_bytes());
        let values = self.rows.iter().flat_map(|v| v.to_le_bytes());
        sha256_hex(&ids.chain(values).collect::<Vec<u8>>())
    }
}

impl Subject {
    /// Opens the folder of a training run, which has no samples, or of a finished cell of a sweep.
    ///
    /// # Errors
    /// [`StudyError::Subject`] for a cell without a network, a process other than vp, and samples of another length
    /// than the training images; those of [`LabelledSamples::open`] and [`TrainedScore::open`].
    pub fn open(folder: &Path, layout: &Layout, options: &ScoreOptions) -> Result<Self, Error> {
        let refused = |reason: String| StudyError::Subject { path: folder.into(), reason };
        let samples = LabelledSamples::is_at(folder).then(|| LabelledSamples::open(folder)).transpose()?;
        if samples.is_some() && !folder.join("train").is_dir() {
            let reason = "the cell has no network; for the exact score open the cell of a network with the same \
                          training set and --score exact";
            return Err(refused(reason.into()).into());
        }
        let trained = TrainedScore::open(folder, layout, options)?;
        let TrainedProcess::Vp(vp) = trained.run().process().clone() else {
            return Err(refused("the process of the run is ve, expected vp".into()).into());
        };
        if let Some(samples) = &samples {
            let (found, expected) = (samples.samples.ncols(), trained.run().shape().len());
            if found != expected {
                let reason = format!("samples have {found} values, the training images {expected}");
                return Err(refused(reason).into());
            }
        }
        Ok(Self {
            path: folder.into(),
            layout: layout.clone(),
            trained,
            vp,
            samples,
            training: OnceLock::new(),
        })
    }

    /// The folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The score with its training run.
    pub fn trained(&self) -> &TrainedScore {
        &self.trained
    }

    /// The score.
    pub fn score(&self) -> &dyn Score {
        self.trained.score()
    }

    /// The process that the network was trained on.
    pub fn vp(&self) -> &Vp {
        &self.vp
    }

    /// Shape of one image.
    pub fn shape(&self) -> Shape {
        self.trained.run().shape()
    }

    /// Size of the training set, K.
    ///
    /// # Errors
    /// [`TrainError::UnknownData`] for an imported network without a training set.
    pub fn k(&self) -> Result<usize, Error> {
        match self.trained.run().params().settings().data.k() {
            Some(k) => Ok(k),
            None => Ok(self.trained.run().data(&self.layout)?.len()),
        }
    }

    /// The labelled samples; `None` for a training run outside a sweep.
    pub fn samples(&self) -> Option<&LabelledSamples> {
        self.samples.as_ref()
    }

    /// delta_m of Eq. 9, in the distance that the samples were labelled with; `None` when it is not known.
    pub fn delta_m(&self) -> Option<f64> {
        self.samples.as_ref().and_then(|samples| samples.delta_m)
    }

    /// The training set, `[K, N]`, values in [-1, 1]. It is read once.
    ///
    /// # Errors
    /// [`TrainError`] for a data set that can't be read or is not the one of the run.
    pub fn training(&self) -> Result<&ArcArray2<f32>, Error> {
        if let Some(training) = self.training.get() {
            return Ok(training);
        }
        let data = self.trained.run().data(&self.layout)?;
        Ok(self.training.get_or_init(|| data.rows().clone()))
    }

    /// At most `most` images of the same data set that are not in the training set, `[m, N]`, values in [-1, 1]; `None`
    /// when there is none.
    ///
    /// # Errors
    /// [`TrainError`] for a data set that can't be read or is not the one of the run.
    pub fn held_out(&self, most: usize) -> Result<Option<ArcArray2<f32>>, Error> {
        match self.trained.run().source(&self.layout)?.0.held_out(most) {
            Ok(data) => Ok(Some(data.rows().clone())),
            Err(TrainError::NoneHeldOut { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// At most `choice.max` images of a group; no images when the group has none.
    ///
    /// # Errors
    /// [`StudyError::NoSamples`] for samples of a training run outside a sweep; [`StudyError::Subject`] for a sample
    /// with NaN or infinity; those of [`Self::training`].
    pub fn images(&self, group: Group, choice: &Choice) -> Result<Images, Error> {
        let Group::Samples(class) = group else {
            let training = self.training()?;
            let count = training.nrows().min(choice.max);
            return Ok(Images {
                group,
                ids: (0..count).collect(),
                rows: training.slice(s![..count, ..]).to_owned(),
            });
        };
        let Some(samples) = &self.samples else {
            return Err(StudyError::NoSamples { path: self.path.clone(), group }.into());
        };
        let ids = samples.pick(class, choice);
        let rows = samples.samples.select(Axis(0), &ids);
        if let Some(((row, _), value)) = rows.indexed_iter().find(|(_, v)| !v.is_finite()) {
            let reason = format!("sample {} holds {value}", ids[row]);
            return Err(StudyError::Subject { path: self.path.clone(), reason }.into());
        }
        Ok(Images { group, ids, rows })
    }
}
