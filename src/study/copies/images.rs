//! The inputs: training, synthetic and held-out images.

use crate::data::image_set::{Together, reconcile};
use crate::data::{DataError, ImageSet, Input};
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

    /// Reads the sets.
    ///
    /// # Errors
    /// As [`Input::read`].
    pub fn read(train: &Input, synthetic: &Input, held_out: Option<&Input>) -> Result<Self, DataError> {
        Ok(Self::new(train.read()?, synthetic.read()?, held_out.map(Input::read).transpose()?))
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
        self.sets.iter().map(ImageSet::len).sum()
    }

    /// What was read, one line a set.
    pub fn said(&self) -> Vec<String> {
        let names = ["training set", "samples", "held-out images"];
        names.iter().zip(&self.sets).map(|(name, set)| format!("{name}: {}", set.said())).collect()
    }

    /// Notes how many held-out images count as training images.
    pub(super) fn held_out_equal(&mut self, equal: usize) {
        if let Some(set) = self.sets.get_mut(2).filter(|_| equal > 0) {
            let all = set.len();
            set.note(format!("{equal} of {all} count as training images and say nothing of what is near"));
        }
    }

    /// Brings the sets to one shape and range, as [`reconcile`].
    ///
    /// # Errors
    /// As [`reconcile`].
    pub(super) fn reconcile(&mut self, how: Together) -> Result<Option<Shape>, DataError> {
        reconcile(&mut self.sets, how)
    }
}
