//! Figures of curvature.

use std::collections::BTreeSet;

use crate::class::Group;
use crate::plot::{Curve, CurvePanel, Figure, FigureError, Guide, curve_panels, input, rainbow};
use crate::study::curvature::{CurveRow, Spectra};
use crate::study::subject::NetworkRows;

impl Spectra {
    /// Singular values of the Jacobian against their index, mean and standard deviation over the points of each class
    /// (Fig. 5A, top; Figs. 20 to 23): one row of panels for each network, one panel for each of its K that is in
    /// `sizes`. The `drop_top` largest values are left out. A horizontal line shows 1/sigma_t^2, the value of every
    /// singular value of an isolated memory; it does not apply to raw values.
    ///
    /// # Errors
    /// As [`curve_panels`]; [`FigureError::Input`] for a network without rows after the selection.
    pub fn class_spectra(&self, sizes: &[usize], drop_top: usize) -> Result<Figure, FigureError> {
        let mut panels = Vec::new();
        for network in &self.curves {
            let kept = kept(network, |r| r.index > drop_top && sizes.contains(&r.set.k))?;
            for k in sizes_of(&kept) {
                let name = format!("{}, K = {k}", network.title());
                let mut panel = panel(&name, kept.iter().copied().filter(|r| r.set.k == k));
                for group in Group::ALL {
                    let rows: Vec<&CurveRow> =
                        kept.iter().copied().filter(|r| r.set.k == k && r.set.group == group).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    let band: Option<Vec<(f64, f64)>> =
                        rows.iter().map(|r| r.std.map(|std| (r.mean - std, r.mean + std))).collect();
                    let mut curve = curve(group.name(), &rows).colour(group.colour());
                    curve.band = band;
                    panel = panel.curve(curve);
                }
                panels.push(panel);
            }
        }
        curve_panels("Singular values of the Jacobian", &panels, sizes.len())
    }

    /// Mean spectra of training images (Fig. 5A, bottom): one panel for each network, one curve for each K, coloured
    /// from purple for the smallest K to red for the largest. The `drop_top` largest values are left out.
    ///
    /// # Errors
    /// As [`Self::class_spectra`].
    pub fn training_spectra(&self, drop_top: usize) -> Result<Figure, FigureError> {
        let each = self
            .curves
            .iter()
            .map(|network| {
                let wanted = |r: &CurveRow| r.index > drop_top && r.set.group == Group::Training;
                Ok((network.title(), kept(network, wanted)?))
            })
            .collect::<Result<Vec<_>, FigureError>>()?;
        let all: BTreeSet<usize> = each.iter().flat_map(|(_, rows)| sizes_of(rows)).collect();
        let panels = each.iter().map(|(name, rows)| {
            all.iter().enumerate().fold(panel(name, rows.iter().copied()), |panel, (i, &k)| {
                let rows: Vec<&CurveRow> = rows.iter().copied().filter(|r| r.set.k == k).collect();
                let curve = curve(&format!("K = {k}"), &rows).colour(rainbow(i, all.len()));
                if rows.is_empty() { panel } else { panel.curve(curve) }
            })
        });
        curve_panels("Training images", &panels.collect::<Vec<_>>(), self.curves.len().min(2))
    }
}

fn kept(
    network: &NetworkRows<CurveRow>,
    wanted: impl Fn(&CurveRow) -> bool,
) -> Result<Vec<&CurveRow>, FigureError> {
    let mut kept: Vec<&CurveRow> = network.rows.iter().filter(|r| wanted(r)).collect();
    if kept.is_empty() {
        return Err(input(&network.title(), "has no singular values other than those that are left out"));
    }
    kept.sort_by_key(|r| (r.set.k, r.set.group, r.index));
    Ok(kept)
}

/// The sizes K of rows that are sorted by K, ascending.
fn sizes_of(rows: &[&CurveRow]) -> Vec<usize> {
    let mut sizes: Vec<usize> = rows.iter().map(|r| r.set.k).collect();
    sizes.dedup();
    sizes
}

/// An empty panel with a horizontal line for each noise level in `rows`.
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

    fn network(groups: &[Group], sizes: &[usize]) -> NetworkRows<CurveRow> {
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
        NetworkRows { dataset: "mnist".into(), network: "mlp16".into(), rows }
    }

    fn spectra(curves: Vec<NetworkRows<CurveRow>>) -> Spectra {
        Spectra { curves, sets: vec![] }
    }

    #[test]
    fn classes_and_sizes_are_in_the_legend() {
        let spectra = spectra(vec![network(&Group::ALL, &[500, 2, 9]), network(&Group::ALL, &[2])]);
        let classes = spectra.class_spectra(&[2, 500], 5).unwrap();
        for text in ["memorized", "spurious", "generalized", "training", "K = 2", "K = 500", "1/σₜ²"] {
            assert!(classes.svg().contains(text), "{text}");
        }
        assert!(!classes.svg().contains("K = 9"));
        let training = spectra.training_spectra(0).unwrap();
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
        let classes =
            |one: &NetworkRows<CurveRow>, drop_top| spectra(vec![one.clone()]).class_spectra(&[2], drop_top);
        assert!(classes(&one, 8).is_ok());
        assert!(matches!(classes(&one, 9), Err(FigureError::Input { .. })));
        let training = spectra(vec![one.clone()]).training_spectra(0);
        assert!(matches!(training, Err(FigureError::Input { .. })));
        // A single point has no band.
        one.rows.iter_mut().for_each(|r| r.std = None);
        assert!(classes(&one, 5).is_ok());
        one.rows[6].mean = f64::NAN;
        assert!(matches!(classes(&one, 5), Err(FigureError::NotFinite { .. })));
    }
}
