//! Tables of the memory load.

use crate::frame::{NanIfNone, Table, TableError, columns};
use crate::study::load::{LoadCell, MemoryLoad};

impl MemoryLoad {
    /// All cells.
    ///
    /// # Errors
    /// As [`load_frame`].
    pub fn table(&self) -> Result<Table, TableError> {
        Ok(Table::from_frame("Every cell", load_frame(&self.cells)?).rows(8).digits(3))
    }

    /// The cells of a data set and noise rule at one K, in the order of beta.
    ///
    /// # Errors
    /// As [`summary_frame`].
    pub fn summary(&self, caption: &str, dataset: &str, noise: &str, k: usize) -> Result<Table, TableError> {
        Ok(Table::from_frame(caption, summary_frame(&self.at_size(dataset, noise, k))?).digits(3))
    }
}

columns!(LoadCell, "memory load",
    /// One row for each cell of the phase diagram. `strict_` and `loose_` are the fractions with both thresholds
    /// multiplied by 3/4 and by 5/4; `d_train` is NaN where no start converged.
    load_frame, load_rows, {
    "dataset": (dataset),
    "noise": (noise),
    "noise_std": (noise_std),
    "k": (k),
    "beta": (beta),
    "starts": (starts),
    "memorized": (fractions.memorized),
    "spurious": (fractions.spurious),
    "generalized": (fractions.generalized),
    "unconverged": (fractions.unconverged),
    "invalid": (fractions.invalid),
    "strict_memorized": (strict.memorized),
    "strict_spurious": (strict.spurious),
    "strict_generalized": (strict.generalized),
    "strict_unconverged": (strict.unconverged),
    "strict_invalid": (strict.invalid),
    "loose_memorized": (loose.memorized),
    "loose_spurious": (loose.spurious),
    "loose_generalized": (loose.generalized),
    "loose_unconverged": (loose.unconverged),
    "loose_invalid": (loose.invalid),
    "recall": (recall),
    "distinct": (distinct),
    "blended": (blended),
    "d_train": (d_train) as NanIfNone,
    "steps": (steps),
    "delta": (delta),
    "seconds": (seconds),
});

columns!(LoadCell, "memory load",
    /// Fractions of the classes, recall, and the largest change of a fraction when both thresholds are multiplied by 3/4
    /// or 5/4.
    summary_frame, {
    "k": (k),
    "beta": (beta),
    "starts": (starts),
    "memorized": (fractions.memorized),
    "spurious": (fractions.spurious),
    "generalized": (fractions.generalized),
    "unconverged": (fractions.unconverged),
    "recall": (recall),
    "distinct": (distinct),
    "blended": (blended),
    "d_train": (d_train) as NanIfNone,
    "moved_by_thresholds": [|c| c.fractions.change(&c.strict).max(c.fractions.change(&c.loose))],
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::load::Fractions;

    #[test]
    fn cells_survive_their_frame() {
        let fractions = Fractions {
            memorized: 0.5,
            spurious: 0.25,
            generalized: 0.125,
            unconverged: 0.125,
            invalid: 0.0,
        };
        let cell = LoadCell {
            dataset: "mnist".into(),
            noise: "thermal".into(),
            noise_std: 1.5,
            k: 32,
            beta: 0.1,
            starts: 8,
            fractions,
            strict: Fractions { memorized: 0.25, ..fractions },
            loose: Fractions { memorized: 0.75, ..fractions },
            recall: 0.3,
            distinct: 5,
            blended: 1.7,
            d_train: Some(0.2),
            steps: 11,
            delta: 0.44,
            seconds: 0.01,
        };
        let cells = vec![cell.clone(), LoadCell { d_train: None, k: 64, ..cell }];
        assert_eq!(load_rows(&load_frame(&cells).unwrap()).unwrap(), cells);
    }
}
