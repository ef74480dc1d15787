//! What notebooks and library users need by name: the notebook kernel brings it into every cell.
//!
//! ```
//! use mem2gen::prelude::*;
//!
//! let am: DenseAm = DenseAm::new(array![[1.0, 0.0], [-1.0, 0.0]], 2.0)?;
//! assert!(am.energy(array![1.0, 0.0].view())? < am.energy(array![0.0, 1.0].view())?);
//! # Ok::<(), mem2gen::Error>(())
//! ```

pub use crate::Error;
pub use crate::class::{Class, Group};
pub use crate::detect::label;
pub use crate::frame::{self, Table};
pub use crate::memory::{self, AttractorSettings, Attractors, DenseAm};
pub use crate::notebook::{OrStop, Run, begin};
pub use crate::ops::{Memories, Nearest, Want};
pub use crate::plot::{self, Figure};
pub use crate::process::{Level, Process, Spacing, Steps, Vp};
pub use crate::progress::{Progress, ProgressSink, Silent};
pub use crate::random::{Stream, Streams};
pub use crate::sample::{ddim, start};
pub use crate::score::Score;
pub use crate::study::attractors::{
    self, CensusParams, CensusRow, CensusSettings, Censuses, Found, Start, Starts,
};
pub use crate::study::basin::{self, BasinSettings, Basins, Returns};
pub use crate::study::claims::{self, Claims};
pub use crate::study::curvature::{self, CurvatureSettings, Spectra};
pub use crate::study::energy::{self, Energies, GapBand, PotentialSettings};
pub use crate::study::load::{self, LoadCell, LoadSettings, MemoryLoad};
pub use crate::study::prompts::{self, Doses, Measured, Prompt, PromptModel, PromptSettings, TrainedPrompts};
pub use crate::study::subject::{self, Choice, Images, Subject, SubjectSettings};
pub use crate::study::sweep::{SweepRow, Transition};
pub use crate::study::toy::trained::{self, ExactLandscapes, TrainedSettings, TrainedToy};
pub use crate::study::toy::{
    self, CircleProfiles, Ladder, Landscapes, PairSplitting, RingConvergence, ToySettings,
};
pub use crate::study::transition::frame::Capacity;
pub use crate::study::transition::{self, FractionBand, TransitionSettings};
pub use ndarray::{Array1, Array2, Axis, array, s};
