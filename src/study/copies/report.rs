//! The folder of results: `labels.parquet`, `fractions.json`, histograms and the contact sheet.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::figure::{Example, contact_sheet, distances};
use super::frame::{Names, labels_frame};
use super::{Copies, CopiesError};
use crate::class::Class;
use crate::data::ImageSet;
use crate::data::image_set::{Format, Values};
use crate::detect::{Classification, Neighbour, Origin, Share, examples};
use crate::frame::write_parquet_with;
use crate::metric::Metric;
use crate::plot::style::{GRAY, OLIVE};
use crate::store::{write_atomic, write_folder};

/// Samples of a class on the contact sheet.
const COLUMNS: usize = 8;

/// One input in [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// Its path, as given.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Number of images.
    pub images: usize,
    /// Height, width and channels; `None` when the file does not give them.
    pub shape: Option<[usize; 3]>,
    /// Range and percentiles of the values.
    pub values: Values,
    /// What was read, passed over and done to it.
    pub said: String,
}

impl Input {
    fn new(set: &ImageSet) -> Self {
        Self {
            path: set.path().to_path_buf(),
            format: set.format(),
            images: set.len(),
            shape: set.shape().map(|s| [s.height, s.width, s.channels]),
            values: *set.values(),
            said: set.said(),
        }
    }
}

/// Contents of `fractions.json`.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of the program.
    pub version: &'static str,
    /// The distance.
    pub metric: Metric,
    /// Device of the search for neighbours.
    pub device: String,
    /// D.
    pub train: Input,
    /// S.
    pub synthetic: Input,
    /// Held-out images.
    pub held_out: Option<Input>,
    /// Thresholds and fractions.
    #[serde(flatten)]
    pub classification: &'a Classification,
    /// Figures that are not in the folder, each with the reason.
    pub not_drawn: Vec<String>,
}

/// A row of the contact sheet: a class, its fraction and its samples.
type Row = (Class, Share, Vec<Example>);

impl Copies {
    /// Why thresholds are not known; empty when every sample has a label.
    pub fn unknown_thresholds(&self) -> Vec<String> {
        [&self.classification.delta_m, &self.classification.delta_s]
            .into_iter()
            .filter(|threshold| threshold.origin == Origin::Unknown)
            .map(|threshold| threshold.because.clone())
            .collect()
    }

    /// Contents of `fractions.json`. `not_drawn` are the figures that were left out.
    pub fn report(&self, not_drawn: Vec<String>) -> Report<'_> {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            metric: self.metric,
            device: self.neighbours.device.to_string(),
            train: Input::new(self.images.train()),
            synthetic: Input::new(self.images.synthetic()),
            held_out: self.images.held_out().map(Input::new),
            classification: &self.classification,
            not_drawn,
        }
    }

    /// Writes the folder `path`, which must not exist or be empty: all of it or nothing.
    ///
    /// # Errors
    /// As [`write_folder`], [`labels_frame`], [`distances`] and [`contact_sheet`].
    pub fn write(&self, path: &Path) -> Result<(), CopiesError> {
        write_folder(path, |folder| {
            self.write_labels(&folder.join("labels.parquet"))?;
            let not_drawn = [self.draw_distances(folder)?, self.draw_examples(folder)?].concat();
            let report = self.report(not_drawn);
            write_atomic(&folder.join("fractions.json"), |w| {
                serde_json::to_writer_pretty(&mut *w, &report)?;
                writeln!(w)
            })?;
            Ok(())
        })
    }

    fn write_labels(&self, file: &Path) -> Result<(), CopiesError> {
        let names = Names { train: self.images.train().files(), synthetic: self.images.synthetic().files() };
        let frame = labels_frame(&self.neighbours, self.classification.labels.as_deref(), names)?;
        write_parquet_with(file, &frame, &[("device", &self.neighbours.device.to_string())])?;
        Ok(())
    }

    /// Draws both histograms; gives those that have nothing to show.
    fn draw_distances(&self, folder: &Path) -> Result<Vec<String>, CopiesError> {
        let Self { neighbours, classification, .. } = self;
        let known =
            |near: &[Option<Neighbour>]| -> Vec<f64> { near.iter().flatten().map(|n| n.distance).collect() };
        let mut not_drawn = Vec::new();
        for (id, title, name, samples, held_out, threshold, colour) in [
            (
                "d_train",
                "Distance to the training set",
                "d(x, D)",
                known(&neighbours.train),
                neighbours.held_out.as_deref(),
                &classification.delta_m,
                OLIVE,
            ),
            (
                "d_synthetic",
                "Distance to the other samples",
                "d(x, S \\ x)",
                known(&neighbours.synthetic),
                None,
                &classification.delta_s,
                GRAY,
            ),
        ] {
            if samples.is_empty() {
                not_drawn.push(format!("{id}: there is no {name}"));
            } else {
                distances(title, name, &samples, held_out, neighbours.least, threshold, colour)?
                    .save(folder, id)?;
            }
        }
        Ok(not_drawn)
    }

    /// Draws the contact sheet, or says why there is none.
    fn draw_examples(&self, folder: &Path) -> Result<Vec<String>, CopiesError> {
        if self.shape.is_none() {
            return Ok(vec!["examples: the inputs do not say the shape of an image".to_owned()]);
        }
        let Some(classes) = self.sheet()? else {
            return Ok(vec!["examples: no sample has a class".to_owned()]);
        };
        contact_sheet("Samples, with the nearest of D above and of S below", &classes)?
            .save(folder, "examples")?;
        Ok(vec![])
    }

    /// Samples of each class with their neighbours; `None` when there is no shape, no label or no valid sample.
    fn sheet(&self) -> Result<Option<Vec<Row>>, CopiesError> {
        let Self { images, neighbours, classification, .. } = self;
        let (Some(shape), Some(labels), Some(fractions)) =
            (self.shape, &classification.labels, &classification.fractions)
        else {
            return Ok(None);
        };
        let captioned = |set: &ImageSet, near: Neighbour| -> Result<_, CopiesError> {
            Ok((set.picture(near.index, shape)?, near.distance))
        };
        let example = |i: usize| -> Result<Example, CopiesError> {
            let near = neighbours.train[i].expect("a sample with a class has a nearest training image");
            Ok(Example {
                sample: images.synthetic().picture(i, shape)?,
                train: captioned(images.train(), near)?,
                synthetic: neighbours.synthetic[i]
                    .map(|near| captioned(images.synthetic(), near))
                    .transpose()?,
            })
        };
        let classes = [Class::Memorized, Class::Spurious, Class::Generalized]
            .into_iter()
            .map(|class| {
                let chosen = examples(neighbours, labels, class, COLUMNS);
                let shown = chosen.into_iter().map(example).collect::<Result<Vec<_>, _>>()?;
                Ok((class, *fractions.get(class), shown))
            })
            .collect::<Result<Vec<Row>, CopiesError>>()?;
        Ok(classes.iter().any(|(.., shown)| !shown.is_empty()).then_some(classes))
    }
}
