//! Matrices as coloured cells: one value for each cell, or the mixed fractions of three classes.

use ndarray::Array2;

use crate::class::Class;
use crate::plot::axes::{
    Entry, Swatch, above, bar_room, below, draw_bar, draw_headline, draw_wide_legend, headline, number_text,
    panel_title, wide_legend_height,
};
use crate::plot::canvas::{Align, Canvas, Dash, Font, Rect};
use crate::plot::style::{
    Colour, FRAME, FRAME_WIDTH, HATCH, LABEL_SIZE, MISSING, Palette, SMALLEST_SIZE, TEXT, TICK_SIZE, WHITE,
    blend,
};
use crate::plot::{Figure, FigureError, bounds, input};

/// A matrix of values.
#[derive(Debug, Clone)]
pub struct HeatmapPanel {
    /// Title of the panel.
    pub title: String,
    /// The values, `[rows, columns]`; row 0 is at the bottom. NaN stands for "not measured" and is hatched. Infinite values
    /// are an error.
    pub values: Array2<f64>,
    /// Text below each column.
    pub x_ticks: Vec<String>,
    /// Text beside each row.
    pub y_ticks: Vec<String>,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Label of the colour bar.
    pub colour_label: String,
    /// Values of the lowest and the highest colour; `None` fits the data.
    pub range: Option<(f64, f64)>,
    /// The colour map.
    pub palette: Palette,
    /// Decimals of the value printed in each cell; `None` for no text.
    pub print: Option<usize>,
}

impl HeatmapPanel {
    /// A matrix in viridis without printed values.
    pub fn new(title: &str, values: Array2<f64>, x_ticks: Vec<String>, y_ticks: Vec<String>) -> Self {
        Self {
            title: title.to_owned(),
            values,
            x_ticks,
            y_ticks,
            x_label: String::new(),
            y_label: String::new(),
            colour_label: String::new(),
            range: None,
            palette: Palette::Viridis,
            print: None,
        }
    }

    /// Labels of both axes.
    pub fn labels(mut self, x: &str, y: &str) -> Self {
        (self.x_label, self.y_label) = (x.to_owned(), y.to_owned());
        self
    }

    /// Label of the colour bar.
    pub fn colour_label(mut self, label: &str) -> Self {
        self.colour_label = label.to_owned();
        self
    }

    /// Values of the lowest and the highest colour.
    pub fn range(mut self, lo: f64, hi: f64) -> Self {
        self.range = Some((lo, hi));
        self
    }

    /// The colour map.
    pub fn palette(mut self, palette: Palette) -> Self {
        self.palette = palette;
        self
    }

    /// Prints each value with this number of decimals.
    pub fn print(mut self, decimals: usize) -> Self {
        self.print = Some(decimals);
        self
    }
}

/// Fractions of three classes for each cell. The remainder to 1 counts as invalid and is grey.
#[derive(Debug, Clone)]
pub struct TernaryPanel {
    /// Title of the panel.
    pub title: String,
    /// Fractions of memorized, spurious and generalized, in this order and of equal shape; row 0 is at the bottom. A cell
    /// with NaN in any of them is "not measured" and hatched.
    pub fractions: [Array2<f64>; 3],
    /// Text below each column.
    pub x_ticks: Vec<String>,
    /// Text beside each row.
    pub y_ticks: Vec<String>,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Whether each cell has the percentage of its most frequent class printed, except 100 percent.
    pub print: bool,
}

impl TernaryPanel {
    /// Fractions with printed percentages.
    pub fn new(
        title: &str,
        memorized: Array2<f64>,
        spurious: Array2<f64>,
        generalized: Array2<f64>,
        x_ticks: Vec<String>,
        y_ticks: Vec<String>,
    ) -> Self {
        Self {
            title: title.to_owned(),
            fractions: [memorized, spurious, generalized],
            x_ticks,
            y_ticks,
            x_label: String::new(),
            y_label: String::new(),
            print: true,
        }
    }

    /// Labels of both axes.
    pub fn labels(mut self, x: &str, y: &str) -> Self {
        (self.x_label, self.y_label) = (x.to_owned(), y.to_owned());
        self
    }

    /// Without printed percentages.
    pub fn without_numbers(mut self) -> Self {
        self.print = false;
        self
    }
}

/// A checked panel.
struct Cells {
    title: String,
    x_ticks: Vec<String>,
    y_ticks: Vec<String>,
    x_label: String,
    y_label: String,
    rows: usize,
    columns: usize,
    /// Colour and printed text, row by row; `None` for cells that are not measured.
    cells: Vec<Option<(Colour, String)>>,
    bar: Option<Bar>,
}

struct Bar {
    range: (f64, f64),
    label: String,
    palette: Palette,
}

impl HeatmapPanel {
    fn cells(&self) -> Result<Cells, FigureError> {
        if let Some((index, &value)) = self.values.iter().enumerate().find(|(_, v)| v.is_infinite()) {
            let (figure, series) = (self.title.clone(), "cells".to_owned());
            return Err(FigureError::NotFinite { figure, series, index, value });
        }
        // A matrix without a measured cell gets the bar of fractions.
        let (lo, hi) = self.range.or_else(|| bounds(&self.values)).unwrap_or((0.0, 1.0));
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(input(
                &self.title,
                format!("colours have the range {lo} to {hi}, expected finite and ascending"),
            ));
        }
        let (lo, hi) = if hi > lo { (lo, hi) } else { (lo - 0.5, lo + 0.5) };
        let cell = |&v: &f64| {
            (!v.is_nan()).then(|| {
                let text = match self.print {
                    None => String::new(),
                    Some(_) if v.abs() >= 1e5 => number_text(v),
                    Some(d) => format!("{v:.d$}").replace('-', "−"),
                };
                (self.palette.at((v - lo) / (hi - lo)), text)
            })
        };
        Ok(Cells {
            title: self.title.clone(),
            x_ticks: self.x_ticks.clone(),
            y_ticks: self.y_ticks.clone(),
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            rows: self.values.nrows(),
            columns: self.values.ncols(),
            cells: self.values.iter().map(cell).collect(),
            bar: Some(Bar { range: (lo, hi), label: self.colour_label.clone(), palette: self.palette }),
        })
    }
}

impl TernaryPanel {
    fn cells(&self) -> Result<Cells, FigureError> {
        let [m, s, g] = &self.fractions;
        if m.dim() != s.dim() || m.dim() != g.dim() {
            let reason = format!("fractions of shapes {:?}, {:?} and {:?}", m.dim(), s.dim(), g.dim());
            return Err(input(&self.title, reason));
        }
        let mut cells = Vec::with_capacity(m.len());
        for (i, ((&m, &s), &g)) in m.iter().zip(s).zip(g).enumerate() {
            if m.is_nan() || s.is_nan() || g.is_nan() {
                cells.push(None);
                continue;
            }
            let sum = m + s + g;
            if [m, s, g].iter().any(|f| !(-1e-9..=1.0 + 1e-9).contains(f)) || sum > 1.0 + 1e-6 {
                return Err(input(
                    &self.title,
                    format!("cell {i} is {m}, {s} and {g}, expected fractions with a sum of at most 1"),
                ));
            }
            let text = if self.print {
                let most = [m, s, g, 1.0 - sum].into_iter().fold(0.0f64, f64::max);
                let percent = format!("{:.0}", 100.0 * most);
                if percent == "100" { String::new() } else { percent }
            } else {
                String::new()
            };
            cells.push(Some((blend(m, s, g), text)));
        }
        Ok(Cells {
            title: self.title.clone(),
            x_ticks: self.x_ticks.clone(),
            y_ticks: self.y_ticks.clone(),
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            rows: m.nrows(),
            columns: m.ncols(),
            cells,
            bar: None,
        })
    }
}

/// One heat map.
///
/// ```
/// use mem2gen::plot::{HeatmapPanel, heatmap};
/// use ndarray::array;
///
/// let ticks = |names: [&str; 2]| names.map(str::to_owned).to_vec();
/// let recall = array![[1.0, 0.5], [0.25, f64::NAN]];
/// let panel = HeatmapPanel::new("recall", recall, ticks(["K = 2", "K = 4"]), ticks(["1", "10"]));
/// assert!(heatmap(&panel.print(2))?.svg().contains("0.25"));
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
///
/// # Errors
/// [`FigureError::NotFinite`] for infinite values; [`FigureError::Input`] for an empty matrix or ticks that do not match
/// its shape.
pub fn heatmap(panel: &HeatmapPanel) -> Result<Figure, FigureError> {
    draw("", vec![panel.cells()?], 1)
}

/// Several heat maps in rows of `columns`.
///
/// # Errors
/// As [`heatmap`]; [`FigureError::Input`] without panels or columns.
pub fn heatmap_panels(title: &str, panels: &[HeatmapPanel], columns: usize) -> Result<Figure, FigureError> {
    draw(title, panels.iter().map(HeatmapPanel::cells).collect::<Result<_, _>>()?, columns)
}

/// One phase diagram of three classes.
///
/// ```
/// use mem2gen::plot::{TernaryPanel, ternary};
/// use ndarray::array;
///
/// let ticks = vec!["2".to_owned(), "4".to_owned()];
/// let [memorized, spurious, generalized] = [array![[0.75, 0.1]], array![[0.25, 0.2]], array![[0.0, 0.7]]];
/// let panel = TernaryPanel::new("classes", memorized, spurious, generalized, ticks, vec!["1".to_owned()]);
/// assert!(ternary(&panel)?.svg().contains("memorized"));
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
///
/// # Errors
/// [`FigureError::Input`] for values that are not fractions, an empty matrix, or shapes and ticks that do not match.
pub fn ternary(panel: &TernaryPanel) -> Result<Figure, FigureError> {
    draw("", vec![panel.cells()?], 1)
}

/// Several phase diagrams in rows of `columns`, with one legend.
///
/// # Errors
/// As [`ternary`]; [`FigureError::Input`] without panels or columns.
pub fn ternary_panels(title: &str, panels: &[TernaryPanel], columns: usize) -> Result<Figure, FigureError> {
    draw(title, panels.iter().map(TernaryPanel::cells).collect::<Result<_, _>>()?, columns)
}

fn draw(title: &str, panels: Vec<Cells>, columns: usize) -> Result<Figure, FigureError> {
    if panels.is_empty() || columns == 0 {
        return Err(input(title, "there are no panels to draw"));
    }
    let columns = columns.min(panels.len());
    let font = Font::new(TICK_SIZE, TEXT);
    let ternary = panels.iter().all(|p| p.bar.is_none());
    let missing = panels.iter().any(|p| p.cells.iter().any(Option::is_none));
    let (mut left, mut right) = (vec![0.0f64; columns], vec![0.0f64; columns]);
    let mut sizes = Vec::new();
    for (i, p) in panels.iter().enumerate() {
        if p.rows == 0 || p.columns == 0 {
            return Err(input(&p.title, "the matrix is empty"));
        }
        if p.x_ticks.len() != p.columns || p.y_ticks.len() != p.rows {
            let (x, y) = (p.x_ticks.len(), p.y_ticks.len());
            let reason = format!("{y} and {x} tick labels for {} rows and {} columns", p.rows, p.columns);
            return Err(input(&p.title, reason));
        }
        // Cells are wide enough for their text and most tick labels.
        let text = p
            .cells
            .iter()
            .flatten()
            .map(|c| font.width(&c.1))
            .try_fold(0.0f64, |m, w| Ok::<_, FigureError>(m.max(w?)))?;
        let most = if columns > 1 { 400.0 } else { 560.0 };
        let cell_w = (most / p.columns as f64).clamp((text + 6.0).min(40.0), 46.0).max(2.0);
        let cell_h = (0.62 * most / p.rows as f64).clamp(2.0, 34.0).max(if text > 0.0 { 15.0 } else { 2.0 });
        let (w, h) =
            ((cell_w * p.columns as f64).max(120.0).round(), (cell_h * p.rows as f64).max(80.0).round());
        let ticks = p
            .y_ticks
            .iter()
            .map(|t| font.width(t))
            .try_fold(0.0f64, |m, w| Ok::<_, FigureError>(m.max(w?)))?;
        let label = if p.y_label.is_empty() { 0.0 } else { LABEL_SIZE + 8.0 };
        let c = i % columns;
        left[c] = left[c].max((ticks + 9.0 + label).ceil());
        let room = match &p.bar {
            Some(b) => bar_room(b.range, &b.label, h)?.ceil(),
            None => 10.0,
        };
        right[c] = right[c].max(room);
        sizes.push((w, h));
    }
    let mut widths = vec![0.0f64; columns];
    for (i, (w, _)) in sizes.iter().enumerate() {
        widths[i % columns] = widths[i % columns].max(*w);
    }
    let key = if ternary { 164.0 } else { 0.0 };
    let body = 12.0
        + (0..columns).map(|c| left[c] + widths[c] + right[c]).sum::<f64>()
        + 12.0 * (columns - 1) as f64;
    let width = (body + key + 4.0).ceil();
    let top = headline(title, width)?.ceil();
    let mut y = top;
    let mut rects = Vec::new();
    for (r, row) in panels.chunks(columns).enumerate() {
        let (mut head, mut tallest, mut foot) = (0.0f64, 0.0f64, 0.0f64);
        for (c, p) in row.iter().enumerate() {
            let (w, h) = sizes[r * columns + c];
            head = head.max(above(&p.title, w)?.ceil());
            tallest = tallest.max(h);
            let turned = turned_ticks(p, w)?;
            let extra = if turned > 0.0 { turned - TICK_SIZE } else { 0.0 };
            foot = foot.max((below(!p.x_label.is_empty()) + extra).ceil());
        }
        let mut x = 8.0;
        for c in 0..row.len() {
            let (w, h) = sizes[r * columns + c];
            x += left[c];
            rects.push(Rect::new(x, y + head, x + w, y + head + h));
            x += widths[c] + right[c] + 12.0;
        }
        y += head + tallest + foot;
    }
    let mut entries = Vec::new();
    if missing {
        entries.push(Entry::swatch("not measured", MISSING, Swatch::Hatched));
    }
    let least = if ternary { rects[0].y0 + 200.0 } else { 0.0 };
    let bottom = if ternary { 0.0 } else { wide_legend_height(&entries, width - 24.0)?.ceil() };
    let height = (y + bottom + 4.0).max(least);
    let mut canvas = Canvas::new(width as u32, height as u32);
    draw_headline(&mut canvas, title, width)?;
    for (p, rect) in panels.iter().zip(&rects) {
        draw_cells(&mut canvas, p, *rect)?;
    }
    if ternary {
        draw_triangle(&mut canvas, (body, rects[0].y0), key, missing);
    } else {
        draw_wide_legend(&mut canvas, &entries, (12.0, y), width - 24.0)?;
    }
    let shown = if title.is_empty() { panels[0].title.as_str() } else { title };
    let kind = if ternary { "Fractions of memorized, spurious and generalized" } else { "Heat map" };
    let alt = format!("{kind}: {shown}, {} against {}", panels[0].y_label, panels[0].x_label);
    Figure::render(&canvas, width as u32, height as u32, &alt)
}

/// Length of the column labels if they must be rotated to fit, otherwise 0.
fn turned_ticks(p: &Cells, width: f64) -> Result<f64, FigureError> {
    let font = Font::new(TICK_SIZE, TEXT);
    let room = width / p.columns as f64;
    let mut longest = 0.0f64;
    for t in &p.x_ticks {
        longest = longest.max(font.width(t)?);
    }
    // Columns too narrow for rotated text have gaps between their labels.
    Ok(if longest + 4.0 > room && room >= 0.9 * TICK_SIZE { longest } else { 0.0 })
}

fn draw_cells(canvas: &mut Canvas, p: &Cells, rect: Rect) -> Result<(), FigureError> {
    let (cw, ch) = (rect.width() / p.columns as f64, rect.height() / p.rows as f64);
    let cell = |r: usize, c: usize| {
        // Shared edges lie on half units, which are whole pixels, so that there is no seam.
        let snap = |v: f64| (2.0 * v).round() / 2.0;
        let (x, y) = (rect.x0 + c as f64 * cw, rect.y1 - (r + 1) as f64 * ch);
        Rect::new(snap(x), snap(y), snap(x + cw), snap(y + ch))
    };
    let mut widest = 0.0f64;
    let base = Font::new(TICK_SIZE, TEXT);
    for (_, text) in p.cells.iter().flatten() {
        widest = widest.max(base.width(text)?);
    }
    let fit = if widest > 0.0 { ((cw - 4.0) / widest).min((ch - 3.0) / TICK_SIZE).min(1.0) } else { 0.0 };
    let size = fit * TICK_SIZE;
    for r in 0..p.rows {
        for c in 0..p.columns {
            let area = cell(r, c);
            match &p.cells[r * p.columns + c] {
                None => {
                    canvas.rect(area, MISSING);
                    canvas.hatch(area, 6.0, HATCH);
                }
                Some((colour, text)) => {
                    canvas.rect(area, *colour);
                    if !text.is_empty() && size >= SMALLEST_SIZE {
                        canvas.text(text, area.centre(), Align::Middle, Font::new(size, colour.ink()));
                    }
                }
            }
        }
    }
    // Thin white lines separate cells that are large enough.
    if cw >= 12.0 && ch >= 12.0 {
        for c in 1..p.columns {
            let x = cell(0, c).x0;
            canvas.line(vec![(x, rect.y0), (x, rect.y1)], 0.5, WHITE, Dash::Solid);
        }
        for r in 1..p.rows {
            let y = cell(r, 0).y1;
            canvas.line(vec![(rect.x0, y), (rect.x1, y)], 0.5, WHITE, Dash::Solid);
        }
    }
    canvas.outline(rect, FRAME_WIDTH, FRAME);
    let turned = turned_ticks(p, rect.width())?;
    let mut free_from = f64::NEG_INFINITY;
    for (c, text) in p.x_ticks.iter().enumerate() {
        let x = cell(0, c).centre().0;
        canvas.line(vec![(x, rect.y1), (x, rect.y1 + 3.0)], FRAME_WIDTH, FRAME, Dash::Solid);
        if turned > 0.0 {
            canvas.turned_text(text, (x, rect.y1 + 6.0), Align::End, base);
            continue;
        }
        let half = 0.5 * base.width(text)?;
        if x - half >= free_from {
            canvas.text(text, (x, rect.y1 + 7.0 + 0.5 * TICK_SIZE), Align::Middle, base);
            free_from = x + half + 4.0;
        }
    }
    let mut free_to = f64::INFINITY;
    let mut widest = 0.0f64;
    for (r, text) in p.y_ticks.iter().enumerate() {
        let y = cell(r, 0).centre().1;
        canvas.line(vec![(rect.x0 - 3.0, y), (rect.x0, y)], FRAME_WIDTH, FRAME, Dash::Solid);
        widest = widest.max(base.width(text)?);
        if y + 0.5 * TICK_SIZE <= free_to {
            canvas.text(text, (rect.x0 - 6.0, y), Align::End, base);
            free_to = y - 0.5 * TICK_SIZE - 1.0;
        }
    }
    let label = Font::new(LABEL_SIZE, TEXT);
    let (cx, cy) = rect.centre();
    let numbers = if turned > 0.0 { turned } else { TICK_SIZE };
    canvas.text(&p.x_label, (cx, rect.y1 + 7.0 + numbers + 6.0 + 0.5 * LABEL_SIZE), Align::Middle, label);
    canvas.turned_text(
        &p.y_label,
        (rect.x0 - 6.0 - widest - 8.0 - 0.5 * LABEL_SIZE, cy),
        Align::Middle,
        label,
    );
    if let Some(b) = &p.bar {
        draw_bar(canvas, rect, b.range, &b.label, b.palette, 128)?;
    }
    panel_title(canvas, &p.title, rect)
}

/// The key of a ternary diagram: every mixture of the three classes, and the colours outside it.
fn draw_triangle(canvas: &mut Canvas, (x, y): (f64, f64), room: f64, missing: bool) {
    let side = 92.0;
    let height = (side * 0.75f64.sqrt() * 2.0).round() / 2.0;
    let (left, top) = ((x + 0.5 * (room - side)).round(), y + 20.0);
    let (columns, rows) = ((2.0 * side) as usize, (2.0 * height) as usize);
    let mut rgb = Vec::with_capacity(3 * columns * rows);
    for j in 0..rows {
        let apex = 1.0 - (j as f64 + 0.5) / rows as f64;
        for i in 0..columns {
            let across = (i as f64 + 0.5) / columns as f64;
            let generalized = across - 0.5 * apex;
            let memorized = 1.0 - apex - generalized;
            let inside = generalized >= 0.0 && memorized >= 0.0;
            rgb.extend(if inside { blend(memorized, apex, generalized) } else { WHITE }.rgb());
        }
    }
    canvas.pixels(Rect::new(left, top, left + side, top + height), columns, rows, rgb);
    let (a, b, c) = ((left, top + height), (left + 0.5 * side, top), (left + side, top + height));
    canvas.line(vec![a, b, c, a, b], 1.2, FRAME, Dash::Solid);
    let bold = |class: Class| Font::bold(TICK_SIZE, class.colour());
    canvas.text("spurious", (b.0, b.1 - 9.0), Align::Middle, bold(Class::Spurious));
    canvas.text("memorized", (x + 4.0, a.1 + 11.0), Align::Start, bold(Class::Memorized));
    canvas.text("generalized", (x + room - 4.0, c.1 + 11.0), Align::End, bold(Class::Generalized));
    let mut y = a.1 + 36.0;
    let mut swatch = |text: &str, colour: Colour, hatched: bool| {
        let rect = Rect::new(left - 18.0, y - 5.0, left, y + 5.0);
        canvas.rect(rect, colour);
        if hatched {
            canvas.hatch(rect, 5.0, HATCH);
        }
        canvas.outline(rect, 0.75, FRAME);
        canvas.text(text, (left + 7.0, y), Align::Start, Font::new(TICK_SIZE, TEXT));
        y += 18.0;
    };
    swatch("none of the three", Class::Invalid.colour(), false);
    if missing {
        swatch("not measured", MISSING, true);
    }
}
