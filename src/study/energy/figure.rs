//! Figures of relative energies.

use std::collections::BTreeSet;
use std::f64::consts::FRAC_PI_2;

use crate::Error;
use crate::class::Group;
use crate::plot::{
    Colour, Curve, CurvePanel, Dash, Figure, FigureError, Guide, ImageGrid, ImageRow, Picture, Scale,
    curve_panels, image_grid, input, unbroken,
};
use crate::study::energy::{CurveRow, Energies, GapRow};
use crate::study::subject::{Choice, NetworkRows, Subject};

/// Colour of training images, which have no class.
const TRAINING: Colour = Colour::hex(0x44_44_44);

const K: &str = "training images K";
/// The axis states the sign, as [`crate::study::energy::SIGN`] does.
const GAP: &str = "gap of u (above 0: less energy than training)";
const U: &str = "u(\u{3b1}) = U(x(\u{3b1})) \u{2212} U(target)";

/// The bands around the gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapBand {
    /// Standard deviation of u over the images of the class, as in the paper.
    Std,
    /// 95 percent bootstrap interval of the gap.
    Interval,
}

impl Energies {
    /// Gap of each class (Eq. 48), mean over references, against K, one panel for each network (Figs. 6 and 26). Classes
    /// with too few images are left out.
    ///
    /// # Errors
    /// As [`curve_panels`]; [`FigureError::Input`] for a network without a gap.
    pub fn gaps_figure(&self, band: GapBand) -> Result<Figure, FigureError> {
        let panels = self.gaps.iter().map(|network| {
            let rows: Vec<&GapRow> = network.rows.iter().filter(|r| r.reference.is_none()).collect();
            gap_panel(&network.title(), &rows, band)
        });
        let panels = panels.collect::<Result<Vec<_>, _>>()?;
        curve_panels("Relative energy gaps", &panels, self.gaps.len().clamp(1, 2))
    }

    /// As [`Self::gaps_figure`] for single references (Figs. 27 to 30): for each network one panel for the first
    /// reference of each K, one for the second, and so on.
    ///
    /// # Errors
    /// As [`Self::gaps_figure`].
    pub fn gaps_by_reference(&self, band: GapBand) -> Result<Figure, FigureError> {
        let (mut panels, mut columns) = (Vec::new(), 1);
        for network in &self.gaps {
            let ranks = by_rank(&network.rows);
            columns = columns.max(ranks.len());
            for (i, rows) in ranks.iter().enumerate() {
                panels.push(gap_panel(&format!("{}, reference {}", network.title(), i + 1), rows, band)?);
            }
        }
        curve_panels("Gaps by reference", &panels, columns.min(4))
    }

    /// Mean of u along the arcs from the images of each class to a reference (Fig. 25), with the standard deviation as
    /// a band: one panel for each network, with the first of its references.
    ///
    /// # Errors
    /// As [`curve_panels`].
    pub fn along_arcs(&self) -> Result<Figure, FigureError> {
        let panels: Vec<CurvePanel> = self.arcs.iter().filter_map(arc_panel).collect();
        curve_panels("Relative energy along the arcs", &panels, panels.len().clamp(1, 2))
    }
}

/// Images along the arcs x = cos(alpha) x_1 + sin(alpha) x_2 (Eq. 45) from one image of each group of a subject to a training
/// image (Fig. 25), with the angle in degrees below each.
///
/// # Errors
/// Those of [`Subject::images`] and [`image_grid`].
pub fn arc_images(subject: &Subject, reference: usize) -> Result<Figure, Error> {
    let title = format!("Images along the arcs to training image {reference}");
    let target = subject.training()?.row(reference).mapv(f64::from);
    let one = Choice { max: 1, ..Choice::default() };
    let mut grid = ImageGrid::new(&title);
    for group in Group::ALL {
        let images = subject.images(group, &one)?;
        let Some(from) = images.rows.outer_iter().next() else { continue };
        let from = from.mapv(f64::from);
        let at = |step: u32| {
            let angle = FRAC_PI_2 * f64::from(step) / 8.0;
            let x = angle.cos() * &from + angle.sin() * &target;
            let picture = Picture::symmetric(x.view(), subject.shape())?;
            Ok(picture.caption(&format!("{:.0}\u{b0}", angle.to_degrees())))
        };
        let pictures = (0..=8).map(at).collect::<Result<_, FigureError>>()?;
        grid = grid.row(ImageRow::new(group.name(), pictures));
    }
    Ok(image_grid(&grid)?)
}

/// The arcs of a network's first reference. `None` for a network without arcs.
fn arc_panel(network: &NetworkRows<CurveRow>) -> Option<CurvePanel> {
    let rows = &network.rows;
    let reference = rows.iter().map(|r| r.reference).min()?;
    let name = format!("{}, training image {reference}", network.title());
    let mut panel = CurvePanel::new(&name, "angle \u{3b1} (target to reference)", U)
        .x_range(0.0, FRAC_PI_2)
        .x_ticks(vec![
            (0.0, "0".into()),
            (0.5 * FRAC_PI_2, "\u{3c0}/4".into()),
            (FRAC_PI_2, "\u{3c0}/2".into()),
        ])
        .guide(Guide::horizontal(0.0, ""));
    for class in Group::ALL {
        let rows: Vec<&CurveRow> =
            rows.iter().filter(|r| r.group == class && r.reference == reference).collect();
        if !rows.is_empty() {
            let (x, y) = (rows.iter().map(|r| r.alpha).collect(), rows.iter().map(|r| r.mean).collect());
            let band = rows.iter().map(|r| (r.mean - r.std, r.mean + r.std)).collect();
            panel = panel.curve(series(class, x, y).band(band));
        }
    }
    Some(panel)
}

/// The rows of the first reference of each K, those of the second, and so on.
fn by_rank(rows: &[GapRow]) -> Vec<Vec<&GapRow>> {
    let mut panels: Vec<Vec<&GapRow>> = Vec::new();
    let mut seen: Vec<(usize, usize, usize)> = Vec::new();
    for row in rows {
        let Some(place) = row.reference else { continue };
        // The number of references of this K before this one.
        let rank = match seen.iter().find(|(k, p, _)| (*k, *p) == (row.k, place)) {
            Some((_, _, rank)) => *rank,
            None => {
                let rank = seen.iter().filter(|(k, _, _)| *k == row.k).count();
                seen.push((row.k, place, rank));
                rank
            }
        };
        panels.resize_with(panels.len().max(rank + 1), Vec::new);
        panels[rank].push(row);
    }
    panels
}

fn gap_panel(name: &str, rows: &[&GapRow], band: GapBand) -> Result<CurvePanel, FigureError> {
    let mut panel = CurvePanel::new(name, K, GAP).x_scale(Scale::Log2).guide(Guide::horizontal(0.0, ""));
    let sizes: BTreeSet<usize> = rows.iter().map(|r| r.k).collect();
    for class in Group::SAMPLES {
        let rows: Vec<&GapRow> = rows.iter().copied().filter(|r| r.group == class && !r.few).collect();
        let edge = |r: &&GapRow| match band {
            GapBand::Std => (r.gap - r.std, r.gap + r.std),
            GapBand::Interval => (r.interval[0], r.interval[1]),
        };
        for run in unbroken(rows, &sizes, |r| r.k) {
            let (x, y) = (run.iter().map(|r| r.k as f64).collect(), run.iter().map(|r| r.gap).collect());
            panel = panel.curve(marked(class, x, y).band(run.iter().map(edge).collect()));
        }
    }
    if panel.curves.is_empty() {
        return Err(input(name, "no class has a gap of enough images"));
    }
    Ok(panel)
}

fn series(class: Group, x: Vec<f64>, y: Vec<f64>) -> Curve {
    let curve = Curve::new(class.name(), x, y);
    match class {
        Group::Training => curve.colour(TRAINING).dash(Dash::Dashed),
        _ => curve.colour(class.colour()),
    }
}

fn marked(class: Group, x: Vec<f64>, y: Vec<f64>) -> Curve {
    series(class, x, y).marker(class.marker())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(k: usize, class: Group, reference: Option<usize>, gap: f64, few: bool) -> GapRow {
        GapRow {
            k,
            group: class,
            reference,
            n: 40,
            few,
            mean: gap,
            std: 0.3,
            gap,
            standard_error: 0.05,
            interval: [gap - 0.1, gap + 0.1],
            between: 0.0,
            loops: 0,
            circulation: 0.0,
            circulation_error: 0.0,
            size: 0.0,
        }
    }

    fn network<R>(rows: Vec<R>) -> Vec<NetworkRows<R>> {
        vec![NetworkRows { dataset: "mnist".into(), network: "mlp16".into(), rows }]
    }

    #[test]
    fn gaps_are_drawn_by_class_and_small_ones_left_out() {
        let mut rows = Vec::new();
        for (k, places) in [(2, [1, 0]), (16, [7, 3]), (128, [90, 14])] {
            for reference in [None, Some(places[0]), Some(places[1])] {
                rows.push(row(k, Group::MEMORIZED, reference, -0.01 * k as f64, false));
                rows.push(row(k, Group::SPURIOUS, reference, 0.2, k == 2));
                rows.push(row(k, Group::GENERALIZED, reference, 0.2, true));
                rows.push(row(k, Group::Training, reference, 0.0, false));
            }
        }
        let energies = Energies { gaps: network(rows), arcs: vec![] };
        let figure = energies.gaps_figure(GapBand::Std).unwrap();
        let named = |svg: &str, name: &str| svg.contains(&format!(">{name}<"));
        let svg = String::from_utf8(save(&figure)).unwrap();
        assert!(named(&svg, "memorized") && named(&svg, "spurious"));
        assert!(!named(&svg, "generalized") && !named(&svg, "training"));
        assert!(svg.contains("less energy than training"));
        let by = energies.gaps_by_reference(GapBand::Interval).unwrap();
        let by = String::from_utf8(save(&by)).unwrap();
        let reference = |rank: usize| named(&by, &format!("mnist, mlp16, reference {rank}"));
        assert!(reference(1) && reference(2) && !reference(3));
        let gaps = network(vec![row(2, Group::MEMORIZED, None, 1.0, true)]);
        let few = Energies { gaps, arcs: vec![] };
        assert!(matches!(few.gaps_figure(GapBand::Std), Err(FigureError::Input { .. })));
    }

    #[test]
    fn arcs_go_to_the_first_reference() {
        let at = |class, reference, alpha: f64| CurveRow {
            group: class,
            reference,
            alpha,
            n: 3,
            mean: alpha.sin(),
            std: 0.1 * alpha,
        };
        let rows: Vec<CurveRow> = [4, 11]
            .into_iter()
            .flat_map(|r| [Group::SPURIOUS, Group::Training].map(|c| (r, c)))
            .flat_map(|(r, c)| (0..5).map(move |i| at(c, r, FRAC_PI_2 * f64::from(i) / 4.0)))
            .collect();
        let energies = Energies { gaps: vec![], arcs: network(rows) };
        let svg = String::from_utf8(save(&energies.along_arcs().unwrap())).unwrap();
        assert!(svg.contains("training image 4") && !svg.contains("training image 11"));
        assert!(svg.contains("U(target)"));
        assert!(matches!(Energies::default().along_arcs(), Err(FigureError::Input { .. })));
    }

    fn save(figure: &Figure) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::read(&figure.save(folder.path(), "figure").unwrap()[1]).unwrap()
    }
}
