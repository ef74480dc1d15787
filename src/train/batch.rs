//! Batches: data, times and noise as functions of the step.

use super::settings::{TrainParams, TrainedProcess};
use super::{TrainError, TrainingData};
use crate::process::{Prediction, Process, Ve};
use crate::random::{Places, Stream};

/// A batch of noisy rows with times and targets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// x_t, `[rows, N]`.
    pub x: Vec<f32>,
    /// Times, `[rows]`.
    pub t: Vec<f32>,
    /// Conditions, `[rows, C]`: the captions' vectors, zeros where a caption was dropped. Empty without captions.
    pub condition: Vec<f32>,
    /// Targets of the network, `[rows, N]`.
    pub target: Vec<f32>,
    /// Key of the dropout in this step.
    pub dropout: u64,
}

/// Distribution of times, with the noise levels.
enum Times {
    /// alpha and sigma of every level.
    Levels(Vec<(f32, f32)>),
    /// Uniform from `from` to the horizon.
    Uniform { ve: Ve, from: f64 },
}

/// Source of batches.
pub struct Batches<'a> {
    data: &'a TrainingData,
    seed: u64,
    rows: usize,
    prediction: Prediction,
    kernel: Times,
    times: Places,
    noise: Places,
    dropout: Places,
    order: Order,
    /// Draws the captions that are dropped.
    captions: Places,
    caption_drop: f64,
}

/// Which row of the training set comes next.
enum Order {
    /// Each row once in an epoch.
    Epochs {
        /// The epoch that `order` belongs to.
        epoch: Option<u64>,
        order: Vec<usize>,
    },
    /// Drawn independently, in proportion to doses.
    Doses {
        /// The sums of the first 1, 2, ... doses.
        sums: Vec<f64>,
        places: Places,
    },
}

impl<'a> Batches<'a> {
    /// Batches of a training set.
    ///
    /// # Errors
    /// [`TrainError::Process`].
    pub fn new(params: &TrainParams, data: &'a TrainingData) -> Result<Self, TrainError> {
        let settings = params.settings();
        let kernel = match params.process() {
            TrainedProcess::Vp(vp) => {
                let levels = 0..vp.settings().levels;
                let kernel = |t: usize| vp.level(t as f64).map(|l| (l.alpha() as f32, l.sigma() as f32));
                Times::Levels(levels.map(kernel).collect::<Result<_, _>>()?)
            }
            TrainedProcess::Ve(ve) => Times::Uniform { ve: *ve, from: params.first_time() },
        };
        let seed = settings.seed;
        Ok(Self {
            data,
            seed,
            rows: params.rows(data.len()),
            prediction: settings.prediction,
            kernel,
            times: Places::new(seed, "train times"),
            noise: Places::new(seed, "train noise"),
            dropout: Places::new(seed, "train dropout"),
            order: match data.doses() {
                None => Order::Epochs { epoch: None, order: vec![] },
                Some(doses) => Order::Doses {
                    sums: doses
                        .iter()
                        .scan(0.0, |sum, dose| {
                            *sum += dose;
                            Some(*sum)
                        })
                        .collect(),
                    places: Places::new(seed, "train doses"),
                },
            },
            captions: Places::new(seed, "train captions"),
            caption_drop: settings.caption_drop,
        })
    }

    /// Number of rows of a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The step's rows of the training set.
    ///
    /// An epoch is the whole batches of one permutation; remaining rows are dropped. A batch larger than the training set is
    /// an epoch and repeats rows.
    fn seek(&mut self, step: u64) -> Vec<usize> {
        let (k, rows) = (self.data.len(), self.rows);
        match &mut self.order {
            Order::Epochs { epoch, order } => {
                let batches = (k / rows).max(1) as u64;
                let now = step / batches;
                if *epoch != Some(now) {
                    *order = Stream::new(self.seed, &format!("train order/{now}")).permutation(k);
                    *epoch = Some(now);
                }
                let first = (step % batches) as usize * rows;
                (first..first + rows).map(|place| order[place % k]).collect()
            }
            Order::Doses { sums, places } => {
                let total = sums[k - 1];
                let drawn = |row: usize| uniform(places.bits(step, row as u64)[0]) * total;
                (0..rows).map(|row| sums.partition_point(|sum| *sum <= drawn(row)).min(k - 1)).collect()
            }
        }
    }

    /// Fills the batch of a step, counted from 0.
    ///
    /// # Errors
    /// [`TrainError::Process`].
    pub fn fill(&mut self, step: u64, batch: &mut Batch) -> Result<(), TrainError> {
        let (rows, n) = (self.rows, self.data.shape().len());
        batch.rows = rows;
        batch.x.resize(rows * n, 0.0);
        batch.target.resize(rows * n, 0.0);
        batch.t.resize(rows, 0.0);
        batch.dropout = self.dropout.bits(step, 0)[0];
        // The noise is drawn into the targets, which replace it.
        self.noise.normal(step, &mut batch.target);
        let indices = self.seek(step);
        batch.condition.clear();
        if let Some(vectors) = self.data.captions() {
            for (row, index) in indices.iter().enumerate() {
                let kept = uniform(self.captions.bits(step, row as u64)[0]) >= self.caption_drop;
                batch.condition.extend(vectors.row(*index).iter().map(|v| if kept { *v } else { 0.0 }));
            }
        }
        let data = self.data.rows().as_slice().expect("a training set is stored in standard layout");
        for (row, index) in indices.into_iter().enumerate() {
            let bits = self.times.bits(step, row as u64)[0];
            let (t, alpha, sigma) = match &self.kernel {
                Times::Levels(levels) => {
                    let t = ((u128::from(bits) * levels.len() as u128) >> 64) as usize;
                    (t as f32, levels[t].0, levels[t].1)
                }
                Times::Uniform { ve, from } => {
                    let t = (from + (ve.horizon() - from) * uniform(bits)).min(ve.horizon());
                    let level = ve.level(t)?;
                    (t as f32, level.alpha() as f32, level.sigma() as f32)
                }
            };
            batch.t[row] = t;
            let x0 = &data[index * n..][..n];
            let (x, target) = (&mut batch.x[row * n..][..n], &mut batch.target[row * n..][..n]);
            for ((x, z), &x0) in x.iter_mut().zip(target).zip(x0) {
                *x = alpha * x0 + sigma * *z;
                *z = match self.prediction {
                    Prediction::Epsilon => *z,
                    Prediction::X0 => x0,
                    Prediction::V => alpha * *z - sigma * x0,
                    Prediction::Score => -*z / sigma,
                };
            }
        }
        Ok(())
    }
}

/// A uniform number in [0, 1) from the first 53 bits.
fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Level, VpSettings};
    use crate::shape::Shape;
    use crate::train::settings::tests::tiny;
    use crate::train::settings::{ProcessSettings, TrainSettings, VeTraining};
    use ndarray::Array2;

    fn data(k: usize, n: usize) -> TrainingData {
        let rows = Array2::from_shape_fn((k, n), |(i, j)| i as f32 + 0.01 * j as f32);
        TrainingData::new(rows, Shape::vector(n)).unwrap()
    }

    fn params(k: usize, n: usize, batch: usize, change: impl Fn(&mut TrainSettings)) -> TrainParams {
        let mut settings =
            TrainSettings { process: ProcessSettings::Vp(VpSettings::default()), batch, ..tiny(k, 10) };
        change(&mut settings);
        settings.check(Shape::vector(n)).unwrap()
    }

    /// The data of a step, recovered from x and the target, with the level of each row.
    fn taken(params: &TrainParams, data: &TrainingData, step: u64) -> Vec<(usize, Level)> {
        let (mut batch, n) = (Batch::default(), data.shape().len());
        Batches::new(params, data).unwrap().fill(step, &mut batch).unwrap();
        assert_eq!(batch.rows, params.rows(data.len()));
        (0..batch.rows)
            .map(|row| {
                let level = params.process().as_process().level(f64::from(batch.t[row])).unwrap();
                let (x, target) = (&batch.x[row * n..][..n], &batch.target[row * n..][..n]);
                let x0 = level.convert(
                    f64::from(x[0]),
                    f64::from(target[0]),
                    params.settings().prediction,
                    Prediction::X0,
                );
                (x0.round() as usize, level)
            })
            .collect()
    }

    #[test]
    fn an_epoch_takes_every_datum_once_and_drops_the_rest() {
        let (data, params) = (
            data(11, 3),
            params(11, 3, 4, |s| {
                s.process = ProcessSettings::Ve(VeTraining::default());
                s.prediction = Prediction::X0;
            }),
        );
        let mut orders = vec![];
        for epoch in 0..3 {
            let mut seen: Vec<usize> =
                (0..2).flat_map(|b| taken(&params, &data, 2 * epoch + b)).map(|(i, _)| i).collect();
            orders.push(seen.clone());
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 8);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    }

    #[test]
    fn a_batch_is_no_larger_than_the_data_unless_data_are_repeated() {
        let data = data(3, 2);
        let ve = |s: &mut TrainSettings| {
            s.process = ProcessSettings::Ve(VeTraining::default());
            s.prediction = Prediction::X0;
        };
        assert_eq!(taken(&params(3, 2, 7, ve), &data, 5).len(), 3);
        let repeated = params(3, 2, 7, |s| {
            ve(s);
            s.repeat = true;
        });
        let mut counts = [0; 3];
        for (i, _) in taken(&repeated, &data, 5) {
            counts[i] += 1;
        }
        counts.sort_unstable();
        assert_eq!(counts, [2, 2, 3]);
    }

    #[test]
    fn rows_are_drawn_in_proportion_to_doses_and_captions_are_dropped() {
        let doses = vec![1.0, 0.5, 6.0, 2.5];
        let vectors = Array2::from_shape_fn((4, 2), |(i, j)| (1 + i) as f32 + 10.0 * j as f32);
        let with = |drop: f64| {
            let data = data(4, 3).with_captions(vectors.clone(), doses.clone()).unwrap();
            (
                data,
                params(4, 3, 64, |s| {
                    s.prediction = Prediction::X0;
                    s.repeat = true;
                    s.caption_drop = drop;
                }),
            )
        };
        let (data, params) = with(0.25);
        let (mut counts, mut dropped, mut batch) = ([0usize; 4], 0, Batch::default());
        let mut batches = Batches::new(&params, &data).unwrap();
        for step in 0..200 {
            batches.fill(step, &mut batch).unwrap();
            assert_eq!((batch.rows, batch.condition.len()), (64, 128));
            for (x0, c) in batch.target.chunks_exact(3).zip(batch.condition.chunks_exact(2)) {
                let index = x0[0] as usize;
                counts[index] += 1;
                match c == [0.0, 0.0] {
                    true => dropped += 1,
                    false => assert_eq!(c, [1.0 + index as f32, 11.0 + index as f32]),
                }
            }
        }
        // Of 12800: five standard deviations.
        let near = |found: usize, p: f64| {
            let n = 12_800.0;
            assert!((found as f64 - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{found}, {p}");
        };
        for (count, dose) in counts.into_iter().zip(&doses) {
            near(count, dose / 10.0);
        }
        near(dropped, 0.25);
        // A step is a function of its number alone.
        let (mut again, mut all) = (Batch::default(), Batches::new(&params, &data).unwrap());
        all.fill(199, &mut again).unwrap();
        assert_eq!(again, batch);
        let (data, params) = with(0.0);
        Batches::new(&params, &data).unwrap().fill(0, &mut batch).unwrap();
        assert!(batch.condition.iter().all(|v| *v > 0.0));

        let plain = super::tests::data(4, 3);
        let other = |vectors: Array2<f32>, doses: Vec<f64>| plain.clone().with_captions(vectors, doses);
        assert_ne!(plain.sha256(), data.sha256());
        let mut more = doses.clone();
        more[0] = 2.0;
        assert_ne!(other(vectors.clone(), more).unwrap().sha256(), data.sha256());
        assert_ne!(other(&vectors + 1.0, doses.clone()).unwrap().sha256(), data.sha256());
        for (vectors, doses, word) in [
            (Array2::zeros((3, 2)), doses.clone(), "captions"),
            (Array2::zeros((4, 0)), doses.clone(), "captions"),
            (Array2::from_elem((4, 2), f32::NAN), doses.clone(), "captions"),
            (vectors.clone(), vec![1.0; 3], "doses"),
            (vectors.clone(), vec![1.0, 0.0, 1.0, 1.0], "doses"),
        ] {
            assert!(other(vectors, doses).unwrap_err().to_string().contains(word), "{word}");
        }
    }

    #[test]
    fn targets_are_the_predictions_of_the_same_datum_and_noise() {
        let data = data(40, 5);
        let batch = |prediction, ve: bool| {
            let params = params(40, 5, 40, |s| {
                s.prediction = prediction;
                if ve {
                    s.process = ProcessSettings::Ve(VeTraining { sigma: 2.0, ..VeTraining::default() });
                }
            });
            let mut batch = Batch::default();
            Batches::new(&params, &data).unwrap().fill(3, &mut batch).unwrap();
            (batch, params)
        };
        for ve in [false, true] {
            let (x0, params) = batch(Prediction::X0, ve);
            for prediction in [Prediction::Epsilon, Prediction::V] {
                let (other, _) = batch(prediction, ve);
                assert_eq!((&other.x, &other.t), (&x0.x, &x0.t));
                for i in 0..200 {
                    let level = params.process().as_process().level(f64::from(x0.t[i / 5])).unwrap();
                    let (x, value) = (f64::from(x0.x[i]), f64::from(other.target[i]));
                    let back = level.convert(x, value, prediction, Prediction::X0);
                    // x has an error of 1e-7 of data up to 40 and noise up to 10, which alpha divides.
                    let tolerance = 1e-5 / level.alpha();
                    assert!((back - f64::from(x0.target[i])).abs() < tolerance, "{prediction:?} {level:?}");
                }
            }
        }
    }

    #[test]
    fn times_are_uniform_and_differ_between_steps() {
        let k = 1000;
        let data = data(k, 1);
        let (vp, ve) = (
            params(k, 1, k, |_| ()),
            params(k, 1, k, |s| {
                s.process = ProcessSettings::Ve(VeTraining { from: 0.5, ..VeTraining::default() });
            }),
        );
        let times = |params: &TrainParams, step| {
            let mut batch = Batch::default();
            Batches::new(params, &data).unwrap().fill(step, &mut batch).unwrap();
            (batch.t, batch.dropout)
        };
        let (mut sum, mut seen) = (0.0, [false; 1000]);
        for step in 0..20 {
            for t in times(&vp, step).0 {
                assert!(t.fract() == 0.0 && (0.0..1000.0).contains(&t));
                seen[t as usize] = true;
                sum += f64::from(t);
            }
            assert!(times(&ve, step).0.iter().all(|t| (0.5..=1.0).contains(t)));
        }
        // The mean of 20,000 has a standard deviation of 2.04: five of those. A level is missed with a chance of
        // e^-20.
        assert!((sum / 20_000.0 - 499.5).abs() < 10.3 && seen.iter().all(|&s| s), "{sum}");
        assert_ne!(times(&vp, 0), times(&vp, 1));
        assert_eq!(times(&vp, 1), times(&vp, 1));
    }
}
