//! Figures of the trained toy.

use ndarray::Array2;

use crate::class::Class;
use crate::plot::{
    Attractor, Figure, FigureError, LandscapePanel, Palette, bounds, input, landscape_panels, short,
};
use crate::study::toy::trained::{AttractorRow, ExactLandscapes, GridRow, TrainedToy};
use crate::study::toy::{Panel, Size};

/// Number of colours of a landscape. The paper has 100, which cannot be told apart at this size.
const LEVELS: usize = 40;

impl TrainedToy {
    /// Fig. 2. Top row: the trained energy of each size, and the exact panel that the paper shows beside them. Bottom
    /// row: for each size of `exact` the energy that a perfect network would have. Panels in one column share their
    /// colours.
    ///
    /// # Errors
    /// As [`landscape_panels`]; [`FigureError::Input`] for rows that do not form a square grid.
    pub fn landscapes(&self, exact: &ExactLandscapes) -> Result<Figure, FigureError> {
        let title = "Trained energies beside the exact ones";
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for panel in &exact.sizes {
            let land = &panel.landscape;
            let name = format!("exact, {}, \u{3b2} = {}", land.size, short(land.beta));
            let low = exact_panel(&name, panel);
            let high = match land.size {
                Size::Points(k) => {
                    let grid = SquareGrid::of_size(title, k, &self.grid)?;
                    let energy = grid.field(|r| r.trained);
                    let least = bounds(&energy).map_or(0.0, |b| b.0);
                    let name = format!("trained, {}, \u{3b2} = {}", land.size, short(land.beta));
                    let marks = self.attractors.iter().filter(|a| a.k == k && a.trained);
                    LandscapePanel::new(&name, energy - least, grid.x, grid.y)
                        .colour_label("energy above its minimum")
                        .levels(LEVELS)
                        .points(low.points.clone(), "training data")
                        .point_radius(low.point_radius)
                        .centroids(self.clusters.iter().filter(|c| c.k == k).map(|c| (c.x, c.y)).collect())
                        .attractors(marks.map(mark).collect())
                }
                Size::Infinite => {
                    let beta = short(exact.published.landscape.beta);
                    exact_panel(&format!("the paper's exact panel, \u{3b2} = {beta}"), &exact.published)
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

    /// Trained minus exact energy, without its mean over the region where p_t is above `region` times its maximum
    /// (these points are marked). Top row: with the true mixture as the prior at T; bottom row: with the paper's prior.
    /// All panels share their colours, which end at the largest difference in a region.
    ///
    /// # Errors
    /// As [`Self::landscapes`].
    pub fn errors(&self, region: f64) -> Result<Figure, FigureError> {
        let title = "Trained minus exact energy, a constant taken off";
        let cut = 1.0 / region;
        let mut panels = Vec::new();
        let mut most = 0.0f64;
        for (prior, biased) in [("true prior", false), ("the paper's prior", true)] {
            let difference =
                |r: &GridRow| if biased { r.gaussian_prior - r.exact } else { r.trained - r.exact };
            for summary in &self.summary {
                let grid = SquareGrid::of_size(title, summary.k, &self.grid)?;
                let least = grid.rows.iter().map(|r| r.exact).fold(f64::INFINITY, f64::min);
                let inside = |r: &&GridRow| r.exact <= least + cut.ln() / summary.beta;
                let kept: Vec<&GridRow> = grid.rows.iter().copied().filter(inside).collect();
                let constant = kept.iter().map(|r| difference(r)).sum::<f64>() / kept.len() as f64;
                let field = grid.field(difference) - constant;
                most = kept.iter().map(|r| (difference(r) - constant).abs()).fold(most, f64::max);
                let marks = self.attractors.iter().filter(|a| a.k == summary.k && a.trained);
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
        landscape_panels(title, &panels, self.summary.len())
    }
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
struct SquareGrid<'a> {
    rows: Vec<&'a GridRow>,
    side: usize,
    x: (f64, f64),
    y: (f64, f64),
}

impl<'a> SquareGrid<'a> {
    fn of_size(title: &str, k: usize, rows: &'a [GridRow]) -> Result<Self, FigureError> {
        let rows: Vec<&GridRow> = rows.iter().filter(|r| r.k == k).collect();
        let side = rows.len().isqrt();
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if side * side == rows.len() => {
                Ok(Self { side, x: (first.x, last.x), y: (first.y, last.y), rows })
            }
            _ => Err(input(title, format!("{} rows of K = {k} do not form a square grid", rows.len()))),
        }
    }

    fn field(&self, value: impl Fn(&GridRow) -> f64) -> Array2<f64> {
        Array2::from_shape_fn((self.side, self.side), |(i, j)| value(self.rows[i * self.side + j]))
    }
}
