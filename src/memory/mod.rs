//! Exact Dense Associative Memory in f64: energy, score, Hessian, retrieval, attractors, and the closed form on a ring.
//!
//! The energy of $K$ memories $\xi^\mu$ in $N$ dimensions at inverse temperature $\beta$ (Eq. 6 of the paper):
//!
//! $$E^{\mathrm{AM}}(x) = -\frac{1}{\beta} \log \sum_{\mu=1}^{K} \exp\left(-\beta \lVert x - \xi^\mu \rVert^2\right)$$
//!
//! With the weights $w_\mu \propto \exp(-\beta \lVert x - \xi^\mu \rVert^2)$, which sum to 1, and their mean
//! $m(x) = \sum\nolimits_\mu w_\mu \xi^\mu$, its gradient is $2 (x - m(x))$, so that its critical points are the
//! fixed points of the retrieval dynamics $x \leftarrow m(x)$, and its Hessian is
//! $2 I - 4 \beta C_w$, where $C_w$ is the covariance of the memories under the weights. At
//! $\beta = 1 / (2 \sigma^2 t)$ the score of a variance-exploding diffusion that was trained to perfection on the
//! memories is $(m(x) - x) / (\sigma^2 t)$.
//!
//! [`DenseAm`] computes every distance term by term. It is the reference for the fused operations of [`crate::ops`] and
//! the tool for small sets.
//!
//! ```
//! use mem2gen::memory::DenseAm;
//! use ndarray::array;
//!
//! let am: DenseAm = DenseAm::new(array![[1.0, 0.0], [-1.0, 0.0]], 1.0)?;
//! // Halfway between two memories at distance 1: E = 1 - log 2, and the gradient is 0.
//! let x = array![0.0, 0.0];
//! assert!((am.energy(x.view())? - (1.0 - 2f64.ln())).abs() < 1e-15);
//! assert_eq!(am.gradient(x.view())?, array![0.0, 0.0]);
//! # Ok::<(), mem2gen::memory::MemoryError>(())
//! ```

mod attractors;
mod energy;
mod error;
mod retrieval;
pub mod ring;
pub mod toy;

pub use attractors::{Attractor, AttractorSettings, Attractors, attractors, critical_beta_of_pair};
pub use energy::{DenseAm, beta_from_time};
pub use error::MemoryError;
pub use retrieval::{Certificate, Retrieval, RetrievalSettings, certify, retrieve};
