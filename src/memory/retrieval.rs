use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use ndarray_linalg::{EigValsh, UPLO};

use super::{DenseAm, MemoryError};
use crate::ops::{Element, Memories, OpError, Want};

/// When the retrieval dynamics x <- m(x) stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrievalSettings {
    /// Distance to the fixed point, in the units of the memories, at which a state has converged. It is
    /// estimated as r q / (1 - q) from the length r of the last step and the ratio q of the last two.
    pub tolerance: f64,
    /// Steps after which a state is given up as not converged.
    pub max_steps: usize,
}

/// Where the retrieval dynamics ended, one entry a start.
#[derive(Debug, Clone)]
pub struct Retrieval<T> {
    /// End states, `[m, N]`.
    pub states: Array2<T>,
    /// E^AM at the end, `[m]`.
    pub energy: Array1<f64>,
    /// ||m(x) - x|| at the end, `[m]`.
    pub residual: Array1<f64>,
    /// Steps made.
    pub steps: Vec<usize>,
    /// Whether the stopping rule was met within the steps allowed.
    pub converged: Vec<bool>,
    /// Entropy of the weights at the end in nats, `[m]`.
    pub entropy: Array1<f64>,
}

/// Runs x <- m(x) from every start until it converges. States that have are left out of later passes,
/// so the cost is that of the steps really made.
///
/// # Errors
/// [`OpError`] for arguments that the read-out refuses or a tolerance that is not positive.
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
            // The first pass has no ratio: infinity gives q = 0, which only a residual of 0 may use.
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

/// What is proved about a state x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// ||m(x) - x||.
    pub residual: f64,
    /// Largest eigenvalue of the Jacobian of m at x, 2 beta lambda_max(Cov_w). Below 1 the map contracts
    /// and the Hessian of E^AM is positive definite.
    pub contraction: f64,
    /// Where it is Some(rho), a stable fixed point of x <- m(x), and only one, lies within rho of x.
    pub radius: Option<f64>,
}

/// Proves, where it can, that a stable fixed point lies near x.
///
/// With r the residual (rounding allowed for) and L the contraction at x, m maps the ball of radius
/// rho = 2 r / (1 - L) about x into itself and contracts it as long as its Jacobian grows by no more
/// than (1 - L) / 2 inside. The Jacobian is 2 beta Cov_w and its derivative 4 beta^2 times the third
/// central moment of the memories under the weights. Inside the ball no weight grows by more than
/// exp(2 beta rho D), D being the diameter of the set, and a third central moment is at most 8 times
/// the moment about any point: the growth is at most
/// 32 beta^2 rho exp(2 beta rho D) sum_mu w_mu ||xi^mu - x||^3.
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

/// Largest eigenvalue of Cov_w, from whichever Gram matrix is smaller.
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
        let memories = Memories::new(pair.view()).unwrap();
        for beta in [0.9, 1.2, 3.0] {
            let end = retrieve(&memories, array![[0.3, 0.4]].view(), beta, TIGHT).unwrap();
            let mut u = a;
            for _ in 0..100_000 {
                u = a * (2.0 * beta * a * u).tanh();
            }
            assert!(end.converged[0]);
            assert!((end.states[[0, 0]] - u).abs() < 1e-9, "{beta}: {} {u}", end.states[[0, 0]]);
            assert!(end.states[[0, 1]].abs() < 1e-12);
            let am = DenseAm::new(pair.view(), beta).unwrap();
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
        let am = DenseAm::new(pair.view(), 2.0).unwrap();
        let proof = certify(&am, array![0.0, 0.0].view()).unwrap();
        assert_eq!(proof.residual, 0.0);
        assert!((proof.contraction - 4.0).abs() < 1e-12);
        assert_eq!(proof.radius, None);
    }

    #[test]
    fn energy_never_rises_and_cut_runs_say_so() {
        let mut s = Stream::new(4, "retrieval");
        let rows = Array2::from_shape_fn((40, 6), |_| s.normal());
        let starts = Array2::from_shape_fn((15, 6), |_| s.normal());
        let memories = Memories::new(rows.view()).unwrap();
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
        let double = retrieve(&Memories::new(rows.view()).unwrap(), starts.view(), 0.5, TIGHT).unwrap();
        let rows = rows.mapv(|v| v as f32);
        let settings = RetrievalSettings { tolerance: 1e-4, max_steps: 1000 };
        let single =
            retrieve(&Memories::new(rows.view()).unwrap(), starts.mapv(|v| v as f32).view(), 0.5, settings)
                .unwrap();
        assert!(single.converged.iter().all(|&c| c));
        for (a, b) in single.states.iter().zip(&double.states) {
            assert!((f64::from(*a) - b).abs() < 1e-3);
        }
    }
}
