//! Figures of the census: numbers of attractors and flows against K, and pictures of attractors.

use crate::class::Class;
use crate::plot::style::{GRAY, TEXT};
use crate::plot::{
    Curve, CurvePanel, Dash, Figure, FigureError, ImageGrid, ImageRow, Marker, Picture, Scale, curve_panels,
    image_grid, input, rainbow,
};
use crate::shape::Shape;
use crate::study::attractors::{Attractor, CensusRow, Censuses, FlowRow, Found, Start};
use crate::study::subject::NetworkRows;

const X: &str = "training set size K";
/// Kinds with fewer starts have no point in [`Censuses::flows`].
const LEAST: usize = 10;

impl Censuses {
    /// Numbers of memorized and of spurious attractors against K at one level, one panel for each network, with the memorized
    /// attractors of the exact score dashed.
    ///
    /// # Errors
    /// As [`curve_panels`]; [`FigureError::Input`] for a level that was not measured.
    pub fn counts(&self, t: f64) -> Result<Figure, FigureError> {
        let title = format!("Attractors at t = {t}");
        let panels = self.census.iter().map(|network| {
            let rows = |exact: bool| at(&title, network, |row| row.t == t && row.exact == exact);
            let curve = |name: &str, rows: &[&CensusRow], count: fn(&CensusRow) -> usize| {
                let x = rows.iter().map(|row| row.k as f64).collect();
                Curve::new(name, x, rows.iter().map(|row| count(row) as f64).collect())
            };
            let (of_network, of_exact) = (rows(false)?, rows(true)?);
            let panel = CurvePanel::new(&network.title(), X, "attractors")
                .x_scale(Scale::Log2)
                .curve(
                    curve("memorized, exact score", &of_exact, |row| row.memorized)
                        .colour(Class::Memorized.colour())
                        .dash(Dash::Dashed),
                )
                .curve(
                    curve("spurious, exact score", &of_exact, |row| row.spurious)
                        .colour(Class::Spurious.colour())
                        .dash(Dash::Dashed),
                )
                .curve(
                    curve("memorized", &of_network, |row| row.memorized)
                        .colour(Class::Memorized.colour())
                        .marker(Class::Memorized.marker()),
                )
                .curve(
                    curve("spurious", &of_network, |row| row.spurious)
                        .colour(Class::Spurious.colour())
                        .marker(Class::Spurious.marker()),
                );
            // The exact score's attractors are as many as training images, which would flatten the network's.
            let top = of_network.iter().map(|row| row.memorized.max(row.spurious)).max().unwrap_or(1);
            Ok(panel.y_range(0.0, 1.15 * top as f64))
        });
        curve_panels(&title, &panels.collect::<Result<Vec<_>, FigureError>>()?, 2)
    }

    /// Numbers of attractors of the networks, of both kinds together, against K: one panel for each network, one curve for each
    /// level, from purple for the lowest noise to red for the highest.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn levels(&self) -> Result<Figure, FigureError> {
        let title = "Attractors at several levels";
        let mut times: Vec<f64> = self.census.iter().flat_map(|of| of.rows.iter().map(|row| row.t)).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        let panels = self.census.iter().map(|network| {
            let panel = CurvePanel::new(&network.title(), X, "attractors").x_scale(Scale::Log2);
            times.iter().enumerate().try_fold(panel, |panel, (i, &t)| {
                let rows = at(title, network, |row| row.t == t && !row.exact)?;
                let x = rows.iter().map(|row| row.k as f64).collect();
                let y = rows.iter().map(|row| (row.memorized + row.spurious) as f64).collect();
                let curve = Curve::new(&format!("t = {t}"), x, y)
                    .colour(rainbow(i, times.len()))
                    .marker(Marker::Circle);
                Ok(panel.curve(curve))
            })
        });
        curve_panels(title, &panels.collect::<Result<Vec<_>, FigureError>>()?, 2)
    }

    /// Share of each kind of starts that flows to a memorized attractor against K, at one level: one panel for each network. Kinds
    /// with fewer than ten starts at a K are left out there.
    ///
    /// # Errors
    /// As [`Self::counts`].
    pub fn flows(&self, t: f64, starts: &[Start]) -> Result<Figure, FigureError> {
        let title = format!("Share of starts that flow to training images, t = {t}");
        let panels = self.flows.iter().map(|network| {
            let rows = at(&title, network, |row| row.t == t && !row.exact)?;
            let panel = CurvePanel::new(&network.title(), X, "share of starts")
                .x_scale(Scale::Log2)
                .y_range(-0.02, 1.02);
            Ok(starts.iter().fold(panel, |panel, &start| {
                let (x, y): (Vec<f64>, Vec<f64>) = rows
                    .iter()
                    .filter(|row| row.start == start && row.starts >= LEAST)
                    .map(|row| (row.k as f64, row.memorized))
                    .unzip();
                let (colour, marker, dash) = match start {
                    Start::Images(group) => (group.colour(), group.marker(), Dash::Solid),
                    Start::Noise => (GRAY, Marker::Circle, Dash::Dashed),
                    Start::HeldOut => (TEXT, Marker::Cross, Dash::Dotted),
                };
                let name = start.name().replace('_', "-");
                panel.curve(Curve::new(&name, x, y).colour(colour).marker(marker).dash(dash))
            }))
        });
        curve_panels(&title, &panels.collect::<Result<Vec<_>, FigureError>>()?, 2)
    }
}

/// The rows of a network that are wanted, in the order of K; at least one.
fn at<'a, R: HasSize>(
    title: &str,
    network: &'a NetworkRows<R>,
    wanted: impl Fn(&R) -> bool,
) -> Result<Vec<&'a R>, FigureError> {
    let mut rows: Vec<&R> = network.rows.iter().filter(|row| wanted(row)).collect();
    if rows.is_empty() {
        return Err(input(title, format!("{} has no rows at this level", network.title())));
    }
    rows.sort_by_key(|row| row.size());
    Ok(rows)
}

trait HasSize {
    fn size(&self) -> usize;
}

impl HasSize for CensusRow {
    fn size(&self) -> usize {
        self.k
    }
}

impl HasSize for FlowRow {
    fn size(&self) -> usize {
        self.k
    }
}

impl Found {
    /// The attractors at which most noise ends, at most `each` of each kind, with their share of the starts from noise. Values
    /// from -1 to 1 are drawn from black to white.
    ///
    /// # Errors
    /// As [`image_grid`]; [`FigureError::Input`] for a shape of another length.
    pub fn pictures(&self, title: &str, shape: Shape, each: usize) -> Result<Figure, FigureError> {
        let noise: usize = self.attractors.iter().map(|a| a.from(Start::Noise)).sum();
        let rows = [Class::Memorized, Class::Spurious].map(|class| {
            let mut of: Vec<&Attractor> = self.attractors.iter().filter(|a| a.class == class).collect();
            of.sort_by_key(|a| (std::cmp::Reverse(a.from(Start::Noise)), a.id));
            let picture = |a: &&Attractor| {
                let share = a.from(Start::Noise) as f64 / noise.max(1) as f64;
                let picture = Picture::symmetric(self.positions.row(a.id), shape)?;
                Ok(picture.caption(&format!("{:.1} %", 100.0 * share)).class(class))
            };
            let pictures = of.iter().take(each).map(picture).collect::<Result<_, FigureError>>()?;
            Ok(ImageRow::new(&format!("{} {class}", of.len()), pictures))
        });
        let rows = rows.into_iter().collect::<Result<Vec<_>, FigureError>>()?;
        let rows = rows.into_iter().filter(|row| !row.images.is_empty());
        image_grid(&rows.fold(ImageGrid::new(title), ImageGrid::row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Group;

    fn network<R>(rows: Vec<R>) -> Vec<NetworkRows<R>> {
        vec![NetworkRows { dataset: "mnist".into(), network: "mlp16".into(), rows }]
    }

    #[test]
    fn counts_and_flows_are_drawn_at_one_level() {
        let census = |k, exact, memorized, spurious| CensusRow {
            k,
            t: 15.0,
            exact,
            memorized,
            spurious,
            ..CensusRow::default()
        };
        let flow =
            |k, start, starts| FlowRow { k, t: 15.0, start, starts, memorized: 0.5, ..FlowRow::default() };
        let all = Censuses {
            census: network(vec![
                census(64, false, 9, 30),
                census(8, false, 8, 0),
                census(8, true, 8, 0),
                CensusRow { t: 50.0, ..census(8, false, 7, 0) },
            ]),
            flows: network(vec![
                flow(8, Start::Noise, 600),
                flow(64, Start::Noise, 600),
                flow(64, Start::HeldOut, 128),
                flow(64, Start::Images(Group::SPURIOUS), 3),
            ]),
        };
        let counts = all.counts(15.0).unwrap();
        for name in [">memorized<", ">spurious<", ">memorized, exact score<"] {
            assert!(counts.svg().contains(name), "{name}");
        }
        assert!(all.levels().unwrap().svg().contains(">t = 15<"));
        let kinds = [Start::Noise, Start::HeldOut, Start::Images(Group::SPURIOUS)];
        let flows = all.flows(15.0, &kinds).unwrap();
        assert!(flows.svg().contains(">noise<") && flows.svg().contains(">held-out<"));
        for other in [all.counts(99.0), all.flows(50.0, &kinds)] {
            assert!(matches!(other, Err(FigureError::Input { .. })));
        }
    }

    #[test]
    fn the_most_reached_attractors_are_shown_with_their_share() {
        let attractor = |id, class, noise| Attractor {
            id,
            class,
            starts: [noise, 0, 0, 0, 0, 0],
            ..Attractor::default()
        };
        let found = Found {
            t: 15.0,
            attractors: vec![
                attractor(0, Class::Memorized, 1),
                attractor(1, Class::Memorized, 6),
                attractor(2, Class::Spurious, 3),
            ],
            positions: ndarray::array![[0.0, 1.0], [0.5, -1.0], [0.25, 0.75]],
            end: vec![],
            moved: vec![],
            unstable: 0,
            fine: 3,
            coarse: 3,
        };
        let shape = Shape { height: 1, width: 2, channels: 1 };
        let svg = found.pictures("three", shape, 1).unwrap().svg().to_owned();
        assert!(svg.contains(">60.0 %<") && svg.contains(">30.0 %<") && !svg.contains(">10.0 %<"), "{svg}");
        assert!(svg.contains(">2 memorized<") && svg.contains(">1 spurious<"));
        let other = Shape { height: 2, width: 2, channels: 1 };
        assert!(matches!(found.pictures("three", other, 1), Err(FigureError::Input { .. })));
    }
}
