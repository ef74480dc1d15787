use ndarray::{ArcArray2, Array1, Array2, ArrayView1, ArrayView2};

use super::MemoryError;
use crate::ops::{Memories, OpError};

/// beta = 1 / (2 sigma^2 t): the inverse temperature at which E^AM (Eq. 6) is the energy E^DM (Eq. 5) of a
/// variance-exploding diffusion with constant sigma at time t.
///
/// ```
/// use mem2gen::memory::beta_from_time;
///
/// assert_eq!(beta_from_time(1.0, 0.25)?, 2.0);
/// # Ok::<(), mem2gen::ops::OpError>(())
/// ```
///
/// # Errors
/// [`OpError::Parameter`] unless sigma, t and beta are finite and above 0.
pub fn beta_from_time(sigma: f64, t: f64) -> Result<f64, OpError> {
    OpError::positive("beta_from_time", "sigma", sigma)?;
    OpError::positive("beta_from_time", "t", t)?;
    let beta = 1.0 / (2.0 * sigma * sigma * t);
    OpError::positive("beta_from_time", "1 / (2 sigma^2 t)", beta)?;
    Ok(beta)
}

/// The energy and, up to factors, its first two derivatives at a point.
pub(super) struct Local {
    pub(super) energy: f64,
    /// m(x) - x
    pub(super) shift: Array1<f64>,
    pub(super) covariance: Array2<f64>,
}

impl Local {
    /// 2 I - 4 beta Cov_w.
    pub(super) fn hessian(&self, beta: f64) -> Array2<f64> {
        let mut h = &self.covariance * (-4.0 * beta);
        h.diag_mut().mapv_inplace(|d| d + 2.0);
        h
    }
}

/// A Dense Associative Memory: K memories xi in N dimensions at inverse temperature beta (Eq. 6).
///
/// ```
/// use mem2gen::memory::DenseAm;
/// use ndarray::array;
///
/// let am: DenseAm = DenseAm::new(array![[0.0, 0.0], [2.0, 0.0]], 0.5)?;
/// assert_eq!((am.memories().dim(), am.beta()), ((2, 2), 0.5));
/// // Both weights are 1/2 at the midpoint.
/// assert_eq!(am.weights(array![1.0, 3.0].view())?, array![0.5, 0.5]);
/// # Ok::<(), mem2gen::memory::MemoryError>(())
/// ```
pub struct DenseAm {
    rows: ArcArray2<f64>,
    beta: f64,
}

impl DenseAm {
    /// A memory set `[K, N]`, one memory per row. An `Array2` or an `ArcArray2` in standard layout is not copied; write
    /// `view.to_owned()` for a view.
    ///
    /// # Errors
    /// [`OpError`] for an empty set, NaN or infinity, or a beta that is not positive and finite.
    pub fn new(memories: impl Into<ArcArray2<f64>>, beta: f64) -> Result<Self, MemoryError> {
        OpError::positive("dense associative memory", "beta", beta)?;
        Ok(Self { rows: Memories::new(memories)?.shared(), beta })
    }

    /// The memories, `[K, N]`.
    pub fn memories(&self) -> ArrayView2<'_, f64> {
        self.rows.view()
    }

    /// Inverse temperature.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    fn check(&self, operation: &'static str, x: &ArrayView1<'_, f64>) -> Result<(), OpError> {
        if x.len() != self.rows.ncols() {
            return Err(OpError::Shape {
                operation,
                argument: "x",
                found: vec![x.len()],
                expected: format!("[{}], as the memories are {:?}", self.rows.ncols(), self.rows.shape()),
            });
        }
        match x.iter().position(|v| !v.is_finite()) {
            Some(column) => {
                Err(OpError::NotFinite { operation, argument: "x", row: 0, column, value: x[column] })
            }
            None => Ok(()),
        }
    }

    /// Squared distances to all memories, and the smallest of them.
    fn distances2(&self, x: &ArrayView1<'_, f64>) -> (Array1<f64>, f64) {
        let d2: Array1<f64> = self
            .rows
            .outer_iter()
            .map(|row| row.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum())
            .collect();
        let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
        (d2, least)
    }

    /// E^AM(x) of Eq. 6, computed as min d^2 - (1/beta) log sum exp(-beta (d^2 - min d^2)). For one memory it is
    /// ||x - xi||^2 to the last bit at any beta.
    ///
    /// ```
    /// use mem2gen::memory::DenseAm;
    /// use ndarray::array;
    ///
    /// let one = DenseAm::new(array![[0.0, 0.0]], 7.0)?;
    /// assert_eq!(one.energy(array![3.0, 4.0].view())?, 25.0);
    /// let two = DenseAm::new(array![[0.0, 0.0], [2.0, 0.0]], 1.0)?;
    /// assert!((two.energy(array![0.0, 0.0].view())? + 0.01814992791780978).abs() < 1e-15);
    /// # Ok::<(), mem2gen::memory::MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpError`] for a wrong shape, NaN or infinity.
    pub fn energy(&self, x: ArrayView1<'_, f64>) -> Result<f64, MemoryError> {
        self.check("energy", &x)?;
        let (d2, least) = self.distances2(&x);
        Ok(self.energy_of(&d2, least))
    }

    /// softmax(-beta ||x - xi||^2), `[K]`.
    ///
    /// # Errors
    /// As [`Self::energy`].
    pub fn weights(&self, x: ArrayView1<'_, f64>) -> Result<Array1<f64>, MemoryError> {
        self.check("weights", &x)?;
        let (mut w, least) = self.distances2(&x);
        w.mapv_inplace(|d| (-self.beta * (d - least)).exp());
        let sum = w.sum();
        w.mapv_inplace(|w| w / sum);
        Ok(w)
    }

    /// m(x) - x with m(x) = sum w xi, `[N]`. Summed as differences, so that a fixed point gives zeros and not the
    /// rounding of two large values. The gradient of E^AM is -2 times this.
    ///
    /// # Errors
    /// As [`Self::energy`].
    pub fn shift(&self, x: ArrayView1<'_, f64>) -> Result<Array1<f64>, MemoryError> {
        let w = self.weights(x)?;
        let mut shift = Array1::zeros(x.len());
        for (row, w) in self.rows.outer_iter().zip(&w) {
            if *w > 0.0 {
                for ((s, y), x) in shift.iter_mut().zip(row).zip(x) {
                    *s += w * (y - x);
                }
            }
        }
        Ok(shift)
    }

    /// Gradient of E^AM: 2 (x - m(x)), `[N]`.
    ///
    /// ```
    /// use mem2gen::memory::DenseAm;
    /// use ndarray::array;
    ///
    /// let one = DenseAm::new(array![[1.0, 2.0]], 3.0)?;
    /// assert_eq!(one.gradient(array![2.0, 0.0].view())?, array![2.0, -4.0]);
    /// # Ok::<(), mem2gen::memory::MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::energy`].
    pub fn gradient(&self, x: ArrayView1<'_, f64>) -> Result<Array1<f64>, MemoryError> {
        Ok(self.shift(x)? * -2.0)
    }

    /// Score of the mixture of K Gaussians of variance sigma^2 = 1 / (2 beta), `[N]`: -beta grad E = (m(x) - x) / sigma^2.
    ///
    /// ```
    /// use mem2gen::memory::DenseAm;
    /// use ndarray::array;
    ///
    /// let one = DenseAm::new(array![[1.0, 2.0]], 3.0)?;
    /// assert_eq!(one.score(array![2.0, 0.0].view())?, array![-6.0, 12.0]);
    /// # Ok::<(), mem2gen::memory::MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::energy`].
    pub fn score(&self, x: ArrayView1<'_, f64>) -> Result<Array1<f64>, MemoryError> {
        Ok(self.shift(x)? * (2.0 * self.beta))
    }

    /// Energy, shift and covariance at x from one pass over the memories.
    pub(super) fn local(&self, x: ArrayView1<'_, f64>) -> Result<Local, MemoryError> {
        self.check("covariance", &x)?;
        let (mut w, least) = self.distances2(&x);
        let energy = self.energy_of(&w, least);
        w.mapv_inplace(|d| (-self.beta * (d - least)).exp());
        let sum = w.sum();
        let kept: Vec<usize> = (0..w.len()).filter(|&i| w[i] > 0.0).collect();
        let mut shift = Array1::zeros(x.len());
        for &i in &kept {
            for ((s, y), x) in shift.iter_mut().zip(self.rows.row(i)).zip(x) {
                *s += w[i] / sum * (y - x);
            }
        }
        // sqrt(w) (xi - m), row by row, without the memories of zero weight.
        let mean = &x + &shift;
        let mut scaled = Array2::zeros((kept.len(), x.len()));
        for (mut row, &i) in scaled.outer_iter_mut().zip(&kept) {
            let root = (w[i] / sum).sqrt();
            for ((s, y), m) in row.iter_mut().zip(self.rows.row(i)).zip(&mean) {
                *s = root * (y - m);
            }
        }
        Ok(Local { energy, shift, covariance: scaled.t().dot(&scaled) })
    }

    fn energy_of(&self, distances2: &Array1<f64>, least: f64) -> f64 {
        // Small weights are summed apart from the nearest memory's 1, so that ln_1p keeps their digits.
        let (mut others, mut small) = (-1.0, 0.0);
        for d in distances2 {
            let w = (-self.beta * (d - least)).exp();
            if w == 1.0 { others += 1.0 } else { small += w }
        }
        least - (others + small).ln_1p() / self.beta
    }

    /// Hessian of E^AM: 2 I - 4 beta Cov_w, `[N, N]`.
    ///
    /// ```
    /// use mem2gen::memory::DenseAm;
    /// use ndarray::array;
    ///
    /// // Covariance diag(1, 0) halfway between two memories at distance 1: a saddle for beta above 1/2.
    /// let am = DenseAm::new(array![[1.0, 0.0], [-1.0, 0.0]], 1.0)?;
    /// let hessian = am.hessian(array![0.0, 0.0].view())?;
    /// assert!((hessian - array![[-2.0, 0.0], [0.0, 2.0]]).iter().all(|h| h.abs() < 1e-14));
    /// # Ok::<(), mem2gen::memory::MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::energy`].
    pub fn hessian(&self, x: ArrayView1<'_, f64>) -> Result<Array2<f64>, MemoryError> {
        Ok(self.local(x)?.hessian(self.beta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use ndarray::{Axis, array, concatenate};

    fn cloud(k: usize, n: usize) -> Array2<f64> {
        let mut s = Stream::new(2, "cloud");
        Array2::from_shape_fn((k, n), |_| s.normal())
    }

    #[test]
    fn one_memory_is_a_paraboloid_at_any_beta() {
        let xi = array![[0.3, -1.7, 2.2]];
        let x = array![1.1, 0.4, -0.9];
        let d2: f64 = xi.row(0).iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum();
        for beta in [1e-6, 1e-3, 1.0, 1e3, 1e6] {
            let am = DenseAm::new(xi.clone(), beta).unwrap();
            assert_eq!(am.energy(x.view()).unwrap(), d2);
            assert_eq!(am.energy(xi.row(0)).unwrap(), 0.0);
            let bend = am.hessian(x.view()).unwrap() - Array2::<f64>::eye(3) * 2.0;
            assert!(bend.iter().all(|h| h.abs() < 1e-24 * beta.max(1.0)));
        }
    }

    #[test]
    fn copies_lower_the_energy_by_log_of_their_number_over_beta() {
        let one = cloud(6, 4);
        let five = concatenate![Axis(0), one, one, one, one, one];
        let x = array![0.2, 0.1, -0.5, 1.0];
        for beta in [1e-6, 0.3, 40.0, 1e6] {
            let e1 = DenseAm::new(one.clone(), beta).unwrap().energy(x.view()).unwrap();
            let e5 = DenseAm::new(five.clone(), beta).unwrap().energy(x.view()).unwrap();
            let gap = 5f64.ln() / beta;
            assert!(
                (e1 - e5 - gap).abs() <= 1e-14 * (e1.abs() + e5.abs() + gap),
                "{beta}: {}",
                e1 - e5 - gap
            );
        }
    }

    #[test]
    fn extremes_of_beta_have_their_limits() {
        let xi = cloud(50, 3);
        let x = array![0.1, 0.2, 0.3];
        let d2: Vec<f64> =
            xi.outer_iter().map(|r| r.iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum()).collect();
        // beta -> 0: E = -(ln K)/beta + mean d^2 + O(beta).
        let mean = d2.iter().sum::<f64>() / 50.0;
        let low = DenseAm::new(xi.clone(), 1e-6).unwrap().energy(x.view()).unwrap();
        assert!((low + 50f64.ln() * 1e6 - mean).abs() < 1e-4);
        // beta -> infinity: the nearest memory.
        let least = d2.iter().copied().fold(f64::INFINITY, f64::min);
        let high = DenseAm::new(xi.clone(), 1e6).unwrap().energy(x.view()).unwrap();
        assert!((high - least).abs() < 1e-14);
        // Far points: the energy keeps all its digits.
        let far = array![1e8, -1e8, 1e8];
        let e = DenseAm::new(xi.clone(), 1e6).unwrap().energy(far.view()).unwrap();
        let nearest = xi
            .outer_iter()
            .map(|r| r.iter().zip(&far).map(|(a, b)| (a - b) * (a - b)).sum::<f64>())
            .fold(f64::INFINITY, f64::min);
        assert!((e - nearest).abs() <= 1e-15 * nearest);
    }

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let xi = cloud(12, 3);
        let x = array![0.3, -0.2, 0.5];
        for beta in [0.2, 1.0, 4.0] {
            let am = DenseAm::new(xi.clone(), beta).unwrap();
            let (g, h) = (am.gradient(x.view()).unwrap(), am.hessian(x.view()).unwrap());
            let score = am.score(x.view()).unwrap();
            let step = 1e-5;
            for i in 0..3 {
                let (mut up, mut down) = (x.clone(), x.clone());
                up[i] += step;
                down[i] -= step;
                let slope = (am.energy(up.view()).unwrap() - am.energy(down.view()).unwrap()) / (2.0 * step);
                assert!((slope - g[i]).abs() < 1e-8, "{slope} {}", g[i]);
                assert!((score[i] + beta * g[i]).abs() < 1e-13);
                let bend =
                    (am.gradient(up.view()).unwrap() - am.gradient(down.view()).unwrap()) / (2.0 * step);
                for j in 0..3 {
                    assert!((bend[j] - h[[i, j]]).abs() < 1e-8);
                }
            }
        }
    }

    #[test]
    fn the_diffusion_energy_is_the_memory_at_its_beta() {
        let xi = cloud(9, 2);
        let x = array![0.4, -0.3];
        let (sigma, t) = (1.3, 0.15);
        // E^DM(x, t) of Eq. 5.
        let direct: f64 = xi
            .outer_iter()
            .map(|r| r.iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum::<f64>())
            .map(|d2: f64| (-d2 / (2.0 * sigma * sigma * t)).exp())
            .sum::<f64>()
            .ln()
            * (-2.0 * sigma * sigma * t);
        let am = DenseAm::new(xi, beta_from_time(sigma, t).unwrap()).unwrap();
        let e = am.energy(x.view()).unwrap();
        assert!((e - direct).abs() < 1e-13);
        assert!((beta_from_time(1.0, 0.15).unwrap() - 10.0 / 3.0).abs() < 1e-15);
        assert!(beta_from_time(0.0, 0.15).is_err() && beta_from_time(1.0, f64::NAN).is_err());
    }

    #[test]
    fn the_fused_operation_gives_the_same() {
        let xi = cloud(600, 11);
        let queries = cloud(20, 11);
        for beta in [1e-3, 0.5, 20.0, 1e4] {
            let am = DenseAm::new(xi.clone(), beta).unwrap();
            let fused = Memories::new(xi.clone()).unwrap().energy(queries.view(), beta).unwrap();
            for (x, f) in queries.outer_iter().zip(&fused) {
                let e = am.energy(x).unwrap();
                assert!((e - f).abs() <= 1e-12 * (e.abs() + 600f64.ln() / beta), "{beta}: {e} {f}");
            }
        }
    }
}
