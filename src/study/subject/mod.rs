//! One trained network with its training set and the samples of each class: what basins, curvature and relative
//! energies are measured of.

pub(crate) mod cell;
mod choice;
mod networks;
mod subjects;

pub use cell::{CELL, LabelledSamples, SAMPLES, labelled_rows};
pub use choice::{Labelled, Pick, pick};
pub use networks::{OfNetwork, by_network, halves, networks_of};
pub use subjects::{ROWS, Subject, SubjectNetwork, SubjectSettings, Subjects};
