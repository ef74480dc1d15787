//! The shape of one image or vector.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Height, width and channels of an image, stored in the order row, column, channel (NHWC). A vector is one pixel.
///
/// ```
/// use mem2gen::shape::Shape;
///
/// let shape = Shape::image(28, 28, 1);
/// assert_eq!((shape.pixels(), shape.len()), (784, 784));
/// assert_eq!(Shape::vector(2).len(), 2);
/// assert_eq!(shape.to_string(), "28x28x1");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Number of rows of pixels.
    pub height: usize,
    /// Number of pixels in a row.
    pub width: usize,
    /// Values in a pixel: 1 for gray, 3 for red, green and blue.
    pub channels: usize,
}

impl Shape {
    /// An image.
    pub const fn image(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// A vector.
    pub const fn vector(channels: usize) -> Self {
        Self { height: 1, width: 1, channels }
    }

    /// Number of pixels.
    pub const fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Number of values.
    pub const fn len(self) -> usize {
        self.pixels() * self.channels
    }

    /// Whether there is no value.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// As a tuple, for messages.
    pub(crate) fn sizes(self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}
