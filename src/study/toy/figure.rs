//! Figures of the toy model.

use crate::class::Class;
use crate::plot::{
    Attractor, Curve, CurvePanel, Dash, Figure, FigureError, Guide, LandscapePanel, Marker, Palette, Scale,
    curve_panels, curves, landscape_panels, rainbow, short,
};
use crate::study::toy::{
    CircleProfile, CircleProfiles, Ladder, LadderRow, Landscapes, PairSplitting, Panel, RingConvergence, Size,
};

impl Landscapes {
    /// The landscapes side by side in rows of `columns`, each with its training points and attractors.
    ///
    /// # Errors
    /// As [`landscape_panels`].
    pub fn figure(&self, title: &str, columns: usize) -> Result<Figure, FigureError> {
        let panels: Vec<LandscapePanel> = self
            .panels
            .iter()
            .map(|Panel { landscape, points, attractors }| {
                let half = landscape.half_width;
                let name = format!("{}, \u{3b2} = {}", landscape.size, short(landscape.beta));
                let marks = attractors.iter().flat_map(|all| &all.found);
                LandscapePanel::new(&name, landscape.energy.clone(), (-half, half), (-half, half))
                    .colour_label("energy above its minimum")
                    .palette(Palette::Viridis)
                    .points(points.outer_iter().map(|p| (p[0], p[1])).collect(), "training data")
                    .point_radius(if points.nrows() > 100 { 0.8 } else { 2.5 })
                    .attractors(marks.map(|a| Attractor { x: a.x[0], y: a.x[1], class: a.kind }).collect())
            })
            .collect();
        landscape_panels(title, &panels, columns)
    }
}

impl CircleProfiles {
    /// Energy along the circle for each size (Fig. 1A).
    ///
    /// # Errors
    /// As [`curves`].
    pub fn figure(&self) -> Result<Figure, FigureError> {
        let title = format!("Energy along the circle at \u{3b2} = {}", short(self.beta));
        let mut panel = CurvePanel::new(&title, "angle in degrees", "energy + (log K)/\u{3b2}")
            .x_range(0.0, 360.0)
            .x_ticks((0..=4).map(|i| (90.0 * f64::from(i), format!("{}", 90 * i))).collect());
        for (i, CircleProfile { size, points }) in self.profiles.iter().enumerate() {
            let (x, y) = points.iter().map(|(a, e)| (a.to_degrees(), *e)).unzip();
            let mut curve = Curve::new(&size.to_string(), x, y).colour(rainbow(i, self.profiles.len()));
            if *size == Size::Infinite {
                curve = curve.dash(Dash::Dashed);
            }
            panel = panel.curve(curve);
        }
        curves(&panel)
    }
}

impl Ladder {
    /// Attractors against beta: their number, the fraction that is spurious, and the share of random starts that end in
    /// a memorized attractor.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn figure(&self) -> Result<Figure, FigureError> {
        let rows = &self.rows;
        let mut sizes: Vec<usize> = rows.iter().map(|r| r.k).collect();
        sizes.dedup();
        let panel = |title: &str, y: &str| CurvePanel::new(title, "\u{3b2}", y).x_scale(Scale::Log10);
        let mut count = panel("Attractors", "attractors").y_scale(Scale::Log10);
        let mut kinds = panel("Spurious among them", "fraction of the attractors").y_range(0.0, 1.0);
        let mut share = panel("Basins of the memorized", "share of random starts").y_range(0.0, 1.0);
        for (i, &k) in sizes.iter().enumerate() {
            let rows: Vec<&LadderRow> = rows.iter().filter(|r| r.k == k).collect();
            let beta: Vec<f64> = rows.iter().map(|r| r.beta).collect();
            let curve = |y: Vec<f64>| {
                Curve::new(&format!("K = {k}"), beta.clone(), y).colour(rainbow(i, sizes.len()))
            };
            let total = |r: &&LadderRow| (r.memorized + r.spurious) as f64;
            count = count.curve(curve(rows.iter().map(total).collect()));
            kinds = kinds.curve(curve(rows.iter().map(|r| r.spurious as f64 / total(r)).collect()));
            share = share.curve(curve(rows.iter().map(|r| r.share_memorized).collect()));
        }
        count = count.guide(Guide::vertical(self.critical_beta, "critical \u{3b2} of K = 2"));
        curve_panels("Attractors of the exact energy against \u{3b2}", &[count, kinds, share], 3)
    }
}

impl PairSplitting {
    /// The minima of two memories around their critical beta, found by retrieval and from u = tanh(ratio u).
    ///
    /// # Errors
    /// As [`curves`].
    pub fn figure(&self) -> Result<Figure, FigureError> {
        let rows = &self.rows;
        let x: Vec<f64> = rows.iter().map(|r| r.ratio).collect();
        let y = rows.iter().map(|r| r.closed_form).collect();
        let (fx, fy) = (x.clone(), rows.iter().map(|r| r.found).collect());
        let panel = CurvePanel::new(
            "Two memories share one minimum up to the critical \u{3b2}",
            "\u{3b2} / critical \u{3b2}",
            "distance from the midpoint / half distance",
        )
        .curve(Curve::new("closed form", x, y).colour(Class::Memorized.colour()))
        .curve(
            Curve::new("found by retrieval", fx, fy)
                .colour(Class::Spurious.colour())
                .without_line()
                .marker(Marker::Circle),
        )
        .guide(Guide::vertical(1.0, "critical \u{3b2}"));
        curves(&panel)
    }
}

impl RingConvergence {
    /// Difference between K points and the closed form of infinitely many, against K.
    ///
    /// # Errors
    /// As [`curves`].
    pub fn figure(&self) -> Result<Figure, FigureError> {
        let rows = &self.rows;
        let mut betas: Vec<f64> = rows.iter().map(|r| r.beta).collect();
        betas.sort_by(f64::total_cmp);
        betas.dedup();
        let mut panel = CurvePanel::new(
            "Finite sum against the closed form of the ring",
            "K",
            "rms energy difference along the ring",
        )
        .x_scale(Scale::Log10)
        .y_scale(Scale::Log10);
        for (i, &beta) in betas.iter().enumerate() {
            let (x, y) = rows.iter().filter(|r| r.beta == beta).map(|r| (r.k as f64, r.rms)).unzip();
            panel = panel.curve(
                Curve::new(&format!("\u{3b2} = {}", short(beta)), x, y)
                    .colour(rainbow(i, betas.len()))
                    .marker(Marker::Circle),
            );
        }
        curves(&panel)
    }
}
