//! Figures of a classified synthetic set: histograms of distances (Fig. 3) and the contact sheet (Fig. 1B).

use ndarray::Array3;

use super::Label;
use crate::detect::Share;
use crate::plot::{
    Colour, Figure, FigureError, Histogram, HistogramSeries, ImageGrid, ImageRow, Picture, histogram,
    image_grid,
};

/// Colour of distances of real images.
const OF_NULL: Colour = Colour::hex(0x56_b4_e9);

/// A histogram of distances or ratios of the samples.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// File name without its ending.
    pub id: &'static str,
    /// What it shows, in words.
    pub caption: &'static str,
    /// Title.
    pub title: &'a str,
    /// The quantity.
    pub name: &'a str,
    /// Its value for each sample that has one.
    pub values: Vec<f64>,
    /// The values of real images, and what these are.
    pub null: Option<(&'a str, Vec<f64>)>,
    /// Smaller values are drawn here.
    pub floor: f64,
    /// A threshold and its label.
    pub threshold: Option<(f64, String)>,
    /// Colour of the samples.
    pub colour: Colour,
}

/// Draws a histogram on a logarithmic axis, with the threshold and the values of real images.
///
/// # Errors
/// As [`histogram`], for example without values.
pub fn distances(panel: &Panel<'_>) -> Result<Figure, FigureError> {
    let logs = |d: &[f64]| d.iter().map(|d| d.max(panel.floor).log10()).collect::<Vec<f64>>();
    let mut drawn = Histogram::new(panel.title, &format!("log10 of {}", panel.name))
        .bins(60)
        .share()
        .series(HistogramSeries::new("synthetic samples", logs(&panel.values)).colour(panel.colour));
    if let Some((name, null)) = panel.null.as_ref().filter(|(_, null)| !null.is_empty()) {
        drawn = drawn.series(HistogramSeries::new(name, logs(null)).colour(OF_NULL));
    }
    if let Some((value, label)) = &panel.threshold {
        drawn = drawn.threshold(value.max(panel.floor).log10(), label);
    }
    histogram(&drawn)
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
