//! Mirrored and moved images.

use std::fmt;

use ndarray::{Array2, ArrayView2};

use crate::shape::Shape;

/// What is done to a sample before it is compared: mirrored from left to right or not, then moved, where pixels that come
/// from outside repeat the nearest pixel of the border.
///
/// ```
/// use mem2gen::shape::Shape;
/// use mem2gen::study::copies::Transformation;
/// use ndarray::array;
///
/// let all = Transformation::all(true, 1);
/// assert_eq!((all.len(), all[0].to_string()), (18, "none".into()));
///
/// let mirrored = Transformation { mirrored: true, right: 1, down: 0 };
/// assert_eq!(mirrored.to_string(), "mirrored, 1 right");
/// let rows = array![[1.0f32, 2.0, 3.0]];
/// assert_eq!(mirrored.apply(rows.view(), Shape::image(1, 3, 1)), array![[3.0, 3.0, 2.0]]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transformation {
    /// Whether left and right are exchanged.
    pub mirrored: bool,
    /// Pixels to the right; negative to the left.
    pub right: isize,
    /// Pixels down; negative up.
    pub down: isize,
}

impl Transformation {
    /// All transformations by up to `shifts` pixels in each direction, the identity first.
    pub fn all(flips: bool, shifts: usize) -> Vec<Self> {
        let shifts = shifts as isize;
        let mut all: Vec<Self> = [false, true][..1 + usize::from(flips)]
            .iter()
            .flat_map(|&mirrored| {
                let places = (-shifts..=shifts)
                    .flat_map(move |down| (-shifts..=shifts).map(move |right| (right, down)));
                places.map(move |(right, down)| Self { mirrored, right, down })
            })
            .collect();
        all.sort_by_key(|t| (t.mirrored, t.right.abs() + t.down.abs()));
        all
    }

    /// The images of `rows` after the transformation.
    pub fn apply(self, rows: ArrayView2<'_, f32>, shape: Shape) -> Array2<f32> {
        let Shape { height, width, channels } = shape;
        let inside = |at: isize, size: usize| at.clamp(0, size as isize - 1) as usize;
        let from: Vec<usize> = (0..shape.len())
            .map(|i| {
                let (pixel, c) = (i / channels, i % channels);
                let (y, x) = ((pixel / width) as isize, (pixel % width) as isize);
                let (y, x) = (inside(y - self.down, height), inside(x - self.right, width));
                let x = if self.mirrored { width - 1 - x } else { x };
                (y * width + x) * channels + c
            })
            .collect();
        Array2::from_shape_fn(rows.dim(), |(i, j)| rows[[i, from[j]]])
    }
}

impl fmt::Display for Transformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = |by: isize, names: [&str; 2]| match by {
            0 => None,
            by => Some(format!("{} {}", by.abs(), names[usize::from(by < 0)])),
        };
        let parts: Vec<String> = [
            self.mirrored.then(|| "mirrored".to_owned()),
            moved(self.right, ["right", "left"]),
            moved(self.down, ["down", "up"]),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { f.write_str("none") } else { f.write_str(&parts.join(", ")) }
    }
}
