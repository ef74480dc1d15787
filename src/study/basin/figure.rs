//! Figures of basins of attraction over K: volumes (Figs. 4B, 16 and 17) and critical times (Figs. 18 and 19).

use std::collections::BTreeSet;

use crate::class::Group;
use crate::plot::{Curve, CurvePanel, Figure, FigureError, Marker, Scale, curve_panels, unbroken};
use crate::study::basin::{BasinSummary, Mean};
use crate::study::subject::OfNetwork;

/// Mean log-volume of the basins against K, a panel for each network, with 95 percent bootstrap intervals. Classes with
/// too few images are crosses without a line.
///
/// # Errors
/// As [`curve_panels`]: nothing to draw, or a number that is not finite.
pub fn log_volumes(title: &str, networks: &[OfNetwork<BasinSummary>]) -> Result<Figure, FigureError> {
    panels(title, "mean log V\u{2099}(R), nats", networks, |row| row.log_volume)
}

/// Mean critical time against K, as [`log_volumes`].
///
/// # Errors
/// As [`log_volumes`].
pub fn critical_times(title: &str, networks: &[OfNetwork<BasinSummary>]) -> Result<Figure, FigureError> {
    panels(title, "mean critical time t_c", networks, |row| row.critical_time)
}

fn panels(
    title: &str,
    y: &str,
    networks: &[OfNetwork<BasinSummary>],
    mean: fn(&BasinSummary) -> Mean,
) -> Result<Figure, FigureError> {
    let panel = |network: &OfNetwork<BasinSummary>| {
        let empty = CurvePanel::new(&network.title(), "training images K", y).x_scale(Scale::Log2);
        let sizes: BTreeSet<usize> = network.rows.iter().map(|row| row.k).collect();
        Group::ALL.into_iter().fold(empty, |panel, group| {
            let of = |too_few: bool| -> Vec<&BasinSummary> {
                network.rows.iter().filter(|row| row.group == group && row.too_few == too_few).collect()
            };
            let curve = |label: &str, too_few: bool, of: Vec<&BasinSummary>| {
                let x: Vec<f64> = of.iter().map(|row| row.k as f64).collect();
                let band = of.iter().map(|row| (mean(row).low, mean(row).high)).collect();
                let curve = Curve::new(label, x, of.iter().map(|row| mean(row).mean).collect())
                    .colour(group.colour());
                if too_few {
                    curve.marker(Marker::Cross).without_line()
                } else {
                    curve.marker(group.marker()).band(band)
                }
            };
            let (enough, few) = (unbroken(of(false), &sizes, |row| row.k), of(true));
            let enough = enough.into_iter().map(|run| curve(group.name(), false, run));
            let few = (!few.is_empty()).then(|| curve(&format!("{group}, too few"), true, few));
            enough.chain(few).fold(panel, CurvePanel::curve)
        })
    };
    curve_panels(title, &networks.iter().map(panel).collect::<Vec<_>>(), networks.len().clamp(1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<OfNetwork<BasinSummary>> {
        let mean = |v: f64| Mean { mean: v, median: v, error: Some(1.0), low: v - 2.0, high: v + 1.0 };
        let row = |k, group, images, v| BasinSummary {
            k,
            group,
            images,
            too_few: images < 10,
            floor: 0,
            ceiling: 0,
            log_volume: mean(v),
            critical_time: mean(100.0 + v),
            radius: mean(1.0),
        };
        let of = |network: &str, rows| OfNetwork { dataset: "mnist".into(), network: network.into(), rows };
        let wide = vec![
            row(64, Group::MEMORIZED, 100, -10.0),
            row(8, Group::MEMORIZED, 100, 20.0),
            row(64, Group::SPURIOUS, 3, -20.0),
            row(64, Group::Training, 64, -11.0),
        ];
        vec![of("wide", wide), of("narrow", vec![row(64, Group::GENERALIZED, 100, -30.0)])]
    }

    #[test]
    fn classes_have_their_names_and_small_ones_are_marked() {
        let networks = networks();
        let drawn = [log_volumes("Volumes", &networks), critical_times("Times", &networks)];
        for figure in drawn.map(Result::unwrap) {
            let svg = figure.svg();
            for text in ["memorized", "spurious, too few", "generalized", "training", "mnist, wide", "narrow"]
            {
                assert!(svg.contains(text), "{text}");
            }
            assert!(!svg.contains("memorized, too few"));
        }
    }

    #[test]
    fn a_line_does_not_cross_a_size_that_has_no_images() {
        let sizes = BTreeSet::from([8, 16, 32, 64, 128]);
        let runs = |rows: &[usize]| -> Vec<Vec<usize>> {
            let runs = unbroken(rows.iter().collect(), &sizes, |k| *k);
            runs.into_iter().map(|run| run.into_iter().copied().collect()).collect()
        };
        assert_eq!(runs(&[64, 8, 16]), [vec![8, 16], vec![64]]);
        assert_eq!(runs(&[16, 32, 64, 128]), [[16, 32, 64, 128]]);
        assert_eq!(runs(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn nothing_and_what_is_not_finite_are_refused() {
        assert!(log_volumes("none", &[]).is_err());
        let mut bad = networks();
        bad[0].rows[0].log_volume.mean = f64::NEG_INFINITY;
        assert!(matches!(log_volumes("bad", &bad), Err(FigureError::NotFinite { .. })));
        assert!(critical_times("good", &bad).is_ok());
    }
}
