//! The network of the toy model, after the paper's text and after the public code.

use crate::shape::Shape;
use serde::{Deserialize, Serialize};

use super::arch::{dense, fan_in, within};
use super::{Builder, Graph, NetError};

/// The two descriptions of the toy network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToyForm {
    /// The paper's text: random Fourier features of time and a linear map to 256, an encoder of four residual blocks, an
    /// equal decoder, Swish. The rest, which the text leaves open, is this project's choice. A linear map takes the point
    /// to `width`, another takes it back, and all blocks have that width. A block is Swish, linear with a shift by time,
    /// Swish, linear, plus its input. The shifts are linear maps of Swish of the embedding of time.
    Paper,
    /// The public code: `depth` linear layers with SiLU between them, and Fourier features of time with two linear
    /// layers, each followed by SiLU. Time enters as additional inputs of the first layer, which is this project's
    /// reading.
    Code,
}

/// Settings of the toy network. Initial values are PyTorch's defaults for linear layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToySettings {
    /// Description that is followed.
    pub form: ToyForm,
    /// Width of the hidden layers.
    pub width: usize,
    /// Residual blocks of the encoder and of the decoder, or number of linear layers.
    pub depth: usize,
    /// Width of the embedding of time.
    pub time: usize,
    /// Standard deviation of the frequencies of the Fourier features.
    pub scale: f64,
}

impl ToySettings {
    /// The paper's text. The scale of the frequencies is that of the code, as the text has none.
    pub const fn paper() -> Self {
        Self { form: ToyForm::Paper, width: 256, depth: 4, time: 256, scale: 16.0 }
    }

    /// The public code.
    pub const fn code() -> Self {
        Self { form: ToyForm::Code, width: 128, depth: 4, time: 128, scale: 16.0 }
    }

    /// The network.
    pub(super) fn graph(&self, input: Shape) -> Result<Graph, NetError> {
        within("toy", "width", self.width, 1, 65_536)?;
        within("toy", "depth", self.depth, 2, 1024)?;
        within("toy", "time", self.time, 2, 65_536)?;
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            let reason = format!("scale {}, expected a finite number above 0", self.scale);
            return Err(NetError::Graph { layer: "toy".into(), reason });
        }
        match self.form {
            ToyForm::Paper => self.paper_graph(input.len()),
            ToyForm::Code => self.code_graph(input.len()),
        }
    }

    fn paper_graph(&self, n: usize) -> Result<Graph, NetError> {
        let width = self.width;
        let (mut b, x) = Builder::new(Shape::vector(n));
        let t = b.fourier("time.features", self.time, self.scale)?;
        let t = dense(&mut b, "time.linear", t, self.time, None, fan_in(self.time))?;
        let time = b.silu("time.out", t, 0.0)?;
        let mut h = dense(&mut b, "input", x, width, None, fan_in(n))?;
        for side in ["encoder", "decoder"] {
            for i in 0..self.depth {
                let layer = format!("{side}.{i}");
                let shift = dense(&mut b, &format!("{layer}.time"), time, width, None, fan_in(self.time))?;
                let r = b.silu(&format!("{layer}.act1"), h, 0.0)?;
                let r = dense(&mut b, &format!("{layer}.linear1"), r, width, Some(shift), fan_in(width))?;
                let r = b.silu(&format!("{layer}.act2"), r, 0.0)?;
                let r = dense(&mut b, &format!("{layer}.linear2"), r, width, None, fan_in(width))?;
                h = b.add(&format!("{layer}.add"), h, r)?;
            }
        }
        let h = b.silu("output.act", h, 0.0)?;
        dense(&mut b, "output.linear", h, n, None, fan_in(width))?;
        Ok(b.finish())
    }

    fn code_graph(&self, n: usize) -> Result<Graph, NetError> {
        let (mut b, x) = Builder::new(Shape::vector(n));
        let mut t = b.fourier("time.features", self.time, self.scale)?;
        for i in 0..2 {
            t = dense(&mut b, &format!("time.{i}"), t, self.time, None, fan_in(self.time))?;
            t = b.silu(&format!("time.act{i}"), t, 0.0)?;
        }
        let mut h = b.concat("input", x, t)?;
        for i in 0..self.depth {
            let inputs = b.shape(h).channels;
            let last = i + 1 == self.depth;
            let outputs = if last { n } else { self.width };
            h = dense(&mut b, &format!("linear.{i}"), h, outputs, None, fan_in(inputs))?;
            if !last {
                h = b.silu(&format!("act.{i}"), h, 0.0)?;
            }
        }
        Ok(b.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Arch;

    #[test]
    fn parameters_are_as_many_as_counted_by_hand() {
        let linear = |inputs: usize, outputs: usize| (inputs + 1) * outputs;
        let paper = Arch::Toy(ToySettings::paper()).graph(Shape::vector(2)).unwrap();
        let count = linear(256, 256) + linear(2, 256) + 8 * 3 * linear(256, 256) + linear(256, 2);
        assert_eq!(paper.trained(), count);
        // The frequencies are not trained.
        assert_eq!(paper.len(), count + 128);

        let code = Arch::Toy(ToySettings::code()).graph(Shape::vector(2)).unwrap();
        let count = 2 * linear(128, 128) + linear(130, 128) + 2 * linear(128, 128) + linear(128, 2);
        assert_eq!((code.trained(), code.len()), (count, count + 64));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = ToySettings::paper();
        for (settings, wanted) in [
            (ToySettings { width: 0, ..good.clone() }, "width 0"),
            (ToySettings { depth: 1, ..good.clone() }, "depth 1"),
            (ToySettings { time: 3, ..good.clone() }, "3 channels of time"),
            (ToySettings { scale: f64::NAN, ..good }, "scale NaN"),
        ] {
            let error = settings.graph(Shape::vector(2)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
