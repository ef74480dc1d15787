//! The U-Net of DDPM.

use serde::{Deserialize, Serialize};

use super::arch::{dense, fan_avg, within};
use super::{Builder, ConvSettings, Graph, NetError, NodeId};
use crate::data::{DataError, find};
use crate::shape::Shape;

/// Settings of the U-Net of Ho et al. (2020) in the layout of score_sde, which is the paper's.
///
/// Initial values are those of score_sde's DDPM: `default_init` with variance 1 / mean of fan-in and fan-out, 0.1 of
/// that for shortcuts and the maps of attention, and zero biases. Where score_sde has a scale of 1e-10 (the last
/// convolution of a block, the output map of attention and the output convolution) initial values are zero.
///
/// ```
/// use mem2gen::net::{Arch, UnetSettings};
/// use mem2gen::shape::Shape;
///
/// let unet = UnetSettings::paper("mnist", 128)?;
/// let graph = Arch::Unet(unet).graph(Shape::image(28, 28, 1))?;
/// assert_eq!(graph.trained(), 24_515_585);
/// # Ok::<(), mem2gen::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetSettings {
    /// Channels of the first level.
    pub channels: usize,
    /// Channels of each level, as multiples of `channels`. Each level halves height and width.
    pub multipliers: Vec<usize>,
    /// Residual blocks of a level on the way down; the way up has one more.
    pub blocks: usize,
    /// Heights of the levels with attention after each block, on the way down and up. The middle always has attention.
    pub attention: Vec<usize>,
    /// Groups of group normalisation; `None` for [`Self::default_groups`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
    /// Dropout probability within blocks.
    pub dropout: f64,
    /// Height and width of the blocks of pixels that the network takes as one pixel, which makes it faster by their area;
    /// 1 is the paper's. Samples are the same images.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub patch: usize,
    /// Length of the condition, such as a caption's vector: two dense layers of it are added to the embedding of time. 0 for
    /// none, as in the paper. A condition of zeros stands for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub condition: usize,
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// Added to the variance by group normalisation.
const EPSILON: f64 = 1e-6;

impl UnetSettings {
    /// The paper's network for one of its data sets, with any number of channels. The paper has 128 for MNIST and
    /// Fashion-MNIST, and 64, 96 and 128 for CIFAR10 and LSUN-CHURCH.
    ///
    /// # Errors
    /// [`DataError`] for an unknown data set.
    pub fn paper(dataset: &str, channels: usize) -> Result<Self, DataError> {
        let (multipliers, dropout): (&[usize], f64) = match find(dataset)?.name {
            "lsun-church" => (&[1, 1, 2, 2, 4, 4], 0.0),
            "cifar10" => (&[1, 2, 2, 2], 0.1),
            _ => (&[1, 2, 2], 0.1),
        };
        Ok(Self {
            channels,
            multipliers: multipliers.to_vec(),
            blocks: 2,
            attention: vec![16],
            groups: None,
            dropout,
            patch: 1,
            condition: 0,
        })
    }

    /// A network for images of any size, by this project's own rule. Height and width are halved while they are even and
    /// at least 8, at most three times. The multiplier is 1 for the first level and 2 for others. For 28 and 32 pixels
    /// this is the paper's network; 14 pixels give levels of 14 and 7, and 7 pixels one level.
    pub fn desk(input: Shape, channels: usize) -> Self {
        let mut multipliers = vec![1];
        let (mut height, mut width) = (input.height, input.width);
        while height.is_multiple_of(2)
            && width.is_multiple_of(2)
            && height.min(width) >= 8
            && multipliers.len() < 4
        {
            (height, width) = (height / 2, width / 2);
            multipliers.push(2);
        }
        Self {
            channels,
            multipliers,
            blocks: 2,
            attention: vec![16],
            groups: None,
            dropout: 0.1,
            patch: 1,
            condition: 0,
        }
    }

    /// Default number of groups: 32 for at least 64 channels, as in the paper; else a quarter of the channels, which is
    /// this project's own choice, as 32 groups would leave one channel in a group.
    pub const fn default_groups(channels: usize) -> usize {
        match channels {
            64.. => 32,
            4.. => channels / 4,
            _ => 1,
        }
    }

    /// The network.
    pub(super) fn graph(&self, input: Shape) -> Result<Graph, NetError> {
        within("unet", "channels", self.channels, 4, 4096)?;
        within("unet", "number of multipliers", self.multipliers.len(), 1, 12)?;
        for &multiplier in &self.multipliers {
            within("unet", "multiplier", multiplier, 1, 64)?;
        }
        within("unet", "blocks", self.blocks, 1, 64)?;
        within("unet", "patch", self.patch, 1, 64)?;
        within("unet", "condition", self.condition, 0, 1 << 16)?;
        let halvings = self.multipliers.len() - 1;
        let finest = self.patch << halvings;
        if !input.height.is_multiple_of(finest) || !input.width.is_multiple_of(finest) {
            return Err(NetError::Graph {
                layer: "unet".into(),
                reason: format!(
                    "{} levels need height and width divisible by {finest}, found {}x{}",
                    halvings + 1,
                    input.height,
                    input.width
                ),
            });
        }
        let groups = self.groups.unwrap_or(Self::default_groups(self.channels));
        let (mut builder, mut x) = Builder::new(input);
        let b = &mut builder;
        if self.patch > 1 {
            x = b.fold("patches", x, self.patch)?;
        }
        let input = b.shape(x);

        let wide = 4 * self.channels;
        let t = b.sinusoid("time.embedding", self.channels, 10_000.0)?;
        let t = dense(b, "time.0", t, wide, None, fan_avg(1.0, 1, self.channels, wide))?;
        let t = b.silu("time.act", t, 0.0)?;
        let t = dense(b, "time.1", t, wide, None, fan_avg(1.0, 1, wide, wide))?;
        let t = match self.condition {
            0 => t,
            length => {
                let c = b.condition("condition", length)?;
                let c = dense(b, "condition.0", c, wide, None, fan_avg(1.0, 1, length, wide))?;
                let c = b.silu("condition.act", c, 0.0)?;
                let c = dense(b, "condition.1", c, wide, None, fan_avg(1.0, 1, wide, wide))?;
                b.add("condition.add", t, c)?
            }
        };
        // Every block begins with SiLU of the embedding, so it is shared.
        let time = b.silu("time.out", t, 0.0)?;

        let mut parts = Parts { b, time, groups, dropout: self.dropout };
        let mut h = parts.conv3("input", x, self.channels, Kind::Plain)?;
        let mut kept = vec![h];
        for (level, &multiplier) in self.multipliers.iter().enumerate() {
            let outputs = multiplier * self.channels;
            for i in 0..self.blocks {
                h = parts.block(&format!("down.{level}.block.{i}"), h, outputs)?;
                if self.attends(parts.b.shape(h)) {
                    h = parts.attention(&format!("down.{level}.attention.{i}"), h)?;
                }
                kept.push(h);
            }
            if level < halvings {
                h = parts.conv3(&format!("down.{level}.down"), h, outputs, Kind::Down)?;
                kept.push(h);
            }
        }
        let outputs = parts.b.shape(h).channels;
        h = parts.block("middle.block.0", h, outputs)?;
        h = parts.attention("middle.attention", h)?;
        h = parts.block("middle.block.1", h, outputs)?;
        for (level, &multiplier) in self.multipliers.iter().enumerate().rev() {
            let outputs = multiplier * self.channels;
            for i in 0..=self.blocks {
                let layer = format!("up.{level}.block.{i}");
                // As many values are kept on the way down as are used on the way up.
                if let Some(skip) = kept.pop() {
                    h = parts.b.concat(&format!("{layer}.concat"), h, skip)?;
                }
                h = parts.block(&layer, h, outputs)?;
                if self.attends(parts.b.shape(h)) {
                    h = parts.attention(&format!("up.{level}.attention.{i}"), h)?;
                }
            }
            if level > 0 {
                h = parts.conv3(&format!("up.{level}.up"), h, outputs, Kind::Up)?;
            }
        }
        let h = parts.b.norm("output.norm", h, groups, EPSILON, true, 0.0)?;
        let h = parts.conv3("output.conv", h, input.channels, Kind::Last)?;
        if self.patch > 1 {
            builder.unfold("output.pixels", h, self.patch)?;
        }
        Ok(builder.finish())
    }

    fn attends(&self, shape: Shape) -> bool {
        shape.height == shape.width && self.attention.contains(&shape.height)
    }
}

/// Role of a convolution.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Down,
    Up,
    /// Initially zero.
    Last,
}

/// Builder of the network's parts.
struct Parts<'b> {
    b: &'b mut Builder,
    time: NodeId,
    groups: usize,
    dropout: f64,
}

impl Parts<'_> {
    fn conv3(&mut self, layer: &str, x: NodeId, outputs: usize, kind: Kind) -> Result<NodeId, NetError> {
        self.shifted(layer, x, outputs, kind, None)
    }

    fn shifted(
        &mut self,
        layer: &str,
        x: NodeId,
        outputs: usize,
        kind: Kind,
        shift: Option<NodeId>,
    ) -> Result<NodeId, NetError> {
        let scale = if kind == Kind::Last { 0.0 } else { 1.0 };
        let settings = ConvSettings {
            side: 3,
            stride: if kind == Kind::Down { 2 } else { 1 },
            upsample: kind == Kind::Up,
            shift,
            dense: false,
            init: fan_avg(scale, 3, self.b.shape(x).channels, outputs),
        };
        self.b.conv(layer, x, outputs, settings)
    }

    /// A linear map of each pixel's channels.
    fn map(&mut self, layer: &str, x: NodeId, outputs: usize, scale: f64) -> Result<NodeId, NetError> {
        let init = fan_avg(scale, 1, self.b.shape(x).channels, outputs);
        dense(self.b, layer, x, outputs, None, init)
    }

    fn block(&mut self, layer: &str, x: NodeId, outputs: usize) -> Result<NodeId, NetError> {
        let inputs = self.b.shape(x).channels;
        let h = self.b.norm(&format!("{layer}.norm1"), x, self.groups, EPSILON, true, 0.0)?;
        let shift = self.map(&format!("{layer}.time"), self.time, outputs, 1.0)?;
        let h = self.shifted(&format!("{layer}.conv1"), h, outputs, Kind::Plain, Some(shift))?;
        let h = self.b.norm(&format!("{layer}.norm2"), h, self.groups, EPSILON, true, self.dropout)?;
        let h = self.conv3(&format!("{layer}.conv2"), h, outputs, Kind::Last)?;
        let x = match inputs == outputs {
            true => x,
            false => self.map(&format!("{layer}.shortcut"), x, outputs, 0.1)?,
        };
        self.b.add(&format!("{layer}.add"), x, h)
    }

    fn attention(&mut self, layer: &str, x: NodeId) -> Result<NodeId, NetError> {
        let channels = self.b.shape(x).channels;
        let h = self.b.norm(&format!("{layer}.norm"), x, self.groups, EPSILON, false, 0.0)?;
        let q = self.map(&format!("{layer}.q"), h, channels, 0.1)?;
        let k = self.map(&format!("{layer}.k"), h, channels, 0.1)?;
        let v = self.map(&format!("{layer}.v"), h, channels, 0.1)?;
        let h = self.b.attention(&format!("{layer}.softmax"), q, k, v)?;
        let h = self.map(&format!("{layer}.out"), h, channels, 0.0)?;
        self.b.add(&format!("{layer}.add"), x, h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Arch, Op};

    #[test]
    fn parameter_counts_are_the_papers() {
        for (dataset, channels, count) in [
            ("mnist", 128, 24_515_585),
            ("cifar10", 64, 8_952_067),
            ("cifar10", 96, 20_118_915),
            ("cifar10", 128, 35_746_307),
            ("lsun-church", 64, 27_460_355),
            ("lsun-church", 96, 61_745_283),
            ("lsun-church", 128, 109_733_379),
        ] {
            let shape = find(dataset).unwrap().shape;
            let graph = Arch::Unet(UnetSettings::paper(dataset, channels).unwrap())
                .graph(Shape::image(shape.height, shape.width, shape.channels))
                .unwrap();
            assert_eq!(graph.trained(), count, "{dataset} {channels}");
            assert_eq!(graph.len(), count);
            assert_eq!(graph.output(), graph.input());
        }
        assert!(UnetSettings::paper("imagenet", 64).is_err());
        assert_eq!(
            UnetSettings::paper("fashion-mnist", 128).unwrap(),
            UnetSettings::paper("mnist", 128).unwrap()
        );
    }

    #[test]
    fn attention_is_at_16_and_in_the_middle() {
        let count = |dataset: &str, side| {
            let settings = UnetSettings::paper(dataset, 64).unwrap();
            let graph = settings.graph(Shape::image(side, side, 3)).unwrap();
            let nodes = graph.nodes().iter().filter(|n| n.op == Op::Attention);
            nodes.map(|n| n.shape.height).collect::<Vec<_>>()
        };
        assert_eq!(count("mnist", 28), [7]);
        assert_eq!(count("cifar10", 32), [16, 16, 4, 16, 16, 16]);
        assert_eq!(count("lsun-church", 64), [16, 16, 2, 16, 16, 16]);
    }

    #[test]
    fn small_images_get_as_many_levels_as_they_have_room_for() {
        for (side, multipliers) in
            [(7, vec![1]), (8, vec![1, 2]), (14, vec![1, 2]), (28, vec![1, 2, 2]), (32, vec![1, 2, 2, 2])]
        {
            let input = Shape::image(side, side, 1);
            let settings = UnetSettings::desk(input, 32);
            assert_eq!(settings.multipliers, multipliers, "{side}");
            let graph = Arch::Unet(settings).graph(input).unwrap();
            assert_eq!(graph.output(), input);
            let groups = graph.nodes().iter().find_map(|n| match n.op {
                Op::Norm { groups, .. } => Some(groups),
                _ => None,
            });
            assert_eq!(groups, Some(8));
        }
        let settings = UnetSettings::paper("mnist", 32).unwrap();
        let error = settings.graph(Shape::image(14, 14, 1)).unwrap_err().to_string();
        assert_eq!(error, "network: unet: 3 levels need height and width divisible by 4, found 14x14");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = UnetSettings::desk(Shape::image(8, 8, 1), 8);
        let bad: [(UnetSettings, &str); 6] = [
            (UnetSettings { channels: 2, ..good.clone() }, "channels 2"),
            (UnetSettings { multipliers: vec![], ..good.clone() }, "number of multipliers 0"),
            (UnetSettings { multipliers: vec![1, 0], ..good.clone() }, "multiplier 0"),
            (UnetSettings { blocks: 0, ..good.clone() }, "blocks 0"),
            (UnetSettings { groups: Some(3), ..good.clone() }, "3 groups of 8"),
            (UnetSettings { dropout: 1.0, ..good.clone() }, "dropout 1"),
        ];
        for (settings, wanted) in bad {
            let error = settings.graph(Shape::image(8, 8, 1)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(Arch::Unet(good).graph(Shape::image(8, 8, 0)).is_err());
    }
}
