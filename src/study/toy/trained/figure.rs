//! Figures of the trained toy.

use ndarray::Array2;

use crate::class::Class;
use crate::plot::{
    Attractor, Figure, FigureError, LandscapePanel, Palette, bounds, input, landscape_panels, short,
};
use crate::study::toy::trained::{AttractorRow, GridRow, TrainedToy};
use crate::study::toy::{Panel, Size};

/// Colours of a landscape. The paper's figure has 100, which at this size nobody tells apart.
const LEVELS: usize = 40;

/// Fig. 2: above, a trained panel for each size and the exact one that the paper shows beside them, `published`;
/// below, for each of `exact` the energy that a perfect network would have. Panels in a column share their colours.
///
/// # Errors
/// As [`landscape_panels`]; rows that make no grid, or sizes without an exact panel.
pub fn trained_landscapes(
    title: &str,
    rows: &TrainedToy,
    exact: &[Panel],
    published: &Panel,
) -> Result<Figure, FigureError> {
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for panel in exact {
        let land = &panel.landscape;
        let name = format!("exact, {}, \u{3b2} = {}", land.size, short(land.beta));
        let low = exact_panel(&name, panel);
        let high = match land.size {
            Size::Points(k) => {
                let grid = Grid::of(title, k, &rows.grid)?;
                let energy = grid.field(|r| r.trained);
                let least = bounds(&energy).map_or(0.0, |b| b.0);
                let name = format!("trained, {}, \u{3b2} = {}", land.size, short(land.beta));
                let marks = rows.attractors.iter().filter(|a| a.k == k && a.trained);
                LandscapePanel::new(&name, energy - least, grid.x, grid.y)
                    .colour_label("energy above its minimum")
                    .levels(LEVELS)
                    .points(low.points.clone(), "training data")
                    .point_radius(low.point_radius)
                    .centroids(rows.clusters.iter().filter(|c| c.k == k).map(|c| (c.x, c.y)).collect())
                    .attractors(marks.map(mark).collect())
            }
            Size::Infinite => {
                let beta = short(published.landscape.beta);
                exact_panel(&format!("the paper's exact panel, \u{3b2} = {beta}"), published)
            }
        };
        let top = [&low, &high].iter().filter_map(|p| bounds(&p.field)).map(|b| b.1).fold(0.0, f64::max);
        above.push(high.range(0.0, top));
        below.push(low.range(0.0, top));
    }
    let columns = above.len();
    above.extend(below);
    landscape_panels(title, &above, columns)
}

/// Trained minus exact energy, its mean taken off where p_t is not negligible (above 1/`cut` of its maximum; these
/// points are marked): above with the true mixture as the prior at T, below with the paper's. All panels share their
/// colours, which end at the largest difference in such a region.
///
/// # Errors
/// As [`landscape_panels`]; rows that make no grid.
pub fn trained_errors(title: &str, rows: &TrainedToy, cut: f64) -> Result<Figure, FigureError> {
    let mut panels = Vec::new();
    let mut most = 0.0f64;
    for (prior, biased) in [("true prior", false), ("the paper's prior", true)] {
        let of = |r: &GridRow| if biased { r.gaussian_prior - r.exact } else { r.trained - r.exact };
        for summary in &rows.summary {
            let grid = Grid::of(title, summary.k, &rows.grid)?;
            let least = grid.rows.iter().map(|r| r.exact).fold(f64::INFINITY, f64::min);
            let inside = |r: &&GridRow| r.exact <= least + cut.ln() / summary.beta;
            let kept: Vec<&GridRow> = grid.rows.iter().copied().filter(inside).collect();
            let constant = kept.iter().map(|r| of(r)).sum::<f64>() / kept.len() as f64;
            let field = grid.field(of) - constant;
            most = kept.iter().map(|r| (of(r) - constant).abs()).fold(most, f64::max);
            let marks = rows.attractors.iter().filter(|a| a.k == summary.k && a.trained);
            let points = kept.iter().map(|r| (r.x, r.y)).collect();
            panels.push(
                LandscapePanel::new(&format!("K = {}, {prior}", summary.k), field, grid.x, grid.y)
                    .colour_label("trained \u{2212} exact energy")
                    .palette(Palette::Diverging)
                    .levels(41)
                    .points(points, "p\u{209c} not negligible")
                    .point_radius(0.7)
                    .attractors(marks.map(mark).collect()),
            );
        }
    }
    let panels: Vec<LandscapePanel> = panels.into_iter().map(|p| p.range(-most, most)).collect();
    landscape_panels(title, &panels, rows.summary.len())
}

fn mark(a: &AttractorRow) -> Attractor {
    Attractor { x: a.x, y: a.y, class: if a.memorized { Class::Memorized } else { Class::Spurious } }
}

fn exact_panel(name: &str, panel: &Panel) -> LandscapePanel {
    let half = panel.landscape.half_width;
    let marks = panel.attractors.iter().flat_map(|all| &all.found);
    LandscapePanel::new(name, panel.landscape.energy.clone(), (-half, half), (-half, half))
        .colour_label("energy above its minimum")
        .levels(LEVELS)
        .points(panel.points.outer_iter().map(|p| (p[0], p[1])).collect(), "training data")
        .point_radius(if panel.points.nrows() > 100 { 0.6 } else { 2.5 })
        .attractors(marks.map(|a| Attractor { x: a.x[0], y: a.x[1], class: a.kind }).collect())
}

/// The rows of one size as a square grid.
struct Grid<'a> {
    rows: Vec<&'a GridRow>,
    side: usize,
    x: (f64, f64),
    y: (f64, f64),
}

impl<'a> Grid<'a> {
    fn of(title: &str, k: usize, rows: &'a [GridRow]) -> Result<Self, FigureError> {
        let rows: Vec<&GridRow> = rows.iter().filter(|r| r.k == k).collect();
        let side = rows.len().isqrt();
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if side * side == rows.len() => {
                Ok(Self { side, x: (first.x, last.x), y: (first.y, last.y), rows })
            }
            _ => Err(input(title, format!("{} rows of K = {k} are no square grid", rows.len()))),
        }
    }

    fn field(&self, of: impl Fn(&GridRow) -> f64) -> Array2<f64> {
        Array2::from_shape_fn((self.side, self.side), |(i, j)| of(self.rows[i * self.side + j]))
    }
}
