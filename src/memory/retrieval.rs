use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use ndarray_linalg::{EigValsh, UPLO};

use super::{DenseAm, MemoryError};
use crate::ops::{Element, Memories, OpError, Want};

/// Stopping rule of the retrieval dynamics x <- m(x).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrievalSettings {
    /// Distance to the fixed point at which a state has converged, in the units of the memories. The distance is
    /// estimated as r q / (1 - q) from the length r of the last step and the ratio q of the last two lengths.
    pub tolerance: f64,
    /// Most steps of a state.
    pub max_steps: usize,
}

/// End states of the retrieval dynamics, one for each of m starts.
#[derive(Debug, Clone)]
pub struct Retrieval<T> {
    /// End states, `[m, N]`.
    pub states: Array2<T>,
    /// E^AM at the end, `[m]`.
    pub energy: Array1<f64>,
    /// ||m(x) - x|| at the end, `[m]`.
    pub residual: Array1<f64>,
    /// Number of steps, `[m]`.
    pub steps: Vec<usize>,
    /// Whether the state converged within the allowed steps, `[m]`.
    pub converged: Vec<bool>,
    /// Entropy of the weights at the end in nats, `[m]`.
    pub entropy: Array1<f64>,
}

/// Iterates x <- m(x) from starts `[m, N]` until each converges. Converged states are left out of later passes, so that
/// the cost is that of the steps taken.
///
/// ```
/// use mem2gen::memory::{RetrievalSettings, retrieve};
/// use mem2gen::ops::Memories;
/// use ndarray::array;
///
/// let memories = Memories::new(array![[1.0, 0.0], [-1.0, 0.0]])?;
/// let settings = RetrievalSettings { tolerance: 1e-9, max_steps: 100 };
/// let end = retrieve(&memories, array![[0.3, 0.4]].view(), 50.0, settings)?;
/// // At high beta the state falls onto the nearest memory.
/// let distance: f64 = end.states[[0, 0]] - 1.0;
/// assert!(end.converged[0] && distance.abs() < 1e-9);
/// # Ok::<(), mem2gen::memory::MemoryError>(())
/// ```
///
/// # Errors
/// [`OpError`] for arguments that the read-out refuses, or a tolerance that is not positive.
pub fn retrieve<T: Element>(
    memories: &Memories<T>,
    starts: ArrayView2<'_, T>,
    beta: f64,
    settings: RetrievalSettings,
) -> Result<Retrieval<T>, MemoryError> {
    OpError::positive("retrieve", "tolerance", settings.tolerance)?;
    let m = starts.nrows();
    let mut out = Retrieval {
        states: starts.to_owned(),
        energy: Array1::zeros(m),
        residual: Array1::from_elem(m, f64::INFINITY),
        steps: vec![0; m],
        converged: vec![false; m],
        entropy: Array1::zeros(m),
    };
    let mut live: Vec<usize> = (0..m).collect();
    for step in 0..=settings.max_steps {
        if live.is_empty() {
            break;
        }
        let now = out.states.select(Axis(0), &live);
        let read = memories.readout(now.view(), beta, Want::ALL)?;
        let mut still = Vec::with_capacity(live.len());
        for (row, &i) in live.iter().enumerate() {
            let shift = read.shift.row(row);
            let residual = shift.iter().map(|v| v.f64() * v.f64()).sum::<f64>().sqrt();
            let q = residual / out.residual[i];
            let distance = if residual == 0.0 { 0.0 } else { residual * q / (1.0 - q) };
            out.energy[i] = read.energy[row];
            out.entropy[i] = read.entropy[row];
            let before = out.residual[i];
            out.residual[i] = residual;
            // The first pass has no ratio: q is 0, and only a residual of 0 has converged.
            let known = before.is_finite() || residual == 0.0;
            if known && q < 1.0 && residual <= settings.tolerance && distance <= settings.tolerance {
                out.converged[i] = true;
                continue;
            }
            if step < settings.max_steps {
                out.steps[i] += 1;
                for (x, s) in out.states.row_mut(i).iter_mut().zip(shift) {
                    *x = T::from_f64(x.f64() + s.f64());
                }
                still.push(i);
            }
        }
        live = still;
    }
    Ok(out)
}

/// Proven bounds on the distance from a state x to a fixed point of x <- m(x).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// ||m(x) - x||.
    pub residual: f64,
    /// Largest eigenvalue of the Jacobian of m at x, 2 beta lambda_max(Cov_w). Below 1 the map contracts
    /// and the Hessian of E^AM is positive definite.
    pub contraction: f64,
    /// If `Some(rho)`, exactly one stable fixed point lies within rho of x. `None` when there is no proof.
    pub radius: Option<f64>,
}

/// Proves that a stable fixed point lies near x, if the bounds allow it.
///
/// Let r be the residual with its rounding and L the contraction at x. Then m maps the ball of radius
/// rho = 2 r / (1 - L) about x into itself and contracts it if the Jacobian of m grows by at most (1 - L) / 2 inside. The
/// Jacobian is 2 beta Cov_w, and its derivative is 4 beta^2 times the third central moment of the memories under the
/// weights. Inside the ball a weight grows by at most exp(2 beta rho D), where D is the diameter of the set. A third
/// central moment is at most 8 times the third moment about any point. So the Jacobian grows by at most
/// 32 beta^2 rho exp(2 beta rho D) sum_mu w_mu ||xi^mu - x||^3.
///
/// ```
/// use mem2gen::memory::{DenseAm, certify};
/// use ndarray::array;
///
/// let am = DenseAm::new(array![[1.0, 0.0], [-1.0, 0.0]], 2.0)?;
/// // The midpoint is a saddle: the map expands by 2 beta = 4, and there is no certificate.
/// let saddle = certify(&am, array![0.0, 0.0].view())?;
/// assert_eq!((saddle.residual, saddle.radius), (0.0, None));
/// assert!((saddle.contraction - 4.0).abs() < 1e-12);
/// # Ok::<(), mem2gen::memory::MemoryError>(())
/// ```
///
/// # Errors
/// As [`DenseAm::energy`]; [`MemoryError::Lapack`].
pub fn certify(am: &DenseAm, x: ArrayView1<'_, f64>) -> Result<Certificate, MemoryError> {
    let w = am.weights(x)?;
    let shift = am.shift(x)?;
    let length = |v: ArrayView1<'_, f64>| v.iter().map(|a| a * a).sum::<f64>().sqrt();
    let rounding = 8.0 * f64::EPSILON * am.memories().outer_iter().map(length).fold(length(x), f64::max);
    let residual = length(shift.view());
    let contraction = 2.0 * am.beta() * largest_variance(am, x, &w, &shift)?;
    let (mut third, mut diameter) = (0.0, 0.0f64);
    for (row, w) in am.memories().outer_iter().zip(&w) {
        let d = row.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        third += w * d.powi(3);
        diameter = diameter.max(2.0 * d);
    }
    let room = 1.0 - contraction;
    let rho = 2.0 * (residual + rounding) / room;
    let growth = 32.0 * am.beta().powi(2) * rho * (2.0 * am.beta() * rho * diameter).exp() * third;
    let radius = (room > 0.0 && growth <= room / 2.0).then_some(rho);
    Ok(Certificate { residual, contraction, radius })
}

/// Largest eigenvalue of Cov_w, from the smaller of the two Gram matrices.
fn largest_variance(
    am: &DenseAm,
    x: ArrayView1<'_, f64>,
    w: &Array1<f64>,
    shift: &Array1<f64>,
) -> Result<f64, MemoryError> {
    let kept: Vec<usize> = (0..w.len()).filter(|&i| w[i] > 0.0).collect();
    let mean = &x + shift;
    let rows = am.memories();
    let scaled = Array2::from_shape_fn((kept.len(), x.len()), |(i, k)| {
        w[kept[i]].sqrt() * (rows[[kept[i], k]] - mean[k])
    });
    let gram = if kept.len() < x.len() { scaled.dot(&scaled.t()) } else { scaled.t().dot(&scaled) };
    let size = gram.nrows();
    let values = gram.eigvalsh(UPLO::Lower).map_err(|source| MemoryError::Lapack {
        operation: "certify",
        size,
        source,
    })?;
    Ok(values.iter().copied().fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::array;

    const TIGHT: RetrievalSettings = RetrievalSettings { tolerance: 1e-10, max_steps: 10_000 };

    #[test]
    fn a_pair_has_the_minima_of_the_closed_form() {
        // xi = +-a on the axis: u = a tanh(2 beta a u), Eq. 7's exact condition.
        let a = 0.8;
        let pair = array![[a, 0.0], [-a, 0.0]];
        let memories = Memories::new(pair.clone()).unwrap();
        for beta in [0.9, 1.2, 3.0] {
            let end = retrieve(&memories, array![[0.3, 0.4]].view(), beta, TIGHT).unwrap();
            let mut u = a;
            for _ in 0..100_000 {
                u = a * (2.0 * beta * a * u).tanh();
            }
            assert!(end.converged[0]);
            assert!((end.states[[0, 0]] - u).abs() < 1e-9, "{beta}: {} {u}", end.states[[0, 0]]);
            assert!(end.states[[0, 1]].abs() < 1e-12);
            let am = DenseAm::new(pair.clone(), beta).unwrap();
            let proof = certify(&am, end.states.row(0)).unwrap();
            let rho = proof.radius.unwrap();
            assert!((end.states[[0, 0]] - u).abs() <= rho && rho < 1e-6, "{rho}");
        }
        // Below beta_c = 1/(2 a^2) the middle is all there is.
        let end = retrieve(&memories, array![[0.3, 0.4]].view(), 0.7, TIGHT).unwrap();
        assert!(end.states[[0, 0]].abs() < 1e-9);
    }

    #[test]
    fn a_saddle_gets_no_certificate() {
        let pair = array![[1.0, 0.0], [-1.0, 0.0]];
        let am = DenseAm::new(pair.clone(), 2.0).unwrap();
        let proof = certify(&am, array![0.0, 0.0].view()).unwrap();
        assert_eq!(proof.residual, 0.0);
        assert!((proof.contraction - 4.0).abs() < 1e-12);
        assert_eq!(proof.radius, None);
    }

    #[test]
    fn energy_never_rises_and_unconverged_states_are_marked() {
        let mut s = Stream::new(4, "retrieval");
        let rows = Array2::from_shape_fn((40, 6), |_| s.normal());
        let starts = Array2::from_shape_fn((15, 6), |_| s.normal());
        let memories = Memories::new(rows.clone()).unwrap();
        let mut last = memories.energy(starts.view(), 0.4).unwrap();
        for steps in 1..12 {
            let cut = RetrievalSettings { tolerance: 1e-12, max_steps: steps };
            let end = retrieve(&memories, starts.view(), 0.4, cut).unwrap();
            assert!(end.energy.iter().zip(&last).all(|(now, before)| *now <= before + 1e-12));
            assert!(end.steps.iter().zip(&end.converged).all(|(n, c)| *c || *n == steps));
            last = end.energy;
        }
        assert!(
            retrieve(&memories, starts.view(), 0.4, RetrievalSettings { tolerance: 0.0, max_steps: 1 })
                .is_err()
        );
    }

    #[test]
    fn single_precision_ends_where_double_does() {
        let mut s = Stream::new(5, "retrieval");
        let rows = Array2::from_shape_fn((200, 20), |_| s.normal());
        let starts = Array2::from_shape_fn((30, 20), |(i, k)| rows[[i, k]] + 0.3 * s.normal());
        let double = retrieve(&Memories::new(rows.clone()).unwrap(), starts.view(), 0.5, TIGHT).unwrap();
        let rows = rows.mapv(|v| v as f32);
        let settings = RetrievalSettings { tolerance: 1e-4, max_steps: 1000 };
        let single =
            retrieve(&Memories::new(rows.clone()).unwrap(), starts.mapv(|v| v as f32).view(), 0.5, settings)
                .unwrap();
        assert!(single.converged.iter().all(|&c| c));
        for (a, b) in single.states.iter().zip(&double.states) {
            assert!((f64::from(*a) - b).abs() < 1e-3);
        }
    }
}
