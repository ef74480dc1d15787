//! Histograms with thresholds.

use crate::plot::axes::{
    Axis, Entry, Plot, Scale, Swatch, above, below, draw_headline, draw_tall_legend, headline,
    tall_legend_width,
};
use crate::plot::canvas::{Align, Canvas, Dash, Font, Rect};
use crate::plot::curves::{Direction, Guide, draw_guides, guide_room};
use crate::plot::style::{Colour, TEXT, TICK_SIZE, WHITE, series_colour};
use crate::plot::{Figure, FigureError, bounds, check_finite, input};

/// One series of a histogram.
#[derive(Debug, Clone)]
pub struct HistogramSeries {
    /// Name in the legend.
    pub name: String,
    /// The values.
    pub values: Vec<f64>,
    /// Colour; `None` for the next of a fixed order.
    pub colour: Option<Colour>,
}

impl HistogramSeries {
    /// A series in the next colour.
    pub fn new(name: &str, values: Vec<f64>) -> Self {
        Self { name: name.to_owned(), values, colour: None }
    }

    /// The same series in another colour.
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = Some(colour);
        self
    }
}

/// Series counted in the same bins.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Title of the panel.
    pub title: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// The series, drawn over one another.
    pub series: Vec<HistogramSeries>,
    /// Number of bins.
    pub bins: usize,
    /// Range of the bins; `None` fits the data. A line of text states the number of values outside.
    pub range: Option<(f64, f64)>,
    /// Vertical lines.
    pub thresholds: Vec<Guide>,
    /// Whether the height is the share of the series, including values outside, instead of the count.
    pub share: bool,
}

impl Histogram {
    /// An empty histogram of 40 bins that fit the data.
    pub fn new(title: &str, x_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            x_label: x_label.to_owned(),
            series: Vec::new(),
            bins: 40,
            range: None,
            thresholds: Vec::new(),
            share: false,
        }
    }

    /// Adds a series.
    pub fn series(mut self, series: HistogramSeries) -> Self {
        self.series.push(series);
        self
    }

    /// Number of bins.
    pub fn bins(mut self, bins: usize) -> Self {
        self.bins = bins;
        self
    }

    /// Range of the bins.
    pub fn range(mut self, lo: f64, hi: f64) -> Self {
        self.range = Some((lo, hi));
        self
    }

    /// Adds a vertical line.
    pub fn threshold(mut self, x: f64, label: &str) -> Self {
        self.thresholds.push(Guide::vertical(x, label));
        self
    }

    /// Draws shares instead of counts.
    pub fn share(mut self) -> Self {
        self.share = true;
        self
    }

    /// Range, height of every bin of each series, and the number of values outside.
    #[allow(clippy::type_complexity)]
    fn count(&self) -> Result<((f64, f64), Vec<Vec<f64>>, usize), FigureError> {
        let name = &self.title;
        if self.bins == 0 || self.bins > 10_000 {
            return Err(input(name, format!("bins is {}, expected 1 to 10000", self.bins)));
        }
        for s in &self.series {
            check_finite(name, &s.name, &s.values)?;
        }
        check_finite(name, "thresholds", self.thresholds.iter().map(|g| &g.at))?;
        if self.thresholds.iter().any(|g| g.direction != Direction::Vertical) {
            return Err(input(name, "a threshold is horizontal, expected a vertical line"));
        }
        let (lo, hi) = match self.range {
            Some(r) => r,
            None => bounds(self.series.iter().flat_map(|s| &s.values))
                .ok_or_else(|| input(name, "there are no values to count"))?,
        };
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(input(
                name,
                format!("bins have the range {lo} to {hi}, expected finite and ascending"),
            ));
        }
        let (lo, hi) = if hi > lo { (lo, hi) } else { (lo - 0.5, lo + 0.5) };
        let mut outside = 0;
        let heights = self
            .series
            .iter()
            .map(|s| {
                let mut bins = vec![0.0; self.bins];
                for &v in &s.values {
                    if v < lo || v > hi {
                        outside += 1;
                    } else {
                        // The last bin includes its upper edge.
                        bins[(((v - lo) / (hi - lo) * self.bins as f64) as usize).min(self.bins - 1)] += 1.0;
                    }
                }
                if self.share && !s.values.is_empty() {
                    bins.iter_mut().for_each(|b| *b /= s.values.len() as f64);
                }
                bins
            })
            .collect();
        Ok(((lo, hi), heights, outside))
    }

    fn colours(&self) -> Vec<Colour> {
        self.series.iter().enumerate().map(|(i, s)| s.colour.unwrap_or_else(|| series_colour(i))).collect()
    }
}

/// One histogram.
///
/// ```
/// use mem2gen::plot::{Histogram, HistogramSeries, histogram};
///
/// let distances = HistogramSeries::new("samples", vec![0.1, 0.2, 0.2, 0.9]);
/// let panel = Histogram::new("d(x, D)", "distance").bins(10).series(distances).threshold(0.5, "threshold");
/// assert!(histogram(&panel)?.svg().contains("threshold"));
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
///
/// # Errors
/// [`FigureError::NotFinite`]; [`FigureError::Input`] without bins or values.
pub fn histogram(panel: &Histogram) -> Result<Figure, FigureError> {
    draw("", std::slice::from_ref(panel), 1)
}

/// Several histograms in rows of `columns`, with one legend.
///
/// # Errors
/// As [`histogram`]; [`FigureError::Input`] without panels or columns.
pub fn histogram_panels(title: &str, panels: &[Histogram], columns: usize) -> Result<Figure, FigureError> {
    draw(title, panels, columns)
}

fn draw(title: &str, panels: &[Histogram], columns: usize) -> Result<Figure, FigureError> {
    if panels.is_empty() || columns == 0 {
        return Err(input(title, "there are no panels to draw"));
    }
    let columns = columns.min(panels.len());
    let (w, h): (f64, f64) = match columns {
        1 => (520.0, 280.0),
        2 => (360.0, 240.0),
        _ => (280.0, 210.0),
    };
    let mut ready = Vec::new();
    let mut left = vec![0.0f64; columns];
    let mut entries: Vec<Entry> = Vec::new();
    for (i, p) in panels.iter().enumerate() {
        let ((lo, hi), heights, outside) = p.count()?;
        let mut span = (lo, hi);
        for g in &p.thresholds {
            span = (span.0.min(g.at), span.1.max(g.at));
        }
        let pad = if p.range.is_some() && span == (lo, hi) { 0.0 } else { 0.02 };
        let tallest =
            heights.iter().flatten().fold(0.0f64, |m, v| m.max(*v)).max(if p.share { 1e-9 } else { 1.0 });
        let y_label = if p.share { "share" } else { "count" };
        let x = Axis::new(&p.title, &p.x_label, Scale::Linear, span, pad)?;
        let y = Axis::new(&p.title, y_label, Scale::Linear, (0.0, 1.08 * tallest), 0.0)?;
        let mut plot = Plot { rect: Rect::new(0.0, 0.0, w, h), x, y, lift: 0.0 };
        plot.lift = guide_room(&plot, &p.thresholds)?;
        left[i % columns] = left[i % columns].max(plot.left()?.ceil());
        for (s, colour) in p.series.iter().zip(p.colours()) {
            if !entries.iter().any(|e| e.text == s.name) {
                // The legend shows the colour as it appears on white.
                entries.push(Entry::swatch(&s.name, on_paper(colour), Swatch::Filled));
            }
        }
        ready.push((plot, (lo, hi), heights, outside));
    }
    if entries.len() == 1 && panels.len() == 1 {
        entries.clear();
    }
    let rows = panels.len().div_ceil(columns);
    let legend_height = h * rows as f64;
    let legend = if entries.is_empty() { 0.0 } else { tall_legend_width(&entries, legend_height)?.ceil() };
    let body = 8.0 + left.iter().map(|l| l + w + 18.0).sum::<f64>();
    let width = (body + legend).ceil();
    let mut y = headline(title, width)?.ceil();
    for (r, row) in panels.chunks(columns).enumerate() {
        let mut head = 0.0f64;
        for (c, p) in row.iter().enumerate() {
            head = head.max((above(&p.title, w)? + ready[r * columns + c].0.lift).ceil());
        }
        let mut x = 8.0;
        for c in 0..row.len() {
            x += left[c];
            ready[r * columns + c].0.rect = Rect::new(x, y + head, x + w, y + head + h);
            x += w + 18.0;
        }
        y += head + h + below(true).ceil();
    }
    let height = y + 4.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    draw_headline(&mut canvas, title, width)?;
    for (p, (plot, range, heights, outside)) in panels.iter().zip(&ready) {
        draw_panel(&mut canvas, p, plot, *range, heights, *outside)?;
    }
    draw_tall_legend(&mut canvas, &entries, (body, ready[0].0.rect.y0), legend_height)?;
    let shown = if title.is_empty() { panels[0].title.as_str() } else { title };
    let alt = format!("Histogram: {shown}, {}", panels[0].x_label);
    Figure::render(&canvas, width as u32, height as u32, &alt)
}

const FILL: f64 = 0.45;

fn on_paper(c: Colour) -> Colour {
    let mix = |v: u8| (f64::from(v) * FILL + 255.0 * (1.0 - FILL)).round() as u8;
    Colour { r: mix(c.r), g: mix(c.g), b: mix(c.b), alpha: 1.0 }
}

fn draw_panel(
    canvas: &mut Canvas,
    p: &Histogram,
    plot: &Plot,
    (lo, hi): (f64, f64),
    heights: &[Vec<f64>],
    outside: usize,
) -> Result<(), FigureError> {
    plot.grid(canvas);
    for (bins, colour) in heights.iter().zip(p.colours()) {
        let edge = |i: usize| lo + (hi - lo) * i as f64 / p.bins as f64;
        let mut steps = vec![plot.at(lo, 0.0)];
        for (i, &v) in bins.iter().enumerate() {
            steps.push(plot.at(edge(i), v));
            steps.push(plot.at(edge(i + 1), v));
        }
        steps.push(plot.at(hi, 0.0));
        canvas.polygon(steps.clone(), colour.with_alpha(FILL));
        canvas.line(steps, 1.0, colour, Dash::Solid);
    }
    draw_guides(canvas, plot, &p.thresholds)?;
    if outside > 0 {
        let text = format!("{outside} outside the range");
        let font = Font::new(TICK_SIZE, TEXT);
        let length = font.width(&text)?;
        let (x, y) = (plot.rect.x1 - 8.0, plot.rect.y0 + 6.0 + 0.5 * TICK_SIZE);
        canvas.rect(Rect::new(x - length - 3.0, y - 8.0, x + 3.0, y + 8.0), WHITE.with_alpha(0.8));
        canvas.text(&text, (x, y), Align::End, font);
    }
    plot.frame(canvas, &p.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_bins() {
        let h = Histogram::new("t", "x")
            .bins(2)
            .range(0.0, 1.0)
            .series(HistogramSeries::new("s", vec![0.0, 0.49, 0.5, 1.0, 1.5]));
        let (_, heights, outside) = h.count().unwrap();
        assert_eq!(heights, [[2.0, 2.0]]);
        assert_eq!(outside, 1);
        let (_, heights, _) = h.share().count().unwrap();
        assert_eq!(heights, [[0.4, 0.4]]);
    }
}
