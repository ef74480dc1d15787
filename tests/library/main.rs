//! The crate as whoever depends on it uses it: networks, operations, distances, clusters, drawings, tables, and an
//! analysis from settings to stored results.
//!
//! One test program, as its parts change nothing that another of them sees: temporary folders, thread pools of their
//! own, and variables that are read alone (`MEM2GEN_GOLDEN`, `MEM2GEN_LOOK`).

mod detect_clusters;
mod distance_lpips;
mod figure_render;
mod net_engine;
mod net_golden;
mod ops_batches;
mod study_toy_trained;
mod table_store;
