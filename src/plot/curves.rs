//! Lines with markers, bands and guide lines.

use crate::plot::axes::{
    Axis, Entry, Plot, Scale, above, below, draw_headline, draw_tall_legend, headline, tall_legend_width,
};
use crate::plot::canvas::{Align, Canvas, Dash, Font, Rect};
use crate::plot::style::{CURVE_WIDTH, Colour, GUIDE, MARKER_RADIUS, Marker, TICK_SIZE, series_colour};
use crate::plot::{Figure, FigureError, bounds, check_finite, input};

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Name in the legend. Curves with the same name in several panels share an entry; an empty name has no entry.
    pub name: String,
    /// Horizontal positions, in drawing order.
    pub x: Vec<f64>,
    /// Vertical positions.
    pub y: Vec<f64>,
    /// Lower and upper edge of a shaded band.
    pub band: Option<Vec<(f64, f64)>>,
    /// Colour; `None` for the next of a fixed order.
    pub colour: Option<Colour>,
    /// Marker at every point.
    pub marker: Option<Marker>,
    /// The line between the points; `None` for markers only.
    pub line: Option<Dash>,
    /// Whether NaN in `y` stands for a gap. Otherwise NaN is an error. Infinite values are always an error.
    pub gaps: bool,
}

impl Curve {
    /// A solid line without markers.
    pub fn new(name: &str, x: Vec<f64>, y: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            x,
            y,
            band: None,
            colour: None,
            marker: None,
            line: Some(Dash::Solid),
            gaps: false,
        }
    }

    /// Colour of line, markers and band.
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = Some(colour);
        self
    }

    /// A marker at every point.
    pub fn marker(mut self, marker: Marker) -> Self {
        self.marker = Some(marker);
        self
    }

    /// Dash pattern of the line.
    pub fn dash(mut self, dash: Dash) -> Self {
        self.line = Some(dash);
        self
    }

    /// Markers without a line.
    pub fn without_line(mut self) -> Self {
        self.line = None;
        self
    }

    /// A shaded band.
    pub fn band(mut self, band: Vec<(f64, f64)>) -> Self {
        self.band = Some(band);
        self
    }

    /// Lets NaN in `y` stand for a gap.
    pub fn gaps(mut self) -> Self {
        self.gaps = true;
        self
    }
}

/// Direction of a guide line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Vertical, at a value of x.
    Vertical,
    /// Horizontal, at a value of y.
    Horizontal,
}

/// A dashed line with a label.
#[derive(Debug, Clone)]
pub struct Guide {
    /// Value of x or y.
    pub at: f64,
    /// Direction.
    pub direction: Direction,
    /// The label, written along the line.
    pub label: String,
}

impl Guide {
    /// A vertical line at `x`.
    pub fn vertical(x: f64, label: &str) -> Self {
        Self { at: x, direction: Direction::Vertical, label: label.to_owned() }
    }

    /// A horizontal line at `y`.
    pub fn horizontal(y: f64, label: &str) -> Self {
        Self { at: y, direction: Direction::Horizontal, label: label.to_owned() }
    }
}

/// Curves in one frame.
#[derive(Debug, Clone)]
pub struct CurvePanel {
    /// Title of the panel.
    pub title: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Scale of the horizontal axis.
    pub x_scale: Scale,
    /// Scale of the vertical axis.
    pub y_scale: Scale,
    /// Horizontal range; `None` fits the data.
    pub x_range: Option<(f64, f64)>,
    /// Vertical range; `None` fits the data.
    pub y_range: Option<(f64, f64)>,
    /// Horizontal ticks with their text; `None` for automatic ones.
    pub x_ticks: Option<Vec<(f64, String)>>,
    /// The curves; the last is on top.
    pub curves: Vec<Curve>,
    /// Guide lines, below the curves.
    pub guides: Vec<Guide>,
}

impl CurvePanel {
    /// An empty panel with linear axes that fit the data.
    pub fn new(title: &str, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            x_range: None,
            y_range: None,
            x_ticks: None,
            curves: Vec::new(),
            guides: Vec::new(),
        }
    }

    /// Scale of the horizontal axis.
    pub fn x_scale(mut self, scale: Scale) -> Self {
        self.x_scale = scale;
        self
    }

    /// Scale of the vertical axis.
    pub fn y_scale(mut self, scale: Scale) -> Self {
        self.y_scale = scale;
        self
    }

    /// Horizontal range.
    pub fn x_range(mut self, lo: f64, hi: f64) -> Self {
        self.x_range = Some((lo, hi));
        self
    }

    /// Vertical range.
    pub fn y_range(mut self, lo: f64, hi: f64) -> Self {
        self.y_range = Some((lo, hi));
        self
    }

    /// Horizontal ticks with their text.
    pub fn x_ticks(mut self, ticks: Vec<(f64, String)>) -> Self {
        self.x_ticks = Some(ticks);
        self
    }

    /// Adds a curve.
    pub fn curve(mut self, curve: Curve) -> Self {
        self.curves.push(curve);
        self
    }

    /// Adds a guide line.
    pub fn guide(mut self, guide: Guide) -> Self {
        self.guides.push(guide);
        self
    }

    fn check(&self) -> Result<(), FigureError> {
        let name = &self.title;
        for c in &self.curves {
            if c.x.len() != c.y.len() {
                let reason = format!("series \"{}\" has {} x and {} y", c.name, c.x.len(), c.y.len());
                return Err(input(name, reason));
            }
            check_finite(name, &format!("{} (x)", c.name), &c.x)?;
            if c.gaps {
                if let Some(index) = c.y.iter().position(|v| v.is_infinite()) {
                    let (figure, series) = (name.clone(), c.name.clone());
                    return Err(FigureError::NotFinite { figure, series, index, value: c.y[index] });
                }
            } else {
                check_finite(name, &c.name, &c.y)?;
            }
            if let Some(band) = &c.band {
                if band.len() != c.x.len() {
                    let reason =
                        format!("the band of \"{}\" has {} of {} points", c.name, band.len(), c.x.len());
                    return Err(input(name, reason));
                }
                if !c.gaps {
                    check_finite(name, &format!("{} (band)", c.name), band.iter().flat_map(|(l, h)| [l, h]))?;
                }
            }
            if self.x_scale != Scale::Linear {
                check_positive(name, &c.name, &c.x)?;
            }
            if self.y_scale != Scale::Linear {
                check_positive(name, &c.name, &c.y)?;
            }
        }
        check_finite(name, "guide lines", self.guides.iter().map(|g| &g.at))?;
        if let Some(ticks) = &self.x_ticks {
            check_finite(name, "ticks", ticks.iter().map(|t| &t.0))?;
        }
        Ok(())
    }

    fn axes(&self) -> Result<(Axis, Axis), FigureError> {
        let empty = || input(&self.title, "there are no values to draw");
        let guides = |d: Direction| self.guides.iter().filter(move |g| g.direction == d).map(|g| &g.at);
        let positive = |v: &&f64, s: Scale| s == Scale::Linear || **v > 0.0;
        let x_range = match self.x_range {
            Some(r) => r,
            None => {
                let all = self.curves.iter().flat_map(|c| &c.x).chain(guides(Direction::Vertical));
                bounds(all.filter(|v| positive(v, self.x_scale))).ok_or_else(empty)?
            }
        };
        let y_range = match self.y_range {
            Some(r) => r,
            None => {
                let bands =
                    self.curves.iter().flat_map(|c| c.band.iter().flatten()).flat_map(|(l, h)| [l, h]);
                let all =
                    self.curves.iter().flat_map(|c| &c.y).chain(bands).chain(guides(Direction::Horizontal));
                bounds(all.filter(|v| positive(v, self.y_scale))).ok_or_else(empty)?
            }
        };
        let (x_pad, y_pad) = (
            if self.x_range.is_some() { 0.0 } else { 0.03 },
            if self.y_range.is_some() { 0.0 } else { 0.05 },
        );
        let mut x = Axis::new(&self.title, &self.x_label, self.x_scale, x_range, x_pad)?;
        let y = Axis::new(&self.title, &self.y_label, self.y_scale, y_range, y_pad)?;
        x.ticks.clone_from(&self.x_ticks);
        Ok((x, y))
    }

    /// The colour of each curve.
    fn colours(&self) -> Vec<Colour> {
        self.curves.iter().enumerate().map(|(i, c)| c.colour.unwrap_or_else(|| series_colour(i))).collect()
    }
}

fn check_positive(figure: &str, series: &str, values: &[f64]) -> Result<(), FigureError> {
    match values.iter().find(|v| **v <= 0.0) {
        None => Ok(()),
        Some(&value) => {
            Err(FigureError::NotPositive { figure: figure.to_owned(), series: series.to_owned(), value })
        }
    }
}

/// One panel of curves with the legend to its right.
///
/// ```
/// use mem2gen::plot::{Curve, CurvePanel, FigureError, curves};
///
/// let panel = CurvePanel::new("recall", "K", "fraction");
/// assert!(curves(&panel.clone().curve(Curve::new("L2", vec![2.0, 4.0], vec![1.0, 0.5]))).is_ok());
/// let bad = panel.curve(Curve::new("L2", vec![2.0, 4.0], vec![1.0, f64::NAN]));
/// assert!(matches!(curves(&bad), Err(FigureError::NotFinite { index: 1, .. })));
/// ```
///
/// # Errors
/// [`FigureError::NotFinite`], [`FigureError::NotPositive`]; [`FigureError::Input`] for lists of different lengths or a
/// panel without values.
pub fn curves(panel: &CurvePanel) -> Result<Figure, FigureError> {
    draw("", std::slice::from_ref(panel), 1)
}

/// Several panels in rows of `columns`, with one legend to their right.
///
/// ```
/// use mem2gen::plot::{Curve, CurvePanel, curve_panels};
///
/// let panel = |title| CurvePanel::new(title, "K", "recall").curve(Curve::new("L2", vec![2.0, 4.0], vec![1.0, 0.5]));
/// assert!(curve_panels("two data sets", &[panel("mnist"), panel("cifar10")], 2).is_ok());
/// assert!(curve_panels("none", &[], 2).is_err());
/// ```
///
/// # Errors
/// As [`curves`]; [`FigureError::Input`] without panels or columns.
pub fn curve_panels(title: &str, panels: &[CurvePanel], columns: usize) -> Result<Figure, FigureError> {
    draw(title, panels, columns)
}

fn draw(title: &str, panels: &[CurvePanel], columns: usize) -> Result<Figure, FigureError> {
    if panels.is_empty() || columns == 0 {
        return Err(input(title, "there are no panels to draw"));
    }
    let columns = columns.min(panels.len());
    let (w, h): (f64, f64) = match columns {
        1 => (520.0, 320.0),
        2 => (380.0, 270.0),
        _ => (290.0, 230.0),
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut left = vec![0.0f64; columns];
    let mut plots = Vec::new();
    for (i, p) in panels.iter().enumerate() {
        p.check()?;
        let (x, y) = p.axes()?;
        let mut plot = Plot { rect: Rect::new(0.0, 0.0, w, h), x, y, lift: 0.0 };
        plot.lift = guide_room(&plot, &p.guides)?;
        left[i % columns] = left[i % columns].max(plot.left()?.ceil());
        plots.push(plot);
        for (c, colour) in p.curves.iter().zip(p.colours()) {
            if !c.name.is_empty() && !entries.iter().any(|e| e.text == c.name) {
                let marker = c.marker.map(|m| (m, MARKER_RADIUS, None));
                entries.push(Entry { text: c.name.clone(), colour, line: c.line, marker, swatch: None });
            }
        }
    }
    // A lone curve needs no legend beside its title.
    if entries.len() == 1 && panels.len() == 1 {
        entries.clear();
    }
    let body = 8.0 + left.iter().map(|l| l + w + 18.0).sum::<f64>();
    let rows = panels.len().div_ceil(columns);
    let legend_height = h * rows as f64 + 60.0 * (rows - 1) as f64;
    let legend = if entries.is_empty() { 0.0 } else { tall_legend_width(&entries, legend_height)?.ceil() };
    let width = (body + legend + if legend > 0.0 { 4.0 } else { 0.0 }).ceil();
    let top = headline(title, width)?.ceil();
    let mut y = top;
    let mut first_top = None;
    for (r, row) in panels.chunks(columns).enumerate() {
        let mut head = 0.0f64;
        for (c, p) in row.iter().enumerate() {
            head = head.max((above(&p.title, w)? + plots[r * columns + c].lift).ceil());
        }
        first_top.get_or_insert(y + head);
        let mut x = 8.0;
        for c in 0..row.len() {
            x += left[c];
            plots[r * columns + c].rect = Rect::new(x, y + head, x + w, y + head + h);
            x += w + 18.0;
        }
        y += head + h + below(row.iter().any(|p| !p.x_label.is_empty())).ceil();
    }
    let height = y + 4.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    draw_headline(&mut canvas, title, width)?;
    for (plot, p) in plots.iter().zip(panels) {
        draw_panel(&mut canvas, plot, p)?;
    }
    draw_tall_legend(&mut canvas, &entries, (body, first_top.unwrap_or(top)), legend_height)?;
    let shown = if title.is_empty() { &panels[0].title } else { title };
    let names: Vec<&str> = entries.iter().map(|e| e.text.as_str()).collect();
    let series = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let alt = format!("{shown}: {} against {}{series}", panels[0].y_label, panels[0].x_label);
    Figure::render(&canvas, width as u32, height as u32, &alt)
}

fn draw_panel(canvas: &mut Canvas, plot: &Plot, p: &CurvePanel) -> Result<(), FigureError> {
    plot.grid(canvas);
    let colours = p.colours();
    for (c, colour) in p.curves.iter().zip(&colours) {
        let Some(band) = &c.band else { continue };
        let floor = plot.rect.y1 + plot.rect.height();
        // On a logarithmic axis an edge at or below zero lies outside the plot.
        let height = |x: f64, v: f64| {
            let at = plot.at(x, v);
            (at.0, if at.1.is_finite() { at.1 } else { floor })
        };
        for run in runs(band.iter().map(|(l, h)| l.is_finite() && h.is_finite())) {
            let upper = run.clone().map(|i| height(c.x[i], band[i].1));
            let lower = run.clone().rev().map(|i| height(c.x[i], band[i].0));
            canvas.clipped_polygon(upper.chain(lower).collect(), plot.rect, colour.with_alpha(0.18));
        }
    }
    draw_guides(canvas, plot, &p.guides)?;
    for (c, &colour) in p.curves.iter().zip(&colours) {
        for run in runs(c.y.iter().map(|v| v.is_finite())) {
            let points: Vec<(f64, f64)> = run.map(|i| plot.at(c.x[i], c.y[i])).collect();
            if let Some(dash) = c.line {
                canvas.clipped_line(&points, plot.rect, CURVE_WIDTH, colour, dash);
            }
            if let Some(marker) = c.marker {
                for at in points.into_iter().filter(|at| plot.rect.contains(*at)) {
                    canvas.marker(marker, at, MARKER_RADIUS, colour, None);
                }
            }
        }
    }
    plot.frame(canvas, &p.title)
}

/// Ranges of consecutive values that are present.
fn runs(present: impl Iterator<Item = bool>) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, _) in present.enumerate().filter(|(_, here)| *here) {
        match runs.last_mut() {
            Some(r) if r.end == i => r.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// Where guide lines lie on the canvas.
fn guide_places(plot: &Plot, guides: &[Guide]) -> Vec<f64> {
    let middle = plot.middle();
    guides
        .iter()
        .map(|g| match g.direction {
            Direction::Vertical => plot.at(g.at, middle.1).0,
            Direction::Horizontal => plot.at(middle.0, g.at).1,
        })
        .collect()
}

/// Font of the labels of guide lines.
fn guide_font() -> Font {
    Font::new(0.95 * TICK_SIZE, GUIDE)
}

/// Height of a row of labels above a plot.
const GUIDE_ROW: f64 = 1.3 * TICK_SIZE;

/// Positions of the labels of vertical guide lines: index, row above the frame, position and alignment. They
/// lie outside the frame, so that they hide no data, and beside each other as far as there is room.
fn guide_labels(plot: &Plot, guides: &[Guide]) -> Result<Vec<(usize, usize, f64, Align)>, FigureError> {
    let rect = plot.rect;
    let places = guide_places(plot, guides);
    let mut order: Vec<usize> = (0..guides.len())
        .filter(|&i| guides[i].direction == Direction::Vertical && !guides[i].label.is_empty())
        .filter(|&i| places[i] >= rect.x0 - 1e-6 && places[i] <= rect.x1 + 1e-6)
        .collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let mut free: Vec<f64> = Vec::new();
    let mut labels = Vec::new();
    for (k, &i) in order.iter().enumerate() {
        let (x, length) = (places[i], guide_font().width(&guides[i].label)?);
        let next = order.get(k + 1).map_or(f64::INFINITY, |&j| places[j]);
        let mut row = 0;
        let (align, end) = loop {
            if free.len() == row {
                free.push(f64::NEG_INFINITY);
            }
            let spans = [
                (Align::Middle, x - 0.5 * length, x + 0.5 * length),
                (Align::End, x - length + 2.0, x + 2.0),
                (Align::Start, x - 2.0, x + length - 2.0),
            ];
            // In a row of its own a label always fits.
            let fresh = free[row] == f64::NEG_INFINITY;
            let fits = spans.into_iter().find(|&(align, from, to)| {
                let inside = from >= rect.x0 - 14.0 && to <= rect.x1 + 14.0;
                inside && from >= free[row] && (align == Align::End || row > 0 || to <= next - 4.0)
            });
            match fits {
                Some((align, _, to)) => break (align, to),
                None if fresh && row > 0 => break (Align::Middle, x + 0.5 * length),
                None => row += 1,
            }
        };
        free[row] = end + 6.0;
        labels.push((i, row, x, align));
    }
    Ok(labels)
}

/// Height of the labels of vertical guide lines above a plot.
pub(crate) fn guide_room(plot: &Plot, guides: &[Guide]) -> Result<f64, FigureError> {
    let rows = guide_labels(plot, guides)?.iter().map(|l| l.1 + 1).max().unwrap_or(0);
    Ok(if rows > 0 { rows as f64 * GUIDE_ROW + 2.0 } else { 0.0 })
}

/// Guide lines with their labels: above the frame for vertical lines, on the line for horizontal ones. They are
/// drawn before the data, so that they do not hide it.
pub(crate) fn draw_guides(canvas: &mut Canvas, plot: &Plot, guides: &[Guide]) -> Result<(), FigureError> {
    let rect = plot.rect;
    for (g, place) in guides.iter().zip(guide_places(plot, guides)) {
        let line = match g.direction {
            Direction::Vertical => [(place, rect.y0), (place, rect.y1)],
            Direction::Horizontal => [(rect.x0, place), (rect.x1, place)],
        };
        if !line.iter().all(|&at| rect.contains(at)) {
            continue;
        }
        canvas.line(line.to_vec(), 1.25, GUIDE, Dash::Dashed);
        if g.direction == Direction::Horizontal && !g.label.is_empty() {
            let offset = 0.6 * TICK_SIZE + 2.0;
            let y = if place - rect.y0 > 2.0 * offset { place - offset } else { place + offset };
            canvas.text(&g.label, (rect.x1 - 6.0, y), Align::End, guide_font());
        }
    }
    for (i, row, x, align) in guide_labels(plot, guides)? {
        let y = rect.y0 - 4.0 - (row as f64 + 0.5) * GUIDE_ROW;
        canvas.text(&guides[i].label, (x, y), align, guide_font());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_gaps() {
        assert_eq!(runs([true, true, false, true].into_iter()), [0..2, 3..4]);
        assert!(runs([false].into_iter()).is_empty());
    }
}
