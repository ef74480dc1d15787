//! Axes: scales, ticks, numbers as text, frames, colour bars and legends.

use crate::plot::canvas::{Align, Canvas, Dash, Font, Rect};
use crate::plot::style::{
    Colour, FRAME, FRAME_WIDTH, GRID, GRID_WIDTH, LABEL_SIZE, Marker, Palette, TEXT, TICK_SIZE, TITLE_SIZE,
};
use crate::plot::{FigureError, input};

/// Length of ticks.
const TICK: f64 = 4.0;
/// Space between related elements.
const GAP: f64 = 6.0;

/// Scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Linear.
    #[default]
    Linear,
    /// Logarithmic, with ticks at powers of ten.
    Log10,
    /// Logarithmic, with ticks at powers of two.
    Log2,
}

impl Scale {
    fn forward(self, v: f64) -> f64 {
        match self {
            Self::Linear => v,
            Self::Log10 => v.log10(),
            Self::Log2 => v.log2(),
        }
    }

    fn backward(self, v: f64) -> f64 {
        match self {
            Self::Linear => v,
            Self::Log10 => 10f64.powf(v),
            Self::Log2 => v.exp2(),
        }
    }
}

/// One axis with a checked range.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub label: String,
    pub scale: Scale,
    pub ticks: Option<Vec<(f64, String)>>,
    lo: f64,
    hi: f64,
}

/// A tick: position and optional text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub value: f64,
    pub text: Option<String>,
}

impl Axis {
    /// An axis over a range, which is widened by `pad` times its length on both sides. A range without length is widened
    /// too.
    pub fn new(
        figure: &str,
        label: &str,
        scale: Scale,
        (lo, hi): (f64, f64),
        pad: f64,
    ) -> Result<Self, FigureError> {
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(input(
                figure,
                format!("axis \"{label}\" has the range {lo} to {hi}, expected finite and ascending"),
            ));
        }
        if scale != Scale::Linear && lo <= 0.0 {
            let series = format!("axis {label}");
            return Err(FigureError::NotPositive { figure: figure.to_owned(), series, value: lo });
        }
        let (mut a, mut b) = (scale.forward(lo), scale.forward(hi));
        if b - a <= 1e-12 * a.abs().max(b.abs()) {
            let half = if scale == Scale::Linear { if a == 0.0 { 0.5 } else { 0.1 * a.abs() } } else { 0.5 };
            (a, b) = (a - half, b + half);
        }
        let margin = pad * (b - a);
        Ok(Self { label: label.to_owned(), scale, ticks: None, lo: a - margin, hi: b + margin })
    }

    /// Position from 0 to 1.
    pub fn fraction(&self, v: f64) -> f64 {
        (self.scale.forward(v) - self.lo) / (self.hi - self.lo)
    }

    /// Ticks, of which about `most` at most have text.
    pub fn ticks(&self, most: usize) -> Vec<Tick> {
        let most = most.max(2);
        let ticks: Vec<Tick> = match (&self.ticks, self.scale) {
            (Some(given), _) => {
                given.iter().map(|(v, t)| Tick { value: *v, text: Some(t.clone()) }).collect()
            }
            (None, Scale::Linear) => linear_ticks(self.lo, self.hi, most),
            (None, Scale::Log10) => decade_ticks(self.lo, self.hi, most),
            (None, Scale::Log2) => octave_ticks(self.lo, self.hi, most),
        };
        let inside = |t: &Tick| {
            let f = self.fraction(t.value);
            (-1e-9..=1.0 + 1e-9).contains(&f)
        };
        ticks.into_iter().filter(inside).collect()
    }
}

fn linear_ticks(lo: f64, hi: f64, most: usize) -> Vec<Tick> {
    let raw = (hi - lo) / most as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.999_999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((lo / step - 1e-9).ceil() as i64, (hi / step + 1e-9).floor() as i64);
    let values: Vec<f64> = (first..=last).map(|i| i as f64 * step).collect();
    numbers(&values, step).into_iter().zip(values).map(|(t, value)| Tick { value, text: Some(t) }).collect()
}

fn decade_ticks(lo: f64, hi: f64, most: usize) -> Vec<Tick> {
    if hi - lo < 1.0 {
        let ticks = linear_ticks(10f64.powf(lo), 10f64.powf(hi), most.min(6));
        return ticks.into_iter().filter(|t| t.value > 0.0).collect();
    }
    let (first, last) = ((lo - 1e-9).ceil() as i32, (hi + 1e-9).floor() as i32);
    let count = (last - first + 1).max(1) as usize;
    let stride = count.div_ceil(most) as i32;
    let plain = first >= -3 && last <= 4;
    let mut ticks = Vec::new();
    for e in first - 1..=last {
        let value = 10f64.powi(e);
        if e >= first {
            let text = (e.rem_euclid(stride) == 0).then(|| power_text(10, e, plain));
            ticks.push(Tick { value, text });
        }
        if stride == 1 {
            for m in 2..10 {
                // With few decades there is room for the twos and fives.
                let text = (count <= 2 && most >= 5 && plain && (m == 2 || m == 5))
                    .then(|| number_text(f64::from(m) * value));
                ticks.push(Tick { value: f64::from(m) * value, text });
            }
        }
    }
    ticks
}

fn octave_ticks(lo: f64, hi: f64, most: usize) -> Vec<Tick> {
    let (first, last) = ((lo - 1e-9).ceil() as i32, (hi + 1e-9).floor() as i32);
    let stride = ((last - first + 1).max(1) as usize).div_ceil(most) as i32;
    let plain = first >= 0 && last <= 17;
    (first..=last)
        .map(|e| Tick {
            value: f64::from(e).exp2(),
            text: ((e - first) % stride == 0).then(|| power_text(2, e, plain)),
        })
        .collect()
}

fn power_text(base: i32, exponent: i32, plain: bool) -> String {
    if plain {
        number_text(f64::from(base).powi(exponent))
    } else {
        format!("{base}{}", superscript(exponent))
    }
}

fn superscript(n: i32) -> String {
    n.to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            d => char::from_u32(0x2070 + d.to_digit(10).unwrap_or(0)).unwrap_or(d),
        })
        .collect()
}

/// A number with up to four digits and a typographic minus sign.
pub(crate) fn number_text(v: f64) -> String {
    if v == 0.0 {
        return "0".to_owned();
    }
    let e = v.abs().log10().floor() as i32;
    let s = if (-4..6).contains(&e) {
        let s = format!("{v:.*}", (3 - e).max(0) as usize);
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s }
    } else {
        let m = format!("{:.2}", v / 10f64.powi(e));
        format!("{}×10{}", m.trim_end_matches('0').trim_end_matches('.'), superscript(e))
    };
    s.replace('-', "−")
}

/// Numbers as text with the same number of decimals.
fn numbers(values: &[f64], step: f64) -> Vec<String> {
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest >= 1e6 || (largest > 0.0 && largest < 1e-3) {
        let e = largest.log10().floor() as i32;
        let decimals = decimals(step / 10f64.powi(e));
        return values
            .iter()
            .map(|v| {
                let m = format!("{:.*}", decimals, v / 10f64.powi(e)).replace('-', "−");
                if *v == 0.0 { "0".to_owned() } else { format!("{m}×10{}", superscript(e)) }
            })
            .collect();
    }
    let decimals = decimals(step);
    values
        .iter()
        .map(|v| {
            let v = if v.abs() < 1e-9 * step { 0.0 } else { *v };
            format!("{v:.decimals$}").replace('-', "−")
        })
        .collect()
}

fn decimals(step: f64) -> usize {
    (0..9)
        .find(|d| ((step * 10f64.powi(*d)).round() / 10f64.powi(*d) - step).abs() < 1e-6 * step)
        .unwrap_or(9) as usize
}

/// A plot: its rectangle and its axes.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub rect: Rect,
    pub x: Axis,
    pub y: Axis,
    /// Room between the frame and the title of the panel.
    pub lift: f64,
}

impl Plot {
    /// Position on the canvas.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.rect.x0 + self.x.fraction(x) * self.rect.width(),
            self.rect.y1 - self.y.fraction(y) * self.rect.height(),
        )
    }

    /// A value inside either axis, for maps that need one.
    pub fn middle(&self) -> (f64, f64) {
        let middle = |a: &Axis| a.scale.backward(0.5 * (a.lo + a.hi));
        (middle(&self.x), middle(&self.y))
    }

    fn most_x(&self) -> usize {
        (self.rect.width() / 52.0) as usize
    }

    fn most_y(&self) -> usize {
        (self.rect.height() / 34.0).clamp(2.0, 9.0) as usize
    }

    /// Grid lines at ticks with text.
    pub fn grid(&self, canvas: &mut Canvas) {
        let (x0, y0, x1, y1) = (self.rect.x0, self.rect.y0, self.rect.x1, self.rect.y1);
        for t in self.x.ticks(self.most_x()).iter().filter(|t| t.text.is_some()) {
            let (x, _) = self.at(t.value, self.middle().1);
            canvas.line(vec![(x, y0), (x, y1)], GRID_WIDTH, GRID, Dash::Solid);
        }
        for t in self.y.ticks(self.most_y()).iter().filter(|t| t.text.is_some()) {
            let (_, y) = self.at(self.middle().0, t.value);
            canvas.line(vec![(x0, y), (x1, y)], GRID_WIDTH, GRID, Dash::Solid);
        }
    }

    /// Draws frame, ticks, numbers, labels and title around the plot.
    pub fn frame(&self, canvas: &mut Canvas, title: &str) -> Result<(), FigureError> {
        let font = Font::new(TICK_SIZE, TEXT);
        canvas.outline(self.rect, FRAME_WIDTH, FRAME);
        let mut free_from = f64::NEG_INFINITY;
        for t in self.x.ticks(self.most_x()) {
            let x = self.rect.x0 + self.x.fraction(t.value) * self.rect.width();
            let mut length = 0.6 * TICK;
            if let Some(text) = &t.text {
                length = TICK;
                let half = 0.5 * font.width(text)?;
                // A label that would touch the previous one is left out; its tick stays.
                if x - half >= free_from {
                    let y = self.rect.y1 + TICK + 3.0 + 0.5 * TICK_SIZE;
                    canvas.text(text, (x, y), Align::Middle, font);
                    free_from = x + half + 5.0;
                }
            }
            canvas.line(vec![(x, self.rect.y1), (x, self.rect.y1 + length)], FRAME_WIDTH, FRAME, Dash::Solid);
        }
        for t in self.y.ticks(self.most_y()) {
            let y = self.rect.y1 - self.y.fraction(t.value) * self.rect.height();
            let mut length = 0.6 * TICK;
            if let Some(text) = &t.text {
                length = TICK;
                canvas.text(text, (self.rect.x0 - TICK - 3.0, y), Align::End, font);
            }
            canvas.line(vec![(self.rect.x0 - length, y), (self.rect.x0, y)], FRAME_WIDTH, FRAME, Dash::Solid);
        }
        self.labels(canvas, title, self.left()?)
    }

    /// Axis labels and title.
    fn labels(&self, canvas: &mut Canvas, title: &str, left: f64) -> Result<(), FigureError> {
        let (cx, cy) = self.rect.centre();
        let font = Font::new(LABEL_SIZE, TEXT);
        if !self.x.label.is_empty() {
            let y = self.rect.y1 + TICK + 3.0 + TICK_SIZE + GAP + 0.5 * LABEL_SIZE;
            canvas.text(&self.x.label, (cx, y), Align::Middle, font);
        }
        if !self.y.label.is_empty() {
            let x = self.rect.x0 - left + 0.5 * LABEL_SIZE + 2.0;
            canvas.turned_text(&self.y.label, (x, cy), Align::Middle, font);
        }
        panel_title(canvas, title, Rect { y0: self.rect.y0 - self.lift, ..self.rect })
    }

    /// Width of numbers and label on the left.
    pub fn left(&self) -> Result<f64, FigureError> {
        let font = Font::new(TICK_SIZE, TEXT);
        let mut widest = 0.0f64;
        for t in self.y.ticks(self.most_y()) {
            if let Some(text) = &t.text {
                widest = widest.max(font.width(text)?);
            }
        }
        Ok(TICK + 3.0 + widest + if self.y.label.is_empty() { 2.0 } else { GAP + LABEL_SIZE + 2.0 })
    }
}

/// Height of numbers and label below a plot.
pub(crate) fn below(labelled: bool) -> f64 {
    TICK + 3.0 + TICK_SIZE + if labelled { GAP + LABEL_SIZE } else { 0.0 } + 8.0
}

/// Lines of the title of a panel, at most as wide as the panel.
fn title_lines(title: &str, width: f64) -> Result<Vec<String>, FigureError> {
    Font::bold(LABEL_SIZE, TEXT).wrap(title, width.max(120.0))
}

/// Height of the title above a panel.
pub(crate) fn above(title: &str, width: f64) -> Result<f64, FigureError> {
    let lines = title_lines(title, width)?.len() as f64;
    Ok(if lines > 0.0 { lines * 1.3 * LABEL_SIZE + 6.0 } else { 6.0 })
}

/// The title of a panel, centred above its plot.
pub(crate) fn panel_title(canvas: &mut Canvas, title: &str, rect: Rect) -> Result<(), FigureError> {
    let lines = title_lines(title, rect.width())?;
    let (cx, _) = rect.centre();
    for (i, line) in lines.iter().rev().enumerate() {
        let y = rect.y0 - 7.0 - 0.5 * LABEL_SIZE - i as f64 * 1.3 * LABEL_SIZE;
        canvas.text(line, (cx, y), Align::Middle, Font::bold(LABEL_SIZE, TEXT));
    }
    Ok(())
}

/// Height of the title of a figure.
pub(crate) fn headline(title: &str, width: f64) -> Result<f64, FigureError> {
    let lines = Font::bold(TITLE_SIZE, TEXT).wrap(title, width - 24.0)?.len() as f64;
    Ok(if lines > 0.0 { lines * 1.3 * TITLE_SIZE + 16.0 } else { 8.0 })
}

/// The title of a figure.
pub(crate) fn draw_headline(canvas: &mut Canvas, title: &str, width: f64) -> Result<(), FigureError> {
    let font = Font::bold(TITLE_SIZE, TEXT);
    for (i, line) in font.wrap(title, width - 24.0)?.iter().enumerate() {
        let y = 12.0 + 0.5 * TITLE_SIZE + i as f64 * 1.3 * TITLE_SIZE;
        canvas.text(line, (0.5 * width, y), Align::Middle, font);
    }
    Ok(())
}

/// Width of a colour bar with the gap before it.
const BAR: f64 = 12.0;

/// Width of a colour bar with its numbers and label.
pub(crate) fn bar_room(range: (f64, f64), label: &str, height: f64) -> Result<f64, FigureError> {
    let font = Font::new(TICK_SIZE, TEXT);
    let axis = Axis::new(label, label, Scale::Linear, range, 0.0)?;
    let mut widest = 0.0f64;
    for t in axis.ticks(bar_ticks(height)) {
        widest = widest.max(font.width(t.text.as_deref().unwrap_or(""))?);
    }
    let label = if label.is_empty() { 0.0 } else { GAP + LABEL_SIZE };
    Ok(10.0 + BAR + TICK + 3.0 + widest + label + 6.0)
}

fn bar_ticks(height: f64) -> usize {
    (height / 40.0).clamp(2.0, 7.0) as usize
}

/// A colour bar to the right of a plot, in `levels` steps.
pub(crate) fn draw_bar(
    canvas: &mut Canvas,
    plot: Rect,
    range: (f64, f64),
    label: &str,
    palette: Palette,
    levels: usize,
) -> Result<(), FigureError> {
    let rect = Rect::new(plot.x1 + 10.0, plot.y0, plot.x1 + 10.0 + BAR, plot.y1);
    let mut rgb = Vec::with_capacity(3 * levels);
    for i in (0..levels).rev() {
        rgb.extend(palette.at(level_fraction(i, levels)).rgb());
    }
    canvas.pixels(rect, 1, levels, rgb);
    canvas.outline(rect, FRAME_WIDTH, FRAME);
    let axis = Axis::new(label, label, Scale::Linear, range, 0.0)?;
    let font = Font::new(TICK_SIZE, TEXT);
    let mut widest = 0.0f64;
    for t in axis.ticks(bar_ticks(rect.height())) {
        let y = rect.y1 - axis.fraction(t.value) * rect.height();
        let text = t.text.unwrap_or_default();
        canvas.line(vec![(rect.x1, y), (rect.x1 + TICK, y)], FRAME_WIDTH, FRAME, Dash::Solid);
        canvas.text(&text, (rect.x1 + TICK + 3.0, y), Align::Start, font);
        widest = widest.max(font.width(&text)?);
    }
    let x = rect.x1 + TICK + 3.0 + widest + GAP + 0.5 * LABEL_SIZE;
    canvas.turned_text(label, (x, rect.centre().1), Align::Middle, Font::new(LABEL_SIZE, TEXT));
    Ok(())
}

/// Position of level `i` of `levels` in the palette: the lowest at 0, the highest at 1.
pub(crate) fn level_fraction(i: usize, levels: usize) -> f64 {
    if levels > 1 { i as f64 / (levels - 1) as f64 } else { 0.5 }
}

/// Symbol of a legend entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub text: String,
    pub colour: Colour,
    pub line: Option<Dash>,
    pub marker: Option<(Marker, f64, Option<Colour>)>,
    pub swatch: Option<Swatch>,
}

/// A filled box in a legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swatch {
    Filled,
    Hatched,
}

const KEY: f64 = 26.0;
const ROW: f64 = 1.55 * TICK_SIZE;

impl Entry {
    pub fn swatch(text: &str, colour: Colour, swatch: Swatch) -> Self {
        Self { text: text.to_owned(), colour, line: None, marker: None, swatch: Some(swatch) }
    }

    pub fn marker(text: &str, colour: Colour, marker: Marker, radius: f64, rim: Option<Colour>) -> Self {
        Self { text: text.to_owned(), colour, line: None, marker: Some((marker, radius, rim)), swatch: None }
    }

    fn width(&self) -> Result<f64, FigureError> {
        Ok(KEY + Font::new(TICK_SIZE, TEXT).width(&self.text)?)
    }

    fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let middle = (x + 0.5 * (KEY - 7.0), y);
        if let Some(swatch) = self.swatch {
            let rect = Rect::new(x + 1.0, y - 5.0, x + KEY - 8.0, y + 5.0);
            canvas.rect(rect, self.colour);
            if swatch == Swatch::Hatched {
                canvas.hatch(rect, 5.0, crate::plot::style::HATCH);
            }
            canvas.outline(rect, 0.75, FRAME);
        }
        if let Some(dash) = self.line {
            canvas.line(vec![(x, y), (x + KEY - 7.0, y)], crate::plot::style::CURVE_WIDTH, self.colour, dash);
        }
        if let Some((marker, radius, rim)) = self.marker {
            canvas.marker(marker, middle, radius, self.colour, rim);
        }
        canvas.text(&self.text, (x + KEY, y), Align::Start, Font::new(TICK_SIZE, TEXT));
    }
}

/// Width of a legend in columns at most as high as `height`.
pub(crate) fn tall_legend_width(entries: &[Entry], height: f64) -> Result<f64, FigureError> {
    let rows = ((height / ROW) as usize).max(1);
    let mut total = 0.0;
    for column in entries.chunks(rows) {
        let mut widest = 0.0f64;
        for e in column {
            widest = widest.max(e.width()?);
        }
        total += widest + 14.0;
    }
    Ok(total)
}

/// Draws a legend in columns from the top left.
pub(crate) fn draw_tall_legend(
    canvas: &mut Canvas,
    entries: &[Entry],
    (x, y): (f64, f64),
    height: f64,
) -> Result<(), FigureError> {
    let rows = ((height / ROW) as usize).max(1);
    let mut left = x;
    for column in entries.chunks(rows) {
        let mut widest = 0.0f64;
        for (i, e) in column.iter().enumerate() {
            e.draw(canvas, left, y + (i as f64 + 0.5) * ROW);
            widest = widest.max(e.width()?);
        }
        left += widest + 14.0;
    }
    Ok(())
}

fn wide_rows(entries: &[Entry], width: f64) -> Result<Vec<Vec<(f64, usize)>>, FigureError> {
    let mut rows: Vec<Vec<(f64, usize)>> = Vec::new();
    let mut x = f64::INFINITY;
    for (i, e) in entries.iter().enumerate() {
        let w = e.width()?;
        if x + w > width {
            rows.push(Vec::new());
            x = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((x, i));
        }
        x += w + 20.0;
    }
    Ok(rows)
}

/// Height of a legend in rows at most as wide as `width`.
pub(crate) fn wide_legend_height(entries: &[Entry], width: f64) -> Result<f64, FigureError> {
    let rows = wide_rows(entries, width)?.len() as f64;
    Ok(if rows > 0.0 { rows * ROW + 10.0 } else { 0.0 })
}

/// Draws a legend in centred rows.
pub(crate) fn draw_wide_legend(
    canvas: &mut Canvas,
    entries: &[Entry],
    (x, y): (f64, f64),
    width: f64,
) -> Result<(), FigureError> {
    for (j, row) in wide_rows(entries, width)?.into_iter().enumerate() {
        let Some(&(last_x, last)) = row.last() else { continue };
        let used = last_x + entries[last].width()?;
        for (dx, i) in row {
            entries[i].draw(canvas, x + 0.5 * (width - used) + dx, y + (j as f64 + 0.5) * ROW);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale, range: (f64, f64), most: usize) -> Vec<String> {
        let axis = Axis::new("f", "a", scale, range, 0.0).unwrap();
        axis.ticks(most).into_iter().filter_map(|t| t.text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_with_true_minus_signs() {
        assert_eq!(texts(Scale::Linear, (-1.5, 1.5), 4), ["−1", "0", "1"]);
        assert_eq!(texts(Scale::Linear, (0.0, 1.0), 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Scale::Linear, (0.0, 0.25), 3), ["0.0", "0.1", "0.2"]);
        assert_eq!(texts(Scale::Log10, (1e-6, 1e2), 5), ["10⁻⁶", "10⁻⁴", "10⁻²", "10⁰", "10²"]);
        assert_eq!(texts(Scale::Log10, (0.1, 100.0), 3), ["1", "100"]);
        assert_eq!(texts(Scale::Log2, (2.0, 65536.0), 20).last().unwrap(), "65536");
        assert_eq!(texts(Scale::Log2, (2.0, 65536.0), 5), ["2", "32", "512", "8192"]);
        assert!(texts(Scale::Linear, (3.0, 3.0), 5).contains(&"3.0".to_owned()));
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(number_text(-0.25), "−0.25");
        assert_eq!(number_text(60000.0), "60000");
        assert_eq!(number_text(1.0 / 3.0), "0.3333");
        assert_eq!(number_text(1.5e-7), "1.5×10⁻⁷");
    }

    #[test]
    fn logarithmic_axes_refuse_zero() {
        let refused = Axis::new("f", "a", Scale::Log10, (0.0, 1.0), 0.0);
        assert!(matches!(refused, Err(FigureError::NotPositive { .. })));
    }
}
