//! Data sets of a sweep, each read once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Error;
use crate::data::{Dataset, Split, load};
use crate::project::Layout;
use crate::study::sweep::plan::Task;
use crate::train::TrainingData;

/// The data sets and held-out images that were read.
pub(crate) struct Bench {
    layout: Layout,
    train: HashMap<String, Dataset>,
    held_out: HashMap<String, Arc<TrainingData>>,
}

impl Bench {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), train: HashMap::new(), held_out: HashMap::new() }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The training split of a data set.
    pub(crate) fn open(&mut self, dataset: &str) -> Result<&Dataset, Error> {
        if !self.train.contains_key(dataset) {
            let read = load(&self.layout, dataset, Split::Train)?;
            self.train.insert(dataset.to_owned(), read);
        }
        Ok(&self.train[dataset])
    }

    /// The training set of a cell, the same as training reads from the cell's settings.
    pub(crate) fn training(&mut self, task: &Task) -> Result<TrainingData, Error> {
        Ok(TrainingData::of_images(&self.open(&task.dataset)?.subset(task.k)?, task.size)?)
    }

    /// The first `count` test images; `None` for 0.
    pub(crate) fn held_out(
        &mut self,
        dataset: &str,
        size: usize,
        count: usize,
    ) -> Result<Option<Arc<TrainingData>>, Error> {
        if count == 0 {
            return Ok(None);
        }
        if let Some(held_out) = self.held_out.get(dataset) {
            return Ok(Some(held_out.clone()));
        }
        let test = load(&self.layout, dataset, Split::Test)?;
        let some = test.select(&(0..count).collect::<Vec<_>>())?;
        let made = Arc::new(TrainingData::of_images(&some, size)?);
        self.held_out.insert(dataset.to_owned(), made.clone());
        Ok(Some(made))
    }
}
