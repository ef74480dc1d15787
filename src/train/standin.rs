//! Until the engine and files of weights are there.
#![allow(missing_docs)]
use crate::net::{Graph, NetError, Weights};
use std::path::Path;
use std::sync::Arc;

pub fn save_weights(path: &Path, weights: &Weights) -> Result<(), NetError> {
    Ok(crate::store::write_atomic(path, |w| {
        w.write_all(&weights.values().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    })?)
}
pub fn load_weights(path: &Path, graph: Arc<Graph>) -> Result<Weights, NetError> {
    let b = std::fs::read(path).map_err(crate::store::StoreError::io("open", path))?;
    Weights::new(graph, b.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
}
