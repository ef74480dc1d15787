//! Every kind of figure, drawn with difficult data.
//!
//! With `MEM2GEN_LOOK=FOLDER` the figures are kept in that folder.

use std::env;
use std::path::PathBuf;

use mem2gen::class::Class;
use mem2gen::memory::toy::points;
use mem2gen::ops::Memories;
use mem2gen::plot::{
    Attractor, Curve, CurvePanel, Dash, Figure, FigureError, Guide, HeatmapPanel, Histogram, HistogramSeries,
    ImageGrid, ImageRow, LandscapePanel, Marker, PIXELS_PER_UNIT, Palette, Picture, Scale, TernaryPanel,
    curve_panels, curves, heatmap, heatmap_panels, histogram, histogram_panels, image_grid, landscape,
    landscape_panels, rainbow, ternary, ternary_panels,
};
use mem2gen::process::Ve;
use mem2gen::progress::Silent;
use mem2gen::score::Empirical;
use mem2gen::study::toy::trained::{ExactLandscapes, ToyNetwork, TrainedSettings, TrainedToy, analyse};
use mem2gen::study::toy::{self, Panel, Size};
use ndarray::{Array2, Array3};

/// The checks that hold for every figure.
fn check(id: &str, figure: Figure) -> image::RgbImage {
    if let Some(folder) = env::var_os("MEM2GEN_LOOK") {
        figure.save(&PathBuf::from(folder), id).unwrap();
    }
    let picture = image::load_from_memory(figure.png()).unwrap().to_rgb8();
    let size = (figure.width() * PIXELS_PER_UNIT, figure.height() * PIXELS_PER_UNIT);
    assert_eq!(picture.dimensions(), size, "{id}");
    let ink = picture.pixels().filter(|p| p.0.iter().any(|v| *v < 200)).count();
    assert!(ink > 500, "{id} is blank: {ink} dark pixels");
    // The outermost pixels stay empty: the drawing does not reach beyond the edge.
    let (w, h) = size;
    let rim = (0..w).flat_map(|x| [(x, 0), (x, h - 1)]).chain((0..h).flat_map(|y| [(0, y), (w - 1, y)]));
    for (x, y) in rim {
        assert_eq!(picture.get_pixel(x, y).0, [255; 3], "{id} reaches the edge at {x}, {y}");
    }
    assert!(figure.png().len() < 250_000, "{id} has {} bytes", figure.png().len());
    assert!(!figure.alt().is_empty());
    well_formed(id, figure.svg());
    picture
}

/// Checks an SVG for balanced tags, quoted attributes and escaped text.
fn well_formed(id: &str, svg: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = svg;
    let mut roots = 0;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        for (i, _) in text.match_indices('&') {
            let end = text[i..].find(';').unwrap_or_else(|| panic!("{id}: bare & in {text:?}"));
            assert!(
                ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].contains(&&text[i..=i + end]),
                "{id}: {text:?}"
            );
        }
        assert!(!text.contains('>'), "{id}: bare > in {text:?}");
        let end = start + rest[start..].find('>').unwrap_or_else(|| panic!("{id}: a tag never ends"));
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "{id}: {tag:?}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{id}: quotes of {tag:?}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{id}");
        } else {
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && roots == 1 && rest.trim().is_empty(), "{id}: {open:?} {roots}");
    let none = ["\"NaN", "\"inf", "\"-inf", ",NaN", ",inf", ",-inf", " NaN,", " inf,", " -inf,"];
    assert!(!none.iter().any(|n| svg.contains(n)), "{id} contains NaN or infinity");
}

fn bowls(n: usize, k: usize) -> Array2<f64> {
    let memories: Vec<(f64, f64)> = ring(k);
    Array2::from_shape_fn((n, n), |(j, i)| {
        let (x, y) = (-1.5 + 3.0 * i as f64 / (n - 1) as f64, -1.5 + 3.0 * j as f64 / (n - 1) as f64);
        let s: f64 = memories.iter().map(|(a, b)| (-12.0 * ((x - a).powi(2) + (y - b).powi(2))).exp()).sum();
        -(s + 1e-12).ln() / 12.0
    })
}

fn ring(k: usize) -> Vec<(f64, f64)> {
    (0..k).map(|i| i as f64 * 2.399).map(|a| (a.cos(), a.sin())).collect()
}

#[test]
fn one_landscape_with_everything_on_it() {
    let panel =
        LandscapePanel::new("Energy of K = 9 memories, β = 12", bowls(121, 9), (-1.5, 1.5), (-1.5, 1.5))
            .colour_label("energy E")
            .points(ring(9), "training data")
            .attractors(vec![
                Attractor { x: 1.0, y: 0.02, class: Class::Memorized },
                Attractor { x: 0.3, y: 0.8, class: Class::Spurious },
                Attractor { x: -0.8, y: -0.9, class: Class::Generalized },
                Attractor { x: 0.0, y: 0.0, class: Class::Invalid },
            ]);
    check("landscape", landscape(&panel).unwrap());
}

#[test]
fn landscapes_side_by_side() {
    let panels: Vec<LandscapePanel> = [2usize, 9, 1000, 60_000]
        .into_iter()
        .map(|k| {
            LandscapePanel::new(&format!("K = {k}"), bowls(81, k.min(300)), (-1.5, 1.5), (-1.5, 1.5))
                .colour_label("energy E")
                .points(ring(k.min(1000)), "training data")
                .point_radius(if k > 100 { 1.2 } else { 2.5 })
                .attractors(vec![
                    Attractor { x: 0.4, y: 0.6, class: Class::Memorized },
                    Attractor { x: -0.4, y: 0.6, class: Class::Spurious },
                ])
        })
        .collect();
    let title = "Energy landscapes of the toy ring: minima at the memories merge into a continuous valley";
    check("landscapes", landscape_panels(title, &panels, 4).unwrap());
    check("landscapes-2x2", landscape_panels(title, &panels, 2).unwrap());
}

/// A field that grows with x up to 1 on the right: the colour of a pixel is known.
#[test]
fn colours_match_the_field() {
    let field = Array2::from_shape_fn((3, 5), |(_, i)| i as f64 / 4.0);
    let panel = LandscapePanel::new("", field, (0.0, 1.0), (0.0, 1.0)).levels(10);
    let picture = check("ramp", landscape(&panel).unwrap());
    // The plot is the widest run of palette colours in the middle row.
    let y = picture.height() / 2 - 100;
    let low = Palette::Viridis.at(0.0).rgb();
    let high = Palette::Viridis.at(1.0).rgb();
    let row: Vec<[u8; 3]> = (0..picture.width()).map(|x| picture.get_pixel(x, y).0).collect();
    let first = row.iter().position(|p| *p == low).unwrap();
    let last = row.iter().position(|p| *p == high).unwrap() + 79;
    let width = (last - first + 1) as f64;
    assert!((width - 800.0).abs() < 8.0, "{width}");
    for level in 0..10 {
        let x = first + ((level as f64 + 0.5) / 10.0 * width) as usize;
        let expected = Palette::Viridis.at(level as f64 / 9.0).rgb();
        assert_eq!(row[x], expected, "level {level}");
    }

    // Row 0 of the field is at the bottom.
    let field = Array2::from_shape_fn((4, 4), |(j, _)| j as f64);
    let panel = LandscapePanel::new("", field, (0.0, 1.0), (0.0, 1.0));
    let picture = check("upright", landscape(&panel).unwrap());
    let x = first as u32 + 400;
    let column: Vec<[u8; 3]> = (0..picture.height()).map(|y| picture.get_pixel(x, y).0).collect();
    let top = column.iter().position(|p| *p == high).unwrap();
    let bottom = column.iter().rposition(|p| *p == low).unwrap();
    assert!(top < bottom, "{top} {bottom}");
    let middle = column[(top + bottom) / 2];
    assert!((i32::from(middle[1]) - i32::from(Palette::Viridis.at(0.5).g)).abs() < 6, "{middle:?}");
}

#[test]
fn curves_with_bands_gaps_guides_and_a_long_legend() {
    let x: Vec<f64> = (0..17).map(|i| 2f64.powi(i)).collect();
    let mut panel =
        CurvePanel::new("Fraction of end states that are memorized", "training-set size K", "fraction")
            .x_scale(Scale::Log2)
            .y_range(0.0, 1.0)
            .guide(Guide::vertical(180.0, "predicted K* = 180"))
            .guide(Guide::vertical(420.0, "first spurious"))
            .guide(Guide::vertical(500.0, "last"))
            .guide(Guide::vertical(520.0, "another of them"))
            .guide(Guide::horizontal(0.5, "one half"));
    for i in 0..12 {
        let shift = i as f64;
        let y: Vec<f64> = (0..17).map(|e| 1.0 / (1.0 + (0.9 * (e as f64 - shift - 1.0)).exp())).collect();
        let band = y.iter().map(|v| (v - 0.05, v + 0.05)).collect();
        let mut c =
            Curve::new(&format!("β = 2^{i}"), x.clone(), y).colour(rainbow(i, 12)).marker(Marker::Circle);
        if i % 4 == 0 {
            c = c.band(band);
        }
        panel = panel.curve(c);
    }
    check("curves", curves(&panel).unwrap());

    let t: Vec<f64> = (0..400).map(|i| 10f64.powf(-6.0 + 8.0 * i as f64 / 399.0)).collect();
    let mut gap: Vec<f64> = t.iter().map(|v| (v.log10() * 1.5).sin()).collect();
    gap[100] = f64::NAN;
    gap[300] = f64::NAN;
    let panels = [
        CurvePanel::new("Signs and decades", "σ²", "score s(x)")
            .x_scale(Scale::Log10)
            .curve(Curve::new("oscillates", t.clone(), gap).gaps())
            .curve(
                Curve::new("dashed", t.clone(), t.iter().map(|v| -0.5 * v.log10().cos()).collect())
                    .dash(Dash::Dashed),
            ),
        CurvePanel::new("Power law", "σ²", "E")
            .x_scale(Scale::Log10)
            .y_scale(Scale::Log10)
            .curve(
                Curve::new("dotted", t.clone(), t.iter().map(|v| 3.0 * v.powf(-0.7)).collect())
                    .dash(Dash::Dotted),
            )
            .curve(
                Curve::new("band", t.clone(), t.iter().map(|v| v.powf(-0.5)).collect())
                    .band(t.iter().map(|v| (0.3 * v.powf(-0.5), 3.0 * v.powf(-0.5))).collect()),
            )
            .curve(
                Curve::new("points", vec![1e-5, 1e-2, 10.0], vec![10.0, 1.0, 300.0])
                    .without_line()
                    .marker(Marker::Diamond),
            ),
        CurvePanel::new("Given ticks", "K", "count")
            .x_scale(Scale::Log10)
            .x_ticks([2, 9, 100, 1000, 60_000].iter().map(|k| (f64::from(*k), k.to_string())).collect())
            .curve(
                Curve::new(
                    "attractors",
                    vec![2.0, 9.0, 100.0, 1000.0, 60_000.0],
                    vec![2.0, 9.0, 80.0, 12.0, 1.0],
                )
                .marker(Marker::Square),
            ),
    ];
    check("curve-panels", curve_panels("Three panels with one legend", &panels, 3).unwrap());
}

fn ladder() -> (Vec<String>, Vec<String>) {
    let x = [2, 4, 8, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 60_000]
        .iter()
        .map(ToString::to_string)
        .collect();
    let y = ["10⁻³", "10⁻²", "0.1", "1", "10", "100", "10³", "10⁴"].iter().map(ToString::to_string).collect();
    (x, y)
}

#[test]
fn heat_maps_with_missing_cells() {
    let (x, y) = ladder();
    let mut values =
        Array2::from_shape_fn((8, 12), |(j, i)| 1.0 / (1.0 + (0.8 * (i as f64 - 1.3 * j as f64)).exp()));
    values[[7, 11]] = f64::NAN;
    values[[7, 10]] = f64::NAN;
    values[[6, 11]] = f64::NAN;
    let panel = HeatmapPanel::new("Recall of stored patterns", values.clone(), x.clone(), y.clone())
        .labels("training-set size K", "inverse temperature β")
        .colour_label("fraction recalled")
        .range(0.0, 1.0);
    check("heatmap", heatmap(&panel.clone().print(2)).unwrap());
    let other = HeatmapPanel::new("Difference between data sets", values.mapv(|v| 0.4 * v - 0.2), x, y)
        .labels("training-set size K", "inverse temperature β")
        .colour_label("difference")
        .palette(Palette::Diverging)
        .range(-0.2, 0.2);
    check("heatmaps", heatmap_panels("Two heat maps", &[panel, other], 2).unwrap());
}

#[test]
fn phase_diagrams() {
    let (x, y) = ladder();
    let part = |which: usize| {
        Array2::from_shape_fn((8, 12), |(j, i)| {
            if i == 11 && j > 5 {
                return f64::NAN;
            }
            let z = i as f64 - 1.3 * j as f64;
            let w = [(-z).exp(), 1.5, (0.7 * z - 1.0).exp()];
            w[which] / w.iter().sum::<f64>()
        })
    };
    let panel = |t: &str| {
        TernaryPanel::new(t, part(0), part(1), part(2), x.clone(), y.clone())
            .labels("training-set size K", "inverse temperature β")
    };
    let picture = check("ternary", ternary(&panel("MNIST")).unwrap());
    let pure = Class::Memorized.colour().rgb();
    assert!(picture.pixels().any(|p| p.0 == pure), "the corner of the key has the colour of its class");
    let two = [panel("MNIST"), panel("Fashion-MNIST").without_numbers()];
    check("ternaries", ternary_panels("What a noisy start ends in", &two, 2).unwrap());
}

#[test]
fn histograms_with_thresholds() {
    let sample = |n: usize, centre: f64, width: f64| -> Vec<f64> {
        (0..n)
            .map(|i| {
                centre + width * (0..8).map(|j| ((i * 37 + j * 911) % 997) as f64 / 997.0 - 0.5).sum::<f64>()
            })
            .collect()
    };
    let h = Histogram::new("Distance to the nearest memory", "distance")
        .series(
            HistogramSeries::new("training data", sample(4000, 2.0, 0.8)).colour(Class::Memorized.colour()),
        )
        .series(HistogramSeries::new("samples", sample(4000, 4.0, 1.1)).colour(Class::Generalized.colour()))
        .threshold(2.9, "δ = 2.9")
        .threshold(3.1, "δ′ = 3.1")
        .range(0.0, 6.0);
    check("histogram", histogram(&h).unwrap());
    let two = [h.clone().share(), h];
    check("histograms", histogram_panels("Shares and counts", &two, 2).unwrap());
}

#[test]
fn contact_sheets() {
    let picture = |s: usize, c: usize| {
        Picture::new(Array3::from_shape_fn((28, 28, c), |(j, i, k)| {
            let d = ((i as f32 - 14.0).powi(2) + (j as f32 - 14.0).powi(2)).sqrt();
            (1.2 - (d - 3.0 - s as f32).abs() / 4.0 + 0.1 * k as f32).max(0.0)
        }))
    };
    let mut grid = ImageGrid::new("Noisy starts and where they end")
        .columns((0..10).map(|i| format!("K = {}", 2usize << (1 + i))).collect());
    for (r, label) in ["stored pattern", "noisy start (σ = 0.3)", "end of x ← m(x)"].into_iter().enumerate()
    {
        let images = (0..10)
            .map(|i| {
                if r == 2 {
                    picture(i, 3).class(Class::LABELS[i % 4]).caption(Class::LABELS[i % 4].name())
                } else {
                    picture(i, 1)
                }
            })
            .collect();
        grid = grid.row(ImageRow::new(label, images));
    }
    grid.rows[1].images[4] = None;
    check("images", image_grid(&grid).unwrap());
}

#[test]
fn nan_and_infinity_are_refused_by_name() {
    let mut field = bowls(11, 2);
    field[[3, 4]] = f64::NAN;
    let panel = LandscapePanel::new("toy", field, (-1.0, 1.0), (-1.0, 1.0));
    match landscape(&panel) {
        Err(FigureError::NotFinite { figure, series, index, value }) => {
            assert_eq!((figure.as_str(), series.as_str(), index), ("toy", "field", 3 * 11 + 4));
            assert!(value.is_nan());
        }
        other => panic!("{other:?}"),
    }
    let points = LandscapePanel::new("toy", bowls(11, 2), (-1.0, 1.0), (-1.0, 1.0))
        .points(vec![(0.0, f64::INFINITY)], "data");
    assert!(matches!(landscape(&points), Err(FigureError::NotFinite { series, .. }) if series == "data"));

    let base = CurvePanel::new("c", "x", "y");
    let nan = Curve::new("s", vec![1.0, 2.0], vec![1.0, f64::NAN]);
    assert!(
        matches!(curves(&base.clone().curve(nan.clone())), Err(FigureError::NotFinite { series, index: 1, .. }) if series == "s")
    );
    assert!(curves(&base.clone().curve(nan.gaps())).is_ok());
    let infinite = Curve::new("s", vec![1.0, 2.0], vec![1.0, f64::INFINITY]).gaps();
    assert!(matches!(curves(&base.clone().curve(infinite)), Err(FigureError::NotFinite { .. })));
    let zero = Curve::new("s", vec![0.0, 2.0], vec![1.0, 1.0]);
    assert!(matches!(
        curves(&base.clone().x_scale(Scale::Log10).curve(zero)),
        Err(FigureError::NotPositive { .. })
    ));
    let uneven = Curve::new("s", vec![0.0], vec![1.0, 1.0]);
    assert!(matches!(curves(&base.clone().curve(uneven)), Err(FigureError::Input { .. })));
    assert!(matches!(curves(&base), Err(FigureError::Input { .. })));

    let infinite =
        HeatmapPanel::new("h", Array2::from_elem((1, 1), f64::INFINITY), vec!["a".into()], vec!["b".into()]);
    assert!(matches!(heatmap(&infinite), Err(FigureError::NotFinite { .. })));
    let half = Array2::from_elem((1, 1), 0.5);
    let more =
        TernaryPanel::new("t", half.clone(), half.clone(), half.clone(), vec!["a".into()], vec!["b".into()]);
    assert!(matches!(ternary(&more), Err(FigureError::Input { .. })));
    let ticks = HeatmapPanel::new("h", half, vec!["a".into(), "b".into()], vec!["b".into()]);
    assert!(matches!(heatmap(&ticks), Err(FigureError::Input { .. })));

    let h = Histogram::new("h", "x").series(HistogramSeries::new("s", vec![f64::NAN]));
    assert!(matches!(histogram(&h), Err(FigureError::NotFinite { .. })));
    let dot = Picture::new(Array3::from_elem((1, 1, 1), f32::NAN));
    let grid = ImageGrid::new("i").row(ImageRow::new("r", vec![dot]));
    assert!(matches!(image_grid(&grid), Err(FigureError::NotFinite { .. })));
}

#[test]
fn a_figure_is_shown_saved_and_described() {
    let panel = CurvePanel::new("one <line>\nEVCXR_END_CONTENT\na < b & \"c\"", "x", "y").curve(Curve::new(
        "s",
        vec![0.0, 1.0],
        vec![0.0, 1.0],
    ));
    let figure = curves(&panel).unwrap();
    well_formed("described", figure.svg());
    assert!(figure.svg().contains("<title>one &lt;line&gt;"));
    let folder = tempfile::tempdir().unwrap();
    let [png, svg] = figure.save(folder.path(), "fig1a").unwrap();
    assert_eq!(std::fs::read(png).unwrap(), figure.png());
    assert_eq!(std::fs::read_to_string(svg).unwrap(), figure.svg());

    let mut out = Vec::new();
    figure.write_display(&mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "EVCXR_BEGIN_CONTENT image/png");
    use base64::Engine as _;
    assert_eq!(base64::engine::general_purpose::STANDARD.decode(lines[1]).unwrap(), figure.png());
    assert_eq!(lines[2], "EVCXR_END_CONTENT");
    assert_eq!(lines[3], "EVCXR_BEGIN_CONTENT text/plain");
    assert_eq!(lines.iter().filter(|l| **l == "EVCXR_END_CONTENT").count(), 2);
}

/// The rows of networks with the exact scores of 2, 9 and 40 points, and the ring on the right.
#[test]
fn the_trained_half_of_the_second_figure() {
    let settings = TrainedSettings {
        t: 0.15,
        grid: 20,
        half_width: 1.5,
        region: 0.01,
        draws: 50,
        samples: 60,
        sampler_steps: 60,
        merge: 1e-2,
        pair: 0.15,
        random_starts: 50,
        seed: 1,
        networks: vec![ToyNetwork { k: 2, threshold: 0.5, steps: 1 }],
    };
    let params = settings.check().unwrap();
    let mut rows = TrainedToy::default();
    let mut sizes = Vec::new();
    let panel = |size, beta| Panel {
        landscape: toy::landscape(size, beta, 20, 1.5).unwrap(),
        points: points(40).unwrap(),
        attractors: None,
    };
    for k in [2, 9, 40] {
        let points = points(k).unwrap();
        let score = Empirical::new(Memories::new(points.clone()).unwrap());
        rows.extend(analyse(&score, Ve::default(), (k, 0.5), &params, &Silent).unwrap());
        sizes.push(Panel { points, ..panel(Size::Points(k), 10.0 / 3.0) });
    }
    sizes.push(panel(Size::Infinite, 10.0 / 3.0));
    let exact = ExactLandscapes { sizes, published: panel(Size::Infinite, 20.0) };
    check("trained", rows.landscapes(&exact).unwrap());
    check("trained-error", rows.errors(0.01).unwrap());
    rows.grid.pop();
    for refused in [rows.landscapes(&exact), rows.errors(0.01)] {
        assert!(matches!(refused, Err(FigureError::Input { reason, .. }) if reason.contains("square grid")));
    }
}
