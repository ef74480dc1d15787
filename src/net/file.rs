//! Weights in safetensors files, in PyTorch's layout.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Arch, Graph, NetError, Weights};
use crate::shape::Shape;
use crate::store::{StoreError, cut_reason, from_json, write_atomic};

/// Weights with the architecture and shape that they belong to, as one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The architecture.
    pub arch: Arch,
    /// The shape of a sample.
    pub input: Shape,
    /// The weights.
    pub weights: Weights,
}

/// The metadata of a file, in one entry, so that equal weights give equal files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    arch: Arch,
    input: Shape,
}

/// Key of [`About`] in the metadata.
const ABOUT: &str = "mem2gen";

impl Model {
    /// Initial weights.
    ///
    /// # Errors
    /// [`NetError::Graph`] as [`Arch::graph`].
    pub fn init(arch: Arch, input: Shape, seed: u64) -> Result<Self, NetError> {
        let weights = Weights::init(arch.graph(input)?, seed);
        Ok(Self { arch, input, weights })
    }

    /// Reads a file that [`Self::write`] wrote.
    ///
    /// # Errors
    /// [`NetError::Weights`] for a file without architecture and shape, and as [`Weights::read`].
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let bytes = bytes(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(path, e.to_string()))?;
        let about = header.metadata().as_ref().and_then(|m| m.get(ABOUT));
        let about =
            about.ok_or_else(|| bad(path, format!("has no metadata {ABOUT:?} with the architecture")))?;
        let About { arch, input } =
            from_json(about.as_bytes()).map_err(|e| bad(path, format!("metadata {ABOUT:?}: {e}")))?;
        let graph = arch.graph(input).map_err(|e| bad(path, e.to_string()))?;
        let weights = from_bytes(path, &bytes, graph)?;
        Ok(Self { arch, input, weights })
    }

    /// Writes weights, architecture and shape.
    ///
    /// # Errors
    /// [`NetError::Store`]; [`NetError::Weights`] for values that the format can't hold.
    pub fn write(&self, path: &Path) -> Result<(), NetError> {
        let about = About { arch: self.arch.clone(), input: self.input };
        let about = serde_json::to_string(&about).map_err(|e| bad(path, e.to_string()))?;
        let graph = self.weights.graph();
        let values: Vec<Vec<u8>> = graph
            .params()
            .iter()
            .map(|p| self.weights.file_values(p).iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = graph
            .params()
            .iter()
            .zip(&values)
            .map(|(p, v)| Ok((p.name.as_str(), TensorView::new(Dtype::F32, p.layout.file_shape(), v)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| bad(path, e.to_string()))?;
        let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|e| bad(path, e.to_string()))?;
        Ok(write_atomic(path, |out| out.write_all(&file))?)
    }
}

impl Weights {
    /// Reads the weights of a network from a safetensors file of f32, f16 or bf16 values. Its metadata are ignored.
    ///
    /// # Errors
    /// [`NetError::Weights`] with all missing parameters, all tensors that the network does not have, and all wrong
    /// shapes and types. [`NetError::Store`] when the file can't be read.
    pub fn read(path: &Path, graph: Arc<Graph>) -> Result<Self, NetError> {
        from_bytes(path, &bytes(path)?, graph)
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, NetError> {
    Ok(fs::read(path).map_err(StoreError::io("read", path))?)
}

fn from_bytes(path: &Path, bytes: &[u8], graph: Arc<Graph>) -> Result<Weights, NetError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(path, e.to_string()))?;
    let found: Vec<FileTensor> = file
        .iter()
        .map(|(name, view)| FileTensor {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            float: matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16),
            dtype: view.dtype().to_string(),
        })
        .collect();
    let wanted = graph.params().iter().map(|p| (p.name.clone(), p.layout.file_shape())).collect::<Vec<_>>();
    check(path, &wanted, &found)?;
    let mut weights = Weights::new(graph.clone(), vec![0.0; graph.len()])?;
    for p in graph.params() {
        let view = file.tensor(&p.name).map_err(|e| bad(path, e.to_string()))?;
        weights.set_file_values(p, &values(&view.load(&Device::Cpu)?)?)?;
    }
    Ok(weights)
}

/// A tensor in a file.
pub(super) struct FileTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Whether f32 holds its values.
    pub(super) float: bool,
    pub(super) dtype: String,
}

/// Checks that a file has exactly these tensors; the error names what differs, in at most 300 characters.
pub(super) fn check(
    path: &Path,
    wanted: &[(String, Vec<usize>)],
    found: &[FileTensor],
) -> Result<(), NetError> {
    let by_name: HashMap<&str, &FileTensor> = found.iter().map(|f| (f.name.as_str(), f)).collect();
    let names: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for (name, shape) in wanted {
        match by_name.get(name.as_str()) {
            None => missing.push(name.as_str()),
            Some(f) if f.shape != *shape => {
                wrong.push(format!("{name} is {:?}, expected {shape:?}", f.shape))
            }
            Some(f) if !f.float => wrong.push(format!("{name} is {}, expected F32, F16 or BF16", f.dtype)),
            Some(_) => {}
        }
    }
    let mut extra: Vec<&str> = by_name.keys().copied().filter(|name| !names.contains(name)).collect();
    extra.sort_unstable();
    let mut reasons = Vec::new();
    if !missing.is_empty() {
        reasons.push(format!("missing {}", few(&missing)));
    }
    if !extra.is_empty() {
        reasons.push(format!("not of this network {}", few(&extra)));
    }
    if !wrong.is_empty() {
        reasons.push(few(&wrong));
    }
    if reasons.is_empty() { Ok(()) } else { Err(bad(path, reasons.join("; "))) }
}

/// The first of a list, and how many more there are.
fn few<T: AsRef<str>>(list: &[T]) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> = list.iter().take(SHOWN).map(|one| cut_reason(one.as_ref())).collect();
    if list.len() > SHOWN {
        shown.push(format!("and {} more", list.len() - SHOWN));
    }
    shown.join(", ")
}

/// All values of a tensor, in order.
fn values(tensor: &Tensor) -> Result<Vec<f32>, NetError> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

pub(super) fn bad(path: &Path, reason: String) -> NetError {
    NetError::Weights { path: path.to_path_buf(), reason: cut_reason(&reason) }
}

#[cfg(test)]
mod tests {
    use candle_core::safetensors::save;
    use tempfile::TempDir;

    use super::*;
    use crate::net::{ToySettings, UnetSettings};

    fn model() -> Model {
        let input = Shape::image(8, 8, 1);
        Model::init(Arch::Unet(UnetSettings::desk(input, 4)), input, 3).unwrap()
    }

    /// The model's tensors by name.
    fn tensors(model: &Model) -> HashMap<String, Tensor> {
        let tensor = |p: &crate::net::Param| {
            let tensor = Tensor::new(model.weights.file_values(p), &Device::Cpu).unwrap();
            (p.name.clone(), tensor.reshape(p.layout.file_shape()).unwrap())
        };
        model.weights.graph().params().iter().map(tensor).collect()
    }

    #[test]
    fn written_files_are_read_and_equal_models_give_equal_files() {
        let folder = TempDir::new().unwrap();
        let toy = Model::init(Arch::Toy(ToySettings::code()), Shape::vector(2), 1).unwrap();
        for model in [model(), toy] {
            let (a, b) = (folder.path().join("a"), folder.path().join("b"));
            model.write(&a).unwrap();
            model.write(&b).unwrap();
            assert_eq!(Model::read(&a).unwrap(), model);
            assert_eq!(Weights::read(&a, model.weights.graph().clone()).unwrap(), model.weights);
            assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
        }
    }

    #[test]
    fn files_have_pytorchs_layout() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a");
        let model = model();
        model.write(&path).unwrap();
        let file = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(file.len(), model.weights.graph().params().len());
        assert_eq!(file["input.weight"].dims(), [4, 1, 3, 3]);
        assert_eq!(file["time.0.weight"].dims(), [16, 4]);
        let p = model.weights.graph().params().iter().find(|p| p.name == "time.0.weight").unwrap();
        let own = &model.weights.values()[p.offset..];
        // [inputs, outputs] here, [outputs, inputs] in the file.
        assert_eq!(file["time.0.weight"].to_vec2::<f32>().unwrap()[5][2], own[2 * 16 + 5]);
    }

    #[test]
    fn every_way_in_which_a_file_may_not_fit_is_named() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("w.safetensors");
        let model = model();
        let mut spoilt = tensors(&model);
        spoilt.remove("time.0.bias").unwrap();
        spoilt.remove("middle.attention.q.weight").unwrap();
        spoilt.insert("time.2.bias".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        let turned = spoilt["time.0.weight"].t().unwrap().contiguous().unwrap();
        spoilt.insert("time.0.weight".into(), turned);
        let wide = spoilt["input.bias"].to_dtype(DType::F64).unwrap();
        spoilt.insert("input.bias".into(), wide);
        save(&spoilt, &path).unwrap();
        let error = Weights::read(&path, model.weights.graph().clone()).unwrap_err().to_string();
        for wanted in [
            "missing time.0.bias, middle.attention.q.weight;",
            "not of this network time.2.bias;",
            "time.0.weight is [4, 16], expected [16, 4]",
            "input.bias is F64, expected F32, F16 or BF16",
            "w.safetensors",
        ] {
            assert!(error.contains(wanted), "{error}");
        }
        let error = Model::read(&path).unwrap_err().to_string();
        assert!(error.contains("no metadata \"mem2gen\""), "{error}");
        assert!(matches!(Model::read(&folder.path().join("none")), Err(NetError::Store(_))));
        model.write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(Model::read(&path), Err(NetError::Weights { .. })));
    }

    #[test]
    fn halves_are_read_too() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("half");
        let model = model();
        let half = tensors(&model).into_iter().map(|(n, t)| (n, t.to_dtype(DType::F16).unwrap()));
        save(&half.collect::<HashMap<_, _>>(), &path).unwrap();
        let read = Weights::read(&path, model.weights.graph().clone()).unwrap();
        // 11 bits.
        for (a, b) in read.values().iter().zip(model.weights.values()) {
            assert!((a - b).abs() <= b.abs() / 2048.0 + 1e-7, "{a} {b}");
        }
    }
}
