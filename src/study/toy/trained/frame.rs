//! Tables of the trained toy.

use polars::prelude::DataFrame;

use crate::frame::{NanIfNone, Table, TableError, columns, word_item};
use crate::study::toy::trained::{AttractorRow, ClusterRow, GridRow, SummaryRow, TrainedToy};

impl TrainedToy {
    /// The errors of the trained energies.
    ///
    /// # Errors
    /// As [`summary_frame`].
    pub fn errors_table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Trained against exact energy", errors_frame(&self.summary)?))
    }

    /// The effect of the prior.
    ///
    /// # Errors
    /// As [`summary_frame`].
    pub fn prior_table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("True and Gaussian prior at T = 1", prior_frame(&self.summary)?))
    }

    /// The attractors of the networks and of the exact energies.
    ///
    /// # Errors
    /// As [`attractors_frame`].
    pub fn attractors_table(&self) -> Result<Table, TableError> {
        let frame = attractors_frame(&self.attractors)?;
        Ok(Table::from_frame("Attractors of networks and of exact energies", frame))
    }

    /// The number of attractors and of clusters of samples.
    ///
    /// # Errors
    /// As [`summary_frame`].
    pub fn counts_table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Attractors and samples", counts_frame(&self.summary)?))
    }
}

word_item!(SideWord, "network", "exact");
word_item!(KindWord, "memorized", "spurious");
word_item!(PairedWord, "yes", "no");

columns!(GridRow, "trained energies",
    /// One row for each point of the grid.
    grid_frame, grid_rows, {
    "k": (k),
    "x": (x),
    "y": (y),
    "trained": (trained),
    "gaussian_prior": (gaussian_prior),
    "exact": (exact),
    "ring": (ring),
});

columns!(AttractorRow, "trained attractors",
    /// One row for each attractor. `to_other` is NaN where the other side has no attractor.
    attractors_frame, attractors_rows, {
    "k": (k),
    "x": (x),
    "y": (y),
    "to_memory": (to_memory),
    "contraction": (contraction),
    "share": (share),
    "of": (trained) as SideWord,
    "kind": (memorized) as KindWord,
    "paired": (paired) as PairedWord,
    "to_other": (to_other) as NanIfNone,
});

columns!(ClusterRow, "clusters of samples",
    /// One row for each cluster.
    clusters_frame, clusters_rows, {
    "k": (k),
    "x": (x),
    "y": (y),
    "share": (share),
    "to_memory": (to_memory),
});

columns!(SummaryRow, "trained toy",
    /// One row for each network.
    summary_frame, summary_rows, {
    "k": (k),
    "region_points": (region_points),
    "attractors": (attractors),
    "exact_attractors": (exact_attractors),
    "paired": (paired),
    "lost": (lost),
    "clusters": (clusters),
    "beta": (beta),
    "rms": (misfit.rms),
    "max": (misfit.max),
    "region_rms": (misfit.region_rms),
    "region_max": (misfit.region_max),
    "gaussian_prior_rms": (gaussian_prior.rms),
    "gaussian_prior_max": (gaussian_prior.max),
    "gaussian_prior_region_rms": (gaussian_prior.region_rms),
    "gaussian_prior_region_max": (gaussian_prior.region_max),
    "ring_rms": (ring.rms),
    "ring_max": (ring.max),
    "ring_region_rms": (ring.region_rms),
    "ring_region_max": (ring.region_max),
    "divergence": (divergence),
    "divergence_error": (divergence_error),
    "offset": (offset),
    "offset_error": (offset_error),
    "offset_exact": (offset_exact),
    "farthest_pair": (farthest_pair),
    "sample_to_memory": (sample_to_memory),
    "sample_to_circle": (sample_to_circle),
});

/// The columns of [`summary_frame`] with the errors of the energies.
fn errors_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    select(
        rows,
        &[
            "k",
            "region_points",
            "rms",
            "max",
            "region_rms",
            "region_max",
            "ring_region_rms",
            "divergence",
            "divergence_error",
        ],
    )
}

/// The columns of [`summary_frame`] with the effect of the prior.
fn prior_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    select(
        rows,
        &[
            "k",
            "offset",
            "offset_error",
            "offset_exact",
            "region_rms",
            "gaussian_prior_region_rms",
            "region_max",
            "gaussian_prior_region_max",
        ],
    )
}

/// The columns of [`summary_frame`] with attractors, clusters and samples.
fn counts_frame(rows: &[SummaryRow]) -> Result<DataFrame, TableError> {
    select(
        rows,
        &[
            "k",
            "attractors",
            "exact_attractors",
            "paired",
            "farthest_pair",
            "lost",
            "clusters",
            "sample_to_memory",
            "sample_to_circle",
        ],
    )
}

fn select(rows: &[SummaryRow], names: &[&str]) -> Result<DataFrame, TableError> {
    summary_frame(rows)?
        .select(names.iter().copied())
        .map_err(|e| TableError::Frame { caption: "trained toy".into(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Item;
    use crate::study::toy::trained::Misfit;

    #[test]
    fn rows_survive_writing_and_reading() {
        let grid =
            [GridRow { k: 9, x: 0.1, y: 0.2, trained: 0.3, gaussian_prior: 0.4, exact: 0.5, ring: 0.6 }];
        assert_eq!(grid_rows(&grid_frame(&grid).unwrap()).unwrap(), grid);
        let clusters = [ClusterRow { k: 2, x: 0.1, y: 0.2, share: 0.3, to_memory: 0.4 }];
        assert_eq!(clusters_rows(&clusters_frame(&clusters).unwrap()).unwrap(), clusters);
        let one = AttractorRow {
            k: 2,
            trained: true,
            x: 0.1,
            y: 0.2,
            memorized: true,
            to_memory: 0.3,
            to_other: Some(0.4),
            paired: true,
            contraction: 0.5,
            share: 0.6,
        };
        let other = AttractorRow { trained: false, memorized: false, paired: false, to_other: None, ..one };
        let both = [one, other];
        assert_eq!(attractors_rows(&attractors_frame(&both).unwrap()).unwrap(), both);
        let misfit = |v| Misfit { rms: v, max: v + 0.1, region_rms: v + 0.2, region_max: v + 0.3 };
        let summary = [SummaryRow {
            k: 1000,
            beta: 10.0 / 3.0,
            misfit: misfit(1.0),
            gaussian_prior: misfit(2.0),
            ring: misfit(3.0),
            region_points: 4,
            divergence: 5.0,
            divergence_error: 6.0,
            offset: 7.0,
            offset_error: 8.0,
            offset_exact: 9.0,
            attractors: 10,
            exact_attractors: 11,
            paired: 12,
            farthest_pair: 13.0,
            lost: 14,
            clusters: 15,
            sample_to_memory: 16.0,
            sample_to_circle: 17.0,
        }];
        assert_eq!(summary_rows(&summary_frame(&summary).unwrap()).unwrap(), summary);
        for part in [errors_frame(&summary), prior_frame(&summary), counts_frame(&summary)] {
            assert_eq!(usize::read(&part.unwrap(), "k").unwrap(), [1000]);
        }
    }
}
