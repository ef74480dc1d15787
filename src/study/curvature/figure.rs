//! Figures of curvature.

use std::collections::BTreeSet;

use crate::class::Group;
use crate::plot::{Curve, CurvePanel, Figure, FigureError, Guide, curve_panels, input, rainbow};
use crate::study::curvature::CurveRow;
use crate::study::subject::OfNetwork;

/// Singular values of the Jacobian against their place, mean and standard deviation over the points of each class
/// (Fig. 5A above, Figs. 20 to 23): a row of panels for each network, a panel for each of the sizes K in `shown` that
/// it has. The `drop_top` largest are left out. A level line is 1/sigma_t^2, where all values of an isolated memory
/// lie; it has no meaning for raw values.
///
/// # Errors
/// As [`curve_panels`]; a network without rows that are left.
pub fn class_spectra(
    title: &str,
    networks: &[OfNetwork<CurveRow>],
    shown: &[usize],
    drop_top: usize,
) -> Result<Figure, FigureError> {
    let mut panels = Vec::new();
    for network in networks {
        let kept = kept(network, |r| r.index > drop_top && shown.contains(&r.set.k))?;
        for k in sizes(&kept) {
            let name = format!("{}, K = {k}", network.title());
            let mut panel = panel(&name, kept.iter().copied().filter(|r| r.set.k == k));
            for group in Group::ALL {
                let of = |r: &&CurveRow| r.set.k == k && r.set.group == group;
                let of: Vec<&CurveRow> = kept.iter().copied().filter(of).collect();
                if of.is_empty() {
                    continue;
                }
                let band: Option<Vec<(f64, f64)>> =
                    of.iter().map(|r| r.std.map(|std| (r.mean - std, r.mean + std))).collect();
                let mut curve = curve(group.name(), &of).colour(group.colour());
                curve.band = band;
                panel = panel.curve(curve);
            }
            panels.push(panel);
        }
    }
    curve_panels(title, &panels, shown.len())
}

/// Mean spectra of training points (Fig. 5A below): a panel for each network, a curve for each K, from purple for the
/// smallest to red for the largest that any of them has. Rows of other points are left out, and so are the `drop_top`
/// largest values.
///
/// # Errors
/// As [`class_spectra`].
pub fn training_spectra(
    title: &str,
    networks: &[OfNetwork<CurveRow>],
    drop_top: usize,
) -> Result<Figure, FigureError> {
    let each = networks
        .iter()
        .map(|network| {
            let wanted = |r: &CurveRow| r.index > drop_top && r.set.group == Group::Training;
            Ok((network.title(), kept(network, wanted)?))
        })
        .collect::<Result<Vec<_>, FigureError>>()?;
    let all: BTreeSet<usize> = each.iter().flat_map(|(_, rows)| sizes(rows)).collect();
    let panels = each.iter().map(|(name, rows)| {
        all.iter().enumerate().fold(panel(name, rows.iter().copied()), |panel, (i, &k)| {
            let of: Vec<&CurveRow> = rows.iter().copied().filter(|r| r.set.k == k).collect();
            let curve = curve(&format!("K = {k}"), &of).colour(rainbow(i, all.len()));
            if of.is_empty() { panel } else { panel.curve(curve) }
        })
    });
    curve_panels(title, &panels.collect::<Vec<_>>(), networks.len().min(2))
}

fn kept(
    network: &OfNetwork<CurveRow>,
    wanted: impl Fn(&CurveRow) -> bool,
) -> Result<Vec<&CurveRow>, FigureError> {
    let mut kept: Vec<&CurveRow> = network.rows.iter().filter(|r| wanted(r)).collect();
    if kept.is_empty() {
        return Err(input(&network.title(), "has no singular values but those that are left out"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Colour;
    use crate::study::curvature::Set;

    fn network(groups: &[Group], sizes: &[usize]) -> OfNetwork<CurveRow> {
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
        OfNetwork { dataset: "mnist".into(), network: "mlp16".into(), rows }
    }

    #[test]
    fn classes_and_sizes_are_in_the_legend() {
        let networks = [network(&Group::ALL, &[500, 2, 9]), network(&Group::ALL, &[2])];
        let classes = class_spectra("Spectra", &networks, &[2, 500], 5).unwrap();
        for text in ["memorized", "spurious", "generalized", "training", "K = 2", "K = 500", "1/σₜ²"] {
            assert!(classes.svg().contains(text), "{text}");
        }
        assert!(!classes.svg().contains("K = 9"));
        let training = training_spectra("Training points", &networks, 0).unwrap();
        let small = training.svg().find("K = 2<").unwrap();
        assert!(small < training.svg().find("K = 500<").unwrap());
        let hue = |colour: Colour| {
            let [r, g, b] = colour.rgb();
            format!("#{r:02x}{g:02x}{b:02x}")
        };
        for index in 0..2 {
            assert!(training.svg().contains(&hue(rainbow(2 * index, 3))));
        }
        assert!(!training.svg().contains("spurious"));
    }

    #[test]
    fn nothing_to_draw_and_nan_are_refused() {
        let mut one = network(&[Group::SPURIOUS], &[2]);
        let classes = |one: &OfNetwork<CurveRow>, drop_top| {
            class_spectra("Spectra", std::slice::from_ref(one), &[2], drop_top)
        };
        assert!(classes(&one, 8).is_ok());
        assert!(matches!(classes(&one, 9), Err(FigureError::Input { .. })));
        let training = training_spectra("Spectra", std::slice::from_ref(&one), 0);
        assert!(matches!(training, Err(FigureError::Input { .. })));
        // A single point has no band.
        one.rows.iter_mut().for_each(|r| r.std = None);
        assert!(classes(&one, 5).is_ok());
        one.rows[6].mean = f64::NAN;
        assert!(matches!(classes(&one, 5), Err(FigureError::NotFinite { .. })));
    }
}
