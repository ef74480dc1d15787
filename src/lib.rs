//! When does a diffusion model copy its training data, and when does it create? Dense Associative Memories, diffusion
//! models, and the passage from memorization to generalization between them, after *Memorization to Generalization:
//! Emergence of Diffusion Models from Associative Memory* (Pham, Raya, Negri, Zaki, Ambrogioni, Krotov).
//!
//! This page is a tour from an energy to a trained network. Each stop is a module with its own examples.
//!
//! # Energies
//!
//! A Dense Associative Memory stores $K$ patterns as minima of
//! $E(x) = -\frac{1}{\beta} \log \sum_\mu e^{-\beta \lVert x - \xi^\mu \rVert^2}$. [`memory`] has it in double precision,
//! with every attractor; [`ops`] has energy, score and nearest neighbours of many queries at once, on the processor and
//! on CUDA.
//!
//! ```
//! use mem2gen::memory::DenseAm;
//! use mem2gen::ops::Memories;
//! use ndarray::array;
//!
//! let patterns = array![[1.0, 0.0], [-1.0, 0.0]];
//! let memory = DenseAm::new(patterns.clone(), 2.0)?;
//! assert!((memory.energy(array![1.0, 0.0].view())? + 0.5 * (1.0 + (-8.0f64).exp()).ln()).abs() < 1e-12);
//!
//! let found = Memories::new(patterns)?.knn(array![[0.9, 0.1], [-0.5, 0.0]].view(), 1, false)?;
//! assert_eq!(found.index, array![[0], [1]]);
//! # Ok::<(), mem2gen::Error>(())
//! ```
//!
//! # Scores and samples
//!
//! A diffusion model trained to perfection on these patterns has the score $\nabla \log p_t$ of [`score::Empirical`] at
//! noise $\beta = 1 / (2 \sigma^2 t)$. [`process`] has the noise levels, [`sample`] the samplers; a network of [`net`],
//! trained by [`mod@train`], takes the place of the exact score.
//!
//! ```
//! use mem2gen::ops::Memories;
//! use mem2gen::process::{Spacing, Vp};
//! use mem2gen::progress::Silent;
//! use mem2gen::random::Streams;
//! use mem2gen::sample::{ddim, start};
//! use mem2gen::score::Empirical;
//! use ndarray::array;
//!
//! let score = Empirical::new(Memories::new(array![[0.5, 0.5], [-0.5, -0.5]])?);
//! let vp = Vp::default();
//! let noise = start(&vp, 2, &mut Streams::new(1, "tour", 0..8));
//! let samples = ddim(&score, &vp.steps(50, Spacing::Leading)?, noise, None, &Silent)?;
//! // The exact score memorizes: every sample is one of the two patterns.
//! assert!(samples.iter().all(|v| (v.abs() - 0.5).abs() < 1e-3));
//! # Ok::<(), mem2gen::Error>(())
//! ```
//!
//! # Labels
//!
//! [`detect`] calls a sample memorized, spurious or generalized (Eqs. 9 to 11) by its distance to the training set and to
//! the other samples.
//!
//! ```
//! use mem2gen::class::Class;
//! use mem2gen::detect::label;
//!
//! assert_eq!(label(0.05, Some(0.9), 0.2, 0.2), Class::Memorized);
//! assert_eq!(label(0.70, Some(0.1), 0.2, 0.2), Class::Spurious);
//! assert_eq!(label(0.70, Some(0.9), 0.2, 0.2), Class::Generalized);
//! ```
//!
//! # Studies
//!
//! [`study`] has one module for each measurement of the paper, with its settings, algorithm, table, figure and the
//! function that notebooks and the program call. [`plot`] draws figures, and [`frame`] writes tables.
//!
//! ```
//! use mem2gen::plot::{Curve, CurvePanel, curves};
//!
//! let panel = CurvePanel::new("memorized fraction", "K", "fraction")
//!     .curve(Curve::new("network", vec![16.0, 64.0, 256.0], vec![1.0, 0.8, 0.1]));
//! assert!(curves(&panel)?.svg().contains("memorized fraction"));
//! # Ok::<(), mem2gen::plot::FigureError>(())
//! ```
//!
//! In the repository, `docs/equations.md` leads from each equation and algorithm of the paper to its function, and
//! `examples/` has four programs.

#![warn(missing_docs)]

pub mod class;
pub mod data;
pub mod detect;
pub mod device;
pub mod display;
pub mod distance;
mod error;
pub mod frame;
pub mod memory;
pub mod metric;
pub mod net;
pub mod notebook;
pub mod ops;
pub mod plot;
pub mod prelude;
pub mod process;
pub mod progress;
pub mod project;
pub mod random;
pub mod sample;
pub mod score;
pub mod setting;
pub mod shape;
pub mod store;
pub mod study;
pub mod train;

pub use error::Error;
