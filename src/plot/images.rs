//! Contact sheets of small images.

use ndarray::{Array3, ArrayView1};

use crate::class::Class;
use crate::plot::axes::{draw_headline, headline};
use crate::plot::canvas::{Align, Canvas, Font, Rect};
use crate::plot::style::{FRAME, GRID, LABEL_SIZE, MISSING, TEXT, TICK_SIZE};
use crate::plot::{Figure, FigureError, input};
use crate::shape::Shape;

/// One image.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Height, width and channels (1 grey, 3 RGB). Values outside 0 to 1 are clamped.
    pub pixels: Array3<f32>,
    /// A short line below the image.
    pub caption: String,
    /// Class whose colour frames the image.
    pub class: Option<Class>,
}

impl Picture {
    /// An image without caption and class.
    pub fn new(pixels: Array3<f32>) -> Self {
        Self { pixels, caption: String::new(), class: None }
    }

    /// An image of values from -1 (black) to 1 in the order row, column, channel.
    ///
    /// # Errors
    /// [`FigureError::Input`] for another number of values than the shape has.
    pub fn symmetric(values: ArrayView1<'_, f64>, shape: Shape) -> Result<Self, FigureError> {
        if values.len() != shape.len() {
            let reason = format!("{} values, expected the {} of an image", values.len(), shape.len());
            return Err(input("picture", reason));
        }
        let Shape { height, width, channels } = shape;
        Ok(Self::new(Array3::from_shape_fn((height, width, channels), |(y, x, c)| {
            (0.5 + 0.5 * values[(y * width + x) * channels + c]) as f32
        })))
    }

    /// A short line below the image.
    pub fn caption(mut self, caption: &str) -> Self {
        self.caption = caption.to_owned();
        self
    }

    /// Class whose colour frames the image.
    pub fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }
}

/// A row of images.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// Text to the left of the row.
    pub label: String,
    /// The images; `None` for an empty cell.
    pub images: Vec<Option<Picture>>,
}

impl ImageRow {
    /// A row without empty cells.
    pub fn new(label: &str, images: Vec<Picture>) -> Self {
        Self { label: label.to_owned(), images: images.into_iter().map(Some).collect() }
    }
}

/// Side of a cell, in units. An image is scaled to fit.
const SIDE: f64 = 56.0;

/// Rows of images on one grid.
#[derive(Debug, Clone)]
pub struct ImageGrid {
    /// Title of the figure.
    pub title: String,
    /// Text above each column; empty for no text.
    pub columns: Vec<String>,
    /// The rows, from the top.
    pub rows: Vec<ImageRow>,
}

impl ImageGrid {
    /// An empty grid.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), columns: Vec::new(), rows: Vec::new() }
    }

    /// Text above each column.
    pub fn columns(mut self, columns: Vec<String>) -> Self {
        self.columns = columns;
        self
    }

    /// Adds a row.
    pub fn row(mut self, row: ImageRow) -> Self {
        self.rows.push(row);
        self
    }
}

/// A contact sheet.
///
/// ```
/// use mem2gen::plot::{ImageGrid, ImageRow, Picture, image_grid};
/// use ndarray::Array3;
///
/// let grey = Picture::new(Array3::from_elem((28, 28, 1), 0.5)).caption("grey");
/// let figure = image_grid(&ImageGrid::new("samples").row(ImageRow::new("first", vec![grey])))?;
/// assert!(figure.svg().contains("grey"));
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
///
/// # Errors
/// [`FigureError::NotFinite`]; [`FigureError::Input`] for a number of channels other than 1 or 3, no images, or a number
/// of column titles other than that of columns.
pub fn image_grid(grid: &ImageGrid) -> Result<Figure, FigureError> {
    let name = &grid.title;
    let count = grid.rows.iter().map(|r| r.images.len()).max().unwrap_or(0);
    if count == 0 {
        return Err(input(name, "there are no images to draw"));
    }
    if !grid.columns.is_empty() && grid.columns.len() != count {
        return Err(input(
            name,
            format!("{} column titles, expected {count}, one for each column", grid.columns.len()),
        ));
    }
    let (label, tick) = (Font::new(LABEL_SIZE, TEXT), Font::new(TICK_SIZE, TEXT));
    let mut left = 0.0f64;
    let mut labels = Vec::new();
    for r in &grid.rows {
        let lines = label.wrap(&r.label, 130.0)?;
        for l in &lines {
            left = left.max(label.width(l)?);
        }
        labels.push(lines);
    }
    let left = if left > 0.0 { (left + 20.0).ceil() } else { 12.0 };
    let mut step = SIDE + 8.0;
    for p in grid.rows.iter().flat_map(|r| r.images.iter().flatten()) {
        step = step.max((tick.width(&p.caption)? + 6.0).ceil().min(2.0 * SIDE));
    }
    let heads = grid.columns.iter().map(|c| tick.wrap(c, step - 4.0)).collect::<Result<Vec<_>, _>>()?;
    for line in heads.iter().flatten() {
        step = step.max((tick.width(line)? + 6.0).ceil());
    }
    let head = heads.iter().map(Vec::len).max().unwrap_or(0) as f64 * 1.3 * TICK_SIZE;
    let width = (left + count as f64 * step + 8.0).ceil().max(160.0);
    let top = (headline(name, width)? + head + 6.0).ceil();
    let below = |r: &ImageRow| {
        let captioned = r.images.iter().flatten().any(|p| !p.caption.is_empty());
        if captioned { 1.2 * TICK_SIZE + 4.0 } else { 0.0 }
    };
    let height = (top + grid.rows.iter().map(|r| SIDE + 10.0 + below(r)).sum::<f64>() + 4.0).ceil();
    let mut canvas = Canvas::new(width as u32, height as u32);
    draw_headline(&mut canvas, name, width)?;
    for (c, lines) in heads.iter().enumerate() {
        let x = left + (c as f64 + 0.5) * step;
        for (i, line) in lines.iter().rev().enumerate() {
            canvas.text(
                line,
                (x, top - 8.0 - 0.5 * TICK_SIZE - i as f64 * 1.3 * TICK_SIZE),
                Align::Middle,
                tick,
            );
        }
    }
    let mut y = top;
    for (r, row) in grid.rows.iter().enumerate() {
        let lines = &labels[r];
        for (i, line) in lines.iter().enumerate() {
            let offset = (i as f64 - 0.5 * (lines.len() as f64 - 1.0)) * 1.25 * LABEL_SIZE;
            canvas.text(line, (left - 8.0, y + 0.5 * SIDE + offset), Align::End, label);
        }
        for c in 0..count {
            let x = (left + c as f64 * step + 0.5 * (step - SIDE)).round();
            let place = Rect::new(x, y.round(), x + SIDE, y.round() + SIDE);
            match row.images.get(c).and_then(Option::as_ref) {
                None => canvas.outline(place, 0.75, GRID),
                Some(p) => {
                    let what = format!("row {}, column {}", r + 1, c + 1);
                    draw_picture(&mut canvas, name, &what, p, place)?;
                    if !p.caption.is_empty() {
                        let at = (x + 0.5 * SIDE, place.y1 + 5.0 + 0.5 * TICK_SIZE);
                        canvas.text(&p.caption, at, Align::Middle, tick);
                    }
                }
            }
        }
        y += SIDE + 10.0 + below(row);
    }
    let alt = format!("Images: {name}, {} rows of up to {count}", grid.rows.len());
    Figure::render(&canvas, width as u32, height as u32, &alt)
}

fn draw_picture(
    canvas: &mut Canvas,
    figure: &str,
    what: &str,
    p: &Picture,
    place: Rect,
) -> Result<(), FigureError> {
    let (h, w, channels) = p.pixels.dim();
    if h == 0 || w == 0 || !(channels == 1 || channels == 3) {
        return Err(input(
            figure,
            format!(
                "the image in {what} has shape {:?}, expected at least one pixel of 1 or 3 channels",
                p.pixels.dim()
            ),
        ));
    }
    let mut rgb = Vec::with_capacity(3 * w * h);
    for (index, &v) in p.pixels.iter().enumerate() {
        if !v.is_finite() {
            let (figure, series, value) = (figure.to_owned(), what.to_owned(), f64::from(v));
            return Err(FigureError::NotFinite { figure, series, index, value });
        }
        let byte = (255.0 * v.clamp(0.0, 1.0)).round() as u8;
        rgb.extend(std::iter::repeat_n(byte, if channels == 1 { 3 } else { 1 }));
    }
    let scale = (place.width() / w as f64).min(place.height() / h as f64);
    let half = |v: f64| (2.0 * v).round() / 2.0;
    let (iw, ih) = (half(scale * w as f64), half(scale * h as f64));
    let (x, y) = (half(place.x0 + 0.5 * (place.width() - iw)), half(place.y0 + 0.5 * (place.height() - ih)));
    let area = Rect::new(x, y, x + iw, y + ih);
    if iw < place.width() || ih < place.height() {
        canvas.rect(place, MISSING);
    }
    canvas.pixels(area, w, h, rgb);
    match p.class {
        Some(class) => {
            let around = Rect::new(place.x0 - 1.0, place.y0 - 1.0, place.x1 + 1.0, place.y1 + 1.0);
            canvas.outline(around, 3.0, class.colour());
        }
        None => canvas.outline(place, 0.5, FRAME),
    }
    Ok(())
}
