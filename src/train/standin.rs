//! Until the engine and files of weights are there.
#![allow(missing_docs)]
use crate::net::{Graph, NetError, Reference, Weights};
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use std::sync::Arc;

pub enum Purpose {
    Train,
}
pub struct Dropout {
    pub key: u64,
}
pub struct Engine {
    graph: Arc<Graph>,
    y: Vec<f32>,
    last: (Vec<f32>, Vec<f32>),
}
impl Engine {
    pub fn new(graph: Arc<Graph>, _rows: usize, _p: Purpose) -> Result<Self, NetError> {
        Ok(Self { graph, y: vec![], last: Default::default() })
    }
    fn reference(&self, weights: &[f32]) -> Result<Reference, NetError> {
        Reference::new(&Weights::new(self.graph.clone(), weights.to_vec())?, DType::F32, &Device::Cpu)
    }
    pub fn forward(
        &mut self,
        weights: &[f32],
        x: &[f32],
        t: &[f32],
        _d: Option<Dropout>,
    ) -> Result<&[f32], NetError> {
        let r = self.reference(weights)?;
        let xt = Tensor::from_slice(x, (t.len(), x.len() / t.len()), &Device::Cpu)?;
        let y = r.forward(&xt, &Tensor::from_slice(t, t.len(), &Device::Cpu)?, None)?;
        self.y = y.flatten_all()?.to_vec1()?;
        self.last = (x.to_vec(), t.to_vec());
        Ok(&self.y)
    }
    pub fn backward(
        &mut self,
        weights: &[f32],
        dy: &[f32],
        dw: Option<&mut [f32]>,
        _dx: Option<&mut [f32]>,
    ) -> Result<(), NetError> {
        let r = self.reference(weights)?;
        let (x, t) = &self.last;
        let shape = (t.len(), x.len() / t.len());
        let p = r.pass(
            &Tensor::from_slice(x, shape, &Device::Cpu)?,
            &Tensor::from_slice(t, t.len(), &Device::Cpu)?,
            &Tensor::from_slice(dy, (t.len(), dy.len() / t.len()), &Device::Cpu)?,
            None,
        )?;
        if let Some(dw) = dw {
            let g = r.flatten::<f32>(&p.dparams)?;
            dw.copy_from_slice(&g[..dw.len()]);
        }
        Ok(())
    }
}
pub fn save_weights(path: &Path, weights: &Weights) -> Result<(), NetError> {
    Ok(crate::store::write_atomic(path, |w| {
        w.write_all(&weights.values().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    })?)
}
pub fn load_weights(path: &Path, graph: Arc<Graph>) -> Result<Weights, NetError> {
    let b = std::fs::read(path).map_err(crate::store::StoreError::io("open", path))?;
    Weights::new(graph, b.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
}
