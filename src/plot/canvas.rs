//! A drawing surface in units of the figure. Shapes are recorded once and rendered to PNG through plotters' bitmap
//! backend and to SVG as text.
//!
//! The bitmap is drawn at four pixels for each unit and averaged down to two, which smooths every edge. The SVG keeps
//! the coordinates. Plotters' SVG backend is not used: it rounds coordinates to whole units and has no images.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, FontTransform, RGBAColor, TextStyle, register_font};

use crate::display::escape;
use crate::plot::FigureError;
use crate::plot::style::{Colour, FONT_FAMILY, Marker, WHITE};

/// Pixels of the PNG for each unit of the figure.
pub const PIXELS_PER_UNIT: u32 = 2;
/// Pixels of the bitmap before averaging for each unit of the figure.
const FINE: u32 = 4;
/// Height from ascent to descent, by which `ab_glyph` scales, in ems of DejaVu Sans.
const LINE_IN_EMS: f64 = 2384.0 / 2048.0;
/// Height of capitals in ems of DejaVu Sans.
const CAPITAL: f64 = 1493.0 / 2048.0;

static REGULAR: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-Bold.ttf");

/// A rectangle; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub x0: f64,
    pub y0: f64,
    pub x1: f64,
    pub y1: f64,
}

impl Rect {
    pub fn new(x0: f64, y0: f64, x1: f64, y1: f64) -> Self {
        Self { x0, y0, x1, y1 }
    }

    pub fn width(&self) -> f64 {
        self.x1 - self.x0
    }

    pub fn height(&self) -> f64 {
        self.y1 - self.y0
    }

    pub fn centre(&self) -> (f64, f64) {
        (0.5 * (self.x0 + self.x1), 0.5 * (self.y0 + self.y1))
    }

    pub fn corners(&self) -> [(f64, f64); 4] {
        [(self.x0, self.y0), (self.x1, self.y0), (self.x1, self.y1), (self.x0, self.y1)]
    }

    pub fn contains(&self, (x, y): (f64, f64)) -> bool {
        const SLACK: f64 = 1e-6;
        x >= self.x0 - SLACK && x <= self.x1 + SLACK && y >= self.y0 - SLACK && y <= self.y1 + SLACK
    }
}

/// Dash pattern of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dash {
    /// Solid.
    #[default]
    Solid,
    /// Dashed.
    Dashed,
    /// Dotted.
    Dotted,
}

impl Dash {
    fn pattern(self) -> Option<(f64, f64)> {
        match self {
            Self::Solid => None,
            Self::Dashed => Some((6.0, 4.0)),
            Self::Dotted => Some((1.75, 3.0)),
        }
    }
}

/// Position of text relative to its anchor: right, centred, left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Start,
    Middle,
    End,
}

/// Style of text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Font {
    pub size: f64,
    pub bold: bool,
    pub colour: Colour,
}

impl Font {
    pub fn new(size: f64, colour: Colour) -> Self {
        Self { size, bold: false, colour }
    }

    pub fn bold(size: f64, colour: Colour) -> Self {
        Self { size, bold: true, colour }
    }

    /// Width of one line of text.
    pub fn width(&self, text: &str) -> Result<f64, FigureError> {
        // Measured at a large size, because plotters rounds to whole pixels.
        let ((x0, _), (x1, _)) =
            self.desc(100.0)?.layout_box(text).map_err(|e| FigureError::Font { reason: e.to_string() })?;
        Ok(f64::from(x1 - x0) / 100.0 * self.size)
    }

    /// Breaks text between words so that no line is wider than `limit`, except single words.
    pub fn wrap(&self, text: &str, limit: f64) -> Result<Vec<String>, FigureError> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            if let Some(last) = lines.last_mut() {
                let longer = format!("{last} {word}");
                if self.width(&longer)? <= limit {
                    *last = longer;
                    continue;
                }
            }
            lines.push(word.to_owned());
        }
        Ok(lines)
    }

    fn desc(&self, em: f64) -> Result<FontDesc<'static>, FigureError> {
        ready_fonts()?;
        let style = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        Ok(FontDesc::new(FontFamily::Name(FONT_FAMILY), em * LINE_IN_EMS, style))
    }
}

/// Registers the fonts of the crate with plotters, once in a process.
fn ready_fonts() -> Result<(), FigureError> {
    static READY: OnceLock<bool> = OnceLock::new();
    let ready = *READY.get_or_init(|| {
        register_font(FONT_FAMILY, FontStyle::Normal, REGULAR).is_ok()
            && register_font(FONT_FAMILY, FontStyle::Bold, BOLD).is_ok()
    });
    if ready {
        Ok(())
    } else {
        Err(FigureError::Font { reason: "the crate's font files are damaged".into() })
    }
}

#[derive(Debug, Clone)]
enum Item {
    Polygon { points: Vec<(f64, f64)>, fill: Colour },
    Line { points: Vec<(f64, f64)>, width: f64, colour: Colour, dash: Dash },
    Disc { at: (f64, f64), radius: f64, fill: Colour },
    Text { text: String, baseline: (f64, f64), align: Align, font: Font, turned: bool },
    Pixels { rect: Rect, columns: usize, rows: usize, rgb: Vec<u8> },
}

/// Recorded shapes.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    width: u32,
    height: u32,
    items: Vec<Item>,
}

impl Canvas {
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, items: Vec::new() }
    }

    pub fn polygon(&mut self, points: Vec<(f64, f64)>, fill: Colour) {
        self.items.push(Item::Polygon { points, fill });
    }

    pub fn rect(&mut self, rect: Rect, fill: Colour) {
        self.polygon(rect.corners().to_vec(), fill);
    }

    pub fn outline(&mut self, rect: Rect, width: f64, colour: Colour) {
        let [a, b, c, d] = rect.corners();
        // Repeats the first edge, so that every corner is a joint.
        self.line(vec![a, b, c, d, a, b], width, colour, Dash::Solid);
    }

    pub fn line(&mut self, points: Vec<(f64, f64)>, width: f64, colour: Colour, dash: Dash) {
        self.items.push(Item::Line { points, width, colour, dash });
    }

    pub fn disc(&mut self, at: (f64, f64), radius: f64, fill: Colour) {
        self.items.push(Item::Disc { at, radius, fill });
    }

    /// Rows of RGB pixels from the top, stretched over `rect` without smoothing.
    pub fn pixels(&mut self, rect: Rect, columns: usize, rows: usize, rgb: Vec<u8>) {
        self.items.push(Item::Pixels { rect, columns, rows, rgb });
    }

    /// A line of text whose capitals are vertically centred at `at`.
    pub fn text(&mut self, text: &str, at: (f64, f64), align: Align, font: Font) {
        let baseline = (at.0, at.1 + 0.5 * CAPITAL * font.size);
        self.items.push(Item::Text { text: text.to_owned(), baseline, align, font, turned: false });
    }

    /// The same, rotated to read from bottom to top.
    pub fn turned_text(&mut self, text: &str, at: (f64, f64), align: Align, font: Font) {
        let baseline = (at.0 + 0.5 * CAPITAL * font.size, at.1);
        self.items.push(Item::Text { text: text.to_owned(), baseline, align, font, turned: true });
    }

    /// A marker, with a rim of colour `rim` if there is one.
    pub fn marker(&mut self, marker: Marker, at: (f64, f64), radius: f64, fill: Colour, rim: Option<Colour>) {
        if let Some(rim) = rim {
            self.shape(marker, at, radius + 1.25, 1.25, rim);
        }
        self.shape(marker, at, radius, 0.0, fill);
    }

    fn shape(&mut self, marker: Marker, (x, y): (f64, f64), r: f64, grown: f64, fill: Colour) {
        let scaled = |corners: &[(f64, f64)]| corners.iter().map(|(u, v)| (x + r * u, y + r * v)).collect();
        match marker {
            Marker::Circle => self.disc((x, y), r, fill),
            Marker::Square => {
                self.polygon(scaled(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]), fill)
            }
            Marker::Diamond => {
                self.polygon(scaled(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]), fill)
            }
            Marker::Triangle => {
                // Sharp corners need more for a rim of even width.
                let r = (r + grown) / r;
                let corners = [(0.0, -1.25), (1.1, 0.7), (-1.1, 0.7)].map(|(u, v)| (r * u, r * v));
                self.polygon(scaled(&corners), fill);
            }
            Marker::Cross => {
                let reach = 0.85 * (r - 0.3 * grown);
                let width = 1.8 + 2.0 * grown;
                for s in [-1.0, 1.0] {
                    let ends = vec![(x - reach, y - s * reach), (x + reach, y + s * reach)];
                    self.line(ends, width, fill, Dash::Solid);
                }
            }
        }
    }

    /// A line through `points`, clipped to `clip`.
    pub fn clipped_line(
        &mut self,
        points: &[(f64, f64)],
        clip: Rect,
        width: f64,
        colour: Colour,
        dash: Dash,
    ) {
        let mut run: Vec<(f64, f64)> = Vec::new();
        for pair in points.windows(2) {
            match clip_segment(pair[0], pair[1], clip) {
                Some((a, b)) => {
                    if run.last().is_some_and(|&last| !near(last, a)) {
                        self.line(std::mem::take(&mut run), width, colour, dash);
                    }
                    if run.is_empty() {
                        run.push(a);
                    }
                    run.push(b);
                }
                None if !run.is_empty() => self.line(std::mem::take(&mut run), width, colour, dash),
                None => {}
            }
        }
        if run.len() > 1 {
            self.line(run, width, colour, dash);
        }
    }

    /// A polygon, clipped to `clip`.
    pub fn clipped_polygon(&mut self, points: Vec<(f64, f64)>, clip: Rect, fill: Colour) {
        let mut points = points;
        let sides: [(bool, f64, bool); 4] =
            [(true, clip.x0, true), (true, clip.x1, false), (false, clip.y0, true), (false, clip.y1, false)];
        for (vertical, limit, above) in sides {
            let coordinate = |p: (f64, f64)| if vertical { p.0 } else { p.1 };
            let inside = |p| (coordinate(p) >= limit) == above || coordinate(p) == limit;
            let mut kept = Vec::with_capacity(points.len() + 4);
            for (i, &p) in points.iter().enumerate() {
                let before = points[(i + points.len() - 1) % points.len()];
                if inside(p) != inside(before) {
                    let f = (limit - coordinate(before)) / (coordinate(p) - coordinate(before));
                    kept.push((before.0 + f * (p.0 - before.0), before.1 + f * (p.1 - before.1)));
                }
                if inside(p) {
                    kept.push(p);
                }
            }
            points = kept;
        }
        if points.len() > 2 {
            self.polygon(points, fill);
        }
    }

    /// Diagonal hatching of a rectangle.
    pub fn hatch(&mut self, rect: Rect, step: f64, colour: Colour) {
        let reach = rect.height();
        // Lines of all rectangles lie on one lattice, so that those of neighbours join.
        let mut c = ((rect.x0 + rect.y0) / step).floor() * step;
        while c < rect.x1 + rect.y1 {
            let (top, bottom) = ((c - rect.y0, rect.y0), (c - rect.y0 - reach, rect.y1));
            if let Some((a, b)) = clip_segment(top, bottom, rect) {
                self.line(vec![a, b], 0.9, colour, Dash::Solid);
            }
            c += step;
        }
    }

    /// The PNG.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        ready_fonts()?;
        let (fine_w, fine_h) = (self.width * FINE, self.height * FINE);
        let mut fine = vec![255u8; fine_w as usize * fine_h as usize * 3];
        {
            let mut backend = BitMapBackend::with_buffer(&mut fine, (fine_w, fine_h));
            for item in &self.items {
                paint(&mut backend, item)?;
            }
            backend.present().map_err(draw_error)?;
        }
        let (w, h) = (self.width * PIXELS_PER_UNIT, self.height * PIXELS_PER_UNIT);
        let rgb = halve(&fine, w as usize, h as usize);
        encode(&rgb, w, h)
    }

    /// The SVG, with the title `alt`.
    pub fn svg(&self, alt: &str) -> Result<String, FigureError> {
        let (w, h) = (self.width, self.height);
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             role=\"img\" font-family=\"{FONT_FAMILY}\">\n<title>{}</title>\n<rect width=\"{w}\" height=\"{h}\" \
             fill=\"{}\"/>\n",
            escape(alt),
            css(WHITE)
        );
        for item in &self.items {
            write_svg(&mut s, item)?;
        }
        s.push_str("</svg>\n");
        Ok(s)
    }
}

fn near(a: (f64, f64), b: (f64, f64)) -> bool {
    (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9
}

/// The part of a segment inside a rectangle (Liang-Barsky).
fn clip_segment(a: (f64, f64), b: (f64, f64), clip: Rect) -> Option<((f64, f64), (f64, f64))> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut t0, mut t1) = (0.0f64, 1.0f64);
    for (p, q) in [(-dx, a.0 - clip.x0), (dx, clip.x1 - a.0), (-dy, a.1 - clip.y0), (dy, clip.y1 - a.1)] {
        if p == 0.0 {
            if q < 0.0 {
                return None;
            }
        } else if p < 0.0 {
            t0 = t0.max(q / p);
        } else {
            t1 = t1.min(q / p);
        }
    }
    (t0 <= t1).then_some(((a.0 + t0 * dx, a.1 + t0 * dy), (a.0 + t1 * dx, a.1 + t1 * dy)))
}

fn draw_error<E: std::fmt::Display>(e: E) -> FigureError {
    FigureError::Draw { reason: e.to_string() }
}

fn fine(v: f64) -> i32 {
    (v * f64::from(FINE)).round() as i32
}

fn rgba(c: Colour) -> RGBAColor {
    RGBAColor(c.r, c.g, c.b, c.alpha)
}

fn paint(backend: &mut BitMapBackend<'_>, item: &Item) -> Result<(), FigureError> {
    match item {
        Item::Polygon { points, fill } => fill_polygon(backend, points, *fill),
        Item::Line { points, width, colour, dash } => {
            for piece in dashes(points, dash.pattern()) {
                stroke(backend, &piece, *width, *colour)?;
            }
            Ok(())
        }
        Item::Disc { at, radius, fill } => fill_polygon(backend, &circle(*at, *radius), *fill),
        Item::Text { text, baseline, align, font, turned } => {
            let em = font.size * f64::from(FINE);
            let h_pos = match align {
                Align::Start => HPos::Left,
                Align::Middle => HPos::Center,
                Align::End => HPos::Right,
            };
            let transform = if *turned { FontTransform::Rotate270 } else { FontTransform::None };
            let colour = rgba(font.colour);
            let style = TextStyle::from(font.desc(em)?.transform(transform))
                .color(&colour)
                .pos(Pos::new(h_pos, VPos::Top));
            // Plotters puts the baseline half a line below the anchor.
            let shift = (0.5 * em * LINE_IN_EMS).floor() as i32;
            let (x, y) = (fine(baseline.0), fine(baseline.1));
            let at = if *turned { (x - shift, y) } else { (x, y - shift) };
            backend.draw_text(text, &style, at).map_err(draw_error)
        }
        Item::Pixels { rect, columns, rows, rgb } => {
            let (x0, y0) = (fine(rect.x0), fine(rect.y0));
            let (w, h) = ((fine(rect.x1) - x0).max(0) as usize, (fine(rect.y1) - y0).max(0) as usize);
            let mut wide = vec![0u8; 3 * w * h];
            for j in 0..h {
                let source = 3 * (j * rows / h) * columns;
                for i in 0..w {
                    let from = source + 3 * (i * columns / w);
                    let to = 3 * (j * w + i);
                    wide[to..to + 3].copy_from_slice(&rgb[from..from + 3]);
                }
            }
            backend.blit_bitmap((x0, y0), (w as u32, h as u32), &wide).map_err(draw_error)
        }
    }
}

fn circle((x, y): (f64, f64), r: f64) -> Vec<(f64, f64)> {
    let n = ((r * 8.0) as usize).clamp(12, 96);
    (0..n)
        .map(|i| {
            let a = std::f64::consts::TAU * i as f64 / n as f64;
            (x + r * a.cos(), y + r * a.sin())
        })
        .collect()
}

/// Fills by scan lines through pixel centres, even-odd. Each pixel is drawn once, so that opacity is correct.
fn fill_polygon(
    backend: &mut BitMapBackend<'_>,
    points: &[(f64, f64)],
    fill: Colour,
) -> Result<(), FigureError> {
    let scale = f64::from(FINE);
    let (w, h) = backend.get_size();
    let lowest = points.iter().map(|p| p.1 * scale).fold(f64::INFINITY, f64::min);
    let highest = points.iter().map(|p| p.1 * scale).fold(f64::NEG_INFINITY, f64::max);
    let first = (lowest - 0.5).ceil().max(0.0) as i32;
    let last = (highest - 0.5).floor().min(f64::from(h) - 1.0) as i32;
    let colour = rgba(fill);
    let mut crossings: Vec<f64> = Vec::new();
    for row in first..=last {
        let y = f64::from(row) + 0.5;
        crossings.clear();
        for (i, &(bx, by)) in points.iter().enumerate() {
            let (ax, ay) = points[(i + points.len() - 1) % points.len()];
            let (ax, ay, bx, by) = (ax * scale, ay * scale, bx * scale, by * scale);
            if (ay <= y) != (by <= y) {
                crossings.push(ax + (y - ay) / (by - ay) * (bx - ax));
            }
        }
        crossings.sort_unstable_by(f64::total_cmp);
        for span in crossings.chunks_exact(2) {
            let x0 = (span[0] - 0.5).ceil().max(0.0) as i32;
            let x1 = (span[1] - 0.5).ceil().min(f64::from(w)) as i32 - 1;
            if x0 <= x1 {
                // A filled rectangle does not include its lower right corner.
                backend.draw_rect((x0, row), (x1 + 1, row + 1), &colour, true).map_err(draw_error)?;
            }
        }
    }
    Ok(())
}

/// A line as one quadrilateral for each segment and one disc for each joint. Exact for opaque colours.
fn stroke(
    backend: &mut BitMapBackend<'_>,
    points: &[(f64, f64)],
    width: f64,
    colour: Colour,
) -> Result<(), FigureError> {
    let r = 0.5 * width;
    for (i, pair) in points.windows(2).enumerate() {
        let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
        let length = (bx - ax).hypot(by - ay);
        if i > 0 && width >= 1.0 {
            fill_polygon(backend, &circle((ax, ay), r), colour)?;
        }
        if length > 0.0 {
            let (nx, ny) = (-(by - ay) / length * r, (bx - ax) / length * r);
            let quad = [(ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny)];
            fill_polygon(backend, &quad, colour)?;
        }
    }
    Ok(())
}

/// Cuts a line into its dashes.
fn dashes(points: &[(f64, f64)], pattern: Option<(f64, f64)>) -> Vec<Vec<(f64, f64)>> {
    let Some((on, off)) = pattern else {
        return vec![points.to_vec()];
    };
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let (mut drawing, mut left) = (true, on);
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let mut done = 0.0;
        let at = |s: f64| {
            let f = if length > 0.0 { s / length } else { 0.0 };
            (a.0 + f * (b.0 - a.0), a.1 + f * (b.1 - a.1))
        };
        if drawing && piece.is_empty() {
            piece.push(a);
        }
        while length - done > left {
            done += left;
            if drawing {
                piece.push(at(done));
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece.push(at(done));
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
        left -= length - done;
        if drawing {
            piece.push(b);
        }
    }
    if piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Averages blocks of two by two pixels.
fn halve(fine: &[u8], w: usize, h: usize) -> Vec<u8> {
    let stride = 2 * w * 3;
    let mut out = Vec::with_capacity(3 * w * h);
    for j in 0..h {
        let (a, b) = (&fine[2 * j * stride..][..stride], &fine[(2 * j + 1) * stride..][..stride]);
        for (p, q) in a.chunks_exact(6).zip(b.chunks_exact(6)) {
            for c in 0..3 {
                let sum = u16::from(p[c]) + u16::from(p[c + 3]) + u16::from(q[c]) + u16::from(q[c + 3]);
                out.push(((sum + 2) / 4) as u8);
            }
        }
    }
    out
}

/// Encodes RGB pixels as PNG, with a palette (a third smaller) if it changes at most shades on the edges of marks.
fn encode(rgb: &[u8], w: u32, h: u32) -> Result<Vec<u8>, FigureError> {
    let failed = |e: &dyn std::fmt::Display| FigureError::Encode { reason: e.to_string() };
    if let Some((palette, places)) = indexed(rgb) {
        return indexed_png(&palette, &places, w, h).map_err(|e| failed(&e));
    }
    let mut png = Vec::new();
    // Flat colours and repeated rows compress better without filters.
    PngEncoder::new_with_quality(&mut png, CompressionType::Level(9), FilterType::NoFilter)
        .write_image(rgb, w, h, ExtendedColorType::Rgb8)
        .map_err(|e| failed(&e))?;
    Ok(png)
}

/// A palette and the index of each pixel; `None` when 256 colours are too few. They are enough when the 256 most frequent
/// colours cover 99 percent of the pixels and the number of other colours is small. Other colours become the nearest of
/// the palette.
fn indexed(rgb: &[u8]) -> Option<(Vec<[u8; 3]>, Vec<u8>)> {
    const MOST: usize = 1024;
    let (pixels, _) = rgb.as_chunks::<3>();
    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    for p in pixels {
        *counts.entry(*p).or_default() += 1;
        if counts.len() > MOST {
            return None;
        }
    }
    let mut palette: Vec<([u8; 3], usize)> = counts.into_iter().collect();
    palette.sort_unstable_by_key(|(colour, count)| (Reverse(*count), *colour));
    let rare = palette.split_off(palette.len().min(256));
    if 100 * rare.iter().map(|(_, count)| count).sum::<usize>() > pixels.len() {
        return None;
    }
    let palette: Vec<[u8; 3]> = palette.into_iter().map(|(colour, _)| colour).collect();
    let mut place: HashMap<[u8; 3], u8> = palette.iter().zip(0..=255).map(|(c, i)| (*c, i)).collect();
    for (colour, _) in rare {
        let apart = |p: &[u8; 3]| (0..3).map(|k| i32::from(p[k].abs_diff(colour[k])).pow(2)).sum::<i32>();
        let near =
            palette.iter().zip(0..=255).min_by_key(|(p, _)| apart(p)).expect("the palette has colours").1;
        place.insert(colour, near);
    }
    let places = pixels.iter().map(|p| place[p]).collect();
    Some((palette, places))
}

/// A PNG with a palette and eight bits for each pixel, which the image crate does not write.
fn indexed_png(palette: &[[u8; 3]], places: &[u8], w: u32, h: u32) -> std::io::Result<Vec<u8>> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(crc.sum().to_be_bytes());
    };
    // Depth 8, palette, the only compression and filter method of PNG, not interlaced.
    chunk(b"IHDR", &[&w.to_be_bytes()[..], &h.to_be_bytes(), &[8, 3, 0, 0, 0]].concat());
    chunk(b"PLTE", palette.as_flattened());
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    for row in places.chunks(w.max(1) as usize) {
        packed.write_all(&[0])?;
        packed.write_all(row)?;
    }
    chunk(b"IDAT", &packed.finish()?);
    chunk(b"IEND", &[]);
    Ok(png)
}

fn css(c: Colour) -> String {
    format!("#{:02x}{:02x}{:02x}", c.r, c.g, c.b)
}

fn opacity(attribute: &str, c: Colour) -> String {
    if c.alpha < 1.0 { format!(" {attribute}=\"{}\"", number(c.alpha)) } else { String::new() }
}

fn number(v: f64) -> String {
    let s = format!("{v:.2}");
    let s = s.trim_end_matches('0').trim_end_matches('.');
    if s == "-0" { "0".to_owned() } else { s.to_owned() }
}

fn join(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect::<Vec<_>>().join(" ")
}

fn write_svg(s: &mut String, item: &Item) -> Result<(), FigureError> {
    // Writing into a String cannot fail.
    match item {
        Item::Polygon { points, fill } => {
            let _ = writeln!(
                s,
                "<polygon points=\"{}\" fill=\"{}\"{}/>",
                join(points),
                css(*fill),
                opacity("fill-opacity", *fill)
            );
        }
        Item::Line { points, width, colour, dash } => {
            let dash = dash
                .pattern()
                .map_or_else(String::new, |(on, off)| format!(" stroke-dasharray=\"{on} {off}\""));
            let _ = writeln!(
                s,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"{} stroke-width=\"{}\" \
                 stroke-linejoin=\"round\"{dash}/>",
                join(points),
                css(*colour),
                opacity("stroke-opacity", *colour),
                number(*width)
            );
        }
        Item::Disc { at, radius, fill } => {
            let _ = writeln!(
                s,
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"{}/>",
                number(at.0),
                number(at.1),
                number(*radius),
                css(*fill),
                opacity("fill-opacity", *fill)
            );
        }
        Item::Text { text, baseline, align, font, turned } => {
            let anchor = match align {
                Align::Start => "start",
                Align::Middle => "middle",
                Align::End => "end",
            };
            let (x, y) = (number(baseline.0), number(baseline.1));
            let turn = if *turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            let weight = if font.bold { " font-weight=\"bold\"" } else { "" };
            let _ = writeln!(
                s,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{weight}{turn}>{}</text>",
                number(font.size),
                css(font.colour),
                escape(text)
            );
        }
        Item::Pixels { rect, columns, rows, rgb } => {
            let png = encode(rgb, *columns as u32, *rows as u32)?;
            let _ = writeln!(
                s,
                "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
                 style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>",
                number(rect.x0),
                number(rect.y0),
                number(rect.width()),
                number(rect.height()),
                STANDARD.encode(png)
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_with_a_palette_has_the_pixels_it_was_made_of() {
        // 300 colours, of which the last 44 have less than 1 percent of the pixels.
        let common = (0..4800u32).map(|i| [(i % 256) as u8, 0, 200]);
        let rare = (0..44u32).map(|i| [i as u8, 1, 200]);
        let few: Vec<u8> = common.clone().chain(rare.clone()).flatten().collect();
        let back = |rgb: &[u8], w: u32, h: u32| {
            image::load_from_memory(&encode(rgb, w, h).unwrap()).unwrap().to_rgb8().into_raw()
        };
        let got = back(&few, 4844, 1);
        assert_eq!(encode(&few, 4844, 1).unwrap()[25], 3);
        assert_eq!(got[..3 * 4800], few[..3 * 4800]);
        // The nearest colour of each rare one is its neighbour.
        let near: Vec<u8> = rare.flat_map(|[r, _, b]| [r, 0, b]).collect();
        assert_eq!(got[3 * 4800..], near);
        // With too many rare colours every pixel is unchanged.
        let many: Vec<u8> = (0..600u32).flat_map(|i| [(i % 256) as u8, (i / 256) as u8, 3]).collect();
        assert_eq!((encode(&many, 30, 20).unwrap()[25], back(&many, 30, 20)), (2, many));
    }

    #[test]
    fn segments_and_polygons_are_clipped() {
        let clip = Rect::new(0.0, 0.0, 10.0, 10.0);
        let (a, b) = clip_segment((-10.0, 5.0), (20.0, 5.0), clip).unwrap();
        assert!(near(a, (0.0, 5.0)) && near(b, (10.0, 5.0)));
        assert!(clip_segment((-1.0, 0.0), (-1.0, 9.0), clip).is_none());
        let mut c = Canvas::new(10, 10);
        c.clipped_polygon(vec![(-5.0, -5.0), (15.0, -5.0), (15.0, 15.0), (-5.0, 15.0)], clip, WHITE);
        let Item::Polygon { points, .. } = &c.items[0] else { panic!("no polygon") };
        assert!(points.iter().all(|&p| clip.contains(p)), "{points:?}");
        assert_eq!(points.len(), 4);
    }

    #[test]
    fn dashes_cover_their_share() {
        let pieces = dashes(&[(0.0, 0.0), (50.0, 0.0), (100.0, 0.0)], Some((6.0, 4.0)));
        let drawn: f64 = pieces.iter().map(|p| p.last().unwrap().0 - p[0].0).sum();
        assert!((drawn - 60.0).abs() < 1e-9, "{drawn}");
    }

    #[test]
    fn text_needs_no_font_of_the_system() {
        // Without the fonts of the crate plotters has no font.
        let system = FontDesc::new(FontFamily::SansSerif, 12.0, FontStyle::Normal);
        assert!(system.layout_box("a").is_err());
        let (plain, bold) = (Font::new(12.0, WHITE), Font::bold(12.0, WHITE));
        for text in ["β", "σ²", "x₁", "10⁻³", "−1.5", "∞", "⟨x⟩", "… → ←"] {
            assert!(plain.width(text).unwrap() > 4.0, "{text}");
        }
        assert!(bold.width("memorized").unwrap() > plain.width("memorized").unwrap());
        // DejaVu Sans has 1303 of 2048 units for this advance.
        assert!((plain.width("0").unwrap() - 12.0 * 1303.0 / 2048.0).abs() < 0.15);
    }

    #[test]
    fn text_wraps_at_words() {
        let font = Font::new(10.0, WHITE);
        let lines = font.wrap("one two three four five six", 60.0).unwrap();
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), "one two three four five six");
        assert!(lines.iter().all(|l| font.width(l).unwrap() <= 60.0));
    }
}
