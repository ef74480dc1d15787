use ndarray::{ArcArray2, ArrayView2, Axis, s};

use crate::Error;
use crate::class::Class;
use crate::detect::{DetectError, Neighbours, Sets, examples};
use crate::device::DeviceChoice;
use crate::ops::Memories;
use crate::shape::Shape;
use crate::study::sweep::plan::Task;
use crate::study::sweep::{ExampleRow, Role};
use crate::train::TrainingData;

/// The choice of a cell's examples.
pub(super) struct Picker<'a> {
    pub(super) task: &'a Task,
    pub(super) multiple: usize,
    pub(super) most: usize,
    pub(super) shape: Shape,
    pub(super) data: &'a TrainingData,
    pub(super) samples: &'a ArcArray2<f32>,
    pub(super) sets: &'a Sets,
    pub(super) device: DeviceChoice,
}

impl Picker<'_> {
    /// Samples of each class, each with its nearest neighbours in D and in its own set S.
    pub(super) fn pick(&self, found: &Neighbours, labels: &[Class]) -> Result<Vec<ExampleRow>, Error> {
        let mut rows = vec![];
        let in_set = |set: &'static str| move |source| DetectError::Set { set, source };
        let train = Memories::on(self.sets.train.clone(), self.device).map_err(in_set("training"))?;
        let power = |d: f64| if self.sets.squared { d * d } else { d };
        for class in [Class::Memorized, Class::Spurious, Class::Generalized] {
            for (example, i) in examples(found, labels, class, self.most).into_iter().enumerate() {
                let query = self.sets.synthetic.slice(s![i..=i, ..]);
                let picture = |role, rank, index: usize, distance, values: ArrayView2<'_, f32>| ExampleRow {
                    dataset: self.task.dataset.as_str().into(),
                    network: self.task.network.as_str().into(),
                    k: self.task.k,
                    seed: self.task.seed(),
                    multiple: self.multiple,
                    class,
                    example,
                    role,
                    rank,
                    index,
                    distance,
                    shape: [self.shape.height, self.shape.width, self.shape.channels],
                    pixels: values.row(index).iter().map(|v| byte(*v)).collect(),
                };
                rows.push(picture(Role::Sample, 0, i, 0.0, self.samples.view()));
                let near = train.knn(query, self.most.min(train.len()), false).map_err(in_set("training"))?;
                let pairs = near.index.iter().zip(&near.distance).enumerate();
                rows.extend(pairs.map(|(rank, (&j, &d))| {
                    picture(Role::Train, rank, j, power(d), self.data.rows().view())
                }));
                let first = i / found.each * found.each;
                let set = self.sets.synthetic.clone().slice_move(s![first..first + found.each, ..]);
                let fine: Vec<usize> = (0..found.each).filter(|j| found.train[first + j].is_some()).collect();
                let others =
                    if fine.len() == found.each { set } else { set.select(Axis(0), &fine).into_shared() };
                let others = Memories::on(others, self.device).map_err(in_set("synthetic"))?;
                // One more, because the sample itself is among them.
                let most = (self.most + 1).min(fine.len());
                let near = others.knn(query, most, false).map_err(in_set("synthetic"))?;
                let pairs = near.index.iter().map(|&j| first + fine[j]).zip(&near.distance);
                let pairs = pairs.filter(|(j, _)| *j != i).take(self.most).enumerate();
                rows.extend(
                    pairs.map(|(rank, (j, &d))| {
                        picture(Role::Synthetic, rank, j, power(d), self.samples.view())
                    }),
                );
            }
        }
        Ok(rows)
    }
}

/// A value in [-1, 1] as a byte; values outside are clamped.
fn byte(v: f32) -> u8 {
    // The cast saturates.
    (0.5 * (v + 1.0) * 255.0).round() as u8
}
