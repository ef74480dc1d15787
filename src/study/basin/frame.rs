//! Tables of basins of attraction.

use crate::frame::{NanIfNone, Table, TableError, columns};
use crate::study::basin::{AttractorRow, AttractorSummary, BasinRow, BasinSummary, Basins, ReturnRow};
use crate::study::subject::networks_frame;

impl Basins {
    /// The basins of each class and K, for every network.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        let frame = networks_frame(&self.classes, basin_summary_frame)?;
        Ok(Table::from_frame("Basins of each class", frame).rows(200).digits(3))
    }

    /// The attractors that noise ends at for each K, for every network.
    ///
    /// # Errors
    /// As [`networks_frame`].
    pub fn attractors_table(&self) -> Result<Table, TableError> {
        let frame = networks_frame(&self.attractors, attractor_summary_frame)?;
        Ok(Table::from_frame("Where noise ends", frame).rows(60).digits(3))
    }
}

columns!(BasinRow, "basins of attraction",
    /// One row for each image: `class`, `id` (row of the samples or of the training set), `t_c`, `floor`, `ceiling`,
    /// `t_copies`, `radius` (l2), `log_volume` (nats) and `recovered`, the number of recovered copies at each tested
    /// noise level.
    basin_frame, basin_rows, {
    "class": (group),
    "id": (id),
    "t_c": (t_c),
    "floor": (floor),
    "ceiling": (ceiling),
    "t_copies": (t_copies),
    "radius": (radius),
    "log_volume": (log_volume),
    "recovered": (recovered),
});

columns!(AttractorRow, "attractors of noise",
    /// One row for each image: `class`, `id`, `draws`, `count` (draws that end within delta of the image), `share`,
    /// `low` and `high`.
    attractors_frame, attractors_rows, {
    "class": (group),
    "id": (id),
    "draws": (draws),
    "count": (count),
    "share": (share),
    "low": (low),
    "high": (high),
});

columns!(ReturnRow, "distances of return",
    /// One row for each K, level and kind of images: `k`, `t`, `held_out`, `images`, `median` (l2 distance from an image to what
    /// its noisy copies are denoised to), and the quartiles `low` and `high`.
    return_frame, return_rows, {
    "k": (k),
    "t": (t),
    "held_out": (held_out),
    "images": (images),
    "median": (median),
    "low": (low),
    "high": (high),
});

columns!(AttractorSummary, "attractors by size",
    /// One row for each K: `k`, `draws`, `share` (of the draws that end at a training image), `low`, `high`, `images`
    /// (whose basins were measured), `reached` (images at which a draw ends) and `correlation` (rank correlation of
    /// draws and volume; null where it is not defined).
    attractor_summary_frame, attractor_summary_rows, {
    "k": (k),
    "draws": (draws),
    "share": (share),
    "low": (low),
    "high": (high),
    "images": (images),
    "reached": (reached),
    "correlation": (correlation),
});

columns!(BasinSummary, "basins by class",
    /// One row for each class and K: `k`, `class`, `images`, `too_few`, `floor`, `ceiling`, and for `log_volume`
    /// (nats), `critical_time` and `radius` the mean and `_median`, `_error` (standard error; NaN for one image),
    /// `_low` and `_high`.
    basin_summary_frame, basin_summary_rows, {
    "k": (k),
    "class": (group),
    "images": (images),
    "too_few": (too_few),
    "floor": (floor),
    "ceiling": (ceiling),
    "log_volume": (log_volume.mean),
    "log_volume_median": (log_volume.median),
    "log_volume_error": (log_volume.error) as NanIfNone,
    "log_volume_low": (log_volume.low),
    "log_volume_high": (log_volume.high),
    "critical_time": (critical_time.mean),
    "critical_time_median": (critical_time.median),
    "critical_time_error": (critical_time.error) as NanIfNone,
    "critical_time_low": (critical_time.low),
    "critical_time_high": (critical_time.high),
    "radius": (radius.mean),
    "radius_median": (radius.median),
    "radius_error": (radius.error) as NanIfNone,
    "radius_low": (radius.low),
    "radius_high": (radius.high),
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;
    use crate::study::basin::Mean;

    #[test]
    fn rows_survive_writing_and_reading() {
        let one = BasinRow {
            group: Group::SPURIOUS,
            id: 3,
            t_c: 26,
            floor: false,
            ceiling: false,
            t_copies: 28.5,
            radius: 0.75,
            log_volume: -12.5,
            recovered: vec![10, 9, 0],
        };
        let other = BasinRow { group: Group::Training, floor: true, recovered: vec![], ..one.clone() };
        let rows = [one, other];
        let frame = basin_frame(&rows).unwrap();
        assert_eq!(basin_rows(&frame).unwrap(), rows);
        assert!(basin_rows(&frame.drop("floor").unwrap()).is_err());
        let shares = [AttractorRow {
            group: Group::MEMORIZED,
            id: 1,
            draws: 100,
            count: 25,
            share: 0.25,
            low: 0.125,
            high: 0.5,
        }];
        assert_eq!(attractors_rows(&attractors_frame(&shares).unwrap()).unwrap(), shares);
        let one = AttractorSummary {
            k: 16,
            draws: 100,
            share: 0.5,
            low: 0.25,
            high: 0.75,
            images: 12,
            reached: 9,
            correlation: Some(-0.5),
        };
        let summary = [one, AttractorSummary { k: 32, correlation: None, ..one }];
        let frame = attractor_summary_frame(&summary).unwrap();
        assert_eq!(attractor_summary_rows(&frame).unwrap(), summary);
    }

    #[test]
    fn returns_survive_writing_and_reading() {
        let one = ReturnRow { k: 8, t: 26, held_out: true, images: 4, median: 0.5, low: 0.25, high: 1.0 };
        let rows = [one, ReturnRow { held_out: false, ..one }];
        assert_eq!(return_rows(&return_frame(&rows).unwrap()).unwrap(), rows);
    }

    #[test]
    fn summaries_survive_writing_and_reading() {
        let mean = |v, error| Mean { mean: v, median: v + 1.0, error, low: v - 1.0, high: v + 2.0 };
        let one = BasinSummary {
            k: 64,
            group: Group::GENERALIZED,
            images: 12,
            too_few: false,
            floor: 1,
            ceiling: 2,
            log_volume: mean(-3.0, Some(0.5)),
            critical_time: mean(26.0, Some(4.0)),
            radius: mean(0.5, Some(0.125)),
        };
        let alone = mean(1.0, None);
        let other = BasinSummary { too_few: true, images: 1, log_volume: alone, ..one.clone() };
        let rows = [one, other];
        assert_eq!(basin_summary_rows(&basin_summary_frame(&rows).unwrap()).unwrap(), rows);
    }
}
