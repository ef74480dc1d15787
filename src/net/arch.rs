//! Architectures as settings.

use crate::shape::Shape;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mlp::MlpSettings;
use super::toy::ToySettings;
use super::unet::UnetSettings;
use super::{Builder, ConvSettings, Graph, Init, LayerInit, NetError, NodeId};

/// Settings of a network, which give its [`Graph`] for a shape of the samples.
///
/// Every network maps a sample and its time to an output of the same shape. What the output predicts is a setting of
/// training; no network divides by sigma.
///
/// ```
/// use mem2gen::net::{Arch, MlpSettings};
/// use mem2gen::shape::Shape;
///
/// let graph = Arch::Mlp(MlpSettings::default()).graph(Shape::image(7, 7, 1))?;
/// assert_eq!(graph.trained(), 901_937);
/// # Ok::<(), mem2gen::net::NetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Arch {
    /// The U-Net of DDPM.
    Unet(UnetSettings),
    /// A residual MLP for small images.
    Mlp(MlpSettings),
    /// The network of the toy model.
    Toy(ToySettings),
}

impl Arch {
    /// The name in settings.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unet(_) => "unet",
            Self::Mlp(_) => "mlp",
            Self::Toy(_) => "toy",
        }
    }

    /// The network for samples of this shape. The MLP and the toy network take a sample as a vector, in the order row,
    /// column, channel.
    ///
    /// # Errors
    /// [`NetError::Graph`] with the first setting out of its range, or the first layer whose shapes do not fit.
    pub fn graph(&self, input: Shape) -> Result<Arc<Graph>, NetError> {
        for (name, value, most) in [
            ("height", input.height, 4096),
            ("width", input.width, 4096),
            ("channels", input.channels, 1 << 20),
        ] {
            within("input", name, value, 1, most)?;
        }
        Ok(Arc::new(match self {
            Self::Unet(settings) => settings.graph(input)?,
            Self::Mlp(settings) => settings.graph(input)?,
            Self::Toy(settings) => settings.graph(input)?,
        }))
    }
}

/// Checks that a setting lies between `least` and `most`.
pub(super) fn within(
    layer: &str,
    setting: &str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), NetError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(NetError::Graph {
        layer: layer.into(),
        reason: format!("{setting} {value}, expected {least} to {most}"),
    })
}

/// Uniform weights of variance `scale` / mean of fan-in and fan-out, and a zero bias: `default_init` of score_sde. A
/// scale of zero means 1e-10 there, and zero here.
pub(super) fn fan_avg(scale: f64, side: usize, inputs: usize, outputs: usize) -> LayerInit {
    let fan = (side * side * (inputs + outputs)) as f64 / 2.0;
    let weight = match scale {
        0.0 => Init::Zeros,
        _ => Init::Uniform((3.0 * scale / fan).sqrt()),
    };
    LayerInit { weight, bias: Init::Zeros }
}

/// PyTorch's default initial values of a dense layer: weight and bias uniform within 1/sqrt(inputs).
pub(super) fn fan_in(inputs: usize) -> LayerInit {
    let uniform = Init::Uniform(1.0 / (inputs as f64).sqrt());
    LayerInit { weight: uniform, bias: uniform }
}

/// A dense layer, applied to each pixel.
pub(super) fn dense(
    b: &mut Builder,
    layer: &str,
    x: NodeId,
    outputs: usize,
    shift: Option<NodeId>,
    init: LayerInit,
) -> Result<NodeId, NetError> {
    let settings = ConvSettings { side: 1, stride: 1, upsample: false, shift, dense: true, init };
    b.conv(layer, x, outputs, settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_serialization_and_unknown_fields_are_refused() {
        for arch in [
            Arch::Unet(UnetSettings::desk(Shape::image(14, 14, 1), 32)),
            Arch::Mlp(MlpSettings::default()),
            Arch::Toy(ToySettings::paper()),
            Arch::Toy(ToySettings::code()),
        ] {
            let json = serde_json::to_string(&arch).unwrap();
            assert_eq!(serde_json::from_str::<Arch>(&json).unwrap(), arch, "{json}");
            let more = json.replacen('{', "{\"colour\":3,", 1);
            assert!(
                serde_json::from_str::<Arch>(&more).unwrap_err().to_string().contains("colour"),
                "{more}"
            );
        }
        let text =
            "kind = 'unet'\nchannels = 32\nmultipliers = [1, 2]\nblocks = 2\nattention = [16]\ndropout = 0.1";
        let arch = Arch::Unet(UnetSettings::desk(Shape::image(14, 14, 1), 32));
        assert_eq!(toml::from_str::<Arch>(text).unwrap(), arch);
    }

    #[test]
    fn initial_values_have_the_variance_asked_for() {
        let LayerInit { weight: Init::Uniform(bound), bias: Init::Zeros } = fan_avg(1.0, 3, 16, 32) else {
            panic!()
        };
        // A uniform number within b has variance b^2 / 3.
        assert!((bound * bound / 3.0 - 1.0 / (9.0 * 24.0)).abs() < 1e-15);
        assert_eq!(fan_avg(0.0, 3, 16, 32).weight, Init::Zeros);
    }
}
