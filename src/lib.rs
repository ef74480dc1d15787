#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod notebook;
pub mod ops;
pub mod progress;
pub mod project;
pub mod random;
pub mod store;

/// What every notebook cell sees.
pub mod prelude {
    pub use crate::notebook::{OrStop, Profile, Progress, Run, begin};
    pub use crate::progress::{ProgressSink, Silent};
}
