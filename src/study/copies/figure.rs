//! Figures of a classified synthetic set: histograms of distances (Fig. 3) and the contact sheet (Fig. 1B).

use ndarray::Array3;

use super::Label;
use crate::detect::{Origin, Share, Threshold};
use crate::plot::{
    Colour, Figure, FigureError, Histogram, HistogramSeries, ImageGrid, ImageRow, Picture, histogram,
    image_grid,
};

/// Colour of distances of held-out images.
const HELD_OUT: Colour = Colour::hex(0x56_b4_e9);

/// Histogram of distances on a logarithmic axis, with the threshold and the distances of held-out images. Distances below
/// `floor` are drawn at `floor`.
///
/// # Errors
/// As [`histogram`], for example without distances.
pub fn distances(
    title: &str,
    name: &str,
    samples: &[f64],
    held_out: Option<&[f64]>,
    floor: f64,
    threshold: &Threshold,
    colour: Colour,
) -> Result<Figure, FigureError> {
    let logs = |d: &[f64]| d.iter().map(|d| d.max(floor).log10()).collect::<Vec<f64>>();
    let mut panel = Histogram::new(title, &format!("log10 of {name}"))
        .bins(60)
        .share()
        .series(HistogramSeries::new("synthetic samples", logs(samples)).colour(colour));
    if let Some(held_out) = held_out {
        panel = panel.series(HistogramSeries::new("held-out images", logs(held_out)).colour(HELD_OUT));
    }
    let origin = match threshold.origin {
        Origin::Manual => Some("given"),
        Origin::Valley => Some("valley"),
        Origin::Null => Some("held-out"),
        Origin::Unknown | Origin::NoDistances => None,
    };
    if let Some((value, origin)) = threshold.value.zip(origin) {
        panel = panel.threshold(value.max(floor).log10(), &format!("{value:.4} ({origin})"));
    }
    histogram(&panel)
}

/// One sample and its neighbours, values in [0, 1].
#[derive(Debug, Clone)]
pub struct Example {
    /// The sample.
    pub sample: Array3<f32>,
    /// The nearest training image and its distance.
    pub train: (Array3<f32>, f64),
    /// The nearest other sample and its distance; `None` when there is no other sample.
    pub synthetic: Option<(Array3<f32>, f64)>,
}

/// A row of samples for each label, with the nearest training image above and the nearest other sample below. Classes with
/// too few samples are marked.
///
/// # Errors
/// As [`image_grid`], for example without images.
pub fn contact_sheet(title: &str, classes: &[(Label, Share, Vec<Example>)]) -> Result<Figure, FigureError> {
    let mut grid = ImageGrid::new(title);
    let most = classes.iter().map(|(.., examples)| examples.len()).max().unwrap_or(0);
    for (label, share, examples) in classes.iter().filter(|(.., examples)| !examples.is_empty()) {
        let few = if share.too_few { ", too few" } else { "" };
        let captioned =
            |(pixels, d): &(Array3<f32>, f64)| Picture::new(pixels.clone()).caption(&format!("{d:.3}"));
        let mut rows = [
            ("nearest in D".to_owned(), examples.iter().map(|e| Some(captioned(&e.train))).collect()),
            (
                format!("{} ({}{few})", label.name(), share.count),
                examples.iter().map(|e| Some(Picture::new(e.sample.clone()).class(label.class()))).collect(),
            ),
            (
                "nearest in S".to_owned(),
                examples.iter().map(|e| e.synthetic.as_ref().map(captioned)).collect::<Vec<_>>(),
            ),
        ];
        for (_, images) in &mut rows {
            images.resize(most, None);
        }
        for (label, images) in rows {
            grid = grid.row(ImageRow { label, images });
        }
    }
    image_grid(&grid)
}
