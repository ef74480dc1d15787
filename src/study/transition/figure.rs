//! Figures of the transition from memorization to generalization.

use ndarray::Array3;

use crate::class::Class;
use crate::data;
use crate::plot::style::{GRAY, OLIVE, series_colour};
use crate::plot::{
    Colour, Curve, CurvePanel, Dash, Figure, FigureError, Histogram, HistogramSeries, ImageGrid, ImageRow,
    Marker, Picture, Scale, curve_panels, histogram_panels, image_grid, input,
};
use crate::study::sweep::{ClassRow, DistanceRow, ExampleRow, Role, SweepRow, ThresholdRow, Transition};
use crate::study::transition::{NearRow, TransitionSettings, network_cells, networks, pooled};

const X: &str = "training set size K";
const Y: &str = "fraction of samples";
const CLASSES: [Class; 3] = [Class::Memorized, Class::Spurious, Class::Generalized];
/// The smallest distance of a histogram; smaller distances are counted there.
const FLOOR: f64 = 1e-4;
/// Number of examples of each class.
const EXAMPLES: usize = 2;

/// The shaded band of [`Transition::fractions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FractionBand {
    /// 95 percent intervals.
    Interval,
    /// Fractions with both thresholds at 3/4 and at 5/4.
    Thresholds,
}

impl Transition {
    /// Fractions of memorized, spurious and generalized samples against K (Fig. 4A), one panel for each data set and
    /// network, for the smallest |S| / K of each. Where the exact score was sampled too, its memorized fraction is dashed. The
    /// dotted line is the share of real images that would count as spurious, from [`near_duplicates`](super::near_duplicates).
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn fractions(&self, band: FractionBand, near: &[NearRow]) -> Result<Figure, FigureError> {
        let rows = &self.cells;
        let title = match band {
            FractionBand::Interval => "Samples of trained networks",
            FractionBand::Thresholds => "Bands: both thresholds at 3/4 and at 5/4",
        };
        let panels: Vec<CurvePanel> = networks(rows)
            .into_iter()
            .map(|(dataset, network)| {
                let cells = network_cells(rows, dataset, network, None);
                let mut panel = panel(&format!("{dataset}, {network}"), Y).y_range(0.0, 1.0);
                let exact = network_cells(rows, dataset, "exact", None);
                if !exact.is_empty() {
                    let y = exact.iter().map(|c| c.memorized.fraction).collect();
                    panel = panel.curve(
                        Curve::new("memorized, exact score", sizes(&exact), y)
                            .colour(Class::Memorized.colour())
                            .dash(Dash::Dashed),
                    );
                }
                let near: Vec<&NearRow> = near.iter().filter(|row| row.dataset == dataset).collect();
                if !near.is_empty() {
                    let x = near.iter().map(|row| row.k as f64).collect();
                    let y = near.iter().map(|row| row.share).collect();
                    panel = panel.curve(
                        Curve::new("real images with a near duplicate", x, y).colour(GRAY).dash(Dash::Dotted),
                    );
                }
                for (i, class) in CLASSES.into_iter().enumerate() {
                    let y = cells.iter().map(|c| of_class(c, class).fraction).collect();
                    let edges = cells.iter().map(|c| {
                        let row = of_class(c, class);
                        match band {
                            FractionBand::Interval => (row.low, row.high),
                            FractionBand::Thresholds => {
                                let (a, b) = (c.narrow[i], c.wide[i]);
                                (a.min(b).min(row.fraction), a.max(b).max(row.fraction))
                            }
                        }
                    });
                    panel = panel.curve(
                        Curve::new(class.name(), sizes(&cells), y)
                            .colour(class.colour())
                            .marker(class.marker())
                            .band(edges.collect()),
                    );
                }
                panel
            })
            .collect();
        curve_panels(title, &panels, 2)
    }

    /// Fractions with the same thresholds at every K, for the first network in `shown`: one panel for each pair of
    /// thresholds in the settings.
    ///
    /// # Errors
    /// As [`curve_panels`]; [`FigureError::Input`] for settings that show no network.
    pub fn fixed_thresholds(&self, settings: &TransitionSettings) -> Result<Figure, FigureError> {
        let title = "The same thresholds at every K";
        let Some((dataset, network)) = settings.shown.first() else {
            return Err(input(title, "the profile's setting shown has no network"));
        };
        let panels: Vec<CurvePanel> = settings
            .thresholds
            .iter()
            .map(|&(delta_m, delta_s)| {
                let rows = pooled(&self.samples, dataset, network, (delta_m, delta_s));
                let title = format!("{dataset}, {network}: \u{3b4}m = {delta_m}, \u{3b4}s = {delta_s}");
                CLASSES.into_iter().enumerate().fold(
                    panel(&title, Y).y_range(0.0, 1.0),
                    |panel, (i, class)| {
                        let x = rows.iter().map(|r| r.k as f64).collect();
                        let y = rows.iter().map(|r| r.fractions[i]).collect();
                        panel.curve(
                            Curve::new(class.name(), x, y).colour(class.colour()).marker(class.marker()),
                        )
                    },
                )
            })
            .collect();
        curve_panels(title, &panels, 3)
    }

    /// Distances to the training set (top) and within the synthetic set (bottom) at the sizes K of the settings, with the
    /// thresholds (Figs. 3 and 10 to 12).
    ///
    /// # Errors
    /// As [`histogram_panels`]; [`FigureError::Input`] for a size that was not sampled.
    pub fn histograms(&self, dataset: &str, settings: &TransitionSettings) -> Result<Figure, FigureError> {
        let title = title_of(dataset);
        let (network, ks) = (shown(title, settings, dataset)?, &settings.sizes);
        type Side =
            (&'static str, &'static str, fn(&DistanceRow) -> Option<f32>, fn(&SweepRow) -> &ThresholdRow);
        let sides: [(Side, _); 2] = [
            (("d(x, D)", "distance to the training set", |s| s.d_train, |c| &c.delta_m), OLIVE),
            (("d(x, S \\ x)", "distance to the other samples", |s| s.d_synthetic, |c| &c.delta_s), GRAY),
        ];
        let rows = network_cells(&self.cells, dataset, network, None);
        let log = |d: f64| d.max(FLOOR).log10();
        let logs = |cell: &SweepRow, value: fn(&DistanceRow) -> Option<f32>| -> Vec<f64> {
            self.samples
                .iter()
                .filter(|s| {
                    s.k == cell.k
                        && s.multiple == cell.multiple
                        && s.seed == cell.seed
                        && *s.dataset == *dataset
                        && *s.network == *network
                })
                .filter_map(|s| value(s).map(|d| log(f64::from(d))))
                .collect()
        };
        let mut panels = Vec::new();
        for ((name, legend, value, threshold), colour) in sides {
            for &k in ks {
                let Some(cell) = rows.iter().find(|c| c.k == k) else {
                    return Err(input(title, format!("{dataset}, {network} has no cell of K = {k}")));
                };
                let mut panel = Histogram::new(&format!("K = {k}"), &format!("log10 of {name}"))
                    .bins(50)
                    .range(FLOOR.log10(), 1.0)
                    .share()
                    .series(HistogramSeries::new(legend, logs(cell, value)).colour(colour));
                let threshold = threshold(cell);
                if let Some(delta) = threshold.value {
                    panel =
                        panel.threshold(log(delta), &format!("{delta:.3} ({})", origin(&threshold.origin)));
                }
                panels.push(panel);
            }
        }
        histogram_panels(title, &panels, ks.len())
    }

    /// Thresholds against K with the evidence for them: significant valleys, the 1 percent quantile of held-out images, and
    /// the medians of all distances. One panel for each data set and network.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn thresholds(&self) -> Result<Figure, FigureError> {
        let rows = &self.cells;
        type Value = fn(&SweepRow) -> Option<f64>;
        let lines: [(&str, Value, Colour, Dash); 6] = [
            ("median d(x, D)", |c| c.d_train, OLIVE, Dash::Solid),
            ("median d(x, S \\ x)", |c| c.d_synthetic, GRAY, Dash::Solid),
            ("held-out images, median", |c| c.held_out_quantiles[2], series_colour(5), Dash::Solid),
            ("held-out images, 1 percent", |c| c.held_out_quantiles[0], series_colour(5), Dash::Dashed),
            ("\u{3b4}m", |c| c.delta_m.value, Class::Memorized.colour(), Dash::Dashed),
            ("\u{3b4}s", |c| c.delta_s.value, Class::Spurious.colour(), Dash::Dotted),
        ];
        let valleys: [(&str, Value, Class); 2] = [
            ("valley of d(x, D)", |c| c.delta_m.believed(), Class::Memorized),
            ("valley of d(x, S \\ x)", |c| c.delta_s.believed(), Class::Spurious),
        ];
        let panels: Vec<CurvePanel> = networks(rows)
            .into_iter()
            .map(|(dataset, network)| {
                let cells = network_cells(rows, dataset, network, None);
                let mut panel = panel(&format!("{dataset}, {network}"), "distance").y_scale(Scale::Log10);
                for (name, value, colour, dash) in lines {
                    let (x, y) = known(&cells, value);
                    panel = panel.curve(Curve::new(name, x, y).colour(colour).dash(dash));
                }
                for (name, value, class) in valleys {
                    let (x, y) = known(&cells, value);
                    if !x.is_empty() {
                        let curve = Curve::new(name, x, y).colour(class.colour()).marker(class.marker());
                        panel = panel.curve(curve.without_line());
                    }
                }
                panel
            })
            .collect();
        curve_panels("Thresholds against K", &panels, 2)
    }

    /// Each class against K for the networks of one data set (Figs. 7 and 8).
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn widths(&self, dataset: &str) -> Result<Figure, FigureError> {
        let rows = &self.cells;
        let names: Vec<&str> =
            networks(rows).into_iter().filter(|(d, _)| *d == dataset).map(|(_, n)| n).collect();
        let panels: Vec<CurvePanel> = CLASSES
            .into_iter()
            .map(|class| {
                names.iter().enumerate().fold(
                    panel(class.name(), Y).y_range(0.0, 1.0),
                    |panel, (i, network)| {
                        let cells = network_cells(rows, dataset, network, None);
                        let Some(first) = cells.first() else { return panel };
                        let parameters = first.parameters;
                        let y = cells.iter().map(|c| of_class(c, class).fraction).collect();
                        let band =
                            cells.iter().map(|c| (of_class(c, class).low, of_class(c, class).high)).collect();
                        panel.curve(
                            Curve::new(&format!("{network}, {parameters} parameters"), sizes(&cells), y)
                                .colour(series_colour(i))
                                .marker(Marker::Circle)
                                .band(band),
                        )
                    },
                )
            })
            .collect();
        curve_panels("Networks of several widths on the same images", &panels, 3)
    }

    /// Each class against K for two sizes of S, as multiples of K (Fig. 9).
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn set_sizes(&self, settings: &TransitionSettings) -> Result<Figure, FigureError> {
        let rows = &self.cells;
        let ((dataset, network), multiples) = &settings.set_sizes;
        let panels: Vec<CurvePanel> = CLASSES
            .into_iter()
            .map(|class| {
                let mut panel = panel(class.name(), Y).y_range(0.0, 1.0);
                for (&multiple, dash) in multiples.iter().zip([Dash::Solid, Dash::Dashed]) {
                    let cells = network_cells(rows, dataset, network, Some(multiple));
                    let y = cells.iter().map(|c| of_class(c, class).fraction).collect();
                    let band =
                        cells.iter().map(|c| (of_class(c, class).low, of_class(c, class).high)).collect();
                    let colour = if dash == Dash::Solid { class.colour() } else { series_colour(6) };
                    panel = panel.curve(
                        Curve::new(&format!("|S| = {multiple} K"), sizes(&cells), y)
                            .colour(colour)
                            .dash(dash)
                            .band(band),
                    );
                }
                panel
            })
            .collect();
        curve_panels("Two sizes of the synthetic set", &panels, 3)
    }

    /// Samples of each class with their four nearest images of D (top) and of S (bottom), at the K at which the class has
    /// its largest fraction (Figs. 1B and 13 to 15).
    ///
    /// # Errors
    /// As [`image_grid`]; [`FigureError::Input`] for a data set that the settings do not show.
    pub fn examples(&self, dataset: &str, settings: &TransitionSettings) -> Result<Figure, FigureError> {
        let title = &format!("{}: samples, nearest of D and of S", title_of(dataset));
        let network = shown(title, settings, dataset)?;
        let cells = network_cells(&self.cells, dataset, network, None);
        let mut grid = ImageGrid::new(title);
        for class in [Class::Memorized, Class::Spurious, Class::Generalized] {
            let fraction = |c: &SweepRow| of_class(c, class).fraction;
            let Some(cell) = cells.iter().max_by(|a, b| fraction(a).total_cmp(&fraction(b))) else {
                continue;
            };
            let rows: Vec<&ExampleRow> = self
                .examples
                .iter()
                .filter(|r| {
                    *r.dataset == *dataset && *r.network == *network && r.k == cell.k && r.class == class
                })
                .collect();
            for example in 0..EXAMPLES {
                let pictures = |role: Role| -> Result<Vec<Option<Picture>>, FigureError> {
                    let mut some: Vec<&&ExampleRow> =
                        rows.iter().filter(|r| r.example == example && r.role == role).collect();
                    some.sort_by_key(|r| r.rank);
                    some.into_iter().map(|r| picture(title, r).map(Some)).collect()
                };
                let Some(sample) = pictures(Role::Sample)?.into_iter().next().flatten() else { break };
                let mut above = vec![Some(sample.class(class))];
                let mut below = vec![None];
                above.extend(pictures(Role::Train)?);
                below.extend(pictures(Role::Synthetic)?);
                let label = format!("{}, K = {}: D", class.name(), cell.k);
                grid = grid.row(ImageRow { label, images: above });
                grid = grid.row(ImageRow { label: "S".to_owned(), images: below });
            }
        }
        image_grid(&grid)
    }
}

/// Title of a data set; for one that is not registered its name.
fn title_of(dataset: &str) -> &str {
    data::find(dataset).map_or(dataset, |entry| entry.title)
}

/// The network of a data set that the settings show.
fn shown<'a>(title: &str, settings: &'a TransitionSettings, dataset: &str) -> Result<&'a str, FigureError> {
    let found = settings.shown.iter().find(|(d, _)| d == dataset).map(|(_, network)| network.as_str());
    found.ok_or_else(|| input(title, format!("the profile's setting shown has no network of {dataset}")))
}

fn panel(title: &str, y: &str) -> CurvePanel {
    CurvePanel::new(title, X, y).x_scale(Scale::Log2)
}

fn sizes(cells: &[&SweepRow]) -> Vec<f64> {
    cells.iter().map(|c| c.k as f64).collect()
}

fn of_class(cell: &SweepRow, class: Class) -> &ClassRow {
    match class {
        Class::Memorized => &cell.memorized,
        Class::Spurious => &cell.spurious,
        Class::Generalized | Class::Invalid => &cell.generalized,
    }
}

/// The sizes with a known value above 0, and these values, for a logarithmic axis.
fn known(cells: &[&SweepRow], value: impl Fn(&SweepRow) -> Option<f64>) -> (Vec<f64>, Vec<f64>) {
    cells.iter().filter_map(|c| Some((c.k as f64, value(c).filter(|v| *v > 0.0)?.max(FLOOR)))).unzip()
}

/// The origin of a threshold, as in figures.
fn origin(name: &str) -> &str {
    match name {
        "manual" => "given",
        "null" => "held-out",
        other => other,
    }
}

fn picture(title: &str, row: &ExampleRow) -> Result<Picture, FigureError> {
    let pixels: Vec<f32> = row.pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
    let [height, width, channels] = row.shape;
    let pixels =
        Array3::from_shape_vec((height, width, channels), pixels).map_err(|e| input(title, e.to_string()))?;
    let picture = Picture::new(pixels);
    Ok(if row.role == Role::Sample { picture } else { picture.caption(&format!("{:.3}", row.distance)) })
}
