//! The style of all figures: sizes, line widths and colours.
use crate::class::{Class, Group};

/// Font families of text in SVG; the first is part of the crate.
pub(crate) const FONT_FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
/// Em size of figure titles, in units of the figure.
pub const TITLE_SIZE: f64 = 14.0;
/// Em size of axis labels and panel titles.
pub const LABEL_SIZE: f64 = 12.0;
/// Em size of tick labels, legends and printed values.
pub const TICK_SIZE: f64 = 10.5;
/// Smallest em size of a printed cell value; values that need a smaller one are left out.
pub const SMALLEST_SIZE: f64 = 7.0;
/// Width of curves.
pub const CURVE_WIDTH: f64 = 1.75;
/// Width of frames and ticks.
pub const FRAME_WIDTH: f64 = 1.0;
/// Width of grid lines.
pub const GRID_WIDTH: f64 = 0.75;
/// Radius of the markers of curves.
pub const MARKER_RADIUS: f64 = 3.0;

/// A colour in sRGB with an opacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colour {
    /// Red.
    pub r: u8,
    /// Green.
    pub g: u8,
    /// Blue.
    pub b: u8,
    /// Opacity from 0 to 1.
    pub alpha: f64,
}

impl Colour {
    /// An opaque colour from `0xRRGGBB`.
    pub const fn hex(rgb: u32) -> Self {
        Self { r: (rgb >> 16) as u8, g: (rgb >> 8) as u8, b: rgb as u8, alpha: 1.0 }
    }

    /// The same colour with another opacity.
    pub const fn with_alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Red, green and blue.
    pub const fn rgb(self) -> [u8; 3] {
        [self.r, self.g, self.b]
    }

    /// Black or white, whichever has more contrast on this colour.
    pub fn ink(self) -> Self {
        let [r, g, b] = self.rgb().map(to_linear);
        if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.22 { TEXT } else { WHITE }
    }
}

/// Text, frames and ticks.
pub const TEXT: Colour = Colour::hex(0x22_22_22);
/// Background.
pub const WHITE: Colour = Colour::hex(0xff_ff_ff);
/// Grid lines.
pub const GRID: Colour = Colour::hex(0xe2_e2_e2);
/// Frames of plots.
pub const FRAME: Colour = Colour::hex(0x55_55_55);
/// Cells without a measurement.
pub const MISSING: Colour = Colour::hex(0xec_ec_ec);
/// The hatching of cells without a measurement.
pub const HATCH: Colour = Colour::hex(0xb0_b0_b0);
/// Guide lines and thresholds.
pub const GUIDE: Colour = Colour::hex(0x66_66_66);

/// The paper's colour of distances to the training set.
pub const OLIVE: Colour = Colour::hex(0x80_80_00);
/// The paper's colour of distances within the synthetic set.
pub const GRAY: Colour = Colour::hex(0x7f_7f_7f);

/// Colours and markers of classes. The colours are blue, vermilion and bluish green of Okabe and Ito, which can be told
/// apart with common colour blindness. The markers differ in shape.
impl Class {
    /// The colour of the class in every figure.
    pub const fn colour(self) -> Colour {
        match self {
            Self::Memorized => Colour::hex(0x00_72_b2),
            Self::Spurious => Colour::hex(0xd5_5e_00),
            Self::Generalized => Colour::hex(0x00_9e_73),
            Self::Invalid => Colour::hex(0x7f_7f_7f),
        }
    }

    /// The marker of the class in every figure.
    pub const fn marker(self) -> Marker {
        match self {
            Self::Memorized => Marker::Circle,
            Self::Spurious => Marker::Triangle,
            Self::Generalized => Marker::Square,
            Self::Invalid => Marker::Cross,
        }
    }
}

impl Group {
    /// The colour of the group in every figure: the colour of its class, and black for training images.
    pub const fn colour(self) -> Colour {
        match self {
            Self::Samples(class) => class.colour(),
            Self::Training => TEXT,
        }
    }

    /// The marker of the group in every figure: the marker of its class, and diamonds for training images.
    pub const fn marker(self) -> Marker {
        match self {
            Self::Samples(class) => class.marker(),
            Self::Training => Marker::Diamond,
        }
    }
}

/// Shapes of markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle that points up.
    Triangle,
    /// A diamond.
    Diamond,
    /// A diagonal cross.
    Cross,
}

/// Colour maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Palette {
    /// Viridis: perceptually uniform, dark is low.
    #[default]
    Viridis,
    /// Blue over white to red, for differences around the middle of the range.
    Diverging,
}

const VIRIDIS: [u32; 16] = [
    0x440154, 0x481a6c, 0x472f7d, 0x414487, 0x39568c, 0x31688e, 0x2a788e, 0x23888e, 0x1f988b, 0x22a884,
    0x35b779, 0x54c568, 0x7ad151, 0xa5db36, 0xd2e21b, 0xfde725,
];
const DIVERGING: [u32; 7] = [0x2166ac, 0x67a9cf, 0xd1e5f0, 0xf7f7f7, 0xfddbc7, 0xef8a62, 0xb2182b];
/// Purple to red without yellow, which is hard to see as thin lines on white.
const RAINBOW: [u32; 9] =
    [0x882e72, 0x1965b0, 0x5289c7, 0x58b3c4, 0x4eb265, 0xa2b93a, 0xf1a92d, 0xe8601c, 0xdc050c];
/// Colours of series without a colour of their own, in order.
const SERIES: [u32; 7] = [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x444444];

impl Palette {
    /// The colour at `t`, clamped to 0 to 1.
    pub fn at(self, t: f64) -> Colour {
        match self {
            Self::Viridis => ramp(&VIRIDIS, t),
            Self::Diverging => ramp(&DIVERGING, t),
        }
    }
}

/// Colour `index` of `count` along the rainbow, for training set sizes K.
pub fn rainbow(index: usize, count: usize) -> Colour {
    let last = count.saturating_sub(1).max(1);
    ramp(&RAINBOW, index as f64 / last as f64)
}

/// Colour of the series `index` without a colour of its own.
pub fn series_colour(index: usize) -> Colour {
    Colour::hex(SERIES[index % SERIES.len()])
}

/// The colours of the classes mixed by their fractions in linear light. The remainder to 1 is [`Class::Invalid`].
pub fn blend(memorized: f64, spurious: f64, generalized: f64) -> Colour {
    let rest = (1.0 - memorized - spurious - generalized).max(0.0);
    let weights = [memorized, spurious, generalized, rest];
    let mut sum = [0.0f64; 3];
    for (class, w) in Class::LABELS.into_iter().zip(weights) {
        for (s, v) in sum.iter_mut().zip(class.colour().rgb()) {
            *s += w * to_linear(v);
        }
    }
    let [r, g, b] = sum.map(from_linear);
    Colour { r, g, b, alpha: 1.0 }
}

fn ramp(anchors: &[u32], t: f64) -> Colour {
    let t = if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) };
    let position = t * (anchors.len() - 1) as f64;
    let i = (position as usize).min(anchors.len() - 2);
    let f = position - i as f64;
    let (a, b) = (Colour::hex(anchors[i]).rgb(), Colour::hex(anchors[i + 1]).rgb());
    let mix = |j: usize| (f64::from(a[j]) * (1.0 - f) + f64::from(b[j]) * f).round() as u8;
    Colour { r: mix(0), g: mix(1), b: mix(2), alpha: 1.0 }
}

fn to_linear(v: u8) -> f64 {
    let v = f64::from(v) / 255.0;
    if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

fn from_linear(v: f64) -> u8 {
    let v = v.clamp(0.0, 1.0);
    let s = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
    (255.0 * s).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pure_fraction_has_the_colour_of_its_class() {
        assert_eq!(blend(1.0, 0.0, 0.0), Class::Memorized.colour());
        assert_eq!(blend(0.0, 1.0, 0.0), Class::Spurious.colour());
        assert_eq!(blend(0.0, 0.0, 1.0), Class::Generalized.colour());
        assert_eq!(blend(0.0, 0.0, 0.0), Class::Invalid.colour());
    }

    #[test]
    fn palettes_start_and_end_at_their_anchors() {
        assert_eq!(Palette::Viridis.at(-1.0), Colour::hex(0x440154));
        assert_eq!(Palette::Viridis.at(2.0), Colour::hex(0xfde725));
        assert_eq!(rainbow(0, 1), rainbow(0, 12));
        assert_ne!(rainbow(10, 12), rainbow(11, 12));
    }
}
