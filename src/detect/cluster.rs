//! Clusters of samples: Ward's, as in the paper's toy model, and connected groups.

use kodama::{Method, linkage};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::ops::OpError;

/// Clusters of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Cluster of each row, `[m]`; clusters are numbered in the order of their first rows.
    pub label: Vec<usize>,
    /// Mean of each cluster's rows, `[clusters, N]`.
    pub centroid: Array2<f64>,
    /// Number of rows in each cluster.
    pub size: Vec<usize>,
}

/// Agglomerative clusters of the rows of `x` `[m, N]` by Ward's linkage: clusters are merged while their distance is below
/// `threshold`. The distance of clusters A and B is sqrt(2 |A| |B| / (|A| + |B|)) ||mean A - mean B||, as in SciPy and
/// scikit-learn. It grows with their sizes, so a threshold depends on the number of samples.
///
/// Takes 4 m^2 bytes for the distances of all pairs.
///
/// # Errors
/// [`OpError::Empty`] for no rows, [`OpError::NotFinite`] for NaN or infinity, and [`OpError::Parameter`] for a threshold
/// that is not positive.
///
/// ```
/// use mem2gen::detect::ward;
/// use ndarray::array;
///
/// let clusters = ward(array![[0.0, 0.0], [9.0, 0.0], [0.0, 1.0], [9.0, 2.0]].view(), 3.0)?;
/// assert_eq!(clusters.label, [0, 1, 0, 1]);
/// assert_eq!(clusters.centroid, array![[0.0, 0.5], [9.0, 1.0]]);
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub fn ward(x: ArrayView2<'_, f64>, threshold: f64) -> Result<Clusters, OpError> {
    OpError::positive("ward clusters", "threshold", threshold)?;
    clusters("ward clusters", x, Method::Ward, |d| d < threshold)
}

/// The groups of rows of `x` `[m, N]` that are connected by distances of at most `distance`, directly or through other
/// rows (single linkage).
///
/// Takes 4 m^2 bytes for the distances of all pairs.
///
/// # Errors
/// As [`ward`].
///
/// ```
/// use mem2gen::detect::linked;
/// use ndarray::array;
///
/// let groups = linked(array![[0.0], [5.0], [1.0], [2.0]].view(), 1.0)?;
/// assert_eq!((groups.label, groups.size), (vec![0, 1, 0, 0], vec![3, 1]));
/// # Ok::<(), mem2gen::Error>(())
/// ```
pub fn linked(x: ArrayView2<'_, f64>, distance: f64) -> Result<Clusters, OpError> {
    OpError::positive("linked rows", "distance", distance)?;
    clusters("linked rows", x, Method::Single, |d| d <= distance)
}

/// Agglomerative clusters: those of the tree's merges that are `near`.
fn clusters(
    operation: &'static str,
    x: ArrayView2<'_, f64>,
    method: Method,
    near: impl Fn(f64) -> bool,
) -> Result<Clusters, OpError> {
    if x.is_empty() {
        return Err(OpError::Empty { operation, argument: "x", found: x.shape().to_vec() });
    }
    if let Some(((row, column), &value)) = x.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(OpError::NotFinite { operation, argument: "x", row, column, value });
    }
    let m = x.nrows();
    // The upper triangle, row by row.
    let mut apart: Vec<f64> = (0..m)
        .into_par_iter()
        .flat_map_iter(|i| {
            (i + 1..m).map(move |j| {
                x.row(i).iter().zip(x.row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
            })
        })
        .collect();
    let tree = linkage(&mut apart, m, method);
    // Merged clusters are numbered m, m + 1, ... in the order of merging; one of its rows represents each.
    let mut row_of: Vec<usize> = (0..m).collect();
    let mut parent: Vec<usize> = (0..m).collect();
    for step in tree.steps() {
        let (a, b) = (row_of[step.cluster1], row_of[step.cluster2]);
        if near(step.dissimilarity) {
            let (a, b) = (root(&mut parent, a), root(&mut parent, b));
            parent[a.max(b)] = a.min(b);
        }
        row_of.push(a);
    }
    let mut label = vec![0; m];
    let mut size = Vec::new();
    for i in 0..m {
        let first = root(&mut parent, i);
        if first == i {
            label[i] = size.len();
            size.push(0);
        } else {
            label[i] = label[first];
        }
        size[label[i]] += 1;
    }
    let mut centroid = Array2::zeros((size.len(), x.ncols()));
    for (row, &c) in x.outer_iter().zip(&label) {
        centroid.row_mut(c).scaled_add(1.0 / size[c] as f64, &row);
    }
    Ok(Clusters { label, centroid, size })
}

/// The first row of the cluster that row i is in.
fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_distance_of_clusters_is_wards() {
        // Two pairs, merged at 0.2, are sqrt(2 * 2 * 2 / 4) * 3 apart.
        let x = array![[0.0], [3.0], [0.2], [3.2]];
        for (threshold, label) in [
            (0.19, vec![0, 1, 2, 3]),
            (0.21, vec![0, 1, 0, 1]),
            (4.242, vec![0, 1, 0, 1]),
            (4.243, vec![0; 4]),
        ] {
            assert_eq!(ward(x.view(), threshold).unwrap().label, label, "{threshold}");
        }
        let two = ward(x.view(), 1.0).unwrap();
        assert_eq!(two.size, [2, 2]);
        assert!((&two.centroid - &array![[0.1], [3.1]]).iter().all(|d| d.abs() < 1e-15));
        let one = ward(x.slice(ndarray::s![..1, ..]), 1.0).unwrap();
        assert_eq!((one.label, one.size), (vec![0], vec![1]));
    }

    #[test]
    fn what_has_no_clusters_is_refused() {
        let x = array![[0.0, 1.0], [f64::NAN, 0.0]];
        assert!(matches!(ward(x.view(), 1.0), Err(OpError::NotFinite { row: 1, column: 0, .. })));
        assert!(matches!(ward(Array2::zeros((0, 2)).view(), 1.0), Err(OpError::Empty { .. })));
        for threshold in [0.0, f64::NAN] {
            assert!(matches!(ward(array![[0.0]].view(), threshold), Err(OpError::Parameter { .. })));
        }
    }
}
