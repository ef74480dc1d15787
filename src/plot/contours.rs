//! Filled contours of a scalar field in the plane, with points and attractors.

use ndarray::Array2;

use crate::class::Class;
use crate::plot::axes::{
    Axis, Entry, Plot, Scale, above, bar_room, below, draw_bar, draw_headline, draw_wide_legend, headline,
    level_fraction, wide_legend_height,
};
use crate::plot::canvas::{Canvas, PIXELS_PER_UNIT, Rect};
use crate::plot::style::{Colour, Marker, Palette, TEXT, WHITE};
use crate::plot::{Figure, FigureError, bounds, check_finite, input};

/// An attractor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attractor {
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Its class.
    pub class: Class,
}

/// A field on a regular grid with points and attractors.
#[derive(Debug, Clone)]
pub struct LandscapePanel {
    /// Title of the panel.
    pub title: String,
    /// The field, `[rows, columns]`: row `j` at the height `y.0 + j (y.1 - y.0) / (rows - 1)`, so that row 0 is at the
    /// bottom, and columns along x in the same way.
    pub field: Array2<f64>,
    /// Horizontal positions of the first and the last column.
    pub x: (f64, f64),
    /// Vertical positions of the first and the last row.
    pub y: (f64, f64),
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Label of the colour bar.
    pub colour_label: String,
    /// Number of colours.
    pub levels: usize,
    /// Values of the lowest and the highest colour; values outside are clamped. `None`: the smallest and largest value of
    /// the field.
    pub range: Option<(f64, f64)>,
    /// The colour map.
    pub palette: Palette,
    /// Points, such as training data.
    pub points: Vec<(f64, f64)>,
    /// Name of the points in the legend.
    pub points_label: String,
    /// Radius of the points.
    pub point_radius: f64,
    /// Attractors, drawn over the points.
    pub attractors: Vec<Attractor>,
    /// Centroids of clusters of samples, drawn over the attractors.
    pub centroids: Vec<(f64, f64)>,
}

impl LandscapePanel {
    /// A field in 100 levels of viridis.
    pub fn new(title: &str, field: Array2<f64>, x: (f64, f64), y: (f64, f64)) -> Self {
        Self {
            title: title.to_owned(),
            field,
            x,
            y,
            x_label: "x₁".to_owned(),
            y_label: "x₂".to_owned(),
            colour_label: String::new(),
            levels: 100,
            range: None,
            palette: Palette::Viridis,
            points: Vec::new(),
            points_label: "training data".to_owned(),
            point_radius: 2.5,
            attractors: Vec::new(),
            centroids: Vec::new(),
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

    /// Points with their name in the legend.
    pub fn points(mut self, points: Vec<(f64, f64)>, label: &str) -> Self {
        (self.points, self.points_label) = (points, label.to_owned());
        self
    }

    /// Radius of the points.
    pub fn point_radius(mut self, radius: f64) -> Self {
        self.point_radius = radius;
        self
    }

    /// Attractors to mark.
    pub fn attractors(mut self, attractors: Vec<Attractor>) -> Self {
        self.attractors = attractors;
        self
    }

    /// Centroids of clusters of samples.
    pub fn centroids(mut self, centroids: Vec<(f64, f64)>) -> Self {
        self.centroids = centroids;
        self
    }

    /// Number of levels.
    pub fn levels(mut self, levels: usize) -> Self {
        self.levels = levels;
        self
    }

    /// The colour map.
    pub fn palette(mut self, palette: Palette) -> Self {
        self.palette = palette;
        self
    }

    fn check(&self) -> Result<(f64, f64), FigureError> {
        let name = &self.title;
        if self.field.nrows() < 2 || self.field.ncols() < 2 {
            return Err(input(
                name,
                format!("the field has shape {:?}, expected at least 2 rows and 2 columns", self.field.dim()),
            ));
        }
        if self.levels == 0 || self.levels > 1000 {
            return Err(input(name, format!("levels is {}, expected 1 to 1000", self.levels)));
        }
        check_finite(name, "field", &self.field)?;
        check_finite(name, "extents", &[self.x.0, self.x.1, self.y.0, self.y.1])?;
        if self.x.0 >= self.x.1 || self.y.0 >= self.y.1 {
            return Err(input(name, "the extents have no area, expected ascending positions"));
        }
        check_finite(name, &self.points_label, self.points.iter().flat_map(|(x, y)| [x, y]))?;
        check_finite(name, "attractors", self.attractors.iter().flat_map(|a| [&a.x, &a.y]))?;
        check_finite(name, "centroids", self.centroids.iter().flat_map(|(x, y)| [x, y]))?;
        let (lo, hi) = match self.range {
            Some(range) => range,
            None => bounds(&self.field).ok_or_else(|| input(name, "the field is empty"))?,
        };
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
            return Err(input(
                name,
                format!("colours have the range {lo} to {hi}, expected finite and ascending"),
            ));
        }
        // The bar of a constant field needs a length.
        Ok(if hi > lo { (lo, hi) } else { (lo - 0.5 * lo.abs().max(1.0), lo + 0.5 * lo.abs().max(1.0)) })
    }

    fn legend(&self, entries: &mut Vec<Entry>) {
        let mut add = |e: Entry| {
            if !entries.iter().any(|o| o.text == e.text) {
                entries.push(e);
            }
        };
        if !self.points.is_empty() {
            add(Entry::marker(
                &self.points_label,
                POINT,
                Marker::Circle,
                self.point_radius.max(2.5),
                Some(TEXT),
            ));
        }
        if !self.centroids.is_empty() {
            add(Entry::marker("cluster of samples", CENTROID, Marker::Diamond, CENTROID_RADIUS, Some(TEXT)));
        }
        for class in Class::LABELS {
            if self.attractors.iter().any(|a| a.class == class) {
                let text = format!("{} attractor", class.name());
                add(Entry::marker(&text, class.colour(), class.marker(), 4.5, Some(WHITE)));
            }
        }
    }
}

/// Colour of points, distinct from the colours of the map and of the classes.
const POINT: Colour = Colour::hex(0xff_ff_ff);

/// Colour of centroids: the reddish purple of Okabe and Ito, which is not the colour of a class.
const CENTROID: Colour = Colour::hex(0xcc_79_a7);
const CENTROID_RADIUS: f64 = 2.5;

/// One landscape.
///
/// ```
/// use mem2gen::plot::{LandscapePanel, landscape};
/// use ndarray::array;
///
/// let field = array![[1.0, 0.5, 1.0], [0.5, 0.0, 0.5], [1.0, 0.5, 1.0]];
/// let figure = landscape(&LandscapePanel::new("energy", field, (-1.0, 1.0), (-1.0, 1.0)))?;
/// assert!(figure.svg().contains("energy"));
/// # Ok::<(), mem2gen::plot::FigureError>(())
/// ```
///
/// # Errors
/// [`FigureError::NotFinite`]; [`FigureError::Input`] for a grid or extents without area.
pub fn landscape(panel: &LandscapePanel) -> Result<Figure, FigureError> {
    draw(String::new(), std::slice::from_ref(panel), 1)
}

/// Several landscapes in rows of `columns`, with one legend.
///
/// # Errors
/// As [`landscape`]; [`FigureError::Input`] without panels or columns.
pub fn landscape_panels(
    title: &str,
    panels: &[LandscapePanel],
    columns: usize,
) -> Result<Figure, FigureError> {
    draw(title.to_owned(), panels, columns)
}

fn draw(title: String, panels: &[LandscapePanel], columns: usize) -> Result<Figure, FigureError> {
    if panels.is_empty() || columns == 0 {
        return Err(input(&title, "there are no panels to draw"));
    }
    let columns = columns.min(panels.len());
    let side = match columns {
        1 => 400.0,
        2 => 330.0,
        3 => 270.0,
        _ => 230.0,
    };
    let ranges = panels.iter().map(LandscapePanel::check).collect::<Result<Vec<_>, _>>()?;
    let plot_width: f64 = side;
    let heights: Vec<f64> = panels
        .iter()
        .map(|p| (side * (p.y.1 - p.y.0) / (p.x.1 - p.x.0)).clamp(0.3 * side, 1.6 * side).round())
        .collect();
    let mut plots = Vec::new();
    let mut cell_left = vec![0.0f64; columns];
    let mut cell_right = vec![0.0f64; columns];
    for (i, p) in panels.iter().enumerate() {
        let plot = Plot {
            rect: Rect::new(0.0, 0.0, plot_width, heights[i]),
            x: Axis::new(&p.title, &p.x_label, Scale::Linear, p.x, 0.0)?,
            y: Axis::new(&p.title, &p.y_label, Scale::Linear, p.y, 0.0)?,
            lift: 0.0,
        };
        let c = i % columns;
        cell_left[c] = cell_left[c].max(plot.left()?.ceil());
        cell_right[c] = cell_right[c].max(bar_room(ranges[i], &p.colour_label, heights[i])?.ceil());
        plots.push(plot);
    }
    let mut entries = Vec::new();
    panels.iter().for_each(|p| p.legend(&mut entries));
    let width = (16.0
        + (0..columns).map(|c| cell_left[c] + plot_width + cell_right[c]).sum::<f64>()
        + 10.0 * (columns - 1) as f64)
        .ceil();
    let top = headline(&title, width)?.ceil();
    let mut y = top;
    for (r, row) in panels.chunks(columns).enumerate() {
        let (mut tallest, mut head) = (0.0f64, 0.0f64);
        for (c, p) in row.iter().enumerate() {
            head = head.max(above(&p.title, plot_width)?.ceil());
            tallest = tallest.max(heights[r * columns + c]);
        }
        let mut x = 8.0;
        for c in 0..row.len() {
            x += cell_left[c];
            let plot = &mut plots[r * columns + c];
            plot.rect = Rect::new(x, y + head, x + plot_width, y + head + heights[r * columns + c]);
            x += plot_width + cell_right[c] + 10.0;
        }
        let labelled = row.iter().any(|p| !p.x_label.is_empty());
        y += head + tallest + below(labelled).ceil();
    }
    let legend = wide_legend_height(&entries, width - 24.0)?.ceil();
    let height = y + legend + 4.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    draw_headline(&mut canvas, &title, width)?;
    for ((plot, p), range) in plots.iter().zip(panels).zip(&ranges) {
        draw_panel(&mut canvas, plot, p, *range)?;
    }
    draw_wide_legend(&mut canvas, &entries, (12.0, y), width - 24.0)?;
    let shown = if title.is_empty() { &panels[0].title } else { &title };
    let alt = format!("Landscape: {shown}");
    Figure::render(&canvas, width as u32, height as u32, &alt)
}

fn draw_panel(
    canvas: &mut Canvas,
    plot: &Plot,
    p: &LandscapePanel,
    range: (f64, f64),
) -> Result<(), FigureError> {
    let (w, h) = (
        (plot.rect.width() as u32 * PIXELS_PER_UNIT) as usize,
        (plot.rect.height() as u32 * PIXELS_PER_UNIT) as usize,
    );
    canvas.pixels(plot.rect, w, h, field_pixels(p, range, w, h));
    for &(x, y) in &p.points {
        let at = plot.at(x, y);
        if plot.rect.contains(at) {
            canvas.disc(at, p.point_radius + 0.8, TEXT);
            canvas.disc(at, p.point_radius, POINT);
        }
    }
    for a in &p.attractors {
        let at = plot.at(a.x, a.y);
        if plot.rect.contains(at) {
            canvas.marker(a.class.marker(), at, 4.5, a.class.colour(), Some(WHITE));
        }
    }
    for &(x, y) in &p.centroids {
        let at = plot.at(x, y);
        if plot.rect.contains(at) {
            canvas.marker(Marker::Diamond, at, CENTROID_RADIUS, CENTROID, Some(TEXT));
        }
    }
    plot.frame(canvas, &p.title)?;
    draw_bar(canvas, plot.rect, range, &p.colour_label, p.palette, p.levels)
}

/// Colours of the levels at the pixel centres, by bilinear interpolation; rows from the top.
fn field_pixels(p: &LandscapePanel, (lo, hi): (f64, f64), w: usize, h: usize) -> Vec<u8> {
    let (rows, columns) = p.field.dim();
    let colours: Vec<[u8; 3]> =
        (0..p.levels).map(|i| p.palette.at(level_fraction(i, p.levels)).rgb()).collect();
    let place = |pixel: usize, pixels: usize, cells: usize| {
        let s = (pixel as f64 + 0.5) / pixels as f64 * (cells - 1) as f64;
        let i = (s as usize).min(cells - 2);
        (i, s - i as f64)
    };
    let across: Vec<(usize, f64)> = (0..w).map(|i| place(i, w, columns)).collect();
    let mut rgb = Vec::with_capacity(3 * w * h);
    for j in 0..h {
        let (r, v) = place(h - 1 - j, h, rows);
        for &(c, u) in &across {
            let low = p.field[[r, c]] * (1.0 - u) + p.field[[r, c + 1]] * u;
            let high = p.field[[r + 1, c]] * (1.0 - u) + p.field[[r + 1, c + 1]] * u;
            let value = low * (1.0 - v) + high * v;
            let level =
                ((value - lo) / (hi - lo) * p.levels as f64).clamp(0.0, p.levels as f64 - 1.0) as usize;
            rgb.extend(colours[level]);
        }
    }
    rgb
}
