//! Training points of the toy model, as the paper's public code draws them.
//!
//! `data/toy/make_points.py` draws 60,000 angles on the unit circle with numpy (legacy generator, seed 9) and one
//! permutation with torch (`random_split`, seed 42). A training set of size K is the first K of that permutation. The
//! crate contains the first 1000.

use ndarray::{Array2, s};
use ndarray_npy::ReadNpyExt;

use super::MemoryError;
use crate::ops::OpError;

static POINTS: &[u8] = include_bytes!("../../data/toy/points.npy");

/// Number of points in the crate.
pub const POINTS_MAX: usize = 1000;

/// The first `k` training points, `[k, 2]`, on the unit circle.
///
/// ```
/// use mem2gen::memory::toy;
///
/// let points = toy::points(2)?;
/// assert_eq!(points.dim(), (2, 2));
/// assert!((points[[0, 0]].hypot(points[[0, 1]]) - 1.0).abs() < 1e-15);
/// # Ok::<(), mem2gen::memory::MemoryError>(())
/// ```
///
/// # Errors
/// [`OpError::Empty`] for 0, [`MemoryError::TooMany`] for more than [`POINTS_MAX`].
pub fn points(k: usize) -> Result<Array2<f64>, MemoryError> {
    if k == 0 {
        return Err(OpError::Empty { operation: "toy points", argument: "points", found: vec![0, 2] }.into());
    }
    if k > POINTS_MAX {
        return Err(MemoryError::TooMany {
            operation: "toy points",
            argument: "points",
            value: k,
            most: POINTS_MAX,
        });
    }
    let all = Array2::<f64>::read_npy(POINTS).expect("points.npy in the crate is a float64 matrix");
    Ok(all.slice(s![..k, ..]).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{AttractorSettings, attractors, critical_beta_of_pair};

    #[test]
    fn the_first_nine_are_the_published_ones() {
        let angles = [151.88, 325.52, 220.65, 138.86, 129.15, 324.39, 213.83, 356.42, 161.73];
        let points = points(9).unwrap();
        for (row, angle) in points.outer_iter().zip(angles) {
            let degrees = row[1].atan2(row[0]).to_degrees().rem_euclid(360.0);
            assert!((degrees - angle).abs() < 0.005, "{degrees} {angle}");
        }
    }

    #[test]
    fn all_lie_on_the_circle_and_sets_are_nested() {
        let all = points(POINTS_MAX).unwrap();
        assert_eq!(all.dim(), (1000, 2));
        assert!(all.outer_iter().all(|p| (p[0].hypot(p[1]) - 1.0).abs() < 1e-15));
        assert_eq!(points(17).unwrap(), all.slice(s![..17, ..]));
        assert!(matches!(points(0), Err(MemoryError::Op(OpError::Empty { .. }))));
        assert!(matches!(points(1001), Err(MemoryError::TooMany { most: 1000, .. })));
    }

    /// The expected minima come from an independent computation of the exact energy at these points.
    #[test]
    fn attractors_of_two_and_nine_points_are_known() {
        let two = points(2).unwrap();
        let critical = critical_beta_of_pair(two.row(0), two.row(1));
        assert!((critical - 0.50155).abs() < 5e-6 && (2.0 / critical - 3.98766).abs() < 5e-6);
        let quick = AttractorSettings { random_starts: 300, ..AttractorSettings::default() };
        assert_eq!(attractors(two.clone(), 0.40, &quick).unwrap().found.len(), 1);
        assert_eq!(attractors(two.clone(), 0.52, &quick).unwrap().found.len(), 2);

        let nine = points(9).unwrap();
        for (beta, count) in [(10.0 / 3.0, 3), (10.0, 3), (20.0, 5), (50.0, 5), (200.0, 8), (1000.0, 8)] {
            let got = attractors(nine.clone(), beta, &quick).unwrap();
            assert_eq!(got.found.len(), count, "{beta}");
            assert!(got.found.iter().all(|a| a.spectrum[0] > 0.0 && a.certificate.radius.is_some()));
        }
        let got = attractors(nine.clone(), 10.0 / 3.0, &quick).unwrap();
        for (x, y, distance) in [(-0.807, 0.545, 0.105), (0.859, -0.458, 0.113), (-0.802, -0.545, 0.031)] {
            assert!(
                got.found.iter().any(|a| (a.x[0] - x).abs() < 6e-4
                    && (a.x[1] - y).abs() < 6e-4
                    && (a.distance - distance).abs() < 6e-4),
                "({x}, {y})"
            );
        }
    }
}
