//! Figures of curvature.

use super::{
    Class, Colour, Curve, CurvePanel, Figure, FigureError, Guide, curve_panels, curves, input, rainbow, style,
};
use crate::analyse::chosen::Group;
use crate::analyse::curvature::CurveRow;

/// Singular values of the Jacobian against their place, mean and standard deviation over the points of each class: a
/// panel for each K of `rows` (Fig. 5A above, Figs. 20 to 23). The `drop_top` largest are left out. A level line is
/// 1/sigma_t^2, where all values of an isolated memory lie; it has no meaning for raw values.
///
/// # Errors
/// As [`curve_panels`]; no rows that are left.
pub fn class_spectra(title: &str, rows: &[CurveRow], drop_top: usize) -> Result<Figure, FigureError> {
    let kept = kept(title, rows, drop_top)?;
    let mut panels = Vec::new();
    for k in sizes(&kept) {
        let mut panel = panel(&format!("K = {k}"), kept.iter().copied().filter(|r| r.set.k == k));
        for group in Group::ALL {
            let of = |r: &&CurveRow| r.set.k == k && r.set.group == group;
            let of: Vec<&CurveRow> = kept.iter().copied().filter(of).collect();
            if of.is_empty() {
                continue;
            }
            let band: Option<Vec<(f64, f64)>> =
                of.iter().map(|r| r.std.map(|std| (r.mean - std, r.mean + std))).collect();
            let mut curve = curve(group.name(), &of).colour(colour(group));
            curve.band = band;
            panel = panel.curve(curve);
        }
        panels.push(panel);
    }
    curve_panels(title, &panels, panels.len().min(3))
}

/// Mean spectra of training points, a curve for each K from purple for the smallest to red for the largest (Fig. 5A
/// below). Rows of other points are left out, and so are the `drop_top` largest values.
///
/// # Errors
/// As [`curves`]; no rows that are left.
pub fn training_spectra(title: &str, rows: &[CurveRow], drop_top: usize) -> Result<Figure, FigureError> {
    let training: Vec<CurveRow> = rows.iter().copied().filter(|r| r.set.group == Group::Training).collect();
    let kept = kept(title, &training, drop_top)?;
    let sizes = sizes(&kept);
    let mut panel = panel(title, kept.iter().copied());
    for (i, &k) in sizes.iter().enumerate() {
        let of: Vec<&CurveRow> = kept.iter().copied().filter(|r| r.set.k == k).collect();
        panel = panel.curve(curve(&format!("K = {k}"), &of).colour(rainbow(i, sizes.len())));
    }
    curves(&panel)
}

fn kept<'a>(title: &str, rows: &'a [CurveRow], drop_top: usize) -> Result<Vec<&'a CurveRow>, FigureError> {
    let mut kept: Vec<&CurveRow> = rows.iter().filter(|r| r.index > drop_top).collect();
    if kept.is_empty() {
        let reason = format!("no spectrum has more than the {drop_top} values that are left out");
        return Err(input(title, reason));
    }
    kept.sort_by_key(|r| (r.set.k, r.set.group, r.index));
    Ok(kept)
}

/// K in ascending order, of rows that are in it.
fn sizes(rows: &[&CurveRow]) -> Vec<usize> {
    let mut sizes: Vec<usize> = rows.iter().map(|r| r.set.k).collect();
    sizes.dedup();
    sizes
}

/// An empty panel with a line for each level of noise in `rows`.
fn panel<'a>(title: &str, rows: impl Iterator<Item = &'a CurveRow>) -> CurvePanel {
    let mut sigmas: Vec<f64> = rows.map(|r| r.set.sigma).collect();
    sigmas.sort_by(f64::total_cmp);
    sigmas.dedup();
    let panel =
        CurvePanel::new(title, "place of the singular value", "singular value of J, 1/(data unit)\u{b2}");
    sigmas
        .iter()
        .fold(panel, |panel, sigma| panel.guide(Guide::horizontal(sigma.powi(-2), "1/\u{3c3}\u{209c}\u{b2}")))
}

fn curve(name: &str, rows: &[&CurveRow]) -> Curve {
    let (x, y) = rows.iter().map(|r| (r.index as f64, r.mean)).unzip();
    Curve::new(name, x, y)
}

fn colour(group: Group) -> Colour {
    match group {
        Group::Memorized => Class::Memorized.colour(),
        Group::Spurious => Class::Spurious.colour(),
        Group::Generalized => Class::Generalized.colour(),
        Group::Training => style::TEXT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::curvature::Set;

    fn rows(groups: &[Group], sizes: &[usize]) -> Vec<CurveRow> {
        let mut rows = Vec::new();
        for &group in groups {
            for &k in sizes {
                for index in 1..=9 {
                    let set = Set { group, k, sigma: 0.1 };
                    let mean = 100.0 / (index + k) as f64;
                    rows.push(CurveRow { set, count: 4, index, mean, std: Some(1.0), exact: None });
                }
            }
        }
        rows
    }

    #[test]
    fn classes_and_sizes_are_in_the_legend() {
        let rows = rows(&Group::ALL, &[500, 2]);
        let classes = class_spectra("Spectra", &rows, 5).unwrap();
        for text in ["memorized", "spurious", "generalized", "training", "K = 2", "K = 500", "1/σₜ²"] {
            assert!(classes.svg().contains(text), "{text}");
        }
        let training = training_spectra("Training points", &rows, 0).unwrap();
        let small = training.svg().find("K = 2<").unwrap();
        assert!(small < training.svg().find("K = 500<").unwrap());
        let hue = |colour: Colour| {
            let [r, g, b] = colour.rgb();
            format!("#{r:02x}{g:02x}{b:02x}")
        };
        for index in 0..2 {
            assert!(training.svg().contains(&hue(rainbow(index, 2))));
        }
        assert!(!training.svg().contains("spurious"));
    }

    #[test]
    fn nothing_to_draw_and_nan_are_refused() {
        let mut rows = rows(&[Group::Spurious], &[2]);
        assert!(class_spectra("Spectra", &rows, 8).is_ok());
        assert!(matches!(class_spectra("Spectra", &rows, 9), Err(FigureError::Input { .. })));
        assert!(matches!(training_spectra("Spectra", &rows, 0), Err(FigureError::Input { .. })));
        // A single point has no band.
        rows.iter_mut().for_each(|r| r.std = None);
        assert!(class_spectra("Spectra", &rows, 5).is_ok());
        rows[6].mean = f64::NAN;
        assert!(matches!(class_spectra("Spectra", &rows, 5), Err(FigureError::NotFinite { .. })));
    }
}
