//! Dense Associative Memory in f64, exact: energies, score, Hessian, retrieval, attractors, the ring.
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
//! Here every distance is taken term by term, so the modules are the reference that the fused
//! operations of [`crate::ops`] are tested against, and the tool for sets small enough to look into.

mod attractors;
mod energy;
mod error;
mod retrieval;
pub mod ring;
pub mod toy;

pub use attractors::{Attractor, AttractorSettings, Attractors, attractors, critical_beta_of_pair};
pub use energy::{DenseAm, beta_from_time, diffusion_energy};
pub use error::MemoryError;
pub use retrieval::{Certificate, Retrieval, RetrievalSettings, certify, retrieve};
