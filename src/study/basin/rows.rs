use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{BasinParams, BasinSettings};
use crate::class::Group;
use crate::detect::wilson;
use crate::random::Stream;

/// The basin of one image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BasinRow {
    /// Group of the image.
    pub group: Group,
    /// Row of the image among the samples, or in the training set.
    pub id: usize,
    /// Critical time of Alg. 1: the largest tested noise level up to which, at every tested level, at least a share
    /// `stop` of the copies was recovered.
    pub t_c: usize,
    /// Whether too few copies were recovered at the first level. That level is t_c then.
    pub floor: bool,
    /// Whether enough copies were recovered at the last level. t_c may be larger then.
    pub ceiling: bool,
    /// Critical time as the public code defines it: the mean over the copies of the largest level up to which that copy
    /// was recovered at every level, including the level at which the search stopped. The first level for a copy that
    /// was never recovered.
    pub t_copies: f64,
    /// R: mean l2 distance from the image to new copies at noise level t_c.
    pub radius: f64,
    /// log V_N(R), in nats.
    pub log_volume: f64,
    /// Number of copies recovered at each tested level, in ascending order of levels.
    pub recovered: Vec<usize>,
}

/// Number of noise draws that end at one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AttractorRow {
    /// Group of the image.
    pub group: Group,
    /// Row of the image among the samples, or in the training set.
    pub id: usize,
    /// Number of draws, shared by all images.
    pub draws: usize,
    /// Number of draws that end within delta of this image and nearest to it.
    pub count: usize,
    /// count / draws.
    pub share: f64,
    /// Lower end of the share's 95 percent Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The images at which noise draws end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttractorShares {
    /// Number of draws that end at none of the images.
    pub elsewhere: usize,
    /// One row for each image.
    pub rows: Vec<AttractorRow>,
}

/// How noise draws distribute over training images, compared with the volumes of the images' basins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AttractorSummary {
    /// Number of training images, K.
    pub k: usize,
    /// Number of noise draws.
    pub draws: usize,
    /// Share of draws that end at a training image.
    pub share: f64,
    /// Lower end of the share's 95 percent Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Number of training images whose basin was measured.
    pub images: usize,
    /// Number of these images at which a draw ends.
    pub reached: usize,
    /// Spearman's rank correlation between the number of draws at an image and the log-volume of its basin, over the
    /// measured images; `None` when either is constant.
    pub correlation: Option<f64>,
}

impl AttractorSummary {
    /// The summary of the shares of all training images and the basins of some of them.
    pub fn from_shares(shares: &AttractorShares, basins: &[BasinRow]) -> Self {
        let count: usize = shares.rows.iter().map(|row| row.count).sum();
        let draws = count + shares.elsewhere;
        let share = count as f64 / draws as f64;
        let (low, high) = wilson(share, draws);
        let pairs: Vec<(f64, f64)> = basins
            .iter()
            .filter_map(|basin| shares.rows.iter().find(|row| row.id == basin.id).map(|row| (row, basin)))
            .map(|(row, basin)| (row.count as f64, basin.log_volume))
            .collect();
        let (counts, volumes): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        Self {
            k: shares.rows.len(),
            draws,
            share,
            low,
            high,
            images: counts.len(),
            reached: counts.iter().filter(|count| **count > 0.0).count(),
            correlation: correlation(&ranks(&counts), &ranks(&volumes)),
        }
    }
}

/// The rank of each value, from 1; ties share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let (below, equal) = values.iter().fold((0, 0), |(below, equal), other| {
            (below + usize::from(other < value), equal + usize::from(other == value))
        });
        below as f64 + 0.5 * (equal as f64 + 1.0)
    };
    values.iter().map(rank).collect()
}

/// Pearson's correlation; `None` when one of the two is constant.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|v| v - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = (product(&a, &a) * product(&b, &b)).sqrt();
    (spread > 0.0).then(|| product(&a, &b) / spread)
}

/// A mean over images with its uncertainty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// Standard error of the mean; `None` for one image.
    pub error: Option<f64>,
    /// Lower end of the mean's 95 percent bootstrap interval over images.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Mean {
    /// The mean of at least one value; the bootstrap draws from the streams `basin bootstrap/NAME/i`. It treats images
    /// as independent. Copies of one training image are not, so the interval is too narrow for them.
    fn from_values(values: &[f64], resamples: usize, seed: u64, name: &str) -> Self {
        let n = values.len();
        let mean = |sum: f64| sum / n as f64;
        let centre = mean(values.iter().sum());
        let square: f64 = values.iter().map(|v| (v - centre) * (v - centre)).sum();
        let sorted = |mut v: Vec<f64>| {
            v.sort_by(f64::total_cmp);
            v
        };
        let all = sorted(values.to_vec());
        let drawn: Vec<f64> = (0..resamples)
            .into_par_iter()
            .map(|i| {
                let mut stream = Stream::new(seed, &format!("basin bootstrap/{name}/{i}"));
                mean((0..n).map(|_| values[stream.below(n as u64) as usize]).sum())
            })
            .collect();
        let drawn = sorted(drawn);
        // Without resamples the interval is the mean itself.
        let quantile = |q: f64| match drawn.len() {
            0 => centre,
            m => drawn[(q * (m - 1) as f64).round() as usize],
        };
        Self {
            mean: centre,
            median: 0.5 * (all[(n - 1) / 2] + all[n / 2]),
            error: (n > 1).then(|| (square / (n - 1) as f64 / n as f64).sqrt()),
            low: quantile(0.025),
            high: quantile(0.975),
        }
    }
}

/// The basins of one group at one K.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BasinSummary {
    /// Number of training images, K.
    pub k: usize,
    /// The group.
    pub group: Group,
    /// Number of images.
    pub images: usize,
    /// Whether there are fewer images than `least`.
    pub too_few: bool,
    /// Number of images with [`BasinRow::floor`].
    pub floor: usize,
    /// Number of images with [`BasinRow::ceiling`].
    pub ceiling: usize,
    /// log V_N(R), in nats.
    pub log_volume: Mean,
    /// t_c.
    pub critical_time: Mean,
    /// R.
    pub radius: Mean,
}

/// A summary of each group that has a row, in the order of [`Group::ALL`].
pub fn summarise(k: usize, rows: &[BasinRow], params: &BasinParams) -> Vec<BasinSummary> {
    let BasinSettings { least, resamples, seed, .. } = *params.settings();
    let summary = |group: Group| {
        let rows: Vec<&BasinRow> = rows.iter().filter(|row| row.group == group).collect();
        let mean = |name: &str, value: fn(&BasinRow) -> f64| {
            let values: Vec<f64> = rows.iter().map(|row| value(row)).collect();
            Mean::from_values(&values, resamples, seed, &format!("{k}/{group}/{name}"))
        };
        (!rows.is_empty()).then(|| BasinSummary {
            k,
            group,
            images: rows.len(),
            too_few: rows.len() < least,
            floor: rows.iter().filter(|row| row.floor).count(),
            ceiling: rows.iter().filter(|row| row.ceiling).count(),
            log_volume: mean("log volume", |row| row.log_volume),
            critical_time: mean("critical time", |row| row.t_c as f64),
            radius: mean("radius", |row| row.radius),
        })
    };
    Group::ALL.into_iter().filter_map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_and_volumes_are_compared_by_rank() {
        assert_eq!(ranks(&[3.0, -1.0, 3.0, 7.0]), [2.5, 1.0, 2.5, 4.0]);
        let row = |id, count| AttractorRow {
            group: Group::Training,
            id,
            draws: 100,
            count,
            share: count as f64 / 100.0,
            low: 0.0,
            high: 1.0,
        };
        let basin = |id, log_volume| BasinRow {
            group: Group::Training,
            id,
            t_c: 1,
            floor: false,
            ceiling: false,
            t_copies: 1.0,
            radius: 1.0,
            log_volume,
            recovered: vec![],
        };
        let counts = [9, 0, 20, 5, 0, 6];
        let rows = counts.iter().enumerate().map(|(id, &count)| row(id, count)).collect();
        let shares = AttractorShares { elsewhere: 60, rows };
        // Four of the six were searched, in another order. Squares of differences of ranks: 1, 0, 1, 0.
        let basins = [basin(3, -2.0), basin(2, 9.0), basin(1, -1.0), basin(0, 3.0)];
        let found = AttractorSummary::from_shares(&shares, &basins);
        assert_eq!((found.k, found.draws, found.images, found.reached), (6, 100, 4, 3));
        assert_eq!(found.share, 0.4);
        assert!(found.low < 0.4 && 0.4 < found.high);
        // 1 - 6 sum / (n (n^2 - 1)).
        assert!((found.correlation.unwrap() - (1.0 - 6.0 * 2.0 / 60.0)).abs() < 1e-12, "{found:?}");
        let same = [basin(0, 1.0), basin(2, 1.0)];
        assert_eq!(AttractorSummary::from_shares(&shares, &same).correlation, None);
    }

    #[test]
    fn summaries_match_their_groups() {
        let params = BasinSettings::default().check(Some(0.1)).unwrap();
        let row = |group, id, t_c, log_volume| BasinRow {
            group,
            id,
            t_c,
            floor: t_c == 1,
            ceiling: t_c == 976,
            t_copies: 0.0,
            radius: 1.0 + id as f64,
            log_volume,
            recovered: vec![10],
        };
        let mut rows: Vec<BasinRow> =
            (0..50).map(|i| row(Group::Training, i, 101 + 50 * (i % 2), (i % 2) as f64)).collect();
        rows.insert(3, row(Group::MEMORIZED, 5, 1, -4.0));
        rows.push(row(Group::MEMORIZED, 6, 976, 2.0));
        let got = summarise(64, &rows, &params);
        assert_eq!(got.iter().map(|s| s.group).collect::<Vec<_>>(), [Group::MEMORIZED, Group::Training]);
        let (few, many) = (&got[0], &got[1]);
        assert_eq!((few.k, few.images, few.too_few, few.floor, few.ceiling), (64, 2, true, 1, 1));
        assert_eq!(
            (few.log_volume.mean, few.log_volume.median, few.log_volume.error),
            (-1.0, -1.0, Some(3.0))
        );
        assert_eq!((few.log_volume.low, few.log_volume.high), (-4.0, 2.0));
        assert_eq!((many.images, many.too_few, many.floor), (50, false, 0));
        assert_eq!((many.critical_time.mean, many.radius.mean), (126.0, 25.5));
        // 50 fair coins: a standard error of 0.0714, of which the interval has 1.96 either way, in steps of 0.02.
        assert!((many.log_volume.error.unwrap() - 0.0714).abs() < 1e-4);
        assert!((many.log_volume.low - 0.36).abs() < 0.05 && (many.log_volume.high - 0.64).abs() < 0.05);
        assert!(summarise(64, &[], &params).is_empty());
    }
}
