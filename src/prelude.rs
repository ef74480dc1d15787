//! What a notebook needs by name: the kernel's prelude brings it into every cell.

pub use crate::Error;
pub use crate::analyse::load::LoadCell;
pub use crate::analyse::transition::{Transition, TransitionSettings};
pub use crate::analyse::{load, toy, toy_trained};
pub use crate::figure::{self, Figure};
pub use crate::memory::{self, AttractorSettings, Attractors, DenseAm};
pub use crate::notebook::{OrStop, Progress, Run, begin};
pub use crate::ops::{Memories, Want};
pub use crate::profile::LandscapeSettings;
pub use crate::progress::ProgressSink;
pub use crate::study::{self, Basins, Energies, Spectra};
pub use crate::table::{self, Table};
pub use ndarray::{Array1, Array2, Axis, array, s};
