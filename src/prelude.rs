//! What notebooks and library users need by name: the notebook kernel brings it into every cell.

pub use crate::Error;
pub use crate::frame::{self, Table};
pub use crate::memory::{self, AttractorSettings, Attractors, DenseAm};
pub use crate::notebook::{OrStop, Run, begin};
pub use crate::ops::{Memories, Want};
pub use crate::plot::{self, Figure};
pub use crate::progress::{Progress, ProgressSink};
pub use crate::study::basin::{self, BasinSettings, Basins};
pub use crate::study::claims;
pub use crate::study::curvature::{self, CurvatureSettings, Spectra};
pub use crate::study::energy::{self, Energies, PotentialSettings};
pub use crate::study::load::{self, LoadCell, LoadSettings};
pub use crate::study::subject::{self, SubjectSettings};
pub use crate::study::sweep::Transition;
pub use crate::study::toy::{self, ToySettings};
pub use crate::study::transition::{self, TransitionSettings};
pub use ndarray::{Array1, Array2, Axis, array, s};
