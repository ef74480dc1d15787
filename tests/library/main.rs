//! The public interface of the crate: networks, operations, distances, clusters, figures, tables, and a study from
//! settings to stored results.
//!
//! One test program, because its parts do not affect each other: they have temporary folders and thread pools of their
//! own, and only read variables (`MEM2GEN_GOLDEN`, `MEM2GEN_GOLDEN_DIFFUSERS`, `MEM2GEN_GOLDEN_FULL`,
//! `MEM2GEN_LOOK`).

mod detect_clusters;
mod distance_lpips;
mod figure_render;
mod net_diffusers;
mod net_engine;
mod net_golden;
mod net_text;
mod ops_batches;
mod study_toy_trained;
mod table_store;
