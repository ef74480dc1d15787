//! A residual MLP for small images.

use crate::shape::Shape;
use serde::{Deserialize, Serialize};

use super::arch::{dense, fan_avg, within};
use super::{Builder, Graph, NetError};

/// Settings of the residual MLP, which is this project's own. For 7x7 images the defaults give 0.9 million parameters.
///
/// A linear map takes the sample to `width`, then follow `blocks` residual blocks and a linear map back. A block is
/// layer normalisation, SiLU, linear with a shift by time, layer normalisation, SiLU, dropout, linear. Time enters by
/// DDPM's embedding and two linear layers. Initial values are as in [`super::UnetSettings`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSettings {
    /// Width of the blocks.
    pub width: usize,
    /// Number of residual blocks.
    pub blocks: usize,
    /// Number of sines and cosines of time.
    pub time: usize,
    /// Dropout probability within blocks.
    pub dropout: f64,
}

impl Default for MlpSettings {
    fn default() -> Self {
        Self { width: 256, blocks: 4, time: 64, dropout: 0.0 }
    }
}

/// Added to the variance by layer normalisation.
const EPSILON: f64 = 1e-6;

impl MlpSettings {
    /// The network.
    pub(super) fn graph(&self, input: Shape) -> Result<Graph, NetError> {
        within("mlp", "width", self.width, 1, 65_536)?;
        within("mlp", "blocks", self.blocks, 1, 1024)?;
        within("mlp", "time", self.time, 4, 65_536)?;
        let (pixels, width) = (input.len(), self.width);
        let (mut b, x) = Builder::new(Shape::vector(pixels));

        let t = b.sinusoid("time.embedding", self.time, 10_000.0)?;
        let t = dense(&mut b, "time.0", t, width, None, fan_avg(1.0, 1, self.time, width))?;
        let t = b.silu("time.act", t, 0.0)?;
        let t = dense(&mut b, "time.1", t, width, None, fan_avg(1.0, 1, width, width))?;
        let time = b.silu("time.out", t, 0.0)?;

        let whole = fan_avg(1.0, 1, width, width);
        let mut h = dense(&mut b, "input", x, width, None, fan_avg(1.0, 1, pixels, width))?;
        for i in 0..self.blocks {
            let layer = format!("block.{i}");
            let shift = dense(&mut b, &format!("{layer}.time"), time, width, None, whole)?;
            let r = b.norm(&format!("{layer}.norm1"), h, 1, EPSILON, true, 0.0)?;
            let r = dense(&mut b, &format!("{layer}.linear1"), r, width, Some(shift), whole)?;
            let r = b.norm(&format!("{layer}.norm2"), r, 1, EPSILON, true, self.dropout)?;
            let r =
                dense(&mut b, &format!("{layer}.linear2"), r, width, None, fan_avg(0.0, 1, width, width))?;
            h = b.add(&format!("{layer}.add"), h, r)?;
        }
        let h = b.norm("output.norm", h, 1, EPSILON, true, 0.0)?;
        dense(&mut b, "output.linear", h, pixels, None, fan_avg(0.0, 1, width, pixels))?;
        Ok(b.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Arch;

    #[test]
    fn the_default_for_7x7_has_as_many_parameters_as_a_count_by_hand() {
        let graph = Arch::Mlp(MlpSettings::default()).graph(Shape::image(7, 7, 1)).unwrap();
        let linear = |inputs: usize, outputs: usize| (inputs + 1) * outputs;
        let block = 3 * linear(256, 256) + 4 * 256;
        let count = linear(64, 256) + linear(256, 256) + linear(49, 256) + 4 * block + 512 + linear(256, 49);
        assert_eq!((graph.trained(), count), (count, 901_937));
        assert_eq!(graph.output(), Shape::vector(49));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = MlpSettings::default();
        for (settings, wanted) in [
            (MlpSettings { width: 0, ..good.clone() }, "width 0"),
            (MlpSettings { blocks: 0, ..good.clone() }, "blocks 0"),
            (MlpSettings { time: 5, ..good.clone() }, "5 channels of time"),
            (MlpSettings { dropout: -0.1, ..good }, "dropout -0.1"),
        ] {
            let error = settings.graph(Shape::image(7, 7, 1)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
