//! The inputs: training, synthetic and held-out images.

use std::path::Path;

use crate::data::image_set::reconcile;
use crate::data::{DataError, ImageSet};
use crate::shape::Shape;

/// The images to compare: the training set D, the synthetic set S and, where given, held-out images.
#[derive(Debug, Clone)]
pub struct Images {
    /// D, S and the held-out images, in this order.
    sets: Vec<ImageSet>,
}

impl Images {
    /// The images of sets that are already in memory.
    pub fn new(train: ImageSet, synthetic: ImageSet, held_out: Option<ImageSet>) -> Self {
        Self { sets: [train, synthetic].into_iter().chain(held_out).collect() }
    }

    /// Reads the sets. `tensor` is the name of the tensor in `.safetensors` files that hold several.
    ///
    /// # Errors
    /// As [`ImageSet::read`].
    pub fn read(
        train: &Path,
        synthetic: &Path,
        held_out: Option<&Path>,
        tensor: Option<&str>,
    ) -> Result<Self, DataError> {
        let read = |path| ImageSet::read(path, tensor);
        Ok(Self::new(read(train)?, read(synthetic)?, held_out.map(read).transpose()?))
    }

    /// D.
    pub fn train(&self) -> &ImageSet {
        &self.sets[0]
    }

    /// S.
    pub fn synthetic(&self) -> &ImageSet {
        &self.sets[1]
    }

    /// Real images that were not trained on.
    pub fn held_out(&self) -> Option<&ImageSet> {
        self.sets.get(2)
    }

    /// All sets: D, S and, where given, the held-out images.
    pub fn sets(&self) -> &[ImageSet] {
        &self.sets
    }

    /// Number of images of all sets.
    pub fn count(&self) -> usize {
        self.sets.iter().map(|set| set.rows().nrows()).sum()
    }

    /// Brings the sets to one shape, as [`reconcile`].
    ///
    /// # Errors
    /// As [`reconcile`].
    pub(super) fn reconcile(&mut self, any_range: bool) -> Result<Option<Shape>, DataError> {
        reconcile(&mut self.sets, any_range)
    }
}
