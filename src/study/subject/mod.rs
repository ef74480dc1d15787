//! The subject of a measurement: the score of a trained network, its training set and its labelled samples.
//!
//! Basins, curvature and relative energies are measured of a [`Subject`]. A notebook gets the subjects of its profile
//! from [`Subjects`], the program opens one from the folder in `--run` with [`Subject::open`].

pub(crate) mod cell;
mod choice;
mod networks;
mod one;
mod score;
mod subjects;

pub use cell::{CELL, LabelledSamples, SAMPLES, labelled_rows};
pub use choice::{Choice, Labelled, Pick, pick};
pub use networks::{NetworkRows, NetworkTable, NetworkTables, networks_frame, networks_rows};
pub use one::{Images, Subject};
pub use score::{ScoreKind, ScoreOptions, TrainedScore, caption_vector, training_run};
pub use subjects::{BATCH, SubjectNetwork, SubjectSettings, Subjects};
