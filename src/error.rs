use crate::data::DataError;
use crate::detect::DetectError;
use crate::distance::DistanceError;
use crate::frame::TableError;
use crate::memory::MemoryError;
use crate::net::NetError;
use crate::ops::OpError;
use crate::plot::FigureError;
use crate::process::ProcessError;
use crate::sample::SampleError;
use crate::score::ScoreError;
use crate::store::StoreError;
use crate::study::context::ProfileError;
use crate::study::copies::CopiesError;
use crate::study::error::StudyError;
use crate::study::sweep::SweepError;
use crate::train::TrainError;

/// Any error of the crate: each layer has its own, and this is one of them.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// Files.
    Store(#[from] StoreError),
    /// Data sets.
    Data(#[from] DataError),
    /// The fused operations.
    Op(#[from] OpError),
    /// DenseAM theory.
    Memory(#[from] MemoryError),
    /// Labels of samples.
    Detect(#[from] DetectError),
    /// Noising processes.
    Process(#[from] ProcessError),
    /// Networks.
    Net(#[from] NetError),
    /// Perceptual distances.
    Distance(#[from] DistanceError),
    /// Scores.
    Score(#[from] ScoreError),
    /// Samplers and likelihood.
    Sample(#[from] SampleError),
    /// Training.
    Train(#[from] TrainError),
    /// Analyses.
    Analysis(#[from] StudyError),
    /// Profiles.
    Profile(#[from] ProfileError),
    /// Sweeps.
    Sweep(#[from] SweepError),
    /// Comparison of samples with their training set.
    Copies(#[from] CopiesError),
    /// Tables.
    Table(#[from] TableError),
    /// Figures.
    Figure(#[from] FigureError),
}
