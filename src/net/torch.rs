//! The authors' checkpoints: a strict reader of their tensors, and the names of the U-Net's parameters in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use super::file::{FileTensor, bad, check};
use super::{Arch, Model, NetError, Param, UnetSettings, Weights};
use crate::data::pickle::{self, Tensor, Value};
use crate::data::torch::TorchFile;
use crate::shape::Shape;
use crate::store::StoreError;
use crate::store::npy::{Elements, Kind};

/// Which weights of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointPart {
    /// The trained weights.
    Model,
    /// Their moving average.
    Ema,
}

impl CheckpointPart {
    const ALL: [Self; 2] = [Self::Model, Self::Ema];

    const fn key(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Ema => "ema",
        }
    }
}

/// A checkpoint in PyTorch's format, as the authors' code saves it: a dictionary `model`, `ema`, `opt`, `args`,
/// `iterations`.
///
/// Only tensors directly below `model` and `ema` and the number of `iterations` are read. Nothing in the file is
/// executed, and sizes are compared with the length of the file before memory is allocated for them.
#[derive(Debug)]
pub struct Checkpoint<R = BufReader<File>> {
    path: PathBuf,
    file: TorchFile<R>,
    parts: [HashMap<String, Tensor>; 2],
    iterations: Option<u64>,
}

impl Checkpoint {
    /// Opens a file of `torch.save` in the zip format, which PyTorch writes since version 1.6.
    ///
    /// # Errors
    /// [`NetError::Store`] when the file can't be read; [`NetError::Weights`] when it is not a checkpoint, is damaged,
    /// or names other classes than dictionaries, tensors and `argparse.Namespace`.
    pub fn open(path: &Path) -> Result<Self, NetError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        if !file.metadata().map_err(StoreError::io("open", path))?.is_file() {
            return Err(bad(path, "is not a regular file".into()));
        }
        Self::read(path, BufReader::new(file))
    }
}

impl<R: Read + Seek> Checkpoint<R> {
    /// As [`Checkpoint::open`], from any source; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn read(path: &Path, from: R) -> Result<Self, NetError> {
        let refused = |reason: String| bad(path, reason);
        let (file, pickled) = TorchFile::open(from).map_err(refused)?;
        let saved = pickle::read(&pickled).map_err(refused)?;
        let Value::Dict(mut entries, ..) = saved else {
            return Err(refused(format!("the result is {}, expected one dictionary", saved.name())));
        };
        let iterations = match entries.get("iterations") {
            Some(Value::Int(count)) => u64::try_from(*count).ok(),
            _ => None,
        };
        let mut parts = [HashMap::new(), HashMap::new()];
        for (part, tensors) in CheckpointPart::ALL.into_iter().zip(&mut parts) {
            match entries.remove(part.key()) {
                None => {}
                Some(Value::Dict(values, _, unnamed)) => {
                    unnamed.none().map_err(|reason| refused(format!("{}: {reason}", part.key())))?;
                    for (name, value) in values {
                        let Value::Tensor(tensor) = value else { continue };
                        let name = name.strip_prefix("module.").unwrap_or(name).to_owned();
                        if tensors.insert(name.clone(), (*tensor).clone()).is_some() {
                            return Err(refused(format!("{} has {name} twice", part.key())));
                        }
                    }
                    // A buffer of score_sde that DDPM does not use.
                    tensors.remove("sigmas");
                }
                Some(other) => {
                    return Err(refused(format!(
                        "{:?} is {}, expected a dictionary",
                        part.key(),
                        other.name()
                    )));
                }
            }
        }
        Ok(Self { path: path.into(), file, parts, iterations })
    }

    /// Number of training steps; `None` when the file does not say.
    pub fn iterations(&self) -> Option<u64> {
        self.iterations
    }

    /// Channels of the U-Net's first level, by the shape of its first parameter; `None` when there is none.
    pub fn channels(&self) -> Option<usize> {
        let first = self.parts.iter().find_map(|tensors| tensors.get("all_modules.0.weight"))?;
        first.shape.get(1).copied()
    }

    /// The weights of a U-Net.
    ///
    /// The names are expected to be those of score_sde's DDPM, `all_modules.N.*`, with or without the `module.` of
    /// data parallelism, and a buffer `sigmas` is ignored. This mapping is this project's own, derived from the layout
    /// that the parameter counts prove; it was tested on files of that layout, not on one of the authors'.
    ///
    /// # Errors
    /// As [`Weights::read`], with the names of the file.
    pub fn model(
        &mut self,
        settings: UnetSettings,
        input: Shape,
        part: CheckpointPart,
    ) -> Result<Model, NetError> {
        let arch = Arch::Unet(settings);
        let graph = arch.graph(input)?;
        let [model, ema] = &self.parts;
        let given = match part {
            CheckpointPart::Model => model,
            CheckpointPart::Ema => ema,
        };
        if given.is_empty() {
            return Err(bad(&self.path, format!("no tensors below {:?}", part.key())));
        }
        let found: Vec<FileTensor> = given
            .iter()
            .map(|(name, tensor)| FileTensor {
                name: name.clone(),
                shape: tensor.shape.clone(),
                float: matches!(tensor.kind, Kind::Float(2 | 4) | Kind::Bfloat),
                dtype: tensor.kind.name(),
            })
            .collect();
        let names = names(graph.params());
        let wanted: Vec<_> = names
            .iter()
            .zip(graph.params())
            .map(|((name, transposed), p)| {
                let mut shape = p.layout.file_shape();
                if *transposed {
                    shape.reverse();
                }
                (name.clone(), shape)
            })
            .collect();
        check(&self.path, &wanted, &found)?;
        let mut weights = Weights::new(graph.clone(), vec![0.0; graph.len()])?;
        for ((name, transposed), p) in names.iter().zip(graph.params()) {
            let mut tensor = given[name].clone();
            if *transposed {
                tensor.shape.reverse();
                tensor.strides.reverse();
            }
            let values = self.file.elements(&tensor).map_err(|reason| bad(&self.path, reason))?;
            let Elements::F32(values) = values else {
                return Err(bad(&self.path, format!("{name} is {}, expected float32", tensor.kind.name())));
            };
            weights.set_file_values(p, &values)?;
        }
        Ok(Model { arch, input, weights })
    }
}

/// The parts of score_sde's blocks and of its attention.
const BLOCK: [(&str, &str); 6] = [
    ("norm1", "GroupNorm_0"),
    ("conv1", "Conv_0"),
    ("time", "Dense_0"),
    ("norm2", "GroupNorm_1"),
    ("conv2", "Conv_1"),
    ("shortcut", "NIN_0"),
];
const ATTENTION: [(&str, &str); 5] =
    [("norm", "GroupNorm_0"), ("q", "NIN_0"), ("k", "NIN_1"), ("v", "NIN_2"), ("out", "NIN_3")];
const WAY: [(&str, &str); 2] = [("down", "Conv_0"), ("up", "Conv_0")];

/// The name in score_sde of each parameter of a U-Net, and whether it is a matrix `[inputs, outputs]` there. Modules
/// have numbers in the order of the network, which is that of our parameters.
fn names(params: &[Param]) -> Vec<(String, bool)> {
    let mut modules: Vec<String> = Vec::new();
    let name = |p: &Param| {
        let (layer, kind) = p.name.rsplit_once('.').unwrap_or((&p.name, ""));
        let (parent, last) = layer.rsplit_once('.').unwrap_or(("", layer));
        let parts: &[(&str, &str)] = match parent {
            _ if parent.contains(".block.") => &BLOCK,
            _ if parent.contains(".attention") => &ATTENTION,
            _ if parent.starts_with("down.") || parent.starts_with("up.") => &WAY,
            _ => &[],
        };
        let part = parts.iter().find(|(ours, _)| *ours == last).map(|(_, theirs)| *theirs);
        // The way to the next level has its level's name, and no module of that name but it.
        let module = if part.is_some() { parent } else { layer };
        let number = modules.iter().position(|m| m == module).unwrap_or_else(|| {
            modules.push(module.to_owned());
            modules.len() - 1
        });
        let turned = part.is_some_and(|part| part.starts_with("NIN"));
        let kind = match (turned, kind) {
            (true, "weight") => "W",
            (true, _) => "b",
            (false, kind) => kind,
        };
        let part = part.map_or(String::new(), |part| format!("{part}."));
        (format!("all_modules.{number}.{part}{kind}"), turned && kind == "W")
    };
    params.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::find;

    #[test]
    fn modules_are_numbered_as_in_score_sde() {
        let shape = find("cifar10").unwrap().shape;
        let arch = Arch::Unet(UnetSettings::paper("cifar10", 128).unwrap());
        let graph = arch.graph(Shape::image(shape.height, shape.width, shape.channels)).unwrap();
        let all = names(graph.params());
        let theirs = |name: &str| {
            let i = graph.params().iter().position(|p| p.name == name).unwrap();
            (all[i].0.as_str(), all[i].1)
        };
        // Counted by hand: 2 of time, the first convolution, then levels of two blocks (32), two blocks with
        // attention (16), two (8), two (4), with three ways down between.
        assert_eq!(theirs("time.1.bias"), ("all_modules.1.bias", false));
        assert_eq!(theirs("input.weight"), ("all_modules.2.weight", false));
        assert_eq!(theirs("down.0.block.0.conv1.weight"), ("all_modules.3.Conv_0.weight", false));
        assert_eq!(theirs("down.0.down.weight"), ("all_modules.5.Conv_0.weight", false));
        assert_eq!(theirs("down.1.block.0.shortcut.weight"), ("all_modules.6.NIN_0.W", true));
        assert_eq!(theirs("down.1.attention.0.out.bias"), ("all_modules.7.NIN_3.b", false));
        assert_eq!(theirs("middle.attention.norm.weight"), ("all_modules.17.GroupNorm_0.weight", false));
        assert_eq!(theirs("up.3.block.0.time.weight"), ("all_modules.19.Dense_0.weight", false));
        assert_eq!(theirs("up.3.up.bias"), ("all_modules.22.Conv_0.bias", false));
        // Three blocks and a way up (8), three with attention and a way up (16), three (32), and the output.
        assert_eq!(theirs("output.norm.weight"), ("all_modules.37.weight", false));
        assert_eq!(theirs("output.conv.bias"), ("all_modules.38.bias", false));
    }
}
