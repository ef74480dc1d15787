//! The authors' checkpoints.

use crate::shape::Shape;
use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::{PthTensors, TensorInfo};

use super::file::{Found, bad, check, numbers};
use super::{Arch, Model, NetError, Param, UnetSettings, Weights};

/// Which weights of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointPart {
    /// Those that are trained.
    Model,
    /// Their running mean.
    Ema,
}

impl CheckpointPart {
    const fn key(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Ema => "ema",
        }
    }
}

impl Model {
    /// Reads a U-Net from a checkpoint as the authors' code saves it: a dictionary `model`, `ema`, `opt`, `args`,
    /// `iterations` in PyTorch's format, of whose entries only the tensors directly below `model` or `ema` are read.
    /// Nothing in the file is run.
    ///
    /// The names are expected to be those of score_sde's DDPM, `all_modules.N.*`, with or without the `module.` of
    /// data parallelism, and a buffer `sigmas` is passed over. This mapping is the project's own, from the layout that
    /// the parameter counts prove; it was tried on files of that layout, not on one of the authors'.
    ///
    /// # Errors
    /// As [`Weights::read`], with the names of the file; [`NetError::Candle`] where it is no checkpoint.
    pub fn read_checkpoint(
        path: &Path,
        settings: UnetSettings,
        input: Shape,
        part: CheckpointPart,
    ) -> Result<Self, NetError> {
        let arch = Arch::Unet(settings);
        let graph = arch.graph(input)?;
        let file = PthTensors::new(path, Some(part.key()))?;
        let given: HashMap<&str, &TensorInfo> = file
            .tensor_infos()
            .iter()
            .map(|(name, info)| (name.strip_prefix("module.").unwrap_or(name), info))
            .filter(|(name, _)| *name != "sigmas")
            .collect();
        if given.is_empty() {
            return Err(bad(path, format!("no tensors below {:?}", part.key())));
        }
        let found: Vec<Found> = given
            .iter()
            .map(|(name, info)| Found {
                name: (*name).to_owned(),
                shape: info.layout.dims().to_vec(),
                float: matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16),
                dtype: info.dtype.as_str().to_uppercase(),
            })
            .collect();
        let names = names(graph.params());
        let wanted: Vec<_> = names
            .iter()
            .zip(graph.params())
            .map(|((name, turned), p)| {
                let mut shape = p.layout.file_shape();
                if *turned {
                    shape.reverse();
                }
                (name.clone(), shape)
            })
            .collect();
        check(path, &wanted, &found)?;
        let mut weights = Weights::new(graph.clone(), vec![0.0; graph.len()])?;
        for ((name, turned), p) in names.iter().zip(graph.params()) {
            let tensor = given.get(name.as_str()).map(|info| file.get(&info.name)).transpose()?.flatten();
            let tensor = tensor.ok_or_else(|| bad(path, format!("{name} can't be read")))?;
            let tensor = if *turned { tensor.t()? } else { tensor };
            weights.set_file_values(p, &numbers(&tensor)?)?;
        }
        Ok(Self { arch, input, weights })
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
        let of = |name: &str| {
            let i = graph.params().iter().position(|p| p.name == name).unwrap();
            (all[i].0.as_str(), all[i].1)
        };
        // Counted by hand: 2 of time, the first convolution, then levels of two blocks (32), two blocks with
        // attention (16), two (8), two (4), with three ways down between.
        assert_eq!(of("time.1.bias"), ("all_modules.1.bias", false));
        assert_eq!(of("input.weight"), ("all_modules.2.weight", false));
        assert_eq!(of("down.0.block.0.conv1.weight"), ("all_modules.3.Conv_0.weight", false));
        assert_eq!(of("down.0.down.weight"), ("all_modules.5.Conv_0.weight", false));
        assert_eq!(of("down.1.block.0.shortcut.weight"), ("all_modules.6.NIN_0.W", true));
        assert_eq!(of("down.1.attention.0.out.bias"), ("all_modules.7.NIN_3.b", false));
        assert_eq!(of("middle.attention.norm.weight"), ("all_modules.17.GroupNorm_0.weight", false));
        assert_eq!(of("up.3.block.0.time.weight"), ("all_modules.19.Dense_0.weight", false));
        assert_eq!(of("up.3.up.bias"), ("all_modules.22.Conv_0.bias", false));
        // Three blocks and a way up (8), three with attention and a way up (16), three (32), and the output.
        assert_eq!(of("output.norm.weight"), ("all_modules.37.weight", false));
        assert_eq!(of("output.conv.bias"), ("all_modules.38.bias", false));
    }
}
